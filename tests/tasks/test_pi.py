"""compute.pi: digits from any place."""

from __future__ import annotations

from typing import Any

import pytest

from edgenode.task import Cancel, Fail
from edgenode.tasks import pi
from edgenode.tasks.pi import certain_digits, digits
from scripts.samples import pi_hex

# The first two lines of the P-array of Blowfish, which is the fraction of pi (Schneier, 1993).
KNOWN = (
    "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89"
    "452821e638d01377be5466cf34e90c6cc0ac29b7c97c50dd3f84d5b5b5470917"
)


def test_the_first_digits_are_the_known_ones(ctx: Any) -> None:
    assert digits(ctx, 0, 128) == {"first": 0, "count": 128, "digits": KNOWN}


@pytest.mark.parametrize("count", [1, 3, 16, 40])
def test_every_part_is_cut_from_the_same_expansion(ctx: Any, count: int) -> None:
    for first in range(0, 128 - count, 7):
        assert digits(ctx, first, count)["digits"] == KNOWN[first : first + count]


@pytest.mark.parametrize(("first", "count"), [(1_000, 500), (9_999, 14), (19_000, 1_000)])
def test_far_digits_are_those_of_another_formula(ctx: Any, first: int, count: int) -> None:
    assert pi_hex(128) == KNOWN
    assert digits(ctx, first, count)["digits"] == pi_hex(20_000)[first : first + count]


def test_parts_that_overlap_agree(ctx: Any) -> None:
    longer, later = digits(ctx, 2_000, 300)["digits"], digits(ctx, 2_200, 200)["digits"]
    assert longer[200:] == later[:100]


def test_digits_are_certain_or_computed_again_with_a_longer_guard(
    ctx: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Digits 2 and guard 8 bits: 0x12_f9 may be 0x12_ff or, with an error of 7, 0x13_00.
    assert certain_digits(0x12F9, 6, 2, 8) == "12"
    assert certain_digits(0x12F9, 7, 2, 8) is None
    assert certain_digits(0x0003, 4, 2, 8) is None
    monkeypatch.setattr(pi, "GUARD_BITS", 4)
    assert digits(ctx, 50, 20)["digits"] == KNOWN[50:70]


@pytest.mark.parametrize(
    ("first", "count", "field"),
    [(-1, 1, "first"), (10_000_001, 1, "first"), (0, 0, "count"), (0, 100_001, "count")],
)
def test_ranges_out_of_bounds_are_named(ctx: Any, first: int, count: int, field: str) -> None:
    with pytest.raises(Fail, match=f"^{field}"):
        digits(ctx, first, count)


def test_a_cancelled_job_stops_and_progress_rises(ctx: Any) -> None:
    ctx.answers_before_cancel = 3
    with pytest.raises(Cancel, match="term 6000 of 9000"):
        digits(ctx, 9_000, 1)
    assert ctx.told == [0, 2_000 / 9_000, 4_000 / 9_000]
