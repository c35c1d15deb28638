"""A store that cannot be trusted: it is set aside, and what can still be read of it is saved as copies.

The old identity ends with it. A disk that lost rows, or does not know which ones, might promise what it has
promised to another before; a new member holds none of the old one's votes. So saved rows can't outvote
anybody: they are copies for repair, checked one by one, and the holders compare them with their own.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from edgenode.shell.database import Database
from edgenode.shell.folders import sync_folder
from edgenode.shell.tally import SUFFIX

ASIDE: Final = ".damaged-"
CHUNK: Final = 200
COLUMNS: Final = "rowid, id, settled, promise, checksum, blob, state, task, queue, owner, due"
GAP_ROWS_MAX: Final = 5_000_000
"""Row numbers that are tried one by one between two that can be read: some 20 s."""

Fields = tuple[Any, ...]
"""Of a row, as in `COLUMNS` without the first."""


def set_aside(file: Path) -> Path:
    """Rename a store's file and its log, durably. Returns the new place of the file, which may not exist
    (if only its log did)."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    if before := found_aside(file):
        # Their names are in the order of time, also where the clock was set back.
        stamp = max(stamp, before[-1].name.partition(ASIDE)[2][: len(stamp)])
    aside = file.with_name(f"{file.name}{ASIDE}{stamp}")
    number = 1
    while aside.exists() or _log(aside).exists():
        number += 1
        aside = file.with_name(f"{file.name}{ASIDE}{stamp}-{number:04d}")
    # The file first: on its own, its log is never taken for a store; but without its log it would be.
    for source, target in ((file, aside), (_log(file), _log(aside))):
        if source.exists() and source.stat().st_size:
            source.rename(target)
    for suffix in ("-shm", SUFFIX):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    sync_folder(file.parent)
    return aside


def found_aside(file: Path) -> list[Path]:
    """The files that were set aside here and not deleted yet, the oldest first."""
    return sorted(path for path in file.parent.glob(f"{file.name}{ASIDE}*") if not path.name.endswith("-wal"))


def _log(file: Path) -> Path:
    return file.with_name(file.name + "-wal")


def readable_rows(file: Path) -> Iterator[Fields]:
    """Every row that SQLite can still reach, in no order, unchecked. Nothing of the file's jobs is changed.

    From the first row on, then from the last one back; and what lies between two broken places by number.
    """
    if not file.exists():
        return
    database = _opened(file)
    try:
        low, high = 0, 1 << 62
        for row in _walk(database, f"SELECT {COLUMNS} FROM jobs WHERE rowid > ? ORDER BY rowid", low):
            low = row[0]
            yield row[1:]
        for row in _walk(database, f"SELECT {COLUMNS} FROM jobs WHERE rowid < ? ORDER BY rowid DESC", high):
            high = row[0]
            if high <= low:
                return
            yield row[1:]
        if high == 1 << 62:
            return  # no end can be seen from here
        for number in range(max(low + 1, high - GAP_ROWS_MAX), high):
            with suppress(sqlite3.Error):
                for row in database.execute(f"SELECT {COLUMNS} FROM jobs WHERE rowid = ?", (number,)):
                    yield row[1:]
    finally:
        database.close()


def _opened(file: Path) -> Database:
    database = sqlite3.connect(file, isolation_level=None, factory=Database)
    database.text_factory = bytes
    # A file that is shorter than it says it is can then be read as far as it goes; and so can one table
    # while the schema of another is broken. It fails itself where the header is.
    with suppress(sqlite3.Error):
        database.execute("PRAGMA writable_schema = ON")
    return database


def _walk(database: sqlite3.Connection, sql: str, after: int) -> Iterator[Fields]:
    """Rows in the order of the query, up to the first that cannot be read, or that is out of order: pages
    that lead back to earlier ones would be walked for ever."""
    is_forward = not sql.endswith("DESC")
    limit = CHUNK
    while True:
        try:
            rows = database.execute(f"{sql} LIMIT {limit}", (after,)).fetchall()
        except sqlite3.Error:
            if limit == 1:
                return
            limit = 1
            continue
        for row in rows:
            if not (row[0] > after if is_forward else row[0] < after):
                return
            after = row[0]
            yield row
        if len(rows) < limit:
            return


def setting(file: Path, name: str) -> object:
    """What the file says of its node under this name; None if it does not, or it cannot be read."""
    if not file.exists():
        return None
    database = _opened(file)
    try:
        found = database.execute("SELECT value FROM node WHERE name = ?", (name,)).fetchone()
        return None if found is None else found[0]
    except sqlite3.Error:
        return None
    finally:
        database.close()
