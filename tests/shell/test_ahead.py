"""Runs taken ahead of the processes: in their order, each with its own output, and never for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pools import Pool

from edgenode.core.signals import Run
from edgenode.core.types import State
from edgenode.shell import crew
from edgenode.shell.ahead import MOST, Ahead
from edgenode.shell.output import Marked
from edgenode.shell.worker_process import WorkerProcess

TASKS = """
import os, signal, subprocess, sys
from edgenode import JobContext, task

@task("say")
def say(text: str) -> str:
    print(text)
    print(text, file=sys.stderr)
    subprocess.run(["echo", text])
    return text

@task("quiet")
def quiet() -> int:
    return os.getpid()

@task("close")
def close() -> None:
    print("before")
    sys.stdout.flush()
    os.close(1)

@task("hold")
def hold(ctx: JobContext) -> None:
    print("holding")
    while not ctx.cancelled:
        os.sched_yield()

@task("die")
def die(ctx: JobContext) -> None:
    print("holding")
    while not ctx.cancelled:
        os.sched_yield()
    os.kill(os.getpid(), signal.SIGKILL)

@task("grow")
def grow(ctx: JobContext) -> None:
    global kept
    kept = b"x" * 2**26
    hold(ctx)
"""
LONG_S = 1e6


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    """One process, ready."""
    path = tmp_path / "tasks.py"
    path.write_text(TASKS)
    found = Pool([str(path)], memory_bytes_max=2**26)
    await found.pool.start()
    await found.pool.ready()
    yield found
    await found.pool.close()


def process_of(pool: Pool) -> WorkerProcess:
    """The only one."""
    (process,) = pool.pool._whole._processes
    return process


async def behind(pool: Pool, monkeypatch: pytest.MonkeyPatch, task: str) -> tuple[Run, list[Run]]:
    """A run that holds its process, and two that wait for it and are not called back for that."""
    monkeypatch.setattr(crew, "STUCK_S", LONG_S)
    first = pool.give(task)
    waiting = [pool.give("quiet") for _ in range(2)]
    await pool.first_line(first)
    return first, waiting


async def test_runs_go_through_a_process_in_order_and_each_has_its_own_output(pool: Pool) -> None:
    runs = [pool.give("say", text=f"{number}") for number in range(MOST)]
    for number, run in enumerate(runs):
        ended = await pool.end_of(run)
        if ended.begun:  # on a slow machine the last ones are given back
            assert ended.verdict.result == f'"{number}"'.encode()
            assert pool.output[run.job] == f"{number}\n" * 3
    assert [each.job for each in pool.ended if each.begun] == [run.job for run in runs][: len(pool.output)]
    assert len(pool.output) > 1


async def test_what_closes_its_output_takes_none_from_the_next(pool: Pool) -> None:
    runs = [pool.give("close"), pool.give("quiet")]
    for run in runs:
        await pool.end_of(run)
    assert pool.output == {runs[0].job: "before\n"}


async def test_what_waits_behind_a_long_run_goes_back_as_if_it_had_not_come(pool: Pool) -> None:
    first = pool.give("hold")
    waiting = [pool.give("quiet") for _ in range(3)]
    for run in waiting:
        ended = await pool.end_of(run)
        assert (ended.lost, ended.begun) == (True, False)
    assert not any(each.job == first.job for each in pool.ended)
    pool.pool.stop(first.job, first.token, "enough")
    assert (await pool.end_of(first)).verdict.state is State.SUCCEEDED


async def test_what_waits_can_be_stopped_and_never_begins(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, (second, third) = await behind(pool, monkeypatch, "hold")
    pool.pool.stop(second.job, second.token, "not wanted")
    ended = await pool.end_of(second)
    assert (ended.verdict.state, ended.verdict.error, ended.begun) == (State.CANCELLED, "not wanted", False)
    pool.pool.stop(first.job, first.token, "enough")
    assert (await pool.end_of(third)).verdict.state is State.SUCCEEDED


async def test_when_a_process_dies_only_what_it_ran_is_lost(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, waiting = await behind(pool, monkeypatch, "die")
    pool.pool.stop(first.job, first.token, "now")
    for run in waiting:
        ended = await pool.end_of(run)
        assert (ended.lost, ended.begun) == (True, False)
    ended = await pool.end_of(first)
    assert (ended.verdict.state, ended.begun) == (State.CANCELLED, True)


async def test_what_is_read_before_it_is_known_whose_turn_it_is_waits_for_that(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second was called back, and the node reads what the third says before the answer to that."""
    first, (second, third) = await behind(pool, monkeypatch, "hold")
    process = process_of(pool)
    _, called_back, _ = process._active.values()
    called_back.is_recalled = True
    process._unheard += [(b"", True), (b"third", False)]
    process._hear()
    assert second.job not in pool.output
    assert third.job not in pool.output
    process._answered(called_back, is_out=True)
    assert (second.job in pool.output, pool.output[third.job]) == (False, "third")
    assert (await pool.end_of(second)).begun is False
    process._marks = 0  # that of the first comes again
    pool.pool.stop(first.job, first.token, "enough")
    await pool.end_of(first)


