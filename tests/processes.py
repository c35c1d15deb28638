"""What still runs, for tests that must leave nothing behind."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

WORKERS_END_S = 10.0


def processes_of(folder: Path) -> dict[int, str]:
    """All living processes that name this folder, or something in it, by id: their command lines."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it has ended
        if any(word == str(folder) or f"{folder}/" in word for word in words):
            found[int(path.parent.name)] = " ".join(words)
    return found


def left_of(folder: Path) -> dict[int, str]:
    """Those that still run when all that was killed with -9 has had its time.

    A worker that is being started when its node is killed learns of it when it runs its first lines.
    """
    deadline = time.monotonic() + WORKERS_END_S
    while left := processes_of(folder):
        if not _ends(next(iter(left)), deadline - time.monotonic()):
            return left
    return {}


def _ends(process: int, within_s: float) -> bool:
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], max(0.0, within_s))[0])  # pidfd_open(2)
    finally:
        os.close(handle)
