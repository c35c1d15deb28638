"""Submissions, at the node that was asked and at those that are to own them."""

from __future__ import annotations

import pytest
from job_mesh import WALL, A, B, C, D, Mesh, let_pass, make_record, sends

from edgenode.core.errors import NotReady, OutcomeUnknown
from edgenode.core.intake import REFUSED_NOT_READY
from edgenode.core.job_bytes import encode
from edgenode.core.jobs import decided, settled
from edgenode.core.signals import (
    LeaveAsked,
    Receipt,
    RequestId,
)
from edgenode.core.types import Ballot, NodeId, State
from edgenode.core.wire import (
    Copies,
    Submit,
    SubmitAnswer,
    Submitted,
    Write,
)


def receipt(mesh: Mesh, request: RequestId) -> Receipt:
    mesh.run_until(lambda: request in mesh.submits)
    return mesh.submits[request].receipts[0]


def test_a_receipt_names_disks_that_have_the_job() -> None:
    mesh = Mesh("abcd")
    spec = mesh.spec("abc")
    request = mesh.submit(D, spec)
    taken = receipt(mesh, request)
    assert taken.error is None
    assert len(taken.nodes) >= 2
    assert all(spec.id in mesh.disks[name].rows for name in taken.nodes)


def test_receipts_come_in_the_order_of_the_jobs() -> None:
    mesh = Mesh("abc")
    specs = [mesh.spec(first) for first in ("c", "a", "b", "a", "c")]
    request = mesh.submit(B, *specs)
    mesh.run_until(lambda: request in mesh.submits)
    assert [taken.job for taken in mesh.submits[request].receipts] == [spec.id for spec in specs]


def test_a_lost_submission_is_repeated_and_taken_once() -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("abc")
    mesh.rule = lambda source, to, message: not isinstance(message, Submitted)
    request = mesh.submit(C, spec)
    mesh.run(4.0)
    assert len(mesh.messages(Submit)) >= 3
    mesh.rule = let_pass
    assert receipt(mesh, request).error is None
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert mesh.runs(spec.id) == [A]
    assert mesh.record(A, spec.id).ballot == Ballot(1, A)


def test_a_submission_goes_down_the_rank_past_a_holder_that_died() -> None:
    mesh = Mesh("abcd")
    spec = mesh.spec("abc")
    mesh.rule = lambda source, to, message: not (to == A and isinstance(message, Submit))
    request = mesh.submit(D, spec)
    mesh.kill(A)
    assert receipt(mesh, request).error is None
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert mesh.record(B, spec.id).ballot.term > 1  # B was not named: it had to ask


def test_a_submission_goes_down_the_rank_past_a_holder_that_refuses() -> None:
    mesh = Mesh("abcd")
    spec = mesh.spec("abc")
    mesh.verdict = lambda begun: None
    mesh.submit(A, busy := mesh.spec("abc"))
    mesh.run_until(lambda: mesh.runs(busy.id) == [A])
    mesh.do(A, LeaveAsked())  # goes on with its run, and takes nothing new
    request = mesh.submit(D, spec)
    assert receipt(mesh, request).error is None


def test_a_named_place_at_a_node_that_is_not_the_first_holder_names_nobody() -> None:
    """From an entry node with another ranking, or another program: no crash, and no second first owner."""
    mesh = Mesh("abc", tasks=dict.fromkeys((A, B, C), ("other",)))
    spec = mesh.spec("abc")
    mesh.tell(C, B, Submit(1, 0, (mesh.item(spec),)))
    assert mesh.lead(B, spec.id) is None
    mesh.run_until(lambda: mesh.is_firm(B, spec.id))
    assert mesh.record(B, spec.id).ballot.term > 1


def test_a_node_that_is_no_holder_refuses() -> None:
    mesh = Mesh("abcd")
    spec = mesh.spec("abc")
    (answer,) = sends(mesh.tell(C, D, Submit(1, 0, (mesh.item(spec),))), Submitted)
    assert answer.answers == (SubmitAnswer(spec.id, (), REFUSED_NOT_READY),)
    assert not mesh.has(D, spec.id)


