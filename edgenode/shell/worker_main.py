"""The worker process: runs one start at a time for its node, and never outlives it.

Started as `python -c "…worker_main.main()" SOCKET_FD PARENT_PID SCRATCH MODULE…`, in a process group of its
own. Frames are MessagePack arrays, in both directions over one socket; MessagePack delimits itself. Standard
output and error go to a pipe that the node reads, so that also the last words of a crash are heard.

The main thread runs the tasks (some libraries insist on that); a second one reads the socket, so that the
end of the node, or a wish to stop, is heard while a task runs.
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
import traceback
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import msgpack

from edgenode.core.errors import InvalidJob
from edgenode.core.types import State
from edgenode.task import (
    Cancel,
    Fail,
    Fence,
    JobContext,
    Registry,
    Retry,
    Task,
    TaskLoadError,
    TaskVerdict,
    Unserialisable,
    encode_result,
    load_tasks,
)

if TYPE_CHECKING:
    import asyncio  # 25 ms of a start that takes 60: imported by the first task that needs it

# Node to worker. A job is named by its id as text, and its token: one process may come to run several.
RUN: Final = 1  # job, (term, owner, start), task, payload, attempt
STOP: Final = 2  # job, token, reason
# Worker to node.
READY: Final = 11  # {task: timeout_s}
BROKEN: Final = 12  # why the tasks cannot be loaded; the process ends
ENDED: Final = 13  # job, token, state, result, error, retry_after_s, final
PROGRESS: Final = 14  # job, token, fraction, message

PROGRESS_PERIOD_S: Final = 0.05
ERROR_MESSAGE_CHARS: Final = 1_000
ERROR_FRAMES: Final = 6
RECEIVE_BYTES: Final = 256 * 1024
PR_SET_PDEATHSIG: Final = 1

Token = tuple[int, str, int]


def die_with_parent(parent: int) -> None:
    """End this process when its node's does, also by kill -9 (Linux: prctl(2), PR_SET_PDEATHSIG).

    Elsewhere, and for what slips through, there is the end of the socket.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)  # it died before the call: no signal will come for that


class Start(NamedTuple):
    """One start of a job, as the node ordered it."""

    job: str
    token: Token
    task: str
    payload: bytes
    attempt: int


class Ended(NamedTuple):
    state: State
    result: bytes = b""
    error: str = ""
    retry_after_s: float = -1.0
    final: bool = False


def _printable(part: object) -> object:
    return part.encode("utf-8", "backslashreplace").decode() if isinstance(part, str) else part


class Worker:
    """One process's life: load, then run what comes, until the socket ends."""

    def __init__(self, link: socket.socket, scratch: Path) -> None:
        self._link = link
        self._scratch = scratch
        self._sending = threading.Lock()
        self._starts: SimpleQueue[Start] = SimpleQueue()
        self._lock = threading.Lock()  # of the three below
        self._running: Start | None = None
        self._stopping: str | None = None  # why the running start should end
        self._coroutine: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._runner: asyncio.Runner | None = None

    def serve(self, modules: list[str]) -> None:
        threading.Thread(target=self._read, name="edgenode-link", daemon=True).start()
        try:
            registry = load_tasks(modules)
        except TaskLoadError as error:
            self._send(BROKEN, error.detail)
            raise SystemExit(3) from error
        self._send(READY, {name: each.timeout_s for name, each in registry.items()})
        while True:
            start = self._starts.get()
            with self._lock:
                self._running, self._stopping = start, None
            ended = self._perform(start, registry)
            with self._lock:
                self._running = None
            _flush()
            self._send(ENDED, start.job, start.token, *ended)

    # -------------------------------------------------------------------------------------- the link

    def _send(self, *frame: object) -> None:
        try:
            packed: bytes = msgpack.packb(frame)
        except UnicodeEncodeError:
            # A file name that is no UTF-8, say, comes as text that cannot be encoded again.
            packed = msgpack.packb([_printable(part) for part in frame])
        with self._sending:
            try:
                self._link.sendall(packed)
            except OSError:
                _end_all()

    def _read(self) -> None:
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
                    self._starts.put(Start(*fields))
                elif kind == STOP:
                    self._stop(*fields)

    def _stop(self, job: str, token: Token, reason: str) -> None:
        with self._lock:
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
            return Ended(State.FAILED, error=f"this node has no task {start.task!r}", final=True)
        folder = self._scratch / f"{start.job}-{start.token[2]}"
        try:
            result = self._call(task, start, folder)
            return Ended(State.SUCCEEDED, encode_result(result))
        except (InvalidJob, Unserialisable, Fail) as error:
            return Ended(State.FAILED, error=str(error), final=True)
        except TaskVerdict as verdict:
            return _ended_by(verdict)
        except BaseException as error:  # noqa: BLE001 - the one place around user code; sys.exit() included
            if self._stopping is not None:
                return Ended(State.CANCELLED, error=self._stopping)
            return Ended(State.FAILED, error=explain(error))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _call(self, task: Task, start: Start, folder: Path) -> Any:
        value = task.call(json.loads(start.payload), self._context(start, folder))
        if not inspect.iscoroutine(value):
            return value
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

    def _context(self, start: Start, folder: Path) -> JobContext:
        told_at = 0.0

        def progress(fraction: float, message: str) -> None:
            nonlocal told_at
            now = time.monotonic()
            if now - told_at >= PROGRESS_PERIOD_S or fraction >= 1.0:
                told_at = now
                self._send(PROGRESS, start.job, start.token, fraction, str(message)[:ERROR_MESSAGE_CHARS])

        return JobContext(
            job_id=start.job,
            attempt=start.attempt,
            fence=Fence(*start.token),
            tmp=folder,
            is_cancelled=lambda: self._stopping is not None,
            on_progress=progress,
            on_log=_log,
        )


def _ended_by(verdict: TaskVerdict) -> Ended:
    match verdict:
        case Retry():
            after_s = -1.0 if verdict.after_s is None else verdict.after_s
            return Ended(State.FAILED, error=verdict.reason, retry_after_s=after_s)
        case Cancel():
            return Ended(State.CANCELLED, error=verdict.reason)
        case _:
            return Ended(State.FAILED, error=explain(verdict))


def explain(error: BaseException) -> str:
    """What went wrong, for the job's record: type, message, and the task's own last lines; bounded."""
    message = str(error)
    if len(message) > ERROR_MESSAGE_CHARS:
        message = message[:ERROR_MESSAGE_CHARS] + "…"
    lines = [f"{type(error).__name__}: {message}" if message else type(error).__name__]
    here = os.path.dirname(__file__)
    ours = (__file__, os.path.join(os.path.dirname(here), "task.py"))
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in ours
    ]  # fmt: skip
    for frame in frames[-ERROR_FRAMES:]:
        code = f": {frame.line[:120]}" if frame.line else ""
        lines.append(f"  {frame.filename}, line {frame.lineno}, in {frame.name}{code}")
    return "\n".join(lines)


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
    descriptor, parent, scratch, *modules = sys.argv[1:]
    die_with_parent(int(parent))
    # The node decides what an interrupt means. Handlers, not SIG_IGN: that would pass on to every program
    # that a task starts, and those could then not be terminated.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)
    faulthandler.enable(all_threads=False)
    sys.stdout.reconfigure(line_buffering=True, errors="replace")  # type: ignore[union-attr]
    # A program that a task starts must not hold the socket: its end is how a death is noticed.
    os.set_inheritable(int(descriptor), False)
    Worker(socket.socket(fileno=int(descriptor)), Path(scratch)).serve(modules)
