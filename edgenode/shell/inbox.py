"""Events that wait for the core, and in which pieces it takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from edgenode.core import bursts
from edgenode.core.signals import CloneMet, Event, LinkDown, LinkUp, MessageArrived
from edgenode.core.types import Instant, Seconds
from edgenode.core.wire import CONTROL

EVENTS_MAX: Final = 50_000
"""Above it local requests are refused, and a peer's messages are lost, as on any network: the protocol
repeats them."""
EVENTS_PER_TURN: Final = 128
TURN_S: Final[Seconds] = 0.02
"""So many events, or those that were begun in this time, are handled before the loop gets to read from
sockets again, and timers are looked at: a hundred events about a thousand jobs each are seconds of work."""


class Inbox:
    """What the control links say, or is told of them, comes first, in its own order: a ping never waits for
    jobs. That is no other order than two links can have on the wire."""

    def __init__(self, clock: Callable[[], Instant]) -> None:
        self._clock = clock
        self._urgent: deque[Event] = deque()
        self._others: deque[Event] = deque()

    def add(self, event: Event) -> None:
        self._queue_of(event).append(event)

    def is_full(self, event: Event) -> bool:
        """Whether there are too many before this one."""
        return len(self._queue_of(event)) >= EVENTS_MAX

    def turn(self, least_s: Seconds = 0.0) -> Iterator[Event]:
        """What waits, or the first of it: as much as the loop can stand still for.

        Args:
            least_s: how long what was due took: what waits gets as much time.
        """
        ends = self._clock() + max(TURN_S, least_s)
        rest = max(0, len(self._others) - EVENTS_PER_TURN)  # a burst is as many as are in it
        while self._urgent or len(self._others) > rest:
            yield self._urgent.popleft() if self._urgent else bursts.take(self._others)
            if self._clock() >= ends:
                return

    def _queue_of(self, event: Event) -> deque[Event]:
        return self._urgent if is_of_control_link(event) else self._others

    def __len__(self) -> int:
        return len(self._urgent) + len(self._others)


def is_of_control_link(event: Event) -> bool:
    if isinstance(event, MessageArrived):
        return isinstance(event.message, CONTROL)
    return isinstance(event, LinkUp | LinkDown | CloneMet)
