"""Which faults a run suffers: all drawn from its seed, before anything happens.

Each run has a random subset of the kinds, at random rates (swarm testing: Groce et al., ISSTA 2012), so some
runs are calm, some only lossy, some all crashes. Whatever is on in every run hides what it masks.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random
from typing import Final, NamedTuple

from edgenode.core.types import Seconds
from edgenode.sim.conditions import Conditions, ordinary


class Kind(StrEnum):
    """A blow that strikes at one moment."""

    KILL_ONE = "kill one"
    KILL_MINORITY = "kill a minority"
    KILL_MAJORITY = "kill a majority"
    KILL_ALL = "kill all"
    POWER_ONE = "power loss of one"
    POWER_ALL = "power loss of all"
    PAUSE = "pause"
    STALL = "stall"
    SHORT_STALL = "short stall"
    CUT_HALVES = "cut in halves"
    CUT_ONE = "cut one off"
    CUT_RING = "cut to a ring"
    CUT_ONE_WAY = "cut one way"
    CUT_PAIR = "cut between two"
    PIVOT = "a minority returns as its pivot fails"
    STARVE = "starvation"
    RESET = "reset a link"
    CLOCK_AHEAD = "clock jumps ahead"
    CLOCK_BACK = "clock jumps back"
    DISK_FULL = "full disk"
    DISK_BITS = "flipped bits"
    DISK_CUT = "truncated database"
    DISK_STALE = "stale snapshot"
    CLONE = "cloned identity"
    JOIN = "join"
    LEAVE = "leave"
    DRAIN = "drain"
    WEIGHT = "new weight"
    WIPE = "wipe"
    MOVE = "new address"


CLOCKS: Final = frozenset({Kind.CLOCK_AHEAD, Kind.CLOCK_BACK})


class Family(StrEnum):
    """Faults that are left out together."""

    KILLS = "kills"
    POWER = "power"
    CRASHES = "crashes"
    POISON = "poison"
    PAUSES = "pauses"
    CUTS = "cuts"
    MESSAGES = "messages"
    CLOCKS = "clocks"
    DISKS = "disks"
    IDENTITY = "identity"
    CHURN = "churn"


FAMILIES: Final[dict[Family, frozenset[Kind]]] = {
    Family.KILLS: frozenset({Kind.KILL_ONE, Kind.KILL_MINORITY, Kind.KILL_MAJORITY, Kind.KILL_ALL}),
    Family.POWER: frozenset({Kind.POWER_ONE, Kind.POWER_ALL, Kind.PIVOT}),
    Family.CRASHES: frozenset(),
    Family.POISON: frozenset(),
    Family.PAUSES: frozenset({Kind.PAUSE, Kind.STALL, Kind.SHORT_STALL, Kind.STARVE}),
    Family.CUTS: frozenset(
        {Kind.CUT_HALVES, Kind.CUT_ONE, Kind.CUT_RING, Kind.CUT_ONE_WAY, Kind.CUT_PAIR, Kind.RESET}
    ),
    Family.MESSAGES: frozenset(),
    Family.CLOCKS: CLOCKS,
    Family.DISKS: frozenset({Kind.DISK_FULL, Kind.DISK_BITS, Kind.DISK_CUT}),
    Family.IDENTITY: frozenset({Kind.DISK_STALE, Kind.CLONE}),
    Family.CHURN: frozenset({Kind.JOIN, Kind.LEAVE, Kind.DRAIN, Kind.WEIGHT, Kind.WIPE, Kind.MOVE}),
}
"""The blows of each; those without any are standing conditions, or jobs."""


HARMLESS: Final = (Kind.JOIN, Kind.LEAVE, Kind.DRAIN, Kind.WEIGHT)
"""Must not cost a single extra start."""
LOSSES: Final = frozenset({Kind.WIPE, Kind.DISK_BITS, Kind.DISK_CUT, Kind.DISK_STALE, Kind.CLONE})
"""Cost a disk, or its vote. Mostly one a run: two lost disks of three holders, say, leave little to check."""
LOSSES_CHANCE: Final = (0.7, 0.15)  # of one, and of a second one
ONCE: Final = frozenset({Kind.KILL_ALL, Kind.POWER_ALL, *LOSSES})
"""At most once a run."""
KIND_CHANCE: Final = 0.22
HURT_S: Final[Seconds] = 10.0
"""How long faults strike, in an ordinary run."""


SIZES: Final = (1, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 5, 6, 7, 8, 9)
"""Small meshes have more trouble in the same time, and cost less of it."""
COPIES: Final = (1, 2, 3, 3, 3, 3, 4, 5)
REREPLICATE_AFTER_S: Final = (1.0, 3.0, 30.0)
DRAIN_S: Final = (0.2, 1.0, 10.0)
DRAINED_S: Final = (0.5, 6.0)
"""How long after its drain a node is undrained."""
WEIGHTS: Final = (0.2, 1.0, 3.0)


PAUSE_S: Final = (1.5, 7.0)
STALL_S: Final = (0.2, 1.5)
SHORT_STALL_S: Final = (0.05, 0.9)
"""Shorter than the wait of anybody who may call a member dead, or believe itself forgotten."""
PIVOT_S: Final = (1.5, 6.0)
"""How long a minority is away before its pivot fails."""
STARVE_S: Final = (1.0, 5.0)
STARVE_STILL_S: Final = (0.05, 0.9)
"""How long a starved process stands still at a time: a tenth of a processor comes in slices."""
STARVE_RUN_S: Final = (0.005, 0.1)
TENTH: Final = 1 / 9
"""How long a process with a tenth of a processor runs for each second that it stands still."""


def times(hurt_s: Seconds) -> int:
    """How much more is to happen in this time than in an ordinary run."""
    return max(1, round(hurt_s / HURT_S))


class Blow(NamedTuple):
    at: Seconds
    kind: Kind


class Mood(StrEnum):
    CALM = "calm"  # nothing at all goes wrong
    CHURN = "churn"  # nodes come and go, and nothing goes wrong
    STALLS = "stalls"  # nodes are slow, and none of them is to be taken for dead
    DEATH = "one death"  # one node dies, and the others have its jobs within a bound
    HURT = "hurt"


@dataclass(frozen=True, slots=True)
class Faults:
    """What one seed has in store."""

    mood: Mood
    nodes: int
    replicas: int  # R, which may be more than there are nodes
    rereplicate_after_s: Seconds
    drain_s: Seconds
    chained: bool  # each node was told of one other only, instead of all
    conditions: Conditions
    blows: tuple[Blow, ...]
    offsets: tuple[Seconds, ...]  # of the wall clocks, by machine
    rates: tuple[float, ...]  # of the monotonic clocks, by machine
    poison: bool  # one of the jobs kills its node

    @property
    def exact_clocks(self) -> bool:
        """Whether a day named by a client means the same everywhere."""
        return not any(self.offsets) and not any(blow.kind in CLOCKS for blow in self.blows)

    @property
    def answer_late_s(self) -> Seconds:
        """How much later than a question its answer may come, beyond the network's ordinary delay."""
        struck = {blow.kind for blow in self.blows}
        standing = {
            Kind.PAUSE: PAUSE_S,
            Kind.PIVOT: PIVOT_S,
            Kind.STALL: STALL_S,
            Kind.SHORT_STALL: SHORT_STALL_S,
            Kind.STARVE: STARVE_STILL_S,
        }
        stands_s = max((most for kind, (_, most) in standing.items() if kind in struck), default=0.0)
        return stands_s + (2 * self.conditions.late_s if self.conditions.late else 0.0)

    def without(self, families: Collection[Family]) -> Faults:
        """The same run, spared these: what is left strikes as it would have."""
        spared = frozenset[Kind]().union(*(FAMILIES[family] for family in families))
        even, flat = (1.0,) * self.nodes, (0.0,) * self.nodes
        return replace(
            self,
            conditions=_calmer(self.conditions, families),
            blows=tuple(blow for blow in self.blows if blow.kind not in spared),
            offsets=flat if Family.CLOCKS in families else self.offsets,
            rates=even if Family.CLOCKS in families else self.rates,
            poison=self.poison and Family.POISON not in families,
        )

    @property
    def disks(self) -> int:
        """On how many a job can be."""
        return min(self.replicas, self.nodes)

    @classmethod
    def draw(cls, dice: Random, *, hurt_s: Seconds, nodes: int = 0, replicas: int = 0) -> Faults:
        """Draw a run's faults; `nodes` 0 draws their number, too, and `replicas` 0 the copies of a job."""
        count, copies = nodes or dice.choice(SIZES), replicas or dice.choice(COPIES)
        mesh = count, copies, dice.choice(REREPLICATE_AFTER_S), dice.choice(DRAIN_S)
        chained = dice.random() < 0.3
        roll = dice.random()
        flat = (0.0,) * count
        even = (1.0,) * count
        if roll < 0.08:
            return cls(Mood.CALM, *mesh, chained, ordinary(), (), flat, even, poison=False)
        if roll < 0.13:
            blows = _blows(dice, [*HARMLESS], hurt_s, most=4)
            return cls(Mood.CHURN, *mesh, chained, ordinary(), blows, flat, even, poison=False)
        if roll < 0.18:
            blows = _blows(dice, [Kind.SHORT_STALL, Kind.STARVE], hurt_s, most=4)
            return cls(Mood.STALLS, *mesh, chained, _quick(dice), blows, flat, even, poison=False)
        if roll < 0.23 and count >= 3:
            at = round(dice.uniform(0.3, 0.8) * hurt_s, 3)
            blows = (Blow(at, dice.choice((Kind.KILL_ONE, Kind.POWER_ONE))),)
            return cls(Mood.DEATH, *mesh, chained, _quick(dice), blows, flat, even, poison=False)
        kinds = [kind for kind in Kind if _strikes(kind, dice) and _possible(kind, count)]
        kinds += _losses(dice, count)
        conditions = _conditions(dice)
        if LOSSES.issuperset(kinds):  # which may find nothing to strike
            kinds.append(Kind.KILL_ONE)
        offsets = _offsets(dice, count) if dice.random() < 0.25 else flat
        rates = tuple(dice.uniform(0.999, 1.001) for _ in range(count)) if dice.random() < 0.3 else even
        blows = _blows(dice, kinds, hurt_s)
        return cls(
            Mood.HURT, *mesh, chained, conditions, blows, offsets, rates,
            poison=dice.random() < 0.2,
        )  # fmt: skip


