"""One seed: a mesh is built, hurt, healed and judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Final

from edgenode.core.settings import JobSettings, Settings
from edgenode.core.situations import Situation
from edgenode.core.specs import Spec
from edgenode.core.types import FOREVER, Seconds
from edgenode.sim.abilities import Abilities
from edgenode.sim.clients import Clients
from edgenode.sim.counts import Counts
from edgenode.sim.days import Days
from edgenode.sim.faults import HURT_S, Family, Faults, Mood
from edgenode.sim.identities import Forfeited
from edgenode.sim.judge import Judge
from edgenode.sim.keyed import KeyedClients
from edgenode.sim.machines import MakeCore
from edgenode.sim.pausing import Pausing
from edgenode.sim.queueing import Queueing
from edgenode.sim.retries import Retries
from edgenode.sim.story import Story
from edgenode.sim.strikes import STANDING, Struck, told
from edgenode.sim.talk import TALKATIVE
from edgenode.sim.violation import Violation
from edgenode.sim.weather import Weather
from edgenode.sim.world import World

FORMED_S: Final[Seconds] = 1.5
"""When all nodes know of each other, if nothing keeps them from it."""
HEAL_S: Final[Seconds] = 90.0
"""How long after healing everything must have ended: the slowest retries, twice over, and a full queue."""
PUNCTUAL_S: Final[Seconds] = 0.15
"""How far the mesh's time may be off where all clocks are right: they drift, and are read from afar."""

IN_MEMORY: Final = (0, 0, 0, 0, 1, 3, 10, 5_000)
"""How many records of waiting jobs a node may keep: nearly none, or all there ever are."""
PATIENCE: Final = 0.25
"""The share of seeds that are watched until there is rest."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `nodes` 0: as many as the seed says; so too `replicas`, the copies of a job. `without`:
    of what the seed has in store, these faults do not strike."""

    seed: int
    nodes: int = 0
    replicas: int = 0
    hurt_s: Seconds = HURT_S
    heal_s: Seconds = HEAL_S
    without: frozenset[Family] = frozenset()
    codec: bool = True  # every message goes through bytes
    simple: bool = False  # no keys are used, and no job needs what only some nodes have


@dataclass(frozen=True, slots=True)
class Passed:
    """What a run that kept every promise did."""

    seed: int
    mood: Mood
    nodes: int  # at the start; others may have joined
    replicas: int
    digest: str
    events: int
    jobs: int
    acknowledged: int
    starts: int
    simulated_s: Seconds
    strikes: Counter[str]
    reached: frozenset[Situation]


