"""How fast is a mesh of three nodes on this machine? Throughput, latency, failover, memory, CPU per job.

    python scripts/bench.py [--seconds S --quick --json FILE --csv FILE]

The nodes are real processes with data folders of their own; one more process makes the load. All share this
machine's processors, so a figure says what the whole machine does, load included. What is measured, in this
order:

    start-up     from starting three processes until each sees all three ready
    idle         memory (RSS), and CPU while nobody asks for anything
    latency      one client, one job at a time, `Prefer: wait`: from sending the job until its settled result
    end to end   batches of `echo`, from the first one sent until the last job is settled, run in worker
                 processes; then the time until all results were read back
    reads        GET of one job, at a node that does not own it
    failover     kill -9 of a node with running `sleep` jobs: until the first of them, and the last, was
                 started elsewhere
    submit       jobs that are due in an hour, so that nothing runs: single requests by 1, 16 and 64 clients,
                 and batches
    memory       RSS with --queued such jobs on each node

Every submission counts only with its 202: stored and fsynced on `acks` of the job's holders. A rate comes
with the CPU it cost, in milliseconds a job: of one node (the mean of the three), of that node's workers, and
of the load. On a machine that does other work too, that says more than the rate. No other queue is measured
in the same run yet, so nothing here compares.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import platform
import shutil
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import cycle
from math import ceil
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import aiohttp
from distribution import percentile
from ports import Ports
from rich.console import Console
from rich.table import Table
from yarl import URL

from edgenode import __version__
from edgenode.cli.up import LocalMesh, LocalNode
from edgenode.client import Client, ClientError, Job
from edgenode.core.errors import EdgeNodeError

NODES: Final = 3
FIRST_PORT: Final = 25_000
SLOTS: Final = 4
"""Worker processes of each node: two thirds of all are free when a node with running jobs is killed."""
BATCH: Final = 200
BATCH_CLIENTS: Final = 6
"""Batches under way at a time: two for each node, so that one is read while the other waits for disks."""
JOBS_MAX: Final = 40_000
"""Of one measurement, however fast the machine: the whole run stays bounded."""
CLIENTS: Final = (1, 16, 64)
READERS: Final = 16
READ_JOBS: Final = 50
DELAY_S: Final = 3600
SLEEP_S: Final = 5.0
DRAIN_S: Final = 60.0
REQUEST_S: Final = 70.0
POLL_S: Final = 0.05
FSYNCS: Final = 50
EMPTY_PAYLOAD: Final = len('{"message":""}')
PAGE: Final = 1000

T = TypeVar("T")


# ------------------------------------------------------------------------------------- numbers and text


class Cost(NamedTuple):
    """CPU seconds per 1000 jobs (or reads), which is milliseconds for one."""

    node: float  # the mean of the nodes
    workers: float  # of all workers of one node, the mean again
    load: float


class Measure(NamedTuple):
    """One figure. `key` is for programs and stays; `label` and `note` are for people."""

    key: str
    label: str
    value: float
    unit: str
    note: str = ""
    cost: Cost | None = None


class Row(NamedTuple):
    """One job of the end to end run. Times are Unix seconds, of this machine's one clock."""

    id: str
    sent: float
    accepted: float
    finished: float


class Usage(NamedTuple):
    """What a node has used: CPU since its start, memory now."""

    cpu_s: float
    rss_bytes: int
    worker_cpu_s: float
    worker_rss_bytes: int


class ProcessStat(NamedTuple):
    parent: int
    cpu_s: float
    rss_bytes: int


def parse_stat(text: str, ticks: int, page_bytes: int) -> ProcessStat:
    """A line of /proc/PID/stat (proc(5)); the name in it may hold anything, brackets too."""
    fields = text.rpartition(")")[2].split()
    return ProcessStat(
        int(fields[1]), (int(fields[11]) + int(fields[12])) / ticks, int(fields[21]) * page_bytes
    )


def filesystem_of(path: Path, mounts: str) -> str:
    """The type of the file system that `path` is on, from the text of /proc/mounts."""
    best, kind = "", "unknown"
    for line in mounts.splitlines():
        _, point, found, *_ = line.split()
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return kind


def document(payload_bytes: int, **options: Any) -> dict[str, Any]:
    """An `echo` job whose payload is so many bytes long as compact JSON."""
    return {"task": "echo", "payload": {"message": "x" * (payload_bytes - EMPTY_PAYLOAD)}, **options}


