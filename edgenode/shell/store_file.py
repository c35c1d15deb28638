"""The store's file: opened by one process only, seen to be ours and whole; and what its failures mean."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from edgenode.core.errors import EdgeNodeError
from edgenode.core.types import JobId
from edgenode.shell import salvage
from edgenode.shell.claim_table import CLAIM_SCHEMA
from edgenode.shell.database import Database
from edgenode.shell.folders import make_durable_folder
from edgenode.shell.job_table import JOB_SCHEMA, UPSERTS
from edgenode.shell.report_table import REPORT_SCHEMA

FILE_NAME: Final = "jobs.db"
LOCK_NAME: Final = "lock"
ROOM_NAME: Final = "room"
APPLICATION_ID: Final = 0x45444745  # "EDGE", in the header of the file
SCHEMA_VERSION: Final = 7
ROOM_BYTES: Final = 1024 * 1024
"""A disk that refused a write is believed again when a file of this size can be written to it."""
CHECK_BYTES_MAX: Final = 8 * 1024 * 1024
"""A file up to this size is checked as a whole before it is used, in some 0.1 s; a larger one while it is."""

NODE_SCHEMA: Final = """
CREATE TABLE damaged (id BLOB PRIMARY KEY);
CREATE TABLE node (name TEXT PRIMARY KEY, value BLOB NOT NULL);
INSERT INTO node VALUES ('boots', 0);
"""


class DiskRefused(EdgeNodeError):
    """The disk took no write: full, read-only or broken. It may again."""

    status, slug, title = 503, "disk-refused", "The node's disk refuses writes"


class FolderRefused(EdgeNodeError):
    """The data folder cannot be used by this process, and time alone will not change that."""

    slug, title, definite = "folder-refused", "The data folder cannot be used", True


class StoreLocked(EdgeNodeError):
    status, slug, title, definite = 503, "store-locked", "Another process uses this data folder", True


class StoreDamaged(EdgeNodeError):
    """The file as a whole cannot be trusted, so that this node cannot go on as who it was. It can be set
    aside: see `Store.open_or_renew`."""

    status: ClassVar[int] = 500
    slug, title, definite = "store-damaged", "The store is damaged", True


class StoreOfOtherVersion(EdgeNodeError):
    """Written by a newer version, or by one from before the first release."""

    slug, title, definite = "store-version", "The store was written by another version", True


class Damage(NamedTuple):
    """Something on the disk is not what was written: the rows of these jobs; if none, the file as a whole."""

    jobs: tuple[JobId, ...]
    text: str


def connect(file: Path) -> sqlite3.Connection:
    # Every connection is used by one thread at a time; which one, is the caller's business. A file that is
    # gone is not made anew: it would be an empty one in the place of all that is known.
    database = sqlite3.connect(
        f"{file.as_uri()}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=len(UPSERTS) + 16,
        factory=Database,
    )
    # Bytes where text should be, or text where bytes should be, are for checksums and types to refuse: read
    # as Python does it, they are an error that looks like a busy disk.
    database.text_factory = _text
    try:
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA fullfsync = 1")  # macOS: fsync alone does not reach the disk there
        database.execute("PRAGMA wal_autocheckpoint = 0")  # the writer does it, after `done`
    except sqlite3.Error:
        database.close()
        raise
    return database


def _text(found: bytes) -> str:
    return found.decode(errors="replace")


def found_files(file: Path) -> tuple[tuple[int, int] | None, ...]:
    """Which files (device, inode) now bear the names of a store and its log; None where none does."""
    found: list[tuple[int, int] | None] = []
    for path in (file, file.with_name(file.name + "-wal")):
        try:
            status = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino))
    return tuple(found)


def _lock(folder: Path) -> int:
    """Take the folder for this process; the lock ends with the process, however it ends."""
    handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise StoreLocked(f"{folder} is in use by the process {holder}", folder=str(folder)) from error
    with suppress(OSError):  # on a full disk nobody is told who has it
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
    return handle


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """The lock of a folder, for a store that is made within; let go of if that fails."""
    with refusals(folder):
        make_durable_folder(folder)
        lock = _lock(folder)
        try:
            yield lock
        except BaseException:
            os.close(lock)
            raise


MAY_PASS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


@contextmanager
def refusals(folder: Path) -> Iterator[None]:
    """Turns an OSError within into `DiskRefused` if time alone may mend it, else into `FolderRefused`."""
    try:
        yield
    except OSError as error:
        kind = DiskRefused if error.errno in MAY_PASS else FolderRefused
        raise kind(f"{folder} cannot be used: {error}") from error


def _code(error: sqlite3.Error) -> int:
    """SQLite's extended result code; 0 if the error is not SQLite's own."""
    return int(getattr(error, "sqlite_errorcode", 0))


UNREADABLE: Final = frozenset(
    {
        sqlite3.SQLITE_IOERR_READ,
        sqlite3.SQLITE_IOERR_SHORT_READ,
        sqlite3.SQLITE_IOERR_DATA,
        sqlite3.SQLITE_IOERR_CORRUPTFS,
    }
)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the disk gave other bytes than it was given, or none. Not: closed, busy, full, or any other
    failure that is over when there is room again."""
    code = _code(error)
    return code in UNREADABLE or code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def unusable(file: Path, error: sqlite3.Error) -> EdgeNodeError:
    """What to raise when opening fails; a statement that does not fit the tables (code 1) is damage too."""
    if is_damage(error) or _code(error) == sqlite3.SQLITE_ERROR:
        return damage_of(file, str(error))
    if _code(error) & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return FolderRefused(f"{file}: {error}: may this user read and write it?")
    return DiskRefused(f"{file}: {error}")


