"""Whole nodes under a handed-in clock, network and disk, for the tests of the job side beside it.

Nothing is random but what a seed gives, and nothing waits: the clock jumps from one event to the next. Every
message goes through the codec; a disk takes `FSYNC_S`, and nothing overtakes it but membership's messages.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Any, NamedTuple, TypeVar

from edgenode.core.ballots import Ballots
from edgenode.core.checks import Checks
from edgenode.core.custody import Custody
from edgenode.core.desk import Desk
from edgenode.core.job_ids import make_job_id
from edgenode.core.jobs import Record, new_record
from edgenode.core.node import Node
from edgenode.core.rendezvous import Ranking
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.signals import (
    Booted,
    ClaimRow,
    ClockRead,
    CountDone,
    Effect,
    Event,
    Left,
    LinkDown,
    LinkUp,
    Log,
    MessageArrived,
    Persist,
    Persisted,
    QueueAsked,
    QueueDone,
    ReadAsked,
    ReadDone,
    RegulateDone,
    Reported,
    ReportsAsked,
    ReportsDone,
    RequestId,
    Row,
    Run,
    RunEnded,
    SearchDone,
    SearchedHere,
    SearchHere,
    Send,
    StopRun,
    StoredRow,
    StoreRecovered,
    StoreRefused,
    SubmitAsked,
    SubmitDone,
    TasksAsked,
    TasksTold,
    TimePassed,
)
from edgenode.core.specs import Options, Spec, encode_spec
from edgenode.core.table import Lead
from edgenode.core.types import (
    NOBODY,
    Drain,
    Instant,
    JobId,
    Load,
    MemberInfo,
    NodeId,
    Seconds,
    StartToken,
    State,
    Wall,
)
from edgenode.core.view import Standing
from edgenode.core.wire import CONTROL, Message, Query, Said, SubmitItem, TaskItem, Verdict, decode, encode
from edgenode.sim.shelf import Shelf

A, B, C, D, E, F = (NodeId(letter * 16) for letter in "abcdef")
WALL = 1e9
"""What the wall clock shows when the simulated one shows 0."""
DAY_S = 86_400.0
DELAY_S = 0.001
FSYNC_S = 0.0005
RUN_S = 0.3
TURNS_MAX = 5_000
"""So many things may happen at one instant; more means that a node would spin."""

M = TypeVar("M")


def succeeded(result: bytes = b'"done"') -> Verdict:
    return Verdict(State.SUCCEEDED, result, "", -1.0, False)


def failed(error: str = "no", *, retry_after_s: float = -1.0, final: bool = False) -> Verdict:
    return Verdict(State.FAILED, b"", error, retry_after_s, final)


# ---------------------------------------------------------------------------------- ids and records


def job_id(number: int) -> JobId:
    return make_job_id(WALL + number / 1000, number.to_bytes(10, "big"))


def make_spec(
    job: JobId, *, task: str = "echo", payload: bytes = b"{}", lasts_s: Seconds = 7 * DAY_S, **options: Any
) -> Spec:
    return Spec(job, task, payload, WALL, WALL + lasts_s, Options(**options))


def make_record(job: JobId, holders: Sequence[NodeId], **options: Any) -> Record:
    return new_record(encode_spec(make_spec(job, **options)), job, tuple(holders), 0.0, WALL)


def describe(
    node: NodeId,
    *,
    boot: int = 1,
    slots: int = 2,
    tasks: Iterable[str] = ("echo",),
    labels: Labels = (),
    coroutines: Iterable[str] = (),
    async_slots: int = 0,
) -> MemberInfo:
    return MemberInfo(
        node,
        node[:1],
        boot,
        ((node, 1),),
        f"http://{node}",
        "0",
        1.0,
        slots,
        labels,
        tuple(tasks),
        0.0,
        False,
        coroutines=tuple(coroutines),
        async_slots=async_slots,
    )


Labels = tuple[tuple[str, str], ...]


# ------------------------------------------------------------------------- one desk without a node


class Disk:
    """Implements `signals.Archive`: rows survive their machine's crashes."""

    def __init__(self) -> None:
        self.rows: dict[JobId, StoredRow] = {}
        self.clock: Wall = 0.0
        self.queues = b""
        self.forgotten: Wall = 0.0
        self.lost: set[JobId] = set()
        """Jobs whose row was damaged: not to be read, unless it was written again since."""
        self.rewritten: set[JobId] = set()
        self.claim_rows: dict[JobId, ClaimRow] = {}
        self.shelf = Shelf()

    @property
    def damaged(self) -> Set[JobId]:
        return self.lost

    def get(self, jobs: Sequence[JobId]) -> dict[JobId, Row]:
        return {job: self.rows[job].row for job in jobs if job in self.rows and self._is_readable(job)}

    def _is_readable(self, job: JobId) -> bool:
        return job not in self.lost or job in self.rewritten

    def claims(self, jobs: Sequence[JobId]) -> dict[JobId, ClaimRow]:
        return {job: self.claim_rows[job] for job in jobs if job in self.claim_rows}

    def claim_count(self) -> int:
        return len(self.claim_rows)

    def reports(self, job: JobId, *, brief: bool) -> list[Said]:
        return self.shelf.read(job, brief=brief)

    def write_claims(self, persist: Persist) -> None:
        before = persist.forget_claims_before
        self.claim_rows |= {claim.id: claim for claim in persist.claims}
        self.claim_rows = {job: row for job, row in self.claim_rows.items() if row.expires_at >= before}

    def scan(self, after: JobId, limit: int) -> list[Row]:
        return [self.rows[job].row for job in sorted(self.rows) if job > after][:limit]

    def due(self, until: Wall, after: tuple[Wall, JobId], limit: int) -> list[tuple[Wall, JobId]]:
        found = sorted((stored.due, job) for job, stored in self.rows.items() if stored.due <= until)
        return [key for key in found if key > after][:limit]

    def unsettled(self) -> tuple[Row, ...]:
        return tuple(s.row for job, s in self.rows.items() if not s.settled and self._is_readable(job))

    def write(self, rows: Iterable[StoredRow]) -> None:
        for stored in rows:
            self.rows[stored.row.id] = stored
            if stored.row.id in self.lost:
                self.rewritten.add(stored.row.id)

    def search(self, ticket: int, query: Query) -> SearchedHere:
        found = [
            stored.row.blob
            for job, stored in sorted(self.rows.items(), reverse=True)
            if (not query.after or job < query.after)
            and query.state in ("", stored.state)
            and query.task in ("", stored.task)
        ]
        return SearchedHere(ticket, tuple(found[: query.limit]), len(found) <= query.limit)


