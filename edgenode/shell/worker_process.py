"""One worker process as its node sees it, from its start until all that it said is read and it is reaped."""

from __future__ import annotations

import asyncio
import codecs
import os
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

import msgpack

from edgenode.core.job_ids import job_text
from edgenode.core.signals import Run, RunEnded
from edgenode.core.specs import timeout_of
from edgenode.core.types import Instant, JobId, Seconds, StartToken, State
from edgenode.core.wire import Verdict
from edgenode.shell import worker_main as protocol
from edgenode.shell.folders import remove_later
from edgenode.shell.output import BURST_CHARS, Marked

PIPE_BYTES: Final = 64 * 1024
OUTPUT_PAUSE_S: Final[Seconds] = 0.02
"""Who writes more than is kept is read this often, a pipe's content at a time: the flood waits, not we."""
TIMEOUT_GRACE_S: Final[Seconds] = 0.5
"""Between the timeout (the task is asked to end) and the kill."""
LAST_WORDS_CHARS: Final = 1_500
LINK_END_S: Final[Seconds] = 0.2
"""How long a dead process's socket may be held open, by a child it forked, before its end counts as seen."""
RECEIVE_BYTES: Final = 256 * 1024
DESCENDANTS_MAX: Final = 10_000
PAGE_BYTES: Final = os.sysconf("SC_PAGESIZE")
# The folder of this package comes last on the path: needed only where it is run without being installed.
_ROOT: Final = str(Path(__file__).parent.parent.parent)
COMMAND: Final = (
    f"import sys; sys.path.append({_ROOT!r}); from edgenode.shell.worker_main import main; main()"
)

Key = tuple[JobId, StartToken]


class Owner(Protocol):
    """Who started a process, and hears of it."""

    timeouts: dict[str, Seconds]  # by task

    def became_ready(self, process: WorkerProcess, timeouts: dict[str, Seconds]) -> None:
        """It has loaded its tasks."""

    def has_room(self, process: WorkerProcess) -> None:
        """A run has ended, and the process goes on."""

    def run_ended(self, ended: RunEnded, took_s: Seconds) -> None: ...

    def told_progress(self, run: Run, fraction: float, message: str) -> None: ...

    def told_partial(self, run: Run, value: bytes) -> None: ...

    def told_output(self, run: Run, text: str) -> None: ...

    def process_gone(self, process: WorkerProcess, trouble: str | None) -> None:
        """It has ended; `trouble` says why, if it had not become ready."""


class Active:
    """A run that the process has: it has begun, or waits for the one before it."""

    def __init__(self, run: Run, timeout_s: Seconds) -> None:
        self.run = run
        self.key = (job_text(run.job), run.token)
        self.timeout_s = timeout_s
        self.began_at: Instant | None = None
        self.is_recalled = False  # it is asked not to begin, and has not answered
        self.timed_out = False
        self.stop_reason: str | None = None
        self.stop_grace_s: Seconds = 0.0
        self.timer: asyncio.TimerHandle | None = None  # of its timeout, then of its kill
        self.chars = 0  # that it has written into the pipe

    @property
    def timeout_text(self) -> str:
        return f"timed out after {self.timeout_s:g} s"

    def cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def killed(self) -> Verdict | None:
        """Its verdict if it was asked to end and did not, so that the process was killed for it."""
        if self.timed_out:
            return _failed(self.timeout_text)
        if self.stop_reason is not None:
            return _cancelled(self.stop_reason)
        return None


def _failed(error: str) -> Verdict:
    return Verdict(State.FAILED, b"", error, -1.0, False)


def _cancelled(reason: str) -> Verdict:
    return Verdict(State.CANCELLED, b"", reason, -1.0, False)


