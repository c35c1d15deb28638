"""What faults did: each is counted when it strikes, so that a run can say what it has shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Final

from edgenode.sim.faults import FAMILIES, Family, Kind


class Struck(StrEnum):
    """What a standing condition did, or what came of a blow."""

    CRASHED = "crash between effects"
    CRASHED_RARELY = "crash in a rare moment"
    POISONED = "poison"
    LOST = "message lost"
    DOUBLED = "message doubled"
    LATE = "message late"
    CUT_OFF = "message cut off"
    LIED = "a living port refused"
    SLOW_SYNC = "slow sync"
    REFUSED = "write refused"
    DAMAGE_FOUND = "damage was found"
    BEHIND_FOUND = "a disk was found to be behind"
    CLONE_ENDED = "a clone ended"
    FORFEITED = "a run was forfeited"


_OF_FAMILY: Final = {
    Family.CRASHES: {Struck.CRASHED, Struck.CRASHED_RARELY},
    Family.POISON: {Struck.POISONED},
    Family.MESSAGES: {Struck.LOST, Struck.DOUBLED, Struck.LATE, Struck.LIED},
    Family.CUTS: {Struck.CUT_OFF},
    Family.DISKS: {Struck.SLOW_SYNC, Struck.REFUSED, Struck.DAMAGE_FOUND},
    Family.IDENTITY: {Struck.BEHIND_FOUND, Struck.CLONE_ENDED, Struck.FORFEITED},
}
FAMILY: Final[dict[str, Family]] = {
    **{kind: family for family, kinds in FAMILIES.items() for kind in kinds},
    **{struck: family for family, some in _OF_FAMILY.items() for struck in some},
}
"""Whose each of them is."""


def possible() -> Iterator[str]:
    """Whatever can be counted, in the order in which people are told."""
    every: Iterable[str] = (*Kind, *Struck)
    return iter(sorted(every, key=lambda name: (list(Family).index(FAMILY[name]), list(every).index(name))))


def told(strikes: Counter[str]) -> str:
    """What struck how often, in one line."""
    return ", ".join(f"{strikes[name]} {name}" for name in possible() if strikes[name]) or "nothing"
