"""What a job's starts said, over HTTP: as text, as JSON, and in the job itself."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from edgenode.core import job_ids, jobs
from edgenode.core.errors import Undecided
from edgenode.core.types import JobId, NodeId, StartToken, State
from edgenode.core.wire import Said
from tests.api.fake import NODES, START, FakeService

Client = TestClient[Any, Any]
JSON = {"Accept": "application/json"}


async def running_job(http: Client, service: FakeService) -> tuple[str, StartToken]:
    answer = await http.post("/v1/jobs", json={"task": "echo"})
    text = (await answer.json())["id"]
    return text, service.run(key(text))


def key(text: str) -> JobId:
    found = job_ids.parse_job_id(text)
    assert found is not None
    return found


def said(job: str, token: StartToken, number: int, text: str = "", before: int = 0, **more: Any) -> Said:
    plain = Said(key(job), token, number, NODES[1], 1, START + 2, -1.0, "", before, text.encode(), b"")
    return plain._replace(**more)


async def get(http: Client, path: str, **headers: str) -> Any:
    async with http.get(path, headers=headers) as answer:
        body = await answer.json() if "json" in answer.content_type else await answer.text()
        return answer.status, body


async def test_the_log_has_a_line_before_each_start(http: Client, service: FakeService) -> None:
    job, token = await running_job(http, service)
    again = token._replace(term=2, owner=NODES[2])
    service.said = [
        said(job, token, 1, "one\n"),
        said(job, token, 2, "cut o", 4),
        said(job, again, 1, "two\n", attempt=2, runner=NodeId("stranger")),
    ]
    status, text = await get(http, f"/v1/jobs/{job}/logs")
    assert status == 200
    assert text == (
        "--- attempt 1, start 1.node-a.1, on node-b ---\n"
        "one\ncut o\n"
        "--- attempt 2, start 2.node-c.1, on stranger ---\n"
        "two\n"
    )


async def test_the_log_as_json(http: Client, service: FakeService) -> None:
    job, token = await running_job(http, service)
    service.said = [
        said(job, token, 7, "end\n", 100, fraction=0.5, message="half"),
        said(job, token, 8, before=104, fraction=0.5, message="half", partial=b'{"rows":3}'),
    ]
    service.silent = {NODES[4]}
    _, found = await get(http, f"/v1/jobs/{job}/logs", **JSON)
    assert found["job"] == job
    assert found["unanswered"] == [NODES[4]]
    (start,) = found["starts"]
    assert start["progress"] == {"fraction": 0.5, "message": "half", "at": "2030-03-17T17:46:42.000Z"}
    del start["progress"]
    assert start == {
        "attempt": 1, "term": 1, "owner": NODES[0], "start": 1, "runner": NODES[1], "message": "half",
        "partial": {"rows": 3}, "text": "end\n", "bytes": 104, "truncated": True, "missing": [[0, 100]],
    }  # fmt: skip


async def test_what_is_not_there_is_said_in_the_text_too(http: Client, service: FakeService) -> None:
    job, token = await running_job(http, service)
    service.said = [said(job, token, 7, "and\n", 100), said(job, token, 9, "end\n", 120)]
    service.silent = {NODES[4]}
    _, text = await get(http, f"/v1/jobs/{job}/logs", Accept="text/plain")
    assert "[100 bytes are missing]\nand\n[16 bytes are missing]\nend\n" in text
    assert text.endswith("--- there may be more at: node-e ---\n")


@pytest.mark.parametrize("what", ["unknown", "unheard", "malformed"])
async def test_a_log_of_no_job_is_answered_as_the_job_itself(
    http: Client, service: FakeService, what: str
) -> None:
    if what == "unheard":
        service.silent = {NODES[3]}
    job = "nonsense" if what == "malformed" else "01930000-0000-7000-8000-000000000000"
    status, problem = await get(http, f"/v1/jobs/{job}")
    found, other = await get(http, f"/v1/jobs/{job}/logs")
    assert status in (400, 404, 503)
    del problem["instance"], other["instance"]
    assert (found, other) == (status, problem)


async def test_a_log_that_went_with_its_job_is_gone(http: Client, service: FakeService) -> None:
    job, _ = await running_job(http, service)
    await service.end(key(job))
    service.records[key(job)] = jobs.shrunk(service.records[key(job)])
    status, problem = await get(http, f"/v1/jobs/{job}/logs")
    assert (status, problem["definite"]) == (410, True)
    status, _ = await get(http, f"/v1/jobs/{job}")
    assert status == 200
    assert not any(brief for _, brief in service.reports_asked[1:]), "nobody is asked in vain"


async def test_a_job_shows_how_far_its_latest_start_is(http: Client, service: FakeService) -> None:
    job, token = await running_job(http, service)
    _, found = await get(http, f"/v1/jobs/{job}")
    assert (found["progress"], found["partial"]) == (None, None)
    service.said = [said(job, token, 1, fraction=0.25, message="a quarter", partial=b"[1]")]
    _, found = await get(http, f"/v1/jobs/{job}")
    assert found["progress"] == {
        "fraction": 0.25, "message": "a quarter", "at": "2030-03-17T17:46:42.000Z",
    }  # fmt: skip
    assert found["partial"] == [1]
    assert service.reports_asked[-1] == ([service.records[key(job)].owner], True)
    await service.end(key(job))
    _, found = await get(http, f"/v1/jobs/{job}")
    assert found["progress"]["fraction"] == 0.25
    assert found["partial"] is None, "there is a result now"


async def test_the_partial_result_of_a_job_that_failed_stays(http: Client, service: FakeService) -> None:
    job, token = await running_job(http, service)
    service.said = [said(job, token, 1, partial=b"[1]")]
    await service.end(key(job), State.FAILED, b"", "no")
    _, found = await get(http, f"/v1/jobs/{job}")
    assert (found["partial"], found["result"]) == ([1], None)


async def test_progress_of_an_earlier_start_is_not_shown_for_the_present_one(
    http: Client, service: FakeService
) -> None:
    job, token = await running_job(http, service)
    service.said = [said(job, token._replace(start=0), 1, fraction=0.9)]
    _, found = await get(http, f"/v1/jobs/{job}")
    assert found["progress"] is None


async def test_a_job_that_never_started_is_shown_without_asking_for_reports(
    http: Client, service: FakeService
) -> None:
    answer = await http.post("/v1/jobs", json={"task": "echo"})
    _, found = await get(http, f"/v1/jobs/{(await answer.json())['id']}")
    assert found["progress"] is None
    assert service.reports_asked == []


async def test_a_job_is_shown_if_nobody_can_tell_its_progress_and_its_log_is_not(
    http: Client, service: FakeService
) -> None:
    job, _ = await running_job(http, service)
    service.reports_error = Undecided("this node's disk refused a write meanwhile")
    status, found = await get(http, f"/v1/jobs/{job}")
    assert (status, found["progress"]) == (200, None)
    status, problem = await get(http, f"/v1/jobs/{job}/logs")
    assert (status, problem["definite"]) == (503, False)


async def test_a_partial_result_that_is_no_json_harms_nobody(http: Client, service: FakeService) -> None:
    job, token = await running_job(http, service)
    service.said = [said(job, token, 1, partial=b"{")]
    assert (await get(http, f"/v1/jobs/{job}"))[1]["partial"] is None
    status, _ = await get(http, f"/v1/jobs/{job}/logs", **JSON)
    assert status == 200


async def test_all_members_are_asked_for_the_log_of_a_job_whose_holders_changed(
    http: Client, service: FakeService
) -> None:
    job, _ = await running_job(http, service)
    service.records[key(job)] = service.records[key(job)]._replace(epoch=1)
    await get(http, f"/v1/jobs/{job}/logs")
    assert service.reports_asked[-1] == ((), False)
