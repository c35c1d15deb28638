"""The contract of the store: what `done` means, what is refused, and what a damaged disk cannot do."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from edgenode.core.signals import ClaimRow, Persist, Row, StoredRow
from edgenode.core.types import (
    NO_BALLOT,
    Ballot,
    JobId,
    KeyUse,
    NodeId,
    Past,
    Promise,
    Word,
    are_copies,
    next_boot,
    starts_of,
)
from edgenode.core.wire import Query
from edgenode.shell import job_search, store_file
from edgenode.shell import store as module
from edgenode.shell.job_table import HEALTH, UPSERTS
from edgenode.shell.store import Store, UnsettledRows
from edgenode.shell.store_file import (
    FILE_NAME,
    Damage,
    DiskRefused,
    FolderRefused,
    StoreDamaged,
    StoreLocked,
    StoreOfOtherVersion,
)

OWNER = NodeId("abcdefghijklmnop")
EVERYTHING = Query("", "", "", b"", 1000)
PROMISE = Promise(2, Ballot(7, OWNER))


def job(number: int) -> JobId:
    return JobId(number.to_bytes(16, "big"))


def stored(
    number: int,
    blob: bytes = b"record",
    *,
    promise: Promise | None = None,
    settled: bool = False,
    state: str = "queued",
    task: str = "echo",
    queue: str = "default",
) -> StoredRow:
    return StoredRow(Row(job(number), blob, promise), OWNER, settled, state, task, queue)


def commit(store: Store, *rows: StoredRow, **more: Any) -> None:
    """Commit and wait until it is durable; raise what `done` was given."""
    ended = threading.Event()
    errors: list[Exception | None] = []

    def done(error: Exception | None) -> None:
        errors.append(error)
        ended.set()

    store.commit(Persist(rows, **more), done)
    assert ended.wait(30)
    if errors[0] is not None:
        raise errors[0]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "node")
    yield opened
    opened.close()


@contextmanager
def held_writer(store: Store) -> Iterator[None]:
    """Keep the writer thread inside a `done`, so that what is committed meanwhile waits together."""
    entered, leave = threading.Event(), threading.Event()

    def done(error: Exception | None) -> None:
        entered.set()
        leave.wait(30)

    store.commit(Persist(()), done)
    assert entered.wait(30)
    try:
        yield
    finally:
        leave.set()


def spoil(folder: Path, sql: str, *values: object) -> None:
    """Change the file behind the store's back."""
    database = sqlite3.connect(folder / FILE_NAME)
    with database:
        database.execute(sql, values)
    database.close()


# ------------------------------------------------------------------------------------------ contents


def test_what_was_committed_is_there_after_a_reopening(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "node")
    commit(store, stored(1, b"one"), stored(2, b"two", promise=PROMISE), stored(3, b"three", settled=True))
    store.close()

    store = Store.open(tmp_path / "node")
    assert tuple(store.boot().rows) == (Row(job(1), b"one", None), Row(job(2), b"two", PROMISE))
    assert store.archive().get([job(3), job(4)]) == {job(3): Row(job(3), b"three", None)}
    store.close()


def test_a_row_may_hold_a_promise_without_a_record(store: Store) -> None:
    commit(store, stored(1, b"", promise=PROMISE, state=""))
    assert store.archive().get([job(1)]) == {job(1): Row(job(1), b"", PROMISE)}
    assert store.search(EVERYTHING).records == ()


def test_the_archive_sees_a_commit_as_soon_as_done_is_called(store: Store) -> None:
    seen: list[bytes] = []
    ended = threading.Event()

    def done(error: Exception | None) -> None:
        seen.append(store.archive().get([job(1)])[job(1)].blob)
        ended.set()

    store.commit(Persist((stored(1, b"x"),)), done)
    assert ended.wait(30)
    assert seen == [b"x"]


def test_a_later_write_replaces_the_row_and_its_promise(store: Store) -> None:
    commit(store, stored(1, b"old", promise=PROMISE))
    commit(store, stored(1, b"new"))
    assert store.archive().get([job(1)]) == {job(1): Row(job(1), b"new", None)}


def test_of_two_rows_for_one_job_in_one_commit_the_last_counts(store: Store) -> None:
    commit(store, stored(1, b"old"), stored(2), stored(1, b"new"))
    assert store.archive().get([job(1)])[job(1)].blob == b"new"


@pytest.mark.parametrize("count", [1, 31, 32, 33, 63, 543, 544, 1300])
def test_a_batch_of_any_size_is_stored_whole(store: Store, count: int) -> None:
    commit(store, *(stored(number, str(number).encode()) for number in range(count)))
    found = store.archive().get([job(number) for number in range(count)])
    assert {row.id: row.blob for row in found.values()} == {job(n): str(n).encode() for n in range(count)}


def test_every_prepared_statement_fits_the_limits_of_sqlite() -> None:
    database = sqlite3.connect(":memory:")
    limit = database.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
    assert max(sql.count("?") for sql in UPSERTS.values()) <= limit
    database.close()


def test_a_scan_goes_through_all_rows_in_id_order(store: Store) -> None:
    commit(store, *(stored(number) for number in (5, 3, 9, 1)))
    archive = store.archive()
    assert [row.id for row in archive.scan(job(0), 2)] == [job(1), job(3)]
    assert [row.id for row in archive.scan(job(3), 10)] == [job(5), job(9)]
    assert archive.scan(job(9), 10) == []


