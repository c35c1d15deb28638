"""The task of scripts/bench.py: `echo` as the built-in one, but in the node itself."""

from __future__ import annotations

from typing import Any

from edgenode import task


@task("bench.echo", inline=True)
async def echo(message: Any) -> Any:
    """Return `message` as it came."""
    return message
