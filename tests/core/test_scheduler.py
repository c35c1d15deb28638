"""Which job starts when and where, and what becomes of each start."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from job_mesh import (
    DAY_S,
    WALL,
    A,
    B,
    Begun,
    C,
    D,
    Mesh,
    failed,
    job_id,
    let_pass,
    make_record,
    make_spec,
    sends,
    succeeded,
)

from edgenode.core import jobs, runner, scheduler
from edgenode.core.job_bytes import encode
from edgenode.core.jobs import new_record
from edgenode.core.scheduler import backoff_s
from edgenode.core.signals import RunEnded, Send, SlotsChanged
from edgenode.core.specs import encode_spec
from edgenode.core.types import (
    Backoff,
    Ballot,
    Delivery,
    JobId,
    NodeId,
    Partition,
    Promise,
    Room,
    Seconds,
    StartToken,
    State,
)
from edgenode.core.wire import (
    CONTROL,
    Acks,
    Ask,
    AskItem,
    Copies,
    Grant,
    GrantItem,
    Has,
    Have,
    Message,
    Refusal,
    Refused,
    Result,
    ResultItem,
    ResultTaken,
    Stop,
    TokenItem,
    Verdict,
    WantWork,
    Write,
)

ONLY_D = {A: 0, B: 0, C: 0, D: 2}
"""Slots: the holders of a job own it, and D, which holds nothing, runs it."""
STRICT = [{"delivery": Delivery.AT_MOST_ONCE}, {"partition": Partition.WAIT}]


def endless(begun: Begun) -> None:
    return None


def history(mesh: Mesh, name: NodeId, job: JobId) -> list[str]:
    return [note.kind for note in mesh.record(name, job).history]


def on_d(**options: Any) -> tuple[Mesh, JobId]:
    """A owns the job, D runs it; its run has begun and does not end by itself."""
    mesh = Mesh("abcd", slots=ONLY_D)
    mesh.verdict = endless
    spec = mesh.spec("a", not_on="d", **options)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [D])
    mesh.run(0.1)
    return mesh, spec.id


def cancel(mesh: Mesh, source: NodeId, owner: NodeId, job: JobId) -> None:
    """Somebody's copy says that the job is not wanted any more."""
    wanted = mesh.record(owner, job)._replace(cancel=True)
    mesh.tell(source, owner, Copies((encode(wanted),)))


# ------------------------------------------------------------------------------------- plain starts


def test_a_job_runs_once_and_its_result_is_kept() -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("abc")
    mesh.submit(C, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    record = mesh.record(B, spec.id)
    assert (record.state, record.start_count) == (State.SUCCEEDED, 1)
    assert record.outcome is not None
    assert (record.outcome.result, record.outcome.runner) == (b'"done"', A)
    assert mesh.runs(spec.id) == [A]


def test_no_run_begins_before_the_disk_says_running() -> None:
    """Neither of a job that finds a slot free, nor of one that had to wait for it."""
    mesh = Mesh("abc", slots={A: 1, B: 0, C: 0})
    specs = [mesh.spec("abc") for _ in range(2)]
    mesh.submit(A, *specs)
    for spec in specs:
        mesh.run_until(lambda job=spec.id: mesh.runs(job) == [A])  # type: ignore[misc]
        assert mesh.disks[A].rows[spec.id].state == State.RUNNING


def test_a_first_start_waits_for_the_acknowledgements_of_the_submission() -> None:
    mesh = Mesh("abc")
    mesh.rule = lambda source, to, message: not isinstance(message, Acks)
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run(3.0)
    assert mesh.runs(spec.id) == []
    mesh.rule = let_pass
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])


def test_a_job_that_had_to_queue_waits_for_its_acknowledgements_too() -> None:
    mesh = Mesh("abc", slots={A: 1, B: 0, C: 0})
    first, second = mesh.spec("abc"), mesh.spec("abc")
    mesh.submit(A, first)
    mesh.run_until(lambda: mesh.runs(first.id) == [A])
    mesh.rule = lambda source, to, message: not isinstance(message, Acks)
    mesh.submit(A, second)
    mesh.run(3.0)  # the first is long over
    assert mesh.record(A, first.id).outcome is not None
    assert mesh.runs(second.id) == []
    mesh.rule = let_pass
    mesh.run_until(lambda: mesh.runs(second.id) == [A])


def test_the_urgent_start_first_and_among_equals_the_oldest() -> None:
    mesh = Mesh("a", slots=1)
    first = mesh.spec("a")
    mesh.submit(A, first)
    mesh.run(0.1)
    low, old, new, high = (
        mesh.spec("a", priority=0),
        mesh.spec("a"),
        mesh.spec("a"),
        mesh.spec("a", priority=9),
    )
    old, new = sorted((old, new), key=lambda spec: spec.id)
    mesh.submit(A, low, new, old, high)
    mesh.run_until(lambda: len(mesh.begun) == 5)
    assert [begun.job for begun in mesh.begun] == [first.id, high.id, old.id, new.id, low.id]


def test_no_more_run_at_once_than_there_are_slots() -> None:
    mesh = Mesh("a", slots=3)
    mesh.verdict = endless
    mesh.submit(A, *mesh.specs(10, "a"))
    mesh.run(5.0)
    assert len(mesh.begun) == 3
    assert len(mesh.stopped) == 0


def test_a_thousand_jobs_that_nobody_can_run_hold_up_nobody() -> None:
    mesh = Mesh("abc")
    mesh.submit(A, *mesh.specs(1_200, "abc", task="nobody", priority=9))
    mesh.submit(A, *mesh.specs(50, "abc", requires=(("gpu", "yes"),), priority=9))
    mesh.run(1.0)
    specs = mesh.specs(8, "abc")  # more than A has slots: some wait in its lines, or go to B and C
    mesh.submit(A, *specs)
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs), limit_s=2.0)


def test_a_job_runs_only_where_the_labels_are() -> None:
    mesh = Mesh("abc", labels={C: (("gpu", "yes"),)})
    spec = mesh.spec("abc", requires=(("gpu", "yes"),))
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert mesh.runs(spec.id) == [C]


# --------------------------------------------------------------------------------- work for others


def test_an_idle_node_gets_work_from_a_peer_that_is_not_the_busiest() -> None:
    mesh = Mesh("abc", tasks={A: ("x",), B: ("x",), C: ("c",)})
    mesh.submit(B, *mesh.specs(10, "b", task="nobody"))
    mesh.run(2.0)
    spec = mesh.spec("a", task="c")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id), limit_s=30.0)
    assert mesh.runs(spec.id) == [C]


def test_a_node_whose_own_jobs_nobody_can_run_asks_for_others() -> None:
    mesh = Mesh("ab", tasks={A: ("x",), B: ("echo",)})
    mesh.submit(A, mesh.spec("a", task="nobody"))
    mesh.run(1.0)
    specs = [mesh.spec("b", task="x") for _ in range(3)]
    mesh.submit(B, *specs)
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs), limit_s=30.0)
    assert [begun.node for begun in mesh.begun] == [A, A, A]


