"""Tasks that leave a line on disk at each start: what really ran, whatever the records say."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from edgenode import JobContext, task
from edgenode.task import Cancel

NODE_VARIABLE: Final = "MARKING_NODE"
"""What a node's processes call themselves in the marks, if set."""


class Mark(NamedTuple):
    """One start: a line of the file, and the result of the job if it is this start that finishes it."""

    job: str
    term: int
    owner: str
    start: int
    pid: int
    node: str
    at: float  # time.monotonic(), the same clock in all processes of a machine

    @classmethod
    def parse(cls, line: str) -> Mark:
        job, term, owner, start, pid, node, at = line.split()
        return cls(job, int(term), owner, int(start), int(pid), node, float(at))

    @property
    def fence(self) -> tuple[str, int, str, int]:
        """What no two starts have in common."""
        return (self.job, self.term, self.owner, self.start)


def read_marks(path: Path) -> list[Mark]:
    """All starts so far, in the order in which they were marked."""
    return [Mark.parse(line) for line in path.read_text().splitlines()] if path.exists() else []


def leave_mark(ctx: JobContext, path: str) -> dict[str, Any]:
    node = os.environ.get(NODE_VARIABLE, "-")
    made = Mark(ctx.job_id, *ctx.fence, os.getpid(), node, round(time.monotonic(), 3))
    line = " ".join(str(value) for value in made) + "\n"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, line.encode())  # one write: lines of many processes do not mix
    finally:
        os.close(file)
    return made._asdict()


@task("mark", timeout_s=120)
def mark(ctx: JobContext, path: str, seconds: float, failures: int = 0, number: int = 0) -> dict[str, Any]:
    """Leave a line, take `seconds`, and return what names this start.

    The first `failures` attempts fail. `number` is for those who list jobs: which one this is.
    """
    left = leave_mark(ctx, path)
    ends = time.monotonic() + seconds
    while (left_s := ends - time.monotonic()) > 0:
        if ctx.cancelled:
            raise Cancel("told to stop")
        time.sleep(min(0.05, left_s))
    if ctx.attempt <= failures:
        raise RuntimeError(f"attempt {ctx.attempt} is to fail")
    return left


@task("talk", timeout_s=120)
def talk(ctx: JobContext, path: str, seconds: float) -> dict[str, Any]:
    """Say something in every way there is. The first start then takes `seconds`, a later one no time."""
    is_first = not Path(path).exists()
    left = leave_mark(ctx, path)
    print(f"printed by start {ctx.fence.start} of term {ctx.fence.term}")
    print("an error", file=sys.stderr)
    ctx.log("logged")
    ctx.progress(0.5, "half way")
    ctx.partial({"rows": 3})
    ends = time.monotonic() + seconds
    while is_first and time.monotonic() < ends and not ctx.cancelled:
        time.sleep(0.05)
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
