"""Fixtures for tests with real nodes; a failure shows the end of every node's log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.mesh import Mesh, Node, Ports, Up

MADE: Final = pytest.StashKey[list[Mesh | Up]]()


@pytest.fixture
def ports() -> Iterator[Ports]:
    taken = Ports()
    yield taken
    taken.close()


@pytest.fixture
def new_mesh(request: pytest.FixtureRequest, tmp_path: Path, ports: Ports) -> Iterator[Callable[[], Mesh]]:
    """Makes meshes, each with a key of its own; they end with the test."""
    made: list[Mesh | Up] = request.node.stash.setdefault(MADE, [])
    meshes: list[Mesh] = []

    def make() -> Mesh:
        meshes.append(Mesh(tmp_path / f"mesh-{len(meshes) + 1}", ports))
        made.append(meshes[-1])
        return meshes[-1]

    yield make
    for mesh in meshes:
        mesh.close()


@pytest.fixture
def mesh(new_mesh: Callable[[], Mesh]) -> Mesh:
    return new_mesh()


@pytest.fixture(scope="session")
def lone_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    ports = Ports()
    mesh = Mesh(tmp_path_factory.mktemp("lone") / "mesh", ports)
    try:
        mesh.grow(1, slots=4)
        yield mesh
    finally:
        mesh.close()
        ports.close()


@pytest.fixture
def lone(request: pytest.FixtureRequest, lone_mesh: Mesh) -> Node:
    """The only node of a mesh, for tests that leave it as it was. It must still be the same process then."""
    request.node.stash.setdefault(MADE, []).append(lone_mesh)
    return lone_mesh.nodes[0]


@pytest.fixture
def up(request: pytest.FixtureRequest, tmp_path: Path, ports: Ports) -> Iterator[Up]:
    """`edgenode up -n 2`, not started."""
    made = Up(tmp_path / "up", ports, 2)
    request.node.stash.setdefault(MADE, []).append(made)
    yield made
    made.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.failed:
        for mesh in item.stash.get(MADE, []):
            report.sections += mesh.logs()
    return report
