"""What the core hears (events, facts in the past) and what it orders (effects).

`Node.handle(event, now)` returns effects to be carried out *in order*, with one rule for whoever does: a
`Persist` is durable before any later effect of the same list, or of a later list, leaves the machine. Only
membership's messages (`Send` with `urgent=True`) may overtake. So nothing ever asserts what is not on disk,
and the core needs no word about when a write was done; only about one that failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple, NewType, Protocol

from edgenode.core.errors import EdgeNodeError
from edgenode.core.jobs import Record
from edgenode.core.specs import Spec
from edgenode.core.types import (
    FOREVER,
    Ballot,
    JobId,
    KeyUse,
    MemberInfo,
    NodeId,
    Past,
    Promise,
    Room,
    StartToken,
    Wall,
)
from edgenode.core.wire import Message, Query, QueueItem, Said, TaskItem, Verdict, Wish

RequestId = NewType("RequestId", int)
"""Made by the shell for each local request; comes back in exactly one `Answer`."""


# ---------------------------------------------------------------------------------------- the archive


class Row(NamedTuple):
    """What one disk has of one job. `promise` is None when equal to the record's own epoch and ballot.

    A row may hold a promise without a record (`blob == b""`): a word given before any copy came.
    """

    id: JobId
    blob: bytes
    promise: Promise | None


class ClaimRow(NamedTuple):
    """What one disk has said about the use of an idempotency key: an acceptor's state (core/keys.py)."""

    id: JobId
    promised: Ballot
    accepted: Ballot
    use: KeyUse  # accepted under that ballot; NO_USE for none yet
    expires_at: Wall  # of the job; it may be forgotten some time after that


class Archive(Protocol):
    """The synchronous read side of this node's disk, as `Storage` is to etcd's raft.

    Sees everything whose `Persist` is durable. Records leave the core's memory only after that.
    May still show rows that an unfinished `Persist` drops.
    """

    @property
    def damaged(self) -> Set[JobId]:
        """Jobs whose row failed its checksum, ever: `get` does not return that row."""
        ...

    def get(self, jobs: Sequence[JobId]) -> dict[JobId, Row]: ...

    def scan(self, after: JobId, limit: int) -> list[Row]:
        """Rows in id order, strictly after `after`."""
        ...

    def due(self, until: Wall, after: tuple[Wall, JobId], limit: int) -> list[tuple[Wall, JobId]]:
        """Whose `StoredRow.due` has come by `until`, in the order of that day and then of ids, strictly after
        `after`."""
        ...

    def claims(self, jobs: Sequence[JobId]) -> dict[JobId, ClaimRow]: ...

    def claim_count(self) -> int:
        """How many claims there are."""
        ...

    def reports(self, job: JobId, *, brief: bool) -> list[Said]:
        """What the job's starts said, in order. `brief`: only how far the latest one is, without its text
        (`core.reports.brief_of`)."""
        ...


# --------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Booted:
    """The first event: every unsettled row of this disk, and the peers it remembers."""

    rows: Iterable[Row]  # read while the event is handled: there may be more than fit into memory
    peers: tuple[bytes, ...]  # as `Remember` wrote them
    clock: Wall = 0.0  # as the latest `Persist` that had one; 0: none
    past: Past | None = None  # None: nobody is asked whether this disk is behind
    words: bytes = b""  # as `RememberWords` wrote them
    forgotten: Wall = 0.0  # as the latest `Persist` that had one; 0: none
    queues: bytes = b""  # likewise


@dataclass(frozen=True, slots=True)
class ClockRead:
    """What the wall clock shows now. Comes at the start and about every second."""

    wall: Wall


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing happened, but `deadline()` has come."""


@dataclass(frozen=True, slots=True)
class MessageArrived:
    source: NodeId  # proved by TLS
    message: Message
    boot: int = 0  # the life of `source` that said so, as it greeted; 0 if that is not known


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A handshake was completed; `address` is where the peer was reached, None if it called us."""

    peer: NodeId
    boot: int
    address: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class LinkDown:
    """A link ended. `refused`: its port was tried at once and refused, so its process is gone."""

    peer: NodeId
    boot: int
    refused: bool


