"""Idempotency keys: one set of holders a key, whoever asks where and when."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import pytest
from job_mesh import (
    DAY_S,
    WALL,
    A,
    B,
    C,
    D,
    Disk,
    E,
    Mesh,
    StillView,
    let_pass,
    make_desk,
    make_record,
    make_spec,
    sends,
)

from edgenode.core.claims import ClaimBook
from edgenode.core.desk import Desk
from edgenode.core.errors import KeyInFlight, KeyReused, OutcomeUnknown
from edgenode.core.job_bytes import decode, encode
from edgenode.core.job_ids import keyed_job_id
from edgenode.core.jobs import Record, decided, is_claimed, new_record, settled
from edgenode.core.keys import Keys
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.signals import ClaimRow, Receipt, RequestId
from edgenode.core.specs import Spec, decode_spec, encode_spec
from edgenode.core.types import NO_BALLOT, Ballot, Delivery, KeyUse, NodeId, State
from edgenode.core.view import Standing
from edgenode.core.wire import (
    REFUSED_CLAIMED,
    REFUSED_GAVE_WAY,
    REFUSED_MOVED,
    REFUSED_NOT_READY,
    REFUSED_REUSED,
    REFUSED_UNSURE,
    Ask,
    Claim,
    Claimed,
    ClaimItem,
    Claims,
    Copies,
    Submit,
    SubmitAnswer,
    SubmitItem,
    Submitted,
    Write,
)

KEY = "order-17"
JOB = keyed_job_id(KEY)


def keyed(mesh: Mesh, content: str = "same", *, key: str = KEY, **options: object) -> Spec:
    """A submission under a key, as an entry node makes it now."""
    spec = make_spec(keyed_job_id(key), key=key, fingerprint=content, **options)
    return replace(spec, submitted_at=mesh.wall(), expires_at=mesh.wall() + 7 * DAY_S)


def key_of(mesh: Mesh, first: str) -> str:
    """A key whose job ranks first on this node."""
    names = (f"key-{number}" for number in range(10_000))
    return next(name for name in names if mesh.holders(keyed_job_id(name))[0][0] == first)


def receipt(mesh: Mesh, request: RequestId) -> Receipt:
    mesh.run_until(lambda: request in mesh.submits)
    (found,) = mesh.submits[request].receipts
    return found


def test_a_keyed_job_is_claimed_at_all_members_stored_and_run_once() -> None:
    mesh = Mesh("abcde")
    spec = keyed(mesh)
    taken = receipt(mesh, mesh.submit(A, spec))
    assert taken.error is None
    assert not taken.replayed
    assert all(JOB in disk.claim_rows for disk in mesh.disks.values())
    mesh.run_until(lambda: mesh.settled(JOB))
    assert len(mesh.runs(JOB)) == 1
    first = mesh.holders(JOB)[0]
    assert is_claimed(mesh.record(first, JOB))
    assert mesh.record(first, JOB).ballot == Ballot(1, first)


def test_what_disks_that_are_behind_say_of_a_key_decides_nothing() -> None:
    mesh = Mesh("abcde")
    for node in (A, B):
        for other in (C, D, E):
            mesh.nodes[node].membership.doubt(other, mesh.nodes[node].view.boot_of(other))
    mesh.run(0.1)
    mesh.submit(A, keyed(mesh))
    mesh.run_until(lambda: mesh.runs(JOB))
    mesh.run(3.0)
    owner = next(begun.token.owner for begun in mesh.begun if begun.job == JOB)
    assert owner in (A, B)
    assert not is_claimed(mesh.record(owner, JOB))


# ------------------------------------------------------------------------------------- the same key again


def test_who_comes_late_with_another_life_of_a_key_is_told_which_one_stands() -> None:
    """D stood in for holders of the other life: its answer to the claim comes when that is over."""
    mesh = Mesh("abcd")
    mesh.verdict = lambda begun: None
    mesh.submit(A, keyed(mesh))
    mesh.run_until(lambda: mesh.runs(JOB))
    owner = mesh.holders(JOB)[0]
    mine = mesh.record(owner, JOB)
    stranger = next(name for name in (A, B, C, D) if name not in mine.holders)
    other = mine._replace(holders=(mine.holders[1], stranger), claimed=False)
    use = KeyUse(other.holders, "")
    late = Claims((Claimed(JOB, NO_BALLOT, NO_BALLOT, use, other.holders, encode(other)),))
    (copies,) = sends(mesh.tell(stranger, owner, late), Copies)
    assert [decode(blob) for blob in copies.records] == [mine]
    same = Claims((Claimed(JOB, NO_BALLOT, NO_BALLOT, use, mine.holders, encode(mine)),))
    assert not sends(mesh.tell(stranger, owner, same), Copies)


def test_who_is_behind_and_has_another_life_of_a_key_is_told_too_which_one_stands() -> None:
    """Its word counts for nothing, but it would offer its copy to the holders of that life for ever. (Found
    by seed 791084 of the simulator.)"""
    claimant = Claimant(B, C, D, answering=(B,))
    assert isinstance(claimant.desk.view, StillView)
    claimant.desk.view.behind.add(D)
    mine = make_record(JOB, (A, B), key=KEY)
    theirs = make_record(JOB, (C,), key=KEY)._replace(claimed=True)
    claimant.desk.table.put(mine)
    claimant.keys.take_on([JOB])
    use = KeyUse((C,), "")
    claimant.keys.on_claims(D, [Claimed(JOB, NO_BALLOT, NO_BALLOT, use, mine.holders, encode(mine))])
    claimant.keys.on_claims(C, [Claimed(JOB, NO_BALLOT, NO_BALLOT, use, theirs.holders, encode(theirs))])
    told = [send.to for send in claimant.desk.post.flush() if isinstance(send.message, Copies)]
    assert sorted(told) == [B, C, D]


def test_who_comes_late_with_another_life_of_a_key_is_told_also_by_who_needs_its_copy_no_more() -> None:
    """The settled one is on the claimant's disk alone by then, and not in its memory."""
    mesh = Mesh("abcd")
    receipt(mesh, mesh.submit(A, keyed(mesh)))
    mesh.run_until(lambda: mesh.settled(JOB))
    mesh.run(1.0)
    owner = mesh.holders(JOB)[0]
    ended = mesh.record(owner, JOB)
    stranger = next(name for name in mesh.names if name not in ended.holders)
    other = ended._replace(holders=(ended.holders[1], stranger), claimed=False, outcome=None)
    use = KeyUse(other.holders, "")
    late = Claims((Claimed(JOB, NO_BALLOT, NO_BALLOT, use, other.holders, encode(other)),))
    (copies,) = sends(mesh.tell(stranger, owner, late), Copies)
    assert [decode(blob) for blob in copies.records] == [ended]


