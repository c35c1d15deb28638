"""Rumours: which of two wins, which to pass on with the next message, and how views travel and are kept.

Rumours about one member are totally ordered, so the join of any set of them is its maximum, whatever the
order of arrival:

    boot          a later life of the process beats everything said of an earlier one
    left          goodbye is final for that boot
    incarnation   only the member itself raises it, to refute
    severity      alive < suspect < dead of silence < dead on proof (SWIM section 4.2, "Precedence")
    the rest      so that no two different rumours are equal
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, log10
from typing import Any, Final

import msgpack

from edgenode.core.errors import MalformedMessage
from edgenode.core.types import NOBODY, Instant, Load, MemberState, NodeId
from edgenode.core.wire import CATCH_UP_BYTES, Rumour, Sync, decode, encode

SEVERITY: Final = {
    MemberState.JOINING: 0,
    MemberState.READY: 0,
    MemberState.LEAVING: 0,
    MemberState.SUSPECT: 1,
    MemberState.DEAD: 2,
    MemberState.LEFT: 3,
}


def is_proven(rumour: Rumour) -> bool:
    """Is this a death that was proved? Its accuser is then the member's own port, which refused."""
    return rumour.state is MemberState.DEAD and rumour.accuser == rumour.info.id


def is_alive(rumour: Rumour) -> bool:
    """Joining, ready, suspect or leaving."""
    return SEVERITY[rumour.state] < SEVERITY[MemberState.DEAD]


def precedence(rumour: Rumour) -> tuple[Any, ...]:
    """The sort key of the total order over rumours about one member: greater wins."""
    return (
        rumour.info.boot,
        rumour.state is MemberState.LEFT,
        rumour.incarnation,
        SEVERITY[rumour.state],
        is_proven(rumour),
        rumour.accuser,
        rumour.state,
        rumour.info,
    )


def size_of(rumour: Rumour) -> int:
    """Bytes of a rumour within a message."""
    return len(msgpack.packb(rumour))


def retransmissions(members: int, factor: int) -> int:
    """How often one node passes a rumour on: `factor` * ceil(log10(n + 1)) reaches all of n members with
    high probability (SWIM section 4.1)."""
    return factor * ceil(log10(max(1, members) + 1))


@dataclass(slots=True)
class _Entry:
    rumour: Rumour
    bytes: int
    sent: int


class RumourQueue:
    """The rumours still to be passed on, at most one for each member: the latest put.

    `take` prefers what was told least often, and of these the latest, so news is never starved by old
    stories. A rumour leaves when it was taken often enough.
    """

    def __init__(self, *, per_message: int, bytes_max: int) -> None:
        assert per_message > 0
        self._per_message = per_message
        self._bytes_max = bytes_max
        self._entries: dict[NodeId, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, rumour: Rumour) -> None:
        """Pass this on from now, instead of anything earlier about the same member."""
        node = rumour.info.id
        self._entries.pop(node, None)  # so that it comes last, which is latest
        self._entries[node] = _Entry(rumour, size_of(rumour), 0)

    def drop(self, node: NodeId) -> None:
        self._entries.pop(node, None)

    def take(self, to: NodeId, sends_max: int) -> tuple[Rumour, ...]:
        """Some rumours for a message to `to`, which needs none about itself from here.

        At most `per_message`, and no more than `bytes_max` unless a single one is larger.
        """
        if not self._entries:
            return ()
        latest_first = [node for node in reversed(self._entries) if node != to]
        latest_first.sort(key=lambda node: self._entries[node].sent)
        taken: list[Rumour] = []
        left = self._bytes_max
        for node in latest_first[: self._per_message]:
            entry = self._entries[node]
            if taken and entry.bytes > left:
                break
            left -= entry.bytes
            taken.append(entry.rumour)
            entry.sent += 1
            if entry.sent >= sends_max:
                del self._entries[node]
        return tuple(taken)


class Allowance:
    """So many at once, and so many a second after that (a token bucket)."""

    def __init__(self, *, per_s: float, burst: int) -> None:
        assert per_s > 0
        assert burst >= 1
        self._per_s = per_s
        self._burst = float(burst)
        self._left = self._burst
        self._filled_at: Instant = 0.0

    def take(self, now: Instant) -> bool:
        """Use one, if there is one."""
        earned = max(0.0, now - self._filled_at) * self._per_s
        self._left = min(self._burst, self._left + earned)
        self._filled_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def frames_of(rumours: Iterable[Rumour]) -> list[tuple[Rumour, ...]]:
    """Pieces of at most `CATCH_UP_BYTES` each, at least one: no ping waits long behind one."""
    frames: list[list[Rumour]] = [[]]
    room = CATCH_UP_BYTES
    for rumour in rumours:
        size = size_of(rumour)
        if size > room and frames[-1]:
            frames.append([])
            room = CATCH_UP_BYTES
        room -= size
        frames[-1].append(rumour)
    return [tuple(frame) for frame in frames]


def memory_of(belief: Rumour, addresses: tuple[tuple[str, int], ...]) -> bytes:
    """What the disk keeps of a peer: where it was reached, and as alive, since the next start asks it anew.

    As a message of one rumour, so that the codec checks it when it is read again.
    """
    info = belief.info._replace(addresses=addresses)
    return encode(Sync(True, Load(), (Rumour(info, belief.incarnation, MemberState.JOINING, NOBODY),)))


def recall(packed: bytes) -> Rumour:
    """Read what `memory_of` wrote.

    Raises:
        MalformedMessage: these bytes are no remembered peer.
    """
    message = decode(packed)
    if not isinstance(message, Sync) or len(message.rumours) != 1:
        raise MalformedMessage("not a remembered peer")
    (rumour,) = message.rumours
    if not is_sane(rumour):
        raise MalformedMessage("a remembered peer without an id, or with a negative number")
    return rumour


def is_sane(rumour: Rumour) -> bool:
    """Has it an id, and numbers that a node can have?"""
    return rumour.incarnation >= 0 and rumour.info.boot >= 0 and bool(rumour.info.id)
