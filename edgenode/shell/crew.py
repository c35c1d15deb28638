"""Worker processes of one kind: as many as are wanted are kept alive, and runs are spread over them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from edgenode.core.signals import Run, RunEnded
from edgenode.core.types import Seconds, State
from edgenode.core.wire import Verdict
from edgenode.shell.ahead import MOST, STUCK_S, Ahead
from edgenode.shell.worker_main import WHOLE
from edgenode.shell.worker_process import Key, WorkerProcess, private_bytes

logger = logging.getLogger("edgenode")

RESPAWN_MIN_S: Final[Seconds] = 0.5
RESPAWN_MAX_S: Final[Seconds] = 30.0
"""A process that dies before it did anything is tried again after the one, doubled each time, up to the
other."""
RESPAWN_ROUNDS_MAX: Final = 6
"""The pause has doubled so often when it is the longest."""
AHEAD_S: Final[Seconds] = 1.0
"""A process that will have had its runs by then gets its successor: a start takes 0.1 s where nothing else is
to be done, and more the more its tasks import."""
CLOSE_S: Final[Seconds] = 2.0


class Pool(Protocol):
    """Who has a crew, and hears of it."""

    def run_ended(self, ended: RunEnded) -> None: ...

    def told_progress(self, run: Run, fraction: float, message: str) -> None: ...

    def told_partial(self, run: Run, value: bytes) -> None: ...

    def told_output(self, run: Run, text: str) -> None: ...

    def crew_changed(self) -> None:
        """Its `trouble`, its being `able` or how much it takes `ahead` may have."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a crew is to be."""

    kind: str  # `worker_main.WHOLE` or `SHARED`
    processes: int
    capacity: int  # runs at a time in each
    python: str
    modules: Sequence[str]
    new_folder: Callable[[], Path]
    runs_max: int = 0  # after so many a process is replaced; 0: never
    memory_bytes_max: int = 0  # after a run that leaves its process with more, too; 0: never


