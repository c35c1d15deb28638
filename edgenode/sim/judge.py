"""After the healing: what was acknowledged ends, everybody shows it alike, and the counts are true.

The numbers in violations, and where each is checked:

    I1 nothing acknowledged is lost        ledger      I10 attempts and losses have limits   here
    I2 nothing from nowhere                ledger      I11 one key, one job                  keylaw, here
    I3 every job ends                      here        I12 never early                       ledger, pausing
    I4 a settled result never changes      both        I13 a cancel that was asked for       ledger
    I5 each start has its own fence        ledger      I14 at most once                      ledger
    I6 no start too many                   both        I15 rest, memory, answers in time     rest, requests
    I7 jobs of the dead go on in time      liveness    I16 changes told without a gap        streams
    I8 nobody is dead who is slow          liveness    I17 what is replayed changes nothing  all of these
    I9 copies return to where they belong  here        I18 one seed, one trace               test_trial

What starts say has laws of its own, in `talk`: I2, and that what is kept of it is bounded (I15). So have
limits of queues (Q, in `queueing` and `counts`), and what only some nodes can run (L, in `abilities`). What
was tried again stays as it ended (I4, in `retries`).

Not here yet, since the core has none of it: streams with cursors, and ticks of schedules. That a busy node
refuses, and who may speak at all, belong to the shell and its tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from edgenode.core.job_ids import is_keyed, job_text
from edgenode.core.jobs import Record, is_claimed, is_marker, majority
from edgenode.core.joining import is_same_life, join
from edgenode.core.node import Node
from edgenode.core.quorums import fast_quorum_of, majority_of
from edgenode.core.specs import decode_spec
from edgenode.core.types import NO_BALLOT, TERMINAL, Delivery, JobId, NodeId, Partition, Seconds, State
from edgenode.sim.clients import read_everywhere
from edgenode.sim.clock import EPOCH
from edgenode.sim.disk import record_of
from edgenode.sim.faults import Mood
from edgenode.sim.keyed import Repetition
from edgenode.sim.keylaw import submission_of
from edgenode.sim.ledger import Value, agree
from edgenode.sim.machines import Life
from edgenode.sim.rest import Rest
from edgenode.sim.story import Story, short, token_text
from edgenode.sim.violation import Violation
from edgenode.sim.workers import Manner, manner_of
from edgenode.sim.world import World

LOOK_EVERY_S: Final = 0.5
MISSING_SHOWN: Final = 5
REPETITION_S: Final[Seconds] = 20.0


Check = Callable[[], bool]


class Judge:
    """Watches a healed world until all is well, or `bound_s` has passed."""

    def __init__(self, world: World, mood: Mood, *, wiped: bool) -> None:
        self._world = world
        self._mood = mood
        self._wiped = wiped
        self._pending: dict[Life, set[JobId]] = {}
        self._shown: dict[JobId, Value] = {}
        self._answers: dict[tuple[JobId, NodeId], Record] = {}

    def demand(self, bound_s: Seconds) -> None:
        """Run on until every promise is kept.

        Raises:
            Violation: it took longer than `bound_s` simulated seconds, or the end is wrong.
        """
        world, deadline = self._world, self._world.now + bound_s
        required = sorted(job for job in world.ledger.acked if self._must_end(job))
        if not world.run_until(deadline, self._every(lambda: not self._unfinished(required))):
            # A move decided only now can have made holders of disks that were damaged after it was proposed.
            required = [job for job in required if self._must_end(job)]
            self._demand_end(required, bound_s)
            deadline = world.now + bound_s
        asked: dict[NodeId, Life] = {}

        def all_shown() -> bool:
            for life in world.lives():
                if asked.get(life.id) is not life:
                    asked[life.id] = life
                    self._pending[life] = set(required)
            for jobs in self._pending.values():
                jobs -= {job for job in jobs if world.ledger.is_over(job)}
            self._pending = {life: jobs for life, jobs in self._pending.items() if life.alive and jobs}
            self._ask_again()
            read_everywhere(world, self._pending, self._answer)
            return not self._pending

        is_shown = world.run_until(deadline, self._every(all_shown))
        if not is_shown and self._unfinished(required):
            # It had ended as far as those could know who lived then. With those who came more can be decided.
            self._demand_end(required, bound_s)
            deadline = world.now + bound_s
            is_shown = world.run_until(deadline, self._every(all_shown))
        if not is_shown:
            missing = {short(life.id): len(jobs) for life, jobs in self._pending.items()}
            raise Violation(f"I4: after {bound_s:.0f} s not all show the end: {missing}; {self._unshown()}")
        self._check_agreement()
        self._check_counts()
        if not world.run_until(deadline, self._every(lambda: not self._misplaced(required))):
            found = "; ".join(self._misplaced(required)[:MISSING_SHOWN])
            raise Violation(f"I9: after {bound_s:.0f} s not all copies are where they belong: {found}")
        self._use_keys_again(required)

    def _demand_end(self, required: list[JobId], bound_s: Seconds) -> None:
        """What is not finished by now must wait for the dead, and end when they are forgotten."""
        if not self._wait_for_the_dead(required):
            raise Violation(f"I3: not finished in {bound_s:.0f} s after healing: {self._tell(required)}")

    def _use_keys_again(self, required: list[JobId]) -> None:
        """I11: of all lives of a key one is left; and a key that is used again is answered with its job, and
        starts nothing."""
        world = self._world
        keyed = [job for job in required if is_keyed(job) and not self._is_excused(job)]
        if not world.run_until(world.now + REPETITION_S, self._every(lambda: not self._divided(keyed))):
            raise Violation(f"I11: {'; '.join(map(self._tell_one, self._divided(keyed)))}")
        world.run_until(world.now + REPETITION_S, self._every(lambda: not self._may_die()))
        # What a slow disk holds back of an earlier use may start yet; no repetition is to blame for that.
        world.run_until(world.now + REPETITION_S, self._every(lambda: not world.has_open_uses))
        decided = [job for job in keyed if any(copy.settled for copy in self._copies(job))]
        repetition = Repetition(world, decided)
        if not world.run_until(world.now + REPETITION_S, self._every(repetition.is_over)):
            raise Violation(f"I11: no right answer to the repetition of {repetition.unanswered()}")

    def demand_rest(self) -> None:
        """After `demand`: nobody has anything more to do with what is settled, or keeps it in memory, or has
        not told of it."""
        done = [job for job in self._world.ledger.acked if self._is_settled(job)]
        Rest(self._world, done).demand()
        self._world.streams.check(self._world.lives())

    def _may_die(self) -> bool:
        """Whether a node is down, or may be taken down by a job: one that nobody was promised may go on."""
        world = self._world
        if any(machine.life is None and not machine.gone for machine in world.machines.values()):
            return True
        rows = (stored.row for disk in world.disks.values() for stored in disk.rows.values())
        open_jobs = (record for row in rows if (record := record_of(row)) and record.state not in TERMINAL)
        return any(manner_of(decode_spec(record.spec)) is Manner.POISON for record in open_jobs)

    def _is_settled(self, job: JobId) -> bool:
        """Whether all that have it say so, and no holder is away, who is to be told yet."""
        copies = list(self._copies(job))
        living = {life.id for life in self._world.lives()}
        return bool(copies) and all(copy.settled and living.issuperset(copy.holders) for copy in copies)

    def _every(self, look: Check) -> Check:
        """Look only now and then: a look costs more than a step."""
        due = self._world.now

        def done() -> bool:
            nonlocal due
            if self._world.now < due:
                return False
            due = self._world.now + LOOK_EVERY_S
            return look()

        return done

    # ----------------------------------------------------------------------------------- ends

    def _must_end(self, job: JobId) -> bool:
        """Whether P2 promises an end: a disk of the receipt survives, and of its holders one, or a majority
        where that is needed."""
        world = self._world
        if not world.ledger.survives(job):
            return False
        said = world.ledger.specs[job].options
        careful = said.delivery is Delivery.AT_MOST_ONCE or said.partition is Partition.WAIT
        is_undecided = is_keyed(job) and not any(map(is_claimed, self._copies(job)))
        if careful and is_undecided and not self._can_decide_key(job):
            return False  # it starts under a firm owner only, and nobody can be that
        return self._enough_live(job, careful=careful)

    def _majority_lives(self, job: JobId, life: Record | None = None) -> bool:
        return self._enough_live(job, life, careful=True)

    def _enough_live(self, job: JobId, life: Record | None = None, *, careful: bool) -> bool:
        """Whether enough of the newest holders speak for it: one, or of a careful job a majority.

        Args:
            life: under a key, which of the jobs that it may have.
        """
        copies = [copy for copy in self._copies(job) if life is None or is_same_life(life, copy)]
        newest = max(copies, key=lambda record: record.epoch, default=None)
        if newest is None:
            return True  # no copy at all: let it be found missing
        ledger, disks = self._world.ledger, self._world.disks
        last_day = ledger.specs[job].expires_at
        # By a clock that was far ahead a disk may have forgotten all jobs of that day before it had this one.
        living = [node for node in newest.holders if ledger.keeps(node, job)]
        taking = sum(disks[node].forgotten < last_day for node in living)
        return majority(taking, newest.holders) if careful else taking > 0

    def _copies(self, job: JobId) -> Iterable[Record]:
        for disk in self._world.disks.values():
            record = disk.record(job)
            if record is not None:
                yield record

    def _ended(self, job: JobId, record: Record) -> bool:
        if record.settled:
            return True
        can_settle = self._majority_lives(job, record) and (is_claimed(record) or self._can_decide_key(job))
        return record.state in TERMINAL and not can_settle

    def _can_decide_key(self, job: JobId) -> bool:
        """Whether a majority of all members, the dead included, can vote on the job's key. Who was told of
        others, and has met none, does not know that it is such a majority. And if it is decided, whether any
        holder has a disk that is not behind: else nobody may have the job, or decide otherwise, until they
        are gone."""
        holders = self._key_holders(job)
        if holders and all(node in self._world.disks and self._world.disks[node].behind for node in holders):
            return False
        members = set(self._world.ledger.keys.members())
        disks = {life.id: life.machine.disk for life in self._world.lives() if not _is_cut_off(life)}
        voting = {node for node, disk in disks.items() if not disk.behind and job not in disk.damaged}
        return len(voting & members) >= majority_of(len(members))

    def _key_holders(self, job: JobId) -> tuple[NodeId, ...]:
        """For whom a key was decided, if it was: by what the disks of most members have accepted."""
        rows = [row for disk in self._world.disks.values() if (row := disk.claim_rows.get(job))]
        uses = Counter((row.accepted, row.use) for row in rows)
        count = len(list(self._world.ledger.keys.members()))
        for (ballot, use), number in uses.items():
            if number >= (majority_of(count) if ballot > NO_BALLOT else fast_quorum_of(count)):
                return use.holders
        return ()

    def _stays_open(self, job: JobId) -> bool:
        """Whether its key will never be decided, so that each life of it keeps the end that it has."""
        return is_keyed(job) and not any(map(is_claimed, self._copies(job))) and not self._can_decide_key(job)

    def _unfinished(self, required: list[JobId]) -> list[JobId]:
        over = self._world.ledger.is_over
        return [
            job
            for job in required
            if not over(job) and not any(self._ended(job, copy) for copy in self._copies(job))
        ]

    def _wait_for_the_dead(self, required: list[JobId]) -> bool:
        """Some things wait for what dead members would say until they are forgotten."""
        world = self._world
        waits = (self._is_past_its_day, self._is_anothers, self._waits_for_who_left)
        if not all(any(why(job) for why in waits) for job in self._unfinished(required)):
            return False
        forgotten = world.now + world.settings.membership.dead_keep_s
        return world.run_until(forgotten, self._every(lambda: not self._unfinished(required)))

    def _is_past_its_day(self, job: JobId) -> bool:
        """It ends by the time of most members: who restarted after most had gone never heard their clocks."""
        spec = self._world.ledger.specs[job]
        return min(spec.expires_at, spec.options.deadline or spec.expires_at) <= EPOCH + self._world.now

    def _waits_for_who_left(self, job: JobId) -> bool:
        """A vote on its key is still expected of somebody who left, for all that this member has heard."""
        if not is_keyed(job) or any(map(is_claimed, self._copies(job))):
            return False
        keys, living = self._world.ledger.keys, [life.id for life in self._world.lives()]
        return any(not set(keys.known_to(node)) <= set(keys.members()) for node in living)

    def _is_anothers(self, job: JobId) -> bool:
        """Its key is used for something else, with somebody who is not there: he may have that job."""
        uses = {
            row.accepted: row.use for disk in self._world.disks.values() if (row := disk.claim_rows.get(job))
        }
        if not uses:
            return False
        latest = uses[max(uses)]
        living = {life.id for life in self._world.lives()}
        said = {submission_of(copy)[1] for copy in self._copies(job)}
        return latest.content not in said and not living.issuperset(latest.holders)

    def _answer(self, life: Life, record: Record) -> None:
        if not self._ended(record.id, record):
            return
        self._answers[record.id, life.id] = record
        if life in self._pending:
            self._pending[life].discard(record.id)

    def _ask_again(self) -> None:
        """Those who have shown an end as unsettled that was settled since, or gave way to another."""
        for life in self._world.lives():
            for (job, node), shown in self._answers.items():
                if node == life.id and not shown.settled and self._is_old(shown):
                    self._pending.setdefault(life, set()).add(job)

    def _is_old(self, shown: Record) -> bool:
        """Of a key that may have two jobs, the end of one says nothing of the other's."""
        assert shown.outcome is not None
        is_excused = shown.id in self._world.ledger.keys.excused
        copies = [copy for copy in self._copies(shown.id) if not is_excused or is_same_life(copy, shown)]
        ends = [copy.outcome for copy in copies if copy.outcome is not None]
        if self._stays_open(shown.id):
            return any(end.settled for end in ends)
        return any(end.settled or not agree(end.value, shown.outcome.value) for end in ends)

    def _tell(self, required: list[JobId]) -> str:
        missing = self._unfinished(required)
        told = [self._tell_one(job) for job in missing[:MISSING_SHOWN]]
        return f"{len(missing)} of {len(required)} jobs: " + "; ".join(told)

    def _tell_one(self, job: JobId) -> str:
        story: Story = self._world.story
        copies = {
            short(node): story.record(record)
            for node, disk in self._world.disks.items()
            if (record := disk.record(job)) is not None
        }
        receipt = ",".join(map(short, self._world.ledger.acked[job]))
        return f"{story.name(job)} {job_text(job)} acknowledged by {receipt}, on disks: {copies or 'NOWHERE'}"

    def _unshown(self) -> str:
        jobs = sorted(set().union(*self._pending.values()))
        return "; ".join(self._tell_one(job) for job in jobs[:MISSING_SHOWN])

    def _is_excused(self, job: JobId) -> bool:
        """Whether its key may have two jobs in the end."""
        return job in self._world.ledger.keys.excused or self._stays_open(job)

    # --------------------------------------------------------------------------------- copies

    def _divided(self, keyed: list[JobId]) -> list[JobId]:
        """Keys of which the living have copies of more than one life."""
        living = [life.machine.disk for life in self._world.lives() if not life.machine.disk.behind]
        found = []
        for job in keyed:
            copies = [record for disk in living if (record := disk.record(job))]
            if len({submission_of(copy) for copy in copies}) > 1:
                found.append(job)
        return found

    def _misplaced(self, required: list[JobId]) -> list[str]:
        """I9: settled jobs that a living holder lacks, that too few living nodes have, or that all holders
        and more spares have than R asks for (former holders apart: those point to the later ones)."""
        world = self._world
        settings = [life.machine.settings or world.settings for life in world.lives()] or [world.settings]
        least, most = (pick(each.jobs.replicas for each in settings) for pick in (min, max))
        living = {life.id: life.machine.disk for life in world.lives() if not life.resigned}
        living = {node: disk for node, disk in living.items() if not disk.behind}
        found = []
        for job in required:
            copies = {node: record for node, disk in living.items() if (record := disk.record(job))}
            settled = next((record for record in copies.values() if record.settled), None)
            if settled is None or world.ledger.is_over(job) or job in world.ledger.keys.excused:
                continue
            here = [node for node in settled.holders if node in living]
            lacking = [node for node in here if node not in copies or not copies[node].settled]
            spare = [
                node
                for node, copy in copies.items()
                if node not in settled.holders and all(ballot.owner != node for ballot, _ in copy.starts)
            ]
            spares_max = max(0, most - len(settled.holders))
            last_day = world.ledger.specs[job].expires_at
            taking = [node for node, disk in living.items() if node in copies or disk.forgotten < last_day]
            wanted = min(max(least, len(settled.holders)), len(taking))
            if lacking or len(copies) < wanted:
                found.append(
                    f"{self._tell_one(job)}, and {','.join(map(short, lacking)) or 'others'} lack it"
                )
            elif len(here) == len(settled.holders) and len(spare) > spares_max and not settled.epoch:
                found.append(f"{self._tell_one(job)}, and {','.join(map(short, spare))} need it no more")
        return found

    # --------------------------------------------------------------------------------- counts

    def _check_agreement(self) -> None:
        for (job, node), record in self._answers.items():
            assert record.outcome is not None
            value = record.outcome.value
            if not agree(self._shown.setdefault(job, value), value) and not self._is_excused(job):
                raise Violation(f"I4: {short(node)} shows {value} of {job_text(job)}, not {self._shown[job]}")

    def _check_counts(self) -> None:
        for job, starts in self._world.ledger.starts.items():
            copies = list(self._copies(job))
            if not copies:
                continue
            known = copies[0]
            for copy in copies[1:]:
                known = join(known, copy)
            if not self._wiped and not self._left():
                counted = dict(known.starts)
                forgot = self._world.ledger.forgotten[job]
                for token in starts:
                    if token.owner in forgot:
                        continue  # its day came there before anybody else had heard of the start
                    if counted.get(token.ballot, 0) < token.start:
                        raise Violation(f"P3: start {token_text(token)} of {job_text(job)} is not counted")
            self._check_bound(job, known)
            is_told = known.outcome is not None and not is_marker(known)
            if self._mood is not Mood.HURT and is_told and not self._is_excused(job):
                self._check_exact(job, known)

    def _left(self) -> bool:
        return any(machine.gone == "left" for machine in self._world.machines.values())

    def _check_bound(self, job: JobId, known: Record) -> None:
        """I6, I10: every owner may try as often as the options say, and no more."""
        said = decode_spec(known.spec).options
        ballots = {token.ballot for token in self._world.ledger.starts[job]}
        most = (said.max_attempts + said.max_losses) * len(ballots)
        if len(self._world.ledger.starts[job]) > most:
            count = len(self._world.ledger.starts[job])
            raise Violation(f"I6: {job_text(job)} started {count} times under {len(ballots)} owners")

    def _check_exact(self, job: JobId, known: Record) -> None:
        """I6 without faults: one start, and one more for each that failed or whose worker died. Those that a
        leaving node gave up after all may have been repeated; if one node died, one by each other owner. Who
        goes on without the only holder, which nobody could relieve when it left, cannot know how the job
        ended there, or what that one does when it is back (P2: a provisional owner): that may be one more
        each time, under another ballot, be it the stand-in's or, where that outbid it, one of its own."""
        starts = self._world.ledger.starts[job]
        lives = {(life.id, life.boot) for life in self._world.lives()}
        # What one that died had not told of the end of a start is lost with it. (If it is known after all,
        # it was only thought to be lost.)
        assert known.outcome is not None
        lost = {token for token in known.losses if token != known.outcome.token}
        cut_short = {
            token
            for token, start in starts.items()
            if start.cut_short or (token in lost and (start.node, start.boot) not in lives)
        }
        spoilt = sum(
            token in cut_short
            or start.lost
            or (start.verdict is not None and start.verdict.state is State.FAILED)
            for token, start in starts.items()
        )
        ended = known.state in (State.SUCCEEDED, State.CANCELLED)
        evicted = sum(start.evicted for start in starts.values())
        is_death = self._mood is Mood.DEATH
        takeovers = max(0, len({token.ballot for token in starts}) - 1) if is_death else 0
        others = len({ballot for ballot, _ in known.starts}) - 1
        apart = min(self._world.ledger.stranded[job], max(0, others))
        repeated = evicted + takeovers + apart
        is_cancelled = job in self._world.ledger.cancels
        if not is_cancelled and not 0 <= len(starts) - (spoilt + ended) <= repeated:
            raise Violation(f"I6: without faults {job_text(job)} had {len(starts)} starts, {spoilt} spoilt")
        # One that died may not have begun what was on its disk, or on its way to another; nor may one that
        # went on without the only holder, and gave way to it. Nor what was stopped before its turn.
        more = apart + is_death + self._world.ahead.stopped[job]
        if not len(starts) <= known.start_count <= len(starts) + more:
            raise Violation(f"I6: {job_text(job)} counts {known.start_count} starts of {len(starts)}")
        spec = decode_spec(known.spec)
        too_late = known.state is State.EXPIRED  # the ledger has seen that its deadline was over
        cut_short |= {token for token in known.losses if is_death and token not in starts}
        had_its_start = evicted and spec.options.delivery is Delivery.AT_MOST_ONCE
        if manner_of(spec) is Manner.GOOD and not (ended or too_late or cut_short or had_its_start):
            raise Violation(f"I6: without faults {job_text(job)} ended as {known.state}")


def _is_cut_off(life: Life) -> bool:
    return isinstance(life.core, Node) and life.core.view.is_cut_off
