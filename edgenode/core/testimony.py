"""Proof of a death: members that saw a process end, because its links were reset and its port refuses.

One witness is no proof, since a firewall's reset looks the same. Two are, or all that are left to see it.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgenode.core.gossip import is_proven
from edgenode.core.members import Member, Members
from edgenode.core.settings import MembershipSettings
from edgenode.core.types import Instant, MemberState, NodeId, Seconds


class Testimony:
    """Give it what witnesses say; ask `proven` whose deaths follow from that."""

    def __init__(self, members: Members, settings: MembershipSettings) -> None:
        self._members = members
        self._me = members.myself.id
        # Two lies an hour apart are no proof, so testimony is worth something for a while only.
        self._valid_s: Seconds = settings.suspicion_s * settings.suspicion_max_factor
        self._accused: set[NodeId] = set()  # of whose end there are witnesses

    def take(self, member: Member, witness: NodeId, incarnation: int, now: Instant) -> bool:
        """Somebody saw the process end that runs under the present boot number. Is that worth anything?"""
        if _is_over(member) or incarnation < member.cleared:
            return False
        member.witnesses[witness] = now
        self._accused.add(member.id)
        return True

    def take_back(self, member: Member) -> None:
        """What this node itself saw was not the end."""
        member.witnesses.pop(self._me, None)

    def dismiss(self, member: Member) -> None:
        """What was said of this one counts no more."""
        member.witnesses.clear()
        self._accused.discard(member.id)

    def proven(self, now: Instant) -> Iterator[Member]:
        """Whose end enough members saw. One by one: each death leaves fewer observers for the others."""
        is_changed = True
        while is_changed:
            is_changed = False
            for node in sorted(self._accused):
                member = self._members[node]
                if _is_over(member):
                    self._accused.discard(node)  # on other evidence
                    continue
                witnesses = len(self._fresh_witnesses(member, now))
                if 0 < witnesses >= min(2, self._observers(node, now)):
                    self._accused.discard(node)
                    yield member
                    is_changed = True

    def _fresh_witnesses(self, member: Member, now: Instant) -> set[NodeId]:
        return {witness for witness, seen in member.witnesses.items() if now - seen <= self._valid_s}

    def _observers(self, node: NodeId, now: Instant) -> int:
        """How many could testify about `node`: this one, and all living ones whose end we did not see too."""
        also_seen = {
            other for other in self._accused if self._me in self._fresh_witnesses(self._members[other], now)
        }
        also_seen.add(node)
        return 1 + sum(1 for other in self._members.alive if other not in also_seen)


def _is_over(member: Member) -> bool:
    return member.belief.state is MemberState.LEFT or is_proven(member.belief)
