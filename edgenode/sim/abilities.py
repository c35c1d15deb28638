"""What only some nodes can run: jobs that require labels, and a task that is not everywhere.

    able   a start is on a node that has its task, and every label that its job requires
    told   a node says what is lacking where no machine ever had it, and says no such thing in the end; where
           nothing goes wrong it knows all the time who can run what
    run    in the end a node comes that has everything: then every job has to end, as all others (I3)

Only in some seeds, from sources of chance of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from edgenode.core.fitting import lack_of
from edgenode.core.job_ids import job_text
from edgenode.core.lines import Kind
from edgenode.core.node import Node
from edgenode.core.signals import Run
from edgenode.core.specs import Spec
from edgenode.core.types import FOREVER, Seconds
from edgenode.core.view import MemberView
from edgenode.sim.faults import Faults, Mood
from edgenode.sim.machines import Life, Machine
from edgenode.sim.story import short
from edgenode.sim.violation import Violation
from edgenode.sim.workers import TASK
from edgenode.sim.world import World

SHARE: Final = 0.3
RARE: Final = "sim.rare"
"""A task that only some nodes have."""
GPU, EAST, WEST = ("gpu", "yes"), ("zone", "east"), ("zone", "west")
KINDS: Final = (
    Kind(TASK, (GPU,)),
    Kind(TASK, (WEST,)),
    Kind(TASK, (GPU, EAST)),
    Kind(RARE, ()),
    Kind(RARE, (GPU,)),
)
SPECIAL: Final = 0.35
"""The share of jobs that need something."""
LOOK_EVERY_S: Final[Seconds] = 0.5
KNOWN_S: Final[Seconds] = 3.0
"""After so long all know of a member that came, or that it has gone, where nothing goes wrong."""
COMES_S: Final[Seconds] = 3.0
TOLD_S: Final[Seconds] = 30.0
"""How long after everything else it may take until all know what the members can run."""


class Abilities:
    """What the machines of one seed have, and what its jobs need."""

    def __init__(self, world: World, faults: Faults, *, off: bool) -> None:
        self._world = world
        self._dice = world.random("abilities")
        # What waits for a node would be called late where it is measured how soon jobs start again.
        self.is_on = self._dice.random() < SHARE and faults.mood is not Mood.DEATH and not off
        self._is_faultless = faults.mood in (Mood.CALM, Mood.CHURN)
        self._has_all = False
        self._is_needed = False
        self.seen = 0  # starts, and answers, that were held against the law
        self._missing_since: dict[Kind, Seconds] = {}
        if self.is_on:
            world.equip = self._equip
            world.on_begin.append(self._begins)

    def _equip(self, machine: Machine) -> None:
        """Give a new machine some labels, and perhaps the task; the same ones for all of its lives."""
        dice = self._world.random(f"abilities of {machine}")
        zone = dice.choice((EAST, WEST, None))
        labels = [label for label, chance in ((GPU, 0.4), (zone, 1.0)) if label and dice.random() < chance]
        machine.labels = (GPU, EAST, WEST) if self._has_all else tuple(labels)
        machine.tasks = (RARE,) if self._has_all or dice.random() < 0.5 else ()

    def vary(self, spec: Spec) -> Spec:
        """The same, and perhaps it needs something."""
        if not self.is_on or self._dice.random() >= SPECIAL:
            return spec
        self._is_needed = True
        kind = self._dice.choice(KINDS)
        return replace(spec, task=kind.task, options=replace(spec.options, requires=kind.requires))

    def begin(self) -> None:
        if self.is_on:
            self._look()

    def heal(self, join: Callable[[], None]) -> None:
        """A node comes that can run whatever anybody wants.

        Args:
            join: builds and starts one.
        """
        if self._is_needed:
            self._has_all = True
            self._world.after(self._dice.uniform(0.0, COMES_S), join)

    # ------------------------------------------------------------------------------------- the law

    def _begins(self, life: Life, effect: Run) -> None:
        spec, machine = effect.spec, life.machine
        self.seen += 1
        if not can_run(machine, Kind(spec.task, spec.options.requires)):
            raise Violation(
                f"L: {short(life.id)} runs {job_text(spec.id)}, a {spec.task} that requires "
                f"{dict(spec.options.requires)}, and has {dict(machine.labels)} and {machine.tasks}"
            )

    def _look(self) -> None:
        """All who have been there for some time know what those can run who have been, too."""
        world = self._world
        for kind in KINDS:
            if any(can_run(life.machine, kind) for life in world.lives()):
                self._missing_since.pop(kind, None)
            else:
                self._missing_since.setdefault(kind, world.now)
        for kind in KINDS:
            for found in self._misinformed(kind, self._is_there(kind)):
                raise Violation(f"L: {found}")
        world.after(LOOK_EVERY_S, self._look)

    def _is_there(self, kind: Kind) -> bool | None:
        """Whether somebody can run such a job; None if not everybody need know."""
        world = self._world
        if not any(can_run(machine, kind) for machine in world.machines.values()):
            return False
        if not self._is_faultless:
            return None
        if any(can_run(life.machine, kind) and life.drained_at == FOREVER for life in self._known()):
            return True
        return False if world.now - self._missing_since.get(kind, FOREVER) > KNOWN_S else None

    def _known(self) -> Iterator[Life]:
        """Who has been there for some time, and stays."""
        for life in self._world.lives():
            if self._world.now - life.began_at > KNOWN_S and not life.leaving:
                yield life

    def _misinformed(self, kind: Kind, is_there: bool | None) -> Iterator[str]:
        """What nodes say that do not know what they should."""
        for life in self._known() if is_there is not None else ():
            if isinstance(life.core, Node):
                self.seen += 1
                lack = lack_of(kind, members_of(life.core)).ability
                if (lack is None) is not is_there:
                    yield f"{short(life.id)} says of {kind.task} with {dict(kind.requires)}: lacks {lack}"

    def demand(self) -> None:
        """After the healing all know that there is one who has everything.

        Raises:
            Violation: somebody thinks that a job waits for a node that is there.
        """
        if not self._is_needed:
            return
        world = self._world

        def misinformed() -> list[str]:
            return [found for kind in KINDS for found in self._misinformed(kind, is_there=True)]

        if not world.run_until(world.now + TOLD_S, lambda: not misinformed()):
            raise Violation(f"L: after {TOLD_S:.0f} s {misinformed()[0]}")


def can_run(machine: Machine, kind: Kind) -> bool:
    """Whether it has what jobs of this kind need."""
    return kind.task in (TASK, *machine.tasks) and all(label in machine.labels for label in kind.requires)


def members_of(core: Node) -> Sequence[MemberView]:
    """The members as this node shows them."""
    reports = core.membership.snapshot()
    return [MemberView(each.info, each.state, each.load, each.silent_s) for each in reports]
