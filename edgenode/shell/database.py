"""A connection to SQLite whose every failure is one of SQLite's, whatever bytes the file holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any


class Database(sqlite3.Connection):
    """SQLite names tables and columns in what it says of a broken schema, with the bytes that it found.

    Where those are no UTF-8, Python can't make the text of the error, and raises what no caller expects of
    a database: UnicodeDecodeError. From here it is a DatabaseError, and says that the file is corrupt.
    """

    def execute(self, *given: Any) -> sqlite3.Cursor:
        return self._told(super().execute, given)

    def executemany(self, *given: Any) -> sqlite3.Cursor:
        return self._told(super().executemany, given)

    def executescript(self, *given: Any) -> sqlite3.Cursor:
        return self._told(super().executescript, given)

    def _told(self, run: Callable[..., sqlite3.Cursor], given: tuple[Any, ...]) -> sqlite3.Cursor:
        try:
            return run(*given)
        except UnicodeDecodeError as error:
            text = bytes(error.object).decode(errors="replace")
            corrupt = sqlite3.DatabaseError(text)
            corrupt.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise corrupt from None
