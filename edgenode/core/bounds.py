"""Which numbers and names are taken from a peer or a disk: one place for all that decode.

Within these bounds everything that the core computes of them can be encoded again, and no comparison lies
(NaN is neither before nor after anything).
"""

from __future__ import annotations

from functools import lru_cache
from math import isfinite
from typing import Final

from edgenode.core.errors import MalformedMessage
from edgenode.core.types import NO_TOKEN, Ballot, NodeId, StartToken

PARTIAL_BYTES_MAX: Final = 64 * 1024
"""Of a partial result: like a start's log it is copied to every holder, time and again."""
TEXT_CHARS_MAX: Final = 16_384
INTEGER_END: Final = 1 << 62
"""MessagePack ends at 2**64. Counters go on from what they heard: there is room for that above."""


def whole(value: object, *, least: int = 0, end: int = INTEGER_END) -> int:
    """The integer itself if it is within [least, end); raises MalformedMessage otherwise."""
    if type(value) is not int or not least <= value < end:
        raise MalformedMessage(f"expected an integer in [{least}, {end}), got {value!r:.40}")
    return value


def finite(value: object) -> float:
    """A number that is neither infinite nor NaN; raises MalformedMessage otherwise."""
    if type(value) is int:
        value = float(whole(value, least=1 - INTEGER_END))
    if type(value) is not float or not isfinite(value):
        raise MalformedMessage(f"expected a finite number, got {value!r:.40}")
    return value


# What nearly all that peers say has in common is checked once, and is one object: nodes, ballots, starts.
# (`typed`, or True would pass for 1.)


@lru_cache(maxsize=4096)
def shared_node(name: object) -> NodeId:
    if type(name) is not str or len(name) > TEXT_CHARS_MAX:
        raise MalformedMessage(f"a node id is text, got {name!r:.40}")
    return NodeId(name)


@lru_cache(maxsize=4096, typed=True)
def shared_ballot(term: object, owner: object) -> Ballot:
    return Ballot(whole(term), shared_node(owner))


@lru_cache(maxsize=4096, typed=True)
def shared_start(term: object, owner: object, start: object) -> StartToken:
    return StartToken(whole(term), shared_node(owner), whole(start)) if term else NO_TOKEN
