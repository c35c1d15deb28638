"""Drain, undrain and weight over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from edgenode.core.wire import Change, Wish
from tests.api.fake import NODES, FakeService


async def test_any_node_can_be_asked_to_drain_any_member(http: TestClient, service: FakeService) -> None:
    service.reluctance = 1
    answer = await http.post(f"/v1/nodes/{NODES[2]}/drain", json={"limit_s": 60})
    assert answer.status == 202
    told = await answer.json()
    assert (told["id"], told["state"], told["ready"]) == (NODES[2], "draining", False)
    assert service.regulated == [(NODES[2], Wish(Change.DRAIN, 60.0))]
    shown = await (await http.get(f"/v1/nodes/{NODES[2]}")).json()
    assert shown["state"] == "drained"


async def test_a_drain_without_a_body_has_the_limit_of_the_node_that_is_asked(
    http: TestClient, service: FakeService
) -> None:
    assert (await http.post("/v1/nodes/self/drain")).status == 202
    assert service.regulated == [(service.me, Wish(Change.DRAIN, 10.0))]


async def test_undrain_and_weight_answer_with_the_member_as_it_is_then(
    http: TestClient, service: FakeService
) -> None:
    await http.post("/v1/nodes/self/drain")
    undrained = await http.post("/v1/nodes/self/undrain")
    assert (undrained.status, (await undrained.json())["state"]) == (200, "ready")
    heavier = await http.patch(f"/v1/nodes/{NODES[1]}", json={"weight": 2.5})
    assert (heavier.status, (await heavier.json())["weight"]) == (200, 2.5)


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "drain", {"limit_s": -1}, "limit_s"),
        ("POST", "drain", {"limit_s": True}, "limit_s"),
        ("POST", "drain", {"limit_s": "60"}, "limit_s"),
        ("POST", "drain", {"limit_s": 10**400}, "limit_s"),
        ("POST", "drain", {"limit": 60}, "limit"),
        ("POST", "drain", [], "body"),
        ("POST", "undrain", {"limit_s": 60}, "limit_s"),
        ("PATCH", "", {}, "weight"),
        ("PATCH", "", {"weight": 0}, "weight"),
        ("PATCH", "", {"weight": 1e9}, "weight"),
        ("PATCH", "", {"weight": -(10**400)}, "weight"),
    ],
)
async def test_what_is_misspelt_or_out_of_range_changes_nothing(
    http: TestClient, service: FakeService, method: str, path: str, body: Any, field: str
) -> None:
    answer = await http.request(method, f"/v1/nodes/self/{path}".rstrip("/"), json=body)
    told = await answer.json()
    assert (answer.status, told["field"], told["definite"]) == (400, field, True)
    assert service.regulated == []


async def test_a_number_past_all_floats_changes_nothing(http: TestClient, service: FakeService) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await http.patch("/v1/nodes/self", data=b'{"weight": 1e999}', headers=headers)
    assert (answer.status, (await answer.json())["field"]) == (400, "weight")
    assert service.regulated == []


async def test_a_body_of_another_type_is_refused_as_other_sites_forms_would_send_it(
    http: TestClient, service: FakeService
) -> None:
    answer = await http.post("/v1/nodes/self/drain", data={"limit_s": "1"})
    assert answer.status == 415
    crossing = await http.post("/v1/nodes/self/drain", headers={"Origin": "http://evil.example"})
    assert crossing.status == 403
    assert service.regulated == []


async def test_a_member_that_nobody_knows_or_that_is_dead_cannot_be_drained(
    http: TestClient, service: FakeService
) -> None:
    unknown = await http.post("/v1/nodes/nobody/drain")
    assert (unknown.status, (await unknown.json())["type"]) == (404, "/problems/node-not-found")
    service.silent.add(NODES[3])
    dead = await http.post(f"/v1/nodes/{NODES[3]}/drain")
    assert (dead.status, (await dead.json())["type"]) == (409, "/problems/node-away")
