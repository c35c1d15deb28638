"""Batches are cut so that every frame is one that a peer takes."""

from __future__ import annotations

import pytest
from job_mesh import WALL, A, B, C, Mesh, job_id

from edgenode.core.post import LIGHT, WRITE_BYTES, Post
from edgenode.core.settings import JobSettings
from edgenode.core.specs import encode_spec
from edgenode.core.types import Ballot, StartToken, State
from edgenode.core.wire import (
    FRAME_BYTES_MAX,
    Acks,
    Digest,
    Expired,
    Mark,
    Marked,
    Marks,
    Offer,
    Result,
    ResultItem,
    Stored,
    Submit,
    Taken,
    Verdict,
)
from edgenode.core.wire import encode as frame_of

COUNT = 100
GREAT = (1 << 62) - 1
JOB, BALLOT = job_id(1), Ballot(GREAT, A)
ITEMS = {
    Acks: Stored(JOB, GREAT, BALLOT, GREAT, firm=True),
    Expired: JOB,
    Marked: JOB,
    Marks: Mark(JOB, GREAT, BALLOT),
    Offer: Digest(JOB, bytes(8)),
    Taken: Digest(JOB, bytes(8)),
}


@pytest.mark.parametrize("kind", LIGHT)
def test_what_is_cut_by_count_alone_is_far_smaller_than_a_message_may_be(kind: type) -> None:
    batch = JobSettings().batch
    post = Post(A, batch=batch)
    for _ in range(2 * batch + 1):
        post.add(B, kind, ITEMS[kind])
    frames = [frame_of(send.message) for send in post.flush()]
    assert [len(frame) < WRITE_BYTES / 4 for frame in frames] == [True, True, True]


@pytest.mark.parametrize(("result", "error"), [(b" " * 500_000, ""), (b"", "x" * 500_000)])
def test_many_large_results_travel_in_frames_that_a_peer_takes(result: bytes, error: str) -> None:
    post = Post(A, batch=1_000)
    verdict = Verdict(State.SUCCEEDED, result, error, -1.0, True)
    jobs = [job_id(number) for number in range(COUNT)]
    for job in jobs:
        post.add(B, Result, ResultItem(job, StartToken(1, B, 1), A, verdict, WALL, lost=False))
    messages = [send.message for send in post.flush()]
    assert [item.job for message in messages for item in message.items] == jobs
    assert max(len(frame_of(message)) for message in messages) < FRAME_BYTES_MAX


def test_many_large_submissions_are_taken_and_travel_in_frames_that_a_peer_takes() -> None:
    mesh = Mesh("abc")
    specs = [mesh.spec("bac", payload=b'{"text":"%s"}' % (b"x" * 500_000)) for _ in range(COUNT)]
    assert sum(len(encode_spec(spec)) for spec in specs) > 2 * FRAME_BYTES_MAX
    request = mesh.submit(C, *specs)
    mesh.run_until(lambda: request in mesh.submits)
    assert all(receipt.error is None for receipt in mesh.submits[request].receipts)
    frames = [len(frame_of(message)) for message in mesh.messages(Submit)]
    assert max(frames) < FRAME_BYTES_MAX
