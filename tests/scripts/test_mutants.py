"""The list of planted bugs stays in step with the code: each can be planted, and its tests exist."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import mutants
import pytest

from edgenode import __file__ as package_file

PACKAGE = Path(package_file).parent
LIST = mutants.read_list()


def test_every_mutant_has_a_name_of_its_own() -> None:
    assert len({mutant.name for mutant in LIST}) == len(LIST)


@pytest.mark.parametrize("mutant", LIST, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_line_into_other_python(mutant: mutants.Mutant, tmp_path: Path) -> None:
    copy = tmp_path / mutant.file
    copy.parent.mkdir(parents=True)
    shutil.copy(PACKAGE / mutant.file, copy)
    mutant.apply(tmp_path)
    assert ast.dump(ast.parse(copy.read_text())) != ast.dump(ast.parse((PACKAGE / mutant.file).read_text()))


@pytest.mark.parametrize("mutant", LIST, ids=lambda mutant: mutant.name)
def test_what_is_expected_to_find_a_mutant_exists(mutant: mutants.Mutant) -> None:
    assert mutant.tests or mutant.seeds
    for each in mutant.tests:
        file, _, name = each.partition("::")
        assert f"def {name.partition('[')[0]}" in (mutants.ROOT / file).read_text()


def test_a_line_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "x.py").write_text("a = 1\n")
    mutant = mutants.Mutant("gone", "T0", "core/x.py", "a = 2", "a = 3")
    with pytest.raises(ValueError, match=r"core/x\.py has its line 0 times"):
        mutant.apply(tmp_path)


def test_a_mutant_that_nothing_finds_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "passes", lambda folder, *arguments: True)
    mutant = LIST[0]
    assert mutants.hunt(mutant, everything=False).found_by == ""
    monkeypatch.setattr(mutants, "passes", lambda folder, *arguments: "pytest" not in arguments)
    assert mutants.hunt(mutant, everything=False).found_by == "its tests"
    assert mutants.hunt(mutant, everything=True).found_by == "the suite"