def test_a_repetition_at_another_node_is_the_same_job_and_says_so() -> None:
    mesh = Mesh("abcde")
    mesh.verdict = lambda begun: None
    receipt(mesh, mesh.submit(A, keyed(mesh)))
    mesh.run(0.3)
    for name in (B, C, D, E):
        again = receipt(mesh, mesh.submit(name, keyed(mesh)))
        assert again.error is None
        assert again.replayed
    assert len(mesh.runs(JOB)) == 1


def test_a_repetition_after_the_end_never_runs_again() -> None:
    mesh = Mesh("abcde")
    receipt(mesh, mesh.submit(A, keyed(mesh)))
    mesh.run_until(lambda: mesh.settled(JOB))
    mesh.run(1.0)
    again = receipt(mesh, mesh.submit(E, keyed(mesh)))
    assert again.replayed
    assert again.error is None
    mesh.run(3.0)
    assert len(mesh.runs(JOB)) == 1


def test_a_key_used_at_all_nodes_at_once_makes_one_job() -> None:
    mesh = Mesh("abcde")
    requests = [mesh.submit(name, keyed(mesh)) for name in mesh.names]
    taken = [receipt(mesh, request) for request in requests]
    assert all(each.error is None for each in taken)
    mesh.run_until(lambda: mesh.settled(JOB))
    assert len(mesh.runs(JOB)) == 1


def test_other_content_under_a_key_is_refused_for_certain() -> None:
    mesh = Mesh("abcde")
    receipt(mesh, mesh.submit(A, keyed(mesh)))
    for name in mesh.names:
        error = receipt(mesh, mesh.submit(name, keyed(mesh, "other"))).error
        assert isinstance(error, KeyReused)
        assert error.definite
    mesh.run_until(lambda: mesh.settled(JOB))
    assert isinstance(receipt(mesh, mesh.submit(D, keyed(mesh, "other"))).error, KeyReused)
    assert receipt(mesh, mesh.submit(D, keyed(mesh))).error is None


def test_of_two_contents_at_once_one_is_refused() -> None:
    mesh = Mesh("abcde")
    requests = [mesh.submit(A, keyed(mesh, "one")), mesh.submit(D, keyed(mesh, "other"))]
    errors = [receipt(mesh, request).error for request in requests]
    assert [error is None for error in errors].count(True) == 1
    assert isinstance(next(error for error in errors if error is not None), KeyReused)


def test_other_content_is_not_refused_for_certain_when_a_holder_died_that_may_have_taken_it() -> None:
    mesh = Mesh("abcde")
    first, second, *_ = mesh.holders(JOB)
    entry = next(name for name in mesh.names if name not in mesh.holders(JOB))
    mesh.rule = lambda source, to, message: not isinstance(message, Submit | Submitted)
    request = mesh.submit(entry, keyed(mesh))
    mesh.kill(first)
    mesh.run_until(lambda: bool(mesh.messages(Submit, source=entry, to=second)))
    mesh.tell(second, entry, Submitted(request, (SubmitAnswer(JOB, (), REFUSED_REUSED),)))
    error = receipt(mesh, request).error
    assert error is not None
    assert not error.definite


def test_other_content_is_refused_for_certain_when_nobody_who_is_gone_was_asked() -> None:
    mesh = Mesh("abcde")
    first, second, *_ = mesh.holders(JOB)
    entry, other, *_ = (name for name in mesh.names if name not in mesh.holders(JOB))
    mesh.kill(other)
    mesh.run_until(lambda: mesh.nodes[entry].view.dead_since(other) is not None)
    mesh.rule = lambda source, to, message: not isinstance(message, Submit | Submitted)
    request = mesh.submit(entry, keyed(mesh))
    mesh.tell(first, entry, Submitted(request, (SubmitAnswer(JOB, (other, second), REFUSED_CLAIMED),)))
    mesh.run_until(lambda: bool(mesh.messages(Submit, source=entry, to=second)))
    mesh.tell(second, entry, Submitted(request, (SubmitAnswer(JOB, (), REFUSED_REUSED),)))
    assert isinstance(receipt(mesh, request).error, KeyReused)


