"""The HTTP API: routes, and what every request and answer has in common."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from functools import reduce
from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from edgenode import __version__
from edgenode.api import render
from edgenode.api.answers import add_headers, dump, errors_as_problems, json_response
from edgenode.api.batches import Batches
from edgenode.api.changing import Changing
from edgenode.api.guard import check_origin
from edgenode.api.logs import log_fields, log_text, names_of, progress_fields, wants_json
from edgenode.api.nodes import Nodes
from edgenode.api.problems import NoResult, ResultExpired
from edgenode.api.queues import Queues
from edgenode.api.reasons import waiting_for
from edgenode.api.requests import (
    body_chunks,
    cursor_text,
    expect,
    idempotency_key,
    is_lines,
    job_id,
    parameters,
    preferred_wait_s,
    search_query,
)
from edgenode.api.service import Service
from edgenode.api.specs import ITEMS_MAX, KEY_FIELD, SpecMaker, parse_json, parse_lines, too_many
from edgenode.api.submitting import Submission, make_specs, read_body
from edgenode.core.batches import make_batch
from edgenode.core.errors import EdgeNodeError, NodeNotFound, NotReady, Overloaded, RejectedInput
from edgenode.core.jobs import Record, is_marker, job_text, join
from edgenode.core.reports import told_of
from edgenode.core.settings import JobSettings
from edgenode.core.signals import ReadDone
from edgenode.core.types import JobId, MemberState, NodeId, Seconds, State

BODIES_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bodies being read or worked on at one time; past this, submissions are told to come again."""
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PROGRESS_S: Final[Seconds] = 0.5
"""How long a job is shown later for the sake of its progress, if a holder does not answer."""
PAGE_BYTES_MAX: Final = 8 * 1024 * 1024
"""A page ends early past this: a thousand jobs with a megabyte each are no answer for one request."""


def make_app(
    service: Service, *, settings: JobSettings | None = None, is_loopback_only: bool = True
) -> web.Application:
    """The application for one node.

    Args:
        settings: how long a submission (`submit_s`) and a read (`read_s`) may take.
        is_loopback_only: answer only for `Host` names of this machine. True unless the API was given an
            address that other machines reach.
    """
    app = web.Application(middlewares=[errors_as_problems, check_origin(is_loopback_only)])
    app.on_response_prepare.append(add_headers)

    async def part(request: web.Request, response: web.StreamResponse) -> None:
        """Who kept a connection to a node that leaves would send the next request into its end."""
        if service.is_leaving:
            response.force_close()
            response.headers["Connection"] = "close"

    app.on_response_prepare.append(part)
    api = Api(service, JobSettings() if settings is None else settings)
    app.router.add_post("/v1/jobs", api.submit, expect_handler=expect)
    app.add_routes([web.post(path, handler) for path, handler in api.changes().items()])
    app.router.add_put("/v1/queues/{name:.+}", api.queues.put)
    app.add_routes([web.get(path, handler) for path, handler in api.resources().items()])
    app.add_routes(Nodes(service, api.settings).routes())
    return app


def make_runner(app: web.Application) -> web.AppRunner:
    """A runner whose requests end when their client goes away, and which ends within a second itself."""
    # What a request did wrong before it reached a handler is its sender's affair: aiohttp would write a
    # traceback for each. A handler's own errors are logged where they become problems.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    return web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)


