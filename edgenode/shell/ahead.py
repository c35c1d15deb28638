"""How many runs a crew takes beyond what its processes can run at once.

A process that has finished a run of a millisecond would wait several for the next: its end is stored, the
next start chosen, and stored too. While runs are short some more are taken ahead. They wait in the processes,
for no longer than nobody notices.

    short     what the last runs took says that those taken ahead wait `WAIT_S` at most
    long      the longer the last runs took, the fewer; after one long run none, at once
    stuck     a run is not over after `STUCK_S`: what waits behind it was never started, and goes back; and
              none are taken until dozens were short
"""

from __future__ import annotations

from typing import Final

from edgenode.core.types import Seconds

WAIT_S: Final[Seconds] = 0.02
STUCK_S: Final[Seconds] = 0.05
MOST: Final = 32
FORGETTING: Final = 0.05
"""How much each run counts: it takes dozens of short ones after a long one until so much is taken again."""


class Ahead:
    """Tell it how long each run took; `count` is how many to take beyond `processes`."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._mean_s: Seconds = WAIT_S * processes
        self.count = 0

    def ran(self, took_s: Seconds) -> None:
        """A run has ended."""
        self._expect(self._mean_s + FORGETTING * (took_s - self._mean_s))

    def is_stuck(self) -> None:
        """A run is not over after `STUCK_S`."""
        self._expect(max(self._mean_s, WAIT_S * self._processes))

    def _expect(self, mean_s: Seconds) -> None:
        self._mean_s = mean_s
        fitting = int(WAIT_S * self._processes / max(mean_s, WAIT_S / MOST))
        # Powers of two: what is told to the core is not to change with every run.
        self.count = min(MOST, 1 << fitting.bit_length() - 1) if fitting > 1 else 0
