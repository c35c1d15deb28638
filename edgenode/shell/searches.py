"""Searches of this node's disk: one at a time, off the event loop, and none that nobody waits for any more.

A listing costs every member a search, and whoever asked may have gone before it is its turn: without a bound
a few impatient clients would keep every disk of the mesh busy for minutes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from edgenode.core.types import Instant, Seconds
from edgenode.core.wire import Query
from edgenode.shell.job_search import SearchResult

WAITING_MAX: Final = 64
"""Searches that wait for their turn; at some 10 ms each, less than anybody's patience."""
SEARCH_S: Final[Seconds] = 1.0
"""How long one may take: a third of what its asker waits, so that two others can have their turn."""
NOT_DONE: Final = SearchResult((), False)


class Searches:
    """`ask` from the event loop's thread; each ticket ends in one call of `ended` there, until `close`."""

    def __init__(
        self,
        look: Callable[[Query, Seconds], SearchResult],
        ended: Callable[[int, SearchResult], None],
        *,
        patience_s: Seconds,
        clock: Callable[[], Instant] = time.monotonic,
    ) -> None:
        """
        Args:
            look: searches, for so many seconds at most; it may block, and has a thread of its own.
            ended: gets what was found; `NOT_DONE` if it was not even begun.
            patience_s: how long whoever asked waits for the answer.
        """
        self._look = look
        self._ended = ended
        self._patience_s = patience_s
        self._clock = clock
        self._waiting: deque[tuple[Instant, int, Query]] = deque()
        self._thread = ThreadPoolExecutor(1, "edgenode-search")
        self._turn: asyncio.Task[None] | None = None

    def ask(self, ticket: int, query: Query) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self._ended(ticket, NOT_DONE)
            return
        self._waiting.append((self._clock() + self._patience_s, ticket, query))
        if self._turn is None or self._turn.done():
            self._turn = asyncio.ensure_future(self._work())

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            until, ticket, query = self._waiting.popleft()
            left_s = until - self._clock()
            found = NOT_DONE
            if left_s > 0:
                found = await loop.run_in_executor(self._thread, self._look, query, min(SEARCH_S, left_s))
            self._ended(ticket, found)

    async def close(self) -> None:
        """Begin no further one, and leave the one that runs to its end. Calling it twice is fine."""
        self._waiting.clear()
        if self._turn is not None:
            self._turn.cancel()
            with suppress(asyncio.CancelledError):
                await self._turn
        self._thread.shutdown(wait=False)
