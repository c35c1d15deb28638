"""One start of a job where user code runs: what it is told, and what becomes of whatever it does.

The same in the three places: a worker process with one start at a time, one with many coroutines, and the
node's own event loop.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from edgenode.core.errors import InvalidJob
from edgenode.core.types import Instant, Seconds, State
from edgenode.shell.output import Later, Timer, in_a_thread
from edgenode.task import Cancel, Fail, Fence, JobContext, Retry, TaskVerdict, Unserialisable

PROGRESS_PERIOD_S: Final[Seconds] = 0.05
PARTIAL_PERIOD_S: Final[Seconds] = 0.25
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


class Latest:
    """Tells the latest of what comes too often: at most once in a period, and what came last in any case.

    From any thread; `tell` may be called from one of its own.
    """

    def __init__(
        self,
        tell: Callable[..., None],
        period_s: Seconds,
        *,
        later: Later = in_a_thread,
        clock: Callable[[], Instant] = time.monotonic,
    ) -> None:
        self._tell = tell
        self._period_s = period_s
        self._later = later
        self._clock = clock
        self._next_at: Instant = 0.0
        self._pending: tuple[Any, ...] | None = None
        self._timer: Timer | None = None
        self._lock = threading.Lock()

    def say(self, *values: Any) -> None:
        with self._lock:
            self._pending = values
            pause_s = self._next_at - self._clock()
            if pause_s <= 0:
                self._flush()
            elif self._timer is None:
                self._timer = self._later(pause_s, self.flush)

    def flush(self) -> None:
        """Tell what waits, if anything does."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending is not None:
            values, self._pending = self._pending, None
            self._next_at = self._clock() + self._period_s
            self._tell(*values)


@contextmanager
def make_context(
    start: Start,
    folder: Path,
    *,
    is_cancelled: Callable[[], bool],
    on_progress: Callable[[float, str], None],
    on_partial: Callable[[bytes], None],
    on_log: Callable[[str], None],
) -> Iterator[JobContext]:
    """What a task sees of its start while it runs.

    Args:
        on_progress, on_partial: called with the latest, now and then and before the end; perhaps from a
            thread of its own.
    """
    progress, partial = Latest(on_progress, PROGRESS_PERIOD_S), Latest(on_partial, PARTIAL_PERIOD_S)
    try:
        yield JobContext(
            job_id=start.job,
            attempt=start.attempt,
            fence=Fence(*start.token),
            tmp=folder,
            is_cancelled=is_cancelled,
            on_progress=lambda fraction, message: progress.say(fraction, kept(str(message))),
            on_partial=partial.say,
            on_log=on_log,
        )
    finally:
        progress.flush()
        partial.flush()


def no_such_task(name: str) -> Ended:
    """Another node took the job, or told of its tasks before this one got other code: others may have it."""
    return Ended(State.FAILED, error=f"this node has no task {name!r}")


def ended_by(error: BaseException, stopping: str | None) -> Ended:
    """What a start came to that raised this.

    Args:
        stopping: why it was asked to end, if it was.
    """
    match error:
        case Unserialisable() | Fail():
            return Ended(State.FAILED, error=message_of(error), final=True)
        case InvalidJob():
            # It was valid where it was submitted: nodes with that code may run it.
            return Ended(State.FAILED, error=message_of(error))
        case Retry():
            after_s = -1.0 if error.after_s is None else error.after_s
            return Ended(State.FAILED, error=kept(error.reason), retry_after_s=after_s)
        case Cancel():
            return Ended(State.CANCELLED, error=kept(error.reason))
        case _ if stopping is not None and not isinstance(error, TaskVerdict):
            return Ended(State.CANCELLED, error=stopping)
        case _:
            return Ended(State.FAILED, error=explain(error))


def message_of(error: BaseException) -> str:
    """What it says, as much of it as a record keeps. User code says it: that can fail, too."""
    try:
        return kept(str(error))
    except Exception as another:  # noqa: BLE001 - around user code
        return f"({type(another).__name__} when asked for its text)"


def kept(text: str) -> str:
    """As much of a task's own words as a record keeps."""
    return printable(text if len(text) <= ERROR_MESSAGE_CHARS else text[:ERROR_MESSAGE_CHARS] + "…")


def printable(text: str) -> str:
    """With what is no character (of a file name that is no UTF-8, say) spelled out: it can be sent then."""
    return text.encode("utf-8", "backslashreplace").decode()


def explain(error: BaseException) -> str:
    """What went wrong, for the job's record: type, message, and the task's own last lines; bounded."""
    message = message_of(error)
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
    return printable("\n".join(lines))
