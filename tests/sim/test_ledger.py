"""Each law of the ledger has a history that breaks it, and one that only looks as if it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sim_records import A, B, C, D, a_record, a_spec, row_of, stored_row

from edgenode.core.errors import JobNotFound, NotReady, OutcomeUnknown
from edgenode.core.job_ids import keyed_job_id
from edgenode.core.jobs import (
    Note,
    Record,
    decided,
    failed_once,
    fallen_due,
    lost,
    settled,
    started,
    write_own,
)
from edgenode.core.signals import Persist, Receipt, Row, Run, StopRun
from edgenode.core.specs import Options
from edgenode.core.types import NO_TOKEN, Ballot, Delivery, NodeId, Promise, StartToken, State
from edgenode.core.wire import Acks, Ask, AskItem, Promised, Promises, Stored, Verdict
from edgenode.sim.clock import EPOCH
from edgenode.sim.disk import Disk
from edgenode.sim.ledger import Ledger
from edgenode.sim.violation import Violation
from edgenode.sim.workers import STOPPED, quits, raised, success

SPEC = a_spec(1)


class Mesh:
    """Three disks and a ledger; writes go to disk and ledger as the world lets them."""

    def __init__(self, options: Options | None = None) -> None:
        self.spec = a_spec(1, options)
        self.disks = {node: Disk() for node in (A, B, C)}
        self.ledger = Ledger(self.disks)
        self.ledger.submitted((self.spec,))
        self.record = a_record(self.spec)

    def store(self, node: NodeId, record: Record, promise: Promise | None = None) -> None:
        row = stored_row(record, promise)
        self.ledger.handled()
        self.ledger.ordered(node, Persist((row,)))
        before = self.disks[node].row(record.id)
        self.disks[node].write([row])
        self.ledger.durable(node, before, row.row)

    def start(self, node: NodeId = A) -> Record:
        """Node, as the owner, stores `running` and runs."""
        record = started(self.record, runner=node, boot=1, at=1.0)
        self.store(node, record)
        self.ledger.run(node, 1, Run(record.id, record.own.token, self.spec, 1))
        self.record = record
        return record

    def finish(self, *, firm: bool = True) -> Record:
        """The present start succeeds, and its owner stores the outcome."""
        token, runner = self.record.own.token, self.record.own.runner
        verdict = success(token, runner)
        self.ledger.ended(self.record.id, token, verdict, lost=False)
        result = verdict.result
        self.record = decided(
            self.record, State.SUCCEEDED, firm=firm, at=2.0, result=result, token=token, runner=runner
        )
        self.store(self.record.owner, self.record)
        return self.record

    def acknowledge(self, node: NodeId, record: Record) -> None:
        """A holder stores a write, and says so."""
        self.store(node, record)
        self.say_stored(node, record)

    def say_stored(self, node: NodeId, record: Record) -> None:
        firm = record.outcome is not None and record.outcome.firm
        acks = Acks((Stored(record.id, 0, record.ballot, record.own.write, firm),))
        self.ledger.promised(node, acks)
        self.ledger.left(node, record.owner, acks)


def moved(record: Record, owner: NodeId, term: int = 2) -> Record:
    return record._replace(own=record.own._replace(ballot=Ballot(term, owner), write=1))


def test_a_job_that_goes_as_it_should_breaks_no_law() -> None:
    mesh = Mesh()
    mesh.start()
    done = mesh.finish()
    mesh.acknowledge(B, done)
    mesh.store(A, settled(done))
    mesh.ledger.shown(settled(done))
    mesh.ledger.receipts((Receipt(SPEC.id, (A, B), None),))
    assert mesh.ledger.chosen == {(job, 0): value for job, value in mesh.ledger.told.items()}
    assert mesh.ledger.acked == {SPEC.id: (A, B)}


# ---------------------------------------------------------------------------------------- P1, P5, I2


def test_a_receipt_must_name_nodes_that_have_the_job_on_disk() -> None:
    mesh = Mesh()
    mesh.store(A, mesh.record)
    with pytest.raises(Violation, match="P1"):
        mesh.ledger.receipts((Receipt(SPEC.id, (A, B), None),))
    with pytest.raises(Violation, match="nobody"):
        mesh.ledger.receipts((Receipt(SPEC.id, (), None),))


def test_what_was_certainly_refused_must_not_exist() -> None:
    mesh = Mesh()
    mesh.ledger.receipts((Receipt(SPEC.id, (), NotReady("not yet")),))
    with pytest.raises(Violation, match="P5"):
        mesh.store(A, mesh.record)
    mesh = Mesh()
    mesh.store(A, mesh.record)
    with pytest.raises(Violation, match="P5"):
        mesh.ledger.receipts((Receipt(SPEC.id, (), NotReady("not yet")),))


def test_what_may_have_been_taken_may_exist() -> None:
    mesh = Mesh()
    mesh.ledger.receipts((Receipt(SPEC.id, (), OutcomeUnknown("too few answered")),))
    mesh.store(A, mesh.record)


def test_a_record_must_come_from_a_submission() -> None:
    mesh = Mesh()
    with pytest.raises(Violation, match="I2"):
        mesh.store(A, a_record(a_spec(2)))
    with pytest.raises(Violation, match="I2"):
        mesh.ledger.shown(a_record(a_spec(2)))


def test_a_run_must_come_from_a_submission() -> None:
    mesh = Mesh()
    other = a_spec(2)
    with pytest.raises(Violation, match="I2"):
        mesh.ledger.run(A, 1, Run(other.id, StartToken(1, A, 1), other, 1))


def test_a_success_must_be_what_that_start_gave() -> None:
    for result, runner in ((b"{}", A), (success(StartToken(1, A, 1), A).result, B)):
        mesh = Mesh()
        record = mesh.start()
        token = record.own.token
        mesh.ledger.ended(record.id, token, success(token, A), lost=False)
        lie = decided(record, State.SUCCEEDED, firm=True, at=2.0, result=result, token=token, runner=runner)
        with pytest.raises(Violation, match="I2"):
            mesh.store(A, lie)


def test_a_start_that_has_not_ended_has_no_result() -> None:
    mesh = Mesh()
    record = mesh.start()
    early = decided(record, State.SUCCEEDED, firm=True, at=2.0, token=record.own.token, runner=A)
    with pytest.raises(Violation, match="never ended"):
        mesh.store(A, early)


def given_up(mesh: Mesh, *verdicts: Verdict) -> None:
    """Its starts ended so, and its owner gives it up at the last of them."""
    for number, verdict in enumerate(verdicts, 1):
        record = mesh.start()
        token = record.own.token
        assert token.start == number
        mesh.ledger.ended(record.id, token, verdict, lost=False)
        mesh.record = fallen_due(failed_once(record, due_at=0.0, note=Note(0.0, "failed", A, "")))
    over = decided(
        record, State.FAILED, firm=True, at=2.0, error="it raised", token=token, runner=A, failed=True
    )
    mesh.store(A, over)


def test_a_job_fails_after_as_many_failures_as_it_may_have() -> None:
    once = raised(StartToken(1, A, 1))
    given_up(Mesh(Options(max_attempts=2)), once, once)
    with pytest.raises(Violation, match=r"I10: .* after 1 failures of 2"):
        given_up(Mesh(Options(max_attempts=2)), once)


def test_a_start_that_did_not_fail_is_no_failure() -> None:
    once = raised(StartToken(1, A, 1))
    with pytest.raises(Violation, match="I10"):
        given_up(Mesh(Options(max_attempts=2)), once, success(StartToken(1, A, 2), A))


def test_a_task_may_say_that_another_attempt_is_no_use() -> None:
    given_up(Mesh(Options(max_attempts=5)), raised(StartToken(1, A, 1))._replace(final=True))


def test_a_job_is_given_up_after_as_many_losses_as_it_may_have() -> None:
    for losses, is_over in ((1, False), (2, True)):
        mesh = Mesh(Options(max_losses=2))
        for _ in range(losses):
            mesh.record = lost(mesh.start(), counted=True, note=Note(0.0, "lost", A, ""))
            mesh.ledger.died(A, 1)
        over = decided(mesh.record, State.FAILED, firm=True, at=2.0, error="lost")
        if is_over:
            mesh.store(A, over)
        else:
            with pytest.raises(Violation, match=r"I10: .* 1 losses of 2"):
                mesh.store(A, over)


def test_nobody_cancels_what_nobody_asked_to_cancel() -> None:
    mesh = Mesh()
    with pytest.raises(Violation, match="I13"):
        mesh.store(A, decided(mesh.record, State.CANCELLED, firm=True, at=1.0))


# -------------------------------------------------------------------------------------- I4, P4: results


def test_a_result_told_as_settled_never_changes() -> None:
    mesh = Mesh()
    mesh.start()
    done = mesh.finish()
    mesh.acknowledge(B, done)
    mesh.ledger.shown(settled(done))
    assert done.outcome is not None
    other = done._replace(outcome=done.outcome._replace(settled=True, result=b"2"))
    with pytest.raises(Violation, match="I4"):
        mesh.ledger.shown(other)
    told = set(mesh.ledger.told)
    with pytest.raises(Violation, match="does not exist"):
        mesh.ledger.unfound(SPEC.id, JobNotFound("no member knows it"), {B}, told)
    mesh.ledger.unfound(SPEC.id, JobNotFound("nobody else was ever met"), {C}, told)
    mesh.ledger.unfound(SPEC.id, JobNotFound("it was not there when this was asked"), {B}, set())


def test_a_job_that_starts_before_its_day_is_found() -> None:
    with pytest.raises(Violation, match=r"I12: .* starts 10\.0 s before its day"):
        Mesh(Options(run_at=EPOCH + 10.0)).start()
    Mesh(Options(run_at=EPOCH)).start()


def test_a_job_that_expires_before_its_deadline_is_found() -> None:
    mesh = Mesh(Options(deadline=EPOCH + 10.0))
    with pytest.raises(Violation, match=r"I12: .* expires 10\.0 s before its day"):
        mesh.store(A, decided(mesh.record, State.EXPIRED, firm=True, at=2.0))
    mesh = Mesh(Options(deadline=EPOCH))
    mesh.store(A, decided(mesh.record, State.EXPIRED, firm=True, at=2.0))


def test_who_could_not_know_better_may_end_a_job_early_and_others_may_learn_of_it() -> None:
    mesh = Mesh(Options(deadline=EPOCH + 10.0))
    expired = decided(mesh.record, State.EXPIRED, firm=True, at=2.0)
    mesh.ledger.misled = lambda node: node == A
    with pytest.raises(Violation, match="I12"):
        mesh.store(B, expired)
    mesh = Mesh(Options(deadline=EPOCH + 10.0))
    mesh.ledger.misled = lambda node: node == A
    mesh.store(A, expired)
    mesh.store(B, expired)


def test_a_promise_that_is_forgotten_before_its_day_is_found_and_excused_where_nobody_knew_better() -> None:
    mesh = Mesh()
    with pytest.raises(Violation, match=r"I1: a drops .* before its day: a promise"):
        mesh.ledger.dropped(A, SPEC.id)
    mesh = Mesh()
    mesh.ledger.misled = lambda node: node == A
    mesh.ledger.dropped(A, SPEC.id)
    mesh.store(A, mesh.record)


def test_a_result_without_a_majority_is_not_settled() -> None:
    mesh = Mesh()
    mesh.start()
    done = mesh.finish()
    with pytest.raises(Violation, match="P4"):
        mesh.ledger.shown(settled(done))
    with pytest.raises(Violation, match="P4"):
        mesh.store(A, settled(done))


def test_acknowledgements_of_a_provisional_result_settle_nothing() -> None:
    mesh = Mesh()
    mesh.start()
    done = mesh.finish(firm=False)
    mesh.acknowledge(B, done)
    assert done.outcome is not None
    with pytest.raises(Violation, match="P4"):
        mesh.store(A, done._replace(outcome=done.outcome._replace(firm=True, settled=True)))


def test_a_copy_that_was_merged_is_no_acknowledgement() -> None:
    mesh = Mesh()
    mesh.start()
    done = mesh.finish()
    mesh.store(B, done)
    mesh.store(C, done)
    with pytest.raises(Violation, match="P4"):
        mesh.ledger.shown(settled(done))


def test_two_results_may_not_both_be_accepted_by_a_majority() -> None:
    mesh = Mesh()
    mesh.start()
    first = mesh.finish()
    before = mesh.record
    mesh.acknowledge(B, first)
    # A successor that ignores what b and a have runs it again, and c and a accept that.
    again = started(moved(a_record(SPEC), C), runner=C, boot=1, at=3.0)
    mesh.store(C, again)
    mesh.ledger.run(C, 1, Run(SPEC.id, again.own.token, SPEC, 1))
    token = again.own.token
    mesh.ledger.ended(SPEC.id, token, success(token, C), lost=False)
    result = success(token, C).result
    second = decided(again, State.SUCCEEDED, firm=True, at=4.0, result=result, token=token, runner=C)
    mesh.store(C, second)
    assert before.outcome is not None
    with pytest.raises(Violation, match="decided twice"):
        mesh.acknowledge(A, second._replace(starts=(*first.starts, *second.starts)))


def test_one_ballot_has_one_outcome() -> None:
    mesh = Mesh(Options(delivery=Delivery.AT_MOST_ONCE))
    mesh.start()
    done = mesh.finish()
    assert done.outcome is not None
    lost_for_good = done.outcome._replace(state=State.FAILED, token=NO_TOKEN, result=b"", error="x")
    other = done._replace(outcome=lost_for_good)
    with pytest.raises(Violation, match="two values"):
        mesh.store(B, other)


def test_acknowledgements_that_leave_before_the_owners_own_write_is_durable_count() -> None:
    mesh = Mesh()
    record = mesh.start()
    token = record.own.token
    verdict = success(token, A)
    mesh.ledger.ended(record.id, token, verdict, lost=False)
    done = decided(record, State.SUCCEEDED, firm=True, at=2.0, result=verdict.result, token=token, runner=A)
    mesh.acknowledge(B, done)
    mesh.acknowledge(C, done)
    mesh.store(A, settled(done))


# -------------------------------------------------------------------------------- disks and promises


def test_a_copy_on_disk_never_goes_backwards() -> None:
    mesh = Mesh()
    mesh.store(A, write_own(mesh.record))
    with pytest.raises(Violation, match="backwards"):
        mesh.store(A, mesh.record)
    with pytest.raises(Violation, match="lost its copy"):
        mesh.ledger.durable(A, row_of(mesh.record), Row(SPEC.id, b"", Promise(0, Ballot(9, A))))


def test_a_promise_is_never_lowered_in_word_or_on_disk() -> None:
    mesh = Mesh()
    mesh.store(B, mesh.record, Promise(0, Ballot(3, C)))
    with pytest.raises(Violation, match="lowers its promise"):
        mesh.ledger.ordered(B, Persist((stored_row(mesh.record, Promise(0, Ballot(2, A))),)))
    with pytest.raises(Violation, match="went backwards"):
        mesh.ledger.durable(B, mesh.disks[B].row(SPEC.id), row_of(mesh.record))


def test_a_word_that_was_never_synced_is_forgotten_by_a_reboot() -> None:
    mesh = Mesh()
    mesh.store(B, mesh.record)
    mesh.ledger.ordered(B, Persist((stored_row(mesh.record, Promise(0, Ballot(3, C))),)))
    mesh.ledger.rebooted(B)
    mesh.ledger.ordered(B, Persist((stored_row(mesh.record, Promise(0, Ballot(2, A))),)))


def test_nothing_is_acknowledged_under_a_lower_ballot_than_the_promise() -> None:
    mesh = Mesh()
    mesh.store(B, mesh.record, Promise(0, Ballot(2, C)))
    mesh.say_stored(B, mesh.record)  # a write and then a question, answered in one event
    mesh.ledger.handled()
    with pytest.raises(Violation, match="having promised 2c"):
        mesh.say_stored(B, mesh.record)


def test_a_later_promise_does_not_undo_an_acknowledgement_of_the_same_event() -> None:
    mesh = Mesh()
    mesh.store(B, mesh.record)
    promise = Promise(0, Ballot(2, C))
    mesh.store(B, write_own(mesh.record), promise)
    mesh.say_stored(B, write_own(mesh.record))
    mesh.store(B, write_own(mesh.record), promise)
    with pytest.raises(Violation, match="having promised 2c"):
        mesh.say_stored(B, write_own(mesh.record))


def test_nothing_is_acknowledged_that_is_not_on_disk() -> None:
    mesh = Mesh()
    mesh.store(B, mesh.record)
    mesh.ledger.ordered(B, Persist((stored_row(write_own(mesh.record)),)))
    with pytest.raises(Violation, match="T4"):
        mesh.say_stored(B, write_own(mesh.record))


def test_an_acknowledgement_may_leave_late_of_what_a_later_epoch_has_replaced() -> None:
    """Seed 780368: one commit held the accepted outcome, and the copy of the next epoch, which has none."""
    mesh = Mesh()
    mesh.record = mesh.record._replace(holders=(A, B, C, NodeId("d"), NodeId("e")))
    mesh.start()
    mesh.store(B, mesh.record)
    done = mesh.finish()
    mesh.ledger.ordered(B, Persist((stored_row(done),)))
    later = mesh.record._replace(epoch=1, outcome=None)
    mesh.ledger.chosen[SPEC.id, 0] = (later.holders, later.own.ballot, later.own.state, later.own.due_at)
    mesh.store(B, later)
    mesh.say_stored(B, done)


def test_an_acknowledgement_may_leave_late_of_a_life_of_a_key_that_gave_way_to_another() -> None:
    """Seed 7513: one commit held the copy of one life, and that of the one that stands."""
    mesh = Mesh()
    spec = replace(SPEC, id=keyed_job_id("order-17"))
    mesh.ledger.submitted((spec,))
    first = write_own(a_record(spec, (A, B)))
    mesh.store(B, first)
    mesh.store(B, a_record(spec, (A, C))._replace(claimed=True))
    mesh.say_stored(B, first)
    mesh.ledger.ordered(B, Persist((stored_row(write_own(first)),)))
    with pytest.raises(Violation, match="T4"):
        mesh.say_stored(B, write_own(first))


def test_an_acknowledged_outcome_may_not_vanish_within_its_epoch() -> None:
    mesh = Mesh()
    mesh.start()
    done = mesh.finish()
    mesh.store(B, done._replace(outcome=None))
    with pytest.raises(Violation, match="T4"):
        mesh.say_stored(B, done)


def test_a_promise_leaves_only_when_it_is_on_disk() -> None:
    mesh = Mesh()
    mesh.store(B, mesh.record)
    answer = Promises((Promised(SPEC.id, 0, 2, True, b""),))
    with pytest.raises(Violation, match="T4"):
        mesh.ledger.left(B, C, answer)
    mesh.store(B, mesh.record, Promise(0, Ballot(2, C)))
    mesh.ledger.left(B, C, answer)


def test_an_ask_leaves_only_when_the_askers_own_promise_is_on_disk() -> None:
    mesh = Mesh()
    mesh.store(B, mesh.record)
    question = Ask((AskItem(SPEC.id, 0, 2, 1e9, b""),))
    with pytest.raises(Violation, match="T4"):
        mesh.ledger.left(B, C, question)
    mesh.store(B, mesh.record, Promise(0, Ballot(2, B)))
    mesh.ledger.left(B, C, question)


# -------------------------------------------------------------------------------------- I5, I14: starts


def test_a_start_happens_once() -> None:
    mesh = Mesh()
    record = mesh.start()
    mesh.ledger.died(A, 1)
    with pytest.raises(Violation, match="happens twice"):
        mesh.ledger.run(B, 1, Run(record.id, record.own.token, SPEC, 1))


def test_a_start_waits_until_its_owners_disk_has_it() -> None:
    mesh = Mesh()
    mesh.store(A, mesh.record)
    token = started(mesh.record, runner=A, boot=1, at=1.0).own.token
    with pytest.raises(Violation, match="before its owner's disk"):
        mesh.ledger.run(A, 1, Run(SPEC.id, token, SPEC, 1))
    with pytest.raises(Violation, match="before its owner's disk"):
        mesh.ledger.run(B, 1, Run(SPEC.id, token, SPEC, 1))


def test_an_at_most_once_job_never_starts_again() -> None:
    mesh = Mesh(Options(delivery=Delivery.AT_MOST_ONCE, max_attempts=1))
    record = mesh.start()
    mesh.ledger.died(A, 1)
    again = started(moved(record, B)._replace(own=moved(record, B).own._replace(state=State.QUEUED)),
                    runner=B, boot=1, at=2.0)  # fmt: skip
    mesh.store(B, again)
    with pytest.raises(Violation, match="I14"):
        mesh.ledger.run(B, 1, Run(SPEC.id, again.own.token, mesh.spec, 1))


def test_a_node_runs_a_job_again_only_when_the_first_start_is_over_or_stopped() -> None:
    def second(mesh: Mesh) -> Run:
        record = mesh.record
        idle = write_own(record, state=State.QUEUED)
        again = started(idle, runner=A, boot=1, at=2.0)
        mesh.store(A, again)
        return Run(SPEC.id, again.own.token, SPEC, 2)

    mesh = Mesh()
    mesh.start()
    with pytest.raises(Violation, match="twice at once"):
        mesh.ledger.run(A, 1, second(mesh))
    mesh = Mesh()
    token = mesh.start().own.token
    mesh.ledger.stopped(StopRun(SPEC.id, token, "superseded"))
    mesh.ledger.run(A, 1, second(mesh))
    mesh = Mesh()
    token = mesh.start().own.token
    mesh.ledger.ended(SPEC.id, token, raised(token), lost=False)
    mesh.ledger.run(A, 1, second(mesh))


def test_an_owner_starts_a_job_elsewhere_only_when_the_first_start_is_over_or_lost() -> None:
    def second(mesh: Mesh, lost: tuple[StartToken, ...]) -> None:
        idle = write_own(mesh.record._replace(losses=lost), state=State.QUEUED)
        again = started(idle, runner=B, boot=1, at=2.0)
        mesh.store(A, again)
        mesh.ledger.run(B, 1, Run(SPEC.id, again.own.token, SPEC, 2))

    mesh = Mesh()
    mesh.start()
    with pytest.raises(Violation, match=r"I6: 1a.2 of .* begins, and 1a.1 runs"):
        second(mesh, ())
    mesh = Mesh()
    token = mesh.start().own.token
    second(mesh, (token,))


@pytest.mark.parametrize("verdict", [quits, None, lambda token: STOPPED])
def test_a_task_can_cancel_its_job_and_nobody_else_can(
    verdict: Callable[[StartToken], Verdict] | None,
) -> None:
    mesh = Mesh()
    token = mesh.start().own.token
    if verdict is not None:
        mesh.ledger.ended(SPEC.id, token, verdict(token), lost=False)
    end = decided(mesh.record, State.CANCELLED, firm=True, at=2.0, token=token, runner=A)
    if verdict is quits:
        mesh.store(A, end)
    else:
        with pytest.raises(Violation, match=r"I13: .* is cancelled, and 1a.1 did not ask for it"):
            mesh.store(A, end)


def test_a_copy_of_a_disk_decides_alone_where_its_identity_does() -> None:
    mesh = Mesh()
    mesh.record = a_record(SPEC, (A,))
    mesh.disks[D] = Disk()
    mesh.ledger.identities[D] = A  # the machine at D bears the name of A
    mesh.store(D, mesh.record)
    own = mesh.record.own._replace(ballot=Ballot(2, A), write=0)
    mesh.store(D, mesh.record._replace(epoch=1, holders=(A, B), own=own))


def test_a_spare_copy_that_was_not_needed_any_more_may_still_be_in_a_receipt() -> None:
    mesh = Mesh()
    mesh.start()
    done = mesh.finish()
    mesh.acknowledge(B, done)
    for node in (A, B, C):
        mesh.store(node, settled(done))
    mesh.disks[D] = Disk()
    mesh.store(D, settled(done))
    mesh.ledger.dropped(D, SPEC.id)
    mesh.disks[D].drop(SPEC.id)
    mesh.ledger.receipts((Receipt(SPEC.id, (A, D), None),))
    for node in (A, B, C):
        assert mesh.ledger.survives(SPEC.id)
        mesh.ledger.lost_disk(node)
    assert not mesh.ledger.survives(SPEC.id)  # D has nothing of it


def test_a_spare_copy_may_go_though_a_holder_that_said_it_had_the_job_has_lost_its_row() -> None:
    """While another has it. (Found by seed 23462.)"""
    mesh = Mesh()
    mesh.start()
    done = mesh.finish()
    mesh.acknowledge(B, done)
    for node in (A, B):
        mesh.store(node, settled(done))
    mesh.disks[D] = Disk()
    mesh.store(D, settled(done))
    mesh.disks[B].flip_bits((SPEC.id,))
    assert mesh.disks[B].record(SPEC.id) is not None, "nobody has read it yet"
    mesh.disks[B].check()
    mesh.ledger.dropped(D, SPEC.id)
    mesh.disks[A].flip_bits((SPEC.id,))
    mesh.disks[A].check()
    with pytest.raises(Violation, match="before its day"):
        mesh.ledger.dropped(D, SPEC.id)


def test_what_a_holder_left_with_is_known_until_it_has_ended() -> None:
    mesh = Mesh()
    mesh.start()
    mesh.store(B, mesh.record)
    mesh.ledger.left_with(C)
    assert not mesh.ledger.withheld, "it had nothing"
    mesh.ledger.left_with(B)
    assert mesh.ledger.withheld == {SPEC.id}
