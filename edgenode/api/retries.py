"""What a retry is: a new job of the same work, of whose id the old one's is the key.

So however often a retry is asked for, and at whichever nodes, there is one; and whether there is one can be
looked up.
"""

from __future__ import annotations

from typing import Final

from edgenode.core.job_ids import job_text, keyed_job_id
from edgenode.core.types import JobId, State

RETRYABLE: Final = frozenset({State.FAILED, State.CANCELLED, State.EXPIRED})
RETRIED_UNASKED: Final = (State.FAILED, State.EXPIRED)
"""What a filter means that names no state: somebody wanted what was cancelled to end."""
_NAMESPACE: Final = "retry"


def retry_id(job: JobId) -> JobId:
    """The id of the job that tries this one's work again, whether there is one or not."""
    return keyed_job_id(job_text(job), _NAMESPACE)
