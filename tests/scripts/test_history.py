"""The judge of recorded histories: each kind of wrong is planted, and must be noticed, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from history import Fault, History, Look, Submission, Told, judge, verdict_lines
from marking import Mark

NODES = ("node-1", "node-2", "node-3")


def submission(number: int = 0, told: Told = "accepted", **document: Any) -> Submission:
    """One that was sent at 10 s + its number, and answered half a second later."""
    payload = {"path": "/marks", "seconds": 0.1, "number": number} | document.pop("payload", {})
    full = {"task": "mark", "payload": payload} | document
    job = f"job-{number}" if told == "accepted" else None
    return Submission(number, "node-1", full, 10.0 + number, told, job, answered_at=10.5 + number)


def mark(
    number: int = 0, start: int = 1, *, term: int = 1, owner: str = "a", at: float | None = None
) -> Mark:
    return Mark(f"job-{number}", term, owner, start, 99, "node-1", 10.6 + number if at is None else at)


def record(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A job that was started once, by its first owner, and succeeded."""
    fields = {
        "id": f"job-{number}", "state": "succeeded", "settled": True, "error": None, "runner": "a",
        "owner": "a", "term": 1, "starts": 1, "losses": 0, "takeovers": 0, "delivery": "at-least-once",
        "history": [], "holders": ["a", "b", "c"],
        "finished_at": "2026-01-01T00:00:00Z", "payload": {"number": number},
        "result": {"job": f"job-{number}", "term": 1, "owner": "a", "start": 1},
    }  # fmt: skip
    return fields | changes


COPY = {"status": "held", "state": "succeeded", "settled": True}


def history(*records: dict[str, Any], told: Told = "accepted") -> History:
    """Submissions 0, 1, ... became these jobs; all nodes show them, hold them, and started each once."""
    jobs = {each["id"]: each for each in records}
    numbers = range(len(records))
    return History(
        nodes=dict(zip(NODES, "abc", strict=True)),
        submissions=[submission(number, told) for number in numbers],
        looks=[],
        shown={name: dict(jobs) for name in NODES},
        copies={job: dict.fromkeys(NODES, COPY) for job in jobs},
        marks=[mark(number) for number in numbers],
        faults=[],
    )


def shown_by_one(found: History, node: str, *records: dict[str, Any]) -> History:
    return replace(found, shown={**found.shown, node: {each["id"]: each for each in records}})


def words(found: History) -> list[str]:
    """What is bad, in a word each."""
    return sorted(text.partition(":")[0] for text in judge(found).bad)


KILL = Fault("killed", ("node-1",), 10.6, 11.0)
TAKEN = {"term": 2, "takeovers": 1, "losses": 1, "starts": 2, "owner": "b"}
SECOND = {"job": "job-0", "term": 2, "owner": "b", "start": 1}


# ------------------------------------------------------------------------------------------ all is well


def test_jobs_that_ended_as_they_must_everywhere_are_ok() -> None:
    verdict = judge(history(record(0), record(1)))
    assert verdict.bad == []
    assert verdict.counts["ok"] == 2


@pytest.mark.parametrize("told", ["refused", "indefinite"])
def test_what_was_not_acknowledged_need_not_be_there(told: Told) -> None:
    found = history()
    assert words(replace(found, submissions=[submission(0, told)])) == []


def test_an_indefinite_submission_that_is_there_is_recovered_and_no_harm() -> None:
    verdict = judge(history(record(), told="indefinite"))
    assert (verdict.bad, verdict.counts["recovered"], verdict.counts["ok"]) == ([], 1, 0)


def test_a_second_start_after_a_kill_is_explained_by_the_takeover() -> None:
    found = history(record(result=SECOND, **TAKEN))
    assert words(replace(found, marks=[mark(), mark(term=2, owner="b", at=10.9)], faults=[KILL])) == []


def test_a_job_that_must_fail_once_starts_twice_without_a_fault() -> None:
    found = history(record(starts=2, result={"job": "job-0", "term": 1, "owner": "a", "start": 2}))
    failing = submission(payload={"failures": 1})
    assert words(replace(found, submissions=[failing], marks=[mark(), mark(start=2)])) == []


def test_an_at_most_once_job_may_fail_when_its_runner_was_killed() -> None:
    found = history(record(state="failed", result=None, error="lost", delivery="at-most-once"))
    copies = {"job-0": dict.fromkeys(NODES, COPY | {"state": "failed"})}
    careful = [submission(delivery="at-most-once")]
    found = replace(found, submissions=careful, copies=copies)
    assert words(found) == ["wrong"]
    assert words(replace(found, faults=[KILL])) == []


# ------------------------------------------------------------------------------------------------ lost


@pytest.mark.parametrize(
    ("missing", "where"), [([0], "prefix"), ([1], "middle"), ([2], "tail"), ([0, 1, 2], "tail")]
)
def test_an_acknowledged_job_that_nobody_knows_is_lost_and_where_it_was_is_said(
    missing: list[int], where: str
) -> None:
    kept = [record(number) for number in range(3) if number not in missing]
    found = history(record(0), record(1), record(2))
    verdict = judge(replace(found, shown={name: {job["id"]: job for job in kept} for name in NODES}))
    assert verdict.counts["lost"] == len(missing)
    assert all(text.startswith("lost: ") and f"({where}: " in text for text in verdict.bad)


