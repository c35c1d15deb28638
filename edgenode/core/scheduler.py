"""Which of the jobs that this node owns may start, and what becomes of each start.

The day on which a job falls due, the lines in which it waits, its starts here or on a peer, verdicts, lost
runners. Which jobs leave the lines for which free slots is for `filling` to say, and `away` asks what became
of starts on peers. What runs here, for this owner or for others, is the runner's.

Task failures and lost runners are counted apart, both bounded: a job that kills its node must not walk down
the rank and kill the mesh.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from edgenode.core.agenda import Agenda
from edgenode.core.away import Away, Gone
from edgenode.core.desk import Desk
from edgenode.core.job_bytes import encode
from edgenode.core.jobs import (
    COUNTED_BALLOTS_MAX,
    TOKENS_MAX,
    Record,
    decided,
    deferred,
    failed_once,
    fallen_due,
    lost,
    majority,
    pardoned,
    started,
    voided,
    write_own,
)
from edgenode.core.lines import Lines, need_of, queue_gate
from edgenode.core.permits import Permits
from edgenode.core.queues import Queues
from edgenode.core.runner import Ended, Runner, Running
from edgenode.core.signals import RunEnded
from edgenode.core.situations import Situation
from edgenode.core.specs import Options, Spec, decode_spec, start_by
from edgenode.core.types import (
    FOREVER,
    NOBODY,
    Backoff,
    Delivery,
    Dice,
    Instant,
    JobId,
    Load,
    NodeId,
    Partition,
    Seconds,
    StartToken,
    State,
    Wall,
)
from edgenode.core.wire import (
    Copies,
    Grant,
    GrantItem,
    Has,
    Result,
    ResultItem,
    ResultTaken,
    Stop,
    TokenItem,
)

ATTEMPT_FAILED: Final = "attempt failed"
START_LOST: Final = "start lost"
CANCELLED: Final = "somebody asked for it"
EXPIRED: Final = "its deadline or last day passed before it could start"
EXPIRED_RUNNING: Final = "its last day passed while it ran"
WITHDRAWN: Final = "it ran for longer than the drain of its node may take"
GATE_MAX_S: Final[Seconds] = 5.0
"""How long a careful start waits for a majority to know of it: some repetitions of its write. It has a slot
and permits by then, which others could use."""
GATE_PAUSE_S: Final[Seconds] = 5.0
GATE_PAUSE_MAX_S: Final[Seconds] = 300.0
"""How long it is before such a job is tried again, at first, and at most: twice as long each time."""
LOOK_AGAIN_S: Final = 10.0
"""When a day that has come is looked at again by a node whose clock is not good enough to end a job."""


class Wait(Enum):
    """What a start that is stored as running still waits for."""

    ACKS = "the submission's acknowledgements"
    GATE = "its `running` being with the holders"


@dataclass(slots=True)
class Opening:
    token: StartToken
    runner: NodeId
    wait: Wait


class Scheduler:
    """Drive it with news of ownership, verdicts, messages and time; it answers through the desk."""

    def __init__(self, desk: Desk, runner: Runner, queues: Queues, permits: Permits) -> None:
        self._desk = desk
        self._table = desk.table
        self._runner = runner
        self._queues = queues
        self._permits = permits
        self.queued = Lines()
        """The jobs that wait only for a slot and for their gates (see core/filling.py)."""
        self._days: Agenda[JobId] = Agenda()  # unfinished jobs, by the day (mesh time) that changes them
        self._day: Wall = FOREVER  # noted last: the jobs of a batch share one object for theirs
        self._doubted: Agenda[JobId] = Agenda()  # whose day has come, if the clock is right
        self._is_sure = False  # of the time
        self._pauses: Agenda[JobId] = Agenda()  # jobs to be tried again, by when
        self._unacknowledged: dict[JobId, None] = {}  # submitted here, not yet on enough disks
        self._opening: dict[JobId, Opening] = {}
        self._gates: Agenda[JobId] = Agenda()  # careful starts that wait for a majority, and until when
        self._stranded: dict[JobId, None] = {}  # careful jobs of which too few holders live
        self._away = Away(desk)
        self._refused: dict[JobId, tuple[NodeId, Instant]] = {}
        """Who refused a start, and until when to believe it."""
        self._done = 0

    # ------------------------------------------------------------------------------- owned jobs

    def submitted(self, record: Record, *, at_once: bool) -> Record:
        """A job just made here. It runs when the submission is acknowledged.

        Args:
            at_once: a slot here is free for it: it is stored as running, if its owner's rules allow that.
        """
        self._unacknowledged[record.id] = None
        is_plain = record.own.state is State.QUEUED and not _is_strict(decode_spec(record.spec).options)
        if at_once and is_plain:
            record = self._reserve(record, self._desk.me, self._desk.view.boot, Wait.ACKS)
        return record

    def acknowledged(self, jobs: Iterable[JobId]) -> None:
        """The submission is on enough disks: a first start may follow."""
        for job in jobs:
            self._unacknowledged.pop(job, None)
            opening = self._opening.get(job)
            if opening is not None and opening.wait is Wait.ACKS:
                self._launch(job)
            elif opening is None:
                self.take_on((job,))

    def take_on(self, jobs: Iterable[JobId]) -> None:
        """This node owns these now, or firmly now: see to each what its state needs."""
        for job in jobs:
            record, lead = self._table.peek(job), self._table.acting(job)
            if record is None or lead is None:
                continue
            if record.outcome is not None:
                self._stop_on_peer(record)
                continue
            if lead.ballot.term > 1:
                self._unacknowledged.pop(job, None)
                record = self._use_kept_results(record)
                if record.outcome is not None:
                    continue
            is_running = record.own.state is State.RUNNING
            if is_running:
                spec = decode_spec(record.spec)
                self._permits.began(job, need_of(spec), spec.options.concurrency_limit)
                self._days.set(job, spec.expires_at)
            if record.cancel:
                self._desk.reach(Situation.CANCEL_INHERITED)
                self._watch(record)
                self._cancel(record)
            elif is_running:
                self._keep_or_lose(record)
            else:
                self._enrol(record)

    def _watch(self, record: Record) -> bool:
        """Whether a peer may be running the start that this record speaks of. It is watched then."""
        own = record.own
        is_away = (
            own.state is State.RUNNING and own.runner != self._desk.me and record.id not in self._opening
        )
        if is_away:
            self._away.watch(record, self._desk.now)
        return is_away

    def _stop_on_peer(self, record: Record) -> None:
        """The job is over, and who ended it may have died before it could tell its runner."""
        assert record.outcome is not None
        if record.own.token != record.outcome.token and self._watch(record):
            self._away.stop(record.id, but=record.outcome.token)

    def _keep_or_lose(self, record: Record) -> None:
        """Whether the start that the record speaks of is still run by somebody; if not, it is lost."""
        job, own, desk = record.id, record.own, self._desk
        opening = self._opening.get(job)
        if opening is not None and opening.token == own.token:
            # Asked again before it had begun: under the new ballot it needs the holders' word anew.
            if opening.wait is Wait.GATE or own.ballot.term > 1:
                opening.wait = Wait.GATE
                desk.gate_wanted.add(job)
        elif own.runner == desk.me:
            running = self._runner.get(job)
            if running is not None and running.token == own.token:
                if running.stopped:
                    self._lose(record, "stopped here", counted=True)
            elif own.boot == desk.view.boot and self._runner.rule_out(job, own.token):
                self._void(record)  # revoked here, or its grant never came: that comes too late now
            else:
                self._lose(record, "not running here", counted=True)
        else:
            self._away.watch(record, desk.now)
            self._write_off(self._away.check((job,)))

    def _use_kept_results(self, record: Record) -> Record:
        """What ended here while another owned the job: its verdict is for this owner to judge."""
        for item in self._runner.take_kept(record.id):
            if record.outcome is None:
                self._desk.reach(Situation.RESULT_WAS_KEPT)
                self._receive(record, item)
                record = self._table.peek(record.id) or record
        return record

    def _write_off(self, starts: Iterable[Gone]) -> None:
        """Starts that their runners do not run, and those that were to stop and do not run any more."""
        for gone in starts:
            if gone.is_void:
                self._void(gone.record)
            else:
                self._lose(gone.record, gone.why, counted=gone.counted)
        self._give_back_permits()

    def _give_back_permits(self) -> None:
        """Of the starts on peers that were told to stop, and have."""
        for job in self._away.take_stopped():
            self._permits.ended(job)

    def _owns_unfinished(self, record: Record) -> bool:
        return record.outcome is None and self._table.acting(record.id) is not None

    def _enrol(self, record: Record) -> None:
        """Queue a job that is neither running nor finished, note its day, or end it."""
        job, spec = record.id, decode_spec(record.spec)
        options = spec.options
        ends = start_by(spec)
        is_new = record.own.state is State.SCHEDULED and not record.starts
        day = min(ends, record.own.due_at) if is_new else ends
        if day != self._day:
            self._day = day
        self._days.set(job, self._day)
        if record.cancel:
            self._cancel(record)
        elif options.delivery is Delivery.AT_MOST_ONCE and record.start_count:
            # Only a firm owner may say so: on another side it may be running.
            lead = self._table.acting(job)
            if lead is not None and lead.firm:
                self._desk.reach(Situation.ONCE_ONLY_LOST)
                why = next((note.detail for note in reversed(record.history) if note.kind == START_LOST), "")
                error = f"its runner was lost{f' ({why})' * bool(why)}; delivery is at-most-once"
                self._end(record, State.FAILED, error=error)
            else:
                self._desk.reach(Situation.ONCE_ONLY_UNDECIDED)
        elif record.loss_count >= options.max_losses:
            self._desk.reach(Situation.POISON_STOPPED)
            error = f"lost its runner {record.loss_count} times (max_losses is {options.max_losses})"
            self._end(record, State.FAILED, error=error)
        elif record.failures and pause_ends(record) > max(record.own.due_at, self._desk.wall):
            self._desk.reach(Situation.PAUSE_OF_ANOTHER_LINE)
            record = deferred(record, due_at=pause_ends(record))
            self._write(record)
            self._pause(record)
        elif record.own.state is State.SCHEDULED and record.failures:
            self._pause(record)
        elif record.own.state is State.SCHEDULED:
            self._days.soon(job, record.own.due_at)
        elif record.own.state is State.QUEUED and job not in self.queued:  # nothing makes WAITING jobs yet
            place = (9 - options.priority, spec.submitted_at, job)
            self.queued.add(need_of(spec), place)

    def _pause(self, record: Record) -> None:
        # A pause is a duration: a clock that jumps, here or at the last owner, must not stretch it.
        wait_s = min(pause_s(record), max(0.0, record.own.due_at - self._desk.wall))
        self._pauses.soon(record.id, self._desk.now + wait_s)

    def release(self, jobs: Iterable[JobId]) -> None:
        """Owned no longer: leave the queues. What runs here goes on until a copy says otherwise."""
        for job in jobs:
            if self._table.acting(job) is not None:
                continue
            self.queued.drop(job)
            self._drop_days(job)
            self._away.drop(job)
            self._refused.pop(job, None)
            self._unacknowledged.pop(job, None)
            self._revoke(job)
            record = self._table.in_memory(job)  # (what rests does not run)
            if record is None or record.outcome is not None or record.own.state is not State.RUNNING:
                self._pass_on(job)
            else:
                self._permits.hand_over(job)

    def _revoke(self, job: JobId) -> None:
        """Give up a start that is stored but was not begun: it never may."""
        opening = self._opening.pop(job, None)
        self._gates.drop(job)
        if opening is not None:
            self._desk.reach(Situation.START_REVOKED)
            self._runner.deny(job, opening.token)
            if opening.runner == self._desk.me:
                self._runner.revoke(job)

    def react(self, jobs: Iterable[JobId]) -> None:
        """Copies changed: stop the starts that the record knows no more, honour cancels."""
        for job in jobs:
            record = self._table.peek(job)
            running = self._runner.get(job)
            if record is None:
                if running is not None and running.grant is None and self._table.get(job) is None:
                    self._stop(job, running, "its last day is over")
                continue
            # A copy may be older than a grant, but what this owner itself began it has in its own copy,
            # unless that gave way to another life of the key.
            is_known = running is not None and running.token.owner == self._desk.me
            if running is not None and (is_known or record.own.ballot >= running.token.ballot):
                if record.outcome is None and _is_wronged(record, running.token):
                    record = self._object(record, running.token)
                is_other = record.own.token != running.token
                is_other &= is_known or not _is_older(record, running.token)
                if record.outcome is not None or is_other:
                    self._stop(job, running, "superseded")
            if record.outcome is not None:
                self._revoke(job)
                self._away.stop(job, but=record.outcome.token)
                self.queued.drop(job)
                self._drop_days(job)
                self._pass_on(job)
            elif record.cancel and self._table.acting(job) is not None:
                self._cancel(record)
            elif record.failures and job in self.queued:
                self.queued.drop(job)
                self._enrol(record)  # one of them may be news, and have a pause

    def _object(self, record: Record, token: StartToken) -> Record:
        """Somebody took this node's silence for its death: the owner must not hold that against the job."""
        record = pardoned(record, token)
        self._table.put(record)
        if record.owner != self._desk.me:
            self._desk.post.add(record.owner, Copies, encode(record))
        return record

    def _stop(self, job: JobId, running: Running, reason: str) -> None:
        opening = self._opening.get(job)
        if opening is not None and opening.token == running.token:
            self._revoke(job)
        else:
            self._runner.stop(job, running, reason)

    # ------------------------------------------------------------------------------------- starts

    def was_refused(self, job: JobId, runner: NodeId) -> bool:
        """Whether a start of the job there was void, not long ago: it is for another node."""
        refused_by, until = self._refused.get(job, (NOBODY, 0.0))
        return refused_by == runner and until > self._desk.now

    def may_start(self, record: Record, spec: Spec) -> bool:
        """Whether the rules let an owner start this job now. If not it waits for news, or ends."""
        job, lead = record.id, self._table.acting(record.id)
        assert lead is not None
        if self._desk.wall >= start_by(spec):
            self._expire(record, start_by(spec))
            return False
        # `take_on` comes again when it is firm, `acknowledged` when enough disks have it, and the end of the
        # stopped start that still occupies its place here.
        waits = (_is_strict(spec.options) and not lead.firm) or job in self._unacknowledged
        return not waits and job not in self._runner and not self._is_stranded(record, spec)

    def _is_stranded(self, record: Record, spec: Spec) -> bool:
        """Whether a careful job lacks a majority of its holders. It is seen to again when members change."""
        if not _is_strict(spec.options):
            return False
        if majority(len(self._desk.living_holders(record)), record.holders):
            return False
        self._desk.reach(Situation.CAREFUL_JOB_STRANDED)
        self._stranded[record.id] = None
        return True

    def start(self, record: Record, runner: NodeId, boot: int) -> None:
        """Store a start, and order its run as soon as that may be. Its permits are taken."""
        options = decode_spec(record.spec).options
        gated = _is_strict(options) or record.own.ballot.term > 1
        record = self._reserve(record, runner, boot, Wait.GATE)
        if gated:
            self._write(record)
            if _is_strict(options):
                self._gates.set(record.id, self._desk.now + GATE_MAX_S)
            self._desk.gate_wanted.add(record.id)
            return
        if runner == self._desk.me:
            self._table.put(record)
            self._desk.begun.add(record.id)
        else:  # it would go on without this owner: who comes next is to know of it
            self._write(record)
        self._launch(record.id)

    def _reserve(self, record: Record, runner: NodeId, boot: int, wait: Wait) -> Record:
        spec = decode_spec(record.spec)
        record = started(record, runner=runner, boot=boot, at=round(self._desk.wall, 3))
        if runner == self._desk.me:
            self._runner.reserve(record.id, record.own.token, spec)
        self._permits.began(record.id, need_of(spec), spec.options.concurrency_limit)
        self._opening[record.id] = Opening(record.own.token, runner, wait)
        self._days.set(record.id, spec.expires_at)
        return record

    def gated(self, jobs: Iterable[JobId]) -> None:
        """`running` is where it has to be before the run."""
        for job in jobs:
            if job in self._opening:
                self._launch(job)

    def _give_up_gate(self, job: JobId) -> None:
        """No majority knows of this start, which has not begun: others may have its slot and permits."""
        record, opening = self._table.peek(job), self._opening.get(job)
        if record is None or opening is None or not self._owns_unfinished(record):
            return
        if len(record.voids) >= TOKENS_MAX // 2:
            return  # what is not counted any more would pass for a start that began: this one waits on
        self._desk.reach(Situation.GATE_GIVEN_UP)
        pause_s = min(GATE_PAUSE_MAX_S, GATE_PAUSE_S * 2.0 ** len(record.voids))
        self._revoke(job)
        self._void(record, pause_s=pause_s)

    def _launch(self, job: JobId) -> None:
        """Order the run. It leaves after the Persist that says so."""
        opening, record = self._opening.pop(job), self._table.peek(job)
        self._gates.drop(job)
        assert record is not None
        assert record.own.token == opening.token
        view, is_late = self._desk.view, self._desk.wall >= start_by(decode_spec(record.spec))
        if is_late:
            self._desk.reach(Situation.LATE_FOR_DEADLINE)
        # Who was to run it may have gone meanwhile: nothing has begun that could be lost with it.
        runs_here = opening.runner == self._desk.me
        is_there = view.is_living(opening.runner) and view.boot_of(opening.runner) == record.own.boot
        if is_late or not (runs_here or is_there):
            self._opening[job] = opening
            self._revoke(job)
            self._void(record)
            return
        if runs_here:
            self._runner.begin(job, opening.token, record)
        else:
            item = GrantItem(job, opening.token, record.own.boot, encode(record))
            self._desk.post.add(opening.runner, Grant, item)
            self._away.watch(record, self._desk.now + self._desk.settings.retry_max_s)

    # --------------------------------------------------------------------------------------- ends

    def _write(self, record: Record) -> None:
        self._table.put(record)
        self._desk.written.add(record.id)

    def _end(self, record: Record, state: State, *, error: str = "", item: ResultItem | None = None) -> None:
        """The job is over, as far as this owner can say."""
        job, lead = record.id, self._table.acting(record.id)
        assert lead is not None
        running = self._runner.get(job)
        if running is not None and (item is None or running.token != item.token):
            self._stop(job, running, state)
        self._away.stop(job, but=None if item is None else item.token)
        self.queued.drop(job)
        self._drop_days(job)
        self._revoke(job)
        self._pass_on(job)
        if item is None:
            record = decided(record, state, firm=lead.firm, at=round(self._desk.wall, 3), error=error)
        else:
            record = decided(
                record,
                state,
                firm=lead.firm,
                at=item.finished_at,
                result=item.verdict.result,
                error=item.verdict.error,
                token=item.token,
                runner=item.runner,
                failed=state is State.FAILED,
            )
        self._write(record)
        self._done += 1

    def _cancel(self, record: Record) -> None:
        """A client asked for it. What runs is told to end, and killed if it does not; what it says by then
        comes too late."""
        is_running = record.own.state is State.RUNNING
        self._desk.reach(Situation.CANCELLED_RUNNING if is_running else Situation.CANCELLED_WAITING)
        self._end(record, State.CANCELLED, error=CANCELLED)

    def _judge(self, record: Record, item: ResultItem) -> None:
        """What a verdict on the present start, or the success of an earlier one, means for the job."""
        spec, verdict, desk = decode_spec(record.spec), item.verdict, self._desk
        if item.lost:
            self._lose(record, verdict.error, counted=item.counted)
        elif verdict.state is not State.FAILED:
            self._end(record, verdict.state, item=item)
        elif verdict.final or record.failure_count + 1 >= _attempts_max(spec.options):
            self._end(record, State.FAILED, item=item)
        else:
            self._away.drop(record.id)
            delay = verdict.retry_after_s
            if delay < 0:
                delay = backoff_s(spec.options.backoff, record.failure_count + 1, desk.dice)
            due_at = round(desk.wall + delay, 3)
            note = desk.note(ATTEMPT_FAILED, verdict.error[:500], until=due_at)
            record = failed_once(record, due_at=due_at, note=note)
            self._pass_on(record.id)
            self._write(record)
            self._enrol(record)

    def _lose(self, record: Record, why: str, *, counted: bool) -> None:
        """The runner of the present start is gone: queue the job again, within its limits."""
        self._away.drop(record.id)
        self._opening.pop(record.id, None)
        token, runner = record.own.token, record.own.runner
        if runner != self._desk.me and self._desk.view.is_living(runner):
            self._desk.post.add(runner, Stop, TokenItem(record.id, token))
        self._pass_on(record.id)
        record = lost(record, counted=counted, note=self._desk.note(START_LOST, why))
        self._write(record)
        self._enrol(record)

    def _void(self, record: Record, *, pause_s: Seconds = 0.0) -> None:
        """The present start never began: as if it had not been. The next one may be after a pause."""
        self._away.drop(record.id)
        self._opening.pop(record.id, None)
        if record.own.runner != self._desk.me:
            self._refused[record.id] = (record.own.runner, self._desk.now + self._desk.settings.retry_max_s)
        self._desk.reach(Situation.START_VOID)
        self._pass_on(record.id, is_void=True)
        record = voided(record)
        self._write(record)
        self._enrol(record)
        if pause_s:
            self.queued.drop(record.id)
            self._pauses.soon(record.id, self._desk.now + pause_s)

    def _pass_on(self, job: JobId, *, is_void: bool = False) -> None:
        """The start of a job is over, or will be when its worker has ended, here or on the peer that was told
        to stop it: then another may start."""
        if job not in self._runner and not self._away.is_stopping(job):
            self._permits.ended(job, is_void=is_void)

    def run_ended(self, event: RunEnded) -> None:
        """A worker here finished with a start: judged at once by an owner, else sent to whoever owns."""
        ended = self._runner.ended(event)
        if ended is None:
            return
        job, record = event.job, self._table.peek(event.job)
        if not ended.begun:
            if record is not None and self._owns_unfinished(record) and record.own.token == event.token:
                self._void(record)
            self._runner.give_back(ended, record)
        elif ended.withdrawn and event.verdict.state is not State.SUCCEEDED:
            self._take_back(ended, record)
        elif record is not None and self._table.acting(job) is not None:
            if record.outcome is None:
                self._receive(record, ended.item)
            if record.outcome is None and record.own.state is not State.RUNNING:
                self.take_on((job,))  # it waited for this start's place here
        elif record is None or record.outcome is None:
            self._runner.keep(ended, record)
        elif ended.stopped:
            self._runner.disown(job, event.token, ended.grant, record)
        record = self._table.peek(job)
        if record is None or not self._owns_unfinished(record) or record.own.state is not State.RUNNING:
            self._permits.ended(job)

    def _take_back(self, ended: Ended, record: Record | None) -> None:
        """A start that was stopped here because the node drains is over: its job is for others to run."""
        job, token = ended.item.job, ended.item.token
        if self._table.acting(job) is None:
            self._runner.disown(job, token, ended.grant, record)
        elif record is not None and record.outcome is None:
            if record.own.token == token:
                self._lose(record, WITHDRAWN, counted=False)
            elif record.own.state is not State.RUNNING:
                self.take_on((job,))

    def _receive(self, record: Record, item: ResultItem) -> None:
        """A verdict reached the owner of an unfinished job."""
        if not item.lost and _is_wronged(record, item.token):
            record = write_own(pardoned(record, item.token))
            self._write(record)
        if record.own.token == item.token:
            self._judge(record, item)
        elif item.verdict.state is State.SUCCEEDED and not item.lost:
            # A start that was called lost finished after all: its result counts while there is no other. Not
            # that of another submission under this key, with other content.
            if item.fingerprint == decode_spec(record.spec).options.fingerprint:
                self._desk.reach(Situation.LOST_START_SUCCEEDS)
                self._judge(record, item)

    # ------------------------------------------------------------------------------------- messages

    def on_has(self, source: NodeId, message: Has) -> None:
        self._write_off(self._away.on_has(source, message))

    def on_stop(self, source: NodeId, items: Sequence[TokenItem]) -> None:
        for item in items:
            running, record = self._runner.get(item.job), self._table.peek(item.job)
            if record is not None and self._owns_unfinished(record) and record.own.token == item.token:
                # This owner has not heard of the one who says so. A copy will tell, and then the start is
                # stopped as one that does not count; until then how it ends would pass for the job's end.
                continue
            if running is not None and running.token == item.token:
                self._stop(item.job, running, "superseded")
            elif not self._runner.tell_of_kept(source, item):
                self._runner.rule_out_for(source, item)

    def on_results(self, source: NodeId, items: Sequence[ResultItem]) -> None:
        """Results of starts that ran elsewhere. Thanks follow when they are on enough disks."""
        desk = self._desk
        records = self._table.get_many([item.job for item in items])
        for item in items:
            record = self._table.peek(item.job) or records.get(item.job)
            if record is None or not item.token.term:
                continue  # (what has not begun has no result)
            self._away.has_stopped(item.job, item.token)
            if record.settled:
                desk.reach(Situation.RESULT_ALREADY_SETTLED)
                desk.post.add(item.runner, ResultTaken, TokenItem(item.job, item.token))
            elif self._table.acting(item.job) is not None:
                if record.outcome is None:
                    self._receive(record, item)
                desk.thanks_due.append((item.job, item.token, item.runner))
            elif source == item.runner and record.owner not in (desk.me, source):
                desk.reach(Situation.RESULT_PASSED_ON)
                desk.post.add(record.owner, Result, item)  # one hop: whoever has it will thank the runner
        self._give_back_permits()

    # ------------------------------------------------------------------------------- members and time

    def members_changed(self, changed: frozenset[NodeId]) -> None:
        self._write_off(self._away.members_changed(changed))
        stranded, self._stranded = self._stranded, {}
        self.take_on(stranded)

    def deadline(self) -> Instant:
        soonest = self._away.deadline()
        day = self._days.next()
        if day < FOREVER:
            soonest = min(soonest, self._desk.now + max(0.001, day - self._desk.wall))
        return min(soonest, self._doubted.next(), self._pauses.next(), self._gates.next())

    def on_time(self) -> None:
        desk = self._desk
        due = self._days.take_due(desk.wall, desk.settings.batch)
        self._table.fetch(due)
        for job in due:
            self._fall_due(job)
        was_sure, self._is_sure = self._is_sure, desk.sure_wall > -FOREVER
        all_of_them = self._is_sure and not was_sure  # as soon as this node knows what time it is
        self.take_on(self._doubted.take_due(desk.now + LOOK_AGAIN_S * all_of_them))
        for job in self._pauses.take_due(desk.now):
            self._fall_due(job)
        for job in self._gates.take_due(desk.now):
            self._give_up_gate(job)
        self._write_off(self._away.on_time())

    def _fall_due(self, job: JobId) -> None:
        """A day or a pause of this job is over: it may start, or it may not any more."""
        record = self._table.peek(job)
        if record is None or not self._owns_unfinished(record):
            return
        spec = decode_spec(record.spec)
        is_running = record.own.state is State.RUNNING
        ends_at = spec.expires_at if is_running else start_by(spec)
        if self._desk.wall >= ends_at:
            self._expire(record, ends_at)
        elif record.own.state is State.SCHEDULED:
            self._write(fallen_due(record))
            self.take_on((job,))
        else:
            self.take_on((job,))  # its day was put off: the clock was set back

    def _drop_days(self, job: JobId) -> None:
        for days in (self._days, self._doubted, self._pauses):
            days.drop(job)

    def _expire(self, record: Record, day: Wall) -> None:
        """The day has come after which this job may not start, or not even run. Only a node whose clock can
        be trusted ends it; another one hands it to somebody who can."""
        if day <= self._desk.sure_wall:
            self._desk.reach(Situation.EXPIRED)
            running = record.own.state is State.RUNNING
            self._end(record, State.EXPIRED, error=EXPIRED_RUNNING if running else EXPIRED)
        else:
            self._desk.reach(Situation.EXPIRY_LEFT_TO_OTHERS)
            self.queued.drop(record.id)
            self._doubted.set(record.id, self._desk.now + min(LOOK_AGAIN_S, day - self._desk.sure_wall))
            if self._desk.clock.is_far:  # else nobody knows better
                self._desk.clock_wanted.add(record.id)

    # ------------------------------------------------------------------------------------ for others

    def load(self) -> Load:
        owned, free = len(self._table.leads), max(0, self._runner.free.slots)
        # What is in a paused queue is not looked for by anybody who is idle.
        queued = len(self.queued) - sum(self.queued_in(queue) for queue in self._queues.paused)
        return Load(owned, queued, len(self._runner), self._done, free, self._desk.taken_over)

    def by_queue(self) -> dict[str, tuple[int, int]]:
        """How many of this owner's jobs wait, and how many run or are about to, in each queue."""
        queued, running = self.queued.by_queue(), self._permits.running()
        return {name: (queued.get(name, 0), running.get(name, 0)) for name in {**queued, **running}}

    def queued_in(self, queue: str) -> int:
        """How many jobs of this owner wait in a queue for their start."""
        return self.queued.behind(queue_gate(queue))

    def stop_all(self) -> None:
        """The node ends by somebody's wish: what runs is stopped, and that is not held against the jobs."""
        for job, token in self._runner.starts():
            running, record = self._runner.get(job), self._table.peek(job)
            assert running is not None
            self._stop(job, running, "the node was stopped")
            if self._table.acting(job) is None:
                self._runner.disown(job, token, running.grant, record)
            elif record is not None and record.outcome is None and record.own.token == token:
                self._lose(record, "the node was stopped", counted=False)

    def withdraw(self, reason: str) -> None:
        """What runs here has had its time: it is stopped, and given up when its worker has ended."""
        for job, token in self._runner.starts():
            running, record = self._runner.get(job), self._table.peek(job)
            assert running is not None
            opening = self._opening.get(job)
            if opening is not None and opening.token == token:
                self._revoke(job)
                if record is not None and self._owns_unfinished(record) and record.own.token == token:
                    self._void(record)
            elif not running.stopped:
                self._desk.reach(Situation.DRAIN_GAVE_UP_START)
                running.withdrawn = True
                self._runner.stop(job, running, reason)

    def give_up(self, permits: Permits) -> tuple[Runner, Scheduler]:
        """The disk refused a write: what runs here is stopped.

        That counts against those jobs, as any lost runner does: a job that fills the disk of one node after
        another must be stopped by its limit.

        Returns: both without memory, for the next life.
        """
        reserved = {(job, opening.token) for job, opening in self._opening.items()}
        runner = self._runner.give_up(start for start in self._runner.starts() if start not in reserved)
        return runner, Scheduler(self._desk, runner, self._queues, permits)


