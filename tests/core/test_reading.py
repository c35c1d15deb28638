"""Reads for local clients, and what others are told of what is here."""

from __future__ import annotations

import pytest
from job_mesh import WALL, A, B, C, D, Mesh, job_id, let_pass, make_desk, make_record, succeeded

from edgenode.core.errors import EdgeNodeError, JobNotFound, Undecided
from edgenode.core.jobs import decided, settled
from edgenode.core.reading import Reading
from edgenode.core.signals import (
    LeaveAsked,
    LinkDown,
    RequestDropped,
    RequestId,
)
from edgenode.core.types import JobId, NodeId, Seconds, State
from edgenode.core.view import Standing
from edgenode.core.wire import (
    CONTROL,
    FRAME_BYTES_MAX,
    Copies,
    Evidence,
    Read,
    ReadAnswer,
    Write,
)
from edgenode.core.wire import encode as frame_of


def error_of(mesh: Mesh, request: RequestId, job: JobId) -> EdgeNodeError:
    mesh.run_until(lambda: request in mesh.reads)
    return mesh.reads[request].errors[job]


def test_a_read_shows_what_the_owner_says_rather_than_an_older_copy() -> None:
    mesh = Mesh("abcd")
    mesh.verdict = lambda begun: None
    spec = mesh.spec("abc")
    mesh.rule = lambda source, to, message: not (to in (B, C) and isinstance(message, Copies))
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    mesh.rule = lambda source, to, message: not (to in (B, C) and isinstance(message, Write | Copies))
    mesh.end_run(A, spec.id, mesh.begun[0].token, succeeded())
    request = mesh.read(D, spec.id)
    mesh.run_until(lambda: request in mesh.reads)
    done = mesh.reads[request]
    assert done.records[spec.id].state is State.SUCCEEDED
    assert not done.records[spec.id].settled
    assert done.firm == {spec.id}
    assert mesh.record(B, spec.id).state is State.RUNNING


def test_a_read_does_not_wait_for_slow_holders_when_the_owner_has_answered() -> None:
    mesh = Mesh("abcd", tasks=dict.fromkeys((A, B, C, D), ("other",)))
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run(0.1)
    mesh.rule = lambda source, to, message: not (source in (B, C) and isinstance(message, ReadAnswer))
    request = mesh.read(D, spec.id)
    mesh.run_until(lambda: request in mesh.reads, limit_s=0.1)
    assert mesh.reads[request].records[spec.id].owner == A


def test_a_job_that_nobody_knows_is_not_found_when_all_have_said_so() -> None:
    mesh = Mesh("abcd")
    job = mesh.spec("abc").id
    request = mesh.read(D, job)
    assert isinstance(error_of(mesh, request, job), JobNotFound)
    assert {sent.to for sent in mesh.sent if isinstance(sent.message, Read)} == {A, B, C}


def test_a_job_is_not_denied_while_a_dead_member_may_have_it() -> None:
    mesh = Mesh("abcd")
    mesh.kill(C)
    mesh.run_until(lambda: mesh.nodes[D].view.standing(C) is Standing.GONE)
    job = mesh.spec("abc").id
    error = error_of(mesh, mesh.read(D, job), job)
    assert isinstance(error, Undecided)
    assert not error.definite
    assert error.context["lasting"] is True


def test_a_silence_that_may_end_soon_is_not_called_lasting() -> None:
    mesh = Mesh("abcd")
    mesh.kill(C)
    mesh.run_until(lambda: mesh.nodes[D].view.standing(C) is Standing.GONE)
    mesh.rule = lambda source, to, message: source != B or not isinstance(message, ReadAnswer)
    job = mesh.spec("abc").id
    error = error_of(mesh, mesh.read(D, job), job)
    assert isinstance(error, Undecided)
    assert error.context["lasting"] is False


def test_a_member_that_handed_everything_over_is_not_asked_for_a_no() -> None:
    mesh = Mesh("abcd")
    mesh.do(C, LeaveAsked())
    mesh.run_until(lambda: mesh.left == {C: True} and mesh.nodes[D].view.has_left(C))
    job = mesh.spec("ab").id
    assert isinstance(error_of(mesh, mesh.read(D, job), job), JobNotFound)


