"""What nodes say to each other: every message, and the one codec between them and bytes.

A frame is a MessagePack array `[tag, field, ...]`. There is no sender field anywhere: who sent a message is
what TLS proved, and the transport passes that beside the message. Messages about jobs carry batches, never
one job. The types of its fields are a message's schema (core/coding).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import (
    Any,
    Final,
    NamedTuple,
    TypeVar,
    dataclass_transform,
)

import msgpack

from edgenode.core.coding import decoder_of_fields
from edgenode.core.errors import MalformedMessage
from edgenode.core.types import (
    Ballot,
    Drain,
    Hash64,
    JobId,
    KeyUse,
    Load,
    MemberInfo,
    MemberState,
    NodeId,
    Promise,
    Room,
    StartToken,
    State,
    Wall,
    Word,
)

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
"""A frame carries one message. The largest is a submission of 10,000 jobs."""
CATCH_UP_BYTES: Final = 64 * 1024
"""Copies travel in pieces of about this size, so that an acknowledgement never waits behind megabytes."""
SCHEMA_BYTES_MAX: Final = 64 * 1024
"""Of what a task takes: a hundred times an ordinary one."""


# --------------------------------------------------------------------------------------------- items


class Rumour(NamedTuple):
    """One member's state as somebody believes it. `accuser` is who first said suspect or dead."""

    info: MemberInfo
    incarnation: int
    state: MemberState
    accuser: NodeId


class Place(NamedTuple):
    """A part of all members: those whose key begins with the `level` half-bytes that `path` is made of."""

    level: int
    path: int


class Branch(NamedTuple):
    """What somebody believes of the living members of a place, as one number."""

    place: Place
    digest: Hash64


class SubmitItem(NamedTuple):
    spec: bytes
    holders: tuple[NodeId, ...]


REFUSED_NOT_READY: Final = "takes no jobs now"
REFUSED_UNSURE: Final = "does not know whether it had the job"
"""Its row was damaged, or its disk is not the latest and has an old copy."""
REFUSED_MOVED: Final = "moved:"
"""Followed by the id of the node that owns the job."""
REFUSED_CLAIMED: Final = "claimed"
"""The key is that of the holders in `nodes`."""
REFUSED_REUSED: Final = "another submission had this key"
REFUSED_SHORT: Final = "is on fewer disks than were asked for: the others died while it was stored"
"""The nodes in `nodes` have it on disk, and it may run."""
REFUSED_GAVE_WAY: Final = "its key is another submission's, as was found only when it had been stored"
"""It may have run."""


class SubmitAnswer(NamedTuple):
    """`refused` is empty when the nodes in `nodes` have the job on disk. If it says that the key belongs to
    others, `nodes` are the holders that it is claimed for."""

    job: JobId
    nodes: tuple[NodeId, ...]
    refused: str
    replayed: bool = False  # the job was there before, from another submission of its key


class Stored(NamedTuple):
    """Exactly this write is on this disk: nothing else may be concluded from it."""

    job: JobId
    epoch: int
    ballot: Ballot
    write: int
    firm: bool  # the firm bit of the outcome in the write; False if it had none


class Refusal(NamedTuple):
    """Not acknowledged: a higher promise stands. `copy` is what the refuser has (b"" for nothing)."""

    job: JobId
    epoch: int
    ballot: Ballot  # the one refused
    promise: Promise
    copy: bytes


class AskItem(NamedTuple):
    job: JobId
    epoch: int
    term: int  # the owner-to-be is the sender
    expires_at: Wall
    digest: bytes  # of the asker's copy, so that an equal one need not travel


class Promised(NamedTuple):
    """A promise, with the promiser's copy: its bytes, or b"" when `same` or when it has none."""

    job: JobId
    epoch: int
    term: int
    same: bool
    copy: bytes


class ClaimItem(NamedTuple):
    """For this use under `ballot`; with NO_USE it only asks for the promise on that ballot."""

    job: JobId
    ballot: Ballot  # NO_BALLOT: for whoever comes first
    use: KeyUse
    expires_at: Wall
    wants_copy: bool  # the sender has a record of the job, and must know of others


