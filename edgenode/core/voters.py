"""Who is to hold a job from now on, and how its holders decide that.

A holder that is gone is replaced, a set that is smaller than R grows when nodes join. Nobody writes such a
change: two sets whose majorities do not meet would both have owners that believe themselves firm. The holders
decide it, as they decide the outcome: it is a value that competes with outcomes for being what this epoch
chooses (Lamport, Malkhi and Zhou, "Vertical Paxos", 2009; here the present holders are the configuration
master). State per owned job:

    quiet     its holders are as they should be
    wanting   others should hold it; those get copies first, without a vote
    moving    the firm owner has proposed the change; nothing else is decided meanwhile
    (next)    a majority accepted: epoch + 1 begins, with exactly one first record

    quiet   -- members change, or time passes ---> wanting
    wanting -- every newcomer has a copy --------> moving, if the owner is firm and there is no outcome
    moving  -- a majority of the old holders ----> the next epoch, quiet

Safety does not depend on when a change is wanted: any set may follow any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from edgenode.core.agenda import Agenda
from edgenode.core.desk import Desk
from edgenode.core.job_bytes import encode
from edgenode.core.jobs import Record, majority, next_epoch, proposed, with_note
from edgenode.core.settings import JobSettings
from edgenode.core.situations import Situation
from edgenode.core.table import Lead
from edgenode.core.types import FOREVER, Instant, JobId, NodeId, Seconds
from edgenode.core.view import View, is_long_dead
from edgenode.core.wire import Copies

BREATH_S: Final[Seconds] = 0.001
CHUNKS: Final = 2
"""So many batches of jobs get other holders at a time. Each is written twice for that, and stays in memory
meanwhile: when a member leaves that may be all that this node owns."""
ROUND_S: Final[Seconds] = 5.0
"""How often every owned job is looked at, whatever happened: what no event told is found here."""
LAG_S: Final[Seconds] = 0.25
"""How long after news the jobs concerned are looked at. Takeovers and gifts come of the same news, and what
was to run must not wait for votes about who holds it."""

ANY_JOB: Final = JobId(bytes(16))
"""Stands for all jobs where it does not matter which it is."""


class Voters:
    """Drive it with news of ownership and acknowledgements, membership changes and time."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._table = desk.table
        self._due: dict[JobId, None] = {}
        self._changing: dict[JobId, Instant] = {}  # whose holders are to be others soon, and since when
        self._fresh: dict[JobId, None] = {}  # owned since a moment ago
        self._fresh_at: Instant = FOREVER
        self._round_at: Instant = 0.0
        self._given_up: Agenda[NodeId] = Agenda()  # dead members, by when others take their places

    def members_changed(self, changed: frozenset[NodeId]) -> None:
        """Whoever came may be wanted, and whoever went may be missed."""
        desk = self._desk
        for node in changed:
            since = desk.view.dead_since(node)
            if since is None:
                self._given_up.drop(node)
            else:
                self._given_up.set(node, max(desk.now, since + desk.settings.rereplicate_after_s))
        self._round_at = min(self._round_at, desk.now + LAG_S)

    def take_on(self, jobs: Iterable[JobId]) -> None:
        """This node owns these now: whether others should hold them is looked at soon."""
        self._fresh.update(dict.fromkeys(jobs))
        if self._fresh:
            self._fresh_at = min(self._fresh_at, self._desk.now + LAG_S)

    def _review(self, jobs: Iterable[JobId]) -> None:
        """Whether these owned jobs have the holders that they should have."""
        desk = self._desk
        wanting = [job for job in jobs if not self._is_content(job)]
        self._table.fetch(wanting)
        for job in wanting:
            record = self._table.peek(job)
            if record is None or not desk.leading(job) or record.outcome is not None or record.moving:
                desk.newcomers.pop(job, None)
                if record is None or not record.moving:
                    self._changing.pop(job, None)
                if record is not None and self._is_stuck(record):
                    desk.reach(Situation.MOVE_UNDECIDABLE)
                    desk.stuck.add(job)
            elif not desk.leaving or job in desk.newcomers:  # who leaves hands on whole jobs, if it can
                self._want(record)

    def _is_content(self, job: JobId) -> bool:
        """Whether a resting job has the holders that it should have, and none is on the way to become one.
        That is said without a look at its record."""
        rest, desk = self._table.resting(job), self._desk
        if rest is None or job in desk.newcomers:
            return False
        return self._are_wanted(job, rest.holders, rest.owner, frozenset(desk.voteless.get(job, ())))

    def _are_wanted(
        self, job: JobId, holders: tuple[NodeId, ...], owner: NodeId, voteless: frozenset[NodeId]
    ) -> bool:
        """Whether these are the holders that a job should have."""
        desk = self._desk
        wanted = next_holders_of(job, holders, owner, desk.view, desk.settings, desk.now, voteless)
        return wanted == holders

    def _to_review(self) -> Iterable[JobId]:
        """The owned jobs that may want other holders. Resting ones are many, and their holders are few. Who
        would follow those depends on the job's id; whether anybody should does not, if all of them vote."""
        desk, table = self._desk, self._table
        own = {rest.holders for rest in table.rests() if rest.owner == desk.me}
        if own and all(self._are_wanted(ANY_JOB, holders, desk.me, frozenset()) for holders in own):
            return (*table.busy_leads(), *(j for j in (*desk.voteless, *desk.newcomers) if j in table.leads))
        return table.leads

    def _is_stuck(self, record: Record) -> bool:
        """Whether a proposed move waits for holders that are gone. Its owner then asks again, and goes on as
        a provisional one if they stay away: a job does not stand still for disks that may never return."""
        lead = self._table.lead(record.id)
        return lead is not None and lead.firm and record.moving and not self._can_decide(record)

    def _can_decide(self, record: Record) -> bool:
        return majority(len(self._desk.voting_holders(record)), record.holders)

    def _next_holders(self, record: Record) -> tuple[NodeId, ...]:
        desk = self._desk
        voteless = frozenset(desk.voteless.get(record.id, ()))
        return next_holders(record, desk.view, desk.settings, desk.now, voteless)

    def _want(self, record: Record) -> None:
        """Note who is to have a copy, and send it, if others should hold this job."""
        desk, job = self._desk, record.id
        wanted = self._next_holders(record)
        if wanted == record.holders:
            desk.newcomers.pop(job, None)
            self._changing.pop(job, None)
            return
        newcomers = tuple(node for node in wanted if node not in record.holders)
        if desk.newcomers.get(job) != newcomers:
            desk.reach(Situation.NEWCOMER_WANTED)
            desk.newcomers[job] = newcomers
            desk.resend.add(job)
            self._changing.setdefault(job, desk.now)

    def release(self, jobs: Iterable[JobId]) -> None:
        """This node has nothing more to say about these."""
        for job in jobs:
            if not self._desk.leading(job):
                self._desk.newcomers.pop(job, None)
                self._changing.pop(job, None)
                self._due.pop(job, None)
                self._fresh.pop(job, None)

    def propose(self, jobs: Iterable[JobId]) -> None:
        """Those who are to hold these have copies: have the holders decide."""
        desk, table = self._desk, self._table
        for job in jobs:
            record, lead = table.peek(job), table.lead(job)
            newcomers = desk.newcomers.get(job)
            if record is None or lead is None or newcomers is None or not lead.firm:
                continue
            if record.outcome is not None or record.moving:
                continue
            if not self._can_decide(record):
                # Nothing else may happen while they decide. A holder that returns is counted anew.
                desk.reach(Situation.MOVE_POSTPONED)
                continue
            wanted = self._next_holders(record)
            if {*wanted} - {*record.holders} != {*newcomers} or wanted == record.holders:
                desk.reach(Situation.MOVE_RECONSIDERED)
                self._due[job] = None  # the members have changed since
                continue
            del desk.newcomers[job]
            desk.reach(Situation.MOVE_PROPOSED)
            if len(wanted) > len(record.holders):
                desk.reach(Situation.HOLDERS_GROW)
            owner = desk.me if desk.me in wanted else wanted[0]
            table.put(proposed(record, wanted, owner))
            desk.written.add(job)
            desk.released.add(job)  # nothing is started or ended until it is decided

    def begin(self, jobs: Iterable[JobId]) -> None:
        """A majority accepted the move: the next epoch begins. Its named owner goes on, if that is this node;
        any other node only passes on the first record."""
        desk, table = self._desk, self._table
        for job in jobs:
            record, lead = table.peek(job), table.lead(job)
            if record is None or lead is None or not record.moving or record.move is None:
                continue
            self._changing.pop(job, None)
            first = record.move.first
            names = f"{', '.join(record.holders)} -> {', '.join(record.move.holders)}"
            after = with_note(next_epoch(record), desk.note("holders changed", names))
            if first.owner == desk.me:
                desk.reach(Situation.EPOCH_BEGUN)
                table.put(_gone_on(record, after))
                table.leads[job] = Lead(first, True, {desk.me}, after.epoch)
                desk.written.add(job)
                desk.led.add(job)
                told = set(record.holders) - set(after.holders)
            else:
                desk.reach(Situation.EPOCH_HANDED_ON)
                table.put(after)
                told = {*record.holders, *after.holders}
            desk.merged.add(job)  # ballots see to what this means for who owns it
            for node in sorted(told - {desk.me}):
                if desk.view.is_living(node):
                    desk.post.add(node, Copies, encode(table.peek(job) or after))

    def give_away(self, job: JobId) -> bool:
        """This node leaves, and none of the other holders can take its job: have others hold it. False if
        there is nobody, or if this owner is not firm."""
        desk, record, lead = self._desk, self._table.peek(job), self._table.lead(job)
        if record is None or lead is None or not lead.firm or record.outcome is not None:
            return False
        if not record.moving and job not in desk.newcomers:
            self._want(record)
        return record.moving or job in desk.newcomers

    # ------------------------------------------------------------------------------------------ time

    def deadline(self) -> Instant:
        soonest = FOREVER
        if self._due:
            soonest = self._desk.now + BREATH_S if self._room else self._room_at
        round_at = self._round_at if self._table.leads else FOREVER
        return min(soonest, self._given_up.next(), self._fresh_at, round_at)

    @property
    def _room(self) -> int:
        """How many jobs may be looked at now, each of which may get other holders."""
        changing, batch = self._changing, self._desk.settings.batch
        while changing and self._room_at <= self._desk.now:
            del changing[next(iter(changing))]  # who should have a copy by now, or decide, does not
        return min(batch, max(0, CHUNKS * batch - len(changing)))

    @property
    def _room_at(self) -> Instant:
        """When the oldest change is not expected to be done soon any more."""
        return next(iter(self._changing.values())) + self._desk.settings.retry_max_s

    def on_time(self) -> None:
        desk = self._desk
        if self._fresh_at <= desk.now:
            self._due.update(self._fresh)
            self._fresh, self._fresh_at = {}, FOREVER
        if self._given_up.take_due(desk.now) or self._round_at <= desk.now:
            self._round_at = desk.now + ROUND_S
            self._due.update(dict.fromkeys(self._to_review()))
        if self._due and desk.at_leisure:
            jobs = list(islice(self._due, self._room))
            for job in jobs:
                del self._due[job]
            self._review(jobs)


