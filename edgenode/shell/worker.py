"""The node's side of its worker processes: one start of a job in, exactly one `RunEnded` out.

User code runs in other processes, so it can neither block nor crash the node, and can be killed. A pool
keeps `slots` of them, started ahead. Whatever becomes of one (it returns, raises, hangs, exits, is killed,
cannot import its tasks), the run it had is ended once, and the process is replaced.

A run ends as *lost* when its process died under it: that says nothing of how the task would have ended. A
timeout is no loss but a failed attempt: the task itself was too slow.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

import msgpack

from edgenode.core.jobs import job_text
from edgenode.core.signals import Run, RunEnded
from edgenode.core.types import JobId, Seconds, StartToken, State
from edgenode.core.wire import Verdict
from edgenode.shell import worker_main as protocol

OnEnded = Callable[[RunEnded], None]
OnProgress = Callable[[JobId, StartToken, float, str], None]
OnOutput = Callable[[JobId, StartToken, str], None]
OnTrouble = Callable[[str | None], None]

OUTPUT_CHARS_MAX: Final = 64 * 1024
"""Of what one start writes or logs; the rest is dropped."""
OUTPUT_DROPPED: Final = "\n[further output is dropped]\n"
PIPE_BYTES: Final = 64 * 1024
OUTPUT_PAUSE_S: Final[Seconds] = 0.02
"""Who writes more than is kept is read this often, a pipe's content at a time: the flood waits, not we."""
TIMEOUT_GRACE_S: Final[Seconds] = 0.5
"""Between the timeout (the task is asked to end) and the kill."""
STOP_GRACE_S: Final[Seconds] = 5.0
LAST_WORDS_CHARS: Final = 1_500
RESPAWN_MIN_S: Final[Seconds] = 0.5
RESPAWN_MAX_S: Final[Seconds] = 30.0
"""A process that dies before it did anything is tried again after this, doubled each time."""
LINK_END_S: Final[Seconds] = 0.2
"""How long a dead process's socket may be held open, by a child it forked, before its end counts as seen."""
CLOSE_S: Final[Seconds] = 2.0
RECEIVE_BYTES: Final = 256 * 1024
# The folder of this package comes last on the path: needed only where it is run without being installed.
_ROOT: Final = str(Path(__file__).parent.parent.parent)
COMMAND: Final = (
    f"import sys; sys.path.append({_ROOT!r}); from edgenode.shell.worker_main import main; main()"
)


