"""`echo`, `sleep` and `fail`: for trying things out."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from typing import Any, Final, Literal

from edgenode.task import Cancel, Fail, JobContext, task

SLEEP_S_MAX: Final = 3_600.0
STEP_S: Final = 0.05
"""How soon a sleeper sees that it was cancelled."""
EXIT_CODE: Final = 70
"""EX_SOFTWARE of sysexits.h."""


@task("echo")
def echo(message: Any) -> Any:
    """Return `message` as it came."""
    return message


@task("sleep", timeout_s=SLEEP_S_MAX + 60)
def sleep(ctx: JobContext, seconds: float) -> dict[str, float]:
    """Do nothing for `seconds` (0 to 3600), and return `{slept_s}`; stop when the job is cancelled."""
    if not 0 <= seconds <= SLEEP_S_MAX:  # also false for NaN
        raise Fail(f"seconds: {seconds} is not from 0 to {SLEEP_S_MAX:.0f}")
    started = now = time.monotonic()
    told = 0
    while (left_s := started + seconds - now) > 0:
        if ctx.cancelled:
            raise Cancel(f"cancelled after {now - started:.1f} s")
        tenths = math.floor(10 * (now - started) / seconds)
        if tenths > told:
            told = tenths
            ctx.progress(tenths / 10, f"{left_s:.1f} s left")
        time.sleep(min(STEP_S, left_s))
        now = time.monotonic()
    return {"slept_s": round(now - started, 3)}


@task("fail", max_attempts=3)
def fail(
    ctx: JobContext,
    message: str = "asked to fail",
    times: int | None = None,
    how: Literal["raise", "exit", "kill"] = "raise",
) -> dict[str, int]:
    """Fail for the first `times` attempts (default: always), and then succeed with `{attempt}`.

    `how` is "raise" for an exception, "exit" for a worker process that ends on its own, as a crash in
    native code does, and "kill" for one that is killed, as the kernel does when memory runs out.
    """
    if times is not None and ctx.attempt > times:
        return {"attempt": ctx.attempt}
    if how == "exit":
        os._exit(EXIT_CODE)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
    raise RuntimeError(message)
