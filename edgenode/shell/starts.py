"""One start of a job where user code runs: what it is told, and what becomes of whatever it does.

The same in the three places: a worker process with one start at a time, one with many coroutines, and the
node's own event loop.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from edgenode.core.errors import InvalidJob
from edgenode.core.types import State
from edgenode.task import Cancel, Fail, Fence, JobContext, Retry, TaskVerdict, Unserialisable

PROGRESS_PERIOD_S: Final = 0.05
ERROR_MESSAGE_CHARS: Final = 1_000
ERROR_FRAMES: Final = 6

Token = tuple[int, str, int]


class Start(NamedTuple):
    """One start of a job, as the node ordered it."""

    job: str
    token: Token
    task: str
    payload: bytes
    attempt: int


class Ended(NamedTuple):
    """What a start came to."""

    state: State
    result: bytes = b""
    error: str = ""
    retry_after_s: float = -1.0
    final: bool = False


def make_context(
    start: Start,
    folder: Path,
    *,
    is_cancelled: Callable[[], bool],
    on_progress: Callable[[float, str], None],
    on_log: Callable[[str], None],
) -> JobContext:
    """What a task sees of its start.

    Args:
        on_progress: called at most every `PROGRESS_PERIOD_S`, and for the end.
    """
    told_at = 0.0

    def progress(fraction: float, message: str) -> None:
        nonlocal told_at
        now = time.monotonic()
        if now - told_at >= PROGRESS_PERIOD_S or fraction >= 1.0:
            told_at = now
            on_progress(fraction, str(message)[:ERROR_MESSAGE_CHARS])

    return JobContext(
        job_id=start.job,
        attempt=start.attempt,
        fence=Fence(*start.token),
        tmp=folder,
        is_cancelled=is_cancelled,
        on_progress=progress,
        on_log=on_log,
    )


def no_such_task(name: str) -> Ended:
    return Ended(State.FAILED, error=f"this node has no task {name!r}", final=True)


def ended_by(error: BaseException, stopping: str | None) -> Ended:
    """What a start came to that raised this.

    Args:
        stopping: why it was asked to end, if it was.
    """
    match error:
        case InvalidJob() | Unserialisable() | Fail():
            return Ended(State.FAILED, error=str(error), final=True)
        case Retry():
            after_s = -1.0 if error.after_s is None else error.after_s
            return Ended(State.FAILED, error=error.reason, retry_after_s=after_s)
        case Cancel():
            return Ended(State.CANCELLED, error=error.reason)
        case _ if stopping is not None and not isinstance(error, TaskVerdict):
            return Ended(State.CANCELLED, error=stopping)
        case _:
            return Ended(State.FAILED, error=explain(error))


def explain(error: BaseException) -> str:
    """What went wrong, for the job's record: type, message, and the task's own last lines; bounded."""
    message = str(error)
    if len(message) > ERROR_MESSAGE_CHARS:
        message = message[:ERROR_MESSAGE_CHARS] + "…"
    lines = [f"{type(error).__name__}: {message}" if message else type(error).__name__]
    here = os.path.dirname(__file__)
    above = os.path.join(os.path.dirname(here), "task.py")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if os.path.dirname(frame.filename) != here and frame.filename != above
    ]
    for frame in frames[-ERROR_FRAMES:]:
        code = f": {frame.line[:120]}" if frame.line else ""
        lines.append(f"  {frame.filename}, line {frame.lineno}, in {frame.name}{code}")
    return "\n".join(lines)
