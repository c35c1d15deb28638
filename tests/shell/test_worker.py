"""Worker processes, with real ones: whatever becomes of a process, its run ends once and the node goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
from pools import LIMIT_S, OWNER, Pool, wait_for_death

from edgenode.core.job_ids import job_text
from edgenode.core.specs import AS_ITS_TASK
from edgenode.core.types import Room, State
from edgenode.shell import worker_main as protocol
from edgenode.shell import worker_process
from edgenode.shell.worker_process import COMMAND

TASKS = """
import asyncio, ctypes, os, signal, subprocess, sys, threading
from edgenode import Cancel, Fail, JobContext, Retry, task

def never_end():
    threading.Event().wait()

@task("echo")
def echo(value: str = "") -> str:
    return value

@task("later")
async def later(value: str = "") -> str:
    turn = asyncio.Event()
    asyncio.get_running_loop().call_soon(turn.set)
    await turn.wait()
    return value

@task("about")
def about(ctx: JobContext) -> dict:
    (ctx.tmp / "file").write_text("x")
    return {"job": ctx.job_id, "attempt": ctx.attempt, "fence": str(ctx.fence), "tmp": str(ctx.tmp),
            "session": os.getsid(0) == os.getpid()}

@task("exit")
def exit(code: int) -> None:
    os._exit(code)

@task("leave")
def leave() -> None:
    sys.exit("enough")

@task("signal")
def send_signal(number: int) -> None:
    os.kill(os.getpid(), number)
    never_end()

@task("crash")
def crash() -> None:
    ctypes.string_at(0)

@task("hang")
def hang() -> None:
    print(os.getpid())
    never_end()

@task("hang.child")
def hang_child() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
    print(child.pid)
    child.wait()

@task("hang.soon", timeout_s=0.1)
def hang_soon() -> None:
    never_end()

@task("hang.async")
async def hang_async() -> None:
    print("ready")
    await asyncio.Event().wait()

@task("watch")
def watch(ctx: JobContext) -> str:
    print("ready")
    while not ctx.cancelled:
        os.sched_yield()  # to the thread that hears of it
    return "stopped in time"

@task("raise")
def raises(kind: str) -> None:
    def deeper() -> None:
        raise {"value": ValueError("a bad thing"), "memory": MemoryError(), "long": ValueError("x" * 100_000),
               "retry": Retry("not yet", after_s=2.5), "backoff": Retry(), "cancel": Cancel("no need"),
               "fail": Fail("never")}[kind]
    deeper()

@task("no.json")
def no_json() -> object:
    return object()

@task("print")
def prints(ctx: JobContext) -> None:
    print("from print")
    ctx.log("from log")
    print("from stderr", file=sys.stderr)
    subprocess.run(["echo", "from echo"], check=True)

@task("flood")
def flood() -> None:
    for _ in range(4000):
        print("x" * 99)
    print("the end")

@task("progress")
def progress(ctx: JobContext) -> None:
    for step in range(1000):
        ctx.progress(step / 1000, "working")
    ctx.progress(7, "done")

@task("progress.then.nothing")
def progress_then_nothing(ctx: JobContext) -> None:
    ctx.progress(0.1, "first")
    ctx.progress(0.2, "second")
    never_end()

@task("partial")
def partial(ctx: JobContext) -> str:
    for number in range(100):
        ctx.partial([number])
    try:
        ctx.partial("x" * 65536)
    except ValueError as error:
        return type(error).__name__

@task("close.all")
def close_all() -> None:
    os.closerange(3, 100)

@task("fork")
def fork() -> None:
    if os.fork() == 0:
        os.setsid()
        print(os.getpid())
        never_end()
    never_end()

@task("babble")
def babble(said: str) -> str:
    os.write(int(sys.argv[1]), said.encode("latin-1"))  # into the frames of its process
    return said

@task("big")
def big(text: str) -> int:
    return len(text)
