"""The judge of scripts/chaos.py: every kind of wrong must be noticed, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

from chaos import Submission, judge

ECHO = {"task": "echo", "payload": {"message": 7}}


def submission(told: str, number: int = 0) -> Submission:
    return Submission(number, "node-1", ECHO, 0.0, told)


def job(name: str = "a", number: int = 0, **fields: Any) -> dict[str, dict[str, Any]]:
    usual = {
        "id": name, "task": "echo", "queue": f"chaos-{number}", "state": "succeeded", "settled": True,
        "result": 7, "error": None, "owner": "x", "term": 1, "starts": 1, "losses": 0, "takeovers": 0,
        "history": [],
    }  # fmt: skip
    return {name: usual | fields}


@pytest.mark.parametrize("told", ["accepted", "indefinite"])
def test_a_job_that_ended_as_it_must_is_not_bad(told: str) -> None:
    verdict = judge([submission(told)], {"node-1": job(), "node-2": job()})
    assert verdict.bad == []
    assert verdict.counts["ok" if told == "accepted" else "recovered"] == 1


@pytest.mark.parametrize("told", ["refused", "indefinite"])
def test_a_submission_that_nobody_stored_is_not_bad_unless_it_was_accepted(told: str) -> None:
    assert judge([submission(told)], {"node-1": {}}).bad == []


def test_extra_starts_are_counted_and_allowed() -> None:
    verdict = judge([submission("accepted")], {"node-1": job(starts=3)})
    assert (verdict.bad, verdict.counts["extra starts"]) == ([], 2)


@pytest.mark.parametrize(
    ("word", "told", "shown"),
    [
        ("lost", "accepted", {"node-1": {}}),
        ("lost", "accepted", {"node-1": job(state="running", settled=False, result=None)}),
        ("lost", "accepted", {"node-1": job(settled=False)}),
        ("wrong", "accepted", {"node-1": job(result=8)}),
        ("wrong", "accepted", {"node-1": job(state="failed", result=None)}),
        ("split", "accepted", {"node-1": job(), "node-2": job(result=8)}),
        ("duplicated", "accepted", {"node-1": job("a") | job("b")}),
        ("unexpected", "refused", {"node-1": job()}),
        ("unexpected", "accepted", {"node-1": job() | job("b", number=1)}),
    ],
)
def test_what_must_not_be_is_bad(word: str, told: str, shown: dict[str, Any]) -> None:
    verdict = judge([submission(told)], shown)
    assert verdict.counts[word] == 1
    assert [text.partition(":")[0] for text in verdict.bad] == [word]
