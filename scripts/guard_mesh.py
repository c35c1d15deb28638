"""Three production nodes in one process and in lock step, without sockets: the same work costs the same.

What is real: the core, the wire's codec and packets, the store with its writer thread and its SQLite file,
the reading of submissions and the writing of answers. What is not: HTTP, TLS, the event loop, worker
processes, and time. In each turn every node takes what has come in, its disk takes what that ordered to be
written, and only then all else that was ordered happens. So nothing depends on which thread was quicker.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from heapq import heappop, heappush
from itertools import count, cycle
from pathlib import Path
from random import Random
from typing import Final, NamedTuple, cast

import bench_tasks
from bench_load import document, why_not_good

from edgenode.api import render
from edgenode.api.service import Service
from edgenode.api.specs import SpecMaker, parse_json
from edgenode.core import bursts
from edgenode.core.job_ids import make_job_id
from edgenode.core.node import Node
from edgenode.core.settings import Settings
from edgenode.core.signals import (
    Booted,
    ClockRead,
    Effect,
    Event,
    LinkUp,
    MessageArrived,
    Persist,
    Persisted,
    ReadAsked,
    ReadDone,
    RequestId,
    Run,
    RunEnded,
    SearchHere,
    Send,
    StopRun,
    SubmitAsked,
    SubmitDone,
    TimePassed,
)
from edgenode.core.types import Instant, JobId, MemberInfo, NodeId, Seconds, State, Wall
from edgenode.core.view import MeshView
from edgenode.core.wire import CONTROL, Verdict, decode, encode
from edgenode.shell.link import DEFAULTS, Outbox, split
from edgenode.shell.store import Store
from edgenode.task import Registry

NODES: Final = tuple(NodeId(letter * 16) for letter in "abc")
BOOT: Final = 1
TASK: Final = "bench.echo"
PAYLOAD_BYTES: Final = 100
ASYNC_SLOTS: Final = 100
"""As `edgenode run` has it."""
WALL: Final[Wall] = 1_700_000_000.0
TICK_S: Final[Seconds] = 0.001
"""How long a turn takes: about as long as one of a busy node with a quick disk."""
CLOCK_S: Final[Seconds] = 1.0
FORM_S: Final[Seconds] = 30.0
REST_S: Final[Seconds] = 0.2
"""After the last result was read: all holders are yet to be told that all are settled, and to write it."""
SETTLE_S: Final[Seconds] = 10.0
"""After they have met, members look through what they have for each other. It is no part of a job's cost."""
SUBMIT_S: Final[Seconds] = 10.0
WAIT_S: Final[Seconds] = 30.0
LISTENING: Final = (("127.0.0.1", 9700),)


class Plan(NamedTuple):
    """What clients do. Each waits for the results of its jobs before it sends more."""

    clients: int
    jobs: int
    batch: int = 0  # jobs in a request; 0 for a single object
    lasts_s: Seconds = 0.0  # of each start


class WorkFailed(AssertionError):
    """A job of the workload was not taken, or did not give back what was sent."""


Answer = SubmitDone | ReadDone
Client = Generator[RequestId, Answer, None]


class Member:
    """One node: its core, its disk, and what waits for either."""

    def __init__(self, node: NodeId, store: Store, dice: Random) -> None:
        self.id = node
        self._store = store
        self.core = Node(
            _introduction(node), Settings(), store.archive(), dice, expects_peers=True, knows_peers=True
        )
        self.inbox: deque[Event] = deque()
        self.ordered: list[Effect] = []
        self.written: Counter[str] = Counter()
        self._is_writing = False
        self._done = threading.Semaphore(0)
        self._errors: list[Exception] = []

    def take(self, now: Instant) -> None:
        """Handle all that has come in, and what is due."""
        while self.inbox:
            self.handle(bursts.take(self.inbox), now)
        if self.core.deadline() <= now:
            self.handle(TimePassed(), now)

    def handle(self, event: Event, now: Instant) -> None:
        self.written["events"] += 1
        for effect in self.core.handle(event, now):
            if isinstance(effect, Persist):
                self.written["persists"] += 1
                self.written["rows"] += len(effect.rows)
                self.written["row_bytes"] += sum(len(stored.row.blob) for stored in effect.rows)
                self.wait()  # or chance would say which writes become one transaction
                self._is_writing = True
                self._store.commit(effect, self._committed)
                self.inbox.append(Persisted(effect.number))  # it is, before anything is taken again
            else:
                self.ordered.append(effect)

    def _committed(self, error: Exception | None) -> None:
        """From the store's thread."""
        if error is not None:
            self._errors.append(error)
        self._done.release()

    def wait(self) -> None:
        """Until the disk has what it was told to write."""
        if self._is_writing:
            self._done.acquire()
            self._is_writing = False
        if self._errors:
            raise self._errors[0]

    def sync(self) -> list[Effect]:
        """Wait for the disk; returns what may happen now."""
        self.wait()
        ordered, self.ordered = self.ordered, []
        return ordered


