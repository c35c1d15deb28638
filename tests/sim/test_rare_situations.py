"""Situations that seeds reach seldom: a story each, so that the suite reaches them every time."""

from __future__ import annotations

from sim_stories import ONCE, busy, owner, queued, running, the_copy

from edgenode.core.node import Node
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.situations import Situation
from edgenode.core.specs import Options
from edgenode.core.types import Partition, State
from edgenode.core.wire import Acks, Copies, Gift, Grant, Offer, Promises, Taken, Write
from edgenode.sim.scenario import Scenario

SOON = Settings(jobs=JobSettings(rereplicate_after_s=1.0))
COURTEOUS = Options(max_losses=9)


def granted(names: str = "abc") -> Scenario:
    """Job j belongs to a, which has no slot free, and runs on another node."""
    story = busy(names, "a")
    story.submit("j", at="a", holders=names, options=COURTEOUS)
    story.until(lambda: story.runs("j"))
    return story


def grant_lost(names: str, which: str, *, to: str) -> Scenario:
    """All of `which` are busy: a owns job j, and grants it to another node, which never hears of it."""
    story = busy(names, which)
    story.lose(Grant, source="a", to=to)
    story.submit("j", at="a", holders=names[:3], options=COURTEOUS)
    story.until(lambda: story.lost(Grant))
    return story


def test_a_gift_is_taken_while_its_giver_lives() -> None:
    story = queued("abc")
    story.lose(Gift, source="a", to="b")
    story.leave("a")
    story.until(lambda: Situation.GIFT_REPEATED in story.reached)
    story.lose_nothing()
    story.until(lambda: Situation.GIFT_TAKEN in story.reached)
    story.heal_and_judge()


def test_a_gift_is_interrupted_by_the_death_of_its_giver() -> None:
    story = queued("abc")
    story.lose(Promises, source="a", to="b")
    story.lose(Promises, source="c", to="b")
    story.leave("a")
    story.until(lambda: story.lost(Promises))
    story.kill("a")
    story.lose_nothing()
    story.until(lambda: Situation.GIFT_OUTLIVES_GIVER in story.reached)
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_a_gift_without_a_copy_is_fetched() -> None:
    story = busy("abc", "a")
    for kind in (Write, Copies, Grant):
        story.lose(kind, source="a", to="b")
        story.lose(kind, source="a", to="c")
    story.lose(Offer, source="c", to="b")
    story.submit("j", at="a", holders="abc", acks=1)
    story.until(lambda: story.is_acknowledged("j"))
    story.leave("a")
    story.until(lambda: Situation.GIFT_WITHOUT_COPY in story.reached)
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_an_old_gift_moves_nothing() -> None:
    story = queued("abc")
    story.leave("a")
    story.until(lambda: Situation.GIFT_TAKEN in story.reached)
    story.until(lambda: owner(story, "c") == "b")
    story.kill("b")
    story.until(lambda: owner(story, "c") == "c")
    story.restart("b")
    story.wait(2.0)
    for receiver in "bc":  # one of them owns the job now, and the other has been given it before
        story.repeat(Gift, source="a", to=receiver)
    story.until(lambda: Situation.GIFT_STALE in story.reached)
    story.heal_and_judge()


def test_a_gift_of_a_finished_job_is_answered_with_its_end() -> None:
    story = queued("abc")
    story.leave("a")
    story.until(lambda: Situation.GIFT_TAKEN in story.reached)
    story.finish("of b")
    story.until(lambda: story.runs("j"))
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.repeat(Gift, source="a", to="b")
    story.until(lambda: Situation.GIFT_OF_SETTLED in story.reached)
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_the_last_node_does_not_leave_for_good() -> None:
    story = Scenario("a", Node)
    story.submit("j", at="a", holders="a")
    story.until(lambda: story.runs("j"))
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.leave("a")
    story.until(lambda: {Situation.LEAVER_STRANDED, Situation.LEFT_WHILE_NEEDED} <= story.reached)
    story.heal_and_judge()


def test_what_a_stopped_runner_had_is_lost_without_blame() -> None:
    story = granted()
    story.stop(story.runner("j"))
    story.until(lambda: Situation.START_DENIED in story.reached)
    story.heal_and_judge()
    copy = the_copy(story, "a")
    assert not copy.losses


def test_a_start_granted_to_a_node_that_left_is_lost_without_blame() -> None:
    story = grant_lost("abcd", "abc", to="d")
    story.leave("d")
    story.until(lambda: Situation.RUNNER_LEFT in story.reached)
    story.heal_and_judge()
    copy = the_copy(story, "a")
    assert not copy.losses


