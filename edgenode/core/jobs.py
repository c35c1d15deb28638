"""A job's record, the steps of its life, and how two copies of it become one.

A record has a part that never changes (the spec, kept as the bytes the entry node made) and parts that do,
each with an order of its own:

    part      written by                     joined by
    set       a decision of the old holders  epoch; a higher epoch replaces set, ownership, outcome and move
    own       the owner under its ballot     ballot, then the owner's write number
    outcome   the owner; `settled` spreads   settled, firm, ballot, value: in that sequence
    move      a firm owner                   ballot
    counters  the owner (anyone for cancel)  maximum per ballot; union; or
    history   whoever did it                 the latest HISTORY_MAX of a total order

`join` is therefore commutative, associative and idempotent, and never gives up a settled outcome.

A settled job shrinks, `ttl_s` after its end, to a marker: a record without payload, result and history. A
marker beats every other copy of its job, and is dropped on its `drop_day`.

A job's last day is its `expires_at`: it ends as expired if it is not over by then.

Under an idempotency key one id can get two lives: the key was used on both sides of a cut, for two contents
or with two sets of holders. (Two submissions of one content are one life: only their days differ.) Of two one
stands, with its spec, set, ownership and outcome whole (see `join`); only counters count for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b, sha256
from typing import Any, Final, NamedTuple, TypeVar

import msgpack

from edgenode.core.bounds import finite, shared_ballot, shared_node, shared_start, whole
from edgenode.core.errors import EdgeNodeError, MalformedMessage
from edgenode.core.quorums import majority_of
from edgenode.core.types import (
    DEFAULT_BACKOFF,
    FOREVER,
    NO_BALLOT,
    NO_TOKEN,
    NOBODY,
    TERMINAL,
    Backoff,
    Ballot,
    Delivery,
    JobId,
    NodeId,
    Partition,
    Seconds,
    StartToken,
    State,
    Wall,
)

_Proposal = TypeVar("_Proposal", "Outcome", "Move")
_T = TypeVar("_T")

HISTORY_MAX: Final = 20
COUNTED_BALLOTS_MAX: Final = 64
"""How many ballots' counts are kept, the newest ones. The counts of the oldest are dropped, and could not be
added up: a merge of two such sums would count twice what both have. So `max_attempts` is at most this: of
more ballots with failures the kept ones alone reach it."""
TOKENS_MAX: Final = 64
DAY_S: Final = 86_400.0
UNFINISHED_DAYS: Final = 7
ERROR_CHARS_MAX: Final = 4_000


class Step(StrEnum):
    """What can happen to a job."""

    FALL_DUE = "fall due"
    START = "start"
    LOSE = "lose"  # the runner is gone
    RETRY = "retry"  # the task failed, and may try again
    SUCCEED = "succeed"
    FAIL = "fail"  # for good
    CANCEL = "cancel"
    EXPIRE = "expire"


# Rows are states, columns are steps; a missing pair is illegal. The README's diagram shows this table.
TRANSITIONS: Final[Mapping[tuple[State, Step], State]] = {
    (State.SCHEDULED, Step.FALL_DUE): State.QUEUED,
    (State.SCHEDULED, Step.CANCEL): State.CANCELLED,
    (State.SCHEDULED, Step.EXPIRE): State.EXPIRED,
    (State.SCHEDULED, Step.FAIL): State.FAILED,
    (State.WAITING, Step.FALL_DUE): State.QUEUED,
    (State.WAITING, Step.CANCEL): State.CANCELLED,
    (State.WAITING, Step.EXPIRE): State.EXPIRED,
    (State.WAITING, Step.FAIL): State.FAILED,
    (State.QUEUED, Step.START): State.RUNNING,
    (State.QUEUED, Step.CANCEL): State.CANCELLED,
    (State.QUEUED, Step.EXPIRE): State.EXPIRED,
    (State.QUEUED, Step.FAIL): State.FAILED,
    # A start that was called lost may still finish first: its result counts while there is no outcome.
    (State.QUEUED, Step.SUCCEED): State.SUCCEEDED,
    (State.SCHEDULED, Step.SUCCEED): State.SUCCEEDED,
    (State.RUNNING, Step.LOSE): State.QUEUED,
    (State.RUNNING, Step.RETRY): State.SCHEDULED,
    (State.RUNNING, Step.SUCCEED): State.SUCCEEDED,
    (State.RUNNING, Step.FAIL): State.FAILED,
    (State.RUNNING, Step.CANCEL): State.CANCELLED,
    (State.RUNNING, Step.EXPIRE): State.EXPIRED,
}


class IllegalTransition(EdgeNodeError):
    status, slug, title, definite = 409, "illegal-transition", "The job is not in that state", True


# ------------------------------------------------------------------------------------------ the spec


@dataclass(frozen=True, slots=True)
class Options:
    """What a submitter may say about a job. Every field has a default, and only others are encoded."""

    queue: str = "default"
    priority: int = 4  # 0 (last) to 9 (first)
    run_at: Wall = 0.0  # 0: at once
    timeout_s: Seconds = 0.0  # 0: none
    deadline: Wall = 0.0  # 0: none
    max_attempts: int = 3
    max_losses: int = 3
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    partition: Partition = Partition.RUN
    acks: int = 0  # 0: a majority of the holders
    ttl_s: Seconds = DAY_S
    requires: tuple[tuple[str, str], ...] = ()
    backoff: Backoff = DEFAULT_BACKOFF
    key: str = ""  # the idempotency key; the id is its hash
    retry_of: str = ""  # the id of the job whose work it tries again; its own is the hash of that
    fingerprint: str = ""  # with a key: of all that was submitted under it, to tell a repetition from a reuse
    concurrency_key: str = ""
    concurrency_limit: int = 1  # at most so many starts of one concurrency key run at a time


DEFAULTS: Final = Options()


@dataclass(frozen=True, slots=True)
class Spec:
    """What was submitted. Never changes; `payload` is a JSON object in UTF-8, opaque to the core."""

    id: JobId
    task: str
    payload: bytes
    submitted_at: Wall
    expires_at: Wall
    options: Options = DEFAULTS


def encode_spec(spec: Spec) -> bytes:
    """The bytes that are stored, sent and digested from now on."""
    options: dict[str, Any] = {}
    for name in Options.__slots__:
        value = getattr(spec.options, name)
        if value != getattr(DEFAULTS, name):
            options[name] = (value.kind, value.base_s, value.cap_s) if name == "backoff" else value
    packed: bytes = msgpack.packb(
        (spec.id, spec.task, spec.payload, spec.submitted_at, spec.expires_at, options)
    )
    return packed


REMEMBERED_BYTES: Final = 4096
"""Longer specs are read anew each time: comparing one with what is remembered costs more than reading it, and
what is remembered is bounded by number (4,096 of these are 32 MB)."""


def decode_spec(blob: bytes) -> Spec:
    """Read what `encode_spec` wrote.

    Raises:
        MalformedMessage: these bytes are no spec.
    """
    return _remembered_spec(blob) if len(blob) <= REMEMBERED_BYTES else _read_spec(blob)


def _read_spec(blob: bytes) -> Spec:
    try:
        job, task, payload, submitted_at, expires_at, options = msgpack.unpackb(blob)
        if not (isinstance(job, bytes) and len(job) == 16 and isinstance(payload, bytes)):
            raise MalformedMessage("a spec needs a 16-byte id and a payload of bytes")
        if not (isinstance(task, str) and isinstance(options, dict)):
            raise MalformedMessage("a spec needs a task name and options")
        if "backoff" in options:
            options["backoff"] = _backoff(options["backoff"])
        if "delivery" in options:
            options["delivery"] = Delivery(options["delivery"])
        if "partition" in options:
            options["partition"] = Partition(options["partition"])
        if "requires" in options:
            options["requires"] = tuple((str(k), str(v)) for k, v in options["requires"])
        # An option that a newer version added means nothing here.
        known = {name: value for name, value in options.items() if name in Options.__slots__}
        for name, value in known.items():
            kind = type(getattr(DEFAULTS, name))
            if kind is float:
                finite(value)
            elif kind is int:
                whole(value)
            elif not isinstance(value, kind):
                raise MalformedMessage(f"option {name} is {value!r:.40}")
        return Spec(
            JobId(job),
            task,
            payload,
            finite(submitted_at),
            finite(expires_at),
            Options(**known) if known else DEFAULTS,
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise MalformedMessage(f"not a spec: {error}") from error


_remembered_spec: Final = lru_cache(maxsize=4096)(_read_spec)


def _backoff(fields: list[Any]) -> Backoff:
    kind, base_s, cap_s = fields
    if not isinstance(kind, str):
        raise ValueError("a kind of backoff is text")
    return Backoff(kind, finite(base_s), finite(cap_s))


# ---------------------------------------------------------------------------------------- the record


class Own(NamedTuple):
    """What the owner wrote last. Ordered by ballot, then by its count of writes; the rest breaks no ties
    between honest owners, but makes the order total."""

    ballot: Ballot
    write: int
    state: State
    token: StartToken = NO_TOKEN  # of the start that is running, else NO_TOKEN
    runner: NodeId = NOBODY
    boot: int = 0  # the runner's boot count when it was started: a quick reboot is another runner
    started_at: Wall = 0.0
    due_at: Wall = 0.0  # not before this day (run_at, or a retry's backoff)


class Outcome(NamedTuple):
    """How a job ended. The field order is the order of `join`."""

    settled: bool
    firm: bool
    ballot: Ballot
    state: State
    result: bytes  # JSON, b"" if none
    error: str
    token: StartToken
    runner: NodeId
    finished_at: Wall

    @property
    def value(self) -> tuple[State, bytes, str, StartToken, NodeId, Wall]:
        """What a reader is told; two outcomes with one value are the same result."""
        return self[3:]


class Move(NamedTuple):
    """A proposal that the job goes on with other holders. It competes with outcomes for being what the
    present holders decide; once a majority of them has accepted it, the next epoch begins with exactly the
    record that follows from it, whoever finds that out (`next_epoch`)."""

    ballot: Ballot  # under which it was written
    holders: tuple[NodeId, ...]
    first: Ballot  # the first of the new epoch: its owner is firm by being named here
    state: State  # SCHEDULED, WAITING, QUEUED or RUNNING
    due_at: Wall
    token: StartToken = NO_TOKEN  # what runs goes on, whoever owns it then; these as in `Own`
    runner: NodeId = NOBODY
    boot: int = 0
    started_at: Wall = 0.0

    @property
    def value(self) -> tuple[object, ...]:
        """What is decided; two moves of one value are the same decision."""
        return self[1:]


class Note(NamedTuple):
    """One line of a job's history: what happened, on which evidence."""

    at: Wall
    kind: str
    node: NodeId
    detail: str