def test_a_granted_start_runs_once_and_its_runner_is_thanked() -> None:
    mesh, job = on_d()
    token = mesh.begun[0].token
    mesh.end_run(D, job, token, succeeded())
    mesh.run_until(lambda: mesh.settled(job))
    mesh.run(1.0)
    assert mesh.runs(job) == [D]
    assert mesh.messages(ResultTaken, to=D) == [ResultTaken((TokenItem(job, token),))]
    assert mesh.record(A, job).start_count == 1


@pytest.mark.parametrize("options", [{}, {"delivery": Delivery.AT_MOST_ONCE}], ids=str)
def test_a_doubled_grant_of_a_finished_start_starts_nothing(options: dict[str, Any]) -> None:
    mesh, job = on_d(**options)
    (grant,) = mesh.messages(Grant, to=D)
    effects = mesh.tell(A, D, grant)
    assert not sends(effects, Has)
    mesh.end_run(D, job, mesh.begun[0].token, succeeded())
    mesh.tell(A, D, grant)  # the result is on its way
    mesh.run_until(lambda: mesh.settled(job))
    mesh.run(1.0)
    mesh.tell(A, D, grant)  # and now it has been thanked for
    mesh.run(5.0)
    assert mesh.runs(job) == [D]
    assert mesh.record(A, job).start_count == 1


def test_a_doubled_grant_of_a_stopped_start_starts_nothing() -> None:
    mesh, job = on_d()
    (grant,) = mesh.messages(Grant, to=D)
    cancel(mesh, B, A, job)
    mesh.run_until(lambda: mesh.settled(job))
    mesh.run(0.5)
    assert [(name, stopped) for name, stopped, _ in mesh.stopped] == [(D, job)]
    mesh.tell(A, D, grant)
    mesh.run(1.0)
    assert mesh.runs(job) == [D]


def test_a_lost_grant_is_noticed_and_the_job_starts_again() -> None:
    mesh = Mesh("abcd", slots=ONLY_D)
    lost: list[Message] = []

    def lose_the_first(source: NodeId, to: NodeId, message: Message) -> bool:
        if isinstance(message, Grant) and not lost:
            lost.append(message)
            return False
        return True

    mesh.rule = lose_the_first
    spec = mesh.spec("a", not_on="d")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert mesh.runs(spec.id) == [D]
    # The lost start was void: it does not count as one.
    assert mesh.record(A, spec.id).start_count == 1
    assert len(mesh.record(A, spec.id).voids) == 1
    assert mesh.record(A, spec.id).losses == ()


def test_a_start_that_was_reserved_at_its_submission_never_begins_after_its_deadline() -> None:
    mesh = Mesh("abc")
    mesh.rule = lambda source, to, message: 3.0 if isinstance(message, Acks) else True
    spec = mesh.spec("abc", deadline=mesh.wall() + 2.0)
    mesh.submit(A, spec)
    assert mesh.record(A, spec.id).own.state is State.RUNNING
    mesh.run_until(lambda: mesh.settled(spec.id))
    record = mesh.record(A, spec.id)
    assert (record.state, record.start_count, mesh.runs(spec.id)) == (State.EXPIRED, 0, [])


def test_a_grant_that_comes_after_its_deadline_starts_nothing() -> None:
    mesh = Mesh("abcd", slots=ONLY_D)
    mesh.rule = lambda source, to, message: 3.0 if isinstance(message, Grant) else True
    spec = mesh.spec("a", not_on="d", deadline=mesh.wall() + 2.0)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert (mesh.record(A, spec.id).state, mesh.runs(spec.id)) == (State.EXPIRED, [])


def test_a_late_grant_of_a_settled_job_starts_nothing_at_a_holder() -> None:
    mesh = Mesh("abc", slots={A: 0, B: 1, C: 0})
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    mesh.run(1.0)
    (grant,) = mesh.messages(Grant, to=B)
    item = grant.items[0]
    later = item._replace(token=item.token._replace(start=9))
    mesh.tell(A, B, Grant((later,)))
    mesh.run(1.0)
    assert mesh.runs(spec.id) == [B]


def test_where_a_start_was_void_is_forgotten_with_the_job() -> None:
    mesh = Mesh("abcd", slots=ONLY_D)
    mesh.rule = lambda source, to, message: not isinstance(message, Grant)
    spec = mesh.spec("a", not_on="d")
    mesh.submit(A, spec)
    mesh.run_until(lambda: len(mesh.record(A, spec.id).voids) == 1)
    scheduler = mesh.nodes[A].scheduler
    assert scheduler.was_refused(spec.id, D)
    mesh.tell(B, A, Ask((AskItem(spec.id, 0, 5, spec.expires_at, b""),)))
    assert not scheduler.was_refused(spec.id, D)


def test_a_grant_that_is_slower_than_the_death_of_its_owner_is_void_where_its_runner_goes_on() -> None:
    mesh = Mesh("abc", slots={A: 0, B: 1, C: 0})
    mesh.rule = lambda source, to, message: 5.0 if isinstance(message, Grant) else True
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.has(B, spec.id) and mesh.record(B, spec.id).own.runner == B)
    (grant,) = mesh.messages(Grant, to=B)
    mesh.kill(A)
    mesh.run_until(lambda: mesh.settled(spec.id))
    mesh.tell(C, B, grant)
    mesh.run(1.0)
    record = mesh.record(B, spec.id)
    assert mesh.runs(spec.id) == [B]
    assert (record.start_count, record.voids, record.losses) == (1, (grant.items[0].token,), ())


@pytest.mark.parametrize("stops_take_s", [0.001, 5.0], ids=["ended", "ending"])
def test_a_start_that_was_stopped_here_has_begun_for_who_goes_on_here(stops_take_s: Seconds) -> None:
    mesh = Mesh("abc", slots={A: 0, B: 1, C: 0})
    mesh.verdict, mesh.stops_take_s = endless, stops_take_s
    spec = mesh.spec("abc", delivery=Delivery.AT_MOST_ONCE)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [B])
    mesh.run(0.1)
    mesh.tell(A, B, Stop((TokenItem(spec.id, mesh.begun[0].token),)))
    mesh.run(0.1)
    mesh.kill(A)
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert mesh.runs(spec.id) == [B]
    assert (mesh.record(B, spec.id).state, mesh.record(B, spec.id).voids) == (State.FAILED, ())


def a_grant(mesh: Mesh, start: int = 1, boot: int = 1) -> Grant:
    record = make_record(job_id(1), (A, B, C))
    token = StartToken(1, A, start)
    return Grant((GrantItem(record.id, token, boot, encode(record)),))


def test_what_a_runner_denied_it_never_starts() -> None:
    mesh = Mesh("abcd", slots=ONLY_D)
    grant = a_grant(mesh)
    asked = TokenItem(grant.items[0].job, grant.items[0].token)
    (answer,) = sends(mesh.tell(A, D, Have((asked,))), Has)
    assert answer == Has(1, (), (), (asked,))  # never begun
    (answer,) = sends(mesh.tell(A, D, grant), Has)  # it was late
    assert answer == Has(1, (), (), (asked,))
    mesh.run(1.0)
    assert mesh.begun == []


