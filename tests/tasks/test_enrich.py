"""data.enrich: records joined with a table, whole or in parts."""

from __future__ import annotations

import csv
import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from edgenode.task import Cancel, Fail
from edgenode.tasks.enrich import enrich

PRODUCTS = 'sku,name,price\n1,Hammer,9.50\n2,"Nails, long",2\n'
ORDERS = 'id,sku,note\na,1,\nb,2,"two\nlines"\nc,9,"say ""hi"""\nd,1,Łódź\n'
JOINED = (
    "id,sku,note,name,price\n"
    "a,1,,Hammer,9.50\n"
    'b,2,"two\nlines","Nails, long",2\n'
    'c,9,"say ""hi""",,\n'
    "d,1,Łódź,Hammer,9.50\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "products.csv").write_text(PRODUCTS)
    (tmp_path / "orders.csv").write_text(ORDERS, encoding="utf-8")
    return tmp_path


def run(ctx: Any, folder: Path, source: str = "orders.csv", target: str = "out.csv", **more: Any) -> Any:
    arguments = {"reference": str(folder / "products.csv"), "key": "sku"} | more
    return enrich(ctx, source=str(folder / source), target=str(folder / target), **arguments)


def test_each_record_gets_the_columns_of_its_counterpart(folder: Path, ctx: Any) -> None:
    result = run(ctx, folder)
    written = (folder / "out.csv").read_bytes()
    assert written.decode() == JOINED
    assert result == {
        "rows": 4,
        "matched": 3,
        "unmatched": 1,
        "bad": 0,
        "bad_rows": [],
        "path": str(folder / "out.csv"),
        "bytes": len(written),
        "sha256": sha256(written).hexdigest(),
    }


def test_unmatched_records_can_be_dropped(folder: Path, ctx: Any) -> None:
    result = run(ctx, folder, unmatched="drop")
    assert (result["matched"], result["unmatched"]) == (3, 1)
    assert (folder / "out.csv").read_text() == JOINED.replace('c,9,"say ""hi""",,\n', "")


def test_a_table_s_column_that_the_records_have_too_is_written_under_the_table_s_name(
    folder: Path, ctx: Any
) -> None:
    (folder / "orders.csv").write_text("sku,name\n1,Ada\n")
    run(ctx, folder)
    assert (folder / "out.csv").read_text() == "sku,name,products_name,price\n1,Ada,Hammer,9.50\n"


def test_the_table_s_key_may_have_another_name_and_place(folder: Path, ctx: Any) -> None:
    (folder / "products.csv").write_text("name,number\nHammer,1\n")
    run(ctx, folder, reference_key="number", unmatched="drop")
    assert (folder / "out.csv").read_text().splitlines()[:2] == ["id,sku,note,name", "a,1,,Hammer"]


def test_csv_becomes_ndjson_with_null_for_what_is_unknown(folder: Path, ctx: Any) -> None:
    run(ctx, folder, target="out.ndjson")
    records = [json.loads(line) for line in (folder / "out.ndjson").read_text().splitlines()]
    assert records[1] == {"id": "b", "sku": "2", "note": "two\nlines", "name": "Nails, long", "price": "2"}
    assert records[2] == {"id": "c", "sku": "9", "note": 'say "hi"', "name": None, "price": None}
    assert len(records) == 4


def test_ndjson_keeps_its_types_and_matches_numbers_as_text(folder: Path, ctx: Any) -> None:
    (folder / "orders.jsonl").write_text('{"sku":1,"tags":["x"],"gift":true}\n\n{"sku":"2"}\n')
    run(ctx, folder, source="orders.jsonl", target="out.jsonl")
    first, second = map(json.loads, (folder / "out.jsonl").read_text().splitlines())
    assert first == {"sku": 1, "tags": ["x"], "gift": True, "name": "Hammer", "price": "9.50"}
    assert second == {"sku": "2", "name": "Nails, long", "price": "2"}


def test_ndjson_becomes_csv_with_the_first_record_s_fields_for_every_part(folder: Path, ctx: Any) -> None:
    lines = ['{"sku":1,"n":null,"ok":true}', '{"n":[1],"sku":2}', '{"sku":1,"extra":0}']
    (folder / "orders.ndjson").write_text("\n".join(lines))
    result = run(ctx, folder, source="orders.ndjson", first_row=1)
    assert (folder / "out.csv").read_text() == 'sku,n,ok,name,price\n2,[1],,"Nails, long",2\n'
    assert result["bad_rows"] == [{"line": 3, "reason": "has a field 'extra', which the first record lacks"}]


def rows_of(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))[1:]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_parts_that_tile_the_file_hold_each_row_once(folder: Path, ctx: Any, size: int) -> None:
    rows = [f'{n},{n % 4},"x\ny"' if n % 7 else f"{n},{n % 4}" for n in range(50)]
    (folder / "orders.csv").write_text("id,sku,note\n" + "\n".join(rows))
    whole = run(ctx, folder)
    parts = [
        run(ctx, folder, target=f"part-{first}.csv", first_row=first, rows=size)
        for first in range(0, 50, size)
    ]
    for name in ("rows", "matched", "unmatched", "bad"):
        assert sum(part[name] for part in parts) == whole[name]
    assert whole["bad"] == 8
    assert [row for part in parts for row in part["bad_rows"]] == whole["bad_rows"]
    assert [row for part in parts for row in rows_of(Path(part["path"]))] == rows_of(folder / "out.csv")


