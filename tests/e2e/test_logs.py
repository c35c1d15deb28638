"""What tasks say, read at other nodes than those that ran them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from rig import until

from tests.e2e.mesh import Mesh, Node

pytestmark = pytest.mark.timeout(180)

FIRST = "printed by start 1 of term 1\nan error\nlogged\n"


def starts_at(node: Node, job: str) -> list[dict[str, Any]]:
    return list(node.client.logs(job)["starts"])


def test_the_log_of_a_node_that_was_killed_is_read_at_any_other_and_the_next_start_adds_to_it(
    mesh: Mesh,
) -> None:
    mesh.grow(4)
    job = mesh.nodes[0].client.submit("talk", {"path": str(mesh.marks), "seconds": 60})
    until(lambda: mesh.nodes[3].client.get(job.id).fields["progress"], "its progress is known")
    fields = mesh.nodes[0].client.get(job.id).fields
    assert (fields["progress"]["fraction"], fields["progress"]["message"]) == (0.5, "half way")
    assert fields["partial"] == {"rows": 3}
    assert [starts_at(node, job.id)[0]["text"] for node in mesh.nodes] == [FIRST] * 4
    runner = next(node for node in mesh.nodes if node.id == fields["runner"])
    runner.kill()
    for node in mesh.living:
        first = starts_at(node, job.id)[0]
        assert (first["text"], first["runner"], first["attempt"]) == (FIRST, runner.id, 1)
    ended = mesh.living[0].client.wait(job.id, timeout_s=60)
    assert ended.succeeded
    assert ended.fields["partial"] is None
    for node in mesh.living:
        texts = [start["text"] for start in starts_at(node, job.id)]
        assert texts == [FIRST, FIRST.replace("start 1 of term 1", f"start 1 of term {ended.fields['term']}")]
    reader = mesh.living[-1]
    command = [sys.executable, "-m", "edgenode", "logs", job.id, "--follow", "--url", reader.url]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert shown.startswith(f"--- attempt 1, start 1.{runner.name}.1, on {runner.name} ---\n{FIRST}--- ")


def test_the_log_of_a_job_that_has_ended_is_whole(lone: Node) -> None:
    jobs = [lone.client.submit("fail", {"message": f"no {number}"}, max_attempts=1) for number in range(3)]
    for job in jobs:
        lone.client.wait(job.id, timeout_s=60)
        assert starts_at(lone, job.id) == []  # what a task raises is in its record
    job = lone.client.submit("talk", {"path": "/dev/null", "seconds": 60}, wait_s=10)
    assert job.succeeded
    assert [start["text"] for start in starts_at(lone, job.id)] == [FIRST]
