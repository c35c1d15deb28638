"""Any two parts that decide have somebody in common, who knows of both."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgenode.core.quorums import fast_quorum_of, majority_of

groups = st.integers(1, 10_000)


@given(groups)
def test_two_majorities_meet_and_one_less_would_not(members: int) -> None:
    assert 2 * majority_of(members) > members
    assert 2 * (majority_of(members) - 1) <= members


@given(groups)
def test_two_fast_quorums_and_a_majority_meet_and_one_less_would_not(members: int) -> None:
    majority = majority_of(members)
    assert 2 * fast_quorum_of(members) + majority > 2 * members
    assert fast_quorum_of(members) >= majority
    assert 2 * (fast_quorum_of(members) - 1) + majority <= 2 * members
