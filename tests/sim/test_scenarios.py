"""Stories that broke earlier versions of the protocol, on production cores. Each ends healed and judged."""

from __future__ import annotations

import pytest
from sim_stories import ONCE, busy, end, queued, running, the_copy

from edgenode.core.jobs import Record
from edgenode.core.node import Node
from edgenode.core.specs import Options
from edgenode.core.types import Partition, State
from edgenode.core.wire import (
    Acks,
    Ask,
    Copies,
    Grant,
    Marks,
    Promises,
    Result,
    ResultTaken,
    Submit,
    Submitted,
    Write,
)
from edgenode.sim.scenario import Scenario

CAREFUL = Options(partition=Partition.WAIT)


def test_a_job_runs_once_and_every_node_shows_its_end() -> None:
    story = running("abc")
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    assert [end(story.read("j", each)) for each in "abc"] == [State.SUCCEEDED] * 3
    assert story.starts("j") == 1
    story.heal_and_judge()


def test_an_owner_that_is_killed_is_replaced_by_the_next_in_rank() -> None:
    story = running("abc")
    story.kill("a")
    story.until(lambda: story.runner("j") == "b", within_s=2.0)
    story.finish("j")
    story.heal_and_judge()
    assert story.starts("j") == 2


def test_grant_lost() -> None:
    """The owner has no slot and grants; nobody hears of it. The start must not run on X for ever."""
    story = busy("ab", "a")
    story.lose(Grant, source="a", to="b")
    story.submit("j", at="a", holders="ab")
    story.until(lambda: story.lost(Grant))
    story.lose_nothing()
    story.until(lambda: story.runs("j"))
    story.finish("j")
    story.finish("of a")
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_grant_duplicated_after_finish() -> None:
    story = busy("ab", "a")
    story.submit("j", at="a", holders="ab")
    story.until(lambda: story.runner("j") == "b")
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.repeat(Grant, source="a", to="b")
    story.wait(1.0)
    assert not story.runs("j")
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_reboot_faster_than_detection_of_the_owner() -> None:
    story = running("abc")
    story.kill("a")
    story.restart("a")
    story.until(lambda: story.runs("j"))
    assert story.starts("j") == 2
    story.finish("j")
    story.heal_and_judge()


def test_reboot_faster_than_detection_of_the_runner() -> None:
    story = busy("ab", "a")
    story.submit("j", at="a", holders="ab")
    story.until(lambda: story.runner("j") == "b")
    story.kill("b")
    story.restart("b")
    story.until(lambda: story.runs("j"))
    story.finish("j")
    story.heal_and_judge()
    assert story.starts("j") == 2


def test_owner_crash_before_own_fsync_after_told() -> None:
    """Two others may have the end on disk while the owner has not: it must not run the job again."""
    story = running("abc")
    story.slow_disk("a")
    story.finish("j")
    story.wait(1.0)
    assert not story.is_told("j"), "told what is not on the owner's disk"
    story.kill("a")
    story.quick_disk("a")
    story.restart("a")
    story.wait(3.0)
    story.heal_and_judge()


def test_an_end_that_is_on_two_disks_is_adopted_by_an_owner_that_lost_its_own_memory() -> None:
    story = running("abc")
    story.lose(Acks, source="b", to="a")
    story.lose(Acks, source="c", to="a")
    story.finish("j")
    story.wait(0.3)
    story.kill("a")
    story.until(lambda: story.is_told("j"))
    story.restart("a")
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_wiped_owner() -> None:
    """An empty disk is a new member: it owns nothing, and does not vote for the old one."""
    story = running("abc")
    story.kill("a")
    story.wipe("a", reborn="d")
    story.until(lambda: story.runs("j"))
    story.finish("j")
    story.heal_and_judge()


def test_slow_survivor_during_takeover() -> None:
    """A successor does not wait for ever for a holder that is too slow to answer."""
    story = running("abc")
    story.pause("c")
    story.kill("a")
    story.until(lambda: story.runner("j") == "b", within_s=15.0)
    story.resume("c")
    story.wait(2.0)
    story.finish("j", on="b")
    story.heal_and_judge()


