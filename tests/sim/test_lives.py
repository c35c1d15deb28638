"""Disks that are wiped, put back or copied: the mesh stays right, and who is not the latest has no vote."""

from __future__ import annotations

import pytest
from sim_stories import ONCE, end, queued, running, the_copy

from edgenode.core.node import Node
from edgenode.core.settings import JobSettings, MembershipSettings, Settings
from edgenode.core.situations import Situation
from edgenode.core.types import State, starts_of
from edgenode.core.wire import Acks, Ask, Marks, Promises, Recalled, Write
from edgenode.sim.disk import Disk
from edgenode.sim.identities import Forfeited, forfeit
from edgenode.sim.scenario import Scenario
from edgenode.sim.story import short


def votes_of(story: Scenario, name: str) -> int:
    """How many promises and acknowledgements a node has sent, ever."""
    return story.said(name, Promises) + story.said(name, Acks)


def set_back(story: Scenario, name: str, disk: Disk) -> None:
    """Kill a node, and start it on what its disk held earlier: it is told that this is not the latest."""
    story.kill(name)
    story.put_back(name, disk)
    story.until(lambda: story.is_behind(name) and story.lives(name))


def test_wiped_owner_same_identity() -> None:
    """The owner's disk is put back to where it was empty, but for its key: it owns nothing any more."""
    story = Scenario("abc", Node)
    empty = story.snapshot("a")
    story.submit("j", at="a", holders="abc")
    story.until(lambda: story.runs("j"))
    set_back(story, "a", empty)
    story.until(lambda: story.runner("j") == "b")
    story.finish("j", on="b")
    story.until(lambda: story.is_told("j"))
    story.wait(0.5)  # `a` has just begun anew: it meets the others
    assert end(story.read("j", "a")) is State.SUCCEEDED
    story.heal_and_judge()


def test_wiped_holder_votes() -> None:
    """a and b have decided, and c has not heard of it. b forgets the job altogether, and a dies: c must not
    find a majority with b."""
    story = Scenario("abc", Node)
    empty = story.snapshot("b")
    story.submit("j", at="a", holders="abc")
    story.until(lambda: story.is_acknowledged("j") and story.runs("j"))
    for kind in (Write, Marks):
        story.lose(kind, source="a", to="c")
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.wait(0.2)
    votes = votes_of(story, "b")
    set_back(story, "b", empty)
    story.kill("a")
    story.lose_nothing()
    story.until(lambda: story.runs("j"))  # c alone, provisionally
    story.finish("j")
    story.wait(3.0)
    copy = the_copy(story, "c")
    assert not copy.settled
    assert votes_of(story, "b") == votes
    story.heal_and_judge()


def test_stale_snapshot_votes() -> None:
    """b has promised and accepted; then its disk is put back to before. Only c, which has not heard of the
    end, and b would now be a majority for another one."""
    story = running("abc")
    before = story.snapshot("b")
    for kind in (Write, Marks):
        story.lose(kind, source="a", to="c")
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.wait(0.2)
    set_back(story, "b", before)
    story.kill("a")
    story.lose_nothing()
    story.wait(8.0)
    if story.runs("j"):  # c alone may go on, provisionally
        story.finish("j")
    story.wait(3.0)
    copy = the_copy(story, "c")
    assert not copy.settled
    story.heal_and_judge()


def test_a_disk_that_is_put_back_within_one_life_is_found_out_by_its_writes() -> None:
    """No start lies between the snapshot and the present: the counter of starts would say nothing."""
    story = running("abc")
    before = story.snapshot("b")
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.wait(0.2)
    story.kill("b")
    assert story.machine("b").disk.lives == before.lives
    story.put_back("b", before)
    story.until(lambda: story.is_behind("b"))
    story.heal_and_judge()


def test_a_disk_that_is_put_back_is_found_out_also_after_further_starts() -> None:
    """It meets nobody in the first two of them."""
    story = running("abc")
    before = story.snapshot("b")
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.wait(0.2)
    story.kill("b")
    story.cut("b", "ac")
    story.put_back("b", before)
    for _ in range(2):
        story.wait(0.5)
        story.kill("b")
        story.restart("b")
    story.mend()
    story.until(lambda: story.is_behind("b"))
    story.heal_and_judge()


