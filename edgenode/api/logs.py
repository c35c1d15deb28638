"""What a job's starts said, as text for people and as JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiohttp import web

from edgenode.api.render import Json, time_text
from edgenode.core.jobs import Record
from edgenode.core.reports import Told, told_of
from edgenode.core.types import NodeId, State
from edgenode.core.view import MemberView
from edgenode.core.wire import Said


def wants_json(request: web.Request) -> bool:
    """Whether the answer is to be JSON, where it could be text: only if it was asked for by that name."""
    accepted = ",".join(request.headers.getall("Accept", [])).split(",")
    return any(each.partition(";")[0].strip().lower() == "application/json" for each in accepted)


def names_of(members: Iterable[MemberView]) -> Mapping[NodeId, str]:
    return {member.info.id: member.info.name for member in members}


def log_fields(job: str, starts: Sequence[Told], unanswered: Sequence[NodeId]) -> Json:
    return {"job": job, "starts": [_start_fields(told) for told in starts], "unanswered": list(unanswered)}


def _start_fields(told: Told) -> Json:
    """`bytes`: how much the start has written until now (in UTF-8). `missing`: from where to where of that is
    not in `text`; `truncated`, if anything is."""
    return {
        "attempt": told.last.attempt,
        "term": told.token.term,
        "owner": told.token.owner,
        "start": told.token.start,
        "runner": told.last.runner,
        "progress": _progress(told.last),
        "message": told.last.message or None,
        "partial": _json_or_none(told.partial),
        "text": "".join(text.decode(errors="replace") for _, text in told.pieces),
        "bytes": told.said,
        "truncated": bool(told.missing),
        "missing": told.missing,
    }


def log_text(starts: Sequence[Told], unanswered: Sequence[NodeId], names: Mapping[NodeId, str]) -> str:
    """One line that begins with `---` before what each start wrote."""
    lines: list[str] = []
    for told in starts:
        term, owner, start = told.token
        runner = names.get(told.last.runner, told.last.runner)
        token = f"{term}.{names.get(owner, owner)}.{start}"
        lines.append(f"--- attempt {told.last.attempt}, start {token}, on {runner} ---\n")
        parts = [(before, text.decode(errors="replace")) for before, text in told.pieces]
        parts += [(begin, f"[{end - begin} bytes are missing]\n") for begin, end in told.missing]
        for _, text in sorted(parts):
            lines.append(text if text.endswith("\n") else f"{text}\n")
    if unanswered:
        silent = ", ".join(names.get(node, node) for node in unanswered)
        lines.append(f"--- there may be more at: {silent} ---\n")
    return "".join(lines)


def progress_fields(items: Iterable[Said], record: Record) -> Json:
    """How far the latest start is, for the job's own JSON. While it has said nothing, what the one before it
    said is not shown in its place."""
    found = told_of(items)
    if not found or found[-1].token < record.own.token:
        return {}
    latest = found[-1]
    fields: Json = {"progress": _progress(latest.last)}
    if record.state is not State.SUCCEEDED:
        fields["partial"] = _json_or_none(latest.partial)
    return fields


def _progress(said: Said) -> Json | None:
    if said.fraction < 0:
        return None
    return {"fraction": said.fraction, "message": said.message, "at": time_text(said.at)}


def _json_or_none(packed: bytes) -> Any:
    """It came from a peer, as bytes."""
    try:
        return json.loads(packed) if packed else None
    except (ValueError, RecursionError):
        return None