def test_a_search_goes_from_new_to_old_and_on_from_its_cursor(store: Store) -> None:
    commit(store, *(stored(number, str(number).encode()) for number in range(1, 6)))
    assert store.search(EVERYTHING._replace(limit=2))[:2] == ((b"5", b"4"), False)
    assert store.search(EVERYTHING._replace(limit=2, after=job(4)))[:2] == ((b"3", b"2"), False)
    assert store.search(EVERYTHING._replace(limit=2, after=job(2)))[:2] == ((b"1",), True)
    assert store.search(EVERYTHING._replace(limit=5))[:2] == ((b"5", b"4", b"3", b"2", b"1"), True)


def test_a_search_filters_by_state_task_and_queue(store: Store) -> None:
    commit(
        store,
        stored(1, b"1", state="failed", task="echo", queue="a"),
        stored(2, b"2", state="failed", task="sleep", queue="a"),
        stored(3, b"3", state="queued", task="echo", queue="b"),
    )
    assert store.search(Query("failed", "", "", b"", 9)).records == (b"2", b"1")
    assert store.search(Query("", "echo", "", b"", 9)).records == (b"3", b"1")
    assert store.search(Query("failed", "echo", "a", b"", 9)).records == (b"1",)
    assert store.search(Query("failed", "echo", "b", b"", 9))[:2] == ((), True)


def test_a_search_that_takes_too_long_ends_as_a_part(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEARCH_STEPS", 10)
    commit(store, *[stored(number) for number in range(100)])
    rare = Query("", "", "nosuch", b"", 1000)
    assert store.search(rare, 0.0)[:2] == ((), False)
    assert store.search(rare, 60.0)[:2] == ((), True)
    assert len(store.search(EVERYTHING).records) == 100


@pytest.mark.parametrize(
    "query", [Query("", "", "rare", b"", 50), Query("queued", "scarce", "", b"", 50)], ids=["queue", "two"]
)
def test_a_search_that_runs_out_of_time_says_how_far_it_looked_though_it_found_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, query: Query
) -> None:
    """So that whoever asks goes on from there, and comes to the end of any table."""
    monkeypatch.setattr(module, "SEARCH_STEPS", 10)
    monkeypatch.setattr(job_search, "WINDOW_ROWS", 10)
    rare = {3: b"old", 87: b"new"}
    commit(
        store,
        *[stored(n, rare.get(n, b"other"), queue="rare" if n in rare else "many") for n in range(100)],
        *[stored(n, rare[n], queue="rare", task="scarce") for n in rare],
    )
    ticks = count()
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(ticks)))
    parts = [store.search(query, 20.0)]
    while not parts[-1].complete:
        assert parts[-1].upto, "each part comes further than a window"
        parts.append(store.search(query._replace(after=parts[-1].upto), 20.0))
    assert len(parts) > 2
    assert any(not part.records for part in parts)
    found = [record for part in parts for record in part.records]
    assert list(dict.fromkeys(found)) == [b"new", b"old"]


