"""What a million finished jobs on the disks cost: pace, memory, start and rest, beside a mesh with none.

Running so many takes an hour, and what is asked is what they cost afterwards. So a batch is run, its nodes
are killed, and the stores of these get the records of those jobs again and again, under other ids, by the
store's own writer; every node the same, as it is when jobs are settled. Then the nodes are started again.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import cycle, islice
from queue import SimpleQueue
from random import Random
from typing import Final, NamedTuple

from bench_figures import Cost, counted, spread
from bench_load import DRAIN_S
from bench_machine import Meter, usage
from bench_mesh import BATCH, BATCH_CLIENTS, QUICK_S, Bench, Stage
from bench_state import MIB, RESTART_S, SETTLE_S, TURNS, start_again, store_bytes, wait_until

from edgenode.core.errors import EdgeNodeError
from edgenode.core.job_bytes import decode, encode
from edgenode.core.job_ids import make_job_id
from edgenode.core.jobs import Record, look_day
from edgenode.core.settings import JobSettings
from edgenode.core.signals import Persist, Row, StoredRow
from edgenode.core.specs import decode_spec, encode_spec
from edgenode.core.types import JobId
from edgenode.shell.store import Store

CHUNK: Final = 2_000
"""Rows of one transaction: what the store folds into its file at once, too."""
SPAN_S: Final = 3600.0
"""The jobs seem to be of the hour before they are written: the ids of new ones follow theirs."""
CALM_S: Final = 3.0
CALM_LOOKS: Final = 3
CALM_SHARE: Final = 0.05
"""Of a core. A node that looks through its archive takes more, one at rest some 2 %."""
UNREST_S: Final = 1800.0


class Pace(NamedTuple):
    jobs_per_s: float
    jobs: int
    cost: Cost
    list_s: float  # until all were listed by their queue, once they were settled


def finished(bench: Bench) -> None:
    """Each of the wanted numbers of jobs, on a mesh of its own, in turns with one that has none."""
    for size in bench.options.held:
        with ExitStack() as stack:
            bare = stack.enter_context(bench.staged("none"))
            full = stack.enter_context(bench.staged(f"finished-{size}"))
            count = fill(full, size, bench.say)
            _rest(bare, full, count, size, bench.say)
            _turns(bare, full, count, size, 1 if bench.options.seconds < QUICK_S else TURNS, bench.say)


# ------------------------------------------------------------------------------------------------ filling


def fill(stage: Stage, size: int, say: Callable[[str], None]) -> int:
    """Have so many finished jobs on each disk, and some; the nodes start again for it. Returns how many."""
    load, _, _ = stage.whole_run(stage.plan("inline", 1, batch=BATCH)._replace(jobs_max=BATCH))
    time.sleep(SETTLE_S)  # the third copies
    for node in stage.mesh.nodes:
        assert node.process is not None
        node.process.kill()
        node.process.wait()
    began = time.monotonic()
    with ExitStack() as stack:
        stores = []
        for node in stage.mesh.nodes:
            store = Store.open(node.log.parent)
            stack.callback(store.close)
            stores.append(store)
        samples = [decode(row.blob) for row in stores[0].archive().scan(JobId(b""), len(load.jobs))]
        samples = [record for record in samples if record.settled]
        if len(samples) < len(load.jobs) // 2:
            raise EdgeNodeError(f"{len(samples)} of {len(load.jobs)} jobs are settled on the first disk")
        write(stores, copies(samples, size))
    say(f"  wrote {size:,} finished jobs to each disk in {time.monotonic() - began:.0f} s")
    for node in stage.mesh.nodes:
        node.start()
    stage.mesh.wait_ready(RESTART_S)
    return size + len(load.jobs)


def copies(samples: Sequence[Record], count: int) -> Iterator[StoredRow]:
    """So many rows of settled jobs like these, oldest first."""
    dice, now = Random(1), time.time()
    skew_s = JobSettings().clock_skew_max_s
    for number, sample in enumerate(islice(cycle(samples), count)):
        spec = decode_spec(sample.spec)
        job = make_job_id(now - SPAN_S * (1 - number / count), dice.randbytes(10))
        record = sample._replace(id=job, spec=encode_spec(replace(spec, id=job)))
        yield StoredRow(
            Row(job, encode(record), None),
            record.owner,
            True,
            record.state,
            spec.task,
            spec.options.queue,
            look_day(record, skew_s),
        )


def write(stores: Sequence[Store], rows: Iterator[StoredRow]) -> None:
    """Each row into each store, durably."""
    answers: SimpleQueue[Exception | None] = SimpleQueue()
    number = 0
    while chunk := tuple(islice(rows, CHUNK)):
        number += 1
        for store in stores:
            store.commit(Persist(chunk, number), answers.put)
        for _ in stores:
            error = answers.get()
            if error is not None:
                raise error


# ---------------------------------------------------------------------------------------------- measuring


def _rest(bare: Stage, full: Stage, count: int, size: int, say: Callable[[str], None]) -> None:
    """Start, the look through the archive that follows it, memory, and cost at rest."""
    add, key, label = full.figures.add, f"held.finished.{size}", f"with {count:,} finished jobs"
    ready_s, whole_s = start_again(full)
    say("  waiting until the nodes have looked through what they have")
    calm_s = calm(full)
    add(f"{key}.count", "finished jobs held by each node", count, "jobs")
    again = f"start of a node {label}, after kill -9, until"
    add(f"{key}.again_s", f"{again} it takes jobs", ready_s, "s")
    add(f"{key}.whole_s", f"{again} all nodes call all ready", whole_s, "s")
    add(f"{key}.calm_s", f"{again} nobody looks through the archive any more", calm_s, "s")
    node_bytes, bare_bytes = full.rss_bytes()[0], bare.rss_bytes()[0]
    note = f"beside it, with none: {bare_bytes / MIB:.0f} MiB"
    add(f"{key}.rss_mib", f"memory of a node {label}", node_bytes / MIB, "MiB", note)
    disk_bytes = statistics.mean(store_bytes(node) for node in full.mesh.nodes) / count
    add(
        f"{key}.disk_bytes_per_job",
        f"disk for each of {count:,} finished jobs, per node",
        disk_bytes,
        "bytes",
    )
    seconds = max(full.options.seconds, 1.0)
    note = f"beside it, with none: {100 * share(bare, seconds):.2f} %"
    add(f"{key}.cpu_percent", f"CPU of an idle node {label}", 100 * share(full, seconds), "% of a core", note)


def share(stage: Stage, seconds: float) -> float:
    """Of a core, that a node takes now: the mean over the nodes."""
    before, began = usage(stage.mesh.nodes), time.monotonic()
    time.sleep(seconds)
    after, took_s = usage(stage.mesh.nodes), time.monotonic() - began
    pairs = zip(before, after, strict=True)
    return statistics.mean(later.cpu_s - earlier.cpu_s for earlier, later in pairs) / took_s


def calm(stage: Stage) -> float:
    """Wait until the nodes do next to nothing; returns after how many seconds they began to.

    Raises:
        EdgeNodeError: they never did.
    """
    began, looks = time.monotonic(), 0
    pause_s = min(CALM_S, stage.options.seconds)
    while looks < CALM_LOOKS:
        looks = looks + 1 if share(stage, pause_s) < CALM_SHARE else 0
        if time.monotonic() - began > UNREST_S:
            raise EdgeNodeError(f"the nodes were not at rest within {UNREST_S:.0f} s")
    return time.monotonic() - began - CALM_LOOKS * pause_s


def _turns(bare: Stage, full: Stage, count: int, size: int, turns: int, say: Callable[[str], None]) -> None:
    """End to end on either mesh, one after the other, some times: medians, and the medians of the ratios."""
    paces: tuple[list[Pace], list[Pace]] = [], []
    for turn in range(turns):
        say(f"  turn {turn + 1} of {turns}, with none and with {count:,}")
        for which in (
            (0, 1) if turn % 2 == 0 else (1, 0)
        ):  # or what changes with time would count for one side
            paces[which].append(pace((bare, full)[which]))
    add = full.figures.add
    for found, before, held in zip(paces, (0, size), (0, count), strict=True):
        middle = sorted(found)[(len(found) - 1) // 2]
        label = f"end to end, inline, batches of {BATCH}, with {held:,} finished jobs"
        note = counted(jobs=middle.jobs)
        add(f"held.pace.{before}.jobs_per_s", label, middle.jobs_per_s, "jobs/s", note, middle.cost)
        list_s = statistics.median(each.list_s for each in found)
        add(f"held.pace.{before}.list_s", f"{label}: to list those of one queue", list_s, "s", note)
    pairs = list(zip(*paces, strict=True))
    rates = [with_.jobs_per_s / without.jobs_per_s for without, with_ in pairs]
    cpus = [with_.cost.nodes_us / without.cost.nodes_us for without, with_ in pairs]
    label = f"jobs/s with {count:,} finished jobs over that with none"
    add(f"held.pace.{size}.rate_ratio", label, statistics.median(rates), "", spread(rates))
    label = "the same of CPU of the nodes a job"
    add(f"held.pace.{size}.cpu_ratio", label, statistics.median(cpus), "", spread(cpus))


def pace(stage: Stage) -> Pace:
    """How fast this mesh is now. Listing the jobs afterwards is timed apart: that no others are of their
    queue is known only when all rows were looked at."""
    plan = stage.warmed(stage.plan("inline", BATCH_CLIENTS, batch=BATCH))
    meter, began = Meter(stage.mesh.nodes), time.time()
    load, _ = stage.submit(plan)
    wait_until(lambda: not stage.owned, "all jobs are settled", DRAIN_S)
    took_s = time.time() - began
    used = meter.cost(load.cpu_s, len(load.jobs))
    assert used is not None, "nothing was accepted, and nobody said so"
    asked = time.time()
    done = stage.finish(plan, len(load.jobs), asked)
    stage.check(plan, load, done)
    return Pace(len(load.jobs) / took_s, len(load.jobs), used, done.read_s)
