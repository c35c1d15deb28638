"""How many of a group decide for all of it: the one place that says so."""

from __future__ import annotations


def majority_of(members: int) -> int:
    """The least number that is more than half: any two such parts have a member in common."""
    return members // 2 + 1


def fast_quorum_of(members: int) -> int:
    """How many decide without a ballot: any two such parts and a majority have a member in common (Lamport,
    "Fast Paxos", 2006, section 2.2)."""
    return (3 * members + 3) // 4
