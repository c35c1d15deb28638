"""Copied and restored data folders, on real processes: results stay right, and each node says what it is."""

from __future__ import annotations

import shutil
from http.client import HTTPException
from pathlib import Path

import pytest
from rig import until

from tests.e2e.mesh import FULL, Mesh, Node

pytestmark = pytest.mark.timeout(600 if FULL else 180)


def folder_of(mesh: Mesh, node: Node) -> Path:
    return mesh.folder / node.name


def last_of_three(mesh: Mesh) -> tuple[Node, list[str]]:
    """Three nodes that have ended some jobs: the last of them, and the jobs."""
    mesh.grow(3)
    jobs = mesh.nodes[0].submit(mesh.mark_jobs(6, [0.05]))
    mesh.wait_ended(jobs)
    return mesh.nodes[2], jobs


def database_of(mesh: Mesh, node: Node) -> dict[str, bytes]:
    """The node's database as a backup has it, by file name."""
    return {file.name: file.read_bytes() for file in folder_of(mesh, node).glob("jobs.db*")}


def put_back(mesh: Mesh, node: Node, backup: dict[str, bytes]) -> None:
    folder = folder_of(mesh, node)
    for file in folder.glob("jobs.db*"):
        file.unlink()
    for name, content in backup.items():
        (folder / name).write_bytes(content)


def copy_of(mesh: Mesh, node: Node) -> Node:
    """A further node on a copy of this one's data folder."""
    copy = mesh.add(join=[other.peer for other in mesh.nodes if other is not node])
    shutil.copytree(folder_of(mesh, node), folder_of(mesh, copy))
    return copy


def is_behind(node: Node) -> bool:
    """Whether it says so. A node that finds out begins anew in one process: its port may refuse meanwhile."""
    try:
        answer = node.send("GET", "/readyz")
    except (OSError, HTTPException):
        return False
    return answer.status == 503 and b"has no vote" in answer.body


def same_results(mesh: Mesh, jobs: list[str], nodes: list[Node]) -> None:
    """Every one of these nodes shows the same settled end of each job."""
    ends = mesh.wait_ended(jobs, at=nodes[0])
    for node in nodes[1:]:
        seen = mesh.wait_ended(jobs, at=node)
        assert {job: seen[job].result for job in jobs} == {job: ends[job].result for job in jobs}
    assert {job.state for job in ends.values()} == {"succeeded"}


def test_a_node_whose_database_was_put_back_shows_everything_and_decides_nothing(mesh: Mesh) -> None:
    victim, before = last_of_three(mesh)
    first = mesh.nodes[0]
    identity = victim.id
    victim.kill()
    backup = database_of(mesh, victim)
    victim.start()
    mesh.wait_ready()
    after = first.submit(mesh.mark_jobs(12, [0.05]))
    mesh.wait_ended(after)
    victim.kill()
    put_back(mesh, victim, backup)
    victim.start()

    until(lambda: is_behind(victim), "it says that it is behind")
    assert victim.id == identity
    same_results(mesh, before + after, mesh.nodes)
    assert "was put back from a backup" in victim.log_text()
    shown = next(node for node in first.client.nodes() if node["id"] == identity)
    assert (shown["state"], shown["ready"]) == ("behind", False)
    later = victim.submit(mesh.mark_jobs(4, [0.05]))  # it is still an entry
    same_results(mesh, later, mesh.nodes)
    owned = [job.fields for job in mesh.wait_ended(later).values()]
    assert all(identity not in job["holders"] and job["runner"] != identity for job in owned)
    assert max(mesh.starts_seen().values()) == 1

    victim.kill()
    victim.start()
    until(lambda: is_behind(victim), "a restart changes nothing")

    victim.kill()
    victim.command.append("--new-identity")
    victim.start()
    victim.command.remove("--new-identity")
    until(lambda: first.ready_members() == {node.name for node in mesh.nodes}, "it is ready again")
    until(lambda: victim.ask("/readyz") is not None, "it takes jobs again")
    renewed = str(victim.send("GET", "/v1/nodes/self").json["id"])
    assert renewed != identity
    same_results(mesh, before + after + later, mesh.nodes)
    more = victim.submit(mesh.mark_jobs(4, [0.05]))
    same_results(mesh, more, mesh.nodes)
    assert any(renewed in job.fields["holders"] for job in mesh.wait_ended(more).values())


def test_of_two_copies_of_a_data_folder_one_is_sent_away_and_the_other_works_on(mesh: Mesh) -> None:
    original, jobs = last_of_three(mesh)
    original.kill()
    copy = copy_of(mesh, original)
    original.start()
    mesh.nodes.remove(copy)
    mesh.wait_ready()
    mesh.nodes.append(copy)
    copy.start()
    assert copy.wait_for_end() == 1
    assert "another process with this node's identity" in copy.log_text()
    assert original.send("GET", "/readyz").status == 200
    jobs += mesh.nodes[1].submit(mesh.mark_jobs(6, [0.05]))
    same_results(mesh, jobs, mesh.nodes[:3])
    assert max(mesh.starts_seen().values()) == 1


def test_two_copies_that_start_side_by_side_leave_one(mesh: Mesh) -> None:
    original, jobs = last_of_three(mesh)
    original.kill()
    copy = copy_of(mesh, original)
    original.start()
    copy.start()
    pair = (original, copy)
    until(lambda: any(node.exit_code is not None for node in pair), "one of them ends")
    (left,) = [node for node in pair if node.exit_code is None]
    (ended,) = [node for node in pair if node.exit_code is not None]
    assert ended.exit_code == 1
    until(lambda: left.ask("/readyz") is not None or is_behind(left), "the other goes on")
    jobs += mesh.nodes[1].submit(mesh.mark_jobs(6, [0.05]))
    same_results(mesh, jobs, [mesh.nodes[0], mesh.nodes[1], left])
    assert max(mesh.starts_seen().values()) == 1


def test_a_data_folder_that_moved_is_the_same_node(mesh: Mesh) -> None:
    original, jobs = last_of_three(mesh)
    identity = original.id
    original.kill()
    moved = copy_of(mesh, original)
    shutil.rmtree(folder_of(mesh, original))
    mesh.nodes.remove(original)
    moved.start()
    mesh.wait_ready()
    assert moved.id == identity
    assert moved.send("GET", "/readyz").status == 200
    jobs += moved.submit(mesh.mark_jobs(6, [0.05]))
    same_results(mesh, jobs, mesh.nodes)


def test_a_folder_without_its_database_is_a_new_member(mesh: Mesh) -> None:
    victim, jobs = last_of_three(mesh)
    identity = victim.id
    victim.kill()
    put_back(mesh, victim, {})
    victim.start()
    until(lambda: victim.ask("/v1/nodes/self") is not None, "it answers")
    assert victim.send("GET", "/v1/nodes/self").json["id"] != identity
    until(lambda: victim.ask("/readyz") is not None, "it takes jobs")
    same_results(mesh, jobs, mesh.nodes[:2])
