"""Directed stories on production cores: verbs to say who does what, when, and what gets lost.

    story = Scenario("abc")
    story.submit("j", at="a", holders="abc")       # a owns it, being first
    story.until(lambda: story.runs("j"))
    story.kill("a")
    story.until(lambda: story.runner("j") == "b")
    story.finish("j")
    story.heal_and_judge()

Tasks end only when told to, so a story is about the order of things and never about their duration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from edgenode.core.errors import EdgeNodeError
from edgenode.core.job_ids import keyed_job_id, make_job_id
from edgenode.core.jobs import Record
from edgenode.core.node import Node
from edgenode.core.rendezvous import Ranking
from edgenode.core.reports import told_of
from edgenode.core.settings import Settings
from edgenode.core.signals import (
    CancelAsked,
    CancelDone,
    ReadAsked,
    ReadDone,
    Receipt,
    ReportsAsked,
    ReportsDone,
    Run,
    StopAsked,
    SubmitAsked,
    SubmitDone,
)
from edgenode.core.situations import Situation
from edgenode.core.specs import Options, Spec
from edgenode.core.types import Drain, JobId, NodeId, Seconds, StartToken
from edgenode.core.wire import Change, Message, Wish
from edgenode.sim.clock import EPOCH
from edgenode.sim.disk import Disk, record_of
from edgenode.sim.faults import Mood
from edgenode.sim.judge import Judge
from edgenode.sim.keyed import submit
from edgenode.sim.machines import Life, Machine, MakeCore, node_id
from edgenode.sim.requests import Answer
from edgenode.sim.story import Story, short
from edgenode.sim.timeline import Action
from edgenode.sim.violation import Violation
from edgenode.sim.workers import TASK, WORKER_DIED, Manner, payload, raised, success
from edgenode.sim.world import World

FORM_S: Final[Seconds] = 2.0
"""How long a mesh gets to form before the story begins."""
PATIENCE_S: Final[Seconds] = 30.0
"""How long `until` waits, unless told otherwise."""
IDS_TRIED: Final = 100_000
"""Far more than the orders in which a handful of nodes can rank."""
UNFINISHED_S: Final = 7 * 86_400.0
USE_S: Final[Seconds] = 20.0
"""How long somebody who uses a key waits for an answer."""


class Use:
    """One use of an idempotency key, and what was said of it."""

    def __init__(self) -> None:
        self.receipt: Receipt | None = None

    def told(self, receipt: Receipt) -> None:
        self.receipt = receipt

    @property
    def answer(self) -> str:
        """ "taken", "replayed", the name of an error, or "" while nothing was said."""
        if self.receipt is None:
            return ""
        if self.receipt.error is not None:
            return self.receipt.error.slug
        return "replayed" if self.receipt.replayed else "taken"


class Scenario:
    """A mesh of nodes with one-letter names, all of which know each other and are ready."""

    def __init__(
        self,
        names: str,
        make_core: MakeCore,
        *,
        settings: Settings | None = None,
        slots: int = 4,
        async_slots: int = 0,
    ) -> None:
        self.world = World("scenario", make_core, settings=settings, story=Story(whole=True))
        self.world.network.rule = self._is_kept
        self.world.on_run = self._hold_run
        self.world.on_sync = self._hold_sync
        self.world.on_forfeit = lambda why: None  # a story says itself what must not come of it
        self._dice = self.world.random("scenario")
        self._jobs: dict[str, JobId] = {}
        self._receipts: dict[str, Receipt] = {}
        self._keys: dict[str, str] = {}  # as people write them
        self._noted: set[JobId] = set()
        self._running: dict[tuple[JobId, StartToken], Life] = {}
        self._lost: list[tuple[type[Message], str, str]] = []
        self._kept: list[tuple[NodeId, NodeId, Message]] = []
        self._sent: list[tuple[NodeId, NodeId, Message]] = []
        self._slow: dict[NodeId, list[Action]] = {}
        self._holds_runs = True
        self._wiped = False
        for name in names:
            self.world.add(name, slots=slots, async_slots=async_slots)
        for machine in self.world.machines.values():
            machine.seeds = frozenset(self.world.machines) - {machine.id}
            self.world.start(machine)
        self.wait(FORM_S)

    # ------------------------------------------------------------------------------------ time

    def wait(self, for_s: Seconds) -> None:
        self.world.run_until(self.world.now + for_s)

    def until(self, condition: Callable[[], object], within_s: Seconds = PATIENCE_S) -> None:
        """Let the world go on until it is so.

        Raises:
            AssertionError: it was not so within `within_s` simulated seconds.
        """
        came = self.world.run_until(self.world.now + within_s, lambda: bool(condition()))
        assert came, "it never came to that:\n" + "\n".join(self.world.story.lines())

    # ------------------------------------------------------------------------------------ jobs

    def submit(
        self,
        job: str,
        *,
        at: str,
        holders: str,
        acks: int = 0,
        options: Options | None = None,
        lasts_s: Seconds = UNFINISHED_S,
        task: str = TASK,
    ) -> None:
        """Submit a job whose rank begins with `holders`; the first of them owns it by being named."""
        wall = EPOCH + self.world.now
        spec = Spec(
            self._ranked(holders),
            task,
            payload(Manner.GOOD, 0.0),
            wall,
            wall + lasts_s,
            replace(options or Options(), acks=acks),
        )
        self._jobs[job] = spec.id
        self.world.ledger.submitted((spec,))
        self.world.story.name(spec.id)

        def answered(answer: Answer) -> None:
            assert isinstance(answer, SubmitDone)
            self._receipts[job] = answer.receipts[0]

        self.world.ask(self._life(at), lambda request: SubmitAsked(request, (spec,), 20.0), answered)

    def _ranked(self, holders: str) -> JobId:
        """An id for which the machines rank as wanted."""
        ids = (make_job_id(EPOCH + self.world.now, self._dice.randbytes(10)) for _ in range(IDS_TRIED))
        return next(job for job in ids if self._ranks(job, holders))

    def _ranks(self, job: JobId, holders: str) -> bool:
        ranking = Ranking({machine.id: 1.0 for machine in self.world.machines.values() if not machine.gone})
        return [short(node) for node in ranking.rank(job)[: len(holders)]] == [*holders]

    def choose_key(self, key: str, *, holders: str) -> None:
        """From now on stories call a key by this name for whose job the machines that are there rank so."""
        names = (f"{key} {number}" for number in range(IDS_TRIED))
        self._keys[key] = next(name for name in names if self._ranks(keyed_job_id(name), holders))
        self._jobs[key] = keyed_job_id(self._keys[key])

    def use_key(self, key: str, *, at: str, content: str = "this", options: Options | None = None) -> Use:
        """Submit something under a key; what comes of it is in the answer, later."""
        wall = EPOCH + self.world.now
        said = replace(options or Options(), key=self._keys[key], fingerprint=content)
        spec = Spec(self._jobs[key], TASK, payload(Manner.GOOD, 0.0), wall, wall + UNFINISHED_S, said)
        use = Use()
        submit(self.world, self._life(at), spec, USE_S, use.told, lambda: None)
        return use

    def is_acknowledged(self, job: str) -> bool:
        return job in self._receipts and self._receipts[job].error is None

    def receipt(self, job: str) -> set[str]:
        """Who the receipt names."""
        return {short(node) for node in self._receipts[job].nodes}

    def runs(self, job: str) -> list[tuple[str, StartToken]]:
        """The starts that are running now, oldest first."""
        wanted = self._jobs[job]
        return [
            (short(life.id), token)
            for (each, token), life in self._running.items()
            if each == wanted and life.alive and (each, token) in life.running
        ]

    def runner(self, job: str) -> str:
        """Who runs the latest start; "" if nobody does."""
        running = self.runs(job)
        return running[-1][0] if running else ""

    def starts(self, job: str) -> int:
        """How often it was started, ever."""
        return len(self.world.ledger.starts[self._jobs[job]])

    def finish(self, job: str, *, on: str = "") -> None:
        """Its latest start (or the one on this node) returns."""
        life, token = self._start(job, on)
        self.world.run_ends(life, self._jobs[job], token, success(token, life.id), lost=False)

    def fail(
        self, job: str, *, retry_after_s: Seconds | None = None, final: bool = False, on: str = ""
    ) -> None:
        """Its latest start raises, or asks to be tried again after a while."""
        life, token = self._start(job, on)
        verdict = raised(token)._replace(final=final)
        if retry_after_s is not None:
            verdict = verdict._replace(retry_after_s=retry_after_s)
        self.world.run_ends(life, self._jobs[job], token, verdict, lost=False)

    def lose_worker(self, job: str, *, on: str = "") -> None:
        """The worker of its latest start (or of the one on this node) dies."""
        life, token = self._start(job, on)
        self.world.run_ends(life, self._jobs[job], token, WORKER_DIED, lost=True)

    def say(self, job: str, text: str, *, on: str = "", fraction: float = -1.0) -> None:
        """Its latest start (or the one on this node) says something."""
        life, token = self._start(job, on)
        self.world.talk.say(
            life, self._jobs[job], token, size=len(text), fraction=fraction, text=text.encode()
        )

    def log(self, job: str, *, at: str) -> list[tuple[str, str]]:
        """Ask a node what its starts said: who ran each, and its text."""
        answers: list[ReportsDone] = []

        def answered(answer: Answer) -> None:
            assert isinstance(answer, ReportsDone)
            answers.append(answer)

        wanted = self._jobs[job]
        self.world.ask(
            self._life(at), lambda request: ReportsAsked(request, wanted, (), False, 3.0), answered
        )
        self.until(lambda: answers)
        return [
            (short(told.last.runner), b"".join(text for _, text in told.pieces).decode())
            for told in told_of(answers[0].items)
        ]

    def _start(self, job: str, on: str) -> tuple[Life, StartToken]:
        where, token = [run for run in self.runs(job) if not on or run[0] == on][-1]
        return self._life(where), token

    def cancel(self, job: str, *, at: str, holders: str) -> None:
        """A client asks for its end, at a node that knows who holds it."""
        wish = ((self._jobs[job], tuple(map(node_id, holders))),)
        self.world.ledger.cancel_asked(self._jobs[job])

        def answered(answer: Answer) -> None:
            assert isinstance(answer, CancelDone)
            self._noted.update(answer.jobs)

        self.world.ask(self._life(at), lambda request: CancelAsked(request, wish, 10.0), answered)

    def is_cancel_noted(self, job: str) -> bool:
        """Whether that client was told that its wish is safe."""
        return self._jobs[job] in self._noted

    def copy(self, job: str, at: str) -> Record | None:
        """What this node's disk has of it."""
        return record_of(self.machine(at).disk.row(self._jobs[job]))

    def read(self, job: str, at: str) -> Record | EdgeNodeError:
        """Ask a node for it, as a client does, and wait for the answer."""
        answers: list[ReadDone] = []
        self.ask_for(job, at, answers)
        self.until(lambda: answers)
        wanted = self._jobs[job]
        return answers[0].records.get(wanted) or answers[0].errors[wanted]

    def ask_for(self, job: str, at: str, answers: list[ReadDone]) -> None:
        """Ask a node for it, as a client does; what it answers comes into this list."""

        def answered(answer: Answer) -> None:
            assert isinstance(answer, ReadDone)
            answers.append(answer)

        wanted = (self._jobs[job],)
        self.world.ask(self._life(at), lambda request: ReadAsked(request, wanted, 0.0, 3.0), answered)

    def is_told(self, job: str) -> bool:
        """Whether anybody was told that it is settled."""
        return self._jobs[job] in self.world.ledger.told

    @property
    def reached(self) -> frozenset[Situation]:
        """What the nodes have come into so far."""
        return self.world.reached

    # ---------------------------------------------------------------------------------- people

    def machine(self, name: str) -> Machine:
        return self.world.machines[node_id(name)]

    def _life(self, name: str) -> Life:
        life = self.machine(name).life
        assert life is not None, f"{name} does not live"
        return life

    def kill(self, *names: str) -> None:
        """kill -9: the port refuses at once, and nothing unsynced has reached the disk."""
        for name in names:
            self.world.end(self.machine(name), "is killed", silent=False, survivors=0)

    def power_off(self, *names: str) -> None:
        """Silence: no reset, no refusal."""
        for name in names:
            self.world.end(self.machine(name), "loses power", silent=True, survivors=0)

    def restart(self, *names: str) -> None:
        for name in names:
            self.world.start(self.machine(name))

    def restart_with(self, replicas: int, *names: str) -> None:
        """One after the other is killed, and started with another R."""
        for name in names:
            settings = self.world.settings
            self.kill(name)
            self.machine(name).settings = replace(settings, jobs=replace(settings.jobs, replicas=replicas))
            self.restart(name)
            self.wait(FORM_S)

    def wipe(self, name: str, *, reborn: str) -> None:
        """A machine that is down comes back with an empty disk: as somebody else."""
        slots = self.machine(name).slots
        self.destroy(name)
        self.join(reborn, slots=slots)

    def destroy(self, name: str) -> None:
        """A machine that is down never comes back, nor its disk."""
        self.world.remove(self.machine(name), "wiped")
        self._wiped = True

    def join(self, name: str, *, slots: int = 4, labels: tuple[tuple[str, str], ...] = ()) -> None:
        """A new machine starts, and knows all that live."""
        machine = self.world.add(name, slots=slots)
        machine.labels = labels
        machine.seeds = frozenset(life.id for life in self.world.lives())
        self.world.start(machine)

    def snapshot(self, name: str) -> Disk:
        """What is on this node's disk now, as a backup has it."""
        return self.machine(name).disk.copy()

    def put_back(self, name: str, snapshot: Disk) -> None:
        """A machine that is down gets an old state of its disk back, and starts."""
        self.world.put_back(self.machine(name), snapshot)
        self._wiped = True
        self.restart(name)

    def clone(self, name: str, copy: str, *, disk: Disk | None = None) -> None:
        """Start a second machine on a copy of this one's disk (as it is now, or was). It has a letter of its
        own for stories and cuts, and the identity of the first."""
        self._wiped = True
        machine = self.world.copy(self.machine(name), copy, chance=1)
        if disk is not None:
            machine.disk.put_back(disk)
        self.world.start(machine)

    def is_behind(self, name: str) -> bool:
        """Whether this machine's disk is known not to be the latest of its identity."""
        return self.machine(name).disk.behind

    def lives(self, name: str) -> bool:
        return self.machine(name).life is not None

    def is_ready(self, name: str) -> bool:
        """Whether this node takes new jobs."""
        core = self._life(name).core
        return isinstance(core, Node) and core.ready

    def said(self, name: str, kind: type[Message]) -> int:
        """How many messages of this kind a node has sent, ever."""
        return sum(source == node_id(name) and isinstance(message, kind) for source, _, message in self._sent)

    def damage(self, name: str, job: str) -> None:
        """Bits flip in this node's row of a job, and its store notices."""
        machine, wanted = self.machine(name), self._jobs[job]
        self._wiped = True
        self.world.flip_bits(machine, (wanted,), ())
        machine.disk.check()

    def fill_disk(self, name: str) -> None:
        self.world.fill_disk(self.machine(name))

    def make_room(self, name: str) -> None:
        self.world.make_room(self.machine(name))

    def leave(self, name: str) -> None:
        """It is asked to hand over what it has, and to go."""
        self.world.leave(self.machine(name))

    def drain(self, name: str, *, at: str, limit_s: Seconds = 10.0) -> None:
        """It is asked, through the node `at`, to give away what it has, and to stay."""
        self.world.drain(self._life(at), self._life(name), limit_s)

    def undrain(self, name: str, *, at: str) -> None:
        self.world.regulate(self._life(at), node_id(name), Wish(Change.UNDRAIN))

    def weigh(self, name: str, weight: float, *, at: str) -> None:
        """It is given another share of what is new, through the node `at`."""
        self.world.regulate(self._life(at), node_id(name), Wish(Change.WEIGHT, weight))

    def is_drained(self, name: str) -> bool:
        """Whether this node has nothing more to give, and says so."""
        core = self._life(name).core
        return isinstance(core, Node) and core.drain is Drain.DRAINED

    def stop(self, name: str) -> None:
        """It is asked to end at once."""
        self.world.post(self._life(name), 0.0, StopAsked())

    def pause(self, name: str) -> None:
        self.world.pause(self.machine(name), 1e6)

    def resume(self, name: str) -> None:
        self.world.resume(self._life(name))

    def set_clock(self, name: str, *, ahead_s: Seconds) -> None:
        """From now on this machine's wall clock is so far ahead of the truth, also over a restart."""
        self.machine(name).clock.set_ahead(ahead_s)

    # --------------------------------------------------------------------------------- network

    def cut(self, one_side: str, other_side: str, *, one_way: bool = False) -> None:
        """Nothing passes between the two sides; `one_way`: only what the first says is lost."""
        ways = {(node_id(one), node_id(other)) for one in one_side for other in other_side}
        if not one_way:
            ways |= {(other, one) for one, other in ways}
        self.world.network.block(frozenset(ways))

    def mend(self) -> None:
        """End every cut."""
        self.world.network.block(frozenset())

    def lose(self, kind: type[Message], *, source: str, to: str) -> None:
        """From now on, what `source` says of this kind to `to` is lost (and kept, see `deliver_late`)."""
        self._lost.append((kind, source, to))

    def lose_nothing(self) -> None:
        self._lost.clear()

    def lost(self, kind: type[Message]) -> int:
        """How many messages of this kind were lost."""
        return sum(isinstance(message, kind) for _, _, message in self._kept)

    def deliver_late(self) -> None:
        """What was lost arrives after all, out of order."""
        kept, self._kept = self._kept, []
        self._lost.clear()
        for source, to, message in reversed(kept):
            self.world.network.deliver(source, to, message)

    def repeat(self, kind: type[Message], *, source: str, to: str) -> None:
        """The last message of this kind on this way arrives once more."""
        way = (node_id(source), node_id(to))
        sent = [each for each in self._sent if each[:2] == way and isinstance(each[2], kind)]
        self.world.network.deliver(*sent[-1])

    def _is_kept(self, source: NodeId, to: NodeId, message: Message) -> bool:
        self._sent.append((source, to, message))
        for kind, one, other in self._lost:
            if isinstance(message, kind) and (node_id(one), node_id(other)) == (source, to):
                self._kept.append((source, to, message))
                return True
        return False

    # ----------------------------------------------------------------------------------- disks

    def slow_disk(self, name: str) -> None:
        """No sync of this node ends any more, until `quick_disk`."""
        self._slow[node_id(name)] = []

    def quick_disk(self, name: str) -> None:
        for done in self._slow.pop(node_id(name)):
            self.world.after(0.0, done)

    def _hold_sync(self, life: Life, done: Action) -> bool:
        if life.id not in self._slow:
            return False
        self._slow[life.id].append(done)
        return True

    def _hold_run(self, life: Life, effect: Run) -> bool:
        self._running[effect.job, effect.token] = life
        return self._holds_runs

    # --------------------------------------------------------------------------------- the end

    def heal_and_judge(self, within_s: Seconds = 60.0) -> None:
        """No more trouble: everybody comes back, every task returns, and every promise must be kept."""
        self._holds_runs = False
        self._lost.clear()
        self.mend()
        for machine in self.world.machines.values():
            if machine.life is not None:
                self.world.resume(machine.life)
            else:
                self.world.start_if_down(machine)
        for name in list(map(short, self._slow)):
            self.quick_disk(name)
        for (job, token), life in list(self._running.items()):
            self.world.run_ends(life, job, token, success(token, life.id), lost=False)
        try:
            Judge(self.world, Mood.HURT, wiped=self._wiped).demand(within_s)
        except Violation as violation:
            violation.add_note("\n".join(self.world.story.lines()))
            raise
