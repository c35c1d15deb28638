"""How many jobs of a queue, or of a key, run at a time in the whole mesh, and how fast they start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from job_mesh import A, B, Begun, C, D, Mesh, job_id, make_spec, succeeded

from edgenode.core.job_bytes import encode
from edgenode.core.lines import key_gate, need_of, queue_gate
from edgenode.core.permits import HOLD_S, steward_of
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.signals import RegulateAsked, RequestId, SearchAsked, SlotsChanged
from edgenode.core.specs import Spec
from edgenode.core.steward import SETTLE_S, WAIT_S
from edgenode.core.types import JobId, NodeId, Room, Seconds
from edgenode.core.wire import (
    Allowed,
    Change,
    Copies,
    PermitItem,
    PermitsWanted,
    Query,
    RollCall,
    Stop,
    Verdict,
    Wish,
)

RUN_S = 0.2


def make_mesh(
    letters: str = "abc", *, slots: int = 4, run_s: Seconds = RUN_S, settings: Settings | None = None
) -> Mesh:
    mesh = Mesh(letters, slots=slots, settings=settings)

    def verdict(begun: Begun) -> tuple[Seconds, Verdict]:
        return run_s, succeeded()

    mesh.verdict = verdict
    return mesh


def steward(mesh: Mesh, gate: str) -> NodeId:
    return steward_of(gate, mesh.nodes[min(mesh.up)].view.ranking())


def queue_with(mesh: Mesh, wanted: NodeId) -> str:
    """A queue that this node is the steward of."""
    return next(name for name in map(str, range(999)) if steward(mesh, queue_gate(name)) == wanted)


def submit_everywhere(mesh: Mesh, number: int, **options: object) -> list[Spec]:
    """Jobs of every node's own."""
    specs = []
    for name in sorted(mesh.up):
        own = mesh.specs(number, name[0], **options)
        mesh.submit(name, *own)
        specs += own
    return specs


def most_at_once(mesh: Mesh, jobs: Iterable[JobId], run_s: Seconds = RUN_S) -> int:
    wanted = set(jobs)
    begun = [each.at for each in mesh.begun if each.job in wanted]
    return max(sum(at <= other < at + run_s - 1e-9 for at in begun) for other in begun)


def ids(specs: Iterable[Spec]) -> list[JobId]:
    return [spec.id for spec in specs]


def demand_all(mesh: Mesh, specs: list[Spec], within_s: Seconds) -> None:
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs), limit_s=within_s)
    assert all(len(mesh.runs(spec.id)) == 1 for spec in specs)


