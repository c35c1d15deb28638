"""Copies: writing to the holders, counting exact acknowledgements, settling, and keeping copies alike.

The owner writes; a holder acknowledges a write only under a ballot at least as high as its promise, and an
acknowledgement means exactly "this write is on this disk". What follows from counting them, here and
nowhere else:

    submission   on `acks` disks                          -> the receipt is sent, and a first start allowed
    gate         `running` with the holders               -> a job that was taken over may start
    settled      a firm outcome on a majority of holders  -> told as settled; the mark spreads lazily
    thanks       a runner's result on `acks` disks        -> the runner may forget it

What arrives as `Copies` (offers, anti-entropy) is merged, and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from edgenode.core.agenda import Agenda
from edgenode.core.desk import Desk
from edgenode.core.job_bytes import digest, encode
from edgenode.core.jobs import Record, majority, settled
from edgenode.core.joining import is_same_life
from edgenode.core.pace import Pace
from edgenode.core.quorums import majority_of
from edgenode.core.resting import Rest
from edgenode.core.sharing import Shared
from edgenode.core.situations import Situation
from edgenode.core.specs import decode_spec
from edgenode.core.table import Lead
from edgenode.core.types import (
    FOREVER,
    Ballot,
    Delivery,
    Instant,
    JobId,
    NodeId,
    Partition,
    Promise,
    Seconds,
    StartToken,
)
from edgenode.core.wire import (
    Acks,
    Copies,
    Digest,
    Expired,
    Mark,
    Marked,
    Marks,
    Refusal,
    Refused,
    ResultTaken,
    Stored,
    Taken,
    TokenItem,
    Wanted,
    Write,
)

SEEN_AT_ONCE: Final = 2_000
"""So many resting jobs are looked at together when members change: some milliseconds."""


@dataclass(slots=True)
class Writing:
    """The owner's latest write of one job, and who has it."""

    ballot: Ballot
    write: int
    firm: bool  # of the outcome in it
    sent_at: Instant
    pause_s: float
    again_at: Instant = FOREVER
    is_repeated: bool = False
    stored: set[NodeId] = field(default_factory=set)  # exactly this write
    known: set[NodeId] = field(default_factory=set)  # any write under this ballot: they hold the job
    gated: bool = False  # somebody waits for `running` to be with the holders
    gate_ends_at: Instant = FOREVER
    thanks: dict[StartToken, NodeId] = field(default_factory=dict)
    refused: set[NodeId] = field(default_factory=set)  # by who has forgotten the job, and takes no copy


class Written(NamedTuple):
    """What stays of the write of a resting job: the same object for all jobs of which this is so."""

    ballot: Ballot
    write: int
    firm: bool
    stored: frozenset[NodeId]
    known: frozenset[NodeId]
    refused: frozenset[NodeId]


class Writings(dict[JobId, Writing]):
    """The owner's writes. Those of resting jobs are kept small, and made whole when they are asked for."""

    __slots__ = ("_pause_s", "_same", "resting")

    def __init__(self, pause_s: Seconds) -> None:
        """
        Args:
            pause_s: the first pause before a write that was made whole is repeated.
        """
        super().__init__()
        self._pause_s = pause_s
        self.resting: dict[JobId, Written] = {}
        self._same: Shared[Written, Written] = Shared()

    def rest(self, job: JobId) -> None:
        """Everybody has this write, and nobody waits for it."""
        one = self.pop(job)
        sets = frozenset(one.stored), frozenset(one.known), frozenset(one.refused)
        written = Written(one.ballot, one.write, one.firm, *sets)
        self.resting[job] = self._same.one(written, written)

    def whole(self, job: JobId) -> Writing | None:
        """The write of a job, if this node made one."""
        found = self.get(job)
        if found is not None or job not in self.resting:
            return found
        was = self.resting.pop(job)
        found = self[job] = Writing(was.ballot, was.write, was.firm, -FOREVER, self._pause_s)
        found.stored, found.known, found.refused = {*was.stored}, {*was.known}, {*was.refused}
        found.is_repeated = True  # when it was sent is not known any more
        return found

    def drop(self, job: JobId) -> None:
        self.pop(job, None)
        self.resting.pop(job, None)


