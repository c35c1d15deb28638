"""When a first start is told to the holders: not before it has lasted a moment."""

from __future__ import annotations

from job_mesh import A, B, C, Mesh, succeeded

from edgenode.core.job_bytes import decode
from edgenode.core.types import State
from edgenode.core.wire import Grant, Write


def test_of_a_job_that_ends_at_once_the_holders_hear_its_end_only() -> None:
    mesh = Mesh("abc", slots=1)
    mesh.verdict = lambda begun: (0.001, succeeded())
    mesh.submit(A, *mesh.specs(4, "abc"))
    mesh.run(2.0)
    told = [decode(blob) for write in mesh.messages(Write, source=A, to=B) for blob in write.records]
    started_there = [record for record in told if record.own.state is State.RUNNING and not record.outcome]
    assert len(told) == 2 * 4  # the submission and the end of each
    assert len(started_there) == 1  # the first found a free slot at once


def test_a_start_that_lasts_is_told_to_the_holders() -> None:
    mesh = Mesh("abc", slots=1)
    mesh.verdict = lambda begun: (0.001, succeeded()) if len(mesh.begun) == 1 else None
    mesh.submit(A, *(specs := mesh.specs(2, "abc")))
    mesh.run_until(lambda: len(mesh.begun) == 2)
    second = mesh.begun[1].job
    assert second in [spec.id for spec in specs]
    assert mesh.record(B, second).own.state is State.QUEUED
    mesh.run(2 * mesh.settings.jobs.start_lag_s)
    assert mesh.record(B, second).own.state is State.RUNNING


def test_a_start_on_a_peer_is_told_to_the_holders_at_once() -> None:
    """It goes on without its owner: whoever owns the job next must ask for it, and not start it again."""
    mesh = Mesh("abc", slots={A: 0, B: 1, C: 0})
    mesh.verdict = lambda begun: None
    mesh.submit(A, spec := mesh.spec("abc"))
    mesh.run_until(lambda: bool(mesh.messages(Grant)))
    mesh.run(0.01)
    granted = next(sent for sent in mesh.sent if isinstance(sent.message, Grant))
    written = [
        sent.at
        for sent in mesh.sent
        if isinstance(sent.message, Write) and decode(sent.message.records[0]).own.state is State.RUNNING
    ]
    assert min(written) <= granted.at
    assert mesh.runs(spec.id) in ([], [B])
