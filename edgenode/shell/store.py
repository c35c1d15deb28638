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

import os
import secrets
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import msgpack

from edgenode.core.errors import EdgeNodeError
from edgenode.core.signals import ClaimRow, Persist, Row, StoredRow
from edgenode.core.types import (
    CHANCE_BITS,
    FOREVER,
    JobId,
    NodeId,
    Past,
    Seconds,
    Wall,
    Word,
    next_boot,
)
from edgenode.core.wire import Query, Said
from edgenode.shell import salvage
from edgenode.shell.archive import StoreArchive
from edgenode.shell.claim_table import (
    CLAIM_BYTES,
    write_claims,
)
from edgenode.shell.job_search import SearchResult, statement, windows
from edgenode.shell.job_table import HEALTH, SAVE, healthy, in_statements, values_of
from edgenode.shell.report_table import size_of, write_reports
from edgenode.shell.store_file import (
    FILE_NAME,
    Damage,
    DiskRefused,
    StoreDamaged,
    check_structure,
    connect,
    damage_of,
    find_room,
    found_files,
    held,
    is_damage,
    is_small,
    open_file,
    refusals,
    roll_back,
    unusable,
)
from edgenode.shell.tally import SUFFIX, Progress, Tally

Done = Callable[[Exception | None], None]
"""Called once per commit, from the writer thread, in the order of the commits."""

Setting = tuple[str, bytes | float | str]
"""A fact about the node as a whole, by name."""

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
"""Of SQLite's machine between two looks at the clock, or at whether it is over: well under a millisecond."""
CHECK_ROWS: Final = 500
CHECK_PAUSE_S: Final[Seconds] = 0.05
"""Between so many rows of a large file: some 10,000 rows a second, and nobody notices."""

PIECE_ROWS: Final = 500
UNSETTLED: Final = (
    f"SELECT rowid, {HEALTH} FROM jobs WHERE settled = 0 AND rowid > ? ORDER BY rowid LIMIT {PIECE_ROWS}"
)


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
                raise unusable(self._file, error) from error
            if not found:
                return
            for number, *fields in found:
                if number <= after:
                    raise damage_of(self._file, "its pages lead back to rows that were read before")
                after = number
                if (row := healthy(tuple(fields))) is not None:
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


