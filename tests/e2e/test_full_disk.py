"""Full disks of real nodes: what is answered, where the jobs go, and how the node comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rig import until

from edgenode.client import Client
from tests.e2e.disks import SmallDisk
from tests.e2e.mesh import Mesh, Node

pytestmark = pytest.mark.timeout(180)
BULKY = {"task": "echo", "payload": {"message": "x" * 300_000}}


@pytest.fixture
def small_disk() -> Iterator[Callable[[Node], SmallDisk]]:
    """Puts the data folder of a node that is not started yet on a disk of its own."""
    made: list[SmallDisk] = []

    def make(node: Node) -> SmallDisk:
        disk = SmallDisk(node.log.parent, 12)
        made.append(disk)
        node.log = node.log.parent.with_suffix(".log")  # an operator's log has room
        return disk

    yield make
    for disk in made:
        disk.close()


@pytest.fixture
def mesh(new_mesh: Callable[[], Mesh], small_disk: Callable[[Node], SmallDisk]) -> Iterator[Mesh]:
    """Ends before its disks do."""
    made = new_mesh()
    yield made
    made.close()


def fill_up(node: Node, disk: SmallDisk) -> list[str]:
    """Fill the disk and submit until the node says that it takes no more; the ids of what it took."""
    disk.fill()
    taken: list[str] = []

    def says_so() -> bool:
        answer = node.send("POST", "/v1/jobs", json.dumps(BULKY).encode())
        if answer.status == 202:
            taken.append(answer.json["id"])
        return answer.status == 507 and bool(answer.json["definite"])

    until(says_so, lambda: f"{node.name} answers 507: {node.send('GET', '/readyz')}")
    return taken


def is_ready(node: Node) -> bool:
    return node.ask("/readyz") is not None


def seen_by(node: Node, name: str) -> dict[str, Any]:
    found = node.ask("/v1/nodes", timeout_s=10)
    assert found is not None
    (member,) = [member for member in found["nodes"] if member["name"] == name]
    return dict(member)


def figure(node: Node, name: str) -> float:
    """A metric without labels."""
    lines = node.send("GET", "/metrics").body.decode().splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(name + " ")]
    return float(value)


@pytest.mark.parametrize("count", [1, 3])
def test_a_node_whose_disk_is_full_says_so_lives_and_is_back_when_there_is_room(
    mesh: Mesh, small_disk: Callable[[Node], SmallDisk], count: int
) -> None:
    for number in range(count):
        mesh.add(join=[node.peer for node in mesh.nodes])
        if number == 0:
            disk = small_disk(mesh.nodes[0])
    mesh.grow(0)
    full, pid = mesh.nodes[0], mesh.nodes[0].pid
    before = full.submit(mesh.mark_jobs(10, [0.05]))
    mesh.wait_ended(before)
    taken = fill_up(full, disk)

    answer = full.send("GET", "/readyz")
    assert answer.status == 503
    assert "takes no writes" in answer.json["detail"]
    answer = full.send("POST", "/v1/jobs", json.dumps(BULKY).encode())
    assert (answer.status, answer.json["type"]) == (507, "/problems/store-unwritable")
    assert int(answer.headers["retry-after"]) > 0
    assert full.ask("/livez") is not None
    assert figure(full, "edgenode_store_writable") == 0
    assert figure(full, "edgenode_store_refusals_total") == 1
    assert "store-refused" in full.log_text()
    for node in mesh.nodes:
        until(lambda node=node: seen_by(node, full.name)["state"] == "resigned", "all see it")  # type: ignore[misc]
        assert {job.state for job in mesh.wait_ended(before, at=node).values()} == {"succeeded"}

    disk.empty()
    until(lambda: is_ready(full), "it is ready again", within_s=10)
    assert full.pid == pid, "the process was another"
    assert seen_by(full, full.name)["boot"] == 2
    mesh.wait_ready()
    assert {job.state for job in mesh.wait_ended([*before, *taken]).values()} == {"succeeded"}
    until(
        lambda: full.client.submit("echo", {"message": 1}, wait_s=10).fields["runner"] == full.id,
        "it runs jobs again",
    )
    assert "store-recovered" in full.log_text()
    assert figure(full, "edgenode_store_writable") == figure(full, "edgenode_ready") == 1
    assert figure(full, "edgenode_store_commit_seconds_count") > 0


def test_a_node_that_is_started_on_a_full_disk_waits_for_room_and_says_so(
    mesh: Mesh, small_disk: Callable[[Node], SmallDisk]
) -> None:
    node = mesh.add()
    disk = small_disk(node)
    mesh.grow(0)
    ids = node.submit(mesh.mark_jobs(5, [0.05]))
    mesh.wait_ended(ids)
    node.kill()
    disk.fill()
    node.start()
    until(lambda: node.ask("/livez") is not None, "its process lives")
    for method, path, status in (
        ("GET", "/readyz", 503),
        ("GET", f"/v1/jobs/{ids[0]}", 503),
        ("POST", "/v1/jobs", 507),
    ):
        answer = node.send(method, path, b"{}" if method == "POST" else None)
        assert (answer.status, answer.json["definite"]) == (status, True)
        assert "takes no writes" in answer.json["detail"]
    pid = node.pid
    disk.empty()
    until(lambda: is_ready(node), "it is ready", within_s=20)
    assert node.pid == pid
    assert {job.state for job in mesh.wait_ended(ids).values()} == {"succeeded"}


def test_jobs_of_an_owner_whose_disk_fills_up_go_on_elsewhere_and_all_tell_the_same(
    mesh: Mesh, small_disk: Callable[[Node], SmallDisk]
) -> None:
    mesh.add()
    disk = small_disk(mesh.nodes[0])
    mesh.grow(4)
    full = mesh.nodes[0]
    ids: list[str] = []
    for number, document in enumerate(mesh.mark_jobs(80, [0.2, 0.4, 0.7, 1.0])):
        ids += mesh.nodes[number % 5].submit([document])
    assert full.load["owned"] > 0
    ids += fill_up(full, disk)
    filled_at = time.monotonic()
    # While it is full, and after: an end is an end, the same at every node.
    others = mesh.nodes[1:]
    jobs = mesh.wait_ended(ids, at=others[0])
    assert {job.state for job in jobs.values()} == {"succeeded"}
    moved = [job for job in jobs.values() if job.fields["takeovers"]]
    assert any("its disk takes no writes" in str(job.fields["history"]) for job in moved), moved
    results = {job: jobs[job].result for job in ids}
    for node in mesh.nodes:  # the full one answers too
        assert {job: node.client.get(job).result for job in ids} == results
    assert seen_by(others[0], full.name)["state"] == "resigned"

    disk.empty()
    mesh.wait_ready()
    for node in mesh.nodes:
        settled = mesh.wait_ended(ids, at=node)
        assert {job: settled[job].result for job in ids} == results
    told = mesh.starts_to_count({full.id: filled_at})
    for job in ids:
        assert told[job] <= jobs[job].fields["starts"], jobs[job].fields


def test_a_client_that_knows_several_nodes_does_not_notice_a_full_disk(
    mesh: Mesh, small_disk: Callable[[Node], SmallDisk]
) -> None:
    mesh.add()
    disk = small_disk(mesh.nodes[0])
    mesh.grow(2)
    fill_up(mesh.nodes[0], disk)
    client = Client([node.url for node in mesh.nodes])
    job = client.submit("echo", {"message": "hello"}, wait_s=10)
    assert job.result == "hello"
    disk.empty()
    mesh.wait_ready()
