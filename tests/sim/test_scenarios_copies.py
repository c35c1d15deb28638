"""Stories about where the copies of finished jobs are: with all holders, with spares, and nowhere else.

Each ends with the judge, who finds a job that a living holder lacks, or that somebody keeps for nothing.
"""

from __future__ import annotations

import pytest
from sim_stories import the_copy

from edgenode.core.node import Node
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.signals import ReadDone
from edgenode.core.situations import Situation
from edgenode.core.wire import Copies, Marks, ReadAnswer, Write
from edgenode.sim.scenario import Scenario
from edgenode.sim.world import node_id

SOON = Settings(jobs=JobSettings(rereplicate_after_s=2.0))


def ended(story: Scenario, job: str) -> None:
    story.until(lambda: story.is_acknowledged(job) and story.runs(job))
    story.finish(job)
    story.until(lambda: story.is_told(job))


def has(story: Scenario, job: str, name: str) -> bool:
    copy = story.copy(job, name)
    return copy is not None and copy.settled


def lost(story: Scenario, name: str) -> None:
    story.power_off(name)
    story.destroy(name)


def test_a_holder_that_missed_a_job_gets_it_though_its_owner_forgot_who_lacks_it() -> None:
    story = Scenario("abc", Node)
    story.lose(Write, source="a", to="c")
    story.lose(Marks, source="a", to="c")
    story.submit("j", at="a", holders="abc")
    ended(story, "j")
    story.wait(0.2)
    story.kill("a")
    story.restart("a")
    assert story.copy("j", "c") is None
    story.lose_nothing()
    story.until(lambda: has(story, "j", "c"))
    story.heal_and_judge()


@pytest.mark.parametrize("lacks", "cb")
def test_what_a_dead_owner_knew_of_who_lacks_a_job_is_not_needed(lacks: str) -> None:
    """Not even if that one is the first after the owner: not only the first is to speak."""
    story = Scenario("abcd", Node, settings=SOON)
    for message in (Write, Marks):
        story.lose(message, source="a", to=lacks)
    story.submit("j", at="a", holders="abc")
    ended(story, "j")
    story.wait(0.2)
    lost(story, "a")
    story.until(lambda: has(story, "j", lacks) and has(story, "j", "d"))
    story.heal_and_judge()


def test_a_holder_that_was_down_while_a_job_ended_is_offered_it() -> None:
    story = Scenario("abc", Node)
    story.lose(Write, source="a", to="c")
    story.submit("j", at="a", holders="abc")
    story.until(lambda: story.is_acknowledged("j") and story.runs("j"))
    story.kill("c")
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.power_off("a", "b")
    story.lose_nothing()
    for name in "abc":
        story.restart(name)
    story.until(lambda: has(story, "j", "c"))
    assert Situation.RETURNED_HOLDER_OFFERED in story.reached
    story.heal_and_judge()


def test_a_spare_copy_goes_when_all_holders_have_the_job() -> None:
    story = Scenario("abcd", Node, settings=SOON)
    story.submit("j", at="a", holders="abc")
    ended(story, "j")
    story.until(lambda: has(story, "j", "c"))
    story.kill("c")
    story.until(lambda: has(story, "j", "d"))
    story.wait(5.0)
    assert has(story, "j", "d")
    story.restart("c")
    story.until(lambda: story.copy("j", "d") is None)
    assert Situation.SPARE_DROPPED in story.reached
    story.heal_and_judge()


def test_a_spare_copy_that_was_being_written_when_the_holder_came_back_goes_too() -> None:
    """The walk for c finds no row of it on the disk."""
    story = Scenario("abcd", Node, settings=SOON)
    story.submit("j", at="a", holders="abc")
    ended(story, "j")
    story.until(lambda: has(story, "j", "c"))
    story.slow_disk("d")
    story.kill("c")
    story.wait(6.0)
    story.restart("c")
    story.wait(5.0)
    assert not has(story, "j", "d")
    story.quick_disk("d")
    story.until(lambda: has(story, "j", "d"))
    story.until(lambda: story.copy("j", "d") is None)
    story.heal_and_judge()


def test_a_job_that_ends_long_after_a_holder_died_gets_a_spare_copy() -> None:
    """d was to follow c, and never heard of it: the job is settled without."""
    story = Scenario("abcd", Node, settings=SOON)
    story.submit("j", at="a", holders="abc")
    story.until(lambda: story.is_acknowledged("j") and story.runs("j"))
    story.lose(Write, source="a", to="d")
    story.lose(Copies, source="a", to="d")
    lost(story, "c")
    story.wait(10.0)
    story.finish("j")
    story.until(lambda: the_copy(story, "a").settled)
    story.wait(1.0)
    assert not has(story, "j", "d")
    story.lose_nothing()
    story.until(lambda: has(story, "j", "d"))
    story.heal_and_judge()


def test_a_spare_copy_stays_while_one_of_the_holders_is_leaving() -> None:
    story = Scenario("ab", Node, settings=Settings(jobs=JobSettings(replicas=1)))
    story.submit("j", at="a", holders="a")
    ended(story, "j")
    story.leave("a")
    story.until(lambda: not story.lives("a"))
    assert has(story, "j", "b")
    story.heal_and_judge()


def test_who_joins_long_after_a_death_gets_spare_copies() -> None:
    story = Scenario("abc", Node, settings=SOON)
    story.submit("j", at="a", holders="abc")
    ended(story, "j")
    lost(story, "c")
    story.wait(10.0)
    story.join("d")
    story.until(lambda: has(story, "j", "d"))
    story.heal_and_judge()


