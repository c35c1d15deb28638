"""How what starts say reaches the holders of their jobs, and whoever asks for it.

    runner      sends each report to every living holder, and again to those that do not say they noted it
    holder      keeps it on disk, if it has the job; nothing about the job follows from it
    newcomer    which gets a copy of a job that began without it asks a holder once for what was said before
    reader      asks the holders (or all members), and puts together what they have

Best effort: a holder that is down misses what is said meanwhile, and is not told later. Whoever asks hears
the other holders as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edgenode.core.desk import Desk
from edgenode.core.jobs import is_marker
from edgenode.core.polls import Ended, Poll, Polls
from edgenode.core.reports import is_sound
from edgenode.core.runner import Runner
from edgenode.core.signals import Reported, ReportsAsked, ReportsDone, RequestId
from edgenode.core.types import FOREVER, Instant, JobId, NodeId, Seconds, StartToken
from edgenode.core.wire import AskReports, Noted, NotedItem, Report, Reports, Said

TRIES_MAX: Final = 5
"""How often a report is sent to a holder that lives and does not answer: over some ten seconds."""
CATCH_UP: Final = RequestId(0)
"""The request of a newcomer: no client's has this number."""
CATCH_UP_S: Final[Seconds] = 1.0
"""How long it waits for the answer, before it asks about the next job. It asks about one at a time, so that
copying many jobs costs their holders a read each, and never a burst of them."""
MISSED_MAX: Final = 1_000
"""Jobs that it will ask about; what is said of more of them stays where it is."""
UNHEARD_MAX: Final = 1_000
"""Reports that a runner keeps for repeating; the oldest are given up: 16 MiB of text at most."""


@dataclass(slots=True)
class Unheard:
    """A report that some holders have not noted yet."""

    said: Said
    waiting: dict[NodeId, None]
    again_at: Instant
    pause_s: Seconds
    tries: int = 1


Found = dict[tuple[StartToken, int], Said]
"""What is known of what a job's starts said, by its number."""


