"""Stories about disks that are full, or give back other bytes than they got. Each ends healed and judged."""

from __future__ import annotations

from sim_stories import end, running, the_copy

from edgenode.core.node import Node
from edgenode.core.situations import Situation
from edgenode.core.specs import Options
from edgenode.core.types import State
from edgenode.core.wire import Ask, Copies, Promises, Write
from edgenode.sim.machines import node_id
from edgenode.sim.scenario import Scenario
from edgenode.sim.story import short


def has_end(story: Scenario, name: str) -> bool:
    copy = story.copy("j", name)
    return copy is not None and copy.settled


def test_damaged_row_asked() -> None:
    """Nobody knows what a damaged row had promised: asked for a promise, that holder refuses, whatever copy
    it has by then. So c, alone of three, settles nothing."""
    story = running("abc", options=Options(max_losses=9))
    story.kill("b")
    story.damage("b", "j")
    story.restart("b")
    story.until(lambda: story.copy("j", "b") is not None)  # fetched again, to be shown
    story.kill("a")
    story.until(lambda: story.runner("j") == "c", within_s=15.0)
    story.finish("j")
    story.wait(5.0)
    assert not the_copy(story, "c").settled
    assert not story.said("b", Promises)
    story.restart("a")
    story.until(lambda: story.is_told("j"))
    assert end(story.read("j", "b")) is State.SUCCEEDED
    story.heal_and_judge()


def test_a_holder_whose_row_is_damaged_does_not_hold_up_a_change_of_holders() -> None:
    """C joins a and b, and is to hold j too; a and b cannot decide so, since b's row does not vote. The job
    goes on all the same, unsettled."""
    story = Scenario("abc", Node)
    story.kill("c")
    story.wait(3.0)
    story.submit("j", at="a", holders="ab")
    story.until(lambda: story.is_acknowledged("j") and story.runs("j"))
    story.damage("b", "j")
    story.restart("c")
    story.until(lambda: Situation.MOVE_PROPOSED in story.reached)
    story.finish("j")
    story.until(lambda: the_copy(story, "a").outcome is not None, within_s=20.0)
    assert Situation.MOVE_UNDECIDABLE in story.reached
    assert story.starts("j") == 1
    story.heal_and_judge()


def test_an_owner_that_has_no_vote_any_more_gives_way_when_others_have_promised_its_job() -> None:
    """A went on alone, and lost its row. B, back again, promises the job to c, which gives up: it hears of
    a. Then a, refused by both, cannot ask again, and all would wait for it for ever. (Found by seed 5038.)"""
    story = running("abc", at="c", holders="cab", options=Options(max_losses=9))
    story.kill("b", "c")
    story.until(lambda: story.runner("j") == "a", within_s=15.0)
    story.damage("a", "j")
    for name in "bc":  # so long that c asks before it hears of a
        story.lose(Ask, source="a", to=name)
        story.lose(Write, source="a", to=name)
    story.lose(Promises, source="b", to="c")
    story.restart("b", "c")
    story.until(lambda: story.lost(Promises))
    story.lose_nothing()
    story.finish("j", on="a")
    story.until(lambda: story.is_told("j"))
    story.heal_and_judge()
    assert Situation.OWNER_REFUSED_BY_PROMISE in story.reached
    assert the_copy(story, "a").own.ballot.owner != node_id("a")


def test_a_row_that_was_being_mended_is_offered_to_who_came_meanwhile() -> None:
    """c was away when j ended. When it is back it is for a, the first holder, to offer it j, as b believes;
    but a has lost its row, and fetches it only later."""
    story = running("abcd")
    story.kill("c")
    story.finish("j")
    story.until(lambda: story.is_told("j") and the_copy(story, "b").settled)
    story.kill("a")
    story.damage("a", "j")
    story.lose(Copies, source="b", to="a")
    story.restart("a")
    story.restart("c")
    story.wait(3.0)
    assert not has_end(story, "a")
    assert not has_end(story, "c")
    story.lose_nothing()
    story.until(lambda: has_end(story, "a") and has_end(story, "c"))
    story.heal_and_judge()


def test_owner_disk_full() -> None:
    """An owner that lives and cannot write gives its job up: the next holder has it within a moment."""
    story = running("abc")
    story.fill_disk("a")
    story.submit("k", at="b", holders="abc")  # the write that fails
    story.until(lambda: story.runner("j") == "b", within_s=2.0)
    assert Situation.OWNER_CANNOT_STORE in story.reached
    assert story.lives("a")
    story.until(lambda: story.is_acknowledged("k"))
    assert "a" not in story.receipt("k")
    story.finish("j", on="b")
    story.until(lambda: story.is_told("j"))
    assert end(story.read("j", "a")) is State.SUCCEEDED
    story.make_room("a")
    story.until(lambda: story.is_ready("a"))
    assert short(the_copy(story, "b").owner) == "b"
    story.heal_and_judge()
    assert story.starts("j") == 2
