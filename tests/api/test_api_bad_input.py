"""Bad input: each case is a 4xx problem that names the field, and nothing is stored."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import TransferEncodingError
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenode.api.app import make_app, make_runner
from edgenode.api.requests import body_chunks
from edgenode.api.specs import FIELDS, ITEMS_MAX, PAYLOAD_BYTES_MAX
from edgenode.core.errors import RejectedInput
from edgenode.core.job_ids import parse_job_id
from tests.api.fake import FakeService

JSON = {"Content-Type": "application/json"}
JOB = "01930000-0000-7000-8000-000000000000"


def echo(**options: Any) -> bytes:
    return json.dumps({"task": "echo", "payload": {}} | options).encode()


def resize(**payload: Any) -> bytes:
    return json.dumps({"task": "image.resize", "payload": payload}).encode()


BODIES: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 400, "body"),
    "malformed JSON": (b'{"task": ', 400, "body"),
    "a raw NUL": (b'{"task": "echo\x00"}', 400, "body"),
    "not UTF-8": (b'{"task": "\xff"}', 400, "body"),
    "UTF-16": ('{"task": "echo"}'.encode("utf-16"), 400, "body"),
    "NaN": (b'{"task": "echo", "payload": {"x": NaN}}', 400, "body"),
    "Infinity": (b'{"task": "echo", "payload": {"x": -Infinity}}', 400, "body"),
    "a float past all floats": (b'{"task": "echo", "payload": {"x": 1e999}}', 422, "payload"),
    "an integer of 5,000 digits": (b'{"task": "echo", "payload": {"x": ' + b"9" * 5000 + b"}}", 400, "body"),
    "100,000 brackets": (b"[" * 100_000, 400, "body"),
    "objects 100,000 deep": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "body"),
    "a payload 65 deep": (b'{"task": "echo", "payload": ' + b'{"a":' * 65 + b"1" + b"}" * 66, 422, "payload"),
    "a name twice": (b'{"task": "echo", "task": "other"}', 400, "task"),
    "half a surrogate pair": (b'{"task": "echo", "payload": {"x": "\\ud800"}}', 422, "payload"),
    "half a surrogate pair as task": (b'{"task": "\\ud800"}', 422, "task"),
    "half a surrogate pair as field": (b'{"task": "echo", "\\ud800": 1}', 422, "\ud800"),
    "a text": (b'"echo"', 422, "body"),
    "null": (b"null", 422, "body"),
    "a number": (b"7", 422, "body"),
    "no jobs": (b"[]", 400, "body"),
    "too many jobs": (b"[" + b"1," * ITEMS_MAX + b"1]", 413, "body"),
    "no task": (b"{}", 422, "task"),
    "an unknown task": (b'{"task": "no.such"}', 422, "task"),
    "a task that is a number": (b'{"task": 7}', 422, "task"),
    "a task with a NUL": (b'{"task": "echo\\u0000"}', 422, "task"),
    "an empty task": (b'{"task": ""}', 422, "task"),
    "an unknown field": (echo(prioritty=3), 422, "prioritty"),
    "an id of one's own": (echo(id="x"), 422, "id"),
    "a payload that is a list": (echo(payload=[]), 422, "payload"),
    "a payload that is null": (echo(payload=None), 422, "payload"),
    "a payload over the limit": (echo(payload={"x": "y" * PAYLOAD_BYTES_MAX}), 413, "payload"),
    "a missing parameter": (resize(source="x"), 422, "width"),
    "an extra parameter": (resize(source="x", width=1, height=2), 422, "height"),
    "a parameter of a wrong type": (resize(source="x", width="1"), 422, "width"),
    "priority 10": (echo(priority=10), 422, "priority"),
    "priority -1": (echo(priority=-1), 422, "priority"),
    "priority true": (echo(priority=True), 422, "priority"),
    "priority 4.5": (echo(priority=4.5), 422, "priority"),
    "a priority of 40 digits": (echo(priority=10**40), 422, "priority"),
    "max_attempts 0": (echo(max_attempts=0), 422, "max_attempts"),
    "max_attempts 65": (echo(max_attempts=65), 422, "max_attempts"),
    "max_losses -1": (echo(max_losses=-1), 422, "max_losses"),
    "max_losses 0": (echo(max_losses=0), 422, "max_losses"),
    "a negative delay": (echo(delay_s=-1), 422, "delay_s"),
    "a delay of 400 digits": (echo(delay_s=10**400), 422, "delay_s"),
    "a delay in a text": (echo(delay_s="5"), 422, "delay_s"),
    "a delay and a time": (echo(delay_s=5, run_at="2031-01-01T00:00:00Z"), 422, "delay_s"),
    "a negative timeout": (echo(timeout_s=-0.5), 422, "timeout_s"),
    "a lifetime of ages": (echo(ttl_s=1e12), 422, "ttl_s"),
    "run_at without a zone": (echo(run_at="2031-01-01T00:00:00"), 422, "run_at"),
    "run_at on a day that is none": (echo(run_at="2031-02-31T00:00:00Z"), 422, "run_at"),
    "run_at in the year 9999": (echo(run_at="9999-12-31T23:59:59Z"), 422, "run_at"),
    "run_at as a number": (echo(run_at=1_900_000_000), 422, "run_at"),
    "a deadline in the past": (echo(deadline="2001-01-01T00:00:00Z"), 422, "deadline"),
    "a deadline before run_at": (
        echo(run_at="2031-01-02T00:00:00Z", deadline="2031-01-01T00:00:00Z"), 422, "deadline",
    ),
    "an unknown delivery": (echo(delivery="exactly-once"), 422, "delivery"),
    "two attempts, at most once": (echo(delivery="at-most-once", max_attempts=2), 422, "max_attempts"),
    "an unknown partition": (echo(partition=["run"]), 422, "partition"),
    "more acks than holders": (echo(acks=4), 422, "acks"),
    "acks in a word": (echo(acks="most"), 422, "acks"),
    "an empty queue": (echo(queue=""), 422, "queue"),
    "a queue of 129 letters": (echo(queue="q" * 129), 422, "queue"),
    "labels in a text": (echo(requires="zone"), 422, "requires"),
    "a label in a list that is a number": (echo(requires=[1]), 422, "requires"),
    "a label in a list without a value": (echo(requires=["zone="]), 422, "requires"),
    "a label in a list that is no word": (echo(requires=["the zone"]), 422, "requires"),
    "a label with two values": (echo(requires=["zone=a", "zone=b"]), 422, "requires"),
    "33 labels": (echo(requires=[f"label-{n}" for n in range(33)]), 422, "requires"),
    "a label that is a number": (echo(requires={"zone": 1}), 422, "requires"),
    "a backoff that is a text": (echo(backoff="constant"), 422, "backoff"),
    "a backoff of a wrong kind": (echo(backoff={"kind": ["x"]}), 422, "backoff.kind"),
    "a backoff with another field": (echo(backoff={"base": 1}), 422, "backoff.base"),
    "a backoff with its cap below": (echo(backoff={"base_s": 5, "cap_s": 1}), 422, "backoff.cap_s"),
}  # fmt: skip


async def problem_of(response: Any) -> dict[str, Any]:
    assert response.content_type == "application/problem+json"
    problem: dict[str, Any] = await response.json(content_type=None)
    assert {"type", "title", "status", "detail", "instance", "definite"} <= problem.keys()
    assert problem["status"] == response.status
    return problem


@pytest.mark.parametrize("case", BODIES)
async def test_a_bad_job_is_refused_by_field_and_nothing_is_stored(
    http: TestClient, service: FakeService, case: str
) -> None:
    body, status, field = BODIES[case]
    response = await http.post("/v1/jobs", data=body, headers=JSON)
    problem = await problem_of(response)
    assert (response.status, problem.get("field")) == (status, field), problem
    assert problem["definite"] is True
    assert not service.submissions


@pytest.mark.parametrize("case", [case for case, (_, status, field) in BODIES.items() if status == 422])
async def test_a_bad_job_in_a_batch_is_its_own_problem(
    http: TestClient, service: FakeService, case: str
) -> None:
    body, _, field = BODIES[case]
    response = await http.post("/v1/jobs", data=b"[%b,%b]" % (echo(), body), headers=JSON)
    good, bad = (await response.json())["jobs"]
    assert response.status == 202
    assert good["state"] == "queued"
    assert (bad["field"], bad["status"], bad["index"]) == (field, 422, 1)
    assert service.submissions == [(0,)]


async def test_a_name_that_comes_again_after_200_000_others_is_found_as_soon_as_any(http: TestClient) -> None:
    """All requests wait while one is parsed. Counting each name among all would take minutes here."""
    names = [*range(200_000), 199_999]
    body = b"{" + b",".join(b'"%d":1' % name for name in names) + b"}"
    problem = await problem_of(await http.post("/v1/jobs", data=body, headers=JSON))
    assert (problem["status"], problem["field"]) == (400, "199999")


async def test_who_names_a_task_that_nobody_has_learns_where_they_are_and_how_one_comes(
    http: TestClient,
) -> None:
    detail = (await problem_of(await http.post("/v1/jobs", json={"task": "no.such"})))["detail"]
    assert "/v1/tasks" in detail
    assert "--tasks MODULE_OR_FILE" in detail


async def test_a_batch_that_is_too_long_is_to_be_sent_in_parts(
    http: TestClient, service: FakeService
) -> None:
    response = await http.post("/v1/jobs", json=[{"task": "echo"}] * 10_001)
    problem = await problem_of(response)
    assert (response.status, problem["limit"], service.submissions) == (413, 10_000, [])
    assert "send it in parts" in problem["detail"]


async def test_a_batch_of_refusals_has_the_status_of_the_first(http: TestClient) -> None:
    response = await http.post("/v1/jobs", data=b'[{"task":"no.such"},7]', headers=JSON)
    assert response.status == 422
    assert [job["field"] for job in (await response.json())["jobs"]] == ["task", "body"]


async def test_a_malformed_line_does_not_spoil_the_others(http: TestClient, service: FakeService) -> None:
    lines = b"\n".join([echo(), b"{nonsense", b"", b"  ", echo(), b"[1]"])
    response = await http.post("/v1/jobs", data=lines, headers={"Content-Type": "application/x-ndjson"})
    assert response.status == 202
    answers = (await response.json())["jobs"]
    assert [answer.get("state", answer.get("field")) for answer in answers] == [
        "queued", "body", "queued", "body",
    ]  # fmt: skip
    assert service.submissions == [(0, 0)]


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream", "application/jsonx"],
)
async def test_only_json_is_read(http: TestClient, service: FakeService, media_type: str) -> None:
    response = await http.post("/v1/jobs", data=echo(), headers={"Content-Type": media_type})
    assert (await problem_of(response))["field"] == "Content-Type"
    assert response.status == 415
    assert not service.submissions


async def test_a_body_without_a_type_is_not_read(http: TestClient) -> None:
    response = await http.post("/v1/jobs", data=echo(), skip_auto_headers=["Content-Type"])
    assert response.status == 415


async def test_compressed_bodies_are_not_read(http: TestClient) -> None:
    response = await http.post("/v1/jobs", data=b"x", headers=JSON | {"Content-Encoding": "zip"})
    assert (await problem_of(response))["field"] == "Content-Encoding"


async def raw(http: TestClient, request: bytes, *, until: bytes) -> bytes:
    """What comes back for these bytes on a connection, up to `until`."""
    reader, writer = await asyncio.open_connection(http.server.host, http.server.port)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            return await reader.readuntil(until)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
async def test_an_announced_100_megabytes_is_refused_before_it_is_sent(
    http: TestClient, service: FakeService, expect: bytes
) -> None:
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = await raw(http, head + expect + b"Content-Length: 104857600\r\n\r\n", until=b'"limit": 8388608}')
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"field": "body"' in answer
    assert b"send it in parts" in answer
    assert not service.submissions


async def test_an_expected_small_body_is_asked_for(http: TestClient) -> None:
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = await raw(http, head + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n", until=b"\r\n\r\n")
    assert answer == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_a_streamed_100_megabytes_is_refused_at_the_limit(http: TestClient) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * 1024 * 1024

    response = await http.post("/v1/jobs", data=endless(), headers=JSON)
    assert response.status == 413
    assert (await problem_of(response))["field"] == "body"


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "jobs/cancel"), ("POST", "jobs/retry"), ("PUT", "queues/mail"), ("POST", "nodes/self/drain")],
)
async def test_what_is_no_submission_has_a_small_body(http: TestClient, method: str, path: str) -> None:
    for body in (json.dumps({"ids": [JOB] * ITEMS_MAX}, indent=4), " " * 2**20 + "{}"):
        response = await http.request(method, f"/v1/{path}", data=body.encode(), headers=JSON)
        assert (response.status == 413) is (len(body) > 2**20)
    assert (await problem_of(response))["limit"] == 2**20


@pytest.mark.parametrize("junk", [b"GET / HTTP/9\r\n\r\n", b"\x16\x03\x01 hello\r\n\r\n"])
async def test_what_is_no_request_writes_nothing_to_the_log(
    http: TestClient, caplog: pytest.LogCaptureFixture, junk: bytes
) -> None:
    make_runner(make_app(FakeService()))
    await raw(http, junk, until=b"400")
    assert not caplog.records


async def test_broken_framing_is_the_senders_fault(http: TestClient, service: FakeService) -> None:
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = await raw(http, head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n", until=b"\r\n")
    assert answer.split()[1] == b"400"
    assert not service.submissions


@pytest.mark.parametrize(
    "failure",
    [web.RequestPayloadError("bad chunk"), TransferEncodingError("zz"), ConnectionResetError("gone")],
)
async def test_a_body_that_breaks_on_the_way_is_the_senders_fault(failure: Exception) -> None:
    stream = StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16)
    request = make_mocked_request("POST", "/v1/jobs", payload=stream)
    stream.feed_data(b'{"task"')
    stream.set_exception(failure)
    with pytest.raises(RejectedInput, match="did not arrive whole"):
        [chunk async for chunk in body_chunks(request)]


PARAMETERS = {
    "state=done": "state",
    "limit=0": "limit",
    "limit=1001": "limit",
    "limit=x": "limit",
    "limit=٣": "limit",
    "limit=99999999999999999999": "limit",
    "cursor=": "cursor",
    "cursor=AAAA": "cursor",
    "cursor=%00": "cursor",
    "cursor=é": "cursor",
    "cursor=AAAAAAAAAAAAAAAAAAAAAA%3D%3D": "cursor",
    "task=a%00b": "task",
    "queue=" + "q" * 600: "queue",
    "status=queued": "status",
    "limit=1&limit=2": "limit",
}


@pytest.mark.parametrize("parameters", PARAMETERS)
async def test_a_bad_parameter_is_named(http: TestClient, parameters: str) -> None:
    response = await http.get(f"/v1/jobs?{parameters}")
    assert (response.status, (await problem_of(response))["field"]) == (400, PARAMETERS[parameters])


async def test_a_parameter_of_a_submission_is_refused(http: TestClient, service: FakeService) -> None:
    response = await http.post("/v1/jobs?queue=mail", data=echo(), headers=JSON)
    assert (response.status, (await problem_of(response))["field"]) == (400, "queue")
    assert not service.submissions


@pytest.mark.parametrize("path", ["jobs/{job}/cancel", "jobs/{job}/retry", "batches/{batch}/cancel"])
async def test_a_body_that_would_be_ignored_is_refused(
    http: TestClient, service: FakeService, path: str
) -> None:
    made = await (await http.post("/v1/jobs", data=b"[%b]" % echo(), headers=JSON)).json()
    path = path.format(job=made["jobs"][0]["id"], batch=made["batch"])
    for body in (b'{"queue": "mail"}', b"{}", b"[]"):
        response = await http.post(f"/v1/{path}", data=body, headers=JSON)
        assert (response.status, (await problem_of(response))["field"]) == (400, "body")
    assert not service.wishes
    assert len(service.records) == 1


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "%00",
        "..%2f..%2fetc",
        "01234567-89ab-7def-8123-456789abcde",
        "0123456789ab7def8123456789abcdef----",
        "g1234567-89ab-7def-8123-456789abcdef",
        "%F0%9F%92%A9" * 36,
    ],
)
@pytest.mark.parametrize("rest", ["", "/placement"])
async def test_what_is_no_job_id_is_refused(http: TestClient, text: str, rest: str) -> None:
    response = await http.get(f"/v1/jobs/{text}{rest}")
    assert (response.status, (await problem_of(response))["field"]) == (400, "id")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(sorted(FIELDS | {"x"}))
near_jobs = st.builds(
    lambda fields: {"task": "image.resize"} | fields, st.dictionaries(names, json_values, max_size=4)
)
bodies = st.binary(max_size=64) | (near_jobs | json_values | st.lists(near_jobs, max_size=3)).map(
    lambda value: json.dumps(value).encode()
)


@settings(max_examples=80)
@given(
    st.lists(bodies, min_size=1, max_size=8), st.sampled_from(["application/json", "application/x-ndjson"])
)
def test_no_body_whatever_is_our_fault(found: list[bytes], media_type: str) -> None:
    async def send() -> None:
        service = FakeService()
        async with TestClient(TestServer(make_app(service))) as http:
            for body in found:
                response = await http.post("/v1/jobs", data=body, headers={"Content-Type": media_type})
                assert response.status < 500, body
                if response.status == 202:
                    answer = await response.json()
                    accepted = [job for job in answer.get("jobs", [answer]) if "receipt" in job]
                    assert all(parse_job_id(job["id"]) in service.records for job in accepted)
                else:
                    assert not service.records or 400 <= response.status < 500

    asyncio.run(send())


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.text(max_size=40), st.dictionaries(st.text(), st.text(), max_size=3)), max_size=8)
)
def test_no_address_whatever_is_our_fault(found: list[tuple[str, dict[str, str]]]) -> None:
    async def ask() -> None:
        async with TestClient(TestServer(make_app(FakeService()))) as http:
            for tail, query in found:
                clean = {name.encode(errors="replace").decode(): value.encode(errors="replace").decode()
                         for name, value in query.items()}  # fmt: skip
                for path in ("/v1/jobs", "/v1/jobs/" + tail.encode(errors="replace").decode()):
                    assert (await http.get(path, params=clean)).status < 500

    asyncio.run(ask())
