"""Copies: what an acknowledgement means, what follows from counting them, and how copies are kept alike."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from job_mesh import WALL, A, B, C, D, E, F, Mesh, StillView, job_id, make_desk, make_record, sends, succeeded

from edgenode.core.desk import Desk
from edgenode.core.errors import AcksLost
from edgenode.core.job_bytes import decode, digest, encode
from edgenode.core.job_ids import keyed_job_id
from edgenode.core.jobs import (
    Note,
    Own,
    Record,
    adopted,
    decided,
    is_marker,
    new_record,
    settled,
    shrunk,
    started,
    taken_over,
    with_note,
    write_own,
)
from edgenode.core.replication import Replication
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.signals import Send
from edgenode.core.specs import decode_spec
from edgenode.core.table import Lead
from edgenode.core.types import Ballot, Delivery, Instant, NodeId, Partition, Promise, State
from edgenode.core.view import Standing
from edgenode.core.wire import (
    FRAME_BYTES_MAX,
    Acks,
    Ask,
    AskItem,
    Copies,
    Digest,
    Mark,
    Marked,
    Marks,
    Message,
    Offer,
    Promises,
    Refusal,
    Refused,
    ResultTaken,
    Stored,
    Taken,
    TokenItem,
    Wanted,
    Write,
)
from edgenode.core.wire import encode as frame_of

JOB = job_id(1)
KEYED = keyed_job_id("order-17")
HOLDERS = (A, B, C)


class Owner:
    """One owner's desk and replication, for one job."""

    def __init__(self, *, firm: bool = True, holders: tuple[NodeId, ...] = HOLDERS, **options: Any) -> None:
        self.desk = make_desk(A, B, C, D)
        self.replication = Replication(self.desk)
        self.record = make_record(JOB, holders, **options)
        self.lead = Lead(self.record.ballot, firm, set(holders) if firm else {A})
        self.desk.table.leads[JOB] = self.lead
        self.write(self.record)

    def write(self, record: Record) -> None:
        self.desk.table.put(record)
        self.replication.send([JOB])

    def finish(self) -> None:
        record = self.desk.table.peek(JOB)
        assert record is not None
        self.write(decided(record, State.SUCCEEDED, firm=self.lead.firm, at=WALL, result=b"1"))

    def become_firm(self) -> None:
        """As custody does it: the same outcome, written again."""
        self.lead.firm = True
        self.write(adopted(self.copy, self.copy.ballot))

    @property
    def copy(self) -> Record:
        record = self.desk.table.peek(JOB)
        assert record is not None
        return record

    def ack(self, source: NodeId, **changes: Any) -> None:
        """`source` says that it has the latest write, or something else than that."""
        outcome, own = self.copy.outcome, self.copy.own
        exact = Stored(JOB, 0, own.ballot, own.write, outcome is not None and outcome.firm)
        self.replication.on_acks(source, (exact._replace(**changes),))

    def stand(self, node: NodeId, standing: Standing, *, since: Instant = 0.0) -> None:
        view = self.desk.view
        assert isinstance(view, StillView)
        view.standings[node] = standing
        view.since[node] = since
        self.replication.members_changed(frozenset({node}))

    def pass_time(self, seconds: float) -> None:
        self.desk.now += seconds
        self.replication.on_time()

    def sent(self, kind: type[Any]) -> list[tuple[NodeId, Any]]:
        return [(s.to, s.message) for s in self.desk.post.flush() if isinstance(s.message, kind)]


# ------------------------------------------------------------------------------------------ settling


def test_a_result_is_settled_when_a_majority_has_exactly_this_write() -> None:
    owner = Owner()
    owner.finish()
    assert not owner.copy.settled
    owner.ack(B)
    assert owner.copy.settled


