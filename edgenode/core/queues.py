"""What the mesh has agreed on about its named queues: which are paused, and how fast each may go.

A small map, the same on every member in the end, with no vote: of two settings of one queue the later one
stands, by version and then by who made it (a last-writer-wins register; Shapiro et al., "Conflict-free
Replicated Data Types", SSS 2011). Whoever changes one takes the version after the last that it knows of any
queue (Lamport, "Time, Clocks, and the Ordering of Events in a Distributed System", CACM 1978). So a message
that comes twice, or late, does nothing, and after a cut both sides come to the same.

A queue that is *reset* is as if nothing had ever been set, but for its version: that stays, lest older
settings come back from somebody who was away. The latest `RESET_MAX` of these are kept, the same ones by all:
versions are counted over all queues, to be comparable. Only settings that somebody kept, away all the time
while a thousand other queues were reset, would be news again.

A change goes to all living members at once. Whoever meets a member compares digests with it, and so does
everybody now and then with one of the others, as long as any queue has settings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import msgpack

from edgenode.core.bounds import finite, whole
from edgenode.core.desk import Desk
from edgenode.core.errors import RejectedInput, StoreFailed, StoreUnwritable
from edgenode.core.signals import QueueAsked, QueueDone, RequestId
from edgenode.core.types import FOREVER, NOBODY, Hash64, Instant, NodeId, Seconds
from edgenode.core.wire import QueueItem, QueuesDigest, QueuesTold

QUEUES_MAX: Final = 1_000
"""Queues with settings, some 60 bytes each; all of them fit into one message."""
RESET_MAX: Final = 1_000
"""Queues that were reset and are remembered, beside those."""
COMPARE_S: Final[Seconds] = 10.0
"""How often a digest goes to one other member, by chance: for what a broken link swallowed."""
PULL_S: Final[Seconds] = 1.0
"""A member that knows less asks one of those that said so, and only after this another one."""


def unset(queue: str) -> QueueItem:
    """What is so of a queue for which nothing was ever set."""
    return QueueItem(queue, 0, NOBODY, False, 0, 0.0, 0)


def is_reset(item: QueueItem) -> bool:
    """Whether it says nothing but that there was something once."""
    return not (item.paused or item.concurrency or item.rate or item.burst)


def later(one: QueueItem | None, other: QueueItem | None) -> QueueItem | None:
    """Which of two settings of one queue stands: a join, over a total order."""
    if one is None or other is None:
        return one or other
    return max(one, other, key=_age)


def _age(item: QueueItem) -> tuple[object, ...]:
    return item.version, item.by, item


@dataclass(slots=True)
class Asking:
    """A local request that waits until others know of its change."""

    item: QueueItem
    unheard: set[NodeId]
    known: int
    until: Instant


class Queues:
    """Drive it with requests, messages and time; ask it with `get`. It answers through the desk.

    `take_changed` has the names of the queues whose settings are others than before.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._items: dict[str, QueueItem] = {}
        self.paused: dict[str, None] = {}
        self._changed: dict[str, None] = {}
        self._asking: dict[RequestId, Asking] = {}
        self._met: dict[NodeId, int] = {}  # the life of each member that was told our digest
        self._digest: Hash64 | None = None
        self._compare_at: Instant = FOREVER
        self._pulled: NodeId = NOBODY  # who is asked for all that it knows
        self._pulled_until: Instant = 0.0
        self._next: tuple[NodeId, Hash64] | None = None  # who said meanwhile that it knows otherwise, too

    # --------------------------------------------------------------------------------- what is known

    def get(self, queue: str) -> QueueItem | None:
        """The settings of a queue; None if it never had any."""
        return self._items.get(queue)

    def is_limited(self, queue: str) -> bool:
        """Whether a start from it needs somebody's leave."""
        item = self._items.get(queue)
        return item is not None and (item.concurrency > 0 or item.rate > 0)

    def all(self) -> Sequence[QueueItem]:
        """Those that were reset, too."""
        return [self._items[name] for name in sorted(self._items)]

    def in_force(self) -> Sequence[QueueItem]:
        """Those for which anything is set, by name."""
        return [item for item in self.all() if not is_reset(item)]

    def take_changed(self) -> list[str]:
        changed = list(self._changed)
        self._changed.clear()
        return changed

    @property
    def digest(self) -> Hash64:
        """Stands for all that is known."""
        if self._digest is None:
            hashed = blake2b(msgpack.packb(self.all()), digest_size=8).digest()
            self._digest = Hash64(int.from_bytes(hashed, "big"))
        return self._digest

    # -------------------------------------------------------------------------------------- the disk

    def load(self, packed: bytes) -> None:
        """What this disk had at the start of the life."""
        for fields in msgpack.unpackb(packed) if packed else ():
            name, version, by, paused, concurrency, rate, burst = fields
            self._merge(
                QueueItem(
                    str(name), whole(version), NodeId(by), bool(paused),
                    whole(concurrency), finite(rate), whole(burst),
                )
            )  # fmt: skip
        self._compare_at = self._desk.now + COMPARE_S if self._items else FOREVER

    def keep(self) -> None:
        """All of it is to be on disk before anything more is said."""
        if self._items:
            self._desk.queues = msgpack.packb(self.all())

    def resign(self) -> None:
        """The disk takes no writes: nobody is told of a change that it does not have."""
        for request in list(self._asking):
            self._answer(request, StoreFailed("this node's disk refused the change: it may come later"))

    # -------------------------------------------------------------------------------------- changes

    def ask(self, event: QueueAsked) -> None:
        """A client wants a queue's settings changed."""
        desk, before = self._desk, self._items.get(event.queue)
        if not desk.storing:
            error = StoreUnwritable("this node's disk takes no writes; ask another node")
            desk.emit(QueueDone(event.request, None, 0, 0, error))
            return
        item = before or unset(event.queue)
        item = item._replace(
            version=1 + max((each.version for each in self._items.values()), default=0),
            by=desk.me,
            paused=item.paused if event.paused is None else event.paused,
            concurrency=item.concurrency if event.concurrency is None else event.concurrency,
            rate=item.rate if event.rate is None else event.rate,
            burst=item.burst if event.burst is None else event.burst,
        )
        is_more = not is_reset(item) and (before is None or is_reset(before))
        if is_more and len(self.in_force()) >= QUEUES_MAX:
            text = f"{QUEUES_MAX} queues have settings, as many as there can be: reset one that needs none"
            desk.emit(QueueDone(event.request, None, 0, 0, RejectedInput(text, field="queue")))
            return
        self._merge(item)
        self._trim()
        self.keep()
        others = {node for node in desk.view.members() if node != desk.me and desk.view.is_living(node)}
        until = desk.now + event.timeout_s
        self._asking[event.request] = Asking(item, others, 1, until)
        for node in sorted(others):
            desk.post.send(node, QueuesTold((item,), False, False))
        self._look(event.request)

    def dropped(self, request: RequestId) -> None:
        self._asking.pop(request, None)

    def _merge(self, item: QueueItem) -> bool:
        before = self._items.get(item.queue)
        if later(before, item) == before:
            return False
        self._items[item.queue] = item
        if item.paused:
            self.paused[item.queue] = None
        else:
            self.paused.pop(item.queue, None)
        self._changed[item.queue] = None
        self._digest = None
        if self._compare_at == FOREVER:
            self._compare_at = self._desk.now + COMPARE_S
        return True

    def _trim(self) -> None:
        """Forget the oldest of those that were reset, if they are too many. (Not in the midst of a message:
        what it goes on to say may be older settings of just these.)"""
        reset = [item for item in self._items.values() if is_reset(item)]
        if len(reset) > RESET_MAX:
            for item in sorted(reset, key=_age)[:-RESET_MAX]:
                del self._items[item.queue]
            self._digest = None

    def _look(self, request: RequestId) -> None:
        """Answer when everybody has heard, or time is up."""
        asking, view = self._asking[request], self._desk.view
        asking.unheard = {node for node in asking.unheard if view.is_living(node)}
        if not asking.unheard or asking.until <= self._desk.now:
            self._answer(request, None)

    def _answer(self, request: RequestId, error: StoreFailed | None) -> None:
        asking = self._asking.pop(request)
        known, living = asking.known, asking.known + len(asking.unheard)
        # Somebody else may have changed it at the same time: what is told is what stands.
        item = self._items.get(asking.item.queue, asking.item)
        self._desk.emit(QueueDone(request, item, known, living, error))

    # ------------------------------------------------------------------------------------- messages

    def on_told(self, source: NodeId, message: QueuesTold) -> None:
        desk = self._desk
        news = [item for item in message.items if self._merge(item)]
        if news:
            self._trim()
            self.keep()
        if not message.is_answer:
            told = {item.queue: item for item in message.items}
            wanted: Iterable[QueueItem] = self.all()
            if not message.is_all:
                wanted = (self._items.get(name, item) for name, item in told.items())
            answer = [item for item in wanted if not message.is_all or item != told.get(item.queue)]
            desk.post.send(source, QueuesTold(tuple(answer), True, message.is_all))
            return
        if message.is_all:
            self._ask_the_next()
        heard = {item.queue: item for item in message.items}
        for request, asking in list(self._asking.items()):
            item = heard.get(asking.item.queue)
            if item is not None and source in asking.unheard and later(item, asking.item) == item:
                asking.unheard.discard(source)
                asking.known += 1
                self._look(request)

    def on_digest(self, source: NodeId, digest: Hash64) -> None:
        """Another one says what all that it knows comes to."""
        if digest == self.digest:
            return
        if self._pulled_until > self._desk.now:
            self._next = source, digest
            return
        self._pulled, self._pulled_until = source, self._desk.now + PULL_S
        self._desk.post.send(source, QueuesTold(tuple(self.all()), False, True))

    def _ask_the_next(self) -> None:
        """One that was asked has answered, or is gone: somebody else knew otherwise, and may still."""
        self._pulled_until = 0.0
        if self._next is not None:
            (source, digest), self._next = self._next, None
            if self._desk.view.is_living(source):
                self.on_digest(source, digest)

    # --------------------------------------------------------------------------- members and time

    def members_changed(self, changed: Collection[NodeId]) -> None:
        view, me = self._desk.view, self._desk.me
        for request in list(self._asking):
            self._look(request)
        if self._pulled in changed and not view.is_living(self._pulled):
            self._ask_the_next()
        for node in sorted(changed):
            if node == me or not view.is_living(node):
                self._met.pop(node, None)
            elif self._items and self._desk.storing and self._met.get(node) != view.boot_of(node):
                self._met[node] = view.boot_of(node)
                self._desk.post.send(node, QueuesDigest(self.digest))

    def deadline(self) -> Instant:
        return min(self._compare_at, min((each.until for each in self._asking.values()), default=FOREVER))

    def on_time(self) -> None:
        desk = self._desk
        if self._compare_at <= desk.now:
            self._compare_at = desk.now + COMPARE_S
            others = sorted(n for n in desk.view.members() if n != desk.me and desk.view.is_living(n))
            if others and desk.storing:
                desk.post.send(others[desk.dice.randrange(0, len(others))], QueuesDigest(self.digest))
        for request, asking in list(self._asking.items()):
            if asking.until <= desk.now:
                self._answer(request, None)
