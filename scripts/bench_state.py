"""What a mesh costs and how it behaves beside throughput: start, rest, memory, failover, lateness."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from math import inf, isfinite, nan
from random import Random
from typing import Any, Final

import failover as blows
import makespan
from bench_figures import Cost, spread
from bench_load import DRAIN_S, Load, seconds_of
from bench_machine import metrics_text, sent_bytes, usage
from bench_mesh import (
    BATCH,
    BATCH_CLIENTS,
    NODES,
    PROFILE,
    QUICK_S,
    Bench,
    BenchFailed,
    Stage,
    add_percentiles,
)
from distribution import percentile
from proc import pss_bytes

from edgenode.cli.up import LocalNode
from edgenode.client import Client

MIB: Final = 2**20
IDLE_NODES: Final = 5
RUNNING: Final = 8
"""Jobs that a node runs when it is hit."""
SPARE_SLOTS: Final = 2
TIMEOUT_S: Final = 0.5
TIMED_OUT: Final = 24
SETTLE_S: Final = 1.0
RESTART_S: Final = 180.0
TURNS: Final = 5
TURN_JOBS: Final = 10_000
TURN_S: Final = 60.0
"""Of two meshes that are compared in turns: how many, of how many jobs, and at most how long."""


def start(bench: Bench) -> None:
    """Three processes, until each calls all ready; then one of them again, with what it has."""
    stage = bench.stage
    bench.figures.add("start.mesh_s", f"start of {NODES} nodes until all are ready", stage.ready_s, "s")
    ready_s, whole_s = start_again(stage)
    bench.figures.add("start.again_s", "kill -9 of a node, start, until it takes jobs again", ready_s, "s")
    bench.figures.add("start.whole_s", "the same, until all nodes call all ready", whole_s, "s")


def start_again(stage: Stage) -> tuple[float, float]:
    """Kill the last node and start it: seconds until it takes jobs, and until all nodes call all ready.

    Raises:
        EdgeNodeError: it does not, or they do not.
    """
    node = stage.mesh.nodes[-1]
    assert node.process is not None
    node.process.kill()
    node.process.wait()
    began = time.monotonic()
    node.start()
    wait_until(lambda: node.ask("/readyz") is not None, f"{node.name} is ready again", RESTART_S)
    ready_s = time.monotonic() - began
    stage.mesh.wait_ready(RESTART_S)
    return ready_s, time.monotonic() - began


def wait_until(is_so: Callable[[], bool], what: str, within_s: float) -> None:
    ends = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > ends:
            raise BenchFailed(f"not within {within_s:.0f} s: {what}")
        time.sleep(0.02)


def idle(bench: Bench) -> None:
    """Nobody asks for anything."""
    with bench.staged("idle", IDLE_NODES) as stage:
        _idle(stage, bench.figures.add, bench.options.seconds)


def _idle(stage: Stage, add: Callable[..., None], seconds: float) -> None:
    nodes = stage.mesh.nodes
    stage.owned  # noqa: B018  every node has answered once
    time.sleep(SETTLE_S)  # who has met the others looks for what they need
    sent = sum(sent_bytes(metrics_text(node)) for node in nodes)
    before, began = usage(nodes), time.monotonic()
    time.sleep(seconds)
    after, took_s = usage(nodes), time.monotonic() - began
    told = sum(sent_bytes(metrics_text(node)) for node in nodes) - sent
    used_s = [later.cpu_s - earlier.cpu_s for earlier, later in zip(before, after, strict=True)]
    node_bytes, worker_bytes = stage.rss_bytes()
    note = f"and {worker_bytes / MIB:.0f} MiB in its workers"
    label = f"an idle node, one of {len(nodes)}"
    add("idle.rss_mib", f"memory of {label}", node_bytes / MIB, "MiB", note)
    own_bytes = statistics.mean(pss_bytes(node.pid) for node in nodes)
    note = "what others have, too, counted by its part (PSS)"
    add("idle.pss_mib", f"the same, shared pages by their share: {label}", own_bytes / MIB, "MiB", note)
    add("idle.cpu_percent", f"CPU of {label}", 100 * statistics.mean(used_s) / took_s, "% of a core")
    add("idle.link_bytes_per_s", f"sent by {label}", told / took_s / len(nodes), "bytes/s")


# --------------------------------------------------------------------------------------------- jobs held


def held(bench: Bench) -> None:
    """Memory and start of nodes that have so many unfinished jobs; and whether they take more as fast as
    nodes that have few."""
    options = bench.options
    with bench.staged("held") as stage:
        queue, count = _held(stage, options.held, options.fill_s, bench.say)
        with bench.staged("few") as few:
            count += _turns(few, stage, queue, count, 1 if options.seconds < QUICK_S else TURNS, bench.say)
        ready_s, whole_s = start_again(stage)
        label = f"start of a node with {count:,} queued jobs, after kill -9, until"
        stage.figures.add("held.queued.again_s", f"{label} it takes jobs", ready_s, "s")
        stage.figures.add("held.queued.whole_s", f"{label} all nodes call all ready", whole_s, "s")


def _held(stage: Stage, sizes: Sequence[int], fill_s: float, say: Callable[[str], None]) -> tuple[str, int]:
    """Returns the paused queue that is filled, and with how many jobs."""
    count, add = 0, stage.figures.add
    idle_bytes, _ = stage.rss_bytes()
    queue = paused_queue(stage)
    for size in sizes:
        say(f"  queued: filling up to {size:,}")
        load, used = fill(stage, queue, size - count, fill_s)
        before, count = count, count + len(load.jobs)
        label = f"submitted from {before:,} to {count:,} queued jobs"
        add(f"held.queued.{size}.per_s", label, load.rate, "jobs/s", "", used)
        note = "" if count >= size else f"as many as came in {fill_s:.0f} s, of {size:,} wanted"
        key, label = f"held.queued.{size}", f"with {count:,} queued jobs"
        time.sleep(SETTLE_S)  # the third copies
        node_bytes, _ = stage.rss_bytes()
        add(f"{key}.count", "queued jobs held by each node", count, "jobs", note)
        add(f"{key}.rss_mib", f"memory of a node {label}", node_bytes / MIB, "MiB")
        each = (node_bytes - idle_bytes) / count
        add(f"{key}.bytes_per_job", f"memory for each of {count:,} queued jobs, per node", each, "bytes")
        disk_bytes = statistics.mean(store_bytes(node) for node in stage.mesh.nodes) / count
        label = f"disk for each of {count:,} queued jobs, per node"
        add(f"{key}.disk_bytes_per_job", label, disk_bytes, "bytes")
        if count < size:
            break
    return queue, count


def paused_queue(stage: Stage) -> str:
    queue = stage.new_queue()
    Client(stage.urls).pause(queue)
    return queue


def _turns(few: Stage, many: Stage, queue: str, count: int, turns: int, say: Callable[[str], None]) -> int:
    """Submit some more to either mesh, one after the other, some times: the medians of the ratios. (Minutes
    apart, the same mesh differs by a third on a machine that is shared.) Returns how many more there are."""
    found: tuple[list[tuple[float, float]], list[tuple[float, float]]] = [], []
    more, places = min(count, TURN_JOBS), ((few, paused_queue(few)), (many, queue))
    added = 0
    for turn in range(turns):
        say(f"  turn {turn + 1} of {turns}, with few and with {count:,} queued jobs")
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            load, used = fill(*places[which], more, TURN_S)
            found[which].append((load.rate, nan if used is None else used.nodes_us))
            added += len(load.jobs) * which
    pairs = list(zip(*found, strict=True))
    label = f"{more:,} jobs more, with {count:,} queued jobs: jobs/s for one with few"
    rates = [large[0] / small[0] for small, large in pairs]
    many.figures.add("held.queued.rate_ratio", label, statistics.median(rates), "", spread(rates))
    cpus = [large[1] / small[1] for small, large in pairs]
    label = "the same of CPU of the nodes a job"
    many.figures.add("held.queued.cpu_ratio", label, statistics.median(cpus), "", spread(cpus))
    return added


def fill(stage: Stage, queue: str, missing: int, fill_s: float) -> tuple[Load, Cost | None]:
    """Have so many more jobs that wait in a paused queue, or as many as come in the time."""
    plan = stage.plan("workers", BATCH_CLIENTS, batch=BATCH, queue=queue)
    before = stage.owned
    load, used = stage.submit(plan._replace(jobs_max=missing, seconds=fill_s))
    count = len(load.jobs)
    wait_until(lambda: stage.owned <= before + count, "all jobs have one owner", DRAIN_S)
    text = f"{count} jobs were accepted, {stage.owned - before} are owned"
    stage.figures.check(stage.owned - before == count, text)
    return load, used


def store_bytes(node: LocalNode) -> int:
    return sum(path.stat().st_size for path in (node.log.parent).glob("jobs.db*"))


# ----------------------------------------------------------------------------------- failover, lateness


def failover(bench: Bench) -> None:
    """Nodes that run jobs are killed, stopped and told to leave: until the last of these is elsewhere."""
    kills = bench.options.kills
    if not kills:
        return
    few = max(1, kills // 2)
    slots = RUNNING + SPARE_SLOTS
    with blows.Mesh(
        bench.folder / "failover", NODES, slots=slots, profile=PROFILE, base_port=bench.options.base_port
    ) as mesh:
        dice = Random()
        for harm, count, what in (
            (blows.KILLED, kills, "kill -9"),
            (blows.PAUSED, few, "SIGSTOP (a silent process)"),
        ):
            found = blows.blows(mesh, harm, count, RUNNING, dice, bench.say)
            times = [each.last_s for each in found]
            label = f"{what}, until the last of its {RUNNING} or more jobs has started elsewhere"
            _times(bench, f"failover.{harm.kind}", label, times)
        left = [blows.leave(mesh, number, slots, dice) for number in range(few)]
        extra = sum(each.extra_starts for each in left)
        bench.figures.check(not extra, f"SIGTERM: {extra} jobs started twice")
        label = "SIGTERM, until its last queued job is another's"
        _times(bench, "failover.leave", label, [each.moved_s for each in left])


def _times(bench: Bench, key: str, label: str, times: Sequence[float]) -> None:
    lost = sum(not isfinite(each) for each in times)
    bench.figures.check(not lost, f"{label}: never, {lost} times of {len(times)}")
    times = [each for each in times if each < inf]
    for name, value in (("median", percentile(times, 0.5)), ("worst", max(times))) if times else ():
        bench.figures.add(f"{key}.{name}_s", f"{label}, {name}", value, "s", f"{len(times)} times")


def lateness(bench: Bench) -> None:
    """How late jobs with a day start (they write it down themselves), and how late timeouts end theirs."""
    found = makespan.measure_days(owner_dies=False)
    bench.figures.check(not found.extra_starts, f"delays: {found.extra_starts} starts too many")
    note = f"{found.late_s.n} jobs with a day; never early"
    for name, value in (("p50", found.late_s.p50), ("p99", found.late_s.p99)):
        label = f"start of a job after its day, {name}"
        bench.figures.add(f"late.day.{name}_ms", label, 1000 * value, "ms", note)
        note = ""
    client = Client(bench.stage.urls)
    document: dict[str, Any] = {"task": "sleep", "payload": {"seconds": 30}, "max_attempts": 1}
    batch = client.submit_batch([document | {"timeout_s": TIMEOUT_S}] * TIMED_OUT)
    client.wait_batch(batch.id, timeout_s=DRAIN_S)
    jobs = [client.get(job.id).fields for job in batch.jobs if not isinstance(job, Exception)]
    bad = sum("timed out" not in str(job["error"]) for job in jobs) + TIMED_OUT - len(jobs)
    bench.figures.check(not bad, f"timeouts: {bad} of {TIMED_OUT} jobs did not time out")
    late_ms = [
        1000 * (seconds_of(job["finished_at"]) - seconds_of(job["started_at"]) - TIMEOUT_S) for job in jobs
    ]
    note = f"{len(jobs)} jobs that sleep, {TIMEOUT_S} s each; by their records"
    add_percentiles(bench.figures, "late.timeout", "end of a job after its timeout", late_ms, note)