def _past(lives: bytes, written: int) -> Past:
    """The lives that a disk knows of; of the last one it counts the writes apart."""
    known = [Word(int(boot), int(count)) for boot, count in msgpack.unpackb(lives)]
    return (*known[:-1], Word(known[-1].boot, written))


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
        self._reader = connect(self._file)
        try:
            self._save_rows()
            self._boot = self._load()
        except BaseException:
            self._reader.close()
            writer.close()
            self._tally.close()
            raise
        self._archive = StoreArchive(self._reader, self._report, self._damaged)
        self._searcher = connect(self._file)
        self._files = found_files(self._file)
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
        with held(folder) as lock:
            return cls(folder, lock, open_file(folder / FILE_NAME), on_damage)

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

        Raises:
            DiskRefused: if it has `context["aside"]`, what is there now is the new one, and the next try is
                to go on with it: set aside as well, it would be saved in the place of what it is to save.
        """
        folder = Path(folder).absolute()
        file = folder / FILE_NAME
        with held(folder) as lock:
            if not distrust:
                try:
                    return cls(folder, lock, open_file(file), on_damage)
                except StoreDamaged as damage:
                    distrust = damage.detail
            aside = salvage.set_aside(file)
            on_damage(Damage((), f"{distrust}. It is set aside as {aside.name}"))
            try:
                with refusals(folder):
                    return cls(folder, lock, open_file(file), on_damage)
            except DiskRefused as error:
                error.context["aside"] = aside.name
                raise

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
                raise damage_of(
                    self._file, f"its log is not whole: writes up to {tuple(noted)} were on this disk"
                )
            before = max((*(life.boot for life in past), int(found["boots"])))
            boot = next_boot(before, secrets.randbits(CHANCE_BITS))
            peers = tuple(msgpack.unpackb(found["peers"])) if "peers" in found else ()
            clock, forgotten = (float(found.get(name, 0.0)) for name in ("clock", "forgotten"))
            unfinished = database.execute(f"SELECT {HEALTH} FROM jobs WHERE settled = 0")
            refused += [JobId(bytes(fields[0])) for fields in unfinished if healthy(fields) is None]
            if is_small(self._file):
                finished = database.execute(f"SELECT {HEALTH} FROM jobs WHERE settled != 0")
                refused += [JobId(bytes(fields[0])) for fields in finished if healthy(fields) is None]
            database.execute("BEGIN IMMEDIATE")
            lives = msgpack.packb((*past, Word(boot, 0))[-LIVES_KEPT:])
            begun = {"boots": boot, "written": 0, "lives": lives}
            database.executemany("INSERT OR REPLACE INTO node VALUES (?, ?)", begun.items())
            database.executemany("INSERT OR IGNORE INTO damaged VALUES (?)", [(job,) for job in refused])
            database.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            roll_back(database)
            raise unusable(self._file, error) from error
        except (LookupError, TypeError, ValueError) as error:
            raise damage_of(self._file, f"a row cannot be read ({error!r})") from error
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
        found = archive.get(damaged) if damaged else {}
        return tuple(job for job in damaged if job not in found)

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
                row = healthy((job, settled, promise, checksum, blob))
                # No checksum speaks for these columns.
                is_odd = not (all(isinstance(label, bytes) for label in labels) and _is_day(day))
                if row is None or is_odd or not row.blob:
                    lost += row is None or is_odd
                    continue
                state, task, queue, owner = (bytes(label).decode(errors="replace") for label in labels)
                due = FOREVER if day is None else float(day)
                row = row._replace(promise=None)
                kept = StoredRow(row, NodeId(owner), bool(settled), state, task, queue, due)
                database.execute(SAVE, values_of(kept))
                saved += 1
            peers = salvage.setting(aside, "peers")
            if _is_list_of_bytes(peers):  # no checksum speaks for it; without it others are to be named
                database.execute("INSERT OR REPLACE INTO node VALUES ('peers', ?)", (peers,))
            database.execute("UPDATE node SET value = '' WHERE name = 'replaces'")
            database.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            roll_back(database)
            raise unusable(self._file, error) from error
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
                        row = healthy(fields)
                        if row is None:
                            self._report(fields[0], "its checksum is wrong")
                        else:
                            found.append(row.blob)
                            size += len(row.blob)
                    upto = window.low
            except sqlite3.Error as error:
                # A part of an answer, marked as a part, serves a person better than none.
                if is_damage(error):
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
            database = connect(self._file)
        except sqlite3.Error:
            return  # it went, or the disk did, just now: the next write says so
        database.set_progress_handler(lambda: self._closing, SEARCH_STEPS)
        archive = StoreArchive(database, self._report, self._damaged)
        try:
            check_structure(database, self._file)
            after = JobId(b"")
            while not self._closing and (rows := archive.scan(after, CHECK_ROWS)):
                after = rows[-1].id
                time.sleep(CHECK_PAUSE_S)
        except StoreDamaged as error:
            self._report(None, str(error.context["found"]))
        except sqlite3.Error:
            pass  # a disk that cannot be read for another reason says so where it matters; or it is closed
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
        orders: list[_Order] = []
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
            # With anything left only after an error that is a bug: let nobody wait for ever.
            with self._changed:
                self._closing = True
                left = [*orders, *self._queue]
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
        if found_files(self._file) == self._files:
            return None
        return damage_of(self._file, "the file or its log was deleted or replaced while it was used")

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
            for sql, values in in_statements([values_of(stored) for stored in rows.values()]):
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
            roll_back(database)
            return unusable(self._file, error)
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
            find_room(self._file.parent)
            self._boot = self._load()
        except (OSError, sqlite3.Error) as error:
            return DiskRefused(f"{self._file.parent}: {error}")
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
