"""Who owns a job: asking for it, promising it away, responsibility, gifts.

Each job is a single-decree Paxos of its own (Lamport, "Paxos Made Simple", 2001): its holders are the
acceptors, its owner the proposer, its outcome the value. `Ask` and `Promises` are phase 1. State per job:

    idle       this node only holds a copy (or nothing)
    asking     it gave itself a promise on a higher ballot and asks the other holders for theirs
    leading    provisional (went on without a majority) or firm (a majority of the holders promised)

    idle    -- responsible, and not leading ------------------> asking
    asking  -- all answered or dead, or `ask_s` passed -------> leading (firm with a majority)
    asking  -- a higher ballot, or a settled result, is seen -> idle
    leading -- a higher promise or ballot, or settled --------> idle
    provisional -- one more promise makes a majority ---------> firm

Only promises make an owner firm; a wait that ran out makes it provisional. Responsibility is a state that
is checked again whenever members change (`overdue`), never an event that could be missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from edgenode.core.agenda import Agenda
from edgenode.core.desk import Desk
from edgenode.core.job_bytes import digest, encode
from edgenode.core.jobs import Record, adopted, is_claimed, majority, taken_over, to_be_adopted
from edgenode.core.pace import Pace
from edgenode.core.situations import Situation
from edgenode.core.specs import decode_spec
from edgenode.core.table import Lead
from edgenode.core.types import (
    FOREVER,
    Ballot,
    Instant,
    JobId,
    NodeId,
    Partition,
    Promise,
    Seconds,
)
from edgenode.core.view import Standing
from edgenode.core.wire import (
    Ask,
    AskItem,
    Copies,
    Expired,
    Gift,
    GiftItem,
    Offer,
    Promised,
    Promises,
    Refusal,
    Refused,
    Wanted,
)
from edgenode.core.wire import Digest as DigestItem

BREATH_S: Final = 0.001
CHUNKS: Final = 2
"""So many batches of questions are under way at a time: one is answered while the next is read. Whoever asked
for 100,000 jobs at once would be answered late, and would ask again before that, and do nothing else. So many
are offered to others in `retry_s`, too: most of them will have been asked for, or written, before it is their
turn."""
BYSTANDERS: Final = 16
"""So many members are asked for a newer copy of a job whose holders are all gone."""
GIFT: Final = "gift"
"""Why a node asks for a job that its owner hands on."""


@dataclass(slots=True)
class Asking:
    """One attempt to become owner."""

    epoch: int
    ballot: Ballot
    why: str
    began: Instant
    again_at: Instant
    pause_s: float
    patient: bool  # on silence alone: a minority waits `island_after_s` before it goes on
    promised: set[NodeId] = field(default_factory=set)
    answered: set[NodeId] = field(default_factory=set)
    is_repeated: bool = False
    provisional: bool = False  # concluded without a majority; late promises still count


class Custody:
    """Drive it with messages, membership changes and time; it answers through the desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._table = desk.table
        self._asking: dict[JobId, Asking] = {}
        self._pace = Pace(desk.settings.retry_s, desk.settings.retry_max_s)
        self._unanswered: dict[JobId, Instant] = {}
        """Attempts that somebody is expected to answer soon, in the order in which they began."""
        self._seen_term: dict[JobId, int] = {}  # terms met in refusals
        self._due: dict[JobId, None] = {}  # responsibility to be looked at, most urgent first
        self._later: Agenda[JobId] = Agenda()  # the same, after a pause
        self._asks: Agenda[JobId] = Agenda()  # when an attempt needs a look
        self._offered: dict[
            JobId, NodeId
        ] = {}  # who was told that it is responsible, and has not said "taken"
        self._unoffered: dict[JobId, None] = {}  # whose responsible is to be told of the copy here, in turn
        self._offers_left = 0
        self._offers_at: Instant = -FOREVER  # when as many may be offered again
        self._confirmed: dict[JobId, NodeId] = {}  # responsible that are known to have their copy
        self._gifts: dict[JobId, Instant] = {}
        self._forgotten_by: dict[JobId, set[NodeId]] = {}  # holders that dropped it, its last day being over
        self._round: list[JobId] = []  # what anti-entropy has still to compare in this round
        self._round_at: Instant = 0.0

    # -------------------------------------------------------------------------------- becoming owner

    def name_owner(self, record: Record) -> None:
        """A submission named this node first: firm under term 1, once, without asking."""
        assert record.own.ballot == Ballot(1, self._desk.me)
        self._table.leads[record.id] = Lead(record.own.ballot, True, set(record.holders))
        self._desk.led.add(record.id)
        self._desk.written.add(record.id)

    def ask(self, job: JobId, why: str) -> None:
        """Begin to ask for a job, above every term seen, keeping what runs here."""
        desk, table = self._desk, self._table
        record = table.peek(job)
        if record is None or record.settled or not table.may_vote(job):
            return
        promise = table.promise(job)
        if promise.epoch > record.epoch:
            # The holders have changed since: this copy is none to go on with. (It took the place of one that
            # was further: under a key that was used on two sides of a cut, the other life stands.)
            self._fetch(record)
            return
        promised_term = promise.ballot.term if promise.epoch == record.epoch else 0
        refused_term = self._seen_term.pop(job, 0)
        if promised_term > record.own.ballot.term:
            desk.reach(Situation.ASKED_ABOVE_OWN_PROMISE)
        if refused_term > max(record.own.ballot.term, promised_term):
            desk.reach(Situation.ASKED_ABOVE_REFUSAL)
        term = max(record.own.ballot.term, promised_term, refused_term) + 1
        ballot = Ballot(term, desk.me)
        table.give_promise(job, Promise(record.epoch, ballot))
        self._later.drop(job)
        self._due.pop(job, None)
        # A dead owner on proof needs no patience; nor does one that handed the job over.
        patient = desk.view.standing(record.owner) is not Standing.GONE and why != GIFT
        asking = Asking(record.epoch, ballot, why, desk.now, desk.now, desk.settings.retry_s, patient)
        asking.promised.add(desk.me)
        asking.answered.add(desk.me)
        self._asking[job] = asking
        others = [holder for holder in desk.living_holders(record) if holder != desk.me]
        asking.pause_s = max(map(self._pace.patience_s, others), default=asking.pause_s)
        self._unanswered.pop(job, None)
        if others:
            self._unanswered[job] = desk.now
        desk.merged.add(job)  # its own promise ends what it led under a lower ballot
        self._send_ask(record, asking)
        self._asks.set(job, self._attention(asking))
        if not is_claimed(record):
            desk.unclaimed.add(job)
        self._try_conclude(job)

    def _fetch(self, record: Record) -> None:
        """Ask those who may know for a newer copy."""
        desk = self._desk
        for holder in desk.living_holders(record):
            if holder != desk.me:
                desk.post.add(holder, Offer, DigestItem(record.id, digest(record)))
        self._later.set(record.id, desk.now + desk.settings.retry_s)

    def _send_ask(self, record: Record, asking: Asking) -> None:
        desk = self._desk
        item = AskItem(
            record.id,
            record.epoch,
            asking.ballot.term,
            decode_spec(record.spec).expires_at,
            digest(record),
        )
        for holder in record.holders:
            if holder not in asking.answered and desk.view.standing(holder) is not Standing.GONE:
                desk.post.add(holder, Ask, item)
        for witness in self._witnesses(record):
            desk.post.add(witness, Offer, DigestItem(record.id, item.digest))
        for bystander in self._bystanders(record):
            desk.post.add(bystander, Wanted, record.id)
        asking.again_at = desk.now + asking.pause_s
        asking.pause_s = min(asking.pause_s * 2, desk.settings.retry_max_s)

    def _witnesses(self, record: Record) -> list[NodeId]:
        """Who may know what the holders would say, when too few of them live to say it."""
        if majority(len(self._desk.living_holders(record)), record.holders):
            return []
        return self._strangers(record)

    def _strangers(self, record: Record) -> list[NodeId]:
        """The other nodes that would hold the job today, and do not. They may have a copy without a vote, or
        have become its holders while this one was away."""
        view = self._desk.view
        ranked = view.ranking().rank(record.id)[: self._desk.settings.replicas]
        strangers = [node for node in ranked if node not in record.holders and node != self._desk.me]
        return [node for node in strangers if view.is_living(node)]

    def _bystanders(self, record: Record) -> list[NodeId]:
        """Who else may have what came of a job whose holders are all gone: where few are to hold a job, a
        former holder may have handed it to anybody. They give what they have, and take no copy."""
        desk, view = self._desk, self._desk.view
        if desk.living_holders(record):
            return []
        ranked = view.ranking().rank(record.id)
        others = [] if len(ranked) >= BYSTANDERS else [n for n in view.members() if n not in ranked]
        known = {desk.me, *record.holders, *self._strangers(record)}
        able = (n for n in (*ranked, *others) if view.is_living(n) and not view.is_behind(n))
        return list(islice((node for node in able if node not in known), BYSTANDERS))

    def on_ask(self, source: NodeId, items: Sequence[AskItem]) -> None:
        """Promise, with the copy that is here; or refuse, with the promise that stands and the copy."""
        desk, table = self._desk, self._table
        copies = table.get_many([item.job for item in items])
        # Who promised gives the asker time to act; if it dies meanwhile, membership says so. One moment for
        # all of a batch: each moment is a wake-up.
        patience_ends = desk.now + desk.settings.ask_s * 2 + desk.dice.uniform(0, desk.settings.ask_s)
        for item in items:
            copy, promise = copies.get(item.job), table.promise(item.job)
            asked = Promise(item.epoch, Ballot(item.term, source))
            self._mark_ask(copy, promise, asked)
            if copy is not None and copy.settled:
                # The last word needs no vote: the asker adopts it whole.
                desk.post.add(source, Refused, _refusal(item.job, asked, promise, copy))
                continue
            if promise > asked or _knows_better(copy, asked) or not table.may_vote(item.job):
                desk.post.add(source, Refused, _refusal(item.job, asked, promise, copy))
                continue
            if copy is None and desk.is_forgotten(item.expires_at):
                desk.post.add(source, Expired, item.job)
                continue
            if item.epoch > (0 if copy is None else copy.epoch):
                # First the record, which the asker sends, then a promise, when it asks again. A disk that has
                # promised in an epoch of which it knows nothing could neither ask nor say who may.
                desk.reach(Situation.ASKED_FROM_LATER_EPOCH)
                desk.post.add(source, Wanted, item.job)
                continue
            if promise < asked:
                table.give_promise(item.job, asked, item.expires_at)
                desk.merged.add(item.job)
                self._later.set(item.job, patience_ends)
                self._due.pop(item.job, None)  # the asker gets the copy here with the promise
                self._unoffered.pop(item.job, None)
            same = copy is not None and digest(copy) == item.digest
            blob = encode(copy) if copy is not None and not same else b""
            desk.post.add(source, Promises, Promised(item.job, item.epoch, item.term, same, blob))

    def _mark_ask(self, copy: Record | None, promise: Promise, asked: Promise) -> None:
        """Which of the meetings that two askers can have this is, if any."""
        reach = self._desk.reach
        if copy is not None and copy.settled:
            reach(Situation.ASK_OF_SETTLED)
        elif promise > asked:
            reach(Situation.ASK_OUTBID)
        elif _knows_better(copy, asked):
            reach(Situation.ASK_MEETS_ANOTHER_OWNER)
        one, other = promise.ballot, asked.ballot
        if (promise.epoch, one.term) == (asked.epoch, other.term) and one.owner != other.owner:
            reach(Situation.TERM_COLLISION)

    def on_promises(self, source: NodeId, items: Sequence[Promised]) -> None:
        desk, table = self._desk, self._table
        if desk.view.is_behind(source):
            return
        took_s: Seconds | None = None
        for item in items:
            asking, record = self._asking.get(item.job), table.peek(item.job)
            if asking is None or record is None:
                desk.reach(Situation.STRAY_PROMISE)
                continue
            if (item.epoch, item.term) != (record.epoch, asking.ballot.term):
                desk.reach(Situation.STRAY_PROMISE)
                continue
            if item.copy and (copy := desk.read(item.copy)) is not None:
                mine, record = record, desk.merge(copy) or record
                if record is not mine:
                    desk.reach(Situation.SURVIVOR_HAD_NEWER)
                if asking.provisional and mine.outcome is None and record.outcome is not None:
                    desk.reach(Situation.LATE_PROMISE_BRINGS_OUTCOME)
                if not self._still_asking(record, asking):
                    continue  # `react` drops it
            asking.promised.add(source)
            asking.answered.add(source)
            if not asking.is_repeated:
                took_s = desk.now - asking.began
            desk.voteless.get(item.job, set()).discard(source)
            if not asking.provisional:
                self._try_conclude(item.job)
            elif _is_firm(asking, record):
                self._become_firm(item.job)
        if took_s is not None and self._desk.view.is_living(source):
            self._pace.took(source, took_s)

    def on_expired(self, source: NodeId, jobs: Sequence[JobId]) -> None:
        """A member has dropped these, and takes no copy: it neither votes on them nor is responsible now.

        While a majority of the holders remembers the job, they decide it among themselves: what was settled,
        one of them knows. Else nobody ever can, and each copy that is left ends as expired without being
        settled, for all to see: what was acknowledged does not vanish without a word. That waits for a clock
        which says here, too, that its day is over: nothing may start any more.
        """
        desk = self._desk
        for job in jobs:
            record, asking = self._table.peek(job), self._asking.get(job)
            if record is None or record.settled:
                continue
            gone = self._forgotten_by.setdefault(job, set())
            gone.add(source)
            rest = [holder for holder in record.holders if holder not in gone]
            if asking is None:
                self._due[job] = None
            elif majority(len(rest), record.holders) or desk.is_over(record):
                asking.answered.add(source)
                self._try_conclude(job)

    def on_refusals(self, source: NodeId, refusals: Iterable[Refusal]) -> None:
        """Ask again above the refusal after a random pause: who caused it may have died since.

        The copies in the refusals are merged already; a higher record behind one ends the matter.
        """
        desk, table = self._desk, self._table
        pause_ends = desk.now + desk.dice.uniform(0.2, 1.2) * desk.settings.ask_s
        for refusal in refusals:
            record = table.peek(refusal.job)
            if record is None or record.settled:
                continue
            standing = refusal.promise.ballot.term if refusal.promise.epoch == record.epoch else 0
            self._seen_term[refusal.job] = max(self._seen_term.get(refusal.job, 0), standing)
            asking = self._asking.get(refusal.job)
            asked = Promise(refusal.epoch, refusal.ballot)
            if refusal.promise <= asked and not _knows_better(record, asked):
                # It is not outvoted: that holder's disk does not vote on this job. It has answered. (Once
                # this node has gone on, its write may be what was refused: a promise is still wanted then.)
                if refusal.copy == encode(record):
                    desk.voteless.setdefault(refusal.job, set()).add(source)
                if asking is not None and asking.ballot == refusal.ballot and not asking.provisional:
                    asking.answered.add(source)
                    self._try_conclude(refusal.job)
            elif asking is not None and asking.ballot == refusal.ballot and not asking.provisional:
                desk.reach(Situation.ASKER_OUTVOTED)
                self._give_up(refusal.job)
                self._later.soon(refusal.job, pause_ends)
            elif refusal.ballot == record.own.ballot and desk.leading(refusal.job):
                desk.reach(Situation.OWNER_REFUSED_BY_PROMISE)
                self._later.soon(refusal.job, pause_ends)

    def _give_up(self, job: JobId) -> None:
        self._asking.pop(job, None)
        self._unanswered.pop(job, None)
        self._asks.drop(job)

    def _still_asking(self, record: Record, asking: Asking) -> bool:
        promise = self._table.promise(record.id)
        if record.settled or record.epoch != asking.epoch:
            return False
        return promise <= Promise(record.epoch, asking.ballot)

    def _try_conclude(self, job: JobId) -> None:
        """Go on with what the holders said, if enough did, or if waiting any longer is no use."""
        desk = self._desk
        asking, record = self._asking[job], self._table.peek(job)
        if asking.provisional or record is None or not self._still_asking(record, asking):
            return
        view = desk.view
        firm = _is_firm(asking, record)
        unheard = {h: view.standing(h) for h in record.holders if h not in asking.answered}
        waiting = any(known in (Standing.LIVING, Standing.UNKNOWN) for known in unheard.values())
        waited = desk.now - asking.began
        if waiting and waited < desk.settings.ask_s:
            return
        if not firm:
            if self._waits_for_majority(record):
                desk.reach(Situation.CAREFUL_JOB_WAITS)
                return
            # Proof of death does not wait; silence does, and so do holders that were not met yet: whoever
            # comes back first after an outage must not do again what the others finished.
            is_silent = any(known is not Standing.GONE for known in unheard.values())
            is_early = (asking.patient and is_silent) or Standing.UNKNOWN in unheard.values()
            if is_early and waited < desk.settings.island_after_s:
                desk.reach(Situation.ISLAND_WAITS)
                return
            if waited < desk.settings.ask_s and (self._witnesses(record) or self._bystanders(record)):
                return
        self._conclude(job, firm=firm)

    def _waits_for_majority(self, record: Record) -> bool:
        """Careful jobs do; when their last day is over, and nothing can start, a minority may say so."""
        return decode_spec(record.spec).options.partition is Partition.WAIT and not self._desk.is_over(record)

    def _conclude(self, job: JobId, *, firm: bool) -> None:
        desk, table = self._desk, self._table
        asking, base = self._asking[job], table.peek(job)
        assert base is not None
        ballot = asking.ballot
        if firm:
            self._give_up(job)
        else:
            asking.provisional = True
        self._mark_conclusion(base, asking, firm=firm)
        if firm and (base.moving or base.outcome is not None):
            record = adopted(base, ballot)
        elif base.owner == desk.me:
            record = base._replace(own=base.own._replace(ballot=ballot, write=1))
        else:
            kind = "takeover" if firm else "provisional takeover"
            record = taken_over(base, ballot, desk.note(kind, f"from {base.owner}: {asking.why}"))
            desk.taken_over += 1
        # A provisional owner leaves an outcome as it found it: it may be a firm one.
        table.leads[job] = Lead(ballot, firm, asking.promised, base.epoch)
        table.put(record)
        self._offered.pop(job, None)
        self._confirmed.pop(job, None)
        desk.written.add(job)
        desk.led.add(job)

    def claimed(self, jobs: Iterable[JobId]) -> None:
        """It is decided now that these jobs' keys are their holders': maybe only that was missing."""
        for job in jobs:
            asking, record = self._asking.get(job), self._table.peek(job)
            if asking is not None and record is not None:
                if not asking.provisional:
                    self._try_conclude(job)
                elif _is_firm(asking, record):
                    self._become_firm(job)

    def _mark_conclusion(self, base: Record, asking: Asking, *, firm: bool) -> None:
        reach, is_own = self._desk.reach, base.owner == self._desk.me
        if self._desk.me not in base.holders:
            reach(Situation.GOES_ON_WITHOUT_HOLDERS)
        if is_own:
            reach(Situation.OWNER_REGAINS_OWN)
        elif firm:
            reach(Situation.TAKEOVER_FIRM)
        else:
            reach(Situation.TAKEOVER_PROVISIONAL)
        if not is_own and not self._desk.view.stores(base.owner):
            reach(Situation.OWNER_CANNOT_STORE)
        if base.moving and firm:
            reach(Situation.MOVE_FOUND)
        if base.outcome is not None:
            reach(Situation.OUTCOME_FOUND if firm else Situation.OUTCOME_LEFT_ALONE)
        if asking.why == GIFT and not is_own:
            lives = self._desk.view.is_living(base.owner)
            reach(Situation.GIFT_TAKEN if lives else Situation.GIFT_OUTLIVES_GIVER)

    def _become_firm(self, job: JobId) -> None:
        desk, table = self._desk, self._table
        lead, record = table.lead(job), table.peek(job)
        if lead is None or record is None:
            return
        self._give_up(job)
        lead.firm = True
        desk.reach(Situation.PROVISIONAL_TURNS_FIRM)
        if record.outcome is not None:
            desk.reach(Situation.PROVISIONAL_OUTCOME_TURNS_FIRM)
        if record.moving or record.outcome is not None:
            table.put(adopted(record, lead.ballot))
            if record.moving:
                desk.released.add(job)  # a start that was not begun yet would outlast the epoch it is of
        else:
            # The same record again, under a new number: acknowledgements of a provisional write never count
            # once firm.
            table.put(record._replace(own=record.own._replace(write=record.own.write + 1)))
        desk.written.add(job)
        desk.led.add(job)

    # ------------------------------------------------------------------------------ stepping down

    def react(self, jobs: Iterable[JobId]) -> None:
        """A copy or a promise changed by what somebody else said: give up what no longer holds."""
        desk, table = self._desk, self._table
        for job in jobs:
            record = table.peek(job)
            asking = self._asking.get(job)
            if asking is not None and (record is None or not self._still_asking(record, asking)):
                desk.reach(Situation.ASKER_GIVES_WAY)
                self._give_up(job)
                if job not in self._later:
                    self._due[job] = None
            held = table.leads.get(job)
            if held is not None and (record is None or record.settled or table.lead(job) is None):
                self.release(job)
                if asking is not None and asking.provisional:
                    self._give_up(job)  # it went on as the owner of another life of the key
                if record is not None and not record.settled:
                    stands = record.own.ballot != held.ballot
                    desk.reach(Situation.STALE_OWNER_STEPS_DOWN if stands else Situation.OWNER_OUTPROMISED)
                    if job not in self._later:
                        self._due[job] = None
            if record is None or record.settled:
                self._forget(job)
                continue
            lead = table.lead(job)
            if lead is not None and lead.firm and to_be_adopted(record, lead.ballot):
                # Another side finished or moved it first: a firm owner makes what it finds its own proposal.
                desk.reach(
                    Situation.MOVE_OF_ANOTHER_SIDE if record.moving else Situation.OUTCOME_OF_ANOTHER_SIDE
                )
                table.put(adopted(record, lead.ballot))
                desk.written.add(job)
                if record.moving:
                    desk.released.add(job)  # nothing else happens to it until that is decided
            elif lead is None and self._confirmed.get(job) not in (None, record.owner):
                del self._confirmed[job]

    def release(self, job: JobId) -> None:
        """This node is not the owner any more, or nothing is left to own."""
        del self._table.leads[job]
        self._desk.released.add(job)

    def _forget(self, job: JobId) -> None:
        self._give_up(job)
        self._later.drop(job)
        self._forgotten_by.pop(job, None)
        self._desk.voteless.pop(job, None)
        self._unoffered.pop(job, None)
        for place in (self._seen_term, self._due, self._offered, self._confirmed, self._gifts):
            place.pop(job, None)

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
        for item in items:
            record = self._table.peek(item.job)
            if self._offered.get(item.job) != source or record is None or record.settled:
                continue
            if digest(record) == item.digest:
                del self._offered[item.job]
                self._confirmed[item.job] = source
                self._let_rest(item.job)

    def told(self, jobs: Iterable[JobId]) -> None:
        """The owner has just written these, and knows all that the copies here say: it is told of none.

        Whoever owns many jobs of a dead node since a moment ago writes all of them.
        """
        for job in jobs:
            for place in (self._due, self._unoffered, self._offered):
                place.pop(job, None)
            self._later.drop(job)

    def may_rest(self, record: Record) -> bool:
        """Whether nothing is under way here for a job. Then its owner, if it has confirmed its copy, is not
        remembered for that: when it changes all that it owns is looked at."""
        job = record.id
        if job in self._asking or job in self._offered or job in self._due:
            return False
        if self._confirmed.get(job) == record.owner:
            del self._confirmed[job]
        return True

    def _let_rest(self, job: JobId) -> None:
        """A resting job has been compared with its owner: that needs no memory, as in `may_rest`."""
        rest = self._table.resting(job)
        if rest is not None and self._confirmed[job] == rest.owner:
            del self._confirmed[job]
            self._later.drop(job)

    def members_changed(self, changed: frozenset[NodeId]) -> None:
        """Look again at every job whose owner, or whose responsible, is one of `changed`."""
        for node in changed:
            self._pace.forget(node)
        self._withdraw({node for node in changed if self._desk.view.is_behind(node)})
        due: list[JobId] = []
        for node in sorted(changed):
            due += self._table.owned_by(node)
        for job in self._table.urgent_first(due):
            self._confirmed.pop(job, None)
            self._due[job] = None
        for job, node in [*self._offered.items(), *self._confirmed.items()]:
            if node in changed:
                self._due[job] = None
        self.ask_again(changed)

    def ask_again(self, nodes: frozenset[NodeId]) -> None:
        """Any of these may have gone, or may answer now who could not before."""
        for job, asking in list(self._asking.items()):
            record = self._table.peek(job)
            if record is None or nodes.isdisjoint(record.holders):
                continue
            self._try_conclude(job)
            if job in self._asking:
                asking.again_at = self._desk.now
                self._asks.set(job, self._desk.now)

    def _withdraw(self, behind: set[NodeId]) -> None:
        """What these promised does not count: the disk that would hold them to it is not the latest. Some of
        it was promised before, and would; which, nobody can tell."""
        if not behind:
            return
        for asking in self._asking.values():
            asking.promised -= behind
        for job, lead in list(self._table.leads.items()):
            if lead.promised.isdisjoint(behind) or (record := self._table.peek(job)) is None:
                continue
            if not lead.firm:
                lead.promised -= behind  # it asks on, and has this set in common with the attempt
                continue
            lead = self._table.leads[job] = replace(lead, promised=lead.promised - behind)
            if not majority(len(lead.promised.intersection(record.holders)), record.holders):
                self.ask(job, "a vote was withdrawn")

    def check_all(self) -> None:
        """Everything unsettled is to be looked at: after a start, and after a long stall."""
        self._due.update(dict.fromkeys(self._table.urgent_first(self._table.unsettled_jobs())))

    def look_at(self, jobs: Iterable[JobId]) -> None:
        """Something was said about these that makes it worth asking who is responsible."""
        self._due.update(dict.fromkeys(jobs))

    def restart(self) -> None:
        """This node stood still for longer than others wait: it owns nothing until it has asked again."""
        for job in list(self._table.leads):
            self.release(job)
        self._asking.clear()
        self._unanswered.clear()
        self._asks.clear()
        self._confirmed.clear()
        self._unoffered.clear()
        self.check_all()

    def _check(self, job: JobId) -> None:
        """The duty of this node for one job, as things are now."""
        desk = self._desk
        record = self._table.peek(job)
        self._unoffered.pop(job, None)
        if record is None or record.settled or job in self._asking:
            return
        who = self.responsible(record)
        if who == desk.me:
            if not desk.leading(job) and not self._waits_for_asker(record) and not self._pass_by(record):
                self.ask(job, self._why(record))
        elif who is None:
            desk.reach(Situation.UNKNOWN_WAITED_FOR)
            self._later.set(job, desk.now + desk.settings.check_s)  # somebody may still turn up
        elif self._confirmed.get(job) != (listener := self._listener(record, who)):
            if desk.leading(job):
                return
            if not self._offers_left:
                self._unoffered[job] = None
                return
            self._offers_left -= 1
            self._offered[job] = listener
            desk.post.add(listener, Offer, DigestItem(job, digest(record)))
            self._later.set(job, desk.now + desk.settings.retry_max_s)

    def _listener(self, record: Record, who: NodeId) -> NodeId:
        """Whom to tell of the copy here. An owner that is no holder keeps the job only until all holders have
        its end: who is no holder either tells one of those."""
        me, holders, gone = self._desk.me, record.holders, self._forgotten_by.get(record.id, ())
        if who in holders or me in holders:
            return who
        return next((holder for holder in self._desk.living_holders(record) if holder not in gone), who)

    def _waits_for_asker(self, record: Record) -> bool:
        """Whether this disk has just promised the job to a node that lives, and needs a moment to act."""
        promise, view = self._table.promise(record.id), self._desk.view
        asker = promise.ballot.owner
        is_given = promise > Promise(record.epoch, record.own.ballot) and asker != view.me
        return is_given and record.id in self._later and view.is_living(asker)

    def _pass_by(self, record: Record) -> bool:
        """Whether a job is another's to ask for, though this holder comes first: it is leaving, or its disk
        does not vote on it. Then the next holder is asked to; or whoever would be a holder today, if no other
        lives: it would wait for this one for ever."""
        desk = self._desk
        if not desk.leaving and self._table.may_vote(record.id):
            return False
        gone = self._forgotten_by.get(record.id, ())
        heirs = [node for node in self._heirs(record) if node not in gone]
        if not heirs and not self._table.may_vote(record.id):
            heirs = [node for node in self._strangers(record) if node not in gone]
        # Whatever the heir answers makes this be looked at again: it is told once, and again after a pause.
        if heirs and self._gifts.get(record.id, -FOREVER) <= desk.now:
            if desk.leaving:
                desk.reach(Situation.LEAVER_PASSES_BY)
            desk.post.add(heirs[0], Offer, DigestItem(record.id, digest(record)))
            desk.post.add(heirs[0], Gift, GiftItem(record.id, record.own.ballot))
            self._gifts[record.id] = desk.now + desk.settings.retry_s
            self._later.set(record.id, desk.now + desk.settings.retry_s)
        return bool(heirs)

    def _heirs(self, record: Record) -> list[NodeId]:
        """The other holders that live and stay, in rank order."""
        desk, staying = self._desk, self._desk.view.ranking().members
        return [h for h in record.holders if h != desk.me and h in staying and desk.view.is_living(h)]

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
        desk = self._desk
        self._table.fetch([item.job for item in items])
        for item in items:
            record = self._table.get(item.job)
            if record is None:
                desk.reach(Situation.GIFT_WITHOUT_COPY)
                desk.post.add(source, Wanted, item.job)  # the giver repeats itself
            elif record.settled:
                desk.reach(Situation.GIFT_OF_SETTLED)
                desk.post.add(source, Copies, encode(record))
            elif item.job not in self._asking and not desk.leading(item.job) and desk.takes_work:
                if record.own.ballot == item.ballot:
                    if self._room:  # else it is given again
                        self.ask(item.job, GIFT)
                else:
                    desk.reach(Situation.GIFT_STALE)

    # ------------------------------------------------------------------------------------------ time

    def deadline(self) -> Instant:
        # The rest of a long list comes after whatever else is waiting to be handled.
        soonest = min(self._later.next(), self._asks.next(), self._round_at)
        if self._unoffered:
            soonest = min(soonest, self._offers_at)
        if not self._due or not self._may_check:
            return soonest
        return min(soonest, self._desk.now + BREATH_S if self._room else self._room_at)

    @property
    def _room(self) -> int:
        """How many jobs may be looked at now, each of which this node may have to ask for."""
        unanswered, batch = self._unanswered, self._desk.settings.batch
        while unanswered and self._room_at <= self._desk.now:
            del unanswered[next(iter(unanswered))]  # whoever was expected to answer does not
        return min(batch, max(0, CHUNKS * batch - len(unanswered)))

    @property
    def _room_at(self) -> Instant:
        """When the oldest question is not expected to be answered any more."""
        return next(iter(self._unanswered.values())) + self._desk.settings.retry_max_s

    def on_time(self) -> None:
        """Repeat what was not answered, and look at a batch of what is due."""
        desk = self._desk
        if self._round_at <= desk.now:
            self._go_round()
        for job in self._later.take_due(desk.now):
            if not desk.leading(job):
                self._due[job] = None
            elif job in self._seen_term:
                desk.reach(Situation.OWNER_ASKS_AGAIN)
                self.ask(job, "refused")
        for job in self._asks.take_due(desk.now):
            asking, record = self._asking.get(job), self._table.peek(job)
            if asking is None or record is None:
                continue
            if asking.again_at <= desk.now:
                asking.is_repeated = True
                for holder in set(desk.living_holders(record)) - asking.answered:
                    self._pace.repeated(holder, desk.now)
                self._send_ask(record, asking)
            self._try_conclude(job)
            if job in self._asking:
                self._asks.set(job, self._attention(asking))
        if self._offers_at <= desk.now:
            self._offers_at = desk.now + desk.settings.retry_s
            self._offers_left = CHUNKS * desk.settings.batch
            if self._unoffered:
                self._due.update(dict.fromkeys(islice(self._unoffered, self._offers_left)))
        jobs = list(islice(self._due, self._room)) if self._may_check and self._due else []
        self._table.fetch(jobs)
        for job in jobs:
            del self._due[job]
            self._check(job)
        if not self._due:
            self._due = {}  # one from which many were taken is as large as ever

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
                self._confirmed.pop(job, None)
                self._due[job] = None
        del self._round[-desk.settings.offers_per_check :]

    def _attention(self, asking: Asking) -> Instant:
        """When this attempt next needs a look."""
        if asking.provisional:
            return asking.again_at
        settings, now = self._desk.settings, self._desk.now
        ends = (asking.began + settings.ask_s, asking.began + settings.island_after_s, asking.again_at)
        return min((at for at in ends if at > now), default=now + settings.retry_s)

    def is_asking(self, job: JobId) -> bool:
        return job in self._asking

    def is_about_to_own(self, job: JobId) -> bool:
        """Whether this node asks for it, and has not gone on as its owner yet."""
        asking = self._asking.get(job)
        return asking is not None and not asking.provisional


def _is_firm(asking: Asking, record: Record) -> bool:
    """Whether this owner may decide the job: a majority of its holders promised, and under a key it is known
    that no other holders may decide it too."""
    promised = asking.promised.intersection(record.holders)
    return majority(len(promised), record.holders) and is_claimed(record)


def _knows_better(copy: Record | None, asked: Promise) -> bool:
    """Whether a copy is news to an asker: a later epoch, or another owner under a term no lower than asked.

    Who asks "above every term seen" has not seen that owner. Ballots of one term would be ordered by name,
    and a node that returns could take its jobs back from the living.
    """
    if copy is None:
        return False
    ballot = copy.own.ballot
    is_taken = ballot.term >= asked.ballot.term and ballot.owner != asked.ballot.owner
    return copy.epoch > asked.epoch or (copy.epoch == asked.epoch and is_taken)


def _refusal(job: JobId, asked: Promise, promise: Promise, copy: Record | None) -> Refusal:
    blob = b"" if copy is None else encode(copy)
    return Refusal(job, asked.epoch, asked.ballot, promise, blob)
