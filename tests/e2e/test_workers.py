"""Worker processes that die under their job, and tasks that only some nodes have."""

from __future__ import annotations

import json
import os
import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from marking import read_marks
from rig import until

from tests.e2e.mesh import TASKS, Mesh, Node

pytestmark = pytest.mark.timeout(180)

END_S = 40.0


def assert_unharmed(node: Node, pid: int) -> None:
    assert node.is_alive
    assert node.pid == pid
    assert node.ask("/readyz") == {"ready": True}
    assert node.client.submit("echo", {"message": "still here"}, wait_s=10).result == "still here"


def test_a_job_whose_worker_process_is_killed_starts_again_and_the_node_stays_up(
    lone: Node, tmp_path: Path
) -> None:
    pid, marks = lone.pid, tmp_path / "marks"
    job = lone.client.submit("mark", {"path": str(marks), "seconds": 1.0})
    until(lambda: marks.exists() and marks.read_text().endswith("\n"), "the job has started")
    worker = read_marks(marks)[0].pid
    assert worker != pid
    os.kill(worker, signal.SIGKILL)
    ended = lone.client.wait(job.id, timeout_s=END_S)
    assert ended.succeeded, ended
    assert (ended.fields["starts"], ended.fields["losses"], ended.fields["attempt"]) == (2, 1, 1)
    assert len(read_marks(marks)) == 2
    assert ended.result["pid"] != worker
    assert_unharmed(lone, pid)


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_task_that_ends_its_worker_process_is_tried_again(lone: Node, tmp_path: Path, how: str) -> None:
    pid = lone.pid
    job = lone.client.submit("die.once", {"path": str(tmp_path / "marks"), "how": how})
    ended = lone.client.wait(job.id, timeout_s=END_S)
    assert ended.succeeded, ended
    assert (ended.fields["starts"], ended.fields["losses"]) == (2, 1)
    assert_unharmed(lone, pid)


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_job_that_always_kills_its_worker_fails_when_its_losses_are_used_up(lone: Node, how: str) -> None:
    pid = lone.pid
    job = lone.client.submit("fail", {"how": how}, max_losses=2)
    ended = lone.client.wait(job.id, timeout_s=END_S)
    assert ended.state == "failed"
    assert (ended.fields["starts"], ended.fields["losses"]) == (2, 2)
    assert ended.error
    assert_unharmed(lone, pid)


