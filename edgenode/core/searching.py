"""Searches over the jobs of all members, and what exactly is on each holder's disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edgenode.core.desk import Desk
from edgenode.core.job_bytes import encode
from edgenode.core.jobs import Record
from edgenode.core.joining import join
from edgenode.core.polls import Ended, Poll, Polls
from edgenode.core.signals import (
    InspectAsked,
    InspectDone,
    RequestId,
    SearchAsked,
    SearchDone,
    SearchedHere,
    SearchHere,
)
from edgenode.core.specs import Spec, decode_spec
from edgenode.core.types import Instant, JobId, NodeId
from edgenode.core.view import unreachable
from edgenode.core.wire import HeldItem, Inspect, Inspected, Query, Search, SearchAnswer


@dataclass(slots=True)
class Seen:
    """What a search has found so far."""

    query: Query
    found: dict[JobId, Record] = field(default_factory=dict)
    horizon: bytes = b""  # the highest `upto`: below it somebody has not looked yet
    held: dict[JobId, str] = field(default_factory=dict)  # behind which gate, as owners said


OnDisks = dict[NodeId, Record | None]
"""Who has said what is on its disk."""


class Searching:
    """Drive it with local requests, messages, changes and time; it answers through the desk."""

    def __init__(self, desk: Desk, held_at: Callable[[JobId], str]) -> None:
        """
        Args:
            held_at: behind which shut gate a job waits here; "" for none.
        """
        self._desk = desk
        self._held_at = held_at
        self._table = desk.table
        self._searches: Polls[Seen] = Polls(desk)
        self._inspections: Polls[OnDisks] = Polls(desk)
        self._tickets: dict[int, tuple[NodeId, int]] = {}
        self._next_ticket = 0

    # ------------------------------------------------------------------------------------ searches

    def search(self, event: SearchAsked) -> None:
        """Ask every living member for its jobs; each shows what it owns, or what has no living owner."""
        desk = self._desk
        nodes = {n for n in desk.view.members() if desk.view.is_living(n)} | {desk.me}
        poll = Poll(Seen(event.query), set(nodes), desk.now + event.timeout_s)
        self._searches.open(event.request, poll)  # at least this node has to look
        for node in sorted(nodes):
            if node == desk.me:
                self._look_here(desk.me, event.request, event.query)
            else:
                desk.post.send(node, Search(event.request, event.query))

    def on_search(self, source: NodeId, message: Search) -> None:
        self._look_here(source, message.request, message.query)

    def _look_here(self, source: NodeId, request: int, query: Query) -> None:
        self._next_ticket += 1
        self._tickets[self._next_ticket] = (source, request)
        self._desk.emit(SearchHere(self._next_ticket, query))

    def searched_here(self, event: SearchedHere) -> None:
        desk = self._desk
        asked = self._tickets.pop(event.ticket, None)
        if asked is None or not (event.complete or event.records or event.upto):
            return  # the disk could not be read: who asked will name this node as unanswered
        source, request = asked
        records = [record for blob in event.records if (record := desk.read(blob)) is not None]
        seen = [event.upto] * bool(event.upto) + [record.id for record in records[-1:]]
        upto = min(seen) if seen and not event.complete else b""
        shown, held = [], []
        for record in records:
            # One node speaks for a job that is not over, or an old copy would be listed under a state that
            # it left. What is settled anybody may show.
            is_mine = record.owner == desk.me and self._table.has_vote
            if record.settled or is_mine or not desk.view.is_living(record.owner):
                shown.append(encode(record))
                if gate := self._held_at(record.id):
                    held.append(HeldItem(record.id, gate))
        desk.post.send(source, SearchAnswer(request, tuple(shown), upto, tuple(held)))

    def on_search_answer(self, source: NodeId, message: SearchAnswer) -> None:
        poll = self._searches.get(message.request)
        if poll is None:
            return
        seen = poll.said
        seen.horizon = max(seen.horizon, message.upto)
        seen.held.update(message.held)
        for blob in message.records:
            record = self._desk.read(blob)
            if record is not None:
                before = seen.found.get(record.id)
                seen.found[record.id] = record if before is None else join(before, record)
        self._tell_found(self._searches.answered(message.request, source))

    def _tell_found(self, ended: Ended[Seen]) -> None:
        """Merge the pages: nothing is shown below the point that somebody has not looked beyond."""
        for request, poll in ended:
            seen, query = poll.said, poll.said.query
            page = [
                record
                for job, record in sorted(seen.found.items(), reverse=True)
                if job >= seen.horizon and _matches(record, query)
            ]
            cut = page[: query.limit]
            last = cut[-1].id if len(cut) < len(page) else seen.horizon
            # Who was not even asked may have the only copy, like who did not answer.
            silent = poll.silent.union(unreachable(self._desk.view))
            held = {record.id: seen.held[record.id] for record in cut if record.id in seen.held}
            self._desk.emit(SearchDone(request, tuple(cut), last, tuple(sorted(silent)), held))

    # --------------------------------------------------------------------------------- inspections

    def inspect(self, event: InspectAsked) -> None:
        """Ask each holder what exactly is on its disk."""
        desk = self._desk
        record = self._table.get(event.job)
        nodes = desk.view.ranking().rank(event.job) if record is None else record.holders
        poll: Poll[OnDisks] = Poll({}, set(), desk.now + event.timeout_s)
        if record is not None or desk.me in nodes:
            poll.said[desk.me] = record
        for node in nodes:
            if node != desk.me and desk.view.is_living(node):
                poll.waiting.add(node)
                desk.post.send(node, Inspect(event.request, event.job))
        self._tell_copies(self._inspections.open(event.request, poll))

    def on_inspect(self, source: NodeId, message: Inspect) -> None:
        record = self._table.get(message.job)
        blob = b"" if record is None else encode(record)
        self._desk.post.send(source, Inspected(message.request, blob))

    def on_inspected(self, source: NodeId, message: Inspected) -> None:
        poll = self._inspections.get(message.request)
        if poll is not None:
            poll.said[source] = self._desk.read(message.record) if message.record else None
            self._tell_copies(self._inspections.answered(message.request, source))

    def _tell_copies(self, ended: Ended[OnDisks]) -> None:
        for request, poll in ended:
            self._desk.emit(InspectDone(request, poll.said))

    # ----------------------------------------------------------------------------- members and time

    def close(self) -> None:
        """The node ends: tell every local client what is known now."""
        self._tell_found(self._searches.close())
        self._tell_copies(self._inspections.close())

    def disown(self) -> None:
        """The disk refused a write: what this node had in memory is no copy."""
        for poll in self._inspections.all():
            poll.said.pop(self._desk.me, None)

    def dropped(self, request: RequestId) -> None:
        """The client went away."""
        self._searches.drop(request)
        self._inspections.drop(request)

    def members_changed(self, changed: frozenset[NodeId]) -> None:
        """Do not wait for the dead."""
        self._tell_found(self._searches.members_changed(changed))
        self._tell_copies(self._inspections.members_changed(changed))

    def deadline(self) -> Instant:
        return min(self._searches.deadline(), self._inspections.deadline())

    def on_time(self) -> None:
        self._tell_found(self._searches.on_time())
        self._tell_copies(self._inspections.on_time())


def _matches(record: Record, query: Query) -> bool:
    spec: Spec = decode_spec(record.spec)
    return (
        query.state in ("", record.state)
        and query.task in ("", spec.task)
        and query.queue in ("", spec.options.queue)
    )
