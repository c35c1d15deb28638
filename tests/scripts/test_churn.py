"""Members that come and go for ever, simulated: nothing that a node keeps in memory grows with them.

Every container inside every node is measured, found by walking through its objects: a new one that nobody
thought of is measured too.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from random import Random

import pytest
from swarm import Member, Swarm

from edgenode.core.roster import Roster
from edgenode.core.settings import PRESETS, Settings
from edgenode.core.situations import Situation

LAN = PRESETS["lan"]
QUICK = replace(
    LAN,
    membership=replace(LAN.membership, dead_keep_s=6.0, left_keep_s=4.0, grace_s=3.0),
    jobs=replace(LAN.jobs, rereplicate_after_s=4.0),
)
STAY = 5
JOBS = 6
BOUNDED = {
    # What each of three parts knows of how fast each of those that stay answers.
    "Pace._known": 3 * (STAY - 1),
    "Pace._patience": 3 * (STAY - 1),
    "Desk.reached": len(Situation),
    "Roster._graves": 1024,
    "Ranking._cache": 65_536,
    "Runner._begun": 10_000,
    "Runner._denied": 10_000,
    "Witness._words": LAN.vouching.identities_max,
    "Witness._words[]": 4 * LAN.vouching.identities_max,
}
"""Memories that fill up to a limit of their own, the oldest going first."""


def containers(thing: object, path: str, seen: set[int]) -> Iterator[tuple[str, int]]:
    """The size of each dict, set, list and deque that can be reached from here without leaving the core."""
    if id(thing) in seen or isinstance(thing, str | bytes | int | float | type | Random):
        return
    seen.add(id(thing))
    if isinstance(thing, Mapping | set | list | deque):
        yield path, len(thing)
        values = list(thing.values()) if isinstance(thing, Mapping) else list(thing)
        for value in values:
            yield from containers(value, path + "[]", seen)
        return
    cls = type(thing)
    if isinstance(thing, tuple) or not cls.__module__.startswith("edgenode.core"):
        return
    names = {name for each in cls.__mro__ for name in getattr(each, "__slots__", ())} | {*vars_of(thing)}
    for name in sorted(names):
        owner = "Roster" if isinstance(thing, Roster) and name in ROSTER else cls.__name__
        yield from containers(getattr(thing, name, None), f"{owner}.{name}", seen)


def vars_of(thing: object) -> Mapping[str, object]:
    return getattr(thing, "__dict__", {})


ROSTER = {"_graves"}


def sizes(member: Member) -> Counter[str]:
    """The sum of the sizes of all containers of one name."""
    found: Counter[str] = Counter()
    for path, size in containers(member.node, "Node", set()):
        found[path] += size
    return found


def churn(swarm: Swarm, visitors: int) -> None:
    """Each comes, hands in jobs, and goes within a second: killed, silent, or after a goodbye."""
    for number in range(visitors):
        visitor = swarm.join()
        swarm.run(0.5)
        swarm.submit(visitor, JOBS)
        swarm.run(0.3)
        (swarm.kill, swarm.leave, swarm.silence, swarm.leave)[number % 4](visitor)
        swarm.run(0.2)


def rest(swarm: Swarm, settings: Settings) -> None:
    """Long enough for the last of them to be forgotten, and for what their jobs still need."""
    swarm.run(2 * settings.membership.dead_keep_s + settings.jobs.rereplicate_after_s + 12.0)


@pytest.fixture(scope="module")
def grown() -> tuple[Swarm, list[Counter[str]], list[Counter[str]]]:
    """A mesh of five after 10 visitors, and after 50 more; with the sizes of all it kept each time."""
    swarm = Swarm(11, QUICK)
    for _ in range(STAY):
        swarm.join()
        swarm.run(0.2)
    stay = list(swarm.members.values())
    churn(swarm, 10)
    rest(swarm, QUICK)
    before = [sizes(member) for member in stay]
    churn(swarm, 50)
    rest(swarm, QUICK)
    return swarm, before, [sizes(member) for member in stay]


def test_after_fifty_identities_the_members_are_those_that_stayed(
    grown: tuple[Swarm, list[Counter[str]], list[Counter[str]]],
) -> None:
    swarm, _, _ = grown
    stay = list(swarm.members)[:STAY]
    assert [member.id for member in swarm.living()] == stay
    for member in swarm.living():
        assert [report.info.id for report in member.node.membership.snapshot()] == stay
        assert set(member.links) <= {*stay}


def test_no_container_of_a_node_grows_with_the_members_and_jobs_that_were(
    grown: tuple[Swarm, list[Counter[str]], list[Counter[str]]],
) -> None:
    _, before, after = grown
    for earlier, later in zip(before, after, strict=True):
        assert len(later) > 50  # the walk reaches them
        growth = {path: (earlier[path], size) for path, size in later.items() if size > earlier[path] + 3}
        for path, limit in BOUNDED.items():
            if path in growth:
                assert growth.pop(path)[1] <= limit
        assert growth == {}


def test_all_acknowledged_jobs_of_those_that_came_and_went_are_settled(
    grown: tuple[Swarm, list[Counter[str]], list[Counter[str]]],
) -> None:
    swarm, _, _ = grown
    rows = [(job, row.settled) for member in swarm.living() for job, row in member.disk.rows.items()]
    assert not [job for job, is_settled in rows if not is_settled]
    assert swarm.acknowledged <= {job for job, _ in rows}
    assert len(swarm.acknowledged) > 60 * JOBS * 0.8
