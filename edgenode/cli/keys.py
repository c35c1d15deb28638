"""`edgenode key`: the secret that makes a mesh."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgenode.cli.output import USAGE, JsonOption, print_json

keys = typer.Typer(help="Make mesh keys.", no_args_is_help=True)


@keys.callback()
def _keys() -> None:
    """Make mesh keys: nodes with the same key are one mesh, and nobody else gets in."""


@keys.command("new")
def new_key(
    path: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
    as_json: JsonOption = False,
) -> None:
    """Write a new mesh key to a file that only you can read.

    Copy it to each machine of the mesh, by a way that nobody else can read.

    \b
    edgenode key new mesh.key
    scp mesh.key other-machine:
    edgenode run --mesh-key mesh.key
    """
    from edgenode.core.errors import EdgeNodeError
    from edgenode.shell.identity import new_mesh_key

    try:
        key = new_mesh_key(path)
    except EdgeNodeError as error:
        typer.echo(f"error: {error.detail}", err=True)
        raise typer.Exit(USAGE) from None
    if as_json:
        print_json({"path": str(path), "mesh_id": key.mesh_id})
    else:
        typer.echo(f"{path}: the key of mesh {key.mesh_id}. Whoever has this file is in: keep it secret.")
