"""Coroutines: many at a time in one worker process, and in the node's own loop if they are inline."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pools import LIMIT_S, Pool

from edgenode.core.types import Room, State
from edgenode.core.wire import Verdict
from edgenode.shell.inline import BLOCKED_S
from edgenode.task import load_tasks

TASKS = """
import asyncio, contextlib, logging, os, subprocess, sys, threading, time
from contextvars import ContextVar
from edgenode import Cancel, Fail, JobContext, Retry, task

logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
meeting: dict[str, asyncio.Event] = {}
ghosts: list[threading.Thread] = []
freed = threading.Event()
word: ContextVar[str] = ContextVar("word", default="none")

def event(name: str) -> asyncio.Event:
    return meeting.setdefault(name, asyncio.Event())

@task("pid")
def pid() -> int:
    return os.getpid()

@task("pid.async")
async def pid_async() -> int:
    return os.getpid()

@task("meet")
async def meet(mine: str, other: str) -> int:
    event(mine).set()
    await event(other).wait()
    return os.getpid()

@task("say")
async def say(who: str, other: str, ctx: JobContext) -> None:
    print("print by", who)
    event(who).set()
    await event(other).wait()
    ctx.log(f"log by {who}")
    logging.info("logging by %s", who)
    print("stderr by", who, file=sys.stderr)
    await asyncio.to_thread(print, "thread by", who)
    ctx.progress(0.5, who)

@task("flood")
async def flood() -> None:
    for _ in range(4000):
        print("x" * 99)
    print("the end")

@task("partial")
async def partial(ctx: JobContext) -> None:
    for number in range(100):
        ctx.partial([number])

@task("hang")
async def hang(ctx: JobContext) -> None:
    print("ready")
    await asyncio.Event().wait()

@task("deaf")
async def deaf() -> None:
    print("ready")
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

@task("block")
async def block() -> None:
    print("ready")
    threading.Event().wait()

@task("watch")
async def watch(ctx: JobContext) -> str:
    print("ready")
    while not ctx.cancelled:  # which blocks the loop, but listens
        os.sched_yield()
    return "stopped in time"

@task("tidy")
async def tidy(ctx: JobContext) -> str:
    print("ready")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return f"noticed: {ctx.cancelled}"

@task("child")
async def child(name: str) -> None:
    async def left_behind() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            event(name).set()
    asyncio.create_task(left_behind())
    await asyncio.Event().wait() if name == "never" else None
    turn = asyncio.Event()
    asyncio.get_running_loop().call_soon(turn.set)
    await turn.wait()

@task("await")
async def await_event(name: str) -> str:
    await event(name).wait()
    return name

@task("exit")
async def exit(code: int) -> None:
    os._exit(code)

@task("tmp")
async def tmp(ctx: JobContext) -> str:
    (ctx.tmp / "file").write_text("x")
    return str(ctx.tmp)

@task("in.pid", inline=True)
async def in_pid() -> int:
    return os.getpid()

def end_so(kind: str, how: str) -> object:
    verdict = {"retry": Retry("not yet", after_s=2.5), "class": Retry, "cancel": Cancel("no need"),
               "fail": Fail("never"), "caught": Retry(OSError("no route"))}[kind]
    if how == "return":
        return verdict
    raise verdict

@task("end")
def end(kind: str, how: str) -> object:
    return end_so(kind, how)

@task("end.async")
async def end_async(kind: str, how: str) -> object:
    return end_so(kind, how)

@task("end.inline", inline=True)
async def end_inline(kind: str, how: str) -> object:
    return end_so(kind, how)

@task("in.add", inline=True)
async def in_add(a: int, b: int = 1) -> int:
    return a + b

@task("in.raise", inline=True)
async def in_raise(kind: str) -> None:
    raise {"value": ValueError("a bad thing"), "retry": Retry("not yet", after_s=2.5), "fail": Fail("never"),
           "exit": SystemExit("enough")}[kind]

