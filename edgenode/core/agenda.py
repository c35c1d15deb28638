"""When each of many things next needs attention: one instant a key, and the soonest at hand."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

from edgenode.core.types import FOREVER, Instant

K = TypeVar("K")


class Agenda(Generic[K]):
    """A heap with lazy removal: a key has at most one instant; setting a new one replaces it.

    Every operation costs O(log n), so that 100,000 jobs with a timer each cost no more per event than ten.
    """

    __slots__ = ("_at", "_count", "_heap")

    def __init__(self) -> None:
        self._at: dict[K, Instant] = {}
        self._heap: list[tuple[Instant, int, K]] = []
        self._count = 0  # keys need no order of their own

    def set(self, key: K, at: Instant) -> None:
        """`key` needs attention at `at`; FOREVER means not at all."""
        if at == FOREVER:
            self._at.pop(key, None)
        elif self._at.get(key) != at:
            self._at[key] = at
            self._count += 1
            heapq.heappush(self._heap, (at, self._count, key))
            if len(self._heap) > 64 and len(self._heap) > 4 * len(self._at):
                self._sweep()

    def soon(self, key: K, at: Instant) -> None:
        """Like `set`, but never later than it already was."""
        self.set(key, min(at, self._at.get(key, FOREVER)))

    def drop(self, key: K) -> None:
        self._at.pop(key, None)

    def clear(self) -> None:
        self._at.clear()
        self._heap.clear()

    def __contains__(self, key: K) -> bool:
        return key in self._at

    def __len__(self) -> int:
        return len(self._at)

    def next(self) -> Instant:
        """The soonest instant, or FOREVER."""
        while self._heap:
            at, _, key = self._heap[0]
            if self._at.get(key) == at:
                return at
            heapq.heappop(self._heap)
        return FOREVER

    def take_due(self, now: Instant, limit: int | None = None) -> list[K]:
        """Remove and return the keys whose instant has come, the earliest first; so many at most."""
        due: list[K] = []
        while self.next() <= now and len(due) != limit:
            key = heapq.heappop(self._heap)[2]
            del self._at[key]
            due.append(key)
        return due

    def _sweep(self) -> None:
        self._heap = [entry for entry in self._heap if self._at.get(entry[2]) == entry[0]]
        heapq.heapify(self._heap)
