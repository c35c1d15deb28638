"""`edgenode nodes`."""

from __future__ import annotations

from edgenode.cli.output import (
    JsonOption,
    UrlOption,
    client_of,
    console,
    errors_told,
    plain,
    print_json,
    styled,
)


def show_nodes(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show the members of the mesh, as the node that is asked sees them.

    \b
    edgenode nodes
    edgenode nodes --json | jq -r '.nodes[] | select(.state == "ready") | .api'
    """
    with errors_told(as_json=as_json):
        nodes = client_of(url).nodes()
    if as_json:
        print_json({"nodes": nodes})
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("NAME", no_wrap=True)
    table.add_column("STATE")
    table.add_column("API", no_wrap=True)
    figures = ("owned", "queued", "running", "done", "free")
    for figure in figures:
        table.add_column(figure.upper(), justify="right")
    table.add_column("HEARD", justify="right")
    table.add_column("ID", no_wrap=True)
    for node in nodes:
        load = node["load"]
        is_over = node["state"] in ("dead", "left")  # what it said last is not so any more
        table.add_row(
            plain(node["name"]),
            styled(node["state"]),
            plain(node["api"]),
            *("-" if is_over else str(load[figure]) for figure in figures),
            "here" if node["self"] else "never" if node["heard_s"] is None else f"{node['heard_s']:.1f} s",
            plain(node["id"]),
        )
    console().print(table)
