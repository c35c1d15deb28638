"""What the code costs, in figures that do not depend on how fast the machine is, or how busy.

Two kinds. Exact ones are counted: bytecode instructions of Python by part of the program, writes, rows,
messages and their bytes. They see every step of Python, and nothing of what happens in C (SQLite, msgpack,
JSON). So there are ratios, too: processor time over that of a floor, which takes turns with it in this very
process, so that whatever slows the one slows the other.
"""

from __future__ import annotations

import gc
import json
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from types import CodeType, FrameType
from typing import Any, Final
from zlib import crc32

import msgpack
from bench_load import document
from guard_mesh import NODES, PAYLOAD_BYTES, SETTLE_S, TASK, WALL, Plan, mesh

import edgenode
from edgenode.core.job_ids import make_job_id
from edgenode.core.signals import Persist, Row, StoredRow
from edgenode.shell.store import Store

ROOT: Final = Path(edgenode.__file__).parent
PARTS: Final = ("core", "shell", "api")
"""Of the program whose instructions are counted: the folders of its layers, and what checks parameters."""
COUNTED: Final = {
    "batch": Plan(clients=6, jobs=1200, batch=200),
    "single": Plan(clients=16, jobs=96, lasts_s=0.05),
}
"""Requests of 200 jobs that end at once; and single ones, whose starts last so long that all hear of them."""
RESTED_S: Final = 20.0
"""Some cycles of all that happens now and then, in simulated time."""
WARMING: Final = (Plan(clients=6, jobs=600, batch=100), Plan(clients=16, jobs=32, lasts_s=0.05))
TIMED: Final = Plan(clients=6, jobs=600, batch=100)
TIMED_ROWS: Final = 200
TIMED_WRITES: Final = 5
ROUNDS: Final = 8
FLOOR_BATCH: Final = 500
FLOOR_JOBS: Final = 2000
"""Of one turn of the floor: long enough for a clock that ticks every 10 ms."""


PACKING: Final = msgpack.packb.__code__
"""A step for the interpreter, and a long one for C."""


# --------------------------------------------------------------------------------------------- counting


