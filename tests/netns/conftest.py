"""Real nodes on machines of their own: network namespaces, disks, clocks. Skipped where none can be made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from machines import Lan, missing
from rig import Rig

HERE: Final = Path(__file__).parent
RIGS: Final = pytest.StashKey[list[Rig]]()

Start = Callable[[int], Rig]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where no machines can be made these tests are skipped, and say what is missing."""
    ours = [item for item in items if HERE in item.path.parents]
    lacks = missing() if ours else []
    for item in ours:
        item.add_marker(pytest.mark.timeout(300))
        if lacks:
            item.add_marker(pytest.mark.skip(reason=f"real networks need {', '.join(lacks)}"))


@pytest.fixture(scope="module")
def new_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts meshes of so many nodes, each on a LAN of its own, and waits until all have met."""
    made: list[tuple[Lan, Rig]] = []

    def make(size: int) -> Rig:
        folder = tmp_path_factory.mktemp("lan")
        lan = Lan(size, folder)
        made.append((lan, Rig(size, folder, lan, slots=4)))
        rig = made[-1][1].__enter__()
        rig.wait_ready()
        return rig

    yield make
    for lan, rig in made:
        rig.close()
        lan.close()  # fails if anything is left


@pytest.fixture(scope="module")
def five(new_rig: Start) -> Rig:
    return new_rig(5)


@pytest.fixture(scope="module")
def three(new_rig: Start) -> Rig:
    return new_rig(3)


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """The mesh of this module, whole at the beginning and at the end of each test."""
    shared: Rig = request.getfixturevalue(request.module.MESH)
    request.node.stash[RIGS] = [shared]
    yield shared
    shared.restore()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.failed:
        for rig in item.stash.get(RIGS, []):
            report.sections += rig.logs()
    return report
