"""Long work on behalf of a request: in pieces between turns of the event loop, or beside it in a thread.

Peers ping this node over the same loop: whatever holds it up for long makes the node look dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Final, TypeVar, TypeVarTuple

from edgenode.core.types import Seconds

TURN_S: Final[Seconds] = 0.003
"""Of work between two turns of the event loop."""
VALUES_MAX: Final = 2_000
"""More of them in one document take longer than a turn to be checked."""
Result = TypeVar("Result")
Given = TypeVarTuple("Given")


class Turns:
    """Knows when it is the event loop's turn again: by time, as one job may be a thousand times another."""

    def __init__(self) -> None:
        self._ends_at = perf_counter() + TURN_S

    def is_due(self) -> bool:
        return perf_counter() >= self._ends_at

    async def give(self) -> None:
        await asyncio.sleep(0)
        self._ends_at = perf_counter() + TURN_S


class Aside:
    """A thread for what takes longer than a turn and has no pieces. One thing at a time: whatever runs in a
    thread takes the interpreter from the event loop now and then."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def run(self, work: Callable[[*Given], Result], *given: *Given) -> Result:
        async with self._lock:
            return await asyncio.to_thread(work, *given)


def is_large(document: object) -> bool:
    """Whether a document has more than VALUES_MAX values; how long a text is does not matter."""
    count, left = 1, [document]
    while left:
        value = left.pop()
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        count += len(inner)
        if count > VALUES_MAX:
            return True
        left += [each for each in inner if isinstance(each, dict | list)]
    return False
