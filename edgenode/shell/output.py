"""What starts write: how much of it is kept, and whose it is when many run side by side in one process."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, TextIO

OUTPUT_CHARS_MAX: Final = 64 * 1024
"""Of what one start writes or logs; the rest is dropped."""
OUTPUT_DROPPED: Final = "\n[further output is dropped]\n"
LINE_CHARS_MAX: Final = 4_096
"""A line as long as this is told before it ends."""


class Capped:
    """Counts what one start writes."""

    def __init__(self) -> None:
        self.chars = 0

    @property
    def is_full(self) -> bool:
        return self.chars > OUTPUT_CHARS_MAX

    def keep(self, text: str) -> str:
        """As much of it as is still kept."""
        left = OUTPUT_CHARS_MAX - self.chars
        self.chars += len(text)
        if left < 0:
            return ""
        return text if len(text) <= left else text[:left] + OUTPUT_DROPPED


class Lines:
    """What one start writes, told by the line; from any thread, until it is closed."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._capped = Capped()
        self._begun = ""
        self._is_closed = False
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._begun += self._capped.keep(text)
            if "\n" in text or len(self._begun) > LINE_CHARS_MAX:
                self._flush()

    def log(self, text: str) -> None:
        self.write(f"{text}\n")

    def close(self) -> None:
        """Tell what is left. What comes later is from something that the task left behind, and is dropped."""
        with self._lock:
            self._flush()
            self._is_closed = True

    def _flush(self) -> None:
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
