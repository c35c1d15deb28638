"""How long jobs live in one run: a week, or seconds, so that last days come while it hurts and soon after."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Final

from edgenode.core.settings import JobSettings
from edgenode.core.specs import DAY_S
from edgenode.core.types import Seconds
from edgenode.sim.faults import Faults, Kind, Mood

QUICK_SKEW_S: Final[Seconds] = 4.0
"""Ten times what right clocks differ by, and far less than what wrong ones are off."""
QUICK_SWEEP_S: Final[Seconds] = 1.0


@dataclass(frozen=True, slots=True)
class Days:
    """What one seed says of last days.

    `quick`: they are drawn in seconds, and with them the clock skew that is allowed.
    """

    quick: bool

    @classmethod
    def draw(cls, dice: Random, faults: Faults) -> Days:
        # A lonely clock that was set back is caught up with at half the pace: that takes hours.
        is_lonely = faults.nodes == 1 and any(blow.kind is Kind.CLOCK_BACK for blow in faults.blows)
        return cls(dice.random() < 0.3 and faults.mood is Mood.HURT and not is_lonely)

    def settings(self, jobs: JobSettings) -> JobSettings:
        if not self.quick:
            return jobs
        return replace(jobs, clock_skew_max_s=QUICK_SKEW_S, sweep_s=QUICK_SWEEP_S)

    def lasts_s(self, dice: Random) -> Seconds:
        """How long after it is due a job has its last day."""
        return dice.uniform(2.0, 40.0) if self.quick else 7 * DAY_S

    def ttl_s(self, dice: Random) -> Seconds:
        return dice.choice((0.0, 1.0, 5.0, 30.0)) if self.quick else DAY_S
