"""More stories of the traps that broke earlier versions, by their names. Each ends healed and judged."""

from __future__ import annotations

import pytest
from sim_stories import ONCE, end, owner, queued, running, the_copy

from edgenode.core.node import Node
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.specs import Options
from edgenode.core.types import Ballot, State
from edgenode.core.wire import Acks, Ask, Copies, Gift, Grant, Marks, Promises, Write
from edgenode.sim.machines import node_id
from edgenode.sim.scenario import Scenario
from edgenode.sim.story import short

# -------------------------------------------------------------------------------- meeting and growing


def test_islands_meet_with_queued_jobs() -> None:
    """Two halves that have never met (in this life) take jobs of their own; then they meet."""
    story = Scenario("abcd", Node, slots=1)
    story.kill(*"abcd")
    story.cut("ab", "cd")
    story.restart(*"abcd")
    story.wait(15.0)
    for name, holders in (("j1", "ab"), ("j2", "ab"), ("j3", "ba"), ("k1", "cd"), ("k2", "cd"), ("k3", "dc")):
        story.submit(name, at=holders[0], holders=holders)
    story.until(lambda: all(story.is_acknowledged(job) for job in ("j1", "j2", "j3", "k1", "k2", "k3")))
    story.mend()
    story.wait(8.0)
    story.heal_and_judge()
    assert [story.starts(job) for job in ("j1", "j2", "j3", "k1", "k2", "k3")] == [1] * 6


def test_r_greater_than_the_mesh() -> None:
    story = running("abc", settings=Settings(jobs=JobSettings(replicas=5)))
    assert {*map(short, the_copy(story, "a").holders)} == {*"abc"}
    story.kill("a")
    story.until(lambda: story.runner("j") == "b", within_s=3.0)
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.heal_and_judge()


# -------------------------------------------------------------------------------------- late messages


def test_retry_overtaken_by_old_running() -> None:
    """b hears late that the job runs, after it has heard that the attempt failed: the retry stands."""
    story = Scenario("abc", Node)
    story.lose(Write, source="a", to="b")
    story.submit("j", at="a", holders="abc", options=Options(max_attempts=2))
    story.until(lambda: story.is_acknowledged("j") and story.runs("j"))
    story.wait(0.1)
    story.fail("j")
    story.until(lambda: the_copy(story, "a").failure_count == 1)
    story.deliver_late()
    story.until(lambda: story.copy("j", "b") is not None and the_copy(story, "b").failure_count == 1)
    assert the_copy(story, "b").own == the_copy(story, "a").own
    story.kill("a")
    story.until(lambda: story.runs("j"))
    assert the_copy(story, "b").failure_count == 1
    story.heal_and_judge()


def test_grant_after_step_down() -> None:
    """A grant of an owner that was outvoted meanwhile starts nothing."""
    story = queued("abc")
    story.lose(Grant, source="a", to="b")
    story.finish("of b")
    story.until(lambda: story.lost(Grant))
    story.cut("a", "bc")
    story.until(lambda: story.runner("of a") == "b")  # the older of a's jobs goes first
    story.finish("of a", on="b")
    story.until(lambda: story.runner("j") == "b")
    story.deliver_late()
    story.wait(0.5)
    assert len(story.runs("j")) == 1
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_gift_lost() -> None:
    story = queued("abc")
    story.lose(Gift, source="a", to="b")
    story.world.leave(story.machine("a"))
    story.until(lambda: story.lost(Gift) >= 2)
    story.lose_nothing()
    story.until(lambda: owner(story, "b") == "b")
    story.finish("of b")
    story.until(lambda: story.runner("j") == "b")
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_gift_in_flight_while_receiver_promised() -> None:
    """a gives to b, which hears it only when it has promised c, and c owns the job firmly."""
    story = queued("abc")
    story.lose(Gift, source="a", to="b")
    story.world.leave(story.machine("a"))
    story.until(lambda: story.lost(Gift))
    story.kill("a")
    story.pause("b")
    story.until(lambda: owner(story, "c") == "c", within_s=30.0)
    story.resume("b")
    story.deliver_late()
    story.wait(2.0)
    story.heal_and_judge()
    assert story.starts("j") <= 1


# ------------------------------------------------------------------------------------------- crashes


def test_owner_never_returns_after_a_power_cut() -> None:
    story = running("abc")
    story.power_off(*"abc")
    story.restart("b", "c")
    story.wipe("a", reborn="d")
    story.until(lambda: story.runner("j") in ("b", "c"), within_s=30.0)
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.heal_and_judge()


