"""What the job side of the core shares: the table of records, the outgoing batches, and today's news.

Custody, replication, the scheduler and the intake never import each other. They read and write here, and
say what happened by leaving a job's id in one of the `News` lists; `core/node.py` passes those on until
none is left, and then empties the desk into one list of effects: first what must be on disk, then the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edgenode.core.claims import ClaimBook
from edgenode.core.errors import MalformedMessage
from edgenode.core.jobs import (
    Note,
    Record,
    decode,
    decode_spec,
    encode,
    is_marker,
    is_same_life,
    join,
    last_day,
    look_day,
    with_note,
)
from edgenode.core.meshclock import MeshClock
from edgenode.core.settings import JobSettings
from edgenode.core.signals import Archive, Changed, Effect, Log, Persist, Row, Send, StoredRow
from edgenode.core.situations import Situation
from edgenode.core.types import (
    FOREVER,
    NO_BALLOT,
    Ballot,
    Dice,
    Instant,
    JobId,
    NodeId,
    Promise,
    Seconds,
    StartToken,
    Wall,
)
from edgenode.core.view import View, is_long_dead
from edgenode.core.wire import CATCH_UP_BYTES, Copies, Message, Vote

WRITE_BYTES: Final = 512 * 1024
"""Records per message, in bytes: a few hundred, so that the next node works while this one still sends."""
ITEM_BYTES: Final = 100
CLOCK_KEPT_S: Final = 60.0
"""How often the time is kept on disk: what a power cut sets back a machine without a battery for its clock.
One write a minute, at rest too."""
SUPERSEDED: Final = "superseded"
NO_PROMISE: Final = Promise(-1, NO_BALLOT)


@dataclass(slots=True)
class Lead:
    """This node acts as the job's owner, under this ballot. Gone at a restart, and when outvoted."""

    ballot: Ballot
    firm: bool
    promised: set[NodeId]
    epoch: int = 0


class News(dict[JobId, None]):
    """An ordered set of job ids that something happened to, taken in one go.

    A dict, because every event asks each list whether it is empty: that is then a question in C.
    """

    __slots__ = ()

    def add(self, job: JobId) -> None:
        self[job] = None

    def take(self) -> list[JobId]:
        jobs = list(self)
        self.clear()
        return jobs