def seconds_of(text: str | None) -> float:
    """Unix seconds of a time in an answer; 0 if there is none."""
    return 0.0 if text is None else datetime.fromisoformat(text).timestamp()


def cost(before: Sequence[Usage], after: Sequence[Usage], load_cpu_s: float, count: int) -> Cost | None:
    """What `count` jobs used between two looks at the same nodes; None if there were none."""
    if not count:
        return None
    pairs = list(zip(before, after, strict=True))
    node_s = statistics.mean(later.cpu_s - earlier.cpu_s for earlier, later in pairs)
    worker_s = statistics.mean(later.worker_cpu_s - earlier.worker_cpu_s for earlier, later in pairs)
    return Cost(*(1000 * cpu_s / count for cpu_s in (node_s, worker_s, load_cpu_s)))


def counted(**counts: int) -> str:
    """The counts that are not zero, in words."""
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count)


def write_csv(file: Path, rows: Iterable[Row]) -> None:
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(Row._fields)
        for row in rows:
            writer.writerow((row.id, *(f"{at:.6f}" for at in row[1:])))


def as_json(environment: Mapping[str, Any], measures: Iterable[Measure]) -> str:
    """Both as one document: `environment` by name, `measures` by key."""
    told = {measure.key: _measure_fields(measure) for measure in measures}
    return json.dumps({"environment": environment, "measures": told}, indent=2) + "\n"


def _measure_fields(measure: Measure) -> dict[str, Any]:
    fields = {"value": measure.value, "unit": measure.unit, "label": measure.label, "note": measure.note}
    return fields if measure.cost is None else fields | {"cpu_s_per_1000": measure.cost._asdict()}


def number_text(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(measures: Iterable[Measure]) -> Table:
    shown = Table(caption="CPU: ms per job (or read) of a node / its workers / the load")
    for heading in ("measure", "value", "unit", "CPU", "note"):
        shown.add_column(heading, justify="right" if heading == "value" else "left", overflow="fold")
    for measure in measures:
        used = "" if measure.cost is None else " / ".join(number_text(part) for part in measure.cost)
        shown.add_row(measure.label, number_text(measure.value), measure.unit, used, measure.note)
    return shown


# ------------------------------------------------------------------- the load, in a process of its own


class Sent(NamedTuple):
    """A job that was accepted."""

    id: str
    sent: float
    answered: float
    has_ended: bool


class Plan(NamedTuple):
    """What clients send. Each asks one node, and waits for its answer before it asks again."""

    urls: tuple[str, ...]
    document: dict[str, Any]
    clients: int
    seconds: float
    jobs_max: int
    batch: int = 0  # jobs in a request; 0 for a single object
    wait_s: int = 0


@dataclass
class Load:
    """What came of a plan."""

    jobs: list[Sent] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    acks: set[int] = field(default_factory=set)  # disks named in receipts
    took_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.jobs) / self.took_s


class Finish(NamedTuple):
    """The end of an end to end run: seconds since its first submission, and each job's end."""

    settled_s: float
    read_s: float
    finished: dict[str, float]
    restarted: int
    cpu_s: float


class Reads(NamedTuple):
    answered: int
    took_s: float
    failed: int
    cpu_s: float
    latencies_s: list[float]


def on_loop(work: Awaitable[T]) -> T:
    """Run it on the loop that nodes use: the load must not be what is slow."""

    async def whole() -> T:
        return await work

    try:
        import uvloop
    except ImportError:
        return asyncio.run(whole())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(whole())


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=REQUEST_S)
    )


def submit(plan: Plan) -> Load:
    return on_loop(_submit(plan))


async def _submit(plan: Plan) -> Load:
    load, began, cpu = Load(), time.perf_counter(), time.process_time()
    async with _session() as session, asyncio.TaskGroup() as group:
        for _, url in zip(range(plan.clients), cycle(plan.urls), strict=False):
            group.create_task(_client(session, url, plan, load, began + plan.seconds))
    load.took_s, load.cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return load


