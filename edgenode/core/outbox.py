"""What membership lets out while it handles one event: messages to other members, and notes for the log.

News travels in two ways. As a rumour it rides on messages that go out anyway, so often that it has reached
everybody with high probability. What cannot wait is announced besides: to all in a small mesh, in a larger
one to a few, and by rumour from there.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgenode.core.gossip import RumourQueue, retransmissions
from edgenode.core.members import Members
from edgenode.core.settings import MembershipSettings
from edgenode.core.signals import Effect, Log, Send
from edgenode.core.types import NOBODY, Dice, MemberState, NodeId
from edgenode.core.wire import Message, Rumour, Sync


class Outbox:
    """Shared by the parts of membership: what they put in goes out in this order."""

    def __init__(self, members: Members, settings: MembershipSettings, dice: Dice) -> None:
        self._members = members
        self._settings = settings
        self._dice = dice
        self._effects: list[Effect] = []
        self._queue = RumourQueue(
            per_message=settings.rumours_per_message, bytes_max=settings.rumour_bytes_max
        )

    def take(self) -> list[Effect]:
        """All that was put in since this was last called."""
        effects, self._effects = self._effects, []
        return effects

    def add(self, effect: Effect) -> None:
        self._effects.append(effect)

    def log(self, kind: str, text: str, *, warning: bool = False) -> None:
        self._effects.append(Log(kind, text, warning))

    def send(self, to: NodeId, message: Message) -> None:
        self._effects.append(Send(to, message, urgent=True))

    def tell(self, to: NodeId, rumours: Iterable[Rumour], *, asks: bool = False) -> None:
        """Say what is believed of these. `asks`: for everything that the other one believes."""
        self.send(to, Sync(not asks, self._members.myself.load, tuple(rumours)))

    # -------------------------------------------------------------------------------------------- news

    def spread(self, rumour: Rumour) -> None:
        """Let this ride on messages from now on, instead of anything earlier about the same member."""
        self._queue.put(rumour)

    @property
    def has_rumours(self) -> bool:
        """Whether there is anything to pass on."""
        return bool(self._queue)

    def hush(self, node: NodeId) -> None:
        """Spread no rumour about this one any more."""
        self._queue.drop(node)

    def rumours_for(self, to: NodeId) -> tuple[Rumour, ...]:
        """What to pass on with the next message; an accusation of the receiver itself goes first
        (Lifeguard's buddy system), so that it can refute in its answer."""
        sends_max = retransmissions(self._members.alive_count, self._settings.gossip_factor)
        rumours = self._queue.take(to, sends_max)
        member = self._members.get(to)
        is_accused = member is not None and member.belief.state in (MemberState.SUSPECT, MemberState.DEAD)
        if member is not None and member.is_told and is_accused:
            return (member.belief, *rumours)
        return rumours

    def announce(self, rumour: Rumour, *also: NodeId) -> None:
        """Tell news without waiting for pings. The accused first."""
        me = self._members.myself.id
        accused = rumour.info.id if rumour.info.id != me else NOBODY
        for node in dict.fromkeys([accused, *also, *self.audience()]):
            if node and node != me:
                self.tell(node, (rumour,))

    def audience(self) -> list[NodeId]:
        """To whom news is told directly: all in a small mesh, else a few."""
        alive = self._members.alive
        if len(alive) <= self._settings.direct_max:
            return list(alive)
        watched = alive.watched()  # to these there is a link
        return self._dice.sample(watched, min(self._settings.fanout, len(watched)))
