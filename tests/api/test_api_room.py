"""`--max-jobs`: what comes in is held against the room that the mesh has, whatever its size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from edgenode.api.app import make_app
from edgenode.api.room import COUNT_S, LAG_MAX_S, Room
from edgenode.core import job_ids
from edgenode.core.errors import NotReady, OutcomeUnknown, Overloaded
from edgenode.core.settings import JobSettings
from edgenode.core.types import Load, MemberState, State
from edgenode.core.view import MemberView
from tests.api.fake import NODES, FakeService

JOB = {"task": "echo"}


class Told(FakeService):
    """Its members tell of as many jobs as `owned` has of each, and were heard `heard_s` ago."""

    def __init__(self) -> None:
        super().__init__()
        self.owned = [0] * len(NODES)
        self.heard_s: float | None = 0.1

    def members(self) -> list[MemberView]:
        return [
            member._replace(
                load=Load(owned, 0, 0, 0, 0), heard_s=None if member.info.id == self.me else self.heard_s
            )
            for member, owned in zip(self._members(), self.owned, strict=True)
        ]


@pytest.fixture
def service() -> Told:
    return Told()


@pytest.fixture
async def http(service: Told, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TestClient]:
    """Of a mesh of five that takes fifty, in which nobody is heard, however slow the test is."""
    service.heard_s = 1e6
    monkeypatch.setattr("edgenode.api.room.LAG_MAX_S", 1e6)
    async with TestClient(TestServer(make_app(service, settings=JobSettings(unfinished_max=10)))) as client:
        yield client


async def test_a_batch_that_has_no_room_is_refused_whole_and_says_what_to_do(
    http: TestClient, service: Told
) -> None:
    service.owned[2] = 45
    answer = await http.post("/v1/jobs", json=[JOB] * 6)
    problem = await answer.json(content_type="application/problem+json")
    assert (answer.status, answer.headers["Retry-After"]) == (429, "5")
    assert (problem["definite"], problem["unfinished"], problem["limit"]) == (True, 45, 50)
    assert "--max-jobs is 10 for each of 5 nodes" in problem["detail"]
    assert "send fewer, or come again when some have ended" in problem["detail"]
    assert service.submissions == []
    assert (await http.post("/v1/jobs", json=[JOB] * 5)).status == 202


async def test_a_batch_that_never_fits_is_to_be_sent_in_parts(http: TestClient, service: Told) -> None:
    answer = await http.post("/v1/jobs", json=[JOB] * 51)
    assert answer.status == 429
    assert "51 more never fit: send fewer at a time" in (await answer.json())["detail"]
    assert service.submissions == []


async def test_what_came_in_since_the_members_told_of_their_jobs_takes_room(
    http: TestClient, service: Told
) -> None:
    statuses = [(await http.post("/v1/jobs", json=[JOB] * 30)).status for _ in range(2)]
    assert statuses == [202, 429]
    assert (await http.post("/v1/jobs", json=[JOB] * 20)).status == 202
    assert (await http.post("/v1/jobs", json=JOB)).status == 429
    assert len(service.records) == 50


async def test_what_is_on_its_way_takes_room(http: TestClient, service: Told) -> None:
    real, go = service.submit, asyncio.Event()

    async def slow(*args: Any, **named: Any) -> Any:
        await go.wait()
        return await real(*args, **named)

    service.submit = slow  # type: ignore[method-assign]
    asked = [asyncio.ensure_future(http.post("/v1/jobs", json=[JOB] * 30)) for _ in range(2)]
    done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    assert [each.result().status for each in done] == [429]
    go.set()
    assert sorted(each.status for each in await asyncio.gather(*asked)) == [202, 429]


@pytest.mark.parametrize(
    ("error", "left"), [(None, 0), (NotReady("drained"), 50), (OutcomeUnknown("late"), 0)]
)
async def test_what_was_refused_for_certain_takes_no_room_and_what_may_be_stored_does(
    http: TestClient, service: Told, error: Any, left: int
) -> None:
    service.receipt_error = error
    await http.post("/v1/jobs", json=[JOB] * 50)
    service.receipt_error = None
    assert (await http.post("/v1/jobs", json=[JOB] * max(1, left))).status == (202 if left else 429)


async def test_refused_items_and_jobs_that_were_there_before_take_no_room(
    http: TestClient, service: Told
) -> None:
    keyed = [{"task": "echo", "idempotency_key": f"key-{n}"} for n in range(25)]
    wrong = [{"task": "no.such"}] * 100
    for _ in range(4):
        answer = await http.post("/v1/jobs", json=keyed + keyed[:5] + wrong)
        assert answer.status == 202
    assert (await http.post("/v1/jobs", json=[JOB] * 25)).status == 202


async def test_retries_of_all_that_fit_go_as_far_as_there_is_room_and_say_where_to_go_on(
    http: TestClient, service: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgenode.api.changing.CHUNK", 10)
    for _ in range(30):
        await http.post("/v1/jobs", json=JOB)
    failed = {job_ids.job_text(job) for job in service.records}
    for job in list(service.records):
        await service.end(job, State.FAILED)
    answer = await http.post("/v1/jobs/retry", json={"queue": "default"})
    body = await answer.json()
    assert (answer.status, len(body["jobs"])) == (202, 20)
    again = {"queue": "default", "cursor": body["next"]}
    answer = await http.post("/v1/jobs/retry", json=again)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "5")
    ids = sorted(failed - {each["retry_of"] for each in body["jobs"]})
    answer = await http.post("/v1/jobs/retry", json={"ids": ids[:5] + sorted(failed - set(ids))})
    assert answer.status == 429  # not even the first ten
    service.heard_s = 0.0  # and all have ended
    rest = await (await http.post("/v1/jobs/retry", json=again)).json()
    assert {each["retry_of"] for each in body["jobs"] + rest["jobs"]} == failed
    assert rest["next"] is None


async def test_of_retries_by_id_each_that_has_no_room_is_told_so(
    http: TestClient, service: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgenode.api.changing.CHUNK", 10)
    await http.post("/v1/jobs", json=[JOB] * 35)
    failed = [job_ids.job_text(job) for job in service.records]
    for job in list(service.records):
        await service.end(job, State.FAILED)
    answer = await http.post("/v1/jobs/retry", json={"ids": failed})
    told = (await answer.json())["jobs"]
    assert answer.status == 202
    assert [each.get("status", 202) for each in told] == [202] * 10 + [429] * 25
    assert [each.get("job", each.get("retry_of")) for each in told] == failed
    assert [each["index"] for each in told[10:]] == list(range(10, 35))


# ------------------------------------------------------------------------------------- how it counts


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def take(room: Room, count: int) -> None:
    room.reserve(count)
    room.settle(count, count)


def test_what_a_node_owns_itself_is_known_at_once() -> None:
    service = Told()
    service.silent = set(NODES[1:])
    clock = Clock()
    room = Room(service, 10, clock)
    for _ in range(3):
        take(room, 10)
        clock.now += 0.001  # and they have ended
    service.owned[0] = 9
    room.check(1)
    with pytest.raises(Overloaded):
        room.check(2)


def test_members_that_were_heard_since_have_told_of_what_came_in() -> None:
    service, clock = Told(), Clock()
    room = Room(service, 10, clock)
    take(room, 50)
    service.owned[1] = 49  # one has ended
    clock.now += 0.05
    with pytest.raises(Overloaded):
        room.check()
    clock.now += 0.1
    room.check()
    with pytest.raises(Overloaded):
        room.check(2)


@pytest.mark.parametrize("heard_s", [1_000.0, None])
def test_members_that_are_hardly_ever_heard_do_not_keep_jobs_out_for_ever(heard_s: float | None) -> None:
    service, clock = Told(), Clock()
    service.heard_s = heard_s
    room = Room(service, 10, clock)
    take(room, 50)
    clock.now += LAG_MAX_S - 0.01
    with pytest.raises(Overloaded):
        room.check()
    clock.now += 0.02
    room.check(50)


def test_with_room_enough_members_are_counted_a_few_times_a_second_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service, clock, counts = Told(), Clock(), []
    real = service.members
    monkeypatch.setattr(service, "members", lambda: counts.append(1) or real())
    room = Room(service, 1_000, clock)
    for _ in range(100):
        take(room, 1)
    assert len(counts) == 1
    clock.now += COUNT_S
    room.check()
    assert len(counts) == 2


def test_the_dead_take_none() -> None:
    service = Told()
    service.silent = {NODES[4]}
    assert service.members()[4].state is MemberState.DEAD
    room = Room(service, 10, Clock())
    room.check(40)
    with pytest.raises(Overloaded):
        room.check(41)