def gave_way() -> tuple[Mesh, Submit, Record]:
    """A took a submission without knowing whose its key is, and has not acknowledged it; then the key turns
    out to be another content's. The mesh, the submission, and what A has now."""
    mesh = Mesh("abcde")
    mesh.rule = lambda source, to, message: not isinstance(message, Claim | Claims | Ask | Submitted)
    message = Submit(7, 0, (SubmitItem(encode_spec(keyed(mesh)), (A, B)),))
    mesh.tell(E, A, message)
    mesh.run_until(lambda: mesh.has(A, JOB))
    theirs = new_record(encode_spec(keyed(mesh, "other")), JOB, (B, C), 0.0, mesh.wall())
    theirs = theirs._replace(claimed=True)
    mesh.tell(B, A, Copies((encode(theirs),)))
    assert decode_spec(mesh.nodes[A].desk.table.get(JOB).spec).options.fingerprint == "other"
    return mesh, message, theirs


def test_a_submission_that_was_stored_before_its_key_was_anothers_is_not_refused_for_certain() -> None:
    mesh, message, _ = gave_way()
    (answer,) = sends(mesh.tell(E, A, message), Submitted)
    assert [each.refused for each in answer.answers] == [REFUSED_GAVE_WAY]
    (later,) = sends(mesh.tell(D, A, message), Submitted)
    assert [each.refused for each in later.answers] == [REFUSED_REUSED], "this one was never taken"


def test_a_submission_is_not_acknowledged_with_what_another_content_of_its_key_has_become() -> None:
    mesh, _, theirs = gave_way()
    done = settled(decided(theirs, State.FAILED, firm=True, at=mesh.wall()))
    (answer,) = sends(mesh.tell(B, A, Copies((encode(done),))), Submitted)
    assert [each.refused for each in answer.answers] == [REFUSED_GAVE_WAY]


def test_who_is_told_that_its_submission_gave_way_hears_that_it_may_have_run() -> None:
    mesh = Mesh("abcde")
    mesh.rule = lambda source, to, message: not isinstance(message, Submit | Submitted)
    request = mesh.submit(E, keyed(mesh))
    mesh.tell(mesh.holders(JOB)[0], E, Submitted(request, (SubmitAnswer(JOB, (), REFUSED_GAVE_WAY),)))
    error = receipt(mesh, request).error
    assert isinstance(error, OutcomeUnknown)
    assert error.detail == REFUSED_GAVE_WAY


@pytest.mark.parametrize("moved", [False, True])
def test_other_content_is_not_refused_for_certain_by_who_may_have_taken_it_in_another_life(
    moved: bool,
) -> None:
    """Of a holder that restarted, and of one to which it moved, nobody knows whether they took it before."""
    mesh = Mesh("abcde")
    first, second, *_ = mesh.holders(JOB)
    entry = next(name for name in mesh.names if name not in mesh.holders(JOB))
    mesh.rule = lambda source, to, message: not isinstance(message, Submit | Submitted)
    request = mesh.submit(entry, keyed(mesh))
    if moved:
        mesh.tell(first, entry, Submitted(request, (SubmitAnswer(JOB, (), REFUSED_MOVED + second),)))
    else:
        mesh.kill(first, silently=True)
        mesh.boot(first)
    mesh.run(1.5)
    refused = Submitted(request, (SubmitAnswer(JOB, (), REFUSED_REUSED),))
    mesh.tell(second if moved else first, entry, refused)
    error = receipt(mesh, request).error
    assert error is not None
    assert not error.definite


def submit_at(mesh: Mesh, owner: NodeId, holders: tuple[NodeId, ...], content: str = "same") -> None:
    """A submission by an entry node with views of its own: it names other holders."""
    item = SubmitItem(encode_spec(keyed(mesh, content)), holders)
    mesh.tell(E, owner, Submit(99, 0, (item,)))


@pytest.mark.parametrize(
    ("first", "second"), [((A, B, C), (D, C, B)), ((D, C, B), (A, B, C)), ((B, C, D), (C, D, A))]
)
def test_entry_nodes_with_other_views_make_one_job_between_them(
    first: tuple[NodeId, ...], second: tuple[NodeId, ...]
) -> None:
    mesh = Mesh("abcde")
    submit_at(mesh, first[0], first)
    submit_at(mesh, second[0], second)
    mesh.run_until(lambda: len(mesh.runs(JOB)) > 0)
    mesh.run(3.0)
    assert len(mesh.runs(JOB)) == 1
    copies = [mesh.record(name, JOB) for name in mesh.names if mesh.has(name, JOB)]
    assert len(copies) == 3
    assert len({copy.holders for copy in copies}) == 1
    assert all(copy.settled and copy.claimed for copy in copies)


