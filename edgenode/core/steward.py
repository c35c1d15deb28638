"""Hands out the permits of limited queues and of concurrency keys, to their jobs' owners.

Every member is the steward of those gates for whose name it comes first in rank. It keeps nothing on disk:
what is taken is what owners say that they have (core/permits.py). So that no two stewards of one gate give
the same permit, a steward gives none before every living member has answered its *roll call*, under the same
ranking: who has answered takes no word any more from whoever was steward before. That holds whatever anybody
believes of anybody, but for two things. A member that lives, and does not answer for `WAIT_S`, is waited for
no longer. And two sides of a cut have a steward each: each side keeps the limit for itself.

When a member dies, what it ran on others goes on, and becomes its successors'. For `SETTLE_S` after a death
nothing is given, so that they can say so first.

A queue's rate is a token bucket. A new steward begins with an empty one at the moment from which it is
first in rank: a takeover costs the tokens of the time between, and never gives one twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Final

from edgenode.core.agenda import Agenda
from edgenode.core.desk import Desk
from edgenode.core.lines import Gate, queue_gate
from edgenode.core.permits import steward_of
from edgenode.core.post import WRITE_BYTES, pieces_of
from edgenode.core.queues import Queues
from edgenode.core.rendezvous import Ranking
from edgenode.core.types import FOREVER, Instant, NodeId, Seconds
from edgenode.core.wire import Allowance, Allowed, PermitItem, PermitsWanted, RollCall

WAIT_S: Final[Seconds] = 3.0
"""How long a roll call waits for a member that is not known to be dead."""
CALL_AGAIN_S: Final[Seconds] = 0.5
SETTLE_S: Final[Seconds] = 0.5
"""After a death, and after a queue got a limit: owners ask for what the dead one owned, or say what runs."""
LATE_S: Final[Seconds] = 0.1
"""Tokens of so much time wait for a request beyond the burst, lest a rate is missed for being asked late."""
BATCH_S: Final[Seconds] = 0.01
"""Tokens go out at most so often while somebody waits for more: many of them in one message."""


@dataclass(slots=True)
class Holder:
    """What one owner has said last, and was given since."""

    boot: int
    seq: int
    turn: int
    limit: int
    held: int
    want: int
    granted: int
    returned: int


@dataclass(slots=True)
class Pool:
    """One gate. `holders` are in the order in which they come next."""

    holders: dict[NodeId, Holder] = field(default_factory=dict)
    tokens: float = 0.0
    at: Instant = 0.0  # when there were so many


class Steward:
    """Drive it with messages, members and time; `serve` answers through the desk."""

    def __init__(self, desk: Desk, queues: Queues) -> None:
        self._desk = desk
        self._queues = queues
        self._pools: dict[Gate, Pool] = {}
        self._due: dict[Gate, None] = {}
        self._to_answer: dict[tuple[NodeId, Gate], None] = {}
        self._agenda: Agenda[Gate] = Agenda()
        self._ranking: Ranking | None = None
        self._ranked_at: Instant = 0.0
        self._living: dict[NodeId, int] = {}  # the others, and which life of each
        self._silent: set[NodeId] = set()  # those of them that have not answered
        self._called_at: Instant = FOREVER  # since when a roll call goes on
        self._call_at: Instant = FOREVER
        self._not_before: Instant = 0.0
        self._limited_at: dict[Gate, Instant] = {}  # queues that got a limit just now

    # ------------------------------------------------------------------------------------- messages

    def on_wanted(self, source: NodeId, message: PermitsWanted) -> None:
        if source != self._desk.me and not self._desk.view.is_living(source):
            return  # what it held is free again, and nobody would free it a second time; or it says it again
        self._look_around()
        assert self._ranking is not None
        if message.roll and message.roll == self._ranking.digest:
            self._silent.discard(source)
            if not self._silent:
                self._due.update(dict.fromkeys(self._pools))
        for item in message.items:
            if item.gate[:1] in ("q", "k") and steward_of(item.gate, self._ranking) == self._desk.me:
                self._hear(source, message.boot, item)

    def _hear(self, source: NodeId, boot: int, item: PermitItem) -> None:
        pool = self._pools.get(item.gate)
        if pool is None:
            pool = self._pools[item.gate] = Pool(at=self._ranked_at)
        before = pool.holders.get(source)
        if before is not None and (boot, item.seq) <= (before.boot, before.seq):
            return
        granted = 0
        if before is not None and (before.boot, before.turn) == (boot, item.turn):
            granted = before.granted
            pool.tokens += max(0, item.returned - before.returned)
        pool.holders[source] = Holder(
            boot, item.seq, item.turn, item.limit, item.held, item.want, granted, item.returned
        )
        self._to_answer[source, item.gate] = None
        self._due[item.gate] = None

    # -------------------------------------------------------------------------------------- giving

    def serve(self) -> bool:
        """Give what can be given, and answer. Whether anything was said."""
        if not self._due and not self._to_answer:
            return False
        self._look_around()
        due, self._due = self._due, {}
        waits = self._waits_until(due)
        for gate in due:
            pool = self._pools.get(gate)
            if pool is None:
                continue
            if waits > self._desk.now:
                self._agenda.soon(gate, waits)
            else:
                self._give(gate, pool)
        return self._answer()

    def _waits_until(self, due: Iterable[Gate]) -> Instant:
        """Until when nothing may be given. If somebody wants something of these, it is seen to."""
        pools = [pool for gate in due if (pool := self._pools.get(gate)) is not None]
        if not any(holder.want for pool in pools for holder in pool.holders.values()):
            return self._not_before
        if not self._silent:
            self._called_at = self._call_at = FOREVER
            return self._not_before
        if self._called_at == FOREVER:
            self._called_at = self._desk.now
            self._call()
        return max(self._not_before, self._called_at + WAIT_S)

    def _call(self) -> None:
        """Ask all that have not answered what they hold."""
        self._call_at = self._desk.now + CALL_AGAIN_S
        roll = self._desk.view.ranking().digest
        for node in sorted(self._silent):
            self._desk.post.send(node, RollCall(roll))

    def forget(self) -> None:
        """This node's disk takes no writes: others are stewards."""
        self._pools.clear()
        self._due.clear()
        self._to_answer.clear()
        self._agenda.clear()
        self._called_at = self._call_at = FOREVER

    def _give(self, gate: Gate, pool: Pool) -> None:
        """To each owner in turn, one by one, while there is something to give."""
        now = self._desk.now
        room, rate = self._room(gate, pool)
        limited_at = self._limited_at.get(gate, -FOREVER)
        if self._living and now < limited_at + SETTLE_S:
            self._agenda.soon(gate, limited_at + SETTLE_S)
            return
        wanting = deque(owner for owner, holder in pool.holders.items() if holder.want)
        while wanting and room >= 1 and (pool.tokens >= 1 or not rate):
            owner = wanting.popleft()
            holder = pool.holders.pop(owner)
            pool.holders[owner] = holder
            holder.want -= 1
            if room < inf:
                holder.held += 1
                room -= 1
            if rate:
                holder.granted += 1
                pool.tokens -= 1
            self._to_answer[owner, gate] = None
            if holder.want:
                wanting.append(owner)
        if wanting and rate and room >= 1:
            self._agenda.soon(gate, now + max(BATCH_S, (1 - pool.tokens) / rate))

    def _room(self, gate: Gate, pool: Pool) -> tuple[float, float]:
        """How many more may run, and at which rate they may start; rate 0 for any. Fills the bucket."""
        held = sum(holder.held for holder in pool.holders.values())
        if gate[0] == "k":
            return min((holder.limit for holder in pool.holders.values()), default=0) - held, 0.0
        item = self._queues.get(gate[1:])
        if item is None or not (item.concurrency or item.rate):
            return 0, 0.0  # its owners know of a limit that is not known here yet
        if item.rate:
            most = max(1, item.burst) + item.rate * LATE_S
            pool.tokens = min(most, pool.tokens + item.rate * (self._desk.now - pool.at))
        pool.at = self._desk.now
        return item.concurrency - held if item.concurrency else inf, item.rate

    def _answer(self) -> bool:
        answers: dict[NodeId, list[Allowance]] = {}
        boots: dict[NodeId, int] = {}
        for owner, gate in self._to_answer:
            pool = self._pools.get(gate)
            holder = None if pool is None else pool.holders.get(owner)
            if pool is None or holder is None:
                continue
            boots[owner] = holder.boot
            answers.setdefault(owner, []).append(Allowance(gate, holder.seq, holder.held, holder.granted))
            if not (holder.held or holder.want or holder.granted):
                self._release(owner, gate, pool)
        self._to_answer.clear()
        for owner, items in answers.items():
            for piece in pieces_of(items, WRITE_BYTES, self._desk.settings.batch):
                self._desk.post.send(owner, Allowed(boots[owner], tuple(piece)))
        return bool(answers)

    # -------------------------------------------------------------------- members, settings and time

    def _look_around(self) -> None:
        """See whether the members are others than before, and what this node is steward of."""
        ranking, me = self._desk.view.ranking(), self._desk.me
        if ranking is self._ranking:
            return
        self._ranking, self._ranked_at = ranking, self._desk.now
        self._silent = set(self._living)
        self._called_at = self._call_at = FOREVER
        for gate in [gate for gate in self._pools if steward_of(gate, ranking) != me]:
            del self._pools[gate]
            self._agenda.drop(gate)
        self._due.update(dict.fromkeys(self._pools))

    def members_changed(self, changed: Collection[NodeId]) -> None:
        view, me = self._desk.view, self._desk.me
        for node in changed:
            before = self._living.get(node)
            if node == me:
                continue
            if view.is_living(node):
                if before != view.boot_of(node):
                    self._living[node] = view.boot_of(node)
                    self._silent.add(node)
                    self._void(node, view.boot_of(node))
            elif before is not None:
                del self._living[node]
                self._silent.discard(node)
                if not view.has_left(node):
                    self._not_before = self._desk.now + SETTLE_S
                self._void(node, None)
        self._look_around()

    def _void(self, node: NodeId, boot: int | None) -> None:
        """What it held under another life (None: at all) is free."""
        for gate, pool in list(self._pools.items()):
            holder = pool.holders.get(node)
            if holder is not None and holder.boot != boot:
                self._release(node, gate, pool)
                self._due[gate] = None

    def _release(self, owner: NodeId, gate: Gate, pool: Pool) -> None:
        """This owner has nothing any more. A key that nobody else uses is forgotten then, for there is no end
        of keys. (A queue has tokens.)"""
        del pool.holders[owner]
        if not pool.holders and gate[0] == "k":
            del self._pools[gate]

    def queue_changed(self, queue: str) -> None:
        gate, item = queue_gate(queue), self._queues.get(queue)
        if item is None or not (item.concurrency or item.rate):
            self._pools.pop(gate, None)
            self._limited_at.pop(gate, None)
            self._agenda.drop(gate)
        else:
            if item.concurrency:
                self._limited_at.setdefault(gate, self._desk.now)
            else:
                self._limited_at.pop(gate, None)
            self._due[gate] = None

    def deadline(self) -> Instant:
        return min(self._agenda.next(), self._call_at)

    def on_time(self) -> None:
        now = self._desk.now
        self._due.update(dict.fromkeys(self._agenda.take_due(now)))
        if self._call_at <= now:
            self._call_at = FOREVER
            if self._silent:
                self._call()
