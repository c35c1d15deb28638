"""From a TCP connection to a greeted WebSocket, calling and being called; with a reason when it fails.

TLS comes first and is mutual, so whoever has no certificate of this mesh gets no byte of HTTP. Then each side
sends one frame, its greeting. Every refusal is logged at both ends, and of one thing once a minute.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import socket
import ssl
import time
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

import aiohttp
from aiohttp import web
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace

from edgenode.core.errors import MalformedMessage
from edgenode.core.types import NOBODY, Instant, NodeId, Seconds
from edgenode.shell.identity import BadIdentity, Identity, MeshKey, peer_id
from edgenode.shell.link import (
    NONCE_BYTES,
    PACKET_BYTES_MAX,
    PROTOCOL,
    Address,
    Farewell,
    Greeting,
    Kind,
    TransportSettings,
    decode_greeting,
    encode_greeting,
    other_life,
)

logger = logging.getLogger(__name__)

REASON_BYTES_MAX: Final = 123  # RFC 6455 section 5.5
COMPLAINTS_MAX: Final = 1024
BACKLOG: Final = 512
OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
ANOTHER_MESH: Final = "has a certificate of another mesh (wrong mesh key?)"

WebSocket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


class Outcome(Enum):
    """What came of one call."""

    LINKED = "linked"
    REFUSED = "refused"  # the port is closed
    SILENT = "silent"  # anything else: no answer, no route, not a node of this mesh
    MOVED = "moved"  # another node of this mesh answered
    MYSELF = "myself"


class Greeted(NamedTuple):
    """A socket on which both sides have greeted."""

    peer: NodeId  # proved by TLS
    greeting: Greeting
    socket: WebSocket
    address: Address | None  # where we called; None if we were called

    @property
    def remote_host(self) -> str:
        return remote_host(self.socket)


class Host(Protocol):
    """What the handshakes need of the transport they work for."""

    def objection(self, peer: NodeId, greeting: Greeting) -> str:
        """Why not to talk to this node; empty if there is nothing against it."""
        ...

    def sent_away(self, boot: int) -> None:
        """A peer is linked to another process with this node's identity, which began with this number."""
        ...

    def adopt(self, greeted: Greeted) -> asyncio.Event | None:
        """Take the socket over. Returns what is set when its link has ended, None if it is not wanted."""
        ...


class Complaints:
    """Warnings, but of one thing once in `every_s`: a wrong key at one node must not fill all logs."""

    def __init__(self, every_s: Seconds) -> None:
        self._every_s = every_s
        self._said: dict[str, Instant] = {}

    def say(self, about: str, text: str, *values: object) -> bool:
        """Whether it was said, or has been said lately."""
        now = asyncio.get_running_loop().time()
        if now - self._said.get(about, float("-inf")) < self._every_s:
            return False
        self._said.pop(about, None)
        if len(self._said) >= COMPLAINTS_MAX:
            del self._said[next(iter(self._said))]
        self._said[about] = now
        logger.warning(text, *values)
        return True