@dataclass
class StillView:
    """Members that stand as a test says they do."""

    me: NodeId
    standings: dict[NodeId, Standing]
    boot: int = 1
    boots: dict[NodeId, int] = field(default_factory=dict)
    behind: set[NodeId] = field(default_factory=set)
    formed: bool = True
    is_cut_off: bool = False
    left: set[NodeId] = field(default_factory=set)
    leaving: set[NodeId] = field(default_factory=set)
    drained: set[NodeId] = field(default_factory=set)
    since: dict[NodeId, Instant] = field(default_factory=dict)
    loads: dict[NodeId, Load] = field(default_factory=dict)
    tasks: tuple[str, ...] = ("echo",)
    _versions: Iterator[int] = field(default_factory=count)

    @property
    def version(self) -> int:
        return next(self._versions)  # a test may change anything at any time

    def standing(self, node: NodeId) -> Standing:
        return self.standings.get(node, Standing.UNKNOWN)

    def is_living(self, node: NodeId) -> bool:
        return self.standing(node) is Standing.LIVING

    def boot_of(self, node: NodeId) -> int:
        return self.boots.get(node, self.boot)

    def is_behind(self, node: NodeId) -> bool:
        return node in self.behind

    def has_left(self, node: NodeId) -> bool:
        return node in self.left

    def stores(self, node: NodeId) -> bool:
        return True

    def is_leaving(self, node: NodeId) -> bool:
        return node in self.leaving

    def dead_since(self, node: NodeId) -> Instant | None:
        is_dead = self.standing(node) in (Standing.SILENT, Standing.GONE)
        return self.since.get(node, 0.0) if is_dead else None

    def ranking(self) -> Ranking:
        staying = {node for node in self.standings if self.is_living(node)} - self.leaving - self.behind
        staying -= self.drained
        return Ranking(dict.fromkeys(staying, 1.0))

    def members(self) -> Iterable[NodeId]:
        return sorted(self.standings)

    def info(self, node: NodeId) -> MemberInfo | None:
        drain = Drain.DRAINED if node in self.drained else Drain.NO
        return describe(node, tasks=self.tasks)._replace(drain=drain)

    def load(self, node: NodeId) -> Load:
        return self.loads.get(node, Load())