def test_a_member_that_seemed_dead_until_its_goodbye_was_heard_is_not_asked_for_a_no() -> None:
    """And nobody who asks one that took it for dead is left unsure."""
    mesh = Mesh("abcd", slots={C: 1, D: 1})
    running = mesh.spec("c")
    mesh.submit(C, running)
    mesh.run(0.1)
    mesh.do(C, LeaveAsked())
    mesh.run_until(lambda: mesh.nodes[D].view.is_leaving(C))
    mesh.run(0.1)
    mesh.rule = lambda source, to, message: to != D or not isinstance(message, CONTROL)
    mesh.run_until(lambda: mesh.left == {C: True})
    mesh.do(D, LinkDown(C, 1, True))
    mesh.tell(A, D, Evidence(C, 1, 0))
    assert mesh.nodes[D].view.standing(C) is Standing.GONE
    job = mesh.spec("ab").id
    assert isinstance(error_of(mesh, mesh.read(A, job), job), Undecided)
    mesh.rule = let_pass
    mesh.run_until(lambda: mesh.nodes[D].view.has_left(C))
    assert isinstance(error_of(mesh, mesh.read(A, job), job), JobNotFound)


def test_a_job_whose_next_owner_is_still_asking_is_undecided() -> None:
    mesh = Mesh("abcd")
    mesh.cut((A, C), (A, B))
    mesh.run_until(lambda: mesh.nodes[D].view.standing(A) is Standing.LIVING)
    job = mesh.spec("abc").id
    mesh.rule = lambda source, to, message: not isinstance(message, Read)
    request = mesh.read(D, job)
    mesh.run(0.01)
    for name in (A, B, C):
        asking = (job,) if name == B else ()
        mesh.tell(name, D, ReadAnswer(request, (), (), (), asking, (job,), False, True))
    for name in (A, B, C):
        mesh.tell(name, D, ReadAnswer(request, (), (), (), (), (job,), False, True))
    assert isinstance(error_of(mesh, request, job), Undecided)


def test_a_node_that_has_met_nobody_denies_no_job() -> None:
    mesh = Mesh("abc", knows_peers=True)
    for name in (A, B, C):
        mesh.kill(name)
    mesh.boot(B, meets=())
    mesh.run(20.0)
    job = mesh.spec("abc").id
    assert isinstance(error_of(mesh, mesh.read(B, job), job), Undecided)


def test_a_wait_ends_when_the_job_is_settled() -> None:
    mesh = Mesh("abcd")
    mesh.verdict = lambda begun: (5.0, succeeded())
    spec = mesh.spec("abc")
    mesh.submit(D, spec)
    mesh.run(0.1)
    request = mesh.read(D, spec.id, wait_s=30.0)
    mesh.run_until(lambda: request in mesh.reads)
    assert mesh.reads[request].records[spec.id].settled
    assert mesh.now - mesh.begun[0].at == pytest.approx(5.0, abs=0.1)
    assert len(mesh.messages(Read, source=D)) < 60


def test_a_wait_ends_with_what_is_there_when_its_time_is_up() -> None:
    mesh = Mesh("abcd")
    mesh.verdict = lambda begun: None
    spec = mesh.spec("abc")
    mesh.submit(D, spec)
    mesh.run(0.1)
    began, request = mesh.now, mesh.read(D, spec.id, wait_s=4.0)
    mesh.run_until(lambda: request in mesh.reads)
    assert mesh.now - began == pytest.approx(4.0, abs=0.05)
    assert mesh.reads[request].records[spec.id].state is State.RUNNING


def test_a_wait_at_a_lone_owner_shows_how_things_are_when_it_ends() -> None:
    mesh = Mesh("a")
    mesh.verdict = lambda begun: None
    spec = mesh.spec("a", run_at=WALL + 3.0)
    mesh.submit(A, spec)
    mesh.run(0.1)
    request = mesh.read(A, spec.id, wait_s=10.0)
    mesh.run_until(lambda: request in mesh.reads)
    assert mesh.reads[request].records[spec.id].state is State.RUNNING


