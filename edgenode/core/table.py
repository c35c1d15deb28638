"""This node's copies and promises: those of unsettled jobs at hand, the settled behind the archive.

Of the unsettled ones that wait and have not changed for long only a line each is in memory (core/resting.py).
Nobody needs to know which: `peek` and all the others answer as if every record were here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from edgenode.core.claims import ClaimBook
from edgenode.core.job_bytes import decode, encode
from edgenode.core.jobs import Record, is_marker, look_day
from edgenode.core.joining import is_same_life
from edgenode.core.reports import ReportBook
from edgenode.core.resting import SPARE, Rest, Resting, is_whole, rest_of
from edgenode.core.sharing import Shared
from edgenode.core.signals import Archive, Persist, Row, StoredRow
from edgenode.core.specs import decode_spec
from edgenode.core.types import (
    FOREVER,
    NO_BALLOT,
    Ballot,
    JobId,
    NodeId,
    Promise,
    Seconds,
    State,
    Wall,
)
from edgenode.core.wire import Said

NO_PROMISE: Final = Promise(-1, NO_BALLOT)
IN_MEMORY: Final = 5_000
REFUSALS: Final = 64
"""When so many have something under way, the rest is looked at later."""


@dataclass(slots=True)
class Lead:
    """This node acts as the job's owner, under this ballot. Gone at a restart, and when outvoted.

    Resting jobs share theirs: a firm one is never changed, but replaced.
    """

    ballot: Ballot
    firm: bool
    promised: set[NodeId]
    epoch: int = 0


class Table:
    """The copies on this node: unsettled ones at hand, the rest behind the archive.

    `records` never holds a job whose row on disk is newer. A settled record leaves memory when its row is
    durable; from then on `get` fetches it from the archive.
    """

    def __init__(self, archive: Archive, skew_s: Seconds = 0.0, in_memory: int = IN_MEMORY) -> None:
        """
        Args:
            in_memory: how many unsettled records stay in memory though nothing happens to them.
        """
        self._archive = archive
        self._in_memory = in_memory
        self._resting = Resting(archive, in_memory, self._lose)
        self._rests = self._resting.by_job
        self.lost: dict[JobId, None] = {}  # of which nobody has heard yet
        self._idle: dict[JobId, None] = {}  # busy and durable, in the order in which they became so
        self._skew_s = skew_s
        self._records: dict[JobId, Record] = {}
        self._promises: dict[JobId, Promise] = {}
        self._glimpsed: dict[JobId, Promise] = {}  # of archived rows that were read since the last flush
        self._dirty: dict[JobId, None] = {}
        self._blobs: dict[JobId, tuple[Record, bytes]] = {}  # of copies that were sent or received since then
        self._saving: dict[JobId, int] = {}  # not durable yet: by the number of their latest Persist
        self.persists = 0  # ordered by this process
        self._earlier = 0  # of those, in lives before this one
        self.claims = ClaimBook(archive)
        self.reports = ReportBook()
        self.has_vote = True
        """Whether this disk's word counts at all: not if it is behind, or while that is not known."""
        self._dropped: dict[JobId, int] = {}  # rows to go, and the Persist that says so; 0: none
        self._promise_days: dict[JobId, Wall] = {}  # of dirty promises without a record
        self.forgotten: Wall = 0.0
        """Jobs whose last day is up to this were dropped here. Nothing is known of them any more, so no copy
        of one is taken again: it may be old, and its job long finished."""
        self._kept_forgotten: Wall = 0.0
        self.leads: dict[JobId, Lead] = {}
        self._shared: Shared[tuple[Ballot, int, frozenset[NodeId]], Lead] = Shared()
        self.by_owner: dict[NodeId, dict[JobId, None]] = {}
        """Unsettled busy jobs here, by the owner that their record names."""

    def load(self, rows: Iterable[Row], forgotten: Wall = 0.0) -> None:
        """Take what the disk has at the start."""
        self.forgotten = max(self.forgotten, forgotten)
        damaged = self._archive.damaged
        for row in rows:
            record = decode(row.blob) if row.blob else None
            if record is not None and not record.settled:
                rest = rest_of(record) if is_whole(row) and row.id not in damaged else None
                if rest is not None and len(self._idle) >= self._in_memory:
                    self._resting.add(row.id, rest)
                    continue
                self._records[row.id] = record
                self._idle[row.id] = None
                self._index(record)
            if row.promise is not None:
                self._promises[row.id] = row.promise

    def forget(self) -> None:
        """Memory is ahead of the disk for ever: from now on only the archive counts."""
        for place in (self._records, self._promises, self._glimpsed, self._dirty, self._blobs, self._saving):
            place.clear()
        self._idle.clear()
        self._resting.clear()
        self.lost.clear()
        self._dropped.clear()
        self._promise_days.clear()
        self._kept_forgotten = 0.0
        self.leads.clear()
        self.by_owner.clear()
        self.claims.forget()
        self.reports.clear()

    def begin_life(self) -> None:
        """The disk has counted a new life, in which nothing is written yet."""
        self._earlier = self.persists

    def written_by(self, number: int) -> int:
        """How many writes of this life are on the disk when all up to that number are: as the disk counts
        them, by the number of the last; 0 if that one is of an earlier life."""
        return number if number > self._earlier else 0

    def get(self, job: JobId) -> Record | None:
        found = self._records.get(job)
        return found if found is not None else self.get_many((job,)).get(job)

    def get_many(self, jobs: Sequence[JobId]) -> dict[JobId, Record]:
        """The copies that exist here; one trip to the archive for all that are not in memory."""
        records = self._records
        found = {job: records[job] for job in jobs if job in records}
        if self._rests and len(found) < len(jobs):
            found |= self._resting.records(jobs)
        if len(found) < len(jobs):
            missing = [job for job in jobs if job not in found and job not in self._dropped]
            for row in self._archive.get(missing).values():
                if row.blob:
                    found[row.id] = decode(row.blob)
                if row.promise is not None:
                    self._glimpsed[row.id] = row.promise
                elif row.blob:
                    self._glimpsed[row.id] = _implied(found[row.id])
        return found

    def peek(self, job: JobId) -> Record | None:
        """The copy here, if it is unsettled (or was so a moment ago). Reads it back if its job rests."""
        found = self._records.get(job)
        return self._resting.record(job) if found is None and job in self._rests else found

    def in_memory(self, job: JobId) -> Record | None:
        """The copy, if it is newer than its row, or may be."""
        return self._records.get(job)

    def fetch(self, jobs: Iterable[JobId]) -> None:
        """These will be looked at one by one: read at once what rests of them."""
        if self._rests:
            self._resting.records(jobs)

    def resting(self, job: JobId) -> Rest | None:
        """What memory has of a resting job; None if it is not one."""
        return self._resting.get(job)

    def rests(self) -> Counter[Rest]:
        """What there is of different `resting`, with how often."""
        return self._resting.counts()

    def take_lost(self) -> list[JobId]:
        """Jobs that were resting, and whose rows are damaged: nothing of them is here any more."""
        jobs = list(self.lost)
        self.lost.clear()
        return jobs

    def _lose(self, job: JobId) -> None:
        """Its row is damaged. This node must not go on as the owner with what copy it may get: that may be
        older than what it wrote."""
        self.lost[job] = None
        if job in self.leads:
            self.leads[job] = replace(self.leads[job], ballot=NO_BALLOT)

    def may_vote(self, job: JobId) -> bool:
        """Whether this disk's word on the job counts: never again once its row was damaged, for nobody knows
        what it had promised."""
        return self.has_vote and job not in self._archive.damaged

    def promise(self, job: JobId) -> Promise:
        """The highest ballot this disk is bound to: by a promise, or by the record it stores."""
        given = self._promises.get(job, NO_PROMISE)
        record = self._records.get(job)
        if record is not None:
            return max(given, _implied(record))
        rest = self._rests.get(job)
        return given if rest is None else max(given, Promise(rest.epoch, rest.ballot))

    def blob(self, record: Record) -> bytes:
        """The bytes of a copy of this node's: made once, for peers and for the disk."""
        made = self._blobs.get(record.id)
        if made is None or made[0] is not record:
            made = self._blobs[record.id] = (record, encode(record))
        return made[1]

    def put(self, record: Record, blob: bytes = b"") -> None:
        """Replace this node's copy.

        Args:
            blob: its bytes, if it came as such.
        """
        job = record.id
        if blob:
            self._blobs[job] = (record, blob)
        before = self._records.get(job)
        if before is None and job in self._rests:
            before = self._resting.record(job)
        if before is None and job in self._glimpsed:
            self._promises.setdefault(job, self._glimpsed[job])
        if before is not None:
            if before is record:
                return
            if not is_same_life(record, before):
                # What this node led is no more. But this disk's word is on the job, whichever life it has.
                if job in self.leads:
                    self.leads[job] = replace(self.leads[job], ballot=NO_BALLOT)
                self._promises[job] = self.promise(job)
            elif record.settled and _implied(record) < (given := self.promise(job)):
                self._promises[job] = given  # a marker has the ballot of whoever settled the job
            self._unindex(before)
            if job in self._rests:
                self._resting.pop(job)
        self._records[job] = record
        if not record.settled:
            self._index(record)
        self._dirty[job] = None
        self._dropped.pop(job, None)

    def write_again(self, job: JobId) -> None:
        """The row of this record, of an unsettled job, is damaged or old: the next flush replaces it."""
        self._stir(job)
        if job in self._records:
            self._dirty[job] = None

    def give_promise(self, job: JobId, promise: Promise, expires_at: Wall = FOREVER) -> None:
        """Args:
        expires_at: the job's, as the asker said: a promise without a copy is kept no longer than a marker.
        """
        assert promise >= self.promise(job), "a promise never falls"
        self._stir(job)
        self._promises[job] = promise
        self._promise_days[job] = expires_at + 2 * self._skew_s
        self._dirty[job] = None
        self._dropped.pop(job, None)

    def drop(self, job: JobId, expires_at: Wall) -> None:
        """Forget a copy, and all that this disk ever promised about its job: for good."""
        self.shed(job)
        self.forgotten = max(self.forgotten, expires_at)

    def shed(self, job: JobId) -> None:
        """Forget a copy of a job that this disk has no word on; others may bring it again."""
        record = self._records.pop(job, None)
        if record is not None:
            self._unindex(record)
        self._resting.pop(job)
        for place in (self._promises, self._glimpsed, self._dirty, self._saving, self._promise_days):
            place.pop(job, None)
        self._idle.pop(job, None)
        self.reports.forget(job)
        self._dropped[job] = 0

    def due(self, until: Wall, after: tuple[Wall, JobId], limit: int) -> list[tuple[Wall, JobId]]:
        """Of the disk's rows those whose day for shrinking or dropping has come by `until`, in that order."""
        return self._archive.due(until, after, limit)

    def is_changing(self, job: JobId) -> bool:
        """Whether the disk's row is not the latest: what it says of its due day may be old."""
        return job in self._dirty or job in self._dropped

    def has_promise(self, job: JobId) -> bool:
        """Whether a promise is kept here, beside a record or alone."""
        return job in self._promises

    def is_bound(self, record: Record) -> bool:
        """Whether this disk gave its word on the job in an epoch after its copy's. Right after it was read.

        (A word of the same epoch binds its holders. Who is none of them gave it to another life of the key,
        which decides nothing any more.)
        """
        given = self._promises.get(record.id, self._glimpsed.get(record.id, NO_PROMISE))
        return given.epoch > record.epoch

    def lead(self, job: JobId) -> Lead | None:
        """How this node owns the job, or None if it does not (any more)."""
        lead = self.leads.get(job)
        if lead is None:
            return None
        record = self._records.get(job)
        if record is None:
            rest = self._resting.get(job)
            is_so = rest is not None and (rest.epoch, rest.ballot) == (lead.epoch, lead.ballot)
            return lead if is_so else None
        if record.own.ballot != lead.ballot or record.epoch != lead.epoch:
            return None
        given = self._promises.get(job)
        if given is not None and given > Promise(record.epoch, lead.ballot):
            return None
        return lead

    def acting(self, job: JobId) -> Lead | None:
        """Like `lead`, but None while a firm owner changes the holders: nothing else is decided then."""
        lead = self.lead(job)
        if lead is None or not lead.firm:
            return lead
        record = self._records.get(job)  # what rests does not move
        return None if record is not None and record.moving else lead

    def said(self, job: JobId, *, brief: bool) -> list[Said]:
        """What is on this disk of what the job's starts said."""
        return [] if job in self._dropped else self._archive.reports(job, brief=brief)

    def scan(self, after: JobId, limit: int) -> list[Row]:
        """A piece of what the disk has, in id order."""
        rows = self._archive.scan(after, limit)
        self._glimpsed.update((row.id, row.promise) for row in rows if row.promise is not None)
        return rows

    def unsettled(self) -> Iterable[Record]:
        """Every unsettled record, read back a piece at a time: for a few jobs, or for who has time."""
        yield from [record for record in self._records.values() if not record.settled]
        yield from self._resting.all_records()

    def unsettled_jobs(self) -> list[JobId]:
        busy = [record.id for record in self._records.values() if not record.settled]
        return [*busy, *self._resting.jobs()]

    def owned_by(self, node: NodeId) -> list[JobId]:
        """The unsettled jobs here whose record names this owner."""
        return [*self.by_owner.get(node, ()), *self._resting.owned_by(node)]

    def urgent_first(self, jobs: Iterable[JobId]) -> list[JobId]:
        """What runs is missed first; then in the order of submission."""
        records = self._records
        running = {j for j in jobs if j in records and records[j].own.state is State.RUNNING}
        return [*sorted(running), *sorted(job for job in jobs if job not in running)]

    def holders(self) -> Counter[tuple[NodeId, ...]]:
        """The sets of holders of unsettled jobs here, and of how many each is."""
        found = Counter(record.holders for record in self._records.values() if not record.settled)
        for rest, count in self._resting.counts().items():
            found[rest.holders] += count
        return found

    def busy_leads(self) -> list[JobId]:
        """Of the jobs that this node owns those that do not rest."""
        return [job for job in self._records if job in self.leads]

    def owned_states(self) -> Counter[State]:
        """In which states the unfinished jobs are that this node owns."""
        busy = (self._records[job] for job in self.busy_leads())
        found = Counter(record.own.state for record in busy if record.outcome is None)
        by_rest = Counter(map(id, map(self._resting.get, self.leads)))  # of one object for many jobs
        for rest in self._resting.counts():
            found[rest.state] += by_rest[id(rest)]
        return +found

    def settling(self) -> list[Record]:
        """What is settled and on its way to the disk."""
        found = (self._records.get(job) for job in self._saving)
        return [record for record in found if record is not None and record.settled]

    def __len__(self) -> int:
        return len(self._records) + len(self._resting)

    def changed_records(self) -> list[Record]:
        return [self._records[job] for job in self._dirty if job in self._records]

    def flush(self, clock: Wall = 0.0, queues: bytes = b"") -> Persist | None:
        """Everything that changed since the last time, as one batch for the disk.

        Args:
            clock: the mesh's time, to be kept too; 0 if not now.
            queues: the settings of all queues, likewise; b"" if they are as before.
        """
        self._glimpsed.clear()
        dropped = tuple(job for job, number in self._dropped.items() if not number)
        if not (self._dirty or self.claims or clock or dropped or self.reports or queues):
            return None
        self.persists += 1
        rows = []
        records, promises, saving = self._records, self._promises, self._saving
        for job in self._dirty:
            record, given = records.get(job), promises.get(job)
            if record is None:
                day = self._promise_days.get(job, FOREVER)
                rows.append(StoredRow(Row(job, b"", given), NodeId(""), False, "", "", "", day))
                continue
            if given is not None and given <= _implied(record):
                del promises[job]
                given = None
            spec, is_settled = decode_spec(record.spec), record.settled
            if is_settled and is_marker(record):
                self.reports.silence(job)
            rows.append(
                StoredRow(
                    Row(job, self.blob(record), given),
                    record.owner,
                    is_settled,
                    record.state,
                    spec.task,
                    spec.options.queue,
                    look_day(record, self._skew_s),
                )
            )
            saving.pop(job, None)
            saving[job] = self.persists
        self._dirty.clear()
        self._blobs.clear()
        self._promise_days.clear()
        self._dropped.update(dict.fromkeys(dropped, self.persists))
        forgotten = self.forgotten if self.forgotten != self._kept_forgotten else 0.0
        self._kept_forgotten = self.forgotten
        claims = self.claims.take(self.persists)
        reports = self.reports.take()
        return Persist(tuple(rows), self.persists, clock, dropped, forgotten, *claims, *reports, queues)

    def persisted(self, number: int) -> None:
        """All up to this Persist is durable: what is settled needs no memory, and what waits may rest."""
        self.claims.persisted(number)
        saved: list[JobId] = []
        for job, last in self._saving.items():
            if last > number:
                break
            saved.append(job)
        for job in [job for job, dropped in self._dropped.items() if 0 < dropped <= number]:
            del self._dropped[job]
        records, idle = self._records, self._idle
        for job in saved:
            del self._saving[job]
            # A copy that changed again waits for its own Persist.
            if job in self._dirty:
                continue
            outcome = records[job].outcome
            if outcome is None or not outcome.settled:
                idle.pop(job, None)
                idle[job] = None
            elif job not in self.leads:
                del records[job]
                idle.pop(job, None)
                self._promises.pop(job, None)

    def rest(self, may_rest: Callable[[Record], bool]) -> None:
        """Of more records than are kept in memory let those go that were written the longest ago.

        Args:
            may_rest: whether nobody has anything under way for this job. Who says so lets go of what it has.
        """
        over = len(self._idle) - self._in_memory
        if over <= self._in_memory // SPARE:
            return
        refused = 0
        for job in list(islice(self._idle, over)):
            if refused > REFUSALS:
                break
            del self._idle[job]
            rest = self._rest_of(job)
            if rest is None:
                continue  # it comes again with its next Persist
            if not may_rest(self._records[job]):
                self._idle[job] = None
                refused += 1
                continue
            self._unindex(self._records.pop(job))
            self._blobs.pop(job, None)
            self._resting.add(job, rest)
            if (lead := self.leads.get(job)) is not None and lead.firm:
                self.leads[job] = self._shared_lead(lead)

    def _rest_of(self, job: JobId) -> Rest | None:
        """What stays of a busy job that its row says everything about, and that waits."""
        record = self._records.get(job)
        if record is None or record.settled or job in self._dirty or job in self._saving:
            return None
        if job in self._promises or job in self._archive.damaged:
            return None
        return rest_of(record)

    def _shared_lead(self, lead: Lead) -> Lead:
        key = (lead.ballot, lead.epoch, frozenset(lead.promised))
        return self._shared.one(key, lead)

    def _stir(self, job: JobId) -> None:
        """It is about to change: its record is in memory from now on. (Not if its row is damaged.)"""
        record = self._resting.record(job)
        if record is not None:
            self._resting.pop(job)
            self._records[job] = record
            self._index(record)

    def _index(self, record: Record) -> None:
        self.by_owner.setdefault(record.owner, {})[record.id] = None

    def _unindex(self, record: Record) -> None:
        jobs = self.by_owner.get(record.owner)
        if jobs is not None:
            jobs.pop(record.id, None)
            if not jobs:
                del self.by_owner[record.owner]


def _implied(record: Record) -> Promise:
    """What a disk that has this copy has promised by storing it."""
    return Promise(record.epoch, record.own.ballot)
