"""The starts of this owner's jobs that run on peers, and whether they still do.

    watched    granted by this owner, or found in the record of a job that was another's before
    asked      `Have` went out: a grant can be lost, and so can a result. Again every `retry_max_s`
    gone       its runner died, or has started again, or says that it does not run it: the start is lost;
               or its runner says that it never began, and never will: then it is void
    stopping   its job is over without it: `Stop` goes out again and again, until its runner does not run it
    let go     its runner is silent: nobody waits for its end; it is told again if it was only cut off

A runner that this node has merely not met yet is waited for. What a start that is gone means for its job is
the scheduler's to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from edgenode.core.agenda import Agenda
from edgenode.core.desk import Desk
from edgenode.core.jobs import Record
from edgenode.core.situations import Situation
from edgenode.core.types import FOREVER, Instant, JobId, NodeId, Seconds, StartToken
from edgenode.core.view import Standing
from edgenode.core.wire import Has, Have, Stop, TokenItem


class Watched(NamedTuple):
    """A start that runs on a peer, to be asked about now and then."""

    token: StartToken
    runner: NodeId
    boot: int


@dataclass(slots=True)
class Stopping:
    """A start on a peer that is to end."""

    token: StartToken
    runner: NodeId
    boot: int
    pause_s: Seconds  # until it is told again
    is_let_go: bool = False


class Gone(NamedTuple):
    """A start that its runner does not run, though the job's record says so."""

    record: Record
    why: str = ""
    counted: bool = False  # whether that is held against the job
    is_void: bool = False  # it never began


