"""Stories about last days, wrong clocks, and who is blamed for silence; each fails without its rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sim_bugs import (
    Bug,
    any_clock_ends_jobs,
    losses_by_number,
    own_clock_is_believed,
    pauses_are_days,
    planted,
    silence_counts_for_ever,
    the_forgotten_is_taken,
    the_past_is_refused,
)
from sim_stories import end, running, the_copy

from edgenode.core.node import Node
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.situations import Situation
from edgenode.core.specs import Options
from edgenode.core.types import Backoff, State
from edgenode.core.wire import Acks, Marks, Write
from edgenode.sim.clock import EPOCH
from edgenode.sim.scenario import Scenario

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
QUICK = Settings(jobs=JobSettings(clock_skew_max_s=4.0, sweep_s=1.0))
"""The same rules in seconds instead of days."""


def test_expired_while_all_off() -> None:
    """After eight days without power a job is not gone: everybody shows that it expired, for its `ttl_s`."""
    story = running("abc", options=Options(ttl_s=60.0))
    story.power_off(*"abc")
    story.wait(8 * DAY_S)
    story.restart(*"abc")
    story.until(lambda: story.is_told("j"), within_s=60.0)
    assert [end(story.read("j", each)) for each in "abc"] == [State.EXPIRED] * 3
    story.wait(50.0)
    assert end(story.read("j", "b")) is State.EXPIRED
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_clock_jump_owner() -> None:
    """The owner's clock jumps a month ahead: its jobs run on, and do not expire."""
    story = Scenario("abc", Node)
    story.submit("j", at="a", holders="abc")
    story.until(lambda: story.runs("j"))
    story.set_clock("a", ahead_s=30 * DAY_S)
    story.wait(20.0)
    assert story.runner("j") == "a"
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    assert end(story.read("j", "c")) is State.SUCCEEDED
    story.heal_and_judge()
    assert story.starts("j") == 1


def expired_elsewhere(*, ahead_s: float) -> Scenario:
    """C was away with the job while the others finished, showed and forgot it; it comes back with this clock.
    Nobody has heard its clock, and it has heard nobody's."""
    story = Scenario("abc", Node, settings=QUICK)
    story.submit("j", at="a", holders="abc", options=Options(ttl_s=2.0), lasts_s=15.0)
    story.until(lambda: story.is_acknowledged("j") and story.copy("j", "c") is not None)
    story.power_off("c")
    story.finish("j")
    story.until(lambda: story.copy("j", "a") is None and story.copy("j", "b") is None, within_s=60.0)
    assert the_copy(story, "c").outcome is None
    story.set_clock("c", ahead_s=ahead_s)
    story.restart("c")
    return story


def test_what_was_forgotten_does_not_come_back() -> None:
    story = expired_elsewhere(ahead_s=0.0)
    story.until(lambda: story.copy("j", "c") is None)
    assert all(story.copy("j", each) is None for each in "ab")
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_expired_elsewhere_slow_clock() -> None:
    """Its clock is an hour behind: it keeps its copy until the clock is right, and never runs it."""
    story = expired_elsewhere(ahead_s=-HOUR_S)
    story.wait(30.0)
    assert the_copy(story, "c").outcome is None
    assert all(story.copy("j", each) is None for each in "ab")
    story.set_clock("c", ahead_s=0.0)
    story.until(lambda: story.copy("j", "c") is None)
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_who_takes_no_copies_while_clocks_are_wrong_gets_them_when_they_are_right() -> None:
    """Most clocks ran ahead once, and jobs were forgotten too soon; c comes back with such a clock."""
    story = Scenario("abc", Node, settings=QUICK)
    story.submit("long", at="a", holders="abc", options=Options(ttl_s=2.0), lasts_s=600.0)
    story.until(lambda: story.runs("long"))
    story.finish("long")
    story.until(lambda: story.is_told("long"))
    for name in "bc":
        story.set_clock(name, ahead_s=HOUR_S)
    story.until(lambda: story.copy("long", "c") is None, within_s=60.0)
    story.set_clock("b", ahead_s=0.0)
    story.wait(5.0)
    for kind in (Write, Marks):
        story.lose(kind, source="a", to="c")
    story.submit("j", at="a", holders="abc", options=Options(ttl_s=2.0), lasts_s=300.0)
    story.until(lambda: story.runs("j"))
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.kill("c")
    story.lose_nothing()
    story.restart("c")
    story.wait(30.0)
    assert story.copy("j", "c") is None
    story.set_clock("c", ahead_s=0.0)
    story.until(lambda: story.copy("j", "c") is not None, within_s=15.0)
    assert Situation.REFUSING_HOLDER_OPEN in story.reached
    story.heal_and_judge()


