"""Submissions: of local clients, to whoever is to own the jobs; and what comes to this node to be owned.

A submission keeps its ids and holders whatever happens. It goes to the first in rank, and further down only
when that node is known dead or refuses: being slow must not make two owners. What is not known at the
deadline is answered as unknown, never as failed. Under an idempotency key the holders may turn out to be
others, who had the key first: it is sent there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from edgenode.core.desk import Desk
from edgenode.core.errors import (
    AcksLost,
    EdgeNodeError,
    KeyInFlight,
    KeyReused,
    MalformedMessage,
    NotReady,
    OutcomeUnknown,
    StoreUnwritable,
)
from edgenode.core.job_bytes import are_holders
from edgenode.core.job_ids import is_keyed, job_text
from edgenode.core.jobs import Record, is_claimed, new_record
from edgenode.core.pace import Pace
from edgenode.core.post import WRITE_BYTES, pieces_of
from edgenode.core.signals import (
    Receipt,
    RequestId,
    SubmitAsked,
    SubmitDone,
)
from edgenode.core.situations import Situation
from edgenode.core.specs import Spec, decode_spec, encode_spec
from edgenode.core.types import FOREVER, NOBODY, Ballot, Instant, JobId, NodeId, Promise, Seconds
from edgenode.core.wire import (
    REFUSED_CLAIMED,
    REFUSED_GAVE_WAY,
    REFUSED_MOVED,
    REFUSED_NOT_READY,
    REFUSED_REUSED,
    REFUSED_SHORT,
    REFUSED_UNSURE,
    Submit,
    SubmitAnswer,
    SubmitItem,
    Submitted,
)

REFUSED_EXPIRED = "is past its last day"
HOPS_MAX: Final = 4
"""How often in a row a submission is sent on at once; then only with the next retry."""


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
    sent: dict[JobId, Outgoing]
    open: dict[JobId, Outgoing]  # of those sent, what has no receipt yet
    receipts: dict[JobId, Receipt]
    sent_at: Instant
    ends_at: Instant
    again_at: Instant
    pause_s: Seconds
    is_repeated: bool = False


class Intake:
    """Drive it with local requests, messages, changes and time; it answers through the desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._table = desk.table
        self._pace = Pace(desk.settings.retry_s, desk.settings.retry_max_s)
        self._submissions: dict[RequestId, Submission] = {}
        self._receipts_due: dict[JobId, list[Due]] = {}
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
            for piece in pieces_of(items, WRITE_BYTES, len(items)):
                desk.post.send(target, Submit(request, place, tuple(piece)))
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
            elif answer.refused == REFUSED_SHORT:
                self._close(submission, answer.job, _short(answer))
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
        """These are on as many disks as can be had: tell whoever submitted them, a message per submission."""
        answers: dict[tuple[NodeId, int], list[SubmitAnswer]] = {}
        for job, nodes in receipts:
            dues = self._receipts_due.pop(job, ())
            record = (self._table.peek(job) or self._table.get(job)) if dues else None
            if record is None:
                continue
            options = decode_spec(record.spec).options
            # (By its end a majority has it, whatever this node knows of the others.)
            is_short = len(nodes) < options.acks and not record.settled
            for due in dues:
                answer = SubmitAnswer(job, nodes, REFUSED_SHORT if is_short else "", due.replayed)
                if due.content != options.fingerprint:
                    answer = SubmitAnswer(job, (), REFUSED_GAVE_WAY)
                answers.setdefault((due.source, due.request), []).append(answer)
        for (source, request), items in answers.items():
            self._desk.post.send(source, Submitted(request, tuple(items)))

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

    def disown(self) -> None:
        """The disk refused a write: speak for local clients on, but not of what this node had in memory.

        What was submitted through here goes to the next holders, at once.
        """
        desk, now = self._desk, self._desk.now
        self._receipts_due.clear()
        for submission in self._submissions.values():
            submission.again_at = now
            # It may have been this node that acknowledged, before its write was refused.
            for job in [job for job, receipt in submission.receipts.items() if desk.me in receipt.nodes]:
                del submission.receipts[job]
                submission.open[job] = submission.sent[job]
        self._wake = now

    def members_changed(self, changed: frozenset[NodeId]) -> None:
        """Do not wait for the dead: submissions go down the rank."""
        desk = self._desk
        for node in changed:
            self._pace.forget(node)
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

    def deadline(self) -> Instant:
        return self._wake

    def on_time(self) -> None:
        now = self._desk.now
        if self._wake > now:
            return
        self._wake = FOREVER
        for request, submission in list(self._submissions.items()):
            self._submission_time(request, submission)

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


def _unknown(job: JobId, out: Outgoing, why: str) -> EdgeNodeError:
    """What to say of a submission that nobody answered."""
    if out.is_elsewhere:
        text = "another submission has this key, and the nodes that hold its job do not answer"
        return KeyInFlight(text, job=job_text(job))
    return OutcomeUnknown(why, job=job_text(job))


def _short(answer: SubmitAnswer) -> EdgeNodeError:
    """Somebody asked for more disks than are left. (Who asked for none in particular has a receipt.)"""
    text = f"the job {REFUSED_SHORT}. It is on {len(answer.nodes)}, and may run"
    return AcksLost(text, job=job_text(answer.job), nodes=list(answer.nodes))


def _not_taken(answer: SubmitAnswer, out: Outgoing) -> EdgeNodeError:
    """Every holder refused; whether that is certain depends on those that were never heard."""
    if out.is_unsure or out.is_elsewhere:
        why = "a holder died before it answered, or its disk is damaged: the job may exist"
        return _unknown(answer.job, out, why)
    return NotReady("every holder of the job refused it: " + answer.refused, job=job_text(answer.job))
