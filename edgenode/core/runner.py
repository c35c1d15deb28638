"""What runs on this node, for whichever owner.

A start has one slot here until its worker ends, and its result is kept until an owner has stored it:

    (asked)    free slots were offered to a busy peer, which may grant starts of its jobs
    reserved   an owner here has a slot for a start, and has not begun it yet
    running    `Run` went out
    stopped    `StopRun` went out as well: the slot is free when the worker has ended
    kept       it ended under another owner: `Result` goes to that one, or to a holder, until somebody thanks
    denied     it may never begin here (any more): given up before it began, refused, or spent

A runner judges nothing. What its verdicts mean is for the job's owner to say (scheduler).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from edgenode.core.desk import Desk
from edgenode.core.job_bytes import encode
from edgenode.core.jobs import Record
from edgenode.core.post import WRITE_BYTES, pieces_of
from edgenode.core.signals import Run, RunEnded, StopRun
from edgenode.core.situations import Situation
from edgenode.core.specs import Spec, decode_spec, start_by
from edgenode.core.types import FOREVER, Instant, JobId, NodeId, Room, Seconds, StartToken, State, Wall
from edgenode.core.wire import Copies, GrantItem, Has, Result, ResultItem, TokenItem, WantWork

TOKENS_MAX: Final = 10_000
"""Starts that this runner remembers having ended, or having denied and so must never begin. The oldest are
forgotten: a grant is not late by ten thousand others."""


NO_ROOM: Final = Room(0, 0)
Start = tuple[JobId, StartToken]
"""A token is unique within its job only: every job's first start is number 1 of its owner."""


@dataclass(slots=True)
class Running:
    """A start that occupies a slot here."""

    token: StartToken
    task: str
    fingerprint: str  # of what it runs, see `ResultItem`
    grant: GrantItem | None = None  # if another owner granted it
    stopped: bool = False
    attempt: int = 0  # that it is, when it has begun
    withdrawn: bool = False  # stopped by somebody's wish, which is not held against its job


class Ended(NamedTuple):
    """A worker here is done with a start."""

    item: ResultItem
    begun: bool  # False: it found no worker
    stopped: bool
    grant: GrantItem | None
    withdrawn: bool = False


@dataclass(slots=True)
class Kept:
    """A result that no owner has on disk yet, as far as this runner knows."""

    item: ResultItem
    owner: NodeId
    holders: tuple[NodeId, ...]
    until: Wall  # after this nobody takes it: no holder has an unfinished copy whose clock is right
    again_at: Instant
    pause_s: Seconds
    tries: int = 0


