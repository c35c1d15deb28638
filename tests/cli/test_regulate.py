"""`edgenode drain`, `undrain` and `weight`, against a fake node behind real HTTP."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner, Result

from edgenode.cli import app
from edgenode.core.wire import Change, Wish
from tests.api.fake import NODES, Served


def edgenode(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_a_node_is_drained_by_name_and_undrained_by_id(node: Served) -> None:
    node.service.reluctance = 9
    result = edgenode("drain", "node-b", "--limit-s", "30")
    assert (result.exit_code, result.stdout) == (0, "node-b is draining: owns 1, runs 3, weight 1\n")
    result = edgenode("undrain", NODES[1], "--json")
    assert json.loads(result.stdout)["state"] == "ready"
    assert node.service.regulated == [
        (NODES[1], Wish(Change.DRAIN, 30.0)),
        (NODES[1], Wish(Change.UNDRAIN)),
    ]


def test_drain_waits_for_its_end_if_it_is_asked_to(node: Served) -> None:
    node.service.reluctance = 3
    result = edgenode("drain", "node-b", "--wait")
    assert result.exit_code == 0
    assert result.stdout.startswith("node-b is drained: ")


def test_drain_stops_waiting_when_the_time_is_over_and_says_that_it_goes_on(node: Served) -> None:
    node.service.reluctance = 1_000
    result = edgenode("drain", "node-b", "--wait", "--timeout", "0.3")
    assert result.exit_code == 3
    assert result.stdout.startswith("node-b is draining: ")
    assert "node-b is not drained after 0.3 s; it goes on" in result.stderr
    assert "edgenode undrain" in result.stderr
    result = edgenode("drain", "node-b", "--timeout", "0")
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_node_that_dies_while_it_is_drained_is_not_waited_for(node: Served) -> None:
    node.service.reluctance = 1_000
    real = node.service.regulate

    async def regulate(*args: Any, **named: Any) -> Any:
        info = await real(*args, **named)
        node.service.silent.add(NODES[1])
        return info

    node.service.regulate = regulate  # type: ignore[method-assign]
    result = edgenode("drain", "node-b", "--wait")
    assert result.exit_code == 1
    assert result.stdout.startswith("node-b is dead: ")


def test_a_weight_is_a_number_in_its_range(node: Served) -> None:
    assert edgenode("weight", "node-c", "2.5").stdout == "node-c is ready: owns 1, runs 3, weight 2.5\n"
    assert edgenode("weight", "node-c", "0").exit_code == 2
    assert node.service.regulated == [(NODES[2], Wish(Change.WEIGHT, 2.5))]


def test_a_name_that_no_node_has_is_wrong_usage_and_says_which_there_are(node: Served) -> None:
    result = edgenode("drain", "node-x")
    assert result.exit_code == 2
    assert "node-a, node-b" in result.output
    assert node.service.regulated == []


def test_a_dead_node_cannot_be_drained(node: Served) -> None:
    node.service.silent.add(NODES[3])
    result = edgenode("drain", "node-d")
    assert result.exit_code == 2
    assert "is dead" in result.output
