"""What can be asked of the mesh, as steps that either client can take."""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from edgenode.client.errors import BadAnswer, ClientError, NoNodeReachable, Refused, WaitTimedOut
from edgenode.client.exchange import (
    KEY_IN_FLIGHT,
    PAUSE_KEYED_S,
    Answer,
    Attempt,
    Outcome,
    Pause,
    Request,
    exchange,
    made_unsure,
)
from edgenode.client.job import Job
from edgenode.core.types import Backoff, is_loopback

T = TypeVar("T")
Steps = Generator["Attempt | Pause", "Outcome | None", T]

KEY_FIELD: Final = "idempotency_key"
DEFAULT_URL: Final = "http://127.0.0.1:8701"
CHUNK: Final = 500
"""Jobs in one request of `submit_many`: enough to share an fsync, few enough to try again elsewhere."""
CHUNK_BYTES: Final = 4 * 1024 * 1024
"""Half of what a node reads at once."""
WAIT_S: Final = 20.0
"""How long one request of `wait` is held by its node; then the next one, maybe elsewhere."""
PAUSE_EARLY_S: Final = 1.0
"""At most, after an answer that came before its time and is not the one that is waited for."""
_JSON: Final = {"Content-Type": "application/json"}
_NEXT: Final = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')


def node_urls(urls: str | Sequence[str] | None) -> tuple[str, ...]:
    """The nodes to ask: those given, else those of EDGENODE_URL (comma-separated), else DEFAULT_URL.

    Raises:
        ValueError: one is not an http or https URL.
    """
    if urls is None:
        urls = os.environ.get("EDGENODE_URL") or DEFAULT_URL
    listed = urls.split(",") if isinstance(urls, str) else urls
    found = tuple(dict.fromkeys(url.strip().rstrip("/") for url in listed if url.strip()))
    if not found:
        raise ValueError("no node URL is given")
    for url in found:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a node's URL: write http://HOST:PORT")
        _ = parts.port  # raises ValueError if it is no number
    return found


class Page(NamedTuple):
    jobs: list[Job]
    next: str | None  # the path of the page that follows
    unanswered: tuple[str, ...]  # ids of the members whose disks were not looked at


class Listing:
    """Jobs, page by page: what has come, and where it goes on."""

    def __init__(self, path: str) -> None:
        self.path: str | None = path
        """Of the next page; None when all have come."""
        self.unanswered: frozenset[str] = frozenset()
        """Ids of the members that did not look, dead ones too: jobs that only they have are missing. Of the
        pages that were fetched until now."""
        self._jobs: deque[Job] = deque()

    def turn(self, page: Page) -> None:
        """This is what stands at `path`."""
        self._jobs.extend(page.jobs)
        self.path = page.next
        self.unanswered |= set(page.unanswered)

    def take(self) -> Job | None:
        """The next one of those that have come."""
        return self._jobs.popleft() if self._jobs else None


class Changed(list[T]):
    """What became of each job of a change: a list, which also knows who was not heard."""

    unanswered: frozenset[str] = frozenset()
    """Ids of the members that did not look for jobs that fit a filter, dead ones too: what only they have was
    not changed."""
    skipped: int = 0
    """Of a retry of all that fit: how many are not in it, as they had been tried again before."""


class Queues(list[dict[str, Any]]):
    """The mesh's queues, by name."""

    unanswered: tuple[str, ...] = ()
    """Ids of the members that have not said how many jobs they own: those are not counted."""
    left_out: int = 0
    """More than 0 if there are more queues with jobs than are told of."""


class Batch(NamedTuple):
    """Jobs that were submitted in one request."""

    id: str  # of those without idempotency keys; "" if none of these was taken
    jobs: Sequence[Job | ClientError]  # in order; why not, in the place of one that was not taken


