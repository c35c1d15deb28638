"""Starts that simulated nodes take ahead of their slots: each has its turn soon, or goes back unbegun.

As worker processes do it (shell/crew): what runs was short, so more is taken; then something runs for long,
what waits behind it goes back, and no more is taken for a while.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

from edgenode.core.signals import Event, Run, RunEnded, SlotsChanged
from edgenode.core.types import JobId, Room, Seconds, StartToken
from edgenode.sim.machines import Life, Machine
from edgenode.sim.workers import NEVER_BEGUN, STOPPED

MOST: Final = (0, 0, 1, 4)
WAIT_MAX_S: Final[Seconds] = 0.1
STUCK: Final = 0.2
"""How often what waits goes back."""
AGAIN_S: Final[Seconds] = 1.0


class Host(Protocol):
    """The world, as far as this needs it."""

    def random(self, purpose: str) -> random.Random: ...

    def post(self, life: Life, delay_s: Seconds, event: Event) -> None: ...

    def later(self, life: Life, delay_s: Seconds, action: Callable[[], None]) -> None: ...


class Ahead:
    """Drive it with the lives of nodes, and what they order."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._dice = host.random("what is taken ahead")
        self.stopped: Counter[JobId] = Counter()
        """Starts that waited when somebody had them end: they are counted, and never began."""

    def most(self, machine: Machine) -> int:
        """How much a machine of the weather may take ahead."""
        return self._host.random(f"what {machine} takes ahead").choice(MOST)

    def tell(self, life: Life, count: int) -> None:
        """From now on so much is taken."""
        if life.machine.ahead:
            room = Room(life.machine.slots, life.machine.async_slots)
            self._host.post(life, 0.0, SlotsChanged(room, count))

    def take(self, life: Life, run: Run, begin: Callable[[], None]) -> None:
        """No slot is free for this start: it waits."""
        key = run.job, run.token
        life.waiting.add(key)
        comes = self._dice.random() >= STUCK

        def turn() -> None:
            if key not in life.waiting:
                return
            life.waiting.discard(key)
            if comes:
                begin()
            else:
                self.tell(life, 0)
                self._host.post(life, 0.0, RunEnded(*key, NEVER_BEGUN, True, begun=False))
                self._host.later(life, AGAIN_S, lambda: self.tell(life, life.machine.ahead))

        self._host.later(life, self._dice.uniform(0.0, WAIT_MAX_S), turn)

    def stop(self, life: Life, job: JobId, token: StartToken) -> bool:
        """Whether this start waits: then it never begins."""
        if (job, token) not in life.waiting:
            return False
        life.waiting.discard((job, token))
        self.stopped[job] += 1
        self._host.post(life, 0.0, RunEnded(job, token, STOPPED, lost=False, begun=False))
        return True