class WorkerProcess:
    """Give it a run when it `is_free`, or one that waits for those before it. Each run ends once, at the
    latest with the process."""

    def __init__(
        self,
        owner: Owner,
        python: str,
        folder: Path,
        modules: Sequence[str],
        *,
        kind: str,
        capacity: int,
        runs_max: int = 0,
    ) -> None:
        """Start it.

        Args:
            folder: for what its tasks put into their temporary folders; goes with the process.
            kind: `worker_main.WHOLE` or `SHARED`.
            runs_max: how many it takes in its life; 0 for any number.

        Raises:
            OSError: there is no process to be had.
        """
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._folder = folder
        self._capacity = capacity
        self._is_serial = kind == protocol.WHOLE
        self._runs_max = runs_max
        self._link, theirs = socket.socketpair()
        self._pipe, their_pipe = os.pipe()
        arguments = [str(theirs.fileno()), str(os.getpid()), str(folder), kind, *modules]
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
        self._ready_at: Instant = 0.0
        self._given = 0  # runs, until now
        self._is_retired = False
        self._trouble: str | None = None
        # With the job's id as text, as it is sent. One after the other the process runs them in this order.
        self._active: dict[tuple[str, StartToken], Active] = {}
        self._marked = Marked()
        self._unheard: deque[tuple[bytes, bool]] = deque()  # read from the pipe: words, and if a mark follows
        self._marks = 0  # that were heard, of starts whose end was not
        self._killed = False
        self._exited = False
        self._link_ended = False
        self._outbox = bytearray()
        self._unpacker = msgpack.Unpacker(use_list=False)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._last_words = ""
        self._link.setblocking(False)
        os.set_blocking(self._pipe, False)
        self._loop.add_reader(self._link.fileno(), self._receive)
        self._loop.add_reader(self._pipe, self._read_output)
        try:
            threading.Thread(target=self._wait, name=f"edgenode-wait-{self.pid}", daemon=True).start()
        except RuntimeError as error:
            # No thread is to be had, so nobody would know how it ends.
            self._loop.remove_reader(self._link.fileno())
            self._close_pipe()
            self._link.close()
            self.kill()
            self._process.wait()
            raise OSError(str(error)) from error

    # -------------------------------------------------------------------------------------------- runs

    @property
    def is_free(self) -> bool:
        """Whether one more run would begin at once."""
        return self.was_ready and self.stays and len(self._active) < self._capacity

    @property
    def stays(self) -> bool:
        """Whether it will take further runs, as far as anybody knows."""
        is_spent = self._is_retired or (0 < self._runs_max <= self._given)
        return not (is_spent or self._killed or self._link_ended)

    def stays_for(self, time_s: Seconds) -> bool:
        """Whether it will still take runs so much later, if they come as they did."""
        if not self.stays:
            return False
        if not self._runs_max or not self._given:
            return True
        runs_per_s = self._given / max(self._loop.time() - self._ready_at, 1e-6)
        return self._runs_max - self._given > runs_per_s * time_s

    def retire(self) -> None:
        """Give it no further runs."""
        self._is_retired = True

    @property
    def is_idle(self) -> bool:
        return not self._active

    @property
    def load(self) -> int:
        """How many runs it has."""
        return len(self._active)

    @property
    def is_held_up(self) -> bool:
        """Whether something waits that may still begin here."""
        return any(each.began_at is None and not each.is_recalled for each in self._active.values())

    @property
    def runs_since(self) -> Instant:
        """When the longest of its runs began."""
        began = (each.began_at for each in self._active.values())
        return min((at for at in began if at is not None), default=self._loop.time())

    def run(self, run: Run) -> None:
        assert self._is_serial or len(self._active) < self._capacity
        if not self._active:
            self._last_words = ""
            self._decoder.reset()
        self._given += 1
        spec = run.spec
        active = Active(run, timeout_of(spec.options, self._owner.timeouts.get(spec.task, 0.0)))
        self._active[active.key] = active
        self._send(protocol.RUN, *active.key, spec.task, spec.payload, run.attempt)
        if len(self._active) <= self._capacity:
            self._begins(active)

    def _begins(self, active: Active) -> None:
        active.began_at = self._loop.time()
        if active.stop_reason is not None:
            self._ask_to_end(active, active.stop_reason, active.stop_grace_s)
        elif active.timeout_s > 0:
            active.timer = self._loop.call_later(active.timeout_s, self._run_out, active)

    def stop(self, key: Key, reason: str, grace_s: Seconds) -> None:
        active = self._active.get((job_text(key[0]), key[1]))
        if active is None or active.timed_out:
            return  # it is on its way out
        active.stop_reason, active.stop_grace_s = reason, grace_s
        if active.began_at is None:
            self._recall(active)
        else:
            self._ask_to_end(active, reason, grace_s)

    def recall(self) -> None:
        """What waits here is not to begin: it ends as if it had never come. What has begun goes on."""
        for active in self._active.values():
            if active.began_at is None:
                self._recall(active)

    def _recall(self, active: Active) -> None:
        if not active.is_recalled:
            active.is_recalled = True
            self._send(protocol.RECALL, *active.key)

    def _answered(self, active: Active, *, is_out: bool) -> None:
        """What became of a run that was recalled."""
        active.is_recalled = False
        if not is_out:
            self._hear()
            return  # it had begun
        self._given -= 1
        if active.stop_reason is not None:
            self._end_run(active, _cancelled(active.stop_reason), lost=False, begun=False)
        else:
            self._end_run(active, _failed("it waited for its turn too long"), lost=True, begun=False)
        self._hear()
        if not self._killed and not self._link_ended:
            self._owner.has_room(self)

    def _run_out(self, active: Active) -> None:
        active.timed_out = True
        self._ask_to_end(active, active.timeout_text, TIMEOUT_GRACE_S)

    def _ask_to_end(self, active: Active, reason: str, grace_s: Seconds) -> None:
        active.cancel_timer()
        self._send(protocol.STOP, *active.key, reason)
        active.timer = self._loop.call_later(grace_s, self.kill)

    def _end_run(
        self, active: Active, verdict: Verdict, *, lost: bool, counted: bool = True, begun: bool = True
    ) -> None:
        active.cancel_timer()
        del self._active[active.key]
        took_s = 0.0 if active.began_at is None else self._loop.time() - active.began_at
        run = active.run
        self._owner.run_ended(RunEnded(run.job, run.token, verdict, lost, begun, counted), took_s)
        if self._is_serial and (first := self._first) is not None and first.began_at is None:
            self._begins(first)

    @property
    def _first(self) -> Active | None:
        return next(iter(self._active.values()), None)

    # ---------------------------------------------------------------------------------------- the link

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
        try:
            for kind, *fields in frames:
                self._heard(kind, fields)
        except (TypeError, ValueError) as error:
            # A child that the task forked may have written into the middle of a frame.
            self._trouble = f"the worker process wrote nonsense to its node: {error!r}"
            received = b""
        if not received:
            self._end_link()

    def _heard(self, kind: int, fields: list[Any]) -> None:
        if kind == protocol.READY:
            timeouts, self._marked.mark = fields
            self.was_ready = True
            self._ready_at = self._loop.time()
            self._owner.became_ready(self, timeouts)
            return
        if kind == protocol.BROKEN:
            (self._trouble,) = fields
            return
        job, token, *rest = fields
        active = self._active.get((job, token))
        if active is None:
            return  # a thread that the task left behind
        if kind == protocol.PROGRESS:
            self._owner.told_progress(active.run, *rest)
        elif kind == protocol.PARTIAL:
            self._owner.told_partial(active.run, *rest)
        elif kind == protocol.OUTPUT:
            self._owner.told_output(active.run, *rest)
        elif kind == protocol.RECALLED:
            (is_out,) = rest
            self._answered(active, is_out=is_out)
        elif kind == protocol.ENDED:
            state, result, error, retry_after_s, final = rest
            self._ended_by_itself(active, Verdict(State(state), result, error, retry_after_s, final))

    def _ended_by_itself(self, active: Active, verdict: Verdict) -> None:
        self._drain()
        self._marks = max(0, self._marks - 1)
        if active.timed_out and verdict.state is not State.SUCCEEDED:
            verdict = _failed(active.timeout_text)
        self._end_run(active, verdict, lost=False)
        if not self._killed and not self._link_ended:
            self._owner.has_room(self)

    # -------------------------------------------------------------------------------------- its output

    @property
    def _speaker(self) -> Active | None:
        """Whose what comes through the pipe now is: in a shared process, only if nothing else runs."""
        if self._is_serial:
            return next(islice(self._active.values(), self._marks, None), None)
        return self._first if len(self._active) == 1 else None

    def _read_output(self) -> None:
        """The pipe has something; read a pipe's content at most, and pause after more than is kept."""
        self._drain(reads=1)
        speaker = self._speaker
        is_flood = speaker is not None and speaker.chars > BURST_CHARS
        if (is_flood or self._unheard) and not self._exited:
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
            *ended, last = self._marked.split(written)
            self._unheard += [*((words, True) for words in ended), (last, False)]
            self._hear()

    def _hear(self) -> None:
        """What was written is told, as soon as it is known whose it is."""
        while self._unheard:
            speaker = self._speaker
            if speaker is not None and speaker.is_recalled:
                return  # it, or who comes after it
            words, is_last = self._unheard.popleft()
            text = self._decoder.decode(words, final=is_last)
            self._last_words = (self._last_words + text)[-LAST_WORDS_CHARS:]
            if text and speaker is not None:
                speaker.chars += len(text)
                self._owner.told_output(speaker.run, text)
            if is_last:
                self._marks += 1
                self._last_words = ""

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1

    # ----------------------------------------------------------------------------------------- its end

    def kill(self) -> None:
        """End the process, and what its tasks started, at once."""
        self._killed = True
        if not self._exited:
            # Not yet reaped, so the number is still its own, even if it is dead. Programs in a session of
            # their own would outlive the group: it stands still while they are looked for.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGSTOP)
            for pid in descendants(self.pid):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def end(self, reason: str) -> None:
        """End its runs as lost, and the process."""
        for active in self._taken_out():
            self._end_run(active, _failed(reason), lost=True)
        self.kill()

    def _taken_out(self) -> list[Active]:
        """The runs that it has begun, now that no more begin: those that wait end as if they had not come."""
        begun = [active for active in self._active.values() if active.began_at is not None]
        for active in list(self._active.values()):
            if active.began_at is None:
                if active.stop_reason is not None:
                    self._end_run(active, _cancelled(active.stop_reason), lost=False, begun=False)
                else:
                    self._end_run(active, _failed("its process has ended"), lost=True, begun=False)
        return begun

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
        for active in self._active.values():
            active.is_recalled = False  # no answer comes any more
        self._drain()
        self._hear()
        self._close_pipe()
        self._link.close()
        remove_later(self._loop, self._folder)
        self.gone.set_result(None)
        end = self._how_it_ended()
        trouble = None if self.was_ready else self._trouble or f"{end} while it started"
        self._owner.process_gone(self, trouble)
        begun = self._taken_out()
        blamed = {active.key: verdict for active in begun if (verdict := active.killed())}
        for active in begun:
            if active.key in blamed:
                self._end_run(active, blamed[active.key], lost=False)
            else:
                why = f"{end}, for another job that it ran" if blamed else self._trouble or end
                self._end_run(active, _failed(why), lost=True, counted=not blamed)

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


def private_bytes(pid: int) -> int:
    """The memory that a process has for itself alone; 0 where nobody knows.

    Its resident pages without those that it shares, as libraries are (Linux: proc(5), `statm`).
    """
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            _, resident, shared, *_ = map(int, file.read().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * PAGE_BYTES


def descendants(pid: int) -> list[int]:
    """The children of a process, and theirs, as far as the system tells (Linux: proc(5), `children`)."""
    found: list[int] = []
    ahead = [pid]
    while ahead and len(found) < DESCENDANTS_MAX:
        children = _children(ahead.pop())
        found += children
        ahead += children
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                children += map(int, file.read().split())
    return children
