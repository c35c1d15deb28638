"""Questions to several nodes, for a client that waits: each ends when all have answered or died, or late."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from edgenode.core.desk import Desk
from edgenode.core.signals import RequestId
from edgenode.core.types import FOREVER, Instant, NodeId

T = TypeVar("T")


@dataclass(slots=True)
class Poll(Generic[T]):
    """One question, and what was said so far."""

    said: T
    waiting: set[NodeId]
    ends_at: Instant
    silent: set[NodeId] = field(default_factory=set)
    """Who was not asked, has died, or did not answer in time: it may know something, too."""


Ended = list[tuple[RequestId, Poll[T]]]
"""Polls that are over, and open no longer: to be answered by whoever opened them."""


class Polls(Generic[T]):
    """The open questions of one kind."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._open: dict[RequestId, Poll[T]] = {}
        self._wake: Instant = FOREVER

    def open(self, request: RequestId, poll: Poll[T]) -> Ended[T]:
        self._open[request] = poll
        self._wake = min(self._wake, poll.ends_at)
        return self._ended((request,))

    def get(self, request: int) -> Poll[T] | None:
        """What `request` is about, while it is open."""
        return self._open.get(RequestId(request))

    def all(self) -> Iterable[Poll[T]]:
        return self._open.values()

    def answered(self, request: int, source: NodeId) -> Ended[T]:
        """`source` has said what it knows."""
        if (poll := self.get(request)) is None:
            return []
        poll.waiting.discard(source)
        return self._ended((RequestId(request),))

    def drop(self, request: RequestId) -> None:
        """The client went away."""
        self._open.pop(request, None)

    def members_changed(self, changed: frozenset[NodeId]) -> Ended[T]:
        """Nobody waits for the dead."""
        dead = {node for node in changed if not self._desk.view.is_living(node)}
        for poll in self._open.values() if dead else ():
            poll.silent |= poll.waiting & dead
            poll.waiting -= dead
        return self._ended(self._open)

    def deadline(self) -> Instant:
        return self._wake

    def on_time(self) -> Ended[T]:
        if self._wake > self._desk.now:
            return []
        self._wake = FOREVER
        for poll in self._open.values():
            if poll.ends_at <= self._desk.now:
                poll.silent |= poll.waiting
                poll.waiting.clear()
            else:
                self._wake = min(self._wake, poll.ends_at)
        return self._ended(self._open)

    def close(self) -> Ended[T]:
        """The node ends: nobody waits any longer."""
        for poll in self._open.values():
            poll.silent |= poll.waiting
            poll.waiting.clear()
        return self._ended(self._open)

    def _ended(self, requests: Iterable[RequestId]) -> Ended[T]:
        ended = [request for request in requests if not self._open[request].waiting]
        return [(request, self._open.pop(request)) for request in ended]
