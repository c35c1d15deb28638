"""The node as the HTTP API sees it: the one port between routes and whatever runs behind them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from edgenode.core import signals, wire
from edgenode.core.errors import EdgeNodeError
from edgenode.core.specs import Spec
from edgenode.core.types import Backoff, JobId, MemberInfo, NodeId, Seconds, Wall
from edgenode.core.view import MemberView, MeshView, QueueChange


class TaskSchema(Protocol):
    """What is known of a task; `edgenode.task.Task` is one, `edgenode.described.DescribedTask` another."""

    @property
    def summary(self) -> str | None: ...

    inline: bool
    timeout_s: Seconds  # of a job that does not say; 0: none
    max_attempts: int  # of a job that does not say; 0: the mesh's default
    backoff: Backoff | None  # of a job that does not say; None: the mesh's default

    def read(self, payload: object) -> object:
        """Refuse a payload that the task could not be called with.

        Raises:
            InvalidJob: a parameter is missing, unknown or of the wrong type; `field` names it.
        """
        ...

    def schema(self) -> dict[str, Any] | None:
        """JSON Schema (draft 2020-12) of its payload; None if it is too large to be told to other nodes."""
        ...


class Service(Protocol):
    """What the API asks of its node. Every wait ends, at the latest after the seconds it was given.

    Methods may raise any `EdgeNodeError`: it becomes the answer's problem as it is.
    """

    @property
    def me(self) -> NodeId: ...

    async def submit(self, specs: Sequence[Spec], *, timeout_s: Seconds) -> tuple[signals.Receipt, ...]:
        """Have these jobs stored; one receipt each, in the order of the specs.

        Args:
            timeout_s: after this a job without enough disks gets a receipt with `OutcomeUnknown`.
        """
        ...

    async def read(self, jobs: Sequence[JobId], *, wait_s: Seconds, timeout_s: Seconds) -> signals.ReadDone:
        """The best copy of each job that can be had: each id is in `records` or in `errors`.

        Args:
            wait_s: > 0 waits until all of them are terminal and settled, at most this long.
            timeout_s: how long holders may take to answer, on top of `wait_s`.
        """
        ...

    async def search(self, query: wire.Query, *, timeout_s: Seconds) -> signals.SearchDone: ...

    async def inspect(self, job: JobId, *, timeout_s: Seconds) -> signals.InspectDone:
        """What each holder of a job has on its disk; one that could not be asked is missing."""
        ...

    async def reports(
        self, job: JobId, *, nodes: Sequence[NodeId], brief: bool, timeout_s: Seconds
    ) -> signals.ReportsDone:
        """What is known of what the job's starts said.

        Args:
            nodes: who may know; all members, if it is empty or one of these is not to be had.
            brief: only how far the latest start is.
        """
        ...

    async def cancel(
        self, jobs: Sequence[tuple[JobId, tuple[NodeId, ...]]], *, timeout_s: Seconds
    ) -> signals.CancelDone:
        """Have it noted that these jobs are to end, each with its holders.

        Args:
            timeout_s: how long holders may take; of jobs that are not in the answer nobody knows.
        """
        ...

    async def regulate(self, node: NodeId, wish: wire.Wish, *, timeout_s: Seconds) -> MemberInfo:
        """Have a member take part in another way; what it says of itself then."""
        ...

    def queues(self) -> Sequence[wire.QueueItem]:
        """Those with settings, by name."""
        ...

    async def count_queues(self, *, timeout_s: Seconds) -> signals.CountDone:
        """How many jobs of each queue the mesh has; who has not said so after this is not waited for."""
        ...

    async def change_queue(self, queue: str, change: QueueChange, *, timeout_s: Seconds) -> signals.QueueDone:
        """Have it so in the whole mesh; waits until every living member knows it, at most this long."""
        ...

    def members(self) -> Sequence[MemberView]:
        """Everyone known that is not forgotten, this node included."""
        ...

    def mesh(self) -> MeshView: ...

    def metrics(self) -> bytes:
        """What the node counts and measures, in Prometheus' text format 0.0.4."""
        ...

    def rank(self, job: JobId) -> tuple[NodeId, ...]:
        """All members that may get new jobs, the one most preferred for `job` first."""
        ...

    def new_job_id(self) -> JobId: ...

    def wall(self) -> Wall:
        """The mesh's time, for the days that are written into records."""
        ...

    def known_tasks(self) -> frozenset[str]:
        """The names of the tasks that at least one known member has, drained and dead ones too: they may be
        back before the jobs' days are over."""
        ...

    async def task_schemas(self, names: Collection[str], *, timeout_s: Seconds) -> Mapping[str, TaskSchema]:
        """Of those tasks its own, and of others what members say that have them.

        Without those that nobody has, or of which nobody has said anything in time; raises nothing.
        """
        ...

    def readiness(self) -> Sequence[str]:
        """Why this node takes no jobs now; empty if it does."""
        ...

    def damage(self) -> Sequence[str]:
        """What was found damaged on this node's disk, for a person to know; it works all the same."""
        ...

    @property
    def is_leaving(self) -> bool:
        """Whether this node is about to end, so that nobody should keep a connection to it."""
        ...

    def refusal(self) -> EdgeNodeError | None:
        """What a submission is answered with as long as `readiness` has reasons; None if it has none."""
        ...


def check_taking(service: Service) -> None:
    """
    Raises:
        EdgeNodeError: the node takes no changes now; the error says why, and until when.
    """
    refusal = service.refusal()
    if refusal is not None:
        raise refusal
