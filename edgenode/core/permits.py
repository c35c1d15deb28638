"""An owner's leave to start jobs of limited queues, and of concurrency keys.

Each limited queue, and each key, has a *steward*: the first of the members in the rank of its name, as for a
job. Owners tell it how many starts they have and wish for; it tells them how many they may have. Nothing of
this is on a disk: what runs is known to its owners, and whoever becomes steward asks them (core/steward.py).

What an owner says of a gate is always the whole state, numbered: only an answer to the latest of it counts.
So a message that is lost, doubled or late can only make the steward believe that more is taken than is, until
the owner says it again. A start that goes on from another owner (a takeover) counts from when it is known,
whatever the limit says. A permit goes back to the steward with the end of its start, so that owners take
turns; one that was given and is of no use here goes back after `HOLD_S`.

Of a queue with a rate each start costs a token. `granted`, `spent` and `returned` only grow, and count from
the owner's first word to this steward (`turn`): to say it twice gives no token twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple

from edgenode.core.agenda import Agenda
from edgenode.core.desk import Desk
from edgenode.core.lines import Gate, Need, key_gate, queue_gate
from edgenode.core.post import WRITE_BYTES, pieces_of
from edgenode.core.queues import Queues
from edgenode.core.rendezvous import Ranking
from edgenode.core.types import FOREVER, NOBODY, Hash64, Instant, JobId, NodeId, Seconds
from edgenode.core.wire import Allowed, PermitItem, PermitsWanted

HAND_OVER_S: Final[Seconds] = 1.0
HOLD_S: Final[Seconds] = 0.1
"""How long a permit waits here for a slot."""
HOPE_S: Final[Seconds] = 0.5
"""How long a steward's answer is waited for, with a slot kept free, or with the permit of a key for the one
of its job's queue: more than a round trip to any member."""
HOPES_MAX: Final = 4
"""Slots that are kept free for the jobs of one gate."""


def steward_of(gate: Gate, ranking: Ranking) -> NodeId:
    """Who hands out the permits of a gate; NOBODY if no member is ready."""
    if not ranking.members:
        return NOBODY
    return ranking.rank(JobId(blake2b(gate.encode(), digest_size=16).digest()))[0]


def gates_of(need: Need) -> tuple[Gate, ...]:
    """What a job has to pass: its key first, so that a queue's permit is never held up by a key."""
    return (key_gate(need.key), queue_gate(need.queue)) if need.key else (queue_gate(need.queue),)


@dataclass(slots=True)
class Account:
    """One gate, as this owner stands with its steward."""

    steward: NodeId = NOBODY
    boot: int = 0  # the steward's life
    turn: int = 0  # the number of what was said first to it; 0: nothing yet
    seq: int = 0  # of what was said last
    limit: int = 0  # of a key, the smallest that is known here; 0 for a queue
    allowed: int = 0  # starts that run or may
    want: int = 0  # starts that are wished for beyond that
    granted: int = 0  # tokens
    spent: int = 0
    returned: int = 0
    is_answered: bool = True
    pause_s: Seconds = 0.0  # until it is said again
    idle_at: Instant = FOREVER  # what is of no use by then goes back

    @property
    def tokens(self) -> int:
        return self.granted - self.spent - self.returned


class Hope(NamedTuple):
    """Of an answer that may bring so many permits, until then."""

    permits: int
    until: Instant


