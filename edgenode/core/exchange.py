"""What two members say to each other so that their views become the same.

    whole views   when two meet that did not know each other, or one was dead to the other: each tells all
                  that it believes, and its own side what was new in the other's
    challenge     to one that seems dead: if it hears what is said of it, it refutes, and views meet
    comparison    now and then, with somebody alive: digests first (`core.comparison`), then what differs

When that is done, and with whom, `core.membership` decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from edgenode.core.comparison import differences, disclosures, others_in, root_of
from edgenode.core.gossip import frames_of, precedence
from edgenode.core.members import BOOT_ONLY, Member, Members
from edgenode.core.outbox import Outbox
from edgenode.core.settings import MembershipSettings
from edgenode.core.types import Dice, NodeId
from edgenode.core.wire import Branch, Compare, Disclose, Place, Rumour


class Exchange:
    """Ask it to say something; it does so through the outbox, and remembers nothing."""

    def __init__(self, members: Members, outbox: Outbox, settings: MembershipSettings, dice: Dice) -> None:
        self._members = members
        self._outbox = outbox
        self._settings = settings
        self._dice = dice

    # ----------------------------------------------------------------------------------- whole views

    def send_view(self, to: NodeId, *, asks: bool) -> None:
        """Everything we believe, in frames that no ping has to wait for. The last of them asks for an answer.

        We come first, then what the receiver has to refute: it should know both before the rest.
        """
        myself, target = self._members.myself, self._members.get(to)
        first = [myself] if target is None else [myself, target]
        others = [member for _, member in sorted(self._members.items()) if member not in first]
        frames = frames_of(member.belief for member in (*first, *others) if member.is_told)
        for index, frame in enumerate(frames):
            self._outbox.tell(to, frame, asks=asks and index == len(frames) - 1)

    def spread_view(self, source: NodeId, heard: Iterable[Rumour], before: list[NodeId]) -> None:
        """Two views have met: tell our side directly whom the other one has (as weaveworks/mesh forwards
        what a merge finds new). Rumours alone would leave gaps until the next comparison.

        Args:
            heard: the view of `source`, which is believed by now as far as it may be.
            before: who lived here before that.
        """
        alive, told = self._members.alive, set(before)
        news = [
            self._members[node].belief
            for node in dict.fromkeys(rumour.info.id for rumour in heard)
            if node in alive and node not in told
        ]
        frames = frames_of(news) if news else []
        audience = [node for node in before if node != source and node in alive]
        if len(audience) > self._settings.direct_max:
            audience = self._dice.sample(audience, self._settings.fanout)
        for node in audience:
            for frame in frames:
                self._outbox.tell(node, frame)

    def challenge(self, member: Member) -> None:
        """Tell one that seems dead what is said of it: if it hears us, it refutes, and views meet."""
        accusation = (member.belief,) if member.met and member.belief.incarnation > BOOT_ONLY else ()
        self._outbox.tell(member.id, (self._members.myself.belief, *accusation), asks=True)

    # ------------------------------------------------------------------------------------ comparison

    def compare_with(self, peer: NodeId) -> None:
        """Begin at the root."""
        self._outbox.send(peer, Compare((root_of(self._members.beliefs()),)))

    def answer(self, source: NodeId, message: Compare | Disclose) -> None:
        """Say what differs here. What was disclosed is believed by now, as far as it may be."""
        match message:
            case Compare(branches):
                self._answer_digests(source, branches)
            case Disclose(places, rumours):
                self._answer_beliefs(source, places, rumours)
            case _:
                assert_never(message)

    def _answer_digests(self, source: NodeId, branches: tuple[Branch, ...]) -> None:
        leaves = self._members.beliefs()
        found = differences(leaves, branches, self._dice)
        if found.deeper:
            self._outbox.send(source, Compare(tuple(found.deeper)))
        for places, beliefs in disclosures(leaves, found.few):
            self._outbox.send(source, Disclose(places, beliefs))

    def _answer_beliefs(self, source: NodeId, places: tuple[Place, ...], heard: tuple[Rumour, ...]) -> None:
        """Tell of others in these places, and what is known better: deaths and goodbyes too."""
        better = [
            member.belief
            for rumour in heard
            if (member := self._members.get(rumour.info.id)) is not None
            and member.is_told
            and precedence(member.belief) > precedence(rumour)
        ]
        news = dict.fromkeys([*others_in(self._members.beliefs(), places, heard), *better])
        if news:
            for frame in frames_of(news):
                # Whoever knows better still says so, and so on: each answer beats the one before.
                self._outbox.send(source, Disclose((), frame))
