"""When all is done there is silence, and nothing is left in memory."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import pytest
from sim_records import a_spec
from sim_stories import running

from edgenode.core.node import Node
from edgenode.core.replication import Replication
from edgenode.core.types import JobId
from edgenode.sim.rest import Rest, kept_of
from edgenode.sim.scenario import Scenario
from edgenode.sim.violation import Violation


def rest(story: Scenario, job: str = "j") -> None:
    Rest(story.world, [story._jobs[job]]).demand()


def ended(story: Scenario) -> Scenario:
    story.finish("j")
    story.heal_and_judge()
    return story


def test_after_an_ordinary_job_there_is_rest() -> None:
    story = ended(running("abc"))
    rest(story)
    assert story.world.now < 12.0


def test_who_goes_on_talking_about_a_job_that_is_over_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    story = running("abc")
    monkeypatch.setattr(Replication, "on_marked", lambda *args: None)  # no thanks are heard
    ended(story)
    with pytest.raises(Violation, match=r"I15: 60 s after all was done there is no rest: \w has a Mark"):
        rest(story)


def test_who_keeps_a_job_that_is_over_in_memory_is_found() -> None:
    story = ended(running("abc"))
    life = story.world.lives()[1]
    assert isinstance(life.core, Node)
    life.core._scheduler._away._watched[story._jobs["j"]] = None  # type: ignore[assignment]
    with pytest.raises(Violation, match=r"I15: b keeps in memory what is over: ._scheduler._away._watched"):
        rest(story)


class Pair(NamedTuple):
    one: object
    other: object


class Slotted:
    __slots__ = ("part",)

    def __init__(self, part: object) -> None:
        self.part = part


def test_a_job_is_found_wherever_an_object_holds_it() -> None:
    job = a_spec(1).id
    other = JobId(bytes(16))
    holders: list[object] = [{job: 1}, {1: job}, [other, job], (1, (job,)), {job}, deque([job])]
    for holder in [*holders, Pair(1, job), Slotted([job])]:
        assert list(kept_of(holder, {job})), holder
        assert not list(kept_of(holder, {a_spec(2).id})), holder
    loop: list[object] = []
    loop.append(loop)
    assert list(kept_of(loop, {job})) == []
