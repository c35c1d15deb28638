"""The record's transitions, and the laws of `join`."""

from __future__ import annotations

import tracemalloc
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenode.core import jobs
from edgenode.core.errors import MalformedMessage
from edgenode.core.job_bytes import decode, digest, encode
from edgenode.core.job_ids import is_keyed, job_text, keyed_job_id, make_job_id, parse_job_id
from edgenode.core.jobs import (
    COUNTED_BALLOTS_MAX,
    HISTORY_MAX,
    TRANSITIONS,
    Counts,
    IllegalTransition,
    Move,
    Note,
    Outcome,
    Own,
    Record,
    Step,
    adopted,
    bounded,
    decided,
    deferred,
    failed_once,
    fallen_due,
    is_marker,
    lost,
    new_record,
    next_token,
    pardoned,
    settled,
    shrunk,
    started,
    taken_over,
)
from edgenode.core.joining import is_same_life, join
from edgenode.core.specs import AS_ITS_TASK, Options, Spec, decode_spec, encode_spec
from edgenode.core.types import NO_TOKEN, TERMINAL, Backoff, Ballot, NodeId, StartToken, State

JOB = keyed_job_id("order-17")
A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
HOLDERS = (A, B, C)
SPEC, LATER_SPEC, OTHER_SPEC = (
    encode_spec(Spec(JOB, "echo", b"{}", at, at + 1.0, Options(fingerprint=content)))
    for at, content in ((1.0, "this"), (1.5, "this"), (1.2, "that"))
)
"""Two submissions under one key that say the same, and one that says something else."""
NOTE = Note(1.0, "test", A, "")

# Small alphabets on purpose: ties are where merges go wrong, so make ties common.
ballots = st.builds(Ballot, st.integers(1, 3), st.sampled_from([A, B]))
tokens = st.builds(StartToken, st.integers(1, 2), st.sampled_from([A, B]), st.integers(1, 2))
owns = st.builds(
    Own,
    ballots,
    st.integers(0, 2),
    st.sampled_from([State.QUEUED, State.RUNNING, State.SCHEDULED]),
    st.one_of(st.just(NO_TOKEN), tokens),
    st.sampled_from([NodeId(""), A, B]),
    st.integers(0, 1),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([0.0, 1.0]),
).map(lambda own: own if own.state is State.RUNNING else own._replace(token=NO_TOKEN))
outcomes = st.builds(
    Outcome,
    st.booleans(),
    st.booleans(),
    ballots,
    st.sampled_from(sorted(TERMINAL)),
    st.sampled_from([b"1", b"2"]),
    st.sampled_from(["", "x"]),
    tokens,
    st.sampled_from([A, B]),
    st.sampled_from([1.0, 2.0]),
)
moves = st.builds(
    Move,
    ballots,
    st.sampled_from([HOLDERS, (B, C)]),
    ballots,
    st.sampled_from([State.QUEUED, State.SCHEDULED]),
    st.sampled_from([0.0, 1.0]),
    st.just(NO_TOKEN),
    st.just(NodeId("")),
    st.just(0),
    st.just(0.0),
)
counts: st.SearchStrategy[Counts] = st.dictionaries(ballots, st.integers(1, 3), max_size=3).map(bounded)
texts = (st.sampled_from(["x", "y"]), st.just(A), st.just(""))
notes = st.builds(Note, st.sampled_from([1.0, 2.0]), *texts, st.sampled_from([0.0, 7.0]))


def copies(
    spec: bytes, holders: tuple[NodeId, ...], epochs: st.SearchStrategy[int]
) -> st.SearchStrategy[Record]:
    """Any copies of one life of a job. Its result settles only once its key is claimed; what is proposed is
    proposed under the ballot of the owner."""

    def true_to_life(record: Record) -> Record:
        first = record if record.epoch == 0 else record._replace(holders=(B, C))
        proposals = (record.own, record.outcome, record.move)
        own = record.own._replace(ballot=max(each.ballot for each in proposals if each is not None))
        return first._replace(claimed=record.claimed or record.settled, own=own)

    return st.builds(
        Record,
        st.just(JOB),
        st.just(spec),
        epochs,
        st.just(holders),
        owns,
        st.one_of(st.none(), outcomes),
        counts,
        counts,
        st.sets(tokens, max_size=3).map(lambda found: tuple(sorted(found))),
        st.sets(tokens, max_size=2).map(lambda found: tuple(sorted(found))),
        st.sets(tokens, max_size=2).map(lambda found: tuple(sorted(found))),
        st.booleans(),
        st.sets(notes, max_size=3).map(lambda found: tuple(sorted(found))),
        st.booleans(),
        st.one_of(st.none(), moves),
    ).map(true_to_life)


