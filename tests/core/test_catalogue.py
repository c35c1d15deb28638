"""What members tell each other of tasks that not all of them have."""

from __future__ import annotations

import pytest
from job_mesh import A, B, C, D, E, Mesh, describe, make_desk, sends

from edgenode.core import catalogue
from edgenode.core.catalogue import Catalogue, is_sane
from edgenode.core.signals import MessageArrived, RequestDropped, StopAsked, StoreRefused
from edgenode.core.types import NodeId
from edgenode.core.wire import DescribeTasks, TaskItem, TasksDescribed


def item(name: str, schema: bytes = b"{}", *, max_attempts: int = 5) -> TaskItem:
    return TaskItem(name, schema, 2.0, max_attempts, "constant", 1.0, 2.0, False)


RESIZE = item("resize")


def mesh_of(letters: str, having: dict[NodeId, TaskItem]) -> Mesh:
    """Those in `having` have one task each; the others have `echo`, and nobody says anything of that."""
    tasks = {node: (each.name,) for node, each in having.items()}
    return Mesh(letters, tasks=tasks, described={node: (each,) for node, each in having.items()})


def ask(mesh: Mesh, at: NodeId, *names: str) -> tuple[TaskItem, ...]:
    request = mesh.ask_tasks(at, *names)
    mesh.run_until(lambda: request in mesh.told)
    return mesh.told[request].items


def questions(mesh: Mesh) -> dict[NodeId, tuple[str, ...]]:
    return {sent.to: sent.message.names for sent in mesh.sent if isinstance(sent.message, DescribeTasks)}


def test_a_task_that_only_another_node_has_is_told_by_that_and_asked_for_once() -> None:
    mesh = mesh_of("abc", {B: RESIZE})
    assert mesh.nodes[A].catalogue.told(["resize"]) == {"resize": None}
    assert ask(mesh, A, "resize") == (RESIZE,)
    assert questions(mesh) == {B: ("resize",)}
    mesh.sent.clear()
    assert mesh.nodes[A].catalogue.told(["resize"]) == {"resize": RESIZE}
    assert ask(mesh, A, "resize") == (RESIZE,)
    assert questions(mesh) == {}


def test_nobody_is_asked_about_own_tasks_and_such_as_nobody_has() -> None:
    mesh = mesh_of("ab", {A: RESIZE, B: RESIZE})
    assert mesh.nodes[A].catalogue.told(["resize", "none"]) == {}
    assert ask(mesh, A, "resize", "none") == ()
    assert questions(mesh) == {}


def test_several_tasks_are_asked_for_in_one_message_to_each_who_has_them() -> None:
    tasks = [item(f"t{number}") for number in range(4)]
    mesh = Mesh(
        "abc",
        tasks={A: ("echo",), B: ("t0", "t1", "t2"), C: ("t3",)},
        described={B: tasks[:3], C: tasks[3:]},
    )
    assert ask(mesh, A, "t3", "t0", "t2") == (tasks[0], tasks[2], tasks[3])
    assert len(mesh.messages(DescribeTasks)) == 2
    assert questions(mesh) == {B: ("t0", "t2"), C: ("t3",)}
    mesh.sent.clear()
    assert ask(mesh, A, "t0", "t1", "t3") == (tasks[0], tasks[1], tasks[3])
    assert questions(mesh) == {B: ("t1",)}


def test_three_members_are_asked_and_the_first_answer_is_enough() -> None:
    versions = {node: item("resize", max_attempts=place) for place, node in enumerate((B, C, D, E), 2)}
    mesh = mesh_of("abcde", versions)
    mesh.rule = lambda source, to, message: source == C or not isinstance(message, TasksDescribed)
    request = mesh.ask_tasks(A, "resize")
    began = mesh.now
    mesh.run_until(lambda: request in mesh.told)
    assert questions(mesh).keys() == {B, C, D}
    assert mesh.told[request].items == (versions[C],)
    assert mesh.answered_at[request] < began + 0.1


