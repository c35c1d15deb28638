"""Records, members and placements as the JSON that people's scripts depend on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from edgenode.api.service import TaskSchema
from edgenode.core.job_ids import job_text
from edgenode.core.jobs import Note, Record, new_record
from edgenode.core.signals import ReadDone, Receipt
from edgenode.core.specs import AS_ITS_TASK, Options, Spec, decode_spec
from edgenode.core.types import TERMINAL, Backoff, JobId, NodeId, State, Wall, starts_of
from edgenode.core.view import MemberView, MeshView
from edgenode.core.wire import QueueItem

Json = dict[str, Any]

_LAST_SECOND: Final = 253_402_300_799.0  # 9999-12-31T23:59:59Z: RFC 3339 has four digits for the year
TAKEOVERS: Final = frozenset({"takeover", "provisional takeover"})
"""What the core calls a change of owner in a job's history."""


def time_text(wall: Wall) -> str | None:
    """RFC 3339 in UTC with milliseconds; None for 0 ("never") and what no calendar has."""
    if not 0 < wall <= _LAST_SECOND:
        return None
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def job_body(record: Record, spec: Spec | None = None, **extra: Any) -> bytes:
    """One job as a JSON object; `extra` fields come on top, or in place of the record's.

    Payload and result are JSON since they came in, so their bytes are put in as they are: a megabyte of
    payload is not parsed again for every reader.
    """
    if spec is None:
        spec = decode_spec(record.spec)
    text = json.dumps(_job_fields(record, spec) | extra, separators=(",", ":"))
    result = b"" if record.outcome is None else record.outcome.result
    return b'%b,"payload":%b,"result":%b}' % (text[:-1].encode(), spec.payload or b"null", result or b"null")


def read_body(done: ReadDone, job: JobId, spec: Spec | None = None, **extra: Any) -> bytes:
    """As `job_body`, of a job that was read. Whether its owner is firm the record can't always tell."""
    if job in done.firm:
        extra["firm"] = True  # its owner said so
    return job_body(done.records[job], spec, **extra)


def submitted_body(spec: Spec, rank: Sequence[NodeId], replicas: int, receipt: Receipt, now: Wall) -> bytes:
    """A job that was just acknowledged, as it was submitted: nothing is read for it.

    If the first in rank did not acknowledge, somebody else may own the job: then no owner is named.
    """
    holders = tuple(rank[:replicas]) or receipt.nodes
    record = new_record(b"", spec.id, holders, spec.options.run_at, now)
    owner = record.owner if record.owner in receipt.nodes else None
    return job_body(record, spec, owner=owner, receipt=receipt_fields(receipt))


def receipt_fields(receipt: Receipt) -> Json:
    """`replayed`, only if so: the job was there before, made by another submission of its idempotency key."""
    fields: Json = {"acks": len(receipt.nodes), "nodes": list(receipt.nodes)}
    return fields | {"replayed": True} if receipt.replayed else fields


def _job_fields(record: Record, spec: Spec) -> Json:
    options, own, outcome = spec.options, record.own, record.outcome
    starts, failures = record.start_count, record.failure_count
    return {
        "id": job_text(record.id),
        "task": spec.task,
        "state": str(record.state),
        "settled": record.settled,
        "idempotency_key": options.key or None,
        "retry_of": options.retry_of or None,
        "retried_by": None,  # no record knows: api/retries.py
        "cancel_requested": record.cancel,
        "waiting_for": None,
        "queue": options.queue,
        "priority": options.priority,
        "concurrency_key": options.concurrency_key or None,
        "concurrency_limit": options.concurrency_limit if options.concurrency_key else None,
        # A start whose runner was lost is the same attempt again; a failed one is used up.
        "attempt": min(starts, failures + 1, options.max_attempts),
        "max_attempts": options.max_attempts,
        "losses": record.loss_count,
        "max_losses": options.max_losses,
        "starts": starts,
        "takeovers": sum(note.kind in TAKEOVERS for note in record.history),
        "delivery": str(options.delivery),
        "partition": str(options.partition),
        "owner": record.owner,
        "firm": _firm(record),
        "runner": (own.runner if outcome is None else outcome.runner) or None,
        "term": record.ballot.term,
        "holders": list(record.holders),
        "submitted_at": time_text(spec.submitted_at),
        "run_at": time_text(own.due_at if record.state is State.SCHEDULED else options.run_at),
        "started_at": time_text(own.started_at),
        "finished_at": None if outcome is None else time_text(outcome.finished_at),
        "expires_at": time_text(spec.expires_at),
        # What ended longer ago than its `ttl_s` has no payload, result, error and history any more.
        "result_expired": outcome is not None and not spec.payload,
        "error": None if outcome is None else outcome.error or None,
        "progress": None,  # of these two no record knows: `logs.progress_fields`
        "partial": None,
        "history": [_note_fields(note) for note in record.history],
    }


def _note_fields(note: Note) -> Json:
    fields = {"at": time_text(note.at), "kind": note.kind, "node": note.node, "detail": note.detail}
    return {**fields, "until": time_text(note.until)} if note.until else fields


