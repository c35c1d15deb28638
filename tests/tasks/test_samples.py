"""The sample inputs, and the check that must notice whatever is wrong with the outputs."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from edgenode.task import load_tasks, run_task
from scripts import samples as module
from scripts.samples import Job, Samples, check_outputs, jobs_for, make_samples, pi_hex


class Run(NamedTuple):
    """Samples, and their jobs with what they returned."""

    samples: Samples
    jobs: list[Job]
    results: list[Any]

    def problems(self) -> list[str]:
        return check_outputs(self.samples, self.jobs, self.results)

    def places(self, task: str, suffix: str = "") -> list[int]:
        """Which jobs are of this task, and write such a file."""
        return [
            place
            for place, job in enumerate(self.jobs)
            if job.task == task and job.payload.get("target", "").endswith(suffix)
        ]

    def file(self, place: int) -> Path:
        return Path(self.jobs[place].payload["target"])

    def replace(self, place: int, content: bytes) -> None:
        """Change a file and its report together: only its content gives it away."""
        self.file(place).write_bytes(content)
        self.results[place] |= {"bytes": len(content), "sha256": sha256(content).hexdigest()}


def small(folder: Path, seed: int = 1) -> Samples:
    return make_samples(folder, pictures=5, records=3_000, transactions=64, seed=seed)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    samples = small(tmp_path_factory.mktemp("samples"))
    registry = load_tasks(["edgenode.tasks"])
    jobs = jobs_for(samples, resizes=7, parts=7, ranges=6, pi_parts=4, pi_part_digits=50)
    return Run(samples, jobs, [run_task(job.task, job.payload, registry=registry) for job in jobs])


@pytest.fixture
def run(finished: Run) -> Iterator[Run]:
    """The finished run, to be damaged: jobs and results are copies, files are put back."""
    files = {path: path.read_bytes() for path in finished.samples.folder.rglob("out/*/*")}
    yield deepcopy(finished)
    for path, content in files.items():
        path.write_bytes(content)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_makes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    small(first)
    small(again)
    small(other, seed=2)
    assert contents(first) == contents(again)
    assert contents(first).keys() == contents(other).keys()
    assert not set(contents(first).values()) & set(contents(other).values())


def test_the_samples_hold_what_makes_the_tasks_hard(run: Run) -> None:
    assert {picture.orientation for picture in run.samples.pictures} == {1, 3, 6}
    assert {picture.path.suffix for picture in run.samples.pictures} == {".jpg", ".png"}
    totals = Counter[str]()
    for place in run.places("data.enrich"):
        totals.update({name: run.results[place][name] for name in ("rows", "matched", "unmatched", "bad")})
    assert totals["rows"] == 3_000
    assert totals["unmatched"] > 30
    assert totals["bad"] > 0
    assert "two\nlines" in run.samples.orders.read_text()


def test_the_jobs_of_a_demo_are_200_of_four_kinds_each_with_its_own_output(tmp_path: Path) -> None:
    jobs = jobs_for(small(tmp_path))
    assert Counter(job.task for job in jobs) == {
        "image.resize": 60,
        "data.enrich": 60,
        "chain.verify": 40,
        "compute.pi": 40,
    }
    assert len({repr(job) for job in jobs}) == 200
    targets = [job.payload["target"] for job in jobs if "target" in job.payload]
    assert len(set(targets)) == len(targets) == 120
    assert jobs == jobs_for(small(tmp_path))


def test_right_outputs_pass(run: Run) -> None:
    assert run.problems() == []


# Each of these plants one wrong output, and returns a part of the complaint it must cause.


def no_result(run: Run) -> str:
    run.results[3] = None
    return "no result"


def file_missing(run: Run) -> str:
    run.file(run.places("image.resize")[0]).unlink()
    return "was not written"


def file_changed_afterwards(run: Run) -> str:
    path = run.file(run.places("data.enrich")[0])
    path.write_bytes(path.read_bytes().replace(b"Product", b"product", 1))
    return "another SHA-256"


def file_grown_afterwards(run: Run) -> str:
    with open(run.file(run.places("data.enrich")[0]), "ab") as file:
        file.write(b"\n")
    return "not the file that was reported"


def half_a_picture(run: Run) -> str:
    place = run.places("image.resize", ".jpg")[0]
    content = run.file(place).read_bytes()
    run.replace(place, content[: len(content) // 2])
    return "cannot be read"


def _picture_changed(run: Run, change: Callable[[Image.Image], Image.Image]) -> None:
    place = run.places("image.resize", ".webp")[0]
    encoded = BytesIO()
    with Image.open(run.file(place)) as picture:
        change(picture).save(encoded, "webp")
    run.replace(place, encoded.getvalue())


def picture_upside_down(run: Run) -> str:
    _picture_changed(run, lambda picture: picture.transpose(Image.Transpose.ROTATE_180))
    return "does not look like its source"


def picture_too_small(run: Run) -> str:
    _picture_changed(run, lambda picture: picture.resize((picture.width, picture.height - 1)))
    return "were expected"


def picture_of_another(run: Run) -> str:
    _picture_changed(run, lambda picture: Image.new("RGB", picture.size, "green"))
    return "does not look like its source"


def wrong_size_reported(run: Run) -> str:
    run.results[run.places("image.resize")[0]]["width"] += 1
    return "were expected"


def _lines_changed(run: Run, suffix: str, change: Callable[[list[bytes]], list[bytes]]) -> None:
    place = run.places("data.enrich", suffix)[0]
    run.replace(place, b"".join(change(run.file(place).read_bytes().splitlines(keepends=True))))


def record_lost(run: Run) -> str:
    _lines_changed(run, ".ndjson", lambda lines: lines[:-1])
    return "None, ("


def record_twice(run: Run) -> str:
    _lines_changed(run, ".ndjson", lambda lines: [*lines, lines[-1]])
    return "None was expected"


def records_swapped(run: Run) -> str:
    _lines_changed(run, ".ndjson", lambda lines: [lines[1], lines[0], *lines[2:]])
    return "record 0 is"


def wrong_counterpart(run: Run) -> str:
    place = run.places("data.enrich", ".csv")[0]
    run.replace(place, run.file(place).read_bytes().replace(b",Product ", b",Product 9", 1))
    return "was expected"


def header_missing(run: Run) -> str:
    _lines_changed(run, ".csv", lambda lines: lines[1:])
    return "does not begin with the header"


def not_json(run: Run) -> str:
    _lines_changed(run, ".ndjson", lambda lines: [*lines, b"{"])
    return "cannot be read"


def wrong_counts(run: Run) -> str:
    run.results[run.places("data.enrich")[2]]["unmatched"] += 1
    return "rows, matched, unmatched and bad are"


def part_never_sent(run: Run) -> str:
    place = run.places("data.enrich")[0]
    del run.jobs[place], run.results[place]
    return "orders: "


def range_never_sent(run: Run) -> str:
    place = run.places("chain.verify")[0]
    del run.jobs[place], run.results[place]
    return ".ndjson: "


def _broken_place(run: Run) -> int:
    return next(p for p in run.places("chain.verify") if run.results[p]["broken_at"] is not None)


def break_overlooked(run: Run) -> str:
    run.results[_broken_place(run)] |= {"broken_at": None, "reason": None}
    return "chain-broken.ndjson from"


def invalid_called_valid(run: Run) -> str:
    run.results[_broken_place(run)]["valid"] += 1
    return "chain-broken.ndjson from"


def wrong_reason(run: Run) -> str:
    run.results[_broken_place(run)]["reason"] = "sequence gap"
    return "chain-broken.ndjson from"


def wrong_head(run: Run) -> str:
    place = next(p for p in run.places("chain.verify") if run.jobs[p].payload["first"] == 0)
    run.results[place]["head"] = "0" * 64
    return "from 0"


def wrong_digit(run: Run) -> str:
    place = run.places("compute.pi")[-1]
    digits = run.results[place]["digits"]
    run.results[place]["digits"] = digits[:-1] + ("0" if digits[-1] != "0" else "1")
    return "differ from Chudnovsky"


@pytest.mark.parametrize(
    "plant",
    [
        no_result,
        file_missing,
        file_changed_afterwards,
        file_grown_afterwards,
        half_a_picture,
        picture_upside_down,
        picture_too_small,
        picture_of_another,
        wrong_size_reported,
        record_lost,
        record_twice,
        records_swapped,
        wrong_counterpart,
        header_missing,
        not_json,
        wrong_counts,
        part_never_sent,
        range_never_sent,
        break_overlooked,
        invalid_called_valid,
        wrong_reason,
        wrong_head,
        wrong_digit,
    ],
)
def test_a_wrong_output_is_noticed(run: Run, plant: Callable[[Run], str]) -> None:
    complaint = plant(run)
    problems = run.problems()
    assert any(complaint in problem for problem in problems), problems


def test_the_digits_to_compare_with_are_those_of_pi() -> None:
    # The first line of Blowfish's P-array, which is the fraction of pi (Schneier, 1993).
    assert pi_hex(64) == "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89"
    assert pi_hex(0) == ""
    assert pi_hex(3_000)[:2_000] == pi_hex(2_000)


def test_the_script_makes_samples_from_the_command_line(tmp_path: Path) -> None:
    sizes = ["--pictures", "1", "--records", "20", "--transactions", "3"]
    command = [sys.executable, module.__file__, "--out", str(tmp_path / "made"), *sizes]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "20 orders" in found.stdout
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [
        "chain-broken.ndjson",
        "chain.ndjson",
        "orders.csv",
        "pictures",
        "products.csv",
    ]
