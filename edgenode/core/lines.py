"""The jobs that wait to be started: in one line per need, the most urgent first, and of those the oldest."""

from __future__ import annotations

import heapq
from typing import Final, NamedTuple

from edgenode.core.types import JobId, Wall

Place = tuple[int, Wall, JobId]
"""In a line: 9 - priority, then by age. (An id made from a key says nothing of age.)"""
Labels = frozenset[tuple[str, str]]
SPARSE: Final = 4
"""A line is swept when it has so many places for each job that still waits: each costs O(1) on average."""


class Need(NamedTuple):
    """What a node must have to run a job."""

    task: str
    requires: tuple[tuple[str, str], ...]

    def is_met_by(self, tasks: frozenset[str], labels: Labels) -> bool:
        return self.task in tasks and labels.issuperset(self.requires)


class Lines:
    """Heaps with lazy removal. Jobs that nobody can run hold up nobody else, and may wait by the thousand:
    those of them that end leave no trace for long."""

    def __init__(self) -> None:
        self._lines: dict[Need, list[Place]] = {}  # none is empty
        self._needs: dict[JobId, Need] = {}  # whose place still counts, and in which line it is
        self._places = 0

    def add(self, need: Need, place: Place) -> None:
        """A job that waits nowhere takes its place."""
        job = place[2]
        assert job not in self._needs
        self._needs[job] = need
        heapq.heappush(self._lines.setdefault(need, []), place)
        self._places += 1
        if self._places > 64 and self._places > SPARSE * len(self._needs):
            self._sweep()

    def drop(self, job: JobId) -> None:
        """It waits no longer, if it did."""
        self._needs.pop(job, None)

    def has_work_for(self, tasks: frozenset[str], labels: Labels) -> bool:
        """Whether anything may wait that such a node can run."""
        return bool(self._needs) and any(need.is_met_by(tasks, labels) for need in self._lines)

    def pop(self, tasks: frozenset[str], labels: Labels) -> tuple[Need, Place] | None:
        """The first job that such a node can run: it leaves its line."""
        open_to = [need for need in self._lines if need.is_met_by(tasks, labels)]
        while open_to:
            need = min(open_to, key=lambda known: self._lines[known][0])
            place = heapq.heappop(self._lines[need])
            self._places -= 1
            if not self._lines[need]:
                open_to.remove(need)
                del self._lines[need]
            if self._needs.get(place[2]) == need:
                del self._needs[place[2]]
                return need, place
        return None

    def _sweep(self) -> None:
        """Let go of the places of jobs that wait no longer."""
        kept = {
            need: {place for place in line if self._needs.get(place[2]) == need}
            for need, line in self._lines.items()
        }
        self._lines = {need: sorted(places) for need, places in kept.items() if places}
        self._places = sum(map(len, self._lines.values()))

    def __contains__(self, job: JobId) -> bool:
        return job in self._needs

    def __len__(self) -> int:
        return len(self._needs)

    @property
    def places(self) -> int:
        """How many are kept, those of jobs that wait no longer too."""
        return self._places
