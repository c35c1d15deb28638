"""Who is responsible for a job as things are now, and what this node does about that.

The owner is, while it lives; else the first living holder in rank order. Each unsettled copy here is looked
at when that may have changed, and in turn (`Checks` knows which are due):

    this node is responsible -> it asks for the job (`Ballots`), or has another holder do it (`_pass_by`)
    another node is          -> it is told which copy is here, until it says that it has it
    nobody knows yet         -> the job is looked at again after a pause

So responsibility is a state that is checked again, never an event that could be missed. Only with a gift is
it another who asks: an owner that is to let go of a job, since it leaves for example, hands it on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from edgenode.core.ballots import CHUNKS, GIFT, Ballots
from edgenode.core.checks import Checks
from edgenode.core.desk import Desk
from edgenode.core.job_bytes import digest, encode
from edgenode.core.jobs import Record, majority
from edgenode.core.situations import Situation
from edgenode.core.types import FOREVER, Instant, JobId, NodeId, Promise
from edgenode.core.view import Standing
from edgenode.core.wire import Copies, Gift, GiftItem, Offer, Wanted
from edgenode.core.wire import Digest as DigestItem

BREATH_S: Final = 0.001
OFFER_CHUNKS: Final = CHUNKS
"""So many batches are offered to others in `retry_s`: most of the rest will have been asked for, or written,
before it is their turn."""


class Custody:
    """Drive it with messages, membership changes and time; it passes those two on to its ballots, in their
    turn. It answers through the desk."""

    def __init__(self, desk: Desk, ballots: Ballots, checks: Checks) -> None:
        """
        Args:
            checks: the same that the ballots have.
        """
        self._desk = desk
        self._table = desk.table
        self._ballots = ballots
        self._checks = checks
        self._offers_left = 0
        self._offers_at: Instant = -FOREVER  # when as many may be offered again
        self._gifts: dict[JobId, Instant] = {}
        self._forgotten_by: dict[JobId, set[NodeId]] = {}  # holders that dropped it, its last day being over
        self._round: list[JobId] = []  # what anti-entropy has still to compare in this round
        self._round_at: Instant = 0.0

    # ------------------------------------------------------------------------------- responsibility

    def responsible(self, record: Record) -> NodeId | None:
        """The owner, if living; else the first living holder in rank order; None while that is unknown.

        A disk that is behind is responsible for nothing: it may have used the very next term before. When all
        holders are dead, or have forgotten it, who would be the first of them today goes on with what any
        copy says, provisionally: its results give way to those of the holders.
        """
        view, gone = self._desk.view, self._forgotten_by.get(record.id, ())
        for candidate in (record.owner, *record.holders):
            if candidate in gone:
                continue
            standing = view.standing(candidate)
            if standing is Standing.LIVING and view.is_behind(candidate):
                continue
            if standing is Standing.LIVING:
                return candidate
            if standing is Standing.UNKNOWN:
                return None
        return next((node for node in view.ranking().rank(record.id) if node not in gone), None)

    def on_taken(self, source: NodeId, items: Sequence[DigestItem]) -> None:
        """`source` has what this node has of these jobs, if that is still what it has."""
        checks = self._checks
        for item in items:
            record = self._table.peek(item.job)
            if checks.offered.get(item.job) != source or record is None or record.settled:
                continue
            if digest(record) == item.digest:
                del checks.offered[item.job]
                checks.confirmed[item.job] = source
                self._let_rest(item.job)

    def told(self, jobs: Iterable[JobId]) -> None:
        """The owner has just written these, and knows all that the copies here say: it is told of none.

        Whoever owns many jobs of a dead node since a moment ago writes all of them.
        """
        for job in jobs:
            self._checks.written(job)

    def may_rest(self, record: Record) -> bool:
        """Whether nothing is under way here for a job. Then its owner, if it has confirmed its copy, is not
        remembered for that: when it changes all that it owns is looked at."""
        job, checks = record.id, self._checks
        if self._ballots.is_asking(job) or job in checks.offered or job in checks.due:
            return False
        if checks.confirmed.get(job) == record.owner:
            del checks.confirmed[job]
        return True

    def _let_rest(self, job: JobId) -> None:
        """A resting job has been compared with its owner: that needs no memory, as in `may_rest`."""
        rest, checks = self._table.resting(job), self._checks
        if rest is not None and checks.confirmed[job] == rest.owner:
            del checks.confirmed[job]
            checks.later.drop(job)

    def members_changed(self, changed: frozenset[NodeId]) -> None:
        """Look again at every job whose owner, or whose responsible, is one of `changed`."""
        checks = self._checks
        self._ballots.members_changed(changed)
        due: list[JobId] = []
        for node in sorted(changed):
            due += self._table.owned_by(node)
        for job in self._table.urgent_first(due):
            checks.confirmed.pop(job, None)
            checks.due[job] = None
        for job, node in [*checks.offered.items(), *checks.confirmed.items()]:
            if node in changed:
                checks.due[job] = None
        self._ballots.ask_again(changed)

    def react(self, jobs: Iterable[JobId]) -> None:
        """A copy or a promise changed by what somebody else said: forget what no longer holds."""
        confirmed = self._checks.confirmed
        for job in jobs:
            record = self._table.peek(job)
            if record is None or record.settled:
                self._checks.forget(job)
                self._forgotten_by.pop(job, None)
                self._gifts.pop(job, None)
            elif confirmed.get(job) not in (None, record.owner) and not self._desk.leading(job):
                del confirmed[job]

    def on_expired(self, source: NodeId, jobs: Sequence[JobId]) -> None:
        """A member has dropped these, and takes no copy: it neither votes on them nor is responsible now.

        While a majority of the holders remembers the job, they decide it among themselves: what was settled,
        one of them knows. Else nobody ever can, and each copy that is left ends as expired without being
        settled, for all to see: what was acknowledged does not vanish without a word. That waits for a clock
        which says here, too, that its day is over: nothing may start any more.
        """
        for job in jobs:
            record = self._table.peek(job)
            if record is None or record.settled:
                continue
            gone = self._forgotten_by.setdefault(job, set())
            gone.add(source)
            rest = [holder for holder in record.holders if holder not in gone]
            if not self._ballots.is_asking(job):
                self._checks.due[job] = None
            elif majority(len(rest), record.holders) or self._desk.is_over(record):
                self._ballots.answered(job, source)

    def check_all(self) -> None:
        """Everything unsettled is to be looked at: after a start, and after a long stall."""
        self._checks.look_at(self._table.urgent_first(self._table.unsettled_jobs()))

    def look_at(self, jobs: Iterable[JobId]) -> None:
        """Something was said about these that makes it worth asking who is responsible."""
        self._checks.look_at(jobs)

    def restart(self) -> None:
        """This node stood still for longer than others wait: it owns nothing until it has asked again."""
        self._ballots.restart()
        self._checks.confirmed.clear()
        self._checks.unoffered.clear()
        self.check_all()

    def _check(self, job: JobId) -> None:
        """The duty of this node for one job, as things are now."""
        desk, ballots, checks = self._desk, self._ballots, self._checks
        record = self._table.peek(job)
        checks.unoffered.pop(job, None)
        if record is None or record.settled or ballots.is_asking(job):
            return
        who = self.responsible(record)
        if who == desk.me:
            if not desk.leading(job) and not self._waits_for_asker(record) and not self._pass_by(record):
                ballots.ask(job, self._why(record))
        elif who is None:
            desk.reach(Situation.UNKNOWN_WAITED_FOR)
            checks.later.set(job, desk.now + desk.settings.check_s)  # somebody may still turn up
        elif checks.confirmed.get(job) != (listener := self._listener(record, who)):
            if desk.leading(job):
                return
            if not self._offers_left:
                checks.unoffered[job] = None
                return
            self._offers_left -= 1
            checks.offered[job] = listener
            desk.post.add(listener, Offer, DigestItem(job, digest(record)))
            checks.later.set(job, desk.now + desk.settings.retry_max_s)

    def _listener(self, record: Record, who: NodeId) -> NodeId:
        """Whom to tell of the copy here. An owner that is no holder keeps the job only until all holders have
        its end: who is no holder either tells one of those."""
        me, holders, gone = self._desk.me, record.holders, self._forgotten_by.get(record.id, ())
        if who in holders or me in holders:
            return who
        return next((holder for holder in self._desk.living_holders(record) if holder not in gone), who)

    def _answer_refusal(self, job: JobId) -> None:
        """A holder has promised this job to another, which may have died since: ask again, above that.

        An owner whose disk does not vote on it cannot, and all others wait for it while it lives: who has a
        vote is to ask.
        """
        desk = self._desk
        if self._table.may_vote(job):
            desk.reach(Situation.OWNER_ASKS_AGAIN)
            self._ballots.ask(job, "refused")
        elif self.give_away(job):
            self._checks.later.set(job, desk.now + desk.settings.retry_s)

    def _waits_for_asker(self, record: Record) -> bool:
        """Whether this disk has just promised the job to a node that lives, and needs a moment to act."""
        promise, view = self._table.promise(record.id), self._desk.view
        asker = promise.ballot.owner
        is_given = promise > Promise(record.epoch, record.own.ballot) and asker != view.me
        return is_given and record.id in self._checks.later and view.is_living(asker)

    def _pass_by(self, record: Record) -> bool:
        """Whether a job is another's to ask for, though this holder comes first: it is leaving, or its disk
        does not vote on it. Then the next holder is asked to; or whoever would be a holder today, or the next
        in rank, if no other lives: it would wait for this one for ever."""
        desk = self._desk
        if not desk.leaving and self._table.may_vote(record.id):
            return False
        heirs = self._heirs(record)
        if not heirs and not self._table.may_vote(record.id):
            gone = self._forgotten_by.get(record.id, ())
            others = desk.strangers(record) or filter(desk.view.is_living, desk.next_in_rank(record))
            heirs = [node for node in others if node not in gone]
        # Whatever the heir answers makes this be looked at again: it is told once, and again after a pause.
        if heirs and self._gifts.get(record.id, -FOREVER) <= desk.now:
            if desk.leaving:
                desk.reach(Situation.LEAVER_PASSES_BY)
            desk.post.add(heirs[0], Offer, DigestItem(record.id, digest(record)))
            desk.post.add(heirs[0], Gift, GiftItem(record.id, record.own.ballot))
            self._gifts[record.id] = desk.now + desk.settings.retry_s
            self._checks.later.set(record.id, desk.now + desk.settings.retry_s)
        return bool(heirs)

    def _heirs(self, record: Record) -> list[NodeId]:
        """The other holders that live and stay, and have not dropped the job, in rank order."""
        desk, gone = self._desk, self._forgotten_by.get(record.id, ())
        others = desk.view.ranking().members - {desk.me, *gone}
        return [holder for holder in record.holders if holder in others and desk.view.is_living(holder)]

    def _why(self, record: Record) -> str:
        if record.owner == self._desk.me:
            return "restart"
        view = self._desk.view
        if not view.stores(record.owner):
            return "its disk takes no writes"
        return "its process ended" if view.standing(record.owner) is Standing.GONE else "silence"

    # ----------------------------------------------------------------------------------------- gifts

    def give_away(self, job: JobId, *, to_better_clock: bool = False) -> bool:
        """Ask the first other living holder to ask for this job. False if there is none.

        Args:
            to_better_clock: not to one whose clock is known to be no better than this node's.
        """
        desk, record = self._desk, self._table.peek(job)
        if record is None or record.settled or not desk.leading(job):
            return False
        heirs = self._heirs(record)
        if to_better_clock:
            heirs = [heir for heir in heirs if desk.clock.agrees(heir)]
        if heirs and self._gifts.get(job, -FOREVER) <= desk.now:
            if job in self._gifts:
                desk.reach(Situation.GIFT_REPEATED)
            self._gifts[job] = desk.now + desk.settings.retry_s
            desk.post.add(heirs[0], Gift, GiftItem(job, record.own.ballot))
        return bool(heirs)

    def on_gift(self, source: NodeId, items: Sequence[GiftItem]) -> None:
        """Ask for what a living owner hands on, if its copy is here and nobody was quicker."""
        desk, ballots = self._desk, self._ballots
        self._table.fetch([item.job for item in items])
        for item in items:
            record = self._table.get(item.job)
            if record is None:
                desk.reach(Situation.GIFT_WITHOUT_COPY)
                desk.post.add(source, Wanted, item.job)  # the giver repeats itself
            elif record.settled:
                desk.reach(Situation.GIFT_OF_SETTLED)
                desk.post.add(source, Copies, encode(record))
            elif not ballots.is_asking(item.job) and not desk.leading(item.job) and desk.takes_work:
                if record.own.ballot == item.ballot:
                    if ballots.room:  # else it is given again
                        ballots.ask(item.job, GIFT)
                else:
                    desk.reach(Situation.GIFT_STALE)

    # ------------------------------------------------------------------------------------------ time

    def deadline(self) -> Instant:
        ballots, checks = self._ballots, self._checks
        soonest = min(checks.later.next(), ballots.deadline(), self._round_at)
        if checks.unoffered:
            soonest = min(soonest, self._offers_at)
        if not checks.due or not self._may_check:
            return soonest
        # The rest of a long list comes after whatever else is waiting to be handled.
        return min(soonest, self._desk.now + BREATH_S if ballots.room else ballots.room_at)

    def on_time(self) -> None:
        """Repeat what was not answered, and look at a batch of what is due."""
        desk, ballots, checks = self._desk, self._ballots, self._checks
        if self._round_at <= desk.now:
            self._go_round()
        for job in checks.later.take_due(desk.now):
            if not desk.leading(job):
                checks.due[job] = None
            elif ballots.is_refused(job):
                self._answer_refusal(job)
        if not desk.at_leisure:
            return
        ballots.on_time()
        if self._offers_at <= desk.now:
            self._offers_at = desk.now + desk.settings.retry_s
            self._offers_left = OFFER_CHUNKS * desk.settings.batch
            if checks.unoffered:
                checks.look_at(islice(checks.unoffered, self._offers_left))
        jobs = list(islice(checks.due, ballots.room)) if self._may_check and checks.due else []
        self._table.fetch(jobs)
        for job in jobs:
            del checks.due[job]
            self._check(job)
        if not checks.due:
            checks.due = {}  # one from which many were taken is as large as ever

    @property
    def _may_check(self) -> bool:
        """Not before it is known whether this disk has a vote: it would pass by what is its own."""
        return self._table.has_vote or self._desk.view.is_behind(self._desk.me)

    def _go_round(self) -> None:
        """Compare a few unsettled copies with their responsible, in turn: what every message missed is
        found here in the end."""
        desk = self._desk
        self._round_at = desk.now + desk.settings.check_s
        if not self._round:
            self._round = self._table.unsettled_jobs()
        for job in self._round[-desk.settings.offers_per_check :]:
            if not desk.leading(job):
                self._checks.confirmed.pop(job, None)
                self._checks.due[job] = None
        del self._round[-desk.settings.offers_per_check :]