Counts = tuple[tuple[Ballot, int], ...]


class Record(NamedTuple):
    """One copy of a job. Immutable: every step makes a new one."""

    id: JobId
    spec: bytes
    epoch: int
    holders: tuple[NodeId, ...]
    own: Own
    outcome: Outcome | None = None
    starts: Counts = ()
    failures: Counts = ()  # by the ballot of the starts that failed: two owners may have judged one
    losses: tuple[StartToken, ...] = ()
    voids: tuple[StartToken, ...] = ()  # starts that were stored, but never begun
    pardons: tuple[StartToken, ...] = ()  # losses that proved false: the runner lived, and had the start
    cancel: bool = False
    history: tuple[Note, ...] = ()
    claimed: bool = False  # with a key: a majority of all members stands behind these holders (core/keys.py)
    move: Move | None = None

    @property
    def moving(self) -> bool:
        """Whether the newest firm proposal in this copy is to change the holders. (An outcome that a
        provisional owner wrote is no proposal.)"""
        if self.move is None:
            return False
        outcome = self.outcome
        return outcome is None or (
            not outcome.settled and (not outcome.firm or outcome.ballot < self.move.ballot)
        )

    @property
    def state(self) -> State:
        return self.own.state if self.outcome is None else self.outcome.state

    @property
    def ballot(self) -> Ballot:
        return self.own.ballot

    @property
    def owner(self) -> NodeId:
        return self.own.ballot.owner

    @property
    def settled(self) -> bool:
        return self.outcome is not None and self.outcome.settled

    @property
    def start_count(self) -> int:
        """How often the job was started, on all sides of every cut that this copy knows of."""
        return sum(count for _, count in self.starts) - len(self.voids)

    @property
    def loss_count(self) -> int:
        """How often its runner was lost with it. Silence that proved false says nothing against the job."""
        return len(self.losses) - len(set(self.losses).intersection(self.pardons))

    @property
    def failure_count(self) -> int:
        return sum(count for _, count in self.failures)


