"""`POST /v1/jobs`: a request's jobs on their way, from documents to specs, receipts, and the answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from itertools import count
from typing import Any, Final, NamedTuple

from aiohttp import web

from edgenode.api import render
from edgenode.api.answers import dump, json_response
from edgenode.api.requests import (
    body_chunks,
    expect,
    idempotency_key,
    is_lines,
    parameters,
    preferred_wait_s,
)
from edgenode.api.room import Room
from edgenode.api.service import Service, check_taking
from edgenode.api.specs import ITEMS_MAX, KEY_FIELD, SpecMaker, parse_json, parse_lines, tasks_in, too_many
from edgenode.api.turns import Aside, Turns, is_large
from edgenode.core.batches import Batch, batch_text, job_of, make_batch
from edgenode.core.errors import EdgeNodeError, KeyReused, Overloaded, RejectedInput, to_problem
from edgenode.core.job_ids import is_keyed, job_text
from edgenode.core.jobs import Record, as_of
from edgenode.core.settings import JobSettings
from edgenode.core.signals import ReadDone, Receipt
from edgenode.core.specs import Spec
from edgenode.core.types import JobId, Seconds

log = logging.getLogger("edgenode.api")

BODIES_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bodies that are read or stored at one time; past this, submissions are told to come again."""
WAITING_BYTES_MAX: Final = 256 * 1024 * 1024
"""Bodies of submissions whose ends are waited for, as their payloads are kept for the answers; past this,
submissions are answered at once: a preference need not be honoured (RFC 7240 section 2)."""
LARGE_BYTES: Final = 64 * 1024
"""Bodies up to this are looked at no closer: nothing in them takes long."""
LONG_BYTES: Final = 1024 * 1024
"""Bodies beyond this take long to parse alone."""
LOOK_COUNT: Final = 100
"""Jobs that are read at one time: they come with payloads and results, a megabyte each."""
ANSWER_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of payloads and results in one answer; past this no more jobs are read for it."""
JOB_BYTES: Final = 1_000
"""What a job takes in an answer, beside its payload and result."""
Answer = bytes | dict[str, Any]
"""A job as JSON, or why there is none as a problem."""


class Made(NamedTuple):
    """What was made of a request's body: of each job its spec, or why there is none."""

    specs: Sequence[Spec | EdgeNodeError]
    is_list: bool
    batch: Batch | None  # of those that have no key of their own, if there are any in a list


