"""Finished jobs that are written to disks instead of being run."""

from __future__ import annotations

import time
from pathlib import Path

from bench_finished import CHUNK, copies, spread, write

from edgenode.core.job_bytes import decode
from edgenode.core.jobs import Outcome, Record, new_record
from edgenode.core.specs import Options, Spec, decode_spec, encode_spec
from edgenode.core.types import FOREVER, Ballot, JobId, NodeId, StartToken, State
from edgenode.core.wire import Query
from edgenode.shell.store import Store

HOLDERS = tuple(NodeId(letter * 16) for letter in "abc")


def done(number: int) -> Record:
    job = JobId(number.to_bytes(16, "big"))
    spec = Spec(job, "echo", b"{}", time.time(), time.time() + 86_400, Options(queue="bench-1"))
    record = new_record(encode_spec(spec), job, HOLDERS, 0.0, time.time())
    token = StartToken(1, HOLDERS[0], 1)
    outcome = Outcome(
        True, True, Ballot(1, HOLDERS[0]), State.SUCCEEDED, b"1", "", token, HOLDERS[0], time.time()
    )
    return record._replace(outcome=outcome)


def test_jobs_that_were_written_are_found_finished_on_each_disk_and_none_is_taken_up_again(
    tmp_path: Path,
) -> None:
    count = CHUNK + 10
    stores = [Store.open(tmp_path / name) for name in "ab"]
    try:
        write(stores, copies([done(1), done(2)], count))
        found = [
            {row.id: row.blob for row in store.archive().scan(JobId(b""), count + 1)} for store in stores
        ]
        newest = stores[0].search(Query("succeeded", "echo", "", b"", 1)).records
    finally:
        for store in stores:
            store.close()
    assert len(found[0]) == count
    assert found[0] == found[1]
    for job, blob in list(found[0].items())[::500]:
        record = decode(blob)
        assert record.id == job == decode_spec(record.spec).id
        assert record.settled
    assert decode(newest[0]).id == max(found[0])
    again = Store.open(tmp_path / "a")
    try:
        assert not list(again.boot().rows)
        assert again.archive().due(FOREVER, (0.0, JobId(b"")), 1), "retention finds them, too"
    finally:
        again.close()


def test_a_ratio_is_told_with_how_far_its_turns_were_apart() -> None:
    assert spread([1.0, 0.9, 1.2]) == "median of 3 turns, 0.90 to 1.20"
