"""The world: its machines, their processes, and how the effects of those are carried out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from random import Random
from struct import pack
from typing import Final

from edgenode.core import bursts
from edgenode.core.node import Node
from edgenode.core.settings import Settings
from edgenode.core.signals import (
    Behind,
    Booted,
    Burst,
    Changed,
    ClockRead,
    Cloned,
    Effect,
    Event,
    LeaveAsked,
    Left,
    Log,
    MessageArrived,
    Peers,
    Persist,
    Persisted,
    RegulateAsked,
    RegulateDone,
    Remember,
    RememberWords,
    ReportsDone,
    RequestId,
    RowsDamaged,
    Run,
    RunEnded,
    SearchedHere,
    SearchHere,
    Send,
    StopRun,
    StoreRecovered,
    StoreRefused,
    TimePassed,
)
from edgenode.core.situations import Situation
from edgenode.core.types import (
    CHANCE_BITS,
    FOREVER,
    NOBODY,
    JobId,
    MemberInfo,
    NodeId,
    Seconds,
    StartToken,
    starts_of,
)
from edgenode.core.vouching import unknown_word
from edgenode.core.wire import Acks, Change, Grant, Message, Verdict, Vote, Wish
from edgenode.sim.ahead import Ahead
from edgenode.sim.clock import EPOCH, MachineClock
from edgenode.sim.conditions import Conditions
from edgenode.sim.disk import Disk
from edgenode.sim.identities import Identities, forfeit
from edgenode.sim.ledger import Ledger
from edgenode.sim.machines import Life, Machine, MakeCore, node_id
from edgenode.sim.network import PORT, Network, Process, first_host
from edgenode.sim.operations import Operation, operation_of
from edgenode.sim.pipeline import Pipeline
from edgenode.sim.requests import Answer, Asked, Requests, patience_s
from edgenode.sim.story import Story, short
from edgenode.sim.streams import Streams
from edgenode.sim.strikes import Struck
from edgenode.sim.talk import Talk
from edgenode.sim.timeline import Action, Timeline
from edgenode.sim.violation import Violation
from edgenode.sim.workers import COROUTINE, NEVER_BEGUN, STOPPED, TASK, play

CLOCK_READ_S: Final = 1.0
HEARING_S: Final[Seconds] = 1.0
"""After so long a new process has heard the clocks of those whom it met at its start."""
RESTART_S: Final = 1.0
"""How often somebody tries to start a process that cannot."""
ROUNDING_S: Final = 1e-6
"""Converting a deadline to simulated time and back may lose this much."""
WISH_S: Final[Seconds] = 5.0
"""How long somebody who wishes something of a member waits for its answer."""
RINGS_MAX: Final = 3
"""How often in a row a core may have more to do at once when its time has come. Beyond, it spins."""


class World(Timeline):
    """One simulated mesh. Everything in it happens in `step`, in one order."""

    def __init__(
        self,
        seed: int | str,
        make_core: MakeCore,
        *,
        settings: Settings | None = None,
        conditions: Conditions | None = None,
        story: Story | None = None,
        codec: bool = True,
    ) -> None:
        super().__init__()
        self.seed = seed
        self.settings = settings or Settings()
        self.conditions = conditions or Conditions()
        self.story = story or Story()
        self.strikes: Counter[str] = Counter()
        self.machines: dict[NodeId, Machine] = {}
        self.disks: dict[NodeId, Disk] = {}  # of the machines that still exist
        skew_s = self.settings.jobs.clock_skew_max_s
        self.ledger = Ledger(self.disks, lambda: EPOCH + self.now, skew_s)
        self.ledger.misled = self._is_misled
        self.ledger.on_own_vote = self._own_vote
        self.ledger.keys.members = self._members
        self.ledger.keys.known_to = self._known_to
        self.network = Network(self, self.random("network"), codec=codec)
        self.events = 0
        self.wishes = 0
        self.identities = Identities()
        self.directory: dict[NodeId, str] = {}  # the addresses of machines that are known to have moved
        self._reached: set[Situation] = set()  # by lives that are over, and by pipelines
        # A scenario takes a start, or a sync, into its own hands by answering True.
        self.on_run: Callable[[Life, Run], bool] = lambda life, effect: False
        self.on_begin: list[Callable[[Life, Run], None]] = []
        self.equip: Callable[[Machine], None] = lambda machine: None
        self.on_sync: Callable[[Life, Action], bool] = lambda life, done: False
        self.on_forfeit: Callable[[str], None] = forfeit
        self.on_effect: Callable[[Life, Effect], None] = lambda life, effect: None
        self.on_log: Callable[[Life, Log], None] = lambda life, line: None
        self._make_core = make_core
        self._dice = self.random("machines")
        self._busy_dice = self.random("busy")
        self._chances = self.random("chances")
        self._requests = Requests(self.ledger)
        self.streams = Streams()
        self.talk = Talk(self)
        self.ahead = Ahead(self)
        self.answers_matter = False
        """Whether it is a violation that a node which lives does not answer in time."""
        self._digest = blake2b(digest_size=16)

    def random(self, purpose: str) -> Random:
        """A source of chance of its own, so that drawing more in one place changes nothing in another."""
        return Random(f"{self.seed} {purpose}")

    @property
    def digest(self) -> str:
        """Stands for everything that has happened: the same in every interpreter."""
        return self._digest.hexdigest()

    @property
    def reached(self) -> frozenset[Situation]:
        """Every situation that some node has come into."""
        return frozenset(self._reached).union(*(life.core.reached for life in self.lives()))

    # -------------------------------------------------------------------------------- machines

    def add(
        self, name: str, *, slots: int = 2, clock: MachineClock | None = None, async_slots: int = 0
    ) -> Machine:
        """Build a machine that has never run."""
        machine = Machine(node_id(name), node_id(name), clock or MachineClock(), slots)
        machine.async_slots = async_slots
        self.equip(machine)
        return self._enter(machine)

    def copy(self, machine: Machine, name: str, chance: int) -> Machine:
        """Build a machine whose disk is a copy of this one's, as it is now."""
        self.identities.doubtful |= {machine.place, node_id(name)}
        self.ledger.lost_disk(machine.place)
        copy = Machine(machine.id, node_id(name), machine.clock, machine.slots, machine.seeds)
        copy.disk, copy.chance, copy.async_slots = machine.disk.copy(), chance, machine.async_slots
        copy.ahead = machine.ahead
        copy.labels, copy.tasks = machine.labels, machine.tasks
        self.ledger.identities[copy.place] = copy.id
        return self._enter(copy)

    def put_back(self, machine: Machine, snapshot: Disk) -> None:
        """What this machine's disk took since the snapshot is gone."""
        assert machine.life is None
        self.identities.doubtful.add(machine.place)
        self.ledger.lost_disk(machine.place)
        machine.disk.put_back(snapshot)
        # It counts again as far as it had counted before: chance tells those lives from the forgotten ones.
        machine.chance = self._chances.getrandbits(CHANCE_BITS)

    def _enter(self, machine: Machine) -> Machine:
        assert machine.place not in self.machines
        self.machines[machine.place] = machine
        self.disks[machine.place] = machine.disk
        machine.disk.on_damage = partial(self._damaged, machine)
        return machine

    def lives(self) -> list[Life]:
        """The processes that exist, in the order in which their machines were added."""
        return [machine.life for machine in self.machines.values() if machine.life is not None]

    @property
    def has_open_uses(self) -> bool:
        """Whether a living node owes an answer to somebody who uses a key."""
        return self._requests.has_open_uses

    def process(self, node: NodeId) -> Process | None:
        """The living process of this identity; of two the one on the machine that had it first."""
        machine = self.machines.get(node)
        if machine is not None and machine.life is not None:
            return machine.life
        return next(iter(self.processes(node)), None)

    def processes(self, node: NodeId) -> Sequence[Process]:
        return [life for life in self.lives() if life.id == node]

    def _is_misled(self, place: NodeId) -> bool:
        """Whether half or more of the clocks that this machine's process may know of have been wrong at some
        time. (It counts those that it has met in this life at least, and no longer who has left. It has not
        heard them all at once: of two that it has, one is half.)"""
        machine = self.machines[place]
        is_new = machine.life is not None and self.now - machine.life.began_at < HEARING_S
        known = {machine.id} if machine.life is None else {machine.id} | self.network.met(machine.life)
        others = [other for other in self.machines.values() if other.gone != "left" and other.id in known]
        members = {other.id for other in others}  # a copy of one is no other one
        wrong = {other.id for other in others if other.clock.was_wrong}
        return bool(wrong) if is_new else 2 * len(wrong) >= len(members)

    def _members(self) -> set[NodeId]:
        return {machine.id for machine in self.machines.values() if machine.gone != "left"}

    def _known_to(self, place: NodeId) -> set[NodeId]:
        life = self.machines[place].life
        return set(life.core.view.members()) if life is not None and isinstance(life.core, Node) else set()

    def powered(self, node: NodeId) -> bool:
        machine = self.machines.get(node)
        return machine is not None and machine.powered

    def start(self, machine: Machine) -> None:
        """Begin a new life on this machine's disk."""
        assert machine.life is None
        assert not machine.gone
        machine.powered = True
        disk = machine.disk
        disk.check()
        past = disk.begin_life(machine.chance)
        boot = disk.boot
        coroutines = (COROUTINE,) if machine.async_slots else ()
        info = MemberInfo(
            id=machine.id,
            name=str(machine),
            boot=boot,
            addresses=((machine.host, PORT),),
            api=f"http://{machine}",
            version="0",
            weight=1.0,
            slots=machine.slots,
            async_slots=machine.async_slots,
            coroutines=coroutines,
            labels=machine.labels,
            tasks=(TASK, *machine.tasks, *coroutines),
            joined_at=machine.clock.wall(0.0),
            ready=True,
            behind=machine.disk.behind,
        )
        dice = self.random(f"core of {machine} in life {starts_of(boot)}")
        expects_peers = bool(machine.seeds or machine.disk.peers)
        core = self._make_core(
            info,
            machine.settings or self.settings,
            machine.disk,
            dice,
            expects_peers=expects_peers,
            knows_peers=expects_peers,
        )
        life = machine.life = Life(machine, core, boot, past)
        life.began_at = self.now
        life.pipeline = Pipeline(
            lambda done: self._sync(life, done),
            lambda persist: self._store(life, persist),
            lambda persist: self.post(life, 0.0, Persisted(persist.number)),
            lambda effect: self._out(life, effect),
            lambda effect: self._lost(life, effect),
        )
        self.befell(machine, f"starts, boot {starts_of(boot)}")
        self.ledger.rebooted(machine.place)
        self.network.joined(life, self._hosts(machine))
        self._read_clock(life)
        known = disk.clock, past, disk.words, disk.forgotten, disk.queues
        self.handle(life, Booted(disk.unsettled(), disk.peers, *known))
        if disk.missing:
            self.handle(life, RowsDamaged(disk.missing))
        self.ahead.tell(life, machine.ahead)

    def _hosts(self, machine: Machine) -> dict[NodeId, str]:
        """Where this machine's seeds are, as far as anybody has been told."""
        return {seed: self.directory.get(seed, first_host(seed)) for seed in sorted(machine.seeds)}

    def announce(self) -> None:
        """Everybody is told where all are now."""
        self.directory = {machine.id: machine.host for machine in self.machines.values()}
        for life in self.lives():
            self.network.told(life, self._hosts(life.machine))

    def end(
        self,
        machine: Machine,
        why: str,
        *,
        silent: bool,
        survivors: int | None = None,
        in_order: bool = False,
    ) -> None:
        """The process ends, with what ran on it, and all but the first `survivors` unsynced writes (None:
        chance says how many had reached the disk). `in_order`: what it said before is heard."""
        life = machine.life
        assert life is not None
        self.befell(machine, why)
        if survivors is None:
            survivors = self._dice.randint(0, life.pipeline.unsynced)
        life.pipeline.crash(survivors)
        life.alive = False
        self._reached |= life.core.reached
        life.backlog.clear()
        machine.life = None
        machine.powered = not silent
        self.network.died(life, silent=silent, in_order=in_order)
        self.ledger.died(life.id, life.boot)

    def remove(self, machine: Machine, why: str) -> None:
        """The machine, or its disk, is no more."""
        machine.gone = why
        if why != "left":
            self.ledger.lost_disk(machine.place)
        self.disks.pop(machine.place, None)
        self.befell(machine, f"is gone: {why}")

    def pause(self, machine: Machine, for_s: Seconds) -> None:
        """The process stands still; whatever comes in meanwhile waits."""
        life = machine.life
        assert life is not None
        life.paused, life.stood_still_at = True, self.now
        self.befell(machine, f"stands still for {for_s:.2f} s")
        self.after(for_s, lambda: self.resume(life))

    def resume(self, life: Life) -> None:
        if not life.alive or not life.paused:
            return
        life.paused, life.stood_still_at = False, self.now
        self.befell(life.machine, "goes on")
        backlog, life.backlog = life.backlog, []
        # Whether due time or the inbox goes first is chance, as in the real loop.
        if self._dice.random() < 0.5:
            self._ring(life)
        for action in backlog:
            self.after(0.0, partial(self._if_awake, life, action))
        self.after(0.0, lambda: self._if_awake(life, lambda: self._ring(life)))

    def vanished(self, source: NodeId, to: NodeId, message: Message) -> None:
        self.story.add(self.now, source, "x", Send(to, message))

    def befell_all(self, what: str) -> None:
        self.story.add(self.now, NOBODY, "*", what)

    def befell(self, machine: Machine, what: str) -> None:
        self.story.add(self.now, machine.id, "*", what)

    # ---------------------------------------------------------------------------------- events

    def later(self, life: Life, delay_s: Seconds, action: Action) -> None:
        """Do something within this life: not after its end, and not while it stands still."""
        self.after(delay_s, lambda: self._if_awake(life, action))

    def post(self, to: Process, delay_s: Seconds, event: Event) -> None:
        assert isinstance(to, Life)
        self.later(to, delay_s, lambda: self._arrive(to, event))

    def _if_awake(self, life: Life, action: Action) -> None:
        if life.paused:
            life.backlog.append(action)
        elif life.alive:
            action()

    def _arrive(self, life: Life, event: Event) -> None:
        """An event reaches a process: its core, or the queue in front of it while that is busy."""
        if life.inbox:
            life.inbox.append(event)
        elif self._busy_dice.random() < self.conditions.busy:
            life.inbox.append(event)
            busy_s = self._busy_dice.uniform(0.0, self.conditions.busy_s)
            self.later(life, busy_s, lambda: self._take_all(life))
        else:
            self.handle(life, event)

    def _take_all(self, life: Life) -> None:
        while life.inbox and life.alive:
            self.handle(life, bursts.take(life.inbox))

    def handle(self, life: Life, event: Event) -> None:
        """One event goes in; its effects go into the pipeline."""
        if not life.alive:
            return
        self.events += 1
        clock = life.machine.clock
        instant = max(life.last, clock.monotonic(self.now))
        if isinstance(event, TimePassed):
            deadline = life.core.deadline()
            instant = min(max(instant, deadline), instant + ROUNDING_S)
        life.last = instant
        for each in event.events if isinstance(event, Burst) else (event,):
            self.story.add(self.now, life.id, ">", each)
        if isinstance(event, StoreRefused):
            life.pipeline.refused = False  # from now on its core knows that nothing can be stored
        effects = life.core.handle(event, instant)
        self._note(life, event, len(effects))
        self.ledger.handled()
        if life.pipeline.unsynced:
            self._look_for_held_acks(life, effects)
        rare = self._dies_in(life)
        last = None if rare is None else self._dice.randint(0, len(effects))
        for number, effect in enumerate(effects):
            if isinstance(effect, Behind | Cloned):
                self._give_up(life, effect)
                return
            if rare is not None and number == last:
                self._crash_during(life, rare)
                return
            if not self._survives(life, effect):
                return
            self._ordered(life, effect)
            life.pipeline.push(effect)
            if life.machine.life is not life:
                return
        if rare is not None and last == len(effects):
            self._crash_during(life, rare)
            return
        life.rings = (
            life.rings + 1 if isinstance(event, TimePassed) and life.core.deadline() <= instant else 0
        )
        if life.rings > RINGS_MAX:
            raise Violation(f"{short(life.id)} would spin: its deadline does not move ahead")
        self._set_alarm(life)

    def _look_for_held_acks(self, life: Life, effects: list[Effect]) -> None:
        """An acknowledgement that no new write comes with, of what an earlier one has not brought to disk."""
        if any(isinstance(effect, Persist) for effect in effects):
            return
        if any(
            isinstance(effect, Send)
            and isinstance(effect.message, Acks)
            and not all(self.ledger.has(life.place, stored) for stored in effect.message.stored)
            for effect in effects
        ):
            self._reached.add(Situation.ACK_HELD_BACK)

    def _note(self, life: Life, event: Event, effects: int) -> None:
        kind = type(event.message if isinstance(event, MessageArrived) else event).__name__
        self._digest.update(pack("<dI", self.now, effects) + f"{life.id}{kind}".encode())

    def _survives(self, life: Life, effect: Effect) -> bool:
        """Whether the process lives to carry this out (membership's chatter is not worth dying for)."""
        if isinstance(effect, Send) and effect.urgent:
            return True
        if self._dice.random() >= self.conditions.crash:
            return True
        self.strikes[Struck.CRASHED] += 1
        self.crash(life.machine, f"dies before {type(effect).__name__}")
        return False

    def _dies_in(self, life: Life) -> Operation | None:
        """What the process dies of: if the event has brought it into a situation that it was not in before,
        and chance will have it."""
        if not self.conditions.rare_crash:
            return None
        new = life.core.reached - life.marks
        life.marks |= new
        if not new or self._dice.random() >= self.conditions.rare_crash:
            return None
        return operation_of(new)

    def _crash_during(self, life: Life, operation: Operation) -> None:
        self.strikes[Struck(f"crash during {operation}")] += 1
        self.crash(life.machine, f"dies during {operation}")

    def crash(self, machine: Machine, why: str) -> None:
        """kill -9, and back again after a while."""
        self.end(machine, why, silent=False)
        self.after(self._dice.uniform(0.05, 4.0), lambda: self.start_if_down(machine))

    def start_if_down(self, machine: Machine) -> None:
        if machine.life is not None or machine.gone:
            return
        if machine.disk.takes_writes:
            self.start(machine)
        else:  # it could not even count this start
            self.after(RESTART_S, lambda: self.start_if_down(machine))

    def _give_up(self, life: Life, verdict: Behind | Cloned) -> None:
        """The process ends, and what waits for its disk is not said."""
        machine = life.machine
        if isinstance(verdict, Cloned):
            self.strikes[Struck.CLONE_ENDED] += 1
            self.end(machine, "ends: another process has its identity", silent=False, survivors=0)
            self.remove(machine, "cloned")  # a person has to see to it
            return
        if not self.identities.doubtful:
            raise Violation(f"{machine} was called behind, and no disk was put back or copied: {verdict.why}")
        self.strikes[Struck.BEHIND_FOUND] += 1
        machine.disk.fall_behind(verdict.above)
        self.end(machine, f"begins anew without a vote: {verdict.why}", silent=False, survivors=0)
        self.after(self._dice.uniform(0.05, 0.5), lambda: self.start_if_down(machine))

    def _set_alarm(self, life: Life) -> None:
        deadline = life.core.deadline()
        if deadline == FOREVER:
            return
        when = max(self.now, life.machine.clock.when(deadline))
        if when < life.alarm:
            life.alarm = when
            self.at(when, lambda: self._if_awake(life, lambda: self._alarm(life, when)))

    def _alarm(self, life: Life, when: Seconds) -> None:
        if life.alarm == when:
            life.alarm = FOREVER
            self._ring(life)

    def _ring(self, life: Life) -> None:
        if life.core.deadline() <= life.machine.clock.monotonic(self.now) + ROUNDING_S:
            self.handle(life, TimePassed())
        else:
            self._set_alarm(life)

    def _read_clock(self, life: Life) -> None:
        self.handle(life, ClockRead(life.machine.clock.wall(self.now)))
        self.later(life, CLOCK_READ_S, lambda: self._read_clock(life))

    # --------------------------------------------------------------------------------- effects

    def _ordered(self, life: Life, effect: Effect) -> None:
        """Laws about what a core orders, before any of it is carried out. (What it orders on a disk that has
        refused, before it knows, is not carried out.)"""
        if life.pipeline.refused:
            return
        if isinstance(effect, Persist):
            self.ledger.ordered(life.machine.place, effect)
        elif isinstance(effect, Send):
            self.ledger.promised(life.machine.place, effect.message)

    def _sync(self, life: Life, done: Action) -> None:
        if self.on_sync(life, done):
            return
        conditions = self.conditions
        takes_s = self._dice.uniform(0.1, 1.0) * conditions.sync_s
        if self._dice.random() < conditions.slow_sync:
            self.strikes[Struck.SLOW_SYNC] += 1
            takes_s += self._dice.uniform(0.0, conditions.slow_sync_s)
        self.later(life, takes_s, lambda: done() if life.machine.disk.takes_writes else self._refuse(life))

    def _refuse(self, life: Life) -> None:
        """The disk takes no writes: what the process was about to write, and to say after it, is lost."""
        self.strikes[Struck.REFUSED] += 1
        self.befell(life.machine, "cannot write to its disk")
        life.resigned = True
        self.post(life, 0.0, StoreRefused("the disk is full"))
        self.ledger.rebooted(life.place)
        life.pipeline.refuse()

    def _lost(self, life: Life, effect: Effect) -> None:
        """An effect behind a refused write: it asserts nothing any more, but what is long still ends."""
        match effect:
            case Run(job, token):
                self.post(life, 0.0, RunEnded(job, token, NEVER_BEGUN, True, begun=False))
            case SearchHere(ticket):
                self.post(life, 0.0, SearchedHere(ticket, (), False))
            case _ if isinstance(effect, Answer):
                self._requests.drop(effect.request)
            case RegulateDone():
                pass  # who asked sees what comes of it
            case Peers() | Remember() | StopRun() | Log() | Left():
                self._out(life, effect)
            case _:
                pass

    def flip_bits(self, machine: Machine, rows: Sequence[JobId], claims: Sequence[JobId]) -> None:
        """These rows and claims of its disk are not what was written any more; nobody has noticed."""
        self.befell(machine, f"has flipped bits in {len(rows)} rows and {len(claims)} claims")
        self.ledger.lost_rows(machine.place, (*rows, *claims))
        machine.disk.flip_bits(rows, claims)

    def fill_disk(self, machine: Machine) -> None:
        """From now on it takes no writes."""
        machine.disk.takes_writes = False
        self.befell(machine, "has a full disk")

    def make_room(self, machine: Machine) -> None:
        """The disk takes writes again. A node that noticed begins a new life in the same process."""
        if machine.disk.takes_writes:
            return
        machine.disk.takes_writes = True
        self.befell(machine, "has room on its disk")
        life = machine.life
        if life is not None and life.resigned:
            self.later(life, 0.1, lambda: self._return(life))

    def _return(self, life: Life) -> None:
        machine = life.machine
        if not life.resigned or not machine.disk.takes_writes:
            return
        life.resigned = False
        self.ledger.died(life.id, life.boot)
        disk = machine.disk
        disk.check()
        life.past = disk.begin_life(machine.chance)
        life.boot = disk.boot
        self.network.reborn(life)
        self.handle(life, StoreRecovered(life.boot, disk.unsettled()))
        if disk.missing:
            self.handle(life, RowsDamaged(disk.missing))

    def _damaged(self, machine: Machine, jobs: tuple[JobId, ...]) -> None:
        """Somebody has read rows of this disk that are not what was written."""
        self.strikes[Struck.DAMAGE_FOUND] += 1
        if machine.life is not None:
            self.post(machine.life, 0.0, RowsDamaged(jobs))

    def _store(self, life: Life, persist: Persist) -> None:
        disk = life.machine.disk
        self.story.add(self.now, life.id, "=", persist)
        self.on_effect(life, persist)
        disk.clock = persist.clock or disk.clock
        life.machine.clock.keep(disk.clock, self.now)
        disk.forgotten = persist.forgotten or disk.forgotten
        for job in persist.dropped:
            self.ledger.dropped(life.machine.place, job)
            self.streams.dropped(life, job)
            disk.drop(job)
        for stored in persist.rows:
            before = disk.row(stored.row.id)
            disk.write((stored,))
            if before is None or before.blob != stored.row.blob:
                self.streams.stored(life, (stored.row.id,))
            self._digest.update(stored.row.blob)
            self.ledger.durable(life.machine.place, before, stored.row)
        disk.write_claims(persist.claims, persist.forget_claims_before)
        self.talk.heard(f"the disk of {life.machine}", persist.reports)
        disk.shelf.write(persist.reports, (*persist.dropped, *persist.silenced))
        disk.queues = persist.queues or disk.queues
        disk.written = persist.number
        self.identities.wrote(life.id, life.boot, persist.number)

    def _out(self, life: Life, effect: Effect) -> bool:
        """This effect leaves the machine now. False if the process dies before it."""
        if not self._survives(life, effect):
            return False
        self.story.add(self.now, life.id, "<", effect)
        self.on_effect(life, effect)
        match effect:
            case Send(to, message):
                self.ledger.left(life.machine.place, to, message)
                if isinstance(message, Vote | Grant):
                    self._check_vote(life)
                self.network.send(life, to, message)
            case Run():
                self._run(life, effect)
            case StopRun():
                self._stop(life, effect)
            case _ if isinstance(effect, Answer):
                if isinstance(effect, ReportsDone):
                    self.talk.heard(f"a reader at {life.machine}", effect.items)
                self._requests.answered(effect, lambda: self.network.met(life) | {life.id})
            case SearchHere(ticket, query):
                self.post(life, 0.001, life.machine.disk.search(ticket, query))
            case Peers(changes):
                self.network.learned(life, changes)
            case Remember(peers):
                if life.machine.disk.takes_writes:
                    life.machine.disk.peers = peers
            case RememberWords(packed):
                if life.machine.disk.takes_writes:
                    life.machine.disk.words = packed
            case Behind() | Cloned():
                raise AssertionError("nothing that waits comes before it")
            case Changed(records):
                self._requests.shown(records)
                self.streams.changed(life, records)
            case Left(handed_over):
                if self.now >= life.drained_at:
                    self.ledger.evicted(life.running)
                self.end(life.machine, "has left", silent=False, in_order=True)
                if not handed_over:
                    self.ledger.left_with(life.place)
                if not handed_over and not self._knows_heir(life):
                    self.ledger.stranded_on(life.place, {other.id for other in self.lives()})
                if handed_over:
                    self.remove(life.machine, "left")  # nobody needs its disk any more
                else:
                    machine = life.machine  # its operator was told to start it again
                    self.after(self._dice.uniform(0.5, 4.0), lambda: self.start_if_down(machine))
                return False
            case RegulateDone():
                pass
            case Log():
                self.on_log(life, effect)
            case Persist():
                pass  # the disk had it before
        return True

    def _knows_heir(self, life: Life) -> bool:
        """Whether somebody takes jobs, and this process has heard of that."""
        heirs = {other.id for other in self.lives() if _takes_jobs(other)}
        return bool(heirs & life.core.view.ranking().members if isinstance(life.core, Node) else heirs)

    def _check_vote(self, life: Life) -> None:
        """T3: who decides in the name of an identity knows all that was written in its name; or nobody who
        could tell is there. (What a disk says that is known to be behind counts nowhere.)"""
        if life.place not in self.identities.doubtful or life.machine.disk.behind:
            return
        word = self.identities.unknown_to(life.id, life.boot, life.past)
        if word is None:
            return
        for peer in self.network.peers(life):
            assert isinstance(peer, Life)
            told = [each for each in peer.core.remembers(life.id) if each.boot != life.boot]
            if unknown_word(life.past, told) is not None:
                raise Violation(
                    f"T3: {life.machine} votes without knowing of {word}, and {peer.machine} does"
                )
        self.on_forfeit(f"{life.machine} votes, unaware of {word}, and so are its peers")

    def _own_vote(self, place: NodeId) -> bool:
        life = self.machines[place].life
        if life is None:
            return True
        if life.core.has_vote:
            self._check_vote(life)
        return life.core.has_vote

    def _run(self, life: Life, effect: Run) -> None:
        if effect.token.owner == life.id:
            self._check_vote(life)
        is_shared = effect.spec.task == COROUTINE
        if is_shared:
            life.shared.add((effect.job, effect.token))
        slots = life.machine.async_slots if is_shared else life.machine.slots
        running = sum((each in life.shared) == is_shared for each in life.running)
        if running < slots:
            self._begin(life, effect)
            return
        if is_shared or running + len(life.waiting) >= slots + life.machine.ahead:
            raise Violation(f"{short(life.id)} starts more than its {slots} slots hold")
        self.ahead.take(life, effect, lambda: self._begin(life, effect))

    def _begin(self, life: Life, effect: Run) -> None:
        self.ledger.run(life.id, life.boot, effect)
        fate = play(effect.spec, effect.token, effect.attempt, life.id, self._dice)
        life.running[effect.job, effect.token] = fate.verdict
        for hear in self.on_begin:
            hear(life, effect)
        if self.on_run(life, effect):
            return
        self.talk.begins(life, effect, fate.lasts_s)

        def over() -> None:
            if fate.kills:
                self.strikes[Struck.POISONED] += 1
                self.crash(life.machine, "is killed by a job")
            else:
                self.run_ends(life, effect.job, effect.token, fate.verdict, lost=fate.lost)

        # A worker is a process of its own: it goes on while its node stands still.
        self.after(fate.lasts_s, lambda: self._if_awake(life, over))

    def run_ends(self, life: Life, job: JobId, token: StartToken, verdict: Verdict, *, lost: bool) -> None:
        """A start is over, in whatever way; the first way counts."""
        self.talk.ends(life, job, token)
        if life.alive and life.running.pop((job, token), None) is not None:
            self.ledger.ended(job, token, verdict, lost=lost)
            self._arrive(life, RunEnded(job, token, verdict, lost))

    def _stop(self, life: Life, effect: StopRun) -> None:
        self.ledger.stopped(effect)
        if self.ahead.stop(life, effect.job, effect.token):
            return
        if self.now >= life.drained_at and (effect.job, effect.token) in life.running:
            self.ledger.evicted([(effect.job, effect.token)])
        self.later(
            life,
            self._dice.uniform(0.001, 0.05),
            lambda: self.run_ends(life, effect.job, effect.token, STOPPED, lost=False),
        )

    # -------------------------------------------------------------------------------- requests

    def ask(
        self, life: Life, make: Callable[[RequestId], Asked],
        answer: Callable[[Answer], None],
    ) -> None:  # fmt: skip
        """A local request; `answer` is called at most once (not at all if the node dies)."""
        asked = self._requests.ask(life, make, answer)
        self.post(life, 0.0, asked)
        if self.answers_matter:
            life.asked_at[asked.request] = self.now
            wait_s = patience_s(asked)
            self.after(wait_s, lambda: self._requests.demand_answer(life, asked, wait_s))

    def regulate(self, life: Life, node: NodeId, wish: Wish) -> None:
        """Somebody asks this node to have a member drained, or not any more, or given another weight."""
        self.wishes += 1
        self.befell(life.machine, f"is asked to {wish.change} {short(node)}")
        self.post(life, 0.0, RegulateAsked(RequestId(self.wishes), node, wish, WISH_S))

    def drain(self, entry: Life, life: Life, limit_s: Seconds) -> None:
        """Somebody asks `entry` to have this node drained."""
        self.regulate(entry, life.id, Wish(Change.DRAIN, limit_s))
        if not life.leaving:
            life.drained_at = min(life.drained_at, self.now + limit_s - ROUNDING_S)

    def leave(self, machine: Machine) -> None:
        assert machine.life is not None
        machine.life.leaving = True
        machine.life.drained_at = self.now + self.settings.jobs.drain_s - ROUNDING_S
        self.befell(machine, "is asked to leave")
        self.post(machine.life, 0.0, LeaveAsked())


def _takes_jobs(life: Life) -> bool:
    return not isinstance(life.core, Node) or life.core.ready