class Submitting:
    """The handler. It either returns an answer or raises an `EdgeNodeError`."""

    def __init__(self, service: Service, settings: JobSettings) -> None:
        self._service = service
        self._settings = settings
        self._body_bytes = 0
        self._waiting_bytes = 0
        self._room = Room(service, settings.unfinished_max)
        self.aside = Aside()

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1/jobs", self.submit, expect_handler=expect)]

    async def submit(self, request: web.Request) -> web.Response:
        parameters(request)
        has_lines = is_lines(request)
        wait_s = preferred_wait_s(request)
        key = idempotency_key(request)
        submission, made, size = await self._taken(request, has_lines, key)
        if self._waiting_bytes + size > WAITING_BYTES_MAX:
            wait_s = None
        if wait_s is None:
            return await self._answer(request, submission, made, None)
        self._waiting_bytes += size
        try:
            return await self._answer(request, submission, made, wait_s)
        finally:
            self._waiting_bytes -= size

    async def _taken(self, request: web.Request, has_lines: bool, key: str) -> tuple[Submission, Made, int]:
        """The request's jobs, stored; what was made of its body; and how many bytes that has.

        Raises:
            Overloaded: too much is being read at once.
        """
        size = 0
        try:
            body = bytearray()
            async for chunk in body_chunks(request):
                body += chunk
                size += len(chunk)
                self._body_bytes += len(chunk)
                if self._body_bytes > BODIES_BYTES_MAX:
                    raise Overloaded(
                        "too many submissions are being read at once: send it again in a moment, or elsewhere"
                    )
            made = await self._made(bytes(body), has_lines, key)
            return await self.store(made.specs), made, size
        finally:
            self._body_bytes -= size

    async def _made(self, body: bytes, has_lines: bool, key: str) -> Made:
        parse: Callable[[bytes], object] = parse_lines if has_lines else parse_json
        parsed = parse(body) if len(body) <= LONG_BYTES else await self.aside.run(parse, body)
        is_list = isinstance(parsed, list)
        documents = parsed if isinstance(parsed, list) else [parsed]
        if key and is_list:
            raise RejectedInput(
                f"the jobs of a batch have keys of their own: {KEY_FIELD}", field="Idempotency-Key"
            )
        if not documents:
            raise RejectedInput("there is no job in the body", field="body")
        if len(documents) > ITEMS_MAX:
            raise too_many()
        self.check_open()
        unkeyed = sum(not _has_key(document) for document in documents)
        batch = make_batch(self._service.new_job_id(), unkeyed) if is_list and unkeyed else None
        maker = await self.spec_maker(tasks_in(documents))
        may_be_large = len(body) > LARGE_BYTES
        specs = await self._specs(maker, documents, key, batch, may_be_large=may_be_large)
        return Made(specs, is_list, batch)

    async def _specs(
        self,
        maker: SpecMaker,
        documents: Sequence[object],
        key: str,
        batch: Batch | None,
        *,
        may_be_large: bool,
    ) -> list[Spec | EdgeNodeError]:
        """Of each document its spec, or why there is none; those without keys under the ids of this batch.

        Args:
            may_be_large: one of them may have so much in it that to check it takes long.
        """
        made: list[Spec | EdgeNodeError] = []
        turns = Turns()
        places = count()
        for document in documents:
            job = None if batch is None or _has_key(document) else job_of(batch, next(places))
            if isinstance(document, EdgeNodeError):
                made.append(document)
                continue
            try:
                if may_be_large and is_large(document):
                    made.append(await self.aside.run(maker.spec, document, key, job))
                else:
                    made.append(maker.spec(document, key, job))
            except EdgeNodeError as error:
                made.append(error)
            if turns.is_due():
                await turns.give()
        return made

    async def spec_maker(self, tasks: Collection[str]) -> SpecMaker:
        """What makes the jobs of one request, which are of these tasks."""
        schemas = await self._service.task_schemas(tasks, timeout_s=self._settings.describe_s)
        return SpecMaker(self._service, schemas)

    def check_open(self) -> None:
        """
        Raises:
            EdgeNodeError: nothing is taken now, whatever it is; the error says why, and until when.
        """
        check_taking(self._service)
        self._room.check()

    async def send_one(
        self, request: web.Request, made: Spec | EdgeNodeError, wait_s: Seconds | None
    ) -> web.Response:
        """Have this job stored, and answer with what became of it."""
        return await self._answer(request, await self.store([made]), Made([made], False, None), wait_s)

    async def _answer(
        self, request: web.Request, submission: Submission, made: Made, wait_s: Seconds | None
    ) -> web.Response:
        """What became of each job, after its end if the client would wait for it."""
        await submission.look(wait_s, self._settings.read_s, ANSWER_BYTES_MAX)
        if not made.is_list:
            return await submission.answer_one(request, wait_s=wait_s)
        batch = None
        if made.batch is not None and submission.may_have_unkeyed:
            batch = batch_text(made.batch)
        answers = await submission.answers(request.path)
        response = answer_many(answers, {"batch": batch}, wait_s=wait_s, is_done=submission.is_done)
        if batch is not None and response.status < 400:
            response.headers["Location"] = f"/v1/batches/{batch}"
        return response

    async def store(self, made: Sequence[Spec | EdgeNodeError]) -> Submission:
        """Have these jobs stored.

        All or none: a batch of which a part has no room is refused whole, so that whoever sent it can send
        the same again, as clients do by themselves, and it stays one batch. What is wrong with an item is
        said of that item.

        Raises:
            Overloaded: the mesh has no room for all of them; nothing was sent.
        """
        wanted = len({spec.id for spec in made if isinstance(spec, Spec)})
        self._room.reserve(wanted)
        taken = wanted  # whatever ends this: they may have been
        try:
            submission = Submission(self._service, made)
            await submission.submit(self._settings.submit_s)
            taken = submission.taken_count
        finally:
            self._room.settle(wanted, taken)
        return submission

    def refused(self, errors: Sequence[EdgeNodeError]) -> Submission:
        """One of which nothing is sent."""
        return Submission(self._service, errors)


