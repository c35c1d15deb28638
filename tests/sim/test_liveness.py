"""One death is made good within a bound, and who is slow is not called dead: some seeds demand it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

import pytest

from edgenode.core.custody import Custody
from edgenode.core.membership import Membership
from edgenode.core.node import Node
from edgenode.core.settings import PRESETS
from edgenode.sim.faults import Kind, Mood
from edgenode.sim.liveness import takeover_s
from edgenode.sim.trial import Plan, Trial
from edgenode.sim.violation import Violation


def trials(mood: Mood) -> Iterator[Trial]:
    """Of the seeds that are like this, one after another."""
    every = (Trial(Plan(seed), Node) for seed in count())
    return (trial for trial in every if trial.faults.mood is mood)


def run(mood: Mood, seeds: int) -> None:
    for trial in islice(trials(mood), seeds):
        trial.run()


def test_bounds_are_what_is_promised_for_a_local_network_and_grow_with_its_patience() -> None:
    assert takeover_s(PRESETS["lan"], silent=False) == 0.25
    assert takeover_s(PRESETS["lan"], silent=True) == pytest.approx(2.0)
    assert 10.0 < takeover_s(PRESETS["wan"], silent=True) < 15.0


@pytest.mark.parametrize("kind", [Kind.KILL_ONE, Kind.POWER_ONE])
def test_after_one_death_its_jobs_are_anothers_in_time(kind: Kind) -> None:
    like = (trial for trial in trials(Mood.DEATH) if trial.faults.blows[0].kind is kind)
    for trial in islice(like, 3):
        assert trial.run().strikes[kind] == 1


def test_who_finds_out_about_a_death_at_the_next_look_only_is_too_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Custody, "members_changed", lambda custody, changed: None)
    with pytest.raises(Violation, match=r"I7: [\d.]+ s after \w+ died, its job .* belongs to it still"):
        run(Mood.DEATH, 20)


def test_stalls_and_starvation_cost_nobody_its_jobs() -> None:
    struck = [trial.run().strikes for trial in islice(trials(Mood.STALLS), 5)]
    assert sum(each[Kind.SHORT_STALL] + each[Kind.STARVE] for each in struck) >= 10


def test_who_takes_its_own_standing_still_for_the_silence_of_others_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Membership, "_wake_up", lambda membership, late_s: None)
    with pytest.raises(Violation, match=r"I8: \w+ calls \w+ dead, which lives"):
        run(Mood.STALLS, 60)
