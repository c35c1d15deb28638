"""How many jobs wait and run in each queue of the mesh: every living member is asked for those it owns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from edgenode.core.desk import Desk
from edgenode.core.polls import Ended, Poll, Polls
from edgenode.core.signals import CountAsked, CountDone, RequestId
from edgenode.core.types import Instant, NodeId
from edgenode.core.wire import CountQueues, QueueCount, QueuesCounted

COUNTED_MAX: Final = 10_000
"""Queues of which a node tells, and of which a client is told: there is no end of their names."""

Counts = Mapping[str, tuple[int, int]]
"""How many jobs of each queue wait, and how many run or are about to."""


@dataclass(slots=True)
class Total:
    """What was said so far."""

    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    left_out: int = 0

    def add(self, said: Iterable[QueueCount], left_out: int) -> None:
        self.left_out += left_out
        for queue, queued, running in said:
            if queue not in self.counts and len(self.counts) >= COUNTED_MAX:
                self.left_out += 1
                continue
            waiting, started = self.counts.get(queue, (0, 0))
            self.counts[queue] = waiting + queued, started + running


class Counting:
    """Drive it with local requests, messages, membership changes and time; it answers through the desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._polls: Polls[Total] = Polls(desk)

    def ask(self, event: CountAsked, own: Counts) -> None:
        """
        Args:
            own: of the jobs that this node owns.
        """
        desk = self._desk
        total = Total()
        total.add(*_told(own))
        others = {node for node in desk.view.members() if node != desk.me and desk.view.is_living(node)}
        for node in sorted(others):
            desk.post.send(node, CountQueues(event.request))
        self._tell(self._polls.open(event.request, Poll(total, others, desk.now + event.timeout_s)))

    def on_count(self, source: NodeId, request: int, own: Counts) -> None:
        self._desk.post.send(source, QueuesCounted(request, *_told(own)))

    def on_counted(self, source: NodeId, message: QueuesCounted) -> None:
        poll = self._polls.get(message.request)
        if poll is not None and source in poll.waiting:
            poll.said.add(message.counts, message.left_out)
            self._tell(self._polls.answered(message.request, source))

    def _tell(self, ended: Ended[Total]) -> None:
        for request, poll in ended:
            silent = tuple(sorted(poll.silent))
            self._desk.emit(CountDone(request, poll.said.counts, silent, poll.said.left_out))

    def dropped(self, request: RequestId) -> None:
        """The client went away."""
        self._polls.drop(request)

    def members_changed(self, changed: frozenset[NodeId]) -> None:
        """Do not wait for the dead: others own what they did, or soon will."""
        self._tell(self._polls.members_changed(changed))

    def close(self) -> None:
        """The node ends: tell every local client what is known now."""
        self._tell(self._polls.close())

    def deadline(self) -> Instant:
        return self._polls.deadline()

    def on_time(self) -> None:
        self._tell(self._polls.on_time())


def _told(own: Counts) -> tuple[tuple[QueueCount, ...], int]:
    """Of the queues with the most jobs how many they have; and of how many queues that says nothing."""
    counts = [QueueCount(queue, *count) for queue, count in own.items()]
    if len(counts) > COUNTED_MAX:
        counts.sort(key=lambda count: (-(count.queued + count.running), count.queue))
    return tuple(counts[:COUNTED_MAX]), max(0, len(counts) - COUNTED_MAX)
