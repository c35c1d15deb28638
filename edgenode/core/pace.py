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
        self._doubled: dict[
            NodeId, tuple[Seconds, Instant]
        ] = {}  # the wait, and until when it is given a try

    def took(self, peer: NodeId, seconds: Seconds) -> None:
        """It answered what it was told once. (Of what was said twice nobody knows which one it answers: Karn
        and Partridge, "Improving Round-Trip Time Estimates in Reliable Transport Protocols", 1987.)"""
        self._doubled.pop(peer, None)
        known = self._known.get(peer)
        if known is None:
            self._known[peer] = seconds, seconds / 2
            return
        smoothed, variation = known
        variation += VARIATION * (abs(smoothed - seconds) - variation)
        self._known[peer] = smoothed + SMOOTHING * (seconds - smoothed), variation

    def repeated(self, peer: NodeId, now: Instant) -> None:
        """Something had to be said to it again: it is waited for twice as long until it answers in time
        (section 5.5). Many things at once are one sign."""
        _, until = self._doubled.get(peer, (0.0, now))
        if until <= now:
            wait_s = min(2 * self.patience_s(peer), self._most_s)
            self._doubled[peer] = wait_s, now + wait_s

    def patience_s(self, peer: NodeId) -> Seconds:
        """How long to wait for an answer of this peer."""
        doubled = self._doubled.get(peer)
        if doubled is not None:
            return doubled[0]
        known = self._known.get(peer)
        if known is None:
            return self._least_s
        return min(max(self._least_s, known[0] + MARGIN * known[1]), self._most_s)

    def forget(self, peer: NodeId) -> None:
        """It is another life of it, or none: nothing is known of its pace."""
        self._known.pop(peer, None)
        self._doubled.pop(peer, None)
