"""The switchboard of one node: an event in, effects out. It routes, and owns no policy.

`membership` knows who lives. `custody` sees to it that every job has an owner, and `ballots` decide which;
`replication` decides who has a copy, `voters` who should, `scheduler` what may start, `filling` where,
`runner` runs it, `retention` decides what is forgotten; `intake` takes what local clients submit, and
`questions` answers what they ask. None of them knows another, but for custody, which has ballots, the
scheduler, which has a runner, and filling, which has these two: each leaves news on the desk, and `_spread`
passes it on until there is none. Then the desk is emptied: what must be on disk first, and what may be said
once it is. An N-node mesh of these runs inside one thread of
the simulator, unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Final, assert_never

from edgenode.core.ballots import Ballots
from edgenode.core.catalogue import Catalogue
from edgenode.core.checks import Checks
from edgenode.core.custody import Custody
from edgenode.core.desk import Desk
from edgenode.core.filling import Filling
from edgenode.core.giving import Draining, Giving
from edgenode.core.intake import Intake
from edgenode.core.jobs import Record
from edgenode.core.keys import Keys
from edgenode.core.leaving import Leaving
from edgenode.core.membership import Membership
from edgenode.core.mending import Mending
from edgenode.core.meshclock import MeshClock
from edgenode.core.permits import Permits
from edgenode.core.questions import Questions
from edgenode.core.queues import Queues
from edgenode.core.replication import Replication
from edgenode.core.reporting import Reporting
from edgenode.core.retention import Retention
from edgenode.core.runner import Runner
from edgenode.core.scheduler import Scheduler
from edgenode.core.settings import WEIGHT_MAX, WEIGHT_MIN, Settings
from edgenode.core.signals import (
    Archive,
    Behind,
    Booted,
    Burst,
    CancelAsked,
    ClockRead,
    Cloned,
    CloneMet,
    CountAsked,
    Effect,
    Event,
    InspectAsked,
    LeaveAsked,
    Left,
    LinkDown,
    LinkUp,
    MessageArrived,
    Persist,
    Persisted,
    QueueAsked,
    ReadAsked,
    RegulateAsked,
    Reported,
    ReportsAsked,
    RequestDropped,
    Row,
    RowsDamaged,
    RunEnded,
    SearchAsked,
    SearchedHere,
    Send,
    SlotsChanged,
    StopAsked,
    StoreRecovered,
    StoreRefused,
    SubmitAsked,
    TasksAsked,
    TimePassed,
)
from edgenode.core.situations import Situation
from edgenode.core.steward import Steward
from edgenode.core.types import (
    FOREVER,
    Dice,
    Drain,
    Instant,
    MemberInfo,
    NodeId,
    Seconds,
    Word,
    are_copies,
    starts_of,
)
from edgenode.core.upkeep import Upkeep
from edgenode.core.view import View
from edgenode.core.voters import Voters
from edgenode.core.vouching import Vouching
from edgenode.core.wire import (
    CONTROL,
    Acks,
    Allowed,
    Ask,
    AskReports,
    Cancel,
    CancelNoted,
    Change,
    Claim,
    Claims,
    Copies,
    CountQueues,
    DescribeTasks,
    Expired,
    Gift,
    Grant,
    Has,
    Have,
    Homes,
    Inspect,
    Inspected,
    Marked,
    Marks,
    MembershipMessage,
    Message,
    Noted,
    Offer,
    PermitsWanted,
    Promises,
    QueuesCounted,
    QueuesDigest,
    QueuesTold,
    Read,
    ReadAnswer,
    Recall,
    Recalled,
    Refused,
    Regulate,
    Regulated,
    Report,
    Reports,
    Result,
    ResultTaken,
    RollCall,
    Search,
    SearchAnswer,
    Stop,
    Submit,
    Submitted,
    Taken,
    TaskItem,
    TasksDescribed,
    Vote,
    Wanted,
    WantWork,
    Wish,
    Write,
)

DISKLESS: Final = (
    Submitted, ReadAnswer, SearchAnswer, Inspected, Reports, QueuesCounted, CancelNoted, Regulate, Regulated,
    DescribeTasks, TasksDescribed,
)  # fmt: skip
"""What a node hears on behalf of its clients, and what is wished or asked of the node itself: that needs no
disk."""
HELD_MAX: Final = 10_000
"""Messages that wait until it is known whether this disk has a vote. Their senders repeat what is lost."""


class Node:
    """Feed it every event with the present instant; carry out the effects in order (see `core/signals.py`).

    Call with `TimePassed` when `deadline()` has come. `handle` never raises on anything a peer or a client
    can send; an assertion is a bug, and ends the node.
    """

    def __init__(
        self,
        info: MemberInfo,
        settings: Settings,
        archive: Archive,
        dice: Dice,
        *,
        expects_peers: bool = False,
        knows_peers: bool = False,
        tasks: Iterable[TaskItem] = (),
    ) -> None:
        """
        Args:
            tasks: what others are told of those in `info.tasks`.
            expects_peers: others may turn up: no jobs are taken before one did, or `formation_s` is over.
            knows_peers: others were named, so that not meeting any means to be cut off.
        """
        self._settings = settings
        info = info._replace(ready=False)  # said when it is true
        clock = MeshClock(skew_max_s=settings.jobs.clock_skew_max_s, hold_s=settings.membership.grace_s)
        self._membership = Membership(
            info, settings.membership, dice, clock, expects_peers=expects_peers, knows_peers=knows_peers
        )
        self._vouching = Vouching(
            self._membership, settings.vouching, behind=info.behind, grace_s=settings.membership.grace_s
        )
        self._desk = Desk(self._membership, settings.jobs, archive, dice, clock)
        self._desk.table.has_vote = self._vouching.has_vote
        self._held: list[MessageArrived] = []  # what needs a vote, while it is not known whether there is one
        self._durable = 0  # the number of the latest Persist that is on disk
        self._has_ended = False  # by its own verdict: it is not the latest of its identity
        self._is_clock_far = False
        checks = Checks()
        self._ballots = Ballots(self._desk, checks)
        self._custody = Custody(self._desk, self._ballots, checks)
        self._replication = Replication(self._desk)
        self._voters = Voters(self._desk)
        self._runner = Runner(
            self._desk,
            room=info.room,
            tasks=frozenset(info.tasks),
            coroutines=frozenset(info.coroutines),
        )
        self._queues = Queues(self._desk)
        self._permits = Permits(self._desk, self._queues)
        self._steward = Steward(self._desk, self._queues)
        self._scheduler = Scheduler(self._desk, self._runner, self._queues, self._permits)
        self._filling = self._make_filling()
        self._upkeep = Upkeep(self._desk)
        self._mending = Mending(self._desk)
        self._retention = Retention(self._desk)
        self._intake = Intake(self._desk)
        self._reporting = Reporting(self._desk)
        self._questions = Questions(
            self._desk,
            held_at=lambda job: self._scheduler.queued.held_at(job),
            is_about_to_own=lambda job: self._ballots.is_about_to_own(job),
            by_queue=lambda: self._scheduler.by_queue(),
            take_part=self._take_part,
            tasks=tasks,
        )
        self._keys = Keys(self._desk)
        self._weight = info.weight
        self._is_booted = False
        self._draining: Draining | None = None
        self._leaving: Leaving | None = None
        self._said_goodbye = False
        self._deadline: Instant = FOREVER  # computed once an event: its answers cost a tenth of a node's time
        self._parts_due: Instant = 0.0  # the same for all but membership, as of the last event they heard of
        self._due: Instant = FOREVER

    @property
    def view(self) -> View:
        return self._membership

    @property
    def membership(self) -> Membership:
        return self._membership

    @property
    def desk(self) -> Desk:
        """For inspection only."""
        return self._desk

    @property
    def reached(self) -> Set[Situation]:
        """What this node has lived through."""
        return self._desk.reached

    @property
    def queues(self) -> Queues:
        """To be read only."""
        return self._queues

    @property
    def scheduler(self) -> Scheduler:
        """To be read only."""
        return self._scheduler

    @property
    def catalogue(self) -> Catalogue:
        """To be read only."""
        return self._questions.catalogue

    @property
    def has_vote(self) -> bool:
        """Whether what this disk says decides anything: not before it is known to be the latest."""
        return self._vouching.has_vote

    def remembers(self, node: NodeId) -> Sequence[Word]:
        """What this node knows of the lives of another one. For inspection only."""
        return self._vouching.words(node)

    @property
    def ready(self) -> bool:
        """Whether this node takes new jobs."""
        desk = self._desk
        is_able = self._is_booted and self._membership.formed and self._vouching.has_vote
        return is_able and desk.takes_work and desk.storing

    def load(self, rows: Iterable[Row]) -> None:
        """Take some of what the disk has, before `Booted` comes with the rest: a million rows at a time would
        be a stall of a minute."""
        assert not self._is_booted
        self._desk.table.load(rows)

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """Take one event at `now` (never earlier than the one before) and return what is to be done."""
        desk = self._desk
        assert now >= desk.now, f"time went backwards: {desk.now} -> {now}"
        if self._has_ended:
            return []
        if isinstance(event, Persisted):
            self._durable = event.number
            self._parts_due = 0.0  # peers are told how many writes are on this disk
            desk.table.persisted(event.number)  # memory is freed; nothing follows from it
            desk.table.rest(self._may_rest)
            return []
        stalled = desk.storing and now > self._due + self._settings.jobs.stall_s
        if stalled and isinstance(event, Burst):
            # The rest is for a node that knows how long it was away.
            first, rest = event.events[0], event.events[1:]
            return self.handle(first, now) + (self.handle(Burst(rest), now) if rest else [])
        desk.now = now
        # Only then: a piece of every long list with each of a hundred messages is seconds of work.
        desk.at_leisure = isinstance(event, TimePassed)
        if stalled:
            self._runner.stood_still()
        had_vote = self._vouching.has_vote
        effects = self._route(event, now)
        verdicts = self._vouch(now)
        if any(isinstance(verdict, Behind | Cloned) for verdict in verdicts):
            self._has_ended = True
            return verdicts
        effects += verdicts
        if not stalled and had_vote == self._vouching.has_vote and self._is_chatter(event):
            self._set_deadline()
            return effects
        if stalled and desk.storing:
            # Longer than others wait before they take over: its ownership is a memory (a zombie's).
            desk.reach(Situation.STALLED)
            desk.log("stalled", f"stood still until {now - self._due:.1f} s after its time", warning=True)
            self._custody.restart()
        if desk.storing:
            self._custody.on_time()
            self._replication.on_time()
            self._voters.on_time()
            self._permits.on_time()
            self._steward.on_time()
            self._scheduler.on_time()
            self._runner.on_time(wanted=self._filling.wanted)
            self._upkeep.on_time()
            self._mending.on_time()
            self._retention.on_time()
            self._keys.on_time()
        self._queues.on_time()
        self._intake.on_time()
        self._reporting.on_time()
        self._questions.on_time()
        if self.ready != self._said_ready:
            effects += self._membership.set_ready(self.ready, now)
        self._pass_on_changes()
        self._spread()
        if desk.leaving and desk.storing:
            effects += self._hand_over(now)
        elif self._draining is not None and desk.storing:
            effects += self._drain(self._draining, now)
        written = desk.table.written_by(self._durable) if self._vouching.has_vote else 0
        self._membership.set_load(self._scheduler.load()._replace(written=written))
        effects += self._tell_all()
        desk.table.rest(self._may_rest)
        self._parts_due = self._next_attention()
        self._set_deadline()
        return effects

    def _may_rest(self, record: Record) -> bool:
        """Whether no part has anything under way for a job. The last to be asked lets go of most."""
        return self._custody.may_rest(record) and self._replication.may_rest(record)

    @property
    def _said_ready(self) -> bool:
        info = self._membership.info(self._desk.me)
        return info is not None and info.ready

    def _is_chatter(self, event: Event) -> bool:
        """Whether membership talked, nothing came of it, and nothing else was due: most of what happens while
        nobody has jobs, and then the whole of what a node costs."""
        is_small = isinstance(event, TimePassed) or (
            isinstance(event, MessageArrived) and isinstance(event.message, MembershipMessage)
        )
        if not is_small or self._desk.now >= self._parts_due or self._membership.has_changes:
            return False
        return self.ready == self._said_ready and self._giving is None

    def _set_deadline(self) -> None:
        membership = min(self._membership.deadline(), self._vouching.deadline())
        self._deadline = min(self._parts_due, membership)
        self._due = max(self._deadline, self._desk.now)

    def _tell_all(self) -> list[Effect]:
        """Pass on what is new, and empty the desk."""
        self._spread()
        changed = self._desk.table.changed_records()
        self._questions.changed(changed)
        ordered = self._desk.flush(changed)
        may_write = self._desk.storing or not any(isinstance(effect, Persist) for effect in ordered)
        assert may_write, "nothing is written to a disk that refuses"
        return self._may_be_said(ordered) if self._vouching.unheard else ordered

    def _say_again(self, peer: NodeId) -> None:
        """`peer` hears from now on what rests on this disk's word. It was lost before that, and the pauses
        before it is repeated may have become long."""
        told = frozenset({peer})
        self._ballots.ask_again(told)
        self._replication.members_changed(told)
        self._keys.members_changed(told)

    def _may_be_said(self, effects: Sequence[Effect]) -> list[Effect]:
        """All but words to who may know better of this disk, and has not told yet."""
        unheard = self._vouching.unheard
        return [
            effect
            for effect in effects
            if not (isinstance(effect, Send) and effect.to in unheard)
            or not isinstance(effect.message, Vote | Grant)
        ]

    def deadline(self) -> Instant:
        """When `TimePassed` is wanted at the latest, as of the last event."""
        return FOREVER if self._has_ended else self._deadline

    def _next_attention(self) -> Instant:
        """When any part but membership has something to do."""
        soonest = min(
            self._intake.deadline(),
            self._reporting.deadline(),
            self._questions.deadline(),
            self._queues.deadline(),
        )
        if not self._desk.storing:
            return soonest
        soonest = min(
            soonest,
            self._custody.deadline(),
            self._replication.deadline(),
            self._voters.deadline(),
            self._scheduler.deadline(),
            self._permits.deadline(),
            self._steward.deadline(),
            self._runner.deadline(wanted=self._filling.wanted),
            self._upkeep.deadline(),
            self._mending.deadline(),
            self._retention.deadline(),
            self._keys.deadline(),
        )
        if self._leaving is not None:
            return min(soonest, self._leaving.deadline())
        return soonest if self._draining is None else min(soonest, self._draining.giving.deadline())

    # ------------------------------------------------------------------------------------- events

    def _route(self, event: Event, now: Instant) -> list[Effect]:
        desk = self._desk
        match event:
            case MessageArrived():
                return self._receive(event, now)
            case TimePassed():
                if self._membership.deadline() <= now:
                    return self._membership.handle(event, now)
            case Booted(rows, clock=clock, forgotten=forgotten):
                desk.clock.remember(clock, now)
                desk.table.load(rows, forgotten)
                self._queues.load(event.queues)
                self._retention.begin()
                self._keys.begin()
                self._vouching.boot_up(event.past, event.words, now)
                desk.table.has_vote = self._vouching.has_vote
                self._custody.check_all()
                self._is_booted = True
                return self._membership.handle(event, now)
            case StoreRefused(reason):
                desk.reach(Situation.STORE_REFUSED)
                return self._resign(reason, now) if desk.storing else []
            case RowsDamaged(jobs):
                if desk.storing:
                    self._mending.mend(jobs)
            case StoreRecovered(boot, rows):
                desk.reach(Situation.STORE_RECOVERED)
                return self._return(boot, rows, now)
            case LinkUp(peer):
                self._vouching.link_up(peer, now)
                return self._membership.handle(event, now)
            case LinkDown(peer):
                self._vouching.link_down(peer)
                return self._membership.handle(event, now)
            case CloneMet(boot, keeps):
                self._vouching.on_clone(boot, keeps=keeps, now=now)
            case ClockRead(wall):
                desk.set_wall(wall)
                self._watch_clock()
            case SubmitAsked():
                self._intake.submit(event)
            case (
                ReadAsked() | SearchAsked() | SearchedHere() | InspectAsked() | CountAsked() | CancelAsked()
                | TasksAsked() | RegulateAsked()
            ):  # fmt: skip
                self._questions.ask(event)
            case QueueAsked():
                self._queues.ask(event)
            case RequestDropped(request):
                self._questions.dropped(request)
                self._reporting.dropped(request)
                self._queues.dropped(request)
            case Reported():
                self._reporting.reported(event, self._runner)
            case ReportsAsked():
                self._reporting.ask(event)
            case RunEnded(job):
                self._scheduler.run_ended(event)
                if (giving := self._giving) is not None:
                    giving.look_at((job,))
            case SlotsChanged(room, ahead):
                self._runner.set_room(room, ahead)
            case LeaveAsked() | StopAsked() if not desk.storing:
                return self._end_unheard()
            case LeaveAsked():
                desk.leaving = True
                if not self._said_goodbye:
                    self._draining = None
                    giving = self._make_giving(desk.settings.drain_s)
                    self._leaving = Leaving(desk, giving, self._replication, self._upkeep)
                return self._membership.handle(event, now)
            case StopAsked():
                if not self._said_goodbye:
                    desk.leaving = True
                    self._scheduler.stop_all()
                    return self._say_goodbye(now, handed_over=False)
            case Burst(events):
                return [effect for each in events for effect in self._route(each, now)]
            case Persisted():
                pass  # `handle` took it
            case _:
                assert_never(event)
        return []

    def _watch_clock(self) -> None:
        """Say so when this machine's clock is far from the others', and when it is not any more."""
        clock = self._desk.clock
        if clock.is_far == self._is_clock_far:
            return
        self._is_clock_far = clock.is_far
        if clock.is_far:
            self._desk.reach(Situation.CLOCK_FAR)
            text = (
                f"this machine's clock is {clock.own_ahead:+.0f} s from the mesh's: until it is right, "
                "no job expires and nothing is deleted here"
            )
            self._desk.log("clock-far", text, warning=True)
        else:
            self._desk.log("clock-agrees", "this machine's clock agrees with the mesh's")

    def _receive(self, event: MessageArrived, now: Instant) -> list[Effect]:
        """A message from a peer. What an earlier life of it said is void, and what comes from a copy of a
        member that lives: they only get an answer to the question that tells them so."""
        source, message = event.source, event.message
        known = self._membership.boot_of(source)
        boot = event.boot or known
        is_copy = are_copies(boot, known) and self._membership.is_living(source)
        if (boot < known or is_copy) and not isinstance(message, Recall):
            return []
        if isinstance(message, Recall):
            if self._vouching.on_recall(source, message):
                self._membership.doubt(source, message.boot)
        elif isinstance(message, Recalled):
            was_unheard = source in self._vouching.unheard
            self._vouching.on_recalled(source, message, self._desk.table.persists, now)
            if was_unheard and source not in self._vouching.unheard and self._desk.storing:
                self._say_again(source)
        elif isinstance(message, CONTROL):
            effects = self._membership.handle(event, now)
            if boot == self._membership.boot_of(source):  # else the load may be an earlier life's
                self._vouching.heard(source, boot, self._membership.load(source).written)
            return effects
        elif isinstance(message, Ask | Write | Submit | Gift | Claim) and self._is_unvouched:
            if len(self._held) < HELD_MAX:
                self._held.append(event)
            if isinstance(message, Claim):
                self._keys.tell_homes(source, message.items)
        else:
            if isinstance(message, Vote):
                self._vouching.heard(source, boot, message.written)
            self._hear(source, message)
        return []

    @property
    def _is_unvouched(self) -> bool:
        """Whether it is still open if this disk has a vote."""
        return not self._vouching.has_vote and not self._membership.is_behind(self._desk.me)

    def _vouch(self, now: Instant) -> list[Effect]:
        """See what became known of this disk: begin to vote, or end."""
        vouching = self._vouching
        for boot, is_living in self._membership.take_rivals().items():
            vouching.on_rival(boot, is_living=is_living, now=now)
        vouching.on_time(now)
        replayed: list[Effect] = []
        if vouching.check():
            self._desk.table.has_vote = True
            self._custody.check_all()
            held, self._held = self._held, []
            for event in held:
                self._receive(event, now)
                replayed += self._tell_all()  # each with a Persist of its own, as if it came only now
        effects = list(vouching.take_effects())
        verdicts: list[Effect] = [effect for effect in effects if isinstance(effect, Behind | Cloned)]
        return (verdicts[:1] or effects) + replayed

    def _hear(self, source: NodeId, message: Message) -> None:
        """One message about jobs, from a peer or from this node itself."""
        if not self._desk.storing and not isinstance(message, DISKLESS):
            return  # all others are about what it would have to store, or has forgotten
        ballots, custody, replication = self._ballots, self._custody, self._replication
        scheduler, intake = self._scheduler, self._intake
        match message:
            case Write(records):
                replication.on_write(source, records)
            case Acks(stored):
                replication.on_acks(source, stored)
            case Refused(refusals):
                replication.on_refused(refusals)
                ballots.on_refusals(source, refusals)
            case Ask(items):
                ballots.on_ask(source, items)
            case Promises(items):
                ballots.on_promises(source, items)
            case Offer(items):
                self._upkeep.on_offers(items)
                replication.on_offer(source, items)
            case Taken(items):
                custody.on_taken(source, items)
                self._upkeep.on_taken(source, items)
            case Wanted(jobs):
                replication.on_wanted(source, jobs)
            case Copies(records):
                replication.on_copies(source, records)
            case Marks(items):
                replication.on_marks(source, items)
            case Marked(jobs):
                replication.on_marked(source, jobs)
            case Expired(jobs):
                self._desk.note_closed(source, jobs)
                custody.on_expired(source, jobs)
                replication.on_expired(source, jobs)
                self._upkeep.on_expired(source, jobs)
            case Gift(items):
                custody.on_gift(source, items)
            case Claim(items):
                self._keys.on_claim(source, items)
            case Claims(items):
                self._keys.on_claims(source, items)
            case Homes(items):
                self._keys.on_homes(source, items)
            case WantWork(room):
                self._filling.on_want(source, room)
            case Grant(items):
                self._runner.on_grant(source, items)
            case Result(items):
                scheduler.on_results(source, items)
            case ResultTaken(items):
                self._runner.on_taken(items)
            case Have(items):
                self._runner.on_have(source, items)
            case Has():
                scheduler.on_has(source, message)
            case Stop(items):
                scheduler.on_stop(source, items)
            case Submit():
                self._take_submission(source, message)
            case Submitted():
                intake.on_submitted(source, message)
            case (
                Read() | ReadAnswer() | Search() | SearchAnswer() | Inspect() | Inspected() | DescribeTasks()
                | TasksDescribed() | CountQueues() | QueuesCounted() | Cancel() | CancelNoted() | Regulate()
                | Regulated()
            ):  # fmt: skip
                self._questions.hear(source, message)
            case Report(items):
                self._reporting.on_report(source, items)
            case Noted(items):
                self._reporting.on_noted(source, items)
            case AskReports():
                self._reporting.on_ask(source, message)
            case Reports():
                self._reporting.on_reports(source, message)
            case QueuesTold():
                self._queues.on_told(source, message)
            case QueuesDigest(digest):
                self._queues.on_digest(source, digest)
            case PermitsWanted():
                self._steward.on_wanted(source, message)
            case Allowed():
                self._permits.on_allowed(source, message)
            case RollCall(roll):
                self._permits.on_roll_call(source, roll)
            case _:
                assert not isinstance(message, MembershipMessage | Recall | Recalled)
                assert_never(message)

    def _take_submission(self, source: NodeId, message: Submit) -> None:
        accepted = self._intake.accept(source, message, self._keys.is_parked, ready=self.ready)
        for record in accepted.named:
            record = self._filling.submitted(record)
            self._desk.table.put(record)
            self._ballots.name_owner(record)
            self._desk.recount.add(record.id)
        for job in accepted.unnamed:
            if not self._ballots.is_asking(job):
                self._ballots.ask(job, "submission")
        for spec, item in accepted.keyed:
            self._keys.park(source, message, spec, item)

    def _take_decided(self) -> None:
        """Submissions whose keys are known to be theirs, or cannot be."""
        decided, self._keys.decided = self._keys.decided, []
        for each in decided:
            self._take_submission(each.source, Submit(each.request, each.place, (each.item,)))
        self._desk.admitted.clear()

    # --------------------------------------------------------------------------------------- news

    def _pass_on_changes(self) -> None:
        changed = self._membership.take_changes()
        if changed:
            self._custody.members_changed(changed)
            self._replication.members_changed(changed)
            self._upkeep.members_changed(changed)
            self._mending.members_changed(changed)
            self._voters.members_changed(changed)
            self._scheduler.members_changed(changed)
            self._intake.members_changed(changed)
            self._reporting.members_changed(changed)
            self._questions.members_changed(changed)
            self._keys.members_changed(changed)
            self._queues.members_changed(changed)
            self._permits.members_changed(changed)
            self._steward.members_changed(changed)
            if (giving := self._giving) is not None:
                giving.members_changed()

    def _spread(self) -> None:
        """Pass on what happened to jobs until nobody has anything to add."""
        desk = self._desk
        ballots, custody, replication = self._ballots, self._custody, self._replication
        scheduler, intake, voters = self._scheduler, self._intake, self._voters
        while True:
            for queue in self._queues.take_changed():
                self._permits.queue_changed(queue)
                self._steward.queue_changed(queue)
            if desk.table.lost:  # as damaged rows are after a start; what was led or asked for ends
                jobs = desk.table.take_lost()
                desk.merged.update(dict.fromkeys(jobs))
                self._mending.mend(jobs)
            elif desk.merged:
                jobs = desk.merged.take()
                ballots.react(jobs)
                custody.react(jobs)
                scheduler.react(jobs)
                self._upkeep.react(jobs)
                intake.settled_elsewhere(jobs)
            elif desk.released:
                jobs = desk.released.take()
                intake.settled_elsewhere(jobs)
                scheduler.release(jobs)
                replication.release(jobs)
                voters.release(jobs)
                if (giving := self._giving) is not None:
                    giving.release(jobs)
            elif desk.led:
                jobs = desk.led.take()
                voters.take_on(jobs)
                scheduler.take_on(jobs)
                self._keys.take_on(jobs)
                if (giving := self._giving) is not None:
                    giving.look_at(jobs)
                for job in intake.awaited(jobs):
                    desk.recount.add(job)
            elif desk.written:
                replication.send(desk.written.take())
            elif desk.begun:
                replication.send_later(desk.begun.take())
            elif desk.resend:
                replication.send_again(desk.resend.take())
            elif desk.movable:
                voters.propose(desk.movable.take())
            elif desk.stuck:
                for job in desk.stuck.take():
                    ballots.ask(job, "too few holders are left to decide who follows them")
            elif desk.moved:
                voters.begin(desk.moved.take())
            elif desk.gate_wanted:
                for job in desk.gate_wanted.take():
                    replication.await_gate(job)
            elif desk.recount:
                for job in desk.recount.take():
                    replication.await_acks(job)
            elif desk.thanks_due:
                thanks, desk.thanks_due = desk.thanks_due, []
                for job, token, runner in thanks:
                    replication.thank(job, token, runner)
            elif desk.acknowledged:
                jobs = desk.acknowledged.take()
                intake.acknowledged((job, replication.holding(job)) for job in jobs)
                scheduler.acknowledged(jobs)
            elif desk.gated:
                scheduler.gated(desk.gated.take())
            elif desk.dropped:
                jobs = desk.dropped.take()
                replication.forget(jobs)
                self._upkeep.forget(jobs)
                intake.forget(jobs)
            elif desk.restored:
                self._upkeep.restored(desk.restored.take())
            elif desk.adopted:
                self._reporting.adopted(desk.adopted.take())
            elif desk.clock_wanted:
                for job in desk.clock_wanted.take():
                    custody.give_away(job, to_better_clock=True)
            elif desk.told:
                custody.told(desk.told.take())
            elif desk.overdue:
                custody.look_at(desk.overdue.take())
            elif desk.unclaimed:
                self._keys.take_on(desk.unclaimed.take())
            elif desk.claimed:
                ballots.claimed(desk.claimed.take())
            elif self._keys.decided:
                self._take_decided()
            elif local := desk.post.take_local():
                for message in local:
                    self._hear(desk.me, message)
            elif not (self._filling.fill() or self._permits.say() or self._steward.serve() or desk.has_news):
                return

    # ------------------------------------------------------------------------------ a disk that refuses

    def _resign(self, reason: str, now: Instant) -> list[Effect]:
        """The disk takes no writes. This node's memory is ahead of it, and nobody may ever hear of that: so
        this life ends, though its process goes on, and the others are told, or they would wait for it.

        Until `_return` it is a member that holds nothing, and still speaks for local clients.
        """
        desk = self._desk
        desk.forget()
        desk.log("store-refused", f"{reason}; this node's jobs move to others", warning=True)
        self._permits = Permits(desk, self._queues)
        self._steward.forget()
        self._runner, self._scheduler = self._scheduler.give_up(self._permits)
        self._filling = self._make_filling()
        checks = Checks()
        self._ballots = Ballots(desk, checks)
        self._custody = Custody(desk, self._ballots, checks)
        self._replication = Replication(desk)
        self._voters = Voters(desk)
        self._upkeep = Upkeep(desk)
        self._mending = Mending(desk)
        self._keys = Keys(desk)
        self._intake.disown()
        self._questions.disown()
        self._reporting.disown()
        self._queues.resign()
        self._draining = None
        if desk.leaving:
            return self._end_unheard()
        return self._membership.resign(now)

    def _return(self, boot: int, rows: Iterable[Row], now: Instant) -> list[Effect]:
        """The disk takes writes again: begin anew on what it has, as after a restart."""
        desk = self._desk
        assert not desk.storing
        desk.storing = True
        desk.table.load(rows)
        desk.table.begin_life()
        self._queues.keep()
        self._vouching.begin_life(self._membership.boot, desk.table.persists)
        effects = self._membership.begin_life(boot, now)
        everyone = frozenset(desk.view.members())
        self._upkeep.members_changed(everyone)  # spares for those that were dead before
        self._custody.check_all()
        self._keys.begin()
        if desk.draining:
            self._draining = Draining(desk, self._make_giving(0.0))
        desk.log("store-recovered", f"the disk takes writes again; this is life {starts_of(boot)}")
        return effects

    def _end_unheard(self) -> list[Effect]:
        """Asked to end while the disk refuses: what it has, it goes on with at the next start."""
        if not self._said_goodbye:
            self._said_goodbye = self._desk.leaving = True
            self._close()
            self._desk.emit(Left(False))
        return []

    def _make_filling(self) -> Filling:
        return Filling(self._desk, self._runner, self._queues, self._permits, self._scheduler)

    def _close(self) -> None:
        """Tell every local client what is known now."""
        self._intake.close()
        self._questions.close()

    # ------------------------------------------------------------------------------------- leaving

    @property
    def _giving(self) -> Giving | None:
        """What gives away this node's jobs, if anything does."""
        going = self._leaving or self._draining
        return None if going is None else going.giving

    def _make_giving(self, patience_s: Seconds) -> Giving:
        parts = (self._custody, self._runner, self._scheduler, self._voters)
        return Giving(self._desk, *parts, patience_s=patience_s)

    def _take_part(self, wish: Wish) -> bool:
        """Drain, take jobs again, or have another weight from now on. False for one that leaves."""
        desk = self._desk
        if desk.leaving:
            return False
        match wish.change:
            case Change.DRAIN:
                desk.draining = True
                self._draining = Draining(desk, self._make_giving(max(0.0, wish.value)))
            case Change.UNDRAIN:
                if desk.draining:
                    desk.reach(Situation.UNDRAINED)
                desk.draining, self._draining = False, None
            case Change.WEIGHT:
                self._weight = min(max(wish.value, WEIGHT_MIN), WEIGHT_MAX)
            case _:
                assert_never(wish.change)
        desk.log("regulated", f"{wish.change} {wish.value:g}")
        # Told at once, also to who asked: its answer says how this node takes part.
        for effect in self._membership.take_part(self.drain, self._weight, desk.now):
            desk.emit(effect)
        return True

    @property
    def drain(self) -> Drain:
        """Whether this node was asked to drain, and has."""
        if self._draining is not None:
            return self._draining.state
        return Drain.DRAINED if self._desk.draining else Drain.NO

    def _drain(self, draining: Draining, now: Instant) -> list[Effect]:
        """Give every job to its successor; and say so when that is done."""
        draining.on_time()
        info = self._membership.info(self._desk.me)
        if info is None or info.drain == draining.state:
            return []
        return self._membership.take_part(draining.state, self._weight, now)

    def _hand_over(self, now: Instant) -> list[Effect]:
        """Give every job to its successor; say goodbye when nothing is left that somebody could take."""
        # Who submits something through this node is told what came of it.
        is_asked = self._intake.has_submissions
        verdict = None if self._leaving is None else self._leaving.verdict(is_asked=is_asked)
        return [] if verdict is None else self._say_goodbye(now, handed_over=verdict)

    def _say_goodbye(self, now: Instant, *, handed_over: bool) -> list[Effect]:
        """End. Only who leaves nothing behind says that it left: others then stop asking for it."""
        self._said_goodbye, self._leaving = True, None
        self._close()
        self._desk.reach(Situation.LEFT_WITH_ALL_HANDED_OVER if handed_over else Situation.LEFT_WHILE_NEEDED)
        self._desk.emit(Left(handed_over))
        return self._membership.left(now) if handed_over else []
