"""The simplest core that keeps every promise: each node holds its own jobs, and nobody else's.

Not the product: a stand-in that shows the simulator at work, and that tests can spoil in one line.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edgenode.core.errors import EdgeNodeError, NotReady, Undecided
from edgenode.core.job_bytes import decode, encode
from edgenode.core.jobs import (
    Note,
    Record,
    decided,
    failed_once,
    fallen_due,
    lost,
    new_record,
    settled,
    started,
    taken_over,
)
from edgenode.core.settings import Settings
from edgenode.core.signals import (
    Address,
    Archive,
    Booted,
    Burst,
    CancelAsked,
    CancelDone,
    ClockRead,
    Effect,
    Event,
    InspectAsked,
    InspectDone,
    LinkUp,
    MessageArrived,
    Peers,
    Persist,
    QueueAsked,
    QueueDone,
    ReadAsked,
    ReadDone,
    Receipt,
    ReportsAsked,
    ReportsDone,
    Row,
    Run,
    RunEnded,
    SearchAsked,
    SearchDone,
    Send,
    StopRun,
    StoredRow,
    StoreRecovered,
    StoreRefused,
    SubmitAsked,
    SubmitDone,
)
from edgenode.core.situations import Situation
from edgenode.core.specs import decode_spec, encode_spec, start_by
from edgenode.core.types import (
    NOBODY,
    TERMINAL,
    Ballot,
    Delivery,
    Dice,
    Instant,
    JobId,
    Load,
    MemberInfo,
    MemberState,
    NodeId,
    State,
    Word,
)
from edgenode.core.wire import Copies, QueueItem, Read, Rumour, Sync


@dataclass
class Reading:
    asked: ReadAsked
    until: Instant
    found: dict[JobId, Record] = field(default_factory=dict)


class Loner:
    def __init__(
        self,
        info: MemberInfo,
        settings: Settings,
        archive: Archive,
        dice: Dice,
        *,
        expects_peers: bool = False,
        knows_peers: bool = False,
    ) -> None:
        self.me = info.id
        self.info = info
        self.archive = archive
        self.jobs: dict[JobId, Record] = {}
        self.rumour = Rumour(info, 0, MemberState.READY, NOBODY)
        self.known: dict[NodeId, Rumour] = {}
        self.readings: dict[int, Reading] = {}
        self.wall = 0.0
        self.read_at = 0.0
        self.now = 0.0
        self.effects: list[Effect] = []
        self.reached: set[Situation] = set()
        self.storing = True

    has_vote = True

    def remembers(self, node: NodeId) -> tuple[Word, ...]:
        return ()

    def deadline(self) -> Instant:
        until = [reading.until for reading in self.readings.values()]
        until += [self._instant(job.own.due_at) for job in self.jobs.values() if job.state is State.SCHEDULED]
        return min(until, default=float("inf"))

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        if isinstance(event, Burst):
            return [effect for each in event.events for effect in self.handle(each, now)]
        self.now, self.effects = now, []
        match event:
            case ClockRead(wall):
                self.wall, self.read_at = wall, now
            case Booted(rows):
                self._load(rows)
            case StoreRefused():
                self._resign()
            case StoreRecovered(boot, rows):
                self.info, self.storing = self.info._replace(boot=boot), True
                self._load(rows)
            case LinkUp(peer):
                self.effects.append(Send(peer, Sync(True, Load(), (self.rumour, *self.known.values()))))
            case MessageArrived(source, Sync(rumours=rumours)):
                self._meet(source, rumours)
            case SubmitAsked():
                self._submit(event)
            case RunEnded():
                self._ended(event)
            case ReadAsked():
                self.readings[event.request] = reading = Reading(event, now + event.timeout_s)
                self._see(reading, [decode(row.blob) for row in self.archive.get(event.jobs).values()])
                self.effects += [
                    Send(peer, Read(event.request, event.jobs, False)) for peer in sorted(self.known)
                ]
            case SearchAsked(request):
                self.effects.append(SearchDone(request, tuple(self.jobs.values()), b"", ()))
            case MessageArrived(source, Read(jobs=jobs)):
                have = tuple(row.blob for row in self.archive.get(jobs).values())
                self.effects.append(Send(source, Copies(have)))
            case MessageArrived(_, Copies(records=records)):
                for reading in list(self.readings.values()):
                    self._see(reading, list(map(decode, records)))
            case InspectAsked(request):
                self.effects.append(InspectDone(request, {}))
            case CancelAsked(request):
                self.effects.append(CancelDone(request, ()))  # it runs what it runs
            case QueueAsked(request, queue):
                item = QueueItem(queue, 1, self.me, False, 0, 0.0, 0)
                self.effects.append(QueueDone(request, item, 0, 1))  # which nobody knows of
            case ReportsAsked(request):
                self.effects.append(ReportsDone(request, (), ()))
        self._catch_up()
        return self.effects

    def _resign(self) -> None:
        """The disk refuses: nothing that was remembered is so."""
        for job, record in self.jobs.items():
            if record.state is State.RUNNING:
                self.effects.append(StopRun(job, record.own.token, "its disk refuses"))
        self.jobs.clear()
        self.storing = False

    def _meet(self, source: NodeId, rumours: tuple[Rumour, ...]) -> None:
        """Know everybody that the other knows, and tell everybody of everybody new."""
        news = {each.info.id: each for each in rumours if each.info.id not in {self.me, *self.known}}
        self.known.update(news)
        if news:
            told = tuple(Address(peer, 0, each.info.addresses, True) for peer, each in news.items())
            self.effects.append(Peers(told))
            everybody = Sync(True, Load(), (self.rumour, *self.known.values()))
            self.effects += [Send(peer, everybody) for peer in sorted(self.known)]

    def _instant(self, wall: float) -> Instant:
        return self.read_at + (wall - self.wall)

    def _today(self) -> float:
        return self.wall + (self.now - self.read_at)

    def _save(self, record: Record) -> None:
        self.jobs[record.id] = record
        row = Row(record.id, encode(record), None)
        stored = StoredRow(row, record.owner, record.settled, record.state, "sim", "default")
        self.effects.append(Persist((stored,)))

    def _submit(self, asked: SubmitAsked) -> None:
        receipts = []
        for spec in asked.specs:
            if not self.storing or (spec.options.run_at > 0 and not self.wall):
                receipts.append(Receipt(spec.id, (), NotReady("no disk, or no clock yet")))
                continue
            due = spec.options.run_at
            self._save(new_record(encode_spec(spec), spec.id, (self.me,), due, self._today()))
            receipts.append(Receipt(spec.id, (self.me,), None))
        self.effects.append(SubmitDone(asked.request, tuple(receipts)))

    def _load(self, rows: tuple[Row, ...]) -> None:
        for row in rows:
            record = taken_over(
                decode(row.blob),
                Ballot(decode(row.blob).ballot.term + 1, self.me),
                Note(0.0, "restart", self.me, ""),
            )
            if record.outcome is not None:
                self._end(record, record.outcome.state)
            elif record.state is State.RUNNING:
                self._lose(record)
            else:
                self._save(record)

    def _lose(self, record: Record) -> None:
        said = decode_spec(record.spec).options
        after = lost(record, counted=True, note=Note(self._today(), "lost", self.me, ""))
        if said.delivery is Delivery.AT_MOST_ONCE or len(after.losses) > said.max_losses:
            self._end(after, State.FAILED)
        else:
            self._save(after)

    def _end(self, record: Record, state: State, result: bytes = b"", *, failed: bool = False) -> None:
        token = record.own.token
        if record.outcome is None:
            self._save(
                decided(
                    record,
                    state,
                    firm=True,
                    at=self._today(),
                    result=result,
                    token=token,
                    runner=self.me,
                    failed=failed,
                )
            )
        else:
            outcome = record.outcome._replace(ballot=record.ballot, settled=False)
            self._save(record._replace(outcome=outcome))
        self._save(settled(self.jobs[record.id]))

    def _ended(self, event: RunEnded) -> None:
        record = self.jobs.get(event.job)
        if record is None or record.own.token != event.token:
            return
        said = decode_spec(record.spec).options
        if event.lost:
            self._lose(record)
        elif event.verdict.state in (State.SUCCEEDED, State.CANCELLED):
            self._end(record, event.verdict.state, event.verdict.result)
        elif record.failure_count + 1 >= said.max_attempts:
            self._end(record, State.FAILED, failed=True)
        else:
            due = self._today() + said.backoff.base_s
            self._save(failed_once(record, due_at=due, note=Note(self._today(), "raised", self.me, "")))

    def _see(self, reading: Reading, records: list[Record]) -> None:
        for record in records:
            wanted = record.id in reading.asked.jobs
            if wanted and (record.settled or record.state not in TERMINAL):
                reading.found[record.id] = record
        done = all(job in reading.found for job in reading.asked.jobs)
        if done or self.now >= reading.until:
            del self.readings[reading.asked.request]
            missing = set(reading.asked.jobs) - set(reading.found)
            errors: dict[JobId, EdgeNodeError] = {job: Undecided("not here") for job in sorted(missing)}
            self.effects.append(ReadDone(reading.asked.request, reading.found, errors))

    def _catch_up(self) -> None:
        for reading in list(self.readings.values()):
            if self.now >= reading.until:
                self._see(reading, [])
        for record in list(self.jobs.values()):
            if record.state is State.SCHEDULED and self._instant(record.own.due_at) <= self.now:
                self._save(fallen_due(record))
        for record in list(self.jobs.values()):
            running = sum(job.state is State.RUNNING for job in self.jobs.values())
            if record.state is State.QUEUED and running < self.info.slots:
                at, spec = self._today(), decode_spec(record.spec)
                if at >= start_by(spec):
                    self._end(record, State.EXPIRED)
                    continue
                after = started(record, runner=self.me, boot=self.info.boot, at=at)
                self._save(after)
                self.effects.append(Run(record.id, after.own.token, spec, record.failure_count + 1))
