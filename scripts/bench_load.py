"""The load of a bench: clients that submit, wait and read, all in one process of their own.

Each function here is called in that process, gets and returns what can be pickled, and ends by itself. What a
node answers is checked: a job counts as done only if it is settled, has succeeded, and gave back the message
that was sent.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import cycle
from typing import Any, Final, NamedTuple, TypeVar

import aiohttp
from yarl import URL

DRAIN_S: Final = 60.0
"""How long accepted jobs may take to settle after the last was sent."""
REQUEST_S: Final = 70.0
POLL_S: Final = 0.02
PAGE: Final = 1000
EMPTY_PAYLOAD: Final = len('{"message":""}')

T = TypeVar("T")


def document(payload_bytes: int, task: str = "echo", **options: Any) -> dict[str, Any]:
    """A job that echoes, whose payload is so many bytes long as compact JSON."""
    return {"task": task, "payload": {"message": "x" * (payload_bytes - EMPTY_PAYLOAD)}, **options}


def seconds_of(text: str | None) -> float:
    """Unix seconds of a time in an answer; 0 if there is none."""
    return 0.0 if text is None else datetime.fromisoformat(text).timestamp()


class Plan(NamedTuple):
    """What clients send. Each asks one node, and waits for its answer before it asks again."""

    urls: tuple[str, ...]
    document: dict[str, Any]
    clients: int
    seconds: float
    jobs_max: int
    batch: int = 0  # jobs in a request; 0 for a single object
    wait_s: int = 0
    rate: float = 0.0  # jobs a second of all clients together; 0 is as many as they can


class Sent(NamedTuple):
    """A job that was accepted."""

    id: str
    sent: float
    answered: float
    has_ended: bool


@dataclass
class Load:
    """What came of a plan."""

    jobs: list[Sent] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    acks: set[int] = field(default_factory=set)
    took_s: float = 0.0
    cpu_s: float = 0.0
    asked: int = 0

    @property
    def rate(self) -> float:
        return len(self.jobs) / self.took_s

    @property
    def waits_ms(self) -> list[float]:
        """Of those jobs that had ended when they were answered."""
        return [1000 * (job.answered - job.sent) for job in self.jobs if job.has_ended]


class Finish(NamedTuple):
    """The end of an end to end run: seconds since it began, and each good job's end."""

    settled_s: float
    read_s: float
    finished: dict[str, float]
    restarted: int
    bad: Counter[str]
    cpu_s: float


class Reads(NamedTuple):
    took_s: float
    failed: int
    cpu_s: float
    latencies_s: list[float]  # of those that did not fail


def on_loop(work: Awaitable[T]) -> T:
    """Run it on the loop that nodes use: the load must not be what is slow."""

    async def whole() -> T:
        return await work

    try:
        import uvloop
    except ImportError:
        return asyncio.run(whole())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(whole())


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=REQUEST_S)
    )


# ---------------------------------------------------------------------------------------------- submitting


def submit(plan: Plan) -> Load:
    return on_loop(_submit(plan))


async def _submit(plan: Plan) -> Load:
    load, began, cpu = Load(), time.perf_counter(), time.process_time()
    async with _session() as session, asyncio.TaskGroup() as group:
        for number, url in zip(range(plan.clients), cycle(plan.urls), strict=False):
            group.create_task(_client(session, url, plan, load, began, number))
    load.took_s, load.cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return load


async def _client(
    session: aiohttp.ClientSession, url: str, plan: Plan, load: Load, began: float, number: int
) -> None:
    size = max(1, plan.batch)
    body = _body(plan, size)
    headers = {"Content-Type": "application/json"}
    if plan.wait_s:
        headers["Prefer"] = f"wait={plan.wait_s}"
    ends = began + plan.seconds
    pause_s = plan.clients * size / plan.rate if plan.rate else 0.0
    due = began + pause_s * number / plan.clients
    while load.asked < plan.jobs_max and max(time.perf_counter(), due) < ends:
        if plan.rate:
            await asyncio.sleep(due - time.perf_counter())
            due += pause_s
        left = plan.jobs_max - load.asked
        if left < size:
            size, body = left, _body(plan, left)
        load.asked += size
        sent = time.time()
        try:
            async with session.post(f"{url}/v1/jobs", data=body, headers=headers) as answer:
                told = json.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            load.refused[type(error).__name__] += size
            continue
        answered = time.time()
        for job in told.get("jobs", [told]):
            if "receipt" not in job:
                load.refused[str(job.get("title"))] += 1
                continue
            load.acks.add(job["receipt"]["acks"])
            load.jobs.append(Sent(job["id"], sent, answered, why_not_good(job, plan.document) is None))


