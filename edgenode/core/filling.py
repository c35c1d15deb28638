"""Which of the jobs that wait here start on which free slots: of this node, or of an idle peer that asked.

    in line     the most urgent first, and of those the oldest: taken for a slot of a node that can run it
    allowed     by its owner's rules (scheduler); else it waits for news outside the lines, or ends
    admitted    by the gates of its queue and its key (permits); else it is back in line, and its slot is kept
                for as long as the permit may be on its way; then the gate is shut
    started     by the scheduler, here or by a grant

A peer that finds a gate shut is remembered for as long as it can be counted on: when the gate opens its slots
are filled, after those here.
"""

from __future__ import annotations

from typing import Final

from edgenode.core.desk import Desk
from edgenode.core.jobs import Record
from edgenode.core.lines import Gate, Need, Place, need_of, queue_gate
from edgenode.core.permits import Permits
from edgenode.core.queues import Queues
from edgenode.core.runner import Runner
from edgenode.core.scheduler import Scheduler
from edgenode.core.specs import Spec, decode_spec
from edgenode.core.types import Instant, NodeId, Room

WANTED_S: Final = 0.8
"""For which part of the time after which an idle peer asks again it can be counted on: it may be sooner."""


class Filling:
    """Drive it with submissions, with peers that ask for work, and after every event. The scheduler starts
    what it picks."""

    def __init__(
        self, desk: Desk, runner: Runner, queues: Queues, permits: Permits, scheduler: Scheduler
    ) -> None:
        self._desk = desk
        self._table = desk.table
        self._runner = runner
        self._queues = queues
        self._permits = permits
        self._scheduler = scheduler
        self._queued = scheduler.queued
        self._callers: dict[NodeId, tuple[Room, Instant]] = {}
        """Idle peers that found a gate shut: they can be granted starts until then."""

    def submitted(self, record: Record) -> Record:
        """A job just made here. Stored as running at once if a slot is free, which saves a write; it runs
        when the submission is acknowledged."""
        return self._scheduler.submitted(record, at_once=self._fits_here(decode_spec(record.spec)))

    def _fits_here(self, spec: Spec) -> bool:
        """Whether a new job finds a free slot here, no gate, and nobody that waits for the slot."""
        if not (self._permits.is_free(need_of(spec)) and self._desk.takes_work):
            return False
        labels = self._labels_of(self._desk.me)
        return labels.issuperset(spec.options.requires) and any(
            spec.task in tasks and not self._has_work_for(tasks) for _, tasks in self._runner.open_slots()
        )

    @property
    def wanted(self) -> Room:
        """The slots here for which nothing waits that this node owns."""
        wanted = [
            max(0, free) if tasks and not self._has_work_for(tasks) else 0
            for free, tasks in zip(self._runner.free, self._runner.tasks_by_slot, strict=True)
        ]
        return Room(*wanted)

    def _has_work_for(self, tasks: frozenset[str]) -> bool:
        """Whether a job with one of these tasks waits that this node can run itself."""
        return self._queued.has_work_for(tasks, self._labels_of(self._desk.me))

    def _labels_of(self, node: NodeId) -> frozenset[tuple[str, str]]:
        info = self._desk.view.info(node)
        return frozenset() if info is None else frozenset(info.labels)

    # -------------------------------------------------------------------------------- here and on peers

    def fill(self) -> bool:
        """Start what may start on the slots that are free. Whether anything did."""
        me = self._desk.me
        if not self._queued or self._desk.leaving:
            return False
        opened = self._permits.take_opened()
        for gate in opened:
            self._queued.open(gate)
        started = 0
        for free, tasks in self._runner.open_slots() if self._desk.takes_work else ():
            started += self._start_on(me, self._desk.view.boot, free, tasks)
        if opened and self._callers:
            started += self._call_back()
        return bool(started)

    def on_want(self, source: NodeId, room: Room) -> None:
        """An idle peer asks for work: grant it what waits here, if it can run it."""
        desk = self._desk
        info = desk.view.info(source)
        if info is None or desk.leaving or not desk.view.is_living(source):
            return
        self._grant_to(source, room, desk.now + WANTED_S * desk.settings.want_s)

    def _call_back(self) -> int:
        """A gate has opened: idle peers that had found it shut may get something now."""
        started, desk = 0, self._desk
        for caller, (room, until) in list(self._callers.items()):
            del self._callers[caller]
            if until > desk.now and desk.view.is_living(caller):
                started += self._grant_to(caller, room, until)
        return started

    def _grant_to(self, runner: NodeId, room: Room, until: Instant) -> int:
        """Start on a peer what it can run; if a gate stands before that, it may be later."""
        info = self._desk.view.info(runner)
        assert info is not None
        started = []
        for free, tasks in zip(room, info.tasks_by_slot, strict=True):
            started.append(self._start_on(runner, info.boot, min(free, self._desk.settings.batch), tasks))
        left = Room(*(free - taken for free, taken in zip(room, started, strict=True)))
        if (self._queued.is_any_shut or self._permits.is_hoping) and any(left):
            self._callers[runner] = left, until
        return sum(started)

    # ------------------------------------------------------------------------------------------- picks

    def _start_on(self, runner: NodeId, boot: int, count: int, tasks: frozenset[str]) -> int:
        """Start up to `count` jobs with these tasks on a node; returns how many."""
        picked = self._pick(count, runner, tasks)
        for record in picked:
            self._scheduler.start(record, runner, boot)
        if len(picked) < count:
            for gate in self._queued.shut_queues(tasks, self._labels_of(runner)):
                self._wish(gate, count - len(picked))
        return len(picked)

    def _pick(self, count: int, runner: NodeId, tasks: frozenset[str]) -> list[Record]:
        """Take up to `count` jobs that `runner` may start now: the most urgent, then the oldest."""
        labels = self._labels_of(runner)
        picked: list[Record] = []
        passed: list[tuple[Need, Place]] = []
        hoped: list[Gate] = []
        kept = 0  # slots for those who are first in line, and whose permits may be on their way
        while len(picked) + kept < count and len(passed) < self._desk.settings.batch:
            first = self._queued.pop(tasks, labels)
            if first is None:
                break
            need, job = first[0], first[1][2]
            if need.queue in self._queues.paused:
                self._queued.shut(queue_gate(need.queue))
                passed.append(first)
                continue
            record = self._table.peek(job)
            if record is None or self._table.acting(job) is None:
                continue
            if self._scheduler.was_refused(job, runner):
                passed.append(first)
            elif self._scheduler.may_start(record, spec := decode_spec(record.spec)):
                gate = self._permits.admit(job, need, spec.options.concurrency_limit)
                if gate is None:
                    picked.append(record)
                else:
                    self._wish(gate, count - len(picked))
                    if hopes := self._permits.hopes(gate):
                        kept += min(hopes, 1 + self._queued.behind(gate))
                        hoped.append(gate)
                    self._queued.shut(gate)
                    passed.append(first)
        for need, place in passed:
            self._queued.add(need, place)
        for gate in hoped:
            self._queued.open(gate)
        return picked

    def _wish(self, gate: Gate, count: int) -> None:
        """So many slots are free for what waits at this gate."""
        if gate[1:] not in self._queues.paused or gate[0] == "k":
            self._permits.wish(gate, max(1, min(count, self._queued.behind(gate))))
