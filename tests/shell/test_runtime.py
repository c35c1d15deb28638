"""The pump between the core and the world: how long it rests, and what it does when the disk refuses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvloop

from edgenode.core.settings import Settings
from edgenode.core.signals import ClockRead, LinkUp, Persist, Persisted
from edgenode.core.types import MemberInfo, NodeId
from edgenode.shell.runtime import TIMER_TICK_S, Runtime, whole_ticks
from edgenode.shell.store import Store
from edgenode.shell.store_file import DiskRefused, StoreDamaged


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


ME = NodeId("abcdefghijklmnop")
Done = Callable[[Exception | None], None]


class Disk(Store):
    """A store whose writes the test answers."""

    orders: list[tuple[Persist, Done]]

    def commit(self, effect: Persist, done: Done) -> None:
        self.orders.append((effect, done))


def test_tasks_are_known_as_long_as_a_member_that_has_them_whatever_its_state() -> None:
    infos = {
        NodeId(name): MemberInfo(NodeId(name), name, 1, (), "", "0", 1.0, 1, (), tasks, 0.0, ready=False)
        for name, tasks in (("a", ("echo",)), ("b", ("echo", "only")))
    }
    infos[NodeId("c")] = None  # type: ignore[assignment]  # one of whom no more than the id is known
    view: Any = SimpleNamespace(members=lambda: infos.keys(), info=infos.get)
    runtime: Any = SimpleNamespace(node=SimpleNamespace(view=view))
    assert Runtime.known_tasks(runtime) == {"echo", "only"}


async def test_what_the_core_writes_before_it_knows_of_a_refusal_holds_nothing_up(tmp_path: Path) -> None:
    disk = Disk.open(tmp_path)
    disk.orders = []
    info = MemberInfo(ME, "one", 1, (), "", "0", 1.0, 1, (), (), 0.0, ready=False)
    runtime = Runtime(
        info, Settings(), disk, registry={}, mesh_id="mesh", expects_peers=False, knows_peers=False
    )
    heard: list[Any] = []
    hands: Any = SimpleNamespace(
        send=lambda to, message: None, set_peers=lambda changes: None, begin_life=heard.append
    )
    runtime.attach(hands, hands)
    persist = Persist((), 1)
    # The core asks for a write whatever it is told, until it knows that the disk takes none.
    knows = False

    def handle(event: Any, now: float) -> list[Any]:
        nonlocal knows
        heard.append(type(event).__name__)
        knows |= heard[-1] == "StoreRefused"
        return [] if knows or heard[-1] == "Persisted" else [persist]

    cast(Any, runtime.node).handle = handle
    try:
        runtime._feed(ClockRead(1.0))
        ((_, done),) = disk.orders
        runtime.post(LinkUp(ME, 1, ("127.0.0.1", 1)))
        done(DiskRefused("no room"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for event in runtime._inbox.turn():
            runtime._feed(event)
        assert heard == ["ClockRead", "StoreRefused", "LinkUp"]
        assert not runtime._held
        # The disk takes writes again: the next one is waited for, and what it holds is let go.
        knows, runtime._refusal = False, None
        disk.orders.clear()
        runtime._feed(ClockRead(2.0))
        ((_, done),) = disk.orders
        done(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not runtime._held
        assert any(isinstance(event, Persisted) for event in runtime._inbox.turn())
    finally:
        for chore in runtime._chores:
            chore.cancel()
        disk.close()


async def test_a_file_that_leads_in_circles_is_distrusted(tmp_path: Path) -> None:
    disk = Disk.open(tmp_path)

    def rows() -> Iterator[Any]:
        raise StoreDamaged("its pages lead back")
        yield

    disk._boot = disk.boot()._replace(rows=rows())
    info = MemberInfo(ME, "one", 1, (), "", "0", 1.0, 1, (), (), 0.0, ready=False)
    runtime = Runtime(
        info, Settings(), disk, registry={}, mesh_id="mesh", expects_peers=False, knows_peers=False
    )
    await runtime.run()
    assert runtime.distrust == "its pages lead back"
    disk.close()