@pytest.mark.parametrize("away", ["paused", "cut off"])
def test_a_minority_that_was_away_and_a_pivot_that_lost_its_memory_lose_nothing(away: str) -> None:
    """Written while c is away; b loses what it had not synced, a its disk; c returns (Jepsen, NATS 2.12)."""
    story = Scenario("abc", Node)
    if away == "paused":
        story.pause("c")
    else:
        story.cut("c", "ab")
    story.wait(3.0)
    jobs = [f"j{number}" for number in range(10)]
    for job in jobs:
        story.submit(job, at="a", holders="abc")
    story.until(lambda: all(map(story.is_acknowledged, jobs)))
    assert all({"a", "b"} <= story.receipt(job) for job in jobs)
    story.power_off("b", "a")
    story.wipe("a", reborn="d")
    if away == "paused":
        story.resume("c")
    else:
        story.mend()
    story.restart("b")
    story.heal_and_judge()


def test_own_promise_above_term_1() -> None:
    """An owner that restarts, asks, and dies before anybody answers has promised itself a term already."""
    story = running("abc")
    story.kill("a")
    for source in "bc":
        story.lose(Promises, source=source, to="a")
        for to in "bc":
            story.lose(Ask, source=source, to=to)
    story.restart("a")
    story.until(lambda: story.lost(Promises))
    story.kill("a")
    story.restart("a")
    story.lose_nothing()
    story.until(lambda: story.runs("j"), within_s=15.0)
    assert the_copy(story, "a").ballot.term >= 3
    story.heal_and_judge()


def test_crash_loop_faster_than_detection() -> None:
    """An owner that dies and returns before anybody notices still counts what it lost."""
    story = running("abc")
    for _ in range(6):
        story.wait(0.05)
        if not story.runs("j"):
            break
        story.kill("a")
        story.restart("a")
        story.until(lambda: story.runs("j") or the_copy(story, "a").outcome is not None)
    assert story.starts("j") == 3
    story.until(lambda: story.is_told("j"))
    assert end(story.read("j", "b")) is State.FAILED
    story.heal_and_judge()


def test_poison_job() -> None:
    """A job that kills whoever runs it kills three, and no more."""
    story = running("abcde")
    for _ in range(3):
        story.until(lambda: story.runs("j"))
        last = story.runner("j")
        story.kill(last)
    story.restart(last)  # somebody who may say so has to live
    story.until(
        lambda: story.is_told("j") or any(the_copy(story, n).outcome for n in "abcde" if story.copy("j", n))
    )
    assert story.starts("j") == 3
    story.heal_and_judge()


def test_crash_during_drain() -> None:
    story = queued("abcd")
    story.world.leave(story.machine("a"))
    story.wait(0.01)
    story.kill("a")
    story.until(lambda: owner(story, "b") == "b")
    story.restart("a")
    story.wait(2.0)
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_two_leave_at_once() -> None:
    """Neither may count on the other for the last copies."""
    story = queued("abcd")
    for name in "ab":
        story.world.leave(story.machine(name))
    story.wait(0.01)
    for name in "ab":
        story.finish(f"of {name}")
    story.finish("of c")
    story.until(lambda: story.runs("j"))
    story.finish("j")
    story.until(lambda: all(story.machine(name).gone == "left" for name in "ab"), within_s=20.0)
    story.until(lambda: any(the_copy(story, name).settled for name in "cd"))
    story.heal_and_judge()
    assert story.starts("j") == 1


# --------------------------------------------------------------------------------- results and their order


def test_terminal_unsettled_owner_dies() -> None:
    """The end is on every disk, but nobody has acknowledged it to the owner, which dies."""
    story = running("abc")
    for source in "bc":
        story.lose(Acks, source=source, to="a")
    story.finish("j")
    story.until(lambda: all(the_copy(story, name).outcome is not None for name in "abc"))
    assert not story.is_told("j")
    story.kill("a")
    story.lose_nothing()
    story.until(lambda: story.is_told("j"), within_s=5.0)
    assert end(story.read("j", "c")) is State.SUCCEEDED
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_refusal_brings_the_end() -> None:
    """b was cut off when the job ended, and then is to take it over. Whatever else could tell it of the end
    is lost: who refuses its question must."""
    story = running("abc")
    story.cut("ac", "b")
    story.finish("j")
    story.until(lambda: the_copy(story, "c").settled)
    for source in "ac":
        for kind in (Copies, Marks, Write):
            story.lose(kind, source=source, to="b")
    story.kill("a")
    story.mend()
    story.until(lambda: the_copy(story, "b").settled)
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_old_holder_with_other_result() -> None:
    """c, cut off, ends the job in its own way, and is switched off; much later it returns."""
    story = running("abc")
    story.cut("ab", "c")
    story.finish("j", on="a")
    story.until(lambda: story.is_told("j"))
    story.until(lambda: story.runner("j") == "c", within_s=30.0)
    story.finish("j", on="c")
    story.until(lambda: the_copy(story, "c").outcome is not None)
    told, other = the_copy(story, "a").outcome, the_copy(story, "c").outcome
    assert told is not None
    assert other is not None
    assert told.result != other.result
    story.kill("c")
    story.mend()
    story.wait(5.0)
    story.restart("c")
    story.until(lambda: the_copy(story, "c").settled, within_s=15.0)
    kept = the_copy(story, "c")
    assert kept.outcome is not None
    assert kept.outcome.result == told.result
    assert any(note.kind == "superseded" for note in kept.history)
    story.heal_and_judge()


