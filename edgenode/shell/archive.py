"""The store's read side, for the core."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Final

from edgenode.core.signals import ClaimRow, Row
from edgenode.core.types import JobId, Wall
from edgenode.core.wire import Said
from edgenode.shell.claim_table import count_claims, read_claims
from edgenode.shell.job_table import HEALTH, healthy
from edgenode.shell.report_table import read_reports
from edgenode.shell.store_file import is_damage

READ_CHUNK: Final = 256


class StoreArchive:
    """`signals.Archive` on a connection of its own. Damage is reported, never raised or handed out."""

    def __init__(
        self, database: sqlite3.Connection, report: Callable[[object, str], None], damaged: Set[JobId]
    ) -> None:
        self._database = database
        self._report = report
        self.damaged = damaged

    def get(self, jobs: Sequence[JobId]) -> dict[JobId, Row]:
        """The healthy rows among these jobs."""
        found: dict[JobId, Row] = {}
        for start in range(0, len(jobs), READ_CHUNK):
            chunk = jobs[start : start + READ_CHUNK]
            try:
                self._read(chunk, found)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self._read_singly(chunk, found)
        return found

    def _read(self, jobs: Sequence[JobId], found: dict[JobId, Row]) -> None:
        # Padded to a power of two, so that the prepared statements are few.
        count = 1 << (len(jobs) - 1).bit_length()
        asked = [*jobs, *[jobs[-1]] * (count - len(jobs))]
        marks = ",".join("?" * count)
        sql = f"SELECT {HEALTH} FROM jobs WHERE id IN ({marks})"
        for fields in self._database.execute(sql, asked):
            row = healthy(fields)
            if row is None:
                self._report(fields[0], "its checksum is wrong")
            else:
                found[row.id] = row

    def _read_singly(self, jobs: Iterable[JobId], found: dict[JobId, Row]) -> None:
        """One broken page must not hide the rows on the others."""
        for job in jobs:
            try:
                self._read([job], found)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self._report(job, str(error))
                self._report(None, str(error))  # more than this row may be wrong

    def scan(self, after: JobId, limit: int) -> list[Row]:
        """Healthy rows in id order, strictly after `after`; fewer than `limit` only at the end."""
        rows: list[Row] = []
        cursor: bytes = after
        while len(rows) < limit:
            wanted = limit - len(rows)
            try:
                # From the index alone, which stands when pages of the table are broken.
                found = self._database.execute(
                    "SELECT id FROM jobs WHERE id > ? ORDER BY id LIMIT ?", (cursor, wanted)
                ).fetchall()
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self._report(None, str(error))
                return rows
            jobs = [JobId(job) for (job,) in found]
            found_rows = self.get(jobs)
            rows += [found_rows[job] for job in jobs if job in found_rows]
            if len(jobs) < wanted:
                return rows
            cursor = jobs[-1]
        return rows

    def due(self, until: Wall, after: tuple[Wall, JobId], limit: int) -> list[tuple[Wall, JobId]]:
        """From the index alone."""
        try:
            found = self._database.execute(
                "SELECT due, id FROM jobs WHERE due IS NOT NULL AND due <= ? AND (due, id) > (?, ?) "
                "ORDER BY due, id LIMIT ?",
                (until, *after, limit),
            ).fetchall()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._report(None, str(error))
            return []
        return [(day, JobId(job)) for day, job in found]

    def claims(self, jobs: Sequence[JobId]) -> dict[JobId, ClaimRow]:
        """The healthy claims among these. Of a damaged one the job is reported: this disk's word on it is
        not known any more."""
        found: dict[JobId, ClaimRow] = {}
        pieces = [jobs[start : start + READ_CHUNK] for start in range(0, len(jobs), READ_CHUNK)]
        while pieces:
            piece = pieces.pop()
            try:
                rows = list(read_claims(self._database, piece, self._report_claim))
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                if len(piece) == 1:
                    self._report(piece[0], str(error))
                else:  # one broken page must not hide the rows on the others
                    pieces += [[job] for job in piece]
            else:
                found.update((row.id, row) for row in rows)
        return found

    def _report_claim(self, job: object) -> None:
        self._report(job, "the checksum of its claim is wrong")

    def reports(self, job: JobId, *, brief: bool) -> list[Said]:
        try:
            return list(read_reports(self._database, job, brief=brief))
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._report(None, str(error))
            return []

    def claim_count(self) -> int:
        try:
            return count_claims(self._database)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._report(None, str(error))
            return 0

    def close(self) -> None:
        self._database.close()
