"""How evenly work is spread: the time until the last of many jobs has ended, against the least possible."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from job_mesh import A, Begun, D, Mesh, succeeded

SLOTS = 2


@pytest.mark.parametrize(("slowness", "bound"), [(1.0, 1.10), (10.0, 1.25)])
def test_jobs_of_one_owner_and_all_lengths_end_soon(slowness: float, bound: float) -> None:
    """Four nodes of two slots, and D takes `slowness` times as long for everything."""
    dice = random.Random(4)
    mesh = Mesh("abcd", slots=SLOTS)
    specs = mesh.specs(400, "a")
    lasts_s = {spec.id: dice.uniform(0.05, 2.0) for spec in specs}

    def run(begun: Begun) -> object:
        return lasts_s[begun.job] * (slowness if begun.node == D else 1.0), succeeded()

    mesh.verdict = run  # type: ignore[assignment]
    began = mesh.now
    mesh.submit(A, *specs)
    mesh.run_until(lambda: len(mesh.begun) == len(specs), limit_s=300.0)
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in reversed(specs)), limit_s=60.0)
    pace = SLOTS * (3 + 1 / slowness)
    assert mesh.now - began <= bound * sum(lasts_s.values()) / pace
    assert set(Counter(begun.job for begun in mesh.begun).values()) == {1}
