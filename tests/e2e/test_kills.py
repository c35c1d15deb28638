"""kill -9: of owners, of the node that has just said 202, of all nodes at once."""

from __future__ import annotations

import os
import signal

import pytest
from rig import until

from edgenode.client import Job
from tests.e2e.mesh import FULL, Mesh, Node

pytestmark = pytest.mark.timeout(600 if FULL else 180)


def test_jobs_of_two_killed_owners_go_on_and_those_of_the_healthy_start_once(mesh: Mesh) -> None:
    mesh.grow(5, slots=2 if FULL else 4)
    count = 300 if FULL else 120
    seconds = [0.2 + 1.8 * number / 9 for number in range(10)] if FULL else [0.2, 0.4, 0.7, 1.0]
    ids = []
    for number, document in enumerate(mesh.mark_jobs(count, seconds)):
        ids += mesh.nodes[number % 5].submit([document])

    killed: list[Node] = []
    for _ in range(2):
        victim = max(mesh.living, key=lambda node: node.load["owned"])
        assert victim.load["owned"] > 0, "there was nothing left to save"
        identity = victim.id
        victim.kill()
        assert identity == victim.id
        killed.append(victim)
        mesh.wait_ready()

    jobs = mesh.wait_ended(ids, settled=False)  # of some jobs, two of the three holders are dead
    assert {job.state for job in jobs.values()} == {"succeeded"}
    for node in mesh.living:
        for job in ids:
            seen = node.client.get(job)
            assert (seen.state, seen.result) == ("succeeded", jobs[job].result), seen

    starts, told = mesh.starts_seen(), mesh.starts_to_count({node.id: node.killed_at for node in killed})
    lost = {node.id for node in killed}
    moved = [job for job in ids if jobs[job].fields["owner"] != jobs[job].fields["holders"][0]]
    assert moved, "no job had to be taken over"
    for job in ids:
        fields = jobs[job].fields
        assert starts[job] >= 1
        assert told[job] <= fields["starts"], f"started {starts[job]} times: {fields}"
        if not touched(jobs[job], lost):
            assert (starts[job], fields["starts"]) == (1, 1), f"of healthy nodes: {fields}"

    for node in killed:
        node.start()
    mesh.wait_ready()
    ends = mesh.wait_ended(ids, at=mesh.nodes[0])
    for node in mesh.nodes[1:]:
        settled = mesh.wait_ended(ids, at=node)
        assert {job: settled[job].result for job in ids} == {job: ends[job].result for job in ids}
    for job in ids:
        if ends[job].result != jobs[job].result:
            # The two that were dead had decided another one: that of the third alone gives way, visibly.
            assert not jobs[job].settled, f"settled: {jobs[job].fields}, and now {ends[job].fields}"
            until(lambda job=job: gave_way(mesh.nodes[0].client.get(job)), f"{job} says so")  # type: ignore[misc]
    (document,) = mesh.mark_jobs(1, [0.05])
    for node in killed:
        until(
            lambda node=node: (  # type: ignore[misc]
                node.client.submit(document["task"], document["payload"], wait_s=10).fields["runner"]
                == node.id
            ),
            f"{node.name} runs jobs again",
        )


def gave_way(job: Job) -> bool:
    return any(note["kind"] == "superseded" for note in job.fields["history"])


def touched(job: Job, killed: set[str]) -> bool:
    """Whether a killed node was the first owner of a job, or ran it."""
    lost_on = [note["detail"] for note in job.fields["history"] if note["kind"] == "start lost"]
    return job.fields["holders"][0] in killed or any(node in why for node in killed for why in lost_on)


def test_what_the_entry_node_accepted_survives_its_death_right_after_the_202(mesh: Mesh) -> None:
    mesh.grow(4, slots=2)
    ids: list[str] = []
    for number in range(20 if FULL else 4):
        entry = mesh.nodes[number % 4]
        ids += entry.submit(mesh.mark_jobs(6, [0.1]))
        entry.kill()
        entry.start()
        mesh.wait_ready()
    jobs = mesh.wait_ended(ids)
    assert {job.state for job in jobs.values()} == {"succeeded"}
    assert set(ids) <= mesh.starts_seen().keys()


def test_a_mesh_whose_nodes_were_all_killed_at_once_finishes_its_jobs_when_they_return(mesh: Mesh) -> None:
    mesh.grow(5 if FULL else 4, slots=2)
    documents = mesh.mark_jobs(100, [0.3])
    share = 100 // len(mesh.nodes)
    ids = []
    for number, node in enumerate(mesh.nodes):
        ids += node.submit(documents[number * share : (number + 1) * share])
    for node in mesh.nodes:
        os.kill(node.pid, signal.SIGKILL)
    for node in mesh.nodes:
        node.wait_for_end()
    assert len(mesh.starts_seen()) < 100, "all of it had run already"
    for node in mesh.nodes:
        node.start()
    mesh.wait_ready()
    jobs = mesh.wait_ended(ids)
    assert {job.state for job in jobs.values()} == {"succeeded"}
    assert mesh.starts_seen().keys() == set(ids)
