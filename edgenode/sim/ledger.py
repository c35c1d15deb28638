"""The history of a run, and the laws that every single effect must keep.

The ledger sees what no node can: all disks and all clients at once. It knows what was submitted, what was
acknowledged, each start, what every reader was told, and which result a majority has accepted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from edgenode.core.errors import EdgeNodeError
from edgenode.core.job_ids import is_keyed, job_text
from edgenode.core.jobs import Outcome, Record, is_marker, majority
from edgenode.core.joining import is_same_life, join
from edgenode.core.signals import Persist, Receipt, Row, Run, StopRun
from edgenode.core.specs import Spec, decode_spec, encode_spec, start_by
from edgenode.core.types import (
    FOREVER,
    NO_BALLOT,
    NO_TOKEN,
    Ballot,
    Delivery,
    JobId,
    NodeId,
    Promise,
    Seconds,
    StartToken,
    State,
    Wall,
)
from edgenode.core.wire import Acks, Ask, Message, Promises, Stored, Verdict
from edgenode.sim.clock import EPOCH
from edgenode.sim.disk import Disk, promise_of, record_of
from edgenode.sim.keylaw import KeyLaw
from edgenode.sim.pausing import PauseLaw
from edgenode.sim.story import ballot_text, short, token_text
from edgenode.sim.violation import Violation
from edgenode.sim.workers import STOPPED

Value = tuple[object, ...]
"""`Outcome.value`: what a reader is told of how a job ended."""
NO_PROMISE: Final = Promise(-1, NO_BALLOT)
CANCEL_HEARD_S: Final = 1.0
"""How long after a majority has noted a cancel its owner may not have heard of it, when nothing is wrong."""
ORDERED_S: Final = 2.0
"""How long before its run an order may have been given: it waits for the disk."""
INACCURACY_S: Final = 1.0
"""How far the median of mostly right clocks may be from the true time: they differ by tenths of a second."""


def agree(one: Value, other: Value) -> bool:
    """Whether two tell of the same end. A marker knows no result and no error text any more."""
    if one == other or len(one) != len(other):
        return one == other
    is_gist = ("", b"") in (one[2:0:-1], other[2:0:-1])
    return is_gist and (one[0], *one[3:]) == (other[0], *other[3:])


@dataclass(slots=True)
class Start:
    """One start of a job, as it really happened."""

    node: NodeId
    boot: int
    verdict: Verdict | None = None
    lost: bool = False
    stopped: bool = False
    over: bool = False  # ended, or its node died
    cut_short: bool = False  # its node died
    evicted: bool = False  # its node left, and had waited for it for as long as a leaving node does


@dataclass(slots=True)
class Proposal:
    """An outcome or a move under one firm ballot, and who has accepted it (Paxos phase 2)."""

    value: Value
    holders: tuple[NodeId, ...]
    accepted: set[NodeId] = field(default_factory=set)


class Ledger:
    """Hears of everything; raises `Violation` at the first effect that breaks a law."""

    def __init__(
        self,
        disks: Mapping[NodeId, Disk],
        true_time: Callable[[], Wall] = lambda: EPOCH,
        skew_s: Seconds = 600.0,
    ) -> None:
        self._disks = disks
        self.identities: dict[NodeId, NodeId] = {}  # whose name a copied disk bears, by the copy's place
        self._true_time = true_time
        self._skew_s = skew_s
        self.clock_s = INACCURACY_S
        self.misled: Callable[[NodeId], bool] = lambda node: False
        """Whether half or more of the clocks that a node may know of have been wrong: it knows no better."""
        self.on_own_vote: Callable[[NodeId], bool] = lambda node: True
        """Told where an owner accepts its own proposal, before it counts. Whether it does."""
        self._ended_early: set[JobId] = set()  # by nodes that knew no better
        self.finished: set[JobId] = set()  # some disk had an end of it once
        self.forgotten: defaultdict[JobId, set[NodeId]] = defaultdict(set)
        """Who dropped a job."""
        self.keys = KeyLaw(disks)
        self._spared: dict[tuple[NodeId, JobId], tuple[NodeId, ...]] = {}
        """Copies that were dropped, not being needed any more, and the holders that had the job then."""
        self._lost_disks: set[NodeId] = set()  # whose disk is gone, or not what it was
        self._lost_rows: set[tuple[NodeId, JobId]] = set()
        self._gave_way: dict[tuple[NodeId, JobId], Record] = {}
        """What a disk had until a copy took its place that does not continue it: one of another life of its
        key, or a settled one, of which less is kept."""
        self._harmed: set[JobId] = set()  # that were on any of those
        self.specs: dict[JobId, Spec] = {}
        """What was submitted; under a key, first."""
        self.acked: dict[JobId, tuple[NodeId, ...]] = {}
        self.refused: set[JobId] = set()
        self.cancels: set[JobId] = set()
        """What clients have asked to cancel."""
        self._noted: dict[JobId, Wall] = {}  # of those, what they were told is noted, and when
        self.starts: defaultdict[JobId, dict[StartToken, Start]] = defaultdict(dict)
        self.pauses = PauseLaw(self.starts)
        self.stranded: Counter[JobId] = Counter()
        """How often a job's only holder left with it, since nobody took jobs then that it knew of."""
        self.withheld: set[JobId] = set()
        """Jobs that went on when a holder left with its copy: a majority may have to wait for its return.
        (Found by seed 21207.)"""
        self.told: dict[JobId, Value] = {}
        self.chosen: dict[tuple[JobId, int], Value] = {}  # by job and epoch
        self._submissions: defaultdict[JobId, dict[bytes, Spec]] = defaultdict(dict)
        self._proposals: dict[tuple[JobId, Promise], Proposal] = {}
        self._early: defaultdict[tuple[JobId, Promise], set[NodeId]] = defaultdict(set)
        self._word: dict[tuple[NodeId, JobId], Promise] = {}
        self._raised: dict[JobId, Promise] = {}  # words raised by the event in hand: what they were before

    # -------------------------------------------------------------------------------- clients

    def submitted(self, specs: tuple[Spec, ...]) -> None:
        for spec in specs:
            self.specs.setdefault(spec.id, spec)
            self._submissions[spec.id][encode_spec(spec)] = spec
            if is_keyed(spec.id):
                self.keys.submitted(spec)

    def was_submitted(self, spec: Spec) -> bool:
        return encode_spec(spec) in self._submissions[spec.id]

    def receipts(self, receipts: tuple[Receipt, ...]) -> None:
        """A client was told: acknowledged, or refused, or neither."""
        for job, nodes, error, _ in receipts:
            if error is None:
                if not nodes:
                    raise Violation(f"P1: {job_text(job)} acknowledged by nobody")
                if len(nodes) < self._acks_asked(job):
                    raise Violation(f"P1: {job_text(job)} acknowledged on {len(nodes)} disks, asked for more")
                for node in nodes:
                    disks = [disk for place, disk in self._disks.items() if self._identity(place) == node]
                    is_there = any(disk.record(job) for disk in disks) or node in self.forgotten[job]
                    is_there = is_there or (node, job) in self._spared
                    if disks and not is_there and self._is_whole(node, job):
                        raise Violation(f"P1: {job_text(job)} is not on {short(node)}, as its receipt says")
                # Under a key each receipt is a promise of its own.
                self.acked[job] = tuple(dict.fromkeys((*self.acked.get(job, ()), *nodes)))
            elif error.definite and not is_keyed(job):
                if self.starts.get(job) or any(disk.record(job) for disk in self._disks.values()):
                    raise Violation(f"P5: {job_text(job)} exists, but was refused: {error.detail}")
                self.refused.add(job)

    def _acks_asked(self, job: JobId) -> int:
        """On how many disks it was to be. (Settled it is on most, and its receipt names one that knows that;
        under a key several may have asked.)"""
        records = (disk.record(job) for disk in self._disks.values())
        if is_keyed(job) or any(record is not None and record.settled for record in records):
            return 0
        return max(decode_spec(blob).options.acks for blob in self._submissions[job])

    def cancel_asked(self, job: JobId) -> None:
        self.cancels.add(job)

    def cancel_noted(self, jobs: Iterable[JobId]) -> None:
        """The client was told that its wish is safe."""
        for job in jobs:
            self._noted.setdefault(job, self._true_time())

    def shown(self, record: Record) -> None:
        """Somebody was shown this copy, as an answer or as a change."""
        self._from_a_submission(record)
        if record.outcome is None or not record.outcome.settled:
            return
        value = record.outcome.value
        told = (
            self.told.get(record.id, value) if is_marker(record) else self.told.setdefault(record.id, value)
        )
        if not agree(told, value) and record.id not in self.keys.excused | self._ended_early:
            raise Violation(f"I4: {job_text(record.id)} was told as {told}, and now as {value}")
        self._settled(record, value)

    def unfound(
        self, job: JobId, error: EdgeNodeError, met: set[NodeId], told_before: Collection[JobId]
    ) -> None:
        """A reader was told that this job is not to be had, by a node that has met these others: it may not
        say that a job does not exist, which was told as settled before it was asked, if it knows somebody who
        has it. (Islands that never met do; and it may have asked an older copy of that disk.)"""
        if not error.definite or error.status != 404 or job not in told_before:
            return
        whole = (disk for node, disk in self._disks.items() if node in met and node not in self._lost_disks)
        if any(disk.record(job) is not None for disk in whole):
            raise Violation(f"I4: {job_text(job)} was told as settled, and now does not exist")

    def _identity(self, place: NodeId) -> NodeId:
        return self.identities.get(place, place)

    # --------------------------------------------------------------------------------- losses

    def lost_disk(self, place: NodeId) -> None:
        """The disk of this machine is gone, or set back to what it was once, or speaks for two machines."""
        self._lost_disks.add(place)
        self._harmed.update(self._disks[place].rows)

    def lost_rows(self, place: NodeId, jobs: Iterable[JobId]) -> None:
        """What this disk has of these is not what was written."""
        self._lost_rows.update((place, job) for job in jobs)
        self._harmed.update(jobs)

    def _is_whole(self, node: NodeId, job: JobId) -> bool:
        return node not in self._lost_disks and (node, job) not in self._lost_rows

    def keeps(self, node: NodeId, job: JobId) -> bool:
        """Whether what `node` has stored of a job is still there, and speaks for it."""
        return node in self._disks and self._is_whole(node, job)

    def survives(self, job: JobId) -> bool:
        """P2: whether a disk that is named in a job's receipt survives; or the one who left handed it over,
        and nobody lost it then. (In the place of a spare copy that has gone stand those that had the job.)"""
        named = {disk for node in self.acked[job] for disk in (self._spared.get((node, job)) or (node,))}
        left = any(node not in self._disks and node not in self._lost_disks for node in named)
        return any(self.keeps(node, job) for node in named) or (left and job not in self._harmed)

    # ---------------------------------------------------------------------------------- disks

    def handled(self) -> None:
        """A core has handled one event: what it orders follows."""
        self._raised.clear()

    def ordered(self, node: NodeId, persist: Persist) -> None:
        """The core of `node` wants these rows written: a word once given is not taken back."""
        for job in persist.dropped:
            self._word.pop((node, job), None)
        for stored in persist.rows:
            self._check_wish(node, stored.row)
            promise = promise_of(stored.row)
            if promise is None or stored.row.id in self._disks[node].damaged_rows:
                continue  # of a damaged row nobody knows what was promised: it never votes again
            before = self._word.get((node, stored.row.id))
            if before is not None and promise < before:
                raise Violation(
                    f"{short(node)} lowers its promise on {job_text(stored.row.id)} from "
                    f"{ballot_text(before.ballot)} to {ballot_text(promise.ballot)}"
                )
            self._word[node, stored.row.id] = promise
            self._raised.setdefault(stored.row.id, NO_PROMISE if before is None else before)

    def _check_wish(self, node: NodeId, row: Row) -> None:
        record = record_of(row)
        if record is not None:
            self.keys.ordered(node, record)
            now = self._true_time() - EPOCH
            is_faultless = self.keys.is_faultless and record.id not in self.withheld
            self.pauses.ordered(self._identity(node), record, now, is_faultless=is_faultless)

    def durable(self, node: NodeId, before: Row | None, after: Row) -> None:
        """A row is on the disk of `node` now."""
        old, new = record_of(before), record_of(after)
        if node in self.forgotten[after.id] and after.id not in self._ended_early:
            raise Violation(f"I4: {job_text(after.id)} was forgotten by {short(node)}, and came back")
        promised, promises = promise_of(before), promise_of(after)
        if promised is not None and (promises is None or promises < promised):
            raise Violation(f"the promise on {short(node)}'s disk of {job_text(after.id)} went backwards")
        if new is None:
            if old is not None:
                raise Violation(f"{short(node)} lost its copy of {job_text(after.id)}")
            return
        if old is not None and join(old, new) != new:
            raise Violation(f"{short(node)}'s copy of {job_text(after.id)} went backwards: {old} -> {new}")
        if old is not None and not is_same_life(old, new):
            self._gave_way[node, new.id] = old
        self._from_a_submission(new)
        self.keys.durable(node, new)
        if new.epoch and (old is None or old.epoch != new.epoch):
            self._epoch_begun(node, old, new)
        if new.outcome is not None and (old is None or old.outcome != new.outcome):
            self._outcome_stored(node, new, new.outcome, promises)
        if new.move is not None and (old is None or old.move != new.move):
            self._proposed(node, new, new.move.ballot, new.move.value, promises)

    def dropped(self, node: NodeId, job: JobId) -> None:
        """A row goes from the disk of `node`: not before its day, and nothing acknowledged without a word; or
        as a spare copy, of a settled job that its holders have."""
        disk, spec = self._disks.get(node), self.specs.get(job)
        record = None if disk is None else disk.record(job)
        if record is not None and self._is_spare(node, record):
            self._spared[node, job] = record.holders
            return
        self.forgotten[job].add(node)
        if disk is None or spec is None:
            return
        late_s = self._true_time() - spec.expires_at + INACCURACY_S
        is_open = record is not None and not record.settled
        if late_s < (0.0 if is_open else 2 * self._skew_s):
            if not self.misled(node):
                what = "a promise" if record is None else record
                raise Violation(
                    f"I1: {short(node)} drops {job_text(job)} {-late_s:.1f} s before its day: {what}"
                )
            self._ended_early.add(job)
        if record is None:
            return
        holders_live = all(holder in self._disks for holder in self.acked.get(job, ()))
        if job in self.acked and job not in self.finished and holders_live:
            raise Violation(
                f"I1: {job_text(job)} was acknowledged, and vanishes from {short(node)} unfinished"
            )

    def _is_spare(self, node: NodeId, record: Record) -> bool:
        """Whether a majority of its holders have what this node has, which is none of them; or have had it:
        some disk, or some row, may be lost since they said so."""
        if not record.settled or self._identity(node) in record.holders:
            return False
        having = {
            self._identity(place) for place, disk in self._disks.items() if disk.record(record.id) is not None
        }
        have = having.intersection(record.holders)
        had = {holder for holder in record.holders if holder not in self._disks or holder in self._lost_disks}
        damaged = {
            self._identity(place) for place, disk in self._disks.items() if record.id in disk.damaged_rows
        }
        return bool(have) and majority(len(have | had | damaged.intersection(record.holders)), record.holders)

    def is_over(self, job: JobId) -> bool:
        """Whether it ended, and some have forgotten it since; or who had it left, and it was past its day for
        who might have taken its copy over."""
        if job not in self.finished:
            return False
        return bool(self.forgotten[job]) or self._left_past_its_day(job)

    def _left_past_its_day(self, job: JobId) -> bool:
        disks, spec = self._disks.values(), self.specs.get(job)
        if spec is None or any(disk.record(job) is not None for disk in disks):
            return False
        return any(disk.forgotten >= spec.expires_at for disk in disks)

    def rebooted(self, node: NodeId) -> None:
        """What `node` had ordered and not synced is forgotten; what its disk has, stands."""
        for key in [key for key in self._word if key[0] == node]:
            del self._word[key]
        disk = self._disks.get(node)
        if disk is None:
            return
        for stored in disk.rows.values():
            promise = promise_of(stored.row)
            if promise is not None:
                self._word[node, stored.row.id] = promise
        for job, nodes in self.forgotten.items():
            if disk.forgotten < self.specs[job].expires_at:
                nodes.discard(node)  # it was put back to before

    def _from_a_submission(self, record: Record) -> None:
        submissions = self._submissions[record.id]
        if is_marker(record):
            gist = decode_spec(record.spec)
            known = (gist.task, gist.submitted_at, gist.expires_at)
            told = [(spec.task, spec.submitted_at, spec.expires_at) for spec in submissions.values()]
            is_same = record.settled and known in told
        else:
            is_same = record.spec in submissions
        if not is_same:
            raise Violation(f"I2: {job_text(record.id)} is not what anybody submitted")
        if record.id in self.refused:
            raise Violation(f"P5: {job_text(record.id)} exists, but was refused")

    def _epoch_begun(self, node: NodeId, old: Record | None, new: Record) -> None:
        """A job has other holders, because those before them decided so (one alone may do so at once)."""
        before = (new.id, new.epoch - 1)
        identity = self._identity(node)
        alone = new.own.ballot.owner == identity if old is None else old.holders == (identity,)
        if before not in self.chosen and alone:
            self.chosen[before] = (new.holders, new.own.ballot, new.own.state, new.own.due_at)
        decided = self.chosen.get(before, ((),))
        if decided[0] != new.holders and new.id not in self.keys.excused:
            raise Violation(
                f"T22: {job_text(new.id)}, epoch {new.epoch}, held by {[*map(short, new.holders)]}; "
                f"decided was {decided}"
            )

    def _outcome_stored(
        self, node: NodeId, record: Record, outcome: Outcome, promises: Promise | None
    ) -> None:
        self.finished.add(record.id)
        if is_marker(record):
            self._settled(record, outcome.value)
            return
        self._outcome_happened(node, record.id, outcome)
        if outcome.state is State.FAILED:
            self._failed(record, outcome.token)
        if outcome.firm:
            self._proposed(node, record, outcome.ballot, outcome.value, promises)
        if outcome.settled:
            self._settled(record, outcome.value)

    def _proposed(
        self, node: NodeId, record: Record, ballot: Ballot, value: Value, promises: Promise | None
    ) -> None:
        """A firm owner's value is on a disk: one ballot has one value; who proposes it has accepted it."""
        key = (record.id, Promise(record.epoch, ballot))
        # An owner that gets its own old proposal back has promised more by then: it accepts nothing. Nor does
        # a copied or an old disk of its that has no vote.
        is_own = promises == Promise(record.epoch, ballot) and ballot.owner == self._identity(node)
        is_accepted = is_own and self.on_own_vote(node)
        proposal = self._proposals.setdefault(key, Proposal(value, record.holders))
        if proposal.value != value and record.id not in self.keys.excused:
            raise Violation(f"I4: two values of {job_text(record.id)} in {ballot_text(ballot)}")
        for early in self._early.pop(key, set()):
            self._accepted(early, *key)
        if is_accepted:
            self._accepted(ballot.owner, *key)

    def _outcome_happened(self, node: NodeId, job: JobId, outcome: Outcome) -> None:
        if outcome.state is State.CANCELLED:
            self._cancelled(job, outcome.token)
        if outcome.state is State.EXPIRED:
            self._expired(node, job)
        if outcome.state is not State.SUCCEEDED:
            return
        start = self.starts[job].get(outcome.token)
        if start is None or start.verdict is None:
            raise Violation(f"I2: {token_text(outcome.token)} of {job_text(job)} succeeded, but never ended")
        made = (start.verdict.state, start.verdict.result, start.node)
        if made != (State.SUCCEEDED, outcome.result, outcome.runner):
            raise Violation(f"I2: {job_text(job)} has a result that {token_text(outcome.token)} did not give")

    def _failed(self, record: Record, token: StartToken) -> None:
        """I10: not before so many starts of it have failed, or were lost, as the options say; or one of them
        said that it is no use; or it may start only once, and has."""
        said, starts = decode_spec(record.spec).options, self.starts[record.id]
        verdicts = [start.verdict for start in starts.values() if start.verdict is not None]
        failures = sum(verdict.state is State.FAILED for verdict in verdicts)
        if token == NO_TOKEN:
            is_over = said.delivery is Delivery.AT_MOST_ONCE or record.loss_count >= said.max_losses
        else:
            is_over = failures >= said.max_attempts or any(verdict.final for verdict in verdicts)
        if not is_over:
            raise Violation(
                f"I10: {job_text(record.id)} is given up after {failures} failures of {said.max_attempts}, "
                f"and {record.loss_count} losses of {said.max_losses}"
            )

    def _cancelled(self, job: JobId, token: StartToken) -> None:
        """I13: a client has asked for it, or the task by its own end: not by being stopped."""
        if token == NO_TOKEN and job in self.cancels:
            return
        start = self.starts[job].get(token)
        verdict = None if start is None else start.verdict
        if verdict is None or verdict.state is not State.CANCELLED or verdict == STOPPED:
            raise Violation(f"I13: {job_text(job)} is cancelled, and {token_text(token)} did not ask for it")

    def _expired(self, node: NodeId, job: JobId) -> None:
        """I12: not before the day, unless it did so first where nobody could know better."""
        spec = self.specs[job]
        early_s = min(spec.expires_at, spec.options.deadline or spec.expires_at) - self._true_time()
        if early_s <= self.clock_s or job in self._ended_early:
            return
        if not self.misled(node):
            raise Violation(f"I12: {job_text(job)} expires {early_s:.1f} s before its day")
        self._ended_early.add(job)

    def _accepted(self, node: NodeId, job: JobId, under: Promise) -> None:
        proposal = self._proposals.get((job, under))
        if proposal is None:
            self._early[job, under].add(node)
            return
        proposal.accepted.add(node)
        if majority(len(proposal.accepted & set(proposal.holders)), proposal.holders):
            chosen = self.chosen.setdefault((job, under.epoch), proposal.value)
            # What was forgotten by wrong clocks is decided anew, of an old copy, when they are right again.
            if chosen != proposal.value and job not in self.keys.excused | self._ended_early:
                raise Violation(f"I4: {job_text(job)} was decided twice: {chosen}, {proposal.value}")

    def _settled(self, record: Record, value: Value) -> None:
        chosen = self.chosen.get((record.id, record.epoch))
        if record.id in self.keys.excused | self._ended_early:
            return
        if chosen is None or not agree(chosen, value):
            raise Violation(f"P4: {job_text(record.id)} is called settled without a majority: {value}")

    # ------------------------------------------------------------------------------- messages

    def promised(self, node: NodeId, message: Message) -> None:
        """The core of `node` wants this sent: no acknowledgement under a lower ballot than its word.

        One event may do both, in this order: accept a write, and give a higher promise.
        """
        if isinstance(message, Promises):
            self._check_health(node, (answer.job for answer in message.items))
        if not isinstance(message, Acks):
            return
        self._check_health(node, (stored.job for stored in message.stored))
        for stored in message.stored:
            word = self._raised.get(stored.job, self._word.get((node, stored.job)))
            if word is None or word > Promise(stored.epoch, stored.ballot):
                given = "nothing" if word is None else ballot_text(word.ballot)
                raise Violation(
                    f"{short(node)} acknowledges {ballot_text(stored.ballot)} of {job_text(stored.job)}, "
                    f"having promised {given}"
                )

    def _check_health(self, node: NodeId, jobs: Iterable[JobId]) -> None:
        """Nobody knows what a row that was damaged had promised. (The core gives no word on a job whose claim
        was, either; but one event may make it promise first, and then read the claim.)"""
        for job in self._disks[node].damaged_rows.intersection(jobs):
            raise Violation(f"{short(node)} gives its word on {job_text(job)}, whose row was damaged there")

    def left(self, node: NodeId, to: NodeId, message: Message) -> None:
        """A message leaves `node`: what it asserts is on the disk."""
        match message:
            case Acks(stored=items):
                for stored in items:
                    self._check_ack(node, stored)
            case Promises(items=promised):
                for answer in promised:
                    self._check_promise(node, answer.job, Promise(answer.epoch, Ballot(answer.term, to)))
            case Ask(items=asked):
                for question in asked:
                    ballot = Ballot(question.term, self._identity(node))
                    self._check_promise(node, question.job, Promise(question.epoch, ballot))
            case _:
                pass

    def has(self, node: NodeId, stored: Stored) -> bool:
        """Whether the disk of `node` has what such an acknowledgement asserts."""
        return _asserts(self._disks[node].record(stored.job), stored)

    def _check_ack(self, node: NodeId, stored: Stored) -> None:
        record = self._disks[node].record(stored.job)
        # Since it was written bits may have flipped in it, or it was dropped, its last day being over.
        # Or another copy took its place with the very next write. (Found by seeds 7513 and 9688.)
        is_gone = (
            (node, stored.job) in self._lost_rows
            or node in self.forgotten[stored.job]
            or _asserts(self._gave_way.get((node, stored.job)), stored)
        )
        if not self.has(node, stored) and not is_gone:
            raise Violation(f"T4: {short(node)} acknowledges of {job_text(stored.job)} what its disk has not")
        under = Promise(stored.epoch, stored.ballot)
        move = None if record is None else record.move
        if stored.firm or (move is not None and Promise(stored.epoch, move.ballot) == under):
            self._accepted(self._identity(node), stored.job, under)

    def _check_promise(self, node: NodeId, job: JobId, promise: Promise) -> None:
        if node in self.forgotten[job] or (node, job) in self._lost_rows:
            return  # dropped with the same write, and never promised again; or damaged since
        kept = promise_of(self._disks[node].row(job))
        if kept is None or kept < promise:
            raise Violation(
                f"T4: {short(node)} asserts a promise of {ballot_text(promise.ballot)} on {job_text(job)} "
                "that its disk has not"
            )

    # --------------------------------------------------------------------------------- starts

    def run(self, node: NodeId, boot: int, effect: Run) -> None:
        """A worker starts."""
        job, token = effect.job, effect.token
        blob = encode_spec(effect.spec)
        if blob not in self._submissions[job]:
            raise Violation(f"I2: {short(node)} runs {job_text(job)}, which nobody submitted")
        self.keys.started(job, blob)
        early_s = effect.spec.options.run_at - self._true_time()
        if early_s > self.clock_s and not (self.misled(node) or self.misled(token.owner)):
            raise Violation(f"I12: {job_text(job)} starts {early_s:.1f} s before its day")
        late_s = self._true_time() - start_by(effect.spec)
        if late_s > self.clock_s + ORDERED_S and not (self.misled(node) or self.misled(token.owner)):
            raise Violation(f"I12: {job_text(job)} starts {late_s:.1f} s after its deadline")
        noted_s = self._true_time() - self._noted.get(job, FOREVER)
        if self.keys.is_faultless and noted_s > CANCEL_HEARD_S:
            raise Violation(f"I13: {job_text(job)} starts {noted_s:.1f} s after its cancel was noted")
        started = self.starts[job]
        if token in started:
            raise Violation(f"I5: start {token_text(token)} of {job_text(job)} happens twice")
        is_once = effect.spec.options.delivery is Delivery.AT_MOST_ONCE
        if started and is_once and job not in self.keys.excused:
            raise Violation(f"I14: at-most-once {job_text(job)} starts again, as {token_text(token)}")
        for other in started.values():
            if (other.node, other.boot) == (node, boot) and not other.over and not other.stopped:
                raise Violation(f"{short(node)} runs {job_text(job)} twice at once")
        owner = self._disks.get(token.owner)
        if owner is not None and self._is_whole(token.owner, job):
            record = owner.record(job)
            if record is None or dict(record.starts).get(token.ballot, 0) < token.start:
                raise Violation(
                    f"I5: {token_text(token)} of {job_text(job)} runs before its owner's disk has it"
                )
            self._check_given_up(token, record)
            self.pauses.started(token, record, self._true_time() - EPOCH)
        started[token] = Start(node, boot)

    def _check_given_up(self, token: StartToken, record: Record) -> None:
        """I6: an owner starts a job again when the start before is over, or is lost by what its disk has."""
        for earlier, start in self.starts[record.id].items():
            # (A start that was called lost may begin late, beside the one that followed.)
            is_earlier = earlier.ballot == token.ballot and earlier.start < token.start
            is_open = is_earlier and not (start.over or start.stopped)
            if is_open and earlier not in record.losses and earlier not in record.voids:
                raise Violation(
                    f"I6: {token_text(token)} of {job_text(record.id)} begins, and {token_text(earlier)} runs"
                )

    def stopped(self, effect: StopRun) -> None:
        start = self.starts[effect.job].get(effect.token)
        if start is not None:
            start.stopped = True

    def evicted(self, running: Iterable[tuple[JobId, StartToken]]) -> None:
        """A node that leaves does not wait any longer for these."""
        for job, token in running:
            self.starts[job][token].evicted = True

    def left_with(self, node: NodeId) -> None:
        """It left, and nobody has taken over what it holds."""
        disk, me = self._disks[node], self._identity(node)
        records = (r for r in map(disk.record, disk.rows) if r is not None and me in r.holders)
        self.withheld.update(record.id for record in records if not record.settled)

    def stranded_on(self, node: NodeId, living: Container[NodeId]) -> None:
        """It left with what it holds, and how that ended: it knew of nobody who could take any of it.

        Args:
            living: by their identities, who is there: what one of those holds, too, went nowhere.
        """
        disk, me = self._disks[node], self._identity(node)
        records = (r for r in map(disk.record, disk.rows) if r is not None and me in r.holders)
        self.stranded.update(r.id for r in records if not any(h in living for h in r.holders if h != me))

    def ended(self, job: JobId, token: StartToken, verdict: Verdict, *, lost: bool) -> None:
        start = self.starts[job][token]
        start.verdict, start.lost, start.over = (None if lost else verdict), lost, True

    def died(self, node: NodeId, boot: int) -> None:
        """A node's life is over, and its workers' with it."""
        for starts in self.starts.values():
            for start in starts.values():
                if (start.node, start.boot) == (node, boot) and not start.over:
                    start.over = start.cut_short = True


def _asserts(record: Record | None, stored: Stored) -> bool:
    """Whether who has this may say so."""
    if record is None or (stored.firm and record.outcome is None and record.epoch == stored.epoch):
        return False  # (what an epoch had and did not decide, the next does not keep)
    on_disk = (record.epoch, record.own.ballot, record.own.write)
    return on_disk >= (stored.epoch, stored.ballot, stored.write)
