"""The simulator's law of what nodes count: what it lets pass, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from itertools import islice

import pytest
from sim_records import A, B, a_record, a_spec, stored_row

from edgenode.core.node import Node
from edgenode.core.signals import CountDone, RequestId
from edgenode.sim.counts import Counts, Moment
from edgenode.sim.faults import Mood
from edgenode.sim.ledger import Start
from edgenode.sim.trial import Plan, Trial
from edgenode.sim.violation import Violation

SEEDS = 200
TRIALS = 3
JOBS = [a_spec(number) for number in range(3)]


def calm_trials() -> Iterator[Trial]:
    for seed in range(SEEDS):
        trial = Trial(Plan(seed), Node)
        if trial.faults.mood is Mood.CALM and trial.counts.is_on:
            yield trial


def test_nodes_count_what_waits_and_what_runs() -> None:
    for trial in islice(calm_trials(), TRIALS):
        trial.run()
        assert trial.counts.seen


@pytest.fixture
def counts() -> Counts:
    """Three jobs are known to exist; of those one runs, and one has ended."""
    trial = next(calm_trials())
    ledger = trial.world.ledger
    ledger.submitted(tuple(JOBS))
    token = a_record(JOBS[0]).own.token
    ledger.starts[JOBS[0].id][token] = Start(A, 1)
    ledger.acked = {spec.id: (A,) for spec in JOBS}
    ledger.finished = {JOBS[2].id}
    trial.world.start(trial.world.add("a"))
    return trial.counts


@pytest.mark.parametrize(
    ("told", "is_right"),
    [
        ({"default": (1, 1)}, True),
        ({"default": (0, 2)}, True),
        ({"default": (2, 0)}, False),
        ({"default": (0, 1)}, False),
        ({"default": (2, 1)}, False),
        ({"default": (1, 1), "narrow": (1, 0)}, False),
        ({}, False),
    ],
)
def test_a_count_is_between_what_must_be_and_what_may_be(
    counts: Counts, told: Mapping[str, tuple[int, int]], is_right: bool
) -> None:
    ledger, (life,) = counts._world.ledger, counts._world.lives()
    ((token, _),) = ledger.starts[JOBS[0].id].items()
    running = frozenset({(JOBS[0].id, token)})
    asked = Moment(frozenset(ledger.acked), frozenset(ledger.finished), running)
    answer = CountDone(RequestId(1), told, ())
    if is_right:
        counts._check_bounds(life, answer, asked, running, ledger.acked)
    else:
        with pytest.raises(Violation, match=r"Q: a counts"):
            counts._check_bounds(life, answer, asked, running, ledger.acked)


@pytest.mark.parametrize(("stops", "is_right"), [(True, True), (False, False)])
def test_what_was_cancelled_is_counted_while_it_runs_on(counts: Counts, stops: bool, is_right: bool) -> None:
    """Found by seed 3625."""
    ledger, (life,) = counts._world.ledger, counts._world.lives()
    ((token, _),) = ledger.starts[JOBS[0].id].items()
    stopping = {(JOBS[2].id, a_record(JOBS[2]).own.token)} if stops else set()
    running = frozenset({(JOBS[0].id, token)})
    asked = Moment(frozenset(ledger.acked), frozenset(ledger.finished), running | stopping)
    answer = CountDone(RequestId(1), {"default": (1, 2)}, ())
    with nullcontext() if is_right else pytest.raises(Violation, match=r"Q: a counts"):
        counts._check_bounds(life, answer, asked, running, ledger.acked)


def test_a_queue_that_no_job_is_in_is_not_told_of(counts: Counts) -> None:
    (life,) = counts._world.lives()
    counts._check_names(life, CountDone(RequestId(1), {"default": (1, 0)}, ()))
    with pytest.raises(Violation, match="'narrow'"):
        counts._check_names(life, CountDone(RequestId(1), {"narrow": (1, 0)}, ()))


def test_what_is_unfinished_on_any_disk_may_be_counted(counts: Counts) -> None:
    counts._world.add("b")
    counts._world.disks[B].write((stored_row(a_record(JOBS[1])),))
    assert counts._unfinished() == {JOBS[1].id}
