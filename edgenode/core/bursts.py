"""Which events may be handled as one: the more a node has to do, the less each of them costs.

Every event costs a look at all that may be due, a write and messages of its own, however little it says. So
what waits is taken together, but for events that everything else may depend on: those are taken alone, and
every part of the node has heard of them before the next one.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeGuard

from edgenode.core.signals import (
    Burst,
    Event,
    Flowing,
    MessageArrived,
    ReadAsked,
    Reported,
    RunEnded,
    SubmitAsked,
)
from edgenode.core.wire import (
    Acks,
    Grant,
    Marked,
    Marks,
    Noted,
    Read,
    ReadAnswer,
    Report,
    Result,
    ResultTaken,
    Submit,
    Submitted,
    Taken,
    WantWork,
    Write,
    batch_length,
)

FLOWING: Final = (
    Acks, Grant, Marked, Marks, Noted, Read, ReadAnswer, Report, Result, ResultTaken, Submit, Submitted,
    Taken, WantWork, Write,
)  # fmt: skip
"""Messages that neither membership, nor who owns a job by a promise, nor what this disk is follows from."""
JOBS_MAX: Final = 1000
"""About so many in a burst: some ten milliseconds, in which no ping is answered."""


def take(waiting: deque[Event], jobs_max: int = JOBS_MAX) -> Event:
    """Take the first event from a queue that is not empty, or the first few as a `Burst`."""
    first = waiting.popleft()
    if not waiting or not flows(first):
        return first
    events, jobs = [first], _jobs_in(first)
    while waiting and jobs < jobs_max and flows(event := waiting[0]):
        del waiting[0]
        events.append(event)
        jobs += _jobs_in(event)
    return Burst(tuple(events)) if len(events) > 1 else first


def flows(event: Event) -> TypeGuard[Flowing]:
    """Whether an event may be part of a burst."""
    if isinstance(event, MessageArrived):
        return isinstance(event.message, FLOWING)
    return isinstance(event, RunEnded | Reported | SubmitAsked | ReadAsked)


def _jobs_in(event: Flowing) -> int:
    """About how many jobs it speaks of."""
    if isinstance(event, MessageArrived):
        return batch_length(event.message)
    return len(event.specs) if isinstance(event, SubmitAsked) else 1
