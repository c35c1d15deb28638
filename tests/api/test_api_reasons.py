"""A job that nobody can run says why."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from edgenode.core import job_ids
from edgenode.core.types import Load, MemberState, State
from edgenode.core.view import MemberView
from tests.api.fake import NODES, FakeService


async def reason(http: TestClient, service: FakeService, **fields: Any) -> str | None:
    answer = await http.post("/v1/jobs", json={"task": "echo"} | fields)
    job = (await answer.json())["id"]
    found: str | None = (await (await http.get(f"/v1/jobs/{job}")).json())["waiting_for"]
    return found


async def test_a_job_that_is_about_to_start_waits_for_nothing(http: TestClient, service: FakeService) -> None:
    assert await reason(http, service) is None
    assert await reason(http, service, requires={"zone": "x"}) is None


async def test_a_job_whose_labels_no_node_has_says_so(http: TestClient, service: FakeService) -> None:
    told = await reason(http, service, requires={"gpu": "yes", "zone": "x"})
    assert told == "a node with gpu=yes, zone=x: none of 5 that are ready and have the task has that"


async def test_a_job_whose_task_no_node_has_any_more_says_so(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "known_tasks", lambda: frozenset({"gone"}))
    told = await reason(http, service, task="gone")
    assert told == "a node with the task 'gone': none of 5 that are ready has it"


async def test_the_dead_run_nothing(http: TestClient, service: FakeService) -> None:
    answer = await http.post("/v1/jobs", json={"task": "echo"})
    service.silent = set(NODES)
    found = await (await http.get(f"/v1/jobs/{(await answer.json())['id']}")).json()
    assert found["waiting_for"] == "a node with the task 'echo': none of 0 that are ready has it"


async def test_a_job_that_waits_for_a_slot_says_so(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy: list[MemberView] = [member._replace(load=Load()) for member in service.members()]
    monkeypatch.setattr(service, "members", lambda: busy)
    assert await reason(http, service) == "a free slot on one of 5 nodes"


async def test_a_job_of_a_paused_queue_waits_for_that(http: TestClient, service: FakeService) -> None:
    await http.post("/v1/queues/mail/pause")
    assert await reason(http, service, queue="mail") == "its queue, 'mail', which is paused"
    assert await reason(http, service) is None


async def test_a_job_with_a_day_waits_for_it(http: TestClient, service: FakeService) -> None:
    assert await reason(http, service, delay_s=60) == "its day: 2030-03-17T17:47:40.000Z"


async def test_what_runs_or_has_ended_waits_for_nothing(http: TestClient, service: FakeService) -> None:
    answer = await (await http.post("/v1/jobs", json={"task": "echo", "requires": {"gpu": "yes"}})).json()
    job = job_ids.parse_job_id(answer["id"])
    assert job is not None
    await service.end(job, State.FAILED)
    found = await (await http.get(f"/v1/jobs/{answer['id']}")).json()
    assert found["waiting_for"] is None


@pytest.mark.parametrize("careful", [{"partition": "wait"}, {"delivery": "at-most-once"}], ids=str)
async def test_a_careful_job_without_a_majority_of_its_holders_says_so(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch, careful: dict[str, str]
) -> None:
    answer = await (await http.post("/v1/jobs", json={"task": "echo"} | careful)).json()
    assert answer["waiting_for"] is None
    dead = [
        member._replace(state=MemberState.DEAD) if member.info.id in answer["holders"][1:] else member
        for member in service.members()
    ]
    monkeypatch.setattr(service, "members", lambda: dead)
    found = await (await http.get(f"/v1/jobs/{answer['id']}")).json()
    assert found["waiting_for"] == "a majority of its holders: 1 of 3 live"
