"""Who owns a job is decided by ballot: asking for promises, promising, becoming firm, stepping down.

Each job is a single-decree Paxos of its own (Lamport, "Paxos Made Simple", 2001): its holders are the
acceptors, its owner the proposer, its outcome the value. `Ask` and `Promises` are phase 1. State per job:

    idle       this node only holds a copy (or nothing)
    asking     it gave itself a promise on a higher ballot and asks the other holders for theirs
    leading    provisional (went on without a majority) or firm (a majority of the holders promised)

    idle    -- responsible, and not leading (custody) --------> asking
    asking  -- all answered or dead, or `ask_s` passed -------> leading (firm with a majority)
    asking  -- a higher ballot, or a settled result, is seen -> idle
    leading -- a higher promise or ballot, or settled --------> idle
    provisional -- one more promise makes a majority ---------> firm

Only promises make an owner firm; a wait that ran out makes it provisional. Whether this node is to ask for a
job at all is for custody to say; what came of it here is left in the `Checks` that both have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from edgenode.core.agenda import Agenda
from edgenode.core.checks import Checks
from edgenode.core.desk import Desk
from edgenode.core.job_bytes import digest, encode
from edgenode.core.jobs import Record, adopted, is_claimed, majority, taken_over, to_be_adopted
from edgenode.core.pace import Pace
from edgenode.core.situations import Situation
from edgenode.core.specs import decode_spec
from edgenode.core.table import Lead
from edgenode.core.types import Ballot, Instant, JobId, NodeId, Partition, Promise, Seconds
from edgenode.core.view import Standing
from edgenode.core.wire import Ask, AskItem, Expired, Offer, Promised, Promises, Refusal, Refused, Wanted
from edgenode.core.wire import Digest as DigestItem

CHUNKS: Final = 2
"""So many batches of questions are under way at a time: one is answered while the next is read. Whoever asked
for 100,000 jobs at once would be answered late, and would ask again before that, and do nothing else."""
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


class Ballots:
    """Drive it with messages, and with what custody wants asked for; it answers through the desk."""

    def __init__(self, desk: Desk, checks: Checks) -> None:
        """
        Args:
            checks: what custody looks at. It is only told here what happened to a job.
        """
        self._desk = desk
        self._table = desk.table
        self._checks = checks
        self._asking: dict[JobId, Asking] = {}
        self._pace = Pace(desk.settings.retry_s, desk.settings.retry_max_s)
        self._unanswered: dict[JobId, Instant] = {}
        """Attempts that somebody is expected to answer soon, in the order in which they began."""
        self._seen_term: dict[JobId, int] = {}  # terms met in refusals
        self._asks: Agenda[JobId] = Agenda()  # when an attempt needs a look

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
        self._checks.asked_for(job)
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
        self._checks.later.set(record.id, desk.now + desk.settings.retry_s)

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
        return self._desk.strangers(record)

    def _bystanders(self, record: Record) -> list[NodeId]:
        """Who else may have what came of a job whose holders are all gone: where few are to hold a job, a
        former holder may have handed it to anybody. They give what they have, and take no copy."""
        desk, view = self._desk, self._desk.view
        if desk.living_holders(record):
            return []
        ranked = view.ranking().rank(record.id)
        others = [] if len(ranked) >= BYSTANDERS else [n for n in view.members() if n not in ranked]
        known = {desk.me, *record.holders, *desk.strangers(record)}
        able = (n for n in (*ranked, *others) if view.is_living(n) and not view.is_behind(n))
        return list(islice((node for node in able if node not in known), BYSTANDERS))

    # -------------------------------------------------------------------------------- the holder's side

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
                self._checks.promised(item.job, patience_ends)
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

    # ----------------------------------------------------------------------------- what the holders say

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
                    self.answered(refusal.job, source)
            elif asking is not None and asking.ballot == refusal.ballot and not asking.provisional:
                desk.reach(Situation.ASKER_OUTVOTED)
                self._give_up(refusal.job)
                self._checks.later.soon(refusal.job, pause_ends)
            elif refusal.ballot == record.own.ballot and desk.leading(refusal.job):
                desk.reach(Situation.OWNER_REFUSED_BY_PROMISE)
                self._checks.later.soon(refusal.job, pause_ends)

    def answered(self, job: JobId, holder: NodeId) -> None:
        """This node asks for the job, and `holder` has said what it has to say: it promises nothing."""
        self._asking[job].answered.add(holder)
        self._try_conclude(job)

    def is_refused(self, job: JobId) -> bool:
        """Whether a holder has refused what this node wrote as the owner."""
        return job in self._seen_term

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
        # As sums, like the moments at which `_attention` wakes this up: a difference may be smaller by a bit.
        has_time = desk.now < asking.began + desk.settings.ask_s
        if waiting and has_time:
            return
        if not firm:
            if self._waits_for_majority(record):
                desk.reach(Situation.CAREFUL_JOB_WAITS)
                return
            # Proof of death does not wait; silence does, and so do holders that were not met yet: whoever
            # comes back first after an outage must not do again what the others finished.
            is_silent = any(known is not Standing.GONE for known in unheard.values())
            is_early = (asking.patient and is_silent) or Standing.UNKNOWN in unheard.values()
            if is_early and desk.now < asking.began + desk.settings.island_after_s:
                desk.reach(Situation.ISLAND_WAITS)
                return
            if has_time and (self._witnesses(record) or self._bystanders(record)):
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
        self._checks.owned(job)
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
                self._checks.look_again(job)
            held = table.leads.get(job)
            if held is not None and (record is None or record.settled or table.lead(job) is None):
                self.release(job)
                if asking is not None and asking.provisional:
                    self._give_up(job)  # it went on as the owner of another life of the key
                if record is not None and not record.settled:
                    stands = record.own.ballot != held.ballot
                    desk.reach(Situation.STALE_OWNER_STEPS_DOWN if stands else Situation.OWNER_OUTPROMISED)
                    self._checks.look_again(job)
            if record is None or record.settled:
                self._give_up(job)
                self._seen_term.pop(job, None)
                desk.voteless.pop(job, None)
                continue
            lead = table.lead(job) if held is not None else None
            if lead is not None and lead.firm and to_be_adopted(record, lead.ballot):
                # Another side finished or moved it first: a firm owner makes what it finds its own proposal.
                desk.reach(
                    Situation.MOVE_OF_ANOTHER_SIDE if record.moving else Situation.OUTCOME_OF_ANOTHER_SIDE
                )
                table.put(adopted(record, lead.ballot))
                desk.written.add(job)
                if record.moving:
                    desk.released.add(job)  # nothing else happens to it until that is decided

    def release(self, job: JobId) -> None:
        """This node is not the owner any more, or nothing is left to own."""
        del self._table.leads[job]
        self._desk.released.add(job)

    def restart(self) -> None:
        """This node owns nothing, and asks for nothing, until it is told to."""
        for job in list(self._table.leads):
            self.release(job)
        self._asking.clear()
        self._unanswered.clear()
        self._asks.clear()

    # --------------------------------------------------------------------------------------- members

    def members_changed(self, changed: frozenset[NodeId]) -> None:
        """Forget at what pace these answer, and what those of them promised whose disks are behind."""
        for node in changed:
            self._pace.forget(node)
        self._withdraw({node for node in changed if self._desk.view.is_behind(node)})

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

    # ------------------------------------------------------------------------------------------ time

    def deadline(self) -> Instant:
        return self._asks.next()

    def on_time(self) -> None:
        """Repeat what was not answered, and go on without an answer where that was waited for long enough."""
        desk = self._desk
        due = self._asks.take_due(desk.now, desk.settings.batch)
        self._table.fetch(due)
        for job in due:
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

    @property
    def room(self) -> int:
        """How many more jobs may be asked for now."""
        unanswered, batch = self._unanswered, self._desk.settings.batch
        while unanswered and self.room_at <= self._desk.now:
            del unanswered[next(iter(unanswered))]  # whoever was expected to answer does not
        return min(batch, max(0, CHUNKS * batch - len(unanswered)))

    @property
    def room_at(self) -> Instant:
        """When the oldest question is not expected to be answered any more."""
        return next(iter(self._unanswered.values())) + self._desk.settings.retry_max_s

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
