"""One disk's word on idempotency keys: which use it has accepted of each, and under which ballot.

The acceptor of a Paxos among all members (`core/keys.py` is its proposer). What was said since the last write
is in memory, and leaves it when its row is durable: the disk remembers every key, memory only those in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edgenode.core.signals import Archive, ClaimRow
from edgenode.core.types import NO_BALLOT, NO_USE, Ballot, JobId, KeyUse, Wall

CLAIMS_MAX: Final = 1_000_000
"""Keys one disk remembers: some 200 MB. Above it new ones are refused; to forget one runs its job twice."""


class ClaimBook:
    """Ask it, tell it, and write down what `take` gives before anything that was said leaves."""

    def __init__(self, archive: Archive, claims_max: int = CLAIMS_MAX) -> None:
        self._archive = archive
        self._claims_max = claims_max
        self._count = archive.claim_count()
        self._rows: dict[JobId, ClaimRow] = {}
        self._dirty: dict[JobId, None] = {}
        self._leaving: dict[JobId, int] = {}  # with the number of their latest Persist, in its order
        self._forget_before: Wall = 0.0

    def get_many(self, jobs: Sequence[JobId]) -> dict[JobId, ClaimRow]:
        """The claims that exist here; one trip to the archive for all that are not in memory."""
        found = {job: self._rows[job] for job in jobs if job in self._rows}
        missing = [job for job in jobs if job not in found]
        return found | self._archive.claims(missing) if missing else found

    @property
    def is_full(self) -> bool:
        return self._count >= self._claims_max

    def hear(
        self,
        known: ClaimRow | None,
        job: JobId,
        ballot: Ballot,
        use: KeyUse,
        expires_at: Wall,
    ) -> ClaimRow:
        """The state after a question, changed if the question entitles to that (Paxos phases 1b and 2b).

        Under `NO_BALLOT` only who comes first is accepted, as in a fast round of Fast Paxos; under another
        ballot whoever comes last, unless a higher one was promised. With `NO_USE` it is a promise only; under
        `NO_BALLOT` it is just a question.
        """
        before = ClaimRow(job, NO_BALLOT, NO_BALLOT, NO_USE, 0.0) if known is None else known
        is_new = known is None
        is_vain = ballot == NO_BALLOT and (before.use.holders or not use.holders)
        if ballot < before.promised or is_vain or (is_new and self.is_full):
            return before
        expires_at = max(before.expires_at, expires_at)
        after = before._replace(promised=ballot, expires_at=expires_at)
        if use.holders:
            after = after._replace(accepted=ballot, use=use)
        if after != before:
            self._count += is_new
            self._rows[job] = after
            self._dirty[job] = None
            self._leaving.pop(job, None)
        return after

    def expire(self, before: Wall) -> None:
        """Delete what expired before that day, with the next write. Counts anew what is there now."""
        self._forget_before = before
        self._count = self._archive.claim_count() + len(self._dirty)

    def forget(self) -> None:
        """Memory is ahead of the disk for ever: from now on only the archive counts."""
        for place in (self._rows, self._dirty, self._leaving):
            place.clear()
        self._forget_before = 0.0
        self._count = self._archive.claim_count()

    def take(self, number: int) -> tuple[tuple[ClaimRow, ...], Wall]:
        """What `Persist` number `number` is to write, and which claims it is to delete."""
        rows = tuple(self._rows[job] for job in self._dirty)
        self._leaving.update(dict.fromkeys(self._dirty, number))
        self._dirty.clear()
        forget, self._forget_before = self._forget_before, 0.0
        return rows, forget

    def __bool__(self) -> bool:
        """Whether there is something to write."""
        return bool(self._dirty) or self._forget_before > 0

    def persisted(self, number: int) -> None:
        """All up to this Persist is durable, and in the archive."""
        gone: list[JobId] = []
        for job, saved in self._leaving.items():
            if saved > number:
                break
            gone.append(job)
        for job in gone:
            del self._leaving[job]
            if job not in self._dirty:
                del self._rows[job]
