"""Rumours: which of two wins, and which to pass on with the next message.

Rumours about one member are totally ordered, so the join of any set of them is its maximum, whatever the
order of arrival:

    boot          a later life of the process beats everything said of an earlier one
    left          goodbye is final for that boot
    incarnation   only the member itself raises it, to refute
    severity      alive < suspect < dead of silence < dead on proof (SWIM section 4.2, "Precedence")
    the rest      so that no two different rumours are equal
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log10
from typing import Any, Final

import msgpack

from edgenode.core.types import MemberState, NodeId
from edgenode.core.wire import Rumour

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


def join(one: Rumour, other: Rumour) -> Rumour:
    """The rumour that both lead to: commutative, associative, idempotent."""
    assert one.info.id == other.info.id
    return max(one, other, key=precedence)


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