@pytest.mark.parametrize("letters", ["a", "ab", "abcd"])
def test_a_queue_s_limit_holds_in_the_whole_mesh_and_is_used(letters: str) -> None:
    mesh = make_mesh(letters)
    mesh.set_queue(A, "mail", concurrency=3)
    mesh.run(SETTLE_S)
    specs = submit_everywhere(mesh, 60 // len(letters), queue="mail")
    mesh.run(2.0)
    demand_all(mesh, specs, within_s=60 / 3 * RUN_S * 1.2)
    assert most_at_once(mesh, ids(specs)) == 3


def test_a_job_that_starts_again_counts_once() -> None:
    """Its other life, of the same key, gave way before its start began, and nobody said that this is over."""
    mesh = Mesh("a")
    permits = mesh.nodes[A]._scheduler._permits
    need = need_of(make_spec(job_id(1)))
    assert permits.admit(job_id(1), need, 0) is permits.admit(job_id(1), need, 0) is None
    permits.ended(job_id(1))
    assert permits.running() == {}


def test_a_limit_that_comes_later_counts_what_runs_already() -> None:
    mesh = make_mesh(run_s=3.0)
    first = submit_everywhere(mesh, 1, queue="mail")
    mesh.run(0.2)
    assert len(mesh.begun) == 3
    mesh.set_queue(B, "mail", concurrency=4)
    mesh.run(0.1)
    rest = submit_everywhere(mesh, 5, queue="mail")
    mesh.run(1.5)
    assert len(mesh.begun) == 4
    demand_all(mesh, first + rest, within_s=30.0)
    assert most_at_once(mesh, ids(first + rest), run_s=3.0) == 4


def test_a_limit_that_is_raised_or_lifted_lets_more_start_at_once() -> None:
    mesh = make_mesh(run_s=30.0)
    mesh.set_queue(A, "mail", concurrency=1)
    mesh.run(SETTLE_S)
    submit_everywhere(mesh, 4, queue="mail")
    mesh.run(1.0)
    assert len(mesh.begun) == 1
    mesh.set_queue(C, "mail", concurrency=5)
    mesh.run(0.2)
    assert len(mesh.begun) == 5
    mesh.set_queue(C, "mail", concurrency=0)
    mesh.run(0.2)
    assert len(mesh.begun) == 12


def test_a_key_s_limit_holds_for_its_jobs_in_all_queues_and_holds_up_no_others() -> None:
    mesh = make_mesh()
    options = {"concurrency_key": "customer 7", "concurrency_limit": 2}
    keyed = submit_everywhere(mesh, 4, queue="mail", **options) + submit_everywhere(mesh, 4, **options)
    others = submit_everywhere(mesh, 2, concurrency_key="customer 8")
    plain = submit_everywhere(mesh, 4)
    demand_all(mesh, plain, within_s=2.0)
    demand_all(mesh, keyed + others, within_s=24 / 2 * RUN_S * 1.3)
    assert most_at_once(mesh, ids(keyed)) == 2
    assert most_at_once(mesh, ids(others)) == 1


def test_of_several_limits_for_one_key_the_smallest_counts() -> None:
    mesh = make_mesh(run_s=1.0)
    wide = mesh.specs(6, "a", concurrency_key="k", concurrency_limit=4)
    narrow = mesh.specs(2, "b", concurrency_key="k", concurrency_limit=2)
    mesh.submit(B, *narrow)
    mesh.run(0.1)
    mesh.submit(A, *wide)
    mesh.run(0.9)
    assert len(mesh.begun) == 2
    demand_all(mesh, wide + narrow, within_s=10.0)


def test_a_job_under_two_limits_waits_for_both_and_none_is_lost_on_the_way() -> None:
    mesh = make_mesh(slots=6)
    mesh.set_queue(A, "mail", concurrency=3)
    mesh.run(SETTLE_S)
    specs = []
    for number in range(4):
        specs += submit_everywhere(mesh, 3, queue="mail", concurrency_key=f"key {number}")
    demand_all(mesh, specs, within_s=36 / 3 * RUN_S * 2)
    assert most_at_once(mesh, ids(specs)) <= 3
    for number in range(4):
        assert most_at_once(mesh, [s.id for s in specs if s.options.concurrency_key == f"key {number}"]) == 1


def test_owners_take_turns() -> None:
    mesh = make_mesh()
    mesh.set_queue(A, "mail", concurrency=1)
    mesh.run(SETTLE_S)
    specs = submit_everywhere(mesh, 5, queue="mail")
    demand_all(mesh, specs, within_s=15 * RUN_S * 1.3)
    owners = {spec.id: mesh.holders(spec.id)[0] for spec in specs}
    order = [owners[begun.job] for begun in mesh.begun]
    assert all(set(order[at : at + 3]) == {A, B, C} for at in range(3, 12, 3)), order


def test_idle_peers_run_jobs_of_a_limited_queue_that_another_owns() -> None:
    mesh = make_mesh(slots=2, run_s=1.0)
    mesh.set_queue(A, "mail", concurrency=5)
    mesh.run(SETTLE_S)
    specs = mesh.specs(30, "a", queue="mail")
    mesh.submit(A, *specs)
    demand_all(mesh, specs, within_s=30 / 5 * 1.0 * 1.3)
    assert most_at_once(mesh, ids(specs), run_s=1.0) == 5
    assert {begun.node for begun in mesh.begun} == {A, B, C}


@pytest.mark.parametrize("silently", [False, True])
def test_when_the_steward_dies_another_one_goes_on_and_what_runs_still_counts(silently: bool) -> None:
    mesh = make_mesh("abcd", run_s=1.5)
    queue = queue_with(mesh, D)
    mesh.set_queue(A, queue, concurrency=3)
    mesh.run(SETTLE_S)
    specs = [spec for name in "abc" for spec in mesh.specs(6, name, queue=queue) if True]
    for name, letter in ((A, "a"), (B, "b"), (C, "c")):
        mesh.submit(name, *(spec for spec in specs if mesh.holders(spec.id)[0][0] == letter))
    mesh.run(2.0)
    mesh.kill(D, silently=silently)
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs), limit_s=60.0)
    lost = {spec.id for spec in specs if D in mesh.runs(spec.id)}
    assert most_at_once(mesh, set(ids(specs)) - lost, run_s=1.5) <= 3