class Operations:
    """Makes the steps; knows the nodes, and begins with the one that answered last."""

    def __init__(
        self, urls: str | Sequence[str] | None, *, timeout_s: float, clock: Callable[[], float]
    ) -> None:
        self.urls = node_urls(urls)
        self._timeout_s = timeout_s
        self._clock = clock

    def submit(
        self, task: str, payload: Mapping[str, Any] | None, wait_s: float | None, options: Mapping[str, Any]
    ) -> Steps[Job]:
        document = _document(task, payload, options)
        keyed = _has_key(document)
        return _job(
            (yield from self._send("POST", "/v1/jobs", body=_dump(document), wait_s=wait_s, keyed=keyed))
        )

    def submit_many(self, documents: Iterable[Mapping[str, Any]]) -> Steps[list[Job | ClientError]]:
        """One result for each document, in order; what a whole request met stands for each of its jobs."""
        results: list[Job | ClientError] = []
        unreachable: ClientError | None = None
        for chunk, keyed in list(_chunks(documents)):  # all are encoded before any is sent
            if unreachable is None:
                found = yield from self._submit_chunk(chunk, keyed=keyed)
            else:
                found = [unreachable] * len(chunk)
            if isinstance(found[0], NoNodeReachable):
                unreachable = found[0]  # the others need not be tried, and certainly were not taken
            results += found
        return results

    def _submit_chunk(self, chunk: Sequence[bytes], *, keyed: bool) -> Steps[list[Job | ClientError]]:
        """With keys, jobs of which nobody knows whether they were taken are sent again, elsewhere."""
        ends_at = self._clock() + self._timeout_s
        found = yield from self._submit_once(chunk, keyed=keyed)
        while keyed and self._clock() + PAUSE_KEYED_S < ends_at:
            unknown = [n for n, each in enumerate(found) if _is_unknown(each)]
            if not unknown:
                break
            yield Pause(PAUSE_KEYED_S)
            urls = self.urls
            self.urls = urls[1:] + urls[:1]
            again = yield from self._submit_once([chunk[n] for n in unknown], keyed=keyed)
            for n, each in zip(unknown, again, strict=True):
                found[n] = made_unsure(each) if isinstance(each, Refused) else each
        return found

    def _submit_once(self, chunk: Sequence[bytes], *, keyed: bool) -> Steps[list[Job | ClientError]]:
        try:
            body = b"[" + b",".join(chunk) + b"]"
            answer = yield from self._send("POST", "/v1/jobs", body=body, keyed=keyed)
            answers = answer.json()["jobs"]
            if len(answers) != len(chunk):
                raise TypeError
            each = [_submitted(found) for found in answers]
            if answer.is_sure:
                return each
            return [made_unsure(found) if isinstance(found, Refused) else found for found in each]
        except (KeyError, TypeError):
            return [BadAnswer(f"{answer.url} did not answer with jobs")] * len(chunk)
        except ClientError as error:
            return [error] * len(chunk)

    def get(self, job: str, wait_s: float | None = None) -> Steps[Job]:
        return _job((yield from self._send("GET", _job_path(job), wait_s=wait_s)))

    def submit_batch(self, documents: Iterable[Mapping[str, Any]]) -> Steps[Batch]:
        body = b"[" + b",".join(map(_dump, documents)) + b"]"
        answer = yield from self._send("POST", "/v1/jobs", body=body)
        try:
            found = answer.json()
            return Batch(str(found["batch"] or ""), [_submitted(each) for each in found["jobs"]])
        except (KeyError, TypeError):
            raise BadAnswer(f"{answer.url} did not answer with a batch") from None

    def wait_batch(self, batch: str, timeout_s: float) -> Steps[dict[str, Any]]:
        ends_at = self._clock() + timeout_s
        while True:
            asked_at = self._clock()
            wait_s = max(0.0, min(ends_at - asked_at, WAIT_S))
            found = _object((yield from self._send("GET", _batch_path(batch), wait_s=wait_s)))
            if found.get("settled") or self._clock() >= ends_at:
                return found
            # A node may answer before its time, and HTTP knows whole seconds only: without a pause it would
            # be asked again and again.
            if (early_s := asked_at + wait_s - self._clock()) > 0:
                yield Pause(min(early_s, PAUSE_EARLY_S))

    def batch(self, batch: str) -> Steps[dict[str, Any]]:
        return _object((yield from self._send("GET", _batch_path(batch))))

    def batch_jobs(self, batch: str) -> Steps[dict[str, Any]]:
        answer = yield from self._send("GET", f"{_batch_path(batch)}/jobs")
        found = _object(answer)
        if not isinstance(found.get("jobs"), list):
            raise BadAnswer(f"{answer.url} did not answer with the jobs of a batch")
        return found

    def cancel_batch(self, batch: str) -> Steps[dict[str, Any]]:
        return _object((yield from self._change(f"{_batch_path(batch)}/cancel", None)))

    def cancel(self, job: str, wait_s: float | None = None) -> Steps[Job]:
        return _job((yield from self._change(f"{_job_path(job)}/cancel", wait_s)))

    def retry(self, job: str, wait_s: float | None = None) -> Steps[Job]:
        return _job((yield from self._change(f"{_job_path(job)}/retry", wait_s)))

    def cancel_many(
        self, ids: Sequence[str], filters: Mapping[str, str], wait_s: float | None
    ) -> Steps[Changed[dict[str, Any]]]:
        return (yield from self._change_many("/v1/jobs/cancel", ids, filters, wait_s, lambda found: found))

    def retry_many(
        self, ids: Sequence[str], filters: Mapping[str, str], wait_s: float | None
    ) -> Steps[Changed[Job | ClientError]]:
        return (yield from self._change_many("/v1/jobs/retry", ids, filters, wait_s, _submitted))

    def _change_many(
        self,
        path: str,
        ids: Sequence[str],
        filters: Mapping[str, str],
        wait_s: float | None,
        read: Callable[[dict[str, Any]], T],
    ) -> Steps[Changed[T]]:
        """Ask until all that fit were found: an answer that is not all says where the next one goes on."""
        wanted = _wanted(ids, filters)
        changed: Changed[T] = Changed()
        while True:
            answer = yield from self._change(path, wait_s, _dump(wanted))
            try:
                changed += [read(found) for found in _listed(answer, "jobs")]
            except (KeyError, TypeError):
                raise BadAnswer(f"{answer.url} did not answer with jobs") from None
            fields = _object(answer)
            changed.unanswered |= set(map(str, fields.get("unanswered") or ()))
            if isinstance(skipped := fields.get("skipped"), int):
                changed.skipped += skipped
            onward = fields.get("next")
            if not onward:
                return changed
            if onward == wanted.get("cursor"):
                raise BadAnswer(f"{answer.url} answered with the same jobs again")
            wanted["cursor"] = onward

    def queues(self) -> Steps[Queues]:
        answer = yield from self._send("GET", "/v1/queues")
        found = Queues(_listed(answer, "queues"))
        try:
            fields = answer.json()
            found.unanswered, found.left_out = tuple(map(str, fields["unanswered"])), int(fields["left_out"])
        except (KeyError, TypeError, ValueError):
            raise BadAnswer(f"{answer.url} did not say whose jobs are counted") from None
        return found

    def change_queue(self, queue: str, changes: Mapping[str, Any]) -> Steps[dict[str, Any]]:
        # The same settings once more do no harm, so it may be sent again.
        return _object((yield from self._send("PUT", _queue_path(queue), body=_dump(changes), keyed=True)))

    def reset_queue(self, queue: str) -> Steps[dict[str, Any]]:
        return _object((yield from self._send("DELETE", _queue_path(queue), keyed=True)))

    def _change(self, path: str, wait_s: float | None, body: bytes | None = None) -> Steps[Answer]:
        """Asked twice it does the same, so it may be sent again where it is not known what came of it."""
        return (yield from self._send("POST", path, body=body, wait_s=wait_s, keyed=True))

    def wait(self, job: str, timeout_s: float) -> Steps[Job]:
        ends_at = self._clock() + timeout_s
        while True:
            left_s = max(0.0, ends_at - self._clock())
            found = yield from self.get(job, wait_s=min(left_s, WAIT_S))
            if found.has_ended:
                return found
            if self._clock() >= ends_at:
                raise WaitTimedOut(found, timeout_s)
            # Whole seconds can be waited for in HTTP; the rest of the time is slept.
            if left_s < 1:
                yield Pause(max(0.0, ends_at - self._clock()))

    def page(self, path: str) -> Steps[Page]:
        answer = yield from self._send("GET", path)
        found = _NEXT.search(answer.headers.get("link", ""))
        try:
            body = answer.json()
            jobs = [_job_of(fields) for fields in body["jobs"]]
            return Page(jobs, found and found[1], tuple(map(str, body["unanswered"])))
        except (KeyError, TypeError):
            raise BadAnswer(f"{answer.url} did not answer with jobs") from None

    def nodes(self) -> Steps[list[dict[str, Any]]]:
        return _listed((yield from self._send("GET", "/v1/nodes")), "nodes")

    def node(self, node: str) -> Steps[dict[str, Any]]:
        return _object((yield from self._send("GET", _node_path(node))))

    def tasks(self) -> Steps[list[dict[str, Any]]]:
        return _listed((yield from self._send("GET", "/v1/tasks")), "tasks")

    def mesh(self) -> Steps[dict[str, Any]]:
        return _object((yield from self._send("GET", "/v1/mesh")))

    def placement(self, job: str) -> Steps[dict[str, Any]]:
        return _object((yield from self._send("GET", f"{_job_path(job)}/placement")))

    def logs(self, job: str) -> Steps[dict[str, Any]]:
        answer = yield from self._send("GET", f"{_job_path(job)}/logs", accept="application/json")
        found = _object(answer)
        if not isinstance(found.get("starts"), list):
            raise BadAnswer(f"{answer.url} did not answer with a log")
        return found

    def drain(self, node: str, limit_s: float | None) -> Steps[dict[str, Any]]:
        fields = {} if limit_s is None else {"limit_s": limit_s}
        return (yield from self._regulate("POST", node, "/drain", fields))

    def undrain(self, node: str) -> Steps[dict[str, Any]]:
        return (yield from self._regulate("POST", node, "/undrain", {}))

    def change_node(self, node: str, fields: Mapping[str, Any]) -> Steps[dict[str, Any]]:
        return (yield from self._regulate("PATCH", node, "", fields))

    def _regulate(
        self, method: str, node: str, verb: str, fields: Mapping[str, Any]
    ) -> Steps[dict[str, Any]]:
        """What a member says of itself after this change, which may be asked for as often as one likes."""
        if node == "self":  # for each node that is asked another one, so that two might do it
            node = str((yield from self.node(node)).get("id"))
        path = _node_path(node) + verb
        return _object((yield from self._send(method, path, body=_dump(fields), keyed=True)))

    def learn(self) -> Steps[None]:
        listed = yield from self.nodes()
        asked = is_here(self.urls[0])
        learned = (node["api"].rstrip("/") for node in listed if node["state"] == "ready" and node["api"])
        # A member's loopback address means something on this machine only if its node is here too.
        known = dict.fromkeys((*self.urls, *(url for url in learned if asked or not is_here(url))))
        self.urls = tuple(known)

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        wait_s: float | None = None,
        keyed: bool = False,
        accept: str = "",
    ) -> Steps[Answer]:
        headers = dict(_JSON) if body is not None else {}
        if accept:
            headers["Accept"] = accept
        if wait_s is not None and wait_s >= 1:
            headers["Prefer"] = f"wait={int(wait_s)}"
        request = Request(method, path, body, headers, wait_s or 0.0, keyed)
        urls = self.urls
        answer = yield from exchange(
            request, urls, timeout_s=self._timeout_s + request.wait_s, clock=self._clock
        )
        urls = self.urls  # another thread may have learned of more, or put another one first
        if answer.url in urls:
            first = urls.index(answer.url)
            self.urls = urls[first:] + urls[:first]
        return answer


