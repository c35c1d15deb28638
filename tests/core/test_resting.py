"""Jobs that wait leave memory, but for a line each; nobody notices, whatever becomes of them."""

from __future__ import annotations

import random

import pytest
from job_mesh import A, B, C, D, Disk, Mesh, StillView, job_id, let_pass, make_record

from edgenode.core import replication
from edgenode.core.desk import Desk
from edgenode.core.job_bytes import decode
from edgenode.core.jobs import Record, started, write_own
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.signals import RowsDamaged
from edgenode.core.table import Lead, Table
from edgenode.core.types import Ballot, JobId, NodeId, Promise, State
from edgenode.core.view import Standing
from edgenode.core.wire import Stored, Write

HOLDERS = (A, B, C)
JOBS = [job_id(number) for number in range(1, 5)]
HIGHER = Promise(0, Ballot(2, B))
NOTHING_KEPT = Settings(jobs=JobSettings(in_memory=0))


def anybody(record: Record) -> bool:
    return True


def flush(table: Table, disk: Disk) -> int:
    """Write what changed; the number of that Persist."""
    persist = table.flush()
    assert persist is not None
    disk.write(persist.rows)
    return persist.number


def with_jobs(*jobs: JobId, in_memory: int = 0) -> tuple[Table, Disk]:
    """A table with these jobs, all of them durable."""
    disk = Disk()
    table = Table(disk, in_memory=in_memory)
    for job in jobs:
        table.put(make_record(job, HOLDERS))
    table.persisted(flush(table, disk))
    table.rest(anybody)
    return table, disk


def is_resting(table: Table, job: JobId) -> bool:
    return table.resting(job) is not None and table.in_memory(job) is None


def with_a_saved_job() -> tuple[Disk, Table, Record]:
    """A job that waits, and is durable: it may leave memory, of which there is none to spare."""
    disk = Disk()
    table = Table(disk, in_memory=0)
    record = make_record(JOBS[0], HOLDERS)
    table.put(record)
    table.persisted(flush(table, disk))
    return disk, table, record


def test_of_more_jobs_than_are_kept_those_that_were_written_first_leave_memory() -> None:
    table, _ = with_jobs(*JOBS, in_memory=2)
    assert [is_resting(table, job) for job in JOBS] == [True, True, False, False]


def test_a_resting_job_is_found_as_if_it_were_in_memory() -> None:
    table, _ = with_jobs(*JOBS, in_memory=1)
    records = {job: make_record(job, HOLDERS) for job in JOBS}
    assert {job: table.peek(job) for job in JOBS} == records
    assert {job: table.get(job) for job in JOBS} == records
    assert table.get_many(JOBS) == records
    assert {record.id: record for record in table.unsettled()} == records
    assert {*table.unsettled_jobs()} == {*table.owned_by(A)} == {*JOBS}
    assert table.owned_by(B) == []
    assert {table.promise(job) for job in JOBS} == {Promise(0, Ballot(1, A))}
    assert table.holders() == {HOLDERS: 4}
    assert len(table) == 4


def test_to_read_a_resting_job_does_not_bring_it_back_for_good() -> None:
    table, _ = with_jobs(*JOBS)
    assert table.peek(JOBS[0]) is not None
    assert all(is_resting(table, job) for job in JOBS)


def test_all_jobs_of_which_the_same_is_so_share_what_memory_has_of_them() -> None:
    disk = Disk()
    table = Table(disk, in_memory=0)
    for job in JOBS:
        table.put(make_record(job, HOLDERS))
        table.leads[job] = Lead(Ballot(1, A), True, {*HOLDERS})
    table.persisted(flush(table, disk))
    table.rest(anybody)
    assert len({id(table.resting(job)) for job in JOBS}) == 1
    assert len({id(table.leads[job]) for job in JOBS}) == 1
    assert all(table.lead(job) is not None and table.acting(job) is not None for job in JOBS)
    assert table.owned_states() == {State.QUEUED: 4}


def test_what_is_not_on_disk_as_it_is_does_not_leave_memory() -> None:
    disk = Disk()
    table = Table(disk, in_memory=0)
    record = make_record(JOBS[0], HOLDERS)
    table.put(record)
    number = flush(table, disk)
    table.rest(anybody)
    assert table.in_memory(record.id) is record, "its Persist is under way"
    later = write_own(record)
    table.put(later)
    table.persisted(number)
    table.rest(anybody)
    assert table.in_memory(record.id) is later, "it has changed since"
    table.persisted(flush(table, disk))
    table.rest(anybody)
    assert is_resting(table, record.id)
    assert table.peek(record.id) == later


