"""What was written in the name of each identity, and whether the disk that speaks for it knows of that.

A disk that was put back from a backup, or copied, must not vote: a promise that it forgot would be broken. It
is found out by the members that remember its word (core/vouching.py). If none of those can be reached it
votes all the same, as the README says, and nothing is promised of what comes then.
"""

from __future__ import annotations

from collections import defaultdict

from edgenode.core.types import NodeId, Past, Word
from edgenode.core.vouching import unknown_word


class Forfeited(Exception):
    """A disk that was put back, or copied, has a vote, and nobody who could be asked knew better. The run is
    no evidence of anything from here on."""


def forfeit(why: str) -> None:
    """End the run."""
    raise Forfeited(why)


class Identities:
    """Hears of every write, and knows whose disks were tampered with."""

    def __init__(self) -> None:
        self._written: defaultdict[NodeId, dict[int, int]] = defaultdict(dict)  # by life
        self.doubtful: set[NodeId] = set()  # the places of disks that were put back or copied, or are copies

    def wrote(self, node: NodeId, boot: int, number: int) -> None:
        """So many writes of a life of `node` were on a disk."""
        self._written[node][boot] = number

    def unknown_to(self, node: NodeId, boot: int, past: Past) -> Word | None:
        """Writes in the name of this identity that a life which began on this disk knows nothing of."""
        written = (Word(each, number) for each, number in self._written[node].items() if each != boot)
        return unknown_word(past, written)
