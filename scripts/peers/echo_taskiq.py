"""taskiq with a Redis list as broker, Redis as result backend, and two worker processes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from peer import COLLECT_S, WORKERS, Peer, main, version_of

URL = "ECHO_TASKIQ_URL"
AT_ONCE: Final = 64
CHECK_S: Final = 0.001
"""How often a result is asked for; its default is 0.2 s."""


def make_broker(url: str) -> tuple[Any, Any]:
    """The broker, and its one task."""
    from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

    broker = ListQueueBroker(url).with_result_backend(RedisAsyncResultBackend(url))

    async def echo(message: str) -> str:
        return message

    return broker, broker.task(task_name="echo")(echo)


if os.environ.get(URL):  # in a worker
    broker, _ = make_broker(os.environ[URL])


class TaskiqRedis(Peer):
    name = "taskiq + Redis"
    accepted = "in Redis' memory; its file is synced every second; a worker's death loses what it has"

    def start(self) -> str:
        from importlib.metadata import version

        import taskiq_redis  # noqa: F401  what the workers need is looked for here

        url = self.redis()
        command = ["worker", "echo_taskiq:broker", "--workers", str(WORKERS), "--log-level", "WARNING"]
        self.server(sys.executable, "-m", "taskiq", *command, environment={URL: url})
        self._loop = asyncio.new_event_loop()
        client, self._echo = make_broker(url)
        self._loop.run_until_complete(client.startup())
        self.one("ready")
        return f"taskiq {version('taskiq')}, {version_of('redis-server')}"

    def submit(self, messages: Sequence[str]) -> None:
        self._sent = self._loop.run_until_complete(self._all(self._echo.kiq, messages))

    def collect(self) -> list[str]:
        return self._loop.run_until_complete(self._all(self._result, self._sent))

    def one(self, message: str) -> str:
        async def both() -> str:
            return await self._result(await self._echo.kiq(message))

        return self._loop.run_until_complete(both())

    @staticmethod
    async def _result(sent: Any) -> str:
        found = await sent.wait_result(check_interval=CHECK_S, timeout=COLLECT_S)
        return str(found.return_value)

    @staticmethod
    async def _all(work: Any, arguments: Sequence[Any]) -> list[Any]:
        """So many at a time, as a client of some sense does it."""
        limit = asyncio.Semaphore(AT_ONCE)

        async def each(argument: Any) -> Any:
            async with limit:
                return await work(argument)

        return await asyncio.gather(*map(each, arguments))


if __name__ == "__main__":
    main(TaskiqRedis)
