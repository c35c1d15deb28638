"""Puts one node together, runs it until it is told to end, and takes it apart again."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from aiohttp import web

from edgenode import __version__
from edgenode.api.app import make_app, make_runner
from edgenode.api.waiting import make_waiting_app
from edgenode.core.errors import EdgeNodeError, RejectedInput
from edgenode.core.settings import PRESETS, JobSettings, Settings
from edgenode.core.signals import SlotsChanged
from edgenode.core.types import MemberInfo, Seconds, is_loopback
from edgenode.shell.folders import make_durable_folder
from edgenode.shell.identity import Identity, MeshKey
from edgenode.shell.reporter import Reporter
from edgenode.shell.runtime import BEHIND, WHAT_TO_DO, Runtime
from edgenode.shell.store import Boot, Store
from edgenode.shell.store_file import Damage, DiskRefused, refusals
from edgenode.shell.transport import Transport
from edgenode.shell.worker import WorkerPool
from edgenode.task import Registry

logger = logging.getLogger("edgenode")

Address = tuple[str, int]
SCRATCH: Final = "scratch"
LINGER_S: Final[Seconds] = 0.05
"""How long a node that ends answers on connections that were made just before it took no more of them: their
requests are on their way. Longer than a round trip in a building."""
OPEN_AGAIN_S: Final[Seconds] = 1.0
"""How often a disk that takes no writes at the start is asked again."""


class AddressInUse(EdgeNodeError):
    status, slug, title, definite = 409, "address-in-use", "Another process listens there", True


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What `edgenode run` was told. Ports may be 0 for a free one."""

    name: str
    data_dir: Path
    mesh_key: MeshKey
    api: Address
    peer: Address
    join: tuple[Address, ...] = ()
    tasks: tuple[str, ...] = ("edgenode.tasks",)
    slots: int = 2
    async_slots: int = 100
    worker_jobs_max: int = 0  # 0: a worker process is never replaced for the number of its jobs
    worker_memory_bytes_max: int = 0  # nor for its memory
    labels: tuple[tuple[str, str], ...] = ()
    profile: str = "lan"
    mdns: bool = True
    interface: str = "127.0.0.1"
    weight: float = 1.0
    new_identity: bool = False
    forget_after_s: float | None = None  # None: as the profile has it
    drain_limit_s: float | None = None  # the same
    replicas: int | None = None  # the same
    unfinished_max: int = JobSettings().unfinished_max

    @property
    def core(self) -> Settings:
        """The numbers of its profile, with what was asked for otherwise."""
        preset = PRESETS[self.profile]
        preset = replace(preset, jobs=replace(preset.jobs, unfinished_max=self.unfinished_max))
        if self.forget_after_s is not None:
            preset = replace(preset, membership=replace(preset.membership, dead_keep_s=self.forget_after_s))
        if self.drain_limit_s is not None:
            preset = replace(preset, jobs=replace(preset.jobs, drain_s=self.drain_limit_s))
        if self.replicas is not None:
            preset = replace(preset, jobs=replace(preset.jobs, replicas=self.replicas))
        return preset


