"""Copies of finished jobs where they belong: what no mesh of a few nodes comes to by itself."""

from __future__ import annotations

import random
from dataclasses import dataclass

from job_mesh import DAY_S, WALL, A, B, C, D, Disk, StillView, job_id, make_record

from edgenode.core.desk import Desk
from edgenode.core.job_bytes import encode
from edgenode.core.jobs import decided, settled
from edgenode.core.settings import JobSettings
from edgenode.core.signals import Row, StoredRow
from edgenode.core.types import Ballot, Instant, JobId, MemberInfo, NodeId, State
from edgenode.core.upkeep import Upkeep
from edgenode.core.view import Standing
from edgenode.core.wire import Digest, Offer

JOB = job_id(1)


@dataclass(slots=True)
class Newcomers(StillView):
    """Members that never met some of the holders, and have given up waiting for them."""

    def info(self, node: NodeId) -> MemberInfo | None:
        return StillView.info(self, node) if node in self.standings else None

    def dead_since(self, node: NodeId) -> Instant | None:
        return StillView.dead_since(self, node) if node in self.standings else 0.0


@dataclass(slots=True)
class Begun(StillView):
    """Members that take jobs, and say so."""

    def info(self, node: NodeId) -> MemberInfo | None:
        info = StillView.info(self, node)
        return None if info is None else info._replace(ready=True)


class Walker:
    """A's walks through what it has, as time goes on."""

    def __init__(self, view: StillView, *, replicas: int = 2) -> None:
        self.view = view
        self.disk = Disk()
        settings = JobSettings(replicas=replicas, rereplicate_after_s=30.0)
        self.desk = Desk(view, settings, self.disk, random.Random(1))
        self.desk.set_wall(WALL)
        self.upkeep = Upkeep(self.desk)

    def offered_in(self, duration_s: float) -> set[NodeId]:
        """To whom something was offered in this time."""
        return {to for to, _ in self.offers_in(duration_s)}

    def offers_in(self, duration_s: float) -> list[tuple[NodeId, Digest]]:
        desk, ends = self.desk, self.desk.now + duration_s
        while self.upkeep.deadline() <= ends:
            desk.now = max(desk.now, self.upkeep.deadline())
            self.upkeep.on_time()
        desk.now = ends
        sent = [send for send in desk.post.flush() if isinstance(send.message, Offer)]
        return [(send.to, item) for send in sent for item in send.message.items]

    def has_archived(
        self, number: int, *, lasts_s: float = DAY_S, holders: tuple[NodeId, ...] = (A, B)
    ) -> JobId:
        """A job of these with this last day is over, and on the disk here."""
        record = make_record(job_id(number), holders, lasts_s=lasts_s)
        record = settled(decided(record, State.EXPIRED, firm=True, at=WALL))
        row = Row(record.id, encode(record), None)
        self.disk.write([StoredRow(row, A, True, record.state, "echo", "default")])
        return record.id

    def has_spare_copy(self, holder: NodeId) -> JobId:
        """Of a job that is over, and that this node comes last in rank for."""
        ranking = self.view.ranking()
        job = next(job for job in map(job_id, range(100)) if ranking.rank(job)[-1] == A)
        self.desk.table.put(settled(decided(make_record(job, (holder,)), State.EXPIRED, firm=True, at=WALL)))
        return job

    def has_ended(self, *holders: NodeId) -> None:
        """A job of these is over, and on its way to the disk here."""
        record = decided(make_record(JOB, holders), State.EXPIRED, firm=True, at=WALL)
        self.desk.table.put(settled(record))
        self.desk.table.flush()


def test_who_begins_to_take_jobs_gets_the_copies_of_a_holder_that_nobody_knows() -> None:
    walker = Walker(Newcomers(A, {A: Standing.LIVING, D: Standing.LIVING}))
    walker.view.leaving.add(D)
    walker.upkeep.members_changed(frozenset((D,)))
    assert walker.offered_in(300.0) == set()
    walker.has_ended(A, B)
    walker.upkeep.react([JOB])
    assert walker.offered_in(300.0) == set()  # there is nobody else
    walker.view.leaving.clear()
    walker.upkeep.members_changed(frozenset((D,)))
    assert walker.offered_in(5.0) == {D}


def test_a_holder_that_dies_a_second_time_is_stood_in_for_after_that() -> None:
    walker = Walker(StillView(A, {A: Standing.LIVING, B: Standing.GONE, D: Standing.LIVING}))
    walker.has_ended(A, B)
    walker.upkeep.members_changed(frozenset((B,)))
    assert walker.offered_in(20.0) == set()
    walker.view.since[B] = 20.0
    assert walker.offered_in(29.0) == set()
    assert walker.offered_in(2.0) == {D}


