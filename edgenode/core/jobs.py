"""A job's record, and the steps of its life.

A record has a part that never changes (the spec, kept as the bytes the entry node made) and parts that do,
each with an order of its own:

    part      written by                     joined by
    set       a decision of the old holders  epoch; a higher epoch replaces set, ownership, outcome and move
    own       the owner under its ballot     ballot, then the owner's write number
    outcome   the owner; `settled` spreads   settled, firm, ballot, value: in that sequence
    move      a firm owner                   ballot
    counters  the owner (anyone for cancel)  maximum per ballot; union; or
    history   whoever did it                 the latest HISTORY_MAX of a total order

`joining.join` is therefore commutative, associative and idempotent, and never gives up a settled outcome.

A settled job shrinks, `ttl_s` after its end, to a marker: a record without payload, result and history. A
marker beats every other copy of its job, and is dropped on its `drop_day`.

A job's last day is its `expires_at`: it ends as expired if it is not over by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from edgenode.core.errors import EdgeNodeError
from edgenode.core.job_ids import is_keyed
from edgenode.core.quorums import majority_of
from edgenode.core.specs import Options, Spec, decode_spec, encode_spec
from edgenode.core.types import (
    ATTEMPTS_MAX,
    FOREVER,
    NO_BALLOT,
    NO_TOKEN,
    NOBODY,
    Ballot,
    JobId,
    NodeId,
    Seconds,
    StartToken,
    State,
    Wall,
)

HISTORY_MAX: Final = 20
COUNTED_BALLOTS_MAX: Final = ATTEMPTS_MAX
"""How many ballots' counts are kept, the newest ones. The counts of the oldest are dropped, and could not be
added up: a merge of two such sums would count twice what both have. So `max_attempts` is at most this: of
more ballots with failures the kept ones alone reach it."""
TOKENS_MAX: Final = 64
ERROR_CHARS_MAX: Final = 4_000


class Step(StrEnum):
    """What can happen to a job."""

    FALL_DUE = "fall due"
    DEFER = "defer"  # a failure on another side of a cut asked for a pause
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
    (State.SCHEDULED, Step.DEFER): State.SCHEDULED,
    (State.SCHEDULED, Step.CANCEL): State.CANCELLED,
    (State.SCHEDULED, Step.EXPIRE): State.EXPIRED,
    (State.SCHEDULED, Step.FAIL): State.FAILED,
    (State.WAITING, Step.FALL_DUE): State.QUEUED,
    (State.WAITING, Step.CANCEL): State.CANCELLED,
    (State.WAITING, Step.EXPIRE): State.EXPIRED,
    (State.WAITING, Step.FAIL): State.FAILED,
    (State.QUEUED, Step.START): State.RUNNING,
    (State.QUEUED, Step.DEFER): State.SCHEDULED,
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
    until: Wall = 0.0  # of a failed attempt: the next one waits as long


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
    return record._replace(losses=union(record.losses, (token,)))


def pardoned(record: Record, token: StartToken) -> Record:
    """A start that was called lost turned up: its runner had it all the time, so the job killed nobody.

    A set beside the losses, since nothing can be taken out of those: a merge would bring it back.
    """
    return record._replace(pardons=union(record.pardons, (token,)))


def voided(record: Record) -> Record:
    """LOSE: the start was stored, but its runner knows that it never began, and never will."""
    after = _idle(record, _stepped(record, Step.LOSE), record.own.due_at)
    return after._replace(voids=union(record.voids, (record.own.token,)))


def failed_once(record: Record, *, due_at: Wall, note: Note) -> Record:
    """RETRY: the task raised, and runs again on `due_at`."""
    state = _stepped(record, Step.RETRY)
    after = _idle(with_note(record, note), state, due_at)
    return after._replace(failures=_bump(record.failures, record.own.token.ballot))


def fallen_due(record: Record) -> Record:
    """FALL_DUE: its day has come."""
    return write_own(record, state=_stepped(record, Step.FALL_DUE))


def deferred(record: Record, *, due_at: Wall) -> Record:
    """DEFER: its day is another one, as a failure says that this line of owners had not heard of."""
    return write_own(record, state=_stepped(record, Step.DEFER), due_at=due_at)


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


def as_of(record: Record, at: Wall) -> Record:
    """What is shown of a copy at this time: its marker alone when its `ttl_s` is over, so that all nodes tell
    the same, whether they have looked through their disks since or not."""
    if record.settled and not is_marker(record) and look_day(record, 0.0) <= at:
        return shrunk(record)
    return record


def look_day(record: Record, skew_s: Seconds) -> Wall:
    """When the copy is next to be made smaller; FOREVER while the job is unfinished."""
    outcome = record.outcome
    if outcome is None:
        return FOREVER
    if outcome.settled and not is_marker(record):
        return outcome.finished_at + decode_spec(record.spec).options.ttl_s
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
    return record._replace(history=latest({*record.history, note}))


def latest(notes: Iterable[Note]) -> tuple[Note, ...]:
    return tuple(sorted(notes)[-HISTORY_MAX:])


def union(a: tuple[StartToken, ...], b: tuple[StartToken, ...]) -> tuple[StartToken, ...]:
    """Every token of both, in order; of very many the latest."""
    return a if a == b or not b else tuple(sorted({*a, *b})[-TOKENS_MAX:])


def is_claimed(record: Record) -> bool:
    """Whether these holders may decide the job: others could have the same key, unless it is theirs."""
    return record.claimed or not is_keyed(record.id)