def _gone_on(before: Record, after: Record) -> Record:
    """The first record of an epoch, with what its owner did since it had proposed the change, which is not in
    it: while that was undecidable it may have gone on without a majority, and may have started the job."""
    since = before.own._replace(ballot=after.own.ballot, write=after.own.write)
    if since == after.own:
        return after
    return after._replace(own=since._replace(write=after.own.write + 1))


def next_holders(
    record: Record,
    view: View,
    settings: JobSettings,
    now: Instant,
    voteless: frozenset[NodeId] = frozenset(),
) -> tuple[NodeId, ...]:
    """Who should hold an unfinished job: who holds it now, if nothing speaks against them, then the next in
    rank. The same tuple if nothing is to change.

    Who leaves or has left, or has no vote any more because its disk is behind, is replaced at once, and
    dropped if nobody can replace it. So is who drains, if none of the holders would take the job; else it
    stays. Who is dead keeps its place for `rereplicate_after_s`, and for longer
    while there is nobody to take it: it may return. Nothing changes if the new holders could not decide
    anything at present.

    Args:
        voteless: whose disk never votes on this job, its row having been damaged: each gives its place to a
            node that does, if there is one, while the others can still decide so.
    """
    return next_holders_of(record.id, record.holders, record.owner, view, settings, now, voteless)