def test_an_acknowledged_job_that_was_never_started_and_is_nowhere_is_lost() -> None:
    found = history()
    assert words(replace(found, submissions=[submission()])) == ["lost"]


@pytest.mark.parametrize("changes", [{"state": "running", "settled": False}, {"settled": False}])
def test_an_acknowledged_job_that_has_not_ended_is_lost(changes: dict[str, Any]) -> None:
    found = history(record(**changes))
    copies = {"job-0": dict.fromkeys(NODES, COPY | changes)}
    assert words(replace(found, copies=copies)) == ["lost"]


def test_nothing_is_proved_when_no_node_is_left() -> None:
    assert words(replace(history(record()), shown={})) == ["lost"]


# ----------------------------------------------------------------------------------- from nowhere, twice


def test_a_refused_submission_that_is_there_is_unexpected() -> None:
    assert words(history(record(), told="refused")) == ["unexpected"]


def test_a_job_that_nobody_submitted_is_unexpected() -> None:
    found = history(record(0), record(1))
    assert words(replace(found, submissions=found.submissions[:1])) == ["unexpected"]


def test_a_start_of_a_job_that_is_nowhere_is_unexpected() -> None:
    found = history(record())
    assert words(replace(found, marks=[*found.marks, mark(7)])) == ["unexpected"]


def test_one_submission_that_made_two_jobs_is_duplicated() -> None:
    found = history(record(0), record(1, payload={"number": 0}))
    assert words(replace(found, submissions=found.submissions[:1])) == ["duplicated"]


# -------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "failed", "result": None},
        {"state": "expired", "result": None},
        {"result": {"job": "job-1", "term": 1, "owner": "a", "start": 1}},
        {"result": {"job": "job-0", "term": 3, "owner": "c", "start": 1}},
    ],
    ids=["failed", "expired", "result of another job", "result that no start made"],
)
def test_an_end_that_must_not_be_is_wrong(changes: dict[str, Any]) -> None:
    found = history(record(**changes))
    copies = {"job-0": dict.fromkeys(NODES, COPY | {"state": changes.get("state", "succeeded")})}
    assert words(replace(found, copies=copies)) == ["wrong"]


@pytest.mark.parametrize("changes", [{"result": SECOND}, {"finished_at": "2027"}, {"runner": "c"}])
def test_two_nodes_that_show_different_ends_are_split(changes: dict[str, Any]) -> None:
    found = history(record())
    assert words(shown_by_one(found, "node-3", record(**changes))) == ["split"]


def test_a_job_that_one_node_can_not_show_is_lost_there() -> None:
    found = history(record(0), record(1))
    assert words(shown_by_one(found, "node-3", record(0))) == ["lost on a node"]


@pytest.mark.parametrize("copy", [COPY | {"state": "running", "settled": False}, COPY | {"state": "failed"}])
def test_a_living_holder_with_another_end_than_the_others_lost_it(copy: dict[str, Any]) -> None:
    found = history(record())
    assert words(replace(found, copies={"job-0": {**found.copies["job-0"], "node-2": copy}})) == [
        "lost on a node"
    ]


def test_a_job_without_a_copy_at_one_holder_is_thin_and_at_two_of_three_lost() -> None:
    found, none = history(record()), {"status": "none"}
    one = replace(found, copies={"job-0": {"node-1": COPY, "node-2": none, "node-3": COPY}})
    assert words(one) == ["thin"]
    two = replace(found, copies={"job-0": {"node-1": COPY, "node-2": none, "node-3": none}})
    assert words(two) == ["lost on a node"]


@pytest.mark.parametrize("changes", [{"result": SECOND}, {"state": "failed"}, {"error": "x"}])
def test_a_settled_result_that_a_client_saw_and_that_is_another_now_has_changed(
    changes: dict[str, Any],
) -> None:
    found = history(record())
    seen = Look(11.0, "node-2", "job-0", record(**changes))
    assert words(replace(found, looks=[seen])) == ["changed"]
    unsettled = replace(seen, record=record(settled=False, **changes))
    assert words(replace(found, looks=[unsettled])) == []


def test_a_settled_result_that_a_client_saw_and_that_is_gone_has_changed() -> None:
    found = history()
    assert words(replace(found, looks=[Look(11.0, "node-2", "job-0", record())])) == ["changed"]


def test_an_acknowledged_job_that_a_node_says_does_not_exist_is_denied() -> None:
    found = history(record())
    assert words(replace(found, looks=[Look(11.0, "node-2", "job-0", None)])) == ["denied"]
    before = Look(10.2, "node-2", "job-0", None)
    assert words(replace(found, looks=[before])) == []


# --------------------------------------------------------------------------------------------- starts


