"""One object for all equal ones: a million jobs that wait alike take no more memory for that than one."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

KINDS_MAX: Final = 1_000
"""So many different ones are known; more than that are not alike enough to be worth it."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Shared(Generic[K, V]):
    """The one of each kind that is to be used. It keeps none alive for long that nobody else has."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[K, V] = {}

    def one(self, kind: K, made: V) -> V:
        """What was made first of this kind: `made`, if that is the first."""
        if len(self._known) > KINDS_MAX:
            self._known.clear()
        return self._known.setdefault(kind, made)