def test_the_lives_of_a_disk_that_is_put_back_are_told_from_those_that_it_forgot() -> None:
    """Nobody who knows better is there, so it votes: nothing is promised of what comes then. It begins its
    second life twice, and each makes the same fence. (Found by seed 30883.)"""
    story = Scenario("ab", Node, settings=Settings(jobs=JobSettings(replicas=1)))
    story.world.on_forfeit = forfeit
    story.submit("j", at="b", holders="b")
    story.until(lambda: story.runs("j"))
    before = story.snapshot("b")
    story.cut("a", "b")
    story.kill("b")
    story.restart("b")
    story.until(lambda: story.starts("j") == 2)
    forgotten = story.machine("b").disk.boot
    story.kill("b")
    story.put_back("b", before)
    boot = story.machine("b").disk.boot
    assert starts_of(boot) == starts_of(forgotten)
    assert boot != forgotten
    with pytest.raises(Forfeited):
        story.wait(30.0)


def test_an_ordinary_restart_and_a_disk_that_was_moved_keep_their_vote() -> None:
    story = running("abc")
    story.kill("b")
    moved = story.snapshot("b")
    story.put_back("b", moved)
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.wait(1.0)
    assert not story.is_behind("b")
    story.kill("a", "c")
    story.restart("a")
    story.submit("k", at="b", holders="bac")
    story.until(lambda: story.is_acknowledged("k"))
    story.heal_and_judge()


def test_a_restarted_node_says_nothing_that_counts_before_the_others_have_told() -> None:
    story = running("abc", holders="acb")
    story.kill("b")
    votes = votes_of(story, "b")
    for name in "ac":
        story.lose(Recalled, source=name, to="b")
    story.restart("b")
    story.kill("a")
    story.until(lambda: story.said("c", Ask))
    story.wait(2.0)
    assert votes_of(story, "b") == votes
    assert not story.is_ready("b")
    story.lose_nothing()
    story.until(lambda: votes_of(story, "b") > votes)
    story.until(lambda: story.is_ready("b"))
    story.heal_and_judge()


def test_who_is_not_there_yet_is_waited_for_since_only_it_may_know() -> None:
    """c, the first owner, was away when a and b decided, and cannot tell b that it forgot. a can, and is the
    last to return: b must not make c firm meanwhile."""
    story = running("abc", at="c", holders="cab")
    before = story.snapshot("b")
    story.kill("c")
    story.until(lambda: story.runner("j") == "a")
    story.finish("j", on="a")
    story.until(lambda: story.is_told("j"))
    story.wait(1.5)  # what a knows of b is on its disk by then
    story.kill("a", "b")
    story.put_back("b", before)
    story.restart("c")
    story.wait(4.0)
    if story.runs("j"):
        story.finish("j")
    story.wait(1.0)
    story.restart("a")
    story.until(lambda: story.is_behind("b"))
    assert end(story.read("j", "a")) is State.SUCCEEDED
    story.heal_and_judge()


def test_a_node_that_is_behind_stays_so_and_serves_as_an_entry_and_a_reader() -> None:
    story = running("abcd")
    before = story.snapshot("b")
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.wait(0.2)
    set_back(story, "b", before)
    story.kill("b")
    story.restart("b")
    story.wait(2.0)
    votes = votes_of(story, "b")
    assert not story.is_ready("b")
    story.submit("k", at="b", holders="acd")
    story.until(lambda: story.is_acknowledged("k") and story.runs("k"))
    story.finish("k")
    story.until(lambda: story.is_told("k"))
    assert [end(story.read(job, "b")) for job in "jk"] == [State.SUCCEEDED] * 2
    assert votes_of(story, "b") == votes
    assert story.receipt("k") <= {"a", "c", "d"}
    story.heal_and_judge()


def test_the_job_of_an_owner_that_fell_behind_goes_to_the_next_holder() -> None:
    story = Scenario("abc", Node)
    story.submit("i", at="a", holders="abc")
    story.until(lambda: story.is_acknowledged("i") and story.runs("i"))
    before = story.snapshot("a")
    story.submit("j", at="a", holders="abc")
    story.until(lambda: story.is_acknowledged("j") and story.runs("j"))
    set_back(story, "a", before)
    for job in "ij":
        story.until(lambda job=job: story.runner(job) in ("b", "c"))  # type: ignore[misc]
        story.finish(job)
    story.heal_and_judge()


def test_a_holder_that_is_behind_is_replaced() -> None:
    story = running("abcd")
    before = story.snapshot("b")
    story.submit("k", at="a", holders="abc")
    story.until(lambda: story.is_acknowledged("k") and story.runs("k"))
    story.wait(0.2)
    set_back(story, "b", before)
    for job in "jk":
        story.until(lambda job=job: (copy := story.copy(job, "d")) is not None and copy.epoch == 1)  # type: ignore[misc]
        copy = the_copy(story, "d", job)
        assert {*map(short, copy.holders)} == {"a", "c", "d"}
        story.finish(job)
    story.heal_and_judge()


