"""Ids of jobs: made by the clock, or from an idempotency key; and as people write them."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from edgenode.core.types import (
    JobId,
    Wall,
)


def job_text(job: JobId) -> str:
    """The id as people see it: 8-4-4-4-12 lower-case hexadecimal (RFC 9562 section 4)."""
    text = job.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def parse_job_id(text: str) -> JobId | None:
    """The id behind `text`, or None if it is not one as `job_text` writes it."""
    bare = text.replace("-", "")
    if len(text) != 36 or len(bare) != 32:
        return None
    try:
        job = JobId(bytes.fromhex(bare))
    except ValueError:
        return None
    return job if job_text(job) == text.lower() else None


def make_job_id(wall: Wall, chance: bytes) -> JobId:
    """A UUIDv7 of this moment; `chance` is 10 random bytes (RFC 9562 section 5.7)."""
    assert len(chance) == 10
    stamp = (int(wall * 1000) & 0xFFFF_FFFF_FFFF).to_bytes(6, "big")
    return JobId(stamp + bytes((0x70 | chance[0] & 0x0F, chance[1], 0x80 | chance[2] & 0x3F)) + chance[3:])


KEY_NAMESPACE: Final = "submission"
"""What is hashed in front of a submitter's key, so that ids made from other names never meet these."""

_RETRY_NAMESPACE: Final = "retry"


def keyed_job_id(key: str, namespace: str = KEY_NAMESPACE) -> JobId:
    """The id of every job submitted under `key`, at any node and at any time: a UUIDv8 of a hash (RFC 9562
    section 5.8, after its appendix B.2). 122 bits of SHA-256 are left: no two keys share an id by chance."""
    name = namespace.encode()
    hashed = sha256(len(name).to_bytes(4, "big") + name + key.encode()).digest()
    return JobId(
        hashed[:6] + bytes((0x80 | hashed[6] & 0x0F, hashed[7], 0x80 | hashed[8] & 0x3F)) + hashed[9:16]
    )


def retry_id(job: JobId) -> JobId:
    """The id of the job that tries this one's work again, whether there is one or not. The old one's id is
    its key: there is one, however often and wherever a retry is asked for."""
    return keyed_job_id(job_text(job), _RETRY_NAMESPACE)


def is_keyed(job: JobId) -> bool:
    """Whether an id was made from a key: such ids carry no time, and submissions of one can meet."""
    return job[6] >> 4 == 8
