"""Plants known bugs in the core, one at a time, and demands that the tests find each.

    python scripts/mutants.py [--list] [--only NAME] [--jobs N] [--all]

The list is data: tests/mutants.toml. A mutant is one small change of one file under edgenode/, with the rule
that it breaks, and the tests and simulator seeds that are to find it. For each a copy of the code is made,
the change applied, and these run. (Mutation testing: DeMillo, Lipton and Sayward, "Hints on test data
selection", 1978.) What would make such a run mean nothing makes it fail:

- the line to change is not there exactly once,
- a test or a seed fails without any mutant,
- one of those that are named passes with the mutant: it SURVIVES,
- a test ends by anything but a failed check, such as a file that cannot be imported, a name that is not
  there, or a time that is over: then the change has BROKEN more than its rule.

`--all` is for a mutant that is new: it asks the tests of core/ and sim/ and then 2,000 seeds, whatever is
named, and says who finds it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import FrameType
from typing import Any, Final
from xml.etree import ElementTree

ROOT: Final = Path(__file__).resolve().parents[1]
LIST: Final = ROOT / "tests" / "mutants.toml"
COPIED: Final = ("edgenode", "tests", "scripts", "pyproject.toml", "README.md", "Makefile")
SUITE: Final = ("tests/core", "tests/sim")
SUITE_FAILURES: Final = 5
"""So many tests of the suite are named; then it is enough."""
SEEDS: Final = 2_000
SEEDS_AT_ONCE: Final = 50
CHECK_S: Final = 300.0
"""The slowest of the named tests needs ten seconds."""
SUITE_S: Final = 3_600.0
REASON_CHARS: Final = 70
SEED_FAILED: Final = re.compile(r"^seed (\d+) FAILED: (.*)$", re.MULTILINE)
FAILED_CHECK: Final = re.compile(
    r"(edgenode\.sim\.violation\.Violation|Violation|AssertionError|assert|Failed)\b(?!: Timeout)"
    r"|ValueError: (not enough|too many) values to unpack.*\ntests/"
)
"""How a test ends that looked, and saw something else than it should: in the words of the exception, and on
the next line where it was raised. (`(answer,) = sent` checks as well, if a test says it.)"""


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
            raise ValueError(f"{self.file} has its line {text.count(self.old)} times, not once")
        path.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What tests/mutants.toml says."""

    rules: dict[str, str]
    mutants: list[Mutant]


@dataclass(frozen=True, slots=True)
class Answer:
    """What tests or seeds said of one copy of the code."""

    failures: dict[str, str] = field(default_factory=dict)  # who failed, and why
    broken: str = ""  # why the answer means nothing


@dataclass(frozen=True, slots=True)
class Verdict:
    mutant: Mutant
    found: bool
    text: str
    took_s: float


class Stopped(Exception):
    """Nothing is started any more."""


def read_list(path: Path = LIST) -> Catalogue:
    """Every rule and every mutant, in their order.

    Raises:
        TypeError: a field is missing, or unknown.
    """
    tables = tomllib.loads(path.read_text())
    return Catalogue(tables["rules"], [_mutant(table) for table in tables["mutant"]])


def _mutant(table: dict[str, Any]) -> Mutant:
    said: dict[str, Any] = dict(table)
    for key, value in table.items():
        said[key] = tuple(value) if isinstance(value, list) else value.strip("\n")
    return Mutant(**said)


