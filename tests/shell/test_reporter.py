"""When what a start says is reported, and how much of it at one time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from edgenode.core.reports import CHUNK_BYTES_MAX, TEXT_BYTES_MAX
from edgenode.core.signals import Event, Reported, RunEnded
from edgenode.core.types import Instant, JobId, NodeId, StartToken, State
from edgenode.core.wire import Verdict
from edgenode.shell.reporter import BYTES_PER_S, PERIOD_S, Reporter

JOB = JobId(bytes(16))
TOKEN = StartToken(1, NodeId("a"), 1)
ENDED = RunEnded(JOB, TOKEN, Verdict(State.SUCCEEDED, b"1", "", -1.0, False), False)


class Alarm:
    def __init__(self, at: Instant, ring: Callable[[], None]) -> None:
        self.at, self.ring, self.is_cancelled = at, ring, False

    def cancel(self) -> None:
        self.is_cancelled = True


class Desk:
    """A reporter under a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.alarms: list[Alarm] = []
        self.events: list[Event] = []
        self.reporter = Reporter(self.events.append, self._later, lambda: self.now)

    def _later(self, delay_s: float, ring: Callable[[], None]) -> Alarm:
        self.alarms.append(Alarm(self.now + delay_s, ring))
        return self.alarms[-1]

    def run(self, duration_s: float) -> None:
        until = self.now + duration_s
        while True:
            due = [each for each in self.alarms if each.at <= until and not each.is_cancelled]
            if not due:
                self.now = until
                return
            first = min(due, key=lambda each: each.at)
            self.alarms.remove(first)
            self.now = first.at
            first.ring()

    @property
    def reports(self) -> list[Reported]:
        return [event for event in self.events if isinstance(event, Reported)]

    def write(self, text: str) -> None:
        self.reporter.output(JOB, TOKEN, text)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_start_that_says_nothing_makes_no_report(desk: Desk) -> None:
    desk.write("")
    desk.reporter.ended(ENDED)
    assert desk.events == [ENDED]


def test_all_that_was_said_is_reported_before_the_end_and_nothing_after_it(desk: Desk) -> None:
    desk.write("first\n")
    desk.reporter.progress(JOB, TOKEN, 1.0, "done")
    desk.write("second\n")
    desk.reporter.ended(ENDED)
    assert desk.events == [Reported(JOB, TOKEN, 1, 1.0, "done", 0, b"first\nsecond\n"), ENDED]
    desk.run(10)
    assert len(desk.events) == 2


def test_an_end_soon_after_a_report_makes_no_other_if_nothing_was_said_since(desk: Desk) -> None:
    desk.write("line\n")
    desk.run(PERIOD_S)
    assert len(desk.reports) == 1
    desk.reporter.ended(ENDED)
    assert len(desk.reports) == 1


def test_one_that_talks_without_a_pause_is_reported_twice_a_second(desk: Desk) -> None:
    for _ in range(1000):
        desk.write("word ")
        desk.reporter.progress(JOB, TOKEN, desk.now / 1000, "")
        desk.run(0.01)
    assert 18 <= len(desk.reports) <= 20
    upto = 0
    for number, report in enumerate(desk.reports, 1):
        assert (report.number, report.before) == (number, upto)
        upto += len(report.text)


def test_what_was_said_is_on_its_way_after_half_a_second(desk: Desk) -> None:
    desk.run(1000)
    desk.write("last words\n")
    desk.run(PERIOD_S)
    assert desk.reports[-1].text == b"last words\n"


def test_a_flood_is_thinned_out_and_its_end_is_kept(desk: Desk) -> None:
    said = 0
    for number in range(2000):
        line = f"{number:0999d}\n"
        said += len(line)
        desk.write(line)
        desk.run(0.005)
    desk.reporter.ended(ENDED)
    reports = desk.reports
    assert all(len(report.text) <= CHUNK_BYTES_MAX for report in reports)
    reported = sum(len(report.text) for report in reports)
    assert reported <= 10 * BYTES_PER_S + 2 * TEXT_BYTES_MAX
    assert reports[-1].before + len(reports[-1].text) == said
    assert b"".join(report.text for report in reports[-3:]).endswith(f"{1999:0999d}\n".encode())
    assert any(later.before > earlier.before + len(earlier.text) for earlier, later in pairwise(reports))


def test_a_partial_result_has_a_report_of_its_own_and_the_latest_wins(desk: Desk) -> None:
    desk.reporter.partial(JOB, TOKEN, b"[1]")
    desk.write("text")
    desk.reporter.partial(JOB, TOKEN, b"[1,2]")
    desk.run(PERIOD_S)
    assert [(each.text, each.partial, each.before) for each in desk.reports] == [
        (b"text", b"", 0),
        (b"", b"[1,2]", 4),
    ]


def test_two_starts_are_reported_apart(desk: Desk) -> None:
    other = TOKEN._replace(start=2)
    desk.write("one")
    desk.reporter.output(JOB, other, "two")
    desk.reporter.ended(ENDED)
    desk.run(PERIOD_S)
    assert [(each.token, each.text) for each in desk.reports] == [(TOKEN, b"one"), (other, b"two")]
