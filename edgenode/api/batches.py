"""A batch as one: how far it is, which of its jobs ended how, waiting for all of it, ending what is left.

Nothing is stored about a batch: its id says how many jobs it has, and what their ids are (core/batches.py).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from edgenode.api.answers import dump, json_response
from edgenode.api.changing import Changing
from edgenode.api.problems import NoSuchBatch
from edgenode.api.requests import no_body, parameters, preferred_wait_s
from edgenode.api.service import Service
from edgenode.core.batches import Batch, batch_size, batch_text, job_of, parse_batch
from edgenode.core.errors import RejectedInput, Undecided
from edgenode.core.job_ids import job_text
from edgenode.core.jobs import Record
from edgenode.core.settings import JobSettings
from edgenode.core.types import TERMINAL, JobId, Seconds, State

CHUNK: Final = 100
"""Jobs that are read at one time: they come with payloads and results, a megabyte each."""
PAUSE_S: Final[Seconds] = 0.25
"""Between two looks that brought nothing new: one for a job that nobody has who answers ends at once."""


@dataclass(slots=True)
class Progress:
    """How far the jobs of a batch are."""

    batch: Batch
    states: dict[JobId, tuple[State, bool]] = field(default_factory=dict)  # and whether that is settled
    unknown: set[JobId] = field(default_factory=set)  # who may have them does not answer

    def note(self, record: Record) -> None:
        self.states[record.id] = record.state, record.settled

    @property
    def open(self) -> list[JobId]:
        """Those that have not come to a settled end."""
        return [job for job, (state, settled) in self.states.items() if not (state in TERMINAL and settled)]

    @property
    def waiting(self) -> list[JobId]:
        """Those to wait for now. A read ends as soon as one of its jobs is not to be had, so the unknown ones
        come when the others have ended."""
        return self.open or sorted(self.unknown)

    def fields(self) -> dict[str, Any]:
        counts = Counter(state for state, _ in self.states.values())
        size = batch_size(self.batch)
        return {
            "id": batch_text(self.batch),
            "size": size,
            "states": {str(state): counts[state] for state in State if counts[state]},
            "missing": size - len(self.states) - len(self.unknown),
            "unknown": len(self.unknown),
            "ended": not self.unknown and all(state in TERMINAL for state, _ in self.states.values()),
            "settled": not self.unknown and not self.open,
        }


class Batches:
    """The handlers. Each either returns an answer or raises an `EdgeNodeError`."""

    def __init__(self, service: Service, settings: JobSettings, changing: Changing) -> None:
        self._service = service
        self._settings = settings
        self._changing = changing

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/batches/{id}", self.show),
            web.get("/v1/batches/{id}/jobs", self.list_jobs),
            web.post("/v1/batches/{id}/cancel", self.cancel),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """Counts by state; with `Prefer: wait`, when all have ended or the time is over."""
        wait_s = preferred_wait_s(request)
        parameters(request)
        progress = await self._read(_batch_of(request), wait_s or 0.0)
        return json_response(dump(progress.fields()), wait_s=wait_s)

    async def list_jobs(self, request: web.Request) -> web.Response:
        """Each job's id and state, in the order of the batch."""
        parameters(request)
        progress = await self._read(_batch_of(request), 0.0)
        jobs = [
            {"id": job_text(job), "state": state, "settled": settled}
            for job, (state, settled) in sorted(progress.states.items())
        ]
        return json_response(dump(progress.fields() | {"jobs": jobs}))

    async def cancel(self, request: web.Request) -> web.Response:
        """End all that have not ended. 202 if some still go on, or nobody knows."""
        wait_s = preferred_wait_s(request)
        parameters(request)
        await no_body(request)
        batch = _batch_of(request)
        progress = await self._read(batch, 0.0)
        await self._changing.end(progress.open)
        progress = await self._read(batch, 2.0 if wait_s is None else wait_s)
        fields = progress.fields()
        return json_response(dump(fields), status=200 if fields["ended"] else 202, wait_s=wait_s)

    async def _read(self, batch: Batch, wait_s: Seconds) -> Progress:
        """
        Raises:
            NoSuchBatch: no member knows any of its jobs.
            Undecided: nor do they know that there are none.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + wait_s
        progress = Progress(batch)
        await self._look(progress, [job_of(batch, place) for place in range(batch_size(batch))], 0.0)
        if not progress.states:
            if progress.unknown:
                raise Undecided("none of its jobs was found, and not all members answer")
            raise NoSuchBatch("no member knows a job of this batch")
        while (left_s := ends_at - loop.time()) > 0 and (waiting := progress.waiting):
            # The first ones are waited for; the others run on meanwhile.
            await self._look(progress, waiting[:CHUNK], left_s)
            if progress.waiting == waiting:
                await asyncio.sleep(max(0.0, min(PAUSE_S, ends_at - loop.time())))
        if wait_s > 0:
            await self._look(progress, [*progress.open, *sorted(progress.unknown)], 0.0)
        return progress

    async def _look(self, progress: Progress, jobs: Sequence[JobId], wait_s: Seconds) -> None:
        for piece in _pieces(jobs):
            done = await self._service.read(piece, wait_s=wait_s, timeout_s=self._settings.read_s)
            for record in done.records.values():
                progress.note(record)
            progress.unknown.difference_update(piece)
            known = progress.states
            progress.unknown |= {
                job for job, error in done.errors.items() if isinstance(error, Undecided) and job not in known
            }
            await asyncio.sleep(0)


def _pieces(jobs: Sequence[JobId]) -> list[Sequence[JobId]]:
    return [jobs[at : at + CHUNK] for at in range(0, len(jobs), CHUNK)]


def _batch_of(request: web.Request) -> Batch:
    text = request.match_info["id"]
    batch = parse_batch(text)
    if batch is None:
        raise RejectedInput(
            f"{text!r:.80} is not a batch id, as the answer to a list of jobs has it", field="id"
        )
    return batch
