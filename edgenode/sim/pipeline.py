"""How one process carries out its effects: in order, and none past a `Persist` that is not yet durable.

The same rule as the real shell's. Writes wait for the disk in groups (one sync for all that are queued when
it begins); membership's messages alone overtake.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from edgenode.core.signals import Effect, Persist, Send


class Pipeline:
    """Effects of one life on their way out.

    Args:
        sync: begins a sync; calls back when the disk has done it.
        store: these rows are durable now.
        told: the core may know that everything up to this write is durable.
        out: this effect leaves the machine now; False if the process died of it.
        lost: this effect was behind a write that the disk refused.
    """

    def __init__(
        self,
        sync: Callable[[Callable[[], None]], None],
        store: Callable[[Persist], None],
        told: Callable[[Persist], None],
        out: Callable[[Effect], bool],
        lost: Callable[[Effect], None],
    ) -> None:
        self._sync = sync
        self._store = store
        self._told = told
        self._out = out
        self._lost = lost
        self._queue: deque[Effect] = deque()
        self._unsynced: deque[Persist] = deque()
        self._in_sync = 0  # how many of them the running sync covers
        self._durable = 0  # writes at the head of the queue that are durable
        self._dead = False
        self.refused = False
        """Whether a write failed, and the core has not been told: whatever it says means nothing."""

    def push(self, effect: Effect) -> None:
        """Take the next effect, in the order in which the core gave them."""
        if self._dead:
            return
        if self.refused and not (isinstance(effect, Send) and effect.urgent):
            self._lost(effect)
        elif isinstance(effect, Persist):
            self._queue.append(effect)
            self._unsynced.append(effect)
            self._begin_sync()
        elif self._queue and not (isinstance(effect, Send) and effect.urgent):
            self._queue.append(effect)
        else:
            self._out(effect)

    def crash(self, survivors: int) -> None:
        """The process is gone. The first `survivors` unsynced writes had reached the disk all the same."""
        self._dead = True
        self._queue.clear()
        for _ in range(min(survivors, len(self._unsynced))):
            self._store(self._unsynced.popleft())

    def refuse(self) -> None:
        """The running sync failed, and so will all others."""
        if self._dead:
            return
        behind = list(self._queue)
        self._queue.clear()
        self._unsynced.clear()
        self._in_sync = 0
        self.refused = True
        for effect in behind:
            self._lost(effect)

    @property
    def unsynced(self) -> int:
        """How many writes are not known to be durable."""
        return len(self._unsynced)

    def _begin_sync(self) -> None:
        if self._in_sync == 0 and self._unsynced:
            self._in_sync = len(self._unsynced)
            self._sync(self._synced)

    def _synced(self) -> None:
        if self._dead:
            return
        group = [self._unsynced.popleft() for _ in range(self._in_sync)]
        for persist in group:
            self._store(persist)
        self._durable += self._in_sync
        self._in_sync = 0
        self._begin_sync()
        self._told(group[-1])
        self._release()

    def _release(self) -> None:
        while self._queue:
            if isinstance(self._queue[0], Persist):
                if self._durable == 0:
                    return
                self._durable -= 1
                self._queue.popleft()
            elif not self._out(self._queue.popleft()):
                return
