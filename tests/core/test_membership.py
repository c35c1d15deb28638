"""What one node does, event by event."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TypeVar

import pytest
from membership_mesh import LAN, describe, node_id

from edgenode.core.membership import Membership
from edgenode.core.roster import GRAVES_MAX
from edgenode.core.settings import PRESETS, MembershipSettings
from edgenode.core.signals import (
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
from edgenode.core.types import FOREVER, NOBODY, Load, MemberState, NodeId, next_boot
from edgenode.core.view import Standing, View
from edgenode.core.wire import (
    CATCH_UP_BYTES,
    Evidence,
    Message,
    Nack,
    Ping,
    PingReq,
    Pong,
    Rumour,
    Sync,
    decode,
    encode,
)

ME = node_id(1)
T = TypeVar("T")
IDLE = Load()


def rumour(
    number: int,
    state: MemberState = MemberState.READY,
    *,
    incarnation: int = 1,
    boot: int = 1,
    accuser: NodeId = NOBODY,
    ready: bool = True,
) -> Rumour:
    return Rumour(describe(number, boot=boot, ready=ready), incarnation, state, accuser)


class Bench:
    """One membership with a clock that only moves when told."""

    def __init__(
        self,
        *peers: int,
        settings: MembershipSettings = LAN,
        disk: tuple[bytes, ...] = (),
        boot: int = 1,
        expects: bool = False,
    ) -> None:
        self.now = 0.0
        self.membership = Membership(
            describe(1, boot=boot, ready=False), settings, Random(1), expects_peers=expects
        )
        self.effects: list[Effect] = []
        self.pings: list[tuple[NodeId, Ping]] = []  # not answered yet
        self.feed(Booted((), disk))
        if peers:
            self.hear(peers[0], *(rumour(number) for number in peers))
            for number in peers:
                self.link(number)
        self.membership.take_changes()
        self.effects.clear()

    def feed(self, event: object) -> list[Effect]:
        effects = self.membership.handle(event, self.now)  # type: ignore[arg-type]
        self.effects += effects
        self.pings += [
            (effect.to, effect.message)
            for effect in effects
            if isinstance(effect, Send) and isinstance(effect.message, Ping)
        ]
        return effects

    def get(self, number: int, message: Message) -> list[Effect]:
        return self.feed(MessageArrived(node_id(number), message))

    def hear(self, number: int, *rumours: Rumour) -> list[Effect]:
        return self.get(number, Sync(True, IDLE, rumours))

    def link(self, number: int, *, boot: int = 1, called: bool = False) -> list[Effect]:
        return self.feed(LinkUp(node_id(number), boot, None if called else ("127.0.0.1", 9700 + number)))

    def wait(self, span_s: float, *, answers: tuple[int, ...] = ()) -> list[Effect]:
        """Let time pass; the members in `answers` answer every ping at once."""
        end, start = self.now + span_s, len(self.effects)
        while True:
            for to, ping in self.pings:
                number = int(to[4:])
                if number in answers:
                    self.get(number, Pong(ping.seq, IDLE, ()))
            self.pings.clear()
            if self.membership.deadline() > end:
                break
            self.now = max(self.now, self.membership.deadline())
            self.feed(TimePassed())
        self.now = end
        return self.effects[start:]

    def standing(self, number: int) -> Standing:
        return self.membership.standing(node_id(number))

    def state(self, number: int) -> MemberState:
        found = {report.info.id: report.state for report in self.membership.snapshot()}
        return found[node_id(number)]

    def myself(self) -> Rumour:
        """What this node says of itself to somebody new."""
        sent = messages(self.link(99), Sync) or messages(self.link(98), Ping)
        return next(each for each in sent[0].rumours if each.info.id == ME)


def messages(effects: list[Effect], kind: type[T], *, to: int | None = None) -> list[T]:
    return [
        effect.message
        for effect in effects
        if isinstance(effect, Send)
        and isinstance(effect.message, kind)
        and (to is None or effect.to == node_id(to))
    ]


def receivers(effects: list[Effect], kind: type[object]) -> set[int]:
    return {
        int(effect.to[4:])
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, kind)
    }


def logs(effects: list[Effect], kind: str) -> list[Log]:
    return [effect for effect in effects if isinstance(effect, Log) and effect.kind == kind]


# ------------------------------------------------------------------------------------- probing (SWIM 3.1)


def test_membership_is_a_view() -> None:
    view: View = Bench().membership
    assert (view.me, view.boot, view.formed) == (ME, 1, True)


def test_a_ping_is_answered_and_carries_the_load() -> None:
    bench = Bench(2)
    bench.membership.set_load(Load(running=3))
    (pong,) = messages(bench.get(2, Ping(17, ME, Load(queued=5), ())), Pong, to=2)
    assert (pong.seq, pong.load.running) == (17, 3)
    assert bench.membership.load(node_id(2)).queued == 5


def test_a_ping_for_somebody_else_is_not_answered() -> None:
    assert messages(Bench(2).get(2, Ping(17, node_id(9), IDLE, ())), Pong) == []


def test_members_that_answer_stay_alive_and_are_probed_in_turn() -> None:
    bench = Bench(2, 3, 4)
    bench.wait(10 * LAN.probe_period_s, answers=(2, 3, 4))
    effects = bench.wait(6.05 * LAN.probe_period_s, answers=(2, 3, 4))
    probed = [
        int(effect.to[4:]) for effect in effects if isinstance(effect, Send) and type(effect.message) is Ping
    ]
    assert sorted(probed) == [2, 2, 3, 3, 4, 4]
    assert messages(effects, PingReq) == []


def test_without_an_answer_helpers_are_asked_before_the_member_is_suspected() -> None:
    bench = Bench(2, 3, 4)
    bench.feed(LinkDown(node_id(2), 1, False))  # a reason to ask at once
    effects = bench.wait(LAN.probe_timeout_s, answers=(3, 4))
    assert {request.target for request in messages(effects, PingReq)} == {node_id(2)}
    assert receivers(effects, PingReq) == {3, 4}
    assert bench.state(2) is MemberState.READY
    bench.wait(LAN.probe_period_s, answers=(3, 4))
    assert bench.state(2) is MemberState.SUSPECT
    assert bench.standing(2) is Standing.LIVING


def test_an_answer_through_a_helper_clears_the_member() -> None:
    bench = Bench(2, 3)
    bench.feed(LinkDown(node_id(2), 1, False))
    (request,) = messages(bench.wait(LAN.probe_timeout_s, answers=(3,)), PingReq)
    bench.get(3, Pong(request.seq, Load(done=7), ()))
    bench.wait(0.055, answers=(3,))
    assert bench.state(2) is MemberState.READY
    assert bench.membership.load(node_id(2)).done == 7


def test_an_answer_from_a_bystander_clears_nobody() -> None:
    bench = Bench(2, 3, 4)
    (ping,) = messages(bench.feed(LinkDown(node_id(2), 1, False)), Ping)
    bench.get(4, Pong(ping.seq, IDLE, ()))
    bench.wait(0.11, answers=(3, 4))
    assert bench.state(2) is MemberState.SUSPECT


def test_a_helper_pings_for_the_asker_and_tells_it_either_way() -> None:
    bench = Bench(2, 3)
    (ping,) = messages(bench.get(2, PingReq(5, node_id(3), ())), Ping, to=3)
    answer = bench.get(3, Pong(ping.seq, Load(done=1), ()))
    assert [(pong.seq, pong.load.done) for pong in messages(answer, Pong, to=2)] == [(5, 1)]
    bench.get(2, PingReq(6, node_id(3), ()))
    assert [nack.seq for nack in messages(bench.wait(LAN.probe_timeout_s), Nack, to=2)] == [6]
    assert [nack.seq for nack in messages(bench.get(2, PingReq(7, node_id(77), ())), Nack)] == [7]


# ------------------------------------------------------------------------------ suspicion and refutation


def test_a_suspect_is_told_of_it_in_the_next_ping() -> None:
    bench = Bench(2, 3)
    bench.hear(3, rumour(2, MemberState.SUSPECT, accuser=node_id(3)))
    pings = messages(bench.wait(1.0, answers=(3,)), Ping, to=2)
    assert pings
    assert all(ping.rumours[0].state is MemberState.SUSPECT for ping in pings)


def test_a_suspect_stays_ranked_and_is_dead_when_time_is_up() -> None:
    bench = Bench(2, 3)
    ranked = bench.membership.ranking()
    bench.hear(3, rumour(2, MemberState.SUSPECT, accuser=node_id(3)))
    assert bench.membership.ranking() is ranked
    bench.wait(LAN.suspicion_s * LAN.suspicion_max_factor, answers=(3,))
    assert bench.standing(2) is Standing.SILENT
    assert bench.membership.ranking().members == {node_id(3)}
    assert bench.membership.take_changes() == {node_id(2)}
    dead_since = bench.membership.dead_since(node_id(2))
    assert dead_since is not None
    assert 0 < dead_since <= bench.now


def test_a_refutation_clears_a_suspect_and_an_old_accusation_changes_nothing() -> None:
    bench = Bench(2, 3)
    accusation = rumour(2, MemberState.SUSPECT, accuser=node_id(3))
    bench.hear(3, accusation)
    bench.hear(2, rumour(2, incarnation=2))
    bench.hear(3, accusation)
    assert bench.state(2) is MemberState.READY


@pytest.mark.parametrize("state", [MemberState.SUSPECT, MemberState.DEAD])
def test_this_node_refutes_at_once_and_tells_everybody(state: MemberState) -> None:
    bench = Bench(2, 3)
    effects = bench.hear(3, rumour(1, state, incarnation=4, accuser=node_id(3)))
    assert receivers(effects, Sync) == {2, 3}
    assert {each.incarnation for sync in messages(effects, Sync) for each in sync.rumours} == {5}
    assert bench.standing(1) is Standing.LIVING


def test_a_stale_accusation_of_this_node_is_answered_to_the_one_who_repeats_it() -> None:
    bench = Bench(2, 3)
    bench.hear(3, rumour(1, MemberState.SUSPECT, incarnation=4, accuser=node_id(3)))
    effects = bench.hear(2, rumour(1, MemberState.SUSPECT, incarnation=4, accuser=node_id(3)))
    assert receivers(effects, Sync) == {2}
    assert bench.myself().incarnation == 5


def test_a_dead_member_accuses_nobody_until_it_has_refuted() -> None:
    bench = Bench(2, 3, 4)
    bench.hear(4, rumour(2, MemberState.DEAD, accuser=node_id(2)))
    bench.hear(2, rumour(3, MemberState.SUSPECT, accuser=node_id(2)))
    assert bench.state(3) is MemberState.READY
    bench.hear(2, rumour(2, incarnation=2), rumour(3, MemberState.SUSPECT, accuser=node_id(2)))
    assert bench.state(3) is MemberState.SUSPECT


def test_a_death_without_a_suspicion_before_it_is_only_a_suspicion() -> None:
    bench = Bench(2, 3)
    effects = bench.hear(3, rumour(2, MemberState.DEAD, accuser=node_id(3)))
    assert bench.state(2) is MemberState.SUSPECT
    assert receivers(effects, Ping) == {2}


def test_a_node_that_stood_still_accuses_nobody_of_what_it_slept_through() -> None:
    bench = Bench(2, 3)
    bench.hear(3, rumour(2, MemberState.SUSPECT, accuser=node_id(3)))
    bench.now += 30.0
    effects = bench.feed(TimePassed())
    assert len(logs(effects, "stalled")) == 1
    assert bench.state(2) is MemberState.SUSPECT
    bench.wait(0.9, answers=(2, 3))
    assert bench.standing(2) is Standing.LIVING


# --------------------------------------------------------------------------------------------- proof


def test_a_refused_link_is_told_to_everybody_at_once() -> None:
    bench = Bench(2, 3, 4)
    effects = bench.feed(LinkDown(node_id(2), 1, True))
    assert receivers(effects, Evidence) == {3, 4}
    assert messages(effects, Evidence)[0] == Evidence(node_id(2), 1, 1)
    assert bench.standing(2) is Standing.LIVING


def test_two_witnesses_are_proof() -> None:
    bench = Bench(2, 3, 4)
    bench.get(3, Evidence(node_id(2), 1, 1))
    bench.get(3, Evidence(node_id(2), 1, 1))
    assert bench.standing(2) is Standing.LIVING
    bench.get(4, Evidence(node_id(2), 1, 1))
    assert bench.standing(2) is Standing.GONE


def test_in_a_mesh_of_two_the_one_witness_is_proof() -> None:
    bench = Bench(2)
    bench.feed(LinkDown(node_id(2), 1, True))
    assert bench.standing(2) is Standing.GONE


def test_late_proof_does_not_kill_the_reborn() -> None:
    bench = Bench(2, 3, 4)
    bench.link(2, boot=2)
    assert node_id(2) in bench.membership.take_changes()
    bench.feed(LinkDown(node_id(2), 1, True))
    bench.get(3, Evidence(node_id(2), 1, 1))
    bench.hear(3, rumour(2, MemberState.DEAD, incarnation=9, accuser=node_id(2)))
    assert bench.standing(2) is Standing.LIVING
    assert bench.membership.boot_of(node_id(2)) == 2


def test_testimony_from_before_a_refuted_death_is_worth_nothing() -> None:
    bench = Bench(2, 3, 4)
    bench.feed(LinkDown(node_id(2), 1, True))
    bench.get(3, Evidence(node_id(2), 1, 1))
    assert bench.standing(2) is Standing.GONE
    bench.hear(2, rumour(2, incarnation=2))
    assert bench.standing(2) is Standing.LIVING
    for witness in (3, 4):
        bench.get(witness, Evidence(node_id(2), 1, 1))
    assert bench.standing(2) is Standing.LIVING


def test_two_witnesses_an_hour_apart_are_no_proof() -> None:
    bench = Bench(2, 3, 4)
    bench.get(3, Evidence(node_id(2), 1, 1))
    bench.wait(60.0, answers=(2, 3, 4))
    bench.get(4, Evidence(node_id(2), 1, 1))
    assert bench.standing(2) is Standing.LIVING


def test_a_link_that_came_back_takes_this_nodes_testimony_back() -> None:
    bench = Bench(2, 3, 4)
    bench.feed(LinkDown(node_id(2), 1, True))
    bench.link(2)
    bench.get(3, Evidence(node_id(2), 1, 1))
    assert bench.standing(2) is Standing.LIVING


def test_a_link_that_ended_without_refusal_is_a_reason_to_ask_at_once() -> None:
    effects = Bench(2, 3).feed(LinkDown(node_id(2), 1, False))
    assert receivers(effects, Ping) == {2}
    assert messages(effects, Evidence) == []


# --------------------------------------------------------------------------- joining, boots, readiness


def test_the_caller_of_a_stranger_asks_for_its_view() -> None:
    (asked,) = messages(Bench().link(2), Sync, to=2)
    assert not asked.reply
    assert [each.info.id for each in asked.rumours] == [ME]


def test_a_stranger_that_says_nothing_is_asked_again_also_by_one_that_has_members() -> None:
    """A greeting can be lost, and the link stays: two halves of a mesh would never hear of each other."""
    bench = Bench(2, 3)
    bench.link(4)
    asked = messages(bench.wait(10.0, answers=(2, 3)), Sync, to=4)
    assert len(asked) >= 4
    assert not any(each.reply for each in asked)


def test_a_stranger_gets_everything_in_frames_of_bounded_size() -> None:
    bench = Bench(*range(2, 402))
    answer = messages(bench.get(900, Sync(False, IDLE, (rumour(900),))), Sync, to=900)
    assert {each.info.id for sync in answer for each in sync.rumours} >= {
        node_id(number) for number in range(1, 402)
    }
    assert len(answer) > 1
    assert all(len(encode(sync)) <= CATCH_UP_BYTES + 100 for sync in answer)
    assert all(sync.reply for sync in answer)


def test_the_address_book_is_told_where_members_listen_and_whom_to_forget() -> None:
    bench = Bench(2)
    (book,) = [effect for effect in bench.hear(2, rumour(3)) if isinstance(effect, Peers)]
    assert [(change.peer, change.addresses, change.keep) for change in book.changes] == [
        (node_id(3), (("127.0.0.1", 9703),), True)
    ]
    (book,) = [
        effect
        for effect in bench.hear(2, rumour(3, MemberState.LEFT, incarnation=2))
        if isinstance(effect, Peers)
    ]
    assert [(change.peer, change.keep) for change in book.changes] == [(node_id(3), False)]


def test_a_joiner_continues_above_the_incarnation_that_peers_hold() -> None:
    bench = Bench(2, boot=5)
    bench.hear(2, rumour(1, incarnation=7, boot=4))
    assert bench.myself().incarnation == 8


@pytest.mark.parametrize(("state", "lives"), [(MemberState.READY, True), (MemberState.DEAD, False)])
def test_a_later_life_of_this_identity_elsewhere_is_reported(state: MemberState, lives: bool) -> None:
    bench = Bench(2)
    bench.hear(2, rumour(1, state, boot=2))
    assert bench.membership.take_rivals() == {2: lives}
    assert bench.membership.take_rivals() == {}
    assert bench.membership.boot == 1


def test_of_two_copies_of_one_disk_the_one_that_is_linked_first_stays_a_member() -> None:
    first, second = next_boot(0, 7), next_boot(0, 9)
    bench = Bench(2)
    bench.hear(2, rumour(3, boot=first))
    bench.link(3, boot=first)
    bench.link(3, boot=second)
    assert bench.membership.boot_of(node_id(3)) == first
    bench.link(3, boot=next_boot(first, 1))
    assert bench.membership.boot_of(node_id(3)) == next_boot(first, 1)


def test_a_peer_with_an_older_boot_than_known_is_reported_and_not_believed() -> None:
    bench = Bench(2)
    bench.link(2, boot=3)
    assert len(logs(bench.link(2, boot=2), "boot-behind")) == 1
    assert bench.membership.boot_of(node_id(2)) == 3


def test_readiness_is_a_new_incarnation_that_everybody_hears() -> None:
    bench = Bench(2, 3)
    effects = bench.membership.set_ready(True, bench.now)
    assert receivers(effects, Sync) == {2, 3}
    (told,) = messages(effects, Sync, to=2)[0].rumours
    assert (told.state, told.info.ready, told.incarnation) == (MemberState.READY, True, 1)
    assert ME in bench.membership.ranking().members
    assert bench.membership.take_changes() == {ME}
    assert bench.membership.set_ready(True, bench.now) == []


def test_a_leaving_member_lives_but_is_not_ranked_also_while_it_is_suspected() -> None:
    bench = Bench(2, 3)
    bench.hear(2, rumour(2, MemberState.LEAVING, incarnation=2, ready=False))
    assert bench.standing(2) is Standing.LIVING
    assert node_id(2) not in bench.membership.ranking().members
    bench.hear(3, rumour(2, MemberState.SUSPECT, incarnation=2, accuser=node_id(3), ready=False))
    assert node_id(2) not in bench.membership.ranking().members


def test_leaving_twice_says_it_once_and_readiness_does_not_come_back() -> None:
    bench = Bench(2)
    assert messages(bench.feed(LeaveAsked()), Sync)
    assert messages(bench.feed(LeaveAsked()), Sync) == []
    assert bench.membership.set_ready(True, bench.now) == []
    assert bench.state(1) is MemberState.LEAVING


def test_goodbye_goes_to_all_directly_and_after_it_nothing_is_said() -> None:
    bench = Bench(2, 3)
    assert receivers(bench.membership.left(bench.now), Sync) == {2, 3}
    assert bench.membership.deadline() == FOREVER
    assert bench.get(2, Ping(1, ME, IDLE, ())) == []
    assert bench.membership.left(bench.now) == []


# ------------------------------------------------------------------------------- memory and formation


def memory_of(*numbers: int) -> tuple[bytes, ...]:
    bench = Bench(*numbers)
    remembered = [effect for effect in bench.wait(2.0, answers=numbers) if isinstance(effect, Remember)]
    return remembered[-1].peers


def test_remembered_peers_are_unknown_then_silent_unless_somebody_confirms_them() -> None:
    bench = Bench(disk=memory_of(2, 3, 4), boot=2)
    assert {bench.standing(number) for number in (2, 3, 4, 77)} == {Standing.UNKNOWN}
    assert len(bench.membership.ranking()) == 0
    bench.link(2)  # met
    bench.hear(2, rumour(3))  # named as alive by one that lives
    assert [bench.standing(number) for number in (2, 3, 4)] == [
        Standing.LIVING,
        Standing.LIVING,
        Standing.UNKNOWN,
    ]
    bench.membership.take_changes()
    bench.wait(LAN.grace_s, answers=(2, 3))
    assert [bench.standing(number) for number in (4, 77)] == [Standing.SILENT, Standing.SILENT]
    assert bench.membership.dead_since(node_id(77)) == LAN.grace_s
    assert node_id(4) in bench.membership.take_changes()


def test_what_is_only_remembered_is_told_to_nobody() -> None:
    bench = Bench(disk=memory_of(2, 3, 4), boot=2)
    (asked,) = messages(bench.link(2), Sync, to=2)
    assert {each.info.id for each in asked.rumours} == {ME, node_id(2)}


def test_a_node_that_was_told_of_peers_is_formed_when_it_met_one_or_time_is_over() -> None:
    for bench in (Bench(expects=True), Bench(disk=memory_of(2), boot=2)):
        assert not bench.membership.formed
        bench.hear(2, rumour(2))
        assert bench.membership.formed
    alone = Bench(expects=True)
    alone.wait(LAN.formation_s - 0.1)
    assert not alone.membership.formed
    alone.wait(0.2)
    assert alone.membership.formed


def test_damaged_memories_are_skipped_and_reported() -> None:
    good = memory_of(2)
    bench = Bench()
    membership = Membership(describe(1, ready=False), LAN, Random(1))
    effects = membership.handle(Booted((), (b"\xc1", b"", encode(Nack(1, ())), *good)), 0.0)
    assert len(logs(effects, "peers-damaged")) == 3
    assert membership.members() == [ME, node_id(2)]
    assert bench.membership.members() == [ME]


def test_the_disk_is_written_when_peers_change_and_not_otherwise() -> None:
    bench = Bench(2)
    assert sum(isinstance(effect, Remember) for effect in bench.wait(5.0, answers=(2,))) == 1
    bench.hear(2, rumour(2, incarnation=5))
    assert not any(isinstance(effect, Remember) for effect in bench.wait(5.0, answers=(2,)))
    for number in range(3, 30):
        bench.hear(2, rumour(number))
    assert sum(isinstance(effect, Remember) for effect in bench.wait(0.9, answers=tuple(range(2, 30)))) <= 1


def test_members_that_died_together_with_this_one_are_remembered_and_those_who_left_are_not() -> None:
    bench = Bench(2, 3, 4)
    bench.feed(LinkDown(node_id(2), 1, True))
    bench.get(3, Evidence(node_id(2), 1, 1))
    bench.hear(3, rumour(3, MemberState.LEFT, incarnation=2))
    remembered = [effect for effect in bench.wait(2.0, answers=(4,)) if isinstance(effect, Remember)]
    kept = [decode(packed) for packed in remembered[-1].peers]
    assert [each.rumours[0].info.id for each in kept if isinstance(each, Sync)] == [node_id(2), node_id(4)]


# ------------------------------------------------------------------------------------------- the dead


def test_the_dead_are_tried_now_and_then_and_told_that_they_are_dead() -> None:
    bench = Bench(2)
    bench.feed(LinkDown(node_id(2), 1, True))
    tried = messages(bench.wait(2 * LAN.heal_period_s), Sync, to=2)
    assert tried
    assert any(each.state is MemberState.DEAD for each in tried[0].rumours)


def test_the_dead_are_forgotten_after_a_while_and_rumours_do_not_bring_them_back() -> None:
    bench = Bench(2, 3, settings=replace(LAN, dead_keep_s=20.0))
    bench.feed(LinkDown(node_id(2), 1, True))
    bench.get(3, Evidence(node_id(2), 1, 1))
    bench.hear(3, rumour(2))  # late
    assert bench.standing(2) is Standing.GONE
    effects = bench.wait(25.0, answers=(3,))
    assert bench.membership.members() == [ME, node_id(3)]
    forgotten = [change for effect in effects if isinstance(effect, Peers) for change in effect.changes]
    assert [(change.peer, change.keep) for change in forgotten] == [(node_id(2), False)]


def test_one_who_was_dead_when_first_heard_of_is_remembered_here_and_told_to_nobody() -> None:
    bench = Bench(2)
    bench.hear(2, rumour(3, MemberState.DEAD, accuser=node_id(2)))
    assert bench.standing(3) is Standing.SILENT
    answer = messages(bench.get(9, Sync(False, IDLE, (rumour(9),))), Sync, to=9)
    assert node_id(3) not in {each.info.id for sync in answer for each in sync.rumours}


def test_members_are_bounded_and_the_longest_dead_give_way() -> None:
    bench = Bench(2, 3, settings=replace(LAN, members_max=4))
    bench.hear(2, rumour(4), rumour(5))
    assert len(bench.membership.members()) == 4
    bench.feed(LinkDown(node_id(4), 1, True))
    bench.get(2, Evidence(node_id(4), 1, 1))
    bench.hear(2, rumour(5))
    assert bench.membership.members() == [ME, node_id(2), node_id(3), node_id(5)]


def test_the_snapshot_says_who_is_silent_and_accused() -> None:
    bench = Bench(2, 3)
    bench.wait(1.0, answers=(2, 3))
    bench.hear(3, rumour(2, MemberState.SUSPECT, accuser=node_id(3)))
    mine, second, _ = bench.membership.snapshot()
    assert (mine.state, mine.silent_s) == (MemberState.JOINING, 0.0)
    assert second.accusers == (node_id(3),)
    assert second.silent_s is not None
    assert second.silent_s < 0.5
    assert second.dead_in_s is not None
    assert 0 < second.dead_in_s <= LAN.suspicion_s * LAN.suspicion_max_factor


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_in_every_preset_the_deadline_lies_ahead(name: str) -> None:
    bench = Bench(2, 3, settings=PRESETS[name].membership)
    for _ in range(500):
        bench.now = bench.membership.deadline()
        bench.feed(TimePassed())
        assert bench.membership.deadline() > bench.now


def test_testimony_about_an_earlier_life_does_not_count_in_the_next() -> None:
    bench = Bench(2, 3, 4)
    bench.get(2, Ping(1, ME, Load(running=3), ()))
    bench.get(3, Evidence(node_id(2), 1, 1))
    bench.link(2, boot=2)
    assert bench.membership.load(node_id(2)) == IDLE
    bench.get(4, Evidence(node_id(2), 2, -1))
    assert bench.standing(2) is Standing.LIVING


def test_whole_views_asked_for_are_rationed_when_many_strangers_come_at_once() -> None:
    bench = Bench()
    asked = [number for number in range(2, 100) if messages(bench.link(number), Sync)]
    assert len(asked) == LAN.syncs_burst
    bench.wait(1.0)
    assert messages(bench.link(200), Sync)


def test_what_a_new_peer_knows_is_told_to_the_others_at_once() -> None:
    bench = Bench(2, 3)
    effects = bench.hear(8, rumour(8), rumour(9))
    assert receivers(effects, Sync) == {2, 3}
    assert {each.info.id for each in messages(effects, Sync, to=2)[0].rumours} == {node_id(8), node_id(9)}


def kill(bench: Bench, number: int, witness: int) -> None:
    bench.feed(LinkDown(node_id(number), 1, True))
    bench.get(witness, Evidence(node_id(number), 1, 1))


def test_one_that_said_goodbye_is_forgotten_sooner_than_the_dead() -> None:
    bench = Bench(2, 3, 4, settings=replace(LAN, dead_keep_s=60.0, left_keep_s=10.0))
    kill(bench, 2, 4)
    bench.hear(3, rumour(3, MemberState.LEFT, incarnation=2))
    bench.wait(11.0, answers=(4,))
    assert bench.membership.members() == [ME, node_id(2), node_id(4)]
    bench.wait(50.0, answers=(4,))
    assert bench.membership.members() == [ME, node_id(4)]


def test_the_forgotten_are_still_known_to_be_gone() -> None:
    bench = Bench(2, 3, 4, settings=replace(LAN, dead_keep_s=5.0, left_keep_s=5.0, grace_s=1.0))
    kill(bench, 2, 4)
    died_at = bench.membership.dead_since(node_id(2))
    bench.hear(3, rumour(3, MemberState.LEFT, incarnation=2))
    bench.wait(10.0, answers=(4,))
    assert bench.membership.members() == [ME, node_id(4)]
    assert bench.standing(2) is bench.standing(3) is Standing.GONE
    assert (bench.membership.has_left(node_id(2)), bench.membership.has_left(node_id(3))) == (False, True)
    assert bench.membership.dead_since(node_id(2)) == died_at
    assert bench.membership.boot_of(node_id(2)) == 1


@pytest.mark.parametrize(
    "late", [MemberState.READY, MemberState.SUSPECT, MemberState.DEAD, MemberState.LEAVING]
)
def test_a_late_rumour_does_not_bring_a_forgotten_member_back(late: MemberState) -> None:
    bench = Bench(2, 3, settings=replace(LAN, dead_keep_s=5.0))
    kill(bench, 2, 3)
    bench.wait(10.0, answers=(3,))
    effects = bench.hear(3, rumour(2, late, accuser=node_id(3)))
    assert bench.membership.members() == [ME, node_id(3)]
    assert not [effect for effect in effects if isinstance(effect, Log | Peers)]


def test_a_forgotten_member_comes_back_with_a_new_life_or_a_later_word_of_its_own() -> None:
    for news in (rumour(2, boot=2), rumour(2, incarnation=2)):
        bench = Bench(2, 3, settings=replace(LAN, dead_keep_s=5.0))
        kill(bench, 2, 3)
        bench.wait(10.0, answers=(3,))
        bench.hear(3, news)
        assert bench.standing(2) is Standing.LIVING


def test_a_forgotten_member_that_speaks_again_is_told_what_to_refute() -> None:
    bench = Bench(2, 3, settings=replace(LAN, dead_keep_s=5.0))
    kill(bench, 2, 3)
    bench.wait(10.0, answers=(3,))
    told = [each for sync in messages(bench.hear(2, rumour(2)), Sync, to=2) for each in sync.rumours]
    assert (node_id(2), MemberState.DEAD, 1) in {
        (each.info.id, each.state, each.incarnation) for each in told
    }
    bench.hear(2, rumour(2, incarnation=2))
    assert bench.standing(2) is Standing.LIVING


def test_what_is_kept_of_the_forgotten_is_bounded() -> None:
    bench = Bench(2, settings=replace(LAN, dead_keep_s=0.5, left_keep_s=0.5, grace_s=1.0))
    for number in range(3, 1203):
        bench.hear(2, rumour(number), rumour(number, MemberState.LEFT, incarnation=2))
        if number % 400 == 0:
            bench.wait(2.0, answers=(2,))
    bench.wait(2.0, answers=(2,))
    assert bench.membership.members() == [ME, node_id(2)]
    known = [number for number in range(3, 1203) if bench.membership.has_left(node_id(number))]
    assert known == list(range(1203 - GRAVES_MAX, 1203))


def test_an_older_life_of_a_forgotten_member_is_noticed() -> None:
    bench = Bench(2, 3, settings=replace(LAN, dead_keep_s=5.0))
    kill(bench, 2, 3)
    bench.wait(10.0, answers=(3,))
    assert [effect.kind for effect in bench.link(2, boot=0) if isinstance(effect, Log)] == ["boot-behind"]
