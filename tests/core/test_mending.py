"""Damaged rows are fetched again, shown, and never voted with; where nobody has them that is said."""

from __future__ import annotations

from job_mesh import A, B, C, Mesh, succeeded

from edgenode.core.signals import RowsDamaged
from edgenode.core.types import JobId, NodeId, State
from edgenode.core.wire import Wanted


def damage(mesh: Mesh, name: NodeId, *jobs: JobId) -> None:
    """As a store that finds these rows damaged."""
    mesh.disks[name].lost.update(jobs)
    mesh.do(name, RowsDamaged(jobs))


def logged(mesh: Mesh, name: NodeId) -> set[str]:
    return {log.kind for node, log in mesh.logs if node == name}


def test_a_finished_job_whose_row_was_damaged_is_fetched_from_another_node() -> None:
    mesh = Mesh("abc")
    specs = mesh.specs(20, "abc")
    mesh.submit(A, *specs)
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs))
    mesh.run(1.0)
    jobs = [spec.id for spec in specs]
    before = [mesh.record(C, job) for job in jobs]
    mesh.disks[C].lost.update(jobs)
    assert not any(mesh.has(C, job) for job in jobs)
    damage(mesh, C, *jobs)
    mesh.run(0.1)
    assert [mesh.record(C, job) for job in jobs] == before
    assert not any(mesh.nodes[C].desk.table.may_vote(job) for job in jobs)
    mesh.run(10.0)
    assert "rows-mended" in logged(mesh, C)


def test_an_unfinished_job_whose_row_was_damaged_at_the_start_is_owned_by_another_holder() -> None:
    mesh = Mesh("abc", slots=0)
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run(0.5)
    mesh.kill(A)
    mesh.disks[A].lost.add(spec.id)
    mesh.boot(A)
    mesh.do(A, RowsDamaged((spec.id,)))
    mesh.run_until(lambda: mesh.is_firm(B, spec.id) or mesh.is_firm(C, spec.id))
    mesh.run_until(lambda: mesh.has(A, spec.id))
    mesh.run(10.0)
    assert not mesh.lead(A, spec.id)


def test_a_row_whose_record_is_in_memory_is_written_again() -> None:
    mesh = Mesh("ab", slots=0)
    spec = mesh.spec("ab")
    mesh.submit(A, spec)
    mesh.run(0.5)
    damage(mesh, A, spec.id)
    mesh.run(0.1)
    assert spec.id in mesh.disks[A].rewritten
    assert not mesh.messages(Wanted, source=A)


def test_damage_at_one_node_changes_no_result_anywhere() -> None:
    mesh = Mesh("abc")
    specs = [mesh.spec() for _ in range(40)]
    mesh.submit(A, *specs)
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs[:10]))
    before = {spec.id: mesh.record(B, spec.id) for spec in specs if mesh.has_settled(B, spec.id)}
    damage(mesh, A, *(spec.id for spec in specs))
    mesh.kill(A)
    mesh.boot(A)
    mesh.do(A, RowsDamaged(tuple(spec.id for spec in specs)))
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs))
    for name in (A, B, C):
        for job, record in before.items():
            assert mesh.record(name, job).outcome == record.outcome
        assert {mesh.record(name, spec.id).state for spec in specs} == {State.SUCCEEDED}


def test_a_row_that_nobody_has_is_said_to_be_missed_and_asked_for_when_somebody_returns() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: (0.05, succeeded())
    spec = mesh.spec("ab")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    mesh.run(1.0)
    mesh.kill(B)
    mesh.kill(C)
    mesh.run(1.0)
    damage(mesh, A, spec.id)
    mesh.run(30.0)
    assert "rows-missed" in logged(mesh, A)
    asked = len(mesh.messages(Wanted, source=A))
    mesh.run(60.0)
    assert len(mesh.messages(Wanted, source=A)) == asked, "it goes on asking for ever"
    mesh.boot(B)
    mesh.run_until(lambda: mesh.has_settled(A, spec.id), limit_s=5.0)
