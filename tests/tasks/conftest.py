"""A context for calling tasks as plain functions."""

from __future__ import annotations

from typing import Any

import pytest


class Context:
    """Stands in for the worker's context: notes what it is told, and is cancelled after some questions."""

    def __init__(self) -> None:
        self.attempt = 1
        self.told: list[float] = []
        self.answers_before_cancel = float("inf")

    @property
    def cancelled(self) -> bool:
        self.answers_before_cancel -= 1
        return self.answers_before_cancel < 0

    def progress(self, fraction: float, message: str = "") -> None:
        assert 0 <= fraction <= 1
        self.told.append(fraction)


@pytest.fixture
def ctx() -> Any:
    return Context()
