from __future__ import annotations

import asyncio
import errno
import os
import random
import signal
import socket
import ssl
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import pairwise

import aiohttp
import pytest
import uvloop

from edgenode.core import signals, wire
from edgenode.core.signals import CloneMet, LinkDown, LinkUp, MessageArrived
from edgenode.core.types import JobId, Load, NodeId, next_boot
from edgenode.shell.handshake import Greeted, WebSocket, _fact, _send_alert
from edgenode.shell.identity import Identity, MeshKey
from edgenode.shell.link import (
    DEFAULTS,
    NONCE_BYTES,
    PROTOCOL,
    Farewell,
    Greeting,
    Kind,
    Outbox,
    decode_greeting,
    encode_greeting,
    split,
)
from edgenode.shell.transport import Transport

KEY = MeshKey("mesh", (b"k" * 32,))
OTHER_KEY = MeshKey("other", (b"o" * 32,))
# pytest-asyncio offers the successor of this fixture to a conftest only, for all tests at once.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy")


@pytest.fixture(params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """A node runs on either."""
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


def break_link(opened: WebSocket) -> None:
    """End a connection under both its ends, as a cut or a kill does."""
    connection = _fact(opened, "socket")
    if connection is None or connection.fileno() < 0:
        return  # it has ended already
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as copy:
        copy.shutdown(socket.SHUT_RDWR)


class End:
    """A transport, and what it told, in order."""

    def __init__(self, identity: Identity | None = None, **options: object) -> None:
        self.identity = Identity.generate() if identity is None else identity
        self.id = self.identity.id
        self.told: list[signals.Event] = []
        self.boot = int(str(options.get("boot", 1)))
        self.has_planted_bug = False
        self._news = asyncio.Event()
        arguments: dict[str, object] = {"mesh_key": KEY, "host": "127.0.0.1", "port": 0, "boot": 1}
        self.transport = Transport(
            identity=self.identity,
            on_event=self._tell,
            **(arguments | options),  # type: ignore[arg-type]
        )

    def _tell(self, event: signals.Event) -> None:
        self.told.append(event)
        self._news.set()

    async def heard(self, wanted: Callable[[signals.Event], bool], count: int = 1) -> list[signals.Event]:
        """The events that match, as soon as there are `count` of them."""
        async with asyncio.timeout(10):
            while len(found := [event for event in self.told if wanted(event)]) < count:
                self._news.clear()
                await self._news.wait()
        return found

    async def up(self, other: End, count: int = 1) -> LinkUp:
        found = await self.heard(lambda e: isinstance(e, LinkUp) and e.peer == other.id, count)
        assert isinstance(found[-1], LinkUp)
        return found[-1]

    async def down(self, other: End) -> LinkDown:
        found = await self.heard(lambda e: isinstance(e, LinkDown) and e.peer == other.id)
        assert isinstance(found[0], LinkDown)
        return found[0]

    async def messages(self, count: int) -> list[wire.Message]:
        found = await self.heard(lambda e: isinstance(e, MessageArrived), count)
        return [event.message for event in found if isinstance(event, MessageArrived)]

    def book(self, other: End, *, keep: bool = True, boot: int = 1) -> None:
        address = signals.Address(other.id, boot, (other.transport.address,), keep)
        self.transport.set_peers((address,))

    def links(self, other: End) -> list[Kind]:
        peer = self.transport._peers.get(other.id)
        return [] if peer is None else sorted(link.kind for link in peer.links)

    def crash(self) -> None:
        """As kill -9 does it: every socket of the process closes, and it does nothing more."""
        self.transport._is_closing = True
        self.transport._answering.cancel()  # closes the port
        self.break_links()

    def break_links(self) -> None:
        for peer in self.transport._peers.values():
            for link in peer.links:
                break_link(link.socket)


Start = Callable[..., "asyncio.Future[End]"]


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., object]]:
    ends: list[End] = []

    async def started(**options: object) -> End:
        end = End(**options)  # type: ignore[arg-type]
        ends.append(end)
        await end.transport.start()
        return end

    yield started
    for end in ends:
        await end.transport.close()
        if not end.has_planted_bug:
            await end.transport.failed()
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert [task for task in left if "edgenode" in repr(task.get_coro())] == []


async def turn() -> None:
    """Until the loop has done all that it was about to do by now."""
    done = asyncio.Event()
    asyncio.get_running_loop().call_soon(done.set)
    await done.wait()


async def until(is_true: Callable[[], bool]) -> None:
    """Wait for something that has no event of its own: it can only come true in a turn of the loop."""
    async with asyncio.timeout(10):
        while not is_true():
            await turn()


