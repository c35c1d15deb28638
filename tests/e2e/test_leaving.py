"""Nodes that are told to end, and `edgenode up` with its nodes."""

from __future__ import annotations

import signal

import pytest
from rig import until

from edgenode.client import Client
from tests.e2e.mesh import Mesh, Up
from tests.processes import processes_of

pytestmark = pytest.mark.timeout(180)

LEAVE_S = 6.0
"""For a node whose running jobs take less than one second: much less than the drain's limit of ten."""


def test_a_node_that_is_told_to_leave_hands_its_jobs_over_and_nothing_runs_twice(mesh: Mesh) -> None:
    mesh.grow(3, slots=2)
    ids = []
    for node in mesh.nodes:
        ids += node.submit(mesh.mark_jobs(20, [0.4, 0.6, 0.8]))

    leaver = max(mesh.nodes, key=lambda node: node.load["owned"])
    until(lambda: leaver.load["running"] and leaver.load["queued"], "it has running and queued jobs")
    identity = leaver.id
    leaver.kill(signal.SIGTERM)
    assert leaver.wait_for_end(LEAVE_S) == 0, "it ended by itself"
    assert len(mesh.starts_seen()) < len(ids), "all of it had started before: nothing was handed over"

    jobs = mesh.wait_ended(ids)
    assert {job.state for job in jobs.values()} == {"succeeded"}
    assert {job.fields["starts"] for job in jobs.values()} == {1}
    assert mesh.starts_seen() == dict.fromkeys(ids, 1)
    moved = [job for job in jobs.values() if identity not in job.fields["holders"]]
    assert any(job.fields["owner"] != identity for job in moved), "none of its jobs was given away"
    states = {member["name"]: member["state"] for member in mesh.living[0].client.nodes()}
    assert states.get(leaver.name, "left") == "left"


def sleepers(client: Client, seconds: float, count: int) -> list[str]:
    document = {"task": "sleep", "payload": {"seconds": seconds}}
    return [job.id for job in client.submit_many([document] * count) if not isinstance(job, Exception)]


def test_ctrl_c_ends_up_with_all_its_processes_and_the_next_up_goes_on_with_the_jobs(up: Up) -> None:
    client = up.start()
    ids = sleepers(client, 1.0, 10)
    assert len(ids) == 10
    until(lambda: next(client.jobs(state="running"), None), "a job runs")
    assert up.end(signal.SIGINT) == 0, up.output
    assert processes_of(up.folder) == {}
    client = up.start()
    ended = [client.wait(job, timeout_s=40) for job in ids]
    assert {job.state for job in ended} == {"succeeded"}
    assert any(job.fields["starts"] == 1 for job in ended)


def test_kill_9_of_up_leaves_no_node_and_no_worker(up: Up) -> None:
    client = up.start()
    sleepers(client, 30.0, 6)
    until(lambda: next(client.jobs(state="running"), None), "a job runs")
    assert len(processes_of(up.folder)) >= 4  # up, two nodes, and workers
    up.end(signal.SIGKILL)
    until(lambda: not processes_of(up.folder), lambda: f"all end: {processes_of(up.folder)}", within_s=10)
