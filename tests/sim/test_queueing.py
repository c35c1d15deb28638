"""The simulator's law of queues: what it lets pass, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import pytest
from sim_stories import busy

from edgenode.core.lines import Gate, Need
from edgenode.core.node import Node
from edgenode.core.permits import Permits
from edgenode.core.queues import Queues, is_reset
from edgenode.core.specs import Options
from edgenode.core.steward import Pool, Steward
from edgenode.core.wire import QueueItem
from edgenode.sim.faults import Mood
from edgenode.sim.queueing import CLOSED
from edgenode.sim.trial import Plan, Trial
from edgenode.sim.violation import Violation

SEEDS = 600
TRIALS = 6
Patch = Callable[[pytest.MonkeyPatch], None]


def calm_trials() -> Iterator[Trial]:
    """Runs in which nothing goes wrong, and queues have limits."""
    for seed in range(SEEDS):
        trial = Trial(Plan(seed), Node)
        if trial.faults.mood is Mood.CALM and trial.queueing.is_on:
            yield trial


def run_all(trials: Iterable[Trial]) -> None:
    for trial in trials:
        trial.run()


def one_too_many(patch: pytest.MonkeyPatch) -> None:
    room = Steward._room

    def more(self: Steward, gate: Gate, pool: Pool) -> tuple[float, float]:
        left, rate = room(self, gate, pool)
        return left + 1, rate

    patch.setattr(Steward, "_room", more)


def no_permit_is_needed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Permits, "_may_pass", lambda self, gate: gate in self._accounts)


def pauses_are_overlooked(patch: pytest.MonkeyPatch) -> None:
    def is_free(self: Permits, need: Need) -> bool:
        return True

    patch.setattr(Permits, "is_free", is_free)


@pytest.mark.parametrize("bug", [one_too_many, no_permit_is_needed, pauses_are_overlooked])
def test_a_limit_that_is_passed_is_found(bug: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    with pytest.raises(Violation, match="Q: "):
        run_all(islice(calm_trials(), TRIALS))


def test_nodes_keep_to_what_is_set_for_queues() -> None:
    runs = list(islice(calm_trials(), TRIALS))
    run_all(runs)
    assert sum(bool(trial.queueing.seen) for trial in runs) > TRIALS / 2, "no start was held against a limit"


def test_the_most_urgent_job_is_next_and_then_the_oldest_also_for_the_owners_successor() -> None:
    story = busy("abc")
    jobs = ("old", "urgent", "young")
    for job in jobs:
        story.submit(job, at="a", holders="abc", options=Options(priority=9 * (job == "urgent")))
        story.until(lambda job=job: story.is_acknowledged(job))  # type: ignore[misc]
        story.wait(0.01)
    story.power_off("a")
    running, begun = "of b", []
    while running:  # one slot is free at a time
        story.finish(running)
        begun.append(running)
        story.wait(2.0)
        running = next((job for job in ("of a", *jobs) if story.runs(job)), "")
    assert begun == ["of b", "urgent", "of a", "old", "young"]
    story.heal_and_judge()


def changing_trials() -> Iterator[Trial]:
    """Runs in which nothing goes wrong, and limits of queues are changed."""
    return (trial for trial in calm_trials() if trial.queueing.is_changing)


def test_a_change_of_a_limit_that_others_do_not_heed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    merge = Queues._merge

    def heedless(self: Queues, item: QueueItem) -> bool:
        is_change = item.queue != CLOSED and item.queue in self._items
        return not (is_change and item.by != self._desk.me) and merge(self, item)

    monkeypatch.setattr(Queues, "_merge", heedless)
    with pytest.raises(Violation, match="Q: "):
        run_all(islice(changing_trials(), TRIALS))


def test_limits_are_changed_and_reset_and_hold() -> None:
    runs = list(islice(changing_trials(), TRIALS))
    run_all(runs)
    items = [item for trial in runs for _, item in trial.queueing._known.values()]
    assert any(map(is_reset, items))
    assert any(item.version > 1 and item.concurrency for item in items)
