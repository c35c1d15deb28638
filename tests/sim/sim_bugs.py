"""Bugs to plant in the production core, one line each: proof that the simulator's checkers see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from edgenode.core import desk as desk_module
from edgenode.core import joining, scheduler
from edgenode.core.ballots import Ballots
from edgenode.core.custody import Custody
from edgenode.core.desk import Desk
from edgenode.core.jobs import Record
from edgenode.core.meshclock import MeshClock
from edgenode.core.replication import Replication
from edgenode.core.signals import Effect, Persist, Run
from edgenode.core.table import NO_PROMISE, Lead, Table
from edgenode.core.types import FOREVER, NodeId, Wall
from edgenode.core.wire import Promised, Stored

Bug = Callable[[pytest.MonkeyPatch], None]


@contextmanager
def planted(bug: Bug) -> Iterator[None]:
    """The core has this bug within the block, and is whole again after it."""
    with pytest.MonkeyPatch.context() as patch:
        bug(patch)
        yield


def own_clock_is_believed(patch: pytest.MonkeyPatch) -> None:
    """Days are compared with this machine's clock, whatever the others show."""
    patch.setattr(MeshClock, "wall", lambda clock, now: now + (clock._raw_ahead or 0.0))
    patch.setattr(MeshClock, "sure", MeshClock.wall)


def any_clock_ends_jobs(patch: pytest.MonkeyPatch) -> None:
    """Also a node whose clock is far from the median expires and drops."""
    patch.setattr(MeshClock, "sure", MeshClock.wall)


def pauses_are_days(patch: pytest.MonkeyPatch) -> None:
    """What waits to be tried again waits until the day its last owner wrote, by this machine's clock."""
    patch.setattr(scheduler, "pause_s", lambda record: FOREVER)
    own_clock_is_believed(patch)


def the_past_is_refused(patch: pytest.MonkeyPatch) -> None:
    """Nothing is promised for a job that is past its day, though it is not forgotten."""
    patch.setattr(Desk, "is_forgotten", lambda desk, expires_at: expires_at + 1200.0 <= desk.wall)
    get_many = Table.get_many
    patch.setattr(Ballots, "on_ask", _asks_without_copies(Ballots.on_ask, get_many))


def _asks_without_copies(on_ask: Any, get_many: Any) -> Any:
    def forgetful(ballots: Ballots, source: NodeId, items: Sequence[Any]) -> None:
        with pytest.MonkeyPatch.context() as inner:
            over = {item.job for item in items if ballots._desk.is_forgotten(item.expires_at)}
            inner.setattr(
                Table,
                "get_many",
                lambda table, jobs: {j: r for j, r in get_many(table, jobs).items() if j not in over},
            )
            on_ask(ballots, source, items)

    return forgetful


def the_forgotten_is_taken(patch: pytest.MonkeyPatch) -> None:
    """Who has dropped a job takes an old copy of it."""
    patch.setattr(Desk, "is_forgotten", lambda desk, expires_at: False)


def losses_by_number(patch: pytest.MonkeyPatch) -> None:
    """Of two copies the one that knows of more losses is believed, as if each knew the other's."""
    join = joining.join

    def by_number(a: Record, b: Record) -> Record:
        losses = max(a.losses, b.losses, key=lambda found: (len(found), found))
        return join(a, b)._replace(losses=losses)

    for module in (desk_module, joining):
        patch.setattr(module, "join", by_number)


def silence_counts_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A loss that proved false counts towards the limit."""
    patch.setattr(Record, "loss_count", property(lambda record: len(record.losses)))


def run_before_persist(patch: pytest.MonkeyPatch) -> None:
    flush = Desk.flush

    def run_first(desk: Desk, changed: Sequence[Record]) -> list[Effect]:
        return sorted(flush(desk, changed), key=lambda effect: not isinstance(effect, Run))

    patch.setattr(Desk, "flush", run_first)


def takeover_ignores_answers(patch: pytest.MonkeyPatch) -> None:
    """A would-be owner counts the promises, and does not look at the copies that come with them."""
    on_promises = Ballots.on_promises

    def deaf(ballots: Ballots, source: NodeId, items: Sequence[Promised]) -> None:
        on_promises(ballots, source, [item._replace(copy=b"") for item in items])

    patch.setattr(Ballots, "on_promises", deaf)


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
