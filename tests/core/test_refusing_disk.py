"""A disk that takes no writes for a while: nothing untrue is said, the jobs move, and the node comes back."""

from __future__ import annotations

from collections import Counter

import pytest
from job_mesh import A, B, C, Mesh, succeeded

from edgenode.core.errors import AcksLost, EdgeNodeError
from edgenode.core.jobs import majority
from edgenode.core.signals import LeaveAsked, Left, Persist, Run, RunEnded, StopRun, StoreRefused
from edgenode.core.specs import Spec
from edgenode.core.types import Delivery, NodeId, Partition, State
from edgenode.core.view import Standing


def refusal(mesh: Mesh, node: NodeId, spec: Spec) -> EdgeNodeError:
    """What a submission of one job at this node is answered with."""
    request = mesh.submit(node, spec)
    mesh.run_until(lambda: request in mesh.submits)
    (receipt,) = mesh.submits[request].receipts
    assert receipt.error is not None
    return receipt.error


def is_whole(mesh: Mesh, count: int) -> bool:
    return all(node.ready and len(node.view.ranking()) == count for node in mesh.nodes.values())


# -------------------------------------------------------------------------------------------- the owner


def test_the_jobs_of_an_owner_whose_disk_is_full_move_at_once_and_end_elsewhere() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: None if begun.node == A else (0.1, succeeded())
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    mesh.run(0.1)
    mesh.full.add(A)
    queued = mesh.spec("abc")
    request = mesh.submit(A, queued)  # the write that fails
    failed_at = mesh.now
    mesh.run_until(lambda: len(mesh.runs(spec.id)) == 2)
    assert mesh.now - failed_at < 0.1
    assert mesh.runs(spec.id)[1] in (B, C)
    assert (A, spec.id) in {(node, job) for node, job, _ in mesh.stopped}
    mesh.run_until(lambda: all(mesh.has_settled(n, j.id) for n in (B, C) for j in (spec, queued)))
    (receipt,) = mesh.submits[request].receipts
    assert receipt.error is None
    assert A not in receipt.nodes, "a receipt names a disk that refused"
    assert "takes no writes" in " ".join(note.detail for note in mesh.record(B, spec.id).history)


def test_a_receipt_of_a_batch_does_not_name_the_disk_that_refused_part_of_it() -> None:
    """This node's own word came first, and waited for another owner's: the write behind it failed."""
    mesh = Mesh("abc", slots=0)
    mine, other = mesh.spec("abc", acks=1), mesh.spec("bca", acks=1)
    mesh.full.add(A)
    request = mesh.submit(A, mine, other)
    mesh.run_until(lambda: request in mesh.submits)
    for receipt in mesh.submits[request].receipts:
        assert receipt.error is None
        assert A not in receipt.nodes
        assert all(mesh.has(node, receipt.job) for node in receipt.nodes)


def test_nothing_that_is_behind_a_failed_write_leaves_before_or_after_the_recovery() -> None:
    mesh = Mesh("abc", slots=0)
    specs = mesh.specs(30, "abc")
    mesh.submit(A, *specs[:10])
    mesh.run(0.5)
    mesh.full.add(A)
    mesh.sent.clear()
    mesh.submit(B, *specs[10:])
    mesh.run(2.0)
    assert not [sent for sent in mesh.sent if sent.source == A], "the core has said something"
    mesh.make_room(A)
    assert not any(mesh.has(A, spec.id) for spec in specs[10:]), "it remembers what is not on its disk"
    assert all(mesh.has(A, spec.id) for spec in specs[:10])


