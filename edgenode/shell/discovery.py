"""Finding the other nodes of a mesh on the local network: DNS-SD over multicast DNS (RFC 6762, RFC 6763).

A convenience and no authority: what is found is only an address to call, and TLS decides who is there. The
mesh id keeps meshes on one network from calling each other in vain.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from zeroconf import Error, IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from edgenode.core.types import NodeId, Seconds
from edgenode.shell.link import PROTOCOL, Address

logger = logging.getLogger(__name__)

SERVICE: Final = "_edgenode._tcp.local."
LOOK_UP_S: Final[Seconds] = 1.0
CLOSE_S: Final[Seconds] = 1.0
NAMES_MAX: Final = 1024
"""Names that are remembered, and names that wait to be looked up. Anybody on the network can invent some."""
ADVICE: Final = "nodes are not found by themselves here: name one with --join HOST:PORT"


class Discovery:
    """Announces this node on one interface, and calls `on_found` with the addresses of others of its mesh.

    An address is told again when the node's announcement changed. Trouble with multicast is logged, once,
    and never raised: a node can be joined by address as well.

    Args:
        address: IPv4 address of the interface; also where this node's port is announced.
        on_found: called on the event loop with (host, port).
    """

    def __init__(
        self,
        *,
        mesh_id: str,
        node_id: NodeId,
        address: str,
        port: int,
        on_found: Callable[[str, int], None],
    ) -> None:
        self._mesh_id = mesh_id
        self._address = address
        self._port = port
        self._on_found = on_found
        self._node_id = node_id
        self._name = f"{node_id}.{SERVICE}"
        self._found: dict[str, tuple[Address, ...]] = {}
        self._unresolved: asyncio.Queue[str] = asyncio.Queue(NAMES_MAX)
        self._network: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._announcing: Awaitable[None] | None = None
        self._resolver: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Announce and listen. Returns within milliseconds; the announcements go on by themselves."""
        try:
            service = self._service()
            self._network = AsyncZeroconf(interfaces=[self._address], ip_version=IPVersion.V4Only)
            # The name is a hash of this node's key, so no other device has it, and the 750 ms of probing
            # for one (RFC 6762 section 8.1) can be left out.
            self._announcing = await self._network.async_register_service(
                service, cooperating_responders=True
            )
        except (OSError, ValueError, Error) as error:
            logger.warning("multicast DNS does not work on %s (%s): %s", self._address, error, ADVICE)
            await self.close()
            return
        self._resolver = asyncio.create_task(self._resolve(), name="discovery")
        self._browser = AsyncServiceBrowser(self._network.zeroconf, SERVICE, handlers=[self._changed])

    def _service(self) -> AsyncServiceInfo:
        if ipaddress.IPv4Address(self._address).is_unspecified:
            raise ValueError("not the address of one interface")
        return AsyncServiceInfo(
            SERVICE,
            self._name,
            addresses=[socket.inet_aton(self._address)],
            port=self._port,
            properties={"mesh": self._mesh_id, "node": self._node_id, "protocol": str(PROTOCOL)},
            server=f"{self._node_id}.local.",
        )

    async def close(self) -> None:
        """Withdraw the announcement, within about a second."""
        network, self._network = self._network, None
        if self._resolver is not None:
            self._resolver.cancel()
            await asyncio.wait({self._resolver})
        if self._announcing is not None:
            announcing = asyncio.ensure_future(self._announcing)
            announcing.cancel()
            await asyncio.wait({announcing})
        if network is None:
            return
        with suppress(OSError, Error, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                if self._browser is not None:
                    await self._browser.async_cancel()
                await network.async_close()

    def _changed(
        self,
        zeroconf: Zeroconf,  # the browser passes these by name
        service_type: str,
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        if name == self._name or self._network is None:
            return
        if state_change is ServiceStateChange.Removed:
            self._found.pop(name, None)
            return
        try:
            service = AsyncServiceInfo(service_type, name)
        except Error as error:
            # Anybody on the network can announce anything; what is raised here would end all discovery.
            logger.debug("no name of a node: %s", error)
            return
        # An announcement brings all of it at once; a part that is missing must be asked for.
        if service.load_from_cache(zeroconf):
            self._consider(service)
        else:
            with suppress(asyncio.QueueFull):
                self._unresolved.put_nowait(name)

    async def _resolve(self) -> None:
        while self._network is not None:
            service = AsyncServiceInfo(SERVICE, await self._unresolved.get())
            try:
                if await service.async_request(self._network.zeroconf, LOOK_UP_S * 1000):
                    self._consider(service)
            except (OSError, Error) as error:
                logger.debug("cannot look up %s: %s", service.name, error)

    def _consider(self, service: AsyncServiceInfo) -> None:
        properties = service.decoded_properties
        if properties.get("mesh") != self._mesh_id or properties.get("node") == self._node_id:
            return
        if not service.port:
            return
        hosts = service.parsed_addresses(IPVersion.V4Only)
        addresses = tuple((host, service.port) for host in hosts)
        if self._found.get(service.name) == addresses:
            return
        if len(self._found) >= NAMES_MAX:
            del self._found[next(iter(self._found))]
        self._found[service.name] = addresses
        for host, port in addresses:
            self._on_found(host, port)
