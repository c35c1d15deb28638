"""The simulator's law of labels and tasks: what it lets pass, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
from sim_records import a_spec

from edgenode.core.lines import Kind
from edgenode.core.node import Node
from edgenode.core.signals import Run
from edgenode.core.specs import Options
from edgenode.core.types import NO_TOKEN
from edgenode.sim.abilities import EAST, GPU, KINDS, RARE, can_run
from edgenode.sim.machines import Machine, node_id
from edgenode.sim.trial import Plan, Trial
from edgenode.sim.violation import Violation
from edgenode.sim.workers import TASK

SEEDS = 200
TRIALS = 6


def able_trials() -> Iterator[Trial]:
    """Runs with jobs that only some nodes can run."""
    for seed in range(SEEDS):
        trial = Trial(Plan(seed), Node)
        if trial.abilities.is_on:
            yield trial


def test_a_machine_can_run_what_it_has_the_task_and_all_labels_for() -> None:
    machine = Machine(node_id("a"), node_id("a"), clock=None, labels=(GPU,), tasks=(RARE,))  # type: ignore[arg-type]
    assert can_run(machine, Kind(TASK, ()))
    assert can_run(machine, Kind(RARE, (GPU,)))
    assert not can_run(machine, Kind(TASK, (GPU, EAST)))
    assert not can_run(machine, Kind("other", ()))


def test_jobs_run_where_they_can_and_nodes_say_what_is_lacking() -> None:
    runs = list(islice(able_trials(), TRIALS))
    needed = set()
    for trial in runs:
        trial.run()
        starts = trial.world.ledger.starts
        needed |= {
            Kind(spec.task, spec.options.requires)
            for job, spec in trial.world.ledger.specs.items()
            if starts[job]
        }
    assert set(KINDS) <= needed, "not every kind was run"


def test_a_start_on_a_node_without_the_label_is_found() -> None:
    trial = next(able_trials())
    machine = trial.world.add("a")
    machine.labels, machine.tasks = (EAST,), ()
    trial.world.start(machine)
    assert machine.life is not None
    (begins,) = (hear for hear in trial.world.on_begin if hear.__self__ is trial.abilities)  # type: ignore[attr-defined]
    spec = a_spec(1, Options(requires=(EAST,)))
    begins(machine.life, Run(spec.id, NO_TOKEN, spec, 1))
    for wrong in (replace(spec, task=RARE), replace(spec, options=Options(requires=(GPU, EAST)))):
        with pytest.raises(Violation, match=r"L: a runs .* and has {'zone': 'east'}"):
            begins(machine.life, Run(spec.id, NO_TOKEN, wrong, 1))
