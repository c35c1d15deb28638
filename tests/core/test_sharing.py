"""One object for all equal ones."""

from __future__ import annotations

from edgenode.core.sharing import KINDS_MAX, Shared


def test_of_equal_ones_the_first_is_used() -> None:
    shared: Shared[tuple[int], list[int]] = Shared()
    first = shared.one((1,), [1])
    assert shared.one((1,), [1]) is first
    assert shared.one((2,), [2]) is not first


def test_of_more_kinds_than_are_alike_none_is_kept_for_ever() -> None:
    shared: Shared[int, list[int]] = Shared()
    for number in range(10 * KINDS_MAX):
        shared.one(number, [number])
    assert len(shared._known) <= KINDS_MAX + 1
