"""The machines of these tests: what a cut cuts, what a full disk takes, and that nothing is left of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import machines
import pytest
from machines import Lan, Machine, leftovers, visiting
from rig import until
from throttle import why_no_throttle

PORT = 7000


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    with Lan(3, tmp_path) as made:
        yield made


class Listener:
    """UDP and TCP on one machine."""

    def __init__(self, machine: Machine) -> None:
        with visiting(machine.name):
            self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.datagrams.bind(("", PORT))
            self.calls = socket.create_server((machine.address, PORT))
        self.datagrams.settimeout(0.5)

    def close(self) -> None:
        self.datagrams.close()
        self.calls.close()


@pytest.fixture
def listeners(lan: Lan) -> Iterator[dict[str, Listener]]:
    made = {machine.name: Listener(machine) for machine in lan.machines}
    yield made
    for listener in made.values():
        listener.close()


def hears(listener: Listener, source: Machine, target: str) -> bool:
    """Whether a datagram from `source` to this address arrives. One that is let through does so at once."""
    with visiting(source.name):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        token = os.urandom(8)
        sender.sendto(token, (target, PORT))
        try:
            while listener.datagrams.recv(64) != token:
                continue  # one that was sent before, and waited for an address or a cable
        except TimeoutError:
            return False
        return True


def call(source: Machine, target: Machine) -> str:
    with visiting(source.name):
        caller = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with caller:
        caller.settimeout(0.5)
        try:
            caller.connect((target.address, PORT))
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "silence"
        return "connected"


def test_a_one_way_cut_is_one_way_and_others_hear_all(lan: Lan, listeners: dict[str, Listener]) -> None:
    a, b, c = lan.machines
    lan.cut(a, b, both=False)
    assert not hears(listeners[b.name], a, b.address)
    assert hears(listeners[a.name], b, a.address)
    assert hears(listeners[c.name], a, c.address)
    assert hears(listeners[b.name], c, b.address)
    lan.heal()
    assert hears(listeners[b.name], a, b.address)


def test_a_split_cuts_both_ways_and_only_between_the_sides(lan: Lan, listeners: dict[str, Listener]) -> None:
    a, b, c = lan.machines
    lan.split([a], [b, c])
    assert not hears(listeners[b.name], a, b.address)
    assert not hears(listeners[a.name], c, a.address)
    assert hears(listeners[b.name], c, b.address)


def test_a_cut_is_silent_or_resets(lan: Lan, listeners: dict[str, Listener]) -> None:
    a, b, c = lan.machines
    assert call(a, b) == "connected"
    lan.cut(a, b)
    assert call(a, b) == "silence"
    lan.cut(a, c, "reset", both=False)
    assert call(a, c) == "refused"


def test_an_unplugged_machine_hears_and_says_nothing_until_it_is_plugged_in_again(
    lan: Lan, listeners: dict[str, Listener]
) -> None:
    a, b, c = lan.machines
    assert hears(listeners[b.name], a, b.address)
    assert hears(listeners[a.name], b, a.address)
    lan.unplug(b)
    assert not hears(listeners[b.name], a, b.address)
    assert not hears(listeners[a.name], b, a.address)
    assert hears(listeners[c.name], a, c.address)
    lan.replug(b)
    until(lambda: hears(listeners[b.name], a, b.address), "it hears again")
    until(lambda: hears(listeners[a.name], b, a.address), "it is heard again")


def test_a_lossy_network_loses_about_the_share_that_it_was_told(
    lan: Lan, listeners: dict[str, Listener]
) -> None:
    a, b, _ = lan.machines
    lan.lose(0.5, [b])
    listeners[b.name].datagrams.settimeout(0.01)
    heard = sum(hears(listeners[b.name], a, b.address) for _ in range(60))
    assert 10 < heard < 50  # 10 to 50 of 60 are 5 standard deviations each way


def test_a_multicast_reaches_all_and_never_the_real_network(lan: Lan, listeners: dict[str, Listener]) -> None:
    a, b, _ = lan.machines
    group = socket.inet_aton("224.0.0.251") + socket.inet_aton(b.address)
    listeners[b.name].datagrams.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    assert hears(listeners[b.name], a, "224.0.0.251")
    assert not {"lan", "port1", "port2", "port3"} & {name for _, name in socket.if_nameindex()}


def test_a_full_disk_takes_nothing_until_there_is_room(lan: Lan) -> None:
    machine = lan.machines[0]
    machine.fill_disk()
    with pytest.raises(OSError, match="No space left"):
        (machine.disk / "more").write_bytes(b"x")
    (lan.machines[1].disk / "more").write_bytes(b"x")
    machine.make_room()
    (machine.disk / "more").write_bytes(b"x")


@pytest.mark.skipif(bool(why_no_throttle()), reason=why_no_throttle())
def test_a_throttled_process_is_in_the_group_of_its_machine_until_that_is_released(lan: Lan) -> None:
    machine = lan.machines[0]
    process = subprocess.Popen([*machine.command, "sleep", "1000"])
    groups = Path(f"/proc/{process.pid}/cgroup")
    before = groups.read_text()
    machine.throttle(0.1, process.pid)
    assert machine.name in groups.read_text()
    machine.release()
    assert groups.read_text() == before
    assert not any(each.startswith("group") for each in leftovers(lan.name))
    process.kill()
    process.wait()


# ------------------------------------------------------------------------------------ nothing is left


def test_two_lans_are_side_by_side_and_nothing_is_left_of_either(tmp_path: Path) -> None:
    with Lan(2, tmp_path / "one") as one, Lan(2, tmp_path / "two") as two:
        assert one.machines[0].address == two.machines[0].address
        process = subprocess.Popen([*one.machines[0].command, "sleep", "1000"])
        one.machines[0].disk.joinpath("file").write_text("x")
        # It has to enter the namespace first.
        until(lambda: f"process {process.pid} " in " ".join(leftovers(one.name)), "the process is found")
        assert str(one.machines[0].disk) in " ".join(leftovers(one.name))
    assert process.wait() == -signal.SIGKILL
    assert leftovers(one.name) == leftovers(two.name) == []


CRASHING = """
import subprocess, sys
from pathlib import Path
from machines import Lan
from throttle import why_no_throttle
lan = Lan(2, Path(sys.argv[1]))
process = subprocess.Popen([*lan.machines[0].command, "sleep", "1000"])
if not why_no_throttle():
    lan.machines[0].throttle(0.5, process.pid)
print(lan.name, flush=True)
sys.stdin.read()
"""


def test_nothing_is_left_of_a_lan_whose_maker_was_killed(tmp_path: Path) -> None:
    maker = subprocess.Popen(
        [sys.executable, "-c", CRASHING, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(machines.__file__).parent)},
    )
    assert maker.stdout is not None
    name = maker.stdout.readline().strip()
    assert leftovers(name)
    maker.kill()
    maker.communicate()
    until(lambda: not leftovers(name), lambda: f"nothing is left: {leftovers(name)}")
