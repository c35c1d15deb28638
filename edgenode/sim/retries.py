"""People who have what ended badly tried again: one job, or all that a node lists; and at two nodes at once.

    one    however often and wherever the retry of a job is asked, there is one (keylaw: its id is a key's)
    kept   the job that it tries again stays as it ended, with the history of its failures

Only in some seeds, from a source of chance of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from edgenode.core.job_ids import job_text, retry_id
from edgenode.core.jobs import HISTORY_MAX, Note, Record, is_marker
from edgenode.core.scheduler import ATTEMPT_FAILED
from edgenode.core.signals import ReadAsked, ReadDone, SearchAsked, SearchDone, SubmitAsked, SubmitDone
from edgenode.core.specs import DAY_S, UNFINISHED_DAYS, Spec, decode_spec
from edgenode.core.types import JobId, Seconds, State
from edgenode.core.wire import Query
from edgenode.sim.clock import EPOCH
from edgenode.sim.faults import times
from edgenode.sim.keyed import unlike_any
from edgenode.sim.machines import Life
from edgenode.sim.requests import Answer
from edgenode.sim.story import short
from edgenode.sim.violation import Violation
from edgenode.sim.world import World

SHARE: Final = 0.4
ENDED_BADLY: Final = (State.FAILED, State.CANCELLED, State.EXPIRED)
FILTERS: Final = (State.FAILED, State.FAILED, State.EXPIRED, State.CANCELLED)
ASKED_MAX: Final = 50
READ_S: Final[Seconds] = 3.0


class Retries:
    """All who want something tried again, in one run.

    Args:
        jobs: what clients have submitted; the retries come to it.
        earliest_s: before this nobody uses keys.
    """

    def __init__(self, world: World, jobs: list[JobId], *, earliest_s: Seconds, off: bool) -> None:
        self._world = world
        self._jobs = jobs
        self._earliest_s = earliest_s
        self._dice = world.random("retries")
        self.is_on = self._dice.random() < SHARE and not off
        self.tried_again: dict[JobId, Record] = {}
        """As each was shown to who then asked for its retry, first."""

    def begin(self, until: Seconds) -> None:
        """Ask now and then, until then."""
        dice = self._dice
        for _ in range(dice.randint(3, 10) * times(until) if self.is_on else 0):
            ask = self._many if dice.random() < 0.5 else self._one
            self._world.at(dice.uniform(self._earliest_s, until), ask)

    def _lives(self) -> list[Life]:
        """One node that is asked, or two at once."""
        lives = self._world.lives()
        return self._dice.sample(lives, min(len(lives), self._dice.choice((1, 1, 2))))

    def _one(self) -> None:
        """Whatever a job that came up lately is said to be, its retry is asked for if it ended badly."""
        if self._jobs:
            job = self._dice.choice(self._jobs[-60:])
            for life in self._lives():
                self._read(life, (job,))

    def _many(self) -> None:
        """All that a node lists in a state are read there, and tried again in one batch."""
        query = Query(self._dice.choice(FILTERS), "", "", b"", ASKED_MAX)
        for life in self._lives():

            def answered(answer: Answer, life: Life = life) -> None:
                assert isinstance(answer, SearchDone)
                if life.alive:
                    self._read(life, [record.id for record in answer.records])

            self._world.ask(life, lambda request: SearchAsked(request, query, READ_S), answered)

    def _read(self, life: Life, jobs: Sequence[JobId]) -> None:
        def answered(answer: Answer) -> None:
            assert isinstance(answer, ReadDone)
            if life.alive:
                self._retry(life, answer.records.values())

        if jobs:
            asked = tuple(jobs)
            self._world.ask(life, lambda request: ReadAsked(request, asked, 0.0, READ_S), answered)

    def _retry(self, life: Life, records: Iterable[Record]) -> None:
        """As the API does: who has the record of a job makes that of its retry."""
        world = self._world
        ended = [each for each in records if each.state in ENDED_BADLY and not is_marker(each)]
        specs = tuple(unlike_any(world, again(record, world.now)) for record in ended)
        if not specs:
            return
        for record, spec in zip(ended, specs, strict=True):
            world.story.name(spec.id)
            self.tried_again.setdefault(record.id, record)
            if spec.id not in self._jobs:
                self._jobs.append(spec.id)
        world.ledger.submitted(specs)
        timeout_s = self._dice.choice((0.5, 5.0))
        world.ask(life, lambda request: SubmitAsked(request, specs, timeout_s), _answered)

    # ------------------------------------------------------------------------------------- the law

    def check(self) -> None:
        """After the end: what was settled when it was tried again is as it was, and its failures are told.

        Raises:
            Violation: a disk has it otherwise. (What it was told as, the ledger has seen.)
        """
        for job, before in self.tried_again.items():
            if not before.settled or job in self._world.ledger.keys.excused:
                continue
            for place, disk in self._world.disks.items():
                now = disk.record(job)
                if now is None or not now.settled or (is_marker(now) and _is_short_lived(now)):
                    continue
                is_whole = len(now.history) >= HISTORY_MAX or _failures(now) >= _failures(before)
                if now.state is not before.state or not is_whole:
                    raise Violation(
                        f"I4: {short(place)} has {job_text(job)} otherwise than when it was retried"
                    )


def again(record: Record, now: Seconds) -> Spec:
    """The retry of a job: its work and what was said of it, but for its days."""
    old = decode_spec(record.spec)
    options = replace(
        old.options,
        run_at=0.0,
        deadline=0.0,
        key="",
        retry_of=job_text(record.id),
        fingerprint=f"{old.options.fingerprint} again",
    )
    day = EPOCH + now + UNFINISHED_DAYS * DAY_S
    return Spec(retry_id(record.id), old.task, old.payload, EPOCH + now, day, options)


def _is_short_lived(record: Record) -> bool:
    """Whether soon nothing is left of it but a marker."""
    return decode_spec(record.spec).options.ttl_s < DAY_S


def _failures(record: Record) -> set[Note]:
    return {note for note in record.history if note.kind == ATTEMPT_FAILED}


def _answered(answer: Answer) -> None:
    """The ledger has checked it already. Who is not sure asks again some time."""
    assert isinstance(answer, SubmitDone)