class Away:
    """Drive it with starts and their ends, messages, membership changes and time. It returns those that are
    gone, and watches them no longer. (Those that were to stop, and have, are told of by `take_stopped`.)"""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._table = desk.table
        self._watched: dict[JobId, Watched] = {}
        self._asks: Agenda[JobId] = Agenda()  # when the runner of each of them is asked
        self._stopping: dict[JobId, Stopping] = {}
        self._repeats: Agenda[JobId] = Agenda()  # when each is told again whose runner is not silent
        self._stopped: list[JobId] = []

    def watch(self, record: Record, ask_at: Instant) -> None:
        """The present start of this job is a peer's to run."""
        own = record.own
        self._watched[record.id] = Watched(own.token, own.runner, own.boot)
        self._asks.set(record.id, ask_at)

    def drop(self, job: JobId) -> None:
        """Its start is over, or not this owner's any more."""
        if self._watched.pop(job, None) is not None:
            self._asks.drop(job)

    def stop(self, job: JobId, *, but: StartToken | None) -> None:
        """The job is over: its start is told to end, if it is not the one that ended it."""
        watched = self._watched.get(job)
        if watched is None:
            return
        self.drop(job)
        if watched.token == but or self._has_ended_with(watched):
            return
        pause_s, is_silent = self._desk.settings.retry_s, self._is_silent(watched.runner)
        self._stopping[job] = Stopping(*watched, pause_s, is_let_go=is_silent)
        self._repeats.set(job, FOREVER if is_silent else self._desk.now + pause_s)
        if not is_silent:
            self._desk.post.add(watched.runner, Stop, TokenItem(job, watched.token))

    def is_stopping(self, job: JobId) -> bool:
        """Whether a start of this job, which is over, may still run on a peer that lives."""
        stopping = self._stopping.get(job)
        return stopping is not None and not stopping.is_let_go

    def has_stopped(self, job: JobId, token: StartToken) -> None:
        """Its runner says that this start is over."""
        stopping = self._stopping.get(job)
        if stopping is not None and stopping.token == token:
            del self._stopping[job]
            self._repeats.drop(job)
            if not stopping.is_let_go:
                self._stopped.append(job)

    def take_stopped(self) -> list[JobId]:
        """Jobs whose starts were told to stop, and are over since this was asked last."""
        stopped, self._stopped = self._stopped, []
        return stopped

    def check(self, jobs: Iterable[JobId]) -> list[Gone]:
        """The starts of these jobs whose runners certainly do not run them any more."""
        gone: list[Gone] = []
        view = self._desk.view
        for job in jobs:
            watched, record = self._watched[job], self._table.peek(job)
            is_dead = self._is_dead(watched.runner)
            if not is_dead and not self._is_another(watched):
                continue
            self.drop(job)
            if record is None or not self._is_present(record, watched.token) or record.outcome is not None:
                continue
            counted = not view.has_left(watched.runner)
            dead = Situation.RUNNER_GONE if counted else Situation.RUNNER_LEFT
            self._desk.reach(dead if is_dead else Situation.RUNNER_REBOOTED)
            gone.append(Gone(record, f"runner {watched.runner} is gone", counted))
        return gone

    def _is_dead(self, runner: NodeId) -> bool:
        return self._desk.view.standing(runner) in (Standing.SILENT, Standing.GONE)

    def _is_silent(self, runner: NodeId) -> bool:
        return self._desk.view.standing(runner) is Standing.SILENT

    def _has_ended_with(self, start: Watched | Stopping) -> bool:
        """Whether a start is certainly over since its runner is gone, or another one by now; or nobody knows
        its runner any more."""
        is_forgotten = self._is_silent(start.runner) and self._desk.view.info(start.runner) is None
        is_gone = self._desk.view.standing(start.runner) is Standing.GONE
        return is_gone or is_forgotten or self._is_another(start)

    def _is_another(self, start: Watched | Stopping) -> bool:
        """Whether its runner has started again since."""
        is_living = self._desk.view.standing(start.runner) is Standing.LIVING
        return is_living and self._boot_of(start.runner) != start.boot

    def _boot_of(self, node: NodeId) -> int:
        info = self._desk.view.info(node)
        return 0 if info is None else info.boot

    def _is_present(self, record: Record, token: StartToken) -> bool:
        """Whether this node owns the job, and this is the start that its record speaks of."""
        return record.own.token == token and self._table.acting(record.id) is not None

    # ---------------------------------------------------------------------- messages, members and time

    def on_has(self, source: NodeId, message: Has) -> list[Gone]:
        """A runner says what became of starts. Returns those that are gone."""
        for item in message.held:
            watched = self._watched.get(item.job)
            if watched is not None and watched.token == item.token:
                if item.token.ballot.owner != self._desk.me:
                    self._desk.reach(Situation.START_KEPT)
                self._asks.set(item.job, self._desk.now + self._desk.settings.retry_max_s)
        gone: list[Gone] = []
        for item in (*message.denied, *message.voids):
            self.has_stopped(item.job, item.token)
            watched, record = self._watched.get(item.job), self._table.peek(item.job)
            if watched is None or watched.token != item.token or watched.runner != source or record is None:
                continue
            if not self._is_present(record, item.token):
                continue
            self.drop(item.job)
            if message.boot > watched.boot:
                # It began the start in an earlier life, or never heard of it: this one cannot tell.
                self._desk.reach(Situation.RUNNER_REBOOTED)
                gone.append(Gone(record, f"{source} has started again", counted=True))
            elif item in message.voids:
                gone.append(Gone(record, is_void=True))
            else:
                self._desk.reach(Situation.START_DENIED)
                gone.append(Gone(record, f"{source} does not run it any more"))
        return gone

    def members_changed(self, changed: frozenset[NodeId]) -> list[Gone]:
        """Starts on runners that died, or that live again under another boot, are gone."""
        for job, stopping in list(self._stopping.items()):
            if stopping.runner in changed or stopping.is_let_go:  # (a member that is forgotten is no change)
                self._follow(job, stopping)
        return self.check([job for job, watched in self._watched.items() if watched.runner in changed])

    def _follow(self, job: JobId, stopping: Stopping) -> None:
        """What became of the runner of a start that is to stop."""
        if self._has_ended_with(stopping):
            self.has_stopped(job, stopping.token)
        elif self._is_silent(stopping.runner):
            self._repeats.drop(job)
            if not stopping.is_let_go:
                stopping.is_let_go = True
                self._stopped.append(job)
        elif self._desk.view.is_living(stopping.runner) and job not in self._repeats:
            self._desk.reach(Situation.STOP_AFTER_SILENCE)
            self._repeats.set(job, self._desk.now)
            stopping.pause_s = self._desk.settings.retry_s

    def deadline(self) -> Instant:
        return min(self._asks.next(), self._repeats.next())

    def on_time(self) -> list[Gone]:
        """Ask the runners when it is time for that, or tell them again. Returns what needs no question: it is
        gone."""
        desk = self._desk
        due = self._asks.take_due(desk.now)
        gone = self.check(due)
        asked: dict[NodeId, list[TokenItem]] = {}
        for job in due:
            watched = self._watched.get(job)
            if watched is not None:
                asked.setdefault(watched.runner, []).append(TokenItem(job, watched.token))
                self._asks.set(job, desk.now + desk.settings.retry_max_s)
        for job in self._repeats.take_due(desk.now):
            stopping = self._stopping[job]
            desk.reach(Situation.STOP_REPEATED)
            desk.post.add(stopping.runner, Stop, TokenItem(job, stopping.token))
            stopping.pause_s = min(stopping.pause_s * 2, desk.settings.retry_max_s)
            self._repeats.set(job, desk.now + stopping.pause_s)
        for runner, items in asked.items():
            for at in range(0, len(items), desk.settings.batch):
                desk.post.send(runner, Have(tuple(items[at : at + desk.settings.batch])))
        return gone