def _is_older(record: Record, token: StartToken) -> bool:
    """Whether a copy was written before this start, by the same owner: it says nothing against it."""
    return record.own.ballot == token.ballot and dict(record.starts).get(token.ballot, 0) < token.start


def _is_wronged(record: Record, token: StartToken) -> bool:
    """Whether this start counts as one that was lost with its runner."""
    return token in record.losses and token not in record.pardons


def _is_strict(options: Options) -> bool:
    """Jobs that start under a firm owner only, and after a majority knows of the start."""
    return options.delivery is Delivery.AT_MOST_ONCE or options.partition is Partition.WAIT


def _attempts_max(options: Options) -> int:
    # More failures than are counted would never be reached.
    most = min(options.max_attempts, COUNTED_BALLOTS_MAX)
    return 1 if options.delivery is Delivery.AT_MOST_ONCE else most


def pause_ends(record: Record) -> Wall:
    """The day before which no failure that the history knows of lets the job start again; 0 if there is none.

    Of two lines of owners, one on each side of a cut, only one stands, with its own days: what the other has
    heard from the task is in the history alone.
    """
    return max((note.until for note in record.history), default=0.0)


def pause_s(record: Record) -> Seconds:
    """How long the owner that noted the present pause wanted to wait: both days are by its clock. FOREVER if
    so much has happened since that the history has forgotten it: then only the day is known."""
    until = record.own.due_at
    return max((note.until - note.at for note in record.history if note.until == until), default=FOREVER)


def backoff_s(backoff: Backoff, failures: int, dice: Dice) -> Seconds:
    """How long to wait after the `failures`-th failure (>= 1), in seconds.

    Exponential waits are drawn evenly from 0 to min(cap, base * 2^(failures - 1)): "full jitter" spreads a
    crowd that failed together (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
    """
    assert failures >= 1
    if backoff.kind == "constant":
        return min(backoff.cap_s, backoff.base_s)
    return dice.uniform(0.0, min(backoff.cap_s, backoff.base_s * 2.0 ** min(failures - 1, 60)))
