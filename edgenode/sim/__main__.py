"""`python -m edgenode.sim`: run many seeds, or replay one with its story."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Final

from edgenode.core.node import Node
from edgenode.sim.story import Story
from edgenode.sim.trial import HURT_S, Passed, Plan, Trial

FAILURES_SHOWN: Final = 5
PROGRESS_EVERY_S: Final = 5.0


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m edgenode.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run (default 100)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("--story", action="store_true", help="with --seed: tell everything that happened")
    parser.add_argument("--job", default="", help="with --story: only what concerns this job (j3, or its id)")
    parser.add_argument("--nodes", type=int, default=0, help="as many nodes (default: as the seed says)")
    parser.add_argument("--replicas", type=int, default=0, help="copies of a job (default: as the seed says)")
    parser.add_argument("--seconds", type=float, default=HURT_S, help="how long faults strike, simulated")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes to use")
    options = parser.parse_args(arguments)
    if (
        options.seeds < 1
        or options.workers < 1
        or min(options.nodes, options.replicas) < 0
        or options.seconds <= 0
    ):
        parser.error("--seeds and --workers are at least 1, --seconds more than 0")
    return options


def replay(plan: Plan, *, whole: bool, job: str) -> int:
    """Run one seed here, and tell its story. Returns the exit code; raises what went wrong."""
    trial = Trial(plan, Node, Story(whole=whole))
    try:
        passed = trial.run()
    except BaseException:
        tell(trial, job)
        raise
    if whole:
        tell(trial, job)
    struck = ", ".join(f"{count} {kind}" for kind, count in sorted(passed.strikes.items())) or "nothing"
    say(
        f"seed {passed.seed} passed: {passed.mood}, {passed.acknowledged} of {passed.jobs} jobs acknowledged,"
    )
    say(f"{passed.starts} starts, {passed.events} events in {passed.simulated_s:.1f} simulated seconds")
    say(f"struck: {struck}")
    say(f"trace: {passed.digest}")
    return 0


def tell(trial: Trial, job: str) -> None:
    say(f"faults as drawn: {trial.faults}")
    for line in trial.world.story.lines(job):
        say(line)


def run_one(plan: Plan) -> Passed:
    """In a worker process: raises what went wrong, with notes on how to see it again."""
    return Trial(plan, Node).run()


@dataclass(slots=True)
class Tally:
    """What all seeds so far have shown."""

    started: float
    total: int
    done: int = 0
    events: int = 0
    jobs: int = 0
    failed: list[int] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)

    def add(self, seed: int, outcome: Future[Passed]) -> None:
        self.done += 1
        error = outcome.exception()
        if error is not None:
            self.failed.append(seed)
            if len(self.failed) <= FAILURES_SHOWN:
                say(f"\nseed {seed} FAILED: {type(error).__name__}: {error}")
                say("\n".join(getattr(error, "__notes__", ())) or f"replay: make replay SEED={seed}")
            return
        passed = outcome.result()
        self.events += passed.events
        self.jobs += passed.acknowledged
        self.struck += passed.strikes

    def line(self) -> str:
        took = time.monotonic() - self.started
        return f"{self.done} of {self.total} seeds, {len(self.failed)} failed, {took:.0f} s"


def outcomes(plans: Iterable[Plan], workers: int) -> Iterator[tuple[int, Future[Passed]]]:
    with ProcessPoolExecutor(workers) as pool:
        futures = {pool.submit(run_one, plan): plan.seed for plan in plans}
        for future in as_completed(futures):
            yield futures.pop(future), future


def run_many(plans: list[Plan], workers: int) -> int:
    """Run all seeds and say how it went. Returns the exit code."""
    tally = Tally(time.monotonic(), len(plans))
    said = tally.started
    for seed, outcome in outcomes(plans, workers):
        tally.add(seed, outcome)
        if time.monotonic() - said >= PROGRESS_EVERY_S:
            said = time.monotonic()
            say(tally.line())
    say(f"\n{tally.line()}: {tally.jobs} jobs acknowledged, {tally.events} events")
    say("faults: " + (", ".join(f"{count} {kind}" for kind, count in sorted(tally.struck.items())) or "none"))
    if tally.failed:
        say(f"failing seeds: {' '.join(map(str, sorted(tally.failed)))}")
        say(f"replay: make replay SEED={min(tally.failed)}")
        return 1
    return 0


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    seeds = (
        [options.seed] if options.seed is not None else range(options.first, options.first + options.seeds)
    )
    plans = [
        Plan(seed, nodes=options.nodes, replicas=options.replicas, hurt_s=options.seconds) for seed in seeds
    ]
    if options.seed is not None:
        return replay(plans[0], whole=options.story, job=options.job)
    return run_many(plans, options.workers)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
