"""How a node leaves: it gives every job that it owns to another holder, and says goodbye when nothing is left
that somebody could take.

Each owned job is looked at once, and again whenever something changed for it, when members change, and every
`retry_s`: a gift can be lost, and a batch at a time, since a node may own very many.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from edgenode.core.custody import Custody
from edgenode.core.desk import Desk
from edgenode.core.replication import Replication
from edgenode.core.runner import Runner
from edgenode.core.types import FOREVER, Instant, JobId, Seconds
from edgenode.core.upkeep import Upkeep
from edgenode.core.voters import Voters

BREATH_S: Final[Seconds] = 0.001
VOTES_COUNTED_S: Final[Seconds] = 0.1
"""How often it is counted whose decisions still need this node's vote: that is a walk over all its copies."""


class Leaving:
    """Made when the node is asked to leave. Drive it with news of ownership, membership changes, and after
    every event; `verdict` says when it may go."""

    def __init__(
        self,
        desk: Desk,
        custody: Custody,
        replication: Replication,
        runner: Runner,
        upkeep: Upkeep,
        voters: Voters,
    ) -> None:
        self._desk = desk
        self._custody, self._replication = custody, replication
        self._runner, self._upkeep, self._voters = runner, upkeep, voters
        self._leads = desk.table.leads
        self._due: dict[JobId, None] = dict.fromkeys(self._leads)
        self._waiting: set[JobId] = set()  # others are to take these
        self._stranded: set[JobId] = set()  # nobody can
        self._round_at: Instant = desk.now + desk.settings.retry_s
        self._patience_ends: Instant = desk.now + desk.settings.drain_s  # for what runs
        self._ends: Instant = self._patience_ends + desk.settings.give_s
        self._count_at: Instant = desk.now
        self._needed = 0
        upkeep.part()

    def look_at(self, jobs: Iterable[JobId]) -> None:
        """Something happened to these, or they are this node's since just now."""
        self._due.update((job, None) for job in jobs if job in self._leads)

    def release(self, jobs: Iterable[JobId]) -> None:
        """Owned no longer: somebody took them, or they are settled."""
        for job in jobs:
            if job not in self._leads:
                self._due.pop(job, None)
                self._waiting.discard(job)
                self._stranded.discard(job)

    def members_changed(self) -> None:
        """Another heir may be there, or the one that was waited for is gone."""
        self._begin_round()

    def _begin_round(self) -> None:
        self._round_at = self._desk.now + self._desk.settings.retry_s
        self._due.update(dict.fromkeys(self._leads))

    def deadline(self) -> Instant:
        if self._due:
            return self._desk.now + BREATH_S
        soonest = self._round_at if self._leads else FOREVER
        if self._needed:
            soonest = min(soonest, self._count_at)
        return min(soonest, *(at for at in (self._patience_ends, self._ends) if at > self._desk.now), FOREVER)

    def verdict(self) -> bool | None:
        """Give on; then whether the node may go with everything handed over (True), has to go without that
        (False), or is to wait (None)."""
        desk = self._desk
        if self._round_at <= desk.now:
            self._begin_round()
        for job in list(islice(self._due, desk.settings.batch)):
            self._give(job)
        unspread = self._replication.unspread or not self._upkeep.parted
        unfinished = bool(self._due or self._waiting or not self._runner.idle or unspread)
        # Who stays can do without this node's vote as soon as the holders have decided so.
        self._needed = 0 if unfinished else self._needed_votes()
        is_needed = self._needed > 0 and bool(desk.view.ranking().members - {desk.me})
        if desk.now < self._ends and (unfinished or is_needed):
            return None
        return not (unfinished or self._stranded or self._upkeep.stranded or self._needed)

    def _give(self, job: JobId) -> None:
        """Have another holder, or another node, take this job."""
        del self._due[job]
        is_busy = self._desk.now < self._patience_ends and job in self._runner
        if is_busy or self._custody.give_away(job) or self._voters.give_away(job):
            self._waiting.add(job)
            self._stranded.discard(job)
        else:
            self._stranded.add(job)
            self._waiting.discard(job)

    def _needed_votes(self) -> int:
        """Of unsettled jobs, how many cannot be settled without this node: as counted last, not long ago."""
        if self._needed and self._desk.now < self._count_at:
            return self._needed
        self._count_at = self._desk.now + VOTES_COUNTED_S
        return self._upkeep.needed_votes()
