"""Drains, weights and another R on a living mesh, as directed stories."""

from __future__ import annotations

import pytest
from sim_stories import owner, queued, running, the_copy

from edgenode.core.node import Node
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.situations import Situation
from edgenode.core.specs import Options
from edgenode.core.wire import Gift, Regulate
from edgenode.sim.scenario import Scenario


def ends(story: Scenario, *jobs: str) -> None:
    for job in jobs:
        story.until(lambda job=job: story.runs(job))  # type: ignore[misc]
        story.finish(job)
    story.until(lambda: all(map(story.is_told, jobs)))


# ------------------------------------------------------------------------------------------- another R


@pytest.mark.parametrize("first", ["abcd", "dcba", "bdac"])
def test_a_job_is_held_by_more_when_all_nodes_are_restarted_with_a_greater_r(first: str) -> None:
    one = Settings(jobs=JobSettings(replicas=1))
    story = running("abcd", holders="a", options=Options(max_losses=9), settings=one)
    assert len(the_copy(story, "a").holders) == 1
    story.restart_with(3, *first)
    story.until(lambda: len(the_copy(story, "a").holders) == 3)
    story.until(lambda: story.reached >= {Situation.HOLDERS_GROW, Situation.EPOCH_BEGUN})
    story.kill("a")  # now that others hold it, it goes on without its first and only one
    story.until(lambda: story.runs("j"))
    story.heal_and_judge()


@pytest.mark.parametrize("first", ["abcd", "dcba", "bdac"])
def test_jobs_shrink_when_all_nodes_are_restarted_with_a_smaller_r_and_stay_with_their_owner(
    first: str,
) -> None:
    story = queued("abcd")
    story.restart_with(1, *first)
    story.until(lambda: any(owner(story, name) and len(the_copy(story, name).holders) == 1 for name in "abc"))
    copies = [the_copy(story, name) for name in "abc"]
    assert all(copy.holders == (copy.owner,) for copy in copies if len(copy.holders) == 1)
    story.heal_and_judge()


def test_a_smaller_r_takes_no_copies_of_finished_jobs_away() -> None:
    story = running("abc")
    ends(story, "j")
    story.wait(1.0)
    story.restart_with(1, *"abc")
    story.wait(10.0)
    assert all(the_copy(story, name).settled for name in "abc")
    story.heal_and_judge()


def test_a_job_keeps_going_back_and_forth_between_no_sizes_when_nodes_have_different_ones() -> None:
    """Its owner decides, and nobody else: so it changes once at most, as long as that lives."""
    story = Scenario("abcd", Node)
    story.restart_with(1, "a")
    story.submit("j", at="b", holders="abc")
    story.submit("k", at="a", holders="d")
    story.until(lambda: story.is_acknowledged("j") and story.is_acknowledged("k"))
    story.until(lambda: (copy := story.copy("j", "a")) and len(copy.holders) == 1)
    story.until(lambda: (copy := story.copy("k", "d")) and len(copy.holders) == 3)
    epochs = the_copy(story, "a").epoch, the_copy(story, "d", "k").epoch
    story.wait(20.0)
    assert (the_copy(story, "a").epoch, the_copy(story, "d", "k").epoch) == epochs
    ends(story, "j", "k")
    assert (story.starts("j"), story.starts("k")) == (1, 1)
    story.heal_and_judge()


# ----------------------------------------------------------------------------------------------- drains


def test_a_drain_moves_what_waits_lets_what_runs_end_and_undraining_brings_nothing_back() -> None:
    story = queued("abc")
    story.drain("a", at="c")
    story.until(lambda: Situation.GIFT_TAKEN in story.reached)
    story.finish("of a")
    story.until(lambda: story.is_drained("a"))
    story.undrain("a", at="b")
    story.until(lambda: story.is_ready("a"))
    ends(story, "of b", "of c", "j")
    assert [story.starts(job) for job in ("j", "of a", "of b", "of c")] == [1, 1, 1, 1]
    story.heal_and_judge()


def test_a_drain_whose_gifts_are_lost_is_repeated_until_they_are_taken() -> None:
    story = queued("abc")
    story.lose(Gift, source="a", to="b")
    story.drain("a", at="c")
    story.until(lambda: Situation.GIFT_REPEATED in story.reached)
    assert not story.is_drained("a")
    story.lose_nothing()
    story.finish("of a")
    story.until(lambda: story.is_drained("a"))
    story.until(lambda: owner(story, "b") == "b")
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_a_drain_that_comes_late_after_the_undrain_does_nothing() -> None:
    story = running("abc")
    story.drain("a", at="c")
    story.until(lambda: Situation.DRAINED in story.reached or not story.is_ready("a"))
    story.undrain("a", at="c")
    story.until(lambda: story.is_ready("a"))
    sent = story.said("c", Regulate)
    assert sent >= 2
    story.lose(Regulate, source="c", to="a")
    story.drain("a", at="c")
    story.until(lambda: story.lost(Regulate))
    story.undrain("a", at="b")
    story.undrain("a", at="b")
    story.wait(2.0)
    story.deliver_late()
    story.wait(10.0)  # whoever asked for that drain has given up by then
    story.undrain("a", at="a")
    story.until(lambda: story.is_ready("a"))
    story.heal_and_judge()


def test_a_drained_node_that_dies_and_returns_takes_jobs_again() -> None:
    story = queued("abc")
    story.drain("a", at="b", limit_s=0.0)
    story.until(lambda: story.is_drained("a"))
    story.kill("a")
    story.restart("a")
    story.until(lambda: story.is_ready("a"))
    story.heal_and_judge()


def test_all_nodes_drained_keep_their_jobs_and_go_on_when_one_is_undrained() -> None:
    story = queued("abc")
    for name in "abc":
        story.drain(name, at=name, limit_s=0.5)
    story.until(lambda: all(map(story.is_drained, "abc")))
    assert Situation.DRAINED_OWNER_STAYS in story.reached
    assert not any(story.runs(job) for job in ("j", "of a", "of b", "of c"))
    story.undrain("b", at="a")
    story.until(lambda: any(story.runs(job) for job in ("j", "of a", "of b", "of c")))
    for name in "ac":
        story.undrain(name, at=name)
    story.heal_and_judge()