def test_of_several_versions_the_one_at_the_first_member_by_name_counts_once_it_is_told() -> None:
    versions = {node: item("resize", max_attempts=place) for place, node in enumerate((B, C), 2)}
    mesh = mesh_of("abc", versions)
    mesh.rule = lambda source, to, message: 0.2 if source == B else True
    assert ask(mesh, A, "resize") == (versions[C],)
    assert mesh.nodes[A].catalogue.told(["resize"]) == {"resize": None}, "it is to be asked for again"
    mesh.rule = lambda source, to, message: True
    assert ask(mesh, A, "resize") == (versions[C],), "nobody waits for another version"
    mesh.run(0.5)
    assert mesh.nodes[A].catalogue.told(["resize"]) == {"resize": versions[B]}
    assert ask(mesh, A, "resize") == (versions[B],)


def test_the_first_member_is_so_by_its_name_and_not_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make_desk(A, B, C)
    names = {B: "node-2", C: "node-1"}
    monkeypatch.setattr(
        desk.view, "info", lambda node: describe(node, tasks=("resize",))._replace(name=names.get(node, ""))
    )
    lacking = Catalogue(desk, ())
    versions = {node: item("resize", max_attempts=place) for place, node in enumerate((B, C), 2)}
    for node in (B, C):
        lacking.on_described(node, TasksDescribed(7, (versions[node],), True))
    assert lacking.told(["resize"]) == {"resize": versions[C]}


def test_who_asks_waits_no_longer_than_it_said_and_the_log_names_the_task() -> None:
    mesh = mesh_of("abc", {B: RESIZE})
    mesh.rule = lambda source, to, message: not isinstance(message, TasksDescribed)
    request = mesh.ask_tasks(A, "resize")
    began = mesh.now
    mesh.run_until(lambda: request in mesh.told)
    assert mesh.told[request].items == ()
    assert mesh.answered_at[request] == pytest.approx(began + 1.0)
    ask(mesh, A, "resize")
    complaints = [log.text for node, log in mesh.logs if log.kind == "task-undescribed"]
    assert complaints == ["no member has said what resize takes: its payloads are not checked here"]


def test_nobody_waits_for_the_dead() -> None:
    mesh = mesh_of("abc", {B: RESIZE})
    mesh.kill(B)
    request = mesh.ask_tasks(A, "resize", timeout_s=60.0)
    mesh.run_until(lambda: request in mesh.told, limit_s=5.0)
    assert mesh.told[request].items == ()


def test_a_new_life_is_asked_again() -> None:
    mesh = mesh_of("abc", {B: RESIZE})
    ask(mesh, A, "resize")
    mesh.kill(B)
    mesh.run_until(lambda: not mesh.nodes[A].view.is_living(B))
    assert mesh.nodes[A].catalogue.told(["resize"]) == {}
    other = item("resize", max_attempts=9)
    mesh.described[B] = (other,)
    mesh.boot(B)
    mesh.run_until(lambda: mesh.nodes[A].view.is_living(B))
    assert mesh.nodes[A].catalogue.told(["resize"]) == {"resize": None}
    assert ask(mesh, A, "resize") == (other,)


def test_what_a_life_said_that_nobody_saw_end_is_forgotten_too() -> None:
    mesh = mesh_of("abc", {B: RESIZE})
    ask(mesh, A, "resize")
    mesh.kill(B, silently=True)
    mesh.boot(B)
    mesh.run_until(lambda: mesh.nodes[A].view.boot_of(B) == 2)
    assert mesh.nodes[A].view.is_living(B)
    assert mesh.nodes[A].catalogue.told(["resize"]) == {"resize": None}


def test_who_was_taken_for_dead_is_asked_again() -> None:
    mesh = mesh_of("abc", {B: RESIZE})
    ask(mesh, A, "resize")
    mesh.cut((A, B), (B, C))
    mesh.run_until(lambda: not mesh.nodes[A].view.is_living(B))
    mesh.heal()
    mesh.run_until(lambda: mesh.nodes[A].view.is_living(B))
    assert mesh.nodes[A].catalogue.told(["resize"]) == {"resize": None}


