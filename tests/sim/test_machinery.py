"""The simulated disk, pipeline, network and clock behave as the real ones do."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from sim_records import A, B, C, D, a_record, a_spec, row_of, stored_row

from edgenode.core.job_bytes import encode
from edgenode.core.jobs import decided, settled, started
from edgenode.core.signals import (
    Address,
    Effect,
    Event,
    LinkDown,
    LinkUp,
    Log,
    MessageArrived,
    Peers,
    Persist,
    Row,
    Send,
    StoredRow,
    TimePassed,
)
from edgenode.core.situations import Situation
from edgenode.core.types import (
    FOREVER,
    Ballot,
    Instant,
    JobId,
    Load,
    NodeId,
    Promise,
    Room,
    State,
    Word,
    next_boot,
)
from edgenode.core.wire import Query, Sync, WantWork
from edgenode.sim.clock import EPOCH, MachineClock
from edgenode.sim.disk import Disk, promise_of, record_of
from edgenode.sim.faults import HARMLESS, ONCE, Faults, Kind, Mood
from edgenode.sim.machines import Life, node_id
from edgenode.sim.pipeline import Pipeline
from edgenode.sim.violation import Violation
from edgenode.sim.weather import cut_ways
from edgenode.sim.world import World

WORK = WantWork(Room(1))
FIRST = next_boot(0, 0)


class Silent:
    """A core that does nothing but remember what it heard, and say what it is told to."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.heard: list[Event] = []
        self.says: list[Effect] = []
        self.due: Instant = FOREVER
        self.reached: set[Situation] = set()

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        self.heard.append(event)
        says, self.says = self.says, []
        return says

    has_vote = True

    def remembers(self, node: NodeId) -> tuple[Word, ...]:
        return ()

    def deadline(self) -> Instant:
        return self.due


def world_of(names: str) -> tuple[World, dict[str, Life]]:
    """Machines that all know each other's addresses, running silent cores."""
    world = World("machinery", Silent)
    for name in names:
        world.add(name)
    for machine in world.machines.values():
        machine.seeds = frozenset(world.machines) - {machine.id}
        world.start(machine)
    world.run_until(1.0)
    return world, {name: lives(world, name) for name in names}


def lives(world: World, name: str) -> Life:
    life = world.machines[node_id(name)].life
    assert life is not None
    return life


def heard(life: Life, kind: type[Event]) -> list[Event]:
    assert isinstance(life.core, Silent)
    return [event for event in life.core.heard if isinstance(event, kind)]


def say(world: World, life: Life, *effects: Effect) -> None:
    assert isinstance(life.core, Silent)
    life.core.says = list(effects)
    world.handle(life, TimePassed())


# ------------------------------------------------------------------------------------------- the disk


def test_a_disk_shows_what_was_written_in_id_order() -> None:
    disk = Disk()
    specs = sorted((a_spec(number) for number in (5, 1, 3)), key=lambda spec: spec.id)
    for spec in reversed(specs):
        disk.write([stored_row(a_record(spec))])
    assert [row.id for row in disk.scan(JobId(b""), 2)] == [spec.id for spec in specs[:2]]
    assert [row.id for row in disk.scan(specs[1].id, 9)] == [specs[2].id]
    assert set(disk.get([specs[0].id, JobId(bytes(16))])) == {specs[0].id}


def test_a_new_life_is_told_of_unsettled_rows_and_of_promises_that_stand_alone() -> None:
    disk = Disk()
    done = started(a_record(a_spec(1)), runner=A, boot=1, at=1.0)
    done = settled(decided(done, State.FAILED, firm=True, at=1.0))
    alone = Row(a_spec(2).id, b"", Promise(0, Ballot(3, B)))
    disk.write([stored_row(done), StoredRow(alone, A, False, "", "", ""), stored_row(a_record(a_spec(3)))])
    assert [row.id for row in disk.unsettled()] == [alone.id, a_spec(3).id]
    assert record_of(alone) is None
    assert promise_of(alone) == Promise(0, Ballot(3, B))
    assert promise_of(row_of(done)) == Promise(0, Ballot(1, A))
    assert promise_of(None) is None