async def _client(session: aiohttp.ClientSession, url: str, plan: Plan, load: Load, ends: float) -> None:
    size = max(1, plan.batch)
    body = json.dumps([plan.document] * size if plan.batch else plan.document, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/json"}
    if plan.wait_s:
        headers["Prefer"] = f"wait={plan.wait_s}"
    while load.asked < plan.jobs_max and time.perf_counter() < ends:
        load.asked += size
        sent = time.time()
        try:
            async with session.post(f"{url}/v1/jobs", data=body, headers=headers) as answer:
                told = json.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            load.refused[type(error).__name__] += size
            continue
        answered = time.time()
        for job in told.get("jobs", [told]):
            if "receipt" not in job:
                load.refused[str(job.get("title"))] += 1
                continue
            load.acks.add(job["receipt"]["acks"])
            has_ended = job["settled"] and job["state"] == "succeeded"
            load.jobs.append(Sent(job["id"], sent, answered, has_ended))


def finish(urls: tuple[str, ...], queue: str, count: int, began: float) -> Finish:
    """Wait until `count` jobs of a queue have settled, and read all of them.

    Args:
        began: when the first was sent, in Unix seconds.
    """
    return on_loop(_finish(urls, queue, count, began))


async def _finish(urls: tuple[str, ...], queue: str, count: int, began: float) -> Finish:
    cpu, ends = time.process_time(), time.time() + DRAIN_S
    jobs: list[dict[str, Any]] = []
    async with _session() as session:
        while True:
            is_over = time.time() > ends
            if is_over or not await _owned(session, urls):
                settled_s = time.time() - began
                jobs = await _listed(session, urls[0], queue)
            if is_over or sum(job["settled"] for job in jobs) >= count:
                break
            await asyncio.sleep(POLL_S)
    good = [job for job in jobs if job["settled"] and job["state"] == "succeeded"]
    finished = {job["id"]: seconds_of(job["finished_at"]) for job in good}
    restarted = sum(job["starts"] != 1 for job in jobs)
    return Finish(settled_s, time.time() - began, finished, restarted, time.process_time() - cpu)


async def _owned(session: aiohttp.ClientSession, urls: Sequence[str]) -> int:
    """Unsettled jobs in the whole mesh, by what each node says of itself."""
    owned = 0
    for url in urls:
        async with session.get(f"{url}/v1/nodes/self") as answer:
            owned += (await answer.json())["load"]["owned"]
    return owned


async def _listed(session: aiohttp.ClientSession, url: str, queue: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    path: str | None = f"/v1/jobs?queue={queue}&limit={PAGE}"
    while path is not None:
        async with session.get(url + path) as answer:
            found += json.loads(await answer.read())["jobs"]
            path = _next_path(answer)
    return found


def _next_path(answer: aiohttp.ClientResponse) -> str | None:
    link = answer.links.get("next")
    return None if link is None else URL(link["url"]).path_qs


def read(targets: Sequence[str], clients: int, seconds: float) -> Reads:
    """GET the targets (whole URLs) in turn."""
    return on_loop(_read(targets, clients, seconds))


async def _read(targets: Sequence[str], clients: int, seconds: float) -> Reads:
    began, cpu = time.perf_counter(), time.process_time()
    order, latencies, failed = cycle(targets), [], 0

    async def reader(session: aiohttp.ClientSession) -> None:
        nonlocal failed
        while (at := time.perf_counter()) < began + seconds:
            async with session.get(next(order)) as answer:
                json.loads(await answer.read())
                failed += answer.status != 200
            latencies.append(time.perf_counter() - at)

    async with _session() as session, asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(reader(session))
    took_s = time.perf_counter() - began
    return Reads(len(latencies) - failed, took_s, failed, time.process_time() - cpu, latencies)


# ------------------------------------------------------------------------------------------- this machine


def processes() -> dict[int, ProcessStat]:
    ticks, page_bytes = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            found[int(path.parent.name)] = parse_stat(path.read_text(errors="replace"), ticks, page_bytes)
    return found


def usage(nodes: Iterable[LocalNode]) -> list[Usage]:
    """What each node has used, and its worker processes (its children) together."""
    seen = processes()
    found = []
    for node in nodes:
        workers = [stat for stat in seen.values() if stat.parent == node.pid]
        cpu_s, rss_bytes = sum(stat.cpu_s for stat in workers), sum(stat.rss_bytes for stat in workers)
        found.append(Usage(seen[node.pid].cpu_s, seen[node.pid].rss_bytes, cpu_s, rss_bytes))
    return found


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
        from importlib.metadata import version

        loop = f"uvloop {version('uvloop')}"
    except ImportError:
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
        "nodes": NODES,
        "worker processes a node": SLOTS,
    }


def _text(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


# --------------------------------------------------------------------------------------- what is measured


class Bench:
    """Measures one mesh, a method for each part; `measures` and `rows` are what was found."""

    def __init__(self, mesh: LocalMesh, pool: ProcessPoolExecutor, arguments: argparse.Namespace) -> None:
        self._mesh = mesh
        self._pool = pool
        self._given = arguments
        self._urls = tuple(node.url for node in mesh.nodes)
        self._idle: list[Usage] = []
        self._queued = 0
        self.acks: set[int] = set()
        self.measures: list[Measure] = []
        self.rows: list[Row] = []

    def run(self, say: Callable[[str], None]) -> None:
        for part in (self.idle, self.latency, self.end_to_end, self.failover, self.submissions, self.memory):
            say(part.__name__.replace("_", " "))
            part()

    def _add(
        self, key: str, label: str, value: float, unit: str, note: str = "", **more: Cost | None
    ) -> None:
        self.measures.append(Measure(key, label, value, unit, note, **more))

    def _plan(self, clients: int, *, batch: int = 0, wait_s: int = 0, **options: Any) -> Plan:
        made = document(self._given.payload, **options)
        return Plan(self._urls, made, clients, self._given.seconds, JOBS_MAX, batch, wait_s)

    def _submit(self, plan: Plan) -> tuple[Load, Cost | None]:
        """Have a plan carried out; also what it cost while it was."""
        before = usage(self._mesh.nodes)
        load = self._pool.submit(submit, plan).result()
        if not load.jobs:
            raise EdgeNodeError(f"no job was accepted: {dict(load.refused)}")
        self.acks |= load.acks
        return load, cost(before, usage(self._mesh.nodes), load.cpu_s, len(load.jobs))

    def idle(self) -> None:
        self._pool.submit(os.getpid).result()  # the load's process is there from now on
        self._idle = usage(self._mesh.nodes)
        time.sleep(self._given.seconds)
        later = usage(self._mesh.nodes)
        rss = [each.rss_bytes / 2**20 for each in later]
        workers = statistics.mean(each.worker_rss_bytes for each in later) / 2**20
        note = f"and {workers:.0f} MiB in its workers"
        self._add("idle.rss_mib", "memory of an idle node", max(rss), "MiB", note)
        used_s = [b.cpu_s - a.cpu_s for a, b in zip(self._idle, later, strict=True)]
        share = 100 * statistics.mean(used_s) / self._given.seconds
        self._add("idle.cpu_percent", "CPU of an idle node", share, "% of a core")

    def latency(self) -> None:
        load, used = self._submit(self._plan(1, wait_s=30))
        took_ms = [1000 * (job.answered - job.sent) for job in load.jobs if job.has_ended]
        note = counted(
            jobs=len(took_ms), too_late=len(load.jobs) - len(took_ms), refused=load.refused.total()
        )
        for share in (0.5, 0.95, 0.99) if took_ms else ():
            name = f"p{100 * share:.0f}"
            label = f"one job at idle, {name}"
            if share == 0.5:
                self._add(f"latency.{name}_ms", label, percentile(took_ms, share), "ms", note, cost=used)
            else:
                self._add(f"latency.{name}_ms", label, percentile(took_ms, share), "ms")

    def end_to_end(self) -> None:
        """A short run finds how many jobs fit the time; the second one is measured."""
        warm, done, _ = self._whole_run("bench-warm", BATCH_CLIENTS * BATCH)
        count = ceil(len(warm.jobs) / done.settled_s * self._given.seconds / BATCH) * BATCH
        load, done, used = self._whole_run("bench", min(count, JOBS_MAX))
        ended = [job for job in load.jobs if job.id in done.finished]
        self.rows = [Row(job.id, job.sent, job.answered, done.finished[job.id]) for job in ended]
        note = counted(
            jobs=len(ended),
            not_settled=len(load.jobs) - len(ended),
            started_more_than_once=done.restarted,
            refused=load.refused.total(),
        )
        key, label = "end_to_end.jobs_per_s", f"end to end, batches of {BATCH}"
        self._add(key, label, len(ended) / done.settled_s, "jobs/s", note, cost=used)
        self._add("end_to_end.read_per_s", "  all results read, too", len(ended) / done.read_s, "jobs/s")
        self._add("end_to_end.accepted_per_s", "  accepted while others run", load.rate, "jobs/s")
        self._reads("settled", [row.id for row in self.rows])

    def _whole_run(self, queue: str, count: int) -> tuple[Load, Finish, Cost | None]:
        """Submit at least `count` jobs, wait for the end of all, and read them."""
        plan = self._plan(BATCH_CLIENTS, batch=BATCH, queue=queue)
        before = usage(self._mesh.nodes)
        load, _ = self._submit(plan._replace(jobs_max=count, seconds=max(plan.seconds, DRAIN_S)))
        began = min(job.sent for job in load.jobs)
        done = self._pool.submit(finish, self._urls, queue, len(load.jobs), began).result()
        used = cost(before, usage(self._mesh.nodes), load.cpu_s + done.cpu_s, len(load.jobs))
        return load, done, used

    def _reads(self, word: str, jobs: Sequence[str]) -> None:
        """Read some jobs where they are not owned."""
        homes = {Client(url).node()["id"]: url for url in self._urls}
        client, targets = Client(self._urls), []
        for number, job in enumerate(jobs[:READ_JOBS]):
            owner = client.get(job).fields["owner"]
            others = [url for node, url in homes.items() if node != owner]
            targets.append(f"{others[number % len(others)]}/v1/jobs/{job}")
        before = usage(self._mesh.nodes)
        done = self._pool.submit(read, targets, READERS, self._given.seconds).result()
        used = cost(before, usage(self._mesh.nodes), done.cpu_s, done.answered)
        label, note = f"reads of {word} jobs, not at the owner", counted(readers=READERS, failed=done.failed)
        self._add(f"reads.{word}.per_s", label, done.answered / done.took_s, "reads/s", note, cost=used)
        p99_ms = 1000 * percentile(done.latencies_s, 0.99)
        self._add(f"reads.{word}.p99_ms", "  p99 of one", p99_ms, "ms")

    def failover(self) -> None:
        firsts, lasts = [], []
        for _ in range(self._given.kills):
            found = self._kill_one()
            if found:
                firsts.append(min(found))
                lasts.append(max(found))
        note = f"{len(firsts)} of {self._given.kills} kills hit running jobs"
        if firsts:
            self._add("failover.first_s", "kill -9 to the first restart, worst", max(firsts), "s", note)
            self._add("failover.median_s", "  median", statistics.median(firsts), "s")
            self._add("failover.last_s", "kill -9 to the last restart, worst", max(lasts), "s")

    def _kill_one(self) -> list[float]:
        """Kill the node that owns and runs most, and bring it back.

        Returns:
            Seconds from the kill to the next start of each job that ran there.
        """
        client = Client(self._urls)
        jobs = [client.submit("sleep", {"seconds": SLEEP_S}, max_losses=9).id for _ in range(2 * NODES)]
        ends = time.monotonic() + SLEEP_S
        while True:
            seen = [client.get(job) for job in jobs]
            if all(job.state == "running" for job in seen) or time.monotonic() > ends:
                break
        homes = {Client(node.url).node()["id"]: node for node in self._mesh.nodes}
        own = [job for job in seen if job.state == "running" and job.fields["runner"] == job.fields["owner"]]
        found: list[float] = []
        if own:
            (owner, _), *_ = Counter(job.fields["owner"] for job in own).most_common()
            victim = homes[owner]
            assert victim.process is not None
            killed_at = time.time()
            os.kill(victim.pid, signal.SIGKILL)
            victim.process.wait()
            others = Client([node.url for node in self._mesh.nodes if node is not victim])
            found = restarts([job.id for job in own if job.fields["owner"] == owner], others, killed_at)
            victim.start()
            self._mesh.wait_ready()
        for job in jobs:
            client.wait(job, timeout_s=DRAIN_S)
        return found

    def submissions(self) -> None:
        for clients in CLIENTS:
            load, used = self._submit(self._plan(clients, delay_s=DELAY_S))
            self._queued += len(load.jobs)
            key, label = f"submit.single.{clients}", f"submit, single requests, clients: {clients}"
            note = counted(jobs=len(load.jobs), refused=load.refused.total())
            self._add(f"{key}.jobs_per_s", label, load.rate, "jobs/s", note, cost=used)
            took_ms = [1000 * (job.answered - job.sent) for job in load.jobs]
            self._add(f"{key}.p99_ms", "  p99 of one", percentile(took_ms, 0.99), "ms")
        load, used = self._submit(self._plan(BATCH_CLIENTS, batch=BATCH, delay_s=DELAY_S))
        self._queued += len(load.jobs)
        label = f"submit, batches of {BATCH}, clients: {BATCH_CLIENTS}"
        note = counted(jobs=len(load.jobs), refused=load.refused.total())
        self._add("submit.batch.jobs_per_s", label, load.rate, "jobs/s", note, cost=used)
        self._reads("scheduled", [job.id for job in load.jobs])

    def memory(self) -> None:
        missing = self._given.queued - self._queued
        if missing > 0:
            plan = self._plan(BATCH_CLIENTS, batch=BATCH, delay_s=DELAY_S)
            load, _ = self._submit(plan._replace(jobs_max=missing, seconds=DRAIN_S))
            self._queued += len(load.jobs)
        time.sleep(1.0)  # the third copies
        rss = [each.rss_bytes for each in usage(self._mesh.nodes)]
        label = f"memory of a node that holds {self._queued:,} queued jobs"
        self._add("queued.rss_mib", label, max(rss) / 2**20, "MiB")
        grown = statistics.mean(rss) - statistics.mean(each.rss_bytes for each in self._idle)
        note = "growth since idle, by all that was measured, over the queued jobs"
        self._add("queued.bytes_per_job", "  per queued job and node", grown / self._queued, "bytes", note)


def restarts(jobs: Sequence[str], others: Client, killed_at: float) -> list[float]:
    """Seconds from the kill until each job was started again; left out if after DRAIN_S."""
    waiting, found = set(jobs), []
    ends = time.monotonic() + DRAIN_S
    while waiting and time.monotonic() < ends:
        for job in sorted(waiting):
            with suppress(ClientError):  # its next owner may still be asking
                seen: Job = others.get(job)
                at = seconds_of(seen.fields["started_at"])
                if at > killed_at:
                    found.append(at - killed_at)
                    waiting.discard(job)
    return found


# ---------------------------------------------------------------------------------------------- the whole


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="each measurement takes (default 5)")
    parser.add_argument(
        "--quick", action="store_true", help="half a second each: whether it works, not how fast"
    )
    parser.add_argument("--payload", type=int, default=100, help="bytes of a job's payload (default 100)")
    parser.add_argument("--kills", type=int, default=3, help="nodes killed, one after the other (default 3)")
    parser.add_argument(
        "--queued", type=int, default=10_000, help="jobs for the memory figure (default 10000)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write environment and measures there")
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="write id, sent, accepted, finished of each job"
    )
    parser.add_argument("--base-port", type=int, default=FIRST_PORT, help="look for free ports from here on")
    parser.add_argument("--keep", action="store_true", help="keep the nodes' data and logs")
    given = parser.parse_args(arguments)
    if given.quick:
        given.seconds, given.kills, given.queued = 0.5, 1, 600
    if not 0.1 <= given.seconds <= 60 or not 0 <= given.kills <= 20 or not 1 <= given.queued <= 1_000_000:
        parser.error("--seconds is from 0.1 to 60, --kills from 0 to 20, --queued from 1 to 1000000")
    if not EMPTY_PAYLOAD <= given.payload <= 100_000:
        parser.error(f"--payload is from {EMPTY_PAYLOAD} to 100000")
    return given


