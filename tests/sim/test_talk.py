"""What starts say: read where it was not said, after its node has died; and the laws about it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from sim_bugs import Bug, planted
from sim_stories import running

from edgenode.core import reporting, reports
from edgenode.core.node import Node
from edgenode.core.reporting import Reporting
from edgenode.core.reports import ReportBook
from edgenode.core.types import NodeId
from edgenode.core.wire import Report, Said
from edgenode.sim.faults import Mood
from edgenode.sim.talk import TALKATIVE
from edgenode.sim.trial import Plan, Trial
from edgenode.sim.violation import Violation

SEEDS = 300


def test_the_log_of_a_runner_that_was_killed_is_read_at_another_node_and_its_successor_adds_to_it() -> None:
    story = running("abcd", holders="abc")
    story.say("j", "one\n", fraction=0.2)
    story.say("j", "two\n")
    story.wait(0.1)
    story.kill("a")
    assert story.log("j", at="d") == [("a", "one\ntwo\n")]
    story.until(lambda: story.runner("j") == "b")
    story.say("j", "again\n")
    story.wait(0.1)
    for reader in "bcd":
        assert story.log("j", at=reader) == [("a", "one\ntwo\n"), ("b", "again\n")]
    story.heal_and_judge()
    assert story.log("j", at="a") == [("a", "one\ntwo\n"), ("b", "again\n")]


def test_what_a_holder_did_not_hear_is_repeated_and_what_it_slept_through_others_know() -> None:
    story = running("abc", holders="abc")
    story.lose(Report, source="a", to="b")
    story.say("j", "one\n")
    story.wait(0.1)
    story.lose_nothing()
    story.kill("c")
    assert not list(story.machine("b").disk.shelf.jobs())
    story.until(lambda: list(story.machine("b").disk.shelf.jobs()), within_s=2.0)
    assert story.log("j", at="b") == [("a", "one\n")]
    story.say("j", "two\n")
    story.wait(0.1)
    story.restart("c")
    story.wait(2.0)
    assert story.log("j", at="c") == [("a", "one\ntwo\n")]
    story.kill("a", "b")
    assert story.log("j", at="c") == [("a", "one\n")], "it was down when the second line was said"
    story.heal_and_judge()


def test_two_starts_of_one_job_are_told_apart_though_they_talk_at_once() -> None:
    story = running("abc", holders="abc")
    story.say("j", "first\n")
    story.wait(0.1)
    story.cut("a", "bc")
    story.until(lambda: len(story.runs("j")) == 2)
    story.say("j", "nobody hears this yet\n", on="a")
    story.say("j", "second\n", on="b")
    story.wait(0.1)
    assert story.log("j", at="c") == [("a", "first\n"), ("b", "second\n")]
    assert story.log("j", at="a") == [("a", "first\nnobody hears this yet\n")]
    story.heal_and_judge()
    assert story.log("j", at="c") == [("a", "first\nnobody hears this yet\n"), ("b", "second\n")]


# ------------------------------------------------------------------------------------------- planted bugs


def talkative(seed: int) -> Trial:
    trial = Trial(Plan(seed), Node)
    trial.world.talk.is_on = True
    return trial


def test_about_a_quarter_of_the_seeds_talk() -> None:
    talking = sum(Trial(Plan(seed), Node).world.talk.is_on for seed in range(100))
    assert 0.1 < talking / 100 < 0.4
    assert TALKATIVE == 0.25


def run_seeds() -> None:
    for seed in range(SEEDS):
        talkative(seed).run()


def words_are_changed(patch: pytest.MonkeyPatch) -> None:
    """A holder writes down something else than it was told."""
    add = ReportBook.add
    patch.setattr(ReportBook, "add", lambda book, said: add(book, said._replace(text=said.text[:-1])))


def nothing_is_dropped(patch: pytest.MonkeyPatch) -> None:
    """All that a start says is kept."""
    patch.setattr(reports, "_outdated", lambda gists: set())


def unknown_jobs_are_reported(patch: pytest.MonkeyPatch) -> None:
    """What is said of a job that is not here is kept all the same."""

    def on_report(reporting: Reporting, source: NodeId, items: Iterable[Said]) -> None:
        for said in items:
            reporting._table.reports.add(said)

    patch.setattr(Reporting, "on_report", on_report)


def markers_keep_their_log(patch: pytest.MonkeyPatch) -> None:
    """What was said of a job stays when its result goes."""
    patch.setattr(ReportBook, "silence", lambda book, job: None)


def one_is_deaf(patch: pytest.MonkeyPatch) -> None:
    """One node hears nothing of what is said elsewhere."""
    on_report = Reporting.on_report

    def deaf(reporting: Reporting, source: NodeId, items: Iterable[Said]) -> None:
        if reporting._desk.me[0] != "a":
            on_report(reporting, source, items)

    patch.setattr(Reporting, "on_report", deaf)


def never_given_up(patch: pytest.MonkeyPatch) -> None:
    """Who does not answer is told again, for ever."""
    patch.setattr(reporting, "TRIES_MAX", 10**9)
    patch.setattr(Reporting, "on_noted", lambda reporting, source, items: None)


@pytest.mark.parametrize(
    ("bug", "law"),
    [
        (words_are_changed, "I2: .* never said"),
        (nothing_is_dropped, "I15: .* bytes that a start"),
        (unknown_jobs_are_reported, "I15: .* and not the job"),
        (markers_keep_their_log, "I15: .* and not the job"),
        (one_is_deaf, "lacks .* reports"),
        (never_given_up, "I15: .* there is no rest"),
    ],
)
def test_seeds_find_what_is_wrong_with_reports(bug: Bug, law: str) -> None:
    with planted(bug), pytest.raises(Violation, match=law):
        run_seeds()


def test_where_nothing_goes_wrong_every_word_is_with_every_holder() -> None:
    calm = [trial for seed in range(60) if (trial := talkative(seed)).faults.mood is Mood.CALM]
    assert len(calm) > 2
    for trial in calm:
        trial.run()
        assert any(list(disk.shelf.jobs()) for disk in trial.world.disks.values())
