"""The mesh that a bench measures, and the processes that make the load."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from math import ceil
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench_figures import Cost, Figures, counted
from bench_load import DRAIN_S, Finish, Load, Plan, document, finish, submit
from bench_machine import Meter, usage
from distribution import percentile
from meshes import local_mesh

from edgenode.cli.up import LocalMesh, LocalNode
from edgenode.core.errors import EdgeNodeError

NODES: Final = 3
PROFILE: Final = "lan"
SLOTS: Final = 2
"""Worker processes of each node: as many in all as there are holders of a job, and two more."""
BATCH: Final = 200
BATCH_CLIENTS: Final = 6
"""Batches under way at a time: two for each node, so that one is read while the other waits for disks."""
JOBS_MAX: Final = 40_000
"""Of one measurement, however fast the machine: the whole run stays bounded."""
QUICK_S: Final = 1.0
"""Who measures for less wants no figures, but to see that all works."""
KINDS: Final = {"workers": "echo", "inline": "bench.echo"}
"""How a task runs: in a worker process, or in the node itself."""
TASKS: Final = ("edgenode.tasks", str(Path(__file__).with_name("bench_tasks.py")))
PERCENTILES: Final = (0.5, 0.95, 0.99)
FEW: Final = 100
"""Of fewer values no p99 can be told from the greatest."""


class Options(NamedTuple):
    """What was asked for on the command line."""

    seconds: float
    payload: int
    kills: int
    held: tuple[int, ...]
    fill_s: float
    base_port: int


class BenchFailed(EdgeNodeError):
    """The measurement could not go on; the text says why."""

    status, slug, title = 500, "bench-failed", "The measurement could not go on"


class Stage:
    """One mesh under load. Its methods do what several measurements need."""

    def __init__(
        self, mesh: LocalMesh, pool: ProcessPoolExecutor, options: Options, figures: Figures
    ) -> None:
        self.mesh = mesh
        self.options = options
        self.figures = figures
        self.urls = tuple(node.url for node in mesh.nodes)
        self.acks: set[int] = set()
        self.ready_s = 0.0
        self._pool = pool
        self._queues = 0

    def new_queue(self) -> str:
        """A queue that no job is in yet: jobs of one run are found by it."""
        self._queues += 1
        return f"bench-{self._queues}"

    def plan(
        self, kind: str, clients: int, *, batch: int = 0, wait_s: int = 0, rate: float = 0.0, **more: Any
    ) -> Plan:
        made = document(self.options.payload, KINDS[kind], **({"queue": self.new_queue()} | more))
        seconds = self.options.seconds
        return Plan(self.urls, made, clients, seconds, JOBS_MAX, batch, wait_s, rate)

    def begin(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a function of the load's carried out in a process of its own."""
        return self._pool.submit(work, *arguments)

    def submit(self, plan: Plan) -> tuple[Load, Cost | None]:
        """Have a plan carried out; also what it cost while it was."""
        meter = Meter(self.mesh.nodes)
        load: Load = self.begin(submit, plan).result()
        self.accept(load)
        return load, meter.cost(load.cpu_s, len(load.jobs))

    def accept(self, load: Load) -> None:
        """
        Raises:
            BenchFailed: nothing was accepted.
        """
        if not load.jobs:
            raise BenchFailed(f"no job was accepted: {dict(load.refused)}")
        self.acks |= load.acks

    def finish(self, plan: Plan, count: int, began: float) -> Finish:
        """Wait for all jobs of the plan's queue, and read them."""
        done: Finish = self.begin(finish, self.urls, plan.document, count, began).result()
        return done

    def whole_run(self, plan: Plan) -> tuple[Load, Finish, Cost | None]:
        """Submit, wait for the end of all, read them; checked."""
        meter = Meter(self.mesh.nodes)
        load, _ = self.submit(plan)
        done = self.finish(plan, len(load.jobs), min(job.sent for job in load.jobs))
        self.check(plan, load, done)
        return load, done, meter.cost(load.cpu_s + done.cpu_s, len(done.finished))

    def check(self, plan: Plan, load: Load, done: Finish) -> None:
        what = f"{plan.document['task']}, {plan.clients} clients, {plan.batch or 1} a request"
        text = f"{what}: of {len(load.jobs)} accepted jobs: {counted(**done.bad)}"
        self.figures.check(not done.bad, text)

    def warmed(self, plan: Plan) -> Plan:
        """The plan for as many jobs as this mesh does in the time, by a short run of it."""
        size = max(1, plan.batch)
        few = plan._replace(
            document=plan.document | {"queue": self.new_queue()},
            jobs_max=size if plan.seconds < QUICK_S else size * plan.clients,
            seconds=DRAIN_S,
        )
        _, done, _ = self.whole_run(few)
        wanted = len(done.finished) / done.settled_s * self.options.seconds
        return plan._replace(jobs_max=min(JOBS_MAX, ceil(wanted / size) * size), seconds=DRAIN_S)

    @property
    def owned(self) -> int:
        """Unfinished jobs, by what each node says of its own."""
        return sum(self._load(node)["owned"] for node in self.mesh.nodes)

    @property
    def done(self) -> int:
        """Jobs that have ended since the nodes started."""
        return sum(self._load(node)["done"] for node in self.mesh.nodes)

    @staticmethod
    def _load(node: LocalNode) -> dict[str, int]:
        found = node.ask("/v1/nodes/self", timeout_s=30.0)
        if found is None:
            raise BenchFailed(f"{node.name} does not answer (see {node.log})")
        return dict(found["load"])

    def rss_bytes(self) -> tuple[float, float]:
        """Memory of a node, and of its workers together: means over the nodes."""
        seen = usage(self.mesh.nodes)
        return (
            statistics.mean(each.rss_bytes for each in seen),
            statistics.mean(each.worker_rss_bytes for each in seen),
        )


