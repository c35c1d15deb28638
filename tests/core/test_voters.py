"""The holders of a job change: who is wanted, how it is decided, and what goes on meanwhile."""

from __future__ import annotations

import random
from typing import Any

import pytest
from job_mesh import (
    A,
    B,
    C,
    D,
    Disk,
    Mesh,
    StillView,
    job_id,
    let_pass,
    make_desk,
    make_record,
    sends,
    succeeded,
)

from edgenode.core import voters
from edgenode.core.job_bytes import decode, encode
from edgenode.core.jobs import Record, adopted, decided, new_record, next_epoch, proposed, started, write_own
from edgenode.core.joining import join
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.signals import LeaveAsked, RowsDamaged
from edgenode.core.specs import Spec
from edgenode.core.table import Lead
from edgenode.core.types import Ballot, Instant, JobId, NodeId, State
from edgenode.core.view import Standing
from edgenode.core.voters import Voters, next_holders, next_holders_of
from edgenode.core.wire import Acks, Ask, AskItem, Copies, Message, Promised, Promises, Refused, WantWork

SOON = Settings(jobs=JobSettings(rereplicate_after_s=2.0))
NOW: Instant = 100.0


# ------------------------------------------------------------------------------------- who is wanted


def wanted(
    holders: str,
    *,
    living: str,
    dead: str = "",
    silent_s: float = 1000.0,
    leaving: str = "",
    left: str = "",
    behind: str = "",
    voteless: str = "",
    drained: str = "",
    replicas: int = 3,
    owner: str = "",
) -> str:
    """Who should hold job 1, as letters in order."""
    long = {letter: NodeId(letter * 16) for letter in "abcde"}
    view = StillView(A, {long[letter]: Standing.LIVING for letter in living + leaving + drained})
    view.drained = {long[letter] for letter in drained}
    view.standings.update({long[letter]: Standing.SILENT for letter in dead})
    view.standings.update({long[letter]: Standing.GONE for letter in left})
    view.since = {long[letter]: NOW - silent_s for letter in dead + left}
    view.leaving = {long[letter] for letter in leaving}
    view.left = {long[letter] for letter in left}
    view.behind = {long[letter] for letter in behind}
    record = make_record(job_id(1), [long[letter] for letter in holders])
    if owner:
        record = record._replace(own=record.own._replace(ballot=Ballot(2, long[owner])))
    deaf = frozenset(long[letter] for letter in voteless)
    settings = JobSettings(replicas=replicas)
    return "".join(node[0] for node in next_holders(record, view, settings, NOW, deaf))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (wanted("abc", living="abcde"), "abc"),
        (wanted("abc", living="abd", dead="c", silent_s=29.0), "abc"),
        (wanted("abc", living="abd", dead="c", silent_s=30.0), "abd"),
        (wanted("abc", living="ab", dead="c"), "abc"),  # nobody takes its place: it may return
        (wanted("abc", living="ad", dead="bc"), "abd"),  # one of the dead is replaced, the other waited for
        (wanted("abc", living="abd", leaving="c"), "abd"),
        (wanted("abc", living="ab", leaving="c"), "ab"),
        (wanted("abc", living="ab", left="c"), "ab"),
        (wanted("abc", living="abcd", behind="c"), "abd"),
        (wanted("abc", living="abc", behind="c"), "ab"),
        (wanted("abc", living="abcd", voteless="c"), "abd"),
        (wanted("abc", living="abc", voteless="c"), "abc"),  # nobody takes its place
        (wanted("abd", living="abcd", voteless="c"), "abd"),
        (wanted("ab", living="abc", voteless="c"), "ab"),
        (wanted("ab", living="b", leaving="a"), "b"),
        (wanted("abc", living="b", dead="c", leaving="a", silent_s=1.0), "abc"),  # b and c decide nothing
        (wanted("a", living="ab"), "ab"),
        (wanted("a", living="a"), "a"),
        (wanted("a", living="b", leaving="a"), "b"),
        (wanted("a", living="", leaving="a"), "a"),
        (wanted("abc", living="bcde", drained="a"), "abc"),  # it keeps its copy and its vote
        (wanted("a", living="bc", drained="a"), "bc"),  # nobody else would take the job
        (wanted("ab", living="cde", drained="ab"), "cde"),
        (wanted("a", living="", drained="a"), "a"),
        (wanted("ab", living="cd", dead="b", drained="a", silent_s=1.0), "bcd"),
        (wanted("abc", living="abc", replicas=1), "a"),  # R was lowered
        (wanted("abc", living="abcde", replicas=1), "a"),
        (wanted("abc", living="abcd", replicas=2, owner="c"), "ac"),  # who owns it goes on
        (wanted("abc", living="bcd", dead="a", replicas=2, owner="b", silent_s=1.0), "bc"),
        (wanted("abc", living="abcde", replicas=5), "abcde"),  # R was raised
        (wanted("abc", living="abcd", replicas=5), "abcd"),
        (wanted("abcd", living="abcd", replicas=5), "abcd"),
    ],
)
def test_who_is_wanted(found: str, expected: str) -> None:
    assert "".join(sorted(found)) == expected


