"""Every situation that the core names is reached: by a story, or by some seed of the suite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import test_days
import test_rare_situations
import test_scenarios
import test_scenarios_cancels
import test_scenarios_copies
import test_scenarios_islands
import test_scenarios_keys
import test_scenarios_moves
import test_scenarios_retries

from edgenode.core.desk import Desk
from edgenode.core.node import Node
from edgenode.core.situations import Situation
from edgenode.sim.trial import Plan, Trial

SEEDS = 200
"""Some thirty are needed today."""


@contextmanager
def collected() -> Iterator[set[Situation]]:
    """All situations that any node comes into within the block."""
    reached: set[Situation] = set()
    reach = Desk.reach

    def overheard(desk: Desk, situation: Situation) -> None:
        reached.add(situation)
        reach(desk, situation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Desk, "reach", overheard)
        yield reached


def stories() -> Iterator[None]:
    """Run each story that needs no arguments."""
    for module in (
        test_days,
        test_rare_situations,
        test_scenarios,
        test_scenarios_cancels,
        test_scenarios_copies,
        test_scenarios_islands,
        test_scenarios_keys,
        test_scenarios_moves,
        test_scenarios_retries,
    ):
        for name, story in vars(module).items():
            if name.startswith("test_") and not hasattr(story, "pytestmark"):
                yield story()


def never_reached(missing: set[Situation]) -> str:
    return "never reached: " + ", ".join(f"{each.name} ({each})" for each in sorted(missing))


def test_every_situation_is_reached() -> None:
    with collected() as told:
        for _ in stories():
            pass
    missing = set(Situation) - told
    for seed in range(SEEDS):
        missing -= Trial(Plan(seed), Node).run().reached
        if not missing:
            return
    pytest.fail(never_reached(missing))


def test_a_run_says_which_situations_its_nodes_came_into() -> None:
    """Also those of nodes that have died since."""
    for seed in range(60):
        with collected() as told:
            passed = Trial(Plan(seed), Node).run()
        # What a pipeline does with an early acknowledgement, no core can say.
        assert passed.reached - {Situation.ACK_HELD_BACK} == told
        if {Situation.STALLED, Situation.RUNNER_GONE} <= told:
            return
    pytest.fail("no seed of these was eventful")