class Permits:
    """Ask it before a start (`admit`), tell it of each start and each end; `say` posts what is new.

    `take_opened` has the gates at which another try is of use.
    """

    def __init__(self, desk: Desk, queues: Queues) -> None:
        self._desk = desk
        self._queues = queues
        self._started: dict[JobId, tuple[Need, int]] = {}  # what runs, or is about to, for this owner
        self._used: Counter[Gate] = Counter()
        self._limits: dict[Gate, Counter[int]] = {}  # of keys: those that jobs brought which are not over
        self._accounts: dict[Gate, Account] = {}
        self._unsaid: dict[Gate, None] = {}
        self._hopes: dict[Gate, Hope] = {}  # where an answer is waited for
        self._opened: dict[Gate, None] = {}
        self._agenda: Agenda[Gate] = Agenda()
        self._handed: Agenda[JobId] = Agenda()  # of `started`: what others are to own by then
        self._called: dict[NodeId, Hash64] = {}  # roll calls under a ranking that is not (yet) ours
        self._roll: dict[NodeId, Hash64] = {}  # roll calls to be answered
        self._ranking: Ranking | None = None
        self._seq = 0

    # ------------------------------------------------------------------------------- starts and ends

    def used(self, gate: Gate) -> int:
        """How many starts of this owner passed a gate, and are not over."""
        return self._used[gate]

    def running(self) -> dict[str, int]:
        """How many starts of this owner are not over, by queue."""
        return {gate[1:]: count for gate, count in self._used.items() if gate[0] == "q" and count}

    def is_free(self, need: Need) -> bool:
        """Whether nothing but a slot is needed."""
        return (
            not need.key and need.queue not in self._queues.paused and not self._queues.is_limited(need.queue)
        )

    def admit(self, job: JobId, need: Need, limit: int) -> Gate | None:
        """Let a job start; or say which gate it has to wait at."""
        for gate in gates_of(need):
            if gate[0] == "k":
                self._narrow(gate, self._account(gate), limit)
            if self._is_limited(gate) and not self._may_pass(gate):
                return gate
        self._enter(job, need, limit)
        gate = queue_gate(need.queue)
        if self._is_rated(gate):
            self._accounts[gate].spent += 1
        return None

    def began(self, job: JobId, need: Need, limit: int) -> None:
        """A job of this owner runs that was not admitted here: another owner began it, or an earlier life."""
        self._handed.drop(job)
        if job in self._started:
            return
        for gate in gates_of(need):
            if self._is_counted(gate):
                account = self._account(gate)
                account.allowed += 1  # this one was given to somebody else
                if gate[0] == "k":
                    self._narrow(gate, account, limit)
                self._unsaid[gate] = None
        self._enter(job, need, limit)

    def ended(self, job: JobId, *, is_void: bool = False) -> None:
        """Its start is over, or this node owns it no longer. `is_void`: it never began."""
        started = self._started.pop(job, None)
        if started is None:
            return
        need, limit = started
        self._handed.drop(job)
        for gate in gates_of(need):
            self._used[gate] -= 1
            if not self._used[gate]:
                del self._used[gate]
            if gate[0] == "k":
                self._forget_limit(gate, limit)
            account = self._accounts.get(gate)
            if account is None:
                continue
            if is_void and self._is_rated(gate) and account.spent:
                account.spent -= 1
                account.idle_at = self._desk.now + HOLD_S
                self._agenda.soon(gate, account.idle_at)
                self._opened[gate] = None
            if self._is_counted(gate):
                account.allowed = max(self._used[gate], account.allowed - 1)
                self._unsaid[gate] = None
                if account.want:  # what goes back may come again, for the slot that is free now
                    self._hope(gate, 1)
                    self._opened[gate] = None
            elif account.is_answered:
                self._plan(gate, account)

    def hand_over(self, job: JobId) -> None:
        """Another node is to own a job whose start goes on. It counts here until that one can have said so:
        between the word that gives a job away and the last one that its next owner needs are messages."""
        if job in self._started:
            self._handed.set(job, self._desk.now + HAND_OVER_S)

    def wish(self, gate: Gate, count: int) -> None:
        """So many jobs (>= 1) could start now, but for this gate."""
        account = self._account(gate)
        if count > account.want:
            self._hope(gate, count - account.want)
            account.want = count
            self._unsaid[gate] = None

    def hopes(self, gate: Gate) -> int:
        """How many permits of this gate an answer may bring that is under way: a slot for each is worth
        keeping. Else jobs that need none would have it every time, and the permit find none."""
        hope = self._hopes.get(gate)
        return 0 if hope is None or hope.until <= self._desk.now else hope.permits

    @property
    def is_hoping(self) -> bool:
        """Whether some answer is waited for."""
        return bool(self._hopes)

    def _hope(self, gate: Gate, count: int) -> None:
        self._hopes[gate] = Hope(min(HOPES_MAX, count), self._desk.now + HOPE_S)

    def _enter(self, job: JobId, need: Need, limit: int) -> None:
        if job in self._started:
            self.ended(job)  # a start of another life of its key, which gave way before it began
        self._started[job] = need, limit
        for gate in gates_of(need):
            self._used[gate] += 1
            if gate[0] == "k":
                self._limits.setdefault(gate, Counter())[limit] += 1

    def _narrow(self, gate: Gate, account: Account, limit: int) -> None:
        """Of several limits for one key the smallest counts: of the jobs that run, and the next one."""
        lowest = min(limit, *self._limits.get(gate, (limit,)))
        if account.limit != lowest:
            account.limit = lowest
            self._unsaid[gate] = None

    def _forget_limit(self, gate: Gate, limit: int) -> None:
        limits = self._limits[gate]
        limits[limit] -= 1
        if not limits[limit]:
            del limits[limit]
            if not limits:
                del self._limits[gate]

    def _is_limited(self, gate: Gate) -> bool:
        return gate[0] == "k" or self._queues.is_limited(gate[1:])

    def _may_pass(self, gate: Gate) -> bool:
        account = self._accounts.get(gate)
        if account is None:
            return False
        if self._is_counted(gate) and not self._spare(gate, account):
            return False
        if gate[0] == "k" and self._used[gate] >= account.limit:
            return False  # what was allowed under a higher limit
        return account.tokens > 0 or not self._is_rated(gate)

    def _is_counted(self, gate: Gate) -> bool:
        """Whether only so many may run at a time."""
        if gate[0] == "k":
            return True
        item = self._queues.get(gate[1:])
        return item is not None and item.concurrency > 0

    def _is_rated(self, gate: Gate) -> bool:
        item = self._queues.get(gate[1:]) if gate[0] == "q" else None
        return item is not None and item.rate > 0

    def _spare(self, gate: Gate, account: Account) -> int:
        """Permits that no start uses."""
        return account.allowed - self._used[gate] if self._is_counted(gate) else 0

    def _account(self, gate: Gate) -> Account:
        account = self._accounts.get(gate)
        if account is None:
            account = self._accounts[gate] = Account(allowed=self._used[gate])
        return account

    def queue_changed(self, queue: str) -> None:
        """The limits of a queue are others, maybe none."""
        gate = queue_gate(queue)
        self._opened[gate] = None
        if not self._queues.is_limited(queue):
            self._accounts.pop(gate, None)
            self._hopes.pop(gate, None)
            self._agenda.drop(gate)
        elif self._used[gate] or gate in self._accounts:
            account = self._account(gate)
            # Of what is not counted nobody has permits, which would be some when it is counted again.
            account.allowed = max(account.allowed, self._used[gate]) if self._is_counted(gate) else 0
            self._unsaid[gate] = None

    def take_opened(self) -> Sequence[Gate]:
        opened = list(self._opened)
        self._opened.clear()
        return opened

    # ------------------------------------------------------------------------------- to the stewards

    def say(self) -> bool:
        """Post what the stewards have to know. Whether there was anything."""
        self._look_around()
        if not self._unsaid and not self._roll:
            return False
        desk = self._desk
        said: dict[NodeId, list[PermitItem]] = {steward: [] for steward in self._roll}
        for gate in self._unsaid:
            account = self._accounts.get(gate)
            if account is not None and account.steward != NOBODY:
                said.setdefault(account.steward, []).append(self._item(gate, account))
        self._unsaid.clear()
        for steward, items in said.items():
            *pieces, last = pieces_of(items, WRITE_BYTES, desk.settings.batch)
            for piece in pieces:
                desk.post.send(steward, PermitsWanted(desk.view.boot, Hash64(0), tuple(piece)))
            roll = self._roll.get(steward, Hash64(0))  # answered when all is said
            desk.post.send(steward, PermitsWanted(desk.view.boot, roll, tuple(last)))
        self._roll.clear()
        return bool(said)

    def _item(self, gate: Gate, account: Account) -> PermitItem:
        self._seq += 1
        account.seq = self._seq
        account.turn = account.turn or self._seq
        account.is_answered = False
        settings = self._desk.settings
        account.pause_s = min(max(settings.retry_s, account.pause_s * 2), settings.retry_max_s)
        self._agenda.soon(gate, self._desk.now + account.pause_s)
        limit, held = account.limit, account.allowed if self._is_counted(gate) else 0
        return PermitItem(gate, account.seq, account.turn, limit, held, account.want, account.returned)

    def _look_around(self) -> None:
        """See whether other members are stewards than before."""
        ranking = self._desk.view.ranking()
        if ranking is not self._ranking:
            self._ranking = ranking
            for gate in self._accounts:
                self._look_at_steward(gate)
            for caller, roll in list(self._called.items()):
                self.on_roll_call(caller, roll)
        for gate in self._unsaid:
            if gate in self._accounts:
                self._look_at_steward(gate)

    def _look_at_steward(self, gate: Gate) -> None:
        assert self._ranking is not None
        account, view = self._accounts[gate], self._desk.view
        steward = steward_of(gate, self._ranking)
        boot = view.boot if steward == self._desk.me else view.boot_of(steward)
        if (account.steward, account.boot) != (steward, boot):
            account.steward, account.boot, account.turn, account.pause_s = steward, boot, 0, 0.0
            account.granted = account.spent = account.returned = 0
            account.allowed = self._used[gate]
            self._unsaid[gate] = None

    def members_changed(self, changed: Collection[NodeId]) -> None:
        """Some may live again, under another boot."""
        if any(account.steward in changed for account in self._accounts.values()):
            self._ranking = None

    # ------------------------------------------------------------------------------------- messages

    def on_roll_call(self, source: NodeId, roll: Hash64) -> None:
        """A steward wants to know what is held here of what it hands out, under the ranking that it knows."""
        ranking = self._desk.view.ranking()
        if ranking.digest != roll:
            self._called[source] = roll  # one of us does not know yet who is there
            return
        self._called.pop(source, None)
        self._roll[source] = roll
        for gate in self._accounts:
            if steward_of(gate, ranking) == source:
                self._unsaid[gate] = None

    def on_allowed(self, source: NodeId, message: Allowed) -> None:
        if message.boot != self._desk.view.boot:
            return
        for item in message.items:
            account = self._accounts.get(item.gate)
            if account is None and (item.held or item.granted):
                # An old word of this node's came late, and has taken what nobody here wants: it is said so.
                self._account(item.gate)
                self._unsaid[item.gate] = None
            if account is None or account.steward != source or account.seq != item.seq:
                continue
            account.is_answered = True
            account.pause_s = 0.0
            self._hopes.pop(item.gate, None)
            if item.granted < account.granted:
                # It took this node for dead, and counts from nothing: so must this node, in another turn.
                account.turn = account.granted = account.spent = account.returned = 0
                self._unsaid[item.gate] = None
                continue
            gained = max(item.held - account.allowed, item.granted - account.granted)
            account.allowed = max(account.allowed, item.held)
            account.granted = max(account.granted, item.granted)
            if gained > 0:
                account.want = max(0, account.want - gained)
                account.idle_at = self._desk.now + (HOPE_S if item.gate[0] == "k" else HOLD_S)
                self._opened[item.gate] = None
            self._plan(item.gate, account)

    def _plan(self, gate: Gate, account: Account) -> None:
        """When this gate needs to be looked at again; an account of which nothing is left is closed."""
        is_idle = self._spare(gate, account) > 0 or account.tokens > 0
        if account.is_answered and not (self._used[gate] or account.want or is_idle):
            del self._accounts[gate]
            self._agenda.drop(gate)
        elif account.is_answered:
            again_at = self._desk.now + self._desk.settings.retry_max_s if account.want else FOREVER
            self._agenda.set(gate, min(again_at, account.idle_at if is_idle else FOREVER))

    # ----------------------------------------------------------------------------------------- time

    def deadline(self) -> Instant:
        return min(self._agenda.next(), self._handed.next())

    def on_time(self) -> None:
        for job in self._handed.take_due(self._desk.now):
            self.ended(job)
        for gate in self._agenda.take_due(self._desk.now):
            account = self._accounts.get(gate)
            if account is None:
                continue
            is_idle = self._spare(gate, account) > 0 or account.tokens > 0
            if is_idle and account.idle_at <= self._desk.now:
                account.allowed = self._used[gate]
                account.returned += max(0, account.tokens)
                account.want, account.idle_at = 0, FOREVER
                self._opened[gate] = None  # whoever has a use for it asks anew
            self._unsaid[gate] = None
