"""How a node leaves: it gives every job that it owns to another holder, and says goodbye when nothing is left
that somebody could take."""

from __future__ import annotations

from typing import Final

from edgenode.core.desk import Desk
from edgenode.core.giving import Giving
from edgenode.core.replication import Replication
from edgenode.core.types import FOREVER, Instant, Seconds
from edgenode.core.upkeep import Upkeep

VOTES_COUNTED_S: Final[Seconds] = 0.1
"""How often it is counted whose decisions still need this node's vote: that is a walk over all its copies."""


class Leaving:
    """Made when the node is asked to leave. Drive it as its `giving`; `verdict` says when it may go."""

    def __init__(self, desk: Desk, giving: Giving, replication: Replication, upkeep: Upkeep) -> None:
        self._desk = desk
        self.giving = giving
        self._replication, self._upkeep = replication, upkeep
        self._ends: Instant = desk.now + desk.settings.drain_s + desk.settings.give_s
        self._count_at: Instant = desk.now
        self._needed = 0
        upkeep.part()

    def deadline(self) -> Instant:
        soonest = self.giving.deadline()
        if self._needed:
            soonest = min(soonest, self._count_at)
        return min(soonest, self._ends if self._ends > self._desk.now else FOREVER)

    def verdict(self, *, is_asked: bool = False) -> bool | None:
        """Give on; then whether the node may go with everything handed over (True), has to go without that
        (False), or is to wait (None).

        Args:
            is_asked: somebody waits for an answer that only this node gives.
        """
        desk = self._desk
        self.giving.on_time()
        unspread = self._replication.unspread or not self._upkeep.parted
        unfinished = not self.giving.idle or unspread or self._replication.awaits_word
        # Who stays can do without this node's vote as soon as the holders have decided so.
        self._needed = 0 if unfinished else self._needed_votes()
        is_needed = self._needed > 0 and bool(desk.view.ranking().members - {desk.me})
        if desk.now < self._ends and (unfinished or is_needed or is_asked):
            return None
        return not (unfinished or self.giving.stranded or self._upkeep.stranded or self._needed)

    def _needed_votes(self) -> int:
        """Of unsettled jobs, how many cannot be settled without this node: as counted last, not long ago."""
        if self._needed and self._desk.now < self._count_at:
            return self._needed
        self._count_at = self._desk.now + VOTES_COUNTED_S
        return self._upkeep.needed_votes()