def test_acknowledgements_of_the_write_before_do_not_settle_what_was_written_in_the_same_event() -> None:
    """A job expires, and in the same event a death is a reason to count again, before the write is sent."""
    owner = Owner()
    owner.ack(B)
    owner.desk.table.put(decided(owner.copy, State.EXPIRED, firm=True, at=WALL))
    owner.stand(C, Standing.SILENT)
    assert not owner.copy.settled
    owner.replication.send([JOB])
    owner.ack(B)
    assert owner.copy.settled


def test_acknowledgements_of_a_disk_that_is_behind_settle_nothing() -> None:
    owner = Owner()
    view = owner.desk.view
    assert isinstance(view, StillView)
    view.behind.add(B)
    owner.finish()
    owner.ack(B)
    assert not owner.copy.settled
    owner.ack(C)
    assert owner.copy.settled


def test_acknowledgements_of_a_disk_that_turns_out_to_be_behind_are_withdrawn() -> None:
    owner = Owner(holders=(A, B, C, D))
    view = owner.desk.view
    assert isinstance(view, StillView)
    owner.finish()
    owner.ack(B)
    view.behind.add(B)
    owner.replication.members_changed(frozenset({B}))
    owner.ack(C)
    assert not owner.copy.settled
    owner.ack(D)
    assert owner.copy.settled


def test_a_disk_that_is_behind_is_not_written_to_and_not_waited_for() -> None:
    owner = Owner()
    view = owner.desk.view
    assert isinstance(view, StillView)
    view.behind.add(B)
    owner.desk.post.flush()
    owner.finish()
    assert [to for to, _ in owner.sent(Write)] == [C]
    assert owner.desk.acks_needed(owner.copy) == 2
    view.standings[C] = view.standings[D] = Standing.GONE
    assert owner.desk.acks_needed(owner.copy) == 1


def test_who_is_next_in_rank_stands_in_when_too_few_holders_live() -> None:
    owner = Owner()
    owner.replication.await_acks(JOB)
    owner.desk.post.flush()
    owner.stand(B, Standing.SILENT)
    assert owner.sent(Write) == []
    owner.stand(C, Standing.SILENT)
    owner.replication.on_time()
    assert [to for to, _ in owner.sent(Write)] == [D]
    assert JOB not in owner.desk.acknowledged
    owner.ack(D)
    assert JOB in owner.desk.acknowledged


def test_who_takes_no_copy_of_that_day_does_not_stand_in_while_another_can() -> None:
    owner = Owner()
    view = owner.desk.view
    assert isinstance(view, StillView)
    view.standings[E] = Standing.LIVING
    owner.replication.await_acks(JOB)
    owner.stand(B, Standing.SILENT)
    owner.stand(C, Standing.SILENT)
    owner.desk.post.flush()
    first, second = owner.desk.next_in_rank(owner.copy)
    for refusing, asked in ((first, second), (second, first)):
        owner.desk.note_closed(refusing, (JOB,))
        owner.replication.on_expired(refusing, (JOB,))
        owner.replication.on_time()
        assert [to for to, _ in owner.sent(Write)] == [asked]
    owner.desk.note_closed(first, (JOB,))
    owner.replication.on_expired(first, (JOB,))
    owner.replication.on_time()
    assert owner.sent(Write) == [], "who is left is asked now and then, and not at once"
    owner.ack(first)
    assert JOB in owner.desk.acknowledged


@pytest.mark.parametrize(
    "changes",
    [
        {"write": 0},
        {"firm": False},
        {"ballot": Ballot(1, B)},
        {"ballot": Ballot(2, A)},
        {"epoch": 1},
        {"write": 2},
    ],
    ids=["earlier write", "without the firm outcome", "other owner", "other term", "epoch", "later write"],
)
def test_an_acknowledgement_of_anything_else_settles_nothing(changes: dict[str, Any]) -> None:
    owner = Owner()
    owner.finish()
    owner.ack(B, **changes)
    owner.ack(C, **changes)
    assert not owner.copy.settled


def test_an_acknowledgement_from_a_node_that_is_no_holder_settles_nothing() -> None:
    owner = Owner()
    owner.finish()
    owner.ack(D)
    assert not owner.copy.settled


