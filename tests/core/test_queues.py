"""What is set for a queue at one node is so at every node, in the end and once and for all."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_mesh import A, B, C, D, Mesh

from edgenode.core.errors import RejectedInput, StoreFailed, StoreUnwritable
from edgenode.core.queues import COMPARE_S, QUEUES_MAX, later
from edgenode.core.types import NodeId, State
from edgenode.core.wire import QueueItem, QueuesDigest, QueuesTold

ITEMS = st.builds(
    QueueItem,
    st.just("mail"),
    st.integers(0, 3),
    st.sampled_from((A, B)),
    st.booleans(),
    st.integers(0, 2),
    st.sampled_from((0.0, 2.5)),
    st.integers(0, 2),
)


def settings(mesh: Mesh, name: NodeId, queue: str = "mail") -> QueueItem | None:
    return mesh.nodes[name].queues.get(queue)


def agreed(mesh: Mesh, queue: str = "mail") -> QueueItem:
    """What every living node knows of a queue."""
    found = {settings(mesh, name, queue) for name in mesh.up}
    assert len(found) == 1, found
    (item,) = found
    assert item is not None
    return item


@given(st.lists(ITEMS, min_size=1, max_size=4))
def test_of_several_settings_the_same_one_stands_in_whatever_order_they_come(items: list[QueueItem]) -> None:
    ends = set()
    for order in permutations(items):
        stands: QueueItem | None = None
        for item in (*order, order[0]):
            stands = later(stands, item)
        ends.add(stands)
    assert len(ends) == 1
    assert ends.pop() == max(items, key=lambda item: (item.version, item.by, item))


def test_a_change_is_known_to_all_before_it_is_answered() -> None:
    mesh = Mesh("abc")
    request = mesh.set_queue(B, "mail", paused=True, concurrency=3)
    mesh.run_until(lambda: request in mesh.queues, limit_s=0.1)
    done = mesh.queues[request]
    assert (done.known, done.living, done.error) == (3, 3, None)
    assert done.item == agreed(mesh) == QueueItem("mail", 1, B, True, 3, 0.0, 0)
    again = mesh.set_queue(C, "mail", rate=2.5, burst=4, paused=False)
    mesh.run_until(lambda: again in mesh.queues, limit_s=0.1)
    assert agreed(mesh) == QueueItem("mail", 2, C, False, 3, 2.5, 4)


def test_who_cannot_be_reached_is_not_counted_and_hears_of_it_when_it_comes_back() -> None:
    mesh = Mesh("abc")
    mesh.rule = lambda source, to, message: not (to == C and isinstance(message, QueuesTold))
    request = mesh.set_queue(A, "mail", paused=True)
    mesh.run_until(lambda: request in mesh.queues, limit_s=2.5)
    assert (mesh.queues[request].known, mesh.queues[request].living) == (2, 3)
    assert settings(mesh, C) is None
    mesh.rule = lambda source, to, message: True
    mesh.run_until(lambda: settings(mesh, C) is not None, limit_s=3 * COMPARE_S)
    assert agreed(mesh).paused


def test_two_sides_of_a_cut_come_to_the_same() -> None:
    mesh = Mesh("abcd")
    mesh.cut((A, C), (A, D), (B, C), (B, D))
    mesh.run_until(lambda: mesh.agree((A, B)) and mesh.agree((C, D)))
    mesh.set_queue(A, "mail", concurrency=1)
    mesh.set_queue(C, "mail", concurrency=7)
    mesh.set_queue(D, "other", paused=True)
    mesh.run(0.5)
    mesh.heal()
    mesh.run_until(lambda: mesh.agree(mesh.names))
    mesh.run(1.0)
    assert agreed(mesh).concurrency == 7, "of one version that of the greater node stands"
    assert agreed(mesh, "other").paused


def test_a_message_that_comes_again_later_changes_nothing() -> None:
    mesh = Mesh("ab")
    mesh.set_queue(A, "mail", paused=True)
    mesh.run(0.1)
    (old,) = mesh.messages(QueuesTold, source=A, to=B)
    mesh.set_queue(A, "mail", paused=False)
    mesh.run(0.1)
    mesh.tell(A, B, old)
    mesh.run(0.1)
    assert not agreed(mesh).paused


def test_a_mesh_that_lost_its_power_knows_what_was_paused() -> None:
    mesh = Mesh("abc")
    mesh.set_queue(A, "mail", paused=True, concurrency=2, rate=0.5, burst=3)
    mesh.run(0.1)
    before = agreed(mesh)
    for name in mesh.names:
        mesh.kill(name, silently=True)
    for name in mesh.names:
        mesh.boot(name)
    mesh.run(0.5)
    assert agreed(mesh) == before


def test_a_change_that_the_disk_refuses_is_told_to_nobody() -> None:
    mesh = Mesh("ab")
    mesh.full.add(A)
    request = mesh.set_queue(A, "mail", paused=True)
    mesh.run(0.1)
    assert isinstance(mesh.queues[request].error, StoreFailed)
    assert settings(mesh, B) is None
    refused = mesh.set_queue(A, "mail", paused=True)
    assert isinstance(mesh.queues[refused].error, StoreUnwritable)


def test_there_are_only_so_many_queues_with_settings() -> None:
    mesh = Mesh("a")
    requests = [mesh.set_queue(A, f"mail-{number}", paused=True) for number in range(QUEUES_MAX + 1)]
    mesh.run(0.1)
    assert [mesh.queues[request].error is None for request in requests] == [True] * QUEUES_MAX + [False]
    error = mesh.queues[requests[-1]].error
    assert isinstance(error, RejectedInput)
    assert "use the name of a queue that has some" in error.detail
    again = mesh.set_queue(A, "mail-7", paused=False)
    mesh.run(0.1)
    assert mesh.queues[again].error is None


def test_a_mesh_in_which_nothing_was_ever_set_says_nothing_of_queues() -> None:
    mesh = Mesh("abc")
    mesh.run(5 * COMPARE_S)
    assert not mesh.messages(QueuesDigest)
    assert not mesh.messages(QueuesTold)


@pytest.mark.parametrize("where", [A, B])
def test_a_paused_queue_starts_nothing_and_what_runs_goes_on(where: NodeId) -> None:
    mesh = Mesh("abc", slots=1)
    running, *waiting = [mesh.spec("a", queue="mail") for _ in range(5)]
    mesh.submit(A, running)
    mesh.run(0.1)
    mesh.set_queue(where, "mail", paused=True)
    mesh.submit(A, *waiting)
    other = mesh.spec("a")
    mesh.submit(A, other)
    mesh.run(30.0)
    assert [begun.job for begun in mesh.begun] == [running.id, other.id]
    assert mesh.record(A, running.id).state is State.SUCCEEDED
    assert {mesh.record(A, spec.id).state for spec in waiting} == {State.QUEUED}
    assert mesh.nodes[A].view.load(A).queued == 0, "nobody idle comes for them"
    mesh.set_queue(C, "mail", paused=False)
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in waiting), limit_s=3.0)


def test_a_job_of_a_paused_queue_is_taken_over_and_still_waits() -> None:
    mesh = Mesh("abc")
    mesh.set_queue(A, "mail", paused=True)
    spec = mesh.spec("ab", queue="mail")
    mesh.submit(C, spec)
    mesh.run(0.2)
    mesh.kill(A)
    mesh.run_until(lambda: mesh.is_firm(B, spec.id))
    mesh.run(5.0)
    assert mesh.runs(spec.id) == []
    mesh.set_queue(C, "mail", paused=False)
    mesh.run_until(lambda: mesh.settled(spec.id), limit_s=2.0)
