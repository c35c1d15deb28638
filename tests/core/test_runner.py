"""Results that a runner keeps until somebody has taken them."""

from __future__ import annotations

from job_mesh import WALL, A, B, C, D, Mesh, job_id, make_desk, make_record, succeeded

from edgenode.core.jobs import decided, settled, started
from edgenode.core.runner import Ended, Runner
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.types import Room, State
from edgenode.core.wire import Result, ResultItem, Stop, TokenItem

JOB = job_id(1)


def test_a_result_that_only_this_node_could_take_is_forgotten_when_its_job_is_settled_here() -> None:
    """It ended while another owned the job, which has come back to this node and is over since."""
    desk = make_desk(A, B)
    runner = Runner(desk, room=Room(2), tasks=frozenset({"echo"}))
    record = started(make_record(JOB, (A,)), runner=A, boot=1, at=WALL)
    item = ResultItem(JOB, record.own.token, A, succeeded(), WALL, False)
    runner.keep(Ended(item, True, False, None), record)
    desk.table.put(record)
    runner.on_time(wanted=Room(0))
    assert not runner.idle
    desk.table.put(settled(decided(record, State.SUCCEEDED, firm=True, at=WALL)))
    desk.now = runner.deadline(wanted=Room(0))
    runner.on_time(wanted=Room(0))
    assert runner.idle
    assert not [send for send in desk.post.flush() if isinstance(send.message, Result)]


def test_who_stops_a_start_that_has_ended_is_told_how_and_the_result_is_kept_no_longer() -> None:
    """Its owner and all holders of that time are gone; C has the job since, and knows that it is over."""
    mesh = Mesh("abc", settings=Settings(jobs=JobSettings(replicas=1)))
    spec = mesh.spec("c")
    mesh.submit(C, spec)
    mesh.run_until(lambda: mesh.settled(spec.id))
    before = started(make_record(spec.id, (D,)), runner=B, boot=1, at=WALL)
    token = before.own.token
    runner = mesh.nodes[B].scheduler._runner
    item = ResultItem(spec.id, token, B, succeeded(), WALL, False)
    runner.keep(Ended(item, True, False, None), before)
    mesh.run(5.0)
    assert not runner.idle
    mesh.tell(C, B, Stop((TokenItem(spec.id, token),)))
    mesh.run(1.0)
    assert mesh.messages(Result, source=B, to=C)
    assert runner.idle