@dataclass(frozen=True, slots=True)
class CloneMet:
    """Another living process has this node's identity. `keeps`: a peer is linked to that one, and sent this
    one away; else the two have met."""

    boot: int
    keeps: bool


@dataclass(frozen=True, slots=True)
class SubmitAsked:
    """Answered with `SubmitDone`. Specs are complete: ids made, options checked."""

    request: RequestId
    specs: tuple[Spec, ...]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class ReadAsked:
    """Answered with `ReadDone`. With `wait_s` > 0, when all are terminal and settled, or time is up."""

    request: RequestId
    jobs: tuple[JobId, ...]
    wait_s: float
    timeout_s: float


@dataclass(frozen=True, slots=True)
class SearchAsked:
    """Answered with `SearchDone`."""

    request: RequestId
    query: Query
    timeout_s: float


@dataclass(frozen=True, slots=True)
class RequestDropped:
    """The client went away: no answer is wanted."""

    request: RequestId


@dataclass(frozen=True, slots=True)
class SearchedHere:
    """Ends a `SearchHere`."""

    ticket: int
    records: tuple[bytes, ...]
    complete: bool
    upto: bytes = b""  # if not: how far down it looked, where that is further than the last record's id


@dataclass(frozen=True, slots=True)
class RunEnded:
    """Ends a `Run`, whatever happened: the task returned or raised, its worker died, or it was stopped.

    `lost`: the worker died under it, so this says nothing of how the task would have ended. `begun`: False
    if it never reached a worker. `counted`: False if another start in the same worker was to blame.
    """

    job: JobId
    token: StartToken
    verdict: Verdict
    lost: bool
    begun: bool = True
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Reported:
    """A start that runs here has said something: what is new since its last report (`core.wire.Said`). All
    that it said comes before its `RunEnded`."""

    job: JobId
    token: StartToken
    number: int
    fraction: float
    message: str
    before: int
    text: bytes
    partial: bytes = b""


@dataclass(frozen=True, slots=True)
class ReportsAsked:
    """Answered with `ReportsDone`."""

    request: RequestId
    job: JobId
    nodes: tuple[NodeId, ...]  # who may have them; () for all members
    brief: bool
    timeout_s: float


@dataclass(frozen=True, slots=True)
class SlotsChanged:
    """So many starts can run here at one time from now on: 0 while no worker process can be had."""

    room: Room
    ahead: int = 0  # and so many more of this node's own jobs may wait for slots that are free in a moment


@dataclass(frozen=True, slots=True)
class Persisted:
    """Every `Persist` up to this number is durable and seen by the archive. Lets finished records leave
    memory; nothing else depends on it. Numbers go on growing after a `StoreRecovered`."""

    number: int


@dataclass(frozen=True, slots=True)
class InspectAsked:
    """Answered with `InspectDone`: what each holder of a job has on its disk."""

    request: RequestId
    job: JobId
    timeout_s: float


@dataclass(frozen=True, slots=True)
class QueueAsked:
    """Answered with `QueueDone`. Of a queue's settings those are to be changed that are not None."""

    request: RequestId
    queue: str
    paused: bool | None
    concurrency: int | None  # 0: no limit
    rate: float | None  # per second; 0: no limit
    burst: int | None
    timeout_s: float


@dataclass(frozen=True, slots=True)
class CountAsked:
    """Answered with `CountDone`: how many jobs of each queue the mesh has."""

    request: RequestId
    timeout_s: float


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """Answered with `CancelDone`. The holders are those of the record that was found."""

    request: RequestId
    jobs: tuple[tuple[JobId, tuple[NodeId, ...]], ...]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class RegulateAsked:
    """Answered with `RegulateDone`: a member, or this node, is to take part in another way."""

    request: RequestId
    node: NodeId
    wish: Wish
    timeout_s: float


