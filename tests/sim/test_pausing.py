"""The simulator's law of pauses: what it lets pass, and what it does not."""

from __future__ import annotations

from collections import defaultdict
from contextlib import nullcontext
from itertools import islice

import pytest
from sim_records import A, B, a_record, a_spec

from edgenode.core.jobs import Note, Record, failed_once, started, taken_over, with_loss
from edgenode.core.node import Node
from edgenode.core.scheduler import ATTEMPT_FAILED
from edgenode.core.specs import Options
from edgenode.core.types import Backoff, Ballot, JobId, Seconds, StartToken
from edgenode.core.wire import Verdict
from edgenode.sim.clock import EPOCH
from edgenode.sim.ledger import Start
from edgenode.sim.pausing import PauseLaw
from edgenode.sim.trial import Plan, Trial
from edgenode.sim.violation import Violation
from edgenode.sim.workers import asks, raised

CONSTANT = Options(backoff=Backoff("constant", base_s=2.0, cap_s=9.0))
GROWING = Options(backoff=Backoff("exponential", base_s=4.0, cap_s=6.0))


TRIALS = 10


def test_seeds_have_pauses_and_keep_to_them() -> None:
    trials = (Trial(Plan(seed), Node) for seed in range(100))
    runs = list(islice((trial for trial in trials if trial.pausing.is_on), TRIALS))
    for trial in runs:
        trial.run()
    assert sum(trial.world.ledger.pauses.seen for trial in runs) > TRIALS


class Failing:
    """A job that runs on its owner, a, and what the law hears of it."""

    def __init__(self, options: Options = CONSTANT) -> None:
        self.starts: defaultdict[JobId, dict[StartToken, Start]] = defaultdict(dict)
        self.law = PauseLaw(self.starts)
        self.law.slack_s = 0.1
        self.record = a_record(a_spec(1, options))

    def fail(self, at: Seconds, lasts_s: Seconds, *, after_s: Seconds | None = None) -> Record:
        """A start of it raises, or asks for a pause; its owner notes one of so many seconds."""
        running = started(self.record, runner=A, boot=1, at=EPOCH + at)
        token = running.own.token
        verdict: Verdict = raised(token) if after_s is None else asks(token, after_s)
        self.starts[self.record.id][token] = Start(A, 1, verdict, over=True)
        note = Note(EPOCH + at, ATTEMPT_FAILED, A, verdict.error, EPOCH + at + lasts_s)
        self.record = failed_once(running, due_at=EPOCH + at + lasts_s, note=note)
        self.law.ordered(A, self.record, at, is_faultless=True)
        return self.record

    def start(self, at: Seconds, record: Record | None = None) -> None:
        record = record or self.record
        token = StartToken(record.own.ballot.term, record.owner, 2)
        self.law.started(token, record, at)


@pytest.mark.parametrize(
    ("options", "after_s", "lasts_s", "is_agreed"),
    [
        (CONSTANT, None, 2.0, True),
        (CONSTANT, None, 1.9, False),
        (CONSTANT, 5.0, 5.0, True),
        (CONSTANT, 5.0, 2.0, False),
        (GROWING, None, 0.0, True),
        (GROWING, None, 4.0, True),
        (GROWING, None, 4.1, False),
        (GROWING, 0.0, 0.0, True),
    ],
)
def test_a_pause_is_what_the_task_or_the_job_says(
    options: Options, after_s: Seconds | None, lasts_s: Seconds, is_agreed: bool
) -> None:
    job = Failing(options)
    if is_agreed:
        job.fail(3.0, lasts_s, after_s=after_s)
    else:
        with pytest.raises(Violation, match=r"I12: after 1a\.1 .* pauses"):
            job.fail(3.0, lasts_s, after_s=after_s)


def test_pauses_grow_to_their_cap() -> None:
    job = Failing(GROWING)
    job.fail(1.0, 4.0)
    job.record = job.record._replace(own=job.record.own._replace(state=a_record(a_spec(1)).state))
    job.fail(9.0, 6.0)
    assert job.record.failure_count == 2
    job.record = job.record._replace(own=job.record.own._replace(state=a_record(a_spec(1)).state))
    with pytest.raises(Violation, match=r"pauses 6\.100 s, not 0\.000 to 6\.000"):
        job.fail(20.0, 6.1)


def test_nobody_who_knows_of_a_failure_starts_the_job_before_its_pause_is_over() -> None:
    job = Failing()
    job.fail(3.0, 5.0, after_s=5.0)
    job.start(8.0)
    taken = taken_over(job.record, Ballot(2, B), Note(EPOCH, "takeover", B, ""))
    for record in (job.record, taken):
        with pytest.raises(Violation, match=r"begins 1\.000 s before the pause"):
            job.start(7.0, record)


@pytest.mark.parametrize("knew", [True, False])
def test_a_start_that_was_on_its_way_to_the_disk_when_the_pause_became_known_begins_all_the_same(
    knew: bool,
) -> None:
    job = Failing()
    before = job.record
    failed = job.fail(3.0, 5.0, after_s=5.0)
    taken = taken_over(failed if knew else before, Ballot(2, B), Note(EPOCH, "takeover", B, ""))
    queued = taken._replace(own=taken.own._replace(state=before.own.state))
    again = started(queued, runner=B, boot=1, at=EPOCH + 3.5)
    job.law.ordered(B, again, 3.5, is_faultless=False)
    record = again._replace(history=taken_over(failed, Ballot(2, B), Note(EPOCH, "takeover", B, "")).history)
    with pytest.raises(Violation, match=r"begins 4\.000 s before") if knew else nullcontext():
        job.law.started(again.own.token, record, 4.0)


def test_who_takes_a_failed_start_for_lost_need_not_wait() -> None:
    job = Failing()
    failed = job.fail(3.0, 5.0, after_s=5.0)
    (token,) = job.starts[failed.id]
    job.start(4.0, with_loss(failed, token))
    job.start(4.0, failed._replace(history=()))


def test_where_nothing_goes_wrong_no_pause_takes_longer() -> None:
    job = Failing()
    job.fail(3.0, 2.0)
    due = job.record._replace(own=job.record.own._replace(state=a_record(a_spec(1)).state))
    job.law.ordered(A, due, 5.1, is_faultless=True)
    other = Failing()
    other.fail(3.0, 2.0)
    with pytest.raises(Violation, match=r"waits 3\.00 s longer"):
        other.law.ordered(A, due, 8.0, is_faultless=True)
