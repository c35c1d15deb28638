"""A node in memory behind the API's port, and a real HTTP server around it."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from aiohttp.web import TCPSite

from edgenode.api.app import make_app, make_runner
from edgenode.api.service import TaskSchema
from edgenode.core import job_ids, jobs, signals, wire
from edgenode.core.errors import (
    EdgeNodeError,
    InvalidJob,
    JobNotFound,
    KeyReused,
    NodeAway,
    NodeNotFound,
    NotReady,
    Undecided,
)
from edgenode.core.queues import is_reset
from edgenode.core.specs import Spec, decode_spec, encode_spec
from edgenode.core.types import (
    Backoff,
    Drain,
    JobId,
    Load,
    MemberInfo,
    MemberState,
    NodeId,
    StartToken,
    State,
    next_boot,
)
from edgenode.core.view import MemberView, MeshView, QueueChange

NODES = tuple(NodeId(letter * 16) for letter in "abcde")
START = 1_900_000_000.0


class Resize:
    """A task with parameters: `source` is a text, `width` a number."""

    timeout_s = 30.0
    max_attempts = 7
    backoff = Backoff("constant", 2.0, 60.0)
    summary = "Make a picture smaller."
    inline = False

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "required": ["source", "width"], "properties": {"source": {}, "width": {}}}

    def read(self, payload: object) -> object:
        assert isinstance(payload, dict)
        for name, kind in (("source", str), ("width", int)):
            if name not in payload:
                raise InvalidJob(f"the parameter {name} is missing", field=name)
            if not isinstance(payload[name], kind):
                raise InvalidJob(f"the parameter {name} is of the wrong type", field=name)
        for name in payload:
            if name not in ("source", "width"):
                raise InvalidJob("there is no such parameter", field=name)
        return payload


class FakeService:
    """Stores what it is given. `instant` ends each job as it comes; `refuse` is raised by each submission,
    `receipt_error` by each job; `patient=False` ends every wait at once."""

    me = NODES[0]

    def __init__(self, *, instant: bool = False, patient: bool = True) -> None:
        self.instant = instant
        self.patient = patient
        self.refuse: EdgeNodeError | None = None
        self.refuse_once: EdgeNodeError | None = None
        self.receipt_error: EdgeNodeError | None = None
        self.crash: Exception | None = None
        self.reasons: list[str] = []
        self.damages: list[str] = []
        self.silent: set[NodeId] = set()
        self.schemas: dict[str, TaskSchema] = {"image.resize": Resize()}
        self.described: list[tuple[set[str], float]] = []  # what was asked about tasks, and for how long
        self.regulated: list[tuple[NodeId, wire.Wish]] = []
        self.drains: dict[NodeId, Drain] = {}
        self.weights: dict[NodeId, float] = {}
        self.reluctance = 0  # how often a draining member is looked at before it is drained
        self.records: dict[JobId, jobs.Record] = {}
        self.said: list[wire.Said] = []
        self.reports_error: EdgeNodeError | None = None
        self.reports_asked: list[tuple[Sequence[NodeId], bool]] = []  # (of whom, brief)
        self.submissions: list[tuple[int, ...]] = []  # the `acks` of the jobs of each call
        self.waits: list[float] = []
        self.wishes: list[JobId] = []  # cancels that came
        self.deaf = False  # nobody notes a cancel
        self.items: dict[str, wire.QueueItem] = {}
        self.counts: dict[str, tuple[int, int]] = {}
        self.left_out = 0
        self.held: dict[JobId, str] = {}  # behind which gate
        self.known = 3  # of three members that live
        self.queue_error: EdgeNodeError | None = None
        self.stubborn = False  # cancels are noted, and the jobs go on
        self._numbers = itertools.count(1)
        self._news = asyncio.Condition()

    # ------------------------------------------------------------------------------------------ the port

    async def submit(self, specs: Sequence[Spec], *, timeout_s: float) -> tuple[signals.Receipt, ...]:
        self.submissions.append(tuple(spec.options.acks for spec in specs))
        if self.crash is not None:
            raise self.crash
        if self.refuse_once is not None:
            refusal, self.refuse_once = self.refuse_once, None
            raise refusal
        if self.refuse is not None:
            raise self.refuse
        receipts = []
        for spec in specs:
            if self.receipt_error is not None:
                receipts.append(signals.Receipt(spec.id, (), self.receipt_error))
                continue
            holders = self.rank(spec.id)[:3]
            if spec.id in self.records:
                before = decode_spec(self.records[spec.id].spec).options.fingerprint
                error = None if before == spec.options.fingerprint else KeyReused("another had this key")
                receipts.append(signals.Receipt(spec.id, holders[:2] if error is None else (), error, True))
                continue
            record = jobs.new_record(encode_spec(spec), spec.id, holders, spec.options.run_at, self.wall())
            self.records[spec.id] = record
            if self.instant:
                self._end(spec.id, State.SUCCEEDED, b'{"echo":' + spec.payload + b"}", "")
            receipts.append(signals.Receipt(spec.id, holders[:2], None))
        return tuple(receipts)

    async def read(self, jobs_: Sequence[JobId], *, wait_s: float, timeout_s: float) -> signals.ReadDone:
        self.waits.append(wait_s)
        if wait_s > 0 and self.patient:
            try:
                async with asyncio.timeout(wait_s), self._news:
                    await self._news.wait_for(
                        lambda: all(job in self.records and self.records[job].settled for job in jobs_)
                    )
            except TimeoutError:
                pass
        found = {job: self.records[job] for job in jobs_ if job in self.records}
        unfound = Undecided("not heard: some") if self.silent else JobNotFound("no member knows this job")
        errors: dict[JobId, EdgeNodeError] = {job: unfound for job in jobs_ if job not in self.records}
        return signals.ReadDone(signals.RequestId(0), found, errors, frozenset(found), self.held)

    async def search(self, query: wire.Query, *, timeout_s: float) -> signals.SearchDone:
        after = query.after or b"\xff" * 16
        matching = []
        for job in sorted(self.records, reverse=True):
            record = self.records[job]
            spec = decode_spec(record.spec)
            if (
                job < after
                and query.state in ("", record.state)
                and query.task in ("", spec.task)
                and query.queue in ("", spec.options.queue)
            ):
                matching.append(record)
        page = matching[: query.limit]
        onward = page[-1].id if len(matching) > len(page) else b""
        silent = tuple(sorted(self.silent))
        return signals.SearchDone(signals.RequestId(0), tuple(page), onward, silent, self.held)

    async def inspect(self, job: JobId, *, timeout_s: float) -> signals.InspectDone:
        copies = {node: self.records.get(job) for node in self.rank(job)[:3] if node not in self.silent}
        return signals.InspectDone(signals.RequestId(0), copies)

    async def reports(
        self, job: JobId, *, nodes: Sequence[NodeId], brief: bool, timeout_s: float
    ) -> signals.ReportsDone:
        self.reports_asked.append((nodes, brief))
        if self.reports_error is not None:
            raise self.reports_error
        items = tuple(each for each in self.said if each.job == job)
        return signals.ReportsDone(signals.RequestId(0), items, tuple(sorted(self.silent)))

    async def cancel(
        self, wishes: Sequence[tuple[JobId, tuple[NodeId, ...]]], *, timeout_s: float
    ) -> signals.CancelDone:
        asked = tuple(job for job, _ in wishes)
        self.wishes += asked
        if self.deaf:
            return signals.CancelDone(signals.RequestId(0), ())
        for job in asked:
            if not self.stubborn:
                await self.end(job, State.CANCELLED, b"", "somebody asked for it")
        return signals.CancelDone(signals.RequestId(0), asked)

    async def regulate(self, node: NodeId, wish: wire.Wish, *, timeout_s: float) -> MemberInfo:
        if node not in NODES:
            raise NodeNotFound(f"no member has the id {node}", field="id")
        if node in self.silent:
            raise NodeAway(f"the member {node} is dead")
        self.regulated.append((node, wish))
        match wish.change:
            case wire.Change.DRAIN:
                self.drains[node] = Drain.DRAINING
            case wire.Change.UNDRAIN:
                self.drains[node] = Drain.NO
            case wire.Change.WEIGHT:
                self.weights[node] = wish.value
        return next(member.info for member in self._members() if member.info.id == node)

    def queues(self) -> Sequence[wire.QueueItem]:
        return [self.items[name] for name in sorted(self.items) if not is_reset(self.items[name])]

    async def count_queues(self, *, timeout_s: float) -> signals.CountDone:
        return signals.CountDone(signals.RequestId(0), self.counts, tuple(sorted(self.silent)), self.left_out)

    async def change_queue(self, queue: str, change: QueueChange, *, timeout_s: float) -> signals.QueueDone:
        if self.queue_error is not None:
            return signals.QueueDone(signals.RequestId(0), None, 0, 0, self.queue_error)
        before = self.items.get(queue) or wire.QueueItem(queue, 0, self.me, False, 0, 0.0, 0)
        said = {name: value for name, value in change._asdict().items() if value is not None}
        item = self.items[queue] = before._replace(version=before.version + 1, **said)
        return signals.QueueDone(signals.RequestId(0), item, self.known, 3)

    def members(self) -> Sequence[MemberView]:
        for node in [node for node, drain in self.drains.items() if drain]:
            self.reluctance -= 1
            if self.reluctance < 0:
                self.drains[node] = Drain.DRAINED
        return self._members()

    def _members(self) -> Sequence[MemberView]:
        return [
            MemberView(
                MemberInfo(
                    node, f"node-{node[0]}", next_boot(0, 7), (("127.0.0.1", 9701 + place),),
                    f"http://127.0.0.1:{8701 + place}", "0.1.0", self.weights.get(node, 1.0), 2,
                    (("zone", "x"),), ("echo", "image.resize"), START, not self.drains.get(node),
                    drain=self.drains.get(node, Drain.NO),
                ),
                MemberState.DEAD if node in self.silent else MemberState.READY,
                Load(owned=1, queued=2, running=3, done=4, free=5, taken=6),
                None if node == self.me else 0.25,
            )
            for place, node in enumerate(NODES)
        ]  # fmt: skip

    def mesh(self) -> MeshView:
        return MeshView("m" * 16, "node-a", "0.1.0", 12.5, 3)

    def metrics(self) -> bytes:
        return b"# TYPE edgenode_ready gauge\nedgenode_ready 1.0\n"

    def rank(self, job: JobId) -> tuple[NodeId, ...]:
        return tuple(node for node in NODES if node not in self.silent)

    def new_job_id(self) -> JobId:
        return job_ids.make_job_id(START, (next(self._numbers) << 16).to_bytes(10, "big"))

    def wall(self) -> float:
        return START

    def known_tasks(self) -> frozenset[str]:
        return frozenset({"echo", "image.resize"})

    async def task_schemas(self, names: Collection[str], *, timeout_s: float) -> Mapping[str, TaskSchema]:
        self.described.append((set(names), timeout_s))
        return {name: self.schemas[name] for name in names if name in self.schemas}

    def readiness(self) -> Sequence[str]:
        return self.reasons

    def damage(self) -> Sequence[str]:
        return self.damages

    is_leaving = False

    def refusal(self) -> EdgeNodeError | None:
        return NotReady("; ".join(self.reasons), reasons=list(self.reasons)) if self.reasons else None

    # ----------------------------------------------------------------------------------- what tests do

    def run(self, job: JobId) -> StartToken:
        """Start it, on this node."""
        running = jobs.started(self.records[job], runner=self.me, boot=1, at=START + 1)
        self.records[job] = running
        return running.own.token

    async def end(
        self, job: JobId, state: State = State.SUCCEEDED, result: bytes = b"1", error: str = ""
    ) -> None:
        async with self._news:
            self._end(job, state, result, error)
            self._news.notify_all()

    def _end(self, job: JobId, state: State, result: bytes, error: str) -> None:
        record = self.records[job]
        if record.state is State.SCHEDULED:
            record = jobs.fallen_due(record)
        running = record
        if record.own.state is not State.RUNNING:
            running = jobs.started(record, runner=self.me, boot=1, at=START + 1)
        ended = jobs.decided(
            running, state, firm=True, at=START + 2, result=result, error=error, runner=self.me
        )
        self.records[job] = jobs.settled(ended)


class Served:
    """A fake node behind a real port, in a thread of its own, for clients that block."""

    def __init__(self, service: FakeService, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self.service = service
        self.url = url
        self.loop = loop

    def end(self, job: str, state: State = State.SUCCEEDED, error: str = "") -> None:
        parsed = job_ids.parse_job_id(job)
        assert parsed is not None
        ending = self.service.end(parsed, state, error=error)
        asyncio.run_coroutine_threadsafe(ending, self.loop).result(5)


@contextmanager
def served(service: FakeService) -> Iterator[Served]:
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    started: list[Served] = []

    async def serve() -> None:
        runner = make_runner(make_app(service))
        await runner.setup()
        try:
            await TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            started.append(Served(service, f"http://{host}:{port}", loop))
            ready.set()
            await stop.wait()
        finally:
            await runner.cleanup()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