@pytest.mark.parametrize("query", [Query("queued", "", "", b"", 50), Query("", "nosuch", "", b"", 50)])
def test_a_search_by_state_or_task_looks_at_no_other_rows(store: Store, query: Query) -> None:
    sql, values = job_search.statement(query, job_search.Window(b"", b""), HEALTH)
    with closing(sqlite3.connect(store._file)) as database:
        plan = " ".join(row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", values))
    assert plan.startswith("SEARCH jobs USING INDEX")
    assert "TEMP" not in plan


def test_a_search_answer_is_bounded_in_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEARCH_BYTES_MAX", 100)
    commit(store, *(stored(number, bytes(60)) for number in range(4)))
    assert store.search(EVERYTHING)[:2] == ((bytes(60), bytes(60)), False)


# -------------------------------------------------------------------------------- order and batches


def test_done_is_called_in_the_order_of_the_commits(store: Store) -> None:
    order: list[int] = []
    ended = threading.Event()

    def told(number: int) -> Callable[[Exception | None], None]:
        def done(error: Exception | None) -> None:
            order.append(number)
            if number == 99:
                ended.set()

        return done

    for number in range(100):
        store.commit(Persist((stored(number),)), told(number))
    assert ended.wait(30)
    assert order == list(range(100))


def test_what_waits_together_is_committed_together(store: Store, tmp_path: Path) -> None:
    """Group commit: at the first `done` the last of them is on disk too."""
    watcher = sqlite3.connect(tmp_path / "node" / FILE_NAME, check_same_thread=False)
    counts: list[int] = []
    ended = threading.Event()

    def done(error: Exception | None) -> None:
        counts.append(watcher.execute("SELECT count(*) FROM jobs").fetchone()[0])
        if len(counts) == 50:
            ended.set()

    with held_writer(store):
        for number in range(50):
            store.commit(Persist((stored(number),)), done)
    assert ended.wait(30)
    assert counts == [50] * 50
    watcher.close()


def test_a_slow_disk_refuses_nothing_and_says_how_much_it_has_to_do(store: Store) -> None:
    outcomes: list[Exception | None] = []
    with held_writer(store):
        for number in range(30):
            store.commit(Persist((stored(number, bytes(100_000)),)), outcomes.append)
        assert store.pending_bytes > 3_000_000
    commit(store, stored(1000))
    assert outcomes == [None] * 30
    assert store.pending_bytes == 0


def test_the_log_is_folded_into_the_file_as_it_grows(store: Store, tmp_path: Path) -> None:
    log = tmp_path / "node" / (FILE_NAME + "-wal")
    for start in range(0, 12_000, 500):
        commit(store, *(stored(number, bytes(200)) for number in range(start, start + 500)))
    # 12,000 rows of 200 bytes are over 3 MB of pages; a log that is folded begins again at its start.
    assert log.stat().st_size < 2_500_000


def test_closing_writes_what_is_queued_and_may_be_repeated(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    outcomes: list[Exception | None] = []
    for number in range(300):
        store.commit(Persist((stored(number),)), outcomes.append)
    store.close()
    store.close()
    assert outcomes == [None] * 300

    store.commit(Persist((stored(1),)), outcomes.append)
    assert isinstance(outcomes[-1], DiskRefused)
    again = Store.open(tmp_path)
    assert len(list(again.boot().rows)) == 300
    again.close()


# ------------------------------------------------------------------------------------- the node itself


def test_each_opening_is_a_life_of_its_own_that_knows_those_before(tmp_path: Path) -> None:
    lives: Past = ()
    for starts in (1, 2, 3):
        store = Store.open(tmp_path)
        assert store.boot().past == lives
        assert starts_of(store.boot().boot) == starts
        lives = (*lives, Word(store.boot().boot, 0))
        store.close()
    assert list(lives) == sorted(set(lives))


def test_two_copies_of_a_folder_begin_different_lives(tmp_path: Path) -> None:
    Store.open(tmp_path / "a").close()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    one, other = Store.open(tmp_path / "a"), Store.open(tmp_path / "b")
    assert are_copies(one.boot().boot, other.boot().boot)
    assert one.boot().past == other.boot().past
    one.close()
    other.close()


def test_a_disk_knows_how_many_writes_of_each_life_it_has(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    for number in (1, 2, 3):
        commit(store, stored(number), number=number)
    store.close()
    shutil.copytree(tmp_path, tmp_path / "backup")
    store = Store.open(tmp_path)
    assert [life.written for life in store.boot().past] == [3]
    commit(store, stored(4), number=1)
    store.close()
    assert [life.written for life in Store.open(tmp_path).boot().past] == [3, 1]
    assert [life.written for life in Store.open(tmp_path / "backup").boot().past] == [3]


def test_a_disk_that_is_behind_stays_so_and_begins_above_the_life_that_others_know(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    assert store.boot().behind == ""
    known = next_boot(next_boot(store.boot().boot, 7), 7)
    store.fall_behind(known, "a later start of it is remembered")
    store.close()
    for _ in range(2):
        store = Store.open(tmp_path)
        assert store.boot().behind == "a later start of it is remembered"
        assert store.boot().boot > known
        store.close()


def test_a_new_identity_keeps_the_jobs_and_has_no_earlier_lives(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.set_identity(b"old")
    commit(store, stored(1), claims=(claim(1), claim(2)), number=1)
    store.remember([b"peer"])
    store.fall_behind(store.boot().boot, "it was put back")
    store.close()
    store = Store.open(tmp_path)
    store.renew(b"new")
    assert (store.boot().behind, store.boot().past) == ("", ())
    first = store.boot().boot
    assert starts_of(first) == 1
    store.close()
    store = Store.open(tmp_path)
    assert (store.boot().identity, store.boot().behind) == (b"new", "")
    assert store.boot().past == (Word(first, 0),)
    assert [row.id for row in store.boot().rows] == [job(1)]
    assert store.boot().peers == (b"peer",)
    assert store.archive().claim_count() == 0, "each copy of a disk would say the same of a key"
    store.close()


def test_what_is_remembered_of_other_lives_survives(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    assert store.boot().words == b""
    store.remember_words(b"packed")
    store.close()
    assert Store.open(tmp_path).boot().words == b"packed"


def test_settings_of_queues_are_kept_with_a_write_and_stay_until_there_are_others(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    assert store.boot().queues == b""
    commit(store, queues=b"first", number=1)
    commit(store, stored(1), number=2)
    store.close()
    assert Store.open(tmp_path).boot().queues == b"first"


def test_a_folder_without_its_log_knows_of_fewer_writes_than_it_told(tmp_path: Path) -> None:
    """Somebody tidies up: what was not yet folded into the file is gone, and with it the count."""
    store = Store.open(tmp_path)
    commit(store, stored(1), number=1)
    store.close()
    store = Store.open(tmp_path)
    commit(store, stored(2), number=1)
    shutil.copytree(tmp_path, tmp_path / "killed")  # as kill -9 leaves it
    store.close()
    for file in (tmp_path / "killed").glob("jobs.db-*"):
        file.unlink()
    found = Store.open(tmp_path / "killed").boot()
    assert len(found.past) == 1, "the second start, which was told, is not in the file"


def test_the_time_is_kept_with_the_rows_and_alone(tmp_path: Path) -> None:
    for rows, wall in (((stored(1),), 5.5), ((), 7.25), ((stored(2),), 0.0)):
        store = Store.open(tmp_path)
        commit(store, *rows, clock=wall)
        store.close()
    store = Store.open(tmp_path)
    assert store.boot().clock == 7.25
    assert len(list(store.boot().rows)) == 2
    store.close()


def test_identity_and_peers_survive(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    assert store.boot().identity is None
    assert store.boot().peers == ()
    store.set_identity(b"secret")
    assert store.boot().identity == b"secret"
    store.remember((b"a", b"b"))
    store.remember((b"c",))
    store.close()

    store = Store.open(tmp_path)
    assert store.boot().identity == b"secret"
    assert store.boot().peers == (b"c",)
    store.close()


def test_only_the_owner_of_the_process_can_read_the_store(store: Store, tmp_path: Path) -> None:
    commit(store, stored(1))
    assert stat.S_IMODE((tmp_path / "node").stat().st_mode) == 0o700
    for file in (tmp_path / "node").glob("jobs.db*"):
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


def test_a_second_opener_of_a_folder_is_told_who_has_it(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreLocked, match=str(os.getpid())):
        Store.open(tmp_path / "node")


def test_a_full_disk_keeps_no_folder_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as full:
        full.setattr(os, "write", refused)
        Store.open(tmp_path / "other").close()
    Store.open(tmp_path / "other").close()


def test_a_refused_opener_leaves_the_first_one_alone(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreLocked):
        Store.open(tmp_path / "node")
    commit(store, stored(1))
    assert starts_of(store.boot().boot) == 1


# --------------------------------------------------------------------------------------------- damage


def test_a_row_with_a_wrong_checksum_is_not_handed_out(tmp_path: Path) -> None:
    told: list[Damage] = []
    store = Store.open(tmp_path, told.append)
    commit(store, stored(1, b"good", settled=True), stored(2, b"good", settled=True))
    spoil(tmp_path, "UPDATE jobs SET blob = ? WHERE id = ?", b"evil", job(1))

    assert store.archive().get([job(1), job(2)]) == {job(2): Row(job(2), b"good", None)}
    assert [row.id for row in store.archive().scan(job(0), 1)] == [job(2)]
    assert store.search(EVERYTHING)[:2] == ((b"good",), True)
    assert store.damaged == {job(1)}
    assert len(told) == 1, "reported once, however often it is met"
    assert told[0].jobs == (job(1),)
    store.close()


@pytest.mark.parametrize("column", ["blob", "promise"])
def test_bytes_that_became_text_are_damage_and_no_refusal_of_the_disk(
    tmp_path: Path, column: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bit of a record says which of the two a value is."""
    for settled in (False, True):
        folder = tmp_path / str(settled)
        store = Store.open(folder)
        for number in (1, 2):
            commit(store, stored(number, b"\xff\xfe", promise=PROMISE, settled=settled))
        store.close()
        spoil(folder, f"UPDATE jobs SET {column} = CAST({column} AS TEXT) WHERE id = ?", job(1))
        monkeypatch.setattr(store_file, "CHECK_BYTES_MAX", 0)
        store = Store.open_or_renew(folder)
        assert set(store.archive().get([job(1), job(2)])) == {job(2)}
        assert [row.id for row in store.archive().scan(JobId(b""), 10)] == [job(2)]
        store.check()
        commit(store, stored(3))
        store.close()


def test_an_id_that_became_text_costs_no_job(tmp_path: Path) -> None:
    filled(tmp_path)
    spoil(tmp_path, "UPDATE jobs SET id = CAST(id AS TEXT) WHERE id = ?", job(7))
    store = Store.open_or_renew(tmp_path)
    assert len(store.archive().scan(JobId(b""), 1000)) == 200
    store.close()


@pytest.mark.parametrize("name", ["boots", "lives", "identity", "peers", "words", "behind", "queues"])
def test_a_setting_that_became_text_keeps_no_node_from_starting(tmp_path: Path, name: str) -> None:
    filled(tmp_path)
    sql = "INSERT OR REPLACE INTO node VALUES (?, CAST(x'ff81fe' AS TEXT))"
    spoil(tmp_path, sql, name)
    store = Store.open_or_renew(tmp_path)
    commit(store, stored(1000))
    store.close()


def test_a_promise_that_was_changed_on_disk_is_damage(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    commit(store, stored(1, b"good", promise=PROMISE))
    spoil(tmp_path, "UPDATE jobs SET promise = NULL")
    assert store.archive().get([job(1)]) == {}
    assert store.damaged == {job(1)}
    store.close()


def claim(number: int, expires_at: float = 100.0, ballot: Ballot = NO_BALLOT) -> ClaimRow:
    return ClaimRow(job(number), ballot, ballot, KeyUse((OWNER, NodeId("other")), "this"), expires_at)


def test_claims_survive_a_reopening_and_the_last_word_counts(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        commit(store, claims=tuple(map(claim, range(200))))
        commit(store, stored(7), claims=(claim(7, ballot=PROMISE.ballot),))
        assert store.archive().claim_count() == 200
    with closing(Store.open(tmp_path)) as store:
        archive = store.archive()
        asked = [job(number) for number in range(300)]
        found = archive.claims(asked)
        assert found == {job(n): claim(n) for n in range(200)} | {job(7): claim(7, ballot=PROMISE.ballot)}
        assert archive.get([job(7)])
        assert archive.claims([]) == {}


def test_claims_are_deleted_by_their_last_day(store: Store) -> None:
    commit(store, claims=(claim(1, 10.0), claim(2, 20.0)))
    commit(store, claims=(claim(3, 30.0),), forget_claims_before=20.0)
    assert store.archive().claims([job(1), job(2), job(3)]).keys() == {job(2), job(3)}
    assert store.archive().claim_count() == 2


@pytest.mark.parametrize("column", ["claim = x'93'", "expires_at = 5.0", "checksum = 1"])
def test_a_damaged_claim_is_not_handed_out_and_its_job_not_voted_on(tmp_path: Path, column: str) -> None:
    with closing(Store.open(tmp_path)) as store:
        commit(store, claims=(claim(1), claim(2)))
    spoil(tmp_path, f"UPDATE claims SET {column} WHERE id = ?", job(1))
    with closing(Store.open(tmp_path)) as store:
        archive = store.archive()
        assert archive.claims([job(1), job(2)]).keys() == {job(2)}
        assert archive.damaged == {job(1)}


def test_a_finished_job_whose_row_says_unfinished_is_damage_and_the_other_way_round(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    commit(store, stored(1), stored(2, settled=True))
    store.close()
    spoil(tmp_path, "UPDATE jobs SET settled = NOT settled")
    store = Store.open(tmp_path)
    assert tuple(store.boot().rows) == ()
    assert store.damaged == set(store.boot().damaged) == {job(1), job(2)}
    store.close()


def test_that_a_row_was_damaged_is_remembered_after_a_healthy_copy_came(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    commit(store, stored(1, b"good"))
    spoil(tmp_path, "UPDATE jobs SET checksum = checksum + 1")
    assert store.archive().get([job(1)]) == {}
    commit(store, stored(1, b"fetched"))
    assert store.archive().get([job(1)])[job(1)].blob == b"fetched"
    store.close()

    store = Store.open(tmp_path)
    assert store.damaged == {job(1)}
    assert tuple(store.boot().rows) == (Row(job(1), b"fetched", None),)
    assert store.boot().damaged == (), "there is nothing to fetch any more"
    store.close()


def test_a_row_found_damaged_at_boot_is_left_out_and_remembered(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    commit(store, stored(1, b"good"), stored(2, b"good"))
    store.close()
    spoil(tmp_path, "UPDATE jobs SET blob = x'00' WHERE id = ?", job(1))

    told: list[Damage] = []
    store = Store.open(tmp_path, told.append)
    assert [row.id for row in store.boot().rows] == [job(2)]
    assert store.damaged == {job(1)}
    assert store.boot().damaged == (job(1),)
    assert [damage.jobs for damage in told] == [(job(1),)]
    store.close()


def break_page(file: Path, table: str = "jobs", nth: int = 5) -> None:
    """Overwrite the beginning of one leaf page of a table or an index."""
    content = bytearray(file.read_bytes())
    database = sqlite3.connect(file)
    (page,) = database.execute(
        "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' LIMIT 1 OFFSET ?", (table, nth)
    ).fetchone()
    database.close()
    content[(page - 1) * 4096 : (page - 1) * 4096 + 64] = b"\xff" * 64
    file.write_bytes(content)


def filled(folder: Path, *, unfinished: int = 2) -> Path:
    """A closed store with 200 jobs, some 5 to a page, each so-many-th unfinished; returns its file."""
    store = Store.open(folder)
    commit(store, *(stored(n, bytes(700), settled=n % unfinished != 0) for n in range(1, 201)))
    store.set_identity(b"old")
    store.remember((b"a", b"b"))
    store.close()
    return folder / FILE_NAME


def test_a_page_that_breaks_while_a_store_is_open_hides_its_own_rows_and_is_told_as_more_than_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = filled(tmp_path, unfinished=999)
    monkeypatch.setattr(store_file, "CHECK_BYTES_MAX", 0)  # as if it were too large to be checked when opened
    break_page(file)
    told: list[Damage] = []
    store = Store.open(tmp_path, told.append)
    rows = store.archive().scan(JobId(b""), 1000)
    assert 150 < len(rows) < 200
    assert len(store.archive().get([job(number) for number in range(1, 201)])) == len(rows)
    assert len(store.damaged) == 200 - len(rows)
    assert () in {damage.jobs for damage in told}
    store.close()


def test_a_write_to_a_broken_page_says_that_the_store_is_damaged_and_not_merely_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = filled(tmp_path, unfinished=999)
    monkeypatch.setattr(store_file, "CHECK_BYTES_MAX", 0)
    for nth in range(20):
        break_page(file, "jobs", nth)
    store = Store.open(tmp_path)
    with pytest.raises(StoreDamaged):
        commit(store, *(stored(number, b"new") for number in range(1, 201)))
    store.close()


@pytest.mark.parametrize("table", ["jobs", "sqlite_autoindex_jobs_1"])
def test_a_large_file_is_checked_while_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    file = filled(tmp_path, unfinished=999)
    monkeypatch.setattr(store_file, "CHECK_BYTES_MAX", 0)
    told: list[Damage] = []
    store = Store.open(tmp_path, told.append)
    store.check()
    assert told == []
    store.close()
    break_page(file, table, 1)
    store = Store.open(tmp_path, told.append)
    store.check()
    assert told
    assert told[-1].jobs == ()
    store.close()


def test_a_flipped_bit_in_a_large_file_is_found_by_its_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, unfinished=999)
    spoil(tmp_path, "UPDATE jobs SET blob = x'00' WHERE id = ?", job(100))
    monkeypatch.setattr(store_file, "CHECK_BYTES_MAX", 0)
    store = Store.open(tmp_path)
    assert store.damaged == frozenset()
    store.check()
    assert store.damaged == {job(100)}
    store.close()


@pytest.mark.parametrize("name", [FILE_NAME, FILE_NAME + "-wal"])
@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_file_that_goes_away_while_it_is_used_takes_no_more_writes(
    tmp_path: Path, name: str, is_replaced: bool
) -> None:
    store = Store.open(tmp_path / "node")
    commit(store, stored(1))
    file = tmp_path / "node" / name
    content = file.read_bytes()
    file.unlink()
    if is_replaced:
        file.with_name("other").write_bytes(content)
        file.with_name("other").rename(file)
    with pytest.raises(StoreDamaged, match="deleted or replaced"):
        commit(store, stored(2))
    store.close()


def test_a_check_tells_that_the_file_is_gone_and_makes_no_other(tmp_path: Path) -> None:
    damages: list[Damage] = []
    store = Store.open(tmp_path / "node", damages.append)
    commit(store, stored(1))
    store.check()
    assert not damages
    (tmp_path / "node" / FILE_NAME).unlink()
    store.check()
    assert [damage.jobs for damage in damages] == [()]
    assert not (tmp_path / "node" / FILE_NAME).exists()
    store.close()


def test_reading_a_closed_store_is_a_bug_and_no_damage(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    commit(store, stored(1))
    archive = store.archive()
    store.close()
    with pytest.raises(sqlite3.ProgrammingError):
        archive.get([job(1)])
    assert store.damaged == frozenset()
    assert store.search(EVERYTHING)[:2] == ((), False)


@pytest.mark.parametrize(
    ("what", "ruin"),
    [
        ("cut off", lambda file: os.truncate(file, 6000)),
        (
            "cut off in its last third",
            lambda file: os.truncate(file, file.stat().st_size * 2 // 3 // 4096 * 4096),
        ),
        ("with a broken page", lambda file: break_page(file)),
        ("with a broken index", lambda file: break_page(file, "sqlite_autoindex_jobs_1", 0)),
        ("overwritten", lambda file: file.write_bytes(b"not a database " * 1000)),
        ("without its tables", lambda file: spoil(file.parent, "DROP TABLE jobs")),
        ("without its counter", lambda file: spoil(file.parent, "DELETE FROM node")),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused_and_not_replaced(
    tmp_path: Path, what: str, ruin: Callable[[Path], object]
) -> None:
    file = filled(tmp_path)
    ruin(file)
    before = file.read_bytes()

    with pytest.raises(StoreDamaged):
        Store.open(tmp_path)
    assert file.read_bytes() == before
    with pytest.raises(StoreDamaged):  # the lock was let go, and it is still damaged
        Store.open(tmp_path)

    told: list[Damage] = []
    store = Store.open_or_renew(tmp_path, told.append)
    assert store.boot().identity is None
    assert [damage.jobs for damage in told] == [(), ()]
    (aside,) = store.aside
    assert aside.name in told[0].text
    store.close()
    assert Store.open(tmp_path).close() is None  # the new one is whole


def test_another_program_s_file_is_left_alone(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / FILE_NAME).execute("CREATE TABLE t(x)").connection.close()
    with pytest.raises(FolderRefused, match="--data-dir"):
        Store.open_or_renew(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE_NAME, "lock"]


def killed(folder: Path, commits: int) -> Path:
    """A folder as kill -9 leaves it after so many commits; returns the file."""
    store = Store.open(folder / "living")
    store.set_identity(b"old")
    for number in range(1, commits + 1):
        commit(store, stored(number, bytes(5000)), number=number)
    shutil.copytree(folder / "living", folder / "killed")
    store.close()
    return folder / "killed" / FILE_NAME


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 0.999])
def test_a_log_that_is_cut_off_is_not_taken_for_a_shorter_one(tmp_path: Path, share: float) -> None:
    log = killed(tmp_path, 20).with_name(FILE_NAME + "-wal")
    os.truncate(log, int(log.stat().st_size * share))
    with pytest.raises(StoreDamaged, match="log"):
        Store.open(log.parent)


@pytest.mark.parametrize("commits", [0, 1, 5])
def test_a_log_that_is_gone_is_not_taken_for_an_empty_one(tmp_path: Path, commits: int) -> None:
    killed(tmp_path, commits).with_name(FILE_NAME + "-wal").unlink()
    with pytest.raises(StoreDamaged, match="log"):
        Store.open(tmp_path / "killed")


@pytest.mark.parametrize("kept", [0, 3, 19])
def test_a_note_that_a_power_cut_set_back_or_spoiled_is_no_alarm(tmp_path: Path, kept: int) -> None:
    note = killed(tmp_path, 3).with_name(FILE_NAME + "-written")
    os.truncate(note, kept)
    store = Store.open(tmp_path / "killed")
    assert len(list(store.boot().rows)) == 3
    store.close()


def test_a_store_that_got_another_identity_opens_without_alarm(tmp_path: Path) -> None:
    for _ in range(3):
        store = Store.open(tmp_path)
        commit(store, stored(1), number=5)
        store.close()
    store = Store.open(tmp_path)
    store.renew(b"new")
    shutil.copytree(tmp_path, tmp_path.with_name("killed"))
    store.close()
    Store.open(tmp_path.with_name("killed")).close()


def test_a_log_without_its_file_is_not_taken_for_a_new_store(tmp_path: Path) -> None:
    (tmp_path / (FILE_NAME + "-wal")).write_bytes(b"promises")
    with pytest.raises(StoreDamaged):
        Store.open(tmp_path)
    assert not (tmp_path / FILE_NAME).exists()


def test_a_start_that_was_killed_before_its_schema_is_just_a_new_store(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()
    store = Store.open(tmp_path)
    assert starts_of(store.boot().boot) == 1
    store.close()


def test_a_newer_format_is_left_alone(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    spoil(tmp_path, "PRAGMA user_version = 99")
    with pytest.raises(StoreOfOtherVersion, match="99"):
        Store.open(tmp_path)


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderRefused, match="file"):
        Store.open(tmp_path / "file" / "node")


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """No file grows: the full disk that needs no disk (Python ignores SIGXFSZ)."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / (FILE_NAME + "-wal")).stat().st_size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_full_disk_refuses_a_commit_whole(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    commit(store, stored(1, b"before"))
    with full_disk(tmp_path), pytest.raises(DiskRefused):
        commit(store, stored(1, b"after"), stored(2, bytes(100_000)))
    assert {row.blob for row in store.archive().get([job(1), job(2)]).values()} == {b"before"}
    store.close()


def test_after_a_refused_commit_all_are_refused_until_the_store_has_recovered(tmp_path: Path) -> None:
    """What comes next follows from what was refused, however small it is."""
    store = Store.open(tmp_path)
    commit(store, stored(1, b"before"), stored(3, b"settled", settled=True))
    with full_disk(tmp_path):
        with pytest.raises(DiskRefused):
            commit(store, stored(2, bytes(100_000)))
        with pytest.raises(DiskRefused):
            store.recover()
    with pytest.raises(DiskRefused):
        commit(store, stored(1, b"after"))
    boot = store.recover()
    assert (starts_of(boot.boot), tuple(boot.rows)) == (2, (Row(job(1), b"before", None),))
    commit(store, stored(2, b"room"))
    assert store.archive().get([job(2)])[job(2)].blob == b"room"
    store.close()
    again = Store.open(tmp_path)
    assert starts_of(again.boot().boot) == 3
    assert {row.blob for row in again.boot().rows} == {b"before", b"room"}
    again.close()


def test_a_store_recovers_only_where_there_is_more_than_a_little_room(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    with full_disk(tmp_path), pytest.raises(DiskRefused):
        commit(store, stored(2, bytes(100_000)))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (store_file.ROOM_BYTES // 2, old[1]))
    try:
        with pytest.raises(DiskRefused):
            store.recover()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert starts_of(store.recover().boot) == 2
    assert not (tmp_path / store_file.ROOM_NAME).exists()
    store.close()


def test_a_read_that_a_full_disk_prevents_is_no_damage() -> None:
    error = sqlite3.OperationalError("disk I/O error")
    for code, expected in (
        (sqlite3.SQLITE_IOERR_READ, True),
        (sqlite3.SQLITE_CORRUPT, True),
        (sqlite3.SQLITE_IOERR_SHMSIZE, False),
        (sqlite3.SQLITE_IOERR_WRITE, False),
        (sqlite3.SQLITE_FULL, False),
    ):
        error.sqlite_errorcode = code
        assert store_file.is_damage(error) is expected, code


# ------------------------------------------------------------------------------------------- kill -9

WRITER = """
import sys
from edgenode.core.signals import Persist, Row, StoredRow
from edgenode.shell.store import Store
store = Store.open(sys.argv[1])
def told(number):
    def done(error):
        assert error is None
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
    return done
number = 0
while True:
    if store.pending_bytes > 100_000:
        continue
    rows = tuple(
        StoredRow(Row(job.to_bytes(16, "big"), bytes(150), None), "o", False, "queued", "echo", "q")
        for job in range(number * 10, number * 10 + 10)
    )
    store.commit(Persist(rows), told(number))
    number += 1
"""


@pytest.mark.parametrize("told_before_kill", [1, 40, 700])
def test_nothing_that_was_told_done_is_lost_by_kill_9(tmp_path: Path, told_before_kill: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(told_before_kill)]
        process.send_signal(signal.SIGKILL)
        told += [int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        process.wait()

    assert told == list(range(len(told)))
    store = Store.open(tmp_path)
    numbers = {int.from_bytes(row.id, "big") for row in store.boot().rows}
    assert numbers >= set(range(10 * len(told)))
    assert len(numbers) % 10 == 0, "a commit is there whole or not at all"
    assert store.damaged == frozenset()
    store.close()


# ------------------------------------------------------------------------------------------ retention


def test_what_is_due_comes_in_the_order_of_its_day(store: Store) -> None:
    commit(store, *(stored(number, settled=True)._replace(due=100.0 - number) for number in range(1, 6)))
    commit(store, stored(6), stored(7, settled=True)._replace(due=95.0))
    archive = store.archive()
    first = archive.due(97.0, (0.0, JobId(b"")), 3)
    assert first == [(95.0, job(5)), (95.0, job(7)), (96.0, job(4))]
    assert archive.due(97.0, first[-1], 3) == [(97.0, job(3))]
    assert archive.due(94.0, (0.0, JobId(b"")), 3) == []
    assert archive.due(97.0, (95.0, job(5)), 1) == [(95.0, job(7))]


def test_dropped_rows_are_gone_with_their_promises(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    commit(store, stored(1, promise=PROMISE), stored(2), stored(3))
    commit(store, stored(4), dropped=(job(1), job(3)), forgotten=77.0)
    assert set(store.archive().get([job(number) for number in range(1, 5)])) == {job(2), job(4)}
    store.close()
    store = Store.open(tmp_path)
    assert [row.id for row in store.boot().rows] == [job(2), job(4)]
    assert store.boot().forgotten == 77.0
    store.close()


def test_of_a_drop_and_a_write_in_one_commit_the_later_one_counts(store: Store) -> None:
    commit(store, stored(1), stored(2))
    ended = threading.Event()
    with held_writer(store):
        store.commit(Persist((), dropped=(job(1),)), lambda error: None)
        store.commit(Persist((stored(1, b"again"), stored(2, b"later"))), lambda error: None)
        store.commit(Persist((), dropped=(job(2),)), lambda error: ended.set())
    assert ended.wait(10)
    found = store.archive().get([job(1), job(2)])
    assert {key: row.blob for key, row in found.items()} == {job(1): b"again"}


def size_on_disk(folder: Path) -> int:
    return (folder / FILE_NAME).stat().st_size


def test_jobs_that_come_and_go_take_no_more_room_than_those_that_are_there(tmp_path: Path) -> None:
    """Ten times as many jobs as are kept at one time: the pages of the dropped are used again."""
    store = Store.open(tmp_path)
    sizes = []
    for turn in range(10):
        numbers = range(turn * 500, turn * 500 + 500)
        gone = tuple(job(number - 500) for number in numbers if number >= 500)
        commit(store, *(stored(number, os.urandom(1000)) for number in numbers), dropped=gone)
        store._fold("TRUNCATE")
        sizes.append(size_on_disk(tmp_path))
    assert max(sizes) < 3 * sizes[0]
    assert sizes[-1] <= 1.02 * sizes[3]  # a page more or less is where the last commit happened to end
    store.close()


def test_a_file_that_was_large_gives_room_back_as_its_jobs_are_dropped(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    numbers = range(4000)
    for start in range(0, 4000, 500):
        commit(store, *(stored(number, os.urandom(4000)) for number in range(start, start + 500)))
    store._fold("TRUNCATE")
    large = size_on_disk(tmp_path)
    for start in range(0, 4000, 100):
        commit(store, dropped=tuple(job(number) for number in numbers[start : start + 100]))
    store.close()  # the writer is through with what follows the last commit
    assert large > 15_000_000
    assert size_on_disk(tmp_path) < large / 2


def test_a_store_from_before_the_first_release_is_left_alone(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    spoil(tmp_path, "PRAGMA user_version = 1")
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(StoreOfOtherVersion, match="format 1"):
        Store.open(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_closing_does_not_wait_for_a_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes minutes to look through a large file."""
    begun = threading.Event()

    def check_for_ever(database: sqlite3.Connection, file: Path) -> None:
        database.create_function("begun", 0, begun.set)
        steps = "WITH RECURSIVE n(i) AS (SELECT begun() UNION ALL SELECT 1 FROM n)"
        database.execute(f"{steps} SELECT count(*) FROM n").fetchall()

    monkeypatch.setattr("edgenode.shell.store.check_structure", check_for_ever)
    told: list[Damage] = []
    store = Store.open(tmp_path, told.append)
    checking = threading.Thread(target=store.check, daemon=True)
    checking.start()
    assert begun.wait(10)
    store.close()
    checking.join(10)
    assert not checking.is_alive()
    assert told == []


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), OSError(errno.EIO, "broken")])
def test_a_recovery_that_cannot_be_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    store = Store.open(tmp_path)

    def missing() -> None:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(store, "_missing", missing)
        with pytest.raises(DiskRefused):
            store.recover()
    store.recover()
    commit(store, stored(1))
    store.close()


def test_who_waits_for_a_writer_that_ended_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path)

    def wrong(orders: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(store, "_transact", wrong)
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    with pytest.raises(DiskRefused):
        store.set_identity(b"new")
    store.close()


def test_unsettled_rows_are_walked_once_also_where_pages_lead_back(tmp_path: Path) -> None:
    rows = UnsettledRows(LeadsBack(), tmp_path / FILE_NAME)  # type: ignore[arg-type]
    with pytest.raises(StoreDamaged):
        list(islice(rows, 1000))


class LeadsBack:
    """A file whose rows come in a circle."""

    def execute(self, sql: str, values: tuple[int]) -> LeadsBack:
        self._after = values[0]
        return self

    def fetchall(self) -> list[tuple[object, ...]]:
        fields = (job(1), 0, None, 0, b"")
        return [(number % 7, *fields) for number in range(self._after + 1, self._after + 5)]