def test_a_grant_under_a_ballot_that_is_over_starts_nothing() -> None:
    story = grant_lost("ab", "a", to="b")
    story.kill("a")
    story.until(lambda: owner(story, "b") == "b")
    story.deliver_late()
    story.until(lambda: Situation.GRANT_AFTER_THE_END in story.reached)
    story.heal_and_judge()


def test_a_grant_to_an_earlier_life_starts_nothing() -> None:
    story = grant_lost("ab", "a", to="b")
    story.kill("b")
    story.restart("b")
    story.deliver_late()
    story.until(lambda: Situation.GRANT_TO_EARLIER_LIFE in story.reached)
    story.heal_and_judge()


def test_a_grant_that_waited_while_its_runner_stood_still_starts_nothing() -> None:
    """Its owner has given that start up, and begun another: the two would run at the same time."""
    story = grant_lost("ab", "a", to="b")
    story.pause("b")
    story.deliver_late()
    story.finish("of a")
    story.until(lambda: story.runner("j") == "a")
    story.resume("b")
    story.until(lambda: Situation.GRANT_AFTER_A_STALL in story.reached)
    assert [runner for runner, _ in story.runs("j")] == ["a"]
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_a_grant_of_a_start_that_is_spent_starts_nothing() -> None:
    story = granted("ab")
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.wait(1.0)
    story.repeat(Grant, source="a", to="b")
    story.until(lambda: Situation.GRANT_DENIED_BEFORE in story.reached)
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_a_firm_owner_makes_the_end_that_another_side_found_its_own() -> None:
    story = Scenario("abc", Node)
    story.submit("j", at="a", holders="abc")
    story.until(lambda: story.runs("j"))
    story.cut("a", "bc")
    story.until(lambda: story.runner("j") == "b")
    story.finish("j", on="a")
    story.mend()
    story.until(lambda: Situation.OUTCOME_OF_ANOTHER_SIDE in story.reached)
    story.until(lambda: not story.runs("j"))
    story.heal_and_judge()


def test_a_late_promise_brings_the_end_of_what_runs() -> None:
    story = Scenario("ab", Node)
    story.submit("j", at="a", holders="ab")
    story.until(lambda: story.is_acknowledged("j") and story.runs("j"))
    for kind in (Write, Copies, Offer):
        story.lose(kind, source="a", to="b")
        story.lose(kind, source="b", to="a")
    story.finish("j")
    story.cut("a", "b")
    story.until(lambda: story.runner("j") == "b")
    story.mend()
    story.until(lambda: Situation.LATE_PROMISE_BRINGS_OUTCOME in story.reached)
    story.until(lambda: not story.runs("j"))
    story.heal_and_judge()
    copy = the_copy(story, "b")
    assert copy.outcome is not None
    assert copy.outcome.token.owner == story.machine("a").id


def test_a_start_that_was_called_lost_may_still_succeed() -> None:
    story = granted("ab")
    story.cut("a", "b")
    story.until(lambda: (copy := story.copy("j", "a")) is not None and copy.state is State.QUEUED)
    story.finish("j", on="b")
    story.mend()
    story.until(lambda: Situation.LOST_START_SUCCEEDS in story.reached)
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_a_job_goes_on_although_too_few_holders_are_left_to_decide_who_follows_them() -> None:
    """One of two holders lost its disk for good: others are wanted, and nobody can decide so."""
    story = Scenario("abc", Node, settings=Settings(jobs=JobSettings(replicas=2, rereplicate_after_s=1.0)))
    story.submit("j", at="a", holders="ab", acks=2)
    story.until(lambda: story.is_acknowledged("j"))
    story.until(lambda: story.runs("j"))
    story.kill("b")
    story.wipe("b", reborn="d")
    story.until(lambda: Situation.MOVE_POSTPONED in story.reached)
    story.finish("j")
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_a_job_goes_on_when_the_holders_die_that_were_to_decide_who_follows_them() -> None:
    """A proposal of other holders stops everything else; so it must not wait for ever."""
    story = running("abcd", holders="abc", acks=3, settings=SOON)
    story.lose(Acks, source="b", to="a")
    story.kill("c")
    story.until(lambda: Situation.MOVE_PROPOSED in story.reached)
    story.kill("b")
    story.until(lambda: Situation.MOVE_UNDECIDABLE in story.reached)
    story.wipe("b", reborn="e")
    story.wipe("c", reborn="f")
    story.heal_and_judge()