def test_a_start_that_waits_for_its_disks_until_after_the_deadline_never_begins() -> None:
    story = Scenario("abc", Node)
    for holder in "bc":
        story.lose(Acks, source=holder, to="a")
    deadline = EPOCH + story.world.now + 2.0
    story.submit("j", at="a", holders="abc", options=Options(deadline=deadline))
    story.wait(3.0)
    story.lose_nothing()
    story.until(lambda: story.is_told("j"))
    assert Situation.LATE_FOR_DEADLINE in story.reached
    assert end(story.read("j", "b")) is State.EXPIRED
    story.heal_and_judge()
    assert story.starts("j") == 0


def test_backoff_then_takeover() -> None:
    """A pause is a duration: the successor's clock, an hour behind, does not make it longer."""
    story = running("abc", options=Options(backoff=Backoff("constant", base_s=4.0)))
    story.set_clock("b", ahead_s=-HOUR_S)
    story.wait(1.5)  # it is read every second
    story.fail("j")
    failed_at = story.world.now
    story.wait(0.5)
    story.kill("a")
    story.until(lambda: story.runner("j") == "b", within_s=10.0)
    assert 3.9 < story.world.now - failed_at < 6.0
    story.finish("j")
    story.heal_and_judge()


def test_poison_on_both_sides() -> None:
    """It kills its owner, and then workers on both sides of a cut. Losses are a set: what one side lost, and
    the other does not know of, is added when they meet."""
    story = running("abc", options=Options(max_losses=5))
    story.kill("a")
    story.until(lambda: story.runner("j") == "b")
    story.wait(0.5)
    story.cut("b", "c")
    story.until(lambda: story.runner("j") == "c")
    for node in "bbc":
        before = story.starts("j")
        story.lose_worker("j", on=node)
        story.until(lambda before=before: story.starts("j") > before)  # type: ignore[misc]
    assert [the_copy(story, each).loss_count for each in "bc"] == [3, 3]
    story.mend()
    story.until(lambda: the_copy(story, "c").loss_count == 4 and story.runner("j") == "c")
    story.lose_worker("j", on="c")
    story.until(lambda: story.is_told("j"))
    assert end(story.read("j", "b")) is State.FAILED
    story.heal_and_judge()
    assert story.starts("j") == 6


def test_suspected_owner_and_successor_both_start() -> None:
    """Both started it, and the count says so; but nobody died of it, and so nothing is held against it."""
    story = running("abc", options=Options(max_losses=2))
    story.cut("a", "bc")
    story.until(lambda: story.runner("j") == "b")
    assert the_copy(story, "b").loss_count == 1
    story.mend()
    story.until(lambda: [the_copy(story, each).loss_count for each in "abc"] == [0, 0, 0])
    assert the_copy(story, "b").start_count == 2
    story.kill("b")
    story.until(lambda: story.runs("j"))  # the first true loss
    story.finish("j")
    story.heal_and_judge()
    assert story.starts("j") == 3


@pytest.mark.parametrize(
    ("bug", "story"),
    [
        (the_past_is_refused, test_expired_while_all_off),
        (own_clock_is_believed, test_clock_jump_owner),
        (the_forgotten_is_taken, test_what_was_forgotten_does_not_come_back),
        (any_clock_ends_jobs, test_expired_elsewhere_slow_clock),
        (pauses_are_days, test_backoff_then_takeover),
        (losses_by_number, test_poison_on_both_sides),
        (silence_counts_for_ever, test_suspected_owner_and_successor_both_start),
    ],
)
def test_a_story_fails_without_its_rule(bug: Bug, story: Callable[[], None]) -> None:
    with planted(bug), pytest.raises(AssertionError):
        story()
