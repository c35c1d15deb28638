"""Whether this node's disk is the latest of its identity; and what is remembered of the others' disks.

A disk that was put back from a backup, or copied, forgets what its node has promised. It must not vote: the
same holder would stand behind two owners. The disk itself cannot know, so the others are asked. Each member
remembers, of every life that gave it its word (a promise, an acknowledgement, a write), how many writes of
that life the word rests on. A node that starts asks for that before anything it says may count:

    unknown --all that may be there have told, and the disk knows of all they told--> it has a vote
    unknown, or with a vote --somebody has the word of a life, or of writes, that the disk knows nothing of-->
        behind: the disk is marked, and the node begins a new life without a vote
    any --another process with this identity lives--> one of the two ends

Which one: the one with the lower number, unless the other has not had a vote yet and finds the peers linked
to this one. So a copy that is started by mistake is sent away by everybody, and does no harm to the original:
of a life that never had a vote nobody has a word. But two copies that each had a vote, on two sides of a cut,
leave one process that is behind, whatever its number: it does not know what was said in its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgpack

from edgenode.core.quorums import majority_of
from edgenode.core.settings import VouchingSettings
from edgenode.core.signals import Behind, Cloned, Effect, Log, RememberWords, Send
from edgenode.core.types import FOREVER, Instant, NodeId, Past, Seconds, Word, starts_of
from edgenode.core.view import Standing, View
from edgenode.core.wire import Recall, Recalled

LIVES_TOLD: Final = 8
"""Lives of one identity that are named in a question, and remembered of a member: the latest ones. Who meets
somebody again after more restarts than that is told nothing new by older ones."""

Written = dict[int, int]
"""By life, how many writes its word rests on."""


def unknown_word(past: Past, words: Iterable[Word]) -> Word | None:
    """A word that this disk knows nothing of, if there is one among the words.

    Lives from before the first one that the disk names are left alone: it has forgotten their numbers only.
    """
    known = dict(past)
    for word in words:
        if word.boot in known:
            if word.written > known[word.boot]:
                return word
        elif not past or starts_of(word.boot) >= starts_of(past[0].boot):
            return word
    return None


class Witness:
    """What this node remembers of the others' lives. Bounded; the identities heard of last are kept."""

    def __init__(self, identities_max: int) -> None:
        self._identities_max = identities_max
        self._words: dict[NodeId, Written] = {}
        self.changes = 0  # new lives and higher words, ever

    def note(self, node: NodeId, boot: int, written: int) -> None:
        """`node`, in its life `boot`, gave its word on that many writes."""
        words = self._words.get(node)
        if words is None:
            if len(self._words) >= self._identities_max:
                del self._words[next(iter(self._words))]
            words = self._words[node] = {}
        if written > words.get(boot, 0):
            if boot not in words:
                self._words[node] = self._words.pop(node)  # heard of last
                if len(words) >= LIVES_TOLD:
                    del words[min(words)]
            words[boot] = written
            self.changes += 1

    def words(self, node: NodeId) -> tuple[Word, ...]:
        return tuple(Word(boot, written) for boot, written in sorted(self._words.get(node, {}).items()))

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb([(node, *map(tuple, self.words(node))) for node in self._words])
        return packed

    def unpack(self, packed: bytes) -> None:
        """Add what `pack` made. Raises ValueError if it did not."""
        try:
            for node, *words in msgpack.unpackb(packed) if packed else ():
                for boot, written in words:
                    self.note(NodeId(node), int(boot), int(written))
        except (TypeError, ValueError, msgpack.UnpackException) as error:
            raise ValueError(f"not the words of members: {error}") from error