class Submission:
    """One request's jobs on their way: specs and refusals, then receipts, then what became of them."""

    def __init__(self, service: Service, made: Sequence[Spec | EdgeNodeError]) -> None:
        self._service = service
        self._now = service.wall()
        self._made, self._repeated = _once(made)
        self._receipts: dict[JobId, Receipt] = {}
        self._seen: dict[JobId, ReadDone] = {}
        # Taken before the jobs are sent: this is the order that names their holders.
        self._ranks = {spec.id: service.rank(spec.id) for spec in self._made if isinstance(spec, Spec)}

    async def submit(self, timeout_s: Seconds) -> None:
        """Hand all specs to the node."""
        specs = [
            spec
            for index, spec in enumerate(self._made)
            if isinstance(spec, Spec) and index not in self._repeated
        ]
        if not specs:
            return
        try:
            receipts = await self._service.submit(specs, timeout_s=timeout_s)
        except EdgeNodeError as error:
            receipts = tuple(Receipt(spec.id, (), error) for spec in specs)
        self._receipts = {receipt.job: receipt for receipt in receipts}

    async def look(self, wait_s: Seconds | None, timeout_s: Seconds, bytes_max: int) -> None:
        """Give the accepted jobs this long to end, if the client would wait; else see how far those are that
        other submissions of their keys made. They stay accepted, whatever the read says.

        Args:
            timeout_s: how long holders may take to answer, on top of `wait_s`.
            bytes_max: of payloads and results. When more have been read, the other jobs are not looked at,
                and told of as they were accepted.
        """
        receipts = self._receipts.items()
        if wait_s is None:
            wanted = [job for job, receipt in receipts if receipt.error is None and receipt.replayed]
        else:
            wanted = [job for job, receipt in receipts if receipt.error is None]
        loop = asyncio.get_running_loop()
        wait_until = loop.time() + (wait_s or 0.0)
        ends_at = wait_until + timeout_s
        size = 0
        for at in range(0, len(wanted), LOOK_COUNT):
            now = loop.time()
            if size > bytes_max or now >= ends_at:
                return
            piece = wanted[at : at + LOOK_COUNT]
            left_s = max(0.0, wait_until - now)  # the others run on while the first ones are waited for
            try:
                done = await self._service.read(piece, wait_s=left_s, timeout_s=min(timeout_s, ends_at - now))
            except EdgeNodeError as error:
                log.warning("looking at %d submitted jobs: %s", len(wanted) - at, error.detail)
                return
            for job, record in done.records.items():
                done.records[job] = as_of(record, self._now)  # as it was when this submission came
                self._seen[job] = done
            size += sum(map(_size, done.records.values()))

    async def answer_one(self, request: web.Request, *, wait_s: Seconds | None) -> web.Response:
        """Of a request for one job: 200 if it has ended (only asked with `wait_s`), else 202.

        Raises:
            EdgeNodeError: it was not taken, or may not have been.
        """
        (item,) = self._made
        error = self._error(item)
        if error is not None:
            raise error
        body = self._answer(item, request.path, 0)
        assert isinstance(body, bytes)
        is_over = wait_s is not None and self.is_done
        response = json_response(
            body, status=200 if is_over else 202, wait_s=wait_s, retry_after_s=None if is_over else 1.0
        )
        job, receipt = next(iter(self._receipts.items()))
        response.headers["Location"] = f"/v1/jobs/{job_text(job)}"
        if receipt.replayed:
            response.headers["Idempotent-Replayed"] = "true"
        return response

    async def answers(self, instance: str, first: int = 0) -> list[Answer]:
        """What became of each, in order: the JSON of a job that was taken, else its problem.

        Args:
            first: the `index` of the first one, among all that the request is about.
        """
        told: list[Answer] = []
        turns = Turns()
        for index, item in enumerate(self._made):
            told.append(self._answer(item, instance, index, first))
            if turns.is_due():
                await turns.give()
        return told

    def forget(self) -> None:
        """Let go of what was read: results can be large, and are in the answers now."""
        self._seen = {}
        self._made = []

    @property
    def taken_count(self) -> int:
        """How many unfinished jobs there are more than before, or may be."""
        return sum(not receipt.replayed and _may_be(receipt) for receipt in self._receipts.values())

    @property
    def may_have_unkeyed(self) -> bool:
        """Whether a job without a key was taken, or may have been."""
        return any(not is_keyed(job) and _may_be(receipt) for job, receipt in self._receipts.items())

    @property
    def is_done(self) -> bool:
        """Whether all that was taken was seen to have ended."""
        seen = self._seen
        accepted = (job for job, receipt in self._receipts.items() if receipt.error is None)
        return all(job in seen and render.is_final(seen[job].records[job]) for job in accepted)

    def _error(self, item: Spec | EdgeNodeError) -> EdgeNodeError | None:
        """Why this one was not taken; None if it was."""
        if isinstance(item, EdgeNodeError):
            return item
        error = self._receipts[item.id].error
        return None if error is None else of_job(error, item.id)

    def _answer(self, item: Spec | EdgeNodeError, instance: str, index: int, first: int = 0) -> Answer:
        error = self._error(item)
        if error is not None:
            return to_problem(error, instance=instance) | {"index": first + index}
        assert isinstance(item, Spec)
        receipt = self._receipts[item.id]
        receipt = receipt._replace(replayed=receipt.replayed or index in self._repeated)
        seen = self._seen.get(item.id)
        if seen is not None:
            # What an earlier submission made is shown as that one submitted it.
            spec = None if self._receipts[item.id].replayed else item
            return render.read_body(seen, item.id, spec, receipt=render.receipt_fields(receipt))
        replicas = self._service.mesh().replicas
        return render.submitted_body(item, self._ranks[item.id], replicas, receipt, self._now)


