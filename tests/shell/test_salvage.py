"""What is saved of a store that cannot be trusted, and what its copies cannot do."""

from __future__ import annotations

import errno
import random
import socket
import sqlite3
import time
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from pathlib import Path

import pytest

from edgenode.cli import host
from edgenode.core.types import JobId
from edgenode.shell import salvage
from edgenode.shell.store import Store
from edgenode.shell.store_file import FILE_NAME, Damage, DiskRefused
from tests.shell.test_store import PROMISE, break_page, commit, filled, job, spoil, stored


def saved(folder: Path, distrust: str = "") -> set[JobId]:
    """The jobs in the store that takes the place of a damaged one."""
    store = Store.open_or_renew(folder, distrust=distrust)
    rows = store.archive().scan(JobId(b""), 10_000)
    store.close()
    return {row.id for row in rows}


def pages_of(file: Path, table: str, kind: str) -> list[int]:
    database = sqlite3.connect(file)
    sql = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = ?"
    pages = [page for (page,) in database.execute(sql, (table, kind))]
    database.close()
    return pages


@pytest.mark.parametrize("nth", [0, 7, -1])
def test_the_rows_of_all_other_pages_are_saved(tmp_path: Path, nth: int) -> None:
    file = filled(tmp_path)
    pages = len(pages_of(file, "jobs", "leaf"))
    break_page(file, "jobs", nth % pages)
    found = saved(tmp_path)
    assert 200 - 2 * (200 // pages + 1) <= len(found) < 200


def test_what_lies_between_two_broken_pages_is_saved_too(tmp_path: Path) -> None:
    file = filled(tmp_path)
    pages = len(pages_of(file, "jobs", "leaf"))
    for nth in (3, pages - 4):
        break_page_at(file, pages_of(file, "jobs", "leaf")[nth])
    assert len(saved(tmp_path)) >= 200 - 2 * (200 // pages + 1)


def break_page_at(file: Path, page: int) -> None:
    with file.open("r+b") as opened:
        opened.seek((page - 1) * 4096)
        opened.write(b"\xff" * 64)


def test_a_broken_index_costs_no_row(tmp_path: Path) -> None:
    file = filled(tmp_path)
    break_page(file, "sqlite_autoindex_jobs_1", 0)
    assert len(saved(tmp_path)) == 200


def test_of_a_file_that_is_no_database_nothing_is_saved_and_the_node_begins_anew(tmp_path: Path) -> None:
    file = filled(tmp_path)
    file.write_bytes(b"not a database " * 10_000)
    assert saved(tmp_path) == set()


@pytest.mark.parametrize("broken", [b"tablejobsjobs", b"tablenodenode", b"CREATE TABLE node"])
def test_no_job_is_lost_to_schema_bytes_that_are_no_text(tmp_path: Path, broken: bytes) -> None:
    file = filled(tmp_path)
    content = file.read_bytes()
    assert broken in content
    file.write_bytes(content.replace(broken, b"\x81" * len(broken)))
    assert len(saved(tmp_path)) == 200


@pytest.mark.parametrize("seed", range(12))
def test_a_node_starts_whatever_bytes_its_file_begins_with(tmp_path: Path, seed: int) -> None:
    file = filled(tmp_path)
    draw = random.Random(seed)
    with file.open("r+b") as opened:
        for _ in range(3):
            opened.seek(draw.randrange(4096))
            opened.write(draw.choice([draw.randbytes, lambda size: b"\x81" * size])(64))
    store = Store.open_or_renew(tmp_path)
    commit(store, stored(1000, b"new"))
    store.close()


@pytest.mark.parametrize("chunk", range(15, 30))
def test_pages_that_lead_back_are_not_walked_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    file = filled(tmp_path)
    first, *others = pages_of(file, "jobs", "leaf")
    content = file.read_bytes()
    early = content[(first - 1) * 4096 : first * 4096]
    with file.open("r+b") as opened:
        for page in others[5:8]:
            opened.seek((page - 1) * 4096)
            opened.write(early)
    monkeypatch.setattr(salvage, "CHUNK", chunk)
    found = list(islice(salvage.readable_rows(file), 1000))
    assert 150 < len(found) <= 200 + 3 * 5


def test_a_row_that_is_not_what_was_written_is_not_saved(tmp_path: Path) -> None:
    filled(tmp_path)
    spoil(tmp_path, "UPDATE jobs SET blob = x'00' WHERE id = ?", job(7))
    assert saved(tmp_path, "a test says so") == {job(number) for number in range(1, 201)} - {job(7)}


@pytest.mark.parametrize(
    "spoiled",
    ["due = x''", "due = 'soon'", "owner = x'ff'", "state = 7", "task = zeroblob(9)", "queue = 1e300"],
)
def test_columns_that_no_checksum_speaks_for_never_keep_a_store_from_opening(
    tmp_path: Path, spoiled: str
) -> None:
    filled(tmp_path)
    spoil(tmp_path, f"UPDATE jobs SET {spoiled} WHERE id = ?", job(7))
    found = saved(tmp_path, "a test says so")
    assert found | {job(7)} == {job(number) for number in range(1, 201)}


def test_saved_rows_bring_neither_identity_nor_promises_but_the_peers(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    commit(store, stored(1, b"copy", promise=PROMISE), stored(2, b"", promise=PROMISE))
    store.set_identity(b"old")
    store.remember((b"a",))
    store.close()
    store = Store.open_or_renew(tmp_path, distrust="a test says so")
    assert store.boot().identity is None
    assert store.boot().peers == (b"a",)
    assert [(row.id, row.promise) for row in store.boot().rows] == [(job(1), None)]
    store.close()


@pytest.mark.parametrize("spoiled", [b"\xa5" * 50, b"\x93", "\u00e9", 7], ids=repr)
def test_peers_that_cannot_be_read_are_left_behind(tmp_path: Path, spoiled: object) -> None:
    filled(tmp_path)
    spoil(tmp_path, "UPDATE node SET value = ? WHERE name = 'peers'", spoiled)
    store = Store.open_or_renew(tmp_path, distrust="a test says so")
    assert store.boot().peers == ()
    store.close()


def test_what_its_log_held_is_saved(tmp_path: Path) -> None:
    """A killed process leaves a log that was never folded into the file."""
    store = Store.open(tmp_path)
    commit(store, stored(1))
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (FILE_NAME, FILE_NAME + "-wal"):
        (copy / name).write_bytes((tmp_path / name).read_bytes())
    store.close()
    assert saved(copy, "a test says so") == {job(1)}


def test_saving_that_was_interrupted_is_done_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = filled(tmp_path)
    real = salvage.readable_rows

    def interrupted(aside: Path) -> object:
        for number, row in enumerate(real(aside)):
            if number == 50:
                raise DiskRefused("full")
            yield row

    monkeypatch.setattr(salvage, "readable_rows", interrupted)
    with pytest.raises(DiskRefused):
        Store.open_or_renew(tmp_path, distrust="a test says so")
    monkeypatch.undo()
    assert file.exists()
    assert len(saved(tmp_path)) == 200
    assert len(Store.open(tmp_path).aside) == 1


async def test_a_disk_that_is_full_while_rows_are_saved_costs_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node sets its file aside while it runs, and tries again until there is room."""
    filled(tmp_path)
    real, tries = salvage.readable_rows, 0

    def interrupted(aside: Path) -> object:
        nonlocal tries
        tries += 1
        for number, row in enumerate(real(aside)):
            if number == 50 and tries < 4:
                raise DiskRefused("full") if tries % 2 else OSError(errno.ENOSPC, "full")
            yield row

    monkeypatch.setattr(salvage, "readable_rows", interrupted)
    monkeypatch.setattr(host, "OPEN_AGAIN_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as api:
        store = await host._open(tmp_path, api, "a test says so")
    assert tries == 4
    assert len(store.archive().scan(JobId(b""), 1000)) == 200
    assert len(store.aside) == 1
    store.close()


def test_what_was_set_aside_last_is_saved_also_where_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small board begins in 1970 at each start."""
    for days, number in ((20_000, 1), (20_000, 2), (1, 3), (2, 4)):
        monkeypatch.setattr(
            time, "gmtime", lambda days=days: datetime.fromtimestamp(86_400 * days).timetuple()
        )
        store = Store.open(tmp_path)
        commit(store, stored(number))
        store.close()
        found = saved(tmp_path, "a test says so")
        assert job(number) in found
        assert len(found) == number
    names = [path.name for path in Store.open(tmp_path).aside]
    assert len(names) == 4


def test_a_start_that_ended_right_after_the_file_was_set_aside_is_made_good(tmp_path: Path) -> None:
    file = filled(tmp_path)
    salvage.set_aside(file)
    assert len(saved(tmp_path)) == 200


@pytest.mark.parametrize(
    "ruin", [lambda file: None, lambda file: file.write_bytes(b"x" * 9000)], ids=["", "x"]
)
def test_files_set_aside_are_never_overwritten(tmp_path: Path, ruin: Callable[[Path], object]) -> None:
    told: list[Damage] = []
    for _ in range(3):
        file = filled(tmp_path)
        ruin(file)
        Store.open_or_renew(tmp_path, told.append, distrust="a test says so").close()
    store = Store.open(tmp_path)
    assert len(store.aside) == 3
    assert len(set(store.aside)) == 3
    store.close()