class Table:
    """The copies on this node: unsettled ones in memory, the rest behind the archive.

    `records` never holds a job whose row on disk is newer. A settled record leaves memory when its row is
    durable; from then on `get` fetches it from the archive.
    """

    def __init__(self, archive: Archive, skew_s: Seconds = 0.0) -> None:
        self._archive = archive
        self._skew_s = skew_s
        self._records: dict[JobId, Record] = {}
        self._promises: dict[JobId, Promise] = {}
        self._glimpsed: dict[JobId, Promise] = {}  # of archived rows that were read since the last flush
        self._dirty: dict[JobId, None] = {}
        self._leaving: dict[JobId, int] = {}  # settled, with the number of their latest Persist, in its order
        self.persists = 0  # ordered by this process
        self._earlier = 0  # of those, in lives before this one
        self.claims = ClaimBook(archive)
        self.has_vote = True
        """Whether this disk's word counts at all: not if it is behind, or while that is not known."""
        self._dropped: dict[JobId, int] = {}  # rows to go, and the Persist that says so; 0: none
        self._promise_days: dict[JobId, Wall] = {}  # of dirty promises without a record
        self.forgotten: Wall = 0.0
        """Jobs whose last day is up to this were dropped here. Nothing is known of them any more, so no copy
        of one is taken again: it may be old, and its job long finished."""
        self._kept_forgotten: Wall = 0.0
        self.leads: dict[JobId, Lead] = {}
        self.by_owner: dict[NodeId, dict[JobId, None]] = {}
        """Unsettled jobs here, by the owner that their record names."""

    def load(self, rows: Iterable[Row], forgotten: Wall = 0.0) -> None:
        """Take what the disk has at the start."""
        self.forgotten = max(self.forgotten, forgotten)
        for row in rows:
            record = decode(row.blob) if row.blob else None
            if record is not None and not record.settled:
                self._records[row.id] = record
                self._index(record)
            if row.promise is not None:
                self._promises[row.id] = row.promise

    def forget(self) -> None:
        """Memory is ahead of the disk for ever: from now on only the archive counts."""
        for place in (self._records, self._promises, self._glimpsed, self._dirty, self._leaving):
            place.clear()
        self._dropped.clear()
        self._promise_days.clear()
        self._kept_forgotten = 0.0
        self.leads.clear()
        self.by_owner.clear()
        self.claims.forget()

    def begin_life(self) -> None:
        """The disk has counted a new life, in which nothing is written yet."""
        self._earlier = self.persists

    def written_by(self, number: int) -> int:
        """How many writes of this life are on the disk when all up to that number are: as the disk counts
        them, by the number of the last; 0 if that one is of an earlier life."""
        return number if number > self._earlier else 0

    def get(self, job: JobId) -> Record | None:
        found = self._records.get(job)
        return found if found is not None else self.get_many((job,)).get(job)

    def get_many(self, jobs: Sequence[JobId]) -> dict[JobId, Record]:
        """The copies that exist here; one trip to the archive for all that are not in memory."""
        records = self._records
        found = {job: records[job] for job in jobs if job in records}
        if len(found) < len(jobs):
            missing = [job for job in jobs if job not in found and job not in self._dropped]
            for row in self._archive.get(missing).values():
                if row.blob:
                    found[row.id] = decode(row.blob)
                if row.promise is not None:
                    self._glimpsed[row.id] = row.promise
                elif row.blob:
                    self._glimpsed[row.id] = _implied(found[row.id])
        return found

    def peek(self, job: JobId) -> Record | None:
        """The copy in memory: all that is unsettled, without a look at the disk."""
        return self._records.get(job)

    def may_vote(self, job: JobId) -> bool:
        """Whether this disk's word on the job counts: never again once its row was damaged, for nobody knows
        what it had promised."""
        return self.has_vote and job not in self._archive.damaged

    def promise(self, job: JobId) -> Promise:
        """The highest ballot this disk is bound to: by a promise, or by the record it stores."""
        given = self._promises.get(job, NO_PROMISE)
        record = self._records.get(job)
        if record is None:
            return given
        return max(given, _implied(record))

    def put(self, record: Record) -> None:
        """Replace this node's copy."""
        job = record.id
        before = self._records.get(job)
        if before is None and job in self._glimpsed:
            self._promises.setdefault(job, self._glimpsed[job])
        if before is not None:
            if before is record:
                return
            if not is_same_life(record, before):
                # What this node led is no more. But this disk's word is on the job, whichever life it has.
                if job in self.leads:
                    self.leads[job].ballot = NO_BALLOT
                self._promises[job] = self.promise(job)
            self._unindex(before)
        self._records[job] = record
        if not record.settled:
            self._index(record)
        self._dirty[job] = None
        self._dropped.pop(job, None)

    def write_again(self, job: JobId) -> None:
        """The row of this record, which is in memory, is damaged or old: the next flush replaces it."""
        self._dirty[job] = None

    def give_promise(self, job: JobId, promise: Promise, expires_at: Wall = FOREVER) -> None:
        """Args:
        expires_at: the job's, as the asker said: a promise without a copy is kept no longer than a marker.
        """
        assert promise >= self.promise(job), "a promise never falls"
        self._promises[job] = promise
        self._promise_days[job] = expires_at + 2 * self._skew_s
        self._dirty[job] = None
        self._dropped.pop(job, None)

    def drop(self, job: JobId, expires_at: Wall) -> None:
        """Forget a copy, and all that this disk ever promised about its job: for good."""
        self.shed(job)
        self.forgotten = max(self.forgotten, expires_at)

    def shed(self, job: JobId) -> None:
        """Forget a copy of a job that this disk has no word on; others may bring it again."""
        record = self._records.pop(job, None)
        if record is not None:
            self._unindex(record)
        for place in (self._promises, self._glimpsed, self._dirty, self._leaving, self._promise_days):
            place.pop(job, None)
        self._dropped[job] = 0

    def due(self, until: Wall, after: tuple[Wall, JobId], limit: int) -> list[tuple[Wall, JobId]]:
        """Of the disk's rows those whose day for shrinking or dropping has come by `until`, in that order."""
        return self._archive.due(until, after, limit)

    def is_changing(self, job: JobId) -> bool:
        """Whether the disk's row is not the latest: what it says of its due day may be old."""
        return job in self._dirty or job in self._dropped

    def has_promise(self, job: JobId) -> bool:
        """Whether a promise is kept here, beside a record or alone."""
        return job in self._promises

    def is_bound(self, record: Record) -> bool:
        """Whether this disk gave its word on the job beyond what its copy says. Right after it was read."""
        given = self._promises.get(record.id, self._glimpsed.get(record.id, NO_PROMISE))
        return given > _implied(record)

    def lead(self, job: JobId) -> Lead | None:
        """How this node owns the job, or None if it does not (any more)."""
        lead = self.leads.get(job)
        if lead is None:
            return None
        record = self._records.get(job)
        if record is None or record.own.ballot != lead.ballot or record.epoch != lead.epoch:
            return None
        given = self._promises.get(job)
        if given is not None and given > Promise(record.epoch, lead.ballot):
            return None
        return lead

    def acting(self, job: JobId) -> Lead | None:
        """Like `lead`, but None while a firm owner changes the holders: nothing else is decided then."""
        lead = self.lead(job)
        return None if lead is None or (lead.firm and self._records[job].moving) else lead

    def scan(self, after: JobId, limit: int) -> list[Row]:
        """A piece of what the disk has, in id order."""
        rows = self._archive.scan(after, limit)
        self._glimpsed.update((row.id, row.promise) for row in rows if row.promise is not None)
        return rows

    def unsettled(self) -> Iterable[Record]:
        return (record for record in self._records.values() if not record.settled)

    def __len__(self) -> int:
        return len(self._records)

    def changed_records(self) -> list[Record]:
        return [self._records[job] for job in self._dirty if job in self._records]

    def flush(self, clock: Wall = 0.0) -> Persist | None:
        """Everything that changed since the last time, as one batch for the disk.

        Args:
            clock: the mesh's time, to be kept too; 0 if not now.
        """
        self._glimpsed.clear()
        dropped = tuple(job for job, number in self._dropped.items() if not number)
        if not (self._dirty or self.claims or clock or dropped):
            return None
        self.persists += 1
        rows = []
        for job in self._dirty:
            record, given = self._records.get(job), self._promises.get(job)
            if record is None:
                day = self._promise_days.get(job, FOREVER)
                rows.append(StoredRow(Row(job, b"", given), NodeId(""), False, "", "", "", day))
                continue
            if given is not None and given <= _implied(record):
                del self._promises[job]
                given = None
            spec = decode_spec(record.spec)
            rows.append(
                StoredRow(
                    Row(job, encode(record), given),
                    record.owner,
                    record.settled,
                    record.state,
                    spec.task,
                    spec.options.queue,
                    look_day(record, self._skew_s),
                )
            )
            self._leaving.pop(job, None)
            if record.settled:
                self._leaving[job] = self.persists
        self._dirty.clear()
        self._promise_days.clear()
        self._dropped.update(dict.fromkeys(dropped, self.persists))
        forgotten = self.forgotten if self.forgotten != self._kept_forgotten else 0.0
        self._kept_forgotten = self.forgotten
        claims = self.claims.take(self.persists)
        return Persist(tuple(rows), self.persists, clock, dropped, forgotten, *claims)

    def persisted(self, number: int) -> None:
        """All up to this Persist is durable: what is settled needs no memory."""
        self.claims.persisted(number)
        gone: list[JobId] = []
        for job, saved in self._leaving.items():
            if saved > number:
                break
            gone.append(job)
        for job in [job for job, dropped in self._dropped.items() if 0 < dropped <= number]:
            del self._dropped[job]
        for job in gone:
            del self._leaving[job]
            # A copy that changed again waits for its own Persist.
            if job not in self._dirty and job not in self.leads:
                self._records.pop(job, None)
                self._promises.pop(job, None)

    def _index(self, record: Record) -> None:
        self.by_owner.setdefault(record.owner, {})[record.id] = None

    def _unindex(self, record: Record) -> None:
        jobs = self.by_owner.get(record.owner)
        if jobs is not None:
            jobs.pop(record.id, None)
            if not jobs:
                del self.by_owner[record.owner]


