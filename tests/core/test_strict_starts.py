"""Jobs that start only when a majority of their holders knows: while none does they are in nobody's way."""

from __future__ import annotations

from typing import Any

import pytest
from job_mesh import WALL, A, B, C, Mesh, let_pass, succeeded

from edgenode.core import scheduler
from edgenode.core.scheduler import GATE_MAX_S
from edgenode.core.specs import Spec
from edgenode.core.types import Delivery, NodeId, Partition, Seconds, State
from edgenode.core.wire import Acks, Grant, Message, Write

STRICT: list[dict[str, Any]] = [{"partition": Partition.WAIT}, {"delivery": Delivery.AT_MOST_ONCE}]
SOON_S: Seconds = 2 * GATE_MAX_S
TO_THEMSELVES = ((A, B), (A, C))


def waiting_on_a(options: dict[str, Any], *, number: int, queue: str = "mail") -> tuple[Mesh, list[Spec]]:
    """A owns strict jobs of a queue that is paused, and is cut off before any could start; then the queue
    goes on, but the one who waits with them is younger, and need not wait for anybody."""
    mesh = Mesh("abc")
    mesh.set_queue(A, queue, paused=True)
    mesh.run(0.2)
    specs = mesh.specs(number, "a", queue=queue, **options)
    mesh.submit(A, *specs)
    mesh.run(0.2)
    mesh.cut(*TO_THEMSELVES)
    mesh.set_queue(A, queue, paused=False)
    mesh.run(0.05)
    reserved = [mesh.record(A, spec.id).own.state for spec in specs].count(State.RUNNING)
    assert reserved == min(number, 2), "as many as there are slots"
    return mesh, specs


def demand_one_start_each(mesh: Mesh, specs: list[Spec]) -> None:
    for spec in specs:
        record = mesh.record(A, spec.id)
        assert (record.state, record.loss_count) == (State.SUCCEEDED, 0)
        assert len(mesh.runs(spec.id)) == 1


@pytest.mark.parametrize("options", STRICT, ids=str)
def test_starts_that_no_majority_knows_of_leave_their_slots_to_others(options: dict[str, Any]) -> None:
    mesh, strict = waiting_on_a(options, number=5)
    (other,) = mesh.specs(1, "a")
    mesh.submit(A, other)
    mesh.run_until(lambda: mesh.record(A, other.id).outcome is not None, limit_s=SOON_S)
    assert [begun.job for begun in mesh.begun] == [other.id]
    mesh.heal()
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in strict), limit_s=60.0)
    demand_one_start_each(mesh, strict)


@pytest.mark.parametrize("options", STRICT, ids=str)
def test_starts_that_no_majority_knows_of_leave_the_permits_of_their_queue_to_others(
    options: dict[str, Any],
) -> None:
    mesh, strict = waiting_on_a(options, number=3)
    mesh.set_queue(A, "mail", concurrency=2)
    others = mesh.specs(4, "a", queue="mail")
    mesh.submit(A, *others)
    mesh.run_until(lambda: all(mesh.record(A, each.id).outcome for each in others), limit_s=SOON_S)
    assert {begun.job for begun in mesh.begun} == {each.id for each in others}
    mesh.heal()
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in strict + others), limit_s=60.0)
    demand_one_start_each(mesh, strict)


def test_a_cut_costs_each_strict_job_one_start_that_never_began_however_long_it_lasts() -> None:
    mesh, strict = waiting_on_a(STRICT[0], number=4)
    mesh.run(60.0)
    assert all(len(mesh.record(A, spec.id).voids) <= 1 for spec in strict)
    assert all(mesh.record(A, spec.id).own.state is State.QUEUED for spec in strict)
    assert mesh.begun == []


def no_writes(source: NodeId, to: NodeId, message: Message) -> bool:
    return not isinstance(message, Write)


@pytest.mark.parametrize("options", STRICT, ids=str)
def test_holders_that_live_and_store_nothing_are_tried_again_ever_more_rarely(
    options: dict[str, Any],
) -> None:
    mesh, strict = waiting_on_a(options, number=1)
    (spec,) = strict
    mesh.rule = no_writes
    mesh.heal()
    (other,) = mesh.specs(1, "a", queue="mail", acks=1)
    mesh.set_queue(A, "mail", concurrency=1)
    mesh.submit(A, other)
    mesh.run_until(lambda: mesh.record(A, other.id).outcome is not None, limit_s=SOON_S)
    mesh.run(60.0 - mesh.now)
    assert len(mesh.record(A, spec.id).voids) == 4, "given up at 5, 15, 30 and 55 s"
    assert mesh.runs(spec.id) == []
    mesh.rule = let_pass
    mesh.run_until(lambda: mesh.settled(spec.id), limit_s=60.0)
    demand_one_start_each(mesh, strict)


