"""Whom a node probes: everybody in a small mesh, so many and always the same in a large one."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from membership_mesh import node_id

from edgenode.core.rounds import RoundRobin


def round_of(robin: RoundRobin) -> list[object]:
    return [robin.next() for _ in robin.watched()]


def test_a_small_mesh_is_watched_whole_each_member_once_a_round() -> None:
    robin = RoundRobin(Random(1), node_id(1), 8)
    for number in range(2, 8):
        robin.add(node_id(number))
    for _ in range(3):
        assert sorted(map(str, round_of(robin))) == [node_id(number) for number in range(2, 8)]


def test_in_a_large_mesh_so_many_are_watched_and_everybody_has_watchers() -> None:
    watchers: Counter[str] = Counter()
    for me in range(1, 301):
        robin = RoundRobin(Random(me), node_id(me), 32)
        for number in range(1, 301):
            if number != me:
                robin.add(node_id(number))
        assert len(robin.watched()) == 32
        round_of(robin)  # places of newcomers
        assert sorted(map(str, round_of(robin))) == robin.watched()
        watchers.update(robin.watched())
    assert len(watchers) == 300
    assert min(watchers.values()) >= 12
    assert max(watchers.values()) <= 64


def test_one_join_or_death_changes_one_place() -> None:
    robin = RoundRobin(Random(1), node_id(1), 16)
    for number in range(2, 200):
        robin.add(node_id(number))
    before = set(robin.watched())
    robin.remove(robin.watched()[3])
    assert len(before - set(robin.watched())) == 1
    assert len(robin.watched()) == 16


@given(st.lists(st.tuples(st.booleans(), st.integers(2, 30)), max_size=60), st.integers(1, 8))
def test_whatever_comes_and_goes_only_members_that_are_watched_are_probed(
    changes: list[tuple[bool, int]], watched_max: int
) -> None:
    robin = RoundRobin(Random(1), node_id(1), watched_max)
    members = set()
    for is_joining, number in changes:
        if is_joining:
            robin.add(node_id(number))
            members.add(node_id(number))
        else:
            robin.remove(node_id(number))
            members.discard(node_id(number))
        assert set(robin) == members
        assert len(robin.watched()) == min(watched_max, len(members))
        assert set(robin.watched()) <= members
        probed = robin.next()
        assert probed in robin.watched() if members else probed is None