def test_what_a_runner_was_told_to_stop_it_never_starts() -> None:
    mesh = Mesh("abcd", slots=ONLY_D)
    grant = a_grant(mesh)
    mesh.tell(A, D, Stop((TokenItem(grant.items[0].job, grant.items[0].token),)))
    mesh.tell(A, D, grant)
    mesh.run(1.0)
    assert mesh.begun == []


def test_a_denial_of_one_job_is_not_one_of_another_with_the_same_token() -> None:
    mesh = Mesh("abcd", slots=ONLY_D)
    token = StartToken(1, A, 1)
    mesh.tell(A, D, Have((TokenItem(job_id(2), token),)))
    mesh.tell(A, D, a_grant(mesh))
    mesh.run_until(lambda: len(mesh.begun) == 1, limit_s=1.0)


def test_a_grant_to_an_earlier_life_starts_nothing() -> None:
    mesh = Mesh("abcd", slots=ONLY_D)
    effects = mesh.tell(A, D, a_grant(mesh, boot=7))
    assert len(sends(effects, Has)) == 1
    mesh.run(1.0)
    assert mesh.begun == []


def test_a_runner_holds_the_start_that_runs_and_one_whose_result_was_not_thanked_for() -> None:
    mesh, job = on_d()
    token = mesh.begun[0].token
    item = TokenItem(job, token)
    assert sends(mesh.tell(A, D, Have((item,))), Has) == [Has(1, (item,), (), ())]
    mesh.rule = lambda source, to, message: not isinstance(message, Result)
    mesh.end_run(D, job, token, succeeded())
    mesh.run(0.1)
    assert sends(mesh.tell(A, D, Have((item,))), Has) == [Has(1, (item,), (), ())]


def opening() -> tuple[Mesh, TokenItem]:
    """A start that A has stored as running, and that waits for its gate."""
    mesh = Mesh("abc", slots={A: 1, B: 0, C: 0})
    mesh.rule = lambda source, to, message: not isinstance(message, Acks)
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run(0.1)
    item = TokenItem(spec.id, mesh.record(A, spec.id).own.token)
    assert item.token.start == 1
    assert mesh.begun == []
    return mesh, item


def test_an_opening_start_is_held_by_its_runner() -> None:
    """To deny it would be to lose it."""
    mesh, item = opening()
    assert sends(mesh.tell(B, A, Have((item,))), Has) == [Has(1, (item,), (), ())]


def test_a_start_given_up_before_it_began_is_denied_and_never_begins() -> None:
    mesh, item = opening()
    # Another owner: A steps down before its start has begun.
    mesh.tell(C, A, Ask((AskItem(item.job, 0, 5, WALL + 1e6, b""),)))
    assert sends(mesh.tell(B, A, Have((item,))), Has) == [Has(1, (), (), (item,))]
    mesh.rule = let_pass
    mesh.run(0.1)
    assert all(begun.token != item.token for begun in mesh.begun)


def test_a_start_whose_owner_steps_down_before_the_gate_opens_never_begins() -> None:
    """Else the next owner, who was told that it was not running, and this one would both let it run."""
    mesh = Mesh("abc", slots={A: 1, B: 0, C: 0})
    spec = mesh.spec("abc", delivery=Delivery.AT_MOST_ONCE)
    mesh.submit(A, spec)
    mesh.rule = lambda source, to, message: 0.2 if isinstance(message, Acks) else True
    mesh.run_until(lambda: mesh.record(A, spec.id).state is State.RUNNING)
    mesh.tell(B, A, Ask((AskItem(spec.id, 0, 5, WALL + 1e6, b""),)))
    assert mesh.lead(A, spec.id) is None
    mesh.run(0.4)  # and now the acknowledgements come
    assert mesh.begun == []


def test_a_start_that_waits_for_its_gate_outlasts_another_ask_of_its_owner() -> None:
    mesh = Mesh("abc", slots={A: 0, B: 1, C: 0})
    mesh.rule = lambda source, to, message: not isinstance(message, WantWork)
    spec = mesh.spec("abc")
    mesh.verdict = endless
    mesh.submit(A, spec)
    mesh.run(0.1)
    mesh.kill(A)
    mesh.rule = lambda source, to, message: not (source == C and isinstance(message, Acks))
    mesh.run_until(lambda: mesh.has(B, spec.id) and mesh.record(B, spec.id).own.runner == B)
    # C refuses, for the sake of somebody that died, and dies as well: B is left to ask above that, alone.
    copy, ballot = mesh.record(B, spec.id), mesh.record(B, spec.id).ballot
    refusal = Refusal(spec.id, 0, ballot, Promise(0, Ballot(7, C)), encode(copy))
    mesh.tell(C, B, Refused((refusal,)))
    mesh.kill(C)
    mesh.run_until(lambda: mesh.runs(spec.id) == [B], limit_s=10.0)
    mesh.run(10.0)
    assert mesh.runs(spec.id) == [B]
    assert mesh.record(B, spec.id).ballot.term > 7


def test_a_denial_and_a_new_grant_do_not_chase_each_other() -> None:
    """An owner that wrongly called a start lost must not grant it anew to the runner that still runs it."""
    mesh, job = on_d()
    owner = mesh.nodes[A]
    owner._scheduler._lose(mesh.record(A, job), "wrongly called gone", counted=True)
    mesh.rule = lambda source, to, message: not isinstance(message, Stop)  # D goes on with the first
    mesh.run(20.0)
    assert len(mesh.messages(Grant, to=D)) <= 1 + 20 / mesh.settings.jobs.retry_max_s + 1
    assert mesh.runs(job) == [D]
    assert mesh.record(A, job).start_count <= 2


# ---------------------------------------------------------------------------------- runners that die


def test_a_start_whose_runner_died_is_lost_and_runs_elsewhere() -> None:
    mesh = Mesh("abcd", slots=ONLY_D | {C: 1})
    mesh.verdict = lambda begun: None if len(mesh.begun) == 1 else (0.1, succeeded())
    spec = mesh.spec("a", not_on="d")
    mesh.submit(A, spec)
    mesh.run_until(lambda: len(mesh.begun) == 1)
    first = mesh.begun[0].node
    mesh.run(0.1)
    mesh.kill(first)
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert len(mesh.runs(spec.id)) == 2
    record = mesh.record(A, spec.id)
    assert (len(record.losses), record.start_count) == (1, 2)
    assert "start lost" in history(mesh, A, spec.id)


def test_a_quick_reboot_of_the_runner_is_noticed() -> None:
    mesh, job = on_d()
    mesh.kill(D, silently=True)
    mesh.boot(D)
    mesh.verdict = lambda begun: (0.1, succeeded())
    mesh.run_until(lambda: mesh.settled(job))
    assert mesh.runs(job) == [D, D]
    assert len(mesh.record(A, job).losses) == 1
    assert mesh.messages(Have) == []  # its greeting says so


