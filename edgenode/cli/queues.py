"""`edgenode queues` and `queue`: what is set for the mesh's queues, and changes of that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from edgenode.cli.output import (
    UNKNOWN,
    JsonOption,
    UrlOption,
    client_of,
    errors_told,
    names_of,
    plain,
    print_json,
    print_table,
)

NONE = "none"


def show_queues(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show the queues that have settings, or jobs: how many of these wait and run in the whole mesh.

    Names on stderr the members that were not heard: their jobs are not counted.
    """
    with errors_told(as_json=as_json):
        client = client_of(url)
        queues = client.queues()
        silent = sorted(queues.unanswered)
        name = names_of(client) if silent and not as_json else plain
    if as_json:
        print_json({"queues": queues, "unanswered": silent, "left_out": queues.left_out})
    elif queues:
        _print(queues, are_counted=True)
    else:
        typer.echo("no queue has settings, or jobs", err=True)
    if queues.left_out:
        typer.echo("further queues have jobs: there are too many to show", err=True)
    if silent:
        typer.echo(f"not heard, and not counted: {', '.join(map(name, silent))}", err=True)
        raise typer.Exit(0 if queues else UNKNOWN)


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
        str | None, typer.Option(metavar="B", help="With a rate: so many may start at once, or none: 1.")
    ] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="As if nothing had ever been set: not paused, no limits.")
    ] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pause or resume a queue, or limit it, in the whole mesh. What is running goes on.

    \b
    edgenode queue mail --pause
    edgenode queue mail --resume
    edgenode queue mail --concurrency 5 --rate 50 --burst 10
    edgenode queue mail --concurrency none        removes the limit
    edgenode queue mail --reset

    Exits with 3 if not every living member has said that it knows of the change yet.
    """
    changes: dict[str, Any] = {} if pause is None else {"paused": pause}
    for field, given in (("concurrency", concurrency), ("rate", rate), ("burst", burst)):
        if given is not None:
            changes[field] = _number(field, given, float if field == "rate" else int)
    if reset and changes:
        raise typer.BadParameter("this leaves nothing to be set: say it alone", param_hint="--reset")
    if not changes and not reset:
        raise typer.BadParameter("say what is to change: --pause, --concurrency, --rate, --burst, --reset")
    with errors_told(as_json=as_json):
        client = client_of(url)
        queue = client.reset_queue(name) if reset else client.change_queue(name, **changes)
    if as_json:
        print_json(queue)
    else:
        _print([queue])
    if queue["known"] < queue["living"]:
        if not as_json:
            typer.echo(f"known to {queue['known']} of {queue['living']} members so far", err=True)
        raise typer.Exit(UNKNOWN)


def _number(field: str, given: str, number: type[int] | type[float]) -> int | float | None:
    if given == NONE:
        return None
    try:
        found = number(given)
    except ValueError:
        found = math.nan
    if isinstance(found, float) and not math.isfinite(found):  # JSON has no word for it
        raise typer.BadParameter("expected a number, or none", param_hint=f"--{field}")
    if found == 0:
        text = f"0 is no limit: --pause has nothing started, --{field} {NONE} removes the limit"
        raise typer.BadParameter(text, param_hint=f"--{field}")
    return found


def _print(queues: Sequence[Mapping[str, Any]], *, are_counted: bool = False) -> None:
    counts = ("queued", "running") if are_counted else ()
    rows = (
        (
            plain(queue["name"]),
            "paused" if queue["paused"] else "open",
            str(queue["concurrency"] or "-"),
            "-" if queue["rate"] is None else f"{queue['rate']:g}/s",
            str(queue["burst"] or "-"),
            *(str(queue[count]) for count in counts),
        )
        for queue in queues
    )
    numbers = ("CONCURRENCY", "RATE", "BURST", *map(str.upper, counts))
    print_table(("QUEUE", "STATE", *numbers), rows, right=numbers)
