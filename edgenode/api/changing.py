"""What a client may still want of a job: that it ends, or that it is tried again. By id, or all that fit.

Neither changes an outcome that is settled. A cancel is noted by the job's holders, whoever owns it; a retry
is a new job, of which the old one's id is the key: however often it is asked for, and where, there is one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from aiohttp import web

from edgenode.api import render
from edgenode.api.answers import dump, json_response
from edgenode.api.problems import JobEnded, NotRetryable, ResultExpired
from edgenode.api.requests import body_of, job_id, parameters, preferred_wait_s, wanted_jobs
from edgenode.api.retries import RETRYABLE, retry_id
from edgenode.api.service import Service
from edgenode.api.specs import ITEMS_MAX, SpecMaker, fingerprint, too_many
from edgenode.api.submitting import Submitting
from edgenode.core.errors import EdgeNodeError, OutcomeUnknown, to_problem
from edgenode.core.job_ids import job_text
from edgenode.core.jobs import Record, is_marker
from edgenode.core.settings import JobSettings
from edgenode.core.signals import ReadDone
from edgenode.core.specs import Spec, decode_spec
from edgenode.core.types import TERMINAL, JobId, NodeId, Seconds, State
from edgenode.core.wire import Query

CANCEL_WAIT_S: Final[Seconds] = 2.0
"""How long a cancel waits for the job's end, unless the client says: longer than a takeover takes."""
PAGE: Final = 500
Holders = tuple[NodeId, ...]


