"""Whom a node probes: everybody in a small mesh, so many and always the same in a large one."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from membership_mesh import node_id

from edgenode.core.rounds import POSTPONED_MAX, SPREAD, Rounds
from edgenode.core.types import FOREVER, Instant, NodeId, Seconds

PERIOD_S: Seconds = 0.1


def make_rounds(others: range, *, watched_max: int = 64, me: int = 1) -> Rounds:
    rounds = Rounds(Random(me), node_id(me), watched_max, PERIOD_S)
    for number in others:
        if number != me:
            rounds.add(node_id(number), 0.0)
    return rounds


def turns(rounds: Rounds, until: Instant) -> list[tuple[Instant, NodeId]]:
    """Whose turns come by then, and when."""
    found = []
    while (at := rounds.next_at()) <= until:
        node = rounds.take(at)
        assert node is not None
        found.append((at, node))
    return found


def test_without_members_it_is_nobodys_turn() -> None:
    rounds = make_rounds(range(0))
    assert rounds.next_at() == FOREVER
    assert rounds.take(1e9) is None


def test_a_small_mesh_is_watched_whole_each_member_about_once_a_round() -> None:
    rounds = make_rounds(range(2, 8))
    round_s = 6 * PERIOD_S
    last = {node_id(number): 0.0 for number in range(2, 8)}
    assert {node for _, node in turns(make_rounds(range(2, 8)), round_s)} == set(last)
    for at, node in turns(rounds, 100 * round_s):
        assert at - last[node] <= (1 + SPREAD) * round_s
        last[node] = at
    assert all(100 * round_s - at <= (1 + SPREAD) * round_s for at in last.values())


def test_who_pings_first_is_not_asked_for_a_round() -> None:
    rounds = make_rounds(range(2, 6))
    at, node = turns(rounds, 4 * PERIOD_S)[-1]
    rounds.pinged(node, at + PERIOD_S)
    later = min(due for due, found in turns(rounds, at + 20 * PERIOD_S) if found == node)
    assert (1 - SPREAD) * 4 * PERIOD_S <= later - at - PERIOD_S <= (1 + SPREAD) * 4 * PERIOD_S


def test_who_only_speaks_is_asked_all_the_same_now_and_then() -> None:
    """It may be deaf, and then it is no member that anybody can work with."""
    rounds = make_rounds(range(2, 3))
    now, asked = 0.0, []
    for _ in range(100):
        now += PERIOD_S / 2
        rounds.pinged(node_id(2), now)
        asked += [at for at, _ in turns(rounds, now)]
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert asked
    assert max(gaps) <= (POSTPONED_MAX * 0.5 + 1 + SPREAD) * PERIOD_S + PERIOD_S / 2


def test_of_two_that_watch_each_other_each_is_first_about_half_of_the_time() -> None:
    sides = {1: make_rounds(range(2, 3), me=1), 2: make_rounds(range(1, 2), me=2)}
    pings: Counter[int] = Counter()
    for _ in range(2000):
        me = min(sides, key=lambda number: sides[number].next_at())
        at = sides[me].next_at()
        sides[me].take(at)
        sides[3 - me].pinged(node_id(me), at)
        pings[me] += 1
    assert 0.4 < pings[1] / pings.total() < 0.6
    assert 0.85 < at / PERIOD_S / 2000 < 1  # about one a round, and not two


def test_a_stranger_that_pings_gets_no_turn() -> None:
    rounds = make_rounds(range(2, 4))
    rounds.pinged(node_id(9), 0.0)
    assert {node for _, node in turns(rounds, 1.0)} == {node_id(2), node_id(3)}


def test_in_a_large_mesh_so_many_are_watched_and_everybody_has_watchers() -> None:
    watchers: Counter[str] = Counter()
    mutual = 0
    watched: dict[str, set[NodeId]] = {}
    for me in range(1, 301):
        rounds = make_rounds(range(1, 301), watched_max=32, me=me)
        chosen = rounds.watched()
        assert len(chosen) == 32
        assert {node for _, node in turns(rounds, 32 * PERIOD_S)} == set(chosen)
        watchers.update(chosen)
        watched[node_id(me)] = set(chosen)
    for me, chosen_by_me in watched.items():
        mutual += sum(me in watched[other] for other in chosen_by_me)
    assert len(watchers) == 300
    assert min(watchers.values()) >= 12
    assert max(watchers.values()) <= 64
    assert mutual > 0.8 * 300 * 32  # so most need to ask for half of those only


def test_one_join_or_death_changes_one_place() -> None:
    rounds = make_rounds(range(2, 200), watched_max=16)
    before = set(rounds.watched())
    rounds.remove(rounds.watched()[3], 0.0)
    assert len(before - set(rounds.watched())) == 1
    assert len(rounds.watched()) == 16


@given(st.lists(st.tuples(st.booleans(), st.integers(2, 30)), max_size=60), st.integers(1, 8))
def test_whatever_comes_and_goes_exactly_those_that_are_watched_have_turns(
    changes: list[tuple[bool, int]], watched_max: int
) -> None:
    rounds = make_rounds(range(0), watched_max=watched_max)
    members, now = set(), 0.0
    for is_joining, number in changes:
        now += PERIOD_S
        if is_joining:
            rounds.add(node_id(number), now)
            members.add(node_id(number))
        else:
            rounds.remove(node_id(number), now)
            members.discard(node_id(number))
        rounds.pinged(node_id(2), now)
        assert set(rounds) == members
        assert len(rounds.watched()) == min(watched_max, len(members))
        assert set(rounds.watched()) <= members
    longest_s = (1 + SPREAD) * watched_max * PERIOD_S
    assert {node for _, node in turns(rounds, now + longest_s)} == set(rounds.watched())
