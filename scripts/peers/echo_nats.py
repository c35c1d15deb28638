"""NATS JetStream: three servers, a work queue of three replicas on files, two Python workers.

A worker publishes the result, and then acknowledges the job. Results come to the client as plain messages,
which is quicker, or through a second stream of three replicas, which survives as ours do.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any, Final, TypeVar

from peer import COLLECT_S, START_S, WORKERS, Peer, main, version_of, wait_for_port

SERVERS: Final = 3
FETCH: Final = 200
IN_FLIGHT: Final = 1000
JOBS, RESULTS = "jobs.echo", "results.echo"

T = TypeVar("T")


def new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def work(urls: Sequence[str], is_stored: bool) -> None:
    """A worker: echo what comes, until the process is ended."""
    import nats
    from nats.errors import TimeoutError as NothingCame

    connection = await nats.connect(list(urls))
    stream = connection.jetstream()
    queue = await stream.pull_subscribe(JOBS, durable="workers", stream="JOBS")
    while True:
        try:
            jobs = await queue.fetch(FETCH, timeout=1)
        except NothingCame:
            continue
        if is_stored:
            await asyncio.gather(*[await stream.publish_async(RESULTS, job.data) for job in jobs])
        else:
            for job in jobs:
                await connection.publish(RESULTS, job.data)
        for job in jobs:
            await job.ack()


class JetStream(Peer):
    name = "NATS JetStream, 3 servers"
    accepted = "on 2 of 3 servers, which sync to disk every 2 minutes; results are in no stream"
    is_stored = False

    def start(self) -> str:
        import nats  # noqa: F401  is it there?

        clients, routes = self.ports[:SERVERS], self.ports[SERVERS : 2 * SERVERS]
        for number, (port, route) in enumerate(zip(clients, routes, strict=True)):
            file = self.folder / f"server-{number}.conf"
            others = ", ".join(f'"nats://127.0.0.1:{other}"' for other in routes)
            file.write_text(
                f'server_name: "server-{number}"\nlisten: "127.0.0.1:{port}"\n'
                f'jetstream: {{store_dir: "{self.folder}/data-{number}"}}\n'
                f'cluster: {{name: "bench", listen: "127.0.0.1:{route}", routes: [{others}]}}\n'
            )
            self.server("nats-server", "-c", str(file))
        for port in clients:
            wait_for_port(port)
        urls = [f"nats://127.0.0.1:{port}" for port in clients]
        self._loop = new_loop()
        self._got: list[str] = []
        self._wanted, self._all_here = 0, asyncio.Event()
        self._run(self._connect(urls))
        for number in range(WORKERS):
            # Each at another server first, as a cluster's clients are.
            turned = urls[number + 1 :] + urls[: number + 1]
            kind = "stored" if self.is_stored else "plain"
            self.server(sys.executable, __file__, "worker", kind, *turned)
        self.one("ready")
        return f"{version_of('nats-server')}, nats-py {version('nats-py')}"

    def _run(self, what: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(asyncio.wait_for(what, COLLECT_S))

    async def _connect(self, urls: Sequence[str]) -> None:
        import nats
        from nats.js.api import RetentionPolicy, StorageType
        from nats.js.errors import Error

        self._connection = await nats.connect(list(urls))
        self._stream = self._connection.jetstream(timeout=5)
        streams = {"JOBS": (JOBS, RetentionPolicy.WORK_QUEUE)}
        if self.is_stored:
            streams["RESULTS"] = (RESULTS, RetentionPolicy.LIMITS)
        async with asyncio.timeout(START_S):
            for name, (subject, retention) in streams.items():
                made = False
                while not made:  # the servers have to elect a leader first
                    with suppress(Error, TimeoutError, nats.errors.Error):
                        await self._stream.add_stream(
                            name=name,
                            subjects=[subject],
                            retention=retention,
                            storage=StorageType.FILE,
                            num_replicas=SERVERS,
                        )
                        made = True
        if self.is_stored:
            await self._stream.subscribe(RESULTS, ordered_consumer=True, cb=self._take)
        else:
            await self._connection.subscribe(RESULTS, cb=self._take)
        await self._connection.flush()

    async def _take(self, result: Any) -> None:
        self._got.append(result.data.decode())
        if len(self._got) >= self._wanted:
            self._all_here.set()

    def submit(self, messages: Sequence[str]) -> None:
        async def publish() -> None:
            for first in range(0, len(messages), IN_FLIGHT):
                some = [message.encode() for message in messages[first : first + IN_FLIGHT]]
                await asyncio.gather(*[await self._stream.publish_async(JOBS, data) for data in some])

        self._got, self._wanted = [], len(messages)
        self._all_here.clear()
        self._run(publish())

    def collect(self) -> list[str]:
        self._run(self._all_here.wait())
        return self._got

    def one(self, message: str) -> str:
        self.submit([message])
        (result,) = self.collect()
        return result


class StoredJetStream(JetStream):
    name = "NATS JetStream, results in a stream"
    accepted = "on 2 of 3 servers, which sync to disk every 2 minutes; so is the result"
    is_stored = True


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        new_loop().run_until_complete(work(sys.argv[3:], sys.argv[2] == "stored"))
    main(JetStream, StoredJetStream)
