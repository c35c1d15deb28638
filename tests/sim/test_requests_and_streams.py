"""Every question is answered in time, and every change is told: planted silences and gaps are found."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sim_stories import running

from edgenode.core.desk import Desk
from edgenode.core.jobs import Record
from edgenode.core.node import Node
from edgenode.core.reading import Reading
from edgenode.core.signals import Changed, Effect
from edgenode.sim.scenario import Scenario
from edgenode.sim.trial import Plan, Trial
from edgenode.sim.violation import Violation


def ended() -> Scenario:
    story = running("abc")
    story.finish("j")
    story.heal_and_judge()
    return story


def run(seeds: int) -> None:
    for seed in range(seeds):
        Trial(Plan(seed), Node).run()


def test_a_question_that_is_never_answered_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reading, "_answer", lambda *args: None)
    with pytest.raises(Violation, match=r"I15: \w+ has not answered ReadAsked after 5\.0 s"):
        run(20)


def test_a_change_that_is_never_told_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A settled mark is news for whoever follows the job."""
    flush = Desk.flush

    def silent(desk: Desk, changed: Sequence[Record]) -> list[Effect]:
        return [each for each in flush(desk, changed) if not _is_of_settled(each)]

    monkeypatch.setattr(Desk, "flush", silent)
    story = ended()
    with pytest.raises(Violation, match=r"I16: \w never told how .* is now"):
        story.world.streams.check(story.world.lives())


def _is_of_settled(effect: Effect) -> bool:
    return isinstance(effect, Changed) and any(record.settled for record in effect.records)


def test_a_node_that_tells_an_older_state_again_is_found() -> None:
    story = running("abc")
    before = story.copy("j", "a")
    assert before is not None
    story.finish("j")
    story.heal_and_judge()
    life = story.world.lives()[0]
    with pytest.raises(Violation, match=r"I16: a tells of .* what it was before"):
        story.world.streams.changed(life, (before,))


def test_what_was_told_of_a_job_is_what_there_is() -> None:
    story = ended()
    story.world.streams.check(story.world.lives())


def test_who_drops_a_copy_and_takes_it_again_may_tell_less_of_it_than_before() -> None:
    """It dropped it by a clock that was far ahead, and so soon that what it knew was told after that (seed
    11402)."""
    story = running("abc")
    before = story.copy("j", "a")
    assert before is not None
    story.finish("j")
    story.heal_and_judge()
    after = story.copy("j", "a")
    assert after is not None
    life, streams = story.world.lives()[0], story.world.streams
    streams.dropped(life, before.id)
    streams.changed(life, (after,))
    streams.stored(life, (before.id,))
    streams.changed(life, (before,))
    with pytest.raises(Violation, match=r"I16: a tells of .* what it was before"):
        streams.changed(life, (after, before))
