"""The jobs of scripts/makespan.py: each start leaves a line, whatever the records say later."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

from edgenode import JobContext, task


class Start(NamedTuple):
    at: float  # wall clock: one for all processes of a machine
    job: str
    lasted_s: float


def read_starts(file: Path) -> list[Start]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [Start(float(at), job, float(lasted_s)) for at, job, lasted_s in map(str.split, lines)]


@task("makespan.nap")
def nap(ctx: JobContext, starts: str, seconds: float, slow_pid: int, slowness: float) -> None:
    """Take a while, without using the processor; `slowness` times as long on the node with this pid."""
    began = time.time()
    lasts_s = seconds * (slowness if os.getppid() == slow_pid else 1.0)
    time.sleep(lasts_s)
    line = f"{began:.6f} {ctx.job_id} {time.time() - began:.6f}\n"
    file = os.open(starts, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, line.encode())  # one write: lines of many processes do not mix
    finally:
        os.close(file)