"""


@pytest.fixture
def tasks(tmp_path: Path) -> str:
    file = tmp_path / "worker_tasks.py"
    file.write_text(TASKS)
    return str(file)


@pytest.fixture
async def pool(tasks: str) -> AsyncIterator[Pool]:
    made = Pool([tasks])
    await made.pool.start()
    yield made
    await made.pool.close()
    assert len({(each.job, each.token) for each in made.ended}) == len(made.ended), "a run ended twice"


# ------------------------------------------------------------------------------------- what ends well


async def test_a_run_may_be_given_before_any_process_is_ready(pool: Pool) -> None:
    ended = await pool.do("echo", value="hällo")
    assert (ended.verdict.state, ended.verdict.result, ended.lost) == (
        State.SUCCEEDED,
        '"hällo"'.encode(),
        False,
    )
    assert await pool.pool.ready() is None


async def test_a_coroutine_is_run_too(pool: Pool) -> None:
    for value in ("one", "two"):
        assert (await pool.do("later", value=value)).verdict.result == json.dumps(value).encode()


async def test_a_task_learns_about_its_start_and_its_folder_goes_with_it(pool: Pool) -> None:
    run = pool.give("about")
    about = json.loads((await pool.end_of(run)).verdict.result)
    assert about["job"] == job_text(run.job)
    assert about["attempt"] == 1
    assert about["fence"] == f"00000001-{OWNER}-000001"
    assert not await asyncio.to_thread(Path(about["tmp"]).exists)
    assert about["session"], "an interrupt at the terminal is for the node alone"


async def test_slots_run_side_by_side(tasks: str, tmp_path: Path) -> None:
    pool = Pool([tasks], slots=2)
    await pool.pool.start()
    first = pool.give("watch")
    assert await pool.works()
    await pool.first_line(first)
    pool.pool.stop(first.job, first.token, "enough")
    await pool.end_of(first)
    await pool.pool.close()


async def test_a_payload_larger_than_any_buffer_arrives(pool: Pool) -> None:
    assert (await pool.do("big", text="x" * 3_000_000)).verdict.result == b"3000000"


async def test_output_of_every_kind_is_captured_before_the_end_is_told(
    pool: Pool, capfd: pytest.CaptureFixture[str]
) -> None:
    run = pool.give("print")
    await pool.end_of(run)
    assert pool.output[run.job] == "from print\nfrom log\nfrom stderr\nfrom echo\n"
    assert capfd.readouterr() == ("", ""), "nothing of it is the node's own output"


async def test_a_flood_of_output_is_heard_to_its_end_and_harms_nobody(pool: Pool) -> None:
    run = pool.give("flood")
    assert (await pool.end_of(run)).verdict.state is State.SUCCEEDED
    assert pool.output[run.job] == ("x" * 99 + "\n") * 4000 + "the end\n"
    assert await pool.works()


async def test_progress_is_told_sparingly_and_its_end_always(pool: Pool) -> None:
    await pool.do("progress")
    assert pool.progress[0] == (0.0, "working")
    assert pool.progress[-1] == (1.0, "done")
    assert len(pool.progress) < 100


async def test_the_latest_progress_is_told_though_nothing_follows(pool: Pool) -> None:
    pool.give("progress.then.nothing")
    await pool.until(lambda: pool.progress[-1:] == [(0.2, "second")])
    assert not pool.ended


async def test_partial_results_are_told_and_the_latest_before_the_end(pool: Pool) -> None:
    ended = await pool.do("partial")
    assert ended.verdict.result == b'"Unserialisable"', "one that is too large is refused there"
    assert pool.partials[0] == b"[0]"
    assert pool.partials[-1] == b"[99]"
    assert len(pool.partials) < 50


# ------------------------------------------------------------------------------------- what tasks say


@pytest.mark.parametrize(
    ("kind", "state", "error", "retry_after_s", "final"),
    [
        ("value", State.FAILED, "ValueError: a bad thing", -1.0, False),
        ("memory", State.FAILED, "MemoryError", -1.0, False),
        ("retry", State.FAILED, "not yet", 2.5, False),
        ("backoff", State.FAILED, "the task asked to be tried again", -1.0, False),
        ("cancel", State.CANCELLED, "no need", -1.0, False),
        ("fail", State.FAILED, "never", -1.0, True),
    ],
)
async def test_what_a_task_raises_becomes_its_verdict(
    pool: Pool, kind: str, state: State, error: str, retry_after_s: float, final: bool
) -> None:
    ended = await pool.do("raise", kind=kind)
    verdict = ended.verdict
    assert verdict.error.startswith(error)
    assert (verdict.state, verdict.retry_after_s, verdict.final) == (state, retry_after_s, final)
    assert not ended.lost


async def test_an_error_shows_the_task_s_own_lines_and_is_bounded(pool: Pool, tasks: str) -> None:
    error = (await pool.do("raise", kind="value")).verdict.error
    assert f"{tasks}, line" in error
    assert "in deeper: raise" in error
    assert "edgenode/shell" not in error
    assert len((await pool.do("raise", kind="long")).verdict.error) < 4_000


async def test_a_task_that_calls_sys_exit_has_failed_and_its_process_goes_on(pool: Pool) -> None:
    ended = await pool.do("leave")
    assert ended.verdict.error.startswith("SystemExit: enough")
    assert not ended.lost
    assert await pool.works()


@pytest.mark.parametrize(
    ("task", "payload", "text", "final"),
    [
        ("echo", {"value": 3}, "value: expected text", False),
        ("echo", {"valu": "x"}, "valu: is no parameter", False),
        ("unknown", {}, "no task 'unknown'", False),
        ("no.json", {}, "not JSON", True),
    ],
)
async def test_only_what_would_fail_on_every_node_is_final(
    pool: Pool, task: str, payload: dict[str, Any], text: str, final: bool
) -> None:
    """What was valid where it was submitted may be so elsewhere: nodes get new code one by one."""
    ended = await pool.do(task, **payload)
    assert text in ended.verdict.error
    assert ended.verdict.final is final
    assert not ended.lost


# ------------------------------------------------------------------------------------ what ends badly


@pytest.mark.parametrize(
    ("task", "payload", "text"),
    [
        ("exit", {"code": 7}, "exited with code 7"),
        ("exit", {"code": 0}, "exited with code 0"),
        ("signal", {"number": int(signal.SIGKILL)}, "killed by SIGKILL"),
        ("crash", {}, "killed by SIGSEGV; its last words: Fatal Python error: Segmentation fault"),
        ("close.all", {}, "killed by SIGKILL"),
    ],
)
async def test_a_run_whose_process_dies_is_lost_and_the_process_replaced(
    pool: Pool, task: str, payload: dict[str, Any], text: str
) -> None:
    ended = await pool.do(task, **payload)
    assert ended.lost
    assert ended.verdict.state is State.FAILED
    assert text in ended.verdict.error
    assert await pool.works()


async def test_a_process_killed_from_outside_is_replaced(pool: Pool, tmp_path: Path) -> None:
    run = pool.give("hang")
    os.kill(int(await pool.first_line(run)), signal.SIGKILL)
    assert (await pool.end_of(run)).lost
    assert await pool.works()


async def test_an_idle_process_that_is_killed_is_replaced(pool: Pool) -> None:
    assert await pool.works()
    (pid,) = pool.pool.pids
    os.kill(pid, signal.SIGKILL)
    first = await pool.do("echo")  # lost, if it was given before the death was noticed
    assert first.lost or first.verdict.state is State.SUCCEEDED
    assert await pool.works()
    assert pool.pool.pids != [pid]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupt_of_the_whole_group_does_not_end_a_task(
    pool: Pool, tmp_path: Path, number: int
) -> None:
    run = pool.give("watch")
    await pool.first_line(run)
    for pid in pool.pool.pids:
        os.kill(pid, number)
    pool.pool.stop(run.job, run.token, "enough")
    assert (await pool.end_of(run)).verdict.result == b'"stopped in time"'


async def test_a_process_that_forked_and_died_is_not_waited_for(pool: Pool, tmp_path: Path) -> None:
    run = pool.give("fork")
    child = int(await pool.first_line(run))
    (pid,) = pool.pool.pids
    os.kill(pid, signal.SIGKILL)
    try:
        assert (await pool.end_of(run)).lost
    finally:
        os.kill(child, signal.SIGKILL)


# ---------------------------------------------------------------------------- timeouts and stopping


@pytest.mark.parametrize(("task", "timeout_s"), [("hang", 0.1), ("hang.soon", AS_ITS_TASK)])
async def test_a_run_that_takes_too_long_is_killed_and_has_failed(
    pool: Pool, task: str, timeout_s: float
) -> None:
    assert await pool.works()
    started = time.monotonic()
    ended = await pool.do(task, timeout_s)
    assert time.monotonic() - started < 0.1 + 1.0 + 1.0  # the last second is a slow machine's
    assert ended.verdict.error == "timed out after 0.1 s"
    assert (ended.verdict.state, ended.verdict.final, ended.lost) == (State.FAILED, False, False)
    assert await pool.works()


async def test_a_job_s_own_timeout_comes_before_its_task_s(pool: Pool) -> None:
    assert (await pool.do("hang.soon", 0.05)).verdict.error == "timed out after 0.05 s"


async def test_a_kill_reaches_the_programs_that_a_task_started(pool: Pool, tmp_path: Path) -> None:
    run = pool.give("hang.child")
    child = int(await pool.first_line(run))
    pool.pool.stop(run.job, run.token, "not wanted", grace_s=0)
    await pool.end_of(run)
    assert await asyncio.to_thread(wait_for_death, child)


async def test_a_task_that_watches_for_it_ends_by_itself_when_stopped(pool: Pool, tmp_path: Path) -> None:
    run = pool.give("watch")
    await pool.first_line(run)
    before = pool.pool.pids
    pool.pool.stop(run.job, run.token, "enough")
    assert (await pool.end_of(run)).verdict.result == b'"stopped in time"'
    assert await pool.works()
    assert pool.pool.pids == before, "it needed no kill"


async def test_a_coroutine_is_cancelled_when_stopped(pool: Pool, tmp_path: Path) -> None:
    run = pool.give("hang.async")
    await pool.first_line(run)
    before = pool.pool.pids
    pool.pool.stop(run.job, run.token, "not wanted")
    verdict = (await pool.end_of(run)).verdict
    assert (verdict.state, verdict.error) == (State.CANCELLED, "not wanted")
    assert await pool.works()
    assert pool.pool.pids == before


async def test_a_task_that_does_not_listen_is_killed_after_the_grace(pool: Pool, tmp_path: Path) -> None:
    run = pool.give("hang")
    await pool.first_line(run)
    pool.pool.stop(run.job, run.token, "not wanted", grace_s=0.05)
    ended = await pool.end_of(run)
    assert (ended.verdict.state, ended.verdict.error, ended.lost) == (State.CANCELLED, "not wanted", False)
    assert await pool.works()


async def test_a_run_that_waits_for_a_process_can_be_stopped(pool: Pool) -> None:
    run = pool.give("echo")
    pool.pool.stop(run.job, run.token, "not wanted")
    assert (await pool.end_of(run)).verdict.state is State.CANCELLED
    assert await pool.works()


async def test_stopping_what_has_ended_does_nothing(pool: Pool) -> None:
    run = pool.give("echo")
    await pool.end_of(run)
    pool.pool.stop(run.job, run.token, "late")
    assert await pool.works()
    assert len(pool.ended) == 2


# --------------------------------------------------------------------------------------- pool's life


async def test_closing_ends_each_run_once_as_lost_and_leaves_no_process(tasks: str, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    pool = Pool([tasks], slots=3, scratch=scratch)
    await pool.pool.start()
    pids = pool.pool.pids
    first = pool.give("hang")
    await pool.first_line(first)
    second = pool.give("hang")
    await pool.pool.close()
    await pool.pool.close()

    assert sorted(each.job for each in pool.ended) == [first.job, second.job]
    assert all(each.lost and "stopped" in each.verdict.error for each in pool.ended)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not scratch.exists()

    late = pool.give("echo")
    assert (await pool.end_of(late)).lost


async def test_closing_a_pool_that_is_just_starting_is_fine(tasks: str) -> None:
    pool = Pool([tasks], slots=2)
    await pool.pool.start()
    run = pool.give("echo")
    await pool.pool.close()
    assert [(each.job, each.lost) for each in pool.ended] == [(run.job, True)]
    assert pool.pool.pids == []


async def test_tasks_that_cannot_be_loaded_are_explained_and_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "repairable_tasks.py"
    file.write_text("import not_there\n")
    pool = Pool([str(file)])
    await pool.pool.start()
    run = pool.give("echo")
    ended = await pool.end_of(run)
    assert (ended.lost, ended.begun) == (True, False)
    assert pool.rooms == [Room(0)]
    assert "No module named 'not_there'" in ended.verdict.error
    trouble = await pool.pool.ready()
    assert trouble is not None
    assert "repairable_tasks.py, line 1" in trouble
    assert pool.troubles == [trouble]

    file.write_text(TASKS)
    await pool.until(lambda: pool.troubles == [trouble, None])
    assert pool.rooms == [Room(0), Room(1)]
    assert await pool.works()
    await pool.pool.close()


async def test_a_run_waits_for_the_next_process_when_the_idle_one_was_killed(pool: Pool) -> None:
    assert await pool.pool.ready() is None  # it has not run anything yet
    (pid,) = pool.pool.pids
    os.kill(pid, signal.SIGKILL)
    assert wait_for_death(pid)
    # It may be handed to the process that is dead already; it is not refused for want of another.
    assert (await pool.do("echo")).begun
    assert await pool.works()
    assert pool.rooms == []


@pytest.mark.parametrize("kind", ["cancel", "fail", "value"])
async def test_text_that_cannot_be_encoded_is_told_all_the_same(tmp_path: Path, kind: str) -> None:
    """The name of a file that is no UTF-8, say, in what a task says of its failure."""
    file = tmp_path / "odd_tasks.py"
    file.write_text(
        "from edgenode import Cancel, Fail, JobContext, task\n"
        "@task('odd')\n"
        "def odd(kind: str, ctx: JobContext) -> None:\n"
        "    text = 'caf\\udce9 \\ud800'\n"
        "    ctx.progress(0.5, text)\n"
        "    raise {'cancel': Cancel(text), 'fail': Fail(text), 'value': ValueError(text)}[kind]\n"
    )
    pool = Pool([str(file)])
    await pool.pool.start()
    ended = await pool.do("odd", kind=kind)
    assert not ended.lost
    assert ended.verdict.state is (State.CANCELLED if kind == "cancel" else State.FAILED)
    assert "caf\\udce9 \\ud800" in ended.verdict.error
    await pool.pool.close()


async def test_an_interpreter_that_is_missing_is_a_trouble_and_not_an_end(tmp_path: Path) -> None:
    pool = Pool(["edgenode.tasks"], python=str(tmp_path / "no-python"))
    await pool.pool.start()
    assert "no-python" in str(await pool.pool.ready())
    assert (await pool.do("echo")).lost
    await pool.pool.close()


NODE = """
import asyncio, os, sys
from edgenode.core.jobs import Options, Spec
from edgenode.core.signals import Run
from edgenode.core.types import StartToken
from edgenode.shell.worker import WorkerPool

