"""Stories of nodes that are alone: they take work, do it, and merge what they have when they meet others."""

from __future__ import annotations

import pytest
from sim_stories import end, the_copy

from edgenode.core.node import Node
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.situations import Situation
from edgenode.core.specs import Options
from edgenode.core.types import Partition, State
from edgenode.sim.scenario import Scenario


def island(*, alone_s: float, **options: object) -> Scenario:
    """C is cut off from its four peers for so long, and is given a job then. (It waits for its end.)"""
    story = Scenario("abcde", Node)
    story.cut("c", "abde")
    story.wait(alone_s)
    story.submit("j", at="c", holders="cab", **options)  # type: ignore[arg-type]
    return story


def is_settled(story: Scenario, at: str) -> bool:
    copy = story.copy("j", at)
    return copy is not None and copy.settled


@pytest.mark.parametrize("alone_s", [0.0, 20.0])
@pytest.mark.parametrize("acks", [0, 1])
def test_a_node_that_is_alone_does_what_it_is_given_and_merges_it_later(acks: int, alone_s: float) -> None:
    """With `acks` 1 at once; with the default as soon as it knows that it is alone."""
    story = island(alone_s=alone_s, acks=acks)
    story.until(lambda: story.is_acknowledged("j"), within_s=0.5 if acks or alone_s else 10.0)
    assert story.receipt("j") == {"c"}
    story.until(lambda: story.runner("j") == "c", within_s=10.0)
    story.finish("j")
    story.wait(10.0)
    # When it knows that it is alone it is the job's only holder, and so a majority of them.
    assert (the_copy(story, "c").state, the_copy(story, "c").settled) == (State.SUCCEEDED, alone_s > 0)
    assert [story.copy("j", other) for other in "abde"] == [None] * 4
    story.mend()
    for other in "ab":
        story.until(lambda other=other: is_settled(story, other), within_s=30.0)  # type: ignore[misc]
    story.heal_and_judge()
    assert end(story.read("j", "e")) is State.SUCCEEDED
    assert story.starts("j") == 1, "what it did alone is done"


def test_what_a_node_took_alone_outlives_its_process() -> None:
    story = island(alone_s=20.0, acks=1)
    story.until(lambda: story.runner("j") == "c", within_s=10.0)
    story.kill("c")
    story.restart("c")
    story.until(lambda: story.runner("j") == "c", within_s=60.0)
    assert the_copy(story, "c").loss_count == 1
    story.mend()
    story.finish("j")
    story.heal_and_judge()
    assert story.starts("j") == 2


def test_what_a_node_did_alone_outlives_its_disk_soon_after_it_met_others() -> None:
    story = island(alone_s=20.0)
    story.until(lambda: story.runner("j") == "c", within_s=10.0)
    story.finish("j")
    story.until(lambda: is_settled(story, "c"))
    story.mend()
    story.until(lambda: is_settled(story, "a") and is_settled(story, "b"), within_s=5.0)
    assert Situation.SPARE_IN_GROWN_MESH in story.reached
    story.kill("c")
    story.destroy("c")
    for reader in "abde":
        assert end(story.read("j", reader)) is State.SUCCEEDED
    story.wait(40.0)  # the next in rank has a copy in its place
    assert is_settled(story, "d")
    story.heal_and_judge()


@pytest.mark.parametrize("newcomers", ["b", "bc", "bcdef"])
def test_what_ended_in_a_mesh_of_one_is_on_as_many_disks_as_the_grown_mesh_allows(newcomers: str) -> None:
    story = Scenario("a", Node)
    jobs = [f"j{number}" for number in range(12)]
    for job in jobs:
        story.submit(job, at="a", holders="a")
        story.until(lambda job=job: story.runs(job))  # type: ignore[misc]
        story.finish(job)
    story.wait(1.0)
    for name in newcomers:  # some push others out that were next in rank before
        story.join(name)
        story.wait(3.0)
    story.wait(10.0)
    for job in jobs:
        copies = [name for name in "a" + newcomers if story.copy(job, name) is not None]
        assert len(copies) == min(3, 1 + len(newcomers))
        assert "a" in copies
    story.heal_and_judge()


def in_a_grown_mesh() -> tuple[Scenario, str]:
    """A job that ended when A was alone; four others came. Also who of these has a copy."""
    story = Scenario("a", Node)
    story.submit("j", at="a", holders="a")
    story.until(lambda: story.runs("j"))
    story.finish("j")
    for name in "bcde":
        story.join(name)
    story.until(lambda: len(having(story)) == 2, within_s=10.0)
    story.wait(10.0)
    assert len(having(story)) == 2
    return story, having(story)


def having(story: Scenario) -> str:
    return "".join(name for name in "bcde" if story.copy("j", name) is not None)


def test_a_copy_is_where_it_belongs_after_its_node_was_drained() -> None:
    story, first = in_a_grown_mesh()
    story.drain(first[0], at="a")
    story.until(lambda: first[0] not in having(story) and len(having(story)) == 2, within_s=10.0)
    story.undrain(first[0], at="a")
    story.until(lambda: having(story) == first, within_s=10.0)
    story.heal_and_judge()


def test_a_copy_is_where_it_belongs_when_weights_change() -> None:
    story, first = in_a_grown_mesh()
    for name in first:
        story.weigh(name, 0.001, at="a")
    story.until(lambda: len(having(story)) == 2 and not {*having(story)} & {*first}, within_s=10.0)
    story.heal_and_judge()


def test_no_copy_goes_while_nodes_begin_again() -> None:
    """All lost power. Who has begun again takes no jobs yet, for as long as one that it remembers is silent:
    it does not know yet where copies belong."""
    story, first = in_a_grown_mesh()
    other = next(name for name in "bcde" if name not in first)
    story.power_off(*"abcde")
    story.restart("a", *first, other)
    for _ in range(40):
        story.wait(0.5)
        assert {*first} <= {*having(story)}
    story.heal_and_judge()


def test_a_copy_whose_node_is_gone_for_good_is_made_again_elsewhere() -> None:
    story, first = in_a_grown_mesh()
    story.leave(first[0])
    story.kill(first[1])
    story.destroy(first[1])
    story.until(lambda: len({*having(story)} - {*first}) == 2, within_s=60.0)
    story.heal_and_judge()


def test_what_ended_with_fewer_copies_gets_more_when_r_grows_and_loses_them_when_it_shrinks() -> None:
    story = Scenario("abc", Node, settings=Settings(jobs=JobSettings(replicas=1)))
    story.submit("j", at="a", holders="a")
    story.until(lambda: story.runs("j"))
    story.finish("j")
    story.wait(5.0)
    assert [story.copy("j", name) is not None for name in "abc"] == [True, False, False]
    story.restart_with(2, *"abc")
    story.until(lambda: sum(story.copy("j", name) is not None for name in "abc") == 2, within_s=10.0)
    story.restart_with(1, *"abc")
    story.until(lambda: sum(story.copy("j", name) is not None for name in "abc") == 1, within_s=10.0)
    story.heal_and_judge()


def test_a_careful_job_waits_while_its_holders_are_on_the_other_side() -> None:
    story = island(alone_s=0.0, acks=1, options=Options(partition=Partition.WAIT))
    story.until(lambda: story.is_acknowledged("j"), within_s=0.5)
    story.wait(30.0)
    assert not story.starts("j")
    story.mend()
    story.until(lambda: story.runs("j"), within_s=30.0)
    story.finish("j")
    story.heal_and_judge()
    assert story.starts("j") == 1
