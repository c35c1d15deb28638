"""Stories of cancels: what a client's wish does to a job that waits, runs, moves or ends meanwhile."""

from __future__ import annotations

from sim_stories import busy, end, queued, running, the_copy

from edgenode.core.node import Node
from edgenode.core.situations import Situation
from edgenode.core.types import State
from edgenode.core.wire import Cancel, Copies, Stop, Write
from edgenode.sim.scenario import Scenario


def cancelled_at(story: Scenario, *names: str) -> bool:
    copies = [story.copy("j", name) for name in names]
    return all(copy is not None and copy.settled and copy.state is State.CANCELLED for copy in copies)


def test_a_job_that_waits_is_cancelled_at_once_and_never_starts() -> None:
    story = queued("abc")
    story.cancel("j", at="c", holders="abc")
    story.until(lambda: cancelled_at(story, "a", "b", "c"), within_s=2.0)
    assert story.is_cancel_noted("j")
    story.heal_and_judge()
    assert story.starts("j") == 0


def test_a_job_that_runs_is_cancelled_at_once_and_its_start_is_stopped() -> None:
    story = running("abc")
    story.cancel("j", at="b", holders="abc")
    story.until(lambda: cancelled_at(story, "a", "b", "c"), within_s=2.0)
    assert Situation.START_STOPPED in story.reached
    story.heal_and_judge()
    assert end(story.read("j", "c")) is State.CANCELLED


def test_a_cancel_that_the_owner_never_heard_of_is_found_by_its_successor() -> None:
    story = running("abc")
    for holder in "bc":
        story.lose(Copies, source=holder, to="a")
    story.lose(Cancel, source="b", to="a")
    story.cancel("j", at="b", holders="abc")
    story.until(lambda: story.is_cancel_noted("j"))
    assert the_copy(story, "a").outcome is None
    story.power_off("a")
    story.lose_nothing()
    story.until(lambda: cancelled_at(story, "b", "c"))
    assert Situation.CANCEL_INHERITED in story.reached
    story.heal_and_judge()
    assert story.starts("j") == 1


def on_a_stranger() -> Scenario:
    """Job j is a's, and runs on d, which does not hold it."""
    story = busy("abcd", "abc")
    story.submit("j", at="a", holders="abc")
    story.until(lambda: story.is_acknowledged("j") and story.runs("j"))
    assert story.runner("j") == "d"
    return story


def test_a_start_on_a_node_that_does_not_hold_its_job_is_stopped_by_the_owners_successor() -> None:
    story = on_a_stranger()
    for holder in "bc":
        story.lose(Copies, source=holder, to="a")
    story.lose(Cancel, source="b", to="a")
    story.cancel("j", at="b", holders="abc")
    story.until(lambda: story.is_cancel_noted("j"))
    story.power_off("a")
    story.lose_nothing()
    story.until(lambda: cancelled_at(story, "b", "c"))
    story.until(lambda: not story.runs("j"), within_s=3.0)
    story.heal_and_judge()


def test_a_stop_that_is_lost_is_said_again() -> None:
    story = on_a_stranger()
    story.lose(Stop, source="a", to="d")
    story.cancel("j", at="b", holders="abc")
    story.until(lambda: story.lost(Stop))
    assert story.runs("j")
    story.lose_nothing()
    story.until(lambda: not story.runs("j"), within_s=3.0)
    assert Situation.STOP_REPEATED in story.reached
    story.wait(5.0)
    said = story.said("a", Stop)
    story.wait(30.0)
    assert story.said("a", Stop) == said, "once the runner has said that it is over nobody goes on about it"
    story.heal_and_judge()


def test_a_stop_for_a_node_that_is_cut_off_is_said_when_that_is_back() -> None:
    story = on_a_stranger()
    story.cut("d", "abc")
    story.cancel("j", at="b", holders="abc")
    story.until(lambda: cancelled_at(story, "a", "b", "c"))
    story.wait(30.0)
    assert story.runs("j")
    story.mend()
    story.until(lambda: not story.runs("j"), within_s=3.0)
    assert Situation.STOP_AFTER_SILENCE in story.reached
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_an_owner_that_died_before_it_could_stop_what_it_cancelled_does_so_when_it_is_back() -> None:
    story = on_a_stranger()
    story.lose(Stop, source="a", to="d")
    for holder in "bc":
        story.lose(Write, source="a", to=holder)
    story.cancel("j", at="a", holders="abc")
    story.until(lambda: the_copy(story, "a").state is State.CANCELLED)
    story.power_off("a")
    story.lose_nothing()
    story.restart("a")
    story.until(lambda: not story.runs("j"), within_s=10.0)
    story.heal_and_judge()


def test_a_cancel_that_comes_after_the_end_changes_nothing() -> None:
    story = running("abc")
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.cancel("j", at="b", holders="abc")
    story.until(lambda: story.is_cancel_noted("j"))
    story.heal_and_judge()
    assert {end(story.read("j", name)) for name in "abc"} == {State.SUCCEEDED}


def test_a_cancel_against_a_finish_has_one_winner() -> None:
    """On its side of the cut the owner finishes, which is not settled; on the other side, where the majority
    is, the job is cancelled, which is."""
    story = running("abc")
    story.cut("a", "bc")
    story.cancel("j", at="b", holders="abc")
    story.until(lambda: story.is_cancel_noted("j"))
    story.finish("j", on="a")
    story.until(lambda: cancelled_at(story, "b", "c"))
    story.mend()
    story.until(lambda: cancelled_at(story, "a", "b", "c"))
    story.heal_and_judge()


def test_on_an_island_a_cancel_is_safe_when_all_holders_there_have_noted_it() -> None:
    story = running("abc")
    story.kill("b", "c")
    story.cancel("j", at="a", holders="abc")
    story.until(lambda: story.is_cancel_noted("j"))
    story.until(lambda: the_copy(story, "a").state is State.CANCELLED)
    story.heal_and_judge()
    assert end(story.read("j", "b")) is State.CANCELLED


def test_a_cancel_of_a_job_whose_holders_are_all_gone_is_not_called_safe() -> None:
    story = Scenario("abcd", Node)
    story.submit("j", at="a", holders="abc")
    story.until(lambda: story.is_acknowledged("j"))
    story.power_off("a", "b", "c")
    story.wait(5.0)
    story.cancel("j", at="d", holders="abc")
    story.wait(15.0)
    assert not story.is_cancel_noted("j")
    story.heal_and_judge()
