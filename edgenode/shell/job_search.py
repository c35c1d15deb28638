"""How a search goes through the table of jobs: by an index where one answers it, else window by window.

There is no index of queues, nor of two filters at once: each would cost every write, and nobody waits long
for 200,000 rows (some 0.13 s). A search that runs out of time says how far it looked, so that whoever asked
can go on from there, however many rows there are and however few fit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from edgenode.core.wire import Query

WINDOW_ROWS: Final = 20_000
"""So many are looked through between two marks of how far it is: some 15 ms."""


class SearchResult(NamedTuple):
    records: tuple[bytes, ...]  # in falling order of ids
    complete: bool  # no further match on this disk
    upto: bytes = b""  # if not: no further match above this id, or above the last record's; b"": not known


class Window(NamedTuple):
    """The rows with low <= id < high; b"" for no bound."""

    low: bytes
    high: bytes


def windows(database: sqlite3.Connection, query: Query) -> Iterator[Window]:
    """From the newest rows to the oldest; the last one has no lower bound."""
    high = query.after
    while query.queue or (query.state and query.task):
        below, values = ("WHERE id < ?", [high]) if high else ("", [])
        sql = f"SELECT id FROM jobs {below} ORDER BY id DESC LIMIT 1 OFFSET {WINDOW_ROWS - 1}"
        found = database.execute(sql, values).fetchone()
        if found is None:
            break
        yield Window(found[0], high)
        high = found[0]
    yield Window(b"", high)


def statement(query: Query, window: Window, columns: str) -> tuple[str, list[Any]]:
    """What selects the rows of a window that match."""
    # A row without a record is a promise only, and nothing to show.
    conditions, values = ["length(blob) > 0"], list[Any]()
    for name, wanted in (("state", query.state), ("task", query.task), ("queue", query.queue)):
        if wanted:
            conditions.append(f"{name} = ?")
            values.append(wanted)
    for comparison, bound in (("<", window.high), (">=", window.low)):
        if bound:
            conditions.append(f"id {comparison} ?")
            values.append(bound)
    return f"SELECT {columns} FROM jobs WHERE {' AND '.join(conditions)} ORDER BY id DESC", values
