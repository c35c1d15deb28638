"""What nodes use, and what the figures of a bench depend on."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import time
from collections.abc import Sequence
from http.client import HTTPConnection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
from bench_figures import Cost
from proc import processes, written_bytes
from prometheus_client.parser import text_string_to_metric_families

from edgenode import __version__
from edgenode.cli.up import LocalNode

FSYNCS: Final = 50
METRICS_S: Final = 10.0


class Usage(NamedTuple):
    """What a node has used: CPU and bytes since its start, memory now."""

    cpu_s: float
    rss_bytes: int
    worker_cpu_s: float
    worker_rss_bytes: int
    disk_bytes: int = 0


def usage(nodes: Sequence[LocalNode]) -> list[Usage]:
    """What each node has used, and its worker processes (its children) together."""
    seen = processes()
    found = []
    for node in nodes:
        workers = [stat for stat in seen.values() if stat.parent == node.pid]
        cpu_s, rss_bytes = sum(stat.cpu_s for stat in workers), sum(stat.rss_bytes for stat in workers)
        own = seen[node.pid]
        found.append(Usage(own.cpu_s, own.rss_bytes, cpu_s, rss_bytes, written_bytes(node.pid)))
    return found


class Meter:
    """What nodes use from now on. Asking for their metrics costs them CPU too: that is left out."""

    def __init__(self, nodes: Sequence[LocalNode]) -> None:
        self._nodes = nodes
        self._sent = _all_sent(nodes)
        self._before = usage(nodes)

    def cost(self, load_cpu_s: float, count: int) -> Cost | None:
        """What each of `count` jobs took since then; None if there were none."""
        after = usage(self._nodes)
        return cost(self._before, after, load_cpu_s, _all_sent(self._nodes) - self._sent, count)


def _all_sent(nodes: Sequence[LocalNode]) -> int:
    return sum(sent_bytes(metrics_text(node)) for node in nodes)


def metrics_text(node: LocalNode) -> str:
    connection = HTTPConnection("127.0.0.1", node.api_port, timeout=METRICS_S)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def sent_bytes(metrics: str) -> int:
    """What a node has sent to its peers, before TLS."""
    return round(
        sum(
            sample.value
            for family in text_string_to_metric_families(metrics)
            for sample in family.samples
            if sample.name == "edgenode_link_bytes_total" and sample.labels["way"] == "out"
        )
    )


def cost(
    before: Sequence[Usage], after: Sequence[Usage], load_cpu_s: float, link_bytes: int, count: int
) -> Cost | None:
    """What each of `count` jobs took between two looks at the same nodes; None if there were none."""
    if not count:
        return None
    pairs = list(zip(before, after, strict=True))
    nodes_s = sum(later.cpu_s - earlier.cpu_s for earlier, later in pairs)
    workers_s = sum(later.worker_cpu_s - earlier.worker_cpu_s for earlier, later in pairs)
    disk_bytes = sum(later.disk_bytes - earlier.disk_bytes for earlier, later in pairs)
    nodes_us, workers_us, load_us = (1e6 * cpu_s / count for cpu_s in (nodes_s, workers_s, load_cpu_s))
    return Cost(nodes_us, workers_us, load_us, link_bytes / count, disk_bytes / count)


def filesystem_of(path: Path, mounts: str) -> str:
    """The type of the file system that `path` is on, from the text of /proc/mounts."""
    best, kind = "", "unknown"
    for line in mounts.splitlines():
        _, point, found, *_ = line.split()
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return kind


def fsync_ms(folder: Path) -> float:
    """The median time of a 4 KiB write and fdatasync: a floor for every 202."""
    took = []
    with (folder / "fsync").open("wb") as file:
        for _ in range(FSYNCS):
            at = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - at)
    return 1000 * statistics.median(took)


def environment(folder: Path, payload_bytes: int) -> dict[str, Any]:
    """What the figures depend on."""
    cpus = [
        line.partition(":")[2].strip() for line in _text("/proc/cpuinfo") if line.startswith("model name")
    ]
    memory = next((int(line.split()[1]) for line in _text("/proc/meminfo") if line.startswith("MemTotal")), 0)
    try:
        loop = f"uvloop {version('uvloop')}"
    except PackageNotFoundError:
        loop = "asyncio"
    return {
        "processor": f"{os.cpu_count()} x {cpus[0] if cpus else platform.machine()}",
        "memory": f"{memory >> 20} GiB",
        "system": platform.platform(),
        "load average at the start": os.getloadavg()[0],
        "disk": filesystem_of(folder.resolve(), "\n".join(_text("/proc/mounts"))),
        "fdatasync of 4 KiB, ms": round(fsync_ms(folder), 3),
        "python": platform.python_version(),
        "edgenode": __version__,
        "aiohttp": aiohttp.__version__,
        "event loop": loop,
        "sqlite": sqlite3.sqlite_version,
        "fsync": "on (SQLite WAL, synchronous=FULL)",
        "payload bytes": payload_bytes,
    }


def _text(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
