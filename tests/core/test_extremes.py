"""No peer ends a node by what it says: fields at the ends of their ranges are refused, or lived with."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, get_type_hints

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_mesh import A, B, C, Mesh, failed, job_id, make_record, make_spec, succeeded

from edgenode.core.errors import MalformedMessage
from edgenode.core.job_bytes import FORMAT, decode
from edgenode.core.jobs import Move, Outcome, Record
from edgenode.core.specs import decode_spec, encode_spec
from edgenode.core.types import (
    NO_TOKEN,
    Ballot,
    Drain,
    Load,
    MemberInfo,
    MemberState,
    NodeId,
    StartToken,
    State,
)
from edgenode.core.wire import (
    MESSAGES,
    TAGS,
    Ask,
    AskItem,
    Change,
    Message,
    Result,
    ResultItem,
    Rumour,
    Submit,
    Sync,
    Verdict,
    encode,
)
from edgenode.core.wire import decode as decode_message

HUGE = 2**64 - 1
JOBS = [job_id(number) for number in range(4)]
NODES = (A, B, C)


def packed(record: Record, **changes: Any) -> bytes:
    """As `jobs.encode` makes it, whatever it says."""
    blob: bytes = msgpack.packb((FORMAT, *record._replace(**changes)))
    return blob


def spec_of(options: dict[str, Any], *, expires_at: float = 2e9) -> bytes:
    blob: bytes = msgpack.packb((JOBS[0], "echo", b"{}", 1e9, expires_at, options))
    return blob


def is_understood(source: NodeId, to: NodeId, message: Message) -> bool:
    """A link's rule: what counted on from the end of a range is lost, as a real link would lose it. All a
    node says must have an encoding, though."""
    frame = encode(message)
    try:
        decode_message(frame)
    except MalformedMessage:
        return False
    return True


RECORD = make_record(JOBS[0], NODES)
AHEAD = Ballot(RECORD.own.ballot.term, C)
"""Above that of the record's owner."""
END = Outcome(False, True, RECORD.own.ballot, State.SUCCEEDED, b"1", "", StartToken(1, A, 1), A, 1.0)
MOVE = Move(RECORD.own.ballot, NODES, Ballot(2, B), State.QUEUED, 0.0)
NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    "blob",
    [
        packed(RECORD, starts=((Ballot(1, A), INFINITE),)),
        packed(RECORD, starts=((Ballot(1, A), -1),)),
        packed(RECORD, epoch=HUGE),
        packed(RECORD, own=RECORD.own._replace(write=HUGE)),
        packed(RECORD, own=RECORD.own._replace(ballot=Ballot(HUGE, A))),
        packed(RECORD, own=RECORD.own._replace(due_at=NAN)),
        packed(RECORD, own=RECORD.own._replace(state=State.SUCCEEDED)),
        packed(RECORD, own=RECORD.own._replace(token=StartToken(1, A, 1))),
        packed(RECORD, own=RECORD.own._replace(ballot=(True, A))),
        packed(RECORD, own=RECORD.own._replace(write=False)),
        packed(RECORD, own=RECORD.own._replace(boot=[])),
        packed(RECORD, own=(*RECORD.own, 0)),
        packed(RECORD, own=RECORD.own._replace(ballot=(1, A, 0), write="queued", state=0, token=("", 0))),
        packed(RECORD, holders=()),
        packed(RECORD, holders=(A, A, A)),
        packed(RECORD, history=((NAN, "a", A, ""),)),
        packed(RECORD, losses=((INFINITE, A, 1),)),
        packed(RECORD, outcome=END._replace(ballot=AHEAD)),
        packed(RECORD, move=MOVE._replace(ballot=AHEAD)),
    ],
)
def test_a_record_that_no_owner_can_have_written_is_refused(blob: bytes) -> None:
    decode(packed(RECORD))
    decode(packed(RECORD, outcome=END))
    decode(packed(RECORD, outcome=END._replace(settled=True, ballot=AHEAD)))  # it came as a mark
    decode(packed(RECORD, outcome=END._replace(firm=False, ballot=AHEAD)))  # left from the epoch before
    decode(packed(RECORD, move=MOVE))
    with pytest.raises(MalformedMessage):
        decode(blob)


@pytest.mark.parametrize(
    "blob",
    [
        spec_of({}, expires_at=NAN),
        spec_of({"ttl_s": INFINITE}),
        spec_of({"deadline": NAN}),
        spec_of({"priority": HUGE}),
        spec_of({"max_losses": -1}),
        spec_of({"backoff": ("constant", "a", 1)}),
        spec_of({"backoff": (1, 1.0, 1.0)}),
    ],
)
def test_a_spec_that_cannot_be_kept_to_is_refused(blob: bytes) -> None:
    decode_spec(spec_of({"ttl_s": 1, "backoff": ("constant", 1, 2.0)}))
    with pytest.raises(MalformedMessage):
        decode_spec(blob)


