"""Which tests run in one process when many run side by side (`make test`)."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling


class ByMesh(LoadScopeScheduling):
    """Tests that share one mesh of real nodes go to one process, largest file first; all others anywhere."""

    SHARING = ("tests/netns/", "tests/scripts/test_chaos.py")

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0] if nodeid.startswith(self.SHARING) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByMesh:
    return ByMesh(config, log)
