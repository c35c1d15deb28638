"""Links to the other members: WebSockets over mutual TLS, two a pair, and fast evidence of death.

    listener ── TLS ── greeting ──┐                        ┌── reader ── MessageArrived
                                  ├── adopted as a link ──┤
    dialler  ── TLS ── greeting ──┘                        └── writer ── outbox of (peer, kind)

Who may dial: both. When both did, the node with the lower id keeps the newer socket and retires the other,
which is written to no more and read to its end, so no message is lost by it.

How a death is noticed: a process that is killed resets its links, and the readers see that at once. The
peer's port is then dialled without delay: refused, its process is gone (`LinkDown(refused=True)`); answered,
it was only the link, and nobody needs to know; silent for `probe_s`, nobody can tell
(`LinkDown(refused=False)`). A link that ends with a goodbye is no evidence of anything.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import aiohttp

from edgenode.core import signals, wire
from edgenode.core.errors import MalformedMessage
from edgenode.core.types import FOREVER, NOBODY, Instant, NodeId, Seconds, are_copies
from edgenode.shell.handshake import Complaints, Greeted, Handshakes, Outcome, WebSocket, hang_up
from edgenode.shell.identity import Identity, MeshKey
from edgenode.shell.link import (
    ADDRESSES_MAX,
    DEFAULTS,
    PROTOCOL,
    RETIRE,
    Address,
    Farewell,
    Greeting,
    Kind,
    Outbox,
    TransportSettings,
    linked_to,
    split,
)

ABNORMAL: Final = 1006  # RFC 6455 section 7.1.5: ended without a close frame
CONTROL_TYPES: Final = frozenset(wire.CONTROL)


class _Ending(NamedTuple):
    code: int
    reason: str


@dataclass(slots=True, eq=False)
class _Link:
    """One socket that has been greeted on."""

    kind: Kind
    boot: int
    nonce: bytes
    socket: WebSocket
    address: Address | None  # where we called; None if we were called
    born: Instant
    used_at: Instant  # when something last passed, either way
    wake: asyncio.Event = field(default_factory=asyncio.Event)  # for its writer
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    is_retired: bool = False
    farewell: Farewell | None = None  # we are closing it, for this reason
    is_closing: bool = False  # its writer is closing it now


@dataclass(slots=True, eq=False)
class _Peer:
    """What is known of one other node."""

    id: NodeId
    outboxes: dict[Kind, Outbox]
    wake: asyncio.Event = field(default_factory=asyncio.Event)  # for whoever waits to call it
    links: list[_Link] = field(default_factory=list)  # the newest of a kind is written to
    boot: int = 0  # of the life that its links belong, or last belonged, to
    nonce: bytes = b""
    listens: tuple[Address, ...] = ()  # as it said in its greeting
    reached: Address | None = None  # where the last successful call went
    book: signals.Address | None = None  # as membership says
    is_eager: bool = False
    is_up: bool = False  # LinkUp was told, and LinkDown not yet
    lost_at: Instant | None = None  # a link broke, and it is being found out why
    has_parted: bool = False  # it said goodbye
    is_let_go: bool = False  # this life of it is not wanted any more, and its links are ending
    proved: int = 0  # the highest boot whose end has been told as certain
    failures: int = 0  # calls in vain since the last link
    strikes: int = 0
    is_tended: bool = False

    def active(self, kind: Kind) -> _Link | None:
        """The link that messages of this kind are written to."""
        for link in reversed(self.links):
            if link.kind is kind and not link.is_retired and link.farewell is None:
                return link
        return None

    def addresses(self) -> tuple[Address, ...]:
        """Where to call, the most promising first."""
        known = [] if self.reached is None else [self.reached]
        known += self.listens
        known += () if self.book is None else self.book.addresses
        return tuple(dict.fromkeys(known))[:ADDRESSES_MAX]


@dataclass(slots=True, eq=False)
class _Seed:
    """An address to call until a node is found there."""

    is_lasting: bool  # somebody named it; else it was only found, and may never answer again
    found: NodeId = NOBODY  # while it is being called
    failures: int = 0


class Transport:
    """Carries messages between this node and the others, and tells of links that come and go.

    Use: `start()`, then `seed`, `set_peers` and `send` as needed, then `close()`. `on_event` is called on the
    event loop with `LinkUp`, `LinkDown`, `CloneMet` and `MessageArrived`, and must not block; after `close`
    it is called no more. Messages may be lost (a link breaks, an outbox is full); those of one link arrive in
    order.

    Args:
        port: 0 for a free one, which `address` then tells.
        boot: how often this identity has started.
        listens: addresses to give to peers; by default the one that is bound.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        mesh_key: MeshKey,
        host: str,
        port: int,
        boot: int,
        on_event: Callable[[signals.Event], None],
        listens: tuple[Address, ...] = (),
        settings: TransportSettings = DEFAULTS,
        dice: random.Random | None = None,
    ) -> None:
        self.id = identity.id
        self.dropped = 0  # messages that never left
        self.carried: Counter[tuple[str, str]] = Counter()
        """Bytes of messages on links, by kind and way (`in`, `out`), before TLS."""
        self._host = host
        self._port = port
        self._boot = boot
        self._on_event = on_event
        self._settings = settings
        self._dice = random.Random() if dice is None else dice
        complaints = Complaints(settings.log_every_s)
        self._say = complaints.say
        self._handshakes = Handshakes(
            self,
            identity=identity,
            mesh_key=mesh_key,
            boot=boot,
            listens=listens,
            settings=settings,
            complaints=complaints,
        )
        self._peers: dict[NodeId, _Peer] = {}
        self._seeds: dict[Address, _Seed] = {}
        self._dial_slots = asyncio.Semaphore(settings.dials_max)
        self._last_encoded: tuple[wire.Message, bytes] | None = None
        self._is_large = False  # more peers in the book than are linked without need
        self._is_closing = False
        self._runner: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop
        self._group: asyncio.TaskGroup
        self._answering: asyncio.Task[None]

    # ------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Listen. Raises OSError if the address cannot be bound."""
        assert self._runner is None, "a transport starts once"
        self._loop = asyncio.get_running_loop()
        await self._handshakes.open(self._host, self._port)
        started = asyncio.Event()
        self._runner = asyncio.create_task(self._run(started), name="transport")
        await started.wait()

    async def _run(self, started: asyncio.Event) -> None:
        """All tasks of the transport live in here. A bug in one of them ends them all: see `failed`."""
        async with asyncio.TaskGroup() as self._group:
            self._answering = self._group.create_task(self._handshakes.answer(self._group))
            self._group.create_task(self._watch_idle())
            started.set()
            await self._loop.create_future()  # until cancelled: tasks come and go meanwhile

    async def failed(self) -> None:
        """Returns when the transport is closed; raises what a bug in one of its tasks raised."""
        assert self._runner is not None, "not started"
        await asyncio.wait({self._runner})
        if not self._runner.cancelled():
            self._runner.result()

    @property
    def address(self) -> Address:
        """Where this node listens."""
        return self._handshakes.address

    async def close(self) -> None:
        """Send what is waiting, say goodbye, and end every link, within about 2 * `close_s`."""
        if self._runner is None:
            return
        try:
            if not self._is_closing:
                self._is_closing = True
                self._answering.cancel()
                await self._part()
        finally:
            self._runner.cancel()
            await asyncio.wait({self._runner})
            await self._handshakes.close()

    async def _part(self) -> None:
        links = [link for peer in self._peers.values() for link in peer.links]
        for link in links:
            _dismiss(link, Farewell.GOODBYE)
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * self._settings.close_s):
                for link in links:
                    await link.ended.wait()

    # ----------------------------------------------------------------------------- what is asked

    def send(self, to: NodeId, message: wire.Message) -> None:
        """Put a message on its way, or drop and count it. Never blocks, never raises."""
        assert to != self.id, "a node does not send to itself"
        peer = self._peers.get(to)
        if peer is None or self._is_closing:
            self.dropped += 1
            return
        kind = Kind.CONTROL if type(message) in CONTROL_TYPES else Kind.BULK
        frame = self._encoded(message)
        if len(frame) > wire.FRAME_BYTES_MAX:
            self.dropped += 1
            text = "a %s of %d bytes for %s was dropped: the limit is %d"
            name = type(message).__name__
            self._say(f"large {name}", text, name, len(frame), to, wire.FRAME_BYTES_MAX)
            return
        if not peer.outboxes[kind].put(frame, self._loop.time()):
            self.dropped += 1
            self._say(f"full {to} {kind}", "the %s outbox for %s is full: messages are dropped", kind, to)
        link = peer.active(kind)
        if link is None:
            self._tend(peer)
        else:
            link.wake.set()

    def _encoded(self, message: wire.Message) -> bytes:
        # The same object goes to several holders in a row.
        if self._last_encoded is None or self._last_encoded[0] is not message:
            self._last_encoded = (message, wire.encode(message))
        return self._last_encoded[1]

    def set_peers(self, changes: tuple[signals.Address, ...]) -> None:
        """Take changes to the address book. Up to `eager_links` peers in it are called without being asked;
        of more, each when there is something to send."""
        touched = [self._enter(change) for change in changes if change.peer != self.id]
        booked = [peer for peer in self._peers.values() if peer.book is not None]
        self._is_large = len(booked) > self._settings.eager_links
        eager = booked
        if self._is_large:
            is_lonely = not any(peer.links for peer in self._peers.values())
            calls = min(len(booked), self._settings.lonely_calls)
            eager = self._dice.sample(booked, calls) if is_lonely else []
        for peer in booked:
            peer.is_eager = peer in eager
        for peer in {peer.id: peer for peer in (*touched, *booked)}.values():
            self._tend(peer)
            self._release(peer)

    def _enter(self, change: signals.Address) -> _Peer:
        peer = self._peer(change.peer)
        if change.keep:
            if change != peer.book:
                peer.failures = 0
                peer.wake.set()
            if change.boot > peer.boot and not peer.links:
                peer.reached, peer.listens = None, ()  # of an earlier life
            peer.book, peer.is_let_go = change, False
        else:
            peer.book, peer.is_eager, peer.is_let_go = None, False, bool(peer.links)
            for link in peer.links:
                _dismiss(link, Farewell.GOODBYE)
        return peer

    def begin_life(self, boot: int) -> None:
        """Be a later life of this node: every link ends, and is made anew under this boot number. What the
        earlier life wanted sent, and was not, never is: it would be taken for this one's word."""
        self._boot = boot
        self._handshakes.begin_life(boot)
        for peer in self._peers.values():
            for outbox in peer.outboxes.values():
                self.dropped += outbox.drop_before(FOREVER)
            for link in peer.links:
                _dismiss(link, Farewell.GOODBYE)

    def seed(self, address: Address, *, is_lasting: bool = True) -> None:
        """Call whoever listens at `address`, until it answers; again when it is gone and forgotten.

        One that is not lasting is called ever less often, not again after a goodbye, and gives way to others
        when there are too many.
        """
        if self._is_closing or address == self.address:
            return
        known = self._seeds.get(address)
        if known is not None:
            known.is_lasting = known.is_lasting or is_lasting
            return
        if len(self._seeds) >= self._settings.seeds_max:
            vain = {seed.failures: old for old, seed in self._seeds.items() if self._is_vain(seed)}
            if not vain:
                text = "more than %d addresses to call: %s:%d is left out"
                self._say("seeds", text, len(self._seeds), *address)
                return
            del self._seeds[vain[max(vain)]]
        self._pursue_from_now(address, _Seed(is_lasting))

    @staticmethod
    def _is_vain(seed: _Seed) -> bool:
        return not seed.is_lasting and seed.found == NOBODY and seed.failures > 0

    def _pursue_from_now(self, address: Address, seed: _Seed) -> None:
        self._seeds[address] = seed
        self._group.create_task(self._pursue(address, seed))

    async def _watch_idle(self) -> None:
        while True:
            await asyncio.sleep(self._settings.idle_s / 4)
            self.end_idle(self._loop.time() - self._settings.idle_s)

    def end_idle(self, unused_since: Instant) -> None:
        """In a large mesh, close the links that nobody needs: the bulk link of a pair first, since it is the
        control link whose end is told."""
        if not self._is_large or self._is_closing:
            return
        for peer in self._peers.values():
            if peer.book is None or peer.is_eager:
                continue
            bulk = [link for link in peer.links if link.kind is Kind.BULK]
            for link in bulk or peer.links:
                if link.used_at < unused_since:
                    _dismiss(link, Farewell.IDLE)

    def linked(self) -> frozenset[NodeId]:
        """The peers with a control link."""
        return frozenset(peer.id for peer in self._peers.values() if peer.active(Kind.CONTROL))

    # ----------------------------------------------------------------------------------- calling

    def _tend(self, peer: _Peer) -> None:
        """See to it that the peer has the links it should have."""
        if peer.is_tended or self._is_closing or not self._missing(peer):
            return
        peer.is_tended = True
        self._group.create_task(self._keep_linked(peer))

    def _missing(self, peer: _Peer) -> list[Kind]:
        """Which links it should have, and has not. Pings alone need no bulk link in a large mesh."""
        if any(link.farewell is Farewell.GOODBYE for link in peer.links):
            return []
        has_bulk = len(peer.outboxes[Kind.BULK]) > 0 or peer.active(Kind.BULK) is not None
        has_control = len(peer.outboxes[Kind.CONTROL]) > 0
        is_needed = peer.is_eager or peer.lost_at is not None
        if not self._is_large:
            is_needed = is_needed or has_control or bool(peer.links)
        wanted = {Kind.CONTROL: is_needed or has_bulk or has_control, Kind.BULK: is_needed or has_bulk}
        return [kind for kind in Kind if wanted[kind] and peer.active(kind) is None]

    async def _keep_linked(self, peer: _Peer) -> None:
        while not self._is_closing and self._missing(peer):
            await self._pause(peer)
            missing = self._missing(peer)
            if missing:
                self._conclude(peer, await self._reach(peer, missing[0]))
        peer.is_tended = False
        self._release(peer)

    async def _pause(self, peer: _Peer) -> None:
        """Wait before the next call, as long as earlier ones suggest; a lost link cuts it short."""
        peer.wake.clear()
        rounds = peer.failures + max(0, peer.strikes - self._settings.strikes_max)
        control = peer.active(Kind.CONTROL)
        if rounds:
            # While a death is being proved, a port that neither answered nor refused is tried again soon.
            base_s = 0.01 if peer.lost_at is not None else self._settings.redial_min_s
            pause_s = self._backoff(base_s, rounds, self._settings.redial_max_s)
        elif peer.lost_at is not None:
            pause_s = 0.0
        elif control is not None and control.address is None:
            pause_s = 4 * self._settings.yield_s  # it called us, and calls the bulk link too
        elif peer.id < self.id and not any(len(outbox) for outbox in peer.outboxes.values()):
            pause_s = self._settings.yield_s
        else:
            pause_s = 0.0
        if pause_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await peer.wake.wait()

    def _backoff(self, base_s: Seconds, rounds: int, longest_s: Seconds) -> Seconds:
        return min(longest_s, base_s * 2.0 ** min(rounds, 30)) * self._dice.uniform(0.5, 1.0)

    async def _reach(self, peer: _Peer, kind: Kind) -> Outcome:
        """Call the peer at its addresses. REFUSED if all refuse, or the one where it was reached before."""
        is_lost = peer.lost_at is not None
        limit_s = self._settings.probe_s if is_lost else self._settings.handshake_s
        known = peer.addresses()
        refusals = 0
        # Finding out about a death does not queue behind calls to hosts that are silent.
        async with nullcontext() if is_lost else self._dial_slots:
            for address in known:
                outcome = await self._handshakes.call(address, kind, peer.id, limit_s)
                if outcome is Outcome.LINKED:
                    return outcome
                if outcome is Outcome.MOVED:
                    self._look_again(address, peer.id)
                if outcome is Outcome.REFUSED:
                    refusals += 1
                    if address == peer.reached:
                        return outcome
        return Outcome.REFUSED if known and refusals == len(known) else Outcome.SILENT

    def _conclude(self, peer: _Peer, outcome: Outcome) -> None:
        """What a call says of the peer."""
        if outcome is Outcome.LINKED or peer.links:
            peer.failures += outcome is not Outcome.LINKED
            return
        peer.failures += 1
        now = self._loop.time()
        if outcome is Outcome.REFUSED:
            self._down(peer, refused=True)
        elif peer.lost_at is None:
            self._drop_waiting(peer)
        elif not peer.addresses() or now - peer.lost_at >= self._settings.probe_s:
            self._down(peer, refused=False)

    def _look_again(self, address: Address, gone: NodeId) -> None:
        """Another node answers where this one was: worth knowing, under its own name."""
        known = self._seeds.get(address)
        if known is None:
            self.seed(address, is_lasting=False)
        elif known.found == gone:
            self._pursue_from_now(address, _Seed(known.is_lasting))

    async def _pursue(self, address: Address, seed: _Seed) -> None:
        """Call a seed until some link leads there."""
        limits = self._settings
        while not self._is_closing and self._seeds.get(address) is seed:
            found = self._linked_at(address)
            if found is not None:
                seed.found, seed.failures = found, 0
                return
            async with self._dial_slots:
                outcome = await self._handshakes.call(address, Kind.CONTROL, NOBODY, limits.handshake_s)
            if outcome is Outcome.MYSELF:
                seed.found = self.id
                return
            if outcome is not Outcome.LINKED:
                seed.failures += 1
                longest_s = limits.redial_max_s if seed.is_lasting else limits.found_redial_max_s
                await asyncio.sleep(self._backoff(limits.redial_min_s, seed.failures, longest_s))

    def _linked_at(self, address: Address) -> NodeId | None:
        for peer in self._peers.values():
            if peer.links and (peer.reached == address or address in peer.listens):
                return peer.id
        return None

    # ------------------------------------------------------------------------------------- links

    def _peer(self, node: NodeId) -> _Peer:
        found = self._peers.get(node)
        if found is None:
            limits = self._settings
            outboxes = {
                Kind.CONTROL: Outbox(
                    messages_max=limits.control_messages_max, bytes_max=limits.control_bytes_max
                ),
                Kind.BULK: Outbox(messages_max=limits.bulk_messages_max, bytes_max=limits.bulk_bytes_max),
            }
            found = self._peers[node] = _Peer(node, outboxes)
        return found

    def objection(self, peer: NodeId, greeting: Greeting) -> str:
        """Why not to link up with this node (for `Handshakes`)."""
        if greeting.protocol != PROTOCOL:
            return f"it speaks protocol {greeting.protocol}, this node {PROTOCOL}"
        if peer == self.id:
            if greeting.nonce == self._handshakes.nonce:
                return "this is myself"
            self._tell(signals.CloneMet(greeting.boot, keeps=False))
            return "two processes have this identity: a copied disk?"
        known = self._peers.get(peer)
        if known is None or not known.links:
            return ""
        if greeting.boot < known.boot or are_copies(greeting.boot, known.boot):
            return linked_to(known.boot)
        return ""

    def sent_away(self, boot: int) -> None:
        """A peer is linked to another process with this node's identity (for `Handshakes`)."""
        self._tell(signals.CloneMet(boot, keeps=True))

    def adopt(self, greeted: Greeted) -> asyncio.Event | None:
        """Make a greeted socket a link, tell of it, and set its tasks going (for `Handshakes`)."""
        if self._is_closing:
            return None
        greeting, address, now = greeted.greeting, greeted.address, self._loop.time()
        peer = self._peer(greeted.peer)
        link = _Link(greeting.kind, greeting.boot, greeting.nonce, greeted.socket, address, now, now)
        if (link.boot, link.nonce) != (peer.boot, peer.nonce):
            self._begin_life(peer, link)
        peer.listens = tuple(_resolved(greeting.listens, greeted.remote_host))
        if address is not None:
            peer.reached = address
        self._make_way(peer, link)
        peer.links.append(link)
        peer.lost_at, peer.has_parted, peer.failures = None, False, 0
        for outbox in peer.outboxes.values():
            self.dropped += outbox.drop_before(now - self._settings.unsent_s)
        self._group.create_task(self._carry(peer, link))
        link.wake.set()
        if link.kind is Kind.CONTROL and not peer.is_up:
            peer.is_up = True
            self._tell(signals.LinkUp(peer.id, peer.boot, address))
        if peer.is_let_go:
            _dismiss(link, Farewell.GOODBYE)  # or it would bring the others back
        peer.wake.set()
        self._tend(peer)
        return link.ended

    def _begin_life(self, peer: _Peer, link: _Link) -> None:
        """The peer has started anew: what is left of its earlier life goes."""
        for old in peer.links:
            _dismiss(old, Farewell.REFUSED)
        if peer.is_up:
            peer.is_up = False
            self._tell(signals.LinkDown(peer.id, peer.boot, refused=False))
        peer.boot, peer.nonce, peer.reached, peer.strikes = link.boot, link.nonce, None, 0
        peer.is_let_go = False

    def _make_way(self, peer: _Peer, link: _Link) -> None:
        """One link of a kind is enough. The newest stays: it certainly works. One side decides, or each
        might close what the other keeps; messages still under way on the old one are read to its end."""
        for old in peer.links:
            if old.kind is link.kind:
                old.is_retired = old.is_retired or self.id < peer.id
                if old.is_retired:
                    old.wake.set()

    async def _carry(self, peer: _Peer, link: _Link) -> None:
        ending = _Ending(ABNORMAL, "")
        try:
            async with asyncio.TaskGroup() as pair:
                writer = pair.create_task(self._write(peer, link))
                ending = await self._read(peer, link)
                if not link.is_closing:
                    writer.cancel()
        finally:
            link.ended.set()
            await hang_up(link.socket, Farewell.GOODBYE, "")  # releases the socket if it is not closed yet
        self._end(peer, link, ending)

    async def _read(self, peer: _Peer, link: _Link) -> _Ending:
        while True:
            got = await link.socket.receive()
            link.used_at = self._loop.time()
            if got.type is aiohttp.WSMsgType.BINARY:
                self.carried[link.kind, "in"] += len(got.data)
                try:
                    for frame in split(got.data):
                        message = wire.decode(frame)
                        if link.boot == peer.boot:
                            self._tell(signals.MessageArrived(peer.id, message, link.boot))
                except MalformedMessage as error:
                    return await self._reject(peer, link, str(error))
            elif got.type is aiohttp.WSMsgType.TEXT and got.data == RETIRE:
                link.is_retired = True
                link.wake.set()
                self._tend(peer)
            elif got.type is aiohttp.WSMsgType.TEXT:
                return await self._reject(peer, link, "a text frame means nothing here")
            elif got.type is aiohttp.WSMsgType.CLOSE:
                return _Ending(int(got.data), str(got.extra or ""))
            elif got.type is aiohttp.WSMsgType.ERROR and isinstance(got.data, aiohttp.WebSocketError):
                return await self._reject(peer, link, str(got.data))
            else:
                return _Ending(ABNORMAL, "")

    async def _reject(self, peer: _Peer, link: _Link, reason: str) -> _Ending:
        self._say(f"malformed {peer.id}", "closed the %s link with %s: %s", link.kind, peer.id, reason)
        link.farewell = Farewell.MALFORMED
        await hang_up(link.socket, Farewell.MALFORMED, reason)
        return _Ending(ABNORMAL, reason)

    async def _write(self, peer: _Peer, link: _Link) -> None:
        outbox = peer.outboxes[link.kind]
        # A link that fails here fails in the reader too, which tells.
        with suppress(aiohttp.ClientError, ConnectionError):
            while True:
                await link.wake.wait()
                link.wake.clear()
                is_last_word = self._is_closing and link.farewell is Farewell.GOODBYE
                while len(outbox) and (is_last_word or peer.active(link.kind) is link):
                    packet = outbox.take()
                    self.carried[link.kind, "out"] += len(packet)
                    await link.socket.send_bytes(packet)
                    link.used_at = self._loop.time()
                    await asyncio.sleep(0)  # a full outbox must not keep the control link waiting
                if link.farewell is not None:
                    link.is_closing = True
                    await hang_up(link.socket, link.farewell, "")
                    return
                if link.is_retired and await self._retire(peer, link):
                    return

    async def _retire(self, peer: _Peer, link: _Link) -> bool:
        """Give a link up in favour of the other one. Whether it is done."""
        if self.id < peer.id:
            await link.socket.send_str(RETIRE)
            with suppress(TimeoutError):
                # The peer closes it, and so ends this task, unless it is gone.
                async with asyncio.timeout(self._settings.handshake_s):
                    while link.farewell is None:
                        await link.wake.wait()
                        link.wake.clear()
        elif peer.active(link.kind) is None:
            return False  # the one that stays is still being greeted on
        link.is_closing = True
        await hang_up(link.socket, link.farewell or Farewell.RETIRED, "")
        return True

    def _end(self, peer: _Peer, link: _Link, ending: _Ending) -> None:
        """A link is gone: find out what that means."""
        peer.links.remove(link)
        peer.is_let_go = peer.is_let_go and bool(peer.links)
        if self._is_closing:
            return
        if ending.code in (Farewell.MALFORMED, Farewell.REFUSED):
            text = "%s closed the %s link: %s"
            self._say(f"closed {peer.id} {link.kind}", text, peer.id, link.kind, ending.reason)
        now = self._loop.time()
        if link.boot != peer.boot or peer.active(link.kind) is not None:
            return
        if Farewell.GOODBYE in (ending.code, link.farewell):
            peer.has_parted = True
        elif Farewell.IDLE in (ending.code, link.farewell):
            peer.is_up = peer.is_up and link.kind is not Kind.CONTROL
        elif peer.is_up and peer.lost_at is None:
            peer.lost_at = now
        if link.kind is Kind.CONTROL:
            peer.strikes = 0 if now - link.born >= self._settings.steady_s else peer.strikes + 1
        if not peer.links and peer.is_up and peer.has_parted:
            self._down(peer, refused=False)
        peer.wake.set()
        self._tend(peer)
        self._release(peer)

    def _down(self, peer: _Peer, *, refused: bool) -> None:
        """No link is left, or its port refuses without there having been one."""
        was_up, peer.is_up, peer.lost_at = peer.is_up, False, None
        boot = peer.boot if was_up or peer.book is None else peer.book.boot
        self._drop_waiting(peer)
        is_news = was_up or (refused and boot > peer.proved)
        if refused or peer.has_parted:
            peer.proved = max(peer.proved, boot)
        if is_news:
            self._tell(signals.LinkDown(peer.id, boot, refused))

    def _drop_waiting(self, peer: _Peer) -> None:
        for outbox in peer.outboxes.values():
            self.dropped += outbox.drop_before(float("inf"))

    def _release(self, peer: _Peer) -> None:
        """Forget a peer that nobody wants; if a seed led to it, that is called again."""
        is_idle = not peer.links and not peer.is_tended and peer.lost_at is None
        if not is_idle or peer.book is not None or self._peers.get(peer.id) is not peer:
            return
        del self._peers[peer.id]
        for address, seed in list(self._seeds.items()):
            if seed.found != peer.id or self._is_closing:
                continue
            if seed.is_lasting or not peer.has_parted:
                self._pursue_from_now(address, _Seed(seed.is_lasting))
            else:
                del self._seeds[address]

    # ----------------------------------------------------------------------------------- telling

    def _tell(self, event: signals.Event) -> None:
        if not self._is_closing:
            self._on_event(event)


def _dismiss(link: _Link, farewell: Farewell) -> None:
    """Have the link's writer close it."""
    if link.farewell is None:
        link.farewell = farewell
    link.wake.set()


def _resolved(listens: Iterable[Address], remote_host: str) -> Iterable[Address]:
    """A peer that listens on every interface is at least where it spoke from."""
    for host, port in listens:
        try:
            is_everywhere = ipaddress.ip_address(host).is_unspecified
        except ValueError:
            is_everywhere = False  # a name
        yield (remote_host, port) if is_everywhere else (host, port)
