"""Worker processes that have had enough jobs, or take too much memory, are replaced between jobs."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from pools import Pool, wait_for_death

from edgenode.cli.node_options import parse_size
from edgenode.core.types import State
from edgenode.shell.worker_process import private_bytes
from edgenode.task import load_tasks

TASKS = """
import asyncio, os, threading
from edgenode import JobContext, task

kept: list[bytes] = []

@task("pid")
def pid() -> int:
    return os.getpid()

@task("hold")
def hold(ctx: JobContext) -> int:
    print(os.getpid())
    while not ctx.cancelled:
        os.sched_yield()
    return os.getpid()

@task("grow")
def grow(megabytes: int, ctx: JobContext) -> int:
    kept.append(b"x" * (megabytes * 2**20))
    return hold(ctx)

@task("pid.async")
async def pid_async() -> int:
    return os.getpid()

@task("hold.async")
async def hold_async() -> int:
    print(os.getpid())
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return os.getpid()
"""
MEGABYTE = 2**20
Start = Callable[..., Awaitable[Pool]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    file = tmp_path / "recycled_tasks.py"
    file.write_text(TASKS)
    made: list[Pool] = []

    async def start(**options: Any) -> Pool:
        pool = Pool([str(file)], async_slots=8, registry=load_tasks([str(file)]), **options)
        made.append(pool)
        await pool.pool.start()
        assert await pool.pool.ready() is None
        return pool

    yield start
    for pool in made:
        await pool.pool.close()


async def pid_of(pool: Pool, task: str = "pid") -> int:
    ended = await pool.do(task)
    assert ended.verdict.state is State.SUCCEEDED
    return int(ended.verdict.result)


async def let_go(pool: Pool, run: Any) -> int:
    pool.pool.stop(run.job, run.token, "enough")
    return int((await pool.end_of(run)).verdict.result)


async def test_a_process_is_replaced_after_its_number_of_jobs(start: Start) -> None:
    pool = await start(runs_max=4)
    pids = [await pid_of(pool) for _ in range(20)]
    assert sorted(Counter(pids).values()) == [4] * 5
    assert not any(ended.lost for ended in pool.ended)
    for pid in set(pids):
        assert await asyncio.to_thread(wait_for_death, pid), "nobody is left behind"


async def test_without_a_limit_a_process_is_kept(start: Start) -> None:
    pool = await start()
    assert len({await pid_of(pool) for _ in range(50)}) == 1


async def test_the_successor_is_started_while_the_last_job_runs(start: Start) -> None:
    pool = await start(runs_max=1)
    before = pool.pool.pids
    run = pool.give("hold")
    assert len(pool.pool.pids) == len(before) + 1
    first = int(await pool.first_line(run))
    (successor,) = set(pool.pool.pids) - set(before)
    assert await let_go(pool, run) == first, "the last job was not disturbed"
    assert await pid_of(pool) == successor


async def test_quick_jobs_get_the_successor_before_the_last_of_them(start: Start) -> None:
    pool = await start(runs_max=1_000)
    before = len(pool.pool.pids)
    for _ in range(999):
        await pid_of(pool)
        if len(pool.pool.pids) > before:
            break
    assert len(pool.pool.pids) == before + 1


async def test_a_crew_of_several_keeps_its_number(start: Start) -> None:
    pool = await start(slots=2, runs_max=3)
    held = pool.give("hold")
    first = int(await pool.first_line(held))
    pids = [await pid_of(pool) for _ in range(12)]
    assert first not in pids
    assert max(Counter(pids).values()) <= 3
    assert await let_go(pool, held) == first
    assert await pid_of(pool)
    assert len(pool.pool.pids) <= 2 * 2 + 1, "at most a successor for each, and the one of coroutines"


async def test_a_process_that_took_too_much_memory_is_replaced_after_its_job(start: Start) -> None:
    pool = await start(memory_bytes_max=96 * MEGABYTE)
    first = await pid_of(pool)
    assert await pid_of(pool) == first, "what takes little stays"
    run = pool.give("grow", megabytes=128)
    assert int(await pool.first_line(run)) == first
    assert private_bytes(first) > 128 * MEGABYTE
    assert await let_go(pool, run) == first, "not in the midst of a job"
    assert await pid_of(pool) != first
    assert await asyncio.to_thread(wait_for_death, first)


async def test_a_process_of_coroutines_goes_when_its_last_one_has_ended(start: Start) -> None:
    pool = await start(runs_max=3)
    runs = [pool.give("hold.async") for _ in range(3)]
    pids = {int(await pool.first_line(run)) for run in runs}
    assert len(pids) == 1
    (old,) = pids
    assert await pid_of(pool, "pid.async") != old, "the fourth finds another process"
    assert old in pool.pool.pids
    assert {await let_go(pool, run) for run in runs} == {old}
    assert await asyncio.to_thread(wait_for_death, old)


async def test_a_limit_that_leaves_no_room_is_told_and_jobs_run_all_the_same(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    pool = await start(memory_bytes_max=MEGABYTE)
    assert len({await pid_of(pool) for _ in range(3)}) == 3
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 2, "once for each kind"
    assert "before its first job" in told[0]


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("512M", 512 * MEGABYTE), ("2g", 2048 * MEGABYTE), ("64 KiB", 65_536)],
)
def test_a_size_is_given_in_bytes_or_with_a_letter(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "1.5G", "5T", "M"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="512M"):
        parse_size(text)
