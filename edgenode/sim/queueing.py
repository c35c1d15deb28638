"""Queues with limits: some seeds set them, and what starts in those has to keep to them.

Where nothing goes wrong a limit is never passed, once it is known, and a paused queue starts nothing. Under
faults the sides of a cut have a limit each; but some time after healing it holds for all again.

In most of those seeds limits are changed and reset, too. Then under faults two sides may have changed one, or
a node that stood still may hear of a wish late: nothing is said of how fast it goes. But in the end all nodes
say the same of every queue; and where nothing went wrong, what was set last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from edgenode.core.node import Node
from edgenode.core.signals import QueueAsked, QueueDone, Run
from edgenode.core.specs import Options, Spec
from edgenode.core.steward import LATE_S, SETTLE_S
from edgenode.core.types import FOREVER, JobId, Seconds, StartToken
from edgenode.core.wire import QueueItem
from edgenode.sim.faults import Faults, Mood
from edgenode.sim.machines import Life
from edgenode.sim.requests import Answer
from edgenode.sim.story import short
from edgenode.sim.violation import Violation
from edgenode.sim.world import World

SHARES: Final = {Mood.CALM: 0.6, Mood.CHURN: 0.6, Mood.STALLS: 0.3, Mood.HURT: 0.15}
"""Of the seeds, by mood: most where the law is strict; none of those that measure how soon a dead node's jobs
start again, since a limit may hold them up."""
CHANGING: Final = 0.7
"""The share of those in which limits are changed."""
AGREED_S: Final[Seconds] = 120.0
"""When all say the same: whoever missed a change finds out by comparing, with one of the others at a time."""
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
        self._changes = world.random("changes of queues")
        self.is_changing = self.is_on and self._changes.random() < CHANGING
        self._asked: Counter[str] = Counter()  # how often something was set
        self._unanswered: Counter[str] = Counter()
        self._known: dict[str, tuple[Seconds, QueueItem]] = {}  # since when all know of a queue's settings
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
        if self.is_changing:
            for _ in range(self._changes.randint(1, 5)):
                world.at(self._changes.uniform(FORMED_S, until), self._change)

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

    def _change(self) -> None:
        """Give a queue another limit; or none, as if it had never had one."""
        dice = self._changes
        queue, is_reset = dice.choice((NARROW, SLOW)), dice.random() < 0.3
        if is_reset:
            self._set(queue, paused=False, concurrency=0, rate=0.0, burst=0)
        elif queue == NARROW:
            self._set(NARROW, concurrency=dice.randint(1, 6))
        else:
            self._set(SLOW, rate=dice.choice((10.0, 20.0, 50.0)), burst=dice.choice((1, 5)))

    def _ask(
        self,
        life: Life,
        queue: str,
        change: tuple[str, bool | None, int | None, float | None, int | None, float],
    ) -> None:
        def answered(answer: Answer) -> None:
            assert isinstance(answer, QueueDone)
            self._unanswered[queue] -= 1
            is_known = answer.error is None and answer.known == answer.living
            if is_known and not self._unanswered[queue] and answer.item is not None:
                self._known[queue] = self._world.now, answer.item
                if queue == SLOW:
                    self._slow_starts.clear()

        self._known.pop(queue, None)
        self._asked[queue] += 1
        self._unanswered[queue] += 1
        self._world.ask(life, lambda request: QueueAsked(request, *change), answered)

    def _reopen(self) -> None:
        """Resume wherever it is known to be paused, until it is nowhere."""
        self._known.pop(CLOSED, None)
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
        known_at, item = self._known.get(options.queue, (FOREVER, None))
        if item is None or now < known_at + SETTLE_S + SLACK_S or not self._is_sure(options.queue):
            return
        if item.concurrency:
            count = sum(other.queue == options.queue for other in self._running_now())
            self._check(
                count <= item.concurrency, f"{count} jobs of a queue run at a time, not {item.concurrency}"
            )
        if item.paused:
            self._check(False, f"a job of a queue starts that was paused at {known_at:.3f} s")
        if item.rate:
            self._check_rate(now, item)

    def _is_sure(self, queue: str) -> bool:
        """Whether what all knew is what they know."""
        return self._is_faultless or queue == CLOSED or self._asked[queue] == 1

    def _check_rate(self, now: Seconds, item: QueueItem) -> None:
        """In no stretch of time up to now there were too many."""
        starts = self._slow_starts
        starts.append(now)
        ahead = max(1, item.burst) + item.rate * (LATE_S + SLACK_S)
        for place, since in enumerate(starts):
            count, most = len(starts) - place, ahead + 1.1 * item.rate * (now - since)
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

    def demand(self) -> None:
        """After the end all say the same of every queue.

        Raises:
            Violation: they don't; or nothing went wrong, and it is not what was set last.
        """
        world = self._world
        if not self.is_on:
            return
        if not world.run_until(world.now + AGREED_S, lambda: len(set(self._told().values())) <= 1):
            raise Violation(f"Q: {AGREED_S:.0f} s after all has ended nodes differ: {self._told()}")
        for name, told in self._told().items():
            for queue, (_, item) in self._known.items():
                if self._is_faultless and item not in told:
                    raise Violation(f"Q: {name} does not know {item} of {queue}, but {told}")

    def _told(self) -> dict[str, tuple[QueueItem, ...]]:
        """What every node says of all queues."""
        cores = ((short(life.id), life.core) for life in self._world.lives())
        return {name: tuple(core.queues.all()) for name, core in cores if isinstance(core, Node)}

    def _check(self, holds: bool, what: str) -> None:
        self.seen += 1
        if not holds:
            raise Violation(f"Q: {what}")


def _is_closed(life: Life) -> bool:
    return isinstance(life.core, Node) and CLOSED in life.core.queues.paused
