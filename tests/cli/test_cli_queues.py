"""`edgenode queues` and `queue`, against a fake node behind real HTTP; and the clients beneath them."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from edgenode.cli import app
from edgenode.client import AsyncClient, Client, Refused
from edgenode.core.specs import decode_spec
from tests.api.fake import NODES, Served


def edgenode(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_a_queue_is_limited_paused_and_shown(node: Served) -> None:
    result = edgenode("queue", "mail", "--concurrency", "5", "--rate", "2.5", "--burst", "10")
    assert result.exit_code == 0, result.output
    result = edgenode("queue", "mail", "--pause", "--json")
    assert (json.loads(result.stdout)["paused"], json.loads(result.stdout)["concurrency"]) == (True, 5)
    node.service.counts = {"mail": (40, 5)}
    heading, shown = edgenode("queues").stdout.splitlines()
    assert heading.split() == ["QUEUE", "STATE", "CONCURRENCY", "RATE", "BURST", "QUEUED", "RUNNING"]
    assert shown.split() == ["mail", "paused", "5", "2.5/s", "10", "40", "5"]
    result = edgenode("queue", "mail", "--resume", "--rate", "none", "--concurrency", "none")
    assert result.stdout.splitlines()[1].split() == ["mail", "open", "-", "-", "-"]
    assert [each["name"] for each in json.loads(edgenode("queues", "--json").stdout)["queues"]] == ["mail"]


def test_a_queue_is_reset_and_that_is_said_alone(node: Served) -> None:
    edgenode("queue", "mail", "--pause", "--rate", "5")
    result = edgenode("queue", "mail", "--reset")
    assert (result.exit_code, result.stdout.splitlines()[1].split()) == (0, ["mail", "open", "-", "-", "-"])
    assert edgenode("queues").stderr == "no queue has settings, or jobs\n"
    result = edgenode("queue", "mail", "--reset", "--pause")
    assert (result.exit_code, "--reset" in result.stderr) == (2, True)
    node.service.known = 2
    assert edgenode("queue", "mail", "--reset").exit_code == 3


def test_whose_jobs_are_not_counted_is_named(node: Served) -> None:
    node.service.silent = {NODES[2]}
    result = edgenode("queues")
    assert result.exit_code == 3
    assert result.stderr == "no queue has settings, or jobs\nnot heard, and not counted: node-c\n"
    node.service.counts, node.service.left_out = {"mail": (1, 0)}, 2
    result = edgenode("queues")
    assert result.exit_code == 0
    assert result.stderr.startswith("further queues have jobs")
    assert json.loads(edgenode("queues", "--json").stdout)["unanswered"] == [NODES[2]]


def test_a_change_that_not_all_know_yet_is_told_from_one_that_all_know(node: Served) -> None:
    node.service.known = 2
    result = edgenode("queue", "mail", "--pause")
    assert result.exit_code == 3
    assert "known to 2 of 3 members so far" in result.stderr


def test_a_change_of_nothing_or_to_nonsense_is_refused(node: Served) -> None:
    assert edgenode("queue", "mail").exit_code == 2
    for rate in ("fast", "nan", "inf", "-inf", "1e999"):
        result = edgenode("queue", "mail", f"--rate={rate}")
        assert (result.exit_code, "expected a number, or none" in result.stderr) == (2, True)
    assert edgenode("queue", "mail", "--concurrency", "9" * 400).exit_code == 2
    result = edgenode("queue", "mail", "--concurrency", "-3")
    assert result.exit_code == 2
    assert "concurrency" in result.stderr
    assert edgenode("queues").exit_code == 0
    assert not node.service.items


@pytest.mark.parametrize(
    ("limit", "zero"), [("--rate", "0"), ("--rate", "0.0"), ("--concurrency", "0"), ("--burst", "0")]
)
def test_a_limit_of_zero_is_refused_and_the_limit_stays(node: Served, limit: str, zero: str) -> None:
    edgenode("queue", "mail", "--concurrency", "5", "--rate", "2", "--burst", "3")
    result = edgenode("queue", "mail", f"{limit}={zero}")
    assert result.exit_code == 2
    said = " ".join(result.stderr.replace("│", " ").split())
    assert f"0 is no limit: --pause has nothing started, {limit} none removes the limit" in said
    assert (node.service.items["mail"].concurrency, node.service.items["mail"].rate) == (5, 2.0)


def test_a_job_is_submitted_with_its_concurrency_key(node: Served) -> None:
    result = edgenode("submit", "echo", "--concurrency-key", "customer 7", "--concurrency-limit", "2")
    assert result.exit_code == 0, result.output
    (record,) = node.service.records.values()
    options = decode_spec(record.spec).options
    assert (options.concurrency_key, options.concurrency_limit) == ("customer 7", 2)


def test_the_client_changes_queues(node: Served) -> None:
    client = Client(node.url)
    assert client.change_queue("a/b", concurrency=3)["concurrency"] == 3
    assert client.pause("a/b")["paused"] is True
    assert client.resume("a/b")["paused"] is False
    assert [each["name"] for each in client.queues()] == ["a/b"]
    node.service.silent = {NODES[2]}
    assert client.queues().unanswered == (NODES[2],)
    assert client.reset_queue("a/b")["concurrency"] is None
    assert client.queues() == []
    with pytest.raises(Refused) as refused:
        client.change_queue("a/b", rate=-1)
    assert refused.value.problem["field"] == "rate"


async def test_the_async_client_changes_queues(node: Served) -> None:
    async with AsyncClient(node.url) as client:
        assert (await client.change_queue("mail", rate=0.5))["rate"] == 0.5
        assert (await client.pause("mail"))["paused"] is True
        assert (await client.resume("mail"))["paused"] is False
        assert len(await client.queues()) == 1
        assert (await client.reset_queue("mail"))["rate"] is None
        assert len(await client.queues()) == 0
