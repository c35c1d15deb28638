"""The clients against real HTTP: the same promises, blocking and not."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from edgenode.api import selecting
from edgenode.client import (
    AsyncClient,
    BadAnswer,
    Client,
    ClientError,
    Job,
    NoNodeReachable,
    OutcomeUnknown,
    Refused,
    WaitTimedOut,
)
from edgenode.client.exchange import Answer, Pause
from edgenode.client.operations import DEFAULT_URL, Operations, is_here, node_urls
from edgenode.core import errors
from edgenode.core.job_ids import parse_job_id
from edgenode.core.specs import decode_spec
from edgenode.core.types import Backoff, State
from tests.api.fake import NODES, START, FakeService, Served, served


class Blocking:
    """`AsyncClient` with the manners of `Client`, so that each test below speaks for both."""

    def __init__(self, urls: Any = None, **named: Any) -> None:
        self._made = (urls, named)

    def __getattr__(self, name: str) -> Any:
        urls, named = self._made

        def call(*args: Any, **options: Any) -> Any:
            async def run() -> Any:
                async with AsyncClient(urls, **named) as client:
                    if name == "jobs":
                        return [job async for job in client.jobs(*args, **options)]
                    found = await getattr(client, name)(*args, **options)
                    self.urls = client.urls
                    return found

            return asyncio.run(run())

        return call


@pytest.fixture(params=[Client, Blocking], ids=["sync", "async"])
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    kind: Callable[..., Any] = request.param
    return kind


@pytest.fixture
def node() -> Iterator[Served]:
    with served(FakeService(instant=True)) as found:
        yield found


def refusing_port() -> str:
    """The URL of a port that nobody listens at."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def stub(answer: bytes | None) -> Iterator[tuple[str, list[bytes]]]:
    """A port that reads one request each, and answers these bytes; None ends the connection instead."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    heard.append(connection.recv(65536))
                    if answer is not None:
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", heard
        finally:
            server.shutdown(socket.SHUT_RDWR)
            server.close()
            thread.join(5)
            assert not thread.is_alive()


def test_a_job_is_submitted_and_followed_to_its_end(make: Any, node: Served) -> None:
    client = make(node.url)
    job = client.submit("echo", {"text": "ü"}, priority=7, delay_s=0)
    assert job.fields["receipt"] == {"acks": 2, "nodes": list(NODES[:2])}
    assert (job.state, job.has_ended) == ("queued", False)
    ended = client.wait(job.id, timeout_s=30)
    assert (ended.state, ended.result, ended.succeeded) == ("succeeded", {"echo": {"text": "ü"}}, True)
    assert ended.fields["priority"] == 7


def test_a_submission_may_wait_for_the_end(make: Any, node: Served) -> None:
    assert make(node.url).submit("echo", wait_s=10).has_ended


def test_times_may_be_given_as_datetimes(make: Any, node: Served) -> None:
    job = make(node.url).submit("echo", run_at=datetime(2031, 1, 1, tzinfo=UTC))
    assert job.fields["run_at"] == "2031-01-01T00:00:00.000Z"
    with pytest.raises(TypeError, match="zone"):
        make(node.url).submit("echo", run_at=datetime(2031, 1, 1))


def test_a_wait_ends_with_the_job_as_it_was_last_seen(make: Any) -> None:
    with served(FakeService(patient=False)) as node:
        client = make(node.url)
        job = client.submit("echo")
        with pytest.raises(WaitTimedOut) as caught:
            client.wait(job.id, timeout_s=0.05)
        assert caught.value.job.state == "queued"
        assert not caught.value.definite


def test_a_refused_job_names_its_field(make: Any, node: Served) -> None:
    with pytest.raises(Refused) as caught:
        make(node.url).submit("echo", prioritty=3)
    assert (caught.value.status, caught.value.field, caught.value.definite) == (422, "prioritty", True)
    with pytest.raises(Refused) as caught:
        make(node.url).get("01234567-89ab-7def-8123-456789abcdef")
    assert (caught.value.status, caught.value.slug) == (404, "job-not-found")


def test_many_jobs_have_a_result_each_in_order(make: Any, node: Served) -> None:
    documents: list[dict[str, Any]] = [{"task": "echo", "payload": {"n": n}} for n in range(1_200)]
    documents[700] = {"task": "no.such"}
    results = make(node.url).submit_many(documents)
    assert len(results) == 1_200
    assert isinstance(results[700], Refused)
    assert results[700].field == "task"
    assert all(job.fields["payload"] == {"n": n} for n, job in enumerate(results) if n != 700)
    assert [len(jobs) for jobs in node.service.submissions] == [500, 499, 200]


def test_a_batch_of_which_nothing_is_taken_still_tells_each(make: Any, node: Served) -> None:
    results = make(node.url).submit_many([{"task": "no.such"}, {"task": 7}])
    assert [(type(result), result.field) for result in results] == [(Refused, "task")] * 2


def test_what_met_a_whole_request_stands_for_each_of_its_jobs(make: Any, node: Served) -> None:
    node.service.refuse = errors.OutcomeUnknown("late")
    results = make(node.url).submit_many([{"task": "echo"}] * 3)
    assert [result.definite for result in results] == [False] * 3


def test_unreachable_nodes_take_none_of_many(make: Any) -> None:
    results = make(refusing_port()).submit_many([{"task": "echo"}] * 501)
    assert len(results) == 501
    assert {type(result) for result in results} == {NoNodeReachable}


def test_all_pages_are_listed(make: Any, node: Served) -> None:
    client = make(node.url)
    made = [job.id for job in client.submit_many([{"task": "echo", "queue": "slow"}] * 7)]
    client.submit("echo")
    listed = [job.id for job in client.jobs(queue="slow", page=3)]
    assert listed == made[::-1]


def test_durations_and_backoffs_are_sent_as_what_they_are(make: Any, node: Served) -> None:
    node.service.instant = False
    job = make(node.url).submit(
        "echo",
        delay_s=timedelta(minutes=2),
        timeout_s=timedelta(seconds=1.5),
        backoff=Backoff("constant", 5.0, 60.0),
    )
    (record,) = node.service.records.values()
    assert record.id == parse_job_id(job.id)
    options = decode_spec(record.spec).options
    assert (options.run_at, options.timeout_s) == (START + 120, 1.5)
    assert options.backoff == Backoff("constant", 5.0, 60.0)


def test_the_jobs_of_a_batch_are_listed_with_how_they_ended(make: Any, node: Served) -> None:
    client = make(node.url)
    node.service.instant = False
    assert client.submit_batch([{"task": "echo", "idempotency_key": "a"}]).id == ""
    batch = client.submit_batch([{"task": "echo"}] * 3)
    node.end(batch.jobs[1].id, State.FAILED)
    found = client.batch_jobs(batch.id)
    assert (found["id"], found["size"], found["states"]) == (batch.id, 3, {"queued": 2, "failed": 1})
    assert [(each["id"], each["state"]) for each in found["jobs"]] == [
        (job.id, "failed" if place == 1 else "queued") for place, job in enumerate(batch.jobs)
    ]
    with pytest.raises(Refused) as refusal:
        client.batch_jobs("nonsense")
    assert refusal.value.status == 400


def test_a_batch_that_is_answered_for_before_its_time_is_not_asked_for_without_pause() -> None:
    now, asked = 0.0, 0
    steps = Operations("http://a", timeout_s=5, clock=lambda: now).wait_batch("b", 30.0)
    outcome: Answer | None = None
    found = None
    while found is None:
        try:
            step = steps.send(outcome)
        except StopIteration as stop:
            found = stop.value
        else:
            if isinstance(step, Pause):
                now, outcome = now + step.seconds, None
            else:
                now, asked = now + 0.01, asked + 1
                outcome = Answer(200, {}, b'{"settled": false}', "http://a")
    assert found == {"settled": False}
    assert now == pytest.approx(30.0, abs=0.1)
    assert asked <= 32


def test_cancels_and_retries_wait_as_long_as_they_are_asked_to(make: Any, node: Served) -> None:
    client = make(node.url)
    node.service.instant = node.service.patient = False
    jobs = [client.submit("echo").id for _ in range(2)]
    node.service.stubborn = True
    (told,) = client.cancel_many(jobs[:1], wait_s=7)
    assert (told["state"], node.service.waits[-1]) == ("queued", pytest.approx(7.0, abs=0.5))
    for job in jobs:
        node.end(job, State.FAILED)
    assert client.retry(jobs[0], wait_s=9).state == "queued"
    assert node.service.waits[-1] == pytest.approx(9.0, abs=0.5)
    (again,) = client.retry_many(jobs[1:], wait_s=11)
    assert again.fields["retry_of"] == jobs[1]
    assert node.service.waits[-1] == pytest.approx(11.0, abs=0.5)
    node.end(again.id)
    assert client.retry_many(jobs[1:], wait_s=11)[0].succeeded


def test_all_that_fit_are_changed_however_many_requests_that_takes(
    make: Any, node: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selecting, "PAGE", 2)
    monkeypatch.setattr(selecting, "ITEMS_MAX", 4)
    client = make(node.url)
    node.service.instant = False
    jobs = {job.id for job in client.submit_many([{"task": "echo"}] * 9)}
    told = client.cancel_many(task="echo")
    assert {each["id"] for each in told} == jobs
    assert (len(told), told.unanswered) == (9, frozenset())
    node.service.silent = {NODES[4]}
    again = client.retry_many(state="cancelled", task="echo")
    assert {each.fields["retry_of"] for each in again} == jobs
    assert (len(again), again.unanswered) == (9, {NODES[4]})
    assert client.retry_many(sorted(jobs)[:4]).unanswered == frozenset()
    again = client.retry_many(state="cancelled", task="echo")
    assert (again, again.skipped) == ([], 9)


@pytest.mark.parametrize(
    "body", [b'{"jobs": [], "next": "AA"}', b'{"jobs": [{"receipt": 1}]}', b'{"jobs": 7}', b"[]"]
)
def test_an_answer_to_a_change_that_makes_no_sense_is_no_end_without_end(make: Any, body: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    with stub(answer % (len(body), body)) as (url, _), pytest.raises(BadAnswer):
        make(url, timeout_s=5).retry_many(queue="mail")


def test_the_mesh_can_be_looked_at(make: Any, node: Served) -> None:
    client = make(node.url)
    job = client.submit("echo")
    assert [member["name"] for member in client.nodes()] == [f"node-{letter}" for letter in "abcde"]
    assert [task["name"] for task in client.tasks()] == ["echo", "image.resize"]
    assert client.node()["id"] == NODES[0]
    assert client.node(NODES[2])["name"] == "node-c"
    assert client.mesh()["replicas"] == 3
    assert client.placement(job.id)["owner"] == NODES[0]
    assert client.logs(job.id) == {"job": job.id, "starts": [], "unanswered": []}


# ------------------------------------------------------------------------------------------- failing over


def test_the_next_node_is_asked_when_one_refuses_connections(make: Any, node: Served) -> None:
    client = make([refusing_port(), node.url])
    assert client.submit("echo").state == "queued"
    assert client.urls[0] == node.url  # the one that answered is asked first from now on


@pytest.mark.parametrize("refusal", [errors.NotReady("leaving"), errors.StoreUnwritable("full")], ids=repr)
def test_a_node_that_takes_no_jobs_sends_them_to_the_next(
    make: Any, node: Served, refusal: errors.EdgeNodeError
) -> None:
    busy = FakeService()
    busy.refusal = lambda: refusal  # type: ignore[method-assign]
    with served(busy) as leaving:
        assert make([leaving.url, node.url]).submit("echo").state == "queued"
    assert not busy.submissions
    assert len(node.service.submissions) == 1


def test_later_is_tried_again_later(make: Any, node: Served) -> None:
    node.service.refuse_once = errors.Overloaded("full", retry_after_s=0.01)
    assert make(node.url).submit("echo").state == "queued"
    assert len(node.service.submissions) == 2


def test_later_for_ever_is_told_when_the_time_is_up(make: Any, node: Served) -> None:
    node.service.refuse = errors.Overloaded("full", retry_after_s=60)
    with pytest.raises(Refused) as caught:
        make(node.url, timeout_s=1).submit("echo")
    assert (caught.value.status, caught.value.definite) == (429, True)


@pytest.mark.parametrize(("lasting", "most"), [(True, 2), (False, 1000)])
def test_what_only_the_dead_could_answer_is_asked_twice(make: Any, lasting: bool, most: int) -> None:
    problem = json.dumps({"status": 503, "definite": False, "lasting": lasting, "retry_after_s": 0.01})
    head = f"Content-Type: application/problem+json\r\nContent-Length: {len(problem)}\r\nConnection: close"
    with stub(f"HTTP/1.1 503 Later\r\n{head}\r\n\r\n{problem}".encode()) as (url, heard):
        with pytest.raises(Refused):
            make(url, timeout_s=1.2).get("0")
        assert 2 <= len(heard) <= most
        assert lasting or len(heard) > 2


@pytest.mark.parametrize("length", ["Content-Length: 14\r\n", ""])
def test_an_answer_that_ends_its_connection_is_read_as_any_other(make: Any, length: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{length}Connection: close\r\n\r\n"
    with stub(head.encode() + b'{"replicas":3}') as (url, _):
        assert make(url).mesh() == {"replicas": 3}


def test_with_a_key_an_unknown_outcome_is_tried_at_the_next_node(make: Any, node: Served) -> None:
    node.service.refuse = errors.OutcomeUnknown("too few holders")
    with served(FakeService()) as other:
        job = make([node.url, other.url]).submit("echo", idempotency_key="k")
        assert job.fields["idempotency_key"] == "k"
        assert len(other.service.submissions) == 1


def test_with_a_key_a_submission_without_an_answer_is_sent_again(make: Any, node: Served) -> None:
    with stub(None) as (url, heard):
        job = make([url, node.url]).submit("echo", idempotency_key="k")
        assert job.state == "queued"
        assert len(heard) == 1


def test_with_a_key_and_one_node_it_is_tried_until_there_is_an_answer(make: Any, node: Served) -> None:
    node.service.refuse_once = errors.KeyInFlight("its holders do not answer", retry_after_s=0.01)
    assert make(node.url).submit("echo", idempotency_key="k").state == "queued"
    assert len(node.service.submissions) == 2


def test_with_a_key_an_outcome_that_stays_unknown_is_told_when_the_time_is_up(
    make: Any, node: Served
) -> None:
    node.service.refuse = errors.OutcomeUnknown("too few holders")
    with pytest.raises(OutcomeUnknown):
        make(node.url, timeout_s=0.6).submit("echo", idempotency_key="k")
    assert len(node.service.submissions) >= 2


def test_a_key_of_other_content_is_told_at_once(make: Any, node: Served) -> None:
    client = make(node.url)
    client.submit("echo", idempotency_key="k")
    again = client.submit("echo", idempotency_key="k")
    assert again.fields["receipt"]["replayed"]
    with pytest.raises(Refused) as caught:
        client.submit("echo", {"n": 2}, idempotency_key="k")
    assert (caught.value.status, caught.value.slug, caught.value.definite) == (422, "key-reused", True)


@pytest.mark.parametrize("many", [False, True])
def test_with_a_key_a_refusal_after_an_attempt_without_an_answer_is_not_definite(
    make: Any, node: Served, many: bool
) -> None:
    """Who did not answer may have had the task, and have taken the job."""
    wrong: dict[str, Any] = {"task": "no.such", "idempotency_key": "k"}
    with stub(None) as (url, _):
        if many:
            (refused,) = make([url, node.url]).submit_many([wrong])
        else:
            with pytest.raises(Refused) as caught:
                make([url, node.url]).submit("no.such", idempotency_key="k")
            refused = caught.value
    assert (refused.status, refused.definite, refused.problem["definite"]) == (422, False, False)
    (sure,) = make(node.url).submit_many([wrong])
    assert sure.definite


def test_of_many_what_a_second_request_refuses_for_good_is_neither_sent_again_nor_definite(
    make: Any, node: Served
) -> None:
    node.service.receipt_error = errors.OutcomeUnknown("too few holders")
    real = node.service.submit

    async def submit(*args: Any, **named: Any) -> Any:
        receipts = await real(*args, **named)
        node.service.known_tasks = lambda: frozenset()  # type: ignore[method-assign]
        return receipts

    node.service.submit = submit  # type: ignore[method-assign]
    (refused,) = make(node.url).submit_many([{"task": "echo", "idempotency_key": "k"}])
    assert (refused.slug, refused.definite) == ("unknown-task", False)


def test_a_key_of_other_content_is_definite_whatever_was_met_before(make: Any, node: Served) -> None:
    make(node.url).submit("echo", idempotency_key="k")
    with stub(None) as (url, _), pytest.raises(Refused) as caught:
        make([url, node.url]).submit("echo", {"n": 2}, idempotency_key="k")
    assert (caught.value.slug, caught.value.definite) == ("key-reused", True)


def test_of_many_only_those_with_keys_are_sent_again(make: Any, node: Served) -> None:
    node.service.refuse = errors.OutcomeUnknown("too few holders")
    keyed = [{"task": "echo", "idempotency_key": str(number)} for number in range(600)]
    with served(FakeService()) as other:
        results = make([node.url, other.url]).submit_many([*keyed, {"task": "echo"}])
        assert [len(jobs) for jobs in other.service.submissions[:2]] == [500, 100]
    assert all(isinstance(result, Job) for result in results[:600])


def test_an_unknown_outcome_is_told_at_once_and_never_sent_again(make: Any, node: Served) -> None:
    node.service.refuse = errors.OutcomeUnknown("too few holders")
    with served(FakeService()) as other:
        with pytest.raises(OutcomeUnknown) as caught:
            make([node.url, other.url]).submit("echo")
        assert not other.service.submissions
    assert caught.value.job is not None
    assert not caught.value.definite
    assert len(node.service.submissions) == 1


def test_a_connection_lost_after_sending_is_an_unknown_outcome(make: Any, node: Served) -> None:
    with stub(None) as (url, heard):
        with pytest.raises(OutcomeUnknown):
            make([url, node.url]).submit("echo")
        assert len(heard) == 1
    assert not node.service.submissions


@pytest.mark.parametrize(
    "change",
    [
        lambda client: client.cancel("0"),
        lambda client: client.pause("mail"),
        lambda client: client.drain(NODES[0]),
        lambda client: client.submit("echo", idempotency_key="k"),
    ],
)
def test_what_may_be_asked_for_again_says_so_when_no_answer_comes(make: Any, change: Any) -> None:
    with stub(None) as (url, _):
        with pytest.raises(OutcomeUnknown, match="got the request, but no answer came") as caught:
            change(make(url, timeout_s=0.3))
        assert caught.value.is_repeatable
        with pytest.raises(OutcomeUnknown) as caught:
            make(url, timeout_s=0.3).submit("echo")
        assert not caught.value.is_repeatable


def test_an_answer_cut_short_is_an_unknown_outcome(make: Any, node: Served) -> None:
    half = b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    with stub(half) as (url, _), pytest.raises(OutcomeUnknown):
        make([url, node.url]).submit("echo")


def test_a_node_that_never_answers_is_not_waited_for_without_end(make: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections are made, and nobody accepts them
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(OutcomeUnknown, match="no answer"):
            make(url, timeout_s=0.2).submit("echo")
        with pytest.raises(NoNodeReachable):
            make(url, timeout_s=0.2).nodes()


@pytest.mark.parametrize("change", ["drain", "undrain", "change_node"])
def test_a_change_of_the_node_that_is_asked_never_falls_to_another(
    make: Any, node: Served, change: str
) -> None:
    node.service.me = NODES[1]
    lost = FakeService()

    async def silent(*args: Any, **named: Any) -> Any:
        raise errors.NodeSilent("it may have done so")

    lost.regulate = silent  # type: ignore[method-assign]
    with served(lost) as first:
        client = make([first.url, node.url])
        named = {"weight": 2.0} if change == "change_node" else {}
        assert getattr(client, change)("self", **named)["id"] == NODES[0]
    assert [asked for asked, _ in node.service.regulated] == [NODES[0]]


def test_reads_go_on_to_the_next_node_whatever_happened(make: Any, node: Served) -> None:
    broken = FakeService()

    async def crash(*args: Any, **named: Any) -> Any:
        raise RuntimeError("a bug")

    broken.read = crash  # type: ignore[method-assign]
    job = make(node.url).submit("echo")
    with ExitStack() as stack:
        dropping, _ = stack.enter_context(stub(None))
        crashing = stack.enter_context(served(broken))
        assert make([dropping, crashing.url, node.url]).get(job.id).id == job.id


def test_with_no_node_left_each_reason_is_told(make: Any) -> None:
    urls = [refusing_port(), refusing_port()]
    with pytest.raises(NoNodeReachable) as caught:
        make(urls).submit("echo")
    assert list(caught.value.reasons) == urls
    assert caught.value.definite


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\n<p>",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]",
    ],
)
def test_what_is_no_node_is_recognised(make: Any, answer: bytes) -> None:
    with stub(answer) as (url, _):
        for call in (lambda: make(url).submit("echo"), lambda: list(make(url).jobs())):
            with pytest.raises(BadAnswer):
                call()


def test_members_can_be_learned_to_fall_back_on(make: Any, node: Served) -> None:
    client = make(node.url)
    client.learn()
    assert client.urls == (node.url, *(f"http://127.0.0.1:{8701 + place}" for place in range(5)))


def test_a_job_outlives_the_node_it_was_submitted_to(make: Any) -> None:
    with served(FakeService()) as survivor:
        with served(FakeService()) as entry:
            job = make([entry.url, survivor.url]).submit("echo")
            survivor.service.records.update(entry.service.records)
        survivor.end(job.id, State.FAILED, "no luck")
        ended = make([entry.url, survivor.url]).wait(job.id, timeout_s=10)
        assert (ended.state, ended.error) == ("failed", "no luck")


# ---------------------------------------------------------------------------------------------- the rest


class Contested(Operations):
    """Between any two looks at its nodes another thread puts another one first."""

    _nodes: tuple[str, ...] = ()

    @property
    def urls(self) -> tuple[str, ...]:
        self._nodes = self._nodes[1:] + self._nodes[:1]
        return self._nodes

    @urls.setter
    def urls(self, urls: tuple[str, ...]) -> None:  # type: ignore[override]
        self._nodes = urls


def test_no_node_is_lost_when_threads_share_a_client() -> None:
    nodes = {"http://a", "http://b", "http://c"}
    operations = Contested(sorted(nodes), timeout_s=5, clock=lambda: 0.0)
    for url in sorted(nodes) * 2:
        steps = operations.nodes()
        next(steps)
        with pytest.raises(StopIteration):
            steps.send(Answer(200, {}, b'{"nodes": []}', url))
        assert (len(operations.urls), set(operations.urls)) == (3, nodes)
    steps = operations.nodes()
    next(steps)
    operations.urls = ("http://d",)
    with pytest.raises(StopIteration):
        steps.send(Answer(200, {}, b'{"nodes": []}', "http://a"))
    assert operations.urls == ("http://d",)


def test_urls_come_from_the_caller_the_environment_or_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGENODE_URL", raising=False)
    assert node_urls(None) == (DEFAULT_URL,)
    monkeypatch.setenv("EDGENODE_URL", "http://a:1/, https://b:2 ,http://a:1")
    assert node_urls(None) == ("http://a:1", "https://b:2")
    assert node_urls(["http://c"]) == ("http://c",)
    for bad in ("", " , ", "a:1", "ftp://a", "http://", "http://a:port"):
        with pytest.raises(ValueError):  # noqa: PT011 (the standard library words some of them)
            node_urls(bad)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1", True),
        ("http://localhost", True),
        ("http://[::1]:1", True),
        ("http://10.0.0.1", False),
        ("http://127.evil.example", False),
    ],
)
def test_loopback_urls_are_known(url: str, expected: bool) -> None:
    assert is_here(url) is expected


def test_all_errors_are_client_errors() -> None:
    for kind in (NoNodeReachable, OutcomeUnknown, Refused, WaitTimedOut, BadAnswer):
        assert issubclass(kind, ClientError)
    assert isinstance(Job.from_json({"id": "x", "task": "t", "state": "queued", "settled": False}), Job)


@pytest.mark.parametrize("name", ["a/../b", "mail/./x", "a//b", "a/..", "a:b.c-d", "a/reset"])
def test_a_queue_of_any_name_is_the_one_that_is_changed(
    make: Callable[..., Any], node: Served, name: str
) -> None:
    assert make(node.url).change_queue(name, paused=True)["name"] == name
    assert [each["name"] for each in make(node.url).queues()] == [name]
    make(node.url).reset_queue(name)
    assert list(node.service.items) == [name]


@pytest.mark.parametrize("name", ["a b", "..", "a?b", "a%2Fb", "#", "ü"])
def test_a_name_that_no_queue_can_have_is_refused_as_it_is(
    make: Callable[..., Any], node: Served, name: str
) -> None:
    with pytest.raises(Refused) as caught:
        make(node.url).change_queue(name, paused=True)
    assert repr(name) in caught.value.detail
    assert not node.service.items
