"""Many seeds, several at a time in processes of their own, and what all of them have shown."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field

from edgenode.core.node import Node
from edgenode.sim.machines import MakeCore
from edgenode.sim.story import Story
from edgenode.sim.trial import Passed, Plan, Trial
from edgenode.sim.violation import Violation


@dataclass(frozen=True, slots=True)
class Failed:
    """A run that broke a promise, or broke down."""

    seed: int
    error: str
    notes: tuple[str, ...]  # the faults as drawn, what struck, and the end of the story


Ended = Passed | Failed


def play(plan: Plan, story: Story | None = None, make_core: MakeCore = Node) -> Ended:
    """Run one seed here."""
    trial = Trial(plan, make_core, story)
    try:
        return trial.run()
    except Exception as error:  # noqa: BLE001 -- whatever a core raises is what was looked for
        where = () if isinstance(error, Violation) else tuple(traceback.format_exception(error))
        notes = (*where, *getattr(error, "__notes__", ()))
        return Failed(plan.seed, f"{type(error).__name__}: {error}", notes)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def campaign(plans: Sequence[Plan], processes: int) -> Iterator[Ended]:
    """Run all of them, and tell of each as it ends. Whoever stops listening ends the processes."""
    if processes == 1 or len(plans) == 1:
        yield from map(play, plans)
        return
    pool = ProcessPoolExecutor(min(processes, len(plans)), initializer=_leave_interrupts_to_the_parent)
    try:
        for future in as_completed([pool.submit(play, plan) for plan in plans]):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()
            child.join()


@dataclass(slots=True)
class Tally:
    """What the seeds that have ended so far have shown."""

    passed: int = 0
    failed: list[Failed] = field(default_factory=list)
    submitted: int = 0
    acknowledged: int = 0
    starts: int = 0
    events: int = 0
    strikes: Counter[str] = field(default_factory=Counter)
    struck_in: Counter[str] = field(default_factory=Counter)  # in how many seeds

    def add(self, ended: Ended) -> None:
        if isinstance(ended, Failed):
            self.failed.append(ended)
            return
        self.passed += 1
        self.submitted += ended.jobs
        self.acknowledged += ended.acknowledged
        self.starts += ended.starts
        self.events += ended.events
        self.strikes += ended.strikes
        self.struck_in.update((+ended.strikes).keys())

    @property
    def done(self) -> int:
        return self.passed + len(self.failed)
