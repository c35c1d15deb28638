from __future__ import annotations

from itertools import pairwise

import pytest

from edgenode.core.suspicion import LocalHealth, Patience, Suspicion, size_factor, suspicion_timeout
from edgenode.core.types import NodeId

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


def timeout(confirmations: int, wanted: int) -> float:
    return suspicion_timeout(
        confirmations=confirmations, confirmations_wanted=wanted, minimum_s=1.0, maximum_s=4.0
    )


def test_a_suspicion_nobody_confirms_lasts_longest() -> None:
    assert timeout(0, 3) == 4.0


def test_as_many_confirmations_as_wanted_bring_the_minimum() -> None:
    assert timeout(3, 3) == timeout(9, 3) == 1.0


def test_where_nobody_could_confirm_the_minimum_holds_at_once() -> None:
    assert timeout(0, 0) == 1.0


def test_each_confirmation_shortens_the_wait_and_the_first_ones_most() -> None:
    waits = [timeout(confirmations, 4) for confirmations in range(5)]
    steps = [longer - shorter for longer, shorter in pairwise(waits)]
    assert all(step > 0 for step in steps)
    assert steps == sorted(steps, reverse=True)


@pytest.mark.parametrize(("members", "factor"), [(1, 1.0), (10, 1.0), (100, 2.0), (1000, 3.0)])
def test_larger_meshes_give_rumours_more_time(members: int, factor: float) -> None:
    assert size_factor(members) == pytest.approx(factor)


def ends_at(suspicion: Suspicion, heard_at: float) -> float:
    return suspicion.ends_at(heard_at=heard_at, confirmations_max=2, minimum_s=1.0, maximum_s=3.0)


def test_the_first_accuser_is_no_confirmation() -> None:
    suspicion = Suspicion(10.0, {A})
    assert ends_at(suspicion, 0.0) == 13.0
    suspicion.accusers |= {B, C}
    assert ends_at(suspicion, 0.0) == 11.0


def test_a_word_from_the_suspect_begins_the_wait_anew_but_not_for_ever() -> None:
    suspicion = Suspicion(10.0, {A})
    assert ends_at(suspicion, 11.0) == 14.0
    assert ends_at(suspicion, 1000.0) == 16.0


def test_local_health_moves_between_well_and_worst() -> None:
    health = LocalHealth(worst=3)
    assert health.stretch(0.5) == 0.5
    health.worse(7)
    assert (health.level, health.stretch(0.5)) == (3, 2.0)
    for _ in range(5):
        health.better()
    assert health.level == 0


def test_patience_grows_with_refutations_and_is_forgotten() -> None:
    patience = Patience()
    assert patience.factor(0.0, maximum=2.0, forget_s=60.0) == 1.0
    for now in (1.0, 2.0):
        patience.refuted(now, 60.0)
    assert patience.factor(3.0, maximum=2.0, forget_s=60.0) == 1.5
    for now in range(3, 20):
        patience.refuted(float(now), 60.0)
    assert patience.factor(20.0, maximum=2.0, forget_s=60.0) == 2.0
    assert patience.factor(80.0, maximum=2.0, forget_s=60.0) == 1.0
    patience.refuted(200.0, 60.0)
    assert patience.factor(200.0, maximum=2.0, forget_s=60.0) == 1.25
