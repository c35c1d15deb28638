"""What a recorded history proves: is anything lost, invented, doubled or changed? Nothing here asks or waits.

In the manner of Jepsen's checker of queues (total-queue), which goes by what the clients were told:

    ok              acknowledged, and it ended as it must
    recovered       no answer, or one that says "unknown"; the job is there, and ended as it must. No harm
    lost            acknowledged, and nobody knows it, or it has not ended: BAD. Where it is missing in the
                    order of acknowledgements says what kind of loss it is: a prefix (old work forgotten),
                    the middle, or the tail (acknowledged before it was safe)
    unexpected      a job or start that nobody asked for, or that is certainly not stored, we were told: BAD
    duplicated      one submission made two jobs: BAD
    wrong           ended, but not as it must; or with a result that no start made: BAD
    split           two nodes show different ends of one job: BAD
    lost on a node  a living node can't show the job, one of its holders has another end of it, or no majority
                    of its living holders has a copy: BAD
    thin            one of its living holders has no copy, though a majority has: BAD
    changed         a client was shown a settled result, and it is another one now: BAD
    denied          a client was told that an acknowledged job does not exist: BAD
    unexplained     an extra start, without a fault that could be why, or more of them than the record has
                    takeovers and lost runners: BAD
    uncounted       more starts by living owners than the record counts: BAD
    refenced        two starts under one fencing token: BAD
    twice           an at-most-once job that was started twice: BAD

Starts are counted by the marks that the task itself left, and faults by who made them, not by what nodes say.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, Literal, TypeAlias

from marking import Mark
from verdict import START_LOST, Record, difference

from edgenode.client.job import ENDS

Told: TypeAlias = Literal["accepted", "refused", "indefinite"]
Blame: TypeAlias = tuple[str, str]
"""A word of the list above, and what is wrong."""

AFTERMATH_S: Final = 20.0
"""For so long after its end a fault can still be why a job starts again: until the last member has learned of
it, refutations have spread, and a returned owner has asked."""
SHOWN_MAX: Final = 8


@dataclass(slots=True)
class Fault:
    """What was done to which nodes, from when until when (time.monotonic())."""

    kind: str
    nodes: tuple[str, ...]
    at: float
    until: float = inf


@dataclass(slots=True)
class Submission:
    """What one client asked, and what it was told. Times are of time.monotonic()."""

    number: int
    node: str
    document: Mapping[str, Any]
    asked_at: float
    told: Told = "indefinite"
    job: str | None = None
    why: str = ""
    answered_at: float | None = None

    @property
    def failures(self) -> int:
        """How many attempts must fail before one succeeds."""
        return int(self.document["payload"].get("failures", 0))

    @property
    def at_most_once(self) -> bool:
        return self.document.get("delivery") == "at-most-once"

    def __str__(self) -> str:
        return f"submission {self.number} to {self.node} ({self.told}{f': {self.why}' if self.why else ''})"


@dataclass(frozen=True, slots=True)
class Look:
    """What a client was shown of a job while things went wrong: a record, or None for "there is none"."""

    at: float  # when it was asked for
    node: str
    job: str
    record: Record | None


@dataclass(frozen=True, slots=True)
class History:
    """Everything that is known when all has healed and come to rest.

    `nodes` has the id of each living node, by its name. `shown` has the jobs of this workload as each of them
    shows them, by id; `copies` what each holder among them has on its disk (as `/placement` says), by job and
    the holder's name. A job's payload has the number of its submission.
    """

    nodes: Mapping[str, str]

    submissions: Sequence[Submission]
    looks: Sequence[Look]
    shown: Mapping[str, Mapping[str, Record]]
    copies: Mapping[str, Mapping[str, Record]]
    marks: Sequence[Mark]
    faults: Sequence[Fault]

    @property
    def records(self) -> dict[str, Record]:
        """One record of each job: the one that has counted the most starts."""
        found: dict[str, Record] = {}
        for jobs in self.shown.values():
            for job, record in jobs.items():
                if job not in found or record["starts"] > found[job]["starts"]:
                    found[job] = record
        return found


@dataclass
class Verdict:
    counts: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.bad


def judge(history: History) -> Verdict:
    """Hold the history against the promises."""
    verdict = Verdict()
    verdict.counts.update(each.told for each in history.submissions)
    verdict.counts["starts"] = len(history.marks)
    if not history.shown:
        verdict.bad.append("lost: no node is left to ask")
        return verdict
    jobs = _jobs_of(history)
    for submission in history.submissions:
        for job in jobs[submission.number]:
            word = _how_it_ended(history, submission, job)
            verdict.counts[word] += 1
    for rule in RULES:
        for word, text in rule(history):
            verdict.counts[word] += 1
            verdict.bad.append(f"{word}: {text}")
    return verdict


def number_of(record: Record) -> int:
    """Which submission made this job."""
    return int(record["payload"]["number"])


def _jobs_of(history: History) -> defaultdict[int, list[str]]:
    """The jobs that are there, by the number of their submission."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    for job, record in sorted(history.records.items()):
        found[number_of(record)].append(job)
    return found


