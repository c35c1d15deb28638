"""What two transports say to each other around the messages: greeting, packets, farewells; and the outbox."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

import msgpack

from edgenode.core import wire
from edgenode.core.errors import MalformedMessage
from edgenode.core.types import Instant, Seconds, is_host

PROTOCOL: Final = 1
"""Of links and messages together. Two nodes talk only if theirs are equal."""
PACKET_BYTES: Final = wire.CATCH_UP_BYTES
"""Messages that wait together travel in one WebSocket frame of about this size: one system call, one wake-up
at the other end. A larger message goes alone."""
LENGTH_BYTES: Final = 4
PACKET_BYTES_MAX: Final = wire.FRAME_BYTES_MAX + LENGTH_BYTES
ADDRESSES_MAX: Final = 8
NONCE_BYTES: Final = 8
LINKED_TO: Final = "another process with this identity is linked: boot "
RETIRE: Final = "retire"
"""Sent as a text frame: write to the other link of this kind from now on, then close this one."""

Address = tuple[str, int]


class Kind(StrEnum):
    """The two links of a pair: a ping never queues behind jobs."""

    CONTROL = "control"
    BULK = "bulk"


class Farewell(IntEnum):
    """Why a link was closed on purpose: WebSocket close codes for private use (RFC 6455 section 7.4.2)."""

    GOODBYE = 4000  # the process ends, or wants no link any more
    REFUSED = 4001  # after the greeting, for the reason given
    RETIRED = 4002  # one of two links of a kind
    MALFORMED = 4003  # what came was no message
    IDLE = 4004  # nothing passed for a while: it is no evidence, and the next message calls again


class Greeting(NamedTuple):
    """The first frame each way. Says nothing of who: TLS has proved that."""

    protocol: int
    kind: Kind
    boot: int
    nonce: bytes  # drawn once per process: tells a clone from the node itself
    listens: tuple[Address, ...]


def encode_greeting(greeting: Greeting) -> bytes:
    packed: bytes = msgpack.packb(greeting)
    return packed


def decode_greeting(frame: bytes) -> Greeting:
    """Read a greeting; of another protocol version only the number is read.

    Raises:
        MalformedMessage: this is no greeting.
    """
    try:
        protocol, *fields = msgpack.unpackb(frame)
        if type(protocol) is not int:
            raise MalformedMessage("a greeting begins with the protocol version")
        if protocol != PROTOCOL:
            return Greeting(protocol, Kind.CONTROL, 0, b"", ())
        kind, boot, nonce, listens = fields[:4]
        if type(boot) is not int or type(nonce) is not bytes or len(nonce) != NONCE_BYTES:
            raise MalformedMessage("a greeting needs a boot count and a nonce")
        addresses = tuple((host, port) for host, port in listens[:ADDRESSES_MAX])
        if not all(is_host(host) and type(port) is int and 0 < port < 65_536 for host, port in addresses):
            raise MalformedMessage("an address is a host and a port")
        return Greeting(protocol, Kind(kind), boot, nonce, addresses)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise MalformedMessage(f"not a greeting: {error}") from error


def linked_to(boot: int) -> str:
    """The reason for sending away a node while another life of it, this one, is linked."""
    return f"{LINKED_TO}{boot}"


def other_life(reason: str) -> int | None:
    """The life that a peer keeps to, if that is why it closed the link."""
    number = reason.removeprefix(LINKED_TO)
    return int(number) if number != reason and number.isdecimal() and len(number) < 20 else None


def split(packet: bytes) -> Iterator[bytes]:
    """The messages of a packet, still encoded.

    Raises:
        MalformedMessage: the lengths in it do not add up.
    """
    at = 0
    while at < len(packet):
        start = at + LENGTH_BYTES
        at = start + int.from_bytes(packet[start - LENGTH_BYTES : start], "big")
        if not start < at <= len(packet):
            raise MalformedMessage("a packet's lengths do not add up")
        yield packet[start:at]


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """When a link is given up, tried again, or has too much to carry."""

    handshake_s: Seconds = 5.0
    """From the first packet to the greeting. A handshake costs 3 ms of CPU; a starved node needs longer."""
    probe_s: Seconds = 1.0
    """How long a lost peer's port may be silent before `LinkDown` says so."""
    redial_min_s: Seconds = 0.05
    redial_max_s: Seconds = 2.0
    """Pauses between calls double from one to the other, times a random 0.5 to 1."""
    yield_s: Seconds = 0.05
    """How long the higher id waits for the lower one to call first, when nothing is waiting to be sent."""
    steady_s: Seconds = 2.0
    """A link that lived shorter than this counts as a strike; after `strikes_max` the redial pauses."""
    strikes_max: int = 3
    unsent_s: Seconds = 3.0
    """A message that waited longer than this for a link is dropped: its sender has repeated it."""
    close_s: Seconds = 0.5
    silent_s: Seconds = 10.0
    """Sent data unacknowledged for this long ends a connection (RFC 5482), or TCP's own backoff would keep
    a pair apart for as long again as the network was cut."""
    eager_links: int = 64
    """Up to this many peers are called without being asked, and stay linked. In a larger mesh a link is made
    for the first message, and ends when it is idle."""
    lonely_calls: int = 8
    """Of a larger mesh so many are called at once by a node that has no link at all."""
    idle_s: Seconds = 120.0
    """A member that is probed in turn hears from its watcher every 64 probe periods: 77 s at most (`wan`)."""
    dials_max: int = 32
    callers_max: int = 128
    found_redial_max_s: Seconds = 60.0
    """The same for an address where discovery found a node once: most of those are gone for good."""
    seeds_max: int = 256
    control_messages_max: int = 4096
    control_bytes_max: int = 8 * 1024 * 1024
    bulk_messages_max: int = 20_000
    bulk_bytes_max: int = 64 * 1024 * 1024
    log_every_s: Seconds = 60.0


DEFAULTS: Final = TransportSettings()


class Outbox:
    """Encoded messages that wait for a link: bounded in number and bytes, first in first out."""

    def __init__(self, *, messages_max: int, bytes_max: int) -> None:
        self._waiting: deque[tuple[Instant, bytes]] = deque()
        self._bytes = 0
        self._messages_max = messages_max
        self._bytes_max = bytes_max

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, frame: bytes, now: Instant) -> bool:
        """Whether there was room. One message always fits, whatever its size."""
        waiting = self._waiting
        if waiting and (len(waiting) >= self._messages_max or self._bytes + len(frame) > self._bytes_max):
            return False
        waiting.append((now, frame))
        self._bytes += len(frame)
        return True

    def take(self) -> bytes:
        """The next packet. Must not be empty."""
        parts: list[bytes] = []
        size = 0
        while self._waiting and (not parts or size + len(self._waiting[0][1]) <= PACKET_BYTES):
            frame = self._waiting.popleft()[1]
            parts += (len(frame).to_bytes(LENGTH_BYTES, "big"), frame)
            size += len(frame)
        self._bytes -= size
        return b"".join(parts)

    def drop_before(self, since: Instant) -> int:
        """Forget what was put in before `since`; returns how many messages that were."""
        dropped = 0
        while self._waiting and self._waiting[0][0] < since:
            self._bytes -= len(self._waiting.popleft()[1])
            dropped += 1
        return dropped