def test_what_an_owner_held_is_free_when_it_is_dead() -> None:
    mesh = make_mesh(run_s=100.0)
    queue = queue_with(mesh, C)
    mesh.set_queue(A, queue, concurrency=2)
    mesh.run(SETTLE_S)
    taken = mesh.specs(2, "a", queue=queue, max_losses=1)
    mesh.submit(A, *taken)
    mesh.run(0.5)
    waiting = mesh.specs(2, "b", queue=queue)
    mesh.submit(B, *waiting)
    mesh.run(2.0)
    assert len(mesh.begun) == 2
    mesh.kill(A)
    mesh.run_until(lambda: all(mesh.runs(spec.id) for spec in waiting), limit_s=5.0)


def test_a_start_that_outlives_its_owner_is_counted_by_the_next_one() -> None:
    mesh = make_mesh(slots=4, run_s=6.0)
    queue = queue_with(mesh, C)
    mesh.set_queue(A, queue, concurrency=1)
    mesh.run(SETTLE_S)
    mesh.do(A, SlotsChanged(Room(0)))
    (running,) = mesh.specs(1, "ab", queue=queue)
    mesh.submit(A, running)
    mesh.run(1.5)
    assert mesh.runs(running.id) != [A]
    waiting = mesh.specs(2, "c", queue=queue)
    mesh.submit(C, *waiting)
    mesh.kill(A)
    mesh.run(2.0)
    assert mesh.lead(B, running.id) is not None
    more = mesh.specs(2, "b", queue=queue)
    mesh.submit(B, *more)
    mesh.run(1.0)
    assert len(mesh.begun) == 1
    demand_all(mesh, [running, *waiting, *more], within_s=30.0)


def test_a_start_whose_job_is_given_to_another_owner_counts_all_the_time() -> None:
    """Between the giver's word and the receiver's ownership nobody owns the job, and its task runs."""
    mesh = make_mesh(slots=4, run_s=4.0, settings=Settings(jobs=JobSettings(replicas=1)))
    queue = queue_with(mesh, C)
    mesh.set_queue(A, queue, concurrency=1)
    mesh.run(SETTLE_S)
    (running,) = mesh.specs(1, "a", queue=queue)
    mesh.submit(A, running)
    mesh.run(0.5)
    waiting = mesh.specs(2, "b", queue=queue)
    mesh.submit(B, *waiting)
    mesh.rule = lambda source, to, message: 0.3 if isinstance(message, Copies) else True
    mesh.do(A, RegulateAsked(RequestId(10**6), A, Wish(Change.DRAIN, 60.0), 1.0))
    mesh.run_until(lambda: any(mesh.lead(name, running.id) for name in (B, C)), limit_s=3.0)
    mesh.rule = lambda source, to, message: True
    demand_all(mesh, [running, *waiting], within_s=30.0)
    assert most_at_once(mesh, ids([running, *waiting]), run_s=4.0) == 1


def test_a_permit_that_is_of_no_use_goes_back() -> None:
    """All slots are taken by the time it comes."""
    mesh = make_mesh("ab", slots=1, run_s=1.0)
    queue = queue_with(mesh, B)
    mesh.set_queue(A, queue, concurrency=1)
    mesh.run(SETTLE_S)
    slow = mesh.rule
    mesh.rule = lambda source, to, message: 0.3 if isinstance(message, Allowed) else slow(source, to, message)
    mine = mesh.specs(1, "a", queue=queue)
    mesh.submit(A, *mine)
    mesh.run(0.05)
    filler = mesh.specs(1, "a")
    mesh.submit(A, *filler)
    mesh.run(0.3 + HOLD_S)
    mesh.submit(B, *(other := mesh.specs(1, "b", queue=queue)))
    demand_all(mesh, mine + other + filler, within_s=8.0)
    assert most_at_once(mesh, ids(mine + other), run_s=1.0) == 1


def test_permits_survive_lost_messages() -> None:
    mesh = make_mesh()
    mesh.set_queue(A, "mail", concurrency=2)
    mesh.run(SETTLE_S)
    dice = iter(range(10**6))
    kinds = (Allowed, PermitsWanted, RollCall)
    mesh.rule = lambda source, to, message: not (isinstance(message, kinds) and next(dice) % 3 == 0)
    specs = submit_everywhere(mesh, 6, queue="mail")
    mesh.run_until(lambda: all(mesh.settled(spec.id) for spec in specs), limit_s=120.0)
    assert most_at_once(mesh, ids(specs)) <= 2


def test_messages_that_come_again_change_nothing() -> None:
    mesh = make_mesh("ab", run_s=50.0)
    queue = queue_with(mesh, B)
    mesh.set_queue(A, queue, concurrency=2)
    mesh.run(SETTLE_S)
    mesh.submit(A, *mesh.specs(6, "a", queue=queue))
    mesh.run(1.0)
    assert len(mesh.begun) == 2
    for kind, source, to in ((PermitsWanted, A, B), (Allowed, B, A)):
        for message in list(mesh.messages(kind, source=source, to=to)):
            mesh.tell(source, to, message)
    mesh.run(1.0)
    assert len(mesh.begun) == 2


def test_a_steward_gives_nothing_before_every_member_has_said_what_it_holds() -> None:
    mesh = make_mesh(run_s=50.0)
    queue = queue_with(mesh, A)
    mesh.set_queue(A, queue, concurrency=1)
    mesh.run(SETTLE_S)
    mesh.rule = lambda source, to, message: not (source == C and isinstance(message, PermitsWanted))
    mesh.submit(B, *mesh.specs(1, "b", queue=queue))
    mesh.run(WAIT_S - 0.2)
    assert mesh.messages(RollCall, source=A, to=C)
    assert not mesh.begun
    mesh.run(0.5)
    assert len(mesh.begun) == 1, "who does not answer is not waited for without end"


def test_a_newcomer_that_becomes_steward_knows_what_was_given_before_it_came() -> None:
    """Whatever its name: of all queues some are its own from then on."""
    mesh = make_mesh("abcd", run_s=4.0)
    mesh.kill(D)
    mesh.run_until(lambda: mesh.agree((A, B, C)))
    names = [f"queue-{number}" for number in range(12)]
    for name in names:
        mesh.set_queue(A, name, concurrency=1)
    mesh.run(1.0)
    specs = [spec for name in names for letter in "abc" for spec in mesh.specs(1, letter, queue=name)]
    for node in (A, B, C):
        mesh.submit(node, *(spec for spec in specs if mesh.holders(spec.id)[0] == node))
    mesh.run(0.5)
    mesh.boot(D)
    mesh.run_until(lambda: mesh.agree(mesh.names))
    assert any(steward(mesh, queue_gate(name)) == D for name in names)
    mesh.run(1.0)
    for name in names:
        assert most_at_once(mesh, [s.id for s in specs if s.options.queue == name], run_s=4.0) == 1


def test_two_sides_of_a_cut_have_the_limit_each_and_share_it_again_afterwards() -> None:
    mesh = make_mesh("abcd", slots=8, run_s=1.0)
    mesh.set_queue(A, "mail", concurrency=2)
    mesh.run(SETTLE_S)
    mesh.cut((A, C), (A, D), (B, C), (B, D))
    mesh.run_until(lambda: mesh.agree((A, B)) and mesh.agree((C, D)))
    left = mesh.specs(20, "ab", queue="mail")
    right = mesh.specs(20, "cd", queue="mail")
    mesh.submit(A, *left)
    mesh.submit(C, *right)
    mesh.run(3.0)
    assert most_at_once(mesh, ids(left), run_s=1.0) == 2
    assert most_at_once(mesh, ids(right), run_s=1.0) == 2
    mesh.heal()
    mesh.run_until(lambda: mesh.agree(mesh.names))
    healed_at = mesh.now + 2.0
    owners = {spec.id: mesh.holders(spec.id)[0] for spec in left + right}
    mesh.run_until(lambda: all(mesh.has_settled(name, job) for job, name in owners.items()), limit_s=60.0)
    mesh.begun = [begun for begun in mesh.begun if begun.at > healed_at]
    assert most_at_once(mesh, ids(left + right), run_s=1.0) == 2


def test_a_mesh_without_limits_says_nothing_of_permits() -> None:
    mesh = make_mesh()
    specs = submit_everywhere(mesh, 20)
    demand_all(mesh, specs, within_s=10.0)
    assert not [each for kind in (PermitsWanted, Allowed, RollCall) for each in mesh.messages(kind)]


def test_what_is_over_is_forgotten() -> None:
    mesh = make_mesh()
    specs = submit_everywhere(mesh, 30, concurrency_key="k", concurrency_limit=3)
    many = [spec for n in range(20) for spec in submit_everywhere(mesh, 1, concurrency_key=f"key {n}")]
    demand_all(mesh, specs + many, within_s=40.0)
    mesh.run(6.0)
    mesh.sent.clear()
    mesh.run(20.0)
    for name in mesh.names:
        node = mesh.nodes[name]
        assert not node._permits._accounts
        assert not node._steward._pools
        assert node._permits.used(key_gate("k")) == 0
        assert not node._permits.running()
    assert not mesh.messages(PermitsWanted)


def test_keys_that_only_a_dead_owner_used_are_forgotten() -> None:
    """There is no end of keys: each that was left would be kept for ever."""
    mesh = make_mesh()
    keys = [gate for n in range(100) if steward(mesh, gate := key_gate(f"key {n}")) == A]
    words = tuple(PermitItem(gate, number, number, 1, 1, 0, 0) for number, gate in enumerate(keys, 1))
    mesh.tell(C, A, PermitsWanted(mesh.boots[C], 0, words))
    pools = mesh.nodes[A]._steward._pools
    assert {*pools} == {*keys}
    mesh.kill(C)
    mesh.run_until(lambda: not mesh.nodes[A].view.is_living(C))
    assert not pools


# ------------------------------------------------------------------------------------------------ rates


def starts_within(mesh: Mesh, since: Seconds, until: Seconds, jobs: Iterable[JobId]) -> int:
    wanted = set(jobs)
    return sum(since <= begun.at < until and begun.job in wanted for begun in mesh.begun)


@pytest.mark.parametrize(("rate", "burst"), [(50.0, 1), (50.0, 20), (5.0, 1), (200.0, 1)])
def test_a_queue_s_rate_holds_within_a_tenth_in_every_ten_seconds(rate: float, burst: int) -> None:
    mesh = make_mesh(slots=8, run_s=0.02)
    mesh.set_queue(A, "mail", rate=rate, burst=burst)
    mesh.run(1.0)
    specs = submit_everywhere(mesh, int(rate * 8), queue="mail")
    began_at = mesh.now
    mesh.run(21.0)
    jobs = ids(specs)
    for since in range(10):
        count = starts_within(mesh, began_at + 1 + since, began_at + 11 + since, jobs)
        assert 0.9 * rate * 10 <= count <= 1.1 * rate * 10, (since, count)
    total = starts_within(mesh, began_at, began_at + 20, jobs)
    assert 0.95 * rate * 20 <= total <= 1.05 * rate * 20 + burst


def test_a_rate_holds_together_with_a_limit() -> None:
    mesh = make_mesh(slots=8, run_s=0.3)
    mesh.set_queue(B, "mail", rate=10.0, burst=1, concurrency=5)
    mesh.run(1.0)
    specs = submit_everywhere(mesh, 100, queue="mail")
    began_at = mesh.now
    mesh.run(20.0)
    assert 190 <= starts_within(mesh, began_at, began_at + 20, ids(specs)) <= 211
    assert most_at_once(mesh, ids(specs), run_s=0.3) <= 5


def test_a_takeover_of_the_steward_gives_no_token_twice() -> None:
    mesh = make_mesh("abcd", slots=8, run_s=0.02)
    queue = queue_with(mesh, D)
    mesh.set_queue(A, queue, rate=20.0, burst=1)
    mesh.run(1.0)
    specs = [spec for letter in "abc" for spec in mesh.specs(200, letter, queue=queue)]
    for node in (A, B, C):
        mesh.submit(node, *(spec for spec in specs if mesh.holders(spec.id)[0] == node))
    began_at = mesh.now
    mesh.run(5.0)
    mesh.kill(D)
    mesh.run(15.0)
    total = len({begun.job for begun in mesh.begun})
    assert 20 * (20 - 1.5) <= total <= 20 * 20 * 1.05
    assert mesh.now == pytest.approx(began_at + 20)


def test_what_others_say_of_gates_that_are_not_this_node_s_is_ignored() -> None:
    mesh = make_mesh()
    queue = queue_with(mesh, B)
    mesh.tell(C, A, PermitsWanted(1, 0, (PermitItem(queue_gate(queue), 1, 1, 0, 5, 5, 0),)))
    assert not mesh.nodes[A]._steward._pools


def one_at_a_time(*, runner: NodeId) -> tuple[Mesh, Spec, Spec]:
    """A queue takes one job at a time. A's first one runs there; the second waits."""
    mesh = Mesh("abcd", slots={A: 0, B: 0, C: 0, D: 4} | {runner: 4})
    mesh.verdict = lambda begun: None
    mesh.set_queue(A, "mail", concurrency=1)
    mesh.run(0.5)
    first, second = mesh.specs(2, "abc", queue="mail")
    mesh.submit(A, first)
    mesh.run_until(lambda: mesh.runs(first.id) == [runner])
    mesh.submit(A, second)
    mesh.run(1.0)
    assert mesh.runs(second.id) == []
    return mesh, first, second


def cancel(mesh: Mesh, job: Spec, source: NodeId, to: NodeId) -> None:
    """A's job is to end: one node tells another."""
    mesh.tell(source, to, Copies((encode(mesh.record(A, job.id)._replace(cancel=True)),)))


def cancelled_on_d(*, stops_take_s: Seconds) -> tuple[Mesh, Spec, Seconds]:
    """The first one, which runs on D, is cancelled now."""
    mesh, first, second = one_at_a_time(runner=D)
    mesh.stops_take_s = stops_take_s
    cancel(mesh, first, B, A)
    return mesh, second, mesh.now


def test_a_cancelled_start_on_a_peer_counts_until_its_worker_has_ended() -> None:
    mesh, second, cancelled_at = cancelled_on_d(stops_take_s=2.0)
    mesh.run_until(lambda: mesh.runs(second.id) == [D], limit_s=5.0)
    assert 2.0 <= mesh.begun[-1].at - cancelled_at < 3.5


def test_a_start_that_was_to_stop_counts_no_longer_when_its_runner_dies() -> None:
    mesh, second, _ = cancelled_on_d(stops_take_s=600.0)
    mesh.run(5.0)
    assert mesh.runs(second.id) == []
    mesh.kill(D)
    mesh.do(B, SlotsChanged(Room(1)))
    mesh.run_until(lambda: mesh.runs(second.id) == [B], limit_s=10.0)


def test_a_start_that_was_to_stop_on_a_peer_that_is_cut_off_stops_when_that_is_back() -> None:
    mesh, first, second = one_at_a_time(runner=D)
    mesh.cut((A, D), (B, D), (C, D))
    cancel(mesh, first, B, A)
    mesh.do(B, SlotsChanged(Room(1)))
    mesh.run(0.5)
    assert mesh.runs(second.id) == [], "nobody knows yet that D is silent"
    mesh.run_until(lambda: mesh.runs(second.id) == [B], limit_s=10.0)
    mesh.run(20.0)
    before = len(mesh.sent)
    mesh.run(5.0)
    assert not [sent for sent in mesh.sent[before:] if isinstance(sent.message, Stop)]
    assert not mesh.stopped
    mesh.heal()
    mesh.run_until(lambda: [(name, job) for name, job, _ in mesh.stopped] == [(D, first.id)], limit_s=3.0)
    mesh.run(1.0)
    assert mesh.runs(second.id) == [B], "its place was free already"


def test_a_runner_that_is_silent_once_more_is_not_told_meanwhile() -> None:
    mesh, _, _ = cancelled_on_d(stops_take_s=600.0)
    mesh.rule = lambda source, to, message: not isinstance(message, Stop)  # none of them arrives
    for _ in range(2):
        mesh.cut((A, D), (B, D), (C, D))
        mesh.run(20.0)
        before = len(mesh.sent)
        mesh.run(30.0)
        assert not [sent for sent in mesh.sent[before:] if isinstance(sent.message, Stop)]
        mesh.heal()
        mesh.run(3.0)
        assert [sent for sent in mesh.sent[before:] if isinstance(sent.message, Stop)]


