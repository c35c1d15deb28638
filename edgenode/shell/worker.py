"""Where tasks run on this node: one start of a job in, exactly one `RunEnded` out.

User code runs in other processes, so it can neither block nor crash the node, and can be killed. A `def` has
a process to itself, of which the pool keeps `slots`, started ahead; coroutines share one more, `async_slots`
at a time. Whatever becomes of a process (its task returns, raises, hangs, exits, is killed, cannot be
imported), the runs it had are ended once each, and it is replaced. Only `inline` coroutines run here, in the
node's own event loop: that they take microseconds is their author's word.

A run ends as *lost* when its process died under it: that says nothing of how the task would have ended. A
timeout is no loss but a failed attempt: the task itself was too slow.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Final

from edgenode.core.signals import Run, RunEnded
from edgenode.core.types import JobId, Room, Seconds, StartToken
from edgenode.shell.crew import Crew, Plan
from edgenode.shell.inline import Inline
from edgenode.shell.worker_main import SHARED, WHOLE
from edgenode.task import Registry

OnEnded = Callable[[RunEnded], None]
OnProgress = Callable[[JobId, StartToken, float, str], None]
OnPartial = Callable[[JobId, StartToken, bytes], None]
OnOutput = Callable[[JobId, StartToken, str], None]
OnTrouble = Callable[[str | None], None]
OnRoom = Callable[[Room, int], None]

STOP_GRACE_S: Final[Seconds] = 2.0
"""Between the wish that a start ends (`ctx.cancelled`) and the kill."""


class WorkerPool:
    """Runs starts. Drive it from one event loop: `start`, `run` and `stop`, then `close`.

    At most as many runs at a time as there are slots of each kind, and as many more as are taken ahead: the
    core keeps to that by itself. The callbacks are called from the event loop; `on_ended` exactly once per
    run, `close` included.
    """

    def __init__(
        self,
        *,
        slots: int,
        modules: Sequence[str],
        on_ended: OnEnded,
        async_slots: int = 0,
        registry: Registry | None = None,
        on_progress: OnProgress = lambda job, token, fraction, message: None,
        on_partial: OnPartial = lambda job, token, value: None,
        on_output: OnOutput = lambda job, token, text: None,
        on_trouble: OnTrouble = lambda trouble: None,
        on_room: OnRoom = lambda room, ahead: None,
        scratch: Path | None = None,
        python: str = sys.executable,
        runs_max: int = 0,
        memory_bytes_max: int = 0,
    ) -> None:
        """Nothing is started yet.

        Args:
            modules: as for `load_tasks`.
            registry: what they contain: says which tasks are coroutines, and which of those run inline.
                Without it each task gets a process to itself.
            on_output: gets what a task writes or logs, as it comes.
            on_trouble: told in words why workers cannot be started, once while the reason is the same; and
                None when they can again.
            on_room: told for how many runs there is room when that changes: none while no process can be
                had; in between a run ends without having begun. And how many more are taken while the
                runs of processes are short: they wait for their turn, and if that does not come soon they
                end without having begun.
            scratch: a folder of this pool alone, emptied at the start; by default a temporary one.
            runs_max: after so many runs a process is replaced; 0: never.
            memory_bytes_max: after a run that leaves its process with more memory for itself, too; 0: never.
        """
        assert slots > 0
        self.on_ended = on_ended
        self.on_progress = on_progress
        self.on_partial = on_partial
        self.on_output = on_output
        self._on_trouble = on_trouble
        self._on_room = on_room
        self._scratch = scratch
        self._folder_numbers = count(1)
        self._full_room = Room(slots, async_slots)
        self._told = self._full_room, 0
        tasks = {} if registry is None else dict(registry)
        self._coroutines = frozenset(
            name for name, task in tasks.items() if task.is_async and not task.inline
        )

        def crew(kind: str, processes: int, capacity: int) -> Crew:
            plan = Plan(kind, processes, capacity, python, tuple(modules), self._new_folder)
            return Crew(self, replace(plan, runs_max=runs_max, memory_bytes_max=memory_bytes_max))

        self._whole = crew(WHOLE, slots, 1)
        self._shared = crew(SHARED, 1, async_slots) if self._coroutines else None
        self._crews = [each for each in (self._whole, self._shared) if each is not None]
        inline = {name: task for name, task in tasks.items() if task.inline}
        self._inline = Inline(self, inline, self._new_folder) if inline else None
        self._trouble: str | None = None
        self._is_closed = False

    # ---------------------------------------------------------------------------------- life of a pool

    async def start(self) -> None:
        """Start all processes, and return before they are ready; runs may be given at once."""
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="edgenode-"))
        else:
            await asyncio.to_thread(_empty, self._scratch)
        for crew in self._crews:
            crew.start()

    async def ready(self) -> str | None:
        """Wait until a process of each kind has loaded the tasks: None, or why the first one could not."""
        for crew in self._crews:
            await crew.first_word.wait()
        return self._trouble

    @property
    def pids(self) -> list[int]:
        """Of the living worker processes."""
        return [pid for crew in self._crews for pid in crew.pids]

    async def close(self) -> None:
        """End every run (as lost) and every process, within seconds. Calling it twice is fine."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._inline is not None:
            self._inline.close()
        await asyncio.gather(*(crew.close() for crew in self._crews))
        if self._scratch is not None:
            await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)

    def _new_folder(self) -> Path:
        assert self._scratch is not None
        return self._scratch / str(next(self._folder_numbers))

    # -------------------------------------------------------------------------------------------- runs

    def run(self, run: Run) -> None:
        """Start a run where it belongs, or as soon as there is a process for it; never blocks or raises."""
        task = run.spec.task
        if self._inline is not None and task in self._inline:
            self._inline.run(run)
        elif self._shared is not None and task in self._coroutines:
            self._shared.run(run)
        else:
            self._whole.run(run)

    def stop(self, job: JobId, token: StartToken, reason: str, grace_s: Seconds = STOP_GRACE_S) -> None:
        """Ask a run to end, and kill it after `grace_s`; nothing if it has ended already."""
        for crew in self._crews:
            crew.stop((job, token), reason, grace_s)
        if self._inline is not None:
            self._inline.stop((job, token), reason, grace_s)

    # --------------------------------------------------------------------------------- what is reported

    def run_ended(self, ended: RunEnded) -> None:
        self.on_ended(ended)

    def told_progress(self, run: Run, fraction: float, message: str) -> None:
        self.on_progress(run.job, run.token, fraction, message)

    def told_partial(self, run: Run, value: bytes) -> None:
        self.on_partial(run.job, run.token, value)

    def told_output(self, run: Run, text: str) -> None:
        self.on_output(run.job, run.token, text)

    def crew_changed(self) -> None:
        troubles = [crew.trouble for crew in self._crews if crew.trouble is not None]
        trouble = troubles[0] if troubles else None
        if trouble != self._trouble:
            self._trouble = trouble
            self._on_trouble(trouble)
        slots, async_slots = self._full_room
        is_async_able = self._shared is None or self._shared.is_able  # inline tasks need no process
        told = Room(slots * self._whole.is_able, async_slots * is_async_able), self._whole.ahead
        if told != self._told:
            self._told = told
            self._on_room(*told)


def _empty(folder: Path) -> None:
    """Make the folder if it is not there, and remove what a killed life left in it. Not the folder itself: a
    full disk might have no room for another."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
