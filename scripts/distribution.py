"""What repeated measurements say: percentiles, bars in text, and whether a promise was kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import ceil, inf, isfinite
from typing import Final, NamedTuple

BARS_MAX: Final = 12
BAR_CHARS: Final = 50
STEPS: Final = (0.001, 0.002, 0.005)
"""Bar widths are these times a power of ten: people read round numbers."""


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of all do not exceed (nearest rank)."""
    assert values
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


class Distribution(NamedTuple):
    """Repeated measurements of one thing, in seconds; what never came is `inf`."""

    n: int
    min: float
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Distribution:
        """Of at least one value."""
        p50, p90, p99 = (percentile(values, share) for share in (0.5, 0.9, 0.99))
        return cls(len(values), min(values), p50, p90, p99, max(values))


def bar_width_s(span_s: float) -> float:
    """The smallest round width that covers `span_s` with at most BARS_MAX bars."""
    scale = 1.0
    while True:
        for step in STEPS:
            if span_s <= step * scale * (BARS_MAX - 1):
                return step * scale
        scale *= 10


def histogram(values: Iterable[float]) -> Iterator[str]:
    """A line for each bar; what never came has a line of its own at the end."""
    values = list(values)
    finite = sorted(value for value in values if isfinite(value))
    if finite:
        width = bar_width_s(finite[-1] - finite[0])
        first, last = int(finite[0] / width), int(finite[-1] / width)
        counts = [0] * (last - first + 1)
        for value in finite:
            counts[int(value / width) - first] += 1
        scale = max(1.0, max(counts) / BAR_CHARS)
        for place, count in enumerate(counts, first):
            bar = "#" * ceil(count / scale)
            low, high = round(place * width * 1000), round((place + 1) * width * 1000)
            yield f"{low:6d} to {high:5d} ms {count:4d}  {bar}".rstrip()
    if missing := len(values) - len(finite):
        yield f"{'never':>18} {missing:4d}  {'#' * min(missing, BAR_CHARS)}"


HEADING: Final = f"{'':34}{'n':>5}" + "".join(f"{name:>9}" for name in ("min", "p50", "p90", "p99", "max"))


def row(label: str, values: Sequence[float]) -> str:
    """A line of the table under HEADING, in seconds."""
    if not values:
        return f"{label:34}{0:>5}"
    found = Distribution.of(values)
    return f"{label:34}{found.n:>5}" + "".join(f"{seconds(value):>9}" for value in found[1:])


def seconds(value: float) -> str:
    return "never" if value == inf else f"{value:.3f}"


class Promise(NamedTuple):
    """A bound on the p99 of something."""

    what: str
    bound_s: float

    def verdict(self, values: Sequence[float]) -> tuple[bool, str]:
        """Whether it was kept, and that in words."""
        p99 = percentile(values, 0.99)
        kept = p99 <= self.bound_s
        share = sum(value <= self.bound_s for value in values) / len(values)
        text = f"{self.what}: p99 {seconds(p99)} s, promised {self.bound_s:g} s, kept in {share:.0%}"
        return kept, f"{text}: {'HOLDS' if kept else 'MISSED'}"
