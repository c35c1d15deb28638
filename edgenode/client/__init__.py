"""Submit jobs to a mesh and follow them, from Python: `Client`, and `AsyncClient` for asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgenode.client.errors import (
    BadAnswer,
    ClientError,
    NoNodeReachable,
    OutcomeUnknown,
    Refused,
    WaitTimedOut,
)
from edgenode.client.job import Job
from edgenode.client.sync import Client

if TYPE_CHECKING:
    from edgenode.client.asynchronous import AsyncClient

__all__ = [
    "AsyncClient",
    "BadAnswer",
    "Client",
    "ClientError",
    "Job",
    "NoNodeReachable",
    "OutcomeUnknown",
    "Refused",
    "WaitTimedOut",
]


def __getattr__(name: str) -> object:
    # aiohttp takes a quarter of a second to import; whoever blocks anyway need not pay for it.
    if name == "AsyncClient":
        from edgenode.client.asynchronous import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
