"""What others may know of the members: a read-only face of membership, and what is shown of it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple, Protocol

from edgenode.core.rendezvous import Ranking
from edgenode.core.types import Instant, Load, MemberInfo, MemberState, NodeId, Seconds


class Standing(Enum):
    """How sure we are that a node can answer."""

    LIVING = "living"  # ready, joining, suspect or leaving
    UNKNOWN = "unknown"  # remembered or named by somebody, but not met in this life, for less than the grace
    SILENT = "silent"  # dead on the evidence of silence; also not met within the grace
    GONE = "gone"  # dead on proof (its process ended), left, or living with a disk that takes no writes


class View(Protocol):
    """Read-only. All answers are as of the last event handled."""

    @property
    def me(self) -> NodeId: ...

    @property
    def boot(self) -> int:
        """This life's boot count."""
        ...

    @property
    def formed(self) -> bool:
        """False while this node was told of peers, has met none, and the formation time is not over."""
        ...

    @property
    def is_cut_off(self) -> bool:
        """Whether there are peers of which it knows no more than that: named ones, of which it has met none
        in this life, or such that have a link and have not told of themselves."""
        ...

    @property
    def version(self) -> int:
        """Another number whenever `is_living` or `is_behind` may say something else of anybody."""
        ...

    def standing(self, node: NodeId) -> Standing: ...

    def is_living(self, node: NodeId) -> bool: ...

    def boot_of(self, node: NodeId) -> int:
        """The latest life of it that was heard of; 0 if none was."""
        ...

    def is_behind(self, node: NodeId) -> bool:
        """Whether its disk forgot what it said: it has no vote, and its copies are for reading."""
        ...

    def has_left(self, node: NodeId) -> bool:
        """Whether it said goodbye: what it ran ended by its own wish, and says nothing against a job."""
        ...

    def stores(self, node: NodeId) -> bool:
        """False for a member that said that its disk takes no writes: its process may well live."""
        ...

    def is_leaving(self, node: NodeId) -> bool:
        """Whether it hands over at the moment, to leave."""
        ...

    def dead_since(self, node: NodeId) -> Instant | None:
        """Since when `standing` has been SILENT or GONE; None if it is not."""
        ...

    def ranking(self) -> Ranking:
        """The members that may get new jobs: ready and suspect ones. The same object until it changes."""
        ...

    def members(self) -> Iterable[NodeId]:
        """Everyone known that is not forgotten, this node included, in id order."""
        ...

    def info(self, node: NodeId) -> MemberInfo | None: ...

    def load(self, node: NodeId) -> Load: ...


class MemberView(NamedTuple):
    """One member as this node believes it to be."""

    info: MemberInfo
    state: MemberState
    load: Load
    heard_s: Seconds | None  # since it was last heard of; None for this node, and for one never heard
    clock_ahead_s: Seconds | None = None  # of the mesh's time; None if its clock was not heard yet

    @property
    def is_gone(self) -> bool:
        """Whether it takes part no more: what it said last is not so any longer."""
        return self.state in (MemberState.DEAD, MemberState.LEFT)

    @property
    def state_text(self) -> str:
        """Its state in a word: its own, or what is the matter with the disk of one that lives: `resigned` if
        it takes no writes, `behind` if it was put back or copied, and has no vote; or `draining`, `drained`,
        if it was asked to be."""
        if self.is_gone:
            return str(self.state)
        if not self.info.stores:
            return "resigned"
        if self.info.behind:
            return "behind"
        # A suspect, or one that leaves, is that in the first place.
        is_up = self.state in (MemberState.READY, MemberState.JOINING)
        return str(self.info.drain or self.state) if is_up else str(self.state)


class QueueChange(NamedTuple):
    """What is to be so of a queue from now on; None: as it was."""

    paused: bool | None = None
    concurrency: int | None = None  # 0: no limit
    rate: float | None = None  # per second; 0: no limit
    burst: int | None = None


class MeshView(NamedTuple):
    """This node's place in its mesh. Counts of members are made from `Service.members`."""

    mesh_id: str
    name: str  # this node's
    version: str
    uptime_s: Seconds
    replicas: int  # R: holders per job


def is_long_dead(node: NodeId, view: View, after_s: Seconds, now: Instant) -> bool:
    """Whether a node has been dead for `after_s`. (Summed up as the timers for this are, to the last bit.)"""
    since = view.dead_since(node)
    return since is not None and since + after_s <= now


def unreachable(view: View) -> list[NodeId]:
    """Members that cannot be asked, and did not hand over what they had."""
    return [node for node in view.members() if not view.is_living(node) and not view.has_left(node)]
