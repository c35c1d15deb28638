"""The bench: what it computes and writes, and one very small run with real nodes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from random import Random

import bench
import pytest
from bench import Cost, Measure, Row, Usage
from rich.console import Console

from tests.processes import processes_of

FIRST_PORT = 10_000
LAST_PORT = 30_000


def shown(measures: list[Measure]) -> str:
    out = StringIO()
    Console(file=out, width=160).print(bench.table(measures))
    return out.getvalue()


# ------------------------------------------------------------------------------------------------ numbers


def test_a_process_whose_name_looks_like_the_rest_of_the_line_is_read_right() -> None:
    fields = "S 41 2 2 0 -1 4194560 10 0 0 0 150 50 900 900 20 0 5 0 77 123456 25 18446744073709551615"
    stat = bench.parse_stat(f"42 (a) S 1 (b) {fields}", 100, 4096)
    assert stat == bench.ProcessStat(parent=41, cpu_s=2.0, rss_bytes=25 * 4096)


def test_the_stat_of_this_process_names_its_parent() -> None:
    assert bench.processes()[os.getpid()].parent == os.getppid()


def test_cost_is_the_mean_of_the_nodes_for_a_thousand() -> None:
    before = [Usage(1.0, 0, 10.0, 0), Usage(5.0, 0, 0.0, 0)]
    after = [Usage(2.0, 0, 10.5, 0), Usage(8.0, 0, 0.5, 0)]
    assert bench.cost(before, after, 0.25, 500) == Cost(node=4.0, workers=1.0, load=0.5)


def test_nothing_costs_nothing() -> None:
    assert bench.cost([Usage(0, 0, 0, 0)], [Usage(1, 0, 0, 0)], 1.0, 0) is None


@pytest.mark.parametrize("size", [14, 100, 5_000])
def test_the_payload_has_the_size_that_is_printed(size: int) -> None:
    made = bench.document(size, queue="here")
    assert len(json.dumps(made["payload"], separators=(",", ":"))) == size
    assert made["queue"] == "here"


def test_the_disk_is_the_innermost_mount_above_the_folder() -> None:
    mounts = (
        "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/deep xfs rw 0 0\n/dev/c /tmp2 nfs rw 0 0"
    )
    assert bench.filesystem_of(Path("/home/me"), mounts) == "ext4"
    assert bench.filesystem_of(Path("/tmp/mesh"), mounts) == "tmpfs"
    assert bench.filesystem_of(Path("/tmp/deep/mesh"), mounts) == "xfs"
    assert bench.filesystem_of(Path("/home"), "") == "unknown"


def test_times_of_answers_become_unix_seconds() -> None:
    assert bench.seconds_of("1970-01-01T00:01:40.250Z") == 100.25
    assert bench.seconds_of(None) == 0.0


def test_only_counts_that_are_not_zero_are_said() -> None:
    assert bench.counted(jobs=1200, too_late=0, refused=3) == "1,200 jobs, 3 refused"
    assert bench.counted(jobs=0) == ""


# ------------------------------------------------------------------------------------------------- outputs


def test_the_csv_has_one_row_a_job(tmp_path: Path) -> None:
    rows = [Row("first", 1.5, 2.25, 3.125), Row("second", 1.5, 2.0, 1_700_000_000.123456)]
    bench.write_csv(tmp_path / "jobs.csv", rows)
    with (tmp_path / "jobs.csv").open(newline="") as file:
        found = list(csv.reader(file))
    assert found[0] == ["id", "sent", "accepted", "finished"]
    assert found[1:] == [
        ["first", "1.500000", "2.250000", "3.125000"],
        ["second", "1.500000", "2.000000", "1700000000.123456"],
    ]


def test_the_json_has_environment_and_measures_by_key() -> None:
    measures = [
        Measure("a.per_s", "a", 12.5, "jobs/s", "note", Cost(1, 2, 3)),
        Measure("b.s", "b", 0.1, "s"),
    ]
    told = json.loads(bench.as_json({"fsync": "on"}, measures))
    assert told["environment"] == {"fsync": "on"}
    assert told["measures"]["a.per_s"]["cpu_s_per_1000"] == {"node": 1, "workers": 2, "load": 3}
    assert told["measures"]["b.s"] == {"value": 0.1, "unit": "s", "label": "b", "note": ""}


def test_the_table_shows_every_measure_and_its_cost() -> None:
    text = shown(
        [
            Measure("a", "jobs end to end", 12_345.6, "jobs/s", "200 jobs", Cost(0.5, 12.25, 123.0)),
            Measure("b", "p50", 0.5, "ms"),
        ]
    )
    assert "jobs end to end" in text
    assert "12,346" in text
    assert "0.50 / 12.2 / 123" in text
    assert "200 jobs" in text
    assert "0.50 │ ms" in text


@pytest.mark.parametrize(
    "wrong",
    [["--seconds", "0"], ["--seconds", "61"], ["--payload", "13"], ["--kills", "-1"], ["--queued", "0"]],
)
def test_what_would_run_for_ever_or_mean_nothing_is_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        bench.parse(wrong)


def test_quick_is_short() -> None:
    given = bench.parse(["--quick"])
    assert (given.seconds, given.kills, given.queued) == (0.5, 1, 600)


# ---------------------------------------------------------------------------------------- failover, by hand


class Survivors:
    """Answers for a job: not restarted at first, then restarted."""

    def __init__(self, answer: Callable[[int], str]) -> None:
        self.asked = 0
        self._answer = answer

    def get(self, job: str) -> bench.Job:
        self.asked += 1
        fields = {"started_at": self._answer(self.asked)}
        return bench.Job(job, "sleep", "running", False, None, None, fields)


def test_a_job_counts_as_restarted_only_by_a_start_after_the_kill() -> None:
    survivors = Survivors(lambda asked: f"1970-01-01T00:00:{9 if asked < 5 else 12:02}.500Z")
    assert bench.restarts(["a"], survivors, 10.0) == [2.5]  # type: ignore[arg-type]
    assert survivors.asked == 5


# -------------------------------------------------------------------------------------------- a whole run


def test_a_quick_run_measures_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    # Runs side by side must not look for ports at one place.
    base = Random(os.urandom(8)).randrange(FIRST_PORT, LAST_PORT)
    command = [sys.executable, bench.__file__, "--quick", "--base-port", str(base)]
    command += ["--json", str(tmp_path / "bench.json"), "--csv", str(tmp_path / "jobs.csv")]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=110, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert not ended.stderr
    told = json.loads((tmp_path / "bench.json").read_text())
    measures = told["measures"]
    parts = ("start", "idle", "latency", "end_to_end", "reads", "failover", "submit", "queued")
    assert {key.split(".")[0] for key in measures} == set(parts)
    for key, measure in measures.items():
        assert measure["value"] > 0 or key == "idle.cpu_percent", key
        assert measure["label"].strip() in ended.stdout
    assert told["environment"]["replicas (R)"] == 3
    assert told["environment"]["disks before a 202 (acks)"].startswith("2 to ")
    with (tmp_path / "jobs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert measures["end_to_end.jobs_per_s"]["note"] == f"{len(rows):,} jobs"
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert float(row["sent"]) < float(row["accepted"])
        assert float(row["sent"]) - 0.001 < float(row["finished"])  # told in whole milliseconds
    assert {path.name for path in tmp_path.iterdir()} == {"bench.json", "jobs.csv"}
    assert processes_of(tmp_path) == {}
