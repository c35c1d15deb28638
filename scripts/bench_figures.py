"""Figures of a bench, and the ways in which they are shown: a table, JSON, CSV, Markdown."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.table import Table

README_BEGIN: Final = "<!-- bench: written by `make bench-readme` -->"
README_END: Final = "<!-- bench: end -->"


class Cost(NamedTuple):
    """What one job (or read) took, on average over many."""

    nodes_us: float  # CPU of all nodes together, in microseconds
    workers_us: float  # of all their workers
    load_us: float  # of whoever submitted and read
    link_bytes: float  # sent between nodes, before TLS
    disk_bytes: float  # written to all disks, whole pages as the kernel counts them


class Measure(NamedTuple):
    """One figure. `key` is for programs and stays; `label` and `note` are for people."""

    key: str
    label: str
    value: float
    unit: str
    note: str = ""
    cost: Cost | None = None


class Row(NamedTuple):
    """One job of an end to end run. Times are Unix seconds, of this machine's one clock."""

    id: str
    sent: float
    accepted: float
    finished: float


class Figures:
    """All that was measured so far, in order, and what was wrong with it."""

    def __init__(self) -> None:
        self.measures: list[Measure] = []
        self.rows: list[Row] = []
        self.faults: list[str] = []

    def add(
        self, key: str, label: str, value: float, unit: str, note: str = "", cost: Cost | None = None
    ) -> None:
        self.measures.append(Measure(key, label, value, unit, note, cost))

    def check(self, holds: bool, text: str) -> None:
        """A figure counts only if the work behind it was done; else `text` says what was not."""
        if not holds:
            self.faults.append(text)

    def value(self, key: str) -> float | None:
        """Of the measure with this key, if it was taken."""
        return next((measure.value for measure in self.measures if measure.key == key), None)

    def cost(self, key: str) -> Cost | None:
        return next((measure.cost for measure in self.measures if measure.key == key), None)


def counted(**counts: int) -> str:
    """The counts that are not zero, in words."""
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count)


