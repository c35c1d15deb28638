"""The worker process: runs starts for its node, and never outlives it.

Started as `python -c "…worker_main.main()" SOCKET_FD PARENT_PID SCRATCH KIND MODULE…`, in a process group of
its own. Frames are MessagePack arrays, in both directions over one socket; MessagePack delimits itself.
Standard output and error go to a pipe that the node reads, so that also the last words of a crash are heard.

A process of the kind `whole` runs one start at a time, in its main thread (some libraries insist on that),
in the order in which they came; those that wait can be recalled. At the end of each it writes a mark into the
pipe. One of the kind `shared` runs coroutines side by side (`shared_worker`). In both a second thread reads
the socket, so that the end of the node, or a wish to stop, is heard while a task runs.
"""

from __future__ import annotations

import ctypes
import faulthandler
import inspect
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgpack

from edgenode.core.types import State
from edgenode.shell.starts import Ended, Start, Token, ended_by, make_context, no_such_task, printable
from edgenode.task import Registry, Task, TaskLoadError, encode_returned, load_tasks

if TYPE_CHECKING:
    import asyncio  # 25 ms of a start that takes 60: imported by the first task that needs it

WHOLE: Final = "whole"
SHARED: Final = "shared"

# Node to worker. A job is named by its id as text, and its token: one process may come to run several.
RUN: Final = 1  # job, (term, owner, start), task, payload, attempt
STOP: Final = 2  # job, token, reason
RECALL: Final = 3  # job, token: is not to begin, if it has not
# Worker to node.
READY: Final = 11  # {task: timeout_s}, what marks the end of a start in the pipe
BROKEN: Final = 12  # why the tasks cannot be loaded; the process ends
ENDED: Final = 13  # job, token, state, result, error, retry_after_s, final
PROGRESS: Final = 14  # job, token, fraction, message
PARTIAL: Final = 16  # job, token, JSON
RECALLED: Final = 17  # job, token, whether it will not begin
OUTPUT: Final = 15  # job, token, text: of a coroutine; what a task with a process of its own writes is piped

RECEIVE_BYTES: Final = 256 * 1024
PIPE_FULL_S: Final = 0.001
PR_SET_PDEATHSIG: Final = 1


def die_with_parent(parent: int) -> None:
    """End this process when its node's does, also by kill -9 (Linux: prctl(2), PR_SET_PDEATHSIG).

    Elsewhere, and for what slips through, there is the end of the socket.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)  # it died before the call: no signal will come for that


class Worker(ABC):
    """One process's life: load, then run what comes, until the socket ends."""

    def __init__(self, link: socket.socket, scratch: Path) -> None:
        self._link = link
        self._scratch = scratch
        self._sending = threading.Lock()
        self._mark = b""  # of the end of a start in the pipe; b"": it has none

    def serve(self, modules: list[str]) -> None:
        """Load the tasks, and run what comes. Does not return."""
        try:
            registry = load_tasks(modules)
        except TaskLoadError as error:
            self._send(BROKEN, error.detail)
            raise SystemExit(3) from error
        self.work(registry)

    @abstractmethod
    def work(self, registry: Registry) -> None:
        """Say READY, by `_be_ready`, and run what comes."""

    @abstractmethod
    def _take(self, start: Start) -> None:
        """Have this run. From the second thread."""

    def _recall(self, job: str, token: Token) -> None:
        """Do not begin this start, if it has not begun; say which. From the second thread."""
        self._send(RECALLED, job, token, False)

    @abstractmethod
    def _stop(self, job: str, token: Token, reason: str) -> None:
        """Ask this start to end, if it has not. From the second thread."""

    # -------------------------------------------------------------------------------------- the link

    def _be_ready(self, registry: Registry) -> None:
        self._send(READY, {name: each.timeout_s for name, each in registry.items()}, self._mark)

    def _send(self, *frame: object) -> None:
        try:
            packed: bytes = msgpack.packb(frame)
        except UnicodeEncodeError:
            # A file name that is no UTF-8, say, comes as text that cannot be encoded again.
            packed = msgpack.packb([printable(part) if isinstance(part, str) else part for part in frame])
        with self._sending:
            try:
                self._link.sendall(packed)
            except OSError:
                _end_all()

    def read(self) -> None:
        """The second thread. The end of the socket is the end of the node: nothing here may go on."""
        unpacker = msgpack.Unpacker(use_list=False)
        while True:
            try:
                received = self._link.recv(RECEIVE_BYTES)
            except OSError:
                received = b""
            if not received:
                _end_all()
            unpacker.feed(received)
            for kind, *fields in unpacker:
                if kind == RUN:
                    self._take(Start(*fields))
                elif kind == STOP:
                    self._stop(*fields)
                elif kind == RECALL:
                    self._recall(*fields)

    def folder_of(self, start: Start) -> Path:
        """Where its task may keep files until it ends."""
        return self._scratch / f"{start.job}-{start.token[2]}"


