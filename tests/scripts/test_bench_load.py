"""The bench's load believes nobody: what is not settled, not there, or not what was sent is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import bench_load
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from bench_load import Plan

SENT = bench_load.document(100, queue="here")
MESSAGE = SENT["payload"]["message"]


def job(number: int, **changes: Any) -> dict[str, Any]:
    made = {
        "id": f"job-{number}",
        "state": "succeeded",
        "settled": True,
        "starts": 1,
        "result": MESSAGE,
        "finished_at": "1970-01-01T00:00:02.500Z",
        "receipt": {"acks": 2, "nodes": ["a", "b"]},
    }
    return made | changes


class FakeNode:
    """Answers what a test has put into it, and keeps what it was sent."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.bodies: list[Any] = []
        self.answers: list[Any] = []
        self.url = ""

    async def submitted(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        return web.json_response(self.answers.pop(0), status=202)

    async def listed(self, request: web.Request) -> web.Response:
        first = int(request.query.get("cursor", "0"))
        answer = web.json_response({"jobs": self.jobs[first : first + 2]})
        if first + 2 < len(self.jobs):
            answer.headers["Link"] = f'</v1/jobs?queue=here&cursor={first + 2}>; rel="next"'
        return answer

    async def one(self, request: web.Request) -> web.Response:
        return web.json_response(job(1))

    async def about(self, request: web.Request) -> web.Response:
        return web.json_response({"load": {"owned": sum(not each["settled"] for each in self.jobs)}})


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    fake, app = FakeNode(), web.Application()
    app.router.add_post("/v1/jobs", fake.submitted)
    app.router.add_get("/v1/jobs", fake.listed)
    app.router.add_get("/v1/jobs/{id}", fake.one)
    app.router.add_get("/v1/nodes/self", fake.about)
    async with TestServer(app) as server:
        fake.url = str(server.make_url("")).rstrip("/")
        yield fake


def plan(node: FakeNode, **changes: Any) -> Plan:
    made = Plan((node.url,), SENT, clients=1, seconds=60, jobs_max=1)
    return made._replace(**changes)


async def test_all_pages_are_read_and_good_jobs_have_their_end(node: FakeNode) -> None:
    node.jobs = [job(number) for number in range(5)]
    done = await bench_load._finish((node.url,), SENT, 5, began=0.0)
    assert done.finished == {f"job-{number}": 2.5 for number in range(5)}
    assert (done.restarted, done.bad) == (0, Counter())
    assert done.settled_s <= done.read_s


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"settled": False}, "not settled"),
        ({"state": "failed"}, "failed"),
        ({"result": "something else"}, "a wrong result"),
    ],
)
async def test_a_job_that_did_not_end_well_is_told_and_not_counted(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], why: str
) -> None:
    monkeypatch.setattr(bench_load, "DRAIN_S", 0.05)
    node.jobs = [job(0), job(1, **changes), job(2, starts=2)]
    done = await bench_load._finish((node.url,), SENT, 3, began=0.0)
    assert sorted(done.finished) == ["job-0", "job-2"]
    assert (done.restarted, done.bad) == (1, Counter({why: 1}))


@pytest.mark.parametrize(("count", "why"), [(3, "missing"), (1, "too many")])
async def test_other_jobs_than_were_accepted_are_told(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, count: int, why: str
) -> None:
    monkeypatch.setattr(bench_load, "DRAIN_S", 0.05)
    node.jobs = [job(0), job(1)]
    done = await bench_load._finish((node.url,), SENT, count, began=0.0)
    assert done.bad == Counter({why: 1})


async def test_only_what_has_a_receipt_is_accepted_and_only_good_results_are_waits(node: FakeNode) -> None:
    node.answers = [
        {"jobs": [job(0), {"title": "Too many jobs", "status": 429}, job(1, result=None)]},
        {"jobs": [job(2)]},
    ]
    load = await bench_load._submit(plan(node, batch=3, jobs_max=4))
    assert [len(body) for body in node.bodies] == [3, 1], "no more than were asked for"
    assert [sent.id for sent in load.jobs] == ["job-0", "job-1", "job-2"]
    assert load.refused == Counter({"Too many jobs": 1})
    assert len(load.waits_ms) == 2
    assert load.acks == {2}


async def test_no_more_is_sent_than_the_pace_that_is_asked_for(node: FakeNode) -> None:
    node.answers = [job(number) for number in range(1000)]
    load = await bench_load._submit(plan(node, clients=2, seconds=0.19, jobs_max=1000, rate=50.0))
    assert 0 < len(load.jobs) <= 10


async def test_a_read_of_another_job_is_a_failure(node: FakeNode) -> None:
    good, other = f"{node.url}/v1/jobs/job-1", f"{node.url}/v1/jobs/job-2"
    done = await bench_load._read([good, other], clients=1, seconds=0.1)
    assert abs(len(done.latencies_s) - done.failed) <= 1
    assert done.failed > 0