@pytest.mark.parametrize("seed", range(12))
def test_of_two_contents_at_two_holders_at_once_one_becomes_the_job_and_the_other_never_does(
    seed: int,
) -> None:
    """An entry node that takes A for dead turns to B, when another one's submission is at A already. Messages
    take as long as they like: whoever stores a record first must not find it replaced by the other's."""
    dice = random.Random(seed)
    mesh = Mesh("abcde")
    mesh.rule = lambda source, to, message: dice.choice((True, 0.002, 0.01, 0.03, 0.2))
    contents = dice.sample(("one", "other"), 2)
    submit_at(mesh, A, (A, B, C), contents[0])
    mesh.run(dice.choice((0.0, 0.001, 0.01, 0.05)))
    submit_at(mesh, B, (A, B, C), contents[1])
    mesh.run(5.0)
    answers = [answer for told in mesh.messages(Submitted) for answer in told.answers]
    assert len([answer for answer in answers if not answer.refused]) == 1
    assert len(mesh.runs(JOB)) == 1
    assert len({mesh.record(name, JOB).spec for name in (A, B, C)}) == 1


@pytest.mark.parametrize("seed", [3, 18, 24, 51, 54])
def test_two_submissions_of_one_content_at_two_holders_start_it_once(seed: int) -> None:
    """They differ in their days only. None of the two is made anew out of the other."""
    dice = random.Random(seed)
    mesh = Mesh("abcde")
    mesh.rule = lambda source, to, message: dice.choice((True, 0.002, 0.01, 0.03, 0.2))
    submit_at(mesh, A, (A, B, C))
    mesh.run(dice.choice((0.001, 0.01, 0.05)))
    submit_at(mesh, B, (A, B, C))
    mesh.run(5.0)
    assert len(mesh.runs(JOB)) == 1
    assert len({mesh.record(name, JOB).spec for name in (A, B, C)}) == 1


def test_who_comes_later_is_sent_to_the_first() -> None:
    mesh = Mesh("abcde")
    mesh.verdict = lambda begun: None
    submit_at(mesh, A, (A, B, C))
    mesh.run_until(lambda: bool(mesh.runs(JOB)))
    submit_at(mesh, D, (D, E, C))
    mesh.run(1.0)
    (answer,) = mesh.messages(Submitted, source=D)[0].answers
    assert answer.nodes == (A, B, C)
    assert mesh.runs(JOB) == [A]


def test_a_disk_without_a_vote_on_a_key_sends_its_submitters_to_the_job_and_claims_nothing() -> None:
    """Its row, which may have said whose the key is, was damaged."""
    mesh = Mesh("abc", settings=Settings(jobs=JobSettings(replicas=1)))
    mesh.disks[B].lost.add(JOB)
    submit_at(mesh, B, (B,))
    mesh.run(1.0)
    (answer,) = mesh.messages(Submitted, source=B)[-1].answers
    assert answer.refused == REFUSED_UNSURE
    assert not any(JOB in disk.claim_rows for disk in mesh.disks.values())
    submit_at(mesh, A, (A,))
    mesh.run_until(lambda: mesh.has_settled(A, JOB))
    submit_at(mesh, B, (B,))
    mesh.run(1.0)
    (answer,) = mesh.messages(Submitted, source=B)[-1].answers
    assert (answer.refused, answer.nodes) == (REFUSED_CLAIMED, (A,))
    assert mesh.runs(JOB) == [A]


@pytest.mark.parametrize("is_keyed", [True, False])
def test_a_disk_that_is_not_the_latest_has_taken_nothing_and_says_so(is_keyed: bool) -> None:
    """If it were unsure of that, other content under a key could be refused for certain by nobody while that
    disk is one of the holders that were claimed."""
    mesh = Mesh("abc")
    mesh.nodes[B].desk.table.has_vote = False
    spec = keyed(mesh) if is_keyed else mesh.spec("abc")
    mesh.tell(D, B, Submit(5, 0, (SubmitItem(encode_spec(spec), (B,)),)))
    mesh.run(1.0)
    (answer,) = mesh.messages(Submitted, source=B)[-1].answers
    assert answer.refused == REFUSED_NOT_READY


# --------------------------------------------------------------------------------------------- deaths


def test_a_claimant_that_dies_before_it_stored_the_job_blocks_nobody() -> None:
    mesh = Mesh("abcde")
    mesh.rule = lambda source, to, message: not (to == mesh.holders(JOB)[0] and isinstance(message, Claims))
    entry = next(name for name in mesh.names if name not in mesh.holders(JOB))
    request = mesh.submit(entry, keyed(mesh))
    mesh.run_until(lambda: all(JOB in disk.claim_rows for disk in mesh.disks.values()))
    mesh.kill(mesh.holders(JOB)[0])
    taken = receipt(mesh, request)
    assert taken.error is None
    mesh.run_until(lambda: mesh.settled(JOB))
    assert len(mesh.runs(JOB)) == 1


def test_a_key_stays_with_its_content_while_all_that_have_its_job_are_dead() -> None:
    """A and C, which acknowledged it, may come back. B has heard of the claim, and not of the job: it takes
    the same content as the key's, and no other."""
    mesh = Mesh("abcde")
    mesh.rule = lambda source, to, message: B not in (source, to) or isinstance(message, Claim | Claims)
    submit_at(mesh, A, (A, B, C), "one")
    mesh.run_until(lambda: bool(mesh.messages(Submitted)))
    assert [mesh.has(name, JOB) for name in mesh.names] == [True, False, True, False, False]
    for name in (A, C):
        mesh.kill(name)
    mesh.rule = let_pass
    for content in ("other", "one"):
        submit_at(mesh, B, (A, B, C), content)
        mesh.run(2.0)
    answers = [answer for told in mesh.messages(Submitted) for answer in told.answers]
    assert [answer.refused for answer in answers] == ["", REFUSED_REUSED, ""]


