"""Inline tasks: coroutines of microseconds, run in the node's own event loop.

One asyncio task, the driver, steps through all that wait. A coroutine that ends without having to wait for
anything costs no task and no turn of the loop. One that does wait keeps the driver for itself, so that it is
a task of its own from then on, with a timeout; another driver goes on with the rest.

Nothing can be done about one that blocks: it blocks the node. It is named in the log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextvars import Context, copy_context
from functools import partial
from pathlib import Path
from types import coroutine
from typing import Any, Final, Protocol

from edgenode.core.job_ids import job_text
from edgenode.core.signals import Run, RunEnded
from edgenode.core.specs import timeout_of
from edgenode.core.types import Instant, JobId, Seconds, StartToken, State
from edgenode.core.wire import Verdict
from edgenode.shell.folders import remove_later
from edgenode.shell.output import WRITER, Attributed, Lines, LogOfStart
from edgenode.shell.starts import Ended, Start, ended_by, make_context
from edgenode.shell.worker_process import TIMEOUT_GRACE_S
from edgenode.task import Task, encode_returned

logger = logging.getLogger("edgenode")

BLOCKED_S: Final[Seconds] = 0.05
"""A step this long is told: pings wait for it."""
TURN_S: Final[Seconds] = 0.005
"""Of many runs that wait, those that fit into this are run before the loop gets to something else."""
TOLD_AGAIN_S: Final[Seconds] = 60.0
"""Of each task so often at most."""

Key = tuple[JobId, StartToken]


class Pool(Protocol):
    """Who hears of the runs."""

    def run_ended(self, ended: RunEnded) -> None: ...

    def told_progress(self, run: Run, fraction: float, message: str) -> None: ...

    def told_partial(self, run: Run, value: bytes) -> None: ...

    def told_output(self, run: Run, text: str) -> None: ...


class Pending:
    """A run that waits for something, and has a driver of its own."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.driver: asyncio.Task[None] | None = None  # once it waits
        self.timeout_s: Seconds = 0.0
        self.timed_out = False
        self.stopping: str | None = None
        self.timer: asyncio.TimerHandle | None = None  # of its timeout, then of its end in any case
        self.has_ended = False


