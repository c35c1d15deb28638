"""`edgenode simulate`: runs, stories, and what it exits with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgenode.cli import app
from edgenode.sim.campaign import campaign
from edgenode.sim.faults import Family
from edgenode.sim.ledger import Ledger
from edgenode.sim.trial import Plan
from edgenode.sim.violation import Violation

SHORT = ("--seconds", "3")
CALM = tuple(word for family in Family for word in ("--without", family))


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["simulate", *arguments])


def broken(*args: object, **named: object) -> None:
    raise Violation("I5: planted")


def test_one_seed_says_what_it_was_and_what_struck() -> None:
    result = simulate("--seed", "11", "--nodes", "4", "--replicas", "2", *SHORT)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("seed 11 kept every promise\n  mesh    4 nodes, 2 copies of a job\n")
    assert " acknowledged, " in result.output
    assert "  faults  " in result.output


def test_the_same_seed_is_the_same_run() -> None:
    one, other, another = (
        simulate("--seed", seed, *SHORT).output.split("digest")[1] for seed in ("3", "3", "4")
    )
    assert one == other
    assert one != another


def test_without_any_faults_nothing_strikes() -> None:
    result = simulate("--seed", "15", *SHORT, *CALM)
    assert result.exit_code == 0, result.output
    assert "  faults  nothing\n" in result.output


def test_the_story_is_of_one_job_and_the_trace_of_all_or_of_one() -> None:
    story = simulate("--seed", "15", *SHORT, *CALM, "--story", "--job", "j1").output
    assert story.startswith("j1, job 018b")
    assert "  submitted to " in story
    assert "  settled as " in story
    trace = simulate("--seed", "15", *SHORT, *CALM, "--trace").output
    about_one = simulate("--seed", "15", *SHORT, *CALM, "--trace", "--job", "j1").output
    assert 0 < about_one.count(" < Run j1 ") <= trace.count(" < Run j")
    assert len(about_one) < len(trace) / 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seeds", "0"],
        ["--processes", "0"],
        ["--seconds", "0"],
        ["--nodes", "10"],
        ["--replicas", "6"],
        ["--without", "luck"],
        ["--seeds", "2", "--story"],
        ["--job", "j1"],
        ["--story", "--job", "j100000", *SHORT],
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str]) -> None:
    assert simulate(*arguments).exit_code == 2


def test_a_broken_promise_is_told_with_the_faults_drawn_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Ledger, "run", broken)
    result = simulate("--seed", "7", *SHORT)
    assert result.exit_code == 1
    assert result.output.startswith("seed 7 FAILED: Violation: I5: planted\nfaults as drawn: Faults(mood=")
    assert "edgenode simulate --seed 7 --trace" in result.output
    many = simulate("--seed", "5", "--seeds", "3", "--processes", "2", *SHORT, "--json")
    assert many.exit_code == 1
    fields = json.loads(many.stdout)
    assert [each["seed"] for each in fields["failed"]] == sorted(each["seed"] for each in fields["failed"])
    assert 7 in [each["seed"] for each in fields["failed"]]


def test_a_core_that_breaks_down_is_told_with_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "run", lambda *args: {}["nothing"])
    result = simulate("--seed", "7", *SHORT)
    assert result.exit_code == 1
    assert "seed 7 FAILED: KeyError: 'nothing'\nTraceback" in result.output


def test_many_seeds_say_how_often_and_in_how_many_of_them_each_fault_struck() -> None:
    result = simulate("--seed", "10", "--seeds", "4", "--processes", "2", *SHORT)
    assert result.exit_code == 0, result.output
    assert "4 of 4 seeds, 0 failed" in result.stdout
    (kills,) = [line.split() for line in result.stdout.splitlines() if line.startswith("kill one ")]
    assert kills[4:] == ["--without", "kills"]
    assert int(kills[2]) >= int(kills[3])
    assert result.stdout.endswith("every promise was kept\n")


def test_scripts_get_one_document() -> None:
    fields = json.loads(simulate("--seed", "15", *SHORT, "--story", "--json").stdout)
    assert fields["passed"] == 1
    assert fields["failed"] == []
    assert fields["story"]["passages"][0]["text"].startswith("submitted to ")
    several = json.loads(simulate("--seeds", "3", "--processes", "3", *SHORT, "--json").stdout)
    alone = [json.loads(simulate("--seed", seed, *SHORT, "--json").stdout) for seed in "012"]
    assert several["events"] == sum(each["events"] for each in alone)


def test_who_stops_listening_to_a_campaign_leaves_no_processes() -> None:
    told = campaign([Plan(seed, hurt_s=2.0) for seed in range(50)], 2)
    next(told)
    told.close()
    assert children(os.getpid()) == []


def children(of: int) -> list[str]:
    return [
        word
        for path in Path(f"/proc/{of}/task").glob("*/children")
        for word in path.read_text().split()
        if "resource_tracker" not in Path(f"/proc/{word}/cmdline").read_text()
    ]


def test_an_interrupt_ends_all_says_how_far_it_came_and_exits_with_130() -> None:
    command = [sys.executable, "-m", "edgenode", "simulate", "--seeds", "5000", "--processes", "2", *SHORT]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        assert "of 5,000 seeds" in process.stderr.readline()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all of them hear it
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "of 5,000 seeds, 0 failed" in said
    assert "Traceback" not in errors
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