def majority(count: int, of: tuple[NodeId, ...]) -> bool:
    """Whether `count` distinct members of the set `of` are more than half of it."""
    return count >= majority_of(len(of))


def new_record(spec: bytes, job: JobId, holders: tuple[NodeId, ...], due_at: Wall, now: Wall) -> Record:
    """The first record of a job: its first holder owns it under term 1."""
    state = State.SCHEDULED if due_at > now else State.QUEUED
    own = Own(Ballot(1, holders[0]), 0, state, due_at=due_at)
    return Record(job, spec, 0, holders, own)


def _bump(counts: Counts, ballot: Ballot) -> Counts:
    found = dict(counts)
    found[ballot] = found.get(ballot, 0) + 1
    return bounded(found)


def bounded(found: dict[Ballot, int]) -> Counts:
    """Sorted counts, of the newest ballots only."""
    return tuple(sorted(found.items())[-COUNTED_BALLOTS_MAX:])


def write_own(record: Record, **changes: Any) -> Record:
    """The owner's next write: the same record with changes to `own`, numbered."""
    own = record.own
    return record._replace(own=own._replace(write=own.write + 1, **changes))


def _stepped(record: Record, step: Step) -> State:
    if record.outcome is not None:
        raise IllegalTransition(f"{step} after the end", state=record.state)
    target = TRANSITIONS.get((record.own.state, step))
    if target is None:
        raise IllegalTransition(f"{step} from {record.own.state}", state=record.own.state)
    return target


