"""Ids of batches: what one needs to find all jobs of a submission, at any node, with nothing stored about it.

    batch    48 bits of time | 7 | 12 bits: check | 2 | 48 bits of chance | 14 bits: how many jobs
    job      48 bits of time | 7 | 12 bits: place | 2 | 2 bits: place | 60 bits: hash of batch and place

Both are UUIDv7 (RFC 9562 section 5.7): the ids of a batch's jobs are in its order, and no two batches share
one. A job that was submitted under an idempotency key has the id of that key, and is in no batch: it takes
no place in that of the others of its request.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from edgenode.core.job_ids import job_text, parse_job_id
from edgenode.core.types import JobId

SIZE_MAX: Final = (1 << 14) - 1
Batch = bytes
"""16 bytes, shown as job ids are."""


def make_batch(fresh: JobId, size: int) -> Batch:
    """The id of a batch of so many jobs.

    Args:
        fresh: a new job id: its time and its chance become the batch's.
    """
    assert 0 < size <= SIZE_MAX
    tail = int.from_bytes(fresh[8:], "big") & ~SIZE_MAX | size
    return _checked(fresh[:6], tail.to_bytes(8, "big"))


def parse_batch(text: str) -> Batch | None:
    """The batch that `batch_text` wrote, or None if it is none."""
    found = parse_job_id(text)
    if found is None or not batch_size(found) or _checked(found[:6], found[8:]) != found:
        return None
    return found


def batch_text(batch: Batch) -> str:
    return job_text(JobId(batch))


def batch_size(batch: Batch) -> int:
    return int.from_bytes(batch[14:], "big") & SIZE_MAX


def job_of(batch: Batch, place: int) -> JobId:
    """The id of the batch's job at this place, from 0."""
    assert 0 <= place < batch_size(batch)
    chance = int.from_bytes(_hash(batch + place.to_bytes(2, "big")), "big") >> 4
    tail = 0b10 << 62 | (place & 0b11) << 60 | chance
    return JobId(batch[:6] + (0x7000 | place >> 2).to_bytes(2, "big") + tail.to_bytes(8, "big"))


def _checked(head: bytes, tail: bytes) -> Batch:
    check = int.from_bytes(_hash(head + tail)[:2], "big") & 0x0FFF
    return head + (0x7000 | check).to_bytes(2, "big") + tail


def _hash(value: bytes) -> bytes:
    return blake2b(value, digest_size=8).digest()
