"""`edgenode logs`, and the progress in `edgenode job`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from edgenode.cli import app
from edgenode.core import job_ids
from edgenode.core.types import JobId, StartToken
from edgenode.core.wire import Said
from tests.api.fake import NODES, START, FakeService, Served, served

UNKNOWN_ID = "01930000-0000-7000-8000-000000000000"


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with served(FakeService()) as node:
        monkeypatch.setenv("EDGENODE_URL", node.url)
        yield node


def edgenode(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


class Talk:
    """One job that runs, and says something."""

    def __init__(self, node: Served) -> None:
        assert edgenode("submit", "echo").exit_code == 0
        self.service = node.service
        (self.job,) = self.service.records
        self.text = job_ids.job_text(self.job)
        self.token = self.service.run(self.job)

    def say(self, number: int, text: str, before: int = 0, **more: Any) -> None:
        said = Said(
            self.job, self.token, number, NODES[1], 1, START, -1.0, "", before, text.encode(), b""
        )  # fmt: skip
        self.service.said.append(said._replace(**more))


def test_logs_shows_what_each_start_wrote_and_nothing_that_moves_the_cursor(node: Served) -> None:
    talk = Talk(node)
    talk.say(1, "\x1b[2Jred\ttab\n 10%\r 20%\r\nno end")
    talk.token = StartToken(2, NODES[2], 1)
    talk.say(1, "again\n", attempt=2)
    assert edgenode("logs", talk.text).stdout == (
        "--- attempt 1, start 1.node-a.1, on node-b ---\n"
        "\\x1b[2Jred\ttab\n 10%\n 20%\nno end\n"
        "--- attempt 2, start 2.node-c.1, on node-b ---\n"
        "again\n"
    )
    found = json.loads(edgenode("logs", talk.text, "--json").stdout)
    assert [start["attempt"] for start in found["starts"]] == [1, 2]


def test_logs_says_what_is_not_there(node: Served) -> None:
    talk = Talk(node)
    result = edgenode("logs", talk.text)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "it has written nothing\n")
    node.service.silent = {NODES[4]}
    result = edgenode("logs", talk.text)
    assert (result.exit_code, result.stderr) == (3, "there may be more: not heard: node-e\n")
    talk.say(9, "end\n", 1000)
    result = edgenode("logs", talk.text)
    assert result.exit_code == 0
    assert "[1000 bytes are missing]\nend\n" in result.stdout


def test_a_log_of_no_job_is_a_failure(node: Served) -> None:
    result = edgenode("logs", UNKNOWN_ID)
    assert result.exit_code == 1
    assert "no member knows this job" in result.stderr
    assert edgenode("logs", UNKNOWN_ID, "--follow").exit_code == 1
    assert edgenode("logs", UNKNOWN_ID, "--follow", "--json").exit_code == 2


def test_following_shows_everything_once_until_the_job_has_ended(node: Served) -> None:
    talk = Talk(node)
    talk.say(1, "first\nsecond ")
    looks: list[JobId] = []
    known = node.service.reports

    async def reports(job: JobId, **more: Any) -> Any:
        found = await known(job, **more)
        if not more["brief"]:
            looks.append(job)
            if len(looks) == 1:
                talk.say(2, "line\n", 13)
                talk.say(3, "third\n", 18)
            elif len(looks) == 2:
                talk.say(4, "missed the rest\n", 2_000)
                threading.Thread(target=node.end, args=(talk.text,)).start()
        return found

    node.service.reports = reports  # type: ignore[method-assign]
    result = edgenode("logs", talk.text, "--follow")
    assert result.exit_code == 0, result.stderr
    shown = result.stdout
    assert shown == (
        "--- attempt 1, start 1.node-a.1, on node-b ---\n"
        "first\nsecond line\nthird\n"
        "[1976 bytes are missing]\nmissed the rest\n"
    )
    assert len(looks) == 3


def test_following_a_log_whose_beginning_goes_shows_the_rest(node: Served) -> None:
    talk = Talk(node)
    talk.say(1, "one\n")
    looks: list[JobId] = []
    known = node.service.reports

    async def reports(job: JobId, **more: Any) -> Any:
        found = await known(job, **more)
        if not more["brief"]:
            looks.append(job)
            node.service.said.clear()
            if len(looks) == 1:
                talk.say(2, "one\ntwo\n", 0)
                talk.say(3, "three\n", 8)
            else:
                talk.say(3, "three\n", 8)
                talk.say(4, "four\n", 20)
            if len(looks) == 2:
                threading.Thread(target=node.end, args=(talk.text,)).start()
        return found

    node.service.reports = reports  # type: ignore[method-assign]
    shown = edgenode("logs", talk.text, "--follow").stdout
    assert shown.endswith("---\none\ntwo\nthree\n[6 bytes are missing]\nfour\n")


def test_job_shows_how_far_it_is(node: Served) -> None:
    talk = Talk(node)
    talk.say(1, "", fraction=0.256, message="a \x1b quarter", partial=b'{"rows":3}')
    shown = edgenode("job", talk.text).stdout
    assert "26%" in shown
    assert r": a \x1b quarter" in shown
    assert '{"rows": 3}' in shown
