"""Finished jobs shrink, are forgotten, and do not come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from job_mesh import DAY_S, A, B, Begun, C, D, E, Mesh, let_pass, sends, succeeded

from edgenode.core.job_bytes import digest, encode
from edgenode.core.jobs import Record, is_marker, new_record, started
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.signals import LeaveAsked
from edgenode.core.specs import Spec
from edgenode.core.types import Ballot, JobId, NodeId, Promise, State
from edgenode.core.wire import (
    Acks,
    Ask,
    AskItem,
    Copies,
    Digest,
    Expired,
    Gift,
    GiftItem,
    Grant,
    GrantItem,
    Mark,
    Marks,
    Message,
    Offer,
    Promises,
    Result,
    Submit,
    Submitted,
    Wanted,
    Write,
)

SKEW_S = 4.0
QUICK = Settings(jobs=JobSettings(clock_skew_max_s=SKEW_S, sweep_s=1.0))


def endless(begun: Begun) -> None:
    return None


def quick_mesh(letters: str = "abc", **options: Any) -> Mesh:
    mesh = Mesh(letters, settings=QUICK, **options)
    mesh.verdict = lambda begun: (0.05, succeeded(b'"' + b"x" * 500 + b'"'))
    return mesh


def short(mesh: Mesh, lasts_s: float, first: str = "abc", **options: Any) -> Spec:
    """A job whose last day comes so soon."""
    return replace(mesh.spec(first, **options), expires_at=mesh.wall() + lasts_s)


def settle(mesh: Mesh, spec: Spec, at: NodeId = A) -> Record:
    mesh.submit(at, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    return mesh.record(at, spec.id)


def dropped_by(mesh: Mesh, job: JobId, *names: NodeId) -> Callable[[], bool]:
    return lambda: all(job not in mesh.disks[name].rows for name in names)


# ------------------------------------------------------------------------------------------ shrinking


def test_a_settled_job_shrinks_to_a_marker_after_its_time() -> None:
    mesh = quick_mesh()
    spec = mesh.spec("abc", ttl_s=10.0, payload=b'{"text":"' + b"y" * 500 + b'"}')
    before = settle(mesh, spec)
    mesh.run(9.0)
    assert mesh.record(C, spec.id) == before
    large = len(mesh.disks[C].rows[spec.id].row.blob)
    mesh.run(4.0)
    for name in (A, B, C):
        marker = mesh.record(name, spec.id)
        assert is_marker(marker)
        assert marker.settled
        assert (marker.state, marker.start_count) == (State.SUCCEEDED, 1)
        assert before.outcome is not None
        assert marker.outcome == before.outcome._replace(result=b"")
    stored = mesh.disks[C].rows[spec.id]
    assert len(stored.row.blob) < large / 3
    assert (stored.state, stored.task, stored.settled) == ("succeeded", "echo", True)


def test_a_result_that_is_not_settled_does_not_shrink() -> None:
    mesh = quick_mesh("ab")
    mesh.verdict = endless
    spec = mesh.spec("ab", ttl_s=1.0)
    mesh.submit(A, spec)
    mesh.run(0.5)
    mesh.kill(B)
    mesh.run(1.0)
    mesh.end_run(A, spec.id, mesh.begun[0].token, succeeded())
    mesh.run(20.0)
    record = mesh.record(A, spec.id)
    assert (record.state, record.settled, is_marker(record)) == (State.SUCCEEDED, False, False)
    mesh.boot(B)
    mesh.run_until(lambda: mesh.settled(spec.id))
    mesh.run(3.0)
    assert is_marker(mesh.record(A, spec.id))


def test_a_marker_goes_when_the_last_day_is_over_by_twice_the_skew_and_not_before() -> None:
    mesh = quick_mesh()
    spec = short(mesh, 20.0, ttl_s=2.0)
    settle(mesh, spec)
    over = spec.expires_at + 2 * SKEW_S
    mesh.run(over - 1.0 - mesh.wall())
    assert all(spec.id in mesh.disks[name].rows for name in (A, B, C))
    mesh.run(3.0)
    assert dropped_by(mesh, spec.id, A, B, C)()
    assert not mesh.has(B, spec.id)
    assert {mesh.disks[name].forgotten for name in (A, B, C)} == {spec.expires_at}


def test_an_end_that_came_late_is_shown_for_as_long_as_any_other() -> None:
    """After eight days without power nothing that was acknowledged vanishes without a word."""
    mesh = Mesh("abc", slots=0)
    spec = mesh.spec("abc", ttl_s=3600.0)
    mesh.submit(A, spec)
    mesh.run(1.0)
    for name in (A, B, C):
        mesh.kill(name, silently=True)
    mesh.run(8 * DAY_S)
    for name in (A, B, C):
        mesh.boot(name)
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert mesh.record(B, spec.id).state is State.EXPIRED
    mesh.run(3500.0)
    shown = mesh.read(C, spec.id)
    mesh.run_until(lambda: shown in mesh.reads)
    assert mesh.reads[shown].records[spec.id].state is State.EXPIRED
    mesh.run_until(dropped_by(mesh, spec.id, A, B, C), limit_s=200.0)


def test_a_node_whose_clock_is_wrong_drops_and_shrinks_nothing() -> None:
    mesh = quick_mesh()
    spec = short(mesh, 30.0, ttl_s=15.0)
    before = settle(mesh, spec)
    mesh.ahead_s[C] = 3600.0
    mesh.run(60.0)
    assert dropped_by(mesh, spec.id, A, B)()
    assert mesh.record(C, spec.id) == before
    mesh.ahead_s[C] = 0.0
    mesh.run_until(dropped_by(mesh, spec.id, C), limit_s=5.0)


def test_a_job_that_can_never_be_settled_is_shown_until_its_time_and_then_dropped_with_a_word() -> None:
    mesh = quick_mesh(slots=0)
    spec = short(mesh, 20.0, ttl_s=30.0)
    mesh.submit(A, spec)
    mesh.run(1.0)
    mesh.kill(A)
    mesh.kill(B)
    mesh.run_until(lambda: mesh.record(C, spec.id).outcome is not None)
    ended_at = mesh.now
    record = mesh.record(C, spec.id)
    assert (record.state, record.settled) == (State.EXPIRED, False)
    mesh.run(28.0)
    assert mesh.has(C, spec.id)
    mesh.run_until(dropped_by(mesh, spec.id, C), limit_s=ended_at + 35.0 - mesh.now)
    assert [log.kind for _, log in mesh.logs].count("never-settled") == 1
    assert mesh.nodes[C].desk.table.leads == {}


def test_nothing_is_looked_at_between_two_sweeps_and_a_crowd_is_looked_at_in_pieces() -> None:
    mesh = quick_mesh("a", slots=50)
    mesh.verdict = lambda begun: (0.001, succeeded())
    specs = [replace(spec, expires_at=mesh.wall() + 30.0) for spec in mesh.specs(900, "a", ttl_s=8.0)]
    mesh.submit(A, *specs)
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs))
    looks: list[tuple[float, int]] = []
    disk, due = mesh.disks[A], mesh.disks[A].due

    def watched(until: float, after: tuple[float, JobId], limit: int) -> list[tuple[float, JobId]]:
        rows = due(until, after, limit)
        looks.append((mesh.now, len(rows)))
        return rows

    disk.due = watched  # type: ignore[method-assign]
    mesh.run(45.0)
    assert disk.rows == {}
    assert max(found for _, found in looks) == 200
    assert len(looks) < 45 + 12
    table = mesh.nodes[A].desk.table
    mesh.run(1.0)
    assert (len(table), table._dropped, table._saving) == (0, {}, {})


# --------------------------------------------------------------------------------- what does not return


def forgotten(mesh: Mesh, **options: Any) -> tuple[Spec, Record]:
    """A job that every holder has dropped, and the copy of it from before it ran."""
    spec = short(mesh, 10.0, ttl_s=1.0, **options)
    settle(mesh, spec)
    mesh.run_until(dropped_by(mesh, spec.id, A, B, C))
    mesh.sent.clear()
    return spec, new_record(mesh.item(spec).spec, spec.id, mesh.holders(spec.id), 0.0, mesh.wall())


def says_expired(mesh: Mesh, to: NodeId, message: Message, job: JobId) -> bool:
    effects = mesh.tell(D, to, message)
    asserted = [*sends(effects, Acks), *sends(effects, Promises), *sends(effects, Submitted)]
    assert all(isinstance(said, Submitted) and said.answers[0].refused for said in asserted)
    return [said.jobs for said in sends(effects, Expired)] == [(job,)]


def test_no_copy_of_a_forgotten_job_is_taken_in_any_way() -> None:
    mesh = quick_mesh("abcd")
    spec, old = forgotten(mesh)
    job, blob = spec.id, encode(old)
    own = old._replace(own=old.own._replace(ballot=Ballot(5, D)))
    assert says_expired(mesh, A, Copies((blob,)), job)
    assert says_expired(mesh, A, Write((encode(own),)), job)
    asked = AskItem(job, 0, 7, spec.expires_at, digest(old))
    assert says_expired(mesh, A, Ask((asked,)), job)
    assert not says_expired(mesh, A, Submit(1, 0, (mesh.item(spec),)), job)  # it is refused
    for message in (Offer((Digest(job, b"x" * 8),)), Gift((GiftItem(job, old.ballot),))):
        assert sends(mesh.tell(D, A, message), Wanted)  # who then sends its copy is told
    assert sends(mesh.tell(D, A, Marks((Mark(job, 0, old.ballot),))), Wanted)
    running = started(own, runner=A, boot=1, at=mesh.wall())
    mesh.tell(D, A, Grant((GrantItem(job, running.own.token, 1, encode(running)),)))
    mesh.run(1.0)
    assert len(mesh.begun) == 1
    assert dropped_by(mesh, job, A, B, C)()
    assert not mesh.has(A, job)


def test_that_it_was_forgotten_survives_a_restart() -> None:
    mesh = quick_mesh("abcd")
    spec, old = forgotten(mesh)
    mesh.kill(A)
    mesh.boot(A)
    mesh.run(3.0)
    assert says_expired(mesh, A, Copies((encode(old),)), spec.id)


def forgotten_while_c_was_away() -> tuple[Mesh, Spec]:
    """C died with the job on its disk; since then A and B have let it expire, and dropped it."""
    mesh = quick_mesh("abc", slots={A: 0, B: 0, C: 1})
    mesh.verdict = endless
    spec = short(mesh, 12.0, ttl_s=1.0)
    mesh.submit(A, spec)
    mesh.run(0.2)
    mesh.kill(C)
    mesh.run_until(dropped_by(mesh, spec.id, A, B), limit_s=60.0)
    return mesh, spec


def test_a_node_that_was_away_can_not_bring_back_what_was_done() -> None:
    """expired-elsewhere: it holds the job as queued, and comes back when the others have forgotten it."""
    mesh, spec = forgotten_while_c_was_away()
    assert mesh.record(C, spec.id).outcome is None
    starts = len(mesh.begun)
    mesh.boot(C)
    mesh.run_until(dropped_by(mesh, spec.id, C), limit_s=30.0)
    assert len(mesh.begun) == starts
    assert dropped_by(mesh, spec.id, A, B)()
    assert "never-settled" in [log.kind for _, log in mesh.logs]


def test_what_a_node_has_unfinished_that_was_away_ends_for_all_to_see_before_it_goes() -> None:
    """A and B may have forgotten another job than this one, for all that C can know: its copy may be the last
    of what was acknowledged."""
    mesh = quick_mesh(slots=0)
    spec = short(mesh, 3.0, ttl_s=30.0)
    record = new_record(mesh.item(spec).spec, spec.id, (A, B, C), 0.0, mesh.wall())
    for name in (A, B):
        mesh.nodes[name].desk.table.drop(JobId(b"x" * 16), spec.expires_at + 1.0)
    mesh.run(5.0)
    mesh.tell(A, C, Copies((encode(record),)))
    mesh.run_until(lambda: mesh.record(C, spec.id).outcome is not None, limit_s=10.0)
    record = mesh.record(C, spec.id)
    assert (record.state, record.settled) == (State.EXPIRED, False)
    mesh.run(1.0)
    mesh.sent.clear()
    mesh.run(20.0)
    assert len(mesh.messages(Write, source=C)) < 3, "who takes no copy is not written to again and again"


def test_a_spare_copy_of_an_unfinished_job_ends_for_all_to_see_before_it_goes() -> None:
    """D is no holder; the holders that live have forgotten the job, and the last one is dead."""
    mesh = quick_mesh("abcd", slots=0)
    spec = short(mesh, 3.0, ttl_s=1.0)
    record = new_record(mesh.item(spec).spec, spec.id, (A, B, C), 0.0, mesh.wall())
    for name in (A, B):
        mesh.nodes[name].desk.table.drop(JobId(b"x" * 16), spec.expires_at + 1.0)
    mesh.kill(C)
    mesh.run(5.0)
    mesh.tell(A, D, Copies((encode(record),)))
    mesh.run_until(lambda: mesh.record(D, spec.id).state is State.EXPIRED, limit_s=10.0)
    assert not mesh.record(D, spec.id).settled
    mesh.run_until(dropped_by(mesh, spec.id, D), limit_s=30.0)


def test_expired_elsewhere_slow_clock() -> None:
    """Whose own clock is wrong keeps its copy, and does not run it either, until the clock is right."""
    mesh, spec = forgotten_while_c_was_away()
    starts = len(mesh.begun)
    mesh.ahead_s[C] = -3600.0
    mesh.boot(C)
    mesh.run(40.0)
    assert mesh.has(C, spec.id)
    assert mesh.record(C, spec.id).outcome is None
    mesh.ahead_s[C] = 0.0
    mesh.run_until(dropped_by(mesh, spec.id, C), limit_s=30.0)
    assert len(mesh.begun) == starts


def test_what_a_majority_still_remembers_one_that_forgot_does_not_end_silently() -> None:
    """A never had the job, and has dropped others of later days. B and C come to hold it when its day is over
    already: they let it expire for all to see."""
    mesh = quick_mesh("abcd", slots=0)
    spec = short(mesh, 3.0, ttl_s=30.0)
    record = new_record(mesh.item(spec).spec, spec.id, mesh.holders(spec.id), 0.0, mesh.wall())
    mesh.nodes[A].desk.table.drop(JobId(b"x" * 16), spec.expires_at + 1.0)
    mesh.run(5.0)
    for name in (B, C):
        mesh.tell(D, name, Copies((encode(record),)))
    mesh.run_until(lambda: mesh.has_settled(B, spec.id) and mesh.has_settled(C, spec.id), limit_s=30.0)
    assert mesh.record(C, spec.id).state is State.EXPIRED
    assert not mesh.has(A, spec.id)


def test_a_spare_copy_does_not_go_because_somebody_who_never_had_the_job_forgot_others() -> None:
    """D has the last copy that can be reached: A is no holder, and its word decides nothing."""
    mesh = quick_mesh("abcde", slots=0)
    spec = short(mesh, 3.0, ttl_s=30.0)
    record = new_record(mesh.item(spec).spec, spec.id, (B, C, E), 0.0, mesh.wall())
    for name in (B, C, E):
        mesh.kill(name)
    mesh.tell(A, D, Copies((encode(record),)))
    mesh.run(5.0)
    mesh.tell(A, D, Expired((spec.id,)))
    mesh.run(1.0)
    assert mesh.has(D, spec.id)


def test_a_spare_copy_is_not_offered_again_and_again_to_a_holder_that_forgot_its_job() -> None:
    """E, which is no holder, went on with the job; D tells a holder of its copy, and only A is left."""
    mesh = quick_mesh("abcde", slots=0)
    spec = short(mesh, 3.0, ttl_s=30.0)
    record = new_record(mesh.item(spec).spec, spec.id, (A, B, C), 0.0, mesh.wall())
    record = record._replace(own=record.own._replace(ballot=Ballot(2, E)))
    mesh.nodes[A].desk.table.drop(JobId(b"x" * 16), spec.expires_at + 1.0)
    for name in (B, C):
        mesh.kill(name)
    mesh.run(5.0)
    mesh.tell(E, D, Copies((encode(record),)))
    mesh.run(5.0)
    assert 0 < len(mesh.messages(Offer, source=D)) < 20


def far_ahead(mesh: Mesh, name: NodeId, spec: Spec) -> None:
    """By its clock this node has forgotten all jobs of that day."""
    mesh.nodes[name].desk.table.drop(JobId(b"x" * 16), spec.expires_at + 1.0)
    mesh.ahead_s[name] = 30 * DAY_S
    mesh.run(2.0)


def test_who_forgot_a_day_by_a_clock_that_was_far_ahead_is_left_out_when_a_holder_is_stood_in_for() -> None:
    mesh = quick_mesh("abcde")
    spec = mesh.spec("abcd")
    settle(mesh, spec)
    far_ahead(mesh, D, spec)
    mesh.kill(C)
    mesh.run_until(lambda: mesh.has(E, spec.id), limit_s=40.0)
    assert not mesh.has(D, spec.id)
    mesh.run(5.0)
    mesh.sent.clear()
    mesh.run(60.0)
    assert not mesh.messages(Offer)


def test_a_leaver_hands_nothing_to_who_forgot_its_day_by_a_clock_that_was_far_ahead() -> None:
    mesh = Mesh("abc", settings=Settings(jobs=replace(QUICK.jobs, replicas=1)))
    spec = mesh.spec("ab")
    settle(mesh, spec)
    far_ahead(mesh, B, spec)
    mesh.do(A, LeaveAsked())
    mesh.run_until(lambda: A in mesh.left)
    assert mesh.left[A]
    assert mesh.has(C, spec.id)


def test_a_promise_without_a_copy_is_kept_no_longer_than_a_marker() -> None:
    mesh = quick_mesh("abcd")
    spec = short(mesh, 5.0)
    mesh.tell(D, A, Ask((AskItem(spec.id, 0, 7, spec.expires_at, b""),)))
    mesh.run(1.0)
    assert mesh.disks[A].rows[spec.id].row.promise == Promise(0, Ballot(7, D))
    mesh.run(8.0)
    assert spec.id in mesh.disks[A].rows
    mesh.run_until(dropped_by(mesh, spec.id, A), limit_s=10.0)
    assert not mesh.nodes[A].desk.table.has_promise(spec.id)


def test_a_clock_that_once_ran_far_ahead_does_not_refuse_the_jobs_of_today() -> None:
    mesh = quick_mesh("abc")
    settle(mesh, spec := mesh.spec("abc", ttl_s=1.0))
    mesh.ahead_s = dict.fromkeys(mesh.ahead_s, 30 * DAY_S)
    mesh.run_until(dropped_by(mesh, spec.id, A, B, C))
    mesh.ahead_s = dict.fromkeys(mesh.ahead_s, 0.0)
    mesh.run(5.0)
    settle(mesh, replace(mesh.spec("abc"), expires_at=spec.expires_at - 1.0))


def test_a_marker_ends_what_an_old_copy_still_waits_for() -> None:
    mesh = quick_mesh("abc", slots={A: 1, B: 1, C: 0})
    spec = mesh.spec("abc", ttl_s=5.0)
    mesh.submit(A, spec)
    mesh.rule = lambda source, to, message: C not in (source, to)
    mesh.run(0.1)
    mesh.kill(C)
    mesh.run_until(lambda: is_marker(mesh.record(A, spec.id)) and is_marker(mesh.record(B, spec.id)))
    mesh.rule = lambda source, to, message: True
    mesh.boot(C)
    mesh.run_until(lambda: mesh.has(C, spec.id) and is_marker(mesh.record(C, spec.id)), limit_s=20.0)
    assert len(mesh.begun) == 1


@pytest.mark.parametrize("is_leaving", [False, True])
def test_markers_travel_to_those_who_stand_in_for_a_lost_holder(is_leaving: bool) -> None:
    mesh = quick_mesh("abcd")
    spec = mesh.spec("abc", not_on="d", ttl_s=1.0)
    settle(mesh, spec)
    mesh.run_until(lambda: all(is_marker(mesh.record(name, spec.id)) for name in (A, B, C)))
    if is_leaving:
        mesh.do(C, LeaveAsked())
    else:
        mesh.kill(C)
    mesh.run_until(lambda: mesh.has(D, spec.id), limit_s=90.0)
    assert is_marker(mesh.record(D, spec.id))


# --------------------------------------------------------------------------------------------- results


def test_a_result_that_no_owner_took_is_dropped_when_nobody_knows_the_job_any_more() -> None:
    """Else its runner would offer it for ever, and could not leave in good order."""
    mesh = quick_mesh("abcd", slots={A: 0, B: 0, C: 0, D: 1})
    mesh.rule = lambda source, to, message: not isinstance(message, Result)
    spec = replace(mesh.spec("abc", not_on="d", ttl_s=1.0), expires_at=mesh.wall() + 10.0)
    mesh.submit(A, spec)
    mesh.run_until(lambda: bool(mesh.messages(Result, source=D)))
    mesh.run_until(dropped_by(mesh, spec.id, A, B, C))
    mesh.rule = let_pass
    mesh.run(2.0)
    offered = len(mesh.messages(Result, source=D))
    mesh.run(10.0)
    assert len(mesh.messages(Result, source=D)) == offered
    mesh.do(D, LeaveAsked())
    mesh.run_until(lambda: D in mesh.left)
    assert mesh.left[D]
