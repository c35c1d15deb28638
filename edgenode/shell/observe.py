"""What a node counts and measures, as `GET /metrics` shows it (Prometheus text format, version 0.0.4).

Counters and latencies are fed as things happen; all else is read at the moment of the request. Labels have
few values: never a job, never a peer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edgenode.core.types import Load, Seconds

COMMIT_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""From an SSD with a cache that survives power cuts to a disk that others keep busy."""


class Sample(NamedTuple):
    """How a node is at one moment."""

    ready: bool
    draining: bool
    writable: bool  # the store takes writes
    behind: bool  # the disk was put back or copied
    owned: Mapping[str, int]  # unfinished jobs that this node owns, by state
    copies: int  # unfinished jobs of which it has a copy, its own included
    members: Mapping[str, int]  # by state
    load: Load
    slots: int
    unwritten_bytes: int
    store_bytes: int
    damaged_rows: int
    inbox: int
    dropped: Mapping[str, int]  # messages, by where
    link_bytes: Mapping[tuple[str, str], int]  # by kind of link and direction


class Observer:
    """One node's figures. `committed` may be called from any thread, the rest from the event loop's."""

    def __init__(self, sample: Callable[[], Sample], *, labels: Mapping[str, str]) -> None:
        """
        Args:
            sample: what is read at each request.
            labels: of the one figure that says which node this is.
        """
        self._registry = CollectorRegistry()
        self._registry.register(_Present(sample, labels))
        ProcessCollector(registry=self._registry)
        self._commits = Histogram(
            "edgenode_store_commit_seconds",
            "How long the disk took to make one group of writes durable, refused ones too",
            buckets=COMMIT_BUCKETS_S,
            registry=self._registry,
        )
        self._refusals = Counter(
            "edgenode_store_refusals", "How often the disk began to refuse writes", registry=self._registry
        )
        self._events = Counter(
            "edgenode_log_events", "Lines of the log, by kind", ["kind"], registry=self._registry
        )

    def committed(self, took_s: Seconds) -> None:
        self._commits.observe(took_s)

    def refused(self) -> None:
        self._refusals.inc()

    def logged(self, kind: str) -> None:
        """Args: kind: from a fixed set, or the figures grow without bound."""
        self._events.labels(kind).inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Present(Collector):
    """Turns a sample into metrics."""

    def __init__(self, sample: Callable[[], Sample], labels: Mapping[str, str]) -> None:
        self._sample = sample
        self._labels = labels

    def describe(self) -> list[Metric]:
        return []  # or the registry would take a sample before there is a node

    def collect(self) -> Iterator[Metric]:
        now = self._sample()
        yield _labelled("info", "Which node this is; always 1", tuple(self._labels), {
            tuple(self._labels.values()): 1
        })  # fmt: skip
        for name, value, text in (
            ("ready", now.ready, "Whether it takes jobs"),
            (
                "draining",
                now.draining,
                "Whether it was asked to drain, and is, or will be, drained",
            ),
            ("store_writable", now.writable, "Whether its disk takes writes"),
            ("store_behind", now.behind, "Whether its disk was put back or copied, and has no vote"),
            ("store_unwritten_bytes", now.unwritten_bytes, "What waits for the disk"),
            ("store_bytes", now.store_bytes, "Size of the store's files"),
            ("store_damaged_rows", now.damaged_rows, "Jobs on which it does not vote: their row was damaged"),
            ("copies", now.copies, "Unfinished jobs of which it has a copy, its own included"),
            ("runs", now.load.running, "Starts that run here now"),
            ("slots", now.slots, "Starts that can run here at one time"),
            ("inbox_events", now.inbox, "Events that wait for the node"),
        ):
            yield GaugeMetricFamily(f"edgenode_{name}", text, float(value))
        yield _labelled("jobs", "Unfinished jobs that it owns", ("state",), _singly(now.owned))
        yield _labelled("members", "Members, as it sees them", ("state",), _singly(now.members))
        for name, value, text in (
            ("jobs_ended", now.load.done, "Jobs that ended under its ownership"),
            ("jobs_taken_over", now.load.taken, "Jobs that it took over from others"),
        ):
            yield CounterMetricFamily(f"edgenode_{name}", text, float(value))
        dropped = CounterMetricFamily(
            "edgenode_messages_dropped", "Messages lost for lack of room", labels=["at"]
        )
        for at, count in now.dropped.items():
            dropped.add_metric([at], count)
        yield dropped
        text = "Bytes on links to peers, before TLS"
        carried = CounterMetricFamily("edgenode_link_bytes", text, labels=["link", "way"])
        for (link, way), count in now.link_bytes.items():
            carried.add_metric([link, way], count)
        yield carried


def _singly(counts: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    return {(label,): count for label, count in counts.items()}


def _labelled(
    name: str, text: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], int]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"edgenode_{name}", text, labels=labels)
    for found, value in values.items():
        family.add_metric(found, value)
    return family
