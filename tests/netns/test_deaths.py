"""Owners that are killed, or stand still and come back: alone, and one after the other."""

from __future__ import annotations

from rig import Rig, RigNode, until

from tests.netns.trial import at_work, keeps_every_promise, moved, wait_for_more, wait_until_dead

MESH = "five"


def busiest(nodes: list[RigNode]) -> RigNode:
    """Who owns the most unfinished jobs."""

    def owned(node: RigNode) -> int:
        found = node.get("/v1/nodes/self")
        return 0 if found is None else int(found["load"]["owned"])

    return max(nodes, key=owned)


def test_two_owners_that_are_killed_under_load_lose_nothing(rig: Rig) -> None:
    with at_work(rig, "killed", seconds_max=2) as work:
        for _ in range(2):
            victim = busiest(rig.living)
            victim.kill()
            wait_until_dead([victim], at=rig.living)
            wait_for_more(work, 8)
        for node in rig.nodes:
            if not node.is_alive:
                node.start()
        rig.wait_ready()
    assert moved(keeps_every_promise(work))


def test_an_owner_that_was_stopped_and_goes_on_as_a_zombie_changes_nothing(rig: Rig) -> None:
    with at_work(rig, "zombie", seconds_max=2) as work:
        zombie = busiest(rig.nodes)
        others = [node for node in rig.nodes if node is not zombie]
        zombie.pause()
        wait_until_dead([zombie], at=others)
        wait_for_more(work, 15, at=others)
        zombie.resume()
        rig.wait_ready()
    assert moved(keeps_every_promise(work))


def test_pause_then_kill_loses_nothing(rig: Rig) -> None:
    """Jepsen's analysis of NATS 2.12.1: write while a minority stands still, lose another, let those go on.

    The jobs that were acknowledged in the meantime are on no disk of the minority. It must not come back
    and outvote those who have them.
    """
    few, pivot, rest = rig.nodes[:2], rig.nodes[2], rig.nodes[3:]
    with at_work(rig, "pause-then-kill") as work:
        for node in few:
            node.pause()
        wait_until_dead(few, at=[pivot, *rest])
        wait_for_more(work, 20, at=[pivot, *rest])
        pivot.kill()
        for node in few:
            node.resume()
        rig.wait_ready()
        wait_for_more(work, 10)
    keeps_every_promise(work)
    pivot.start()
    rig.wait_ready()
    keeps_every_promise(work)


def test_partition_then_kill_loses_nothing(rig: Rig) -> None:
    """The same with a cut: both sides write, and the one that is lost may not even have been heard of."""
    few, pivot, rest = rig.nodes[3:], rig.nodes[0], rig.nodes[1:3]
    with at_work(rig, "partition-then-kill") as work:
        rig.split(few, [pivot, *rest])
        wait_until_dead(few, at=[pivot, *rest])
        wait_until_dead([pivot, *rest], at=few)
        wait_for_more(work, 20, at=[pivot, *rest])
        pivot.kill()
        rig.heal()
        rig.wait_ready()
        wait_for_more(work, 10)
    keeps_every_promise(work)
    pivot.start()
    rig.wait_ready()
    keeps_every_promise(work)


def test_a_lost_disk_after_a_pause_loses_nothing_that_two_disks_had(rig: Rig) -> None:
    """Pause-then-kill with the pivot's disk gone too: each job was acknowledged on two disks."""
    few, pivot, rest = [rig.nodes[4]], rig.nodes[1], [rig.nodes[0], rig.nodes[2], rig.nodes[3]]
    with at_work(rig, "pause-then-wipe") as work:
        few[0].pause()
        wait_until_dead(few, at=[pivot, *rest])
        wait_for_more(work, 20, at=[pivot, *rest])
        pivot.kill()
        pivot.wipe()
        few[0].resume()
        rig.wait_ready()
        wait_for_more(work, 10)
    keeps_every_promise(work)


def test_a_mesh_that_is_cut_from_power_goes_on_with_what_it_had(rig: Rig) -> None:
    with at_work(rig, "power", seconds_max=2) as work:
        for node in rig.nodes:
            node.kill()
        assert not rig.living
        for node in rig.nodes:
            node.start()
        rig.wait_ready()
        until(lambda: all(node.takes_jobs for node in rig.nodes), "all take jobs again")
        wait_for_more(work, 5)
    keeps_every_promise(work)
