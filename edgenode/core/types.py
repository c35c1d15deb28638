"""The words every layer shares: identifiers, ballots, start tokens, states and time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Final, NamedTuple, NewType, Protocol, TypeVar

_T = TypeVar("_T")

Instant = float
"""Seconds on this process's monotonic clock. Every decision uses it; it never goes backwards."""
Seconds = float
"""A duration."""
Wall = float
"""Seconds since the Unix epoch, UTC. For people, and for days written into records."""

NodeId = NewType("NodeId", str)
"""16 characters of lower-case base32: a hash of the node's public key, proved by TLS."""
JobId = NewType("JobId", bytes)
"""16 bytes of a UUIDv7 (RFC 9562 section 5.7): sorts by time, which keeps the store's writes local. With an
idempotency key a UUIDv8 (section 5.8) of its hash, which says nothing of time."""

Hash64 = NewType("Hash64", int)
"""A digest of 64 bits, as a number."""

NOBODY: Final = NodeId("")
FOREVER: Final[Instant] = float("inf")
FAR_S: Final[Seconds] = 3_660 * 86_400.0
"""The longest delay, timeout or lifetime that people may ask for: ten years. A wrong unit (milliseconds) is
then noticed, and no day in a record is beyond what a calendar can show."""


WORD: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}", re.ASCII)
"""What tasks, queues, and labels of nodes may be called, and what labels may say."""
WORD_TEXT: Final = "1 to 128 letters, digits, or any of _ . : / - after the first"
"""`WORD` for people."""


def label_of(text: str) -> tuple[str, str]:
    """A label as people write it: KEY=VALUE, or a bare KEY, which stands for KEY=yes. Both are to be `WORD`s,
    which is not checked here."""
    key, equals, value = text.partition("=")
    return key, value if equals else "yes"


CHANCE_BITS: Final = 32


def next_boot(before: int, chance: int) -> int:
    """The number of a new life of an identity whose last one had the number `before` (0: none).

    Counts the starts, with chance below: two copies of one disk that are started side by side have counted
    alike, and differ all the same. Numbers of one disk's lives rise.

    Args:
        chance: drawn for each life, in [0, 2**32).
    """
    assert 0 <= chance < 1 << CHANCE_BITS
    return ((before >> CHANCE_BITS) + 1 << CHANCE_BITS) | chance


def starts_of(boot: int) -> int:
    """The how many-th start of its disk this life is."""
    return boot >> CHANCE_BITS


def are_copies(one: int, other: int) -> bool:
    """Whether two lives of one identity began at the same count: then there are two copies of its disk."""
    return one != other and starts_of(one) == starts_of(other) > 0


class Word(NamedTuple):
    """How far one life of an identity came, as far as somebody knows: `written` of its writes were on its
    disk when it said something that rests on them."""

    boot: int
    written: int


Past = tuple[Word, ...]
"""What a disk knows of the lives of its own identity, when a new one begins: how many writes of each of the
latest ones are on it. They rise."""


class Ballot(NamedTuple):
    """Who owns a job, and since which move. Ordered as in Paxos: by term, ties by owner.

    Always compared whole: two owners of one term do exist after a partition.
    """

    term: int
    owner: NodeId


NO_BALLOT: Final = Ballot(0, NOBODY)


class Promise(NamedTuple):
    """A holder's word, on its disk, not to acknowledge writes below this."""

    epoch: int
    ballot: Ballot


class KeyUse(NamedTuple):
    """What an idempotency key is used for: the holders of its job, and what that does."""

    holders: tuple[NodeId, ...]
    content: str  # the fingerprint of what was submitted


NO_USE: Final = KeyUse((), "")


class StartToken(NamedTuple):
    """Names one start of a job, for ever. Handed to the task as its fencing token."""

    term: int
    owner: NodeId
    start: int

    @property
    def ballot(self) -> Ballot:
        return Ballot(self.term, self.owner)


NO_TOKEN: Final = StartToken(0, NOBODY, 0)


class State(StrEnum):
    """Where a job is in its life. The transitions are a table in `core/jobs.py`."""

    SCHEDULED = "scheduled"
    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


TERMINAL: Final = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED})


