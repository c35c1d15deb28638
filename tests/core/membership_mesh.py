"""A mesh of memberships under a simulated clock and network, for the tests beside it.

Everything comes from the seed. Messages are delayed, lost, or stopped by cuts; a stalled node handles nothing
until its stall is over, and then its overdue timer first, which is the worst order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random

from edgenode.core.membership import Membership
from edgenode.core.settings import PRESETS, MembershipSettings
from edgenode.core.signals import (
    Booted,
    Effect,
    LinkDown,
    LinkUp,
    Log,
    MessageArrived,
    Peers,
    Remember,
    Send,
    TimePassed,
)
from edgenode.core.types import NOBODY, Load, MemberInfo, MemberState, NodeId
from edgenode.core.view import Standing
from edgenode.core.wire import Message, Rumour, Sync, encode

LAN = PRESETS["lan"].membership


def node_id(number: int) -> NodeId:
    return NodeId(f"node{number:012d}")


def describe(number: int, *, boot: int = 1, ready: bool = True, tasks: int = 7) -> MemberInfo:
    return MemberInfo(
        id=node_id(number),
        name=f"n{number}",
        boot=boot,
        addresses=(("127.0.0.1", 9700 + number),),
        api=f"http://127.0.0.1:{8700 + number}",
        version="0.1.0",
        weight=1.0,
        slots=2,
        labels=(("zone", "a"),),
        tasks=tuple(f"task.number{index}" for index in range(tasks)),
        joined_at=1e9,
        ready=ready,
    )


@dataclass
class Process:
    number: int
    membership: Membership
    boot: int
    is_running: bool = True
    stalled_until: float = 0.0
    timer: int = 0
    links: set[NodeId] = field(default_factory=set)
    disk: tuple[bytes, ...] = ()
    bytes_sent: int = 0
    logs: list[Log] = field(default_factory=list)
    changes: list[tuple[float, NodeId, Standing]] = field(default_factory=list)


class Mesh:
    def __init__(
        self,
        seed: int,
        *,
        settings: MembershipSettings = LAN,
        delay_s: tuple[float, float] = (0.0002, 0.003),
        loss: float = 0.0,
        counts_bytes: bool = False,
        keeps_changes: bool = True,
    ) -> None:
        self.dice = Random(seed)
        self.now = 0.0
        self.settings = settings
        self.delay_s = delay_s
        self.loss = loss
        self.counts_bytes = counts_bytes
        self.keeps_changes = keeps_changes
        self.cut: Callable[[NodeId, NodeId], bool] = lambda source, target: False
        self.hears: Callable[[NodeId, Message], Message] = lambda to, message: message
        self.processes: dict[NodeId, Process] = {}
        self._heap: list[tuple[float, int, int, Callable[[], None]]] = []
        self._order = count()

    # ------------------------------------------------------------------------------------- processes

    def start(
        self,
        number: int,
        *,
        seeds: Iterable[int] = (),
        boot: int = 1,
        ready: bool = True,
        expects: bool = False,
    ) -> Process:
        node = node_id(number)
        earlier = self.processes.get(node)
        membership = Membership(
            describe(number, boot=boot, ready=False),
            self.settings,
            Random(self.dice.random()),
            expects_peers=expects,
        )
        process = Process(number, membership, boot, disk=() if earlier is None else earlier.disk)
        self.processes[node] = process
        self._perform(process, membership.handle(Booted((), process.disk), self.now))
        if ready:
            self._perform(process, membership.set_ready(True, self.now))
        for seed in seeds:
            self._dial(process, node_id(seed))
        return process

    def start_all(self, size: int, *, settle_s: float = 3.0) -> None:
        """A mesh in which everybody knows everybody."""
        for number in range(1, size + 1):
            self.start(number, seeds=[1] if number > 1 else [])
            self.run(0.02)
        self.run(settle_s)

    def start_acquainted(self, size: int) -> None:
        """The same at once, with nothing left to tell: for meshes that are too large to join one by one."""
        numbers = range(1, size + 1)
        beliefs = tuple(Rumour(describe(number), 1, MemberState.READY, NOBODY) for number in numbers)
        memories = tuple(encode(Sync(True, Load(), (belief,))) for belief in beliefs)
        everybody = {belief.info.id for belief in beliefs}
        for number in numbers:
            membership = Membership(describe(number, ready=False), self.settings, Random(self.dice.random()))
            process = Process(number, membership, 1, links=everybody - {node_id(number)})
            self.processes[node_id(number)] = process
            membership.handle(Booted((), memories), self.now)
            membership.set_ready(True, self.now)
            neighbour = node_id(number % size + 1)
            others = tuple(belief for belief in beliefs if belief.info.id != node_id(number))
            effects = membership.handle(MessageArrived(neighbour, Sync(True, Load(), others)), self.now)
            self._perform(process, effects)

    def kill(self, number: int, *, refuse_s: tuple[float, float] = (0.001, 0.01)) -> None:
        """The process ends: its links reset, and its port refuses."""
        victim = self._end(number)
        for node in sorted(victim.links):
            other = self.processes[node]
            delay_s = self.dice.uniform(*refuse_s)
            self._at(self.now + delay_s, self._link_down(other, node_id(number), victim.boot, refused=True))

    def silence(self, number: int) -> None:
        """The host loses its power: no link resets."""
        self._end(number)

    def _end(self, number: int) -> Process:
        victim = self.processes[node_id(number)]
        victim.is_running = False
        return victim

    def stall(self, number: int, span_s: float) -> None:
        self.processes[node_id(number)].stalled_until = self.now + span_s

    def after(self, span_s: float, action: Callable[[], None]) -> None:
        self._at(self.now + span_s, action)

    def dial(self, number: int, other: int) -> None:
        """One node was told of another; nothing happens unless both run."""
        here, there = node_id(number), node_id(other)
        if here in self.processes and there in self.processes:
            self._dial(self.processes[here], there)

    def heal(self) -> None:
        """No cut any more. Links across it have timed out meanwhile."""
        for process in self.running():
            here = node_id(process.number)
            process.links = {
                peer for peer in process.links if not self.cut(here, peer) and not self.cut(peer, here)
            }
        self.cut = lambda source, target: False

    def break_link(self, number: int, peer: int, *, refused: bool) -> None:
        """The shell of `number` reports the end of a link; the peer runs on."""
        other = self.processes[node_id(peer)]
        self._link_down(self.processes[node_id(number)], node_id(peer), other.boot, refused=refused)()

    def act(self, number: int, action: Callable[[Membership, float], list[Effect]]) -> None:
        process = self.processes[node_id(number)]
        self._perform(process, action(process.membership, self.now))

    # ------------------------------------------------------------------------------------------ time

    def run(self, span_s: float, *, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; with `until`, only so far, and say whether it came true."""
        end = self.now + span_s
        while self._heap and self._heap[0][0] <= end:
            self.now, _, _, action = heappop(self._heap)
            action()
            if until is not None and until():
                return True
        self.now = end
        return until is not None and until()

    def _at(self, when: float, action: Callable[[], None], *, urgency: int = 1) -> None:
        heappush(self._heap, (when, urgency, next(self._order), action))

    def _feed(self, process: Process, event: object, *, is_timer: bool = False) -> None:
        if not process.is_running:
            return
        if process.stalled_until > self.now:
            self._at(
                process.stalled_until,
                lambda: self._feed(process, event, is_timer=is_timer),
                urgency=0 if is_timer else 1,
            )
            return
        self._perform(process, process.membership.handle(event, self.now))  # type: ignore[arg-type]

    def _perform(self, process: Process, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(to, message, urgent):
                    assert urgent
                    if self.counts_bytes:
                        process.bytes_sent += len(encode(message))
                    self._carry(process, to, MessageArrived(node_id(process.number), self.hears(to, message)))
                case Peers(changes):
                    for address in changes:
                        if address.keep and address.addresses and address.peer in self.processes:
                            self._dial(process, address.peer)
                case Remember(peers):
                    process.disk = peers
                case Log():
                    process.logs.append(effect)
                case _:
                    raise AssertionError(effect)
        if self.keeps_changes:
            for node in sorted(process.membership.take_changes()):
                process.changes.append((self.now, node, process.membership.standing(node)))
        self._set_timer(process)

    def _set_timer(self, process: Process) -> None:
        process.timer += 1
        number = process.timer

        def fire() -> None:
            if process.timer == number:
                self._feed(process, TimePassed(), is_timer=True)

        due = process.membership.deadline()
        if due < float("inf"):
            self._at(max(due, self.now), fire, urgency=0)

    # --------------------------------------------------------------------------------------- network

    def _delay(self) -> float:
        return self.dice.uniform(*self.delay_s)

    def _carry(self, source: Process, to: NodeId, event: MessageArrived) -> None:
        target = self.processes.get(to)
        if target is None or not target.is_running:
            return
        if to not in source.links:
            self._dial(source, to)
        if self.cut(event.source, to) or self.dice.random() < self.loss:
            return
        self._at(self.now + self._delay(), lambda: self._feed(target, event))

    def _dial(self, source: Process, to: NodeId) -> None:
        here = node_id(source.number)
        target = self.processes[to]
        is_cut = self.cut(here, to) or self.cut(to, here)
        if to in source.links or to == here or not target.is_running or is_cut:
            return
        source.links.add(to)
        target.links.add(here)
        when = self.now + 2 * self._delay()
        address = ("127.0.0.1", 9700 + target.number)
        self._at(when, lambda: self._feed(source, LinkUp(to, target.boot, address)))
        self._at(when, lambda: self._feed(target, LinkUp(here, source.boot, None)))

    def _link_down(self, process: Process, peer: NodeId, boot: int, *, refused: bool) -> Callable[[], None]:
        def down() -> None:
            process.links.discard(peer)
            self._feed(process, LinkDown(peer, boot, refused))

        return down

    # ----------------------------------------------------------------------------------- questions

    def running(self) -> list[Process]:
        return [process for process in self.processes.values() if process.is_running]

    def everybody_sees(self, number: int, *standings: Standing) -> bool:
        node = node_id(number)
        return all(
            process.membership.standing(node) in standings
            for process in self.running()
            if process.number != number
        )

    def is_whole(self) -> bool:
        """Do all running nodes rank exactly all running nodes?"""
        present = {node_id(process.number) for process in self.running()}
        return all(process.membership.ranking().members == present for process in self.running())

    def deaths(self, *, since: float = 0.0) -> list[tuple[float, int, NodeId]]:
        """Who called whom dead, and when."""
        return [
            (when, process.number, node)
            for process in self.processes.values()
            for when, node, standing in process.changes
            if when >= since and standing in (Standing.SILENT, Standing.GONE)
        ]