def test_a_provisional_owner_settles_nothing() -> None:
    owner = Owner(firm=False)
    owner.finish()
    owner.ack(B)
    owner.ack(C)
    assert not owner.copy.settled


def test_acknowledgements_of_a_provisional_write_do_not_count_once_firm() -> None:
    owner = Owner(firm=False)
    owner.finish()
    provisional = owner.copy.own.write
    owner.ack(B)
    owner.become_firm()
    assert not owner.copy.settled
    owner.ack(C, write=provisional, firm=False)  # a late one
    assert not owner.copy.settled
    owner.ack(C)
    assert owner.copy.settled


def test_settled_marks_wait_for_company() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: (0.01, succeeded())
    specs = mesh.specs(50, "abc")
    mesh.submit(A, *specs)
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs))
    spread_s = mesh.sent[-1].at - mesh.sent[0].at
    assert len(mesh.messages(Marks, to=B)) <= 2 + spread_s / mesh.settings.jobs.settle_lag_s


def test_a_settled_mark_is_repeated_until_all_have_it() -> None:
    mesh = Mesh("abc")
    specs = mesh.specs(50, "abc")
    mesh.verdict = lambda begun: (0.01, succeeded())
    mesh.rule = lambda source, to, message: not (to == C and isinstance(message, Marks | Copies))
    mesh.submit(A, *specs)
    mesh.run_until(lambda: all(mesh.has_settled(B, spec.id) for spec in specs))
    mesh.run(2.0)
    assert not any(mesh.has_settled(C, spec.id) for spec in specs)
    mesh.rule = lambda source, to, message: not (to == C and isinstance(message, Copies))
    mesh.run_until(lambda: all(mesh.has_settled(C, spec.id) for spec in specs), limit_s=6.0)


def test_a_mark_settles_only_the_outcome_of_its_ballot() -> None:
    desk = make_desk(B, A, C)
    replication = Replication(desk)
    record = decided(make_record(JOB, HOLDERS), State.SUCCEEDED, firm=True, at=WALL)
    desk.table.put(record)
    for other in (Ballot(2, A), Ballot(1, C)):  # a later one of its owner, and one of this term
        replication.on_marks(A, (Mark(JOB, 0, other),))
        assert desk.table.peek(JOB) == record
        assert [type(send.message) for send in desk.post.flush()] == [Wanted]
    replication.on_marks(A, (Mark(JOB, 0, Ballot(1, A)),))
    assert desk.table.peek(JOB) == settled(record)
    assert [type(send.message) for send in desk.post.flush()] == [Marked]


def test_a_mark_settles_no_provisional_outcome() -> None:
    desk = make_desk(B, A, C)
    replication = Replication(desk)
    desk.table.put(decided(make_record(JOB, HOLDERS), State.SUCCEEDED, firm=False, at=WALL))
    replication.on_marks(A, (Mark(JOB, 0, Ballot(1, A)),))
    record = desk.table.peek(JOB)
    assert record is not None
    assert not record.settled


def test_who_misses_the_outcome_of_a_mark_asks_for_the_copy() -> None:
    desk = make_desk(B, A, C)
    Replication(desk).on_marks(A, (Mark(JOB, 0, Ballot(1, A)),))
    assert [send.message for send in desk.post.flush()] == [Wanted((JOB,))]


# ------------------------------------------------------------------------------- the holder's side


def holder() -> tuple[Desk, Replication, Record]:
    desk = make_desk(B, A, C)
    record = make_record(JOB, HOLDERS)
    desk.table.put(record)
    return desk, Replication(desk), record


def test_also_a_refused_write_tells_that_the_key_is_the_holders() -> None:
    """Seed 7212: its owner, who had all promises and waited for just this, waited for ever."""
    desk, replication, _ = holder()
    keyed = make_record(KEYED, HOLDERS)
    desk.table.put(keyed._replace(own=keyed.own._replace(ballot=Ballot(3, B))))
    desk.table.give_promise(KEYED, Promise(0, Ballot(3, B)))
    replication.on_write(A, (encode(keyed._replace(claimed=True)),))
    assert [type(send.message) for send in desk.post.flush()] == [Refused]
    assert desk.claimed.take() == [KEYED]


