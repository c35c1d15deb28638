"""The figures of `make scale` at small sizes: what must be flat is flat, and what must be quick is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import pytest
import scale
from swarm import Swarm

from edgenode.core.settings import PRESETS


def test_a_node_at_rest_sends_no_more_in_a_larger_mesh() -> None:
    small, large = (scale.measure(size, seed=1, rest_s=5.0, deaths=1) for size in (10, 30))
    assert 0.9 < large.bytes_s / small.bytes_s < 1.1
    assert large.bytes_s_max < 1.2 * small.bytes_s_max
    assert 0.95 < large.messages_s / small.messages_s < 1.05
    assert (small.links, large.links) == (9, 29)
    assert max(small.killed_s, large.killed_s) < 0.25
    assert max(small.silent_s, large.silent_s) < 3.0
    for figures in (small, large):
        assert figures.spread < 1.5 * figures.spread_by_chance
        assert figures.moved == pytest.approx(1 / (figures.members + 1), rel=0.3)


def test_members_that_have_known_each_other_for_long_are_as_those_that_joined() -> None:
    joined = scale.settled(12, seed=2)
    known = Swarm(2, PRESETS["lan"])
    known.acquaint(12)
    known.run(joined.now - known.now)
    for swarm in (joined, known):
        assert swarm.is_whole()
        swarm.count(10.0)
    sent = [sum(member.bytes for member in swarm.members.values()) for swarm in (joined, known)]
    assert sent[0] == pytest.approx(sent[1], rel=0.02)


def test_a_node_at_rest_sends_no_more_with_finished_jobs_on_its_disk() -> None:
    none, many = (scale.with_finished(count, size=5, seed=3, rest_s=10.0) for count in (0, 400))
    assert many < 1.1 * none  # a few digits more in each load


def calls_per_event(size: int) -> float:
    """Python functions called in the core for one event at rest: the same on every machine. (Who looks for
    work looks at each member's load, twice a second; there are few other events.)"""
    swarm = scale.settled(size, seed=4)
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = swarm.events
    sys.setprofile(count)
    try:
        swarm.run(2.0)
    finally:
        sys.setprofile(None)
    return calls / (swarm.events - before)


def test_an_event_at_rest_takes_a_node_hardly_more_steps_in_a_larger_mesh() -> None:
    small, large = calls_per_event(6), calls_per_event(24)
    assert large < 1.25 * small


def test_the_table_is_printed_without_matplotlib(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert scale.main(["--sizes", "5", "8", "--rest", "2", "--deaths", "1", "--finished", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines] == ["members", "---", "5", "8"]


def test_the_plot_is_an_svg_of_modest_size_and_the_same_from_the_same_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [
        scale.Figures(size, 20.0, 500.0, 510.0, min(size - 1, 128), 0.1, 1.5, 0.2, 0.22, 1 / size, 1.0)
        for size in (10, 100, 1000)
    ]
    for name in ("one.svg", "other.svg"):
        scale.plot(rows, tmp_path / name)
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "other.svg").read_text()
    assert "<svg" in drawn
    assert len(drawn) < 150_000