def test_integers_that_leave_no_room_to_count_on_are_no_message() -> None:
    for term in (HUGE, 2**62, -1):
        with pytest.raises(MalformedMessage):
            decode_message(encode(Ask((AskItem(JOBS[0], 0, term, 1e10, b""),))))


def test_a_rumour_about_a_node_under_the_highest_incarnation_does_not_end_it() -> None:
    mesh = Mesh("abc")
    info = mesh.nodes[A].view.info(A)
    assert info is not None
    mesh.rule = is_understood
    rumour = Rumour(info, 2**62 - 1, MemberState.SUSPECT, B)
    mesh.tell(B, A, Sync(True, Load(), (rumour,)))
    mesh.run(3.0)
    assert mesh.nodes[A].ready


def test_a_verdict_is_an_end() -> None:
    mesh = Mesh("abc")
    item = ResultItem(
        JOBS[0], StartToken(1, A, 1), B, Verdict(State.RUNNING, b"", "", -1.0, False), 0.0, False
    )
    with pytest.raises(MalformedMessage):
        mesh.tell(B, A, Result((item,)))


def test_a_result_of_no_start_ends_no_job() -> None:
    mesh = Mesh("abc", slots=0)
    spec = mesh.spec("a")
    mesh.submit(A, spec)
    mesh.run(1.0)
    for verdict in (succeeded(), failed()):
        mesh.tell(B, A, Result((ResultItem(spec.id, NO_TOKEN, B, verdict, 0.0, False),)))
    mesh.run(1.0)
    assert mesh.record(A, spec.id).state is State.QUEUED


def test_one_id_twice_in_a_submission_is_one_job() -> None:
    mesh = Mesh("abc", slots={A: 1, B: 0, C: 0})
    spec = mesh.spec("a")
    mesh.tell(B, A, Submit(1, 0, (mesh.item(spec), mesh.item(spec))))
    mesh.run_until(lambda: mesh.has_settled(A, spec.id))
    assert len(mesh.runs(spec.id)) == 1


def test_a_submission_for_one_holder_named_thrice_makes_no_job() -> None:
    mesh = Mesh("abc")
    spec = mesh.spec("a")
    mesh.tell(B, A, Submit(1, 0, (mesh.item(spec)._replace(holders=(A, A, A)),)))
    mesh.run(1.0)
    assert not mesh.has(A, spec.id)


# ------------------------------------------------------------------------ anything that can be decoded


AT_REST_MAX = 500
"""Messages in 2 s, about a few jobs. Nodes that answer each other without a pause make thousands."""
WHOLE = st.sampled_from([0, 1, 2, 3, 2**31, 2**62 - 2, 2**62 - 1])
NUMBERS = st.sampled_from([0.0, -1.0, 1.0, 1e9, 1e9 + 1, 2e9, 1e300, -1e300, 1.7e308, -1.7e308])
STATES = st.sampled_from([State.QUEUED, State.SCHEDULED, State.RUNNING, State.WAITING])
BALLOTS = st.builds(Ballot, WHOLE, st.sampled_from(NODES))
TOKENS = st.builds(StartToken, WHOLE, st.sampled_from(NODES), WHOLE)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "priority": WHOLE,
        "run_at": NUMBERS,
        "deadline": NUMBERS,
        "max_attempts": WHOLE,
        "max_losses": WHOLE,
        "acks": WHOLE,
        "ttl_s": NUMBERS,
        "backoff": st.tuples(st.sampled_from(["constant", "exponential"]), NUMBERS, NUMBERS),
    },
)


@st.composite
def specs(draw: st.DrawFn) -> bytes:
    job = draw(st.sampled_from(JOBS))
    blob: bytes = msgpack.packb((job, "echo", b"{}", draw(NUMBERS), draw(NUMBERS), draw(OPTIONS)))
    return blob