class _Connector(aiohttp.BaseConnector):
    """TLS connections without aiohttp's own connecting.

    That hands a connected Python socket to the loop, and uvloop 0.23 closes its file descriptor twice if the
    peer resets it within the same turn, which is what a peer that is being killed does. The second close can
    hit a new connection.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(limit=0, force_close=True)
        self._tls = tls

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        host, port = req.url.raw_host, req.url.port
        assert host is not None
        assert port is not None
        try:
            _, protocol = await self._loop.create_connection(
                self._factory, host, port, ssl=self._tls, server_hostname=host
            )
        except OSError as error:
            raise aiohttp.ClientConnectorError(req.connection_key, error) from error
        return protocol


class Handshakes:
    """Calls peers and answers their calls.

    Use: `open`, then `answer` as a task in `group`, and `call` as often as needed; in the end `close`.
    """

    def __init__(
        self,
        host: Host,
        *,
        identity: Identity,
        mesh_key: MeshKey,
        boot: int,
        listens: tuple[Address, ...],
        settings: TransportSettings,
        complaints: Complaints,
    ) -> None:
        self.nonce = secrets.token_bytes(NONCE_BYTES)
        self._host = host
        self._id = identity.id
        self._boot = boot
        self._listens = listens
        self._settings = settings
        self._say = complaints.say
        self._server_tls = identity.server_context(mesh_key)
        self._client_tls = identity.client_context(mesh_key)
        self._callers: dict[asyncio.Task[None], None] = {}
        self._answers = False
        self.address: Address  # once open
        self._loop: asyncio.AbstractEventLoop
        self._group: asyncio.TaskGroup
        self._listener: socket.socket
        self._session: aiohttp.ClientSession
        self._server: web.Server

    async def open(self, host: str, port: int) -> None:
        """Bind the address. Raises OSError."""
        self._loop = asyncio.get_running_loop()
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        where = str(address[0]), int(address[1])
        self._listener = socket.create_server(where, family=family, backlog=BACKLOG)
        self._listener.setblocking(False)
        bound = self._listener.getsockname()
        self.address = str(bound[0]), int(bound[1])
        self._server = web.Server(self._serve, access_log=None, keepalive_timeout=self._settings.handshake_s)
        self._session = aiohttp.ClientSession(
            connector=_Connector(self._client_tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # each call has its own
        )

    async def close(self) -> None:
        """End every socket at once."""
        self._listener.close()
        await self._session.close()
        await self._server.shutdown(0)

    # ------------------------------------------------------------------------------ being called

    async def answer(self, group: asyncio.TaskGroup) -> None:
        """Take calls until cancelled; the port is closed then.

        Sockets are accepted here rather than by asyncio's server, which does not tell why a handshake failed.
        """
        self._group = group
        self._answers = True
        try:
            self._listen()
            await self._loop.create_future()
        finally:
            self._answers = False
            self._loop.remove_reader(self._listener)
            self._listener.close()

    def _listen(self) -> None:
        if self._answers:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            accepted, remote = self._listener.accept()
        except OSError as error:
            if error.errno in OUT_OF_RESOURCES:
                self._say("accept", "cannot accept connections: %s", error)
                self._loop.remove_reader(self._listener)
                self._loop.call_later(self._settings.redial_max_s, self._listen)
            return  # otherwise it was the caller that went away
        accepted.setblocking(False)
        if len(self._callers) >= self._settings.callers_max:
            # A member is done within milliseconds, so the oldest is hardly one.
            next(iter(self._callers)).cancel()
        caller = self._group.create_task(self._secure(accepted, str(remote[0])))
        self._callers[caller] = None
        caller.add_done_callback(partial(self._callers.pop))

    async def _secure(self, accepted: socket.socket, host: str) -> None:
        """TLS for a caller. What follows is `_serve`'s: nobody without a certificate gets there."""
        self._tune(accepted)
        try:
            async with asyncio.timeout(self._settings.handshake_s):
                await self._loop.connect_accepted_socket(self._server, accepted, ssl=self._server_tls)
        except ssl.SSLError as error:
            reason = _tls_reason(error)
            self._say(f"caller {host} {reason}", "a caller at %s was refused: it %s", host, reason)
        except (OSError, TimeoutError) as error:
            logger.debug("a caller at %s went away during the handshake: %r", host, error)

    def _tune(self, connection: socket.socket) -> None:
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            limit_ms = int(self._settings.silent_s * 1000)
            with suppress(OSError):  # it may be closed already
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        opened = web.WebSocketResponse(
            timeout=self._settings.close_s, compress=False, max_msg_size=PACKET_BYTES_MAX + 1
        )
        if not self._answers:
            return web.Response(status=503)
        if not opened.can_prepare(request):
            return web.Response(status=404)
        try:
            await opened.prepare(request)
        except (aiohttp.ClientError, OSError) as error:
            logger.debug("a caller went away: %r", error)
            return web.Response(status=503)
        # In the group, so that a bug in there is not merely logged by the HTTP server.
        welcome = self._group.create_task(self._welcome(opened))
        await asyncio.wait({welcome})
        ended = None if welcome.cancelled() else welcome.result()
        if ended is not None:
            await ended.wait()
        return opened

    async def _welcome(self, opened: web.WebSocketResponse) -> asyncio.Event | None:
        try:
            async with asyncio.timeout(self._settings.handshake_s):
                greeting = await self._hear(opened)
                if greeting is None:
                    return None
                peer = _proved_id(opened)
                if not await self._approve(opened, peer, greeting, where=remote_host(opened)):
                    return None
                await opened.send_bytes(self._greeting(greeting.kind))
        except (aiohttp.ClientError, OSError, TimeoutError, BadIdentity, UnicodeError) as error:
            logger.debug("no greeting from %s: %r", remote_host(opened), error)
            await hang_up(opened, Farewell.REFUSED, "no greeting")
            return None
        return self._host.adopt(Greeted(peer, greeting, opened, None))

    # ----------------------------------------------------------------------------------- calling

    async def call(self, address: Address, kind: Kind, expected: NodeId, limit_s: Seconds) -> Outcome:
        """Call whoever listens at `address`, and hand a greeted socket to the host (LINKED).

        Args:
            expected: only this node will do; NOBODY for any.
            limit_s: for the whole of it.
        """
        host, port = address
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        opened: aiohttp.ClientWebSocketResponse | None = None
        outcome = Outcome.SILENT
        try:
            async with asyncio.timeout(limit_s):
                opened = await self._session.ws_connect(
                    f"wss://{where}/",
                    timeout=aiohttp.ClientWSTimeout(ws_close=self._settings.close_s),
                    max_msg_size=PACKET_BYTES_MAX + 1,
                )
                outcome = await self._introduce(opened, address, kind, expected)
        except aiohttp.ClientConnectorError as error:
            outcome = await self._explain(error.os_error, address, where)
        except aiohttp.WSServerHandshakeError as error:
            if error.status != 503:  # the peer is closing
                self._say(f"at {where}", "peer %s is no node: HTTP status %d", where, error.status)
        except (aiohttp.ClientError, OSError, TimeoutError, BadIdentity, UnicodeError) as error:
            logger.debug("the call to %s failed: %r", where, error)
        finally:
            if opened is not None and outcome is not Outcome.LINKED:
                # The peer may have taken the link up already, and shall not take this for a death.
                farewell = Farewell.RETIRED if self._answers else Farewell.GOODBYE
                await hang_up(opened, farewell, "the greeting failed")
        return outcome

    async def _explain(self, error: OSError, address: Address, where: str) -> Outcome:
        """What it means that there was no connection, or no TLS on it."""
        if error.errno == errno.ECONNREFUSED:
            return Outcome.REFUSED
        if isinstance(error, ssl.SSLCertVerificationError):
            if self._say(f"at {where}", "peer %s %s", where, ANOTHER_MESH):
                await asyncio.to_thread(_send_alert, address, self._client_tls, self._settings.probe_s)
        elif isinstance(error, ssl.SSLError):
            self._say(f"at {where}", "peer %s does not speak TLS 1.3: %s", where, error)
        else:
            logger.debug("cannot reach %s: %s", where, error)
        return Outcome.SILENT

    async def _introduce(
        self, opened: aiohttp.ClientWebSocketResponse, address: Address, kind: Kind, expected: NodeId
    ) -> Outcome:
        connection = _fact(opened, "socket")
        if connection is not None:
            self._tune(connection)
        peer = _proved_id(opened)
        if expected not in (NOBODY, peer):
            await hang_up(opened, Farewell.GOODBYE, "expected another node here")
            return Outcome.MOVED
        await opened.send_bytes(self._greeting(kind))
        greeting = await self._hear(opened)
        where = f"{address[0]}:{address[1]}"
        if greeting is None or not await self._approve(opened, peer, greeting, where=where):
            return Outcome.MYSELF if peer == self._id else Outcome.SILENT
        is_wanted = self._host.adopt(Greeted(peer, greeting, opened, address)) is not None
        return Outcome.LINKED if is_wanted else Outcome.SILENT

    # ---------------------------------------------------------------------------------- greeting

    def begin_life(self, boot: int) -> None:
        """Greet under this boot number from now on. The process, and so the nonce, is the same."""
        self._boot = boot

    def _greeting(self, kind: Kind) -> bytes:
        listens = self._listens or (self.address,)
        return encode_greeting(Greeting(PROTOCOL, kind, self._boot, self.nonce, listens))

    async def _hear(self, opened: WebSocket) -> Greeting | None:
        """The other's greeting, or None if it closed the link or sent something else."""
        heard = await opened.receive()
        where = remote_host(opened)
        if heard.type is aiohttp.WSMsgType.CLOSE and heard.data == Farewell.REFUSED:
            self._say(f"refusal {where} {heard.extra}", "%s refused this node: %s", where, heard.extra)
            boot = other_life(str(heard.extra))
            if boot is not None:
                self._host.sent_away(boot)
        if heard.type is not aiohttp.WSMsgType.BINARY:
            return None
        try:
            return decode_greeting(heard.data)
        except MalformedMessage as error:
            self._say(f"greeting {where}", "%s sent no greeting: %s", where, error)
            await hang_up(opened, Farewell.MALFORMED, str(error))
            return None

    async def _approve(self, opened: WebSocket, peer: NodeId, greeting: Greeting, *, where: str) -> bool:
        """Whether to talk to this node; if not, both logs get the reason."""
        reason = self._host.objection(peer, greeting)
        if not reason:
            return True
        if greeting.nonce != self.nonce:
            self._say(f"refused {peer} {reason}", "refused %s at %s: %s", peer, where, reason)
        await hang_up(opened, Farewell.REFUSED, reason)
        return False


