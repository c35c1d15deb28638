"""What can go wrong, each with an HTTP status, a stable name, and whether it certainly did not happen.

Three kinds: a bug is an assertion and stops the node; refused or malformed input is `definite=True`; an
unknown outcome is `definite=False`, and its caller may repeat the same request but must not make a new one.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias

Extra: TypeAlias = "str | int | float | bool | list[Extra] | dict[str, Extra] | None"


class EdgeNodeError(Exception):
    """Base class. Caught at the edges only (API, CLI, peer link), never in the core."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    definite: ClassVar[bool] = False  # the safe answer when in doubt
    retry_after_s: float | None = None

    def __init__(self, detail: str, *, retry_after_s: float | None = None, **context: Extra) -> None:
        super().__init__(detail)
        self.detail = detail
        self.context = context
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class RejectedInput(EdgeNodeError):
    status, slug, title, definite = 400, "rejected-input", "The request is not valid", True


class MalformedMessage(RejectedInput):
    slug, title = "malformed-message", "A message could not be decoded"


class InvalidJob(RejectedInput):
    """`context["field"]` names the field that is wrong."""

    status, slug, title = 422, "invalid-job", "The job is not valid"


class TooLarge(RejectedInput):
    status, slug, title = 413, "too-large", "The request is too large"


class UnknownTask(RejectedInput):
    status, slug, title = 422, "unknown-task", "No known node has this task"


class JobNotFound(EdgeNodeError):
    status, slug, title, definite = 404, "job-not-found", "No member knows this job", True


class NodeNotFound(EdgeNodeError):
    status, slug, title, definite = 404, "node-not-found", "No such member", True


class NodeAway(EdgeNodeError):
    """The member that something was wished of does not live, as far as is known."""

    status, slug, title, definite = 409, "node-away", "The member cannot be asked now", True


class NodeSilent(EdgeNodeError):
    """It was asked, and has not answered: it may have done so all the same. Asking again does no harm."""

    status, slug, title, definite = 504, "node-silent", "The member has not answered in time", False


class NotReady(EdgeNodeError):
    """This node takes no jobs now (joining, leaving, or its disk refuses writes)."""

    status, slug, title, definite = 503, "not-ready", "The node takes no jobs now", True
    retry_after_s = 1.0


class Overloaded(EdgeNodeError):
    status, slug, title, definite = 429, "overloaded", "A queue of the node is full", True
    retry_after_s = 1.0


class StoreUnwritable(EdgeNodeError):
    """This node takes no jobs, because its disk takes no writes; it asks the disk again by itself."""

    status, slug, title, definite = 507, "store-unwritable", "The node's disk takes no writes", True
    retry_after_s = 5.0


class StoreFailed(EdgeNodeError):
    """The disk refused a write while a job was on its way: the job may exist."""

    status, slug, title, definite = 507, "store-failed", "The node's disk refused a write", False
    retry_after_s = 5.0


class OutcomeUnknown(EdgeNodeError):
    """Copies were sent, but too few holders answered in time: the jobs may exist."""

    status, slug, title, definite = 504, "outcome-unknown", "Too few holders answered in time", False


class AcksLost(EdgeNodeError):
    """The job exists and goes on, on fewer disks than its submission asked for."""

    status, slug, title, definite = 503, "acks-unmet", "Too few disks have the job", False
    retry_after_s = 1.0


class Undecided(EdgeNodeError):
    """The nodes that could answer are being asked, or cannot be reached now. `context["lasting"]`: all of
    those are dead, so that asking again soon is of no use."""

    status, slug, title, definite = 503, "undecided", "The job's holders cannot answer now", False
    retry_after_s = 0.5


class KeyReused(RejectedInput):
    """`Idempotency-Key`: the key belongs to a job of other content."""

    status, slug, title = 422, "key-reused", "The key was used for something else"


class KeyInFlight(EdgeNodeError):
    """`Idempotency-Key`: the key's job is with nodes that cannot be asked now. The same request may be
    repeated at any node."""

    status, slug, title, definite = 409, "key-in-flight", "The key's first submission is not done", False
    retry_after_s = 1.0


def to_problem(error: EdgeNodeError, *, instance: str) -> dict[str, Extra]:
    """The body of an `application/problem+json` answer (RFC 9457 section 3)."""
    problem: dict[str, Extra] = {
        "type": f"/problems/{error.slug}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": instance,
        "definite": error.definite,
    }
    if error.retry_after_s is not None:
        problem["retry_after_s"] = error.retry_after_s
    return problem | {key: value for key, value in error.context.items() if key not in problem}
