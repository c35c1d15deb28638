"""A whole node: the order of its effects, its lives, and leaving."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from job_mesh import A, B, C, D, Mesh, job_id, sends, succeeded

from edgenode.core import wire
from edgenode.core.custody import Custody
from edgenode.core.job_bytes import decode
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.signals import (
    Booted,
    Changed,
    ClockRead,
    Effect,
    LeaveAsked,
    Left,
    LinkDown,
    LinkUp,
    MessageArrived,
    Persist,
    Run,
    Send,
    StopAsked,
    TimePassed,
)
from edgenode.core.specs import encode_spec
from edgenode.core.types import (
    Ballot,
    JobId,
    Load,
    NodeId,
    Partition,
    Promise,
    Room,
    StartToken,
    State,
)
from edgenode.core.wire import (
    CONTROL,
    Acks,
    Grant,
    Ping,
    Pong,
    Recall,
    Stored,
    Submit,
    Submitted,
    Vote,
    Write,
)


def job_effects(effects: list[object]) -> list[object]:
    return [e for e in effects if not isinstance(e, Send) or not isinstance(e.message, CONTROL)]


# --------------------------------------------------------------------------------- lives of one identity


def test_what_an_earlier_life_of_a_member_said_counts_no_more() -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("abc")
    mesh.rule = lambda source, to, message: not isinstance(message, Acks)
    mesh.tell(A, A, Submit(1, 0, (mesh.item(spec),)))
    mesh.kill(B)
    mesh.boot(B)
    mesh.run(0.1)
    assert mesh.nodes[A].view.boot_of(B) == 2
    acks = Acks((Stored(spec.id, 0, Ballot(1, A), 1, False),))
    runs = [
        [effect for effect in mesh.do(A, MessageArrived(B, acks, boot)) if isinstance(effect, Run)]
        for boot in (1, 2)
    ]
    assert [len(started) for started in runs] == [0, 1]


def votes(effects: list[Effect], to: NodeId) -> list[Effect]:
    """What `to` is told that needs a vote."""
    sends = [effect for effect in effects if isinstance(effect, Send) and effect.to == to]
    return [send for send in sends if isinstance(send.message, Vote | Grant)]


def test_nothing_that_needs_a_vote_is_said_over_a_link_before_its_other_end_has_told_what_it_knows() -> None:
    """A met nobody at first, and so has a vote; B, which it meets then, may remember more than its disk."""
    mesh = Mesh("ab")
    mesh.do(A, Booted((), (), past=()))
    mesh.run(1.0)
    boot, spec = mesh.boots[B], mesh.spec("ab")
    mesh.do(A, LinkDown(B, boot, False))
    met = mesh.do(A, LinkUp(B, boot, (B, 1)))
    assert Recall(1, ()) in [effect.message for effect in met if isinstance(effect, Send)]
    submitted = mesh.tell(A, A, Submit(1, 0, (mesh.item(spec),)))
    assert any(isinstance(effect, Persist) for effect in submitted)
    assert not votes(submitted, B)
    mesh.run_until(lambda: mesh.settled(spec.id), limit_s=5.0)
    again = mesh.tell(A, A, Submit(2, 0, (mesh.item(mesh.spec("ab")),)))
    assert votes(again, B)


# ----------------------------------------------------------------------------------- order of effects


def test_the_disk_comes_before_everything_that_leaves_the_node() -> None:
    mesh = Mesh("a")
    spec = mesh.spec("a")
    effects = mesh.tell(A, A, Submit(1, 0, (mesh.item(spec),)))
    kinds = [type(effect) for effect in job_effects(list(effects))]
    assert kinds[0] is Persist
    assert kinds.count(Persist) == 1
    assert Run in kinds
    assert Changed in kinds


def test_a_job_that_finds_a_free_slot_is_stored_as_running_in_the_first_place() -> None:
    mesh = Mesh("a")
    spec = mesh.spec("a")
    persist = mesh.tell(A, A, Submit(1, 0, (mesh.item(spec),)))[0]
    assert isinstance(persist, Persist)
    (stored,) = persist.rows
    assert decode(stored.row.blob).state is State.RUNNING


def test_every_record_of_a_batch_is_in_one_persist_and_one_message_to_each_holder() -> None:
    mesh = Mesh("abc", tasks=dict.fromkeys((A, B, C), ("other",)))
    items = tuple(mesh.item(spec) for spec in mesh.specs(300, "abc"))
    effects = mesh.tell(B, A, Submit(1, 0, items))
    persists = [effect for effect in effects if isinstance(effect, Persist)]
    assert [len(persist.rows) for persist in persists] == [300]
    writes = [e for e in effects if isinstance(e, Send) and isinstance(e.message, Write)]
    assert sorted(send.to for send in writes) == [B, C]


def test_time_must_not_go_backwards() -> None:
    mesh = Mesh("a")
    with pytest.raises(AssertionError):
        mesh.nodes[A].handle(TimePassed(), mesh.now - 1.0)


def test_the_same_events_give_the_same_effects() -> None:
    def story() -> list[str]:
        mesh = Mesh("abcd")
        specs = [mesh.spec() for _ in range(20)]
        mesh.submit(B, *specs)
        mesh.run(0.4)
        mesh.kill(A)
        mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs))
        return [f"{sent.at:.6f} {sent.source} {sent.to} {sent.message!r}" for sent in mesh.sent]

    assert story() == story()


# --------------------------------------------------------------------------------- memory and lives


def test_finished_jobs_leave_memory_on_every_holder_and_are_still_read() -> None:
    mesh = Mesh("abc")
    specs = mesh.specs(40, "abc")
    mesh.submit(A, *specs)
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs))
    mesh.run(6.0)
    for name in (A, B, C):
        assert len(mesh.nodes[name].desk.table) == 0
        assert all(mesh.record(name, spec.id).settled for spec in specs)
        assert mesh.nodes[name].desk.table.leads == {}


def test_a_finished_mesh_keeps_no_timers_of_its_jobs() -> None:
    mesh = Mesh("abc")
    specs = mesh.specs(40, "abc")
    mesh.submit(A, *specs)
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs))
    mesh.run(6.0)
    for name in (A, B, C):
        node = mesh.nodes[name]
        checks = node._custody._checks
        assert len(checks.later) == 0
        assert len(checks.confirmed) == len(checks.offered) == 0
        assert len(node._replication._due) == len(node._replication._marks_due) == 0


def test_all_jobs_finish_when_all_nodes_lost_power_with_them() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: (3.0, succeeded())
    specs = [mesh.spec() for _ in range(20)]
    for number, spec in enumerate(specs):
        mesh.submit((A, B, C)[number % 3], spec)
    mesh.run(0.5)
    accepted = len(mesh.submits)
    assert accepted == 20
    for name in (A, B, C):
        mesh.kill(name, silently=True)
    mesh.run(5.0)
    mesh.verdict = lambda begun: (0.1, succeeded())
    for name in (A, B, C):
        mesh.boot(name)
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs))
    assert {mesh.record(A, spec.id).state for spec in specs} == {State.SUCCEEDED}


def test_a_killed_node_that_returns_runs_jobs_again() -> None:
    mesh = Mesh("abc")
    mesh.kill(B)
    mesh.run(3.0)
    mesh.boot(B)
    mesh.run_until(lambda: all(node.ready and len(node.view.ranking()) == 3 for node in mesh.nodes.values()))
    mesh.run(0.5)
    spec = mesh.spec("b")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert mesh.runs(spec.id) == [B]


def test_a_node_is_not_ready_before_it_has_met_a_peer_or_the_formation_time_is_over() -> None:
    mesh = Mesh("ab")
    mesh.kill(A)
    mesh.kill(B)
    mesh.boot(A, meets=())
    assert not mesh.nodes[A].ready
    mesh.run(mesh.settings.membership.formation_s - 0.2)
    assert not mesh.nodes[A].ready
    mesh.run_until(lambda: mesh.nodes[A].ready, limit_s=1.0)


def test_a_node_that_stood_still_says_so_and_owns_nothing() -> None:
    mesh = Mesh("abc", tasks=dict.fromkeys((A, B, C), ("other",)))
    specs = mesh.specs(10, "abc")
    mesh.submit(A, *specs)
    mesh.run(0.5)
    mesh.now += 10.0
    mesh.do(A, TimePassed())
    assert "stalled" in {log.kind for name, log in mesh.logs if name == A}
    assert not any(mesh.lead(A, spec.id) for spec in specs)
    mesh.run_until(lambda: all(any(mesh.is_firm(n, spec.id) for n in (A, B, C)) for spec in specs))


# ------------------------------------------------------------------------------------------ stopping


def test_a_stop_ends_at_once_and_is_not_held_against_the_jobs() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: None if begun.node == A else (0.1, succeeded())
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    mesh.run(0.1)
    effects = mesh.do(A, StopAsked())
    assert [effect for effect in effects if isinstance(effect, Left)] == [Left(False)]
    assert [name for name, job, _ in mesh.stopped] == [A]
    mesh.run(0.01)
    mesh.kill(A)
    mesh.run_until(lambda: mesh.has_settled(B, spec.id))
    record = mesh.record(B, spec.id)
    assert (record.state, record.losses) == (State.SUCCEEDED, ())
    assert mesh.do(B, StopAsked()).count(Left(False)) == 1
    assert mesh.do(B, StopAsked()).count(Left(False)) == 0  # once


# ------------------------------------------------------------------------------------------- leaving


def test_a_graceful_leave_runs_nothing_twice() -> None:
    mesh = Mesh("abcd")
    mesh.verdict = lambda begun: (2.0, succeeded())
    specs = [mesh.spec() for _ in range(30)]
    for number, spec in enumerate(specs):
        mesh.submit((A, B, C, D)[number % 4], spec)
    mesh.run(1.0)
    running_on_a = {begun.job for begun in mesh.begun if begun.node == A}
    assert running_on_a
    mesh.do(A, LeaveAsked())
    mesh.run_until(lambda: A in mesh.left)
    assert mesh.left[A] is True
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs))
    assert Counter(begun.job for begun in mesh.begun) == dict.fromkeys((spec.id for spec in specs), 1)
    for spec in specs:
        living = next(name for name in mesh.holders(spec.id) if name != A)
        assert mesh.record(living, spec.id).start_count == 1
        assert mesh.record(living, spec.id).losses == ()


def test_a_leaving_node_gives_its_jobs_to_the_next_holder_before_it_goes() -> None:
    mesh = Mesh("abc", tasks=dict.fromkeys((A, B, C), ("other",)))
    specs = mesh.specs(50, "abc")
    mesh.submit(A, *specs)
    mesh.run(0.5)
    mesh.do(A, LeaveAsked())
    mesh.run_until(lambda: A in mesh.left)
    assert mesh.left == {A: True}
    assert all(mesh.is_firm(B, spec.id) for spec in specs)
    mesh.run_until(lambda: mesh.nodes[B].view.has_left(A), limit_s=1.0)


def test_a_leaving_node_starts_nothing_and_takes_no_grant() -> None:
    mesh = Mesh("abcd", slots={A: 1, B: 0, C: 0, D: 1})
    mesh.verdict = lambda begun: None
    busy = mesh.spec("abc")
    mesh.submit(A, busy)
    mesh.run_until(lambda: len(mesh.begun) == 1)
    leaver = mesh.begun[0].node
    mesh.do(leaver, LeaveAsked())
    mesh.submit(B, *[mesh.spec("bc") for _ in range(5)])
    mesh.run(5.0)
    assert Counter(begun.node for begun in mesh.begun)[leaver] == 1
    assert not [sent for sent in mesh.sent if sent.to == leaver and isinstance(sent.message, Grant)]


def test_a_leaving_holder_does_not_take_over_while_another_stays() -> None:
    mesh = Mesh("abcd", slots={A: 0, B: 1, C: 0, D: 0})
    mesh.verdict = lambda begun: None
    busy, spec = mesh.spec("b"), mesh.spec("abc", task="nobody")
    mesh.submit(A, busy, spec)
    mesh.run_until(lambda: mesh.runs(busy.id) == [B] and mesh.has(C, spec.id))
    mesh.do(B, LeaveAsked())  # it stays while its job runs, for some time
    mesh.run(0.1)
    mesh.kill(A)
    mesh.run_until(lambda: mesh.is_firm(C, spec.id), limit_s=5.0)
    assert B in mesh.up
    mesh.run(0.1)
    assert mesh.record(C, spec.id).owner == C
    assert mesh.lead(B, spec.id) is None


@pytest.mark.parametrize(
    ("partition", "dead"), [(Partition.RUN, (B, C)), (Partition.WAIT, (C,))], ids=["last copy", "needed vote"]
)
def test_what_others_need_here_is_not_said_to_be_handed_over(
    partition: Partition, dead: tuple[NodeId, ...]
) -> None:
    mesh = Mesh("abc", slots=0)
    spec = mesh.spec("abc", partition=partition)
    mesh.submit(A, spec)
    mesh.run(0.5)
    for name in dead:
        mesh.kill(name)
    mesh.run(0.5)
    mesh.do(A, LeaveAsked())
    mesh.run_until(lambda: A in mesh.left)
    assert mesh.left == {A: False}


def test_a_lone_node_without_jobs_has_nothing_to_hand_over() -> None:
    mesh = Mesh("a")
    mesh.do(A, LeaveAsked())
    mesh.run_until(lambda: A in mesh.left, limit_s=1.0)
    assert mesh.left == {A: True}


def test_two_that_leave_at_once_leave_the_jobs_with_somebody() -> None:
    mesh = Mesh("abcd", slots=0)
    specs = [mesh.spec("ab") for _ in range(10)]
    mesh.submit(A, *specs)
    mesh.run(0.5)
    for name in (A, B):
        mesh.do(name, LeaveAsked())
    mesh.run_until(lambda: {A, B} <= mesh.left.keys())
    mesh.run(1.0)
    for spec in specs:
        assert mesh.has(C, spec.id) or mesh.has(D, spec.id)


def with_finished_jobs(letters: str) -> tuple[Mesh, list[JobId]]:
    """Each job has two holders, A and B."""
    mesh = Mesh(letters, settings=Settings(jobs=JobSettings(replicas=2)))
    specs = mesh.specs(5, "ab")
    jobs = [spec.id for spec in specs]
    mesh.submit(A, *specs)
    mesh.run_until(lambda: all(mesh.settled(job) for job in jobs))
    mesh.run(1.0)
    return mesh, jobs


@pytest.mark.parametrize("late_s", [0.0, 0.2])
def test_of_two_that_leave_at_once_none_counts_on_the_other_for_the_last_copies(late_s: float) -> None:
    """Neither when it knows that the other leaves, nor before."""
    mesh, jobs = with_finished_jobs("abcd")
    mesh.rule = lambda source, to, message: late_s if isinstance(message, CONTROL) else True
    for name in (A, B):
        mesh.do(name, LeaveAsked())
    mesh.run_until(lambda: {A, B} <= mesh.left.keys())
    assert all(mesh.has_settled(C, job) or mesh.has_settled(D, job) for job in jobs)


def test_who_leaves_looks_again_when_one_that_it_counted_on_dies() -> None:
    mesh, jobs = with_finished_jobs("abcd")
    mesh.verdict = lambda begun: (3.0, succeeded())
    mesh.submit(A, mesh.spec("ac"))
    mesh.run_until(lambda: mesh.nodes[A].desk.table.leads != {})
    mesh.do(A, LeaveAsked())  # it finishes first what it runs; B has the other jobs
    mesh.run(1.0)
    assert A not in mesh.left
    mesh.kill(B)
    mesh.run_until(lambda: A in mesh.left)
    assert mesh.left[A] is True
    assert all(mesh.has_settled(C, job) or mesh.has_settled(D, job) for job in jobs)


def test_finished_jobs_are_on_other_disks_before_their_last_holders_are_gone() -> None:
    mesh = Mesh("abcd")
    specs = mesh.specs(20, "abc")
    mesh.submit(A, *specs)
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs))
    mesh.run(1.0)
    for name in (A, B, C):
        mesh.do(name, LeaveAsked())
        mesh.run_until(lambda name=name: name in mesh.left)  # type: ignore[misc]
    assert mesh.left[A] is True
    mesh.run(1.0)
    assert all(mesh.has_settled(D, spec.id) for spec in specs)


def test_a_leave_ends_in_bounded_time_although_a_run_goes_on() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: None
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    mesh.run(0.1)
    began = mesh.now
    mesh.do(A, LeaveAsked())
    mesh.run_until(lambda: A in mesh.left)
    jobs = mesh.settings.jobs
    assert jobs.drain_s - 0.1 <= mesh.now - began <= jobs.drain_s + jobs.give_s + 0.5


def test_repeated_wishes_to_leave_say_goodbye_once() -> None:
    mesh = Mesh("ab")
    lefts = mesh.do(A, LeaveAsked()) + mesh.do(A, LeaveAsked())
    mesh.run(0.01)
    assert sum(isinstance(effect, Left) for effect in lefts) <= 1
    mesh.run_until(lambda: A in mesh.left, limit_s=1.0)


# ---------------------------------------------------------------------------- what peers can send


def test_messages_about_unknown_jobs_do_no_harm() -> None:
    mesh = Mesh("abc")
    job, token = job_id(5), StartToken(3, B, 1)
    item = wire.TokenItem(job, token)
    strange: list[wire.Message] = [
        wire.Write((b"nonsense",)),
        wire.Acks((wire.Stored(job, 0, Ballot(1, A), 0, False),)),
        wire.Refused((wire.Refusal(job, 0, Ballot(1, A), Promise(9, Ballot(9, B)), b"x"),)),
        wire.Promises((wire.Promised(job, 0, 2, False, b""),)),
        wire.Offer((wire.Digest(job, b""),)),
        wire.Taken((wire.Digest(job, b""),)),
        wire.Wanted((job,)),
        wire.Copies((b"\xc1",)),
        wire.Marks((wire.Mark(job, 0, Ballot(1, B)),)),
        wire.Marked((job,)),
        wire.Gift((wire.GiftItem(job, Ballot(1, B)),)),
        wire.WantWork(Room(10**9)),
        wire.Grant((wire.GrantItem(job, token, 1, b"x"),)),
        wire.Result((wire.ResultItem(job, token, C, succeeded(), 0.0, False),)),
        wire.ResultTaken((item,)),
        wire.Have((item,)),
        wire.Has(1, (item,), (item,), (item,)),
        wire.Stop((item,)),
        Submit(1, 0, (mesh.item(mesh.spec("abc"))._replace(holders=()),)),
        Submitted(99, (wire.SubmitAnswer(job, (), ""),)),
        wire.Read(1, (job,), True),
        wire.ReadAnswer(99, (b"x",), (), (), (), (), False, True),
        wire.SearchAnswer(99, (b"x",), b""),
        wire.Inspect(1, job),
        wire.Inspected(99, b"x"),
        wire.DescribeTasks(99, ("nobody's", "")),
        wire.TasksDescribed(99, (wire.TaskItem("t", b"x", -1.0, 0, "fast", 2.0, 1.0, True),), True),
    ]
    for message in strange:
        mesh.tell(B, A, message)
    mesh.run(2.0)
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))


@pytest.mark.parametrize(
    "options", [None, {"priority": "high", "task": "nobody"}, {"run_at": "soon"}], ids=str
)
def test_a_submission_that_makes_no_sense_does_no_harm(options: dict[str, Any] | None) -> None:
    """From a peer with another version, say: it must not end this node, nor each next holder in turn."""
    mesh = Mesh("abc")
    spec = mesh.spec("abc", **(options or {}))
    blob = b"nonsense" if options is None else encode_spec(spec)
    mesh.tell(B, A, Submit(1, 0, (wire.SubmitItem(blob, (A, B, C)),)))
    mesh.run(1.0)
    after = mesh.spec("abc")
    mesh.submit(A, after)
    mesh.run_until(lambda: mesh.settled(after.id))


# ------------------------------------------------------------------------------------------------ at rest


def test_a_ping_at_rest_is_answered_and_costs_no_look_at_anything_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mesh = Mesh("abc")
    mesh.run(2.0)
    looks: list[object] = []
    monkeypatch.setattr(Custody, "on_time", lambda custody: looks.append(custody))
    mesh.do(A, ClockRead(mesh.wall()))
    assert len(looks) == 1
    assert len(sends(mesh.do(A, MessageArrived(B, Ping(7, A, Load(), ()))), Pong)) == 1
    assert len(looks) == 1


def test_what_is_due_is_done_although_only_membership_talks() -> None:
    """Timers of jobs run out while pings come in, and nothing else does."""
    mesh = Mesh("abc")
    mesh.submit(A, spec := mesh.spec("abc", run_at=mesh.wall() + 1.0))
    mesh.run(0.5)
    due = mesh.now + 0.5
    while mesh.now < due + 0.1:
        mesh.now += 0.01
        mesh.do(A, MessageArrived(B, Ping(7, A, Load(), ())))
    assert mesh.record(A, spec.id).own.state is State.RUNNING