@task("in.word", inline=True)
async def in_word(say: str) -> str:
    before = word.get()
    word.set(say)
    return before

@task("in.wait", inline=True)
async def in_wait(name: str, ctx: JobContext) -> str:
    async with asyncio.timeout(60):
        await event(name).wait()
    return f"{name} in {ctx.tmp.name}"

@task("in.limit", inline=True)
async def in_limit() -> None:
    async with asyncio.timeout(0.01):
        await asyncio.Event().wait()

@task("in.set", inline=True)
async def in_set(name: str) -> None:
    event(name).set()

@task("in.hang", inline=True, timeout_s=0.05)
async def in_hang() -> None:
    await asyncio.Event().wait()

@task("in.deaf", inline=True)
async def in_deaf() -> None:
    print("ready")
    for _ in range(2):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

@task("in.tidy", inline=True)
async def in_tidy(ctx: JobContext) -> str:
    print("ready")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return f"noticed: {ctx.cancelled}"

@task("in.block", inline=True)
async def in_block(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass

@task("in.haunt", inline=True)
async def haunt(ctx: JobContext) -> None:
    ghosts.append(threading.Thread(target=lambda: (freed.wait(), ctx.partial("boo")), daemon=True))
    ghosts[0].start()
    await asyncio.to_thread(ctx.progress, 0.1, "alive")

@task("in.free", inline=True)
async def free() -> None:
    freed.set()
    await asyncio.to_thread(ghosts[0].join)

@task("in.say", inline=True)
async def in_say(ctx: JobContext) -> None:
    print("print")
    ctx.log("log")
    logging.warning("logging")
    ctx.progress(0.25, "some")
"""


@pytest.fixture
def tasks(tmp_path: Path) -> str:
    file = tmp_path / "coroutine_tasks.py"
    file.write_text(TASKS)
    return str(file)


@pytest.fixture
async def pool(tasks: str, tmp_path: Path) -> AsyncIterator[Pool]:
    made = Pool([tasks], async_slots=8, registry=load_tasks([tasks]), scratch=tmp_path / "scratch")
    await made.pool.start()
    yield made
    await made.pool.close()
    assert len({(each.job, each.token) for each in made.ended}) == len(made.ended), "a run ended twice"


# ------------------------------------------------------------------------------------- side by side


async def test_coroutines_run_side_by_side_in_one_process(pool: Pool) -> None:
    names = ["a", "b", "c", "d"]
    runs = [
        pool.give("meet", mine=one, other=other)
        for one, other in zip(names, names[1:] + names[:1], strict=True)
    ]
    pids = {json.loads((await pool.end_of(run)).verdict.result) for run in runs}
    assert len(pids) == 1, "each waited for another one that ran at the same time"
    assert pids < set(pool.pool.pids)
    assert pids != {os.getpid()}


async def test_a_def_has_a_process_of_its_own(pool: Pool) -> None:
    whole, shared = await pool.do("pid"), await pool.do("pid.async")
    assert whole.verdict.result != shared.verdict.result
    assert {int(whole.verdict.result), int(shared.verdict.result)} == set(pool.pool.pids)


async def test_without_coroutines_no_process_is_kept_for_them(tmp_path: Path) -> None:
    file = tmp_path / "plain_tasks.py"
    file.write_text("from edgenode import task\n@task('echo')\ndef echo(value: str) -> str: return value\n")
    pool = Pool([str(file)], async_slots=8, registry=load_tasks([str(file)]))
    await pool.pool.start()
    assert await pool.works()
    assert len(pool.pool.pids) == 1
    await pool.pool.close()


async def test_what_each_of_them_writes_is_its_own(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    """The output and the log of coroutines that run at the same time, and of the threads that they use."""
    one, other = pool.give("say", who="one", other="other"), pool.give("say", who="other", other="one")
    for run, who in ((one, "one"), (other, "other")):
        await pool.end_of(run)
        assert pool.output[run.job] == (
            f"print by {who}\nlog by {who}\nINFO logging by {who}\nstderr by {who}\nthread by {who}\n"
        )
    assert sorted(pool.progress) == [(0.5, "one"), (0.5, "other")]
    assert capfd.readouterr() == ("", "")


async def test_of_a_flood_of_output_the_beginning_and_the_end_are_told(pool: Pool) -> None:
    run = pool.give("flood")
    await pool.end_of(run)
    text = pool.output[run.job]
    assert re.search(r"\n\[\d+ characters are dropped\]\n", text)
    assert text.endswith("x\nthe end\n")
    assert len(text) < 350_000


async def test_partial_results_are_told_and_the_latest_before_the_end(pool: Pool) -> None:
    run = pool.give("partial")
    await pool.end_of(run)
    assert pool.partials[0] == b"[0]"
    assert pool.partials[-1] == b"[99]"
    assert len(pool.partials) < 50


async def test_what_a_coroutine_leaves_running_ends_with_it(pool: Pool) -> None:
    await pool.do("child", name="left")
    assert (await pool.do("await", name="left")).verdict.result == b'"left"'


async def test_its_temporary_folder_goes_with_it(pool: Pool) -> None:
    folder = json.loads((await pool.do("tmp")).verdict.result)
    assert not await asyncio.to_thread(Path(folder).exists)


# --------------------------------------------------------------------------------- timeouts and stops


async def test_only_the_coroutine_that_takes_too_long_ends(pool: Pool) -> None:
    neighbour = pool.give("meet", mine="n", other="m")
    assert await pool.do("pid.async")
    before = pool.pool.pids
    ended = await pool.do("hang", 0.1)
    assert (ended.verdict.error, ended.verdict.state, ended.lost) == (
        "timed out after 0.1 s",
        State.FAILED,
        False,
    )
    await pool.do("meet", mine="m", other="n")
    assert (await pool.end_of(neighbour)).verdict.state is State.SUCCEEDED
    assert pool.pool.pids == before


@pytest.mark.parametrize("task", ["block", "deaf"])
async def test_one_that_does_not_end_takes_the_process_along_and_its_neighbours_are_not_blamed(
    pool: Pool, task: str
) -> None:
    assert await pool.do("pid.async")
    neighbour = pool.give("hang")
    await pool.first_line(neighbour)
    began = time.monotonic()
    ended = await pool.do(task, 0.1)
    assert time.monotonic() - began < 0.1 + 1.0 + 1.0  # the last second is a slow machine's
    assert (ended.verdict.error, ended.lost) == ("timed out after 0.1 s", False)
    lost = await pool.end_of(neighbour)
    assert (lost.lost, lost.begun, lost.counted) == (True, True, False)
    assert (await pool.do("pid.async")).verdict.state is State.SUCCEEDED


async def test_one_that_crashes_its_process_is_blamed_with_its_neighbours(pool: Pool) -> None:
    """Nobody knows which one it was: a job that kills its process must meet its limit."""
    neighbour = pool.give("hang")
    await pool.first_line(neighbour)
    runs = [await pool.do("exit", code=3), await pool.end_of(neighbour)]
    assert [(each.lost, each.counted) for each in runs] == [(True, True), (True, True)]
    assert (await pool.do("pid.async")).verdict.state is State.SUCCEEDED


async def test_a_stopped_coroutine_is_cancelled_and_its_neighbour_is_not(pool: Pool) -> None:
    one, other = pool.give("hang"), pool.give("meet", mine="x", other="y")
    await pool.first_line(one)
    before = pool.pool.pids
    pool.pool.stop(one.job, one.token, "not wanted")
    verdict = (await pool.end_of(one)).verdict
    assert (verdict.state, verdict.error) == (State.CANCELLED, "not wanted")
    await pool.do("meet", mine="y", other="x")
    assert (await pool.end_of(other)).verdict.state is State.SUCCEEDED
    assert pool.pool.pids == before


@pytest.mark.parametrize(("task", "result"), [("watch", "stopped in time"), ("tidy", "noticed: True")])
async def test_a_coroutine_sees_that_it_is_to_end_and_may_end_in_its_own_way(
    pool: Pool, task: str, result: str
) -> None:
    run = pool.give(task)
    await pool.first_line(run)
    before = pool.pool.pids
    pool.pool.stop(run.job, run.token, "enough")
    ended = await pool.end_of(run)
    assert (ended.verdict.state, json.loads(ended.verdict.result)) == (State.SUCCEEDED, result)
    assert pool.pool.pids == before, "it needed no kill"


async def test_closing_ends_all_of_them_as_lost(tasks: str, tmp_path: Path) -> None:
    pool = Pool([tasks], async_slots=8, registry=load_tasks([tasks]), scratch=tmp_path / "scratch")
    await pool.pool.start()
    shared, inline = [pool.give("hang") for _ in range(3)], pool.give("in.wait", name="never")
    await pool.first_line(shared[-1])
    await pool.pool.close()
    assert {each.job for each in pool.ended} == {run.job for run in (*shared, inline)}
    assert all(each.lost for each in pool.ended)
    assert pool.pool.pids == []


# ----------------------------------------------------------------------------------------- inline


async def test_an_inline_task_runs_in_the_node_s_own_process(pool: Pool) -> None:
    assert (await pool.do("in.pid")).verdict.result == str(os.getpid()).encode()


async def test_what_an_inline_task_leaves_behind_is_not_heard_after_its_end(pool: Pool) -> None:
    await pool.do("in.haunt")
    assert pool.progress == [(0.1, "alive")]
    await pool.do("in.free")
    assert pool.partials == []


async def test_many_inline_runs_that_wait_for_nothing_need_one_task(pool: Pool) -> None:
    tasks_before = len(asyncio.all_tasks())
    runs = [pool.give("in.add", a=number) for number in range(500)]
    assert len(asyncio.all_tasks()) == tasks_before + 1
    await pool.until(lambda: len(pool.ended) == 500)
    assert [each.job for each in pool.ended] == [run.job for run in runs], "first in, first out"
    assert [int(each.verdict.result) for each in pool.ended] == list(range(1, 501))


async def test_inline_runs_do_without_processes(tasks: str, tmp_path: Path) -> None:
    pool = Pool([tasks], async_slots=8, registry=load_tasks([tasks]), python=str(tmp_path / "no-python"))
    await pool.pool.start()
    assert (await pool.do("in.add", a=1)).verdict.result == b"2"
    assert pool.rooms[-1] == Room(0, 0)
    await pool.pool.close()


@pytest.mark.parametrize(
    ("kind", "error", "retry_after_s", "final"),
    [
        ("value", "ValueError: a bad thing", -1.0, False),
        ("retry", "not yet", 2.5, False),
        ("fail", "never", -1.0, True),
        ("exit", "SystemExit: enough", -1.0, False),
    ],
)
async def test_what_an_inline_task_raises_is_a_failed_attempt(
    pool: Pool, kind: str, error: str, retry_after_s: float, final: bool
) -> None:
    ended = await pool.do("in.raise", kind=kind)
    verdict = ended.verdict
    assert verdict.error.startswith(error)
    assert (verdict.state, verdict.retry_after_s, verdict.final) == (State.FAILED, retry_after_s, final)
    assert not ended.lost
    wrong = (await pool.do("in.add", a="x")).verdict
    assert not wrong.final, "another node may have the code for it"
    assert "a: expected an integer" in wrong.error


@pytest.mark.parametrize("task", ["end", "end.async", "end.inline"])
async def test_a_verdict_that_is_returned_means_what_the_same_one_raised_means(pool: Pool, task: str) -> None:
    expected = {
        "retry": Verdict(State.FAILED, b"", "not yet", 2.5, False),
        "class": Verdict(State.FAILED, b"", "the task asked to be tried again", -1.0, False),
        "cancel": Verdict(State.CANCELLED, b"", "no need", -1.0, False),
        "fail": Verdict(State.FAILED, b"", "never", -1.0, True),
        "caught": Verdict(State.FAILED, b"", "no route", -1.0, False),
    }
    for how in ("raise", "return"):
        ended = {kind: await pool.do(task, kind=kind, how=how) for kind in expected}
        assert {kind: each.verdict for kind, each in ended.items()} == expected, how
        assert not any(each.lost for each in ended.values())


async def test_an_inline_task_that_waits_is_a_task_of_its_own_and_holds_up_nobody(pool: Pool) -> None:
    """`asyncio.timeout` needs the task that it runs in; its neighbours in the line have another one."""
    waiting = [pool.give("in.wait", name=name) for name in ("a", "b")]
    limited = pool.give("in.limit")
    quick = pool.give("in.add", a=1)
    assert (await pool.end_of(quick)).verdict.result == b"2"
    assert (await pool.end_of(limited)).verdict.error.startswith("TimeoutError")
    assert len(pool.ended) == 2
    for run, name in zip(waiting, ("a", "b"), strict=True):
        await pool.do("in.set", name=name)
        result = json.loads((await pool.end_of(run)).verdict.result)
        assert result.startswith(f"{name} in ")


async def test_inline_tasks_do_not_see_each_other_s_context(pool: Pool) -> None:
    assert [(await pool.do("in.word", say=say)).verdict.result for say in "ab"] == [b'"none"', b'"none"']


async def test_an_inline_task_has_a_timeout(pool: Pool) -> None:
    for ended in (await pool.do("in.hang"), await pool.do("in.wait", 0.05, name="never")):
        assert ended.verdict.error == "timed out after 0.05 s"
        assert (ended.verdict.state, ended.verdict.final) == (State.FAILED, False)


async def test_an_inline_task_can_be_stopped(pool: Pool) -> None:
    run = pool.give("in.tidy")
    await pool.first_line(run)
    pool.pool.stop(run.job, run.token, "enough")
    assert (await pool.end_of(run)).verdict.result == b'"noticed: True"'
    run = pool.give("in.add", a=1)
    pool.pool.stop(run.job, run.token, "not wanted")  # before it began
    assert (await pool.end_of(run)).verdict.state is State.CANCELLED


async def test_an_inline_task_that_does_not_listen_counts_as_ended_after_the_grace(pool: Pool) -> None:
    run = pool.give("in.deaf")
    await pool.first_line(run)
    pool.pool.stop(run.job, run.token, "not wanted", grace_s=0.05)
    ended = await pool.end_of(run)
    assert (ended.verdict.state, ended.verdict.error) == (State.CANCELLED, "not wanted")


async def test_an_inline_task_that_blocks_the_node_is_named_once_in_the_log(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        await pool.do("in.block", seconds=BLOCKED_S + 0.01)
    await pool.do("in.add", a=1)
    told = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1
    assert "in.block blocked this node for" in told[0].getMessage()


async def test_what_an_inline_task_writes_goes_to_its_job(
    pool: Pool, capfd: pytest.CaptureFixture[str]
) -> None:
    run = pool.give("in.say")
    await pool.end_of(run)
    assert pool.output[run.job] == "print\nlog\nlogging\n"
    assert pool.progress == [(0.25, "some")]
    sys.stdout.write("the node's own\n")
    assert capfd.readouterr().out == "the node's own\n"


async def test_a_shared_process_that_is_killed_from_outside_is_replaced(pool: Pool) -> None:
    run = pool.give("hang")
    await pool.first_line(run)
    os.kill(json.loads((await pool.do("pid.async")).verdict.result), signal.SIGKILL)
    assert (await pool.end_of(run)).lost
    async with asyncio.timeout(LIMIT_S):
        assert (await pool.do("pid.async")).verdict.state is State.SUCCEEDED
