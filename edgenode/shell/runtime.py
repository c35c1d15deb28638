"""One node in asyncio: feeds the core, carries out its effects in order, and answers the API.

The rule of `core/signals.py` is kept by one queue: effects that come after a `Persist` wait in it until the
store says that the Persist is durable. Only membership's messages pass by. When the store says that it never
will be, the queue is revoked and the core told; the disk is then asked again until it takes writes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

from edgenode import __version__
from edgenode.core import bursts
from edgenode.core.errors import (
    EdgeNodeError,
    NotReady,
    Overloaded,
    StoreFailed,
    StoreUnwritable,
    Undecided,
)
from edgenode.core.job_ids import make_job_id
from edgenode.core.node import Node
from edgenode.core.settings import Settings
from edgenode.core.signals import (
    Behind,
    Booted,
    CancelAsked,
    CancelDone,
    Changed,
    ClockRead,
    Cloned,
    CountAsked,
    CountDone,
    Effect,
    Event,
    InspectAsked,
    InspectDone,
    LeaveAsked,
    Left,
    Log,
    MessageArrived,
    Peers,
    Persist,
    Persisted,
    QueueAsked,
    QueueDone,
    ReadAsked,
    ReadDone,
    Receipt,
    RegulateAsked,
    RegulateDone,
    Remember,
    RememberWords,
    ReportsAsked,
    ReportsDone,
    RequestDropped,
    RequestId,
    RowsDamaged,
    Run,
    RunEnded,
    SearchAsked,
    SearchDone,
    SearchedHere,
    SearchHere,
    Send,
    StopAsked,
    StopRun,
    StoreRecovered,
    StoreRefused,
    SubmitAsked,
    SubmitDone,
    TasksAsked,
    TasksTold,
    TimePassed,
)
from edgenode.core.specs import Spec
from edgenode.core.types import Drain, Instant, JobId, MemberInfo, NodeId, Seconds, State, Wall, starts_of
from edgenode.core.view import MemberView, MeshView, QueueChange
from edgenode.core.wire import Query, QueueItem, Verdict, Wish
from edgenode.described import DescribedTask, describe, described
from edgenode.shell.inbox import EVENTS_MAX, Inbox, is_of_control_link
from edgenode.shell.job_search import SearchResult
from edgenode.shell.observe import Observer, Sample
from edgenode.shell.searches import Searches
from edgenode.shell.store import Store
from edgenode.shell.store_file import Damage, StoreDamaged
from edgenode.shell.transport import Transport
from edgenode.shell.worker import STOP_GRACE_S, WorkerPool
from edgenode.task import Registry, Task

logger = logging.getLogger("edgenode")

BEHIND: Final = "this disk was put back from a backup, or is a copy, and has no vote"
WHAT_TO_DO: Final = (
    "It takes no jobs, and shows those of others. Start it once with --new-identity: what it has becomes"
    " copies for repair, and it joins as a new member"
)
JOINS_ANEW: Final = "damage: %s. This node joins anew, with what can be read of it as copies"
HELD_EFFECTS_MAX: Final = 200_000
UNWRITTEN_BYTES_MAX: Final = 64 * 1024 * 1024
"""What may wait for the disk, as for the inbox and the one above: at 100 MB/s more than half a second."""
ROWS_PER_TURN: Final = 500
"""Read at the start before the loop gets to do anything else: some 10 ms."""
CLOCK_PERIOD_S: Final = 1.0
TIMER_TICK_S: Final[Seconds] = 0.001
CHECK_PERIOD_S: Final[Seconds] = 86_400.0
DAMAGES_LOGGED: Final = 20
"""Reports of damaged rows that get a line each; of those after it every thousandth does."""
RECOVER_MIN_S: Final[Seconds] = 0.25
RECOVER_MAX_S: Final[Seconds] = 2.0
"""A disk that refused is asked again after the one, then less often, down to the other."""
RELAPSE_S: Final[Seconds] = 30.0
RELAPSE_MAX_S: Final[Seconds] = 10.0
"""A disk that refuses again so soon after it recovered gets a longer pause each time: every turn moves all
of the node's jobs."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Barrier:
    """Stands in the queue for a Persist that is not durable yet."""

    number: int


