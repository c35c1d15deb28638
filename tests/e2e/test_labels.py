"""Jobs that need a certain node, on real ones."""

from __future__ import annotations

import json

import pytest
from rig import until
from typer.testing import CliRunner

from edgenode.cli import app
from edgenode.client import Refused
from tests.e2e.mesh import Mesh, Node

pytestmark = pytest.mark.timeout(180)


ONLY = """
from edgenode import task

@task("only.here")
def only_here() -> str:
    return "done"
"""


def submit(node: Node, *options: str) -> list[dict[str, object]]:
    """Jobs submitted to this node by command, and how they ended."""
    command = ["submit", "echo", '{"message": 1}', "--count", "4", "--wait", "--json", "--url", node.url]
    result = CliRunner().invoke(app, [*command, *options])
    assert result.exit_code == 0, result.output
    found: list[dict[str, object]] = json.loads(result.stdout)["jobs"]
    return found


def test_jobs_run_on_the_node_that_has_the_labels_they_require(mesh: Mesh) -> None:
    options = ["--label", "gpu", "--label", "zone=north", "--weight", "0.5"]
    labelled = mesh.add(options=options)
    plain = mesh.add(join=[labelled.peer], options=["--label", "zone=south"])
    for node in mesh.nodes:
        node.start()
    mesh.wait_ready()
    told = plain.send("GET", f"/v1/nodes/{labelled.id}").json
    assert (told["labels"], told["weight"]) == ({"gpu": "yes", "zone": "north"}, 0.5)
    for wanted in (["gpu"], ["gpu=yes", "zone=north"]):
        ended = submit(plain, *(f"--require={label}" for label in wanted))
        assert {job["runner"] for job in ended} == {labelled.id}
    assert {job["runner"] for job in submit(labelled, "--require", "zone=south")} == {plain.id}
    job = plain.client.submit("echo", {"message": 1}, requires=["gpu", "zone=south"])
    waits = "a node with gpu=yes, zone=south: none of 2 that are ready and have the task has that"
    assert plain.client.get(job.id).fields["waiting_for"] == waits
    assert plain.client.cancel(job.id).state == "cancelled"


def test_a_job_whose_only_node_is_drained_or_dead_is_taken_and_waits_for_it(mesh: Mesh) -> None:
    source = mesh.folder / "only.py"
    source.write_text(ONLY)
    having = mesh.add(tasks=[str(source)])
    lacking = mesh.add(join=[having.peer])
    for node in mesh.nodes:
        node.start()
    mesh.wait_ready()

    def waits_for(state: str) -> str:
        until(lambda: lacking.client.node(having.id)["state"] == state, f"it is {state}")
        job = lacking.client.submit("only.here").id
        told = lacking.client.get(job).fields["waiting_for"]
        assert (
            told == f"a node with the task 'only.here': none of 1 that are ready has it (node-1 is {state})"
        )
        return job

    lacking.client.drain(having.id)
    job = waits_for("drained")
    lacking.client.undrain(having.id)
    assert lacking.client.wait(job, timeout_s=30).result == "done"
    having.kill()
    job = waits_for("dead")
    having.start()
    assert lacking.client.wait(job, timeout_s=30).result == "done"
    with pytest.raises(Refused, match="no known node has a task"):
        lacking.client.submit("no.where")