def _job_path(job: str) -> str:
    return f"/v1/jobs/{quote(job, safe='')}"


def _queue_path(queue: str) -> str:
    return f"/v1/queues/{quote(queue, safe='')}"


def _object(answer: Answer) -> dict[str, Any]:
    found = answer.json()
    if not isinstance(found, dict):
        raise BadAnswer(f"{answer.url} did not answer with an object")
    return found


def _listed(answer: Answer, what: str) -> list[dict[str, Any]]:
    try:
        return [dict(found) for found in answer.json()[what]]
    except (KeyError, TypeError, ValueError):
        raise BadAnswer(f"{answer.url} did not answer with {what}") from None


def _wanted(ids: Sequence[str], filters: Mapping[str, str]) -> dict[str, Any]:
    """Which jobs a change is about: these, or all that fit.

    Raises:
        ValueError: both are said, or neither.
    """
    if bool(ids) == bool(filters):
        raise ValueError("say either ids, or at least one of state, task and queue")
    return {"ids": list(ids)} if ids else dict(filters)


def is_here(url: str) -> bool:
    """Whether a URL means something on this machine only."""
    return is_loopback(urlsplit(url).hostname or "")


def list_path(
    *, state: str | None, task: str | None, queue: str | None, retried: bool | None, limit: int
) -> str:
    said = None if retried is None else str(retried).lower()
    filters = {"state": state, "task": task, "queue": queue, "retried": said}
    given = {name: value for name, value in filters.items() if value is not None}
    return "/v1/jobs?" + urlencode(given | {"limit": str(limit)})