def power_cut(mesh: Mesh) -> None:
    """All lose their power at once, and come back."""
    for name in mesh.names:
        mesh.kill(name, silently=True)
    mesh.run(1.0)
    for name in mesh.names:
        mesh.boot(name)


@pytest.mark.parametrize("delivery", [Delivery.AT_MOST_ONCE, Delivery.AT_LEAST_ONCE], ids=str)
def test_a_runner_does_not_deny_what_its_earlier_life_began(delivery: Delivery) -> None:
    """Its owner has not heard yet that it started again: it has lost its memory of the members as well."""
    mesh, job = on_d(delivery=delivery)
    mesh.verdict = lambda begun: (0.1, succeeded())
    mesh.rule = lambda source, to, message: 1.0 if source == D and isinstance(message, CONTROL) else True
    power_cut(mesh)
    mesh.run_until(lambda: mesh.record(A, job).own.state is not State.RUNNING)
    assert len(mesh.messages(Have, source=A, to=D)) == 1
    mesh.run_until(lambda: mesh.settled(job))
    record = mesh.record(A, job)
    once = delivery is Delivery.AT_MOST_ONCE
    assert mesh.runs(job) == ([D] if once else [D, D])
    assert record.state is (State.FAILED if once else State.SUCCEEDED)
    assert (record.start_count, record.loss_count) == (1 if once else 2, 1)


def test_an_owner_does_not_take_back_what_it_began_in_an_earlier_life() -> None:
    mesh = Mesh("abc", slots={A: 1, B: 0, C: 0})
    mesh.verdict = endless
    spec = mesh.spec("abc", delivery=Delivery.AT_MOST_ONCE)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    token = mesh.begun[0].token
    power_cut(mesh)
    mesh.tell(B, A, Have((TokenItem(spec.id, token),)))  # denied, as is right: it does not run any more
    mesh.run_until(lambda: mesh.settled(spec.id))
    record = mesh.record(A, spec.id)
    assert (record.state, record.start_count, record.loss_count) == (State.FAILED, 1, 1)
    assert mesh.runs(spec.id) == [A]


@pytest.mark.parametrize("options", STRICT, ids=str)
def test_a_runner_that_dies_while_its_start_waits_for_the_gate_is_replaced(options: dict[str, Any]) -> None:
    mesh = Mesh("abcd", slots=ONLY_D | {B: 1}, tasks={B: ("other",)})
    spec = mesh.spec("a", not_on="d", **options)
    mesh.submit(A, spec)
    mesh.run(0.05)
    mesh.rule = lambda source, to, message: 0.3 if isinstance(message, Write) else True
    mesh.run_until(lambda: mesh.record(A, spec.id).own.runner == D)
    assert mesh.begun == []
    mesh.kill(D)
    mesh.run(1.0)
    mesh.boot(D)
    mesh.rule = let_pass
    mesh.run_until(lambda: mesh.record(A, spec.id).outcome is not None)
    record = mesh.record(A, spec.id)
    assert (record.state, record.loss_count) == (State.SUCCEEDED, 0)
    assert mesh.runs(spec.id) == [D]


def test_a_runner_that_the_restarted_owner_has_not_met_yet_is_not_called_lost() -> None:
    mesh, job = on_d()
    mesh.kill(A)
    mesh.cut((A, D))
    mesh.boot(A)
    mesh.run_until(lambda: any(mesh.lead(name, job) is not None for name in (A, B, C)))
    mesh.run(0.2)
    mesh.heal()
    mesh.run(1.0)
    mesh.end_run(D, job, mesh.begun[0].token, succeeded())
    mesh.run_until(lambda: mesh.settled(job))
    assert mesh.runs(job) == [D]
    assert mesh.record(B, job).losses == ()


def test_a_takeover_keeps_the_starts_that_are_still_held() -> None:
    mesh, job = on_d()
    mesh.kill(A)
    mesh.run_until(lambda: any(mesh.is_firm(name, job) for name in mesh.holders(job) if name != A))
    mesh.run(1.0)
    mesh.end_run(D, job, mesh.begun[0].token, succeeded())
    mesh.run_until(lambda: mesh.settled(job))
    assert mesh.runs(job) == [D]


def test_a_worker_that_died_is_a_loss_and_not_a_failed_attempt() -> None:
    mesh = Mesh("a")
    mesh.verdict = lambda begun: None if len(mesh.begun) == 1 else (0.1, succeeded())
    spec = mesh.spec("a", max_attempts=1)
    mesh.submit(A, spec)
    mesh.run_until(lambda: len(mesh.begun) == 1)
    mesh.end_run(A, spec.id, mesh.begun[0].token, failed("worker died"), lost=True)
    mesh.run_until(lambda: mesh.settled(spec.id))
    record = mesh.record(A, spec.id)
    assert (record.state, len(record.losses), record.failure_count) == (State.SUCCEEDED, 1, 0)


def test_a_job_that_kills_its_workers_fails_after_so_many_losses() -> None:
    mesh = Mesh("a")
    mesh.verdict = endless
    spec = mesh.spec("a", max_losses=2)
    mesh.submit(A, spec)
    for number in (1, 2):
        mesh.run_until(lambda number=number: len(mesh.begun) == number)  # type: ignore[misc]
        mesh.end_run(A, spec.id, mesh.begun[-1].token, failed("worker died"), lost=True)
    mesh.run_until(lambda: mesh.settled(spec.id))
    outcome = mesh.record(A, spec.id).outcome
    assert outcome is not None
    assert (outcome.state, outcome.error) == (State.FAILED, "lost its runner 2 times (max_losses is 2)")
    assert len(mesh.begun) == 2


def test_a_job_that_kills_its_nodes_is_stopped_before_it_killed_them_all() -> None:
    mesh = Mesh("abcde")
    mesh.verdict = endless
    spec = mesh.spec("abc", max_losses=2)
    mesh.submit(A, spec)
    for number in (1, 2):
        mesh.run_until(lambda number=number: len(mesh.begun) >= number)  # type: ignore[misc]
        mesh.run(0.05)
        mesh.kill(mesh.begun[-1].node)
    mesh.run(20.0)
    assert len(mesh.begun) == 2
    living = next(name for name in mesh.holders(spec.id) if name in mesh.up)
    assert mesh.record(living, spec.id).state is State.FAILED


def test_a_runner_that_was_only_cut_off_does_not_count_as_lost() -> None:
    mesh, job = on_d(max_losses=2, backoff=Backoff("constant", 0.1, 0.1))
    mesh.cut((A, D), (B, D), (C, D))
    mesh.run_until(lambda: mesh.record(A, job).loss_count == 1)
    mesh.heal()
    mesh.run(2.0)
    mesh.end_run(D, job, mesh.begun[0].token, failed("of old"))
    mesh.run_until(lambda: mesh.record(A, job).loss_count == 0)
    mesh.run_until(lambda: len(mesh.begun) == 2)
    mesh.kill(D)
    mesh.run_until(lambda: mesh.record(A, job).loss_count == 1)
    mesh.run(1.0)
    assert mesh.record(A, job).outcome is None  # one true loss of two
    assert len(mesh.record(A, job).losses) == 2


