"""Questions to several nodes: when they end, and who is named as silent then."""

from __future__ import annotations

from job_mesh import A, B, C, StillView, make_desk

from edgenode.core.polls import Ended, Poll, Polls
from edgenode.core.signals import RequestId
from edgenode.core.view import Standing

REQUEST = RequestId(7)


class Asker:
    """A has asked B and C."""

    def __init__(self) -> None:
        self.desk = make_desk(A, B, C)
        self.polls: Polls[list[str]] = Polls(self.desk)
        self.poll: Poll[list[str]] = Poll([], {B, C}, ends_at=3.0)
        assert self.polls.open(REQUEST, self.poll) == []

    def is_over(self, ended: Ended[list[str]]) -> bool:
        """Told once, and open no longer."""
        if ended:
            assert ended == [(REQUEST, self.poll)]
            assert self.polls.get(REQUEST) is None
        return bool(ended)


def test_a_poll_is_over_when_all_have_answered() -> None:
    asker = Asker()
    assert not asker.is_over(asker.polls.answered(REQUEST, B))
    assert not asker.is_over(asker.polls.answered(REQUEST, B))
    assert asker.is_over(asker.polls.answered(REQUEST, C))
    assert asker.poll.silent == set()
    assert asker.polls.answered(REQUEST, C) == []


def test_who_dies_is_not_waited_for_and_counts_as_silent() -> None:
    asker = Asker()
    asker.polls.answered(REQUEST, B)
    view = asker.desk.view
    assert isinstance(view, StillView)
    view.standings[B] = Standing.GONE
    assert not asker.is_over(asker.polls.members_changed(frozenset((B, C))))
    view.standings[C] = Standing.GONE
    assert asker.is_over(asker.polls.members_changed(frozenset((C,))))
    assert asker.poll.silent == {C}


def test_who_is_late_counts_as_silent() -> None:
    asker = Asker()
    asker.polls.answered(REQUEST, B)
    assert asker.polls.deadline() == 3.0
    asker.desk.now = 2.9
    assert not asker.is_over(asker.polls.on_time())
    asker.desk.now = 3.0
    assert asker.is_over(asker.polls.on_time())
    assert asker.poll.silent == {C}
    assert asker.polls.on_time() == []


def test_a_node_that_ends_waits_for_nobody() -> None:
    asker = Asker()
    assert asker.is_over(asker.polls.close())
    assert asker.poll.silent == {B, C}


def test_what_nobody_is_asked_is_over_at_once() -> None:
    asker = Asker()
    nobody: Poll[list[str]] = Poll([], set(), ends_at=3.0)
    assert asker.polls.open(RequestId(8), nobody) == [(RequestId(8), nobody)]


def test_who_went_away_is_not_told() -> None:
    asker = Asker()
    asker.polls.drop(REQUEST)
    assert asker.polls.close() == []
