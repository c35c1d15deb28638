"""Idempotency keys on real nodes: one job, whatever dies between two submissions of its key."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgenode.client import Client
from tests.e2e.mesh import Answer, Mesh, Node

pytestmark = pytest.mark.timeout(180)

KEY = "order-17"


def submit(node: Node, document: object, key: str = KEY) -> Answer:
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    return node.send("POST", "/v1/jobs", json.dumps(document).encode(), headers=headers)


def test_a_key_survives_the_death_of_its_entry_and_its_owner(mesh: Mesh) -> None:
    """The first submission is answered, then its entry node dies, then the job's owner: each time the key is
    sent to another node, and is the same job. After all are back it has one settled result."""
    mesh.grow(5)
    (document,) = mesh.mark_jobs(1, [4.0])
    probe = submit(mesh.nodes[0], document).json
    job = probe["id"]
    entry = mesh.nodes[0]
    owner = next(node for node in mesh.nodes if node.id == probe["owner"])
    victims = [entry] if owner is entry else [entry, owner]
    for victim in victims:
        victim.kill()
        for node in mesh.living:
            again = submit(node, document)
            assert again.status == 202, again
            assert again.headers["idempotent-replayed"] == "true"
            assert again.json["id"] == job
    reused = submit(mesh.living[0], document | {"priority": 9})
    assert (reused.status, reused.json["type"]) == (422, "/problems/key-reused")

    ended = mesh.wait_ended([job], settled=False)[job]
    assert ended.state == "succeeded"
    assert mesh.starts_seen()[job] <= 2, "it ran once more than an owner died"
    for victim in victims:
        victim.start()
    mesh.wait_ready()
    settled = mesh.wait_ended([job])[job]
    assert settled.result == ended.result or not ended.settled  # two of its three holders may have been dead
    for node in mesh.nodes:
        again = submit(node, document)
        assert (again.json["id"], again.json["state"]) == (job, "succeeded")
    assert mesh.starts_seen()[job] <= 2


def test_a_key_used_at_all_nodes_at_once_runs_once(mesh: Mesh) -> None:
    mesh.grow(3)
    documents = [
        document | {"idempotency_key": f"key-{n}"} for n, document in enumerate(mesh.mark_jobs(12, [0.1]))
    ]

    def submit_all(node: Node) -> list[str]:
        return [job.id for job in Client(node.url).submit_many(documents)]  # type: ignore[union-attr]

    with ThreadPoolExecutor() as pool:
        first, *others = pool.map(submit_all, mesh.nodes)
    assert all(ids == first for ids in others)
    assert len(set(first)) == 12
    mesh.wait_ended(first)
    starts = mesh.starts_seen()
    assert [starts[job] for job in first] == [1] * 12
