"""Stories of idempotency keys: what one key, one job means before nodes have met, while they join, and across
cuts. Each ends healed and judged: of all that was submitted under the key one submission is left."""

from __future__ import annotations

from typing import Final

import pytest
from sim_stories import ONCE, end, the_copy

from edgenode.core.node import Node
from edgenode.core.settings import JobSettings, MembershipSettings, Settings
from edgenode.core.situations import Situation
from edgenode.core.types import State
from edgenode.core.wire import Claim, Recalled, Submitted
from edgenode.sim.scenario import Scenario, Use
from edgenode.sim.story import short

FORGETFUL: Final = Settings(MembershipSettings(dead_keep_s=6.0), JobSettings(rereplicate_after_s=1.0))
RESTARTED_S: Final = 15.0
"""When a node that met nobody has stopped waiting for those that it remembers."""


def answers(story: Scenario, *uses: Use) -> list[str]:
    """What was said of each, once all have been answered."""
    story.until(lambda: all(use.answer for use in uses))
    return [use.answer for use in uses]


@pytest.mark.parametrize("sides", [("ab", "cd"), ("abc", "de"), ("a", "bcd")])
def test_same_key_before_meeting(sides: tuple[str, str]) -> None:
    """Both sides have restarted and not met yet. Each takes the key, as cut off sides do; a result is settled
    only where a majority of all members is. Once they have met, one of the two jobs is left."""
    story = Scenario("".join(sides), Node)
    story.choose_key("k", holders=sides[0][0] + sides[1][0])
    story.kill(*"".join(sides))
    story.cut(*sides)
    story.restart(*"".join(sides))
    story.wait(RESTARTED_S)
    uses = [story.use_key("k", at=side[0]) for side in sides]
    assert answers(story, *uses) == ["taken", "taken"]
    story.until(lambda: len(story.runs("k")) == 2, within_s=40.0)
    for side in sides:
        story.finish("k", on=side[0])
    story.wait(2.0)
    settled = [side for side in sides if the_copy(story, side[0], "k").settled]
    assert settled == [side for side in sides if 2 * len(side) > len("".join(sides))]
    story.mend()
    story.heal_and_judge()
    assert story.starts("k") == 2
    assert len({the_copy(story, name, "k").outcome for name in "abcd" if story.copy("k", name)}) == 1


def test_same_key_while_joining() -> None:
    """a takes a submission when it has not heard of d yet, and d one of the same key just then: they name
    other holders. Without any fault, that is one job."""
    story = Scenario("abc", Node)
    story.pause("a")
    story.join("d")
    story.choose_key("k", holders="dabc")
    first = story.use_key("k", at="a")  # what a hears when it goes on
    story.until(lambda: story.is_ready("d"))
    second = story.use_key("k", at="d")
    story.resume("a")
    assert sorted(answers(story, first, second)) == ["replayed", "taken"]
    story.wait(2.0)
    assert story.starts("k") == 1
    story.finish("k")
    story.heal_and_judge()
    assert story.starts("k") == 1
    assert len({the_copy(story, name, "k").holders for name in "abcd" if story.copy("k", name)}) == 1


def test_same_key_before_a_peer_has_told_what_it_knows_of_the_disk() -> None:
    """Seeds 930049 and 930321: what a asks of a key's use was held back from b until b told of a's disk;
    asked again only after a long pause, b was taken for one that cannot be reached, and the key ran twice."""
    story = Scenario("ab", Node)
    story.choose_key("k", holders="ab")
    story.lose(Recalled, source="b", to="a")
    story.kill("b")
    story.restart("b")
    story.until(lambda: story.lost(Recalled) > 0)
    use = story.use_key("k", at="a")
    story.wait(4.0)
    assert not story.said("a", Claim)
    story.deliver_late()
    story.wait(0.05)
    assert story.said("a", Claim)
    assert answers(story, use) == ["taken"]
    assert the_copy(story, "a", "k").claimed
    story.finish("k")
    story.heal_and_judge()


def test_same_key_while_all_others_have_just_restarted() -> None:
    """They wait for d, which never comes back, before they vote on anything. e, who is new, learns all the
    same that the key has a job, and does not run it again."""
    story = Scenario("abcd", Node)
    story.choose_key("k", holders="abc")
    assert answers(story, story.use_key("k", at="a")) == ["taken"]
    story.until(lambda: story.runner("k") == "a")
    story.finish("k")
    story.until(lambda: story.is_told("k"))
    story.kill(*"abcd")
    story.destroy("d")
    story.restart(*"abc")
    story.join("e")
    story.until(lambda: story.is_ready("e"))
    assert not any(map(story.is_ready, "abc"))
    assert answers(story, story.use_key("k", at="e")) == ["replayed"]
    story.heal_and_judge()
    assert story.starts("k") == 1