class Trial:
    """One seed on its way; `world` and `faults` can be looked at, whatever comes of it.

    Args:
        faults: suffer these, instead of what the seed would draw.
    """

    def __init__(
        self, plan: Plan, make_core: MakeCore, story: Story | None = None, faults: Faults | None = None
    ) -> None:
        self.plan = plan
        dice = Random(f"{plan.seed} faults")
        drawn = Faults.draw(dice, hurt_s=plan.hurt_s, nodes=plan.nodes, replicas=plan.replicas)
        self.faults = faults or drawn.without(plan.without)
        jobs = JobSettings(
            replicas=self.faults.replicas,
            rereplicate_after_s=self.faults.rereplicate_after_s,
            drain_s=self.faults.drain_s,
            in_memory=Random(f"{plan.seed} memory").choice(IN_MEMORY),
        )
        days = Days.draw(Random(f"{plan.seed} days"), self.faults)
        # What ends and is dropped of itself says so; and to wait for silence takes as long as all the rest.
        self._is_patient = not days.quick and Random(f"{plan.seed} patience").random() < PATIENCE
        settings = Settings(jobs=days.settings(jobs))
        self.world = World(plan.seed, make_core, settings=settings, story=story, codec=plan.codec)
        self.world.answers_matter = True
        # Peers' clocks are read by question and answer, to within half of what that takes.
        self.world.ledger.clock_s += self.faults.answer_late_s / 2
        self.world.ledger.keys.is_faultless = self._is_faultless
        self.queueing = Queueing(self.world, self.faults, quick=days.quick)
        self.abilities = Abilities(self.world, self.faults, off=days.quick or plan.simple)
        self.pausing = Pausing(self.world.random("pauses"))
        punctual_s = PUNCTUAL_S + self.faults.answer_late_s / 2
        self.world.ledger.pauses.slack_s = punctual_s if self.faults.exact_clocks else FOREVER
        self.world.talk.is_on = Random(f"{plan.seed} talk").random() < TALKATIVE
        # Nodes that have not met yet are the sides of a cut: that is a fault.
        is_hurt = self.faults.mood is Mood.HURT
        earliest_s = 0.05 if is_hurt else FORMED_S
        self.keyed = KeyedClients(self.world, disks=self.faults.disks, earliest_s=earliest_s, off=plan.simple)
        self.clients = Clients(self.world, self.faults, days, self._vary, self.keyed.some)
        self.counts = Counts(self.world, self.faults, off=plan.simple)
        self.retries = Retries(self.world, self.clients.jobs, earliest_s=earliest_s, off=plan.simple)

    @property
    def _is_faultless(self) -> bool:
        return self.faults.mood in (Mood.CALM, Mood.CHURN)

    def _vary(self, spec: Spec) -> Spec:
        return self.abilities.vary(self.pausing.vary(self.queueing.vary(spec)))

    def run(self) -> Passed:
        """Raises whatever went wrong, with the way to see it again as notes."""
        world = self.world
        with self._explained():
            try:
                self._hurt_and_heal()
            except Forfeited:
                world.strikes[Struck.FORFEITED] += 1
            self._check_struck()
        starts = sum(map(len, world.ledger.starts.values()))
        return Passed(
            self.plan.seed,
            self.faults.mood,
            self.faults.nodes,
            self.faults.replicas,
            world.digest,
            world.events,
            len(self.clients.jobs),
            len(world.ledger.acked),
            starts,
            world.now,
            world.strikes,
            world.reached,
        )

    def _hurt_and_heal(self) -> None:
        world, plan = self.world, self.plan
        weather = Weather(world, self.faults)
        weather.begin()
        self.clients.begin(plan.hurt_s, since=2.0 if self.faults.mood is Mood.CALM else 0.6)
        self.queueing.begin(plan.hurt_s)
        self.abilities.begin()
        self.keyed.begin(plan.hurt_s, [blow.at for blow in self.faults.blows])
        self.clients.jobs += [key.job for key in self.keyed.keys]
        self.retries.begin(plan.hurt_s)
        self.counts.begin(plan.hurt_s)
        world.run_until(plan.hurt_s)
        weather.heal()
        self.queueing.heal()
        self.abilities.heal(weather.join)
        judge = Judge(world, self.faults.mood, wiped=weather.wiped)
        # Longer under faults, more jobs have gathered.
        judge.demand(plan.heal_s * max(1.0, plan.hurt_s / HURT_S))
        self.abilities.demand()
        self.retries.check()
        self.counts.demand()
        self.queueing.demand()
        world.talk.check(is_calm=self.faults.mood is Mood.CALM)
        if self._is_patient:
            judge.demand_rest()

    def _check_struck(self) -> None:
        """A run that was to hurt and did not has shown nothing; a calm one must have taken every job."""
        is_spared = bool(self.plan.without)
        struck = self.world.strikes.total() - sum(self.world.strikes[each] for each in STANDING)
        if self.faults.mood is Mood.HURT and not is_spared and not struck:
            raise Violation("no fault struck")
        if self.faults.mood is Mood.CALM and len(self.world.ledger.acked) < len(self.clients.jobs):
            taken, asked = len(self.world.ledger.acked), len(self.clients.jobs)
            raise Violation(f"without faults only {taken} of {asked} jobs were taken")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            error.add_note(f"faults as drawn: {self.faults}")
            error.add_note(f"struck: {told(self.world.strikes)} at {self.world.now:.3f} s")
            error.add_note("\n".join(self.world.story.lines()))
            raise