# ---------------------------------------------------------------------------------------------- ends


def has_ended(record: Record) -> bool:
    return record["state"] in ENDS and bool(record["settled"])


def _how_it_ended(history: History, submission: Submission, job: str) -> str:
    record = history.records[job]
    if not has_ended(record) or _why_wrong(history, submission, record):
        return "not as it must"
    return "ok" if submission.told == "accepted" else "recovered"


def _why_wrong(history: History, submission: Submission, record: Record) -> str | None:
    """Why a job may not end like this; None if it may."""
    if record["state"] == "succeeded":
        made = {mark.fence for mark in history.marks}
        result = record["result"]
        fence = (result["job"], result["term"], result["owner"], result["start"])
        if fence[0] != record["id"]:
            return "the result is another job's"
        return None if fence in made else "no start made this result"
    if submission.at_most_once and record["state"] == "failed" and _faults_since(history, submission):
        return None  # its runner was lost: that is the price
    return f"it is {record['state']}"


def _lost(history: History) -> Iterator[Blame]:
    accepted = [each for each in history.submissions if each.told == "accepted"]
    accepted.sort(key=lambda each: (each.answered_at or 0.0, each.number))
    why: dict[int, str] = {}
    for place, submission in enumerate(accepted):
        record = history.records.get(submission.job or "")
        if record is None:
            why[place] = "nobody knows it"
        elif not has_ended(record):
            why[place] = f"{brief(record)} has not ended"
    kept = [place for place in range(len(accepted)) if place not in why] or [-1]
    for place, reason in why.items():
        where = "tail" if place > kept[-1] else "prefix" if place < kept[0] else "middle"
        yield "lost", f"{accepted[place]} ({where}: {place + 1} of {len(accepted)} acknowledged): {reason}"


def _wrong(history: History) -> Iterator[Blame]:
    by_number = {each.number: each for each in history.submissions}
    for record in history.records.values():
        submission = by_number.get(number_of(record))
        if submission is not None and has_ended(record):
            if why := _why_wrong(history, submission, record):
                yield "wrong", f"{submission}: {why}: {brief(record)}"


def _unexpected(history: History) -> Iterator[Blame]:
    by_number = {each.number: each for each in history.submissions}
    for record in history.records.values():
        submission = by_number.get(number_of(record))
        if submission is None:
            yield "unexpected", f"nobody submitted {brief(record)}"
        elif submission.told == "refused":
            yield "unexpected", f"{submission}, but {brief(record)}"
        elif submission.job not in (None, record["id"]) and submission.job not in history.records:
            yield "unexpected", f"{submission} was told {submission.job}, but there is {brief(record)}"
    known = history.records.keys() | {each.job for each in history.submissions}
    for job in sorted({mark.job for mark in history.marks} - known):
        yield "unexpected", f"job {job} was started, but no node has it, and no client was told of it"


def _duplicated(history: History) -> Iterator[Blame]:
    for number, jobs in _jobs_of(history).items():
        if len(jobs) > 1:
            yield "duplicated", f"submission {number} is {' and '.join(jobs)}"


# --------------------------------------------------------------------------------------------- nodes


def _split(history: History) -> Iterator[Blame]:
    for job in history.records:
        told = {name: jobs[job] for name, jobs in history.shown.items() if job in jobs}
        if why := difference(told):
            yield "split", f"job {job}: {why}"


def _lost_on_a_node(history: History) -> Iterator[Blame]:
    for job, record in history.records.items():
        missing = [name for name, jobs in history.shown.items() if job not in jobs]
        if missing:
            yield "lost on a node", f"{', '.join(missing)} can't show {brief(record)}"
        copies = history.copies.get(job, {})
        without = _without_copy(copies)
        if 2 * len(without) > len(record["holders"]):
            yield (
                "lost on a node",
                f"{', '.join(without)} of {sorted(copies)} have no copy of {brief(record)}",
            )
        elif without:
            yield "thin", f"{', '.join(without)} of {sorted(copies)} has no copy of {brief(record)}"
        for holder, copy in copies.items():
            ended = (copy.get("state"), copy.get("settled"))
            if holder not in without and ended != (record["state"], record["settled"]):
                yield "lost on a node", f"{holder} has {copy} of {brief(record)}"


def _without_copy(copies: Mapping[str, Record]) -> list[str]:
    """The holders, by name, that have none."""
    return [holder for holder, copy in copies.items() if copy["status"] != "held"]


# --------------------------------------------------------------------------------------------- looks


def _changed(history: History) -> Iterator[Blame]:
    told = dict(history.records)
    for look in history.looks:
        if look.record is None or not has_ended(look.record):
            continue
        now = told.get(look.job)
        if now is None:
            yield "changed", f"{look.node} showed the settled {brief(look.record)}, and now there is none"
        elif why := difference({look.node: look.record, "at the end": now}, ("state", "result", "error")):
            yield "changed", f"job {look.job}, settled before: {why}"


