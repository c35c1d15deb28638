"""How a node gives away what it owns: because it leaves, or because it drains and stays.

Each owned job is looked at once, and again whenever something changed for it or members change; a batch at a
time, since a node may own very many. Those that others are to take are looked at every `retry_s` too. What
runs here is given away when it does not run here any more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice
from typing import Final

from edgenode.core.custody import Custody
from edgenode.core.desk import Desk
from edgenode.core.runner import Runner
from edgenode.core.scheduler import Scheduler
from edgenode.core.situations import Situation
from edgenode.core.types import FOREVER, Drain, Instant, JobId, Seconds
from edgenode.core.voters import Voters

BREATH_S: Final[Seconds] = 0.001


class Giving:
    """Drive it with news of ownership, membership changes, and after every event."""

    def __init__(
        self,
        desk: Desk,
        custody: Custody,
        runner: Runner,
        scheduler: Scheduler,
        voters: Voters,
        *,
        patience_s: Seconds,
    ) -> None:
        """
        Args:
            patience_s: how long what runs here may go on; then it is stopped.
        """
        self._desk = desk
        self._custody, self._voters = custody, voters
        self._runner, self._scheduler = runner, scheduler
        self._leads = desk.table.leads
        self._due: dict[JobId, None] = dict.fromkeys(self._leads)
        self._waiting: dict[JobId, None] = {}  # others are to take these
        self.stranded: set[JobId] = set()
        """Owned here, and nobody can take them."""
        self._round_at: Instant = desk.now + desk.settings.retry_s
        self._patience_ends: Instant = desk.now + patience_s

    @property
    def idle(self) -> bool:
        """Nothing runs here, all results are with their owners, and what others can take is theirs."""
        return not (self._due or self._waiting) and self._runner.idle

    def look_at(self, jobs: Iterable[JobId]) -> None:
        """Something happened to these, or they are this node's since just now."""
        self._due.update((job, None) for job in jobs if job in self._leads)

    def release(self, jobs: Iterable[JobId]) -> None:
        """Owned no longer: somebody took them, or they are settled."""
        for job in jobs:
            if job not in self._leads:
                self._due.pop(job, None)
                self._waiting.pop(job, None)
                self.stranded.discard(job)

    def members_changed(self) -> None:
        """Another heir may be there, or the one that was waited for is gone."""
        self._due.update(dict.fromkeys(self._leads))

    def deadline(self) -> Instant:
        if self._due:
            return self._desk.now + BREATH_S
        return min(self._round_at if self._restless else FOREVER, self._patience_ends)

    @property
    def _restless(self) -> Collection[JobId]:
        """What is looked at again though nothing has changed: gifts, since they can be lost. Who leaves does
        that only so long, and tries all: a holder that stays dead may give up its place meanwhile. Who is
        drained may own very many that nobody can take, for ever."""
        return self._leads if self._desk.leaving else self._waiting

    def on_time(self) -> None:
        """Give on."""
        desk = self._desk
        if self._patience_ends <= desk.now:
            self._patience_ends = FOREVER
            self._scheduler.withdraw("the node is drained")
        if self._round_at <= desk.now:
            self._round_at = desk.now + desk.settings.retry_s
            self._due.update(dict.fromkeys(self._restless))
        jobs = list(islice(self._due, desk.settings.batch))
        desk.table.fetch(jobs)
        for job in jobs:
            self._give(job)

    def _give(self, job: JobId) -> None:
        """Have another holder, or another node, take this job."""
        del self._due[job]
        if job in self._runner or self._custody.give_away(job) or self._voters.give_away(job):
            self._waiting[job] = None
            self.stranded.discard(job)
        else:
            self.stranded.add(job)
            self._waiting.pop(job, None)


class Draining:
    """A node that was asked to run and to own nothing. Made when it is; gone when it is asked otherwise."""

    def __init__(self, desk: Desk, giving: Giving) -> None:
        self._desk = desk
        self.giving = giving
        self.state = Drain.DRAINING

    def on_time(self) -> None:
        """Give on, and see whether it is done. What comes later is given away too, and changes nothing."""
        self.giving.on_time()
        if self.giving.stranded:
            self._desk.reach(Situation.DRAINED_OWNER_STAYS)
        if self.giving.idle and self.state is Drain.DRAINING:
            self.state = Drain.DRAINED
            self._desk.reach(Situation.DRAINED)
            stay = len(self.giving.stranded)
            rest = f"; {stay} jobs stay, since no other node can take them" if stay else ""
            self._desk.log("drained", f"nothing runs here any more{rest}")
