"""Which values a type admits: decoders of messages, made from the annotations of their fields.

Field types are the schema: decoding checks each, and the length of every string and list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from functools import partial
from typing import Any, Final, get_args, get_origin, get_type_hints

from edgenode.core.bounds import TEXT_CHARS_MAX, finite, shared_ballot, whole
from edgenode.core.errors import MalformedMessage
from edgenode.core.types import Ballot, Hash64, JobId, NodeId, State, Wall

ITEMS_MAX: Final = 20_000  # of any list
VERDICTS: Final = (State.SUCCEEDED, State.FAILED, State.CANCELLED)
"""The only states that travel outside of a record."""


def _decoder(kind: Any) -> Callable[[Any], Any]:
    origin = get_origin(kind)
    if origin is tuple:
        item, *rest = get_args(kind)
        if rest == [Ellipsis]:
            return _sequence(_decoder(item))
        return _fixed([_decoder(part) for part in (item, *rest)])
    if kind in (NodeId, str):
        return _text
    if kind is JobId:
        return _job
    if kind is int:
        return whole
    if kind is Hash64:
        return _hash
    if kind in (float, Wall):
        return finite
    if kind is bool:
        return _bool
    if kind is bytes:
        return _bytes
    if kind is State:
        return _member_of(kind, VERDICTS)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _member_of(kind, kind)
    if kind is Ballot:
        return _ballot
    if isinstance(kind, type) and issubclass(kind, tuple):
        return decoder_of_fields(kind)
    raise TypeError(f"no decoder for {kind!r}")  # a bug, at import


FROM_MINUS_ONE: Final = {("Promise", "epoch"), ("Rumour", "incarnation"), ("Evidence", "incarnation")}
"""Integers with a value below the first one: for no promise, and for a life that has not spoken yet."""


def decoder_of_fields(cls: type[Any]) -> Callable[[Any], Any]:
    hints = get_type_hints(cls)
    names = getattr(cls, "_fields", None) or tuple(cls.__dataclass_fields__)
    decoders = [
        _whole_or_none if (cls.__name__, name) in FROM_MINUS_ONE else _decoder(hints[name]) for name in names
    ]
    count = len(decoders)
    make: Callable[[list[Any]], Any] = (
        partial(tuple.__new__, cls) if issubclass(cls, tuple) else lambda values: cls(*values)
    )

    def decode_fields(values: Any) -> Any:
        if type(values) is not list or not count <= len(values) <= ITEMS_MAX:
            raise MalformedMessage(f"{cls.__name__} has {count} fields, got {values!r:.40}")
        # Further fields are from a newer version, and mean nothing here.
        return make([each(value) for each, value in zip(decoders, values, strict=False)])

    return decode_fields


def _list(value: Any) -> list[Any]:
    if type(value) is not list or len(value) > ITEMS_MAX:
        raise MalformedMessage(f"expected a list of at most {ITEMS_MAX}")
    return value


def _sequence(each: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: tuple([each(item) for item in _list(value)])


def _fixed(parts: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def decode_fixed(value: Any) -> Any:
        values = _list(value)
        if len(values) != len(parts):
            raise MalformedMessage(f"expected {len(parts)} values, got {len(values)}")
        return tuple([each(item) for each, item in zip(parts, values, strict=True)])

    return decode_fixed


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > TEXT_CHARS_MAX:
        raise MalformedMessage(f"expected text of at most {TEXT_CHARS_MAX} characters")
    return value


def _job(value: Any) -> bytes:
    if type(value) is not bytes or len(value) != 16:
        raise MalformedMessage("a job id is 16 bytes")
    return value


def _ballot(value: Any) -> Ballot:
    if type(value) is list and len(value) >= 2:
        term, owner, *_ = value
        if type(term) is int and type(owner) is str:
            return shared_ballot(term, owner)
    raise MalformedMessage(f"expected a ballot, got {value!r:.40}")


def _hash(value: Any) -> int:
    return whole(value, end=1 << 64)


def _whole_or_none(value: Any) -> int:
    return whole(value, least=-1)


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise MalformedMessage("expected true or false")
    return value


def _bytes(value: Any) -> bytes:
    if type(value) is not bytes:
        raise MalformedMessage("expected bytes")
    return value


def _member_of(kind: Any, allowed: Iterable[Any]) -> Callable[[Any], Any]:
    known = {str(member): member for member in allowed}

    def decode_member(value: Any) -> Any:
        found = known.get(value) if type(value) is str else None
        if found is None:
            raise MalformedMessage(f"not a {kind.__name__}: {value!r:.40}")
        return found

    return decode_member