class MemberState(StrEnum):
    """What the mesh believes of a member (SWIM's words, and `leaving` for one that hands over)."""

    READY = "ready"
    JOINING = "joining"
    SUSPECT = "suspect"
    LEAVING = "leaving"
    DEAD = "dead"
    LEFT = "left"


class Drain(StrEnum):
    """Whether a node was asked to run nothing, and to give away what it owns; it stays a member."""

    NO = ""
    DRAINING = "draining"  # something still runs there, or is on its way to others
    DRAINED = "drained"  # nothing runs, and what others could take is theirs


class Delivery(StrEnum):
    AT_LEAST_ONCE = "at-least-once"
    AT_MOST_ONCE = "at-most-once"


BACKOFFS: Final = ("constant", "exponential")
ATTEMPTS_MAX: Final = 64
"""Of a job: `COUNTED_BALLOTS_MAX` of core/jobs.py says why."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before attempt n + 1. Exponential waits are drawn from 0 to the cap (full jitter)."""

    kind: str = "exponential"  # one of BACKOFFS
    base_s: Seconds = 1.0
    cap_s: Seconds = 300.0


DEFAULT_BACKOFF: Final = Backoff()


class Partition(StrEnum):
    """What a job does on a side of a cut that has no majority of its holders."""

    RUN = "run"
    WAIT = "wait"


class Room(NamedTuple):
    """So many starts at one time: `slots` of tasks that have a worker process each, and `async_slots` of
    coroutines, which share one."""

    slots: int
    async_slots: int = 0


class Load(NamedTuple):
    """How busy a node is: travels on every ping and its answer, and is never compared or digested."""

    owned: int = 0  # unfinished jobs it coordinates
    queued: int = 0
    running: int = 0
    done: int = 0  # jobs that ended here since the node started
    free: int = 0  # of `MemberInfo.slots`; of its async slots `free_of` knows
    taken: int = 0  # jobs that this node took over since it started
    written: int = 0  # writes of this life that are on its disk, and may have been spoken of

    def free_of(self, room: Room) -> Room:
        """What is free of the room that this node has. What runs in none of its `slots` is a coroutine, so no
        ping need tell of those. When it can use less than it says (no worker process is to be had, or starts
        of an earlier life are ending) coroutines may find less than this, and never more."""
        coroutines = self.running - (room.slots - self.free)
        return Room(self.free, room.async_slots - coroutines)


class MemberInfo(NamedTuple):
    """What a node says of itself. Only the node itself changes it, under a new incarnation."""

    id: NodeId
    name: str
    boot: int  # this life's number (`next_boot`): evidence about one life says nothing of the next
    addresses: tuple[tuple[str, int], ...]  # peer (mTLS) host and port, best first
    api: str  # base URL of its HTTP API
    version: str
    weight: float
    slots: int
    labels: tuple[tuple[str, str], ...]
    tasks: tuple[str, ...]
    joined_at: Wall
    ready: bool  # takes new jobs
    stores: bool = True  # False while its disk takes no writes: then it owns, holds and runs nothing
    behind: bool = False  # its disk was put back, or is a copy: it has no vote
    coroutines: tuple[str, ...] = ()  # those of `tasks` that run in `async_slots`
    async_slots: int = 0
    drain: Drain = Drain.NO

    @property
    def room(self) -> Room:
        """For how many starts there is room while nothing runs."""
        return Room(self.slots, self.async_slots)

    @property
    def tasks_by_slot(self) -> tuple[frozenset[str], frozenset[str]]:
        """The tasks that take one of `slots`, and those that take one of `async_slots`."""
        coroutines = frozenset(self.coroutines)
        return frozenset(self.tasks) - coroutines, coroutines


class Dice(Protocol):
    """The random source that the shell (or a simulator's seed) hands in: `random.Random` fits."""

    def random(self) -> float: ...

    def uniform(self, a: float, b: float) -> float: ...

    def randrange(self, start: int, stop: int) -> int: ...

    def sample(self, population: Sequence[_T], k: int) -> list[_T]: ...

    def randbytes(self, n: int) -> bytes: ...


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at this name or address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_host(name: object) -> bool:
    """Whether a name can be looked up at all: 253 characters, 63 in a label (RFC 1035 section 2.3.4)."""
    if not isinstance(name, str) or not 0 < len(name) <= 253:
        return False
    return all(0 < len(label) <= 63 for label in name.removesuffix(".").split("."))
