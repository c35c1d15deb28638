"""`data.enrich`: records joined with a reference table, part by part."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO, TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NamedTuple, NoReturn, TypeAlias

from edgenode.task import Cancel, Fail, JobContext, task
from edgenode.tasks.files import absolute, existing_file, written_whole

Values: TypeAlias = dict[str, Any]
"""One record. The values are what JSON holds; only text, if it comes from a CSV file."""
Raw: TypeAlias = list[str] | bytes | str
"""A row before anybody looked at it: CSV fields, or a line of JSON, or why the CSV reader gave up on it."""
Kind = Literal["csv", "ndjson"]
KINDS: Final[dict[str, Kind]] = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
BAD_ROWS_SHOWN: Final = 20
ROWS_BETWEEN_REPORTS: Final = 2_000


class BadRow(Exception):
    """This row is no record; the text says why. Never leaves the task."""


class Source(NamedTuple):
    """Where the records come from. Rows that are skipped are never parsed."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[int, Raw]]  # with the line of the file it ends on, from 1
    parse: Callable[[Raw], Values]  # raises BadRow


class Reference(NamedTuple):
    """The table to join with."""

    columns: tuple[str, ...]  # as they are called in the output; without the key
    rows: Mapping[str, tuple[str, ...]]  # by key


@dataclass(slots=True)
class Counts:
    """Each row read is exactly one of matched, unmatched and bad."""

    matched: int = 0
    unmatched: int = 0
    bad: int = 0
    bad_rows: list[dict[str, Any]] = field(default_factory=list)  # the first BAD_ROWS_SHOWN

    @property
    def rows(self) -> int:
        return self.matched + self.unmatched + self.bad


@task("data.enrich", timeout_s=600, max_attempts=3)
def enrich(
    ctx: JobContext,
    source: str,
    reference: str,
    key: str,
    target: str,
    reference_key: str | None = None,
    first_row: int = 0,
    rows: int | None = None,
    unmatched: Literal["keep", "drop"] = "keep",
    strict: bool = False,
) -> dict[str, Any]:
    """Add to each record of `source` the columns that `reference` has for its key, and write the result.

    A job can do one part of a file (`first_row`, `rows`): parts that tile the file give outputs that, put
    together, hold every good row once and in order. The same input gives the same bytes, written whole or
    not at all, so a second run does no harm.

    A row that is no record (a wrong number of fields, no JSON object, no key, not UTF-8) is left out and
    reported by its line, unless `strict`. Blank lines are not rows. Keys are compared as text: 17 and "17"
    are equal, 17.0 is no key. A reference column named like one of the records' is written as
    `TABLE_COLUMN`, TABLE being the reference's file name without its suffix.

    Args:
        source, target: files ending in .csv (with a header, UTF-8), or .ndjson or .jsonl. For records in JSON
            and a CSV target, the fields of the file's first record are the columns, for all parts alike.
        reference: a CSV file with a header, in which each key stands once; it is held in memory.
        key: the records' column. reference_key: the reference's, if it is called otherwise.
        first_row, rows: the part: from this row on, counted from 0 and bad ones included, this many (default
            all). What lies beyond the end is empty.
        unmatched: whether records without a counterpart are written with empty (null) columns, or dropped.
        strict: fail at the first bad row, writing nothing.

    Returns:
        `{rows, matched, unmatched, bad, bad_rows, path, bytes, sha256}`: the rows read are the sum of the
        next three; `bad_rows` is up to 20 of `{line, reason}`.
    """
    for name, number in (("first_row", first_row), ("rows", rows)):
        if number is not None and number < 0:
            raise Fail(f"{name}: {number} is below 0")
    origin = existing_file(source, what="source")
    table = existing_file(reference, what="reference")
    output = absolute(target, what="target")
    if output in (origin, table):
        raise Fail(f"target: {output} is an input")
    kind = _kind(output, what="target")
    counts = Counts()
    with open(origin, "rb") as file:
        records = _open_source(file, _kind(origin, what="source"), origin)
        if key not in records.columns:
            raise Fail(f"key: {origin} has no column {key!r}; it has {', '.join(records.columns)}")
        known = _read_reference(table, reference_key or key, taken=records.columns)
        encode = _encoder(kind, (*records.columns, *known.columns))
        part = islice(records.rows, first_row, None if rows is None else first_row + rows)
        with written_whole(output) as written:
            if kind == "csv":
                written.write(encode(None))
            for line, raw in part:
                if counts.rows % ROWS_BETWEEN_REPORTS == 0:
                    _report(ctx, counts.rows, rows, file, line)
                try:
                    joined, is_matched = _joined(records.parse(raw), key, known)
                    encoded = encode(joined)
                except BadRow as problem:
                    _reject(counts, line, str(problem), strict=strict)
                    continue
                counts.matched += is_matched
                counts.unmatched += not is_matched
                if is_matched or unmatched == "keep":
                    written.write(encoded)
    return {
        "rows": counts.rows,
        "matched": counts.matched,
        "unmatched": counts.unmatched,
        "bad": counts.bad,
        "bad_rows": counts.bad_rows,
        "path": str(output),
        "bytes": written.size,
        "sha256": written.sha256,
    }