def test_no_more_starts_are_given_up_than_are_counted_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is forgotten of them would pass for a start that began."""
    monkeypatch.setattr(scheduler, "TOKENS_MAX", 4)
    mesh, (spec,) = waiting_on_a(STRICT[1], number=1)
    mesh.rule = no_writes
    mesh.heal()
    mesh.run(60.0)
    assert len(mesh.record(A, spec.id).voids) == 2
    mesh.rule = let_pass
    mesh.run_until(lambda: mesh.settled(spec.id), limit_s=60.0)
    assert (mesh.record(A, spec.id).state, len(mesh.runs(spec.id))) == (State.SUCCEEDED, 1)


def test_strict_jobs_without_their_majority_are_not_started_and_expire_on_their_day() -> None:
    mesh, strict = waiting_on_a(STRICT[0] | {"deadline": WALL + 30.0}, number=4)
    mesh.run(20.0)
    assert [mesh.record(A, spec.id).own.state for spec in strict] == [State.QUEUED] * 4
    assert sorted(len(mesh.record(A, spec.id).voids) for spec in strict) == [0, 0, 1, 1]
    mesh.run(15.0)
    assert [mesh.record(A, spec.id).state for spec in strict] == [State.EXPIRED] * 4


def test_a_verdict_of_a_given_up_start_can_never_come() -> None:
    """The gate opens late: when its write is acknowledged after all, nothing begins."""
    mesh, strict = waiting_on_a(STRICT[1], number=1)
    (spec,) = strict
    mesh.run(GATE_MAX_S + 0.1)
    assert len(mesh.record(A, spec.id).voids) == 1
    mesh.verdict = lambda begun: (0.1, succeeded())
    mesh.heal()
    mesh.run_until(lambda: mesh.settled(spec.id), limit_s=60.0)
    (begun,) = mesh.begun
    assert begun.token not in mesh.record(A, spec.id).voids


@pytest.mark.parametrize("options", STRICT, ids=str)
def test_a_strict_job_starts_when_one_of_its_holders_is_back(options: dict[str, Any]) -> None:
    mesh = Mesh("abc")
    mesh.set_queue(A, "mail", paused=True)
    mesh.run(0.2)
    (spec,) = mesh.specs(1, "a", queue="mail", **options)
    mesh.submit(A, spec)
    mesh.run(0.2)
    mesh.kill(B)
    mesh.kill(C)
    mesh.run(1.0)
    mesh.set_queue(A, "mail", paused=False)
    mesh.run(1.0)
    assert mesh.record(A, spec.id).own.state is State.QUEUED
    mesh.boot(B)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A], limit_s=3.0)


@pytest.mark.parametrize("options", STRICT, ids=str)
def test_a_start_that_waits_for_a_majority_on_the_successor_of_its_owner_never_began(
    options: dict[str, Any],
) -> None:
    """Only A could have granted it: B has its `running`, and no more."""
    mesh = Mesh("abc", slots={A: 0, B: 1, C: 0})
    spec = mesh.spec("abc", **options)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.has(A, spec.id) and mesh.record(A, spec.id).own.runner == B)
    mesh.rule = lambda source, to, message: not isinstance(message, Acks)
    mesh.run_until(lambda: mesh.record(B, spec.id).own.runner == B, limit_s=1.0)
    assert not mesh.messages(Grant)
    mesh.kill(A)
    mesh.rule = let_pass
    mesh.run_until(lambda: mesh.settled(spec.id))
    record = mesh.record(B, spec.id)
    assert mesh.runs(spec.id) == [B]
    assert (record.state, record.start_count, record.losses) == (State.SUCCEEDED, 1, ())


@pytest.mark.parametrize("options", STRICT, ids=str)
def test_a_start_whose_gate_opens_after_its_deadline_never_begins(options: dict[str, Any]) -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("abc", deadline=mesh.wall() + 2.0, **options)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.record(A, spec.id).own.state is State.RUNNING)
    mesh.rule = lambda source, to, message: 3.0 if isinstance(message, Acks) else True
    mesh.run_until(lambda: mesh.settled(spec.id))
    record = mesh.record(A, spec.id)
    assert (record.state, record.start_count, mesh.runs(spec.id)) == (State.EXPIRED, 0, [])
