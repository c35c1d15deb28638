"""Submitting and reading jobs over HTTP: names, statuses, headers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from edgenode.api import jobs as jobs_api
from edgenode.api import submitting, turns
from edgenode.api.app import make_app
from edgenode.core import job_ids, jobs
from edgenode.core.errors import NotReady, OutcomeUnknown, Overloaded, StoreUnwritable, Undecided
from edgenode.core.settings import JobSettings
from edgenode.core.signals import InspectDone, RequestId
from edgenode.core.specs import AS_ITS_TASK, DAY_S, Options, decode_spec
from edgenode.core.types import Backoff, Ballot, JobId, Load, MemberState, Partition, State
from tests.api.fake import NODES, START, FakeService, Resize

NAMES = {
    "id", "task", "payload", "state", "settled", "queue", "priority", "attempt", "max_attempts", "losses",
    "takeovers", "delivery", "partition", "owner", "firm", "runner", "term", "holders", "submitted_at",
    "run_at", "started_at", "finished_at", "result", "error", "progress",
}  # fmt: skip


def parsed(body: dict[str, Any]) -> Any:
    job = job_ids.parse_job_id(body["id"])
    assert job is not None
    return job


async def submit(http: TestClient, *, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return await http.post("/v1/jobs", json={"task": "echo"} | fields, headers=headers)


async def test_a_submission_is_answered_with_the_job_where_it_is_and_who_has_it(
    http: TestClient, service: FakeService
) -> None:
    response = await submit(http, payload={"text": "grüße"})
    body = await response.json()
    assert response.status == 202
    assert response.headers["Location"] == f"/v1/jobs/{body['id']}"
    assert response.headers["Retry-After"] == "1"
    assert NAMES | {"receipt"} <= body.keys()
    assert body["receipt"] == {"acks": 2, "nodes": list(NODES[:2])}
    assert (body["task"], body["payload"], body["state"]) == ("echo", {"text": "grüße"}, "queued")
    assert (body["owner"], body["term"], body["firm"]) == (NODES[0], 1, True)
    assert body["holders"] == list(NODES[:3])
    assert body["submitted_at"] == "2030-03-17T17:46:40.000Z"


async def test_what_was_answered_is_what_is_read_later(http: TestClient) -> None:
    answered = await (await submit(http, payload={"x": [1, 2.5, None]})).json()
    read = await (await http.get(f"/v1/jobs/{answered['id']}")).json()
    answered.pop("receipt")
    assert read == answered


async def test_the_payload_is_stored_compact_and_as_utf8(http: TestClient, service: FakeService) -> None:
    await submit(http, payload={"b": "ü", "a": {"c": 1}})
    (record,) = service.records.values()
    assert decode_spec(record.spec).payload == '{"b":"ü","a":{"c":1}}'.encode()


async def test_an_owner_that_did_not_acknowledge_is_not_named(http: TestClient, service: FakeService) -> None:
    service.silent = {NODES[0]}
    service.rank = lambda job: NODES  # type: ignore[method-assign]
    real = service.submit

    async def went_elsewhere(*args: Any, **named: Any) -> Any:
        return tuple(receipt._replace(nodes=NODES[1:3]) for receipt in await real(*args, **named))

    service.submit = went_elsewhere  # type: ignore[method-assign]
    body = await (await submit(http)).json()
    assert (body["owner"], body["receipt"]["nodes"]) == (None, list(NODES[1:3]))


async def test_all_options_reach_the_spec(http: TestClient, service: FakeService) -> None:
    options = {
        "queue": "slow", "priority": 9, "run_at": "2031-01-01T01:00:00+01:00", "timeout_s": 2.5,
        "deadline": "2031-02-01T00:00:00.5Z", "max_attempts": 4, "max_losses": 1, "partition": "wait",
        "acks": 3, "ttl_s": 60, "requires": {"gpu": "yes", "arch": "arm64"},
        "backoff": {"kind": "constant", "base_s": 2},
    }  # fmt: skip
    response = await submit(http, **options)
    assert response.status == 202, await response.text()
    (record,) = service.records.values()
    spec = decode_spec(record.spec)
    assert spec.options == Options(
        queue="slow", priority=9, run_at=1_924_992_000.0, timeout_s=2.5, deadline=1_927_670_400.5,
        max_attempts=4, max_losses=1, partition=Partition.WAIT, acks=3, ttl_s=60.0,
        requires=(("arch", "arm64"), ("gpu", "yes")), backoff=Backoff("constant", 2.0, 300.0),
    )  # fmt: skip
    # A day for a start on the day of its deadline, and the time of an attempt.
    assert spec.expires_at == 1_927_670_400.5 + DAY_S + 2.5
    body = await response.json()
    assert (body["state"], body["run_at"]) == ("scheduled", "2031-01-01T00:00:00.000Z")


async def test_labels_may_be_listed_as_people_write_them(http: TestClient, service: FakeService) -> None:
    response = await submit(http, requires=["zone=x", "gpu", "gpu=yes"])
    assert response.status == 202, await response.text()
    (record,) = service.records.values()
    assert decode_spec(record.spec).options.requires == (("gpu", "yes"), ("zone", "x"))


async def test_a_delay_becomes_a_time(http: TestClient, service: FakeService) -> None:
    await submit(http, delay_s=90)
    (record,) = service.records.values()
    spec = decode_spec(record.spec)
    assert (spec.options.run_at, spec.expires_at) == (START + 90, START + 90 + 7 * DAY_S)


async def test_the_task_says_what_the_submitter_does_not(http: TestClient, service: FakeService) -> None:
    await submit(http, task="image.resize", payload={"source": "x", "width": 1}, max_attempts=2)
    (record,) = service.records.values()
    options = decode_spec(record.spec).options
    assert (options.timeout_s, options.max_attempts) == (30.0, 2)
    assert options.backoff == Backoff("constant", 2.0, 60.0)


async def test_a_timeout_of_0_is_none_also_if_the_task_has_one(
    http: TestClient, service: FakeService
) -> None:
    await submit(http, task="image.resize", payload={"source": "x", "width": 1}, timeout_s=0)
    (record,) = service.records.values()
    spec = decode_spec(record.spec)
    assert (spec.options.timeout_s, spec.expires_at) == (0.0, START + 7 * DAY_S)


@pytest.mark.parametrize("task", ["echo", "image.resize"])
async def test_where_no_timeout_is_known_the_task_s_own_counts_where_it_runs(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """Of echo this node knows nothing; of image.resize that it has none here."""
    monkeypatch.setattr(Resize, "timeout_s", 0.0)
    await submit(http, task=task, payload={"source": "x", "width": 1})
    (record,) = service.records.values()
    spec = decode_spec(record.spec)
    assert (spec.options.timeout_s, spec.expires_at) == (AS_ITS_TASK, START + 7 * DAY_S)


async def test_a_task_that_nobody_describes_in_time_is_neither_checked_nor_says_anything(
    http: TestClient, service: FakeService
) -> None:
    service.schemas.clear()
    assert (await submit(http, task="image.resize", payload={"width": "wide"})).status == 202
    assert service.described == [({"image.resize"}, JobSettings().describe_s)]
    (record,) = service.records.values()
    options = decode_spec(record.spec).options
    assert (options.timeout_s, options.max_attempts, options.backoff) == (AS_ITS_TASK, 3, Backoff())


async def test_at_most_once_means_one_attempt(http: TestClient) -> None:
    assert (await (await submit(http, delivery="at-most-once")).json())["max_attempts"] == 1


async def test_two_hundred_jobs_are_one_call(http: TestClient, service: FakeService) -> None:
    batch = [{"task": "echo", "payload": {"n": n}} for n in range(200)]
    response = await http.post("/v1/jobs", json=batch)
    answers = (await response.json())["jobs"]
    assert response.status == 202
    assert [answer["payload"]["n"] for answer in answers] == list(range(200))
    assert len({answer["id"] for answer in answers}) == 200
    assert service.submissions == [(0,) * 200]


async def test_lines_are_a_batch(http: TestClient, service: FakeService) -> None:
    lines = b"".join(b'{"task":"echo","payload":{"n":%d}}\r\n' % n for n in range(3))
    response = await http.post("/v1/jobs", data=lines, headers={"Content-Type": "application/x-ndjson"})
    assert [answer["payload"]["n"] for answer in (await response.json())["jobs"]] == [0, 1, 2]


async def test_jobs_of_a_request_may_want_different_acknowledgements(
    http: TestClient, service: FakeService
) -> None:
    await http.post("/v1/jobs", json=[{"task": "echo", "acks": acks} for acks in (1, 3, 1)])
    assert service.submissions == [(1, 3, 1)]


async def test_all_disks_are_as_many_as_hold_a_job(http: TestClient, service: FakeService) -> None:
    assert (await submit(http, acks="all")).status == 202
    assert service.submissions == [(3,)]


async def test_more_disks_than_nodes_take_jobs_now_are_refused_and_fewer_are_not(
    http: TestClient, service: FakeService
) -> None:
    service.silent = set(NODES[2:])
    response = await submit(http, acks="all")
    problem = await response.json()
    assert (response.status, problem["type"], problem["definite"]) == (503, "/problems/acks-unmet", True)
    assert (problem["field"], response.headers["Retry-After"]) == ("acks", "1")
    assert "2 nodes take jobs now" in problem["detail"]
    assert service.submissions == []
    many = await http.post("/v1/jobs", json=[{"task": "echo", "acks": acks} for acks in (3, 2, 0)])
    assert ["receipt" in each for each in (await many.json())["jobs"]] == [False, True, True]


async def test_a_mesh_full_of_unfinished_jobs_takes_no_more_until_there_is_room(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as all its nodes take together; the dead take none."""
    owned = [11, 9, 10, 10]
    members = [
        member._replace(load=Load(count, 0, 0, 0, 0)) if count else member._replace(state=MemberState.DEAD)
        for member, count in zip(service.members(), [*owned, 0], strict=True)
    ]
    monkeypatch.setattr(service, "members", lambda: members)
    async with TestClient(TestServer(make_app(service, settings=JobSettings(unfinished_max=10)))) as http:
        for path, body in (("/v1/jobs", {"task": "echo"}), ("/v1/jobs/retry", {"state": "failed"})):
            response = await http.post(path, json=body)
            problem = await response.json()
            assert (response.status, response.headers["Retry-After"]) == (429, "5")
            assert (problem["definite"], problem["unfinished"]) == (True, 40)
        assert service.submissions == []
        members[0] = members[0]._replace(load=Load(10, 0, 0, 0, 0))
        assert (await submit(http)).status == 202


