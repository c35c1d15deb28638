"""The part of the README that has figures, written from a run of the bench."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import bench_peers
from bench_figures import Measure, costs, measures_of, number_text
from bench_mesh import BATCH, KINDS
from bench_speed import CLIENTS

BEGIN: Final = "<!-- written by scripts/bench.py --readme -->"
END: Final = "<!-- end of what it writes -->"
LATENCIES: Final = ("p50_ms", "p95_ms", "p99_ms")
HITS: Final = ("median_s", "worst_s")
Told = Mapping[str, Any]
"""A document of `bench_figures.as_json`."""


def rows() -> Iterator[tuple[str, tuple[str, ...]]]:
    """What a line says, and the keys of the figures in it."""
    for kind in KINDS:
        whole = f"end_to_end.{kind}"
        yield f"end to end, {kind}, batches of {BATCH}", (f"{whole}.batch.jobs_per_s",)
        yield f"the same, results in the answers (`Prefer: wait`), {kind}", (f"{whole}.answers.jobs_per_s",)
        singles = " / ".join(map(str, CLIENTS))
        keys = tuple(f"{whole}.{clients}.jobs_per_s" for clients in CLIENTS)
        yield f"end to end, {kind}, single requests by {singles} clients", keys
        yield f"run only, {kind}: jobs that wait in a queue", (f"run.{kind}.jobs_per_s",)
        for load, said in (("idle", "at idle"), ("half", "at half load")):
            keys = tuple(f"latency.{kind}.{load}.{name}" for name in LATENCIES)
            yield f"one job {said}, {kind}, p50 / p95 / p99", keys
    yield f"submit only, batches of {BATCH}", ("submit.batch.jobs_per_s",)
    keys = tuple(f"submit.single.{clients}.jobs_per_s" for clients in CLIENTS)
    yield f"submit only, single requests by {singles} clients", keys
    yield "reads of one job, not at its owner", ("reads.per_s",)
    yield "the same, p50 / p95 / p99", tuple(f"reads.{name}" for name in LATENCIES)
    for harm, name in (("kill", "`kill -9`"), ("pause", "`SIGSTOP`"), ("leave", "`SIGTERM`")):
        keys = tuple(f"failover.{harm}.{which}" for which in HITS)
        yield f"{name} until the last of its jobs is elsewhere, median / worst", keys
    for what, name in (
        ("day", "start of a job after its day"),
        ("timeout", "end of a job after its timeout"),
    ):
        yield f"{name}, p50 / p99", (f"late.{what}.p50_ms", f"late.{what}.p99_ms")
    yield "an idle node of five: memory (RSS)", ("idle.rss_mib",)
    yield "an idle node of five: memory, shared pages by their share (PSS)", ("idle.pss_mib",)
    yield "an idle node of five: CPU", ("idle.cpu_percent",)
    yield "an idle node of five: sent", ("idle.link_bytes_per_s",)
    yield "start of the mesh / of a killed node again", ("start.mesh_s", "start.again_s")


def markdown(told: Told) -> str:
    """The tables; a figure that was not measured is left out."""
    measures = {measure.key: measure for measure in measures_of(told)}
    lines = [f"`{told['environment']['command']}`: {environment_text(told['environment'])}.", ""]
    lines += ["| figure | value | CPU µs a job: nodes / workers / load | bytes a job: links / disks | from |"]
    lines += ["|---|---|---|---|---|"]
    for label, keys in rows():
        if all(key in measures for key in keys):
            lines.append(_line(label, [measures[key] for key in keys]))
    lines += [_line(measure.label, [measure]) for measure in measures.values() if is_of_held(measure)]
    if told["peers"]:
        base = bench_peers.base_rate(told["peers"])
        lines += [
            "",
            "| " + " | ".join(bench_peers.HEADINGS) + " |",
            "|---" * len(bench_peers.HEADINGS) + "|",
        ]
        lines += ["| " + " | ".join(bench_peers.cells(peer, base)) + " |" for peer in told["peers"]]
    return "\n".join(lines) + "\n"


def is_of_held(measure: Measure) -> bool:
    return measure.key.startswith("held.") and not measure.key.endswith(".count")


def _line(label: str, measures: Sequence[Measure]) -> str:
    """What one job took is that of the last figure: of the most clients, or of the only one; and so is the
    number of jobs that it comes from."""
    values = " / ".join(number_text(measure.value) for measure in measures)
    used = next((each for each in reversed(measures) if each.cost is not None), measures[0])
    return f"| {label} | {values} {measures[0].unit} | {' | '.join(costs(used))} | {used.note} |"


def environment_text(told: Mapping[str, Any]) -> str:
    """What the figures depend on most, in a sentence for people."""
    return (
        f"{told['processor']}, {told['memory']}, {told['disk']} (fdatasync of 4 KiB: "
        f"{told['fdatasync of 4 KiB, ms']} ms), Python {told['python']}, {told['event loop']}, "
        f"SQLite {told['sqlite']}; payload {told['payload bytes']} bytes; load of the machine "
        f"{told['load average at the start']:.1f} before, {told['load average at the end']:.1f} after"
    )


def put_into(readme: str, text: str) -> str:
    """The README with these tables in place of those that it has.

    Raises:
        ValueError: it has no place for them.
    """
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no {BEGIN} ... {END} in it")
    return f"{head}{begin}\n{text}{end}{tail}"