def _body(plan: Plan, size: int) -> bytes:
    return json.dumps([plan.document] * size if plan.batch else plan.document, separators=(",", ":")).encode()


def why_not_good(job: dict[str, Any], sent: dict[str, Any]) -> str | None:
    """What is wrong with a job that should have echoed; None if all is well."""
    if not job["settled"]:
        return "not settled"
    if job["state"] != "succeeded":
        return str(job["state"])
    return None if job["result"] == sent["payload"]["message"] else "a wrong result"


# ----------------------------------------------------------------------------------------------- finishing


def finish(urls: tuple[str, ...], sent: dict[str, Any], count: int, began: float) -> Finish:
    """Wait until all `count` jobs like `sent` in its queue have settled, and read all of them.

    Args:
        began: when the first was sent, in Unix seconds.
    """
    return on_loop(_finish(urls, sent, count, began))


async def _finish(urls: tuple[str, ...], sent: dict[str, Any], count: int, began: float) -> Finish:
    cpu, ends = time.process_time(), time.time() + DRAIN_S
    jobs: list[dict[str, Any]] = []
    async with _session() as session:
        while True:
            is_over = time.time() > ends
            if is_over or not await _owned(session, urls):
                settled_s = time.time() - began
                jobs = await _listed(session, urls[0], sent["queue"])
            if is_over or sum(job["settled"] for job in jobs) >= count:
                break
            await asyncio.sleep(POLL_S)
    read_s = time.time() - began
    verdicts = {job["id"]: why_not_good(job, sent) for job in jobs}
    finished = {job["id"]: seconds_of(job["finished_at"]) for job in jobs if verdicts[job["id"]] is None}
    bad = Counter(why for why in verdicts.values() if why is not None)
    if len(jobs) != count:
        bad["missing" if len(jobs) < count else "too many"] += abs(len(jobs) - count)
    restarted = sum(job["starts"] != 1 for job in jobs)
    return Finish(settled_s, read_s, finished, restarted, bad, time.process_time() - cpu)


async def _owned(session: aiohttp.ClientSession, urls: Sequence[str]) -> int:
    """Unsettled jobs in the whole mesh, by what each node says of itself."""
    owned = 0
    for url in urls:
        async with session.get(f"{url}/v1/nodes/self") as answer:
            owned += (await answer.json())["load"]["owned"]
    return owned


async def _listed(session: aiohttp.ClientSession, url: str, queue: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    path: str | None = f"/v1/jobs?queue={queue}&limit={PAGE}"
    while path is not None:
        async with session.get(url + path) as answer:
            found += json.loads(await answer.read())["jobs"]
            link = answer.links.get("next")
            path = None if link is None else URL(link["url"]).path_qs
    return found


# ------------------------------------------------------------------------------------------------- reading


def read(targets: Sequence[str], clients: int, seconds: float) -> Reads:
    """GET the targets (whole URLs of jobs) in turn; one counts if it is the job with that id."""
    return on_loop(_read(targets, clients, seconds))


async def _read(targets: Sequence[str], clients: int, seconds: float) -> Reads:
    began, cpu = time.perf_counter(), time.process_time()
    order, latencies, failed = cycle(targets), [], 0

    async def reader(session: aiohttp.ClientSession) -> None:
        nonlocal failed
        while (at := time.perf_counter()) < began + seconds:
            target = next(order)
            async with session.get(target) as answer:
                told = json.loads(await answer.read())
            if answer.status == 200 and target.endswith(told["id"]):
                latencies.append(time.perf_counter() - at)
            else:
                failed += 1

    async with _session() as session, asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(reader(session))
    return Reads(time.perf_counter() - began, failed, time.process_time() - cpu, latencies)
