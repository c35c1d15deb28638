"""What time it is: the median of the members' wall clocks, so that no single wrong clock ends anybody's job.

A clock reading is kept as how far it is ahead of this process's monotonic clock, which never jumps; so a
reading of a minute ago is as good as one of now, and that of a member that died since still counts.

    own       the wall clock of this machine; if it shows less than the latest mesh time on this disk, that
              (power was lost, and the battery of the clock is flat), unless the others agree with it
    median    of own and of every member heard, also of the dead until they are forgotten
    trusted   a majority of all known members, this one included, lie within the tolerance of the median (or
              half of them, when others are silent: fewer than half are wrong); in a large mesh, of which a
              node hears a part only, a majority of `COUNTED_MAX`
    wall      the median, but it never goes back: where it would, it goes at half the pace until they meet

    sure      the median, where it is trusted; nothing else is

Who is not trusted runs jobs as ever, and decides nothing that can't be taken back: it lets no job expire and
deletes nothing. Nor does anybody by a mesh clock that is ahead of the median. The reading of a peer is
corrected by half a round trip, as in Cristian, "Probabilistic clock synchronization", 1989; better is not
needed where the tolerance is minutes.
"""

from __future__ import annotations

from statistics import median
from typing import Final

from edgenode.core.quorums import majority_of
from edgenode.core.types import FOREVER, Instant, NodeId, Seconds, Wall

FAR_FUTURE: Final[Wall] = 1e11
"""Some 3,000 years: no clock shows more, and a median of two is not to be infinite."""
COUNTED_MAX: Final = 33
"""Members that the majority is counted of. If fewer than a tenth of the clocks of a large mesh are wrong, 17
wrong ones agree among those heard first once in 10^9 starts."""
SLEW: Final = 0.5
"""The pace of a mesh clock that is ahead of the median."""