def next_token(record: Record) -> StartToken:
    """The token of the next start under the present ballot."""
    ballot = record.own.ballot
    return StartToken(ballot.term, ballot.owner, dict(record.starts).get(ballot, 0) + 1)


def started(record: Record, *, runner: NodeId, boot: int, at: Wall) -> Record:
    """START: the job runs on `runner` under a token that no other start has."""
    state = _stepped(record, Step.START)
    token = next_token(record)
    after = write_own(record, state=state, token=token, runner=runner, boot=boot, started_at=at)
    return after._replace(starts=_bump(record.starts, record.own.ballot))


def _idle(record: Record, state: State, due_at: Wall) -> Record:
    return write_own(record, state=state, token=NO_TOKEN, runner=NOBODY, boot=0, due_at=due_at)


def presumed_started(record: Record) -> Record:
    """Others, of whom nothing is left to ask, may have started this job: if it may start once, it has."""
    return record._replace(starts=_bump(record.starts, NO_BALLOT))


def lost(record: Record, *, counted: bool, note: Note) -> Record:
    """LOSE: the runner is gone. `counted=False` for a loss that says nothing against the job."""
    state = _stepped(record, Step.LOSE)
    after = with_note(_idle(record, state, record.own.due_at), note)
    return with_loss(after, record.own.token) if counted else after


def with_loss(record: Record, token: StartToken) -> Record:
    """One more start whose runner was lost, whatever state the job is in."""
    return record._replace(losses=_union(record.losses, (token,)))


def pardoned(record: Record, token: StartToken) -> Record:
    """A start that was called lost turned up: its runner had it all the time, so the job killed nobody.

    A set beside the losses, since nothing can be taken out of those: a merge would bring it back.
    """
    return record._replace(pardons=_union(record.pardons, (token,)))


def voided(record: Record) -> Record:
    """LOSE: the start was stored, but its runner knows that it never began, and never will."""
    after = _idle(record, _stepped(record, Step.LOSE), record.own.due_at)
    return after._replace(voids=_union(record.voids, (record.own.token,)))