def add_percentiles(
    figures: Figures, key: str, label: str, values_ms: list[float], note: str = "", cost: Cost | None = None
) -> None:
    """p50, p95 and p99 of latencies; nothing if there are none. Of few the p99 is only the greatest."""
    if 0 < len(values_ms) < FEW:
        note = f"{note}: p99 is the greatest of {len(values_ms)}".removeprefix(": ")
    for share in PERCENTILES if values_ms else ():
        name = f"p{100 * share:.0f}"
        first = share == PERCENTILES[0]
        figures.add(
            f"{key}.{name}_ms",
            f"{label}, {name}",
            percentile(values_ms, share),
            "ms",
            note if first else "",
            cost if first else None,
        )


class Bench:
    """Hands out meshes. A context manager: at its end no process of them is left."""

    def __init__(self, options: Options, folder: Path, say: Callable[[str], None]) -> None:
        self.options = options
        self.folder = folder
        self.say = say
        self.figures = Figures()
        self.acks: set[int] = set()
        self._meshes = 0
        self._whole = ExitStack()
        self._main: ExitStack | None = None
        self._stage: Stage | None = None
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_stage()
        self._whole.close()

    @property
    def stage(self) -> Stage:
        """The mesh that most measurements share; started when it is first needed."""
        if self._stage is None:
            self._main = ExitStack()
            self._stage = self._main.enter_context(self.staged("main"))
        return self._stage

    def close_stage(self) -> None:
        if self._main is not None:
            self._main.close()
        self._main = self._stage = None

    @contextmanager
    def staged(self, name: str, nodes: int = NODES) -> Iterator[Stage]:
        """A mesh with empty disks."""
        self._meshes += 1
        folder = self.folder / f"{self._meshes}-{name}"
        folder.mkdir()
        pool, first = self._load_processes(), self.options.base_port
        began = time.monotonic()
        with local_mesh(nodes, folder, first_port=first, tasks=TASKS, slots=SLOTS, profile=PROFILE) as mesh:
            stage = Stage(mesh, pool, self.options, self.figures)
            stage.ready_s = time.monotonic() - began
            yield stage
            self.acks |= stage.acks

    def _load_processes(self) -> ProcessPoolExecutor:
        """One that makes the load, and one for load beside that."""
        if self._pool is None:
            self._pool = self._whole.enter_context(ProcessPoolExecutor(2, mp_context=get_context("spawn")))
            for each in [self._pool.submit(os.getpid) for _ in range(2)]:
                each.result()
        return self._pool
