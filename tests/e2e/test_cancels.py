"""Cancels, retries and batches on real nodes: what becomes of the worker, and of the owner."""

from __future__ import annotations

import pytest
from rig import until

from edgenode.client import Refused
from tests.e2e.mesh import Mesh

pytestmark = pytest.mark.timeout(120)


def test_a_running_job_is_cancelled_at_any_node_and_its_slot_is_free_again(mesh: Mesh) -> None:
    mesh.grow(3)
    first, second, third = mesh.nodes
    job = first.client.submit("sleep", {"seconds": 600})
    until(lambda: first.client.get(job.id).state == "running", "it runs")
    assert second.client.cancel(job.id).state == "cancelled"
    for node in mesh.nodes:
        seen = node.client.wait(job.id, timeout_s=10)
        assert (seen.state, seen.result) == ("cancelled", None)
    until(lambda: sum(node.load["running"] for node in mesh.nodes) == 0, "nothing runs", within_s=10)
    assert third.client.cancel(job.id).state == "cancelled"


def test_a_cancelled_job_stays_cancelled_when_its_owner_is_killed(mesh: Mesh) -> None:
    mesh.grow(4)
    job = mesh.nodes[0].client.submit("sleep", {"seconds": 600})
    until(lambda: mesh.nodes[0].client.get(job.id).state == "running", "it runs")
    owner = next(node for node in mesh.nodes if node.id == mesh.nodes[0].client.get(job.id).fields["owner"])
    others = [node for node in mesh.nodes if node is not owner]
    assert others[0].client.cancel(job.id).state == "cancelled"
    owner.kill()
    for node in others:
        assert node.client.wait(job.id, timeout_s=20).state == "cancelled"
    owner.start()
    mesh.wait_ready()
    until(lambda: owner.client.get(job.id).settled, "the killed one knows too")
    assert owner.client.get(job.id).state == "cancelled"


def test_a_failed_job_is_tried_again_once_whoever_asks(mesh: Mesh) -> None:
    mesh.grow(3)
    first, second, third = mesh.nodes
    job = first.client.submit("fail", {"message": "no luck", "times": 1}, max_attempts=1)
    assert first.client.wait(job.id, timeout_s=20).state == "failed"
    made = {node.client.retry(job.id).id for node in (first, second, third)}
    assert len(made) == 1
    again = second.client.wait(made.pop(), timeout_s=20)
    assert again.fields["retry_of"] == job.id
    assert again.fields["starts"] == 1
    assert third.client.get(job.id).state == "failed"
    with pytest.raises(Refused) as refused:
        third.client.cancel(job.id)
    assert refused.value.slug == "job-ended"


def test_a_batch_is_followed_and_cancelled_at_another_node_than_took_it(mesh: Mesh) -> None:
    mesh.grow(3)
    first, second, third = mesh.nodes
    quick = first.client.submit_batch({"task": "echo", "payload": {"message": n}} for n in range(300))
    found = second.client.wait_batch(quick.id, timeout_s=30)
    assert (found["states"], found["settled"]) == ({"succeeded": 300}, True)
    slow = second.client.submit_batch({"task": "sleep", "payload": {"seconds": 600}} for _ in range(50))
    first.kill()
    mesh.wait_ready()
    third.client.cancel_batch(slow.id)
    found = third.client.wait_batch(slow.id, timeout_s=30)
    assert found["states"] == {"cancelled": 50}
