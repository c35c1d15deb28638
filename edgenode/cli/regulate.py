"""`edgenode drain`, `undrain` and `weight`: how a node takes part."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from edgenode.cli.output import (
    FAILED,
    GONE,
    UNKNOWN,
    JsonOption,
    UrlOption,
    client_of,
    errors_told,
    plain,
    print_json,
)
from edgenode.core.settings import WEIGHT_MAX, WEIGHT_MIN

if TYPE_CHECKING:
    from edgenode.client import Client

LOOK_S: Final = 0.2
OVER: Final = ("drained", *GONE)
"""States in which a drain has come to its end."""

NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="Its name or its id.", show_default=False)]


def drain(
    node: NodeArgument,
    limit_s: Annotated[
        float | None,
        typer.Option(
            "--limit-s",
            min=0,
            max=86_400,
            help="Seconds that running jobs may still take. [default: as `run --drain-limit` has it]",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until it is drained.")] = False,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", "--wait-timeout", metavar="SECONDS", help="With --wait: when to stop waiting.", min=0
        ),
    ] = 3600.0,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have a node give its jobs to the others and run nothing; it stays a member, until `undrain`.

    \b
    edgenode drain node-2 --limit-s 60 --wait --timeout 300

    With --wait it exits with 1 if the node has died or left, and with 3 if it is not drained when the time is
    over; it goes on then.
    """
    with errors_told(as_json=as_json):
        client = client_of(url)
        member = member_named(client, node)
        found = client.drain(member, limit_s=limit_s)
        ends_at = time.monotonic() + timeout
        while wait and found["state"] not in OVER and (left_s := ends_at - time.monotonic()) > 0:
            time.sleep(min(LOOK_S, left_s))
            found = client.node(member)
    _show(found, as_json=as_json)
    if wait and found["state"] in GONE:
        raise typer.Exit(FAILED)
    if wait and found["state"] not in OVER:
        typer.echo(f"{plain(found['name'])} is not drained after {timeout:g} s; it goes on", err=True)
        hint = (
            "see `edgenode nodes`; what no other node can take stays there; `edgenode undrain` ends the drain"
        )
        typer.echo(f"  {hint}", err=True)
        raise typer.Exit(UNKNOWN)


def undrain(node: NodeArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Have a drained node take jobs again.

    \b
    edgenode undrain node-2
    """
    with errors_told(as_json=as_json):
        client = client_of(url)
        found = client.undrain(member_named(client, node))
    _show(found, as_json=as_json)


def weight(
    node: NodeArgument,
    value: Annotated[float, typer.Argument(metavar="W", min=WEIGHT_MIN, max=WEIGHT_MAX, show_default=False)],
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a node another share of new jobs, relative to the others'; until it is started again.

    \b
    edgenode weight node-2 0.5
    """
    with errors_told(as_json=as_json):
        client = client_of(url)
        found = client.change_node(member_named(client, node), weight=value)
    _show(found, as_json=as_json)


def member_named(client: Client, text: str) -> str:
    """The id of the member with this id or name; of several with one name, the one that lives.

    Raises:
        typer.BadParameter: there is none, or more than one.
    """
    nodes = client.nodes()
    found = [member for member in nodes if member["id"] == text]
    found = found or [member for member in nodes if member["name"] == text]
    living = [member for member in found if member["state"] not in GONE]
    match living or found:
        case [only]:
            return str(only["id"])
        case []:
            names = ", ".join(sorted({plain(member["name"]) for member in nodes}))
            raise typer.BadParameter(f"no node is called {text!r}; there are {names}", param_hint="NODE")
        case several:
            ids = ", ".join(plain(member["id"]) for member in several)
            raise typer.BadParameter(f"several nodes are called {text!r}: {ids}", param_hint="NODE")


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    load = found["load"]
    told = f"owns {load['owned']}, runs {load['running']}, weight {found['weight']:g}"
    typer.echo(f"{plain(found['name'])} is {plain(found['state'])}: {told}")
