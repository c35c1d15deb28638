"""How long a silent member may stay silent: Lifeguard's suspicion timeout and local health multiplier.

Source: Dadgar, Phillips and Currey, "Lifeguard: Local Health Awareness for More Accurate Failure
Detection", 2018 (LHA-Probe, LHA-Suspicion), on top of Das, Gupta and Motivala, "SWIM", 2002, section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log, log10

from edgenode.core.types import Instant, NodeId, Seconds


def suspicion_timeout(
    *, confirmations: int, confirmations_wanted: int, minimum_s: Seconds, maximum_s: Seconds
) -> Seconds:
    """How long after its start a suspicion becomes a death, unless it is refuted.

    The first confirmations say the most, so the timeout falls on a log scale. An observer that is itself
    slow or cut off hears few confirmations, and therefore waits long before it accuses others wrongly.

    Args:
        confirmations: distinct members, other than the first accuser, that agree; >= 0.
        confirmations_wanted: how many bring the timeout to its minimum; 0 when nobody could confirm.
        minimum_s, maximum_s: seconds, 0 < minimum_s <= maximum_s.

    Source: Lifeguard, "LHA-Suspicion". SWIM section 4.2 has a constant instead.
    """
    assert confirmations >= 0
    assert confirmations_wanted >= 0
    assert 0 < minimum_s <= maximum_s
    if confirmations >= confirmations_wanted:
        return minimum_s
    progress = log(confirmations + 1) / log(confirmations_wanted + 1)
    return maximum_s - progress * (maximum_s - minimum_s)


def size_factor(members: int) -> float:
    """By how much a suspicion lasts longer in a mesh of this size: rumours need log(n) rounds to arrive.

    1 up to ten members, 2.3 at 200 (SWIM section 5, as in memberlist).
    """
    return max(1.0, log10(max(1, members)))


@dataclass(slots=True)
class Suspicion:
    """One suspicion of one member under one incarnation."""

    started: Instant
    """When it was heard first, moved on by every stall of our own: what we slept through is no silence."""
    accusers: set[NodeId] = field(default_factory=set)

    def ends_at(
        self, *, heard_at: Instant, confirmations_max: int, minimum_s: Seconds, maximum_s: Seconds
    ) -> Instant:
        """When the suspect is dead. A word from the suspect itself begins the wait anew, because its
        refutation must be on the way; but only so often, since a member that hears nothing keeps talking."""
        timeout_s = suspicion_timeout(
            confirmations=max(0, len(self.accusers) - 1),
            confirmations_wanted=confirmations_max,
            minimum_s=minimum_s,
            maximum_s=maximum_s,
        )
        ends = max(self.started, heard_at) + timeout_s
        return min(ends, self.started + 2 * maximum_s)


class LocalHealth:
    """Lifeguard's local health multiplier: 0 when all is well, up to `worst` when this node is too slow to
    judge others. Drive it with `better` after each answered probe, and `worse` otherwise."""

    def __init__(self, worst: int) -> None:
        assert worst >= 0
        self._worst = worst
        self.level = 0

    def better(self) -> None:
        self.level = max(0, self.level - 1)

    def worse(self, by: int = 1) -> None:
        self.level = min(self._worst, self.level + by)

    def recovered(self) -> None:
        """What made this node seem slow is over."""
        self.level = 0

    def stretch(self, span_s: Seconds) -> Seconds:
        """A probe's time limit or period, longer the worse this node is."""
        return span_s * (1 + self.level)


class Patience:
    """How much longer to wait for a member that refuted suspicions lately: it is slow, not dead."""

    STEPS = 4  # refutations that bring the factor to its maximum

    def __init__(self) -> None:
        self._refutations = 0
        self._last: Instant = float("-inf")

    def refuted(self, now: Instant, forget_s: Seconds) -> None:
        self._refutations = 1 if now - self._last > forget_s else min(self.STEPS, self._refutations + 1)
        self._last = now

    def factor(self, now: Instant, *, maximum: float, forget_s: Seconds) -> float:
        """From 1 to `maximum`."""
        if now - self._last > forget_s:
            return 1.0
        return 1.0 + (maximum - 1.0) * self._refutations / self.STEPS