def test_a_core_whose_disk_refuses_orders_no_write_and_no_run() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: (0.05, succeeded())
    mesh.full.add(A)
    ordered: list[object] = []
    do = mesh.do
    mesh.do = lambda name, event: (
        ordered.extend(found := do(name, event)) or found if name == A else do(name, event)
    )  # type: ignore[method-assign,func-returns-value]
    refused_at = len(ordered)
    mesh.submit(A, *mesh.specs(20, "abc"))
    mesh.run_until(lambda: "store-refused" in {log.kind for name, log in mesh.logs if name == A})
    refused_at = len(ordered)
    mesh.submit(B, *mesh.specs(20, "abc"), *mesh.specs(20, "bca"))
    mesh.run(5.0)
    assert not [effect for effect in ordered[refused_at:] if isinstance(effect, Persist | Run)]


def test_an_at_most_once_job_does_not_start_again_because_a_disk_was_full() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: None
    spec = mesh.spec("abc", delivery=Delivery.AT_MOST_ONCE, max_attempts=1)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    mesh.full.add(A)
    mesh.submit(A, mesh.spec("abc"))
    mesh.run_until(lambda: mesh.has_settled(B, spec.id))
    assert mesh.record(B, spec.id).state is State.FAILED
    mesh.make_room(A)
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert len(mesh.runs(spec.id)) == 1


def test_a_lost_run_of_a_refusing_node_counts_so_that_a_job_that_fills_disks_is_stopped() -> None:
    mesh = Mesh("abc", slots=1)
    mesh.verdict = lambda begun: None
    spec = mesh.spec("abc", max_losses=2)
    mesh.submit(A, spec)
    for count in (1, 2):
        mesh.run_until(lambda count=count: len(mesh.runs(spec.id)) == count)  # type: ignore[misc]
        mesh.run(0.1)
        node = mesh.runs(spec.id)[-1]
        mesh.full.add(node)
        mesh.submit(node, mesh.spec(node[0], task="other"))
        mesh.run(0.5)
        mesh.make_room(node)
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert mesh.record(A, spec.id).state is State.FAILED
    assert len(mesh.runs(spec.id)) == 2


# ------------------------------------------------------------------------------------------- the member


def test_a_node_whose_disk_refuses_stays_a_member_that_holds_nothing() -> None:
    mesh = Mesh("abc")
    mesh.full.add(A)
    mesh.submit(A, mesh.spec("abc"))
    mesh.run(mesh.settings.membership.dead_keep_s + 60)
    for name in (B, C):
        view = mesh.nodes[name].membership
        assert view.standing(A) is Standing.GONE
        assert not view.stores(A)
        assert A not in view.ranking().members
        (report,) = [report for report in view.snapshot() if report.info.id == A]
        assert report.silent_s is not None
        assert report.silent_s < 30, "it answers, and is not forgotten"
        assert "member-dead" not in {log.kind for node, log in mesh.logs if node == name}
        assert "member-resigned" in {log.kind for node, log in mesh.logs if node == name}
    assert not mesh.nodes[A].ready


def test_a_node_that_has_room_again_is_ready_and_has_what_it_missed() -> None:
    mesh = Mesh("abc")
    before = mesh.specs(10, "abc")
    mesh.submit(A, *before)
    mesh.run(0.01)
    mesh.full.add(A)
    during = mesh.specs(20, "bac")
    mesh.submit(B, *during)
    mesh.run_until(lambda: all(mesh.has_settled(B, spec.id) for spec in (*before, *during)))
    mesh.make_room(A)
    began = mesh.now
    mesh.run_until(lambda: is_whole(mesh, 3))
    assert mesh.now - began < 1.0
    mesh.run_until(lambda: all(mesh.has_settled(A, spec.id) for spec in (*before, *during)))
    after = mesh.spec("abc")
    request = mesh.submit(C, after)
    mesh.run_until(lambda: mesh.settled(after.id))
    assert A in mesh.submits[request].receipts[0].nodes
    assert mesh.runs(after.id) == [A]


