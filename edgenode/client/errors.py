"""What a client of the mesh may have to deal with. `definite` says whether it certainly did not happen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgenode.client.job import Job


class ClientError(Exception):
    """Base class. After a definite failure a submission may be repeated; after another it may run twice."""

    definite = True


class NoNodeReachable(ClientError):
    """None of the given nodes could be asked. `reasons` has one for each URL."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        super().__init__("no node answers: " + "; ".join(f"{url} ({why})" for url, why in reasons.items()))


class Refused(ClientError):
    """A node answered with a problem (RFC 9457). `problem` is all of it."""

    def __init__(self, problem: Mapping[str, Any], url: str = "") -> None:
        self.problem = dict(problem)
        self.url = url
        self.status = int(problem.get("status", 0))
        self.slug = str(problem.get("type", "")).rpartition("/")[2]
        self.field: str | None = problem.get("field")
        self.definite = problem.get("definite") is True
        self.detail = str(problem.get("detail") or problem.get("title") or f"status {self.status}")
        super().__init__(self.detail)


class OutcomeUnknown(ClientError):
    """A submission or a change was sent, and no clear answer came: the jobs may exist, and run.

    `job` is the id to look for, if the node could name it. `is_repeatable`: the same may be asked for again,
    and is done once: a change, or a submission with a key.
    """

    definite = False

    def __init__(self, detail: str, *, job: str | None = None, is_repeatable: bool = False) -> None:
        self.job = job
        self.is_repeatable = is_repeatable
        super().__init__(detail)


class WaitTimedOut(ClientError):
    """The job has not ended in the time given. It goes on; `job` is how it was last seen."""

    definite = False

    def __init__(self, job: Job, timeout_s: float) -> None:
        self.job = job
        super().__init__(f"job {job.id} is still {job.state} after {timeout_s:g} s")


class BadAnswer(ClientError):
    """What answered does not speak like a node."""

    definite = False
