from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from edgenode.api.app import make_app
from tests.api.fake import FakeService


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
async def http(service: FakeService) -> AsyncIterator[TestClient]:
    async with TestClient(TestServer(make_app(service))) as client:
        yield client
