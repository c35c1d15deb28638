"""What this node believes of every member, and what the job side may ask about it (`core.view.View`)."""

from __future__ import annotations

from typing import Final, NamedTuple

from edgenode.core.comparison import Leaf
from edgenode.core.gossip import is_alive, is_proven
from edgenode.core.members import NEVER, Member, Members, Shown
from edgenode.core.rendezvous import Ranking
from edgenode.core.settings import MembershipSettings
from edgenode.core.suspicion import size_factor
from edgenode.core.types import (
    FOREVER,
    Dice,
    Instant,
    Load,
    MemberInfo,
    MemberState,
    NodeId,
    Seconds,
)
from edgenode.core.view import Standing
from edgenode.core.wire import Rumour

GRAVES_MAX: Final = 1024
"""Forgotten members of which something is kept; the latest."""
RANKED: Final = frozenset({MemberState.READY, MemberState.SUSPECT})


class Grave(NamedTuple):
    """What stays of a dead member that was forgotten: enough to know it again, and to know better."""

    boot: int
    incarnation: int
    gone: bool
    left: bool
    since: Instant  # of its death

    def is_newer(self, rumour: Rumour) -> bool:
        """Does this speak of something that came after? Else it has been on its way, or kept by somebody who
        forgot later, and would bring the dead back again and again."""
        if rumour.info.boot != self.boot:
            return rumour.info.boot > self.boot
        return rumour.incarnation > self.incarnation and not self.left


class MemberReport(NamedTuple):
    """One line of `GET /v1/nodes`."""

    info: MemberInfo
    incarnation: int
    state: MemberState
    standing: Standing
    load: Load
    silent_s: Seconds | None
    """Since the member's own last message; None if there was none in this life, 0 for this node."""
    dead_in_s: Seconds | None
    """A suspect is dead in this time unless it refutes; None for others."""
    accusers: tuple[NodeId, ...]


