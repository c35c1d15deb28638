"""The store's table of claims: whose this disk has said that idempotency keys are.

Ids of keys have no order of time, so that every new row goes to another page: small rows, and nothing but
what an acceptor must remember.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from zlib import crc32

import msgpack

from edgenode.core.signals import ClaimRow
from edgenode.core.types import Ballot, JobId, KeyUse, NodeId, Wall

CLAIM_SCHEMA: Final = """
CREATE TABLE claims (
    id BLOB PRIMARY KEY,
    expires_at REAL NOT NULL,
    checksum INTEGER NOT NULL,
    claim BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX expiring_claims ON claims (expires_at);
"""
CLAIM_BYTES: Final = 128
"""What a claim costs, for counting only."""
STATEMENT_ROWS: Final = 64
_UPSERT: Final = "INSERT OR REPLACE INTO claims VALUES "


def write_claims(database: sqlite3.Connection, claims: Sequence[ClaimRow], forget_before: Wall) -> None:
    """Within a transaction. Many rows a statement, as each costs the event loop a turn of the interpreter."""
    if forget_before:
        database.execute("DELETE FROM claims WHERE expires_at < ?", (forget_before,))
    for start in range(0, len(claims), STATEMENT_ROWS):
        chunk = claims[start : start + STATEMENT_ROWS]
        values = [value for row in chunk for value in _values(row)]
        database.execute(_UPSERT + ",".join(["(?,?,?,?)"] * len(chunk)), values)


def read_claims(
    database: sqlite3.Connection, jobs: Sequence[JobId], damaged: Callable[[object], None]
) -> Iterable[ClaimRow]:
    """The healthy claims among these; `damaged` is told of the others."""
    marks = ",".join("?" * len(jobs))
    for fields in database.execute(f"SELECT * FROM claims WHERE id IN ({marks})", jobs):
        row = _healthy(fields)
        if row is None:
            damaged(fields[0])
        else:
            yield row


def count_claims(database: sqlite3.Connection) -> int:
    (count,) = database.execute("SELECT count(*) FROM claims").fetchone()
    return int(count)


def _values(row: ClaimRow) -> tuple[bytes, float, int, bytes]:
    claim: bytes = msgpack.packb((row.promised, row.accepted, row.use))
    return row.id, row.expires_at, _checksum(row.id, row.expires_at, claim), claim


def _checksum(job: bytes, expires_at: float, claim: bytes) -> int:
    return crc32(claim, crc32(repr(expires_at).encode(), crc32(job)))


def _healthy(fields: tuple[Any, ...]) -> ClaimRow | None:
    job, expires_at, checksum, claim = fields
    if not (isinstance(job, bytes) and isinstance(expires_at, float) and isinstance(claim, bytes)):
        return None
    if _checksum(job, expires_at, claim) != checksum:
        return None
    promised, accepted, (holders, content) = msgpack.unpackb(claim)  # its checksum says that we wrote it
    use = KeyUse(tuple(map(NodeId, holders)), content)
    return ClaimRow(JobId(job), _ballot(promised), _ballot(accepted), use, expires_at)


def _ballot(fields: list[Any]) -> Ballot:
    term, owner = fields
    return Ballot(term, NodeId(owner))
