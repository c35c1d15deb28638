"""Who is in the mesh, and who lives: SWIM with Lifeguard, and proof of death beside silence.

One member's belief of another moves like this (a higher incarnation or a later boot returns to alive):

    alive --probe and helpers failed--> suspect --not refuted in time--> dead (silent)
    alive or suspect --two members saw its port refuse--> dead (gone)
    alive --says goodbye--> leaving --> left (gone)

Here is what is believed, and when each part has its turn. `Prober` finds out who answers, `Testimony` weighs
what was seen of a death, `Exchange` lets two views become one, `OwnWord` speaks for this node. What they and
this module say goes into one `Outbox`; where members listen is in the `AddressBook`.

Sources: Das, Gupta and Motivala, "SWIM", 2002; Dadgar, Phillips and Currey, "Lifeguard", 2018.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from edgenode.core.addressbook import AddressBook
from edgenode.core.errors import MalformedMessage
from edgenode.core.exchange import Exchange
from edgenode.core.gossip import (
    Allowance,
    is_alive,
    is_proven,
    is_sane,
    precedence,
    recall,
)
from edgenode.core.members import BOOT_ONLY, Member
from edgenode.core.meshclock import MeshClock
from edgenode.core.outbox import Outbox
from edgenode.core.ownword import OwnWord
from edgenode.core.probing import Prober
from edgenode.core.roster import Roster
from edgenode.core.settings import MembershipSettings
from edgenode.core.signals import (
    Booted,
    Effect,
    LeaveAsked,
    LinkDown,
    LinkUp,
    MessageArrived,
    TimePassed,
)
from edgenode.core.suspicion import Suspicion
from edgenode.core.testimony import Testimony
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
    Compare,
    Disclose,
    Evidence,
    MembershipMessage,
    Nack,
    Ping,
    PingReq,
    Pong,
    Rumour,
    Sync,
)

STRANGERS_MAX = 256
"""Peers with a link of which no rumour has come yet."""

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
        self._outbox = Outbox(self._members, settings, dice)
        self._prober = Prober(self._members, self._outbox, settings, dice, self._clock)
        self._own = OwnWord(self._members, self._outbox, self._prober.health)
        self._testimony = Testimony(self._members, settings)
        self._exchange = Exchange(self._members, self._outbox, settings, dice)
        self._book = AddressBook(settings.remember_period_s)
        self._strangers: dict[NodeId, LinkUp] = {}
        self._suspects: set[NodeId] = set()
        self._allowance = Allowance(per_s=settings.syncs_per_s, burst=settings.syncs_burst)
        self._asked: dict[NodeId, Instant] = {}  # whose whole view was asked for just now
        self._is_grace_over = False
        self._due: Instant = FOREVER
        self._probe_at = self._sync_at = self._heal_at = self._tidy_at = FOREVER

    @property
    def is_cut_off(self) -> bool:
        return bool(self._strangers) or super().is_cut_off

    # -------------------------------------------------------------------------------------- driving

    def handle(self, event: MembershipEvent, now: Instant) -> list[Effect]:
        self._begin(now)
        if self._members.myself.belief.state is MemberState.LEFT:
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
                if self._members.myself.belief.state is not MemberState.LEAVING:
                    self._say(MemberState.LEAVING, ready=False)
            case _:
                assert_never(event)
        return self._finish()

    def deadline(self) -> Instant:
        """When `TimePassed` is wanted: as of the last event, since nothing else changes it."""
        return self._due

    def _next_due(self) -> Instant:
        """Derived from state after every event, so there is no timer to forget to cancel."""
        if self._members.myself.belief.state is MemberState.LEFT:
            return FOREVER
        regular = (self._next_probe(), self._sync_at, self._heal_at, self._tidy_at)
        return min(
            *regular,
            self._book.deadline(),
            self._prober.deadline(),
            min((self._suspicion_ends(self._members[node]) for node in self._suspects), default=FOREVER),
            FOREVER if self._is_grace_over else self._grace_ends,
            self._formation_ends if self._now < self._formation_ends else FOREVER,
        )

    def _next_probe(self) -> Instant:
        """When it is somebody's turn; or after a period, with rumours to pass on: these ride on pings."""
        if self._outbox.has_rumours:
            return self._probe_at
        return max(self._probe_at, self._members.alive.next_at())

    def set_load(self, load: Load) -> None:
        """Show this load on every ping and answer from now on."""
        self._members.myself.load = load

    def set_ready(self, ready: bool, now: Instant) -> list[Effect]:
        """Say that this node takes new jobs, or takes none. One that leaves takes none any more."""
        self._begin(now)
        belief = self._members.myself.belief
        if belief.state in (MemberState.JOINING, MemberState.READY) and belief.info.ready != ready:
            self._say(MemberState.READY if ready else MemberState.JOINING, ready=ready)
        return self._finish()

    def take_part(self, drain: Drain, weight: float, now: Instant) -> list[Effect]:
        """Say how this node takes part from now on."""
        self._begin(now)
        mine = self._members.myself.belief
        info = mine.info._replace(drain=drain, weight=weight, ready=mine.info.ready and not drain)
        if mine.state is not MemberState.LEFT and info != mine.info:
            state = MemberState.JOINING if drain and mine.state is MemberState.READY else mine.state
            self._describe(state, info)
        return self._finish()

    def left(self, now: Instant) -> list[Effect]:
        """Say goodbye, to several directly: this process has no time for rumours to spread."""
        self._begin(now)
        if self._members.myself.belief.state is not MemberState.LEFT:
            self._say(MemberState.LEFT, ready=False)
        return self._finish()

    def resign(self, now: Instant) -> list[Effect]:
        """Say that the disk takes no writes: this node lives, but owns, holds and runs nothing now."""
        self._begin(now)
        mine = self._members.myself.belief
        if mine.state is not MemberState.LEFT:
            self._describe(mine.state, mine.info._replace(ready=False, stores=False))
        return self._finish()

    def begin_life(self, boot: int, now: Instant) -> list[Effect]:
        """The same process under another boot number: what it said and ran before is an earlier life's."""
        self._begin(now)
        assert boot > self.boot
        mine = self._members.myself.belief
        if mine.state is not MemberState.LEFT:
            info = mine.info._replace(boot=boot, ready=False, stores=True)
            self._describe(MemberState.JOINING, info)
        return self._finish()

    def take_rivals(self) -> dict[int, bool]:
        """Later lives of this node's own identity that others spoke of since this was last called, and
        whether they live."""
        return self._own.take_rivals()

    def _say(self, state: MemberState, *, ready: bool) -> None:
        self._describe(state, self._members.myself.belief.info._replace(ready=ready))

    def _describe(self, state: MemberState, info: MemberInfo) -> None:
        """Change what this node says of itself."""
        self._own.say(state, info, self._now)
        self._touch(self._id)

    def _begin(self, now: Instant) -> None:
        assert now >= self._now, f"time went backwards: {self._now} -> {now}"
        late_s = now - max(self._due, self._now)
        self._now = now
        if late_s > self._settings.late_s:
            self._wake_up(late_s)

    def _finish(self) -> list[Effect]:
        effects = self._outbox.take()
        peers = self._book.take_changes()
        if peers is not None:
            effects.insert(0, peers)  # first: the shell needs the addresses for what is sent next
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
        self._book.begin(now)
        for packed in peers:
            try:
                rumour = recall(packed)
            except MalformedMessage as error:
                text = f"a remembered peer is unreadable: {error}"
                self._outbox.log("peers-damaged", text, warning=True)
                continue
            if rumour.info.id not in self._members and len(self._members) < settings.members_max:
                self._add(Member(rumour, met=False, since=now))
                self._expects_peers = True
        self._touch(self._id)

    def _wake_up(self, late_s: Seconds) -> None:
        """This node stood still. What it did not hear meanwhile is nobody's silence: listen first."""
        listen_s = self._prober.health.stretch(self._settings.probe_period_s)
        self._prober.health.worse()
        self._prober.forget()
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
            self._outbox.log("stalled", f"this node stood still for {late_s:.2f} s", warning=True)

    # ---------------------------------------------------------------------------------------- links

    def _link_up(self, link: LinkUp) -> None:
        if link.peer == self._id:
            self._own.meet(link.boot)
            return
        member = self._members.get(link.peer)
        known = self.boot_of(link.peer)
        if link.boot < known:
            text = f"{link.peer} came with start {starts_of(link.boot)}, it had {starts_of(known)} before"
            self._outbox.log("boot-behind", text, warning=True)
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
        self._testimony.take_back(member)
        self._confirm(member)
        self._reach(member, link.address)
        is_dead = not member.is_alive
        self._greet(link.peer, wants_all=is_dead or (not was_living and link.address is not None))

    def _greet(self, peer: NodeId, *, wants_all: bool) -> None:
        """Exchange whole views with a peer that is news; else just show ourselves to it."""
        if wants_all and self._allowance.take(self._now):
            self._ask_view(peer)
        else:
            self._prober.introduce(peer)

    def _link_down(self, peer: NodeId, boot: int, refused: bool) -> None:
        self._strangers.pop(peer, None)
        member = self._members.get(peer)
        if member is None or member is self._members.myself or boot < member.belief.info.boot:
            return
        if boot > member.belief.info.boot:
            self._begin_life(member, boot)
        if refused:
            self._testify(member, self._id, member.belief.incarnation)
        elif member.is_alive:
            self._prober.probe(peer, self._now)

    def _begin_life(self, member: Member, boot: int) -> None:
        """The process that we knew is gone; of the new one only its boot number is known yet."""
        info = member.belief.info._replace(boot=boot, ready=False, stores=True)
        self._adopt(member, Rumour(info, BOOT_ONLY, MemberState.JOINING, NOBODY))

    def _reach(self, member: Member, address: tuple[str, int] | None) -> None:
        if address is not None and member.addresses[:1] != (address,):
            member.reached_at = address
            self._book.enter(member)

    # ------------------------------------------------------------------------------------- messages

    def _receive(self, source: NodeId, message: MembershipMessage) -> None:
        if source == self._id:
            return
        self._has_met = True
        was_living = self._members.is_alive(source)
        self._note_life(source)
        match message:
            case Ping(_, _, load, rumours):
                self._hear_all(rumours, source, load)
                self._prober.receive(source, message, self._now)
            case PingReq() | Pong() | Nack():
                self._hear_all(message.rumours, source)
                self._prober.receive(source, message, self._now)
            case Sync(reply, load, rumours):
                before = list(self._members.alive)
                self._hear_all(rumours, source, load)
                if source not in before or source in self._asked:
                    self._exchange.spread_view(source, rumours, before)
                if not reply:
                    self._exchange.send_view(source, asks=False)
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
            self._own.hear(rumour, source)
            return
        # One that is dead to us has to refute that first: after a cut it takes all of us for dead.
        is_accusation = rumour.state in (MemberState.SUSPECT, MemberState.DEAD)
        if is_accusation and not self._members.is_alive(source):
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
        elif same_life and is_alive(rumour) and is_alive(before) and self._members.is_alive(source):
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
        self._prober.probe(rumour.info.id, self._now)
        return rumour._replace(state=MemberState.SUSPECT)

    def _hear_of_stranger(self, rumour: Rumour, source: NodeId) -> None:
        """Somebody new. The dead are remembered too, since jobs may name them, but not passed on."""
        grave = self._graves.get(rumour.info.id)
        if grave is not None and not grave.is_newer(rumour):
            if source == rumour.info.id and not grave.left:
                # It was cut off until long after its death, and others have forgotten it too: what it says
                # of itself has to beat what they remember.
                death = rumour._replace(state=MemberState.DEAD, accuser=self._id)
                told = (self._members.myself.belief, death._replace(incarnation=grave.incarnation))
                self._outbox.tell(source, told, asks=True)
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
            self._outbox.spread(rumour)
            self._outbox.log("member-joined", f"{member.title} is a member")

    def _make_room(self) -> bool:
        """Is there room for one more? The longest dead give way."""
        if len(self._members) < self._settings.members_max:
            return True
        dead = [
            member
            for node, member in self._members.items()
            if not self._members.is_alive(node) and self.dead_since(node) is not None
        ]
        if not dead:
            return False
        self._forget(min(dead, key=lambda member: (member.since, member.id)))
        return True

    def _add(self, member: Member) -> None:
        node = member.id
        self._graves.pop(node, None)
        self._members[node] = member
        if not member.hearsay:
            self._clock.met(node)
        if member.is_alive:
            self._members.alive.add(node, self._now)
        self._book.enter(member)
        self._touch(node)

    def _forget(self, member: Member) -> None:
        """Let go of a dead member. What the job side sees of it stays as it was."""
        node = member.id
        if member.met:
            self._dig_grave(member)
        del self._members[node]
        self._clock.forget(node)
        self._doubted.pop(node, None)
        self._drop_suspicion(member)
        self._members.alive.remove(node, self._now)
        self._testimony.dismiss(member)
        self._outbox.hush(node)
        self._book.enter(member, keep=False)

    def _confirm(self, member: Member) -> None:
        """It lives, by word of its own or of somebody living, and is not merely remembered."""
        if not member.met:
            member.met = True
            member.since = self._now
            if member.is_alive:
                self._members.alive.add(member.id, self._now)
                self._log_met(member)
            self._touch(member.id)

    def _adopt(self, member: Member, rumour: Rumour) -> None:
        """Believe a rumour that takes precedence, and pass it on."""
        before, was_alive, was_met = member.belief, member.is_alive, member.met
        node = rumour.info.id
        assert rumour.info.boot > before.info.boot or precedence(rumour) > precedence(before)
        if rumour.state is not MemberState.SUSPECT and is_alive(rumour) and self._is_isolated():
            # We were cut off from everybody, and hear again: that nobody answered was not our slowness.
            self._prober.health.recovered()
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
                self._testimony.dismiss(member)
            self._members.alive.add(node, self._now)
        else:
            self._members.alive.remove(node, self._now)
        self._publish(member, before, was_alive, was_met=was_met)

    def _publish(self, member: Member, before: Rumour, was_alive: bool, *, was_met: bool) -> None:
        """Tell everybody who has to know that a belief changed: the mesh, the shell, the job side."""
        rumour = member.belief
        node = rumour.info.id
        if rumour.incarnation > BOOT_ONLY:
            self._outbox.spread(rumour)
        is_book_old = (before.info.boot, before.info.addresses) != (rumour.info.boot, rumour.info.addresses)
        if rumour.state is MemberState.LEFT:
            self._clock.forget(node)
            self._book.enter(member, keep=False)
            self._outbox.log("member-left", f"{member.title} has left")
        elif is_book_old or before.state is MemberState.LEFT:
            self._book.enter(member)
        if rumour.info.boot > before.info.boot:
            text = f"{member.title} began life {starts_of(rumour.info.boot)}"
            self._outbox.log("member-reborn", text)
        elif before.info.stores and not rumour.info.stores:
            text = f"{member.title} lives, but its disk takes no writes: its jobs move"
            self._outbox.log("member-resigned", text, warning=True)
        elif member.is_alive and not was_met:
            self._log_met(member)
        elif member.is_alive and not was_alive:
            self._outbox.log("member-returned", f"{member.title} is alive after all")
        elif rumour.state is MemberState.DEAD and was_alive:
            why = "its port refuses" if is_proven(rumour) else "it is silent"
            self._outbox.log("member-dead", f"{member.title} is dead: {why}", warning=True)
        self._touch(node)

    def _log_met(self, member: Member) -> None:
        self._outbox.log("member-met", f"{member.title}, known from before, is alive")

    def _is_isolated(self) -> bool:
        """Is every other member silent, several of them? A single one may be the silent one itself."""
        if len(self._suspects) < len(self._members.alive):
            return False
        silent = sum(self.standing(node) is Standing.SILENT for node in self._members)
        return len(self._suspects) + silent > 1

    def _forget_life(self, member: Member) -> None:
        """Evidence about an earlier life says nothing of this one."""
        self._drop_suspicion(member)
        self._testimony.dismiss(member)
        member.cleared = BOOT_ONLY
        member.hearsay = False
        member.load = Load()

    # -------------------------------------------------------------------------------------- suspicion

    def _accuse(self, member: Member) -> None:
        """Our own probe failed, and so did those of the helpers."""
        accusation = member.belief._replace(state=MemberState.SUSPECT, accuser=self._id)
        if member.suspicion is None:
            text = f"{member.title} does not answer"
            self._outbox.log("member-suspected", text)
            self._adopt(member, accusation)
            self._outbox.announce(accusation)
        elif self._id not in member.suspicion.accusers:
            self._confirm_suspicion(member, accusation)
            self._outbox.announce(accusation)

    def _suspect(self, member: Member) -> None:
        self._suspects.add(member.id)
        member.suspicion = Suspicion(self._now, {member.belief.accuser})

    def _confirm_suspicion(self, member: Member, accusation: Rumour) -> None:
        """One more accuser of a suspect: so many shorten the wait, and those are passed on."""
        member.belief = max(member.belief, accusation, key=precedence)
        suspicion = member.suspicion
        if suspicion is None or accusation.accuser in suspicion.accusers:
            return
        if len(suspicion.accusers) <= self._settings.confirmations:
            suspicion.accusers.add(accusation.accuser)
            self._outbox.spread(accusation)

    def _drop_suspicion(self, member: Member) -> None:
        member.suspicion = None
        self._suspects.discard(member.id)

    # ---------------------------------------------------------------------------------------- proof

    def _weigh_evidence(self, source: NodeId, node: NodeId, boot: int, incarnation: int) -> None:
        member = self._members.get(node)
        if node == self._id:
            # A firewall's reset, perhaps. Nobody calls us dead yet; showing ourselves prevents it.
            if boot == self.boot:
                self._own.repeat(source)
            return
        if member is None or not self._members.is_alive(source) or boot < member.belief.info.boot:
            return
        if boot > member.belief.info.boot:
            self._begin_life(member, boot)
        self._testify(member, source, incarnation)

    def _testify(self, member: Member, witness: NodeId, incarnation: int) -> None:
        """Somebody saw the process end that runs under the present boot number."""
        if not self._testimony.take(member, witness, incarnation, self._now):
            return
        if witness == self._id:
            evidence = Evidence(member.id, member.belief.info.boot, member.belief.incarnation)
            for other in self._outbox.audience():
                if other != member.id:
                    self._outbox.send(other, evidence)
        self._judge()

    def _judge(self) -> None:
        """Call dead whose end enough members saw."""
        for member in self._testimony.proven(self._now):
            self._adopt(member, member.belief._replace(state=MemberState.DEAD, accuser=member.id))

    # ----------------------------------------------------------------------------------- time passing

    def _catch_up(self) -> None:
        now, settings = self._now, self._settings
        for silent in self._prober.overdue(now):
            self._accuse(silent)
        self._bury()
        if now >= self._grace_ends and not self._is_grace_over:
            self._is_grace_over = True
            for node, member in self._members.items():
                if not member.met:
                    self._touch(node)
        if now >= self._next_probe():
            self._probe_at = now + self._prober.health.stretch(settings.probe_period_s)
            target = self._members.alive.take(now)
            if target is not None:
                self._prober.probe(target, now)
        if now >= self._sync_at:
            self._sync_at = now + self._dice.uniform(0.8, 1.2) * settings.sync_period_s
            self._sync_with_somebody()
        if now >= self._heal_at:
            self._heal_at = now + self._dice.uniform(0.8, 1.2) * settings.heal_period_s
            self._heal()
        if now >= self._tidy_at:
            self._tidy_at = now + settings.tidy_period_s
            self._tidy()
        if now >= self._book.deadline():
            memory = self._book.remember(self._members, now)
            if memory is not None:
                self._outbox.add(memory)

    def _bury(self) -> None:
        """Call dead whose time to refute is over. In a smaller mesh that time is shorter: so, again."""
        self._judge()
        while over := [
            node for node in sorted(self._suspects) if self._now >= self._suspicion_ends(self._members[node])
        ]:
            member = self._members[over[0]]
            death = member.belief._replace(state=MemberState.DEAD, accuser=self._id)
            self._adopt(member, death)
            self._outbox.announce(death)
            self._judge()

    def _heal(self) -> None:
        """Try one that seems dead, or is only remembered."""
        lost = sorted(
            node
            for node, member in self._members.items()
            if not member.is_alive and member.belief.state is not MemberState.LEFT
        )
        if lost:
            (node,) = self._dice.sample(lost, 1)
            self._exchange.challenge(self._members[node])

    def _tidy(self) -> None:
        answers_s = 1 / self._settings.syncs_per_s
        self._asked = {
            peer: asked_at for peer, asked_at in self._asked.items() if self._now - asked_at < answers_s
        }
        for member in list(self._members.values()):
            since = None if self._members.is_alive(member.id) else self.dead_since(member.id)
            has_left = member.belief.state is MemberState.LEFT
            keep_s = self._settings.dead_keep_s
            if has_left:
                keep_s = min(keep_s, self._settings.left_keep_s)
            if since is not None and self._now - since >= keep_s:
                self._forget(member)

    # ------------------------------------------------------------------------------------ comparison

    def _sync_with_somebody(self) -> None:
        watched = self._members.alive.watched()
        if watched:
            (peer,) = self._dice.sample(watched, 1)
            self._exchange.compare_with(peer)
        if self._strangers:  # what it was greeted with was lost: two meshes stay apart until one asks again
            (peer,) = self._dice.sample(sorted(self._strangers), 1)
            self._ask_view(peer)

    def _compare(self, source: NodeId, message: Compare | Disclose, *, was_living: bool) -> None:
        """Answer with what differs here. One that is dead to us has to refute that first."""
        member = self._members.get(source)
        if was_living:
            if isinstance(message, Disclose):
                self._hear_all(message.rumours, source)
            self._exchange.answer(source, message)
        elif member is not None and member.is_told:
            self._exchange.challenge(member)

    def _ask_view(self, peer: NodeId) -> None:
        self._asked[peer] = self._now
        # If the answer is lost, the next comparison brings it: soon, then.
        self._sync_at = min(self._sync_at, self._now + 1 / self._settings.syncs_per_s)
        self._exchange.send_view(peer, asks=True)
