"""Named queues on real nodes."""

from __future__ import annotations

import pytest
from rig import until

from tests.e2e.mesh import Mesh, Node

pytestmark = pytest.mark.timeout(180)


def is_counted(node: Node, queued: int, running: int) -> bool:
    """Whether a node tells that so many jobs of the only queue wait and run."""
    (mail,) = node.client.queues()
    return (mail["queued"], mail["running"]) == (queued, running)


def test_a_limited_queue_is_counted_and_says_why_jobs_wait_at_any_node_until_it_is_reset(mesh: Mesh) -> None:
    one, other = mesh.grow(2).nodes
    assert one.client.change_queue("mail", concurrency=1)["known"] == 2
    first = other.client.submit("sleep", {"seconds": 120}, queue="mail")
    until(lambda: is_counted(one, 0, 1), "the first one runs")
    jobs = other.submit([{"task": "sleep", "payload": {"seconds": 0.1}, "queue": "mail"}] * 5)
    turn = "a turn in its queue, 'mail': at most 1 of its jobs run at a time"
    for node in (one, other):
        until(lambda node=node: is_counted(node, 5, 1), "the others wait")  # type: ignore[misc]
        assert {node.client.get(job).fields["waiting_for"] for job in jobs} == {turn}
        listed = {job.id: job.fields["waiting_for"] for job in node.client.jobs(queue="mail")}
        assert listed == dict.fromkeys(jobs, turn) | {first.id: None}
    assert other.client.reset_queue("mail")["concurrency"] is None
    mesh.wait_ended(jobs)
    assert one.client.cancel(first.id).state == "cancelled"
    until(lambda: one.client.queues() == [], "nothing is left of the queue")
