"""What is promised of idempotency keys (I11: one key is one job), as a law that every run must keep.

    claimed    of all submissions of a key one content and one set of holders is ever marked as claimed
    refused    what was refused for certain is on no disk, and never starts
    answered   a receipt is for what was submitted: the key's job has that content

Without a majority of all members a key's job runs all the same, unclaimed, and so may another one on the
other side of a cut: they count as one job, of which one life stands in the end (`judge` demands that). So two
lives may start, and an unclaimed one that was acknowledged may give way to another content.

Two lives may even both be claimed where the second decision need not find the first: who decided did not know
of all members, or since then so many came, or left, that the others outnumber those who know of it. Two
majorities need not meet then; and of a decision without a ballot a majority must see so many traces that it
may have been one (Fast Paxos), among as many members as there are by now. That is checked by numbers here,
not by which fault struck: without a fault nothing is excused. And a job that is on no disk any more,
each that had it being gone or damaged, cannot keep its key from another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from edgenode.core.errors import KeyReused
from edgenode.core.job_ids import is_keyed, job_text
from edgenode.core.jobs import Record, is_marker
from edgenode.core.quorums import fast_quorum_of, majority_of
from edgenode.core.signals import Receipt
from edgenode.core.specs import Spec, decode_spec, encode_spec
from edgenode.core.types import NO_BALLOT, JobId, KeyUse, NodeId, Wall
from edgenode.sim.disk import Disk
from edgenode.sim.story import short
from edgenode.sim.violation import Violation


@dataclass(frozen=True, slots=True)
class Decision:
    """A key's job was seen marked as claimed for the first time."""

    content: str
    holders: tuple[NodeId, ...]  # the first ones; () if they have changed since
    members: frozenset[NodeId]  # all that existed then, the dead included
    knew_all: bool  # who decided knew of all those
    first_come: frozenset[NodeId]  # whose disks said so, if none said it under a ballot


