"""How well is work spread over nodes, and how punctual are jobs with a day? On real processes.

    python scripts/makespan.py [--jobs N --only spread|slow|days|takeover --json FILE]

    spread     N jobs of 0.05 to 2 s, all submitted to one of four nodes with two slots each: the time until
               the last has ended, over the least that any scheduler could need (all work over all slots)
    slow       the same, where one node takes ten times as long for everything; all slots then count by pace
    days       jobs with `run_at`, at an idle mesh: how late each start is; none may be early
    takeover   the same, and the owner of most of them is killed before their day

Jobs sleep, so the processor is not what is measured. Every start leaves a line in a file: without faults each
job has exactly one. The exit code is 1, and the last lines say why, if what is promised was not kept: 1.10
times the least for `spread`, 1.25 times for `slow`, no start more than 0.2 s late, no job started twice where
nobody died. (It is promised for 400 jobs: of a few, the last one to end weighs too much.)
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from distribution import Distribution
from makespan_tasks import read_starts
from meshes import local_mesh
from rich.console import Console

from edgenode.cli.up import LocalMesh
from edgenode.client import Client, Job

NODES: Final = 4
SLOTS: Final = 2
SLOWNESS: Final = 10.0
SHORTEST_S: Final = 0.05
LONGEST_S: Final = 2.0
FIRST_PORT: Final = 21_700
PATIENCE_S: Final = 600.0
DAYS: Final = 100
RATIO_MAX: Final = {"spread": 1.10, "slow": 1.25}
LATE_MAX_S: Final = 0.2
SEED: Final = 4
TASKS: Final = str(Path(__file__).with_name("makespan_tasks.py"))

console = Console(highlight=False)


class Makespan(NamedTuple):
    """How long it took, and how long it must take."""

    took_s: float
    ideal_s: float
    extra_starts: int

    @property
    def ratio(self) -> float:
        return self.took_s / self.ideal_s

    def fields(self) -> dict[str, float]:
        return self._asdict() | {"ratio": self.ratio}


class Punctuality(NamedTuple):
    late_s: Distribution
    extra_starts: int

    def fields(self) -> dict[str, Any]:
        return {"late_s": self.late_s._asdict(), "extra_starts": self.extra_starts}


@contextmanager
def mesh_of(count: int) -> Iterator[tuple[LocalMesh, Path]]:
    """Nodes with free slots that see each other, and the file in which starts are noted."""
    with tempfile.TemporaryDirectory(prefix="edgenode-makespan-") as folder:
        place = Path(folder)
        with local_mesh(
            count, place, first_port=FIRST_PORT, tasks=(TASKS,), slots=SLOTS, profile="local"
        ) as mesh:
            yield mesh, place / "starts"


def measure_makespan(count: int, *, one_is_slow: bool) -> Makespan:
    dice = random.Random(SEED)
    lasting = [dice.uniform(SHORTEST_S, LONGEST_S) for _ in range(count)]
    with mesh_of(NODES) as (mesh, starts):
        slow = mesh.nodes[-1].process if one_is_slow else None
        slow_pid = 0 if slow is None else slow.pid
        documents = [
            {"task": "makespan.nap", "payload": payload(starts, seconds, slow_pid), "max_attempts": 1}
            for seconds in lasting
        ]
        client = Client(mesh.nodes[0].url)
        began = time.time()
        batch = client.submit_batch(documents)
        found = client.wait_batch(batch.id, timeout_s=PATIENCE_S)
        assert found["states"] == {"succeeded": count}, found
        ended = max(each.at + each.lasted_s for each in read_starts(starts))
        pace = SLOTS * (NODES - 1 + 1 / SLOWNESS if one_is_slow else NODES)
        ideal_s = max(sum(lasting) / pace, max(lasting))
        return Makespan(ended - began, ideal_s, extra(starts))


def measure_days(*, owner_dies: bool) -> Punctuality:
    """Jobs whose days are spread over two seconds, and how much later than that each began."""
    with mesh_of(NODES) as (mesh, starts):
        lead_s = 8.0 if owner_dies else 3.0
        first = datetime.now(UTC) + timedelta(seconds=lead_s)
        days = [first + timedelta(seconds=4.0 * number / DAYS) for number in range(DAYS)]
        documents = [
            {
                "task": "makespan.nap",
                "payload": payload(starts, 0.0, 0),
                "run_at": day.isoformat(timespec="milliseconds"),
            }
            for day in days
        ]
        client = Client([node.url for node in mesh.nodes[1:]])
        batch = client.submit_batch(documents)
        if owner_dies:
            owners = Counter(client.get(job.id).fields["owner"] for job in batch.jobs if isinstance(job, Job))
            (owner, _), *_ = owners.most_common()
            names = {node["id"]: node["name"] for node in client.nodes()}
            victim = next(node for node in mesh.nodes if node.name == names[owner])
            assert victim.process is not None
            victim.process.kill()
        client.wait_batch(batch.id, timeout_s=60)
        taken = [job.id for job in batch.jobs if isinstance(job, Job)]
        due = dict(zip(taken, (day.timestamp() for day in days), strict=True))
        begun = {each.job: each.at for each in read_starts(starts)}
        late = [begun[job] - round(day, 3) for job, day in due.items()]
        assert min(late) >= 0, f"a job began {-min(late):.3f} s before its day"
        return Punctuality(Distribution.of(late), extra(starts))


def payload(starts: Path, seconds: float, slow_pid: int) -> dict[str, Any]:
    return {"starts": str(starts), "seconds": seconds, "slow_pid": slow_pid, "slowness": SLOWNESS}


def extra(starts: Path) -> int:
    """Starts beyond the first of each job."""
    return sum(count - 1 for count in Counter(each.job for each in read_starts(starts)).values())


def tell(name: str, found: Makespan | Punctuality) -> None:
    if isinstance(found, Makespan):
        text = f"{found.took_s:.1f} s, ideal {found.ideal_s:.1f} s: {found.ratio:.2f} times"
    else:
        late = found.late_s
        shown = {"p50": late.p50, "p99": late.p99, "max": late.max}
        text = "late by " + ", ".join(f"{value * 1e3:.0f} ms ({kind})" for kind, value in shown.items())
    console.print(f"{name:10}{text}; {found.extra_starts} extra starts")


def failures(found: Mapping[str, Makespan | Punctuality]) -> list[str]:
    """What was promised and not kept, in words."""
    failed = []
    for name, each in found.items():
        if isinstance(each, Makespan):
            if each.ratio > RATIO_MAX[name]:
                failed.append(f"{name}: {each.ratio:.3f} times the ideal, at most {RATIO_MAX[name]:.2f} go")
        elif each.late_s.max > LATE_MAX_S:
            failed.append(f"{name}: a job began {each.late_s.max:.3f} s late, at most {LATE_MAX_S} go")
        if each.extra_starts and name != "takeover":
            failed.append(f"{name}: {each.extra_starts} starts more than jobs, though nobody died")
    return failed


def measure(which: Sequence[str], jobs: int) -> Mapping[str, Makespan | Punctuality]:
    found: dict[str, Makespan | Punctuality] = {}
    for name in which:
        if name in ("spread", "slow"):
            found[name] = measure_makespan(jobs, one_is_slow=name == "slow")
        else:
            found[name] = measure_days(owner_dies=name == "takeover")
        tell(name, found[name])
    return found


KINDS: Final = ("spread", "slow", "days", "takeover")


def main(arguments: Sequence[str] | None = None) -> int:
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("--jobs", type=int, default=400, help="of `spread` and `slow` (400)")
    about.add_argument("--only", choices=KINDS, action="append", help="repeats")
    about.add_argument("--json", type=Path, help="write the figures there")
    given = about.parse_args(arguments)
    console.print(f"{NODES} nodes of {SLOTS} slots on {os.cpu_count()} processors")
    found = measure(given.only or KINDS, given.jobs)
    if given.json:
        given.json.write_text(
            json.dumps({name: each.fields() for name, each in found.items()}, indent=2) + "\n"
        )
    failed = failures(found)
    for text in failed:
        console.print(f"FAILED  {text}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
