"""Which copies here are to be compared with the node that is responsible for their job, and how far that is.

An unsettled job of which no owner knows would wait for ever, so each of them is looked at, and again whenever
something changed that may matter:

    due        to be looked at, as soon as there is room
    later      the same, after a pause
    unoffered  the same, when its responsible may be told of the copy here: that many can be in `retry_s`
    offered    its responsible was told, and has not said "taken"
    confirmed  its responsible has what is here

A job may be in several of these. What was confirmed becomes due again: when a member changes, and in turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from edgenode.core.agenda import Agenda
from edgenode.core.types import Instant, JobId, NodeId


@dataclass(slots=True)
class Checks:
    """Ballots and custody both say here what they did. Only custody looks at what is due."""

    due: dict[JobId, None] = field(default_factory=dict)  # most urgent first
    later: Agenda[JobId] = field(default_factory=Agenda)
    unoffered: dict[JobId, None] = field(default_factory=dict)  # in turn
    offered: dict[JobId, NodeId] = field(default_factory=dict)
    confirmed: dict[JobId, NodeId] = field(default_factory=dict)

    def look_at(self, jobs: Iterable[JobId]) -> None:
        """Who is responsible for these may have changed, or may not have what is here."""
        self.due.update(dict.fromkeys(jobs))

    def look_again(self, job: JobId) -> None:
        """This node had to give it up: to be looked at now, unless that is to wait already."""
        if job not in self.later:
            self.due[job] = None

    def asked_for(self, job: JobId) -> None:
        """This node asks for it."""
        self.later.drop(job)
        self.due.pop(job, None)

    def promised(self, job: JobId, patience_ends: Instant) -> None:
        """This disk promised it to another node, which gets the copy here with the promise and has until then
        to act."""
        self.later.set(job, patience_ends)
        self.due.pop(job, None)
        self.unoffered.pop(job, None)

    def owned(self, job: JobId) -> None:
        """This node is its owner: nobody else needs to have what is here."""
        self.offered.pop(job, None)
        self.confirmed.pop(job, None)

    def written(self, job: JobId) -> None:
        """Its owner wrote it here, and knows all that the copy here says."""
        self.due.pop(job, None)
        self.unoffered.pop(job, None)
        self.offered.pop(job, None)
        self.later.drop(job)

    def forget(self, job: JobId) -> None:
        """It is settled, or gone from here."""
        self.written(job)
        self.confirmed.pop(job, None)