class Reporting:
    """Drive it with reports, requests, messages, changes and time; it answers through the desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._table = desk.table
        self._unheard: dict[tuple[JobId, StartToken, int], Unheard] = {}
        self._hearings: Polls[Found] = Polls(desk)
        self._missed: dict[JobId, None] = {}
        self._asked: tuple[JobId, NodeId, Instant] | None = None  # about what, whom, and until when to wait
        self._wake: Instant = FOREVER

    # ------------------------------------------------------------------------------------- runner

    def reported(self, event: Reported, runner: Runner) -> None:
        """Tell the living holders, this node perhaps among them."""
        desk = self._desk
        found = runner.running_as(event.job, event.token)
        if found is None or not desk.storing:
            return
        running, record = found
        said = Said(
            event.job,
            event.token,
            event.number,
            desk.me,
            running.attempt,
            round(desk.wall, 3),
            event.fraction,
            event.message,
            event.before,
            event.text,
            event.partial,
        )
        holders = desk.living_holders(record)
        for holder in holders:
            desk.post.add(holder, Report, said)
        others = dict.fromkeys(holder for holder in holders if holder != desk.me)
        if others:
            pause_s = desk.settings.retry_s
            again_at = desk.now + pause_s
            self._unheard[said.job, said.token, said.number] = Unheard(said, others, again_at, pause_s)
            self._wake = min(self._wake, again_at)
            if len(self._unheard) > UNHEARD_MAX:
                del self._unheard[next(iter(self._unheard))]

    def on_noted(self, source: NodeId, items: Iterable[NotedItem]) -> None:
        for item in items:
            unheard = self._unheard.get((item.job, item.token, item.number))
            if unheard is not None:
                unheard.waiting.pop(source, None)
                self._drop_if_heard(unheard)

    def _drop_if_heard(self, unheard: Unheard) -> None:
        if not unheard.waiting:
            said = unheard.said
            del self._unheard[said.job, said.token, said.number]

    def _repeat(self) -> None:
        desk = self._desk
        for key, unheard in list(self._unheard.items()):
            if unheard.again_at <= desk.now:
                if unheard.tries >= TRIES_MAX:
                    del self._unheard[key]
                    continue
                for holder in unheard.waiting:
                    desk.post.add(holder, Report, unheard.said)
                unheard.tries += 1
                unheard.pause_s = min(unheard.pause_s * 2, desk.settings.retry_max_s)
                unheard.again_at = desk.now + unheard.pause_s
            self._wake = min(self._wake, unheard.again_at)

    # ------------------------------------------------------------------------------------- holder

    def on_report(self, source: NodeId, items: Iterable[Said]) -> None:
        """Keep what is said of jobs that are here. The answer leaves when it is on disk."""
        desk = self._desk
        for said in items:
            record = self._table.get(said.job)
            if record is not None and not is_marker(record) and is_sound(said):
                self._table.reports.add(said)
            if source != desk.me:
                desk.post.add(source, Noted, NotedItem(said.job, said.token, said.number))

    def on_ask(self, source: NodeId, message: AskReports) -> None:
        items = self._table.said(message.job, brief=message.brief)
        self._desk.post.send(source, Reports(message.request, tuple(items)))

    # ----------------------------------------------------------------------------------- newcomer

    def adopted(self, jobs: Iterable[JobId]) -> None:
        """Copies of these came, which began without this node."""
        for job in jobs:
            if len(self._missed) < MISSED_MAX:
                self._missed[job] = None
        self._catch_up()

    def _catch_up(self) -> None:
        desk = self._desk
        while self._asked is None and self._missed:
            job = next(iter(self._missed))
            del self._missed[job]
            record = self._table.get(job)
            if record is None or is_marker(record):
                continue
            holders = [holder for holder in desk.living_holders(record) if holder != desk.me]
            if holders:
                node = record.owner if record.owner in holders else holders[0]
                desk.post.send(node, AskReports(CATCH_UP, job, False))
                self._asked = job, node, desk.now + CATCH_UP_S
                self._wake = min(self._wake, self._asked[2])

    def _caught_up(self, source: NodeId, items: Iterable[Said]) -> None:
        if self._asked is None or self._asked[1] != source:
            return
        wanted, self._asked = self._asked[0], None
        self.on_report(self._desk.me, (said for said in items if said.job == wanted))
        self._catch_up()

    # ------------------------------------------------------------------------------------- reader

    def ask(self, event: ReportsAsked) -> None:
        """Ask those that may know something; all members, if one of them is not to be had."""
        desk = self._desk
        members = [node for node in desk.view.members() if not desk.view.has_left(node)]
        nodes = set(event.nodes)
        if not event.nodes or any(not desk.view.is_living(node) for node in event.nodes):
            nodes |= set(members)
        found = _by_number(self._table.said(event.job, brief=event.brief))
        poll = Poll(found, set(), desk.now + event.timeout_s)
        for node in sorted(nodes - {desk.me}):
            if desk.view.is_living(node):
                poll.waiting.add(node)
                desk.post.send(node, AskReports(event.request, event.job, event.brief))
            else:
                poll.silent.add(node)
        self._tell(self._hearings.open(event.request, poll))

    def on_reports(self, source: NodeId, message: Reports) -> None:
        if message.request == CATCH_UP:
            self._caught_up(source, message.items)
            return
        poll = self._hearings.get(message.request)
        if poll is not None:
            poll.said.update(_by_number(message.items))
            self._tell(self._hearings.answered(message.request, source))

    def _tell(self, ended: Ended[Found]) -> None:
        for request, poll in ended:
            items = tuple(poll.said[key] for key in sorted(poll.said))
            self._desk.emit(ReportsDone(request, items, tuple(sorted(poll.silent))))

    def dropped(self, request: RequestId) -> None:
        """The client went away."""
        self._hearings.drop(request)

    # ------------------------------------------------------------------------------ members and time

    def disown(self) -> None:
        """The disk refused a write: what runs here is stopped, and nobody hears of it."""
        self._unheard.clear()
        self._missed.clear()
        self._asked = None

    def members_changed(self, changed: frozenset[NodeId]) -> None:
        """Do not wait for the dead."""
        dead = {node for node in changed if not self._desk.view.is_living(node)}
        if not dead:
            return
        for unheard in list(self._unheard.values()):
            for node in dead:
                unheard.waiting.pop(node, None)
            self._drop_if_heard(unheard)
        self._tell(self._hearings.members_changed(changed))

    def deadline(self) -> Instant:
        return min(self._wake, self._hearings.deadline())

    def on_time(self) -> None:
        self._tell(self._hearings.on_time())
        now = self._desk.now
        if self._wake > now:
            return
        self._wake = FOREVER
        self._repeat()
        if self._asked is not None and self._asked[2] <= now:
            self._asked = None
            self._catch_up()
        elif self._asked is not None:
            self._wake = min(self._wake, self._asked[2])


def _by_number(items: Iterable[Said]) -> Found:
    return {(said.token, said.number): said for said in items}
