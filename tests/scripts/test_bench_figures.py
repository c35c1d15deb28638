"""What the bench makes of what it has seen: costs, notes, tables, files."""

from __future__ import annotations

import csv
import json
from io import StringIO
from pathlib import Path

import bench_figures
import bench_load
import bench_machine
import bench_mesh
import pytest
from bench_figures import Cost, Figures, Measure, Row
from bench_machine import Usage
from rich.console import Console
from rich.table import Table


def shown(table: Table) -> str:
    out = StringIO()
    Console(file=out, width=170).print(table)
    return out.getvalue()


def figures(*measures: Measure) -> Figures:
    found = Figures()
    for measure in measures:
        found.add(*measure)
    return found


# ------------------------------------------------------------------------------------------------- costs


def test_cost_is_that_of_all_nodes_together_for_one_job() -> None:
    before = [Usage(1.0, 0, 10.0, 0, 500), Usage(5.0, 0, 0.0, 0, 0)]
    after = [Usage(2.0, 0, 10.5, 0, 1500), Usage(8.0, 0, 0.5, 0, 1000)]
    found = bench_machine.cost(before, after, 0.25, link_bytes=50_000, count=500)
    assert found == Cost(nodes_us=8000, workers_us=2000, load_us=500, link_bytes=100, disk_bytes=4)


def test_a_p99_of_few_values_is_called_what_it_is() -> None:
    found = Figures()
    bench_mesh.add_percentiles(found, "few", "few", [1.0, 9.0, 2.0], "3 jobs")
    bench_mesh.add_percentiles(found, "many", "many", [float(number) for number in range(200)], "200 jobs")
    notes = {measure.key: measure.note for measure in found.measures}
    assert notes["few.p50_ms"] == "3 jobs: p99 is the greatest of 3"
    assert notes["many.p50_ms"] == "200 jobs"


def test_nothing_costs_nothing() -> None:
    usage = [Usage(0, 0, 0, 0)]
    assert bench_machine.cost(usage, usage, 1.0, 0, 0) is None


def test_only_what_a_node_sends_to_others_counts_so_that_no_byte_counts_twice() -> None:
    metrics = """\
# TYPE edgenode_link_bytes_total counter
edgenode_link_bytes_total{link="bulk",way="in"} 1000.0
edgenode_link_bytes_total{link="bulk",way="out"} 70.0
edgenode_link_bytes_total{link="control",way="out"} 5.0
edgenode_store_bytes 400.0
"""
    assert bench_machine.sent_bytes(metrics) == 75


def test_the_disk_is_the_innermost_mount_above_the_folder() -> None:
    mounts = (
        "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/deep xfs rw 0 0\n/dev/c /tmp2 nfs rw 0 0"
    )
    assert bench_machine.filesystem_of(Path("/home/me"), mounts) == "ext4"
    assert bench_machine.filesystem_of(Path("/tmp/mesh"), mounts) == "tmpfs"
    assert bench_machine.filesystem_of(Path("/tmp/deep/mesh"), mounts) == "xfs"
    assert bench_machine.filesystem_of(Path("/home"), "") == "unknown"


def test_percentiles_are_named_and_only_the_first_has_the_note() -> None:
    found = Figures()
    bench_mesh.add_percentiles(found, "latency", "one job", [float(n) for n in range(1, 101)], "100 jobs")
    assert [(each.key, each.value, each.note) for each in found.measures] == [
        ("latency.p50_ms", 50.0, "100 jobs"),
        ("latency.p95_ms", 95.0, ""),
        ("latency.p99_ms", 99.0, ""),
    ]
    bench_mesh.add_percentiles(found, "none", "no job", [])
    assert len(found.measures) == 3


# -------------------------------------------------------------------------------------------------- load


@pytest.mark.parametrize("size", [14, 100, 5_000])
def test_the_payload_has_the_size_that_is_printed(size: int) -> None:
    made = bench_load.document(size, "bench.echo", queue="here")
    assert len(json.dumps(made["payload"], separators=(",", ":"))) == size
    assert (made["task"], made["queue"]) == ("bench.echo", "here")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"settled": False}, "not settled"),
        ({"state": "failed", "result": None}, "failed"),
        ({"result": "xxy"}, "a wrong result"),
    ],
)
def test_a_job_counts_only_if_it_is_settled_and_gave_back_what_was_sent(
    changes: dict[str, object], why: str | None
) -> None:
    job: dict[str, object] = {"settled": True, "state": "succeeded", "result": "xxx"}
    assert bench_load.why_not_good(job | changes, {"payload": {"message": "xxx"}}) == why


def test_times_of_answers_become_unix_seconds() -> None:
    assert bench_load.seconds_of("1970-01-01T00:01:40.250Z") == 100.25
    assert bench_load.seconds_of(None) == 0.0


# ------------------------------------------------------------------------------------------------- outputs


def test_of_several_turns_the_median_counts_with_its_own_cost_and_note() -> None:
    turns = [Measure("a", "a", value, "ms", f"note {value}") for value in (3.0, 9.0, 5.0)]
    once = Measure("b", "b", 1.0, "s")
    found = figures(turns[0], once, turns[1], turns[2])
    assert found.measures == [turns[2], once]
    assert bench_figures.medians(turns[:2]) == [turns[0]]


def test_only_counts_that_are_not_zero_are_said() -> None:
    assert bench_figures.counted(jobs=1200, too_late=0, refused=3) == "1,200 jobs, 3 refused"
    assert bench_figures.counted(jobs=0) == ""


def test_the_csv_has_one_row_a_job(tmp_path: Path) -> None:
    rows = [Row("first", 1.5, 2.25, 3.125), Row("second", 1.5, 2.0, 1_700_000_000.123456)]
    bench_figures.write_csv(tmp_path / "jobs.csv", rows)
    with (tmp_path / "jobs.csv").open(newline="") as file:
        found = list(csv.reader(file))
    assert found[0] == ["id", "sent", "accepted", "finished"]
    assert found[1:] == [
        ["first", "1.500000", "2.250000", "3.125000"],
        ["second", "1.500000", "2.000000", "1700000000.123456"],
    ]


def test_the_json_has_measures_by_key_and_they_are_read_back_from_it() -> None:
    measures = [
        Measure("a.per_s", "a", 12.5, "jobs/s", "note", Cost(1, 2, 3, 4, 5)),
        Measure("b.s", "b", 0.1, "s"),
    ]
    found = figures(*measures)
    found.check(True, "all well")
    found.check(False, "3 jobs are missing")
    told = json.loads(bench_figures.as_json({"fsync": "on"}, found))
    assert told["environment"] == {"fsync": "on"}
    assert told["measures"]["b.s"] == {"value": 0.1, "unit": "s", "label": "b", "note": ""}
    assert told["faults"] == ["3 jobs are missing"]
    assert bench_figures.measures_of(told) == measures
    assert found.value("b.s") == 0.1
    assert found.value("c") is None


def test_the_table_shows_every_measure_and_its_cost() -> None:
    cost = Cost(0.5, 12.25, 123.0, 1000, 42_000)
    text = shown(
        bench_figures.table(
            [
                Measure("a", "jobs end to end", 12_345.6, "jobs/s", "200 jobs", cost),
                Measure("b", "p50", 0.5, "ms"),
            ]
        )
    )
    assert "jobs end to end" in text
    assert "12,346" in text
    assert "0.50 / 12.2 / 123" in text
    assert "1,000 / 42,000" in text
    assert "200 jobs" in text
    assert "0.50 │ ms" in text
