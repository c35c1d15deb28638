"""The loop that a node runs on."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from edgenode.cli.run import _run_loop

HELD = 200_000
"""Objects: some ten thousand jobs that came and stayed."""


@pytest.fixture
def searches() -> Iterator[list[int]]:
    """Which generations were searched for garbage; Python's own rules are as before after that."""
    found: list[int] = []

    def note(phase: str, about: dict[str, Any]) -> None:
        if phase == "stop":
            found.append(about["generation"])

    before = gc.get_threshold()
    gc.callbacks.append(note)
    yield found
    gc.callbacks.remove(note)
    gc.set_threshold(*before)
    gc.unfreeze()


def test_a_node_that_fills_up_is_not_searched_for_garbage_all_the_time(searches: list[int]) -> None:
    held: list[list[int]] = []

    async def fill_up() -> None:
        searches.clear()
        held.extend([number] for number in range(HELD))

    _run_loop(fill_up())
    assert 0 in searches
    assert 2 not in searches