@pytest.mark.parametrize(("asked", "on_the_way_s"), [(C, 1.5), (D, 2.5)])
def test_a_wait_for_a_provisional_end_is_answered_as_unsettled_after_a_while(
    asked: NodeId, on_the_way_s: Seconds
) -> None:
    """At its owner, and elsewhere."""
    mesh = Mesh("abcd", slots={A: 2, B: 2, C: 2, D: 0})
    mesh.verdict = lambda begun: (3.0, succeeded())
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run(0.1)
    for name in (A, B):
        mesh.kill(name)
    mesh.run_until(lambda: mesh.runs(spec.id)[-1] == C)
    request = mesh.read(asked, spec.id, wait_s=60.0)
    mesh.run_until(lambda: request in mesh.reads)
    found = mesh.reads[request].records[spec.id]
    assert (found.state, found.settled) == (State.SUCCEEDED, False)
    assert mesh.reads[request].firm == frozenset()
    waited = mesh.now - mesh.begun[-1].at - 3.0
    assert mesh.settings.jobs.unsettled_s <= waited <= mesh.settings.jobs.unsettled_s + on_the_way_s


def test_a_read_that_is_over_leaves_nothing_behind() -> None:
    mesh = Mesh("abc")
    jobs = [job_id(number) for number in range(5)]
    requests = [mesh.read(B, job, wait_s=2.0) for job in jobs]
    dropped = mesh.read(B, jobs[0], wait_s=60.0)
    mesh.do(B, RequestDropped(dropped))
    mesh.run_until(lambda: all(request in mesh.reads for request in requests))
    mesh.run(0.1)
    reading = mesh.nodes[B]._questions.reading
    assert (len(reading._reads), len(reading._followers)) == (0, 0)
    assert dropped not in mesh.reads


def test_a_reader_that_asks_no_more_is_forgotten_while_the_job_runs_on() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: None
    spec = mesh.spec("a")
    mesh.submit(A, spec)
    for _ in range(40):
        mesh.read(B, spec.id, wait_s=1.0)
        mesh.run(1.0)
    lasting = mesh.read(C, spec.id, wait_s=60.0)
    mesh.run(30.0)
    mesh.read(B, spec.id, wait_s=1.0)
    mesh.run(0.1)
    assert len(mesh.nodes[A]._questions.reading._followers) == 2
    mesh.end_run(A, spec.id, mesh.begun[0].token, succeeded())
    ended_at = mesh.now
    mesh.run_until(lambda: lasting in mesh.reads)
    assert mesh.now - ended_at < 0.3, "it is told, and need not ask"


def test_followers_on_other_nodes_are_forgotten_when_the_job_ends() -> None:
    mesh = Mesh("abcd")
    mesh.verdict = lambda begun: (2.0, succeeded())
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run(0.1)
    requests = [mesh.read(name, spec.id, wait_s=10.0) for name in (B, C, D)]
    mesh.run_until(lambda: all(request in mesh.reads for request in requests))
    mesh.run(0.1)
    assert all(len(node._questions.reading._followers) == 0 for node in mesh.nodes.values())


def test_a_read_of_many_large_results_travels_in_frames_that_a_peer_takes() -> None:
    desk = make_desk(A, B)
    jobs = []
    for number in range(20):
        record = make_record(job_id(number), (A, B))
        done = settled(decided(record, State.SUCCEEDED, firm=True, at=WALL, result=b" " * 1_000_000))
        desk.table.put(done)
        jobs.append(done.id)
    Reading(desk, lambda job: "").on_read(B, Read(1, tuple(jobs), False), lambda job: False)
    frames = [frame_of(send.message) for send in desk.post.flush()]
    assert sum(len(frame) for frame in frames) > 20_000_000
    assert max(len(frame) for frame in frames) < FRAME_BYTES_MAX
