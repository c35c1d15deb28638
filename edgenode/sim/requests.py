"""What clients have asked, and have not been answered yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from edgenode.core.jobs import Record
from edgenode.core.signals import (
    CancelAsked,
    CancelDone,
    InspectAsked,
    InspectDone,
    QueueAsked,
    QueueDone,
    ReadAsked,
    ReadDone,
    ReportsAsked,
    ReportsDone,
    RequestId,
    SearchAsked,
    SearchDone,
    SubmitAsked,
    SubmitDone,
)
from edgenode.core.types import JobId, NodeId, Seconds
from edgenode.sim.ledger import Ledger
from edgenode.sim.machines import Life
from edgenode.sim.story import short
from edgenode.sim.violation import Violation

Asked = SubmitAsked | ReadAsked | SearchAsked | InspectAsked | ReportsAsked | QueueAsked | CancelAsked
Answer = SubmitDone | ReadDone | SearchDone | InspectDone | ReportsDone | QueueDone | CancelDone

PATIENCE_S: Final[Seconds] = 2.0
"""How much later than its own timeout an answer may come: the disk is slow, a clock drifts."""


class Waiting(NamedTuple):
    """Somebody waits for an answer."""

    answer: Callable[[Answer], None]
    told_before: frozenset[JobId]  # what anybody had been told as settled by then: nobody is told less later


class Requests:
    """Numbers them, and hands each answer to the ledger and to whoever asked."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._made = 0
        self._waiting: dict[RequestId, Waiting] = {}

    def ask(self, make: Callable[[RequestId], Asked], answer: Callable[[Answer], None]) -> Asked:
        self._made += 1
        request = RequestId(self._made)
        self._waiting[request] = Waiting(answer, frozenset(self._ledger.told))
        return make(request)

    def drop(self, request: RequestId) -> None:
        """Its client is told that nobody knows."""
        del self._waiting[request]

    def answered(self, answer: Answer, met: Callable[[], set[NodeId]]) -> None:
        """A node has answered, which has met these others."""
        if answer.request not in self._waiting:
            raise Violation(f"request {answer.request} is answered twice")
        waiting = self._waiting.pop(answer.request)
        match answer:
            case SubmitDone(_, receipts):
                self._ledger.receipts(receipts)
            case ReadDone(_, records, errors):
                self.shown(records.values())
                for job, error in errors.items():
                    self._ledger.unfound(job, error, met(), waiting.told_before)
            case SearchDone(_, records=found):
                self.shown(found)
            case CancelDone(_, jobs):
                self._ledger.cancel_noted(jobs)
            case InspectDone(_, copies):
                self.shown(copy for copy in copies.values() if copy is not None)
        waiting.answer(answer)

    def shown(self, records: Iterable[Record]) -> None:
        for record in records:
            self._ledger.shown(record)

    def demand_answer(self, life: Life, asked: Asked, after_s: Seconds) -> None:
        """I15: whoever lives and has not stood still answers in time, if only that it does not know."""
        is_awake = life.alive and not life.paused and life.stood_still_at < life.asked_at[asked.request]
        if asked.request in self._waiting and is_awake:
            what = type(asked).__name__
            raise Violation(f"I15: {short(life.id)} has not answered {what} after {after_s:.1f} s")


def patience_s(asked: Asked) -> Seconds:
    """When a client stops waiting."""
    wait_s = asked.wait_s if isinstance(asked, ReadAsked) else 0.0
    return max(asked.timeout_s, wait_s) + PATIENCE_S
