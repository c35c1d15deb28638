"""Nodes that are told to end, and `edgenode up` with its nodes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from rig import until

from edgenode.client import Client
from tests.e2e.mesh import Mesh, Node, Up
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


QUICK_S = 1.0
"""For a node that is told to end at once: what runs is stopped, and nothing handed over."""


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_node_that_drains_within_a_second(mesh: Mesh, second: signal.Signals) -> None:
    mesh.add(options=["--drain-limit", "60"])
    mesh.add(join=[mesh.nodes[0].peer])
    for node in mesh.nodes:
        node.start()
    mesh.wait_ready()
    leaver, other = mesh.nodes
    (job,) = leaver.submit(mesh.mark_jobs(1, [30.0]))
    until(lambda: mesh.starts_seen()[job], "it runs")
    runner = next(node for node in mesh.nodes if node.load["running"])
    stays = other if runner is leaver else leaver
    runner.kill(signal.SIGTERM)
    until(lambda: runner.name not in stays.ready_members(), "it drains")
    assert runner.is_alive, "it waits for what runs"
    began = time.monotonic()
    runner.kill(second)
    runner.wait_for_end(10.0)
    assert time.monotonic() - began < QUICK_S
    until(lambda: stays.client.get(job).fields["starts"] == 2, "it runs elsewhere")
    assert stays.client.get(job).fields["losses"] == 0, "that was an operator's wish"


def test_what_runs_for_longer_than_the_drain_limit_is_stopped_and_runs_elsewhere(mesh: Mesh) -> None:
    for _ in range(3):
        mesh.add(join=[node.peer for node in mesh.nodes], options=["--drain-limit", "0.5"])
    for node in mesh.nodes:
        node.start()
    mesh.wait_ready()
    (job,) = mesh.nodes[0].submit(mesh.mark_jobs(1, [4.0]))
    until(lambda: mesh.starts_seen()[job], "it runs")
    runner = next(node for node in mesh.nodes if node.load["running"])
    runner.kill(signal.SIGTERM)
    assert runner.wait_for_end(LEAVE_S) == 0
    ended = mesh.wait_ended([job])[job]
    assert (ended.state, ended.fields["starts"], ended.fields["losses"]) == ("succeeded", 2, 0)


def test_a_node_is_drained_and_undrained_by_the_command_line_and_serves_on(mesh: Mesh) -> None:
    mesh.grow(3, slots=2)
    drained, other, third = mesh.nodes
    ids = drained.submit(mesh.mark_jobs(16, [0.2, 0.5]))
    until(lambda: drained.load["running"], "it runs something")
    told = edgenode(other, "drain", drained.name, "--limit-s", "20", "--wait")
    assert f"{drained.name} is drained" in told  # (how busy it is may be what it said a moment before)
    until(lambda: drained.load["owned"] == drained.load["running"] == 0, "it has nothing left")
    assert drained.send("GET", "/readyz").status == 503
    assert b"edgenode_draining 1.0" in drained.send("GET", "/metrics").body
    ids += drained.submit(mesh.mark_jobs(6, [0.1]))
    jobs = mesh.wait_ended(ids, at=drained)
    assert mesh.starts_seen() == dict.fromkeys(ids, 1)
    assert all(drained.id not in jobs[job].fields["holders"] for job in ids[16:]), "it is not ranked"
    assert "is ready" in edgenode(third, "undrain", drained.id)
    mesh.wait_ready()
    edgenode(third, "weight", drained.name, "50")
    until(lambda: drained.client.node("self")["weight"] == 50.0, "it has its new weight")
    until(lambda: other.client.node(drained.id)["weight"] == 50.0, "the others know of it")
    more = other.submit(mesh.mark_jobs(12, [0.1]))
    owners = Counter(job.fields["holders"][0] for job in mesh.wait_ended(more).values())
    assert owners[drained.id] >= 8


def edgenode(node: Node, *arguments: str) -> str:
    """What this command says, asked of this node."""
    command = [sys.executable, "-m", "edgenode", *arguments, "--url", node.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done
    return done.stdout


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
