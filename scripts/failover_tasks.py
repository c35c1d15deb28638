"""The jobs of scripts/failover.py: each start leaves a line, whatever the records say later."""

from __future__ import annotations

import os
import time

from edgenode import JobContext, task
from edgenode.task import Cancel

HOLD_S = 120.0
POLL_S = 0.05


def leave_mark(ctx: JobContext, marks: str) -> None:
    """When (CLOCK_MONOTONIC: one for all processes of a machine), which start, under which node's process."""
    fence = ctx.fence
    line = f"{time.monotonic():.6f} {ctx.job_id} {fence.term} {fence.owner} {fence.start} {os.getppid()}\n"
    file = os.open(marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, line.encode())  # one write: lines of many processes do not mix
    finally:
        os.close(file)


@task("failover.hold")
def hold(ctx: JobContext, marks: str, pid: int) -> None:
    """Run until this is told to stop, or its node dies, if the node is process `pid`; else return at once."""
    leave_mark(ctx, marks)
    ends = time.monotonic() + HOLD_S
    while os.getppid() == pid and time.monotonic() < ends:
        if ctx.cancelled:
            raise Cancel("told to stop")
        time.sleep(POLL_S)


@task("failover.work")
def work(ctx: JobContext, marks: str, seconds: float) -> None:
    """Take a while, without using the processor."""
    leave_mark(ctx, marks)
    time.sleep(seconds)


@task("failover.burn")
def burn(seconds: float) -> None:
    """Use the processor."""
    ends = time.process_time() + seconds
    while time.process_time() < ends:
        pass
