"""Two views compared by digests, so that only what differs has to travel.

The living members are the leaves of a tree: a hash of the id says the place, with 16 branches at each level.
What is said of a branch is the sum of the digests of its beliefs, whatever their order. Equal roots end a
comparison after one message of some 20 bytes, for any number of members. Else branches are compared, and of
one with few members the beliefs themselves are sent. Nothing is remembered between two messages, and what a
lost one would have told is found in the next round.

Source: Merkle, "A Digital Signature Based on a Conventional Encryption Function", CRYPTO '87; trees of
digests between replicas: DeCandia et al., "Dynamo", SOSP 2007, section 4.7.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, NamedTuple

import msgpack

from edgenode.core.gossip import size_of
from edgenode.core.types import Dice, Hash64
from edgenode.core.wire import CATCH_UP_BYTES, Branch, Place, Rumour

BRANCHES: Final = 16
LEVELS: Final = 15
"""A key of 64 bits has 16 levels; two members that share 15 of them are not told apart any further."""
FEW: Final = 8
"""Members of a branch whose beliefs are sent rather than compared further: 16 digests cost as much as one."""
DESCENTS_MAX: Final = 16
"""Branches followed down from one message; the others are left to the next round. So a message holds at most
256 branches, and 1,000 members that all differ are through after three."""
BRANCHES_MAX: Final = BRANCHES * DESCENTS_MAX
ROOT: Final = Place(0, 0)
_BITS: Final = 64
_ALL: Final = 2**_BITS - 1


class Leaf(NamedTuple):
    """One belief, and its place in the tree."""

    rumour: Rumour
    key: int
    digest: int


def leaf_of(rumour: Rumour) -> Leaf:
    """Make the leaf for a belief. Costs some 5 µs: keep it as long as the belief is the same."""
    return Leaf(rumour, _hash(rumour.info.id.encode()), _hash(msgpack.packb(rumour)))


def _hash(packed: bytes) -> int:
    return int.from_bytes(blake2b(packed, digest_size=_BITS // 8).digest(), "big")


def place_at(key: int, level: int) -> Place:
    """Where a key belongs at this level of the tree, 0 being the root."""
    return Place(level, key >> (_BITS - 4 * level))


def digest_of(leaves: Iterable[Leaf]) -> Hash64:
    """A sum, so that it needs no order, and taking one away undoes adding it."""
    return Hash64(sum(leaf.digest for leaf in leaves) & _ALL)


def root_of(leaves: Iterable[Leaf]) -> Branch:
    return Branch(ROOT, digest_of(leaves))


@dataclass(slots=True)
class Difference:
    """What to say about the branches in which two views differ."""

    deeper: list[Branch] = field(default_factory=list)  # to be compared next
    few: list[Place] = field(default_factory=list)  # whose members are to be told


def differences(leaves: Sequence[Leaf], branches: Sequence[Branch], dice: Dice) -> Difference:
    """Where `branches`, told by somebody, are not as they are here.

    Of many large ones only a few are followed, by chance: the next round begins again from the root.
    """
    found = Difference()
    large: list[tuple[Place, list[Leaf]]] = []
    asked = [branch for branch in branches[:BRANCHES_MAX] if 0 <= branch.place.level <= LEVELS]
    mine = _grouped(leaves, {branch.place for branch in asked})
    for place, digest in asked:
        members = mine[place]
        if digest_of(members) == digest:
            continue
        if len(members) <= FEW or place.level == LEVELS:
            found.few.append(place)
        else:
            large.append((place, members))
    if len(large) > DESCENTS_MAX:
        large = dice.sample(large, DESCENTS_MAX)
    for place, members in large:
        first = place.path * BRANCHES
        children = {Place(place.level + 1, first + offset) for offset in range(BRANCHES)}
        groups = _grouped(members, children)
        found.deeper += [Branch(child, digest_of(groups[child])) for child in sorted(children)]
    return found


def disclosures(
    leaves: Sequence[Leaf], places: Sequence[Place]
) -> list[tuple[tuple[Place, ...], tuple[Rumour, ...]]]:
    """The beliefs in these places, as messages of about `CATCH_UP_BYTES` at most."""
    groups = _grouped(leaves, set(places))
    pieces: list[tuple[list[Place], list[Rumour]]] = []
    room = 0
    for place in places:
        rumours = [leaf.rumour for leaf in groups[place]]
        size = sum(map(size_of, rumours))
        if not pieces or size > room:
            pieces.append(([], []))
            room = CATCH_UP_BYTES
        room -= size
        pieces[-1][0].append(place)
        pieces[-1][1].extend(rumours)
    return [(tuple(some), tuple(rumours)) for some, rumours in pieces]


def others_in(leaves: Iterable[Leaf], places: Iterable[Place], heard: Iterable[Rumour]) -> list[Rumour]:
    """The beliefs in these places about members of which nothing was heard, each once."""
    told = {rumour.info.id for rumour in heard}
    groups = _grouped(leaves, set(places))
    found = {leaf.rumour.info.id: leaf.rumour for place in sorted(groups) for leaf in groups[place]}
    return [rumour for node, rumour in found.items() if node not in told]


def _grouped(leaves: Iterable[Leaf], places: set[Place]) -> dict[Place, list[Leaf]]:
    groups: dict[Place, list[Leaf]] = {place: [] for place in places}
    levels = sorted({place.level for place in places if 0 <= place.level <= LEVELS})
    for leaf in leaves:
        for level in levels:
            group = groups.get(place_at(leaf.key, level))
            if group is not None:
                group.append(leaf)
    return groups