def test_an_owner_that_was_only_cut_off_tells_its_successor_that_it_had_the_start_all_the_time() -> None:
    mesh = Mesh("abc")
    mesh.verdict = endless
    spec = mesh.spec("abc", max_losses=2)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    mesh.cut((A, B), (A, C))
    mesh.run_until(lambda: mesh.runs(spec.id) == [A, B])
    assert mesh.record(B, spec.id).loss_count == 1
    mesh.heal()
    mesh.run_until(lambda: [mesh.record(name, spec.id).loss_count for name in (A, B, C)] == [0, 0, 0])
    assert mesh.record(B, spec.id).start_count == 2
    assert [name for name, _, _ in mesh.stopped] == [A]


def test_a_start_that_ended_with_its_worker_stays_a_loss_however_late_it_is_heard_of() -> None:
    mesh, job = on_d(max_losses=2)
    mesh.cut((A, D), (B, D), (C, D))
    mesh.run_until(lambda: mesh.record(A, job).loss_count == 1)
    mesh.end_run(D, job, mesh.begun[0].token, failed("worker died"), lost=True)
    mesh.heal()
    mesh.run(8.0)
    assert mesh.record(A, job).loss_count == 1


# ---------------------------------------------------------------------------------- at most once


def test_a_job_that_may_run_once_fails_as_lost_under_a_firm_successor() -> None:
    mesh = Mesh("abc")
    mesh.verdict = endless
    spec = mesh.spec("abc", delivery=Delivery.AT_MOST_ONCE)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    mesh.run(0.1)
    mesh.kill(A)
    mesh.run_until(lambda: mesh.settled(spec.id))
    outcome = mesh.record(B, spec.id).outcome
    assert outcome is not None
    assert outcome.state is State.FAILED
    assert "at-most-once" in outcome.error
    assert len(mesh.begun) == 1


def test_a_job_that_may_run_once_and_whose_worker_was_lost_says_why() -> None:
    mesh = Mesh("abc")
    mesh.verdict = endless
    spec = mesh.spec("abc", delivery=Delivery.AT_MOST_ONCE)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    why = "the worker process was killed by SIGKILL, for another job that it ran"
    mesh.end_run(A, spec.id, mesh.begun[0].token, failed(why), lost=True, counted=False)
    mesh.run_until(lambda: mesh.settled(spec.id))
    outcome = mesh.record(B, spec.id).outcome
    assert outcome is not None
    assert outcome.error == f"its runner was lost ({why}); delivery is at-most-once"


def test_a_provisional_successor_says_nothing_of_a_job_that_may_run_once() -> None:
    mesh = Mesh("abc")
    mesh.verdict = endless
    spec = mesh.spec("abc", delivery=Delivery.AT_MOST_ONCE)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    mesh.run(0.1)
    mesh.kill(A)
    mesh.kill(B)
    mesh.run(30.0)
    assert mesh.record(C, spec.id).outcome is None
    assert len(mesh.begun) == 1


def test_a_job_that_may_run_once_is_not_tried_again() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: (0.1, failed("no"))
    spec = mesh.spec("abc", delivery=Delivery.AT_MOST_ONCE, max_attempts=5)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    mesh.run(10.0)
    assert len(mesh.begun) == 1
    assert mesh.record(A, spec.id).state is State.FAILED


# ---------------------------------------------------------------------------- attempts and backoff


def attempts(mesh: Mesh, job: JobId) -> list[float]:
    return [begun.at for begun in mesh.begun if begun.job == job]


def test_a_failed_attempt_is_tried_again_until_there_are_no_more() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: (0.1, failed(f"attempt {begun.attempt}"))
    spec = mesh.spec("abc", max_attempts=3, backoff=Backoff("constant", 0.5))
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    record = mesh.record(B, spec.id)
    assert record.outcome is not None
    assert (record.state, record.outcome.error) == (State.FAILED, "attempt 3")
    assert (record.failure_count, record.start_count, record.losses) == (3, 3, ())
    assert [begun.attempt for begun in mesh.begun] == [1, 2, 3]
    assert history(mesh, B, spec.id).count("attempt failed") == 2


def test_a_constant_backoff_waits_as_long_each_time() -> None:
    mesh = Mesh("a")
    mesh.verdict = lambda begun: (0.1, failed())
    spec = mesh.spec("a", max_attempts=4, backoff=Backoff("constant", 2.0))
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    at = attempts(mesh, spec.id)
    pauses = [later - earlier - 0.1 for earlier, later in pairwise(at)]
    assert pauses == pytest.approx([2.0, 2.0, 2.0], abs=0.05)


def test_an_exponential_backoff_is_drawn_from_the_whole_of_a_growing_span() -> None:
    dice = random.Random(1)
    backoff = Backoff("exponential", base_s=1.0, cap_s=6.0)
    for failures, span in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 6.0), (80, 6.0)):
        drawn = [backoff_s(backoff, failures, dice) for _ in range(400)]
        assert 0 <= min(drawn) < 0.1 * span
        assert 0.9 * span < max(drawn) <= span
        assert sum(drawn) / len(drawn) == pytest.approx(span / 2, rel=0.15)


def test_a_constant_backoff_is_not_above_its_cap() -> None:
    assert backoff_s(Backoff("constant", 9.0, 5.0), 1, random.Random(1)) == 5.0
    assert backoff_s(Backoff("constant", 2.0, 5.0), 9, random.Random(1)) == 2.0


def test_a_task_may_say_when_it_wants_to_be_tried_again() -> None:
    mesh = Mesh("a")
    mesh.verdict = lambda begun: (0.1, failed(retry_after_s=7.0) if begun.attempt == 1 else succeeded())
    spec = mesh.spec("a", backoff=Backoff("constant", 100.0))
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    first, second = attempts(mesh, spec.id)
    assert second - first == pytest.approx(7.1, abs=0.05)


def test_more_attempts_than_are_counted_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "COUNTED_BALLOTS_MAX", 2)
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: (0.01, failed())
    spec = mesh.spec("a", max_attempts=5, backoff=Backoff("constant", 0.1))
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert mesh.runs(spec.id) == [A, A]
    assert mesh.record(A, spec.id).state is State.FAILED


def test_a_task_may_say_that_no_attempt_would_help() -> None:
    mesh = Mesh("a")
    mesh.verdict = lambda begun: (0.1, failed("bad input", final=True))
    spec = mesh.spec("a", max_attempts=5)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert (len(mesh.begun), mesh.record(A, spec.id).state) == (1, State.FAILED)


def test_the_rest_of_a_pause_is_waited_by_the_next_owner() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: (0.1, failed() if begun.attempt == 1 else succeeded())
    spec = mesh.spec("abc", backoff=Backoff("constant", 5.0))
    mesh.submit(A, spec)
    mesh.run_until(
        lambda: mesh.record(B, spec.id).state is State.SCHEDULED if mesh.has(B, spec.id) else False
    )
    mesh.kill(A)
    mesh.run_until(lambda: mesh.has_settled(B, spec.id))
    first, second = attempts(mesh, spec.id)
    assert second - first == pytest.approx(5.1, abs=0.6)