def make_desk(
    me: NodeId = A, *others: NodeId, settings: JobSettings | None = None, archive: Disk | None = None
) -> Desk:
    """A desk whose node knows `others` as living."""
    view = StillView(me, dict.fromkeys((me, *others), Standing.LIVING))
    desk = Desk(view, settings or JobSettings(), archive or Disk(), random.Random(1))
    desk.set_wall(WALL)
    return desk


def make_custody(desk: Desk) -> tuple[Ballots, Custody]:
    checks = Checks()
    ballots = Ballots(desk, checks)
    return ballots, Custody(desk, ballots, checks)


# --------------------------------------------------------------------------------------- many nodes


class Sent(NamedTuple):
    at: Instant
    source: NodeId
    to: NodeId
    message: Message


class Begun(NamedTuple):
    """A run that a worker was ordered to start."""

    at: Instant
    node: NodeId
    job: JobId
    token: StartToken
    attempt: int


Rule = Callable[[NodeId, NodeId, Message], "bool | Seconds"]
"""What becomes of a message: False loses it, True lets it pass, a number delays it by so many seconds."""


def let_pass(source: NodeId, to: NodeId, message: Message) -> bool:
    return True


class Mesh:
    """N nodes that have met, unless told otherwise. `run`, `run_until` and `do` move the clock."""

    def __init__(
        self,
        letters: str = "abc",
        *,
        slots: int | Mapping[NodeId, int] = 2,
        tasks: Mapping[NodeId, Sequence[str]] | None = None,
        described: Mapping[NodeId, Sequence[TaskItem]] | None = None,
        labels: Mapping[NodeId, Labels] | None = None,
        coroutines: Sequence[str] = (),
        async_slots: int = 0,
        settings: Settings | None = None,
        rows: Mapping[NodeId, Iterable[StoredRow]] | None = None,
        knows_peers: bool = False,
        ahead_s: Mapping[NodeId, Seconds] | None = None,
    ) -> None:
        self.names = [NodeId(letter * 16) for letter in letters]
        self.now: Instant = 0.0
        self.settings = settings or Settings()
        self.nodes: dict[NodeId, Node] = {}
        self.disks = {name: Disk() for name in self.names}
        self.ahead_s: dict[NodeId, Seconds] = dict.fromkeys(self.names, 0.0) | dict(ahead_s or {})
        """How wrong each node's wall clock is."""
        self.up: set[NodeId] = set()
        self.full: set[NodeId] = set()
        """Whose disk takes no writes: the next one fails, and what is behind it never leaves."""
        self.unanswered: set[RequestId] = set()
        """Whose answers were behind a write that failed: the shell says that nobody knows."""
        self.boots: Counter[NodeId] = Counter()
        self.processes: Counter[NodeId] = Counter()
        self.sent: list[Sent] = []
        self.begun: list[Begun] = []
        self.stopped: list[tuple[NodeId, JobId, StartToken]] = []
        self.left: dict[NodeId, bool] = {}
        self.logs: list[tuple[NodeId, Log]] = []
        self.handled: Counter[NodeId] = Counter()
        """Events that each node took, and so how often it woke up."""
        self.submits: dict[RequestId, SubmitDone] = {}
        self.reads: dict[RequestId, ReadDone] = {}
        self.answered_at: dict[RequestId, Instant] = {}
        self.searches: dict[RequestId, SearchDone] = {}
        self.reports: dict[RequestId, ReportsDone] = {}
        self.queues: dict[RequestId, QueueDone] = {}
        self.counts: dict[RequestId, CountDone] = {}
        self.regulated: dict[RequestId, RegulateDone] = {}
        self.told: dict[RequestId, TasksTold] = {}
        self.rule: Rule = let_pass
        self.verdict: Callable[[Begun], tuple[Seconds, Verdict] | None] = lambda begun: (RUN_S, succeeded())
        """How a run ends, and after how long; None: it goes on until it is stopped."""
        self.stops_take_s: Seconds = 0.001
        """How long a worker that is asked to end takes."""
        self.cuts: set[frozenset[NodeId]] = set()
        self._slots = dict.fromkeys(self.names, slots) if isinstance(slots, int) else dict(slots)
        self._tasks, self._labels = dict(tasks or {}), dict(labels or {})
        self.described = dict(described or {})
        """What nodes say of their tasks from their next boot on."""
        self._coroutines, self._async_slots = frozenset(coroutines), async_slots
        self._knows_peers = knows_peers
        self._queue: list[tuple[Instant, int, NodeId, int, Callable[[], object]]] = []
        self._order, self._requests = count(), count(1)
        self._dice = random.Random(7)
        self._workers: dict[tuple[NodeId, JobId, StartToken], int] = {}
        self._durable_at: dict[NodeId, Instant] = {}
        self._revoked: dict[NodeId, list[Run]] = {}  # by a node whose write fails: starts that were behind it
        self._ranking = Ranking(dict.fromkeys(self.names, 1.0))
        for name in self.names:
            self.disks[name].write((rows or {}).get(name, ()))
        for name in self.names:
            self.boot(name)
        self.run_until(lambda: all(node.ready and len(node.view.ranking()) == len(self.names)
                                   for node in self.nodes.values()))  # fmt: skip
        self.run(0.5)  # ... and all know that all are
        self.sent.clear()

    # ----------------------------------------------------------------------------- lives and links

    def boot(self, name: NodeId, *, meets: Iterable[NodeId] | None = None) -> None:
        """Start a node on its disk; it meets `meets` (default: whoever is up) at once."""
        self.boots[name] += 1
        self.processes[name] += 1
        self._durable_at[name] = self.now
        tasks = self._tasks.get(name, ("echo",))
        info = describe(
            name,
            boot=self.boots[name],
            slots=self._slots.get(name, 0),
            tasks=tasks,
            labels=self._labels.get(name, ()),
            coroutines=[task for task in tasks if task in self._coroutines],
            async_slots=self._async_slots,
        )
        self.nodes[name] = Node(
            info,
            self.settings,
            self.disks[name],
            random.Random(f"{name}{self.boots[name]}"),
            expects_peers=len(self.names) > 1,
            knows_peers=self._knows_peers,
            tasks=self.described.get(name, ()),
        )
        self.up.add(name)
        disk = self.disks[name]
        first, *rest = [*disk.unsettled()] or [None]
        self.nodes[name].load(() if first is None else (first,))  # as the shell does: a piece at a time
        self._read_clock(name)
        self.do(name, Booted(rest, (), disk.clock, forgotten=disk.forgotten, queues=disk.queues))
        for other in sorted(self.up) if meets is None else meets:
            if other != name and frozenset((name, other)) not in self.cuts:
                self.link(name, other)

    def _read_clock(self, name: NodeId) -> None:
        """As the shell does: about every second."""
        self.do(name, ClockRead(self.wall() + self.ahead_s[name]))
        self._later(1.0, name, lambda: self._read_clock(name))

    def link(self, caller: NodeId, callee: NodeId) -> None:
        self._later(0.01, caller, lambda: self.do(caller, LinkUp(callee, self.boots[callee], (callee, 1))))
        self._later(0.01, callee, lambda: self.do(callee, LinkUp(caller, self.boots[caller], None)))

    def kill(self, name: NodeId, *, silently: bool = False) -> None:
        """End a node's process. The others see its port refuse, unless it goes `silently`."""
        self.up.discard(name)
        boot = self.boots[name]
        if not silently:
            for other in sorted(self.up):
                if frozenset((name, other)) not in self.cuts:
                    self._later(0.005, other, partial(self.do, other, LinkDown(name, boot, True)))

    def cut(self, *pairs: tuple[NodeId, NodeId]) -> None:
        self.cuts |= {frozenset(pair) for pair in pairs}

    def heal(self) -> None:
        healed, self.cuts = self.cuts, set()
        for one, other in sorted(tuple(sorted(pair)) for pair in healed):
            if {one, other} <= self.up:
                self.link(one, other)

    # ---------------------------------------------------------------------------------- full disks

    def make_room(self, name: NodeId) -> None:
        """The disk takes writes again, and the node begins a new life in the same process."""
        self.full.discard(name)
        self.boots[name] += 1
        boot = self.boots[name]
        self.do(name, StoreRecovered(boot, self.disks[name].unsettled()))
        for other in sorted(self.up - {name}):
            if frozenset((name, other)) not in self.cuts:
                self._later(0.005, other, partial(self.do, other, LinkDown(name, boot - 1, False)))
                self.link(name, other)

    def _refuse(self, name: NodeId) -> None:
        revoked = self._revoked.pop(name)
        self.do(name, StoreRefused("the disk is full"))
        for run in revoked:
            verdict = Verdict(State.FAILED, b"", "never begun", -1.0, False)
            self.do(name, RunEnded(run.job, run.token, verdict, True, begun=False))

    def _fails(self, name: NodeId, effect: Effect) -> bool:
        """Whether an effect is part of, or behind, a write that the disk refuses."""
        if name in self.full and isinstance(effect, Persist) and name not in self._revoked:
            self._revoked[name] = []
            self._later(FSYNC_S, name, lambda: self._refuse(name))
        if name not in self._revoked or (isinstance(effect, Send) and effect.urgent):
            return False
        if isinstance(effect, Run):
            self._revoked[name].append(effect)
        elif isinstance(effect, SearchHere):
            self._later(0.0, name, lambda: self.do(name, SearchedHere(effect.ticket, (), False)))
        elif isinstance(effect, SubmitDone | ReadDone | SearchDone | QueueDone):
            self.unanswered.add(effect.request)
        return not isinstance(effect, StopRun | Log | Left)

    # -------------------------------------------------------------------------------------- the clock

    def run(self, duration_s: Seconds) -> None:
        """Let `duration_s` seconds pass."""
        self._advance(self.now + duration_s, lambda: False)

    def run_until(self, condition: Callable[[], bool], *, limit_s: Seconds = 60.0) -> None:
        """Go on until `condition` holds; it must, within `limit_s` simulated seconds."""
        assert self._advance(self.now + limit_s, condition), f"not reached in {limit_s} s: {condition}"

    def _advance(self, until: Instant, condition: Callable[[], bool]) -> bool:
        turns, since = 0, self.now
        while not condition():
            turns = turns + 1 if self.now == since else 0
            since = self.now
            assert turns < TURNS_MAX, f"some node's deadline does not move ahead of {self.now}"
            timer, name = min(((self.nodes[n].deadline(), n) for n in self.up), default=(until + 1, A))
            at = min(timer, self._queue[0][0]) if self._queue else timer
            if at > until:
                self.now = max(self.now, until)
                return condition()
            self.now = max(self.now, at)
            if self._queue and self._queue[0][0] <= timer:
                _, _, name, process, action = heappop(self._queue)
                if name in self.up and process == self.processes[name]:
                    action()
            else:
                self.do(name, TimePassed())
        return True

    def _later(self, delay_s: Seconds, name: NodeId, action: Callable[[], object]) -> None:
        """Do something for this life of a node, if it lasts that long."""
        heappush(self._queue, (self.now + delay_s, next(self._order), name, self.processes[name], action))

    # -------------------------------------------------------------------------------- events, effects

    def do(self, name: NodeId, event: Event) -> list[Effect]:
        """Hand an event to a node now, and carry out what it orders."""
        self.handled[name] += 1
        effects = self.nodes[name].handle(event, self.now)
        for effect in effects:
            self._carry_out(name, effect)
        return effects

    def tell(self, source: NodeId, to: NodeId, message: Message) -> list[Effect]:
        """Hand a message over now, past every rule and cut."""
        return self.do(to, MessageArrived(source, decode(encode(message))))

    def _carry_out(self, name: NodeId, effect: Effect) -> None:
        durable_in = max(0.0, self._durable_at[name] - self.now)
        if self._fails(name, effect):
            return
        match effect:
            case Persist():
                self._durable_at[name] = self.now + durable_in + FSYNC_S
                self._later(durable_in + FSYNC_S, name, lambda: self._written(name, effect))
            case Send(to, message, urgent):
                if urgent:
                    self._send(name, to, message)
                else:
                    self._later(durable_in, name, lambda: self._send(name, to, message))
            case Run():
                self._later(durable_in, name, lambda: self._begin(name, effect))
            case StopRun(job, token):
                self.stopped.append((name, job, token))
                verdict = Verdict(State.CANCELLED, b"", "stopped", -1.0, False)
                # Orders to the workers keep their order: a stop never overtakes its run.
                ends_in = durable_in + self.stops_take_s
                self._later(ends_in, name, lambda: self.end_run(name, job, token, verdict))
            case SearchHere(ticket, query):
                answer = self.disks[name].search(ticket, query)
                self._later(0.0, name, lambda: self.do(name, answer))
            case SubmitDone(request):
                self.submits[request], self.answered_at[request] = effect, self.now
            case ReadDone(request):
                self.reads[request], self.answered_at[request] = effect, self.now
            case QueueDone(request):
                self.queues[request] = effect
            case CountDone(request):
                self.counts[request] = effect
            case SearchDone(request):
                self.searches[request] = effect
            case ReportsDone(request):
                self.reports[request] = effect
            case RegulateDone(request):
                self.regulated[request] = effect
            case TasksTold(request):
                self.told[request], self.answered_at[request] = effect, self.now
            case Log():
                self.logs.append((name, effect))
            case Left(handed_over):
                self.left[name] = handed_over
                # What it ordered before is still done; then its process ends.
                self._later(durable_in + FSYNC_S, name, lambda: self.up.discard(name))
            case _:
                pass

    def _written(self, name: NodeId, persist: Persist) -> None:
        disk = self.disks[name]
        disk.write(persist.rows)
        disk.write_claims(persist)
        disk.shelf.write(persist.reports, (*persist.dropped, *persist.silenced))
        disk.clock = persist.clock or disk.clock
        disk.queues = persist.queues or disk.queues
        disk.forgotten = persist.forgotten or disk.forgotten
        for job in persist.dropped:
            disk.rows.pop(job, None)
        self.do(name, Persisted(persist.number))

    def _send(self, source: NodeId, to: NodeId, message: Message) -> None:
        if not isinstance(message, CONTROL):
            self.sent.append(Sent(self.now, source, to, message))
        if frozenset((source, to)) in self.cuts or to not in self.up:
            return
        fate = self.rule(source, to, message)
        if fate is not False:
            frame = encode(message)
            delay_s = DELAY_S + (0.0 if fate is True else fate)
            self._later(delay_s, to, lambda: self.do(to, MessageArrived(source, decode(frame))))

    def _begin(self, name: NodeId, run: Run) -> None:
        begun = Begun(self.now, name, run.job, run.token, run.attempt)
        self.begun.append(begun)
        key = (name, run.job, run.token)
        assert key not in self._workers, f"started twice: {key}"
        self._workers[key] = self.processes[name]
        ending = self.verdict(begun)
        if ending is not None:
            delay_s, verdict = ending
            self._later(delay_s, name, lambda: self.end_run(name, run.job, run.token, verdict))

    def end_run(
        self,
        name: NodeId,
        job: JobId,
        token: StartToken,
        verdict: Verdict,
        *,
        lost: bool = False,
        counted: bool = True,
    ) -> None:
        """End a run, once: what its worker says after that nobody hears."""
        if self._workers.get((name, job, token)) == self.processes[name]:
            self._workers[name, job, token] = 0
            self.do(name, RunEnded(job, token, verdict, lost, counted=counted))

    # ------------------------------------------------------------------------------------- questions

    def spec(self, first: str = "", *, not_on: str = "", **options: Any) -> Spec:
        """A new job whose rank begins with the nodes `first`, and whose holders are not in `not_on`."""
        while True:
            job = make_job_id(WALL + self.now, self._dice.randbytes(10))
            letters = "".join(name[0] for name in self._ranking.rank(job))
            holders = letters[: self.settings.jobs.replicas]
            if letters.startswith(first) and not set(not_on) & set(holders):
                return make_spec(job, **options)

    def specs(self, number: int, first: str, **options: Any) -> list[Spec]:
        """Many of the same rank, quickly: an id's last bytes decide it."""
        tail = self.spec(first).id[-2:]
        ids = (make_job_id(WALL + self.now, self._dice.randbytes(10))[:-2] + tail for _ in range(number))
        return [make_spec(JobId(job), **options) for job in ids]

    def holders(self, job: JobId) -> tuple[NodeId, ...]:
        return self._ranking.rank(job)[: self.settings.jobs.replicas]

    def item(self, spec: Spec) -> SubmitItem:
        return SubmitItem(encode_spec(spec), self.holders(spec.id))

    def submit(self, name: NodeId, *specs: Spec, timeout_s: Seconds = 10.0) -> RequestId:
        request = RequestId(next(self._requests))
        self.do(name, SubmitAsked(request, specs, timeout_s))
        return request

    def set_queue(
        self,
        name: NodeId,
        queue: str,
        *,
        paused: bool | None = None,
        concurrency: int | None = None,
        rate: float | None = None,
        burst: int | None = None,
    ) -> RequestId:
        request = RequestId(next(self._requests))
        self.do(name, QueueAsked(request, queue, paused, concurrency, rate, burst, 2.0))
        return request

    def read(self, name: NodeId, *jobs: JobId, wait_s: Seconds = 0.0, timeout_s: Seconds = 3.0) -> RequestId:
        request = RequestId(next(self._requests))
        self.do(name, ReadAsked(request, jobs, wait_s, timeout_s))
        return request

    def say(self, begun: Begun, number: int, text: bytes = b"", before: int = 0, **more: Any) -> None:
        """Let a start that runs say something."""
        told = {"fraction": -1.0, "message": ""} | more
        self.do(begun.node, Reported(begun.job, begun.token, number, before=before, text=text, **told))

    def ask_reports(
        self, name: NodeId, job: JobId, *nodes: NodeId, brief: bool = False, timeout_s: Seconds = 3.0
    ) -> RequestId:
        request = RequestId(next(self._requests))
        self.do(name, ReportsAsked(request, job, nodes, brief, timeout_s))
        return request

    def ask_tasks(self, name: NodeId, *tasks: str, timeout_s: Seconds = 1.0) -> RequestId:
        request = RequestId(next(self._requests))
        self.do(name, TasksAsked(request, tasks, timeout_s))
        return request

    def record(self, name: NodeId, job: JobId) -> Record:
        """The copy on this node."""
        found = self.nodes[name].desk.table.get(job)
        assert found is not None
        return found

    def has(self, name: NodeId, job: JobId) -> bool:
        return self.nodes[name].desk.table.get(job) is not None

    def lead(self, name: NodeId, job: JobId) -> Lead | None:
        return self.nodes[name].desk.table.lead(job) if name in self.up else None

    def is_firm(self, name: NodeId, job: JobId) -> bool:
        lead = self.lead(name, job)
        return lead is not None and lead.firm

    def agree(self, names: Iterable[NodeId]) -> bool:
        """Whether these all believe that just they can take jobs."""
        members = frozenset(names)
        return all(self.nodes[name].view.ranking().members == members for name in members)

    def settled(self, job: JobId) -> bool:
        """Whether the job is settled on every living holder."""
        return all(self.has_settled(name, job) for name in self.holders(job) if name in self.up)

    def has_settled(self, name: NodeId, job: JobId) -> bool:
        found = self.nodes[name].desk.table.get(job)
        return found is not None and found.settled

    def messages(self, kind: type[M], *, source: NodeId = NOBODY, to: NodeId = NOBODY) -> list[M]:
        """The messages of a kind that were sent (lost ones too), in order."""
        return [
            sent.message
            for sent in self.sent
            if isinstance(sent.message, kind) and source in (NOBODY, sent.source) and to in (NOBODY, sent.to)
        ]

    def runs(self, job: JobId) -> list[NodeId]:
        """Where a job was started, in order."""
        return [begun.node for begun in self.begun if begun.job == job]

    def wall(self) -> Wall:
        return WALL + self.now


def sends(effects: Iterable[Effect], kind: type[M]) -> list[M]:
    """The messages of one kind among what a node orders."""
    return [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, kind)]
