"""Nodes find each other, whoever comes first."""

from __future__ import annotations

import random

import pytest
from rig import until

from tests.e2e.mesh import FULL, Mesh

pytestmark = pytest.mark.timeout(180)

FORM_S = 5.0
"""From the moment all five answer until all five show all five. (From the start of the last, on a machine
that does nothing else: EDGENODE_E2E_FULL=1.)"""
COUNT = 5


def start_in_order(mesh: Mesh, order: list[int], dice: random.Random) -> None:
    """Start the nodes one after the other, and see that they are one mesh soon after the last.

    Some start together with the next, and some have long looked for the others when it comes.
    """
    for number in order:
        node = mesh.nodes[number]
        node.start()
        if number != order[-1] and dice.random() < 0.5:
            until(node.answers, f"{node.name} answers")
    if not FULL:
        until(lambda: all(node.answers() for node in mesh.nodes), "all have started")
    mesh.wait_ready(within_s=FORM_S)


@pytest.mark.parametrize("order", [[2, 4, 0, 3, 1], [4, 3, 2, 1, 0]], ids=str)
def test_five_nodes_on_a_chain_of_joins_meet_although_some_start_before_their_seed(
    mesh: Mesh, order: list[int]
) -> None:
    for number in range(COUNT):
        mesh.add(join=[mesh.nodes[number - 1].peer] if number else [], tasks=["edgenode.tasks.basic"])
    start_in_order(mesh, order, random.Random(str(order)))


def test_five_nodes_started_in_any_order_find_each_other_by_multicast_dns_alone(mesh: Mesh) -> None:
    for _ in range(COUNT):
        mesh.add(mdns=True, tasks=["edgenode.tasks.basic"])
    dice = random.Random(1)
    start_in_order(mesh, dice.sample(range(COUNT), COUNT), dice)
