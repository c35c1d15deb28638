"""The same client for asyncio, over aiohttp."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from edgenode.client.errors import ClientError
from edgenode.client.exchange import CONNECT_S, Answer, Attempt, Outcome, Pause, Unanswered, Unsent
from edgenode.client.job import Job
from edgenode.client.operations import Batch, Changed, Listing, Operations, Page, Queues, Steps, list_path

T = TypeVar("T")


class AsyncJobs(Listing, AsyncIterator[Job]):
    """As `Jobs` of the other client."""

    def __init__(self, path: str, fetch: Callable[[str], Awaitable[Page]]) -> None:
        super().__init__(path)
        self._fetch = fetch

    async def __anext__(self) -> Job:
        while (job := self.take()) is None:
            if self.path is None:
                raise StopAsyncIteration
            self.turn(await self._fetch(self.path))
        return job


class AsyncClient:
    """`Client`, with the same methods as coroutines; `async with` closes its connections.

    async with AsyncClient() as client:
        job = await client.submit("echo", {"message": "hello"})
        print((await client.wait(job.id, timeout_s=30)).result)
    """

    def __init__(self, urls: str | Sequence[str] | None = None, *, timeout_s: float = 30.0) -> None:
        self._operations = Operations(urls, timeout_s=timeout_s, clock=time.monotonic)
        self._sessions: dict[bool, aiohttp.ClientSession] = {}  # by whether connections are kept

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    @property
    def urls(self) -> tuple[str, ...]:
        """The nodes, the one that answered last first."""
        return self._operations.urls

    async def submit(
        self,
        task: str,
        payload: Mapping[str, Any] | None = None,
        *,
        wait_s: float | None = None,
        **options: Any,
    ) -> Job:
        """See `Client.submit`."""
        return await self._run(self._operations.submit(task, payload, wait_s, options))

    async def submit_many(self, documents: Iterable[Mapping[str, Any]]) -> list[Job | ClientError]:
        """See `Client.submit_many`."""
        return await self._run(self._operations.submit_many(documents))

    async def get(self, job: str, *, wait_s: float | None = None) -> Job:
        """See `Client.get`."""
        return await self._run(self._operations.get(job, wait_s))

    async def wait(self, job: str, *, timeout_s: float) -> Job:
        """See `Client.wait`."""
        return await self._run(self._operations.wait(job, timeout_s))

    async def submit_batch(self, documents: Iterable[Mapping[str, Any]]) -> Batch:
        """See `Client.submit_batch`."""
        return await self._run(self._operations.submit_batch(documents))

    async def batch(self, batch: str) -> dict[str, Any]:
        """See `Client.batch`."""
        return await self._run(self._operations.batch(batch))

    async def batch_jobs(self, batch: str) -> dict[str, Any]:
        """See `Client.batch_jobs`."""
        return await self._run(self._operations.batch_jobs(batch))

    async def wait_batch(self, batch: str, *, timeout_s: float) -> dict[str, Any]:
        """See `Client.wait_batch`."""
        return await self._run(self._operations.wait_batch(batch, timeout_s))

    async def cancel_batch(self, batch: str) -> dict[str, Any]:
        """See `Client.cancel_batch`."""
        return await self._run(self._operations.cancel_batch(batch))

    async def cancel(self, job: str, *, wait_s: float | None = None) -> Job:
        """See `Client.cancel`."""
        return await self._run(self._operations.cancel(job, wait_s))

    async def cancel_many(
        self, ids: Sequence[str] = (), *, wait_s: float | None = None, **filters: str
    ) -> Changed[dict[str, Any]]:
        """See `Client.cancel_many`."""
        return await self._run(self._operations.cancel_many(ids, filters, wait_s))

    async def retry(self, job: str, *, wait_s: float | None = None) -> Job:
        """See `Client.retry`."""
        return await self._run(self._operations.retry(job, wait_s))

    async def retry_many(
        self, ids: Sequence[str] = (), *, wait_s: float | None = None, **filters: str
    ) -> Changed[Job | ClientError]:
        """See `Client.retry_many`."""
        return await self._run(self._operations.retry_many(ids, filters, wait_s))

    def jobs(
        self,
        *,
        state: str | None = None,
        task: str | None = None,
        queue: str | None = None,
        retried: bool | None = None,
        page: int = 100,
    ) -> AsyncJobs:
        """See `Client.jobs`."""

        async def fetch(path: str) -> Page:
            return await self._run(self._operations.page(path))

        return AsyncJobs(list_path(state=state, task=task, queue=queue, retried=retried, limit=page), fetch)

    async def nodes(self) -> list[dict[str, Any]]:
        """The members, by name."""
        return await self._run(self._operations.nodes())

    async def node(self, node: str = "self") -> dict[str, Any]:
        return await self._run(self._operations.node(node))

    async def tasks(self) -> list[dict[str, Any]]:
        """See `Client.tasks`."""
        return await self._run(self._operations.tasks())

    async def mesh(self) -> dict[str, Any]:
        return await self._run(self._operations.mesh())

    async def placement(self, job: str) -> dict[str, Any]:
        """See `Client.placement`."""
        return await self._run(self._operations.placement(job))

    async def logs(self, job: str) -> dict[str, Any]:
        """See `Client.logs`."""
        return await self._run(self._operations.logs(job))

    async def drain(self, node: str, *, limit_s: float | None = None) -> dict[str, Any]:
        """See `Client.drain`."""
        return await self._run(self._operations.drain(node, limit_s))

    async def undrain(self, node: str) -> dict[str, Any]:
        """See `Client.undrain`."""
        return await self._run(self._operations.undrain(node))

    async def change_node(self, node: str, *, weight: float) -> dict[str, Any]:
        """See `Client.change_node`."""
        return await self._run(self._operations.change_node(node, {"weight": weight}))

    async def queues(self) -> Queues:
        """See `Client.queues`."""
        return await self._run(self._operations.queues())

    async def change_queue(self, queue: str, **changes: bool | float | None) -> dict[str, Any]:
        """See `Client.change_queue`."""
        return await self._run(self._operations.change_queue(queue, changes))

    async def pause(self, queue: str) -> dict[str, Any]:
        """See `Client.pause`."""
        return await self.change_queue(queue, paused=True)

    async def resume(self, queue: str) -> dict[str, Any]:
        return await self.change_queue(queue, paused=False)

    async def reset_queue(self, queue: str) -> dict[str, Any]:
        """See `Client.reset_queue`."""
        return await self._run(self._operations.reset_queue(queue))

    async def learn(self) -> None:
        """See `Client.learn`."""
        await self._run(self._operations.learn())

    async def _run(self, steps: Steps[T]) -> T:
        outcome: Outcome | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as stop:
                result: T = stop.value
                return result
            match step:
                case Attempt():
                    outcome = await self._attempt(step)
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                    outcome = None

    async def _attempt(self, attempt: Attempt) -> Outcome:
        request = attempt.request
        # A kept connection may have been closed by the other side just now, and then nobody knows whether the
        # request was read: what must not be sent twice goes over one of its own.
        is_kept = request.is_read or request.keyed
        if is_kept not in self._sessions:
            connector = aiohttp.TCPConnector(force_close=not is_kept)
            self._sessions[is_kept] = aiohttp.ClientSession(connector=connector)
        try:
            async with self._sessions[is_kept].request(
                request.method,
                # As it is: names in it may hold what paths mean something by ("..").
                URL(str(URL(attempt.url)) + request.path, encoded=True),
                data=request.body,
                headers=dict(request.headers),
                timeout=aiohttp.ClientTimeout(total=attempt.timeout_s, sock_connect=CONNECT_S),
                allow_redirects=False,
            ) as response:
                body = await response.read()
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status, headers, body, attempt.url)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Unsent(str(error) or "timed out")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Unanswered(str(error) or "timed out")
