"""Jobs as they are: listed, shown, with their results, logs and places. Nothing here changes anything."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from functools import reduce
from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from edgenode.api import render
from edgenode.api.answers import dump, json_response
from edgenode.api.logs import log_fields, log_text, names_of, progress_fields, wants_json
from edgenode.api.problems import NoResult, ResultExpired
from edgenode.api.reasons import Reasons
from edgenode.api.requests import cursor_text, job_id, parameters, preferred_wait_s, search_query
from edgenode.api.retries import retries_of
from edgenode.api.service import Service
from edgenode.core.errors import EdgeNodeError
from edgenode.core.job_ids import job_text
from edgenode.core.jobs import Record, as_of, is_marker
from edgenode.core.joining import join
from edgenode.core.reports import told_of
from edgenode.core.settings import JobSettings
from edgenode.core.signals import ReadDone
from edgenode.core.types import JobId, NodeId, Seconds, State
from edgenode.core.wire import Query

PROGRESS_S: Final[Seconds] = 0.5
"""How long a job is shown later for the sake of its progress, if somebody does not answer."""
LIST_S: Final[Seconds] = 1.0
"""How long is looked for jobs that were, or were not, tried again: no search knows of that."""
PAGE_BYTES_MAX: Final = 8 * 1024 * 1024
"""A page ends early past this: a thousand jobs with a megabyte each are no answer for one request."""


@dataclass(slots=True)
class Page:
    """A part of a list of jobs."""

    limit: int
    retried: bool | None  # only those that were tried again, or that were not; None: all
    bodies: list[bytes] = field(default_factory=list)
    size: int = 0
    onward: bytes = b""  # the job behind which the next page begins; b"": this is all
    silent: set[NodeId] = field(default_factory=set)

    def add(self, body: bytes) -> None:
        self.bodies.append(body)
        self.size += len(body)

    @property
    def is_full(self) -> bool:
        return len(self.bodies) >= self.limit or self.size >= PAGE_BYTES_MAX


class Jobs:
    """The handlers. Each either returns an answer or raises an `EdgeNodeError`."""

    def __init__(self, service: Service, settings: JobSettings) -> None:
        self._service = service
        self._settings = settings

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/jobs", self.list),
            web.get("/v1/jobs/{id}", self.show),
            web.get("/v1/jobs/{id}/result", self.result),
            web.get("/v1/jobs/{id}/logs", self.logs),
            web.get("/v1/jobs/{id}/placement", self.placement),
        ]

    async def list(self, request: web.Request) -> web.Response:
        query, filters = search_query(request)
        page = Page(query.limit, {"true": True, "false": False}.get(filters.get("retried", "")))
        reasons = Reasons(self._service)
        until = asyncio.get_running_loop().time() + LIST_S
        while True:
            await self._fill(page, query, reasons)
            is_all = page.retried is None or not page.onward
            if is_all or page.is_full or asyncio.get_running_loop().time() >= until:
                break
            query = query._replace(after=page.onward)
        unanswered = json.dumps(sorted(page.silent)).encode()
        response = json_response(b'{"jobs":[%b],"unanswered":%b}' % (b",".join(page.bodies), unanswered))
        if page.onward:
            cursor = cursor_text(JobId(page.onward))
            target = urlencode(filters | {"limit": str(query.limit), "cursor": cursor})
            response.headers["Link"] = f'</v1/jobs?{target}>; rel="next"'
        return response

    async def _fill(self, page: Page, query: Query, reasons: Reasons) -> None:
        """Add what one search finds, as far as there is room."""
        now = self._service.wall()
        found = await self._service.search(query, timeout_s=self._settings.read_s)
        retries = await retries_of(self._service, found.records)
        page.silent.update(found.unanswered)
        page.onward = found.next
        for record in found.records:
            again = retries.get(record.id)
            if page.retried not in (None, again is not None):
                continue
            reason = reasons.of(record, found.held.get(record.id, ""))
            retried_by = None if again is None else job_text(again)
            page.add(render.job_body(as_of(record, now), waiting_for=reason, retried_by=retried_by))
            if page.is_full:
                if record is not found.records[-1]:
                    page.onward = record.id
                return

    async def show(self, request: web.Request) -> web.Response:
        job, done, wait_s = await self._read(request)
        record = done.records[job]
        extra = await self._progress(record)
        again = (await retries_of(self._service, [record])).get(job)
        extra["retried_by"] = None if again is None else job_text(again)
        extra["waiting_for"] = Reasons(self._service).of(record, done.held.get(job, ""))
        return json_response(render.read_body(done, job, **extra), wait_s=wait_s)

    async def _progress(self, record: Record) -> render.Json:
        """What the job's latest start said of how far it is. A job is shown without, if nobody can tell."""
        if not record.start_count or is_marker(record):
            return {}
        try:
            # Of one node: its owner, which like all living holders was told; when all is over this one does.
            me = self._service.me
            node = me if record.settled and me in record.holders else record.owner
            done = await self._service.reports(record.id, nodes=[node], brief=True, timeout_s=PROGRESS_S)
        except EdgeNodeError:
            return {}
        return progress_fields(done.items, record)

    async def logs(self, request: web.Request) -> web.Response:
        """What each start wrote, logged and said of its progress."""
        job, done, wait_s = await self._read(request)
        record = done.records[job]
        if is_marker(record):
            raise ResultExpired(f"the job {record.state}; its log went when its ttl_s was over")
        # If it had other holders before, what was said then stayed with those.
        nodes = () if record.epoch else record.holders
        reports = await self._service.reports(job, nodes=nodes, brief=False, timeout_s=self._settings.read_s)
        starts = told_of(reports.items)
        if wants_json(request):
            fields = log_fields(job_text(job), starts, reports.unanswered)
            return json_response(dump(fields), wait_s=wait_s)
        text = log_text(starts, reports.unanswered, names_of(self._service.members()))
        return web.Response(text=text)

    async def result(self, request: web.Request) -> web.Response:
        """The bare result: 200 with it, 409 while there is none, 410 when it is not kept any more."""
        job, done, wait_s = await self._read(request)
        record = done.records[job]
        state, outcome = record.state, record.outcome
        if outcome is None:
            raise NoResult(f"the job is {state}", state=state, retry_after_s=1.0)
        if is_marker(record):
            text = f"the job {state} on {render.time_text(outcome.finished_at)}; its ttl_s is over"
            raise ResultExpired(text, state=state)
        if state is not State.SUCCEEDED:
            raise NoResult(f"the job is {state}", state=state, error=outcome.error)
        return json_response(outcome.result or b"null", wait_s=wait_s)

    async def placement(self, request: web.Request) -> web.Response:
        job = job_id(request)
        parameters(request)
        service = self._service
        done = await service.inspect(job, timeout_s=self._settings.read_s)
        found = [copy for copy in done.copies.values() if copy is not None]
        if not found:
            # Who was asked may not be who has it, and whether that means "nobody" is decided in one place.
            read = await service.read([job], wait_s=0.0, timeout_s=self._settings.read_s)
            if job in read.errors:
                raise read.errors[job]
            found = [read.records[job]]
        record = reduce(join, found)
        fields = render.placement_fields(record, done.copies, service.rank(job), service.members())
        return json_response(dump(fields))

    async def _read(self, request: web.Request) -> tuple[JobId, ReadDone, float | None]:
        """The job that the path names, what was read of it, and how long the client would wait for its end.

        Raises:
            EdgeNodeError: it could not be read.
        """
        job = job_id(request)
        wait_s = preferred_wait_s(request)
        parameters(request)
        asked_at = (
            self._service.wall()
        )  # what ends while it is waited for is shown, however short its `ttl_s`
        done = await self._service.read([job], wait_s=wait_s or 0.0, timeout_s=self._settings.read_s)
        if job in done.errors:
            raise done.errors[job]
        done.records[job] = as_of(done.records[job], asked_at)
        return job, done, wait_s
