"""The names that the core writes and the API reads are the same."""

from __future__ import annotations

from pathlib import Path

from edgenode.api.render import TAKEOVERS
from edgenode.core import ballots


def test_the_core_still_calls_a_takeover_what_the_api_counts() -> None:
    source = Path(ballots.__file__).read_text()
    assert all(f'"{kind}"' in source for kind in TAKEOVERS)
