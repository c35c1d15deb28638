"""What clients have asked, and have not been answered yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from edgenode.core.job_ids import is_keyed
from edgenode.core.jobs import Record
from edgenode.core.signals import (
    CancelAsked,
    CancelDone,
    CountAsked,
    CountDone,
    InspectAsked,
    InspectDone,
    QueueAsked,
    QueueDone,
    ReadAsked,
    ReadDone,
    Receipt,
    ReportsAsked,
    ReportsDone,
    RequestId,
    SearchAsked,
    SearchDone,
    SubmitAsked,
    SubmitDone,
)
from edgenode.core.specs import Spec
from edgenode.core.types import JobId, NodeId, Seconds
from edgenode.sim.ledger import Ledger
from edgenode.sim.machines import Life
from edgenode.sim.story import short
from edgenode.sim.violation import Violation

Asked = (
    SubmitAsked
    | ReadAsked
    | SearchAsked
    | InspectAsked
    | ReportsAsked
    | QueueAsked
    | CountAsked
    | CancelAsked
)
Answer = SubmitDone | ReadDone | SearchDone | InspectDone | ReportsDone | QueueDone | CountDone | CancelDone

PATIENCE_S: Final[Seconds] = 2.0
"""How much later than its own timeout an answer may come: the disk is slow, a clock drifts."""


class Waiting(NamedTuple):
    """Somebody waits for an answer."""

    life: Life  # that was asked
    asked: Asked
    answer: Callable[[Answer], None]
    told_before: frozenset[JobId]  # what anybody had been told as settled by then: nobody is told less later


class Requests:
    """Numbers them, and hands each answer to the ledger and to whoever asked."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._made = 0
        self._waiting: dict[RequestId, Waiting] = {}

    def ask(self, life: Life, make: Callable[[RequestId], Asked], answer: Callable[[Answer], None]) -> Asked:
        self._made += 1
        request = RequestId(self._made)
        asked = make(request)
        self._waiting[request] = Waiting(life, asked, answer, frozenset(self._ledger.told))
        return asked

    @property
    def has_open_uses(self) -> bool:
        """Whether a living node owes an answer to somebody who uses a key."""
        return any(
            isinstance(asked, SubmitAsked) and life.alive and any(is_keyed(spec.id) for spec in asked.specs)
            for life, asked, _, _ in self._waiting.values()
        )

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
                assert isinstance(waiting.asked, SubmitAsked)
                self._submitted(waiting.asked.specs, receipts)
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

    def _submitted(self, specs: Sequence[Spec], receipts: tuple[Receipt, ...]) -> None:
        """Each item of a submission has a receipt of its own, in its place."""
        if [receipt.job for receipt in receipts] != [spec.id for spec in specs]:
            raise Violation(f"P1: {len(receipts)} receipts for {len(specs)} jobs, or in another order")
        self._ledger.receipts(receipts)
        for spec, receipt in zip(specs, receipts, strict=True):
            if is_keyed(spec.id):
                self._ledger.keys.answered(spec, receipt)

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
