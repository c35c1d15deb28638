"""Strikes a world with the faults drawn for it, and heals it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial
from random import Random
from typing import Final

from edgenode.core.types import NodeId, Seconds
from edgenode.core.wire import Change, Wish
from edgenode.sim.clock import MachineClock
from edgenode.sim.conditions import ordinary
from edgenode.sim.disk import Disk, record_of
from edgenode.sim.faults import (
    DRAIN_S,
    DRAINED_S,
    PAUSE_S,
    PIVOT_S,
    SHORT_STALL_S,
    STALL_S,
    STARVE_RUN_S,
    STARVE_S,
    STARVE_STILL_S,
    TENTH,
    WEIGHTS,
    Faults,
    Kind,
    Mood,
)
from edgenode.sim.liveness import NoFalseDeath, Succession
from edgenode.sim.machines import Life, Machine
from edgenode.sim.network import first_host
from edgenode.sim.story import short
from edgenode.sim.strikes import Struck
from edgenode.sim.world import WISH_S, World

LETTERS: Final = "abcdefghijklmnopqrstuvwxy"


SETTLED_S: Final[Seconds] = WISH_S + 5.0
"""After so long no wish is on its way to anybody any more, however late."""
SLOTS_ENOUGH: Final = 200
"""For all jobs of a run: how soon one starts again is then the protocol's doing alone."""


