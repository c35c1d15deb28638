"""The starts of this owner's jobs that run on peers, and whether they still do.

    watched    granted by this owner, or found in the record of a job that was another's before
    asked      `Have` went out: a grant can be lost, and so can a result. Again every `retry_max_s`
    gone       its runner died, or has started again, or says that it does not run it: the start is lost;
               or its runner says that it never began, and never will: then it is void

A runner that this node has merely not met yet is waited for. What a start that is gone means for its job is
the scheduler's to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from edgenode.core.desk import Desk
from edgenode.core.jobs import Record
from edgenode.core.situations import Situation
from edgenode.core.types import FOREVER, Instant, JobId, NodeId, StartToken
from edgenode.core.view import Standing
from edgenode.core.wire import Has, Have, Stop, TokenItem


@dataclass(slots=True)
class Watched:
    """A start that runs on a peer, to be asked about now and then."""

    token: StartToken
    runner: NodeId
    boot: int
    ask_at: Instant


class Gone(NamedTuple):
    """A start that its runner does not run, though the job's record says so."""

    record: Record
    why: str = ""
    counted: bool = False  # whether that is held against the job
    is_void: bool = False  # it never began


class Away:
    """Drive it with starts and their ends, messages, membership changes and time. It returns those that are
    gone, and watches them no longer."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._table = desk.table
        self._watched: dict[JobId, Watched] = {}
        self._wake: Instant = FOREVER

    def watch(self, record: Record, ask_at: Instant) -> None:
        """The present start of this job is a peer's to run."""
        own = record.own
        self._watched[record.id] = Watched(own.token, own.runner, own.boot, ask_at)
        self._wake = min(self._wake, ask_at)

    def drop(self, job: JobId) -> None:
        """Its start is over, or not this owner's any more."""
        self._watched.pop(job, None)

    def stop(self, job: JobId, *, but: StartToken | None) -> None:
        """The job is over: its start is told to end, if it is not the one that ended it."""
        watched = self._watched.pop(job, None)
        if watched is not None and watched.token != but:
            self._desk.post.add(watched.runner, Stop, TokenItem(job, watched.token))

    def check(self, jobs: Iterable[JobId]) -> list[Gone]:
        """The starts of these jobs whose runners certainly do not run them any more."""
        gone: list[Gone] = []
        view = self._desk.view
        for job in jobs:
            watched, record = self._watched[job], self._table.peek(job)
            standing = view.standing(watched.runner)
            is_dead = standing in (Standing.SILENT, Standing.GONE)
            is_another = standing is Standing.LIVING and self._boot_of(watched.runner) != watched.boot
            if not (is_dead or is_another):
                continue
            del self._watched[job]
            if record is None or not self._is_present(record, watched.token) or record.outcome is not None:
                continue
            counted = not view.has_left(watched.runner)
            dead = Situation.RUNNER_GONE if counted else Situation.RUNNER_LEFT
            self._desk.reach(dead if is_dead else Situation.RUNNER_REBOOTED)
            gone.append(Gone(record, f"runner {watched.runner} is gone", counted))
        return gone

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
                watched.ask_at = self._desk.now + self._desk.settings.retry_max_s
        gone: list[Gone] = []
        for item in (*message.denied, *message.voids):
            watched, record = self._watched.get(item.job), self._table.peek(item.job)
            if watched is None or watched.token != item.token or watched.runner != source or record is None:
                continue
            if not self._is_present(record, item.token):
                continue
            del self._watched[item.job]
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
        return self.check([job for job, watched in self._watched.items() if watched.runner in changed])

    def deadline(self) -> Instant:
        return self._wake

    def on_time(self) -> list[Gone]:
        """Ask the runners when it is time for that. Returns what needs no question: it is gone."""
        desk = self._desk
        if self._wake > desk.now:
            return []
        gone = self.check([job for job, watched in self._watched.items() if watched.ask_at <= desk.now])
        self._wake = FOREVER
        asked: dict[NodeId, list[TokenItem]] = {}
        for job, watched in self._watched.items():
            if watched.ask_at <= desk.now:
                asked.setdefault(watched.runner, []).append(TokenItem(job, watched.token))
                watched.ask_at = desk.now + desk.settings.retry_max_s
            self._wake = min(self._wake, watched.ask_at)
        for runner, items in asked.items():
            for at in range(0, len(items), desk.settings.batch):
                desk.post.send(runner, Have(tuple(items[at : at + desk.settings.batch])))
        return gone
