"""What this node says of itself, and what it answers to those who say something else.

Nobody but itself raises its incarnation: with each new word, and above whatever others hold against it. So
its latest word beats all that was said before (SWIM section 4.2).
"""

from __future__ import annotations

from edgenode.core.gossip import is_alive
from edgenode.core.members import Members
from edgenode.core.outbox import Outbox
from edgenode.core.suspicion import LocalHealth
from edgenode.core.types import Instant, MemberInfo, MemberState, NodeId
from edgenode.core.wire import Rumour


class OwnWord:
    """Drive it with changes of this node, and with rumours about it; it answers through the outbox."""

    def __init__(self, members: Members, outbox: Outbox, health: LocalHealth) -> None:
        self._myself = members.myself
        self._outbox = outbox
        self._health = health
        self._rivals: dict[int, bool] = {}  # other lives of this identity, and whether they are said to live

    def say(self, state: MemberState, info: MemberInfo, now: Instant) -> None:
        """Change what this node says of itself."""
        mine = self._myself.belief
        self._myself.belief = mine._replace(state=state, info=info)
        if info.stores != mine.info.stores:
            self._myself.since = now
        self._raise_incarnation(mine.incarnation)
        self._outbox.announce(self._myself.belief)

    def hear(self, rumour: Rumour, source: NodeId) -> None:
        """Refute what is wrong in this rumour about us."""
        mine = self._myself.belief
        if rumour.info.boot > mine.info.boot:
            self._rivals[rumour.info.boot] = is_alive(rumour)
            return
        if rumour.info.boot < mine.info.boot:
            # What peers hold of an earlier life: begin above it, and the order needs no exception.
            if rumour.incarnation >= mine.incarnation:
                self._raise_incarnation(rumour.incarnation)
                self._outbox.announce(self._myself.belief)
            return
        if rumour.state is MemberState.LEFT:
            return  # said by this process: it handles nothing any more
        is_accusation = rumour.state in (MemberState.SUSPECT, MemberState.DEAD)
        if rumour.incarnation > mine.incarnation or (
            is_accusation and rumour.incarnation == mine.incarnation
        ):
            if is_accusation:
                self._health.worse()
                text = f"refuted that this node is {rumour.state}, says {rumour.accuser}"
                self._outbox.log("refuted", text)
            self._raise_incarnation(rumour.incarnation)
            self._outbox.announce(self._myself.belief, source)
        elif is_accusation:
            self.repeat(source)  # refuted already, but that has not reached everybody

    def repeat(self, to: NodeId) -> None:
        """Say it once more to somebody who seems not to know."""
        self._outbox.tell(to, (self._myself.belief,))

    def meet(self, boot: int) -> None:
        """There is a link to another process under this identity."""
        self._rivals[boot] = True

    def take_rivals(self) -> dict[int, bool]:
        """Later lives of this identity that were met or heard of since this was last called, and whether
        they live."""
        rivals, self._rivals = self._rivals, {}
        return rivals

    def _raise_incarnation(self, above: int) -> None:
        mine = self._myself.belief
        self._myself.belief = mine._replace(incarnation=max(mine.incarnation, above) + 1)
        self._outbox.spread(self._myself.belief)
