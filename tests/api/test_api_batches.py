"""Batches: many jobs of one request, followed and ended as one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from edgenode.api import batches
from edgenode.core import job_ids
from edgenode.core import jobs as jobs_
from edgenode.core.batches import batch_text, make_batch
from edgenode.core.errors import OutcomeUnknown
from edgenode.core.types import JobId, State
from tests.api.fake import FakeService


async def submitted(http: TestClient, *documents: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    answer = await http.post("/v1/jobs", json=[{"task": "echo"} | each for each in documents])
    body = await answer.json()
    assert answer.headers["Location"] == f"/v1/batches/{body['batch']}"
    return body["batch"], body["jobs"]


def ids(answered: list[dict[str, Any]]) -> list[JobId]:
    return [job for each in answered if (job := job_ids.parse_job_id(each.get("id", ""))) is not None]


async def look(http: TestClient, batch: str, **headers: str) -> dict[str, Any]:
    answer = await http.get(f"/v1/batches/{batch}", headers=headers)
    assert answer.status == 200
    found: dict[str, Any] = await answer.json()
    return found


async def test_a_batch_shows_how_far_its_jobs_are(http: TestClient, service: FakeService) -> None:
    batch, answered = await submitted(http, {}, {}, {})
    first, second, _ = ids(answered)
    await service.end(first)
    await service.end(second, State.FAILED)
    assert await look(http, batch) == {
        "id": batch,
        "size": 3,
        "states": {"queued": 1, "succeeded": 1, "failed": 1},
        "missing": 0,
        "unknown": 0,
        "ended": False,
        "settled": False,
    }


async def test_lines_are_a_batch_too_and_one_job_is_none(http: TestClient) -> None:
    body = b'{"task": "echo"}\n{"task": "echo"}\n'
    answer = await http.post("/v1/jobs", data=body, headers={"Content-Type": "application/x-ndjson"})
    assert (await look(http, (await answer.json())["batch"]))["size"] == 2
    assert "batch" not in await (await http.post("/v1/jobs", json={"task": "echo"})).json()


async def test_the_jobs_of_a_batch_are_listed_in_its_order(http: TestClient) -> None:
    batch, answered = await submitted(http, *({"payload": {"n": n}} for n in range(20)))
    found = await (await http.get(f"/v1/batches/{batch}/jobs")).json()
    assert [each["id"] for each in found["jobs"]] == [each["id"] for each in answered]


async def test_a_batch_is_waited_for(http: TestClient, service: FakeService) -> None:
    batch, answered = await submitted(http, {}, {})
    waiting = asyncio.create_task(look(http, batch, Prefer="wait=30"))
    for job in ids(answered):
        await service.end(job)
    found = await waiting
    assert (found["ended"], found["settled"], found["states"]) == (True, True, {"succeeded": 2})


async def test_what_is_left_of_a_batch_is_cancelled(http: TestClient, service: FakeService) -> None:
    batch, answered = await submitted(http, {}, {}, {})
    other, _ = await submitted(http, {})
    await service.end(ids(answered)[0])
    answer = await http.post(f"/v1/batches/{batch}/cancel")
    assert answer.status == 200
    assert (await answer.json())["states"] == {"succeeded": 1, "cancelled": 2}
    assert (await look(http, other))["states"] == {"queued": 1}


async def test_refused_items_are_missing_in_a_batch(http: TestClient) -> None:
    batch, _ = await submitted(http, {}, {"task": "unknown"})
    found = await look(http, batch)
    assert (found["size"], found["missing"], found["states"]) == (2, 1, {"queued": 1})


async def test_jobs_with_keys_take_no_place_in_the_batch_of_the_others(
    http: TestClient, service: FakeService
) -> None:
    keyed = {"idempotency_key": "mine"}
    batch, answered = await submitted(http, keyed, {"payload": {"n": 1}}, {"task": "unknown"}, {})
    mine, first, _, last = answered
    found = await (await http.get(f"/v1/batches/{batch}/jobs")).json()
    assert [each["id"] for each in found["jobs"]] == [first["id"], last["id"]]
    assert (found["size"], found["missing"], found["settled"]) == (3, 1, False)
    await service.end(ids([mine])[0])
    assert (await look(http, batch))["states"] == {"queued": 2}


@pytest.mark.parametrize("others", [[], [{"task": "unknown"}], ["nonsense"]])
async def test_there_is_no_batch_where_none_of_its_jobs_is_in_one(
    http: TestClient, service: FakeService, others: list[Any]
) -> None:
    keyed = [{"task": "echo", "idempotency_key": key} for key in "abc"]
    answer = await http.post("/v1/jobs", json=[*keyed, *others])
    body = await answer.json()
    assert (answer.status, body["batch"], "Location" in answer.headers) == (202, None, False)
    assert len(ids(body["jobs"])) == 3
    service.receipt_error = OutcomeUnknown("too few disks")  # then it may have been taken
    answer = await http.post("/v1/jobs", json=[{"task": "echo"}])
    assert (await answer.json())["batch"]


async def test_the_tasks_of_a_batch_are_asked_about_once(http: TestClient, service: FakeService) -> None:
    resize = {"task": "image.resize", "payload": {"source": "x", "width": 1}}
    wrong = {"task": "image.resize", "payload": {"source": "x"}}
    odd: list[dict[str, Any]] = [{"task": 7}, {"task": ["echo"]}, {"task": "unknown"}]
    _, answered = await submitted(http, {}, resize, wrong, {}, resize, *odd)
    assert [names for names, _ in service.described] == [{"echo", "image.resize", "unknown"}]
    assert [each.get("field") for each in answered] == [
        None,
        None,
        "width",
        None,
        None,
        "task",
        "task",
        "task",
    ]
    assert [each["max_attempts"] for each in answered if "id" in each] == [3, 7, 3, 7]


async def test_ten_thousand_jobs_are_one_batch(http: TestClient) -> None:
    batch, answered = await submitted(http, *({} for _ in range(10_000)))
    assert len(set(ids(answered))) == 10_000
    assert (await look(http, batch))["states"] == {"queued": 10_000}


@pytest.mark.parametrize("verb", ["", "/jobs"])
async def test_what_is_no_batch_is_refused(http: TestClient, service: FakeService, verb: str) -> None:
    assert (await http.get(f"/v1/batches/nonsense{verb}")).status == 400
    nobodys = batch_text(make_batch(service.new_job_id(), 5))
    answer = await http.get(f"/v1/batches/{nobodys}{verb}")
    assert (answer.status, (await answer.json())["type"]) == (404, "/problems/no-such-batch")


async def test_when_members_are_silent_nobody_knows_of_what_is_not_found(
    http: TestClient, service: FakeService
) -> None:
    batch, answered = await submitted(http, {}, {})
    del service.records[ids(answered)[0]]
    service.silent = {service.me}
    found = await look(http, batch)
    assert (found["unknown"], found["missing"], found["ended"]) == (1, 0, False)
    service.records.clear()
    answer = await http.get(f"/v1/batches/{batch}")
    assert (answer.status, json.loads(await answer.text())["type"]) == (503, "/problems/undecided")


async def test_jobs_that_nobody_has_who_answers_are_waited_for_without_asking_without_pause(
    http: TestClient, service: FakeService
) -> None:
    batch, answered = await submitted(http, {}, {})
    here, away = ids(answered)
    await service.end(here)
    hidden = service.records.pop(away)
    service.patient, service.silent = False, {service.me}  # as a node reads what nobody has who answers
    service.waits.clear()
    found = await look(http, batch, Prefer="wait=1")
    assert (found["unknown"], found["settled"]) == (1, False)
    assert 3 <= len(service.waits) <= 2 + round(1 / batches.PAUSE_S)

    real = service.read

    async def read(jobs: Sequence[JobId], **named: Any) -> Any:
        if len(service.waits) > 2:
            service.records[away] = jobs_.settled(jobs_.decided(hidden, State.CANCELLED, firm=True, at=0.0))
        return await real(jobs, **named)

    service.read = read  # type: ignore[method-assign]
    service.waits.clear()
    found = await look(http, batch, Prefer="wait=60")
    assert (found["unknown"], found["settled"], found["states"]) == (
        0,
        True,
        {"succeeded": 1, "cancelled": 1},
    )


async def test_what_turns_out_to_be_nowhere_is_unknown_no_more(
    http: TestClient, service: FakeService
) -> None:
    batch, answered = await submitted(http, {}, {})
    here, away = ids(answered)
    await service.end(here)
    del service.records[away]
    service.silent = {service.me}
    real = service.read

    async def read(jobs: Sequence[JobId], **named: Any) -> Any:
        done = await real(jobs, **named)
        service.silent = set()  # from now on all answer
        return done

    service.read = read  # type: ignore[method-assign]
    found = await look(http, batch, Prefer="wait=60")
    assert (found["unknown"], found["missing"], found["settled"]) == (0, 1, True)
