"""People who use the mesh while it hurts: they submit, remember each receipt, and read what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Final

from edgenode.core.job_ids import is_keyed, make_job_id
from edgenode.core.jobs import Record
from edgenode.core.signals import (
    CancelAsked,
    InspectAsked,
    ReadAsked,
    ReadDone,
    SearchAsked,
    SubmitAsked,
    SubmitDone,
)
from edgenode.core.specs import Options, Spec
from edgenode.core.types import TERMINAL, Backoff, Delivery, JobId, Partition, Seconds, Wall
from edgenode.core.wire import Query
from edgenode.sim.clock import EPOCH
from edgenode.sim.days import Days
from edgenode.sim.faults import Faults, times
from edgenode.sim.machines import Life
from edgenode.sim.requests import Answer
from edgenode.sim.workers import TASK, Manner, payload
from edgenode.sim.world import World

BATCH_MAX: Final = 20
READS_EVERY_S: Final = 0.5
CANCELLERS: Final = 0.4
"""The share of seeds in which clients cancel jobs."""
MANNERS: Final = (Manner.GOOD,) * 15 + (Manner.FLAKY, Manner.FRAGILE) * 2 + (Manner.BAD, Manner.QUITTING)

Show = Callable[[Life, Record], None]


class Clients:
    """All clients of one run. They talk to random nodes, as behind a load balancer without health checks."""

    def __init__(
        self,
        world: World,
        faults: Faults,
        days: Days,
        vary: Callable[[Spec], Spec] = lambda spec: spec,
        more: Callable[[], tuple[Spec, ...]] = lambda: (),
    ) -> None:
        """
        Args:
            vary: puts a job into a queue, say, or has it ask for a pause.
            more: uses of keys, to go into a batch beside what these clients have.
        """
        self._world = world
        self._days = days
        self._vary = vary
        self._more = more
        self._faults = faults
        self._dice = world.random("clients")
        self._poison_left = 1 if faults.poison else 0
        # Short jobs meet the faults at their end, long ones while they run.
        self._longest_s = self._dice.choice((0.02, 0.2, 1.0, 1.0))
        self.jobs: list[JobId] = []
        self.unanswered = 0  # submissions without an answer (yet)
        self.refusals = 0

    def begin(self, until: Seconds, *, since: Seconds = 0.6) -> None:
        """Submit and read until then; the first nodes may not have met before `since`."""
        for _ in range(self._dice.randint(2, 7) * times(until)):
            self._world.at(self._dice.uniform(since, max(since + 0.1, until * 0.9)), self._submit)
        self._world.at(1.0, lambda: self._read_on(until))
        dice = self._world.random("cancels")
        if dice.random() < CANCELLERS:
            for _ in range(dice.randint(1, 8) * times(until)):
                self._world.at(dice.uniform(since, until), lambda: self._cancel(dice))

    # ------------------------------------------------------------------------------ submitting

    def _submit(self, tries: int = 3) -> None:
        lives = self._world.lives()
        if not lives:
            if tries > 0:
                self._world.after(1.0, lambda: self._submit(tries - 1))
            return
        life = self._dice.choice(lives)
        specs = tuple(self._spec(life) for _ in range(self._dice.randint(1, BATCH_MAX)))
        self.jobs.extend(spec.id for spec in specs)
        for spec in specs:
            self._world.story.name(spec.id)
        specs += self._more()
        self._world.ledger.submitted(specs)
        self.unanswered += 1
        timeout_s = self._dice.choice((1.0, 5.0, 10.0))

        def answered(answer: Answer) -> None:
            assert isinstance(answer, SubmitDone)
            self.unanswered -= 1
            refused = [receipt for receipt in answer.receipts if receipt.error is not None]
            self.refusals += len(refused)
            anew = [receipt for receipt in refused if not is_keyed(receipt.job)]
            if tries > 0 and any(receipt.error is not None and receipt.error.definite for receipt in anew):
                self._world.after(0.5, lambda: self._submit(tries - 1))

        self._world.ask(life, lambda request: SubmitAsked(request, specs, timeout_s), answered)

    def _spec(self, life: Life) -> Spec:
        dice, now = self._dice, self._world.now
        wall = life.machine.clock.wall(now)
        manner = dice.choice(MANNERS)
        if self._poison_left and dice.random() < 0.1:
            self._poison_left -= 1
            manner = Manner.POISON
        exact, later = self._faults.exact_clocks, dice.random() < 0.1
        run_at = EPOCH + now + dice.uniform(0.0, 3.0) if exact and later else 0.0
        hurried = exact and dice.random() < 0.1
        deadline = max(EPOCH + now, run_at) + dice.uniform(0.5, 4.0) if hurried else 0.0
        said = options(dice, run_at, deadline, disks=self._faults.disks)
        spec = Spec(
            make_job_id(wall, dice.randbytes(10)),
            TASK,
            payload(manner, dice.uniform(0.01, self._longest_s)),
            wall,
            # The API makes it by the mesh's time.
            max(EPOCH + now, run_at) + self._days.lasts_s(dice),
            replace(said, ttl_s=self._days.ttl_s(dice)),
        )
        return self._vary(spec)

    # -------------------------------------------------------------------------------- cancelling

    def _cancel(self, dice: Random) -> None:
        """Read a job, and ask for its end where it is said to be. (With a key there may be two of it.)"""
        lives, jobs = self._world.lives(), [job for job in self.jobs if not is_keyed(job)]
        if not lives or not jobs:
            return
        life, job, timeout_s = dice.choice(lives), dice.choice(jobs[-30:]), dice.choice((0.5, 2.0, 5.0))

        def answered(answer: Answer) -> None:
            assert isinstance(answer, ReadDone)
            record = answer.records.get(job)
            if record is None or record.state in TERMINAL or not life.alive:
                return
            self._world.ledger.cancel_asked(job)
            wish = ((job, record.holders),)
            self._world.ask(life, lambda request: CancelAsked(request, wish, timeout_s), _nothing)

        self._world.ask(life, lambda request: ReadAsked(request, (job,), 0.0, 3.0), answered)

    # --------------------------------------------------------------------------------- reading

    def _read_on(self, until: Seconds) -> None:
        lives = self._world.lives()
        if lives and self.jobs:
            life = self._dice.choice(lives)
            chance = self._dice.random()
            if chance < 0.1:
                self._search(life)
            elif chance < 0.2:
                self._inspect(life)
            else:
                self._read(life)
        if self._world.now < until:
            self._world.after(READS_EVERY_S * self._dice.uniform(0.2, 1.8), lambda: self._read_on(until))

    def _read(self, life: Life) -> None:
        some = tuple(self._dice.sample(self.jobs, min(len(self.jobs), 8)))
        wait_s = self._dice.choice((0.0, 0.0, 2.0))
        self._world.ask(life, lambda request: ReadAsked(request, some, wait_s, 3.0), _nothing)

    def _search(self, life: Life) -> None:
        query = Query("", "", "", b"", 50)
        self._world.ask(life, lambda request: SearchAsked(request, query, 2.0), _nothing)

    def _inspect(self, life: Life) -> None:
        job = self._dice.choice(self.jobs)
        self._world.ask(life, lambda request: InspectAsked(request, job, 2.0), _nothing)


def options(dice: Random, run_at: Wall, deadline: Wall, *, disks: int) -> Options:
    """A mixture of what people may say of a job.

    Args:
        disks: on how many it may be: the API refuses what asks for more.
    """
    once = dice.random() < 0.15
    return Options(
        priority=dice.randint(0, 9),
        run_at=run_at,
        deadline=deadline,
        acks=min(dice.choice((0, 0, 0, 1, 2, 3)), disks),
        max_attempts=1 if once else dice.randint(1, 4),
        max_losses=dice.randint(1, 4),
        delivery=Delivery.AT_MOST_ONCE if once else Delivery.AT_LEAST_ONCE,
        partition=Partition.WAIT if dice.random() < 0.15 else Partition.RUN,
        backoff=Backoff("constant", base_s=dice.uniform(0.05, 0.5)),
    )


def _nothing(answer: Answer) -> None:
    """The ledger has checked it already: nobody else is interested."""


def read_everywhere(world: World, wanted: dict[Life, set[JobId]], show: Show) -> None:
    """Every node in `wanted` is asked for its jobs; `show` gets each record that comes."""
    for life, jobs in wanted.items():
        if jobs and life.alive:
            _read_at(world, life, tuple(sorted(jobs)), show)


def _read_at(world: World, life: Life, jobs: tuple[JobId, ...], show: Show) -> None:
    def answered(answer: Answer) -> None:
        assert isinstance(answer, ReadDone)
        for record in answer.records.values():
            show(life, record)

    world.ask(life, lambda request: ReadAsked(request, jobs, 0.0, 3.0), answered)