async def main():
    def started(job, token, text):
        print(*pool.pids, flush=True)

    pool = WorkerPool(slots=2, modules=[sys.argv[1]], on_ended=print, on_output=started)
    await pool.start()
    spec = Spec(bytes(16), "hang", b"{}", 0.0, 0.0, Options())
    pool.run(Run(bytes(16), StartToken(1, "owner", 1), spec, 1))
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_workers_die_with_a_node_that_is_killed(tasks: str) -> None:
    with subprocess.Popen([sys.executable, "-c", NODE, tasks], stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        pids = [int(pid) for pid in node.stdout.readline().split()]
        assert len(pids) == 2
        node.kill()
    assert all(wait_for_death(pid) for pid in pids)


def worker_command(tasks: str, theirs: socket.socket, parent: int | str, scratch: Path) -> list[str]:
    return [
        sys.executable,
        "-c",
        COMMAND,
        str(theirs.fileno()),
        str(parent),
        str(scratch),
        protocol.WHOLE,
        tasks,
    ]


def order_to_hang(link: socket.socket) -> None:
    link.sendall(msgpack.packb((protocol.RUN, "job", (1, OWNER, 1), "hang", b"{}", 1)))


def test_a_worker_dies_in_mid_task_when_its_link_ends(tasks: str, tmp_path: Path) -> None:
    """One of the two ways: here the parent lives on."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = worker_command(tasks, theirs, os.getpid(), tmp_path)
        with subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as worker:
            assert worker.stdout is not None
            theirs.close()
            order_to_hang(ours)
            assert int(worker.stdout.readline()) == worker.pid
            ours.close()
            assert worker.wait(LIMIT_S) == -signal.SIGKILL


MIDDLE = """
import os, subprocess, sys
command = [each.replace("PARENT", str(os.getpid())) for each in sys.argv[2:]]
subprocess.Popen(command, pass_fds=[int(sys.argv[1])]).wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is a signal on Linux only")
def test_a_worker_dies_in_mid_task_when_its_parent_does(tasks: str, tmp_path: Path) -> None:
    """The other way: here the link stays open, since this process holds its other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = worker_command(tasks, theirs, "PARENT", tmp_path)
        with subprocess.Popen(
            [sys.executable, "-c", MIDDLE, str(theirs.fileno()), *command],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        ) as parent:
            assert parent.stdout is not None
            order_to_hang(ours)
            pid = int(parent.stdout.readline())
            assert pid != parent.pid
            parent.kill()
            assert wait_for_death(pid)


def test_a_worker_whose_parent_is_gone_already_does_not_begin(tasks: str, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = worker_command(tasks, theirs, 1, tmp_path)
        assert subprocess.run(command, pass_fds=[theirs.fileno()], timeout=LIMIT_S).returncode == 0
        theirs.close()
        assert ours.recv(1) == b"", "it said nothing"


async def test_processes_are_tried_again_however_long_they_failed(tasks: str) -> None:
    made = Pool([tasks])
    crew = next(iter(made.pool._crews))
    crew._failures = 10**6
    crew._start_failed("no room")
    assert len(crew._respawns) == 1
    await made.pool.close()


@pytest.mark.parametrize("said", ["hi", "\x90", "\x91\x00", "\xc1"])
async def test_nonsense_from_a_process_ends_its_run(pool: Pool, said: str) -> None:
    ended = await pool.do("babble", said=said)
    assert ended.verdict.state is State.FAILED
    assert ended.lost
    assert "nonsense" in ended.verdict.error
    assert (await pool.do("echo", value="x")).verdict.state is State.SUCCEEDED


async def test_a_process_without_a_thread_to_watch_it_is_ended_and_tried_again(
    tasks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def no_thread(**options: Any) -> None:
        started.append(1)
        raise RuntimeError("can't start new thread")

    made = Pool([tasks])
    with monkeypatch.context() as full:
        full.setattr(worker_process, "threading", SimpleNamespace(Thread=no_thread))
        await made.pool.start()
    assert started
    await made.until(lambda: made.troubles[-1:] == [None])
    assert (await made.do("echo", value="x")).verdict.state is State.SUCCEEDED
    await made.pool.close()