class Instructions:
    """Counts the bytecode instructions that the parts of the program carry out, and what msgpack packs, in
    this thread and in those that begin while it is counting. Use as a context manager."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self._parts: dict[CodeType, str] = {}
        self._counters = {part: self._counter(part) for part in PARTS}

    def __enter__(self) -> Instructions:
        threading.settrace(self._called)
        sys.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        threading.settrace(None)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        code = frame.f_code
        part = self._parts.get(code)
        if part is None:
            part = self._parts[code] = part_of(code)
        if not part:
            self.found["packs"] += code is PACKING
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self._counters[part]

    def _counter(self, part: str) -> Callable[..., Any]:
        found, name = self.found, f"instructions.{part}"

        def carried_out(frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
            if event == "opcode":
                found[name] += 1
            return carried_out

        return carried_out


def part_of(code: CodeType) -> str:
    """Which part of the program this code belongs to; "" if none, or if how often it runs is chance."""
    file = Path(code.co_filename)
    if not file.is_relative_to(ROOT) or code.co_name == Store._write_all.__name__:
        return ""  # the writer's loop waits as often as two threads happen to miss each other
    folder = file.relative_to(ROOT).parts[0]
    return folder if folder in PARTS else "api"


def counts(
    folder: Path, plans: Mapping[str, Plan] = COUNTED, warming: Sequence[Plan] = WARMING
) -> dict[str, float]:
    """Per job of each plan: instructions by part of the program, packs, events, writes, rows, messages, and
    their bytes. Before that the `warming` plans are carried out: caches are as full then as in a node. The
    same per node and second (`rest`), when nobody has had any work for a while.

    The same in every process with this code, this Python and the same `PYTHONHASHSEED`.
    """
    told: dict[str, float] = {}
    with Instructions() as instructions, mesh(folder) as nodes:
        for plan in warming:
            nodes.work(plan)
        for name, plan in plans.items():
            before = nodes.counted + instructions.found
            nodes.work(plan)
            after = nodes.counted + instructions.found
            told |= {f"{name}.{key}": (after[key] - before[key]) / plan.jobs for key in sorted(after)}
        nodes.rest(SETTLE_S)
        before = nodes.counted + instructions.found
        nodes.rest(RESTED_S)
        after = nodes.counted + instructions.found
        seconds = RESTED_S * len(nodes.members)
        told |= {f"rest.{key}": (after[key] - before[key]) / seconds for key in sorted(after)}
    return told


# --------------------------------------------------------------------------------------------- the floor


class Floor:
    """What no such mesh can do without, written as directly as it goes: a job comes as JSON, becomes a
    record, is decoded by the others, and written and synced by all three, twice, in transactions of many;
    then it is answered as JSON. No order, no votes, no queue, no faults; and no code of the program."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bodies = json.dumps([document(PAYLOAD_BYTES, TASK)] * FLOOR_BATCH).encode()
        self._numbers = count(1)
        self._disks: list[sqlite3.Connection] = []

    def __enter__(self) -> Floor:
        self._folder.mkdir()
        for node in NODES:
            disk = sqlite3.connect(self._folder / node, isolation_level=None)
            disk.execute("PRAGMA journal_mode = WAL")
            disk.execute("PRAGMA synchronous = FULL")
            disk.execute("CREATE TABLE jobs (id BLOB PRIMARY KEY, checksum INTEGER, blob BLOB)")
            self._disks.append(disk)
        return self

    def __exit__(self, *_: object) -> None:
        for disk in self._disks:
            disk.close()

    def work(self, jobs: int) -> None:
        for _ in range(jobs // FLOOR_BATCH):
            documents = json.loads(self._bodies)
            made = []
            for each in documents:
                payload = json.dumps(each["payload"]).encode()
                number = next(self._numbers)
                made.append((number.to_bytes(16, "big"), each["task"], payload, NODES, WALL, number))
            for state in ("queued", "succeeded"):
                frame = msgpack.packb([(*fields, state, sha256(fields[2]).digest()) for fields in made])
                for disk in self._disks:
                    rows = [(fields[0], msgpack.packb(fields)) for fields in msgpack.unpackb(frame)]
                    disk.execute("BEGIN")
                    disk.executemany(
                        "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?)",
                        [(job, crc32(blob), blob) for job, blob in rows],
                    )
                    disk.execute("COMMIT")
            for job, task, payload, holders, at, _ in made:
                json.dumps({"id": job.hex(), "task": task, "holders": holders, "at": at, "of": len(payload)})


class Writing:
    """The production store on its own: rows like those of finished jobs, in writes of some hundred."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._numbers = count(1)
        self._answers: SimpleQueue[Exception | None] = SimpleQueue()

    def work(self, writes: int) -> None:
        for _ in range(writes):
            rows = tuple(self._row(next(self._numbers)) for _ in range(TIMED_ROWS))
            self._store.commit(Persist(rows, next(self._numbers)), self._answers.put)
            error = self._answers.get()
            if error is not None:
                raise error

    @staticmethod
    def _row(number: int) -> StoredRow:
        job = make_job_id(WALL + number / 1000, number.to_bytes(10, "big"))
        row = Row(job, number.to_bytes(4, "big") * 100, None)
        return StoredRow(row, NODES[0], True, "succeeded", TASK, "default", WALL + 86_400)


# ---------------------------------------------------------------------------------------------- ratios


def cpu_s(work: Callable[[], None]) -> float:
    """Processor time of this process, its threads included, while it works."""
    gc.collect()
    began = time.process_time()
    work()
    return time.process_time() - began


@contextmanager
def taking_turns(folder: Path) -> Iterator[Callable[[], dict[str, float]]]:
    """Hands out a function that measures once more: how often a job's (a row's) processor time is that of a
    job of the floor. The least of some rounds each: whatever disturbs costs time, and never saves any."""
    with ExitStack() as stack:
        floor = stack.enter_context(Floor(folder / "floor"))
        nodes = stack.enter_context(mesh(folder / "mesh"))
        store = Store.open(folder / "store")
        stack.callback(store.close)
        writing = Writing(store)

        def measure() -> dict[str, float]:
            took: dict[str, list[float]] = {"floor": [], "mesh": [], "store": []}
            for _ in range(ROUNDS):
                took["floor"].append(cpu_s(lambda: floor.work(FLOOR_JOBS)) / FLOOR_JOBS)
                took["mesh"].append(cpu_s(lambda: nodes.work(TIMED)) / TIMED.jobs)
                took["store"].append(cpu_s(lambda: writing.work(TIMED_WRITES)) / TIMED_WRITES / TIMED_ROWS)
            least = {name: min(each) for name, each in took.items()}
            return {
                "ratio.job": least["mesh"] / least["floor"],
                "ratio.row": least["store"] / least["floor"],
            }

        floor.work(FLOOR_JOBS)
        nodes.work(TIMED)
        yield measure
