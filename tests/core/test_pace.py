"""How long a peer's answer is waited for."""

from __future__ import annotations

import pytest
from job_mesh import A, B, C, Mesh

from edgenode.core.pace import Pace
from edgenode.core.wire import Acks, Submit, Submitted, Write


def test_of_a_peer_that_has_not_answered_yet_nothing_special_is_expected() -> None:
    assert Pace(0.5, 5.0).patience_s(A) == 0.5


def test_quick_answers_are_never_waited_for_less_than_the_least() -> None:
    pace = Pace(0.5, 5.0)
    for _ in range(20):
        pace.took(A, 0.001)
    assert pace.patience_s(A) == 0.5


def test_slow_answers_are_waited_for_with_a_margin_and_quick_ones_shorten_it_again() -> None:
    pace = Pace(0.5, 5.0)
    for _ in range(50):
        pace.took(A, 1.0)
    assert 1.0 < pace.patience_s(A) < 1.1
    for _ in range(50):
        pace.took(A, 0.01)
    assert pace.patience_s(A) == 0.5


def test_uneven_answers_are_waited_for_longer_than_even_ones() -> None:
    even, uneven = Pace(0.1, 60.0), Pace(0.1, 60.0)
    for turn in range(50):
        even.took(A, 1.0)
        uneven.took(A, 0.2 if turn % 2 else 1.8)
    assert uneven.patience_s(A) > 2 * even.patience_s(A)


def test_what_had_to_be_said_again_doubles_the_wait_once_until_an_answer_comes_in_time() -> None:
    pace = Pace(0.5, 5.0)
    for _ in range(100):
        pace.repeated(A, 10.0)
    assert pace.patience_s(A) == 1.0
    pace.repeated(A, 11.0)
    assert pace.patience_s(A) == 2.0
    pace.took(A, 0.3)
    assert pace.patience_s(A) == pytest.approx(0.9)


def test_no_answer_is_waited_for_longer_than_the_most() -> None:
    pace = Pace(0.5, 5.0)
    pace.took(A, 100.0)
    assert pace.patience_s(A) == 5.0


def test_another_life_of_a_peer_has_no_pace_yet() -> None:
    pace = Pace(0.5, 5.0)
    pace.took(A, 3.0)
    pace.forget(A)
    assert pace.patience_s(A) == 0.5


def test_to_peers_that_are_slow_nothing_is_said_twice() -> None:
    """Acknowledgements of a busy mesh take longer than the first repetition would."""
    mesh = Mesh("abc", slots=0)
    mesh.rule = lambda source, to, message: 1.2 if isinstance(message, Acks | Submitted) else True
    for _ in range(3):
        mesh.submit(C, mesh.spec("abc", run_at=mesh.wall() + 3600.0))
        mesh.run(10.0)
    assert len(mesh.messages(Write, source=A, to=B)) > 3
    assert len(mesh.messages(Submit, source=C)) > 3
    mesh.sent.clear()
    mesh.submit(C, mesh.spec("abc", run_at=mesh.wall() + 3600.0))
    mesh.run(10.0)
    assert len(mesh.messages(Write, source=A, to=B)) == 1
    assert len(mesh.messages(Submit, source=C)) == 1
