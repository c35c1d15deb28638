"""A pool of workers in a test, and what it reported."""

from __future__ import annotations

import asyncio
import json
import os
import select
from collections.abc import Callable
from typing import Any

from edgenode.core.signals import Run, RunEnded
from edgenode.core.specs import AS_ITS_TASK, Options, Spec
from edgenode.core.types import JobId, NodeId, Room, StartToken
from edgenode.shell.worker import WorkerPool

OWNER = NodeId("abcdefghijklmnop")
LIMIT_S = 20.0


class Pool:
    """A pool, and what it reported."""

    def __init__(self, modules: list[str], **options: Any) -> None:
        self.ended: list[RunEnded] = []
        self.output: dict[JobId, str] = {}
        self.progress: list[tuple[float, str]] = []
        self.partials: list[bytes] = []
        self.troubles: list[str | None] = []
        self.rooms: list[Room] = []
        self._changed = asyncio.Event()
        self._numbers = 0
        self.pool = WorkerPool(
            modules=modules,
            on_ended=self._note(self.ended.append),
            on_progress=self._note(lambda job, token, fraction, text: self.progress.append((fraction, text))),
            on_partial=self._note(lambda job, token, value: self.partials.append(value)),
            on_output=self._note(self._keep),
            on_trouble=self._note(self.troubles.append),
            on_room=self._note(lambda room, ahead: self.rooms.append(room)),
            **({"slots": 1} | options),
        )

    def _note(self, keep: Callable[..., None]) -> Callable[..., None]:
        def noted(*arguments: Any) -> None:
            keep(*arguments)
            self._changed.set()

        return noted

    def _keep(self, job: JobId, token: StartToken, text: str) -> None:
        self.output[job] = self.output.get(job, "") + text

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def give(self, task: str, timeout_s: float = AS_ITS_TASK, **payload: Any) -> Run:
        self._numbers += 1
        job = JobId(self._numbers.to_bytes(16, "big"))
        spec = Spec(job, task, json.dumps(payload).encode(), 0.0, 0.0, Options(timeout_s=timeout_s))
        run = Run(job, StartToken(1, OWNER, 1), spec, attempt=1)
        self.pool.run(run)
        return run

    async def end_of(self, run: Run) -> RunEnded:
        await self.until(lambda: any(each.job == run.job for each in self.ended))
        (found,) = [each for each in self.ended if each.job == run.job]
        assert found.token == run.token
        return found

    async def first_line(self, run: Run) -> str:
        """What the task writes first: it runs."""
        await self.until(lambda: "\n" in self.output.get(run.job, ""))
        return self.output[run.job].partition("\n")[0]

    async def do(self, task: str, timeout_s: float = AS_ITS_TASK, **payload: Any) -> RunEnded:
        return await self.end_of(self.give(task, timeout_s, **payload))

    async def works(self) -> bool:
        ended = await self.do("echo", value="still here")
        return ended.verdict.result == b'"still here"' and not ended.lost


def wait_for_death(pid: int) -> bool:
    """Wait for the end of a process that is not our child."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        readable, _, _ = select.select([handle], [], [], LIMIT_S)
        return bool(readable)
    finally:
        os.close(handle)