LIVES = [(SPEC, HOLDERS), (LATER_SPEC, HOLDERS), (SPEC, (A, B)), (OTHER_SPEC, HOLDERS)]
records = st.one_of([copies(spec, HOLDERS, st.integers(0, 1)) for spec in (SPEC, LATER_SPEC)])
of_any_life = st.one_of([copies(spec, holders, st.just(0)) for spec, holders in LIVES])


@given(of_any_life | records, of_any_life | records)
def test_join_does_not_depend_on_argument_order(a: Record, b: Record) -> None:
    assert join(a, b) == join(b, a)


@settings(max_examples=300)
@given(records, records, records)
def test_join_does_not_depend_on_grouping(a: Record, b: Record, c: Record) -> None:
    assert join(join(a, b), c) == join(a, join(b, c))


@given(of_any_life | records)
def test_join_with_itself_says_nothing_new(a: Record) -> None:
    assert join(a, a) is a


@given(of_any_life | records, of_any_life | records)
def test_a_copy_that_says_nothing_new_leaves_the_other_untouched(a: Record, b: Record) -> None:
    both = join(a, b)
    assert join(both, a) is both
    assert join(both, b) is both


@given(records, records)
def test_two_submissions_that_say_the_same_are_one_job_and_what_either_knows_is_kept(
    a: Record, b: Record
) -> None:
    both = join(a, b)
    assert is_same_life(both, a)
    assert is_same_life(both, b)
    if a.epoch == b.epoch:
        assert both.own == max(a.own, b.own)


@given(records, records)
def test_join_never_gives_up_a_settled_outcome(a: Record, b: Record) -> None:
    if a.epoch == b.epoch and a.settled:
        both = join(a, b)
        assert both.settled
        assert both.outcome in (a.outcome, b.outcome)


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_copy_of_a_later_submission_that_says_the_same_changes_nothing_that_is_shown(epoch: int) -> None:
    """Seed 7227: a node took it on a side of its own, and was none of the holders of what had ended."""
    ended = decided(new_record(SPEC, JOB, HOLDERS, 0.0, 1.0), State.SUCCEEDED, firm=True, at=2.0)
    ended = settled(ended)._replace(epoch=epoch, claimed=True)
    late = new_record(LATER_SPEC, JOB, HOLDERS if epoch == 0 else (C,), 0.0, 1.6)
    assert join(late, ended) == join(ended, late) == ended


@given(of_any_life, of_any_life)
def test_of_two_lives_of_a_key_one_stands_whole_and_both_are_counted(a: Record, b: Record) -> None:
    if is_same_life(a, b):
        return
    both = join(a, b)
    assert both._replace(
        starts=(), failures=(), losses=(), voids=(), pardons=(), cancel=False, history=()
    ) in [
        each._replace(starts=(), failures=(), losses=(), voids=(), pardons=(), cancel=False, history=())
        for each in (a, b)
    ]
    for each in (a, b):
        assert (both.settled, both.claimed) >= (each.settled, each.claimed)
        assert all(dict(both.starts)[ballot] >= count for ballot, count in each.starts)
        assert {*both.losses} >= {*each.losses}


@settings(max_examples=300)
@given(of_any_life, of_any_life, of_any_life)
def test_however_copies_of_several_lives_meet_the_same_life_stands(a: Record, b: Record, c: Record) -> None:
    """(Grouping may decide how much of it is known, until its own copies have met.)"""
    one, other = join(join(a, b), c), join(a, join(b, c))
    assert is_same_life(one, other)
    assert (one.settled, one.claimed, one.starts) == (other.settled, other.claimed, other.starts)


def test_of_two_contents_of_an_id_without_a_key_all_nodes_keep_the_same() -> None:
    """No honest node makes them; but nodes that each kept their own told each other without end."""
    job = make_job_id(1.0, bytes(10))
    specs = (encode_spec(Spec(job, "echo", text, 1.0, 2.0)) for text in (b"1", b"2"))
    one, other = (
        settled(decided(new_record(spec, job, HOLDERS, 0.0, 1.0), State.SUCCEEDED, firm=True, at=2.0))
        for spec in specs
    )
    assert join(one, other) == join(other, one)


