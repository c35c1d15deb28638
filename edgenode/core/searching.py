"""Searches over the jobs of all members, and what exactly is on each holder's disk."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgenode.core.desk import Desk
from edgenode.core.job_bytes import encode
from edgenode.core.jobs import Record
from edgenode.core.joining import join
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
from edgenode.core.types import FOREVER, Instant, JobId, NodeId
from edgenode.core.view import unreachable
from edgenode.core.wire import Inspect, Inspected, Query, Search, SearchAnswer


@dataclass(slots=True)
class OpenSearch:
    query: Query
    waiting: set[NodeId]
    ends_at: Instant
    found: dict[JobId, Record] = field(default_factory=dict)
    horizon: bytes = b""  # the highest `upto`: below it somebody has not looked yet


@dataclass(slots=True)
class OpenInspection:
    waiting: set[NodeId]
    ends_at: Instant
    copies: dict[NodeId, Record | None] = field(default_factory=dict)


class Searching:
    """Drive it with local requests, messages, changes and time; it answers through the desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._table = desk.table
        self._searches: dict[RequestId, OpenSearch] = {}
        self._tickets: dict[int, tuple[NodeId, int]] = {}
        self._next_ticket = 0
        self._inspections: dict[RequestId, OpenInspection] = {}
        self._wake: Instant = FOREVER

    # ------------------------------------------------------------------------------------ searches

    def search(self, event: SearchAsked) -> None:
        """Ask every living member for its jobs; each shows what it owns, or what has no living owner."""
        desk = self._desk
        nodes = {n for n in desk.view.members() if desk.view.is_living(n)} | {desk.me}
        searching = OpenSearch(event.query, nodes, desk.now + event.timeout_s)
        self._searches[event.request] = searching
        self._wake = min(self._wake, searching.ends_at)
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
        shown = []
        for record in records:
            # One node speaks for a job that is not over, or an old copy would be listed under a state that
            # it left. What is settled anybody may show.
            is_mine = record.owner == desk.me and self._table.has_vote
            if record.settled or is_mine or not desk.view.is_living(record.owner):
                shown.append(encode(record))
        desk.post.send(source, SearchAnswer(request, tuple(shown), upto))

    def on_search_answer(self, source: NodeId, message: SearchAnswer) -> None:
        request = RequestId(message.request)
        searching = self._searches.get(request)
        if searching is None:
            return
        searching.waiting.discard(source)
        searching.horizon = max(searching.horizon, message.upto)
        for blob in message.records:
            record = self._desk.read(blob)
            if record is not None:
                before = searching.found.get(record.id)
                searching.found[record.id] = record if before is None else join(before, record)
        if not searching.waiting:
            self._answer_search(request, searching)

    def _answer_search(self, request: RequestId, searching: OpenSearch) -> None:
        """Merge the pages: nothing is shown below the point that somebody has not looked beyond."""
        del self._searches[request]
        query = searching.query
        page = [
            record
            for job, record in sorted(searching.found.items(), reverse=True)
            if job >= searching.horizon and _matches(record, query)
        ]
        cut = page[: query.limit]
        last = cut[-1].id if len(cut) < len(page) else searching.horizon
        # Who was not even asked may have the only copy, like who did not answer.
        silent = searching.waiting.union(unreachable(self._desk.view))
        self._desk.emit(SearchDone(request, tuple(cut), last, tuple(sorted(silent))))

    # --------------------------------------------------------------------------------- inspections

    def inspect(self, event: InspectAsked) -> None:
        """Ask each holder what exactly is on its disk."""
        desk = self._desk
        record = self._table.get(event.job)
        nodes = desk.view.ranking().rank(event.job) if record is None else record.holders
        inspecting = OpenInspection(set(), desk.now + event.timeout_s)
        if record is not None or desk.me in nodes:
            inspecting.copies[desk.me] = record
        for node in nodes:
            if node != desk.me and desk.view.is_living(node):
                inspecting.waiting.add(node)
                desk.post.send(node, Inspect(event.request, event.job))
        self._inspections[event.request] = inspecting
        self._wake = min(self._wake, inspecting.ends_at)
        self._finish_inspection(event.request, inspecting)

    def on_inspect(self, source: NodeId, message: Inspect) -> None:
        record = self._table.get(message.job)
        blob = b"" if record is None else encode(record)
        self._desk.post.send(source, Inspected(message.request, blob))

    def on_inspected(self, source: NodeId, message: Inspected) -> None:
        request = RequestId(message.request)
        inspecting = self._inspections.get(request)
        if inspecting is not None:
            inspecting.waiting.discard(source)
            inspecting.copies[source] = self._desk.read(message.record) if message.record else None
            self._finish_inspection(request, inspecting)

    def _finish_inspection(self, request: RequestId, inspecting: OpenInspection) -> None:
        if not inspecting.waiting and self._inspections.pop(request, None) is not None:
            self._desk.emit(InspectDone(request, inspecting.copies))

    # ----------------------------------------------------------------------------- members and time

    def close(self) -> None:
        """The node ends: tell every local client what is known now."""
        for request, searching in list(self._searches.items()):
            self._answer_search(request, searching)
        for request, inspecting in list(self._inspections.items()):
            inspecting.waiting.clear()
            self._finish_inspection(request, inspecting)

    def disown(self) -> None:
        """The disk refused a write: what this node had in memory is no copy."""
        for inspecting in self._inspections.values():
            inspecting.copies.pop(self._desk.me, None)

    def dropped(self, request: RequestId) -> None:
        """The client went away."""
        self._searches.pop(request, None)
        self._inspections.pop(request, None)

    def members_changed(self, changed: frozenset[NodeId]) -> None:
        """Do not wait for the dead."""
        dead = {node for node in changed if not self._desk.view.is_living(node)}
        for request, searching in list(self._searches.items()):
            searching.waiting -= dead
            if not searching.waiting:
                self._answer_search(request, searching)
        for request, inspecting in list(self._inspections.items()):
            inspecting.waiting -= dead
            self._finish_inspection(request, inspecting)

    def deadline(self) -> Instant:
        return self._wake

    def on_time(self) -> None:
        now = self._desk.now
        if self._wake > now:
            return
        self._wake = FOREVER
        for request, searching in list(self._searches.items()):
            if searching.ends_at <= now:
                self._answer_search(request, searching)
            else:
                self._wake = min(self._wake, searching.ends_at)
        for request, inspecting in list(self._inspections.items()):
            if inspecting.ends_at <= now:
                inspecting.waiting.clear()
                self._finish_inspection(request, inspecting)
            else:
                self._wake = min(self._wake, inspecting.ends_at)


def _matches(record: Record, query: Query) -> bool:
    spec: Spec = decode_spec(record.spec)
    return (
        query.state in ("", record.state)
        and query.task in ("", spec.task)
        and query.queue in ("", spec.options.queue)
    )