class Claimed(NamedTuple):
    """What stands in this disk's claim after the question, whatever that was."""

    job: JobId
    promised: Ballot
    accepted: Ballot
    use: KeyUse  # accepted under that ballot; NO_USE for none
    home: tuple[NodeId, ...]  # it has a record of the job, and these can say more; () for none
    copy: bytes  # that record, if it was wanted
    void: bool = False  # no holder of that use is known to this member (any more)


class Home(NamedTuple):
    job: JobId
    holders: tuple[NodeId, ...]  # who can say more of it


class Digest(NamedTuple):
    job: JobId
    digest: bytes


class Mark(NamedTuple):
    """The outcome that this ballot's owner wrote, firm, is settled. (One ballot has one outcome.)"""

    job: JobId
    epoch: int
    ballot: Ballot


class GiftItem(NamedTuple):
    job: JobId
    ballot: Ballot  # the giver's; a receiver that sees a higher one ignores the gift


class GrantItem(NamedTuple):
    job: JobId
    token: StartToken
    boot: int  # of the runner: a grant to an earlier life starts nothing
    record: bytes


class QueueItem(NamedTuple):
    """The settings of one queue. A greater version stands; of two equal ones that of the greater `by`."""

    queue: str
    version: int
    by: NodeId
    paused: bool
    concurrency: int  # starts at a time in the mesh; 0: no limit
    rate: float  # starts per second in the mesh; 0: no limit
    burst: int  # starts at once, of a queue that was idle for long enough


class QueueCount(NamedTuple):
    """How many jobs of a queue the sender owns that wait, and how many of those run or are about to."""

    queue: str
    queued: int
    running: int


class PermitItem(NamedTuple):
    """How its sender stands at a gate (core/permits.py)."""

    gate: str
    seq: int
    turn: int  # the `seq` of the first word to this steward: tokens count from there
    limit: int  # of a concurrency key; 0 for a queue
    held: int  # starts that run or may
    want: int  # wished for beyond that
    returned: int  # tokens that were of no use


class Allowance(NamedTuple):
    """Answers the `PermitItem` of that number."""

    gate: str
    seq: int
    held: int
    granted: int  # tokens, since its `turn`


class HeldItem(NamedTuple):
    """A job that the sender owns waits behind this gate (core/lines.py), which is shut."""

    job: JobId
    gate: str


class Verdict(NamedTuple):
    """How one start ended on its runner."""

    state: State  # one of `coding.VERDICTS`; FAILED: it raised
    result: bytes  # JSON
    error: str
    retry_after_s: float  # >= 0: the task asked to be tried again; -1: by the job's own backoff
    final: bool  # no further attempt, whatever max_attempts says


class ResultItem(NamedTuple):
    """`runner` is whom to thank: a result may be passed on by a holder that is not the owner."""

    job: JobId
    token: StartToken
    runner: NodeId
    verdict: Verdict
    finished_at: Wall
    lost: bool  # the worker died under it: says nothing of how the task would have ended
    fingerprint: str = (
        ""  # of what was run, if its job has a key: that may have been submitted with other content
    )
    counted: bool = True  # False: another start in the same worker was to blame for the loss


class TokenItem(NamedTuple):
    job: JobId
    token: StartToken


class Said(NamedTuple):
    """What a start said since its last report, and how far it is. Either `text` or `partial` is empty."""

    job: JobId
    token: StartToken
    number: int  # of the start's reports, from 1
    runner: NodeId
    attempt: int
    at: Wall
    fraction: float  # from 0 to 1; below 0: it has not said
    message: str
    before: int  # bytes of text that it had said before these
    text: bytes  # UTF-8, which may be cut within a character
    partial: bytes  # the latest partial result, as JSON; b"": nothing new


class NotedItem(NamedTuple):
    job: JobId
    token: StartToken
    number: int


class TaskItem(NamedTuple):
    """What a member says of a task that it has."""

    name: str
    schema: bytes  # of the payload, as JSON; b"": it is too large to be told
    timeout_s: float  # of a job that does not say, as all below; 0: none
    max_attempts: int  # 0: the mesh's default
    backoff: str  # one of `types.BACKOFFS`; "": the mesh's default
    base_s: float
    cap_s: float
    inline: bool


class Change(StrEnum):
    """What a node can be asked to change about the way it takes part."""

    DRAIN = "drain"
    UNDRAIN = "undrain"
    WEIGHT = "weight"


