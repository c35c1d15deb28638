"""Jobs behind a gate have their turn beside those that need no permit; permits are neither lost nor left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from job_mesh import A, B, C, D, Mesh, let_pass, succeeded

from edgenode.core.lines import key_gate, queue_gate
from edgenode.core.permits import steward_of
from edgenode.core.settings import PRESETS, JobSettings, Settings
from edgenode.core.types import Delivery, Hash64, NodeId, Seconds, State
from edgenode.core.wire import CONTROL, Acks, Allowed, Grant, PermitItem, PermitsWanted, WantWork


def make_mesh(letters: str, slots: int, run_s: Seconds, settings: Settings | None = None) -> Mesh:
    mesh = Mesh(letters, slots=slots, settings=settings)
    mesh.verdict = lambda begun: (run_s, succeeded())
    return mesh


def name_of(mesh: Mesh, make: Any, steward: NodeId) -> str:
    """A queue, or a key, of which this node is the steward."""
    ranking = mesh.nodes[A].view.ranking()
    return next(name for name in map(str, range(999)) if steward_of(make(name), ranking) == steward)


def begun_of(mesh: Mesh, specs: list[Any]) -> list[float]:
    jobs = {spec.id for spec in specs}
    return [begun.at for begun in mesh.begun if begun.job in jobs]


LIMITS: dict[str, dict[str, Any]] = {
    "concurrency": {"concurrency": 2},
    "rate": {"rate": 100.0},
    "both": {"concurrency": 2, "rate": 100.0},
    "key": {},
}


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize(("letters", "slots"), [("a", 1), ("abc", 1), ("abc", 2)])
def test_urgent_jobs_with_a_limit_start_before_others_that_need_no_permit(
    letters: str, slots: int, limit: str
) -> None:
    mesh = make_mesh(letters, slots, run_s=1.0)
    if LIMITS[limit]:
        mesh.set_queue(A, "mail", **LIMITS[limit])
    mesh.run(1)
    for letter in letters:
        mesh.submit(NodeId(letter * 16), *mesh.specs(60, letter))
    mesh.run(0.5)
    options: dict[str, Any] = {"concurrency_key": "k", "concurrency_limit": 2} if limit == "key" else {}
    urgent = mesh.specs(5, "a", priority=9, **({"queue": "mail"} if LIMITS[limit] else options))
    mesh.submit(A, *urgent)
    mesh.run(6.5)
    assert len(begun_of(mesh, urgent)) == 5
    # Nor do the others wait for it: a slot is kept for a round trip, not for a run.
    assert len(mesh.begun) >= 0.9 * 7 * slots * len(letters)


def test_long_jobs_do_not_keep_a_limited_queue_from_its_turn() -> None:
    mesh = make_mesh("abc", 4, run_s=0.0)
    mesh.verdict = lambda begun: (5.0 + begun.job[-5] % 10, succeeded())
    mesh.set_queue(A, "mail", concurrency=10)
    mesh.run(1)
    for letter in "abc":
        mesh.submit(NodeId(letter * 16), *mesh.specs(200, letter))
    mesh.run(1)
    urgent = mesh.specs(20, "a", priority=9, queue="mail")
    mesh.submit(A, *urgent)
    mesh.run(80)
    assert len(begun_of(mesh, urgent)) == 20


def test_a_permit_that_never_comes_keeps_no_slot_for_long() -> None:
    """The steward hears nothing: jobs that need no permit go on."""
    mesh = make_mesh("abc", 1, run_s=0.2)
    queue = name_of(mesh, queue_gate, B)
    mesh.set_queue(A, queue, concurrency=2)
    mesh.run(1)
    mesh.rule = lambda source, to, message: not isinstance(message, PermitsWanted)
    mesh.submit(A, *mesh.specs(5, "a", priority=9, queue=queue))
    plain = mesh.specs(40, "a")
    mesh.submit(A, *plain)
    mesh.run_until(lambda: len(begun_of(mesh, plain)) == 40, limit_s=10.0)


@pytest.mark.parametrize(("one_way", "preset"), [(0.06, "lan"), (0.14, "wan")])
@pytest.mark.parametrize(("of_key", "of_queue"), [(B, C), (B, B), (A, C), (B, A)])
def test_a_job_behind_two_gates_starts_however_far_their_stewards_are(
    one_way: float, preset: str, of_key: NodeId, of_queue: NodeId
) -> None:
    mesh = make_mesh("abcd", 8, run_s=1.0, settings=PRESETS[preset])
    queue, key = name_of(mesh, queue_gate, of_queue), name_of(mesh, key_gate, of_key)
    mesh.set_queue(A, queue, concurrency=5)
    mesh.run(3)
    mesh.rule = lambda source, to, message: True if isinstance(message, CONTROL) else one_way
    jobs = mesh.specs(3, "a", concurrency_key=key, concurrency_limit=5, queue=queue)
    mesh.submit(A, *jobs)
    mesh.run_until(lambda: len(begun_of(mesh, jobs)) == 3, limit_s=5.0)


def test_an_owner_that_was_taken_for_dead_gets_its_rate_again() -> None:
    mesh = make_mesh("abc", 2, run_s=0.05)
    queue = name_of(mesh, queue_gate, B)
    mesh.set_queue(B, queue, rate=20.0, burst=5)
    mesh.run(1)
    mesh.submit(A, *mesh.specs(500, "a", queue=queue))
    mesh.run(8)
    mesh.up.discard(A)  # its process stands still
    mesh.run(4)
    assert not mesh.nodes[B].view.is_living(A)
    mesh.up.add(A)
    mesh._later(0, A, lambda: mesh._read_clock(A))
    mesh.run(25)
    began = mesh.now
    again = mesh.specs(30, "a", queue=queue)
    mesh.submit(A, *again)
    mesh.run(4)
    assert len(begun_of(mesh, again)) == 30
    assert sum(begun.at >= began for begun in mesh.begun) <= 4 * 20.0 * 1.1 + 5


def test_a_rate_that_comes_again_is_had_by_who_missed_that_it_went() -> None:
    mesh = make_mesh("abc", 2, run_s=0.05)
    queue = name_of(mesh, queue_gate, B)
    mesh.set_queue(B, queue, rate=20.0)
    mesh.run(1)
    mesh.submit(A, *mesh.specs(40, "a", queue=queue))
    mesh.run(4)
    mesh.rule = lambda source, to, message: to != A or isinstance(message, CONTROL)
    mesh.set_queue(B, queue, rate=0.0)
    mesh.run(0.1)
    mesh.set_queue(B, queue, rate=10.0)
    mesh.rule = let_pass
    mesh.run(6)
    again = mesh.specs(10, "a", queue=queue)
    mesh.submit(A, *again)
    mesh.run_until(lambda: len(begun_of(mesh, again)) == 10, limit_s=10.0)


def test_what_a_dead_owner_said_last_takes_no_permit() -> None:
    mesh = make_mesh("abcd", 2, run_s=0.3)
    queue = name_of(mesh, queue_gate, B)
    mesh.set_queue(C, queue, concurrency=1)
    mesh.run(2)
    mesh.rule = lambda source, to, message: (
        0.4 if source == A and isinstance(message, PermitsWanted) else True
    )
    mesh.submit(A, *mesh.specs(1, "a", queue=queue))
    mesh.run(0.2)
    mesh.kill(A)
    mesh.run(2)
    mesh.rule = let_pass
    jobs = mesh.specs(4, "c", queue=queue)
    mesh.submit(C, *jobs)
    mesh.run_until(lambda: len(begun_of(mesh, jobs)) == 4, limit_s=10.0)


def test_a_key_s_limit_is_that_of_the_jobs_that_run_and_of_the_next() -> None:
    mesh = make_mesh("abc", 8, run_s=0.5)
    key = {"concurrency_key": "k"}
    mesh.submit(A, *mesh.specs(6, "a", concurrency_limit=1, **key))
    mesh.run(0.2)
    mesh.submit(A, *mesh.specs(40, "a", concurrency_limit=8, **key))
    mesh.run(4)
    began, count = mesh.now, len(mesh.begun)
    mesh.run(1)
    assert len(mesh.begun) - count >= 12, began


def test_a_job_with_a_smaller_limit_waits_for_those_of_its_key_that_run() -> None:
    mesh = make_mesh("abc", 8, run_s=1.0)
    key = {"concurrency_key": "k"}
    first = mesh.specs(2, "a", concurrency_limit=5, priority=9, **key)
    alone = mesh.specs(1, "a", concurrency_limit=1, priority=8, **key)
    last = mesh.specs(2, "a", concurrency_limit=5, priority=7, **key)
    mesh.submit(A, *first, *alone, *last)
    mesh.run(6)
    at = begun_of(mesh, first) + begun_of(mesh, alone) + begun_of(mesh, last)
    assert len(at) == 5
    assert all(abs(each - at[2]) >= 1.0 - 1e-6 for each in at[:2] + at[3:])


def test_a_limit_that_comes_back_lower_holds_at_once() -> None:
    mesh = make_mesh("abc", 12, run_s=1.0)
    mesh.set_queue(A, "mail", concurrency=10)
    mesh.run(1)
    specs = mesh.specs(30, "a", queue="mail")
    mesh.submit(A, *specs[:10])
    mesh.run(0.5)
    assert len(mesh.begun) == 10
    mesh.set_queue(A, "mail", concurrency=0, rate=0.5)
    mesh.verdict = lambda begun: (60.0, succeeded())
    mesh.submit(A, *specs[10:])
    mesh.run(3)
    mesh.set_queue(A, "mail", concurrency=2, rate=0.0)
    mesh.run(5)
    assert len(mesh.begun) - 10 <= 2 + 0.5 * 3


def test_who_has_many_jobs_that_nobody_can_run_keeps_nobody_from_asking_others() -> None:
    mesh = Mesh("abc", slots={A: 2, B: 0, C: 0})
    mesh.submit(B, *mesh.specs(1000, "b", task="later"))
    mesh.run(1)
    job = mesh.specs(1, "c")
    mesh.submit(C, *job)
    mesh.run_until(lambda: begun_of(mesh, job) != [], limit_s=5.0)
    assert mesh.messages(WantWork)


def test_a_start_whose_runner_died_before_it_was_told_is_no_lost_one() -> None:
    mesh = Mesh("abcd", slots={A: 0, B: 0, C: 0, D: 1})
    job = mesh.spec("a", not_on="d", delivery=Delivery.AT_MOST_ONCE)
    mesh.submit(A, job)
    mesh.run_until(lambda: mesh.record(A, job.id).own.state is State.RUNNING)
    assert not mesh.messages(Grant)
    mesh.rule = lambda source, to, message: 0.3 if isinstance(message, Acks) else True
    mesh.kill(D)
    mesh.run(2)
    record = mesh.record(A, job.id)
    assert (record.state, record.loss_count) == (State.QUEUED, 0)
    assert not mesh.messages(Grant)


def test_many_keys_are_asked_for_no_further_than_there_are_slots() -> None:
    mesh = make_mesh("abc", 4, run_s=0.2)
    jobs = []
    for number in range(300):
        jobs += mesh.specs(1, "a", concurrency_key=str(number), concurrency_limit=1)
    mesh.submit(A, *jobs)
    mesh.run(3)
    asked = sum(len(message.items) for message in mesh.messages(PermitsWanted))
    assert len(begun_of(mesh, jobs)) >= 100
    assert asked <= 12 * len(begun_of(mesh, jobs))


def test_an_old_word_that_comes_late_takes_no_permit() -> None:
    mesh = make_mesh("abc", 2, run_s=0.1)
    key = name_of(mesh, key_gate, B)
    late: list[object] = []

    def rule(source: NodeId, to: NodeId, message: Any) -> bool:
        if isinstance(message, PermitsWanted) and source == A and any(item.want for item in message.items):
            late.append(message)
        return True

    mesh.rule = rule
    options: dict[str, Any] = {"concurrency_key": key, "concurrency_limit": 1}
    first = mesh.specs(1, "a", **options)
    mesh.submit(A, *first)
    mesh.run(3.0)
    assert begun_of(mesh, first)
    mesh.tell(B, A, late[0])
    mesh.run(0.1)
    second = mesh.specs(1, "c", **options)
    mesh.submit(C, *second)
    mesh.run_until(lambda: begun_of(mesh, second) != [], limit_s=5.0)


def test_what_is_said_of_many_gates_travels_in_pieces() -> None:
    settings = Settings(jobs=replace(JobSettings(), batch=20))
    mesh = make_mesh("abc", 40, run_s=0.2, settings=settings)
    jobs = []
    for number in range(200):
        jobs += mesh.specs(1, "a", concurrency_key=str(number), concurrency_limit=1)
    mesh.submit(A, *jobs)
    mesh.run_until(lambda: len(begun_of(mesh, jobs)) == 200, limit_s=30.0)
    said = (*mesh.messages(PermitsWanted), *mesh.messages(Allowed))
    assert max(len(message.items) for message in said) <= 20


@pytest.mark.parametrize("gate", ["", "x", "z" * 100])
def test_gates_that_are_none_are_passed_over(gate: str) -> None:
    mesh = make_mesh("ab", 1, run_s=0.1)
    mesh.tell(A, B, PermitsWanted(mesh.nodes[B].view.boot, Hash64(0), (PermitItem(gate, 1, 1, 1, 0, 1, 0),)))
    mesh.run(1.0)
    assert gate not in mesh.nodes[A]._steward._pools