class Weather:
    """Builds the machines of a run, hurts them, heals them."""

    def __init__(self, world: World, faults: Faults) -> None:
        self._world = world
        self._faults = faults
        self._dice = world.random("weather")
        self._born = 0
        self._drained: list[Life] = []
        self._backups: dict[NodeId, Disk] = {}  # by place
        self.wiped = False

    def begin(self) -> None:
        """Build and start every machine within half a second, and schedule all blows."""
        for place in range(self._faults.nodes):
            clock = MachineClock(
                origin=self._dice.uniform(0.0, 1000.0),
                rate=self._faults.rates[place],
                offset_s=self._faults.offsets[place],
            )
            self._build(clock)
        names = list(self._world.machines)
        for place, machine in enumerate(self._world.machines.values()):
            told = names[max(0, place - 1) : place] if self._faults.chained else names
            machine.seeds = frozenset(told) - {machine.id}
            self._world.after(self._dice.uniform(0.0, 0.5), partial(self._world.start, machine))
        self._count_clocks()
        if self._faults.mood is not Mood.HURT:
            NoFalseDeath(self._world)
        for at, kind in self._faults.blows:
            self._world.at(at, partial(self._strike, kind))
            if kind is Kind.DISK_STALE:
                self._world.at(self._dice.uniform(0.3, at), self._back_up)
        self._world.conditions = self._faults.conditions

    def _count_clocks(self) -> None:
        clocks = [machine.clock for machine in self._world.machines.values()]
        self._world.strikes[Struck.WRONG_CLOCK] += sum(clock.is_wrong for clock in clocks)
        self._world.strikes[Struck.DRIFT] += sum(rate != 1.0 for rate in self._faults.rates)

    def heal(self) -> None:
        """No more faults; every process that can come back does."""
        world = self._world
        world.conditions = ordinary()
        world.network.block(frozenset())
        self._put_clocks_right()
        self._undrain_all()
        world.after(SETTLED_S, self._undrain_all)  # a wish may have been on its way
        self._introduce(machine for machine in world.machines.values() if not machine.gone)
        for machine in world.machines.values():
            world.make_room(machine)
            if machine.life is not None:
                world.resume(machine.life)
            else:
                world.start_if_down(machine)

    def _introduce(self, machines: Iterable[Machine]) -> None:
        """Who was to find the others by one that moved, or left, before they had met is told of another."""
        there = list(machines)
        told = {machine.id for machine in there[:2]}  # the first of them is to know somebody too
        for machine in there:
            machine.seeds |= told - {machine.id}
        self._world.announce()

    def _counted(self) -> list[Machine]:
        """Whose clocks the members know of: the dead are remembered for longer than a run."""
        return [machine for machine in self._world.machines.values() if machine.gone != "left"]

    def _put_clocks_right(self) -> None:
        """While half of the clocks are wrong no last day comes, nor does that of a job all of whose holders
        have wrong ones: somebody has to mend them. Others may stay. Who is about to leave takes a clock away,
        and hands its jobs to the others."""
        machines = self._counted()
        right = {machine.id for machine in machines if not machine.clock.is_wrong}
        leaving = {life.id for life in self._world.lives() if life.leaving}
        there = {machine.id for machine in machines if not machine.gone} - leaving
        disks = self._world.disks.values()
        copies = [record_of(stored.row) for disk in disks for stored in disk.rows.values()]
        blind = any(copy and not right & there.intersection(copy.holders) for copy in copies)
        wrong = len(machines) - len(right)
        # Who has restarted since one of them was lost never heard its clock.
        known = [len(machines), len(there)]
        if (blind and wrong) or any(2 * wrong >= count > 1 for count in known):
            for machine in machines:
                machine.clock.jump(-machine.clock.offset_s)

    # ----------------------------------------------------------------------------------- blows

    def _strike(self, kind: Kind) -> None:
        if self._blow(kind):
            self._world.strikes[kind] += 1

    def _blow(self, kind: Kind) -> bool:
        """One blow; False if there is nothing it could strike."""
        lives = self._world.lives()
        if not lives and kind is not Kind.JOIN:
            return False
        match kind:
            case Kind.KILL_ONE | Kind.POWER_ONE if self._faults.mood is Mood.DEATH:
                life = self._dice.choice(lives)
                Succession(self._world, life, silent=kind is Kind.POWER_ONE)
                self._die(kind, life)
            case Kind.KILL_ONE | Kind.KILL_MINORITY | Kind.KILL_MAJORITY | Kind.KILL_ALL:
                self._kill(kind, lives)
            case Kind.POWER_ONE:
                self._power(self._dice.choice(lives))
            case Kind.POWER_ALL:
                for life in lives:
                    self._power(life)
            case Kind.PAUSE:
                self._world.pause(self._dice.choice(lives).machine, self._dice.uniform(*PAUSE_S))
            case Kind.STALL:
                self._world.pause(self._dice.choice(lives).machine, self._dice.uniform(*STALL_S))
            case Kind.SHORT_STALL:
                self._world.pause(self._dice.choice(lives).machine, self._dice.uniform(*SHORT_STALL_S))
            case Kind.CLOCK_AHEAD:
                self._dice.choice(lives).machine.clock.jump(self._dice.choice((30.0, 3600.0)))
            case Kind.CLOCK_BACK:
                self._dice.choice(lives).machine.clock.jump(self._dice.choice((-30.0, -3600.0)))
            case Kind.DISK_FULL:
                machine = self._dice.choice(lives).machine
                self._world.fill_disk(machine)
                self._world.after(self._dice.uniform(0.5, 6.0), lambda: self._world.make_room(machine))
            case Kind.STARVE:
                self._starve(self._dice.choice(lives), self._world.now + self._dice.uniform(*STARVE_S))
            case Kind.JOIN:
                self.join()
            case Kind.MOVE:
                self._move(self._dice.choice(lives))
            case Kind.CUT_HALVES | Kind.CUT_ONE | Kind.CUT_RING | Kind.CUT_ONE_WAY | Kind.CUT_PAIR:
                return self._cut(kind)
            case Kind.DISK_BITS:
                return self._flip_bits()
            case Kind.RESET:
                return self._reset(lives)
            case Kind.PIVOT:
                return self._pivot(lives)
            case Kind.LEAVE:
                return self._leave(lives)
            case Kind.DRAIN:
                return self._drain(lives)
            case Kind.WEIGHT:
                wish = Wish(Change.WEIGHT, self._dice.choice(WEIGHTS))
                self._world.regulate(self._dice.choice(lives), self._dice.choice(lives).id, wish)
            case Kind.WIPE | Kind.DISK_CUT | Kind.DISK_STALE | Kind.CLONE:
                return self._lose_disk(kind, lives)
        return True

    def _die(self, kind: Kind, life: Life) -> None:
        if kind is Kind.KILL_ONE:
            self._world.crash(life.machine, "is killed")
        else:
            self._power(life)

    def _kill(self, kind: Kind, lives: list[Life]) -> None:
        half = len(lives) // 2
        minority = self._dice.randint(1, max(1, (len(lives) - 1) // 2))
        counts = {Kind.KILL_ONE: 1, Kind.KILL_MINORITY: minority, Kind.KILL_MAJORITY: half + 1}
        for life in self._dice.sample(lives, min(len(lives), counts.get(kind, len(lives)))):
            self._world.crash(life.machine, "is killed")

    def _power(self, life: Life, survivors: int | None = None) -> None:
        self._world.end(life.machine, "loses power", silent=True, survivors=survivors)
        self._world.after(self._dice.uniform(0.3, 6.0), lambda: self._world.start_if_down(life.machine))

    def _reset(self, lives: list[Life]) -> bool:
        pairs = [(one.id, other.id) for one in lives for other in lives if one.id < other.id]
        return bool(pairs) and self._world.network.reset(*self._dice.choice(pairs))

    def _starve(self, life: Life, until: Seconds) -> None:
        """The process gets a slice of a processor now and then."""
        if life.alive and self._world.now < until:
            still_s = self._dice.uniform(*STARVE_STILL_S)
            self._world.pause(life.machine, still_s)
            runs_s = self._dice.uniform(*STARVE_RUN_S)
            if self._faults.mood is Mood.STALLS:
                runs_s = max(runs_s, still_s * TENTH)
            self._world.after(still_s + runs_s, lambda: self._starve(life, until))

    def _pivot(self, lives: list[Life]) -> bool:
        """A minority is away, paused or cut off; at the moment of its return one of the others loses power,
        with all that it had not synced: it alone may have known what it wrote with those who were there."""
        if len(lives) < 3:
            return False
        away = self._dice.sample(lives, self._dice.randint(1, (len(lives) - 1) // 2))
        pivot = self._dice.choice([life for life in lives if life not in away])
        away_s = self._dice.uniform(*PIVOT_S)
        if self._dice.random() < 0.5:
            for life in away:
                self._world.pause(life.machine, away_s)
        else:
            side = {life.place for life in away}
            others = {machine.place for machine in self._there()} - side
            self._block(both_ways(side, others), away_s)

        def fail() -> None:
            if pivot.alive:
                self._power(pivot, survivors=0)

        self._world.after(away_s, fail)
        return True

    # ------------------------------------------------------------------------- who comes and goes

    def _there(self) -> list[Machine]:
        return [machine for machine in self._world.machines.values() if not machine.gone]

    def join(self) -> None:
        """A machine that never was there is started, and knows the others."""
        machine = self._build(MachineClock(origin=self._dice.uniform(0.0, 1000.0)))
        machine.seeds = frozenset(other.id for other in self._there()) - {machine.id}
        self._world.start(machine)

    def _leave(self, lives: list[Life]) -> bool:
        staying = [life for life in lives if not life.leaving]
        if len(staying) < 2:
            return False
        leaver = self._dice.choice(staying).machine
        self._world.leave(leaver)
        if self._faults.mood is not Mood.HURT:
            machines = self._world.machines.values()
            self._introduce(machine for machine in machines if not machine.gone and machine is not leaver)
        return True

    def _drain(self, lives: list[Life]) -> bool:
        """Somebody drains a node, through any node, and undrains it later, through any that lives then."""
        staying = [life for life in lives if not life.leaving]
        if not staying:
            return False
        life = self._dice.choice(staying)
        limit_s = self._dice.choice(DRAIN_S)
        self._world.drain(self._dice.choice(lives), life, limit_s)
        self._drained.append(life)
        self._world.after(self._dice.uniform(*DRAINED_S), lambda: self._undrain(life))
        return True

    def _undrain(self, life: Life) -> None:
        """Through any node that lives."""
        if life.alive and (lives := self._world.lives()):
            self._world.regulate(self._dice.choice(lives), life.id, Wish(Change.UNDRAIN))

    def _undrain_all(self) -> None:
        """By somebody at each node itself: that is not lost on its way. Also where it has another life since
        then: a wish that was repeated may have come to that one."""
        for machine in {life.machine.id: life.machine for life in self._drained}.values():
            life = machine.life
            if life is not None and life.alive:
                self._world.regulate(life, life.id, Wish(Change.UNDRAIN))

    def _move(self, life: Life) -> None:
        """It is carried to another place, and comes back under another address."""
        machine = life.machine
        self._power(life)
        machine.host = f"{first_host(machine.id)}, moved at {self._world.now:.3f}"

    # --------------------------------------------------------------------------------------- disks

    def _back_up(self) -> None:
        """Keep what is on every disk now."""
        machines = (machine for machine in self._there() if machine.disk.lives)
        self._backups = {machine.place: machine.disk.copy() for machine in machines}

    def _flip_bits(self) -> bool:
        """Some rows and claims of one disk are not what was written. A person, or the day's check, reads all
        of it some time later; if nobody has met them before."""
        machines = [machine for machine in self._there() if machine.disk.rows or machine.disk.claim_rows]
        if not machines:
            return False
        machine = self._dice.choice(machines)
        share = self._dice.choice((0.1, 0.5, 1.0))
        rows = [job for job in sorted(machine.disk.rows) if self._dice.random() < share]
        claims = [job for job in sorted(machine.disk.claim_rows) if self._dice.random() < share]
        if not rows and not claims:
            return False
        self.wiped = True
        self._world.flip_bits(machine, rows, claims)
        self._world.after(self._dice.uniform(0.0, 5.0), machine.disk.check)
        return True

    def _lose_disk(self, kind: Kind, lives: list[Life]) -> bool:
        """A disk is lost, or not what it was; or two have one identity."""
        staying = [life for life in lives if not life.leaving]
        if kind is Kind.DISK_STALE:
            staying = [life for life in staying if life.place in self._backups]
        if len(staying) < 3:
            return False
        machine = self._dice.choice(staying).machine
        self.wiped = True
        if kind is Kind.CLONE:
            self._clone(machine)
            return True
        self._world.end(machine, "is killed", silent=False)
        later_s = self._dice.uniform(0.1, 3.0)
        if kind is Kind.DISK_STALE:
            self._world.put_back(machine, self._backups[machine.place])
            self._world.befell(machine, "gets an old state of its disk")
            self._world.after(later_s, lambda: self._world.start_if_down(machine))
        else:
            lost = machine.disk
            self._world.remove(machine, "wiped" if kind is Kind.WIPE else "damaged")
            self._world.after(later_s, self.join if kind is Kind.WIPE else lambda: self._salvage(lost))
        return True

    def _salvage(self, lost: Disk) -> None:
        """A new member, with those copies of a lost disk that could still be read."""
        machine = self._build(MachineClock(origin=self._dice.uniform(0.0, 1000.0)))
        share = self._dice.random()
        machine.disk.salvage(lost, [job for job in sorted(lost.rows) if self._dice.random() < share])
        machine.seeds = frozenset(other.id for other in self._there()) - {machine.id}
        self._world.start(machine)

    def _clone(self, machine: Machine) -> None:
        """A second machine is started with a copy of this one's disk, beside it or instead of it."""
        if self._dice.random() < 0.5:
            self._world.crash(machine, "is killed, and its disk copied")
        copy = self._world.copy(machine, self._next_name(), chance=1 + self._dice.getrandbits(16))
        self._world.after(self._dice.uniform(0.0, 3.0), lambda: self._world.start_if_down(copy))

    # ------------------------------------------------------------------------------------ cuts

    def _cut(self, kind: Kind) -> bool:
        nodes = [machine.place for machine in self._there()]
        if len(nodes) < 2:
            return False
        self._block(cut_ways(kind, nodes, self._dice), self._dice.uniform(0.5, 9.0))
        return True

    def _block(self, ways: frozenset[tuple[NodeId, NodeId]], for_s: Seconds) -> None:
        network = self._world.network
        network.block(ways)
        self._world.befell_all(f"for {for_s:.2f} s nothing passes: {cut_text(ways)}")
        self._world.after(for_s, lambda: network.unblock(ways))

    def _build(self, clock: MachineClock) -> Machine:
        slots = SLOTS_ENOUGH if self._faults.mood is Mood.DEATH else self._dice.randint(1, 4)
        machine = self._world.add(self._next_name(), slots=slots, clock=clock)
        machine.ahead = self._world.ahead.most(machine)
        return machine

    def _next_name(self) -> str:
        self._born += 1
        rounds, letter = divmod(self._born - 1, len(LETTERS))
        return LETTERS[letter] + (str(rounds) if rounds else "")


def both_ways(side: Iterable[NodeId], others: Collection[NodeId]) -> frozenset[tuple[NodeId, NodeId]]:
    """All ways between two sides."""
    out = {(one, other) for one in side for other in others}
    return frozenset(out | {(other, one) for one, other in out})


def cut_text(ways: frozenset[tuple[NodeId, NodeId]]) -> str:
    """Who can't hear whom: "a,b | c" both ways, "a > c" if c does not hear a."""
    both = {way for way in ways if way[::-1] in ways}
    sides = _sides(both)
    named = [f"{one} | {other}" for one, other in sides.items() if sides.get(other) == one and one < other]
    if len(named) * 2 != len(sides):  # no two sides: each pair once
        named = [
            f"{one} | {others}" for one, others in _sides({way for way in both if way[0] < way[1]}).items()
        ]
    return "; ".join(named + [f"{one} > {others}" for one, others in _sides(ways - both).items()])


def _sides(ways: Collection[tuple[NodeId, NodeId]]) -> dict[str, str]:
    """Those who can't be heard by the same others, and these."""
    deaf: dict[str, list[str]] = {}
    for source, target in sorted(ways):
        deaf.setdefault(short(source), []).append(short(target))
    sides: dict[str, list[str]] = {}
    for name, others in deaf.items():
        sides.setdefault(",".join(others), []).append(name)
    return {",".join(names): others for others, names in sides.items()}


def cut_ways(kind: Kind, nodes: list[NodeId], dice: Random) -> frozenset[tuple[NodeId, NodeId]]:
    """The ways that such a cut closes between these nodes."""
    mixed = dice.sample(nodes, len(nodes))
    if kind is Kind.CUT_RING and len(nodes) >= 3:
        # Each hears its neighbours only; with three nodes, a line: two of them can't hear each other.
        first = 0 if len(mixed) > 3 else 1
        near = {(mixed[place - 1], mixed[place]) for place in range(first, len(mixed))}
        near |= {(other, one) for one, other in near}
        return frozenset((one, other) for one in nodes for other in nodes if one != other) - near
    if kind is Kind.CUT_PAIR:
        return both_ways(mixed[:1], mixed[1:2])
    side = set(mixed[: 1 if kind is not Kind.CUT_HALVES else len(mixed) // 2])
    out = {(one, other) for one in side for other in nodes if other not in side}
    if kind is Kind.CUT_ONE_WAY:
        some = {way for way in sorted(out) if dice.random() < 0.7} or out
        return frozenset(some if dice.random() < 0.5 else {(other, one) for one, other in some})
    return frozenset(out | {(other, one) for one, other in out})