def test_a_job_that_changed_while_it_waited_to_leave_memory_stays() -> None:
    _, table, record = with_a_saved_job()
    table.put(later := write_own(record))
    table.rest(anybody)
    assert table.in_memory(record.id) is later


def test_a_job_that_is_written_again_while_it_waited_to_leave_memory_stays_until_that_is_done() -> None:
    _, table, record = with_a_saved_job()
    table.put(later := write_own(record))
    persist = table.flush()
    assert persist is not None
    table.rest(anybody)
    assert table.peek(record.id) is later


def test_a_job_with_a_promise_beside_its_record_does_not_rest() -> None:
    disk = Disk()
    table = Table(disk, in_memory=0)
    table.put(make_record(JOBS[0], HOLDERS))
    table.give_promise(JOBS[0], HIGHER)
    table.persisted(flush(table, disk))
    table.rest(anybody)
    assert not is_resting(table, JOBS[0])
    assert table.promise(JOBS[0]) == HIGHER


def test_a_promise_about_a_resting_job_is_written_beside_its_record() -> None:
    table, disk = with_jobs(JOBS[0])
    assert is_resting(table, JOBS[0])
    table.give_promise(JOBS[0], HIGHER)
    assert table.promise(JOBS[0]) == HIGHER
    table.persisted(flush(table, disk))
    table.rest(anybody)
    assert table.promise(JOBS[0]) == HIGHER
    reborn = Table(disk, in_memory=0)
    reborn.load(disk.unsettled())
    assert reborn.promise(JOBS[0]) == HIGHER
    assert reborn.peek(JOBS[0]) == make_record(JOBS[0], HOLDERS)


def test_a_resting_job_changes_as_any_other() -> None:
    table, disk = with_jobs(JOBS[0])
    record = table.peek(JOBS[0])
    assert record is not None
    table.put(begun := started(record, runner=A, boot=1, at=1.0))
    assert table.peek(JOBS[0]) is begun
    assert table.unsettled_jobs() == table.owned_by(A) == [JOBS[0]]
    table.persisted(flush(table, disk))
    table.rest(anybody)
    assert table.in_memory(JOBS[0]) is begun, "what runs does not rest"


def test_the_row_of_a_resting_job_is_written_again_whole() -> None:
    table, disk = with_jobs(JOBS[0])
    before = disk.rows[JOBS[0]]
    table.write_again(JOBS[0])
    flush(table, disk)
    assert disk.rows[JOBS[0]] == before


def test_who_has_something_under_way_keeps_a_job_in_memory() -> None:
    disk = Disk()
    table = Table(disk, in_memory=0)
    for job in JOBS:
        table.put(make_record(job, HOLDERS))
    table.persisted(flush(table, disk))
    table.rest(lambda record: record.id != JOBS[0])
    assert [is_resting(table, job) for job in JOBS] == [False, True, True, True]
    table.rest(anybody)
    assert is_resting(table, JOBS[0])


def test_a_resting_job_whose_row_is_damaged_is_lost_and_owned_no_longer() -> None:
    disk = Disk()
    table = Table(disk, in_memory=0)
    table.put(make_record(JOBS[0], HOLDERS))
    table.leads[JOBS[0]] = Lead(Ballot(1, A), True, {*HOLDERS})
    table.persisted(flush(table, disk))
    table.rest(anybody)
    disk.lost.add(JOBS[0])
    assert table.peek(JOBS[0]) is None
    assert table.lead(JOBS[0]) is None
    assert table.take_lost() == [JOBS[0]]
    assert table.unsettled_jobs() == []
    table.put(make_record(JOBS[0], HOLDERS))  # an older copy, maybe
    assert table.lead(JOBS[0]) is None
    table.persisted(flush(table, disk))
    table.rest(anybody)
    assert not is_resting(table, JOBS[0]), "its next damage would not be told of"


def test_of_the_rows_at_a_start_no_more_are_kept_in_memory_than_later() -> None:
    _, disk = with_jobs(*JOBS)
    table = Table(disk, in_memory=2)
    table.load(row for row in disk.unsettled())
    assert [is_resting(table, job) for job in JOBS] == [False, False, True, True]
    assert {*table.unsettled_jobs()} == {*JOBS}


def test_jobs_that_rest_at_all_nodes_are_run_like_others() -> None:
    mesh = Mesh("abc", settings=NOTHING_KEPT)
    specs = mesh.specs(40, "abc")
    mesh.submit(A, *specs)
    tables = [mesh.nodes[name].desk.table for name in HOLDERS]
    mesh.run_until(lambda: any(is_resting(table, spec.id) for table in tables for spec in specs))
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs))
    assert len(mesh.begun) == len(specs)


