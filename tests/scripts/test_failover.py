"""The failover measurement: its statistics, what it reads out of marks, logs and records, and a short run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from math import inf
from pathlib import Path
from random import Random

import distribution
import failover
import pytest
import serf
from distribution import Distribution, Promise
from failover import Blow, Leave, Mark, Results, Said, Starved

from tests.processes import left_of

FIRST_PORT = 10_000
LAST_PORT = 22_000


# --------------------------------------------------------------------------------------- distributions


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    assert distribution.percentile(list(range(100, 0, -1)), share) == expected


def test_the_percentile_of_few_values_is_never_below_its_share() -> None:
    assert distribution.percentile([1.0, 2.0, 3.0], 0.5) == 2.0
    assert distribution.percentile([1.0, 2.0, 3.0], 0.99) == 3.0
    assert distribution.percentile([7.0], 0.01) == 7.0


def test_one_of_a_hundred_may_be_late_but_not_two_and_of_fifty_none() -> None:
    promise = Promise("it", 0.25)
    assert promise.verdict([0.1] * 99 + [9.0])[0]
    assert not promise.verdict([0.1] * 98 + [9.0, 9.0])[0]
    assert not promise.verdict([0.1] * 49 + [0.3])[0]
    assert promise.verdict([0.25] * 50) == (True, "it: p99 0.250 s, promised 0.25 s, kept in 100%: HOLDS")


def test_what_never_came_breaks_a_promise_and_is_shown() -> None:
    values = [0.1, 0.2, inf]
    kept, text = Promise("it", 2.0).verdict(values)
    assert not kept
    assert text == "it: p99 never s, promised 2 s, kept in 67%: MISSED"
    assert Distribution.of(values).max == inf
    assert distribution.row("label", values).split() == [
        "label",
        "3",
        "0.100",
        "0.200",
        "never",
        "never",
        "never",
    ]
    assert list(distribution.histogram(values))[-1].split() == ["never", "1", "#"]


def test_the_bars_of_a_histogram_hold_every_value_once() -> None:
    dice = Random(7)
    values = [dice.uniform(0.04, 0.3) for _ in range(1000)]
    lines = list(distribution.histogram(values))
    assert len(lines) <= distribution.BARS_MAX + 1
    assert sum(int(line.split()[4]) for line in lines) == 1000
    for line in lines:
        low, _, high, _, count, *bar = line.split()
        between = sum(int(low) / 1000 <= value < int(high) / 1000 for value in values)
        assert int(count) == between
        assert len("".join(bar)) <= distribution.BAR_CHARS


@pytest.mark.parametrize(
    ("span_s", "width_s"), [(0.0, 0.001), (0.02, 0.002), (0.2, 0.02), (1.0, 0.1), (30, 5)]
)
def test_bars_are_of_a_round_width(span_s: float, width_s: float) -> None:
    assert distribution.bar_width_s(span_s) == pytest.approx(width_s)


# ---------------------------------------------------------------------------------------- what is read


MARKS = """\
100.500000 job-a 1 node-x 1 11
100.600000 job-b 1 node-x 1 11
101.250000 job-a 2 node-y 2 22
101.300000 job-b 2 node-z 2 33
101.900000 job-b 3 node-y 3 22
102.0000"""


def test_a_line_that_is_still_being_written_is_no_mark_yet() -> None:
    marks = failover.parse_marks(MARKS)
    assert len(marks) == 5
    assert marks[0] == Mark(100.5, "job-a", 1, "node-x", 1, 11)
    assert failover.parse_marks("102.0000") == []


def test_a_restart_is_the_first_start_in_another_process_after_the_blow() -> None:
    marks = failover.parse_marks(MARKS)
    assert failover.restarts(marks, {"job-a", "job-b"}, 11, 101.0) == {"job-a": 101.25, "job-b": 101.3}
    assert failover.restarts(marks, {"job-b"}, 33, 101.0) == {"job-b": 101.9}
    assert failover.restarts(marks, {"job-a"}, 11, 101.5) == {}
    assert failover.restarts(marks, {"job-c"}, 11, 0.0) == {}


LOG = """\
node-3 (abc) serves http://127.0.0.1:8703
2026-03-01 12:00:00,100 WARNING member-dead: node-1 (abc) is dead: its port refuses
2026-03-01 12:00:05,250 INFO    member-suspected: node-1 (abc) does not answer
2026-03-01 12:00:06,000 WARNING member-dead: node-10 (def) is dead: it is silent
2026-03-01 12:00:06,375 WARNING member-dead: node-1 (abc) is dead: it is silent
"""
LOG_BEGAN = datetime(2026, 3, 1, 12, 0, 0).timestamp()


def test_a_death_is_read_from_a_log_with_its_time_and_only_of_the_member_meant() -> None:
    said = failover.parse_log(LOG)
    assert [each.kind for each in said] == ["member-dead", "member-suspected", "member-dead", "member-dead"]
    assert failover.death_of(said, "node-1", LOG_BEGAN) == pytest.approx(LOG_BEGAN + 0.1)
    assert failover.death_of(said, "node-1", LOG_BEGAN + 1) == pytest.approx(LOG_BEGAN + 6.375)
    assert failover.death_of(said, "node-2", LOG_BEGAN) == inf
    assert failover.death_of([Said(7.0, "member-dead", "node-1 (abc) is dead")], "node-1", 7.0005) == 7.0


def record(*notes: tuple[str, str, str]) -> dict[str, object]:
    return {
        "history": [{"at": at, "kind": kind, "node": "b", "detail": detail} for at, kind, detail in notes]
    }


def test_jobs_are_taken_over_when_the_last_of_them_is_and_never_while_one_is_not() -> None:
    first = record(
        ("1970-01-01T00:00:01.000Z", "takeover", "from a: silence"),
        ("1970-01-01T00:00:10.500Z", "takeover", "from a: its process ended"),
        ("1970-01-01T00:00:20.000Z", "takeover", "from b: gift"),
    )
    second = record(("1970-01-01T00:00:10.750Z", "provisional takeover", "from a: silence"))
    lost = record(("1970-01-01T00:00:10.750Z", "start lost", "runner a is gone"))
    assert failover.last_takeover([first, second], "a", 10.0) == 10.75
    assert failover.last_takeover([first], "a", 10.0) == 10.5
    assert failover.last_takeover([first, lost], "a", 10.0) == inf


def test_what_serf_says_of_its_members_is_read() -> None:
    line = "    2026/03/01 12:00:00 [INFO] serf: EventMemberFailed: agent-2 127.0.0.1"
    assert serf.event_of(line) == ("Failed", "agent-2")
    assert serf.event_of(line.replace("Failed", "Join")) == ("Join", "agent-2")
    assert serf.event_of("2026/03/01 12:00:00 [INFO] memberlist: Suspect agent-2 has failed") is None


# ------------------------------------------------------------------------------------------ the verdict


def blow(last_s: float) -> Blow:
    return Blow("kill", 1, "node-1", 8, 0.03, 0.04, 0.06, 0.08, last_s)


def test_one_missed_promise_is_enough_to_fail() -> None:
    results = Results()
    lines = list(results.blow_lines([blow(0.1), blow(0.2)], failover.KILL))
    assert "THE LAST OF THEM HAS STARTED        2    0.100    0.100    0.200    0.200    0.200" in lines[5]
    assert results.holds
    results.leaves = [Leave(0, "node-1", 8, 20, 0.05, 1.0, extra_starts=1)]
    assert "20 jobs moved, 1 starts too many" in list(results.leave_lines())
    assert not results.holds
    assert results.verdicts[-1] == (False, "SIGTERM: 1 jobs ran twice: MISSED")


def test_one_death_is_enough_to_fail_a_starved_mesh() -> None:
    results = Results()
    results.starved = Starved(600.0, 1000, (), {"member-suspected": 3})
    assert list(results.starve_lines())[-1] == "starved node: 0 deaths in 600 s: HOLDS"
    assert results.holds
    results.starved = results.starved._replace(deaths=("node-2 says: node-1 is dead",))
    assert "node-2 says: node-1 is dead" in list(results.starve_lines())
    assert not results.holds


def test_results_are_written_for_programs_in_two_ways(tmp_path: Path) -> None:
    results = Results()
    results.blows = [blow(0.1), blow(inf)]
    results.leaves = [Leave(0, "node-1", 8, 20, 0.05, 1.0, 0)]
    options = failover.parse(["--quick"])
    results.save(tmp_path / "all.json", options)
    told = json.loads((tmp_path / "all.json").read_text())
    assert [each["last_s"] for each in told["blows"]] == [0.1, None]
    assert told["summary"]["kill"]["p50"] == 0.1
    assert told["options"]["kills"] == 3
    results.save(tmp_path / "all.csv", options)
    lines = (tmp_path / "all.csv").read_text().splitlines()
    assert lines[0] == ",".join(Blow._fields)
    assert len({line.count(",") for line in lines}) == 1
    assert len(lines) == 4


# --------------------------------------------------------------------------------------------- options


def test_quick_is_few_of_each_unless_said_otherwise() -> None:
    given = failover.parse(["--quick", "--kills", "7"])
    assert (given.kills, given.pauses, given.starve_s) == (7, 1, 0.0)
    given = failover.parse([])
    assert (given.kills, given.pauses, given.cuts, given.starve_s) == (100, 50, 50, 600.0)


@pytest.mark.parametrize(
    "options",
    [["--nodes", "2"], ["--jobs", "0"], ["--kills", "-1"], ["--out", "figures.txt"], ["--profile", "x"]],
)
def test_options_that_make_no_sense_are_refused(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        failover.parse(options)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------- a whole run


def command(*options: str) -> list[str]:
    # Runs side by side must not look for ports at one place.
    base = Random(os.urandom(8)).randrange(FIRST_PORT, LAST_PORT)
    return [sys.executable, failover.__file__, "--base-port", str(base), *options]


def test_a_short_run_sees_jobs_start_elsewhere_and_leaves_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    options = ["--quick", "--kills", "1", "--jobs", "2", "--cuts", "0", "--serf", "0", "--out", str(out)]
    ended = subprocess.run(
        command(*options),
        capture_output=True,
        text=True,
        timeout=150,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    # How quick it was is no matter for a machine that is busy with other tests.
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr
    assert not ended.stderr
    assert out.exists(), ended.stdout
    told = json.loads(out.read_text())
    assert [each["kind"] for each in told["blows"]] == ["kill", "pause"]
    for each in told["blows"]:
        assert each["jobs"] >= 2
        assert None not in each.values(), "something never happened"
        assert 0 < each["dead_s"] <= each["all_dead_s"]
        assert 0 < each["first_s"] <= each["last_s"]
        # A takeover's time is a record's: in whole milliseconds, of a clock that is set once a second.
        assert each["dead_s"] <= each["taken_s"] + 0.02
        assert each["taken_s"] <= each["last_s"] + 0.02
    (left,) = told["leaves"]
    assert left["moved"] > 0
    assert left["extra_starts"] == 0
    assert "SIGTERM: 0 jobs ran twice: HOLDS" in ended.stdout
    assert list(tmp_path.iterdir()) == [out]
    assert left_of(tmp_path) == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_end_takes_its_nodes_and_files_along(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        command("--kills", "50", "--jobs", "2", "--starve-s", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if "kill -9 of a node" in line:
                process.send_signal(number)
                break
        rest = process.stdout.read()
    assert process.returncode == 130, rest
    assert "stopped: all nodes have ended" in rest
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
    assert left_of(tmp_path) == {}
