"""`edgenode nodes`."""

from __future__ import annotations

from edgenode.cli.output import (
    GONE,
    JsonOption,
    UrlOption,
    client_of,
    errors_told,
    plain,
    print_json,
    print_table,
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
    figures = ("owned", "queued", "running", "done", "free")
    rows = (
        (
            plain(node["name"]),
            styled(node["state"]),
            plain(node["api"]),
            *("-" if node["state"] in GONE else str(node["load"][figure]) for figure in figures),
            "here" if node["self"] else "never" if node["heard_s"] is None else f"{node['heard_s']:.1f} s",
            plain(node["id"]),
        )
        for node in nodes
    )
    numbers = (*map(str.upper, figures), "HEARD")
    print_table(("NAME", "STATE", "API", *numbers, "ID"), rows, right=numbers)
