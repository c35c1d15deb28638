"""What a client may still want of a job: that it ends, or that it is tried again. By id, or all that fit.

Neither changes an outcome that is settled. A cancel is noted by the job's holders, whoever owns it; a retry
is a new job, of which the old one's id is the key: however often it is asked for, and where, there is one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from aiohttp import web

from edgenode.api import render
from edgenode.api.answers import dump, json_response
from edgenode.api.problems import JobEnded, NotRetryable, ResultExpired
from edgenode.api.requests import BODY_BYTES_MAX, body_of, job_id, no_body, parameters, preferred_wait_s
from edgenode.api.retries import RETRIED_UNASKED, RETRYABLE, retries_of
from edgenode.api.selecting import Chosen, choose, cursor_text, wanted_jobs
from edgenode.api.service import Service
from edgenode.api.specs import SpecMaker, fingerprint
from edgenode.api.submitting import (
    ANSWER_BYTES_MAX,
    JOB_BYTES,
    LARGE_BYTES,
    Answer,
    Submission,
    Submitting,
    answer_many,
    of_job,
)
from edgenode.api.turns import Turns
from edgenode.core.errors import EdgeNodeError, OutcomeUnknown, Overloaded, TooLarge, to_problem
from edgenode.core.job_ids import job_text, retry_id
from edgenode.core.jobs import Record, as_of, is_marker
from edgenode.core.settings import JobSettings
from edgenode.core.specs import Spec, decode_spec
from edgenode.core.types import TERMINAL, Instant, JobId, Seconds, State

CANCEL_WAIT_S: Final[Seconds] = 2.0
"""How long a cancel waits for the job's end, unless the client says: longer than a takeover takes."""
CHANGE_S: Final[Seconds] = 8.0
"""A request that goes by a filter begins no further piece after so long, finding included: clients wait 15 s
before they ask elsewhere, and would begin anew there."""
OPEN: Final = frozenset(set(State) - TERMINAL)
CHUNK: Final = 200
"""Jobs that are read at one time: they come with payloads and results, a megabyte each."""


