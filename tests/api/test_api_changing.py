"""Cancelling jobs, and trying them again, over HTTP."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from edgenode.api import changing, selecting
from edgenode.core import job_ids, jobs
from edgenode.core.specs import AS_ITS_TASK, decode_spec
from edgenode.core.types import Backoff, JobId, State
from edgenode.core.view import MeshView
from tests.api.fake import NODES, START, FakeService

NOBODY = "01930000-0000-7000-8000-000000000000"


async def submitted(http: TestClient, **fields: Any) -> str:
    answer = await http.post("/v1/jobs", json={"task": "echo", "payload": {"n": 1}} | fields)
    job: str = (await answer.json())["id"]
    return job


def parsed(job: str) -> JobId:
    found = job_ids.parse_job_id(job)
    assert found is not None
    return found


async def ended(http: TestClient, service: FakeService, state: State, **fields: Any) -> str:
    job = await submitted(http, **fields)
    await service.end(parsed(job), state, error="" if state is State.SUCCEEDED else "no luck")
    return job


# ------------------------------------------------------------------------------------------- cancels


async def test_a_job_that_has_not_ended_is_cancelled(http: TestClient, service: FakeService) -> None:
    job = await submitted(http)
    answer = await http.post(f"/v1/jobs/{job}/cancel")
    assert answer.status == 200
    assert (await answer.json())["state"] == "cancelled"
    assert service.wishes == [parsed(job)]


async def test_cancelling_twice_is_as_good_as_once(http: TestClient, service: FakeService) -> None:
    job = await submitted(http)
    for _ in range(2):
        answer = await http.post(f"/v1/jobs/{job}/cancel")
        assert (answer.status, (await answer.json())["state"]) == (200, "cancelled")
    assert len(service.wishes) == 1


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.EXPIRED])
async def test_what_has_ended_cannot_be_cancelled(
    http: TestClient, service: FakeService, state: State
) -> None:
    job = await ended(http, service, state)
    answer = await http.post(f"/v1/jobs/{job}/cancel")
    problem = await answer.json()
    assert (answer.status, problem["type"], problem["definite"]) == (409, "/problems/job-ended", True)
    assert problem["state"] == state
    assert service.wishes == []


async def test_a_job_that_still_runs_after_its_cancel_was_noted_will_end(
    http: TestClient, service: FakeService
) -> None:
    service.stubborn, service.patient = True, False
    job = await submitted(http)
    answer = await http.post(f"/v1/jobs/{job}/cancel", headers={"Prefer": "wait=1"})
    assert answer.status == 202
    assert answer.headers["Retry-After"] == "1"


async def test_a_cancel_that_too_few_holders_heard_is_no_promise(
    http: TestClient, service: FakeService
) -> None:
    service.deaf, service.patient = True, False
    job = await submitted(http)
    answer = await http.post(f"/v1/jobs/{job}/cancel")
    problem = await answer.json()
    assert (problem["type"], problem["definite"], problem["job"]) == ("/problems/outcome-unknown", False, job)


async def test_nobody_can_cancel_or_retry_what_nobody_knows(http: TestClient) -> None:
    for verb in ("cancel", "retry"):
        assert (await http.post(f"/v1/jobs/{NOBODY}/{verb}")).status == 404
        assert (await http.post(f"/v1/jobs/nonsense/{verb}")).status == 400


async def test_many_are_cancelled_by_their_ids(http: TestClient, service: FakeService) -> None:
    waiting, done = await submitted(http), await ended(http, service, State.SUCCEEDED)
    answer = await http.post("/v1/jobs/cancel", json={"ids": [waiting, done, NOBODY]})
    told = (await answer.json())["jobs"]
    assert answer.status == 200
    assert [each.get("id", each.get("job")) for each in told] == [waiting, done, NOBODY]
    by_id = {each.get("id", each.get("job")): each for each in told}
    assert by_id[waiting]["state"] == "cancelled"
    assert by_id[done]["state"] == "succeeded"
    assert by_id[NOBODY]["status"] == 404


async def test_all_that_fit_are_cancelled(http: TestClient, service: FakeService) -> None:
    these = {await submitted(http, queue="mail") for _ in range(3)}
    other = await submitted(http, queue="other")
    await ended(http, service, State.FAILED, queue="mail")
    answer = await http.post("/v1/jobs/cancel", json={"queue": "mail"})
    assert {each["id"] for each in (await answer.json())["jobs"]} == these
    assert service.records[parsed(other)].state is State.QUEUED


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ([], "body"),
        ({"ids": ["x"]}, "ids[0]"),
        ({"ids": [1]}, "ids[0]"),
        ({"ids": "x"}, "ids"),
        ({"ids": [], "queue": "mail"}, "ids"),
        ({"state": "busy"}, "state"),
        ({"queue": 7}, "queue"),
        ({"queue": ""}, "queue"),
        ({"queues": "mail"}, "queues"),
        ({"state": "succeeded"}, "state"),
        ({"cursor": "AA"}, "body"),
        ({"queue": "default", "cursor": "?"}, "cursor"),
        ({"queue": "default", "cursor": ""}, "cursor"),
        ({"queue": "default", "cursor": "CQ"}, "cursor"),
        ({"queue": "default", "cursor": "AAA"}, "cursor"),
    ],
)
@pytest.mark.parametrize("verb", ["cancel", "retry"])
async def test_who_does_not_say_which_jobs_is_told_what_to_say(
    http: TestClient, service: FakeService, body: Any, field: str, verb: str
) -> None:
    job = await submitted(http)
    answer = await http.post(f"/v1/jobs/{verb}", json=body)
    assert (answer.status, (await answer.json())["field"]) == (400, field)
    assert service.records[parsed(job)].state is State.QUEUED


async def test_a_form_of_another_site_cancels_nothing(http: TestClient, service: FakeService) -> None:
    job = await submitted(http)
    answer = await http.post(f"/v1/jobs/{job}/cancel", headers={"Origin": "https://evil.example"})
    assert answer.status == 403
    assert service.wishes == []


# ------------------------------------------------------------------------------------------- retries


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED, State.EXPIRED])
async def test_the_work_of_a_job_that_ended_badly_is_tried_again_as_a_new_job(
    http: TestClient, service: FakeService, state: State
) -> None:
    options = {"queue": "mail", "priority": 9, "max_attempts": 5, "requires": {"gpu": "yes"}, "ttl_s": 60}
    backoff = {"kind": "constant", "base_s": 2.0, "cap_s": 300.0}
    job = await ended(http, service, state, **options, backoff=backoff)
    answer = await http.post(f"/v1/jobs/{job}/retry")
    made = await answer.json()
    assert answer.status == 202
    assert answer.headers["Location"] == f"/v1/jobs/{made['id']}"
    assert made["id"] != job
    assert (made["retry_of"], made["state"], made["payload"]) == (job, "queued", {"n": 1})
    spec = decode_spec(service.records[parsed(made["id"])].spec)
    assert (spec.options.queue, spec.options.priority, spec.options.max_attempts) == ("mail", 9, 5)
    assert spec.options.backoff == Backoff("constant", 2.0, 300.0)
    assert (spec.options.requires, spec.options.ttl_s) == ((("gpu", "yes"),), 60.0)
    assert service.records[parsed(job)].state is state


@pytest.mark.parametrize(
    ("options", "timeout_s"), [({}, AS_ITS_TASK), ({"timeout_s": 0}, 0.0), ({"timeout_s": 2.5}, 2.5)]
)
async def test_a_retry_says_of_its_timeout_what_the_job_said(
    http: TestClient, service: FakeService, options: dict[str, float], timeout_s: float
) -> None:
    job = await ended(http, service, State.FAILED, **options)
    made = await (await http.post(f"/v1/jobs/{job}/retry")).json()
    assert decode_spec(service.records[parsed(made["id"])].spec).options.timeout_s == timeout_s


async def test_a_retry_is_on_as_many_disks_as_there_are_to_ask_for_now(
    http: TestClient, service: FakeService
) -> None:
    all_, two = (
        await ended(http, service, State.FAILED, acks="all"),
        await ended(http, service, State.FAILED, acks=2),
    )
    first = await (await http.post(f"/v1/jobs/{all_}/retry")).json()
    service.mesh = lambda: MeshView("m" * 16, "node-a", "0.1.0", 12.5, 1)  # type: ignore[method-assign]
    again = await http.post(f"/v1/jobs/{all_}/retry")
    assert (again.status, (await again.json())["id"]) == (202, first["id"])
    assert again.headers["Idempotent-Replayed"] == "true"
    other = await (await http.post(f"/v1/jobs/{two}/retry")).json()
    made = [decode_spec(service.records[parsed(each["id"])].spec).options.acks for each in (first, other)]
    assert made == [3, 1]


async def test_a_job_has_one_retry_however_often_it_is_asked_for(
    http: TestClient, service: FakeService
) -> None:
    job = await ended(http, service, State.FAILED)
    first = await (await http.post(f"/v1/jobs/{job}/retry")).json()
    again = await http.post(f"/v1/jobs/{job}/retry")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (await again.json())["id"] == first["id"]
    await service.end(parsed(first["id"]), State.FAILED)
    third = await (await http.post(f"/v1/jobs/{first['id']}/retry")).json()
    assert third["retry_of"] == first["id"]
    assert len({job, first["id"], third["id"]}) == 3


async def test_what_goes_on_or_succeeded_is_not_tried_again(http: TestClient, service: FakeService) -> None:
    for job in (await submitted(http), await ended(http, service, State.SUCCEEDED)):
        answer = await http.post(f"/v1/jobs/{job}/retry")
        problem = await answer.json()
        assert (answer.status, problem["type"]) == (409, "/problems/not-retryable")
    assert len(service.records) == 2


async def test_what_is_not_kept_any_more_is_not_tried_again(http: TestClient, service: FakeService) -> None:
    job = parsed(await ended(http, service, State.FAILED))
    service.records[job] = jobs.shrunk(service.records[job])
    answer = await http.post(f"/v1/jobs/{job_ids.job_text(job)}/retry")
    problem = await answer.json()
    assert (answer.status, problem["type"]) == (410, "/problems/result-expired")
    assert "ttl_s. Submit the work anew" in problem["detail"]


async def test_all_that_failed_are_tried_again(http: TestClient, service: FakeService) -> None:
    failed = {await ended(http, service, State.FAILED, queue="mail") for _ in range(3)}
    await ended(http, service, State.SUCCEEDED, queue="mail")
    answer = await http.post("/v1/jobs/retry", json={"state": "failed", "queue": "mail"})
    made = (await answer.json())["jobs"]
    assert answer.status == 202
    assert {each["retry_of"] for each in made} == failed
    assert service.wall() == START


async def test_what_was_tried_again_before_is_left_out_of_all_that_fit_and_counted(
    http: TestClient, service: FakeService
) -> None:
    failed = [await ended(http, service, State.FAILED) for _ in range(5)]
    body = {"state": "failed"}
    await http.post("/v1/jobs/retry", json={"ids": failed[1:3]})
    answer = await http.post("/v1/jobs/retry", json=body)
    found = await answer.json()
    assert ({each["retry_of"] for each in found["jobs"]}, found["skipped"]) == (
        {failed[0], *failed[3:]},
        2,
    )
    answer = await http.post("/v1/jobs/retry", json=body)
    assert (answer.status, await answer.json()) == (
        200, {"jobs": [], "unanswered": [], "next": None, "skipped": 5},
    )  # fmt: skip
    again = await (await http.post("/v1/jobs/retry", json={"ids": failed})).json()
    assert (len(again["jobs"]), again["skipped"]) == (5, 0)  # whoever names it hears of its retry


async def test_what_is_tried_again_is_checked_as_what_is_submitted(
    http: TestClient, service: FakeService
) -> None:
    schemas, service.schemas = service.schemas, {}
    job = await ended(http, service, State.FAILED, task="image.resize")
    service.schemas = schemas
    service.described.clear()
    alone = await http.post(f"/v1/jobs/{job}/retry")
    assert (alone.status, (await alone.json())["field"]) == (422, "source")
    many = await http.post("/v1/jobs/retry", json={"state": "failed"})
    assert (many.status, (await many.json())["jobs"][0]["field"]) == (422, "source")
    assert [names for names, _ in service.described] == [{"image.resize"}] * 2


async def test_when_nothing_failed_nothing_is_tried_again(http: TestClient) -> None:
    answer = await http.post("/v1/jobs/retry", json={"state": "failed"})
    assert (answer.status, await answer.json()) == (
        200,
        {"jobs": [], "unanswered": [], "next": None, "skipped": 0},
    )


async def test_what_was_cancelled_is_tried_again_only_if_that_is_said(
    http: TestClient, service: FakeService
) -> None:
    of = {
        state: await ended(http, service, state, queue="mail")
        for state in (State.FAILED, State.CANCELLED, State.EXPIRED, State.SUCCEEDED)
    }
    answer = await http.post("/v1/jobs/retry", json={"queue": "mail"})
    assert [each["retry_of"] for each in (await answer.json())["jobs"]] == [
        of[State.FAILED],
        of[State.EXPIRED],
    ]
    answer = await http.post("/v1/jobs/retry", json={"queue": "mail", "state": "cancelled"})
    assert [each["retry_of"] for each in (await answer.json())["jobs"]] == [of[State.CANCELLED]]
    answer = await http.post("/v1/jobs/retry", json={"ids": [of[State.CANCELLED]]})
    assert answer.status == 202


async def test_a_job_that_can_not_be_tried_again_is_named_with_the_reason(
    http: TestClient, service: FakeService
) -> None:
    one, other = await ended(http, service, State.FAILED), await ended(http, service, State.FAILED)
    service.known_tasks = lambda: frozenset({"image.resize"})  # type: ignore[method-assign]
    answer = await http.post("/v1/jobs/retry", json={"ids": [other, NOBODY, one]})
    told = (await answer.json())["jobs"]
    assert answer.status == 422
    assert [each["job"] for each in told] == [other, NOBODY, one]
    assert [each["index"] for each in told] == [0, 1, 2]
    assert "--tasks MODULE_OR_FILE" in told[0]["detail"]


async def test_retries_can_be_waited_for(http: TestClient, service: FakeService) -> None:
    failed = [await ended(http, service, State.FAILED) for _ in range(2)]
    service.instant = True
    answer = await http.post("/v1/jobs/retry", json={"ids": failed}, headers={"Prefer": "wait=10"})
    told = (await answer.json())["jobs"]
    assert (answer.status, answer.headers["Preference-Applied"]) == (200, "wait=10")
    assert [each["result"] for each in told] == [{"echo": {"n": 1}}] * 2
    service.instant, service.patient = False, False
    again = [await ended(http, service, State.FAILED)]
    answer = await http.post("/v1/jobs/retry", json={"ids": again}, headers={"Prefer": "wait=10"})
    assert (answer.status, answer.headers["Retry-After"]) == (202, "1")


# ------------------------------------------------------------------------------------ all that fit


@pytest.mark.parametrize("verb", ["cancel", "retry"])
async def test_members_that_did_not_look_for_jobs_are_named(
    http: TestClient, service: FakeService, verb: str
) -> None:
    service.silent = {NODES[1], NODES[3]}
    for body in ({"queue": "mail"}, {"task": "echo"}):
        answer = await http.post(f"/v1/jobs/{verb}", json=body)
        assert (await answer.json())["unanswered"] == [NODES[1], NODES[3]]
        await ended(http, service, State.FAILED)
        await submitted(http)
    answer = await http.post(f"/v1/jobs/{verb}", json={"ids": [NOBODY]})
    assert (await answer.json())["unanswered"] == []


async def all_of(http: TestClient, verb: str, body: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """What each of the requests answered that it took."""
    told = []
    onward: str | None = None
    while True:
        answer = await http.post(
            f"/v1/jobs/{verb}", json=body if onward is None else body | {"cursor": onward}
        )
        assert answer.status in (200, 202)
        found = await answer.json()
        told.append(found["jobs"])
        onward = found["next"]
        if onward is None:
            return told


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three jobs a page, six a request, two a piece."""
    monkeypatch.setattr(selecting, "PAGE", 3)
    monkeypatch.setattr(selecting, "ITEMS_MAX", 6)
    monkeypatch.setattr(changing, "CHUNK", 2)


