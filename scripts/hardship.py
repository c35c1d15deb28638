"""Networks and processors that can be taken away: namespaces joined by a bridge, and a quota. Linux, root.

with Namespaces(3) as network:          # three "machines" on one "switch"
    subprocess.run(network.command(0, ["ping", "-c1", network.address(1)]))
    network.cut(1)                      # pull its cable
    network.mend(1)

with Throttle(0.1) as throttle:         # a tenth of one processor, for all that is put in
    throttle.take(pid)
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SUBNET: Final = "10.213.77"
PERIOD_US: Final = 100_000
NAMES: Final = Path("/run/netns")


def why_no_namespaces() -> str:
    """Why this machine cannot have them for us; empty if it can."""
    if os.geteuid() != 0:
        return "it needs root"
    return "" if shutil.which("ip") else "it needs the program `ip` (iproute2)"


def why_no_throttle() -> str:
    """Why processes cannot be throttled here; empty if they can."""
    if os.geteuid() != 0:
        return "it needs root"
    return "" if cpu_controller(_mounts()) is not None else "it needs a cgroup controller for the processor"


# ------------------------------------------------------------------------------------------ networks


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Namespaces:
    """`count` network namespaces, each with a cable to one bridge, which is in a namespace too: nothing of
    the machine's own network is touched. A context manager; everything in them must have ended before."""

    def __init__(self, count: int) -> None:
        self._hub = f"edgenode-{os.getpid()}-hub"
        self._names = [f"edgenode-{os.getpid()}-{number}" for number in range(1, count + 1)]

    def __enter__(self) -> Namespaces:
        try:
            self._build()
        except BaseException as error:
            self.close()
            if isinstance(error, subprocess.CalledProcessError):
                raise OSError(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _build(self) -> None:
        _ip("netns", "add", self._hub)
        _ip("-n", self._hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._hub, "link", "set", "bridge", "up")
        for number, name in enumerate(self._names):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
            port = ["link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", name]
            _ip("-n", self._hub, *port)
            _ip("-n", self._hub, "link", "set", f"port{number}", "master", "bridge", "up")
            _ip("-n", name, "address", "add", f"{self.address(number)}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")

    def close(self) -> None:
        for name in (*self._names, self._hub):
            if (NAMES / name).exists():
                _ip("netns", "delete", name)

    def address(self, number: int) -> str:
        return f"{SUBNET}.{number + 1}"

    def name(self, number: int) -> str:
        return self._names[number]

    def command(self, number: int, command: list[str]) -> list[str]:
        """The same command, in there. It becomes that program: the process id stays."""
        return ["ip", "netns", "exec", self._names[number], *command]

    def cut(self, number: int) -> None:
        """Pull the cable out of the switch: nothing comes or goes, and nobody is told."""
        _ip("-n", self._hub, "link", "set", f"port{number}", "down")

    def mend(self, number: int) -> None:
        _ip("-n", self._hub, "link", "set", f"port{number}", "up")


@contextmanager
def entered(namespace: str) -> Iterator[None]:
    """Sockets that this thread makes meanwhile belong to that namespace; the empty name is our own."""
    if not namespace:
        yield
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _enter(NAMES / namespace)
        try:
            yield
        finally:
            _set_namespace(home)
    finally:
        os.close(home)


def _enter(path: Path) -> None:
    there = os.open(path, os.O_RDONLY)
    try:
        _set_namespace(there)
    finally:
        os.close(there)


def _set_namespace(descriptor: int) -> None:
    # os.setns comes with Python 3.12.
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


# ---------------------------------------------------------------------------------------- processors


def _mounts() -> str:
    return Path("/proc/mounts").read_text()


def cpu_controller(mounts: str) -> tuple[Path, int] | None:
    """Where control groups can limit the processor, and of which version they are."""
    for line in mounts.splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup" and "cpu" in options.split(","):
            return Path(place), 1
        if kind == "cgroup2":
            controllers = Path(place) / "cgroup.controllers"
            if controllers.exists() and "cpu" in controllers.read_text().split():
                return Path(place), 2
    return None


class Throttle:
    """A control group with a share of one processor for all that is in it. A context manager; what is still
    in it at the end gets its freedom back."""

    def __init__(self, share: float) -> None:
        found = cpu_controller(_mounts())
        assert found is not None
        self._root, self._version = found
        self._group = self._root / f"edgenode-{os.getpid()}"
        self._quota_us = round(share * PERIOD_US)

    def __enter__(self) -> Throttle:
        self._group.mkdir()
        if self._version == 1:
            (self._group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (self._group / "cpu.cfs_quota_us").write_text(str(self._quota_us))
        else:
            (self._root / "cgroup.subtree_control").write_text("+cpu")
            (self._group / "cpu.max").write_text(f"{self._quota_us} {PERIOD_US}")
        return self

    def take(self, pid: int) -> None:
        """Throttle a process, and those that it starts from now on."""
        (self._group / "cgroup.procs").write_text(str(pid))

    @property
    def held_back(self) -> int:
        """How often its quota ran out before there was no more to do."""
        stat = (self._group / "cpu.stat").read_text().split()
        return int(stat[stat.index("nr_throttled") + 1])

    def __exit__(self, *_: object) -> None:
        for pid in (self._group / "cgroup.procs").read_text().split():
            try:
                (self._root / "cgroup.procs").write_text(pid)
            except ProcessLookupError:
                continue  # it has ended
        ends = time.monotonic() + 5.0
        while True:
            try:
                self._group.rmdir()
                return
            except OSError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.05)  # what has just ended is in it for a moment
