"""Jobs that need a certain node, on real ones."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from edgenode.cli import app
from tests.e2e.mesh import Mesh, Node

pytestmark = pytest.mark.timeout(180)


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
