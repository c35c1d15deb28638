"""What starts write: how much of it is kept, and whose it is when many run side by side in one process."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, Protocol, TextIO

from edgenode.core.types import Seconds

BURST_CHARS: Final = 64 * 1024
"""What one start may write at any pace. Of what it writes beyond, the end is kept, and told now and then."""
LINE_CHARS_MAX: Final = 4_096
"""A line as long as this is told before it ends."""
FLOOD_PERIOD_S: Final[Seconds] = 0.5


class Timer(Protocol):
    def cancel(self) -> None: ...


Later = Callable[[Seconds, Callable[[], None]], Timer]
"""Calls back after so many seconds, from whatever thread."""


def in_a_thread(delay_s: Seconds, call: Callable[[], None]) -> Timer:
    """`Later`, where there is no event loop that could be kept waiting."""
    timer = threading.Timer(delay_s, call)
    timer.daemon = True
    timer.start()
    return timer


class Marked:
    """What comes through the pipe of a process, in which the end of each start is marked: so it is known
    whose it is, though many starts' output may be read at once."""

    def __init__(self) -> None:
        self.mark = b""
        """What the process writes at the end of a start; b"" if it writes none."""
        self._cut = b""  # what may be the beginning of a mark

    def split(self, data: bytes) -> list[bytes]:
        """What was written until each mark in `data`, and last what was written after them."""
        if not self.mark:
            return [data]
        *ended, last = (self._cut + data).split(self.mark)
        sizes = range(min(len(self.mark) - 1, len(last)), 0, -1)
        size = next((size for size in sizes if self.mark.startswith(last[-size:])), 0)
        last, self._cut = last[: len(last) - size], last[len(last) - size :]
        return [*ended, last]


class Lines:
    """What one start writes, told by the line; from any thread, until it is closed."""

    def __init__(self, tell: Callable[[str], None], later: Later = in_a_thread) -> None:
        self._tell = tell
        self._later = later
        self._begun = ""
        self._chars = 0
        self._dropped = 0
        self._timer: Timer | None = None
        self._is_closed = False
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._begun += text
            self._chars += len(text)
            if self._chars > BURST_CHARS:
                self._keep_the_end()
            elif "\n" in text or len(self._begun) > LINE_CHARS_MAX:
                self._flush()

    def log(self, text: str) -> None:
        self.write(f"{text}\n")

    def close(self) -> None:
        """Tell what is left. What comes later is from something that the task left behind, and is dropped."""
        with self._lock:
            self._flush()
            self._is_closed = True

    def _keep_the_end(self) -> None:
        if len(self._begun) > 2 * BURST_CHARS:  # seldom: each time a copy is made
            self._dropped += len(self._begun) - BURST_CHARS
            self._begun = self._begun[-BURST_CHARS:]
        if self._timer is None:
            self._timer = self._later(FLOOD_PERIOD_S, self._due)

    def _due(self) -> None:
        with self._lock:
            self._timer = None
            self._flush()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._dropped:
            self._begun = f"\n[{self._dropped} characters are dropped]\n{self._begun}"
            self._dropped = 0
        if self._begun:
            self._tell(self._begun)
            self._begun = ""


WRITER: ContextVar[Lines | None] = ContextVar("edgenode_writer", default=None)
"""The start that the running code belongs to: inherited by the tasks, callbacks and threads that it makes."""


class Attributed(io.TextIOBase):
    """Stands in for `sys.stdout` or `sys.stderr`: gives what a start writes to that start, the rest to the
    stream underneath. What goes past it, to the descriptor, is nobody's."""

    def __init__(self, under: TextIO) -> None:
        self._under = under

    @classmethod
    def install(cls) -> None:
        """Put one before each of the two streams, where there is none yet."""
        if not isinstance(sys.stdout, cls):
            sys.stdout = cls(sys.stdout)
        if not isinstance(sys.stderr, cls):
            sys.stderr = cls(sys.stderr)

    @classmethod
    def remove(cls) -> None:
        """Put the streams underneath back."""
        if isinstance(sys.stdout, cls):
            sys.stdout = sys.stdout._under
        if isinstance(sys.stderr, cls):
            sys.stderr = sys.stderr._under

    def write(self, text: str) -> int:
        lines = WRITER.get()
        if lines is None:
            return self._under.write(text)
        lines.write(text)
        return len(text)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        self._under.flush()

    def fileno(self) -> int:
        return self._under.fileno()

    def isatty(self) -> bool:
        return self._under.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._under.encoding

    @property
    def buffer(self) -> object:
        return self._under.buffer


class LogOfStart(logging.Handler):
    """Gives what a start logs to that start, too."""

    def emit(self, record: logging.LogRecord) -> None:
        lines = WRITER.get()
        if lines is not None:
            lines.log(self.format(record))
