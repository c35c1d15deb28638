"""Stories about the two kinds of slots, on production cores. Each ends healed and judged; that no node starts
more of a kind than it has slots for is checked by the world at each start."""

from __future__ import annotations

from collections import Counter

from edgenode.core.node import Node
from edgenode.sim.scenario import Scenario
from edgenode.sim.workers import COROUTINE

WHOLE = [f"whole {number}" for number in range(5)]
SHARED = [f"shared {number}" for number in range(12)]


def crowded() -> Scenario:
    """More jobs of both kinds than three nodes have slots for; a owns them all."""
    story = Scenario("abc", Node, slots=1, async_slots=3)
    for job in WHOLE:
        story.submit(job, at="b", holders="abc")
    for job in SHARED:
        story.submit(job, at="b", holders="abc", task=COROUTINE)
    story.until(lambda: all(story.is_acknowledged(job) for job in (*WHOLE, *SHARED)))
    return story


def runners(story: Scenario, jobs: list[str]) -> Counter[str]:
    return Counter(runner for job in jobs if (runner := story.runner(job)))


def test_both_kinds_of_slots_are_filled_everywhere_and_no_further() -> None:
    story = crowded()
    story.until(lambda: runners(story, WHOLE) == dict.fromkeys("abc", 1), within_s=10.0)
    story.until(lambda: runners(story, SHARED) == dict.fromkeys("abc", 3), within_s=10.0)
    story.wait(5.0)
    assert runners(story, SHARED).total() == 9
    story.heal_and_judge()
    assert {story.starts(job) for job in (*WHOLE, *SHARED)} == {1}


def test_coroutines_go_on_elsewhere_when_their_owner_dies() -> None:
    story = crowded()
    story.until(lambda: runners(story, SHARED).total() == 9 and runners(story, WHOLE).total() == 3)
    story.wait(1.0)  # the holders hear where it runs
    on_a = [job for job in (*WHOLE, *SHARED) if story.runner(job) == "a"]
    kept = [job for job in (*WHOLE, *SHARED) if story.runner(job) in ("b", "c")]
    story.kill("a")
    story.wait(5.0)
    assert [job for job in kept if story.runner(job) not in ("b", "c")] == [], "what ran elsewhere runs on"
    assert runners(story, WHOLE) == dict.fromkeys("bc", 1)
    assert runners(story, SHARED) == dict.fromkeys("bc", 3)
    story.heal_and_judge()
    assert {story.starts(job) for job in on_a} == {2}
    assert {story.starts(job) for job in kept} == {1}
