"""Records and rows for tests of the simulator."""

from __future__ import annotations

from edgenode.core.job_bytes import encode
from edgenode.core.job_ids import make_job_id
from edgenode.core.jobs import Record, new_record
from edgenode.core.signals import Row, StoredRow
from edgenode.core.specs import Options, Spec, encode_spec
from edgenode.core.types import NodeId, Promise
from edgenode.sim.clock import EPOCH
from edgenode.sim.machines import node_id
from edgenode.sim.workers import TASK, Manner, payload

A, B, C, D = node_id("a"), node_id("b"), node_id("c"), node_id("d")


def a_spec(number: int = 0, options: Options | None = None) -> Spec:
    wall = EPOCH + number
    chance = bytes((0, 0, number)) + bytes(7)
    return Spec(
        make_job_id(wall, chance), TASK, payload(Manner.GOOD, 0.1), wall, wall + 1e6, options or Options()
    )


def a_record(spec: Spec, holders: tuple[NodeId, ...] = (A, B, C)) -> Record:
    return new_record(encode_spec(spec), spec.id, holders, 0.0, spec.submitted_at)


def row_of(record: Record, promise: Promise | None = None) -> Row:
    return Row(record.id, encode(record), promise)


def stored_row(record: Record, promise: Promise | None = None) -> StoredRow:
    return StoredRow(row_of(record, promise), record.owner, record.settled, record.state, TASK, "default")
