"""What a run of the demo proves, judged from the job records alone: nothing here asks or waits.

Give `judge` what was acknowledged, what each living node says of every job now, and which nodes were killed
when. It believes nothing but that: not the live view, and not the nodes' own counters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from math import inf
from typing import Any, Final, NamedTuple, TypeAlias

Wall: TypeAlias = float
"""Seconds since the Unix epoch."""
Record: TypeAlias = Mapping[str, Any]
"""A job as the API shows it."""

TAKEOVERS: Final = frozenset({"takeover", "provisional takeover"})
START_LOST: Final = "start lost"
CUT_S: Final = 0.001
"""The API cuts times to milliseconds: what happened in the millisecond of a kill came after it."""
COMPARED: Final = ("state", "settled", "result", "error", "runner", "finished_at")
"""What must be the same at every node. How far each has heard of the owner's last term is not among it."""


class Kill(NamedTuple):
    """A node that was ended with kill -9 at this moment."""

    node: str  # id
    name: str
    at: Wall
    back_at: Wall = inf  # when it was ready again


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known when all is over.

    `sent` counts the submissions and `accepted` has the ids of those that were acknowledged. `readings` has,
    by the name of each living node, what it answered for each accepted job: a record, or None if it had
    none. `wrong` lists what is wrong with the files and results.
    """

    sent: int
    accepted: Sequence[str]
    readings: Mapping[str, Mapping[str, Record | None]]
    kills: Sequence[Kill] = ()
    kills_planned: int = 0
    wrong: Sequence[str] = ()


class Recovery(NamedTuple):
    """How the others went on without a killed node. Times are seconds since the kill; None: never."""

    kill: Kill
    taken_over: int  # unfinished jobs that it owned, and that got another owner
    takeover_s: float | None  # until the first of them had one
    interrupted: int  # jobs that were running on it
    restart_s: float | None  # until the first of these had been started again elsewhere
    ran_since: int  # results that it made after it was back


@dataclass(frozen=True, slots=True)
class Verdict:
    sent: int
    accepted: int
    finished: int  # succeeded and settled, the same at every living node
    lost: Mapping[str, str]  # id: why
    starts: int
    extra_starts: int
    unexplained: Sequence[str]  # extra starts of jobs that no kill touched
    wrong: Sequence[str]
    recoveries: Sequence[Recovery]
    problems: Sequence[str]

    @property
    def passed(self) -> bool:
        return not self.problems


def judge(evidence: Evidence) -> Verdict:
    """Hold the evidence against the promises: nothing lost, nothing twice without a fault, all recovered."""
    lost: dict[str, str] = {}
    records: dict[str, Record] = {}
    for job in evidence.accepted:
        answers = {name: reading.get(job) for name, reading in evidence.readings.items()}
        why = why_lost(answers)
        if why is not None:
            lost[job] = why
        found = [answer for answer in answers.values() if answer is not None]
        if found:
            records[job] = max(found, key=lambda record: int(record["starts"]))
    unexplained = [
        f"job {job} was started {record['starts']} times, but no killed node had it ({_story(record)})"
        for job, record in records.items()
        if record["starts"] > 1 and not is_touched(record, evidence.kills)
    ]
    recoveries = [recovery(kill, list(records.values())) for kill in evidence.kills]
    starts = sum(int(record["starts"]) for record in records.values())
    problems = [*_shortfalls(evidence), *(f"job {job} is lost: {why}" for job, why in lost.items())]
    problems += [*evidence.wrong, *unexplained, *chain.from_iterable(map(_unrecovered, recoveries))]
    return Verdict(
        sent=evidence.sent,
        accepted=len(evidence.accepted),
        finished=len(evidence.accepted) - len(lost),
        lost=lost,
        starts=starts,
        extra_starts=sum(max(0, int(record["starts"]) - 1) for record in records.values()),
        unexplained=unexplained,
        wrong=tuple(evidence.wrong),
        recoveries=recoveries,
        problems=problems,
    )


def why_lost(answers: Mapping[str, Record | None]) -> str | None:
    """Why a job does not count as finished, by what each living node says of it; None if it does."""
    if not answers:
        return "no node is left to ask"
    missing = [name for name, record in answers.items() if record is None]
    if missing:
        return f"{', '.join(missing)} found no record"
    told: dict[str, Record] = {name: record for name, record in answers.items() if record is not None}
    if (why := difference(told)) is not None:
        return why
    first = next(iter(told.values()))
    if first["state"] != "succeeded":
        return f"it is {first['state']}" + (f": {first['error']}" if first["error"] else "")
    if not first["settled"]:
        return "its result is not settled"
    return None


def difference(told: Mapping[str, Record], fields: Sequence[str] = COMPARED) -> str | None:
    """Where what is told of one job, by whoever tells it, is not the same; None if it is."""
    if not told:
        return None
    first_name, first = next(iter(told.items()))
    for name, record in told.items():
        for field in fields:
            if record[field] != first[field]:
                return f"{field} is {first[field]!r} at {first_name}, but {record[field]!r} at {name}"
    return None


def is_touched(record: Record, kills: Sequence[Kill]) -> bool:
    """Whether the history says that a killed node was this job's owner or runner when it died."""
    return any(_notes(record, kill, (*TAKEOVERS, START_LOST)) for kill in kills)