def test_what_lies_beyond_the_end_is_empty(folder: Path, ctx: Any) -> None:
    result = run(ctx, folder, first_row=3, rows=10)
    assert result["rows"] == 1
    assert run(ctx, folder, first_row=4)["rows"] == 0
    assert (folder / "out.csv").read_text() == "id,sku,note,name,price\n"


def test_bad_rows_are_reported_by_line_and_left_out(folder: Path, ctx: Any) -> None:
    (folder / "orders.csv").write_bytes(b"id,sku,note\na,1,x\nb,1\n\nc,,x\nd,1,\xff\ne,1,y\n")
    result = run(ctx, folder)
    assert result["bad_rows"] == [
        {"line": 3, "reason": "2 fields, the header has 3"},
        {"line": 5, "reason": "no key in 'sku'"},
        {"line": 6, "reason": "not UTF-8"},
    ]
    assert (result["rows"], result["matched"], result["bad"]) == (5, 2, 3)
    assert (
        folder / "out.csv"
    ).read_text() == "id,sku,note,name,price\na,1,x,Hammer,9.50\ne,1,y,Hammer,9.50\n"


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1]",
        '{"sku":1,"x":NaN}',
        '{"sku":1.0}',
        '{"sku":true}',
        '{"sku":null}',
        '{"x":1}',
        '{"sku":"\\ud800"}',
        '{"sku":1,"name":"taken"}',
        "[" * 100_000,
    ],
)
def test_lines_that_are_no_record_are_bad_rows(folder: Path, ctx: Any, line: str) -> None:
    (folder / "orders.ndjson").write_text('{"sku":1}\n' + line + "\n")
    result = run(ctx, folder, source="orders.ndjson", target="out.ndjson")
    assert (result["matched"], result["bad"]) == (1, 1)
    assert result["bad_rows"][0]["line"] == 2


def test_the_list_of_bad_rows_is_bounded(folder: Path, ctx: Any) -> None:
    (folder / "orders.csv").write_text("id,sku,note\n" + "short\n" * 100)
    result = run(ctx, folder)
    assert (result["bad"], len(result["bad_rows"])) == (100, 20)


def test_strict_fails_at_the_first_bad_row_and_writes_nothing(folder: Path, ctx: Any) -> None:
    (folder / "orders.csv").write_text("id,sku,note\na,1,x\nb\n")
    with pytest.raises(Fail, match="line 3: 1 fields"):
        run(ctx, folder, strict=True)
    assert sorted(os.listdir(folder)) == ["orders.csv", "products.csv"]


def test_a_cancelled_job_writes_nothing_and_keeps_what_was_there(folder: Path, ctx: Any) -> None:
    (folder / "orders.csv").write_text("id,sku,note\n" + "a,1,x\n" * 5_000)
    (folder / "out.csv").write_text("old")
    ctx.answers_before_cancel = 2
    with pytest.raises(Cancel, match="line 4002"):
        run(ctx, folder)
    assert (folder / "out.csv").read_text() == "old"
    assert len(os.listdir(folder)) == 3
    assert ctx.told == sorted(ctx.told)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"source": "missing.csv"}, "source: no such file: .*missing.csv"),
        ({"reference": "missing.csv"}, "reference: no such file"),
        ({"target": "out.txt"}, "target: out.txt does not end in"),
        ({"target": "orders.csv"}, "target: .* is an input"),
        ({"key": "colour"}, "key: .* has no column 'colour'; it has id, sku, note"),
        ({"reference_key": "colour"}, "reference: .* has no column 'colour'; it has sku, name, price"),
        ({"first_row": -1}, "first_row"),
        ({"rows": -1}, "rows"),
    ],
)
def test_arguments_that_make_no_sense_are_named(
    folder: Path, ctx: Any, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Fail, match=f"^{reason}"):
        run(ctx, folder, **arguments)
    assert sorted(os.listdir(folder)) == ["orders.csv", "products.csv"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("products.csv", "sku,name\n1,a\n2,b\n1,c\n", "line 4 has the key '1' again"),
        ("products.csv", "sku,name\n1\n", "line 2 has 1 fields"),
        ("products.csv", "", "does not begin with a header"),
        ("products.csv", "sku,name,name\n", "distinct column names"),
        ("orders.csv", "", "does not begin with a header"),
        ("orders.csv", "id,sku,name,products_name\n", "cannot be told apart"),
    ],
)
def test_tables_that_cannot_be_joined_are_refused(
    folder: Path, ctx: Any, name: str, text: str, reason: str
) -> None:
    (folder / name).write_text(text)
    with pytest.raises(Fail, match=reason):
        run(ctx, folder)


def test_a_file_without_any_record_is_refused(folder: Path, ctx: Any) -> None:
    (folder / "orders.ndjson").write_text("\nno json\n")
    with pytest.raises(Fail, match="holds no record"):
        run(ctx, folder, source="orders.ndjson")
