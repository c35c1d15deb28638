"""Plants known bugs in the core, one at a time, and demands that the tests find each.

    python scripts/mutants.py [--only TEXT] [--jobs N] [--all]

The list is data: tests/mutants.toml. A mutant is one small change of one file under edgenode/, with the rule
that it breaks, and the tests and simulator seeds that are to find it. For each, a copy of the code is
made, the change applied, and these run: first what is expected to find it, then the tests of core/ and sim/,
then 2,000 seeds. A mutant that survives all of this is a hole in the tests: the exit code is 1. (Mutation
testing: DeMillo, Lipton and Sayward, "Hints on test data selection", 1978.)

A check that fails without any mutant would find them all, so those that are expected to find something must
first pass on the unchanged code.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
LIST: Final = ROOT / "tests" / "mutants.toml"
SUITE: Final = ("tests/core", "tests/sim")
SEEDS: Final = 2_000
CHECK_S: Final = 1_200.0
"""A mutant may also loop for ever: that is found, too."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted bug. `old` occurs exactly once in `file`, a path below edgenode/."""

    name: str
    rule: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()

    def apply(self, package: Path) -> None:
        """Change the copy in `package`.

        Raises:
            ValueError: the line is not there exactly once: the list is out of date.
        """
        path = package / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.file} has its line {text.count(self.old)} times, not once")
        path.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True, slots=True)
class Verdict:
    mutant: Mutant
    found_by: str  # "" if nothing did
    took_s: float


def read_list(path: Path = LIST) -> list[Mutant]:
    """Every mutant of the list, in its order.

    Raises:
        TypeError: a field is missing, or unknown.
    """
    tables = tomllib.loads(path.read_text())["mutant"]
    return [_mutant(table) for table in tables]


def _mutant(table: dict[str, Any]) -> Mutant:
    said: dict[str, Any] = dict(table)
    for key, value in table.items():
        said[key] = tuple(value) if isinstance(value, list) else value.strip("\n")
    return Mutant(**said)


@contextmanager
def copy_of_code() -> Iterator[Path]:
    """A folder with the package and its tests, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="edgenode-mutant-") as name:
        folder = Path(name)
        for part in ("edgenode", "tests", "scripts"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("pyproject.toml", "README.md", "Makefile"):
            shutil.copy(ROOT / part, folder / part)
        yield folder


def passes(folder: Path, *arguments: str) -> bool:
    """Whether a check goes well on the code in `folder`."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=CHECK_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def tests_pass(folder: Path, tests: Sequence[str]) -> bool:
    return passes(folder, "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests)


def seed_passes(folder: Path, seed: int) -> bool:
    return passes(folder, "edgenode.sim", "--seed", str(seed))


def hunt(mutant: Mutant, *, everything: bool) -> Verdict:
    """Plant one mutant, and see what finds it: the expected, then everything else."""
    began = time.monotonic()

    def found(by: str) -> Verdict:
        return Verdict(mutant, by, time.monotonic() - began)

    with copy_of_code() as folder:
        mutant.apply(folder / "edgenode")
        if mutant.tests and not everything and not tests_pass(folder, mutant.tests):
            return found("its tests")
        for seed in mutant.seeds:
            if not seed_passes(folder, seed):
                return found(f"seed {seed}")
        if not tests_pass(folder, SUITE):
            return found("the suite")
        if not passes(folder, "edgenode.sim", "--seeds", str(SEEDS)):
            return found(f"{SEEDS} seeds")
    return found("")


def innocent(mutants: Sequence[Mutant]) -> list[str]:
    """What is expected to find a mutant, and fails without any."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    seeds = sorted({seed for mutant in mutants for seed in mutant.seeds})
    with copy_of_code() as folder:
        wrong = [] if not tests or tests_pass(folder, tests) else ["one of the tests"]
        return wrong + [f"seed {seed}" for seed in seeds if not seed_passes(folder, seed)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="mutants whose name or rule has this in it"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="so many at a time"
    )
    parser.add_argument(
        "--all", action="store_true", help="begin with the whole suite, not with the expected"
    )
    wanted = parser.parse_args()
    mutants = [m for m in read_list() if wanted.only in m.name or wanted.only == m.rule]
    if not mutants:
        parser.error(f"no mutant is called like {wanted.only!r}; the list is {LIST.relative_to(ROOT)}")
    if failing := innocent(mutants):
        print(f"without any mutant fails: {', '.join(failing)}")
        return 1
    width = max(len(mutant.name) for mutant in mutants)
    survivors = 0
    with ThreadPoolExecutor(max(1, wanted.jobs)) as pool:
        for verdict in pool.map(lambda mutant: hunt(mutant, everything=wanted.all), mutants):
            survivors += not verdict.found_by
            outcome = f"found by {verdict.found_by}" if verdict.found_by else "SURVIVES"
            line = (
                f"{verdict.mutant.rule:<5} {verdict.mutant.name:<{width}}  {outcome}, {verdict.took_s:.0f} s"
            )
            print(line, flush=True)
    print(f"\n{len(mutants)} mutants, {len(mutants) - survivors} found, {survivors} survive")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