def answers(desk: Desk) -> list[Message]:
    return [send.message for send in desk.post.flush()]


def test_a_write_is_stored_and_acknowledged_exactly() -> None:
    desk, replication, record = holder()
    running = started(record, runner=A, boot=1, at=WALL)
    replication.on_write(A, (encode(running),))
    assert desk.table.peek(JOB) == running
    assert answers(desk) == [Acks((Stored(JOB, 0, Ballot(1, A), running.own.write, False),))]


def test_a_doubled_write_is_acknowledged_again() -> None:
    desk, replication, record = holder()
    for _ in range(2):
        replication.on_write(A, (encode(record),))
        assert [type(message) for message in answers(desk)] == [Acks]


def test_a_write_below_the_promise_is_refused_with_the_promise_and_the_copy() -> None:
    desk, replication, record = holder()
    desk.table.give_promise(JOB, Promise(0, Ballot(2, C)))
    replication.on_write(A, (encode(write_own(record)),))
    (refused,) = answers(desk)
    assert isinstance(refused, Refused)
    assert refused.refusals[0].promise == Promise(0, Ballot(2, C))
    assert decode(refused.refusals[0].copy) == desk.table.peek(JOB)


def test_what_a_refused_write_says_is_kept_all_the_same() -> None:
    """Merging loses nothing: the refused owner's news reaches the next one through this copy."""
    desk, replication, record = holder()
    desk.table.give_promise(JOB, Promise(0, Ballot(2, C)))
    running = started(record, runner=A, boot=1, at=WALL)
    replication.on_write(A, (encode(running),))
    copy = desk.table.peek(JOB)
    assert copy is not None
    assert copy.starts == running.starts


def test_a_write_that_its_sender_does_not_own_is_refused() -> None:
    desk, replication, record = holder()
    replication.on_write(C, (encode(record),))
    assert [type(message) for message in answers(desk)] == [Refused]


def test_a_write_of_an_outcome_that_lost_to_another_is_refused_with_the_other() -> None:
    desk, replication, record = holder()
    mine = decided(record, State.SUCCEEDED, firm=True, at=WALL, result=b'"mine"')
    other = decided(record, State.SUCCEEDED, firm=False, at=WALL, result=b'"other"')
    desk.table.put(mine)
    replication.on_write(A, (encode(other),))
    (refused,) = answers(desk)
    assert isinstance(refused, Refused)
    assert decode(refused.refusals[0].copy).outcome == mine.outcome


def test_a_late_write_of_a_settled_job_is_answered_with_the_settled_copy() -> None:
    desk, replication, record = holder()
    done = settled(decided(record, State.SUCCEEDED, firm=True, at=WALL))
    desk.table.put(done)
    replication.on_write(A, (encode(record),))
    assert answers(desk) == [Copies((encode(done),))]


def test_a_settled_copy_is_taken_as_a_mark_and_acknowledged_as_nothing() -> None:
    """The holder may have promised to another, and remembers that on disk alone. (Found by seed 920154 of the
    simulator.)"""
    desk, replication, record = holder()
    ended = settled(decided(record, State.SUCCEEDED, firm=True, at=WALL, result=b"1"))
    replication.on_write(A, [encode(ended)])
    assert answers(desk) == [Marked((JOB,))]
    assert desk.table.peek(JOB) == ended


def test_merging_a_copy_acknowledges_nothing() -> None:
    desk, replication, record = holder()
    replication.on_copies(A, (encode(started(record, runner=A, boot=1, at=WALL)),))
    assert not [message for message in answers(desk) if isinstance(message, Acks)]


