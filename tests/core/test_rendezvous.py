"""The rank order: stable, balanced, weighted."""

from __future__ import annotations

from collections import Counter
from random import Random
from statistics import mean, pstdev

import pytest

from edgenode.core import rendezvous
from edgenode.core.job_ids import make_job_id
from edgenode.core.rendezvous import Ranking, rank_class, score
from edgenode.core.types import JobId, NodeId

NODES = [NodeId(f"node{number:012d}") for number in range(10)]


def some_jobs(count: int) -> list[JobId]:
    dice = Random(7)
    return [make_job_id(1e9 + number, dice.randbytes(10)) for number in range(count)]


def test_the_order_of_the_members_does_not_matter() -> None:
    forth = Ranking(dict.fromkeys(NODES, 1.0))
    back = Ranking(dict.fromkeys(reversed(NODES), 1.0))
    assert all(forth.rank(job) == back.rank(job) for job in some_jobs(200))


@pytest.mark.parametrize("gone", NODES[:3])
def test_taking_a_member_away_never_reorders_the_others(gone: NodeId) -> None:
    """Why the successor of a dead owner already holds its jobs."""
    all_of_them = Ranking(dict.fromkeys(NODES, 1.0))
    rest = Ranking({node: 1.0 for node in NODES if node != gone})
    for job in some_jobs(300):
        assert rest.rank(job) == tuple(node for node in all_of_them.rank(job) if node != gone)


def test_jobs_spread_evenly() -> None:
    ranking = Ranking(dict.fromkeys(NODES, 1.0))
    first = Counter(ranking.rank(job)[0] for job in some_jobs(20_000))
    assert len(first) == len(NODES)
    assert pstdev(first.values()) / mean(first.values()) < 0.08


def test_jobs_spread_about_as_evenly_in_a_large_mesh() -> None:
    nodes = [NodeId(f"node{number:012d}") for number in range(100)]
    ranking = Ranking(dict.fromkeys(nodes, 1.0))
    first = Counter(ranking.rank(job)[0] for job in some_jobs(40_000))
    assert len(first) == len(nodes)
    assert pstdev(first.values()) / mean(first.values()) < 0.09  # of which chance alone makes 0.05


def test_equal_weights_rank_by_the_digest_as_by_the_score() -> None:
    for place in range(50):
        by_score = sorted(NODES, key=lambda node: -score(place, node, 2.0))
        assert rank_class(place, dict.fromkeys(NODES, 2.0)) == tuple(by_score)


def test_what_is_remembered_of_the_order_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "RANKED_MAX", 200)
    ranking = Ranking(dict.fromkeys(NODES, 1.0))
    jobs = some_jobs(500)
    once = [ranking.rank(job) for job in jobs]
    assert [ranking.rank(job) for job in jobs] == once
    assert len(ranking._cache) == 20


def test_a_joiner_takes_its_share_and_moves_no_other_job() -> None:
    before = Ranking(dict.fromkeys(NODES[:9], 1.0))
    after = Ranking(dict.fromkeys(NODES, 1.0))
    jobs = some_jobs(10_000)
    moved = [job for job in jobs if before.rank(job)[0] != after.rank(job)[0]]
    assert all(after.rank(job)[0] == NODES[9] for job in moved)
    assert len(moved) / len(jobs) == pytest.approx(1 / 10, rel=0.2)


def test_weight_scales_a_members_share() -> None:
    ranking = Ranking({NODES[0]: 3.0, NODES[1]: 1.0})
    first = Counter(ranking.rank(job)[0] for job in some_jobs(20_000))
    assert first[NODES[0]] / first[NODES[1]] == pytest.approx(3.0, rel=0.15)


def test_an_empty_mesh_ranks_nobody() -> None:
    assert Ranking({}).rank(some_jobs(1)[0]) == ()