def ping(seq: int) -> wire.Ping:
    return wire.Ping(seq, NodeId("someone"), Load(), ())


def stop(number: int) -> wire.Wanted:
    return wire.Wanted((JobId(number.to_bytes(16, "big")),))


async def pair(start: Callable[..., object]) -> tuple[End, End]:
    """Two ends with both links between them."""
    left, right = await start(), await start()  # type: ignore[misc]
    left.transport.seed(right.transport.address)
    await left.up(right)
    await right.up(left)
    both = [Kind.BULK, Kind.CONTROL]
    await until(lambda: left.links(right) == both and right.links(left) == both)
    return left, right


# ------------------------------------------------------------------------------------------ messages


async def test_messages_travel_both_ways_and_name_their_proven_sender(start) -> None:
    left, right = await pair(start)
    left.transport.send(right.id, ping(1))
    right.transport.send(left.id, stop(2))
    assert await right.heard(lambda e: isinstance(e, MessageArrived)) == [
        MessageArrived(left.id, ping(1), left.boot)
    ]
    assert await left.heard(lambda e: isinstance(e, MessageArrived)) == [
        MessageArrived(right.id, stop(2), right.boot)
    ]


async def test_link_up_tells_the_life_and_who_called(start) -> None:
    left, right = await start(boot=7), await start(boot=9)
    left.transport.seed(right.transport.address)
    assert await left.up(right) == LinkUp(right.id, 9, right.transport.address)
    assert await right.up(left) == LinkUp(left.id, 7, None)


async def test_messages_of_a_link_arrive_in_order(start) -> None:
    left, right = await pair(start)
    sent = [stop(number) for number in range(5_000)]
    for message in sent:
        left.transport.send(right.id, message)
    assert await right.messages(5_000) == sent
    assert left.transport.dropped == 0


async def test_control_messages_overtake_megabytes_of_bulk(start) -> None:
    left, right = await pair(start)
    for _ in range(30):
        left.transport.send(right.id, wire.Copies((b"x" * 1_000_000,)))
    left.transport.send(right.id, ping(1))
    arrived = await right.messages(31)
    assert arrived.index(ping(1)) < 15


async def test_the_largest_message_arrives_and_a_larger_one_is_dropped_and_counted(start) -> None:
    left, right = await pair(start)
    overhead = len(wire.encode(wire.Copies((b"x" * 100_000,)))) - 100_000
    largest = wire.Copies((b"x" * (wire.FRAME_BYTES_MAX - overhead),))
    left.transport.send(right.id, wire.Copies((b"x" * wire.FRAME_BYTES_MAX,)))
    left.transport.send(right.id, largest)
    assert await right.messages(1) == [largest]
    assert left.transport.dropped == 1


async def test_a_message_to_a_booked_peer_calls_it(start) -> None:
    few = replace(DEFAULTS, eager_links=0, lonely_calls=0)
    left, right = await start(settings=few), await start(settings=few)
    left.book(right)
    left.transport.send(right.id, stop(1))
    left.transport.send(right.id, stop(2))
    assert await right.messages(2) == [stop(1), stop(2)]


async def test_in_a_large_mesh_nobody_is_called_without_a_message_unless_there_is_no_link_at_all(
    start,
) -> None:
    few = replace(DEFAULTS, eager_links=1, lonely_calls=1)
    left, first, second, third = [await start(settings=few) for _ in range(4)]
    left.book(first)
    await left.up(first)  # not large yet
    left.book(second)
    left.book(third)
    assert second.told == third.told == []
    left.book(second, keep=False)
    left.book(third, keep=False)
    lonely = await start(settings=few)
    addresses = [signals.Address(end.id, 1, (end.transport.address,), True) for end in (first, second, third)]
    lonely.transport.set_peers(tuple(addresses))
    await lonely.heard(lambda event: isinstance(event, LinkUp))
    assert len(lonely.transport.linked()) == 1


async def test_in_a_large_mesh_a_ping_needs_no_bulk_link_and_a_job_needs_both(start) -> None:
    few = replace(DEFAULTS, eager_links=0, lonely_calls=0)
    left, right = await start(settings=few), await start(settings=few)
    left.book(right)
    right.book(left)
    left.transport.send(right.id, ping(1))
    await right.messages(1)
    assert left.links(right) == [Kind.CONTROL]
    left.transport.send(right.id, stop(1))
    await right.messages(2)
    assert left.links(right) == [Kind.BULK, Kind.CONTROL]


