"""A client for programs that block, on the standard library alone."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from edgenode.client.errors import ClientError
from edgenode.client.exchange import CONNECT_S, Answer, Attempt, Outcome, Pause, Unanswered, Unsent
from edgenode.client.job import Job
from edgenode.client.operations import Batch, Changed, Listing, Operations, Page, Queues, Steps, list_path

T = TypeVar("T")
CHUNK_BYTES = 64 * 1024


class Jobs(Listing, Iterator[Job]):
    """The jobs that fit; a page of them is fetched when those before it were taken."""

    def __init__(self, path: str, fetch: Callable[[str], Page]) -> None:
        super().__init__(path)
        self._fetch = fetch

    def __next__(self) -> Job:
        while (job := self.take()) is None:
            if self.path is None:
                raise StopIteration
            self.turn(self._fetch(self.path))
        return job


class Client:
    """Asks a mesh through any of its nodes, and goes on to the next one when one does not answer.

        client = Client()                     # the nodes of EDGENODE_URL, or the one on this machine
        job = client.submit("echo", {"message": "hello"})
        print(client.wait(job.id, timeout_s=30).result)

    Every call ends: after `timeout_s` seconds, plus what it was asked to wait. All raise `ClientError`s. It
    keeps no connection, so there is nothing to close, and threads may share it.
    """

    def __init__(self, urls: str | Sequence[str] | None = None, *, timeout_s: float = 30.0) -> None:
        """A client of these nodes, or of those that EDGENODE_URL lists.

        Args:
            urls: base URLs of nodes, as a list or comma-separated.

        Raises:
            ValueError: a URL is malformed.
        """
        self._operations = Operations(urls, timeout_s=timeout_s, clock=time.monotonic)

    @property
    def urls(self) -> tuple[str, ...]:
        """The nodes, the one that answered last first."""
        return self._operations.urls

    def submit(
        self,
        task: str,
        payload: Mapping[str, Any] | None = None,
        *,
        wait_s: float | None = None,
        **options: Any,
    ) -> Job:
        """Have a job stored. `job.fields["receipt"]` names the disks that have it.

        Args:
            wait_s: also wait so long for its end (whole seconds, at most 60).
            options: idempotency_key, queue, priority, run_at, delay_s, timeout_s, deadline, max_attempts,
                max_losses, delivery, partition, acks, ttl_s, requires, backoff, concurrency_key,
                concurrency_limit. Times may be `datetime`s with a zone, durations `timedelta`s, and the
                backoff an `edgenode.Backoff`.

        With an `idempotency_key` all submissions of it are one job, whichever nodes they reach, so that this
        call, and whoever repeats it, may try again where it is not known what came of it.

        Raises:
            Refused: it is not stored; `field` names what is wrong with it. With status 422 and the slug
                "key-reused": a job of other content has this key.
            OutcomeUnknown: it may be stored. Submitting it again, unless with the same key, may run it twice.
        """
        return self._run(self._operations.submit(task, payload, wait_s, options))

    def submit_many(self, documents: Iterable[Mapping[str, Any]]) -> list[Job | ClientError]:
        """Have many jobs stored; each document is `{"task", "payload", options...}`.

        Returns one result for each, in order: the job, or why it was not (or may not have been) taken.
        """
        return self._run(self._operations.submit_many(documents))

    def get(self, job: str, *, wait_s: float | None = None) -> Job:
        """The job as it is now, or when it ended within `wait_s` (whole seconds, at most 60).

        Raises:
            Refused: with status 404, if no member knows it.
        """
        return self._run(self._operations.get(job, wait_s))

    def wait(self, job: str, *, timeout_s: float) -> Job:
        """The job when its outcome is settled.

        Raises:
            WaitTimedOut: it has not ended after `timeout_s`.
        """
        return self._run(self._operations.wait(job, timeout_s))

    def submit_batch(self, documents: Iterable[Mapping[str, Any]]) -> Batch:
        """Have up to 10,000 jobs stored by one request, to be followed as one by the id of the batch. Those
        with idempotency keys are in no batch: follow them by their own ids.

        Raises:
            Refused: the whole request was: too many, or too large.
            OutcomeUnknown: some or all may be stored.
        """
        return self._run(self._operations.submit_batch(documents))

    def batch(self, batch: str) -> dict[str, Any]:
        """How far a batch is: `size`, `states` (how many jobs are in each), `missing`, `unknown`, `ended`,
        `settled`.

        Raises:
            Refused: nobody knows such a batch (404).
        """
        return self._run(self._operations.batch(batch))

    def batch_jobs(self, batch: str) -> dict[str, Any]:
        """As `batch`, and its `jobs`, in its order: the `id`, `state` and `settled` of each. Those that are
        `missing` or `unknown` are not among them.

        Raises:
            Refused: nobody knows such a batch (404).
        """
        return self._run(self._operations.batch_jobs(batch))

    def wait_batch(self, batch: str, *, timeout_s: float) -> dict[str, Any]:
        """As `batch`, when all its jobs have settled, or the time is over."""
        return self._run(self._operations.wait_batch(batch, timeout_s))

    def cancel_batch(self, batch: str) -> dict[str, Any]:
        """Have all jobs of a batch end that have not; as `batch`, then."""
        return self._run(self._operations.cancel_batch(batch))

    def cancel(self, job: str, *, wait_s: float | None = None) -> Job:
        """Have a job end: at once if it waits, by stopping it if it runs. The job as it is then; if it
        has not ended within `wait_s` (whole seconds, by default 2) it will.

        Raises:
            Refused: it had ended (status 409, slug "job-ended"), or nobody knows it (404).
            OutcomeUnknown: too few of its holders answered.
        """
        return self._run(self._operations.cancel(job, wait_s))

    def cancel_many(
        self, ids: Sequence[str] = (), *, wait_s: float | None = None, **filters: str
    ) -> Changed[dict[str, Any]]:
        """Have these jobs end, or all that fit and have not ended. For each its `id`, `state` and `settled`,
        or the problem (with `job`).

        Of many the first ones are told as they were when all were asked for. Look at `unanswered` of what is
        returned before you take it for all that fit.

        Args:
            ids: at most 10,000.
            wait_s: how long to wait for their ends (whole seconds, at most 60; by default 2).
            filters: state, task, queue.

        Raises:
            ClientError: maybe when some were told to end. Asking again does no harm.
        """
        return self._run(self._operations.cancel_many(ids, filters, wait_s))

    def retry(self, job: str, *, wait_s: float | None = None) -> Job:
        """The job that tries again the work of one that failed, was cancelled or has expired. There is one,
        however often this is called: of its work in turn, ask for the retry of that one.

        Args:
            wait_s: also wait so long for its end (whole seconds, at most 60).

        Raises:
            Refused: it goes on or has succeeded (status 409), or its payload is not kept any more (410).
        """
        return self._run(self._operations.retry(job, wait_s))

    def retry_many(
        self, ids: Sequence[str] = (), *, wait_s: float | None = None, **filters: str
    ) -> Changed[Job | ClientError]:
        """As `retry`, of these jobs (at most 10,000), or of all that fit and have failed or expired; of those
        that were cancelled only with `state="cancelled"`. Those of a filter that had been tried again before
        are left out, and counted in `skipped`.

        Look at `unanswered` of what is returned before you take it for all that fit.

        Raises:
            ClientError: maybe when some were submitted. Asking again does no harm: those stay the same jobs.
        """
        return self._run(self._operations.retry_many(ids, filters, wait_s))

    def jobs(
        self,
        *,
        state: str | None = None,
        task: str | None = None,
        queue: str | None = None,
        retried: bool | None = None,
        page: int = 100,
    ) -> Jobs:
        """Jobs of the whole mesh, newest first, fetched page by page as they are asked for. Those with a key
        of their own and retries come before all others, in no order of time: their ids are hashes.

        Look at its `unanswered` before you take what it has for all there is.

        Args:
            retried: only those that were tried again (`retried_by`), or that were not.
        """

        def fetch(path: str) -> Page:
            return self._run(self._operations.page(path))

        return Jobs(list_path(state=state, task=task, queue=queue, retried=retried, limit=page), fetch)

    def nodes(self) -> list[dict[str, Any]]:
        """The members, by name."""
        return self._run(self._operations.nodes())

    def node(self, node: str = "self") -> dict[str, Any]:
        return self._run(self._operations.node(node))

    def tasks(self) -> list[dict[str, Any]]:
        """The tasks of the mesh: what each takes, and which nodes have it.

        The `schema`, and what else only a node that has it knows, is None where none of those has answered.
        """
        return self._run(self._operations.tasks())

    def mesh(self) -> dict[str, Any]:
        return self._run(self._operations.mesh())

    def placement(self, job: str) -> dict[str, Any]:
        """Where a job is: rank, holders and what each has on disk, owner, and who is next."""
        return self._run(self._operations.placement(job))

    def logs(self, job: str) -> dict[str, Any]:
        """What each of the job's latest starts wrote and logged: `{"job", "starts": [{"attempt", "runner",
        "text", "progress", ...}], "unanswered"}`, the earliest start first."""
        return self._run(self._operations.logs(job))

    def drain(self, node: str, *, limit_s: float | None = None) -> dict[str, Any]:
        """Have a node give its jobs to others and run nothing, while it stays a member.

        It has begun when this returns; `node(...)["state"]` is "drained" when it is done.

        Args:
            node: its id, or "self" for the one that is asked.
            limit_s: how long what runs there may go on; then it is stopped, and runs elsewhere.

        Raises:
            Refused: nobody knows it (404), or it does not live (409).
        """
        return self._run(self._operations.drain(node, limit_s))

    def undrain(self, node: str) -> dict[str, Any]:
        """Have a drained node take jobs again."""
        return self._run(self._operations.undrain(node))

    def change_node(self, node: str, *, weight: float) -> dict[str, Any]:
        """Give a node another share of new jobs, relative to the others', while its process lives."""
        return self._run(self._operations.change_node(node, {"weight": weight}))

    def queues(self) -> Queues:
        """The queues with settings, or with jobs, by name; `queued` and `running` are of the whole mesh but
        for the members in `unanswered`."""
        return self._run(self._operations.queues())

    def change_queue(self, queue: str, **changes: bool | float | None) -> dict[str, Any]:
        """Set what is named of `paused`, `concurrency`, `rate` (per second) and `burst`, in the whole mesh;
        None: no limit. `known` of the `living` members have said that they know it.

        Raises:
            Refused: `field` names what is wrong with it.
        """
        return self._run(self._operations.change_queue(queue, changes))

    def pause(self, queue: str) -> dict[str, Any]:
        """Have nothing of a queue started any more; what runs goes on."""
        return self.change_queue(queue, paused=True)

    def resume(self, queue: str) -> dict[str, Any]:
        return self.change_queue(queue, paused=False)

    def reset_queue(self, queue: str) -> dict[str, Any]:
        """Have a queue as if nothing had ever been set for it: not paused, and without limits."""
        return self._run(self._operations.reset_queue(queue))

    def learn(self) -> None:
        """Ask for the members, and from now on go on to those too when the given nodes do not answer."""
        self._run(self._operations.learn())

    def _run(self, steps: Steps[T]) -> T:
        outcome: Outcome | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as stop:
                result: T = stop.value
                return result
            match step:
                case Attempt():
                    outcome = _attempt(step)
                case Pause(seconds):
                    time.sleep(seconds)
                    outcome = None


def _attempt(attempt: Attempt) -> Outcome:
    """One request on a connection of its own.

    A kept connection may have been closed by the other side just now, and then nobody knows whether a
    submission was read; connecting takes 0.2 ms on a LAN.
    """
    ends_at = time.monotonic() + attempt.timeout_s
    parts = urlsplit(attempt.url)
    assert parts.hostname is not None
    made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = made(parts.hostname, parts.port, timeout=min(CONNECT_S, attempt.timeout_s))
    try:
        try:
            connection.connect()
        except OSError as error:
            return Unsent(_reason(error))
        try:
            return _talk(connection, attempt, parts.path, ends_at)
        except (OSError, http.client.HTTPException) as error:
            return Unanswered(_reason(error))
    finally:
        connection.close()


def _talk(connection: http.client.HTTPConnection, attempt: Attempt, base: str, ends_at: float) -> Answer:
    request = attempt.request
    socket = connection.sock  # which the connection forgets when the answer is to be its last
    socket.settimeout(attempt.timeout_s)
    connection.request(request.method, base + request.path, request.body, dict(request.headers))
    response = connection.getresponse()
    body = bytearray()
    while chunk := response.read1(CHUNK_BYTES):
        body += chunk
        if response.isclosed():
            break
        left_s = ends_at - time.monotonic()  # a timeout of the socket alone starts anew with every byte
        if left_s <= 0:
            raise TimeoutError("the answer is too slow")
        socket.settimeout(left_s)
    if response.length:
        raise http.client.IncompleteRead(bytes(body), response.length)
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, bytes(body), attempt.url)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