@pytest.mark.parametrize("seed", range(200))
def test_whether_anybody_else_is_wanted_is_so_of_all_jobs_of_the_same_holders_and_owner(seed: int) -> None:
    """Who it is then depends on the job. So one of many is looked at for all."""
    dice = random.Random(seed)
    nodes = [NodeId(letter * 16) for letter in "abcdef"]
    view = StillView(A, {node: dice.choice([*Standing]) for node in nodes[: dice.randint(1, 6)]})
    view.since = {node: NOW - dice.choice((1.0, 1000.0)) for node in nodes}
    view.behind, view.leaving, view.left, view.drained = (
        {node for node in view.standings if dice.random() < 0.15} for _ in range(4)
    )
    holders = tuple(dice.sample(nodes, dice.randint(1, 4)))
    settings = JobSettings(replicas=dice.randint(1, 4))
    found = {
        next_holders(make_record(job_id(number), holders), view, settings, NOW) == holders
        for number in range(20)
    }
    assert len(found) == 1


def test_resting_jobs_whose_holders_stay_are_not_looked_at_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also while fewer members than R take any jobs."""
    disk, jobs = Disk(), [job_id(number) for number in range(1, 41)]
    desk = make_desk(A, B, C, settings=JobSettings(in_memory=0), archive=disk)
    assert isinstance(desk.view, StillView)
    desk.view.drained = {C}
    for job in jobs:
        desk.table.put(make_record(job, (A, B, C)))
        desk.table.leads[job] = Lead(Ballot(1, A), True, {A, B, C})
    persist = desk.table.flush()
    assert persist is not None
    disk.write(persist.rows)
    desk.table.persisted(persist.number)
    desk.table.rest(lambda record: True)
    asked: list[JobId] = []

    def watched(job: JobId, *rest: Any) -> tuple[NodeId, ...]:
        asked.append(job)
        return next_holders_of(job, *rest)

    monkeypatch.setattr(voters, "next_holders_of", watched)
    reviewer = Voters(desk)
    reviewer.on_time()
    assert len(asked) == 1
    desk.view.leaving = {B}  # its place is to be another's, if there is one
    desk.view.standings[D] = Standing.LIVING
    desk.now = reviewer.deadline()
    reviewer.on_time()
    assert {*desk.newcomers} == {*jobs}


# ----------------------------------------------------------------------------- the record's part in it


def moved_by(first: NodeId = A) -> Record:
    record = make_record(job_id(1), (A, B, C))
    return proposed(write_own(record), (A, B, D), first)


def test_a_later_firm_outcome_ends_a_proposal_to_move_and_a_later_move_ends_an_outcome() -> None:
    move = moved_by()
    assert move.moving
    finished = decided(make_record(job_id(1), (A, B, C)), State.SUCCEEDED, firm=True, at=1.0)
    newer = adopted(finished, Ballot(5, B))
    assert not join(move, newer).moving
    assert join(newer, adopted(move, Ballot(6, C))).moving


def test_a_result_without_a_majority_is_no_proposal_and_survives_the_move() -> None:
    alone = decided(
        make_record(job_id(1), (A, B, C))._replace(own=moved_by().own._replace(ballot=Ballot(7, C))),
        State.SUCCEEDED, firm=False, at=1.0, result=b"1",
    )  # fmt: skip
    both = join(moved_by(), alone)
    assert both.moving
    after = next_epoch(both)
    assert (after.epoch, after.holders, after.move) == (1, (A, B, D), None)
    assert after.outcome is not None
    assert (after.outcome.result, after.outcome.firm) == (b"1", False)


def test_whoever_concludes_a_move_makes_the_same_first_record() -> None:
    move = moved_by()
    elsewhere = adopted(move, Ballot(9, C))
    first, second = next_epoch(move), next_epoch(elsewhere)
    assert (first.holders, first.own, first.epoch) == (second.holders, second.own, second.epoch)


def test_what_runs_goes_on_in_the_next_epoch_under_its_old_token() -> None:
    record = started(make_record(job_id(1), (A, B, C)), runner=A, boot=1, at=1.0)
    move = proposed(record, (A, B, D), A)
    after = next_epoch(decode(encode(move)))
    assert (after.own.ballot, after.own.token) == (Ballot(2, A), record.own.token)
    assert (after.own.runner, after.own.boot, after.own.started_at) == (A, 1, 1.0)
    assert (after.state, after.start_count) == (State.RUNNING, 1)


def test_what_a_named_owner_started_while_the_change_was_undecidable_goes_on_after_it() -> None:
    """Seed 920309: it forgot the start, and began another one beside it."""
    desk = make_desk(A, B, C, D)
    queued = make_record(job_id(1), (A, B, C))
    move = adopted(proposed(queued, (A, B, D), A), Ballot(2, A))
    running = started(move, runner=B, boot=1, at=1.0)
    desk.table.put(running)
    desk.table.leads[queued.id] = Lead(running.ballot, True, {A, B}, 0)
    Voters(desk).begin((queued.id,))
    after = desk.table.peek(queued.id)
    assert after is not None
    assert (after.epoch, after.holders) == (1, (A, B, D))
    assert (after.state, after.own.token, after.own.runner) == (State.RUNNING, running.own.token, B)


# -------------------------------------------------------------------------------------- whole nodes


def held_by(mesh: Mesh, name: NodeId, job: JobId) -> tuple[int, set[NodeId]]:
    record = mesh.record(name, job)
    return record.epoch, {*record.holders}


def held() -> tuple[Mesh, Spec]:
    """Of four nodes the first three hold a job that nobody can run."""
    mesh = Mesh("abcd", settings=SOON)
    spec = mesh.spec("abc", task="nobody")
    mesh.submit(A, spec)
    mesh.run(0.5)
    return mesh, spec


def run_by_c(holders: str, run_s: float) -> tuple[Mesh, Spec]:
    """A job of the first of its three holders runs so long, on the only one of four nodes that has a slot."""
    mesh = Mesh("abcd", slots={A: 0, B: 0, C: 1, D: 0}, settings=SOON)
    mesh.verdict = lambda begun: (run_s, succeeded())
    spec = mesh.spec(holders)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [C])
    return mesh, spec


def lone_mesh() -> Mesh:
    """Of three nodes only the first runs."""
    mesh = Mesh("abc")
    mesh.kill(B)
    mesh.kill(C)
    mesh.run(1.0)
    mesh.sent.clear()
    return mesh


def test_a_job_of_a_mesh_of_one_gets_more_holders_while_it_runs_and_runs_once() -> None:
    mesh = lone_mesh()
    mesh.verdict = lambda begun: (3.0, succeeded())
    spec = mesh.spec("a")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    assert held_by(mesh, A, spec.id) == (0, {A})
    mesh.boot(B)
    mesh.boot(C)
    mesh.run_until(lambda: held_by(mesh, A, spec.id)[1] == {A, B, C}, limit_s=2.5)
    assert mesh.record(A, spec.id).state is State.RUNNING
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert mesh.runs(spec.id) == [A]
    assert mesh.record(A, spec.id).start_count == 1


def test_who_is_to_hold_a_job_has_a_copy_before_anything_is_decided() -> None:
    mesh = lone_mesh()
    spec = mesh.spec("a", task="nobody")
    mesh.submit(A, spec)
    mesh.run(0.2)
    mesh.rule = lambda source, to, message: not isinstance(message, Acks)
    mesh.boot(B)
    mesh.run(2.0)
    assert mesh.has(B, spec.id)
    assert held_by(mesh, A, spec.id) == (0, {A})
    mesh.rule = let_pass
    mesh.run_until(lambda: held_by(mesh, A, spec.id) == (1, {A, B}), limit_s=6.0)


def test_a_holder_that_stays_dead_loses_its_vote_to_the_next_in_rank() -> None:
    mesh, spec = held()
    mesh.kill(C)
    mesh.run_until(lambda: held_by(mesh, D, spec.id) == (1, {A, B, D}) if mesh.has(D, spec.id) else False)
    mesh.kill(A)  # two of the first three holders are gone: without the change nobody could be firm
    mesh.run_until(lambda: mesh.is_firm(B, spec.id), limit_s=3.0)


def test_a_start_on_a_peer_goes_on_while_that_peer_loses_its_vote() -> None:
    mesh, spec = run_by_c("abc", 4.0)
    mesh.do(C, LeaveAsked())  # it finishes first what it runs
    mesh.run_until(lambda: held_by(mesh, A, spec.id) == (1, {A, B, D}), limit_s=2.0)
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert mesh.runs(spec.id) == [C]
    assert mesh.record(A, spec.id).state is State.SUCCEEDED


def test_a_result_that_comes_while_the_holders_change_waits_for_them() -> None:
    mesh, spec = run_by_c("abd", 2.5)
    mesh.rule = lambda source, to, message: not (isinstance(message, Acks) and source == B)
    mesh.kill(D)
    mesh.run_until(lambda: mesh.record(A, spec.id).moving)
    mesh.run(1.5)
    assert mesh.record(A, spec.id).moving
    assert mesh.record(A, spec.id).outcome is None
    mesh.rule = let_pass
    mesh.run_until(lambda: mesh.record(A, spec.id).settled)
    assert held_by(mesh, A, spec.id) == (1, {A, B, C})
    assert mesh.runs(spec.id) == [C]


def test_a_successor_concludes_the_change_that_its_owner_could_not() -> None:
    """The owner dies after one other holder has stored the proposal: it was decided, whoever knows."""
    mesh, spec = held()
    mesh.kill(C)
    mesh.rule = lambda source, to, message: not (isinstance(message, Acks) and source == B)
    mesh.run_until(lambda: mesh.record(B, spec.id).moving)
    mesh.kill(A)
    mesh.rule = let_pass
    mesh.boot(C)
    mesh.run_until(lambda: mesh.record(B, spec.id).epoch == 1, limit_s=5.0)
    mesh.run_until(lambda: mesh.is_firm(B, spec.id) or mesh.is_firm(D, spec.id), limit_s=5.0)
    mesh.boot(A)
    mesh.run(3.0)
    # A returns with the old set in its head, and is told.
    assert mesh.record(A, spec.id).epoch >= 1
    assert sum(mesh.is_firm(name, spec.id) for name in mesh.names) == 1


def test_who_held_a_job_and_was_replaced_is_outvoted_by_what_it_does_not_know() -> None:
    mesh, spec = held()
    mesh.kill(C)
    mesh.run_until(lambda: mesh.record(A, spec.id).epoch == 1)
    mesh.run(0.2)
    old = mesh.disks[C].rows[spec.id]
    asked = Ask((AskItem(spec.id, 0, 9, spec.expires_at, b""),))
    for name in (A, B, D):
        effects = mesh.tell(C, name, asked)
        assert not sends(effects, Promises)
        (refused,) = sends(effects, Refused)
        assert decode(refused.refusals[0].copy).epoch == 1
    mesh.boot(C)
    mesh.run(3.0)
    assert decode(old.row.blob).epoch == 0
    assert held_by(mesh, C, spec.id)[0] >= 1
    assert mesh.lead(A, spec.id) is not None


def test_the_only_holder_of_a_job_hands_it_on_before_it_leaves() -> None:
    one = Settings(jobs=JobSettings(replicas=1))
    mesh = Mesh("ab", settings=one, slots={A: 0, B: 1})
    spec = mesh.spec("a", task="nobody")
    mesh.submit(A, spec)
    mesh.run(0.2)
    mesh.do(A, LeaveAsked())
    mesh.run_until(lambda: A in mesh.left, limit_s=3.0)
    assert mesh.left == {A: True}
    mesh.run_until(lambda: mesh.is_firm(B, spec.id), limit_s=3.0)
    assert held_by(mesh, B, spec.id) == (1, {B})


def test_what_a_leaving_node_hands_on_runs_before_there_are_votes_about_who_holds_it() -> None:
    mesh = Mesh("abc", slots={A: 0, B: 1, C: 0})
    mesh.rule = lambda source, to, message: not isinstance(message, WantWork)
    mesh.verdict = lambda begun: (2.0, succeeded())
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run(0.5)
    assert mesh.runs(spec.id) == []
    mesh.do(A, LeaveAsked())
    mesh.run_until(lambda: mesh.runs(spec.id) == [B], limit_s=0.2)
    assert held_by(mesh, B, spec.id) == (0, {A, B, C})
    assert not mesh.record(B, spec.id).moving
    mesh.run_until(lambda: held_by(mesh, B, spec.id) == (1, {B, C}), limit_s=1.0)


def test_all_but_one_may_leave_one_after_the_other() -> None:
    mesh = Mesh("abc", slots=0)
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run(0.5)
    for name in (A, B):
        mesh.do(name, LeaveAsked())
        mesh.run_until(lambda name=name: name in mesh.left, limit_s=5.0)
        assert mesh.left[name]
    mesh.run_until(lambda: mesh.is_firm(C, spec.id), limit_s=3.0)
    assert mesh.record(C, spec.id).holders == (C,)


def test_an_owner_without_a_majority_proposes_nothing() -> None:
    """Though a majority of the holders lives, and acknowledges what it writes: their promises are lost, so
    somebody may have decided already what it would propose to change."""
    mesh, spec = held()
    mesh.rule = lambda source, to, message: not isinstance(message, Promises)
    mesh.kill(A)
    mesh.run_until(lambda: mesh.has(D, spec.id), limit_s=15.0)
    mesh.run(10.0)
    assert mesh.lead(B, spec.id) is not None
    assert not mesh.is_firm(B, spec.id)
    assert mesh.record(B, spec.id).move is None
    mesh.rule = let_pass
    mesh.run_until(lambda: held_by(mesh, B, spec.id) == (1, {B, C, D}))


def test_a_holder_whose_row_was_damaged_gives_its_vote_to_another_node() -> None:
    """Its copy was mended from another holder, but two deaths later nobody could decide the job."""
    mesh = Mesh("abcd", slots={A: 0, B: 0, C: 0, D: 1}, settings=SOON)
    mesh.verdict = lambda begun: None
    mesh.rule = lambda source, to, message: not isinstance(message, WantWork)
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run(0.5)
    mesh.disks[B].lost.add(spec.id)
    mesh.do(B, RowsDamaged((spec.id,)))
    mesh.run(1.0)
    assert mesh.has(B, spec.id), "its copy is mended"
    mesh.rule = let_pass
    mesh.run_until(lambda: mesh.runs(spec.id) == [D])
    mesh.run_until(lambda: held_by(mesh, A, spec.id) == (1, {A, C, D}))
    mesh.run(10.0)
    assert held_by(mesh, A, spec.id) == (1, {A, C, D}), "and stays with these"
    mesh.kill(C)
    mesh.end_run(D, spec.id, mesh.begun[0].token, succeeded())
    mesh.run_until(lambda: mesh.has_settled(A, spec.id), limit_s=5.0)
    assert mesh.runs(spec.id) == [D]


def test_a_start_that_waits_is_given_up_when_its_owner_turns_firm_and_finds_a_change_of_holders() -> None:
    """D proposed the change and died; B goes on without C's promise, and is about to start the job, when that
    promise comes after all."""
    mesh = Mesh("abcd", slots={A: 0, B: 1, C: 0, D: 0})
    mesh.kill(D)
    mesh.run(1.0)
    mesh.rule = lambda source, to, message: not (to == B and isinstance(message, Acks | Promises))
    spec = mesh.spec("dbc")
    record = new_record(mesh.item(spec).spec, spec.id, (D, B, C), 0.0, mesh.wall())
    mesh.tell(C, B, Copies((encode(proposed(write_own(record), (A, B, C), A)),)))
    mesh.run_until(lambda: mesh.record(B, spec.id).state is State.RUNNING, limit_s=2.0)
    lead = mesh.lead(B, spec.id)
    assert lead is not None
    assert not lead.firm
    assert mesh.begun == []
    mesh.tell(C, B, Promises((Promised(spec.id, 0, lead.ballot.term, True, b""),)))
    assert mesh.is_firm(B, spec.id)
    assert mesh.record(B, spec.id).moving
    mesh.run(1.0)
    assert mesh.begun == [], "nothing starts before it is decided who holds it"
    mesh.rule = let_pass
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert mesh.record(A, spec.id).epoch == 1
    assert len(mesh.begun) == 1


def test_the_holders_of_very_many_jobs_are_not_all_changed_at_once() -> None:
    """Each is written twice for that, and stays in memory meanwhile."""
    batch = 10
    mesh = Mesh("abc", slots=0, settings=Settings(jobs=JobSettings(batch=batch)))
    specs = mesh.specs(8 * batch, "abc")
    mesh.submit(A, *specs)
    mesh.run(2.0)
    most = 0

    def slow(source: NodeId, to: NodeId, message: Message) -> bool | float:
        nonlocal most
        desk = mesh.nodes[A].desk
        moving = sum(record.moving for record in desk.table.unsettled())
        most = max(most, moving + len(desk.newcomers))
        return 0.2 if isinstance(message, Acks) else True

    mesh.rule = slow
    mesh.do(C, LeaveAsked())
    mesh.run_until(lambda: all(mesh.record(A, spec.id).holders == (A, B) for spec in specs), limit_s=20.0)
    assert 0 < most <= 2 * batch
