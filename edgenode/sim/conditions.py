"""How the network and the disks behave at the moment."""

from __future__ import annotations

from dataclasses import dataclass

from edgenode.core.types import Seconds


@dataclass(slots=True)
class Conditions:
    """The defaults are good weather: a quick, orderly local network and a healthy disk."""

    loss: float = 0.0  # chance per message
    duplicate: float = 0.0  # chance per message
    late: float = 0.0  # chance per message of taking up to `late_s`
    late_s: Seconds = 0.0
    delay_s: Seconds = 0.002  # the longest an ordinary message takes
    reorder: bool = False  # messages of one link may overtake each other
    replay: float = 0.0  # chance per message that somebody sends it once more, long after
    lies: float = 0.0  # chance that a link of a living process ends with "its port refuses"
    crash: float = 0.0  # chance per effect that the process dies before it
    rare_crash: float = 0.0  # chance per situation that a process comes into for the first time
    sync_s: Seconds = 0.002  # the longest an ordinary sync takes
    slow_sync: float = 0.0  # chance per sync of taking up to `slow_sync_s`
    slow_sync_s: Seconds = 0.0
    busy: float = 0.0  # chance per event that its process is in the middle of something
    busy_s: Seconds = 0.002  # for so long at most; what comes meanwhile is taken together


def ordinary() -> Conditions:
    """Good weather, and processes that have something to do."""
    return Conditions(busy=0.1, busy_s=0.005)