def test_a_search_gives_the_newest_matches_and_says_whether_that_is_all() -> None:
    disk = Disk()
    specs = sorted((a_spec(number) for number in range(4)), key=lambda spec: spec.id)
    disk.write([stored_row(a_record(spec)) for spec in specs])
    found = disk.search(7, Query("", "sim", "", b"", 3))
    assert (found.ticket, found.complete) == (7, False)
    assert found.records[0] == encode(a_record(specs[3]))
    rest = disk.search(7, Query("", "sim", "", specs[1].id, 3))
    assert (len(rest.records), rest.complete) == (1, True)
    assert disk.search(7, Query("failed", "", "", b"", 3)).records == ()


# --------------------------------------------------------------------------------------- the pipeline


class Pipes:
    """A pipeline whose syncs end when the test says so."""

    def __init__(self) -> None:
        self.syncs: list[Callable[[], None]] = []
        self.stored: list[int] = []
        self.told: list[int] = []
        self.left: list[Effect] = []
        self.lost: list[Effect] = []
        self.dies_before: str = ""
        self.pipeline = Pipeline(
            self.syncs.append,
            lambda persist: self.stored.append(persist.number),
            lambda persist: self.told.append(persist.number),
            self._out,
            self.lost.append,
        )

    def push(self, *effects: Effect) -> None:
        for effect in effects:
            self.pipeline.push(effect)

    def synced(self) -> None:
        self.syncs.pop(0)()

    def _out(self, effect: Effect) -> bool:
        if isinstance(effect, Log) and effect.kind == self.dies_before:
            self.pipeline.crash(0)
            return False
        self.left.append(effect)
        return True


def test_nothing_leaves_behind_a_write_that_is_not_durable_but_what_is_urgent() -> None:
    pipes = Pipes()
    before, behind, urgent = Log("before", ""), Send(B, WORK), Send(B, WORK, urgent=True)
    pipes.push(before, Persist((), 1), behind, urgent)
    assert pipes.left == [before, urgent]
    pipes.synced()
    assert pipes.left == [before, urgent, behind]
    assert pipes.stored == pipes.told == [1]


def test_behind_a_write_that_is_refused_only_what_is_urgent_leaves_until_the_core_knows() -> None:
    pipes = Pipes()
    said, pinged = Log("said", ""), Send(B, WORK, urgent=True)
    pipes.push(Persist((), 1), said)
    pipes.pipeline.refuse()
    pipes.push(Persist((), 2), said, pinged)
    assert (pipes.left, pipes.stored) == ([pinged], [])
    assert len(pipes.lost) == 4
    pipes.pipeline.refused = False
    pipes.push(said)
    assert pipes.left == [pinged, said]


def test_writes_that_wait_for_a_sync_share_the_next_one() -> None:
    pipes = Pipes()
    first, second, third = (Log(name, "") for name in ("first", "second", "third"))
    pipes.push(Persist((), 1), first, Persist((), 2), second, Persist((), 3), third)
    pipes.synced()
    assert (pipes.stored, pipes.left) == ([1], [first])
    pipes.synced()
    assert (pipes.stored, pipes.left) == ([1, 2, 3], [first, second, third])
    assert pipes.told == [1, 3]
    assert not pipes.syncs


@pytest.mark.parametrize("survivors", [0, 1, 2, 5])
def test_of_what_was_not_synced_a_crash_leaves_a_prefix(survivors: int) -> None:
    pipes = Pipes()
    pipes.push(Persist((), 1), Log("lost", ""), Persist((), 2))
    assert pipes.pipeline.unsynced == 2
    pipes.pipeline.crash(survivors)
    assert pipes.stored == [1, 2][:survivors]
    pipes.synced()
    pipes.push(Log("after", ""))
    assert pipes.left == []


def test_a_crash_between_two_effects_drops_the_second() -> None:
    pipes = Pipes()
    pipes.dies_before = "second"
    pipes.push(Persist((), 1), Log("first", ""), Log("second", ""), Log("third", ""))
    pipes.synced()
    assert pipes.left == [Log("first", "")]


# ---------------------------------------------------------------------------------------- the network


def test_processes_that_know_an_address_are_linked_and_can_talk() -> None:
    world, life = world_of("ab")
    assert [event.peer for event in heard(life["a"], LinkUp)] == [B]  # type: ignore[union-attr]
    assert len([event for event in heard(life["a"], LinkUp) + heard(life["b"], LinkUp) if event.address]) == 1  # type: ignore[union-attr]
    say(world, life["a"], Send(B, WORK))
    world.run_until(2.0)
    assert heard(life["b"], MessageArrived) == [MessageArrived(A, WORK, FIRST)]


