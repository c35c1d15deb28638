"""Copies of finished jobs where they belong: what no mesh of a few nodes comes to by itself."""

from __future__ import annotations

import random
from dataclasses import dataclass

from job_mesh import WALL, A, B, D, Disk, StillView, job_id, make_record

from edgenode.core.desk import Desk
from edgenode.core.jobs import decided, settled
from edgenode.core.settings import JobSettings
from edgenode.core.types import Instant, MemberInfo, NodeId, State
from edgenode.core.upkeep import Upkeep
from edgenode.core.view import Standing
from edgenode.core.wire import Offer

JOB = job_id(1)


@dataclass(slots=True)
class Newcomers(StillView):
    """Members that never met some of the holders, and have given up waiting for them."""

    def info(self, node: NodeId) -> MemberInfo | None:
        return StillView.info(self, node) if node in self.standings else None

    def dead_since(self, node: NodeId) -> Instant | None:
        return StillView.dead_since(self, node) if node in self.standings else 0.0


def test_who_begins_to_take_jobs_gets_the_copies_of_a_holder_that_nobody_knows() -> None:
    view = Newcomers(A, {A: Standing.LIVING, D: Standing.LIVING})
    desk = Desk(view, JobSettings(), Disk(), random.Random(1))
    desk.set_wall(WALL)
    upkeep = Upkeep(desk)

    def offered_in(duration_s: float) -> set[NodeId]:
        ends = desk.now + duration_s
        while upkeep.deadline() <= ends:
            desk.now = max(desk.now, upkeep.deadline())
            upkeep.on_time()
        desk.now = ends
        return {send.to for send in desk.post.flush() if isinstance(send.message, Offer)}

    view.leaving.add(D)
    upkeep.members_changed(frozenset((D,)))
    assert offered_in(300.0) == set()
    record = make_record(JOB, (A, B))
    desk.table.put(settled(decided(record, State.EXPIRED, firm=True, at=WALL)))
    desk.table.flush()
    upkeep.react([JOB])
    assert offered_in(300.0) == set()  # there is nobody else
    view.leaving.clear()
    upkeep.members_changed(frozenset((D,)))
    assert offered_in(5.0) == {D}
