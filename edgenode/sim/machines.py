"""Machines, the processes that live on them, and what a process runs: the production core, or a stand-in."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Protocol

from edgenode.core.settings import Settings
from edgenode.core.signals import Archive, Effect, Event, RequestId
from edgenode.core.situations import Situation
from edgenode.core.types import (
    FOREVER,
    Dice,
    Instant,
    JobId,
    MemberInfo,
    NodeId,
    Past,
    Seconds,
    StartToken,
    Word,
)
from edgenode.core.wire import Verdict
from edgenode.sim.clock import MachineClock
from edgenode.sim.disk import Disk
from edgenode.sim.network import first_host
from edgenode.sim.pipeline import Pipeline
from edgenode.sim.story import short
from edgenode.sim.timeline import Action


class Core(Protocol):
    """What the world drives: the face of `core.node.Node`."""

    def handle(self, event: Event, now: Instant) -> list[Effect]: ...

    def deadline(self) -> Instant: ...

    @property
    def reached(self) -> Set[Situation]: ...

    @property
    def has_vote(self) -> bool: ...

    def remembers(self, node: NodeId) -> Sequence[Word]: ...


class MakeCore(Protocol):
    def __call__(
        self,
        info: MemberInfo,
        settings: Settings,
        archive: Archive,
        dice: Dice,
        *,
        expects_peers: bool = False,
        knows_peers: bool = False,
    ) -> Core: ...


class Life:
    """One process of one machine, from its start to its end."""

    def __init__(self, machine: Machine, core: Core, boot: int, past: Past) -> None:
        self.machine = machine
        self.id: NodeId = machine.id
        self.place: NodeId = machine.place
        self.host = machine.host
        self.boot = boot
        self.past = past  # what its disk knew of the lives before it
        self.marks: set[Situation] = set()  # that it has come into, as far as was looked
        self.core = core
        self.pipeline: Pipeline
        self.alive = True
        self.began_at: Seconds = -FOREVER
        self.paused = False
        self.stood_still_at: Seconds = -FOREVER  # when it last did
        self.asked_at: dict[RequestId, Seconds] = {}  # requests whose answers matter
        self.leaving = False
        self.drained_at: Seconds = FOREVER  # until when a leaving one waits for what runs on it
        self.resigned = False  # its disk refused a write, and it lives on
        self.backlog: list[Action] = []
        self.inbox: deque[Event] = deque()  # what waits because the process is busy
        self.running: dict[tuple[JobId, StartToken], Verdict] = {}
        self.waiting: set[tuple[JobId, StartToken]] = set()  # starts taken ahead of the slots
        self.shared: set[tuple[JobId, StartToken]] = set()  # starts that took an async slot
        self.alarm: Seconds = FOREVER
        self.last: Instant = -FOREVER
        self.rings = 0  # how often in a row due time left something due at once


@dataclass(eq=False, slots=True)
class Machine:
    """A computer with a disk. Its identity lives on the disk: a wiped one is another machine, and a copy of a
    disk makes two machines with one identity."""

    id: NodeId
    place: NodeId  # among all machines: the id, unless its disk is a copy of that machine's
    clock: MachineClock
    slots: int = 2
    seeds: frozenset[NodeId] = frozenset()
    disk: Disk = field(default_factory=Disk)
    chance: int = 0  # what tells its lives from those of a copy, or those it forgot, that were as many
    life: Life | None = None
    powered: bool = True
    gone: str = ""  # why it never comes back
    host: str = ""  # its address; a machine that has never moved has the first one
    async_slots: int = 0  # if there are any, it has the coroutine task too
    settings: Settings | None = None  # its own, if they are not those of the world
    labels: tuple[tuple[str, str], ...] = ()
    ahead: int = 0  # starts that it may take beyond its slots
    tasks: tuple[str, ...] = ()  # that it has beside those that all have

    def __post_init__(self) -> None:
        self.host = self.host or first_host(self.id)

    def __str__(self) -> str:
        return short(self.place)


def node_id(name: str) -> NodeId:
    """An id of 16 characters for a machine that people call `name`."""
    return NodeId(name.ljust(16, "z"))
