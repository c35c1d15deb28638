"""Which members should hold a job: weighted rendezvous hashing.

Every node computes the same order from the same members, with nothing to agree on. Taking a member away
never reorders the others: the next in rank after a dead owner is a node that already holds the job. That
property is why this hash was chosen (a ring moves neighbours only, but its copies are not in rank order).

Source: Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM ToN 6(1), 1998
(highest random weight); weights by -w / ln(u): Schindelhauer and Schomaker, "Weighted Distributed Hash
Tables", SPAA 2005.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from hashlib import blake2b
from math import log
from operator import itemgetter
from typing import Final

from edgenode.core.types import Hash64, JobId, NodeId

CLASSES: Final = 65_536
"""Ids fall into this many classes; those of one class share a rank. Only a cache. Of 1,000 members each
comes first in 65 classes, give or take an eighth (their square root); of ten in 6,500, give or take 1 %."""
RANKED_MAX: Final = 1_000_000
"""Places in cached ranks, of 8 bytes each: all classes of 15 members, 1,000 classes of 1,000."""


def class_of(job: JobId) -> int:
    """The class of a job id, from the last bytes: a UUIDv7 begins with the time, and ends with chance."""
    return int.from_bytes(job[-2:], "big") % CLASSES


def digest(place: int, member: NodeId) -> bytes:
    """Chance, the same for everybody, about one member and one class."""
    return blake2b(place.to_bytes(4, "big") + member.encode(), digest_size=8).digest()


def score(place: int, member: NodeId, weight: float) -> float:
    """How much `member` wants class `place`: greater wins. `weight` > 0 scales its share linearly."""
    assert weight > 0
    uniform = (int.from_bytes(digest(place, member), "big") + 1) / (2**64 + 1)
    return -weight / log(uniform)


class Ranking:
    """The rank order of every class over one set of members, computed when first asked for."""

    def __init__(self, weights: Mapping[NodeId, float]) -> None:
        self.members = frozenset(weights)
        self._weights = dict(sorted(weights.items()))
        self._cache: dict[int, tuple[NodeId, ...]] = {}
        self._cached_max = min(CLASSES, max(1, RANKED_MAX // max(1, len(weights))))

    def rank(self, job: JobId) -> tuple[NodeId, ...]:
        """All members in rank order for `job`, the most preferred first."""
        place = class_of(job)
        found = self._cache.get(place)
        if found is None:
            if len(self._cache) >= self._cached_max:
                del self._cache[next(iter(self._cache))]
            found = self._cache[place] = rank_class(place, self._weights)
        return found

    @cached_property
    def digest(self) -> Hash64:
        """Stands for the members and their weights: two of one digest rank everything alike."""
        hashed = blake2b(digest_size=8)
        for member, weight in self._weights.items():
            hashed.update(f"{member} {weight!r}\n".encode())
        return Hash64(int.from_bytes(hashed.digest(), "big"))

    def __len__(self) -> int:
        return len(self._weights)


def rank_class(place: int, weights: Mapping[NodeId, float]) -> tuple[NodeId, ...]:
    """Members by falling score; ties (practically none) by id, so that all nodes agree."""
    members = sorted(weights)
    if len(set(weights.values())) <= 1:
        # Then the score grows with the digest, which is four times quicker to compare.
        scored = [(digest(place, member), member) for member in members]
        scored.sort(key=itemgetter(0), reverse=True)  # stable: of equal ones the lower id stays first
        return tuple([member for _, member in scored])
    return tuple(sorted(members, key=lambda member: -score(place, member, weights[member])))
