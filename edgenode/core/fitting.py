"""Which members could run a job, as somebody sees them who is asked why it has not started."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from edgenode.core.lines import Kind
from edgenode.core.types import Load, MemberState
from edgenode.core.view import MemberView

TAKING: Final = frozenset({MemberState.READY, MemberState.SUSPECT})
AWAY_MAX: Final = 3
"""Nodes that are named which have a task, but take no jobs."""
UNHEARD: Final = Load()
"""The load of a member that has not told of it yet: it may be idle."""


class Lack(NamedTuple):
    """What jobs of one kind wait for, in words; None if that is not so."""

    ability: str | None  # no member has what they need
    slot: str | None  # those that have it are busy


def lack_of(kind: Kind, members: Sequence[MemberView]) -> Lack:
    """What no member has that could run such a job, or what none of those has free."""
    taking = [member for member in members if member.state in TAKING and member.info.ready]
    having = [member for member in taking if kind.task in member.info.tasks]
    if not having:
        text = f"a node with the task {kind.task!r}: none of {len(taking)} that are ready has it"
        away = [f"{m.info.name} is {m.state_text}" for m in members if kind.task in m.info.tasks]
        return Lack(text + (f" ({', '.join(away[:AWAY_MAX])})" if away else ""), None)
    fitting = [member for member in having if set(kind.requires) <= set(member.info.labels)]
    if not fitting:
        wanted = ", ".join(f"{label}={value}" for label, value in kind.requires)
        text = f"a node with {wanted}: none of {len(having)} that are ready and have the task has that"
        return Lack(text, None)
    is_busy = all(_is_busy(member, kind.task) for member in fitting)
    return Lack(None, f"a free slot on one of {len(fitting)} nodes" if is_busy else None)


def _is_busy(member: MemberView, task: str) -> bool:
    """Whether it has no slot of this task's kind free."""
    free = member.load.free_of(member.info.room)
    is_coroutine = task in member.info.coroutines
    return member.load != UNHEARD and (free.async_slots if is_coroutine else free.slots) <= 0
