"""The entry node's part: submissions, reads and searches for local clients."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_mesh import WALL, A, B, C, D, Mesh, job_id, let_pass, make_desk, make_record, sends, succeeded

from edgenode.core.errors import EdgeNodeError, JobNotFound, NotReady, OutcomeUnknown, Undecided
from edgenode.core.intake import REFUSED_NOT_READY, Intake
from edgenode.core.jobs import Record, decided, encode, settled
from edgenode.core.signals import (
    LeaveAsked,
    LinkDown,
    Receipt,
    RequestDropped,
    RequestId,
    SearchAsked,
    SearchDone,
    SearchedHere,
    SearchHere,
)
from edgenode.core.types import Ballot, JobId, NodeId, State
from edgenode.core.view import Standing
from edgenode.core.wire import (
    CONTROL,
    FRAME_BYTES_MAX,
    Copies,
    Evidence,
    Query,
    Read,
    ReadAnswer,
    Search,
    SearchAnswer,
    Submit,
    SubmitAnswer,
    Submitted,
    Write,
)
from edgenode.core.wire import encode as frame_of

ALL = Query("", "", "", b"", 10)


def receipt(mesh: Mesh, request: RequestId) -> Receipt:
    mesh.run_until(lambda: request in mesh.submits)
    return mesh.submits[request].receipts[0]


def error_of(mesh: Mesh, request: RequestId, job: JobId) -> EdgeNodeError:
    mesh.run_until(lambda: request in mesh.reads)
    return mesh.reads[request].errors[job]


# --------------------------------------------------------------------------------------- submissions


def test_a_receipt_names_disks_that_have_the_job() -> None:
    mesh = Mesh("abcd")
    spec = mesh.spec("abc")
    request = mesh.submit(D, spec)
    taken = receipt(mesh, request)
    assert taken.error is None
    assert len(taken.nodes) >= 2
    assert all(spec.id in mesh.disks[name].rows for name in taken.nodes)


def test_receipts_come_in_the_order_of_the_jobs() -> None:
    mesh = Mesh("abc")
    specs = [mesh.spec(first) for first in ("c", "a", "b", "a", "c")]
    request = mesh.submit(B, *specs)
    mesh.run_until(lambda: request in mesh.submits)
    assert [taken.job for taken in mesh.submits[request].receipts] == [spec.id for spec in specs]


def test_a_lost_submission_is_repeated_and_taken_once() -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("abc")
    mesh.rule = lambda source, to, message: not isinstance(message, Submitted)
    request = mesh.submit(C, spec)
    mesh.run(4.0)
    assert len(mesh.messages(Submit)) >= 3
    mesh.rule = let_pass
    assert receipt(mesh, request).error is None
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert mesh.runs(spec.id) == [A]
    assert mesh.record(A, spec.id).ballot == Ballot(1, A)


def test_a_submission_goes_down_the_rank_past_a_holder_that_died() -> None:
    mesh = Mesh("abcd")
    spec = mesh.spec("abc")
    mesh.rule = lambda source, to, message: not (to == A and isinstance(message, Submit))
    request = mesh.submit(D, spec)
    mesh.kill(A)
    assert receipt(mesh, request).error is None
    mesh.run_until(lambda: mesh.settled(spec.id))
    assert mesh.record(B, spec.id).ballot.term > 1  # B was not named: it had to ask


def test_a_submission_goes_down_the_rank_past_a_holder_that_refuses() -> None:
    mesh = Mesh("abcd")
    spec = mesh.spec("abc")
    mesh.verdict = lambda begun: None
    mesh.submit(A, busy := mesh.spec("abc"))
    mesh.run_until(lambda: mesh.runs(busy.id) == [A])
    mesh.do(A, LeaveAsked())  # goes on with its run, and takes nothing new
    request = mesh.submit(D, spec)
    assert receipt(mesh, request).error is None


def test_a_named_place_at_a_node_that_is_not_the_first_holder_names_nobody() -> None:
    """From an entry node with another ranking, or another program: no crash, and no second first owner."""
    mesh = Mesh("abc", tasks=dict.fromkeys((A, B, C), ("other",)))
    spec = mesh.spec("abc")
    mesh.tell(C, B, Submit(1, 0, 0, (mesh.item(spec),)))
    assert mesh.lead(B, spec.id) is None
    mesh.run_until(lambda: mesh.is_firm(B, spec.id))
    assert mesh.record(B, spec.id).ballot.term > 1


def test_a_node_that_is_no_holder_refuses() -> None:
    mesh = Mesh("abcd")
    spec = mesh.spec("abc")
    (answer,) = sends(mesh.tell(C, D, Submit(1, 0, 0, (mesh.item(spec),))), Submitted)
    assert answer.answers == (SubmitAnswer(spec.id, (), REFUSED_NOT_READY),)
    assert not mesh.has(D, spec.id)


def test_a_repeated_submission_of_a_finished_job_gets_its_receipt_and_runs_nothing() -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("abc")
    mesh.submit(C, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    mesh.run(1.0)
    (answer,) = sends(mesh.tell(C, B, Submit(9, 1, 0, (mesh.item(spec),))), Submitted)
    assert answer.answers == (SubmitAnswer(spec.id, (B,), ""),)
    mesh.run(3.0)
    assert mesh.runs(spec.id) == [A]


def test_a_submission_to_a_holder_that_does_not_own_the_job_is_sent_to_the_owner() -> None:
    mesh = Mesh("abc", tasks=dict.fromkeys((A, B, C), ("other",)))
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run(0.1)
    (answer,) = sends(mesh.tell(C, B, Submit(9, 1, 0, (mesh.item(spec),))), Submitted)
    assert answer.answers[0].refused == "moved:" + A


def test_no_answer_after_a_holder_died_is_an_unknown_outcome() -> None:
    mesh = Mesh("abcd")
    spec = mesh.spec("abc")
    mesh.rule = lambda source, to, message: not (source == A and isinstance(message, Submitted | Write))
    request = mesh.submit(D, spec)
    mesh.run_until(lambda: spec.id in mesh.disks[A].rows)
    mesh.rule = lambda source, to, message: not isinstance(message, Submit)
    mesh.kill(A)
    mesh.run(0.2)
    for name in (B, C):
        mesh.tell(name, D, Submitted(request, (SubmitAnswer(spec.id, (), REFUSED_NOT_READY),)))
    error = mesh.submits[request].receipts[0].error
    assert isinstance(error, OutcomeUnknown)
    assert not error.definite


def test_a_refusal_by_all_holders_that_were_heard_is_definite() -> None:
    mesh = Mesh("abcd")
    spec = mesh.spec("abc")
    mesh.rule = lambda source, to, message: not isinstance(message, Submit)
    request = mesh.submit(D, spec)
    mesh.run(0.01)
    for name in (A, B, C):
        mesh.tell(name, D, Submitted(request, (SubmitAnswer(spec.id, (), REFUSED_NOT_READY),)))
    error = mesh.submits[request].receipts[0].error
    assert isinstance(error, NotReady)
    assert error.definite


@pytest.mark.parametrize("damaged", [A, B, C])
def test_a_refusal_by_a_holder_whose_row_was_damaged_is_an_unknown_outcome(damaged: NodeId) -> None:
    """It may be there from an earlier try of the same submission, whose receipt was lost."""
    mesh = Mesh("abcd")
    spec = mesh.spec("abc")
    mesh.disks[damaged].lost.add(spec.id)
    mesh.rule = lambda source, to, message: not (isinstance(message, Submit) and to != damaged)
    request = mesh.submit(D, spec)
    mesh.run(0.01)
    for name in sorted({A, B, C} - {damaged}):
        mesh.tell(name, D, Submitted(request, (SubmitAnswer(spec.id, (), REFUSED_NOT_READY),)))
        mesh.run(0.01)
    error = receipt(mesh, request).error
    assert isinstance(error, OutcomeUnknown)


def test_a_refusal_by_a_holder_that_then_dies_stays_definite() -> None:
    """It said no while it lived: its death changes nothing."""
    mesh = Mesh("abcd")
    spec = mesh.spec("abc")
    mesh.rule = lambda source, to, message: not isinstance(message, Submit)
    request = mesh.submit(D, spec)
    mesh.run(0.01)
    no = SubmitAnswer(spec.id, (), REFUSED_NOT_READY)
    mesh.tell(A, D, Submitted(request, (no,)))
    mesh.kill(A)
    mesh.run(0.1)
    for name in (B, C):
        mesh.tell(name, D, Submitted(request, (no,)))
    assert isinstance(mesh.submits[request].receipts[0].error, NotReady)


def test_the_deadline_of_a_submission_answers_that_the_outcome_is_unknown() -> None:
    mesh = Mesh("abcd")
    spec = mesh.spec("abc")
    mesh.rule = lambda source, to, message: not isinstance(message, Submit)
    request = mesh.submit(D, spec, timeout_s=2.0)
    began = mesh.now
    error = receipt(mesh, request).error
    assert isinstance(error, OutcomeUnknown)
    assert mesh.now - began == pytest.approx(2.0, abs=0.01)


def test_a_leaving_node_takes_no_submissions() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: None
    running = mesh.spec("abc")
    mesh.submit(A, running)
    mesh.run_until(lambda: mesh.runs(running.id) == [A])
    mesh.do(A, LeaveAsked())
    request = mesh.submit(A, mesh.spec("abc"))
    assert isinstance(receipt(mesh, request).error, NotReady)


def test_a_submitter_that_waits_at_a_holder_is_answered_when_another_owner_has_ended_the_job() -> None:
    """Or else it is remembered for ever that somebody waits."""
    mesh = Mesh("abc")
    spec = mesh.spec("abc")
    mesh.rule = lambda source, to, message: source != B
    mesh.tell(C, B, Submit(5, 1, 0, (mesh.item(spec),)))  # B is not the first: it asks, and nobody hears it
    done = settled(decided(make_record(spec.id, (A, B, C)), State.SUCCEEDED, firm=True, at=WALL, result=b"1"))
    assert sends(mesh.tell(A, B, Copies((encode(done),))), Submitted) == [
        Submitted(5, (SubmitAnswer(spec.id, (B,), ""),))
    ]
    assert sends(mesh.tell(A, B, Copies((encode(done),))), Submitted) == []


# --------------------------------------------------------------------------------------------- reads


def test_a_read_shows_what_the_owner_says_rather_than_an_older_copy() -> None:
    mesh = Mesh("abcd")
    mesh.verdict = lambda begun: None
    spec = mesh.spec("abc")
    mesh.rule = lambda source, to, message: not (to in (B, C) and isinstance(message, Copies))
    mesh.submit(A, spec, acks=1)
    mesh.run_until(lambda: mesh.runs(spec.id) == [A])
    mesh.rule = lambda source, to, message: not (to in (B, C) and isinstance(message, Write | Copies))
    mesh.end_run(A, spec.id, mesh.begun[0].token, succeeded())
    request = mesh.read(D, spec.id)
    mesh.run_until(lambda: request in mesh.reads)
    done = mesh.reads[request]
    assert done.records[spec.id].state is State.SUCCEEDED
    assert not done.records[spec.id].settled
    assert done.firm == {spec.id}
    assert mesh.record(B, spec.id).state is State.RUNNING


def test_a_read_does_not_wait_for_slow_holders_when_the_owner_has_answered() -> None:
    mesh = Mesh("abcd", tasks=dict.fromkeys((A, B, C, D), ("other",)))
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run(0.1)
    mesh.rule = lambda source, to, message: not (source in (B, C) and isinstance(message, ReadAnswer))
    request = mesh.read(D, spec.id)
    mesh.run_until(lambda: request in mesh.reads, limit_s=0.1)
    assert mesh.reads[request].records[spec.id].owner == A


def test_a_job_that_nobody_knows_is_not_found_when_all_have_said_so() -> None:
    mesh = Mesh("abcd")
    job = mesh.spec("abc").id
    request = mesh.read(D, job)
    assert isinstance(error_of(mesh, request, job), JobNotFound)
    assert {sent.to for sent in mesh.sent if isinstance(sent.message, Read)} == {A, B, C}


def test_a_job_is_not_denied_while_a_dead_member_may_have_it() -> None:
    mesh = Mesh("abcd")
    mesh.kill(C)
    mesh.run_until(lambda: mesh.nodes[D].view.standing(C) is Standing.GONE)
    job = mesh.spec("abc").id
    error = error_of(mesh, mesh.read(D, job), job)
    assert isinstance(error, Undecided)
    assert not error.definite
    assert error.context["lasting"] is True


def test_a_silence_that_may_end_soon_is_not_called_lasting() -> None:
    mesh = Mesh("abcd")
    mesh.kill(C)
    mesh.run_until(lambda: mesh.nodes[D].view.standing(C) is Standing.GONE)
    mesh.rule = lambda source, to, message: source != B or not isinstance(message, ReadAnswer)
    job = mesh.spec("abc").id
    error = error_of(mesh, mesh.read(D, job), job)
    assert isinstance(error, Undecided)
    assert error.context["lasting"] is False


def test_a_member_that_handed_everything_over_is_not_asked_for_a_no() -> None:
    mesh = Mesh("abcd")
    mesh.do(C, LeaveAsked())
    mesh.run_until(lambda: mesh.left == {C: True} and mesh.nodes[D].view.has_left(C))
    job = mesh.spec("ab").id
    assert isinstance(error_of(mesh, mesh.read(D, job), job), JobNotFound)


def test_a_member_that_seemed_dead_until_its_goodbye_was_heard_is_not_asked_for_a_no() -> None:
    """And nobody who asks one that took it for dead is left unsure."""
    mesh = Mesh("abcd", slots={C: 1, D: 1})
    running = mesh.spec("c")
    mesh.submit(C, running)
    mesh.run(0.1)
    mesh.do(C, LeaveAsked())
    mesh.run_until(lambda: mesh.nodes[D].view.is_leaving(C))
    mesh.run(0.1)
    mesh.rule = lambda source, to, message: to != D or not isinstance(message, CONTROL)
    mesh.run_until(lambda: mesh.left == {C: True})
    mesh.do(D, LinkDown(C, 1, True))
    mesh.tell(A, D, Evidence(C, 1, 0))
    assert mesh.nodes[D].view.standing(C) is Standing.GONE
    job = mesh.spec("ab").id
    assert isinstance(error_of(mesh, mesh.read(A, job), job), Undecided)
    mesh.rule = let_pass
    mesh.run_until(lambda: mesh.nodes[D].view.has_left(C))
    assert isinstance(error_of(mesh, mesh.read(A, job), job), JobNotFound)


def test_a_job_whose_next_owner_is_still_asking_is_undecided() -> None:
    mesh = Mesh("abcd")
    mesh.cut((A, C), (A, B))
    mesh.run_until(lambda: mesh.nodes[D].view.standing(A) is Standing.LIVING)
    job = mesh.spec("abc").id
    mesh.rule = lambda source, to, message: not isinstance(message, Read)
    request = mesh.read(D, job)
    mesh.run(0.01)
    for name in (A, B, C):
        asking = (job,) if name == B else ()
        mesh.tell(name, D, ReadAnswer(request, (), (), (), asking, (job,), False, True))
    for name in (A, B, C):
        mesh.tell(name, D, ReadAnswer(request, (), (), (), (), (job,), False, True))
    assert isinstance(error_of(mesh, request, job), Undecided)


def test_a_node_that_has_met_nobody_denies_no_job() -> None:
    mesh = Mesh("abc", knows_peers=True)
    for name in (A, B, C):
        mesh.kill(name)
    mesh.boot(B, meets=())
    mesh.run(20.0)
    job = mesh.spec("abc").id
    assert isinstance(error_of(mesh, mesh.read(B, job), job), Undecided)


def test_a_wait_ends_when_the_job_is_settled() -> None:
    mesh = Mesh("abcd")
    mesh.verdict = lambda begun: (5.0, succeeded())
    spec = mesh.spec("abc")
    mesh.submit(D, spec)
    mesh.run(0.1)
    request = mesh.read(D, spec.id, wait_s=30.0)
    mesh.run_until(lambda: request in mesh.reads)
    assert mesh.reads[request].records[spec.id].settled
    assert mesh.now - mesh.begun[0].at == pytest.approx(5.0, abs=0.1)
    assert len(mesh.messages(Read, source=D)) < 60


def test_a_wait_ends_with_what_is_there_when_its_time_is_up() -> None:
    mesh = Mesh("abcd")
    mesh.verdict = lambda begun: None
    spec = mesh.spec("abc")
    mesh.submit(D, spec)
    mesh.run(0.1)
    began, request = mesh.now, mesh.read(D, spec.id, wait_s=4.0)
    mesh.run_until(lambda: request in mesh.reads)
    assert mesh.now - began == pytest.approx(4.0, abs=0.05)
    assert mesh.reads[request].records[spec.id].state is State.RUNNING


def test_a_wait_at_a_lone_owner_shows_how_things_are_when_it_ends() -> None:
    mesh = Mesh("a")
    mesh.verdict = lambda begun: None
    spec = mesh.spec("a", run_at=WALL + 3.0)
    mesh.submit(A, spec)
    mesh.run(0.1)
    request = mesh.read(A, spec.id, wait_s=10.0)
    mesh.run_until(lambda: request in mesh.reads)
    assert mesh.reads[request].records[spec.id].state is State.RUNNING


def test_a_wait_for_a_provisional_end_is_answered_as_unsettled_after_a_while() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: (3.0, succeeded())
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run(0.1)
    for name in (A, B):
        mesh.kill(name)
    mesh.run_until(lambda: mesh.runs(spec.id)[-1] == C)
    request = mesh.read(C, spec.id, wait_s=60.0)
    mesh.run_until(lambda: request in mesh.reads)
    found = mesh.reads[request].records[spec.id]
    assert (found.state, found.settled) == (State.SUCCEEDED, False)
    assert mesh.reads[request].firm == frozenset()
    ended_at = mesh.begun[-1].at + 3.0
    waited = mesh.now - ended_at
    assert mesh.settings.jobs.unsettled_s <= waited <= mesh.settings.jobs.unsettled_s + 1.5


def test_a_read_that_is_over_leaves_nothing_behind() -> None:
    mesh = Mesh("abc")
    jobs = [job_id(number) for number in range(5)]
    requests = [mesh.read(B, job, wait_s=2.0) for job in jobs]
    dropped = mesh.read(B, jobs[0], wait_s=60.0)
    mesh.do(B, RequestDropped(dropped))
    mesh.run_until(lambda: all(request in mesh.reads for request in requests))
    mesh.run(0.1)
    intake = mesh.nodes[B]._intake
    assert (len(intake._readings), len(intake._followers)) == (0, 0)
    assert dropped not in mesh.reads


def test_a_reader_that_asks_no_more_is_forgotten_while_the_job_runs_on() -> None:
    mesh = Mesh("abc")
    mesh.verdict = lambda begun: None
    spec = mesh.spec("a")
    mesh.submit(A, spec)
    for _ in range(40):
        mesh.read(B, spec.id, wait_s=1.0)
        mesh.run(1.0)
    lasting = mesh.read(C, spec.id, wait_s=60.0)
    mesh.run(30.0)
    mesh.read(B, spec.id, wait_s=1.0)
    mesh.run(0.1)
    assert len(mesh.nodes[A]._intake._followers) == 2
    mesh.end_run(A, spec.id, mesh.begun[0].token, succeeded())
    ended_at = mesh.now
    mesh.run_until(lambda: lasting in mesh.reads)
    assert mesh.now - ended_at < 0.3, "it is told, and need not ask"


def test_followers_on_other_nodes_are_forgotten_when_the_job_ends() -> None:
    mesh = Mesh("abcd")
    mesh.verdict = lambda begun: (2.0, succeeded())
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run(0.1)
    requests = [mesh.read(name, spec.id, wait_s=10.0) for name in (B, C, D)]
    mesh.run_until(lambda: all(request in mesh.reads for request in requests))
    mesh.run(0.1)
    assert all(len(node._intake._followers) == 0 for node in mesh.nodes.values())


def test_a_read_of_many_large_results_travels_in_frames_that_a_peer_takes() -> None:
    desk = make_desk(A, B)
    jobs = []
    for number in range(20):
        record = make_record(job_id(number), (A, B))
        done = settled(decided(record, State.SUCCEEDED, firm=True, at=WALL, result=b" " * 1_000_000))
        desk.table.put(done)
        jobs.append(done.id)
    Intake(desk).on_read(B, Read(1, tuple(jobs), False), lambda job: False)
    frames = [frame_of(send.message) for send in desk.post.flush()]
    assert sum(len(frame) for frame in frames) > 20_000_000
    assert max(len(frame) for frame in frames) < FRAME_BYTES_MAX


def test_a_wait_elsewhere_for_a_provisional_end_is_answered_as_unsettled_after_a_while() -> None:
    mesh = Mesh("abcd", slots={A: 2, B: 2, C: 2, D: 0})
    mesh.verdict = lambda begun: (3.0, succeeded())
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run(0.1)
    for name in (A, B):
        mesh.kill(name)
    mesh.run_until(lambda: mesh.runs(spec.id)[-1] == C)
    request = mesh.read(D, spec.id, wait_s=60.0)
    mesh.run_until(lambda: request in mesh.reads)
    found = mesh.reads[request].records[spec.id]
    assert (found.state, found.settled) == (State.SUCCEEDED, False)
    waited = mesh.now - mesh.begun[-1].at - 3.0
    assert mesh.settings.jobs.unsettled_s <= waited <= mesh.settings.jobs.unsettled_s + 2.5


# ------------------------------------------------------------------------------------------ searches


class Listing:
    """Some nodes that list jobs together: the first asks, each looks on its own disk, a page at a time."""

    def __init__(self, copies: dict[NodeId, dict[JobId, Record]], page: dict[NodeId, int]) -> None:
        names = sorted(copies)
        self.copies, self.page = copies, page
        self.desks = {name: make_desk(name, *[n for n in names if n != name]) for name in names}
        self.intakes = {name: Intake(desk) for name, desk in self.desks.items()}
        self.asker = names[0]
        self.done: list[SearchDone] = []

    def ask(self, query: Query) -> SearchDone:
        self.intakes[self.asker].search(SearchAsked(RequestId(1), query, 3.0))
        while not self.done:
            assert any([self._go_on(name) for name in self.desks]), "nobody has anything to say"
        return self.done.pop()

    def _go_on(self, name: NodeId) -> bool:
        effects = self.desks[name].flush()
        for effect in effects:
            if isinstance(effect, SearchHere):
                self.intakes[name].searched_here(self._look(name, effect))
            elif isinstance(effect, SearchDone):
                self.done.append(effect)
        for search in sends(effects, Search):
            for other in self.desks:
                if other != name:
                    self.intakes[other].on_search(name, search)
            break  # one to each, and all the same
        for answer in [*sends(effects, SearchAnswer), *self._local(name)]:
            self.intakes[self.asker].on_search_answer(name, answer)
        return bool(effects)

    def _local(self, name: NodeId) -> list[SearchAnswer]:
        return [m for m in self.desks[name].post.take_local() if isinstance(m, SearchAnswer)]

    def _look(self, name: NodeId, order: SearchHere) -> SearchedHere:
        query = order.query
        matching = [
            record
            for job, record in sorted(self.copies[name].items(), reverse=True)
            if (not query.after or job < query.after) and query.state in ("", record.state)
        ]
        piece = matching[: min(query.limit, self.page[name])]
        return SearchedHere(order.ticket, tuple(encode(r) for r in piece), len(piece) == len(matching))


def list_all(listing: Listing, limit: int, state: str = "") -> list[JobId]:
    seen: list[JobId] = []
    after = b""
    for _ in range(200):
        done = listing.ask(Query(state, "", "", after, limit))
        assert len(done.records) <= limit
        assert done.unanswered == ()
        seen += [record.id for record in done.records]
        if not done.next:
            return seen
        assert not after or done.next < after, "no progress"
        after = done.next
    raise AssertionError("without end")


placements = st.lists(
    st.tuples(st.sets(st.sampled_from((A, B, C, D)), min_size=1), st.booleans()), max_size=30
)


@settings(max_examples=150)
@given(placements, st.integers(1, 7), st.tuples(*[st.integers(1, 5)] * 4))
def test_pages_show_every_job_once_in_falling_order(
    placed: list[tuple[set[NodeId], bool]], limit: int, page: tuple[int, int, int, int]
) -> None:
    copies: dict[NodeId, dict[JobId, Record]] = {name: {} for name in (A, B, C, D)}
    for number, (holders, is_over) in enumerate(placed):
        record = make_record(job_id(number), sorted(holders))
        if is_over:
            record = settled(decided(record, State.SUCCEEDED, firm=True, at=WALL))
        for holder in holders:
            copies[holder][record.id] = record
    listing = Listing(copies, dict(zip((A, B, C, D), page, strict=True)))
    expected = [job_id(number) for number in reversed(range(len(placed)))]
    assert list_all(listing, limit) == expected
    queued = [job_id(n) for n, (_, is_over) in reversed(list(enumerate(placed))) if not is_over]
    assert list_all(listing, limit, "queued") == queued


def test_an_old_copy_of_an_unfinished_job_is_not_listed_under_the_state_that_it_left() -> None:
    """B owns it, and it ended there; A's copy still says queued."""
    old = make_record(job_id(1), (B, A))
    new = decided(old, State.SUCCEEDED, firm=True, at=WALL)
    listing = Listing({A: {old.id: old}, B: {new.id: new}}, {A: 5, B: 5})
    assert list_all(listing, 5, "queued") == []
    assert list_all(listing, 5, "succeeded") == [new.id]


