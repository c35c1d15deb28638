"""Celery with Redis as broker and result backend, both with their defaults, and two prefork workers."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from peer import COLLECT_S, START_S, WORKERS, Peer, main, version_of

URL = "ECHO_CELERY_URL"


def make_app(url: str) -> tuple[Any, Any]:
    """The app, and its one task."""
    from celery import Celery

    app = Celery("echo_celery", broker=url, backend=url)

    def echo(message: str) -> str:
        return message

    return app, app.task(name="echo")(echo)


if os.environ.get(URL):  # in a worker
    app, _ = make_app(os.environ[URL])


class CeleryRedis(Peer):
    name = "Celery + Redis"
    accepted = "in Redis' memory; its file is synced every second; a worker's death loses what it has"

    def start(self) -> str:
        import celery

        url = self.redis()
        command = ["-A", "echo_celery", "worker", "--concurrency", str(WORKERS), "--loglevel", "WARNING"]
        self.server(sys.executable, "-m", "celery", *command, environment={URL: url})
        _, self._echo = make_app(url)
        self._echo.delay("ready").get(timeout=START_S)
        return f"celery {celery.__version__}, {version_of('redis-server')}"

    def submit(self, messages: Sequence[str]) -> None:
        self._sent = [self._echo.delay(message) for message in messages]

    def collect(self) -> list[str]:
        return [result.get(timeout=COLLECT_S) for result in self._sent]

    def one(self, message: str) -> str:
        return str(self._echo.delay(message).get(timeout=COLLECT_S))


if __name__ == "__main__":
    main(CeleryRedis)
