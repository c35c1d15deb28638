"""How a node hands over what it owns, and when it may go."""

from __future__ import annotations

from typing import Any

import pytest
from job_mesh import A, B, C, D, E, Mesh, failed, let_pass

from edgenode.core.custody import Custody
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.signals import ClockRead, LeaveAsked, TimePassed
from edgenode.core.types import Instant, State
from edgenode.core.wire import Gift, Write

BATCH = 50


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Instant]:
    """When a job was looked at that a leaving node owns."""
    looked: list[Instant] = []
    give_away = Custody.give_away

    def counted(custody: Custody, *arguments: Any, **options: Any) -> bool:
        looked.append(custody._desk.now)
        return give_away(custody, *arguments, **options)

    monkeypatch.setattr(Custody, "give_away", counted)
    return looked


def test_a_node_that_owns_very_many_jobs_gives_them_away_a_batch_at_a_time(looks: list[Instant]) -> None:
    """And not all of them with every event: that would keep it from answering anybody."""
    settings = Settings(jobs=JobSettings(batch=BATCH))
    mesh = Mesh("abcd", slots=0, settings=settings)
    specs = mesh.specs(4 * BATCH, "a")
    mesh.submit(A, *specs)
    mesh.run(2.0)
    assert len(mesh.nodes[A].desk.table.leads) == len(specs)
    mesh.rule = lambda source, to, message: not isinstance(message, Gift)
    mesh.do(A, LeaveAsked())
    assert len(looks) <= BATCH
    mesh.run(0.1)
    looked = len(looks)
    assert looked >= len(specs)
    for _ in range(20):
        mesh.do(A, ClockRead(mesh.wall()))
    assert len(looks) == looked, "nothing happened, and no answer is late yet"
    mesh.run(2 * settings.jobs.retry_s)
    assert len(looks) >= 2 * looked, "a gift may be lost"
    mesh.rule = let_pass
    mesh.run_until(lambda: A in mesh.left, limit_s=5.0)
    assert mesh.left[A]
    assert all(mesh.lead(A, spec.id) is None for spec in specs)


def test_a_job_that_stops_running_while_its_owner_leaves_is_given_away_at_once() -> None:
    mesh = Mesh("abc", slots={A: 1, B: 0, C: 0})
    mesh.verdict = lambda begun: None
    spec = mesh.spec("a")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    mesh.run(0.1)
    mesh.do(A, LeaveAsked())
    mesh.run(1.2)
    assert mesh.messages(Gift) == []
    mesh.end_run(A, spec.id, mesh.begun[0].token, failed(retry_after_s=60.0))
    asked_at = mesh.now
    mesh.run_until(lambda: A in mesh.left)
    assert mesh.now - asked_at < 0.1
    assert mesh.left[A]
    assert mesh.record(B, spec.id).state is State.SCHEDULED


def test_a_node_without_heirs_finds_another_one_when_that_dies_which_was_to_take_its_place() -> None:
    mesh = Mesh("abcd", slots=0, settings=Settings(jobs=JobSettings(replicas=1)))
    spec = mesh.spec("ab")
    mesh.submit(A, spec)
    mesh.run(1.0)
    mesh.rule = lambda source, to, message: to != B or not isinstance(message, Write)
    mesh.do(A, LeaveAsked())
    mesh.run(0.2)
    assert mesh.nodes[A].desk.newcomers == {spec.id: (B,)}
    mesh.kill(B)
    mesh.run_until(lambda: A in mesh.left)
    assert mesh.left[A]
    assert mesh.has(C, spec.id) or mesh.has(D, spec.id)


def test_a_node_that_has_said_goodbye_looks_at_nothing_any_more() -> None:
    mesh = Mesh("a", slots=0)
    mesh.submit(A, mesh.spec("a"))
    mesh.run(1.0)
    mesh.do(A, LeaveAsked())
    mesh.run_until(lambda: mesh.left == {A: False}, limit_s=1.0)
    later = mesh.now + 0.6
    mesh.nodes[A].handle(TimePassed(), later)
    assert mesh.nodes[A].deadline() > later


def test_a_node_whose_vote_is_needed_counts_the_votes_again_when_its_copies_are_safe() -> None:
    """And does not wake up for that while it has something else to see to."""
    mesh = Mesh("abcde", slots=0)
    mesh.submit(B, mesh.spec("bac", not_on="de"))
    mesh.run(0.5)
    mesh.kill(C)
    mesh.run(0.5)
    mesh.rule = lambda source, to, message: to not in (D, E) or not isinstance(message, Write)
    mesh.do(A, LeaveAsked())
    mesh.run(1.0)
    assert A not in mesh.left
    mesh.kill(D)
    mesh.run(0.5)
    mesh.rule = let_pass
    asked_at = mesh.now
    mesh.run_until(lambda: A in mesh.left)
    assert mesh.left[A]
    assert mesh.now - asked_at < 1.0
