"""When a client's cancel is safe, and when nobody knows."""

from __future__ import annotations

from job_mesh import A, B, C, D, Mesh, job_id, make_desk, make_record, sends

from edgenode.core.cancelling import Cancelling
from edgenode.core.job_bytes import decode
from edgenode.core.signals import CancelAsked, CancelDone, RequestId
from edgenode.core.types import JobId, NodeId, State
from edgenode.core.view import Standing
from edgenode.core.wire import Cancel, CancelNoted, Copies

JOB = job_id(1)
REQUEST = RequestId(7)


class Entry:
    """D, at which a client cancels a job of A, B and C."""

    def __init__(self) -> None:
        self.desk = make_desk(D, A, B, C)
        self.cancelling = Cancelling(self.desk)
        self.cancelling.ask(CancelAsked(REQUEST, ((JOB, (A, B, C)),), 5.0))

    def done(self) -> tuple[JobId, ...] | None:
        answers = sends_done(self)
        return answers[0].jobs if answers else None

    def noted(self, node: NodeId, *, final: bool = False) -> None:
        self.cancelling.on_noted(node, CancelNoted(REQUEST, (JOB,), (JOB,) if final else (), ()))


def sends_done(entry: Entry) -> list[CancelDone]:
    return [effect for effect in entry.desk.flush() if isinstance(effect, CancelDone)]


def test_a_cancel_is_safe_with_a_majority_of_the_holders() -> None:
    entry = Entry()
    entry.noted(B)
    assert entry.done() is None
    entry.noted(C)
    assert entry.done() == (JOB,)


def test_a_cancel_is_safe_with_the_owner() -> None:
    entry = Entry()
    entry.noted(A, final=True)
    assert entry.done() == (JOB,)


def test_a_cancel_is_sent_again_to_those_that_did_not_answer_until_the_time_is_over() -> None:
    entry = Entry()
    asked = sends(entry.desk.flush(), Cancel)
    assert asked == [Cancel(REQUEST, (JOB,))] * 3
    entry.noted(B)
    entry.desk.now = entry.cancelling.deadline()
    entry.cancelling.on_time()
    assert len(sends(entry.desk.flush(), Cancel)) == 2
    entry.desk.now = 5.0
    entry.cancelling.on_time()
    assert entry.done() == ()
    assert entry.cancelling.deadline() > 1e9


def test_a_cancel_does_not_wait_for_the_dead() -> None:
    entry = Entry()
    view = entry.desk.view
    entry.noted(B)
    for node in (A, C):
        view.standings[node] = Standing.GONE  # type: ignore[attr-defined]
    entry.cancelling.members_changed((A, C))
    assert entry.done() == (JOB,)


def test_a_cancel_of_which_no_holder_has_a_copy_is_not_safe() -> None:
    entry = Entry()
    for node in (A, B, C):
        entry.cancelling.on_noted(node, CancelNoted(REQUEST, (), (), (JOB,)))
    assert entry.done() == ()


def test_a_client_that_goes_away_is_not_answered() -> None:
    entry = Entry()
    entry.cancelling.dropped(REQUEST)
    entry.noted(A, final=True)
    assert entry.done() is None


def test_a_holder_notes_the_wish_and_tells_the_owner() -> None:
    desk = make_desk(B, A, C, D)
    desk.table.put(make_record(JOB, (A, B, C)))
    cancelling = Cancelling(desk)
    cancelling.on_cancel(D, Cancel(7, (JOB, job_id(2))))
    effects = desk.flush()
    assert sends(effects, CancelNoted) == [CancelNoted(7, (JOB,), (), (job_id(2),))]
    (copies,) = sends(effects, Copies)
    assert [decode(blob).cancel for blob in copies.records] == [True]
    held = desk.table.get(JOB)
    assert held is not None
    assert held.cancel


def test_ten_thousand_jobs_are_cancelled_in_a_few_messages() -> None:
    desk = make_desk(D, A, B, C)
    cancelling = Cancelling(desk)
    wishes = tuple((job_id(number), (A, B, C)) for number in range(10_000))
    cancelling.ask(CancelAsked(REQUEST, wishes, 5.0))
    asked = sends(desk.flush(), Cancel)
    assert sum(len(message.jobs) for message in asked) == 30_000
    assert len(asked) <= 3 * (10_000 / desk.settings.batch + 1)


def test_a_cancel_at_any_node_ends_a_job_of_a_mesh() -> None:
    mesh = Mesh("abcd")
    mesh.verdict = lambda begun: None
    spec = mesh.spec("a")
    mesh.submit(B, spec)
    mesh.run_until(lambda: mesh.runs(spec.id))
    mesh.do(C, CancelAsked(REQUEST, ((spec.id, mesh.record(A, spec.id).holders),), 5.0))
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert mesh.record(A, spec.id).state is State.CANCELLED
    assert [job for _, job, _ in mesh.stopped] == [spec.id]
