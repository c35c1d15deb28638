"""In which order waiting jobs are started, and by whom."""

from __future__ import annotations

from job_mesh import job_id

from edgenode.core.lines import SPARSE, Lines, Need, Place
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