@pytest.mark.usefixtures("small")
async def test_more_than_a_request_takes_is_cancelled_by_further_ones(
    http: TestClient, service: FakeService
) -> None:
    jobs_ = [await submitted(http) for _ in range(14)]
    told = await all_of(http, "cancel", {"task": "echo"})
    assert [len(each) for each in told] == [6, 6, 2]
    assert [each["id"] for page in told for each in page] == jobs_[::-1]
    assert all(record.state is State.CANCELLED for record in service.records.values())


@pytest.mark.usefixtures("small")
async def test_more_than_a_request_takes_is_tried_again_by_further_ones(
    http: TestClient, service: FakeService
) -> None:
    states = [State.FAILED, State.SUCCEEDED, State.EXPIRED, State.CANCELLED] * 4
    jobs_ = [await ended(http, service, state) for state in states]
    told = await all_of(http, "retry", {"queue": "default"})
    assert [each["retry_of"] for page in told for each in page] == jobs_[::4][::-1] + jobs_[2::4][::-1]
    assert all(len(page) <= 6 for page in told)


@pytest.mark.parametrize("verb", ["cancel", "retry"])
async def test_a_request_that_looks_for_long_says_where_to_go_on(
    http: TestClient, service: FakeService, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selecting, "PAGE", 3)
    monkeypatch.setattr(selecting, "SPAN_S", 0.0)
    for _ in range(7):
        await ended(http, service, State.FAILED)
        await submitted(http)
    told = await all_of(http, verb, {"queue": "default"})
    assert sum(map(len, told)) == 7
    assert len(told) == (5 if verb == "cancel" else 4)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("verb", ["cancel", "retry"])