def test_a_pause_is_kept_though_the_history_is_too_full_to_say_when_it_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "HISTORY_MAX", 1)
    test_the_rest_of_a_pause_is_waited_by_the_next_owner()


@pytest.mark.parametrize("ahead_s", [-100.0, 0.0, 100.0])
def test_a_pause_that_another_line_of_owners_noted_is_as_long_whatever_its_clock_said(ahead_s: float) -> None:
    """Its copy of the job comes while that waits for a slot. (With a clock behind, its day is over.)"""
    mesh = Mesh("ab", slots={A: 1, B: 0})
    mesh.verdict = lambda begun: (1.0, succeeded())
    first, spec = mesh.specs(2, "a")
    mesh.submit(A, first, spec)
    mesh.run(0.5)
    record = mesh.record(A, spec.id)
    assert record.state is State.QUEUED
    at = mesh.wall() + ahead_s
    note = jobs.Note(at, scheduler.ATTEMPT_FAILED, B, "not now", at + 20.0)
    elsewhere = jobs.with_note(record, note)._replace(failures=((Ballot(1, B), 1),))
    mesh.tell(B, A, Copies((encode(elsewhere),)))
    told_at = mesh.now
    mesh.run_until(lambda: mesh.settled(spec.id))
    began = attempts(mesh, spec.id)[0] - told_at
    assert began == pytest.approx(20.0 if ahead_s >= 0 else 0.5, abs=0.1)


def test_a_job_has_one_pause_however_often_it_is_taken_on_and_none_after_its_end() -> None:
    mesh = Mesh("a")
    mesh.verdict = lambda begun: (0.1, failed(retry_after_s=1000.0))
    spec = mesh.spec("a")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.record(A, spec.id).state is State.SCHEDULED)
    scheduler = mesh.nodes[A]._scheduler
    for _ in range(5):
        scheduler.take_on((spec.id,))
    assert len(scheduler._pauses) == 1
    cancel(mesh, A, A, spec.id)
    assert len(scheduler._pauses) == 0


# ----------------------------------------------------------------------------------- days and cancels


def test_a_job_does_not_start_before_its_day() -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("abc", run_at=WALL + 20.0)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    (began,) = attempts(mesh, spec.id)
    assert 20.0 <= began <= 20.1


@pytest.mark.parametrize("killed", ["", "a", "ab"])
def test_a_job_starts_at_most_a_fifth_of_a_second_after_its_day_whoever_owns_it_by_then(killed: str) -> None:
    mesh = Mesh("abc")
    due = {mesh.spec("abc", run_at=WALL + day).id: day for day in (4.0, 5.5, 7.0)}
    mesh.submit(A, *[make_spec(job, run_at=WALL + day) for job, day in due.items()])
    mesh.run(0.5)
    for letter in killed:
        mesh.kill(NodeId(letter * 16))
    mesh.run_until(lambda: len(mesh.begun) == len(due))
    assert all(0.0 <= begun.at - due[begun.job] <= 0.2 for begun in mesh.begun)
    assert {begun.node for begun in mesh.begun}.isdisjoint(NodeId(letter * 16) for letter in killed)


def test_a_queued_job_past_its_deadline_expires_also_if_nobody_can_run_it() -> None:
    mesh = Mesh("abc", slots=1)
    mesh.verdict = endless
    nobodys = mesh.spec("abc", task="nobody", deadline=WALL + 5.0)
    behind = [mesh.spec("abc", deadline=WALL + 5.0) for _ in range(3)]
    mesh.submit(A, *[mesh.spec("abc", priority=9) for _ in range(3)])
    mesh.run(1.0)
    mesh.submit(A, nobodys, *behind)
    mesh.run(3.0)
    assert mesh.record(A, nobodys.id).state is State.QUEUED
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in (nobodys, *behind)), limit_s=5.0)
    assert {mesh.record(B, spec.id).state for spec in (nobodys, *behind)} == {State.EXPIRED}
    assert not {spec.id for spec in behind} & {begun.job for begun in mesh.begun}


def test_a_scheduled_job_past_its_deadline_expires() -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("abc", run_at=WALL + 50.0, deadline=WALL + 5.0)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id), limit_s=7.0)
    assert mesh.record(A, spec.id).state is State.EXPIRED


def test_an_unfinished_job_expires_on_its_last_day() -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("abc", task="nobody")
    mesh.submit(A, spec)
    mesh.submit(A, late := mesh.spec("abc", run_at=spec.expires_at + 100.0))
    mesh.run(0.5)
    mesh.ahead_s = dict.fromkeys(mesh.ahead_s, 7 * DAY_S + 1.0)
    mesh.run_until(lambda: mesh.settled(spec.id) and mesh.settled(late.id), limit_s=5.0)
    assert mesh.record(A, spec.id).state is State.EXPIRED
    assert mesh.record(A, late.id).state is State.EXPIRED


def test_a_job_that_runs_may_end_after_its_deadline() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: (10.0, succeeded())
    spec = mesh.spec("abc", deadline=WALL + 5.0)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert mesh.record(A, spec.id).state is State.SUCCEEDED


def test_a_job_that_waits_for_a_retry_expires_at_its_deadline() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: (0.1, failed())
    spec = mesh.spec("abc", deadline=WALL + 5.0, backoff=Backoff("constant", 60.0))
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id), limit_s=10.0)
    assert mesh.record(A, spec.id).state is State.EXPIRED
    assert len(mesh.begun) == 1


def test_a_retry_that_comes_after_the_deadline_is_no_start() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: (0.1, failed())
    spec = mesh.spec("abc", deadline=WALL + 5.0, backoff=Backoff("constant", 8.0))
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id), limit_s=20.0)
    assert mesh.record(A, spec.id).state is State.EXPIRED
    assert len(mesh.begun) == 1


def test_a_node_without_workers_counts_nothing_and_lets_others_run_its_jobs() -> None:
    mesh = Mesh("abcd", slots={A: 2, B: 0, C: 0, D: 0})
    mesh.verdict = lambda begun: None
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    token = mesh.record(A, spec.id).own.token
    mesh.do(A, SlotsChanged(Room(0)))
    nothing = Verdict(State.FAILED, b"", "no process", -1.0, False)
    mesh.do(A, RunEnded(spec.id, token, nothing, lost=True, begun=False))
    mesh.run(1.0)
    record = mesh.record(A, spec.id)
    assert (record.state, record.start_count, record.losses) == (State.QUEUED, 0, ())
    mesh.verdict = lambda begun: (0.1, succeeded())
    mesh.do(D, SlotsChanged(Room(1)))
    mesh.run_until(lambda: mesh.settled(spec.id), limit_s=10.0)
    assert mesh.runs(spec.id)[1:] == [D]
    assert mesh.record(A, spec.id).start_count == 1