def _denied(history: History) -> Iterator[Blame]:
    told_at = {each.job: each.answered_at for each in history.submissions if each.told == "accepted"}
    for look in history.looks:
        answered_at = told_at.get(look.job)
        if look.record is None and answered_at is not None and look.at > answered_at:
            yield "denied", f"{look.node} said that there is no job {look.job}, which was acknowledged before"


# -------------------------------------------------------------------------------------------- starts


def _possible_causes(history: History, submission: Submission, job: str) -> list[Fault]:
    """The faults that struck, or were there, between the submission of this job and its last start."""
    last = max((mark.at for mark in history.marks if mark.job == job), default=inf)
    return [fault for fault in _faults_since(history, submission) if fault.at <= last]


def _faults_since(history: History, submission: Submission) -> list[Fault]:
    return [fault for fault in history.faults if fault.until + AFTERMATH_S >= submission.asked_at]


def _unexplained(history: History) -> Iterator[Blame]:
    starts = Counter(mark.job for mark in history.marks)
    by_number = {each.number: each for each in history.submissions}
    for job, record in history.records.items():
        submission = by_number.get(number_of(record))
        if submission is None:
            continue  # unexpected anyway
        extra = starts[job] - 1 - submission.failures
        moves = _moves(record) + _unheard(history, record)
        if extra > 0 and not _possible_causes(history, submission, job):
            yield "unexplained", f"{extra} extra starts without any fault of {brief(record)}"
        elif extra > moves * (1 + submission.failures):  # who begins again fails as often again
            yield "unexplained", f"{extra} extra starts, but {moves} takeovers and losses of {brief(record)}"


def _moves(record: Record) -> int:
    """How often the job had to begin again: another took it over, or its runner was lost, or seemed to be."""
    lost = sum(note["kind"] == START_LOST for note in record["history"])
    return int(max(record["takeovers"], record["term"] - 1) + max(lost, record["losses"]))


def _unheard(history: History, record: Record) -> int:
    """How many made themselves owner and died before anybody who lives could hear of it: on a small side of a
    cut, say. Only the marks of their starts tell."""
    living, known = set(history.nodes.values()), record["term"]
    owners = {(mark.term, mark.owner) for mark in history.marks if mark.job == record["id"]}
    alone = Counter(term for term, _ in owners)
    return sum(owner not in living and (term > known or alone[term] > 1) for term, owner in owners)


def _uncounted(history: History) -> Iterator[Blame]:
    """A first start is on its owner's disk alone before it runs: nobody else can count it meanwhile."""
    living = set(history.nodes.values())
    for job, record in history.records.items():
        fences = {mark.fence for mark in history.marks if mark.job == job and mark.owner in living}
        if len(fences) > record["starts"]:
            yield "uncounted", f"{len(fences)} starts of {brief(record)}"


def _refenced(history: History) -> Iterator[Blame]:
    for fence, times in Counter(mark.fence for mark in history.marks).items():
        if times > 1:
            yield "refenced", f"{fence} was started {times} times"


def _twice(history: History) -> Iterator[Blame]:
    starts = Counter(mark.job for mark in history.marks)
    careful = {each.job for each in history.submissions if each.at_most_once}
    careful |= {job for job, record in history.records.items() if record["delivery"] == "at-most-once"}
    for job in sorted(job for job in careful if job is not None and starts[job] > 1):
        yield "twice", f"the at-most-once job {job} was started {starts[job]} times"


RULES: Final = (
    _lost, _unexpected, _duplicated, _wrong, _split, _lost_on_a_node, _changed, _denied, _unexplained,
    _uncounted, _refenced, _twice,
)  # fmt: skip


# ------------------------------------------------------------------------------------- for people


def brief(record: Record) -> str:
    """A job in a line, with its story."""
    names = ("id", "state", "settled", "result", "error", "owner", "term", "starts", "losses", "takeovers")
    story = "; ".join(
        f"{note['at']} {note['kind']} at {note['node']}: {note['detail']}" for note in record["history"]
    )
    return ", ".join(f"{name} {record[name]}" for name in names) + (f" [{story}]" if story else "")


def verdict_lines(verdict: Verdict, history: History) -> Iterator[str]:
    """The verdict for people. Every number in it was computed by `judge`."""
    counts = verdict.counts
    yield f"{len(history.submissions)} submissions: " + ", ".join(
        f"{counts[word]} {word}" for word in ("accepted", "refused", "indefinite")
    )
    yield f"of the accepted: {counts['ok']} ok, {counts['lost']} lost; recovered: {counts['recovered']}"
    jobs = len({mark.job for mark in history.marks})
    yield f"{counts['starts']} starts of {jobs} jobs; {len(history.looks)} jobs looked at meanwhile"
    faults = Counter(fault.kind for fault in history.faults)
    yield "faults: " + (", ".join(f"{n} {kind}" for kind, n in sorted(faults.items())) or "none")
    yield from (f"BAD {text}" for text in verdict.bad[:SHOWN_MAX])
    if len(verdict.bad) > SHOWN_MAX:
        yield f"... and {len(verdict.bad) - SHOWN_MAX} more"
