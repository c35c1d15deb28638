"""Who waits for which job to end, as the node that will know it first remembers."""

from __future__ import annotations

from collections.abc import Iterable

from edgenode.core.agenda import Agenda
from edgenode.core.types import Instant, JobId, NodeId, Seconds

Follower = tuple[NodeId, int]
"""A node, and the number of a request of its client."""


class Followers:
    """A client that waits asks again and again, since messages get lost. So who has not asked for a while
    waits no longer, and is forgotten when the next one asks: a job that runs for a week is read by many."""

    def __init__(self, patience_s: Seconds) -> None:
        """
        Args:
            patience_s: some times as long as a waiting reader takes to ask again.
        """
        self._patience_s = patience_s
        self._by_job: dict[JobId, dict[Follower, None]] = {}
        self._jobs: dict[Follower, dict[JobId, None]] = {}
        self._ends: Agenda[Follower] = Agenda()

    def note(self, job: JobId, follower: Follower, now: Instant) -> None:
        """It asked for this job just now, and wants to hear of its end."""
        for silent in self._ends.take_due(now):
            self.drop(silent)
        self._by_job.setdefault(job, {})[follower] = None
        self._jobs.setdefault(follower, {})[job] = None
        self._ends.set(follower, now + self._patience_s)

    def take(self, job: JobId) -> list[Follower]:
        """Whom to tell that it has ended. That is done once."""
        told = list(self._by_job.pop(job, ()))
        for follower in told:
            del self._jobs[follower][job]
            if not self._jobs[follower]:
                self.drop(follower)
        return told

    def drop(self, follower: Follower) -> None:
        """It wants to hear of nothing any more."""
        self._ends.drop(follower)
        for job in self._jobs.pop(follower, ()):
            del self._by_job[job][follower]
            if not self._by_job[job]:
                del self._by_job[job]

    def drop_nodes(self, nodes: Iterable[NodeId]) -> None:
        """All readers at these."""
        gone = frozenset(nodes)
        for follower in [each for each in self._jobs if each[0] in gone]:
            self.drop(follower)

    def keep_only(self, node: NodeId) -> None:
        """The readers at one node."""
        self.drop_nodes({each[0] for each in self._jobs} - {node})

    def __contains__(self, job: JobId) -> bool:
        return job in self._by_job

    def __len__(self) -> int:
        """How many wait, each for one job or more."""
        return len(self._jobs)