def test_at_most_once_holder_wiped() -> None:
    """a and b, a majority, have the start on disk, and c has not. b forgets it, and a dies: c and b have the
    job queued, as far as they know, and must not start it again."""
    story = queued("abc", options=ONCE)
    story.wait(0.2)
    before = story.snapshot("b")
    story.lose(Write, source="a", to="c")
    story.finish("of a")
    story.until(lambda: story.runs("j"))
    set_back(story, "b", before)
    story.kill("a")
    story.lose_nothing()
    story.finish("of c")
    story.wait(10.0)
    assert story.starts("j") == 1
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_cloned_disk() -> None:
    """Both copies of a stopped node's disk are started: the second is sent away and harms nobody."""
    story = running("abc")
    story.kill("b")
    story.clone("b", "x")
    story.until(lambda: story.lives("x"))
    story.wait(2.0)
    story.restart("b")
    story.until(lambda: not (story.lives("b") and story.lives("x")))
    assert story.lives("x")
    assert not story.is_behind("x")
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.heal_and_judge()
    assert story.starts("j") == 1


def test_a_copy_of_a_running_node_displaces_it_and_has_no_vote() -> None:
    """The copy has the higher count of starts: the original ends. It has worked since, so what goes on does
    not know all that the identity said."""
    story = running("abc")
    copied = story.snapshot("b")
    story.finish("j")
    story.until(lambda: story.is_told("j"))
    story.clone("b", "x", disk=copied)
    story.until(lambda: not story.lives("b"))
    story.until(lambda: story.is_behind("x") and story.lives("x"))
    story.wait(1.0)
    assert not story.is_ready("x")
    story.heal_and_judge()


def test_two_copies_that_start_at_the_same_moment_leave_one() -> None:
    story = running("abcd")
    story.kill("b")
    story.clone("b", "x")
    story.restart("b")
    story.until(lambda: not (story.lives("b") and story.lives("x")))
    story.wait(8.0)
    (survivor,) = [name for name in "bx" if story.lives(name)]
    story.until(lambda: story.is_ready(survivor) or story.is_behind(survivor))
    story.finish("j")
    story.heal_and_judge()


def test_a_member_that_was_forgotten_is_met_again_in_its_next_life() -> None:
    settings = Settings(membership=MembershipSettings(dead_keep_s=5.0))
    story = Scenario("ab", Node, settings=settings)
    story.kill("b")
    story.wait(20.0)
    story.restart("b")
    story.until(lambda: story.is_ready("b"))
    story.wait(1.0)
    story.submit("j", at="a", holders="ba")
    story.until(lambda: story.is_acknowledged("j"))
    assert story.receipt("j") == {"a", "b"}
    story.heal_and_judge()


def test_two_copies_that_both_voted_on_two_sides_of_a_cut_leave_none_that_votes() -> None:
    """Each side takes its copy for the node itself. When they meet one ends, and the other must not vote: it
    does not know what was promised in its name."""
    story = Scenario("abcd", Node)
    story.kill("b")
    stopped = story.snapshot("b")
    story.cut("ax", "bcd")
    story.restart("b")
    story.clone("b", "x", disk=stopped)
    story.wait(12.0)
    story.submit("j", at="a", holders="abc")
    story.submit("k", at="c", holders="cbd")
    story.until(lambda: story.runs("j") and story.runs("k"))
    story.finish("j")
    story.finish("k")
    story.wait(3.0)
    story.mend()
    story.until(lambda: not (story.lives("b") and story.lives("x")))
    survivor = "x" if story.lives("x") else "b"
    story.until(lambda: story.is_behind(survivor) and story.lives(survivor))
    story.heal_and_judge()


def test_a_life_that_has_written_nothing_gives_no_word_on_what_the_one_before_wrote() -> None:
    """Else the others would miss that on its disk after a restart, and it would never vote again."""
    story = running("abc")
    story.finish("j")
    story.until(lambda: (copy := story.copy("j", "b")) is not None and copy.settled)
    story.fill_disk("b")
    story.until(lambda: Situation.STORE_REFUSED in story.reached, within_s=70.0)  # the time, once a minute
    story.make_room("b")
    story.until(lambda: story.is_ready("b"))
    story.wait(2.0)
    assert story.machine("b").disk.written == 0
    story.kill("b")
    story.restart("b")
    story.until(lambda: story.is_ready("b"))
    story.heal_and_judge()


def test_who_restarts_behind_a_cut_to_one_other_gets_its_vote() -> None:
    """C lives, says b, and cannot be asked by a, whose job stood still for as long as that lasted."""
    story = running("abc")
    story.cut("a", "c")
    story.wait(5.0)
    story.kill("a")
    story.restart("a")
    story.until(lambda: story.is_ready("a"), within_s=20.0)
    story.until(lambda: story.runs("j"))
    story.heal_and_judge()
