"""Stories about the change of a job's holders, on production cores. Each ends healed and judged."""

from __future__ import annotations

import pytest
from sim_stories import ONCE, running, the_copy

from edgenode.core.node import Node
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.specs import Options
from edgenode.core.types import State
from edgenode.core.wire import Acks, Ask, Copies, Sync, Write
from edgenode.sim.clock import EPOCH
from edgenode.sim.faults import Mood
from edgenode.sim.judge import Judge
from edgenode.sim.scenario import Scenario
from edgenode.sim.story import short

SOON = Settings(jobs=JobSettings(rereplicate_after_s=2.0))


def holders(story: Scenario, at: str) -> str:
    copy = story.copy("j", at)
    return "" if copy is None else f"{copy.epoch}:{''.join(sorted(map(short, copy.holders)))}"


def test_a_dead_holder_is_replaced_while_the_job_runs_on() -> None:
    story = running("abcd", holders="abcd", settings=SOON)
    story.power_off("c")
    story.until(lambda: holders(story, "d") == "1:abd")
    assert story.runs("j")[0][0] == "a"
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    assert story.starts("j") == 1
    story.heal_and_judge()


def test_holder_change_half_heard() -> None:
    """Only b hears the proposal, and a dies: it was decided, and b finds that out with the help of c."""
    story = running("abcd", holders="abcd", settings=SOON)
    story.kill("c")
    story.lose(Acks, source="b", to="a")
    story.until(lambda: (copy := story.copy("j", "b")) is not None and copy.moving)
    story.kill("a")
    story.lose_nothing()
    story.restart("c")
    story.until(lambda: holders(story, "b").endswith("abd") and holders(story, "d").endswith("abd"))
    story.heal_and_judge()
    assert story.starts("j") <= 2


def test_two_deciders_one_epoch() -> None:
    """a would replace c, and nobody hears it; b and c replace a. One set is decided, and all agree."""
    story = running("abcd", holders="abcd", settings=SOON)
    story.lose(Write, source="a", to="b")
    story.power_off("c")
    story.until(lambda: story.copy("j", "d") is not None, within_s=10.0)
    story.cut("a", "bcd")
    story.restart("c")
    story.until(lambda: holders(story, "d") == "1:bcd", within_s=20.0)
    assert holders(story, "a") in ("0:abc", "")
    story.heal_and_judge()
    assert holders(story, "a") >= "1"


def test_old_holder_asks_forgotten_set() -> None:
    """c was away while all the others that it knows as holders were replaced, and died. Alone among those who
    held the job it must neither run it again nor show anything but what the new ones settled."""
    story = running("abcde", holders="abcde", settings=SOON)
    story.power_off("c")
    story.until(lambda: holders(story, "d") == "1:abd")
    story.kill("b")
    story.until(lambda: holders(story, "e") == "2:ade")
    story.finish("j")
    story.until(lambda: (copy := story.copy("j", "e")) is not None and copy.settled)
    story.kill("a")
    story.wait(1.0)
    story.restart("c")
    story.until(lambda: (copy := story.copy("j", "c")) is not None and copy.settled, within_s=15.0)
    copy = the_copy(story, "c")
    assert copy.state is State.SUCCEEDED
    assert story.starts("j") == 1
    story.heal_and_judge()


def test_grow_1_to_n_while_running_with_one_crash() -> None:
    """A mesh of one takes a job; two nodes join, and the first dies just after the set has grown."""
    story = Scenario("abc", Node, settings=SOON)
    story.kill("b", "c")
    story.wait(3.0)
    story.submit("j", at="a", holders="a")
    story.until(lambda: bool(story.runs("j")))
    assert holders(story, "a") == "0:a"
    story.restart("b", "c")
    story.until(lambda: holders(story, "b") == "1:abc" and holders(story, "c") == "1:abc")
    story.kill("a")
    story.until(lambda: story.runner("j") in ("b", "c"), within_s=5.0)
    story.finish("j")
    story.until(lambda: story.is_told("j"))  # b and c are a majority of the grown set
    story.heal_and_judge()
    assert story.starts("j") == 2


def test_shrinking_below_r() -> None:
    """All but one leave, one after the other: the last goes on alone, firmly, and settles."""
    story = running("abc", holders="abc", settings=SOON)
    for name in "bc":
        story.world.leave(story.machine(name))
        story.until(lambda name=name: story.machine(name).gone == "left", within_s=15.0)
    assert holders(story, "a").endswith(":a")
    story.finish("j")
    story.until(lambda: story.is_told("j"), within_s=2.0)
    assert story.starts("j") == 1
    story.heal_and_judge()


def test_a_late_copy_of_the_old_set_changes_nothing() -> None:
    story = running("abcd", holders="abcd", settings=SOON)
    story.lose(Copies, source="b", to="c")
    story.power_off("c")
    story.until(lambda: holders(story, "d") == "1:abd")
    story.repeat(Write, source="a", to="b")
    story.wait(0.5)
    assert holders(story, "b") == "1:abd"
    story.heal_and_judge()


