"""The life of one job, as it is told to people."""

from __future__ import annotations

from sim_records import A, B, C
from sim_stories import running

from edgenode.sim.biography import biographies, most_eventful, tell
from edgenode.sim.scenario import Scenario
from edgenode.sim.weather import both_ways, cut_text


def told(story: Scenario, job: str = "j") -> list[str]:
    """The life of a job, without its times."""
    lives = biographies(story.world.story)
    return [line[10:] for line in tell(story.world.story, lives[story._jobs[job]])][1:]


def test_a_life_tells_where_a_job_was_submitted_held_acknowledged_started_and_settled() -> None:
    story = running("abcd", at="d")
    story.finish("j")
    story.heal_and_judge()
    life = told(story)
    for line in (
        "  submitted to d",
        "  to be held by a, b, c",
        "  a owns it in term 1",
        "  b has it on disk",
        "  start 1a.1 on a",
        "  start 1a.1 ends on a: succeeded",
        "  succeeded, says a",
        "  settled as succeeded: a majority of its holders has that",
    ):
        assert life.count(line) == 1, line
    assert any(line.startswith("  acknowledged to its client: on the disks of a, ") for line in life)
    assert not any(line.startswith("!") for line in life)


def test_a_life_tells_of_the_faults_that_touched_a_job_and_of_the_terms_in_which_others_owned_it() -> None:
    story = running("abcde")
    story.kill("e")  # has nothing to do with it
    story.kill("a")
    story.until(lambda: story.runner("j") == "b")
    story.finish("j")
    story.heal_and_judge()
    life = told(story)
    expected = [
        "! a is killed",
        "  b asks the holders for it, under term 2",
        "  b owns it in term 2",
        "  start 2b.1 on b",
    ]
    assert [line for line in life if line in expected] == expected
    assert not any(line.startswith("! e ") for line in life)


def test_a_life_tells_of_lost_messages_and_cuts() -> None:
    story = running("abc")
    story.world.network.block(both_ways([A], [B]))
    story.world.befell_all("nothing passes: a | b")
    story.finish("j")
    story.wait(0.1)
    story.heal_and_judge()
    life = told(story)
    assert "! nothing passes: a | b" in life
    assert "! a message is lost: Write from a to b" in life


def test_the_most_eventful_job_is_the_one_to_which_most_happened() -> None:
    story = running("abc")
    story.submit("k", at="b", holders="bca")
    story.until(lambda: story.runs("k"))
    story.fail("k")
    story.until(lambda: story.starts("k") == 2)
    life = most_eventful(biographies(story.world.story))
    assert life is not None
    assert life.job == story._jobs["k"]
    assert most_eventful({}) is None


def test_a_cut_is_worded_by_who_cannot_hear_whom() -> None:
    assert cut_text(both_ways([A, B], [C])) == "a,b | c"
    assert cut_text(frozenset({(A, C), (B, C)})) == "a,b > c"
