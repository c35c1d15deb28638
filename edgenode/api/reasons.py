"""Why a job has not started, as far as the node that is asked can tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgenode.api.render import time_text
from edgenode.core.jobs import Record, majority
from edgenode.core.specs import Spec, decode_spec
from edgenode.core.types import Delivery, MemberState, Partition, State
from edgenode.core.view import MemberView
from edgenode.core.wire import QueueItem

TAKING = frozenset({MemberState.READY, MemberState.SUSPECT})


def waiting_for(record: Record, members: Sequence[MemberView], queues: Iterable[QueueItem]) -> str | None:
    """In words; None if it does not wait, or is about to start."""
    if record.outcome is not None:
        return None
    spec = decode_spec(record.spec)
    if record.own.state is State.SCHEDULED:
        what = "its next attempt" if record.failure_count else "its day"
        return f"{what}: {time_text(record.own.due_at)}"
    if record.own.state is not State.QUEUED:
        return None
    queue = next((each for each in queues if each.queue == spec.options.queue), None)
    if queue is not None and queue.paused:
        return f"its queue, {spec.options.queue!r}, which is paused"
    return _lacking(spec, members) or _silent(record, spec, members)


def _lacking(spec: Spec, members: Sequence[MemberView]) -> str | None:
    """What no node has that could run it."""
    taking = [member for member in members if member.state in TAKING and member.info.ready]
    having = [member for member in taking if spec.task in member.info.tasks]
    if not having:
        return f"a node with the task {spec.task!r}: none of {len(taking)} that are ready has it"
    fitting = [member for member in having if set(spec.options.requires) <= set(member.info.labels)]
    if not fitting:
        wanted = ", ".join(f"{label}={value}" for label, value in spec.options.requires)
        return f"a node with {wanted}: none of {len(having)} that are ready and have the task has that"
    if all(member.load.free <= 0 for member in fitting):
        return f"a free slot on one of {len(fitting)} nodes"
    return None


def _silent(record: Record, spec: Spec, members: Sequence[MemberView]) -> str | None:
    """Whether it starts only with a majority of its holders, and too few live."""
    if spec.options.partition is not Partition.WAIT and spec.options.delivery is not Delivery.AT_MOST_ONCE:
        return None
    gone = {member.info.id for member in members if member.is_gone}
    living = sum(holder not in gone for holder in record.holders)
    if majority(living, record.holders):
        return None
    return f"a majority of its holders: {living} of {len(record.holders)} live"
