"""Who is in the mesh, and who lives: SWIM with Lifeguard, and proof of death beside silence.

One member's belief of another moves like this (a higher incarnation or a later boot returns to alive):

    alive --probe and helpers failed--> suspect --not refuted in time--> dead (silent)
    alive or suspect --two members saw its port refuse--> dead (gone)
    alive --says goodbye--> leaving --> left (gone)

Sources: Das, Gupta and Motivala, "SWIM", 2002; Dadgar, Phillips and Currey, "Lifeguard", 2018.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from edgenode.core.comparison import differences, disclosures, others_in, root_of
from edgenode.core.errors import MalformedMessage
from edgenode.core.gossip import (
    Allowance,
    RumourQueue,
    frames_of,
    is_alive,
    is_proven,
    is_sane,
    memory_of,
    precedence,
    recall,
    retransmissions,
)
from edgenode.core.meshclock import MeshClock
from edgenode.core.probing import Probe, Relay
from edgenode.core.roster import BOOT_ONLY, Member, Roster
from edgenode.core.settings import MembershipSettings
from edgenode.core.signals import (
    Address,
    Booted,
    Effect,
    LeaveAsked,
    LinkDown,
    LinkUp,
    Log,
    MessageArrived,
    Peers,
    Remember,
    Send,
    TimePassed,
)
from edgenode.core.suspicion import LocalHealth, Suspicion
from edgenode.core.types import (
    FOREVER,
    NOBODY,
    Dice,
    Drain,
    Instant,
    Load,
    MemberInfo,
    MemberState,
    NodeId,
    Seconds,
    are_copies,
    starts_of,
)
from edgenode.core.view import Standing
from edgenode.core.wire import (
    Branch,
    Compare,
    Disclose,
    Evidence,
    MembershipMessage,
    Message,
    Nack,
    Ping,
    PingReq,
    Place,
    Pong,
    Rumour,
    Sync,
)

RELAYS_MAX = 64
"""Pings sent for others at one time; more askers get a `Nack` at once."""
STRANGERS_MAX = 256
"""Peers with a link of which no rumour has come yet."""
NACK_SHARE = 0.8
"""A helper says that it failed after this share of the probe's timeout (Lifeguard section IV.A)."""

MembershipEvent = Booted | LinkUp | LinkDown | MessageArrived | TimePassed | LeaveAsked


