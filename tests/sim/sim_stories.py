"""How many stories begin, and what they look at."""

from __future__ import annotations

from edgenode.core.errors import EdgeNodeError
from edgenode.core.jobs import Record
from edgenode.core.node import Node
from edgenode.core.settings import Settings
from edgenode.core.specs import Options
from edgenode.core.types import Delivery, State
from edgenode.sim.scenario import Scenario
from edgenode.sim.story import short

ONCE = Options(max_attempts=1, delivery=Delivery.AT_MOST_ONCE)


# ---------------------------------------------------------------------------------------- beginnings


def running(
    names: str,
    *,
    at: str = "a",
    holders: str = "abc",
    acks: int = 0,
    options: Options | None = None,
    settings: Settings | None = None,
) -> Scenario:
    """A mesh in which job j is acknowledged and runs on the first of its holders."""
    story = Scenario(names, Node, settings=settings)
    story.submit("j", at=at, holders=holders, acks=acks, options=options)
    story.until(lambda: story.is_acknowledged("j") and story.runs("j"))
    return story


def busy(names: str, which: str = "", *, settings: Settings | None = None) -> Scenario:
    """A mesh of one slot a node. Each of `which` (of all, by default) runs a job of its own: `of a`."""
    story = Scenario(names, Node, slots=1, settings=settings)
    which = which or names
    for name in which:
        others = names.replace(name, "")
        story.submit(f"of {name}", at=name, holders=name + others[:2])
    story.until(lambda: all(story.runs(f"of {name}") for name in which))
    return story


def queued(names: str, *, holders: str = "abc", options: Options | None = None) -> Scenario:
    """A mesh in which all are busy, so that the owner of j, which is acknowledged, has it queued."""
    story = busy(names)
    story.submit("j", at=holders[0], holders=holders, options=options)
    story.until(lambda: story.is_acknowledged("j"))
    return story


# --------------------------------------------------------------------------------------------- looks


def the_copy(story: Scenario, at: str, job: str = "j") -> Record:
    """What this node's disk has of the job; it must have something."""
    copy = story.copy(job, at)
    assert copy is not None
    return copy


def owner(story: Scenario, at: str, job: str = "j") -> str:
    """Whose the job is, by this node's disk; "" if that has no copy."""
    copy = story.copy(job, at)
    return "" if copy is None else short(copy.owner)


def end(found: Record | EdgeNodeError) -> State:
    """The state in which a reader saw the job, which must be settled."""
    assert isinstance(found, Record), found
    assert found.settled
    return found.state
