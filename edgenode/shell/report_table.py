"""The store's table of reports: what starts said, a row for each report (core/reports.py).

The primary key has all that decides which rows stay, so that nobody reads texts to find out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final
from zlib import crc32

import msgpack

from edgenode.core.reports import Gist, brief_of, gist_of, superfluous
from edgenode.core.types import JobId, NodeId, StartToken
from edgenode.core.wire import Said

REPORT_SCHEMA: Final = """
CREATE TABLE reports (
    id BLOB,
    term INTEGER,
    owner TEXT,
    start INTEGER,
    number INTEGER,
    before INTEGER,
    after INTEGER,
    has_partial INTEGER,
    checksum INTEGER NOT NULL,
    report BLOB NOT NULL,
    PRIMARY KEY (id, term, owner, start, number, before, after, has_partial)
);
"""
REPORT_BYTES: Final = 128
"""What a report costs besides what it says, for counting only."""
_GIST: Final = "term, owner, start, number, before, after, has_partial"
_THIS: Final = "id = ? AND term = ? AND owner = ? AND start = ? AND number = ?"


def size_of(said: Said) -> int:
    return REPORT_BYTES + len(said.text) + len(said.partial)


def write_reports(database: sqlite3.Connection, reports: Sequence[Said], gone: Sequence[JobId]) -> None:
    """Within a transaction: delete those of the jobs in `gone`, then add these; what is superfluous goes."""
    if gone:
        database.executemany("DELETE FROM reports WHERE id = ?", [(job,) for job in gone])
    if not reports:
        return
    marks = ",".join("?" * 10)
    database.executemany(
        f"INSERT OR IGNORE INTO reports VALUES ({marks})", [_values(said) for said in reports]
    )
    for job in dict.fromkeys(said.job for said in reports):
        outdated = superfluous(_gists(database, job))
        keys = [(job, *gist.token, gist.number) for gist in outdated]
        database.executemany(f"DELETE FROM reports WHERE {_THIS}", keys)


def read_reports(database: sqlite3.Connection, job: JobId, *, brief: bool) -> Iterable[Said]:
    """Those that are what was written; a damaged one is one that never came."""
    columns = f"{_GIST}, checksum, report"
    if not brief:
        found = database.execute(f"SELECT {columns} FROM reports WHERE id = ? ORDER BY {_GIST}", (job,))
        yield from (said for fields in found if (said := _healthy(job, fields)) is not None)
        return
    for gist in brief_of(_gists(database, job)):
        key = (job, *gist.token, gist.number)
        for fields in database.execute(f"SELECT {columns} FROM reports WHERE {_THIS}", key):
            said = _healthy(job, fields)
            if said is not None:
                yield said._replace(text=b"")


def _gists(database: sqlite3.Connection, job: JobId) -> list[Gist]:
    rows = database.execute(f"SELECT {_GIST} FROM reports WHERE id = ?", (job,))
    return [
        Gist(StartToken(term, NodeId(owner), start), number, before, after, bool(has_partial))
        for term, owner, start, number, before, after, has_partial in rows
    ]


def _values(said: Said) -> tuple[Any, ...]:
    gist = gist_of(said)
    key = (said.job, *gist.token, *gist[1:])
    report: bytes = msgpack.packb(
        (said.runner, said.attempt, said.at, said.fraction, said.message, said.text, said.partial)
    )
    return *key, _checksum(said.job, gist, report), report


def _checksum(job: JobId, gist: Gist, report: bytes) -> int:
    return crc32(report, crc32(repr(tuple(gist)).encode(), crc32(job)))


def _healthy(job: JobId, fields: tuple[Any, ...]) -> Said | None:
    term, owner, start, number, before, after, has_partial, checksum, report = fields
    gist = Gist(StartToken(term, owner, start), number, before, after, bool(has_partial))
    if not isinstance(report, bytes) or _checksum(job, gist, report) != checksum:
        return None
    runner, attempt, at, fraction, message, text, partial = msgpack.unpackb(report)  # as we wrote it
    token = StartToken(term, NodeId(owner), start)
    return Said(
        job, token, number, NodeId(runner), attempt, at, fraction, message, before, text, partial
    )  # fmt: skip