def test_a_node_takes_of_its_own_jobs_ahead_of_its_slots_and_asks_for_none() -> None:
    """What waits for a slot that is free in a moment is this node's own; peers have a slot for the rest."""
    mesh = Mesh("abc", slots=1)
    mesh.verdict = lambda begun: None
    mesh.do(A, SlotsChanged(Room(1), 2))
    mesh.submit(A, *mesh.specs(6, "a"))
    mesh.run(2.0)
    assert Counter(begun.node for begun in mesh.begun) == {A: 3, B: 1, C: 1}
    load = mesh.nodes[A].view.load(A)
    assert (load.free, load.queued, load.running) == (0, 1, 3)


def test_what_was_taken_ahead_and_not_begun_runs_on_a_peer_with_a_slot() -> None:
    mesh = Mesh("abc", slots={A: 1, B: 0, C: 0})
    mesh.verdict = lambda begun: None
    mesh.do(A, SlotsChanged(Room(1), 1))
    mesh.submit(A, *mesh.specs(2, "abc"))
    mesh.run_until(lambda: len(mesh.begun) == 2)
    last = mesh.begun[-1]
    nothing = Verdict(State.FAILED, b"", "it waited for its turn too long", -1.0, False)
    mesh.do(A, SlotsChanged(Room(1), 0))
    mesh.do(A, RunEnded(last.job, last.token, nothing, lost=True, begun=False))
    mesh.do(B, SlotsChanged(Room(1)))
    mesh.run(1.0)
    assert mesh.runs(last.job) == [A, B]
    record = mesh.record(A, last.job)
    assert (record.start_count, record.losses) == (1, ())


@pytest.mark.parametrize(
    "options", [{"task": "nobody"}, {"run_at": WALL + 50.0}], ids=["queued", "scheduled"]
)
def test_a_cancel_ends_a_job_that_waits(options: dict[str, Any]) -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("abc", **options)
    mesh.submit(A, spec)
    mesh.run(0.1)
    cancel(mesh, B, A, spec.id)
    mesh.run_until(lambda: mesh.settled(spec.id), limit_s=2.0)
    assert mesh.record(C, spec.id).state is State.CANCELLED
    assert mesh.begun == []


def test_a_cancel_stops_a_run_here() -> None:
    mesh = Mesh("abc", slots=1)
    mesh.verdict = endless
    spec, following = mesh.spec("abc"), mesh.spec("abc", priority=0)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    cancel(mesh, B, A, spec.id)
    mesh.run_until(lambda: mesh.settled(spec.id), limit_s=2.0)
    assert [(name, job) for name, job, _ in mesh.stopped] == [(A, spec.id)]
    assert mesh.record(B, spec.id).state is State.CANCELLED
    mesh.submit(A, following)
    mesh.run_until(lambda: mesh.runs(following.id) == [A], limit_s=1.0)  # its slot is free again


def test_a_cancel_stops_a_run_on_a_peer() -> None:
    mesh, job = on_d()
    cancel(mesh, B, A, job)
    mesh.run_until(lambda: mesh.settled(job), limit_s=2.0)
    mesh.run(0.5)
    assert [(name, stopped) for name, stopped, _ in mesh.stopped] == [(D, job)]
    assert mesh.record(A, job).state is State.CANCELLED


@pytest.mark.parametrize("options", STRICT, ids=str)
def test_a_start_is_not_granted_after_the_outcome(options: dict[str, Any]) -> None:
    """Cancelled while it waited for its gate; the gate opens later."""
    mesh = Mesh("abcd", slots=ONLY_D)
    spec = mesh.spec("a", not_on="d", **options)
    mesh.submit(A, spec)
    mesh.run(0.05)
    mesh.rule = lambda source, to, message: 0.5 if isinstance(message, Write) else True
    mesh.run_until(lambda: mesh.record(A, spec.id).own.runner == D)
    cancel(mesh, B, A, spec.id)
    mesh.run(10.0)
    assert mesh.record(A, spec.id).state is State.CANCELLED
    assert mesh.messages(Grant) == []
    assert mesh.begun == []


def test_a_start_after_a_takeover_is_not_granted_after_the_outcome() -> None:
    mesh = Mesh("abcd", slots=dict.fromkeys((A, B, C, D), 0))
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run(0.1)
    mesh.kill(A)
    mesh.run_until(lambda: mesh.is_firm(B, spec.id))
    mesh.run(0.1)
    mesh.rule = lambda source, to, message: not isinstance(message, Write | Acks)
    mesh.tell(D, B, WantWork(Room(1)))
    assert mesh.record(B, spec.id).own.runner == D
    cancel(mesh, C, B, spec.id)
    mesh.run(5.0)
    assert mesh.messages(Grant) == []


# ---------------------------------------------------------------------------- results and new owners


def test_a_result_is_kept_until_it_is_thanked_for() -> None:
    mesh, job = on_d()
    mesh.rule = lambda source, to, message: not isinstance(message, Result)
    mesh.end_run(D, job, mesh.begun[0].token, succeeded(b'"kept"'))
    mesh.run(20.0)
    assert len(mesh.messages(Result, source=D)) >= 4
    mesh.rule = let_pass
    mesh.run_until(lambda: mesh.settled(job))
    outcome = mesh.record(A, job).outcome
    assert outcome is not None
    assert outcome.result == b'"kept"'
    mesh.run(6.0)
    sent = len(mesh.messages(Result, source=D))
    mesh.run(20.0)
    assert len(mesh.messages(Result, source=D)) == sent


def test_a_result_finds_the_next_owner_when_the_first_died() -> None:
    mesh, job = on_d()
    mesh.kill(A)
    mesh.end_run(D, job, mesh.begun[0].token, succeeded(b'"kept"'))
    mesh.run_until(lambda: mesh.settled(job))
    successor = next(name for name in mesh.holders(job) if name != A)
    outcome = mesh.record(successor, job).outcome
    assert outcome is not None
    assert (outcome.result, outcome.runner) == (b'"kept"', D)
    assert mesh.runs(job) == [D]


def test_a_result_is_passed_on_to_the_owner_once() -> None:
    mesh, job = on_d()
    holder = next(name for name in mesh.holders(job) if name != A)
    item = ResultItem(job, mesh.begun[0].token, D, succeeded(), WALL, False)
    assert sends(mesh.tell(D, holder, Result((item,))), Result) == [Result((item,))]
    # From anyone but its runner it has been passed on already: two nodes that each think the other owns the
    # job must not play with it.
    assert sends(mesh.tell(B if holder == C else C, holder, Result((item,))), Result) == []


def test_a_result_gets_past_a_cut_between_its_runner_and_its_owner_by_way_of_another_holder() -> None:
    mesh, job = on_d()
    mesh.cut((A, D))
    mesh.run(3.0)
    assert mesh.nodes[D].view.is_living(A)
    mesh.end_run(D, job, mesh.begun[0].token, succeeded())
    mesh.run_until(lambda: mesh.settled(job), limit_s=5.0)
    assert mesh.runs(job) == [D]