class Membership(Roster):
    """Feed it events, and `TimePassed` when `deadline()` has come; carry out the effects in order.

    Promises: its own state is never dead in its own view; what it holds and sends at once is bounded; and
    after `TimePassed` the deadline lies ahead.
    """

    def __init__(
        self,
        info: MemberInfo,
        settings: MembershipSettings,
        dice: Dice,
        clock: MeshClock | None = None,
        *,
        expects_peers: bool = False,
        knows_peers: bool = False,
    ) -> None:
        """
        Args:
            clock: told of every member, and of each one's reading; asked what this node's own clock shows.
        """
        super().__init__(info, settings, dice, expects_peers=expects_peers, knows_peers=knows_peers)
        self._clock = MeshClock() if clock is None else clock
        self._dice = dice
        self._health = LocalHealth(settings.health_max)
        self._queue = RumourQueue(
            per_message=settings.rumours_per_message, bytes_max=settings.rumour_bytes_max
        )
        self._effects: list[Effect] = []
        self._book: dict[NodeId, Address] = {}  # changes for the effect `Peers`
        self._strangers: dict[NodeId, LinkUp] = {}
        self._suspects: set[NodeId] = set()
        self._probes: dict[int, Probe] = {}
        self._relays: dict[int, Relay] = {}
        self._seq = 0
        self._allowance = Allowance(per_s=settings.syncs_per_s, burst=settings.syncs_burst)
        self._asked: dict[NodeId, Instant] = {}  # whose whole view was asked for just now
        self._remembered: frozenset[tuple[NodeId, int, tuple[tuple[str, int], ...]]] = frozenset()
        self._is_dirty = False
        self._is_grace_over = False
        self._rivals: dict[int, bool] = {}  # other lives of this identity, and whether they are said to live
        self._due: Instant = FOREVER
        self._probe_at = self._sync_at = self._heal_at = self._tidy_at = self._remember_at = FOREVER

    @property
    def is_cut_off(self) -> bool:
        return bool(self._strangers) or super().is_cut_off

    # -------------------------------------------------------------------------------------- driving

    def handle(self, event: MembershipEvent, now: Instant) -> list[Effect]:
        self._begin(now)
        if self._myself.belief.state is MemberState.LEFT:
            return self._finish()  # after goodbye there is nothing to say
        match event:
            case Booted(peers=peers):
                self._boot_up(peers)
            case LinkUp():
                self._link_up(event)
            case LinkDown(peer, boot, refused):
                self._link_down(peer, boot, refused)
            case MessageArrived(source, message):
                assert isinstance(message, MembershipMessage), f"not for membership: {message!r:.80}"
                self._receive(source, message)
            case TimePassed():
                self._catch_up()
            case LeaveAsked():
                if self._myself.belief.state is not MemberState.LEAVING:
                    self._say(MemberState.LEAVING, ready=False)
            case _:
                assert_never(event)
        return self._finish()

    def deadline(self) -> Instant:
        """When `TimePassed` is wanted: as of the last event, since nothing else changes it."""
        return self._due

    def _next_due(self) -> Instant:
        """Derived from state after every event, so there is no timer to forget to cancel."""
        if self._myself.belief.state is MemberState.LEFT:
            return FOREVER
        regular = (self._probe_at, self._sync_at, self._heal_at, self._tidy_at)
        return min(
            *regular,
            self._remember_at if self._is_dirty else FOREVER,
            min((probe.due_at() for probe in self._probes.values()), default=FOREVER),
            min((relay.nack_at for relay in self._relays.values()), default=FOREVER),
            min((self._suspicion_ends(self._members[node]) for node in self._suspects), default=FOREVER),
            FOREVER if self._is_grace_over else self._grace_ends,
            self._formation_ends if self._now < self._formation_ends else FOREVER,
        )

    def set_load(self, load: Load) -> None:
        """Show this load on every ping and answer from now on."""
        self._myself.load = load

    def set_ready(self, ready: bool, now: Instant) -> list[Effect]:
        """Say that this node takes new jobs, or takes none. One that leaves takes none any more."""
        self._begin(now)
        belief = self._myself.belief
        if belief.state in (MemberState.JOINING, MemberState.READY) and belief.info.ready != ready:
            self._say(MemberState.READY if ready else MemberState.JOINING, ready=ready)
        return self._finish()

    def take_part(self, drain: Drain, weight: float, now: Instant) -> list[Effect]:
        """Say how this node takes part from now on."""
        self._begin(now)
        mine = self._myself.belief
        info = mine.info._replace(drain=drain, weight=weight, ready=mine.info.ready and not drain)
        if mine.state is not MemberState.LEFT and info != mine.info:
            state = MemberState.JOINING if drain and mine.state is MemberState.READY else mine.state
            self._describe(state, info)
        return self._finish()

    def left(self, now: Instant) -> list[Effect]:
        """Say goodbye, to several directly: this process has no time for rumours to spread."""
        self._begin(now)
        if self._myself.belief.state is not MemberState.LEFT:
            self._say(MemberState.LEFT, ready=False)
        return self._finish()

    def resign(self, now: Instant) -> list[Effect]:
        """Say that the disk takes no writes: this node lives, but owns, holds and runs nothing now."""
        self._begin(now)
        mine = self._myself.belief
        if mine.state is not MemberState.LEFT:
            self._describe(mine.state, mine.info._replace(ready=False, stores=False))
        return self._finish()

    def begin_life(self, boot: int, now: Instant) -> list[Effect]:
        """The same process under another boot number: what it said and ran before is an earlier life's."""
        self._begin(now)
        assert boot > self.boot
        mine = self._myself.belief
        if mine.state is not MemberState.LEFT:
            info = mine.info._replace(boot=boot, ready=False, stores=True)
            self._describe(MemberState.JOINING, info)
        return self._finish()

    def _begin(self, now: Instant) -> None:
        assert now >= self._now, f"time went backwards: {self._now} -> {now}"
        late_s = now - max(self._due, self._now)
        self._now = now
        if late_s > self._settings.late_s:
            self._wake_up(late_s)

    def _finish(self) -> list[Effect]:
        effects = self._effects
        self._effects = []
        if self._book:
            # First: the shell needs the addresses for what is sent next.
            effects.insert(0, Peers(tuple(self._book[node] for node in sorted(self._book))))
            self._book = {}
        self._due = self._next_due()
        return effects

    def _boot_up(self, peers: Iterable[bytes]) -> None:
        settings, now = self._settings, self._now
        self._grace_ends = now + settings.grace_s
        self._formation_ends = now + settings.formation_s
        # Not in step with the others that were started together.
        self._probe_at = now + self._dice.uniform(0.0, 1.0) * settings.probe_period_s
        self._sync_at = now + self._dice.uniform(0.5, 1.5) * settings.sync_period_s
        self._heal_at = now + self._dice.uniform(0.5, 1.5) * settings.heal_period_s
        self._tidy_at = now + settings.tidy_period_s
        self._remember_at = now
        for packed in peers:
            try:
                rumour = recall(packed)
            except MalformedMessage as error:
                self._effects.append(Log("peers-damaged", f"a remembered peer is unreadable: {error}", True))
                continue
            if rumour.info.id not in self._members and len(self._members) < settings.members_max:
                self._add(Member(rumour, met=False, since=now))
                self._expects_peers = True
        self._touch(self._id)

    def _wake_up(self, late_s: Seconds) -> None:
        """This node stood still. What it did not hear meanwhile is nobody's silence: listen first."""
        listen_s = self._health.stretch(self._settings.probe_period_s)
        self._health.worse()
        self._probes.clear()
        self._relays.clear()
        for node in self._suspects:
            suspicion = self._members[node].suspicion
            assert suspicion is not None
            suspicion.started += late_s + listen_s
        self._probe_at = max(self._probe_at, self._now + listen_s)
        if self._now - late_s < self._grace_ends:
            self._grace_ends += late_s
        if self._now - late_s < self._formation_ends:
            self._formation_ends += late_s
        if late_s > self._settings.suspicion_s:
            self._effects.append(Log("stalled", f"this node stood still for {late_s:.2f} s", warning=True))

    # ---------------------------------------------------------------------------------------- links

    def _link_up(self, link: LinkUp) -> None:
        if link.peer == self._id:
            self._rivals[link.boot] = True
            return
        member = self._members.get(link.peer)
        known = self.boot_of(link.peer)
        if link.boot < known:
            text = f"{link.peer} came with start {starts_of(link.boot)}, it had {starts_of(known)} before"
            self._effects.append(Log("boot-behind", text, warning=True))
            return
        if member is None:
            if len(self._strangers) < STRANGERS_MAX:
                self._strangers[link.peer] = link
            # One side is enough to start an exchange of views; the caller does.
            self._greet(link.peer, wants_all=link.address is not None)
            return
        if are_copies(link.boot, known) and self.is_living(link.peer):
            return  # two copies of one disk: the first one to come stays, until it hears of a later one
        if member.belief.state is MemberState.LEFT and link.boot == member.belief.info.boot:
            return
        was_living = member.is_alive and link.boot == member.belief.info.boot
        if link.boot > member.belief.info.boot:
            self._begin_life(member, link.boot)
        member.heard_at = self._now
        member.witnesses.pop(self._id, None)
        self._confirm(member)
        self._reach(member, link.address)
        is_dead = not member.is_alive
        self._greet(link.peer, wants_all=is_dead or (not was_living and link.address is not None))

    def _greet(self, peer: NodeId, *, wants_all: bool) -> None:
        """Exchange whole views with a peer that is news; else just show ourselves to it."""
        if wants_all and self._allowance.take(self._now):
            self._ask_view(peer)
        else:
            introduction = (self._myself.belief, *self._rumours_for(peer))
            self._send(peer, Ping(self._next_seq(), peer, self._myself.load, introduction))

    def _link_down(self, peer: NodeId, boot: int, refused: bool) -> None:
        self._strangers.pop(peer, None)
        member = self._members.get(peer)
        if member is None or member is self._myself or boot < member.belief.info.boot:
            return
        if boot > member.belief.info.boot:
            self._begin_life(member, boot)
        if refused:
            self._testify(member, self._id, member.belief.incarnation)
        elif member.is_alive:
            self._probe(peer)

    def _begin_life(self, member: Member, boot: int) -> None:
        """The process that we knew is gone; of the new one only its boot number is known yet."""
        info = member.belief.info._replace(boot=boot, ready=False, stores=True)
        self._adopt(member, Rumour(info, BOOT_ONLY, MemberState.JOINING, NOBODY))

    def _reach(self, member: Member, address: tuple[str, int] | None) -> None:
        if address is not None and member.addresses[:1] != (address,):
            member.reached_at = address
            self._enter(member)

    def _enter(self, member: Member, *, keep: bool = True) -> None:
        info = member.belief.info
        self._book[info.id] = Address(info.id, info.boot, member.addresses, keep)
        self._is_dirty = True

    # ------------------------------------------------------------------------------------- messages

    def _receive(self, source: NodeId, message: MembershipMessage) -> None:
        if source == self._id:
            return
        self._has_met = True
        was_living = self._is_alive(source)
        self._note_life(source)
        match message:
            case Ping(seq, target, load, rumours):
                self._hear_all(rumours, source, load)
                # Else the address has changed hands, and the one that was meant must not seem alive.
                if target == self._id:
                    self._send(source, self._answer(source, seq))
            case PingReq(seq, target, rumours):
                self._hear_all(rumours, source)
                self._relay(source, seq, target)
            case Pong(_, _, rumours):
                self._hear_all(rumours, source)
                self._pong(source, message)
            case Nack(seq, rumours):
                self._hear_all(rumours, source)
                probe = self._probes.get(seq)
                if probe is not None and source in probe.helpers:
                    probe.nacks.add(source)
            case Sync(reply, load, rumours):
                before = list(self._alive)
                self._hear_all(rumours, source, load)
                if source not in before or source in self._asked:
                    self._spread_view(source, rumours, before)
                if not reply:
                    self._send_view(source, is_reply=True)
            case Compare() | Disclose():
                self._compare(source, message, was_living=was_living)
            case Evidence(node, boot, incarnation):
                self._weigh_evidence(source, node, boot, incarnation)
            case _:
                assert_never(message)
        # A view that was asked for just now will probably name the stranger.
        if source not in self._members and not self._asked and self._allowance.take(self._now):
            self._ask_view(source)

    def _note_life(self, source: NodeId) -> None:
        member = self._members.get(source)
        if member is not None:
            member.heard_at = self._now
            self._confirm(member)

    def _hear_all(self, rumours: Iterable[Rumour], source: NodeId, load: Load | None = None) -> None:
        for rumour in rumours:
            self._hear(rumour, source)
        member = self._members.get(source)
        if member is not None:
            member.heard_at = self._now
            if load is not None:
                member.load = load

    def _answer(self, asker: NodeId, seq: int) -> Pong:
        return Pong(seq, self._myself.load, self._rumours_for(asker), self._clock.told(self._now))

    def _pong(self, source: NodeId, pong: Pong) -> None:
        relay = self._relays.get(pong.seq)
        if relay is not None and relay.target == source:
            del self._relays[pong.seq]
            # It may come after news of the target's next life, and nobody could tell whose writes it means.
            load = pong.load._replace(written=0)
            passed_on = Pong(relay.seq, load, self._rumours_for(relay.asker), pong.wall)
            self._send(relay.asker, passed_on)
            return
        probe = self._probes.get(pong.seq)
        if probe is None or (source != probe.target and source not in probe.helpers):
            return  # a late answer proves nothing about the present probe
        del self._probes[pong.seq]
        round_trip_s = self._now - probe.began
        self._clock.hear(probe.target, pong.wall, self._now, round_trip_s=round_trip_s)
        self._health.better()
        target = self._members.get(probe.target)
        if target is not None:
            target.heard_at = self._now
            target.load = pong.load

    def _relay(self, asker: NodeId, seq: int, target: NodeId) -> None:
        if target == self._id:
            self._send(asker, self._answer(asker, seq))
            return
        if target not in self._members or len(self._relays) >= RELAYS_MAX:
            self._send(asker, Nack(seq, self._rumours_for(asker)))
            return
        own_seq = self._next_seq()
        nack_at = self._now + NACK_SHARE * self._settings.probe_timeout_s
        self._relays[own_seq] = Relay(asker, seq, target, nack_at)
        self._send(target, Ping(own_seq, target, self._myself.load, self._rumours_for(target)))

    # ---------------------------------------------------------------------------------------- beliefs

    def _hear(self, rumour: Rumour, source: NodeId) -> None:
        """Take what `source` says about somebody into account."""
        node = rumour.info.id
        member = self._members.get(node)
        if member is not None and member.met and rumour == member.belief and member.suspicion is None:
            return  # most of what is heard in a large mesh, while news goes round, is heard again
        if not is_sane(rumour):
            return
        if node == self._id:
            self._hear_of_myself(rumour, source)
            return
        # One that is dead to us has to refute that first: after a cut it takes all of us for dead.
        is_accusation = rumour.state in (MemberState.SUSPECT, MemberState.DEAD)
        if is_accusation and not self._is_alive(source):
            return
        if member is None:
            self._hear_of_stranger(rumour, source)
            return
        if rumour.state is MemberState.DEAD and not is_proven(rumour):
            rumour = self._doubt(member, rumour)
        before = member.belief
        same_life = rumour.info.boot == before.info.boot
        if (
            rumour.state is before.state is MemberState.SUSPECT
            and same_life
            and rumour.incarnation == before.incarnation
        ):
            self._confirm_suspicion(member, rumour)
        elif precedence(rumour) > precedence(before):
            self._adopt(member, rumour)
        elif same_life and is_alive(rumour) and is_alive(before) and self._is_alive(source):
            self._confirm(member)

    def _doubt(self, member: Member, rumour: Rumour) -> Rumour:
        """Turn a death of silence that comes without an older suspicion into a suspicion.

        Whoever returns from behind a cut takes all of the other side for dead; those are asked first
        (as memberlist does with the dead of a push and pull). Where a death is true, the suspicion has
        been known for most of its time before.
        """
        if not member.is_alive or precedence(rumour) <= precedence(member.belief):
            return rumour
        suspicion = member.suspicion
        known_s = self._suspicion_s(member) / 2
        if suspicion is not None and self._now - suspicion.started >= known_s:
            return rumour
        self._probe(rumour.info.id)
        return rumour._replace(state=MemberState.SUSPECT)

    def _hear_of_stranger(self, rumour: Rumour, source: NodeId) -> None:
        """Somebody new. The dead are remembered too, since jobs may name them, but not passed on."""
        grave = self._graves.get(rumour.info.id)
        if grave is not None and not grave.is_newer(rumour):
            if source == rumour.info.id and not grave.left:
                # It was cut off until long after its death, and others have forgotten it too: what it says
                # of itself has to beat what they remember.
                death = rumour._replace(state=MemberState.DEAD, accuser=self._id)
                told = (self._myself.belief, death._replace(incarnation=grave.incarnation))
                self._send(source, Sync(False, self._myself.load, told))
            return
        if rumour.state is MemberState.LEFT or not self._make_room():
            return
        node = rumour.info.id
        is_dead = rumour.state is MemberState.DEAD
        if rumour.state is MemberState.SUSPECT:
            # Our own suspicion starts when our own probe has failed, or the next accuser speaks.
            neutral = MemberState.READY if rumour.info.ready else MemberState.JOINING
            rumour = rumour._replace(state=neutral, accuser=NOBODY)
        member = Member(rumour, met=True, since=self._now, hearsay=is_dead)
        link = self._strangers.pop(node, None)
        if link is not None and link.boot >= rumour.info.boot:
            member.reached_at = link.address
            member.heard_at = self._now
        self._add(member)
        if link is not None and link.boot > rumour.info.boot:
            self._begin_life(member, link.boot)
        elif not is_dead:
            self._queue.put(rumour)
            self._effects.append(Log("member-joined", f"{self._name(member)} is a member"))

    def _make_room(self) -> bool:
        """Is there room for one more? The longest dead give way."""
        if len(self._members) < self._settings.members_max:
            return True
        dead = [
            member
            for node, member in self._members.items()
            if not self._is_alive(node) and self.dead_since(node) is not None
        ]
        if not dead:
            return False
        self._forget(min(dead, key=lambda member: (member.since, _id(member))))
        return True

    def _add(self, member: Member) -> None:
        node = member.belief.info.id
        self._graves.pop(node, None)
        self._members[node] = member
        if not member.hearsay:
            self._clock.met(node)
        if member.is_alive:
            self._alive.add(node)
        self._enter(member)
        self._touch(node)

    def _forget(self, member: Member) -> None:
        """Let go of a dead member. What the job side sees of it stays as it was."""
        node = member.belief.info.id
        if member.met:
            self._dig_grave(member)
        del self._members[node]
        self._clock.forget(node)
        self._doubted.pop(node, None)
        self._drop_suspicion(member)
        self._alive.remove(node)
        self._accused.discard(node)
        self._queue.drop(node)
        self._enter(member, keep=False)

    def _confirm(self, member: Member) -> None:
        """It lives, by word of its own or of somebody living, and is not merely remembered."""
        if not member.met:
            member.met = True
            member.since = self._now
            if member.is_alive:
                self._alive.add(member.belief.info.id)
                self._log_met(member)
            self._touch(member.belief.info.id)

    def _adopt(self, member: Member, rumour: Rumour) -> None:
        """Believe a rumour that takes precedence, and pass it on."""
        before, was_alive, was_met = member.belief, member.is_alive, member.met
        node = rumour.info.id
        assert rumour.info.boot > before.info.boot or precedence(rumour) > precedence(before)
        if rumour.state is not MemberState.SUSPECT and is_alive(rumour) and self._is_isolated():
            # We were cut off from everybody, and hear again: that nobody answered was not our slowness.
            self._health.recovered()
        member.belief = rumour
        member.met = True
        if rumour.info.boot > before.info.boot:
            self._forget_life(member)
        if (member.is_alive, rumour.info.stores) != (was_alive, before.info.stores) or not was_met:
            member.since = self._now
        if rumour.state is MemberState.SUSPECT:
            self._suspect(member)
        elif member.suspicion is not None:
            # Nobody agreed with a single accuser: that one was slow or cut off, and the member is not.
            is_shared = len(member.suspicion.accusers) > min(1, self._confirmations_max())
            if member.is_alive and is_shared:
                member.patience.refuted(self._now, self._settings.patience_forget_s)
            self._drop_suspicion(member)
        if member.is_alive:
            self._clock.met(node)
            if before.state is MemberState.DEAD and rumour.info.boot == before.info.boot:
                # It refuted its death, so what its accusers saw was not the end of its process.
                member.cleared, member.hearsay = rumour.incarnation, False
                member.witnesses.clear()
                self._accused.discard(node)
            self._alive.add(node)
        else:
            self._alive.remove(node)
        self._publish(member, before, was_alive, was_met=was_met)

    def _publish(self, member: Member, before: Rumour, was_alive: bool, *, was_met: bool) -> None:
        """Tell everybody who has to know that a belief changed: the mesh, the shell, the job side."""
        rumour = member.belief
        node = rumour.info.id
        if rumour.incarnation > BOOT_ONLY:
            self._queue.put(rumour)
        is_book_old = (before.info.boot, before.info.addresses) != (rumour.info.boot, rumour.info.addresses)
        if rumour.state is MemberState.LEFT:
            self._clock.forget(node)
            self._enter(member, keep=False)
            self._effects.append(Log("member-left", f"{self._name(member)} has left"))
        elif is_book_old or before.state is MemberState.LEFT:
            self._enter(member)
        if rumour.info.boot > before.info.boot:
            text = f"{self._name(member)} began life {starts_of(rumour.info.boot)}"
            self._effects.append(Log("member-reborn", text))
        elif before.info.stores and not rumour.info.stores:
            text = f"{self._name(member)} lives, but its disk takes no writes: its jobs move"
            self._effects.append(Log("member-resigned", text, warning=True))
        elif member.is_alive and not was_met:
            self._log_met(member)
        elif member.is_alive and not was_alive:
            self._effects.append(Log("member-returned", f"{self._name(member)} is alive after all"))
        elif rumour.state is MemberState.DEAD and was_alive:
            why = "its port refuses" if is_proven(rumour) else "it is silent"
            self._effects.append(Log("member-dead", f"{self._name(member)} is dead: {why}", warning=True))
        self._touch(node)

    def _log_met(self, member: Member) -> None:
        self._effects.append(Log("member-met", f"{self._name(member)}, known from before, is alive"))

    def _is_isolated(self) -> bool:
        """Is every other member silent, several of them? A single one may be the silent one itself."""
        if len(self._suspects) < len(self._alive):
            return False
        silent = sum(self.standing(node) is Standing.SILENT for node in self._members)
        return len(self._suspects) + silent > 1

    def _forget_life(self, member: Member) -> None:
        """Evidence about an earlier life says nothing of this one."""
        self._drop_suspicion(member)
        member.witnesses.clear()
        self._accused.discard(member.belief.info.id)
        member.cleared = BOOT_ONLY
        member.hearsay = False
        member.load = Load()

    # -------------------------------------------------------------------------------------- suspicion

    def _accuse(self, member: Member) -> None:
        """Our own probe failed, and so did those of the helpers."""
        accusation = member.belief._replace(state=MemberState.SUSPECT, accuser=self._id)
        if member.suspicion is None:
            text = f"{self._name(member)} does not answer"
            self._effects.append(Log("member-suspected", text))
            self._adopt(member, accusation)
            self._tell(accusation)
        elif self._id not in member.suspicion.accusers:
            self._confirm_suspicion(member, accusation)
            self._tell(accusation)

    def _suspect(self, member: Member) -> None:
        self._suspects.add(member.belief.info.id)
        member.suspicion = Suspicion(self._now, {member.belief.accuser})

    def _confirm_suspicion(self, member: Member, accusation: Rumour) -> None:
        """One more accuser of a suspect: so many shorten the wait, and those are passed on."""
        member.belief = max(member.belief, accusation, key=precedence)
        suspicion = member.suspicion
        if suspicion is None or accusation.accuser in suspicion.accusers:
            return
        if len(suspicion.accusers) <= self._settings.confirmations:
            suspicion.accusers.add(accusation.accuser)
            self._queue.put(accusation)

    def _drop_suspicion(self, member: Member) -> None:
        member.suspicion = None
        self._suspects.discard(member.belief.info.id)

    def _hear_of_myself(self, rumour: Rumour, source: NodeId) -> None:
        mine = self._myself.belief
        if rumour.info.boot > mine.info.boot:
            self._rivals[rumour.info.boot] = is_alive(rumour)
            return
        if rumour.info.boot < mine.info.boot:
            # What peers hold of an earlier life: begin above it, and the order needs no exception.
            if rumour.incarnation >= mine.incarnation:
                self._raise_incarnation(rumour.incarnation)
                self._tell(self._myself.belief)
            return
        if rumour.state is MemberState.LEFT:
            return  # said by this process: it handles nothing any more
        is_accusation = rumour.state in (MemberState.SUSPECT, MemberState.DEAD)
        if rumour.incarnation > mine.incarnation or (
            is_accusation and rumour.incarnation == mine.incarnation
        ):
            if is_accusation:
                self._health.worse()
                text = f"refuted that this node is {rumour.state}, says {rumour.accuser}"
                self._effects.append(Log("refuted", text))
            self._raise_incarnation(rumour.incarnation)
            self._tell(self._myself.belief, source)
        elif is_accusation:
            # Refuted already, but that has not reached everybody.
            self._send(source, Sync(True, self._myself.load, (self._myself.belief,)))

    def take_rivals(self) -> dict[int, bool]:
        """Later lives of this node's own identity that others spoke of since this was last called, and
        whether they live."""
        rivals, self._rivals = self._rivals, {}
        return rivals

    def _raise_incarnation(self, above: int) -> None:
        mine = self._myself.belief
        self._myself.belief = mine._replace(incarnation=max(mine.incarnation, above) + 1)
        self._queue.put(self._myself.belief)

    def _say(self, state: MemberState, *, ready: bool) -> None:
        """Change what this node says of itself."""
        self._describe(state, self._myself.belief.info._replace(ready=ready))

    def _describe(self, state: MemberState, info: MemberInfo) -> None:
        mine = self._myself.belief
        self._myself.belief = mine._replace(state=state, info=info)
        if info.stores != mine.info.stores:
            self._myself.since = self._now
        self._raise_incarnation(mine.incarnation)
        self._touch(self._id)
        self._tell(self._myself.belief)

    # ---------------------------------------------------------------------------------------- proof

    def _weigh_evidence(self, source: NodeId, node: NodeId, boot: int, incarnation: int) -> None:
        member = self._members.get(node)
        if node == self._id:
            # A firewall's reset, perhaps. Nobody calls us dead yet; showing ourselves prevents it.
            if boot == self.boot:
                self._send(source, Sync(True, self._myself.load, (self._myself.belief,)))
            return
        if member is None or not self._is_alive(source) or boot < member.belief.info.boot:
            return
        if boot > member.belief.info.boot:
            self._begin_life(member, boot)
        self._testify(member, source, incarnation)

    def _testify(self, member: Member, witness: NodeId, incarnation: int) -> None:
        """Somebody saw the process end that runs under the present boot number."""
        node = member.belief.info.id
        is_over = member.belief.state is MemberState.LEFT or is_proven(member.belief)
        if is_over or incarnation < member.cleared:
            return
        member.witnesses[witness] = self._now
        self._accused.add(node)
        if witness == self._id:
            evidence = Evidence(node, member.belief.info.boot, member.belief.incarnation)
            for other in self._audience():
                if other != node:
                    self._send(other, evidence)
        self._judge()

    def _judge(self) -> None:
        """Call dead whose end enough members saw: two, or all that are left to see it."""
        is_changed = True
        while is_changed:
            is_changed = False
            for node in sorted(self._accused):
                member = self._members[node]
                if member.belief.state is MemberState.LEFT or is_proven(member.belief):
                    self._accused.discard(node)  # it is over already, on other evidence
                    continue
                witnesses = len(self._fresh_witnesses(member))
                if 0 < witnesses >= min(2, self._observers(node)):
                    self._accused.discard(node)
                    self._adopt(member, member.belief._replace(state=MemberState.DEAD, accuser=node))
                    is_changed = True  # fewer observers are left for the others

    # ----------------------------------------------------------------------------------- time passing

    def _catch_up(self) -> None:
        now, settings = self._now, self._settings
        self._advance_probes()
        self._give_up_relays()
        self._bury()
        if now >= self._grace_ends and not self._is_grace_over:
            self._is_grace_over = True
            for node, member in self._members.items():
                if not member.met:
                    self._touch(node)
        if now >= self._probe_at:
            self._probe_at = now + self._health.stretch(settings.probe_period_s)
            target = self._alive.next()
            if target is not None:
                self._probe(target)
        if now >= self._sync_at:
            self._sync_at = now + self._dice.uniform(0.8, 1.2) * settings.sync_period_s
            self._sync_with_somebody()
        if now >= self._heal_at:
            self._heal_at = now + self._dice.uniform(0.8, 1.2) * settings.heal_period_s
            self._heal()
        if now >= self._tidy_at:
            self._tidy_at = now + settings.tidy_period_s
            self._tidy()
        if self._is_dirty and now >= self._remember_at:
            self._remember()

    def _bury(self) -> None:
        """Call dead whose time to refute is over. In a smaller mesh that time is shorter: so, again."""
        self._judge()
        while over := [
            node for node in sorted(self._suspects) if self._now >= self._suspicion_ends(self._members[node])
        ]:
            member = self._members[over[0]]
            death = member.belief._replace(state=MemberState.DEAD, accuser=self._id)
            self._adopt(member, death)
            self._tell(death)
            self._judge()

    def _probe(self, target: NodeId) -> None:
        """Ping it now, unless that is being done, or too many others are."""
        if target == self._id or len(self._probes) >= self._settings.probes_max:
            return
        if any(probe.target == target for probe in self._probes.values()):
            return
        stretch = self._health.stretch
        ask_at = self._now + stretch(self._settings.probe_timeout_s)
        ends_at = self._now + stretch(self._settings.probe_period_s)
        seq = self._next_seq()
        self._probes[seq] = Probe(target, self._now, ask_at, ends_at)
        self._send(target, Ping(seq, target, self._myself.load, self._rumours_for(target)))

    def _advance_probes(self) -> None:
        for seq, probe in list(self._probes.items()):
            member = self._members.get(probe.target)
            if member is None or not member.is_alive:
                del self._probes[seq]
            elif self._now >= probe.ends_at:
                del self._probes[seq]
                # Helpers that could not even say no accuse us rather than the target.
                self._health.worse(probe.nacks_missing if probe.helpers else 1)
                self._accuse(member)
            elif self._now >= probe.ask_at and not probe.asked:
                probe.asked = True
                others = [node for node in self._alive.watched() if node != probe.target]
                probe.helpers = tuple(self._dice.sample(others, min(self._settings.helpers, len(others))))
                for helper in probe.helpers:
                    self._send(helper, PingReq(seq, probe.target, self._rumours_for(helper)))

    def _give_up_relays(self) -> None:
        for seq, relay in list(self._relays.items()):
            if self._now >= relay.nack_at:
                del self._relays[seq]
                self._send(relay.asker, Nack(relay.seq, self._rumours_for(relay.asker)))

    def _heal(self) -> None:
        """Try one that seems dead, or is only remembered."""
        lost = sorted(
            node
            for node, member in self._members.items()
            if not member.is_alive and member.belief.state is not MemberState.LEFT
        )
        if lost:
            (node,) = self._dice.sample(lost, 1)
            self._challenge(self._members[node])

    def _tidy(self) -> None:
        answers_s = 1 / self._settings.syncs_per_s
        self._asked = {
            peer: asked_at for peer, asked_at in self._asked.items() if self._now - asked_at < answers_s
        }
        for member in list(self._members.values()):
            since = None if self._is_alive(_id(member)) else self.dead_since(_id(member))
            has_left = member.belief.state is MemberState.LEFT
            keep_s = self._settings.dead_keep_s
            if has_left:
                keep_s = min(keep_s, self._settings.left_keep_s)
            if since is not None and self._now - since >= keep_s:
                self._forget(member)

    def _remember(self) -> None:
        self._is_dirty = False
        self._remember_at = self._now + self._settings.remember_period_s
        kept = [
            member
            for node, member in sorted(self._members.items())
            if member is not self._myself
            and member.belief.state is not MemberState.LEFT
            and member.belief.incarnation > BOOT_ONLY
        ]
        gist = frozenset((_id(member), member.belief.info.boot, member.addresses) for member in kept)
        if gist != self._remembered:
            self._remembered = gist
            self._effects.append(
                Remember(tuple(memory_of(member.belief, member.addresses) for member in kept))
            )

    # ------------------------------------------------------------------------------------ comparison

    def _sync_with_somebody(self) -> None:
        watched = self._alive.watched()
        if watched:
            (peer,) = self._dice.sample(watched, 1)
            self._send(peer, Compare((root_of(self.beliefs()),)))
        if self._strangers:  # what it was greeted with was lost: two meshes stay apart until one asks again
            (peer,) = self._dice.sample(sorted(self._strangers), 1)
            self._ask_view(peer)

    def _compare(self, source: NodeId, message: Compare | Disclose, *, was_living: bool) -> None:
        """Answer with what differs here. One that is dead to us has to refute that first."""
        member = self._members.get(source)
        if not was_living:
            if member is not None and member.is_told:
                self._challenge(member)
            return
        match message:
            case Compare(branches):
                self._answer_digests(source, branches)
            case Disclose(places, rumours):
                self._hear_all(rumours, source)
                self._answer_beliefs(source, places, rumours)
            case _:
                assert_never(message)

    def _answer_digests(self, source: NodeId, branches: tuple[Branch, ...]) -> None:
        leaves = self.beliefs()
        found = differences(leaves, branches, self._dice)
        if found.deeper:
            self._send(source, Compare(tuple(found.deeper)))
        for places, beliefs in disclosures(leaves, found.few):
            self._send(source, Disclose(places, beliefs))

    def _answer_beliefs(self, source: NodeId, places: tuple[Place, ...], heard: tuple[Rumour, ...]) -> None:
        """Tell of others in these places, and what is known better: deaths and goodbyes too."""
        better = [
            member.belief
            for rumour in heard
            if (member := self._members.get(rumour.info.id)) is not None
            and member.is_told
            and precedence(member.belief) > precedence(rumour)
        ]
        news = dict.fromkeys([*others_in(self.beliefs(), places, heard), *better])
        if news:
            for frame in frames_of(news):
                # Whoever knows better still says so, and so on: each answer beats the one before.
                self._send(source, Disclose((), frame))

    def _challenge(self, member: Member) -> None:
        """Tell one that seems dead what is said of it: if it hears us, it refutes, and views meet."""
        accusation = (member.belief,) if member.met and member.belief.incarnation > BOOT_ONLY else ()
        self._send(_id(member), Sync(False, self._myself.load, (self._myself.belief, *accusation)))

    def _send_view(self, to: NodeId, *, is_reply: bool) -> None:
        """Everything we believe, in frames that no ping has to wait for. One of them asks for an answer.

        We come first, then what the receiver has to refute: it should know both before the rest.
        """
        target = self._members.get(to)
        first = [self._myself] if target is None else [self._myself, target]
        others = [member for _, member in sorted(self._members.items()) if member not in first]
        frames = frames_of(member.belief for member in (*first, *others) if member.is_told)
        for index, frame in enumerate(frames):
            asks = not is_reply and index == len(frames) - 1
            self._send(to, Sync(not asks, self._myself.load, frame))

    def _ask_view(self, peer: NodeId) -> None:
        self._asked[peer] = self._now
        # If the answer is lost, the next comparison brings it: soon, then.
        self._sync_at = min(self._sync_at, self._now + 1 / self._settings.syncs_per_s)
        self._send_view(peer, is_reply=False)

    def _spread_view(self, source: NodeId, heard: Iterable[Rumour], before: list[NodeId]) -> None:
        """Two views have met: tell our side directly whom the other one has (as weaveworks/mesh forwards
        what a merge finds new). Rumours alone would leave gaps until the next comparison."""
        told = set(before)
        news = [
            self._members[node].belief
            for node in dict.fromkeys(rumour.info.id for rumour in heard)
            if node in self._alive and node not in told
        ]
        frames = frames_of(news) if news else []
        audience = [node for node in before if node != source and node in self._alive]
        if len(audience) > self._settings.direct_max:
            audience = self._dice.sample(audience, self._settings.fanout)
        for node in audience:
            for frame in frames:
                self._send(node, Sync(True, self._myself.load, frame))

    # ---------------------------------------------------------------------------------------- sending

    def _send(self, to: NodeId, message: Message) -> None:
        self._effects.append(Send(to, message, urgent=True))

    def _tell(self, rumour: Rumour, *also: NodeId) -> None:
        """Tell news without waiting for pings: to all in a small mesh, else to a few. The accused first."""
        accused = rumour.info.id if rumour.info.id != self._id else NOBODY
        audience = dict.fromkeys([accused, *also, *self._audience()])
        for node in audience:
            if node and node != self._id:
                self._send(node, Sync(True, self._myself.load, (rumour,)))

    def _audience(self) -> list[NodeId]:
        if len(self._alive) <= self._settings.direct_max:
            return list(self._alive)
        watched = self._alive.watched()  # to these there is a link
        return self._dice.sample(watched, min(self._settings.fanout, len(watched)))

    def _rumours_for(self, to: NodeId) -> tuple[Rumour, ...]:
        """What to pass on with the next message; an accusation of the receiver itself goes first
        (Lifeguard's buddy system), so that it can refute in its answer."""
        rumours = self._queue.take(to, retransmissions(self._size(), self._settings.gossip_factor))
        member = self._members.get(to)
        if (
            member is not None
            and member.is_told
            and member.belief.state
            in (
                MemberState.SUSPECT,
                MemberState.DEAD,
            )
        ):
            return (member.belief, *rumours)
        return rumours

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _name(self, member: Member) -> str:
        return f"{member.belief.info.name} ({member.belief.info.id})"


def _id(member: Member) -> NodeId:
    return member.belief.info.id
