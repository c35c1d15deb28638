"""Simulated time: a heap of what will happen, and nothing ever happens but from there."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from edgenode.core.types import Seconds

Action = Callable[[], None]


class Timeline:
    """What is due at one instant happens in the order in which it was planned."""

    def __init__(self) -> None:
        self.now: Seconds = 0.0
        self._heap: list[tuple[Seconds, int, Action]] = []
        self._planned = 0

    def at(self, when: Seconds, action: Action) -> None:
        self._planned += 1
        heapq.heappush(self._heap, (max(when, self.now), self._planned, action))

    def after(self, delay_s: Seconds, action: Action) -> None:
        self.at(self.now + delay_s, action)

    def step(self) -> None:
        """Let the next thing happen."""
        self.now, _, action = heapq.heappop(self._heap)
        action()

    def run_until(self, when: Seconds, done: Callable[[], bool] = lambda: False) -> bool:
        """Let everything happen up to `when`, or until `done`; whether it was done."""
        while not done():
            if not self._heap or self._heap[0][0] > when:
                self.now = max(self.now, when)
                return done()
            self.step()
        return True
