"""Unsettled jobs that rest: they wait, everything about them is on disk, and memory has but a line for each.

A node may hold a million queued jobs, each of which would be 1.6 KB as a record. So the table keeps only some
of them (`JobSettings.in_memory`); of the rest there is the id, and what is asked of many jobs at a time and
often: who holds and owns it, under which ballot, in which state. Of that there are few different answers, so
that all jobs with the same one share it (`Rest`). A row is read back when its record is asked for.

    busy     in memory; its row may be older, or on its way to the disk, or have a promise beside it
    resting  its row is its record, and no promise is beside it

    busy    -- unchanged for long, durable, and nobody has anything under way --> resting
    resting -- about to change, or its row to be written again -----------------> busy
    resting -- its row cannot be read (it was damaged) -------------------------> lost: as after a restart

Reading does not make a record busy: it is kept for a while beside the resting job, and let go again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final, NamedTuple

from edgenode.core.job_bytes import decode
from edgenode.core.jobs import Record, is_claimed
from edgenode.core.quorums import majority_of
from edgenode.core.signals import Archive, Row
from edgenode.core.specs import decode_spec
from edgenode.core.types import Ballot, JobId, NodeId, State

READ_MAX: Final = 2_000
"""So many records that were read back stay in memory for a while: some batches."""
READ_ROWS: Final = 500
"""So many rows are read at a time where all are wanted."""
SPARE: Final = 8
"""One record for so many may be in memory beyond what was allowed: to let many go at a time costs less."""
WAITING: Final = (State.QUEUED, State.SCHEDULED, State.WAITING)


class Rest(NamedTuple):
    """What memory has of a resting job: the same object for all of which this is so."""

    epoch: int
    ballot: Ballot  # of its owner
    holders: tuple[NodeId, ...]
    state: State
    acks: int  # on so many disks it was to be before its submission was answered

    @property
    def owner(self) -> NodeId:
        return self.ballot.owner


def rest_of(record: Record) -> Rest | None:
    """What stays in memory of this record, if it may rest: nothing is under way in it."""
    if record.outcome is not None or record.move is not None or record.cancel:
        return None
    if record.own.state not in WAITING or not is_claimed(record):
        return None
    return Rest(record.epoch, record.own.ballot, record.holders, record.own.state, asked_acks(record))


def asked_acks(record: Record) -> int:
    """On how many disks its submitter wants the job to be."""
    count = len(record.holders)
    # Only options with values of their own are in a spec. Most have none: that is seen without reading it.
    asked = decode_spec(record.spec).options.acks if b"acks" in record.spec else 0
    return min(asked or majority_of(count), count)


class Resting:
    """The resting jobs of one table, and those of their records that were read a short while ago."""

    def __init__(self, archive: Archive, kept: int, on_loss: Callable[[JobId], None]) -> None:
        """
        Args:
            kept: how many records that were read back stay in memory, `READ_MAX` at most.
            on_loss: told of each job whose row cannot be read, at once.
        """
        self._archive = archive
        self._on_loss = on_loss
        self._kept = min(kept, READ_MAX)
        self.by_job: dict[JobId, Rest] = {}
        """To be read only."""
        self._counts: Counter[Rest] = Counter()
        self._same: dict[Rest, Rest] = {}  # the object that stands for all that are equal
        self._read: dict[JobId, Record] = {}  # in the order in which they were read

    def add(self, job: JobId, rest: Rest) -> None:
        rest = self._same.setdefault(rest, rest)
        self.by_job[job] = rest
        self._counts[rest] += 1

    def pop(self, job: JobId) -> None:
        """It rests no longer, if it did."""
        rest = self.by_job.pop(job, None)
        if rest is None:
            return
        self._read.pop(job, None)
        self._counts[rest] -= 1
        if not self._counts[rest]:
            del self._counts[rest], self._same[rest]

    def get(self, job: JobId) -> Rest | None:
        return self.by_job.get(job)

    def record(self, job: JobId) -> Record | None:
        """Its record, read back if need be; None if it does not rest, or is lost."""
        found = self._read.get(job)
        if found is not None or job not in self.by_job:
            return found
        return self.records((job,)).get(job)

    def records(self, jobs: Iterable[JobId]) -> dict[JobId, Record]:
        """The records of those that rest, with one trip to the disk. What cannot be read is lost."""
        read, rests = self._read, self.by_job
        asked = [job for job in jobs if job in rests]
        found = {job: read[job] for job in asked if job in read}
        missing = [job for job in asked if job not in found]
        if not missing:
            return found
        rows = self._archive.get(missing)
        for job in missing:
            row = rows.get(job)
            if row is None or not row.blob:
                self.pop(job)
                self._on_loss(job)
            else:
                found[job] = read[job] = decode(row.blob)
        if len(read) > self._kept + self._kept // SPARE:
            for job in list(islice(read, len(read) - self._kept)):
                del read[job]
        return found

    def all_records(self) -> Iterable[Record]:
        """Every record, a piece at a time; none of them stays in memory."""
        jobs = list(self.by_job)
        for start in range(0, len(jobs), READ_ROWS):
            piece = [job for job in jobs[start : start + READ_ROWS] if job in self.by_job]
            for row in self._archive.get(piece).values():
                yield decode(row.blob)

    def jobs(self) -> Sequence[JobId]:
        return list(self.by_job)

    def counts(self) -> Counter[Rest]:
        """The different things that are so of resting jobs, and of how many each is."""
        return self._counts

    def owned_by(self, node: NodeId) -> list[JobId]:
        """Those of this owner."""
        wanted = {id(rest) for rest in self._counts if rest.owner == node}
        return [job for job, rest in self.by_job.items() if id(rest) in wanted] if wanted else []

    def clear(self) -> None:
        for place in (self.by_job, self._counts, self._same, self._read):
            place.clear()

    def __contains__(self, job: JobId) -> bool:
        return job in self.by_job

    def __len__(self) -> int:
        return len(self.by_job)


def is_whole(row: Row) -> bool:
    """Whether the row is all that the disk has to say of its job: a copy, and no promise beside it."""
    return bool(row.blob) and row.promise is None
