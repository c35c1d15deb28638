"""The entry node's part: submissions and reads on behalf of local clients, at whoever owns the jobs.

A submission keeps its ids and holders whatever happens. It goes to the first in rank, and further down only
when that node is known dead or refuses: being slow must not make two owners. What is not known at the
deadline is answered as unknown, never as failed. Under an idempotency key the holders may turn out to be
others, who had the key first: it is sent there.

A read asks the owner or the holders first, then all. "No such job" needs a no from every known member.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from edgenode.core.desk import Desk
from edgenode.core.errors import (
    EdgeNodeError,
    JobNotFound,
    KeyInFlight,
    KeyReused,
    MalformedMessage,
    NotReady,
    OutcomeUnknown,
    StoreUnwritable,
    Undecided,
)
from edgenode.core.followers import Followers
from edgenode.core.jobs import (
    Record,
    Spec,
    are_holders,
    decode_spec,
    encode,
    encode_spec,
    is_claimed,
    is_keyed,
    job_text,
    join,
    new_record,
)
from edgenode.core.pace import Pace
from edgenode.core.post import WRITE_BYTES, pieces_of
from edgenode.core.signals import (
    InspectAsked,
    InspectDone,
    ReadAsked,
    ReadDone,
    Receipt,
    RequestId,
    SearchAsked,
    SearchDone,
    SearchedHere,
    SearchHere,
    SubmitAsked,
    SubmitDone,
)
from edgenode.core.situations import Situation
from edgenode.core.types import FOREVER, NOBODY, Ballot, Instant, JobId, NodeId, Promise, Seconds
from edgenode.core.wire import (
    REFUSED_CLAIMED,
    REFUSED_GAVE_WAY,
    REFUSED_MOVED,
    REFUSED_NOT_READY,
    REFUSED_REUSED,
    REFUSED_UNSURE,
    Inspect,
    Inspected,
    Query,
    Read,
    ReadAnswer,
    Search,
    SearchAnswer,
    Submit,
    SubmitAnswer,
    SubmitItem,
    Submitted,
)

REFUSED_EXPIRED = "is past its last day"
HOPS_MAX: Final = 4
"""How often in a row a submission is sent on at once; then only with the next retry."""

READS_MISSED: Final = 5
"""So many times in a row a reader that waits may fail to ask again, before nobody tells it anything."""


@dataclass(slots=True)
class Outgoing:
    """One job of a submission that is not answered yet."""

    blob: bytes
    holders: tuple[NodeId, ...]
    place: int = 0
    target: NodeId | None = None  # who owns it, if that is not the holder at `place`
    is_unsure: bool = False  # who was asked went away without an answer, or cannot tell: it may be there
    is_elsewhere: bool = False  # its key is others': the job exists, or soon will, without this submission
    hops: int = 0
    asked: NodeId = NOBODY  # has not answered yet
    life: int = 0  # of `asked`


@dataclass(frozen=True, slots=True)
class Due:
    """Somebody waits for the acknowledgement of a submission."""

    source: NodeId
    request: int
    content: str  # the fingerprint of what it brought under its key
    replayed: bool = False


class Accepted(NamedTuple):
    """What became of a submission at a would-be owner."""

    named: list[Record]  # new, and this node's by being named
    unnamed: list[JobId]  # new: it must ask for them first
    keyed: list[tuple[Spec, SubmitItem]]  # to be decided first whose their keys are


@dataclass(slots=True)
class Submission:
    order: tuple[JobId, ...]
    acks: int
    sent: dict[JobId, Outgoing]
    open: dict[JobId, Outgoing]  # of those sent, what has no receipt yet
    receipts: dict[JobId, Receipt]
    sent_at: Instant
    ends_at: Instant
    again_at: Instant
    pause_s: Seconds
    is_repeated: bool = False


@dataclass(slots=True)
class Reading:
    """A read of several jobs for a local client."""

    jobs: tuple[JobId, ...]
    open: dict[JobId, None]
    wait_until: Instant  # for an end that is settled; `began` if it need not be waited for
    ends_at: Instant
    again_at: Instant
    silent: set[NodeId] = field(default_factory=set)  # asked, not answered yet
    denied: dict[JobId, set[NodeId]] = field(default_factory=dict)  # who said that it has no copy
    everyone: bool = False
    found: dict[JobId, Record] = field(default_factory=dict)
    owned: dict[JobId, None] = field(default_factory=dict)  # the owner itself answered
    firm: set[JobId] = field(default_factory=set)
    asking: set[JobId] = field(default_factory=set)
    is_unsure: bool = False  # somebody who was asked knows members that this node does not
    ended: dict[JobId, Instant] = field(default_factory=dict)  # since when a job is seen finished


@dataclass(slots=True)
class Searching:
    query: Query
    waiting: set[NodeId]
    ends_at: Instant
    found: dict[JobId, Record] = field(default_factory=dict)
    horizon: bytes = b""  # the highest `upto`: below it somebody has not looked yet


@dataclass(slots=True)
class Inspecting:
    waiting: set[NodeId]
    ends_at: Instant
    copies: dict[NodeId, Record | None] = field(default_factory=dict)


class Intake:
    """Drive it with local requests, messages, changes and time; it answers through the desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._table = desk.table
        self._reread_s = 2 * desk.settings.retry_s  # when a read that waits asks again
        self._pace = Pace(desk.settings.retry_s, desk.settings.retry_max_s)
        self._submissions: dict[RequestId, Submission] = {}
        self._receipts_due: dict[JobId, list[Due]] = {}
        self._readings: dict[RequestId, Reading] = {}
        self._followers = Followers(READS_MISSED * self._reread_s)  # told when a job ends
        self._unreachable_now: list[NodeId] | None = None  # until members change
        self._searches: dict[RequestId, Searching] = {}
        self._tickets: dict[int, tuple[NodeId, int]] = {}
        self._next_ticket = 0
        self._inspections: dict[RequestId, Inspecting] = {}
        self._wake: Instant = FOREVER

    # ------------------------------------------------------------------------------- submissions

    def submit(self, event: SubmitAsked) -> None:
        """Place each job, and send them on in one message per first holder."""
        desk = self._desk
        ranking = desk.view.ranking()
        if refusal := self._refusal():
            errors = tuple(Receipt(spec.id, (), refusal) for spec in event.specs)
            desk.emit(SubmitDone(event.request, errors))
            return
        replicas = desk.settings.replicas
        outgoing = {
            spec.id: Outgoing(encode_spec(spec), ranking.rank(spec.id)[:replicas]) for spec in event.specs
        }
        submission = Submission(
            tuple(outgoing),
            event.acks,
            outgoing,
            dict(outgoing),
            {},
            desk.now,
            desk.now + event.timeout_s,
            FOREVER,
            max((self._pace.patience_s(out.holders[0]) for out in outgoing.values()), default=0.0),
        )
        submission.again_at = desk.now + submission.pause_s
        self._submissions[event.request] = submission
        self._send(event.request, submission, list(outgoing))
        self._wake = min(self._wake, submission.again_at, submission.ends_at)

    def _refusal(self) -> EdgeNodeError | None:
        """Why this node passes no submission on now."""
        if not self._desk.storing:
            # It could: but who is told to go elsewhere does not come back to a node that may end next.
            return StoreUnwritable("this node's disk takes no writes: submit to another node")
        if self._desk.leaving:
            return NotReady("this node is leaving")
        return None if len(self._desk.view.ranking()) else NotReady("no member of the mesh takes jobs yet")

    def _send(self, request: RequestId, submission: Submission, jobs: Iterable[JobId]) -> None:
        """Send each job to the first of its holders that is not known dead."""
        desk = self._desk
        groups: dict[tuple[NodeId, int], list[SubmitItem]] = {}
        for job in jobs:
            out = submission.open[job]
            if out.target is not None and desk.view.dead_since(out.target) is not None:
                out.target = None
            while out.place < len(out.holders) and desk.view.dead_since(out.holders[out.place]) is not None:
                desk.reach(Situation.SUBMISSION_GOES_DOWN_RANK)
                out.place += 1
            if out.place >= len(out.holders):
                self._close(submission, job, _unknown(job, out, "no holder of the job answered"))
                continue
            target = out.target or out.holders[out.place]
            life = desk.view.boot_of(target)
            # Nobody else knows what the one that was asked took; nor, for certain, does its next life.
            out.is_unsure |= out.asked != NOBODY and (target, life) != (out.asked, out.life)
            out.asked, out.life = target, life
            groups.setdefault((target, out.place), []).append(SubmitItem(out.blob, out.holders))
        for (target, place), items in groups.items():
            desk.post.send(target, Submit(request, place, submission.acks, tuple(items)))
        self._finish(request, submission)

    def _close(self, submission: Submission, job: JobId, answer: SubmitAnswer | EdgeNodeError) -> None:
        del submission.open[job]
        if isinstance(answer, EdgeNodeError):
            submission.receipts[job] = Receipt(job, (), answer)
        else:
            submission.receipts[job] = Receipt(job, answer.nodes, None, answer.replayed)

    def _finish(self, request: RequestId, submission: Submission) -> None:
        if not submission.open and self._submissions.pop(request, None) is not None:
            receipts = tuple(submission.receipts[job] for job in submission.order)
            self._desk.emit(SubmitDone(request, receipts))

    def on_submitted(self, source: NodeId, message: Submitted) -> None:
        """Receipts, or refusals: those go further down the rank."""
        submission = self._submissions.get(RequestId(message.request))
        if submission is None:
            return
        if not submission.is_repeated and self._desk.view.is_living(source):
            self._pace.took(source, self._desk.now - submission.sent_at)
        again: list[JobId] = []
        for answer in message.answers:
            out = submission.open.get(answer.job)
            if out is None:
                continue
            if source == out.asked:
                out.asked = NOBODY  # it has not taken this, or says that it cannot tell
            if not answer.refused:
                self._close(submission, answer.job, answer)
            elif answer.refused == REFUSED_GAVE_WAY:
                self._close(submission, answer.job, OutcomeUnknown(answer.refused, job=job_text(answer.job)))
            elif answer.refused == REFUSED_REUSED and out.is_unsure:
                why = "another submission has this key, but a holder died before it answered: this may exist"
                self._close(submission, answer.job, _unknown(answer.job, out, why))
            elif answer.refused == REFUSED_REUSED:
                self._close(submission, answer.job, KeyReused(answer.refused, job=job_text(answer.job)))
            elif answer.refused == REFUSED_CLAIMED and answer.nodes:
                out.holders, out.place, out.target = answer.nodes, 0, None
                out.is_elsewhere = True
                out.hops += 1
                if out.hops % HOPS_MAX:
                    again.append(answer.job)
            elif answer.refused.startswith(REFUSED_MOVED):
                self._desk.reach(Situation.SUBMISSION_MOVED)
                out.is_unsure = True  # what moved may be this very submission
                out.target = NodeId(answer.refused.removeprefix(REFUSED_MOVED))
            elif source in (out.target, out.holders[out.place]):
                self._desk.reach(Situation.SUBMISSION_GOES_DOWN_RANK)
                out.is_unsure |= answer.refused == REFUSED_UNSURE
                out.place += out.target is None
                out.target = None
                if out.place < len(out.holders):
                    again.append(answer.job)
                else:
                    self._close(submission, answer.job, _not_taken(answer, out))
        if again:
            self._send(RequestId(message.request), submission, again)
        self._finish(RequestId(message.request), submission)

    def accept(
        self, source: NodeId, message: Submit, is_parked: Callable[[JobId], bool], *, ready: bool
    ) -> Accepted:
        """Take a submission as an owner, named (place 0) or not.

        Args:
            is_parked: whether a submission of the job came before, and waits for its key to be decided.
        """
        desk, table = self._desk, self._table
        named: list[Record] = []
        unnamed: list[JobId] = []
        keyed: list[tuple[Spec, SubmitItem]] = []
        specs: dict[JobId, tuple[Spec, SubmitItem]] = {}  # one id twice is one submission
        for item in message.items:
            try:
                if not are_holders(item.holders):
                    raise MalformedMessage("a job needs holders, each once")
                spec = decode_spec(item.spec)
            except MalformedMessage as error:
                # It has no id to answer for: its sender learns by silence that it made no job.
                desk.log("malformed-submission", error.detail, warning=True)
            else:
                specs.setdefault(spec.id, (spec, item))
        known = table.get_many(list(specs))
        for spec, item in specs.values():
            job = spec.id
            record = table.peek(job) or known.get(job)
            if record is not None and table.has_vote:
                self._accept_known(source, message.request, spec, item, record, unnamed)
                continue
            is_over = desk.is_forgotten(spec.expires_at)
            is_open = is_keyed(job) and job not in desk.admitted
            is_able = is_open or table.may_vote(job)
            if not ready or is_over or desk.me not in item.holders or not is_able:
                # A disk without any vote has taken nothing in this life.
                is_unsure = record is not None or (table.has_vote and not table.may_vote(job))
                is_unsure |= is_parked(job)
                why = REFUSED_EXPIRED if is_over else REFUSED_UNSURE if is_unsure else REFUSED_NOT_READY
                desk.post.send(source, Submitted(message.request, (SubmitAnswer(job, (), why),)))
                continue
            if is_open:
                keyed.append((spec, item))
                continue
            record = new_record(item.spec, job, item.holders, spec.options.run_at, desk.wall)
            record = record._replace(claimed=desk.admitted.get(job, False))
            waiting = Due(source, message.request, spec.options.fingerprint)
            self._receipts_due.setdefault(job, []).append(waiting)
            is_named = message.place == 0 and item.holders[0] == desk.me and is_claimed(record)
            if is_named and table.promise(job) <= Promise(0, Ballot(1, desk.me)):
                named.append(record)
            else:
                desk.reach(Situation.SUBMISSION_NOT_NAMED)
                table.put(record)
                unnamed.append(job)
        return Accepted(named, unnamed, keyed)

    def _accept_known(
        self, source: NodeId, request: int, spec: Spec, item: SubmitItem, record: Record, unnamed: list[JobId]
    ) -> None:
        """A repeated submission: the receipt again, or who to ask for it."""
        desk, job = self._desk, record.id
        replayed = item.spec != record.spec
        desk.reach(Situation.SUBMISSION_OF_SETTLED if record.settled else Situation.SUBMISSION_REPEATED)
        if replayed and decode_spec(record.spec).options.fingerprint != spec.options.fingerprint:
            awaited = self._receipts_due.get(job, ())
            is_here = any((each.source, each.request) == (source, request) for each in awaited)
            why = REFUSED_GAVE_WAY if is_here else REFUSED_REUSED
            desk.post.send(source, Submitted(request, (SubmitAnswer(job, (), why),)))
        elif record.settled:
            answer = SubmitAnswer(job, (desk.me,), "", replayed)
            desk.post.send(source, Submitted(request, (answer,)))
        elif desk.leading(job) or record.owner == desk.me or desk.view.dead_since(record.owner) is not None:
            due = self._receipts_due.setdefault(job, [])
            if all((each.source, each.request) != (source, request) for each in due):
                due.append(Due(source, request, spec.options.fingerprint, replayed))
            if desk.leading(job):
                desk.recount.add(job)
            else:
                unnamed.append(job)
        else:
            answer = SubmitAnswer(job, (), REFUSED_MOVED + record.owner)
            desk.post.send(source, Submitted(request, (answer,)))

    def forget(self, jobs: Iterable[JobId]) -> None:
        """Nothing of these is here any more: no receipt will come."""
        for job in jobs:
            self._receipts_due.pop(job, None)

    def awaited(self, jobs: Iterable[JobId]) -> list[JobId]:
        """Those of `jobs` whose submitter waits for a receipt."""
        return [job for job in jobs if job in self._receipts_due]

    def settled_elsewhere(self, jobs: Iterable[JobId]) -> None:
        """Whose submitters wait here for receipts, and what another owner has brought to its end: a majority
        has it, this node too."""
        for job in self.awaited(jobs):
            record = self._table.get(job)
            if record is not None and record.settled:
                self.acknowledged([(job, (self._desk.me,))])

    def acknowledged(self, receipts: Iterable[tuple[JobId, tuple[NodeId, ...]]]) -> None:
        """These are on enough disks: tell whoever submitted them, a message per submission."""
        answers: dict[tuple[NodeId, int], list[SubmitAnswer]] = {}
        for job, nodes in receipts:
            dues = self._receipts_due.pop(job, ())
            record = self._table.get(job) if dues and is_keyed(job) else None
            content = "" if record is None else decode_spec(record.spec).options.fingerprint
            for due in dues:
                answer = SubmitAnswer(job, nodes, "", due.replayed)
                if record is not None and due.content != content:
                    answer = SubmitAnswer(job, (), REFUSED_GAVE_WAY)
                answers.setdefault((due.source, due.request), []).append(answer)
        for (source, request), items in answers.items():
            self._desk.post.send(source, Submitted(request, tuple(items)))

    # -------------------------------------------------------------------------------------- reads

    def read(self, event: ReadAsked) -> None:
        desk = self._desk
        wait_until = desk.now + event.wait_s
        reading = Reading(
            event.jobs,
            dict.fromkeys(event.jobs),
            wait_until,
            max(wait_until, desk.now + event.timeout_s),
            desk.now + desk.settings.retry_s,
        )
        self._readings[event.request] = reading
        self._look_at_own_copies(reading)
        self._ask_around(event.request, reading)
        self._settle_reading(event.request, reading)
        self._wake = min(self._wake, reading.again_at, reading.ends_at)

    def _look_at_own_copies(self, reading: Reading) -> None:
        """What this node has of the jobs now. It answers like any other holder."""
        self._take_records(reading, self._desk.me, list(self._table.get_many(tuple(reading.open)).values()))
        for job in reading.open:
            if self._desk.leading(job):
                self._mark_owned(reading, job)

    def _mark_owned(self, reading: Reading, job: JobId) -> None:
        lead = self._table.lead(job)
        reading.owned[job] = None
        if lead is not None and lead.firm:
            reading.firm.add(job)

    def _ask_around(self, request: RequestId, reading: Reading) -> None:
        """First the owner and the holders, or the first R of the rank; then, if need be, everyone."""
        desk = self._desk
        groups: dict[NodeId, list[JobId]] = {}
        follow = reading.wait_until > desk.now
        for job in reading.open:
            record = reading.found.get(job)
            if record is not None and (record.settled or (job in reading.owned and not follow)):
                continue
            if reading.everyone:
                nodes = tuple(desk.view.members())
            elif record is not None:
                nodes = (record.owner, *record.holders)
            else:
                nodes = desk.view.ranking().rank(job)[: desk.settings.replicas]
            for node in dict.fromkeys(nodes):
                if node != desk.me and desk.view.is_living(node):
                    groups.setdefault(node, []).append(job)
                elif node == desk.me and follow:
                    self._followers.note(job, (desk.me, request), desk.now)
        for node, jobs in groups.items():
            reading.silent.add(node)
            desk.post.send(node, Read(request, tuple(jobs), follow))

    def _ask_anew(self, request: RequestId, reading: Reading) -> None:
        """Somebody ended without an answer. If it left, it has handed what it had to others, who may have
        said before that they have none, or to this node."""
        reading.denied.clear()
        self._look_at_own_copies(reading)
        if reading.everyone:
            self._ask_around(request, reading)

    def on_read(self, source: NodeId, message: Read, is_asking: Callable[[JobId], bool]) -> None:
        """Answer with what is here, and whether this node is the one to know.

        Args:
            is_asking: whether this node is about to own a job.
        """
        desk = self._desk
        known = self._table.get_many(message.jobs)
        owned = tuple(job for job in message.jobs if desk.leading(job))
        leads = {job: self._table.lead(job) for job in owned}
        firm = tuple(job for job, lead in leads.items() if lead is not None and lead.firm)
        if message.follow:
            for job in owned:
                self._followers.note(job, (source, message.request), desk.now)
        soon = tuple(job for job in message.jobs if is_asking(job))
        missing = tuple(job for job in message.jobs if job not in known)
        unsure = bool(self._unreachable())
        blobs = [encode(record) for record in known.values()]
        pieces = list(pieces_of(blobs, WRITE_BYTES, desk.settings.batch))
        for number, piece in enumerate(pieces, 1):
            last = number == len(pieces)
            answer = ReadAnswer(message.request, tuple(piece), owned, firm, soon, missing, unsure, last)
            desk.post.send(source, answer)

    def _unreachable(self) -> list[NodeId]:
        """Members that cannot be asked, and did not hand over what they had."""
        view = self._desk.view
        if self._unreachable_now is None:
            members = view.members()
            self._unreachable_now = [n for n in members if not view.is_living(n) and not view.has_left(n)]
        return self._unreachable_now

    def on_read_answer(self, source: NodeId, message: ReadAnswer) -> None:
        request = RequestId(message.request)
        reading = self._readings.get(request)
        if reading is None:
            return
        if message.last:
            reading.silent.discard(source)
        records = [record for blob in message.records if (record := self._desk.read(blob)) is not None]
        self._take_records(reading, source, records)
        reading.owned.update(dict.fromkeys(message.owned))
        reading.firm.update(message.firm)
        reading.asking.update(message.asking)
        reading.is_unsure |= message.unsure
        for job in message.missing:
            reading.denied.setdefault(job, set()).add(source)
        self._settle_reading(request, reading)

    def _take_records(self, reading: Reading, source: NodeId, records: Sequence[Record]) -> None:
        for record in records:
            before = reading.found.get(record.id)
            # Only for showing: what a reader merges is never stored, and acknowledges nothing.
            reading.found[record.id] = record if before is None else join(before, record)

    def _settle_reading(self, request: RequestId, reading: Reading) -> None:
        """Answer, if all is known; ask everyone, if the first ones do not know."""
        desk = self._desk
        waiting = reading.wait_until > desk.now
        for job in list(reading.open):
            record = reading.found.get(job)
            if record is None:
                continue
            enough = job in reading.owned or not reading.silent
            if record.settled or (enough and not waiting):
                del reading.open[job]
            elif record.outcome is not None:
                # Without a majority of its holders a result stays unsettled, for how long nobody knows.
                since = reading.ended.setdefault(job, desk.now)
                if enough and desk.now - since >= desk.settings.unsettled_s:
                    del reading.open[job]
        if not reading.open:
            self._answer_reading(request, reading)
            return
        unknown = [job for job in reading.open if job not in reading.found]
        if unknown and not reading.silent and not reading.everyone:
            reading.everyone = True
            self._ask_around(request, reading)
        if unknown and not reading.silent and reading.everyone:
            self._answer_reading(request, reading)

    def _answer_reading(self, request: RequestId, reading: Reading) -> None:
        """End a read with what was found; the rest is missing for sure, or cannot be known now."""
        desk = self._desk
        del self._readings[request]
        self._followers.drop((desk.me, request))
        missing = [job for job in reading.open if job not in reading.found]
        errors: dict[JobId, EdgeNodeError] = {}
        for job in missing:
            # A dead member may have the only copy: its silence is not a no.
            denied = reading.denied.get(job, set()) | {desk.me}
            unsure = [n for n in desk.view.members() if n not in denied and not desk.view.has_left(n)]
            if job in reading.asking:
                errors[job] = Undecided("its next owner is still asking the holders", job=job_text(job))
            elif not desk.view.formed or desk.view.is_cut_off:
                desk.reach(Situation.READ_BEFORE_MEETING)
                errors[job] = Undecided("this node has not met its mesh yet", job=job_text(job))
            elif unsure or reading.is_unsure:
                desk.reach(Situation.READ_UNSURE)
                names = ", ".join(unsure[:5]) or "members that others know"
                is_lasting = bool(unsure) and all(desk.view.dead_since(n) is not None for n in unsure)
                text = f"nobody who answered has it; not heard: {names}"
                errors[job] = Undecided(text, job=job_text(job), lasting=is_lasting)
            else:
                errors[job] = JobNotFound("no member knows this job", job=job_text(job))
        desk.emit(ReadDone(request, reading.found, errors, frozenset(reading.firm)))

    def changed(self, records: Iterable[Record]) -> None:
        """Tell those who follow a job that it has ended."""
        desk = self._desk
        answers: dict[tuple[NodeId, int], list[Record]] = {}
        for record in records:
            if record.id in self._followers and record.settled:
                for follower in self._followers.take(record.id):
                    answers.setdefault(follower, []).append(record)
        for (node, request), ended in answers.items():
            if node == desk.me:
                reading = self._readings.get(RequestId(request))
                if reading is not None:
                    self._take_records(reading, desk.me, ended)
                    self._settle_reading(RequestId(request), reading)
            else:
                blobs = [encode(record) for record in ended]
                for piece in pieces_of(blobs, WRITE_BYTES, desk.settings.batch):
                    answer = ReadAnswer(request, tuple(piece), (), (), (), (), False, False)
                    desk.post.send(node, answer)

    # ------------------------------------------------------------------------------------ searches

    def search(self, event: SearchAsked) -> None:
        """Ask every living member for its jobs; each shows what it owns, or what has no living owner."""
        desk = self._desk
        nodes = {n for n in desk.view.members() if desk.view.is_living(n)} | {desk.me}
        searching = Searching(event.query, nodes, desk.now + event.timeout_s)
        self._searches[event.request] = searching
        self._wake = min(self._wake, searching.ends_at)
        for node in sorted(nodes):
            if node == desk.me:
                self._look_here(desk.me, event.request, event.query)
            else:
                desk.post.send(node, Search(event.request, event.query))

    def on_search(self, source: NodeId, message: Search) -> None:
        self._look_here(source, message.request, message.query)

    def _look_here(self, source: NodeId, request: int, query: Query) -> None:
        self._next_ticket += 1
        self._tickets[self._next_ticket] = (source, request)
        self._desk.emit(SearchHere(self._next_ticket, query))

    def searched_here(self, event: SearchedHere) -> None:
        desk = self._desk
        asked = self._tickets.pop(event.ticket, None)
        if asked is None or not (event.complete or event.records or event.upto):
            return  # the disk could not be read: who asked will name this node as unanswered
        source, request = asked
        records = [record for blob in event.records if (record := desk.read(blob)) is not None]
        seen = [event.upto] * bool(event.upto) + [record.id for record in records[-1:]]
        upto = min(seen) if seen and not event.complete else b""
        shown = []
        for record in records:
            # One node speaks for a job that is not over, or an old copy would be listed under a state that
            # it left. What is settled anybody may show.
            is_mine = record.owner == desk.me and self._table.has_vote
            if record.settled or is_mine or not desk.view.is_living(record.owner):
                shown.append(encode(record))
        desk.post.send(source, SearchAnswer(request, tuple(shown), upto))

    def on_search_answer(self, source: NodeId, message: SearchAnswer) -> None:
        request = RequestId(message.request)
        searching = self._searches.get(request)
        if searching is None:
            return
        searching.waiting.discard(source)
        searching.horizon = max(searching.horizon, message.upto)
        for blob in message.records:
            record = self._desk.read(blob)
            if record is not None:
                before = searching.found.get(record.id)
                searching.found[record.id] = record if before is None else join(before, record)
        if not searching.waiting:
            self._answer_search(request, searching)

    def _answer_search(self, request: RequestId, searching: Searching) -> None:
        """Merge the pages: nothing is shown below the point that somebody has not looked beyond."""
        del self._searches[request]
        query = searching.query
        page = [
            record
            for job, record in sorted(searching.found.items(), reverse=True)
            if job >= searching.horizon and _matches(record, query)
        ]
        cut = page[: query.limit]
        last = cut[-1].id if len(cut) < len(page) else searching.horizon
        # Who was not even asked may have the only copy, like who did not answer.
        silent = searching.waiting.union(self._unreachable())
        self._desk.emit(SearchDone(request, tuple(cut), last, tuple(sorted(silent))))

    # --------------------------------------------------------------------------------- inspections

    def inspect(self, event: InspectAsked) -> None:
        """Ask each holder what exactly is on its disk."""
        desk = self._desk
        record = self._table.get(event.job)
        nodes = desk.view.ranking().rank(event.job) if record is None else record.holders
        inspecting = Inspecting(set(), desk.now + event.timeout_s)
        if record is not None or desk.me in nodes:
            inspecting.copies[desk.me] = record
        for node in nodes:
            if node != desk.me and desk.view.is_living(node):
                inspecting.waiting.add(node)
                desk.post.send(node, Inspect(event.request, event.job))
        self._inspections[event.request] = inspecting
        self._wake = min(self._wake, inspecting.ends_at)
        self._finish_inspection(event.request, inspecting)

    def on_inspect(self, source: NodeId, message: Inspect) -> None:
        record = self._table.get(message.job)
        blob = b"" if record is None else encode(record)
        self._desk.post.send(source, Inspected(message.request, blob))

    def on_inspected(self, source: NodeId, message: Inspected) -> None:
        request = RequestId(message.request)
        inspecting = self._inspections.get(request)
        if inspecting is not None:
            inspecting.waiting.discard(source)
            inspecting.copies[source] = self._desk.read(message.record) if message.record else None
            self._finish_inspection(request, inspecting)

    def _finish_inspection(self, request: RequestId, inspecting: Inspecting) -> None:
        if not inspecting.waiting and self._inspections.pop(request, None) is not None:
            self._desk.emit(InspectDone(request, inspecting.copies))

    # ----------------------------------------------------------------------------- members and time

    @property
    def has_submissions(self) -> bool:
        """Whether a local client waits for a receipt."""
        return bool(self._submissions)

    def close(self) -> None:
        """The node ends: tell every local client what is known now."""
        for request, submission in list(self._submissions.items()):
            for job in list(submission.open):
                error = _unknown(job, submission.open[job], "this node ended before it had a receipt")
                self._close(submission, job, error)
            self._finish(request, submission)
        for request, reading in list(self._readings.items()):
            self._answer_reading(request, reading)
        for request, searching in list(self._searches.items()):
            self._answer_search(request, searching)
        for request, inspecting in list(self._inspections.items()):
            inspecting.waiting.clear()
            self._finish_inspection(request, inspecting)

    def disown(self) -> None:
        """The disk refused a write: speak for local clients on, but not of what this node had in memory.

        What was submitted through here goes to the next holders, at once; what was read here is read anew.
        """
        desk, now = self._desk, self._desk.now
        self._receipts_due.clear()
        self._followers.keep_only(desk.me)
        for submission in self._submissions.values():
            submission.again_at = now
            # It may have been this node that acknowledged, before its write was refused.
            for job in [job for job, receipt in submission.receipts.items() if desk.me in receipt.nodes]:
                del submission.receipts[job]
                submission.open[job] = submission.sent[job]
        for reading in self._readings.values():
            reading.open = dict.fromkeys(reading.jobs)
            for place in (reading.found, reading.owned, reading.firm, reading.asking, reading.ended):
                place.clear()
            reading.again_at = now
        for inspecting in self._inspections.values():
            inspecting.copies.pop(desk.me, None)
        self._wake = now

    def dropped(self, request: RequestId) -> None:
        """The client went away. A submission goes on: it may have been stored already."""
        self._readings.pop(request, None)
        self._followers.drop((self._desk.me, request))
        self._searches.pop(request, None)
        self._inspections.pop(request, None)

    def members_changed(self, changed: frozenset[NodeId]) -> None:
        """Do not wait for the dead: submissions go down the rank, reads and searches go on."""
        desk = self._desk
        for node in changed:
            self._pace.forget(node)
        self._unreachable_now = None
        dead = {node for node in changed if not desk.view.is_living(node)}
        for request, submission in list(self._submissions.items()):
            moved = []
            for job, out in submission.open.items():
                if out.target in dead:
                    out.target = None
                    moved.append(job)
                elif out.target is None and out.holders[out.place] in dead:
                    moved.append(job)
            if moved:
                self._send(request, submission, moved)
        for request, reading in list(self._readings.items()):
            gone = reading.silent & dead
            if gone:
                reading.silent -= gone
                self._ask_anew(request, reading)
                self._settle_reading(request, reading)
        for request, searching in list(self._searches.items()):
            searching.waiting -= dead
            if not searching.waiting:
                self._answer_search(request, searching)
        for request, inspecting in list(self._inspections.items()):
            inspecting.waiting -= dead
            self._finish_inspection(request, inspecting)
        self._followers.drop_nodes(dead)

    def deadline(self) -> Instant:
        return self._wake

    def on_time(self) -> None:
        now = self._desk.now
        if self._wake > now:
            return
        self._wake = FOREVER
        for request, submission in list(self._submissions.items()):
            self._submission_time(request, submission)
        for request, reading in list(self._readings.items()):
            self._reading_time(request, reading)
        for request, searching in list(self._searches.items()):
            if searching.ends_at <= now:
                self._answer_search(request, searching)
            else:
                self._wake = min(self._wake, searching.ends_at)
        for request, inspecting in list(self._inspections.items()):
            if inspecting.ends_at <= now:
                inspecting.waiting.clear()
                self._finish_inspection(request, inspecting)
            else:
                self._wake = min(self._wake, inspecting.ends_at)

    def _submission_time(self, request: RequestId, submission: Submission) -> None:
        now = self._desk.now
        if submission.ends_at <= now:
            self._desk.reach(Situation.SUBMISSION_OUTCOME_UNKNOWN)
            for job in list(submission.open):
                error = _unknown(job, submission.open[job], "no receipt in time: the job may exist")
                self._close(submission, job, error)
            self._finish(request, submission)
            return
        if submission.again_at <= now:
            self._send(request, submission, list(submission.open))  # the same ids: taken once
            submission.is_repeated = True
            for target in {out.holders[0] for out in submission.open.values()}:
                if self._desk.view.is_living(target):
                    self._pace.repeated(target, now)
            submission.pause_s = min(submission.pause_s * 2, self._desk.settings.retry_max_s)
            submission.again_at = now + submission.pause_s
        self._wake = min(self._wake, submission.again_at, submission.ends_at)

    def _reading_time(self, request: RequestId, reading: Reading) -> None:
        now = self._desk.now
        self._look_at_own_copies(reading)
        if reading.ends_at <= now:
            self._answer_reading(request, reading)
            return
        if reading.wait_until <= now:
            self._settle_reading(request, reading)  # it was waited for long enough
            if request not in self._readings:
                return
        if reading.again_at <= now:
            self._ask_around(request, reading)  # an answer, or a follower's note, can be lost
            reading.again_at = now + self._reread_s
            self._settle_reading(request, reading)
        ends = [reading.again_at, reading.ends_at]
        if reading.wait_until > now:
            ends.append(reading.wait_until)
        self._wake = min(self._wake, *ends)


def _unknown(job: JobId, out: Outgoing, why: str) -> EdgeNodeError:
    """What to say of a submission that nobody answered."""
    if out.is_elsewhere:
        text = "another submission has this key, and the nodes that hold its job do not answer"
        return KeyInFlight(text, job=job_text(job))
    return OutcomeUnknown(why, job=job_text(job))


def _not_taken(answer: SubmitAnswer, out: Outgoing) -> EdgeNodeError:
    """Every holder refused; whether that is certain depends on those that were never heard."""
    if out.is_unsure or out.is_elsewhere:
        why = "a holder died before it answered, or its disk is damaged: the job may exist"
        return _unknown(answer.job, out, why)
    return NotReady("every holder of the job refused it: " + answer.refused, job=job_text(answer.job))


def _matches(record: Record, query: Query) -> bool:
    spec: Spec = decode_spec(record.spec)
    return (
        query.state in ("", record.state)
        and query.task in ("", spec.task)
        and query.queue in ("", spec.options.queue)
    )
