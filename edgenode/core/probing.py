"""Whether a member answers: pings, and helpers that ping it too (SWIM section 3.1, and Lifeguard).

    pinged --no answer in time--> helpers asked --they had none in time either--> overdue
    pinged or helpers asked --an answer, its own or through a helper--> over

A helper relays: it pings the target under a number of its own, and passes the answer on or says that there
was none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, assert_never

from edgenode.core.members import Member, Members
from edgenode.core.meshclock import MeshClock
from edgenode.core.outbox import Outbox
from edgenode.core.settings import MembershipSettings
from edgenode.core.suspicion import LocalHealth
from edgenode.core.types import FOREVER, Dice, Instant, NodeId
from edgenode.core.wire import Nack, Ping, PingReq, Pong, Rumour

RELAYS_MAX: Final = 64
"""Pings sent for others at one time; more askers get a `Nack` at once."""
NACK_SHARE: Final = 0.8
"""A helper says that it failed after this share of the probe's timeout (Lifeguard section IV.A)."""


@dataclass(slots=True)
class Probe:
    """A question whether `target` lives. `helpers` is empty until they are asked."""

    target: NodeId
    began: Instant
    ask_at: Instant
    ends_at: Instant
    helpers: tuple[NodeId, ...] = ()
    asked: bool = False
    nacks: set[NodeId] = field(default_factory=set)

    def due_at(self) -> Instant:
        return self.ends_at if self.asked else self.ask_at

    @property
    def nacks_missing(self) -> int:
        """Helpers that said nothing at all: then it may be us who cannot be heard (Lifeguard)."""
        return len(self.helpers) - len(self.nacks)


@dataclass(frozen=True, slots=True)
class Relay:
    """A ping sent for somebody else."""

    asker: NodeId
    seq: int  # the asker's own number
    target: NodeId
    nack_at: Instant