class Api:
    """The handlers. Each either returns an answer or raises an `EdgeNodeError`."""

    def __init__(self, service: Service, settings: JobSettings) -> None:
        self._service = service
        self.settings = settings
        self._body_bytes = 0
        self.queues = Queues(service)
        self._changing = Changing(service, settings)
        self._batches = Batches(service, settings, self._changing)

    def resources(self) -> dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]:
        """What GET answers, by path."""
        return {
            "/": self.index,
            "/v1/jobs": self.list_jobs,
            "/v1/jobs/{id}": self.show_job,
            "/v1/jobs/{id}/result": self.show_result,
            "/v1/jobs/{id}/logs": self.show_logs,
            "/v1/jobs/{id}/placement": self.show_placement,
            "/v1/batches/{id}": self._batches.show,
            "/v1/batches/{id}/jobs": self._batches.list_jobs,
            "/v1/nodes": self.list_nodes,
            "/v1/nodes/{id}": self.show_node,
            "/v1/mesh": self.show_mesh,
            "/v1/tasks": self.list_tasks,
            "/v1/queues": self.queues.list,
            "/livez": self.live,
            "/readyz": self.ready,
            "/metrics": self.metrics,
        }

    def changes(self) -> dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]:
        """What POST changes, by path; of those with a name in the place of an id, those first."""
        changing = self._changing
        return {
            "/v1/batches/{id}/cancel": self._batches.cancel,
            "/v1/jobs/cancel": changing.cancel_many,
            "/v1/jobs/retry": changing.retry_many,
            "/v1/jobs/{id}/cancel": changing.cancel,
            "/v1/jobs/{id}/retry": changing.retry,
            "/v1/queues/{name:.+}/pause": self.queues.pause,
            "/v1/queues/{name:.+}/resume": self.queues.resume,
        }

    # ------------------------------------------------------------------------------------- submitting

    async def submit(self, request: web.Request) -> web.Response:
        has_lines = is_lines(request)
        wait_s = preferred_wait_s(request)
        key = idempotency_key(request)
        taken = 0
        try:
            body = bytearray()
            async for chunk in body_chunks(request):
                body += chunk
                taken += len(chunk)
                self._body_bytes += len(chunk)
                if self._body_bytes > BODIES_BYTES_MAX:
                    raise Overloaded("too many submissions are being read at once")
            return await self._submit(request, bytes(body), has_lines, wait_s, key)
        finally:
            self._body_bytes -= taken

    async def _submit(
        self, request: web.Request, body: bytes, has_lines: bool, wait_s: Seconds | None, key: str
    ) -> web.Response:
        parsed = parse_lines(body) if has_lines else parse_json(body)
        is_batch = isinstance(parsed, list)
        documents = parsed if isinstance(parsed, list) else [parsed]
        if key and is_batch:
            raise RejectedInput(
                f"the jobs of a batch have keys of their own: {KEY_FIELD}", field="Idempotency-Key"
            )
        if not documents:
            raise RejectedInput("there is no job in the body", field="body")
        if len(documents) > ITEMS_MAX:
            raise too_many()
        refusal = self._service.refusal()
        if refusal is not None:
            raise refusal
        maker = SpecMaker(self._service)
        name = make_batch(self._service.new_job_id(), len(documents)) if is_batch else None
        made = await make_specs(maker, documents, key, name)
        submission = Submission(self._service, maker, made)
        await submission.submit(self.settings.submit_s)
        await submission.look(wait_s, self.settings.read_s)
        return await submission.response(request, is_batch=is_batch, wait_s=wait_s, batch=name)

    # ---------------------------------------------------------------------------------------- reading

    async def list_jobs(self, request: web.Request) -> web.Response:
        query, filters = search_query(request)
        found = await self._service.search(query, timeout_s=self.settings.read_s)
        bodies: list[bytes] = []
        onward, room = found.next, PAGE_BYTES_MAX
        for record in found.records:
            bodies.append(render.job_body(record))
            room -= len(bodies[-1])
            if room <= 0 and record is not found.records[-1]:
                onward = record.id
                break
        unanswered = json.dumps(list(found.unanswered)).encode()
        response = json_response(b'{"jobs":[%b],"unanswered":%b}' % (b",".join(bodies), unanswered))
        if onward:
            cursor = cursor_text(JobId(onward))
            target = urlencode(filters | {"limit": str(query.limit), "cursor": cursor})
            response.headers["Link"] = f'</v1/jobs?{target}>; rel="next"'
        return response

    async def _read(self, request: web.Request) -> tuple[JobId, ReadDone, float | None]:
        """The job that the path names, what was read of it, and how long the client would wait for its end.

        Raises:
            EdgeNodeError: it could not be read.
        """
        job = job_id(request)
        wait_s = preferred_wait_s(request)
        parameters(request)
        done = await self._service.read([job], wait_s=wait_s or 0.0, timeout_s=self.settings.read_s)
        if job in done.errors:
            raise done.errors[job]
        return job, done, wait_s

    async def show_job(self, request: web.Request) -> web.Response:
        job, done, wait_s = await self._read(request)
        service, record = self._service, done.records[job]
        extra = await self._progress(record)
        extra["waiting_for"] = waiting_for(record, service.members(), service.queues())
        return json_response(read_body(done, job, **extra), wait_s=wait_s)

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

    async def show_logs(self, request: web.Request) -> web.Response:
        """What each start wrote, logged and said of its progress."""
        job, done, wait_s = await self._read(request)
        record = done.records[job]
        if is_marker(record):
            raise ResultExpired(f"the job {record.state}; its log went when its ttl_s was over")
        # If it had other holders before, what was said then stayed with those.
        nodes = () if record.epoch else record.holders
        reports = await self._service.reports(job, nodes=nodes, brief=False, timeout_s=self.settings.read_s)
        starts = told_of(reports.items)
        if wants_json(request):
            fields = log_fields(job_text(job), starts, reports.unanswered)
            return json_response(dump(fields), wait_s=wait_s)
        text = log_text(starts, reports.unanswered, names_of(self._service.members()))
        return web.Response(text=text)

    async def show_result(self, request: web.Request) -> web.Response:
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

    async def show_placement(self, request: web.Request) -> web.Response:
        job = job_id(request)
        parameters(request)
        service = self._service
        done = await service.inspect(job, timeout_s=self.settings.read_s)
        found = [copy for copy in done.copies.values() if copy is not None]
        if not found:
            # Who was asked may not be who has it, and whether that means "nobody" is decided in one place.
            read = await service.read([job], wait_s=0.0, timeout_s=self.settings.read_s)
            if job in read.errors:
                raise read.errors[job]
            found = [read.records[job]]
        record = reduce(join, found)
        fields = render.placement_fields(record, done.copies, service.rank(job), service.members())
        return json_response(dump(fields))

    async def list_nodes(self, request: web.Request) -> web.Response:
        parameters(request)
        me = self._service.me
        members = sorted(self._service.members(), key=lambda member: (member.info.name, member.info.id))
        return json_response(dump({"nodes": [render.member_fields(member, me) for member in members]}))

    async def show_node(self, request: web.Request) -> web.Response:
        parameters(request)
        wanted = request.match_info["id"]
        me = self._service.me
        node = me if wanted == "self" else NodeId(wanted)
        for member in self._service.members():
            if member.info.id == node:
                return json_response(dump(render.member_fields(member, me)))
        raise NodeNotFound(f"no member has the id {wanted!r:.80}", field="id")

    async def show_mesh(self, request: web.Request) -> web.Response:
        parameters(request)
        service = self._service
        return json_response(dump(render.mesh_fields(service.mesh(), service.members(), service.me)))

    async def list_tasks(self, request: web.Request) -> web.Response:
        parameters(request)
        service = self._service
        living = [
            member
            for member in sorted(service.members(), key=lambda member: (member.info.name, member.info.id))
            if member.state not in (MemberState.DEAD, MemberState.LEFT)
        ]
        names = sorted({task for member in living for task in member.info.tasks})
        tasks = []
        for name in names:
            nodes = [member for member in living if name in member.info.tasks]
            tasks.append(render.task_fields(name, nodes, service.task_schema(name)))
        return json_response(dump({"tasks": tasks}))

    async def live(self, request: web.Request) -> web.Response:
        return json_response(b'{"live":true}')

    async def ready(self, request: web.Request) -> web.Response:
        reasons, damage = list(self._service.readiness()), list(self._service.damage())
        if reasons:
            raise NotReady("; ".join(reasons), ready=False, reasons=list(reasons), damage=list(damage))
        return json_response(dump({"ready": True} | ({"damage": damage} if damage else {})))

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._service.metrics(), headers={"Content-Type": METRICS_TYPE})

    async def index(self, request: web.Request) -> web.Response:
        mesh = self._service.mesh()
        resources = [path for path in self.resources() if path != "/"]
        return json_response(
            dump({"edgenode": __version__, "node": mesh.name, "id": self._service.me, "resources": resources})
        )
