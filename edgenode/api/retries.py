"""What can be tried again: a retry is a new job of the same work (its id: `core.job_ids.retry_id`)."""

from __future__ import annotations

from typing import Final

from edgenode.core.types import State

RETRYABLE: Final = frozenset({State.FAILED, State.CANCELLED, State.EXPIRED})
RETRIED_UNASKED: Final = (State.FAILED, State.EXPIRED)
"""What a filter means that names no state: somebody wanted what was cancelled to end."""
