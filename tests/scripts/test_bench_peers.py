"""Other systems beside the mesh: which are there, what they say of themselves, and how that is shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import bench_peers
import pytest
from bench_figures import Cost, Figures
from rich.console import Console

from tests.processes import processes_of

ROW: dict[str, Any] = {
    "system": "Other",
    "versions": "other 1.2",
    "accepted": "nothing",
    "submit_per_s": None,
    "jobs_per_s": 250.0,
    "one_p50_ms": 2.5,
    "one_p99_ms": 12.25,
    "system_us": 1500.0,
    "client_us": 30.5,
}


def figures_of_ours() -> Figures:
    found = Figures()
    for kind, rate in (("workers", 1000.0), ("inline", 4000.0)):
        whole, used = f"end_to_end.{kind}", Cost(40.0, 20.0, 10.0, 0.0, 0.0)
        found.add(f"{whole}.batch.jobs_per_s", "", 2 * rate, "jobs/s")
        found.add(f"{whole}.batch.accepted_per_s", "", 3 * rate, "jobs/s")
        found.add(f"{whole}.answers.jobs_per_s", "", rate, "jobs/s", cost=used)
        found.add(f"latency.{kind}.idle.p50_ms", "", 1.5, "ms")
        found.add(f"latency.{kind}.idle.p99_ms", "", 4.5, "ms")
    return found


def test_our_own_rows_have_results_read_back_as_those_of_the_others_and_workers_are_the_base() -> None:
    workers, inline = bench_peers.ours(figures_of_ours())
    assert workers["jobs_per_s"] == 1000.0, "of results that the client has"
    assert (workers["system_us"], workers["client_us"]) == (60.0, 10.0)
    assert (workers["is_base"], inline["is_base"]) == (True, False)
    assert bench_peers.base_rate([inline, workers, ROW]) == 1000.0


def test_what_was_not_measured_of_ours_is_no_row() -> None:
    found = Figures()
    for measure in figures_of_ours().measures:
        if not measure.key.startswith("latency.inline"):
            found.add(*measure)
    assert [row["system"] for row in bench_peers.ours(found)] == ["edgenode, 3 nodes, workers"]
    assert bench_peers.ours(Figures()) == []


def test_the_ratio_is_our_rate_over_theirs() -> None:
    assert bench_peers.cells(ROW, 1000.0) == (
        "Other (other 1.2)", "nothing", "(lazy)", "250", "4.00", "2.50 / 12.2", "1,500 / 30.5"
    )  # fmt: skip
    assert bench_peers.cells(ROW | {"submit_per_s": 1234.5}, None)[2:5] == ("1,234", "250", "")


def test_of_several_turns_the_median_rate_counts_and_a_failure_only_if_there_is_nothing_else() -> None:
    failed = {"system": "Other", "why": "failed"}
    rows = [ROW | {"jobs_per_s": rate} for rate in (9.0, 1.0, 4.0)]
    assert bench_peers.medians([failed, *rows]) == [rows[2]]
    assert bench_peers.medians([failed, failed]) == [failed]


def test_a_program_that_fails_is_a_row_with_its_last_words() -> None:
    (row,) = bench_peers.parse("Ray", 1, "half", "Traceback\nRuntimeError: no room\n")
    assert row == {"system": "Ray", "why": "failed: RuntimeError: no room"}
    (row,) = bench_peers.parse("Ray", -9, "", "")
    assert row["why"] == "failed: exit code -9"
    assert bench_peers.parse("Other", 0, f"warning\n{json.dumps([ROW])}\n", "noise") == [ROW]
    out = StringIO()
    Console(file=out, width=200).print(bench_peers.table([ROW, row]))
    assert "failed: exit code -9" in out.getvalue()


@pytest.fixture
def bare_python(tmp_path: Path) -> str:
    """An interpreter that has none of the systems: nothing but the standard library."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -E -S "$@"\n')
    script.chmod(0o755)
    return str(script)


RUN = """
import json, sys
import bench_peers
print(json.dumps(bench_peers.measure(sys.argv[1], 0.1, 100, lambda text: None)))
"""


def test_systems_that_are_not_installed_are_one_line_each(bare_python: str, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    scripts = os.path.dirname(bench_peers.__file__)
    ended = subprocess.run(
        [sys.executable, "-c", RUN, bare_python],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"PYTHONPATH": scripts, "TMPDIR": str(scratch), "PATH": str(tmp_path)},
    )
    rows = json.loads(ended.stdout)
    assert len(rows) == len(bench_peers.PEERS) + 1, "JetStream is there twice"
    for row in rows:
        assert row["why"].startswith("not installed: "), row
    assert list(scratch.iterdir()) == []
    assert processes_of(tmp_path) == {}


def test_an_interpreter_that_is_not_there_is_said_too(tmp_path: Path) -> None:
    (row,) = bench_peers._one(str(tmp_path / "none"), "echo_ray.py", "Ray", 0.1, 86, str(tmp_path), [1])
    assert row["why"].startswith("not installed: ")


PRETENDS = """
from collections.abc import Sequence
import sys
sys.path.insert(0, {peers!r})
from peer import Peer, main
class Pretender(Peer):
    name, accepted = "Pretender", "nothing"
    def start(self):
        self.server(sys.executable, "-c", "import signal; signal.pause()")
        return "1"
    def submit(self, messages):
        self.sent = list(messages)
    def collect(self):
        return self.sent[{loses}:]
    def one(self, message):
        return message
main(Pretender)
"""


@pytest.mark.parametrize("loses", [0, 1])
def test_a_system_that_loses_a_result_has_no_figures(loses: int, tmp_path: Path) -> None:
    peers = str(bench_peers.FOLDER)
    program = tmp_path / "pretender.py"
    program.write_text(PRETENDS.format(peers=peers, loses=loses))
    command = [sys.executable, str(program), "--seconds", "0.05", "--message", "86"]
    command += ["--folder", str(tmp_path), "--ports", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    (row,) = bench_peers.parse("Pretender", ended.returncode, ended.stdout, ended.stderr)
    assert processes_of(tmp_path) == {}
    if loses:
        assert row["why"] == "failed: ValueError: 200 messages were sent, and 199, or others, came back"
    else:
        assert row["jobs"] >= 200
        assert row["jobs_per_s"] > 0
        assert row["one_p50_ms"] > 0
