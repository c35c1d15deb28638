"""What faults did: each is counted when it strikes, so that a run can say what it has shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Final

from edgenode.sim.faults import FAMILIES, Family, Kind
from edgenode.sim.operations import Operation


class Struck(StrEnum):
    """What a standing condition did, or what came of a blow."""

    CRASHED = "crash between effects"
    CRASHED_IN_TAKEOVER = f"crash during {Operation.TAKEOVER}"
    CRASHED_IN_GIFT = f"crash during {Operation.GIFT}"
    CRASHED_IN_LEAVING = f"crash during {Operation.LEAVING}"
    CRASHED_IN_CHANGE_OF_HOLDERS = f"crash during {Operation.HOLDERS}"
    CRASHED_IN_COPYING = f"crash during {Operation.COPYING}"
    CRASHED_IN_SUBMISSION = f"crash during {Operation.SUBMISSION}"
    CRASHED_IN_EXPIRY = f"crash during {Operation.EXPIRY}"
    CRASHED_WITH_DISK = f"crash during {Operation.DISK}"
    CRASHED_IN_START = f"crash during {Operation.START}"
    CRASHED_IN_SETTLING = f"crash during {Operation.SETTLING}"
    POISONED = "poison"
    LOST = "message lost"
    DOUBLED = "message doubled"
    LATE = "message late"
    OVERTOOK = "message overtook another"
    REPLAYED = "message replayed"
    CUT_OFF = "message cut off"
    LIED = "a living port refused"
    SLOW_SYNC = "slow sync"
    REFUSED = "write refused"
    DAMAGE_FOUND = "damage was found"
    BEHIND_FOUND = "a disk was found to be behind"
    CLONE_ENDED = "a clone ended"
    FORFEITED = "a run was forfeited"
    WRONG_CLOCK = "clock wrong from the start"
    DRIFT = "clock drifts"


STANDING: Final = frozenset({Struck.WRONG_CLOCK, Struck.DRIFT})
"""Counted at the start, whatever becomes of it."""
_OF_FAMILY: Final = {
    Family.CRASHES: {struck for struck in Struck if struck.startswith("crash ")},
    Family.POISON: {Struck.POISONED},
    Family.MESSAGES: {
        Struck.LOST,
        Struck.DOUBLED,
        Struck.LATE,
        Struck.OVERTOOK,
        Struck.REPLAYED,
        Struck.LIED,
    },
    Family.CUTS: {Struck.CUT_OFF},
    Family.DISKS: {Struck.SLOW_SYNC, Struck.REFUSED, Struck.DAMAGE_FOUND},
    Family.CLOCKS: {Struck.WRONG_CLOCK, Struck.DRIFT},
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
