"""One node's disk: its jobs, promises, identity and remembered peers, in one SQLite file.

The 202 of a submission is sent because this module called `done`, so `done(None)` means exactly: a power cut
now loses nothing of it. Three decisions follow from measurements:

- One writer thread takes everything that is queued into one transaction and one fsync (group commit): the
  more there is to do, the less each job costs.
- Rows go in by multi-row statements. `sqlite3` lets go of the interpreter lock at every statement step and
  must win it back; with a busy event loop that made a row 20 times dearer when each was its own step.
- The write-ahead log is folded into the file after `done` was called, never before: nobody waits for it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple
from zlib import crc32

import msgpack

from edgenode.core.errors import EdgeNodeError
from edgenode.core.signals import ClaimRow, Persist, Row, StoredRow
from edgenode.core.types import (
    CHANCE_BITS,
    FOREVER,
    Ballot,
    JobId,
    NodeId,
    Past,
    Promise,
    Seconds,
    Wall,
    Word,
    next_boot,
)
from edgenode.core.wire import Query, Said
from edgenode.shell import salvage
from edgenode.shell.claim_table import (
    CLAIM_BYTES,
    CLAIM_SCHEMA,
    count_claims,
    read_claims,
    write_claims,
)
from edgenode.shell.folders import make_durable_folder
from edgenode.shell.job_search import SearchResult, statement, windows
from edgenode.shell.report_table import REPORT_SCHEMA, read_reports, size_of, write_reports
from edgenode.shell.tally import SUFFIX, Progress, Tally

Done = Callable[[Exception | None], None]
"""Called once per commit, from the writer thread, in the order of the commits."""

Setting = tuple[str, bytes | float | str]
"""A fact about the node as a whole, by name."""

FILE_NAME: Final = "jobs.db"
LOCK_NAME: Final = "lock"
ROOM_NAME: Final = "room"
APPLICATION_ID: Final = 0x45444745  # "EDGE", in the header of the file
SCHEMA_VERSION: Final = 7
ROOM_BYTES: Final = 1024 * 1024
"""A disk that refused a write is believed again when a file of this size can be written to it."""
ROW_BYTES: Final = 128
"""What a row costs besides its record, for counting only."""
CHECKPOINT_ROWS: Final = 2_000
KEPT_PAGES: Final = 1_024
GIVEN_PAGES: Final = 1_024
"""4 MiB at a time: a file that was large once shrinks while jobs are dropped, and no commit waits long."""
CHECKPOINT_BYTES: Final = 4 * 1024 * 1024
SEARCH_BYTES_MAX: Final = 4 * 1024 * 1024
"""A search answer fits well into one frame of the wire; the rest is asked for with the next cursor."""
LIVES_KEPT: Final = 64
"""Lives of its own that the disk knows of: more than peers ever ask about."""
SEARCH_STEPS: Final = 10_000
"""Of SQLite's machine between two looks at the clock: well under a millisecond."""
READ_CHUNK: Final = 256
CHECK_BYTES_MAX: Final = 8 * 1024 * 1024
"""A file up to this size is checked as a whole before it is used, in some 0.1 s; a larger one while it is."""
CHECK_ROWS: Final = 500
CHECK_PAUSE_S: Final[Seconds] = 0.05
"""Between so many rows of a large file: some 10,000 rows a second, and nobody notices."""
STATEMENT_ROWS: Final = 512
STATEMENT_STEP: Final = 32

SCHEMA: Final = """
CREATE TABLE jobs (
    id BLOB PRIMARY KEY,
    settled INTEGER NOT NULL,
    state TEXT NOT NULL,
    task TEXT NOT NULL,
    queue TEXT NOT NULL,
    owner TEXT NOT NULL,
    due REAL,
    promise BLOB,
    checksum INTEGER NOT NULL,
    blob BLOB NOT NULL
);
CREATE INDEX unsettled ON jobs (settled) WHERE settled = 0;
CREATE INDEX due ON jobs (due, id) WHERE due IS NOT NULL;
CREATE INDEX state ON jobs (state, id);
CREATE INDEX task ON jobs (task, id);
CREATE TABLE damaged (id BLOB PRIMARY KEY);
CREATE TABLE node (name TEXT PRIMARY KEY, value BLOB NOT NULL);
INSERT INTO node VALUES ('boots', 0);
"""
# The small columns come before the blob, so that a search that filters does not read overflow pages.
COLUMNS: Final = ("id", "settled", "state", "task", "queue", "owner", "due", "promise", "checksum", "blob")
# One SQL row; `?` values in the order of COLUMNS.
Values = tuple[bytes, bool, str, str, str, str, float | None, bytes | None, int, bytes]


# --------------------------------------------------------------------------------------------- errors


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


# ----------------------------------------------------------------------------------------------- rows


