"""Bugs to plant in the production core, one line each: proof that the simulator's checkers see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from edgenode.core import scheduler
from edgenode.core.custody import Custody
from edgenode.core.desk import NO_PROMISE, Desk, Lead, Table
from edgenode.core.jobs import adopted
from edgenode.core.replication import Replication
from edgenode.core.signals import Effect, Persist, Run
from edgenode.core.types import JobId, NodeId, Wall
from edgenode.core.wire import Promised, Stored

Bug = Callable[[pytest.MonkeyPatch], None]


@contextmanager
def planted(bug: Bug) -> Iterator[None]:
    """The core has this bug within the block, and is whole again after it."""
    with pytest.MonkeyPatch.context() as patch:
        bug(patch)
        yield


def run_before_persist(patch: pytest.MonkeyPatch) -> None:
    flush = Desk.flush

    def run_first(desk: Desk) -> list[Effect]:
        return sorted(flush(desk), key=lambda effect: not isinstance(effect, Run))

    patch.setattr(Desk, "flush", run_first)


def takeover_ignores_answers(patch: pytest.MonkeyPatch) -> None:
    """A would-be owner counts the promises, and does not look at the copies that come with them."""
    on_promises = Custody.on_promises

    def deaf(custody: Custody, source: NodeId, items: Sequence[Promised]) -> None:
        on_promises(custody, source, [item._replace(copy=b"") for item in items])

    patch.setattr(Custody, "on_promises", deaf)


def lower_ballot_acknowledged(patch: pytest.MonkeyPatch) -> None:
    """A holder forgets its promise when a write comes."""
    on_write = Replication.on_write

    def careless(replication: Replication, source: NodeId, blobs: Sequence[bytes]) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Table, "promise", lambda table, job: NO_PROMISE)
            on_write(replication, source, blobs)

    patch.setattr(Replication, "on_write", careless)


def promise_not_persisted(patch: pytest.MonkeyPatch) -> None:
    """A promise is kept in memory only."""
    flush = Table.flush

    def without_promises(table: Table, *clock: Wall) -> Persist | None:
        persist = flush(table, *clock)
        if persist is None:
            return None
        kept = (each._replace(row=each.row._replace(promise=None)) for each in persist.rows if each.row.blob)
        return replace(persist, rows=tuple(kept))

    patch.setattr(Table, "flush", without_promises)


def loose_match_of_acknowledgements(patch: pytest.MonkeyPatch) -> None:
    """Any acknowledgement of a job counts for its latest write."""
    on_acks = Replication.on_acks

    def loose(replication: Replication, source: NodeId, stored: Sequence[Stored]) -> None:
        latest = [(item, replication._writing.get(item.job)) for item in stored]
        exact = [
            item if now is None else item._replace(ballot=now.ballot, write=now.write, firm=now.firm)
            for item, now in latest
        ]
        on_acks(replication, source, exact)

    patch.setattr(Replication, "on_acks", loose)


def provisional_taken_for_firm(patch: pytest.MonkeyPatch) -> None:
    """Whoever goes on without a majority believes itself firm."""
    conclude = Custody._conclude
    patch.setattr(Custody, "_conclude", lambda custody, job, firm: conclude(custody, job, firm=True))


def restamped_result(patch: pytest.MonkeyPatch) -> None:
    """A provisional owner makes a found result its own proposal, as only a firm one may."""
    conclude = Custody._conclude

    def restamping(custody: Custody, job: JobId, *, firm: bool) -> None:
        conclude(custody, job, firm=firm)
        record = custody._table.peek(job)
        if record is not None and record.outcome is not None:
            custody._table.put(adopted(record, record.own.ballot))

    patch.setattr(Custody, "_conclude", restamping)


def restart_goes_on_without_asking(patch: pytest.MonkeyPatch) -> None:
    """An owner believes its own disk after a restart: its fences repeat."""
    check_all = Custody.check_all

    def believing(custody: Custody) -> None:
        for record in custody._table.unsettled():
            if record.owner == custody._desk.me:
                custody._table.leads[record.id] = Lead(record.ballot, True, set(record.holders))
                custody._desk.led.add(record.id)
        check_all(custody)

    patch.setattr(Custody, "check_all", believing)


def strict_jobs_start_like_others(patch: pytest.MonkeyPatch) -> None:
    """At-most-once jobs do not wait for a firm owner and a majority that has their `running`."""
    patch.setattr(scheduler, "_is_strict", lambda options: False)
