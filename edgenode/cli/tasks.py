"""`edgenode tasks`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgenode.cli.output import (
    FAILED,
    JsonOption,
    UrlOption,
    client_of,
    errors_told,
    plain,
    print_json,
    print_table,
)


def show_tasks(
    name: Annotated[str | None, typer.Argument(help="Show what this one takes, as a JSON Schema.")] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the tasks of the mesh, or what one of them takes.

    \b
    edgenode tasks
    edgenode tasks image.resize
    """
    with errors_told(as_json=as_json):
        tasks = client_of(url).tasks()
    if name is not None:
        _show_one(next((task for task in tasks if task["name"] == name), None), name, as_json=as_json)
    elif as_json:
        print_json({"tasks": tasks})
    else:
        _print_tasks(tasks)


def _show_one(task: dict[str, Any] | None, name: str, *, as_json: bool) -> None:
    if task is None:
        typer.echo(f"error: no living node has a task {plain(name)!r}; `edgenode tasks` lists them", err=True)
        raise typer.Exit(FAILED)
    if as_json:
        print_json(task)
    elif task["schema"] is None:
        nodes = ", ".join(f"{plain(node['name'])} ({plain(node['api'])})" for node in task["nodes"])
        typer.echo(f"error: who has it has not said what it takes; ask it with --url: {nodes}", err=True)
        raise typer.Exit(FAILED)
    else:
        print_json(task["schema"])


def _print_tasks(tasks: list[dict[str, Any]]) -> None:
    rows = (
        (
            plain(task["name"]),
            "inline" if task["inline"] else "async" if task["async"] else "def",
            f"{task['timeout_s']:g} s" if task["timeout_s"] else "-",
            plain(task["max_attempts"] or None),
            ", ".join(plain(node["name"]) for node in task["nodes"]),
            _parameters(task["schema"]),
            plain(task["summary"]),
        )
        for task in tasks
    )
    print_table(("TASK", "KIND", "TIMEOUT", "TRIES", "NODES", "PARAMETERS", "SUMMARY"), rows)


def _parameters(schema: dict[str, Any] | None) -> str:
    """Their names; `=` marks those that may be left out. "-" where nobody has said."""
    if schema is None:
        return "-"
    required = schema.get("required", [])
    return " ".join(plain(each) + "=" * (each not in required) for each in schema.get("properties", {}))
