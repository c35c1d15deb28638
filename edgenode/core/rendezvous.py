"""Which members should hold a job: weighted rendezvous hashing.

Every node computes the same order from the same members, with nothing to agree on. Taking a member away
never reorders the others: the next in rank after a dead owner is a node that already holds the job. That
property is why this hash was chosen (a ring moves neighbours only, but its copies are not in rank order).

Source: Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM ToN 6(1), 1998
(highest random weight); weights by -w / ln(u): Schindelhauer and Schomaker, "Weighted Distributed Hash
Tables", SPAA 2005.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from math import log
from typing import Final

from edgenode.core.types import JobId, NodeId

CLASSES: Final = 4096
"""Ids fall into this many classes, and a class is ranked once per membership. Only a cache: with 4096
classes over 500 members the largest share stays within a few percent of the mean."""


def class_of(job: JobId) -> int:
    """The class of a job id, from the last bytes: a UUIDv7 begins with the time, and ends with chance."""
    return int.from_bytes(job[-2:], "big") % CLASSES


def score(place: int, member: NodeId, weight: float) -> float:
    """How much `member` wants class `place`: greater wins. `weight` > 0 scales its share linearly."""
    assert weight > 0
    digest = blake2b(place.to_bytes(4, "big") + member.encode(), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
    return -weight / log(uniform)


class Ranking:
    """The rank order of every class over one set of members, computed when first asked for."""

    def __init__(self, weights: Mapping[NodeId, float]) -> None:
        self.members = frozenset(weights)
        self._weights = dict(sorted(weights.items()))
        self._cache: dict[int, tuple[NodeId, ...]] = {}

    def rank(self, job: JobId) -> tuple[NodeId, ...]:
        """All members in rank order for `job`, the most preferred first."""
        place = class_of(job)
        found = self._cache.get(place)
        if found is None:
            found = self._cache[place] = rank_class(place, self._weights.items())
        return found

    def __len__(self) -> int:
        return len(self._weights)


def rank_class(place: int, weights: Iterable[tuple[NodeId, float]]) -> tuple[NodeId, ...]:
    """Members by falling score; ties (practically none) by id, so that all nodes agree."""
    scored = sorted(((-score(place, member, weight), member) for member, weight in weights))
    return tuple(member for _, member in scored)