def _implied(record: Record) -> Promise:
    """What a disk that has this copy has promised by storing it."""
    return Promise(record.epoch, record.own.ballot)


@dataclass(slots=True)
class Post:
    """Messages on their way out, one batch per receiver and kind however many jobs they speak of."""

    me: NodeId
    batch: int
    _batches: dict[tuple[NodeId, type[Any]], list[Any]] = field(default_factory=dict)
    _singles: list[tuple[NodeId, Message]] = field(default_factory=list)

    def add(self, to: NodeId, kind: type[Any], item: Any) -> None:
        """One more item for a message whose only field is a batch."""
        key = (to, kind)
        found = self._batches.get(key)
        if found is None:
            self._batches[key] = [item]
        else:
            found.append(item)

    def send(self, to: NodeId, message: Message) -> None:
        self._singles.append((to, message))

    def forget(self) -> None:
        self._singles.clear()
        self._batches.clear()

    def take_local(self) -> list[Message]:
        """What this node says to itself needs no wire."""
        local = [message for to, message in self._singles if to == self.me]
        if local:
            self._singles = [entry for entry in self._singles if entry[0] != self.me]
        for to, kind in [key for key in self._batches if key[0] == self.me]:
            local.append(kind(tuple(self._batches.pop((to, kind)))))
        return local

    def flush(self, written: int = 0) -> list[Send]:
        """Everything, as messages. `written`: the writes of this life that they rest on."""
        sends = [Send(to, message) for to, message in self._singles]
        for (to, kind), items in self._batches.items():
            rest = (written,) if issubclass(kind, Vote) else ()
            sends.extend(Send(to, kind(tuple(piece), *rest)) for piece in self._pieces(kind, items))
        self._singles.clear()
        self._batches.clear()
        return sends

    def _pieces(self, kind: type[Any], items: list[Any]) -> Iterable[list[Any]]:
        """Cut a batch by count and by bytes: no message may be too large for a frame."""
        return pieces_of(items, CATCH_UP_BYTES if kind is Copies else WRITE_BYTES, self.batch)


