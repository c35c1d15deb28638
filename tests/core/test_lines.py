"""In which order waiting jobs are started, and by whom."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_mesh import job_id

from edgenode.core.lines import SPARSE, Gate, Labels, Lines, Need, Place, Row, Shut, key_gate, queue_gate
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
    (block,) = lines._blocks.values()
    (row,) = block.rows.values()
    assert max(len(row.heads), len(block.heads)) <= 66
    assert popped(lines) == [job_id(number) for number in range(4)]
    assert not lines._shut


class Naive:
    """What `Lines` promises, by a look at every job."""

    def __init__(self) -> None:
        self.waiting: dict[JobId, tuple[Need, Place]] = {}
        self.shut: set[Gate] = set()

    def free(self, labels: Labels) -> list[tuple[Place, Need]]:
        """All that a node with these labels may start, and in which order."""
        able = [(at, need) for need, at in self.waiting.values() if labels.issuperset(need.requires)]
        return sorted(each for each in able if self.shut.isdisjoint(gates_of(each[1])))

    def shut_queues(self, labels: Labels) -> set[Gate]:
        able = [need for need, _ in self.waiting.values() if labels.issuperset(need.requires)]
        return {queue_gate(need.queue) for need in able} & self.shut

    def forget_keys(self) -> None:
        """The gate of a key behind which nobody waits is open."""
        keys = {key_gate(need.key) for need, _ in self.waiting.values() if need.key}
        self.shut = {gate for gate in self.shut if gate[0] == "q" or gate in keys}


def gates_of(need: Need) -> set[Gate]:
    return {queue_gate(need.queue), key_gate(need.key)} if need.key else {queue_gate(need.queue)}


def compare(steps: Iterable[tuple[str, int, int, int]]) -> None:
    """Take both through the same steps, and see whether they answer alike after each."""
    lines, naive = Lines(), Naive()
    for step, number, queue, key in steps:
        job, gate = job_id(number), key_gate(f"k{key}") if number % 2 and key else queue_gate(f"q{queue}")
        labels = WITH_GPU if number % 3 else NONE
        match step:
            case "a" if job not in naive.waiting:
                need = (ECHO, GPU)[number % 2]._replace(queue=f"q{queue}", key=f"k{key}" if key else "")
                at = place(number, priority=(number + queue) % 3)
                lines.add(need, at)
                naive.waiting[job] = need, at
            case "d":
                lines.drop(job)
                naive.waiting.pop(job, None)
            case "s" if gate[0] == "q" or lines.behind(gate):
                lines.shut(gate)
                naive.shut.add(gate)
            case "o":
                lines.open(gate)
                naive.shut.discard(gate)
            case "p":
                first = lines.pop(TASKS, labels)
                assert first == (free[0][::-1] if (free := naive.free(labels)) else None)
                if first is not None:
                    del naive.waiting[first[1][2]]
        naive.forget_keys()
        assert len(lines) == len(naive.waiting)
        # Of jobs that wait no longer places may be left.
        assert lines.has_work_for(TASKS, labels) or not naive.free(labels)
        assert naive.shut_queues(labels) <= {*lines.shut_queues(TASKS, labels)} <= naive.shut


@given(
    st.lists(
        st.tuples(st.sampled_from("aapsod"), st.integers(0, 9), st.integers(0, 3), st.integers(0, 2)),
        max_size=80,
    )
)
def test_lines_do_what_a_list_would_do(steps: list[tuple[str, int, int, int]]) -> None:
    compare(steps)


@pytest.mark.parametrize("moves", ["aaapppsod", "aaapsoso", "aadpsosoo", "aaaaddpso"])
def test_lines_do_what_a_list_would_do_also_when_there_is_much_to_sweep(moves: str) -> None:
    dice = random.Random(moves)
    compare(
        (dice.choice(moves), dice.randrange(300), dice.randrange(8), dice.randrange(5)) for _ in range(2_000)
    )


def test_to_find_the_next_of_jobs_in_very_many_queues_takes_no_look_at_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0
    head = Row.head

    def counted(row: Row, shut: Shut) -> tuple[Place, str] | None:
        nonlocal looks
        looks += 1
        return head(row, shut)

    monkeypatch.setattr(Row, "head", counted)
    lines, jobs = Lines(), list(range(3_000))
    random.Random(1).shuffle(jobs)
    for number in jobs:
        lines.add(ECHO._replace(queue=f"q{number % 1_000}", key=f"k{number % 500}"), place(number))
    for number in range(500, 1_000):
        lines.shut(queue_gate(f"q{number}"))
        lines.shut(key_gate(f"k{number - 500}"))
        lines.open(key_gate(f"k{number - 500}"))
    assert popped(lines) == [job_id(number) for number in range(3_000) if number % 1_000 < 500]
    for number in range(500, 1_000):
        lines.open(queue_gate(f"q{number}"))
    assert popped(lines) == [job_id(number) for number in range(3_000) if number % 1_000 >= 500]
    assert looks < 5 * len(jobs)


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
