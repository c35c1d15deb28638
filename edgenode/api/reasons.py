"""Why a job has not started, as far as its owner has said and the node that is asked can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from edgenode.api.render import time_text
from edgenode.api.service import Service
from edgenode.core.fitting import Lack, lack_of
from edgenode.core.jobs import Record, majority
from edgenode.core.lines import Kind, key_gate, queue_gate
from edgenode.core.specs import Options, Spec, decode_spec
from edgenode.core.types import Delivery, Partition, State
from edgenode.core.view import MemberView
from edgenode.core.wire import QueueItem


class Reasons:
    """For the jobs of one answer; members and queues are looked up when a job is found that waits."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._known: dict[Kind, Lack] = {}

    def of(self, record: Record, gate: str = "") -> str | None:
        """In words; None if it does not wait, or is about to start.

        Args:
            gate: the shut one that it waits behind, as its owner said (core/lines.py).
        """
        if record.outcome is not None:
            return None
        spec = decode_spec(record.spec)
        if record.own.state is State.SCHEDULED:
            what = "its next attempt" if record.failure_count else "its day"
            return f"{what}: {time_text(record.own.due_at)}"
        if record.own.state is not State.QUEUED:
            return None
        queue = self._queues.get(spec.options.queue)
        if queue is not None and queue.paused:
            return f"its queue, {queue.queue!r}, which is paused"
        lacking, busy = self._of_kind(spec)
        return lacking or _turn(spec.options, gate, queue) or self._silent(record, spec) or busy

    @cached_property
    def _members(self) -> Sequence[MemberView]:
        return self._service.members()

    @cached_property
    def _queues(self) -> Mapping[str, QueueItem]:
        return {item.queue: item for item in self._service.queues()}

    def _of_kind(self, spec: Spec) -> Lack:
        """What no node has that could run it, and what none of them has free; the same for many jobs."""
        kind = Kind(spec.task, spec.options.requires)
        if kind not in self._known:
            self._known[kind] = lack_of(kind, self._members)
        return self._known[kind]

    def _silent(self, record: Record, spec: Spec) -> str | None:
        """Whether it starts only with a majority of its holders, and too few live."""
        options = spec.options
        if options.partition is not Partition.WAIT and options.delivery is not Delivery.AT_MOST_ONCE:
            return None
        gone = {member.info.id for member in self._members if member.is_gone}
        living = sum(holder not in gone for holder in record.holders)
        if majority(living, record.holders):
            return None
        return f"a majority of its holders: {living} of {len(record.holders)} live"


def _turn(options: Options, gate: str, queue: QueueItem | None) -> str | None:
    """What the owner has no permit for (core/permits.py)."""
    if gate == key_gate(options.concurrency_key):
        most = f"at most {options.concurrency_limit} jobs with it run at a time"
        return f"a turn for its concurrency key, {options.concurrency_key!r}: {most}"
    if gate != queue_gate(options.queue):
        return None
    limits = []
    if queue is not None and queue.concurrency:
        limits.append(f"at most {queue.concurrency} of its jobs run at a time")
    if queue is not None and queue.rate:
        limits.append(f"at most {queue.rate:g} start per second")
    told = f": {', and '.join(limits)}" if limits else ""
    return f"a turn in its queue, {options.queue!r}{told}"
