"""`edgenode batch`: jobs that were submitted in one request, as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from edgenode.cli.output import (
    FAILED,
    UNKNOWN,
    JsonOption,
    UrlOption,
    client_of,
    errors_told,
    plain,
    print_json,
)

ID = typer.Argument(metavar="ID", help="The batch's id, as `submit --batch` printed it.")


def show_batch(
    batch: Annotated[str, ID],
    wait: Annotated[bool, typer.Option("--wait", help="Until all its jobs have ended, for good.")] = False,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", "--wait-timeout", metavar="SECONDS", help="With --wait: when to stop waiting.", min=0
        ),
    ] = 3600.0,
    cancel: Annotated[bool, typer.Option("--cancel", help="End all that have not ended.")] = False,
    jobs: Annotated[
        bool, typer.Option("--jobs", help="Also each job's id and state, one a line, in its order.")
    ] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how far the jobs of one request are, wait for all of them, or cancel those that are left.

    \b
    edgenode batch 01930000-0000-7a82-8000-000000000002 --wait
    edgenode batch 01930000-0000-7a82-8000-000000000002 --jobs | grep failed

    Exits with 0 if all have succeeded, or not all have ended and --wait was not said; with 1 if some have
    not succeeded; with 3 if the time was over before they had settled, or some are not known.
    """
    with errors_told(as_json=as_json):
        client = client_of(url)
        if cancel:
            client.cancel_batch(batch)
        found = client.wait_batch(batch, timeout_s=timeout) if wait else {}
        if jobs:
            found = client.batch_jobs(batch)
        elif not wait:
            found = client.batch(batch)
        if as_json:
            print_json(found)
    if not as_json:
        _tell(found, has_jobs=jobs)
    if wait and not found["settled"]:
        typer.echo(f"not all have settled after {timeout:g} s", err=True)
    if found["unknown"] or (wait and not found["settled"]):
        raise typer.Exit(UNKNOWN)
    failed = found["ended"] and set(found["states"]) - {"succeeded"}
    raise typer.Exit(FAILED if failed and not cancel else 0)


def _tell(found: Mapping[str, Any], *, has_jobs: bool) -> None:
    """The sum; on stderr if stdout has the jobs."""
    from edgenode.client.job import ENDS

    for job in found["jobs"] if has_jobs else ():
        so_far = job["state"] in ENDS and not job["settled"]
        typer.echo(f"{plain(job['id'])} {plain(job['state'])}{' (unsettled)' * so_far}")
    states = ", ".join(f"{count} {plain(state)}" for state, count in found["states"].items())
    typer.echo(f"batch {plain(found['id'])}: {found['size']} jobs: {states}", err=has_jobs)
    if found["missing"]:
        typer.echo(f"{found['missing']} were not taken, or are forgotten", err=True)
    if found["unknown"]:
        typer.echo(f"{found['unknown']} are not known: some members do not answer", err=True)
