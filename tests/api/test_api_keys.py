"""Idempotency keys over HTTP: the header, the field of a job, and what a repetition is answered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from edgenode.api.specs import KEY_CHARS_MAX, fingerprint
from edgenode.core import job_ids
from edgenode.core.errors import KeyInFlight
from edgenode.core.specs import decode_spec
from edgenode.core.types import State
from tests.api.fake import FakeService

LINES = {"Content-Type": "application/x-ndjson"}


async def submit(http: TestClient, key: str | None = None, **fields: Any) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await http.post("/v1/jobs", json={"task": "echo"} | fields, headers=headers)


async def test_a_key_makes_the_id_and_is_shown(http: TestClient, service: FakeService) -> None:
    response = await submit(http, "order-17")
    body = await response.json()
    assert response.status == 202
    assert body["id"] == job_ids.job_text(job_ids.keyed_job_id("order-17"))
    assert body["idempotency_key"] == "order-17"
    assert "Idempotent-Replayed" not in response.headers
    assert "replayed" not in body["receipt"]
    (record,) = service.records.values()
    assert decode_spec(record.spec).options.key == "order-17"


async def test_a_repetition_is_answered_with_the_job_as_it_is_now(
    http: TestClient, service: FakeService
) -> None:
    first = await (await submit(http, "k", payload={"n": 1})).json()
    await service.end(job_ids.keyed_job_id("k"), State.SUCCEEDED, b"7", "")
    response = await submit(http, "k", payload={"n": 1})
    again = await response.json()
    assert response.status == 202
    assert response.headers["Idempotent-Replayed"] == "true"
    assert response.headers["Location"] == f"/v1/jobs/{first['id']}"
    assert (again["id"], again["state"], again["result"]) == (first["id"], "succeeded", 7)
    assert again["receipt"]["replayed"] is True
    assert len(service.records) == 1


async def test_a_repetition_may_wait_for_the_end(http: TestClient, service: FakeService) -> None:
    await submit(http, "k")
    await service.end(job_ids.keyed_job_id("k"), State.SUCCEEDED, b"7", "")
    headers = {"Idempotency-Key": "k", "Prefer": "wait=5"}
    response = await http.post("/v1/jobs", json={"task": "echo"}, headers=headers)
    assert response.status == 200
    assert (await response.json())["result"] == 7


@pytest.mark.parametrize(
    "changed", [{"payload": {"n": 2}}, {"priority": 9}, {"delay_s": 1}, {"task": "image.resize"}]
)
async def test_other_content_under_a_key_is_refused(http: TestClient, changed: dict[str, Any]) -> None:
    await submit(http, "k", payload={"n": 1})
    response = await submit(http, "k", **{"payload": {"source": "x", "width": 1}} | changed)
    problem = await response.json()
    assert (response.status, problem["type"], problem["definite"]) == (422, "/problems/key-reused", True)


async def test_names_in_another_order_are_the_same_content(http: TestClient, service: FakeService) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    for body in ('{"task":"echo","payload":{"a":1,"b":2}}', '{"payload": {"b": 2, "a": 1}, "task": "echo"}'):
        response = await http.post("/v1/jobs", data=body, headers=headers)
        assert response.status == 202
    assert len(service.records) == 1


def test_a_delay_is_the_same_content_tomorrow_and_the_key_is_none() -> None:
    document = {"task": "echo", "delay_s": 5, "idempotency_key": "a"}
    assert fingerprint(document) == fingerprint(document | {"idempotency_key": "b"})
    assert fingerprint(document) != fingerprint(document | {"delay_s": 6})


@pytest.mark.parametrize(
    ("header", "key"), [('"order-17"', "order-17"), ("order-17", "order-17"), (r'"a\"b\\c"', 'a"b\\c')]
)
async def test_a_quoted_key_is_the_same_as_a_bare_one(
    http: TestClient, service: FakeService, header: str, key: str
) -> None:
    assert (await submit(http, header)).status == 202
    assert list(service.records) == [job_ids.keyed_job_id(key)]


@pytest.mark.parametrize("key", ["", '""', '" x"', "x" * (KEY_CHARS_MAX + 1), "gr\u00fc\u00dfe"])
async def test_a_header_that_is_no_key_is_refused(http: TestClient, service: FakeService, key: str) -> None:
    response = await submit(http, key)
    assert response.status == 422
    assert (await response.json())["field"] == "Idempotency-Key"
    assert not service.submissions


@pytest.mark.parametrize("key", ["", 7, None, "x" * (KEY_CHARS_MAX + 1), "a\nb", "x "])
async def test_a_field_that_is_no_key_is_refused(http: TestClient, key: object) -> None:
    response = await submit(http, idempotency_key=key)
    assert response.status == 422
    assert (await response.json())["field"] == "idempotency_key"


async def test_the_longest_key_is_taken(http: TestClient) -> None:
    assert (await submit(http, "x" * KEY_CHARS_MAX)).status == 202


async def test_header_and_field_must_say_the_same(http: TestClient) -> None:
    assert (await submit(http, "k", idempotency_key="k")).status == 202
    response = await submit(http, "k", idempotency_key="other")
    assert (response.status, (await response.json())["field"]) == (422, "idempotency_key")


async def test_several_headers_are_refused(http: TestClient) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    response = await http.post("/v1/jobs", json={"task": "echo"}, headers=headers)
    assert response.status == 400


async def test_the_jobs_of_a_batch_have_keys_of_their_own(http: TestClient, service: FakeService) -> None:
    headers = {"Idempotency-Key": "k"}
    response = await http.post("/v1/jobs", json=[{"task": "echo"}], headers=headers)
    assert (response.status, (await response.json())["field"]) == (400, "Idempotency-Key")
    assert not service.submissions


async def test_in_a_batch_a_key_counts_once(http: TestClient, service: FakeService) -> None:
    documents = [
        {"task": "echo", "idempotency_key": "a"},
        {"task": "echo"},
        {"task": "echo", "idempotency_key": "a"},
        {"task": "echo", "idempotency_key": "a", "payload": {"n": 2}},
        {"task": "echo", "idempotency_key": "b"},
    ]
    body = "\n".join(map(json.dumps, documents))
    response = await http.post("/v1/jobs", data=body, headers=LINES)
    first, plain, again, reused, other = (await response.json())["jobs"]
    assert response.status == 202
    assert first["id"] == again["id"]
    assert ("replayed" in first["receipt"], again["receipt"]["replayed"]) == (False, True)
    assert (reused["type"], reused["index"], reused["job"]) == ("/problems/key-reused", 3, first["id"])
    assert len({first["id"], plain["id"], other["id"]}) == 3
    assert plain["idempotency_key"] is None
    assert len(service.records) == 3


async def test_a_key_that_cannot_be_answered_yet_is_a_conflict_to_come_back_to(
    http: TestClient, service: FakeService
) -> None:
    service.receipt_error = KeyInFlight("its holders do not answer")
    response = await submit(http, "k")
    problem = await response.json()
    assert (response.status, problem["definite"]) == (409, False)
    assert response.headers["Retry-After"] == "1"
    assert problem["job"] == job_ids.job_text(job_ids.keyed_job_id("k"))
