"""What the protocol costs and how quick it is from 10 to 1,000 members, in simulated time: `make scale`.

Drives the production core, whole nodes of it (see `swarm.py`), and prints a table. With `--plot` it also
draws it, which needs matplotlib. All figures come from the seed, and are the same on every machine.

A mesh of up to 100 joins one by one; of a larger one the last 20 do, and the others have known each other
for long. Then nothing happens for a while, and what is sent is counted: the bytes of the messages themselves
(TLS, WebSocket, TCP and IP add some 90 to each). Then members end, one after another: half of them processes
that are killed, half of them hosts that fall silent.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from random import Random
from statistics import mean, median, pstdev

from swarm import Swarm

from edgenode.core.job_ids import make_job_id
from edgenode.core.rendezvous import Ranking
from edgenode.core.settings import PRESETS
from edgenode.core.types import NodeId, Seconds

SIZES = (10, 100, 500, 1000)
JOIN_ALL = 100
"""Joining costs N * N rumours: so many in one process are quick."""
JOIN_LAST = 20
JOIN_EVERY_S = 0.05
SETTLE_S = 12.0
"""Longer than one round of probes over 64 members, in which the links are made."""
LISTEN_S: Seconds = 10.0
LISTENED_MAX = 30
LOUD = 1.5
"""Whoever sends so many times more than the others still passes on who has joined."""
DEATH_LIMIT_S = 60.0
JOBS_EACH = 20
"""New jobs per member, for their balance: of chance alone, a member's share then differs by 1 / sqrt(20)."""
MOVES = 20_000
"""Jobs whose rank is compared before and after one join."""
FINISHED = 5000
COLUMNS = (
    ("members", "{0.members:,}"),
    ("messages/s", "{0.messages_s:.1f}"),
    ("bytes/s", "{0.bytes_s:,.0f}"),
    ("most of any node", "{0.bytes_s_max:,.0f}"),
    ("links", "{0.links:.0f}"),
    ("killed: known to all after", "{0.killed_s:.3f} s"),
    ("silent: known to all after", "{0.silent_s:.2f} s"),
    ("spread of new jobs", "{0.spread:.2f} ({0.spread_by_chance:.2f})"),
    ("first in rank moves", "{0.moved:.2%}"),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """One line of the table: per node and second at rest, unless it says otherwise."""

    members: int
    messages_s: float
    bytes_s: float
    bytes_s_max: float  # of the node that sends most
    links: float  # peers that something was sent to or came from while it was counted
    killed_s: Seconds  # median, until the last member knows
    silent_s: Seconds
    spread: float  # coefficient of variation of new jobs over members
    spread_by_chance: float  # what a perfect die gives for as many jobs
    moved: float  # share of jobs whose first in rank one join changes
    took_s: Seconds  # of this machine's processor


def measure(size: int, *, seed: int, rest_s: Seconds, deaths: int) -> Figures:
    """Build one mesh, let it rest, and end `deaths` processes and as many hosts."""
    began = time.process_time()
    swarm = settled(size, seed=seed)
    swarm.count(rest_s)
    members = list(swarm.members.values())
    since = swarm.now - rest_s
    links = mean(sum(used >= since for used in member.links.values()) for member in members)
    ranking = members[0].node.view.ranking()
    assert len(ranking) == size
    spread, moved = placement(ranking, seed=seed)
    victims = Random(seed).sample(members[1:], 2 * deaths)
    times: dict[bool, list[Seconds]] = {True: [], False: []}
    for number, victim in enumerate(victims):
        is_killed = number % 2 == 0
        swarm.run(0.5)
        (swarm.kill if is_killed else swarm.silence)(victim)
        known_s = swarm.until_known_dead(victim, DEATH_LIMIT_S)
        assert known_s is not None, f"{victim.id} is thought to live after {DEATH_LIMIT_S} s"
        times[is_killed].append(known_s)
    return Figures(
        members=size,
        messages_s=mean(member.messages for member in members) / rest_s,
        bytes_s=mean(member.bytes for member in members) / rest_s,
        bytes_s_max=max(member.bytes for member in members) / rest_s,
        links=links,
        killed_s=median(times[True]),
        silent_s=median(times[False]),
        spread=spread,
        spread_by_chance=1 / sqrt(JOBS_EACH),
        moved=moved,
        took_s=time.process_time() - began,
    )


def settled(size: int, *, seed: int) -> Swarm:
    """A mesh in which everybody ranks everybody and no news goes round any more."""
    swarm = Swarm(seed, PRESETS["lan"])
    joining = size if size <= JOIN_ALL else JOIN_LAST
    if joining < size:
        swarm.acquaint(size - joining)
        swarm.run(1.0)
    for _ in range(joining):
        swarm.join()
        swarm.run(JOIN_EVERY_S)
    swarm.run(SETTLE_S)
    assert swarm.is_whole(), "somebody does not know somebody"
    for _ in range(LISTENED_MAX):
        swarm.count(LISTEN_S)
        sent = [member.bytes for member in swarm.members.values()]
        if max(sent) < LOUD * mean(sent):
            return swarm
    raise AssertionError("some have news to tell for ever")


def placement(ranking: Ranking, *, seed: int) -> tuple[float, float]:
    """How evenly new jobs fall, and the share of them that one join moves."""
    dice = Random(seed)
    size = len(ranking)
    jobs = [make_job_id(1.7e9, dice.randbytes(10)) for _ in range(JOBS_EACH * size)]
    firsts = [ranking.rank(job)[0] for job in jobs]
    counts = Counter(dict.fromkeys(ranking.members, 0))
    counts.update(firsts)
    grown = Ranking(dict.fromkeys([*ranking.members, NodeId("the one that joins")], 1.0))
    sample = list(zip(jobs, firsts, strict=True))
    while len(sample) < MOVES:
        job = make_job_id(1.7e9, dice.randbytes(10))
        sample.append((job, ranking.rank(job)[0]))
    moved = sum(grown.rank(job)[0] != first for job, first in sample[:MOVES])
    return pstdev(counts.values()) / mean(counts.values()), moved / MOVES


def with_finished(finished: int, *, size: int, seed: int, rest_s: Seconds) -> float:
    """Bytes per node and second at rest, of a mesh that has so many finished jobs on its disks."""
    swarm = settled(size, seed=seed)
    members = list(swarm.members.values())
    for start in range(0, finished, 100):
        swarm.submit(members[start // 100 % size], min(100, finished - start))
        swarm.run(1.0)
    swarm.run(SETTLE_S)
    assert len(swarm.acknowledged) == finished
    settled_rows = sum(row.settled for member in members for row in member.disk.rows.values())
    assert settled_rows == 3 * finished, f"{settled_rows} settled copies of {finished} jobs"
    swarm.count(rest_s)
    return mean(member.bytes for member in members) / rest_s


def table(rows: Sequence[Figures]) -> str:
    """The figures as Markdown."""
    lines = ["| " + " | ".join(title for title, _ in COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(shape.format(row) for _, shape in COLUMNS) + " |" for row in rows]
    return "\n".join(lines)


def plot(rows: Sequence[Figures], path: Path) -> None:
    """Draw four small pictures side by side, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "edgenode"  # the same file from the same figures
    from matplotlib import pyplot

    sizes = [row.members for row in rows]
    panels = (
        ("bytes per node and second, at rest", {"": [row.bytes_s for row in rows]}, (0, None)),
        ("links per node", {"": [row.links for row in rows]}, (0, None)),
        (
            "until all know of a death, s",
            {"silent host": [row.silent_s for row in rows], "killed": [row.killed_s for row in rows]},
            (0, None),
        ),
        (
            "share of jobs that one join moves",
            {"measured": [row.moved for row in rows], "1 / (N + 1)": [1 / (size + 1) for size in sizes]},
            (None, None),
        ),
    )
    figure, axes = pyplot.subplots(1, len(panels), figsize=(13, 2.8), layout="constrained")
    for axis, (title, lines, limits) in zip(axes, panels, strict=True):
        for label, values in lines.items():
            axis.plot(sizes, values, marker="o", label=label, linestyle="--" if "/" in label else "-")
        axis.set_title(title, fontsize=10)
        axis.set_xscale("log")
        axis.set_xlabel("members")
        if limits == (None, None):
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        if len(lines) > 1:
            axis.legend(fontsize=8)
        axis.grid(visible=True, alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="members of each mesh")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rest", type=float, default=10.0, help="simulated seconds that are counted")
    parser.add_argument("--deaths", type=int, default=2, help="of each kind, in each mesh")
    parser.add_argument(
        "--finished", type=int, default=FINISHED, help="finished jobs for the last figure; 0: none"
    )
    parser.add_argument("--plot", type=Path, help="an SVG file to draw")
    options = parser.parse_args(arguments)
    rows = []
    for size in options.sizes:
        rows.append(measure(size, seed=options.seed, rest_s=options.rest, deaths=options.deaths))
        shown = " · ".join(f"{title} {shape.format(rows[-1])}" for title, shape in COLUMNS)
        print(f"{shown} · took {rows[-1].took_s:.0f} s", file=sys.stderr, flush=True)
    print(table(rows))
    if options.finished:
        few, many = (
            with_finished(finished, size=5, seed=options.seed, rest_s=options.rest)
            for finished in (0, options.finished)
        )
        print(f"\nfive nodes, bytes per node and second at rest: {few:.0f} with no job on their disks,")
        print(f"{many:.0f} with {options.finished:,} finished ones")
    if options.plot is not None:
        plot(rows, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