@st.composite
def records(draw: st.DrawFn) -> bytes:
    job = draw(st.sampled_from(JOBS))
    state = draw(STATES)
    token: Any = draw(TOKENS) if state is State.RUNNING else NO_TOKEN
    own = (
        draw(BALLOTS), draw(WHOLE), state, token, draw(st.sampled_from(NODES)),
        draw(WHOLE), draw(NUMBERS), draw(NUMBERS),
    )  # fmt: skip
    ends = st.sampled_from([State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED])
    outcome = st.tuples(
        st.booleans(), st.booleans(), BALLOTS, ends, st.just(b"1"), st.just(""), TOKENS,
        st.sampled_from(NODES), NUMBERS,
    )  # fmt: skip
    sets = st.permutations(NODES).map(lambda nodes: tuple(nodes[:3]))
    waits = st.sampled_from([State.QUEUED, State.SCHEDULED, State.WAITING])
    move = st.one_of(
        st.tuples(
            BALLOTS, sets, BALLOTS, waits, NUMBERS, st.just(NO_TOKEN), st.sampled_from(NODES), WHOLE, NUMBERS
        ),
        st.tuples(
            BALLOTS, sets, BALLOTS, st.just(State.RUNNING), NUMBERS, TOKENS, st.sampled_from(NODES), WHOLE,
            NUMBERS,
        ),
    )  # fmt: skip
    counts = st.lists(st.tuples(BALLOTS, WHOLE), max_size=2)
    tokens = st.lists(TOKENS, max_size=2)
    blob: bytes = msgpack.packb(
        (
            FORMAT, job, draw(st.just(encode_spec(make_spec(job))) | specs()), draw(WHOLE), draw(sets), own,
            draw(st.none() | outcome), draw(counts), draw(counts), draw(tokens), draw(tokens), draw(tokens),
            draw(st.booleans()), (), draw(st.booleans()), draw(st.none() | move),
        )
    )  # fmt: skip
    return blob


def fields_of(cls: type[Any]) -> st.SearchStrategy[Any]:
    hints = get_type_hints(cls)
    names = getattr(cls, "_fields", None) or tuple(cls.__dataclass_fields__)
    return st.tuples(*(values_of(hints[name], name) for name in names))


def values_of(kind: Any, name: str) -> st.SearchStrategy[Any]:
    """What travels for a field: packed, and near what a node knows."""
    origin, arguments = getattr(kind, "__origin__", None), getattr(kind, "__args__", ())
    if name in ("record", "records", "copy"):
        blobs = st.just(b"") | records()
        return st.lists(records(), max_size=2) if origin is tuple else blobs
    if name == "spec":
        return specs()
    if name == "holders":
        return st.permutations(NODES)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(values_of(arguments[0], ""), max_size=2)
        return st.tuples(*(values_of(each, "") for each in arguments))
    known: dict[Any, st.SearchStrategy[Any]] = {
        int: WHOLE, float: NUMBERS, bool: st.booleans(), bytes: st.just(b""), str: st.just("a"),
        State: st.sampled_from([State.SUCCEEDED, State.FAILED, State.CANCELLED]),
        MemberState: st.sampled_from(list(MemberState)), Drain: st.sampled_from(list(Drain)),
        Change: st.sampled_from(list(Change)),
        MemberInfo: fields_of_info(),
    }  # fmt: skip
    if kind in known:
        return known[kind]
    called = getattr(kind, "__name__", "")
    if called == "JobId":
        return st.sampled_from(JOBS)
    if called == "NodeId":
        return st.sampled_from(NODES)
    if called == "Hash64":
        return st.sampled_from([0, HUGE])
    return fields_of(kind)


def fields_of_info() -> st.SearchStrategy[Any]:
    addresses = st.just([("h", 1)])
    return st.tuples(
        st.sampled_from(NODES), st.just("n"), WHOLE, addresses, st.just(""), st.just("0"),
        st.sampled_from([1.0, 0.0, -1.0, 1e300]), WHOLE, st.just([]), st.just(["echo"]), NUMBERS,
        st.booleans(), st.booleans(), st.booleans(), st.just(["echo"]), WHOLE, st.sampled_from(list(Drain)),
    )  # fmt: skip


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    cls = draw(st.sampled_from([cls for cls, _ in MESSAGES.values()]))
    frame: bytes = msgpack.packb([TAGS[cls], *draw(fields_of(cls))])
    return frame


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from((B, C)), frames()), min_size=1, max_size=12))
def test_nothing_that_can_be_decoded_ends_a_node(said: list[tuple[Any, bytes]]) -> None:
    mesh = Mesh("abc")
    mesh.rule = is_understood
    mesh.submit(A, *(make_spec(job) for job in JOBS[:3]))
    mesh.run(0.01)
    for source, frame in said:
        with suppress(MalformedMessage):
            message = decode_message(frame)
            if A in mesh.up:
                mesh.tell(source, A, message)
                mesh.run(0.3)
    mesh.run(3.0)
    mesh.sent.clear()
    mesh.run(2.0)
    assert len(mesh.sent) < AT_REST_MAX
