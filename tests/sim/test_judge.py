"""After the healing: the judge finds what is missing, what differs, and what was miscounted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sim_loner import Loner
from sim_records import A, B, C, a_record, a_spec, stored_row

from edgenode.core.job_ids import keyed_job_id
from edgenode.core.jobs import Record, decided, settled
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.signals import ClaimRow, Effect, Event, LeaveAsked, Left, Receipt, SubmitAsked
from edgenode.core.specs import Options, Spec
from edgenode.core.types import Ballot, Delivery, Instant, KeyUse, NodeId, Partition, State
from edgenode.sim.clock import EPOCH
from edgenode.sim.faults import Mood
from edgenode.sim.judge import Judge
from edgenode.sim.ledger import Start
from edgenode.sim.machines import Core, node_id
from edgenode.sim.requests import Answer
from edgenode.sim.violation import Violation
from edgenode.sim.workers import STOPPED
from edgenode.sim.world import World


def mesh(names: str = "ab", core: type[Core] = Loner) -> World:
    world = World("judge", core, settings=Settings(jobs=JobSettings(replicas=1)))
    for name in names:
        world.add(name)
    for machine in world.machines.values():
        machine.seeds = frozenset(world.machines) - {machine.id}
        world.start(machine)
    world.run_until(1.0)
    return world


def submit(world: World, at: str, spec: Spec) -> None:
    world.ledger.submitted((spec,))
    answers: list[Answer] = []
    life = world.machines[node_id(at)].life
    assert life is not None
    world.ask(life, lambda request: SubmitAsked(request, (spec,), 5.0), answers.append)
    assert world.run_until(world.now + 1.0, lambda: bool(answers))


def judge(world: World, mood: Mood = Mood.HURT, *, wiped: bool = False, bound_s: float = 20.0) -> None:
    Judge(world, mood, wiped=wiped).demand(bound_s)


def test_a_mesh_that_kept_its_promises_passes() -> None:
    world = mesh()
    submit(world, "a", a_spec(1))
    judge(world, Mood.CALM)
    assert world.now < 10.0


def test_an_acknowledged_job_that_is_nowhere_is_missed() -> None:
    world = mesh()
    submit(world, "a", a_spec(1))
    world.run_until(world.now + 3.0)
    world.disks[A].rows.clear()
    with pytest.raises(Violation, match=r"I3.*NOWHERE"):
        judge(world)


def test_a_job_whose_every_disk_was_wiped_is_not_missed() -> None:
    world = mesh()
    submit(world, "a", a_spec(1))
    world.end(world.machines[A], "is killed", silent=False)
    world.remove(world.machines[A], "wiped")
    judge(world, wiped=True)


def test_a_job_whose_only_disk_left_the_mesh_is_missed() -> None:
    """Who leaves in order hands over what it has."""
    world = mesh()
    submit(world, "a", a_spec(1))
    world.end(world.machines[A], "has left", silent=False)
    world.remove(world.machines[A], "left")
    with pytest.raises(Violation, match="I3"):
        judge(world)


CAREFUL = [Options(delivery=Delivery.AT_MOST_ONCE), Options(partition=Partition.WAIT)]


@pytest.mark.parametrize("options", CAREFUL)
def test_a_careful_job_may_wait_for_a_majority_that_never_comes(options: Options) -> None:
    world = mesh("abc")
    spec = a_spec(1, options)
    world.ledger.submitted((spec,))
    record = a_record(spec)
    world.disks[A].write([stored_row(record)])
    world.ledger.receipts((Receipt(spec.id, (A,), None),))
    for node in (B, C):
        world.end(world.machines[node], "is killed", silent=False)
        world.remove(world.machines[node], "wiped")
    judge(world, wiped=True)


class Forgetful(Loner):
    """Never tells the end of what it ran itself to others."""

    def _see(self, reading: object, records: list[Record]) -> None:
        theirs = [record for record in records if record.owner == self.me]
        super()._see(reading, theirs)  # type: ignore[arg-type]


def test_a_node_that_does_not_show_the_end_is_found() -> None:
    world = mesh(core=Forgetful)
    submit(world, "a", a_spec(1))
    with pytest.raises(Violation, match="I4: after 20 s not all show the end"):
        judge(world)


def test_a_start_that_is_not_counted_is_found() -> None:
    world = mesh()
    submit(world, "a", a_spec(1))
    judge(world)
    stored = world.disks[A].rows[a_spec(1).id]
    record = world.disks[A].record(a_spec(1).id)
    assert record is not None
    world.disks[A].rows[a_spec(1).id] = stored._replace(row=stored_row(record._replace(starts=())).row)
    with pytest.raises(Violation, match=r"P3: start 1a\.1"):
        judge(world)


def test_without_faults_a_start_too_many_in_the_record_is_found() -> None:
    world = mesh()
    submit(world, "a", a_spec(1))
    judge(world, Mood.CALM)
    stored = world.disks[A].rows[a_spec(1).id]
    record = world.disks[A].record(a_spec(1).id)
    assert record is not None
    more = record._replace(starts=((record.ballot, 2),))
    world.disks[A].rows[a_spec(1).id] = stored._replace(row=stored_row(more).row)
    with pytest.raises(Violation, match="I6"):
        judge(world, Mood.CALM)


def test_without_faults_a_second_start_is_found() -> None:
    world = mesh()
    submit(world, "a", a_spec(1))
    judge(world, Mood.CALM)
    starts = world.ledger.starts[a_spec(1).id]
    (first,) = starts
    starts[first._replace(start=2)] = starts[first]
    with pytest.raises(Violation, match="I6: without faults"):
        judge(world, Mood.CHURN, wiped=True)
    judge(world, Mood.HURT, wiped=True)


def test_a_start_that_a_leaving_node_gave_up_may_be_repeated_once() -> None:
    world = mesh()
    submit(world, "a", a_spec(1))
    judge(world, Mood.CALM)
    starts = world.ledger.starts[a_spec(1).id]
    (first,) = starts
    given_up = Start(A, 1, STOPPED, stopped=True, over=True)
    starts[first._replace(start=2)] = given_up
    with pytest.raises(Violation, match="I6: without faults"):
        judge(world, Mood.CHURN, wiped=True)
    world.ledger.evicted([(a_spec(1).id, first._replace(start=2))])
    stored = world.disks[A].rows[a_spec(1).id]
    record = world.disks[A].record(a_spec(1).id)
    assert record is not None
    more = record._replace(starts=((record.ballot, 2),))
    world.disks[A].rows[a_spec(1).id] = stored._replace(row=stored_row(more).row)
    judge(world, Mood.CHURN, wiped=True)


@pytest.mark.parametrize(("stranded", "again_by", "is_allowed"), [(1, B, True), (0, B, False), (1, A, False)])
def test_a_job_that_its_only_holder_had_to_leave_with_may_be_started_by_one_other(
    stranded: int, again_by: NodeId, is_allowed: bool
) -> None:
    world = mesh()
    submit(world, "a", a_spec(1))
    judge(world, Mood.CALM)
    job = a_spec(1).id
    starts = world.ledger.starts[job]
    (first,) = starts
    again = first._replace(owner=again_by, start=first.start + (again_by == first.owner))
    starts[again] = starts[first]
    record = world.disks[A].record(job)
    assert record is not None
    counts = {first.ballot: first.start, again.ballot: again.start}
    stored = stored_row(record._replace(starts=tuple(sorted(counts.items()))))
    world.disks[A].rows[job] = stored
    world.ledger.stranded[job] = stranded
    if is_allowed:
        judge(world, Mood.CHURN, wiped=True)
    else:
        with pytest.raises(Violation, match="I6: without faults"):
            judge(world, Mood.CHURN, wiped=True)


@pytest.mark.parametrize(("stranded", "noted_by", "is_allowed"), [(1, B, True), (0, B, False), (1, A, False)])
def test_who_went_on_without_the_only_holder_may_have_given_way_before_its_start_began(
    stranded: int, noted_by: NodeId, is_allowed: bool
) -> None:
    """It is on its disk, and counts. (Found by seed 930255.)"""
    world = mesh()
    submit(world, "a", a_spec(1))
    judge(world, Mood.CALM)
    job = a_spec(1).id
    record = world.disks[A].record(job)
    assert record is not None
    noted = Ballot(record.ballot.term, noted_by)
    counts = dict(record.starts) | {noted: 1 + (noted_by == A)}
    world.disks[A].rows[job] = stored_row(record._replace(starts=tuple(sorted(counts.items()))))
    world.ledger.stranded[job] = stranded
    if is_allowed:
        judge(world, Mood.CHURN, wiped=True)
    else:
        with pytest.raises(Violation, match="counts 2 starts of 1"):
            judge(world, Mood.CHURN, wiped=True)


def test_a_start_that_was_thought_to_be_lost_and_gave_the_result_is_none_that_was_spoilt() -> None:
    """Its node left, and others went on without knowing of the end. (Found by seed 930255.)"""
    world = mesh()
    submit(world, "a", a_spec(1))
    judge(world, Mood.CALM)
    job = a_spec(1).id
    record = world.disks[A].record(job)
    assert record is not None
    ((first, start),) = world.ledger.starts[job].items()
    start.boot -= 1  # not the present life
    world.disks[A].rows[job] = stored_row(record._replace(losses=(first,)))
    judge(world, Mood.CHURN, wiped=True)
    world.ledger.starts[job][first._replace(start=2)] = start  # so it did not have to be repeated
    with pytest.raises(Violation, match="I6: without faults"):
        judge(world, Mood.CHURN, wiped=True)


class Deserter(Loner):
    """Asked to leave, it goes at once with all that it has."""

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        return [Left(False)] if isinstance(event, LeaveAsked) else super().handle(event, now)


@pytest.mark.parametrize("is_over", [False, True])
@pytest.mark.parametrize("another_takes_jobs", [False, True])
@pytest.mark.parametrize("holders", [(A,), (A, B)])
def test_what_a_node_left_with_is_stranded_if_nobody_else_there_has_it_or_could_take_it(
    holders: tuple[NodeId, ...], another_takes_jobs: bool, is_over: bool
) -> None:
    """How it ended as much as the rest: others may have older copies."""
    world = mesh(core=Deserter)
    record = a_record(a_spec(1), holders)
    if is_over:
        record = settled(decided(record, State.EXPIRED, firm=True, at=0.0))
    world.ledger.submitted((a_spec(1),))
    world.disks[A].write([stored_row(record)])
    if not another_takes_jobs:
        world.end(world.machines[B], "is killed", silent=False)
    world.leave(world.machines[A])
    world.run_until(world.now + 0.1)
    assert world.machines[A].life is None
    assert world.ledger.stranded[record.id] == (not another_takes_jobs)


def test_more_starts_than_the_options_allow_are_found_whatever_happened() -> None:
    world = mesh()
    submit(world, "a", a_spec(1))
    judge(world)
    starts = world.ledger.starts[a_spec(1).id]
    (first,) = starts
    for number in range(2, 9):
        starts[first._replace(start=number)] = starts[first]
    with pytest.raises(Violation, match="started 8 times under 1 owners"):
        judge(world, wiped=True)


@pytest.mark.parametrize(("excused", "other_holders"), [(False, True), (True, True), (True, False)])
def test_of_a_key_that_may_have_two_jobs_the_end_of_one_makes_that_of_the_other_no_older(
    excused: bool, other_holders: bool
) -> None:
    """B alone held the other one, and is behind: nobody can settle what ended there."""
    world = mesh()
    spec = replace(a_spec(1, Options(key="k", fingerprint="this")), id=keyed_job_id("k"))
    shown = decided(a_record(spec, (B,)), State.FAILED, firm=False, at=EPOCH)
    holders = (A,) if other_holders else (B,)
    done = settled(decided(a_record(spec, holders), State.FAILED, firm=True, at=EPOCH))
    world.disks[A].write((stored_row(done),))
    if excused:
        world.ledger.keys.excused.add(spec.id)
    is_old = Judge(world, Mood.HURT, wiped=False)._is_old(shown)
    assert is_old is not (excused and other_holders)


@pytest.mark.parametrize(
    ("behind", "accepted", "decided_anew"),
    [({C}, "abc", False), (set(), "abc", True), ({C}, "a", True), ({B}, "abc", True)],
)
def test_a_key_of_holders_that_are_all_behind_is_decided_for_nobody_else(
    behind: set[NodeId], accepted: str, decided_anew: bool
) -> None:
    world = mesh("abcd")
    job, use = keyed_job_id("k"), KeyUse((C,), "this")
    for name in accepted:
        world.disks[node_id(name)].claim_rows[job] = ClaimRow(job, Ballot(2, A), Ballot(2, A), use, 1e9)
    for node in behind:
        world.disks[node].behind = True
    world.ledger.keys.members = lambda: world.disks
    assert Judge(world, Mood.HURT, wiped=False)._can_decide_key(job) is decided_anew