class UnsettledRows:
    """The healthy unsettled rows of a file, read a piece at a time each time they are asked for: there may be
    a million. In the order in which their jobs first came."""

    def __init__(self, database: sqlite3.Connection, file: Path) -> None:
        self._database = database
        self._file = file

    def __iter__(self) -> Iterator[Row]:
        """Raises:
        StoreDamaged: the file cannot be read any more, as it could a moment ago.
        """
        after = -1
        while True:
            try:
                found = self._database.execute(UNSETTLED, (after,)).fetchall()
            except sqlite3.DatabaseError as error:
                raise _unusable(self._file, error) from error
            if not found:
                return
            after = found[-1][0]
            for _, *fields in found:
                if (row := _healthy(tuple(fields))) is not None:
                    yield row


class Boot(NamedTuple):
    """What a node finds on its disk when it starts."""

    boot: int  # the number of the life that begins now (`core.types.next_boot`); durable
    past: Past
    behind: str  # why this disk has no vote; empty if it has
    identity: bytes | None
    peers: tuple[bytes, ...]
    words: bytes  # what is remembered of the others' lives
    rows: UnsettledRows  # to be read before anything is written
    clock: Wall = 0.0  # as the latest `Persist` that had one; 0: none
    forgotten: Wall = 0.0  # likewise
    damaged: tuple[JobId, ...] = ()  # of which no healthy row is here
    queues: bytes = b""  # as the latest `Persist` that had them


class Damage(NamedTuple):
    """Something on the disk is not what was written: the rows of these jobs; if none, the file as a whole."""

    jobs: tuple[JobId, ...]
    text: str


def _pack_promise(promise: Promise | None) -> bytes | None:
    if promise is None:
        return None
    packed: bytes = msgpack.packb((promise.epoch, *promise.ballot))
    return packed


def _checksum(job: bytes, settled: bool, promise: bytes | None, blob: bytes) -> int:
    return crc32(blob, crc32(promise or b"", crc32(job, int(settled))))


def _values(stored: StoredRow) -> Values:
    row, owner, settled, state, task, queue, due = stored
    promise = _pack_promise(row.promise)
    checksum = _checksum(row.id, settled, promise, row.blob)
    day = None if due == FOREVER else due
    return (row.id, settled, state, task, queue, owner, day, promise, checksum, row.blob)


HEALTH: Final = "id, settled, promise, checksum, blob"
"""The columns that say whether a row is what was written, and what it says."""


def _healthy(fields: tuple[Any, ...]) -> Row | None:
    """The row behind the columns `HEALTH`, or None if it is not what was written."""
    job, settled, packed, checksum, blob = fields
    if not (isinstance(job, bytes) and isinstance(blob, bytes) and isinstance(packed, bytes | None)):
        return None
    if settled not in (0, 1) or _checksum(job, bool(settled), packed, blob) != checksum:
        return None
    if packed is None:
        return Row(JobId(job), blob, None)
    epoch, term, owner = msgpack.unpackb(packed)  # its checksum says that we wrote it
    return Row(JobId(job), blob, Promise(epoch, Ballot(term, NodeId(owner))))


PIECE_ROWS: Final = 500
UNSETTLED: Final = (
    f"SELECT rowid, {HEALTH} FROM jobs WHERE settled = 0 AND rowid > ? ORDER BY rowid LIMIT {PIECE_ROWS}"
)


def _upsert(count: int) -> str:
    marks = f"({','.join('?' * len(COLUMNS))})"
    updates = ",".join(f"{name}=excluded.{name}" for name in COLUMNS[1:])
    return (
        f"INSERT INTO jobs ({','.join(COLUMNS)}) VALUES {','.join([marks] * count)} "
        f"ON CONFLICT (id) DO UPDATE SET {updates}"
    )


SAVE: Final = f"INSERT OR IGNORE INTO jobs ({','.join(COLUMNS)}) VALUES ({','.join('?' * len(COLUMNS))})"
UPSERTS: Final = {
    count: _upsert(count)
    for count in (*range(1, STATEMENT_STEP), *range(STATEMENT_STEP, STATEMENT_ROWS + 1, STATEMENT_STEP))
}
"""Few enough statements to stay prepared, and at most two steps for a batch of up to 543 rows."""


def _in_statements(rows: list[Values]) -> Iterator[tuple[str, list[Any]]]:
    start = 0
    while start < len(rows):
        left = len(rows) - start
        count = left if left < STATEMENT_STEP else min(STATEMENT_ROWS, left - left % STATEMENT_STEP)
        yield UPSERTS[count], [value for row in rows[start : start + count] for value in row]
        start += count


# ----------------------------------------------------------------------------------------- connections


def _connect(file: Path) -> sqlite3.Connection:
    # Every connection is used by one thread at a time; which one, is the caller's business. A file that is
    # gone is not made anew: it would be an empty one in the place of all that is known.
    database = sqlite3.connect(
        f"{file.as_uri()}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=len(UPSERTS) + 16,
    )
    try:
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA fullfsync = 1")  # macOS: fsync alone does not reach the disk there
        database.execute("PRAGMA wal_autocheckpoint = 0")  # the writer does it, after `done`
    except sqlite3.Error:
        database.close()
        raise
    return database


def _found_files(file: Path) -> tuple[tuple[int, int] | None, ...]:
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
    os.ftruncate(handle, 0)
    os.write(handle, str(os.getpid()).encode())
    return handle