def _calmer(conditions: Conditions, families: Collection[Family]) -> Conditions:
    good = Conditions()
    if Family.MESSAGES in families:
        conditions = replace(
            conditions,
            loss=good.loss,
            duplicate=good.duplicate,
            late=good.late,
            reorder=good.reorder,
            replay=good.replay,
            lies=good.lies,
        )
    if Family.CRASHES in families:
        conditions = replace(conditions, crash=good.crash, rare_crash=good.rare_crash)
    if Family.DISKS in families:
        conditions = replace(conditions, slow_sync=good.slow_sync)
    return conditions


def _possible(kind: Kind, count: int) -> bool:
    match kind:
        case Kind.WIPE | Kind.DISK_CUT | Kind.DISK_STALE | Kind.CLONE:
            return count >= 3
        case Kind.CUT_RING | Kind.CUT_PAIR | Kind.KILL_MINORITY | Kind.PIVOT:
            return count >= 3
        case Kind.CUT_HALVES | Kind.CUT_ONE | Kind.CUT_ONE_WAY | Kind.RESET | Kind.KILL_MAJORITY:
            return count >= 2
        case Kind.LEAVE | Kind.MOVE:
            return count >= 2
        case _:
            return True


def _strikes(kind: Kind, dice: Random) -> bool:
    return kind not in LOSSES and dice.random() < KIND_CHANCE