class Wish(NamedTuple):
    change: Change
    value: float = 0.0  # how long running jobs may still take; the weight; nothing


class Query(NamedTuple):
    """Which jobs to list: empty strings match all. `after` is exclusive; ids are in falling order."""

    state: str
    task: str
    queue: str
    after: bytes  # b"" to begin
    limit: int


# ------------------------------------------------------------------------------------------ messages

MESSAGES: Final[dict[int, tuple[type[Any], Callable[[list[Any]], Any]]]] = {}
TAGS: Final[dict[type[Any], int]] = {}
_T = TypeVar("_T")


@dataclass_transform(frozen_default=True)
def message(tag: int) -> Callable[[type[_T]], type[_T]]:
    """Make a class a message: a frozen dataclass, entered in the one table from tag to class."""

    def enter(cls: type[_T]) -> type[_T]:
        made = dataclass(frozen=True, slots=True)(cls)
        assert tag not in MESSAGES, f"tag {tag} is taken"
        TAGS[made] = tag
        MESSAGES[tag] = (made, decoder_of_fields(made))
        return made

    return enter


# Membership (control link). Tags 1 to 19.


@message(1)
class Ping:
    """Are you there? (SWIM section 3.1.) `target` guards against an address that changed hands."""

    seq: int
    target: NodeId
    load: Load
    rumours: tuple[Rumour, ...]


@message(2)
class PingReq:
    """Please ping `target` for me, and tell me either way."""

    seq: int
    target: NodeId
    rumours: tuple[Rumour, ...]


@message(3)
class Pong:
    """Answers `Ping` and, relayed, `PingReq`. `wall`: what the target's own clock shows; 0: not read yet."""

    seq: int
    load: Load
    rumours: tuple[Rumour, ...]
    wall: Wall = 0.0


@message(4)
class Nack:
    """The target of your `PingReq` did not answer me: you, at least, can be heard (Lifeguard)."""

    seq: int
    rumours: tuple[Rumour, ...]


@message(5)
class Sync:
    """What I believe of these, or of everybody. `reply` is False when an answer with everything is wanted."""

    reply: bool
    load: Load
    rumours: tuple[Rumour, ...]


@message(6)
class Evidence:
    """I saw a process die: its link reset and its port refuses. About one life only: `boot`."""

    node: NodeId
    boot: int
    incarnation: int


@message(7)
class Compare:
    """What I believe of the living, in digests: tell me of the branches that differ."""

    branches: tuple[Branch, ...]


@message(8)
class Disclose:
    """This I believe, and of nobody else that lives in these places: tell me of others, and what you know
    better."""

    places: tuple[Place, ...]
    rumours: tuple[Rumour, ...]


@message(9)
class Recall:
    """What do you remember of this identity? I am its life `boot`; of those before, my disk knew so much."""

    boot: int
    lives: tuple[Word, ...]


@message(10)
class Recalled:
    """Answers `Recall`: how far its lives came that gave me their word; the latest that I have heard of, and
    whether that one lives beside the asking one."""

    boot: int
    words: tuple[Word, ...]
    latest: int
    lives: bool


# Jobs (bulk link). Tags 20 and up. `written`: the sender's writes in this life that the message rests on.


@message(20)
class Submit:
    """Make these jobs. `place` is the receiver's place among their holders; 0 owns by being named."""

    request: int
    place: int
    items: tuple[SubmitItem, ...]


@message(21)
class Submitted:
    request: int
    answers: tuple[SubmitAnswer, ...]


@message(22)
class Write:
    """Store these copies, and say so."""

    records: tuple[bytes, ...]
    written: int = 0


@message(23)
class Acks:
    stored: tuple[Stored, ...]
    written: int = 0


@message(24)
class Refused:
    refusals: tuple[Refusal, ...]


@message(25)
class Ask:
    """I would own these (Paxos phase 1a)."""

    items: tuple[AskItem, ...]
    written: int = 0


@message(26)
class Promises:
    """Paxos phase 1b."""

    items: tuple[Promised, ...]
    written: int = 0


@message(27)
class Offer:
    """You are responsible for these, and this is what I have of them."""

    items: tuple[Digest, ...]


@message(28)
class Taken:
    """I have these as you do, or newer: no need to send them. Of a copy that changed since this says nothing:
    the digest is that of the `Offer`, or of what came as `Copies`."""

    items: tuple[Digest, ...]


