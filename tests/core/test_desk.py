"""The table of records, what leaves it and when; and how batches are cut."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from job_mesh import WALL, A, B, C, Disk, job_id, make_desk, make_record, make_spec

from edgenode.core.desk import News
from edgenode.core.job_bytes import decode, encode
from edgenode.core.job_ids import keyed_job_id
from edgenode.core.jobs import Note, Record, decided, new_record, settled, shrunk, with_note
from edgenode.core.post import size_of
from edgenode.core.signals import Log, Persist, Row, Send, StoredRow
from edgenode.core.specs import encode_spec
from edgenode.core.table import Lead, Table
from edgenode.core.types import Ballot, Promise, StartToken, State
from edgenode.core.view import Standing
from edgenode.core.wire import (
    CATCH_UP_BYTES,
    FRAME_BYTES_MAX,
    Copies,
    Grant,
    GrantItem,
    Promised,
    Promises,
    Refusal,
    Refused,
    Wanted,
    Write,
)
from edgenode.core.wire import (
    encode as frame_of,
)

JOB = job_id(1)
HOLDERS = (A, B, C)


def ended(record: Record) -> Record:
    return settled(decided(record, State.SUCCEEDED, firm=True, at=WALL, result=b"1"))


def noted(record: Record, kind: str) -> Record:
    return with_note(record, Note(WALL, kind, B, ""))


def flush(table: Table, disk: Disk) -> int:
    """Make durable what changed; the number of that Persist."""
    persist = table.flush()
    assert persist is not None
    disk.write(persist.rows)
    return persist.number


# ---------------------------------------------------------------------------------------------- news


def test_news_tells_each_job_once_in_order() -> None:
    news = News()
    for number in (3, 1, 3, 2):
        news.add(job_id(number))
    assert news
    assert news.take() == [job_id(3), job_id(1), job_id(2)]
    assert not news
    assert news.take() == []


# -------------------------------------------------------------------------------------- leaving memory


def test_a_settled_record_leaves_memory_when_it_is_durable_and_is_still_found() -> None:
    disk = Disk()
    table = Table(disk)
    record = ended(make_record(JOB, HOLDERS))
    table.put(record)
    number = flush(table, disk)
    assert table.peek(JOB) == record
    table.persisted(number)
    assert table.peek(JOB) is None
    assert len(table) == 0
    assert table.get(JOB) == record
    assert table.get_many((JOB, job_id(2))) == {JOB: record}


def test_an_unsettled_record_stays_in_memory() -> None:
    disk = Disk()
    table = Table(disk)
    table.put(make_record(JOB, HOLDERS))
    table.persisted(flush(table, disk))
    assert table.peek(JOB) is not None
    assert [record.id for record in table.unsettled()] == [JOB]


def test_a_record_that_changed_after_its_persist_is_not_evicted_by_it() -> None:
    disk = Disk()
    table = Table(disk)
    record = ended(make_record(JOB, HOLDERS))
    table.put(record)
    number = flush(table, disk)
    table.put(noted(record, "later"))
    table.persisted(number)
    assert table.peek(JOB) == noted(record, "later")


def test_a_record_whose_second_persist_is_under_way_is_not_evicted_by_the_first() -> None:
    disk = Disk()
    table = Table(disk)
    record = ended(make_record(JOB, HOLDERS))
    table.put(record)
    first = flush(table, disk)
    table.put(noted(record, "later"))
    persist = table.flush()  # ordered, not durable: the disk still has the earlier row
    assert persist is not None
    table.persisted(first)
    assert table.get(JOB) == noted(record, "later")
    disk.write(persist.rows)
    table.persisted(persist.number)
    assert table.peek(JOB) is None
    assert table.get(JOB) == noted(record, "later")


def test_the_promise_of_an_archived_row_is_not_lowered_when_news_of_it_is_stored() -> None:
    record = ended(make_record(JOB, HOLDERS))
    promise = Promise(0, Ballot(9, C))
    disk = Disk()
    disk.write([StoredRow(Row(JOB, encode(record), promise), A, True, "succeeded", "echo", "default")])
    desk = make_desk(A, B, C, archive=disk)
    desk.merge(noted(record, "news"))
    flush(desk.table, disk)
    assert disk.rows[JOB].row.promise == promise
    assert decode(disk.rows[JOB].row.blob) == noted(record, "news")


def test_a_marker_of_a_lower_ballot_does_not_lower_the_promise() -> None:
    """It takes the place of the copy of a provisional owner, as a whole; with a key that is no other life of
    the job (seed 12252)."""
    disk, key = Disk(), "once"
    desk = make_desk(A, B, C, archive=disk)
    record = make_record(keyed_job_id(key), HOLDERS, key=key)
    marker = shrunk(ended(record))
    desk.merge(record._replace(own=record.own._replace(ballot=Ballot(2, C))))
    flush(desk.table, disk)
    desk.merge(marker)
    flush(desk.table, disk)
    assert desk.table.peek(record.id) == marker
    assert desk.table.promise(record.id) == Promise(0, Ballot(2, C))
    assert disk.rows[record.id].row.promise == Promise(0, Ballot(2, C))


def test_a_promise_outlives_a_restart_without_any_record() -> None:
    disk = Disk()
    table = Table(disk)
    promise = Promise(0, Ballot(4, C))
    table.give_promise(JOB, promise)
    flush(table, disk)
    assert disk.rows[JOB].row == Row(JOB, b"", promise)
    reborn = Table(disk)
    reborn.load(disk.unsettled())
    assert reborn.promise(JOB) == promise
    assert reborn.get(JOB) is None


def test_a_promise_equal_to_the_records_ballot_needs_no_room_of_its_own() -> None:
    disk = Disk()
    table = Table(disk)
    table.put(make_record(JOB, HOLDERS))
    table.give_promise(JOB, Promise(0, Ballot(1, A)))
    flush(table, disk)
    assert disk.rows[JOB].row.promise is None
    assert table.promise(JOB) == Promise(0, Ballot(1, A))


def test_a_promise_never_falls() -> None:
    table = Table(Disk())
    table.give_promise(JOB, Promise(0, Ballot(4, C)))
    with pytest.raises(AssertionError):
        table.give_promise(JOB, Promise(0, Ballot(3, C)))


def test_who_promised_a_higher_ballot_leads_no_longer() -> None:
    desk = make_desk(A, B, C)
    record = make_record(JOB, HOLDERS)
    desk.table.put(record)
    desk.table.leads[JOB] = Lead(record.ballot, True, set(HOLDERS))
    assert desk.leading(JOB)
    desk.table.give_promise(JOB, Promise(0, Ballot(2, B)))
    assert not desk.leading(JOB)


def test_jobs_are_indexed_by_the_owner_that_their_record_names_until_they_are_settled() -> None:
    table = Table(Disk())
    record = make_record(JOB, HOLDERS)
    table.put(record)
    assert list(table.by_owner[A]) == [JOB]
    moved = record._replace(own=record.own._replace(ballot=Ballot(2, B)))
    table.put(moved)
    assert A not in table.by_owner
    assert list(table.by_owner[B]) == [JOB]
    table.put(ended(moved))
    assert B not in table.by_owner


def test_a_damaged_row_does_not_vote() -> None:
    disk = Disk()
    disk.lost.add(JOB)
    table = Table(disk)
    assert not table.may_vote(JOB)
    assert table.may_vote(job_id(2))


# -------------------------------------------------------------------------------------------- merging


def test_merging_tells_only_of_what_is_new() -> None:
    desk = make_desk(A, B, C)
    record = make_record(JOB, HOLDERS)
    desk.merge(record)
    assert desk.merged.take() == [JOB]
    desk.flush()
    desk.merge(decode(encode(record)))
    assert not desk.merged
    assert desk.flush() == []


def test_a_damaged_copy_from_a_peer_is_left_out_and_said() -> None:
    desk = make_desk(A, B, C)
    good = make_record(JOB, HOLDERS)
    bad_spec = make_record(job_id(2), HOLDERS)._replace(spec=b"\x01")
    assert [desk.read(blob) for blob in (b"nonsense", encode(bad_spec), encode(good))] == [None, None, good]
    assert [effect.kind for effect in desk.flush() if isinstance(effect, Log)] == ["damaged-copy"] * 2


def test_a_result_that_gave_way_to_another_stays_in_the_history() -> None:
    """Two sides of a cut ended the job each: one result counts, and a person can still see that both did."""
    record = make_record(JOB, HOLDERS)
    moved = record._replace(own=record.own._replace(ballot=Ballot(2, B)))
    mine = decided(record, State.FAILED, firm=False, at=WALL, error="mine")
    other = decided(moved, State.SUCCEEDED, firm=True, at=WALL, result=b"1")
    desk = make_desk(A, B, C)
    desk.merge(mine)
    joined = desk.merge(other)
    assert joined.outcome == other.outcome
    assert [note.detail.split()[0] for note in joined.history if note.kind == "superseded"] == ["failed"]
    again = desk.merge(mine)  # and again: nothing new
    assert again == joined


def test_a_submission_waits_for_as_many_disks_as_asked_but_no_more_than_live() -> None:
    desk = make_desk(A, B, C)
    view = desk.view
    plain = make_record(JOB, HOLDERS)
    all_three = make_record(JOB, HOLDERS, acks=3)
    assert (desk.acks_needed(plain), desk.acks_needed(all_three)) == (2, 3)
    view.standings[B] = Standing.SILENT  # type: ignore[attr-defined]
    assert (desk.acks_needed(plain), desk.acks_needed(all_three)) == (2, 2)
    view.standings[C] = Standing.UNKNOWN  # type: ignore[attr-defined]
    assert (desk.acks_needed(plain), desk.acks_needed(all_three)) == (1, 1)


# -------------------------------------------------------------------------------------- what goes out


def test_what_must_be_on_disk_comes_before_everything_that_may_be_said() -> None:
    desk = make_desk(A, B, C)
    desk.post.add(B, Wanted, JOB)
    desk.log("kind", "text")
    desk.merge(make_record(JOB, HOLDERS))
    effects = desk.flush()
    assert isinstance(effects[0], Persist)
    assert not any(isinstance(effect, Persist) for effect in effects[1:])
    assert any(isinstance(effect, Send) for effect in effects[1:])


def test_items_for_one_receiver_travel_together_however_many_jobs_they_speak_of() -> None:
    desk = make_desk(A, B, C)
    for number in range(900):
        desk.post.add(B if number % 3 else C, Wanted, job_id(number))
    assert [(send.to, len(send.message.jobs)) for send in desk.post.flush()] == [(C, 300), (B, 600)]  # type: ignore[union-attr]
    assert desk.post.flush() == []


def test_a_batch_has_at_most_so_many_items() -> None:
    desk = make_desk(A, B)
    for number in range(2500):
        desk.post.add(B, Wanted, job_id(number))
    assert [len(send.message.jobs) for send in desk.post.flush()] == [1000, 1000, 500]  # type: ignore[union-attr]


def large(number: int, size: int) -> Record:
    spec = make_spec(job_id(number), payload=b"{" + b" " * size + b"}")
    return new_record(encode_spec(spec), spec.id, HOLDERS, 0.0, WALL)


ITEMS: dict[type, Callable[[Record], object]] = {
    Copies: encode,
    Write: encode,
    Promises: lambda record: Promised(record.id, 0, 2, False, encode(record)),
    Refused: lambda record: Refusal(record.id, 0, record.ballot, Promise(0, record.ballot), encode(record)),
    Grant: lambda record: GrantItem(record.id, StartToken(1, A, 1), 1, encode(record)),
}


@pytest.mark.parametrize("kind", ITEMS, ids=lambda kind: str(kind.__name__))
def test_large_copies_are_cut_into_frames_that_a_peer_takes(kind: type) -> None:
    desk = make_desk(A, B)
    jobs = set()
    for number in range(40):
        record = large(number, 900_000)
        jobs.add(record.id)
        desk.post.add(B, kind, ITEMS[kind](record))
    sent = desk.post.flush()
    frames = [len(frame_of(send.message)) for send in sent]
    assert max(frames) < FRAME_BYTES_MAX / 4
    assert sum(frames) > 40 * 900_000


def test_catch_up_travels_in_pieces_of_about_64_kibibytes() -> None:
    desk = make_desk(A, B)
    for number in range(500):
        desk.post.add(B, Copies, encode(large(number, 1_000)))
    frames = [frame_of(send.message) for send in desk.post.flush()]
    assert all(len(frame) <= CATCH_UP_BYTES + 5_000 for frame in frames)
    assert len(frames) < 20  # ... and not in a message each


def test_every_item_goes_out_once_and_in_order_however_it_was_cut() -> None:
    desk = make_desk(A, B)
    blobs = [encode(large(number, 40_000 * (number % 4))) for number in range(60)]
    for blob in blobs:
        desk.post.add(B, Copies, blob)
    pieces = [send.message.records for send in desk.post.flush()]  # type: ignore[union-attr]
    assert [blob for piece in pieces for blob in piece] == blobs
    assert all(pieces)


def test_a_node_hears_what_it_says_to_itself_without_a_wire() -> None:
    desk = make_desk(A, B)
    desk.post.add(A, Wanted, JOB)
    desk.post.add(B, Wanted, JOB)
    desk.post.send(A, Wanted((job_id(2),)))
    assert desk.post.take_local() == [Wanted((job_id(2),)), Wanted((JOB,))]
    assert [send.to for send in desk.post.flush()] == [B]


def test_the_weight_of_an_item_counts_the_copies_in_it() -> None:
    copy = bytes(5_000)
    assert size_of(copy) == 5_000
    assert size_of(Promised(JOB, 0, 1, False, copy)) >= 5_000