def test_a_holder_that_has_the_same_copy_by_hearsay_has_not_acknowledged_it() -> None:
    """It may have promised somebody else not to."""
    owner = Owner()
    owner.finish()
    owner.replication.on_offer(B, (Digest(JOB, digest(owner.copy)),))
    owner.replication.on_copies(C, (encode(owner.copy),))
    owner.ack(D)  # which is no holder: only a reason to count
    assert not owner.copy.settled
    owner.ack(B)
    assert owner.copy.settled


def test_the_owner_hears_from_a_refusal_what_the_refuser_knows() -> None:
    owner = Owner()
    theirs = taken_over(owner.copy, Ballot(2, C), Note(WALL, "takeover", C, ""))
    owner.replication.on_refused((Refusal(JOB, 0, Ballot(1, A), Promise(0, Ballot(2, C)), encode(theirs)),))
    assert owner.copy.owner == C
    assert not owner.desk.leading(JOB)


# ------------------------------------------------------------------------------------- receipts


def test_a_submission_is_acknowledged_when_a_majority_of_the_holders_has_it() -> None:
    owner = Owner()
    owner.replication.await_acks(JOB)
    assert not owner.desk.acknowledged
    owner.ack(D)
    assert not owner.desk.acknowledged
    owner.ack(C)
    assert owner.desk.acknowledged.take() == [JOB]
    assert owner.replication.holding(JOB) == (A, C, D)


def test_a_receipt_is_counted_again_when_a_holder_dies() -> None:
    owner = Owner(acks=3)
    owner.replication.await_acks(JOB)
    owner.ack(B)
    assert not owner.desk.acknowledged
    owner.stand(D, Standing.SILENT)
    owner.stand(C, Standing.SILENT)
    assert owner.desk.acknowledged.take() == [JOB]


def test_a_mesh_of_two_with_one_silent_death_gives_its_receipt() -> None:
    mesh = Mesh("ab")
    spec = mesh.spec("ab")
    mesh.kill(B, silently=True)
    request = mesh.submit(A, spec)
    mesh.run(0.2)
    assert request not in mesh.submits
    mesh.run_until(lambda: request in mesh.submits, limit_s=6.0)
    receipt = mesh.submits[request].receipts[0]
    assert (receipt.nodes, receipt.error) == ((A,), None)
    assert mesh.nodes[A].view.standing(B) is Standing.SILENT


@pytest.mark.parametrize(("acks", "is_short"), [(1, False), (2, True)])
def test_who_asked_for_more_disks_than_are_left_has_no_receipt(acks: int, is_short: bool) -> None:
    """And waits for no dead either. The job exists, and runs; with another disk it is acknowledged."""
    mesh = Mesh("abc", settings=Settings(jobs=JobSettings(replicas=2)))
    spec = mesh.spec("abc", acks=acks, task="nobody")
    mesh.kill(B, silently=True)
    mesh.kill(C, silently=True)
    request = mesh.submit(A, spec)
    mesh.run_until(lambda: request in mesh.submits, limit_s=6.0)
    (receipt,) = mesh.submits[request].receipts
    assert isinstance(receipt.error, AcksLost) is is_short
    assert receipt.error is None or not receipt.error.definite
    mesh.boot(B)
    mesh.run(1.0)
    again = mesh.submit(A, spec)
    mesh.run_until(lambda: again in mesh.submits)
    (receipt,) = mesh.submits[again].receipts
    assert (receipt.error, set(receipt.nodes)) == (None, {A, B})


def test_an_acknowledgement_of_an_earlier_write_still_says_that_the_job_is_there() -> None:
    owner = Owner()
    owner.replication.await_acks(JOB)
    owner.write(started(owner.copy, runner=A, boot=1, at=WALL))
    owner.ack(B, write=0)
    assert owner.desk.acknowledged.take() == [JOB]


# ----------------------------------------------------------------------------------------- gates


def gated_owner(**options: Any) -> Owner:
    owner = Owner(**options)
    owner.write(started(owner.copy, runner=A, boot=1, at=WALL))
    owner.replication.await_gate(JOB)
    assert not owner.desk.gated
    return owner


