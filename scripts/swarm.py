"""A mesh of production cores in simulated time, light enough for a thousand members in one process.

What the shell would do is played: links are made for the first message and end with a process, every message
takes 0.2 to 2 ms, a disk is written at once. Nothing fails but whole processes; other faults belong to
`edgenode.sim`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random

from edgenode.core.gossip import frames_of
from edgenode.core.job_ids import make_job_id
from edgenode.core.node import Node
from edgenode.core.settings import Settings
from edgenode.core.signals import (
    Booted,
    ClockRead,
    Effect,
    Event,
    LeaveAsked,
    Left,
    LinkDown,
    LinkUp,
    MessageArrived,
    Peers,
    Persist,
    Persisted,
    RequestId,
    Run,
    RunEnded,
    SearchedHere,
    SearchHere,
    Send,
    SubmitAsked,
    SubmitDone,
    TimePassed,
)
from edgenode.core.specs import Spec
from edgenode.core.types import FOREVER, Instant, JobId, Load, MemberInfo, NodeId, Seconds, State, Wall
from edgenode.core.wire import Message, Rumour, Sync, Verdict, encode
from edgenode.sim.disk import Disk

DELAY_S = (0.0002, 0.002)
REFUSAL_S = (0.001, 0.01)
"""When the end of a process is seen at the other end of a link."""
EAGER = 64
"""Up to so many others are called without being asked, as `TransportSettings.eager_links` has it."""
WALL = 1.7e9
RUN_S = 0.02
TASKS = tuple(f"package.task{number}" for number in range(8))
DONE = Verdict(State.SUCCEEDED, b"null", "", -1.0, False)


def node_id(number: int) -> NodeId:
    return NodeId(f"node{number:012d}")


def _describe(number: int, joined_at: Wall) -> MemberInfo:
    return MemberInfo(
        id=node_id(number),
        name=f"node-{number}",
        boot=1,
        addresses=((f"10.0.{number // 250}.{number % 250}", 9700),),
        api="http://127.0.0.1:8701",
        version="0.1.0",
        weight=1.0,
        slots=4,
        labels=(("zone", "a"),),
        tasks=TASKS,
        joined_at=joined_at,
        ready=False,
    )


@dataclass(slots=True, eq=False)
class Member:
    """One process: its core, its disk, and what it has sent."""

    id: NodeId
    node: Node
    disk: Disk
    address: tuple[str, int]
    lives: bool = True
    alarm: Instant = FOREVER  # for which a wake-up is in the heap
    links: dict[NodeId, Instant] = field(default_factory=dict)  # and when a message last passed
    messages: int = 0
    bytes: int = 0
    runs: int = 0


class Swarm:
    """Drive it with `join`, `run`, `kill` and the like; it plays what happens in between."""

    def __init__(self, seed: int, settings: Settings) -> None:
        self.now: Instant = 0.0
        self.members: dict[NodeId, Member] = {}
        self.is_counting = False
        self.events = 0
        self.acknowledged: set[JobId] = set()
        self._settings = settings
        self._dice = Random(seed)
        self._heap: list[tuple[Instant, int, Callable[[], None]]] = []
        self._order = count()
        self._requests = count(1)
        self._watch: Callable[[Member], None] | None = None

    # -------------------------------------------------------------------------------------- members

    def acquaint(self, size: int) -> None:
        """So many members that joined one by one long ago: all know all, and nothing is left to be told."""
        infos = [_describe(number, WALL) for number in range(1, size + 1)]
        beliefs = [self._alone(info) for info in infos]
        memories = tuple(encode(Sync(True, Load(), (belief,))) for belief in beliefs)
        frames = frames_of(beliefs)
        for place, info in enumerate(infos):
            member = self._make(info, expects_peers=True)
            self._read_clock(member)
            self._feed(member, Booted((), (*memories[:place], *memories[place + 1 :])))
            for frame in frames:
                others = tuple(belief for belief in frame if belief.info.id != info.id)
                told = MessageArrived(node_id((place + 1) % size + 1), Sync(True, Load(), others))
                self._feed(member, told)

    def _alone(self, info: MemberInfo) -> Rumour:
        """What a node says of itself once it is ready."""
        node = Node(info, self._settings, Disk(), Random(0))
        node.handle(ClockRead(WALL), 0.0)
        node.handle(Booted((), ()), 0.0)
        (leaf,) = node.membership.beliefs()
        return leaf.rumour

    def join(self) -> Member:
        """One more process starts, and was told the address of one that runs."""
        living = [member for member in self.members.values() if member.lives]
        info = _describe(len(self.members) + 1, WALL + self.now)
        member = self._make(info, expects_peers=bool(living))
        self._read_clock(member)
        self._feed(member, Booted((), ()))
        if living:
            self._dial(member, self._dice.choice(living))
        return member

    def _make(self, info: MemberInfo, *, expects_peers: bool) -> Member:
        disk, dice = Disk(), Random(self._dice.random())
        node = Node(info, self._settings, disk, dice, expects_peers=expects_peers, knows_peers=expects_peers)
        member = Member(info.id, node, disk, info.addresses[0])
        self.members[info.id] = member
        return member

    def kill(self, member: Member) -> None:
        """Its process ends: the links are reset, and the port refuses."""
        member.lives = False
        for peer in sorted(member.links):
            self._after(self._dice.uniform(*REFUSAL_S), self._end_of_link(self.members[peer], member))

    def _end_of_link(self, at: Member, peer: Member) -> Callable[[], None]:
        def ended() -> None:
            at.links.pop(peer.id, None)
            self._feed(at, LinkDown(peer.id, peer.node.view.boot, True))

        return ended

    def silence(self, member: Member) -> None:
        """Its host loses power: nobody is told anything."""
        member.lives = False

    def leave(self, member: Member) -> None:
        """It is told to end: it hands its jobs over and says goodbye."""
        self._feed(member, LeaveAsked())

    def living(self) -> Iterator[Member]:
        return (member for member in self.members.values() if member.lives)

    def until_known_dead(self, victim: Member, limit_s: Seconds) -> Seconds | None:
        """How long it takes from now until no other living member believes that this one lives."""
        began = self.now
        unaware = {member.id for member in self.living() if member.node.view.is_living(victim.id)}

        def look(member: Member) -> None:
            if member.id in unaware and not member.node.view.is_living(victim.id):
                unaware.discard(member.id)

        self._watch = look
        done = self.run(limit_s, until=lambda: not unaware)
        self._watch = None
        return self.now - began if done else None

    def is_whole(self) -> bool:
        """Does everybody rank everybody?"""
        everybody = {member.id for member in self.living()}
        return all(member.node.view.ranking().members == everybody for member in self.living())

    # ----------------------------------------------------------------------------------------- jobs

    def submit(self, entry: Member, jobs: int) -> None:
        """Hand in some jobs of `RUN_S` each."""
        specs = []
        for _ in range(jobs):
            wall = WALL + self.now
            job = make_job_id(wall, self._dice.randbytes(10))
            specs.append(Spec(job, TASKS[0], b'{"n":1}', wall, wall + 7 * 86_400))
        self._feed(entry, SubmitAsked(RequestId(next(self._requests)), tuple(specs), 60.0))

    def _run_job(self, member: Member, run: Run) -> None:
        member.runs += 1
        self._after(RUN_S, lambda: self._feed(member, RunEnded(run.job, run.token, DONE, lost=False)))

    # ----------------------------------------------------------------------------------------- time

    def run(self, span_s: Seconds, *, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; with `until`, only so far, and say whether it came true."""
        end = self.now + span_s
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action = heappop(self._heap)
            action()
            if until is not None and until():
                return True
        self.now = end
        return False

    def _after(self, span_s: Seconds, action: Callable[[], None]) -> None:
        heappush(self._heap, (self.now + span_s, next(self._order), action))

    def _feed(self, member: Member, event: Event) -> None:
        if not member.lives:
            return
        self.events += 1
        for effect in member.node.handle(event, self.now):
            self._carry_out(member, effect)
        due = member.node.deadline()
        if due < member.alarm:
            # A wake-up that comes too early finds nothing due, and sets the next one: cheaper than one for
            # every change of mind.
            member.alarm = due
            self._after(max(0.0, due - self.now), lambda: self._ring(member))
        if self._watch is not None:
            self._watch(member)

    def _read_clock(self, member: Member) -> None:
        if member.lives:
            self._feed(member, ClockRead(WALL + self.now))
            self._after(1.0, lambda: self._read_clock(member))

    def _ring(self, member: Member) -> None:
        member.alarm = FOREVER
        due = member.node.deadline()
        if due <= self.now:
            self._feed(member, TimePassed())
        elif due < FOREVER:
            member.alarm = due
            self._after(due - self.now, lambda: self._ring(member))

    def _carry_out(self, member: Member, effect: Effect) -> None:
        match effect:
            case Send(to, message):
                self._send(member, to, message)
            case Persist(rows=rows, number=number):
                member.disk.write(rows)
                self._after(0.0, lambda: self._feed(member, Persisted(number)))
            case Run():
                self._run_job(member, effect)
            case Peers(changes):
                for change in changes:
                    peer = self.members.get(change.peer)
                    if not change.keep:
                        member.links.pop(change.peer, None)
                    elif peer is not None and len(self.members) <= EAGER + 1:
                        self._dial(member, peer)
            case SubmitDone(receipts=receipts):
                self.acknowledged.update(receipt.job for receipt in receipts if receipt.nodes)
            case SearchHere(ticket):
                self._after(0.0, lambda: self._feed(member, SearchedHere(ticket, (), True)))
            case Left():
                member.lives = False
            case _:
                pass  # logs, and what is meant for clients and for the next start

    # -------------------------------------------------------------------------------------- network

    def _send(self, source: Member, to: NodeId, message: Message) -> None:
        if self.is_counting:
            source.messages += 1
            source.bytes += len(encode(message))
        target = self.members.get(to)
        if target is None or not target.lives:
            return
        self._dial(source, target)
        source.links[to] = target.links[source.id] = self.now
        arrived = MessageArrived(source.id, message)
        self._after(self._dice.uniform(*DELAY_S), lambda: self._feed(target, arrived))

    def _dial(self, source: Member, target: Member) -> None:
        if target.id in source.links or source is target or not target.lives:
            return
        source.links[target.id] = target.links[source.id] = self.now
        for end, peer, address in ((source, target, target.address), (target, source, None)):
            up = LinkUp(peer.id, peer.node.view.boot, address)
            self._after(0.0, lambda end=end, up=up: self._feed(end, up))  # type: ignore[misc]

    def count(self, span_s: Seconds) -> None:
        """Let time pass, and count what is sent meanwhile."""
        for member in self.members.values():
            member.messages = member.bytes = 0
        self.is_counting = True
        self.run(span_s)
        self.is_counting = False
