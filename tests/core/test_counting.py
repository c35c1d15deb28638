"""How many jobs of each queue there are is told of the whole mesh, by any node."""

from __future__ import annotations

import pytest
from job_mesh import A, B, Begun, C, Mesh, make_desk

from edgenode.core import counting
from edgenode.core.counting import Counting
from edgenode.core.signals import CountAsked, CountDone, RequestDropped, RequestId, StopAsked
from edgenode.core.types import NodeId, Seconds
from edgenode.core.wire import CountQueues, QueueCount, QueuesCounted


def endless(begun: Begun) -> None:
    return None


def a_mesh(letters: str = "abc", *, slots: int = 1) -> Mesh:
    mesh = Mesh(letters, slots=slots)
    mesh.verdict = endless
    return mesh


def ask(mesh: Mesh, name: NodeId, *, timeout_s: Seconds = 1.0) -> RequestId:
    request = RequestId(900 + len(mesh.counts))
    mesh.do(name, CountAsked(request, timeout_s))
    return request


def count(mesh: Mesh, name: NodeId) -> CountDone:
    request = ask(mesh, name)
    mesh.run_until(lambda: request in mesh.counts, limit_s=1.1)
    return mesh.counts[request]


@pytest.mark.parametrize("asked", [A, B, C])
def test_any_node_counts_the_jobs_of_all_owners(asked: NodeId) -> None:
    mesh = a_mesh()
    for name, number in ((A, 4), (B, 3), (C, 2)):
        mesh.submit(name, *mesh.specs(number, name[0], queue="mail"))
    mesh.submit(A, mesh.spec("b", queue="other"))
    mesh.run(1.0)
    done = count(mesh, asked)
    assert done.counts == {"mail": (9 - 3, 3), "other": (1, 0)}
    assert (done.unanswered, done.left_out) == ((), 0)


def test_a_lone_node_counts_its_own() -> None:
    mesh = a_mesh("a")
    mesh.submit(A, *mesh.specs(3, "a"))
    mesh.run(0.1)
    assert count(mesh, A).counts == {"default": (2, 1)}


def test_who_does_not_answer_is_named_and_not_waited_for_longer_than_was_asked() -> None:
    mesh = a_mesh()
    mesh.submit(A, mesh.spec("a"))
    mesh.submit(B, mesh.spec("b"))
    mesh.run(0.1)
    mesh.rule = lambda source, to, message: not (to == B and isinstance(message, CountQueues))
    done = count(mesh, A)
    assert (done.counts, done.unanswered) == ({"default": (0, 1)}, (B,))


def test_who_dies_meanwhile_is_not_waited_for_and_the_dead_are_not_asked() -> None:
    mesh = a_mesh()
    mesh.rule = lambda source, to, message: not isinstance(message, QueuesCounted)
    request = ask(mesh, A, timeout_s=30.0)
    mesh.kill(B)
    mesh.kill(C)
    mesh.run_until(lambda: request in mesh.counts, limit_s=5.0)
    assert mesh.counts[request].unanswered == (B, C)
    assert count(mesh, A).unanswered == (), "what they owned is for others to own"


def test_whose_client_went_away_is_told_nothing_and_who_ends_tells_what_it_knows() -> None:
    mesh = a_mesh()
    mesh.rule = lambda source, to, message: not isinstance(message, QueuesCounted)
    gone = ask(mesh, A)
    mesh.do(A, RequestDropped(gone))
    mesh.run(2.0)
    assert gone not in mesh.counts
    left = ask(mesh, A, timeout_s=30.0)
    mesh.do(A, StopAsked())
    assert mesh.counts[left].unanswered == (B, C)


def test_a_second_answer_of_a_node_is_not_added() -> None:
    mesh = a_mesh()
    mesh.rule = lambda source, to, message: not isinstance(message, QueuesCounted)
    request = ask(mesh, A)
    answer = QueuesCounted(request, (QueueCount("mail", 2, 1),), 0)
    mesh.tell(B, A, answer)
    mesh.tell(B, A, answer)
    mesh.tell(C, A, answer)
    assert mesh.counts[request].counts == {"mail": (4, 2)}


def test_so_many_queues_are_told_of_and_how_many_more_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "COUNTED_MAX", 2)
    desk = make_desk(A, B)
    part = Counting(desk)
    part.ask(CountAsked(RequestId(1), 1.0), {"few": (1, 0), "most": (9, 0), "more": (2, 3)})
    part.on_counted(B, QueuesCounted(1, (QueueCount("most", 1, 0), QueueCount("new", 5, 5)), 7))
    (done,) = (effect for effect in desk.flush() if isinstance(effect, CountDone))
    assert done.counts == {"most": (10, 0), "more": (2, 3)}
    assert done.left_out == 1 + 7 + 1
