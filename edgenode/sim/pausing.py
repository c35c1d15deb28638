"""When a failed attempt is tried again: not before its pause is over, and no pause is longer than was agreed.

    agreed     the pause that an owner notes is what the task asked for, else what the job's backoff allows
    kept       who knows of a failure begins the next start after its pause, whoever owns the job by then
    not late   where nothing goes wrong the job waits no longer than that

Only some seeds' tasks ask for pauses, from a source of chance of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Final

from edgenode.core.job_ids import job_text
from edgenode.core.jobs import Note, Record
from edgenode.core.scheduler import ATTEMPT_FAILED
from edgenode.core.specs import Spec, decode_spec
from edgenode.core.types import Backoff, JobId, NodeId, Seconds, StartToken, State
from edgenode.sim.story import short, token_text
from edgenode.sim.violation import Violation
from edgenode.sim.workers import Manner, asking, manner_of

if TYPE_CHECKING:
    from edgenode.sim.ledger import Start

SHARE: Final = 0.4
"""Of the seeds, whose jobs have pauses of all kinds. In the others they are short and constant."""
ASKED_S: Final = (0.0, 0.3, 1.0, 3.0, 6.0)
BASES_S: Final = (0.05, 0.3, 1.0)
CAPS_S: Final = (0.1, 0.5, 4.0)
ROUNDING_S: Final[Seconds] = 0.003
"""Both days of a pause are rounded to a millisecond."""
LATE_S: Final[Seconds] = 1.0
"""A job may change hands when its pause is over: its giver waits until it is taken."""


class Pausing:
    """What one seed's jobs say of pauses."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self.is_on = dice.random() < SHARE

    def vary(self, spec: Spec) -> Spec:
        """The same, and perhaps its first attempts ask for a pause, or its backoff grows."""
        if not self.is_on:
            return spec
        dice, chance = self._dice, self._dice.random()
        if chance < 0.3 and manner_of(spec) is Manner.GOOD:
            spec = replace(spec, payload=asking(spec, dice.choice(ASKED_S)))
        if chance < 0.6:
            backoff = Backoff("exponential", dice.choice(BASES_S), dice.choice(CAPS_S))
            spec = replace(spec, options=replace(spec.options, backoff=backoff))
        return spec


@dataclass(frozen=True, slots=True)
class Pause:
    """What an owner has noted of a failed start."""

    failed: StartToken
    since: Seconds
    lasts_s: Seconds


class PauseLaw:
    """Hears of every record that is to be stored, and of every start.

    Args:
        starts: what really happened to each job.
    """

    def __init__(self, starts: Mapping[JobId, Mapping[StartToken, Start]]) -> None:
        self._starts = starts
        self.slack_s: Seconds = 1.0
        """How far the mesh's time may be off. Who takes a job over waits until a day, and by a time that was
        ahead once, and does not go back, that day is over early: where clocks are wrong this is FOREVER."""
        self.seen = 0  # starts that a pause had gone before
        self._noted: defaultdict[JobId, dict[Note, Pause]] = defaultdict(dict)
        self._waiting: dict[JobId, Pause] = {}
        self._begun: dict[tuple[JobId, StartToken], tuple[Note, ...]] = {}
        """What the owner knew when it wanted this start stored: what it hears before it runs takes nothing
        back. (Found by seed 6675.)"""

    def ordered(self, node: NodeId, record: Record, now: Seconds, *, is_faultless: bool) -> None:
        """`node` wants this stored.

        Raises:
            Violation: it notes a pause that nobody agreed to, or has let one go on for too long.
        """
        if record.owner == node and record.own.state is State.RUNNING:
            self._begun.setdefault((record.id, record.own.token), record.history)
        waited = self._waiting.get(record.id)
        if record.own.state is not State.SCHEDULED or record.outcome is not None:
            self._waiting.pop(record.id, None)
            late_s = 0.0 if waited is None else now - waited.since - waited.lasts_s
            if late_s > LATE_S + self.slack_s and is_faultless:
                raise Violation(f"I12: {job_text(record.id)} waits {late_s:.2f} s longer than it was to")
        elif record.owner == node:
            notes = [each for each in record.history if each.kind == ATTEMPT_FAILED and each.node == node]
            if notes and notes[-1] not in self._noted[record.id]:
                self._note(record, notes[-1], now)

    def _note(self, record: Record, note: Note, now: Seconds) -> None:
        failed = self._whose(record.id, note.detail)
        if failed is None:
            raise Violation(f"I12: {short(note.node)} notes a failure of {job_text(record.id)} that was none")
        lasts_s = note.until - note.at
        least_s, most_s = self._agreed(record, failed)
        if not least_s - ROUNDING_S <= lasts_s <= most_s + ROUNDING_S:
            raise Violation(
                f"I12: after {token_text(failed)} {job_text(record.id)} pauses {lasts_s:.3f} s, "
                f"not {least_s:.3f} to {most_s:.3f}"
            )
        pause = Pause(failed, now, lasts_s)
        self._noted[record.id][note] = self._waiting[record.id] = pause

    def _whose(self, job: JobId, error: str) -> StartToken | None:
        verdicts = ((token, start.verdict) for token, start in self._starts[job].items())
        return next((token for token, verdict in verdicts if verdict and verdict.error == error), None)

    def _agreed(self, record: Record, failed: StartToken) -> tuple[Seconds, Seconds]:
        """The shortest and the longest pause after this start."""
        verdict = self._starts[record.id][failed].verdict
        assert verdict is not None
        if verdict.retry_after_s >= 0:
            return verdict.retry_after_s, verdict.retry_after_s
        backoff = decode_spec(record.spec).options.backoff
        if backoff.kind == "constant":
            pause_s = min(backoff.cap_s, backoff.base_s)
            return pause_s, pause_s
        return 0.0, min(backoff.cap_s, backoff.base_s * 2 ** (record.failure_count - 1))

    def started(self, token: StartToken, record: Record, now: Seconds) -> None:
        """A start begins, of which its owner has this on disk.

        Raises:
            Violation: an earlier one has failed, as that owner knew, and its pause is not over.
        """
        known = self._noted.get(record.id)
        if not known:
            return
        ends: defaultdict[StartToken, list[Seconds]] = defaultdict(list)
        for note in self._begun.get((record.id, token), record.history):
            pause = known.get(note)
            if pause is None or self._was_given_up(record, pause.failed):
                continue
            # Two sides of a cut may have noted the failure, each with a pause that it drew.
            ends[pause.failed].append(pause.since + pause.lasts_s)
        for failed, all_ends in ends.items():
            early_s = min(all_ends) - now
            self.seen += 1
            if early_s > self.slack_s:
                raise Violation(
                    f"I12: {token_text(token)} of {job_text(record.id)} begins {early_s:.3f} s before the "
                    f"pause after {token_text(failed)} is over"
                )

    def _was_given_up(self, record: Record, failed: StartToken) -> bool:
        """Whether some owner has gone on without a word of this start: it was lost, or to be stopped."""
        start = self._starts[record.id][failed]
        return failed in record.losses or failed in record.voids or start.stopped or start.evicted
