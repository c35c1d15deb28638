"""The store's table of jobs: a row each, with a checksum and the columns that searches filter by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from zlib import crc32

import msgpack

from edgenode.core.signals import Row, StoredRow
from edgenode.core.types import FOREVER, Ballot, JobId, NodeId, Promise

STATEMENT_ROWS: Final = 512
STATEMENT_STEP: Final = 32

JOB_SCHEMA: Final = """
CREATE TABLE jobs (
    id BLOB PRIMARY KEY,
    settled INTEGER NOT NULL,
    state TEXT NOT NULL,
    task TEXT NOT NULL,
    queue TEXT NOT NULL,
    owner TEXT NOT NULL,
    due REAL,
    promise BLOB,
    checksum INTEGER NOT NULL,
    blob BLOB NOT NULL
);
CREATE INDEX unsettled ON jobs (settled) WHERE settled = 0;
CREATE INDEX due ON jobs (due, id) WHERE due IS NOT NULL;
CREATE INDEX state ON jobs (state, id);
CREATE INDEX task ON jobs (task, id);
"""
# The small columns come before the blob, so that a search that filters does not read overflow pages.
COLUMNS: Final = ("id", "settled", "state", "task", "queue", "owner", "due", "promise", "checksum", "blob")
# One SQL row; `?` values in the order of COLUMNS.
Values = tuple[bytes, bool, str, str, str, str, float | None, bytes | None, int, bytes]


def _pack_promise(promise: Promise | None) -> bytes | None:
    if promise is None:
        return None
    packed: bytes = msgpack.packb((promise.epoch, *promise.ballot))
    return packed


def _checksum(job: bytes, settled: bool, promise: bytes | None, blob: bytes) -> int:
    return crc32(blob, crc32(promise or b"", crc32(job, int(settled))))


def values_of(stored: StoredRow) -> Values:
    row, owner, settled, state, task, queue, due = stored
    promise = _pack_promise(row.promise)
    checksum = _checksum(row.id, settled, promise, row.blob)
    day = None if due == FOREVER else due
    return (row.id, settled, state, task, queue, owner, day, promise, checksum, row.blob)


HEALTH: Final = "id, settled, promise, checksum, blob"
"""The columns that say whether a row is what was written, and what it says."""


def healthy(fields: tuple[Any, ...]) -> Row | None:
    """The row behind the columns `HEALTH`, or None if it is not what was written."""
    job, settled, packed, checksum, blob = fields
    if not (isinstance(job, bytes) and isinstance(blob, bytes) and isinstance(packed, bytes | None)):
        return None
    if settled not in (0, 1) or _checksum(job, bool(settled), packed, blob) != checksum:
        return None
    if packed is None:
        return Row(JobId(job), blob, None)
    epoch, term, owner = msgpack.unpackb(packed)  # its checksum says that we wrote it
    return Row(JobId(job), blob, Promise(epoch, Ballot(term, NodeId(owner))))


def _upsert(count: int) -> str:
    marks = f"({','.join('?' * len(COLUMNS))})"
    updates = ",".join(f"{name}=excluded.{name}" for name in COLUMNS[1:])
    return (
        f"INSERT INTO jobs ({','.join(COLUMNS)}) VALUES {','.join([marks] * count)} "
        f"ON CONFLICT (id) DO UPDATE SET {updates}"
    )


SAVE: Final = f"INSERT OR IGNORE INTO jobs ({','.join(COLUMNS)}) VALUES ({','.join('?' * len(COLUMNS))})"
UPSERTS: Final = {
    count: _upsert(count)
    for count in (*range(1, STATEMENT_STEP), *range(STATEMENT_STEP, STATEMENT_ROWS + 1, STATEMENT_STEP))
}
"""Few enough statements to stay prepared, and at most two steps for a batch of up to 543 rows."""


def in_statements(rows: list[Values]) -> Iterator[tuple[str, list[Any]]]:
    start = 0
    while start < len(rows):
        left = len(rows) - start
        count = left if left < STATEMENT_STEP else min(STATEMENT_ROWS, left - left % STATEMENT_STEP)
        yield UPSERTS[count], [value for row in rows[start : start + count] for value in row]
        start += count
