"""The jobs that wait to be started: in one line per need, the most urgent first, and of those the oldest.

Lines that share a task, its labels and a queue make a row; a row has one line for each concurrency key. Rows
that share a task and its labels make a block. Each has a heap of the first places of what it is made of: who
comes next is found in a few steps, however many queues and keys there are. (That may be as many as there are
customers; different tasks, and labels that jobs need, are few.)

A gate, of a queue or of a key, can be shut: what waits behind it costs nothing until it is opened again.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
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
    """What the jobs of a block have in common."""

    task: str
    requires: tuple[tuple[str, str], ...]

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
        return Kind(self.task, self.requires)


def need_of(spec: Spec) -> Need:
    options = spec.options
    return Need(spec.task, options.requires, options.queue, options.concurrency_key)


Shut = dict[Gate, dict[Need, None]]
"""The shut gates, each with what was passed over since: lines of its key, or rows of its queue (no key)."""


@dataclass(slots=True, eq=False)
class Row:
    """The lines of one queue, by concurrency key; none is empty. `heads` finds the first of them all: a heap
    with lazy removal, in which each line that was not passed over has its first place."""

    need: Need  # without a key
    lines: dict[str, list[Place]] = field(default_factory=dict)
    heads: list[tuple[Place, str]] = field(default_factory=list)

    def need_with(self, key: str) -> Need:
        """What the jobs of one of its lines need."""
        return self.need._replace(key=key) if key else self.need

    def head(self, shut: Shut) -> tuple[Place, str] | None:
        """The first place of the lines that are not shut, and whose it is."""
        while self.heads:
            place, key = self.heads[0]
            line = self.lines.get(key)
            if line is not None and line[0] == place:
                passed = shut.get(key_gate(key)) if key else None
                if passed is None:
                    return self.heads[0]
                passed[self.need_with(key)] = None
            heapq.heappop(self.heads)
        return None

    def push(self, key: str, place: Place) -> bool:
        """Whether its line begins with this place."""
        line = self.lines.setdefault(key, [])
        heapq.heappush(line, place)
        is_first = line[0] is place
        if is_first:
            self.show(key)
        return is_first

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


@dataclass(slots=True, eq=False)
class Block:
    """The rows of one kind, by queue; none is empty. `heads` finds the first of them all, as in a row; but a
    row may begin later by now than is said there, since the gate of a key is shut without a word to the rows.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    heads: list[tuple[Place, str]] = field(default_factory=list)

    def head(self, shut: Shut) -> tuple[Place, Need] | None:
        """The first place of the rows that are not shut, and in which line it is."""
        while self.heads:
            found, queue = self.heads[0]
            row, first = self.rows.get(queue), None
            if row is not None:
                passed = shut.get(queue_gate(queue))
                if passed is None:
                    first = row.head(shut)
                else:
                    passed[row.need] = None
            if row is None or first is None:
                heapq.heappop(self.heads)
            elif first[0] == found:
                return found, row.need_with(first[1])
            else:
                heapq.heapreplace(self.heads, (first[0], queue))
        return None

    def push(self, need: Need, place: Place) -> None:
        row = self.rows.get(need.queue)
        if row is None:
            row = self.rows[need.queue] = Row(need._replace(key=""))
        if row.push(need.key, place):
            self._show_row(row)

    def take(self) -> None:
        """Remove what `head` has found."""
        found = self.heads[0]
        while self.heads and self.heads[0] == found:  # it may be there more than once
            heapq.heappop(self.heads)
        row = self.rows[found[1]]
        row.take()
        if row.lines:
            self._show_row(row)
        else:
            del self.rows[found[1]]

    def show(self, need: Need) -> None:
        """This line, or this row, is not shut any more."""
        row = self.rows.get(need.queue)
        if row is not None:
            if need.key:
                row.show(need.key)
            self._show_row(row)

    def _show_row(self, row: Row) -> None:
        if row.heads:
            heapq.heappush(self.heads, (row.heads[0][0], row.need.queue))
            if len(self.heads) > 64 and len(self.heads) > SPARSE * len(self.rows):
                firsts = ((row.heads[0][0], queue) for queue, row in self.rows.items() if row.heads)
                self.heads = sorted(firsts)


class Lines:
    """Heaps with lazy removal. Jobs that nobody can run hold up nobody else, and may wait by the thousand:
    those of them that end leave no trace for long."""

    def __init__(self) -> None:
        self._blocks: dict[Kind, Block] = {}  # none is empty
        self._needs: dict[JobId, Need] = {}  # whose place still counts, and in which line it is
        self._since: Wall = 0.0  # of the last that came: those of a batch share the object, too
        self._same: Shared[Need, Need] = Shared()  # one object for all jobs of a line
        self._shut: Shut = {}
        self._shut_queues: dict[Gate, None] = {}  # those of them
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
        self._blocks.setdefault(need.kind, Block()).push(need, place)
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
        return any(block.head(self._shut) is not None for block in self._met_by(tasks, labels))

    def _met_by(self, tasks: frozenset[str], labels: Labels) -> Iterator[Block]:
        return (block for kind, block in self._blocks.items() if kind.is_met_by(tasks, labels))

    def pop(self, tasks: frozenset[str], labels: Labels) -> tuple[Need, Place] | None:
        """The first job that such a node can run: it leaves its line."""
        blocks = list(self._met_by(tasks, labels))
        while True:
            heads = [(head, block) for block in blocks if (head := block.head(self._shut)) is not None]
            if not heads:
                return None
            (place, need), block = min(heads, key=lambda found: found[0][0])
            block.take()
            self._places -= 1
            if not block.rows:
                del self._blocks[need.kind]
                blocks.remove(block)
            if self._needs.get(place[2]) == need:
                self.drop(place[2])
                return need, place

    def _sweep(self) -> None:
        """Let go of the places of jobs that wait no longer."""
        rows = [row for block in self._blocks.values() for row in block.rows.values()]
        self._blocks, self._places = {}, 0
        for row in rows:
            for key, line in row.lines.items():
                need = row.need_with(key)
                for place in sorted({place for place in line if self._needs.get(place[2]) == need}):
                    self._blocks.setdefault(need.kind, Block()).push(need, place)
                    self._places += 1

    # ------------------------------------------------------------------------------------- gates

    def shut(self, gate: Gate) -> None:
        """What waits behind this gate is passed over from now on."""
        self._shut.setdefault(gate, {})
        if gate[0] == "q":
            self._shut_queues[gate] = None

    def open(self, gate: Gate) -> None:
        """What waits behind this gate may be taken again."""
        self._shut_queues.pop(gate, None)
        for need in self._shut.pop(gate, ()):
            block = self._blocks.get(need.kind)
            if block is not None:
                block.show(need)

    @property
    def is_any_shut(self) -> bool:
        return bool(self._shut)

    def shut_queues(self, tasks: frozenset[str], labels: Labels) -> list[Gate]:
        """The shut gates of queues in which something waits that such a node can run."""
        if not self._shut_queues:
            return []
        blocks = list(self._met_by(tasks, labels))
        return [gate for gate in self._shut_queues if any(gate[1:] in block.rows for block in blocks)]

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