async def test_a_timeout_begins_with_its_run(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "STUCK_S", LONG_S)
    first = pool.give("hold")
    second = pool.give("hold", 60.0)
    await pool.first_line(first)
    active = [*process_of(pool)._active.values()]
    assert [(each.began_at is None, each.timer) for each in active] == [(False, None), (True, None)]
    pool.pool.stop(first.job, first.token, "enough")
    await pool.first_line(second)
    assert active[1].timer is not None
    assert active[1].timer.when() > asyncio.get_running_loop().time() + 30.0
    pool.pool.stop(second.job, second.token, "enough")
    await pool.end_of(second)


async def test_a_process_that_has_grown_too_large_runs_nothing_that_waited_for_it(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, waiting = await behind(pool, monkeypatch, "grow")
    old = process_of(pool).pid
    pool.pool.stop(first.job, first.token, "enough")
    assert (await pool.end_of(first)).verdict.state is State.SUCCEEDED
    for run in waiting:
        ended = await pool.end_of(run)
        if ended.begun:  # it was quicker than the call back
            assert ended.verdict.result == str(old).encode()
    last = await pool.end_of(pool.give("quiet"))
    assert last.verdict.result != str(old).encode()


async def test_closing_ends_what_waits_too(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    first, waiting = await behind(pool, monkeypatch, "hold")
    await pool.pool.close()
    assert {(each.job, each.begun) for each in pool.ended} == {
        (first.job, True),
        *((run.job, False) for run in waiting),
    }


# ---------------------------------------------------------------------------------------- how many


def test_more_are_taken_the_shorter_runs_are() -> None:
    counts = []
    for took_s in (1.0, 0.03, 0.009, 0.001, 0.00001):
        ahead = Ahead(2)
        for _ in range(400):
            ahead.ran(took_s)
        counts.append(ahead.count)
    assert counts == [0, 0, 4, MOST, MOST]


@pytest.mark.parametrize("is_over", [True, False])
def test_after_a_long_run_nothing_is_taken_until_dozens_were_short_again(is_over: bool) -> None:
    ahead = Ahead(2)
    for _ in range(400):
        ahead.ran(0.001)
    assert ahead.count == MOST
    if is_over:
        ahead.ran(1.0)
    else:
        ahead.is_stuck()
    assert ahead.count == 0
    counts = []
    for _ in range(200):
        ahead.ran(0.001)
        counts.append(ahead.count)
    assert counts == sorted(counts)
    assert counts[:10] == [0] * 10
    assert counts[-1] == MOST


def test_a_node_that_knows_nothing_of_its_tasks_takes_nothing_ahead() -> None:
    assert Ahead(2).count == 0


# ---------------------------------------------------------------------------------------- whose words

MARK = b"\0mark\0"
WORDS = st.lists(st.sampled_from([b"", b"a", b"line\n", b"\0", b"\0ma", b"\0mark", b"\xff"]), min_size=1)


@given(st.lists(WORDS.map(b"".join), min_size=1), st.data())
def test_however_a_pipe_is_read_the_words_of_each_are_its_own(said: list[bytes], data: st.DataObject) -> None:
    stream = MARK.join(said)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
    marked = Marked()
    marked.mark = MARK
    heard = [b""]
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        first, *others = marked.split(stream[begin:end])
        heard[-1] += first
        heard += others
    heard[-1] += marked._cut
    assert heard == stream.split(MARK)


def test_a_process_without_marks_is_heard_as_it_speaks() -> None:
    assert Marked().split(b"a\0b") == [b"a\0b"]
