"""Nodes find each other, whoever comes first."""

from __future__ import annotations

import random
import time

import pytest

from tests.e2e.mesh import FULL, Mesh, until

pytestmark = pytest.mark.timeout(180)

FORM_S = 5.0
"""From the moment the last node's API answers until all five show all five. (From its start, on a machine
that does nothing else: EDGENODE_E2E_FULL=1.)"""
STAGGER_S = 0.4
COUNT = 5


def start_in_order(mesh: Mesh, order: list[int], dice: random.Random) -> None:
    """Start the nodes one after the other, and see that they are one mesh soon after the last."""
    for number in order:
        mesh.nodes[number].start()
        time.sleep(dice.uniform(0, STAGGER_S))  # people are not machines: this is the input, not a guess
    last = mesh.nodes[order[-1]]
    if not FULL:
        until(last.answers, f"{last.name} answers")
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