def test_who_takes_no_copy_is_asked_again_at_the_next_walk_if_nobody_else_does() -> None:
    standings = dict.fromkeys((A, C, D), Standing.LIVING) | {B: Standing.GONE}
    walker = Walker(StillView(A, standings))
    walker.has_ended(A, B)
    record = walker.desk.table.get(JOB)
    assert record is not None
    first, second = walker.desk.next_in_rank(record)
    walker.upkeep.members_changed(frozenset((B,)))
    assert walker.offered_in(31.0) == {first}
    for refusing, asked in ((first, {second}), (second, set()), (first, set())):
        walker.desk.note_closed(refusing, [JOB])
        walker.upkeep.on_expired(refusing, [JOB])
        assert walker.offered_in(10.0) == asked
    walker.upkeep.members_changed(frozenset((B,)))
    assert walker.offered_in(31.0) == {first}


def test_who_takes_no_copy_since_the_last_day_is_over_is_stood_in_for_by_nobody() -> None:
    standings = dict.fromkeys((A, C, D), Standing.LIVING) | {B: Standing.GONE}
    walker = Walker(StillView(A, standings))
    walker.has_ended(A, B)
    walker.upkeep.members_changed(frozenset((B,)))
    (first,) = walker.offered_in(31.0)
    walker.desk.set_wall(WALL + 8 * DAY_S)
    walker.desk.note_closed(first, [JOB])
    walker.upkeep.on_expired(first, [JOB])
    assert walker.offered_in(10.0) == set()
    assert walker.desk.closed == {}


def test_who_was_away_is_asked_anew_though_it_took_no_copy_before() -> None:
    standings = dict.fromkeys((A, C, D), Standing.LIVING) | {B: Standing.GONE}
    walker = Walker(StillView(A, standings))
    walker.has_ended(A, B)
    walker.desk.note_closed(D, [JOB])
    assert walker.desk.closed
    walker.view.standings[D] = Standing.SILENT
    walker.upkeep.members_changed(frozenset((D,)))
    assert walker.desk.closed == {}


def test_a_holder_that_takes_no_copy_is_asked_now_and_then_and_offered_all_once_it_takes_one() -> None:
    """Seeds 2452 and 2964: its clock was far ahead when it came, and nobody came to it again."""
    walker = Walker(StillView(A, {A: Standing.LIVING, B: Standing.LIVING}))
    early, late = walker.has_archived(1, lasts_s=DAY_S), walker.has_archived(2, lasts_s=2 * DAY_S)
    walker.upkeep.members_changed(frozenset((B,)))
    assert {item.job for _, item in walker.offers_in(1.0)} == {early, late}
    walker.upkeep.on_expired(B, [early, late])
    for _ in range(3):
        assert walker.offers_in(4.0) == []
        offers = walker.offers_in(2.0)
        assert [item.job for _, item in offers] == [late], "what it refuses last is asked about"
        walker.upkeep.on_expired(B, [late])
    walker.offers_in(6.0)
    walker.upkeep.on_taken(B, [item for _, item in offers])
    assert {item.job for _, item in walker.offers_in(2.0)} >= {early}


def test_a_holder_is_offered_all_anew_when_the_copy_that_it_is_asked_about_is_gone() -> None:
    """Seed 2964: the clock here was wrong for a moment, and dropped that copy."""
    walker = Walker(StillView(A, {A: Standing.LIVING, B: Standing.LIVING}))
    early, late = walker.has_archived(1, lasts_s=DAY_S), walker.has_archived(2, lasts_s=2 * DAY_S)
    walker.upkeep.members_changed(frozenset((B,)))
    walker.offers_in(1.0)
    walker.upkeep.on_expired(B, [early, late])
    walker.upkeep.forget([late])
    assert early in {item.job for _, item in walker.offers_in(2.0)}


def test_a_walk_is_ahead_of_who_looks_at_its_offers_by_what_that_takes_a_moment_and_goes_on_then() -> None:
    walker = Walker(StillView(A, {A: Standing.LIVING, B: Standing.LIVING}))
    jobs = [walker.has_archived(number, lasts_s=DAY_S) for number in range(1, 3001)]
    walker.upkeep.members_changed(frozenset((B,)))
    seen: set[JobId] = set()
    while offers := walker.offers_in(1.0):
        news = {item.job for _, item in offers} - seen
        assert len(news) <= 600, "a peer that has to do other work, too, is not to fall behind its pings"
        if not news:
            break
        seen |= news
        walker.upkeep.on_taken(B, [item for _, item in offers])
    assert seen == {*jobs}