async def test_a_request_that_changes_jobs_for_long_says_where_to_go_on(
    http: TestClient, service: FakeService, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changing, "CHANGE_S", 0.0)
    jobs_ = [
        await (submitted(http) if verb == "cancel" else ended(http, service, State.FAILED)) for _ in range(7)
    ]
    told = await all_of(http, verb, {"task": "echo"})
    assert [len(page) for page in told] == [2, 2, 2, 1]
    name = "id" if verb == "cancel" else "retry_of"
    assert [each[name] for page in told for each in page] == jobs_[::-1]
    if verb == "cancel":  # by ids there is no going on
        answer = await http.post("/v1/jobs/cancel", json={"ids": jobs_[:5]})
        assert len((await answer.json())["jobs"]) == 5


@pytest.mark.usefixtures("small")
async def test_records_are_read_a_few_at_a_time(http: TestClient, service: FakeService) -> None:
    asked: list[int] = []
    real = service.read

    async def read(jobs_: Any, **named: Any) -> Any:
        asked.append(len(jobs_))
        return await real(jobs_, **named)

    ids = [await ended(http, service, State.FAILED) for _ in range(5)] + [
        await submitted(http) for _ in range(5)
    ]
    service.read = read  # type: ignore[method-assign]
    await http.post("/v1/jobs/retry", json={"ids": ids}, headers={"Prefer": "wait=1"})
    await http.post("/v1/jobs/cancel", json={"ids": ids})
    await all_of(http, "retry", {"task": "echo"})
    assert asked
    assert max(asked) == 2


