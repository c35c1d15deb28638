"""What an idempotency key is used for: one set of holders and one content, decided before its job exists.

A key's job has one id wherever it is submitted, but views differ while nodes join, and sides differ in a cut:
two entry nodes may name different holders, or bring different content. So the would-be owner first claims the
key for its use at all members. It is a Paxos with the members as acceptors and the use as the value:

    first come   under no ballot a member accepts who comes first, as in a fast round of Fast Paxos (Lamport,
                 2006): three quarters of the members decide. One exchange, and the normal case.
    prepare      two came at once, or too many are dead: a ballot of its own, promised by a majority. What may
                 have been decided already must be proposed again; of others any may be.
    accept       a majority accepts that, and it is decided.

Nobody is blocked by a claimant that died; whoever comes later learns the use that was decided, and is sent
to its holders. All known members count, the dead too until they are forgotten or have left, and all that live
are waited for (at most `ask_s`): who has just joined may know more of them than others do. A use by holders
that are all forgotten is void; they may have run its job, so one that may run once only does not run again.

    look         of a disk that has no vote on the key: it asks only, to send submissions where the job is

    parked       submissions wait here, and there is no record yet
    decided      for these holders -> taken, and marked as claimed, but refused if they bring another content;
                 for other holders -> sent there
    no majority  somebody else's claim is known -> sent there; none -> taken, but not claimed

Unless its record is marked as claimed, a keyed job has no firm owner (ballots), so no result of it settles.
Its owner goes on claiming, and gives way with all it has if the key turns out to be used otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from edgenode.core.agenda import Agenda
from edgenode.core.desk import SUPERSEDED, Desk
from edgenode.core.job_bytes import encode
from edgenode.core.jobs import Record, is_claimed, presumed_started, with_note
from edgenode.core.joining import is_same_life
from edgenode.core.quorums import fast_quorum_of, majority_of
from edgenode.core.signals import ClaimRow
from edgenode.core.specs import Spec, decode_spec
from edgenode.core.types import (
    FOREVER,
    NO_BALLOT,
    NO_USE,
    Ballot,
    Delivery,
    Instant,
    JobId,
    KeyUse,
    NodeId,
    Seconds,
    Wall,
)
from edgenode.core.view import Standing
from edgenode.core.wire import (
    REFUSED_CLAIMED,
    REFUSED_NOT_READY,
    REFUSED_REUSED,
    REFUSED_UNSURE,
    Claim,
    Claimed,
    ClaimItem,
    Claims,
    Copies,
    Home,
    Homes,
    Submit,
    SubmitAnswer,
    SubmitItem,
    Submitted,
)

PARKED_MAX: Final = 20_000
"""Keys that wait for a decision here; more are refused, and go to the next in rank."""
PURGE_PERIOD_S: Final[Seconds] = 3600.0
"""How often claims that expired are deleted."""
PURGE_SOON_S: Final[Seconds] = 60.0
"""How long after a start that is done first, and again while the clock is not good enough: a node that never
runs for an hour would keep them for ever. Right after a start it has more urgent things to do."""

Holders = tuple[NodeId, ...]


class Round(Enum):
    LOOK = "look"  # of a disk that has no vote on this key: whose is it?
    FIRST_COME = "first come"
    PREPARE = "prepare"
    ACCEPT = "accept"


class Parked(NamedTuple):
    """A submission that waits for the decision."""

    source: NodeId
    request: int
    place: int
    item: SubmitItem


@dataclass(slots=True)
class Claiming:
    """One attempt to get a key for one use."""

    use: KeyUse
    expires_at: Wall
    began: Instant
    round_began: Instant
    again_at: Instant
    pause_s: Seconds
    round: Round = Round.FIRST_COME
    ballot: Ballot = NO_BALLOT
    proposed: KeyUse = NO_USE  # what it wants accepted in this round
    said: dict[NodeId, Claimed] = field(default_factory=dict)  # in this round
    awaited: set[NodeId] = field(default_factory=set)  # who may yet say something in this round
    voters: int = 0  # how many members there were when they were asked
    heard: set[NodeId] = field(default_factory=set)  # in this round: they said whether they have a record
    term_seen: int = 0
    outbid_until: Instant = 0.0  # a higher ballot is about: leave it some time
    parked: list[Parked] = field(default_factory=list)
    copies: dict[KeyUse, Record] = field(default_factory=dict)  # of other lives
    having: set[NodeId] = field(default_factory=set)  # who said that it has a copy, of whichever life
    had_others: bool = False  # it was used for holders that are all forgotten: they may have run its job


class Keys:
    """Drive it with submissions, messages, membership changes and time; it answers through the desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._table = desk.table
        self._claims = desk.table.claims
        self._claiming: dict[JobId, Claiming] = {}
        self._due: Agenda[JobId] = Agenda()
        self._purge_at: Instant = FOREVER
        self.decided: list[Parked] = []
        """Submissions that may be handled now, see `Desk.admitted`."""

    def begin(self) -> None:
        """The disk was read, or takes writes again."""
        self._purge_at = self._desk.now + PURGE_SOON_S

    # -------------------------------------------------------------------------------- submissions

    def park(self, source: NodeId, message: Submit, spec: Spec, item: SubmitItem) -> None:
        """Hold a submission, of which there is no record here, until it is known whose its key is."""
        desk, job = self._desk, spec.id
        waiting = Parked(source, message.request, message.place, item)
        claiming = self._claiming.get(job)
        if claiming is not None:
            if all((each.source, each.request) != waiting[:2] for each in claiming.parked):
                claiming.parked.append(waiting)
            return
        known = self._claims.get_many((job,)).get(job)
        if len(self._claiming) >= PARKED_MAX or (known is None and self._claims.is_full):
            self._refuse(waiting, job, REFUSED_NOT_READY)
            return
        use = KeyUse(item.holders, _content(item.spec))
        if known is not None and self._can_be_asked(known.use.holders):
            if desk.me not in known.use.holders:
                self._refuse(waiting, job, REFUSED_CLAIMED, known.use.holders)
                return
            use = known.use
        # A disk whose row of this job was damaged may have said whose the key is: it cannot claim it.
        kind = Round.FIRST_COME if self._table.may_vote(job) else Round.LOOK
        claiming = self._begin(job, use, spec.expires_at, kind)
        claiming.parked.append(waiting)
        self._look(job)

    def is_parked(self, job: JobId) -> bool:
        """Whether a submission of this job is held here, and may be taken yet."""
        claiming = self._claiming.get(job)
        return claiming is not None and bool(claiming.parked)

    def _can_be_asked(self, holders: Holders) -> bool:
        return any(self._desk.view.is_living(holder) for holder in holders)

    def _refuse(self, waiting: Parked, job: JobId, why: str, nodes: Holders = ()) -> None:
        answer = SubmitAnswer(job, nodes, why)
        self._desk.post.send(waiting.source, Submitted(waiting.request, (answer,)))

    def _admit(self, job: JobId, *, claimed: bool) -> None:
        """Let the submissions be taken here, those of the content first that the key is claimed for. Without
        any of those, no other content may take its place once that is decided."""
        claiming = self._drop(job)
        if claiming.had_others and any(_is_once_only(each.item.spec) for each in claiming.parked):
            for each in claiming.parked:
                self._refuse(each, job, REFUSED_UNSURE)
            return
        right = [each for each in claiming.parked if _content(each.item.spec) == claiming.use.content]
        wrong = [each for each in claiming.parked if _content(each.item.spec) != claiming.use.content]
        if claimed and not right:
            for each in wrong:
                self._refuse(each, job, REFUSED_REUSED)
            return
        self._desk.admitted[job] = claimed
        for each in (*right, *wrong):
            # As the key's holders: what a submission named before it was known whose the key is, is void.
            self.decided.append(each._replace(item=each.item._replace(holders=claiming.use.holders)))

    def _send_on(self, job: JobId, holders: Holders) -> None:
        """The key is others': whoever waits is told where to go."""
        for each in self._drop(job).parked:
            self._refuse(each, job, REFUSED_CLAIMED, holders)

    def _drop(self, job: JobId) -> Claiming:
        self._due.drop(job)
        return self._claiming.pop(job)

    # ----------------------------------------------------------------------------------- records

    def take_on(self, jobs: Iterable[JobId]) -> None:
        """This node would own these, and nobody knows whose their keys are: go on claiming them."""
        for job in jobs:
            record = self._table.peek(job)
            if record is not None and not is_claimed(record) and not record.settled:
                if job not in self._claiming:
                    expires_at = decode_spec(record.spec).expires_at
                    self._begin(job, _use_of(record), expires_at, Round.FIRST_COME)
                    self._look(job)

    def _still_wanted(self, job: JobId, claiming: Claiming) -> bool:
        """Whether a record is here that needs its key decided, and that is this node's to see to."""
        record = self._table.peek(job)
        if record is None:
            return bool(claiming.parked)
        return _use_of(record) == claiming.use and self._is_mine_to_claim(job)

    def _is_mine_to_claim(self, job: JobId) -> bool:
        """Whether there is a record here whose key is undecided, and which no other living node owns."""
        record = self._table.peek(job)
        if record is None or record.claimed or record.settled:
            return False
        owner = record.owner
        return self._desk.leading(job) or owner == self._desk.me or not self._desk.view.is_living(owner)

    # ------------------------------------------------------------------------------------ rounds

    def _begin(self, job: JobId, use: KeyUse, expires_at: Wall, kind: Round) -> Claiming:
        now, retry_s = self._desk.now, self._desk.settings.retry_s
        claiming = Claiming(use, expires_at, now, now, now + retry_s, retry_s)
        self._claiming[job] = claiming
        self._begin_round(job, claiming, kind, NO_BALLOT, NO_USE if kind is Round.LOOK else use)
        return claiming

    def _begin_round(
        self, job: JobId, claiming: Claiming, kind: Round, ballot: Ballot, proposed: KeyUse
    ) -> None:
        """Ask this disk, then everybody else."""
        claiming.round, claiming.ballot, claiming.proposed = kind, ballot, proposed
        claiming.round_began = self._desk.now
        claiming.pause_s = self._desk.settings.retry_s
        claiming.said = {}
        claiming.heard = {self._desk.me}  # who had no record before this round may have taken one since
        known = self._claims.get_many((job,)).get(job)
        if self._table.may_vote(job):
            row = self._claims.hear(known, job, ballot, proposed, claiming.expires_at)
            claiming.said[self._desk.me] = self._word(row, (), b"")
            claiming.heard.add(self._desk.me)
            claiming.term_seen = max(claiming.term_seen, row.promised.term)
        self._ask(job, claiming)

    def _ask(self, job: JobId, claiming: Claiming) -> None:
        """Put the question of this round to all who have not answered it."""
        desk = self._desk
        wants_copy = self._table.peek(job) is not None
        item = ClaimItem(job, claiming.ballot, claiming.proposed, claiming.expires_at, wants_copy)
        voters = self._electorate()
        claiming.voters, claiming.awaited = len(voters), self._awaited(claiming, voters)
        for node in voters:
            is_asked = node not in claiming.said and node != desk.me
            if is_asked and desk.view.standing(node) is not Standing.GONE:
                desk.post.add(node, Claim, item)
        claiming.again_at = desk.now + claiming.pause_s
        claiming.pause_s = min(claiming.pause_s * 2, desk.settings.retry_max_s)

    def _awaited(self, claiming: Claiming, voters: Sequence[NodeId]) -> set[NodeId]:
        """Who has not answered in this round, and probably will. What a disk says that is behind is void."""
        view, probable = self._desk.view, (Standing.LIVING, Standing.UNKNOWN)
        said = {*claiming.said, view.me}
        silent = (node for node in voters if node not in said and not view.is_behind(node))
        return {node for node in silent if view.standing(node) in probable}

    def _electorate(self) -> list[NodeId]:
        """Whose word counts: all known members, the dead included. Who left has handed over what it had."""
        view = self._desk.view
        return [node for node in view.members() if not view.has_left(node)]

    def on_claim(self, source: NodeId, items: Sequence[ClaimItem]) -> None:
        """Say what stands here, after the question has changed it as far as it may."""
        desk, table = self._desk, self._table
        jobs = [item.job for item in items]
        rows, known = self._claims.get_many(jobs), table.get_many(jobs)
        for item in items:
            row, record = rows.get(item.job), table.peek(item.job) or known.get(item.job)
            is_over = record is not None and record.claimed  # its holders are decided, and in the record
            if not is_over and table.may_vote(item.job) and not desk.is_forgotten(item.expires_at):
                row = self._claims.hear(row, item.job, item.ballot, item.use, item.expires_at)
            elif row is None or not is_over:
                row = ClaimRow(item.job, NO_BALLOT, NO_BALLOT, NO_USE, item.expires_at)
            home = () if record is None else self._home_of(record)
            copy = encode(record) if record is not None and item.wants_copy else b""
            desk.post.add(source, Claims, self._word(row, home, copy))

    def _word(self, row: ClaimRow, home: Holders, copy: bytes) -> Claimed:
        is_void = not set(self._electorate()).intersection(row.use.holders)
        return Claimed(row.id, row.promised, row.accepted, row.use, home, copy, is_void)

    def _valid(self, said: Iterable[Claimed]) -> list[Claimed]:
        """Those that name holders of whom somebody is known: to this node, or to who said so. (Who has just
        joined may not have heard of them yet.)"""
        members = set(self._electorate())
        return [word for word in said if not word.void or members.intersection(word.use.holders)]

    def _home_of(self, record: Record) -> Holders:
        return (self._desk.me,) if record.settled else record.holders

    def tell_homes(self, source: NodeId, items: Sequence[ClaimItem]) -> None:
        """It is not known yet whether this disk has a vote: say of which of these there is a job. Else who
        asks might take one a second time, while most members have just restarted."""
        for job, record in self._table.get_many([item.job for item in items]).items():
            self._desk.post.add(source, Homes, Home(job, self._home_of(record)))

    def on_homes(self, source: NodeId, items: Sequence[Home]) -> None:
        for item in items:
            is_parked = item.job in self._claiming and self._table.peek(item.job) is None
            if is_parked and not self._desk.view.is_behind(source):
                self._send_on(item.job, item.holders)

    def on_claims(self, source: NodeId, items: Sequence[Claimed]) -> None:
        is_void = self._desk.view.is_behind(source)  # nobody knows what else it has said
        for item in items:
            claiming = self._claiming.get(item.job)
            if claiming is None:
                self._correct(source, item)
                continue
            if item.home:
                claiming.having.add(source)  # void or not, it would go on offering its copy
            if is_void:
                continue
            claiming.term_seen = max(claiming.term_seen, item.promised.term)
            claiming.heard.add(source)
            if item.home and self._table.peek(item.job) is None:
                self._send_on(item.job, item.home)
                continue
            copy = self._desk.read(item.copy) if item.copy else None
            if copy is not None and self._meets(item.job, copy, claiming):
                continue
            if claiming.round in (Round.LOOK, Round.FIRST_COME) or _answers(item, claiming):
                claiming.said[source] = item
                claiming.awaited.discard(source)
                if self._may_go_on(claiming):
                    self._look(item.job)
            elif item.promised > claiming.ballot:
                self._outbid(claiming)
                self._look(item.job)

    def _may_go_on(self, claiming: Claiming) -> bool:
        """Whether these answers may be enough: a look goes through all members, and one a member for each
        key would make the cost of a key grow with the square of their number."""
        if claiming.round is Round.ACCEPT and len(claiming.said) >= majority_of(claiming.voters):
            return True
        return not claiming.awaited or self._desk.now >= claiming.round_began + self._desk.settings.ask_s

    def _outbid(self, claiming: Claiming) -> None:
        if claiming.outbid_until <= self._desk.now:
            pause_s = self._desk.dice.uniform(0.1, 1.0) * self._desk.settings.ask_s
            claiming.outbid_until = self._desk.now + pause_s

    def _look(self, job: JobId) -> None:
        """Go on, with what the members have said so far."""
        desk, claiming = self._desk, self._claiming[job]
        if not self._still_wanted(job, claiming):
            self._drop(job)
            if self._is_mine_to_claim(job):
                self.take_on((job,))  # another life of the key is here now: that is to be decided
            return
        members = self._electorate()
        said = [claiming.said[node] for node in members if node in claiming.said]
        unheard = {node: desk.view.standing(node) for node in members if node not in claiming.said}
        claiming.voters, claiming.awaited = len(members), self._awaited(claiming, members)
        claiming.had_others |= any(word.use.holders for word in {*said}.difference(self._valid(said)))
        self._due.set(job, self._attention(claiming))
        is_early = claiming.awaited and desk.now < claiming.round_began + desk.settings.ask_s
        if claiming.round is not Round.ACCEPT and is_early:
            return
        if claiming.round is Round.LOOK:
            self._send_on_or_refuse(job, said)
            return
        if len(said) < majority_of(len(members)) or desk.view.is_cut_off:
            self._do_without(job, claiming, said, unheard)
            return
        match claiming.round:
            case Round.FIRST_COME:
                votes = sum(word.accepted == NO_BALLOT and word.use == claiming.use for word in said)
                if votes >= fast_quorum_of(len(members)):
                    self._decide(job, claiming, claiming.use)
                else:
                    self._prepare(job, claiming)
            case Round.PREPARE:
                value = self._choose(claiming, said, len(members))
                self._begin_round(job, claiming, Round.ACCEPT, claiming.ballot, value)
                self._look(job)
            case Round.ACCEPT:
                self._decide(job, claiming, claiming.proposed)

    def _send_on_or_refuse(self, job: JobId, said: Sequence[Claimed]) -> None:
        """This disk has no vote on the key, and nobody has its job: where those are who have claimed it."""
        if holders := self._other_holders(said, (self._desk.me,)):
            self._send_on(job, holders)
        else:
            # A disk without any vote has taken nothing in this life; a damaged row may have been this job's.
            why = REFUSED_UNSURE if self._table.has_vote else REFUSED_NOT_READY
            for each in self._drop(job).parked:
                self._refuse(each, job, why)

    def _prepare(self, job: JobId, claiming: Claiming) -> None:
        """Ask for promises on a ballot above all that were seen."""
        claiming.term_seen += 1
        ballot = Ballot(claiming.term_seen, self._desk.me)
        self._begin_round(job, claiming, Round.PREPARE, ballot, NO_USE)
        self._look(job)

    def _choose(self, claiming: Claiming, said: Sequence[Claimed], count: int) -> KeyUse:
        """What a majority that promised leaves to propose (Fast Paxos, section 2.2, rule 2b).

        Holders of whom nobody knows any more can have decided nothing that anybody will ever see. If
        as many members as there are can have decided nothing, fewer may have, before others came: so the use
        of whoever else came first goes before this node's own.
        """
        words = self._valid(said)
        highest = max((word.accepted for word in words), default=NO_BALLOT)
        if highest != NO_BALLOT:
            return next(word.use for word in words if word.accepted == highest)
        votes = Counter(word.use for word in words)
        may_be_decided = fast_quorum_of(count) - (count - len(said))
        for use, number in votes.items():
            if number >= may_be_decided:
                return use
        others = {use: number for use, number in votes.items() if use != claiming.use}
        return max(others, key=lambda use: (others[use], use), default=claiming.use)

    def _do_without(
        self, job: JobId, claiming: Claiming, said: Sequence[Claimed], unheard: dict[NodeId, Standing]
    ) -> None:
        """No majority can be heard: send submissions where the key is known to be, or take them without."""
        desk = self._desk
        if self._table.peek(job) is not None:
            return  # it runs as it is; they are asked again
        if others := self._other_holders(said, claiming.use.holders):
            self._send_on(job, others)
            return
        is_early = any(known is not Standing.GONE for known in unheard.values()) or desk.view.is_cut_off
        if not is_early or desk.now >= claiming.began + desk.settings.island_after_s:
            self._admit(job, claimed=False)

    def _other_holders(self, said: Sequence[Claimed], mine: Holders) -> Holders:
        """Whose the key is by the latest word of those who name others than `mine`; () if nobody does."""
        others = [word for word in self._valid(said) if word.use.holders != mine]
        latest = max(others, key=lambda word: (word.accepted, word.use), default=None)
        return () if latest is None else latest.use.holders

    # ---------------------------------------------------------------------------------- decisions

    def _decide(self, job: JobId, claiming: Claiming, use: KeyUse) -> None:
        """A majority of all members has accepted this use: nobody will find another."""
        record = self._table.peek(job)
        if record is None:
            if use.holders == claiming.use.holders:
                claiming.use = use
                self._admit(job, claimed=True)
            else:
                self._send_on(job, use.holders)
        elif use == _use_of(record):
            self._drop(job)
            if claiming.had_others and _is_once_only(record.spec):
                record = presumed_started(record)
            self._table.put(record._replace(claimed=True))
            self._desk.claimed.add(job)
        else:
            self._give_way(job, claiming, record, use)

    def _meets(self, job: JobId, copy: Record, claiming: Claiming) -> bool:
        """Another member has a record under this key. Whether that ends the claim."""
        mine = self._table.peek(job)
        if mine is None:
            return False
        if is_same_life(mine, copy):
            if copy.epoch <= mine.epoch:
                return False
            self._drop(job)  # its holders have changed since, so whose the key is was decided
            self._desk.merge(copy)
            return True
        claiming.copies[_use_of(copy)] = copy
        if not copy.claimed:
            return False
        self._yield_to(mine, copy, claiming)
        self._drop(job)
        return True

    def _correct(self, source: NodeId, item: Claimed) -> None:
        """The claim is over. A member that still has another life of the key, and may be none of its holders
        (it stood in for one), would offer that to them again and again."""
        copy = self._desk.read(item.copy) if item.copy else None
        record = None if copy is None else self._table.get(item.job)
        if record is None or copy is None or not record.claimed or is_same_life(record, copy):
            return
        if not copy.claimed:
            self._desk.post.add(source, Copies, encode(record))

    def _give_way(self, job: JobId, claiming: Claiming, record: Record, use: KeyUse) -> None:
        """The key is used otherwise: what is here of the job becomes theirs, unless they have their own."""
        desk, holders = self._desk, use.holders
        known = {holder for word in self._valid(claiming.said.values()) for holder in word.use.holders}
        members = set(holders).intersection(self._electorate())
        if not members and not known.intersection(holders):
            # They were forgotten after this node had proposed them: nobody has the job any more.
            self._prepare(job, claiming)
            return
        if not members:
            # Only others know them, so far: ask those again, now and then.
            if claiming.outbid_until <= desk.now:
                claiming.outbid_until = desk.now + desk.settings.retry_max_s
            return
        living = {node for node in holders if desk.view.is_living(node) and not desk.view.is_behind(node)}
        # Who has not been heard may have its own. Of the dead that matters if it is for something else; but
        # who is behind has lost it.
        others = {node for node in members if not desk.view.is_behind(node)}
        wanted = living if use.content == _use_of(record).content else others
        theirs = claiming.copies.get(use)
        if theirs is None and (not living or not wanted <= claiming.heard):
            return
        self._drop(job)
        if theirs is None:
            # Nobody runs it there. The ballot is one that nobody has used: its owner has to ask.
            own = record.own._replace(ballot=Ballot(record.own.ballot.term + 1, holders[0]), write=0)
            theirs = record._replace(holders=holders, own=own, move=None)
        self._yield_to(record, theirs._replace(claimed=True), claiming)

    def _yield_to(self, mine: Record, theirs: Record, claiming: Claiming) -> None:
        """Another life of this key stands. Its holders learn what this one counted, and this one's of it, and
        so do all others that are known to have a copy."""
        desk = self._desk
        joined = desk.merge(theirs)
        if joined is None or is_same_life(joined, mine):
            return
        note = desk.note(SUPERSEDED, f"the key is {', '.join(joined.holders)}'s")
        joined = with_note(joined, note)
        self._table.put(joined)
        for holder in dict.fromkeys((*mine.holders, *joined.holders, *sorted(claiming.having))):
            if holder != desk.me and desk.view.is_living(holder):
                desk.post.add(holder, Copies, encode(joined))
        desk.overdue.add(mine.id)

    # ----------------------------------------------------------------------------- members and time

    def members_changed(self, changed: frozenset[NodeId]) -> None:
        """Ask those who came (back), and do not wait for those who went."""
        for job, claiming in list(self._claiming.items()):
            if any(self._desk.view.is_living(node) for node in changed):
                self._ask(job, claiming)
            self._look(job)

    def deadline(self) -> Instant:
        return min(self._due.next(), self._purge_at)

    def on_time(self) -> None:
        desk = self._desk
        for job in self._due.take_due(desk.now):
            claiming = self._claiming[job]
            if 0 < claiming.outbid_until <= desk.now:
                claiming.outbid_until = 0.0
                self._prepare(job, claiming)
                continue
            if claiming.again_at <= desk.now:
                self._ask(job, claiming)
            self._look(job)
        if self._purge_at <= desk.now:
            is_sure = desk.sure_wall != -FOREVER
            self._purge_at = desk.now + (PURGE_PERIOD_S if is_sure else PURGE_SOON_S)
            if is_sure:
                self._claims.expire(desk.sure_wall - 2 * desk.settings.clock_skew_max_s)

    def _attention(self, claiming: Claiming) -> Instant:
        """When this claim next needs a look."""
        settings, now = self._desk.settings, self._desk.now
        ends = (
            claiming.again_at,
            claiming.outbid_until,
            claiming.round_began + settings.ask_s,
            claiming.began + settings.island_after_s,
        )
        return min((at for at in ends if at > now), default=FOREVER)


def _answers(item: Claimed, claiming: Claiming) -> bool:
    """Whether a member says yes to the question of this round, not to one before."""
    if claiming.round is Round.PREPARE:
        return item.promised == claiming.ballot
    return item.accepted == claiming.ballot and item.use == claiming.proposed


def _use_of(record: Record) -> KeyUse:
    return KeyUse(record.holders, _content(record.spec))


def _is_once_only(blob: bytes) -> bool:
    return decode_spec(blob).options.delivery is Delivery.AT_MOST_ONCE


def _content(blob: bytes) -> str:
    return decode_spec(blob).options.fingerprint