# ------------------------------------------------------------------------------------------- waiting


async def test_a_job_that_ends_while_waited_for_is_answered_with_200(service: FakeService) -> None:
    service.instant = True
    async with TestClient(TestServer(make_app(service))) as http:
        response = await submit(http, headers={"Prefer": "wait=10"}, payload={"a": 1})
        body = await response.json()
    assert (response.status, response.headers["Preference-Applied"]) == (200, "wait=10")
    assert (body["state"], body["settled"], body["result"]) == ("succeeded", True, {"echo": {"a": 1}})
    assert body["receipt"]["acks"] == 2
    assert "Retry-After" not in response.headers


async def test_a_job_that_does_not_end_in_time_is_answered_with_202(service: FakeService) -> None:
    service.patient = False
    async with TestClient(TestServer(make_app(service))) as http:
        response = await submit(http, headers={"Prefer": "respond-async, wait=5; foo"})
    assert (response.status, response.headers["Preference-Applied"]) == (202, "wait=5")
    assert service.waits == [pytest.approx(5.0, abs=0.5)]


async def test_a_read_waits_for_the_end(http: TestClient, service: FakeService) -> None:
    job = await (await submit(http)).json()
    waiting = asyncio.ensure_future(http.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=30"}))
    await service.end(parsed(job), State.FAILED, b"", "no luck")
    body = await (await waiting).json()
    assert (body["state"], body["error"], body["result"]) == ("failed", "no luck", None)


async def test_submissions_that_wait_for_an_end_keep_nobody_else_out(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "BODIES_BYTES_MAX", 3_000)
    monkeypatch.setattr(submitting, "WAITING_BYTES_MAX", 3_000)
    real, has_begun = service.read, asyncio.Event()

    async def read(*args: Any, **named: Any) -> Any:
        has_begun.set()
        return await real(*args, **named)

    service.read = read  # type: ignore[method-assign]
    payload, headers = {"x": "y" * 2_000}, {"Prefer": "wait=30"}
    waiting = asyncio.ensure_future(submit(http, payload=payload, headers=headers))
    await has_begun.wait()
    assert (await submit(http, payload=payload)).status == 202
    unwaited = await submit(http, payload=payload, headers=headers)  # past what is kept of those that wait
    assert (unwaited.status, "Preference-Applied" in unwaited.headers) == (202, False)
    assert (await submit(http, payload={"x": "y" * 4_000})).status == 429
    await service.end(next(iter(service.records)))
    assert (await waiting).status == 200
    service.instant = True
    assert (await submit(http, payload=payload, headers=headers)).status == 200


@pytest.mark.parametrize("again", [False, True])
async def test_results_in_an_answer_are_bounded_and_further_jobs_are_told_of_as_they_were_accepted(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Ends are waited for; and what was there before is read without any wait, too."""
    monkeypatch.setattr(submitting, "LOOK_COUNT", 2)
    monkeypatch.setattr(submitting, "ANSWER_BYTES_MAX", 9_000)  # reached by three
    asked: list[int] = []
    real = service.read

    async def read(jobs_: Any, **named: Any) -> Any:
        asked.append(len(jobs_))
        return await real(jobs_, **named)

    documents = [{"task": "echo", "payload": {"x": "y" * 1_000}, "idempotency_key": str(n)} for n in range(7)]
    service.instant = True
    if again:
        await http.post("/v1/jobs", json=documents)
    service.read = read  # type: ignore[method-assign]
    headers = {} if again else {"Prefer": "wait=30"}
    response = await http.post("/v1/jobs", json=documents, headers=headers)
    told = (await response.json())["jobs"]
    assert response.status == 202
    assert [each["state"] for each in told] == ["succeeded"] * 4 + ["queued"] * 3
    assert [each["result"] is None for each in told] == [False] * 4 + [True] * 3
    assert all("receipt" in each for each in told)
    assert asked == [2, 2]


async def test_many_jobs_that_are_waited_for_are_read_a_few_at_a_time(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "LOOK_COUNT", 2)
    service.instant = True
    response = await http.post("/v1/jobs", json=[{"task": "echo"}] * 5, headers={"Prefer": "wait=30"})
    assert (response.status, len(service.waits)) == (200, 3)
    assert {each["state"] for each in (await response.json())["jobs"]} == {"succeeded"}


@pytest.mark.parametrize(
    ("header", "waited"),
    [
        ("wait=99999", 60.0),
        ('wait="7"', 7.0),
        ("WAIT = 7", 7.0),
        ("wait=x", 0.0),
        ("wait=-1", 0.0),
        ("wait", 0.0),
    ],
)
async def test_a_wait_is_bounded_and_nonsense_is_ignored(
    http: TestClient, service: FakeService, header: str, waited: float
) -> None:
    service.patient = False
    job = await (await submit(http)).json()
    response = await http.get(f"/v1/jobs/{job['id']}", headers={"Prefer": header})
    assert response.status == 200
    assert service.waits == [waited]
    assert ("Preference-Applied" in response.headers) is (waited > 0)


async def test_an_accepted_job_stays_accepted_when_the_wait_goes_wrong(
    http: TestClient, service: FakeService
) -> None:
    async def undecided(*args: Any, **named: Any) -> Any:
        raise Undecided("being asked")

    service.read = undecided  # type: ignore[method-assign]
    response = await submit(http, headers={"Prefer": "wait=1"})
    assert response.status == 202


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("error", "definite"),
    [(Overloaded("full"), True), (NotReady("leaving"), True), (OutcomeUnknown("late"), False)],
)
async def test_a_refused_submission_says_whether_it_did_not_happen(
    http: TestClient, service: FakeService, error: Any, definite: bool
) -> None:
    service.refuse = error
    response = await submit(http)
    problem = await response.json(content_type="application/problem+json")
    assert (response.status, problem["definite"]) == (error.status, definite)
    assert ("Retry-After" in response.headers) is (error.retry_after_s is not None)
    assert job_ids.parse_job_id(problem["job"]) is not None


async def test_a_batch_that_may_have_happened_says_so_in_its_status(
    http: TestClient, service: FakeService
) -> None:
    service.receipt_error = OutcomeUnknown("late")
    response = await http.post("/v1/jobs", json=[7, {"task": "echo"}])
    assert response.status == 504
    assert [job["definite"] for job in (await response.json())["jobs"]] == [True, False]


async def test_a_node_that_is_not_ready_takes_nothing_and_says_why(
    http: TestClient, service: FakeService
) -> None:
    service.reasons = ["joining: no peer has answered yet"]
    for response in (await submit(http), await http.get("/readyz")):
        problem = await response.json(content_type="application/problem+json")
        assert response.status == 503
        assert (problem["definite"], problem["reasons"]) == (True, service.reasons)
        assert response.headers["Retry-After"] == "1"
    assert not service.submissions
    assert (await http.get("/livez")).status == 200


async def test_an_unexpected_error_is_a_number_here_and_a_story_in_the_log(
    http: TestClient, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service.crash = RuntimeError("secret inside")
    response = await submit(http)
    problem = await response.json(content_type="application/problem+json")
    assert (response.status, problem["type"], problem["definite"]) == (500, "/problems/internal", False)
    assert "secret" not in json.dumps(problem)
    assert problem["reference"] in caplog.text
    assert "secret inside" in caplog.text


async def test_too_much_at_once_is_sent_away(service: FakeService) -> None:
    app = make_app(service)
    async with TestClient(TestServer(app)) as http:
        big = [{"task": "echo", "payload": {"x": "y" * 1_000_000}}] * 7
        service.refuse = None
        gate = asyncio.Event()
        real = service.submit

        async def slow(*args: Any, **named: Any) -> Any:
            await gate.wait()
            return await real(*args, **named)

        service.submit = slow  # type: ignore[method-assign]
        sent = [asyncio.ensure_future(http.post("/v1/jobs", json=big)) for _ in range(10)]
        done, _ = await asyncio.wait(sent, return_when=asyncio.FIRST_COMPLETED)
        assert {task.result().status for task in done} == {429}
        for task in done:
            assert "send it again in a moment, or elsewhere" in (await task.result().json())["detail"]
        gate.set()
        statuses = [(await task).status for task in sent]
        assert statuses.count(202) == 9
        assert (await submit(http)).status == 202  # what was counted is given back


# ------------------------------------------------------------------------------------------- reading


async def test_an_unknown_job_is_not_found(http: TestClient) -> None:
    response = await http.get("/v1/jobs/01234567-89ab-7def-8123-456789abcdef")
    problem = await response.json(content_type="application/problem+json")
    assert (response.status, problem["type"], problem["definite"]) == (404, "/problems/job-not-found", True)


async def test_pages_lead_to_every_job_once_newest_first(http: TestClient) -> None:
    batch = [{"task": "echo", "queue": "a" if n % 2 else "b"} for n in range(25)]
    made = (await (await http.post("/v1/jobs", json=batch)).json())["jobs"]
    wanted = [job["id"] for job in reversed(made) if job["queue"] == "a"]
    address, found = "/v1/jobs?queue=a&limit=5&state=queued", []
    while address:
        response = await http.get(address)
        page = await response.json()
        found += [job["id"] for job in page["jobs"]]
        assert len(page["jobs"]) <= 5
        address = str(response.links["next"]["url"].relative()) if "next" in response.links else ""
    assert found == wanted


async def test_a_list_says_who_did_not_answer(http: TestClient, service: FakeService) -> None:
    service.silent = {NODES[4]}
    assert await (await http.get("/v1/jobs")).json() == {"jobs": [], "unanswered": [NODES[4]]}


async def test_the_life_of_a_job_can_be_read(http: TestClient, service: FakeService) -> None:
    body = await (await submit(http, max_attempts=2)).json()
    job = parsed(body)
    record = jobs.started(service.records[job], runner=NODES[1], boot=1, at=START + 1)
    note = jobs.Note(START + 2, "retry", NODES[0], "oh", START + 9)
    record = jobs.failed_once(record, due_at=START + 9, note=note)
    service.records[job] = record
    seen = await (await http.get(f"/v1/jobs/{body['id']}")).json()
    assert (seen["state"], seen["attempt"], seen["starts"]) == ("scheduled", 1, 1)
    assert (seen["run_at"], seen["runner"]) == ("2030-03-17T17:46:49.000Z", None)

    note = jobs.Note(START + 3, "provisional takeover", NODES[2], "silent")
    record = jobs.taken_over(record, Ballot(2, NODES[2]), note)
    record = jobs.taken_over(record, Ballot(3, NODES[1]), jobs.Note(START + 4, "takeover", NODES[1], "died"))
    record = jobs.started(jobs.fallen_due(record), runner=NODES[1], boot=1, at=START + 10)
    service.records[job] = record
    seen = await (await http.get(f"/v1/jobs/{body['id']}")).json()
    assert (seen["state"], seen["attempt"], seen["starts"], seen["takeovers"]) == ("running", 2, 2, 2)
    assert (seen["term"], seen["owner"], seen["runner"]) == (3, NODES[1], NODES[1])
    assert seen["firm"] is True  # the owner said so: the record of a later term does not
    assert [note["kind"] for note in seen["history"]] == ["retry", "provisional takeover", "takeover"]
    assert [note.get("until") for note in seen["history"]] == ["2030-03-17T17:46:49.000Z", None, None]
    (listed,) = (await (await http.get("/v1/jobs")).json())["jobs"]
    assert listed["firm"] is None


async def test_what_is_kept_no_longer_is_not_shown_though_it_is_still_on_the_disk(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = await (await submit(http, ttl_s=5, payload={"n": 1}, idempotency_key="k")).json()
    await service.end(parsed(body), State.FAILED, error="no luck")  # at START + 2
    address = f"/v1/jobs/{body['id']}"

    async def seen() -> list[Any]:
        statuses = [(await http.get(f"{address}/{part}")).status for part in ("result", "logs")]
        again = await submit(http, ttl_s=5, payload={"n": 1}, idempotency_key="k")
        answers = [await http.get(address), await http.get("/v1/jobs?state=failed"), again]
        found = [await answer.json() for answer in answers]
        jobs_ = [found[0], found[1]["jobs"][0], found[2]]
        return statuses + [(job["result_expired"], job["payload"], job["error"]) for job in jobs_]

    monkeypatch.setattr(service, "wall", lambda: START + 6.99)
    assert await seen() == [409, 200] + [(False, {"n": 1}, "no luck")] * 3
    monkeypatch.setattr(service, "wall", lambda: START + 7.0)
    assert await seen() == [410, 410] + [(True, None, None)] * 3
    assert (await http.post(f"{address}/retry")).status == 410
    many = await (await http.post("/v1/jobs/retry", json={"state": "failed"})).json()
    assert [each["status"] for each in many["jobs"]] == [410]


async def test_who_waits_for_the_end_of_a_job_that_is_not_kept_has_its_result(
    http: TestClient, service: FakeService
) -> None:
    body = await (await submit(http, ttl_s=0)).json()
    waiting = asyncio.create_task(http.get(f"/v1/jobs/{body['id']}", headers={"Prefer": "wait=30"}))
    await asyncio.sleep(0)
    await service.end(parsed(body))
    assert (await (await waiting).json())["result"] == 1
    service.instant = True
    body = await (await submit(http, ttl_s=0, headers={"Prefer": "wait=30"})).json()
    assert (body["state"], body["result_expired"]) == ("succeeded", False)


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED, State.EXPIRED])
async def test_a_job_that_was_tried_again_shows_the_id_of_its_retry(
    http: TestClient, service: FakeService, state: State
) -> None:
    body = await (await submit(http)).json()
    await service.end(parsed(body), state)
    address = f"/v1/jobs/{body['id']}"
    assert (await (await http.get(address)).json())["retried_by"] is None
    made = await (await http.post(f"{address}/retry")).json()
    assert (await (await http.get(address)).json())["retried_by"] == made["id"]
    assert (await (await http.get(f"/v1/jobs/{made['id']}")).json())["retried_by"] is None
    listed = (await (await http.get("/v1/jobs")).json())["jobs"]
    assert {job["id"]: job["retried_by"] for job in listed} == {made["id"]: None, body["id"]: made["id"]}
    for retried, jobs_ in (("true", [body["id"]]), ("false", [made["id"]])):
        listed = (await (await http.get("/v1/jobs", params={"retried": retried})).json())["jobs"]
        assert [job["id"] for job in listed] == jobs_
    assert (await http.get("/v1/jobs?retried=maybe")).status == 400


async def test_a_list_of_what_was_not_tried_again_is_filled_from_further_on(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [await (await submit(http)).json() for _ in range(9)]
    for body in made:
        await service.end(parsed(body), State.FAILED)
    for body in made[3:8]:
        await http.post(f"/v1/jobs/{body['id']}/retry")

    async def listed() -> list[list[str]]:
        target, pages = "/v1/jobs?state=failed&retried=false&limit=3", list[list[str]]()
        while target:
            answer = await http.get(target)
            pages.append([job["id"] for job in (await answer.json())["jobs"]])
            target = answer.links["next"]["url"].raw_path_qs if "next" in answer.links else ""
        return pages

    left = [body["id"] for body in (*made[:3], made[8])][::-1]
    assert await listed() == [left[:3], left[3:]]
    monkeypatch.setattr(jobs_api, "LIST_S", 0.0)  # then each page is what one search found
    assert await listed() == [left[:1], [], left[1:]]


async def test_a_retry_is_looked_for_only_where_there_can_be_one_and_not_for_long(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    real = service.read

    async def read(wanted: Any, *, wait_s: float, timeout_s: float) -> Any:
        asked.append(timeout_s)
        if len(asked) > 3:
            raise Overloaded("full")
        return await real(wanted, wait_s=wait_s, timeout_s=timeout_s)

    monkeypatch.setattr(service, "read", read)
    body = await (await submit(http)).json()
    for state in (None, State.SUCCEEDED):
        if state is not None:
            await service.end(parsed(body), state)
        assert (await (await http.get(f"/v1/jobs/{body['id']}")).json())["retried_by"] is None
    assert asked == [3.0, 3.0]
    service.records.clear()
    other = await (await submit(http)).json()
    await service.end(parsed(other), State.FAILED)
    response = await http.get(f"/v1/jobs/{other['id']}")
    assert (response.status, (await response.json())["retried_by"]) == (200, None)
    assert asked == [3.0, 3.0, 3.0, 0.5]


async def test_placement_shows_each_holders_disk_and_who_is_next(
    http: TestClient, service: FakeService
) -> None:
    body = await (await submit(http)).json()
    placement = await (await http.get(f"/v1/jobs/{body['id']}/placement")).json()
    assert [place["name"] for place in placement["rank"]] == [f"node-{letter}" for letter in "abcde"]
    assert (placement["owner"], placement["term"], placement["next"]) == (NODES[0], 1, NODES[1])
    assert [holder["copy"]["status"] for holder in placement["holders"]] == ["held"] * 3
    assert placement["holders"][0]["copy"] == {
        "status": "held", "state": "queued", "settled": False, "term": 1, "owner": NODES[0],
    }  # fmt: skip

    service.silent = {NODES[1]}
    placement = await (await http.get(f"/v1/jobs/{body['id']}/placement")).json()
    assert [holder["copy"]["status"] for holder in placement["holders"]] == ["held", "unreachable", "held"]
    assert placement["holders"][1]["state"] == "dead"
    assert placement["next"] == NODES[2]


async def test_a_placement_of_nothing_tells_no_from_no_answer(http: TestClient, service: FakeService) -> None:
    address = "/v1/jobs/01234567-89ab-7def-8123-456789abcdef/placement"
    assert (await http.get(address)).status == 404
    for silent in (set(NODES), {NODES[4]}):  # of the one that is not asked, too
        service.silent = silent
        response = await http.get(address)
        assert response.status == 503
        assert (await response.json(content_type="application/problem+json"))["definite"] is False


async def test_a_placement_of_what_its_holders_lost_is_shown_from_the_copy_that_a_read_finds(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = await (await submit(http)).json()

    async def inspect(job: JobId, *, timeout_s: float) -> InspectDone:
        return InspectDone(RequestId(0), {NODES[0]: None})

    monkeypatch.setattr(service, "inspect", inspect)
    placement = await (await http.get(f"/v1/jobs/{body['id']}/placement")).json()
    assert placement["owner"] == NODES[0]
    statuses = [holder["copy"]["status"] for holder in placement["holders"]]
    assert statuses == ["none", "unreachable", "unreachable"]


async def test_a_node_whose_disk_takes_no_writes_refuses_submissions_for_certain(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "refusal", lambda: StoreUnwritable("it is full"))
    response = await submit(http)
    problem = await response.json(content_type="application/problem+json")
    assert (response.status, problem["type"], problem["definite"]) == (
        507,
        "/problems/store-unwritable",
        True,
    )
    assert response.headers["Retry-After"] == "5"
    assert not service.submissions


async def test_a_living_member_whose_disk_takes_no_writes_is_shown_as_resigned(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.silent = {NODES[1]}
    members = [member._replace(info=member.info._replace(stores=False)) for member in service.members()]
    monkeypatch.setattr(service, "members", lambda: members)
    nodes = (await (await http.get("/v1/nodes")).json())["nodes"]
    assert [node["state"] for node in nodes] == ["resigned", "dead", *["resigned"] * 3]
    assert (await (await http.get("/v1/mesh")).json())["nodes"] == {"resigned": 4, "dead": 1}


async def test_the_bare_result_is_there_while_it_is_kept(http: TestClient, service: FakeService) -> None:
    body = await (await submit(http)).json()
    address, job = f"/v1/jobs/{body['id']}/result", parsed(body)
    early = await http.get(address)
    assert (early.status, early.headers["Retry-After"]) == (409, "1")
    assert (await early.json(content_type=None))["state"] == "queued"
    await service.end(job, result=b'{"width":800}')
    done = await http.get(address)
    assert (done.status, await done.json()) == (200, {"width": 800})
    service.records[job] = jobs.shrunk(service.records[job])
    gone = await http.get(address)
    problem = await gone.json(content_type=None)
    assert (gone.status, problem["type"], problem["state"]) == (410, "/problems/result-expired", "succeeded")
    assert (await http.get("/v1/jobs/01234567-89ab-7def-8123-456789abcdef/result")).status == 404


async def test_a_job_that_failed_has_no_result_but_a_reason(http: TestClient, service: FakeService) -> None:
    body = await (await submit(http)).json()
    await service.end(parsed(body), State.FAILED, b"", "no disk")
    response = await http.get(f"/v1/jobs/{body['id']}/result")
    problem = await response.json(content_type=None)
    assert (response.status, problem["state"], problem["error"]) == (409, "failed", "no disk")


async def test_of_a_job_whose_result_is_not_kept_any_more_the_rest_is_told(
    http: TestClient, service: FakeService
) -> None:
    body = await (await submit(http, queue="slow")).json()
    assert body["result_expired"] is False
    assert body["expires_at"] == "2030-03-24T17:46:40.000Z"
    await service.end(parsed(body))
    service.records[parsed(body)] = jobs.shrunk(service.records[parsed(body)])
    response = await http.get(f"/v1/jobs/{body['id']}")
    shown = await response.json()
    assert response.status == 200
    assert (shown["state"], shown["settled"], shown["result_expired"]) == ("succeeded", True, True)
    assert (shown["payload"], shown["result"], shown["queue"], shown["starts"]) == (None, None, "slow", 1)
    assert shown["finished_at"] == "2030-03-17T17:46:42.000Z"
    listed = await (await http.get("/v1/jobs?queue=slow")).json()
    assert [job["id"] for job in listed["jobs"]] == [body["id"]]


async def test_every_task_of_the_living_is_listed_with_who_has_it(
    http: TestClient, service: FakeService
) -> None:
    service.silent = {NODES[2]}
    tasks = {task["name"]: task for task in (await (await http.get("/v1/tasks")).json())["tasks"]}
    assert list(tasks) == ["echo", "image.resize"]
    resize = tasks["image.resize"]
    assert resize.pop("schema")["required"] == ["source", "width"]
    assert [node["name"] for node in resize.pop("nodes")] == ["node-a", "node-b", "node-d", "node-e"]
    assert resize == {
        "name": "image.resize", "summary": "Make a picture smaller.", "timeout_s": 30.0, "max_attempts": 7,
        "backoff": {"kind": "constant", "base_s": 2.0, "cap_s": 60.0},
        "async": False, "inline": False,
    }  # fmt: skip
    assert service.described == [({"echo", "image.resize"}, JobSettings().describe_s)]
    # Of what nobody describes, this node knows the name and where it is.
    echo = tasks["echo"]
    assert (echo["schema"], echo["summary"], echo["timeout_s"], echo["inline"]) == (None, None, None, None)
    assert echo["nodes"][1] == {"id": NODES[1], "name": "node-b", "api": "http://127.0.0.1:8702"}


async def test_members_are_listed_by_name(http: TestClient) -> None:
    nodes = (await (await http.get("/v1/nodes")).json())["nodes"]
    assert [node["name"] for node in nodes] == [f"node-{letter}" for letter in "abcde"]
    assert nodes[0] == {
        "id": NODES[0], "name": "node-a", "state": "ready", "ready": True, "self": True,
        "api": "http://127.0.0.1:8701", "addresses": ["127.0.0.1:9701"], "boot": 1, "version": "0.1.0",
        "weight": 1.0, "slots": 2, "async_slots": 0, "labels": {"zone": "x"},
        "tasks": ["echo", "image.resize"],
        "load": {"owned": 1, "queued": 2, "running": 3, "done": 4, "free": 5, "taken": 6},
        "joined_at": "2030-03-17T17:46:40.000Z", "heard_s": None, "clock_ahead_s": None,
    }  # fmt: skip
    assert await (await http.get("/v1/nodes/self")).json() == nodes[0]
    assert await (await http.get(f"/v1/nodes/{NODES[2]}")).json() == nodes[2]
    response = await http.get("/v1/nodes/nobody")
    assert (response.status, (await response.json(content_type=None))["field"]) == (404, "id")


async def test_the_mesh_is_summed_up(http: TestClient, service: FakeService) -> None:
    service.silent = {NODES[4]}
    mesh = await (await http.get("/v1/mesh")).json()
    assert mesh == {
        "id": "m" * 16, "self": {"id": NODES[0], "name": "node-a"}, "version": "0.1.0", "uptime_s": 12.5,
        "replicas": 3, "nodes": {"ready": 4, "dead": 1}, "tasks": ["echo", "image.resize"],
        "load": {"owned": 4, "queued": 8, "running": 12, "done": 16, "free": 20},
    }  # fmt: skip


# --------------------------------------------------------------------------------------- what is common


async def test_the_index_leads_to_resources_that_exist(http: TestClient) -> None:
    for path in (await (await http.get("/")).json())["resources"]:
        assert (await http.get(path.replace("{id}", "self" if "nodes" in path else "x"))).status in (200, 400)


async def test_what_is_not_there_is_a_problem_too(http: TestClient) -> None:
    response = await http.get("/v1/nothing")
    assert (response.status, response.content_type) == (404, "application/problem+json")
    response = await http.delete("/v1/jobs")
    assert (response.status, response.content_type) == (405, "application/problem+json")
    assert response.headers["Allow"] == "GET, HEAD, POST"


async def test_no_answer_may_be_sniffed_cached_or_framed(http: TestClient) -> None:
    for path in ("/v1/nodes", "/v1/nothing"):
        headers = (await http.get(path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Server"].startswith("edgenode/")
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8701", "127.0.0.1.evil.example", "10.0.0.1", "["]
)
async def test_another_name_for_this_machine_is_refused(
    http: TestClient, service: FakeService, host: str
) -> None:
    response = await http.get("/v1/nodes", headers={"Host": host})
    assert (response.status, (await response.json(content_type=None))["field"]) == (421, "Host")


@pytest.mark.parametrize("host", ["localhost", "localhost:8701", "127.0.0.1:1", "127.8.8.8", "[::1]:8701"])
async def test_loopback_names_are_answered(http: TestClient, host: str) -> None:
    assert (await http.get("/v1/nodes", headers={"Host": host})).status == 200


async def test_beyond_loopback_any_name_is_answered(service: FakeService) -> None:
    async with TestClient(TestServer(make_app(service, is_loopback_only=False))) as http:
        assert (await http.get("/v1/nodes", headers={"Host": "node1.lan"})).status == 200


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
async def test_another_sites_page_submits_nothing(
    http: TestClient, service: FakeService, headers: dict[str, str]
) -> None:
    assert (await submit(http, headers=headers)).status == 403
    assert not service.submissions


async def test_our_own_page_may_submit(http: TestClient) -> None:
    origin = f"http://{http.host}:{http.port}"
    assert (await submit(http, headers={"Origin": origin, "Sec-Fetch-Site": "same-origin"})).status == 202


async def test_the_node_is_told_how_long_it_may_take(service: FakeService) -> None:
    asked: list[float] = []
    real = service.submit

    async def noting(*args: Any, timeout_s: float, **named: Any) -> Any:
        asked.append(timeout_s)
        return await real(*args, timeout_s=timeout_s, **named)

    service.submit = noting  # type: ignore[method-assign]
    async with TestClient(TestServer(make_app(service, settings=JobSettings(submit_s=4.5)))) as http:
        await submit(http)
    assert asked == [4.5]


async def test_what_only_asks_is_a_get_and_what_changes_something_a_post(service: FakeService) -> None:
    routes = {(route.method, route.resource.canonical) for route in make_app(service).router.routes()}
    changing = {"/v1/jobs"} | {
        f"/v1/jobs/{place}{verb}" for place in ("", "{id}/") for verb in ("cancel", "retry")
    }
    assert {path for method, path in routes if method not in ("GET", "HEAD")} >= changing
    assert not changing - {"/v1/jobs"} & {path for method, path in routes if method == "GET"}
    assert isinstance(make_app(service), web.Application)


async def test_metrics_are_served_in_the_format_that_prometheus_reads(http: TestClient) -> None:
    response = await http.get("/metrics")
    assert (response.status, response.headers["Content-Type"]) == (
        200,
        "text/plain; version=0.0.4; charset=utf-8",
    )
    assert "edgenode_ready 1.0" in await response.text()


# ------------------------------------------------------------------------------------------ long work


class Slow(Resize):
    """Takes a while to check a payload, by its own clock; knows in which thread, after how many turns of the
    loop."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = 0
        self.seen: list[tuple[bool, int]] = []

    def read(self, payload: object) -> object:
        self.now += 0.005
        self.seen.append((threading.current_thread() is threading.main_thread(), self.turns))
        return super().read(payload)

    async def count(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.turns += 1


@pytest.fixture
async def slow(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Slow]:
    found = Slow()
    monkeypatch.setattr(turns, "perf_counter", lambda: found.now)
    service.schemas["image.resize"] = found
    counting = asyncio.create_task(found.count())
    yield found
    counting.cancel()


SMALL = {"task": "image.resize", "payload": {"source": "a", "width": 1}}
LARGE = {"task": "image.resize", "payload": {"source": "a", "width": 1, "more": [{"x": [1] * 100}] * 500}}


async def test_the_event_loop_has_its_turn_after_so_much_work_not_after_so_many_jobs(
    http: TestClient, slow: Slow
) -> None:
    response = await http.post("/v1/jobs", json=[SMALL] * 9)
    assert response.status == 202
    assert len({turn for _, turn in slow.seen}) == 9
    assert all(is_main for is_main, _ in slow.seen)


@pytest.mark.parametrize("documents", [[LARGE], [SMALL, LARGE, SMALL], [LARGE] * 3])
async def test_a_large_payload_is_checked_beside_the_event_loop(
    http: TestClient, slow: Slow, documents: list[object]
) -> None:
    response = await http.post("/v1/jobs", json=documents)
    told = (await response.json())["jobs"]
    assert [each.get("field") for each in told] == [None if each is SMALL else "more" for each in documents]
    assert [is_main for is_main, _ in slow.seen] == [each is SMALL for each in documents]


async def test_a_long_body_is_parsed_beside_the_event_loop(
    http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = submitting.parse_json, []

    def parse(body: bytes) -> object:
        seen.append(threading.current_thread() is threading.main_thread())
        return real(body)

    monkeypatch.setattr(submitting, "parse_json", parse)
    monkeypatch.setattr(submitting, "LONG_BYTES", 1_000)
    for count in (1, 2_000):
        assert (await submit(http, payload={"x": "y" * count})).status == 202
    refused = await http.post("/v1/jobs", data="[" * 2_000, headers={"Content-Type": "application/json"})
    assert (refused.status, (await refused.json())["field"]) == (400, "body")
    assert seen == [True, False, False]
