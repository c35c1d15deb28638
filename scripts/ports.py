"""Ports of this machine that no other mesh gets while somebody has them.

A node binds its ports itself, a while after they were chosen: they cannot be held for it. The UDP port of the
same number can, and is the lock that all scripts and tests which start meshes see. It goes with its process.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterable, Sequence
from typing import Final

from edgenode.cli.up import PEER_OFFSET
from edgenode.core.errors import EdgeNodeError

PORT_MIN: Final = 10_000
PORT_MAX: Final = 32_000
"""Below the range from which the kernel takes ports of its own."""
STEP: Final = 100
TRIES: Final = 1000


class NoPorts(EdgeNodeError):
    """There are not so many free ports."""

    status, slug, title = 500, "no-ports", "There are no free ports"


class Ports:
    """Those that were taken, until `close`; a context manager."""

    def __init__(self) -> None:
        self._locks: list[socket.socket] = []
        self._dice = random.Random(os.urandom(8))

    def __enter__(self) -> Ports:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give all back. Calling it twice is fine."""
        for lock in self._locks:
            lock.close()
        self._locks.clear()

    def take(self) -> int:
        """One, by chance."""
        return self.take_all((0,))

    def take_all(self, offsets: Sequence[int]) -> int:
        """The base of a block, by chance: all of base + offset are free.

        Raises:
            NoPorts: none was found.
        """
        highest = PORT_MAX - max(offsets)
        return self._first(
            (self._dice.randrange(PORT_MIN, highest) for _ in range(TRIES)), offsets, "by chance"
        )

    def take_mesh(self, nodes: int, first: int) -> int:
        """The lowest of first, first + 100, ... above which so many API and peer ports are free.

        Raises:
            NoPorts: there is none.
        """
        numbers = range(1, nodes + 1)
        offsets = [*numbers, *(PEER_OFFSET + number for number in numbers)]
        bases = range(first, PORT_MAX - PEER_OFFSET - nodes, STEP)
        return self._first(bases, offsets, f"from {first} on")

    def _first(self, bases: Iterable[int], offsets: Sequence[int], where: str) -> int:
        for base in bases:
            locks: list[socket.socket] = []
            if all(_lock(base + offset, locks) for offset in offsets):
                self._locks += locks
                return base
            for lock in locks:
                lock.close()
        raise NoPorts(f"no {len(offsets)} ports are free {where}")


def _lock(port: int, locks: list[socket.socket]) -> bool:
    """Whether a node can listen there and nobody is to; adds the lock to `locks`."""
    lock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    locks.append(lock)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the nodes do
        try:
            lock.bind(("127.0.0.1", port))
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