@pytest.mark.parametrize("silently", [False, True])
def test_with_most_members_dead_a_keyed_job_runs_and_settles_when_they_are_back(silently: bool) -> None:
    mesh = Mesh("abcde")
    for name in (C, D, E):
        mesh.kill(name, silently=silently)
    mesh.run_until(partial(mesh.agree, (A, B)))
    taken = receipt(mesh, mesh.submit(A, keyed(mesh)))
    assert taken.error is None
    mesh.run_until(lambda: len(mesh.runs(JOB)) == 1)
    mesh.run(5.0)
    copy = mesh.record(taken.nodes[0], JOB)
    assert copy.outcome is not None
    assert not copy.claimed
    assert not copy.settled
    mesh.boot(C)
    mesh.run_until(lambda: mesh.has_settled(taken.nodes[0], JOB))
    assert len(mesh.runs(JOB)) == 1


def test_who_comes_to_own_a_job_claims_its_key_though_it_gave_that_up_while_it_asked() -> None:
    """Another one owned it for a moment, and was to see to the key. (Found by a seed of the simulator.)"""
    mesh = Mesh("abcde")
    for name in (C, D, E):
        mesh.kill(name)
    mesh.run_until(partial(mesh.agree, (A, B)))
    taken = receipt(mesh, mesh.submit(A, keyed(mesh)))
    mesh.run(5.0)
    owner = mesh.nodes[taken.nodes[0]]
    owner._keys._drop(JOB)
    owner.desk.led.add(JOB)
    mesh.boot(C)
    mesh.run_until(lambda: mesh.has_settled(taken.nodes[0], JOB))


def test_an_owner_that_hears_from_a_write_of_another_that_its_key_is_decided_becomes_firm() -> None:
    """That write is refused, and its owner gives way: nobody says it again. (Found by seed 7909.)"""
    mesh = Mesh("abcde")
    for name in (C, D, E):
        mesh.kill(name)
    mesh.run_until(partial(mesh.agree, (A, B)))
    taken = receipt(mesh, mesh.submit(A, keyed(mesh)))
    mesh.run(5.0)
    owner = taken.nodes[0]
    mine = mesh.record(owner, JOB)
    assert not mine.settled
    before = Ballot(mine.own.ballot.term - 1, B if owner == A else A)
    theirs = mine._replace(own=mine.own._replace(ballot=before), outcome=None, claimed=True)
    mesh.tell(before.owner, owner, Write((encode(theirs),)))
    mesh.run(5.0)
    assert mesh.has_settled(owner, JOB)


def test_a_key_whose_holders_cannot_be_asked_is_in_flight_and_never_runs_elsewhere() -> None:
    """Nine members: the three that hold the job are cut off from six, who are a majority."""
    mesh = Mesh("abcdefghi")
    mesh.verdict = lambda begun: None
    first = receipt(mesh, mesh.submit(A, keyed(mesh)))
    mesh.run_until(lambda: bool(mesh.runs(JOB)))
    inside = {name for name in mesh.names if mesh.has(name, JOB)} | {*first.nodes}
    outside = [name for name in mesh.names if name not in inside]
    mesh.cut(*((one, other) for one in inside for other in outside))
    mesh.run_until(partial(mesh.agree, outside))
    error = receipt(mesh, mesh.submit(outside[0], keyed(mesh))).error
    assert isinstance(error, KeyInFlight)
    assert not error.definite
    mesh.run(10.0)
    assert len(mesh.runs(JOB)) == 1
    mesh.heal()
    mesh.run(2.0)
    assert receipt(mesh, mesh.submit(outside[0], keyed(mesh))).replayed


def test_a_use_that_may_be_decided_goes_before_one_that_cannot_be() -> None:
    """Of five members three are left. Only C has heard of D's claim, which needed four; A's, of which A and B
    have heard, D and E may have accepted as well."""
    mesh = Mesh("abcde")
    mesh.rule = lambda source, to, message: not isinstance(message, Claim) or (source, to) == (D, C)
    submit_at(mesh, D, (D, E))
    mesh.run(0.1)
    for name in (D, E):
        mesh.kill(name)
    mesh.run_until(partial(mesh.agree, [A, B, C]))
    assert JOB in mesh.disks[C].claim_rows
    mesh.rule = let_pass
    submit_at(mesh, A, (A, B, C))
    mesh.run_until(lambda: bool(mesh.runs(JOB)), limit_s=10.0)
    assert mesh.record(A, JOB).holders == (A, B, C)
    assert mesh.record(A, JOB).claimed


def cut_in_two(mesh: Mesh, one: str, other: str) -> None:
    sides = [[name for name in mesh.names if name[0] in side] for side in (one, other)]
    mesh.cut(*((left, right) for left in sides[0] for right in sides[1]))
    for side in sides:
        mesh.run_until(partial(mesh.agree, side))