END = Outcome(True, True, Ballot(3, A), State.SUCCEEDED, b"1", "x", StartToken(3, A, 1), A, 5.0)
ends = records.map(lambda record: record._replace(epoch=1, holders=HOLDERS, outcome=END))
kept_or_shrunk = st.tuples(ends, st.booleans()).map(lambda pair: shrunk(pair[0]) if pair[1] else pair[0])


@given(kept_or_shrunk, kept_or_shrunk, records)
def test_joins_with_markers_keep_the_laws_and_a_marker_stays_one(a: Record, b: Record, c: Record) -> None:
    both = join(a, b)
    assert both == join(b, a)
    assert join(both, a) is both
    assert join(both, b) is both
    assert is_marker(both) is (is_marker(a) or is_marker(b))
    if is_marker(a):
        assert is_marker(join(a, c))
        assert join(a, c).outcome == a.outcome
    assert set(dict(a.starts)) <= set(dict(both.starts))


@given(kept_or_shrunk, kept_or_shrunk, kept_or_shrunk)
def test_joins_with_markers_do_not_depend_on_grouping(a: Record, b: Record, c: Record) -> None:
    assert join(join(a, b), c) == join(a, join(b, c))


@given(ends)
def test_a_marker_survives_its_encoding_and_shrinks_no_further(record: Record) -> None:
    marker = shrunk(record)
    assert decode(encode(marker)) == marker
    assert shrunk(marker) == marker
    assert marker.start_count == record.start_count


@given(records)
def test_a_record_survives_its_encoding(record: Record) -> None:
    assert decode(encode(record)) == record
    assert encode(decode(encode(record))) == encode(record)


@given(records, records)
def test_what_two_copies_say_together_is_a_record_too(a: Record, b: Record) -> None:
    assert decode(encode(join(a, b))) == join(a, b)


