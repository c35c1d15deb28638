"""Limits of queues and keys over real nodes: each owner starts its own jobs; together they keep to them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import accumulate

import pytest

from edgenode.client import Job
from tests.e2e.mesh import Mesh

pytestmark = pytest.mark.timeout(120)


def moments(jobs: Iterable[Job], field: str) -> list[float]:
    return sorted(datetime.fromisoformat(job.fields[field]).timestamp() for job in jobs)


CLOCKS_S = 0.02
"""The clocks of two nodes may differ by milliseconds, as fast as a permit is passed on. Runs take 0.25 s."""


def most_at_once(jobs: list[Job]) -> int:
    """How many of these ran at the same time."""
    begun, ended = moments(jobs, "started_at"), moments(jobs, "finished_at")
    steps = [(at, 1) for at in begun] + [(at - CLOCKS_S, -1) for at in ended]
    return max(accumulate(step for _, step in sorted(steps)))


def test_two_nodes_keep_to_the_limits_of_a_queue_and_of_a_key_and_to_a_rate(mesh: Mesh) -> None:
    mesh.grow(2, slots=4)
    mesh.nodes[0].client.change_queue("mail", concurrency=2)
    mesh.nodes[1].client.change_queue("slow", rate=5.0, burst=1)
    kinds = {
        "mail": {"queue": "mail"},
        "key": {"concurrency_key": "customer-7", "concurrency_limit": 1},
        "slow": {"queue": "slow"},
        "free": {},
    }
    ids: dict[str, list[str]] = {kind: [] for kind in kinds}
    for number in range(6):
        for kind, options in kinds.items():
            (document,) = mesh.mark_jobs(1, [0.25])
            ids[kind] += mesh.nodes[number % 2].submit([document | options])
    ended = mesh.wait_ended([job for jobs in ids.values() for job in jobs])
    assert {job.state for job in ended.values()} == {"succeeded"}
    found = {kind: [ended[job] for job in jobs] for kind, jobs in ids.items()}
    assert len({job.fields["owner"] for job in found["mail"]}) == 2, "one owner alone would show little"
    assert most_at_once(found["mail"]) == 2
    assert most_at_once(found["key"]) == 1
    starts = moments(found["slow"], "started_at")
    # The first is free, and for a moment each of two owners may be one ahead.
    assert starts[-1] - starts[0] >= (len(starts) - 2) / 5.0 / 1.1
