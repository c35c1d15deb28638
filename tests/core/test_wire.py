"""Every message survives the wire, and nothing else comes through."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, get_type_hints

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenode.core import coding, wire
from edgenode.core.errors import MalformedMessage
from edgenode.core.types import Ballot, Hash64, JobId, Load, MemberInfo, MemberState, NodeId, Promise, State

st.register_type_strategy(JobId, st.binary(min_size=16, max_size=16))
st.register_type_strategy(NodeId, st.text("abc", max_size=3))

TEXT = st.text(max_size=5)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)


def strategy_for(kind: Any) -> st.SearchStrategy[Any]:
    origin, arguments = getattr(kind, "__origin__", None), getattr(kind, "__args__", ())
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(strategy_for(arguments[0]), max_size=2).map(tuple)
        return st.tuples(*map(strategy_for, arguments))
    if kind is JobId:
        return st.binary(min_size=16, max_size=16)
    if kind in (NodeId, str):
        return TEXT
    if kind is float:
        return NUMBERS
    if isinstance(kind, type) and issubclass(kind, tuple):
        hints = get_type_hints(kind)
        return st.tuples(*(strategy_for(hints[name]) for name in kind._fields)).map(lambda v: kind(*v))
    if kind is Hash64:
        return st.integers(0, 2**64 - 1)
    if kind is Promise:
        return st.builds(Promise, st.integers(-1, 2**40), strategy_for(Ballot))
    if kind is State:
        return st.sampled_from(coding.VERDICTS)
    if kind is int:
        return st.integers(0, 2**40)
    return st.from_type(kind)


def messages() -> st.SearchStrategy[Any]:
    def of(cls: type[Any]) -> st.SearchStrategy[Any]:
        hints = get_type_hints(cls)
        return st.builds(cls, **{name: strategy_for(hints[name]) for name in cls.__dataclass_fields__})

    return st.one_of([of(cls) for cls, _ in wire.MESSAGES.values()])


@given(messages())
def test_a_message_survives_the_wire(sent: wire.Message) -> None:
    assert wire.decode(wire.encode(sent)) == sent


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_refused(frame: bytes) -> None:
    with suppress(MalformedMessage):
        wire.decode(frame)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 99)
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=16),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=12,
)


@given(st.sampled_from(sorted(wire.MESSAGES)), st.lists(ANYTHING, max_size=5))
def test_known_tags_with_strange_fields_are_a_message_or_refused(tag: int, fields: list[Any]) -> None:
    with suppress(MalformedMessage):
        wire.decode(msgpack.packb([tag, *fields]))


@given(messages())
def test_fields_that_a_newer_version_adds_are_ignored(sent: wire.Message) -> None:
    longer = [*msgpack.unpackb(wire.encode(sent)), "new", 1]
    assert wire.decode(msgpack.packb(longer)) == sent


def test_the_belief_about_a_life_that_has_not_spoken_yet_survives_the_wire() -> None:
    info = MemberInfo(NodeId("a"), "a", 1, (), "", "0", 1.0, 1, (), (), 0.0, False)
    rumour = wire.Rumour(info, -1, MemberState.SUSPECT, NodeId("b"))
    for sent in (wire.Sync(True, Load(), (rumour,)), wire.Evidence(NodeId("a"), 1, -1)):
        assert wire.decode(wire.encode(sent)) == sent


def test_the_union_of_messages_names_every_tag() -> None:
    assert {cls for cls, _ in wire.MESSAGES.values()} == set(wire.Message.__args__)


@pytest.mark.parametrize(
    "frame", [b"", b"\x90", msgpack.packb([99]), msgpack.packb({"tag": 1}), msgpack.packb([[1], 2]), b"\xc1"]
)
def test_frames_without_a_known_tag_are_refused(frame: bytes) -> None:
    with pytest.raises(MalformedMessage):
        wire.decode(frame)


def test_a_list_longer_than_the_limit_is_refused() -> None:
    frame = msgpack.packb([wire.TAGS[wire.Taken], [bytes(16)] * (coding.ITEMS_MAX + 1)])
    with pytest.raises(MalformedMessage):
        wire.decode(frame)
