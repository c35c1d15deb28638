"""Queues with limits: some seeds set them, and what starts in those has to keep to them.

Where nothing goes wrong a limit is never passed, once it is known, and a paused queue starts nothing. Under
faults the sides of a cut have a limit each; but some time after healing it holds for all again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from edgenode.core.node import Node
from edgenode.core.signals import QueueAsked, QueueDone, Run
from edgenode.core.specs import Options, Spec
from edgenode.core.steward import LATE_S, SETTLE_S
from edgenode.core.types import FOREVER, JobId, Seconds, StartToken
from edgenode.sim.faults import Faults, Mood
from edgenode.sim.machines import Life
from edgenode.sim.requests import Answer
from edgenode.sim.violation import Violation
from edgenode.sim.world import World

SHARES: Final = {Mood.CALM: 0.6, Mood.CHURN: 0.6, Mood.STALLS: 0.3, Mood.HURT: 0.15}
"""Of the seeds, by mood: most where the law is strict; none of those that measure how soon a dead node's jobs
start again, since a limit may hold them up."""
NARROW, SLOW, CLOSED, KEY = "narrow", "slow", "closed", "customer"
KEY_LIMIT: Final = 2
FORMED_S: Final[Seconds] = 5.0
"""When those that were started together know each other, and nobody waits for one any more."""
HEALED_S: Final[Seconds] = 20.0
"""After healing: the dead are known to be dead, or have come back, and what ran too much is over."""
SLACK_S: Final[Seconds] = 0.3
"""What was given and not used at once may start so much later: tokens, and news of a pause."""


class Queueing:
    """What one seed does with queues, and the law that holds for them."""

    def __init__(self, world: World, faults: Faults, *, quick: bool) -> None:
        self._world = world
        self._dice = world.random("queues")
        self.is_on = self._dice.random() < SHARES.get(faults.mood, 0.0) and not quick
        self._is_faultless = faults.mood in (Mood.CALM, Mood.CHURN)
        self._healed_at: Seconds = FOREVER
        self._limit = self._dice.randint(2, 5)
        self._rate, self._burst = self._dice.choice((20.0, 50.0)), self._dice.choice((1, 5))
        self._known_at: dict[str, Seconds] = {}  # since when all know of a queue's settings
        self._running: dict[tuple[JobId, StartToken], Options] = {}
        self._slow_starts: list[Seconds] = []
        self.seen = 0  # starts that were held against a limit
        if self.is_on:
            world.on_begin.append(self._begins)

    def vary(self, spec: Spec) -> Spec:
        """The same, in some queue."""
        if not self.is_on:
            return spec
        options, chance = spec.options, self._dice.random()
        if chance < 0.2:
            options = replace(options, concurrency_key=KEY, concurrency_limit=KEY_LIMIT)
        else:
            queues = ((0.45, NARROW), (0.6, SLOW), (0.7, CLOSED))
            queue = next((queue for share, queue in queues if chance < share), options.queue)
            options = replace(options, queue=queue)
        return replace(spec, options=options)

    def begin(self, until: Seconds) -> None:
        """Set limits, and pause a queue for a while."""
        if not self.is_on:
            return
        dice, world = self._dice, self._world
        world.at(dice.uniform(1.6, until * 0.6), lambda: self._set(NARROW, concurrency=self._limit))
        world.at(dice.uniform(1.6, 2.0), lambda: self._set(SLOW, rate=self._rate, burst=self._burst))
        closes_at = dice.uniform(1.6, until * 0.5)
        world.at(closes_at, lambda: self._set(CLOSED, paused=True))
        world.at(dice.uniform(closes_at + 0.5, until), self._reopen)

    def heal(self) -> None:
        """Nothing more goes wrong, and nothing stays paused."""
        self._healed_at = self._world.now
        if self.is_on:
            self._reopen()

    def _set(
        self,
        queue: str,
        *,
        paused: bool | None = None,
        concurrency: int | None = None,
        rate: float | None = None,
        burst: int | None = None,
    ) -> None:
        lives = self._world.lives()
        if lives:
            change = (queue, paused, concurrency, rate, burst, 2.0)
            self._ask(self._dice.choice(lives), queue, change)

    def _ask(
        self,
        life: Life,
        queue: str,
        change: tuple[str, bool | None, int | None, float | None, int | None, float],
    ) -> None:
        def answered(answer: Answer) -> None:
            assert isinstance(answer, QueueDone)
            if answer.error is None and answer.known == answer.living and change[1] is not False:
                self._known_at[queue] = self._world.now

        self._known_at.pop(queue, None)
        self._world.ask(life, lambda request: QueueAsked(request, *change), answered)

    def _reopen(self) -> None:
        """Resume wherever it is known to be paused, until it is nowhere."""
        self._known_at.pop(CLOSED, None)
        shut = [life for life in self._world.lives() if _is_closed(life)]
        for life in shut[:1]:
            self._ask(life, CLOSED, (CLOSED, False, None, None, None, 2.0))
        if shut or self._world.now < self._healed_at + HEALED_S < FOREVER:
            self._world.after(1.0, self._reopen)

    # ------------------------------------------------------------------------------------- the law

    def _begins(self, life: Life, effect: Run) -> None:
        """A start of a job begins now."""
        now, options = self._world.now, effect.spec.options
        self._running[effect.job, effect.token] = options
        is_formed = now > FORMED_S and self._is_faultless
        if not (is_formed or now > self._healed_at + HEALED_S):
            return
        if options.concurrency_key == KEY:
            count = sum(other.concurrency_key == KEY for other in self._running_now())
            self._check(count <= KEY_LIMIT, f"{count} jobs of one key run at a time, not {KEY_LIMIT}")
        known_at = self._known_at.get(options.queue, FOREVER)
        if now < known_at + SETTLE_S + SLACK_S:
            return
        if options.queue == NARROW:
            count = sum(other.queue == NARROW for other in self._running_now())
            self._check(count <= self._limit, f"{count} jobs of a queue run at a time, not {self._limit}")
        elif options.queue == CLOSED:
            self._check(False, f"a job of a queue starts that was paused at {known_at:.3f} s")
        elif options.queue == SLOW:
            self._check_rate(now)

    def _check_rate(self, now: Seconds) -> None:
        """In no stretch of time up to now there were too many."""
        starts = self._slow_starts
        starts.append(now)
        ahead = self._burst + self._rate * (LATE_S + SLACK_S)
        for place, since in enumerate(starts):
            count, most = len(starts) - place, ahead + 1.1 * self._rate * (now - since)
            self._check(
                count <= most, f"{count} jobs of a queue start in {now - since:.3f} s, not {most:.1f}"
            )

    def _running_now(self) -> Iterator[Options]:
        for (job, token), options in list(self._running.items()):
            start = self._world.ledger.starts[job].get(token)
            if start is None or start.over:
                del self._running[job, token]
            else:
                yield options

    def _check(self, holds: bool, what: str) -> None:
        self.seen += 1
        if not holds:
            raise Violation(f"Q: {what}")


def _is_closed(life: Life) -> bool:
    return isinstance(life.core, Node) and CLOSED in life.core.queues.paused