@message(29)
class Wanted:
    """Send me your copies of these."""

    jobs: tuple[JobId, ...]


@message(30)
class Copies:
    """For merging. Merging never acknowledges anything."""

    records: tuple[bytes, ...]


@message(31)
class Marks:
    items: tuple[Mark, ...]


@message(32)
class Marked:
    jobs: tuple[JobId, ...]


@message(33)
class Gift:
    """Please ask for these: I am leaving them to you, and own them until you have my promise."""

    items: tuple[GiftItem, ...]


@message(34)
class Expired:
    """No copy of these is taken here: their last day is over, and what was known of them is forgotten."""

    jobs: tuple[JobId, ...]


@message(35)
class Claim:
    """May these jobs' keys be mine? (Paxos among all members: see core/keys.py.)"""

    items: tuple[ClaimItem, ...]
    written: int = 0


@message(36)
class Claims:
    items: tuple[Claimed, ...]
    written: int = 0


@message(37)
class Homes:
    """Of the jobs whose keys you claim these exist. No vote, so that a disk can say it that has none yet."""

    items: tuple[Home, ...]


@message(40)
class WantWork:
    """I have this many free slots of each kind and nothing of my own to run in them."""

    room: Room


@message(41)
class Grant:
    items: tuple[GrantItem, ...]


@message(42)
class Result:
    items: tuple[ResultItem, ...]


@message(43)
class ResultTaken:
    """These results are on disk at enough holders, or will never count: forget them."""

    items: tuple[TokenItem, ...]


@message(44)
class Have:
    """Do you still run these? What you deny now you must never start."""

    items: tuple[TokenItem, ...]


@message(45)
class Has:
    """`denied`: begun here, but not running any more. `voids`: never begun. Neither will ever start.

    Said by the life `boot` of the runner, of itself: what an earlier one began it does not know.
    """

    boot: int
    held: tuple[TokenItem, ...]
    denied: tuple[TokenItem, ...]
    voids: tuple[TokenItem, ...]


@message(46)
class Stop:
    """These starts are superseded."""

    items: tuple[TokenItem, ...]


@message(47)
class Cancel:
    """A client wants these jobs to end: note it in your copies."""

    request: int
    jobs: tuple[JobId, ...]


@message(48)
class CancelNoted:
    """`jobs`: here it is on disk. `final`: of those, the ones that this node owns, or that have ended.
    `missing`: no copy here."""

    request: int
    jobs: tuple[JobId, ...]
    final: tuple[JobId, ...]
    missing: tuple[JobId, ...]


@message(50)
class Read:
    """`follow`: tell me again when one of them changes state."""

    request: int
    jobs: tuple[JobId, ...]
    follow: bool


@message(51)
class ReadAnswer:
    """`owned`, `firm`: which of the records the answering node coordinates, and does so firmly;
    `asking`: of which it is about to become owner; `unsure`: it knows members that it cannot reach, and
    that may have what it misses."""

    request: int
    records: tuple[bytes, ...]
    owned: tuple[JobId, ...]
    firm: tuple[JobId, ...]
    asking: tuple[JobId, ...]
    missing: tuple[JobId, ...]
    unsure: bool
    last: bool  # of the pieces that make up the answer
    held: tuple[HeldItem, ...] = ()  # of the owned ones among its records


@message(54)
class Inspect:
    """What exactly is on your disk of this job? (For `placement`.)"""

    request: int
    job: JobId


@message(55)
class Inspected:
    request: int
    record: bytes  # b"" for none


@message(52)
class Search:
    request: int
    query: Query


@message(53)
class SearchAnswer:
    """Matches in falling id order. `upto`: the last id looked at; b"" if there are no more on this disk."""

    request: int
    records: tuple[bytes, ...]
    upto: bytes
    held: tuple[HeldItem, ...] = ()


@message(60)
class Report:
    """What starts of jobs that you hold have said."""

    items: tuple[Said, ...]


@message(61)
class Noted:
    """These reports are on disk here, or not wanted."""

    items: tuple[NotedItem, ...]


@message(62)
class AskReports:
    """What did the starts of this job say? `brief`: only how far the latest one is."""

    request: int
    job: JobId
    brief: bool