@pytest.mark.parametrize(
    "faults",
    [[], [Fault("killed", ("node-1",), 1.0, 2.0 - 20)], [Fault("killed", ("node-1",), 12.0, 13.0)]],
    ids=["no fault", "long over", "after it had ended"],
)
def test_an_extra_start_without_a_fault_is_unexplained(faults: list[Fault]) -> None:
    found = history(record(result=SECOND, **TAKEN))
    twice = [mark(), mark(term=2, owner="b", at=10.9)]
    assert words(replace(found, marks=twice, faults=faults)) == ["unexplained"]


def test_more_extra_starts_than_takeovers_and_losses_are_unexplained() -> None:
    found = history(record(result=SECOND, **(TAKEN | {"starts": 4})))
    starts = [
        mark(),
        mark(term=2, owner="b"),
        mark(start=2, term=2, owner="b"),
        mark(start=3, term=2, owner="b"),
    ]
    assert words(replace(found, marks=starts, faults=[KILL])) == ["unexplained"]


def test_a_takeover_that_died_with_its_owner_explains_a_start() -> None:
    """c took the job over on the other side of a cut, and was killed before it could tell anybody."""
    found = history(record())
    starts = [mark(), mark(term=2, owner="c")]
    dead = replace(found, marks=starts, faults=[KILL], nodes={"node-1": "a", "node-2": "b"})
    assert words(dead) == []
    assert words(replace(dead, marks=[*starts, mark(start=2, term=2, owner="c")])) == ["unexplained"]
    living = replace(dead, nodes={"node-1": "a", "node-2": "b", "node-3": "c"})
    assert words(living) == ["uncounted", "unexplained"]


def test_a_takeover_that_died_with_its_owner_is_counted_once() -> None:
    """The record has the term of the killed owner: nothing of it is unheard of."""
    counted = TAKEN | {"term": 3, "takeovers": 2, "losses": 0, "starts": 4}
    found = history(record(result=SECOND | {"term": 3}, **counted))
    starts = [mark(), mark(term=2, owner="c"), mark(term=3, owner="b"), mark(start=2, term=3, owner="b")]
    dead = replace(found, marks=starts, faults=[KILL], nodes={"node-2": "b"})
    assert "unexplained" not in words(replace(dead, marks=starts[:3]))
    assert words(replace(dead, marks=starts)) == ["unexplained"]


def test_a_takeover_explains_that_all_attempts_are_made_again() -> None:
    result = SECOND | {"start": 2}
    found = history(record(result=result, **(TAKEN | {"losses": 0, "starts": 4})))
    starts = [mark(), mark(start=2), mark(term=2, owner="b"), mark(start=2, term=2, owner="b")]
    found = replace(found, submissions=[submission(payload={"failures": 1})], marks=starts, faults=[KILL])
    assert words(found) == []
    again = mark(start=3, term=2, owner="b")
    assert words(replace(found, marks=[*starts, again])) == ["uncounted", "unexplained"]


def test_a_runner_that_only_seemed_lost_explains_a_start() -> None:
    notes = [{"at": "", "kind": "start lost", "node": "a", "detail": "runner b is gone"}]
    again = {"job": "job-0", "term": 1, "owner": "a", "start": 2}
    found = history(record(starts=2, losses=0, result=again, history=notes))
    assert words(replace(found, marks=[mark(), mark(start=2)], faults=[KILL])) == []


def test_a_start_that_the_record_does_not_count_is_uncounted() -> None:
    found = history(record(result=SECOND, **(TAKEN | {"starts": 1})))
    twice = replace(found, marks=[mark(), mark(term=2, owner="b")], faults=[KILL])
    assert words(twice) == ["uncounted"]
    without_its_owner = replace(twice, nodes={"node-2": "b", "node-3": "c"})
    assert words(without_its_owner) == []


def test_two_starts_under_one_fence_are_refenced() -> None:
    found = history(record(**(TAKEN | {"owner": "a"})))
    assert words(replace(found, marks=[mark(), mark()], faults=[KILL])) == ["refenced"]


def test_an_at_most_once_job_that_was_started_twice_is_called_that() -> None:
    found = history(record(result=SECOND, delivery="at-most-once", **TAKEN))
    twice = [mark(), mark(term=2, owner="b")]
    careful = [submission(delivery="at-most-once")]
    assert words(replace(found, submissions=careful, marks=twice, faults=[KILL])) == ["twice"]


# -------------------------------------------------------------------------------------------- the text


def test_the_verdict_in_words_counts_the_faults_and_shows_what_is_bad() -> None:
    found = replace(history(record(0), record(1)), faults=[KILL, KILL, Fault("cut", (), 1.0)])
    lines = list(verdict_lines(judge(found), found))
    assert lines[0] == "2 submissions: 2 accepted, 0 refused, 0 indefinite"
    assert "faults: 1 cut, 2 killed" in lines
    bad = shown_by_one(found, "node-3", record(0))
    assert any(line.startswith("BAD lost on a node") for line in verdict_lines(judge(bad), bad))