def recovery(kill: Kill, records: Sequence[Record]) -> Recovery:
    """What the records say of the time after a kill.

    A record keeps only its last start, so of a job that was interrupted again later, the restart is not
    known any more: such a job counts as interrupted, but not for the time.
    """
    takeovers = [notes[0] for record in records if (notes := _notes(record, kill, TAKEOVERS))]
    interrupted = [(record, notes[0]) for record in records if (notes := _notes(record, kill, (START_LOST,)))]
    restarts = []
    for record, lost_at in interrupted:
        lost_again = any(
            note["kind"] == START_LOST and moment(note["at"]) > lost_at for note in record["history"]
        )
        if record["started_at"] is not None and not lost_again and moment(record["started_at"]) >= lost_at:
            restarts.append(moment(record["started_at"]))
    return Recovery(
        kill,
        len(takeovers),
        min(takeovers) - kill.at if takeovers else None,
        len(interrupted),
        min(restarts) - kill.at if restarts else None,
        sum(has_run_since(record, kill) for record in records),
    )


def has_run_since(record: Record, kill: Kill) -> bool:
    """Whether the killed node ran this job after it was back."""
    started_at = record["started_at"]
    return record["runner"] == kill.node and started_at is not None and moment(started_at) >= kill.back_at


def moment(text: str) -> Wall:
    """A time of the API (RFC 3339) in seconds."""
    return datetime.fromisoformat(text).timestamp()


def _notes(record: Record, kill: Kill, kinds: Sequence[str] | frozenset[str]) -> list[Wall]:
    """When the history of a job says such a thing of the killed node, while that was dead; first first."""
    return sorted(
        at
        for note in record["history"]
        if note["kind"] in kinds and kill.node in note["detail"]
        if kill.at - CUT_S <= (at := moment(note["at"])) <= kill.back_at
    )


def _story(record: Record) -> str:
    """The history of a job in a line."""
    notes = [f"{note['kind']} at {note['node']}: {note['detail']}" for note in record["history"]]
    return "; ".join(notes) or "its history says nothing of it"


def _shortfalls(evidence: Evidence) -> list[str]:
    problems = []
    if len(evidence.accepted) < evidence.sent:
        problems.append(f"{evidence.sent - len(evidence.accepted)} submissions were not acknowledged")
    if len(evidence.kills) < evidence.kills_planned:
        problems.append(
            f"{len(evidence.kills)} of {evidence.kills_planned} kills took place: no work was running any "
            "more (try with more jobs)"
        )
    return problems


def _unrecovered(recovery: Recovery) -> list[str]:
    name, problems = recovery.kill.name, []
    if recovery.taken_over + recovery.interrupted == 0:
        problems.append(f"the kill of {name} proves nothing: the records name no unfinished job that it had")
    if recovery.kill.back_at < inf and not recovery.ran_since:
        problems.append(f"{name} came back, but ran no job since")
    return problems
