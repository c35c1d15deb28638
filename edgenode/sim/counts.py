"""How many jobs of each queue nodes tell of, when somebody asks.

named      a queue is told of that some job is in
bounded    where nothing goes wrong no more jobs are counted than there may be, and no fewer than there must
nothing    what has ended is counted nowhere, in the end
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edgenode.core.signals import CountAsked, CountDone
from edgenode.core.types import JobId, Seconds, StartToken
from edgenode.sim.disk import record_of
from edgenode.sim.faults import Faults, Mood, times
from edgenode.sim.machines import Life
from edgenode.sim.requests import Answer
from edgenode.sim.story import short
from edgenode.sim.violation import Violation
from edgenode.sim.world import World

SHARE: Final = 0.5
FORMED_S: Final[Seconds] = 2.0
ANSWER_S: Final[Seconds] = 2.0
WRITTEN_S: Final[Seconds] = 0.2
"""After so long what has ended where nothing goes wrong is on some disk."""
OVER_S: Final[Seconds] = 30.0
"""How long after all has ended a node may count some of it yet: whoever it was cut off from tells it."""
Running = frozenset[tuple[JobId, StartToken]]


@dataclass(frozen=True, slots=True)
class Moment:
    """How things were when somebody asked."""

    taken: frozenset[JobId]  # acknowledged
    finished: frozenset[JobId]
    running: Running


class Counts:
    """Those who ask, in one run, and what they may be told."""

    def __init__(self, world: World, faults: Faults, *, off: bool) -> None:
        self._world = world
        self._dice = world.random("counts")
        self.is_on = self._dice.random() < SHARE and not off
        self._is_calm = faults.mood is Mood.CALM
        self.seen = 0  # answers that were held against what must and may be

    def begin(self, until: Seconds) -> None:
        """Ask any node now and then, until then."""
        for _ in range(self._dice.randint(2, 8) * times(until) if self.is_on else 0):
            self._world.at(self._dice.uniform(FORMED_S, until), self._ask)

    def _ask(self) -> None:
        lives = self._world.lives()
        if not lives:
            return
        life, asked = self._dice.choice(lives), self._now()

        def answered(answer: Answer) -> None:
            assert isinstance(answer, CountDone)
            self._check_names(life, answer)
            if self._is_calm:
                running = asked.running & self._now().running
                submitted = set(self._world.ledger.specs)
                self._world.after(
                    WRITTEN_S, lambda: self._check_bounds(life, answer, asked, running, submitted)
                )

        self._world.ask(life, lambda request: CountAsked(request, ANSWER_S), answered)

    def _now(self) -> Moment:
        ledger = self._world.ledger
        running = {
            (job, token)
            for job, starts in ledger.starts.items()
            for token, start in starts.items()
            if not start.over
        }
        return Moment(frozenset(ledger.acked), frozenset(ledger.finished), frozenset(running))

    # ------------------------------------------------------------------------------------- the law

    def _check_names(self, life: Life, told: CountDone) -> None:
        queues = {spec.options.queue for spec in self._world.ledger.specs.values()}
        for queue, (queued, running) in told.counts.items():
            if queue not in queues or queued < 0 or running < 0:
                raise Violation(f"Q: {short(life.id)} counts {queued} and {running} jobs in {queue!r}")

    def _check_bounds(
        self, life: Life, told: CountDone, asked: Moment, running: Running, submitted: Iterable[JobId]
    ) -> None:
        """
        Args:
            running: starts that ran all the time from the question to its answer.
            submitted: what existed at most when it was answered.
        """
        ledger = self._world.ledger
        least_running = self._by_queue(job for job, _ in running)
        waiting = (job for job in asked.taken - ledger.finished if self._waits_for_nothing_else(job))
        # One that was cancelled runs until its task has heard of that.
        over = asked.finished - {job for job, _ in asked.running}
        least, most = self._by_queue(waiting), self._by_queue(set(submitted) - over)
        for queue in {*least_running, *least, *told.counts}:
            queued, started = told.counts.get(queue, (0, 0))
            self.seen += 1
            if started < least_running[queue] or not least[queue] <= queued + started <= most[queue]:
                raise Violation(
                    f"Q: {short(life.id)} counts {queued} that wait and {started} that run in {queue!r}, "
                    f"of {least[queue]} to {most[queue]}, of which {least_running[queue]} run"
                )

    def _waits_for_nothing_else(self, job: JobId) -> bool:
        """Whether it is in its line or runs, all the time: it has no day, and never paused."""
        ledger = self._world.ledger
        has_failed = any(start.over for start in ledger.starts[job].values())
        return not (ledger.specs[job].options.run_at or has_failed)

    def _by_queue(self, jobs: Iterable[JobId]) -> Counter[str]:
        return Counter(self._world.ledger.specs[job].options.queue for job in jobs)

    def demand(self) -> None:
        """After the end: nobody counts more than what is unfinished on some disk.

        Raises:
            Violation: somebody does, for long.
        """
        if not self.is_on:
            return
        world, wrong = self._world, {life: "no answer" for life in self._world.lives()}

        def hear(life: Life, answer: Answer) -> None:
            assert isinstance(answer, CountDone)
            there = self._by_queue(self._unfinished())
            total = {queue: sum(counts) for queue, counts in answer.counts.items()}
            more = {queue: count for queue, count in total.items() if count > there[queue]}
            wrong.pop(life, None)
            if more:
                wrong[life] = f"{more} of {dict(there)}"

        def ask() -> None:
            for life in [life for life in wrong if life.alive]:
                world.ask(
                    life,
                    lambda request: CountAsked(request, ANSWER_S),
                    lambda answer, life=life: hear(life, answer),  # type: ignore[misc]
                )
            if wrong:
                world.after(1.0, ask)

        ask()
        if not world.run_until(world.now + OVER_S, lambda: not any(life.alive for life in wrong)):
            told = "; ".join(f"{short(life.id)} counts {what}" for life, what in wrong.items() if life.alive)
            raise Violation(f"Q: {OVER_S:.0f} s after all has ended {told}")

    def _unfinished(self) -> set[JobId]:
        rows = (stored.row for disk in self._world.disks.values() for stored in disk.rows.values())
        records = (record for row in rows if (record := record_of(row)) is not None)
        return {record.id for record in records if record.outcome is None}