class Inline:
    """Drive it from one event loop: `run` and `stop`, then `close`. Each run ends once."""

    def __init__(self, pool: Pool, tasks: Mapping[str, Task], new_folder: Callable[[], Path]) -> None:
        self._pool = pool
        self._tasks = tasks
        self._new_folder = new_folder
        self._waiting: deque[Run] = deque()
        self._pending: dict[Key, Pending] = {}
        self._drivers: set[asyncio.Task[None]] = set()
        self._is_driven = False  # a driver is on its way to what waits
        self._told_at: dict[str, Instant] = {}
        self._thread = threading.get_ident()
        self._handler = LogOfStart()
        logging.getLogger().addHandler(self._handler)

    def __contains__(self, task: str) -> bool:
        return task in self._tasks

    def run(self, run: Run) -> None:
        """Run it in the next turn of the loop."""
        self._waiting.append(run)
        if not self._is_driven:
            self._drive_on()

    def stop(self, key: Key, reason: str, grace_s: Seconds) -> None:
        """Ask a run to end; after `grace_s` it counts as ended, whatever it does."""
        pending = self._pending.get(key)
        if pending is not None:
            if not pending.timed_out:
                pending.stopping = reason
                self._ask_to_end(pending, grace_s)
            return
        for run in self._waiting:
            if (run.job, run.token) == key:
                self._waiting.remove(run)
                ended = RunEnded(*key, Verdict(State.CANCELLED, b"", reason, -1.0, False), lost=False)
                asyncio.get_running_loop().call_soon(self._pool.run_ended, ended)
                return

    def close(self) -> None:
        """End every run, as lost."""
        verdict = Verdict(State.FAILED, b"", "the node stopped", -1.0, False)
        waiting, self._waiting = self._waiting, deque()
        for run in waiting:
            self._pool.run_ended(RunEnded(run.job, run.token, verdict, lost=True, begun=False))
        for pending in list(self._pending.values()):
            self._end(pending, verdict, lost=True)
        for driver in self._drivers:
            driver.cancel()
        logging.getLogger().removeHandler(self._handler)
        Attributed.remove()

    # ------------------------------------------------------------------------------------- the drivers

    def _drive_on(self) -> None:
        """Have a new driver step through what waits."""
        self._is_driven = True
        Attributed.install()  # again and again: others may replace the streams, too
        driver = asyncio.get_running_loop().create_task(self._drive())
        self._drivers.add(driver)
        driver.add_done_callback(self._drivers.discard)

    async def _drive(self) -> None:
        """Step through what waits, until there is no more of it or one of them has to wait for something."""
        turn_ends = time.perf_counter() + TURN_S
        while self._waiting:
            pending = Pending(self._waiting.popleft())
            await self._perform(pending)
            if pending.driver is not None:
                return  # it may have been cancelled, and another one has taken over
            if time.perf_counter() >= turn_ends:
                await asyncio.sleep(0)
                turn_ends = time.perf_counter() + TURN_S
        self._is_driven = False

    def _waits(self, pending: Pending) -> None:
        """A run has to wait: the driver is its own from now on."""
        run = pending.run
        pending.driver = asyncio.current_task()
        self._pending[run.job, run.token] = pending
        timeout_s = timeout_of(run.spec.options, self._tasks[run.spec.task].timeout_s)
        if timeout_s > 0:
            pending.timeout_s = timeout_s
            pending.timer = asyncio.get_running_loop().call_later(timeout_s, self._run_out, pending)
        self._is_driven = False
        if self._waiting:
            self._drive_on()

    def _run_out(self, pending: Pending) -> None:
        pending.timed_out = True
        pending.stopping = f"timed out after {pending.timeout_s:g} s"
        self._ask_to_end(pending, TIMEOUT_GRACE_S)

    def _ask_to_end(self, pending: Pending, grace_s: Seconds) -> None:
        assert pending.driver is not None
        assert pending.stopping is not None
        if pending.timer is not None:
            pending.timer.cancel()
        pending.driver.cancel()
        state = State.FAILED if pending.timed_out else State.CANCELLED
        verdict = Verdict(state, b"", pending.stopping, -1.0, False)
        pending.timer = asyncio.get_running_loop().call_later(grace_s, self._end, pending, verdict)

    def _end(self, pending: Pending, verdict: Verdict, *, lost: bool = False) -> None:
        if pending.has_ended:
            return
        pending.has_ended = True
        run = pending.run
        if pending.timer is not None:
            pending.timer.cancel()
        self._pending.pop((run.job, run.token), None)
        self._pool.run_ended(RunEnded(run.job, run.token, verdict, lost))

    # --------------------------------------------------------------------------------------- one start

    async def _perform(self, pending: Pending) -> None:
        run = pending.run
        task = self._tasks[run.spec.task]
        lines = Lines(partial(self._tell, self._pool.told_output, run))
        folder = self._new_folder() if task.wants_context else None
        context = copy_context()
        context.run(WRITER.set, lines)
        try:
            value = await self._steps(pending, self._begin(task, pending, lines, folder), context)
            ended = Ended(State.SUCCEEDED, encode_returned(value))
        except BaseException as error:  # noqa: BLE001 - around user code; sys.exit() included
            ended = ended_by(error, pending.stopping)
        lines.close()
        if folder is not None and folder.exists():
            remove_later(asyncio.get_running_loop(), folder)
        if pending.timed_out and ended.state is not State.SUCCEEDED:
            ended = Ended(State.FAILED, error=pending.stopping or "")
        self._end(pending, Verdict(*ended))

    async def _begin(self, task: Task, pending: Pending, lines: Lines, folder: Path | None) -> Any:
        """The task's own coroutine, behind the reading of its parameters."""
        run = pending.run
        if folder is None:
            return await task.call(json.loads(run.spec.payload), None)
        start = Start(job_text(run.job), run.token, run.spec.task, run.spec.payload, run.attempt)
        with make_context(
            start,
            folder,
            is_cancelled=lambda: pending.stopping is not None,
            on_progress=partial(self._tell, self._pool.told_progress, run),
            on_partial=partial(self._tell, self._pool.told_partial, run),
            on_log=lines.log,
        ) as context:
            return await task.call(json.loads(run.spec.payload), context)

    @coroutine
    def _steps(
        self, pending: Pending, job: Coroutine[Any, Any, Any], context: Context
    ) -> Generator[Any, Any, Any]:
        """What `await job` does, in a context of its own, with an eye on the clock."""
        step: Callable[[], Any] = partial(job.send, None)
        while True:
            began = time.perf_counter()
            try:
                awaited = context.run(step)
            except StopIteration as stop:
                return stop.value
            finally:
                took_s = time.perf_counter() - began
                if took_s >= BLOCKED_S:
                    self._blocked(pending.run.spec.task, took_s)
            if pending.driver is None:
                self._waits(pending)
            try:
                value = yield awaited
            except BaseException as error:  # noqa: BLE001 - handed on, as an await does
                step = partial(job.throw, error)
            else:
                step = partial(job.send, value)

    def _blocked(self, task: str, took_s: Seconds) -> None:
        now = time.monotonic()
        if now - self._told_at.get(task, -TOLD_AGAIN_S) >= TOLD_AGAIN_S:
            self._told_at[task] = now
            text = "worker: inline task %s blocked this node for %.0f ms; without inline=True it would not"
            logger.warning(text, task, took_s * 1000)

    def _tell(self, told: Callable[..., None], run: Run, *what: Any) -> None:
        if threading.get_ident() == self._thread:
            told(run, *what)
        else:  # from a thread that the task makes use of, or a timer's
            driver = next(iter(self._drivers), None)
            if driver is not None:
                driver.get_loop().call_soon_threadsafe(self._tell_late, told, run, *what)

    def _tell_late(self, told: Callable[..., None], run: Run, *what: Any) -> None:
        if (run.job, run.token) in self._pending:  # nothing is told of a run after its end
            told(run, *what)