def test_same_key_majority_without_holders() -> None:
    """The three that hold the job are cut off from six, a majority: these know that the key is taken, say so,
    and run nothing. Afterwards the same submission is answered with the job."""
    story = Scenario("abcdefghi", Node)
    story.choose_key("k", holders="abc")
    assert answers(story, story.use_key("k", at="a")) == ["taken"]
    story.until(lambda: story.runner("k") == "a")
    story.cut("abc", "defghi")
    story.wait(3.0)
    assert answers(story, story.use_key("k", at="d"), story.use_key("k", at="g")) == ["key-in-flight"] * 2
    story.wait(10.0)
    assert story.starts("k") == 1
    story.mend()
    story.wait(3.0)
    assert answers(story, story.use_key("k", at="d")) == ["replayed"]
    story.finish("k")
    story.heal_and_judge()
    assert story.starts("k") == 1


def test_same_key_other_payload_across_cut() -> None:
    """Two sides take the key for two things. The side with the majority of the members settles its result; on
    healing the other's job is gone, though it was acknowledged, and is refused from then on."""
    story = Scenario("abcde", Node)
    story.choose_key("k", holders="acb")
    story.cut("ab", "cde")
    story.wait(3.0)
    uses = [story.use_key("k", at="a", content="this"), story.use_key("k", at="c", content="that")]
    assert answers(story, *uses) == ["taken", "taken"]
    story.until(lambda: len(story.runs("k")) == 2)
    story.finish("k", on="a")
    story.finish("k", on="c")
    story.until(lambda: the_copy(story, "c", "k").settled)
    told = the_copy(story, "c", "k").outcome
    assert not the_copy(story, "a", "k").settled
    story.mend()
    story.until(lambda: the_copy(story, "a", "k").outcome == told)
    assert any(note.kind == "superseded" for note in the_copy(story, "a", "k").history)
    uses = [story.use_key("k", at="b", content="that"), story.use_key("k", at="b", content="this")]
    assert answers(story, *uses) == ["replayed", "key-reused"]
    story.heal_and_judge()
    assert story.starts("k") == 2


def test_same_key_in_a_mesh_that_has_grown() -> None:
    """a and b, who were all, have decided the key for a, which dies. Then c joins: b and c are a majority of
    three, and only b knows. They give the key to nobody else."""
    story = Scenario("ab", Node, settings=Settings(jobs=JobSettings(replicas=1)))
    story.choose_key("k", holders="a")
    assert answers(story, story.use_key("k", at="a", content="this")) == ["taken"]
    story.kill("a")
    story.join("c")
    story.until(lambda: story.is_ready("c"))
    assert answers(story, story.use_key("k", at="c", content="that")) == ["key-in-flight"]
    story.restart("a")
    story.until(lambda: story.runs("k"))
    assert answers(story, story.use_key("k", at="c", content="that")) == ["key-reused"]
    story.finish("k")
    story.heal_and_judge()


def test_same_key_stand_in_is_away_when_its_life_gives_way() -> None:
    """On the smaller side of a cut e, first in rank, is dead: d has a copy in its place, and goes down. When
    it is back the other side's job stands, and b has dropped its own; d learns of it all the same."""
    two = Settings(jobs=JobSettings(replicas=2, rereplicate_after_s=1.0))
    story = Scenario("abcdefgh", Node, settings=two)
    story.choose_key("k", holders="ebd")
    story.cut("bde", "acfgh")
    story.wait(3.0)
    story.kill("e")
    story.use_key("k", at="d", content="this")
    story.until(lambda: story.copy("k", "b") and story.copy("k", "d"))
    assert the_copy(story, "d", "k").holders == the_copy(story, "b", "k").holders
    assert "d" not in map(short, the_copy(story, "d", "k").holders)
    story.kill("d")
    other = story.use_key("k", at="a", content="that")
    assert answers(story, other) == ["taken"]
    story.until(lambda: story.runs("k"))
    story.finish("k")
    story.mend()
    story.until(lambda: story.copy("k", "b") is None)
    story.restart("d")
    story.until(lambda: story.copy("k", "d") is None)
    story.heal_and_judge()


def test_same_key_owner_of_the_wrong_life_becomes_a_bystander() -> None:
    """On its side of a cut g has taken the key's job over from x. On the other side, where most members are,
    the key is a's and f's. When g hears of that it has a copy of their job, and waits for no answers as the
    owner of its own any more: it learns how theirs ends."""
    story = Scenario("xgafc", Node, settings=Settings(jobs=JobSettings(replicas=2)))
    story.choose_key("k", holders="xgaf")
    story.cut("xg", "afc")
    story.wait(RESTARTED_S)
    uses = story.use_key("k", at="x"), story.use_key("k", at="a")
    assert answers(story, *uses) == ["taken", "taken"]
    story.until(lambda: len(story.runs("k")) == 2, within_s=40.0)
    story.kill("x")
    story.until(lambda: "g" in {name for name, _ in story.runs("k")}, within_s=40.0)
    story.mend()
    story.until(lambda: is_of_the_other_side(story))
    bystander = next(life.core for life in story.world.lives() if short(life.id) == "g")
    assert isinstance(bystander, Node)
    assert not bystander._ballots.is_asking(the_copy(story, "g", "k").id)
    story.finish("k", on="a")
    story.until(lambda: the_copy(story, "g", "k").settled)
    story.heal_and_judge()


