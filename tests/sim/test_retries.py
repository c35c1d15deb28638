"""Clients of the simulator who have something tried again, and what they find of it afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sim_records import A, a_record, a_spec, stored_row

from edgenode.core.job_ids import is_keyed, job_text
from edgenode.core.jobs import Note, Record, decided, settled, shrunk
from edgenode.core.node import Node
from edgenode.core.scheduler import ATTEMPT_FAILED
from edgenode.core.specs import Options
from edgenode.core.types import State
from edgenode.sim.clock import EPOCH
from edgenode.sim.retries import Retries, again
from edgenode.sim.trial import Plan, Trial
from edgenode.sim.violation import Violation
from edgenode.sim.world import World

SEEDS = 40


def failed(options: Options | None = None) -> Record:
    record = a_record(a_spec(1, options))
    note = Note(EPOCH, ATTEMPT_FAILED, A, "raised")
    return settled(decided(record._replace(history=(note,)), State.FAILED, firm=True, at=EPOCH))


def test_a_retry_is_the_same_work_under_an_id_that_follows_from_the_old_one() -> None:
    old = a_spec(1, Options(queue="narrow", run_at=EPOCH + 9, deadline=EPOCH + 99, key="k"))
    new = again(a_record(old), 5.0)
    assert again(a_record(old), 7.0).id == new.id != old.id
    assert is_keyed(new.id)
    assert (new.task, new.payload) == (old.task, old.payload)
    said = replace(old.options, run_at=0.0, deadline=0.0, key="")
    assert replace(new.options, retry_of="", fingerprint="") == said
    assert new.options.retry_of == job_text(old.id)


def tried(before: Record, now: Record) -> Retries:
    """Somebody had a job tried again, and this is what a disk has of it in the end."""
    world = World("retries", Node)
    world.add("a")
    world.disks[A].write((stored_row(now),))
    retries = Retries(world, [], earliest_s=1.0, off=False)
    retries.tried_again[before.id] = before
    return retries


def test_what_was_tried_again_stays_as_it_ended() -> None:
    before = failed()
    tried(before, before).check()
    more = before._replace(history=(*before.history, Note(EPOCH, "superseded", A, "")))
    tried(before, more).check()
    for now in (before._replace(history=()), shrunk(before)):
        with pytest.raises(Violation, match=r"I4: a has .* otherwise than when it was retried"):
            tried(before, now).check()


def test_of_a_short_lived_job_nothing_but_a_marker_may_be_left() -> None:
    before = failed(Options(ttl_s=5.0))
    tried(before, shrunk(before)).check()


def test_seeds_try_again_what_failed_and_what_a_cancel_ended() -> None:
    states = set()
    for seed in range(SEEDS):
        trial = Trial(Plan(seed), Node)
        if trial.retries.is_on:
            trial.run()
            states |= {record.state for record in trial.retries.tried_again.values()}
    assert states >= {State.FAILED, State.CANCELLED}
