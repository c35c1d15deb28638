"""`edgenode queues` and `queue`: what is set for the mesh's queues, and changes of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from edgenode.cli.output import (
    UNKNOWN,
    JsonOption,
    UrlOption,
    client_of,
    errors_told,
    plain,
    print_json,
    print_table,
)

NONE = ("none", "0")


def show_queues(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show the queues that have settings, or jobs on the node that is asked.

    QUEUED HERE and RUNNING HERE count the jobs that this node owns: others own more of the same queue.
    """
    with errors_told(as_json=as_json):
        queues = client_of(url).queues()
    if as_json:
        print_json({"queues": queues})
    elif queues:
        _print(queues)
    else:
        typer.echo("no queue has settings, or jobs here", err=True)


def change_queue(
    name: Annotated[str, typer.Argument(help="The queue's name.")],
    pause: Annotated[bool | None, typer.Option("--pause/--resume", help="Start nothing, or go on.")] = None,
    concurrency: Annotated[
        str | None, typer.Option(metavar="N", help="At most so many run at a time in the mesh, or none.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="R", help="At most so many start per second in the mesh, or none.")
    ] = None,
    burst: Annotated[
        str | None, typer.Option(metavar="B", help="With a rate: so many may start at once.")
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pause or resume a queue, or limit it, in the whole mesh. What is running goes on.

    \b
    edgenode queue mail --pause
    edgenode queue mail --resume
    edgenode queue mail --concurrency 5 --rate 50 --burst 10
    edgenode queue mail --concurrency none

    Exits with 3 if not every living member has said that it knows of the change yet.
    """
    changes: dict[str, Any] = {} if pause is None else {"paused": pause}
    for field, given in (("concurrency", concurrency), ("rate", rate), ("burst", burst)):
        if given is not None:
            changes[field] = _number(field, given, float if field == "rate" else int)
    if not changes:
        raise typer.BadParameter("say what is to change: --pause, --concurrency, --rate, --burst")
    with errors_told(as_json=as_json):
        queue = client_of(url).change_queue(name, **changes)
    if as_json:
        print_json(queue)
    else:
        _print([queue])
    if queue["known"] < queue["living"]:
        if not as_json:
            typer.echo(f"known to {queue['known']} of {queue['living']} members so far", err=True)
        raise typer.Exit(UNKNOWN)


def _number(field: str, given: str, number: type[int] | type[float]) -> int | float | None:
    if given in NONE:
        return None
    try:
        return number(given)
    except ValueError:
        raise typer.BadParameter("expected a number, or none", param_hint=f"--{field}") from None


def _print(queues: Sequence[Mapping[str, Any]]) -> None:
    rows = (
        (
            plain(queue["name"]),
            "paused" if queue["paused"] else "open",
            str(queue["concurrency"] or "-"),
            "-" if queue["rate"] is None else f"{queue['rate']:g}/s",
            str(queue["burst"] or "-"),
            str(queue["queued"]),
            str(queue["running"]),
        )
        for queue in queues
    )
    numbers = ("CONCURRENCY", "RATE", "BURST", "QUEUED HERE", "RUNNING HERE")
    print_table(("QUEUE", "STATE", *numbers), rows, right=numbers)