def test_two_holders_die_one_after_another() -> None:
    """The last one finishes alone, then dies too: the others come back first, and it last."""
    story = running("abc")
    story.kill("a")
    story.until(lambda: story.runner("j") == "b")
    story.kill("b")
    story.until(lambda: story.runner("j") == "c")
    story.finish("j")
    story.wait(1.0)
    story.kill("c")
    story.restart("a")
    story.restart("b")
    story.wait(8.0)
    story.restart("c")
    story.heal_and_judge()


def test_one_way_cut() -> None:
    """A hears everybody, and nobody hears a: ownership does not move to and fro."""
    story = running("abc")
    story.cut("a", "bc", one_way=True)
    story.wait(15.0)
    assert story.starts("j") <= 2
    story.mend()
    story.wait(3.0)
    copy = the_copy(story, "b")
    assert copy.ballot.term <= 6
    story.heal_and_judge()


def test_orphan_promise() -> None:
    """A successor asks, gets a promise, and dies; the owner lives, and must be able to finish."""
    story = running("abc")
    story.cut("a", "bc")
    story.lose(Promises, source="c", to="b")
    story.until(lambda: story.lost(Promises))
    story.kill("b")
    story.mend()
    story.lose_nothing()
    story.finish("j", on="a")
    story.until(lambda: story.is_told("j"))
    story.heal_and_judge()


def test_zombie_finishes_after_firm_takeover() -> None:
    story = running("abc")
    story.pause("a")
    story.until(lambda: story.runner("j") == "b")
    story.finish("j", on="b")
    story.until(lambda: story.is_told("j"))
    story.finish("j", on="a")
    story.resume("a")
    story.wait(3.0)
    assert end(story.read("j", "a")) is State.SUCCEEDED
    story.heal_and_judge()
    assert story.starts("j") == 2


def test_a_zombie_that_wakes_before_the_successor_has_finished_gives_way() -> None:
    story = running("abc")
    story.pause("a")
    story.until(lambda: story.runner("j") == "b")
    story.resume("a")
    story.until(lambda: all(where != "a" for where, _ in story.runs("j")))
    story.finish("j", on="b")
    story.heal_and_judge()
    assert story.starts("j") == 2


def test_late_duplicate_submit_after_settled() -> None:
    story = Scenario("abc", Node)
    story.submit("j", at="b", holders="acb")
    story.until(lambda: story.runs("j"))
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.repeat(Submit, source="b", to="a")
    story.wait(3.0)
    assert not story.runs("j")
    assert story.starts("j") == 1
    story.heal_and_judge()


@pytest.mark.parametrize("options", [Options(), CAREFUL, ONCE])
def test_two_node_mesh_one_gone(options: Options) -> None:
    """Half of two holders is no majority: the job runs on, unsettled; a careful one waits for its peer."""
    story = running("ab", holders="ab", options=options)
    story.kill("a")
    story.wait(8.0)
    assert bool(story.runs("j")) is (options == Options())
    if story.runs("j"):
        story.finish("j")
        story.wait(1.0)
        found = story.read("j", "b")
        assert isinstance(found, Record)
        assert (found.state, found.settled) == (State.SUCCEEDED, False)
    story.restart("a")
    story.heal_and_judge()


def test_ack_of_unsynced_duplicate() -> None:
    """A write that comes twice while the first is being synced is acknowledged when the sync is done."""
    story = Scenario("abc", Node)
    story.slow_disk("b")
    story.slow_disk("c")
    story.submit("j", at="a", holders="abc", acks=2)
    story.wait(0.3)
    story.repeat(Write, source="a", to="b")
    story.wait(0.3)
    assert not story.is_acknowledged("j")
    story.quick_disk("b")
    story.until(lambda: story.is_acknowledged("j"))
    assert story.receipt("j") == {"a", "b"}
    story.heal_and_judge()


