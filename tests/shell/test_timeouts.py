"""A start that takes too long, or that somebody wants to end, is over within a second, whatever it does.

What the clock shows on a slow machine proves little of that: what the timers are set to is looked at, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from pools import Pool, wait_for_death

from edgenode.core.specs import AS_ITS_TASK
from edgenode.core.types import State
from edgenode.shell.worker import STOP_GRACE_S
from edgenode.shell.worker_process import LINK_END_S, TIMEOUT_GRACE_S
from edgenode.task import load_tasks

TIMEOUT_S = 0.2
LATE_S_MAX = 1.0
"""What is promised: a timed out start is over so long after its timeout."""
SLOW_MACHINE_S = 1.0

TASKS = """
import asyncio, contextlib, hashlib, os, re, signal, subprocess, sys, threading
from edgenode import JobContext, task

CHILD = "import signal, threading; signal.signal(signal.SIGTERM, signal.SIG_IGN); threading.Event().wait()"

def children(*, new_session: bool) -> None:
    made = subprocess.Popen([sys.executable, "-c", CHILD], start_new_session=new_session)
    print(made.pid)
    made.wait()

@task("waits")
def waits() -> None:
    print("ready")
    threading.Event().wait()

@task("ignores.signals")
def ignores_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    print("ready")
    threading.Event().wait()

@task("catches.all")
def catches_all() -> None:
    print("ready")
    while True:
        with contextlib.suppress(BaseException):
            threading.Event().wait()

@task("computes")
def computes() -> None:
    print("ready")
    hashlib.pbkdf2_hmac("sha512", b"a", b"b", 2_000_000_000)

@task("holds.the.interpreter")
def holds_the_interpreter() -> None:
    print("ready")
    re.match("(a+)+$", "a" * 60 + "b")

@task("has.a.child")
def has_a_child() -> None:
    children(new_session=False)

@task("has.a.daemon")
def has_a_daemon() -> None:
    children(new_session=True)

@task("forks")
def forks() -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            print(os.getpid())
        threading.Event().wait()
    threading.Event().wait()

@task("waits.async")
async def waits_async() -> None:
    print("ready")
    await asyncio.Event().wait()

@task("deaf.async")
async def deaf_async() -> None:
    print("ready")
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

@task("computes.async")
async def computes_async() -> None:
    print("ready")
    re.match("(a+)+$", "a" * 60 + "b")

@task("deaf.inline", inline=True)
async def deaf_inline() -> None:
    print("ready")
    for _ in range(2):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

@task("limited", timeout_s=20)
def limited() -> None:
    waits()

@task("limited.async", timeout_s=20)
async def limited_async() -> None:
    await waits_async()

@task("limited.inline", timeout_s=20, inline=True)
async def limited_inline() -> None:
    await waits_async()

@task("listens")
def listens(ctx: JobContext) -> str:
    print("ready")
    while not ctx.cancelled:
        os.sched_yield()
    return "cleaned up"

@task("listens.too.late")
def listens_too_late(ctx: JobContext) -> None:
    while not ctx.cancelled:
        os.sched_yield()
    print("saw it")
    threading.Event().wait()

@task("pid")
def pid() -> int:
    return os.getpid()
"""
DEFS = ["waits", "ignores.signals", "catches.all", "computes", "holds.the.interpreter"]
COROUTINES = ["waits.async", "deaf.async", "computes.async"]
PARENTS = ["has.a.child", "has.a.daemon", "forks"]
LIMITED = ["limited", "limited.async", "limited.inline"]


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    file = tmp_path / "timeout_tasks.py"
    file.write_text(TASKS)
    made = Pool([str(file)], async_slots=8, registry=load_tasks([str(file)]), scratch=tmp_path / "scratch")
    await made.pool.start()
    assert await made.pool.ready() is None
    yield made
    await made.pool.close()


ENDS = {"_run_out", "kill", "_end"}
"""What the timers call that end a run: by its timeout, and after the grace in a process or inline."""


@pytest.fixture
async def timers(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long the timers are set that end a run. All timers run out as soon as they are set."""
    loop = asyncio.get_running_loop()
    real = loop.call_later
    noted: list[float] = []

    def call_later(delay_s: float, callback: Callable[..., Any], *args: Any, **named: Any) -> Any:
        if callback.__name__ in ENDS:
            noted.append(delay_s)
        return real(0.0, callback, *args, **named)

    monkeypatch.setattr(loop, "call_later", call_later)
    return noted