def failed_once(record: Record, *, due_at: Wall, note: Note) -> Record:
    """RETRY: the task raised, and runs again on `due_at`."""
    state = _stepped(record, Step.RETRY)
    after = _idle(with_note(record, note), state, due_at)
    return after._replace(failures=_bump(record.failures, record.own.token.ballot))


def fallen_due(record: Record) -> Record:
    """FALL_DUE: its day has come."""
    return write_own(record, state=_stepped(record, Step.FALL_DUE))


_ENDS: Final = {
    State.SUCCEEDED: Step.SUCCEED,
    State.FAILED: Step.FAIL,
    State.CANCELLED: Step.CANCEL,
    State.EXPIRED: Step.EXPIRE,
}


def decided(
    record: Record,
    state: State,
    *,
    firm: bool,
    at: Wall,
    result: bytes = b"",
    error: str = "",
    token: StartToken = NO_TOKEN,
    runner: NodeId = NOBODY,
    failed: bool = False,
) -> Record:
    """The end of a job, as its owner saw it: SUCCEED, FAIL, CANCEL or EXPIRE, by `state`."""
    _stepped(record, _ENDS[state])
    outcome = Outcome(
        False, firm, record.own.ballot, state, result, error[:ERROR_CHARS_MAX], token, runner, at
    )
    after = write_own(record)._replace(outcome=outcome)
    return after._replace(failures=_bump(record.failures, token.ballot)) if failed else after


def adopted(record: Record, ballot: Ballot) -> Record:
    """A firm owner writes what it found again, under its own ballot (Paxos phase 2, same value): the newest
    firm proposal if there is one, else what a provisional owner left."""
    own = record.own
    write = own.write + 1 if own.ballot == ballot else 1
    record = record._replace(own=own._replace(ballot=ballot, write=write))
    if record.moving:
        assert record.move is not None
        return record._replace(move=record.move._replace(ballot=ballot))
    assert record.outcome is not None
    return record._replace(outcome=record.outcome._replace(settled=False, firm=True, ballot=ballot))


def to_be_adopted(record: Record, ballot: Ballot) -> bool:
    """Whether the firm owner under `ballot` has to write again what this copy holds."""
    if record.moving:
        return record.move is not None and record.move.ballot != ballot
    outcome = record.outcome
    return outcome is not None and not (outcome.firm and outcome.ballot == ballot)


def proposed(record: Record, holders: tuple[NodeId, ...], owner: NodeId) -> Record:
    """The firm owner proposes that `holders` keep the job from now on, and that `owner` goes on with it."""
    assert record.outcome is None
    own, first = record.own, Ballot(record.own.ballot.term + 1, owner)
    run = (own.token, own.runner, own.boot, own.started_at)
    move = Move(own.ballot, holders, first, own.state, own.due_at, *run)
    return write_own(record)._replace(move=move)


def next_epoch(record: Record) -> Record:
    """The first record after a decided move. Set and ownership follow from the move alone, so that whoever
    concludes it makes the same; what a provisional owner left stays what it was."""
    move = record.move
    assert move is not None
    outcome = None if record.outcome is None else record.outcome._replace(firm=False)
    run = (move.token, move.runner, move.boot, move.started_at)
    own = Own(move.first, 0, move.state, *run, due_at=move.due_at)
    return record._replace(epoch=record.epoch + 1, holders=move.holders, own=own, outcome=outcome, move=None)


def settled(record: Record) -> Record:
    """A majority of the holders has this outcome on disk under a firm owner: it never changes again."""
    assert record.outcome is not None
    return record._replace(outcome=record.outcome._replace(settled=True))


def shrunk(record: Record) -> Record:
    """The marker of a settled job: what is still told of it, and what keeps older copies from coming back."""
    assert record.settled
    assert record.outcome is not None
    own, outcome = record.own, record.outcome
    return record._replace(
        spec=_gist(record.spec),
        own=Own(own.ballot, own.write, own.state),
        outcome=outcome._replace(result=b"", error=""),
        history=(),
        move=None,
    )