def test_messages_of_one_link_keep_their_order_unless_reordering_is_a_fault() -> None:
    world, life = world_of("ab")
    messages = [WantWork(Room(number)) for number in range(50)]
    say(world, life["a"], *(Send(B, message) for message in messages))
    world.run_until(2.0)
    assert [event.message for event in heard(life["b"], MessageArrived)] == messages  # type: ignore[union-attr]
    world.conditions.reorder = True
    say(world, life["b"], *(Send(A, message) for message in messages))
    world.run_until(3.0)
    came = [event.message for event in heard(life["a"], MessageArrived)]  # type: ignore[union-attr]
    assert came != messages
    assert sorted(map(repr, came)) == sorted(map(repr, messages))


def test_a_killed_process_refuses_and_a_machine_without_power_is_silent() -> None:
    world, life = world_of("abc")
    world.end(world.machines[B], "is killed", silent=False)
    world.end(world.machines[C], "loses power", silent=True)
    world.run_until(1.5)
    assert heard(life["a"], LinkDown) == [LinkDown(B, FIRST, True)]
    world.run_until(12.0)
    assert heard(life["a"], LinkDown) == [LinkDown(B, FIRST, True), LinkDown(C, FIRST, False)]


def test_a_reborn_process_is_met_under_its_new_boot() -> None:
    world, life = world_of("ab")
    world.end(world.machines[B], "loses power", silent=True)
    world.run_until(1.2)
    world.start(world.machines[B])
    world.run_until(2.0)
    assert heard(life["a"], LinkDown) == [LinkDown(B, FIRST, False)]
    boots = [event.boot for event in heard(life["a"], LinkUp)]  # type: ignore[union-attr]
    assert boots == [FIRST, next_boot(FIRST, 0)]


def test_nothing_passes_a_cut_and_links_give_up_in_time_and_come_back() -> None:
    world, life = world_of("ab")
    world.network.block(frozenset({(A, B)}))
    say(world, life["a"], Send(B, WORK))
    say(world, life["b"], Send(A, WORK))
    world.run_until(2.0)
    assert not heard(life["b"], MessageArrived)
    assert heard(life["a"], MessageArrived), "the other way is open"
    assert world.strikes["message cut off"] == 1
    world.run_until(12.0)
    assert heard(life["a"], LinkDown) == [LinkDown(B, FIRST, False)]
    world.network.block(frozenset())
    world.run_until(14.0)
    assert world.network.linked(A, B)
    assert len(heard(life["b"], LinkUp)) == 2


def test_what_is_in_flight_on_a_link_that_is_reset_is_lost() -> None:
    world, life = world_of("ab")
    say(world, life["a"], Send(B, WORK))
    assert world.network.reset(A, B)
    world.run_until(3.0)
    assert not heard(life["b"], MessageArrived)
    assert heard(life["a"], LinkDown) == [LinkDown(B, FIRST, False)]
    assert world.network.linked(A, B)


def test_a_middlebox_may_lie_about_a_living_process() -> None:
    world, life = world_of("ab")
    world.conditions.lies = 1.0
    assert world.network.reset(A, B)
    world.run_until(2.0)
    assert heard(life["a"], LinkDown) == [LinkDown(B, FIRST, True)]
    assert world.strikes["a living port refused"] >= 1


def test_messages_are_lost_doubled_and_late_as_the_conditions_say() -> None:
    world, life = world_of("ab")
    world.conditions.loss = 1.0
    say(world, life["a"], Send(B, WORK))
    world.conditions.loss, world.conditions.duplicate = 0.0, 1.0
    say(world, life["a"], Send(B, WORK))
    world.run_until(2.0)
    assert len(heard(life["b"], MessageArrived)) == 2
    assert (world.strikes["message lost"], world.strikes["message doubled"]) == (1, 1)


def test_an_address_taken_off_the_book_is_not_called_any_more() -> None:
    world, life = world_of("ab")
    say(world, life["a"], Peers((Address(B, 1, (), False),)))
    say(world, life["b"], Peers((Address(A, 1, (), False),)))
    world.run_until(5.0)
    assert not world.network.linked(A, B)


# --------------------------------------------------------------------------------- machines and clocks


def test_a_machines_clocks_drift_and_jump() -> None:
    clock = MachineClock(origin=100.0, rate=1.5, offset_s=3600.0)
    assert clock.monotonic(10.0) == 115.0
    assert clock.when(115.0) == 10.0
    clock.jump(-3600.0)
    assert clock.wall(10.0) == EPOCH + 10.0