def test_a_search_names_those_who_did_not_answer_and_shows_the_rest() -> None:
    mesh = Mesh("abc")
    specs = [mesh.spec("abc") for _ in range(4)]
    mesh.submit(A, *specs)
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs))
    mesh.rule = lambda source, to, message: not isinstance(message, SearchAnswer) or source != C
    mesh.do(B, SearchAsked(RequestId(77), ALL, 2.0))
    mesh.run_until(lambda: RequestId(77) in mesh.searches, limit_s=2.1)
    done = mesh.searches[RequestId(77)]
    assert done.unanswered == (C,)
    assert [record.id for record in done.records] == sorted((spec.id for spec in specs), reverse=True)


def test_a_search_does_not_wait_for_a_node_that_dies() -> None:
    mesh = Mesh("abc")
    mesh.rule = lambda source, to, message: not isinstance(message, SearchAnswer) or source != C
    mesh.do(B, SearchAsked(RequestId(77), ALL, 30.0))
    mesh.run(0.1)
    mesh.kill(C)
    mesh.run_until(lambda: RequestId(77) in mesh.searches, limit_s=1.0)
    assert mesh.searches[RequestId(77)].unanswered == (C,)


def test_a_search_names_who_was_dead_before_it_began() -> None:
    mesh = Mesh("abc")
    mesh.kill(C)
    mesh.run(1.0)
    mesh.do(B, SearchAsked(RequestId(77), ALL, 2.0))
    mesh.run_until(lambda: RequestId(77) in mesh.searches, limit_s=1.0)
    assert mesh.searches[RequestId(77)].unanswered == (C,)