def test_a_job_that_ended_in_a_smaller_mesh_is_offered_to_the_next_in_rank_as_they_come() -> None:
    walker = Walker(StillView(A, {A: Standing.LIVING}), replicas=3)
    walker.has_ended(A)
    walker.upkeep.react([JOB])
    assert walker.offered_in(300.0) == set()
    for came, is_offered in ((B, True), (C, True), (D, False)):
        walker.view.standings[came] = Standing.LIVING
        walker.upkeep.members_changed(frozenset((came,)))
        record = walker.desk.table.get(JOB)
        assert record is not None
        assert (came in walker.desk.spares(record)) is is_offered, "the test is about another order of ranks"
        offers = walker.offers_in(1.0)
        assert {to for to, _ in offers} == ({came} if is_offered else set())
        walker.upkeep.on_taken(came, [item for _, item in offers])
    assert walker.offered_in(300.0) == set()


def test_who_begins_to_take_jobs_while_a_walk_is_under_way_is_offered_what_that_passed() -> None:
    walker = Walker(StillView(A, dict.fromkeys((A, B), Standing.LIVING)), replicas=2)
    walker.view.leaving.add(B)
    walker.has_archived(1, holders=(A,))
    walker.upkeep.members_changed(frozenset((B,)))
    assert walker.offered_in(walker.desk.settings.retry_s + 0.01) == set()
    walker.view.leaving.clear()
    walker.upkeep.members_changed(frozenset((B,)))
    assert walker.offered_in(5.0) == {B}


def test_a_spare_copy_is_replaced_though_its_node_was_forgotten_before_the_walk() -> None:
    walker = Walker(StillView(A, dict.fromkeys((A, B, D), Standing.LIVING)), replicas=2)
    walker.has_ended(A)
    record = walker.desk.table.get(JOB)
    assert record is not None
    first, second = walker.desk.next_in_rank(record)
    walker.upkeep.members_changed(frozenset((B, D)))
    offers = walker.offers_in(1.0)
    assert {to for to, _ in offers} == {first}
    walker.upkeep.on_taken(first, [item for _, item in offers])
    walker.view.standings[first] = Standing.GONE
    walker.view.since[first] = walker.desk.now
    walker.upkeep.members_changed(frozenset((first,)))
    assert walker.offered_in(29.9) == set()
    del walker.view.standings[first]
    assert walker.offered_in(5.0) == {second}


def test_an_owner_that_is_no_holder_has_spare_copies_made_of_what_it_ends() -> None:
    """B is dead for long, and the walk for its sake is over: nobody else would look at this job again."""
    walker = Walker(StillView(A, dict.fromkeys((A, C, D), Standing.LIVING) | {B: Standing.GONE}))
    walker.desk.now = 100.0
    records = (make_record(job_id(number), (B, C)) for number in range(100))
    record = next(each for each in records if walker.desk.spares(each) == [D])
    record = record._replace(own=record.own._replace(ballot=Ballot(2, A)))
    done = settled(decided(record, State.SUCCEEDED, firm=True, at=WALL))
    walker.desk.table.put(done)
    walker.upkeep.react((done.id,))
    assert walker.offered_in(1.0) == {D}


def test_a_spare_copy_goes_though_who_stood_in_beside_it_is_gone_and_another_does() -> None:
    """Seed 30605: the copy waited for the word of one that was gone, and stayed when that was given up."""
    walker = Walker(Begun(A, dict.fromkeys((A, B, C, D), Standing.LIVING)))
    job = walker.has_spare_copy(B)
    record = walker.desk.table.get(job)
    assert record is not None
    first, second = walker.desk.next_in_rank(record)
    walker.upkeep.react((job,))
    offers = walker.offers_in(0.1)
    assert {to for to, _ in offers} == {B, first}
    walker.upkeep.on_taken(B, [item for _, item in offers])
    walker.view.standings[first] = Standing.SILENT
    offers = walker.offers_in(5.0)
    assert {to for to, _ in offers} == {B, second}, "all that are to have it now are asked"
    for taker in (B, second):
        assert walker.desk.table.get(job) is not None
        walker.upkeep.on_taken(taker, [item for to, item in offers if to == taker])
    assert walker.desk.table.get(job) is None


def test_a_spare_copy_stays_when_who_stood_in_beside_it_is_gone_and_nobody_else_can() -> None:
    walker = Walker(Begun(A, dict.fromkeys((A, B, D), Standing.LIVING)))
    job = walker.has_spare_copy(B)
    walker.upkeep.react((job,))
    offers = walker.offers_in(0.1)
    assert {to for to, _ in offers} == {B, D}
    walker.view.standings[D] = Standing.SILENT
    walker.upkeep.on_taken(B, [item for _, item in offers])
    assert walker.offers_in(60.0) == []
    assert walker.desk.table.get(job) is not None
