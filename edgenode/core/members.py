"""Everyone whom this node knows: what is believed of each, and the evidence for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from edgenode.core.comparison import Leaf, leaf_of
from edgenode.core.gossip import is_alive
from edgenode.core.rounds import Rounds
from edgenode.core.suspicion import Patience, Suspicion
from edgenode.core.types import (
    FOREVER,
    NOBODY,
    Dice,
    Instant,
    Load,
    MemberInfo,
    MemberState,
    NodeId,
    Seconds,
)
from edgenode.core.view import Standing
from edgenode.core.wire import Rumour

NEVER: Final[Instant] = -FOREVER
BOOT_ONLY: Final = -1
"""The incarnation of a life of which nothing but its boot number is known; any word from it beats this."""
IDLE: Final = Load()


class Shown(NamedTuple):
    """What the job side sees of a member: when this changes, it is told."""

    standing: Standing
    ready: bool
    weight: float  # 0: it gets no jobs now
    boot: int
    behind: bool
    left: bool


NOT_SHOWN: Final = Shown(Standing.UNKNOWN, False, 0.0, 0, False, False)


@dataclass(slots=True, eq=False)
class Member:
    """The present belief about one member, and the evidence for it."""

    belief: Rumour
    met: bool
    """False while it is only remembered from disk: nobody living has confirmed it in this life of ours."""
    since: Instant
    """When `belief` last turned from alive to dead or back, or to a disk that takes no writes or back."""
    heard_at: Instant = NEVER
    """When a message came from the member itself."""
    load: Load = IDLE
    reached_at: tuple[str, int] | None = None
    """Where a handshake with it succeeded: it is tried before the addresses that it names."""
    suspicion: Suspicion | None = None
    patience: Patience = field(default_factory=Patience)
    witnesses: dict[NodeId, Instant] = field(default_factory=dict)
    """Who saw its process end, and when we learned of it."""
    cleared: int = BOOT_ONLY
    """The incarnation with which it last refuted its death: testimony about earlier ones was false."""
    hearsay: bool = False
    """It was dead when we first heard of it. Not passed on, or the dead would be remembered for ever."""
    shown: Shown = NOT_SHOWN
    _leaf: Leaf | None = field(default=None, init=False)

    @property
    def id(self) -> NodeId:
        return self.belief.info.id

    @property
    def title(self) -> str:
        """As people are told of it."""
        return f"{self.belief.info.name} ({self.belief.info.id})"

    @property
    def is_alive(self) -> bool:
        """Met, and neither dead nor left."""
        return self.met and is_alive(self.belief)

    @property
    def is_told(self) -> bool:
        """May others hear of it from here? Not what is only remembered, or was dead when it was heard."""
        return self.met and not self.hearsay and self.belief.incarnation > BOOT_ONLY

    @property
    def leaf(self) -> Leaf:
        """The belief as views are compared."""
        if self._leaf is None or self._leaf.rumour is not self.belief:
            self._leaf = leaf_of(self.belief)
        return self._leaf

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        named = self.belief.info.addresses
        if self.reached_at is None:
            return named
        return (self.reached_at, *(address for address in named if address != self.reached_at))


class Members(dict[NodeId, Member]):
    """Everyone known by id, this node included. All parts of membership read it, and may note evidence at a
    member; what is believed of others changes in `core.membership` alone, of this node in `core.ownword`."""

    __slots__ = ("alive", "myself")

    def __init__(self, info: MemberInfo, dice: Dice, watched_max: int, period_s: Seconds) -> None:
        self.myself: Final = Member(Rumour(info, 0, MemberState.JOINING, NOBODY), met=True, since=NEVER)
        self.alive: Final = Rounds(dice, info.id, watched_max, period_s)
        """The others that are alive; this node is not among them."""
        super().__init__({info.id: self.myself})

    @property
    def alive_count(self) -> int:
        """How many members are alive, this node included."""
        return len(self.alive) + 1

    def is_alive(self, node: NodeId) -> bool:
        """Whether its process lives, as far as is known, whatever its disk does."""
        member = self.get(node)
        return member is not None and member.is_alive

    def beliefs(self) -> list[Leaf]:
        """The living, as views are compared: who forgot a dead one sooner than others does not differ."""
        return [member.leaf for member in self.values() if member.is_alive and member.is_told]