def test_a_process_is_misled_while_half_of_the_clocks_that_it_may_know_have_been_wrong() -> None:
    world, life = world_of("abcd")
    for one in life.values():
        say(
            world,
            one,
            *(Send(other.id, Sync(True, Load(), ())) for other in life.values() if other is not one),
        )
    world.run_until(0.9)
    misled = world.ledger.misled
    assert not misled(A)
    world.machines[A].clock.jump(30.0)
    world.machines[A].clock.jump(-30.0)
    assert misled(A), "it has just begun: it may have heard its own clock and one more"
    world.run_until(2.0)
    assert not misled(A)
    world.machines[B].clock.jump(30.0)
    assert misled(A)
    assert misled(C)
    world.add("e").clock.jump(30.0)  # nobody has met it
    world.machines[B].clock.was_wrong = False
    assert not misled(C)
    world.end(world.machines[D], "has left", silent=False)
    world.remove(world.machines[D], "left")
    world.machines[B].clock.keep(EPOCH + world.now + 30.0, world.now)
    assert misled(C)


def test_a_process_that_stands_still_hears_everything_afterwards() -> None:
    world, life = world_of("ab")
    world.pause(world.machines[B], 5.0)
    say(world, life["a"], Send(B, WORK))
    world.run_until(5.9)
    assert not heard(life["b"], MessageArrived)
    world.run_until(6.5)
    assert heard(life["b"], MessageArrived) == [MessageArrived(A, WORK, FIRST)]


def test_a_core_whose_deadline_never_moves_is_found_out() -> None:
    world, life = world_of("a")
    core = life["a"].core
    assert isinstance(core, Silent)
    core.due = 0.0
    with pytest.raises(Violation, match="spin"):
        world.run_until(2.0)


def test_unsynced_writes_die_with_their_process_and_synced_ones_live_on() -> None:
    world, life = world_of("a")
    first, second = a_spec(1), a_spec(2)
    world.ledger.submitted((first, second))
    say(world, life["a"], Persist((stored_row(a_record(first)),), 1))
    world.run_until(2.0)
    say(world, life["a"], Persist((stored_row(a_record(second)),), 2))
    world.end(world.machines[A], "is killed", silent=False, survivors=0)
    assert set(world.disks[A].rows) == {first.id}


# ------------------------------------------------------------------------------------------- the faults


def test_the_same_seed_draws_the_same_faults_and_another_one_others() -> None:
    def drawn(seed: int) -> Faults:
        return Faults.draw(Random(f"{seed} faults"), hurt_s=10.0)

    assert drawn(1) == drawn(1)
    assert len({repr(drawn(seed)) for seed in range(50)}) > 40


def test_every_kind_of_fault_and_every_mood_comes_up_and_stays_within_its_bounds() -> None:
    every = [Faults.draw(Random(f"{seed} faults"), hurt_s=10.0) for seed in range(500)]
    assert {blow.kind for faults in every for blow in faults.blows} == set(Kind)
    assert {faults.mood for faults in every} == set(Mood)
    for faults in every:
        kinds = [blow.kind for blow in faults.blows]
        assert all(kinds.count(kind) <= 1 for kind in ONCE)
        assert all(0.0 < blow.at <= 10.0 for blow in faults.blows)
        assert sum(abs(offset) > 1.0 for offset in faults.offsets) * 2 < max(2, faults.nodes)
        if faults.mood is Mood.CHURN:
            assert set(kinds) <= set(HARMLESS)
        assert (faults.mood is Mood.HURT) or not faults.poison
        assert (faults.mood is Mood.CALM) == (not faults.blows)


def test_a_cut_separates_what_its_name_says() -> None:
    nodes = [node_id(name) for name in "abcde"]
    halves = cut_ways(Kind.CUT_HALVES, nodes, Random(1))
    assert len(halves) == 2 * 2 * 3
    assert {(other, one) for one, other in halves} == halves
    assert len(cut_ways(Kind.CUT_ONE, nodes, Random(1))) == 2 * 4
    ring = cut_ways(Kind.CUT_RING, nodes, Random(1))
    assert len(ring) == 5 * 4 - 5 * 2, "each hears two neighbours"
    one_way = cut_ways(Kind.CUT_ONE_WAY, nodes, Random(1))
    assert one_way
    assert not {(other, one) for one, other in one_way} & one_way