def test_a_start_that_is_still_being_stopped_keeps_its_slot() -> None:
    mesh = Mesh("ab", slots={A: 1, B: 0})
    mesh.verdict = lambda begun: None
    spec = mesh.spec("a")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    mesh.run(0.1)
    token = mesh.begun[0].token
    node = mesh.nodes[A]
    effects = node.handle(StoreRefused("full"), mesh.now)
    assert [effect.token for effect in effects if isinstance(effect, StopRun)] == [token]
    mesh.make_room(A)
    mesh.run(3.0)
    assert len(mesh.begun) == 1, "the slot was given away while a worker was in it"
    mesh.do(A, RunEnded(spec.id, token, succeeded(), False))
    mesh.run_until(lambda: len(mesh.begun) == 2)


def test_a_disk_that_refuses_time_and_again_loses_nothing() -> None:
    mesh = Mesh("abc")
    specs = [mesh.spec() for _ in range(40)]
    for number, spec in enumerate(specs):
        mesh.submit((A, B, C)[number % 3], spec)
        mesh.run(0.05)
        name = (A, B, C)[number // 2 % 3]
        mesh.make_room(name) if not mesh.nodes[name].desk.storing else mesh.full.add(name)
    for name in (A, B, C):
        mesh.full.discard(name)
        if not mesh.nodes[name].desk.storing:
            mesh.make_room(name)
    mesh.run(1.0)
    for name in (A, B, C):  # of a write that failed only now
        if not mesh.nodes[name].desk.storing:
            mesh.make_room(name)
    taken = [
        receipt.job for done in mesh.submits.values() for receipt in done.receipts if receipt.error is None
    ]
    assert len(taken) > 10
    # As after a crash, a holder may lack a job that was settled while it was away.
    mesh.run_until(
        lambda: (
            all(any(mesh.has_settled(n, job) for n in (A, B, C)) for job in taken)
            and all(mesh.has_settled(n, job) for n in (A, B, C) for job in taken if mesh.has(n, job))
        )
    )


def test_when_all_disks_are_full_at_once_everything_goes_on_when_there_is_room() -> None:
    mesh = Mesh("abc", slots=0)
    specs = [mesh.spec() for _ in range(30)]
    mesh.submit(A, *specs)
    mesh.run(1.0)
    taken = [receipt for done in mesh.submits.values() for receipt in done.receipts]
    assert all(receipt.error is None for receipt in taken)
    mesh.full |= {A, B, C}
    for name in (A, B, C):
        mesh.submit(name, mesh.spec(name[0]))
    mesh.run(1.0)
    assert not any(node.ready for node in mesh.nodes.values())
    for name in (A, B, C):
        mesh.make_room(name)
    mesh.run_until(lambda: is_whole(mesh, 3))
    mesh.run_until(lambda: all(any(mesh.is_firm(n, spec.id) for n in (A, B, C)) for spec in specs))


# ------------------------------------------------------------------------------- the holder, the entry node


def test_a_holder_whose_disk_is_full_does_not_keep_a_submission_waiting() -> None:
    mesh = Mesh("abc")
    mesh.full |= {B}
    spec = mesh.spec("abc", acks=3)
    request = mesh.submit(A, spec)
    mesh.run_until(lambda: request in mesh.submits, limit_s=1.0)
    (receipt,) = mesh.submits[request].receipts
    assert isinstance(receipt.error, AcksLost), "three disks were asked for"
    assert set(receipt.error.context["nodes"]) == {A, C}


def test_a_submission_through_a_node_whose_disk_fails_is_taken_by_the_next_holder() -> None:
    mesh = Mesh("abc")
    mesh.full.add(A)
    spec = mesh.spec("abc")
    request = mesh.submit(A, spec)
    mesh.run_until(lambda: request in mesh.submits, limit_s=1.0)
    (receipt,) = mesh.submits[request].receipts
    assert receipt.error is None
    assert set(receipt.nodes) == {B, C}


def test_the_next_submissions_are_refused_for_certain() -> None:
    mesh = Mesh("abc")
    mesh.full.add(A)
    mesh.submit(A, mesh.spec("abc"))
    mesh.run(0.1)
    spec = mesh.spec("abc")
    error = refusal(mesh, A, spec)
    assert (error.status, error.slug, error.definite) == (507, "store-unwritable", True)
    mesh.run(1.0)
    assert not any(mesh.has(name, spec.id) for name in (A, B, C))


def test_a_lone_node_acknowledges_nothing_that_its_disk_refused() -> None:
    mesh = Mesh("a")
    mesh.full.add(A)
    request = mesh.submit(A, mesh.spec("a"))
    mesh.run(15.0)
    assert request not in mesh.submits
    assert mesh.unanswered == {request}
    error = refusal(mesh, A, mesh.spec("a"))
    assert (error.status, error.slug, error.definite) == (507, "store-unwritable", True)
    mesh.make_room(A)
    mesh.run_until(lambda: mesh.nodes[A].ready, limit_s=1.0)
    spec = mesh.spec("a")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))


