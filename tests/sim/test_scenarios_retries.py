"""Stories of attempts: how often, when and where a job is tried again, whoever owns it by then."""

from __future__ import annotations

import pytest
from sim_stories import busy, end, owner, running, the_copy

from edgenode.core.node import Node
from edgenode.core.situations import Situation
from edgenode.core.specs import Backoff, Options
from edgenode.core.types import Seconds, State
from edgenode.sim.clock import EPOCH
from edgenode.sim.scenario import Scenario

PATIENT = Options(max_attempts=4, backoff=Backoff("constant", base_s=0.2))


def dies_in_the_pause(story: Scenario) -> Seconds:
    """The owner has noted a failure. It dies; when its successor starts the job, in seconds since now."""
    at = story.world.now
    story.wait(0.5)
    story.kill("a")
    story.until(lambda: story.runner("j") == "b", within_s=20.0)
    return story.world.now - at


@pytest.mark.parametrize("after_s", [0.0, 3.0, 8.0])
def test_a_job_that_asked_for_a_pause_has_it_though_its_owner_dies(after_s: Seconds) -> None:
    story = running("abc", options=PATIENT)
    story.fail("j", retry_after_s=after_s)
    if after_s:
        assert after_s - 0.1 < dies_in_the_pause(story) < after_s + 0.5
    else:
        story.until(lambda: story.runner("j") == "a", within_s=0.2)
    story.finish("j")
    story.heal_and_judge()
    assert story.starts("j") == 2
    assert end(story.read("j", "c")) is State.SUCCEEDED


def fails_behind_a_cut(which: str) -> tuple[Scenario, Seconds]:
    """A and B own the job, on two sides of a cut, and its start on A asks for a pause of 60 s. B's line of
    owners stands, and has heard of that by now. `which` are busy: if B is, the job waits there for a slot.

    Returns: the story, and when the pause ends.
    """
    story = busy("abcde", which)
    story.submit("j", at="a", holders="abc", options=PATIENT)
    story.until(lambda: story.is_acknowledged("j") and story.runner("j") == "a")
    story.cut("a", "bcde")
    story.until(
        lambda: owner(story, "b") == "b" and ("b" in which or story.runner("j") == "b"), within_s=20.0
    )
    story.fail("j", retry_after_s=60.0, on="a")
    ends = story.world.now + 60.0
    story.mend()
    story.until(lambda: the_copy(story, "b").failure_count == 1, within_s=20.0)
    return story, ends


def keeps_to_the_pause(story: Scenario, ends: Seconds, which: str) -> None:
    story.until(lambda: the_copy(story, "b").state is State.SCHEDULED, within_s=1.0)
    assert Situation.PAUSE_OF_ANOTHER_LINE in story.reached
    assert owner(story, "b") == "b"
    assert the_copy(story, "b").own.due_at == pytest.approx(EPOCH + ends, abs=0.5)
    for each in which:
        story.finish(f"of {each}")
    before = story.starts("j")
    story.until(lambda: story.starts("j") > before, within_s=90.0)
    assert story.world.now == pytest.approx(ends, abs=1.0)
    story.heal_and_judge()
    assert story.starts("j") == before + 1


def test_a_pause_that_was_asked_for_on_the_other_side_of_a_cut_is_kept_to_when_a_start_is_lost() -> None:
    story, ends = fails_behind_a_cut("de")
    story.lose_worker("j", on="b")
    keeps_to_the_pause(story, ends, "de")


def test_a_pause_that_was_asked_for_on_the_other_side_of_a_cut_is_kept_to_by_a_job_that_is_queued() -> None:
    story, ends = fails_behind_a_cut("bcde")
    keeps_to_the_pause(story, ends, "bcde")


def test_a_drawn_pause_is_drawn_once_for_all_owners() -> None:
    """Full jitter: a successor that drew anew could begin sooner than the others were told."""
    story = running(
        "abc", options=Options(max_attempts=4, backoff=Backoff("exponential", base_s=60.0, cap_s=9.0))
    )
    story.fail("j")
    story.until(lambda: all(the_copy(story, each).state is State.SCHEDULED for each in "abc"), within_s=0.5)
    pauses = {round(the_copy(story, each).own.due_at - EPOCH - story.world.now, 3) for each in "abc"}
    (pause_s,) = pauses
    assert 0.6 < pause_s < 9.0
    assert pause_s - 0.1 < dies_in_the_pause(story) < pause_s + 0.5
    story.finish("j")
    story.heal_and_judge()
    assert story.starts("j") == 2


def test_attempts_are_counted_over_all_owners() -> None:
    story = running("abcd", options=PATIENT)
    for first, successor in ("ab", "bc"):
        story.fail("j")
        story.until(lambda first=first: story.runner("j") == first)  # type: ignore[misc]
        story.wait(0.5)
        story.kill(first)
        story.until(lambda successor=successor: story.runner("j") == successor)  # type: ignore[misc]
        story.wait(0.5)
    for failures in (3, 4):
        assert the_copy(story, "c").failure_count == failures - 1
        story.fail("j")
        story.until(lambda failures=failures: the_copy(story, "c").failure_count == failures)  # type: ignore[misc]
        if failures < 4:
            story.until(lambda: story.runner("j") == "c")
    assert the_copy(story, "c").state is State.FAILED
    story.heal_and_judge()
    assert end(story.read("j", "d")) is State.FAILED
    assert story.starts("j") == 6, "four that failed, and two whose runners died"
    assert the_copy(story, "c").loss_count == 2


def test_what_a_task_calls_final_is_tried_by_no_successor() -> None:
    story = running("abc", options=PATIENT)
    story.fail("j", final=True)
    story.until(lambda: story.is_told("j"), within_s=1.0)
    assert end(story.read("j", "b")) is State.FAILED
    story.kill("a")
    story.wait(10.0)
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_a_job_waits_for_a_node_with_its_labels_whoever_owns_it() -> None:
    story = Scenario("abc", Node)
    gpu = (("gpu", ""), ("zone", "east"))
    story.submit("j", at="a", holders="abc", options=Options(requires=(("gpu", ""),)))
    story.until(lambda: story.is_acknowledged("j"))
    story.wait(5.0)
    assert not story.starts("j")
    story.join("d", labels=(("zone", "east"),))
    story.wait(5.0)
    assert not story.starts("j"), "another label"
    story.join("e", labels=gpu)
    story.until(lambda: story.runner("j") == "e", within_s=5.0)
    story.kill("a")  # a successor goes on with what runs, by its copy
    story.until(
        lambda: the_copy(story, "b").owner == the_copy(story, "c").owner != the_copy(story, "a").owner
    )
    assert story.runner("j") == "e"
    story.kill("e")
    story.wait(5.0)
    assert not story.runs("j")
    story.join("f", labels=gpu)
    story.until(lambda: story.runner("j") == "f", within_s=5.0)
    story.finish("j")
    story.heal_and_judge()
    assert story.starts("j") == 2
