"""What can be tried again: a retry is a new job of the same work (its id: `core.job_ids.retry_id`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from edgenode.api.service import Service
from edgenode.core.errors import EdgeNodeError
from edgenode.core.job_ids import retry_id
from edgenode.core.jobs import Record
from edgenode.core.types import JobId, Seconds, State

RETRYABLE: Final = frozenset({State.FAILED, State.CANCELLED, State.EXPIRED})
RETRIED_UNASKED: Final = (State.FAILED, State.EXPIRED)
"""What a filter means that names no state: somebody wanted what was cancelled to end."""
RETRIES_S: Final[Seconds] = 0.5
"""How long an answer waits for the sake of the retries of its jobs, if somebody does not answer."""


async def retries_of(service: Service, records: Iterable[Record]) -> Mapping[JobId, JobId]:
    """Of these jobs those that were tried again, each with the job that does so, as far as that was found: no
    record says it, as they are settled, but the id of a retry follows from the job's."""
    wanted = {retry_id(record.id): record.id for record in records if record.state in RETRYABLE}
    if not wanted:
        return {}
    try:
        done = await service.read([*wanted], wait_s=0.0, timeout_s=RETRIES_S)
    except EdgeNodeError:
        return {}
    return {wanted[again]: again for again in done.records}
