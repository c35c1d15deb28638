"""An owner asks now and then what became of its starts on peers."""

from __future__ import annotations

from typing import Any

from job_mesh import A, B, job_id, make_desk, make_record, sends

from edgenode.core.away import Away
from edgenode.core.jobs import started
from edgenode.core.wire import Have, Stop


class Walked(dict[Any, Any]):
    """Counts how often somebody goes through all of it."""

    walks = 0

    def items(self) -> Any:
        self.walks += 1
        return super().items()

    def values(self) -> Any:
        self.walks += 1
        return super().values()

    def __iter__(self) -> Any:
        self.walks += 1
        return super().__iter__()


def test_of_very_many_starts_on_peers_only_those_whose_time_has_come_are_looked_at() -> None:
    desk = make_desk(A, B)
    away = Away(desk)
    watched, stopping = away._watched, away._stopping = Walked(), Walked()
    records = [
        started(make_record(job_id(number), (A, B)), runner=B, boot=1, at=0.0) for number in range(1, 201)
    ]
    for number, record in enumerate(records):
        away.watch(record, float(number))
    for record in records[100:]:
        away.stop(record.id, but=None)
    desk.post.flush()
    asked, told = [], []
    while (now := away.deadline()) <= 99.0:
        desk.now = now
        assert away.on_time() == []
        effects = list(desk.post.flush())
        asked += [item.job for message in sends(effects, Have) for item in message.items]
        told += [item.job for message in sends(effects, Stop) for item in message.items]
    assert {*asked} == {record.id for record in records[:100]}
    assert {*told} == {record.id for record in records[100:]}
    assert watched.walks == stopping.walks == 0
