"""Wishes about how a member takes part (drained or not, its weight): asked at any node, carried out by that
member alone.

Such a wish has no ballot, so it carries a *version*: a member counts its changes, and makes only the one that
its present version is next before. Whoever asks learns the version from the first answer, if it has guessed
wrong. What is repeated after a lost answer, or comes late, over another link or after somebody else's wish,
does nothing. A new life of the member begins as its command line says, and takes no wish that was meant for
an earlier one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgenode.core.desk import Desk
from edgenode.core.errors import EdgeNodeError, NodeAway, NodeNotFound, NodeSilent
from edgenode.core.signals import RegulateAsked, RegulateDone, RequestId
from edgenode.core.situations import Situation
from edgenode.core.types import FOREVER, Instant, NodeId
from edgenode.core.wire import Regulate, Regulated, Wish


@dataclass(slots=True)
class Wished:
    """A wish of a local client that is not answered yet."""

    node: NodeId
    wish: Wish
    again_at: Instant
    ends_at: Instant
    version: int = 1


class Regulation:
    """Drive it with local requests, messages, membership changes and time; it answers through the desk."""

    def __init__(self, desk: Desk, change: Callable[[Wish], bool]) -> None:
        """
        Args:
            change: carries a wish out, here and now; False if it cannot be (any more).
        """
        self._desk = desk
        self._change = change
        self._version = 0  # of this life
        self._latest: tuple[NodeId, Regulate] | None = None  # what made it
        self._wished: dict[RequestId, Wished] = {}

    # ------------------------------------------------------------------------------ for local clients

    def ask(self, event: RegulateAsked) -> None:
        desk = self._desk
        if desk.view.info(event.node) is None:
            error: EdgeNodeError = NodeNotFound(f"no member has the id {event.node!r:.80}", field="id")
            desk.emit(RegulateDone(event.request, None, error))
            return
        again_at = desk.now + desk.settings.retry_s
        wished = Wished(event.node, event.wish, again_at, desk.now + event.timeout_s)
        self._wished[event.request] = wished
        if not self._is_away(event.request, wished):
            self._send(event.request, wished)

    def _is_away(self, request: RequestId, wished: Wished) -> bool:
        """Whether the member is known to be dead, and this wish so answered."""
        since = self._desk.view.dead_since(wished.node)
        if since is None or not self._desk.view.stores(wished.node):
            return False  # one whose disk takes no writes lives
        del self._wished[request]
        text = f"the member {wished.node} is dead, or has left: start it, or name one that lives (/v1/nodes)"
        error = NodeAway(text)
        self._desk.emit(RegulateDone(request, None, error))
        return True

    def _send(self, request: RequestId, wished: Wished) -> None:
        boot = self._desk.view.boot_of(wished.node)
        self._desk.post.send(wished.node, Regulate(request, boot, wished.version, wished.wish))

    def on_regulated(self, source: NodeId, message: Regulated) -> None:
        request = RequestId(message.request)
        wished = self._wished.get(request)
        info = self._desk.view.info(source)
        if wished is None or wished.node != source or info is None:
            return
        if message.done:
            del self._wished[request]
            now = info._replace(drain=message.drain, weight=message.weight)
            self._desk.emit(RegulateDone(request, now))
        elif message.version + 1 != wished.version:
            wished.version = message.version + 1
            self._send(request, wished)

    def dropped(self, request: RequestId) -> None:
        """The client went away. What it wished may happen all the same."""
        self._wished.pop(request, None)

    # ------------------------------------------------------------------------------------ for the member

    def on_regulate(self, source: NodeId, message: Regulate) -> None:
        """Carry a wish out, if it comes next; and tell how things are."""
        desk = self._desk
        info = desk.view.info(desk.me)
        if message.boot != desk.view.boot or info is None:
            return  # asked again, its sender knows better by then
        if message.version == self._version + 1 and self._change(message.wish):
            self._version, self._latest = message.version, (source, message)
        is_done = self._latest == (
            source,
            message,
        )  # now, or before: then this one is a repetition
        if not is_done:
            desk.reach(Situation.WISH_OUT_OF_TURN)
        info = desk.view.info(desk.me) or info
        answer = Regulated(message.request, is_done, self._version, info.drain, info.weight)
        desk.post.send(source, answer)

    # ------------------------------------------------------------------------------ members and time

    def members_changed(self) -> None:
        for request, wished in list(self._wished.items()):
            self._is_away(request, wished)

    def deadline(self) -> Instant:
        return min((min(each.again_at, each.ends_at) for each in self._wished.values()), default=FOREVER)

    def on_time(self) -> None:
        desk = self._desk
        for request, wished in list(self._wished.items()):
            if wished.ends_at <= desk.now:
                del self._wished[request]
                error = NodeSilent(f"the member {wished.node} has not answered: it may have heard")
                desk.emit(RegulateDone(request, None, error))
            elif wished.again_at <= desk.now:
                wished.again_at = desk.now + desk.settings.retry_s
                self._send(request, wished)