@pytest.mark.parametrize("entry", [A, B])
def test_every_node_answers_for_a_job_while_a_disk_is_full(entry: NodeId) -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    mesh.full.add(A)
    mesh.submit(A, mesh.spec("abc"))
    mesh.run(0.1)
    request = mesh.read(entry, spec.id)
    mesh.run_until(lambda: request in mesh.reads, limit_s=1.0)
    assert mesh.reads[request].records[spec.id].state is State.SUCCEEDED


def test_a_read_under_way_shows_nothing_that_the_disk_refused() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: (1.0, succeeded())
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    request = mesh.read(A, spec.id, wait_s=10.0)
    mesh.run(0.5)
    mesh.full.add(A)  # the end of the run is what cannot be written
    mesh.run_until(lambda: request in mesh.reads)
    record = mesh.reads[request].records[spec.id]
    assert record.settled
    assert record.outcome is not None
    assert record.outcome.runner != A, "the result that A could not store was shown"
    assert Counter(mesh.runs(spec.id))[A] == 1


def test_a_job_whose_only_living_copy_is_on_a_full_disk_is_not_denied() -> None:
    mesh = Mesh("abc", slots=0)
    spec = mesh.spec("abc", acks=1)
    mesh.cut((A, B), (A, C))
    mesh.submit(A, spec)
    mesh.run(0.01)
    mesh.heal()
    mesh.full.add(A)
    mesh.submit(A, mesh.spec("a"))
    mesh.run(0.1)
    if not any(mesh.has(name, spec.id) for name in (B, C)):
        request = mesh.read(B, spec.id)
        mesh.run_until(lambda: request in mesh.reads)
        error = mesh.reads[request].errors[spec.id]
        assert not error.definite, error


def test_jobs_that_wait_for_a_majority_settle_under_the_two_disks_that_are_left() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: None if begun.node == A else (0.1, succeeded())
    spec = mesh.spec("abc", partition=Partition.WAIT)
    mesh.submit(A, spec)
    mesh.run(0.3)
    mesh.full.add(A)
    mesh.submit(A, mesh.spec("abc"))
    mesh.run_until(lambda: mesh.has_settled(B, spec.id))
    assert majority(2, mesh.record(B, spec.id).holders)


# -------------------------------------------------------------------------------------------- the end


def test_who_is_told_to_leave_while_its_disk_refuses_ends_and_is_to_be_kept() -> None:
    mesh = Mesh("abc")
    mesh.full.add(A)
    mesh.submit(A, mesh.spec("abc"))
    mesh.run(0.1)
    mesh.do(A, LeaveAsked())
    mesh.run(0.01)
    assert mesh.left == {A: False}
    assert not mesh.nodes[B].view.has_left(A)


def test_a_disk_that_refuses_while_its_node_leaves_ends_it() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: None
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    mesh.do(A, LeaveAsked())
    mesh.run(0.1)
    effects = mesh.do(A, StoreRefused("full"))
    assert [effect for effect in effects if isinstance(effect, Left)] == [Left(False)]