def test_a_gate_opens_when_a_majority_of_the_living_holders_has_the_start() -> None:
    owner = gated_owner()
    owner.ack(B, write=0)
    assert not owner.desk.gated
    owner.ack(B)
    assert owner.desk.gated.take() == [JOB]


def test_a_gate_opens_after_its_time_for_a_job_that_may_run_twice() -> None:
    owner = gated_owner()
    assert owner.replication.deadline() <= owner.desk.now + owner.desk.settings.gate_s
    owner.pass_time(owner.desk.settings.gate_s - 0.01)
    assert not owner.desk.gated
    owner.pass_time(0.01)
    assert owner.desk.gated.take() == [JOB]


@pytest.mark.parametrize(
    "options", [{"delivery": Delivery.AT_MOST_ONCE}, {"partition": Partition.WAIT}], ids=str
)
def test_a_strict_gate_never_opens_without_a_majority(options: dict[str, Any]) -> None:
    owner = gated_owner(**options)
    owner.pass_time(3600.0)
    owner.stand(B, Standing.GONE)
    owner.stand(C, Standing.GONE)
    owner.ack(D)
    owner.pass_time(3600.0)
    assert not owner.desk.gated
    owner.stand(B, Standing.LIVING)
    owner.ack(B)
    assert owner.desk.gated.take() == [JOB]


def test_a_strict_gate_never_opens_for_a_provisional_owner() -> None:
    owner = gated_owner(firm=False, delivery=Delivery.AT_MOST_ONCE)
    owner.ack(B)
    owner.ack(C)
    assert not owner.desk.gated


def test_a_gate_waits_on_when_its_owner_writes_something_else_meanwhile() -> None:
    owner = gated_owner()
    owner.write(write_own(owner.copy))
    owner.pass_time(owner.desk.settings.gate_s)
    assert owner.desk.gated.take() == [JOB]


# ---------------------------------------------------------------------------------------- thanks


def test_a_runner_is_thanked_when_its_result_is_on_enough_disks() -> None:
    owner = Owner()
    token = started(owner.copy, runner=D, boot=1, at=WALL).own.token
    owner.write(write_own(owner.copy))
    owner.replication.thank(JOB, token, D)
    assert owner.sent(ResultTaken) == []
    owner.ack(B, write=0)
    assert owner.sent(ResultTaken) == []
    owner.ack(B)
    assert owner.sent(ResultTaken) == [(D, ResultTaken((TokenItem(JOB, token),)))]


# ------------------------------------------------------------------------------- repeating writes


def test_an_unanswered_write_is_repeated_ever_more_slowly() -> None:
    owner = Owner()
    owner.sent(Write)
    owner.ack(C)
    repeated: list[Instant] = []
    while owner.desk.now < 60.0:
        owner.desk.now = max(owner.desk.now, owner.replication.deadline())
        owner.replication.on_time()
        repeated += [owner.desk.now for to, _ in owner.sent(Write) if to == B]
        assert all(to == B for to, _ in owner.sent(Write))
    settings = owner.desk.settings
    assert repeated[0] == settings.retry_s
    assert max(b - a for a, b in pairwise(repeated)) == settings.retry_max_s
    assert len(repeated) < 20


def test_what_was_settled_in_the_same_event_is_not_written_again() -> None:
    owner = Owner()
    owner.finish()
    owner.ack(B)
    owner.desk.post.flush()
    owner.pass_time(owner.desk.settings.retry_s)
    assert not owner.sent(Write)


def test_a_write_that_all_living_have_is_repeated_to_nobody_until_one_returns() -> None:
    owner = Owner()
    owner.stand(C, Standing.SILENT)
    owner.sent(Write)
    owner.ack(B)
    owner.pass_time(5.0)
    owner.pass_time(10.0)
    assert owner.sent(Write) == []
    owner.stand(C, Standing.LIVING)
    owner.pass_time(0.0)
    assert [to for to, _ in owner.sent(Write)] == [C]