@dataclass(frozen=True, slots=True)
class TasksAsked:
    """Answered with `TasksTold`: what others say of tasks that this node lacks."""

    request: RequestId
    names: tuple[str, ...]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class StoreRefused:
    """A Persist failed (full, read-only, broken), and so will every later one, until `StoreRecovered`.

    Of the effects behind it none has left that says anything (no `Send`, no answer, no `Changed`), and none
    ever will. But what is long still ends: each `Run` among them with a `RunEnded` that was not `begun`, each
    `SearchHere` with an empty `SearchedHere`; and `Peers`, `Remember`, `StopRun`, `Log` and `Left` are
    carried out. A local request whose answer was among them is answered by the shell: nobody knows. Slowness
    is no refusal.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class StoreRecovered:
    """The disk takes writes again, and has counted one more boot: this is a new life of the node, which knows
    what is on the disk and nothing else. Links are to be greeted on under that boot number from here on."""

    boot: int
    rows: Iterable[Row]  # as in `Booted`


@dataclass(frozen=True, slots=True)
class RowsDamaged:
    """The rows of these jobs are not what was written. `Archive.damaged` names them already, and what was
    loaded at the start left them out."""

    jobs: tuple[JobId, ...]


@dataclass(frozen=True, slots=True)
class StopAsked:
    """End at once: stop what runs, say goodbye, hand nothing over. Ends with `Left`."""


@dataclass(frozen=True, slots=True)
class LeaveAsked:
    """Hand everything over, then say goodbye: ends with `Left`."""


Flowing = MessageArrived | RunEnded | Reported | SubmitAsked | ReadAsked
"""What comes in numbers while jobs are made and run; of messages only some (`core/bursts.py`)."""


@dataclass(frozen=True, slots=True)
class Burst:
    """What came in while the node was busy, in its order: taken as one event, with one `Persist`.
    (What an event costs in any case is as much as ten acknowledgements.) Made by `bursts.take`."""

    events: tuple[Flowing, ...]


Event = (
    Booted | ClockRead | TimePassed | MessageArrived | LinkUp | LinkDown | CloneMet | SubmitAsked | ReadAsked
    | SearchAsked | InspectAsked | QueueAsked | CountAsked | CancelAsked | RequestDropped | SearchedHere
    | RunEnded | Persisted | StoreRefused | StoreRecovered | RowsDamaged | LeaveAsked | StopAsked
    | SlotsChanged | Reported | ReportsAsked | RegulateAsked | TasksAsked | Burst
)  # fmt: skip


# -------------------------------------------------------------------------------------------- effects


@dataclass(frozen=True, slots=True)
class Persist:
    """Make these rows durable, all or nothing. Numbered from 1 in each process."""

    rows: tuple[StoredRow, ...]
    number: int = 0
    clock: Wall = 0.0  # the mesh's time, to be kept for the next start; 0: not with this one
    dropped: tuple[JobId, ...] = ()  # rows that are to go; none of them is among `rows`
    forgotten: Wall = 0.0  # jobs whose last day is up to this were dropped here: kept with that; 0: as it was
    claims: tuple[ClaimRow, ...] = ()
    forget_claims_before: Wall = 0.0  # those that expired before this day are deleted
    reports: tuple[Said, ...] = ()
    silenced: tuple[JobId, ...] = ()  # jobs whose reports are to go; those of `dropped` ones go, too
    queues: bytes = b""  # the settings of all queues (opaque to the store); b"": as they were


class StoredRow(NamedTuple):
    """A row and what the store indexes of it."""

    row: Row
    owner: NodeId
    settled: bool
    state: str
    task: str
    queue: str
    due: Wall = FOREVER  # when retention next has to look at it, by the mesh's time


@dataclass(frozen=True, slots=True)
class Send:
    to: NodeId
    message: Message
    urgent: bool = False  # membership: not behind a disk


@dataclass(frozen=True, slots=True)
class Run:
    """Start a worker on this job; ends in exactly one `RunEnded`."""

    job: JobId
    token: StartToken
    spec: Spec
    attempt: int


@dataclass(frozen=True, slots=True)
class StopRun:
    job: JobId
    token: StartToken
    reason: str


@dataclass(frozen=True, slots=True)
class SubmitDone:
    request: RequestId
    receipts: tuple[Receipt, ...]  # in the order of the specs


class Receipt(NamedTuple):
    """Which disks have the job; or why it was not taken."""

    job: JobId
    nodes: tuple[NodeId, ...]
    error: EdgeNodeError | None
    replayed: bool = False  # the job was there before, from another submission of its key


@dataclass(frozen=True, slots=True)
class ReadDone:
    """`errors` has the jobs that could not be shown, `firm` those whose owner answered as a firm one, `held`
    those that wait behind a shut gate, as their owners said: which one (core/lines.py)."""

    request: RequestId
    records: dict[JobId, Record]
    errors: dict[JobId, EdgeNodeError]
    firm: frozenset[JobId] = frozenset()
    held: Mapping[JobId, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchDone:
    """`next`: go on after this id for more; b"" if that is all. A page may be empty and yet have a next.
    `unanswered`: members whose disks were not looked at, dead ones too. `held`: as in `ReadDone`."""

    request: RequestId
    records: tuple[Record, ...]
    next: bytes
    unanswered: tuple[NodeId, ...]
    held: Mapping[JobId, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InspectDone:
    """Per holder its copy, or None if it has none; a holder that could not be asked is missing."""

    request: RequestId
    copies: dict[NodeId, Record | None]


@dataclass(frozen=True, slots=True)
class ReportsDone:
    """`unanswered`: nodes that were not heard, and may have more."""

    request: RequestId
    items: tuple[Said, ...]  # in order of starts
    unanswered: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class QueueDone:
    """The settings as they are on this disk now, and on those of `known` of the `living` members. With an
    `error` they may not be so anywhere."""

    request: RequestId
    item: QueueItem | None  # None with an `error` that is definite
    known: int
    living: int
    error: EdgeNodeError | None = None


@dataclass(frozen=True, slots=True)
class CountDone:
    """By queue, how many jobs wait and how many run or are about to, of all members but the `unanswered`.
    `left_out`: so many times a queue with jobs is not in it, since there are too many."""

    request: RequestId
    counts: Mapping[str, tuple[int, int]]
    unanswered: tuple[NodeId, ...]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class CancelDone:
    """`jobs`: their owners have the wish, or a majority of the holders has it on disk. Of the others nobody
    knows."""

    request: RequestId
    jobs: tuple[JobId, ...]


@dataclass(frozen=True, slots=True)
class RegulateDone:
    """What the node says of itself now, or why it was not asked, or has not answered."""

    request: RequestId
    info: MemberInfo | None
    error: EdgeNodeError | None = None


@dataclass(frozen=True, slots=True)
class TasksTold:
    """Those of which a member has said something in time."""

    request: RequestId
    items: tuple[TaskItem, ...]


@dataclass(frozen=True, slots=True)
class SearchHere:
    """Look through this disk's rows, off the event loop; ends in one `SearchedHere`."""

    ticket: int
    query: Query


