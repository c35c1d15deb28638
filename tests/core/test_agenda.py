"""When many things next need attention."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgenode.core.agenda import Agenda
from edgenode.core.types import FOREVER


def test_keys_come_when_their_instant_has_come_the_earliest_first() -> None:
    agenda: Agenda[str] = Agenda()
    for key, at in (("late", 3.0), ("first", 1.0), ("second", 2.0), ("never", FOREVER)):
        agenda.set(key, at)
    assert agenda.next() == 1.0
    assert agenda.take_due(0.9) == []
    assert agenda.take_due(2.0) == ["first", "second"]
    assert agenda.next() == 3.0
    assert len(agenda) == 1


def test_a_key_has_one_instant_and_the_last_one_counts() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.set("job", 1.0)
    agenda.set("job", 5.0)
    assert agenda.take_due(4.0) == []
    agenda.set("job", 2.0)
    agenda.set("job", 5.0)
    agenda.set("job", 2.0)
    assert agenda.take_due(9.0) == ["job"]
    assert agenda.next() == FOREVER


def test_soon_never_makes_it_later() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.soon("job", 5.0)
    agenda.soon("job", 9.0)
    assert agenda.next() == 5.0
    agenda.soon("job", 1.0)
    assert agenda.next() == 1.0


def test_what_was_dropped_or_set_to_forever_does_not_come() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.set("dropped", 1.0)
    agenda.set("forever", 1.0)
    agenda.drop("dropped")
    agenda.drop("unknown")
    agenda.set("forever", FOREVER)
    assert "dropped" not in agenda
    assert agenda.next() == FOREVER
    assert agenda.take_due(9.0) == []
    agenda.set("dropped", 1.0)
    assert agenda.take_due(1.0) == ["dropped"]


def test_a_timer_that_is_moved_ten_thousand_times_takes_no_more_room_than_one() -> None:
    agenda: Agenda[str] = Agenda()
    for number in range(10_000):
        agenda.set("job", float(number))
    assert len(agenda._heap) <= 100
    assert agenda.take_due(1e9) == ["job"]


moves = st.lists(
    st.tuples(st.sampled_from(["set", "soon", "drop", "take"]), st.integers(0, 5), st.integers(0, 20)),
    max_size=60,
)


@given(moves)
def test_it_agrees_with_a_plain_dictionary(moves: list[tuple[str, int, int]]) -> None:
    agenda: Agenda[int] = Agenda()
    plain: dict[int, float] = {}
    for move, key, at in moves:
        if move == "set":
            agenda.set(key, at)
            plain[key] = at
        elif move == "soon":
            agenda.soon(key, at)
            plain[key] = min(at, plain.get(key, FOREVER))
        elif move == "drop":
            agenda.drop(key)
            plain.pop(key, None)
        else:
            taken = agenda.take_due(at)
            assert sorted(taken) == sorted(known for known, when in plain.items() if when <= at)
            instants = [plain.pop(known) for known in taken]
            assert instants == sorted(instants)
        assert agenda.next() == min(plain.values(), default=FOREVER)
        assert len(agenda) == len(plain)