def short(text: str) -> str:
    """The beginning of a reason, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= REASON_CHARS else line[: REASON_CHARS - 1] + "…"


def complaint(output: str) -> str:
    """What a program said when it could not do what it was to do."""
    lines = output.strip().splitlines() or ["nothing"]
    exceptions = [line.removeprefix("E ") for line in lines if line.startswith("E ")]
    errors = [line for line in lines if line.startswith("ERROR")]
    return short((exceptions or errors or lines)[-1])


class Processes:
    """Runs Python in copies of the code; `stop` ends whatever runs, with its children."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = Lock()
        self._is_stopped = False

    def run(self, folder: Path, limit_s: float, *arguments: str) -> tuple[int | None, str]:
        """The exit code (None: it was ended when its time was over), and all that was printed.

        Raises:
            Stopped: by `stop`.
        """
        (folder / "tmp").mkdir(exist_ok=True)
        environment = os.environ | {
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(folder / "tmp"),
        }
        with self._lock:
            if self._is_stopped:
                raise Stopped
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            self._running.add(process)
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            self._end(process)
            output, _ = process.communicate()
            return None, output
        finally:
            with self._lock:
                self._running.discard(process)
        if self._is_stopped:
            raise Stopped
        return process.returncode, output

    def stop(self) -> None:
        with self._lock:
            self._is_stopped = True
            for process in self._running:
                self._end(process)

    def _end(self, process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


class Laboratory:
    """Makes copies of the code in `root`, changes them, and asks tests and seeds about them."""

    def __init__(self, root: Path = ROOT, check_s: float = CHECK_S) -> None:
        self._root = root
        self._check_s = check_s
        self.processes = Processes()

    @contextmanager
    def copy(self) -> Iterator[Path]:
        """A folder with the package and its tests, gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="edgenode-mutant-") as name:
            folder = Path(name)
            for part in (self._root / each for each in COPIED):
                if part.is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(part, folder / part.name, ignore=ignored)
                elif part.exists():
                    shutil.copy(part, folder / part.name)
            yield folder

    def ask_tests(
        self, folder: Path, tests: Sequence[str], *options: str, limit_s: float | None = None
    ) -> Answer:
        """Run these tests, all of them whatever the first ones say, unless an option says otherwise."""
        limit_s = self._check_s if limit_s is None else limit_s
        report = folder / "report.xml"
        report.unlink(missing_ok=True)
        given = ("-q", "-p", "no:cacheprovider", f"--junitxml={report}", "-o", "junit_family=xunit1")
        code, output = self.processes.run(folder, limit_s, "pytest", *given, *options, *tests)
        if code is None:
            return Answer(broken=f"its tests were not over in {limit_s:.0f} s")
        if code not in (0, 1) or not report.exists():
            return Answer(broken=f"pytest ended with {code}: {complaint(output)}")
        return read_report(report)

    def ask_seed(self, folder: Path, seed: int) -> Answer:
        code, output = self.processes.run(folder, self._check_s, "edgenode", "simulate", "--seed", str(seed))
        name = f"seed {seed}"
        if code is None:
            return Answer(broken=f"{name} was not over in {self._check_s:.0f} s")
        if code == 0:
            return Answer()
        said = SEED_FAILED.search(output)
        return judged({name: f"exit code {code}" if said is None else said[2]})

    def ask_many_seeds(self, folder: Path) -> Answer:
        """Run 2,000 seeds, as far as the first that fails."""
        for first in range(0, SEEDS, SEEDS_AT_ONCE):
            options = ("simulate", "--seed", str(first), "--seeds", str(SEEDS_AT_ONCE))
            code, output = self.processes.run(folder, SUITE_S, "edgenode", *options)
            if code == 0:
                continue
            found = SEED_FAILED.search(output)
            if found is None:
                return Answer(broken=f"the simulator ended with {code}: {complaint(output)}")
            return judged({f"seed {found[1]}": found[2]})
        return Answer()

    def ask(self, folder: Path, tests: Sequence[str], seeds: Sequence[int]) -> Answer:
        answers = [self.ask_tests(folder, tests)] if tests else []
        return merged([*answers, *(self.ask_seed(folder, seed) for seed in seeds)])

    def ask_everybody(self, folder: Path) -> Answer:
        answer = self.ask_tests(folder, SUITE, f"--maxfail={SUITE_FAILURES}", limit_s=SUITE_S)
        return answer if answer.failures or answer.broken else self.ask_many_seeds(folder)

    def hunt(self, mutant: Mutant, *, everything: bool = False) -> Verdict:
        """Plant one mutant, and see who finds it."""
        began = time.monotonic()
        with self.copy() as folder:
            try:
                mutant.apply(folder / "edgenode")
            except ValueError as error:
                return Verdict(mutant, False, f"BROKEN: {error}", 0.0)
            if everything:
                answer = self.ask_everybody(folder)
            else:
                answer = self.ask(folder, mutant.tests, mutant.seeds)
        took_s = time.monotonic() - began
        if answer.broken:
            return Verdict(mutant, False, f"BROKEN: {answer.broken}", took_s)
        if everything:
            names = ", ".join(answer.failures)
            return Verdict(mutant, bool(names), f"found by {names}" if names else "SURVIVES", took_s)
        if blind := blind_of(mutant, answer.failures):
            return Verdict(mutant, False, f"SURVIVES {', '.join(blind)}", took_s)
        reason = next(iter(answer.failures.values()))
        return Verdict(mutant, True, f"found: {short(reason)}", took_s)

    def innocent(self, mutants: Sequence[Mutant], jobs: int) -> list[str]:
        """What is expected to find a mutant, and fails without any."""
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        seeds = sorted({seed for mutant in mutants for seed in mutant.seeds})

        def share(number: int) -> Answer:
            with self.copy() as folder:
                return self.ask(folder, tests[number::jobs], seeds[number::jobs])

        with ThreadPoolExecutor(jobs) as pool:
            answer = merged(list(pool.map(share, range(jobs))))
        return [*answer.failures, *([answer.broken] if answer.broken else [])]


def read_report(report: Path) -> Answer:
    """Who failed, and why, of a JUnit report."""
    failures: dict[str, str] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{case.get('file')}::{case.get('name')}"
        for error in case.iter("error"):
            return Answer(broken=f"{name}: {short(error.get('message', ''))}")
        for failure in case.iter("failure"):
            where = (failure.text or "").rstrip().rpartition("\n")[2]
            failures[name] = f"{failure.get('message', '')}\n{where}"
    return judged(failures)


def judged(failures: dict[str, str]) -> Answer:
    """These failures, if each is one of a check."""
    for name, reason in failures.items():
        if not FAILED_CHECK.match(reason):
            return Answer(broken=f"{name}: {short(reason)}")
    return Answer(failures)


def merged(answers: Sequence[Answer]) -> Answer:
    failures = {name: reason for answer in answers for name, reason in answer.failures.items()}
    return Answer(failures, next((answer.broken for answer in answers if answer.broken), ""))


def blind_of(mutant: Mutant, failures: dict[str, str]) -> list[str]:
    """Those that were to find a mutant, and did not. Of a test with parameters any case will do, unless one
    is named."""
    seen = {*failures, *(name.partition("[")[0] for name in failures)}
    expected = [*mutant.tests, *(f"seed {seed}" for seed in mutant.seeds)]
    return [name for name in expected if name not in seen]


def plan(catalogue: Catalogue, mutants: Sequence[Mutant]) -> Iterator[str]:
    """The list for people: each rule with its mutants, and who is to find them."""
    for rule, text in catalogue.rules.items():
        chosen = [mutant for mutant in mutants if mutant.rule == rule]
        if chosen:
            yield f"{rule}: {text}"
        for mutant in chosen:
            yield f"    {mutant.name} ({mutant.file})"
            yield from (f"        {each}" for each in mutant.tests)
            yield from (f"        seed {each}" for each in mutant.seeds)


def examine(laboratory: Laboratory, mutants: Sequence[Mutant], jobs: int, *, everything: bool) -> int:
    """Hunt them all, and say how each ended. Returns how many were not found."""
    width = max(len(mutant.name) for mutant in mutants)
    missed = 0
    with ThreadPoolExecutor(jobs) as pool:
        for verdict in pool.map(lambda mutant: laboratory.hunt(mutant, everything=everything), mutants):
            missed += not verdict.found
            name = f"{verdict.mutant.rule:<14} {verdict.mutant.name:<{width}}"
            print(f"{name}  {verdict.took_s:3.0f} s  {verdict.text}", flush=True)
    return missed


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="show the list, and plant nothing")
    parser.add_argument(
        "--only", default="", metavar="NAME", help="mutants with this in their name, or of this rule"
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="so many at a time (default 2)")
    parser.add_argument("--all", action="store_true", help="ask all tests and seeds, not those named")
    wanted = parser.parse_args(arguments)
    if wanted.jobs < 1:
        parser.error("--jobs is at least 1")
    return wanted


def stop_at_a_signal(stop: Callable[[], None]) -> None:
    """Let copies and processes be cleaned up when somebody wants this to end."""

    def end(number: int, frame: FrameType | None) -> None:
        stop()
        raise KeyboardInterrupt

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, end)


def main(arguments: Sequence[str]) -> int:
    wanted, catalogue = parse(arguments), read_list()
    mutants = [m for m in catalogue.mutants if wanted.only in m.name or wanted.only == m.rule]
    if not mutants:
        print(f"no mutant is called like {wanted.only!r}; the list is {LIST.relative_to(ROOT)}")
        return 2
    if wanted.list:
        print("\n".join(plan(catalogue, mutants)))
        return 0
    laboratory, began = Laboratory(), time.monotonic()
    stop_at_a_signal(laboratory.processes.stop)
    try:
        if not wanted.all and (failing := laboratory.innocent(mutants, wanted.jobs)):
            print(f"without any mutant fails: {', '.join(failing)}")
            return 1
        missed = examine(laboratory, mutants, wanted.jobs, everything=wanted.all)
    except (KeyboardInterrupt, Stopped):
        print("interrupted")
        return 130
    took_s = time.monotonic() - began
    print(f"\n{len(mutants)} mutants, {len(mutants) - missed} found, {missed} not, {took_s:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