def test_a_disk_that_cannot_be_searched_is_named_and_not_taken_for_an_empty_one() -> None:
    desk = make_desk(A)
    intake = Intake(desk)
    intake.search(SearchAsked(RequestId(1), ALL, 2.0))
    (order,) = (effect for effect in desk.flush() if isinstance(effect, SearchHere))
    intake.searched_here(SearchedHere(order.ticket, (), False))
    assert desk.post.take_local() == []
    desk.now += 2.0
    intake.on_time()
    (done,) = (effect for effect in desk.flush() if isinstance(effect, SearchDone))
    assert (done.records, done.unanswered) == ((), (A,))


@pytest.mark.parametrize("found", [(), (9,), (9, 7)])
def test_a_disk_that_ran_out_of_time_is_gone_on_with_where_it_stopped(found: tuple[int, ...]) -> None:
    """Also one that found nothing on its way down: it is not silent, and there may be more further on."""
    desk = make_desk(A)
    intake = Intake(desk)
    intake.search(SearchAsked(RequestId(1), ALL, 2.0))
    (order,) = (effect for effect in desk.flush() if isinstance(effect, SearchHere))
    records = tuple(encode(make_record(job_id(number), (A,))) for number in found)
    intake.searched_here(SearchedHere(order.ticket, records, False, job_id(8)))
    for answer in desk.post.take_local():
        assert isinstance(answer, SearchAnswer)
        intake.on_search_answer(A, answer)
    (done,) = (effect for effect in desk.flush() if isinstance(effect, SearchDone))
    assert [record.id for record in done.records] == [job_id(number) for number in found]
    assert done.next == min(job_id(8), *(job_id(number) for number in found), job_id(9))
    assert done.unanswered == ()
