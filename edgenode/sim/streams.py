"""I16, as far as it goes today: what nodes tell of changes (for event streams) has no gap, and never goes
back. (Streams over HTTP, their cursors, and going on at another node are not built yet.)"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgenode.core.job_ids import job_text
from edgenode.core.jobs import Record
from edgenode.core.joining import join
from edgenode.core.node import Node
from edgenode.core.types import JobId
from edgenode.sim.disk import record_of
from edgenode.sim.machines import Life
from edgenode.sim.story import short
from edgenode.sim.violation import Violation

Key = tuple[Life, JobId]
"""One life of a node, and a job. (A disk that was put back counts the same lives again.)"""


class Streams:
    """Hears of what becomes durable and of what is told."""

    def __init__(self) -> None:
        self._told: dict[Key, Record] = {}
        self._stored: set[Key] = set()

    def stored(self, life: Life, jobs: Iterable[JobId]) -> None:
        """Copies of these are on its disk, other than before."""
        self._stored.update((life, job) for job in jobs)

    def dropped(self, life: Life, job: JobId) -> None:
        """Its copy is gone, being needed no more: what it tells then is what others still have of it."""
        key = (life, job)
        self._told.pop(key, None)
        self._stored.discard(key)

    def changed(self, life: Life, records: Sequence[Record]) -> None:
        """A node tells of these."""
        for record in records:
            key = (life, record.id)
            if key not in self._stored:
                continue  # it was dropped by a write right behind the one that this tells of
            last = self._told.get(key)
            if record.id in life.machine.disk.damaged:
                last = None  # what another one still has of it may be older
            if last is not None and join(last, record) != record:
                raise Violation(f"I16: {short(life.id)} tells of {job_text(record.id)} what it was before")
            self._told[key] = record

    def check(self, lives: Iterable[Life]) -> None:
        """Nothing more is to come: what was told last is what there is."""
        for life in lives:
            if not isinstance(life.core, Node):
                continue  # a stand-in tells nobody of anything
            for job, stored in life.machine.disk.rows.items():
                key = (life, job)
                record = record_of(stored.row)
                if key in self._stored and record is not None and self._told.get(key) != record:
                    raise Violation(f"I16: {short(life.id)} never told how {job_text(job)} is now")