def test_three_of_five_that_say_who_came_first_decide_nothing_that_the_rest_cannot_find_out() -> None:
    """E has heard of A's claim first; then E, C and D are cut off with C's, of which two of them heard first.
    They must decide it, for it may be decided: so A's must not be, though three of five stand behind it."""
    mesh = Mesh("abcde")
    heard = {(A, B), (A, E), (C, D)}
    mesh.rule = lambda source, to, message: not isinstance(message, Claim) or (source, to) in heard
    submit_at(mesh, A, (A, B))
    submit_at(mesh, C, (C, D))
    mesh.run(0.3)
    heard.update(((C, E), (E, C)))
    mesh.cut(*((one, other) for one in (A, B) for other in (C, D, E)))
    mesh.run(15.0)
    settled = {mesh.record(n, JOB).outcome for n in mesh.names if mesh.has_settled(n, JOB)}
    assert len(settled) == 1
    assert not mesh.has_settled(A, JOB)


@pytest.mark.parametrize("content", ["same", "other"])
@pytest.mark.parametrize("sides", [("ab", "cde"), ("cde", "ab"), ("abc", "def"), ("a", "bc")])
def test_a_key_used_on_both_sides_of_a_cut_is_one_job_after_healing(
    sides: tuple[str, str], content: str
) -> None:
    """The published limit: it may run on both. What is settled is the side's that most members are on."""
    mesh = Mesh("".join(sorted("".join(sides))))
    cut_in_two(mesh, *sides)
    entries = [NodeId(side[0] * 16) for side in sides]
    requests = [mesh.submit(entries[0], keyed(mesh, "same")), mesh.submit(entries[1], keyed(mesh, content))]
    assert all(receipt(mesh, request).error is None for request in requests)
    mesh.run(5.0)
    assert len(mesh.runs(JOB)) == 2
    settled = {mesh.record(n, JOB).outcome for n in mesh.names if mesh.has_settled(n, JOB)}
    assert len(settled) == (len(sides[0]) != len(sides[1]))
    mesh.heal()
    mesh.run_until(
        lambda: all(mesh.has_settled(name, JOB) for name in mesh.names if mesh.has(name, JOB)), limit_s=20.0
    )
    mesh.run(1.0)
    copies = [mesh.record(name, JOB) for name in mesh.names if mesh.has(name, JOB)]
    assert len({(copy.spec, copy.holders, copy.outcome) for copy in copies}) == 1
    assert all(copy.start_count == 2 for copy in copies)
    assert len(mesh.runs(JOB)) == 2
    if settled:
        (before,) = settled
        assert before is not None
        assert copies[0].outcome is not None
        assert copies[0].outcome.value == before.value


# ------------------------------------------------------------------ one claimant, and other members' disks


class Claimant:
    """A's part in claiming a key, with the disks of those members that answer."""

    def __init__(self, *others: NodeId, answering: tuple[NodeId, ...]) -> None:
        self.desk = make_desk(A, *others)
        self.keys = Keys(self.desk)
        self.books = {node: ClaimBook(Disk()) for node in answering}
        self.refused: list[str] = []
        self.known: set[NodeId] = set()

    @property
    def standings(self) -> dict[NodeId, Standing]:
        assert isinstance(self.desk.view, StillView)
        return self.desk.view.standings

    def run(self, duration_s: float) -> None:
        """Let time pass, and the members answer at once."""
        ends = self.desk.now + duration_s
        self._exchange()
        while self.desk.now < ends:
            self.desk.now = min(ends, max(self.desk.now + 0.01, self.keys.deadline()))
            self.keys.on_time()
            self._exchange()

    def _exchange(self) -> None:
        while sent := self.desk.post.flush():
            for send in sent:
                if isinstance(send.message, Submitted):
                    self.refused += [answer.refused for answer in send.message.answers]
                book = self.books.get(send.to)
                if book is not None and isinstance(send.message, Claim):
                    self.keys.on_claims(send.to, [self.answer(book, item) for item in send.message.items])

    def answer(self, book: ClaimBook, item: ClaimItem) -> Claimed:
        """What a member says that knows those whom A knows, and `known`."""
        row = book.get_many((item.job,)).get(item.job)
        row = book.hear(row, item.job, item.ballot, item.use, item.expires_at)
        is_void = not {*self.standings, *self.known}.intersection(row.use.holders)
        return Claimed(item.job, row.promised, row.accepted, row.use, (), b"", is_void)


def test_a_key_of_holders_that_were_forgotten_since_is_decided_anew() -> None:
    """D, E and G had accepted the claim of B, C and F, who then went away for good. A, which runs the job
    meanwhile, must propose their set while they may return, and another once they are no members any more."""
    b, c, d, e, f, g = (NodeId(letter * 16) for letter in "bcdefg")
    claimant = Claimant(b, c, d, e, f, g, answering=(d, e, g))
    for book in claimant.books.values():
        book.hear(None, JOB, NO_BALLOT, KeyUse((b, c, f), ""), 9e9)
    desk, keys = claimant.desk, claimant.keys
    desk.table.put(make_record(JOB, (A, d, e), key=KEY))
    for node in (b, c, f):
        claimant.standings[node] = Standing.SILENT
    keys.take_on([JOB])
    claimant.run(60.0)
    held = desk.table.get(JOB)
    assert held is not None
    assert not held.claimed
    for node in (b, c, f):
        del claimant.standings[node]
    keys.members_changed(frozenset((b, c, f)))
    claimant.run(10.0)
    held = desk.table.get(JOB)
    assert held is not None
    assert held.claimed
    assert held.holders == (A, d, e)