class KeyLaw:
    """Hears what the ledger hears of keyed jobs, and what their submitters are told."""

    def __init__(self, disks: Mapping[NodeId, Disk]) -> None:
        self._disks = disks
        self.is_faultless = False
        self.members: Callable[[], Iterable[NodeId]] = lambda: ()
        """All that exist, the dead included, without those that have left."""
        self.known_to: Callable[[NodeId], Iterable[NodeId]] = lambda node: ()
        """The members that a node knows of."""
        self.lives: defaultdict[JobId, set[bytes]] = defaultdict(set)
        """The submissions of a key that were on a disk."""
        self.excused: set[JobId] = set()
        """Keys of which more than one life was claimed, where that is not excluded."""
        self._contents: defaultdict[JobId, set[str]] = defaultdict(set)
        self._decisions: dict[JobId, Decision] = {}
        self._known: dict[tuple[JobId, NodeId, str, tuple[NodeId, ...]], tuple[frozenset[NodeId], bool]] = {}
        self._unclaimed: set[tuple[JobId, str]] = set()
        self._refused: dict[bytes, str] = {}

    def submitted(self, spec: Spec) -> None:
        self._contents[spec.id].add(spec.options.fingerprint)

    def answered(self, spec: Spec, receipt: Receipt) -> None:
        """A submitter was told what became of exactly this submission."""
        job, content = spec.id, spec.options.fingerprint
        if isinstance(receipt.error, KeyReused) and self._contents[job] == {content}:
            raise Violation(f"I11: {job_text(job)} is refused, and its key was never used for anything else")
        if receipt.error is not None:
            if receipt.error.definite:
                self._refuse(encode_spec(spec), receipt.error.detail)
            return
        if job in self.excused or (job, content) in self._unclaimed:
            return
        for node in receipt.nodes:
            record = self._disks[node].record(job) if node in self._disks else None
            if record is not None and record.claimed and _content(record) != content:
                raise Violation(
                    f"I11: {job_text(job)} was acknowledged for {content}, and is {_content(record)}'s"
                )

    def _refuse(self, blob: bytes, why: str) -> None:
        spec = decode_spec(blob)
        if blob in self.lives[spec.id]:
            raise Violation(f"P5: a submission of {job_text(spec.id)} is on a disk, but was refused: {why}")
        self._refused[blob] = why

    def content(self, job: JobId) -> str:
        """What the key is used for, as far as that was decided; else what stands in any copy."""
        decision = self._decisions.get(job)
        if decision is not None and job not in self.excused:
            return decision.content
        records = (disk.record(job) for disk in self._disks.values())
        return next(_content(record) for record in records if record is not None)

    def started(self, job: JobId, blob: bytes) -> None:
        if blob in self._refused:
            raise Violation(f"P5: {job_text(job)} starts as a submission that was refused")

    def ordered(self, node: NodeId, record: Record) -> None:
        """`node` wants this stored: if it says for whom the key is, that is decided by now."""
        if is_keyed(record.id) and record.claimed:
            self._view(node, record)

    def _view(self, node: NodeId, record: Record) -> tuple[frozenset[NodeId], bool]:
        """Who existed when this node first knew of a decision, and whether it knew of all those: the disk may
        take long. (Found by seed 7982.)"""
        key = record.id, node, _content(record), _first_holders(record)
        if key not in self._known:
            members = frozenset(self.members())
            self._known[key] = members, members <= set(self.known_to(node))
        return self._known[key]

    def durable(self, node: NodeId, record: Record) -> None:
        """This is on the disk of `node` now."""
        job = record.id
        if not is_keyed(job):
            return
        if record.spec in self._refused:
            raise Violation(f"P5: {short(node)} has {job_text(job)} as a submission that was refused")
        if not is_marker(record):
            self.lives[job].add(record.spec)
        if record.claimed:
            self._claimed(node, record)
        else:
            self._unclaimed.add((job, _content(record)))

    def _claimed(self, node: NodeId, record: Record) -> None:
        job, content = record.id, _content(record)
        holders = _first_holders(record)
        members, knew_all = self._view(node, record)
        first_come = self._first_come(job, content, record.holders)
        first = self._decisions.setdefault(job, Decision(content, holders, members, knew_all, first_come))
        same_holders = not (first.holders and holders) or first.holders == holders
        if (first.content == content and same_holders) or job in self.excused:
            return
        must_meet = first.knew_all and knew_all and _must_meet(first, members)
        if self.is_faultless or (must_meet and not self._is_gone(job, first)):
            raise Violation(
                f"I11: the key of {job_text(job)} is {first.content}'s with {[*map(short, first.holders)]}, "
                f"and {content}'s with {[*map(short, holders)]}, as {short(node)} has it"
            )
        self.excused.add(job)

    def _first_come(self, job: JobId, content: str, holders: tuple[NodeId, ...]) -> frozenset[NodeId]:
        """Whose disks have accepted this use as that of who came first; none if one has under a ballot."""
        rows = {node: row for node, disk in self._disks.items() if (row := disk.claim_rows.get(job))}
        accepted = {node: row.accepted for node, row in rows.items() if row.use == KeyUse(holders, content)}
        has_ballot = any(ballot != NO_BALLOT for ballot in accepted.values())
        return frozenset() if has_ballot else frozenset(accepted)

    def _is_gone(self, job: JobId, first: Decision) -> bool:
        """Whether no disk has the job any more for which its key was decided first."""
        copies = (record for disk in self._disks.values() if (record := disk.record(job)) is not None)
        return not any(
            copy.claimed and _content(copy) == first.content and (copy.epoch or copy.holders == first.holders)
            for copy in copies
        )


def submission_of(record: Record) -> tuple[Wall, str]:
    """Which submission of its key a copy is of; also of a marker."""
    return decode_spec(record.spec).submitted_at, _content(record)


def _content(record: Record) -> str:
    return decode_spec(record.spec).options.fingerprint


def _first_holders(record: Record) -> tuple[NodeId, ...]:
    """() if they have changed since."""
    return record.holders if not record.epoch else ()


def _must_meet(first: Decision, after: frozenset[NodeId]) -> bool:
    """Whether any majority of those after finds what was decided before."""
    before = first.members
    staying = majority_of(len(before)) - len(before - after)
    if staying + majority_of(len(after)) <= len(after):
        return False
    # Those whom a majority does not hear may all have said so: with them it must be enough.
    return not first.first_come or len(first.first_come & after) >= fast_quorum_of(len(after))
