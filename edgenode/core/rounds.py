"""Whom to ping next: of those that this node watches, the one it has exchanged no ping with for longest."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from edgenode.core.agenda import Agenda
from edgenode.core.types import Dice, Instant, NodeId, Seconds

SPREAD: Final = 0.1
"""A round is longer or shorter by up to this share: of two members that watch each other, now the one is
first, now the other."""
POSTPONED_MAX: Final = 3
"""So many turns in a row are given up for a member that pinged first: who can speak may be deaf."""


class Rounds:
    """Every watched member once a round, as in SWIM (section 4.3); a round is so many periods as there are
    watched members, so that the time until a given member is probed is bounded, whatever their number.

    Of two that watch each other, one ping a round and its answer tell both that the other lives: who was
    pinged gives up its own turn. So a member hears half as many pings as SWIM has, and is probed by somebody
    as soon after it has fallen silent.

    In a mesh of more than `watched_max` others each node watches so many of them, those nearest to it by a
    hash of both. A member has about as many watchers, and watches most of them, so it is probed as often as
    in a small mesh, and nobody needs a link to everybody. One join or death changes one place in the choice
    of a few nodes.
    """

    def __init__(self, dice: Dice, me: NodeId, watched_max: int, period_s: Seconds) -> None:
        assert watched_max > 0
        self._dice = dice
        self._me = me
        self._watched_max = watched_max
        self._period_s = period_s
        self._members: dict[NodeId, int] = {}  # with their distance
        self._nearest: list[tuple[int, NodeId]] = []  # all members, the nearest first
        self._turns: Agenda[NodeId] = Agenda()  # of those that are watched
        self._postponed: dict[NodeId, int] = {}  # how many turns in a row were given up

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[NodeId]:
        """In id order, so that no decision depends on how a set is laid out."""
        return iter(sorted(self._members))

    def __contains__(self, node: NodeId) -> bool:
        return node in self._members

    def watched(self) -> list[NodeId]:
        """Those that this node probes, in id order."""
        return sorted(node for _, node in self._nearest[: self._watched_max])

    def add(self, node: NodeId, now: Instant) -> None:
        """A newcomer gets a random place in this round."""
        if node in self._members:
            return
        self._members[node] = distance = _distance(self._me, node)
        place = bisect_left(self._nearest, (distance, node))
        insort(self._nearest, (distance, node))
        if place < self._watched_max:
            if len(self._nearest) > self._watched_max:
                self._drop(self._nearest[self._watched_max][1])
            self._begin(node, now)

    def remove(self, node: NodeId, now: Instant) -> None:
        distance = self._members.pop(node, None)
        if distance is None:
            return
        place = bisect_left(self._nearest, (distance, node))
        del self._nearest[place]
        if place < self._watched_max:
            self._drop(node)
            if len(self._nearest) >= self._watched_max:
                self._begin(self._nearest[self._watched_max - 1][1], now)

    def next_at(self) -> Instant:
        """When somebody's turn is; FOREVER without members."""
        return self._turns.next()

    def take(self, now: Instant) -> NodeId | None:
        """Whose turn is next, also if it has not come; the one after that is a round from now. None without
        members."""
        if not self._turns:
            return None
        (node,) = self._turns.take_due(self._turns.next(), 1)
        self._postponed.pop(node, None)
        self._turn_again(node, now)
        return node

    def pinged(self, node: NodeId, now: Instant) -> None:
        """It was first: what this node would ask is known."""
        if node in self._turns and (count := self._postponed.get(node, 0)) < POSTPONED_MAX:
            self._postponed[node] = count + 1
            self._turn_again(node, now)

    def _turn_again(self, node: NodeId, now: Instant) -> None:
        self._turns.set(node, now + self._round_s * self._dice.uniform(1 - SPREAD, 1 + SPREAD))

    def _begin(self, node: NodeId, now: Instant) -> None:
        self._postponed[node] = POSTPONED_MAX  # who meet all at once do not go on in step
        self._turns.set(node, now + self._round_s * self._dice.uniform(0.0, 1.0))

    def _drop(self, node: NodeId) -> None:
        self._turns.drop(node)
        self._postponed.pop(node, None)

    @property
    def _round_s(self) -> Seconds:
        return self._period_s * min(len(self._nearest), self._watched_max)


def _distance(one: NodeId, other: NodeId) -> int:
    """How far two are from each other: the same in every interpreter, and both ways."""
    pair = f"{min(one, other)} {max(one, other)}"
    return int.from_bytes(blake2b(pair.encode(), digest_size=8).digest(), "big")