def test_result_to_dead_owner() -> None:
    """A runner keeps its result until somebody has it on disk, and tells the responsible one."""
    story = busy("abcd", "a")
    story.submit("j", at="a", holders="abc")
    story.until(lambda: story.runs("j"))
    runner = story.runner("j")
    story.lose(Result, source=runner, to="a")
    story.finish("j")
    story.wait(0.5)
    story.kill("a")
    story.lose_nothing()
    story.until(lambda: story.is_told("j"))
    story.heal_and_judge()
    assert story.starts("j") == 1


def failing_on_a_peer_as_its_owner_dies(first: str, options: Options) -> Scenario:
    """For a core a timeout is a run that fails, and is not lost (tests/shell/test_timeouts.py). Here it is on
    a peer, at the moment at which the owner of the job dies; the holders know of the start."""
    story = busy("abcd", "a")
    story.submit("j", at="a", holders="abc", options=options)
    story.until(lambda: story.runs("j") and story.is_acknowledged("j"))
    story.until(lambda: the_copy(story, "b").start_count == the_copy(story, "c").start_count == 1)
    assert story.runner("j") != "a"
    happens = [lambda: story.kill("a"), lambda: story.fail("j")]
    for each in happens if first == "death" else reversed(happens):
        each()
    return story


@pytest.mark.parametrize("first", ["death", "timeout"])
def test_a_timeout_on_a_runner_whose_owner_dies_is_one_failed_attempt_and_no_loss(first: str) -> None:
    story = failing_on_a_peer_as_its_owner_dies(first, Options(max_attempts=2, max_losses=1))
    story.until(lambda: story.runs("j"))
    for name in "bc":
        copy = the_copy(story, name)
        assert (copy.failure_count, copy.losses, copy.start_count) == (1, (), 2)
    story.finish("j")
    story.heal_and_judge()
    assert end(story.read("j", "a")) is State.SUCCEEDED
    assert story.starts("j") == 2


@pytest.mark.parametrize("first", ["death", "timeout"])
def test_a_timeout_of_the_last_attempt_is_the_end_also_if_its_owner_dies(first: str) -> None:
    story = failing_on_a_peer_as_its_owner_dies(first, Options(max_attempts=1))
    story.until(lambda: story.is_told("j"))
    story.heal_and_judge()
    found = story.read("j", "a")
    assert end(found) is State.FAILED
    assert isinstance(found, Record)
    assert found.outcome is not None
    assert found.outcome.error.startswith("raised in start")
    assert (found.failure_count, found.losses, story.starts("j")) == (1, (), 1)


def test_two_nodes_r3() -> None:
    """Acknowledgements are counted again when the membership changes, and the receipt says so."""
    story = Scenario("ab", Node)
    story.power_off("b")
    story.submit("j", at="a", holders="ab")
    story.wait(0.5)
    assert not story.is_acknowledged("j")
    story.until(lambda: story.is_acknowledged("j"), within_s=10.0)
    assert story.receipt("j") == {"a"}
    story.heal_and_judge()


def test_whole_mesh_power_cut() -> None:
    story = running("abcde")
    story.until(lambda: story.copy("j", "c") is not None)
    story.power_off(*"abcde")
    story.wait(2.0)
    story.restart(*"edc")
    story.until(lambda: story.runs("j"))
    story.finish("j")
    story.restart(*"ab")
    story.heal_and_judge()


def test_an_at_most_once_job_whose_owner_dies_is_failed_by_a_firm_successor() -> None:
    story = running("abc", options=ONCE)
    story.kill("a")
    story.until(lambda: story.is_told("j"))
    assert end(story.read("j", "b")) is State.FAILED
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_a_cut_off_owner_that_finishes_gives_way_to_the_settled_result() -> None:
    story = running("abc")
    story.cut("a", "bc")
    story.until(lambda: story.runner("j") == "b")
    story.finish("j", on="b")
    story.until(lambda: story.is_told("j"))
    story.finish("j", on="a")
    story.wait(3.0)
    story.mend()
    story.heal_and_judge()
    assert story.starts("j") == 2


def test_settled_marks_that_are_lost_are_sent_again() -> None:
    story = running("abc")
    story.lose(Marks, source="a", to="b")
    story.lose(Marks, source="a", to="c")
    story.finish("j")
    story.until(lambda: story.lost(Marks))
    story.lose_nothing()
    story.until(
        lambda: all(copy is not None and copy.settled for copy in (story.copy("j", x) for x in "abc"))
    )
    story.heal_and_judge()


