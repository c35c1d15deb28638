"""A share of one processor for some processes: a control group with a quota. Linux, root.

with Throttle("edgenode-1", 0.1) as throttle:    # a tenth of one processor, for all that is put in
    throttle.take(pid)
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

PERIOD_US: Final = 100_000
"""What the kernel takes itself: so often a group gets its quota anew."""
QUOTA_US_MIN: Final = 1_000
"""The kernel takes nothing below."""
EMPTY_S: Final = 5.0
POLL_S: Final = 0.05


def cpu_controller(mounts: str) -> tuple[Path, int] | None:
    """Where control groups can limit the processor, and of which version they are, by /proc/mounts."""
    for line in mounts.splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup" and "cpu" in options.split(","):
            return Path(place), 1
        if kind == "cgroup2":
            controllers = Path(place) / "cgroup.controllers"
            if controllers.exists() and "cpu" in controllers.read_text().split():
                return Path(place), 2
    return None


def _controller() -> tuple[Path, int] | None:
    try:
        return cpu_controller(Path("/proc/mounts").read_text())
    except FileNotFoundError:
        return None  # not Linux


def why_no_throttle() -> str:
    """Why processes cannot be throttled here; nothing if they can."""
    if os.geteuid() != 0:
        return "it needs root"
    if _controller() is None:
        return "it needs a cgroup controller for the processor"
    try:
        with Throttle(f"edgenode-{os.getpid()}-probe", 1.0):
            return ""
    except OSError as error:
        return f"no control group can be made: {error}"


def groups(prefix: str) -> list[Path]:
    """All groups that there are of such names."""
    found = _controller()
    return [] if found is None else sorted(found[0].glob(f"{prefix}*"))


def _children(pid: int) -> list[int]:
    """The living processes that a process has started."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return found


class Throttle:
    """A control group with a share of one processor for all that is in it; also as a context manager."""

    def __init__(self, name: str, share: float) -> None:
        """Not made yet. `name` is that of the group."""
        found = _controller()
        assert found is not None, why_no_throttle()
        self._root, self._version = found
        self._group = self._root / name
        self._share = share

    def begin(self) -> None:
        """Make the group.

        Raises:
            OSError: the kernel makes none for us.
        """
        quota_us = max(QUOTA_US_MIN, round(self._share * PERIOD_US))
        if self._version == 2:
            (self._root / "cgroup.subtree_control").write_text("+cpu")
        self._group.mkdir()
        try:
            if self._version == 1:
                (self._group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
                (self._group / "cpu.cfs_quota_us").write_text(str(quota_us))
            else:
                (self._group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        except OSError:
            self._group.rmdir()
            raise

    def take(self, pid: int) -> None:
        """Throttle a process and its descendants, those that are still to come included."""
        with suppress(ProcessLookupError):  # it has ended
            (self._group / "cgroup.procs").write_text(str(pid))
        for child in _children(pid):
            self.take(child)

    @property
    def held_back(self) -> int:
        """How often its quota ran out before there was no more to do."""
        stat = (self._group / "cpu.stat").read_text().split()
        return int(stat[stat.index("nr_throttled") + 1])

    def end(self) -> None:
        """Set free what is in the group, and remove it."""
        ends = time.monotonic() + EMPTY_S
        while True:
            for pid in (self._group / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):  # it has ended
                    (self._root / "cgroup.procs").write_text(pid)
            try:
                self._group.rmdir()
                return
            except OSError:
                if time.monotonic() > ends:
                    raise
                time.sleep(POLL_S)  # what has just ended is in it for a moment, and so is what has just begun

    def __enter__(self) -> Throttle:
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
