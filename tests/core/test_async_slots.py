"""Two kinds of slots: tasks with a process of their own, and coroutines, which share one."""

from __future__ import annotations

import pytest
from job_mesh import A, Begun, D, Mesh, failed, succeeded

from edgenode.core.signals import RunEnded, StoreRefused
from edgenode.core.specs import Spec
from edgenode.core.types import NodeId, Room, State
from edgenode.core.wire import Has, WantWork

TASKS = ("whole", "shared")


def endless(begun: Begun) -> None:
    return None


def a_mesh(letters: str, *, slots: dict[NodeId, int], async_slots: int) -> Mesh:
    every = [NodeId(letter * 16) for letter in letters]
    tasks = {name: TASKS if slots.get(name) else ("other",) for name in every}
    mesh = Mesh(letters, slots=slots, tasks=tasks, coroutines=("shared",), async_slots=async_slots)
    mesh.verdict = endless
    return mesh


def begun_of(mesh: Mesh, specs: list[Spec]) -> int:
    return sum(begun.job in {spec.id for spec in specs} for begun in mesh.begun)


def test_each_kind_of_task_has_slots_of_its_own() -> None:
    mesh = a_mesh("a", slots={A: 1}, async_slots=3)
    whole, shared = mesh.specs(3, "a", task="whole"), mesh.specs(5, "a", task="shared")
    mesh.submit(A, *whole)
    mesh.submit(A, *shared)
    mesh.run(5.0)
    assert (begun_of(mesh, whole), begun_of(mesh, shared)) == (1, 3)


def test_a_slot_that_becomes_free_is_filled_with_a_task_of_its_kind() -> None:
    mesh = a_mesh("a", slots={A: 1}, async_slots=2)
    whole, shared = mesh.specs(2, "a", task="whole"), mesh.specs(4, "a", task="shared", priority=0)
    mesh.submit(A, *whole, *shared)
    mesh.run(1.0)
    first = next(begun for begun in mesh.begun if begun.job in {spec.id for spec in shared})
    mesh.end_run(A, first.job, first.token, succeeded())
    mesh.run(1.0)
    assert (begun_of(mesh, whole), begun_of(mesh, shared)) == (1, 3)


def test_a_peer_gets_as_many_of_each_kind_as_it_has_slots_for() -> None:
    mesh = a_mesh("abcd", slots={D: 1}, async_slots=3)
    whole = [mesh.spec("a", not_on="d", task="whole") for _ in range(3)]
    shared = [mesh.spec("a", not_on="d", task="shared") for _ in range(5)]
    mesh.submit(A, *whole, *shared)
    mesh.run(5.0)
    assert {begun.node for begun in mesh.begun} == {D}
    assert (begun_of(mesh, whole), begun_of(mesh, shared)) == (1, 3)
    assert not any(message.voids for message in mesh.messages(Has)), "it was granted what it has no slot for"


def test_a_node_whose_slots_are_full_of_one_kind_asks_for_the_other() -> None:
    mesh = a_mesh("abcd", slots={D: 1}, async_slots=2)
    whole = [mesh.spec("a", not_on="d", task="whole") for _ in range(2)]
    mesh.submit(A, *whole)
    mesh.run_until(lambda: begun_of(mesh, whole) == 1)
    mesh.sent.clear()
    shared = mesh.spec("a", not_on="d", task="shared")
    mesh.submit(A, shared)
    mesh.run_until(lambda: begun_of(mesh, [shared]) == 1)
    asked = {message.room for message in mesh.messages(WantWork) if message.room.async_slots}
    assert asked == {Room(0, 2)}


def test_a_start_that_is_still_being_stopped_keeps_a_slot_of_its_own_kind() -> None:
    mesh = a_mesh("ab", slots={A: 1}, async_slots=1)
    specs = {task: mesh.spec("a", task=task) for task in TASKS}
    mesh.submit(A, *specs.values())
    mesh.run_until(lambda: len(mesh.begun) == 2)
    mesh.run(0.1)
    tokens = {begun.job: begun.token for begun in mesh.begun}
    mesh.nodes[A].handle(StoreRefused("full"), mesh.now)  # nobody carries the stops out
    mesh.make_room(A)
    mesh.run(3.0)
    for count, task in enumerate(("shared", "whole"), start=3):
        assert len(mesh.begun) == count - 1, "a slot was given away while a worker was in it"
        job = specs[task].id
        mesh.do(A, RunEnded(job, tokens[job], succeeded(), False))
        mesh.run_until(lambda count=count: len(mesh.begun) == count)  # type: ignore[misc]
        assert mesh.begun[-1].job == job
        mesh.run(1.0)


@pytest.mark.parametrize(("counted", "losses"), [(True, 1), (False, 0)])
def test_a_start_that_fell_with_another_s_worker_is_not_held_against_its_job(
    counted: bool, losses: int
) -> None:
    mesh = a_mesh("abcd", slots={D: 1}, async_slots=2)
    spec = mesh.spec("a", not_on="d", task="shared")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [D])
    mesh.end_run(D, spec.id, mesh.begun[0].token, failed(), lost=True, counted=counted)
    mesh.run_until(lambda: len(mesh.runs(spec.id)) == 2)
    record = mesh.record(A, spec.id)
    assert (record.state, record.loss_count, record.start_count) == (State.RUNNING, losses, 2)


@pytest.mark.parametrize("whole", range(4))
@pytest.mark.parametrize("shared", range(4))
def test_what_a_node_shows_of_its_load_tells_what_is_free_of_each_kind(whole: int, shared: int) -> None:
    mesh = a_mesh("a", slots={A: 2}, async_slots=2)
    mesh.submit(A, *mesh.specs(whole, "a", task="whole"), *mesh.specs(shared, "a", task="shared"))
    mesh.run(1.0)
    load = mesh.nodes[A].view.load(A)
    assert load.free_of(Room(2, 2)) == Room(max(0, 2 - whole), max(0, 2 - shared))