@message(63)
class Reports:
    request: int
    items: tuple[Said, ...]


@message(70)
class QueuesTold:
    """These settings are so, as far as I know. An answer says what I know of those that I was told, or, if
    that was all that the other one knew, what I know otherwise."""

    items: tuple[QueueItem, ...]
    is_answer: bool
    is_all: bool


@message(71)
class QueuesDigest:
    """What I know of queues comes to this: tell me what you know, if it is something else."""

    digest: Hash64


@message(56)
class Regulate:
    """Change this about the way you take part. It has no ballot, so it names the life that it is for, and the
    version that this change makes: what comes late, or twice, does nothing."""

    request: int
    boot: int
    version: int
    wish: Wish


@message(57)
class Regulated:
    """How the sender takes part now; `done`: as was wished."""

    request: int
    done: bool
    version: int
    drain: Drain
    weight: float


@message(58)
class DescribeTasks:
    """What are these tasks, which you have and I have not?"""

    request: int
    names: tuple[str, ...]


@message(59)
class TasksDescribed:
    """Those of them that the sender has."""

    request: int
    items: tuple[TaskItem, ...]
    last: bool  # of the pieces that make up the answer


@message(72)
class PermitsWanted:
    """What I hold of what you hand out: all, in answer to that `roll` call; with 0 what has changed."""

    boot: int  # the sender's life
    roll: Hash64
    items: tuple[PermitItem, ...]


@message(73)
class Allowed:
    """`boot`: of the life that this answers."""

    boot: int
    items: tuple[Allowance, ...]


@message(74)
class RollCall:
    """I am to hand out permits: what do you hold? Among the members that this digest stands for."""

    roll: Hash64


@message(75)
class CountQueues:
    """How many jobs do you own, by queue?"""

    request: int


@message(76)
class QueuesCounted:
    """`left_out`: so many further queues have jobs."""

    request: int
    counts: tuple[QueueCount, ...]
    left_out: int


Message = (
    Ping | PingReq | Pong | Nack | Sync | Evidence | Compare | Disclose | Recall | Recalled
    | Submit | Submitted | Write | Acks | Refused | Ask | Promises | Offer | Taken | Wanted | Copies
    | Marks | Marked | Expired | Gift | Claim | Claims | Homes | WantWork | Grant | Result | ResultTaken
    | Have | Has | Stop | Cancel | CancelNoted
    | Read | ReadAnswer | Search | SearchAnswer | Inspect | Inspected | Regulate | Regulated
    | DescribeTasks | TasksDescribed | Report | Noted | AskReports | Reports | QueuesTold | QueuesDigest
    | PermitsWanted | Allowed | RollCall | CountQueues | QueuesCounted
)  # fmt: skip
MembershipMessage = Ping | PingReq | Pong | Nack | Sync | Evidence | Compare | Disclose
Vote = Write | Acks | Ask | Promises | Claim | Claims
"""What rests on the sender's disk, and is void if that forgets."""
CONTROL: Final = (Ping, PingReq, Pong, Nack, Sync, Evidence, Compare, Disclose, Recall, Recalled)
"""Travel on the control link: a ping never queues behind jobs."""


def batch_length(sent: Message) -> int:
    """The length of its longest list; 1 if it has none."""
    cls: type[Any] = type(sent)
    fields = (getattr(sent, name) for name in cls.__slots__)
    return max((len(field) for field in fields if isinstance(field, tuple)), default=1)


def encode(sent: Message) -> bytes:
    cls: type[Any] = type(sent)
    fields = [getattr(sent, name) for name in cls.__slots__]
    packed: bytes = msgpack.packb([TAGS[cls], *fields])
    return packed


def decode(frame: bytes) -> Message:
    """Turn bytes from a peer into a message, or raise MalformedMessage and nothing else."""
    if len(frame) > FRAME_BYTES_MAX:
        raise MalformedMessage(f"a frame of {len(frame)} bytes, the limit is {FRAME_BYTES_MAX}")
    try:
        tag, *fields = msgpack.unpackb(frame)
        found = MESSAGES.get(tag) if type(tag) is int else None
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise MalformedMessage(f"not a message: {error}") from error
    if found is None:
        raise MalformedMessage(f"unknown message tag {tag!r:.40}")
    decoded: Message = found[1](fields)
    return decoded