def number_text(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


# ----------------------------------------------------------------------------------------------- files


def write_csv(file: Path, rows: Iterable[Row]) -> None:
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(Row._fields)
        for row in rows:
            writer.writerow((row.id, *(f"{at:.6f}" for at in row[1:])))


def as_json(environment: Mapping[str, Any], figures: Figures, peers: Sequence[Mapping[str, Any]] = ()) -> str:
    """One document: `environment` by name, `measures` by key, `peers` as rows, `faults` as texts."""
    measures = {measure.key: _measure_fields(measure) for measure in figures.measures}
    told = {"environment": environment, "measures": measures, "peers": peers, "faults": figures.faults}
    return json.dumps(told, indent=2) + "\n"


def _measure_fields(measure: Measure) -> dict[str, Any]:
    fields = {"value": measure.value, "unit": measure.unit, "label": measure.label, "note": measure.note}
    return fields if measure.cost is None else fields | {"per_job": measure.cost._asdict()}


def measures_of(told: Mapping[str, Any]) -> list[Measure]:
    """The measures in a document of `as_json`."""
    return [
        Measure(
            key, fields["label"], fields["value"], fields["unit"], fields["note"],
            Cost(**fields["per_job"]) if "per_job" in fields else None,
        )
        for key, fields in told["measures"].items()
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------- tables

HEADINGS: Final = ("measure", "value", "unit", "CPU µs a job", "bytes a job", "note")


def table(measures: Iterable[Measure]) -> Table:
    shown = Table(caption="CPU: all nodes / their workers / the load. Bytes: links between nodes / disks")
    for heading in HEADINGS:
        shown.add_column(heading, justify="right" if heading == "value" else "left", overflow="fold")
    for measure in measures:
        shown.add_row(measure.label, number_text(measure.value), measure.unit, *_costs(measure), measure.note)
    return shown


def _costs(measure: Measure) -> tuple[str, str]:
    if measure.cost is None:
        return "", ""
    parts = [number_text(part) for part in measure.cost]
    return " / ".join(parts[:3]), " / ".join(parts[3:])


def environment_text(told: Mapping[str, Any]) -> str:
    """What the figures depend on most, in a sentence for people."""
    return (
        f"{told['processor']}, {told['memory']}, {told['disk']} (fdatasync of 4 KiB: "
        f"{told['fdatasync of 4 KiB, ms']} ms), Python {told['python']}, {told['event loop']}, "
        f"SQLite {told['sqlite']}; payload {told['payload bytes']} bytes; load of the machine "
        f"{told['load average at the start']:.1f} before and {told['load average at the end']:.1f} after"
    )


def markdown(told: Mapping[str, Any]) -> str:
    """The tables of the README, from a document of `as_json`."""
    lines = [f"{environment_text(told['environment'])}.", ""]
    lines += ["| figure | value | CPU µs a job: nodes / workers / load | bytes a job: links / disks |"]
    lines += ["|---|---|---|---|"]
    for measure in measures_of(told):
        value = f"{number_text(measure.value)} {measure.unit}"
        lines.append(f"| {measure.label.strip()} | {value} | {' | '.join(_costs(measure))} |")
    if told["peers"]:
        lines += ["", *peers_markdown(told["peers"])]
    return "\n".join(lines) + "\n"


PEER_HEADINGS: Final = (
    "system", "accepted means", "submit/s", "end to end jobs/s", "ratio", "one job p50 / p99 ms",
    "CPU µs a job: system / client",
)  # fmt: skip


def peer_cells(peer: Mapping[str, Any], ours: float | None) -> tuple[str, ...]:
    """One line of the comparison; `ours` is the end to end rate that the ratio is of."""
    if "why" in peer:
        return peer["system"], str(peer["why"]), *[""] * (len(PEER_HEADINGS) - 2)
    rate = float(peer["jobs_per_s"])
    submitted = "(lazy)" if peer["submit_per_s"] is None else number_text(peer["submit_per_s"])
    times = f"{number_text(peer['one_p50_ms'])} / {number_text(peer['one_p99_ms'])}"
    cpu = f"{number_text(peer['system_us'])} / {number_text(peer['client_us'])}"
    ratio = "" if ours is None else number_text(ours / rate)
    return peer["system"], peer["accepted"], submitted, number_text(rate), ratio, times, cpu


def best_of_ours(peers: Sequence[Mapping[str, Any]]) -> float | None:
    """Our rate in worker processes, which is what the others do too."""
    return next((peer["jobs_per_s"] for peer in peers if peer.get("is_base")), None)


def peers_markdown(peers: Sequence[Mapping[str, Any]]) -> list[str]:
    ours = best_of_ours(peers)
    lines = ["| " + " | ".join(PEER_HEADINGS) + " |", "|---" * len(PEER_HEADINGS) + "|"]
    return lines + ["| " + " | ".join(peer_cells(peer, ours)) + " |" for peer in peers]


def peers_table(peers: Sequence[Mapping[str, Any]]) -> Table:
    caption = "Ratio: edgenode in worker processes over this, in jobs/s end to end, results read back"
    shown = Table(caption=caption)
    for heading in PEER_HEADINGS:
        shown.add_column(heading, overflow="fold")
    for peer in peers:
        shown.add_row(*peer_cells(peer, best_of_ours(peers)))
    return shown


def put_into(readme: str, text: str) -> str:
    """The README with these tables in place of those that it has.

    Raises:
        ValueError: it has no place for them.
    """
    head, begin, rest = readme.partition(README_BEGIN)
    _, end, tail = rest.partition(README_END)
    if not begin or not end:
        raise ValueError(f"the README has no {README_BEGIN} ... {README_END}")
    return f"{head}{begin}\n{text}{end}{tail}"
