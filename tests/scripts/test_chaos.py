"""scripts/chaos.py as a command: what a run on loopback says, and what becomes of a bad one."""

from __future__ import annotations

import os
from pathlib import Path

import chaos
import pytest
from history import Verdict
from machines import missing

RUN = ["--loopback", "--nodes", "3", "--slots", "2", "--rate", "20"]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.timeout(240)
def test_a_run_on_loopback_hurts_nodes_loses_nothing_and_says_so(
    temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chaos.main([*RUN, "--seed", "5", "--seconds", "6"]) == 0
    said = capsys.readouterr().out
    assert "3 nodes on loopback, seed 5" in said
    assert "missing: --loopback was given" in said
    assert "faults: none" not in said
    assert said.splitlines()[-1] == "verdict: nothing was lost"
    assert not list(temporary.iterdir())


@pytest.mark.timeout(240)
def test_a_bad_verdict_is_told_by_the_exit_code_and_keeps_the_journal(
    temporary: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chaos, "judge", lambda history: Verdict(bad=["lost: planted"]))
    assert chaos.main([*RUN, "--seed", "1", "--seconds", "0.5"]) == 1
    said = capsys.readouterr().out
    assert "BAD lost: planted" in said
    assert "verdict: BAD" in said
    (folder,) = temporary.iterdir()
    assert (folder / "chaos.ndjson").read_text()
    assert (folder / "node-1.log").read_text()


def test_wrong_usage_is_told_before_anything_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        chaos.main(["--nodes", "0"])
    assert raised.value.code == 2
    assert "--nodes is from 1 to 32" in capsys.readouterr().err


def test_what_a_machine_lacks_for_real_networks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda name: None if name == "ip" else f"/sbin/{name}")
    assert missing() == ["root", "ip"]