async def test_idle_links_of_a_large_mesh_end_without_evidence_and_are_made_again(start) -> None:
    few = replace(DEFAULTS, eager_links=0, lonely_calls=0, idle_s=0.1)
    left, right = await start(settings=few), await start(settings=few)
    left.book(right)
    right.book(left)
    left.transport.send(right.id, stop(1))
    await right.messages(1)
    await until(lambda: not left.links(right) and not right.links(left))
    assert not [event for end in (left, right) for event in end.told if isinstance(event, LinkDown)]
    left.transport.send(right.id, stop(2))
    assert await right.messages(2) == [stop(1), stop(2)]
    await left.up(right, count=2)


async def test_of_an_idle_pair_in_a_large_mesh_the_control_link_ends_last_and_its_end_is_evidence(
    start,
) -> None:
    few = replace(DEFAULTS, eager_links=0, lonely_calls=0)
    left, right = await start(settings=few), await start(settings=few)
    left.book(right)
    right.book(left)
    left.transport.send(right.id, stop(1))
    await right.messages(1)
    await until(lambda: left.links(right) == right.links(left) == [Kind.BULK, Kind.CONTROL])
    begun = asyncio.get_running_loop().time()
    left.transport.end_idle(begun - 60.0)
    left.transport.end_idle(begun + 60.0)
    await until(lambda: left.links(right) == right.links(left) == [Kind.CONTROL])
    right.crash()
    assert (await left.down(right)).refused


async def test_links_of_a_small_mesh_never_end_for_being_idle(start) -> None:
    left, right = await pair(start)
    left.book(right)
    left.transport.end_idle(asyncio.get_running_loop().time() + 60.0)
    left.transport.send(right.id, ping(1))
    left.transport.send(right.id, stop(1))
    await right.messages(2)  # a farewell would have come before
    assert left.links(right) == right.links(left) == [Kind.BULK, Kind.CONTROL]


async def test_a_message_to_an_unknown_node_is_dropped_and_counted(start) -> None:
    left = await start()
    left.transport.send(NodeId("nobody"), ping(1))
    assert left.transport.dropped == 1


async def test_a_full_outbox_drops_what_is_new_and_says_so_once(start, caplog) -> None:
    small = replace(DEFAULTS, bulk_messages_max=10)
    left, right = await start(settings=small), await start()
    left.book(right)
    for number in range(30):
        left.transport.send(right.id, stop(number))
    assert await right.messages(10) == [stop(number) for number in range(10)]
    assert left.transport.dropped == 20
    assert len([line for line in caplog.messages if "is full" in line]) == 1


async def test_three_ends_all_link_up(start) -> None:
    ends = [await start() for _ in range(3)]
    for end in ends:
        for other in ends:
            end.book(other)
    for end in ends:
        for other in ends:
            if other is not end:
                await end.up(other)


# ------------------------------------------------------------------------------------- double calls


async def test_when_both_call_one_link_of_each_kind_stays_and_nothing_is_lost(start) -> None:
    left, right = await start(), await start()
    for round_ in range(5):
        left.transport.send(right.id, stop(round_))  # dropped: not known yet
    left.transport.seed(right.transport.address)
    right.transport.seed(left.transport.address)
    await left.up(right)
    await right.up(left)
    sent = [stop(number) for number in range(2_000)]
    for message in sent:
        left.transport.send(right.id, message)
        right.transport.send(left.id, message)
        if int.from_bytes(message.jobs[0], "big") % 100 == 0:
            await turn()
    for end, other in ((left, right), (right, left)):
        arrived = await end.messages(2_000)
        assert sorted(arrived, key=repr) == sorted(sent, key=repr)
        await until(lambda end=end, other=other: end.links(other) == [Kind.BULK, Kind.CONTROL])
        assert len([e for e in end.told if isinstance(e, LinkUp)]) == 1
        assert not [e for e in end.told if isinstance(e, LinkDown)]


# ------------------------------------------------------------------------------------------- deaths


async def test_a_crash_is_proved_at_once(start) -> None:
    left, right = await pair(start)
    loop = asyncio.get_running_loop()
    began = loop.time()
    right.crash()
    assert await left.down(right) == LinkDown(right.id, 1, refused=True)
    assert loop.time() - began < 0.5  # a few ms when the machine is idle
    assert len([e for e in left.told if isinstance(e, LinkDown)]) == 1


async def test_a_broken_link_to_a_living_peer_is_mended_without_a_word(start) -> None:
    left, right = await pair(start)
    peer = left.transport._peers[right.id]
    broken = list(peer.links)
    left.break_links()
    await until(lambda: not set(broken) & set(peer.links) and peer.active(Kind.CONTROL) is not None)
    left.transport.send(right.id, ping(5))
    assert await right.messages(1) == [ping(5)]
    for end in (left, right):
        assert not [e for e in end.told if isinstance(e, LinkDown)]


