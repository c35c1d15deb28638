"""What of a start's words is told when: lines as they come, of a flood the end, of progress the latest."""

from __future__ import annotations

from collections.abc import Callable

from edgenode.shell.output import BURST_CHARS, FLOOD_PERIOD_S, Lines
from edgenode.shell.starts import Latest


class Alarms:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waiting: list[tuple[float, Callable[[], None], Alarms.Alarm]] = []

    class Alarm:
        is_cancelled = False

        def cancel(self) -> None:
            self.is_cancelled = True

    def later(self, delay_s: float, call: Callable[[], None]) -> Alarms.Alarm:
        alarm = Alarms.Alarm()
        self.waiting.append((self.now + delay_s, call, alarm))
        return alarm

    def run(self, duration_s: float) -> None:
        self.now += duration_s
        due = [entry for entry in self.waiting if entry[0] <= self.now]
        self.waiting = [entry for entry in self.waiting if entry[0] > self.now]
        for _, call, alarm in due:
            if not alarm.is_cancelled:
                call()


def test_lines_are_told_when_they_end_and_the_rest_at_the_close() -> None:
    told: list[str] = []
    lines = Lines(told.append, Alarms().later)
    lines.write("one")
    assert told == []
    lines.write(" line\nand")
    assert told == ["one line\nand"]
    lines.write(" more")
    lines.close()
    lines.write("too late\n")
    assert "".join(told) == "one line\nand more"


def test_of_a_flood_the_end_is_told_now_and_then_and_what_is_dropped_is_counted() -> None:
    told: list[str] = []
    alarms = Alarms()
    lines = Lines(told.append, alarms.later)
    written = 0
    for number in range(20_000):
        lines.write(f"{number:019d}\n")
        written += 20
    assert sum(map(len, told)) <= BURST_CHARS
    alarms.run(FLOOD_PERIOD_S)
    assert told[-1].endswith(f"{19_999:019d}\n")
    dropped = int(told[-1].partition("[")[2].partition(" ")[0])
    note = f"\n[{dropped} characters are dropped]\n"
    assert told[-1].startswith(note)
    assert sum(map(len, told)) - len(note) + dropped == written
    lines.write("after a while\n")
    alarms.run(FLOOD_PERIOD_S)
    assert told[-1] == "after a while\n"


def test_the_latest_is_told_once_in_a_period_and_what_came_last_in_any_case() -> None:
    told: list[int] = []
    alarms = Alarms()
    latest = Latest(told.append, 0.5, later=alarms.later, clock=lambda: alarms.now)
    for number in range(10):
        latest.say(number)
    assert told == [0]
    alarms.run(0.5)
    assert told == [0, 9]
    alarms.run(5)
    latest.say(10)
    latest.say(11)
    latest.flush()
    alarms.run(5)
    assert told == [0, 9, 10, 11]
