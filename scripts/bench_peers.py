"""Other systems beside a mesh, in the same run and on the same work; see `bench.py --help`.

Each is measured by a program of its own in `peers/`, with the Python that has that system. Nothing of it is
imported here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench_figures import Figures, number_text
from bench_load import EMPTY_PAYLOAD
from bench_mesh import KINDS, NODES
from ports import Ports
from proc import adopt_orphans, descendants, end_all, end_with_parent, processes
from rich.table import Table

from edgenode import __version__

PEERS: Final = {
    "echo_celery.py": "Celery + Redis",
    "echo_taskiq.py": "taskiq + Redis",
    "echo_dask.py": "Dask distributed",
    "echo_ray.py": "Ray",
    "echo_nats.py": "NATS JetStream",
}
FOLDER: Final = Path(__file__).with_name("peers")
PORTS: Final = 12
LIMIT_S: Final = 240.0
ACCEPTED: Final = "on 2 of 3 disks, synced; so is the result"
HEADINGS: Final = (
    "system", "accepted means", "submit/s", "end to end jobs/s", "ratio", "one job p50 / p99, ms",
    "CPU µs a job: system / client",
)  # fmt: skip

Row = Mapping[str, Any]
"""One system: what the programs in `peers/` print, or `system` and `why` it was not measured."""


def ours(figures: Figures) -> list[Row]:
    """What was measured of edgenode, as if it were one of the others; a kind that was not is left out."""
    rows: list[Row] = []
    for kind in KINDS:
        whole, one = f"end_to_end.{kind}", f"latency.{kind}.idle"
        keys = {
            "submit_per_s": f"{whole}.batch.accepted_per_s",
            "jobs_per_s": f"{whole}.answers.jobs_per_s",
            "one_p50_ms": f"{one}.p50_ms",
            "one_p99_ms": f"{one}.p99_ms",
        }
        values = {name: figures.value(key) for name, key in keys.items()}
        used = figures.cost(keys["jobs_per_s"])
        if used is not None and None not in values.values():
            name = f"edgenode, {NODES} nodes, {kind}"
            cpu = {"system_us": used.nodes_us + used.workers_us, "client_us": used.load_us}
            told = {"system": name, "versions": __version__, "accepted": ACCEPTED}
            rows.append(told | {"is_base": kind == "workers"} | values | cpu)
    return rows


def measure(python: str, seconds: float, payload: int, say: Callable[[str], None]) -> list[Row]:
    """All of them, one after the other; what is missing or fails is a row that says so.

    Args:
        python: the interpreter that has them.
        payload: bytes; a message is as long as that in our jobs.
    """
    adopt_orphans()
    rows: list[Row] = []
    for file, name in PEERS.items():
        say(f"  {name}")
        kept = descendants(os.getpid(), processes())
        folder = tempfile.mkdtemp(prefix="eb-")  # short: Ray puts sockets deep inside
        try:
            with Ports() as ports:
                numbers = [ports.take() for _ in range(PORTS)]
                rows += _one(python, file, name, seconds, payload - EMPTY_PAYLOAD, folder, numbers)
        finally:
            end_all(kept)
            shutil.rmtree(folder, ignore_errors=True)
    return rows


def _one(
    python: str, file: str, name: str, seconds: float, message: int, folder: str, ports: Sequence[int]
) -> list[Row]:
    command = [python, str(FOLDER / file), "--seconds", str(seconds), "--message", str(message)]
    command += ["--folder", folder, "--ports", ",".join(map(str, ports))]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=os.environ | {"TMPDIR": folder},
            preexec_fn=end_with_parent,
        )
    except OSError as error:
        return [{"system": name, "why": f"not installed: {python}: {error.strerror}"}]
    try:
        printed, complaints = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return [{"system": name, "why": f"not done within {LIMIT_S:.0f} s"}]
    return parse(name, process.returncode, printed, complaints)


def parse(name: str, code: int, printed: str, complaints: str) -> list[Row]:
    """What such a program said: rows in its last line, or why there are none."""
    if code == 0 and printed.strip():
        return list(json.loads(printed.strip().splitlines()[-1]))
    last = (complaints.strip().splitlines() or [f"exit code {code}"])[-1]
    return [{"system": name, "why": f"failed: {last[:200]}"}]


def medians(rows: Sequence[Row]) -> list[Row]:
    """One row of each system: that with the median rate, or why there is none."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["system"], []).append(row)
    chosen: list[Row] = []
    for each in found.values():
        measured = sorted((row for row in each if "why" not in row), key=lambda row: row["jobs_per_s"])
        chosen.append(measured[(len(measured) - 1) // 2] if measured else each[0])
    return chosen


# -------------------------------------------------------------------------------------------------- table


def base_rate(rows: Sequence[Row]) -> float | None:
    """Our rate in worker processes, which is where the others' jobs run too."""
    return next((row["jobs_per_s"] for row in rows if row.get("is_base")), None)


def cells(row: Row, base: float | None) -> tuple[str, ...]:
    """One line of the comparison; `base` is the rate that the ratio is of."""
    if "why" in row:
        return str(row["system"]), str(row["why"]), *[""] * (len(HEADINGS) - 2)
    submitted = "(lazy)" if row["submit_per_s"] is None else number_text(row["submit_per_s"])
    ratio = "" if base is None else number_text(base / row["jobs_per_s"])
    times = f"{number_text(row['one_p50_ms'])} / {number_text(row['one_p99_ms'])}"
    cpu = f"{number_text(row['system_us'])} / {number_text(row['client_us'])}"
    rate = number_text(row["jobs_per_s"])
    system = f"{row['system']} ({row['versions']})"
    return system, str(row["accepted"]), submitted, rate, ratio, times, cpu


def table(rows: Sequence[Row]) -> Table:
    caption = "No-op jobs, one client process, results read back. Ratio: edgenode in worker processes over it"
    shown = Table(caption=caption)
    for heading in HEADINGS:
        shown.add_column(heading, overflow="fold")
    for row in rows:
        shown.add_row(*cells(row, base_rate(rows)))
    return shown