async def test_a_lost_peer_whose_port_is_silent_is_down_without_proof(start) -> None:
    hasty = replace(DEFAULTS, probe_s=0.1)
    left, right = await start(settings=hasty), await start()
    left.transport.seed(right.transport.address)
    await left.up(right)
    # Its port takes connections, and nobody answers there: as a stopped process does.
    port = right.transport.address[1]
    right.transport._answering.cancel()
    await asyncio.wait({right.transport._answering})
    right.transport._is_closing = True
    with socket.create_server(("127.0.0.1", port)):
        right.break_links()
        assert await left.down(right) == LinkDown(right.id, 1, refused=False)


async def test_a_goodbye_is_no_proof_of_death(start) -> None:
    left, right = await pair(start)
    await right.transport.close()
    assert await left.down(right) == LinkDown(right.id, 1, refused=False)


async def test_what_was_sent_before_closing_arrives(start) -> None:
    left, right = await pair(start)
    for number in range(500):
        left.transport.send(right.id, stop(number))
    left.transport.send(right.id, ping(1))
    await left.transport.close()
    assert len(await right.messages(501)) == 501


async def test_closing_waits_for_megabytes_to_leave(start) -> None:
    left, right = await pair(start)
    for end, other in ((left, right), (right, left)):
        for _ in range(8):
            end.transport.send(other.id, wire.Copies((b"x" * 1_000_000,)))
    await left.transport.close()
    assert len(await right.messages(8)) == 8


async def test_a_booked_peer_whose_port_refuses_is_proved_gone_once(start) -> None:
    left, right = await start(), await start()
    gone = signals.Address(right.id, 4, (right.transport.address,), True)
    await right.transport.close()
    left.transport.set_peers((gone,))
    assert await left.down(right) == LinkDown(right.id, 4, refused=True)
    peer = left.transport._peers[right.id]
    await until(lambda: peer.failures >= 3)
    assert len(left.told) == 1


async def test_a_peer_that_is_let_go_loses_its_links_and_is_told_down_once(start) -> None:
    left, right = await pair(start)
    left.book(right)
    left.book(right, keep=False)
    assert await left.down(right) == LinkDown(right.id, 1, refused=False)
    assert await right.down(left) == LinkDown(left.id, 1, refused=False)


@pytest.mark.parametrize("kind", Kind)
async def test_a_peer_that_is_let_go_while_it_calls_loses_that_link_too(
    start, monkeypatch, kind: Kind
) -> None:
    left, right = await pair(start)
    left.book(right)
    adopt = left.transport.adopt

    def let_go_first(greeted: Greeted) -> asyncio.Event | None:
        monkeypatch.undo()
        left.book(right, keep=False)
        return adopt(greeted)

    monkeypatch.setattr(left.transport, "adopt", let_go_first)
    await right.transport._handshakes.call(left.transport.address, kind, left.id, 5.0)
    assert await left.down(right) == LinkDown(right.id, 1, refused=False)
    assert await right.down(left) == LinkDown(left.id, 1, refused=False)


async def test_a_new_life_replaces_the_old_one(start) -> None:
    left, right = await pair(start)
    again = await start(identity=right.identity, boot=2)
    again.transport.seed(left.transport.address)
    assert (await left.up(right, 2)).boot == 2
    mine = [e for e in left.told if not isinstance(e, MessageArrived)]
    assert [type(e) for e in mine] == [LinkUp, LinkDown, LinkUp]
    left.transport.send(again.id, ping(3))
    assert await again.messages(1) == [ping(3)]


async def test_a_new_life_in_the_same_process_is_linked_under_its_boot_number(start) -> None:
    left, right = await pair(start)
    left.book(right)
    right.transport.begin_life(2)
    assert (await left.up(right, 2)).boot == 2
    await right.up(left, 2)
    assert [e for e in left.told if isinstance(e, LinkDown)] == [LinkDown(right.id, 1, refused=False)]
    left.transport.send(right.id, ping(3))
    assert await right.messages(1) == [ping(3)]
    assert not any(isinstance(event, CloneMet) for event in (*left.told, *right.told))


async def test_what_an_earlier_life_could_not_send_is_not_said_in_the_name_of_the_next(start) -> None:
    """Seed 791705: the next life was called behind, for writes that its disk never took."""
    left, right = await start(), await start()
    right.book(left)
    right.transport.send(left.id, ping(1))  # there is no link yet
    right.transport.begin_life(2)
    await left.up(right)
    await right.up(left)
    right.transport.send(left.id, ping(2))
    assert await left.messages(1) == [ping(2)]


FIRST = next_boot(0, 5)


