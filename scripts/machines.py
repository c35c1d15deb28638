"""Machines that are none: network namespaces joined by a bridge, each with a disk and a share of CPU.

    with Lan(5, folder) as lan:
        lan.cut(lan.machines[0], lan.machines[1])
        subprocess.Popen([*lan.machines[0].command, "ping", lan.machines[2].address])

The bridge is in a namespace of its own too: nothing of this is ever on the network of the real machine, and
any number of LANs can be side by side, with the same addresses. Multicast works, as on a switch.

What a LAN made is found by its name, which everything made for it carries, and is removed by a janitor: a
process that reads a pipe whose other end only the maker holds. So it is removed too when the maker is killed;
`leftovers` says what there still is. Needs root, `ip`, `iptables` and `nsenter`; see `missing`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, permutations
from pathlib import Path
from typing import Final, Literal

from throttle import Throttle, groups

PREFIX: Final = "edgenode-"
NETNS: Final = Path("/run/netns")
NEEDED: Final = ("ip", "iptables-restore", "nsenter", "mount")
SUBNET: Final = "10.77.0"
DISK_BYTES: Final = 64 * 1024 * 1024
SWEEP_S: Final = 30.0
CLONE_NEWNET: Final = 0x40000000

Cut = Literal["silence", "reset"]
"""What becomes of a packet that does not get through: nothing at all, or (of TCP) a reset for its sender."""

_numbers = count(1)
_libc = ctypes.CDLL(None, use_errno=True)


def missing() -> list[str]:
    """What this machine lacks for a LAN of namespaces; nothing, if one can be made."""
    lacks = [] if os.geteuid() == 0 else ["root"]
    lacks += [name for name in NEEDED if shutil.which(name) is None]
    if not lacks and (refused := _refusal()):
        lacks.append(refused)
    return lacks


def _refusal() -> str:
    """Why the kernel makes no bridge or filter for us, as in some containers; nothing if it does."""
    name = f"{PREFIX}{os.getpid()}-probe{next(_numbers)}"
    try:
        _run("ip", "netns", "add", name)
        _run("ip", "-n", name, "link", "add", "probe", "type", "bridge")
        rule = (
            "-A INPUT -p tcp -m statistic --mode random --probability 0.5 -j REJECT --reject-with tcp-reset"
        )
        _filter(name, [rule])
    except OSError as error:
        return str(error)
    finally:
        if (NETNS / name).exists():
            _run("ip", "netns", "del", name)
    return ""


# ------------------------------------------------------------------------------------------- commands


def _run(*command: str, text: str | None = None) -> str:
    """What a command prints.

    Raises:
        OSError: it failed; the text says what it said.
    """
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _filter(namespace: str, rules: Iterable[str]) -> None:
    """Let these be all rules of this namespace's packet filter: replaced at one moment."""
    text = "\n".join(["*filter", ":INPUT ACCEPT", ":OUTPUT ACCEPT", *rules, "COMMIT", ""])
    _run(*inside(namespace), "iptables-restore", "-w", "10", text=text)


def inside(namespace: str) -> list[str]:
    """The beginning of a command that is to run there. It becomes the command: its pid is that of this."""
    return ["nsenter", f"--net={NETNS / namespace}", "--"]


@contextmanager
def visiting(namespace: str) -> Iterator[None]:
    """This thread, and no other, is in that namespace: sockets that it makes now belong there for good."""
    with (
        open(f"/proc/self/task/{threading.get_native_id()}/ns/net") as home,
        open(NETNS / namespace) as there,
    ):
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


# ------------------------------------------------------------------------------------------- machines


