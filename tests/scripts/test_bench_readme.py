"""What a run of the bench writes for people: the README's tables, and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bench
import bench_plot
import bench_readme
import pytest

ENVIRONMENT = {
    "command": "python scripts/bench.py --repeat 3",
    "processor": "2 x Example",
    "memory": "24 GiB",
    "disk": "ext4",
    "fdatasync of 4 KiB, ms": 0.2,
    "python": "3.11.7",
    "event loop": "uvloop 1",
    "sqlite": "3.40",
    "payload bytes": 100,
    "load average at the start": 0.25,
    "load average at the end": 1.5,
}
COST = {"nodes_us": 90.0, "workers_us": 0.0, "load_us": 5.5, "link_bytes": 3000.0, "disk_bytes": 8000.0}
PEERS = [
    {
        "system": "edgenode, 3 nodes, workers",
        "versions": "0.1.0",
        "accepted": "disks",
        "is_base": True,
        "submit_per_s": 9000.0,
        "jobs_per_s": 8000.0,
        "one_p50_ms": 1.4,
        "one_p99_ms": 4.0,
        "system_us": 95.0,
        "client_us": 5.0,
    },
    {"system": "Ray", "why": "not installed: ray"},
]


def told(*keys: str, peers: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    measures = {
        key: {
            "value": 10.0 + number,
            "unit": "jobs/s",
            "label": f"label {key}",
            "note": f"{number} jobs",
            "per_job": COST,
        }
        for number, key in enumerate(keys)
    }
    return {"environment": ENVIRONMENT, "measures": measures, "peers": peers or [], "faults": []}


def test_a_line_has_the_figures_that_belong_together_and_what_one_job_took() -> None:
    keys = [f"end_to_end.inline.{clients}.jobs_per_s" for clients in (1, 16, 64)]
    text = bench_readme.markdown(told(*keys, "held.queued.600.rss_mib", "held.queued.600.count"))
    lines = text.splitlines()
    assert lines[0].startswith("`python scripts/bench.py --repeat 3`: 2 x Example")
    assert "payload 100 bytes" in lines[0]
    assert lines[4:] == [
        "| end to end, inline, single requests by 1 / 16 / 64 clients | 10.0 / 11.0 / 12.0 jobs/s"
        " | 90.0 / 0 / 5.50 | 3,000 / 8,000 | 2 jobs |",
        "| label held.queued.600.rss_mib | 13.0 jobs/s | 90.0 / 0 / 5.50 | 3,000 / 8,000 | 3 jobs |",
    ]


def test_a_line_with_a_figure_missing_is_left_out() -> None:
    text = bench_readme.markdown(told("latency.inline.idle.p50_ms", "latency.inline.idle.p99_ms"))
    assert len(text.splitlines()) == 4


def test_other_systems_are_a_table_of_their_own_also_those_that_are_not_there() -> None:
    text = bench_readme.markdown(told(peers=PEERS))
    assert (
        "| edgenode, 3 nodes, workers (0.1.0) | disks | 9,000 | 8,000 | 1.00 | 1.40 / 4.00 | 95.0 / 5.00 |"
        in text
    )
    assert "| Ray | not installed: ray |" in text


def test_the_tables_take_the_place_of_those_that_are_there_and_of_nothing_else() -> None:
    readme = f"before\n{bench_readme.BEGIN}\nold\n{bench_readme.END}\nafter\n"
    new = bench_readme.put_into(readme, "new\n")
    assert new == f"before\n{bench_readme.BEGIN}\nnew\n{bench_readme.END}\nafter\n"
    assert bench_readme.put_into(new, "new\n") == new
    with pytest.raises(ValueError, match="there is no"):
        bench_readme.put_into("before\nafter\n", "new\n")


def test_a_readme_without_a_place_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing")
    for name in ("README.md", "none"):
        with pytest.raises(SystemExit):
            bench.parse(["--readme", str(tmp_path / name)])


def test_the_readme_of_this_project_has_a_place() -> None:
    readme = Path(bench.__file__).parents[1] / "README.md"
    bench.parse(["--readme", str(readme)])
    assert bench_readme.put_into(readme.read_text(), "new\n") != readme.read_text()


@pytest.mark.parametrize("peers", [[], PEERS])
def test_the_picture_is_the_same_from_the_same_figures(tmp_path: Path, peers: list[dict[str, Any]]) -> None:
    pytest.importorskip("matplotlib")
    keys = [f"end_to_end.workers.{way}.jobs_per_s" for way in (1, 16, 64, "batch")]
    keys += [f"latency.workers.idle.{name}" for name in bench_readme.LATENCIES]
    for name in ("one.svg", "other.svg", "one.png"):
        bench_plot.plot(told(*keys, peers=peers), tmp_path / name)
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "other.svg").read_text()
    assert "<svg" in drawn
    assert len(drawn) < 200_000
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