@pytest.mark.usefixtures("small")
async def test_a_retry_that_fails_at_once_is_not_tried_again_by_the_same_request(
    http: TestClient, service: FakeService
) -> None:
    failed = {await ended(http, service, State.FAILED) for _ in range(5)}
    real = service.submit

    async def submit(specs: Any, **named: Any) -> Any:
        receipts = await real(specs, **named)
        for receipt in receipts:
            await service.end(receipt.job, State.FAILED)
        return receipts

    service.submit = submit  # type: ignore[method-assign]
    answer = await http.post("/v1/jobs/retry", json={"state": "failed"})
    assert {each["retry_of"] for each in (await answer.json())["jobs"]} == failed


async def test_no_more_is_tried_again_at_one_time_than_a_submission_may_have(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [10, 10, 900, 900, 2_500, 10, 10]
    failed = [await ended(http, service, State.FAILED, payload={"x": "y" * size}) for size in sizes]
    monkeypatch.setattr(changing, "BODY_BYTES_MAX", 1_000)
    service.submissions.clear()
    answer = await http.post("/v1/jobs/retry", json={"ids": [*failed[:3], NOBODY, *failed[3:]]})
    told = (await answer.json())["jobs"]
    assert [each.get("retry_of", each.get("job")) for each in told] == [*failed[:3], NOBODY, *failed[3:]]
    assert [len(each) for each in service.submissions] == [3, 1, 1, 2]


async def test_a_large_job_is_tried_again_beside_the_event_loop(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = [
        await ended(http, service, State.FAILED, payload={"x": "y" * size}) for size in (10, 100_000)
    ]
    seen: list[tuple[str, bool]] = []

    def again(job: JobId) -> JobId:
        seen.append((job_ids.job_text(job), threading.current_thread() is threading.main_thread()))
        return real(job)

    real = changing.retry_id
    monkeypatch.setattr(changing, "retry_id", again)
    assert (await http.post(f"/v1/jobs/{large}/retry")).status == 202
    assert (await http.post("/v1/jobs/retry", json={"ids": [small, large]})).status == 202
    assert seen == [(large, False), (small, True), (large, False)]


@pytest.mark.usefixtures("small")
async def test_the_answer_to_a_retry_is_bounded(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = [await ended(http, service, State.FAILED, payload={"x": "y" * 1000}) for _ in range(6)]
    monkeypatch.setattr(changing, "ANSWER_BYTES_MAX", 7_000)  # reached by four
    told = await all_of(http, "retry", {"state": "failed"})
    assert [len(page) for page in told] == [4, 2]
    assert sorted(each["retry_of"] for page in told for each in page) == sorted(failed)
    answer = await http.post("/v1/jobs/retry", json={"ids": failed})
    told = (await answer.json())["jobs"]
    assert [each.get("status") for each in told] == [None] * 4 + [413] * 2
    assert [each["job"] for each in told[4:]] == failed[4:]
    assert "ask for this one in a request of its own" in told[4]["detail"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("count", "waited"), [(7, []), (2, [30.0])])
async def test_ends_are_waited_for_when_all_that_fit_are_told_to_end(
    http: TestClient, service: FakeService, count: int, waited: list[float]
) -> None:
    """Of more than one request takes the rest comes first."""
    service.patient, service.stubborn = False, True
    for _ in range(count):
        await submitted(http)
    answer = await http.post("/v1/jobs/cancel", json={"task": "echo"}, headers={"Prefer": "wait=30"})
    assert answer.status == 202
    assert [round(wait_s) for wait_s in service.waits if wait_s > 0] == waited
    assert ("Preference-Applied" in answer.headers) == bool(waited)


async def test_too_many_ids_are_to_be_sent_in_parts(http: TestClient) -> None:
    answer = await http.post("/v1/jobs/cancel", json={"ids": [NOBODY] * 10_001})
    problem = await answer.json()
    assert (answer.status, problem["field"], problem["limit"]) == (413, "ids", 10_000)
    assert "send it in parts" in problem["detail"]


async def test_of_many_cancels_those_that_too_few_holders_heard_are_no_promise(
    http: TestClient, service: FakeService
) -> None:
    service.deaf, service.patient = True, False
    job = await submitted(http)
    answer = await http.post("/v1/jobs/cancel", json={"queue": "default"})
    (told,) = (await answer.json())["jobs"]
    assert (told["type"], told["definite"], told["job"]) == ("/problems/outcome-unknown", False, job)
