"""Cuts of every shape, resets and loss on a real network of nodes that found each other by themselves."""

from __future__ import annotations

from rig import Rig, until

from tests.netns.trial import at_work, keeps_every_promise, moved, wait_for_more, wait_until_dead

MESH = "five"


def test_five_nodes_on_five_machines_find_each_other_by_multicast_dns_alone(rig: Rig) -> None:
    assert not any("--join" in node.command for node in rig.nodes)
    addresses = {member["addresses"][0] for node in rig.nodes for member in node.get("/v1/nodes")["nodes"]}
    assert addresses == {f"{node.machine.address}:9701" for node in rig.nodes}
    with at_work(rig, "calm", seconds_max=0.5) as work:
        wait_for_more(work, 20)
    history = keeps_every_promise(work)
    assert not rig.faults.all
    assert len(history.marks) == len(history.records) + sum(each.failures for each in history.submissions)


def test_both_sides_of_a_cut_go_on_and_agree_after_it(rig: Rig) -> None:
    few, many = rig.nodes[:2], rig.nodes[2:]
    with at_work(rig, "halves", seconds_max=2) as work:
        rig.split(few, many)
        wait_until_dead(few, at=many)
        wait_until_dead(many, at=few)
        wait_for_more(work, 8, at=many)
        wait_for_more(work, 8, at=few)
        until(
            lambda: any(
                note["kind"] == "provisional takeover"
                for job in (few[0].jobs("halves") or {}).values()
                for note in job["history"]
            ),
            "the few take over what the many owned",
        )
        rig.heal()
        rig.wait_ready()
    assert moved(keeps_every_promise(work))


def test_a_node_that_hears_nobody_and_is_heard_by_all_loses_nothing(rig: Rig) -> None:
    deaf, others = rig.nodes[0], rig.nodes[1:]
    with at_work(rig, "deaf") as work:
        for other in others:
            rig.cut(other, deaf, both=False)
        wait_until_dead([deaf], at=others)
        wait_for_more(work, 15, at=others)
        rig.heal()
        rig.wait_ready()
    keeps_every_promise(work)


def test_two_nodes_with_a_one_way_cut_between_them_lose_nothing(rig: Rig) -> None:
    with at_work(rig, "one-way") as work:
        rig.cut(rig.nodes[1], rig.nodes[2], both=False)
        wait_for_more(work, 30)
        rig.heal()
        rig.wait_ready()
    keeps_every_promise(work)


def test_a_cut_that_is_not_transitive_loses_nothing(rig: Rig) -> None:
    """A ring: each hears its two neighbours only, so that all reach all, and no majority is a clique."""
    nodes = rig.nodes
    with at_work(rig, "ring") as work:
        for number, node in enumerate(nodes):
            rig.cut(node, nodes[(number + 2) % len(nodes)])
        wait_for_more(work, 30)
        rig.heal()
        rig.wait_ready()
    keeps_every_promise(work)


def test_a_firewall_that_resets_looks_like_death_and_loses_nothing(rig: Rig) -> None:
    victim, others = rig.nodes[4], rig.nodes[:4]
    with at_work(rig, "reset", seconds_max=2) as work:
        for other in others:
            rig.cut(victim, other, "reset")
        wait_until_dead([victim], at=others)
        wait_for_more(work, 15, at=others)
        rig.heal()
        rig.wait_ready()
    keeps_every_promise(work)


def test_a_network_that_loses_every_fifth_packet_loses_no_job(rig: Rig) -> None:
    with at_work(rig, "loss") as work:
        rig.lose(0.2)
        wait_for_more(work, 30)
        rig.heal()
        rig.wait_ready()
    keeps_every_promise(work)