class Runner:
    """Drive it with grants, verdicts, messages and time; it answers through the desk."""

    def __init__(
        self,
        desk: Desk,
        *,
        room: Room,
        tasks: frozenset[str],
        coroutines: frozenset[str] = frozenset(),
        ending: Mapping[Start, str] | None = None,
    ) -> None:
        """
        Args:
            coroutines: those of `tasks` that take an async slot.
            ending: starts of an earlier life, with their tasks, that occupy slots until their `RunEnded`.
        """
        self._desk = desk
        self._table = desk.table
        self._room = room
        self._ahead = 0  # starts of jobs that are owned here, beyond the slots
        self._ending = dict(ending or {})
        self.tasks = tasks
        self._coroutines = coroutines
        self.tasks_by_slot = (tasks - coroutines, coroutines)
        self._running: dict[JobId, Running] = {}
        self._shared = sum(task in coroutines for task in self._ending.values())  # async slots in use
        self._kept: dict[Start, Kept] = {}
        self._denied: dict[Start, None] = {}
        self._begun: dict[Start, None] = {}  # what began here, and is over
        self._wary_until: Instant = -FOREVER
        self._want_at: Instant = 0.0
        self._wanted = NO_ROOM  # what peers were offered, and may still grant
        self._wanted_until: Instant = 0.0
        self._asked: set[NodeId] = set()  # whom, and has granted nothing since
        self._barren: set[NodeId] = set()  # those that were asked in vain: others first, next time
        self._wake: Instant = FOREVER

    def give_up(self, begun: Iterable[Start]) -> Runner:
        """The disk refused a write: stop what runs here, whose starts and results nobody will hear of.

        Args:
            begun: what really runs, and is not only reserved.

        Returns: a runner without memory, for the next life.
        """
        ending = dict(self._ending)
        for job, token in begun:
            ending[job, token] = self._running[job].task
            self._desk.emit(StopRun(job, token, "the node's disk takes no writes"))
        return Runner(
            self._desk, room=self._room, tasks=self.tasks, coroutines=self._coroutines, ending=ending
        )

    # ------------------------------------------------------------------------------------- slots

    @property
    def free(self) -> Room:
        """Slots in which nothing runs or is about to; below 0 when there are fewer than were used."""
        used, shared = len(self._running) + len(self._ending), self._shared
        return Room(self._room.slots - (used - shared), self._room.async_slots - shared)

    def has_slot_for(self, task: str) -> bool:
        """Whether a start of this task, which this node has, would find a free slot of its kind."""
        free = self.free
        return (free.async_slots if task in self._coroutines else free.slots) > 0

    def open_slots(self) -> list[tuple[int, frozenset[str]]]:
        """How many starts of each kind may be given to this node by itself, if any, with the tasks of that
        kind. What is taken ahead of the slots waits for the least of moments, and is never asked for."""
        slots, async_slots = self.free
        room = (slots + self._ahead, async_slots)
        return [
            (free, tasks) for free, tasks in zip(room, self.tasks_by_slot, strict=True) if free > 0 and tasks
        ]

    def set_room(self, room: Room, ahead: int = 0) -> None:
        """So many starts can run here from now on, and so many more wait for their turn."""
        is_more = room != self._room
        self._room, self._ahead = room, ahead
        if is_more:
            self._want_at = self._desk.now

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, job: JobId) -> bool:
        return job in self._running

    def get(self, job: JobId) -> Running | None:
        """The start of this job that occupies a slot here."""
        return self._running.get(job)

    def starts(self) -> list[Start]:
        """All that occupy a slot, but for those of an earlier life."""
        return [(job, running.token) for job, running in self._running.items()]

    @property
    def idle(self) -> bool:
        """Nothing runs here, and every result is with an owner."""
        return not self._running and not self._kept

    # ------------------------------------------------------------------------- starts of an owner here

    def reserve(self, job: JobId, token: StartToken, spec: Spec) -> None:
        """An owner here is to begin this start when it may."""
        self._occupy(job, Running(token, spec.task, spec.options.fingerprint))

    def begin(self, job: JobId, token: StartToken, record: Record) -> None:
        """Order the run. It leaves after the Persist that says so."""
        running = self._running[job]
        running.attempt = record.failure_count + 1
        self._desk.emit(Run(job, token, decode_spec(record.spec), running.attempt))

    def revoke(self, job: JobId) -> None:
        """A start that was reserved does not begin: its slot is free."""
        self._vacate(job)

    def _occupy(self, job: JobId, running: Running) -> None:
        self._running[job] = running
        self._shared += running.task in self._coroutines

    def _vacate(self, job: JobId) -> None:
        self._shared -= self._running.pop(job).task in self._coroutines

    def stop(self, job: JobId, running: Running, reason: str) -> None:
        """Take a run back. Its slot is free when `RunEnded` comes."""
        if not running.stopped:
            self._desk.reach(Situation.START_STOPPED)
            running.stopped = True
            self._desk.emit(StopRun(job, running.token, reason))

    def deny(self, job: JobId, token: StartToken) -> None:
        """This start may never begin here."""
        _remember(self._denied, (job, token))

    def rule_out(self, job: JobId, token: StartToken) -> bool:
        """Deny a start that does not run here. Whether it is certain that it has not begun in this life: then
        it never will. (A disk that was set back counts its lives anew, so until it is known to be the latest
        one, another life of this number may have begun it.)"""
        self.deny(job, token)
        return self._table.has_vote and (job, token) not in self._begun

    def rule_out_for(self, owner: NodeId, item: TokenItem) -> None:
        """Who told this start to stop learns that it does not run here, and never will."""
        self.deny(item.job, item.token)
        self._desk.post.send(owner, Has(self._desk.view.boot, (), (item,), ()))

    def stood_still(self) -> None:
        """This node was not there for a while. What was granted to it meanwhile waits to be read now, and its
        owners may have given those starts up: they are denied, and granted anew."""
        self._wary_until = self._desk.now + self._desk.settings.retry_s

    def running_as(self, job: JobId, token: StartToken) -> tuple[Running, Record] | None:
        """A start that runs here, and what is known of its job; None if it is over."""
        running = self._running.get(job)
        if running is None or running.token != token:
            return None
        known = self._known(self._table.get(job), running.grant)
        return None if known is None else (running, known)

    # --------------------------------------------------------------------------------- ends of starts

    def ended(self, event: RunEnded) -> Ended | None:
        """A worker is done. None if nobody waits for that."""
        job, token = event.job, event.token
        if (task := self._ending.pop((job, token), None)) is not None:
            self._shared -= task in self._coroutines
            self._want_at = self._desk.now
            return None
        running = self._running.get(job)
        if running is None or running.token != token:
            return None
        self._vacate(job)
        if event.begun:
            _remember(self._begun, (job, token))  # until now `_running` knew it, however long it ran
        self.deny(job, token)  # spent: a late or doubled grant of it starts nothing
        self._want_at = self._desk.now
        ended_at = round(self._desk.wall, 3)
        item = ResultItem(
            job,
            token,
            self._desk.me,
            event.verdict,
            ended_at,
            event.lost,
            running.fingerprint,
            event.counted,
        )
        return Ended(item, event.begun, running.stopped, running.grant, running.withdrawn)

    def keep(self, ended: Ended, record: Record | None) -> None:
        """Another node owns the job: tell it, until it thanks.

        Args:
            record: the copy here, if there is one.
        """
        if ended.stopped and ended.item.verdict.state is not State.SUCCEEDED:
            self.disown(ended.item.job, ended.item.token, ended.grant, record)
            return
        known = self._known(record, ended.grant)
        if known is not None:
            settings, item = self._desk.settings, ended.item
            until = decode_spec(known.spec).expires_at + 2 * settings.clock_skew_max_s
            kept = Kept(item, known.owner, known.holders, until, self._desk.now, settings.retry_s)
            self._kept[item.job, item.token] = kept
            self._wake = self._desk.now

    def give_back(self, ended: Ended, record: Record | None) -> None:
        """A start that found no worker here: as if it had not been, and for another node to run."""
        known = self._known(record, ended.grant)
        if known is not None and known.owner != self._desk.me:
            voids = (TokenItem(ended.item.job, ended.item.token),)
            self._desk.post.send(known.owner, Has(self._desk.view.boot, (), (), voids))

    def disown(self, job: JobId, token: StartToken, grant: GrantItem | None, record: Record | None) -> None:
        """Tell the other owner of a start that was stopped here not to wait for it."""
        known = self._known(record, grant)
        if known is not None and known.owner != self._desk.me:
            denied = (TokenItem(job, token),)
            self._desk.post.send(known.owner, Has(self._desk.view.boot, (), denied, ()))

    def _known(self, record: Record | None, grant: GrantItem | None) -> Record | None:
        """What is known of a start's job: the copy here, or what came with the grant."""
        if record is not None or grant is None:
            return record
        return self._desk.read(grant.record)

    def take_kept(self, job: JobId) -> list[ResultItem]:
        """Results of a job that this node owns now: for it to judge, and nobody else to thank for."""
        keys = [key for key in self._kept if key[0] == job] if self._kept else []
        return [self._kept.pop(key).item for key in keys]

    # ------------------------------------------------------------------------------------- messages

    def on_grant(self, source: NodeId, items: Sequence[GrantItem]) -> None:
        """Run these, or say that they will not be run here."""
        desk = self._desk
        self._asked.discard(source)
        self._barren.discard(source)
        known = self._table.get_many([item.job for item in items])
        for item in items:
            running = self._running.get(item.job)
            if running is not None and running.token == item.token:
                desk.reach(Situation.GRANT_DOUBLED)
                continue
            if (item.job, item.token) in self._kept:
                continue
            record = desk.read(item.record)
            spec = None if record is None else decode_spec(record.spec)
            if spec is not None:
                self._heed(spec.task)
            mine = known.get(item.job)
            is_over = mine is not None and (mine.outcome is not None or mine.own.ballot > item.token.ballot)
            is_over |= spec is not None and desk.wall >= start_by(spec)
            usable = record is not None and item.boot == desk.view.boot and desk.takes_work and not is_over
            usable = usable and self._table.has_vote and desk.now >= self._wary_until
            if spec is not None and desk.is_forgotten(spec.expires_at):
                usable = usable and mine is not None
            is_denied = (item.job, item.token) in self._denied
            has_slot = spec is not None and self.has_slot_for(spec.task)
            if not usable or is_denied or running is not None or not has_slot:
                self._mark_refusal(item, is_over=is_over, has_slot=has_slot)
                refused = (TokenItem(item.job, item.token),)
                denied, voids = ((), refused) if self.rule_out(item.job, item.token) else (refused, ())
                desk.post.send(source, Has(desk.view.boot, (), denied, voids))
                continue
            assert record is not None
            assert spec is not None
            self._occupy(item.job, Running(item.token, spec.task, spec.options.fingerprint, item))
            self.begin(item.job, item.token, record)

    def _heed(self, task: str) -> None:
        """One of the slots that were offered is granted."""
        slots, async_slots = self._wanted
        is_shared = task in self._coroutines
        self._wanted = Room(max(0, slots - (not is_shared)), max(0, async_slots - is_shared))

    def _mark_refusal(self, item: GrantItem, *, is_over: bool, has_slot: bool) -> None:
        """Why a grant starts nothing."""
        if (item.job, item.token) in self._denied:
            self._desk.reach(Situation.GRANT_DENIED_BEFORE)
        elif is_over:
            self._desk.reach(Situation.GRANT_AFTER_THE_END)
        elif item.boot != self._desk.view.boot:
            self._desk.reach(Situation.GRANT_TO_EARLIER_LIFE)
        elif self._desk.now < self._wary_until:
            self._desk.reach(Situation.GRANT_AFTER_A_STALL)
        elif not has_slot:
            self._desk.reach(Situation.GRANT_WITHOUT_SLOT)

    def on_have(self, source: NodeId, items: Sequence[TokenItem]) -> None:
        """An owner asks what became of its starts. What is denied now must never start."""
        held: list[TokenItem] = []
        denied: list[TokenItem] = []
        voids: list[TokenItem] = []
        for item in items:
            running = self._running.get(item.job)
            if self.tell_of_kept(source, item):
                held.append(item)
            elif running is not None and running.token == item.token:
                held.append(item)  # running, or about to: if that is revoked the next question is denied
            else:
                (voids if self.rule_out(item.job, item.token) else denied).append(item)
        boot = self._desk.view.boot
        self._tell_of_ends(source, [item.job for item in (*denied, *voids)])
        self._desk.post.send(source, Has(boot, tuple(held), tuple(denied), tuple(voids)))

    def _tell_of_ends(self, owner: NodeId, jobs: Sequence[JobId]) -> None:
        """Which of these are over, as far as this node knows: who asks may not have heard of it, and would
        make up for a start that is denied."""
        desk = self._desk
        over = [encode(record) for record in self._table.get_many(jobs).values() if record.settled]
        for piece in pieces_of(over, WRITE_BYTES, desk.settings.batch):
            if piece:
                desk.post.send(owner, Copies(tuple(piece)))

    def tell_of_kept(self, owner: NodeId, item: TokenItem) -> bool:
        """Whether this start's result is kept here: then `owner`, who has spoken of the start, is told next.
        (It may own the job by now, or know that it is over; who owned it before may be gone.)"""
        kept = self._kept.get((item.job, item.token))
        if kept is None:
            return False
        kept.owner, kept.again_at, kept.tries = owner, self._desk.now, 0
        self._wake = self._desk.now
        return True

    def on_taken(self, items: Sequence[TokenItem]) -> None:
        """An owner has stored these results, on enough disks."""
        for item in items:
            self._kept.pop((item.job, item.token), None)

    # ----------------------------------------------------------------------------------------- time

    def deadline(self, *, wanted: Room) -> Instant:
        """Args:
        wanted: the slots that are free, and for which no owner here has anything.
        """
        if any(wanted) and self._desk.takes_work:
            return min(self._wake, max(self._want_at, self._desk.now + 0.001))
        return self._wake

    def on_time(self, *, wanted: Room) -> None:
        if self._want_at <= self._desk.now:
            self._want_at = self._desk.now + self._desk.settings.want_s
            if any(wanted) and self._table.has_vote and self._desk.takes_work:
                self._want_work(wanted)
        if self._wake <= self._desk.now:
            self._wake = FOREVER
            self._send_results()

    def _send_results(self) -> None:
        """To the owner; when it does not thank, to each living holder in turn, while anybody may take it."""
        desk = self._desk
        for (job, token), kept in list(self._kept.items()):
            if kept.until <= desk.sure_wall:
                del self._kept[job, token]
                continue
            if kept.again_at <= desk.now:
                record = self._table.peek(job)
                first = kept.owner if record is None else record.owner
                candidates = [n for n in (first, *kept.holders) if n != desk.me and desk.view.is_living(n)]
                if not candidates and (known := self._table.get(job)) is not None and known.settled:
                    del self._kept[job, token]  # it was this node's to judge, and that is done
                    continue
                if candidates:
                    target = candidates[kept.tries % len(candidates)]
                    if target != first:
                        desk.reach(Situation.RESULT_AWAITS_OWNER)
                    desk.post.add(target, Result, kept.item)
                    kept.tries += 1
                kept.again_at = desk.now + kept.pause_s
                kept.pause_s = min(kept.pause_s * 2, desk.settings.retry_max_s)
            self._wake = min(self._wake, kept.again_at)

    def _want_work(self, wanted: Room) -> None:
        """Ask a busy peer for work. By chance, by the length of their queues; who was asked in vain comes
        after all others: the busiest may have nothing that this node can run."""
        desk = self._desk
        if self._wanted_until <= desk.now:
            self._wanted = NO_ROOM
            self._barren |= self._asked
            self._asked.clear()
        offer = Room(*(max(0, free - asked) for free, asked in zip(wanted, self._wanted, strict=True)))
        if not any(offer):
            return
        peers = [n for n in desk.view.members() if n != desk.me and desk.view.is_living(n)]
        queued = [(desk.view.load(n).queued, n) for n in peers if desk.view.load(n).queued > 0]
        if not (untried := [(count, n) for count, n in queued if n not in self._barren]):
            self._barren.clear()
        queued = untried or queued
        pick = desk.dice.uniform(0.0, float(sum(count for count, _ in queued)))
        for count, peer in queued:
            pick -= count
            if pick <= 0:
                desk.post.send(peer, WantWork(offer))
                self._asked.add(peer)
                self._wanted = Room(*map(sum, zip(offer, self._wanted, strict=True)))
                self._wanted_until = desk.now + desk.settings.want_s
                return


def _remember(memory: dict[Start, None], start: Start) -> None:
    memory[start] = None
    if len(memory) > TOKENS_MAX:
        del memory[next(iter(memory))]