@dataclass(slots=True)
class Spreading:
    """A settled job whose mark is not on every living holder yet."""

    mark: Mark
    holders: tuple[NodeId, ...]
    missing: set[NodeId]
    pause_s: float


class Replication:
    """Drive it with messages, membership changes and time; it answers through the desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._table = desk.table
        self._writing = Writings(desk.settings.retry_s)
        self._waiting: dict[JobId, None] = {}  # submissions whose acknowledgements are not complete
        self._spreading: dict[JobId, Spreading] = {}
        self._late: Agenda[JobId] = Agenda()  # writes that wait for another that makes them needless
        self._due: Agenda[JobId] = Agenda()  # writes to be repeated, and gates whose time is up
        self._unseen: list[JobId] = []  # resting jobs that were not looked at since members changed,
        self._changed: frozenset[NodeId] = frozenset()  # these
        self._marks_due: Agenda[JobId] = Agenda()
        self._marks_at: Instant = 0.0
        self._pace = Pace(desk.settings.retry_s, desk.settings.retry_max_s)

    # ------------------------------------------------------------------------------ the owner's side

    def send_later(self, jobs: Iterable[JobId]) -> None:
        """The owner wrote these, and expects to write them again soon: send what is so in a moment."""
        for job in jobs:
            if job not in self._late:
                self._late.set(job, self._desk.now + self._desk.settings.start_lag_s)

    def send(self, jobs: Iterable[JobId]) -> None:
        """The owner wrote these: send them to the other holders, and count from one again."""
        desk, table = self._desk, self._table
        for job in jobs:
            self._late.drop(job)
            record = table.peek(job)
            lead = table.lead(job)
            if record is None or lead is None or record.settled:
                continue
            before = self._writing.whole(job)
            firm = record.outcome is not None and record.outcome.firm
            writing = Writing(
                record.own.ballot,
                record.own.write,
                firm,
                desk.now,
                desk.settings.retry_s,
            )
            if before is not None and before.ballot == writing.ballot:
                writing.known = before.known
                writing.thanks, writing.refused = before.thanks, before.refused
                # A start that waits for its gate waits on, when its owner wrote something else meanwhile.
                writing.gated, writing.gate_ends_at = before.gated, before.gate_ends_at
            # Its own disk counts at once: every effect that says so comes after the Persist.
            writing.stored.add(desk.me)
            writing.known.add(desk.me)
            self._writing[job] = writing
            blob = table.blob(record)
            for node in self._readers(record):
                desk.post.add(node, Write, blob)
                writing.pause_s = max(writing.pause_s, self._pace.patience_s(node))
            writing.again_at = desk.now + writing.pause_s
            self._due.set(job, min(writing.again_at, writing.gate_ends_at))
            self._count(record, writing)

    def _readers(self, record: Record) -> list[NodeId]:
        """Who gets the owner's writes: the other holders that live, who stands in for them, and those who are
        to become holders."""
        desk = self._desk
        newcomers = [node for node in desk.newcomers.get(record.id, ()) if desk.view.is_living(node)]
        stand_ins = desk.stand_ins(record)
        if stand_ins:
            desk.reach(Situation.STAND_IN)
        nodes = dict.fromkeys([*desk.living_holders(record), *stand_ins, *newcomers])
        nodes.pop(desk.me, None)
        return list(nodes)

    def send_again(self, jobs: Iterable[JobId]) -> None:
        """Somebody is to have these who does not, yet."""
        for job in jobs:
            writing, record = self._writing.whole(job), self._table.peek(job)
            if writing is not None and record is not None:
                writing.again_at = self._desk.now
                self._due.soon(job, self._desk.now)
                self._count(record, writing)

    def await_acks(self, job: JobId) -> None:
        """Say `acknowledged` when the submission is on enough disks. (Not if this node owns it no longer: its
        next owner says so, or it is asked for again when this one is.)"""
        record, writing = self._table.peek(job), self._writing.whole(job)
        if record is not None and writing is not None:
            self._waiting[job] = None
            self._count(record, writing)

    def await_gate(self, job: JobId) -> None:
        """Say `gated` when the present write (`running`) is where it must be before the run."""
        record, writing = self._table.peek(job), self._writing.whole(job)
        if record is None or writing is None:
            return
        writing.gated = True
        options = decode_spec(record.spec).options
        if options.delivery is Delivery.AT_LEAST_ONCE and options.partition is Partition.RUN:
            writing.gate_ends_at = self._desk.now + self._desk.settings.gate_s
            self._due.soon(job, writing.gate_ends_at)
        self._count(record, writing)

    def thank(self, job: JobId, token: StartToken, runner: NodeId) -> None:
        """Tell `runner` to forget its result once the present write is on `acks` disks."""
        record, writing = self._table.peek(job), self._writing.whole(job)
        if record is None or writing is None:
            self._desk.post.add(runner, ResultTaken, TokenItem(job, token))
            return
        writing.thanks[token] = runner
        self._count(record, writing)

    def holding(self, job: JobId) -> tuple[NodeId, ...]:
        """The nodes known to have this job on disk, as its owner knows: the durability receipt."""
        writing = self._writing.whole(job)
        return tuple(sorted(writing.known)) if writing is not None else (self._desk.me,)

    def on_acks(self, source: NodeId, stored: Sequence[Stored]) -> None:
        if self._desk.view.is_behind(source):
            return
        took_s: Seconds | None = None
        for item in stored:
            writing = self._writing.get(item.job) or self._writing.whole(item.job)
            if writing is None or writing.ballot != item.ballot:
                self._desk.reach(Situation.STRAY_ACK)
                continue
            record = self._table.peek(item.job)
            if record is None or record.epoch != item.epoch:
                continue
            writing.known.add(source)
            if item.job in self._desk.voteless:
                self._desk.voteless[item.job].discard(source)
            if item.write == writing.write and item.firm == writing.firm:
                writing.stored.add(source)
                if not writing.is_repeated:
                    took_s = self._desk.now - writing.sent_at
            else:
                self._desk.reach(Situation.ACK_OF_EARLIER_WRITE)
            self._count(record, writing)
        if took_s is not None and self._desk.view.is_living(source):
            self._pace.took(source, took_s)

    def _count(self, record: Record, writing: Writing) -> None:
        """What the acknowledgements so far allow."""
        desk, job = self._desk, record.id
        lead = self._table.lead(job)
        if lead is None or writing.ballot != record.own.ballot:
            return
        # If the owner has written again in this very event nobody can have acknowledged that yet.
        is_latest = writing.write == record.own.write
        if job in self._waiting or writing.thanks:
            needed, keepers = desk.acks_needed(record), {desk.me, *record.holders, *desk.stand_ins(record)}
            if job in self._waiting and len(writing.known & keepers) >= needed:
                del self._waiting[job]
                desk.acknowledged.add(job)
            if is_latest and writing.thanks and len(writing.stored & keepers) >= needed:
                for token, runner in writing.thanks.items():
                    desk.post.add(runner, ResultTaken, TokenItem(job, token))
                writing.thanks = {}
        if not is_latest:
            return
        if writing.gated and self._gate_is_open(record, writing, lead):
            writing.gated = False
            writing.gate_ends_at = FOREVER
            desk.gated.add(job)
        if record.moving:
            self._try_move(record, writing, lead)
        elif record.outcome is not None:
            self._try_settle(record, writing, lead)
        elif job in desk.newcomers and writing.known.issuperset(desk.newcomers[job]):
            desk.movable.add(job)

    def _try_move(self, record: Record, writing: Writing, lead: Lead) -> None:
        """Whether the holders have decided that others follow them: exactly as they decide an outcome."""
        move = record.move
        assert move is not None
        if not lead.firm or move.ballot != record.own.ballot:
            return
        if majority(len(writing.stored.intersection(record.holders)), record.holders):
            self._desk.moved.add(record.id)

    def _gate_is_open(self, record: Record, writing: Writing, lead: Lead) -> bool:
        options = decode_spec(record.spec).options
        if options.delivery is Delivery.AT_MOST_ONCE or options.partition is Partition.WAIT:
            stored = len(writing.stored.intersection(record.holders))
            is_open = lead.firm and majority(stored, record.holders)
            if is_open:
                self._desk.reach(Situation.GATE_STRICT)
            return is_open
        living = self._desk.living_holders(record)
        if len(writing.stored.intersection(living)) >= majority_of(len(living)):
            return True
        if self._desk.now < writing.gate_ends_at:
            return False
        self._desk.reach(Situation.GATE_TIMED_OUT)
        return True

    def _try_settle(self, record: Record, writing: Writing, lead: Lead) -> None:
        outcome = record.outcome
        assert outcome is not None
        if outcome.settled or not majority(len(writing.stored.intersection(record.holders)), record.holders):
            return
        if not lead.firm or not outcome.firm or outcome.ballot != record.own.ballot:
            self._desk.reach(Situation.PROVISIONAL_RESULT_UNSETTLED)
            return
        self._desk.reach(Situation.SETTLED)
        done = settled(record)
        self._table.put(done)
        self._desk.merged.add(record.id)  # custody lets go of it
        self._spread(done)

    def may_rest(self, record: Record) -> bool:
        """Whether everybody who should have the owner's write has it. Then it is kept small."""
        job = record.id
        if job in self._waiting or job in self._late or job in self._desk.newcomers:
            return False
        writing = self._writing.get(job)
        if writing is None:
            return True
        if writing.gated or writing.thanks or not writing.stored.issuperset(self._readers(record)):
            return False
        self._due.drop(job)
        self._writing.rest(job)
        return True

    def _look_at_resting(self, jobs: Iterable[JobId], changed: frozenset[NodeId]) -> None:
        """Make those whole that somebody may lack by now, and write them again. Jobs that have the same
        holders, and of whose write the same is known, are one question."""
        desk, writings = self._desk, self._writing
        is_well: dict[tuple[int, int], bool] = {}
        for job in jobs:
            written = writings.resting.get(job)
            if written is None:
                if (writing := writings.get(job)) is not None:  # made whole before it was its turn
                    self._look_at(job, writing, changed)
                continue
            rest = self._table.resting(job)
            if rest is None:  # its record has changed, or is lost
                writings.whole(job)
                continue
            pair = id(rest), id(written)
            if pair not in is_well:
                living = {*desk.living_of(rest.holders)}
                is_lacking = len(living) < len(rest.holders) and rest.acks > len({*living, desk.me})
                is_void = any(map(desk.view.is_behind, written.stored | written.known))
                is_far = changed.isdisjoint({*rest.holders, *written.known})
                is_well[pair] = is_far or (
                    not (is_lacking or is_void) and written.stored | {desk.me} >= living
                )
            if not is_well[pair] and (writing := writings.whole(job)) is not None:
                self._look_at(job, writing, changed)

    def _resting_readers(self, job: JobId, rest: Rest) -> set[NodeId]:
        """As `_readers`, of a resting job that has no newcomers."""
        desk = self._desk
        nodes = {*desk.living_of(rest.holders), *desk.stand_ins_of(job, rest.holders, rest.acks)}
        return nodes - {desk.me}

    def release(self, jobs: Iterable[JobId]) -> None:
        """This node is the owner no longer: nothing more follows from acknowledgements."""
        for job in jobs:
            if self._table.lead(job) is None:
                self._writing.drop(job)
                self._waiting.pop(job, None)
                self._late.drop(job)
                self._due.drop(job)

    # ----------------------------------------------------------------------------- the holder's side

    def on_write(self, source: NodeId, blobs: Sequence[bytes]) -> None:
        """Store and acknowledge; or refuse, with the promise that stands and what is here."""
        desk, table = self._desk, self._table
        copies = [(record, blob) for blob in blobs if (record := desk.read(blob)) is not None]
        mine = table.get_many([record.id for record, _ in copies])
        for record, blob in copies:
            job = record.id
            have = table.peek(job) or mine.get(job)
            given = table.promise(job)
            asked = Promise(record.epoch, record.own.ballot)
            joined = desk.merge_into(have, record, blob)
            if joined is None:
                desk.post.add(source, Expired, job)
                continue
            if record.settled:
                # The last word needs no vote. This disk's may be given to a higher ballot, and not in memory.
                desk.post.add(source, Marked, job)
                continue
            if joined.settled:
                # Old news about a finished job: the settled copy is the answer.
                desk.reach(Situation.RESURRECTED_REFUSED)
                desk.post.add(source, Copies, encode(joined))
                continue
            is_outvoted = given > asked or record.owner != source or not table.may_vote(job)
            if is_outvoted or not _says(joined, record):
                desk.reach(Situation.WRITE_OUTVOTED if is_outvoted else Situation.WRITE_BEHIND_COPY)
                copy = encode(joined)
                desk.post.add(source, Refused, Refusal(job, record.epoch, record.own.ballot, given, copy))
                continue
            firm = record.outcome is not None and record.outcome.firm
            item = Stored(job, record.epoch, record.own.ballot, record.own.write, firm)
            desk.post.add(source, Acks, item)
            if joined is not have and joined == record and source in record.holders:
                desk.told.add(job)

    def on_refused(self, refusals: Sequence[Refusal]) -> None:
        """Somebody knows better: what they know is merged (this node asks again, if need be)."""
        for refusal in refusals:
            copy = self._desk.read(refusal.copy) if refusal.copy else None
            if copy is not None:
                mine = self._table.get(copy.id)
                joined = self._desk.merge_into(mine, copy)
                if joined is not None:
                    self._share(mine, joined, copy)

    def _share(self, mine: Record | None, joined: Record, copy: Record, source: NodeId | None = None) -> None:
        """Tell of a settled job what nobody asks for. Its holders, and whoever (a spare one, say) sent the
        copy that lacks it, hear what only this node knew: a start, say. And the holders of another life of
        its key hear that theirs has given way, as the one here did: it is settled too, so that no duty brings
        them to ask."""
        desk = self._desk
        nodes: list[NodeId | None] = []
        if joined.settled and copy.settled and joined != copy:
            desk.reach(Situation.SETTLED_COPY_COMPLETED)
            nodes += (*desk.living_holders(joined), source)
        if mine is not None and mine.settled and not is_same_life(mine, joined):
            desk.reach(Situation.SETTLED_LIFE_GAVE_WAY)
            nodes += desk.living_holders(mine)
        for node in dict.fromkeys(nodes):
            if node is not None and node != desk.me:
                desk.post.add(node, Copies, encode(joined))

    # --------------------------------------------------------------------------- settled marks, spread

    def _spread(self, record: Record) -> None:
        desk = self._desk
        nodes = {h for h in record.holders if h != desk.me}
        if not nodes:
            return
        assert record.outcome is not None
        mark = Mark(record.id, record.epoch, record.outcome.ballot)
        self._spreading[record.id] = Spreading(mark, record.holders, nodes, desk.settings.retry_s)
        if self._marks_at <= desk.now:
            self._marks_at = desk.now + desk.settings.settle_lag_s  # one moment for all: they travel together
        self._marks_due.set(record.id, self._marks_at)

    def on_marks(self, source: NodeId, items: Sequence[Mark]) -> None:
        """The outcome under this ballot is the last word; a copy without it must be fetched."""
        desk, table = self._desk, self._table
        mine = table.get_many([item.job for item in items])
        for item in items:
            record = table.peek(item.job) or mine.get(item.job)
            if record is None:
                desk.reach(Situation.MARK_OF_UNKNOWN_JOB)
                desk.post.add(source, Wanted, item.job)
                continue
            outcome = record.outcome
            if record.settled:
                desk.post.add(source, Marked, item.job)
            elif (
                record.epoch == item.epoch
                and outcome is not None
                and outcome.firm
                and outcome.ballot == item.ballot
            ):
                table.put(settled(record))
                desk.merged.add(item.job)
                desk.post.add(source, Marked, item.job)
            else:
                desk.reach(Situation.MARK_WITHOUT_OUTCOME)
                desk.post.add(source, Wanted, item.job)

    def on_marked(self, source: NodeId, jobs: Sequence[JobId]) -> None:
        for job in jobs:
            spreading = self._spreading.get(job)
            if spreading is not None:
                spreading.missing.discard(source)
                if not spreading.missing:
                    del self._spreading[job]
                    self._marks_due.drop(job)

    def on_expired(self, source: NodeId, jobs: Sequence[JobId]) -> None:
        """Nothing of these needs to be sent to `source` any more."""
        self.on_marked(source, jobs)
        for job in jobs:
            writing, record = self._writing.whole(job), self._table.peek(job)
            if writing is None or record is None:
                continue
            if self._desk.is_over(record):
                writing.refused.add(source)
            elif source not in {*record.holders, *self._readers(record)}:
                self.send_again((job,))  # another one stands in, which takes copies of that day

    def forget(self, jobs: Iterable[JobId]) -> None:
        """Nothing of these is here any more."""
        for job in jobs:
            if self._spreading.pop(job, None) is not None:
                self._marks_due.drop(job)

    def _push_marks(self, job: JobId, spreading: Spreading) -> None:
        """Tell the holders that miss the mark; spares stand in for those long dead."""
        desk, view = self._desk, self._desk.view
        if desk.lost(spreading.holders) and (record := self._table.get(job)) is not None:
            for node in desk.spares(record):
                desk.reach(Situation.SPARE_OF_SETTLED)
                desk.post.add(node, Copies, encode(record))
        for node in sorted(spreading.missing):
            if view.is_living(node):
                desk.post.add(node, Marks, spreading.mark)
            elif desk.is_long_dead(node):
                desk.reach(Situation.MARK_GIVEN_UP)
                spreading.missing.discard(node)  # a spare has it; if this one returns it is offered it
        if not spreading.missing:
            del self._spreading[job]
            return
        patience_s = max(map(self._pace.patience_s, spreading.missing))
        self._marks_due.set(job, desk.now + max(spreading.pause_s, patience_s))
        spreading.pause_s = min(spreading.pause_s * 2, desk.settings.retry_max_s)

    # ---------------------------------------------------------------------- offers and anti-entropy

    def on_offer(self, source: NodeId, items: Sequence[Digest]) -> None:
        """`source` thinks that this node is responsible for these: compare, and exchange what differs."""
        desk, table = self._desk, self._table
        mine = table.get_many([item.job for item in items])
        for item in items:
            record = table.peek(item.job) or mine.get(item.job)
            if record is None:
                desk.reach(Situation.RESPONSIBLE_LACKS_COPY)
                desk.post.add(source, Wanted, item.job)
            elif digest(record) == item.digest:
                if not (desk.leaving and record.settled):  # nobody may count on the copy of one that leaves
                    desk.post.add(source, Taken, item)
            else:
                if not record.settled:
                    desk.reach(Situation.COPIES_DIFFER)
                desk.post.add(source, Copies, encode(record))
                if not record.settled:
                    desk.post.add(source, Wanted, item.job)
            if record is not None and not record.settled and not desk.leading(item.job):
                desk.overdue.add(item.job)

    def on_wanted(self, source: NodeId, jobs: Sequence[JobId]) -> None:
        for record in self._table.get_many(jobs).values():
            self._desk.post.add(source, Copies, encode(record))

    def on_copies(self, source: NodeId, blobs: Sequence[bytes]) -> None:
        desk = self._desk
        for blob in blobs:
            copy = desk.read(blob)
            if copy is None:
                continue
            mine = self._table.get(copy.id)
            record = desk.merge_into(mine, copy)
            if record is None:
                desk.post.add(source, Expired, copy.id)
                continue
            self._share(mine, record, copy, source)
            if record.settled:
                desk.post.add(source, Marked, record.id)
            elif record is not mine and not desk.leading(record.id):
                desk.overdue.add(record.id)
            if not (desk.leaving and record.settled):
                desk.post.add(source, Taken, Digest(record.id, digest(copy)))

    # ------------------------------------------------------------------------------- members and time

    def members_changed(self, changed: frozenset[NodeId]) -> None:
        """Recount with today's living holders, and repeat to those that came (back)."""
        desk = self._desk
        for node in changed:
            self._pace.forget(node)
        returned = {node for node in changed if desk.view.is_living(node) and not desk.view.is_behind(node)}
        for job, writing in list(self._writing.items()):
            self._look_at(job, writing, changed)
        self._changed |= changed
        self._unseen = [*reversed(self._writing.resting)]
        if any(map(desk.view.is_behind, changed)):
            self._see(len(self._unseen))  # what those acknowledged does not count from this moment on
        for job, spreading in self._spreading.items():
            if returned & spreading.missing:
                self._marks_due.soon(job, desk.now)

    def _look_at(self, job: JobId, writing: Writing, changed: frozenset[NodeId]) -> None:
        """Recount one write, and send it to who should have it."""
        desk = self._desk
        rest = None if job in desk.newcomers else self._table.resting(job)
        known = rest or self._table.peek(job)
        if known is None or changed.isdisjoint({*known.holders, *writing.known}):
            return
        behind = {node for node in changed if desk.view.is_behind(node)}
        writing.stored -= behind
        writing.known -= behind
        if isinstance(known, Rest):  # nobody waits for it
            readers = self._resting_readers(job, known)
        else:
            self._count(known, writing)
            readers = {*self._readers(known)}
        if not writing.stored >= readers:
            writing.again_at = desk.now
            self._due.soon(job, desk.now)

    def _see(self, count: int) -> None:
        """Look at so many of the resting jobs, because of all members that have changed since the last of
        them was looked at."""
        jobs = self._unseen[: -count - 1 : -1]
        del self._unseen[-count:]
        self._look_at_resting(jobs, self._changed)
        if not self._unseen:
            self._changed = frozenset()

    def deadline(self) -> Instant:
        unseen_at = self._desk.now if self._unseen else FOREVER
        return min(self._late.next(), self._due.next(), self._marks_due.next(), unseen_at)

    def on_time(self) -> None:
        """Repeat unanswered writes and marks, open gates whose time is up."""
        desk = self._desk
        self.send(self._late.take_due(desk.now))
        if desk.at_leisure and self._unseen:
            self._see(SEEN_AT_ONCE)
        due = self._due.take_due(desk.now, desk.settings.batch) if desk.at_leisure else []
        self._table.fetch(due)
        for job in due:
            writing, record = self._writing.whole(job), self._table.peek(job)
            if writing is None or record is None:
                continue
            if writing.gated and writing.gate_ends_at <= desk.now:
                self._count(record, writing)
            if writing.again_at <= desk.now:
                self._write_again(record, writing)
            self._due.set(job, min(writing.again_at, writing.gate_ends_at))
            if self._table.resting(job) is not None:
                self.may_rest(record)
        for job in self._marks_due.take_due(desk.now):
            self._push_marks(job, self._spreading[job])

    def _write_again(self, record: Record, writing: Writing) -> None:
        desk = self._desk
        # What is settled, even in this very event, goes on as a mark: it is no write any more.
        readers = [] if record.settled else self._readers(record)
        missing = [node for node in readers if node not in writing.stored | writing.refused]
        if missing:
            blob = self._table.blob(record)
            for node in missing:
                desk.post.add(node, Write, blob)
                self._pace.repeated(node, desk.now)
            writing.is_repeated = True
            writing.again_at = desk.now + writing.pause_s
            writing.pause_s = min(writing.pause_s * 2, desk.settings.retry_max_s)
        else:
            writing.again_at = FOREVER  # everyone living has it; a member that returns wakes it up

    @property
    def unspread(self) -> int:
        """Settled jobs that are not yet marked on every living holder."""
        return len(self._spreading)

    @property
    def awaits_word(self) -> bool:
        """Whether a living holder is yet to say that it has how a job of this node ended."""
        for job, writing in self._writing.items():
            record = self._table.peek(job)
            if record is not None and record.outcome is not None:
                waited_for = set(self._desk.living_holders(record)) - writing.stored - writing.refused
                if waited_for - {self._desk.me}:
                    return True
        return False


def _says(joined: Record, written: Record) -> bool:
    """Whether a copy holds all that a write said, so that acknowledging it is exact."""
    if (joined.epoch, joined.own.ballot) != (written.epoch, written.own.ballot):
        return False
    if not is_same_life(joined, written):
        return False
    if written.move is not None and joined.move != written.move:
        return False
    return written.outcome is None or joined.outcome == written.outcome
