"""When all is done, nothing is said, written or kept in memory about it any more.

Disks keep what has ended; whatever else still knows of it would grow with every job that was ever run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

from edgenode.core.job_ids import job_text
from edgenode.core.node import Node
from edgenode.core.signals import Changed, Effect, Persist, Run, Send
from edgenode.core.types import JobId, Seconds
from edgenode.sim.disk import Disk
from edgenode.sim.machines import Life
from edgenode.sim.story import jobs_in, short
from edgenode.sim.violation import Violation
from edgenode.sim.world import World

QUIET_S: Final[Seconds] = 6.0
"""Longer than the longest pause between two tries of anything (`JobSettings.retry_max_s`)."""
REST_S: Final[Seconds] = 60.0
"""Until when there has to be such a silence."""
SHOWN: Final = 5
BOUNDED: Final = (
    "._runner._begun",
    "._runner._denied",
    "._scheduler.queued._blocks",
    "._mending.",
    "._upkeep._cursor",
)
"""Where a core remembers so many of the latest starts, lest one begins twice; rows that were damaged, which
are asked for some 15 s long, and again of a member that returns; and how far a walk through all rows is."""
SWEPT: Final = "._heap[][]"
PROMISES: Final = "._promises[]"
"""A promise without a copy: its disk is bound by it until the job's last day, though others became the
holders before a copy came."""


class Rest:
    """Watches a mesh in which these jobs have ended, and every copy is where it belongs."""

    def __init__(self, world: World, done: Collection[JobId]) -> None:
        self._world = world
        self._done = frozenset(done)
        self._last: tuple[Seconds, Life, object] | None = None
        world.on_effect = self._heard

    def demand(self) -> None:
        """Run on until all is quiet.

        Raises:
            Violation: it never is; or somebody has something in memory about what is over.
        """
        world = self._world
        quiet_from = world.now
        deadline = world.now + REST_S
        while not self._is_quiet(quiet_from):
            if world.now >= deadline:
                raise Violation(f"I15: {REST_S:.0f} s after all was done there is no rest: {self._tell()}")
            quiet_from = world.now
        for life in world.lives():
            if not isinstance(life.core, Node):
                continue  # a stand-in may remember what it likes
            disk = life.machine.disk
            kept = {
                path
                for path, job in kept_of(life.core, self._done)
                if not any(place in path for place in BOUNDED)
                and not path.endswith(SWEPT)
                and not (path.endswith(PROMISES) and disk.record(job) is None)
            }
            if kept:
                told = ", ".join(sorted(kept)[:SHOWN])
                raise Violation(f"I15: {short(life.id)} keeps in memory what is over: {told}")

    def _is_quiet(self, since: Seconds) -> bool:
        """For some time nobody has said anything; and nobody keeps questions until it knows of its vote."""
        self._world.run_until(since + QUIET_S)
        is_open = any(not life.core.has_vote and not life.machine.disk.behind for life in self._world.lives())
        return not is_open and (self._last is None or self._last[0] < since)

    def _heard(self, life: Life, effect: Effect) -> None:
        if isinstance(effect, Send | Persist | Run | Changed):
            about = effect.message if isinstance(effect, Send) else effect
            if not self._done.isdisjoint(jobs_in(about)):
                self._last = self._world.now, life, about

    def _tell(self) -> str:
        if self._last is None:
            return "somebody does not know yet whether its disk has a vote"
        at, life, about = self._last
        jobs = sorted(self._done.intersection(jobs_in(about)))[:SHOWN]
        what = type(about).__name__
        return f"{short(life.id)} has a {what} about {', '.join(map(job_text, jobs))} at {at:.2f} s"


def kept_of(core: object, jobs: Collection[JobId]) -> Iterator[tuple[str, JobId]]:
    """Where in the objects that make up a core which of these jobs is named, apart from its disk."""
    seen: set[int] = set()
    todo: list[tuple[str, Any]] = [("", core)]
    while todo:
        path, value = todo.pop()
        if isinstance(value, bytes):
            if value in jobs:
                yield path, JobId(value)
            continue
        if value is None or isinstance(value, str | int | float | type | Disk) or id(value) in seen:
            continue
        seen.add(id(value))
        todo += [(f"{path}{step}", part) for step, part in _parts(value)]


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        return [("[]", part) for entry in value.items() for part in entry]
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [("[]", part) for part in value]
    slots = (name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()))
    names = {*getattr(value, "__dict__", ()), *slots}
    return [(f".{name}", getattr(value, name, None)) for name in sorted(names)]