def test_a_node_whose_disk_refuses_asks_and_answers_all_the_same() -> None:
    mesh = mesh_of("abc", {B: RESIZE})
    mesh.full.add(A)
    mesh.do(A, StoreRefused("the disk is full"))
    assert ask(mesh, A, "resize") == (RESIZE,)
    mesh.full.add(B)
    mesh.do(B, StoreRefused("the disk is full"))
    assert sends(mesh.tell(C, B, DescribeTasks(7, ("resize",))), TasksDescribed)


def test_a_node_that_ends_answers_with_what_it_knows() -> None:
    mesh = mesh_of("abc", {B: RESIZE})
    mesh.rule = lambda source, to, message: not isinstance(message, TasksDescribed)
    request = mesh.ask_tasks(A, "resize", timeout_s=60.0)
    mesh.do(A, StopAsked())
    assert mesh.told[request].items == ()


def test_who_went_away_is_not_answered_and_the_next_one_has_the_answer() -> None:
    mesh = mesh_of("abc", {B: RESIZE})
    request = mesh.ask_tasks(A, "resize")
    mesh.do(A, RequestDropped(request))
    mesh.run(0.5)
    assert request not in mesh.told
    assert mesh.nodes[A].catalogue.told(["resize"]) == {"resize": RESIZE}


def test_long_answers_come_in_pieces() -> None:
    tasks = [item(f"t{number}", b" " * 60_000) for number in range(5)]
    mesh = Mesh("abc", tasks={B: [each.name for each in tasks]}, described={B: tasks})
    assert ask(mesh, A, *(each.name for each in tasks)) == tuple(tasks)
    assert [answer.last for answer in mesh.messages(TasksDescribed)] == [False] * 4 + [True]


def test_a_thousand_tasks_are_asked_for_at_a_time() -> None:
    tasks = [item(f"t{number:04}") for number in range(1200)]
    mesh = Mesh("abc", tasks={B: [each.name for each in tasks]}, described={B: tasks})
    names = [each.name for each in tasks]
    assert ask(mesh, A, *names) == tuple(tasks[:1000])
    missing = [name for name, told in mesh.nodes[A].catalogue.told(names).items() if told is None]
    assert ask(mesh, A, *missing) == tuple(tasks[1000:])


def test_what_was_told_is_forgotten_from_the_oldest_on_when_it_is_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catalogue, "KEPT_BYTES_MAX", 2 * (catalogue.ITEM_BYTES + 2))
    tasks = [item(f"t{number}") for number in range(3)]
    names = [each.name for each in tasks]
    mesh = Mesh("abc", tasks={B: names}, described={B: tasks})
    for name in names:
        ask(mesh, A, name)
    assert mesh.nodes[A].catalogue.told(names) == {"t0": None, "t1": tasks[1], "t2": tasks[2]}
    ask(mesh, A, "t2")
    mesh.tell(B, A, TasksDescribed(0, (tasks[2],), True))  # known already: it takes no more room
    assert mesh.nodes[A].catalogue.told(names) == {"t0": None, "t1": tasks[1], "t2": tasks[2]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "no name"},
        {"schema": b" " * 70_000},
        {"timeout_s": -1.0},
        {"timeout_s": float("inf")},
        {"max_attempts": 1 << 63},
        {"backoff": "fast"},
        {"base_s": -1.0},
        {"cap_s": 0.5},
        {"cap_s": float("inf")},
    ],
    ids=str,
)
def test_what_no_job_can_be_made_with_is_neither_told_nor_taken(wrong: dict[str, object]) -> None:
    assert is_sane(RESIZE)
    assert is_sane(item("t")._replace(backoff="", base_s=0.0, cap_s=0.0))
    odd = RESIZE._replace(**wrong)
    assert not is_sane(odd)
    mesh = Mesh("ab", tasks={B: (odd.name,)}, described={B: (odd,)})
    assert ask(mesh, A, odd.name) == ()
    assert [answer.items for answer in mesh.messages(TasksDescribed)] == [()]
    mesh.do(A, MessageArrived(B, TasksDescribed(7, (odd,), True)))
    assert mesh.nodes[A].catalogue.told([odd.name]) == {odd.name: None}
