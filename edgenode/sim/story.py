"""What happened, in lines that people read: kept cheaply as it happens, worded when somebody asks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Final, NamedTuple, TypeVar

from edgenode.core.errors import EdgeNodeError, MalformedMessage
from edgenode.core.job_bytes import decode
from edgenode.core.job_ids import job_text
from edgenode.core.jobs import Record
from edgenode.core.signals import (
    ClockRead,
    MessageArrived,
    Peers,
    Persist,
    Persisted,
    Remember,
    Row,
    Send,
    StoredRow,
    TimePassed,
)
from edgenode.core.specs import Spec, decode_spec
from edgenode.core.types import NO_TOKEN, Ballot, JobId, NodeId, Promise, Seconds, StartToken
from edgenode.core.wire import MembershipMessage, SubmitItem

_T = TypeVar("_T")

LINES_KEPT: Final = 40
ITEMS_SHOWN: Final = 12
QUIET: Final = (TimePassed, ClockRead, Persisted, Peers, Remember)


class Line(NamedTuple):
    at: Seconds
    node: NodeId
    arrow: str  # ">": came in; "<": left; "=": is on disk; "x": was lost on its way; "*": befell the node
    what: object


class Story:
    """The last lines, or all of them.

    Args:
        whole: keep everything (for a replay), not only the end.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self._lines: deque[Line] = deque(maxlen=None if whole else LINES_KEPT)
        self._names: dict[JobId, str] = {}
        self._focus: frozenset[JobId] = frozenset()  # of a batch, only what concerns these is told

    def add(self, at: Seconds, node: NodeId, arrow: str, what: object) -> None:
        if not isinstance(what, QUIET) and not isinstance(getattr(what, "message", None), MembershipMessage):
            self._lines.append(Line(at, node, arrow, what))

    def __iter__(self) -> Iterator[Line]:
        return iter(self._lines)

    def job(self, name: str) -> JobId | None:
        """The job of this name: j3, or its id as people write it."""
        return next((job for job, told in self._names.items() if name in (told, job_text(job))), None)

    @property
    def jobs(self) -> tuple[JobId, ...]:
        """All that were named, in the order in which they came up."""
        return tuple(self._names)

    def name(self, job: JobId) -> str:
        """A job's short name, in the order in which jobs came up."""
        return self._names.setdefault(job, f"j{len(self._names)}")

    def lines(self, job: str = "") -> Iterator[str]:
        """The story so far; with `job` ("j3", or the id as people write it) only what concerns that one."""
        found = self.job(job)
        self._focus = frozenset() if found is None else frozenset({found})
        for line in self._lines:
            if job and self._focus.isdisjoint(jobs_in(line.what)):
                continue
            yield f"{line.at:9.4f} {short(line.node):>3} {line.arrow} {self._word(line.what)}"

    def _word(self, what: object) -> str:
        match what:
            case str():
                return what
            case MessageArrived(source, message):
                return f"{self._word(message)}  from {short(source)}"
            case Send(to, message):
                return f"{self._word(message)}  to {short(to)}"
            case Persist(rows):
                return "on disk: " + ", ".join(self._row(each.row) for each in self._of_interest(rows))
            case _ if is_dataclass(what):
                told = (self._value(getattr(what, each.name)) for each in fields(what))
                return f"{type(what).__name__} {' '.join(part for part in told if part)}"
            case _:
                return self._value(what)

    def _of_interest(self, batch: tuple[_T, ...]) -> tuple[_T, ...]:
        if not self._focus:
            return batch
        named = [(each, frozenset(jobs_in(each))) for each in batch]
        return tuple(each for each, jobs in named if not jobs or jobs & self._focus)

    def _row(self, row: Row) -> str:
        record = _decoded(row.blob)
        told = self.name(row.id) if record is None else self.record(record)
        return told if row.promise is None else f"{told} promised {ballot_text(row.promise.ballot)}"

    def _value(self, value: Any) -> str:
        if isinstance(value, (Record, bytes, StartToken, Ballot, Promise, Row, Spec, EdgeNodeError)):
            return self._leaf(value)
        if isinstance(value, dict):
            shown = self._of_interest(tuple(value.items()))
            return " ".join(f"{self._value(key)}={self._value(each)}" for key, each in shown[:ITEMS_SHOWN])
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return "(" + " ".join(self._value(each) for each in value) + ")"
        if isinstance(value, tuple):
            value = self._of_interest(value)
            more = f", and {len(value) - ITEMS_SHOWN} more" if len(value) > ITEMS_SHOWN else ""
            return "[" + ", ".join(map(self._value, value[:ITEMS_SHOWN])) + more + "]"
        if isinstance(value, str):
            return short(NodeId(value))
        return f"{value:g}" if isinstance(value, float) else str(value)

    def _leaf(self, value: object) -> str:
        match value:
            case Record():
                return self.record(value)
            case StartToken():
                return token_text(value)
            case Ballot():
                return ballot_text(value)
            case Promise():
                return ballot_text(value.ballot)
            case Row():
                return self._row(value)
            case Spec():
                return self.name(value.id)
            case EdgeNodeError():
                return f"{value.slug}: {value.detail}"
            case bytes() if len(value) == 16 and value in self._names:
                return self.name(JobId(value))
            case bytes():
                record = _decoded(value)
                return self.record(record) if record is not None else _bytes_text(value)
        return repr(value)

    def record(self, record: Record) -> str:
        """One copy in a few characters: j3(2b #4 running 2b.1 on b)."""
        own, outcome = record.own, record.outcome
        words = [ballot_text(own.ballot), f"#{own.write}", str(own.state)]
        if own.token != NO_TOKEN:
            words.append(f"{token_text(own.token)} on {short(own.runner)}")
        if outcome is not None:
            marks = ("settled " if outcome.settled else "") + ("firm" if outcome.firm else "provisional")
            words += ["→", outcome.state, marks, ballot_text(outcome.ballot), token_text(outcome.token)]
        return f"{self.name(record.id)}({' '.join(words)})"


def short(node: NodeId) -> str:
    """A simulated node's name: its id without the padding."""
    return node.rstrip("z")


def ballot_text(ballot: Ballot) -> str:
    return f"{ballot.term}{short(ballot.owner)}"


def token_text(token: StartToken) -> str:
    return f"{ballot_text(token.ballot)}.{token.start}"


def _bytes_text(value: bytes) -> str:
    try:
        return f"spec of {decode_spec(value).task}"
    except MalformedMessage:
        return value.decode() if value.isascii() and len(value) < 80 else f"<{len(value)} bytes>"


def _decoded(blob: bytes) -> Record | None:
    if len(blob) < 32:
        return None
    try:
        return decode(blob)
    except MalformedMessage:
        return None


def jobs_in(what: object) -> Iterable[JobId]:
    """Every job that an event, an effect or a part of one names."""
    match what:
        case str() | int() | float() | None:
            return
        case bytes() if len(what) == 16:
            yield JobId(what)
        case bytes():
            record = _decoded(what)
            if record is not None:
                yield record.id
        case Record() | Spec():
            yield what.id
        case SubmitItem():
            yield decode_spec(what.spec).id
        case StoredRow():
            yield what.row.id
        case dict():
            for key in what:
                yield from jobs_in(key)
        case tuple():
            for each in what:
                yield from jobs_in(each)
        case _ if is_dataclass(what):
            for each in fields(what):
                yield from jobs_in(getattr(what, each.name))
