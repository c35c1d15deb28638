"""A node that is asked to run nothing and to own nothing, and stays a member: drain, undrain, weight."""

from __future__ import annotations

import pytest
from job_mesh import A, B, Begun, C, D, Mesh, succeeded

from edgenode.core.custody import Custody
from edgenode.core.errors import NodeAway, NodeNotFound, NodeSilent, NotReady, OutcomeUnknown
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.signals import LeaveAsked, RegulateAsked, RequestId, StopAsked, StoreRefused
from edgenode.core.types import Delivery, Drain, JobId, MemberInfo, NodeId, Seconds, State
from edgenode.core.wire import Change, Gift, Grant, Regulate, Regulated, Submitted, Verdict, Wish, Write

LIMIT_S: Seconds = 5.0


def ask(mesh: Mesh, at: NodeId, node: NodeId, wish: Wish, *, timeout_s: Seconds = 5.0) -> RequestId:
    request = RequestId(1000 + len(mesh.sent) + mesh.handled.total())
    mesh.do(at, RegulateAsked(request, node, wish, timeout_s))
    return request


def drain(mesh: Mesh, node: NodeId, *, at: NodeId = B, limit_s: Seconds = LIMIT_S) -> RequestId:
    return ask(mesh, at, node, Wish(Change.DRAIN, limit_s))


def info(mesh: Mesh, node: NodeId, at: NodeId) -> MemberInfo:
    found = mesh.nodes[at].view.info(node)
    assert found is not None
    return found


def is_drained(mesh: Mesh, node: NodeId) -> bool:
    return all(info(mesh, node, at).drain is Drain.DRAINED for at in mesh.up)


def endless(begun: Begun) -> tuple[Seconds, Verdict] | None:
    return None


def test_a_drained_node_gives_its_queued_jobs_away_lets_what_runs_end_and_nothing_starts_twice() -> None:
    mesh = Mesh("abcd", slots=1)
    mesh.verdict = lambda begun: (1.0, succeeded())
    specs = mesh.specs(12, "a")
    mesh.submit(A, *specs)
    mesh.run_until(lambda: bool(mesh.begun))
    request = drain(mesh, A)
    mesh.run_until(lambda: request in mesh.regulated)
    done = mesh.regulated[request]
    assert done.info is not None
    assert done.info.drain is Drain.DRAINING
    mesh.run_until(lambda: is_drained(mesh, A))
    assert mesh.nodes[A].desk.table.leads == {}
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs))
    assert [len(mesh.runs(spec.id)) for spec in specs] == [1] * len(specs)
    assert [begun.node for begun in mesh.begun].count(A) == 1
    assert {mesh.record(A, spec.id).state for spec in specs} == {State.SUCCEEDED}, "it keeps its copies"


def test_a_drained_node_passes_submissions_on_and_is_not_ranked_until_it_is_undrained() -> None:
    mesh = Mesh("abcd", slots=1)
    drain(mesh, A)
    mesh.run_until(lambda: is_drained(mesh, A))
    assert not mesh.nodes[A].ready
    assert all(A not in mesh.nodes[name].view.ranking().members for name in mesh.names)
    spec = mesh.spec("abc")
    request = mesh.submit(A, spec)
    mesh.run_until(lambda: request in mesh.submits)
    assert mesh.submits[request].receipts[0].error is None
    assert A not in mesh.submits[request].receipts[0].nodes
    mesh.run_until(lambda: mesh.has_settled(B, spec.id))
    assert A not in mesh.runs(spec.id)
    ask(mesh, C, A, Wish(Change.UNDRAIN))
    mesh.run_until(lambda: mesh.nodes[A].ready and mesh.agree(mesh.names))
    assert info(mesh, A, B).drain is Drain.NO
    again = mesh.spec("a")
    mesh.submit(B, again)
    mesh.run_until(lambda: mesh.settled(again.id))
    assert mesh.runs(again.id) == [A]


