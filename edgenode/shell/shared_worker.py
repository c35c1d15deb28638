"""The worker process in which coroutines run side by side, on one event loop.

A coroutine that blocks the loop blocks the others, until its timeout: then the node kills the process. What
each of them prints and logs is told apart by context variables; what a program that they start writes is
not.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import shutil
import socket
from collections.abc import Coroutine, Generator
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any

from edgenode.core.types import State
from edgenode.shell.output import WRITER, Attributed, Lines
from edgenode.shell.starts import Ended, Start, Token, ended_by, make_context, no_such_task
from edgenode.shell.worker_main import ENDED, OUTPUT, PARTIAL, PROGRESS, Worker
from edgenode.task import Registry, encode_returned


class Running:
    """One start here, from its order to its end."""

    def __init__(self, start: Start, lines: Lines) -> None:
        self.start = start
        self.lines = lines
        self.stopping: str | None = None  # why it should end
        self.task: asyncio.Task[None] | None = None  # from its first step
        self.made: set[asyncio.Task[Any]] = set()  # what it has running besides


class SharedWorker(Worker):
    """Runs as many coroutines at a time as the node gives it."""

    def __init__(self, link: socket.socket, scratch: Path) -> None:
        super().__init__(link, scratch)
        self._running: dict[tuple[str, Token], Running] = {}
        self._by_lines: dict[Lines, Running] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._group: asyncio.TaskGroup | None = None
        self._registry = Registry()
        # Before the tasks are loaded: what they import may keep these streams for ever, as logging does.
        Attributed.install()

    def work(self, registry: Registry) -> None:
        self._registry = registry
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_task_factory(self._make_task)
        async with asyncio.TaskGroup() as self._group:
            self._be_ready(self._registry)
            await asyncio.Event().wait()  # until the process ends

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        context: Context | None = None,
        **options: Any,
    ) -> asyncio.Future[Any]:
        """A task, known to the start that makes it: it ends with that.

        Args:
            options: what later versions of Python (3.14) give a factory, too.
        """
        made: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, context=context, **options)
        lines = WRITER.get() if context is None else context.get(WRITER)
        running = None if lines is None else self._by_lines.get(lines)
        if running is not None:
            running.made.add(made)
            made.add_done_callback(running.made.discard)
        return made

    # ------------------------------------------------------------------------- from the second thread

    def _take(self, start: Start) -> None:
        assert self._loop is not None
        lines = Lines(lambda text: self._send(OUTPUT, start.job, start.token, text))
        running = self._running[start.job, start.token] = Running(start, lines)
        self._loop.call_soon_threadsafe(self._begin, running)

    def _stop(self, job: str, token: Token, reason: str) -> None:
        running = self._running.get((job, token))
        if running is None:
            return  # it ended meanwhile
        # At once, so that a coroutine that blocks the loop can see it, too.
        running.stopping = reason
        assert self._loop is not None
        self._loop.call_soon_threadsafe(_cancel, running)

    # -------------------------------------------------------------------------------------- one start

    def _begin(self, running: Running) -> None:
        assert self._group is not None
        self._by_lines[running.lines] = running
        context = copy_context()
        context.run(WRITER.set, running.lines)
        self._group.create_task(self._perform(running), context=context)

    async def _perform(self, running: Running) -> None:
        start = running.start
        running.task = asyncio.current_task()
        ended = await self._outcome(running)
        for left in list(running.made):
            if left is not running.task:
                left.cancel()
        running.lines.close()
        del self._running[start.job, start.token], self._by_lines[running.lines]
        self._send(ENDED, start.job, start.token, *ended)

    async def _outcome(self, running: Running) -> Ended:
        start = running.start
        task = self._registry.get(start.task)
        if task is None:
            return no_such_task(start.task)
        folder = self.folder_of(start)
        made = make_context(
            start,
            folder,
            is_cancelled=lambda: running.stopping is not None,
            on_progress=lambda *told: self._send(PROGRESS, start.job, start.token, *told),
            on_partial=lambda value: self._send(PARTIAL, start.job, start.token, value),
            on_log=running.lines.log,
        )
        try:
            if running.stopping is not None:
                raise asyncio.CancelledError
            with made as context:
                value = task.call(json.loads(start.payload), context)
                if inspect.isawaitable(value):
                    value = await value
            return Ended(State.SUCCEEDED, encode_returned(value))
        except BaseException as error:  # noqa: BLE001 - around user code; sys.exit() included
            return ended_by(error, running.stopping)
        finally:
            if task.wants_context:
                shutil.rmtree(folder, ignore_errors=True)


def _cancel(running: Running) -> None:
    if running.task is not None:
        running.task.cancel()  # else it sees for itself, before its first step
