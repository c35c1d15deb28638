"""What one machine's clocks show: a monotonic one that drifts, and a wall clock that may be wrong."""

from __future__ import annotations

from typing import Final

from edgenode.core.types import Instant, Seconds, Wall

EPOCH: Final[Wall] = 1_700_000_000.0
"""What a correct wall clock shows when the simulation begins (November 2023)."""
ACCURACY_S: Final[Seconds] = 1.0


class MachineClock:
    """Both clocks are functions of the simulated time, so nothing ever has to tick."""

    def __init__(self, *, origin: Instant = 0.0, rate: float = 1.0, offset_s: Seconds = 0.0) -> None:
        assert rate > 0
        self._origin = origin
        self._rate = rate
        self.offset_s = offset_s
        self.was_wrong = self.is_wrong  # at any time, or what its disk remembers of it

    def monotonic(self, now: Seconds) -> Instant:
        """What this machine's monotonic clock shows at simulated time `now`."""
        return self._origin + now * self._rate

    def when(self, instant: Instant) -> Seconds:
        """The simulated time at which the monotonic clock shows `instant`."""
        return (instant - self._origin) / self._rate

    def wall(self, now: Seconds) -> Wall:
        return EPOCH + now + self.offset_s

    def keep(self, wall: Wall, now: Seconds) -> None:
        """This time is on the machine's disk: at the next start it may count for more than the clock."""
        self.was_wrong |= wall - EPOCH - now > ACCURACY_S

    @property
    def is_wrong(self) -> bool:
        """Whether the wall clock is off by more than clocks that are kept right ever are."""
        return abs(self.offset_s) > ACCURACY_S

    def jump(self, by_s: Seconds) -> None:
        """Somebody set the wall clock."""
        self.set_ahead(self.offset_s + by_s)

    def set_ahead(self, by_s: Seconds) -> None:
        """From now on the wall clock is so far ahead of the truth."""
        self.offset_s = by_s
        self.was_wrong |= self.is_wrong
