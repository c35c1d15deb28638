"""How long to wait for a peer's word before saying something again: as long as its answers take.

A busy peer answers late, and everything that is said twice makes it later: then a mesh under load does
nothing but repeat itself. So what went unanswered is said again after the time that answers have taken, as
TCP does with segments (RFC 6298 section 2): smoothed, with four times its variation on top.
"""

from __future__ import annotations

from typing import Final

from edgenode.core.types import Instant, NodeId, Seconds

SMOOTHING: Final = 1 / 8
VARIATION: Final = 1 / 4
MARGIN: Final = 4.0


class Pace:
    """Times of answers, in seconds, by peer."""

    def __init__(self, least_s: Seconds, most_s: Seconds) -> None:
        """
        Args:
            least_s: what to wait for a peer whose pace is not known, and at least.
            most_s: at most.
        """
        self._least_s = least_s
        self._most_s = most_s
        self._known: dict[NodeId, tuple[Seconds, Seconds]] = {}  # the smoothed time, and its variation
        self._doubled: dict[NodeId, Instant] = {}  # until when its doubled wait is given a try
        self._patience: dict[NodeId, Seconds] = {}  # what follows of both: asked for with each job

    def took(self, peer: NodeId, seconds: Seconds) -> None:
        """It answered what it was told once. (Of what was said twice nobody knows which one it answers: Karn
        and Partridge, "Improving Round-Trip Time Estimates in Reliable Transport Protocols", 1987.)"""
        self._doubled.pop(peer, None)
        known = self._known.get(peer)
        if known is None:
            smoothed, variation = seconds, seconds / 2
        else:
            smoothed, variation = known
            variation += VARIATION * (abs(smoothed - seconds) - variation)
            smoothed += SMOOTHING * (seconds - smoothed)
        self._known[peer] = smoothed, variation
        self._patience[peer] = min(max(self._least_s, smoothed + MARGIN * variation), self._most_s)

    def repeated(self, peer: NodeId, now: Instant) -> None:
        """Something had to be said to it again: it is waited for twice as long until it answers in time
        (section 5.5). Many things at once are one sign."""
        if self._doubled.get(peer, now) <= now:
            self._patience[peer] = min(2 * self.patience_s(peer), self._most_s)
            self._doubled[peer] = now + self._patience[peer]

    def patience_s(self, peer: NodeId) -> Seconds:
        """How long to wait for an answer of this peer."""
        return self._patience.get(peer, self._least_s)

    def forget(self, peer: NodeId) -> None:
        """It is another life of it, or none: nothing is known of its pace."""
        for place in (self._known, self._doubled, self._patience):
            place.pop(peer, None)