def _gist(blob: bytes) -> bytes:
    """What a marker keeps of its spec."""
    spec = decode_spec(blob)
    names = ("queue", "max_attempts", "max_losses", "ttl_s", "key", "retry_of", "fingerprint")
    kept = {name: getattr(spec.options, name) for name in names}
    return encode_spec(Spec(spec.id, spec.task, b"", spec.submitted_at, spec.expires_at, Options(**kept)))


def is_marker(record: Record) -> bool:
    """Whether this is what is left of a settled job. (A payload is never empty: it is a JSON object.)"""
    return not decode_spec(record.spec).payload


def look_day(record: Record, skew_s: Seconds) -> Wall:
    """When the copy is next to be made smaller; FOREVER while the job is unfinished."""
    if record.settled and not is_marker(record):
        assert record.outcome is not None
        return record.outcome.finished_at + decode_spec(record.spec).options.ttl_s
    return drop_day(record, skew_s)


def drop_day(record: Record, skew_s: Seconds) -> Wall:
    """When a finished copy may be dropped: nobody holds an unfinished one any more whose clock is right, and
    an end that came late (after a long time without power, say) was shown for `ttl_s` as well. FOREVER while
    the job is unfinished, so that nothing ends without a word."""
    if record.outcome is None:
        return FOREVER
    spec = decode_spec(record.spec)
    return max(spec.expires_at + 2 * skew_s, record.outcome.finished_at + spec.options.ttl_s)


def taken_over(record: Record, ballot: Ballot, note: Note) -> Record:
    """The same job under a new ballot; what runs goes on until somebody says otherwise."""
    own = record.own._replace(ballot=ballot, write=1)
    return with_note(record._replace(own=own), note)


def with_note(record: Record, note: Note) -> Record:
    return record._replace(history=_latest({*record.history, note}))


def _latest(notes: Iterable[Note]) -> tuple[Note, ...]:
    return tuple(sorted(notes)[-HISTORY_MAX:])


# ---------------------------------------------------------------------------------------------- join


def join(a: Record, b: Record) -> Record:
    """The least record that says everything either copy says.

    Returns one of the arguments, unchanged, where it already does: `join(a, b) is a` means b is no news.

    Of two lives the one that is settled stands, else the one whose holders a majority of the members stands
    behind (there is one such set, as far as members know each other), else that with the greater fingerprint.
    Field by field the result of one submission would be shown for the other.
    """
    if a is b or a == b:
        return a
    assert a.id == b.id
    if a.spec != b.spec and is_marker(a) is not is_marker(b):
        # The last word, on every life.
        return _join_marker(a, b) if is_marker(a) else _join_marker(b, a)
    if not is_same_life(a, b):
        top = max(a, b, key=_standing)
        spec, own, outcome, move, claimed = top.spec, top.own, top.outcome, top.move, top.claimed
    else:
        # Several under one key may say the same. A copy that nobody looks after any more gives way.
        spec = max((a.epoch, a.settled, a.spec), (b.epoch, b.settled, b.spec))[2]
        top, claimed = a if a.epoch >= b.epoch else b, a.claimed or b.claimed
        own, outcome, move = top.own, top.outcome, top.move
        if a.epoch == b.epoch:
            own = max(a.own, b.own)
            outcome = _greater(a.outcome, b.outcome)
            move = _greater(a.move, b.move)
    joined = Record(
        a.id,
        spec,
        top.epoch,
        top.holders,
        own,
        outcome,
        _merge_counts(a.starts, b.starts),
        _merge_counts(a.failures, b.failures),
        _union(a.losses, b.losses),
        _union(a.voids, b.voids),
        _union(a.pardons, b.pardons),
        a.cancel or b.cancel,
        a.history if a.history == b.history else _latest({*a.history, *b.history}),
        claimed,
        move,
    )
    if joined == a:
        return a
    return b if joined == b else joined


def is_same_life(a: Record, b: Record) -> bool:
    """Whether two copies of one id are of one job: always, unless its key was used on two sides of a cut.
    Within an epoch one job has one set of holders."""
    return is_same_content(a, b) and (a.epoch != b.epoch or a.holders == b.holders)