def test_a_repeated_submission_of_a_finished_job_gets_its_receipt_and_runs_nothing() -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("abc")
    mesh.submit(C, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    mesh.run(1.0)
    (answer,) = sends(mesh.tell(C, B, Submit(9, 1, (mesh.item(spec),))), Submitted)
    assert answer.answers == (SubmitAnswer(spec.id, (B,), ""),)
    mesh.run(3.0)
    assert mesh.runs(spec.id) == [A]


def test_a_submission_to_a_holder_that_does_not_own_the_job_is_sent_to_the_owner() -> None:
    mesh = Mesh("abc", tasks=dict.fromkeys((A, B, C), ("other",)))
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run(0.1)
    (answer,) = sends(mesh.tell(C, B, Submit(9, 1, (mesh.item(spec),))), Submitted)
    assert answer.answers[0].refused == "moved:" + A


def test_no_answer_after_a_holder_died_is_an_unknown_outcome() -> None:
    mesh = Mesh("abcd")
    spec = mesh.spec("abc")
    mesh.rule = lambda source, to, message: not (source == A and isinstance(message, Submitted | Write))
    request = mesh.submit(D, spec)
    mesh.run_until(lambda: spec.id in mesh.disks[A].rows)
    mesh.rule = lambda source, to, message: not isinstance(message, Submit)
    mesh.kill(A)
    mesh.run(0.2)
    for name in (B, C):
        mesh.tell(name, D, Submitted(request, (SubmitAnswer(spec.id, (), REFUSED_NOT_READY),)))
    error = mesh.submits[request].receipts[0].error
    assert isinstance(error, OutcomeUnknown)
    assert not error.definite


def test_a_refusal_by_all_holders_that_were_heard_is_definite() -> None:
    mesh = Mesh("abcd")
    spec = mesh.spec("abc")
    mesh.rule = lambda source, to, message: not isinstance(message, Submit)
    request = mesh.submit(D, spec)
    mesh.run(0.01)
    for name in (A, B, C):
        mesh.tell(name, D, Submitted(request, (SubmitAnswer(spec.id, (), REFUSED_NOT_READY),)))
    error = mesh.submits[request].receipts[0].error
    assert isinstance(error, NotReady)
    assert error.definite


@pytest.mark.parametrize("damaged", [A, B, C])
def test_a_refusal_by_a_holder_whose_row_was_damaged_is_an_unknown_outcome(damaged: NodeId) -> None:
    """It may be there from an earlier try of the same submission, whose receipt was lost."""
    mesh = Mesh("abcd")
    spec = mesh.spec("abc")
    mesh.disks[damaged].lost.add(spec.id)
    mesh.rule = lambda source, to, message: not (isinstance(message, Submit) and to != damaged)
    request = mesh.submit(D, spec)
    mesh.run(0.01)
    for name in sorted({A, B, C} - {damaged}):
        mesh.tell(name, D, Submitted(request, (SubmitAnswer(spec.id, (), REFUSED_NOT_READY),)))
        mesh.run(0.01)
    error = receipt(mesh, request).error
    assert isinstance(error, OutcomeUnknown)


def test_a_refusal_by_a_holder_that_then_dies_stays_definite() -> None:
    """It said no while it lived: its death changes nothing."""
    mesh = Mesh("abcd")
    spec = mesh.spec("abc")
    mesh.rule = lambda source, to, message: not isinstance(message, Submit)
    request = mesh.submit(D, spec)
    mesh.run(0.01)
    no = SubmitAnswer(spec.id, (), REFUSED_NOT_READY)
    mesh.tell(A, D, Submitted(request, (no,)))
    mesh.kill(A)
    mesh.run(0.1)
    for name in (B, C):
        mesh.tell(name, D, Submitted(request, (no,)))
    assert isinstance(mesh.submits[request].receipts[0].error, NotReady)


def test_the_deadline_of_a_submission_answers_that_the_outcome_is_unknown() -> None:
    mesh = Mesh("abcd")
    spec = mesh.spec("abc")
    mesh.rule = lambda source, to, message: not isinstance(message, Submit)
    request = mesh.submit(D, spec, timeout_s=2.0)
    began = mesh.now
    error = receipt(mesh, request).error
    assert isinstance(error, OutcomeUnknown)
    assert mesh.now - began == pytest.approx(2.0, abs=0.01)


def test_a_leaving_node_takes_no_submissions() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: None
    running = mesh.spec("abc")
    mesh.submit(A, running)
    mesh.run_until(lambda: mesh.runs(running.id) == [A])
    mesh.do(A, LeaveAsked())
    request = mesh.submit(A, mesh.spec("abc"))
    assert isinstance(receipt(mesh, request).error, NotReady)


def test_a_submitter_that_waits_at_a_holder_is_answered_when_another_owner_has_ended_the_job() -> None:
    """Or else it is remembered for ever that somebody waits."""
    mesh = Mesh("abc")
    spec = mesh.spec("abc")
    mesh.rule = lambda source, to, message: source != B
    mesh.tell(C, B, Submit(5, 1, (mesh.item(spec),)))  # B is not the first: it asks, and nobody hears it
    done = settled(decided(make_record(spec.id, (A, B, C)), State.SUCCEEDED, firm=True, at=WALL, result=b"1"))
    assert sends(mesh.tell(A, B, Copies((encode(done),))), Submitted) == [
        Submitted(5, (SubmitAnswer(spec.id, (B,), ""),))
    ]
    assert sends(mesh.tell(A, B, Copies((encode(done),))), Submitted) == []