def test_the_only_holder_of_a_job_leaves_and_another_node_goes_on_with_it() -> None:
    story = busy("abc", settings=Settings(jobs=JobSettings(replicas=1)))
    story.submit("j", at="a", holders="a")
    story.until(lambda: story.is_acknowledged("j"))
    story.leave("a")
    story.until(lambda: Situation.EPOCH_HANDED_ON in story.reached)
    story.finish("of a")
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_a_firm_owner_goes_on_with_a_proposal_of_holders_that_it_hears_of_late() -> None:
    story = running("abcd", holders="abc", acks=3, settings=SOON)
    story.kill("c")
    story.until(lambda: Situation.NEWCOMER_WANTED in story.reached)
    for kind in (Write, Copies, Offer):
        story.lose(kind, source="a", to="b")
        story.lose(kind, source="d", to="b")  # the newcomer, which has the proposal, too
    story.until(lambda: Situation.MOVE_PROPOSED in story.reached)
    story.wait(0.5)
    story.power_off("a")
    story.restart("c")
    story.until(lambda: Situation.TAKEOVER_FIRM in story.reached)
    story.lose_nothing()
    story.restart("a")
    story.until(lambda: Situation.MOVE_OF_ANOTHER_SIDE in story.reached)
    story.heal_and_judge()


def test_a_holder_promises_nothing_in_an_epoch_whose_record_it_has_not() -> None:
    """B decided with a that d takes c's place, and has not seen what came of it; then d asks it in the new
    epoch, and dies before b has that record. With a and c, b can still decide the job."""
    story = running("abcd", holders="abcd", acks=3, settings=SOON)
    story.kill("c")
    story.until(lambda: Situation.EPOCH_BEGUN in story.reached)
    for kind in (Write, Copies, Offer):
        story.lose(kind, source="a", to="b")
        story.lose(kind, source="d", to="b")
    story.wait(0.2)
    story.kill("a")
    story.pause("b")
    story.until(lambda: owner(story, "d") == "d")
    story.resume("b")
    story.until(lambda: Situation.ASKED_FROM_LATER_EPOCH in story.reached)
    story.wait(0.1)
    story.kill("d")
    story.heal_and_judge()


def test_the_only_holder_leaves_with_the_end_of_a_job_that_was_copied_while_it_ran() -> None:
    """Who took the copy while it ran has to have the end as well before its holder may go."""
    story = Scenario("ab", Node, settings=Settings(jobs=JobSettings(replicas=1)))
    story.submit("j", at="a", holders="a")
    story.until(lambda: story.is_acknowledged("j") and story.runs("j"))
    story.leave("a")
    story.until(lambda: story.said("b", Taken))
    story.wait(0.1)
    story.finish("j")
    story.until(lambda: story.machine("a").gone == "left")
    copy = story.copy("j", "b")
    assert copy is not None
    assert copy.settled
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_a_careful_start_that_no_majority_hears_of_is_given_up() -> None:
    story = queued("abc", options=Options(partition=Partition.WAIT))
    story.cut("a", "bc")
    story.finish("of a")
    story.until(lambda: Situation.GATE_GIVEN_UP in story.reached)
    assert "a" not in story.runs("j")
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_a_careful_job_is_not_even_tried_on_a_minority() -> None:
    story = queued("abc", options=Options(partition=Partition.WAIT))
    story.cut("a", "bc")
    story.wait(4.0)
    story.finish("of a")
    story.until(lambda: Situation.CAREFUL_JOB_STRANDED in story.reached)
    story.heal_and_judge()
    assert Situation.GATE_GIVEN_UP not in story.reached
    assert story.starts("j") == 1


def test_a_start_that_takes_longer_than_its_node_may_drain_is_another_ones_to_make() -> None:
    story = running("abc")
    story.drain("a", at="b", limit_s=1.0)
    story.until(lambda: Situation.DRAIN_GAVE_UP_START in story.reached, within_s=3.0)
    story.until(lambda: story.runner("j") == "b")
    assert the_copy(story, "b").loss_count == 0
    story.finish("j")
    story.heal_and_judge()
    assert story.starts("j") == 2


def test_a_job_that_may_have_run_once_is_not_called_lost_by_who_has_no_majority() -> None:
    story = running("abc", options=ONCE)
    story.cut("b", "ac")
    story.until(lambda: Situation.ONCE_ONLY_UNDECIDED in story.reached, within_s=20.0)
    assert the_copy(story, "b").outcome is None
    story.finish("j")
    story.heal_and_judge()
    assert story.starts("j") == 1
    assert the_copy(story, "b").state is State.SUCCEEDED
