"""Views compared by digests: what differs is found, and little else travels."""

from __future__ import annotations

from collections import deque
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from membership_mesh import LAN, describe, node_id

from edgenode.core.comparison import (
    BRANCHES_MAX,
    FEW,
    LEVELS,
    ROOT,
    Leaf,
    differences,
    leaf_of,
    root_of,
)
from edgenode.core.membership import Membership
from edgenode.core.signals import Booted, MessageArrived, Send
from edgenode.core.types import NOBODY, Load, MemberState, NodeId
from edgenode.core.wire import CATCH_UP_BYTES, Branch, Compare, Disclose, Message, Place, Rumour, Sync, encode

ALIVE = (MemberState.JOINING, MemberState.READY, MemberState.LEAVING)


def rumour(
    number: int, state: MemberState = MemberState.READY, incarnation: int = 1, boot: int = 1
) -> Rumour:
    return Rumour(describe(number, boot=boot), incarnation, state, NOBODY)


def leaves(*numbers: int) -> list[Leaf]:
    return [leaf_of(rumour(number)) for number in numbers]


class Pair:
    """Two members that know each other; what they send to each other arrives, and is counted."""

    def __init__(self, *views: list[Rumour]) -> None:
        self.ids = (node_id(1001), node_id(1002))
        self.nodes: dict[NodeId, Membership] = {}
        self.sent: list[Message] = []
        for number, view in zip((1001, 1002), views, strict=True):
            node = Membership(describe(number, ready=False), LAN, Random(number))
            node.handle(Booted((), ()), 0.0)
            self.nodes[node_id(number)] = node
            both = [rumour(1001, MemberState.JOINING, 0), rumour(1002, MemberState.JOINING, 0)]
            told = [each._replace(info=each.info._replace(ready=False)) for each in both]
            self._hear(node, self.ids[number == 1001], (*told, *view))

    def _hear(self, node: Membership, source: NodeId, rumours: tuple[Rumour, ...]) -> None:
        node.handle(MessageArrived(source, Sync(True, Load(), rumours)), 0.0)

    def living(self, node: NodeId) -> dict[NodeId, Rumour]:
        beliefs = self.nodes[node].beliefs()
        return {each.rumour.info.id: each.rumour for each in beliefs}

    def compare(self) -> None:
        """One comparison from the first to the second, and all answers to answers."""
        first, second = self.ids
        root = Compare((root_of(self.nodes[first].beliefs()),))
        waiting: deque[tuple[NodeId, NodeId, Message]] = deque([(first, second, root)])
        while waiting:
            source, to, message = waiting.popleft()
            self.sent.append(message)
            assert len(self.sent) < 1000, "it ends"
            for effect in self.nodes[to].handle(MessageArrived(source, message), 0.0):
                if isinstance(effect, Send) and effect.to == source:
                    if isinstance(effect.message, Compare | Disclose | Sync):
                        waiting.append((to, source, effect.message))


def bytes_of(messages: list[Message]) -> int:
    return sum(len(encode(message)) for message in messages)


def test_equal_views_of_any_size_end_after_one_message_of_some_bytes() -> None:
    for size in (0, 10, 300):
        view = [rumour(number) for number in range(1, size + 1)]
        pair = Pair(view, list(reversed(view)))
        pair.compare()
        assert len(pair.sent) == 1
        assert bytes_of(pair.sent) < 30


def test_one_difference_among_many_costs_little_more_than_itself() -> None:
    view = [rumour(number) for number in range(1, 301)]
    pair = Pair(view, [*view[:-1], rumour(300, incarnation=5)])
    pair.compare()
    assert pair.living(pair.ids[0]) == pair.living(pair.ids[1])
    assert pair.living(pair.ids[0])[node_id(300)].incarnation == 5
    told = [each for message in pair.sent if isinstance(message, Disclose | Sync) for each in message.rumours]
    assert len(told) <= FEW + 1
    assert bytes_of(pair.sent) < 5_000


def test_a_goodbye_that_one_side_missed_is_told_though_only_the_living_are_compared() -> None:
    view = [rumour(number) for number in range(1, 41)]
    for order in (1, -1):
        gone = [*view, rumour(7, MemberState.LEFT, 2)]
        pair = Pair(*(view, gone)[::order])
        pair.compare()
        assert all(not node.is_living(node_id(7)) for node in pair.nodes.values())


def test_a_node_that_knows_nobody_gets_all_in_frames_of_bounded_size() -> None:
    pair = Pair([], [rumour(number) for number in range(1, 701)])
    pair.compare()
    assert len(pair.living(pair.ids[0])) == 702
    assert max(len(encode(message)) for message in pair.sent) < CATCH_UP_BYTES + 5_000


def test_a_message_holds_no_more_than_so_many_branches_whatever_was_asked() -> None:
    many = leaves(*range(1, 3001))
    everything = [Branch(Place(2, path), 1) for path in range(256)] * 10
    found = differences(many, everything, Random(1))
    assert len(found.deeper) == BRANCHES_MAX  # of 200 large ones 16 are followed
    assert 0 < len(found.few) < BRANCHES_MAX


def test_places_that_do_not_exist_hold_nobody_and_differ_from_nothing() -> None:
    some = leaves(1, 2, 3)
    nowhere = [Branch(Place(level, path), 0) for level in (-1, 1, LEVELS, 99) for path in (-1, 10**6)]
    found = differences(some, nowhere, Random(1))
    assert (found.deeper, found.few) == ([], [])
    assert differences(some, [Branch(ROOT, 0)], Random(1)).few == [ROOT]


beliefs = st.builds(
    rumour,
    st.integers(1, 60),
    st.sampled_from([*ALIVE, MemberState.LEFT]),
    st.integers(0, 3),
    st.integers(1, 2),
)
views = st.lists(beliefs, max_size=80)


@settings(max_examples=150)
@given(views, views)
def test_any_two_views_agree_on_the_living_after_one_comparison(
    one: list[Rumour], other: list[Rumour]
) -> None:
    pair = Pair(one, other)
    pair.compare()
    assert pair.living(pair.ids[0]) == pair.living(pair.ids[1])
    sent = len(pair.sent)
    pair.compare()
    assert len(pair.sent) == sent + 1
