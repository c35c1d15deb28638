from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from zeroconf import ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from edgenode.core.types import NodeId
from edgenode.shell import discovery as module
from edgenode.shell.discovery import SERVICE, Discovery


class Found:
    """A discovery on the loopback interface, and the addresses that it found."""

    def __init__(self, mesh_id: str, port: int, address: str = "127.0.0.1") -> None:
        self.id = NodeId(secrets.token_hex(8))
        self.addresses: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        self.discovery = Discovery(
            mesh_id=mesh_id,
            node_id=self.id,
            address=address,
            port=port,
            on_found=lambda host, port: self.addresses.put_nowait((host, port)),
        )

    async def next(self) -> tuple[str, int]:
        async with asyncio.timeout(10):
            return await self.addresses.get()


Start = Callable[..., Awaitable[Found]]


@pytest.fixture
def mesh_id() -> str:
    """Of this test alone: others may run at the same time."""
    return secrets.token_hex(8)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    made: list[Found] = []

    async def started(mesh_id: str, port: int, address: str = "127.0.0.1") -> Found:
        found = Found(mesh_id, port, address)
        made.append(found)
        await found.discovery.start()
        return found

    yield started
    for found in made:
        await found.discovery.close()
    names = [task.get_name() for task in asyncio.all_tasks()]
    assert "discovery" not in names


async def test_nodes_of_one_mesh_find_each_other_and_not_themselves(start: Start, mesh_id: str) -> None:
    left, right = await start(mesh_id, 1001), await start(mesh_id, 1002)
    assert await left.next() == ("127.0.0.1", 1002)
    assert await right.next() == ("127.0.0.1", 1001)
    assert left.addresses.empty()
    assert right.addresses.empty()


async def test_another_mesh_on_the_same_network_is_not_found(start: Start, mesh_id: str) -> None:
    other = await start("other" + mesh_id[:8], 2001)
    left = await start(mesh_id, 2002)
    assert await (await start(mesh_id, 2003)).next() == ("127.0.0.1", 2002)
    assert await left.next() == ("127.0.0.1", 2003)
    assert other.addresses.empty()


async def test_a_node_that_comes_back_at_another_port_is_found_again(start: Start, mesh_id: str) -> None:
    left, right = await start(mesh_id, 3001), await start(mesh_id, 3002)
    assert await left.next() == ("127.0.0.1", 3002)
    again = Found(mesh_id, 3003)
    again.discovery._name, again.discovery._node_id = right.discovery._name, right.id
    await right.discovery.close()
    await again.discovery.start()
    assert await left.next() == ("127.0.0.1", 3003)
    await again.discovery.close()


async def test_starting_does_not_wait_for_the_network(start: Start, mesh_id: str) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await start(mesh_id, 4001)
    assert loop.time() - began < 0.5  # probing for the name alone would take 0.75 s


async def test_closing_is_bounded_and_may_be_repeated(start: Start, mesh_id: str) -> None:
    found = await start(mesh_id, 5001)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await found.discovery.close()
    assert loop.time() - began < 2 * module.CLOSE_S
    await found.discovery.close()
    await Found(mesh_id, 5002).discovery.close()


@pytest.mark.parametrize("address", ["0.0.0.0", "203.0.113.1", "::1", "nonsense"])
async def test_an_unusable_interface_is_logged_once_with_advice_and_stops_nothing(
    start: Start, mesh_id: str, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    await start(mesh_id, 6001, address)
    advice = [line for line in caplog.messages if "--join HOST:PORT" in line]
    assert len(advice) == 1
    assert address in advice[0]


async def test_strangers_may_announce_nonsense(start: Start, mesh_id: str) -> None:
    network = AsyncZeroconf(interfaces=["127.0.0.1"])
    for name, properties, port in (
        ("no-mesh", {}, 7000),
        ("no-port", {"mesh": mesh_id, "node": "x"}, 0),
        ("bytes", {"mesh": b"\xff\xfe", "node": b"\xff"}, 7001),
    ):
        info = AsyncServiceInfo(
            SERVICE,
            f"{name}-{mesh_id}.{SERVICE}",
            addresses=[socket.inet_aton("127.0.0.1")],
            port=port,
            properties=properties,
            server=f"{name}-{mesh_id}.local.",
        )
        await network.async_register_service(info, cooperating_responders=True)
    left = await start(mesh_id, 7002)
    await start(mesh_id, 7003)
    assert await left.next() == ("127.0.0.1", 7003)
    assert left.addresses.empty()
    await network.async_close()


@pytest.mark.parametrize("name", ["foo.bar.", "", "x._other._tcp.local.", f"{'n' * 80}.{SERVICE}"])
async def test_a_name_that_no_node_has_ends_no_discovery(start: Start, mesh_id: str, name: str) -> None:
    """zeroconf hands the same name over again, and nothing behind it, if this raises."""
    network = (found := await start(mesh_id, 7101)).discovery._network
    assert network is not None
    found.discovery._changed(network.zeroconf, SERVICE, name, ServiceStateChange.Added)
    assert found.addresses.empty()


async def test_what_others_announce_is_remembered_within_a_bound(
    mesh_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NAMES_MAX", 3)
    found = Found(mesh_id, 8001)
    for number in range(10):
        service = AsyncServiceInfo(
            SERVICE,
            f"n{number}.{SERVICE}",
            addresses=[socket.inet_aton("127.0.0.1")],
            port=9000 + number,
            properties={b"mesh": mesh_id.encode(), b"node": b"n"},
        )
        found.discovery._consider(service)
    assert len(found.discovery._found) == 3
    assert found.addresses.qsize() == 10


async def test_a_withdrawn_announcement_is_forgotten(start: Start, mesh_id: str) -> None:
    left, right = await start(mesh_id, 8101), await start(mesh_id, 8102)
    await left.next()
    gone = asyncio.Event()

    def changed(zeroconf: object, service_type: str, name: str, state_change: object) -> None:
        if name.startswith(right.id) and str(state_change).endswith("Removed"):
            gone.set()

    network = left.discovery._network
    assert network is not None
    browser = AsyncServiceBrowser(network.zeroconf, SERVICE, handlers=[changed])
    await right.discovery.close()
    async with asyncio.timeout(10):
        await gone.wait()
    assert not [name for name in left.discovery._found if name.startswith(right.id)]
    await browser.async_cancel()