def test_what_runs_for_longer_than_a_drain_may_take_is_stopped_and_moves_and_no_loss_is_counted() -> None:
    mesh = Mesh("abc", slots={A: 2, B: 1, C: 1})
    mesh.verdict = lambda begun: None if begun.node == A else (0.1, succeeded())
    mine, theirs = mesh.spec("a"), mesh.spec("b", not_on="")
    mesh.submit(A, mine)
    mesh.run_until(lambda: mesh.runs(mine.id) == [A])
    asked_at = mesh.now
    drain(mesh, A, limit_s=2.0)
    mesh.run(1.5)
    assert mesh.stopped == []
    assert mesh.record(A, mine.id).own.state is State.RUNNING
    mesh.submit(B, theirs)
    mesh.run_until(lambda: is_drained(mesh, A))
    assert 2.0 <= mesh.now - asked_at < 3.0
    mesh.run_until(lambda: mesh.settled(mine.id))
    record = mesh.record(A, mine.id)
    assert len(mesh.runs(mine.id)) == 2
    assert (record.loss_count, record.failure_count, record.state) == (0, 0, State.SUCCEEDED)


def test_the_next_start_of_a_job_that_is_stopped_for_a_drain_begins_after_its_worker_has_ended() -> None:
    mesh = Mesh("abc", slots={A: 1, B: 1, C: 1})
    mesh.verdict = endless
    mesh.stops_take_s = 1.0
    spec = mesh.spec("a")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    drain(mesh, A, limit_s=0.5)
    mesh.run_until(lambda: len(mesh.runs(spec.id)) == 2)
    assert mesh.begun[1].at - mesh.begun[0].at >= 1.5


def test_a_stopped_start_that_runs_for_another_owner_is_given_back_to_that_one() -> None:
    mesh = Mesh("abc", slots={A: 1, B: 0, C: 0})
    mesh.verdict = endless
    spec = mesh.spec("b")
    mesh.submit(B, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    drain(mesh, A, limit_s=0.5)
    mesh.run_until(lambda: is_drained(mesh, A))
    mesh.run(0.1)
    record = mesh.record(B, spec.id)
    assert (record.own.state, record.loss_count, record.owner) == (State.QUEUED, 0, B)


def test_a_job_that_may_start_only_once_is_failed_and_not_started_again_when_a_drain_stops_it() -> None:
    mesh = Mesh("abc")
    mesh.verdict = endless
    spec = mesh.spec("a", delivery=Delivery.AT_MOST_ONCE)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    drain(mesh, A, limit_s=0.2)
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert mesh.runs(spec.id) == [A]
    assert mesh.record(B, spec.id).state is State.FAILED


def test_a_job_that_only_a_drained_node_holds_gets_another_holder() -> None:
    mesh = Mesh("abc", slots={A: 0, B: 1, C: 1}, settings=Settings(jobs=JobSettings(replicas=1)))
    spec = mesh.spec("a", requires=(("gpu", "yes"),))  # which nobody has
    mesh.submit(A, spec)
    mesh.run(0.5)
    drain(mesh, A)
    mesh.run_until(lambda: is_drained(mesh, A))
    assert mesh.lead(A, spec.id) is None
    mesh.run_until(lambda: any(mesh.lead(name, spec.id) for name in (B, C)))


def test_the_only_node_keeps_its_jobs_when_it_drains_and_goes_on_with_them_when_it_is_undrained() -> None:
    mesh = Mesh("a", slots=1)
    specs = [mesh.spec("a") for _ in range(3)]
    mesh.submit(A, *specs)
    mesh.run_until(lambda: len(mesh.begun) == 1)
    drain(mesh, A, at=A)
    mesh.run_until(lambda: is_drained(mesh, A))
    assert len(mesh.begun) == 1
    assert len(mesh.nodes[A].desk.table.leads) == 2
    request = mesh.submit(A, mesh.spec("a"))
    mesh.run_until(lambda: request in mesh.submits)
    assert isinstance(mesh.submits[request].receipts[0].error, NotReady)
    ask(mesh, A, A, Wish(Change.UNDRAIN))
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs))
    assert len(mesh.begun) == 3


