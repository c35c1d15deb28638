"""The bench: its options, and very small runs with real nodes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import bench
import pytest

from tests.processes import left_of, processes_of

FIRST_PORT = 10_000
LAST_PORT = 30_000
MAY_BE_ZERO = (
    "idle.cpu_percent",
    "held.queued.300.bytes_per_job",
    "held.finished.300.calm_s",
    "held.finished.300.cpu_percent",
)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--seconds", "0"],
        ["--seconds", "61"],
        ["--payload", "13"],
        ["--kills", "-1"],
        ["--held", "0"],
        ["--held", "10,1000001"],
        ["--held", "ten"],
        ["--only", "latency,everything"],
        ["--fill-s", "0"],
        ["--repeat", "0"],
    ],
)
def test_what_would_run_for_ever_or_mean_nothing_is_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        bench.parse(wrong)


def test_quick_is_short_and_what_is_said_beside_it_counts() -> None:
    given = bench.parse(["--quick"])
    assert (given.seconds, given.kills, given.held) == (0.4, 1, (600,))
    given = bench.parse(["--quick", "--held", "90,20", "--kills", "0"])
    assert (given.seconds, given.kills, given.held) == (0.4, 0, (20, 90))


def test_the_command_that_is_told_makes_such_a_run_again_wherever_its_files_were() -> None:
    words = ["--repeat", "3", "--json", "/tmp/a.json", "--plot=/tmp/a.svg", "--peers", "--base-port", "9000"]
    assert bench.parse(words).command == "python scripts/bench.py --repeat 3 --peers"


def test_help_names_every_part() -> None:
    lines = [line.split()[:1] for line in (bench.__doc__ or "").splitlines() if line.startswith("    ")]
    assert {first for words in lines for first in words} >= set(bench.PARTS)


def run(tmp_path: Path, only: str, *more: str) -> tuple[dict[str, Any], str]:
    """The JSON that a short run writes, and what it prints; it leaves nothing behind."""
    # Runs side by side must not look for ports at one place.
    base = Random(os.urandom(8)).randrange(FIRST_PORT, LAST_PORT)
    command = [sys.executable, bench.__file__, "--quick", "--only", only, "--base-port", str(base), *more]
    ended = subprocess.run(
        [*command, "--json", str(tmp_path / "bench.json")],
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert not ended.stderr
    assert left_of(tmp_path) == {}
    told = json.loads((tmp_path / "bench.json").read_text())
    (tmp_path / "bench.json").unlink()
    assert told["faults"] == []
    for key, measure in told["measures"].items():
        assert measure["value"] > 0 or key in MAY_BE_ZERO, key
    return told, ended.stdout


def test_a_quick_run_measures_throughput_and_latency_and_has_a_row_for_each_job_of_a_batch(
    tmp_path: Path,
) -> None:
    jobs = tmp_path / "jobs.csv"
    only = "latency,end-to-end,half-load,run,reads,submit"
    told, printed = run(tmp_path, only, "--seconds", "0.2", "--csv", str(jobs))
    measures = told["measures"]
    for kind in ("workers", "inline"):
        for load in ("idle", "half"):
            assert {f"latency.{kind}.{load}.{name}_ms" for name in ("p50", "p95", "p99")} <= set(measures)
        for clients in ("1", "16", "64", "batch", "answers"):
            assert measures[f"end_to_end.{kind}.{clients}.jobs_per_s"]["per_job"]["nodes_us"] > 0
        assert measures[f"run.{kind}.jobs_per_s"]["per_job"]["link_bytes"] > 0
    assert measures["run.workers.jobs_per_s"]["per_job"]["workers_us"] > 0
    assert measures["submit.batch.jobs_per_s"]["per_job"]["disk_bytes"] > 0
    assert "reads.per_s" in measures
    assert "end to end, inline, batches of 200, results read" in printed
    assert told["environment"]["replicas (R)"] == 3
    assert told["environment"]["disks before a 202 (acks)"].startswith("2 to ")
    with jobs.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["id"] for row in rows}) == len(rows) >= 400
    for row in rows:
        assert float(row["sent"]) < float(row["accepted"])
        assert float(row["sent"]) - 0.001 < float(row["finished"])  # told in whole milliseconds
    assert {path.name for path in tmp_path.iterdir()} == {"jobs.csv"}


def test_memory_is_told_with_the_number_of_jobs_that_it_was_measured_at(tmp_path: Path) -> None:
    told, printed = run(tmp_path, "start,idle,held,finished", "--held", "300", "--repeat", "2")
    measures = told["measures"]
    assert measures["held.queued.300.count"]["value"] == 300
    assert measures["held.finished.300.count"]["value"] == 500  # and the batch that they are copies of
    assert measures["held.queued.300.per_s"]["per_job"]["nodes_us"] > 0
    assert {"held.queued.rate_ratio", "held.queued.cpu_ratio", "held.queued.again_s"} <= set(measures)
    assert measures["held.queued.rate_ratio"]["value"] > 0
    assert "memory of a node with 300 queued jobs" in printed
    assert "memory of a node with 500 finished jobs" in printed
    assert "start of a node with 600 queued jobs" in printed, "as many again came in one turn"
    assert printed.count("  start\n") == 2
    assert printed.count("  held\n") == 1, "it is not repeated"
    paces = ("held.pace.0.jobs_per_s", "held.pace.300.jobs_per_s", "held.pace.300.cpu_ratio")
    assert {"start.mesh_s", "start.again_s", "idle.rss_mib", "held.finished.300.again_s", *paces} <= set(
        measures
    )
    assert list(tmp_path.iterdir()) == []


def test_failover_and_lateness_are_measured_on_real_nodes(tmp_path: Path) -> None:
    told, _ = run(tmp_path, "late,failover")
    wanted = ("late.day.p99_ms", "late.timeout.p99_ms", "failover.kill.worst_s", "failover.pause.worst_s")
    assert {*wanted, "failover.leave.worst_s"} <= set(told["measures"])


def test_a_bench_that_is_told_to_end_ends_its_nodes(tmp_path: Path) -> None:
    base = Random(os.urandom(8)).randrange(FIRST_PORT, LAST_PORT)
    command = [sys.executable, "-u", bench.__file__, "--seconds", "60", "--only", "idle"]
    with subprocess.Popen(
        [*command, "--base-port", str(base)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        assert "idle" in process.stdout.readline()
        assert len(processes_of(tmp_path)) >= 3
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "stopped\n"
    assert process.returncode == 130
    assert left_of(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_fails_is_told_and_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: bench.Bench) -> None:
        raise bench.EdgeNodeError("no mesh today")

    def works(given: bench.Bench) -> None:
        given.figures.add("held.x", "x", 1.0, "s")

    monkeypatch.setattr(bench, "PARTS", {"failover": fails, "held": works})
    options = bench.Options(1.0, 100, 1, (1,), 1.0, FIRST_PORT)
    with bench.Bench(options, tmp_path, lambda text: None) as made:
        bench.measure(made, ["failover", "held"], {})
    assert [measure.key for measure in made.figures.measures] == ["held.x"]
    assert made.figures.faults == ["failover: no mesh today"]