class Crew:
    """Drive it from one event loop: `start`, `run` and `stop`, then `close`. `processes * capacity` runs go
    on at a time, and as many as are taken `ahead` wait for them; each ends once."""

    def __init__(self, pool: Pool, plan: Plan) -> None:
        self._pool = pool
        self._plan = plan
        self._processes: list[WorkerProcess] = []  # the last used is last
        self._busy: dict[Key, WorkerProcess] = {}
        self._waiting: deque[Run] = deque()  # for a process that is starting
        self.timeouts: dict[str, Seconds] = {}
        self.trouble: str | None = None
        """Why no process can be had; None if the last one that was started became ready."""
        self.is_able = True
        self._failures = 0  # starts of processes, in a row
        self._ahead = Ahead(plan.processes) if plan.kind == WHOLE else None
        self._watch: asyncio.TimerHandle | None = None  # while something waits in a process
        self._respawns: set[asyncio.TimerHandle] = set()
        self.first_word = asyncio.Event()
        self._is_closed = False
        self._told_too_large = False

    def start(self) -> None:
        """Start all processes, and return before they are ready; runs may be given at once."""
        self._replenish()

    @property
    def ahead(self) -> int:
        """How many runs it takes beyond those that can go on at a time."""
        return self._ahead.count if self._ahead is not None and self.is_able else 0

    @property
    def pids(self) -> list[int]:
        """Of the living processes."""
        return [process.pid for process in self._processes]

    async def close(self) -> None:
        """End every run (as lost) and every process, within seconds."""
        self._is_closed = True
        self.first_word.set()
        for handle in self._respawns:
            handle.cancel()
        if self._watch is not None:
            self._watch.cancel()
        self._fail_waiting("the node stopped before the task was started")
        processes = list(self._processes)
        for process in processes:
            process.end("the node stopped")
        if processes:
            await asyncio.wait([process.gone for process in processes], timeout=CLOSE_S)

    # -------------------------------------------------------------------------------------------- runs

    def run(self, run: Run) -> None:
        most = self._plan.processes * self._plan.capacity + (0 if self._ahead is None else MOST)
        assert len(self._busy) + len(self._waiting) < most or self._is_closed, "more runs than slots"
        self._waiting.append(run)
        if self._is_closed or not self.is_able:
            # Told later, as everything is: a caller need not expect its answer inside its own call.
            asyncio.get_running_loop().call_soon(self._fail_waiting, self.trouble or "the node stopped")
        else:
            self._assign()  # or when the next process is ready

    def stop(self, key: Key, reason: str, grace_s: Seconds) -> None:
        process = self._busy.get(key)
        if process is not None:
            process.stop(key, reason, grace_s)
            return
        for run in self._waiting:
            if (run.job, run.token) == key:
                self._waiting.remove(run)
                verdict = Verdict(State.CANCELLED, b"", reason, -1.0, False)
                ended = RunEnded(*key, verdict, lost=False, begun=False)
                asyncio.get_running_loop().call_soon(self._pool.run_ended, ended)
                return

    def _assign(self) -> None:
        while self._waiting:
            process = self._next_process()
            if process is None:
                return
            if process is not self._processes[-1]:
                self._processes.remove(process)
                self._processes.append(process)
            run = self._waiting.popleft()
            self._busy[run.job, run.token] = process
            process.run(run)
            if process.is_held_up and self._watch is None:
                self._watch = asyncio.get_running_loop().call_later(STUCK_S, self._look_for_stuck)
            if self._plan.runs_max:
                self._replenish()

    def _next_process(self) -> WorkerProcess | None:
        """Where the next run begins at once, or soonest."""
        # The one used last is used next: its caches are warm.
        process = next((each for each in reversed(self._processes) if each.is_free), None)
        if process is None and self._ahead is not None:
            able = [each for each in self._processes if each.was_ready and each.stays]
            if len(self._waiting) > self._plan.processes - len(able):  # which are starting
                process = min(able, key=lambda each: each.load, default=None)
        return process

    def _look_for_stuck(self) -> None:
        """What runs takes its time, and something waits for it: others may have a free slot for that."""
        self._watch = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for process in [each for each in self._processes if each.is_held_up]:
            if now - process.runs_since >= STUCK_S:
                self._plan_ahead(lambda ahead: ahead.is_stuck())
                process.recall()
        if any(each.is_held_up for each in self._processes):
            self._watch = loop.call_later(STUCK_S, self._look_for_stuck)

    def _plan_ahead(self, tell: Callable[[Ahead], None]) -> None:
        """How long runs take says how many are taken ahead."""
        if self._ahead is not None:
            before = self._ahead.count
            tell(self._ahead)
            if self._ahead.count != before:
                self._pool.crew_changed()

    def _fail_waiting(self, error: str) -> None:
        """These never reached a process: nothing of them says anything about their jobs."""
        while self._waiting:
            run = self._waiting.popleft()
            verdict = Verdict(State.FAILED, b"", error, -1.0, False)
            self._pool.run_ended(RunEnded(run.job, run.token, verdict, lost=True, begun=False))

    # -------------------------------------------------------------------------- what processes report

    def became_ready(self, process: WorkerProcess, timeouts: dict[str, Seconds]) -> None:
        self.timeouts = timeouts
        self._failures = 0
        self.trouble = None
        self.is_able = True
        self.first_word.set()
        self._pool.crew_changed()
        self._check_size(process)
        self._assign()

    def _check_size(self, process: WorkerProcess) -> None:
        """Say it if the memory limit leaves no room for work."""
        taken, most = private_bytes(process.pid), self._plan.memory_bytes_max
        if 0 < most < taken and not self._told_too_large:
            self._told_too_large = True
            text = "worker: a process takes %d MB before its first job, above the limit: each runs one job"
            logger.warning(text, taken // 2**20)

    def has_room(self, process: WorkerProcess) -> None:
        most = self._plan.memory_bytes_max
        if most and private_bytes(process.pid) > most:
            process.retire()
            process.recall()
        if not process.stays:
            if process.is_idle:
                process.kill()
            self._replenish()
        self._assign()

    def run_ended(self, ended: RunEnded, took_s: Seconds) -> None:
        del self._busy[ended.job, ended.token]
        self._pool.run_ended(ended)
        if ended.begun:
            self._plan_ahead(lambda ahead: ahead.ran(took_s))

    def told_progress(self, run: Run, fraction: float, message: str) -> None:
        self._pool.told_progress(run, fraction, message)

    def told_partial(self, run: Run, value: bytes) -> None:
        self._pool.told_partial(run, value)

    def told_output(self, run: Run, text: str) -> None:
        self._pool.told_output(run, text)

    def process_gone(self, process: WorkerProcess, trouble: str | None) -> None:
        self._processes.remove(process)
        if self._is_closed:
            return
        if trouble is None and process.was_ready:
            self._replenish()  # it died of its work, or was killed: the next one will do
        else:
            self._start_failed(trouble)

    def _start_failed(self, trouble: str | None) -> None:
        rounds = min(self._failures // self._plan.processes, RESPAWN_ROUNDS_MAX)
        delay_s = min(RESPAWN_MIN_S * 2**rounds, RESPAWN_MAX_S)
        self._failures += 1
        if trouble is not None:
            self.trouble = trouble
            self.first_word.set()
        self.is_able = self.trouble is None or any(process.was_ready for process in self._processes)
        self._pool.crew_changed()
        if not self.is_able and self.trouble is not None:
            self._fail_waiting(self.trouble)

        def due() -> None:
            self._respawns.discard(handle)
            self._replenish()

        handle = asyncio.get_running_loop().call_later(delay_s, due)
        self._respawns.add(handle)

    def _replenish(self) -> None:
        """Start as many as are missing, or will be soon: a spent one goes on until its runs have ended."""
        staying = sum(process.stays_for(AHEAD_S) for process in self._processes)
        for _ in range(self._plan.processes - staying - len(self._respawns)):
            self._spawn()

    def _spawn(self) -> None:
        plan = self._plan
        try:
            process = WorkerProcess(
                self,
                plan.python,
                plan.new_folder(),
                plan.modules,
                kind=plan.kind,
                capacity=plan.capacity,
                runs_max=plan.runs_max,
            )
        except OSError as error:  # there is no process, memory or descriptor to be had now
            self._start_failed(f"a worker process cannot be started: {error}")
        else:
            self._processes.append(process)
