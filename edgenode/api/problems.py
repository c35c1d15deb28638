"""Refusals that only HTTP knows."""

from __future__ import annotations

from edgenode.core.errors import EdgeNodeError, RejectedInput


class NoSuchBatch(EdgeNodeError):
    status, slug, title, definite = 404, "no-such-batch", "There is no such batch", True


class NoSuchResource(EdgeNodeError):
    status, slug, title, definite = 404, "no-such-resource", "There is nothing at this address", True


class MethodNotAllowed(EdgeNodeError):
    status, slug, title, definite = 405, "method-not-allowed", "The resource has no such method", True


class InvalidQueue(RejectedInput):
    """`context["field"]` names the setting that is wrong."""

    status, slug, title = 422, "invalid-queue", "The settings of the queue are not valid"


class AcksUnmet(EdgeNodeError):
    """Fewer nodes could store the job now than the disks that were asked for."""

    status, slug, title, definite = 503, "acks-unmet", "Too few nodes can store the job now", True
    retry_after_s = 1.0


class NoResult(EdgeNodeError):
    """`context["state"]` says why: it is unfinished, or did not succeed (`error` then tells more)."""

    status, slug, title, definite = 409, "no-result", "The job has no result", True


class ResultExpired(EdgeNodeError):
    status, slug, title, definite = 410, "result-expired", "The job's result is not kept any more", True


class JobEnded(EdgeNodeError):
    """There is nothing to cancel; `context["state"]` says how it ended."""

    status, slug, title, definite = 409, "job-ended", "The job has ended", True


class NotRetryable(EdgeNodeError):
    """`context["state"]` says why: it goes on, or has succeeded."""

    status, slug, title, definite = 409, "not-retryable", "The job did not end badly", True


class TooSlow(RejectedInput):
    status, slug, title = 408, "too-slow", "The request took too long to arrive"


class UnsupportedMediaType(RejectedInput):
    status, slug, title = 415, "unsupported-media-type", "The body is not of a type that is read here"


class CrossSite(EdgeNodeError):
    """A web page of somebody else asked the reader's browser to send this."""

    status, slug, title, definite = 403, "cross-site", "Requests from other sites are refused", True


class WrongHost(EdgeNodeError):
    """The name in `Host` is not this machine's: a page may have bound its own name to 127.0.0.1."""

    status, slug, title, definite = 421, "wrong-host", "This node does not answer for that host", True