# ----------------------------------------------------------------------------------------- offers


def test_an_offer_is_answered_by_what_differs() -> None:
    desk, replication, record = holder()
    newer = with_note(record, Note(WALL, "news", A, ""))
    replication.on_offer(A, (Digest(JOB, digest(record)),))
    assert answers(desk) == [Taken((Digest(JOB, digest(record)),))]
    replication.on_offer(A, (Digest(JOB, digest(newer)),))
    assert answers(desk) == [Copies((encode(record),)), Wanted((JOB,))]
    replication.on_offer(A, (Digest(job_id(2), b"x"),))
    assert answers(desk) == [Wanted((job_id(2),))]


# ----------------------------------------------------------------------------------------- spares


def test_the_next_in_rank_gets_a_spare_copy_when_a_holder_stays_dead() -> None:
    """Of an unsettled job, and of one that was settled before."""
    mesh = Mesh("abcd", tasks=dict.fromkeys((A, B, C), ("echo",)))
    waiting, done = mesh.spec("abc", task="nobody"), mesh.spec("abc")
    mesh.submit(A, waiting, done)
    mesh.run_until(lambda: mesh.settled(done.id))
    mesh.run(1.0)
    mesh.kill(C)
    mesh.run(mesh.settings.jobs.rereplicate_after_s - 2.0)
    assert not mesh.has(D, waiting.id)
    assert not mesh.has(D, done.id)
    mesh.run_until(lambda: mesh.has(D, waiting.id) and mesh.has(D, done.id), limit_s=10.0)
    assert mesh.record(D, done.id).settled
    # A spare has no vote: it is in nobody's holders.
    assert mesh.record(D, waiting.id).holders == HOLDERS
    mesh.run(5.0)
    assert mesh.is_firm(A, waiting.id)


def test_a_holder_that_was_away_is_brought_up_to_date() -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("abc")
    mesh.kill(C)
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    mesh.run(3.0)
    mesh.boot(C)
    mesh.run_until(lambda: mesh.has(C, spec.id) and mesh.record(C, spec.id).settled)


# --------------------------------------------------------------------------------- large copies


def test_an_ask_for_many_large_jobs_is_answered_in_frames_that_a_peer_takes() -> None:
    mesh = Mesh("abc")
    records = [
        make_record(spec.id, HOLDERS, payload=b"{" + b" " * 100_000 + b"}") for spec in mesh.specs(300, "abc")
    ]
    for record in records:
        mesh.nodes[C].desk.table.put(record)
    items = tuple(AskItem(record.id, 0, 2, WALL + 1e6, b"") for record in records)
    promises = sends(mesh.tell(B, C, Ask(items)), Promises)
    assert sum(len(promise.items) for promise in promises) == 300
    assert max(len(frame_of(promise)) for promise in promises) < FRAME_BYTES_MAX / 4


def test_what_only_one_holder_knew_of_a_settled_job_is_told_to_the_others() -> None:
    """A start that was on the disk of a killed owner alone: it is back, and the job is over."""
    record = make_record(job_id(1), (A, B, C))
    done = settled(decided(record, State.SUCCEEDED, firm=True, at=WALL, result=b"1"))
    more = done._replace(starts=((Ballot(1, A), 2),))
    desk = make_desk(A, B, C)
    desk.merge(more)
    Replication(desk).on_copies(B, (encode(done),))
    told = sends(desk.flush(), Copies)
    assert [[decode(blob).start_count for blob in sent.records] for sent in told] == [[2], [2]]
    desk.merge(more)
    Replication(desk).on_copies(B, (encode(more),))
    assert sends(desk.flush(), Copies) == []


