"""Whole nodes whose machines show different times."""

from __future__ import annotations

from job_mesh import WALL, A, B, C, Mesh

HOUR_S = 3600.0


def test_an_owner_whose_clock_is_wrong_writes_the_days_of_the_mesh() -> None:
    mesh = Mesh("abc", ahead_s={A: HOUR_S})
    spec = mesh.spec("abc")
    mesh.submit(B, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    record = mesh.record(C, spec.id)
    assert record.owner == A
    assert record.outcome is not None
    assert abs(record.outcome.finished_at - mesh.wall()) < 1.0


def test_a_node_says_once_that_its_clock_is_wrong_and_once_that_it_is_right_again() -> None:
    mesh = Mesh("abc", ahead_s={A: -HOUR_S})
    mesh.run(5.0)
    mesh.ahead_s[A] = 0.0
    mesh.run(5.0)
    said = [(name, log.kind) for name, log in mesh.logs if log.kind.startswith("clock")]
    assert said == [(A, "clock-far"), (A, "clock-agrees")]
    assert "-3600 s" in next(log.text for _, log in mesh.logs if log.kind == "clock-far")


def test_a_job_falls_due_by_the_mesh_s_time_and_not_by_its_owner_s() -> None:
    for ahead_s in (-HOUR_S, HOUR_S):
        mesh = Mesh("abc", ahead_s={A: ahead_s})
        due_at = mesh.wall() + 4.0
        spec = mesh.spec("abc", run_at=due_at)
        mesh.submit(B, spec)
        mesh.run_until(lambda: bool(mesh.begun))  # noqa: B023
        assert mesh.begun[0].node == A
        assert 0 <= WALL + mesh.begun[0].at - due_at < 0.5


def test_a_clock_that_jumps_moves_no_day() -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("abc", run_at=mesh.wall() + 10.0)
    mesh.submit(A, spec)
    mesh.run(2.0)
    mesh.ahead_s[A] = HOUR_S
    mesh.run(7.0)
    assert mesh.begun == []
    mesh.run_until(lambda: bool(mesh.begun), limit_s=2.0)


def test_a_restarted_node_with_a_flat_battery_goes_on_from_the_time_on_its_disk() -> None:
    mesh = Mesh("a")
    mesh.run(130.0)
    kept = mesh.disks[A].clock
    assert mesh.wall() - 70 <= kept <= mesh.wall()
    mesh.kill(A)
    mesh.ahead_s[A] = -WALL
    mesh.boot(A)
    assert kept <= mesh.nodes[A].desk.wall < mesh.wall()


def test_a_time_that_nobody_agrees_with_is_not_kept() -> None:
    mesh = Mesh("ab", ahead_s={A: HOUR_S})
    mesh.run(130.0)
    assert mesh.disks[A].clock == mesh.disks[B].clock == 0.0
