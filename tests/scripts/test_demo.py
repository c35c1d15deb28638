"""The demo: small runs with real nodes, and what it shows."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import demo
import pytest
from rich.console import Console
from samples import Job, Samples, check_outputs
from verdict import Evidence

from edgenode.task import load_tasks, run_task
from tests.processes import left_of

SCRIPT = Path(demo.__file__)
FIRST_PORT = 10_000
LAST_PORT = 30_000


def command(work: Path, *options: str) -> list[str]:
    # Demos that run side by side must not look for ports at one place.
    base = Random(os.urandom(8)).randrange(FIRST_PORT, LAST_PORT)
    common = ["--work", str(work), "--base-port", str(base)]
    return [sys.executable, str(SCRIPT), *common, *options]


def counted(output: str, name: str) -> int:
    found = re.search(rf"^  {name} +(\d+) ", output, re.MULTILINE)
    assert found is not None, output
    return int(found[1])


# ------------------------------------------------------------------------------------------ whole runs


def test_a_small_demo_loses_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    ended = subprocess.run(
        command(tmp_path, "--nodes", "3", "--jobs", "20", "--kills", "1"),
        capture_output=True,
        text=True,
        timeout=100,
    )
    output = ended.stdout
    assert ended.returncode == 0, output + ended.stderr
    assert not ended.stderr
    numbers = {name: counted(output, name) for name in ("accepted", "finished", "lost", "wrong")}
    # Small jobs are added until the node that is back has run one.
    assert numbers["accepted"] in range(20, 20 + demo.BATCH * demo.ROUNDS_MAX, demo.BATCH)
    assert numbers == {
        "accepted": numbers["accepted"],
        "finished": numbers["accepted"],
        "lost": 0,
        "wrong": 0,
    }
    assert counted(output, "unexplained") == 0
    assert len(re.findall(r"kill -9 \d+: node-\d is gone", output)) == 1
    assert re.search(r"^ +\d+ ms   until the first of its \d+ jobs? had another owner$", output, re.MULTILINE)
    ran_since = re.search(r"until it was back; it has run (\d+) jobs? since", output)
    assert ran_since is not None
    assert int(ran_since[1]) > 0
    assert output.rstrip().endswith("PASSED: nothing was lost")
    assert "\x1b" not in output
    assert list(tmp_path.iterdir()) == []
    assert left_of(tmp_path) == {}


@pytest.mark.parametrize(
    ("number", "at", "exit_code"),
    [(signal.SIGINT, "jobs sent", 130), (signal.SIGTERM, "nodes are starting", 143)],
)
def test_a_demo_that_is_told_to_end_takes_its_nodes_and_files_along(
    tmp_path: Path, number: signal.Signals, at: str, exit_code: int
) -> None:
    process = subprocess.Popen(
        command(tmp_path, "--nodes", "2", "--jobs", "10", "--kills", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if at in line:
                process.send_signal(number)
                break
        rest = process.stdout.read()
    assert process.returncode == exit_code, rest
    assert "stopped: all nodes have ended" in rest
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
    assert left_of(tmp_path) == {}


def test_options_that_make_no_sense_are_refused_before_anything_starts(tmp_path: Path) -> None:
    ended = subprocess.run(command(tmp_path, "--nodes", "3", "--kills", "3"), capture_output=True, text=True)
    assert ended.returncode == 2
    assert "--kills must leave a node alive" in ended.stderr


# -------------------------------------------------------------------------- planted losses are noticed


class Finished:
    """Jobs that were really run, and the evidence that their nodes would give."""

    def __init__(self, folder: Path) -> None:
        self.samples, self.jobs = demo.demo_jobs(folder, demo.JOBS_MIN, seed=3)
        registry = load_tasks(["edgenode.tasks"])
        self.results = [run_task(job.task, job.payload, registry=registry) for job in self.jobs]

    def evidence(self) -> Evidence:
        records = {str(number): job_record(result) for number, result in enumerate(self.results)}
        readings = {"node-1": dict(records), "node-2": dict(records)}
        wrong = check_outputs(self.samples, self.jobs, self.results)
        return Evidence(len(self.jobs), list(records), readings, wrong=wrong)

    def a_file(self, task: str) -> Path:
        return next(Path(job.payload["target"]) for job in self.jobs if job.task == task)


def job_record(result: Any) -> dict[str, Any]:
    return {
        "state": "succeeded",
        "settled": True,
        "result": result,
        "error": None,
        "owner": "a",
        "runner": "a",
        "starts": 1,
        "started_at": "2026-01-01T00:00:00.000Z",
        "finished_at": "2026-01-01T00:00:01.000Z",
        "history": [],
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(tmp_path_factory.mktemp("demo"))


def concluded(evidence: Evidence) -> tuple[int, str]:
    """The exit code and what is printed."""
    output = StringIO()
    return demo.conclude(Console(file=output, width=demo.WIDE), evidence, 1.0), output.getvalue()


def test_the_exit_code_is_0_when_all_is_right(finished: Finished) -> None:
    exit_code, output = concluded(finished.evidence())
    assert exit_code == 0, output
    assert "PASSED" in output


def test_the_exit_code_is_1_when_one_node_does_not_know_a_job(finished: Finished) -> None:
    evidence = finished.evidence()
    planted = {**evidence.readings["node-2"], "4": None}
    evidence = Evidence(
        evidence.sent, evidence.accepted, {"node-1": evidence.readings["node-1"], "node-2": planted}
    )
    exit_code, output = concluded(evidence)
    assert exit_code == 1
    assert counted(output, "lost") == 1
    assert "job 4 is lost: node-2 found no record" in output
    assert "PASSED" not in output


@pytest.mark.parametrize("task", ["image.resize", "data.enrich"])
def test_the_exit_code_is_1_when_a_file_was_changed(finished: Finished, task: str) -> None:
    path = finished.a_file(task)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        exit_code, output = concluded(finished.evidence())
    finally:
        path.write_bytes(content)
    assert exit_code == 1
    assert counted(output, "wrong") == 1
    assert str(path) in output


def test_many_problems_are_counted_and_not_all_printed(finished: Finished) -> None:
    evidence = finished.evidence()
    wrong = [f"file {number}: was not written" for number in range(demo.PROBLEMS_SHOWN + 5)]
    _, output = concluded(Evidence(evidence.sent, evidence.accepted, evidence.readings, wrong=wrong))
    assert counted(output, "wrong") == demo.PROBLEMS_SHOWN + 5
    assert "and 5 more problems" in output


# ------------------------------------------------------------------------------------- what it shows


def shown(owner: str, state: str = "queued", runner: str | None = None, **more: Any) -> dict[str, Any]:
    return {"owner": owner, "state": state, "runner": runner, "settled": False, "history": [], **more}


def look(*records: dict[str, Any]) -> demo.Look:
    return demo.Look({str(number): record for number, record in enumerate(records)}, {})


def test_the_node_to_kill_owns_most_running_jobs_wherever_they_run() -> None:
    seen = look(
        *(shown("a") for _ in range(9)),
        shown("a", "running", "a"),
        shown("b", "running", "a"),
        shown("b", "running", "c"),
    )
    assert demo.busiest(seen, ["a", "b", "c"]) == "b"
    assert demo.busiest(seen, ["a", "c"]) == "a"


def test_there_is_no_node_to_kill_when_nothing_runs() -> None:
    assert demo.busiest(look(shown("a"), shown("b", "succeeded", "b")), ["a", "b"]) is None


def test_takeovers_are_read_from_the_histories() -> None:
    at = "2026-01-01T00:00:01.500Z"
    history = [
        {"at": at, "kind": "start lost", "node": "b", "detail": "runner a is gone"},
        {"at": at, "kind": "takeover", "node": "b", "detail": "from a: its process ended"},
        {"at": at, "kind": "takeover", "node": "b", "detail": "from a stranger: silence"},
    ]
    (took,) = demo.takeovers({"7": shown("b") | {"history": history}}, ["a", "b"])
    assert took == demo.Took("7", "b", "a", "its process ended", demo.moment(at))


@pytest.mark.parametrize(
    ("believed", "is_dead", "state"),
    [
        ("ready", False, "ready"),
        ("suspect", False, "suspect"),
        ("ready", True, "killed"),
        ("dead", True, "dead"),
        ("dead", False, "starting"),
        (None, False, "starting"),
    ],
)
def test_a_process_that_is_known_to_be_gone_is_not_shown_as_ready(
    believed: str | None, is_dead: bool, state: str
) -> None:
    assert demo.state_text(believed, is_dead=is_dead) == state


def view(done: int) -> demo.View:
    rows = [
        demo.Row("node-1", "4711", "ready", "3", "1", "2", str(done), "2 jobs of node-2, 1 s ago"),
        demo.Row("node-2", "", "dead", "0", "0", "0", "1", ""),
    ]
    return demo.View(rows, total=20, sent=18, done=done, running=2)


def test_without_a_terminal_progress_is_a_line_for_each_tenth() -> None:
    output = StringIO()
    screen = demo.PlainScreen(Console(file=output, width=demo.WIDE), began=0.0)
    for done in (0, 1, 2, 3, 20):
        screen.show(view(done))
    lines = [line.partition(" s  ")[2] for line in output.getvalue().splitlines()]
    assert lines[1] == "2 of 20 jobs done, 2 running, 14 waiting"
    assert len(lines) == 3


def test_on_a_terminal_the_nodes_stay_below_the_events() -> None:
    output = StringIO()
    console = Console(file=output, force_terminal=True, width=110, height=40, _environ={})
    with demo.LiveScreen(console, began=0.0) as screen:
        screen.show(view(3))
        screen.say("kill -9 4712: node-2 is gone")
        screen.show(view(5))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue())
    after = text.partition("node-2 is gone")[2]
    for expected in ("last takeover", "node-1", "2 jobs of node-2, 1 s ago", "5 of 20 jobs done"):
        assert expected in after


def test_a_demo_has_exactly_the_jobs_that_were_asked_for(tmp_path: Path) -> None:
    samples, jobs = demo.demo_jobs(tmp_path, 13, seed=1)
    assert isinstance(samples, Samples)
    assert len(jobs) == 13
    assert {job.task for job in jobs} == {"image.resize", "data.enrich", "chain.verify", "compute.pi"}
    assert all(isinstance(job, Job) for job in jobs)