class Prober:
    """Drive it with the messages about pings and with time; it answers through the outbox.

    Of a member that answered it notes when that was and its load; who did not answer, `overdue` says.
    """

    def __init__(
        self,
        members: Members,
        outbox: Outbox,
        settings: MembershipSettings,
        dice: Dice,
        clock: MeshClock,
    ) -> None:
        self._members = members
        self._outbox = outbox
        self._settings = settings
        self._dice = dice
        self._clock = clock
        self._me = members.myself.id
        self._probes: dict[int, Probe] = {}
        self._relays: dict[int, Relay] = {}
        self._seq = 0
        self.health: Final = LocalHealth(settings.health_max)
        """Every answer makes it better, every silence worse; who learns more of it says so."""

    def deadline(self) -> Instant:
        return min(
            min((probe.due_at() for probe in self._probes.values()), default=FOREVER),
            min((relay.nack_at for relay in self._relays.values()), default=FOREVER),
        )

    def probe(self, target: NodeId, now: Instant) -> None:
        """Ping it now, unless that is being done, or too many others are."""
        if target == self._me or len(self._probes) >= self._settings.probes_max:
            return
        if any(probe.target == target for probe in self._probes.values()):
            return
        stretch = self.health.stretch
        ask_at = now + stretch(self._settings.probe_timeout_s)
        ends_at = now + stretch(self._settings.probe_period_s)
        seq = self._next_seq()
        self._probes[seq] = Probe(target, now, ask_at, ends_at)
        self._ping(seq, target)

    def introduce(self, peer: NodeId) -> None:
        """Show ourselves to a peer. Its answer is not waited for."""
        self._ping(self._next_seq(), peer, self._members.myself.belief)

    def forget(self) -> None:
        """Wait for nobody any more, neither for this node nor for others."""
        self._probes.clear()
        self._relays.clear()

    def receive(self, source: NodeId, message: Ping | PingReq | Pong | Nack, now: Instant) -> None:
        match message:
            case Ping(seq, target):
                # Else the address has changed hands, and the one that was meant must not seem alive.
                if target == self._me:
                    self._answer(source, seq, now)
                    if self.health.level == 0:  # who doubts itself asks: only answers make that better
                        self._members.alive.pinged(source, now)
            case PingReq(seq, target):
                self._relay(source, seq, target, now)
            case Pong():
                self._pong(source, message, now)
            case Nack(seq):
                probe = self._probes.get(seq)
                if probe is not None and source in probe.helpers:
                    probe.nacks.add(source)
            case _:
                assert_never(message)

    def overdue(self, now: Instant) -> Iterator[Member]:
        """Go on with what is due; whoever did not answer in time comes out.

        One by one: what is sent for the next probe can then say already that the last one failed.
        """
        for seq, probe in list(self._probes.items()):
            member = self._members.get(probe.target)
            if member is None or not member.is_alive:
                del self._probes[seq]
            elif now >= probe.ends_at:
                del self._probes[seq]
                # Helpers that could not even say no accuse us rather than the target.
                self.health.worse(probe.nacks_missing if probe.helpers else 1)
                yield member
            elif now >= probe.ask_at and not probe.asked:
                self._ask_helpers(seq, probe)
        self._give_up_relays(now)

    def _ask_helpers(self, seq: int, probe: Probe) -> None:
        probe.asked = True
        others = [node for node in self._members.alive.watched() if node != probe.target]
        probe.helpers = tuple(self._dice.sample(others, min(self._settings.helpers, len(others))))
        for helper in probe.helpers:
            self._outbox.send(helper, PingReq(seq, probe.target, self._outbox.rumours_for(helper)))

    def _pong(self, source: NodeId, pong: Pong, now: Instant) -> None:
        relay = self._relays.get(pong.seq)
        if relay is not None and relay.target == source:
            del self._relays[pong.seq]
            # It may come after news of the target's next life, and nobody could tell whose writes it means.
            load = pong.load._replace(written=0)
            passed_on = Pong(relay.seq, load, self._outbox.rumours_for(relay.asker), pong.wall)
            self._outbox.send(relay.asker, passed_on)
            return
        probe = self._probes.get(pong.seq)
        if probe is None or (source != probe.target and source not in probe.helpers):
            return  # a late answer proves nothing about the present probe
        del self._probes[pong.seq]
        self._clock.hear(probe.target, pong.wall, now, round_trip_s=now - probe.began)
        self.health.better()
        target = self._members.get(probe.target)
        if target is not None:
            target.heard_at = now
            target.load = pong.load

    # ------------------------------------------------------------------------------ asked by others

    def _answer(self, asker: NodeId, seq: int, now: Instant) -> None:
        load, wall = self._members.myself.load, self._clock.told(now)
        self._outbox.send(asker, Pong(seq, load, self._outbox.rumours_for(asker), wall))

    def _relay(self, asker: NodeId, seq: int, target: NodeId, now: Instant) -> None:
        if target == self._me:
            self._answer(asker, seq, now)
            return
        if target not in self._members or len(self._relays) >= RELAYS_MAX:
            self._outbox.send(asker, Nack(seq, self._outbox.rumours_for(asker)))
            return
        own_seq = self._next_seq()
        nack_at = now + NACK_SHARE * self._settings.probe_timeout_s
        self._relays[own_seq] = Relay(asker, seq, target, nack_at)
        self._ping(own_seq, target)

    def _give_up_relays(self, now: Instant) -> None:
        for seq, relay in list(self._relays.items()):
            if now >= relay.nack_at:
                del self._relays[seq]
                self._outbox.send(relay.asker, Nack(relay.seq, self._outbox.rumours_for(relay.asker)))

    def _ping(self, seq: int, to: NodeId, *first: Rumour) -> None:
        rumours = (*first, *self._outbox.rumours_for(to))
        self._outbox.send(to, Ping(seq, to, self._members.myself.load, rumours))

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq
