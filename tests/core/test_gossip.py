from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from membership_mesh import describe, node_id

from edgenode.core.gossip import RumourQueue, is_alive, is_proven, precedence, retransmissions, size_of
from edgenode.core.types import NOBODY, MemberState, NodeId
from edgenode.core.wire import Rumour

ELSEWHERE = NodeId("elsewhere")


def rumour(
    number: int = 1,
    *,
    state: MemberState = MemberState.READY,
    incarnation: int = 0,
    boot: int = 1,
    accuser: NodeId = NOBODY,
    tasks: int = 3,
) -> Rumour:
    return Rumour(describe(number, boot=boot, tasks=tasks), incarnation, state, accuser)


rumours = st.builds(
    rumour,
    state=st.sampled_from(MemberState),
    incarnation=st.integers(0, 3),
    boot=st.integers(1, 3),
    accuser=st.sampled_from([NOBODY, node_id(1), node_id(2), node_id(3)]),
    tasks=st.integers(0, 2),
)


@given(rumours, rumours)
def test_only_equal_rumours_have_equal_precedence(a: Rumour, b: Rumour) -> None:
    assert (precedence(a) == precedence(b)) == (a == b)


def rising(*ordered: Rumour) -> None:
    keys = [precedence(each) for each in ordered]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


def test_under_one_incarnation_alive_is_below_suspect_below_dead_below_proof() -> None:
    rising(
        rumour(),
        rumour(state=MemberState.SUSPECT, accuser=node_id(2)),
        rumour(state=MemberState.DEAD, accuser=node_id(2)),
        rumour(state=MemberState.DEAD, accuser=node_id(1)),
    )


def test_a_refutation_beats_every_accusation_of_the_incarnation_before() -> None:
    rising(rumour(state=MemberState.DEAD, accuser=node_id(1)), rumour(incarnation=1))


def test_goodbye_is_final_for_that_boot_only() -> None:
    rising(rumour(incarnation=9), rumour(state=MemberState.LEFT, incarnation=1), rumour(boot=2))


def test_late_proof_about_an_earlier_boot_is_below_everything_of_the_next() -> None:
    rising(rumour(state=MemberState.DEAD, accuser=node_id(1), incarnation=99), rumour(boot=2))


def test_a_proven_death_names_the_dead_as_its_own_accuser() -> None:
    assert is_proven(rumour(state=MemberState.DEAD, accuser=node_id(1)))
    assert not is_proven(rumour(state=MemberState.DEAD, accuser=node_id(2)))
    assert not is_proven(rumour(state=MemberState.SUSPECT, accuser=node_id(1)))


def test_only_the_dead_and_those_who_left_are_not_alive() -> None:
    dead = {state for state in MemberState if not is_alive(rumour(state=state))}
    assert dead == {MemberState.DEAD, MemberState.LEFT}


def test_retransmissions_grow_with_the_logarithm_of_the_mesh() -> None:
    assert [retransmissions(members, 4) for members in (1, 9, 10, 99, 100)] == [4, 4, 8, 8, 12]


def queue_of(numbers: Sequence[int], *, per_message: int = 2, bytes_max: int = 10_000) -> RumourQueue:
    queue = RumourQueue(per_message=per_message, bytes_max=bytes_max)
    for number in numbers:
        queue.put(rumour(number))
    return queue


def taken(queue: RumourQueue, *, to: NodeId = ELSEWHERE, sends_max: int = 2) -> list[int]:
    return [int(each.info.name[1:]) for each in queue.take(to, sends_max)]


def test_a_rumour_is_passed_on_so_often_and_then_forgotten() -> None:
    queue = queue_of([1])
    assert [taken(queue, sends_max=3) for _ in range(4)] == [[1], [1], [1], []]
    assert len(queue) == 0


def test_what_was_told_least_goes_first_and_the_latest_of_these() -> None:
    queue = queue_of([1, 2, 3])
    assert taken(queue) == [3, 2]
    assert taken(queue) == [1, 3]


def test_a_newer_rumour_about_a_member_replaces_the_older_and_counts_anew() -> None:
    queue = queue_of([1])
    queue.take(ELSEWHERE, 2)
    newer = rumour(1, incarnation=5)
    queue.put(newer)
    assert [queue.take(ELSEWHERE, 2) for _ in range(3)] == [(newer,), (newer,), ()]


def test_nobody_is_told_about_itself() -> None:
    assert taken(queue_of([1, 2]), to=node_id(2)) == [1]


def test_a_message_stays_within_its_bytes_unless_one_rumour_alone_is_larger() -> None:
    one = size_of(rumour())
    assert len(taken(queue_of([1, 2, 3], per_message=3, bytes_max=2 * one))) == 2
    assert len(taken(queue_of([1, 2, 3], per_message=3, bytes_max=1))) == 1


def test_a_dropped_rumour_is_not_passed_on() -> None:
    queue = queue_of([1, 2])
    queue.drop(node_id(2))
    assert taken(queue) == [1]