@given(records, records)
def test_equal_records_and_only_those_have_equal_digests(a: Record, b: Record) -> None:
    assert (digest(a) == digest(b)) == (a == b)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_record_are_refused_and_nothing_else(blob: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(blob)


@given(records, st.integers(0, 400), st.integers(1, 255))
def test_a_damaged_record_is_refused_or_is_still_a_record(record: Record, at: int, flip: int) -> None:
    blob = bytearray(encode(record))
    blob[at % len(blob)] ^= flip
    try:
        decoded = decode(bytes(blob))
    except MalformedMessage:
        return
    assert isinstance(decoded, Record)


# ------------------------------------------------------------------------------------ transitions


def in_state(state: State) -> Record:
    own = Own(Ballot(1, A), 1, state)
    if state is State.RUNNING:
        own = own._replace(token=StartToken(1, A, 1), runner=A, boot=1)
    return Record(JOB, SPEC, 0, HOLDERS, own)


def take(record: Record, step: Step) -> Record:
    match step:
        case Step.START:
            return started(record, runner=B, boot=1, at=1.0)
        case Step.LOSE:
            return lost(record, counted=True, note=NOTE)
        case Step.RETRY:
            return failed_once(record, due_at=2.0, note=NOTE)
        case Step.SUCCEED:
            return decided(record, State.SUCCEEDED, firm=True, at=1.0)
        case Step.FAIL:
            return decided(record, State.FAILED, firm=True, at=1.0)
        case Step.CANCEL:
            return decided(record, State.CANCELLED, firm=True, at=1.0)
        case Step.EXPIRE:
            return decided(record, State.EXPIRED, firm=True, at=1.0)
        case Step.FALL_DUE:
            return fallen_due(record)
        case Step.DEFER:
            return deferred(record, due_at=3.0)


UNFINISHED = [State.SCHEDULED, State.WAITING, State.QUEUED, State.RUNNING]


@pytest.mark.parametrize(("state", "step"), list(product(UNFINISHED, Step)))
def test_every_pair_is_either_in_the_table_or_refused(state: State, step: Step) -> None:
    record = in_state(state)
    if (state, step) in TRANSITIONS:
        assert take(record, step).state is TRANSITIONS[state, step]
    else:
        with pytest.raises(IllegalTransition):
            take(record, step)


@pytest.mark.parametrize(("state", "step"), list(TRANSITIONS))
def test_a_step_survives_a_merge_with_its_past(state: State, step: Step) -> None:
    before = in_state(state)
    after = take(before, step)
    assert join(before, after) == after


@pytest.mark.parametrize("step", list(Step))
def test_nothing_happens_to_a_finished_job(step: Step) -> None:
    done = decided(in_state(State.RUNNING), State.SUCCEEDED, firm=True, at=1.0)
    with pytest.raises(IllegalTransition):
        take(done, step)


def test_no_two_starts_share_a_token() -> None:
    record = new_record(SPEC, JOB, HOLDERS, 0.0, 1.0)
    seen = set()
    for _ in range(4):
        record = started(record, runner=A, boot=1, at=1.0)
        seen.add(record.own.token)
        record = lost(record, counted=True, note=NOTE)
    record = taken_over(record, Ballot(2, B), NOTE)
    assert next_token(record) not in seen
    assert len(seen) == 4
    assert record.start_count == 4
    assert set(record.losses) == seen


def test_two_submissions_that_say_the_same_are_one_life_and_one_that_does_not_is_another() -> None:
    first, later, other = (
        new_record(spec, JOB, HOLDERS, 0.0, 1.0) for spec in (SPEC, LATER_SPEC, OTHER_SPEC)
    )
    assert is_same_life(first, later)
    assert not is_same_life(first, other)


def test_a_loss_that_proved_false_stays_so_in_every_merge() -> None:
    """Nothing is ever taken out of the set of losses, or an older copy would bring it back."""
    running = started(new_record(SPEC, JOB, HOLDERS, 0.0, 1.0), runner=A, boot=1, at=1.0)
    accused = lost(running, counted=True, note=NOTE)
    cleared = pardoned(accused, running.own.token)
    assert (accused.loss_count, cleared.loss_count) == (1, 0)
    assert join(cleared, accused).loss_count == join(accused, cleared).loss_count == 0
    assert pardoned(running, running.own.token).loss_count == 0  # heard of before the loss itself


def test_a_failure_that_two_owners_have_judged_is_one() -> None:
    """The first judged it on one side of a cut; its runner, which was not thanked, told the second too."""
    running = started(new_record(SPEC, JOB, HOLDERS, 0.0, 1.0), runner=C, boot=1, at=1.0)
    taken = taken_over(running, Ballot(2, B), NOTE)
    once = failed_once(running, due_at=2.0, note=NOTE)
    again = failed_once(taken, due_at=3.0, note=NOTE)
    assert join(once, again).failure_count == 1
    second = started(fallen_due(again), runner=C, boot=1, at=3.0)
    assert join(once, failed_once(second, due_at=4.0, note=NOTE)).failure_count == 2


def test_two_sides_that_each_started_it_once_count_two() -> None:
    base = new_record(SPEC, JOB, HOLDERS, 0.0, 1.0)
    left = started(base, runner=A, boot=1, at=1.0)
    right = started(taken_over(base, Ballot(2, B), NOTE), runner=B, boot=1, at=1.0)
    assert join(left, right).start_count == 2


def test_a_retry_does_not_lose_against_the_running_it_follows() -> None:
    running = started(new_record(SPEC, JOB, HOLDERS, 0.0, 1.0), runner=A, boot=1, at=1.0)
    again = failed_once(running, due_at=5.0, note=NOTE)
    assert join(running, again).state is State.SCHEDULED
    assert join(running, fallen_due(again)).state is State.QUEUED
    assert join(running, lost(running, counted=True, note=NOTE)).state is State.QUEUED


def test_the_result_of_a_dead_ballot_does_not_stop_the_owner_of_a_higher_one() -> None:
    """Ownership and outcome have orders of their own: a zombie's result is found, not obeyed."""
    base = new_record(SPEC, JOB, HOLDERS, 0.0, 1.0)
    zombie = decided(started(base, runner=A, boot=1, at=1.0), State.SUCCEEDED, firm=True, at=2.0)
    successor = started(taken_over(base, Ballot(2, B), NOTE), runner=B, boot=1, at=3.0)
    both = join(zombie, successor)
    assert both.owner == B
    assert both.outcome == zombie.outcome
    adopted_by_b = adopted(both, both.ballot)
    assert adopted_by_b.outcome is not None
    assert adopted_by_b.outcome.value == both.outcome.value
    assert join(settled(adopted_by_b), zombie).settled


@given(counts, counts, counts)
def test_counts_of_the_newest_ballots_are_kept_whatever_is_joined_first(
    a: Counts, b: Counts, c: Counts
) -> None:
    def copy(found: Counts) -> Record:
        return new_record(SPEC, JOB, HOLDERS, 0.0, 1.0)._replace(failures=bounded(dict(found)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "COUNTED_BALLOTS_MAX", 2)
        one, two, three = copy(a), copy(b), copy(c)
        assert join(one, two) == join(two, one)
        assert join(join(one, two), three) == join(one, join(two, three))
        assert join(one, one) == one
        together = join(join(one, two), three).failures
        assert [ballot for ballot, _ in together] == sorted({each for each, _ in (*a, *b, *c)})[-2:]


def test_failures_under_very_many_owners_reach_every_limit_that_a_job_can_have() -> None:
    record = new_record(SPEC, JOB, HOLDERS, 0.0, 1.0)
    for term in range(1, 81):
        record = record._replace(own=record.own._replace(ballot=Ballot(term, A), state=State.QUEUED))
        record = failed_once(started(record, runner=A, boot=1, at=1.0), due_at=1.0, note=NOTE)
    assert record.failure_count == COUNTED_BALLOTS_MAX


def test_large_specs_of_jobs_that_are_over_leave_memory() -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(200):
            blob = encode_spec(Spec(JOB, "echo", number.to_bytes(2) * 50_000, 1.0, 2.0))
            assert len(decode_spec(blob).payload) == 100_000
            record = new_record(blob, JOB, HOLDERS, 0.0, 1.0)
            shrunk(settled(decided(record, State.CANCELLED, firm=True, at=1.0)))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2_000_000


def test_history_is_bounded_and_keeps_the_latest() -> None:
    record = new_record(SPEC, JOB, HOLDERS, 0.0, 1.0)
    for term in range(2, 60):
        record = taken_over(record, Ballot(term, B), Note(float(term), "takeover", B, ""))
    assert len(record.history) == HISTORY_MAX
    assert record.history[-1].at == 59.0


# --------------------------------------------------------------------------------- specs and ids

options = st.builds(
    Options,
    queue=st.sampled_from(["default", "slow"]),
    priority=st.integers(0, 9),
    max_attempts=st.integers(1, 5),
    timeout_s=st.sampled_from([AS_ITS_TASK, 0.0, 1.5]),
    requires=st.sampled_from([(), (("arch", "arm64"),)]),
    backoff=st.sampled_from([Backoff(), Backoff("constant", 2.0, 3.0)]),
)


@given(options, st.binary(max_size=50))
def test_a_spec_survives_its_encoding(option: Options, payload: bytes) -> None:
    spec = Spec(JOB, "image.resize", payload, 1.5, 2.5, option)
    assert decode_spec(encode_spec(spec)) == spec


@given(st.floats(0, 2**37), st.binary(min_size=10, max_size=10))
def test_an_id_is_a_version_7_uuid_with_its_time(wall: float, chance: bytes) -> None:
    job = make_job_id(wall, chance)
    text = job_text(job)
    assert text[14] == "7"
    assert text[19] in "89ab"
    assert parse_job_id(text) == job
    assert abs(int.from_bytes(job[:6]) / 1000 - wall) <= 0.001


@given(st.text(max_size=300))
def test_the_id_of_a_key_is_a_version_8_uuid_that_every_node_makes_alike(key: str) -> None:
    job = keyed_job_id(key)
    text = job_text(job)
    assert text[14] == "8"
    assert text[19] in "89ab"
    assert parse_job_id(text) == job == keyed_job_id(key)
    assert is_keyed(job)
    assert keyed_job_id(key + "x") != job != keyed_job_id(key, namespace="cron")


def test_the_id_of_a_key_never_changes_between_versions() -> None:
    assert job_text(keyed_job_id("order-17")) == "22b2fc0c-4fcd-8b95-9255-c0c4da301b84"
    assert not is_keyed(make_job_id(1e9, bytes(10)))


@pytest.mark.parametrize(
    "text", ["", "x" * 36, "0" * 32, "00000000-0000-0000-0000-00000000000g", "0" * 36, "0-" * 18]
)
def test_other_texts_are_no_ids(text: str) -> None:
    assert parse_job_id(text) is None


def test_bytes_that_nest_too_deeply_are_no_record_and_no_spec() -> None:
    deep = b"\x91" * 1_000 + b"\x90"
    fields = b"\x98" + b"\x90" * 8
    record = b"\xdc\x00\x10\x03\xc4\x10" + b"x" * 16 + b"\xc4\x00" + deep + b"\x91\xa1a" + fields + b"\xc0"
    with pytest.raises(MalformedMessage):
        decode(record + b"\x90" * 5 + b"\xc2\x90\xc2\xc0")
    with pytest.raises(MalformedMessage):
        decode_spec(b"\x96" + deep * 6)