def pieces_of(items: Iterable[Any], bytes_max: int, count_max: int) -> Iterator[list[Any]]:
    """The items in order, in lists of at most that many, and of about that many bytes. At least one list."""
    piece: list[Any] = []
    size = 0
    for item in items:
        weight = size_of(item)
        if piece and (size + weight > bytes_max or len(piece) >= count_max):
            yield piece
            piece, size = [], 0
        piece.append(item)
        size += weight
    yield piece


def size_of(item: Any) -> int:
    """About how many bytes an item takes in a frame."""
    if isinstance(item, bytes):
        return len(item)
    return ITEM_BYTES + sum(len(part) for part in item if isinstance(part, bytes))


class Desk:
    """One node's table, post and news, and the clock of the event being handled."""

    def __init__(
        self,
        view: View,
        settings: JobSettings,
        archive: Archive,
        dice: Dice,
        clock: MeshClock | None = None,
    ) -> None:
        self.clock = MeshClock(skew_max_s=settings.clock_skew_max_s) if clock is None else clock
        self.view = view
        self.settings = settings
        self.dice = dice
        self.me = view.me
        self.table = Table(archive, settings.clock_skew_max_s)
        self.post = Post(view.me, settings.batch)
        self.now: Instant = 0.0
        self.leaving = False
        self.storing = True  # False from a refused write until the disk takes writes again
        self.taken_over = 0  # jobs, since the start
        self.reached: set[Situation] = set()  # what this node has lived through: for the simulator
        self._clock_kept_at: Instant | None = None
        self._effects: list[Effect] = []
        self.merged = News()  # a copy or a promise changed by what somebody else said
        self.led = News()  # this node became owner, or became firm
        self.released = News()  # this node is owner no longer, or the job is settled
        self.written = News()  # this node, as owner, wrote: to be replicated
        self.acknowledged = News()  # the submission is on enough disks
        self.recount = News()  # a repeated submission: maybe it is on enough disks already
        self.gate_wanted = News()  # a start is stored, and waits for its `running` to be with the holders
        self.gated = News()  # it is
        self.resend = News()  # somebody else is to have a copy of this, too
        self.movable = News()  # who is to hold the job from now on has a copy
        self.moved = News()  # a majority of the holders accepted the move
        self.stuck = News()  # too few holders live to decide on a move that was proposed
        self.newcomers: dict[JobId, tuple[NodeId, ...]] = {}
        """Owned jobs whose holders are to change, with the nodes that need a copy first."""
        self.overdue = News()  # responsibility must be looked at again
        self.dropped = News()  # nothing of it is here any more
        self.hopeless = News()  # so many holders have forgotten it that the rest decide nothing any more
        self.clock_wanted = News()  # its day has come, but this node's clock is not good enough to say so
        self.unclaimed = News()  # this node would own them, and their key is not known to be theirs
        self.claimed = News()  # a majority of the members stands behind the holders of these
        self.admitted: dict[JobId, bool] = {}  # keys whose submissions may be taken now, and whether claimed
        self._news = [news for news in vars(self).values() if isinstance(news, News)]
        self.thanks_due: list[tuple[JobId, StartToken, NodeId]] = []  # results taken from runners

    def reach(self, situation: Situation) -> None:
        """Mark that this came about, where it is handled. Nothing follows from it."""
        self.reached.add(situation)

    # ---- time

    def set_wall(self, wall: Wall) -> None:
        """This machine's wall clock was read."""
        self.clock.read(wall, self.now)

    @property
    def wall(self) -> Wall:
        """The mesh's time: the one clock for days that are written into records or compared with them."""
        return self.clock.wall(self.now)

    @property
    def may_end_by_clock(self) -> bool:
        """Whether this node's clock is good enough to let jobs expire and to delete what is over."""
        return self.clock.trusted(self.now)

    def _clock_to_keep(self) -> Wall:
        """The time, now and then, for a start without a good clock; 0 otherwise."""
        if self._clock_kept_at is None:
            self._clock_kept_at = self.now
        is_due = self.now >= self._clock_kept_at + CLOCK_KEPT_S and self.storing
        if not (is_due and self.may_end_by_clock):
            return 0.0
        self._clock_kept_at = self.now
        return self.wall

    def note(self, kind: str, detail: str) -> Note:
        """A line of history, by this node, now."""
        return Note(round(self.wall, 3), kind, self.me, detail)

    # ---- records

    def merge(self, record: Record) -> Record | None:
        """Join a copy into the table; None if none of it is taken any more. It may end this node's ownership:
        `merged` tells."""
        mine = self.table.get(record.id)
        if mine is None and self.is_forgotten(decode_spec(record.spec).expires_at):
            return None
        joined = record if mine is None else self.joined(mine, record)
        if joined is not mine:
            self.table.put(joined)
            self.merged.add(record.id)
        return joined

    def is_forgotten(self, expires_at: Wall) -> bool:
        """Whether jobs of this last day were dropped here, so that one of which nothing is here may long have
        ended. (By the present time as well: a clock that ran ahead once must not refuse new jobs.)"""
        return expires_at <= min(self.table.forgotten, self.wall)

    def drop(self, record: Record) -> None:
        """Let a copy go whose job is over. `merged` tells."""
        self.table.drop(record.id, decode_spec(record.spec).expires_at)
        self.merged.add(record.id)
        self.dropped.add(record.id)

    def shed(self, record: Record) -> None:
        """Let a copy go that others are to have, and have. `merged` tells."""
        self.table.shed(record.id)
        self.merged.add(record.id)
        self.dropped.add(record.id)

    def last_day(self, record: Record) -> Wall:
        return last_day(record, self.settings.clock_skew_max_s)

    def joined(self, mine: Record, other: Record) -> Record:
        """`join`, and a line of history for a result that gave way to another."""
        joined = join(mine, other)
        if mine.outcome is None or other.outcome is None or mine.outcome.value == other.outcome.value:
            return joined
        if is_marker(joined):
            return joined
        for outcome in (mine.outcome, other.outcome):
            if joined.outcome is not None and outcome.value != joined.outcome.value:
                token = outcome.token
                detail = f"{outcome.state} by {outcome.runner}, start {token.start} of term {token.term}"
                self.reach(Situation.SUPERSEDED)
                if not any((note.kind, note.detail) == (SUPERSEDED, detail) for note in joined.history):
                    joined = with_note(joined, self.note(SUPERSEDED, detail))
        return joined

    def read(self, blob: bytes) -> Record | None:
        """A peer's copy, or None (and a log line) if it is damaged: one node's damage stays its own."""
        try:
            record = decode(blob)
            if is_marker(record) and not record.settled:
                raise MalformedMessage("a marker of a job that is not settled")
        except MalformedMessage as error:
            self.log("damaged-copy", error.detail, warning=True)
            return None
        return record

    def leading(self, job: JobId) -> bool:
        return self.table.lead(job) is not None

    def living_holders(self, record: Record) -> list[NodeId]:
        """The holders that can answer, and whose answer counts."""
        view = self.view
        return [h for h in record.holders if view.is_living(h) and not view.is_behind(h)]

    def spares(self, job: JobId, holders: tuple[NodeId, ...]) -> list[NodeId]:
        """The next in rank, one for each holder that is behind, or dead for `rereplicate_after_s`."""
        lost = sum(self.view.is_behind(holder) or self.is_long_dead(holder) for holder in holders)
        if not lost:
            return []
        return [n for n in self.view.ranking().rank(job) if n not in holders and n != self.me][:lost]

    def is_long_dead(self, node: NodeId) -> bool:
        """Whether it has been dead for `rereplicate_after_s`."""
        return is_long_dead(node, self.view, self.settings.rereplicate_after_s, self.now)

    def acks_needed(self, record: Record) -> int:
        """How many disks a submission waits for: as asked, but no more than there are living holders."""
        asked = decode_spec(record.spec).options.acks or len(record.holders) // 2 + 1
        living = len(self.living_holders(record))
        if living < asked:
            self.reach(Situation.ACKS_RECOUNTED)
        return max(1, min(asked, living))

    @property
    def has_news(self) -> bool:
        """Whether anything is left that somebody has to hear of."""
        return any(self._news) or bool(self.thanks_due)

    def forget(self) -> None:
        """A write was refused: of what this node knew and was about to say, nothing is so."""
        self.storing = False
        self.table.forget()
        self.post.forget()
        self._effects.clear()
        self.thanks_due.clear()
        self.newcomers.clear()
        for news in self._news:
            news.take()
        self.admitted.clear()

    # ---- what goes out

    def emit(self, effect: Effect) -> None:
        self._effects.append(effect)

    def log(self, kind: str, text: str, *, warning: bool = False) -> None:
        self._effects.append(Log(kind, text, warning))

    def flush(self) -> list[Effect]:
        """The disk first, then everything that may only be said once that is done."""
        effects: list[Effect] = []
        changed = self.table.changed_records()
        persist = self.table.flush(self._clock_to_keep())
        if persist is not None:
            effects.append(persist)
        effects += self.post.flush(self.table.written_by(self.table.persists))
        effects += self._effects
        if changed:
            effects.append(Changed(tuple(changed)))
        self._effects.clear()
        return effects