async def end_late(pool: Pool, task: str) -> tuple[float, str]:
    """Let a run time out: how long after its timeout it was over, and what it wrote first."""
    run = pool.give(task, TIMEOUT_S)
    began = time.monotonic()
    ended = await pool.end_of(run)
    late_s = time.monotonic() - began - TIMEOUT_S
    verdict = ended.verdict
    assert (verdict.state, verdict.error, ended.lost) == (
        State.FAILED,
        f"timed out after {TIMEOUT_S} s",
        False,
    )
    return late_s, pool.output.get(run.job, "").partition("\n")[0]


@pytest.mark.parametrize("task", [*DEFS, *COROUTINES])
async def test_a_timed_out_start_is_over_within_a_second(pool: Pool, task: str) -> None:
    late_s, written = await end_late(pool, task)
    assert written == "ready", "it was in the midst of it"
    assert 0.0 <= late_s < LATE_S_MAX + SLOW_MACHINE_S
    assert (await pool.do("pid")).verdict.state is State.SUCCEEDED


def test_the_graces_are_those_that_are_promised() -> None:
    assert TIMEOUT_GRACE_S == 0.5, "as the README has it"
    assert TIMEOUT_GRACE_S + LINK_END_S < LATE_S_MAX
    assert STOP_GRACE_S == 2.0, "as `JobContext.cancelled` has it"


@pytest.mark.parametrize("task", ["waits", "deaf.async", "deaf.inline"])
async def test_what_goes_on_is_killed_half_a_second_after_its_timeout(
    pool: Pool, timers: list[float], task: str
) -> None:
    assert (await pool.do(task, 30.0)).verdict.error == "timed out after 30 s"
    assert timers == [30.0, TIMEOUT_GRACE_S]


@pytest.mark.parametrize("task", LIMITED)
async def test_the_timeout_of_the_task_counts_if_the_job_says_none(
    pool: Pool, timers: list[float], task: str
) -> None:
    assert (await pool.do(task, AS_ITS_TASK)).verdict.error == "timed out after 20 s"
    assert timers[0] == 20.0


@pytest.mark.parametrize("task", LIMITED)
async def test_a_timeout_of_0_is_none_whatever_the_task_says(
    pool: Pool, timers: list[float], task: str
) -> None:
    run = pool.give(task, 0.0)
    assert await pool.first_line(run) == "ready"
    assert timers == []
    pool.pool.stop(run.job, run.token, "enough")
    assert (await pool.end_of(run)).verdict.state is State.CANCELLED
    assert timers == [STOP_GRACE_S]


@pytest.mark.parametrize("task", PARENTS)
async def test_what_a_timed_out_task_started_dies_with_it(pool: Pool, task: str) -> None:
    """Programs of the same session, of one of their own, and those whose parent lives on beside the task."""
    late_s, child = await end_late(pool, task)
    assert late_s < LATE_S_MAX + SLOW_MACHINE_S
    assert await asyncio.to_thread(wait_for_death, int(child))


async def test_a_coroutine_that_hears_of_its_timeout_ends_at_once(pool: Pool) -> None:
    before = sorted(pool.pool.pids)
    late_s, _ = await end_late(pool, "waits.async")
    assert late_s < TIMEOUT_GRACE_S, "it was not waited for"
    assert sorted(pool.pool.pids) == before, "its process lives"


async def test_a_stop_is_seen_first_and_the_kill_comes_after_the_grace(pool: Pool) -> None:
    run = pool.give("listens.too.late")
    pool.pool.stop(run.job, run.token, "cancelled", grace_s=0.3)
    began = time.monotonic()
    assert await pool.first_line(run) == "saw it"
    assert pool.ended == []
    ended = await pool.end_of(run)
    assert time.monotonic() - began < 0.3 + LATE_S_MAX + SLOW_MACHINE_S
    assert (ended.verdict.state, ended.verdict.error, ended.lost) == (State.CANCELLED, "cancelled", False)


async def test_a_task_that_notices_and_returns_has_ended_in_its_own_way(pool: Pool) -> None:
    run = pool.give("listens")
    await pool.first_line(run)
    before = sorted(pool.pool.pids)
    pool.pool.stop(run.job, run.token, "cancelled")
    ended = await pool.end_of(run)
    assert (ended.verdict.state, ended.verdict.result, ended.lost) == (
        State.SUCCEEDED,
        b'"cleaned up"',
        False,
    )
    assert sorted(pool.pool.pids) == before
