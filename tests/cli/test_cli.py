"""The commands, against a fake node behind real HTTP."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from edgenode.cli import app
from edgenode.cli.output import tell_error
from edgenode.client import ClientError, OutcomeUnknown, Refused
from edgenode.core import errors, job_ids, jobs
from edgenode.core.batches import parse_batch
from edgenode.core.specs import decode_spec
from edgenode.core.types import Backoff, Ballot, State
from tests.api.fake import NODES, START, Served

UNKNOWN_ID = "01234567-89ab-7def-8123-456789abcdef"


def edgenode(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=stdin)


def ended_as(node: Served, state: State, error: str = "") -> None:
    """From now on each job ends like this as it comes."""
    real = node.service.submit

    async def submit(*args: Any, **named: Any) -> Any:
        receipts = await real(*args, **named)
        for receipt in receipts:
            await node.service.end(receipt.job, state, b'{"pages":3}', error)
        return receipts

    node.service.submit = submit  # type: ignore[method-assign]


# ---------------------------------------------------------------------------------------------- submit


def test_submit_prints_the_id_alone_for_scripts(node: Served) -> None:
    result = edgenode("submit", "echo", '{"text": "hi"}')
    assert result.exit_code == 0, result.output
    (job,) = node.service.records
    assert result.stdout == f"{job_ids.job_text(job)}\n"
    assert result.stderr == "echo queued, on 2 disks\n"


LABELS = (("gpu", "yes"), ("zone", "x"))


def test_submit_sends_all_options(node: Served) -> None:
    result = edgenode(
        "submit", "echo", "--queue", "slow", "--priority", "9", "--delay-s", "5", "--timeout-s", "1.5",
        "--deadline", "2031-01-01T00:00:00Z", "--max-attempts", "2", "--max-losses", "1", "--partition",
        "wait", "--delivery", "at-least-once", "--acks", "1", "--ttl-s", "60", "--require", "zone=x",
        "--require", "gpu", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    job = json.loads(result.stdout)
    assert (job["queue"], job["priority"], job["max_attempts"], job["partition"]) == ("slow", 9, 2, "wait")
    (record,) = node.service.records.values()
    options = decode_spec(record.spec).options
    assert (options.run_at, options.requires, options.acks) == (START + 5, LABELS, 1)


@pytest.mark.parametrize(
    ("text", "backoff"),
    [
        ("constant:5", Backoff("constant", 5.0, 300.0)),
        ("exponential", Backoff("exponential", 1.0, 300.0)),
        ("exponential:2:60.5", Backoff("exponential", 2.0, 60.5)),
    ],
)
def test_a_backoff_is_a_kind_and_its_seconds(node: Served, text: str, backoff: Backoff) -> None:
    assert edgenode("submit", "echo", "--backoff", text).exit_code == 0
    (record,) = node.service.records.values()
    assert decode_spec(record.spec).options.backoff == backoff


@pytest.mark.parametrize(
    "text", ["constant:soon", "constant:1:2:3", "linear:1", "constant:5:1", "constant:nan"]
)
def test_a_backoff_of_another_form_is_refused(node: Served, text: str) -> None:
    result = edgenode("submit", "echo", "--backoff", text)
    assert (result.exit_code, node.service.records) == (2, {})


def test_a_key_makes_one_job_of_every_submission(node: Served) -> None:
    first = edgenode("submit", "echo", "--key", "order-17")
    again = edgenode("submit", "echo", "--key", "order-17")
    assert first.stdout.split()[0] == again.stdout.split()[0]
    assert "submitted before" not in first.stderr
    assert again.stderr.endswith(", submitted before\n")
    assert len(node.service.records) == 1
    other = edgenode("submit", "echo", '{"n": 2}', "--key", "order-17")
    assert other.exit_code == 2
    assert "had this key" in other.stderr
    assert f"the job that has it: `edgenode job {first.stdout.split()[0]}`" in other.stderr


def test_all_disks_can_be_asked_for(node: Served) -> None:
    assert edgenode("submit", "echo", "--acks", "all").exit_code == 0
    assert edgenode("submit", "echo", "--acks", "2").exit_code == 0
    assert node.service.submissions == [(3,), (2,)]
    assert "all" in edgenode("submit", "echo", "--acks", "most").stderr


def test_a_key_is_for_one_job(node: Served) -> None:
    result = edgenode("submit", "echo", "--key", "k", "--count", "2")
    assert result.exit_code == 2
    assert not node.service.submissions


def test_a_payload_may_come_from_standard_input(node: Served) -> None:
    result = edgenode("submit", "echo", "-", "--json", stdin='{"a": 1}')
    assert json.loads(result.stdout)["payload"] == {"a": 1}


def test_a_count_submits_so_many(node: Served) -> None:
    result = edgenode("submit", "echo", "--count", "3")
    assert len(set(result.stdout.splitlines())) == 3
    assert node.service.submissions == [(0, 0, 0)]


def test_a_file_is_a_job_a_line(node: Served, tmp_path: Path) -> None:
    file = tmp_path / "jobs.ndjson"
    file.write_text('{"task": "echo", "payload": {"n": 1}}\n\n{"task": "echo", "queue": "x"}\n')
    result = edgenode("submit", "--file", str(file), "--json", "--priority", "8")
    first, second = json.loads(result.stdout)["jobs"]
    assert (first["payload"], second["queue"], second["priority"]) == ({"n": 1}, "x", 8)
    result = edgenode("submit", "--file", "-", stdin='{"task": "echo"}')
    assert result.exit_code == 0


def test_a_batch_is_submitted_as_one_and_its_id_alone_is_for_scripts(node: Served, tmp_path: Path) -> None:
    file = tmp_path / "jobs.ndjson"
    file.write_text('{"task": "echo"}\n{"task": "no.such"}\n{"task": "echo"}\n')
    result = edgenode("submit", "--file", str(file), "--batch")
    assert result.exit_code == 2
    assert "2 of 3 jobs accepted" in result.stderr
    assert "1 of 3 jobs were not accepted" in result.stderr
    shown = edgenode("batch", result.stdout.strip(), "--json")
    assert json.loads(shown.stdout)["size"] == 3
    result = edgenode("submit", "echo", "--count", "4", "--batch", "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert len(told["jobs"]) == 4
    assert json.loads(edgenode("batch", told["batch"], "--json").stdout)["missing"] == 0


def test_jobs_with_keys_are_named_beside_the_batch_they_are_not_in(node: Served, tmp_path: Path) -> None:
    keyed, plain = '{"task": "echo", "idempotency_key": "a"}\n', '{"task": "echo"}\n'
    result = edgenode("submit", "--file", "-", "--batch", stdin=keyed + plain + keyed)
    assert result.exit_code == 0
    assert json.loads(edgenode("batch", result.stdout.strip(), "--json").stdout)["size"] == 1
    job = job_ids.job_text(job_ids.keyed_job_id("a"))
    assert result.stderr.endswith(
        f"2 of them have keys, and are in no batch: follow them by their ids\n  {job}\n"
    )
    result = edgenode("submit", "--file", "-", "--batch", stdin=keyed + '{"task": "unknown"}\n')
    assert (result.exit_code, result.stdout) == (2, "")
    count = len(node.service.submissions)
    result = edgenode("submit", "--file", "-", "--batch", stdin=keyed * 3)
    assert (result.exit_code, "jobs with keys are in no batch" in result.stderr) == (2, True)
    assert len(node.service.submissions) == count


def test_a_batch_is_waited_for_by_its_own_command(node: Served) -> None:
    result = edgenode("submit", "echo", "--count", "2", "--batch", "--wait")
    assert result.exit_code == 2
    assert "edgenode batch ID --wait" in result.stderr


def test_the_jobs_of_a_batch_are_shown_one_a_line(node: Served) -> None:
    batch = edgenode("submit", "echo", "--count", "3", "--batch").stdout.strip()
    ids = sorted(job_ids.job_text(job) for job in node.service.records)
    node.end(ids[1], State.FAILED)
    result = edgenode("batch", batch, "--jobs")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"{ids[0]} queued", f"{ids[1]} failed", f"{ids[2]} queued"]
    assert result.stderr == f"batch {batch}: 3 jobs: 2 queued, 1 failed\n"
    result = edgenode("batch", batch, "--jobs", "--json", "--cancel")
    found = json.loads(result.stdout)
    assert [each["state"] for each in found["jobs"]] == ["cancelled", "failed", "cancelled"]
    job = sorted(node.service.records)[1]
    record = node.service.records[job]
    assert record.outcome is not None
    node.service.records[job] = record._replace(outcome=record.outcome._replace(settled=False))
    result = edgenode("batch", batch, "--jobs", "--wait", "--timeout", "0")
    assert f"{ids[1]} failed (unsettled)\n" in result.stdout
    for options in ([], ["--jobs"], ["--json"]):
        result = edgenode("batch", batch, "--wait", "--timeout", "0", *options)
        assert result.exit_code == 3
        assert "not all have settled after 0 s" in result.stderr


def test_wait_shows_the_end_and_succeeds(node: Served) -> None:
    ended_as(node, State.SUCCEEDED)
    result = edgenode("submit", "echo", "--wait")
    assert result.exit_code == 0, result.output
    assert '{"pages": 3}' in result.stdout
    assert "node-a" in result.stdout
    assert result.stderr.endswith(" accepted, on 2 disks\nqueued\nsucceeded\n")


def test_the_id_of_a_job_that_is_waited_for_is_told_at_once(node: Served) -> None:
    result = edgenode("submit", "echo", "--wait", "--wait-timeout", "0", "--json")
    (job,) = node.service.records
    assert result.stderr.startswith(f"{job_ids.job_text(job)} accepted, on 2 disks\n")
    assert json.loads(result.stdout)["id"] == job_ids.job_text(job)


def test_json_has_the_same_shape_whatever_became_of_the_jobs(node: Served, tmp_path: Path) -> None:
    ended_as(node, State.SUCCEEDED)
    (tmp_path / "jobs").write_text('{"task": "echo"}\n{"task": "nonsense"}\n')
    (tmp_path / "refused").write_text('{"task": "nonsense"}\n' * 2)
    for options in ([], ["--wait"]):
        shown = edgenode("submit", "--file", str(tmp_path / "jobs"), "--json", *options)
        job, problem = json.loads(shown.stdout)["jobs"]
        assert (job["task"], problem["status"], shown.exit_code) == ("echo", 422, 2)
        shown = edgenode("submit", "--file", str(tmp_path / "refused"), "--json", *options)
        assert [problem["status"] for problem in json.loads(shown.stdout)["jobs"]] == [422, 422]


def test_wait_fails_when_the_job_does(node: Served) -> None:
    ended_as(node, State.FAILED, "out of paper")
    result = edgenode("submit", "echo", "--wait", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"] == "out of paper"


def test_many_jobs_are_waited_for_together(node: Served) -> None:
    ended_as(node, State.SUCCEEDED)
    result = edgenode("submit", "echo", "--count", "4", "--wait")
    assert result.exit_code == 0, result.output
    assert [line.split()[2] for line in result.stdout.splitlines()] == ["succeeded"] * 4
    accepted, (queued, *_) = result.stderr.splitlines()[:4], result.stderr.splitlines()[4:]
    assert all(line.endswith(" accepted, on 2 disks") for line in accepted)
    assert queued == "4 queued"
    assert result.stderr.splitlines()[-1] == "4 succeeded"


def test_a_wait_that_ends_too_early_is_no_success(node: Served) -> None:
    result = edgenode("submit", "echo", "--wait", "--wait-timeout", "0")
    assert result.exit_code == 3
    assert "they go on" in result.stderr


def test_a_refused_job_is_wrong_usage_and_says_why(node: Served) -> None:
    result = edgenode("submit", "no.such")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no known node has a task 'no.such'" in result.stderr
    assert "--tasks" in result.stderr
    result = edgenode("submit", "no.such", "--json")
    assert json.loads(result.stderr)["field"] == "task"


def test_refused_jobs_of_many_are_told_once_and_counted(node: Served, tmp_path: Path) -> None:
    file = tmp_path / "jobs.ndjson"
    file.write_text('{"task": "echo"}\n' + '{"task": "no.such"}\n' * 3)
    result = edgenode("submit", "--file", str(file))
    assert result.exit_code == 2
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr.count("error:") == 1
    assert "3 of 4 jobs were not accepted" in result.stderr


def test_an_unknown_outcome_says_where_to_look(node: Served) -> None:
    node.service.refuse = errors.OutcomeUnknown("too few holders answered")
    result = edgenode("submit", "echo")
    assert result.exit_code == 3
    assert "it may run all the same: look with `edgenode job " in result.stderr


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (OutcomeUnknown("late"), "look with `edgenode jobs` before you submit it again"),
        (OutcomeUnknown("late", job="x"), "look with `edgenode job x` before you submit it again"),
        (OutcomeUnknown("late", is_repeatable=True), "say the same again, which does no harm"),
        (OutcomeUnknown("late", job="x", is_repeatable=True), "say the same again, which does no harm"),
        (Refused({"status": 404, "type": "/problems/job-not-found"}), "`edgenode jobs` lists"),
        (Refused({"status": 404, "type": "/problems/node-not-found"}), "`edgenode nodes` lists"),
        (Refused({"status": 404, "type": "/problems/no-such-batch"}), "`edgenode submit --batch` printed"),
    ],
)
def test_a_hint_is_about_what_was_asked(
    error: ClientError, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_error(error, as_json=False)
    assert hint in capsys.readouterr().err


def test_in_json_too_an_unknown_outcome_names_its_job(node: Served) -> None:
    node.service.receipt_error = errors.OutcomeUnknown("too few holders answered")
    result = edgenode("submit", "echo", "--json")
    told = json.loads(result.stderr)
    assert (result.exit_code, told["definite"]) == (3, False)
    assert job_ids.parse_job_id(told["job"]) is not None


def test_of_many_unknown_outcomes_each_job_is_named_and_none_is_called_refused(node: Served) -> None:
    node.service.receipt_error = errors.OutcomeUnknown("no receipt in time")
    result = edgenode("submit", "echo", "--count", "3")
    assert result.exit_code == 3
    assert "not accepted" not in result.stderr
    _, ids = result.stderr.split("3 of 3 jobs may have been accepted\n")
    assert len({job_ids.parse_job_id(line.strip()) for line in ids.splitlines()} - {None}) == 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["echo", "{"], "not JSON"),
        (["echo", "[1]"], "not a JSON object"),
        ([], "name a task"),
        (["echo", "--file", "x"], "either a task or --file"),
        (["--file", "/no/such/file"], "cannot read"),
        (["--file", "/dev/null"], "no job"),
        (["echo", "--require", "the zone"], "--require: expected KEY=VALUE or KEY"),
        (["echo", "--require", "gpu="], "--require: expected KEY=VALUE or KEY"),
        (["echo", "--require", "zone=a", "--require", "zone=b"], "two values at once"),
        (["echo", "--url", "localhost"], "http://HOST:PORT"),
        (["echo", "--count", "0"], "--count"),
        (["echo", '{"x": NaN}'], "NaN"),
        (["echo", '{"x": 1e999}'], "infinite"),
        (["echo", "--delay-s", "inf"], "infinite"),
        (["echo", "--timeout-s", "nan"], "NaN"),
    ],
)
def test_wrong_usage_is_explained(node: Served, arguments: list[str], complaint: str) -> None:
    result = edgenode("submit", *arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert not node.service.submissions


@pytest.mark.parametrize("name", ["wait_s", "self", "nonsense"])
def test_a_field_that_no_job_has_is_refused_in_a_file_of_one_line_too(
    node: Served, tmp_path: Path, name: str
) -> None:
    (tmp_path / "jobs").write_text(json.dumps({"task": "echo", name: "x"}))
    result = edgenode("submit", "--file", str(tmp_path / "jobs"))
    assert result.exit_code == 2
    assert f"a job has no field {name!r}" in result.stderr


def test_without_a_node_the_user_learns_what_to_do() -> None:
    for arguments in (
        ["submit", "echo"],
        ["jobs"],
        ["nodes"],
        ["job", UNKNOWN_ID],
        ["placement", UNKNOWN_ID],
    ):
        result = edgenode(*arguments, "--url", "http://127.0.0.1:1")
        assert result.exit_code == 3
        assert result.stdout == ""
        assert "no node answers: http://127.0.0.1:1 (connection refused)" in result.stderr
        assert "`edgenode up`" in result.stderr


# ---------------------------------------------------------------------------------------------- looking


def test_jobs_lists_and_filters(node: Served) -> None:
    edgenode("submit", "echo", "--count", "3", "--queue", "a")
    edgenode("submit", "echo", "--queue", "b")
    table = edgenode("jobs", "--queue", "a").stdout.splitlines()
    assert table[0].split() == ["ID", "TASK", "STATE", "OWNER", "RUNNER", "SUBMITTED", "TRY", "MOVED"]
    assert [line.split()[1:4] for line in table[1:]] == [["echo", "queued", "node-a"]] * 3
    assert len(json.loads(edgenode("jobs", "--json", "--limit", "2").stdout)["jobs"]) == 2
    result = edgenode("jobs", "--state", "failed")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no such jobs\n")
    assert edgenode("jobs", "--state", "nonsense").exit_code == 2


def test_jobs_says_what_they_wait_for_if_any_does(node: Served) -> None:
    edgenode("queue", "a", "--pause")
    edgenode("submit", "echo", "--queue", "a")
    edgenode("submit", "echo", "--queue", "b")
    heading, *table = map(str.rstrip, edgenode("jobs").stdout.splitlines())
    assert heading.endswith("WAITS FOR")
    assert [line.endswith("its queue, 'a', which is paused") for line in table] == [False, True]


def test_jobs_says_who_was_not_heard_and_takes_nothing_found_for_nothing_known(node: Served) -> None:
    edgenode("submit", "echo", "--queue", "a")
    node.service.silent = {NODES[2]}
    result = edgenode("jobs", "--queue", "a")
    assert (result.exit_code, result.stderr) == (0, "these may not be all: not heard: node-c\n")
    assert "echo" in result.stdout
    result = edgenode("jobs", "--queue", "b")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "there may be such jobs: not heard: node-c\n"
    result = edgenode("jobs", "--queue", "b", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (3, {"jobs": [], "unanswered": [NODES[2]]})


def test_job_tells_its_story(node: Served) -> None:
    edgenode("submit", "echo", '{"text": "hi"}')
    (job,) = node.service.records
    record = node.service.records[job]
    note = jobs.Note(START + 3, "takeover", NODES[1], "node-a died")
    record = jobs.started(
        jobs.taken_over(record, Ballot(2, NODES[1]), note), runner=NODES[2], boot=1, at=START
    )
    evil = "\x1b[2Jred [bold]alert"
    node.service.records[job] = jobs.decided(record, State.FAILED, firm=False, at=START, error=evil)
    shown = edgenode("job", job_ids.job_text(job)).stdout
    for text in ('{"text": "hi"}', "failed (unsettled)", "node-b (term 2, 1 takeovers)", "node-a died"):
        assert text in shown
    assert "\x1b" not in shown
    assert r"\x1b[2Jred [bold]alert" in shown
    assert json.loads(edgenode("job", job_ids.job_text(job), "--json").stdout)["term"] == 2


def test_an_unknown_job_is_a_failure(node: Served) -> None:
    result = edgenode("job", UNKNOWN_ID)
    assert result.exit_code == 1
    assert "no member knows this job" in result.stderr
    assert edgenode("job", "nonsense").exit_code == 2


def test_placement_shows_copies_and_who_is_next(node: Served) -> None:
    edgenode("submit", "echo")
    (job,) = node.service.records
    node.service.silent = {NODES[1]}
    node.service.rank = lambda job: NODES  # type: ignore[method-assign]
    lines = edgenode("placement", job_ids.job_text(job)).stdout.splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["node-a", "1", "ready", "held", "queued", "1", "node-a", "owner"],
        ["node-b", "2", "dead", "unreachable", "-", "-", "-", "next"],
        ["node-c", "3", "ready", "held", "queued", "1", "node-a"],
    ]
    assert lines[4] == "rank: node-a > node-b > node-c > node-d > node-e"
    assert json.loads(edgenode("placement", job_ids.job_text(job), "--json").stdout)["owner"] == NODES[0]


def test_cancel_ends_jobs_and_names_those_that_had_ended(node: Served) -> None:
    edgenode("submit", "echo", "--count", "3", "--queue", "a")
    ids = [job_ids.job_text(job) for job in node.service.records]
    node.end(ids[0])
    result = edgenode("cancel", *ids, UNKNOWN_ID)
    assert result.exit_code == 1
    assert set(result.stdout.split()) == set(ids[1:])
    assert f"{ids[0]} has succeeded: nothing to do" in result.stderr
    assert f"{UNKNOWN_ID}: no member knows this job" in result.stderr
    edgenode("submit", "echo", "--count", "2", "--queue", "b")
    told = json.loads(edgenode("cancel", "--queue", "b", "--json").stdout)["jobs"]
    assert [each["state"] for each in told] == ["cancelled"] * 2
    result = edgenode("cancel", "--queue", "b")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no such jobs: nothing cancelled" in result.stderr


def test_retry_submits_the_work_of_failed_jobs_again(node: Served) -> None:
    edgenode("submit", "echo", "--count", "2", "--queue", "a")
    ids = [job_ids.job_text(job) for job in node.service.records]
    node.end(ids[0], State.FAILED, "no luck")
    result = edgenode("retry", ids[0])
    assert result.exit_code == 0
    assert result.stdout.strip() not in ids
    assert edgenode("retry", ids[0]).stdout == result.stdout
    again = edgenode("retry", "--state", "failed")
    assert (again.exit_code, again.stdout) == (0, "")
    assert again.stderr == "1 had been tried again before: see `edgenode jobs --retried`\n"
    assert json.loads(edgenode("retry", "--state", "failed", "--json").stdout)["skipped"] == 1
    result = edgenode("retry", ids[1])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the job is queued" in result.stderr


def test_what_was_tried_again_is_marked_in_lists_and_can_be_left_out(node: Served) -> None:
    edgenode("submit", "echo", "--count", "2")
    one, other = (job_ids.job_text(job) for job in node.service.records)
    for job in (one, other):
        node.end(job, State.FAILED)
    edgenode("retry", one)
    shown = {line.split()[0]: line for line in edgenode("jobs", "--state", "failed").stdout.splitlines()}
    assert ("failed (retried)" in shown[one], "(retried)" in shown[other]) == (True, False)
    for option, job in (("--retried", one), ("--not-retried", other)):
        told = json.loads(edgenode("jobs", "--state", "failed", option, "--json").stdout)
        assert [each["id"] for each in told["jobs"]] == [job]


def test_retry_leaves_alone_what_was_cancelled_unless_that_is_said(node: Served) -> None:
    edgenode("submit", "echo", "--count", "3", "--queue", "mail")
    failed, cancelled, expired = (job_ids.job_text(job) for job in node.service.records)
    for job, state in ((failed, State.FAILED), (cancelled, State.CANCELLED), (expired, State.EXPIRED)):
        node.end(job, state)
    told = json.loads(edgenode("retry", "--queue", "mail", "--json").stdout)
    assert [each["retry_of"] for each in told["jobs"]] == [failed, expired]
    told = json.loads(edgenode("retry", "--state", "cancelled", "--json").stdout)
    assert [each["retry_of"] for each in told["jobs"]] == [cancelled]
    result = edgenode("retry", "--state", "queued")
    assert result.exit_code == 2
    assert "state is one of cancelled, expired, failed" in result.stderr
    assert "[default: failed and expired]" in " ".join(edgenode("retry", "--help").stdout.split())
    shown = edgenode("job", failed).stdout
    assert re.search(r"retried by +\w{8}-", shown)


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_change_says_who_was_not_heard_and_is_not_sure_of_all_then(node: Served, verb: str) -> None:
    edgenode("submit", "echo", "--count", "2", "--queue", "a")
    failed, _ = (job_ids.job_text(job) for job in node.service.records)
    node.end(failed, State.FAILED)
    node.service.silent = {NODES[2]}
    result = edgenode(verb, "--queue", "a")
    assert (result.exit_code, result.stderr) == (3, "these may not be all: not heard: node-c\n")
    assert len(result.stdout.splitlines()) == 1
    result = edgenode(verb, "--queue", "b")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "there may be such jobs: not heard: node-c\n"
    result = edgenode(verb, "--queue", "b", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["jobs"], told["unanswered"]) == (3, [], [NODES[2]])
    assert edgenode("retry", failed).exit_code == 0


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_change_of_no_or_all_jobs_at_once_has_to_be_said(node: Served, verb: str) -> None:
    edgenode("submit", "echo")
    for arguments in ([], [UNKNOWN_ID, "--queue", "default"]):
        result = edgenode(verb, *arguments)
        assert result.exit_code == 2
        assert "ids" in result.stderr
    assert all(record.outcome is None for record in node.service.records.values())


def test_nodes_lists_members(node: Served) -> None:
    node.service.silent = {NODES[4]}
    lines = edgenode("nodes").stdout.splitlines()
    assert lines[1].split() == [
        "node-a", "ready", "http://127.0.0.1:8701", "1", "2", "3", "4", "5", "here", NODES[0],
    ]  # fmt: skip
    assert lines[5].split()[1:8] == ["dead", "http://127.0.0.1:8705", "-", "-", "-", "-", "-"]
    assert len(json.loads(edgenode("nodes", "--json").stdout)["nodes"]) == 5


# --------------------------------------------------------------------------------------------- key new


def test_key_new_writes_a_key_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "mesh.key"
    result = edgenode("key", "new", str(path), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["mesh_id"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    again = edgenode("key", "new", str(path))
    assert again.exit_code == 2
    assert "never overwritten" in again.stderr
    assert path.read_bytes() == before


# -------------------------------------------------------------------------------------- as a process


COMMAND = [sys.executable, "-m", "edgenode"]


def environment(node: Served) -> dict[str, str]:
    return os.environ | {"EDGENODE_URL": node.url, "PYTHONUNBUFFERED": "1"}


def test_ctrl_c_ends_a_wait_without_a_fuss(node: Served) -> None:
    with subprocess.Popen(
        [*COMMAND, "submit", "echo", "--wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(node),
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.stderr.readline().endswith(" accepted, on 2 disks\n")
        assert process.stderr.readline() == "queued\n"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stdout == ""
    assert "Traceback" not in stderr


def test_a_reader_that_goes_away_is_no_error(node: Served) -> None:
    edgenode("submit", "echo")
    buffered = environment(node) | {"PYTHONUNBUFFERED": ""}  # then it is the flush at the end that fails
    for arguments in (["jobs"], ["jobs", "--json"]):
        with subprocess.Popen(
            [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""


def test_a_terminal_sees_progress_and_colours(node: Served) -> None:
    ended_as(node, State.SUCCEEDED)
    master, slave = pty.openpty()
    try:
        with subprocess.Popen(
            [*COMMAND, "submit", "echo", "--count", "3", "--wait"], stdout=subprocess.PIPE, stderr=slave,
            env=environment(node) | {"TERM": "xterm-256color"},
        ) as process:  # fmt: skip
            os.close(slave)
            slave = -1
            shown = b""
            while True:
                try:
                    part = os.read(master, 65536)
                except OSError:  # what Linux says when the other side is closed
                    break
                if not part:
                    break
                shown += part
            assert process.wait(20) == 0
        assert b"3 succeeded" in shown
        assert b"\x1b[" in shown
    finally:
        os.close(master)
        if slave >= 0:
            os.close(slave)


def test_help_teaches_with_examples() -> None:
    result = edgenode("--help")
    assert result.exit_code == 0
    for text in ("edgenode up -n 5", "EDGENODE_URL", "Exit codes: 0 done", "placement"):
        assert text in result.stdout
    for command in ("submit", "jobs", "job", "nodes", "placement"):
        assert f"edgenode {command} " in edgenode(command, "--help").stdout or command == "nodes"
    assert edgenode("--version").stdout.startswith("edgenode ")


def test_the_batch_that_help_names_could_be_one() -> None:
    (named,) = set(re.findall(r"edgenode batch ([0-9a-f-]{36})", edgenode("batch", "--help").stdout))
    assert parse_batch(named) is not None


@pytest.mark.parametrize("command", ["submit", "batch", "drain"])
def test_the_time_of_a_wait_has_one_name_in_all_commands(command: str) -> None:
    assert "--wait-timeout" in edgenode(command, "--help").stdout


def test_asking_for_help_loads_no_network_and_no_tables() -> None:
    code = (
        "import sys; sys.argv = ['edgenode', '--help']\n"
        "from edgenode.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert not {"aiohttp", "edgenode.client", "rich.table", "cryptography", "zeroconf"} & set(loaded.split())


# ----------------------------------------------------------------------------------------------- tasks


def test_tasks_are_listed_with_what_is_known_of_them(node: Served) -> None:
    result = edgenode("tasks")
    assert result.exit_code == 0, result.output
    heading, echo, resize = result.stdout.splitlines()
    assert heading.split() == ["TASK", "KIND", "TIMEOUT", "TRIES", "NODES", "PARAMETERS", "SUMMARY"]
    assert echo.split()[:4] == ["echo", "def", "-", "-"]
    assert "30 s" in resize
    assert "source width" in resize
    assert resize.rstrip().endswith("Make a picture smaller.")
    listed = json.loads(edgenode("tasks", "--json").stdout)["tasks"]
    assert [task["name"] for task in listed] == ["echo", "image.resize"]


def test_one_task_is_shown_as_its_schema(node: Served) -> None:
    assert json.loads(edgenode("tasks", "image.resize").stdout)["required"] == ["source", "width"]
    assert json.loads(edgenode("tasks", "image.resize", "--json").stdout)["max_attempts"] == 7
    result = edgenode("tasks", "image.shrink")
    assert result.exit_code == 1
    assert "no living node has a task 'image.shrink'" in result.stderr


def test_of_a_task_that_nobody_has_described_it_is_told_who_has_it(node: Served) -> None:
    result = edgenode("tasks", "echo")
    assert result.exit_code == 1
    assert "ask it with --url: node-a (http://127.0.0.1:8701), node-b (" in result.stderr
