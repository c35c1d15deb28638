"""A job that nobody can run says why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from edgenode.api import reasons
from edgenode.core import job_ids
from edgenode.core.lines import key_gate, queue_gate
from edgenode.core.types import Load, MemberState, State
from tests.api.fake import NODES, FakeService


async def reason(http: TestClient, service: FakeService, gate: str = "", **fields: Any) -> str | None:
    """What a new job waits for, as it says when it is shown, and when it is listed.

    Args:
        gate: where its owner says that it waits.
    """
    answer = await http.post("/v1/jobs", json={"task": "echo"} | fields)
    job = (await answer.json())["id"]
    parsed = job_ids.parse_job_id(job)
    assert parsed is not None
    service.held = {parsed: gate} if gate else {}
    found: str | None = (await (await http.get(f"/v1/jobs/{job}")).json())["waiting_for"]
    listed = (await (await http.get("/v1/jobs")).json())["jobs"]
    assert {each["id"]: each["waiting_for"] for each in listed}[job] == found
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
    who = "(node-a is dead, node-b is dead, node-c is dead)"
    assert found["waiting_for"] == f"a node with the task 'echo': none of 0 that are ready has it {who}"


async def test_a_job_that_waits_for_a_slot_says_so(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = [member._replace(load=Load(running=2)) for member in service.members()]
    monkeypatch.setattr(service, "members", lambda: busy)
    assert await reason(http, service) == "a free slot on one of 5 nodes"


async def test_a_job_of_a_paused_queue_waits_for_that(http: TestClient, service: FakeService) -> None:
    await http.post("/v1/queues/mail/pause")
    assert await reason(http, service, queue="mail") == "its queue, 'mail', which is paused"
    assert await reason(http, service) is None


async def test_a_job_that_its_owner_holds_back_says_by_which_limit(
    http: TestClient, service: FakeService
) -> None:
    gate, turn = queue_gate("mail"), "a turn in its queue, 'mail'"
    assert await reason(http, service, gate, queue="mail") == turn, "this node has not heard of the limit"
    await http.put("/v1/queues/mail", json={"concurrency": 5})
    assert await reason(http, service, gate, queue="mail") == f"{turn}: at most 5 of its jobs run at a time"
    assert await reason(http, service, queue="mail") is None, "its owner says nothing of it"
    await http.put("/v1/queues/mail", json={"rate": 2.5})
    told = f"{turn}: at most 5 of its jobs run at a time, and at most 2.5 start per second"
    assert await reason(http, service, gate, queue="mail") == told
    await http.put("/v1/queues/mail", json={"concurrency": None})
    told = f"{turn}: at most 2.5 start per second"
    assert await reason(http, service, gate, queue="mail") == told
    await http.post("/v1/queues/mail/pause")
    told = "its queue, 'mail', which is paused"
    assert await reason(http, service, gate, queue="mail") == told


async def test_a_job_whose_key_has_no_turn_says_so(http: TestClient, service: FakeService) -> None:
    options = {"queue": "mail", "concurrency_key": "customer 7", "concurrency_limit": 2}
    told = await reason(http, service, key_gate("customer 7"), **options)
    assert told == "a turn for its concurrency key, 'customer 7': at most 2 jobs with it run at a time"
    assert await reason(http, service, **options) is None


async def test_what_nobody_has_goes_before_a_turn_and_a_turn_before_a_slot(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = queue_gate("mail")
    told = await reason(http, service, gate, queue="mail", requires=["gpu"])
    assert told is not None
    assert told.startswith("a node with gpu=yes")
    busy = [member._replace(load=Load(running=2)) for member in service.members()]
    monkeypatch.setattr(service, "members", lambda: busy)
    assert await reason(http, service, gate, queue="mail") == "a turn in its queue, 'mail'"


@pytest.mark.parametrize(
    ("running", "free", "told"),
    [
        (0, 2, (None, None)),
        (2, 0, ("a free slot on one of 5 nodes", None)),
        (3, 2, (None, "a free slot on one of 5 nodes")),
        (4, 1, (None, "a free slot on one of 5 nodes")),
        (5, 0, ("a free slot on one of 5 nodes", "a free slot on one of 5 nodes")),
    ],
)
async def test_coroutines_wait_for_slots_of_their_own(
    http: TestClient,
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
    running: int,
    free: int,
    told: tuple[str | None, str | None],
) -> None:
    """Of 2 slots and 3 async ones on each node."""
    members = [
        member._replace(
            info=member.info._replace(coroutines=("image.resize",), async_slots=3),
            load=Load(running=running, free=free),
        )
        for member in service.members()
    ]
    monkeypatch.setattr(service, "members", lambda: members)
    payload = {"source": "a", "width": 1}
    assert await reason(http, service) == told[0]
    assert await reason(http, service, task="image.resize", payload=payload) == told[1]


async def test_a_member_that_has_not_told_its_load_may_be_idle(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = service.members()
    members = [first._replace(load=Load()), *(each._replace(load=Load(running=2)) for each in others)]
    monkeypatch.setattr(service, "members", lambda: members)
    assert await reason(http, service) is None


async def test_a_page_of_jobs_looks_at_members_and_queues_once(
    http: TestClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be a thousand of each."""
    for _ in range(3):
        await http.post("/v1/jobs", json={"task": "echo"})
    looks = Counter[str]()

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def look(*arguments: object) -> Any:
            looks[name] += 1
            return call(*arguments)

        return look

    monkeypatch.setattr(service, "members", counted("members", service.members))
    monkeypatch.setattr(service, "queues", counted("queues", service.queues))
    monkeypatch.setattr(reasons, "lack_of", counted("nodes that fit", reasons.lack_of))
    assert len((await (await http.get("/v1/jobs")).json())["jobs"]) == 3
    assert looks == {"members": 1, "queues": 1, "nodes that fit": 1}


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
    busy = [member._replace(load=Load(running=2)) for member in dead]
    monkeypatch.setattr(service, "members", lambda: busy)
    found = await (await http.get(f"/v1/jobs/{answer['id']}")).json()
    assert found["waiting_for"] == "a majority of its holders: 1 of 3 live", "a slot would not help it"