@contextmanager
def _held(folder: Path) -> Iterator[int]:
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


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the disk gave other bytes than it was given, or none. Not: closed, busy, full, or any other
    failure that is over when there is room again."""
    code = _code(error)
    return code in UNREADABLE or code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _unusable(file: Path, error: sqlite3.Error) -> EdgeNodeError:
    """What to raise when opening fails; a statement that does not fit the tables (code 1) is damage too."""
    if _is_damage(error) or _code(error) == sqlite3.SQLITE_ERROR:
        return _damaged(file, str(error))
    if _code(error) & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return FolderRefused(f"{file}: {error}: may this user read and write it?")
    return DiskRefused(f"{file}: {error}")


def _find_room(folder: Path) -> None:
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


def _past(lives: bytes, written: int) -> Past:
    """The lives that a disk knows of; of the last one it counts the writes apart."""
    known = [Word(int(boot), int(count)) for boot, count in msgpack.unpackb(lives)]
    return (*known[:-1], Word(known[-1].boot, written))


def _damaged(file: Path, found: str) -> StoreDamaged:
    return StoreDamaged(f"{file}: {found}", file=str(file), found=found)


def _check_structure(database: sqlite3.Connection, file: Path) -> None:
    """Raise StoreDamaged unless every page is where it belongs, and the index names each row once."""
    try:
        ((found,),) = database.execute("PRAGMA integrity_check(1)").fetchall()
    except sqlite3.DatabaseError as error:
        if _is_damage(error):
            raise _damaged(file, str(error)) from error
        raise
    if found != "ok":
        raise _damaged(file, " ".join(str(found).split()))


def _open_file(file: Path) -> sqlite3.Connection:
    """The writer's connection to a file that exists and is ours, made if there was none at all."""
    log = file.with_name(file.name + "-wal")
    has_log = log.exists() and log.stat().st_size > 0
    if has_log and (not file.exists() or file.stat().st_size == 0):
        # SQLite would throw the log away and begin anew: promises would be forgotten without a word.
        raise _damaged(file, "the file is missing or empty, but its log is not")
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    try:
        database = _connect(file)
    except sqlite3.DatabaseError as error:
        raise _unusable(file, error) from error
    try:
        _make_usable(database, file)
    except sqlite3.DatabaseError as error:
        # Closed before anything else: the end of a connection takes away the log that bears the file's name.
        database.close()
        raise _unusable(file, error) from error
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
            f"BEGIN IMMEDIATE; {SCHEMA} {CLAIM_SCHEMA} {REPORT_SCHEMA}"
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
        raise _damaged(file, "the header says that it is another program's")
    elif version != SCHEMA_VERSION:
        text = f"{file} has format {version}; this version of edgenode knows {SCHEMA_VERSION} only"
        raise StoreOfOtherVersion(text)
    elif file.stat().st_size <= CHECK_BYTES_MAX:
        _check_structure(database, file)


# ---------------------------------------------------------------------------------------------- store


@dataclass(frozen=True, slots=True)
class _Order:
    """Something the writer thread is to make durable, or (`recovers`) to find out whether it can again."""

    done: Done
    rows: tuple[StoredRow, ...] = ()
    settings: tuple[Setting, ...] = ()
    size: int = 0
    dropped: tuple[JobId, ...] = ()
    recovers: bool = False
    claims: tuple[ClaimRow, ...] = ()
    forget_claims_before: Wall = 0.0
    reports: tuple[Said, ...] = ()
    silenced: tuple[JobId, ...] = ()


