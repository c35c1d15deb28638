"""Copies of finished jobs where they belong: walks through the archive after members came, died or leave.

A job that goes on is looked after by its owner. A settled one has none, so its copies look after each other:

    a holder came (back)        -> it is offered what it holds: jobs may have ended while it was away
    a holder is dead for long   -> the next in rank are offered a spare copy, without a vote
    a job ended in a small mesh -> so too, for each holder that it has fewer than R, when there are others
    a spare is not taken        -> the next in rank is offered it: that one's clock was far ahead once
    a holder does not take one  -> the copy with the latest day is offered again, now and then; once that is
                                   taken, it is as if the holder had come
    a job's owner is dead       -> all its holders are offered it: what the owner knew of who lacks it is gone
    this node leaves            -> others are offered what too few of them have
    all who are to have a job have it, and this node is none of them -> the spare copy here goes

An *offer* is a digest. Who has the same says so, who lacks the job asks for it, who has another copy sends
that; it is repeated until the taker confirms, or dies. (The pull half of anti-entropy: Demers et al. 1987,
"Epidemic Algorithms for Replicated Database Maintenance", section 1.3, on demand instead of all the time: a
mesh at rest compares nothing.) A walk reads a few rows at a time; one serves all who came or died by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from edgenode.core.agenda import Agenda
from edgenode.core.desk import Desk
from edgenode.core.job_bytes import digest
from edgenode.core.jobs import Record, majority
from edgenode.core.quorums import majority_of
from edgenode.core.rendezvous import Ranking
from edgenode.core.signals import Row
from edgenode.core.situations import Situation
from edgenode.core.specs import decode_spec
from edgenode.core.types import FOREVER, NOBODY, Instant, JobId, NodeId, Seconds, Wall
from edgenode.core.wire import Digest, Offer

WALK_ROWS: Final = 200
WALK_PAUSE_S: Final = 0.05
"""4,000 finished jobs a second: a million is looked at in minutes, and nobody notices."""
OFFERS_MAX: Final = 400
"""How many unconfirmed offers a walk runs ahead of. Looking at so many takes some 25 ms, for each of
those who walk: all, when all come back at once. Pings wait behind that."""
START: Final = JobId(b"")


@dataclass(slots=True)
class Offered:
    """A copy that others are to have, until they say so."""

    takers: set[NodeId]
    digest: bytes
    pause_s: Seconds
    is_surplus: bool = False  # the copy here goes when all have confirmed
    is_needed: bool = False  # this node leaves, and its copy must be elsewhere first


class Upkeep:
    """Drive it with membership changes, confirmations and time; it answers through the desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._table = desk.table
        self._met: dict[NodeId, int] = {}  # living members, and the life in which they were told of
        self._dead_by: dict[NodeId, Instant] = {}  # members that died, by when their jobs get spare copies
        self._came: set[NodeId] = set()  # since the present walk began
        self._able: set[NodeId] = set()  # who has begun to take jobs since then, having come before
        self._buried: set[NodeId] = set()  # who was dead for long by then; some may be forgotten since
        self._is_wanted = False  # a walk, after the present one
        self._walk_at: Instant = FOREVER
        self._cursor: JobId | None = None  # how far the present walk is
        self._back: set[NodeId] = set()  # whom the present walk is about
        self._taking: set[NodeId] = set()  # of those who take jobs: who came, or began to
        self._dead: set[NodeId] = set()
        self._is_early = False  # for a holder that nobody knows: it may turn up
        self._is_short = False  # some job has holders that nobody knows (any more), or fewer than R
        self._finds_short = False  # so the present walk has found
        self._offered: dict[JobId, Offered] = {}
        self._asked: dict[NodeId, JobId] = {}  # holders that took no copies of some days: do they take this?
        self._due: Agenda[JobId] = Agenda()
        self._leaving_at: JobId | None = None  # how far a leaving node has looked for what others need
        self._is_leaving = False
        self._ranking = Ranking({})  # of who takes jobs, as far as is known
        self._counted_on: frozenset[NodeId] = frozenset()  # by this leaving node: all that stay
        self.stranded = 0  # copies of a leaving node that nobody else can take

    # ------------------------------------------------------------------------------ members and time

    def members_changed(self, changed: frozenset[NodeId]) -> None:
        """See who came, and who is gone."""
        desk = self._desk
        view = desk.view
        is_short = self._is_short or self._finds_short
        has_lost = is_short or any(map(self._is_lost, view.members()))
        for node in changed - {desk.me}:
            if view.is_living(node) and not view.is_behind(node):
                self._dead_by.pop(node, None)
                if self._met.get(node) != view.boot_of(node):
                    self._met[node] = view.boot_of(node)
                    self._came.add(node)
                    self._walk_soon()
                elif has_lost and node in view.ranking().members - self._ranking.members:
                    self._able.add(node)  # it took no jobs yet when it came: it may be the next in rank
                    self._walk_soon()
                continue
            self._met.pop(node, None)
            self._came.discard(node)
            desk.closed.pop(node, None)  # it is asked anew when it is back
            self._asked.pop(node, None)
            if self._is_lost(node) and node not in self._dead_by:
                self._dead_by[node] = desk.now + desk.settings.rereplicate_after_s
                self._walk_at = min(self._walk_at, self._dead_by[node])
        before, self._ranking = self._ranking, view.ranking()
        ranked = self._ranking.members
        has_fewer = ranked < before.members and desk.me in ranked  # then others lack a spare, after a while
        if is_short and self._ranking is not before and not has_fewer:
            self._walk_soon()  # a spare copy here may be for others to have now
        if not self._is_leaving:
            return
        staying = ranked - {desk.me}
        if not self._counted_on <= staying or (self.stranded and staying != self._counted_on):
            desk.reach(Situation.LEAVING_RECOUNTED)
            self.part()  # who was counted on is gone, or leaves; or who came may take what nobody could

    def _walk_soon(self) -> None:
        """In a moment: more may come, and who came has its own start behind it then."""
        self._is_wanted = True
        self._walk_at = min(self._walk_at, self._desk.now + self._desk.settings.retry_s)

    def deadline(self) -> Instant:
        return min(self._walk_at, self._due.next())

    def on_time(self) -> None:
        """Repeat what nobody confirmed, and look at the next rows."""
        desk = self._desk
        for job in self._due.take_due(desk.now):
            self._offer_again(job)
        if self._walk_at > desk.now:
            return
        self._walk_at = FOREVER
        for node, at in list(self._dead_by.items()):
            died_at = desk.view.dead_since(node)
            if died_at is not None:  # it may have died once more meanwhile
                at = self._dead_by[node] = max(at, died_at + desk.settings.rereplicate_after_s)
            if at <= desk.now:
                del self._dead_by[node]
                self._buried.add(node)
                self._is_wanted = True
            else:
                self._walk_at = min(self._walk_at, at)
        if self._cursor is None and self._is_wanted:
            self._begin_walk()
        if len(self._offered) < OFFERS_MAX:
            self._walk()
            self._walk_leaving()
        if self._cursor is not None or self._leaving_at is not None:
            self._walk_at = min(self._walk_at, desk.now + WALK_PAUSE_S)

    # ------------------------------------------------------------------------------------- the walk

    def _begin_walk(self) -> None:
        self._is_wanted = self._is_early = self._finds_short = False
        self._back, self._came = self._came, set()
        self._taking, self._able = self._back | self._able, set()
        # Of all that stay dead: who came may be the next in rank, and who died may have had a spare copy.
        view = self._desk.view
        self._dead = {n for n in view.members() if view.is_behind(n) or self._desk.is_long_dead(n)}
        self._dead |= self._buried
        self._buried = set()
        self._cursor = START
        for record in self._table.settling():
            self._visit(record)  # the rows that the disk has do not show it yet

    def _visit(self, record: Record) -> None:
        takers = self._takers(record)
        if takers:
            self._offer(record, takers)
        self._look_at(record)

    def _walk(self) -> None:
        """Look at the next rows."""
        desk = self._desk
        if self._cursor is None:
            return
        rows = self._table.scan(self._cursor, WALK_ROWS)
        for row in rows:
            record = self._read(row)
            if record is not None and record.settled:  # or else it has an owner
                self._visit(record)
        self._cursor = rows[-1].id if rows else None
        if self._cursor is not None:
            return
        self._back, self._taking, self._dead = set(), set(), set()
        self._is_short = self._finds_short
        if not (self._is_wanted or self._is_early):
            return
        pause_s = desk.settings.retry_s if self._is_wanted else desk.settings.rereplicate_after_s
        self._is_wanted = True
        self._walk_at = min(self._walk_at, desk.now + pause_s)

    def _read(self, row: Row) -> Record | None:
        return self._table.in_memory(row.id) or (self._desk.read(row.blob) if row.blob else None)

    def _takers(self, record: Record) -> set[NodeId]:
        """Who is to be offered this copy, by this node, for all that the present walk is about."""
        desk = self._desk
        living = [holder for holder in desk.living_holders(record) if holder != desk.me]
        takers: set[NodeId] = set()
        for node in record.holders:
            is_stranger = self._is_stranger(node)
            self._finds_short |= is_stranger
            if node in self._back and node in living:
                if self._speaks(record, node):
                    desk.reach(Situation.RETURNED_HOLDER_OFFERED)
                    takers.add(node)
            elif (is_stranger or node in self._dead) and self._is_lost(node) and self._speaks(record, node):
                if spares := desk.spares(record):
                    desk.reach(Situation.SPARE_OF_SETTLED)
                    takers.update(spares)
                if record.owner == node:
                    takers.update(living)
            if is_stranger and not desk.is_long_dead(node):
                self._is_early = True
        return takers | self._stand_ins(record)

    def _stand_ins(self, record: Record) -> set[NodeId]:
        """Who is to be offered this copy by this node since the job has too few holders. Who came may be one
        of these, and who died may have been."""
        if not self._desk.missing(record):
            return set()
        self._finds_short = True
        if not (self._dead or self._taking) or not self._speaks(record, NOBODY):
            return set()
        spares = {*self._desk.spares(record)}
        if not self._dead:
            spares &= self._taking
        if spares:
            self._desk.reach(Situation.SPARE_IN_GROWN_MESH)
        return spares

    def _is_lost(self, node: NodeId) -> bool:
        """Whether what its disk has is no copy that anybody may count on."""
        view = self._desk.view
        return view.is_behind(node) or view.dead_since(node) is not None

    def _is_stranger(self, node: NodeId) -> bool:
        return node != self._desk.me and self._desk.view.info(node) is None

    def _speaks(self, record: Record, node: NodeId) -> bool:
        """Whether it is for this node to offer a copy because of what happened to `node`.

        Settled is what a majority has: so few holders may lack it, of which one is a node that came and is to
        be offered it (not so one that died: it may have been of the majority). One more than these speak, and
        the owner, whose list of who lacks it a restart has wiped out. Where no holder is left, it is for
        whoever has a spare copy.
        """
        desk = self._desk
        if record.owner == desk.me:
            return True
        others = [holder for holder in desk.living_holders(record) if holder != node]
        count, is_lacking = len(record.holders), node in record.holders and not self._is_lost(node)
        may_lack = max(0, count - majority_of(count) - is_lacking)
        return not others or desk.me in others[: may_lack + 1]

    # -------------------------------------------------------------------------------------- offers

    def _offer(self, record: Record, takers: Iterable[NodeId]) -> Offered:
        desk = self._desk
        offered = self._offered.get(record.id)
        if offered is None:
            offered = Offered(set(), b"", desk.settings.retry_s)
            self._offered[record.id] = offered
        offered.digest = digest(record)
        offered.takers |= {*takers}
        self._send(record.id, offered)
        return offered

    def _ask_later(self, holder: NodeId, record: Record) -> None:
        """A holder takes no copy. If a clock is, or was, far ahead, there or here, it will take some again:
        of those it refused this one first."""
        desk = self._desk
        before, self._asked[holder] = self._asked.get(holder, record.id), record.id
        if before != record.id and before in self._offered:
            self._confirm(holder, before, self._offered[before])
        pause_s = desk.settings.retry_max_s
        offered = self._offered.setdefault(record.id, Offered(set(), digest(record), pause_s))
        offered.takers.add(holder)
        self._due.set(record.id, desk.now + pause_s)

    def _look_anew(self, holder: NodeId) -> None:
        """A holder that took no copies may take them now: it is as if it had come."""
        del self._asked[holder]
        self._desk.closed.pop(holder, None)
        self._came.add(holder)
        self._walk_soon()

    def _send(self, job: JobId, offered: Offered) -> None:
        for node in sorted(offered.takers):
            self._desk.post.add(node, Offer, Digest(job, offered.digest))
        self._due.set(job, self._desk.now + offered.pause_s)

    def _offer_again(self, job: JobId) -> None:
        """Somebody did not confirm in time. Whoever is dead by now does not count, and gets no copy."""
        desk, offered = self._desk, self._offered[job]
        gone = {node for node in offered.takers if not desk.view.is_living(node)}
        offered.takers -= gone
        record = self._table.get(job)
        if gone and offered.is_surplus:
            # Who is gone may only have stood in for a holder: another does now. If the copy here is still one
            # too many, all that are to have it are asked anew. No walk may come after this.
            offered.is_surplus = record is not None and self._is_superfluous(record)
            if record is not None and offered.is_surplus:
                offered.takers = self._rightful(record)
        if record is None or not offered.takers:
            self.stranded += offered.is_needed and record is not None
            self._forget(job)
            return
        offered.pause_s = min(offered.pause_s * 2, desk.settings.retry_max_s)
        offered.digest = digest(record)
        self._send(job, offered)

    def on_offers(self, items: Iterable[Digest]) -> None:
        """Somebody, who may be about to leave, counts on these copies here: what the holders of a spare one
        confirmed before does not count any more."""
        for item in items:
            offered = self._offered.get(item.job)
            if (
                offered is not None
                and offered.is_surplus
                and (record := self._table.get(item.job)) is not None
            ):
                offered.takers = self._rightful(record)

    def on_taken(self, source: NodeId, items: Iterable[Digest]) -> None:
        """`source` has these copies as they were offered."""
        for item in items:
            offered = self._offered.get(item.job)
            if self._asked.get(source) == item.job:
                self._desk.reach(Situation.REFUSING_HOLDER_OPEN)
                self._look_anew(source)
            if offered is not None and offered.digest == item.digest:
                self._confirm(source, item.job, offered)

    def on_expired(self, source: NodeId, jobs: Sequence[JobId]) -> None:
        """`source` has forgotten these, and takes no copy. If their day is not over, and it was to stand in
        for a holder, the next in rank is."""
        known = self._table.get_many(jobs)
        for job in jobs:
            offered, record = self._offered.get(job), known.get(job)
            if offered is not None:
                offered.is_surplus = False
                offered.takers.discard(source)
            if record is not None and (others := self._others_than(source, record, offered)):
                self._offer(record, others)
            elif record is not None and self._is_for_asking(source, record):
                self._ask_later(source, record)
            elif offered is not None:
                self._confirm(source, job, offered)

    def _is_for_asking(self, source: NodeId, record: Record) -> bool:
        """Whether a holder took no copy of this settled job, and of none with a later day."""
        if not record.settled or source not in record.holders or self._is_leaving:
            return False
        asked = self._table.get(self._asked.get(source, record.id))
        return asked is None or _day(asked) <= _day(record)

    def _others_than(self, source: NodeId, record: Record, offered: Offered | None) -> list[NodeId]:
        """Who is to have a copy instead of `source`, which takes none though its day is not over."""
        desk = self._desk
        if source in record.holders or desk.takes(source, record):
            return []
        if offered is not None and offered.is_needed:
            others = self._heirs(record)
        else:
            others = {*desk.spares(record)} if record.settled else set()
        return [node for node in others if desk.takes(node, record)]

    def _confirm(self, source: NodeId, job: JobId, offered: Offered) -> None:
        offered.takers.discard(source)
        if offered.takers:
            return
        self._forget(job)
        record = self._table.get(job) if offered.is_surplus else None
        if record is not None and self._is_superfluous(record):
            if digest(record) != offered.digest:
                self._look_at(record)  # more became known of it meanwhile: the holders are to have that too
            else:
                self._desk.reach(Situation.SPARE_DROPPED)
                self._desk.shed(record)

    def forget(self, jobs: Iterable[JobId]) -> None:
        """Nothing of these is here any more."""
        for job in jobs:
            self._forget(job)

    def _forget(self, job: JobId) -> None:
        self._offered.pop(job, None)
        self._due.drop(job)
        for holder in [holder for holder, asked in self._asked.items() if asked == job]:
            self._look_anew(holder)  # its day is over, or a clock here was wrong

    # ------------------------------------------------------------------------- copies without a vote

    def react(self, jobs: Iterable[JobId]) -> None:
        """These copies have changed: some may not be wanted here any more, or be what others need of a node
        that leaves."""
        me = self._desk.me
        for job in jobs:
            record = self._table.peek(job)
            if record is None:
                continue
            if self._is_leaving:
                self._leave_behind(record)
            elif record.settled:
                if self._desk.missing(record):
                    self._is_short = self._finds_short = True
                if record.owner == me:
                    self._has_settled(record)
                if me not in record.holders:
                    self._look_at(record)

    def _has_settled(self, record: Record) -> None:
        """A job of this owner: if it is to have spare copies the walk that would tell so may be over."""
        if any(map(self._is_stranger, record.holders)):
            self._is_short = self._finds_short = True
        if spares := self._desk.spares(record):
            self._desk.reach(Situation.SPARE_OF_SETTLED)
            self._offer(record, spares)

    def restored(self, jobs: Iterable[JobId]) -> None:
        """These were fetched again after damage, or know more than before. Until then this node had nothing
        (as good) to offer to a holder that came, and the others may have left that to it."""
        desk = self._desk
        for job in jobs:
            record = self._table.get(job)
            if record is None or not record.settled or desk.me not in record.holders:
                continue
            if others := [holder for holder in desk.living_holders(record) if holder != desk.me]:
                self._offer(record, others)

    def _look_at(self, record: Record) -> None:
        if self._is_superfluous(record):
            self._offer(record, self._rightful(record)).is_surplus = True

    def _rightful(self, record: Record) -> set[NodeId]:
        """Who is to have a settled job: its holders, and whoever stands in for them."""
        return {*record.holders, *self._desk.spares(record)}

    def _is_superfluous(self, record: Record) -> bool:
        """Whether the copy here may go once all who are to have it do.

        A former holder keeps its copy until the job's last day, for those that still take it for a holder: it
        tells them of the next epoch.
        """
        desk = self._desk
        if (
            desk.me in record.holders
            or not record.settled
            or self._is_leaving
            or desk.needs_copy_here(record)
        ):
            return False
        if record.epoch > 0 or self._table.is_bound(record):
            return False
        if any(ballot.owner == desk.me for ballot, _ in record.starts):
            return False  # as the owner of another life of its key: those fences must not be made again
        holders = desk.living_holders(record)
        return len(holders) == len(record.holders) and not any(map(desk.view.is_leaving, holders))

    # ------------------------------------------------------------------------------------- leaving

    def part(self) -> None:
        """This node leaves: see to it that no job loses its last copies. Done when `parted`."""
        self._is_leaving = True
        self._counted_on = self._desk.view.ranking().members - {self._desk.me}
        self.stranded = 0
        for job in [job for job, offered in self._offered.items() if offered.is_needed]:
            self._forget(job)
        self._leaving_at = START
        self._walk_at = self._desk.now

    @property
    def parted(self) -> bool:
        """Whether enough other disks have what this one has, as far as there are any."""
        return self._leaving_at is None and not any(each.is_needed for each in self._offered.values())

    def _walk_leaving(self) -> None:
        """Offer what too few others have, and count what nobody can take."""
        if self._leaving_at is None:
            return
        rows = self._table.scan(self._leaving_at, WALK_ROWS)
        self._leaving_at = rows[-1].id if rows else None
        for row in rows:
            record = self._read(row)
            if record is not None:
                self._leave_behind(record)

    def _leave_behind(self, record: Record) -> None:
        is_safe = self._is_safe_without_me(record)
        if is_safe and not record.settled:
            return
        takers = self._heirs(record)
        self.stranded += not takers
        if not is_safe:
            self._desk.reach(Situation.LEAVER_OFFERS_COPY if takers else Situation.LEAVER_STRANDED)
        if takers:
            self._offer(record, takers).is_needed = True

    def needed_votes(self) -> int:
        """Unsettled jobs that cannot be settled without this node: it must come back for them."""
        return sum(
            count
            for holders, count in self._table.holders().items()
            if self._desk.me in holders and not majority(len(self._staying(holders)), holders)
        )

    def _staying(self, holders: tuple[NodeId, ...]) -> list[NodeId]:
        ranked = self._desk.view.ranking().members
        return [h for h in holders if h != self._desk.me and h in ranked]

    def _is_safe_without_me(self, record: Record) -> bool:
        """Whether all other holders stay, as far as this node knows: each has its copy, or its owner writes
        until it has. (Those to whom this node handed the job on have no owner that writes to them yet.) They
        have to confirm the copies of finished jobs all the same: they may have just begun to leave."""
        if self._desk.me not in record.holders and not record.settled:
            return False
        staying = self._staying(record.holders)
        return bool(staying) and len(staying) >= len(record.holders) - (self._desk.me in record.holders)

    def _heirs(self, record: Record) -> set[NodeId]:
        """Who should confirm a copy before this node goes: the holders that stay, and spares for the rest."""
        staying = self._staying(record.holders)
        others = len(record.holders) - (self._desk.me in record.holders)
        missing = max(others - len(staying), 0 if staying else 1)
        return {*staying, *self._desk.next_in_rank(record)[:missing]}


def _day(record: Record) -> Wall:
    return decode_spec(record.spec).expires_at