def test_a_claim_ends_when_the_other_life_of_the_key_has_changed_its_holders_since() -> None:
    """That it is another life cannot be seen any more; that its holders were decided, can."""
    d = NodeId("d" * 16)
    claimant = Claimant(d, answering=())
    claimant.desk.table.put(make_record(JOB, (A,), key=KEY))
    claimant.keys.take_on([JOB])
    theirs = make_record(JOB, (d,), key=KEY)._replace(epoch=1, claimed=True)
    claimant.keys.on_claims(d, [Claimed(JOB, NO_BALLOT, NO_BALLOT, KeyUse((d,), ""), (d,), encode(theirs))])
    held = claimant.desk.table.get(JOB)
    assert held is not None
    assert held.holders == (d,)
    assert claimant.keys.deadline() > claimant.desk.now + 60.0


def test_who_has_just_joined_believes_those_that_know_the_holders_of_a_key() -> None:
    """A has not heard of B yet, whose the key is. D, which said so, has: B may come back with the job."""
    b, d, e = (NodeId(letter * 16) for letter in "bde")
    claimant = Claimant(d, e, answering=(d, e))
    claimant.known.add(b)
    for book in claimant.books.values():
        book.hear(None, JOB, Ballot(1, b), KeyUse((b,), ""), 9e9)
    claimant.desk.table.put(make_record(JOB, (A, d), key=KEY))
    claimant.keys.take_on([JOB])
    claimant.run(60.0)
    held = claimant.desk.table.get(JOB)
    assert held is not None
    assert not held.claimed
    claimant.known.clear()
    claimant.run(60.0)
    held = claimant.desk.table.get(JOB)
    assert held is not None
    assert held.claimed


def forgotten_use(delivery: Delivery) -> Claimant:
    """D and E had accepted the use of a key by B, which nobody knows any more; A has a job under it now."""
    b, d, e = (NodeId(letter * 16) for letter in "bde")
    claimant = Claimant(d, e, answering=(d, e))
    for book in claimant.books.values():
        book.hear(None, JOB, Ballot(1, b), KeyUse((b,), ""), 9e9)
    claimant.desk.table.put(make_record(JOB, (A, d), key=KEY, delivery=delivery))
    return claimant


@pytest.mark.parametrize("delivery", Delivery)
def test_a_job_to_be_run_at_most_once_may_have_been_run_by_holders_that_are_forgotten(
    delivery: Delivery,
) -> None:
    claimant = forgotten_use(delivery)
    claimant.keys.take_on([JOB])
    claimant.run(60.0)
    held = claimant.desk.table.get(JOB)
    assert held is not None
    assert held.claimed
    assert held.start_count == (delivery is Delivery.AT_MOST_ONCE)


@pytest.mark.parametrize("delivery", Delivery)
def test_a_submission_to_be_run_at_most_once_is_not_taken_when_its_key_was_used_by_the_forgotten(
    delivery: Delivery,
) -> None:
    claimant = forgotten_use(delivery)
    claimant.desk.table.shed(JOB)
    spec = make_spec(JOB, key=KEY, delivery=delivery)
    item = SubmitItem(encode_spec(spec), (A,))
    claimant.keys.park(A, Submit(1, 0, (item,)), spec, item)
    claimant.run(60.0)
    is_once_only = delivery is Delivery.AT_MOST_ONCE
    assert claimant.refused == [REFUSED_UNSURE] * is_once_only
    assert len(claimant.keys.decided) == (not is_once_only)


def test_claims_that_expired_are_deleted_soon_after_a_start_and_then_every_hour() -> None:
    """A node that is started anew every half an hour would keep them for ever."""
    desk = make_desk()
    keys = Keys(desk)
    desk.now = 1e6  # a machine's clock does not begin with its process
    desk.set_wall(WALL)
    keys.begin()
    purged_at = []
    while len(purged_at) < 3:
        desk.now = keys.deadline()
        keys.on_time()
        _, forget_before = desk.table.claims.take(len(purged_at))
        if forget_before > 0:
            assert forget_before == desk.sure_wall - 2 * desk.settings.clock_skew_max_s
            purged_at.append(desk.now - 1e6)
    assert purged_at == [60.0, 3660.0, 7260.0]


def test_claims_are_deleted_as_soon_as_the_clock_is_good_enough() -> None:
    desk = make_desk()
    keys = Keys(desk)
    desk.clock.met(B)  # whose clock nobody has heard
    desk.set_wall(WALL)
    keys.begin()
    for _ in range(5):
        desk.now = keys.deadline()
        keys.on_time()
        assert desk.table.claims.take(0)[1] == 0.0
    desk.clock.hear(B, desk.wall, desk.now)
    desk.now = keys.deadline()
    keys.on_time()
    assert desk.table.claims.take(0)[1] > 0
    assert desk.now == 6 * 60.0


def test_nobody_waits_for_the_answer_of_a_disk_that_is_behind() -> None:
    claimant = Claimant(B, C, D, E, answering=(B, C, D))
    assert isinstance(claimant.desk.view, StillView)
    claimant.desk.view.behind.add(E)
    claimant.desk.table.put(make_record(JOB, (A, B, C), key=KEY))
    claimant.keys.take_on([JOB])
    claimant.run(0.01)
    held = claimant.desk.table.get(JOB)
    assert held is not None
    assert held.claimed