def _is_full(holders: tuple[NodeId, ...], view: View, settings: JobSettings) -> bool:
    """Whether these are as many as there should be, and all of them stay."""
    members = view.ranking().members
    return len(holders) == min(settings.replicas, len(members)) and members.issuperset(holders)


def next_holders_of(
    job: JobId,
    holders: tuple[NodeId, ...],
    owner: NodeId,
    view: View,
    settings: JobSettings,
    now: Instant,
    voteless: frozenset[NodeId],
) -> tuple[NodeId, ...]:
    """`next_holders` of a job of which this is known."""
    ranking = view.ranking()
    if _is_full(holders, view, settings) and voteless.isdisjoint(holders):
        return holders
    leaving = {
        node for node in holders if view.is_leaving(node) or view.has_left(node) or view.is_behind(node)
    }
    if ranking.members.isdisjoint(holders):  # then those that are drained keep nobody else waiting
        leaving |= {n for n in holders if (info := view.info(n)) is not None and info.drain}
    after_s = settings.rereplicate_after_s
    gone = {n for n in holders if n in voteless or is_long_dead(n, view, after_s, now)}
    dead = gone - leaving
    staying = [node for node in holders if node not in leaving and node not in dead]
    if len(staying) > settings.replicas:  # R was lowered: the job stays where it is, and with who is there
        staying.sort(key=lambda node: (not view.is_living(node), node != owner))
    room = max(0, settings.replicas - len(staying))
    others = [node for node in ranking.rank(job) if node not in holders]
    newcomers = [node for node in others if node not in voteless][:room]
    waited_for = [node for node in holders if node in dead][: room - len(newcomers)]
    kept = {*staying[: settings.replicas], *waited_for}
    wanted = (*(node for node in holders if node in kept), *newcomers)
    can_decide = majority(sum(map(view.is_living, wanted)), wanted)
    return wanted if can_decide and {*wanted} != {*holders} else holders