@pytest.mark.parametrize("copied", [3, next_boot(0, 6)], ids=["an older life", "as many starts"])
async def test_a_copy_of_a_linked_node_is_sent_away_and_told_why(start, copied: int) -> None:
    left, right = await start(), await start(boot=FIRST)
    right.transport.seed(left.transport.address)
    await left.up(right)
    copy = await start(identity=right.identity, boot=copied)
    copy.transport.seed(left.transport.address)
    await copy.heard(lambda event: event == CloneMet(FIRST, keeps=True))
    assert [e.boot for e in left.told if isinstance(e, LinkUp)] == [FIRST]
    assert CloneMet(FIRST, keeps=True) not in right.told


@pytest.mark.parametrize("event_loop_policy", ["asyncio", "uvloop"], indirect=True)
async def test_a_killed_process_is_proved_dead_within_a_moment(start) -> None:
    left = await start()
    host, port = left.transport.address
    program = f"""
        import asyncio
        from edgenode.shell.identity import Identity, MeshKey
        from edgenode.shell.transport import Transport

        async def main():
            transport = Transport(identity=Identity.generate(), mesh_key=MeshKey("mesh", (b"k" * 32,)),
                host="127.0.0.1", port=0, boot=3, on_event=lambda event: None)
            await transport.start()
            transport.seed(({host!r}, {port}))
            await transport.failed()

        asyncio.run(main())
    """
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", textwrap.dedent(program))
    try:
        await left.heard(lambda e: isinstance(e, LinkUp))
        loop = asyncio.get_running_loop()
        began = loop.time()
        child.send_signal(signal.SIGKILL)
        (down,) = await left.heard(lambda e: isinstance(e, LinkDown))
        took_s = loop.time() - began
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
    assert isinstance(down, LinkDown)
    assert (down.boot, down.refused) == (3, True)
    assert took_s < 0.5


async def restart(start, ends: dict[str, End], name: str, *, crashes: bool) -> None:
    """End one of the ends and start it again: same identity, same port, next life."""
    old = ends.pop(name)
    port, boot = old.transport.address[1], old.boot + 1
    if crashes:
        old.crash()
        await asyncio.wait({old.transport._answering})
    await old.transport.close()
    ends[name] = await start(identity=old.identity, port=port, boot=boot)
    for other in ends.values():
        if other.id != old.id:
            ends[name].book(other, boot=other.boot)


@pytest.mark.parametrize("seed", range(3))
async def test_after_any_breaks_and_restarts_pairs_are_linked_once_and_told_in_turn(start, seed: int) -> None:
    dice = random.Random(seed)
    ends: dict[str, End] = {name: await start() for name in "abc"}
    for end in ends.values():
        for other in ends.values():
            end.book(other)
    for step in range(25):
        name = dice.choice("abc")
        match dice.choice(["cut", "cut", "crash", "close", "seed"]):
            case "cut":
                ends[name].break_links()
            case "seed":
                ends[name].transport.seed(ends[dice.choice("abc")].transport.address)
            case ending:
                await restart(start, ends, name, crashes=ending == "crash")
        for end in ends.values():
            for other in ends.values():
                if end is not other:
                    end.transport.send(other.id, ping(step))
        for _ in range(dice.choice([0, 1, 10, 200])):
            await turn()
    both = [Kind.BULK, Kind.CONTROL]
    pairs = [(end, other) for end in ends.values() for other in ends.values() if end is not other]
    await until(lambda: all(end.links(other) == both for end, other in pairs))
    for end, other in pairs:
        lives = [
            (type(event), event.boot)
            for event in end.told
            if isinstance(event, LinkUp | LinkDown) and event.peer == other.id
        ]
        ups = [boot for kind, boot in lives if kind is LinkUp]
        assert lives[-1] == (LinkUp, other.boot)
        assert ups == sorted(ups)
        for before, after in pairwise(lives):
            if before[0] is LinkUp:
                assert after == (LinkDown, before[1]), lives


# ------------------------------------------------------------------------------------------ trust


async def test_a_wrong_mesh_key_is_refused_with_the_reason_in_both_logs(start, caplog) -> None:
    left, right = await start(), await start(mesh_key=OTHER_KEY)
    left.transport.seed(right.transport.address)
    host, port = right.transport.address
    callers = f"peer {host}:{port} has a certificate of another mesh (wrong mesh key?)"
    called = "a caller at 127.0.0.1 was refused: it took our certificate for one of another mesh"
    await until(lambda: any(called in line for line in caplog.messages))
    assert caplog.messages.count(callers) == 1
    await until(lambda: len(caplog.messages) >= 2)
    assert left.told == right.told == []