class IdentityInUse(EdgeNodeError):
    """The node stopped, because another process with its identity lives."""

    status, slug, title, definite = 409, "identity-in-use", "Two processes have one identity", True


class Runtime:
    """Runs one `Node`. `run()` until `left` or `stop()`; the API calls the rest (it is its `Service`)."""

    def __init__(
        self,
        info: MemberInfo,
        settings: Settings,
        store: Store,
        *,
        registry: Registry,
        mesh_id: str,
        expects_peers: bool,
        knows_peers: bool,
    ) -> None:
        self._store = store
        self._settings = settings
        self._registry = registry
        self._mesh_id = mesh_id
        self._name = info.name
        # They decide pauses and probe orders: two nodes must not fall in step.
        dice = random.Random(int.from_bytes(os.urandom(8), "big"))
        self.node = Node(
            info,
            settings,
            store.archive(),
            dice,
            expects_peers=expects_peers,
            knows_peers=knows_peers,
            tasks=[describe(task) for task in registry.values()],
        )
        self._inbox = Inbox(time.monotonic)
        self._wake: asyncio.Future[None] | None = None
        self._is_roused = False  # something in the inbox is to be handled now
        self._held: deque[Effect | _Barrier] = deque()
        self._answers: dict[RequestId, asyncio.Future[Any]] = {}
        self._next_request = 0
        self._began: Instant = time.monotonic()
        self._clock_at: Instant = 0.0
        self._trouble: str | None = None  # of the workers
        self._left = asyncio.Event()
        self._is_stopping = False
        self._failure: EdgeNodeError | None = None
        self._refusal: str | None = None  # why the disk takes no writes
        self._damages = 0
        self.distrust = ""
        """Why `run` ended, if not by anybody's wish: the store is damaged, and to be set aside."""
        self._recovered_at: Instant = -RELAPSE_S
        self._pause_s: Seconds = RECOVER_MIN_S
        self._has_ended = False  # by its own verdict: nothing that waits may be said
        self.fell_behind = False  # why `run` ended: begin a new life, on a disk that is marked now
        self._chores: set[asyncio.Task[None]] = set()
        self._searches = Searches(store.search, self._searched, patience_s=settings.jobs.read_s)
        self.dropped = 0  # a peer's messages that found the inbox full
        self._slots = info.slots
        labels = {"id": info.id, "name": info.name, "version": __version__}
        self.observer = Observer(self._sample, labels=labels)
        store.on_commit = self.observer.committed
        self._transport: Transport | None = None
        self._workers: WorkerPool | None = None

    def attach(self, transport: Transport, workers: WorkerPool) -> None:
        """Give it its hands. Both call `post` with what happens to them."""
        self._transport, self._workers = transport, workers

    def workers_said(self, trouble: str | None) -> None:
        """Why worker processes cannot be started; None when they can again."""
        self._trouble = trouble
        if trouble is None:
            logger.info("worker: processes start again")
        else:
            logger.error("worker: %s", trouble)

    # ------------------------------------------------------------------------------------ the pump

    def post(self, event: Event) -> None:
        """Hand an event to the core, soon. From the event loop's thread."""
        if isinstance(event, MessageArrived) and self._is_behind(event):
            self.dropped += 1
            return
        self._inbox.add(event)
        # What is said behind a write that is under way waits for it anyhow. So does what it follows from: it
        # becomes one burst, with the next write.
        if not (self._held and bursts.flows(event)):
            self._rouse()

    def _is_behind(self, arrived: MessageArrived) -> bool:
        """Whether this message is better lost: pings never are, for a slow disk, or its node seems dead."""
        is_slow = self._store.pending_bytes > UNWRITTEN_BYTES_MAX and not is_of_control_link(arrived)
        return is_slow or self._inbox.is_full(arrived)

    def _rouse(self) -> None:
        self._is_roused = True
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def run(self) -> None:
        """Feed the core until it has left, or its store can't be trusted any more (see `distrust`)."""
        boot = self._store.boot()
        loop = asyncio.get_running_loop()
        self._store.on_damage = lambda damage: _call_soon(loop, self._damaged, damage)
        try:
            rows = iter(boot.rows)
            while piece := list(islice(rows, ROWS_PER_TURN)):
                self.node.load(piece)
                await asyncio.sleep(0)  # for who asks its API meanwhile; its peers are not heard yet
        except StoreDamaged as error:
            logger.error(JOINS_ANEW, error.detail)
            self.distrust = error.detail
            return
        self._clock_at = time.monotonic() + CLOCK_PERIOD_S
        self._feed(ClockRead(time.time()))
        days = boot.clock, boot.past, boot.words, boot.forgotten
        self._feed(Booted((), boot.peers, *days, boot.queues))
        if boot.damaged:
            self._feed(RowsDamaged(boot.damaged))
        self._spawn(self._check())
        due_s: Seconds = 0.0
        while not self._left.is_set() and self._failure is None and not self.distrust and not self._has_ended:
            for event in self._inbox.turn(due_s) if self._is_roused else ():
                self._feed(event)
            self._is_roused &= bool(self._inbox)
            # Due time follows every turn: a busy node must not let its timers lapse.
            now = time.monotonic()
            if now >= self._clock_at:
                self._clock_at = now + CLOCK_PERIOD_S
                self._feed(ClockRead(time.time()))
            if self.node.deadline() <= now:
                self._feed(TimePassed())
            due_s = time.monotonic() - now
            if self._is_roused:
                await asyncio.sleep(0)
            else:
                await self._sleep()
        if self._failure is not None:
            raise self._failure

    def _end(self, verdict: Behind | Cloned) -> None:
        """This disk or this process is not the latest of its identity."""
        self._has_ended = True
        self._held.clear()
        if isinstance(verdict, Cloned):
            theirs, ours = starts_of(verdict.boot), starts_of(self.node.view.boot)
            self._failure = IdentityInUse(
                f"another process with this node's identity ({self.me}) is running (start {theirs} of its"
                f" disk, this is start {ours}): a data folder was copied. This process ends. To have both,"
                " start one of them once with --new-identity, or with an empty --data-dir"
            )
            return
        logger.error("identity: %s: %s. %s", BEHIND, verdict.why, WHAT_TO_DO)
        try:
            self._store.fall_behind(verdict.above, verdict.why)
            self.fell_behind = True
        except EdgeNodeError as error:
            self._failure = error  # the others will say it again at the next start

    async def _sleep(self) -> None:
        """Until an event comes, or the core's next deadline."""
        wait_s = min(self.node.deadline(), self._clock_at) - time.monotonic()
        if wait_s <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        self._wake = loop.create_future()
        timer = loop.call_later(whole_ticks(wait_s), _finish, self._wake)
        try:
            await self._wake
        finally:
            timer.cancel()
            self._wake = None

    def _feed(self, event: Event) -> None:
        if isinstance(event, StoreRecovered):
            # Not before: up to here the core speaks as the life before, whose writes are not this one's.
            assert self._transport is not None
            self._transport.begin_life(event.boot)
        for effect in self.node.handle(event, time.monotonic()):
            self._order(effect)

    def _order(self, effect: Effect) -> None:
        """Carry an effect out, or queue it behind the disk."""
        if isinstance(effect, Behind | Cloned):
            self._end(effect)
        elif isinstance(effect, Send) and effect.urgent:
            self._carry_out(effect)
        elif isinstance(effect, Persist):
            self._held.append(_Barrier(effect.number))
            self._store.commit(effect, partial(self._done, asyncio.get_running_loop(), effect.number))
        elif self._held:
            self._held.append(effect)
        else:
            self._carry_out(effect)

    def _done(self, loop: asyncio.AbstractEventLoop, number: int, error: Exception | None) -> None:
        """From the store's thread."""
        _call_soon(loop, self._synced, number, error)

    def _synced(self, number: int, error: Exception | None) -> None:
        """A Persist is durable, or will never be."""
        if self._refusal is not None or self._failure is not None or self._has_ended:
            return  # it was revoked
        if error is not None:
            self._refuse(error)
            return
        assert isinstance(self._held[0], _Barrier), "the queue begins with what it waits for"
        assert self._held[0].number == number, "the store answers in order"
        self._held.popleft()
        self._release()
        self.post(Persisted(number))

    # ------------------------------------------------------------------------- a disk that refuses

    def _refuse(self, error: Exception) -> None:
        """What the core believes is on the disk is not: nothing that waits here may ever be said."""
        assert isinstance(error, EdgeNodeError)
        held, self._held = self._held, deque()
        self._refusal = error.detail
        self.observer.refused()
        for effect in held:
            self._revoke(effect)
        if isinstance(error, StoreDamaged):
            self._damaged(Damage((), error.detail))
            return
        # Now, before any other event: what the core would write until it knows is behind nothing.
        self._feed(StoreRefused(error.detail))
        self._rouse()
        is_relapse = time.monotonic() - self._recovered_at < RELAPSE_S
        self._pause_s = min(self._pause_s * 2, RELAPSE_MAX_S) if is_relapse else RECOVER_MIN_S
        self._spawn(self._recover())

    def _damaged(self, damage: Damage) -> None:
        """Something on the disk is not what was written: one row, or more than anybody can tell."""
        if self.distrust:
            return
        self.observer.logged("damage")
        if damage.jobs:
            self._damages += 1
            if self._damages <= DAMAGES_LOGGED or self._damages % 1000 == 0:
                text = "damage: %s. Copies are fetched; this node has no vote there any more"
                logger.error(text, damage.text)
            self.post(RowsDamaged(damage.jobs))
            return
        logger.error(JOINS_ANEW, damage.text)
        self.distrust = damage.text
        # The old identity's last word: its jobs move at once.
        self._feed(StoreRefused(damage.text))
        self._refusal = damage.text
        for request in list(self._answers):
            self._fail(request, StoreFailed("this node's store is damaged: nobody knows what became of this"))
        self._rouse()

    async def _check(self) -> None:
        """Look for damage while there are other copies to mend it with: at the start, and every day."""
        while True:
            await asyncio.to_thread(self._store.check)
            await asyncio.sleep(CHECK_PERIOD_S)

    def _revoke(self, effect: Effect | _Barrier) -> None:
        """This was behind a write that failed: end what is long, answer who waits, and say nothing."""
        match effect:
            case Run(job, token):
                verdict = Verdict(State.FAILED, b"", "the node's disk takes no writes", -1.0, False)
                self.post(RunEnded(job, token, verdict, lost=True, begun=False))
            case SearchHere(ticket):
                self.post(SearchedHere(ticket, (), False))
            case SubmitDone(request):
                text = "this node's disk refused a write while the job was stored: it may exist"
                self._fail(request, StoreFailed(text))
            case QueueDone(request):
                self._fail(request, StoreFailed("this node's disk refused the change: it may come later"))
            case (
                ReadDone(request) | SearchDone(request) | InspectDone(request) | ReportsDone(request)
                | CancelDone(request) | RegulateDone(request) | CountDone(request) | TasksTold(request)
            ):  # fmt: skip
                self._fail(request, Undecided("this node's disk refused a write meanwhile"))
            case Peers() | Remember() | StopRun() | Log() | Left():
                self._carry_out(effect)
            case _:
                pass

    async def _recover(self) -> None:
        """Ask the disk until it takes writes again; then a new life begins on what it has."""
        assert self._transport is not None
        pause_s = self._pause_s
        while True:
            await asyncio.sleep(pause_s)
            try:
                boot = await asyncio.to_thread(self._store.recover)
            except StoreDamaged as error:
                self._damaged(Damage((), error.detail))
                return
            except EdgeNodeError as error:
                self._refusal = error.detail
                pause_s = max(pause_s, min(pause_s * 2, RECOVER_MAX_S))
                continue
            self._refusal = None
            self._recovered_at = time.monotonic()
            self.post(StoreRecovered(boot.boot, boot.rows))
            if boot.damaged:
                self.post(RowsDamaged(boot.damaged))
            return

    def _fail(self, request: RequestId, error: EdgeNodeError) -> None:
        answer = self._answers.pop(request, None)
        if answer is not None and not answer.done():
            answer.set_exception(error)

    def _spawn(self, chore: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    def _release(self) -> None:
        """Carry out what waited, up to the next Persist that is not durable."""
        while self._held:
            waiting = self._held.popleft()
            if isinstance(waiting, _Barrier):
                self._held.appendleft(waiting)
                return
            self._carry_out(waiting)

    def _carry_out(self, effect: Effect) -> None:
        assert self._transport is not None
        assert self._workers is not None
        match effect:
            case Send(to, message):
                self._transport.send(to, message)
            case Run():
                self._workers.run(effect)
            case StopRun(job, token, reason):
                self._workers.stop(job, token, reason, STOP_GRACE_S)
            case SubmitDone(request, receipts):
                self._answer(request, receipts)
            case ReadDone(request) | SearchDone(request) | InspectDone(request):
                self._answer(request, effect)
            case CancelDone(request) | RegulateDone(request):
                self._answer(request, effect)
            case ReportsDone(request) | QueueDone(request) | CountDone(request) | TasksTold(request):
                self._answer(request, effect)
            case SearchHere(ticket, query):
                self._searches.ask(ticket, query)
            case Peers(changes):
                self._transport.set_peers(changes)
            case Remember(peers):
                self._store.remember(peers)
            case RememberWords(packed):
                self._store.remember_words(packed)
            case Log(kind, text, warning):
                self.observer.logged(kind)
                logger.log(logging.WARNING if warning else logging.INFO, "%s: %s", kind, text)
            case Changed():
                pass  # event streams will read these
            case Left(handed_over):
                if not handed_over:
                    logger.info("stopped: what is on this node's disk goes on when it is started again")
                self._left.set()
            case _:
                raise AssertionError(f"an effect without a hand: {effect!r:.100}")

    def _searched(self, ticket: int, found: SearchResult) -> None:
        self.post(SearchedHere(ticket, found.records, found.complete, found.upto))

    # -------------------------------------------------------------------------------------- ending

    def leave(self) -> None:
        """Hand every job over, then end `run`."""
        self.post(LeaveAsked())

    def stop(self) -> None:
        """End `run` as soon as the disk has what is known. Others take over at once."""
        if self._is_stopping:
            self._left.set()  # asked twice: not even for the disk
        self._is_stopping = True
        self.post(StopAsked())

    async def close(self) -> None:
        """Answer what still waits: nobody knows. Calling it twice is fine."""
        for request in list(self._answers):
            self._fail(request, Undecided("this node has ended meanwhile: ask another one"))
        for chore in self._chores:
            chore.cancel()
        if self._chores:
            await asyncio.wait(self._chores)
        await self._searches.close()

    # ------------------------------------------------------------------------ the API's `Service`

    @property
    def me(self) -> NodeId:
        return self.node.view.me

    def _request(self) -> tuple[RequestId, asyncio.Future[Any]]:
        if self._left.is_set():
            raise NotReady("this node has left the mesh: ask another one")
        self._check_load()
        self._next_request += 1
        request = RequestId(self._next_request)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[request] = answer
        return request, answer

    def _check_load(self) -> None:
        """Refuse local requests while the core or the disk is far behind."""
        is_slow = self._store.pending_bytes > UNWRITTEN_BYTES_MAX
        if is_slow or len(self._inbox) >= EVENTS_MAX or len(self._held) >= HELD_EFFECTS_MAX:
            text = "the node has more to do than it can take: ask again in a moment, or another node"
            raise Overloaded(text, queued=len(self._inbox))

    def _answer(self, request: RequestId, value: object) -> None:
        answer = self._answers.pop(request, None)
        if answer is not None and not answer.done():
            answer.set_result(value)

    async def _ask(self, request: RequestId, answer: Awaitable[T], event: Event) -> T:
        self.post(event)
        try:
            return await answer
        finally:
            if self._answers.pop(request, None) is not None:
                self.post(RequestDropped(request))  # the client went away

    async def submit(self, specs: Sequence[Spec], *, timeout_s: Seconds) -> tuple[Receipt, ...]:
        request, answer = self._request()
        event = SubmitAsked(request, tuple(specs), timeout_s)
        receipts: tuple[Receipt, ...] = await self._ask(request, answer, event)
        return receipts

    async def read(self, jobs: Sequence[JobId], *, wait_s: Seconds, timeout_s: Seconds) -> ReadDone:
        request, answer = self._request()
        done: ReadDone = await self._ask(request, answer, ReadAsked(request, tuple(jobs), wait_s, timeout_s))
        return done

    async def search(self, query: Query, *, timeout_s: Seconds) -> SearchDone:
        request, answer = self._request()
        done: SearchDone = await self._ask(request, answer, SearchAsked(request, query, timeout_s))
        return done

    async def inspect(self, job: JobId, *, timeout_s: Seconds) -> InspectDone:
        request, answer = self._request()
        done: InspectDone = await self._ask(request, answer, InspectAsked(request, job, timeout_s))
        return done

    async def reports(
        self, job: JobId, *, nodes: Sequence[NodeId], brief: bool, timeout_s: Seconds
    ) -> ReportsDone:
        request, answer = self._request()
        done: ReportsDone = await self._ask(
            request, answer, ReportsAsked(request, job, tuple(nodes), brief, timeout_s)
        )
        return done

    async def cancel(
        self, jobs: Sequence[tuple[JobId, tuple[NodeId, ...]]], *, timeout_s: Seconds
    ) -> CancelDone:
        request, answer = self._request()
        done: CancelDone = await self._ask(request, answer, CancelAsked(request, tuple(jobs), timeout_s))
        return done

    async def regulate(self, node: NodeId, wish: Wish, *, timeout_s: Seconds) -> MemberInfo:
        request, answer = self._request()
        done: RegulateDone = await self._ask(request, answer, RegulateAsked(request, node, wish, timeout_s))
        if done.error is not None:
            raise done.error
        assert done.info is not None
        return done.info

    def queues(self) -> Sequence[QueueItem]:
        return self.node.queues.in_force()

    async def count_queues(self, *, timeout_s: Seconds) -> CountDone:
        request, answer = self._request()
        done: CountDone = await self._ask(request, answer, CountAsked(request, timeout_s))
        return done

    async def change_queue(self, queue: str, change: QueueChange, *, timeout_s: Seconds) -> QueueDone:
        request, answer = self._request()
        done: QueueDone = await self._ask(request, answer, QueueAsked(request, queue, *change, timeout_s))
        return done

    def members(self) -> Sequence[MemberView]:
        clock = self.node.desk.clock
        return [
            MemberView(
                report.info,
                report.state,
                report.load,
                report.silent_s,
                clock.own_ahead if report.info.id == self.me else clock.ahead(report.info.id),
            )
            for report in self.node.membership.snapshot()
        ]

    def metrics(self) -> bytes:
        return self.observer.text()

    def _sample(self) -> Sample:
        assert self._transport is not None
        table = self.node.desk.table
        load = self.node.membership.load(self.me)
        return Sample(
            ready=not self.readiness(),
            draining=self.node.desk.draining,
            writable=self._refusal is None,
            behind=self._has_no_vote,
            owned=Counter({str(state): count for state, count in table.owned_states().items()}),
            copies=len(table),
            members=Counter(member.state_text for member in self.members()),
            load=load,
            slots=self._slots,
            unwritten_bytes=self._store.pending_bytes,
            store_bytes=self._store.size_bytes(),
            damaged_rows=len(self._store.damaged),
            inbox=len(self._inbox),
            dropped={"inbox": self.dropped, "link": self._transport.dropped},
            link_bytes=self._transport.carried,
        )

    def mesh(self) -> MeshView:
        uptime_s = time.monotonic() - self._began
        return MeshView(self._mesh_id, self._name, __version__, uptime_s, self._settings.jobs.replicas)

    def rank(self, job: JobId) -> tuple[NodeId, ...]:
        return self.node.view.ranking().rank(job)

    def new_job_id(self) -> JobId:
        return make_job_id(self.wall(), os.urandom(10))

    def wall(self) -> Wall:
        return self.node.desk.clock.wall(time.monotonic())

    def known_tasks(self) -> frozenset[str]:
        view = self.node.view
        infos = [view.info(node) for node in view.members()]
        return frozenset(task for info in infos if info is not None for task in info.tasks)

    async def task_schemas(
        self, names: Collection[str], *, timeout_s: Seconds
    ) -> Mapping[str, Task | DescribedTask]:
        own = {name: task for name in names if (task := self._registry.get(name)) is not None}
        if len(own) == len(set(names)):
            return own
        told = self.node.catalogue.told(names)
        items = [item for item in told.values() if item is not None]
        if missing := tuple(name for name, item in told.items() if item is None):
            # Whoever goes on without an answer hears of a trouble of this node from what it does next.
            with suppress(EdgeNodeError):
                request, answer = self._request()
                done: TasksTold = await self._ask(request, answer, TasksAsked(request, missing, timeout_s))
                items += done.items
        return {item.name: described(item) for item in items} | own

    def readiness(self) -> Sequence[str]:
        if self._failure is not None:
            return [self._failure.detail]
        if self._refusal is not None:
            return [f"its disk takes no writes: {self._refusal}"]
        if self._has_no_vote:
            return [f"{BEHIND}: {self._store.boot().behind}. {WHAT_TO_DO}"]
        if self.node.ready:
            return [] if self._trouble is None else [f"it runs no jobs: {self._trouble}"]
        if self.node.desk.leaving:
            return ["the node is leaving the mesh"]
        if self.node.desk.draining:
            return [self._drain_text()]
        if not self.node.view.formed:
            return ["it has not met any of its peers yet"]
        return ["it asks its peers whether its disk is the latest of its identity"]

    def _drain_text(self) -> str:
        owned = len(self.node.desk.table.leads)
        if self.node.drain is Drain.DRAINING:
            return f"it is draining: {owned} jobs are still its own"
        stay = f", and keeps {owned} jobs that no other node can take" if owned else ""
        return f"it is drained: it takes no jobs until it is undrained{stay}"

    @property
    def _has_no_vote(self) -> bool:
        return self.node.view.is_behind(self.me)

    def damage(self) -> Sequence[str]:
        lines = []
        if rows := len(self._store.damaged):
            lines.append(
                f"{rows} rows were damaged: this node has no vote on those jobs, and shows copies of others'"
            )
        for file in self._store.aside:
            lines.append(f"{file} was damaged, and set aside at a start; delete it when nobody needs it")
        return lines

    @property
    def is_leaving(self) -> bool:
        return self.node.desk.leaving

    def refusal(self) -> EdgeNodeError | None:
        if self._refusal is not None:
            text = f"this node's disk takes no writes: {self._refusal}; submit to another node"
            return StoreUnwritable(text, reasons=list(self.readiness()))
        if self._failure is None and self._has_no_vote and not self.node.desk.leaving:
            return None  # it passes jobs on to those that may hold them
        is_going_on = self._failure is None and not self.node.desk.leaving
        if is_going_on and self.node.desk.draining and len(self.node.view.ranking()):
            return None  # so does this one
        reasons = self.readiness()
        if not reasons:
            return None
        return NotReady(f"this node takes no jobs: {'; '.join(reasons)}", reasons=list(reasons))


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *values: Any) -> None:
    """From another thread."""
    with suppress(RuntimeError):  # the loop is closed: the node has ended, and nobody waits
        loop.call_soon_threadsafe(call, *values)


def whole_ticks(wait_s: Seconds) -> Seconds:
    """Up to the next tick of the loop's timers. uvloop rounds to the nearest: what is due in less than
    half a tick is due at once for it, and a node would go round, as fast as it can, until the deadline."""
    return math.ceil(wait_s / TIMER_TICK_S) * TIMER_TICK_S


def _finish(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
