"""People who use idempotency keys: at many nodes, at once and again, and sometimes for something else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from edgenode.core.errors import KeyReused
from edgenode.core.job_ids import keyed_job_id
from edgenode.core.signals import Receipt, SubmitAsked, SubmitDone
from edgenode.core.specs import DAY_S, UNFINISHED_DAYS, Options, Spec
from edgenode.core.types import JobId, Seconds
from edgenode.sim.clients import MANNERS, options
from edgenode.sim.clock import EPOCH
from edgenode.sim.machines import Life
from edgenode.sim.requests import Answer
from edgenode.sim.violation import Violation
from edgenode.sim.workers import TASK, payload
from edgenode.sim.world import World

KEYED_CHANCE: Final = 0.6
KEYS_MAX: Final = 6
MIXED_CHANCE: Final = 0.5
"""The share of those seeds in which keyed jobs are in batches, too."""
TRIES: Final = 5
CONTENT: Final = "this"
OTHER: Final = "something else"
STEP_S: Final[Seconds] = 1e-5
REPEATED_AT: Final = 2
"""At how many nodes each key is used again when all is well."""

Told = Callable[[Receipt], None]


@dataclass(frozen=True, slots=True)
class Key:
    """One key, and what is submitted under it."""

    name: str
    options: Options
    lasts_s: Seconds

    @property
    def job(self) -> JobId:
        return keyed_job_id(self.name)

    def spec(self, content: str, now: Seconds) -> Spec:
        """A submission, as an entry node makes it now: every one has its own day."""
        manner = MANNERS[0]
        return Spec(
            self.job,
            TASK,
            payload(manner, self.lasts_s + (content == OTHER) / 1000),
            EPOCH + now,
            EPOCH + now + UNFINISHED_DAYS * DAY_S,
            replace(self.options, key=self.name, fingerprint=content),
        )


class KeyedClients:
    """The users of all keys of one run. Who gets no answer, or an uncertain one, tries another node."""

    def __init__(self, world: World, *, disks: int, earliest_s: Seconds, off: bool) -> None:
        self._world = world
        self._disks = disks
        self._earliest_s = earliest_s
        self._dice: Random = world.random("keys")
        count = self._dice.randint(1, KEYS_MAX) if self._dice.random() < KEYED_CHANCE and not off else 0
        self.keys = [self._draw(f"key {number}") for number in range(count)]
        self._mixer = world.random("keys in batches")
        self._is_mixed = self._mixer.random() < MIXED_CHANCE

    def _draw(self, name: str) -> Key:
        lasts_s = self._dice.choice((0.01, 0.2, 1.0, 3.0)) * self._dice.uniform(0.5, 1.0)
        return Key(name, options(self._dice, 0.0, 0.0, disks=self._disks), lasts_s)

    def begin(self, until: Seconds, moments: Sequence[Seconds]) -> None:
        """Use every key a few times until then: some also before any two nodes have met.

        Args:
            moments: when something befalls the mesh. Half of the keys are used first just then.
        """
        dice = self._dice
        for key in self.keys:
            latest_s = until * dice.choice((0.2, 0.8))
            begins = dice.uniform(self._earliest_s, max(self._earliest_s, latest_s))
            if moments and dice.random() < 0.5:
                begins = max(self._earliest_s, dice.choice(moments) + dice.uniform(-0.1, 0.5))
            self._world.story.name(key.job)
            self._world.at(begins, self._user(key, CONTENT))
            for _ in range(dice.randint(1, 5)):
                content = CONTENT if dice.random() < 0.7 else OTHER
                later_s = dice.choice((0.0, 0.0, dice.uniform(0.0, 0.1), dice.uniform(0.0, until)))
                self._world.at(min(until, begins + later_s), self._user(key, content))

    def some(self) -> tuple[Spec, ...]:
        """Uses of keys that go into a batch beside other jobs."""
        dice, now = self._mixer, self._world.now
        if not (self._is_mixed and self.keys) or now < self._earliest_s or dice.random() < 0.5:
            return ()
        keys = dice.sample(self.keys, dice.randint(1, len(self.keys)))
        contents = [CONTENT if dice.random() < 0.7 else OTHER for _ in keys]
        uses = zip(keys, contents, strict=True)
        return tuple(unlike_any(self._world, key.spec(content, now)) for key, content in uses)

    def _user(self, key: Key, content: str) -> Callable[[], None]:
        return lambda: self._submit(key, content, TRIES)

    def _submit(self, key: Key, content: str, tries: int) -> None:
        lives = self._world.lives()

        def again() -> None:
            if tries > 0:
                pause_s = self._dice.uniform(0.05, 1.0)
                self._world.after(pause_s, lambda: self._submit(key, content, tries - 1))

        def told(receipt: Receipt) -> None:
            if receipt.error is not None and not isinstance(receipt.error, KeyReused):
                again()

        if lives:
            patience_s = self._dice.choice((0.5, 2.0, 10.0))
            submit(
                self._world,
                self._dice.choice(lives),
                key.spec(content, self._world.now),
                patience_s,
                told,
                again,
            )
        else:
            again()


def submit(
    world: World, life: Life, spec: Spec, patience_s: Seconds, told: Told, silent: Callable[[], None]
) -> None:
    """Submit something under a key. Exactly one of the two is called: `told` with the receipt, or `silent`
    when none has come in time (it may still come, and nobody is interested)."""
    spec = unlike_any(world, spec)
    world.ledger.submitted((spec,))
    waiting = True

    def answered(answer: Answer) -> None:
        nonlocal waiting
        assert isinstance(answer, SubmitDone)
        (receipt,) = answer.receipts
        if waiting:
            waiting = False
            told(receipt)

    def give_up() -> None:
        nonlocal waiting
        if waiting:
            waiting = False
            silent()

    world.ask(life, lambda request: SubmitAsked(request, (spec,), patience_s), answered)
    world.after(patience_s + 0.5, give_up)


def unlike_any(world: World, spec: Spec) -> Spec:
    """Two submissions of one moment are two all the same: what becomes of one says nothing of the other."""
    while world.ledger.was_submitted(spec):
        spec = replace(spec, submitted_at=spec.submitted_at + STEP_S)
    return spec


class Repetition:
    """All is well, and the keys are used again: each is answered with its job, or refused for other content,
    and nothing starts."""

    def __init__(self, world: World, jobs: Iterable[JobId]) -> None:
        self._world = world
        self._dice = world.random("repetition")
        self._wanted: set[tuple[JobId, str]] = set()
        self._starts = {job: len(world.ledger.starts[job]) for job in jobs}
        for job in self._starts:
            content = world.ledger.keys.content(job)
            for used in (content, f"not {content}"):
                for _ in range(REPEATED_AT):
                    self._use(job, used)

    def _use(self, job: JobId, content: str) -> None:
        lives = [life for life in self._world.lives() if not life.leaving]
        if not lives:
            return
        self._wanted.add((job, content))
        first = self._world.ledger.specs[job]
        spec = replace(
            first,
            submitted_at=EPOCH + self._world.now,
            expires_at=EPOCH + self._world.now + UNFINISHED_DAYS * DAY_S,
            options=replace(first.options, fingerprint=content),
        )

        def told(receipt: Receipt) -> None:
            if job in self._world.ledger.keys.excused:
                return
            is_same = content == self._world.ledger.keys.content(job)
            is_refused = isinstance(receipt.error, KeyReused)
            if is_refused if not is_same else receipt.error is None and receipt.replayed:
                self._wanted.discard((job, content))
            elif receipt.error is None:
                raise Violation(f"I11: {self._name(job)} is taken anew, for {content}")
            else:
                again()

        def again() -> None:
            self._world.after(0.5, lambda: self._use(job, content))

        submit(self._world, self._dice.choice(lives), spec, 5.0, told, again)

    def is_over(self) -> bool:
        """Whether each was answered as it should.

        Raises:
            Violation: a job has started again.
        """
        excused = self._world.ledger.keys.excused
        for job, before in self._starts.items():
            if len(self._world.ledger.starts[job]) != before and job not in excused:
                raise Violation(f"I11: {self._name(job)} starts again when its key is used again")
        return all(job in excused for job, _ in self._wanted)

    def unanswered(self) -> str:
        return "; ".join(f"{self._name(job)} for {content}" for job, content in sorted(self._wanted))

    def _name(self, job: JobId) -> str:
        return self._world.story.name(job)