def _report(ctx: JobContext, done: int, rows: int | None, file: BinaryIO, line: int) -> None:
    if ctx.cancelled:
        raise Cancel(f"cancelled at line {line}")
    total = os.fstat(file.fileno()).st_size if rows is None else rows
    ctx.progress(min(1.0, (file.tell() if rows is None else done) / total), f"line {line}")


def _reject(counts: Counts, line: int, reason: str, *, strict: bool) -> None:
    if strict:
        raise Fail(f"line {line}: {reason}")
    counts.bad += 1
    if len(counts.bad_rows) < BAD_ROWS_SHOWN:
        counts.bad_rows.append({"line": line, "reason": reason})


def _kind(path: Path, *, what: str) -> Kind:
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise Fail(f"{what}: {path.name} does not end in {', '.join(KINDS)}")
    return kind


# --------------------------------------------------------------------------------------- the records


def _open_source(file: BinaryIO, kind: Kind, origin: Path) -> Source:
    if kind == "csv":
        # Bytes that are not UTF-8 come through as lone surrogates, and fail the one row they are in.
        text = TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(text)
        columns = _header(reader, origin, what="source")
        return Source(columns, _csv_rows(reader), lambda raw: _parse_fields(raw, columns))
    for _, raw in _json_rows(file):
        try:
            columns = tuple(_parse_json(raw))
        except BadRow:
            continue
        file.seek(0)
        return Source(columns, _json_rows(file), _parse_json)
    raise Fail(f"source: {origin} holds no record")


def _header(reader: Iterator[list[str]], path: Path, *, what: str) -> tuple[str, ...]:
    try:
        columns = tuple(next(reader, ()))
        "".join(columns).encode()
    except (csv.Error, UnicodeError) as error:
        raise Fail(f"{what}: the header of {path} cannot be read: {error}") from error
    if not columns or len(set(columns)) < len(columns):
        raise Fail(f"{what}: {path} does not begin with a header of distinct column names")
    return columns


def _csv_rows(reader: Any) -> Iterator[tuple[int, Raw]]:
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, str(error)
            continue
        if fields:
            yield reader.line_num, fields


def _json_rows(file: BinaryIO) -> Iterator[tuple[int, Raw]]:
    for line, text in enumerate(file, 1):
        if not text.isspace():
            yield line, text


def _parse_fields(raw: Raw, columns: tuple[str, ...]) -> Values:
    if not isinstance(raw, list):
        raise BadRow(str(raw))
    if len(raw) != len(columns):
        raise BadRow(f"{len(raw)} fields, the header has {len(columns)}")
    return dict(zip(columns, raw, strict=True))


def _parse_json(raw: Raw) -> Values:
    assert not isinstance(raw, list)
    try:
        found = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadRow("not a JSON object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    """Python reads NaN and Infinity, and would write them again, though they are no JSON (RFC 8259)."""
    raise ValueError(f"{name} is not a JSON number")


# ------------------------------------------------------------------------------------------ the join


def _read_reference(path: Path, key: str, *, taken: tuple[str, ...]) -> Reference:
    rows: dict[str, tuple[str, ...]] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            columns = _header(reader, path, what="reference")
            if key not in columns:
                raise Fail(f"reference: {path} has no column {key!r}; it has {', '.join(columns)}")
            place = columns.index(key)
            for fields in reader:
                if not fields:
                    continue
                if len(fields) != len(columns):
                    raise Fail(f"reference: {path} line {reader.line_num} has {len(fields)} fields")
                name = fields.pop(place)
                if name in rows:
                    raise Fail(f"reference: {path} line {reader.line_num} has the key {name!r} again")
                rows[name] = tuple(fields)
    except (csv.Error, UnicodeError) as error:
        raise Fail(f"reference: {path} cannot be read: {error}") from error
    others = [name for name in columns if name != key]
    added = tuple(f"{path.stem}_{name}" if name in taken else name for name in others)
    if len({*taken, *added}) < len(taken) + len(added):
        raise Fail(f"reference: the columns of {path} and of the records cannot be told apart")
    return Reference(added, rows)


def _joined(values: Values, key: str, known: Reference) -> tuple[Values, bool]:
    """The record with the reference's columns, and whether there is a counterpart."""
    name = values.get(key)
    if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
        raise BadRow(f"no key in {key!r}")
    for column in known.columns:
        if column in values:
            raise BadRow(f"has a field {column!r}, which the reference adds")
    found = known.rows.get(str(name))
    added = found if found is not None else (None,) * len(known.columns)
    return values | dict(zip(known.columns, added, strict=True)), found is not None


def _encoder(kind: Kind, columns: tuple[str, ...]) -> Callable[[Values | None], bytes]:
    """How a record becomes a line of the output; without a record, the header. Raises BadRow."""
    names = frozenset(columns)
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")

    def as_csv(values: Values | None) -> bytes:
        if values is not None and not names.issuperset(values):
            raise BadRow(f"has a field {min(values.keys() - names)!r}, which the first record lacks")
        writer.writerow(columns if values is None else [_text(values.get(name)) for name in columns])
        line = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        return _utf8(line)

    def as_json(values: Values | None) -> bytes:
        return _utf8(json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n")

    return as_csv if kind == "csv" else as_json


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _utf8(line: str) -> bytes:
    try:
        return line.encode()
    except UnicodeEncodeError as error:
        raise BadRow("not UTF-8") from error
