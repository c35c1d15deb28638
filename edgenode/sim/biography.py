"""The life of one job, told for people: where it was submitted and held, who owned it, what struck, its end.

Told from the story of a whole run (`Story(whole=True)`), of which it leaves out what only a protocol's author
wants to know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from edgenode.core.job_ids import job_text
from edgenode.core.jobs import Outcome, Record
from edgenode.core.signals import (
    MessageArrived,
    Persist,
    Receipt,
    Run,
    RunEnded,
    Send,
    StopRun,
    SubmitAsked,
    SubmitDone,
)
from edgenode.core.types import NO_BALLOT, NOBODY, Ballot, JobId, NodeId, Seconds
from edgenode.core.wire import Ask, Inspect, Inspected, Message, Read, ReadAnswer, Search, SearchAnswer
from edgenode.sim.disk import record_of
from edgenode.sim.story import Line, Story, jobs_in, short, token_text

READERS: Final = (Read, ReadAnswer, Inspect, Inspected, Search, SearchAnswer)
"""Nothing comes of these for the job."""


class Passage(NamedTuple):
    """One line of a life."""

    at: Seconds
    text: str
    is_fault: bool


def names(nodes: Iterable[NodeId]) -> str:
    return ", ".join(map(short, nodes)) or "nobody"


class Biography:
    """Takes the lines of a story in their order, each of which concerns the job or befell somebody."""

    def __init__(self, job: JobId) -> None:
        self.job = job
        self.passages: list[Passage] = []
        self._near: set[NodeId] = set()  # nodes that have had to do with it
        self._copies: dict[NodeId, Record] = {}
        self._ballot = NO_BALLOT
        self._epoch = 0
        self._asked: set[Ballot] = set()
        self._outcome: Outcome | None = None
        self._settled = False

    def take(self, line: Line) -> None:
        match line.arrow, line.what:
            case "*", str() as what:
                if line.node == NOBODY and self._near:
                    self._tell(line, what, is_fault=True)
                elif line.node in self._near:
                    self._tell(line, f"{short(line.node)} {what}", is_fault=True)
            case ">", SubmitAsked():
                self._near.add(line.node)
                self._tell(line, f"submitted to {short(line.node)}")
            case "<", SubmitDone(_, receipts):
                self._answered(line, next(each for each in receipts if each.job == self.job))
            case "=", Persist():
                self._stored(line, line.what)
            case "<" | "x", Send(to, message):
                self._sent(line, to, message)
            case "<", Run(_, token):
                self._near.add(line.node)
                granted = "" if token.owner == line.node else f", for its owner {short(token.owner)}"
                self._tell(line, f"start {token_text(token)} on {short(line.node)}{granted}")
            case "<", StopRun(_, token, reason):
                self._tell(line, f"{short(line.node)} stops start {token_text(token)}: {reason}")
            case ">", RunEnded(_, token, verdict, lost, begun):
                end = "its worker died" if lost else str(verdict.state) if begun else "it never began"
                self._tell(line, f"start {token_text(token)} ends on {short(line.node)}: {end}")
            case _:
                pass

    def _tell(self, line: Line, text: str, *, is_fault: bool = False) -> None:
        if not (is_fault and self._settled):  # what comes then is of no concern
            self.passages.append(Passage(line.at, text, is_fault))

    def _answered(self, line: Line, receipt: Receipt) -> None:
        if receipt.error is None:
            self._tell(line, f"acknowledged to its client: on the disks of {names(receipt.nodes)}")
            return
        sure = "certainly not taken" if receipt.error.definite else "it may exist all the same"
        self._tell(line, f"its client is told: {receipt.error.detail} ({sure})")

    def _sent(self, line: Line, to: NodeId, message: Message) -> None:
        if line.arrow == "x":
            if not isinstance(message, READERS):
                way = f"from {short(line.node)} to {short(to)}"
                self._tell(line, f"a message is lost: {type(message).__name__} {way}", is_fault=True)
        elif isinstance(message, Ask):
            (term,) = {item.term for item in message.items if item.job == self.job}
            ballot = Ballot(term, line.node)
            if ballot not in self._asked:
                self._asked.add(ballot)
                self._tell(line, f"{short(line.node)} asks the holders for it, under term {term}")

    def _stored(self, line: Line, persist: Persist) -> None:
        if self.job in persist.dropped:
            self._copies.pop(line.node, None)
            self._tell(line, f"{short(line.node)} drops its copy")
        for stored in persist.rows:
            record = record_of(stored.row) if stored.row.id == self.job else None
            if record is not None:
                self._copied(line, record)

    def _copied(self, line: Line, record: Record) -> None:
        node = line.node
        self._near.add(node)
        if not self._copies:
            self._tell(line, f"to be held by {names(record.holders)}")
        if record.epoch > self._epoch:
            self._epoch = record.epoch
            self._tell(line, f"its holders are {names(record.holders)} from now on")
        if record.ballot > self._ballot and record.owner == node:
            self._ballot = record.ballot
            self._tell(line, f"{short(node)} owns it in term {record.ballot.term}")
        if node not in self._copies:
            self._tell(line, f"{short(node)} has it on disk")
        self._copies[node] = record
        self._ended(line, record)

    def _ended(self, line: Line, record: Record) -> None:
        outcome = record.outcome
        if outcome is None or self._settled:
            return
        if self._outcome is None or outcome.value != self._outcome.value:
            self._outcome = outcome
            how = "" if outcome.firm else ", which may still give way to another end"
            self._tell(line, f"{outcome.state}, says {short(outcome.ballot.owner)}{how}")
        if outcome.settled:
            self._settled = True
            self._tell(line, f"settled as {outcome.state}: a majority of its holders has that")


def biographies(story: Story) -> dict[JobId, Biography]:
    """The life of every job of this story."""
    lives = {job: Biography(job) for job in story.jobs}
    for line in story:
        if line.arrow == "*":
            concerned: Iterable[JobId] = lives
        else:
            concerned = set(jobs_in(_told_of(line.what)))
        for job in concerned:
            if job in lives:
                lives[job].take(line)
    return lives


def _told_of(what: object) -> object:
    """The message inside of an event or an effect, if that is all there is to it."""
    match what:
        case MessageArrived(_, message) | Send(_, message):
            return message
        case _:
            return what


def most_eventful(lives: dict[JobId, Biography]) -> Biography | None:
    """The job to which most happened; None if there was none."""

    def events(life: Biography) -> tuple[int, int]:
        faults = sum(passage.is_fault for passage in life.passages)
        return len(life.passages) - faults, faults

    return max(lives.values(), key=events, default=None)


def tell(story: Story, life: Biography) -> Iterator[str]:
    """A life in lines; "!" marks a fault that touched it."""
    yield f"{story.name(life.job)}, job {job_text(life.job)}"
    for at, text, is_fault in life.passages:
        yield f"{at:9.3f} {'!' if is_fault else ' '} {text}"
