"""One machine's disk: what is durable, and nothing else."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from edgenode.core.job_bytes import decode
from edgenode.core.jobs import Record
from edgenode.core.signals import ClaimRow, Row, SearchedHere, StoredRow
from edgenode.core.types import JobId, Past, Promise, Wall, Word, next_boot, starts_of
from edgenode.core.wire import Query, Said
from edgenode.sim.shelf import Shelf


@lru_cache(maxsize=4096)
def _decoded(blob: bytes) -> Record:
    """Checkers look at the same copies again and again; records never change."""
    return decode(blob)


def record_of(row: Row | None) -> Record | None:
    """The record in a row; None for no row, or for a promise that came before any copy."""
    return None if row is None or not row.blob else _decoded(row.blob)


def promise_of(row: Row | None) -> Promise | None:
    """The promise in force: the row's own, else the ballot its record stands under."""
    if row is None:
        return None
    if row.promise is not None:
        return row.promise
    record = record_of(row)
    return None if record is None else Promise(record.epoch, record.ballot)


class Disk:
    """Implements `signals.Archive`. Survives the lives of its machine, unless it is wiped.

    Bits can flip in a row, or in a claim: it is then refused by whoever reads it, and gone; the job is
    `damaged` from then on. What nobody has read yet counts as being there.
    """

    def __init__(self) -> None:
        self.rows: dict[JobId, StoredRow] = {}
        self.claim_rows: dict[JobId, ClaimRow] = {}
        self.shelf = Shelf()
        self.peers: tuple[bytes, ...] = ()
        self.clock: Wall = 0.0
        self.queues = b""  # the settings of all queues
        self.words = b""  # what is remembered of the others' lives
        self.lives: Past = ()  # that began on it; the last one's writes are counted in `written`
        self.written = 0  # writes of the last of them
        self.behind = False
        self.forgotten: Wall = 0.0
        self.takes_writes = True
        self.on_damage: Callable[[tuple[JobId, ...]], None] = lambda jobs: None
        """Told of the jobs whose rows or claims were just refused, unless a new life is told of them."""
        self._order: list[JobId] = []
        self._damaged: set[JobId] = set()  # refused, ever
        self.damaged_rows: set[JobId] = set()  # of those the ones whose rows were, not only their claims
        self._bad_rows: set[JobId] = set()  # not what was written, and nobody knows
        self._bad_claims: set[JobId] = set()

    def copy(self) -> Disk:
        """A snapshot, or the same files on another disk."""
        made = Disk()
        made.put_back(self)
        return made

    def put_back(self, snapshot: Disk) -> None:
        """What was written since the snapshot is gone."""
        self.rows, self._order = dict(snapshot.rows), list(snapshot._order)
        self.claim_rows, self.shelf = dict(snapshot.claim_rows), snapshot.shelf.copy()
        self.peers, self.words, self.behind = snapshot.peers, snapshot.words, snapshot.behind
        self.lives, self.written = snapshot.lives, snapshot.written
        self.clock, self.forgotten, self.queues = snapshot.clock, snapshot.forgotten, snapshot.queues
        self._damaged, self.damaged_rows = set(snapshot._damaged), set(snapshot.damaged_rows)
        self._bad_rows, self._bad_claims = set(snapshot._bad_rows), set(snapshot._bad_claims)

    def salvage(self, source: Disk, jobs: Iterable[JobId]) -> None:
        """What could be read of another identity's file: copies, without any word that it gave."""
        self.write(source.rows[job]._replace(row=source.rows[job].row._replace(promise=None)) for job in jobs)
        self.peers = source.peers

    # ------------------------------------------------------------------------------------ damage

    def flip_bits(self, rows: Iterable[JobId], claims: Iterable[JobId] = ()) -> None:
        """These are not what was written any more."""
        self._bad_rows.update(rows)
        self._bad_claims.update(claims)

    @property
    def damaged(self) -> frozenset[JobId]:
        return frozenset(self._damaged)

    @property
    def missing(self) -> tuple[JobId, ...]:
        """Damaged jobs whose rows were not written again since."""
        return tuple(sorted(job for job in self._damaged if job not in self.rows))

    def check(self) -> None:
        """Read every row, and refuse those that are not what was written."""
        self._read(self._bad_rows)

    def _read(self, jobs: Iterable[JobId]) -> None:
        if self._bad_rows:
            refused = sorted(self._bad_rows.intersection(jobs))
            self.damaged_rows.update(refused)
            for job in refused:
                self.drop(job)
            self._report(refused)

    def _read_claims(self, jobs: Iterable[JobId]) -> None:
        if self._bad_claims:
            refused = sorted(self._bad_claims.intersection(jobs))
            for job in refused:
                self._bad_claims.discard(job)
                self.claim_rows.pop(job, None)
            self._report(refused)

    def _report(self, refused: list[JobId]) -> None:
        news = tuple(job for job in refused if job not in self._damaged)
        self._damaged.update(refused)
        if news:
            self.on_damage(news)

    # ------------------------------------------------------------------------------------- lives

    def begin_life(self, chance: int) -> Past:
        """Count a start, durably; returns what the disk knew before."""
        past: Past = ()
        if self.lives:
            past = (*self.lives[:-1], Word(self.boot, self.written))
        self.lives = (*past, Word(next_boot(self.boot, chance), 0))
        self.written = 0
        return past

    @property
    def boot(self) -> int:
        """The number of the last life that began on it; 0 for none."""
        return self.lives[-1].boot if self.lives else 0

    @property
    def lives_begun(self) -> int:
        return starts_of(self.boot)

    def fall_behind(self, above: int) -> None:
        """It is known not to be the latest of its identity; the next life gets a number above this one."""
        self.behind = True
        self.lives = (*self.lives, Word(above, 0))

    # ----------------------------------------------------------------------------------- reading

    def get(self, jobs: Sequence[JobId]) -> dict[JobId, Row]:
        self._read(jobs)
        return {job: self.rows[job].row for job in jobs if job in self.rows}

    def scan(self, after: JobId, limit: int) -> list[Row]:
        start = bisect_right(self._order, after)
        self._read(self._order[start : start + limit])
        return [self.rows[job].row for job in self._order[start : start + limit]]

    def due(self, until: Wall, after: tuple[Wall, JobId], limit: int) -> list[tuple[Wall, JobId]]:
        """The order of the store's index."""
        found = ((stored.due, job) for job, stored in self.rows.items() if stored.due <= until)
        return sorted(key for key in found if key > after)[:limit]

    def claims(self, jobs: Sequence[JobId]) -> dict[JobId, ClaimRow]:
        self._read_claims(jobs)
        return {job: self.claim_rows[job] for job in jobs if job in self.claim_rows}

    def claim_count(self) -> int:
        return len(self.claim_rows)

    def reports(self, job: JobId, *, brief: bool) -> list[Said]:
        return self.shelf.read(job, brief=brief)

    def row(self, job: JobId) -> Row | None:
        stored = self.rows.get(job)
        return None if stored is None else stored.row

    def record(self, job: JobId) -> Record | None:
        return record_of(self.row(job))

    # ----------------------------------------------------------------------------------- writing

    def write(self, rows: Iterable[StoredRow]) -> None:
        for stored in rows:
            job = stored.row.id
            self._bad_rows.discard(job)
            if job not in self.rows:
                insort(self._order, job)
            self.rows[job] = stored

    def drop(self, job: JobId) -> None:
        self._bad_rows.discard(job)
        if self.rows.pop(job, None) is not None:
            self._order.remove(job)

    def write_claims(self, claims: Iterable[ClaimRow], forget_before: Wall) -> None:
        for claim in claims:
            self._bad_claims.discard(claim.id)
            self.claim_rows[claim.id] = claim
        if forget_before:
            kept = {job: row for job, row in self.claim_rows.items() if row.expires_at >= forget_before}
            self.claim_rows = kept

    def unsettled(self) -> tuple[Row, ...]:
        """What a new life is told of: promises that stand alone, too."""
        return tuple(self.rows[job].row for job in self._order if not self.rows[job].settled)

    def search(self, ticket: int, query: Query) -> SearchedHere:
        """The newest matches first, as the store's index gives them."""
        found: list[bytes] = []
        self.check()
        for job in reversed(self._order):
            if query.after and job >= query.after:
                continue
            stored = self.rows[job]
            wanted = ((query.state, stored.state), (query.task, stored.task), (query.queue, stored.queue))
            if not stored.row.blob or any(asked and asked != has for asked, has in wanted):
                continue
            if len(found) == query.limit:
                return SearchedHere(ticket, tuple(found), False)
            found.append(stored.row.blob)
        return SearchedHere(ticket, tuple(found), True)
