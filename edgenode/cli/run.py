"""`edgenode run`: one node in the foreground."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from edgenode.cli import node_options
from edgenode.cli.output import FAILED, USAGE
from edgenode.core.errors import EdgeNodeError, RejectedInput
from edgenode.core.settings import WEIGHT_MAX, WEIGHT_MIN

PARENT_VARIABLE: Final = "EDGENODE_PARENT_PID"
"""Set by `edgenode up`: the node ends when that process does, however it ends."""
PROCESSORS: Final = max(1, os.cpu_count() or 1)
GARBAGE: Final = (5_000, 20, 10)
"""When Python looks for garbage: among the new objects when there are so many more of them, among those that
outlived one search after so many searches, and in all that there is after so many of those. By default, which
is (700, 10, 10), a node that fills up did the last every 10,000 jobs; with 600,000 queued it stood still for
0.4 s then (on a busy machine), and used a tenth more CPU for each job than at the beginning."""
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def run(
    name: Annotated[
        str, typer.Option(metavar="NAME", help="What people call this node. [default: host name and port]")
    ] = "",
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Its disk: identity, jobs, results. [default: .edgenode/NAME]"),
    ] = None,
    api: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where it serves HTTP; a loopback address.")
    ] = "127.0.0.1:8701",
    peer: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Where other nodes reach it (mutual TLS). [default: INTERFACE:9701]",
        ),
    ] = "",
    join: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT", help="--peer of a node of the mesh, where mDNS does not reach; repeats."
        ),
    ] = None,
    mesh_key: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The mesh's secret: nodes with the same key find each other."),
    ] = Path(".edgenode/mesh.key"),
    tasks: node_options.Tasks = None,
    slots: node_options.Slots = PROCESSORS,
    async_slots: node_options.AsyncSlots = 100,
    worker_max_jobs: node_options.WorkerMaxJobs = 0,
    worker_max_memory: node_options.WorkerMaxMemory = "0",  # type: ignore[assignment]  # read as if it were given
    label: node_options.Label = None,
    weight: Annotated[
        float,
        typer.Option(
            min=WEIGHT_MIN, max=WEIGHT_MAX, metavar="W", help="Share of new jobs, relative to the others'."
        ),
    ] = 1.0,
    replicas: node_options.Replicas = None,
    max_jobs: node_options.MaxJobs = node_options.UNFINISHED_MAX,
    profile: node_options.Profile = "lan",
    forget_after: node_options.ForgetAfter = None,
    drain_limit: node_options.DrainLimit = None,
    mdns: Annotated[bool, typer.Option("--mdns/--no-mdns", help="Find peers on this network.")] = True,
    interface: Annotated[
        str, typer.Option(metavar="ADDRESS", help="This machine's, to find peers on and be found.")
    ] = "127.0.0.1",
    new_identity: Annotated[
        bool,
        typer.Option(
            "--new-identity", help="For one start, on a disk that was put back or copied: a new member."
        ),
    ] = False,
    log_level: node_options.LogLevel = "info",
) -> None:
    """Run one node until it is told to end.

    Ctrl-C ends it at once; SIGTERM first hands its jobs to the others, and lets what runs end (a second one
    does not). Either way nothing acknowledged is lost: what it had goes on elsewhere, and its disk is read
    again at the next start.

    \b
    edgenode key new .edgenode/mesh.key
    edgenode run                                             # alone on this machine
    edgenode run --interface 192.168.1.5                     # on a network: found by mDNS
    edgenode run --api 127.0.0.1:8702 --peer 127.0.0.1:9702 --join 127.0.0.1:9701
    """
    die_with_up()
    _start_logging(log_level)
    api_address = node_options.parse_address(api, "--api")
    peer_address = node_options.parse_address(peer or f"{interface}:9701", "--peer")
    name = name or f"{socket.gethostname().split('.')[0]}-{api_address[1]}"
    if not NAME.fullmatch(name):
        raise typer.BadParameter(
            f"expected letters, digits, dots, dashes and underscores, not {name!r}", param_hint="--name"
        )
    # Heavy imports wait until the options are known to be right: `--help` answers quickly.
    from edgenode.cli.host import HostSettings, host
    from edgenode.shell.identity import load_mesh_key
    from edgenode.task import load_tasks

    sources = tuple(tasks or ("edgenode.tasks",))
    try:
        if not mesh_key.exists():
            raise RejectedInput(
                f"there is no mesh key at {mesh_key}: make one with `edgenode key new {mesh_key}`"
            )
        settings = HostSettings(
            name=name,
            data_dir=data_dir or Path(".edgenode") / name,
            mesh_key=load_mesh_key(mesh_key),
            api=api_address,
            peer=peer_address,
            join=tuple(node_options.parse_address(text, "--join") for text in join or ()),
            tasks=sources,
            slots=slots,
            async_slots=async_slots,
            worker_jobs_max=worker_max_jobs,
            worker_memory_bytes_max=worker_max_memory,
            labels=node_options.parse_labels(label or (), "--label"),
            profile=profile,
            mdns=mdns,
            interface=interface,
            weight=weight,
            new_identity=new_identity,
            forget_after_s=forget_after,
            drain_limit_s=drain_limit,
            replicas=replicas,
            unfinished_max=max_jobs,
        )
        registry = load_tasks(sources)
        _run_loop(host(settings, registry, lambda node, url: typer.echo(f"{name} ({node}) serves {url}")))
    except EdgeNodeError as error:
        typer.echo(f"edgenode: {error.detail}", err=True)
        raise typer.Exit(USAGE if isinstance(error, RejectedInput) else FAILED) from error


def _start_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)-7s %(message)s", stream=sys.stderr
    )
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
    logging.getLogger("zeroconf").setLevel(logging.ERROR)


def _run_loop(main: Coroutine[object, object, None]) -> None:
    """Run on uvloop where there is one: a third more requests for the same CPU."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    gc.freeze()  # what is loaded stays: to look through it for garbage takes 50 ms, again and again
    gc.set_threshold(*GARBAGE)
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            runner.run(main)
        except* EdgeNodeError as group:
            raise group.exceptions[0] from None


def die_with_up() -> None:
    """A node that `edgenode up` started does not outlive it, not even when that is killed."""
    parent = os.environ.get(PARENT_VARIABLE, "")
    if parent.isdecimal():
        from edgenode.shell.worker_main import die_with_parent

        die_with_parent(int(parent))