def _losses(dice: Random, count: int) -> list[Kind]:
    """Which disks are lost, one of them twice as often as two."""
    possible = [kind for kind in Kind if kind in LOSSES and _possible(kind, count)]
    wanted = sum(dice.random() < chance for chance in LOSSES_CHANCE)
    return dice.sample(possible, min(wanted, len(possible)))


def _blows(dice: Random, kinds: list[Kind], hurt_s: Seconds, most: int = 3) -> tuple[Blow, ...]:
    """Every kind strikes at least once, after the mesh had a moment to form (mostly)."""
    blows = []
    for kind in kinds:
        for _ in range(1 if kind in ONCE else dice.randint(1, most) * times(hurt_s)):
            earliest = 0.1 if dice.random() < 0.1 else 1.0
            blows.append(Blow(round(dice.uniform(earliest, hurt_s), 3), kind))
    return tuple(sorted(blows))


def _quick(dice: Random) -> Conditions:
    """A local network and disks of any kind that is in order."""
    return replace(
        ordinary(), delay_s=dice.choice((0.002, 0.01)), sync_s=dice.choice((0.001, 0.002, 0.005, 0.02))
    )


def _conditions(dice: Random) -> Conditions:
    def maybe(chance: float, greatest: float) -> float:
        return round(dice.uniform(greatest / 10, greatest), 5) if dice.random() < chance else 0.0

    return Conditions(
        loss=maybe(0.25, 0.2),
        duplicate=maybe(0.25, 0.2),
        late=maybe(0.25, 0.1),
        late_s=dice.choice((0.1, 0.5, 3.0)),
        delay_s=dice.choice((0.002, 0.002, 0.01, 0.05)),
        reorder=dice.random() < 0.25,
        replay=maybe(0.15, 0.03),
        lies=maybe(0.15, 0.3),
        crash=maybe(0.35, 0.003),
        rare_crash=maybe(0.3, 0.1),
        sync_s=dice.choice((0.001, 0.002, 0.005, 0.02)),
        slow_sync=maybe(0.25, 0.1),
        slow_sync_s=dice.choice((0.1, 0.3, 1.0)),
        busy=dice.choice((0.05, 0.3)),
        busy_s=dice.choice((0.005, 0.02, 0.05)),
    )


def _offsets(dice: Random, count: int) -> tuple[Seconds, ...]:
    """Fewer than half of the clocks are far off: nothing can be said of time when most are wrong."""
    wrong = set(dice.sample(range(count), (count - 1) // 2))
    return tuple(
        round(dice.choice((-3600.0, -60.0, 60.0, 3600.0)) if place in wrong else dice.uniform(-0.2, 0.2), 3)
        for place in range(count)
    )
