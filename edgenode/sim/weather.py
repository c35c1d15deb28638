"""Strikes a world with the faults drawn for it, and heals it."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Final

from edgenode.core.types import NodeId
from edgenode.sim.clock import MachineClock
from edgenode.sim.conditions import Conditions
from edgenode.sim.disk import record_of
from edgenode.sim.faults import PAUSE_S, STALL_S, Faults, Kind
from edgenode.sim.world import Life, Machine, World

LETTERS: Final = "abcdefghijklmnopqrstuvwxy"


class Weather:
    """Builds the machines of a run, hurts them, heals them."""

    def __init__(self, world: World, faults: Faults) -> None:
        self._world = world
        self._faults = faults
        self._dice = world.random("weather")
        self._born = 0
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
        for at, kind in self._faults.blows:
            self._world.at(at, partial(self._strike, kind))
        self._world.conditions = self._faults.conditions

    def heal(self) -> None:
        """No more faults; every process that can come back does."""
        world = self._world
        world.conditions = Conditions()
        world.network.block(frozenset())
        self._put_clocks_right()
        for machine in world.machines.values():
            world.make_room(machine)
            if machine.life is not None:
                world.resume(machine.life)
            else:
                world.start_if_down(machine)

    def _counted(self) -> list[Machine]:
        """Whose clocks the members know of: the dead are remembered for longer than a run."""
        return [machine for machine in self._world.machines.values() if machine.gone != "left"]

    def _put_clocks_right(self) -> None:
        """While half of the clocks are wrong no last day comes, nor does that of a job all of whose holders
        have wrong ones: somebody has to mend them. Others may stay."""
        machines = self._counted()
        is_wrong = {machine.id: machine.clock.is_wrong for machine in machines}
        copies = [
            record_of(stored.row) for disk in self._world.disks.values() for stored in disk.rows.values()
        ]
        blind = any(copy and all(is_wrong.get(holder, True) for holder in copy.holders) for copy in copies)
        wrong = sum(is_wrong.values())
        if (blind and wrong) or 2 * wrong >= len(machines) > 1:
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
            case Kind.CLOCK_JUMP:
                self._dice.choice(lives).machine.clock.jump(self._dice.choice((-3600.0, -30.0, 30.0, 3600.0)))
            case Kind.DISK_FULL:
                machine = self._dice.choice(lives).machine
                self._world.fill_disk(machine)
                self._world.after(self._dice.uniform(0.5, 6.0), lambda: self._world.make_room(machine))
            case Kind.RESET:
                return self._reset(lives)
            case Kind.JOIN:
                self._join()
            case Kind.LEAVE | Kind.WIPE:
                return self._remove(kind, lives)
            case _:
                return self._cut(kind)
        return True

    def _kill(self, kind: Kind, lives: list[Life]) -> None:
        half = len(lives) // 2
        minority = self._dice.randint(1, max(1, (len(lives) - 1) // 2))
        counts = {Kind.KILL_ONE: 1, Kind.KILL_MINORITY: minority, Kind.KILL_MAJORITY: half + 1}
        for life in self._dice.sample(lives, min(len(lives), counts.get(kind, len(lives)))):
            self._world.crash(life.machine, "is killed")

    def _power(self, life: Life) -> None:
        self._world.end(life.machine, "loses power", silent=True)
        self._world.after(self._dice.uniform(0.3, 6.0), lambda: self._world.start_if_down(life.machine))

    def _reset(self, lives: list[Life]) -> bool:
        pairs = [(one.id, other.id) for one in lives for other in lives if one.id < other.id]
        return bool(pairs) and self._world.network.reset(*self._dice.choice(pairs))

    def _join(self) -> None:
        machine = self._build(MachineClock(origin=self._dice.uniform(0.0, 1000.0)))
        others = (other for other in self._world.machines.values() if not other.gone)
        machine.seeds = frozenset(other.id for other in others) - {machine.id}
        self._world.start(machine)

    def _remove(self, kind: Kind, lives: list[Life]) -> bool:
        """Somebody leaves in order, or loses its disk and comes back as somebody else."""
        staying = [life for life in lives if not life.leaving]
        if len(staying) < 3:
            return False
        machine = self._dice.choice(staying).machine
        if kind is Kind.LEAVE:
            self._world.leave(machine)
            return True
        self._world.end(machine, "is killed", silent=False)
        self._world.remove(machine, "wiped")
        self.wiped = True
        self._world.after(self._dice.uniform(0.1, 3.0), self._join)
        return True

    # ------------------------------------------------------------------------------------ cuts

    def _cut(self, kind: Kind) -> bool:
        nodes = [machine.id for machine in self._world.machines.values() if not machine.gone]
        if len(nodes) < 2:
            return False
        ways = cut_ways(kind, nodes, self._dice)
        network = self._world.network
        network.block(ways)
        self._world.after(self._dice.uniform(0.5, 9.0), lambda: network.unblock(ways))
        return True

    def _build(self, clock: MachineClock) -> Machine:
        name = LETTERS[self._born]
        self._born += 1
        return self._world.add(name, slots=self._dice.randint(1, 4), clock=clock)


def cut_ways(kind: Kind, nodes: list[NodeId], dice: Random) -> frozenset[tuple[NodeId, NodeId]]:
    """The ways that such a cut closes between these nodes."""
    mixed = dice.sample(nodes, len(nodes))
    if kind is Kind.CUT_RING and len(nodes) >= 3:
        # Each hears its neighbours only; with three nodes, a line: two of them can't hear each other.
        first = 0 if len(mixed) > 3 else 1
        near = {(mixed[place - 1], mixed[place]) for place in range(first, len(mixed))}
        near |= {(other, one) for one, other in near}
        return frozenset((one, other) for one in nodes for other in nodes if one != other) - near
    side = set(mixed[: 1 if kind is not Kind.CUT_HALVES else len(mixed) // 2])
    out = {(one, other) for one in side for other in nodes if other not in side}
    if kind is Kind.CUT_ONE_WAY:
        some = {way for way in sorted(out) if dice.random() < 0.7} or out
        return frozenset(some if dice.random() < 0.5 else {(other, one) for one, other in some})
    return frozenset(out | {(other, one) for one, other in out})
