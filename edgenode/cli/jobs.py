"""`edgenode jobs`, `job` and `placement`: what there is, what became of one, and where it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgenode.cli.output import (
    UNKNOWN,
    JsonOption,
    QueueOption,
    StateOption,
    TaskOption,
    UrlOption,
    client_of,
    console,
    errors_told,
    names_of,
    plain,
    print_json,
    print_table,
    styled,
    tell_unheard,
)

if TYPE_CHECKING:
    from edgenode.client import Job

JobArgument = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as `submit` printed it.")]


def show_jobs(
    state: StateOption = None,
    task: TaskOption = None,
    queue: QueueOption = None,
    retried: Annotated[
        bool | None,
        typer.Option("--retried/--not-retried", help="Only what was tried again, or what was not."),
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 50,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs of the whole mesh, newest first; before them, in no order of time, those with a key of their
    own and retries, whose ids are hashes.

    States: scheduled, waiting, queued, running; then succeeded, failed, cancelled, expired.

    \b
    edgenode jobs --state failed --not-retried
    edgenode jobs --task image.resize --limit 1000 --json | jq -r '.jobs[].id'
    """
    with errors_told(as_json=as_json):
        client = client_of(url)
        listing = client.jobs(state=state, task=task, queue=queue, retried=retried, page=min(limit, 1000))
        found = list(islice(listing, limit))
        silent = sorted(listing.unanswered)
        if as_json:
            print_json({"jobs": [job.fields for job in found], "unanswered": silent})
        name = names_of(client) if (found or silent) and not as_json else plain
    if found and not as_json:
        _print_jobs(found, name)
    elif not silent and not as_json:
        typer.echo("no such jobs", err=True)
    if silent:
        tell_unheard(silent, name, found=bool(found))
        raise typer.Exit(0 if found else UNKNOWN)


def _print_jobs(found: Sequence[Job], name: Callable[[object], str]) -> None:
    waits = ["WAITS FOR"] if any(job.fields["waiting_for"] for job in found) else []
    rows = (
        (
            plain(job.id),
            plain(job.task),
            _state(job.fields),
            name(job.fields["owner"]),
            name(job.fields["runner"]),
            _time(job.fields["submitted_at"]),
            f"{job.fields['attempt']}/{job.fields['max_attempts']}",
            str(job.fields["takeovers"]),
            *(plain(job.fields["waiting_for"] or "") for _ in waits),
        )
        for job in found
    )
    headings = ("ID", "TASK", "STATE", "OWNER", "RUNNER", "SUBMITTED", "TRY", "MOVED", *waits)
    print_table(headings, rows, right=("TRY", "MOVED"))


def show_job(job: JobArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show one job: state, result, and what happened to it.

    \b
    edgenode job 01930000-0000-7000-8000-000000000000
    """
    with errors_told(as_json=as_json):
        client = client_of(url)
        found = client.get(job)
        if as_json:
            print_json(found.fields)
            return
        name = names_of(client)
    print_card(found.fields, name)


def print_card(fields: Any, name: Callable[[object], str]) -> None:
    """All there is to say of one job, for people."""
    import json

    from rich.table import Table
    from rich.text import Text

    def compact(value: object) -> str:
        text = json.dumps(value, ensure_ascii=False)
        return plain(
            text if len(text) <= 2_000 else text[:2_000] + f"... ({len(text)} characters, see --json)"
        )

    starts = fields["starts"]
    rows: list[tuple[str, Any]] = [
        ("job", plain(fields["id"])),
        ("task", plain(fields["task"])),
        ("state", _state(fields)),
        ("waits for", plain(fields["waiting_for"] or "-")),
        ("payload", Text(compact(fields["payload"]))),
        ("result", Text(_result(fields, compact))),
        ("progress", Text(_progress(fields.get("progress")))),
        ("partial", Text("-" if fields.get("partial") is None else compact(fields["partial"]))),
        ("error", Text(plain(fields["error"]), style="red" if fields["error"] else "")),
        ("retry of", plain(fields.get("retry_of"))),
        ("retried by", plain(fields.get("retried_by"))),
        ("queue", f"{plain(fields['queue'])}, priority {fields['priority']}"),
        (
            "attempt",
            f"{fields['attempt']} of {fields['max_attempts']} ({starts} starts, {fields['losses']} lost)",
        ),
        ("owner", f"{name(fields['owner'])} (term {fields['term']}, {fields['takeovers']} takeovers)"),
        ("runner", name(fields["runner"])),
        ("holders", ", ".join(name(node) for node in fields["holders"])),
        ("submitted", _time(fields["submitted_at"])),
        ("not before", _time(fields["run_at"])),
        ("started", _time(fields["started_at"])),
        ("finished", _time(fields["finished_at"])),
    ]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        if str(value) != "-":
            table.add_row(label, value)
    for label, note in zip(["history"] + [""] * 99, fields["history"], strict=False):
        detail = plain(note["detail"]).partition("\n")[0]  # a traceback's further lines are in --json
        told = f"{_time(note['at'])}  {plain(note['kind'])} at {name(note['node'])}  {detail}"
        table.add_row(label, Text(told.rstrip()))
    console().print(table)


def _result(fields: Mapping[str, Any], compact: Callable[[object], str]) -> str:
    if fields.get("result_expired"):
        return "not kept any more: the job ended longer ago than its ttl_s"
    return "-" if fields["result"] is None else compact(fields["result"])


def _progress(progress: Mapping[str, Any] | None) -> str:
    if progress is None:
        return "-"
    told = f"{progress['fraction']:.0%}, {_time(progress['at'])}"
    return f"{told}: {plain(progress['message'])}" if progress["message"] else told


def show_placement(job: JobArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show where a job is: its holders and what each has on disk, its owner, and who would be next.

    \b
    edgenode placement 01930000-0000-7000-8000-000000000000
    """
    with errors_told(as_json=as_json):
        client = client_of(url)
        found = client.placement(job)
        if as_json:
            print_json(found)
            return
        name = names_of(client)
    ranks = {place["id"]: number for number, place in enumerate(found["rank"], 1)}
    roles = {found["next"]: "next", found["owner"]: "owner"}
    rows = (
        (
            name(holder["id"]),
            plain(ranks.get(holder["id"])),
            styled(holder["state"]),
            styled(holder["copy"]["status"]),
            styled(holder["copy"].get("state")),
            plain(holder["copy"].get("term")),
            name(holder["copy"].get("owner")),
            roles.get(holder["id"], ""),
        )
        for holder in found["holders"]
    )
    headings = ("HOLDER", "RANK", "NODE", "COPY", "JOB", "TERM", "OWNER THERE", "")
    print_table(headings, rows, right=("RANK", "TERM"))
    typer.echo("rank: " + " > ".join(name(place["id"]) for place in found["rank"]))


def _state(fields: Any) -> Any:
    """The state in its colour; an outcome that may still give way to another is "(unsettled)", and one of a
    job that was tried again "(retried)"."""
    shown = styled(fields["state"])
    if fields.get("retried_by"):
        shown.append(" (retried)", style="dim")
    if fields["finished_at"] is not None and not fields["settled"]:
        shown.append(" (unsettled)", style="dim")
    return shown


def _time(text: str | None) -> str:
    """A time of the API in the reader's own zone."""
    from datetime import datetime

    if text is None:
        return "-"
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return plain(text)