def test_who_takes_jobs_long_after_it_came_gets_spare_copies() -> None:
    """a has restarted, and waits for b, which might know that its disk is an old one. It is the next in rank,
    and takes nothing when f is given up."""
    story = Scenario("ab", Node, settings=SOON)
    story.kill("a", "b")
    story.destroy("b")
    story.restart("a")
    for name in "def":
        story.join(name)
    story.wait(1.0)
    story.submit("j", at="d", holders="def")
    ended(story, "j")
    lost(story, "f")
    story.wait(2.0)
    assert not story.is_ready("a")
    assert not has(story, "j", "a")
    story.until(lambda: story.is_ready("a"), within_s=20.0)
    story.until(lambda: has(story, "j", "a"))
    story.heal_and_judge()


def test_a_spare_that_dies_is_replaced() -> None:
    story = Scenario("abcde", Node, settings=SOON)
    story.submit("j", at="a", holders="abc")
    ended(story, "j")
    lost(story, "c")
    story.until(lambda: has(story, "j", "d") or has(story, "j", "e"))
    first, second = "de" if has(story, "j", "d") else "ed"
    lost(story, first)
    story.until(lambda: has(story, "j", second))
    story.heal_and_judge()


def test_a_holder_that_no_living_node_ever_met_is_stood_in_for() -> None:
    """It left, and all who knew it have restarted since."""
    story = Scenario("abc", Node, settings=SOON)
    story.submit("j", at="a", holders="ab")
    ended(story, "j")
    lost(story, "a")
    for name in "bc":
        story.power_off(name)
        machine = story.machine(name)
        machine.disk.peers, machine.seeds = (), machine.seeds - {node_id("a")}
    for name in "bc":
        story.restart(name)
    story.until(lambda: has(story, "j", "c"), 60.0)
    story.heal_and_judge()


def test_who_hands_an_epoch_on_stays_until_the_next_owner_has_it() -> None:
    """The only holder leaves; what it says of the next epoch is lost. What the newcomer confirmed before was
    another copy."""
    story = Scenario("a", Node, settings=Settings(jobs=JobSettings(replicas=1)), slots=0)
    story.submit("j", at="a", holders="a")
    story.until(lambda: story.is_acknowledged("j"))
    story.join("b")
    story.until(lambda: story.is_ready("b"))
    story.lose(Copies, source="a", to="b")
    story.leave("a")
    story.wait(1.0)
    story.lose_nothing()
    story.until(lambda: story.runs("j"))
    story.finish("j")
    story.heal_and_judge()


def test_what_a_leaving_node_hands_over_is_found_by_those_who_were_waiting_for_its_answer() -> None:
    """Also where another one, or the reader itself, had none when it was asked, and was given it since."""
    story = Scenario("a", Node, settings=Settings(jobs=JobSettings(replicas=1)))
    jobs = [f"j{number}" for number in range(12)]
    for job in jobs:
        story.submit(job, at="a", holders="a")
        ended(story, job)
    for name in "bcde":
        story.join(name)
    story.until(lambda: all(story.is_ready(name) for name in "bcde"))
    story.wait(1.0)
    story.lose(ReadAnswer, source="a", to="e")
    answers: list[ReadDone] = []
    for job in jobs:
        story.ask_for(job, "e", answers)
    story.wait(0.1)
    assert not answers
    story.leave("a")
    story.until(lambda: len(answers) == len(jobs))
    assert [done.errors for done in answers if done.errors] == []


# ------------------------------------------------------------------- when most holders are dead at once


def test_a_job_whose_holders_die_before_they_have_it_is_acknowledged_on_two_disks() -> None:
    """b and c die unnoticed just before they are to take j: others take a copy each in their place, and the
    owner may die too."""
    story = Scenario("abcde", Node)
    story.power_off("b", "c")
    story.submit("j", at="a", holders="abc")
    story.until(lambda: story.is_acknowledged("j"))
    receipt = story.receipt("j")
    assert len(receipt) == 2
    assert receipt < {*"ade"}
    story.power_off("a")
    story.destroy("a")
    story.restart("b", "c")
    story.until(lambda: story.runner("j") in ("b", "c"))
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.heal_and_judge()
    assert Situation.STAND_IN in story.reached


def test_a_job_goes_on_without_any_of_its_holders() -> None:
    """All holders of j are gone; who has a copy in their place goes on, and never says that it is settled.
    When one holder is back, the result is as good as any."""
    story = Scenario("abcde", Node)
    story.power_off("b", "c")
    story.submit("j", at="a", holders="abc")
    story.until(lambda: story.is_acknowledged("j"))
    story.power_off("a")
    story.until(lambda: story.runner("j") in ("d", "e"))
    runner = story.runner("j")
    story.finish("j")
    story.until(lambda: the_copy(story, runner).outcome is not None)
    story.wait(20.0)
    assert not story.is_told("j")
    starts = story.starts("j")
    story.restart("b", "c")
    story.until(lambda: story.is_told("j"))
    assert story.starts("j") == starts == 2
    story.heal_and_judge()
    assert Situation.GOES_ON_WITHOUT_HOLDERS in story.reached


def test_a_holder_without_a_vote_does_not_keep_a_job_from_going_on() -> None:
    """The only living holder lost its row to a flipped bit: who has a copy in the others' place goes on."""
    story = Scenario("abcde", Node)
    story.power_off("b", "c")
    story.submit("j", at="a", holders="abc")
    story.until(lambda: story.is_acknowledged("j") and story.runs("j"))
    story.kill("a")
    story.damage("a", "j")
    story.restart("a")
    story.until(lambda: story.runner("j") in ("d", "e"))
    story.finish("j")
    story.until(lambda: the_copy(story, "a").outcome is not None)
    story.heal_and_judge()