def test_a_job_runs_where_its_task_is_whoever_owns_it(mesh: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "my_tasks.py"
    file.write_text(
        "from edgenode import task\n\n\n"
        '@task("greet")\n'
        "def greet(name: str) -> str:\n"
        '    return f"hello, {name}"\n'
    )
    knows = mesh.add(tasks=(*TASKS, str(file)))
    for _ in range(2):
        mesh.add(join=[knows.peer])
    for node in mesh.nodes:
        node.start()
    mesh.wait_ready()
    jobs = []
    for node in mesh.nodes:
        jobs += node.submit([{"task": "greet", "payload": {"name": f"{node.name} {i}"}} for i in range(10)])
    ended = mesh.wait_ended(jobs, at=mesh.nodes[1])
    assert {job.state for job in ended.values()} == {"succeeded"}
    assert all(job.result == f"hello, {job.fields['payload']['name']}" for job in ended.values())
    assert {job.fields["runner"] for job in ended.values()} == {knows.id}
    assert {job.fields["owner"] for job in ended.values()} == {node.id for node in mesh.nodes}
    assert {job.fields["starts"] for job in ended.values()} == {1}
    for node in mesh.nodes:
        (greet,) = [task for task in node.client.tasks() if task["name"] == "greet"]
        assert [each["id"] for each in greet["nodes"]] == [knows.id]
        assert greet["schema"]["required"] == ["name"], "all know what it takes"


def test_a_node_checks_jobs_of_a_task_that_only_another_one_has_and_fills_in_what_it_says(
    mesh: Mesh, tmp_path: Path
) -> None:
    file = tmp_path / "picky_tasks.py"
    file.write_text(PICKY)
    knows = mesh.add(tasks=(*TASKS, str(file)))
    lacks = mesh.add(join=[knows.peer])
    for node in mesh.nodes:
        node.start()
    mesh.wait_ready()

    def problem(node: Node, payload: object) -> dict[str, Any]:
        answer = node.send("POST", "/v1/jobs", json.dumps({"task": "picky", "payload": payload}).encode())
        assert answer.status == 422, answer
        found: dict[str, Any] = answer.json
        return found

    for payload in ({"at": {"x": 0, "z": 1}, "many": 3}, {}, {"at": {"x": 1, "y": "1"}, "colour": "green"}):
        assert problem(lacks, payload) == problem(knows, payload)
    assert problem(lacks, {"at": {"x": 1, "z": 1}})["detail"] == "picky: at.z: is no field of Place"
    assert lacks.client.tasks() == knows.client.tasks()
    jobs = [lacks.client.submit("picky", {"at": {"x": 1}}, wait_s=30) for _ in range(2)]
    jobs.append(knows.client.submit("picky", {"at": {"x": 1}}, wait_s=30))
    for job in jobs:
        assert (job.state, job.fields["attempt"], job.fields["runner"]) == ("failed", 5, knows.id)
        assert job.fields["max_attempts"] == 5
        finished, begun = (datetime.fromisoformat(job.fields[at]) for at in ("finished_at", "submitted_at"))
        assert (finished - begun).total_seconds() < 5.0, "the task says 10 ms, the mesh 1 s and more"


PICKY = """
from dataclasses import dataclass
from typing import Annotated, Literal

from edgenode import Backoff, Bounds, task

@dataclass
class Place:
    x: Annotated[int, Bounds(ge=1)]
    y: int = 0

@task("picky", max_attempts=5, backoff=Backoff("constant", base_s=0.01, cap_s=0.01))
def picky(at: Place, colour: Literal["red", "blue"] = "red") -> None:
    raise RuntimeError("as always")
"""


@pytest.mark.parametrize("task", ["stuck", "stuck.async", "stuck.inline"])
def test_a_job_that_takes_too_long_fails_within_a_second_of_its_timeout(
    mesh: Mesh, tmp_path: Path, task: str
) -> None:
    file = tmp_path / "stuck_tasks.py"
    file.write_text(STUCK)
    node = mesh.add(tasks=(*TASKS, str(file)))
    node.start()
    mesh.wait_ready()
    timeout_s = 0.4
    job = node.client.submit(task, {}, timeout_s=timeout_s, max_attempts=1, wait_s=30)
    assert (job.state, job.error) == ("failed", f"timed out after {timeout_s} s")
    started, finished = (datetime.fromisoformat(job.fields[name]) for name in ("started_at", "finished_at"))
    late_s = (finished - started).total_seconds() - timeout_s
    assert 0.0 <= late_s < 1.0 + 1.0  # the last second is a slow machine's
    assert_unharmed(node, node.pid)


STUCK = """
import asyncio, threading
from edgenode import task

@task("stuck")
def stuck() -> None:
    threading.Event().wait()

@task("stuck.async")
async def stuck_async() -> None:
    threading.Event().wait()

@task("stuck.inline", inline=True)
async def stuck_inline() -> None:
    await asyncio.Event().wait()
"""

COROUTINES = """
import asyncio, os
from edgenode import task

together: list[asyncio.Event] = []

@task("gather")
async def gather(count: int) -> int:
    together.append(asyncio.Event())
    if len(together) == count:
        for each in together:
            each.set()
    await together[-1].wait()
    return os.getpid()

@task("instant", inline=True)
async def instant(number: int) -> list[int]:
    print("of the job")
    return [number, os.getpid()]
"""


def test_coroutines_of_one_node_run_at_the_same_time_and_inline_ones_in_the_node(
    mesh: Mesh, tmp_path: Path
) -> None:
    file = tmp_path / "coroutine_tasks.py"
    file.write_text(COROUTINES)
    node = mesh.add(tasks=(*TASKS, str(file)))
    node.start()
    mesh.wait_ready()
    count = 20
    jobs = node.submit([{"task": "gather", "payload": {"count": count}} for _ in range(count)])
    jobs += node.submit([{"task": "instant", "payload": {"number": number}} for number in range(count)])
    ended = mesh.wait_ended(jobs, at=node)
    assert {job.state for job in ended.values()} == {"succeeded"}
    assert {job.fields["starts"] for job in ended.values()} == {1}
    pids = {job.result for job in ended.values() if job.task == "gather"}
    assert len(pids) == 1
    assert pids != {node.pid}
    assert {tuple(job.result) for job in ended.values() if job.task == "instant"} == {
        (number, node.pid) for number in range(count)
    }
    assert node.ask("/v1/nodes/self")["async_slots"] == 100


def test_a_node_replaces_its_worker_processes_as_it_was_told(mesh: Mesh, tmp_path: Path) -> None:
    node = mesh.add(slots=1, options=("--worker-max-jobs", "1", "--worker-max-memory", "4G"))
    node.start()
    mesh.wait_ready()
    marks = [str(tmp_path / f"marks-{number}") for number in range(3)]
    jobs = node.submit([{"task": "mark", "payload": {"path": path, "seconds": 0.0}} for path in marks])
    ended = mesh.wait_ended(jobs, at=node)
    assert {(job.state, job.fields["starts"]) for job in ended.values()} == {("succeeded", 1)}
    assert len({job.result["pid"] for job in ended.values()}) == 3