def test_a_lost_answer_to_a_submission_makes_no_second_job() -> None:
    story = Scenario("abc", Node)
    story.lose(Submitted, source="a", to="b")
    story.submit("j", at="b", holders="acb")
    story.until(lambda: story.lost(Submitted))
    story.lose_nothing()
    story.until(lambda: story.is_acknowledged("j"))
    story.until(lambda: story.runs("j"))
    story.finish("j")
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_messages_that_arrive_long_after_their_time_change_nothing() -> None:
    story = running("abc")
    for kind in (Ask, Promises, Write, Acks, ResultTaken):
        story.lose(kind, source="a", to="b")
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.kill("a")
    story.wait(1.0)
    story.deliver_late()
    story.wait(3.0)
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_dead_firm_beats_live_provisional() -> None:
    """A's result is on two disks and told, and a dies before it can say so. c, cut off, makes another one,
    stands still for a while, and looks at it again. When c meets b, the first result must win."""
    story = running("abc")
    story.cut("ab", "c")
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.kill("a")
    story.until(lambda: story.runner("j") == "c")
    story.finish("j", on="c")
    story.wait(0.5)
    story.pause("c")
    story.wait(3.0)
    story.resume("c")
    story.wait(8.0)
    story.mend()
    story.wait(5.0)
    assert story.starts("j") == 2
    story.heal_and_judge()


def test_a_careful_job_does_not_start_on_a_minority() -> None:
    """An at-most-once job whose owner is cut off before it starts is not started there."""
    story = queued("abc", options=ONCE)
    story.cut("a", "bc")
    story.wait(0.2)
    story.finish("of a")
    story.wait(8.0)
    assert story.runner("j") != "a"
    story.heal_and_judge()
    assert story.starts("j") <= 1


def test_a_successor_adopts_the_end_that_another_holder_has() -> None:
    """The owner and c have the end, which decides it; b has not heard of it, and is next. Only c's promise
    tells: anti-entropy would mend much of what a deaf successor breaks."""
    story = running("abc")
    story.lose(Copies, source="c", to="b")
    story.lose(Write, source="a", to="b")
    story.lose(Acks, source="c", to="a")
    story.finish("j")
    story.until(lambda: (copy := story.copy("j", "c")) is not None and copy.outcome is not None)
    story.wait(0.05)
    story.kill("a")
    story.until(lambda: story.is_told("j") or story.runner("j") == "b")
    if story.runs("j"):
        story.finish("j", on="b")
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_a_start_that_waits_for_its_disks_is_given_up_when_the_end_is_heard_of() -> None:
    """b, which is busy, has taken over, and c is to run the job. This is not on a second disk yet when a,
    which stood still and was not dead, brings the end."""
    story = busy("abc", which="b")
    story.submit("j", at="a", holders="abc")
    story.until(lambda: story.runs("j") and story.copy("j", "b") and story.copy("j", "c"))
    story.pause("a")
    for other in "ac":
        story.lose(Write, source="b", to=other)
    story.until(lambda: the_copy(story, "b").own.token.term == 2)
    assert story.starts("j") == 1
    story.finish("j", on="a")
    story.resume("a")
    story.until(lambda: the_copy(story, "b").outcome is not None)
    story.lose_nothing()
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_a_refused_write_does_not_stop_a_provisional_owner_from_asking_again() -> None:
    """A has an end, of which b has not heard when it makes its own. When they meet again, b's write is
    refused before b's question gets through: a's promise is still wanted, or no end is ever settled."""
    story = running("ab", holders="ab")
    story.lose(Write, source="a", to="b")
    story.finish("j")
    story.cut("a", "b")
    story.until(lambda: story.runner("j") == "b")
    story.finish("j", on="b")
    story.wait(0.5)
    story.lose(Ask, source="b", to="a")
    story.mend()
    story.wait(6.0)
    story.lose_nothing()
    story.heal_and_judge()
