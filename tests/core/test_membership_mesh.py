"""What whole meshes do, over many seeds: the numbers that the presets promise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from membership_mesh import LAN, Mesh, node_id

from edgenode.core.settings import PRESETS
from edgenode.core.signals import LeaveAsked
from edgenode.core.types import NodeId
from edgenode.core.view import Standing
from edgenode.core.wire import Ping, Pong, Sync


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def times_until_dead(
    end: Callable[[Mesh], None], *standings: Standing, runs: int, loss: float = 0.0, size: int = 5
) -> list[float]:
    """From the end of node 3 until every other node knows, once for each seed."""
    times = []
    for seed in range(runs):
        mesh = Mesh(seed, loss=loss)
        mesh.start_all(size, settle_s=0.5 + mesh.dice.random())
        assert mesh.is_whole()
        began = mesh.now
        end(mesh)
        assert mesh.run(20.0, until=lambda mesh=mesh: mesh.everybody_sees(3, *standings)), seed
        times.append(mesh.now - began)
        assert {node for _, _, node in mesh.deaths()} == {node_id(3)}
    return times


def test_a_killed_process_is_known_to_be_gone_within_50_ms() -> None:
    times = times_until_dead(lambda mesh: mesh.kill(3), Standing.GONE, runs=200)
    assert max(times) < 0.05


def test_a_silent_host_is_dead_everywhere_within_1_5_s() -> None:
    times = times_until_dead(lambda mesh: mesh.silence(3), Standing.SILENT, runs=200)
    assert percentile(times, 0.99) < 1.5
    assert min(times) > 0.9  # stalls shorter than that are survived


def test_lost_messages_hardly_slow_down_the_detection_of_silence() -> None:
    times = times_until_dead(lambda mesh: mesh.silence(3), Standing.SILENT, runs=40, loss=0.05)
    assert max(times) < 1.6


@pytest.mark.parametrize("size", [3, 5])
def test_who_was_cut_off_lately_is_as_quick_to_see_that_another_is_silent(size: int) -> None:
    for seed in range(10):
        mesh = Mesh(seed)
        mesh.start_all(size, settle_s=0.5)
        for _ in range(2):
            for number in range(1, size + 1):
                alone = node_id(number)
                mesh.cut = lambda source, target, alone=alone: alone in (source, target)
                mesh.run(2.0)  # it suspects all others meanwhile, and they refute that afterwards
                mesh.heal()
                assert mesh.run(10.0, until=mesh.is_whole), (seed, number)
                mesh.run(1.0)
        began = mesh.now
        mesh.silence(3)
        assert mesh.run(1.6, until=lambda mesh=mesh: mesh.everybody_sees(3, Standing.SILENT)), seed
        assert mesh.now - began > 0.9


def test_who_is_back_from_behind_a_cut_does_not_take_itself_for_slow() -> None:
    for seed in range(20):
        mesh = Mesh(seed)
        mesh.start_all(3, settle_s=0.5)
        mesh.cut = lambda source, target: node_id(2) in (source, target)
        mesh.run(2.0)
        mesh.heal()
        assert mesh.run(10.0, until=mesh.is_whole), seed
        mesh.run(1.0)
        mesh.silence(3)  # node 2 is one of two that have to notice it
        assert mesh.run(1.4, until=lambda mesh=mesh: mesh.everybody_sees(3, Standing.SILENT)), seed


@pytest.mark.parametrize("killed", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_several_processes_killed_at_once_are_known_by_proof(killed: tuple[int, ...]) -> None:
    for seed in range(10):
        mesh = Mesh(seed)
        mesh.start_all(5, settle_s=0.5)
        began = mesh.now
        for number in killed:
            mesh.kill(number)
        mesh.run(0.05)
        assert all(mesh.everybody_sees(number, Standing.GONE) for number in killed), seed
        mesh.run(3.0)
        assert {node for _, _, node in mesh.deaths(since=began)} == {node_id(number) for number in killed}


def keep_stalling(mesh: Mesh, number: int, stall_s: tuple[float, float], run_s: tuple[float, float]) -> None:
    def again() -> None:
        span_s = mesh.dice.uniform(*stall_s)
        mesh.stall(number, span_s)
        mesh.after(span_s + mesh.dice.uniform(*run_s), again)

    again()


def test_a_starved_node_is_never_called_dead_and_calls_nobody_dead() -> None:
    mesh = Mesh(7, loss=0.05, delay_s=(0.0005, 0.02))
    mesh.start_all(5)
    began = mesh.now
    keep_stalling(mesh, 2, (0.3, 0.9), (0.03, 0.1))  # some tenth of a core
    mesh.run(600.0)
    assert mesh.deaths(since=began) == []
    refuted = sum(log.kind == "refuted" for log in mesh.processes[node_id(2)].logs)
    assert refuted > 100  # it was hard


def test_nobody_is_called_dead_where_every_node_is_loaded() -> None:
    mesh = Mesh(8, loss=0.05, delay_s=(0.0005, 0.03))
    mesh.start_all(5)
    began = mesh.now
    keep_stalling(mesh, 2, (0.3, 0.9), (0.03, 0.1))
    for number in (1, 3, 4, 5):
        keep_stalling(mesh, number, (0.01, 0.25), (0.05, 0.3))
    mesh.run(120.0)
    assert mesh.deaths(since=began) == []


def test_a_node_that_slept_for_a_minute_listens_before_it_accuses() -> None:
    mesh = Mesh(9)
    mesh.start_all(5)
    began = mesh.now
    mesh.stall(2, 60.0)
    mesh.run(59.0)
    assert mesh.everybody_sees(2, Standing.SILENT)
    mesh.run(10.0)
    assert mesh.is_whole()
    assert {node for _, _, node in mesh.deaths(since=began)} == {node_id(2)}


def bytes_at_rest(size: int, span_s: float) -> float:
    mesh = Mesh(1, keeps_changes=False)
    mesh.start_acquainted(size)
    mesh.run(8.0)  # a round of the largest: in the first one everybody asks everybody
    assert mesh.is_whole()
    mesh.counts_bytes = True
    mesh.run(span_s)
    return sum(process.bytes_sent for process in mesh.running()) / size / span_s


def test_bytes_per_node_at_rest_do_not_grow_with_the_mesh() -> None:
    small, medium, large = (bytes_at_rest(size, span_s) for size, span_s in ((10, 20), (40, 16), (200, 8)))
    assert 200 < small < 400  # five pings a second and their answers
    assert 0.8 < medium / small < 1.1
    assert 0.8 < large / small < 1.1


def test_what_one_node_missed_it_learns_with_one_comparison_in_a_large_mesh_too() -> None:
    mesh = Mesh(4, keeps_changes=False)
    mesh.start_acquainted(200)
    mesh.run(1.0)
    behind = node_id(200)
    mesh.hears = lambda to, message: (
        replace(message, rumours=())
        if to == behind and isinstance(message, Ping | Pong | Sync)  # all that carries rumours at rest
        else message
    )
    for number in (7, 8, 9):
        mesh.act(number, lambda membership, now: membership.set_ready(False, now))
    late = mesh.processes[behind].membership
    mesh.run(LAN.sync_period_s * 1.2 + 0.1)
    assert [late.info(node_id(number)).ready for number in (6, 7, 8, 9)] == [True, False, False, False]


@pytest.mark.parametrize("order", [(1, 2, 3, 4, 5), (5, 4, 3, 2, 1), (3, 1, 5, 2, 4)])
def test_a_chain_of_joins_becomes_one_mesh_in_whatever_order_it_starts(order: tuple[int, ...]) -> None:
    for seed in range(5):
        mesh = Mesh(seed)
        for number in order:
            mesh.start(number, expects=number > 1)
            mesh.run(mesh.dice.uniform(0.0, 0.3))
            for one, other in pairwise(range(1, 6)):
                mesh.dial(other, one)  # node i was told of node i - 1
        assert mesh.run(0.5, until=mesh.is_whole), seed
        assert all(process.membership.formed for process in mesh.running())


def cut_in_two(mesh: Mesh, size: int) -> set[NodeId]:
    """The lower half of the nodes, after 60 s in which nothing passed between it and the others."""
    side = {node_id(number) for number in range(1, size // 2 + 1)}
    mesh.cut = lambda source, target: (source in side) != (target in side)
    mesh.run(60.0)
    return side


@pytest.mark.parametrize("size", [5, 20])
def test_both_sides_of_a_cut_of_60_s_find_each_other_again(size: int) -> None:
    mesh = Mesh(size)
    mesh.start_all(size, settle_s=1.0)
    side = cut_in_two(mesh, size)
    for process in mesh.running():
        here = node_id(process.number) in side
        expected = {
            node_id(other.number) for other in mesh.running() if (node_id(other.number) in side) == here
        }
        assert process.membership.ranking().members == expected
    mesh.heal()
    healed_at = mesh.now
    assert mesh.run(5.0, until=mesh.is_whole)
    mesh.run(5.0)
    assert mesh.is_whole()
    assert mesh.deaths(since=healed_at) == []  # what the other side believed killed nobody again


def cut_one_way(mesh: Mesh, is_cut: Callable[[NodeId, NodeId], bool]) -> list[tuple[float, int, NodeId]]:
    began = mesh.now
    mesh.cut = is_cut
    mesh.run(60.0)
    return mesh.deaths(since=began)


@pytest.mark.parametrize("direction", ["deaf", "mute"])
def test_a_node_cut_off_one_way_is_dead_to_the_others_once_and_returns(direction: str) -> None:
    mesh = Mesh(11)
    mesh.start_all(5)
    victim = node_id(2)
    place = 1 if direction == "deaf" else 0
    deaths = cut_one_way(mesh, lambda *ends: ends[place] == victim)
    assert sorted(observer for _, observer, node in deaths if node == victim) == [1, 3, 4, 5]
    assert sum(observer == 2 for _, observer, _ in deaths) == 4  # and they to it
    assert len(deaths) == 8  # nobody flaps
    mesh.heal()
    assert mesh.run(5.0, until=mesh.is_whole)


@pytest.mark.parametrize("ways", [1, 2])
def test_two_nodes_that_cannot_reach_each_other_are_alive_by_the_word_of_others(ways: int) -> None:
    mesh = Mesh(12)
    mesh.start_all(5)
    pair = (node_id(1), node_id(2))
    assert cut_one_way(mesh, lambda *ends: ends == pair or (ways == 2 and ends == pair[::-1])) == []


def test_a_reset_that_lies_kills_nobody_for_long() -> None:
    mesh = Mesh(13)
    mesh.start_all(5)
    for number in (1, 2):
        mesh.break_link(number, 3, refused=True)
    assert mesh.run(0.05, until=lambda: mesh.everybody_sees(3, Standing.GONE))
    assert mesh.run(3.0, until=mesh.is_whole)
    assert mesh.processes[node_id(3)].membership.formed


def test_one_lying_reset_is_no_proof_in_a_mesh_of_five() -> None:
    mesh = Mesh(14)
    mesh.start_all(5)
    began = mesh.now
    mesh.break_link(1, 3, refused=True)
    mesh.run(10.0)
    assert mesh.deaths(since=began) == []


def test_a_killed_node_that_starts_again_is_known_under_its_new_boot() -> None:
    for seed in range(5):
        mesh = Mesh(seed)
        mesh.start_all(5)
        mesh.kill(3)
        mesh.run(mesh.dice.uniform(0.0, 0.05))  # sometimes sooner than all have proof
        mesh.start(3, boot=2)
        assert mesh.run(3.0, until=mesh.is_whole), seed
        mesh.run(3.0)
        assert mesh.is_whole()
        assert {process.membership.boot_of(node_id(3)) for process in mesh.running()} == {2}


def test_goodbye_is_known_at_once_and_nobody_waits() -> None:
    mesh = Mesh(15)
    mesh.start_all(5)
    mesh.act(3, lambda membership, now: membership.handle(LeaveAsked(), now))
    mesh.run(0.05)
    assert mesh.everybody_sees(3, Standing.LIVING)
    assert all(node_id(3) not in process.membership.ranking().members for process in mesh.running())
    mesh.act(3, lambda membership, now: membership.left(now))
    mesh.silence(3)
    mesh.run(0.05)
    assert mesh.everybody_sees(3, Standing.GONE)


@pytest.mark.parametrize("size", [5, 20])
def test_a_cut_that_outlasts_all_memory_heals_through_one_address(size: int) -> None:
    mesh = Mesh(size, settings=replace(LAN, dead_keep_s=20.0))
    mesh.start_all(size, settle_s=1.0)
    side = cut_in_two(mesh, size)
    for process in mesh.running():
        here = node_id(process.number) in side
        assert {node in side for node in process.membership.members()} == {here}  # the others are forgotten
    mesh.heal()
    mesh.dial(size, 1)  # as `--join` does
    assert mesh.run(15.0, until=mesh.is_whole)


def test_a_node_that_slept_while_a_member_died_and_was_forgotten_does_not_bring_it_back() -> None:
    mesh = Mesh(18, settings=replace(LAN, dead_keep_s=10.0))
    mesh.start_all(8, settle_s=1.0)
    mesh.stall(5, 40.0)
    mesh.run(5.0)
    mesh.kill(3)
    mesh.run(20.0)
    others = [process for process in mesh.running() if process.number != 5]
    assert all(node_id(3) not in process.membership.members() for process in others)
    since = mesh.now
    mesh.run(30.0)
    assert mesh.is_whole()
    assert [who for _, who, node in mesh.deaths(since=since) if node == node_id(3)] == [5]
    assert all(node_id(3) not in process.membership.members() for process in mesh.running())


def test_a_whole_mesh_without_power_comes_back_from_its_disks() -> None:
    mesh = Mesh(16)
    mesh.start_all(5)
    for number in range(1, 6):
        mesh.silence(number)
    mesh.run(5.0)
    for number in (4, 2, 5, 1, 3):
        mesh.start(number, boot=2)
        mesh.run(mesh.dice.uniform(0.0, 2.0))
    assert mesh.run(3.0, until=mesh.is_whole)


def test_fifty_identities_that_come_and_go_leave_nothing_behind() -> None:
    mesh = Mesh(17, settings=replace(LAN, dead_keep_s=5.0))
    mesh.start_all(3, settle_s=1.0)
    for number in range(10, 60):
        mesh.start(number, seeds=[1])
        mesh.run(0.2)
        if number % 2:
            mesh.act(number, lambda membership, now: membership.left(now))
            mesh.silence(number)
        else:
            mesh.kill(number)
    mesh.run(20.0)
    for process in mesh.running():
        assert process.membership.members() == [node_id(1), node_id(2), node_id(3)]
        assert len(process.disk) == 2
    assert mesh.is_whole()


def test_two_meshes_become_one_when_one_of_each_meets() -> None:
    mesh = Mesh(18)
    for number in range(1, 9):
        mesh.start(number, seeds=[] if number in (1, 5) else [1 if number < 5 else 5])
        mesh.run(0.05)
    assert len(mesh.processes[node_id(2)].membership.ranking()) == 4
    mesh.dial(3, 7)
    assert mesh.run(1.0, until=mesh.is_whole)


def test_a_wide_area_mesh_lives_with_round_trips_of_0_3_s() -> None:
    mesh = Mesh(19, settings=PRESETS["wan"].membership, delay_s=(0.1, 0.15), loss=0.02)
    mesh.start_all(5, settle_s=10.0)
    assert mesh.is_whole()
    began = mesh.now
    mesh.run(600.0)
    assert mesh.deaths(since=began) == []
    suspected = sum(log.kind == "member-suspected" for process in mesh.running() for log in process.logs)
    assert suspected < 30
    mesh.silence(4)
    assert mesh.run(10.0, until=lambda: mesh.everybody_sees(4, Standing.SILENT))


def test_the_same_seed_gives_the_same_story() -> None:
    def story() -> list[object]:
        mesh = Mesh(20, loss=0.1)
        mesh.start_all(6)
        mesh.kill(2)
        mesh.run(5.0)
        return [(process.changes, process.logs) for process in mesh.processes.values()]

    assert story() == story()
