"""Reads of local clients: the owner or the holders are asked first, then all. And what others ask this node.

"No such job" needs a no from every known member. Who waits for the end of a job is told of it by whoever owns
it, or asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from edgenode.core.desk import Desk
from edgenode.core.errors import EdgeNodeError, JobNotFound, Undecided
from edgenode.core.followers import Followers
from edgenode.core.job_bytes import encode
from edgenode.core.job_ids import job_text
from edgenode.core.jobs import Record
from edgenode.core.joining import join
from edgenode.core.post import WRITE_BYTES, pieces_of
from edgenode.core.signals import ReadAsked, ReadDone, RequestId
from edgenode.core.situations import Situation
from edgenode.core.types import FOREVER, Instant, JobId, NodeId
from edgenode.core.view import unreachable
from edgenode.core.wire import HeldItem, Read, ReadAnswer

READS_MISSED: Final = 5
"""So many times in a row a reader that waits may fail to ask again, before nobody tells it anything."""


@dataclass(slots=True)
class OpenRead:
    """Of several jobs, for a local client."""

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
    held: dict[JobId, str] = field(default_factory=dict)  # behind which gate, as other owners said last
    asking: set[JobId] = field(default_factory=set)
    is_unsure: bool = False  # somebody who was asked knows members that this node does not
    ended: dict[JobId, Instant] = field(default_factory=dict)  # since when a job is seen finished


class Reading:
    """Drive it with local requests, messages, changes and time; it answers through the desk."""

    def __init__(self, desk: Desk, held_at: Callable[[JobId], str]) -> None:
        """
        Args:
            held_at: behind which shut gate a job waits here; "" for none.
        """
        self._desk = desk
        self._held_at = held_at
        self._table = desk.table
        self._reread_s = 2 * desk.settings.retry_s  # when a read that waits asks again
        self._reads: dict[RequestId, OpenRead] = {}
        self._followers = Followers(READS_MISSED * self._reread_s)  # told when a job ends
        self._unreachable_now: list[NodeId] | None = None  # until members change
        self._wake: Instant = FOREVER

    def read(self, event: ReadAsked) -> None:
        desk = self._desk
        wait_until = desk.now + event.wait_s
        reading = OpenRead(
            event.jobs,
            dict.fromkeys(event.jobs),
            wait_until,
            max(wait_until, desk.now + event.timeout_s),
            desk.now + desk.settings.retry_s,
        )
        self._reads[event.request] = reading
        self._look_at_own_copies(reading)
        self._ask_around(event.request, reading)
        self._settle(event.request, reading)
        self._wake = min(self._wake, reading.again_at, reading.ends_at)

    def _look_at_own_copies(self, reading: OpenRead) -> None:
        """What this node has of the jobs now. It answers like any other holder."""
        self._take_records(reading, self._desk.me, list(self._table.get_many(tuple(reading.open)).values()))
        for job in reading.open:
            if self._desk.leading(job):
                self._mark_owned(reading, job)

    def _mark_owned(self, reading: OpenRead, job: JobId) -> None:
        lead = self._table.lead(job)
        reading.owned[job] = None
        if lead is not None and lead.firm:
            reading.firm.add(job)

    def _ask_around(self, request: RequestId, reading: OpenRead) -> None:
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

    def _ask_anew(self, request: RequestId, reading: OpenRead) -> None:
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
        if self._unreachable_now is None:
            self._unreachable_now = unreachable(desk.view)
        unsure = bool(self._unreachable_now)
        blobs = [encode(record) for record in known.values()]
        pieces = list(pieces_of(blobs, WRITE_BYTES, desk.settings.batch))
        shown = iter(known)
        for number, piece in enumerate(pieces, 1):
            last = number == len(pieces)
            gates = ((job, self._held_at(job)) for job in islice(shown, len(piece)))
            held = tuple(HeldItem(job, gate) for job, gate in gates if gate)
            answer = ReadAnswer(message.request, tuple(piece), owned, firm, soon, missing, unsure, last, held)
            desk.post.send(source, answer)

    def on_read_answer(self, source: NodeId, message: ReadAnswer) -> None:
        request = RequestId(message.request)
        reading = self._reads.get(request)
        if reading is None:
            return
        if message.last:
            reading.silent.discard(source)
        records = [record for blob in message.records if (record := self._desk.read(blob)) is not None]
        self._take_records(reading, source, records)
        reading.owned.update(dict.fromkeys(message.owned))
        reading.firm.update(message.firm)
        for job in {record.id for record in records}.intersection(message.owned):
            reading.held.pop(job, None)
        reading.held.update(message.held)
        reading.asking.update(message.asking)
        reading.is_unsure |= message.unsure
        for job in message.missing:
            reading.denied.setdefault(job, set()).add(source)
        self._settle(request, reading)

    def _take_records(self, reading: OpenRead, source: NodeId, records: Sequence[Record]) -> None:
        for record in records:
            before = reading.found.get(record.id)
            # Only for showing: what a reader merges is never stored, and acknowledges nothing.
            reading.found[record.id] = record if before is None else join(before, record)

    def _settle(self, request: RequestId, reading: OpenRead) -> None:
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
            self._answer(request, reading)
            return
        unknown = [job for job in reading.open if job not in reading.found]
        if unknown and not reading.silent and not reading.everyone:
            reading.everyone = True
            self._ask_around(request, reading)
        if unknown and not reading.silent and reading.everyone:
            self._answer(request, reading)

    def _answer(self, request: RequestId, reading: OpenRead) -> None:
        """End a read with what was found; the rest is missing for sure, or cannot be known now."""
        desk = self._desk
        del self._reads[request]
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
        here = {job: gate for job in reading.found if (gate := self._held_at(job))}
        firm, held = frozenset(reading.firm), reading.held | here
        desk.emit(ReadDone(request, reading.found, errors, firm, held))

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
                reading = self._reads.get(RequestId(request))
                if reading is not None:
                    self._take_records(reading, desk.me, ended)
                    self._settle(RequestId(request), reading)
            else:
                blobs = [encode(record) for record in ended]
                for piece in pieces_of(blobs, WRITE_BYTES, desk.settings.batch):
                    answer = ReadAnswer(request, tuple(piece), (), (), (), (), False, False)
                    desk.post.send(node, answer)

    # ----------------------------------------------------------------------------- members and time

    def close(self) -> None:
        """The node ends: tell every local client what is known now."""
        for request, reading in list(self._reads.items()):
            self._answer(request, reading)

    def disown(self) -> None:
        """The disk refused a write: what was read here is read anew, and not of what was in memory."""
        desk, now = self._desk, self._desk.now
        self._followers.keep_only(desk.me)
        for reading in self._reads.values():
            reading.open = dict.fromkeys(reading.jobs)
            for place in (reading.found, reading.owned, reading.firm, reading.asking, reading.ended):
                place.clear()
            reading.again_at = now
        self._wake = now

    def dropped(self, request: RequestId) -> None:
        """The client went away."""
        self._reads.pop(request, None)
        self._followers.drop((self._desk.me, request))

    def members_changed(self, changed: frozenset[NodeId]) -> None:
        """Do not wait for the dead."""
        self._unreachable_now = None
        dead = {node for node in changed if not self._desk.view.is_living(node)}
        for request, reading in list(self._reads.items()):
            gone = reading.silent & dead
            if gone:
                reading.silent -= gone
                self._ask_anew(request, reading)
                self._settle(request, reading)
        self._followers.drop_nodes(dead)

    def deadline(self) -> Instant:
        return self._wake

    def on_time(self) -> None:
        if self._wake > self._desk.now:
            return
        self._wake = FOREVER
        for request, reading in list(self._reads.items()):
            self._look(request, reading)

    def _look(self, request: RequestId, reading: OpenRead) -> None:
        now = self._desk.now
        self._look_at_own_copies(reading)
        if reading.ends_at <= now:
            self._answer(request, reading)
            return
        if reading.wait_until <= now:
            self._settle(request, reading)  # it was waited for long enough
            if request not in self._reads:
                return
        if reading.again_at <= now:
            self._ask_around(request, reading)  # an answer, or a follower's note, can be lost
            reading.again_at = now + self._reread_s
            self._settle(request, reading)
        ends = [reading.again_at, reading.ends_at]
        if reading.wait_until > now:
            ends.append(reading.wait_until)
        self._wake = min(self._wake, *ends)
