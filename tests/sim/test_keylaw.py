"""The law of idempotency keys sees what breaks it, and excuses only what numbers excuse."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from sim_records import stored_row

from edgenode.core.errors import KeyReused, NotReady
from edgenode.core.job_ids import keyed_job_id
from edgenode.core.jobs import Record, new_record
from edgenode.core.signals import ClaimRow, Receipt
from edgenode.core.specs import Options, Spec, encode_spec
from edgenode.core.types import NO_BALLOT, Ballot, KeyUse, NodeId
from edgenode.sim.disk import Disk
from edgenode.sim.keylaw import KeyLaw
from edgenode.sim.machines import node_id
from edgenode.sim.violation import Violation

JOB = keyed_job_id("order-17")
A, B, C, D = map(node_id, "abcd")


def spec(content: str) -> Spec:
    return Spec(JOB, "sim", b"{}", 1.0, 2.0, Options(fingerprint=content))


def claimed(content: str, *holders: NodeId) -> Record:
    return new_record(encode_spec(spec(content)), JOB, holders, 0.0, 1.0)._replace(claimed=True)


def law(members: str = "abc") -> KeyLaw:
    made = KeyLaw({node: Disk() for node in map(node_id, members)})
    made.members = made.known_to = lambda *node: {*map(node_id, members)}
    return made


def store(watching: KeyLaw, node: NodeId, record: Record) -> None:
    watching._disks[node].write((stored_row(record),))
    watching.durable(node, record)


def decide_again(watching: KeyLaw, *, is_excused: bool) -> None:
    """D has the key claimed for something else."""
    with nullcontext() if is_excused else pytest.raises(Violation, match="I11"):
        watching.durable(D, claimed("that", C, D))
    assert watching.excused == ({JOB} if is_excused else set())


@pytest.mark.parametrize("other", [claimed("that", A, B), claimed("this", C, B)])
def test_a_key_is_claimed_for_one_content_and_one_set_of_holders(other: Record) -> None:
    watching = law()
    store(watching, A, claimed("this", A, B))
    store(watching, B, claimed("this", A, B))
    with pytest.raises(Violation, match="I11"):
        watching.durable(C, other)


@pytest.mark.parametrize(("grown", "is_excused"), [("abcd", False), ("abcde", True)])
def test_two_claims_are_excused_when_so_many_joined_that_majorities_need_not_meet(
    grown: str, is_excused: bool
) -> None:
    watching = law("abc")
    store(watching, A, claimed("this", A, B))
    watching.members = watching.known_to = lambda *node: {*map(node_id, grown)}
    decide_again(watching, is_excused=is_excused)


@pytest.mark.parametrize(
    ("knowing", "under", "is_excused"),
    [("abc", NO_BALLOT, True), ("abcd", NO_BALLOT, False), ("abc", Ballot(1, A), False)],
)
def test_a_decision_without_a_ballot_is_found_by_majorities_if_it_would_be_one_among_as_many_as_there_are_now(
    knowing: str, under: Ballot, is_excused: bool
) -> None:
    """Three of four are enough; of five members a majority may then see one of the three, and two others.
    (Found by seeds 4452 and 6245.)"""
    watching = law("abcd")
    for node in map(node_id, knowing):
        row = ClaimRow(JOB, under, under, KeyUse((A, B), "this"), 2.0)
        watching._disks[node].write_claims([row], 0.0)
    store(watching, A, claimed("this", A, B))
    watching.members = watching.known_to = lambda *node: {*map(node_id, "abcde")}
    decide_again(watching, is_excused=is_excused)


def test_a_second_claim_is_excused_when_no_disk_has_the_first_job_any_more() -> None:
    watching = law()
    for node in (A, B):
        store(watching, node, claimed("this", A, B))
    del watching._disks[A].rows[JOB]
    with pytest.raises(Violation, match="I11"):
        store(watching, C, claimed("this", C))
    del watching._disks[B].rows[JOB]
    store(watching, C, claimed("this", C))
    assert watching.excused == {JOB}


@pytest.mark.parametrize("knew_all", [True, False])
def test_what_counts_is_whom_a_node_knew_when_it_decided_and_not_when_its_disk_was_done(
    knew_all: bool,
) -> None:
    watching = law("abcd")
    store(watching, A, claimed("this", A, B))
    watching.known_to = lambda *node: {*map(node_id, "abcd" if knew_all else "cd")}
    watching.ordered(D, claimed("that", C, D))
    watching.known_to = lambda *node: {*map(node_id, "abcd")}
    decide_again(watching, is_excused=not knew_all)


def test_without_a_fault_nothing_is_excused() -> None:
    watching = law("abc")
    watching.is_faultless = True
    watching.durable(A, claimed("this", A, B))
    watching.members = lambda: {*map(node_id, "abcdefg")}
    with pytest.raises(Violation, match="I11"):
        watching.durable(D, claimed("that", C, D))


def test_what_was_refused_is_on_no_disk_and_never_starts() -> None:
    watching = law()
    watching.submitted(spec("this"))
    watching.answered(spec("this"), Receipt(JOB, (), NotReady("no")))
    with pytest.raises(Violation, match="P5"):
        watching.durable(A, claimed("this", A, B))
    with pytest.raises(Violation, match="P5"):
        watching.started(JOB, encode_spec(spec("this")))


def test_a_key_is_refused_only_if_it_was_used_for_something_else() -> None:
    watching = law()
    watching.submitted(spec("this"))
    with pytest.raises(Violation, match="I11"):
        watching.answered(spec("this"), Receipt(JOB, (), KeyReused("used")))
    watching.submitted(spec("that"))
    watching.answered(spec("this"), Receipt(JOB, (), KeyReused("used")))