async def hang_up(opened: WebSocket, farewell: Farewell, reason: str) -> None:
    """Close a socket, if it is not closed yet; waits for the other side for `close_s` at most."""
    text = reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore").encode()
    with suppress(aiohttp.ClientError, ConnectionError):
        await opened.close(code=farewell, message=text)


def remote_host(opened: WebSocket) -> str:
    name = _fact(opened, "peername")
    return str(name[0]) if name else "?"


def _fact(opened: WebSocket, name: str) -> Any:
    """Something that the connection knows of itself, or None if it has ended."""
    try:
        return opened.get_extra_info(name)
    except AttributeError:
        # A TLS transport of asyncio that was aborted has forgotten its protocol (seen in Python 3.11).
        return None


def _proved_id(opened: WebSocket) -> NodeId:
    """Who is at the other end, from the key that TLS proved. Raises BadIdentity."""
    proof: ssl.SSLObject | None = _fact(opened, "ssl_object")
    certificate = None if proof is None else proof.getpeercert(True)
    if certificate is None:
        raise BadIdentity("the connection has ended")
    return peer_id(certificate)


def _tls_reason(error: ssl.SSLError) -> str:
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ANOTHER_MESH
    if "ALERT" in reason:
        return "took our certificate for one of another mesh (wrong mesh key?)"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "has no certificate"
    return f"does not speak TLS 1.3 ({reason.lower().replace('_', ' ') or error})"


def _send_alert(address: Address, context: ssl.SSLContext, limit_s: Seconds) -> None:
    """Fail one more handshake, on a plain socket, so that the other side learns why.

    asyncio closes a failed handshake without sending the alert that OpenSSL has made of it. Blocks, for a
    few times the limit at most, so it runs in a thread.
    """
    ends = time.monotonic() + limit_s
    with (
        suppress(OSError),
        socket.create_connection(address, timeout=limit_s) as plain,
        context.wrap_socket(plain, do_handshake_on_connect=False) as secured,
    ):
        with suppress(ssl.SSLError):
            secured.do_handshake()
        # Read to the end: closing with data unread would reset the connection and lose the alert.
        secured.shutdown(socket.SHUT_WR)
        while time.monotonic() < ends and secured.recv(4096):
            pass
