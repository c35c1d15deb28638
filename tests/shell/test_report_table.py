"""Reports on a real disk: what comes back, what goes with its job, and what a damaged row is taken for."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgenode.core.reports import CHUNK_BYTES_MAX, STARTS_MAX
from edgenode.core.signals import Persist, Row, StoredRow
from edgenode.core.types import JobId, NodeId, StartToken
from edgenode.core.wire import Said
from edgenode.shell.store import Store
from edgenode.shell.store_file import FILE_NAME
from edgenode.sim.shelf import Shelf

OWNER = NodeId("abcdefghijklmnop")
ONE, TWO = JobId(bytes(15) + b"\1"), JobId(bytes(15) + b"\2")
ROW = StoredRow(Row(ONE, b"record", None), OWNER, True, "succeeded", "echo", "default")


def said(number: int, text: bytes = b"", before: int = 0, **more: Any) -> Said:
    token = StartToken(1, OWNER, 1)
    plain = Said(ONE, token, number, OWNER, 1, 1e9 + 0.5, 0.25, "quarter", before, text, b"")
    return plain._replace(**more)


def commit(store: Store, *reports: Said, **more: Any) -> None:
    ended = threading.Event()
    errors: list[Exception | None] = []

    def done(error: Exception | None) -> None:
        errors.append(error)
        ended.set()

    store.commit(Persist((), reports=reports, **more), done)
    assert ended.wait(30)
    assert errors == [None]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path)
    yield opened
    opened.close()


def numbers(store: Store, job: JobId = ONE, *, brief: bool = False) -> list[int]:
    return [each.number for each in store.archive().reports(job, brief=brief)]


def test_reports_come_back_as_they_were_also_after_a_restart(tmp_path: Path) -> None:
    reports = [said(1, b"text \xff"), said(2, before=6, partial=b'{"rows":3}'), said(1, b"other", job=TWO)]
    store = Store.open(tmp_path)
    commit(store, *reports)
    store.close()
    with closing(Store.open(tmp_path)) as again:
        assert again.archive().reports(ONE, brief=False) == reports[:2]
        assert again.archive().reports(TWO, brief=False) == reports[2:]
        assert again.archive().reports(ONE, brief=True) == reports[1:2]


def test_a_report_that_comes_twice_is_there_once(store: Store) -> None:
    commit(store, said(1, b"a"), said(1, b"a"))
    commit(store, said(1, b"a"), said(2, b"b", 1))
    assert numbers(store) == [1, 2]


@pytest.mark.parametrize("how", ["dropped", "silenced"])
def test_reports_go_with_their_job_and_what_comes_after_stays(store: Store, how: str) -> None:
    commit(store, said(1, b"a"), said(1, b"b", job=TWO))
    commit(store, **{how: (ONE,)})
    assert numbers(store) == []
    assert numbers(store, TWO) == [1]
    commit(store, said(2, b"c"))
    assert numbers(store) == [2]


def test_in_one_commit_the_order_of_the_orders_counts(store: Store) -> None:
    entered, leave, ended = threading.Event(), threading.Event(), threading.Event()

    def hold(error: Exception | None) -> None:
        entered.set()
        leave.wait(30)

    store.commit(Persist((ROW,)), hold)
    assert entered.wait(30)
    store.commit(Persist((), reports=(said(1), said(1, job=TWO))), lambda error: None)
    store.commit(Persist((), silenced=(ONE,), dropped=(TWO,)), lambda error: None)
    store.commit(Persist((), reports=(said(2),)), lambda error: ended.set())
    leave.set()
    assert ended.wait(30)
    assert (numbers(store), numbers(store, TWO)) == ([2], [])


def test_a_damaged_report_is_left_out_and_the_others_are_not(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        commit(store, said(1, b"first"), said(2, b"second", 5), said(3, b"third", 11))
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        database.execute("UPDATE reports SET report = x'00' WHERE number = 2")
        database.commit()
    with closing(Store.open(tmp_path)) as store:
        assert numbers(store) == [1, 3]
        assert store.damaged == frozenset(), "the node's vote on the job does not rest on its log"


@pytest.mark.parametrize("seed", range(5))
def test_the_table_keeps_what_the_simulated_disk_keeps(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    shelf = Shelf()
    said_by: dict[StartToken, tuple[int, int]] = {}
    with closing(Store.open(tmp_path)) as store:
        for _ in range(60):
            token = StartToken(dice.randint(1, 2), OWNER, dice.randint(1, STARTS_MAX))
            number, before = said_by.get(token, (0, 0))
            size = dice.choice((0, 5, CHUNK_BYTES_MAX))
            partial = b"[]" if not size and dice.random() < 0.5 else b""
            said_by[token] = number + 1, before + size
            report = said(number + 1, bytes(size), before, token=token, partial=partial)
            if dice.random() < 0.9:  # some get lost
                commit(store, report)
                shelf.write([report], ())
        for brief in (False, True):
            assert store.archive().reports(ONE, brief=brief) == shelf.read(ONE, brief=brief)
