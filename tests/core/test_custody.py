"""Who owns a job: asking, promising, taking over, stepping down, giving away."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from job_mesh import (
    WALL,
    A,
    B,
    C,
    D,
    Disk,
    Mesh,
    StillView,
    job_id,
    let_pass,
    make_custody,
    make_desk,
    make_record,
    sends,
    succeeded,
)

from edgenode.core.ballots import BYSTANDERS
from edgenode.core.job_bytes import decode, digest, encode
from edgenode.core.jobs import Record, decided, new_record, next_epoch, proposed, settled, started
from edgenode.core.replication import Replication
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.signals import (
    LeaveAsked,
    MessageArrived,
    Persist,
    RegulateAsked,
    RequestId,
    Row,
    StoredRow,
    SubmitAsked,
    TimePassed,
)
from edgenode.core.specs import encode_spec
from edgenode.core.types import Ballot, Instant, JobId, NodeId, Partition, Promise, Seconds, State
from edgenode.core.view import Standing
from edgenode.core.wire import (
    Acks,
    Ask,
    AskItem,
    Change,
    Copies,
    Gift,
    GiftItem,
    Message,
    Offer,
    Promised,
    Promises,
    Refused,
    Submit,
    Submitted,
    Wanted,
    Wish,
    Write,
)

JOB = job_id(1)
HOLDERS = (A, B, C)


def ask(term: int, record: Record | None = None, *, job: JobId = JOB) -> Ask:
    return Ask((AskItem(job, 0, term, WALL + 1e6, b"" if record is None else digest(record)),))


def mesh_with_job(**options: Any) -> tuple[Mesh, JobId]:
    """A job that nobody can run, owned by A, copied to B and C; D is no holder."""
    mesh = Mesh("abcd", tasks=dict.fromkeys((A, B, C, D), ("other",)))
    spec = mesh.spec("abc", **options)
    mesh.submit(A, spec)
    mesh.run_until(lambda: all(mesh.has(name, spec.id) for name in HOLDERS))
    mesh.run(0.1)
    mesh.sent.clear()
    return mesh, spec.id


# --------------------------------------------------------------------------------- the holder's side


def test_a_promise_is_on_disk_before_it_is_said() -> None:
    mesh = Mesh("abc")
    effects = mesh.tell(C, B, ask(2))
    persist = effects[0]
    assert isinstance(persist, Persist)
    assert [stored.row.promise for stored in persist.rows] == [Promise(0, Ballot(2, C))]
    assert len(sends(effects, Promises)) == 1


def test_a_promise_carries_the_copy_unless_the_asker_has_the_same() -> None:
    mesh, job = mesh_with_job()
    mine = mesh.record(B, job)
    (same,) = sends(mesh.tell(C, B, ask(2, mine, job=job)), Promises)
    assert same.items == (Promised(job, 0, 2, True, b""),)
    (other,) = sends(mesh.tell(C, B, ask(3, job=job)), Promises)
    assert decode(other.items[0].copy) == mine


def test_who_has_no_copy_promises_without_one() -> None:
    mesh = Mesh("abc")
    (answer,) = sends(mesh.tell(C, B, ask(2)), Promises)
    assert answer.items == (Promised(JOB, 0, 2, False, b""),)
    assert mesh.nodes[B].desk.table.promise(JOB) == Promise(0, Ballot(2, C))


@pytest.mark.parametrize("has_copy", [True, False])
def test_who_lacks_the_record_of_an_epoch_wants_it_before_it_promises_anything_there(has_copy: bool) -> None:
    mesh, job = mesh_with_job()
    name = B if has_copy else D
    before = mesh.nodes[name].desk.table.promise(job)
    effects = mesh.tell(C, name, Ask((AskItem(job, 1, 3, WALL + 1e6, b""),)))
    assert not sends(effects, Promises)
    assert [wanted.jobs for wanted in sends(effects, Wanted)] == [(job,)]
    assert mesh.nodes[name].desk.table.promise(job) == before


def test_an_ask_below_the_promise_is_refused_with_the_promise_and_the_copy() -> None:
    mesh, job = mesh_with_job()
    mesh.tell(C, B, ask(5, job=job))
    (refused,) = sends(mesh.tell(A, B, ask(4, job=job)), Refused)
    assert refused.refusals[0].promise == Promise(0, Ballot(5, C))
    assert decode(refused.refusals[0].copy) == mesh.record(B, job)
    # Two askers of one term: the whole ballot decides, not the term alone.
    (refused,) = sends(mesh.tell(A, B, ask(5, job=job)), Refused)
    assert refused.refusals[0].ballot == Ballot(5, A)


def test_who_asks_under_a_term_that_another_owner_has_already_is_refused() -> None:
    """Ballots of one term are ordered by name: who returns must not win its jobs back by that."""
    mesh, job = mesh_with_job()
    (refused,) = sends(mesh.tell(C, B, ask(1, job=job)), Refused)
    assert refused.refusals[0].ballot == Ballot(1, C)
    assert decode(refused.refusals[0].copy).owner == A
    assert len(sends(mesh.tell(C, B, ask(2, job=job)), Promises)) == 1


def test_a_repeated_ask_is_promised_again() -> None:
    mesh, job = mesh_with_job()
    mesh.tell(C, B, ask(5, job=job))
    (again,) = sends(mesh.tell(C, B, ask(5, job=job)), Promises)
    assert again.items[0].term == 5


def test_a_settled_job_is_not_promised_but_told() -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    (refused,) = sends(mesh.tell(C, B, ask(9, job=spec.id)), Refused)
    assert decode(refused.refusals[0].copy).settled


def test_a_promise_survives_the_holders_restart() -> None:
    mesh, job = mesh_with_job()
    mesh.tell(C, B, ask(5, job=job))
    mesh.run(0.01)
    mesh.kill(B)
    mesh.boot(B, meets=())
    (refused,) = sends(mesh.tell(A, B, ask(4, job=job)), Refused)
    assert refused.refusals[0].promise == Promise(0, Ballot(5, C))


# ----------------------------------------------------------------------------------- damaged rows


def with_damaged_row(**options: Any) -> tuple[Mesh, JobId]:
    """B restarts, and its row of a job of A is damaged."""
    mesh, job = mesh_with_job(**options)
    mesh.kill(B)
    mesh.disks[B].lost.add(job)
    mesh.boot(B)
    mesh.run_until(lambda: all(node.ready for node in mesh.nodes.values()))
    mesh.run(0.5)
    mesh.sent.clear()
    return mesh, job


def test_a_damaged_row_never_votes() -> None:
    mesh, job = with_damaged_row()
    effects = mesh.tell(A, B, ask(7, job=job))
    assert not sends(effects, Promises)
    assert len(sends(effects, Refused)) == 1
    assert mesh.nodes[B].desk.table.promise(job) < Promise(0, Ballot(7, A))


def test_a_damaged_row_acknowledges_no_write() -> None:
    mesh, job = with_damaged_row()
    written = mesh.record(A, job)
    effects = mesh.tell(A, B, Write((encode(written),)))
    assert not sends(effects, Acks)
    assert len(sends(effects, Refused)) == 1


def test_a_damaged_row_takes_no_submission_of_its_job() -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("bac")
    mesh.disks[B].lost.add(spec.id)
    effects = mesh.tell(C, B, Submit(1, 0, (mesh.item(spec),)))
    assert [answer.refused != "" for sent in sends(effects, Submitted) for answer in sent.answers] == [True]
    assert not mesh.has(B, spec.id)


def test_a_submission_goes_past_a_damaged_row_to_the_next_holder() -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("bac")
    mesh.disks[B].lost.add(spec.id)
    request = mesh.submit(C, spec)
    mesh.run_until(lambda: request in mesh.submits)
    assert mesh.submits[request].receipts[0].error is None
    mesh.run_until(lambda: mesh.record(A, spec.id).settled)
    assert len(mesh.runs(spec.id)) == 1


def test_an_owner_is_not_moved_by_a_holder_that_cannot_vote() -> None:
    mesh, job = with_damaged_row(run_at=WALL + 3.0)
    mesh.run(10.0)  # falling due is a write, which B refuses
    assert mesh.is_firm(A, job)
    record = mesh.record(A, job)
    assert record.state is State.QUEUED
    assert mesh.messages(Ask) == []
    assert (record.epoch, {*record.holders}, record.ballot) == (1, {A, C, D}, Ballot(2, A)), "D has B's vote"


def test_who_has_a_damaged_row_passes_the_responsibility_on() -> None:
    mesh, job = with_damaged_row()
    mesh.kill(A)
    mesh.run_until(lambda: mesh.lead(C, job) is not None, limit_s=2.0)
    assert not mesh.is_firm(C, job)  # of three votes one is dead, and one was never given
    ballot = mesh.record(C, job).ballot
    mesh.run(10.0)
    assert mesh.lead(B, job) is None
    assert mesh.record(C, job).ballot == ballot
    mesh.boot(A)
    mesh.run_until(lambda: mesh.is_firm(C, job) or mesh.is_firm(A, job))


def test_who_has_forgotten_the_job_is_not_asked_again_to_take_it() -> None:
    """Seed 791942: the copy, and the answer that its day is over, went to and fro without an end."""
    desk = make_desk(A, B)
    desk.table.put(make_record(JOB, (A,)))
    _, custody = make_custody(desk)
    desk.table._archive.lost.add(JOB)  # type: ignore[attr-defined]  # this disk has no vote on it any more
    custody.look_at((JOB,))
    custody.on_time()
    assert sends(desk.flush(), Gift)
    for _ in range(3):
        custody.on_expired(B, (JOB,))
        custody.on_time()
    assert not sends(desk.flush(), Gift)


# ------------------------------------------------------------------------------------ becoming owner


def test_the_next_in_rank_takes_over_firmly_when_the_owner_died() -> None:
    mesh, job = mesh_with_job()
    mesh.kill(A)
    mesh.run_until(lambda: mesh.is_firm(B, job), limit_s=0.5)
    assert mesh.record(B, job).ballot == Ballot(2, B)
    mesh.run(0.1)
    assert mesh.record(C, job).owner == B
    assert mesh.lead(C, job) is None


def test_the_promise_to_oneself_is_on_disk_before_the_ask_leaves() -> None:
    mesh, job = mesh_with_job()
    mesh.kill(A)
    mesh.run_until(lambda: mesh.messages(Ask, source=B) != [])
    assert mesh.disks[B].rows[job].row.promise == Promise(0, Ballot(2, B))


def test_nothing_is_taken_over_while_the_owner_lives() -> None:
    mesh, job = mesh_with_job()
    mesh.run(20.0)
    assert mesh.is_firm(A, job)
    assert mesh.record(C, job).ballot == Ballot(1, A)
    assert mesh.messages(Ask) == []


def test_silence_of_all_others_is_waited_out_before_a_minority_goes_on() -> None:
    mesh, job = mesh_with_job()
    mesh.cut((B, A), (B, C), (B, D))
    mesh.run_until(lambda: mesh.nodes[B].view.standing(A) is Standing.SILENT)
    silent_at = mesh.now
    mesh.run_until(lambda: mesh.lead(B, job) is not None)
    assert not mesh.is_firm(B, job)
    waited = mesh.now - silent_at
    assert mesh.settings.jobs.island_after_s - 0.2 <= waited <= mesh.settings.jobs.island_after_s + 1.5


def test_proof_of_death_of_all_others_does_not_wait() -> None:
    mesh, job = mesh_with_job()
    mesh.kill(A)
    mesh.kill(C)
    mesh.run_until(lambda: mesh.lead(B, job) is not None, limit_s=1.0)
    assert not mesh.is_firm(B, job)


def test_a_job_that_is_to_wait_is_not_owned_by_a_minority() -> None:
    mesh, job = mesh_with_job(partition=Partition.WAIT)
    mesh.kill(A)
    mesh.kill(C)
    mesh.run(30.0)
    assert mesh.lead(B, job) is None
    mesh.boot(C)
    mesh.run_until(lambda: mesh.is_firm(B, job) or mesh.is_firm(C, job))


def test_a_late_promise_makes_a_provisional_owner_firm_under_a_new_write() -> None:
    mesh, job = mesh_with_job()
    mesh.kill(A)
    mesh.kill(C)
    mesh.run_until(lambda: mesh.lead(B, job) is not None)
    before = mesh.record(B, job).own
    mesh.boot(C)
    mesh.run_until(lambda: mesh.is_firm(B, job))
    after = mesh.record(B, job).own
    assert after.ballot == before.ballot
    assert after.write > before.write


def test_two_islands_become_one_with_one_owner() -> None:
    mesh, job = mesh_with_job()
    mesh.cut((A, B), (A, C), (A, D))
    mesh.run_until(lambda: mesh.is_firm(B, job))
    assert mesh.is_firm(A, job)  # it cannot know
    mesh.heal()
    mesh.run_until(lambda: mesh.lead(A, job) is None and mesh.record(A, job).owner == B)
    assert mesh.is_firm(B, job)


def test_a_refused_owner_asks_again_above_the_refusal() -> None:
    mesh, job = mesh_with_job()
    # C asks, gets B's promise, and dies before it does anything with it.
    mesh.kill(C, silently=True)
    mesh.tell(C, B, ask(7, job=job))
    mesh.tell(C, A, ask(7, job=job))
    assert mesh.lead(A, job) is None
    mesh.run_until(lambda: mesh.is_firm(A, job) or mesh.is_firm(B, job))
    owner = A if mesh.is_firm(A, job) else B
    assert mesh.record(owner, job).ballot.term > 7


def test_a_node_that_stood_still_asks_before_it_goes_on() -> None:
    mesh, job = mesh_with_job()
    mesh.now += 30.0
    mesh.do(A, SubmitAsked(RequestId(99), (), 1.0))
    assert mesh.lead(A, job) is None
    mesh.run_until(lambda: any(mesh.is_firm(name, job) for name in HOLDERS))
    assert max(mesh.record(name, job).ballot.term for name in HOLDERS) > 1


class Asker:
    """B asks for a job of A; how A and C stand, and who promises, is for the test to say."""

    def __init__(self, a: Standing, c: Standing, *, now: Instant = 0.0) -> None:
        self.desk = make_desk(B, A, C)
        self.desk.now = now
        self.desk.view.standings.update({A: a, C: c})  # type: ignore[attr-defined]
        self.desk.table.put(make_record(JOB, HOLDERS))
        self.ballots, self.custody = make_custody(self.desk)
        self.ballots.ask(JOB, "silence")

    def promise(self, source: NodeId) -> None:
        term = self.desk.table.promise(JOB).ballot.term
        self.ballots.on_promises(source, (Promised(JOB, 0, term, True, b""),))

    def leads_after(self, seconds: float) -> bool:
        return self.leads_at(self.desk.now + seconds)

    def leads_at(self, now: Instant) -> bool:
        self.desk.now = now
        self.custody.on_time()
        return self.desk.leading(JOB)


S = Standing


def test_the_promise_of_a_disk_that_is_behind_makes_nobody_firm() -> None:
    asker = Asker(S.LIVING, S.LIVING)
    view = asker.desk.view
    assert isinstance(view, StillView)
    view.behind.add(A)
    asker.promise(A)
    assert not asker.leads_after(asker.desk.settings.ask_s)
    asker.promise(C)
    assert asker.leads_after(0.0)
    lead = asker.desk.table.lead(JOB)
    assert lead is not None
    assert lead.firm


def test_a_firm_owner_asks_again_when_a_promise_that_it_needs_is_withdrawn() -> None:
    asker = Asker(S.LIVING, S.GONE)
    view = asker.desk.view
    assert isinstance(view, StillView)
    asker.promise(A)
    assert asker.leads_after(0.0)
    term = asker.desk.table.promise(JOB).ballot.term
    view.behind.add(A)
    asker.custody.members_changed(frozenset({A}))
    assert asker.ballots.is_asking(JOB)
    assert asker.desk.table.promise(JOB).ballot.term == term + 1


def test_a_disk_that_is_behind_is_responsible_for_nothing_and_asks_for_nothing() -> None:
    desk = make_desk(B, A, C)
    assert isinstance(desk.view, StillView)
    record = make_record(JOB, HOLDERS)
    desk.table.put(record)
    ballots, custody = make_custody(desk)
    assert custody.responsible(record) == A
    desk.view.behind.add(A)
    assert custody.responsible(record) == B
    desk.view.behind.add(B)
    desk.table.has_vote = False
    assert custody.responsible(record) == C
    ballots.ask(JOB, "silence")
    assert not ballots.is_asking(JOB)


@pytest.mark.parametrize("began", [0.0, 0.059, 0.061, 0.072])
def test_whoever_may_still_know_is_given_just_so_much_time_whenever_it_began(began: float) -> None:
    """A difference of moments may be smaller than the time that was added, by one bit."""
    asker = Asker(Standing.GONE, Standing.LIVING, now=began)
    assert not asker.leads_at(began)
    assert asker.leads_at(asker.custody.deadline())


@pytest.mark.parametrize(
    ("a", "c", "waits_s"),
    [
        (S.GONE, S.GONE, 0.0),
        (S.SILENT, S.GONE, 5.0),
        (S.GONE, S.SILENT, 0.0),  # nothing but the owner's death was waited for, and that is proven
        (S.GONE, S.UNKNOWN, 5.0),  # after an outage C may be about to return, with the result
        (S.UNKNOWN, S.UNKNOWN, 5.0),
        (S.LIVING, S.LIVING, 5.0),
    ],
)
def test_how_long_a_minority_waits_before_it_goes_on(a: Standing, c: Standing, waits_s: float) -> None:
    asker = Asker(a, c)
    if waits_s:
        assert not asker.leads_after(waits_s - 0.1)
        assert asker.leads_after(0.2)
    assert asker.leads_after(0.0)
    lead = asker.desk.table.lead(JOB)
    assert lead is not None
    assert not lead.firm


@pytest.mark.parametrize(("c", "waits"), [(S.LIVING, True), (S.UNKNOWN, True), (S.SILENT, False)])
def test_a_majority_waits_a_moment_for_what_the_rest_may_know(c: Standing, waits: bool) -> None:
    asker = Asker(S.LIVING, c)
    asker.promise(A)
    assert asker.leads_after(0.1) is not waits
    assert asker.leads_after(asker.desk.settings.ask_s)
    lead = asker.desk.table.lead(JOB)
    assert lead is not None
    assert lead.firm


# ------------------------------------------------------------------------ outcomes that are found


def found_outcome(*, firm: bool) -> tuple[Mesh, JobId, Record]:
    """C has a result that A, the owner, wrote before it died; B has not heard of it."""
    mesh, job = mesh_with_job()
    running = started(mesh.record(A, job), runner=A, boot=1, at=WALL)
    ended = decided(
        running, State.SUCCEEDED, firm=firm, at=WALL, result=b'"a"', token=running.own.token, runner=A
    )
    mesh.rule = lambda source, to, message: not isinstance(message, Copies | Offer)
    mesh.tell(A, C, Write((encode(ended),)))
    return mesh, job, ended


def test_a_firm_successor_adopts_the_outcome_that_it_finds() -> None:
    mesh, job, ended = found_outcome(firm=True)
    mesh.kill(A)
    mesh.run_until(lambda: mesh.settled(job))
    outcome = mesh.record(B, job).outcome
    assert outcome is not None
    assert ended.outcome is not None
    assert outcome.value[1:] == ended.outcome.value[1:]
    assert (outcome.ballot, outcome.firm) == (Ballot(2, B), True)
    assert mesh.runs(job) == []


def test_a_provisional_owner_leaves_a_firm_outcome_as_it_found_it() -> None:
    mesh, job, ended = found_outcome(firm=True)
    mesh.kill(A)
    mesh.kill(B)
    mesh.run_until(lambda: mesh.lead(C, job) is not None)
    assert not mesh.is_firm(C, job)
    outcome = mesh.record(C, job).outcome
    assert outcome == ended.outcome
    mesh.run(10.0)
    assert mesh.record(C, job).outcome == ended.outcome
    assert mesh.runs(job) == []


# ----------------------------------------------------------------------------- responsibility


@pytest.mark.parametrize(
    ("a", "b", "c", "who"),
    [
        (S.LIVING, S.LIVING, S.LIVING, A),
        (S.GONE, S.LIVING, S.LIVING, B),
        (S.SILENT, S.GONE, S.LIVING, C),
        (S.UNKNOWN, S.LIVING, S.LIVING, None),
        (S.GONE, S.UNKNOWN, S.LIVING, None),
        (S.GONE, S.SILENT, S.GONE, D),
        (S.GONE, S.UNKNOWN, S.GONE, None),
    ],
)
def test_the_responsible_is_the_owner_or_else_the_first_living_holder_or_member(
    a: Standing, b: Standing, c: Standing, who: NodeId | None
) -> None:
    desk = make_desk(D, A, B, C)
    desk.view.standings.update({A: a, B: b, C: c})  # type: ignore[attr-defined]
    _, custody = make_custody(desk)
    assert custody.responsible(make_record(JOB, HOLDERS)) == who


@pytest.mark.parametrize("is_drained", [False, True])
def test_who_goes_on_without_holders_hears_first_from_anybody_how_the_job_ended(is_drained: bool) -> None:
    """With one copy a job, A handed its job to C and left. D, who is first in rank now, has an old copy that
    names A alone. (Found by seed 920378.)"""
    mesh = Mesh("acd", settings=Settings(jobs=JobSettings(replicas=1)))
    spec = mesh.spec("ad")
    if is_drained:
        mesh.do(D, RegulateAsked(RequestId(1), C, Wish(Change.DRAIN, 1.0), 5.0))
        mesh.run_until(lambda: RequestId(1) in mesh.regulated)
    mesh.kill(A)
    mesh.run_until(lambda: not mesh.nodes[D].view.is_living(A))
    old = new_record(encode_spec(spec), spec.id, (A,), 0.0, WALL)
    moved = next_epoch(proposed(old, (C,), C))
    done = settled(decided(moved, State.FAILED, firm=True, at=WALL, error="no"))
    for name, record in ((C, done), (D, old)):
        row = Row(record.id, encode(record), None)
        mesh.disks[name].write(
            [StoredRow(row, record.owner, record.settled, record.state, "echo", "default")]
        )
        mesh.nodes[name].desk.table.load(mesh.disks[name].unsettled())
    mesh.run_until(lambda: mesh.record(D, spec.id).outcome is not None)
    assert mesh.record(D, spec.id) == done
    assert mesh.begun == []


def test_who_goes_on_without_holders_asks_no_more_than_a_few_members_of_many() -> None:
    many = [NodeId(f"{number:016}") for number in range(40)]
    desk = make_desk(D, *many)
    desk.view.standings[A] = Standing.GONE  # type: ignore[attr-defined]
    desk.table.put(make_record(JOB, (A,)))
    ballots, _ = make_custody(desk)
    ballots.ask(JOB, "silence")
    asked = [send.to for send in desk.post.flush() if isinstance(send.message, Wanted)]
    assert len(asked) == len(set(asked)) == BYSTANDERS
    assert D not in asked


def test_an_owner_further_down_the_rank_stays_responsible_while_it_lives() -> None:
    desk = make_desk(D, A, B, C)
    record = make_record(JOB, HOLDERS)
    record = record._replace(own=record.own._replace(ballot=Ballot(2, C)))
    _, custody = make_custody(desk)
    assert custody.responsible(record) == C


def test_a_job_whose_takeover_was_missed_is_found_by_comparing_in_turn() -> None:
    """An owner that forgot (a wiped or unsettled memory) is told by another holder what it owns."""
    mesh, job = mesh_with_job()
    mesh.nodes[A].desk.table.leads.pop(job)
    mesh.run_until(lambda: mesh.is_firm(A, job), limit_s=20.0)
    assert mesh.record(A, job).ballot.term > 1


# --------------------------------------------------------------------- submissions that are repeated


def island() -> tuple[Mesh, Submit, JobId]:
    """B holds nothing yet; the other holders A and C are silent for B, and D hands a job to B."""
    mesh = Mesh("abcd", tasks=dict.fromkeys((A, B, C, D), ("other",)))
    spec = mesh.spec("abc")
    mesh.cut((A, B), (C, B), (D, A), (D, C))
    mesh.run_until(lambda: all(mesh.nodes[B].view.standing(name) is Standing.SILENT for name in (A, C)))
    return mesh, Submit(1, 1, (mesh.item(spec),)), spec.id


def test_a_repeated_submission_does_not_begin_the_ask_anew() -> None:
    mesh, submission, job = island()
    began = mesh.now
    while mesh.lead(B, job) is None and mesh.now < began + 60.0:
        mesh.tell(D, B, submission)
        mesh.run(1.0)
    assert mesh.now - began <= mesh.settings.jobs.island_after_s + 2.0
    assert mesh.record(B, job).ballot.term == 2
    mesh.run(0.1)
    assert mesh.messages(Submitted, source=B, to=D)[-1].answers[0].refused == ""


def test_a_client_on_an_island_gets_its_receipt() -> None:
    mesh = Mesh("abcd", tasks=dict.fromkeys((A, B, C, D), ("other",)))
    spec = mesh.spec("abc")
    mesh.cut((A, B), (C, B), (D, A), (D, C))
    mesh.run_until(lambda: all(mesh.nodes[D].view.standing(name) is Standing.SILENT for name in (A, C)))
    mesh.run_until(lambda: all(mesh.nodes[B].view.standing(name) is Standing.SILENT for name in (A, C)))
    # D's ranking may have left A and C out by now: the job's holders were chosen before the cut.
    mesh.tell(D, B, Submit(5, 1, (mesh.item(spec),)))
    began = mesh.now
    mesh.run_until(lambda: mesh.messages(Submitted, source=B, to=D) != [])
    assert mesh.now - began <= mesh.settings.jobs.island_after_s + 1.0
    assert not mesh.is_firm(B, spec.id)


# ---------------------------------------------------------------------- after everybody was off


def test_a_returning_first_node_waits_for_the_holders_that_it_has_not_met_yet() -> None:
    """Of [A, B, C], B and C finished a job while A was off. All lose power; A is back first, alone."""
    mesh = Mesh("abc", knows_peers=True)
    spec = mesh.spec("abc")
    job = spec.id
    mesh.verdict = lambda begun: None if begun.node == A else (0.3, succeeded(b'"second"'))
    mesh.submit(A, spec)
    mesh.run_until(lambda: mesh.runs(job) == [A])
    mesh.run(0.1)
    mesh.kill(A)
    mesh.run_until(lambda: mesh.settled(job))
    for name in (B, C):
        mesh.kill(name)
    mesh.run(1.0)
    mesh.begun.clear()
    mesh.boot(A, meets=())
    mesh.run(mesh.settings.jobs.island_after_s - 0.5)
    assert mesh.begun == []
    mesh.boot(B)
    mesh.run_until(lambda: mesh.record(A, job).settled)
    assert mesh.begun == []
    outcome = mesh.record(A, job).outcome
    assert outcome is not None
    assert outcome.result == b'"second"'


# ----------------------------------------------------------------------------------------- gifts


def test_a_receiver_of_a_gift_asks_and_the_giver_owns_until_it_has_promised() -> None:
    mesh, job = mesh_with_job()
    effects = mesh.tell(A, B, Gift((GiftItem(job, Ballot(1, A)),)))
    assert len(sends(effects, Ask)) > 0
    assert mesh.is_firm(A, job)
    mesh.run_until(lambda: mesh.is_firm(B, job))
    mesh.run(0.1)
    assert mesh.lead(A, job) is None


def test_a_receiver_of_a_gift_without_the_promises_of_a_majority_is_as_provisional_as_anybody() -> None:
    mesh, job = mesh_with_job()
    mesh.rule = lambda source, to, message: not isinstance(message, Promises)
    mesh.tell(A, B, Gift((GiftItem(job, Ballot(1, A)),)))
    mesh.run(0.1)
    mesh.kill(A)  # and C may have promised somebody else
    mesh.run_until(lambda: mesh.lead(B, job) is not None)
    assert not mesh.is_firm(B, job)
    mesh.rule = let_pass
    mesh.run_until(lambda: mesh.is_firm(B, job))


def test_a_gift_that_names_a_ballot_of_the_past_is_ignored() -> None:
    mesh, job = mesh_with_job()
    mesh.kill(A)
    mesh.run_until(lambda: mesh.is_firm(B, job) and mesh.record(C, job).owner == B)
    effects = mesh.tell(A, C, Gift((GiftItem(job, Ballot(1, A)),)))
    assert not sends(effects, Ask)


# --------------------------------------------------------------------------------- many jobs at once


def seed_copies(mesh: Mesh, number: int, *names: NodeId) -> list[JobId]:
    """Many jobs of A, as if its submissions had just been stored on `names`."""
    records = [
        make_record(spec.id, HOLDERS, task="nobody") for spec in mesh.specs(number, "abc", task="nobody")
    ]
    for name in names:
        mesh.disks[name].write(
            StoredRow(Row(record.id, encode(record), None), A, False, "queued", "nobody", "default")
            for record in records
        )
        mesh.nodes[name].desk.table.load(mesh.disks[name].unsettled())
    return [record.id for record in records]


def test_the_jobs_of_a_dead_owner_are_taken_over_in_chunks_not_one_by_one() -> None:
    """Twenty chunks, as 20,000 jobs are with the default batch."""
    batch, chunks = 150, 20
    mesh = Mesh("abc", settings=Settings(jobs=JobSettings(batch=batch)))
    jobs = seed_copies(mesh, batch * chunks, B, C)
    mesh.handled.clear()
    began = mesh.now
    mesh.kill(A)
    mesh.run_until(lambda: mesh.is_firm(B, jobs[-1]))
    mesh.run(1.0)
    assert all(mesh.is_firm(B, job) for job in jobs)
    assert len(mesh.messages(Ask, source=B, to=C)) <= 2 * chunks
    assert len(mesh.messages(Promises, source=C, to=B)) <= 2 * chunks
    # When the pauses of those who promised run out, that is no event for each job either.
    mesh.run(began + 4.0 - mesh.now)
    membership = 40 * 4
    assert mesh.handled[C] <= 12 * chunks + membership
    assert mesh.handled[B] <= 12 * chunks + membership


def test_the_next_jobs_are_asked_for_when_nothing_else_waits() -> None:
    """A piece of a long list with each of a hundred messages would be seconds of work: pings wait."""
    asker = Asker(Standing.GONE, Standing.LIVING)
    desk, batch = asker.desk, asker.desk.settings.batch
    jobs = [job_id(number) for number in range(2, batch + 20)]
    for job in jobs:
        desk.table.put(make_record(job, HOLDERS))
    asker.custody.look_at(jobs)
    desk.post.flush()
    asked = []
    for at_leisure in (False, True):
        desk.at_leisure = at_leisure
        desk.now += desk.settings.retry_s  # what was asked before is due to be asked again
        asker.custody.on_time()
        sent = [send.message for send in desk.post.flush()]
        asked.append([len(said.items) for said in sent if isinstance(said, Ask)])
    assert asked == [[], [batch, 1]]


def test_only_the_passing_of_time_is_leisure() -> None:
    mesh = Mesh("abc")
    desk = mesh.nodes[B].desk
    for event, at_leisure in ((MessageArrived(A, Wanted(())), False), (TimePassed(), True)):
        mesh.do(B, event)
        assert desk.at_leisure is at_leisure


def test_peers_that_answer_late_are_not_asked_for_all_jobs_at_once_nor_again_and_again() -> None:
    """Each answer takes longer than the first repetition of its question would: as when a node starts with
    100,000 jobs."""
    batch, chunks = 20, 12
    mesh = Mesh("abc", settings=Settings(jobs=JobSettings(batch=batch)))
    jobs = seed_copies(mesh, batch * chunks, B, C)
    asked: Counter[JobId] = Counter()
    under_way: set[JobId] = set()
    most = 0

    def slow(source: NodeId, to: NodeId, message: Message) -> bool | Seconds:
        nonlocal most
        if isinstance(message, Ask):
            asked.update(item.job for item in message.items)
            under_way.update(item.job for item in message.items)
            most = max(most, len(under_way))
        if isinstance(message, Promises):
            under_way.difference_update(item.job for item in message.items)
        return 1.2 if isinstance(message, Ask) else True

    mesh.rule = slow
    mesh.kill(A)
    mesh.run_until(lambda: all(mesh.is_firm(B, job) for job in jobs), limit_s=60.0)
    assert most <= 2 * batch
    assert asked.total() <= 2 * len(jobs)


def test_questions_that_nobody_answers_do_not_keep_the_others_from_being_asked() -> None:
    mesh = Mesh("abc", settings=Settings(jobs=JobSettings(batch=10)))
    jobs = seed_copies(mesh, 60, B, C)
    mesh.rule = lambda source, to, message: not isinstance(message, Promises)
    mesh.kill(A)
    mesh.run_until(lambda: {item.job for ask in mesh.messages(Ask) for item in ask.items} >= set(jobs))


def test_of_a_dead_owner_s_jobs_those_that_ran_are_asked_for_first() -> None:
    mesh = Mesh("abc", settings=Settings(jobs=JobSettings(batch=10)))
    mesh.verdict = lambda begun: None
    mesh.submit(A, *mesh.specs(50, "abc", task="nobody"))
    mesh.run(0.5)
    last = mesh.spec("abc")
    mesh.submit(A, last)
    mesh.run_until(lambda: mesh.runs(last.id) == [A])
    mesh.run(0.5)
    mesh.kill(A)
    mesh.run_until(lambda: mesh.messages(Ask, source=B) != [])
    first = mesh.messages(Ask, source=B)[0]
    assert first.items[0].job == last.id
    assert len(first.items) == 10


def test_a_backlog_at_rest_costs_no_wake_ups() -> None:
    def wake_ups(backlog: int) -> int:
        mesh = Mesh("abc")
        for at in range(0, backlog, 1000):
            mesh.submit(A, *mesh.specs(min(1000, backlog - at), "abc", task="nobody"))
            mesh.run(0.1)
        mesh.run(2.0)
        assert len(mesh.nodes[A].desk.table.leads) == backlog
        mesh.handled.clear()
        mesh.run(5.0)
        return mesh.handled[A]

    # Comparing 200 copies a second with two holders is all there is to do.
    assert wake_ups(3_000) <= wake_ups(0) + 5 * 8


@pytest.mark.parametrize("dies", [False, True])
def test_who_has_just_promised_a_job_leaves_it_to_the_asker_while_that_lives(dies: bool) -> None:
    """Else the two would outbid each other, also when it is compared in turn, or spoken of, meanwhile."""
    desk = make_desk(B, A, C)
    assert isinstance(desk.view, StillView)
    record = make_record(job_id(1), (A, B, C))
    desk.table.put(record)
    ballots, custody = make_custody(desk)

    def asks_within(duration_s: float) -> bool:
        ends = desk.now + duration_s
        while desk.now < ends:
            desk.now = min(max(custody.deadline(), desk.now + 0.01), ends)
            custody.on_time()
            if desk.now < ends:
                custody.look_at((record.id,))
        return ballots.is_asking(record.id) or desk.leading(record.id)

    desk.view.standings[A] = Standing.GONE
    ballots.on_ask(C, ask(2).items)
    if dies:
        desk.view.standings[C] = Standing.GONE
        custody.members_changed(frozenset({C}))
        assert asks_within(desk.settings.check_s)
    else:
        assert not asks_within(1.9 * desk.settings.ask_s)
        assert asks_within(2.0 * desk.settings.ask_s)


def test_jobs_that_another_takes_over_are_not_offered_to_it_all_at_once_nor_when_it_has_written_them() -> (
    None
):
    """Two survivors share the jobs of a dead owner. Who is slow would be offered what it is about to take."""
    batch, chunks = 20, 12
    mesh = Mesh("abc", settings=Settings(jobs=JobSettings(batch=batch)))
    jobs = seed_copies(mesh, batch * chunks, B, C)
    offered: list[tuple[float, int]] = []

    def slow(source: NodeId, to: NodeId, message: Message) -> bool | Seconds:
        if isinstance(message, Offer) and source == C:
            offered.append((mesh.now, len(message.items)))
        return 0.3 if isinstance(message, Promises) else True

    mesh.rule = slow
    mesh.kill(A)
    mesh.run_until(lambda: all(mesh.is_firm(B, job) for job in jobs), limit_s=60.0)
    per_pause = Counter[int]()
    for at, count in offered:
        per_pause[round(at / mesh.nodes[C].desk.settings.retry_s)] += count
    assert max(per_pause.values(), default=0) <= 2 * 2 * batch
    assert sum(count for _, count in offered) < len(jobs)


def test_a_copy_that_its_owner_has_just_written_is_offered_to_nobody() -> None:
    desk = make_desk(B, A, C)
    (_, custody), replication = make_custody(desk), Replication(desk)
    custody.on_time()  # its round begins, with nothing to compare
    record = make_record(job_id(1), (A, B, C))
    desk.table.put(record)
    custody.look_at((record.id,))
    written = record._replace(own=record.own._replace(write=record.own.write + 1))
    replication.on_write(A, (encode(written),))
    custody.told(desk.told.take())
    custody.on_time()
    assert sends(desk.flush(), Offer) == []


def test_who_is_given_more_jobs_than_it_can_ask_for_takes_the_others_when_they_are_given_again() -> None:
    batch = 10
    mesh = Mesh("abc", slots=0, settings=Settings(jobs=JobSettings(batch=batch)))
    specs = mesh.specs(8 * batch, "abc")
    mesh.submit(A, *specs)
    mesh.run(2.0)
    under_way: set[JobId] = set()
    most = 0

    def slow(source: NodeId, to: NodeId, message: Message) -> bool | Seconds:
        nonlocal most
        if isinstance(message, Ask):
            under_way.update(item.job for item in message.items)
            most = max(most, len(under_way))
        if isinstance(message, Promises) and source == C:
            under_way.difference_update(item.job for item in message.items)
        return 0.2 if isinstance(message, Ask) else True

    mesh.rule = slow
    mesh.do(A, LeaveAsked())
    mesh.run_until(lambda: A in mesh.left, limit_s=10.0)
    assert mesh.left[A]
    assert most <= 2 * batch


def test_the_only_holder_whose_disk_does_not_vote_passes_its_job_to_the_next_in_rank() -> None:
    """It comes first in rank, so that nobody else would be a holder today: it would wait for itself."""
    disk = Disk()
    desk = make_desk(A, B, settings=JobSettings(replicas=1), archive=disk)
    job = next(job for job in map(job_id, range(100)) if desk.view.ranking().rank(job)[0] == A)
    disk.lost.add(job)
    desk.table.put(make_record(job, (A,)))
    _, custody = make_custody(desk)
    custody.look_at((job,))
    custody.on_time()
    assert [send.to for send in desk.post.flush() if isinstance(send.message, Gift)] == [B]
