"""Ports for meshes: free, and nobody else's while somebody has them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import ports
import pytest
from ports import NoPorts, Ports

from edgenode.cli.up import PEER_OFFSET


@pytest.fixture
def ours() -> Iterator[Ports]:
    with Ports() as taken:
        yield taken


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held.getsockname()[1]


@pytest.mark.parametrize("offset", [0, PEER_OFFSET])
def test_ports_that_somebody_uses_are_passed_over(
    busy_port: int, offset: int, ours: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "PORT_MAX", 65_000)
    first = busy_port - 3 - offset
    found = ours.take_mesh(5, first)
    assert found > first
    assert (found - first) % ports.STEP == 0


def test_two_meshes_that_look_at_one_place_get_different_ports_before_either_has_bound_any(
    ours: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ours.take_all([*range(6), *range(PEER_OFFSET, PEER_OFFSET + 6)])
    ours.close()
    monkeypatch.setattr(ports, "PORT_MAX", 40_000)
    one = ours.take_mesh(5, first)
    with Ports() as others:
        other = others.take_mesh(5, first)
        assert abs(other - one) >= ports.STEP
        above = others.take_mesh(5, one + PEER_OFFSET)
        assert above != one + PEER_OFFSET, "those are the peer ports of the first"
    ours.close()
    with Ports() as later:
        assert later.take_mesh(5, one) == one


def test_where_there_are_no_ports_it_says_so(ours: Ports) -> None:
    with pytest.raises(NoPorts, match="no 10 ports are free from 31995"):
        ours.take_mesh(5, ports.PORT_MAX - 5)
