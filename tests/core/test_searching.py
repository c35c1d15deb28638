"""Searches over all members, page by page."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_mesh import WALL, A, B, C, D, Mesh, job_id, make_desk, make_record, sends

from edgenode.core.job_bytes import encode
from edgenode.core.jobs import Record, decided, settled
from edgenode.core.searching import Searching
from edgenode.core.signals import (
    RequestId,
    SearchAsked,
    SearchDone,
    SearchedHere,
    SearchHere,
)
from edgenode.core.types import JobId, NodeId, State
from edgenode.core.wire import (
    Query,
    Search,
    SearchAnswer,
)

ALL = Query("", "", "", b"", 10)


class Listing:
    """Some nodes that list jobs together: the first asks, each looks on its own disk, a page at a time."""

    def __init__(self, copies: dict[NodeId, dict[JobId, Record]], page: dict[NodeId, int]) -> None:
        names = sorted(copies)
        self.copies, self.page = copies, page
        self.desks = {name: make_desk(name, *[n for n in names if n != name]) for name in names}
        self.searching = {name: Searching(desk, lambda job: "") for name, desk in self.desks.items()}
        self.asker = names[0]
        self.done: list[SearchDone] = []

    def ask(self, query: Query) -> SearchDone:
        self.searching[self.asker].search(SearchAsked(RequestId(1), query, 3.0))
        while not self.done:
            assert any([self._go_on(name) for name in self.desks]), "nobody has anything to say"
        return self.done.pop()

    def _go_on(self, name: NodeId) -> bool:
        effects = self.desks[name].flush()
        for effect in effects:
            if isinstance(effect, SearchHere):
                self.searching[name].searched_here(self._look(name, effect))
            elif isinstance(effect, SearchDone):
                self.done.append(effect)
        for search in sends(effects, Search):
            for other in self.desks:
                if other != name:
                    self.searching[other].on_search(name, search)
            break  # one to each, and all the same
        for answer in [*sends(effects, SearchAnswer), *self._local(name)]:
            self.searching[self.asker].on_search_answer(name, answer)
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
    searching = Searching(desk, lambda job: "")
    searching.search(SearchAsked(RequestId(1), ALL, 2.0))
    (order,) = (effect for effect in desk.flush() if isinstance(effect, SearchHere))
    searching.searched_here(SearchedHere(order.ticket, (), False))
    assert desk.post.take_local() == []
    desk.now += 2.0
    searching.on_time()
    (done,) = (effect for effect in desk.flush() if isinstance(effect, SearchDone))
    assert (done.records, done.unanswered) == ((), (A,))


@pytest.mark.parametrize("found", [(), (9,), (9, 7)])
def test_a_disk_that_ran_out_of_time_is_gone_on_with_where_it_stopped(found: tuple[int, ...]) -> None:
    """Also one that found nothing on its way down: it is not silent, and there may be more further on."""
    desk = make_desk(A)
    searching = Searching(desk, lambda job: "")
    searching.search(SearchAsked(RequestId(1), ALL, 2.0))
    (order,) = (effect for effect in desk.flush() if isinstance(effect, SearchHere))
    records = tuple(encode(make_record(job_id(number), (A,))) for number in found)
    searching.searched_here(SearchedHere(order.ticket, records, False, job_id(8)))
    for answer in desk.post.take_local():
        assert isinstance(answer, SearchAnswer)
        searching.on_search_answer(A, answer)
    (done,) = (effect for effect in desk.flush() if isinstance(effect, SearchDone))
    assert [record.id for record in done.records] == [job_id(number) for number in found]
    assert done.next == min(job_id(8), *(job_id(number) for number in found), job_id(9))
    assert done.unanswered == ()