def is_same_content(a: Record, b: Record) -> bool:
    """Whether two copies of one id are of one submission, or of two under one key that say the same."""
    if a.spec == b.spec or not is_keyed(a.id):
        return a.spec == b.spec
    return decode_spec(a.spec).options.fingerprint == decode_spec(b.spec).options.fingerprint


def _standing(record: Record) -> tuple[bool, bool, int, str, tuple[NodeId, ...]]:
    """What orders the lives of a key. (Not the spec: copies of one life may have several, and the greater of
    these would count only after they have met.)"""
    content = decode_spec(record.spec).options.fingerprint
    return (record.settled, record.claimed, record.epoch, content, record.holders)


def _join_marker(marker: Record, other: Record) -> Record:
    """The marker, with what only the other copy knew of starts: all are counted, on all sides of a cut."""
    joined = marker._replace(
        starts=_merge_counts(marker.starts, other.starts),
        failures=_merge_counts(marker.failures, other.failures),
        losses=_union(marker.losses, other.losses),
        voids=_union(marker.voids, other.voids),
        pardons=_union(marker.pardons, other.pardons),
        cancel=marker.cancel or other.cancel,
    )
    return marker if joined == marker else joined


def _union(a: tuple[StartToken, ...], b: tuple[StartToken, ...]) -> tuple[StartToken, ...]:
    """Every token of both, in order; of very many the latest."""
    return a if a == b or not b else tuple(sorted({*a, *b})[-TOKENS_MAX:])


def _greater(a: _Proposal | None, b: _Proposal | None) -> _Proposal | None:
    if a is None or b is None:
        return b if a is None else a
    return max(a, b)


def _merge_counts(a: Counts, b: Counts) -> Counts:
    if a == b or not b:
        return a
    if not a:
        return b
    merged = dict(a)
    for ballot, count in b:
        merged[ballot] = max(count, merged.get(ballot, 0))
    return bounded(merged)


# --------------------------------------------------------------------------------------------- bytes

FORMAT: Final = 3


def encode(record: Record) -> bytes:
    """The one canonical encoding: equal records give equal bytes, stored, sent and digested alike."""
    packed: bytes = msgpack.packb((FORMAT, *record))
    return packed


def digest(record: Record) -> bytes:
    """8 bytes that stand for this copy in comparisons."""
    return blake2b(encode(record), digest_size=8).digest()


_STATES: Final = {str(state): state for state in State}


def decode(blob: bytes) -> Record:
    """Read what `encode` wrote.

    Raises:
        MalformedMessage: these bytes are no record (a damaged row, or a peer that speaks nonsense).
    """
    try:
        form, *fields = msgpack.unpackb(blob)
        if form != FORMAT:
            raise MalformedMessage(f"a record of format {form}, known is {FORMAT}")
        (
            job, spec, epoch, holders, own, outcome, starts, failures,
            losses, voids, pardons, cancel, history, claimed, move,
        ) = fields  # fmt: skip
        if not (isinstance(job, bytes) and len(job) == 16 and isinstance(spec, bytes)):
            raise MalformedMessage("a record needs a 16-byte id and a spec")
        if not (isinstance(cancel, bool) and isinstance(claimed, bool)):
            raise MalformedMessage("a record needs two flags")
        return Record(
            JobId(job),
            spec,
            whole(epoch),
            _holders(*holders),
            _own(own),
            None if outcome is None else _outcome(outcome),
            _each(_count, starts),
            _each(_count, failures),
            _each(_token, losses),
            _each(_token, voids),
            _each(_token, pardons),
            cancel,
            _each(_note, history),
            claimed,
            None if move is None else _move(move),
        )
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise MalformedMessage(f"not a record: {error}") from error


def _each(read: Callable[[Any], _T], values: list[Any]) -> tuple[_T, ...]:
    return tuple([read(value) for value in values]) if values != [] else ()  # as nearly all of them are


def are_holders(nodes: Sequence[NodeId]) -> bool:
    """Whether these can hold a job: somebody, and nobody twice (a majority of them could be one disk)."""
    return 0 < len(nodes) == len(set(nodes))


@lru_cache(maxsize=4096)
def _holders(*names: object) -> tuple[NodeId, ...]:
    holders = tuple(map(shared_node, names))
    if not are_holders(holders):
        raise ValueError("a job needs holders, each once")
    return holders


