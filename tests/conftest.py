"""Which tests run in one process when many run side by side (`make test`); how long a property may take; that
interrupts are heard."""

from __future__ import annotations

import signal
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

# How long an example takes on a busy machine says nothing; pytest-timeout ends what hangs.
hypothesis.settings.register_profile("edgenode", deadline=None)
hypothesis.settings.load_profile("edgenode")


# What runs in the background of a script has them ignored, and so have all programs that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class ByMesh(LoadScopeScheduling):
    """Tests that share one mesh of real nodes go to one process, largest file first; all others anywhere."""

    SHARING = ("tests/netns/", "tests/scripts/test_chaos.py")

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0] if nodeid.startswith(self.SHARING) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByMesh:
    return ByMesh(config, log)