def run(arguments: argparse.Namespace, folder: Path, console: Console) -> None:
    """The whole of it: measure, print, write."""
    told = environment(folder, arguments.payload)
    began = time.monotonic()
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        Ports() as ports,
        LocalMesh(
            NODES,
            data_dir=folder,
            base_port=ports.take_mesh(NODES, arguments.base_port),
            slots=SLOTS,
            mdns=False,
        ) as mesh,
    ):
        mesh.wait_ready()
        bench = Bench(mesh, pool, arguments)
        ready_s = time.monotonic() - began
        bench.measures.append(Measure("start.ready_s", "start-up until all are ready", ready_s, "s"))
        told["replicas (R)"] = Client(mesh.nodes[0].url).mesh()["replicas"]
        bench.run(lambda text: console.print(f"{time.monotonic() - began:6.1f} s  {text}", style="dim"))
    told["disks before a 202 (acks)"] = f"{min(bench.acks)} to {max(bench.acks)}"
    told["load average at the end"] = os.getloadavg()[0]
    for name, value in told.items():
        console.print(f"{name}: {value}", highlight=False, soft_wrap=True)
    console.print(table(bench.measures))
    if arguments.json is not None:
        arguments.json.write_text(as_json(told, bench.measures))
    if arguments.csv is not None:
        write_csv(arguments.csv, bench.rows)


def main() -> int:
    arguments = parse(sys.argv[1:])
    if not Path("/proc/self/stat").exists():
        print("bench: CPU and memory are read from /proc, which this system does not have", file=sys.stderr)
        return 1
    folder = Path(tempfile.mkdtemp(prefix="edgenode-bench-"))
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        run(arguments, folder, console)
    except KeyboardInterrupt:
        print("stopped")
        return 130
    except (EdgeNodeError, ClientError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        if arguments.keep:
            print(f"data and logs of the nodes: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
