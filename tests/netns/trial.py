"""What the tests of this folder have in common: work goes on while things happen, and all of it is judged."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from history import History, judge, verdict_lines
from rig import Rig, RigNode, until
from workload import Workload

REQUEST_S = 4.0


@contextmanager
def at_work(rig: Rig, name: str, *, seconds_max: float = 1.0, rate: float = 20.0) -> Iterator[Workload]:
    """Clients are at work, and go on until the block ends; ten jobs have been accepted at its beginning."""
    work = Workload(
        rig, random.Random(name), queue=name, rate=rate, seconds_max=seconds_max, request_s=REQUEST_S
    )
    with work:
        wait_for_more(work, 10)
        yield work


def wait_for_more(work: Workload, count: int, at: Sequence[RigNode] = ()) -> None:
    """Until so many more jobs have been accepted (by these nodes)."""
    names = {node.name for node in at}

    def accepted() -> int:
        return sum(each.told == "accepted" and (not names or each.node in names) for each in work.submissions)

    before = accepted()
    until(
        lambda: accepted() >= before + count, lambda: f"{accepted() - before} of {count} more jobs accepted"
    )


def wait_until_dead(nodes: Sequence[RigNode], at: Sequence[RigNode]) -> None:
    """Until each of `at` believes that all of `nodes` are dead."""
    until(
        lambda: all(observer.believes("dead", nodes) for observer in at),
        lambda: f"{[node.name for node in nodes]} are dead: {[dict(node.members()) for node in at]}",
    )


def keeps_every_promise(work: Workload) -> History:
    """The history, once all has come to rest; nothing in it may be bad."""
    history = work.rest()
    verdict = judge(history)
    assert verdict.passed, "\n".join([*verdict_lines(verdict, history), f"journal: {work.journal}"])
    assert verdict.counts["ok"] == verdict.counts["accepted"]
    return history


def moved(history: History) -> list[str]:
    """The jobs that have changed their owner."""
    return [job for job, record in history.records.items() if record["takeovers"]]
