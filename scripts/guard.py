"""Has a job become dearer, or a node at rest? What they cost, compared with what was recorded.

    python scripts/guard.py              exit code 1 if a figure has grown too much (half a minute)
    python scripts/guard.py --record     take today's figures for what is to be compared with from now on

No figure depends on how fast the machine is (scripts/guard_cost.py says how each is made):

    instructions           of Python, a job, by part of the program. Exact for one minor version of Python,
                           and compared with that only
    events, packs, persists, rows, messages, row_bytes, message_bytes
                           a job, of three nodes together. Exact, with any Python. Packs are what was encoded
    rest.*                 the same of a node and second without work, in a mesh of three
    ratio.job, ratio.row   processor time of a job from its JSON to its result, and of a row written by the
                           store, over that of a job of a floor made in the same run: what cannot be done
                           without, written as directly as it goes. Measured again if it is above its limit,
                           since a busy moment passes

An exact figure may be 10 % above the recorded one, a ratio 25 %. What is dearer for a good reason is
recorded, and the change of scripts/guard.toml shows what it costs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Final, NamedTuple

import guard_cost

RECORD: Final = Path(__file__).with_suffix(".toml")
EXACT_MAX: Final = 1.10
RATIO_MAX: Final = 1.25
"""So many times the recorded figure is still allowed."""
GAIN: Final = 0.90
"""Below this it is worth recording: or half of what was won may be lost again unnoticed."""
TURNS: Final = 4
"""A ratio above its limit is measured so often at most, and the least counts."""
HASH_SEED: Final = "0"
"""Sets of names have one order then, so that not even their order is chance."""
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
OF_PYTHON: Final = "instructions"
HOW: Final = "python scripts/guard.py --record"

Figures = Mapping[str, float]


class Record(NamedTuple):
    """What a job cost when somebody last looked, and accepted that."""

    python: str  # major.minor
    figures: Figures


class Verdict(NamedTuple):
    """One figure beside the recorded one; `limit` is inf if it is not judged."""

    key: str
    was: float
    now: float
    limit: float

    @property
    def failed(self) -> bool:
        return self.now > self.limit

    @property
    def change(self) -> str:
        return f"{100 * (self.now / self.was - 1):+.1f} %" if self.was else "new"


def is_ratio(key: str) -> bool:
    return key.startswith("ratio.")


def is_of_python(key: str) -> bool:
    """Whether another version of Python has another figure."""
    return OF_PYTHON in key.split(".")


def judge(record: Record, measured: Figures, python: str = PYTHON) -> list[Verdict]:
    """Each recorded and each measured figure. One that is not recorded has a limit of 0; of one that was not
    measured nobody can say that it holds, so it is infinite."""
    found = []
    for key in dict.fromkeys((*record.figures, *measured)):
        was, now = record.figures.get(key, 0.0), measured.get(key, inf)
        limit = was * (RATIO_MAX if is_ratio(key) else EXACT_MAX)
        if is_of_python(key) and python != record.python:
            limit = inf
        found.append(Verdict(key, was, now, limit))
    return found


def complaint(verdict: Verdict) -> str:
    key, was, now, limit = verdict
    if not was:
        return f"{key} is {number(now)}, and nothing is recorded of it"
    if now == inf:
        return f"{key} was {number(was)}, and is not measured any more"
    return f"{key} is {number(now)} ({verdict.change}), was {number(was)}, may be {number(limit)}"


def is_gain(verdict: Verdict) -> bool:
    """Whether it is certainly less. (On a busy machine a ratio can be, because the floor waits more.)"""
    return not is_ratio(verdict.key) and verdict.limit < inf and verdict.now < GAIN * verdict.was


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def read(file: Path = RECORD) -> Record:
    told = tomllib.loads(file.read_text())
    return Record(str(told["python"]), {key: float(value) for key, value in told["figures"].items()})


def as_toml(record: Record) -> str:
    lines = [
        f"# What a job costs, as `{HOW}` found it; `make guard` compares with this.",
        f'python = "{record.python}"',
        "",
        "[figures]",
        *(f'"{key}" = {value:.6g}' for key, value in record.figures.items()),
    ]
    return "\n".join(lines) + "\n"


def counted() -> dict[str, float]:
    """`guard_cost.counts`, in a process of its own: what an earlier run left in a cache would change them."""
    environment = os.environ | {"PYTHONHASHSEED": HASH_SEED}
    command = [sys.executable, __file__, "--count"]
    told = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
    return {key: float(value) for key, value in json.loads(told).items()}


def least(measure: Callable[[], Figures], limits: Figures, turns: int = TURNS) -> dict[str, float]:
    """Measure until no figure is above its limit, or so often; the least of each."""
    found = dict(measure())
    for _ in range(turns - 1):
        if all(value <= limits.get(key, inf) for key, value in found.items()):
            break
        found = {key: min(found[key], value) for key, value in measure().items()}
    return found


def told(verdicts: Sequence[Verdict], record: Record) -> str:
    lines = [f"{'a job':28} {'recorded':>10} {'now':>10}"]
    for each in verdicts:
        line = f"{each.key:28} {number(each.was):>10} {number(each.now):>10} {each.change:>9}"
        lines.append(f"{line}  TOO MUCH" if each.failed else line)
    if record.python != PYTHON:
        lines.append(f"instructions are of Python {record.python}; this is {PYTHON}: not judged")
    failed = [each for each in verdicts if each.failed]
    lines += ["", *(f"guard: {complaint(each)}" for each in failed)]
    if failed:
        lines.append(f"If that is what the change is worth: {HOW}")
    elif gains := [each.key for each in verdicts if is_gain(each)]:
        lines.append(f"guard: less than recorded, so that it is worth recording ({HOW}): {', '.join(gains)}")
    else:
        lines.append("guard: a job costs what it did")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="write the figures of this run")
    parser.add_argument("--count", action="store_true", help="only the exact figures, as JSON")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="edgenode-guard-") as folder:
        if given.count:
            print(json.dumps(guard_cost.counts(Path(folder))))
            return 0
        record = Record(PYTHON, {}) if given.record else read()
        limits = {} if given.record else {each.key: each.limit for each in judge(record, {})}
        figures = counted()
        with guard_cost.taking_turns(Path(folder)) as measure:
            figures |= least(measure, limits)
    if given.record:
        RECORD.write_text(as_toml(Record(PYTHON, figures)))
        print(f"recorded in {RECORD}")
        return 0
    verdicts = judge(record, figures)
    print(told(verdicts, record))
    return int(any(each.failed for each in verdicts))


if __name__ == "__main__":
    sys.exit(main())
