"""What processes use and whose they are, from /proc (Linux). Needs nothing but the standard library."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

PR_SET_PDEATHSIG: Final = 1
CPUCLOCK_SCHED: Final = 2
"""Of a process's clock id, as clock_getcpuclockid(3) makes it: what the scheduler has measured."""
PR_SET_CHILD_SUBREAPER: Final = 36
END_S: Final = 5.0


class ProcessStat(NamedTuple):
    parent: int
    cpu_s: float
    rss_bytes: int


def parse_stat(text: str, cpu_s: float, page_bytes: int) -> ProcessStat:
    """A line of /proc/PID/stat (proc(5)); the name in it may hold anything, brackets too.

    Args:
        cpu_s: what the process has used; the line has it too, but in hundredths of a second.
    """
    fields = text.rpartition(")")[2].split()
    return ProcessStat(int(fields[1]), cpu_s, int(fields[21]) * page_bytes)


def cpu_s(process: int) -> float:
    """CPU time of all threads of a process, those that have ended too, to the microsecond.

    Raises:
        OSError: there is no such process.
    """
    return time.clock_gettime((~process << 3) | CPUCLOCK_SCHED)


def processes() -> dict[int, ProcessStat]:
    """All that live now, by id."""
    page_bytes, found = os.sysconf("SC_PAGE_SIZE"), {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        process = int(path.parent.name)
        with suppress(OSError):  # it has just ended
            found[process] = parse_stat(path.read_text(errors="replace"), cpu_s(process), page_bytes)
    return found


def parse_written(text: str) -> int:
    """Bytes that a process has had written to disks, from /proc/PID/io (proc(5)); 0 if that is not told."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "write_bytes":
            return int(value)
    return 0


def written_bytes(process: int) -> int:
    try:
        return parse_written(Path(f"/proc/{process}/io").read_text())
    except OSError:  # another user's, or a kernel that does not count it
        return 0


def parse_pss(text: str) -> int:
    """Bytes of memory of a process from /proc/PID/smaps_rollup (proc(5)), a page that so many processes have
    counted as that part of it; 0 if that is not told."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "Pss":
            return int(value.split()[0]) * 1024
    return 0


def pss_bytes(process: int) -> int:
    try:
        return parse_pss(Path(f"/proc/{process}/smaps_rollup").read_text())
    except OSError:  # another user's, or a kernel that does not count it
        return 0


def descendants(root: int, seen: Mapping[int, ProcessStat]) -> list[int]:
    """The children of a process, and theirs, and so on, parents first."""
    children: dict[int, list[int]] = {}
    for process, stat in seen.items():
        children.setdefault(stat.parent, []).append(process)
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found[1:]


def end_with_parent() -> None:
    """Called in a child before it becomes another program: it does not outlive who started it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """From now on whatever this process's descendants leave behind become its children."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_all(but: Iterable[int]) -> int:
    """Kill all descendants of this process that are not among `but`, until there are none; says how many.

    For a process that has called `adopt_orphans`: no other one sees them all.
    """
    kept, ended = set(but), set[int]()
    ends = time.monotonic() + END_S
    while time.monotonic() < ends:
        left = [process for process in descendants(os.getpid(), processes()) if process not in kept]
        if not left:
            break
        for process in left:
            ended.add(process)
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            with suppress(ChildProcessError):  # not a child of this one (yet): its parent is dying too
                os.waitpid(process, os.WNOHANG)
        time.sleep(0.02)
    return len(ended)
