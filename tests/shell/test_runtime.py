"""How long a node lets its loop rest."""

from __future__ import annotations

import asyncio
import time

import pytest
import uvloop

from edgenode.shell.runtime import TIMER_TICK_S, whole_ticks


@pytest.mark.parametrize(
    ("wait_s", "ticks"), [(0.0001, 1), (0.0004, 1), (0.0009, 1), (0.001, 1), (0.0011, 2), (0.0132, 14)]
)
def test_a_wait_is_never_cut_short(wait_s: float, ticks: int) -> None:
    assert whole_ticks(wait_s) == pytest.approx(ticks * TIMER_TICK_S)


@pytest.mark.parametrize("wait_s", [0.0002, 0.0004, 0.0014, 0.0034])
def test_the_loop_rests_until_the_deadline(wait_s: float) -> None:
    """It would go round some hundred times for each tenth of a millisecond."""

    async def turns() -> int:
        loop, count = asyncio.get_running_loop(), 0
        ends = time.monotonic() + wait_s
        while (left_s := ends - time.monotonic()) > 0:
            count += 1
            woken = loop.create_future()
            loop.call_later(whole_ticks(left_s), woken.set_result, None)
            await woken
        return count

    loop = uvloop.new_event_loop()
    try:
        assert max(loop.run_until_complete(turns()) for _ in range(20)) <= 3
    finally:
        loop.close()