def test_a_result_of_a_settled_job_is_thanked_for_at_once() -> None:
    mesh, job = on_d()
    token = mesh.begun[0].token
    mesh.end_run(D, job, token, succeeded())
    mesh.run_until(lambda: mesh.settled(job))
    mesh.run(1.0)
    item = ResultItem(job, token, D, succeeded(), WALL, False)
    assert sends(mesh.tell(D, B, Result((item,))), ResultTaken) == [ResultTaken((TokenItem(job, token),))]


def test_a_new_owner_judges_what_it_ran_itself_for_the_last_one() -> None:
    mesh = Mesh("abc", slots={A: 0, B: 1, C: 0})
    mesh.verdict = endless
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [B])
    mesh.run(0.1)
    mesh.rule = lambda source, to, message: not isinstance(message, Result)
    mesh.end_run(B, spec.id, mesh.begun[0].token, succeeded(b'"mine"'))
    mesh.run(0.1)
    mesh.kill(A)
    mesh.run_until(lambda: mesh.settled(spec.id))
    outcome = mesh.record(B, spec.id).outcome
    assert outcome is not None
    assert (outcome.result, outcome.runner) == (b'"mine"', B)
    assert mesh.runs(spec.id) == [B]


def test_a_start_that_was_called_lost_may_still_finish_first() -> None:
    mesh, job = on_d()
    mesh.nodes[A]._scheduler._lose(mesh.record(A, job), "wrongly called gone", counted=False)
    mesh.rule = lambda source, to, message: not isinstance(message, Stop | Grant)
    mesh.run(0.2)
    mesh.end_run(D, job, mesh.begun[0].token, succeeded(b'"after all"'))
    mesh.run_until(lambda: mesh.settled(job))
    outcome = mesh.record(A, job).outcome
    assert outcome is not None
    assert outcome.result == b'"after all"'


def test_a_failure_of_a_start_that_was_called_lost_says_nothing() -> None:
    mesh, job = on_d(max_attempts=1)
    mesh.nodes[A]._scheduler._lose(mesh.record(A, job), "wrongly called gone", counted=False)
    mesh.rule = lambda source, to, message: not isinstance(message, Stop | Grant)
    mesh.run(0.2)
    mesh.end_run(D, job, mesh.begun[0].token, failed("of old"))
    mesh.run(3.0)
    assert mesh.record(A, job).outcome is None


def test_a_run_that_lost_to_another_result_is_stopped() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: None if begun.node == A else (0.1, succeeded(b'"b"'))
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    mesh.run(0.1)
    mesh.cut((A, B), (A, C))
    mesh.run_until(lambda: mesh.has_settled(B, spec.id))
    mesh.heal()
    mesh.run_until(lambda: mesh.settled(spec.id))
    mesh.run(0.1)
    assert [(name, job) for name, job, _ in mesh.stopped] == [(A, spec.id)]
    assert mesh.record(A, spec.id).start_count == 2  # both sides ran it, and the count says so


# ----------------------------------------------------------------------------------- crowds


def test_a_crowd_of_jobs_is_shared_by_all_and_runs_once_each() -> None:
    mesh = Mesh("abcd", slots=2)
    specs = mesh.specs(60, "a")
    mesh.submit(B, *specs)
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs))
    assert Counter(begun.job for begun in mesh.begun) == dict.fromkeys((spec.id for spec in specs), 1)
    assert {begun.node for begun in mesh.begun} == {A, B, C, D}


def test_a_start_that_ran_for_long_is_not_said_to_have_never_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many others began meanwhile: its owner would start an at-most-once job a second time."""
    monkeypatch.setattr(runner, "TOKENS_MAX", 3)
    mesh = Mesh("ab", slots={A: 0, B: 2})
    long = mesh.spec("a")
    mesh.verdict = lambda begun: None if begun.job == long.id else (0.01, succeeded())
    mesh.submit(A, long)
    mesh.run_until(lambda: bool(mesh.begun))
    token = mesh.begun[0].token
    for spec in mesh.specs(6, "a"):
        mesh.submit(A, spec)
        mesh.run_until(lambda job=spec.id: mesh.has_settled(A, job))  # type: ignore[misc]
    mesh.end_run(B, long.id, token, succeeded())
    mesh.run_until(lambda: mesh.has_settled(A, long.id))
    mesh.run(1.0)  # ... and B has forgotten the result
    item = TokenItem(long.id, token)
    effects = mesh.tell(A, B, Have((item,)))
    assert [(has.denied, has.voids) for has in sends(effects, Has)] == [((item,), ())]


def test_a_disk_that_may_be_an_old_one_does_not_say_that_a_start_never_began() -> None:
    """B was set back, and counts its lives anew: another one of this number may have begun it."""
    mesh = Mesh("ab", slots={A: 0, B: 2})
    spec = mesh.spec("a")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    mesh.nodes[B].desk.table.has_vote = False
    item = TokenItem(spec.id, StartToken(1, A, 7))
    effects = mesh.tell(A, B, Have((item,)))
    assert [(has.denied, has.voids) for has in sends(effects, Has)] == [((item,), ())]
    grant = GrantItem(spec.id, StartToken(1, A, 8), 1, encode(mesh.record(A, spec.id)))
    effects = mesh.tell(A, B, Grant((grant,)))
    item = TokenItem(spec.id, grant.token)
    assert [(has.denied, has.voids) for has in sends(effects, Has)] == [((item,), ())]


def test_an_owner_stops_no_start_of_its_own_before_it_knows_by_whom_it_was_superseded() -> None:
    """Or else that the task was stopped would pass for the end of the job."""
    mesh = Mesh("abc")
    spec = mesh.spec("a")
    mesh.verdict = lambda begun: None
    mesh.submit(A, spec)
    mesh.run_until(lambda: bool(mesh.begun))
    token = mesh.begun[0].token
    mesh.tell(B, A, Stop((TokenItem(spec.id, token),)))
    assert not mesh.stopped
    mesh.end_run(A, spec.id, token, succeeded())
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert mesh.record(A, spec.id).state is State.SUCCEEDED


def test_a_job_that_waits_for_others_does_not_start_whoever_made_it_so() -> None:
    mesh = Mesh("ab")
    spec = mesh.spec("a")
    record = new_record(encode_spec(spec), spec.id, mesh.holders(spec.id), 0.0, mesh.wall())
    record = record._replace(own=record.own._replace(state=State.WAITING))
    mesh.tell(B, A, Copies((encode(record),)))
    mesh.run(10.0)
    assert mesh.record(A, spec.id).own.state is State.WAITING
    assert not mesh.begun


def test_who_asks_for_a_start_that_is_long_over_is_told_how_it_ended() -> None:
    """Before it is denied: else it would be made up for by another one."""
    mesh = Mesh("abcd", slots=ONLY_D)
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    mesh.run(1.0)
    (begun,) = mesh.begun
    holder = next(name for name in (B, C) if mesh.record(name, spec.id) is not None)
    effects = mesh.tell(A, holder, Have((TokenItem(spec.id, begun.token),)))
    told = [send.message for send in effects if isinstance(send, Send)]
    assert [type(message) for message in told] == [Copies, Has]
