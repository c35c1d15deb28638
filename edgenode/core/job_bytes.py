"""A record as bytes: as it is stored, and sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, TypeVar

import msgpack

from edgenode.core.bounds import finite, shared_ballot, shared_node, shared_start, whole
from edgenode.core.errors import MalformedMessage
from edgenode.core.jobs import (
    Move,
    Note,
    Outcome,
    Own,
    Record,
)
from edgenode.core.types import (
    NO_TOKEN,
    TERMINAL,
    Ballot,
    JobId,
    NodeId,
    StartToken,
    State,
)

_T = TypeVar("_T")

FORMAT: Final = 4


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
        record = Record(
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
        if outcome is not None or move is not None:
            _check_proposals(record)
        return record
    except (ValueError, TypeError, KeyError, msgpack.UnpackException, RecursionError) as error:
        raise MalformedMessage(f"not a record: {error}") from error


def _check_proposals(record: Record) -> None:
    """An owner writes what it proposes under its own ballot. What said otherwise would be written again and
    again: each new owner would find a newer proposal than its own."""
    own, outcome, move = record.own, record.outcome, record.move
    if outcome is not None and outcome.ballot > own.ballot and outcome.firm and not outcome.settled:
        raise ValueError("an outcome is proposed under the ballot of its owner")
    if move is not None and move.ballot > own.ballot:
        raise ValueError("other holders are proposed under the ballot of the owner")


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
    at, kind, node, text, until = fields
    return Note(finite(at), str(kind), shared_node(node), str(text), finite(until))


def _own(fields: list[Any]) -> Own:
    (term, owner), write, state, (start_term, starter, start), *rest = fields
    return _shared_own(term, owner, write, state, start_term, starter, start, *rest)


@lru_cache(maxsize=4096, typed=True)
def _shared_own(
    term: object,
    owner: object,
    write: object,
    state: str,
    start_term: object,
    starter: object,
    start: object,
    runner: object,
    boot: object,
    started_at: object,
    due_at: object,
) -> Own:
    """Jobs of one batch that wait, or that were begun together, have one for all. (Flat: see core/bounds.)"""
    own = Own(
        shared_ballot(term, owner),
        whole(write),
        _STATES[state],
        shared_start(start_term, starter, start),
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
