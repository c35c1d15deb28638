"""What the job side of the core shares: the table of records, the outgoing batches, and today's news.

Custody, replication, the scheduler and the intake never import each other. They read and write here, and
say what happened by leaving a job's id in one of the `News` lists; `core/node.py` passes those on until
none is left, and then empties the desk into one list of effects: first what must be on disk, then the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edgenode.core.errors import MalformedMessage
from edgenode.core.job_bytes import decode
from edgenode.core.jobs import Note, Record, drop_day, is_marker, with_note
from edgenode.core.joining import join
from edgenode.core.meshclock import MeshClock
from edgenode.core.post import Post
from edgenode.core.resting import asked_acks
from edgenode.core.settings import JobSettings
from edgenode.core.signals import Archive, Changed, Effect, Log
from edgenode.core.situations import Situation
from edgenode.core.specs import decode_spec
from edgenode.core.table import Table
from edgenode.core.types import (
    FOREVER,
    Dice,
    Instant,
    JobId,
    NodeId,
    StartToken,
    Wall,
)
from edgenode.core.view import View, is_long_dead

CLOCK_KEPT_S: Final = 60.0
"""How often the time is kept on disk: what a power cut sets back a machine without a battery for its clock.
One write a minute, at rest too."""
SUPERSEDED: Final = "superseded"


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
        self.table = Table(archive, settings.clock_skew_max_s, settings.in_memory)
        self.post = Post(view.me, settings.batch)
        self.now: Instant = 0.0
        self.leaving = False
        self.draining = False  # asked to run nothing, and to stay a member
        self.at_leisure = True  # the next piece of a long list may be seen to: nothing else waits
        self.storing = True  # False from a refused write until the disk takes writes again
        self.taken_over = 0  # jobs, since the start
        self.reached: set[Situation] = set()  # what this node has lived through: for the simulator
        self._living: dict[tuple[NodeId, ...], tuple[NodeId, ...]] = {}  # of sets of holders, in this event
        self._living_as_of = -1  # this version of the view
        self._clock_kept_at: Instant | None = None
        self._effects: list[Effect] = []
        self.merged = News()  # a copy or a promise changed by what somebody else said
        self.led = News()  # this node became owner, or became firm
        self.released = News()  # this node is owner no longer, or the job is settled
        self.written = News()  # this node, as owner, wrote: to be replicated
        self.begun = News()  # it wrote that a start here was begun: the holders need not know that at once
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
        self.voteless: dict[JobId, set[NodeId]] = {}
        """Holders that have a job and do not vote on it, though nothing stands against that: their row was
        damaged once."""
        self.closed: dict[NodeId, Wall] = {}
        """Members that have forgotten jobs of up to this last day, which is not over here: their clocks are,
        or were, far ahead. They take no copies of such jobs."""
        self.overdue = News()  # responsibility must be looked at again
        self.told = News()  # written here by their owner, which knows all that the copies here say
        self.dropped = News()  # nothing of it is here any more
        self.restored = News()
        """Settled copies that were fetched again after damage, or learned of something since (a start on the
        other side of a cut, say): the other holders may not know, and have no owner to ask."""
        self.adopted = News()  # copies of jobs that others hold, and that began without this node
        self.clock_wanted = News()  # its day has come, but this node's clock is not good enough to say so
        self.unclaimed = News()  # this node would own them, and their key is not known to be theirs
        self.claimed = News()  # a majority of the members stands behind the holders of these
        self.admitted: dict[JobId, bool] = {}  # keys whose submissions may be taken now, and whether claimed
        self._news = [news for news in vars(self).values() if isinstance(news, News)]
        self.queues = b""  # the settings of all queues, if they have changed
        self.thanks_due: list[tuple[JobId, StartToken, NodeId]] = []  # results taken from runners

    @property
    def takes_work(self) -> bool:
        """Whether this node means to own and to run anything."""
        return not (self.leaving or self.draining)

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
    def sure_wall(self) -> Wall:
        """Which days are over for certain, so that jobs may expire, and be deleted: up to this one.
        -FOREVER if this node's clock is not good enough."""
        return self.clock.sure(self.now)

    def _clock_to_keep(self) -> Wall:
        """The time, now and then, for a start without a good clock; 0 otherwise."""
        if self._clock_kept_at is None:
            self._clock_kept_at = self.now
        is_due = self.now >= self._clock_kept_at + CLOCK_KEPT_S and self.storing
        if not (is_due and self.clock.trusted(self.now)):
            return 0.0
        self._clock_kept_at = self.now
        return self.wall

    def note(self, kind: str, detail: str, *, until: Wall = 0.0) -> Note:
        """A line of history, by this node, now."""
        return Note(round(self.wall, 3), kind, self.me, detail, until)

    # ---- records

    def merge(self, record: Record) -> Record | None:
        """Join a copy into the table; None if none of it is taken any more. It may end this node's ownership:
        `merged` tells."""
        return self.merge_into(self.table.get(record.id), record)

    def merge_into(self, mine: Record | None, record: Record, blob: bytes = b"") -> Record | None:
        """`merge`, when it is known what is here.

        Args:
            blob: the copy as it came.
        """
        if mine is None and self.is_forgotten(decode_spec(record.spec).expires_at):
            return None
        joined = record if mine is None else self.joined(mine, record)
        if joined is not mine:
            self.table.put(joined, blob if joined is record else b"")
            self.merged.add(record.id)
            if mine is None:
                self._adopt(record)
            else:
                self._learned(mine, joined)
        return joined

    def _adopt(self, record: Record) -> None:
        """A copy came of which nothing was here. (A holder of the job from its beginning misses nothing.)"""
        if record.starts and self.me not in record.holders:
            self.adopted.add(record.id)

    def _learned(self, mine: Record, joined: Record) -> None:
        """A copy here has become another by what somebody said. (To shrink is not to learn: each holder comes
        to that by itself.)"""
        if joined.claimed and not mine.claimed:
            self.claimed.add(joined.id)
        if mine.settled and is_marker(mine) is is_marker(joined):
            self.restored.add(joined.id)

    def is_forgotten(self, expires_at: Wall) -> bool:
        """Whether jobs of this last day were dropped here, so that one of which nothing is here may long have
        ended. (By the present time as well: a clock that ran ahead once must not refuse new jobs. But not by
        one that too few others agree with, as right after a start.)"""
        forgotten = self.table.forgotten
        return expires_at <= (min(forgotten, self.wall) if self.clock.trusted(self.now) else forgotten)

    def is_over(self, record: Record) -> bool:
        """Whether the job's last day is, by a clock that can be trusted: nothing of it may start any more."""
        return self.sure_wall >= decode_spec(record.spec).expires_at

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

    def drop_day(self, record: Record) -> Wall:
        return drop_day(record, self.settings.clock_skew_max_s)

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
            if not record.settled and is_marker(record):
                raise MalformedMessage("a marker of a job that is not settled")
        except MalformedMessage as error:
            self.log("damaged-copy", error.detail, warning=True)
            return None
        return record

    def leading(self, job: JobId) -> bool:
        return self.table.lead(job) is not None

    def living_holders(self, record: Record) -> tuple[NodeId, ...]:
        """The holders that can answer, and whose answer counts."""
        return self.living_of(record.holders)

    def living_of(self, holders: tuple[NodeId, ...]) -> tuple[NodeId, ...]:
        """The same for these holders."""
        view = self.view
        if self._living_as_of != view.version:
            self._living_as_of = view.version
            self._living.clear()
        found = self._living.get(holders)
        if found is None:
            living = (h for h in holders if view.is_living(h) and not view.is_behind(h))
            found = self._living[holders] = tuple(living)
        return found

    def spares(self, record: Record) -> list[NodeId]:
        """Which other nodes are to have a copy beside the holders."""
        return [node for node in self._all_spares(record) if node != self.me]

    def needs_copy_here(self, record: Record) -> bool:
        """Whether this node is to have one beside the holders: as the next in rank, or since too few others
        take jobs now; and while it has just begun, and takes none itself, it cannot tell."""
        wanted = self.wanted_spares(record)
        if not wanted:
            return False
        spares, info = self._all_spares(record), self.view.info(self.me)
        is_beginning = self.takes_work and (info is None or not info.ready)
        return self.me in spares or len(spares) < wanted or is_beginning

    def _all_spares(self, record: Record) -> list[NodeId]:
        """The next in rank, as many as are wanted."""
        wanted = self.wanted_spares(record)
        if not wanted:
            return []
        return self._in_rank(record.id, record.holders, decode_spec(record.spec).expires_at)[:wanted]

    def wanted_spares(self, record: Record) -> int:
        """One for each holder that is behind, or dead for `rereplicate_after_s`. For a settled job also one
        for each that it has fewer than R: it ended in a smaller mesh. (Others get holders by a vote.)"""
        return self.lost(record.holders) + (self.missing(record) if record.settled else 0)

    def missing(self, record: Record) -> int:
        """How many holders a job has fewer than a new one would have in a mesh that is large enough."""
        return max(0, self.settings.replicas - len(record.holders))

    def lost(self, holders: tuple[NodeId, ...]) -> int:
        """How many of these somebody else is to have a spare copy for."""
        if len(self.living_of(holders)) == len(holders):
            return 0  # as nearly always: that is known without looking at each
        return sum(self.view.is_behind(holder) or self.is_long_dead(holder) for holder in holders)

    def next_in_rank(self, record: Record) -> list[NodeId]:
        """Who else than the holders and this node may have a copy: last those that would not take it."""
        return self._next_in_rank(record.id, record.holders, decode_spec(record.spec).expires_at)

    def _next_in_rank(self, job: JobId, holders: tuple[NodeId, ...], expires_at: Wall) -> list[NodeId]:
        return [node for node in self._in_rank(job, holders, expires_at) if node != self.me]

    def _in_rank(self, job: JobId, holders: tuple[NodeId, ...], expires_at: Wall) -> list[NodeId]:
        ranked = [node for node in self.view.ranking().rank(job) if node not in holders]
        if self.closed:
            ranked.sort(key=lambda node: self._has_forgotten(node, expires_at))
        return ranked

    def strangers(self, record: Record) -> list[NodeId]:
        """The other nodes that would hold the job today, and do not. They may have a copy without a vote, or
        have become its holders while this one was away."""
        ranked = self.view.ranking().rank(record.id)[: self.settings.replicas]
        strangers = [node for node in ranked if node not in record.holders and node != self.me]
        return [node for node in strangers if self.view.is_living(node)]

    def note_closed(self, node: NodeId, jobs: Sequence[JobId]) -> None:
        """A member has dropped these, and takes no copy. Where that is before their day, others are asked
        before it from now on."""
        for record in self.table.get_many(jobs).values():
            expires_at = decode_spec(record.spec).expires_at
            if self.wall < expires_at:
                self.closed[node] = max(expires_at, self.closed.get(node, expires_at))

    def takes(self, node: NodeId, record: Record) -> bool:
        """Whether a member takes a copy of which it has none, as far as is known."""
        return not self._has_forgotten(node, decode_spec(record.spec).expires_at)

    def _has_forgotten(self, node: NodeId, expires_at: Wall) -> bool:
        return expires_at <= self.closed.get(node, -FOREVER)

    def is_long_dead(self, node: NodeId) -> bool:
        """Whether it has been dead for `rereplicate_after_s`."""
        return is_long_dead(node, self.view, self.settings.rereplicate_after_s, self.now)

    def voting_holders(self, record: Record) -> list[NodeId]:
        """Of those that can answer, the ones whose disks vote on this job, as far as is known."""
        voteless = self.voteless.get(record.id, ())
        return [holder for holder in self.living_holders(record) if holder not in voteless]

    def stand_ins(self, record: Record) -> list[NodeId]:
        """Who takes a copy at once, without a vote, when fewer holders live than disks were asked for.

        Until their deaths were known the holders were waited for: what is acknowledged after that would be on
        one disk alone, in a mesh that has others.
        """
        if len(self.living_holders(record)) == len(record.holders):
            return []
        expires_at = decode_spec(record.spec).expires_at
        return self.stand_ins_of(record.id, record.holders, asked_acks(record), expires_at)

    def stand_ins_of(
        self, job: JobId, holders: tuple[NodeId, ...], acks: int, expires_at: Wall = FOREVER
    ) -> list[NodeId]:
        """The same for a job with these holders, to be on so many disks."""
        living = self.living_of(holders)
        if len(living) == len(holders):
            return []
        lacking = acks - len({*living, self.me})
        if lacking <= 0:
            return []
        ranked = self._next_in_rank(job, holders, expires_at)
        return [node for node in ranked if self.view.is_living(node)][:lacking]

    def acks_needed(self, record: Record) -> int:
        """How many disks a submission waits for: as asked, but no more than there are living ones for it."""
        asked = asked_acks(record)
        if len(self.living_holders(record)) == len(record.holders):
            return asked
        living = len({*self.living_holders(record), *self.stand_ins(record)})
        if living < asked:
            self.reach(Situation.ACKS_RECOUNTED)
        return max(1, min(asked, living))

    @property
    def has_news(self) -> bool:
        """Whether anything is left that somebody has to hear of."""
        return any(self._news) or bool(self.thanks_due) or bool(self.table.lost)

    def forget(self) -> None:
        """A write was refused: of what this node knew and was about to say, nothing is so."""
        self.storing = False
        self.table.forget()
        self.post.forget()
        self._effects.clear()
        self.thanks_due.clear()
        self.newcomers.clear()
        self.voteless.clear()
        for news in self._news:
            news.take()
        self.admitted.clear()
        self.queues = b""

    # ---- what goes out

    def emit(self, effect: Effect) -> None:
        self._effects.append(effect)

    def log(self, kind: str, text: str, *, warning: bool = False) -> None:
        self._effects.append(Log(kind, text, warning))

    def flush(self, changed: Sequence[Record] = ()) -> list[Effect]:
        """The disk first, then everything that may only be said once that is done.

        Args:
            changed: the records whose change is to be told.
        """
        effects: list[Effect] = []
        persist = self.table.flush(self._clock_to_keep(), self.queues)
        self.queues = b""
        if persist is not None:
            effects.append(persist)
        effects += self.post.flush(self.table.written_by(self.table.persists))
        effects += self._effects
        self._living.clear()
        if changed:
            effects.append(Changed(tuple(changed)))
        self._effects.clear()
        return effects
