"""In which order waiting jobs are started, and by whom."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from job_mesh import job_id

from edgenode.core.lines import SPARSE, Lines, Need, Place, key_gate, queue_gate
from edgenode.core.types import JobId

ECHO = Need("echo", ())
GPU = Need("echo", (("gpu", "yes"),))
TASKS = frozenset({"echo"})
NONE: frozenset[tuple[str, str]] = frozenset()
WITH_GPU = frozenset({("gpu", "yes"), ("disk", "fast")})


def place(number: int, priority: int = 4) -> Place:
    return 9 - priority, float(number), job_id(number)


def popped(lines: Lines, labels: frozenset[tuple[str, str]] = NONE) -> list[JobId]:
    """All that a node with these labels can run, in order."""
    found = []
    while (first := lines.pop(TASKS, labels)) is not None:
        found.append(first[1][2])
    return found


def test_the_most_urgent_comes_first_and_then_the_oldest_whatever_it_needs() -> None:
    lines = Lines()
    for need, at in ((ECHO, place(3)), (GPU, place(2)), (ECHO, place(1)), (GPU, place(4, priority=9))):
        lines.add(need, at)
    assert popped(lines, WITH_GPU) == [job_id(4), job_id(1), job_id(2), job_id(3)]
    assert len(lines) == 0


def test_a_node_gets_only_what_it_can_run() -> None:
    lines = Lines()
    lines.add(Need("other", ()), place(1))
    lines.add(GPU, place(2))
    lines.add(ECHO, place(3))
    assert lines.has_work_for(TASKS, NONE)
    assert popped(lines) == [job_id(3)]
    assert not lines.has_work_for(TASKS, NONE)
    assert popped(lines, WITH_GPU) == [job_id(2)]
    assert job_id(1) in lines


def test_a_job_that_was_dropped_is_not_started_and_may_come_again() -> None:
    lines = Lines()
    lines.add(ECHO, place(1))
    lines.add(ECHO, place(2))
    lines.drop(job_id(1))
    lines.drop(job_id(7))  # which never waited
    assert popped(lines) == [job_id(2)]
    lines.add(ECHO, place(1))
    lines.drop(job_id(1))
    lines.add(GPU, place(1))
    assert popped(lines) == []
    assert popped(lines, WITH_GPU) == [job_id(1)]


def test_jobs_that_end_while_they_wait_leave_no_trace() -> None:
    """Also in the lines of tasks that nobody here has, which are never taken from."""
    lines = Lines()
    lines.add(ECHO, place(0))
    for number in range(1, 5_000):
        lines.add(Need("other", (("kind", str(number % 7)),)), place(number))
        lines.drop(job_id(number))
        assert lines.places <= max(65, SPARSE * 2)
    assert popped(lines) == [job_id(0)]


def test_what_waits_behind_a_shut_gate_is_passed_over_until_it_is_opened() -> None:
    lines = Lines()
    for number in range(6):
        lines.add(Need("echo", (), "mail" if number % 2 else "default"), place(number))
    lines.shut(queue_gate("mail"))
    assert popped(lines) == [job_id(0), job_id(2), job_id(4)]
    assert not lines.has_work_for(TASKS, NONE)
    assert lines.shut_queues(TASKS, NONE) == [queue_gate("mail")]
    assert lines.shut_queues(frozenset({"other"}), NONE) == []
    lines.add(Need("echo", (), "mail"), place(7, priority=9))
    assert (lines.behind(queue_gate("mail")), lines.behind(queue_gate("default"))) == (4, 0)
    lines.open(queue_gate("mail"))
    assert popped(lines) == [job_id(7), job_id(1), job_id(3), job_id(5)]
    assert lines.behind(queue_gate("mail")) == 0


def test_a_shut_key_holds_up_no_other() -> None:
    lines = Lines()
    keys = ("", "one", "two")
    for number in range(9):
        lines.add(Need("echo", (), key=keys[number % 3]), place(number))
    lines.shut(key_gate("one"))
    lines.shut(key_gate("two"))
    lines.open(key_gate("two"))
    assert popped(lines) == [job_id(number) for number in (0, 2, 3, 5, 6, 8)]
    assert lines.behind(key_gate("one")) == 3
    lines.open(key_gate("one"))
    assert popped(lines) == [job_id(number) for number in (1, 4, 7)]


def test_who_comes_behind_jobs_that_ended_at_a_shut_gate_is_found() -> None:
    lines = Lines()
    lines.add(Need("echo", (), key="one"), place(1))
    lines.shut(key_gate("one"))
    assert popped(lines) == []
    lines.drop(job_id(1))
    lines.add(Need("echo", (), key="one"), place(2))
    assert popped(lines) == [job_id(2)]


def test_a_gate_that_is_shut_and_opened_again_and_again_leaves_no_trace() -> None:
    lines = Lines()
    lines.add(Need("echo", ()), place(0, priority=9))
    for number in range(1, 4):
        lines.add(Need("echo", (), key=str(number)), place(number))
    for turn in range(3_000):
        gate = key_gate(str(turn % 3 + 1))
        lines.shut(gate)
        lines.open(gate)
    (row,) = lines._rows.values()
    assert len(row.heads) <= 66
    assert popped(lines) == [job_id(number) for number in range(4)]
    assert not lines._shut


@given(st.lists(st.tuples(st.sampled_from("apsod"), st.integers(0, 7), st.integers(0, 2)), max_size=60))
def test_lines_do_what_a_list_would_do(steps: list[tuple[str, int, int]]) -> None:
    lines, model, shut = Lines(), dict[JobId, tuple[Need, Place]](), set[str]()
    for step, number, which in steps:
        gate = queue_gate(f"q{which}") if number % 2 else key_gate(f"k{which}")
        match step:
            case "a" if job_id(number) not in model:
                key = "" if number == 0 else f"k{which}"
                need = Need("echo", (), f"q{number % 3}", key)
                lines.add(need, place(number, priority=which))
                model[job_id(number)] = need, place(number, priority=which)
            case "d":
                lines.drop(job_id(number))
                model.pop(job_id(number), None)
            case "s" if gate[0] == "q" or any(need.key == gate[1:] for need, _ in model.values()):
                lines.shut(gate)
                shut.add(gate)
            case "o":
                lines.open(gate)
                shut.discard(gate)
            case "p":
                free = [
                    (at, need)
                    for need, at in model.values()
                    if not {queue_gate(need.queue), key_gate(need.key)} & shut
                ]
                first = lines.pop(TASKS, NONE)
                assert first == (min(free)[::-1] if free else None)
                if first is not None:
                    del model[first[1][2]]
        shut -= {g for g in shut if g[0] == "k" and not any(n.key == g[1:] for n, _ in model.values())}
        assert len(lines) == len(model)


def test_a_waiting_job_is_held_at_a_gate_of_its_own_while_that_is_shut() -> None:
    lines = Lines()
    lines.add(ECHO._replace(queue="mail", key="x"), place(1))
    lines.add(ECHO._replace(queue="mail"), place(2))
    lines.add(ECHO, place(3))

    def held() -> list[str]:
        return [lines.held_at(job_id(number)) for number in (1, 2, 3, 4)]

    assert held() == ["", "", "", ""]
    lines.shut(queue_gate("mail"))
    assert held() == [queue_gate("mail"), queue_gate("mail"), "", ""]
    lines.shut(key_gate("x"))
    assert held() == [key_gate("x"), queue_gate("mail"), "", ""]
    lines.open(queue_gate("mail"))
    assert held() == [key_gate("x"), "", "", ""]
    lines.drop(job_id(1))
    assert held() == ["", "", "", ""]
