"""The mesh clock under handed-in readings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenode.core.meshclock import MeshClock
from edgenode.core.types import FOREVER, NodeId

A, B, C, D = (NodeId(letter) for letter in "bcde")
WALL = 1e9
HOUR_S = 3600.0
SKEW_S = 600.0


def mesh_clock(own: float, *others: float | None, hold_s: float = 0.0, floor: float = 0.0) -> MeshClock:
    """A clock at instant 0: this machine's is `own` ahead of the truth, the others' as given (None: known,
    but not heard)."""
    clock = MeshClock(skew_max_s=SKEW_S, hold_s=hold_s)
    for node, _ in zip((A, B, C, D), others, strict=False):
        clock.met(node)
    clock.read(WALL + own, 0.0)
    clock.remember(floor, 0.0)
    for node, ahead in zip((A, B, C, D), others, strict=False):
        if ahead is not None:
            clock.hear(node, WALL + ahead, 0.0)
    return clock


def test_a_mesh_of_one_uses_its_own_clock() -> None:
    clock = mesh_clock(HOUR_S)
    assert clock.wall(5.0) == WALL + HOUR_S + 5
    assert clock.trusted(5.0)


def test_one_wrong_clock_of_three_changes_nothing_and_knows_that_it_is_wrong() -> None:
    wrong, right = mesh_clock(HOUR_S, 0.0, 1.0), mesh_clock(0.0, HOUR_S, 1.0)
    assert wrong.wall(0.0) == right.wall(0.0) == WALL + 1
    assert (wrong.is_far, wrong.trusted(0.0)) == (True, False)
    assert (right.is_far, right.trusted(0.0)) == (False, True)
    assert wrong.own_ahead == HOUR_S - 1
    assert right.ahead(A) == HOUR_S - 1


def test_two_clocks_that_differ_too_much_are_both_doubted() -> None:
    assert not mesh_clock(0.0, HOUR_S).trusted(0.0)
    assert mesh_clock(0.0, HOUR_S).sure(0.0) == -FOREVER
    assert not mesh_clock(HOUR_S, 0.0).trusted(0.0)
    assert mesh_clock(0.0, SKEW_S).trusted(0.0)


@pytest.mark.parametrize(
    ("others", "is_trusted"),
    [
        ((None, None), False),
        ((0.0, None), True),  # two of three agree
        ((None,), False),
        ((0.0, None, None), True),  # half of them, and all that were heard
        ((0.0, HOUR_S, None), True),
        ((0.0, HOUR_S, HOUR_S), False),
        ((0.0, None, None, None), False),
        ((HOUR_S, HOUR_S, None, None), False),  # they agree, but are not a majority of the known
    ],
)
def test_only_a_majority_of_the_known_members_is_trusted(
    others: tuple[float | None, ...], is_trusted: bool
) -> None:
    assert mesh_clock(0.0, *others).trusted(0.0) is is_trusted


def test_of_a_large_mesh_some_are_enough() -> None:
    """A node of a thousand probes a few dozen."""
    clock = mesh_clock(0.0)
    nodes = [NodeId(f"n{number}") for number in range(1000)]
    for node in nodes:
        clock.met(node)
    for node in nodes[:16]:
        assert not clock.trusted(0.0)
        clock.hear(node, WALL + 1, 0.0)
    assert clock.trusted(0.0)


def test_wrong_clocks_that_are_heard_first_are_not_believed() -> None:
    """Two of five are an hour ahead. A third that hears them alone must not let jobs expire by them."""
    clock = mesh_clock(HOUR_S, HOUR_S, 0.0, None, None)
    assert not clock.is_far
    assert not clock.trusted(0.0)


def test_a_member_that_died_still_counts_until_it_is_forgotten() -> None:
    """Or the last one of a mesh would believe its own clock at once, whatever it shows."""
    clock = mesh_clock(0.0, 0.0, 0.0)
    clock.read(WALL + HOUR_S + 60, 60.0)
    assert not clock.trusted(60.0)
    for node in (A, B):
        clock.forget(node)
    clock.read(WALL + HOUR_S + 61, 61.0)
    assert clock.trusted(61.0)
    assert clock.wall(61.0) == WALL + HOUR_S + 61


def test_after_power_loss_and_with_a_flat_battery_time_goes_on_from_the_disk() -> None:
    alone = mesh_clock(-WALL, floor=WALL)
    assert alone.wall(10.0) == WALL + 10
    assert alone.told(10.0) == WALL + 10
    assert alone.trusted(10.0)


def test_a_time_on_disk_that_the_own_clock_and_the_others_contradict_was_wrong() -> None:
    clock = mesh_clock(0.0, 1.0, floor=WALL + 365 * 24 * HOUR_S)
    assert clock.wall(0.0) == pytest.approx(WALL + 0.5)
    assert clock.trusted(0.0)


def test_until_enough_clocks_were_heard_the_time_on_disk_goes_on_for_a_while() -> None:
    """A restarted node whose own clock is an hour ahead must not start jobs before their day."""
    clock = mesh_clock(HOUR_S, None, None, hold_s=10.0, floor=WALL)
    assert clock.wall(5.0) == WALL + 5
    clock.read(WALL + HOUR_S + 10, 10.0)
    assert clock.wall(10.0) == WALL + HOUR_S + 10  # nobody came


def test_it_slows_down_rather_than_go_back() -> None:
    clock = mesh_clock(0.0)
    clock.read(WALL + 100.0, 10.0)  # somebody set it, 90 s ahead
    assert clock.wall(10.0) == WALL + 100
    clock.read(WALL + 20.0, 20.0)  # and back
    assert clock.wall(20.0) == WALL + 110
    assert clock.wall(22.0) == WALL + 111
    clock.read(WALL + 30.0, 30.0)
    assert clock.wall(30.0) == WALL + 115
    assert clock.wall(300.0) == WALL + 300  # they have met


def test_a_lonely_clock_that_went_back_far_is_not_trusted_until_it_has_been_caught_up() -> None:
    clock = mesh_clock(0.0)
    clock.read(WALL + HOUR_S + 10, 10.0)
    clock.read(WALL + 20, 20.0)
    assert not clock.trusted(20.0)
    assert clock.wall(20.0) == WALL + HOUR_S + 20
    assert clock.sure(20.0) == WALL + 20, "which is over by any clock"
    clock.read(WALL + 2 * HOUR_S, 2 * HOUR_S)
    assert clock.trusted(2 * HOUR_S)


def test_a_majority_of_clocks_that_is_put_right_sets_the_mesh_back() -> None:
    clock = mesh_clock(0.0, HOUR_S, HOUR_S)
    assert clock.wall(0.0) == WALL + HOUR_S
    clock.hear(A, WALL + 10, 10.0)
    clock.hear(B, WALL + 10, 10.0)
    clock.read(WALL + 10, 10.0)
    assert clock.wall(10.0) == WALL + 10
    assert clock.trusted(10.0)


def test_a_reading_is_corrected_by_half_a_round_trip() -> None:
    clock = mesh_clock(0.0, None)
    clock.hear(A, WALL, 0.4, round_trip_s=0.4)
    assert clock.ahead(A) == pytest.approx(-0.1)  # of the mean of both


@pytest.mark.parametrize("wall", [0.0, -1.0, float("inf"), 1e12])
def test_nonsense_is_not_heard(wall: float) -> None:
    clock = mesh_clock(0.0, None)
    clock.hear(A, wall, 0.0)
    assert clock.ahead(A) is None


steps = st.tuples(
    st.floats(0.0, 100.0), st.sampled_from(["own", "a", "b"]), st.floats(-SKEW_S / 2, SKEW_S / 2)
)


@given(st.lists(steps, max_size=20))
def test_it_never_goes_back_while_clocks_are_off_by_no_more_than_is_allowed(
    moves: list[tuple[float, str, float]],
) -> None:
    clock = mesh_clock(0.0, 0.0, 0.0)
    now, shown = 0.0, clock.wall(0.0)
    for after_s, whose, off_s in moves:
        now += after_s
        assert clock.wall(now) >= shown
        shown = clock.wall(now)
        if whose == "own":
            clock.read(WALL + now + off_s, now)
        else:
            clock.hear(A if whose == "a" else B, WALL + now + off_s, now)
        assert clock.wall(now) >= shown - 1e-6
        shown = max(shown, clock.wall(now))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=2), st.booleans())
def test_a_minority_of_wrong_clocks_never_moves_it_beyond_the_right_ones(
    wrong: list[float], own_is_wrong: bool
) -> None:
    right = [-1.0, 0.0, 1.0][: len(wrong) + 1]
    own, *others = [*wrong, *right] if own_is_wrong else [*right, *wrong]
    clock = mesh_clock(own, *others)
    later = 2 * SKEW_S  # a first reading that was ahead by no more than is allowed is not taken back at once
    assert WALL - 1 <= clock.wall(later) - later <= WALL + 1
    assert clock.trusted(later) is (abs(own - (clock.wall(later) - later - WALL)) <= SKEW_S / 2)