class Machine:
    """A network namespace at one port of the switch, a disk (a small tmpfs) and, if limited, a cgroup."""

    def __init__(self, lan: str, number: int, folder: Path) -> None:
        self.name = f"{lan}-{number}"
        self.number = number
        self.address = f"{SUBNET}.{number}"
        self.disk = folder / f"disk-{number}"
        self.loss = 0.0
        self.deaf_to: dict[str, Cut] = {}  # addresses
        self._throttle: Throttle | None = None

    @property
    def command(self) -> list[str]:
        return inside(self.name)

    def connect(self, port: int, timeout_s: float) -> socket.socket:
        """A TCP connection to 127.0.0.1 of this machine, from within."""
        with visiting(self.name):
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            made.settimeout(timeout_s)
            made.connect(("127.0.0.1", port))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            made.close()
            raise
        return made

    def plug_in(self, switch: str) -> None:
        _run("ip", "netns", "add", self.name)
        port = f"port{self.number}"
        # Both ends are made where they belong: none is on the real machine's network for a moment.
        _run(*f"ip link add eth0 netns {self.name} type veth peer name {port} netns {switch}".split())
        _run(*f"ip -n {switch} link set {port} master lan up".split())
        _run("ip", "-n", self.name, "-batch", "-", text=f"""\
link set lo up
addr add {self.address}/24 broadcast + dev eth0
link set eth0 up
route add default dev eth0
""")  # fmt: skip

    def mount(self) -> None:
        self.disk.mkdir(parents=True)
        # The name of the source is free text for a tmpfs. The janitor finds it by that.
        _run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", self.name, str(self.disk))

    # ------------------------------------------------------------------------------------ filter

    def filter(self) -> None:
        """Make the packet filter what `deaf_to` and `loss` say."""
        rules = []
        for address, how in sorted(self.deaf_to.items()):
            if how == "reset":
                rules.append(f"-A INPUT -s {address} -p tcp -j REJECT --reject-with tcp-reset")
            rules.append(f"-A INPUT -s {address} -j DROP")
        if self.loss:
            rules.append(f"-A INPUT -i eth0 -m statistic --mode random --probability {self.loss} -j DROP")
        _filter(self.name, rules)

    # -------------------------------------------------------------------------------------- disk

    @property
    def ballast(self) -> Path:
        return self.disk / "ballast"

    def fill_disk(self) -> None:
        """Leave not a byte of room."""
        chunk = bytes(1024 * 1024)
        with self.ballast.open("ab", buffering=0) as file:
            while chunk:
                try:
                    file.write(chunk)
                except OSError:
                    chunk = chunk[: len(chunk) // 2]

    def make_room(self) -> None:
        self.ballast.unlink(missing_ok=True)

    # --------------------------------------------------------------------------------------- CPU

    def throttle(self, share: float, pid: int) -> None:
        """Give this process, and what it starts, this share of one processor; `release` ends it.

        Raises:
            OSError: the kernel has no such limit for us.
        """
        self.release()
        self._throttle = Throttle(self.name, share)
        self._throttle.begin()
        self._throttle.take(pid)

    def release(self) -> None:
        if self._throttle is not None:
            self._throttle.end()
            self._throttle = None


# -------------------------------------------------------------------------------------------- the LAN


class Lan:
    """So many machines at one switch. A context manager; `close` fails if anything is left of it."""

    def __init__(self, size: int, folder: Path) -> None:
        assert 1 <= size <= 250
        self.name = f"{PREFIX}{os.getpid()}-{next(_numbers)}"
        self.folder = folder
        self.machines = tuple(Machine(self.name, number, folder) for number in range(1, size + 1))
        self._janitor = subprocess.Popen(
            [sys.executable, "-S", "-E", __file__, self.name],
            stdin=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is not for it
        )
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        switch = f"{self.name}-0"
        _run("ip", "netns", "add", switch)
        # No forwarding delay, and no snooping: a multicast reaches all from the first moment.
        _run(*f"ip -n {switch} link add lan type bridge forward_delay 0 mcast_snooping 0".split())
        _run(*f"ip -n {switch} link set lan up".split())
        for machine in self.machines:
            machine.plug_in(switch)
            machine.mount()

    def __enter__(self) -> Lan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything, and end what still runs there. Calling it twice is fine.

        Raises:
            OSError: something is left.
        """
        assert self._janitor.stdin is not None
        self._janitor.stdin.close()
        self._janitor.wait()
        if left := leftovers(self.name):
            raise OSError(f"left of {self.name}: {', '.join(left)}")

    # -------------------------------------------------------------------------------------- cuts

    def unplug(self, machine: Machine) -> None:
        """Pull its cable out of the switch: nothing comes or goes, and nobody else is told."""
        _run(*f"ip -n {self.name}-0 link set port{machine.number} down".split())

    def replug(self, machine: Machine) -> None:
        """Put the cable back. It takes a moment until something passes."""
        _run(*f"ip -n {self.name}-0 link set port{machine.number} up".split())

    def cut(self, source: Machine, target: Machine, how: Cut = "silence", *, both: bool = True) -> None:
        """From now on `target` hears nothing from `source` (and the other way round, if `both`)."""
        pairs = [(source, target), (target, source)] if both else [(source, target)]
        for sender, receiver in pairs:
            receiver.deaf_to[sender.address] = how
            receiver.filter()

    def split(self, *sides: Sequence[Machine], how: Cut = "silence") -> None:
        """Cut each side off from the others, at (nearly) one moment."""
        side_of = {machine: number for number, side in enumerate(sides) for machine in side}
        for source, target in permutations(side_of, 2):
            if side_of[source] != side_of[target]:
                target.deaf_to[source.address] = how
        for machine in side_of:
            machine.filter()

    def lose(self, share: float, machines: Iterable[Machine] | None = None) -> None:
        """Lose this share of all packets that arrive at these machines (at all, if none is given)."""
        for machine in self.machines if machines is None else machines:
            machine.loss = share
            machine.filter()

    def heal(self) -> None:
        """Let everything through again."""
        for machine in self.machines:
            if machine.deaf_to or machine.loss:
                machine.deaf_to.clear()
                machine.loss = 0.0
                machine.filter()


# ------------------------------------------------------------------------------------------ the janitor


def leftovers(name: str = PREFIX) -> list[str]:
    """What there is of a LAN (or of all: of those that are in use as well)."""
    found = [f"namespace {each}" for each in _namespaces(name)]
    found += [f"process {pid} in {each}" for each in _namespaces(name) for pid in _processes(each)]
    found += [f"mount {path}" for path in _mounts(name)]
    return found + [f"group {path}" for path in _groups(name)]


def _is_of(found: str, name: str) -> bool:
    return found.startswith(name) if name == PREFIX else found.startswith(f"{name}-")


def _namespaces(name: str) -> list[str]:
    return sorted(path.name for path in NETNS.iterdir() if _is_of(path.name, name)) if NETNS.is_dir() else []


def _processes(namespace: str) -> list[int]:
    try:
        return [int(pid) for pid in _run("ip", "netns", "pids", namespace).split()]
    except OSError:
        return []  # it has gone since


def _mounts(name: str) -> list[str]:
    # proc(5), mountinfo: the mount point is the fifth field, the source the second one after " - ".
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [line[4] for line in lines if _is_of(line[line.index("-") + 2], name)]


def _groups(name: str) -> list[Path]:
    return [path for path in groups(PREFIX) if _is_of(path.name, name)]


def sweep(name: str) -> None:
    """Remove all of one LAN: its processes first, for what they use can't go before them."""
    ends = time.monotonic() + SWEEP_S
    while leftovers(name) and time.monotonic() < ends:
        for namespace in _namespaces(name):
            for pid in _processes(namespace):
                os.kill(pid, signal.SIGKILL)
        for path in _mounts(name):
            subprocess.run(["umount", path], capture_output=True, check=False)
        for group in _groups(name):
            try:
                group.rmdir()
            except OSError:
                continue  # a process is still ending there
        for namespace in _namespaces(name):
            if not _processes(namespace):
                subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)
        time.sleep(0.02)


def janitor(name: str) -> None:
    """Wait for the end of the maker, however it comes, and remove what it made."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    sweep(name)


if __name__ == "__main__":
    janitor(sys.argv[1])