def test_restamped_result() -> None:
    """A provisional owner that finds a firm result leaves it under the ballot that wrote it."""
    story = running("abc")
    story.until(lambda: story.copy("j", "b") is not None)
    story.cut("ab", "c")
    story.lose(Acks, source="b", to="a")
    story.finish("j")
    story.until(lambda: the_copy(story, "b").outcome is not None)
    story.kill("a")
    story.wait(12.0)  # b has gone on without a majority by now
    found = the_copy(story, "b")
    assert short(found.owner) == "b"
    assert found.outcome is not None
    assert (found.outcome.firm, found.outcome.ballot) == (True, Ballot(1, node_id("a")))
    story.mend()
    story.lose_nothing()
    story.heal_and_judge()


def test_provisional_ack_counted_after_firm() -> None:
    """b ends a job with two of five holders, meets a third, and is firm: what the second said before that of
    the end is no word on the firm one."""
    five = Settings(jobs=JobSettings(replicas=5))
    story = running("abcde", holders="abcde", settings=five)
    story.kill("a")
    story.cut("bc", "de")
    story.until(lambda: story.runner("j") == "b", within_s=30.0)
    story.finish("j", on="b")
    story.until(lambda: (outcome := the_copy(story, "c").outcome) is not None and not outcome.firm)
    for to in "cde":
        story.lose(Write, source="b", to=to)
    story.cut("bc", "e")
    story.mend()
    story.cut("bcd", "e")
    story.until(lambda: (outcome := the_copy(story, "b").outcome) is not None and outcome.firm, within_s=20.0)
    story.wait(3.0)
    assert not story.is_told("j")
    story.lose_nothing()
    story.until(lambda: story.is_told("j"), within_s=20.0)
    story.heal_and_judge()


def test_at_most_once_provisional_hides_running() -> None:
    """b owns without a majority what runs on a; once firm it finds the start, and does not repeat it."""
    story = running("abc", options=ONCE)
    story.cut("b", "ac")
    story.until(lambda: owner(story, "b") == "b", within_s=20.0)
    story.kill("a")
    story.mend()
    story.until(lambda: story.is_told("j"), within_s=30.0)
    assert end(story.read("j", "c")) is State.FAILED
    story.heal_and_judge()
    assert story.starts("j") == 1


# ------------------------------------------------------------------------------------------------ cuts


def test_alive_but_mutually_cut_holders() -> None:
    """The two holders that are left live, as d can tell, and cannot hear each other: the job goes on."""
    story = running("abcd")
    story.cut("b", "c")
    story.wait(1.0)
    story.kill("a")
    story.until(lambda: story.runs("j"), within_s=15.0)
    story.heal_and_judge()


def test_flapping_minority_node() -> None:
    """c comes and goes: the job does not move."""
    story = running("abc")
    for _ in range(8):
        story.cut("c", "ab")
        story.wait(2.5)
        story.mend()
        story.wait(1.5)
    assert story.starts("j") <= 2
    assert the_copy(story, "a").ballot.term <= 4
    assert story.runner("j") == "a"
    story.heal_and_judge()


# ---------------------------------------------------------------------------------------------- numbers


def test_slow_successor_25000_jobs() -> None:
    """(A twentieth of that.) The successor is busy with its first jobs for a while: the third holder sees it
    live, and asks for none of them itself."""
    small = Settings(jobs=JobSettings(batch=50))
    story = Scenario("abc", Node, settings=small, slots=1)
    jobs = [f"j{number}" for number in range(1_250)]
    for job in jobs:
        story.submit(job, at="a", holders="abc")
    story.until(lambda: all(map(story.is_acknowledged, jobs)), within_s=120.0)
    story.machine("b")
    story.kill("a")
    story.until(lambda: all(short(the_copy(story, "b", job).owner) == "b" for job in jobs), within_s=60.0)
    assert not any(short(the_copy(story, "c", job).owner) == "c" for job in jobs)
