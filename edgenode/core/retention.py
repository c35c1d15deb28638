"""How finished jobs grow smaller and are forgotten, and what is not taken back any more.

    unfinished --its owner, on its last day--> expired --majority--> settled
    settled --`ttl_s` after its end--> marker --last day + twice the clock skew--> dropped
    finished, never settled ------------------ last day + twice the clock skew --> dropped, with a word

A node drops by the mesh's time, and only while its clock agrees with the others'. Whoever dropped a job keeps
in mind, on disk, up to which last day it did so (`Table.forgotten`): an older copy of such a job is not taken
from anybody, and nothing is promised for it, so that a node that was away for a month can't bring back what
was done meanwhile. It is told so (`Expired`): what nobody can decide any more ends there as expired, without
being settled. A copy that is still here counts as ever: after eight days without power a job expires where
everybody sees it, and stays to be seen for `ttl_s`. Nothing is dropped that has not ended.

There are no timers: the store finds what is due by an index, a piece at a time.
"""

from __future__ import annotations

from typing import Final

from edgenode.core.desk import Desk
from edgenode.core.job_ids import job_text
from edgenode.core.jobs import Record, is_marker, look_day, shrunk
from edgenode.core.types import FOREVER, Instant, JobId, Wall

SWEEP_ROWS: Final = 200
SWEEP_PAUSE_S: Final = 0.05
"""4,000 jobs a second, in steps of a few milliseconds."""
START: Final[tuple[Wall, JobId]] = (-FOREVER, JobId(b""))


class Retention:
    """Drive it with time and messages; it answers through the desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._table = desk.table
        self._cursor = START
        self._next: Instant = FOREVER

    def begin(self) -> None:
        """The disk was read."""
        self._cursor = START
        self._next = self._desk.now + self._desk.settings.sweep_s

    def deadline(self) -> Instant:
        return self._next

    def on_time(self) -> None:
        """Look at the next rows that are due."""
        desk = self._desk
        if self._next > desk.now:
            return
        self._next = desk.now + desk.settings.sweep_s
        today = desk.sure_wall
        if today == -FOREVER:
            return
        rows = self._table.due(today, self._cursor, SWEEP_ROWS)
        self._sweep(rows, today)
        if len(rows) == SWEEP_ROWS:
            self._cursor = rows[-1]
            self._next = desk.now + SWEEP_PAUSE_S
        else:
            self._cursor = START

    def _sweep(self, rows: list[tuple[Wall, JobId]], today: Wall) -> None:
        table = self._table
        known = table.get_many([job for _, job in rows])
        for day, job in rows:
            if table.is_changing(job):
                continue
            record = table.peek(job) or known.get(job)
            if record is not None:
                self._look_at(record, today)
            elif table.has_promise(job):
                # Nobody asks for that job any more; if somebody does, it is told so.
                table.drop(job, day - 2 * self._desk.settings.clock_skew_max_s)

    def _look_at(self, record: Record, today: Wall) -> None:
        desk = self._desk
        if desk.drop_day(record) <= today:
            if not record.settled:
                text = f"{job_text(record.id)} ended as {record.state}, was never settled, and is forgotten"
                desk.log("never-settled", text, warning=True)
            desk.drop(record)
        elif look_day(record, desk.settings.clock_skew_max_s) > today:
            self._table.put(record)  # written when another skew was allowed
            self._table.write_again(record.id)
        elif record.settled and not is_marker(record):
            self._table.put(shrunk(record))