def test_a_start_counts_no_longer_whose_owner_ran_it_and_died_before_it_heard_of_a_cancel() -> None:
    mesh, first, second = one_at_a_time(runner=A)
    mesh.rule = lambda source, to, message: to != A
    cancel(mesh, first, D, B)
    mesh.kill(A)
    mesh.run_until(lambda: mesh.runs(second.id) == [D], limit_s=20.0)
    before = len(mesh.sent)
    mesh.run(30.0)
    assert not [sent for sent in mesh.sent[before:] if isinstance(sent.message, Stop)]


# ------------------------------------------------------------------------------------ what is told of it


def held(mesh: Mesh, name: NodeId, *specs: Spec) -> dict[str, int]:
    """How many of these jobs wait behind which gate, as a node tells its clients who ask for them; and the
    same as it tells those who list jobs."""
    read = mesh.read(name, *ids(specs))
    searched = RequestId(5_000 + len(mesh.searches))
    mesh.do(name, SearchAsked(searched, Query("", "", "", b"", 1_000), 2.0))
    mesh.run_until(lambda: read in mesh.reads and searched in mesh.searches, limit_s=0.2)
    shown, listed = mesh.reads[read].held, mesh.searches[searched].held
    wanted = set(ids(specs))
    assert {job: gate for job, gate in listed.items() if job in wanted} == shown
    return dict(Counter(shown.values()))


@pytest.mark.parametrize("asked", [A, B, C])
@pytest.mark.parametrize("owner", ["a", "b"])
def test_any_node_tells_of_a_job_behind_which_gate_it_waits(owner: str, asked: NodeId) -> None:
    mesh = make_mesh(run_s=2.0)
    mesh.set_queue(A, "mail", concurrency=2)
    mesh.run(SETTLE_S)
    mail = mesh.specs(5, owner, queue="mail")
    keyed = mesh.specs(3, owner, concurrency_key="x")
    plain = mesh.specs(2, owner)
    mesh.submit(C, *mail, *keyed, *plain)
    mesh.run(1.0)
    assert held(mesh, asked, *mail, *keyed, *plain) == {"qmail": 3, "kx": 2}
    mesh.set_queue(B, "mail", concurrency=0)
    mesh.run(0.2)
    assert held(mesh, asked, *mail) == {}
    demand_all(mesh, mail + keyed + plain, within_s=10.0)
    assert held(mesh, asked, *mail, *keyed, *plain) == {}


def test_a_job_that_only_needs_a_slot_waits_behind_no_gate() -> None:
    mesh = make_mesh("a", slots=1, run_s=2.0)
    mesh.set_queue(A, "mail", concurrency=2)
    mesh.run(SETTLE_S)
    specs = mesh.specs(3, "a", queue="mail")
    mesh.submit(A, *specs)
    mesh.run(1.0)
    assert held(mesh, A, *specs) == {}


def test_who_waits_for_a_job_is_told_what_its_owner_said_last() -> None:
    """An answer of another holder, which knows nothing of gates, comes after the owner's."""
    mesh = make_mesh("abcd", run_s=60.0)
    mesh.set_queue(A, "mail", concurrency=1)
    mesh.run(SETTLE_S)
    _, waiting = specs = mesh.specs(2, "abc", queue="mail")
    mesh.submit(A, *specs)
    mesh.run(1.0)
    mesh.rule = lambda source, to, message: 0.05 if source in (B, C) and to == D else True
    read = mesh.read(D, waiting.id, wait_s=0.2)
    mesh.run_until(lambda: read in mesh.reads, limit_s=1.0)
    assert mesh.reads[read].held == {waiting.id: "qmail"}
    read = mesh.read(D, waiting.id, wait_s=2.0)
    mesh.run(0.5)
    mesh.set_queue(A, "mail", concurrency=2)
    mesh.run_until(lambda: read in mesh.reads, limit_s=3.0)
    assert mesh.reads[read].held == {}
