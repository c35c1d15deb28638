"""The measurement of how well work is spread: a small run with real nodes, and what it calls a failure."""

from __future__ import annotations

import json
from pathlib import Path

import makespan
import pytest
from distribution import Distribution
from makespan import Makespan, Punctuality, failures

pytestmark = pytest.mark.timeout(180)


def late(most_s: float) -> Distribution:
    return Distribution.of([0.0, most_s])


@pytest.mark.parametrize(
    ("name", "found", "word"),
    [
        ("spread", Makespan(11.0, 10.0, 0), ""),
        ("spread", Makespan(11.01, 10.0, 0), "1.101 times the ideal, at most 1.10 go"),
        ("spread", Makespan(10.0, 10.0, 1), "1 starts more"),
        ("slow", Makespan(12.5, 10.0, 0), ""),
        ("slow", Makespan(12.6, 10.0, 0), "1.260 times the ideal, at most 1.25 go"),
        ("days", Punctuality(late(0.2), 0), ""),
        ("days", Punctuality(late(0.201), 0), "0.201 s late, at most 0.2 go"),
        ("days", Punctuality(late(0.0), 2), "2 starts more"),
        ("takeover", Punctuality(late(0.1), 1), ""),
        ("takeover", Punctuality(late(0.3), 0), "0.300 s late"),
    ],
)
def test_what_is_beyond_what_is_promised_is_a_failure(
    name: str, found: Makespan | Punctuality, word: str
) -> None:
    told = failures({name: found})
    assert len(told) == bool(word)
    assert all(text.startswith(f"{name}: ") and word in text for text in told)


@pytest.mark.parametrize(("took_s", "code"), [(1.0, 0), (9.0, 1)])
def test_the_exit_code_says_whether_all_was_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], took_s: float, code: int
) -> None:
    monkeypatch.setattr(makespan, "measure_makespan", lambda count, one_is_slow: Makespan(took_s, 1.0, 0))
    assert makespan.main(["--only", "spread"]) == code
    assert ("FAILED  spread: 9.000 times" in capsys.readouterr().out) == bool(code)


def test_a_few_jobs_on_real_nodes_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long they take on a busy machine says nothing: whether that is a failure is left open."""
    monkeypatch.setattr(makespan, "LONGEST_S", 0.2)
    assert makespan.main(["--jobs", "8", "--only", "spread", "--json", str(tmp_path / "figures")]) in (0, 1)
    figures = json.loads((tmp_path / "figures").read_text())["spread"]
    assert figures["extra_starts"] == 0
    assert 0 < figures["ideal_s"] < figures["took_s"]
    assert figures["ratio"] == figures["took_s"] / figures["ideal_s"]