def test_the_resting_jobs_of_a_dead_owner_are_taken_over() -> None:
    mesh = Mesh("abc", slots={A: 0, B: 0, C: 0}, settings=NOTHING_KEPT)
    specs = mesh.specs(10, "abc")
    mesh.submit(A, *specs)
    mesh.run(5.0)
    assert all(is_resting(mesh.nodes[name].desk.table, spec.id) for name in HOLDERS for spec in specs)
    mesh.kill(A)
    mesh.run_until(lambda: all(mesh.is_firm(B, spec.id) for spec in specs))


def test_a_resting_job_whose_row_is_damaged_at_its_owner_goes_on_elsewhere() -> None:
    mesh = Mesh("abc", slots=0, settings=NOTHING_KEPT)
    spec = mesh.spec("abc")
    mesh.submit(A, spec)
    mesh.run(5.0)
    assert is_resting(mesh.nodes[A].desk.table, spec.id)
    mesh.disks[A].lost.add(spec.id)
    mesh.do(A, RowsDamaged((spec.id,)))
    mesh.run_until(lambda: mesh.is_firm(B, spec.id) or mesh.is_firm(C, spec.id))
    mesh.run_until(lambda: mesh.has(A, spec.id))
    assert not mesh.lead(A, spec.id)


def test_a_holder_that_was_away_when_a_job_came_gets_it_when_it_is_back_though_it_rests() -> None:
    mesh = Mesh("abc", slots=0, settings=NOTHING_KEPT)
    mesh.rule = lambda source, to, message: to != C or not isinstance(message, Write)
    specs = mesh.specs(5, "abc")
    mesh.submit(A, *specs)
    mesh.kill(C)
    mesh.run(5.0)
    assert all(is_resting(mesh.nodes[A].desk.table, spec.id) for spec in specs)
    mesh.rule = let_pass
    mesh.boot(C)
    mesh.run_until(lambda: all(mesh.has(C, spec.id) for spec in specs), limit_s=1.0)


class Owner:
    """A's replication of some jobs that rest there: B has them, C is silent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(replication, "SEEN_AT_ONCE", 2)
        self.view = StillView(A, {A: Standing.LIVING, B: Standing.LIVING, C: Standing.SILENT})
        disk = Disk()
        self.desk = Desk(self.view, NOTHING_KEPT.jobs, disk, random.Random(1))
        self.replication = replication.Replication(self.desk)
        table = self.desk.table
        for job in JOBS:
            record = make_record(job, HOLDERS)
            table.put(record)
            table.leads[job] = Lead(record.ballot, True, {*HOLDERS})
        self.replication.send(JOBS)
        self.replication.on_acks(B, [Stored(job, 0, Ballot(1, A), 0, False) for job in JOBS])
        table.persisted(flush(table, disk))
        table.rest(self.replication.may_rest)
        assert all(is_resting(table, job) for job in JOBS)
        self.desk.post.flush()

    def meet(self, node: NodeId) -> None:
        self.view.standings[node] = Standing.LIVING
        self.replication.members_changed(frozenset((node,)))

    def written_to(self, node: NodeId) -> list[JobId]:
        """What is written when next it is time."""
        self.replication.on_time()
        sent = [
            send for send in self.desk.post.flush() if isinstance(send.message, Write) and send.to == node
        ]
        return [decode(blob).id for send in sent for blob in send.message.records]


def test_resting_jobs_are_looked_at_a_few_at_a_time_when_a_holder_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner = Owner(monkeypatch)
    owner.meet(C)
    assert owner.replication.deadline() <= owner.desk.now
    owner.desk.at_leisure = False  # something else is to be handled first
    assert owner.written_to(C) == []
    owner.desk.at_leisure = True
    assert [owner.written_to(C), owner.written_to(C), owner.written_to(C)] == [JOBS[:2], JOBS[2:], []]
    assert owner.replication.deadline() > owner.desk.now


def test_who_comes_meanwhile_is_looked_for_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Owner(monkeypatch)
    owner.meet(C)
    assert owner.written_to(C) == JOBS[:2]
    owner.replication.members_changed(frozenset((D,)))
    assert {*owner.written_to(C), *owner.written_to(C)} >= {*JOBS[2:]}


def test_a_job_that_rests_no_longer_when_it_is_its_turn_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Owner(monkeypatch)
    owner.meet(C)
    assert owner.replication.holding(JOBS[3]) == (A, B)  # somebody asked
    assert owner.written_to(C) + owner.written_to(C) == JOBS


def test_what_a_disk_that_is_behind_acknowledged_counts_no_longer_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner = Owner(monkeypatch)
    owner.view.behind.add(B)
    owner.replication.members_changed(frozenset((B,)))
    assert [owner.replication.holding(job) for job in JOBS] == [(A,)] * 4
