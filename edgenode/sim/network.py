"""Links between processes, as a transport over TCP makes them: they come up, carry, break and lie.

A link belongs to one life of each end. A killed process resets its links, and its port refuses; a machine
without power, or behind a cut, is merely silent. What was in flight on a link that ends is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final, Protocol

from edgenode.core.signals import Address, CloneMet, Event, LinkDown, LinkUp, MessageArrived
from edgenode.core.types import NodeId, Seconds, are_copies
from edgenode.core.wire import CONTROL, Message, Sync, decode, encode
from edgenode.sim.conditions import Conditions
from edgenode.sim.strikes import Struck

REDIAL_S: Final = 0.5
"""How often a transport tries the peers of its address book that it has no link to."""
SILENT_LINK_S: Final = (3.0, 8.0)
"""When a transport gives up a link over which nothing comes back."""
RESET_S: Final = (0.0005, 0.005)
"""How long a reset, or a refusal, takes to be seen."""
REPLAY_S: Final = (0.01, 10.0)
"""How much later what somebody has recorded is sent once more."""
PORT: Final = 9700


class Process(Protocol):
    """One life of a node, as the network sees it."""

    @property
    def id(self) -> NodeId: ...

    @property
    def place(self) -> NodeId:
        """Where it is: another place than that of a process with the same identity."""
        ...

    @property
    def host(self) -> str:
        """Its address, under which others reach it."""
        ...

    @property
    def boot(self) -> int: ...

    @property
    def alive(self) -> bool: ...

    @property
    def paused(self) -> bool: ...


class Surroundings(Protocol):
    """What the network needs of the world around it."""

    now: Seconds
    conditions: Conditions
    strikes: Counter[str]

    def after(self, delay_s: Seconds, action: Callable[[], None]) -> None: ...

    def post(self, to: Process, delay_s: Seconds, event: Event) -> None: ...

    def process(self, node: NodeId) -> Process | None:
        """The living process of this identity, if any."""
        ...

    def vanished(self, source: NodeId, to: NodeId, message: Message) -> None:
        """A message is lost on its way."""
        ...

    def processes(self, node: NodeId) -> Sequence[Process]:
        """All of them: two, if its disk was copied."""
        ...

    def powered(self, node: NodeId) -> bool:
        """Whether its machine is there to refuse a connection."""
        ...


@dataclass(eq=False, slots=True)
class Link:
    """Both ends of one connection."""

    caller: Process
    callee: Process
    broken: bool = False  # nothing passes any more, though an end may not have noticed
    closed: bool = False  # in order: what was on its way still arrives
    last: dict[tuple[NodeId, bool], Seconds] = field(default_factory=dict)  # arrivals, per way and channel
    boots: dict[NodeId, int] = field(init=False)  # as the greeting named them

    def __post_init__(self) -> None:
        self.boots = {end.place: end.boot for end in (self.caller, self.callee)}

    def other(self, end: Process) -> Process:
        return self.callee if end is self.caller else self.caller


def first_host(node: NodeId) -> str:
    """The address of a machine that has never moved."""
    return node


Rule = Callable[[NodeId, NodeId, Message], bool]
"""Whether a scenario keeps this message from leaving."""


class Network:
    """Carries messages between processes and tells them of links."""

    def __init__(self, world: Surroundings, dice: Random, *, codec: bool = True) -> None:
        self._world = world
        self._dice = dice
        self._codec = codec
        self._blocked: frozenset[tuple[NodeId, NodeId]] = frozenset()
        # By one end and the other's identity, of which an end knows one life only.
        self._links: dict[tuple[Process, NodeId], Link] = {}
        # Whom it calls, and on which hosts: those that it learned itself, and those that people named.
        self._wanted: dict[Process, dict[NodeId, frozenset[str]]] = {}
        self._named: dict[Process, dict[NodeId, frozenset[str]]] = {}
        self._met: dict[Process, set[NodeId]] = {}
        self.rule: Rule | None = None

    # ------------------------------------------------------------------------------ processes

    def joined(self, process: Process, seeds: Mapping[NodeId, str]) -> None:
        """A process has started, and was told where these peers are."""
        self._wanted[process], self._named[process] = {}, {}
        self.told(process, seeds)
        self._keep_dialling(process)

    def told(self, process: Process, hosts: Mapping[NodeId, str]) -> None:
        """Somebody tells a process where these peers are."""
        wanted, named = self._wanted[process], self._named[process]
        for peer, host in hosts.items():
            named[peer] = named.get(peer, frozenset()) | {host}
            wanted[peer] = wanted.get(peer, frozenset()) | {host}

    def learned(self, process: Process, changes: tuple[Address, ...]) -> None:
        """The process's address book changed."""
        wanted = self._wanted[process]
        for change in changes:
            if change.keep and change.peer != process.id:
                is_new = change.peer not in wanted
                named = self._named[process].get(change.peer, frozenset())
                wanted[change.peer] = named.union(host for host, _ in change.addresses)
                if is_new:
                    self._dial(process, change.peer)
            else:
                wanted.pop(change.peer, None)
                link = self._links.get((process, change.peer))
                if link is not None and not link.broken:
                    self._break(link, heard_by=(link.other(process),))

    def died(self, process: Process, *, silent: bool, in_order: bool = False) -> None:
        """A process ended. Unless `silent` (no power), its machine resets its links; `in_order`: it closed
        them itself, and what it had said before is heard."""
        self._wanted.pop(process, None)
        self._named.pop(process, None)
        self._met.pop(process, None)
        for key in sorted(self._ends(process), key=lambda key: key[1]):
            link = self._links.pop(key)
            if not link.broken:
                link.closed = in_order
                other = link.other(process)
                heard = not silent and (process.place, other.place) not in self._blocked
                self._break(link, heard_by=(other,) if heard else ())

    def reborn(self, process: Process) -> None:
        """It goes on under another boot number: every link is greeted on anew."""
        for link in [self._links[key] for key in sorted(self._ends(process), key=lambda key: key[1])]:
            if not link.broken:
                self._break(link, heard_by=(link.caller, link.callee))

    def _ends(self, process: Process) -> list[tuple[Process, NodeId]]:
        return [key for key in self._links if key[0] is process]

    # ---------------------------------------------------------------------------------- links

    def block(self, ways: frozenset[tuple[NodeId, NodeId]]) -> None:
        """From now on nothing passes these ways (and everything passes the others)."""
        self._blocked = ways
        by_name = sorted(self._links.items(), key=lambda entry: (entry[0][0].place, entry[0][1]))
        for (end, _), link in by_name:
            if end is link.caller and self._cut(end, link.callee) and not link.broken:
                self._expire_later(link)

    def unblock(self, ways: frozenset[tuple[NodeId, NodeId]]) -> None:
        """End this cut, unless another one has taken its place."""
        if self._blocked == ways:
            self.block(frozenset())

    def blocked(self, source: NodeId, target: NodeId) -> bool:
        return (source, target) in self._blocked

    def reset(self, one: NodeId, other: NodeId) -> bool:
        """A middlebox ends the link between two living processes. False if there was none."""
        link = self._link(one, other)
        if link is None or link.broken:
            return False
        self._break(link, heard_by=(link.caller, link.callee))
        return True

    def met(self, process: Process) -> set[NodeId]:
        """Who has introduced itself to this process."""
        return self._met.get(process, set())

    def peers(self, process: Process) -> list[Process]:
        """Who can answer this process over a link that carries both ways."""
        links = [self._links[key] for key in sorted(self._ends(process), key=lambda key: key[1])]
        open_ones = [link for link in links if not link.broken and not self._cut(link.caller, link.callee)]
        return [link.other(process) for link in open_ones]

    def linked(self, one: NodeId, other: NodeId) -> bool:
        link = self._link(one, other)
        return link is not None and not link.broken

    def _link(self, one: NodeId, other: NodeId) -> Link | None:
        end = self._world.process(one)
        return None if end is None else self._links.get((end, other))

    def _cut(self, one: Process, other: Process) -> bool:
        ways = ((one.place, other.place), (other.place, one.place))
        return not self._blocked.isdisjoint(ways)

    def _expire_later(self, link: Link) -> None:
        def look() -> None:
            if not link.broken and self._cut(link.caller, link.callee):
                self._break(link, heard_by=(link.caller, link.callee))

        self._world.after(self._dice.uniform(*SILENT_LINK_S), look)

    def _break(self, link: Link, *, heard_by: tuple[Process, ...]) -> None:
        """Nothing passes from now on; those who hear of it see it at once, others when they lose patience."""
        link.broken = True
        for end in (link.caller, link.callee):
            if end.alive:
                wait = RESET_S if end in heard_by else SILENT_LINK_S
                self._world.after(self._dice.uniform(*wait), partial(self._ended, end, link))

    def _ended(self, end: Process, link: Link) -> None:
        """One end sees that its link is over: it tries the peer's port at once, then tells its core."""
        peer = link.other(end)
        if not end.alive or self._links.get((end, peer.id)) is not link:
            return
        del self._links[end, peer.id]
        reachable = not self._cut(end, peer)
        there = self._world.process(peer.id)
        refused = reachable and there is None and self._world.powered(peer.id)
        if not refused and self._dice.random() < self._world.conditions.lies:
            self._world.strikes[Struck.LIED] += 1
            refused = True
        self._world.post(end, 0.0, LinkDown(peer.id, link.boots[peer.place], refused))
        if there is not None and peer.id in self._wanted.get(end, ()):
            self._dial(end, peer.id)

    def _dial(self, caller: Process, to: NodeId) -> None:
        """Call a peer; the link is up after a round trip, if it is where the caller believes it to be, both
        ways are open, and it answers."""

        def answer() -> None:
            if not caller.alive or caller.paused:
                return
            hosts = self._wanted[caller].get(to, frozenset())
            for callee in self._world.processes(to):
                if callee.host in hosts and not callee.paused and not self._cut(caller, callee):
                    self._up(caller, callee)
                    return

        self._world.after(self._delay() + self._delay(), answer)

    def _up(self, caller: Process, callee: Process) -> None:
        old = self._links.get((caller, callee.id))
        if old is not None and not old.broken:
            return
        other = self._other_life(caller, at=callee) or self._other_life(callee, at=caller)
        if other is not None:
            newer, known = other
            if newer.boot < known.boot or are_copies(newer.boot, known.boot):
                self._world.post(newer, 0.0, CloneMet(known.boot, True))
                return
        link = Link(caller, callee)
        for end, peer, address in ((caller, callee, (callee.host, PORT)), (callee, caller, None)):
            stale = self._links.get((end, peer.id))
            if stale is not None:
                if stale.other(end) is not peer and not stale.broken:
                    self._break(stale, heard_by=(stale.other(end),))
                stale.broken = True
                self._world.post(end, 0.0, LinkDown(peer.id, stale.boots[stale.other(end).place], False))
            self._links[end, peer.id] = link
            self._world.post(end, 0.0, LinkUp(peer.id, link.boots[peer.place], address))

    def _other_life(self, process: Process, *, at: Process) -> tuple[Process, Process] | None:
        """This process, and another one with its identity that `at` is linked to, as far as `at` knows."""
        link = self._links.get((at, process.id))
        if link is None or link.broken or link.other(at) is process:
            return None
        return process, link.other(at)

    def _keep_dialling(self, process: Process) -> None:
        if not process.alive:
            return
        if not process.paused:
            for peer in sorted(self._wanted[process]):
                if (process, peer) not in self._links:
                    self._dial(process, peer)
        self._world.after(REDIAL_S * self._dice.uniform(0.8, 1.2), lambda: self._keep_dialling(process))

    # ------------------------------------------------------------------------------- messages

    def send(self, source: Process, to: NodeId, message: Message) -> None:
        """A message leaves. Without a link the peer is called first; if that fails, the message is lost."""
        assert to != source.id, f"{source.id} sends {type(message).__name__} to itself"
        if self.rule is not None and self.rule(source.id, to, message):
            return
        if self._codec:
            message = decode(encode(message))
        link = self._links.get((source, to))
        if link is not None:
            self._transmit(link, source, message)
            return
        self._dial(source, to)
        boot = source.boot

        def retry() -> None:
            made = self._links.get((source, to))
            if source.alive and made is not None and source.boot == boot:
                self._transmit(made, source, message)

        self._world.after(4 * self._world.conditions.delay_s, retry)

    def deliver(self, source: NodeId, to: NodeId, message: Message) -> None:
        """A message from long ago arrives now, whatever became of the link it was sent on."""
        target = self._world.process(to)
        if target is not None:
            self._world.post(target, 0.0, MessageArrived(source, message))

    def _transmit(self, link: Link, source: Process, message: Message) -> None:
        strikes, conditions = self._world.strikes, self._world.conditions
        target = link.other(source)
        if (source.place, target.place) in self._blocked:
            strikes[Struck.CUT_OFF] += 1
            self._world.vanished(source.id, target.id, message)
            return
        if link.broken:
            return
        if self._dice.random() < conditions.loss:
            strikes[Struck.LOST] += 1
            self._world.vanished(source.id, target.id, message)
            return
        if self._dice.random() < conditions.replay:
            strikes[Struck.REPLAYED] += 1
            again = partial(self._replayed, source.id, target.place, message, source.boot)
            self._world.after(self._dice.uniform(*REPLAY_S), again)
        copies = 1
        if self._dice.random() < conditions.duplicate:
            strikes[Struck.DOUBLED] += 1
            copies = 2
        for _ in range(copies):
            delay = self._delay()
            if self._dice.random() < conditions.late:
                strikes[Struck.LATE] += 1
                delay += self._dice.uniform(0.0, conditions.late_s)
            arrives = self._world.now + delay
            way = (source.id, isinstance(message, CONTROL))
            before = link.last.get(way, 0.0)
            if arrives < before and conditions.reorder:
                strikes[Struck.OVERTOOK] += 1
            elif arrives < before:
                arrives = before
            link.last[way] = max(arrives, before)
            arrive = partial(self._arrived, link, target, source, message)
            self._world.after(arrives - self._world.now, arrive)

    def _replayed(self, source: NodeId, to: NodeId, message: Message, boot: int) -> None:
        """What was said once is said again, to whichever life of its target there is now."""
        target = self._world.process(to)
        if target is not None:
            self._world.post(target, 0.0, MessageArrived(source, message, boot))

    def _arrived(self, link: Link, target: Process, source: Process, message: Message) -> None:
        if (link.broken and not link.closed) or not target.alive:
            return
        if (source.place, target.place) in self._blocked:
            self._world.strikes[Struck.CUT_OFF] += 1
            self._world.vanished(source.id, target.id, message)
            return
        if isinstance(message, Sync):
            self._met.setdefault(target, set()).add(source.id)
        self._world.post(target, 0.0, MessageArrived(source.id, message, link.boots[source.place]))

    def _delay(self) -> Seconds:
        return self._dice.uniform(0.1, 1.0) * self._world.conditions.delay_s
