"""Throughput and latency of one mesh: submitting, running, both, reading."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import product
from typing import Final

from bench_figures import Row, counted
from bench_load import DRAIN_S, Load, Plan, Reads, read, submit
from bench_machine import Meter
from bench_mesh import BATCH, BATCH_CLIENTS, KINDS, Bench, Stage, add_percentiles
from distribution import percentile

from edgenode.client import Client

CLIENTS: Final = (1, 16, 64)
WAIT_S: Final = 30
ONES: Final = 300
"""So many jobs one at a time, if they come within three times the seconds of a rate: a p99 needs many."""
READERS: Final = 16
READ_JOBS: Final = 50
DELAY_S: Final = 3600
BACKGROUND_BATCH: Final = 10
BATCHES: Final = f"batches of {BATCH}"


def singles(clients: int) -> str:
    return f"single requests, {clients} client{'s' if clients > 1 else ''}"


def latency(bench: Bench) -> None:
    """One client, one job at a time, while nothing else happens."""
    stage = bench.stage
    for kind in KINDS:
        plan = one_at_a_time(stage, kind)
        stage.begin(submit, plan._replace(jobs_max=5)).result()  # the first has a connection to make
        load, used = stage.submit(plan)
        note = waits_note(stage, load, kind)
        add_percentiles(
            bench.figures, f"latency.{kind}.idle", f"one job at idle, {kind}", load.waits_ms, note, used
        )


def loaded(bench: Bench) -> None:
    """The same beside jobs that come at half the rate that the mesh can do."""
    stage = bench.stage
    for kind in KINDS:
        best = bench.figures.value(f"end_to_end.{kind}.batch.jobs_per_s")
        if best is None:
            plan = stage.warmed(stage.plan(kind, BATCH_CLIENTS, batch=BATCH))
            _, done, _ = stage.whole_run(plan)
            best = len(done.finished) / done.settled_s
        beside = stage.plan(kind, BATCH_CLIENTS, batch=BACKGROUND_BATCH, rate=best / 2)
        ones = one_at_a_time(stage, kind)
        beside = beside._replace(seconds=ones.seconds + 1)
        began = time.time()
        running = stage.begin(submit, beside)
        load, _ = stage.submit(ones)
        others: Load = running.result()
        stage.accept(others)
        stage.check(beside, others, stage.finish(beside, len(others.jobs), began))
        note = f"{waits_note(stage, load, kind)} beside {others.rate:,.0f} jobs/s of {best / 2:,.0f} wanted"
        key, label = f"latency.{kind}.half", f"one job at half load, {kind}"
        add_percentiles(bench.figures, key, label, load.waits_ms, note)


def one_at_a_time(stage: Stage, kind: str) -> Plan:
    plan = stage.plan(kind, 1, wait_s=WAIT_S)
    return plan._replace(jobs_max=ONES, seconds=3 * plan.seconds)


def waits_note(stage: Stage, load: Load, kind: str) -> str:
    bad = len(load.jobs) - len(load.waits_ms)
    stage.figures.check(not bad, f"{kind}, with `Prefer: wait`: {bad} did not end well within {WAIT_S} s")
    return counted(jobs=len(load.waits_ms), not_ended=bad, refused=load.refused.total())


def end_to_end(bench: Bench) -> None:
    """From the first job sent until the last is settled, and until all results were read back: from a list of
    the jobs at the end, or from the answers to the batches themselves."""
    stage = bench.stage
    for kind in KINDS:
        for clients in CLIENTS:
            plan = stage.plan(kind, clients)
            load, done, used = stage.whole_run(plan)
            rate = len(done.finished) / done.settled_s
            label = f"end to end, {kind}, {singles(clients)}"
            note = counted(jobs=len(done.finished), refused=load.refused.total())
            bench.figures.add(f"end_to_end.{kind}.{clients}.jobs_per_s", label, rate, "jobs/s", note, used)
        batches = stage.warmed(stage.plan(kind, BATCH_CLIENTS, batch=BATCH))
        load, done, used = stage.whole_run(batches)
        rows = [
            Row(job.id, job.sent, job.answered, done.finished[job.id])
            for job in load.jobs
            if job.id in done.finished
        ]
        bench.figures.rows += rows
        note = counted(jobs=len(rows), started_more_than_once=done.restarted, refused=load.refused.total())
        key, label = f"end_to_end.{kind}.batch", f"end to end, {kind}, {BATCHES}"
        add, jobs = bench.figures.add, len(rows)
        add(f"{key}.jobs_per_s", label, jobs / done.settled_s, "jobs/s", note, used)
        add(f"{key}.read_per_s", f"{label}, results read back", jobs / done.read_s, "jobs/s")
        add(f"{key}.accepted_per_s", f"{label}: accepted meanwhile", load.rate, "jobs/s")
        waits = batches._replace(document=batches.document | {"queue": stage.new_queue()}, wait_s=WAIT_S)
        load, used = stage.submit(waits)
        note, rate = waits_note(stage, load, kind), len(load.waits_ms) / load.took_s
        text = f"{label}, results in the answers"
        add(f"end_to_end.{kind}.answers.jobs_per_s", text, rate, "jobs/s", note, used)


def running(bench: Bench) -> None:
    """Jobs that wait in a paused queue, from its release until the last is settled."""
    stage = bench.stage
    client = Client(stage.urls)
    for kind in KINDS:
        plan = stage.warmed(stage.plan(kind, BATCH_CLIENTS, batch=BATCH))
        queue = plan.document["queue"]
        client.pause(queue)
        load, _ = stage.submit(plan)
        stage.figures.check(
            stage.owned == len(load.jobs), f"{stage.owned} jobs wait, of {len(load.jobs)} accepted"
        )
        meter, began = Meter(stage.mesh.nodes), time.time()
        client.resume(queue)
        done = stage.finish(plan, len(load.jobs), began)
        stage.check(plan, load, done)
        used = meter.cost(done.cpu_s, len(done.finished))
        rate = len(done.finished) / done.settled_s
        note = counted(jobs=len(done.finished), started_more_than_once=done.restarted)
        label = f"run only, {kind}, jobs that wait in a queue"
        bench.figures.add(f"run.{kind}.jobs_per_s", label, rate, "jobs/s", note, used)


def submissions(bench: Bench) -> None:
    """Jobs that are due in an hour, so that nothing runs."""
    stage = bench.stage
    for clients, batch in [*product(CLIENTS, [0]), (BATCH_CLIENTS, BATCH)]:
        before = stage.owned
        load, used = stage.submit(stage.plan("workers", clients, batch=batch, delay_s=DELAY_S))
        stored = stage.owned - before
        sent = BATCHES if batch else singles(clients)
        text = f"submit, {sent}: {stored} jobs are owned, of {len(load.jobs)} accepted"
        stage.figures.check(stored == len(load.jobs), text)
        note = counted(jobs=len(load.jobs), refused=load.refused.total())
        key = "submit.batch" if batch else f"submit.single.{clients}"
        bench.figures.add(f"{key}.jobs_per_s", f"submit only, {sent}", load.rate, "jobs/s", note, used)
        took_ms = [1000 * (job.answered - job.sent) for job in load.jobs]
        bench.figures.add(f"{key}.p99_ms", f"submit only, {sent}: p99", percentile(took_ms, 0.99), "ms")


def reads(bench: Bench) -> None:
    """GET of one settled job where it is not owned."""
    stage = bench.stage
    plan = stage.plan("inline", BATCH_CLIENTS, batch=BATCH)._replace(jobs_max=BATCH, seconds=DRAIN_S)
    load, _, _ = stage.whole_run(plan)
    targets = elsewhere(stage, [job.id for job in load.jobs[:READ_JOBS]])
    meter = Meter(stage.mesh.nodes)
    done: Reads = stage.begin(read, targets, READERS, bench.options.seconds).result()
    count = len(done.latencies_s)
    stage.figures.check(not done.failed, f"reads: {done.failed} failed or were of another job")
    used, note = meter.cost(done.cpu_s, count), counted(readers=READERS, failed=done.failed)
    label = "reads of a settled job, not at its owner"
    bench.figures.add("reads.per_s", label, count / done.took_s, "reads/s", note, used)
    waits_ms = [1000 * latency_s for latency_s in done.latencies_s]
    add_percentiles(bench.figures, "reads", label, waits_ms)


def elsewhere(stage: Stage, jobs: Sequence[str]) -> list[str]:
    """A URL of each job at a node that does not own it."""
    homes = {Client(url).node()["id"]: url for url in stage.urls}
    client, targets = Client(stage.urls), []
    for number, job in enumerate(jobs):
        owner = client.get(job).fields["owner"]
        others = [url for node, url in homes.items() if node != owner]
        targets.append(f"{others[number % len(others)]}/v1/jobs/{job}")
    return targets
