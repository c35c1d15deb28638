"""Tasks that leave a line on disk at each start: what really ran, whatever the records say."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Literal

from edgenode import JobContext, task
from edgenode.task import Cancel


def leave_mark(ctx: JobContext, path: str) -> dict[str, Any]:
    mark = {"job": ctx.job_id, "term": ctx.fence.term, "start": ctx.fence.start, "pid": os.getpid()}
    line = " ".join(str(value) for value in mark.values()) + "\n"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, line.encode())  # one write: lines of many processes do not mix
    finally:
        os.close(file)
    return mark


@task("mark", timeout_s=120)
def mark(ctx: JobContext, path: str, seconds: float) -> dict[str, Any]:
    """Leave a line, take `seconds`, and return what names this start."""
    left = leave_mark(ctx, path)
    ends = time.monotonic() + seconds
    while (left_s := ends - time.monotonic()) > 0:
        if ctx.cancelled:
            raise Cancel("told to stop")
        time.sleep(min(0.05, left_s))
    return left


@task("die.once", timeout_s=60)
def die_once(ctx: JobContext, path: str, how: Literal["exit", "kill"]) -> dict[str, Any]:
    """Take the worker process along at the first start, and succeed at the second."""
    is_first = not Path(path).exists()
    left = leave_mark(ctx, path)
    if is_first and how == "exit":
        os._exit(3)
    if is_first:
        os.kill(os.getpid(), signal.SIGKILL)
    return left