class Store:
    """The disk of one node. `commit` from any thread; `boot` once; `archive` from the event loop's thread;
    `search` from any other; `close` ends it, and calling it twice is fine.

    A row whose checksum is wrong is never handed out. Its id is kept in `damaged`, on disk too, because
    this node must not vote on that job again, whatever copy it fetches later.

    After a commit that failed all others fail, until `recover`: what the node wants to write next follows
    from what it believes is on the disk. A slow disk refuses nothing; see `pending_bytes`.
    """

    def __init__(
        self, folder: Path, lock: int, writer: sqlite3.Connection, on_damage: Callable[[Damage], None]
    ):
        self._file = folder / FILE_NAME
        self._lock_handle = lock
        self._writer = writer
        self.on_damage = on_damage
        self._queue: deque[_Order] = deque()
        self._changed = threading.Condition()
        self._pending_bytes = 0
        self._closing = False
        self._closed = False
        self._unfolded_rows = 0
        self._unfolded_bytes = 0
        self._damage_lock = threading.Lock()
        self._damaged: set[JobId] = set()
        self._unsaved_damage: set[JobId] = set()
        self._refusal: EdgeNodeError | None = None  # the writer thread's
        self.on_commit: Callable[[Seconds], None] = lambda took_s: None
        """Told how long each transaction took, from the writer thread."""
        self._tally = Tally(self._file.with_name(self._file.name + SUFFIX))
        self._progress = Progress(0, 0)
        self._reader = _connect(self._file)
        try:
            self._save_rows()
            self._boot = self._load()
        except EdgeNodeError:
            self._reader.close()
            writer.close()
            self._tally.close()
            raise
        self._archive = StoreArchive(self._reader, self._report, self._damaged)
        self._searcher = _connect(self._file)
        self._files = _found_files(self._file)
        self._search_lock = threading.Lock()
        self._thread = threading.Thread(target=self._write_all, name="edgenode-store", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, folder: Path | str, on_damage: Callable[[Damage], None] = lambda damage: None) -> Store:
        """Open the store in `folder`, made if there is none; counts one boot, durably.

        Args:
            on_damage: told of each row that is refused, once; from the thread that met it.

        Raises:
            StoreLocked: another process has this folder.
            StoreDamaged: there is a file, but not one that can be trusted.
            StoreOfOtherVersion: a version with another format wrote it.
            DiskRefused: the disk takes no writes.
            FolderRefused: this process cannot use the folder.
        """
        folder = Path(folder).absolute()
        with _held(folder) as lock:
            return cls(folder, lock, _open_file(folder / FILE_NAME), on_damage)

    @classmethod
    def open_or_renew(
        cls,
        folder: Path | str,
        on_damage: Callable[[Damage], None] = lambda damage: None,
        *,
        distrust: str = "",
    ) -> Store:
        """As `open`; but a file that cannot be trusted is set aside, beside the new one, and its readable
        rows saved as copies. The new store has no identity: what it was before never votes again.

        Args:
            distrust: why the file that is there is not even to be tried.
        """
        folder = Path(folder).absolute()
        file = folder / FILE_NAME
        with _held(folder) as lock:
            if not distrust:
                try:
                    return cls(folder, lock, _open_file(file), on_damage)
                except StoreDamaged as damage:
                    distrust = damage.detail
            aside = salvage.set_aside(file)
            on_damage(Damage((), f"{distrust}. It is set aside as {aside.name}"))
            return cls(folder, lock, _open_file(file), on_damage)

    def _load(self) -> Boot:
        database = self._writer
        refused: list[JobId] = []
        try:
            self._damaged.update(JobId(job) for (job,) in database.execute("SELECT id FROM damaged"))
            found = dict(database.execute("SELECT name, value FROM node"))
            written = int(found.get("written", 0))
            past = _past(found["lives"], written) if "lives" in found else ()
            noted = self._tally.read()
            if noted is not None and noted > Progress(int(found["boots"]), written):
                raise _damaged(
                    self._file, f"its log is not whole: writes up to {tuple(noted)} were on this disk"
                )
            before = max((*(life.boot for life in past), int(found["boots"])))
            boot = next_boot(before, secrets.randbits(CHANCE_BITS))
            peers = tuple(msgpack.unpackb(found["peers"])) if "peers" in found else ()
            clock, forgotten = (float(found.get(name, 0.0)) for name in ("clock", "forgotten"))
            unfinished = database.execute(f"SELECT {HEALTH} FROM jobs WHERE settled = 0")
            refused += [JobId(bytes(fields[0])) for fields in unfinished if _healthy(fields) is None]
            if self._file.stat().st_size <= CHECK_BYTES_MAX:
                finished = database.execute(f"SELECT {HEALTH} FROM jobs WHERE settled != 0")
                refused += [JobId(bytes(fields[0])) for fields in finished if _healthy(fields) is None]
            database.execute("BEGIN IMMEDIATE")
            lives = msgpack.packb((*past, Word(boot, 0))[-LIVES_KEPT:])
            begun = {"boots": boot, "written": 0, "lives": lives}
            database.executemany("INSERT OR REPLACE INTO node VALUES (?, ?)", begun.items())
            database.executemany("INSERT OR IGNORE INTO damaged VALUES (?)", [(job,) for job in refused])
            database.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            _roll_back(database)
            raise _unusable(self._file, error) from error
        except (LookupError, TypeError, ValueError) as error:
            raise _damaged(self._file, f"a row cannot be read ({error!r})") from error
        self._note({"boots": boot, "written": 0})
        news = tuple(job for job in refused if job not in self._damaged)
        self._damaged.update(refused)
        if news:
            self.on_damage(
                Damage(
                    news, f"the rows of {len(news)} jobs are not what was written, of {news[0].hex()} first"
                )
            )
        behind, words = str(found.get("behind", "")), found.get("words", b"")
        identity, missing = found.get("identity"), self._missing()
        days, queues = (clock, forgotten), found.get("queues", b"")
        rows = UnsettledRows(self._reader, self._file)
        return Boot(boot, past, behind, identity, peers, words, rows, *days, missing, queues)

    def _missing(self) -> tuple[JobId, ...]:
        """The damaged jobs whose rows were not written again since."""
        archive = StoreArchive(self._writer, lambda job, found: None, self._damaged)
        damaged = sorted(self._damaged)
        healthy = archive.get(damaged) if damaged else {}
        return tuple(job for job in damaged if job not in healthy)

    def _save_rows(self) -> None:
        """Copy what can be read of a file that was set aside, in one go; again if that was interrupted.

        Promises are left behind: they were another identity's.
        """
        database = self._writer
        try:
            found = dict(database.execute("SELECT name, value FROM node"))
            name = str(found.get("replaces", ""))
            if not name:
                return
            aside = self._file.with_name(name)
            saved = lost = 0
            database.execute("BEGIN IMMEDIATE")
            for job, settled, promise, checksum, blob, *labels in salvage.readable_rows(aside):
                *labels, day = labels
                row = _healthy((job, settled, promise, checksum, blob))
                # No checksum speaks for these columns.
                is_odd = not (all(isinstance(label, bytes) for label in labels) and _is_day(day))
                if row is None or is_odd or not row.blob:
                    lost += row is None or is_odd
                    continue
                state, task, queue, owner = (bytes(label).decode(errors="replace") for label in labels)
                due = FOREVER if day is None else float(day)
                row = row._replace(promise=None)
                kept = StoredRow(row, NodeId(owner), bool(settled), state, task, queue, due)
                database.execute(SAVE, _values(kept))
                saved += 1
            peers = salvage.setting(aside, "peers")
            if _is_list_of_bytes(peers):  # no checksum speaks for it; without it others are to be named
                database.execute("INSERT OR REPLACE INTO node VALUES ('peers', ?)", (peers,))
            database.execute("UPDATE node SET value = '' WHERE name = 'replaces'")
            database.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            _roll_back(database)
            raise _unusable(self._file, error) from error
        text = f"{saved} jobs were saved from {name} as copies without a vote; {lost} rows were damaged"
        self.on_damage(Damage((), text))

    # ------------------------------------------------------------------------------------- reading

    def boot(self) -> Boot:
        """What was on the disk when it was opened."""
        return self._boot

    def archive(self) -> StoreArchive:
        """The core's read side; sees what is durable, and blocks for a page read at most."""
        return self._archive

    def search(self, query: Query, limit_s: Seconds = FOREVER) -> SearchResult:
        """The records that match, newest first; what was found in `limit_s`, if that is not all. Blocks: not
        for the event loop's thread."""
        found: list[bytes] = []
        size = 0
        upto = b""
        with self._search_lock:
            if self._closed:
                return SearchResult((), False)
            ends_at = time.monotonic() + limit_s
            self._searcher.set_progress_handler(lambda: time.monotonic() >= ends_at, SEARCH_STEPS)
            try:
                for window in windows(self._searcher, query):
                    for fields in self._searcher.execute(*statement(query, window, HEALTH)):
                        if len(found) >= query.limit or size >= SEARCH_BYTES_MAX:
                            return SearchResult(tuple(found), False)
                        row = _healthy(fields)
                        if row is None:
                            self._report(fields[0], "its checksum is wrong")
                        else:
                            found.append(row.blob)
                            size += len(row.blob)
                    upto = window.low
            except sqlite3.Error as error:
                # A part of an answer, marked as a part, serves a person better than none.
                if _is_damage(error):
                    self._report(None, f"a search was not finished: {error}")
                return SearchResult(tuple(found), False, upto)
        return SearchResult(tuple(found), True)

    @property
    def aside(self) -> list[Path]:
        """Damaged files that were set aside here, and that nobody has deleted yet."""
        return salvage.found_aside(self._file)

    @property
    def damaged(self) -> frozenset[JobId]:
        """Jobs on which this node never votes again: their row was damaged once."""
        with self._damage_lock:
            return frozenset(self._damaged)

    def size_bytes(self) -> int:
        """Of the file and its log."""
        files = (self._file, self._file.with_name(self._file.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def _report(self, job: object, found: str) -> None:
        """Note that this job's row is damaged; of no one row, if `job` is no id."""
        if not isinstance(job, bytes):
            self.on_damage(Damage((), f"{self._file}: {found}"))
            return
        job = JobId(job)
        with self._damage_lock:
            if job in self._damaged:
                return
            self._damaged.add(job)
            self._unsaved_damage.add(job)
        self._enqueue(_Order(lambda error: None))
        self.on_damage(Damage((job,), f"the row of job {job.hex()}: {found}"))

    def check(self) -> None:
        """Look through the whole file: its structure, and the checksum of every row. Reports what it finds.
        Blocks for minutes, if there is much of it; ends when the store is closed."""
        if (gone := self._gone()) is not None:
            self._report(None, str(gone.context["found"]))
            return
        try:
            database = _connect(self._file)
        except sqlite3.Error:
            return  # it went, or the disk did, just now: the next write says so
        archive = StoreArchive(database, self._report, self._damaged)
        try:
            _check_structure(database, self._file)
            after = JobId(b"")
            while not self._closing and (rows := archive.scan(after, CHECK_ROWS)):
                after = rows[-1].id
                time.sleep(CHECK_PAUSE_S)
        except StoreDamaged as error:
            self._report(None, str(error.context["found"]))
        except sqlite3.Error:
            pass  # a disk that cannot be read for another reason says so where it matters
        finally:
            database.close()

    # ------------------------------------------------------------------------------------- writing

    @property
    def pending_bytes(self) -> int:
        """What waits for the disk, for admission control: a slow disk takes everything, but late."""
        return self._pending_bytes

    def commit(self, effect: Persist, done: Done) -> None:
        """Make the rows durable, all or nothing, and call `done` then; never blocks.

        `done` gets None, or if these rows are not known to be on disk a `DiskRefused` or `StoreDamaged`.
        """
        size = sum(len(stored.row.blob) for stored in effect.rows) + ROW_BYTES * len(effect.rows)
        # In the same transaction, so that a disk which is put back can't know of more writes than it has.
        settings: list[Setting] = [("written", effect.number)]
        days = (("clock", effect.clock), ("forgotten", effect.forgotten))
        settings += [(name, day) for name, day in days if day]
        if effect.queues:
            settings.append(("queues", effect.queues))
            size += len(effect.queues)
        size += CLAIM_BYTES * len(effect.claims) + sum(map(size_of, effect.reports))
        order = _Order(
            done,
            effect.rows,
            tuple(settings),
            size,
            dropped=effect.dropped,
            claims=effect.claims,
            forget_claims_before=effect.forget_claims_before,
            reports=effect.reports,
            silenced=effect.silenced,
        )
        self._enqueue(order)

    def remember(self, peers: Sequence[bytes], done: Done = lambda error: None) -> None:
        """Replace the remembered peers; never blocks. Where that fails they are as they were."""
        packed: bytes = msgpack.packb(list(peers))
        self._enqueue(_Order(done, settings=(("peers", packed),), size=len(packed)))

    def remember_words(self, packed: bytes, done: Done = lambda error: None) -> None:
        """Replace what is remembered of the others' lives; never blocks."""
        self._enqueue(_Order(done, settings=(("words", packed),), size=len(packed)))

    def fall_behind(self, above: int, why: str) -> None:
        """Mark this disk, durably, as one without a vote, and let its next life have a number above `above`.
        Blocks for one fsync.

        Raises:
            DiskRefused: it is not marked.
        """
        self._set(("behind", why), ("boots", max(above, self._boot.boot)))

    def set_identity(self, identity: bytes) -> None:
        """Keep the node's key, durably, before anybody sees it. Blocks for one fsync.

        Raises:
            DiskRefused: it is not kept.
        """
        self._set(("identity", identity))
        self._boot = self._boot._replace(identity=identity)

    def renew(self, identity: bytes) -> None:
        """Give this disk another key: what it has of jobs becomes copies without a vote, what it said of keys
        is void (another copy of the disk may say it too), and nothing is known of the old identity's lives
        any more. Durable, all or nothing. Blocks for one fsync.

        Raises:
            DiskRefused: the old identity stays.
        """
        boot = next_boot(0, secrets.randbits(CHANCE_BITS))
        lives = msgpack.packb((Word(boot, 0),))
        settings: tuple[Setting, ...] = (
            ("identity", identity),
            ("behind", ""),
            ("boots", boot),
            ("lives", lives),
            ("written", 0),
        )
        self._wait_for(lambda done: _Order(done, settings=settings, forget_claims_before=FOREVER))
        self._boot = self._boot._replace(boot=boot, past=(), behind="", identity=identity)

    def recover(self) -> Boot:
        """Begin again on the disk after a commit that failed: what is on it, and one more boot, counted.
        Blocks, for as long as the disk takes.

        Raises:
            DiskRefused: it takes no writes yet.
            StoreDamaged: the file cannot be trusted any more.
        """
        self._wait_for(lambda done: _Order(done, recovers=True))
        return self._boot

    def _set(self, *settings: Setting) -> None:
        self._wait_for(lambda done: _Order(done, settings=settings))

    def _wait_for(self, make: Callable[[Done], _Order]) -> None:
        """Have an order carried out, and raise what it is told."""
        ended = threading.Event()
        errors: list[Exception | None] = []

        def done(error: Exception | None) -> None:
            errors.append(error)
            ended.set()

        self._enqueue(make(done))
        ended.wait()
        if errors[0] is not None:
            raise errors[0]

    def _enqueue(self, order: _Order) -> None:
        with self._changed:
            if not self._closing:
                self._pending_bytes += order.size
                self._queue.append(order)
                self._changed.notify()
                return
        order.done(DiskRefused("the store is closed"))

    def _write_all(self) -> None:
        """The writer thread: until closed, and then until the queue is empty."""
        try:
            while True:
                with self._changed:
                    while not self._queue and not self._closing:
                        self._changed.wait()
                    orders = list(self._queue)
                    self._queue.clear()
                if not orders:
                    return
                while orders:
                    orders = self._write_some(orders)
        finally:
            # Reached with a full queue only if `done` raised, which is a bug: let nobody wait for ever.
            with self._changed:
                self._closing = True
                left = list(self._queue)
                self._queue.clear()
            for order in left:
                order.done(DiskRefused("the store's writer has ended"))

    def _write_some(self, orders: list[_Order]) -> list[_Order]:
        """Carry out what can be one transaction; returns the rest."""
        if orders[0].recovers:
            orders[0].done(self._recover())
            return orders[1:]
        end = next((at for at, order in enumerate(orders) if order.recovers), len(orders))
        self._write(orders[:end])
        return orders[end:]

    def _write(self, orders: list[_Order]) -> None:
        began = time.monotonic()
        failure = self._refusal or self._transact(orders) or self._gone()
        self.on_commit(time.monotonic() - began)
        if failure is not None and any(order.rows or order.dropped or order.reports for order in orders):
            self._refusal = failure
        size = sum(order.size for order in orders)
        with self._changed:
            self._pending_bytes -= size
        for order in orders:
            order.done(failure)
        if failure is None:
            self._unfolded_rows += sum(len(order.rows) + len(order.dropped) for order in orders)
            self._unfolded_bytes += size
            if any(order.dropped for order in orders):
                self._give_back()
            if self._unfolded_rows >= CHECKPOINT_ROWS or self._unfolded_bytes >= CHECKPOINT_BYTES:
                self._fold("PASSIVE")

    def _gone(self) -> StoreDamaged | None:
        """What to say if the file or its log is not in its place any more: then what this process writes
        goes nowhere, and no failed write will ever say so."""
        if _found_files(self._file) == self._files:
            return None
        return _damaged(self._file, "the file or its log was deleted or replaced while it was used")

    def _transact(self, orders: list[_Order]) -> EdgeNodeError | None:
        database = self._writer
        # Of several writes to one job only the last is visible after the commit, so only it is written.
        rows: dict[JobId, StoredRow] = {}
        dropped: dict[JobId, None] = {}
        silenced: dict[JobId, None] = {}
        reports: dict[JobId, list[Said]] = {}
        for order in orders:
            for job in (*order.dropped, *order.silenced):
                reports.pop(job, None)
                silenced[job] = None
            for job in order.dropped:
                rows.pop(job, None)
                dropped[job] = None
            for said in order.reports:
                reports.setdefault(said.job, []).append(said)
            for stored in order.rows:
                rows[stored.row.id] = stored
                dropped.pop(stored.row.id, None)
        claims = {claim.id: claim for order in orders for claim in order.claims}
        forget_before = max(order.forget_claims_before for order in orders)
        settings = [pair for order in orders for pair in order.settings]
        with self._damage_lock:
            damaged = list(self._unsaved_damage)
        if not (rows or settings or damaged or dropped or claims or forget_before or reports or silenced):
            return None
        try:
            database.execute("BEGIN IMMEDIATE")
            for sql, values in _in_statements([_values(stored) for stored in rows.values()]):
                database.execute(sql, values)
            if dropped:
                database.executemany("DELETE FROM jobs WHERE id = ?", [(job,) for job in dropped])
            write_claims(database, list(claims.values()), forget_before)
            write_reports(database, [said for items in reports.values() for said in items], list(silenced))
            if settings:
                database.executemany("INSERT OR REPLACE INTO node VALUES (?, ?)", settings)
            if damaged:
                database.executemany("INSERT OR IGNORE INTO damaged VALUES (?)", [(job,) for job in damaged])
            database.execute("COMMIT")
        except sqlite3.Error as error:
            _roll_back(database)
            return _unusable(self._file, error)
        self._note(dict(settings))
        with self._damage_lock:
            self._unsaved_damage.difference_update(damaged)
        return None

    def _note(self, settings: Mapping[str, object]) -> None:
        """These settings are durable: note beside the file how far it has come."""
        boot, written = (
            settings.get(name, before)
            for name, before in zip(("boots", "written"), self._progress, strict=True)
        )
        assert isinstance(boot, int)
        assert isinstance(written, int)
        if (boot, written) != self._progress:
            self._progress = Progress(boot, written)
            self._tally.note(self._progress)

    def _recover(self) -> EdgeNodeError | None:
        """Whether the disk takes writes again; if so, the next life begins on what it has."""
        try:
            self._fold("TRUNCATE")  # what the log gives back may be all the room there is
            _find_room(self._file.parent)
            self._boot = self._load()
        except OSError as error:
            return DiskRefused(f"{self._file.parent}: {error.strerror}")
        except EdgeNodeError as error:
            return error
        self._refusal = None
        return None

    def _give_back(self) -> None:
        """Return some of the pages that dropped rows have left to the file system, if they are many; a few
        are kept, since new jobs will need them."""
        database = self._writer
        try:
            (free,) = database.execute("PRAGMA freelist_count").fetchone()
            (pages,) = database.execute("PRAGMA page_count").fetchone()
            if free > max(KEPT_PAGES, pages // 4):
                # Not `execute`, which takes one step of a statement without columns: one page.
                database.executescript(f"PRAGMA incremental_vacuum({GIVEN_PAGES})")
        except sqlite3.Error:
            return  # they stay, and are used again

    def _fold(self, mode: str) -> None:
        """Move the log's pages into the file. If the disk refuses, the log just stays longer."""
        try:
            self._writer.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        except sqlite3.Error:
            return
        self._unfolded_rows = self._unfolded_bytes = 0

    def close(self) -> None:
        """Write what is queued, fold the log and let go of the folder. Blocks for about two fsyncs."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        if not self._closed:
            self._searcher.interrupt()
        with self._search_lock:
            if self._closed:
                return
            self._closed = True
            self._searcher.close()
        self._archive.close()
        self._fold("TRUNCATE")
        self._writer.close()
        self._tally.close()
        os.close(self._lock_handle)


def _is_day(value: object) -> bool:
    return value is None or isinstance(value, int | float)


def _is_list_of_bytes(packed: object) -> bool:
    if not isinstance(packed, bytes):
        return False
    try:
        found = msgpack.unpackb(packed)
    except (ValueError, msgpack.UnpackException):
        return False
    return isinstance(found, list) and all(isinstance(each, bytes) for each in found)


def _roll_back(database: sqlite3.Connection) -> None:
    if database.in_transaction:
        with suppress(sqlite3.Error):  # SQLite has done it by itself, after some errors
            database.execute("ROLLBACK")


# -------------------------------------------------------------------------------------------- archive


class StoreArchive:
    """`signals.Archive` on a connection of its own. Damage is reported, never raised or handed out."""

    def __init__(
        self, database: sqlite3.Connection, report: Callable[[object, str], None], damaged: Set[JobId]
    ) -> None:
        self._database = database
        self._report = report
        self.damaged = damaged

    def get(self, jobs: Sequence[JobId]) -> dict[JobId, Row]:
        """The healthy rows among these jobs."""
        found: dict[JobId, Row] = {}
        for start in range(0, len(jobs), READ_CHUNK):
            chunk = jobs[start : start + READ_CHUNK]
            try:
                self._read(chunk, found)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._read_singly(chunk, found)
        return found

    def _read(self, jobs: Sequence[JobId], found: dict[JobId, Row]) -> None:
        # Padded to a power of two, so that the prepared statements are few.
        count = 1 << (len(jobs) - 1).bit_length()
        asked = [*jobs, *[jobs[-1]] * (count - len(jobs))]
        marks = ",".join("?" * count)
        sql = f"SELECT {HEALTH} FROM jobs WHERE id IN ({marks})"
        for fields in self._database.execute(sql, asked):
            row = _healthy(fields)
            if row is None:
                self._report(fields[0], "its checksum is wrong")
            else:
                found[row.id] = row

    def _read_singly(self, jobs: Iterable[JobId], found: dict[JobId, Row]) -> None:
        """One broken page must not hide the rows on the others."""
        for job in jobs:
            try:
                self._read([job], found)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._report(job, str(error))
                self._report(None, str(error))  # more than this row may be wrong

    def scan(self, after: JobId, limit: int) -> list[Row]:
        """Healthy rows in id order, strictly after `after`; fewer than `limit` only at the end."""
        rows: list[Row] = []
        cursor: bytes = after
        while len(rows) < limit:
            wanted = limit - len(rows)
            try:
                # From the index alone, which stands when pages of the table are broken.
                found = self._database.execute(
                    "SELECT id FROM jobs WHERE id > ? ORDER BY id LIMIT ?", (cursor, wanted)
                ).fetchall()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._report(None, str(error))
                return rows
            jobs = [JobId(job) for (job,) in found]
            healthy = self.get(jobs)
            rows += [healthy[job] for job in jobs if job in healthy]
            if len(jobs) < wanted:
                return rows
            cursor = jobs[-1]
        return rows

    def due(self, until: Wall, after: tuple[Wall, JobId], limit: int) -> list[tuple[Wall, JobId]]:
        """From the index alone."""
        try:
            found = self._database.execute(
                "SELECT due, id FROM jobs WHERE due IS NOT NULL AND due <= ? AND (due, id) > (?, ?) "
                "ORDER BY due, id LIMIT ?",
                (until, *after, limit),
            ).fetchall()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._report(None, str(error))
            return []
        return [(day, JobId(job)) for day, job in found]

    def claims(self, jobs: Sequence[JobId]) -> dict[JobId, ClaimRow]:
        """The healthy claims among these. Of a damaged one the job is reported: this disk's word on it is
        not known any more."""
        found: dict[JobId, ClaimRow] = {}
        pieces = [jobs[start : start + READ_CHUNK] for start in range(0, len(jobs), READ_CHUNK)]
        while pieces:
            piece = pieces.pop()
            try:
                rows = list(read_claims(self._database, piece, self._report_claim))
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                if len(piece) == 1:
                    self._report(piece[0], str(error))
                else:  # one broken page must not hide the rows on the others
                    pieces += [[job] for job in piece]
            else:
                found.update((row.id, row) for row in rows)
        return found

    def _report_claim(self, job: object) -> None:
        self._report(job, "the checksum of its claim is wrong")

    def reports(self, job: JobId, *, brief: bool) -> list[Said]:
        try:
            return list(read_reports(self._database, job, brief=brief))
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._report(None, str(error))
            return []

    def claim_count(self) -> int:
        try:
            return count_claims(self._database)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._report(None, str(error))
            return 0

    def close(self) -> None:
        self._database.close()