def test_a_drained_node_looks_at_jobs_that_nobody_can_take_only_when_members_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may own very many: to go round them twice a second would keep a processor busy for nothing."""
    looked_at: list[JobId] = []
    give_away = Custody.give_away

    def watched(custody: Custody, job: JobId) -> bool:
        looked_at.append(job)
        return give_away(custody, job)

    mesh = Mesh("ab", slots=0)
    mesh.kill(B)
    mesh.run(1.0)
    specs = mesh.specs(20, "a")
    mesh.submit(A, *specs)
    mesh.run(0.5)
    monkeypatch.setattr(Custody, "give_away", watched)
    drain(mesh, A, at=A)
    mesh.run_until(lambda: is_drained(mesh, A))
    mesh.run(1.0)  # that it is drained is a change, too
    assert {*looked_at} == {spec.id for spec in specs}
    looked_at.clear()
    mesh.run(10.0)
    assert looked_at == []
    mesh.boot(B)
    mesh.run_until(lambda: all(mesh.lead(B, spec.id) for spec in specs))
    assert not mesh.nodes[A].desk.table.leads


def test_a_drained_owner_that_nobody_can_take_over_from_has_others_run_its_jobs() -> None:
    """Its fellow holders are dead for a moment: it owns on, and idle peers ask it for work."""
    mesh = Mesh("abcd", slots={A: 0, B: 0, C: 0, D: 1})
    specs = mesh.specs(3, "abc")
    mesh.verdict = lambda begun: (0.5, succeeded())
    mesh.submit(A, *specs)
    mesh.run_until(lambda: len(mesh.begun) == 1)
    mesh.kill(B)
    mesh.kill(C)
    drain(mesh, A, at=D)
    mesh.run_until(lambda: all(mesh.record(A, spec.id).outcome is not None for spec in specs))
    assert {begun.node for begun in mesh.begun} == {D}
    assert mesh.messages(Grant, source=A)


def test_a_drained_node_takes_no_gift_and_gives_on_what_it_has_to_take_over() -> None:
    mesh = Mesh("abcd", slots=0)
    spec = mesh.spec("bac")
    mesh.submit(B, spec)
    mesh.run(0.5)
    drain(mesh, A, at=D)
    mesh.run_until(lambda: is_drained(mesh, A))
    mesh.do(B, LeaveAsked())
    mesh.run_until(lambda: mesh.lead(C, spec.id) is not None)
    mesh.run_until(lambda: B in mesh.left)
    assert mesh.messages(Gift, source=B, to=A) == []
    other = mesh.spec("cad")
    mesh.submit(D, other)
    mesh.run(0.5)
    mesh.kill(C)
    mesh.run_until(lambda: mesh.lead(D, other.id) is not None)
    mesh.run(1.0)
    assert mesh.lead(A, other.id) is None


def test_a_node_that_begins_a_new_life_is_drained_no_more() -> None:
    mesh = Mesh("ab")
    drain(mesh, A)
    mesh.run_until(lambda: is_drained(mesh, A))
    mesh.kill(A)
    mesh.run(0.2)
    mesh.boot(A)
    mesh.run_until(lambda: mesh.agree(mesh.names))
    assert info(mesh, A, B).drain is Drain.NO


def test_a_disk_that_refuses_for_a_while_does_not_undrain_its_node() -> None:
    mesh = Mesh("abc")
    drain(mesh, A)
    mesh.run_until(lambda: is_drained(mesh, A))
    mesh.do(A, StoreRefused("the disk is full"))
    mesh.run(1.0)
    mesh.make_room(A)
    mesh.run(3.0)
    assert is_drained(mesh, A)
    assert not mesh.nodes[A].ready


# ------------------------------------------------------------------------------------------- wishes


def test_a_wish_that_is_repeated_or_comes_late_does_nothing() -> None:
    """A drain that was lost on its way, and comes after the undrain, must not drain."""
    mesh = Mesh("ab")
    held: list[Regulate] = []

    def hold(source: NodeId, to: NodeId, message: object) -> bool:
        if isinstance(message, Regulate) and message.wish.change is Change.DRAIN:
            held.append(message)
        return True

    mesh.rule = hold
    drain(mesh, A)
    mesh.run_until(lambda: is_drained(mesh, A))
    ask(mesh, B, A, Wish(Change.UNDRAIN))
    mesh.run_until(lambda: mesh.agree(mesh.names))
    for message in held:
        mesh.tell(B, A, message)
    mesh.run(1.0)
    assert mesh.nodes[A].ready
    assert info(mesh, A, B).drain is Drain.NO


def test_a_wish_whose_answer_is_lost_is_asked_again_and_carried_out_once() -> None:
    mesh = Mesh("ab")
    mesh.rule = lambda source, to, message: not isinstance(message, Regulated)
    request = drain(mesh, A)
    mesh.run(1.2)
    assert request not in mesh.regulated
    mesh.rule = lambda source, to, message: True
    mesh.run_until(lambda: request in mesh.regulated)
    assert mesh.regulated[request].error is None
    assert len({answer.version for answer in mesh.messages(Regulated, source=A)}) == 1


def test_wishes_of_two_nodes_at_once_are_both_carried_out_one_after_the_other() -> None:
    mesh = Mesh("abc")
    one = drain(mesh, A, at=B)
    other = ask(mesh, C, A, Wish(Change.WEIGHT, 2.5))
    mesh.run_until(lambda: one in mesh.regulated and other in mesh.regulated)
    mesh.run_until(lambda: is_drained(mesh, A))
    assert (mesh.regulated[one].error, mesh.regulated[other].error) == (None, None)
    assert info(mesh, A, B).weight == 2.5


def test_a_wish_for_an_earlier_life_does_nothing() -> None:
    mesh = Mesh("ab")
    mesh.tell(B, A, Regulate(1, mesh.boots[A] - 1, 1, Wish(Change.DRAIN, 0.0)))
    mesh.run(0.5)
    assert mesh.nodes[A].ready
    assert mesh.messages(Regulated) == []


def test_a_wish_of_nobody_of_one_that_is_dead_and_of_one_that_is_silent_says_which() -> None:
    mesh = Mesh("abc")
    unknown = ask(mesh, A, D, Wish(Change.UNDRAIN))
    assert isinstance(mesh.regulated[unknown].error, NodeNotFound)
    mesh.kill(C)
    mesh.run(0.5)
    dead = ask(mesh, A, C, Wish(Change.UNDRAIN))
    error = mesh.regulated[dead].error
    assert isinstance(error, NodeAway)
    assert "start it, or name one that lives" in error.detail
    mesh.rule = lambda source, to, message: not isinstance(message, Regulate)
    silent = ask(mesh, A, B, Wish(Change.UNDRAIN), timeout_s=2.0)
    mesh.run_until(lambda: silent in mesh.regulated)
    assert isinstance(mesh.regulated[silent].error, NodeSilent)


def test_a_member_that_dies_while_something_is_wished_of_it_is_not_waited_for() -> None:
    mesh = Mesh("abc")
    mesh.rule = lambda source, to, message: not isinstance(message, Regulate)
    request = drain(mesh, C, at=A)
    mesh.run(0.1)
    mesh.kill(C)
    mesh.run_until(lambda: request in mesh.regulated, limit_s=1.0)
    assert isinstance(mesh.regulated[request].error, NodeAway)


def test_another_weight_changes_the_rank_of_new_jobs_and_moves_none_that_are_there() -> None:
    mesh = Mesh("abcd", slots=0)
    specs = [mesh.spec("") for _ in range(40)]
    mesh.submit(A, *specs)
    mesh.run(1.0)
    held = {spec.id: mesh.record(mesh.holders(spec.id)[0], spec.id) for spec in specs}
    ask(mesh, B, A, Wish(Change.WEIGHT, 100.0))
    mesh.run(6.0)
    for job, record in held.items():
        now = mesh.record(record.owner, job)
        assert (now.owner, now.holders, now.own.ballot) == (record.owner, record.holders, record.own.ballot)
    ranks = [{mesh.nodes[name].view.ranking().rank(spec.id) for name in mesh.names} for spec in specs]
    assert all(len(each) == 1 for each in ranks), "all rank alike"
    assert sum(next(iter(each))[0] == A for each in ranks) > 35


def test_a_drained_node_that_is_told_to_leave_goes() -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("a")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    drain(mesh, A)
    mesh.run_until(lambda: is_drained(mesh, A))
    mesh.do(A, LeaveAsked())
    mesh.run_until(lambda: mesh.left == {A: True}, limit_s=3.0)


# ------------------------------------------------------------------------------------------- goodbye


def test_a_node_that_leaves_waits_for_the_receipts_of_what_is_submitted_through_it() -> None:
    mesh = Mesh("abcd")
    mesh.rule = lambda source, to, message: not isinstance(message, Submitted)
    request = mesh.submit(D, mesh.spec("abc"))
    mesh.run(0.2)
    mesh.do(D, LeaveAsked())
    mesh.run(1.0)
    assert D not in mesh.left
    mesh.rule = lambda source, to, message: True
    mesh.run_until(lambda: D in mesh.left)
    assert mesh.submits[request].receipts[0].error is None


def test_who_waits_for_a_job_at_a_node_that_ends_is_told_how_it_is_now() -> None:
    mesh = Mesh("abcd")
    mesh.verdict = endless
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    waiting = mesh.read(D, spec.id, wait_s=60.0)
    mesh.run(0.5)
    assert waiting not in mesh.reads
    mesh.do(D, LeaveAsked())
    mesh.run_until(lambda: D in mesh.left, limit_s=5.0)
    assert mesh.reads[waiting].records[spec.id].state is State.RUNNING


def test_a_submission_that_is_not_decided_when_its_node_ends_is_answered_as_unknown() -> None:
    mesh = Mesh("abc")
    mesh.rule = lambda source, to, message: not isinstance(message, Submitted)
    request = mesh.submit(C, mesh.spec("ab"))
    mesh.run(0.2)
    mesh.do(C, StopAsked())
    assert isinstance(mesh.submits[request].receipts[0].error, OutcomeUnknown)


def test_a_node_that_leaves_waits_until_a_drained_holder_has_how_its_last_job_ended() -> None:
    """Seed 792571: that holder called the start lost when the node was gone, and then the result came."""
    mesh = Mesh("ab", slots={A: 1, B: 0})
    mesh.verdict = lambda begun: None
    spec = mesh.spec("ab")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    drain(mesh, B)
    mesh.do(A, LeaveAsked())
    mesh.run(0.2)
    mesh.rule = lambda source, to, message: 0.1 if isinstance(message, Write) else True
    mesh.end_run(A, spec.id, mesh.begun[0].token, succeeded())
    mesh.run_until(lambda: A in mesh.left)
    assert mesh.record(B, spec.id).settled
    assert not mesh.record(B, spec.id).losses


def test_a_node_that_leaves_hands_what_nobody_could_take_to_who_is_undrained_meanwhile() -> None:
    """Seed 20036: it left with the only copies of finished jobs, though another took jobs by then."""
    mesh = Mesh("ab", settings=Settings(jobs=JobSettings(replicas=1)))
    over, goes_on = mesh.specs(2, "a")
    mesh.submit(A, over)
    mesh.run_until(lambda: mesh.settled(over.id))
    drain(mesh, B)
    mesh.run_until(lambda: is_drained(mesh, B))
    mesh.verdict = lambda begun: (2.0, succeeded())
    mesh.submit(A, goes_on)
    mesh.run_until(lambda: mesh.runs(goes_on.id) == [A])
    mesh.do(A, LeaveAsked())
    mesh.run(0.5)
    assert not mesh.has(B, over.id)
    ask(mesh, B, B, Wish(Change.UNDRAIN))
    mesh.run_until(lambda: A in mesh.left, limit_s=5.0)
    assert mesh.left == {A: True}
    assert all(mesh.has_settled(B, spec.id) for spec in (over, goes_on))
