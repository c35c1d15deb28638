"""In which order, and in which pieces, the core is handed what waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, repeat

from edgenode.core.signals import Event, LinkDown, MessageArrived
from edgenode.core.types import JobId, NodeId
from edgenode.core.wire import Nack, Offer, Wanted
from edgenode.shell.inbox import EVENTS_MAX, EVENTS_PER_TURN, TURN_S, Inbox

PEER = NodeId("a")
JOB = JobId(bytes(16))


def make_inbox(times: Iterator[float]) -> Inbox:
    return Inbox(lambda: next(times))


def about_jobs(number: int) -> Event:
    """Not of the kind that becomes a burst."""
    return MessageArrived(PEER, Wanted((JobId(number.to_bytes(16, "big")),)))


def test_what_the_control_link_says_waits_for_no_job() -> None:
    inbox = make_inbox(repeat(0.0))
    jobs, nack, down = about_jobs(1), MessageArrived(PEER, Nack(1, ())), LinkDown(PEER, 1, refused=True)
    for event in (jobs, nack, down):
        inbox.add(event)
    assert list(inbox.turn()) == [nack, down, jobs]


def test_a_ping_that_comes_during_a_turn_is_next() -> None:
    inbox = make_inbox(repeat(0.0))
    inbox.add(about_jobs(1))
    inbox.add(about_jobs(2))
    turn = inbox.turn()
    next(turn)
    nack = MessageArrived(PEER, Nack(1, ()))
    inbox.add(nack)
    assert next(turn) == nack


def test_a_turn_ends_with_the_event_that_takes_too_long() -> None:
    inbox = make_inbox(TURN_S / 2 * step for step in count())
    for number in range(10):
        inbox.add(about_jobs(number))
    assert list(inbox.turn()) == [about_jobs(0), about_jobs(1)]
    assert len(inbox) == 8


def test_what_waits_gets_as_much_time_as_what_was_due_took() -> None:
    inbox = make_inbox(TURN_S / 2 * step for step in count())
    for number in range(10):
        inbox.add(about_jobs(number))
    assert len(list(inbox.turn(least_s=4 * TURN_S))) == 8


def test_a_turn_ends_after_so_many_events() -> None:
    inbox = make_inbox(repeat(0.0))
    for number in range(EVENTS_PER_TURN + 1):
        inbox.add(about_jobs(number))
    assert len(list(inbox.turn())) == EVENTS_PER_TURN


def test_too_many_messages_about_jobs_do_not_keep_a_ping_out() -> None:
    inbox = make_inbox(repeat(0.0))
    for _ in range(EVENTS_MAX):
        inbox.add(MessageArrived(PEER, Offer(())))
    assert inbox.is_full(about_jobs(1))
    assert not inbox.is_full(MessageArrived(PEER, Nack(1, ())))
