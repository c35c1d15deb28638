"""A checker is trusted only after a planted bug has failed it: seeds find these, by the laws that they break.

What stories and other tests find is planted by `make mutants` (tests/mutants.toml).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from sim_bugs import (
    Bug,
    loose_match_of_acknowledgements,
    lower_ballot_acknowledged,
    own_clock_is_believed,
    planted,
    promise_not_persisted,
    restart_goes_on_without_asking,
    run_before_persist,
    takeover_ignores_answers,
)

from edgenode.core.node import Node
from edgenode.sim.trial import Plan, Trial
from edgenode.sim.violation import Violation

SEEDS = 400
"""Far more than are needed, so that it stays true of a protocol that changes. Most of these bugs are found
within ten seeds. Anti-entropy mends most of what a takeover that ignores answers does: with three disks, two
of which decide, and two nodes to stand in, it shows sooner."""


def run_seeds(plan: Plan) -> None:
    for seed in range(SEEDS):
        Trial(replace(plan, seed=seed), Node).run()


@pytest.mark.parametrize(
    ("bug", "law"),
    [
        (run_before_persist, "I5: .* before its owner's disk has it"),
        (takeover_ignores_answers, "I4: .* was decided twice|I14: .* starts again|I11: "),
        (lower_ballot_acknowledged, "acknowledges .* having promised"),
        (promise_not_persisted, "T4: .* asserts a promise"),
        (loose_match_of_acknowledgements, "P4: .* settled without a majority|T22: .* decided was"),
        (own_clock_is_believed, "I1: .* drops .* before its day|I12: .* before its day"),
        (restart_goes_on_without_asking, "I3|I4|I5|I9|P4"),
    ],
)
def test_seeds_find(bug: Bug, law: str) -> None:
    is_mended = bug is takeover_ignores_answers
    with planted(bug), pytest.raises(Violation, match=law):
        run_seeds(Plan(0, nodes=5, replicas=3) if is_mended else Plan(0))
