"""Who is told when a job ends."""

from __future__ import annotations

from job_mesh import A, B, C, job_id

from edgenode.core.followers import Followers

PATIENCE_S = 5.0
ONE, TWO = job_id(1), job_id(2)


def test_all_who_follow_a_job_are_told_once() -> None:
    followers = Followers(PATIENCE_S)
    followers.note(ONE, (B, 7), 0.0)
    followers.note(ONE, (C, 7), 0.0)
    followers.note(TWO, (C, 7), 0.0)
    assert ONE in followers
    assert followers.take(ONE) == [(B, 7), (C, 7)]
    assert followers.take(ONE) == []
    assert followers.take(TWO) == [(C, 7)]
    assert len(followers) == 0


def test_who_has_not_asked_for_a_while_is_forgotten() -> None:
    followers = Followers(PATIENCE_S)
    followers.note(ONE, (B, 1), 0.0)
    followers.note(ONE, (C, 1), 0.0)
    followers.note(ONE, (C, 1), 4.0)
    followers.note(TWO, (B, 2), 5.0)
    assert followers.take(ONE) == [(C, 1)]
    assert TWO in followers


def test_who_is_gone_is_forgotten_at_once() -> None:
    followers = Followers(PATIENCE_S)
    for job in (ONE, TWO):
        for node in (A, B, C):
            followers.note(job, (node, 1), 0.0)
    followers.drop((B, 1))
    followers.drop((B, 9))
    followers.drop_nodes({C})
    assert followers.take(ONE) == [(A, 1)]
    followers.note(TWO, (B, 3), 0.0)
    followers.keep_only(A)
    assert followers.take(TWO) == [(A, 1)]
    assert len(followers) == 0
