"""Whatever comes, in whatever order: the invariants of one node's view."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from membership_mesh import LAN, describe, node_id

from edgenode.core.membership import Membership
from edgenode.core.signals import Booted, LeaveAsked, LinkDown, LinkUp, MessageArrived, Send, TimePassed
from edgenode.core.types import NOBODY, Load, MemberState
from edgenode.core.view import Standing
from edgenode.core.wire import (
    Branch,
    Compare,
    Disclose,
    Evidence,
    Nack,
    Ping,
    PingReq,
    Place,
    Pong,
    Rumour,
    Sync,
    decode,
    encode,
)

SMALL = replace(LAN, members_max=5, dead_keep_s=3.0, grace_s=2.0)
ME = node_id(1)

numbers = st.integers(1, 8)
nodes = numbers.map(node_id)
boots = st.integers(1, 3)
seqs = st.integers(0, 12)
loads = st.builds(Load, owned=st.integers(0, 5))
rumours = st.builds(
    lambda number, boot, ready, incarnation, state, accuser: Rumour(
        describe(number, boot=boot, ready=ready), incarnation, state, accuser
    ),
    numbers,
    boots,
    st.booleans(),
    st.integers(-1, 6),
    st.sampled_from(MemberState),
    st.one_of(nodes, st.just(NOBODY)),
)
told = st.lists(rumours, max_size=4).map(tuple)
places = st.builds(Place, st.integers(0, 17), st.integers(0, 300))  # the codec lets no others through
messages = st.one_of(
    st.builds(Ping, seqs, nodes, loads, told),
    st.builds(PingReq, seqs, nodes, told),
    st.builds(Pong, seqs, loads, told),
    st.builds(Nack, seqs, told),
    st.builds(Sync, st.booleans(), loads, told),
    st.builds(Evidence, nodes, boots, st.integers(-1, 6)),
    st.builds(Compare, st.lists(st.builds(Branch, places, st.integers(0, 2**64 - 1)), max_size=4).map(tuple)),
    st.builds(Disclose, st.lists(places, max_size=4).map(tuple), told),
)
events = st.one_of(
    st.builds(MessageArrived, nodes, messages),
    st.builds(LinkUp, nodes, boots, st.sampled_from([None, ("127.0.0.1", 9999)])),
    st.builds(LinkDown, nodes, boots, st.booleans()),
    st.just(TimePassed()),
    st.sampled_from(["ready", "unready"]),
)
waits = st.one_of(st.just(0.0), st.just(-1.0), st.floats(0.0, 4.0))  # -1: exactly until the deadline
stories = st.lists(st.tuples(waits, events), max_size=40)


def check(membership: Membership) -> None:
    assert membership.standing(ME) is Standing.LIVING
    assert len(membership.members()) <= SMALL.members_max
    for node in membership.members():
        standing = membership.standing(node)
        assert membership.is_living(node) == (standing is Standing.LIVING)
        dead_since = membership.dead_since(node)
        assert (dead_since is None) == (standing in (Standing.LIVING, Standing.UNKNOWN))
    assert all(membership.is_living(node) for node in membership.ranking().members)
    assert len(membership.snapshot()) == len(membership.members())


@settings(max_examples=150)
@given(stories, st.integers(0, 1000))
def test_invariants_hold_after_any_story(story: list[tuple[float, object]], seed: int) -> None:
    membership = Membership(describe(1, boot=2, ready=False), SMALL, Random(seed))
    now = 0.0
    membership.handle(Booted((), ()), now)
    shown: dict[object, object] = {}
    for wait_s, event in story:
        now = max(now, membership.deadline()) if wait_s < 0 else now + wait_s
        if isinstance(event, str):
            effects = membership.set_ready(event == "ready", now)
        else:
            effects = membership.handle(event, now)  # type: ignore[arg-type]
        if isinstance(event, TimePassed):
            assert membership.deadline() > now
        for effect in effects:
            if isinstance(effect, Send):
                assert effect.to != ME
                assert decode(encode(effect.message)) == effect.message
        check(membership)
        changed = membership.take_changes()
        for node in membership.members():
            info = membership.info(node)
            assert info is not None
            present = (membership.standing(node), info.ready, node in membership.ranking().members, info.boot)
            assert node in changed or shown.get(node, present) == present
            shown[node] = present


living = st.lists(
    st.builds(
        lambda number, boot, incarnation, state: Rumour(
            describe(number, boot=boot), incarnation, state, NOBODY
        ),
        st.integers(2, 4),
        boots,
        st.integers(0, 3),
        st.sampled_from([MemberState.JOINING, MemberState.READY, MemberState.LEAVING]),
    ),
    max_size=8,
)


@settings(max_examples=100)
@given(living, st.randoms(use_true_random=False))
def test_two_nodes_that_hear_the_same_in_another_order_believe_the_same(
    heard: list[Rumour], random: Random
) -> None:
    shuffled = list(heard)
    random.shuffle(shuffled)
    beliefs = []
    for order in (heard, shuffled):
        membership = Membership(describe(1), LAN, Random(1))
        membership.handle(Booted((), ()), 0.0)
        membership.handle(MessageArrived(node_id(2), Sync(True, Load(), tuple(order))), 1.0)
        beliefs.append([(each.info, each.incarnation, each.state) for each in membership.snapshot()])
    assert beliefs[0] == beliefs[1]


@settings(max_examples=50)
@given(stories)
def test_after_goodbye_nothing_is_sent(story: list[tuple[float, object]]) -> None:
    membership = Membership(describe(1, boot=2, ready=False), SMALL, Random(1))
    membership.handle(Booted((), ()), 0.0)
    membership.handle(LeaveAsked(), 0.0)
    membership.left(0.0)
    for now, (_, event) in enumerate(story):
        if not isinstance(event, str):
            assert membership.handle(event, float(now)) == []  # type: ignore[arg-type]