def _introduction(node: NodeId) -> MemberInfo:
    return MemberInfo(
        node,
        node[:1],
        BOOT,
        addresses=LISTENING,
        api=f"http://{node}",
        version="0",
        weight=1.0,
        slots=2,
        labels=(),
        tasks=(TASK,),
        joined_at=WALL,
        ready=False,
        coroutines=(TASK,),
        async_slots=ASYNC_SLOTS,
    )


class Mesh:
    """Three members that have met. `work` carries out a plan; `counted` says what came of it so far."""

    def __init__(self, stores: Sequence[Store], seed: int = 1) -> None:
        self._dice = Random(seed)
        self._registry = Registry.of(bench_tasks.echo)
        self.members = [
            Member(node, store, Random(f"{seed} {node}")) for node, store in zip(NODES, stores, strict=True)
        ]
        self._by_id = {member.id: member for member in self.members}
        self.now: Instant = 1_000.0
        self._clock_at: Instant = self.now
        self._outboxes: dict[tuple[NodeId, NodeId, bool], Outbox] = {}
        self._ends: list[tuple[Instant, int, NodeId, RunEnded]] = []
        self._numbers = count(1)
        self._answers: dict[RequestId, Answer] = {}
        self._sent: Counter[str] = Counter()
        self._lasts_s: Seconds = 0.0
        for member in self.members:
            member.handle(ClockRead(self.wall()), self.now)
            member.handle(Booted((), (), past=()), self.now)
            for peer in NODES:
                if peer != member.id:
                    member.inbox.append(LinkUp(peer, BOOT, LISTENING[0] if peer > member.id else None))
        self._go_on(FORM_S, lambda: all(member.core.ready for member in self.members), "the nodes are ready")
        self.rest(SETTLE_S)

    # ------------------------------------------------------------------------------------------- time

    def wall(self) -> Wall:
        return WALL + self.now

    def _go_on(self, for_s: Seconds, is_so: Callable[[], object], what: str) -> None:
        ends = self.now + for_s
        while not is_so():
            if self.now > ends:
                raise WorkFailed(f"not within {for_s:.0f} simulated seconds: {what}")
            self.turn()

    def turn(self) -> None:
        """A thousandth of a second, or as long as nothing happens."""
        self.now += TICK_S
        if not any(member.inbox for member in self.members):
            due = [member.core.deadline() for member in self.members] + [at for at, *_ in self._ends[:1]]
            self.now = max(self.now, min(*due, self._clock_at))
        while self._ends and self._ends[0][0] <= self.now:
            _, _, node, ended = heappop(self._ends)
            self._by_id[node].inbox.append(ended)
        if self.now >= self._clock_at:
            self._clock_at = self.now + CLOCK_S
            for member in self.members:
                member.inbox.append(ClockRead(self.wall()))
        for member in self.members:
            member.take(self.now)
        for member in self.members:
            for effect in member.sync():
                self._carry_out(member, effect)
        self._deliver()

    def _carry_out(self, member: Member, effect: Effect) -> None:
        match effect:
            case Send(to, message):
                frame = encode(message)
                self._sent["messages"] += 1
                self._sent["message_bytes"] += len(frame)
                way = member.id, to, isinstance(message, CONTROL)
                if way not in self._outboxes:
                    self._outboxes[way] = Outbox(
                        messages_max=DEFAULTS.bulk_messages_max, bytes_max=DEFAULTS.bulk_bytes_max
                    )
                if not self._outboxes[way].put(frame, self.now):
                    raise WorkFailed(f"{member.id} has more to say to {to} than a link may have waiting")
            case Run(job, token, spec):
                result = json.dumps(json.loads(spec.payload)["message"]).encode()
                verdict = Verdict(State.SUCCEEDED, result, "", -1.0, False)
                ended = RunEnded(job, token, verdict, lost=False)
                heappush(self._ends, (self.now + self._lasts_s, next(self._numbers), member.id, ended))
            case SubmitDone(request) | ReadDone(request):
                self._answers[request] = effect
            case StopRun() | SearchHere():
                raise WorkFailed(f"nobody asked for {effect!r:.100}")
            case _:
                pass  # peers to call, what is remembered of them, news, logs

    def _deliver(self) -> None:
        for (source, to, _), outbox in self._outboxes.items():
            while len(outbox):
                for frame in split(outbox.take()):
                    self._by_id[to].inbox.append(MessageArrived(source, decode(frame), BOOT))

    # ------------------------------------------------------------------------------------------- work

    @property
    def counted(self) -> Counter[str]:
        """Events, persists, rows and their bytes, messages and theirs, of all nodes, since they began."""
        return sum((member.written for member in self.members), self._sent.copy())

    def work(self, plan: Plan) -> None:
        """Have a plan carried out, until all its results are read and nobody has more to say of it.

        Raises:
            WorkFailed: a job was not done, or not as it should be.
        """
        self._lasts_s = plan.lasts_s
        todo = iter(range(plan.jobs // max(1, plan.batch)))
        clients = [
            self._client(member, plan, todo) for member, _ in zip(cycle(self.members), range(plan.clients))
        ]
        waiting = {request: client for client in clients if (request := next(client, None)) is not None}
        while waiting:
            self._go_on(
                SUBMIT_S + WAIT_S, lambda: self._answers, f"an answer to one of {len(waiting)} clients"
            )
            for request, answer in list(self._answers.items()):
                del self._answers[request]
                client = waiting.pop(request)
                with suppress(StopIteration):
                    waiting[client.send(answer)] = client
        self.rest(REST_S)

    def rest(self, for_s: Seconds) -> None:
        """Let so much time pass without any work."""
        ends = self.now + for_s
        self._go_on(2 * for_s, lambda: self.now >= ends, "the end of a rest")

    def _client(self, entry: Member, plan: Plan, todo: Iterator[int]) -> Client:
        """Takes one request after another off `todo`; asks its node, and is sent what that answers."""
        wanted = document(PAYLOAD_BYTES, TASK)
        body = json.dumps([wanted] * plan.batch if plan.batch else wanted, separators=(",", ":")).encode()
        service = cast(Service, _Service(self, entry))
        for _ in todo:
            parsed = parse_json(body)
            maker = SpecMaker(service, self._registry)
            specs = [maker.spec(each) for each in (parsed if isinstance(parsed, list) else [parsed])]
            submitted = yield self._ask(entry, SubmitAsked(self._request(), tuple(specs), SUBMIT_S))
            assert isinstance(submitted, SubmitDone)
            for spec, receipt in zip(specs, submitted.receipts, strict=True):
                if receipt.error is not None:
                    raise WorkFailed(f"a job was not taken: {receipt.error}")
                render.submitted_body(spec, service.rank(spec.id), 3, receipt, self.wall())
            jobs = tuple(spec.id for spec in specs)
            read = yield self._ask(entry, ReadAsked(self._request(), jobs, WAIT_S, SUBMIT_S))
            assert isinstance(read, ReadDone)
            for job in jobs:
                if job not in read.records:
                    raise WorkFailed(f"a job cannot be read: {read.errors[job]}")
                wrong = why_not_good(json.loads(render.read_body(read, job)), wanted)
                if wrong is not None:
                    raise WorkFailed(f"a job is {wrong}")

    def _request(self) -> RequestId:
        return RequestId(next(self._numbers))

    @staticmethod
    def _ask(entry: Member, asked: SubmitAsked | ReadAsked) -> RequestId:
        entry.inbox.append(asked)
        return asked.request

    def new_job_id(self) -> JobId:
        return make_job_id(self.wall(), self._dice.randbytes(10))


class _Service:
    """What specs are made from at one node: as much of the API's `Service` as that asks for."""

    def __init__(self, mesh: Mesh, entry: Member) -> None:
        self._entry = entry
        self.wall = mesh.wall
        self.new_job_id = mesh.new_job_id

    def mesh(self) -> MeshView:
        return MeshView("", "", "", 0.0, Settings().jobs.replicas)

    def rank(self, job: JobId) -> tuple[NodeId, ...]:
        return self._entry.core.view.ranking().rank(job)

    def known_tasks(self) -> frozenset[str]:
        return frozenset((TASK,))


@contextmanager
def mesh(folder: Path, seed: int = 1) -> Iterator[Mesh]:
    """Three members with stores in new folders there, closed at the end."""
    with ExitStack() as stack:
        stores = []
        for node in NODES:
            store = Store.open(folder / node)
            stack.callback(store.close)
            stores.append(store)
        yield Mesh(stores, seed)
