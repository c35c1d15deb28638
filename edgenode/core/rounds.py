"""Whom to ping next: each of those that this node watches, once a round (SWIM section 4.3)."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from hashlib import blake2b

from edgenode.core.types import Dice, NodeId


class RoundRobin:
    """Every watched member once a round, in an order shuffled anew for each: the time until a given member is
    probed is bounded (SWIM section 4.3), and no two nodes probe in step.

    In a mesh of more than `watched_max` others each node watches so many of them, those nearest to it by a
    hash. A member has about as many watchers, so it is probed as often as in a small mesh, and nobody needs a
    link to everybody. One join or death changes one place in the choice of a few nodes.
    """

    def __init__(self, dice: Dice, me: NodeId, watched_max: int) -> None:
        assert watched_max > 0
        self._dice = dice
        self._me = me
        self._watched_max = watched_max
        self._members: dict[NodeId, int] = {}  # with their distance
        self._nearest: list[tuple[int, NodeId]] = []  # all members, the nearest first
        self._rest: list[NodeId] = []

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

    def add(self, node: NodeId) -> None:
        """A newcomer gets a random place in what is left of this round."""
        if node not in self._members:
            self._members[node] = distance = _distance(self._me, node)
            insort(self._nearest, (distance, node))
            self._rest.insert(self._dice.randrange(0, len(self._rest) + 1), node)

    def remove(self, node: NodeId) -> None:
        distance = self._members.pop(node, None)
        if distance is not None:
            del self._nearest[bisect_left(self._nearest, (distance, node))]
            self._rest = [other for other in self._rest if other != node]

    def next(self) -> NodeId | None:
        """The one whose turn it is; None without members."""
        while self._rest:
            node = self._rest.pop()
            if self._is_watched(node):
                return node
        watched = self.watched()
        self._rest = self._dice.sample(watched, len(watched))
        return self._rest.pop() if self._rest else None

    def _is_watched(self, node: NodeId) -> bool:
        last = min(len(self._nearest), self._watched_max) - 1
        return (self._members[node], node) <= self._nearest[last]


def _distance(one: NodeId, other: NodeId) -> int:
    """How far `other` is for `one`: the same in every interpreter, and not the same both ways."""
    return int.from_bytes(blake2b(f"{one} {other}".encode(), digest_size=8).digest(), "big")