@dataclass(frozen=True, slots=True)
class Address:
    """Where a member listens; boot 0 if not known."""

    peer: NodeId
    boot: int
    addresses: tuple[tuple[str, int], ...]
    keep: bool  # False: end the links and forget it


@dataclass(frozen=True, slots=True)
class Peers:
    """The address book changed: keep links to these."""

    changes: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Remember:
    """Keep these peers on disk (opaque to the store), for the next start."""

    peers: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RememberWords:
    """Keep what is known of other members' lives on disk (opaque to the store), for the next start."""

    packed: bytes


@dataclass(frozen=True, slots=True)
class Behind:
    """This disk does not know what its identity has said since: it was put back, or is a copy. Mark it so,
    durably, and begin a new life with a number above `above`. Nothing that waits for the disk may be said,
    and the core does nothing any more."""

    above: int
    why: str


@dataclass(frozen=True, slots=True)
class Cloned:
    """Another process with this identity goes on: this one must end. The core does nothing any more."""

    boot: int


@dataclass(frozen=True, slots=True)
class Changed:
    """These records changed on this node: for event streams and logs."""

    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Log:
    """Something an operator should know; `kind` is stable and counted as a metric."""

    kind: str
    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Left:
    """The process may end.

    `handed_over`: every job is on enough other disks, and nobody needs this one's any more. Otherwise it is
    to be kept: it may have the only copy of something, and goes on with it at the next start.
    """

    handed_over: bool


Effect = (
    Persist | Send | Run | StopRun | SubmitDone | ReadDone | SearchDone | InspectDone | ReportsDone
    | QueueDone | CountDone | CancelDone | RegulateDone | TasksTold | SearchHere | Peers | Remember
    | RememberWords
    | Behind | Cloned | Changed | Log | Left
)  # fmt: skip