async def test_a_caller_of_another_mesh_that_trusts_us_is_refused_with_the_reason(start, caplog) -> None:
    left = await start()
    lenient = Identity.generate().client_context(OTHER_KEY)
    lenient.verify_mode = ssl.CERT_NONE
    assert await answer_to(left, b"GET / HTTP/1.1\r\n\r\n", lenient) == b""
    reason = "a caller at 127.0.0.1 was refused: it has a certificate of another mesh (wrong mesh key?)"
    assert caplog.messages == [reason]


async def answer_to(end: End, request: bytes, context: ssl.SSLContext | None) -> bytes:
    """Everything that the port says to a caller, after TLS where that is spoken."""
    host, port = end.transport.address
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
    except OSError:
        return b""
    try:
        writer.write(request)
        await writer.drain()
        return await reader.read()
    except OSError:
        return b""
    finally:
        writer.close()


async def test_a_caller_without_a_certificate_gets_no_answer(start, caplog) -> None:
    left = await start()
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname = False
    stranger.verify_mode = ssl.CERT_NONE
    assert await answer_to(left, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", stranger) == b""
    assert caplog.messages == ["a caller at 127.0.0.1 was refused: it has no certificate"]


async def test_plain_http_gets_no_answer(start, caplog) -> None:
    left = await start()
    answer = await answer_to(left, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", None)
    assert b"HTTP" not in answer
    assert len(answer) < 16  # a TLS alert at most
    assert ["does not speak TLS" in line for line in caplog.messages] == [True]


async def test_with_a_certificate_there_is_nothing_but_the_link(start) -> None:
    left = await start()
    member = Identity.generate().client_context(KEY)
    answer = await answer_to(left, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", member)
    assert answer.startswith(b"HTTP/1.1 404")


async def test_when_files_run_out_the_port_is_deaf_for_a_while_and_not_closed(
    start, caplog, monkeypatch
) -> None:
    left = await start(settings=replace(DEFAULTS, redial_max_s=0.05))
    listener = left.transport._handshakes._listener
    refusals = iter([OSError(errno.EMFILE, "Too many open files")])

    class Scarce:
        """The listener, but out of file descriptors for the first caller."""

        fileno = listener.fileno
        close = listener.close

        def accept(self) -> object:
            for error in refusals:
                raise error
            return listener.accept()

    monkeypatch.setattr(left.transport._handshakes, "_listener", Scarce())
    right = await start()
    right.transport.seed(left.transport.address)
    await left.up(right)
    assert caplog.messages == ["cannot accept connections: [Errno 24] Too many open files"]


async def test_idle_strangers_do_not_keep_members_out(start) -> None:
    left = await start(settings=replace(DEFAULTS, callers_max=4, handshake_s=60.0))
    idle = [await asyncio.open_connection(*left.transport.address) for _ in range(20)]
    right = await start()
    right.transport.seed(left.transport.address)
    await left.up(right)
    for _, writer in idle:
        writer.close()


async def test_a_stranger_that_says_nothing_is_dropped(start) -> None:
    left = await start(settings=replace(DEFAULTS, handshake_s=0.05))
    reader, writer = await asyncio.open_connection(*left.transport.address)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_a_clone_is_refused_with_the_reason_in_both_logs(start, caplog) -> None:
    left = await start(boot=4)
    clone = await start(identity=left.identity, boot=6)
    clone.transport.seed(left.transport.address)
    await left.heard(lambda event: event == CloneMet(6, keeps=False))
    await until(
        lambda: any("refused this node: two processes have this identity" in x for x in caplog.messages)
    )
    assert any(line.startswith(f"refused {left.id} at") for line in caplog.messages)
    assert {type(event) for event in (*left.told, *clone.told)} == {CloneMet}


async def test_calling_oneself_is_noticed_and_not_repeated(start, caplog) -> None:
    left = await start(host="0.0.0.0", listens=(("127.0.0.1", 1),))
    own = ("127.0.0.1", left.transport.address[1])
    left.transport.seed(own)
    await until(lambda: left.transport._seeds[own].found == left.id)
    assert left.told == []


# ------------------------------------------------------------------------- what peers may get wrong


class Stranger:
    """A member that says what it likes."""

    def __init__(self, end: End) -> None:
        self.end = end
        self.identity = Identity.generate()
        self.session = aiohttp.ClientSession()

    async def greet(self, **changes: object) -> aiohttp.ClientWebSocketResponse:
        host, port = self.end.transport.address
        link = await self.session.ws_connect(
            f"wss://{host}:{port}/", ssl=self.identity.client_context(KEY), max_msg_size=0
        )
        greeting = Greeting(PROTOCOL, Kind.CONTROL, 1, b"n" * NONCE_BYTES, (("127.0.0.1", 1),))
        await link.send_bytes(encode_greeting(greeting._replace(**changes)))  # type: ignore[arg-type]
        return link


@pytest.fixture
async def stranger(start) -> AsyncIterator[Stranger]:
    made = Stranger(await start())
    yield made
    await made.session.close()


async def test_a_greeting_is_answered_with_one(stranger) -> None:
    link = await stranger.greet()
    answer = decode_greeting(await link.receive_bytes())
    assert (answer.protocol, answer.kind, answer.boot) == (PROTOCOL, Kind.CONTROL, 1)
    assert answer.listens == (stranger.end.transport.address,)
    await link.close()


async def test_another_protocol_version_is_refused_with_a_reason(stranger, caplog) -> None:
    link = await stranger.greet(protocol=PROTOCOL + 1)
    refusal = await link.receive()
    assert refusal.data == Farewell.REFUSED
    assert refusal.extra == f"it speaks protocol {PROTOCOL + 1}, this node {PROTOCOL}"
    assert any(refusal.extra in line for line in caplog.messages)
    assert stranger.end.told == []


@pytest.mark.parametrize(
    "frame", [b"", b"\xc1", b"\x00", b"\x93\x01\x02\x03", encode_greeting((1, "x", 1, b"", []))]
)
async def test_nonsense_instead_of_a_greeting_ends_the_link(stranger, frame: bytes) -> None:
    host, port = stranger.end.transport.address
    link = await stranger.session.ws_connect(
        f"wss://{host}:{port}/", ssl=stranger.identity.client_context(KEY)
    )
    await link.send_bytes(frame)
    assert (await link.receive()).data == Farewell.MALFORMED
    assert stranger.end.told == []


async def test_no_greeting_at_all_ends_the_link(start) -> None:
    member = Stranger(await start(settings=replace(DEFAULTS, handshake_s=0.1)))
    host, port = member.end.transport.address
    link = await member.session.ws_connect(f"wss://{host}:{port}/", ssl=member.identity.client_context(KEY))
    assert (await link.receive()).data == Farewell.REFUSED
    await member.session.close()


def packed(*frames: bytes) -> bytes:
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


@pytest.mark.parametrize(
    "packet",
    [b"xyz", packed(b"\xc1"), packed(wire.encode(ping(1)))[:-1], packed(b""), packed(b"\x92\x63\x00")],
)
async def test_a_malformed_packet_ends_its_link_and_nothing_else(stranger, packet: bytes, caplog) -> None:
    bulk = await stranger.greet(kind=Kind.BULK)
    control = await stranger.greet()
    for link in (control, bulk):
        decode_greeting(await link.receive_bytes())
    await bulk.send_bytes(packet)
    ended = await bulk.receive()
    assert ended.data == Farewell.MALFORMED
    await control.send_bytes(packed(wire.encode(ping(1)), wire.encode(ping(2))))
    assert await stranger.end.messages(2) == [ping(1), ping(2)]
    assert any("closed the bulk link" in line for line in caplog.messages)
    assert not [e for e in stranger.end.told if isinstance(e, LinkDown)]


async def test_an_oversized_frame_ends_its_link(stranger) -> None:
    link = await stranger.greet(kind=Kind.BULK)
    decode_greeting(await link.receive_bytes())
    await link.send_bytes(b"\0" * (wire.FRAME_BYTES_MAX + 100))
    while (ended := await link.receive()).type is aiohttp.WSMsgType.BINARY:
        pass
    assert ended.type is not aiohttp.WSMsgType.TEXT
    assert ended.data in (Farewell.MALFORMED, 1009, None)
    assert not [e for e in stranger.end.told if isinstance(e, MessageArrived)]


async def test_a_peer_that_listens_everywhere_is_called_where_it_spoke_from(stranger) -> None:
    link = await stranger.greet(listens=(("0.0.0.0", 4242),))
    decode_greeting(await link.receive_bytes())
    peer = stranger.end.transport._peers[stranger.identity.id]
    assert peer.listens == (("127.0.0.1", 4242),)
    await link.close()


# ---------------------------------------------------------------------------------------- life cycle


async def test_closing_twice_and_closing_unstarted_are_fine(start) -> None:
    left, _ = await pair(start)
    await left.transport.close()
    await left.transport.close()
    await End().transport.close()


async def test_a_closed_transport_tells_nothing_more(start) -> None:
    left, right = await pair(start)
    await left.transport.close()
    count = len(left.told)
    await right.down(left)
    assert len(left.told) == count


async def test_a_bug_in_a_listener_is_not_swallowed(start) -> None:
    left, right = await start(), await start()

    def explode(event: signals.Event) -> None:
        raise AssertionError("planted")

    right.has_planted_bug = True
    right.transport._on_event = explode
    left.transport.seed(right.transport.address)
    with pytest.raises(ExceptionGroup) as caught:
        await right.transport.failed()
    assert caught.group_contains(AssertionError, match="planted")


async def test_a_port_in_use_is_an_error_at_start(start) -> None:
    left = await start()
    with pytest.raises(OSError, match="in use"):
        await End(port=left.transport.address[1]).transport.start()


async def test_a_seed_is_called_until_it_is_there(start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    left = await start()
    left.transport.seed(("127.0.0.1", port))
    right = await start(port=port)
    await left.up(right)


async def test_a_found_address_is_not_called_again_after_a_goodbye_and_a_named_one_is(start) -> None:
    left, found, named = [await start() for _ in range(3)]
    left.transport.seed(found.transport.address, is_lasting=False)
    left.transport.seed(named.transport.address)
    for end in (found, named):
        await left.up(end)
        await end.transport.close()
        await left.down(end)
    await until(lambda: found.id not in left.transport._peers and named.id not in left.transport._peers)
    assert set(left.transport._seeds) == {named.transport.address}


async def test_addresses_found_in_vain_give_way_to_others_and_named_ones_never_do(start) -> None:
    left, right = await start(settings=replace(DEFAULTS, seeds_max=3)), await start()
    with ExitStack() as stack:
        refusing = [stack.enter_context(socket.socket()) for _ in range(3)]  # bound, and not listening
        for each in refusing:
            each.bind(("127.0.0.1", 0))
        named, *vain = [each.getsockname() for each in refusing]
        left.transport.seed(named)
        for address in vain:
            left.transport.seed(address, is_lasting=False)
        await until(lambda: all(seed.failures > 0 for seed in left.transport._seeds.values()))
        left.transport.seed(right.transport.address, is_lasting=False)
        await left.up(right)
        assert named in left.transport._seeds
        assert len(left.transport._seeds) == 3


async def test_a_seed_is_called_again_when_another_node_took_the_place_of_one_that_is_still_a_member(
    start,
) -> None:
    """Its store was lost, say: it has a new identity, and may know nobody."""
    left, right = await pair(start)
    left.book(right)
    port = right.transport.address[1]
    right.crash()
    await right.transport._handshakes.close()
    heir = await start(port=port)
    left.transport.send(right.id, ping(1))  # membership tries the dead now and then
    await left.up(heir)


async def test_a_seed_is_called_again_when_another_node_took_its_place(start) -> None:
    left, right = await pair(start)
    port = right.transport.address[1]
    await right.transport.close()
    await left.down(right)
    heir = await start(port=port)
    await left.up(heir)


# --------------------------------------------------------------------------------------------- parts


def test_an_outbox_is_bounded_in_number_and_bytes() -> None:
    box = Outbox(messages_max=3, bytes_max=10)
    assert [box.put(b"1234", float(at)) for at in range(3)] == [True, True, False]
    assert list(split(box.take())) == [b"1234", b"1234"]
    assert box.put(b"x" * 100, 0.0)  # one always fits
    assert not box.put(b"", 0.0)


def test_an_outbox_forgets_what_waited_too_long() -> None:
    box = Outbox(messages_max=10, bytes_max=100)
    for at in range(5):
        box.put(bytes([at]), float(at))
    assert box.drop_before(3.0) == 3
    assert list(split(box.take())) == [b"\3", b"\4"]
    assert len(box) == 0


def test_small_messages_share_a_packet_and_a_large_one_goes_alone() -> None:
    box = Outbox(messages_max=10, bytes_max=10_000_000)
    for size in (10, 20, 1_000_000, 30):
        box.put(b"x" * size, 0.0)
    sizes = [[len(frame) for frame in split(box.take())] for _ in range(3)]
    assert sizes == [[10, 20], [1_000_000], [30]]


def test_telling_why_ends_however_long_the_other_side_talks() -> None:
    """A thread that stays is one that nobody else gets, and the process waits for it at its end."""
    ended = threading.Event()

    def drip(listener: socket.socket) -> None:
        with listener.accept()[0] as link, suppress(OSError):
            while not ended.wait(0.02):
                link.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        talking = threading.Thread(target=drip, args=(listener,))
        talking.start()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        telling = threading.Thread(
            target=_send_alert, args=(listener.getsockname(), context, 0.1), daemon=True
        )
        telling.start()
        telling.join(20)
        is_over = not telling.is_alive()
        ended.set()
        talking.join()
    assert is_over