def test_a_job_whose_only_holder_left_while_nobody_took_jobs_may_start_again_when_that_is_back() -> None:
    """A is drained, so j moves to c, which is to leave: nobody can take j, and c says that it is needed. A is
    undrained, and goes on without c. (Found by seed 920388.)"""
    story = Scenario("ac", Node, settings=Settings(jobs=JobSettings(replicas=1)))
    due = Options(run_at=EPOCH + story.world.now + 1.0)
    story.submit("j", at="a", holders="a", options=due)
    story.until(lambda: story.is_acknowledged("j"))
    story.drain("a", at="c")
    story.until(lambda: holders(story, "c") == "1:c" and story.is_drained("a"))
    story.wait(0.5)
    story.leave("c")
    story.until(lambda: not story.lives("c"))
    assert story.world.ledger.stranded[the_copy(story, "c").id] == 1
    story.undrain("a", at="a")
    story.until(lambda: story.runner("j") == "a")
    story.finish("j")
    story.until(lambda: the_copy(story, "a").outcome is not None)
    assert not story.lives("c")
    story.lose(Ask, source="a", to="c")  # until c, back again, has begun
    story.lose(Write, source="a", to="c")
    story.until(lambda: story.starts("j") == 2)
    story.lose_nothing()
    story.heal_and_judge()
    Judge(story.world, Mood.CHURN, wiped=False).demand(60.0)


def test_a_job_whose_holders_left_one_after_the_other_may_start_again_where_its_end_is_unknown() -> None:
    """B and a take no jobs, so c leaves with a copy that is needed; j ends, and its owner leaves before c is
    back. B says that a is gone. (Found by seed 3699.)"""
    story = Scenario("abc", Node, settings=Settings(jobs=JobSettings(replicas=2)))
    story.drain("b", at="c")
    story.until(lambda: story.is_drained("b"))
    story.submit("j", at="a", holders="ac")
    story.until(lambda: story.runs("j"))
    story.drain("a", at="c")
    story.leave("c")
    story.until(lambda: not story.lives("c"))
    assert not story.world.ledger.stranded, "a has a copy, too"
    story.finish("j", on="a")
    story.leave("a")
    story.until(lambda: not story.lives("a"))
    assert story.world.ledger.stranded[the_copy(story, "a").id] == 1
    story.wait(0.05)  # b has seen that
    story.restart("c")
    story.until(lambda: story.runner("j") == "c")
    assert not story.lives("a")
    story.heal_and_judge()
    assert story.starts("j") == 2
    Judge(story.world, Mood.CHURN, wiped=False).demand(60.0)


def left_with(*, undrained_s: float) -> Scenario:
    """C, the only holder, runs j until b, which it had given a copy, has left, and then leaves with it; a is
    drained until so long before that. (0: and afterwards.)"""
    story = Scenario("abc", Node, settings=Settings(jobs=JobSettings(replicas=1)))
    story.submit("j", at="c", holders="c")
    story.until(lambda: story.runs("j"))
    story.drain("a", at="c")
    story.until(lambda: story.is_drained("a"))
    story.leave("c")
    story.wait(0.3)
    story.leave("b")
    story.until(lambda: not story.lives("b"))
    if undrained_s:
        if undrained_s < 0.1:
            story.lose(Sync, source="a", to="c")  # which would tell
        story.undrain("a", at="a")
        story.wait(undrained_s)
    story.finish("j")
    story.until(lambda: not story.lives("c"))
    story.lose_nothing()
    return story


def test_a_job_that_ended_on_its_only_holder_may_start_again_elsewhere_while_that_is_away() -> None:
    """B has an older copy, and nobody could be told of the end."""
    story = left_with(undrained_s=0.0)
    assert the_copy(story, "c").settled
    assert story.world.ledger.stranded[the_copy(story, "c").id] == 1
    story.until(lambda: story.runner("j") == "b")
    assert not story.lives("c")
    story.heal_and_judge()
    assert story.starts("j") == 2
    Judge(story.world, Mood.CHURN, wiped=False).demand(60.0)


@pytest.mark.parametrize("undrained_s", [0.0005, 1.0])
def test_who_leaves_hands_over_to_who_takes_jobs_again_if_it_has_heard_of_that(undrained_s: float) -> None:
    story = left_with(undrained_s=undrained_s)
    assert story.is_ready("a")
    (job,) = story.world.ledger.acked
    is_handed_over = story.machine("c").gone == "left"
    assert is_handed_over is (undrained_s == 1.0)
    assert story.world.ledger.stranded[job] == (not is_handed_over)
    story.heal_and_judge()
    Judge(story.world, Mood.CHURN, wiped=False).demand(60.0)


def test_what_runs_goes_on_when_all_holders_leave() -> None:
    """D runs a job of a's, and a, b and c are asked to leave: without any fault there is one start."""
    story = Scenario("abc", Node, slots=0)
    story.join("d", slots=1)
    story.until(lambda: story.is_ready("d"))
    story.submit("j", at="a", holders="abc", options=ONCE)
    story.until(lambda: story.runner("j") == "d")
    for name in "abc":
        story.leave(name)
    story.until(lambda: not any(story.lives(name) for name in "abc"))
    assert [runner for runner, _ in story.runs("j")] == ["d"]
    story.finish("j")
    story.until(lambda: the_copy(story, "d").settled)
    assert (the_copy(story, "d").state, story.starts("j")) == (State.SUCCEEDED, 1)
    story.heal_and_judge()