class Changing:
    """The handlers. Each either returns an answer or raises an `EdgeNodeError`."""

    def __init__(self, service: Service, settings: JobSettings, submitting: Submitting) -> None:
        self._service = service
        self._settings = settings
        self._submitting = submitting

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/jobs/cancel", self.cancel_many),
            web.post("/v1/jobs/retry", self.retry_many),
            web.post("/v1/jobs/{id}/cancel", self.cancel),
            web.post("/v1/jobs/{id}/retry", self.retry),
        ]

    # ------------------------------------------------------------------------------------- cancels

    async def cancel(self, request: web.Request) -> web.Response:
        """200: it is cancelled; 202: it will be, unless it ends first; 409: it ended otherwise."""
        job, wait_s = job_id(request), preferred_wait_s(request)
        parameters(request)
        await body_of(request)
        found = await self._found(job)
        ended, seen = await self._cancel([found], CANCEL_WAIT_S if wait_s is None else wait_s)
        answer = ended[job]
        if isinstance(answer, EdgeNodeError):
            raise answer
        if answer.state in TERMINAL and answer.state is not State.CANCELLED:
            raise JobEnded(f"the job {answer.state} before it was cancelled", state=answer.state)
        is_over = answer.state in TERMINAL
        body = (
            render.read_body(seen, job)
            if seen is not None and job in seen.records
            else render.job_body(answer)
        )
        return json_response(
            body, status=200 if is_over else 202, wait_s=wait_s, retry_after_s=None if is_over else 1.0
        )

    async def cancel_many(self, request: web.Request) -> web.Response:
        """Of each job what became of it, in the order of the ids, or by falling id."""
        wait_s = preferred_wait_s(request)
        parameters(request)
        wanted = wanted_jobs(await body_of(request))
        records, refused = await self._select(wanted, frozenset(set(State) - TERMINAL))
        ended, _ = await self._cancel(records, CANCEL_WAIT_S if wait_s is None else wait_s)
        answers = [_told(ended[job] if job in ended else refused[job], job) for job in (*refused, *ended)]
        is_open = any(isinstance(each, Record) and each.state not in TERMINAL for each in ended.values())
        return json_response(dump({"jobs": answers}), status=202 if is_open else 200, wait_s=wait_s)

    async def end(self, jobs: Sequence[JobId], *, wait_s: Seconds) -> None:
        """Cancel those that have not ended."""
        done = await self._service.read(jobs, wait_s=0.0, timeout_s=self._settings.read_s)
        await self._cancel(list(done.records.values()), wait_s)

    async def _cancel(
        self, records: Sequence[Record], wait_s: Seconds
    ) -> tuple[dict[JobId, Record | EdgeNodeError], ReadDone | None]:
        """Each job as it is when its end was waited for, or why that is not known."""
        service, settings = self._service, self._settings
        ended: dict[JobId, Record | EdgeNodeError] = {record.id: record for record in records}
        running = [record for record in records if record.state not in TERMINAL]
        if not running:
            return ended, None
        wishes = [(record.id, record.holders) for record in running]
        noted = set((await service.cancel(wishes, timeout_s=settings.submit_s)).jobs)
        seen = await service.read([job for job, _ in wishes], wait_s=wait_s, timeout_s=settings.read_s)
        for job, _ in wishes:
            record = seen.records.get(job)
            if record is not None and (job in noted or record.state in TERMINAL):
                ended[job] = record
            else:
                text = "too few of the job's holders answered: it may be cancelled later"
                ended[job] = OutcomeUnknown(text, job=job_text(job))
        return ended, seen

    # ------------------------------------------------------------------------------------- retries

    async def retry(self, request: web.Request) -> web.Response:
        """202 with the new job, as a submission has it."""
        job, wait_s = job_id(request), preferred_wait_s(request)
        parameters(request)
        await body_of(request)
        self._submitting.check_open()
        record = await self._found(job)
        maker = await self._submitting.spec_maker(_tasks_of([record]))
        made = self._again(maker, record)
        return await self._submitting.send(request, [made], wait_s=wait_s)

    async def retry_many(self, request: web.Request) -> web.Response:
        """A new job for each that failed, was cancelled or expired, or the reason why there is none."""
        wait_s = preferred_wait_s(request)
        parameters(request)
        wanted = wanted_jobs(await body_of(request))
        self._submitting.check_open()
        records, refused = await self._select(wanted, RETRYABLE)
        maker = await self._submitting.spec_maker(_tasks_of(records))
        made: list[Spec | EdgeNodeError] = list(refused.values())
        for record in records:
            try:
                made.append(self._again(maker, record))
            except EdgeNodeError as error:
                made.append(error)
        if not made:
            return json_response(b'{"jobs":[]}', wait_s=wait_s)
        return await self._submitting.send(request, made, is_list=True, wait_s=wait_s)

    def _again(self, maker: SpecMaker, record: Record) -> Spec:
        """The spec of the job that is to try this one's work again.

        Raises:
            EdgeNodeError: it did not end badly, or nobody knows its payload any more.
        """
        job, old = record.id, decode_spec(record.spec)
        if record.state not in RETRYABLE:
            text = f"the job is {record.state}: what failed, was cancelled or expired can be retried"
            raise NotRetryable(text, state=record.state, job=job_text(job))
        if is_marker(record):
            raise ResultExpired("its payload is not kept any more", state=record.state, job=job_text(job))
        document = {"task": old.task, "payload": json.loads(old.payload)} | render.options_fields(old.options)
        spec = maker.spec(document)
        options = replace(spec.options, retry_of=job_text(job), fingerprint=fingerprint(document))
        return replace(spec, id=retry_id(job), options=options)

    # ------------------------------------------------------------------------------------- finding

    async def _found(self, job: JobId) -> Record:
        done = await self._service.read([job], wait_s=0.0, timeout_s=self._settings.read_s)
        if job in done.errors:
            raise done.errors[job]
        return done.records[job]

    async def _select(
        self, wanted: Sequence[JobId] | Query, states: frozenset[State]
    ) -> tuple[list[Record], dict[JobId, EdgeNodeError]]:
        """The jobs of these ids, and why some cannot be had; or all that fit, of those in these states."""
        read_s = self._settings.read_s
        if not isinstance(wanted, Query):
            done = await self._service.read(wanted, wait_s=0.0, timeout_s=read_s)
            return [done.records[job] for job in wanted if job in done.records], dict(done.errors)
        records: list[Record] = []
        query = wanted._replace(limit=PAGE)
        while True:
            page = await self._service.search(query, timeout_s=read_s)
            records += [record for record in page.records if record.state in states]
            if len(records) > ITEMS_MAX:
                raise too_many()
            if not page.next:
                return records, {}
            query = query._replace(after=page.next)


def _tasks_of(records: Iterable[Record]) -> set[str]:
    return {decode_spec(record.spec).task for record in records}


def _told(answer: Record | EdgeNodeError, job: JobId) -> Mapping[str, Any]:
    if isinstance(answer, EdgeNodeError):
        return to_problem(answer, instance=f"/v1/jobs/{job_text(job)}") | {"job": job_text(job)}
    return {"id": job_text(job), "state": answer.state, "settled": answer.settled}
