"""The demo's verdict: what it must call lost, and the times that it reads from the records."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from verdict import Evidence, Kill, judge, why_lost

BEGAN = 1_700_000_000.0
"""When the kill was, in these stories."""


def moment(after_s: float) -> str:
    text = datetime.fromtimestamp(BEGAN + after_s, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def note(after_s: float, kind: str, detail: str, node: str = "b") -> dict[str, Any]:
    return {"at": moment(after_s), "kind": kind, "node": node, "detail": detail}


def record(**changes: Any) -> dict[str, Any]:
    """A job that ran once on node b, before the kill."""
    fields = {
        "state": "succeeded",
        "settled": True,
        "result": {"n": 1},
        "error": None,
        "runner": "b",
        "starts": 1,
        "started_at": moment(-2),
        "finished_at": moment(-1),
        "history": [],
    }
    return fields | changes


def interrupted(taken_s: float = 0.1, started_s: float = 0.25) -> dict[str, Any]:
    """A job that a owned and ran when it was killed, and that b went on with."""
    history = [
        note(taken_s, "start lost", "runner a is gone"),
        note(taken_s, "takeover", "from a: its process ended"),
    ]
    return record(starts=2, started_at=moment(started_s), finished_at=moment(9), history=history)


def evidence(*records: dict[str, Any], kills: tuple[Kill, ...] = ()) -> Evidence:
    """Nodes b and c agree on these jobs, and everything that was sent was accepted."""
    jobs = {f"job-{number}": found for number, found in enumerate(records)}
    readings = {"node-b": dict(jobs), "node-c": dict(jobs)}
    return Evidence(len(jobs), list(jobs), readings, kills, len(kills))


KILL = Kill("a", "node-a", BEGAN)


def test_jobs_that_every_node_tells_alike_pass() -> None:
    verdict = judge(evidence(record(), record(result=None)))
    assert verdict.passed
    assert (verdict.accepted, verdict.finished, verdict.extra_starts) == (2, 2, 0)
    assert not verdict.lost


def test_a_job_without_a_record_at_one_living_node_is_lost() -> None:
    found = evidence(record(), record())
    planted = replace(found, readings={**found.readings, "node-c": {"job-0": record(), "job-1": None}})
    verdict = judge(planted)
    assert verdict.lost == {"job-1": "node-c found no record"}
    assert verdict.finished == 1
    assert not verdict.passed


def test_a_job_that_no_node_mentions_is_lost() -> None:
    found = evidence(record())
    verdict = judge(replace(found, accepted=["job-0", "job-7"], sent=2))
    assert list(verdict.lost) == ["job-7"]
    assert not verdict.passed


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"state": "failed", "error": "ValueError: no"}, "it is failed: ValueError: no"),
        ({"state": "running", "settled": False}, "it is running"),
        ({"settled": False}, "its result is not settled"),
    ],
)
def test_a_job_that_did_not_succeed_for_good_is_lost(changes: dict[str, Any], why: str) -> None:
    verdict = judge(evidence(record(), record(**changes)))
    assert verdict.lost == {"job-1": why}
    assert not verdict.passed


@pytest.mark.parametrize(
    "changes", [{"result": {"n": 2}}, {"finished_at": moment(-0.5)}, {"runner": "c"}, {"settled": False}]
)
def test_a_job_that_two_nodes_tell_differently_is_lost(changes: dict[str, Any]) -> None:
    name = next(iter(changes))
    why = why_lost({"node-b": record(), "node-c": record(**changes)})
    assert why is not None
    assert why.startswith(f"{name} is ")
    assert why.endswith("at node-c")


def test_nothing_is_finished_when_no_node_is_left() -> None:
    verdict = judge(replace(evidence(record()), readings={}))
    assert verdict.lost == {"job-0": "no node is left to ask"}
    assert not verdict.passed


def test_a_wrong_output_fails_although_every_record_is_right() -> None:
    verdict = judge(replace(evidence(record()), wrong=["out.jpg: was not written"]))
    assert not verdict.lost
    assert verdict.problems == ["out.jpg: was not written"]


def test_a_submission_that_was_not_acknowledged_fails() -> None:
    verdict = judge(replace(evidence(record()), sent=3))
    assert verdict.problems == ["2 submissions were not acknowledged"]


def test_a_second_start_is_explained_by_a_kill_that_interrupted_the_first() -> None:
    verdict = judge(evidence(record(), interrupted(), kills=(KILL,)))
    assert (verdict.starts, verdict.extra_starts) == (3, 1)
    assert verdict.passed


@pytest.mark.parametrize(
    "history",
    [
        [],
        [note(1, "start lost", "runner c is gone")],
        [note(-1, "start lost", "runner a is gone")],
        [note(31, "takeover", "from a: silence")],
    ],
    ids=["no reason told", "another node", "before the kill", "after it was back"],
)
def test_a_second_start_that_no_kill_explains_fails(history: list[dict[str, Any]]) -> None:
    kill = KILL._replace(back_at=BEGAN + 30)
    ran_since = record(runner="a", started_at=moment(40))
    verdict = judge(evidence(interrupted(), ran_since, record(starts=2, history=history), kills=(kill,)))
    assert len(verdict.unexplained) == 1
    assert "job-2" in verdict.unexplained[0]
    assert not verdict.passed


def test_recovery_times_are_those_of_the_first_job_in_the_records() -> None:
    queued = record(history=[note(0.05, "provisional takeover", "from a: its process ended")])
    verdict = judge(evidence(interrupted(0.2, 0.4), interrupted(0.1, 0.7), queued, kills=(KILL,)))
    (recovery,) = verdict.recoveries
    assert (recovery.taken_over, recovery.interrupted) == (3, 2)
    assert recovery.takeover_s == pytest.approx(0.05, abs=1e-3)
    assert recovery.restart_s == pytest.approx(0.4, abs=1e-3)


def test_a_job_that_was_interrupted_again_says_nothing_of_its_first_restart() -> None:
    again = interrupted(0.1, 5.2)
    again["history"] = [*again["history"], note(5, "start lost", "runner c is gone")]
    kills = (KILL, Kill("c", "node-c", BEGAN + 4.9))
    first, second = judge(evidence(again, kills=kills)).recoveries
    assert (first.interrupted, first.restart_s) == (1, None)
    assert second.restart_s == pytest.approx(0.3, abs=1e-3)


def test_a_kill_that_touched_no_job_proves_nothing() -> None:
    verdict = judge(evidence(record(), kills=(KILL,)))
    assert len(verdict.problems) == 1
    assert "proves nothing" in verdict.problems[0]


def test_a_kill_that_did_not_take_place_fails() -> None:
    verdict = judge(replace(evidence(record()), kills_planned=1))
    assert len(verdict.problems) == 1
    assert verdict.problems[0].startswith("0 of 1 kills took place")


def test_a_node_that_comes_back_must_run_jobs_again() -> None:
    kill = KILL._replace(back_at=BEGAN + 30)
    idle = judge(evidence(interrupted(), record(runner="a"), kills=(kill,)))
    assert idle.problems == ["node-a came back, but ran no job since"]
    at_work = judge(evidence(interrupted(), record(runner="a", started_at=moment(31)), kills=(kill,)))
    assert at_work.passed
    assert at_work.recoveries[0].ran_since == 1