def _token(fields: list[Any]) -> StartToken:
    return shared_start(*fields)


def _count(fields: list[Any]) -> tuple[Ballot, int]:
    ballot, count = fields
    return shared_ballot(*ballot), whole(count)


def _note(fields: list[Any]) -> Note:
    at, kind, node, text = fields
    return Note(finite(at), str(kind), shared_node(node), str(text))


def _own(fields: list[Any]) -> Own:
    ballot, write, state, token, runner, boot, started_at, due_at = fields
    own = Own(
        shared_ballot(*ballot),
        whole(write),
        _STATES[state],
        _token(token),
        shared_node(runner),
        whole(boot),
        finite(started_at),
        finite(due_at),
    )
    if own.state in TERMINAL:
        raise ValueError("how a job ended is said by its outcome alone")
    if own.token != NO_TOKEN and own.state is not State.RUNNING:
        raise ValueError("a job has the token of a start while it runs")
    return own


def _outcome(fields: list[Any]) -> Outcome:
    is_settled, firm, ballot, state, result, error, token, runner, finished_at = fields
    if _STATES[state] not in TERMINAL or not isinstance(result, bytes) or not isinstance(error, str):
        raise ValueError("an outcome needs a terminal state, a result in bytes and an error text")
    return Outcome(
        bool(is_settled),
        bool(firm),
        shared_ballot(*ballot),
        _STATES[state],
        result,
        error,
        _token(token),
        shared_node(runner),
        finite(finished_at),
    )


def _move(fields: list[Any]) -> Move:
    ballot, holders, first, state, due_at, token, runner, boot, started_at = fields
    own = _own([first, 0, state, token, runner, boot, started_at, due_at])
    return Move(
        shared_ballot(*ballot),
        _holders(*holders),
        own.ballot,
        own.state,
        own.due_at,
        own.token,
        own.runner,
        own.boot,
        own.started_at,
    )


# ------------------------------------------------------------------------------------------ the text


def job_text(job: JobId) -> str:
    """The id as people see it: 8-4-4-4-12 lower-case hexadecimal (RFC 9562 section 4)."""
    text = job.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def parse_job_id(text: str) -> JobId | None:
    """The id behind `text`, or None if it is not one as `job_text` writes it."""
    bare = text.replace("-", "")
    if len(text) != 36 or len(bare) != 32:
        return None
    try:
        job = JobId(bytes.fromhex(bare))
    except ValueError:
        return None
    return job if job_text(job) == text.lower() else None


def make_job_id(wall: Wall, chance: bytes) -> JobId:
    """A UUIDv7 of this moment; `chance` is 10 random bytes (RFC 9562 section 5.7)."""
    assert len(chance) == 10
    stamp = (int(wall * 1000) & 0xFFFF_FFFF_FFFF).to_bytes(6, "big")
    return JobId(stamp + bytes((0x70 | chance[0] & 0x0F, chance[1], 0x80 | chance[2] & 0x3F)) + chance[3:])


KEY_NAMESPACE: Final = "submission"
"""What is hashed in front of a submitter's key, so that ids made from other names never meet these."""


def keyed_job_id(key: str, namespace: str = KEY_NAMESPACE) -> JobId:
    """The id of every job submitted under `key`, at any node and at any time: a UUIDv8 of a hash (RFC 9562
    section 5.8, after its appendix B.2). 122 bits of SHA-256 are left: no two keys share an id by chance."""
    name = namespace.encode()
    hashed = sha256(len(name).to_bytes(4, "big") + name + key.encode()).digest()
    return JobId(
        hashed[:6] + bytes((0x80 | hashed[6] & 0x0F, hashed[7], 0x80 | hashed[8] & 0x3F)) + hashed[9:16]
    )


def is_keyed(job: JobId) -> bool:
    """Whether an id was made from a key: such ids carry no time, and submissions of one can meet."""
    return job[6] >> 4 == 8


def is_claimed(record: Record) -> bool:
    """Whether these holders may decide the job: others could have the same key, unless it is theirs."""
    return record.claimed or not is_keyed(record.id)
