"""Whom to ping next, and the pings that are on their way (SWIM sections 3.1 and 4.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from edgenode.core.types import Dice, Instant, NodeId


class RoundRobin:
    """Every member once a round, in an order shuffled anew for each: the time until a given member is
    probed is bounded (SWIM section 4.3), and no two nodes probe in step."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._members: set[NodeId] = set()
        self._rest: list[NodeId] = []

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[NodeId]:
        """In id order, so that no decision depends on how a set is laid out."""
        return iter(sorted(self._members))

    def __contains__(self, node: NodeId) -> bool:
        return node in self._members

    def add(self, node: NodeId) -> None:
        """A newcomer gets a random place in what is left of this round."""
        if node not in self._members:
            self._members.add(node)
            self._rest.insert(self._dice.randrange(0, len(self._rest) + 1), node)

    def remove(self, node: NodeId) -> None:
        if node in self._members:
            self._members.remove(node)
            self._rest = [other for other in self._rest if other != node]

    def next(self) -> NodeId | None:
        """The one whose turn it is; None without members."""
        if not self._rest:
            self._rest = self._dice.sample(sorted(self._members), len(self._members))
        return self._rest.pop() if self._rest else None


@dataclass(slots=True)
class Probe:
    """A question whether `target` lives. `helpers` is empty until they are asked."""

    target: NodeId
    began: Instant
    ask_at: Instant
    ends_at: Instant
    helpers: tuple[NodeId, ...] = ()
    asked: bool = False
    nacks: set[NodeId] = field(default_factory=set)

    def due_at(self) -> Instant:
        return self.ends_at if self.asked else self.ask_at

    @property
    def nacks_missing(self) -> int:
        """Helpers that said nothing at all: then it may be us who cannot be heard (Lifeguard)."""
        return len(self.helpers) - len(self.nacks)


@dataclass(frozen=True, slots=True)
class Relay:
    """A ping sent for somebody else."""

    asker: NodeId
    seq: int  # the asker's own number
    target: NodeId
    nack_at: Instant