def test_same_key_owner_of_the_wrong_life_remembers_its_fences() -> None:
    """a has run the key's job on its side of a cut, and gave way to the side of c, f and b. When those are
    away and the key is used again, a knows the job: it makes no start of the same fence, nor any other."""
    story = Scenario("acfb", Node, settings=Settings(jobs=JobSettings(replicas=1)))
    story.choose_key("k", holders="ac")
    story.cut("a", "cfb")
    story.wait(RESTARTED_S)
    uses = story.use_key("k", at="a"), story.use_key("k", at="c")
    assert answers(story, *uses) == ["taken", "taken"]
    story.until(lambda: len(story.runs("k")) == 2, within_s=40.0)
    story.finish("k", on="c")
    story.until(lambda: the_copy(story, "c", "k").settled)
    story.mend()
    story.until(lambda: the_copy(story, "a", "k").settled)
    story.wait(10.0)
    story.kill("c")
    story.wait(2.0)
    again = story.use_key("k", at="b")
    story.until(lambda: again.answer)
    assert again.answer == "replayed"
    assert story.starts("k") == 2
    story.heal_and_judge()


def is_of_the_other_side(story: Scenario) -> bool:
    copy = story.copy("k", "g")
    return copy is not None and {*map(short, copy.holders)} == {"a", "f"}


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("fate", ["dies", "is cut off"])
def test_at_most_once_entry_retries_elsewhere(fate: str, keyed: bool) -> None:
    """d hears nothing from a, which took its job, and turns to b, with a's start on disk or without: nobody
    starts it twice."""
    story = Scenario("abcd", Node)
    story.lose(Submitted, source="a", to="d")
    if fate == "is cut off":
        story.cut("a", "bc")  # d still reaches it, for a moment
    if keyed:
        story.choose_key("j", holders="abc")
        use = story.use_key("j", at="d", options=ONCE)
    else:
        story.submit("j", at="d", holders="abc", options=ONCE)
    story.until(lambda: story.copy("j", "a") is not None)
    if fate == "dies":
        story.until(lambda: story.runner("j") == "a")
        story.kill("a")
    else:
        story.cut("a", "bcd")
    story.lose_nothing()
    story.until(lambda: bool(use.answer) if keyed else story.is_acknowledged("j"))
    story.until(lambda: story.is_told("j") or story.runs("j"))
    assert story.starts("j") == 1
    if fate == "dies":
        assert end(story.read("j", "b")) is State.FAILED  # nobody can say whether it did its work
    else:
        assert story.runner("j") in "bc"
        story.finish("j")
        story.until(lambda: story.is_told("j"))
    story.heal_and_judge()
    assert story.starts("j") == 1
    assert {short(the_copy(story, name).owner) for name in "abc"} != {"a"}


def test_same_key_settled_on_both_sides_of_a_long_cut() -> None:
    """Each side has forgotten the other, and so decided and ended the key's job with a majority of all it
    knows. Long after they have met again a dies, and d, next in rank, is to have a spare copy, and has the
    other life: of the two one stands, and all that have a copy of the other are told. They would not ask:
    theirs are settled."""
    story = Scenario("abcdef", Node, settings=FORGETFUL)
    story.choose_key("k", holders="adbecf")
    story.cut("abc", "def")
    story.wait(12.0)
    uses = [story.use_key("k", at="b", content="this"), story.use_key("k", at="e", content="that")]
    assert answers(story, *uses) == ["taken", "taken"]
    story.until(lambda: len(story.runs("k")) == 2)
    for side in "ad":
        story.finish("k", on=side)
    story.until(lambda: all(the_copy(story, name, "k").settled for name in "abcdef"))
    story.mend()
    story.kill("c")
    story.restart("c")  # it finds all that there are
    story.wait(3.0)
    assert len({the_copy(story, name, "k").outcome for name in "abcdef"}) == 2
    story.kill("a")
    story.until(lambda: Situation.SETTLED_LIFE_GAVE_WAY in story.reached, within_s=60.0)
    story.wait(3.0)
    assert len({copy.outcome for name in "bcdef" if (copy := story.copy("k", name)) is not None}) == 1
    story.heal_and_judge()