def test_who_sends_an_older_copy_of_a_settled_job_gets_the_fuller_one_also_if_it_is_no_holder() -> None:
    """Or else a spare copy never becomes alike, and the holders that offer theirs do so for ever."""
    record = make_record(job_id(1), (A, B, C))
    done = settled(decided(record, State.SUCCEEDED, firm=True, at=WALL, result=b"1"))
    more = with_note(done, Note(WALL, "superseded", A, ""))
    desk = make_desk(A, B, C, D)
    desk.merge(more)
    Replication(desk).on_copies(D, (encode(done),))
    told = [(each.to, each.message) for each in desk.flush() if isinstance(each, Send)]
    assert (D, Copies((encode(more),))) in told
    Replication(desk).on_copies(D, (encode(more),))
    assert sends(desk.flush(), Copies) == []


@pytest.mark.parametrize("kind", [Copies, Write])
def test_what_a_settled_copy_learns_of_an_unfinished_one_comes_to_the_other_holders(
    kind: type[Copies | Write],
) -> None:
    """C comes back with a start that only it knows of: it tells A, whose copy is settled, and not B."""
    mesh = Mesh("abc")
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    mesh.run(1.0)
    before = new_record(mesh.item(spec).spec, spec.id, mesh.holders(spec.id), 0.0, mesh.wall())
    own = before.own._replace(ballot=Ballot(2, C))
    mesh.tell(C, A, kind((encode(started(before._replace(own=own), runner=C, boot=1, at=mesh.wall())),)))
    mesh.run(2.0)
    assert mesh.record(A, spec.id).start_count == 2
    assert mesh.record(B, spec.id) == mesh.record(A, spec.id) == mesh.record(C, spec.id)


def test_a_copy_that_shrinks_because_another_holders_has_is_nothing_to_tell() -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    mesh.run(1.0)
    mesh.sent.clear()
    mesh.tell(B, A, Copies((encode(shrunk(mesh.record(B, spec.id))),)))
    mesh.run(1.0)
    assert is_marker(mesh.record(A, spec.id))
    assert not mesh.messages(Offer, source=A)


def test_copies_that_nobody_can_bring_together_are_not_sent_round_and_round() -> None:
    """B has the end of a job, and from nowhere comes a copy of a later epoch that knows of none."""
    mesh = Mesh("abc")
    spec = mesh.spec("a")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    mesh.run(1.0)
    done = mesh.record(A, spec.id)
    own = Own(Ballot(5, A), 1, State.QUEUED)
    mesh.tell(A, B, Copies((encode(done._replace(epoch=1, own=own, outcome=None)),)))
    mesh.run(5.0)
    mesh.sent.clear()
    mesh.run(2.0)
    assert len(mesh.sent) < 50, len(mesh.sent)


def lives_of_a_key(mesh: Mesh, *sets: tuple[NodeId, ...]) -> list[Record]:
    """Settled uses of a key for several contents on several sides, each on its holders' disks."""
    lives = []
    for number, holders in enumerate(sets):
        record = make_record(KEYED, holders, key="order-17", fingerprint=str(number))
        done = decided(record, State.SUCCEEDED, firm=True, at=WALL, result=b"%d" % number)
        lives.append(settled(done)._replace(claimed=True))
        for holder in holders:
            mesh.tell(holders[0], holder, Copies((encode(lives[-1]),)))
    return lives


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_where_one_life_of_a_key_gives_way_all_its_holders_hear_of_it(order: tuple[int, int]) -> None:
    """C and D meet, whichever of them speaks first."""
    mesh = Mesh("abcdef")
    lives = lives_of_a_key(mesh, (A, B, C), (D, E, F))
    nodes = (C, D)
    speaks, hears = order
    mesh.tell(nodes[speaks], nodes[hears], Copies((encode(lives[speaks]),)))
    mesh.run(2.0)
    kept = [mesh.record(node, KEYED) for node in mesh.names if mesh.has(node, KEYED)]
    assert len(kept) >= 3  # who holds it no longer may let go of it
    assert {decode_spec(record.spec).options.fingerprint for record in kept} == {"1"}
    mesh.sent.clear()
    mesh.run(2.0)
    assert not mesh.messages(Copies)
