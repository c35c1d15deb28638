"""echo, sleep and fail; and what importing the tasks costs."""

from __future__ import annotations

import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from edgenode import load_tasks, run_task
from edgenode.task import Cancel, Fail
from edgenode.tasks import basic
from edgenode.tasks.basic import EXIT_CODE, echo, fail
from edgenode.tasks.basic import sleep as sleep_task

FAIL_HARD = """
import sys
from edgenode import run_task
run_task("fail", {"how": sys.argv[1], "times": 1})
"""


class Clock:
    """Time that passes only while the task sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def pass_on(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(basic, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=clock.pass_on))
    return clock


def test_all_tasks_are_found_under_their_names() -> None:
    assert set(load_tasks(["edgenode.tasks"])) == {
        "chain.verify",
        "compute.pi",
        "data.enrich",
        "echo",
        "fail",
        "image.resize",
        "sleep",
    }


def test_importing_the_tasks_imports_neither_pillow_nor_cryptography() -> None:
    program = "import sys, edgenode.tasks; print({'PIL', 'cryptography', 'asyncio'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


@pytest.mark.parametrize("message", ["hi", None, 5, [1, {"a": "ö"}]])
def test_echo_returns_what_it_is_given(message: Any) -> None:
    assert echo(message) == message
    assert run_task("echo", {"message": message}) == message


def test_sleep_takes_as_long_as_it_says(ctx: Any, clock: Clock) -> None:
    assert sleep_task(ctx, 2.02) == {"slept_s": 2.02}
    assert clock.now == pytest.approx(102.02)
    assert max(clock.slept) <= 0.05
    assert ctx.told == [tenth / 10 for tenth in range(1, 10)]


def test_a_sleep_of_nothing_ends_at_once(ctx: Any, clock: Clock) -> None:
    assert sleep_task(ctx, 0) == {"slept_s": 0}
    assert clock.slept == []


def test_a_sleeper_wakes_when_cancelled(ctx: Any, clock: Clock) -> None:
    ctx.answers_before_cancel = 4
    with pytest.raises(Cancel, match=r"after 0\.2 s"):
        sleep_task(ctx, 3_600)
    assert len(clock.slept) == 4


@pytest.mark.parametrize("seconds", [-0.1, 3_600.1, float("nan")])
def test_sleeps_out_of_bounds_are_refused(ctx: Any, clock: Clock, seconds: float) -> None:
    with pytest.raises(Fail, match=r"^seconds"):
        sleep_task(ctx, seconds)
    assert not clock.slept


def test_fail_fails_as_often_as_asked_and_then_succeeds() -> None:
    for attempt in (1, 2):
        with pytest.raises(RuntimeError, match="told you so"):
            run_task(fail, {"message": "told you so", "times": 2}, attempt=attempt)
    assert run_task(fail, {"times": 2}, attempt=3) == {"attempt": 3}


def test_fail_fails_for_ever_by_default() -> None:
    with pytest.raises(RuntimeError, match="asked to fail"):
        run_task(fail, {}, attempt=1_000)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(("how", "code"), [("exit", EXIT_CODE), ("kill", -signal.SIGKILL)])
def test_fail_can_end_its_process(how: str, code: int) -> None:
    assert subprocess.run([sys.executable, "-c", FAIL_HARD, how]).returncode == code
