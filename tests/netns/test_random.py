"""A short random run on machines, as `make chaos` does it."""

from __future__ import annotations

from pathlib import Path

import chaos
import pytest


def test_a_random_run_on_machines_of_their_own_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = chaos.main(["--nodes", "3", "--slots", "2", "--seed", "3", "--seconds", "5"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "3 nodes on machines of their own, seed 3" in said
    assert "faults: none" not in said