class WholeWorker(Worker):
    """Runs one start at a time."""

    def __init__(self, link: socket.socket, scratch: Path) -> None:
        super().__init__(link, scratch)
        self._mark = b"\0%s\0" % os.urandom(8).hex().encode()
        self._pipe = os.dup(1)  # a task may close its own, or put something else in its place
        self._order: SimpleQueue[tuple[str, Token]] = SimpleQueue()
        self._lock = threading.Lock()  # of all below
        self._waiting: dict[tuple[str, Token], Start] = {}
        self._early: dict[tuple[str, Token], str] = {}  # why some of these should end
        self._running: Start | None = None
        self._stopping: str | None = None  # why the running start should end
        self._coroutine: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._runner: asyncio.Runner | None = None

    def work(self, registry: Registry) -> None:
        self._be_ready(registry)
        while True:
            start = self._begin()
            ended = self._perform(start, registry)
            with self._lock:
                self._running = None
            _flush()
            self._mark_end()
            self._send(ENDED, start.job, start.token, *ended)

    def _begin(self) -> Start:
        """The next start, as soon as there is one."""
        while True:
            key = self._order.get()
            with self._lock:
                start = self._waiting.pop(key, None)
                if start is not None:  # else it was recalled
                    self._running, self._stopping = start, self._early.pop(key, None)
                    return start

    def _mark_end(self) -> None:
        """What comes through the pipe from now on is the next start's."""
        while True:
            try:
                os.write(self._pipe, self._mark)  # whole, or not at all: pipe(7), PIPE_BUF
            except BlockingIOError:
                time.sleep(PIPE_FULL_S)  # some program that the task started has made it so
            except OSError:
                return
            else:
                return

    def _take(self, start: Start) -> None:
        with self._lock:
            self._waiting[start.job, start.token] = start
        self._order.put((start.job, start.token))

    def _recall(self, job: str, token: Token) -> None:
        with self._lock:
            self._early.pop((job, token), None)
            # Told before the next one begins: what that one says is not taken for this one's.
            self._send(RECALLED, job, token, self._waiting.pop((job, token), None) is not None)

    def _stop(self, job: str, token: Token, reason: str) -> None:
        with self._lock:
            if (job, token) in self._waiting:
                self._early[job, token] = reason  # the main thread has not got to it
                return
            running = self._running
            if running is None or (running.job, running.token) != (job, token):
                return  # it ended meanwhile
            self._stopping = reason
            if self._coroutine is not None:
                loop, coroutine = self._coroutine
                loop.call_soon_threadsafe(coroutine.cancel)

    # ------------------------------------------------------------------------------------- one start

    def _perform(self, start: Start, registry: Registry) -> Ended:
        task = registry.get(start.task)
        if task is None:
            return no_such_task(start.task)
        folder = self.folder_of(start)
        try:
            return Ended(State.SUCCEEDED, encode_returned(self._call(task, start, folder)))
        except BaseException as error:  # noqa: BLE001 - around user code; sys.exit() included
            return ended_by(error, self._stopping)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _call(self, task: Task, start: Start, folder: Path) -> Any:
        with make_context(
            start,
            folder,
            is_cancelled=lambda: self._stopping is not None,
            on_progress=lambda *told: self._send(PROGRESS, start.job, start.token, *told),
            on_partial=lambda value: self._send(PARTIAL, start.job, start.token, value),
            on_log=_log,
        ) as context:
            value = task.call(json.loads(start.payload), context)
            return self._value_of(value) if inspect.iscoroutine(value) else value

    def _value_of(self, value: Coroutine[Any, Any, Any]) -> Any:
        import asyncio

        if self._runner is None:
            self._runner = asyncio.Runner()
        try:
            return self._runner.run(self._cancellable(value))
        finally:
            with self._lock:
                self._coroutine = None

    async def _cancellable(self, value: Any) -> Any:
        import asyncio

        task = asyncio.current_task()
        assert task is not None
        with self._lock:
            self._coroutine = (asyncio.get_running_loop(), task)
            is_stopped = self._stopping is not None
        if is_stopped:
            task.cancel()  # the wish came before there was a coroutine to cancel
        return await value


def _log(text: str) -> None:
    """Through the same pipe as what the task prints, so that the two stay in order."""
    assert sys.__stdout__ is not None
    sys.__stdout__.write(f"{text}\n")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the task closed it
            continue


def _end_all() -> NoReturn:
    """End this process, and what its tasks started, without asking anybody."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def main() -> None:
    """The whole life of a worker process."""
    descriptor, parent, scratch, kind, *modules = sys.argv[1:]
    die_with_parent(int(parent))
    # The node decides what an interrupt means. Handlers, not SIG_IGN: that would pass on to every program
    # that a task starts, and those could then not be terminated.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)
    faulthandler.enable(all_threads=False)
    sys.stdout.reconfigure(line_buffering=True, errors="replace")  # type: ignore[union-attr]
    # A program that a task starts must not hold the socket: its end is how a death is noticed.
    os.set_inheritable(int(descriptor), False)
    link = socket.socket(fileno=int(descriptor))
    worker: Worker
    if kind == SHARED:
        from edgenode.shell.shared_worker import SharedWorker

        worker = SharedWorker(link, Path(scratch))
    else:
        worker = WholeWorker(link, Path(scratch))
    threading.Thread(target=worker.read, name="edgenode-link", daemon=True).start()
    worker.serve(modules)
