"""What other members say of tasks that this node lacks: its clients are then answered as where the task is.

Members may have different versions of a task. The one at the first of them counts, by name and then by id, so
that all who lack it go by the same; until that one has answered, the first that has. (Who has a task goes by
its own.) What was said is kept for as long as the life of the member that said it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from edgenode.core.bounds import INTEGER_END
from edgenode.core.desk import Desk
from edgenode.core.polls import Ended, Poll, Polls
from edgenode.core.post import pieces_of
from edgenode.core.signals import RequestId, TasksAsked, TasksTold
from edgenode.core.types import BACKOFFS, FOREVER, WORD, Instant, NodeId, Seconds
from edgenode.core.wire import CATCH_UP_BYTES, SCHEMA_BYTES_MAX, DescribeTasks, TaskItem, TasksDescribed

ASKED_MAX: Final = 3
"""Members that are asked about one task: one of them may be about to die, another busy."""
NAMES_MAX: Final = 1000
"""Tasks that one request asks about. Of the others it learns nothing; the next one asks about them."""
KEPT_BYTES_MAX: Final = 16 * 1024 * 1024
ITEM_BYTES: Final = 1000
"""What an item takes beside its schema. So there are 16,000 at most."""
COMPLAIN_S: Final[Seconds] = 60.0
"""How often a line of the log says that nobody has answered."""


class Catalogue:
    """Drive it with local requests, messages, changes and time; it answers through the desk."""

    def __init__(self, desk: Desk, own: Iterable[TaskItem]) -> None:
        self._desk = desk
        self._own = {item.name: item for item in own if is_sane(item)}
        self._told: dict[tuple[NodeId, str], TaskItem] = {}  # the latest at the end
        self._boots: dict[NodeId, int] = {}  # of those that told: which life did
        self._bytes = 0
        self._questions: Polls[tuple[str, ...]] = Polls(desk)
        self._complained_at: Instant = -FOREVER

    # ------------------------------------------------------------------------------------- members

    def on_describe(self, source: NodeId, message: DescribeTasks) -> None:
        items = [self._own[name] for name in message.names if name in self._own]
        pieces = list(pieces_of(items, CATCH_UP_BYTES, NAMES_MAX))
        for number, piece in enumerate(pieces, 1):
            answer = TasksDescribed(message.request, tuple(piece), number == len(pieces))
            self._desk.post.send(source, answer)

    # -------------------------------------------------------------------------------- local clients

    def told(self, names: Collection[str]) -> dict[str, TaskItem | None]:
        """Of those tasks that only others have the versions that count; None where they have to be asked."""
        return {name: self._told.get((nodes[0], name)) for name, nodes in self._who_has(names).items()}

    def ask(self, event: TasksAsked) -> None:
        desk = self._desk
        having = self._who_has(event.names)
        names = tuple(having)[:NAMES_MAX]
        wanted: dict[NodeId, list[str]] = {}
        for name in names:
            for node in having[name]:
                if (node, name) not in self._told:
                    wanted.setdefault(node, []).append(name)
        for node, of_node in wanted.items():
            desk.post.send(node, DescribeTasks(event.request, tuple(of_node)))
        # One version of each is enough for an answer. What others say counts from the next one on.
        waiting = set(wanted) if len(self._items(names)) < len(names) else set()
        poll = Poll(names, waiting, desk.now + event.timeout_s)
        self._tell(self._questions.open(event.request, poll))

    def on_described(self, source: NodeId, message: TasksDescribed) -> None:
        self._keep(source, message.items)
        poll = self._questions.get(message.request)
        if poll is None:
            return
        if len(self._items(poll.said)) == len(poll.said):
            poll.waiting.clear()
        elif not message.last:
            return
        self._tell(self._questions.answered(message.request, source))

    def _tell(self, ended: Ended[tuple[str, ...]]) -> None:
        for request, poll in ended:
            items = self._items(poll.said)
            self._desk.emit(TasksTold(request, tuple(items.values())))
            missing = [name for name in poll.said if name not in items]
            if missing and self._desk.now >= self._complained_at + COMPLAIN_S:
                self._complained_at = self._desk.now
                text = f"no member has said what {missing[0]} takes: its payloads are not checked here"
                self._desk.log("task-undescribed", text, warning=True)

    def _items(self, names: Collection[str]) -> dict[str, TaskItem]:
        """Of those tasks the first version that is known."""
        found = {}
        for name, nodes in self._who_has(names).items():
            items = (self._told.get((node, name)) for node in nodes)
            item = next((item for item in items if item is not None), None)
            if item is not None:
                found[name] = item
        return found

    def _who_has(self, names: Collection[str]) -> dict[str, list[NodeId]]:
        """Of those tasks that others have the members to ask, in order; by the tasks' names."""
        view, wanted = self._desk.view, set(names) - self._own.keys()
        others = [view.info(node) for node in view.members() if node != view.me and view.is_living(node)]
        infos = [info for info in others if info is not None]
        having: dict[str, list[NodeId]] = {}
        for info in sorted(infos, key=lambda info: (info.name, info.id)):
            for name in info.tasks:
                if name in wanted and len(nodes := having.setdefault(name, [])) < ASKED_MAX:
                    nodes.append(info.id)
        return {name: having[name] for name in sorted(having)}

    # ---------------------------------------------------------------------------------------- kept

    def _keep(self, source: NodeId, items: Iterable[TaskItem]) -> None:
        self._boots[source] = self._desk.view.boot_of(source)
        for item in filter(is_sane, items):
            self._forget(source, item.name)
            self._told[source, item.name] = item
            self._bytes += _size_of(item)
        while self._bytes > KEPT_BYTES_MAX:
            self._forget(*next(iter(self._told)))

    def _forget(self, node: NodeId, name: str) -> None:
        item = self._told.pop((node, name), None)
        if item is not None:
            self._bytes -= _size_of(item)

    # ----------------------------------------------------------------------------- members and time

    def members_changed(self, changed: frozenset[NodeId]) -> None:
        """Forget what other lives said, and do not wait for the dead."""
        view = self._desk.view
        for node in changed & self._boots.keys():
            if not view.is_living(node) or view.boot_of(node) != self._boots[node]:
                del self._boots[node]
                for key in [key for key in self._told if key[0] == node]:
                    self._forget(*key)
        self._tell(self._questions.members_changed(changed))

    def dropped(self, request: RequestId) -> None:
        """The client went away."""
        self._questions.drop(request)

    def close(self) -> None:
        """The node ends: tell every local client what is known now."""
        self._tell(self._questions.close())

    def deadline(self) -> Instant:
        return self._questions.deadline()

    def on_time(self) -> None:
        self._tell(self._questions.on_time())


def is_sane(item: TaskItem) -> bool:
    """Whether this can be said of a task: with something else no job could be made."""
    has_days = item.timeout_s >= 0 and 0 <= item.base_s <= item.cap_s < FOREVER and item.timeout_s < FOREVER
    has_words = WORD.fullmatch(item.name) is not None and item.backoff in ("", *BACKOFFS)
    has_sizes = 0 <= item.max_attempts < INTEGER_END and len(item.schema) <= SCHEMA_BYTES_MAX
    return has_days and has_words and has_sizes


def _size_of(item: TaskItem) -> int:
    return ITEM_BYTES + len(item.schema)