class MeshClock:
    """Feed it every reading; ask `wall` and `trusted`. It is monotone, but for one case: when a majority
    agrees that it was far ahead (this machine's clock before it met the others, or a crowd of clocks that was
    put right) it is set back.

    Args:
        skew_max_s: how far two members' clocks may differ; each may be off by half of it.
        hold_s: how long, after a start, the time on disk goes on while too few clocks were heard.
    """

    def __init__(self, *, skew_max_s: Seconds = 600.0, hold_s: Seconds = 0.0) -> None:
        self._tolerance_s = skew_max_s / 2
        self._hold_s = hold_s
        self._heard: dict[NodeId, Seconds | None] = {}  # known members; None: its clock was not heard yet
        self._raw_ahead: Seconds | None = None
        self._floor_ahead: Seconds = -FOREVER
        self._hold_ends: Instant = -FOREVER
        self._own_ahead: Seconds = 0.0
        self._ahead: Seconds = 0.0  # the median
        self._anchor: tuple[Instant, Wall] | None = None  # from where the clock goes at half the pace
        self._readings = 0
        self._agreeing = 0
        self._is_fresh = True  # nobody was shown a time yet
        self.is_far = False
        """Whether this machine's clock is farther from the median than is allowed."""

    # ---------------------------------------------------------------------------------------- readings

    def read(self, wall: Wall, now: Instant) -> None:
        """This machine's wall clock shows `wall`."""
        self._raw_ahead = min(wall, FAR_FUTURE) - now
        self._refresh(now)

    def remember(self, wall: Wall, now: Instant) -> None:
        """The disk says that it was this late once; 0 if it says nothing."""
        if wall > 0:
            self._floor_ahead = min(wall, FAR_FUTURE) - now
            self._hold_ends = now + self._hold_s
            self._is_fresh = True
            self._refresh(now)

    def met(self, node: NodeId) -> None:
        """There is such a member: its clock is one of those that the majority is counted of."""
        self._heard.setdefault(node, None)

    def hear(self, node: NodeId, wall: Wall, now: Instant, *, round_trip_s: Seconds = 0.0) -> None:
        """A member's own reading (`told`) arrived, as the answer to a question asked a round trip ago."""
        if node in self._heard and 0 < wall < FAR_FUTURE:
            is_first = self._heard[node] is None
            self._heard[node] = wall + round_trip_s / 2 - now
            if is_first:
                self._refresh(now)

    def forget(self, node: NodeId) -> None:
        self._heard.pop(node, None)

    # ----------------------------------------------------------------------------------------- answers

    def wall(self, now: Instant) -> Wall:
        """The mesh's time: for every day that is written into a record or compared with one."""
        shown = now + self._ahead
        if self._anchor is None:
            return shown
        since, wall = self._anchor
        return max(shown, wall + (now - since) * SLEW)

    def told(self, now: Instant) -> Wall:
        """What this node says its own clock shows; 0 if it has not read it yet."""
        return 0.0 if self._raw_ahead is None else now + self._own_ahead

    def sure(self, now: Instant) -> Wall:
        """Up to when this node may let jobs expire and delete what is over; -FOREVER if it may not at all.

        It is the median, and so never later than `wall`, which can wait for the clocks to catch up.
        """
        is_known = self._raw_ahead is not None and not self.is_far and self._is_majority(self._agreeing)
        return now + self._ahead if is_known else -FOREVER

    def trusted(self, now: Instant) -> bool:
        """Whether `wall` is near what the clocks show, and they agree."""
        return self.wall(now) - self.sure(now) <= self._tolerance_s

    def ahead(self, node: NodeId) -> Seconds | None:
        """How far another member's clock is ahead of the mesh's; None if it was not heard."""
        heard = self._heard.get(node)
        return None if heard is None else heard - self._ahead

    def agrees(self, node: NodeId) -> bool:
        """Whether a member's clock was heard, and is near the mesh's time."""
        ahead = self.ahead(node)
        return ahead is not None and abs(ahead) <= self._tolerance_s

    @property
    def own_ahead(self) -> Seconds:
        """How far this machine's clock, as it is, is ahead of the mesh's."""
        return 0.0 if self._raw_ahead is None else self._raw_ahead - self._ahead

    # --------------------------------------------------------------------------------------- the median

    def _refresh(self, now: Instant) -> None:
        """Take the readings as they are now into account."""
        if self._raw_ahead is None:
            return
        before = self.wall(now)
        others = [ahead for ahead in self._heard.values() if ahead is not None]
        self._own_ahead = self._own(self._raw_ahead, others)
        readings = [self._own_ahead, *others]
        self._readings = len(readings)
        self._ahead = median(readings)
        self._agreeing = sum(abs(ahead - self._ahead) <= self._tolerance_s for ahead in readings)
        self.is_far = abs(self._own_ahead - self._ahead) > self._tolerance_s
        if now < self._hold_ends and not self._is_majority(len(readings)):
            # Its own clock alone says too little: a wrong one would start jobs before their day.
            self._ahead = self._floor_ahead
        gap_s = before - (now + self._ahead)
        if self._is_fresh or gap_s <= 0:
            self._anchor = None
        elif gap_s > 2 * self._tolerance_s and self._heard and self._is_majority(self._agreeing):
            self._anchor = None  # it was not the mesh's time
        else:
            self._anchor = (now, before)
        self._is_fresh = False

    def _is_majority(self, count: int) -> bool:
        known = min(1 + len(self._heard), COUNTED_MAX)
        is_half = count >= 2 and 2 * count == known and 2 * count > self._readings
        return count >= majority_of(known) or is_half

    def _own(self, raw_ahead: Seconds, others: list[Seconds]) -> Seconds:
        """This machine's clock, or the time on its disk where that is later and nobody contradicts."""
        if raw_ahead >= self._floor_ahead:
            return raw_ahead
        if others and abs(median(others) - raw_ahead) <= self._tolerance_s:
            return raw_ahead
        return self._floor_ahead
