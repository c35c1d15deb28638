"""How two copies of a job's record become one. The orders of its parts are those of core/jobs.

Under an idempotency key one id can get two lives: the key was used on both sides of a cut, for two contents
or with two sets of holders. (Two submissions of one content are one life: only their days differ.) Of two one
stands, with its spec, set, ownership and outcome whole (see `join`); only counters count for both.
"""

from __future__ import annotations

from typing import TypeVar

from edgenode.core.job_ids import is_keyed
from edgenode.core.jobs import (
    Counts,
    Move,
    Outcome,
    Record,
    bounded,
    is_marker,
    latest,
    union,
)
from edgenode.core.specs import decode_spec
from edgenode.core.types import (
    NodeId,
)

_Proposal = TypeVar("_Proposal", Outcome, Move)


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
        spec = a.spec
        if b.spec != spec:
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
        union(a.losses, b.losses),
        union(a.voids, b.voids),
        union(a.pardons, b.pardons),
        a.cancel or b.cancel,
        a.history if a.history == b.history else latest({*a.history, *b.history}),
        claimed,
        move,
    )
    if joined == a:
        return a
    return b if joined == b else joined


def is_same_life(a: Record, b: Record) -> bool:
    """Whether two copies of one id are of one job: always, unless its key was used on two sides of a cut.
    Within an epoch one job has one set of holders."""
    return (a.holders == b.holders or a.epoch != b.epoch) and is_same_content(a, b)


def is_same_content(a: Record, b: Record) -> bool:
    """Whether two copies of one id are of one submission, or of two under one key that say the same."""
    if a.spec == b.spec or not is_keyed(a.id):
        return a.spec == b.spec
    return decode_spec(a.spec).options.fingerprint == decode_spec(b.spec).options.fingerprint


def _standing(record: Record) -> tuple[bool, bool, int, str, tuple[NodeId, ...], bytes]:
    """What orders the lives of a key. (Not the spec: copies of one life may have several, and the greater of
    these would count only after they have met. It counts last, and only where no key is: two contents of one
    id are nobody's doing there, but all must come to the same.)"""
    content = decode_spec(record.spec).options.fingerprint
    spec = b"" if is_keyed(record.id) else record.spec
    return (record.settled, record.claimed, record.epoch, content, record.holders, spec)


def _join_marker(marker: Record, other: Record) -> Record:
    """The marker, with what only the other copy knew of starts: all are counted, on all sides of a cut."""
    joined = marker._replace(
        starts=_merge_counts(marker.starts, other.starts),
        failures=_merge_counts(marker.failures, other.failures),
        losses=union(marker.losses, other.losses),
        voids=union(marker.voids, other.voids),
        pardons=union(marker.pardons, other.pardons),
        cancel=marker.cancel or other.cancel,
    )
    return marker if joined == marker else joined


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
