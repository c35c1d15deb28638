"""Batches in the simulator that hold keyed jobs beside others: each item is answered for itself."""

from __future__ import annotations

from itertools import islice

import pytest
from sim_records import A, a_record, a_spec, stored_row

from edgenode.core.errors import KeyReused
from edgenode.core.job_ids import is_keyed, keyed_job_id
from edgenode.core.node import Node
from edgenode.core.signals import Receipt, RequestId, SubmitAsked, SubmitDone
from edgenode.core.specs import Options, Spec
from edgenode.sim.requests import Requests
from edgenode.sim.trial import Plan, Trial
from edgenode.sim.violation import Violation
from edgenode.sim.world import World

TRIALS = 8


def test_seeds_have_keyed_jobs_in_their_batches() -> None:
    trials = (Trial(Plan(seed), Node) for seed in range(100))
    mixed = 0
    for trial in islice((each for each in trials if each.keyed.keys and each.keyed._is_mixed), TRIALS):
        submitted, clients = trial.world.ledger.submitted, trial.clients

        def count(specs: tuple[Spec, ...]) -> None:
            nonlocal mixed
            mixed += len({is_keyed(spec.id) for spec in specs}) == 2
            submitted(specs)  # noqa: B023 -- it is called within this turn

        trial.world.ledger.submitted = count  # type: ignore[method-assign]
        trial.run()
        assert clients.jobs
    assert mixed > TRIALS


def keyed(content: str) -> Spec:
    spec = a_spec(2, Options(key="k", fingerprint=content))
    return Spec(keyed_job_id("k"), spec.task, spec.payload, spec.submitted_at, spec.expires_at, spec.options)


def answer(world: World, specs: tuple[Spec, ...], receipts: tuple[Receipt, ...]) -> None:
    requests = Requests(world.ledger)
    (life,) = world.lives()
    world.ledger.submitted(specs)
    requests.ask(life, lambda request: SubmitAsked(request, specs, 1.0), lambda answer: None)
    assert requests.has_open_uses is any(is_keyed(spec.id) for spec in specs)
    requests.answered(SubmitDone(RequestId(1), receipts), set)


@pytest.fixture
def world() -> World:
    made = World("batches", Node)
    made.start(made.add("a"))
    made.disks[A].write((stored_row(a_record(a_spec(1))),))
    return made


def test_every_item_has_its_receipt_in_its_place(world: World) -> None:
    plain, key = a_spec(1), keyed("this")
    one, other = Receipt(plain.id, (A,), None), Receipt(key.id, (), KeyReused("used"))
    world.ledger.keys.submitted(keyed("that"))
    answer(world, (plain, key), (one, other))
    assert world.ledger.acked == {plain.id: (A,)}
    for wrong in ((other, one), (one,), (one, one, other)):
        with pytest.raises(Violation, match=r"P1: \d receipts for 2 jobs"):
            answer(world, (plain, key), wrong)


def test_a_key_in_a_batch_is_refused_only_if_it_was_used_for_something_else(world: World) -> None:
    plain, key = a_spec(1), keyed("this")
    with pytest.raises(Violation, match="I11"):
        answer(world, (plain, key), (Receipt(plain.id, (A,), None), Receipt(key.id, (), KeyReused("used"))))
