"""What clients ask, and what peers ask for theirs: one job, lists, tasks, counts, cancels, drains.

Each kind is a part of its own, with the same few methods. Nothing here owns a job, or decides anything of
one. (Submissions do, and are the intake's.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias, assert_never

from edgenode.core.cancelling import Cancelling
from edgenode.core.catalogue import Catalogue
from edgenode.core.counting import Counting, Counts
from edgenode.core.desk import Desk
from edgenode.core.jobs import Record
from edgenode.core.reading import Reading
from edgenode.core.regulation import Regulation
from edgenode.core.searching import Searching
from edgenode.core.signals import (
    CancelAsked,
    CountAsked,
    InspectAsked,
    ReadAsked,
    RegulateAsked,
    RequestId,
    SearchAsked,
    SearchedHere,
    TasksAsked,
)
from edgenode.core.types import Instant, JobId, NodeId
from edgenode.core.wire import (
    Cancel,
    CancelNoted,
    CountQueues,
    DescribeTasks,
    Inspect,
    Inspected,
    QueuesCounted,
    Read,
    ReadAnswer,
    Regulate,
    Regulated,
    Search,
    SearchAnswer,
    TaskItem,
    TasksDescribed,
    Wish,
)

Asked: TypeAlias = (
    ReadAsked
    | SearchAsked
    | SearchedHere
    | InspectAsked
    | CountAsked
    | CancelAsked
    | TasksAsked
    | RegulateAsked
)
Told: TypeAlias = (
    Read | ReadAnswer | Search | SearchAnswer | Inspect | Inspected | DescribeTasks | TasksDescribed
    | CountQueues | QueuesCounted | Cancel | CancelNoted | Regulate | Regulated
)  # fmt: skip


class Questions:
    """Drive it with what clients ask, what peers say, and time; it answers through the desk."""

    def __init__(
        self,
        desk: Desk,
        *,
        held_at: Callable[[JobId], str],
        is_about_to_own: Callable[[JobId], bool],
        by_queue: Callable[[], Counts],
        take_part: Callable[[Wish], bool],
        tasks: Iterable[TaskItem],
    ) -> None:
        """
        Args:
            held_at: behind which shut gate a job of this owner waits; "" for none.
            is_about_to_own: whether this node is asking to own the job.
            by_queue: how many of this owner's jobs wait, and run, in each queue.
            take_part: carries out what is wished of this node; False if it does not.
            tasks: what others are told of this node's.
        """
        self.reading = Reading(desk, held_at)
        self.searching = Searching(desk, held_at)
        self.catalogue = Catalogue(desk, tasks)
        self.counting = Counting(desk)
        self.cancelling = Cancelling(desk)
        self.regulation = Regulation(desk, take_part)
        self._is_about_to_own = is_about_to_own
        self._by_queue = by_queue

    def ask(self, event: Asked) -> None:
        """A client of this node wants to know, or to have something done."""
        match event:
            case ReadAsked():
                self.reading.read(event)
            case SearchAsked():
                self.searching.search(event)
            case SearchedHere():
                self.searching.searched_here(event)
            case InspectAsked():
                self.searching.inspect(event)
            case CountAsked():
                self.counting.ask(event, self._by_queue())
            case CancelAsked():
                self.cancelling.ask(event)
            case TasksAsked():
                self.catalogue.ask(event)
            case RegulateAsked():
                self.regulation.ask(event)
            case _:
                assert_never(event)

    def hear(self, source: NodeId, message: Told) -> None:
        """What a peer asks, or answers."""
        match message:
            case Read():
                self.reading.on_read(source, message, self._is_about_to_own)
            case ReadAnswer():
                self.reading.on_read_answer(source, message)
            case Search():
                self.searching.on_search(source, message)
            case SearchAnswer():
                self.searching.on_search_answer(source, message)
            case Inspect():
                self.searching.on_inspect(source, message)
            case Inspected():
                self.searching.on_inspected(source, message)
            case DescribeTasks():
                self.catalogue.on_describe(source, message)
            case TasksDescribed():
                self.catalogue.on_described(source, message)
            case CountQueues(request):
                self.counting.on_count(source, request, self._by_queue())
            case QueuesCounted():
                self.counting.on_counted(source, message)
            case Cancel():
                self.cancelling.on_cancel(source, message)
            case CancelNoted():
                self.cancelling.on_noted(source, message)
            case Regulate():
                self.regulation.on_regulate(source, message)
            case Regulated():
                self.regulation.on_regulated(source, message)
            case _:
                assert_never(message)

    def changed(self, records: Iterable[Record]) -> None:
        """These copies changed: who waits for one of them may be told."""
        self.reading.changed(records)

    def dropped(self, request: RequestId) -> None:
        """Nobody waits for the answer any more."""
        self.reading.dropped(request)
        self.searching.dropped(request)
        self.catalogue.dropped(request)
        self.counting.dropped(request)
        self.cancelling.dropped(request)
        self.regulation.dropped(request)

    def members_changed(self, changed: frozenset[NodeId]) -> None:
        self.reading.members_changed(changed)
        self.searching.members_changed(changed)
        self.catalogue.members_changed(changed)
        self.counting.members_changed(changed)
        self.cancelling.members_changed(changed)
        self.regulation.members_changed()

    def disown(self) -> None:
        """What this disk has is not to be told of any more."""
        self.reading.disown()
        self.searching.disown()

    def close(self) -> None:
        """The node ends: every client is told what is known now."""
        self.reading.close()
        self.searching.close()
        self.catalogue.close()
        self.counting.close()

    def deadline(self) -> Instant:
        return min(
            self.reading.deadline(),
            self.searching.deadline(),
            self.catalogue.deadline(),
            self.counting.deadline(),
            self.cancelling.deadline(),
            self.regulation.deadline(),
        )

    def on_time(self) -> None:
        self.reading.on_time()
        self.searching.on_time()
        self.catalogue.on_time()
        self.counting.on_time()
        self.cancelling.on_time()
        self.regulation.on_time()