class WorkerPool:
    """Runs starts in processes. Drive it from one event loop: `start`, `run` and `stop`, then `close`.

    At most `slots` runs at a time, which the core keeps to by itself. The callbacks are called from the
    event loop; `on_ended` exactly once per run, `close` included.
    """

    def __init__(
        self,
        *,
        slots: int,
        modules: Sequence[str],
        on_ended: OnEnded,
        on_progress: OnProgress = lambda job, token, fraction, message: None,
        on_output: OnOutput = lambda job, token, text: None,
        on_trouble: OnTrouble = lambda trouble: None,
        on_able: Callable[[bool], None] = lambda able: None,
        scratch: Path | None = None,
        python: str = sys.executable,
    ) -> None:
        """Nothing is started yet.

        Args:
            modules: as for `load_tasks`.
            on_output: gets what a task writes or logs, as it comes; bounded for each start.
            on_trouble: told in words why workers cannot be started, once while the reason is the same; and
                None when they can again.
            on_able: told when no process can be had any more, and when one can again: in between a run ends
                without having begun.
            scratch: a folder of this pool alone, emptied at the start; by default a temporary one.
        """
        assert slots > 0
        self._slots = slots
        self._modules = tuple(modules)
        self.on_ended = on_ended
        self.on_progress = on_progress
        self.on_output = on_output
        self._on_trouble = on_trouble
        self._on_able = on_able
        self._is_able = True
        self._scratch = scratch
        self._python = python
        self._workers: set[_Worker] = set()
        self._idle: list[_Worker] = []  # the last used is used next: its caches are warm
        self._busy: dict[tuple[JobId, StartToken], _Worker] = {}
        self._waiting: deque[Run] = deque()  # for a process that is starting; at most `slots`
        self.timeouts: dict[str, Seconds] = {}  # by task, as the tasks themselves say
        self._trouble: str | None = None
        self._failures = 0  # starts of processes, in a row
        self._respawns: set[asyncio.TimerHandle] = set()
        self._first_word = asyncio.Event()
        self._is_closed = False
        self._folder_numbers = count(1)

    # ---------------------------------------------------------------------------------- life of a pool

    async def start(self) -> None:
        """Start all processes, and return before they are ready; runs may be given at once."""
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="edgenode-"))
        else:
            await asyncio.to_thread(_empty, self._scratch)
        for _ in range(self._slots):
            self._spawn()

    async def ready(self) -> str | None:
        """Wait until a process has loaded the tasks: None, or why the first one could not."""
        await self._first_word.wait()
        return self._trouble

    @property
    def pids(self) -> list[int]:
        """Of the living worker processes."""
        return [worker.pid for worker in self._workers]

    async def close(self) -> None:
        """End every run (as lost) and every process, within seconds. Calling it twice is fine."""
        if self._is_closed:
            return
        self._is_closed = True
        self._first_word.set()
        for handle in self._respawns:
            handle.cancel()
        self._fail_waiting("the node stopped before the task was started")
        workers = list(self._workers)
        for worker in workers:
            worker.end("the node stopped")
        if workers:
            await asyncio.wait([worker.gone for worker in workers], timeout=CLOSE_S)
        if self._scratch is not None:
            await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)

    # -------------------------------------------------------------------------------------------- runs

    def run(self, run: Run) -> None:
        """Start a run on a free process, or on the first that becomes free; never blocks or raises."""
        assert len(self._busy) + len(self._waiting) < self._slots or self._is_closed, "more runs than slots"
        self._waiting.append(run)
        if self._is_closed or not self._is_able:
            # Told later, as everything is: a caller need not expect its answer inside its own call.
            asyncio.get_running_loop().call_soon(self._fail_waiting, self._trouble or "the node stopped")
        else:
            self._assign()  # or when the next process is ready

    def stop(self, job: JobId, token: StartToken, reason: str, grace_s: Seconds = STOP_GRACE_S) -> None:
        """Ask a run to end, and kill it after `grace_s`; nothing if it has ended already."""
        worker = self._busy.get((job, token))
        if worker is not None:
            worker.stop(reason, grace_s)
            return
        for run in self._waiting:
            if (run.job, run.token) == (job, token):
                self._waiting.remove(run)
                verdict = Verdict(State.CANCELLED, b"", reason, -1.0, False)
                ended = RunEnded(job, token, verdict, lost=False)
                asyncio.get_running_loop().call_soon(self.on_ended, ended)
                return

    def _assign(self) -> None:
        while self._waiting and self._idle:
            run, worker = self._waiting.popleft(), self._idle.pop()
            self._busy[run.job, run.token] = worker
            worker.run(run)

    def _fail_waiting(self, error: str) -> None:
        """These never reached a process: nothing of them says anything about their jobs."""
        while self._waiting:
            run = self._waiting.popleft()
            verdict = Verdict(State.FAILED, b"", error, -1.0, False)
            self.on_ended(RunEnded(run.job, run.token, verdict, lost=True, begun=False))

    # --------------------------------------------------------------------------- what a worker reports

    def became_ready(self, worker: _Worker, timeouts: dict[str, Seconds]) -> None:
        self.timeouts = timeouts
        self._failures = 0
        self._first_word.set()
        if self._trouble is not None:
            self._trouble = None
            self._on_trouble(None)
        self._tell_able()
        self.became_free(worker)

    def became_free(self, worker: _Worker) -> None:
        self._idle.append(worker)
        self._assign()

    def run_ended(self, ended: RunEnded) -> None:
        del self._busy[ended.job, ended.token]
        self.on_ended(ended)

    def worker_gone(self, worker: _Worker, trouble: str | None) -> None:
        """A process has ended; `trouble` says why, if it had not become ready."""
        self._workers.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        if self._is_closed:
            return
        if trouble is None and worker.was_ready:
            self._spawn()  # it died of its work, or was killed: the next one will do
        else:
            self._start_failed(trouble)

    def _tell_able(self) -> None:
        able = self._trouble is None or any(worker.was_ready for worker in self._workers)
        if able != self._is_able:
            self._is_able = able
            self._on_able(able)

    def _start_failed(self, trouble: str | None) -> None:
        delay_s = min(RESPAWN_MIN_S * 2 ** (self._failures // self._slots), RESPAWN_MAX_S)
        self._failures += 1
        if trouble is not None:
            if trouble != self._trouble:
                self._on_trouble(trouble)
            self._trouble = trouble
            self._first_word.set()
        self._tell_able()
        if not self._is_able and self._trouble is not None:
            self._fail_waiting(self._trouble)

        def due() -> None:
            self._respawns.discard(handle)
            self._spawn()

        handle = asyncio.get_running_loop().call_later(delay_s, due)
        self._respawns.add(handle)

    def _spawn(self) -> None:
        assert self._scratch is not None
        folder = self._scratch / str(next(self._folder_numbers))
        try:
            self._workers.add(_Worker(self, self._python, folder, self._modules))
        except OSError as error:  # there is no process, memory or descriptor to be had now
            self._start_failed(f"a worker process cannot be started: {error}")


def _empty(folder: Path) -> None:
    """Make the folder if it is not there, and remove what a killed life left in it. Not the folder itself: a
    full disk might have no room for another."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


class _Worker:
    """One process, from its start until all that it said is read and it is reaped."""

    def __init__(self, pool: WorkerPool, python: str, folder: Path, modules: Sequence[str]) -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._folder = folder
        self._link, theirs = socket.socketpair()
        self._pipe, their_pipe = os.pipe()
        arguments = [str(theirs.fileno()), str(os.getpid()), str(folder), *modules]
        try:
            # A session of its own: an interrupt at the terminal is for the node alone, and a kill reaches
            # the programs that a task started, too. -P: the working folder must not hide the library.
            # From the loop's thread: the death signal that the child asks for is about the thread (prctl(2)).
            self._process = subprocess.Popen(
                [python, "-P", "-c", COMMAND, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=their_pipe,
                stderr=their_pipe,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError:
            self._link.close()
            os.close(self._pipe)
            raise
        finally:
            theirs.close()
            os.close(their_pipe)
        self.pid = self._process.pid
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self.was_ready = False
        self._trouble: str | None = None
        self._run: Run | None = None
        self._timeout_s: Seconds = 0.0
        self._timed_out = False
        self._stop_reason: str | None = None
        self._timer: asyncio.TimerHandle | None = None  # the run's timeout, then its kill
        self._killed = False
        self._exited = False
        self._link_ended = False
        self._outbox = bytearray()
        self._unpacker = msgpack.Unpacker(use_list=False)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._output_chars = 0
        self._last_words = ""
        self._link.setblocking(False)
        os.set_blocking(self._pipe, False)
        self._loop.add_reader(self._link.fileno(), self._receive)
        self._loop.add_reader(self._pipe, self._read_output)
        threading.Thread(target=self._wait, name=f"edgenode-wait-{self.pid}", daemon=True).start()

    # ------------------------------------------------------------------------------------- one run

    def run(self, run: Run) -> None:
        assert self._run is None
        self._run = run
        self._timed_out, self._stop_reason = False, None
        self._output_chars, self._last_words = 0, ""
        self._decoder.reset()
        spec = run.spec
        self._send(protocol.RUN, job_text(run.job), run.token, spec.task, spec.payload, run.attempt)
        self._timeout_s = spec.options.timeout_s or self._pool.timeouts.get(spec.task, 0.0)
        if self._timeout_s > 0:
            self._timer = self._loop.call_later(self._timeout_s, self._run_out)

    def stop(self, reason: str, grace_s: Seconds) -> None:
        if self._run is None or self._timed_out:
            return  # it is on its way out
        self._stop_reason = reason
        self._ask_to_end(reason, grace_s)

    def _run_out(self) -> None:
        self._timed_out = True
        self._ask_to_end(self._timeout_text, TIMEOUT_GRACE_S)

    def _ask_to_end(self, reason: str, grace_s: Seconds) -> None:
        assert self._run is not None
        self._cancel_timer()
        self._send(protocol.STOP, job_text(self._run.job), self._run.token, reason)
        self._timer = self._loop.call_later(grace_s, self.kill)

    @property
    def _timeout_text(self) -> str:
        return f"timed out after {self._timeout_s:g} s"

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_run(self, verdict: Verdict, *, lost: bool) -> None:
        run = self._run
        assert run is not None
        self._cancel_timer()
        self._run = None
        self._pool.run_ended(RunEnded(run.job, run.token, verdict, lost))

    # ------------------------------------------------------------------------------------- the link

    def _send(self, *frame: object) -> None:
        self._outbox += msgpack.packb(frame)
        self._write()

    def _write(self) -> None:
        try:
            while self._outbox:
                del self._outbox[: self._link.send(self._outbox)]
        except BlockingIOError:
            self._loop.add_writer(self._link.fileno(), self._write)
            return
        except OSError:
            self._outbox.clear()  # it is dead or dying, which is noticed elsewhere
        self._loop.remove_writer(self._link.fileno())

    def _receive(self) -> None:
        try:
            received = self._link.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        frames: list[Any] = []
        try:
            self._unpacker.feed(received)
            frames += self._unpacker
        except (ValueError, msgpack.UnpackException) as error:
            self._trouble = f"the worker process wrote nonsense to its node: {error!r}"
            received = b""
        for kind, *fields in frames:
            self._heard(kind, fields)
        if not received:
            self._end_link()

    def _heard(self, kind: int, fields: list[Any]) -> None:
        if kind == protocol.READY:
            (timeouts,) = fields
            self.was_ready = True
            self._pool.became_ready(self, timeouts)
            return
        if kind == protocol.BROKEN:
            (self._trouble,) = fields
            return
        job, token, *rest = fields
        run = self._run
        if run is None or job != job_text(run.job) or token != tuple(run.token):
            return  # a thread that the task left behind
        if kind == protocol.PROGRESS:
            fraction, message = rest
            self._pool.on_progress(run.job, run.token, fraction, message)
        elif kind == protocol.ENDED:
            state, result, error, retry_after_s, final = rest
            verdict = Verdict(State(state), result, error, retry_after_s, final)
            self._ended_by_itself(verdict)

    def _ended_by_itself(self, verdict: Verdict) -> None:
        self._drain()
        if self._timed_out and verdict.state is not State.SUCCEEDED:
            verdict = Verdict(State.FAILED, b"", self._timeout_text, -1.0, False)
        self._end_run(verdict, lost=False)
        if not self._killed and not self._link_ended:
            self._pool.became_free(self)

    # ------------------------------------------------------------------------------------ its output

    def _read_output(self) -> None:
        """The pipe has something; read a pipe's content at most, and pause if it is more than is kept."""
        self._drain(reads=1)
        if self._output_chars > OUTPUT_CHARS_MAX and not self._exited:
            self._loop.remove_reader(self._pipe)
            self._loop.call_later(OUTPUT_PAUSE_S, self._resume_output)

    def _resume_output(self) -> None:
        if not self.gone.done() and self._pipe >= 0:
            self._loop.add_reader(self._pipe, self._read_output)

    def _drain(self, reads: int = 2) -> None:
        # Two reads are all that was written before the frame that is being handled: a pipe holds no more.
        for _ in range(reads):
            if self._pipe < 0:
                return
            try:
                written = os.read(self._pipe, PIPE_BYTES)
            except BlockingIOError:
                return
            if not written:
                self._close_pipe()
                return
            self._keep_output(self._decoder.decode(written))

    def _keep_output(self, text: str) -> None:
        self._last_words = (self._last_words + text)[-LAST_WORDS_CHARS:]
        left = OUTPUT_CHARS_MAX - self._output_chars
        self._output_chars += len(text)
        run = self._run
        if run is None or left < 0:
            return
        kept = text if len(text) <= left else text[:left] + OUTPUT_DROPPED
        self._pool.on_output(run.job, run.token, kept)

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1

    # --------------------------------------------------------------------------------------- its end

    def kill(self) -> None:
        """End the process, and what its tasks started, at once."""
        self._killed = True
        if not self._exited:
            # Not yet reaped, so the number is still its own, even if it is dead.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def end(self, reason: str) -> None:
        """End the run as lost, and the process."""
        if self._run is not None:
            self._end_run(Verdict(State.FAILED, b"", reason, -1.0, False), lost=True)
        self.kill()

    def _end_link(self) -> None:
        self._link_ended = True
        self._loop.remove_reader(self._link.fileno())
        self._loop.remove_writer(self._link.fileno())
        if self._exited:
            self._finish()
        else:
            self.kill()  # without its link it is of no use, if it is not dead already

    def _wait(self) -> None:
        """A thread of its own, asleep until the process has ended."""
        if hasattr(os, "waitid"):
            # Leave it unreaped: its number must not become another's before the group was killed.
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        else:
            self._process.wait()
        try:
            self._loop.call_soon_threadsafe(self._has_exited)
        except RuntimeError:  # the loop is closed: nobody is interested any more
            self._process.wait()

    def _has_exited(self) -> None:
        self.kill()  # what it left behind in its group
        self._process.wait()
        self._exited = True
        if self._link_ended:
            self._finish()
        else:
            # What it said last may still be in the socket; it ends now, unless a child holds it open.
            self._loop.call_later(LINK_END_S, self._finish)

    def _finish(self) -> None:
        if self.gone.done():
            return
        if not self._link_ended:
            self._loop.remove_reader(self._link.fileno())
            self._loop.remove_writer(self._link.fileno())
            self._link_ended = True
        self._drain()
        self._close_pipe()
        self._link.close()
        self._loop.run_in_executor(None, lambda: shutil.rmtree(self._folder, ignore_errors=True))
        self.gone.set_result(None)
        end = self._how_it_ended()
        trouble = None if self.was_ready else self._trouble or f"{end} while it started"
        if self._run is None:
            self._pool.worker_gone(self, trouble)
            return
        if self._timed_out:
            verdict, lost = Verdict(State.FAILED, b"", self._timeout_text, -1.0, False), False
        elif self._stop_reason is not None:
            verdict, lost = Verdict(State.CANCELLED, b"", self._stop_reason, -1.0, False), False
        else:
            verdict, lost = Verdict(State.FAILED, b"", self._trouble or end, -1.0, False), True
        self._pool.worker_gone(self, trouble)
        self._end_run(verdict, lost=lost)

    def _how_it_ended(self) -> str:
        code = self._process.returncode
        if code is not None and code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = f"signal {-code}"
            text = f"the worker process was killed by {name}"
        else:
            text = f"the worker process exited with code {code}"
        words = self._last_words.strip()
        return f"{text}; its last words: {words}" if words else text
