"""The picture of a run of the bench: how fast, how soon, and at what price. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench_mesh import KINDS
from bench_readme import LATENCIES, environment_text
from bench_speed import CLIENTS


def plot(told: Mapping[str, Any], path: Path) -> None:
    """Draw a document of `bench_figures.as_json`, as SVG or PNG by the name; figures may be missing."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text as text: a tenth of the size
    matplotlib.rcParams["svg.hashsalt"] = "edgenode"  # the same file from the same figures
    from matplotlib import pyplot

    peers = [peer for peer in told["peers"] if "why" not in peer]
    count, width = (4, 14) if peers else (2, 8)
    figure, axes = pyplot.subplots(1, count, figsize=(width, 3.4), layout="constrained")
    values = {key: measure["value"] for key, measure in told["measures"].items()}
    _throughput(axes[0], values)
    _latency(axes[1], values)
    if peers:
        _bars(axes[2], peers, [peer["jobs_per_s"] for peer in peers], "jobs/s end to end, results read")
        used_us = [peer["system_us"] + peer["client_us"] for peer in peers]
        _bars(axes[3], peers, used_us, "CPU µs a job, all processes")
        axes[3].set_yticklabels([])
    for axis in axes:
        axis.grid(visible=True, alpha=0.3)
    figure.suptitle(environment_text(told["environment"]), fontsize=7)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _throughput(axis: Any, values: Mapping[str, float]) -> None:
    for kind in KINDS:
        keys = [f"end_to_end.{kind}.{way}.jobs_per_s" for way in (*CLIENTS, "batch")]
        if all(key in values for key in keys):
            names = [*map(str, CLIENTS), "batches"]
            axis.plot(names, [values[key] for key in keys], marker="o", label=kind)
    axis.set_title("jobs/s end to end, by clients", fontsize=10)
    _legend(axis)


def _latency(axis: Any, values: Mapping[str, float]) -> None:
    for kind in KINDS:
        for load, said, line in (("idle", "at idle", "-"), ("half", "at half load", "--")):
            keys = [f"latency.{kind}.{load}.{name}" for name in LATENCIES]
            if all(key in values for key in keys):
                names, times = ["p50", "p95", "p99"], [values[key] for key in keys]
                axis.plot(names, times, marker="o", linestyle=line, label=f"{kind}, {said}")
    axis.set_title("one job until it is settled, ms", fontsize=10)
    _legend(axis)


def _legend(axis: Any) -> None:
    axis.set_ylim(bottom=0)
    if axis.lines:
        axis.legend(fontsize=8)


def _bars(axis: Any, peers: Sequence[Mapping[str, Any]], values: Sequence[float], title: str) -> None:
    names = [peer["system"] for peer in peers]
    axis.barh(names, values, color=["tab:orange" if "edgenode" in name else "tab:blue" for name in names])
    axis.set_title(title, fontsize=10)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.tick_params(labelsize=8)
