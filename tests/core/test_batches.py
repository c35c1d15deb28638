"""Ids of batches and of their jobs."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from edgenode.core.batches import SIZE_MAX, batch_size, batch_text, job_of, make_batch, parse_batch
from edgenode.core.job_ids import job_text, make_job_id

WALL = 1_700_000_000.123
CHANCES = st.binary(min_size=10, max_size=10)
SIZES = st.integers(1, SIZE_MAX)


@given(CHANCES, SIZES)
def test_a_batch_is_found_by_its_text_and_knows_how_many_jobs_it_has(chance: bytes, size: int) -> None:
    batch = make_batch(make_job_id(WALL, chance), size)
    assert parse_batch(batch_text(batch)) == batch
    assert batch_size(batch) == size
    assert UUID(bytes=batch).version == 7


@given(CHANCES, SIZES, st.data())
def test_the_jobs_of_a_batch_are_in_its_order(chance: bytes, size: int, data: st.DataObject) -> None:
    batch = make_batch(make_job_id(WALL, chance), size)
    one, other = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    assert (job_of(batch, one) < job_of(batch, other)) == (one < other)
    assert job_of(batch, one)[:6] == batch[:6]
    assert UUID(bytes=job_of(batch, one)).version == 7
    assert str(UUID(bytes=job_of(batch, one)).variant) == "specified in RFC 4122"


@given(CHANCES, SIZES, CHANCES)
def test_batches_share_no_jobs_with_each_other(chance: bytes, size: int, other: bytes) -> None:
    batch, second = (make_batch(make_job_id(WALL, each), size) for each in (chance, other))
    assert (job_of(batch, 0) == job_of(second, 0)) == (batch == second)


def test_all_jobs_of_a_batch_have_ids_of_their_own() -> None:
    batch = make_batch(make_job_id(WALL, b"0123456789"), 10_000)
    assert len({job_of(batch, place) for place in range(10_000)}) == 10_000


def test_hardly_any_job_is_taken_for_a_batch() -> None:
    texts = [job_text(make_job_id(WALL, number.to_bytes(10, "big"))) for number in range(20_000)]
    assert sum(parse_batch(text) is not None for text in texts) < 30  # one in 4,096
    assert parse_batch("nonsense") is None
