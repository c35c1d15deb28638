"""Whole runs: seeds pass, repeat exactly, and explain themselves when they fail."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from sim_loner import Loner

from edgenode.core.jobs import Record, settled
from edgenode.core.node import Node
from edgenode.core.signals import Effect, Event, LinkUp, Persist, Run, Send
from edgenode.core.types import Instant
from edgenode.sim.faults import Kind, Mood
from edgenode.sim.machines import MakeCore
from edgenode.sim.story import Story
from edgenode.sim.trial import Plan, Trial
from edgenode.sim.violation import Violation

IDENTITY = {Kind.CLONE, Kind.DISK_STALE}
DIGESTS = """
from edgenode.core.node import Node
from edgenode.sim.trial import Plan, Trial
print([Trial(Plan(seed, hurt_s=4.0), Node).run().digest for seed in (0, 2, 5, 9)])
"""


def test_the_simplest_core_keeps_every_promise() -> None:
    """Nothing is replicated in it, so whatever fails here is the simulator's own fault."""
    trials = [Trial(Plan(seed, hurt_s=5.0, replicas=1, simple=True), Loner) for seed in range(24)]
    # It does not know one life of an identity from another, and has no terms.
    known = [
        trial
        for trial in trials
        if not IDENTITY.intersection(blow.kind for blow in trial.faults.blows)
        and trial.faults.mood is not Mood.DEATH
    ]
    passed = [trial.run() for trial in known[:12]]
    assert sum(each.acknowledged for each in passed) > 100


@pytest.mark.parametrize("seed", range(12))
def test_the_production_core_keeps_every_promise(seed: int) -> None:
    Trial(Plan(seed), Node).run()


@pytest.mark.parametrize(
    "plan",
    [
        Plan(197),  # the pause of an owner whose ballot gives way to that of other holders
        Plan(298),  # the same, and the start that stands is lost
        Plan(1078),  # who had a wrong time takes a pause for over, also when it knows better
        Plan(1003),  # a job without living holders, settled by who had been handed it
        Plan(1011),  # a node that has just begun, and what ended in a smaller mesh
        Plan(1338),  # a job has ended as far as the living know; with others its key can be decided
        Plan(1238),  # a job that waits for its next attempt goes down with the only node that has it
        Plan(1711),  # two nodes change a queue at one time
        Plan(2418),  # an only holder comes back, and who stood in for it has the greater name in its term
        Plan(2457),  # the copy of a member counts as one more clock that is right
        Plan(2452),  # a holder that takes no copies while clocks are wrong
        Plan(2694),  # the judge looks when all are down
        Plan(2964),  # the same; and who asked it drops what it asked about
        Plan(3788),  # the only disk with a submission has no vote on it, and is the first in rank
        Plan(4985),  # a word on a job, and then its claim turns out to be damaged
        Plan(6285),  # its owner, which is no holder, settles a job that has fewer holders than R
        Plan(7147),  # a merge brings another life of a key, while this node claims that for its own
        Plan(7435),  # the members keep to a copy that knows that it is behind
        Plan(9702),  # a careful job, whose key nobody can decide
        Plan(30267),  # a life of a key gives way while its start waits to begin, and the other one starts
        Plan(31110),  # a pause that was noted by a clock that was far ahead
        Plan(780368),  # an acknowledgement that leaves after the next epoch has come
        Plan(
            930049, nodes=5, replicas=1, hurt_s=3.0
        ),  # a slow disk starts what was submitted before the repetition
    ],
    ids=lambda plan: str(plan.seed),
)
def test_seeds_that_once_failed(plan: Plan) -> None:
    Trial(plan, Node).run()


def test_a_seed_repeats_exactly_in_another_interpreter() -> None:
    """The order of a set of strings depends on PYTHONHASHSEED; a replay on another day must not."""

    def digests(hash_seed: str) -> bytes:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", DIGESTS]
        return subprocess.run(command, env=environment, check=True, capture_output=True).stdout

    assert digests("1") == digests("2")


def test_the_codec_changes_nothing() -> None:
    plain = Trial(Plan(2, hurt_s=4.0, codec=False), Node).run()
    assert plain.digest == Trial(Plan(2, hurt_s=4.0, codec=True), Node).run().digest


# --------------------------------------------------------------------- the simplest core, spoilt in one line


class RunsBeforeItPersists(Loner):
    def handle(self, event: Event, now: Instant) -> list[Effect]:
        effects = super().handle(event, now)
        return sorted(effects, key=lambda effect: not isinstance(effect, Run))


class SettlesAlone(Loner):
    """Says that a provisional result is settled."""

    def _save(self, record: Record) -> None:
        if record.outcome is not None:
            record = settled(record._replace(outcome=record.outcome._replace(firm=False)))
        super()._save(record)


class ForgetsToPersist(Loner):
    """Acknowledges what it has in memory only."""

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        return [effect for effect in super().handle(event, now) if not isinstance(effect, Persist)]


class TalksToItself(Loner):
    def handle(self, event: Event, now: Instant) -> list[Effect]:
        effects = super().handle(event, now)
        if isinstance(event, LinkUp):
            effects += [Send(self.me, each.message) for each in effects if isinstance(each, Send)]
        return effects


class LosesItsMemory(Loner):
    """Starts again from nothing after a restart."""

    def _load(self, rows: object) -> None:
        pass


@pytest.mark.parametrize(
    "core", [RunsBeforeItPersists, SettlesAlone, ForgetsToPersist, TalksToItself, LosesItsMemory]
)
def test_a_spoilt_core_is_found_within_a_few_seeds(core: MakeCore) -> None:
    def run_all() -> None:
        for seed in range(20):
            Trial(Plan(seed, hurt_s=5.0, replicas=1, simple=True), core).run()

    with pytest.raises(AssertionError):
        run_all()


def test_a_failure_says_what_was_drawn_and_what_happened_last() -> None:
    with pytest.raises(Violation) as failure:
        Trial(Plan(0, hurt_s=5.0, simple=True), ForgetsToPersist).run()
    drawn, struck, story = failure.value.__notes__
    assert drawn.startswith("faults as drawn: Faults(mood=")
    assert struck.startswith("struck: ")
    assert 5 < len(story.splitlines()) <= 40


def test_a_run_that_was_to_hurt_and_did_not_fails() -> None:
    hurt = next(seed for seed in range(99) if Trial(Plan(seed, replicas=1), Loner).faults.mood == "hurt")
    trial = Trial(Plan(hurt, hurt_s=5.0, replicas=1, simple=True), Loner)
    trial.run()
    trial.world.strikes.clear()
    with pytest.raises(Violation, match="no fault struck"):
        trial._check_struck()


def test_a_story_names_what_came_in_what_left_and_what_is_on_disk() -> None:
    trial = Trial(Plan(1, nodes=3, replicas=1, hurt_s=3.0, simple=True), Loner, Story(whole=True))
    trial.run()
    lines = list(trial.world.story.lines())
    assert any(" > SubmitAsked " in line for line in lines)
    assert any(" < Run j" in line for line in lines)
    assert any(" = on disk: j" in line for line in lines)
    assert any(" * starts, boot 1" in line for line in lines)
    assert len(list(trial.world.story.lines("j0"))) < len(lines)
