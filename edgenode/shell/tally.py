"""How far a store came, noted in a file beside it: tells a store that lost its log from one that is whole.

SQLite reads a log up to the first page that is not what was written, and takes that for its end; without a
log it goes on with the file alone. Both are right after a power cut, where nothing more was ever durable, and
both forget what was acknowledged when the log was cut off or deleted. So the count is kept a second time:
written after each commit, when that is durable, and without a sync of its own, which costs nothing. A power
cut may set it back, never ahead.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

FORMAT: Final = "<QQ"
SUFFIX: Final = "-written"


class Progress(NamedTuple):
    """Writes of one life that were durable. Ordered: of the latest life, then by their number."""

    boot: int
    written: int


class Tally:
    """The file beside one store. `note` never fails: without a note there is no alarm, and no more harm."""

    def __init__(self, file: Path) -> None:
        self._handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)

    def read(self) -> Progress | None:
        """What was noted last; None if nothing was, or it cannot be read."""
        size = struct.calcsize(FORMAT)
        with suppress(OSError):
            found = os.pread(self._handle, size + 4, 0)
            if len(found) == size + 4 and crc32(found[:size]) == int.from_bytes(found[size:], "little"):
                return Progress(*struct.unpack(FORMAT, found[:size]))
        return None

    def note(self, progress: Progress) -> None:
        packed = struct.pack(FORMAT, *progress)
        with suppress(OSError):
            os.pwrite(self._handle, packed + crc32(packed).to_bytes(4, "little"), 0)

    def close(self) -> None:
        os.close(self._handle)
