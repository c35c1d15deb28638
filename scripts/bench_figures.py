"""Figures of a bench, and the ways in which they are kept: a table, JSON, CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.table import Table


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


def medians(measures: Iterable[Measure]) -> list[Measure]:
    """One of each key: that with the median value (of an even number the lower one), as it is."""
    found: dict[str, list[Measure]] = {}
    for measure in measures:
        found.setdefault(measure.key, []).append(measure)
    return [sorted(each, key=_value)[(len(each) - 1) // 2] for each in found.values()]


def _value(measure: Measure) -> float:
    return measure.value


class Figures:
    """All that was measured so far, in order, and what was wrong with it."""

    def __init__(self) -> None:
        self._all: list[Measure] = []
        self.rows: list[Row] = []
        self.faults: list[str] = []

    def add(
        self, key: str, label: str, value: float, unit: str, note: str = "", cost: Cost | None = None
    ) -> None:
        self._all.append(Measure(key, label, value, unit, note, cost))

    @property
    def measures(self) -> list[Measure]:
        """The medians of what was measured more than once."""
        return medians(self._all)

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


def spread(ratios: Sequence[float]) -> str:
    return f"median of {len(ratios)} turns, {min(ratios):.2f} to {max(ratios):.2f}"


def number_text(value: float) -> str:
    if abs(value) >= 100 or not value:
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
        shown.add_row(measure.label, number_text(measure.value), measure.unit, *costs(measure), measure.note)
    return shown


def costs(measure: Measure) -> tuple[str, str]:
    """CPU and bytes of one job, as text; nothing where they were not measured."""
    if measure.cost is None:
        return "", ""
    parts = [number_text(part) for part in measure.cost]
    return " / ".join(parts[:3]), " / ".join(parts[3:])
