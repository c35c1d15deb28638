"""Damaged rows: copies are fetched from the others, for reading and for repair.

This disk never votes on such a job again, whatever copy it gets, for nobody knows what it had promised
(`Table.may_vote`). The copy is worth having all the same: this node shows it, and may be the last to have it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from edgenode.core.agenda import Agenda
from edgenode.core.desk import Desk
from edgenode.core.job_ids import job_text
from edgenode.core.types import FOREVER, Instant, JobId, NodeId, Seconds
from edgenode.core.wire import Wanted

TRIES_MAX: Final = 6
"""With pauses that double from `retry_s` up to `retry_max_s` some 15 s; then again when a member returns."""


class Mending:
    """Drive it with reports of damage, membership changes and time; what it asks for comes as `Copies`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._table = desk.table
        self._tries: dict[JobId, int] = {}
        self._due: Agenda[JobId] = Agenda()
        self._report_at: Instant = FOREVER
        self._mended = 0
        self._missed: list[JobId] = []

    def mend(self, jobs: Iterable[JobId]) -> None:
        """The rows of these jobs are damaged: write them anew from memory, or fetch copies."""
        for job in jobs:
            record = self._table.peek(job)
            if record is not None:
                self._table.write_again(job)
            else:
                self._tries[job] = 0
                self._due.set(job, self._desk.now)

    def members_changed(self, changed: frozenset[NodeId]) -> None:
        """Who is here again may have what nobody had."""
        if self._tries and any(self._desk.view.is_living(node) for node in changed):
            for job in self._tries:
                self._tries[job] = 0
                self._due.soon(job, self._desk.now)

    def deadline(self) -> Instant:
        return min(self._due.next(), self._report_at)

    def on_time(self) -> None:
        desk = self._desk
        due = self._due.take_due(desk.now)
        found = self._table.get_many(due) if due else {}
        others = self._others() if due else []  # not at every event: in a large mesh that takes a while
        for job in due:
            if job in found:
                del self._tries[job]
                desk.restored.add(job)
                self._mended += 1
            elif self._tries[job] >= TRIES_MAX:
                self._missed.append(job)  # kept in `_tries`, for a member that returns
            else:
                for node in others:
                    desk.post.add(node, Wanted, job)
                self._due.set(job, desk.now + self._pause_s(self._tries[job]))
                self._tries[job] += 1
        if (self._mended or self._missed) and self._report_at == FOREVER:
            self._report_at = desk.now + desk.settings.retry_max_s  # a line for many, not for each
        if self._report_at <= desk.now:
            self._report()

    def _others(self) -> list[NodeId]:
        view = self._desk.view
        return [node for node in view.members() if node != self._desk.me and view.is_living(node)]

    def _pause_s(self, tries: int) -> Seconds:
        settings = self._desk.settings
        return min(settings.retry_s * 2.0**tries, settings.retry_max_s)

    def _report(self) -> None:
        if self._mended:
            self._desk.log("rows-mended", f"{self._mended} damaged rows were fetched again from other nodes")
        if self._missed:
            names = ", ".join(job_text(job) for job in self._missed[:3])
            text = f"of {len(self._missed)} damaged rows no living member has a copy: {names}"
            self._desk.log("rows-missed", text, warning=True)
        self._report_at = FOREVER
        self._mended, self._missed = 0, []