class Ended(NamedTuple):
    """What is told of a job that was to end."""

    state: State
    settled: bool

    @classmethod
    def of(cls, record: Record) -> Ended:
        return cls(record.state, record.settled)

    @property
    def is_over(self) -> bool:
        return self.state in TERMINAL


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
        await no_body(request)
        record = await self._found(job)
        body = render.job_body(record)
        if record.state not in TERMINAL:
            noted = await self._note([record])
            wait_for_s = CANCEL_WAIT_S if wait_s is None else wait_s
            seen = await self._service.read([job], wait_s=wait_for_s, timeout_s=self._settings.read_s)
            found = seen.records.get(job)
            if found is None or (job not in noted and found.state not in TERMINAL):
                raise _unheard(job)
            record, body = found, render.read_body(seen, job)
        if record.state in TERMINAL and record.state is not State.CANCELLED:
            raise JobEnded(f"the job {record.state} before it was cancelled", state=record.state)
        is_over = record.state in TERMINAL
        return json_response(
            body, status=200 if is_over else 202, wait_s=wait_s, retry_after_s=None if is_over else 1.0
        )

    async def cancel_many(self, request: web.Request) -> web.Response:
        """Of each job what became of it, in the order of the ids, or by falling id."""
        wait_s = preferred_wait_s(request)
        parameters(request)
        wanted = wanted_jobs(await body_of(request))
        read_s, until = self._settings.read_s, asyncio.get_running_loop().time() + CHANGE_S
        chosen = await choose(self._service, wanted, states=OPEN, turns=("",), timeout_s=read_s)
        told: dict[JobId, Ended | EdgeNodeError] = {}
        for piece in chosen.pieces(CHUNK):
            told |= await self._end(piece)
            if chosen.is_filter and asyncio.get_running_loop().time() >= until:
                chosen.cut(len(told))
                break
        if chosen.onward is not None:
            wait_s = None  # what is left to cancel comes first
        else:
            await self._look(told, CANCEL_WAIT_S if wait_s is None else wait_s)
        answers = [_told(answer, job) for job, answer in told.items()]
        is_open = any(isinstance(answer, Ended) and not answer.is_over for answer in told.values())
        body = dump({"jobs": answers} | _rest(chosen))
        return json_response(body, status=202 if is_open else 200, wait_s=wait_s)

    async def end(self, jobs: Sequence[JobId]) -> None:
        """Have it noted that those of these jobs are to end that have not."""
        for at in range(0, len(jobs), CHUNK):
            await self._end(jobs[at : at + CHUNK])

    async def _end(self, jobs: Sequence[JobId]) -> dict[JobId, Ended | EdgeNodeError]:
        """Have it noted that these are to end: how each was just before, or why it may go on."""
        done = await self._service.read(jobs, wait_s=0.0, timeout_s=self._settings.read_s)
        noted = await self._note([record for record in done.records.values() if record.state not in TERMINAL])
        told: dict[JobId, Ended | EdgeNodeError] = {}
        for job in jobs:
            record = done.records.get(job)
            if record is None:
                told[job] = done.errors[job]
            else:
                is_sure = record.state in TERMINAL or job in noted
                told[job] = Ended.of(record) if is_sure else _unheard(job)
        return told

    async def _note(self, records: Sequence[Record]) -> frozenset[JobId]:
        """Of which of these jobs it is on record that they are to end."""
        if not records:
            return frozenset()
        wishes = [(record.id, record.holders) for record in records]
        done = await self._service.cancel(wishes, timeout_s=self._settings.submit_s)
        return frozenset(done.jobs)

    async def _look(self, told: dict[JobId, Ended | EdgeNodeError], wait_s: Seconds) -> None:
        """Bring up to date what is told of those that were to end: in so many seconds, and however far all of
        them are by then, if holders answer soon."""
        loop, read_s = asyncio.get_running_loop(), self._settings.read_s
        ends_at = loop.time() + wait_s
        going = [job for job, answer in told.items() if _goes_on(answer)]
        for at in range(0, len(going), CHUNK):
            now = loop.time()
            if now >= ends_at + read_s:
                return
            piece, left_s = going[at : at + CHUNK], max(0.0, ends_at - now)
            seen = await self._service.read(piece, wait_s=left_s, timeout_s=read_s)
            for job, record in seen.records.items():
                if isinstance(told[job], Ended) or record.state in TERMINAL:
                    told[job] = Ended.of(record)

    # ------------------------------------------------------------------------------------- retries

    async def retry(self, request: web.Request) -> web.Response:
        """202 with the new job, as a submission has it."""
        job, wait_s = job_id(request), preferred_wait_s(request)
        parameters(request)
        await no_body(request)
        self._submitting.check_open()
        record = await self._found(job)
        maker = await self._submitting.spec_maker(_tasks_of([record]))
        return await self._submitting.send_one(request, await self._tried_again(maker, record), wait_s)

    async def retry_many(self, request: web.Request) -> web.Response:
        """A new job for each that failed or has expired, or was cancelled if that is asked for; or the reason
        why there is none. In the order of the ids, or by falling id. Of a filter without those that were
        tried again before: `skipped` says how many that are."""
        wait_s = preferred_wait_s(request)
        parameters(request)
        wanted = wanted_jobs(await body_of(request))
        self._submitting.check_open()
        loop, read_s = asyncio.get_running_loop(), self._settings.read_s
        until = loop.time() + CHANGE_S
        chosen = await choose(
            self._service, wanted, states=RETRYABLE, turns=RETRIED_UNASKED, timeout_s=read_s
        )
        submissions = await self._retry(chosen, until)
        if chosen.onward is not None:
            wait_s = None  # what is left to retry comes first
        ends_at = loop.time() + (wait_s or 0.0)
        answers: list[Answer] = []
        is_done, size = True, 0
        for submission in submissions:
            now = loop.time()
            left_s = None if wait_s is None else max(0.0, ends_at - now)
            if size <= ANSWER_BYTES_MAX and now < ends_at + read_s:
                await submission.look(left_s, read_s, ANSWER_BYTES_MAX - size)
            found = await submission.answers(request.path, len(answers))
            is_done &= submission.is_done
            submission.forget()
            answers += found
            size += sum(len(answer) for answer in found if isinstance(answer, bytes))
        rest = _rest(chosen) | {"skipped": chosen.skipped}
        if not answers:
            return json_response(dump({"jobs": []} | rest), wait_s=wait_s)
        return answer_many(answers, rest, wait_s=wait_s, is_done=is_done)

    async def _retry(self, chosen: Chosen, until: Instant) -> list[Submission]:
        """Have these tried again, in pieces; those of a filter as far as there is room for them, and time.

        Raises:
            Overloaded: there is room for none.
        """
        submissions: list[Submission] = []
        full: EdgeNodeError | None = None
        done, size = 0, 0
        async for part in self._parts(chosen):
            made = [each for each in part if each is not None]
            try:
                if made:
                    submissions.append(await self._submitting.store(made))
            except Overloaded as error:
                if not submissions:
                    raise
                full = error
                break
            done += len(part)
            chosen.skipped += len(part) - len(made)
            if chosen.is_filter and asyncio.get_running_loop().time() >= until:
                break
            size += sum(JOB_BYTES + len(each.payload) for each in made if isinstance(each, Spec))
            if size > ANSWER_BYTES_MAX:  # their payloads are all in it
                full = TooLarge("the answer is full: ask for this one in a request of its own, or with fewer")
                break
        left = [JobId(place.after) for place in chosen.places[done:]]
        if left and chosen.is_filter:
            chosen.cut(done)
        elif left and full is not None:
            submissions.append(self._submitting.refused([of_job(full, job) for job in left]))
        return submissions

    async def _parts(self, chosen: Chosen) -> AsyncIterator[list[Spec | EdgeNodeError | None]]:
        """What `_made` makes of them, with no more bytes at a time than a submission has."""
        for piece in chosen.pieces(CHUNK):
            part: list[Spec | EdgeNodeError | None] = []
            size = 0
            for each in await self._made(piece, is_filter=chosen.is_filter):
                more = len(each.payload) if isinstance(each, Spec) else 0
                if part and size + more > BODY_BYTES_MAX:
                    yield part
                    part, size = [], 0
                part.append(each)
                size += more
            yield part

    async def _made(self, jobs: Sequence[JobId], *, is_filter: bool) -> list[Spec | EdgeNodeError | None]:
        """Of each job the spec of the one that is to try its work again, or why there is none; None for one
        that a filter found, and that was tried again before."""
        done = await self._service.read(jobs, wait_s=0.0, timeout_s=self._settings.read_s)
        before = await retries_of(self._service, done.records.values()) if is_filter else {}
        maker = await self._submitting.spec_maker(_tasks_of(done.records.values()))
        made: list[Spec | EdgeNodeError | None] = []
        turns = Turns()
        for job in jobs:
            if job in before:
                made.append(None)
                continue
            try:
                if job in done.errors:
                    raise done.errors[job]
                made.append(await self._tried_again(maker, as_of(done.records[job], maker.now)))
            except EdgeNodeError as error:
                made.append(of_job(error, job))
            if turns.is_due():
                await turns.give()
        return made

    async def _tried_again(self, maker: SpecMaker, record: Record) -> Spec:
        """As `_again`, which can take long."""
        if len(record.spec) <= LARGE_BYTES:
            return self._again(maker, record)
        return await self._submitting.aside.run(self._again, maker, record)

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
            text = (
                "its payload is not kept any more: it ended longer ago than its ttl_s. Submit the work anew, "
                "with a longer ttl_s if it may have to be retried late"
            )
            raise ResultExpired(text, state=record.state, job=job_text(job))
        document = {"task": old.task, "payload": json.loads(old.payload)} | render.options_fields(old.options)
        # "all" was kept as the number that it was then, and fewer may hold a job now.
        spec = maker.spec(document | {"acks": min(old.options.acks, maker.replicas)})
        options = replace(spec.options, retry_of=job_text(job), fingerprint=fingerprint(document))
        return replace(spec, id=retry_id(job), options=options)

    # ------------------------------------------------------------------------------------- finding

    async def _found(self, job: JobId) -> Record:
        done = await self._service.read([job], wait_s=0.0, timeout_s=self._settings.read_s)
        if job in done.errors:
            raise done.errors[job]
        return as_of(done.records[job], self._service.wall())


def _unheard(job: JobId) -> OutcomeUnknown:
    text = "too few of the job's holders answered: it may be cancelled later; to know, cancel it again"
    return OutcomeUnknown(text, job=job_text(job))


def _tasks_of(records: Iterable[Record]) -> set[str]:
    return {decode_spec(record.spec).task for record in records}


def _goes_on(answer: Ended | EdgeNodeError) -> bool:
    """Whether a job may not have ended, of all that is known."""
    return isinstance(answer, OutcomeUnknown) if isinstance(answer, EdgeNodeError) else not answer.is_over


def _rest(chosen: Chosen) -> dict[str, Any]:
    """What an answer has to say of jobs that are not in it."""
    onward = None if chosen.onward is None else cursor_text(chosen.onward)
    return {"unanswered": sorted(chosen.silent), "next": onward}


def _told(answer: Ended | EdgeNodeError, job: JobId) -> Mapping[str, Any]:
    if isinstance(answer, EdgeNodeError):
        return to_problem(answer, instance=f"/v1/jobs/{job_text(job)}") | {"job": job_text(job)}
    return {"id": job_text(job), "state": answer.state, "settled": answer.settled}
