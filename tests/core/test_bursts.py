"""What is handled as one event, and what is not."""

from __future__ import annotations

from collections import deque

from job_mesh import A, B, C, Mesh, sends, succeeded

from edgenode.core import bursts
from edgenode.core.signals import Burst, Event, LinkDown, MessageArrived, Persist, RunEnded, TimePassed
from edgenode.core.types import Ballot, Load
from edgenode.core.wire import Acks, Ask, AskItem, Marked, Ping, Stored, Write


def marked(count: int) -> MessageArrived:
    return MessageArrived(B, Marked((b"j" * 16,) * count))


def test_what_flows_is_taken_together_in_its_order() -> None:
    waiting: deque[Event] = deque([marked(1), marked(2), marked(3)])
    assert bursts.take(waiting) == Burst((marked(1), marked(2), marked(3)))
    assert not waiting


def test_what_others_depend_on_is_taken_alone() -> None:
    ping = MessageArrived(B, Ping(1, A, Load(), ()))
    ask = MessageArrived(B, Ask((AskItem(b"j" * 16, 0, 2, 1e9, b""),)))
    gone = LinkDown(B, 1, True)
    waiting: deque[Event] = deque([marked(1), ping, marked(2), marked(3), ask, gone, marked(4)])
    taken = []
    while waiting:
        taken.append(bursts.take(waiting))
    assert taken == [marked(1), ping, Burst((marked(2), marked(3))), ask, gone, marked(4)]


def test_a_burst_is_bounded_by_the_jobs_in_it() -> None:
    waiting: deque[Event] = deque([marked(400)] * 5)
    first = bursts.take(waiting, jobs_max=1000)
    assert isinstance(first, Burst)
    assert (len(first.events), len(waiting)) == (3, 2)


def test_a_burst_is_written_once_and_answered_once_to_each_peer() -> None:
    mesh = Mesh("abc")
    specs = mesh.specs(5, "ab", run_at=mesh.wall() + 60.0)
    mesh.submit(A, *specs)
    mesh.run(1.0)
    writes = mesh.messages(Write, to=B)
    fresh = Mesh("abc")
    burst = Burst(tuple(MessageArrived(A, write) for write in (*writes, *writes)))
    effects = fresh.do(B, burst)
    assert len([effect for effect in effects if isinstance(effect, Persist)]) == 1
    assert len(sends(effects, Acks)) == 1


def test_a_burst_says_what_its_events_say_one_by_one() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: None
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run_until(lambda: bool(mesh.begun))
    ended = RunEnded(spec.id, mesh.begun[0].token, succeeded(), lost=False)
    stray = MessageArrived(C, Acks((Stored(spec.id, 0, Ballot(9, C), 1, False),)))
    mesh.do(A, Burst((stray, ended)))
    mesh.run_until(lambda: mesh.settled(spec.id))
    outcome = mesh.record(A, spec.id).outcome
    assert outcome is not None
    assert outcome.result == b'"done"'


def test_who_stood_still_hears_the_first_event_before_it_acts_on_the_others() -> None:
    """The others may have been about jobs that it owned no longer when they came."""
    mesh = Mesh("abc", slots=0)
    spec = mesh.spec("abc")
    mesh.rule = lambda source, to, message: not isinstance(message, Acks)
    mesh.submit(A, spec)
    mesh.run(0.1)
    mesh.cut((A, B), (A, C))
    mesh.now += mesh.settings.jobs.stall_s + 5.0
    acks = [MessageArrived(node, Acks((Stored(spec.id, 0, Ballot(1, A), 1, False),))) for node in (B, C)]
    mesh.do(A, Burst((MessageArrived(B, Marked(())), *acks)))
    assert mesh.lead(A, spec.id) is None
    mesh.do(A, TimePassed())
