"""Named queues over HTTP: what is shown of them, and what may be set."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from edgenode.core.errors import NotReady, RejectedInput
from tests.api.fake import NODES, FakeService


async def put(http: TestClient, body: Any, name: str = "mail") -> Any:
    return await http.put(f"/v1/queues/{name}", json=body)


async def test_a_change_is_answered_with_what_is_so_and_who_knows_it(
    http: TestClient, service: FakeService
) -> None:
    response = await put(http, {"paused": True, "concurrency": 5, "rate": 2.5, "burst": 10})
    assert response.status == 200
    assert await response.json() == {
        "name": "mail", "paused": True, "concurrency": 5, "rate": 2.5, "burst": 10, "version": 1,
        "known": 3, "living": 3,
    }  # fmt: skip
    service.known = 2
    response = await put(http, {"rate": None, "concurrency": None})
    assert response.status == 202
    body = await response.json()
    assert (body["paused"], body["concurrency"], body["rate"], body["burst"]) == (True, None, None, None)
    assert (body["version"], body["known"], body["living"]) == (2, 2, 3)


async def test_pausing_and_resuming_change_nothing_else(http: TestClient) -> None:
    await put(http, {"concurrency": 5}, "a/b.c:d-e")
    paused = await (await http.post("/v1/queues/a/b.c:d-e/pause")).json()
    assert (paused["name"], paused["paused"], paused["concurrency"]) == ("a/b.c:d-e", True, 5)
    resumed = await (await http.post("/v1/queues/a/b.c:d-e/resume")).json()
    assert (resumed["paused"], resumed["concurrency"], resumed["version"]) == (False, 5, 3)


async def test_a_queue_that_is_reset_has_no_settings_and_is_not_listed(
    http: TestClient, service: FakeService
) -> None:
    await put(http, {"paused": True, "concurrency": 5, "rate": 2.5, "burst": 10}, "a/b")
    for version in (2, 3):  # again: it may have been asked for again
        response = await http.delete("/v1/queues/a/b")
        assert response.status == 200
        assert await response.json() == {
            "name": "a/b", "paused": False, "concurrency": None, "rate": None, "burst": None,
            "version": version, "known": 3, "living": 3,
        }  # fmt: skip
    assert (await (await http.get("/v1/queues")).json())["queues"] == []
    service.known = 2
    assert (await http.delete("/v1/queues/a/b")).status == 202
    response = await http.delete("/v1/queues/a/b", json={"paused": False})
    assert (response.status, (await response.json())["field"]) == (422, "body")


async def test_the_jobs_of_the_whole_mesh_are_counted_and_who_was_not_heard_is_named(
    http: TestClient, service: FakeService
) -> None:
    await put(http, {"concurrency": 5}, "mail")
    service.counts = {"default": (7, 2), "mail": (40, 5)}
    service.silent, service.left_out = {NODES[2]}, 3
    found = await (await http.get("/v1/queues")).json()
    assert (found["unanswered"], found["left_out"]) == ([NODES[2]], 3)
    assert found["queues"] == [
        {
            "name": "default", "paused": False, "concurrency": None, "rate": None, "burst": None,
            "version": 0, "queued": 7, "running": 2,
        },
        {
            "name": "mail", "paused": False, "concurrency": 5, "rate": None, "burst": None, "version": 1,
            "queued": 40, "running": 5,
        },
    ]  # fmt: skip


async def test_all_queues_with_settings_are_listed_by_name(http: TestClient) -> None:
    assert (await (await http.get("/v1/queues")).json())["queues"] == []
    await put(http, {"rate": 1}, "slow")
    await put(http, {"paused": True}, "mail")
    listed = (await (await http.get("/v1/queues")).json())["queues"]
    assert [(each["name"], each["paused"], each["rate"], each["burst"]) for each in listed] == [
        ("mail", True, None, None),
        ("slow", False, 1.0, 1),
    ]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (None, "body"),
        ([], "body"),
        ({}, "body"),
        ({"pause": True}, "pause"),
        ({"paused": None}, "paused"),
        ({"paused": 1}, "paused"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"concurrency": 1.5}, "concurrency"),
        ({"concurrency": 10**9}, "concurrency"),
        ({"burst": -1}, "burst"),
        ({"rate": 0}, "rate"),
        ({"rate": -1.0}, "rate"),
        ({"rate": 1e-9}, "rate"),
        ({"rate": 10**400}, "rate"),
        ({"rate": True}, "rate"),
        ({"rate": "5"}, "rate"),
    ],
)
async def test_what_is_wrong_with_settings_is_named(
    http: TestClient, service: FakeService, body: Any, field: str
) -> None:
    response = await put(http, body)
    problem = await response.json()
    assert (response.status, problem["field"], problem["definite"]) == (422, field, True)
    assert not service.items


async def test_a_queue_is_called_as_tasks_are(http: TestClient) -> None:
    response = await put(http, {"paused": True}, "no%20spaces")
    assert (response.status, (await response.json())["field"]) == (422, "name")
    response = await http.post("/v1/queues/mail/pause", json={"paused": False})
    assert (response.status, (await response.json())["field"]) == (422, "body")


async def test_a_node_that_takes_no_jobs_changes_no_queues(http: TestClient, service: FakeService) -> None:
    service.reasons = ["it is leaving"]
    service.queue_error = None
    response = await put(http, {"paused": True})
    assert response.status == NotReady.status
    service.reasons = []
    service.queue_error = RejectedInput("there are too many", field="queue")
    response = await put(http, {"paused": True})
    assert (response.status, (await response.json())["field"]) == (400, "queue")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"concurrency_key": ""}, "concurrency_key"),
        ({"concurrency_key": "x" * 256}, "concurrency_key"),
        ({"concurrency_key": 7}, "concurrency_key"),
        ({"concurrency_key": "x", "concurrency_limit": 0}, "concurrency_limit"),
        ({"concurrency_limit": 3}, "concurrency_limit"),
    ],
)
async def test_a_concurrency_key_is_a_short_text_and_its_limit_at_least_one(
    http: TestClient, options: dict[str, Any], field: str
) -> None:
    response = await http.post("/v1/jobs", json={"task": "echo", **options})
    assert (response.status, (await response.json())["field"]) == (422, field)


async def test_a_concurrency_key_is_shown(http: TestClient) -> None:
    response = await http.post(
        "/v1/jobs", json={"task": "echo", "concurrency_key": "customer 7", "concurrency_limit": 2}
    )
    body = await response.json()
    assert (response.status, body["concurrency_key"], body["concurrency_limit"]) == (202, "customer 7", 2)
    plain = await (await http.post("/v1/jobs", json={"task": "echo"})).json()
    assert (plain["concurrency_key"], plain["concurrency_limit"]) == (None, None)
