"""The list of planted bugs is in step with the code, and its runner takes nothing for a find that is none."""

from __future__ import annotations

import ast
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mutants
import pytest
from mutants import Laboratory, Mutant

from edgenode import __file__ as package_file

PACKAGE = Path(package_file).parent
CATALOGUE = mutants.read_list()
LIST = CATALOGUE.mutants


# ------------------------------------------------------------------------------------------- the list


def test_every_mutant_has_a_name_of_its_own() -> None:
    assert len({mutant.name for mutant in LIST}) == len(LIST)


def test_every_rule_is_broken_by_a_mutant_and_every_mutant_breaks_a_rule() -> None:
    assert {mutant.rule for mutant in LIST} == set(CATALOGUE.rules)
    assert {f"T{number}" for number in range(1, 27)} <= set(CATALOGUE.rules)


@pytest.mark.parametrize("mutant", LIST, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_line_into_other_python(mutant: Mutant, tmp_path: Path) -> None:
    copy = tmp_path / mutant.file
    copy.parent.mkdir(parents=True)
    shutil.copy(PACKAGE / mutant.file, copy)
    mutant.apply(tmp_path)
    assert ast.dump(ast.parse(copy.read_text())) != ast.dump(ast.parse((PACKAGE / mutant.file).read_text()))


@pytest.mark.parametrize("mutant", LIST, ids=lambda mutant: mutant.name)
def test_what_is_expected_to_find_a_mutant_exists(mutant: Mutant) -> None:
    assert mutant.tests or mutant.seeds
    for each in mutant.tests:
        file, _, name = each.partition("::")
        assert f"def {name.partition('[')[0]}(" in (mutants.ROOT / file).read_text()


# ----------------------------------------------------------------------------------------- the runner

SUM = """
def total(numbers):
    found = 0
    for number in numbers:
        found += number
    return found
"""
TESTS = """
from edgenode.core.sums import total

def test_numbers_are_added():
    assert total([1, 2, 3]) == 6

def test_nothing_is_zero():
    assert total([]) == 0

def test_of_one_there_is_one():
    (only,) = [number for number in [total([1])] if number == 1]
"""
TOTAL = "tests/test_sums.py::test_numbers_are_added"
ZERO = "tests/test_sums.py::test_nothing_is_zero"
ONE = "tests/test_sums.py::test_of_one_there_is_one"


@pytest.fixture
def laboratory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Laboratory:
    """Of a small project, in which sums are computed."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take longer than all of this
    (tmp_path / "edgenode" / "core").mkdir(parents=True)
    (tmp_path / "tests").mkdir()
    for name, text in (("__init__.py", ""), ("core/__init__.py", ""), ("core/sums.py", SUM)):
        (tmp_path / "edgenode" / name).write_text(text)
    (tmp_path / "tests" / "test_sums.py").write_text(TESTS)
    return Laboratory(tmp_path)


def planted(new: str, *tests: str, old: str = "        found += number") -> Mutant:
    return Mutant("wrong sums", "T0", "core/sums.py", old, new, tests)


def test_a_mutant_is_found_when_all_of_its_tests_fail(laboratory: Laboratory) -> None:
    verdict = laboratory.hunt(planted("        found = 7", TOTAL, ONE))
    assert verdict.found
    assert verdict.text.startswith("found: assert 7 == 6")


def test_a_mutant_survives_a_test_that_passes(laboratory: Laboratory) -> None:
    verdict = laboratory.hunt(planted("        found = 7", TOTAL, ZERO))
    assert not verdict.found
    assert verdict.text == f"SURVIVES {ZERO}"


@pytest.mark.parametrize(
    ("new", "why"),
    [
        ("        found += nimber", "NameError: name 'nimber' is not defined"),
        ("        (found, _) = ()", "ValueError: not enough values to unpack"),
        ("        break break", "pytest ended with .*SyntaxError"),
    ],
)
def test_a_mutant_that_breaks_the_code_is_not_found(laboratory: Laboratory, new: str, why: str) -> None:
    verdict = laboratory.hunt(planted(new, TOTAL))
    assert not verdict.found
    assert re.match(f"BROKEN: .*{why}", verdict.text)


def test_a_test_that_does_not_exist_finds_nothing(laboratory: Laboratory) -> None:
    verdict = laboratory.hunt(planted("        found = 7", TOTAL, "tests/test_sums.py::test_of_nobody"))
    assert not verdict.found
    assert verdict.text.startswith("BROKEN: pytest ended with 4: ERROR: not found")


def test_a_mutant_without_an_end_is_not_found(laboratory: Laboratory, tmp_path: Path) -> None:
    impatient = Laboratory(tmp_path, check_s=3.0)
    verdict = impatient.hunt(planted("        while True:\n            pass", TOTAL))
    assert not verdict.found
    assert verdict.text == "BROKEN: its tests were not over in 3 s"


@pytest.mark.parametrize(("old", "times"), [("        found -= number", 0), ("found", 3)])
def test_a_line_that_is_not_there_once_is_named(laboratory: Laboratory, old: str, times: int) -> None:
    verdict = laboratory.hunt(planted("", TOTAL, old=old))
    assert not verdict.found
    assert verdict.text == f"BROKEN: core/sums.py has its line {times} times, not once"


def test_tests_that_fail_without_any_mutant_are_named(laboratory: Laboratory, tmp_path: Path) -> None:
    mutant = planted("        found = 7", TOTAL, ZERO)
    assert laboratory.innocent([mutant], jobs=2) == []
    (tmp_path / "edgenode" / "core" / "sums.py").write_text(SUM.replace("= 0", "= 1"))
    assert {*laboratory.innocent([mutant], jobs=2)} == {TOTAL, ZERO}


def test_a_file_that_cannot_be_imported_is_not_innocent(laboratory: Laboratory, tmp_path: Path) -> None:
    (tmp_path / "tests" / "test_sums.py").write_text("import nowhere\n" + TESTS)
    (said,) = laboratory.innocent([planted("        found = 7", TOTAL)], jobs=1)
    assert "No module named 'nowhere'" in said


def test_a_violation_that_a_seed_finds_is_a_find_and_a_crash_is_none() -> None:
    assert mutants.judged({"seed 7": "edgenode.sim.violation.Violation: I4: decided twice"}).failures
    assert mutants.judged({"seed 7": "KeyError: 'j'"}).broken == "seed 7: KeyError: 'j'"
    assert mutants.judged({"a": "Failed: Timeout (>240.0s) from pytest-timeout."}).broken


def test_who_was_to_find_a_mutant_and_did_not_is_named() -> None:
    mutant = Mutant("m", "T0", "x.py", "a", "b", ("t.py::one", "t.py::two[3]"), (7, 8))
    failures = {"t.py::one[any]": "assert", "t.py::two[4]": "assert", "seed 8": "Violation"}
    assert mutants.blind_of(mutant, failures) == ["t.py::two[3]", "seed 7"]


def test_the_list_names_each_rule_with_its_mutants_and_their_tests() -> None:
    said = list(mutants.plan(CATALOGUE, LIST))
    assert sum(line.startswith("    ") and not line.startswith("     ") for line in said) == len(LIST)
    assert said[0] == f"T1: {CATALOGUE.rules['T1']}"


def test_nothing_is_left_behind_when_it_is_interrupted(tmp_path: Path) -> None:
    """SIGTERM in the middle of a run: no folder and no process stays."""
    script = [sys.executable, str(mutants.ROOT / "scripts" / "mutants.py"), "--jobs", "1"]
    process = subprocess.Popen(script, env={"TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True)
    try:
        found: list[Path] = []
        while process.poll() is None and not found:
            found = list(tmp_path.glob("edgenode-mutant-*/tmp"))  # made just before the first check begins
        assert found
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert output == "interrupted\n"
    assert list(tmp_path.iterdir()) == []
