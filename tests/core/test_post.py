"""Batches are cut so that every frame is one that a peer takes."""

from __future__ import annotations

import pytest
from job_mesh import WALL, A, B, C, Mesh, job_id

from edgenode.core.post import Post
from edgenode.core.specs import encode_spec
from edgenode.core.types import StartToken, State
from edgenode.core.wire import FRAME_BYTES_MAX, Result, ResultItem, Submit, Verdict
from edgenode.core.wire import encode as frame_of

COUNT = 100


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
