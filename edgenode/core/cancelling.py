"""Cancels: a client's wish that a job end, taken to the job's holders.

    asked here         -> `Cancel` to each living holder of each job, repeated until it answers
    a holder           -> notes the wish in its copy, which no merge loses (core/jobs.py), and tells the owner
    the owner          -> ends the job as cancelled with its next write, and stops what runs (scheduler)
    a successor        -> finds the note with the majority that it asks, and does the same (ballots)
    answered           -> when the owner has the wish, or a majority of the holders has it on disk; on a side
                          that is cut off, when all holders there have it

Between a cancel and an end there is no race of its own: the owner writes one outcome, and whichever that is
settles like every other. So a cancel that was noted may still find the job succeeded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from edgenode.core.desk import Desk
from edgenode.core.job_bytes import encode
from edgenode.core.jobs import majority
from edgenode.core.signals import CancelAsked, CancelDone, RequestId
from edgenode.core.types import FOREVER, Instant, JobId, NodeId, Seconds
from edgenode.core.wire import Cancel, CancelNoted, Copies


@dataclass(slots=True)
class Wish:
    """One client's cancels that are not known to be safe yet."""

    open: dict[JobId, tuple[NodeId, ...]]  # by job, its holders
    ends_at: Instant
    again_at: Instant
    pause_s: Seconds
    noted: dict[JobId, set[NodeId]] = field(default_factory=dict)
    refused: dict[JobId, set[NodeId]] = field(default_factory=dict)  # who has no copy
    safe: list[JobId] = field(default_factory=list)


class Cancelling:
    """Drive it with local requests, messages, membership changes and time; it answers through the desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._table = desk.table
        self._wishes: dict[RequestId, Wish] = {}

    def ask(self, event: CancelAsked) -> None:
        desk = self._desk
        retry_s = desk.settings.retry_s
        wish = Wish(dict(event.jobs), desk.now + event.timeout_s, desk.now + retry_s, retry_s)
        self._wishes[event.request] = wish
        self._send(event.request, wish)
        self._look(event.request, wish)

    def _send(self, request: RequestId, wish: Wish) -> None:
        """To each living holder that has not answered, one message for all jobs of this wish."""
        view = self._desk.view
        groups: dict[NodeId, list[JobId]] = {}
        for job, holders in wish.open.items():
            for holder in self._silent(wish, job, holders):
                groups.setdefault(holder, []).append(job)
        batch = self._desk.settings.batch
        for holder, jobs in sorted(groups.items()):
            for at in range(0, len(jobs), batch):
                if view.is_living(holder):
                    self._desk.post.send(holder, Cancel(request, tuple(jobs[at : at + batch])))

    def _silent(self, wish: Wish, job: JobId, holders: tuple[NodeId, ...]) -> list[NodeId]:
        """Who lives, holds the job, and has not answered yet."""
        answered = wish.noted.get(job, set()) | wish.refused.get(job, set())
        return [holder for holder in holders if holder not in answered and self._desk.view.is_living(holder)]

    def on_cancel(self, source: NodeId, message: Cancel) -> None:
        """Note the wish, and see that the owner hears of it."""
        desk, table = self._desk, self._table
        known = table.get_many(message.jobs)
        final: list[JobId] = []
        for job, record in known.items():
            if record.settled or desk.leading(job):
                final.append(job)
            if record.outcome is not None:
                continue
            if not record.cancel:
                record = record._replace(cancel=True)
                table.put(record)
                desk.merged.add(job)
            if record.owner != desk.me and desk.view.is_living(record.owner):
                desk.post.add(record.owner, Copies, encode(record))
        missing = tuple(job for job in message.jobs if job not in known)
        desk.post.send(source, CancelNoted(message.request, tuple(known), tuple(final), missing))

    def on_noted(self, source: NodeId, message: CancelNoted) -> None:
        request = RequestId(message.request)
        wish = self._wishes.get(request)
        if wish is None:
            return
        for job in message.jobs:
            wish.noted.setdefault(job, set()).add(source)
        for job in message.missing:
            wish.refused.setdefault(job, set()).add(source)
        for job in message.final:
            if wish.open.pop(job, None) is not None:
                wish.safe.append(job)
        self._look(request, wish)

    def _look(self, request: RequestId, wish: Wish) -> None:
        """What of it is safe by now; answer when nothing is open any more."""
        for job, holders in list(wish.open.items()):
            noted = wish.noted.get(job, set())
            if majority(len(noted.intersection(holders)), holders):
                wish.safe.append(job)
                del wish.open[job]
            elif not self._silent(wish, job, holders):
                if noted:
                    wish.safe.append(job)
                del wish.open[job]
        if not wish.open:
            self._answer(request, wish)

    def _answer(self, request: RequestId, wish: Wish) -> None:
        if self._wishes.pop(request, None) is not None:
            self._desk.emit(CancelDone(request, tuple(wish.safe)))

    # ----------------------------------------------------------------------------- members and time

    def dropped(self, request: RequestId) -> None:
        """The client went away. What was noted stays noted."""
        self._wishes.pop(request, None)

    def members_changed(self, changed: Iterable[NodeId]) -> None:
        for request, wish in list(self._wishes.items()):
            self._look(request, wish)

    def deadline(self) -> Instant:
        return min((min(wish.again_at, wish.ends_at) for wish in self._wishes.values()), default=FOREVER)

    def on_time(self) -> None:
        now, settings = self._desk.now, self._desk.settings
        for request, wish in list(self._wishes.items()):
            if wish.ends_at <= now:
                self._answer(request, wish)
            elif wish.again_at <= now:
                wish.pause_s = min(wish.pause_s * 2, settings.retry_max_s)
                wish.again_at = now + wish.pause_s
                self._send(request, wish)
