"""Outgoing messages of one event: per peer and kind, in pieces that are neither too long nor too large."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from edgenode.core.signals import Send
from edgenode.core.types import (
    NodeId,
)
from edgenode.core.wire import (
    CATCH_UP_BYTES,
    Acks,
    Copies,
    Expired,
    Marked,
    Marks,
    Message,
    Offer,
    ResultItem,
    Taken,
    Vote,
)

WRITE_BYTES: Final = 512 * 1024
"""Records per message, in bytes: a few hundred, so that the next node works while this one still sends."""
ITEM_BYTES: Final = 100
LIGHT: Final = (Acks, Expired, Marked, Marks, Offer, Taken)
"""Of these even a whole batch is far smaller than a message may be: they are cut by count alone."""


@dataclass(slots=True)
class Post:
    """Messages on their way out, one batch per receiver and kind however many jobs they speak of."""

    me: NodeId
    batch: int
    _batches: defaultdict[tuple[NodeId, type[Any]], list[Any]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _singles: list[tuple[NodeId, Message]] = field(default_factory=list)

    def add(self, to: NodeId, kind: type[Any], item: Any) -> None:
        """One more item for a message whose only field is a batch."""
        self._batches[to, kind].append(item)

    def send(self, to: NodeId, message: Message) -> None:
        self._singles.append((to, message))

    def forget(self) -> None:
        self._singles.clear()
        self._batches.clear()

    def take_local(self) -> list[Message]:
        """What this node says to itself needs no wire."""
        local = [message for to, message in self._singles if to == self.me]
        if local:
            self._singles = [entry for entry in self._singles if entry[0] != self.me]
        for to, kind in [key for key in self._batches if key[0] == self.me]:
            local.append(kind(tuple(self._batches.pop((to, kind)))))
        return local

    def flush(self, written: int = 0) -> list[Send]:
        """Everything, as messages. `written`: the writes of this life that they rest on."""
        sends = [Send(to, message) for to, message in self._singles]
        for (to, kind), items in self._batches.items():
            rest = (written,) if issubclass(kind, Vote) else ()
            sends.extend(Send(to, kind(tuple(piece), *rest)) for piece in self._pieces(kind, items))
        self._singles.clear()
        self._batches.clear()
        return sends

    def _pieces(self, kind: type[Any], items: list[Any]) -> Iterable[list[Any]]:
        """Cut a batch by count and by bytes: no message may be too large for a frame."""
        if kind in LIGHT:
            return [items[at : at + self.batch] for at in range(0, len(items), self.batch)]
        return pieces_of(items, CATCH_UP_BYTES if kind is Copies else WRITE_BYTES, self.batch)


def pieces_of(items: Iterable[Any], bytes_max: int, count_max: int) -> Iterator[list[Any]]:
    """The items in order, in lists of at most that many, and of about that many bytes. At least one list."""
    piece: list[Any] = []
    size = 0
    for item in items:
        weight = size_of(item)
        if piece and (size + weight > bytes_max or len(piece) >= count_max):
            yield piece
            piece, size = [], 0
        piece.append(item)
        size += weight
    yield piece


def size_of(item: Any) -> int:
    """About how many bytes an item takes in a frame."""
    if isinstance(item, bytes):
        return len(item)
    if isinstance(item, ResultItem):
        return ITEM_BYTES + len(item.verdict.result) + len(item.verdict.error)
    return ITEM_BYTES + sum(len(part) for part in item if isinstance(part, bytes))
