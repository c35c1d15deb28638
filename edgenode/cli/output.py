"""How commands talk: options they share, tables for people, JSON for scripts, errors with what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from edgenode.client import Client, ClientError

FAILED: Final = 1
USAGE: Final = 2
UNKNOWN: Final = 3
INTERRUPTED: Final = 130

UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL,...", help="Nodes to ask.", envvar="EDGENODE_URL", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
StateOption = Annotated[str | None, typer.Option(help="Only in this state.", metavar="STATE")]
TaskOption = Annotated[str | None, typer.Option(help="Only of this task.", metavar="NAME")]
QueueOption = Annotated[str | None, typer.Option(help="Only in this queue.", metavar="NAME")]
GONE: Final = ("dead", "left")
"""States of members that take part no more: what they said last is not so any longer."""

COLOURS: Final = {
    "succeeded": "green",
    "ready": "green",
    "held": "green",
    "running": "cyan",
    "failed": "red",
    "dead": "red",
    "unreachable": "red",
    "resigned": "red",
    "expired": "yellow",
    "cancelled": "yellow",
    "suspect": "yellow",
    "behind": "red",
    "leaving": "yellow",
    "draining": "yellow",
    "drained": "yellow",
}
_WIDE: Final = 220  # columns when nobody looks: a pipe must get whole ids


def client_of(url: str | None) -> Client:
    """A client of these nodes; a malformed URL ends the command."""
    from edgenode.client import Client

    try:
        return Client(url)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--url") from None


def console(*, to_stderr: bool = False) -> Console:
    from rich.console import Console

    stream = sys.stderr if to_stderr else sys.stdout
    return Console(
        file=stream, width=None if stream.isatty() else _WIDE, highlight=False, markup=False, emoji=False
    )


def print_table(headings: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
    """Lines below headings; the first column, and any `ID`, is never folded.

    Args:
        right: the headings of columns of numbers.
    """
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(
            heading,
            justify="right" if heading in right else "left",
            no_wrap=place == 0 or heading in ("ID", "API"),
        )
    for row in rows:
        table.add_row(*row)
    console().print(table)


def print_json(value: Any) -> None:
    """One JSON document: indented for a terminal, on one line for a pipe."""
    typer.echo(json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def plain(value: object) -> str:
    """Text that may be shown: what tasks and peers wrote can't move the cursor or colour the screen."""
    if value is None:
        return "-"
    text = str(value)
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    )


def styled(state: object) -> Any:
    """A state in its colour."""
    from rich.text import Text

    text = plain(state)
    return Text(text, style=COLOURS.get(text, ""))


@contextmanager
def errors_told(*, as_json: bool) -> Iterator[None]:
    """Turns what a client may meet into a line on stderr, with what to do, and an exit code."""
    from edgenode.client import ClientError

    try:
        yield
    except ClientError as error:
        tell_error(error, as_json=as_json)
        raise typer.Exit(exit_code(error)) from None


def tell_error(error: ClientError, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(error_fields(error)), err=True)
        return
    typer.echo(f"error: {plain(error)}", err=True)
    hint = _hint(error)
    if hint:
        typer.echo(f"  {hint}", err=True)


def error_fields(error: ClientError) -> dict[str, Any]:
    """A problem as the node gave it; else one of the client's own."""
    from edgenode.client import Refused

    if isinstance(error, Refused):
        return error.problem
    fields = {"title": type(error).__name__, "detail": str(error), "definite": error.definite}
    job = job_named(error)
    return fields if job is None else fields | {"job": job}


def job_named(error: ClientError) -> str | None:
    """The id of the job that an error is about, if whoever told it knew it."""
    from edgenode.client import OutcomeUnknown, Refused

    match error:
        case OutcomeUnknown(job=str() as job) | Refused(problem={"job": str() as job}):
            return job
        case _:
            return None


def exit_code(error: ClientError) -> int:
    from edgenode.client import Refused

    if not isinstance(error, Refused) or not error.definite or error.status == 429 or error.status >= 500:
        return UNKNOWN
    return FAILED if error.status == 404 else USAGE


def _hint(error: ClientError) -> str:
    from edgenode.client import NoNodeReachable, OutcomeUnknown, Refused

    match error:
        case NoNodeReachable():
            return "start one with `edgenode up`, or name another with --url or EDGENODE_URL"
        case OutcomeUnknown(is_repeatable=True):
            return "it may be done all the same: to be sure say the same again, which does no harm"
        case OutcomeUnknown(job=str() as job):
            return (
                f"it may run all the same: look with `edgenode job {plain(job)}` before you submit it again"
            )
        case OutcomeUnknown():
            return "it may run all the same: look with `edgenode jobs` before you submit it again"
        case Refused(slug="key-reused", problem={"job": str() as job}):
            return f"the job that has it: `edgenode job {plain(job)}`"
        case Refused(slug="job-not-found"):
            return "`edgenode jobs` lists what there is"
        case Refused(slug="node-not-found"):
            return "`edgenode nodes` lists what there is"
        case Refused(slug="no-such-batch"):
            return "a batch has the id that `edgenode submit --batch` printed, as long as its jobs are kept"
        case _:
            return ""


def tell_unheard(silent: Iterable[object], name: Callable[[object], str], *, found: bool) -> None:
    """Say on stderr which members were not heard, so that what was found may not be all there is."""
    told = "these may not be all" if found else "there may be such jobs"
    typer.echo(f"{told}: not heard: {', '.join(map(name, silent))}", err=True)


def names_of(client: Client) -> Callable[[object], str]:
    """From node ids to names; an id that no member has stays as it is."""
    from edgenode.client import ClientError

    names: Mapping[str, str] = {}
    try:
        names = {node["id"]: node["name"] for node in client.nodes()}
    except (ClientError, KeyError):
        names = {}  # ids do as well
    return lambda node: plain(names.get(str(node), node) if node else None)