def answer_many(
    answers: Sequence[Answer], fields: Mapping[str, Any], *, wait_s: Seconds | None, is_done: bool
) -> web.Response:
    """`fields`, and the answers as `jobs`: 200 if all that was taken has ended (only asked with `wait_s`),
    else 202. Where nothing was taken the status is that of the first refusal, an indefinite one first of all.

    Args:
        is_done: whether all that was taken has ended.
    """
    refused = [answer for answer in answers if not isinstance(answer, bytes)]
    bodies = [answer if isinstance(answer, bytes) else dump(answer) for answer in answers]
    body = b'%b"jobs":[%b]}' % (dump(fields)[:-1] + b"," * bool(fields), b",".join(bodies))
    if refused and len(refused) == len(answers):
        told = min(refused, key=lambda problem: bool(problem["definite"]))
        return json_response(body, status=int(told["status"]), retry_after_s=told.get("retry_after_s"))
    is_over = wait_s is not None and is_done
    return json_response(
        body, status=200 if is_over else 202, wait_s=wait_s, retry_after_s=None if is_over else 1.0
    )


def _has_key(document: object) -> bool:
    return isinstance(document, dict) and KEY_FIELD in document


def _may_be(receipt: Receipt) -> bool:
    """Whether a job was taken, or may have been."""
    return receipt.error is None or not receipt.error.definite


def _size(record: Record) -> int:
    """About how many bytes a job takes in an answer."""
    return JOB_BYTES + len(record.spec) + (0 if record.outcome is None else len(record.outcome.result))


def of_job(error: EdgeNodeError, job: JobId) -> EdgeNodeError:
    """The same refusal, naming the job: one whose outcome is unknown can be looked for by its id."""
    named = copy(error)  # a batch's jobs may share one error object
    named.context = {**error.context, "job": job_text(job)}
    return named


def _once(made: Sequence[Spec | EdgeNodeError]) -> tuple[list[Spec | EdgeNodeError], set[int]]:
    """The same, with a refusal for a key that comes again with other content; and the places of keys that
    come again with the same."""
    found: dict[JobId, Spec] = {}
    once: list[Spec | EdgeNodeError] = []
    repeated: set[int] = set()
    for index, item in enumerate(made):
        if isinstance(item, Spec) and item.id in found:
            if item.options.fingerprint == found[item.id].options.fingerprint:
                repeated.add(index)
            else:
                reused = KeyReused("another job of this batch has this key", field=KEY_FIELD)
                item = of_job(reused, item.id)
        elif isinstance(item, Spec):
            found[item.id] = item
        once.append(item)
    return once, repeated
