"""Whether the mesh has room for more unfinished jobs: `--max-jobs` for each of its living nodes.

Members tell how many jobs they own with every ping. So to what they told are added the jobs that came in here
since, and those that are on their way: else whatever arrives between two counts would pass unseen, however
much it is. What other nodes let in meanwhile this one learns with the next pings: by that much the limit can
be passed for a moment.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from edgenode.api.service import Service
from edgenode.core.errors import Overloaded
from edgenode.core.types import FOREVER, Instant, Seconds

COUNT_S: Final[Seconds] = 0.2
"""How long a count is good for, as long as there is room."""
LAG_MAX_S: Final[Seconds] = 1.0
"""Jobs that came in longer ago were told of by their owners. Small meshes hear each member within 0.2 s;
what was heard even longer ago, in large ones, must not keep jobs out that may have ended since."""
FULL_AGAIN_S: Final[Seconds] = 5.0


class Room:
    """Call `check` before work is put into a request, `reserve` before its jobs are sent to their holders,
    and `settle` when it is known how many were taken."""

    def __init__(
        self, service: Service, unfinished_max: int, clock: Callable[[], Instant] = time.monotonic
    ) -> None:
        """
        Args:
            unfinished_max: jobs for each node.
        """
        self._service = service
        self._unfinished_max = unfinished_max
        self._clock = clock
        self._owned = 0  # as members told when they were counted
        self._living = 0
        self._counted_at: Instant = -FOREVER  # never
        self._coming = 0  # reserved, not settled
        self._taken: deque[tuple[Instant, int]] = deque()  # since the members told
        self._taken_count = 0

    def check(self, wanted: int = 1) -> None:
        """
        Raises:
            Overloaded: the mesh has no room for so many more.
        """
        now = self._clock()
        if now >= self._counted_at + COUNT_S or self._left() < wanted:
            self._count(now)
        if self._left() < wanted:
            raise self._refusal(wanted)

    def reserve(self, wanted: int) -> None:
        """As `check`; and so many count as unfinished from now on."""
        if wanted:
            self.check(wanted)
            self._coming += wanted

    def settle(self, wanted: int, taken: int) -> None:
        """Of `wanted` jobs that were reserved so many were taken, or may have been."""
        self._coming -= wanted
        if taken:
            self._taken.append((self._clock(), taken))
            self._taken_count += taken

    @property
    def _limit(self) -> int:
        return self._unfinished_max * self._living

    @property
    def _unfinished(self) -> int:
        return self._owned + self._coming + self._taken_count

    def _left(self) -> int:
        return self._limit - self._unfinished

    def _count(self, now: Instant) -> None:
        me = self._service.me
        living = [member for member in self._service.members() if not member.is_gone]
        self._owned = sum(member.load.owned for member in living)
        self._living = len(living)
        self._counted_at = now
        lags = (LAG_MAX_S if member.heard_s is None else member.heard_s for member in living
                if member.info.id != me)  # fmt: skip
        told_at = now - min(LAG_MAX_S, max(lags, default=0.0))
        while self._taken and self._taken[0][0] < told_at:
            self._taken_count -= self._taken.popleft()[1]

    def _refusal(self, wanted: int) -> Overloaded:
        limit = self._limit
        have = f"the mesh has {self._unfinished} unfinished jobs and takes {limit}"
        why = f"--max-jobs is {self._unfinished_max} for each of {self._living} nodes"
        if wanted > limit:
            advice = f"{wanted} more never fit: send fewer at a time"
        else:
            advice = f"there is no room for {wanted} more: send fewer, or come again when some have ended"
        text = f"{have} ({why}); {advice}. A higher --max-jobs, or more nodes, make room"
        return Overloaded(text, unfinished=self._unfinished, limit=limit, retry_after_s=FULL_AGAIN_S)