def _batch_path(batch: str) -> str:
    return f"/v1/batches/{quote(batch, safe='')}"


def _node_path(node: str) -> str:
    return f"/v1/nodes/{quote(node, safe='')}"


def _document(task: str, payload: Mapping[str, Any] | None, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"task": task, "payload": {} if payload is None else payload} | dict(options)


def _dump(document: Mapping[str, Any]) -> bytes:
    """As JSON; times may be given as `datetime` with a zone, durations as `timedelta`, pauses as `Backoff`.

    Raises:
        ValueError, TypeError: it holds what JSON does not know.
    """
    return json.dumps(document, allow_nan=False, separators=(",", ":"), default=_as_json).encode()


def _as_json(value: object) -> object:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Backoff):
        return asdict(value)
    raise TypeError(
        f"{value!r} cannot be sent as JSON" + " (times need a zone)" * isinstance(value, datetime)
    )


def _is_unknown(found: Job | ClientError) -> bool:
    """Whether to ask again what became of a submission: what a node has refused for good it refuses again,
    also where another one may have taken it before."""
    if isinstance(found, Refused) and found.status < 500 and found.slug != KEY_IN_FLIGHT:
        return False
    return isinstance(found, ClientError) and not found.definite


def _has_key(document: Mapping[str, Any]) -> bool:
    return bool(document.get(KEY_FIELD))


def _chunks(documents: Iterable[Mapping[str, Any]]) -> Iterable[tuple[list[bytes], bool]]:
    """The documents in pieces, with and without keys apart: only the former may be sent again."""
    for keyed, group in groupby(documents, _has_key):
        chunk: list[bytes] = []
        size = 0
        for document in group:
            encoded = _dump(document)
            if chunk and (len(chunk) == CHUNK or size + len(encoded) > CHUNK_BYTES):
                yield chunk, keyed
                chunk, size = [], 0
            chunk.append(encoded)
            size += len(encoded)
        yield chunk, keyed


def _job(answer: Answer) -> Job:
    try:
        return _job_of(answer.json())
    except (KeyError, TypeError):
        raise BadAnswer(f"{answer.url} did not answer with a job") from None


def _job_of(fields: Any) -> Job:
    return Job.from_json(fields)


def _submitted(fields: Any) -> Job | ClientError:
    """A job that was taken, or why it was not."""
    return _job_of(fields) if "receipt" in fields else Refused(fields)
