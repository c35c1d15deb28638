import json
import subprocess
import sys
from math import inf
from pathlib import Path

import guard
import guard_cost
import pytest
from guard import Record, complaint, judge, least, read, told
from guard_mesh import Member, Mesh, Plan, WorkFailed, mesh

from edgenode.core.signals import Effect, Send, StoredRow
from edgenode.core.specs import Spec, encode_spec
from edgenode.core.types import JobId
from edgenode.shell import job_table, store

SMALL = {"batch": Plan(clients=2, jobs=40, batch=20)}
WARMING = (Plan(clients=2, jobs=20, batch=20),)
RECORD = Record(guard.PYTHON, {"batch.instructions.core": 1000.0, "batch.rows": 9.0, "ratio.job": 14.0})


def failed(record: Record, python: str = guard.PYTHON, **measured: float) -> list[str]:
    figures = record.figures | {key.replace("_", "."): value for key, value in measured.items()}
    return [each.key for each in judge(record, figures, python) if each.failed]


def test_what_costs_as_much_as_recorded_or_less_passes() -> None:
    assert failed(RECORD) == []
    assert failed(RECORD, batch_rows=2.0, ratio_job=1.0) == []


def test_an_exact_figure_fails_a_little_above_ten_percent_and_a_ratio_above_twenty_five() -> None:
    assert failed(RECORD, batch_instructions_core=1099.0, ratio_job=17.4) == []
    assert failed(RECORD, batch_instructions_core=1101.0) == ["batch.instructions.core"]
    assert failed(RECORD, ratio_job=17.6) == ["ratio.job"]


def test_instructions_of_another_python_are_not_compared_but_everything_else_is() -> None:
    assert failed(RECORD, "3.99", batch_instructions_core=5000.0) == []
    assert failed(RECORD, "3.99", batch_rows=10.0, ratio_job=18.0) == ["batch.rows", "ratio.job"]


def test_a_figure_that_nobody_recorded_fails_and_so_does_one_that_is_measured_no_more() -> None:
    assert failed(RECORD, batch_messages=0.2) == ["batch.messages"]
    without = {key: value for key, value in RECORD.figures.items() if key != "batch.rows"}
    assert [each.key for each in judge(RECORD, without) if each.failed] == ["batch.rows"]


def test_a_complaint_names_the_figure_what_it_was_is_and_may_be_and_how_to_record_it() -> None:
    (verdict,) = [each for each in judge(RECORD, RECORD.figures | {"ratio.job": 21.0}) if each.failed]
    assert complaint(verdict) == "ratio.job is 21 (+50.0 %), was 14, may be 17.5"
    assert guard.HOW in told([verdict], RECORD)


def test_a_ratio_above_its_limit_is_measured_again_and_a_busy_moment_passes() -> None:
    measured = iter([{"a": 9.0, "b": 1.0}, {"a": 4.0, "b": 3.0}, {"a": 0.0, "b": 0.0}])
    assert least(lambda: next(measured), {"a": 5.0, "b": 2.0}) == {"a": 4.0, "b": 1.0}


def test_a_ratio_that_stays_above_its_limit_is_not_measured_for_ever() -> None:
    measured = iter([{"a": 9.0}, {"a": 8.0}, {"a": 9.0}])
    assert least(lambda: next(measured), {"a": 5.0}, turns=3) == {"a": 8.0}


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "guard.toml").write_text(guard.as_toml(RECORD))
    assert read(tmp_path / "guard.toml") == RECORD


def test_what_is_recorded_has_every_kind_of_figure() -> None:
    keys = read().figures.keys()
    assert {f"{name}.instructions.{part}" for name in guard_cost.COUNTED for part in guard_cost.PARTS} <= keys
    assert {"single.messages", "single.message_bytes", "batch.rows", "batch.row_bytes"} <= keys
    assert {"ratio.job", "ratio.row"} <= keys


def count(folder: Path, hash_seed: str) -> dict[str, float]:
    code = (
        "import json, sys, guard_cost; from guard_mesh import Plan; from pathlib import Path;"
        f"print(json.dumps(guard_cost.counts(Path(sys.argv[1]), {SMALL!r}, {WARMING!r})))"
    )
    scripts = str(Path(guard.__file__).parent)
    told = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env={"PYTHONPATH": f"{scripts}:{Path(scripts).parent}", "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        check=True,
    )
    return dict(json.loads(told.stdout))


def test_the_exact_figures_are_the_same_in_every_process(tmp_path: Path) -> None:
    one, other = count(tmp_path / "one", "0"), count(tmp_path / "other", "7")
    assert one == other
    assert all(one[f"batch.instructions.{part}"] > 100 for part in guard_cost.PARTS)
    assert one["batch.rows"] >= 6  # two writes on three disks


def test_what_is_encoded_is_counted_though_that_happens_in_c() -> None:
    with guard_cost.Instructions() as instructions:
        for _ in range(3):
            encode_spec(Spec(JobId(bytes(16)), "echo", b"{}", 0.0, 0.0))
    assert instructions.found["packs"] == 3
    assert instructions.found["instructions.core"] > 300


def test_a_planted_slowdown_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard_cost.counts(tmp_path / "warm", SMALL, WARMING)
    record = Record(guard.PYTHON, guard_cost.counts(tmp_path / "before", SMALL, WARMING))
    once = job_table.values_of

    def thrice(stored: StoredRow) -> job_table.Values:
        return [once(stored), once(stored), once(stored)][0]

    monkeypatch.setattr(store, "values_of", thrice)
    verdicts = judge(record, guard_cost.counts(tmp_path / "after", SMALL, WARMING))
    assert [each.key for each in verdicts if each.failed] == ["batch.instructions.shell"]


def test_one_message_a_job_more_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard_cost.counts(tmp_path / "warm", SMALL, WARMING)
    record = Record(guard.PYTHON, guard_cost.counts(tmp_path / "before", SMALL, WARMING))
    ordered = Member.sync

    def chatty(member: Member) -> list[Effect]:
        effects = ordered(member)
        return [twin for each in effects for twin in ((each, each) if isinstance(each, Send) else (each,))]

    monkeypatch.setattr(Member, "sync", chatty)
    verdicts = judge(record, guard_cost.counts(tmp_path / "after", SMALL, WARMING))
    assert {"batch.messages", "batch.message_bytes"} <= {each.key for each in verdicts if each.failed}


def test_work_that_was_not_done_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deaf(mesh: Mesh) -> None:
        for outbox in mesh._outboxes.values():
            while len(outbox):
                outbox.take()

    with mesh(tmp_path) as nodes:
        monkeypatch.setattr(Mesh, "_deliver", deaf)
        with pytest.raises(WorkFailed):
            nodes.work(SMALL["batch"])


def test_a_job_and_a_row_cost_more_than_nothing_of_the_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_cost, "ROUNDS", 1)
    with guard_cost.taking_turns(tmp_path) as measure:
        figures = measure()
    assert figures["ratio.job"] > 1
    assert 0 < figures["ratio.row"] < inf
