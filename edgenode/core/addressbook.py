"""Where each member listens: as the shell is told it, and as the disk keeps it for the next start."""

from __future__ import annotations

from edgenode.core.gossip import memory_of
from edgenode.core.members import BOOT_ONLY, Member, Members
from edgenode.core.signals import Address, Peers, Remember
from edgenode.core.types import FOREVER, Instant, MemberState, NodeId, Seconds


class AddressBook:
    """Enter what changed. The shell is told after every event, the disk once a while and only of changes."""

    def __init__(self, remember_period_s: Seconds) -> None:
        self._period_s = remember_period_s
        self._changed: dict[NodeId, Address] = {}  # since the shell was last told
        self._remembered: frozenset[tuple[NodeId, int, tuple[tuple[str, int], ...]]] = frozenset()
        self._remember_at: Instant = FOREVER
        self._is_dirty = False

    def begin(self, now: Instant) -> None:
        """There is a disk to write to, from now on."""
        self._remember_at = now

    def enter(self, member: Member, *, keep: bool = True) -> None:
        """It listens there now. `keep`: call it; else its links may go."""
        info = member.belief.info
        self._changed[info.id] = Address(info.id, info.boot, member.addresses, keep)
        self._is_dirty = True

    def take_changes(self) -> Peers | None:
        """What the shell has to know before it sends anything; None if nothing changed."""
        if not self._changed:
            return None
        changed, self._changed = self._changed, {}
        return Peers(tuple(changed[node] for node in sorted(changed)))

    def deadline(self) -> Instant:
        return self._remember_at if self._is_dirty else FOREVER

    def remember(self, members: Members, now: Instant) -> Remember | None:
        """What the disk is to keep instead of what it has; None if that is the same. Call it when it is due.

        Those who are dead too: they may have lost their power together with this node.
        """
        self._is_dirty = False
        self._remember_at = now + self._period_s
        kept = [
            member
            for _, member in sorted(members.items())
            if member is not members.myself
            and member.belief.state is not MemberState.LEFT
            and member.belief.incarnation > BOOT_ONLY
        ]
        gist = frozenset((member.id, member.belief.info.boot, member.addresses) for member in kept)
        if gist == self._remembered:
            return None
        self._remembered = gist
        return Remember(tuple(memory_of(member.belief, member.addresses) for member in kept))
