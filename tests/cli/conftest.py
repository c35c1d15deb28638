from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.fake import FakeService, Served, served


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A fake node behind real HTTP, which the commands ask."""
    with served(FakeService()) as found:
        monkeypatch.setenv("EDGENODE_URL", found.url)
        yield found