class Roster:
    """Everyone known, this node included. All answers are as of the last event.

    A member that was never met and is in nobody's rumours has no entry. Such ids appear as owners and holders
    of jobs: they are `UNKNOWN` until the grace time is over, and `SILENT` from then on. `take_changes` cannot
    name them, so whoever watches one has to ask again.
    """

    def __init__(
        self,
        info: MemberInfo,
        settings: MembershipSettings,
        dice: Dice,
        *,
        expects_peers: bool,
        knows_peers: bool,
    ) -> None:
        self._settings = settings
        self._id = info.id
        self._now: Instant = NEVER
        self._members = Members(info, dice, settings.watched_max, settings.probe_period_s)
        self._graves: dict[NodeId, Grave] = {}
        self._expects_peers = expects_peers
        self._knows_peers = knows_peers
        self._has_met = False
        self._grace_ends: Instant = FOREVER
        self._formation_ends: Instant = FOREVER
        self._touched: set[NodeId] = {info.id}
        self._version = 0
        self._doubted: dict[NodeId, int] = {}  # the life of a member that is known here to be behind
        self._ranking = Ranking({})
        self._weights: dict[NodeId, float] = {}
        self._is_ranking_stale = False

    @property
    def me(self) -> NodeId:
        return self._id

    @property
    def boot(self) -> int:
        return self._members.myself.belief.info.boot

    @property
    def formed(self) -> bool:
        return not self._expects_peers or self._has_met or self._now >= self._formation_ends

    @property
    def is_cut_off(self) -> bool:
        return not self._has_met and (self._knows_peers or len(self._members) > 1)

    @property
    def version(self) -> int:
        return self._version

    def standing(self, node: NodeId) -> Standing:
        member = self._members.get(node)
        grave = self._graves.get(node)
        if member is None and grave is not None:
            return Standing.GONE if grave.gone else Standing.SILENT
        if member is None or not member.met:
            return Standing.UNKNOWN if self._now < self._grace_ends else Standing.SILENT
        if not member.belief.info.stores:
            return Standing.GONE  # by its own word: nothing that it had in memory is so any more
        if is_alive(member.belief) or node == self._id:
            return Standing.LIVING
        if member.belief.state is MemberState.LEFT or is_proven(member.belief):
            return Standing.GONE
        return Standing.SILENT

    def is_living(self, node: NodeId) -> bool:
        return self.standing(node) is Standing.LIVING

    def has_left(self, node: NodeId) -> bool:
        member, grave = self._members.get(node), self._graves.get(node)
        if member is None:
            return grave is not None and grave.left
        return member.belief.state is MemberState.LEFT

    def stores(self, node: NodeId) -> bool:
        member = self._members.get(node)
        return member is None or member.belief.info.stores

    def is_leaving(self, node: NodeId) -> bool:
        member = self._members.get(node)
        return member is not None and member.belief.state is MemberState.LEAVING

    def dead_since(self, node: NodeId) -> Instant | None:
        if self.standing(node) in (Standing.LIVING, Standing.UNKNOWN):
            return None
        member, grave = self._members.get(node), self._graves.get(node)
        if member is None and grave is not None:
            return grave.since
        return self._grace_ends if member is None or not member.met else member.since

    def ranking(self) -> Ranking:
        if self._is_ranking_stale:
            self._is_ranking_stale = False
            weights = {
                node: member.belief.info.weight
                for node, member in self._members.items()
                if self._is_ranked(member)
            }
            if weights != self._weights:
                self._weights = weights
                self._ranking = Ranking(weights)
        return self._ranking

    def members(self) -> list[NodeId]:
        return sorted(self._members)

    def info(self, node: NodeId) -> MemberInfo | None:
        member = self._members.get(node)
        return None if member is None else member.belief.info

    def load(self, node: NodeId) -> Load:
        member = self._members.get(node)
        return Load() if member is None else member.load

    def boot_of(self, node: NodeId) -> int:
        """The latest life of it that was heard of; 0 if none was."""
        member, grave = self._members.get(node), self._graves.get(node)
        if member is not None:
            return member.belief.info.boot
        return 0 if grave is None else grave.boot

    def is_behind(self, node: NodeId) -> bool:
        member = self._members.get(node)
        if member is None:
            return False
        info = member.belief.info
        return info.behind or self._doubted.get(node) == info.boot

    def doubt(self, node: NodeId, boot: int) -> None:
        """From now on this life of a member has no vote here."""
        if node in self._members:
            self._doubted[node] = boot
            self._touch(node)

    @property
    def has_changes(self) -> bool:
        """Whether `take_changes` may have something to tell."""
        return bool(self._touched)

    def take_changes(self) -> frozenset[NodeId]:
        """Whose standing, readiness, rank, boot, vote or goodbye changed since this was last called."""
        changed: set[NodeId] = set()
        for node in self._touched:
            member = self._members.get(node)
            shown = self._show(node)
            if member is None:
                changed.add(node)  # forgotten
            elif shown != member.shown:
                member.shown = shown
                changed.add(node)
        self._touched.clear()
        return frozenset(changed)

    def snapshot(self) -> list[MemberReport]:
        """Everyone known, by id."""
        return [self._report(self._members[node]) for node in sorted(self._members)]

    def beliefs(self) -> list[Leaf]:
        """The living, as views are compared."""
        return self._members.beliefs()

    # ------------------------------------------------------------------------------ for the protocol

    def _dig_grave(self, member: Member) -> None:
        """Keep what matters of a dead member that is about to be forgotten."""
        belief = member.belief
        node = belief.info.id
        since = self.dead_since(node)
        assert since is not None, "the living are not forgotten"
        grave = Grave(
            belief.info.boot,
            belief.incarnation,
            gone=self.standing(node) is Standing.GONE,
            left=belief.state is MemberState.LEFT,
            since=since,
        )
        self._graves.pop(node, None)
        if len(self._graves) >= GRAVES_MAX:
            del self._graves[next(iter(self._graves))]
        self._graves[node] = grave

    def _touch(self, node: NodeId) -> None:
        self._touched.add(node)
        self._version += 1
        self._is_ranking_stale = True

    def _is_ranked(self, member: Member) -> bool:
        info = member.belief.info
        has_vote = not self.is_behind(info.id)
        return member.met and info.ready and has_vote and info.weight > 0 and member.belief.state in RANKED

    def _show(self, node: NodeId) -> Shown:
        member = self._members.get(node)
        if member is None:
            return Shown(self.standing(node), False, 0.0, 0, False, self.has_left(node))
        info = member.belief.info
        behind = self.is_behind(node)
        weight, left = info.weight if self._is_ranked(member) else 0.0, self.has_left(node)
        return Shown(self.standing(node), info.ready, weight, info.boot, behind, left)

    def _suspicion_s(self, member: Member) -> Seconds:
        """The shortest time that this member has to refute a suspicion."""
        settings = self._settings
        patience = member.patience.factor(
            self._now, maximum=settings.patience_max, forget_s=settings.patience_forget_s
        )
        return settings.suspicion_s * size_factor(self._members.alive_count) * patience

    def _confirmations_max(self) -> int:
        """How many could agree with the first accuser of a member."""
        return max(0, min(self._settings.confirmations, self._members.alive_count - 2))

    def _suspicion_ends(self, member: Member) -> Instant:
        """When this suspect is dead; FOREVER if it is no suspect."""
        if member.suspicion is None:
            return FOREVER
        settings = self._settings
        minimum_s = self._suspicion_s(member)
        return member.suspicion.ends_at(
            heard_at=member.heard_at,
            confirmations_max=self._confirmations_max(),
            minimum_s=minimum_s,
            maximum_s=minimum_s * settings.suspicion_max_factor,
        )

    def _report(self, member: Member) -> MemberReport:
        rumour = member.belief
        standing = self.standing(rumour.info.id)
        state = rumour.state
        if not member.met:  # what it was before our start says nothing of now
            state = MemberState.JOINING if standing is Standing.UNKNOWN else MemberState.DEAD
        silent_s = None if member.heard_at == NEVER else self._now - member.heard_at
        suspicion = member.suspicion
        return MemberReport(
            info=rumour.info,
            incarnation=max(0, rumour.incarnation),
            state=state,
            standing=standing,
            load=member.load,
            silent_s=0.0 if member is self._members.myself else silent_s,
            dead_in_s=None if suspicion is None else max(0.0, self._suspicion_ends(member) - self._now),
            accusers=() if suspicion is None else tuple(sorted(suspicion.accusers)),
        )
