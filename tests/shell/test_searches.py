"""Searches of a disk that is slow, for askers that are not patient."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from edgenode.core.wire import Query
from edgenode.shell import searches as module
from edgenode.shell.job_search import SearchResult
from edgenode.shell.searches import NOT_DONE, SEARCH_S, Searches

ALL = Query("", "", "", b"", 10)
FOUND = SearchResult((b"record",), True)


class SlowDisk:
    """Searches, one of which stays on the disk until `go_on`; time passes by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.limits: list[float] = []
        self.busy = 0
        self.busiest = 0
        self.go_on = threading.Event()
        self.answers: dict[int, SearchResult] = {}
        self._news = asyncio.Event()
        self.searches = Searches(self._look, self._ended, patience_s=3.0, clock=lambda: self.now)

    def _look(self, query: Query, limit_s: float) -> SearchResult:
        self.limits.append(limit_s)
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        assert self.go_on.wait(30)
        self.busy -= 1
        return FOUND

    def _ended(self, ticket: int, found: SearchResult) -> None:
        assert ticket not in self.answers
        self.answers[ticket] = found
        self._news.set()

    async def until_answered(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.answers) < count:
                self._news.clear()
                await self._news.wait()


@pytest.fixture
async def disk() -> AsyncIterator[SlowDisk]:
    made = SlowDisk()
    yield made
    made.go_on.set()
    await made.searches.close()


async def test_searches_take_turns_and_each_has_a_bound(disk: SlowDisk) -> None:
    disk.go_on.set()
    for ticket in range(5):
        disk.searches.ask(ticket, ALL)
    await disk.until_answered(5)
    assert disk.answers == dict.fromkeys(range(5), FOUND)
    assert (disk.busiest, disk.limits) == (1, [SEARCH_S] * 5)
    disk.searches.ask(5, ALL)  # after a pause too
    await disk.until_answered(6)


async def test_a_search_that_nobody_waits_for_any_more_is_not_begun(disk: SlowDisk) -> None:
    for ticket in range(3):
        disk.searches.ask(ticket, ALL)
    while not disk.limits:
        await asyncio.to_thread(lambda: None)
    disk.now = 2.5
    disk.searches.ask(3, ALL)
    disk.now = 3.0
    disk.go_on.set()
    await disk.until_answered(4)
    assert disk.answers == {0: FOUND, 1: NOT_DONE, 2: NOT_DONE, 3: FOUND}
    assert len(disk.limits) == 2


async def test_what_waits_for_a_slow_disk_is_bounded(disk: SlowDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 3)
    for ticket in range(4):
        disk.searches.ask(ticket, ALL)
    assert disk.answers == {3: NOT_DONE}


async def test_closing_does_not_wait_for_the_disk(disk: SlowDisk) -> None:
    disk.searches.ask(0, ALL)
    while not disk.limits:
        await asyncio.to_thread(lambda: None)
    async with asyncio.timeout(30):
        await disk.searches.close()
        await disk.searches.close()
    assert disk.answers == {}