def looks(members: int) -> int:
    """How often the claimant looks at a member until all of so many have answered."""
    count = 0

    class Watched(StillView):
        def standing(self, node: NodeId) -> Standing:
            nonlocal count
            count += 1
            return super().standing(node)

    names = [NodeId(f"n{number:03d}".ljust(16, "x")) for number in range(members)]
    view = Watched(names[0], dict.fromkeys(names, Standing.LIVING))
    desk = Desk(view, JobSettings(), Disk(), random.Random(1))
    keys = Keys(desk)
    holders = tuple(names[:3])
    desk.table.put(make_record(JOB, holders, key=KEY))
    keys.take_on([JOB])
    for name in names[1:]:
        keys.on_claims(name, [Claimed(JOB, NO_BALLOT, NO_BALLOT, KeyUse(holders, ""), (), b"")])
    assert JOB in desk.claimed
    return count


def test_what_a_key_costs_grows_with_the_members_and_not_with_their_square() -> None:
    assert looks(200) <= 2.2 * looks(100)


def decided_for_another_content() -> tuple[Mesh, Record]:
    """A key that all know to be for B, A and D; and a job of those under D that has other content."""
    mesh = Mesh("abcd")
    mesh.verdict = lambda begun: None
    use = KeyUse((B, A, D), "this")
    record = new_record(encode_spec(keyed(mesh, "other")), JOB, use.holders, 0.0, mesh.wall())
    record = record._replace(own=record.own._replace(ballot=Ballot(1, D)))
    for disk in mesh.disks.values():
        disk.claim_rows[JOB] = ClaimRow(JOB, Ballot(1, D), Ballot(1, D), use, mesh.wall() + DAY_S)
    return mesh, record


def test_a_job_of_other_content_does_not_wait_for_a_holder_that_is_behind() -> None:
    """The key was decided for B, A and D and for some content; A and D have but another content's job."""
    mesh, record = decided_for_another_content()
    mesh.rule = lambda source, to, message: source != B
    mesh.nodes[D].membership.doubt(B, mesh.boots[B])
    mesh.tell(A, D, Copies((encode(record),)))
    mesh.run_until(lambda: mesh.record(D, JOB).claimed, limit_s=20.0)


def test_who_said_before_that_it_has_no_job_of_a_key_may_have_taken_it_since() -> None:
    """B is asked once more, when the key is known to be for B, A and D and another content, and is silent."""
    mesh, record = decided_for_another_content()

    def only_early_rounds(source: NodeId, to: NodeId, message: object) -> bool:
        is_late = isinstance(message, Claims) and any(item.accepted.term > 1 for item in message.items)
        return not (source == B and is_late)

    mesh.rule = only_early_rounds
    mesh.tell(A, D, Copies((encode(record),)))
    mesh.run(20.0)
    assert not mesh.record(D, JOB).claimed
    mesh.rule = let_pass
    mesh.run_until(lambda: mesh.record(D, JOB).claimed, limit_s=20.0)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_claimant_knows_what_it_has_itself_also_when_its_row_was_damaged(is_damaged: bool) -> None:
    """The key was decided for A, B and C, and for other content than that of its only job, which is A's."""
    claimant = Claimant(B, C, D, answering=(B, C, D))
    for book in claimant.books.values():
        book.hear(None, JOB, NO_BALLOT, KeyUse((A, B, C), "this"), 9e9)
    desk = claimant.desk
    desk.table.put(make_record(JOB, (A, B, C), key=KEY, fingerprint="other"))
    desk.table.has_vote = not is_damaged  # its word on this key counts no more
    claimant.keys.take_on([JOB])
    claimant.run(10.0)
    held = desk.table.get(JOB)
    assert held is not None
    assert held.claimed


def test_a_repeated_submission_is_not_refused_for_certain_while_the_first_may_still_be_taken() -> None:
    mesh = Mesh("abc")
    spec = make_spec(JOB, key=KEY)
    first = mesh.holders(JOB)[0]
    other = next(name for name in mesh.names if name != first)
    mesh.rule = lambda source, to, message: not isinstance(message, Claims)
    mesh.tell(other, first, Submit(1, 0, (mesh.item(spec),)))
    mesh.nodes[first].desk.draining = True  # it takes no jobs now
    (answer,) = sends(mesh.tell(other, first, Submit(2, 0, (mesh.item(spec),))), Submitted)
    assert [each.refused for each in answer.answers] == [REFUSED_UNSURE]
    (answer,) = sends(mesh.tell(other, first, Submit(3, 0, (mesh.item(mesh.spec()),))), Submitted)
    assert [each.refused for each in answer.answers] == [REFUSED_NOT_READY]


def test_a_life_of_a_key_that_came_while_another_was_claimed_is_decided_next() -> None:
    """A asks for its own when a copy of another stands here instead, whose owner nobody knows."""
    desk = make_desk(A, B, C)
    keys = Keys(desk)
    mine, theirs = (make_record(JOB, (A, B, C), key=KEY, fingerprint=content) for content in ("1", "2"))
    desk.table.put(mine)
    keys.take_on((JOB,))
    desk.merge(theirs._replace(own=theirs.own._replace(ballot=Ballot(1, E))))
    keys.members_changed(frozenset((B,)))
    assert [claiming.use.content for claiming in keys._claiming.values()] == ["2"]