def find_room(folder: Path) -> None:
    """Raise OSError unless a file of `ROOM_BYTES` can be made durable: one small write that fits into what
    was left over is no sign that the next one will."""
    file = folder / ROOM_NAME
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        left = memoryview(bytes(ROOM_BYTES))
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    finally:
        os.close(handle)
        file.unlink(missing_ok=True)


def damage_of(file: Path, found: str) -> StoreDamaged:
    return StoreDamaged(f"{file}: {found}", file=str(file), found=found)


def check_structure(database: sqlite3.Connection, file: Path) -> None:
    """Raise StoreDamaged unless every page is where it belongs, and the index names each row once."""
    try:
        ((found,),) = database.execute("PRAGMA integrity_check(1)").fetchall()
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            raise damage_of(file, str(error)) from error
        raise
    if found != "ok":
        raise damage_of(file, " ".join(str(found).split()))


def is_small(file: Path) -> bool:
    """Whether it is checked as a whole before it is used."""
    return file.stat().st_size <= CHECK_BYTES_MAX


def open_file(file: Path) -> sqlite3.Connection:
    """The writer's connection to a file that exists and is ours, made if there was none at all."""
    log = file.with_name(file.name + "-wal")
    has_log = log.exists() and log.stat().st_size > 0
    if has_log and (not file.exists() or file.stat().st_size == 0):
        # SQLite would throw the log away and begin anew: promises would be forgotten without a word.
        raise damage_of(file, "the file is missing or empty, but its log is not")
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    try:
        database = connect(file)
    except sqlite3.DatabaseError as error:
        raise unusable(file, error) from error
    try:
        _make_usable(database, file)
    except sqlite3.DatabaseError as error:
        # Closed before anything else: the end of a connection takes away the log that bears the file's name.
        database.close()
        raise unusable(file, error) from error
    except EdgeNodeError:
        database.close()
        raise
    return database


def _make_usable(database: sqlite3.Connection, file: Path) -> None:
    """Make the tables if nothing was ever in the file; else see to it that they are ours, and whole."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if application == 0 and not database.execute("SELECT * FROM sqlite_schema").fetchall():
        # A start that was interrupted after it had set a file aside has its rows to save yet.
        aside = [path.name for path in salvage.found_aside(file)][-1:]
        database.executescript(
            "PRAGMA auto_vacuum = INCREMENTAL;"  # before the first table, or it has no effect
            "PRAGMA journal_mode = WAL;"
            f"BEGIN IMMEDIATE; {JOB_SCHEMA} {NODE_SCHEMA} {CLAIM_SCHEMA} {REPORT_SCHEMA}"
            f"INSERT INTO node VALUES ('replaces', '{''.join(aside)}');"
            f"PRAGMA application_id = {APPLICATION_ID};"
            f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            # From here on a file without tables is a damaged one, not one that was never used.
            "PRAGMA wal_checkpoint(TRUNCATE);"
        )
    elif application != APPLICATION_ID:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if not {"jobs", "node"} <= tables:
            raise FolderRefused(f"{file} is a SQLite file, but not of edgenode: choose another --data-dir")
        raise damage_of(file, "the header says that it is another program's")
    elif version != SCHEMA_VERSION:
        text = f"{file} has format {version}; this version of edgenode knows {SCHEMA_VERSION} only"
        raise StoreOfOtherVersion(text)
    elif is_small(file):
        check_structure(database, file)


def roll_back(database: sqlite3.Connection) -> None:
    if database.in_transaction:
        with suppress(sqlite3.Error):  # SQLite has done it by itself, after some errors
            database.execute("ROLLBACK")