def is_wildcard(host: str) -> bool:
    """Whether an address means all of this machine's, so that nobody else can call it. No name does."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


async def host(settings: HostSettings, registry: Registry, started: Callable[[str, str], None]) -> None:
    """Run a node until SIGTERM (drain, then leave), SIGINT or a second SIGTERM (end at once).

    Args:
        started: called with the node's id and its API's URL when both ports listen.

    Raises:
        EdgeNodeError: it cannot start, or its disk failed; the text says what to do.
    """
    if not is_loopback(settings.api[0]):
        raise RejectedInput(
            f"the API would listen on {settings.api[0]}, where others reach it, and it has no access control"
            " yet: give --api a loopback address and put a proxy with TLS and authentication before it"
        )
    if is_wildcard(settings.peer[0]):
        raise RejectedInput("--peer needs the address that other nodes reach, not a wildcard")
    distrust: str | None = ""
    while distrust is not None:
        distrust = await _live(settings, registry, started, distrust)
        settings = replace(settings, new_identity=False)


async def _live(
    settings: HostSettings, registry: Registry, started: Callable[[str, str], None], distrust: str
) -> str | None:
    """One life.

    Args:
        distrust: why the store that is there is to be set aside; empty if it is not.

    Returns:
        None if that was all. Else another one is to begin, with this as its `distrust`.
    """
    async with AsyncExitStack() as stack:
        api = _listen(settings.api)
        stack.callback(api.close)
        store = await _open(settings.data_dir, api, distrust)
        stack.push_async_callback(asyncio.to_thread, store.close)
        identity = _identity(store, is_new=settings.new_identity)
        boot = store.boot()
        events: list[Runtime] = []  # the transport starts before the runtime, which needs its port
        transport = Transport(
            identity=identity,
            mesh_key=settings.mesh_key,
            host=settings.peer[0],
            port=settings.peer[1],
            boot=boot.boot,
            on_event=lambda event: events[0].post(event),
        )
        try:
            await transport.start()
        except OSError as error:
            raise AddressInUse(
                f"cannot listen on {settings.peer[0]}:{settings.peer[1]}: {error.strerror}"
            ) from error
        stack.push_async_callback(transport.close)
        runtime = Runtime(
            _introduction(settings, registry, identity, boot, transport.address, _url(api)),
            settings.core,
            store,
            registry=registry,
            mesh_id=settings.mesh_key.mesh_id,
            expects_peers=settings.mdns or bool(settings.join),
            knows_peers=bool(settings.join),
        )
        events.append(runtime)
        workers = _workers(settings, registry, runtime)
        runtime.attach(transport, workers)
        await workers.start()
        stack.push_async_callback(workers.close)
        await _run(settings, runtime, transport, api, identity, started, stack)
        return runtime.distrust if runtime.fell_behind or runtime.distrust else None


def _introduction(
    settings: HostSettings, registry: Registry, identity: Identity, boot: Boot, peer: Address, url: str
) -> MemberInfo:
    """What this life says of itself to its peers."""
    return MemberInfo(
        identity.id,
        settings.name,
        boot.boot,
        addresses=(peer,),
        api=url,
        version=__version__,
        weight=settings.weight,
        slots=settings.slots,
        labels=settings.labels,
        tasks=tuple(sorted(registry)),
        joined_at=round(time.time(), 3),
        ready=False,
        behind=bool(boot.behind),
        coroutines=tuple(sorted(name for name, task in registry.items() if task.is_async)),
        async_slots=settings.async_slots,
    )


def _workers(settings: HostSettings, registry: Registry, runtime: Runtime) -> WorkerPool:
    """The processes that run tasks; what they say goes to the runtime."""
    loop = asyncio.get_running_loop()
    reporter = Reporter(runtime.post, loop.call_later, loop.time)
    return WorkerPool(
        slots=settings.slots,
        modules=settings.tasks,
        on_ended=reporter.ended,
        on_progress=reporter.progress,
        on_partial=reporter.partial,
        on_output=reporter.output,
        registry=registry,
        async_slots=settings.async_slots,
        runs_max=settings.worker_jobs_max,
        memory_bytes_max=settings.worker_memory_bytes_max,
        on_trouble=runtime.workers_said,
        on_room=lambda room, ahead: runtime.post(SlotsChanged(room, ahead)),
        scratch=settings.data_dir.absolute() / SCRATCH,
    )


async def _open(folder: Path, api: socket.socket, distrust: str) -> Store:
    """The store, as soon as its disk takes writes. Until then the API says why there is no node yet."""
    said: list[str] = []
    async with AsyncExitStack() as stack:
        while True:
            try:
                return await asyncio.to_thread(_open_now, folder, distrust)
            except DiskRefused as error:
                if "aside" in error.context:
                    distrust = ""
                if not said:
                    runner = make_runner(make_waiting_app(lambda: said[-1]))
                    await runner.setup()
                    stack.push_async_callback(runner.cleanup)
                    # A socket of its own: what a site listens on is closed with it.
                    await web.SockSite(runner, api.dup()).start()
                if error.detail not in said:
                    logger.error("store-refused: %s. This node starts when there is room", error.detail)
                said.append(error.detail)
                del said[:-2]
            await asyncio.sleep(OPEN_AGAIN_S)


def _open_now(folder: Path, distrust: str) -> Store:
    # First what tasks need, since an opened store counts a life; emptied is it under the store's lock.
    with refusals(folder):
        make_durable_folder(folder.absolute() / SCRATCH)
    return Store.open_or_renew(folder, _on_damage, distrust=distrust)


async def _run(
    settings: HostSettings,
    runtime: Runtime,
    transport: Transport,
    api: socket.socket,
    identity: Identity,
    started: Callable[[str, str], None],
    stack: AsyncExitStack,
) -> None:
    """Open the doors, and keep them open until the node ends."""
    loop = asyncio.get_running_loop()
    asked = 0

    def asked_to_leave() -> None:
        nonlocal asked
        asked += 1
        runtime.leave() if asked == 1 else runtime.stop()

    loop.add_signal_handler(signal.SIGTERM, asked_to_leave)
    loop.add_signal_handler(signal.SIGINT, runtime.stop)
    stack.callback(loop.remove_signal_handler, signal.SIGTERM)
    stack.callback(loop.remove_signal_handler, signal.SIGINT)
    runner = make_runner(make_app(runtime, settings=settings.core.jobs))
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    stack.push_async_callback(runtime.close)
    for address in settings.join:
        transport.seed(address)
    async with asyncio.TaskGroup() as group:
        pump = group.create_task(runtime.run())
        watch = group.create_task(transport.failed())
        site = web.SockSite(runner, api)
        await site.start()
        started(identity.id, _url(api))
        discovery = None
        if settings.mdns:
            from edgenode.shell.discovery import Discovery  # zeroconf takes a while to load

            discovery = Discovery(
                mesh_id=settings.mesh_key.mesh_id,
                node_id=identity.id,
                address=settings.interface,
                port=transport.address[1],
                on_found=lambda host, port: transport.seed((host, port), is_lasting=False),
            )
            await discovery.start()
            stack.push_async_callback(discovery.close)
        await asyncio.wait([pump])
        await _close_door(runner, site, api)
        watch.cancel()


async def _close_door(runner: web.AppRunner, site: web.SockSite, api: socket.socket) -> None:
    """Take no more connections, and answer on those that were made: whoever is refused knows that nothing has
    happened, whoever is cut off does not.

    The kernel completes connections ahead of us, and resets those that nobody has accepted when the socket is
    closed; so they are accepted to the last one, on a second handle, and that is closed at once.
    """
    loop = asyncio.get_running_loop()
    last = api.dup()
    await site.stop()
    made: list[socket.socket] = []
    with last, suppress(BlockingIOError):
        while True:
            made.append(last.accept()[0])
    assert runner.server is not None
    for connection in made:
        connection.setblocking(False)
        with suppress(OSError):
            await loop.connect_accepted_socket(runner.server, connection)
    await asyncio.sleep(LINGER_S)


def _identity(store: Store, *, is_new: bool) -> Identity:
    """The node's key lives in the store: an empty store is a new member, never the old one without memory."""
    kept, behind = store.boot().identity, store.boot().behind
    if kept is None:
        identity = Identity.generate()
        store.set_identity(identity.to_bytes())
    elif is_new:
        identity = Identity.generate()
        store.renew(identity.to_bytes())
        before = Identity.from_bytes(kept).id
        logger.warning("identity: this disk was %s, and is %s from now on", before, identity.id)
    else:
        identity = Identity.from_bytes(kept)
        if behind:
            logger.error("identity: %s: %s. %s", BEHIND, behind, WHAT_TO_DO)
    return identity


def _listen(address: Address) -> socket.socket:
    """Bound before anything else is started: a port that is taken is the most common mistake."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno or 0)
        raise AddressInUse(
            f"cannot listen on {address[0]}:{address[1]}: {reason}; choose another --api (`up`: --base-port)"
        ) from error
    listener.setblocking(False)
    return listener


def _url(api: socket.socket) -> str:
    """Where the API listens."""
    host, port = api.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _on_damage(damage: Damage) -> None:
    logger.error("damage: %s", damage.text)
