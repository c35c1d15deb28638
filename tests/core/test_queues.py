"""What is set for a queue at one node is so at every node, in the end and once and for all."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_mesh import A, B, C, D, Mesh, make_desk, sends

from edgenode.core import queues
from edgenode.core.errors import RejectedInput, StoreFailed, StoreUnwritable
from edgenode.core.queues import COMPARE_S, PULL_S, QUEUES_MAX, RESET_MAX, Queues, is_reset, later
from edgenode.core.signals import QueueAsked, RequestId, Send
from edgenode.core.types import Hash64, NodeId, State
from edgenode.core.view import Standing
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


def test_who_changes_a_queue_at_the_same_time_as_another_node_is_told_what_stands() -> None:
    """And not what it asked for, as if all kept to that. (Found by seed 1711.)"""
    mesh = Mesh("abc")
    requests = [mesh.set_queue(A, "mail", concurrency=1), mesh.set_queue(B, "mail", concurrency=7)]
    mesh.run_until(lambda: all(request in mesh.queues for request in requests), limit_s=0.1)
    assert agreed(mesh) == QueueItem("mail", 1, B, False, 7, 0.0, 0)
    for request in requests:
        assert (mesh.queues[request].item, mesh.queues[request].known) == (agreed(mesh), 3)


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


def reset(mesh: Mesh, name: NodeId, queue: str = "mail") -> RequestId:
    return mesh.set_queue(name, queue, paused=False, concurrency=0, rate=0.0, burst=0)


def shown(mesh: Mesh, name: NodeId) -> list[str]:
    """The queues for which anything is set, as a node knows them."""
    return [item.queue for item in mesh.nodes[name].queues.in_force()]


def test_a_queue_that_is_reset_is_as_if_nothing_was_ever_set_at_every_node() -> None:
    mesh = Mesh("abc")
    mesh.set_queue(A, "mail", paused=True, concurrency=3, rate=2.5, burst=4)
    mesh.set_queue(B, "other", concurrency=1)
    mesh.run(0.1)
    spec = mesh.spec("a", queue="mail")
    mesh.submit(A, spec)
    mesh.run(1.0)
    assert not mesh.runs(spec.id)
    request = reset(mesh, C)
    mesh.run_until(lambda: request in mesh.queues, limit_s=0.1)
    assert (mesh.queues[request].known, mesh.queues[request].living) == (3, 3)
    assert [shown(mesh, name) for name in mesh.names] == [["other"]] * 3
    mesh.run_until(lambda: mesh.settled(spec.id), limit_s=2.0)


def test_who_was_away_when_a_queue_was_reset_does_not_bring_its_settings_back() -> None:
    mesh = Mesh("abc")
    for concurrency in (1, 2, 3):
        mesh.set_queue(A, "mail", concurrency=concurrency)
        mesh.run(0.1)
    mesh.kill(C)
    mesh.run(0.1)
    reset(mesh, A)
    mesh.run(0.1)
    for name in (A, B):  # nor does a restart of those that know better
        mesh.kill(name, silently=True)
    for name in mesh.names:
        mesh.boot(name)
    mesh.run_until(lambda: not any(shown(mesh, name) for name in mesh.names), limit_s=3 * COMPARE_S)


def test_what_is_set_after_a_reset_that_is_forgotten_stands_against_who_was_away_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queues, "RESET_MAX", 2)
    mesh = Mesh("abc")
    for concurrency in (1, 2, 3, 4):
        mesh.set_queue(A, "mail", concurrency=concurrency)
        mesh.run(0.1)
    mesh.kill(C)
    mesh.run(0.1)
    for queue in ("mail", "one", "two"):
        reset(mesh, A, queue)
    assert settings(mesh, A) is None
    mesh.set_queue(B, "mail", concurrency=7)
    mesh.run(0.1)
    mesh.boot(C)
    mesh.run_until(lambda: shown(mesh, C) == ["mail"], limit_s=3.0)
    mesh.run(3 * COMPARE_S)
    assert agreed(mesh).concurrency == 7


def test_queues_that_are_reset_make_room_and_only_the_latest_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queues, "QUEUES_MAX", 20)
    monkeypatch.setattr(queues, "RESET_MAX", 20)
    mesh = Mesh("ab")
    for number in range(20):
        mesh.set_queue(A, f"mail-{number}", paused=True)
    refused = mesh.set_queue(A, "new", paused=True)
    mesh.run(0.1)
    assert isinstance(mesh.queues[refused].error, RejectedInput)
    for number in range(20):
        reset(mesh, B, f"mail-{number}")
    mesh.run(0.1)
    taken = mesh.set_queue(A, "new", paused=True)
    mesh.run(0.1)
    assert mesh.queues[taken].error is None
    for number in range(5):
        reset(mesh, A, f"more-{number}")
    mesh.run(2 * COMPARE_S)
    assert shown(mesh, A) == shown(mesh, B) == ["new"]
    known = [item.queue for item in mesh.nodes[B].queues.all()]
    assert len(known) == 20 + 1
    assert known == [item.queue for item in mesh.nodes[A].queues.all()]
    assert set(known).isdisjoint(f"mail-{number}" for number in range(5)), "the first to be reset"
    assert {f"more-{number}" for number in range(5)} < set(known)


def test_a_reset_that_is_older_than_all_that_are_remembered_is_noted_all_the_same() -> None:
    """It does as little as one that is remembered: who asked for it is told so."""
    desk = make_desk(A, B)
    known = Queues(desk)
    items = [QueueItem(f"mail-{number}", number + 2, A, False, 0, 0.0, 0) for number in range(RESET_MAX)]
    known.on_told(B, QueuesTold(tuple(items), True, True))
    old = QueueItem("old", 1, B, False, 0, 0.0, 0)
    known.on_told(B, QueuesTold((old,), False, False))
    (answer,) = sends(desk.flush(), QueuesTold)
    assert answer.items == (old,)
    assert known.all() == sorted(items)


NAMES = ("one", "two", "three", "four")
CHANGES = st.tuples(st.sampled_from(NAMES), st.integers(0, 2))
STEPS = st.lists(st.one_of(st.tuples(st.integers(0, 2), CHANGES), st.tuples(st.integers(0, 2), st.none())))


@given(STEPS)
def test_all_come_to_the_same_whatever_was_reset_and_forgotten_meanwhile(
    steps: list[tuple[int, tuple[str, int] | None]],
) -> None:
    """Three nodes that remember two resets each: changes (0 resets), and what one tells the next."""
    names = (A, B, C)
    desks = [make_desk(name, *(other for other in names if other != name)) for name in names]
    nodes = [Queues(desk) for desk in desks]

    def compare(place: int) -> None:
        """One tells its digest to the next, and they exchange what differs."""
        other = (place + 1) % 3
        nodes[other].on_digest(names[place], nodes[place].digest)
        for asked in sends(desks[other].flush(), QueuesTold):
            nodes[place].on_told(names[other], asked)
            for answer in sends(desks[place].flush(), QueuesTold):
                nodes[other].on_told(names[place], answer)
        for desk in desks:
            desk.now += PULL_S

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queues, "RESET_MAX", 2)
        for number, (place, change) in enumerate(steps):
            if change is None:
                compare(place)
                continue
            request = QueueAsked(RequestId(number), change[0], False, change[1], 0.0, 0, 2.0)
            nodes[place].ask(request)
            desks[place].flush()
        for place in (0, 1, 2) * 3:
            compare(place)
        assert nodes[0].all() == nodes[1].all() == nodes[2].all()
        assert sum(is_reset(item) for item in nodes[0].all()) <= 2


@pytest.mark.parametrize("answers", [True, False])
def test_who_has_just_joined_asks_the_next_when_the_first_has_answered_or_is_gone(answers: bool) -> None:
    """Two members say what they know; the first one asked leaves at once, or knew less. (Found by seed 10206:
    the newcomer started a job of a paused queue.)"""
    desk = make_desk(A, B, C)
    newcomer = Queues(desk)
    knows = Queues(make_desk(C, A, B))
    knows.on_told(A, QueuesTold((QueueItem("mail", 1, C, True, 0, 0.0, 0),), True, False))
    newcomer.on_digest(B, Hash64(7))
    newcomer.on_digest(C, knows.digest)
    assert [effect.to for effect in desk.flush() if isinstance(effect, Send)] == [B]
    if answers:
        newcomer.on_told(B, QueuesTold((), True, True))
    else:
        desk.view.standings[B] = Standing.GONE  # type: ignore[attr-defined]
        newcomer.members_changed(frozenset({B}))
    asked = [effect for effect in desk.flush() if isinstance(effect, Send)]
    assert [(each.to, type(each.message)) for each in asked if each.to != B] == [(C, QueuesTold)]


def test_who_is_asked_by_nobody_twice_at_once_is_left_alone() -> None:
    """One that says the same as the one that was asked is not asked when that has answered."""
    desk = make_desk(A, B, C)
    newcomer, item = Queues(desk), QueueItem("mail", 1, C, True, 0, 0.0, 0)
    knows = Queues(make_desk(C, A, B))
    knows.on_told(A, QueuesTold((item,), True, False))
    newcomer.on_digest(B, knows.digest)
    newcomer.on_digest(C, knows.digest)
    newcomer.on_told(B, QueuesTold((item,), True, True))
    assert [effect.to for effect in desk.flush() if isinstance(effect, Send)] == [B]


def test_there_are_only_so_many_queues_with_settings() -> None:
    mesh = Mesh("a")
    requests = [mesh.set_queue(A, f"mail-{number}", paused=True) for number in range(QUEUES_MAX + 1)]
    mesh.run(0.1)
    assert [mesh.queues[request].error is None for request in requests] == [True] * QUEUES_MAX + [False]
    error = mesh.queues[requests[-1]].error
    assert isinstance(error, RejectedInput)
    assert "reset one that needs none" in error.detail
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
