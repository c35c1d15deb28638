"""The jobs that wait to be started: in one line per need, the most urgent first, and of those the oldest.

Lines that share a task, its labels and a queue make a row; a row has one line for each concurrency key. A
gate, of a queue or of a key, can be shut: what waits behind it costs nothing until it is opened again.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from edgenode.core.sharing import Shared
from edgenode.core.specs import Spec
from edgenode.core.types import JobId, Wall

Place = tuple[int, Wall, JobId]
"""In a line: 9 - priority, then by age. (An id made from a key says nothing of age.)"""
Labels = frozenset[tuple[str, str]]
Gate = str
"""What several lines may be shut by: the queue, or the concurrency key, of their jobs."""
SPARSE: Final = 4
"""A line is swept when it has so many places for each job that still waits: each costs O(1) on average."""


def queue_gate(queue: str) -> Gate:
    return f"q{queue}"


def key_gate(key: str) -> Gate:
    return f"k{key}"


class Kind(NamedTuple):
    """What the jobs of a row have in common."""

    task: str
    requires: tuple[tuple[str, str], ...]
    queue: str

    def is_met_by(self, tasks: frozenset[str], labels: Labels) -> bool:
        return self.task in tasks and labels.issuperset(self.requires)


class Need(NamedTuple):
    """What a node must have to run a job, and the gates that must be open for it."""

    task: str
    requires: tuple[tuple[str, str], ...]
    queue: str = "default"
    key: str = ""  # "": no concurrency key

    @property
    def kind(self) -> Kind:
        return Kind(self.task, self.requires, self.queue)


def need_of(spec: Spec) -> Need:
    options = spec.options
    return Need(spec.task, options.requires, options.queue, options.concurrency_key)


@dataclass(slots=True)
class Row:
    """The lines of one kind, by concurrency key; none is empty. `heads` finds the first of them all: a heap
    with lazy removal, in which each line that is not shut has its first place."""

    lines: dict[str, list[Place]] = field(default_factory=dict)
    heads: list[tuple[Place, str]] = field(default_factory=list)

    def head(self, shut: Set[Gate]) -> tuple[Place, str] | None:
        """The first place of the lines that are not shut, and whose it is."""
        while self.heads:
            place, key = self.heads[0]
            line = self.lines.get(key)
            if line is not None and line[0] == place and not (key and key_gate(key) in shut):
                return self.heads[0]
            heapq.heappop(self.heads)
        return None

    def push(self, key: str, place: Place) -> None:
        line = self.lines.setdefault(key, [])
        heapq.heappush(line, place)
        if line[0] is place:
            self.show(key)

    def take(self) -> None:
        """Remove what `head` has found."""
        _, key = heapq.heappop(self.heads)
        line = self.lines[key]
        heapq.heappop(line)
        if line:
            heapq.heappush(self.heads, (line[0], key))
        else:
            del self.lines[key]

    def show(self, key: str) -> None:
        """This line is not shut, and begins with another place than before."""
        line = self.lines.get(key)
        if line is not None:
            heapq.heappush(self.heads, (line[0], key))
            if len(self.heads) > 64 and len(self.heads) > SPARSE * len(self.lines):
                self.heads = sorted((line[0], key) for key, line in self.lines.items())


class Lines:
    """Heaps with lazy removal. Jobs that nobody can run hold up nobody else, and may wait by the thousand:
    those of them that end leave no trace for long."""

    def __init__(self) -> None:
        self._rows: dict[Kind, Row] = {}  # none is empty
        self._open: dict[Kind, Row] = {}  # those of them whose queue is not shut
        self._needs: dict[JobId, Need] = {}  # whose place still counts, and in which line it is
        self._since: Wall = 0.0  # of the last that came: those of a batch share the object, too
        self._same: Shared[Need, Need] = Shared()  # one object for all jobs of a line
        self._shut: set[Gate] = set()
        self._counts: Counter[Gate] = Counter()  # jobs behind each gate, shut or not
        self._places = 0

    def add(self, need: Need, place: Place) -> None:
        """A job that waits nowhere takes its place."""
        urgency, since, job = place
        assert job not in self._needs
        if since != self._since:
            self._since = since
        place = (urgency, self._since, job)
        self._needs[job] = self._same.one(need, need)
        self._counts[queue_gate(need.queue)] += 1
        if need.key:
            self._counts[key_gate(need.key)] += 1
        kind = need.kind
        row = self._rows.get(kind)
        if row is None:
            row = self._rows[kind] = Row()
            if queue_gate(kind.queue) not in self._shut:
                self._open[kind] = row
        row.push(need.key, place)
        self._places += 1
        if self._places > 64 and self._places > SPARSE * len(self._needs):
            self._sweep()

    def drop(self, job: JobId) -> None:
        """It waits no longer, if it did."""
        need = self._needs.pop(job, None)
        if need is not None:
            self._uncount(queue_gate(need.queue))
            if need.key:
                self._uncount(key_gate(need.key))

    def _uncount(self, gate: Gate) -> None:
        self._counts[gate] -= 1
        if not self._counts[gate]:
            del self._counts[gate]
            if gate[0] == "k":  # there is no end of keys: who comes next finds its gate open, and asks
                self.open(gate)

    def has_work_for(self, tasks: frozenset[str], labels: Labels) -> bool:
        """Whether anything may wait that such a node can run, at an open gate."""
        if not self._needs:
            return False
        rows = (row for kind, row in self._open.items() if kind.is_met_by(tasks, labels))
        return any(row.head(self._shut) is not None for row in rows)

    def pop(self, tasks: frozenset[str], labels: Labels) -> tuple[Need, Place] | None:
        """The first job that such a node can run: it leaves its line."""
        open_to = [(kind, row) for kind, row in self._open.items() if kind.is_met_by(tasks, labels)]
        while True:
            heads = [(head, kind) for kind, row in open_to if (head := row.head(self._shut)) is not None]
            if not heads:
                return None
            (place, key), kind = min(heads, key=lambda found: found[0][0])
            row = self._rows[kind]
            row.take()
            self._places -= 1
            if not row.lines:
                del self._rows[kind], self._open[kind]
                open_to.remove((kind, row))
            need = Need(*kind, key)
            if self._needs.get(place[2]) == need:
                self.drop(place[2])
                return need, place

    def _sweep(self) -> None:
        """Let go of the places of jobs that wait no longer."""
        kept: dict[Need, set[Place]] = {}
        for kind, row in self._rows.items():
            for key, line in row.lines.items():
                need = Need(*kind, key)
                kept[need] = {place for place in line if self._needs.get(place[2]) == need}
        self._rows = {}
        for need, places in kept.items():
            if places:
                row = self._rows.setdefault(need.kind, Row())
                row.lines[need.key] = sorted(places)
                row.show(need.key)
        self._places = sum(len(line) for row in self._rows.values() for line in row.lines.values())
        self._open = {kind: row for kind, row in self._rows.items() if self._is_open(kind)}

    def _is_open(self, kind: Kind) -> bool:
        return queue_gate(kind.queue) not in self._shut

    # ------------------------------------------------------------------------------------- gates

    def shut(self, gate: Gate) -> None:
        """What waits behind this gate is passed over from now on."""
        if gate in self._shut:
            return
        self._shut.add(gate)
        if gate[0] == "q":
            self._open = {kind: row for kind, row in self._open.items() if self._is_open(kind)}

    def open(self, gate: Gate) -> None:
        """What waits behind this gate may be taken again."""
        if gate not in self._shut:
            return
        self._shut.discard(gate)
        if gate[0] == "q":
            self._open |= {kind: row for kind, row in self._rows.items() if queue_gate(kind.queue) == gate}
        else:
            for row in self._rows.values():
                row.show(gate[1:])

    @property
    def is_any_shut(self) -> bool:
        return bool(self._shut)

    def shut_queues(self, tasks: frozenset[str], labels: Labels) -> list[Gate]:
        """The shut gates of queues in which something waits that such a node can run."""
        if len(self._open) == len(self._rows):
            return []
        shut = (kind for kind in self._rows if kind not in self._open and kind.is_met_by(tasks, labels))
        return list(dict.fromkeys(queue_gate(kind.queue) for kind in shut))

    def held_at(self, job: JobId) -> Gate:
        """A shut gate that this job waits behind; "" if there is none, or if it waits in no line."""
        need = self._needs.get(job)
        if need is None or not self._shut:
            return ""
        if need.key and key_gate(need.key) in self._shut:
            return key_gate(need.key)
        return queue_gate(need.queue) if queue_gate(need.queue) in self._shut else ""

    def behind(self, gate: Gate) -> int:
        """How many jobs wait behind a gate, shut or not."""
        return self._counts.get(gate, 0)

    def by_queue(self) -> dict[str, int]:
        """How many jobs wait in each queue."""
        return {gate[1:]: count for gate, count in self._counts.items() if gate[0] == "q"}

    def __contains__(self, job: JobId) -> bool:
        return job in self._needs

    def __len__(self) -> int:
        return len(self._needs)

    @property
    def places(self) -> int:
        """How many are kept, those of jobs that wait no longer too."""
        return self._places