class Vouching:
    """Drive it with links, messages and time; `check` says when this disk turns out to have a vote.

    Promises: `has_vote` is False until everybody who may be there was heard, and for ever on a disk that is
    behind. After `Behind` or `Cloned` the node must be driven no further.
    """

    def __init__(self, view: View, settings: VouchingSettings, *, behind: bool, grace_s: Seconds) -> None:
        """
        Args:
            grace_s: how long members without a link are waited for that others say are alive.
        """
        self._view = view
        self._grace_s = grace_s
        self._grace_ends: Instant = FOREVER
        self._is_grace_over = False
        self._settings = settings
        self._witness = Witness(settings.identities_max)
        self._past: Past | None = None
        self._is_behind = behind
        self.has_vote = not behind
        self._told: set[NodeId] = set()
        self._linked: set[NodeId] = set()
        self.unheard: set[NodeId] = set()
        """Who has not told since its link came up: nothing that needs a vote may be said over that link yet,
        also by one that has had a vote for long. What is held back is lost, like any message."""
        self._ask_at: dict[NodeId, Instant] = {}  # whom to ask (again), and when
        self._contested_from: Instant = -FOREVER  # since when others have said that another life lives
        self._contested_at: Instant = -FOREVER  # when that was last said; long ago: not any more
        self._complained_of = 0
        self._kept_changes = 0
        self._keep_at: Instant = FOREVER
        self._effects: list[Effect] = []

    # ---------------------------------------------------------------------------------------- driving

    def boot_up(self, past: Past | None, words: bytes, now: Instant) -> None:
        """The disk is open. A new identity, whose first life this is, has promised nothing yet."""
        self._past = past
        self._keep_at = now + self._settings.keep_period_s
        if past:
            self.has_vote = False
            self._grace_ends = now + self._grace_s
        try:
            self._witness.unpack(words)
        except ValueError as error:
            self._effects.append(Log("words-damaged", str(error), warning=True))
        self._kept_changes = self._witness.changes

    def begin_life(self, before: int, written: int) -> None:
        """The same process, on the same disk, begins another life; it had ordered so many writes in the one
        before."""
        if self._past is not None:
            self._past = (*self._past, Word(before, written))

    def words(self, node: NodeId) -> Sequence[Word]:
        """What is remembered of another node's lives."""
        return self._witness.words(node)

    def link_up(self, peer: NodeId, now: Instant) -> None:
        """Every new link is a reason to ask: either side may have been away."""
        if self._past is not None:
            self._linked.add(peer)
            self.unheard.add(peer)
            self._ask_at[peer] = now

    def link_down(self, peer: NodeId) -> None:
        self._linked.discard(peer)
        self.unheard.discard(peer)

    def heard(self, source: NodeId, boot: int, written: int) -> None:
        """A member said something that rests on so many writes of its life."""
        if written > 0 and boot > 0:
            self._witness.note(source, boot, written)

    def on_recall(self, source: NodeId, message: Recall) -> bool:
        """Answer with what is remembered. Whether that says that the asking disk is behind."""
        latest = self._view.boot_of(source)
        lives = latest != message.boot and self._view.is_living(source)
        words = self._witness.words(source)
        self._effects.append(Send(source, Recalled(message.boot, words, latest, lives), urgent=True))
        others = [word for word in words if word.boot != message.boot]
        return unknown_word(message.lives, others) is not None

    def on_recalled(self, source: NodeId, message: Recalled, written: int, now: Instant) -> None:
        """Compare what `source` remembers with what this disk knows.

        Args:
            written: writes that this life has ordered so far.
        """
        me = self._view.boot
        if self._past is None or message.boot != me:
            return  # an answer to an earlier life
        if message.lives and self._gives_way(message.latest, now):
            return  # and `source` is asked again
        self._ask_at.pop(source, None)
        self.unheard.discard(source)
        unknown = unknown_word(self._past, [word for word in message.words if word.boot != me])
        forgot = [word for word in message.words if word.boot == me and word.written > written]
        if message.latest > me:
            self._fall_behind(message.latest, f"{source} has heard of a later start of it")
        elif (unknown or forgot) and not self._is_behind:
            self._fall_behind(message.latest, f"{source} has its word on writes that are not on this disk")
        if not (self.has_vote or self._is_behind):
            self._told.add(source)

    def on_rival(self, boot: int, *, is_living: bool, now: Instant) -> None:
        """Somebody spoke of a later life of this identity."""
        if is_living:
            self._gives_way(boot, now)
        elif self._past is not None:
            self._fall_behind(boot, "a later start of it is remembered")

    def on_clone(self, boot: int, *, keeps: bool, now: Instant) -> None:
        """Another process with this identity was met, or a peer keeps to it."""
        if keeps:
            self._gives_way(boot, now)
        elif boot >= self._view.boot:
            self._effects.append(Cloned(boot))
        else:
            self._complain(boot)

    def _gives_way(self, other: int, now: Instant) -> bool:
        """Somebody says that another life of this identity lives. Whether that concerns this one: it ends, or
        has no vote as long as that is said."""
        is_later = other >= self._view.boot
        patience_s = self._settings.yield_s if is_later else self._settings.insist_s
        self._complain(other)
        if self._contested_at == -FOREVER:
            self._contested_from = now
        self._contested_at = now
        is_patient = not (self.has_vote and is_later)
        if not is_patient or now - self._contested_from >= patience_s:
            self._effects.append(Cloned(other))
        # Before one with a vote an earlier one ends, and what is remembered of that says what becomes of this
        # one. But if others keep to it, as it has none and knows, there is no place for this one.
        return is_later or not self.has_vote

    def _complain(self, other: int) -> None:
        if other == self._complained_of:
            return  # once, not with every message
        self._complained_of = other
        text = f"another process has this node's identity (start {starts_of(other)} of a copied disk)"
        self._effects.append(Log("identity-clash", text, warning=True))

    def _fall_behind(self, above: int, why: str) -> None:
        self.has_vote = False
        self._effects.append(Behind(max(above, self._view.boot), why))

    # ------------------------------------------------------------------------------------------- time

    def check(self) -> bool:
        """Whether this disk has turned out to have a vote since this was last called."""
        if self.has_vote or self._is_behind or self._past is None:
            return False
        is_contested = self._contested_at > -FOREVER
        if is_contested or any(isinstance(effect, Behind | Cloned) for effect in self._effects):
            return False
        self.has_vote = self._view.formed and not self._awaited()
        if self.has_vote:
            self._told.clear()  # nobody's word is waited for any more
        return self.has_vote

    def _awaited(self) -> set[NodeId]:
        """Who may be there, and has not told yet. In a large mesh the word of some stands for all."""
        if len(self._told) >= self._settings.enough:
            return set()
        view, may_be_there = self._view, (Standing.LIVING, Standing.UNKNOWN)
        others = {node for node in view.members() if node != view.me}
        awaited = {node for node in others if view.standing(node) in may_be_there} | self._linked
        is_known_to_most = len(self._told & others) + 1 >= majority_of(len(others) + 1)
        if self._is_grace_over and is_known_to_most:
            awaited &= self._linked  # who lives for others only may be cut off from here for ever
        return awaited - self._told

    def deadline(self) -> Instant:
        asks = min(self._ask_at.values(), default=FOREVER)
        if not (self._is_grace_over or self.has_vote or self._is_behind):
            asks = min(asks, self._grace_ends)
        if self._contested_at > -FOREVER:
            asks = min(asks, self._contested_at + self._settings.insist_s)
        return min(asks, self._keep_at if self._witness.changes != self._kept_changes else FOREVER)

    def on_time(self, now: Instant) -> None:
        """Ask those who have not answered; keep what was heard."""
        self._is_grace_over = now >= self._grace_ends
        if now >= self._contested_at + self._settings.insist_s:
            self._contested_at = -FOREVER
        for peer, at in list(self._ask_at.items()):
            if at > now:
                continue
            if peer in self._linked or self._view.is_living(peer):
                self._ask_at[peer] = now + self._settings.again_s
                self._effects.append(Send(peer, self._question(), urgent=True))
            else:
                del self._ask_at[peer]
        if self._witness.changes != self._kept_changes and now >= self._keep_at:
            self._kept_changes = self._witness.changes
            self._keep_at = now + self._settings.keep_period_s
            self._effects.append(RememberWords(self._witness.pack()))

    def _question(self) -> Recall:
        assert self._past is not None
        return Recall(self._view.boot, self._past[-LIVES_TOLD:])

    def take_effects(self) -> Sequence[Effect]:
        effects, self._effects = self._effects, []
        return effects