def options_fields(options: Options) -> Json:
    """What may be said of a job again when its work is to be tried again: all but its days."""
    return {
        "queue": options.queue,
        "priority": options.priority,
        **({} if options.timeout_s == AS_ITS_TASK else {"timeout_s": options.timeout_s}),
        "max_attempts": options.max_attempts,
        "max_losses": options.max_losses,
        "delivery": str(options.delivery),
        "partition": str(options.partition),
        "acks": options.acks,
        "ttl_s": options.ttl_s,
        "requires": dict(options.requires),
        **_key_fields(options),
        "backoff": _backoff_fields(options.backoff),
    }


def _key_fields(options: Options) -> Json:
    if not options.concurrency_key:
        return {}
    return {
        "concurrency_key": options.concurrency_key,
        "concurrency_limit": options.concurrency_limit,
    }


def queue_fields(item: QueueItem) -> Json:
    """A queue's settings, null where there is no limit."""
    return {
        "name": item.queue,
        "paused": item.paused,
        "concurrency": item.concurrency or None,
        "rate": item.rate or None,
        "burst": max(1, item.burst) if item.rate else None,
        "version": item.version,
    }


def _backoff_fields(backoff: Backoff) -> Json:
    return {"kind": backoff.kind, "base_s": backoff.base_s, "cap_s": backoff.cap_s}


def _firm(record: Record) -> bool | None:
    """Whether the owner holds the promises of a majority; None if the record alone can't tell."""
    if record.outcome is not None:
        return record.outcome.firm
    return True if record.ballot.term == 1 else None  # the first owner is firm by being named


def is_final(record: Record) -> bool:
    return record.state in TERMINAL and record.settled


def placement_fields(
    record: Record,
    copies: Mapping[NodeId, Record | None],
    rank: Sequence[NodeId],
    members: Iterable[MemberView],
) -> Json:
    """Where a job is and where it would go.

    Args:
        copies: what each holder has on its disk; one that did not answer is missing.
    """
    known = {member.info.id: member for member in members}
    heirs = (node for node in rank if node in record.holders and node != record.owner)
    return {
        "id": job_text(record.id),
        "state": str(record.state),
        "settled": record.settled,
        "owner": record.owner,
        "term": record.ballot.term,
        "firm": _firm(record),
        "next": next(heirs, None),
        "rank": [_place(node, known) for node in rank],
        "holders": [_place(node, known) | {"copy": _copy(node, copies)} for node in record.holders],
    }


def _place(node: NodeId, known: Mapping[NodeId, MemberView]) -> Json:
    member = known.get(node)
    if member is None:
        return {"id": node, "name": None, "state": None}
    return {"id": node, "name": member.info.name, "state": member.state_text}


def _copy(node: NodeId, copies: Mapping[NodeId, Record | None]) -> Json:
    """What this holder has on disk: `held`, `none`, or `unreachable` if it did not answer."""
    if node not in copies:
        return {"status": "unreachable"}
    record = copies[node]
    if record is None:
        return {"status": "none"}
    return {
        "status": "held",
        "state": str(record.state),
        "settled": record.settled,
        "term": record.ballot.term,
        "owner": record.owner,
    }


def member_fields(member: MemberView, me: NodeId) -> Json:
    info, load = member.info, member.load
    return {
        "id": info.id,
        "name": info.name,
        "state": member.state_text,
        "ready": info.ready,
        "self": info.id == me,
        "api": info.api,
        "addresses": [
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in info.addresses
        ],
        "boot": starts_of(info.boot),
        "version": info.version,
        "weight": info.weight,
        "slots": info.slots,
        "async_slots": info.async_slots,
        "labels": dict(info.labels),
        "tasks": list(info.tasks),
        "load": {
            "owned": load.owned,
            "queued": load.queued,
            "running": load.running,
            "done": load.done,
            "free": load.free,
            "taken": load.taken,
        },
        "joined_at": time_text(info.joined_at),
        "heard_s": None if member.heard_s is None else round(member.heard_s, 3),
        "clock_ahead_s": None if member.clock_ahead_s is None else round(member.clock_ahead_s, 3),
    }


def task_fields(name: str, nodes: Sequence[MemberView], task: TaskSchema | None) -> Json:
    """One task of the mesh.

    Args:
        nodes: the living members that have it.
        task: what is known of it; None if none of those has said anything but its name.
    """
    return {
        "name": name,
        "summary": None if task is None else task.summary,
        "timeout_s": None if task is None else task.timeout_s,
        "max_attempts": None if task is None else task.max_attempts,
        "backoff": None if task is None or task.backoff is None else _backoff_fields(task.backoff),
        "async": any(name in node.info.coroutines for node in nodes),
        "inline": None if task is None else task.inline,
        "schema": None if task is None else task.schema(),
        "nodes": [{"id": node.info.id, "name": node.info.name, "api": node.info.api} for node in nodes],
    }


def mesh_fields(mesh: MeshView, members: Sequence[MemberView], me: NodeId) -> Json:
    """The mesh in sum. What the dead said last of their load and tasks no longer counts."""
    living = [member for member in members if not member.is_gone]
    return {
        "id": mesh.mesh_id,
        "self": {"id": me, "name": mesh.name},
        "version": mesh.version,
        "uptime_s": round(mesh.uptime_s, 3),
        "replicas": mesh.replicas,
        "nodes": dict(Counter(member.state_text for member in members)),
        "tasks": sorted({task for member in living for task in member.info.tasks}),
        "load": {
            name: sum(getattr(member.load, name) for member in living)
            for name in ("owned", "queued", "running", "done", "free")
        },
    }
