"""One request's jobs on their way: from documents to specs, receipts, and the answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from copy import copy
from typing import Any, Final

from aiohttp import web

from edgenode.api import render
from edgenode.api.answers import dump, json_response
from edgenode.api.service import Service
from edgenode.api.specs import KEY_FIELD, SpecMaker
from edgenode.core.batches import Batch, batch_text, job_of
from edgenode.core.errors import EdgeNodeError, KeyReused, to_problem
from edgenode.core.jobs import Spec, job_text
from edgenode.core.signals import ReadDone, Receipt
from edgenode.core.types import JobId, Seconds

log = logging.getLogger("edgenode.api")

YIELD_EVERY: Final = 200
"""Jobs checked or shown between two turns of the event loop: some 3 ms, so that a batch of 10,000 does not
make this node look slow to its peers."""


class Submission:
    """One request's jobs on their way: specs and refusals, then receipts, then what became of them."""

    def __init__(self, service: Service, maker: SpecMaker, made: Sequence[Spec | EdgeNodeError]) -> None:
        self._service = service
        self._now = maker.now
        self._made, self._repeated = _once(made)
        self._receipts: dict[JobId, Receipt] = {}
        self._seen: ReadDone | None = None
        # Taken before the jobs are sent: this is the order that names their holders.
        self._ranks = {spec.id: service.rank(spec.id) for spec in self._made if isinstance(spec, Spec)}

    async def submit(self, timeout_s: Seconds) -> None:
        """Hand all specs to the node, in one call for each number of `acks` (nearly always one)."""
        groups: dict[int, list[Spec]] = {}
        for index, spec in enumerate(self._made):
            if isinstance(spec, Spec) and index not in self._repeated:
                groups.setdefault(spec.options.acks, []).append(spec)
        for acks, specs in groups.items():
            try:
                receipts = await self._service.submit(specs, acks=acks, timeout_s=timeout_s)
            except EdgeNodeError as error:
                receipts = tuple(Receipt(spec.id, (), error) for spec in specs)
            self._receipts.update((receipt.job, receipt) for receipt in receipts)

    async def look(self, wait_s: Seconds | None, timeout_s: Seconds) -> None:
        """Give the accepted jobs this long to end, if the client would wait; else see how far those are that
        other submissions of their keys made. They stay accepted, whatever the read says."""
        receipts = self._receipts.items()
        if wait_s is None:
            wanted = [job for job, receipt in receipts if receipt.error is None and receipt.replayed]
        else:
            wanted = [job for job, receipt in receipts if receipt.error is None]
        if wanted:
            try:
                self._seen = await self._service.read(wanted, wait_s=wait_s or 0.0, timeout_s=timeout_s)
            except EdgeNodeError as error:
                log.warning("looking at %d submitted jobs: %s", len(wanted), error.detail)

    async def response(
        self,
        request: web.Request,
        *,
        is_batch: bool,
        wait_s: Seconds | None,
        batch: Batch | None = None,
    ) -> web.Response:
        """200 if all that was accepted has ended (only asked with `wait_s`), else 202. Where nothing was
        accepted the status is that of the first refusal, an indefinite one before all others."""
        answers: list[bytes | dict[str, Any]] = []
        for index, item in enumerate(self._made):
            answers.append(self._answer(item, request.path, index))
            if index % YIELD_EVERY == YIELD_EVERY - 1:
                await asyncio.sleep(0)
        refused = [answer for answer in answers if not isinstance(answer, bytes)]
        if not is_batch and refused:
            error = self._error(self._made[0])
            assert error is not None
            raise error
        bodies = [answer if isinstance(answer, bytes) else dump(answer) for answer in answers]
        body = _batch_body(bodies, batch) if is_batch else bodies[0]
        if len(refused) == len(answers):
            told = min(refused, key=lambda problem: bool(problem["definite"]))
            return json_response(body, status=int(told["status"]), retry_after_s=told.get("retry_after_s"))
        is_done = wait_s is not None and self._is_done()
        response = json_response(
            body, status=200 if is_done else 202, wait_s=wait_s, retry_after_s=None if is_done else 1.0
        )
        if batch is not None:
            response.headers["Location"] = f"/v1/batches/{batch_text(batch)}"
        if not is_batch:
            job, receipt = next(iter(self._receipts.items()))
            response.headers["Location"] = f"/v1/jobs/{job_text(job)}"
            if receipt.replayed:
                response.headers["Idempotent-Replayed"] = "true"
        return response

    def _is_done(self) -> bool:
        records = {} if self._seen is None else self._seen.records
        accepted = (job for job, receipt in self._receipts.items() if receipt.error is None)
        return all(job in records and render.is_final(records[job]) for job in accepted)

    def _error(self, item: Spec | EdgeNodeError) -> EdgeNodeError | None:
        """Why this one was not taken; None if it was."""
        if isinstance(item, EdgeNodeError):
            return item
        error = self._receipts[item.id].error
        return None if error is None else _of_job(error, item.id)

    def _answer(self, item: Spec | EdgeNodeError, instance: str, index: int) -> bytes | dict[str, Any]:
        """The job's JSON if it was taken, else its problem."""
        error = self._error(item)
        if error is not None:
            return to_problem(error, instance=instance) | {"index": index}
        assert isinstance(item, Spec)
        receipt = self._receipts[item.id]
        receipt = receipt._replace(replayed=receipt.replayed or index in self._repeated)
        if self._seen is not None and item.id in self._seen.records:
            # What an earlier submission made is shown as that one submitted it.
            spec = None if self._receipts[item.id].replayed else item
            return read_body(self._seen, item.id, spec, receipt=render.receipt_fields(receipt))
        replicas = self._service.mesh().replicas
        return render.submitted_body(item, self._ranks[item.id], replicas, receipt, self._now)


def _batch_body(bodies: Sequence[bytes], batch: Batch | None) -> bytes:
    jobs = b'"jobs":[%b]' % b",".join(bodies)
    if batch is None:
        return b"{%b}" % jobs
    return b'{"batch":"%b",%b}' % (batch_text(batch).encode(), jobs)


def read_body(done: ReadDone, job: JobId, spec: Spec | None = None, **extra: Any) -> bytes:
    if job in done.firm:
        extra["firm"] = True  # its owner said so; the record can't always tell
    return render.job_body(done.records[job], spec, **extra)


def _of_job(error: EdgeNodeError, job: JobId) -> EdgeNodeError:
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
                item = KeyReused("another job of this batch has this key", field=KEY_FIELD)
        elif isinstance(item, Spec):
            found[item.id] = item
        once.append(item)
    return once, repeated


async def make_specs(
    maker: SpecMaker, documents: Sequence[object], key: str = "", batch: Batch | None = None
) -> list[Spec | EdgeNodeError]:
    """Of each document its spec, or why there is none; under the ids of this batch, if it is one."""
    made: list[Spec | EdgeNodeError] = []
    for index, document in enumerate(documents, 1):
        if isinstance(document, EdgeNodeError):
            made.append(document)
            continue
        try:
            job = None if batch is None else job_of(batch, index - 1)
            made.append(maker.spec(document, key, job))
        except EdgeNodeError as error:
            made.append(error)
        if index % YIELD_EVERY == 0:
            await asyncio.sleep(0)
    return made
