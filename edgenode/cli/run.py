"""`edgenode run`: one node in the foreground."""

from __future__ import annotations

import asyncio
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

from edgenode.cli.output import FAILED, USAGE
from edgenode.core.errors import EdgeNodeError, RejectedInput
from edgenode.core.settings import PRESETS, WEIGHT_MAX, WEIGHT_MIN
from edgenode.core.types import WORD, is_host

PARENT_VARIABLE: Final = "EDGENODE_PARENT_PID"
"""Set by `edgenode up`: the node ends when that process does, however it ends."""
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
SIZE: Final = re.compile(r"(\d{1,15}) ?([KMG]?)(?:i?B)?", re.IGNORECASE | re.ASCII)
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


def parse_address(text: str, option: str) -> tuple[str, int]:
    """HOST:PORT, with an IPv6 host in brackets.

    Raises:
        typer.BadParameter: it is not one.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not is_host(host) or not port.isdecimal() or int(port) > 65_535:
        raise typer.BadParameter(f"{option} needs HOST:PORT, as in 127.0.0.1:8701, not {text!r}")
    return host, int(port)


def parse_size(text: str, option: str) -> int:
    """A number of bytes, or of K, M or G of them (1024 each time).

    Raises:
        typer.BadParameter: it is not one.
    """
    found = SIZE.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{option} needs a number of bytes, as in 512M or 2G, not {text!r}")
    return int(found[1]) << 10 * " KMG".index(found[2].upper() or " ")


def parse_label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not (WORD.fullmatch(key) and WORD.fullmatch(value)):
        raise typer.BadParameter(
            f"--label needs KEY=VALUE, as in zone=north, each of 1 to 128 letters, digits, or any of"
            f" _ . : / - after the first, or no job could require it; not {text!r}"
        )
    return key, value


def run(
    name: Annotated[str, typer.Option(help="What people call this node. [default: host name and port]")] = "",
    data_dir: Annotated[
        Path | None, typer.Option(help="Its disk: identity, jobs, results. [default: .edgenode/NAME]")
    ] = None,
    api: Annotated[str, typer.Option(help="HTTP API, HOST:PORT.")] = "127.0.0.1:8701",
    peer: Annotated[
        str,
        typer.Option(help="Where other nodes reach it (mutual TLS), HOST:PORT. [default: INTERFACE:9701]"),
    ] = "",
    join: Annotated[
        list[str] | None,
        typer.Option(help="HOST:PORT of a node of the mesh, where mDNS does not reach; repeats."),
    ] = None,
    mesh_key: Annotated[
        Path, typer.Option(help="The mesh's secret: nodes with the same key find each other.")
    ] = Path(".edgenode/mesh.key"),
    tasks: Annotated[
        list[str] | None,
        typer.Option(help="Module or .py file with tasks; repeats. [default: the built-in ones]"),
    ] = None,
    slots: Annotated[int, typer.Option(min=1, max=1024, help="Jobs that run here at one time.")] = max(
        1, os.cpu_count() or 1
    ),
    async_slots: Annotated[
        int, typer.Option(min=1, max=10_000, help="Coroutines that run here besides, in one process.")
    ] = 100,
    worker_max_jobs: Annotated[
        int, typer.Option(min=0, help="After so many jobs a worker process is replaced; 0: never.")
    ] = 0,
    worker_max_memory: Annotated[
        str,
        typer.Option(help="A worker process with more after a job is replaced, as in 512M; 0: never."),
    ] = "0",
    label: Annotated[list[str] | None, typer.Option(help="KEY=VALUE that jobs may require; repeats.")] = None,
    weight: Annotated[
        float,
        typer.Option(min=WEIGHT_MIN, max=WEIGHT_MAX, help="Share of new jobs, relative to the others'."),
    ] = 1.0,
    replicas: Annotated[
        int | None,
        typer.Option(min=1, max=16, help="Disks per job, the same at all nodes. [default: 3]"),
    ] = None,
    profile: Annotated[str, typer.Option(help="How patient to be: local, lan or wan.")] = "lan",
    forget_after: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Seconds until a dead member is forgotten. [default: local 60, lan 300, wan 1800]",
        ),
    ] = None,
    drain_limit: Annotated[
        float | None,
        typer.Option(
            min=0, max=86_400, help="Seconds that running jobs may take after SIGTERM. [default: 10]"
        ),
    ] = None,
    mdns: Annotated[bool, typer.Option("--mdns/--no-mdns", help="Find peers on this network.")] = True,
    interface: Annotated[str, typer.Option(help="The address to find and be found on.")] = "127.0.0.1",
    new_identity: Annotated[
        bool,
        typer.Option(
            "--new-identity", help="For one start, on a disk that was put back or copied: a new member."
        ),
    ] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
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
    if log_level.lower() not in LOG_LEVELS:
        raise typer.BadParameter(f"--log-level is one of {', '.join(LOG_LEVELS)}, not {log_level!r}")
    logging.basicConfig(
        level=log_level.upper(),
        format="%(asctime)s %(levelname)-7s %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
    logging.getLogger("zeroconf").setLevel(logging.ERROR)
    if profile not in PRESETS:
        raise typer.BadParameter(f"--profile is one of {', '.join(PRESETS)}, not {profile!r}")
    api_address = parse_address(api, "--api")
    peer_address = parse_address(peer or f"{interface}:9701", "--peer")
    name = name or f"{socket.gethostname().split('.')[0]}-{api_address[1]}"
    if not NAME.fullmatch(name):
        raise typer.BadParameter(f"--name is letters, digits, dots and dashes, not {name!r}")
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
            join=tuple(parse_address(text, "--join") for text in join or ()),
            tasks=sources,
            slots=slots,
            async_slots=async_slots,
            worker_jobs_max=worker_max_jobs,
            worker_memory_bytes_max=parse_size(worker_max_memory, "--worker-max-memory"),
            labels=tuple(sorted(parse_label(text) for text in label or ())),
            profile=profile,
            mdns=mdns,
            interface=interface,
            weight=weight,
            new_identity=new_identity,
            forget_after_s=forget_after,
            drain_limit_s=drain_limit,
            replicas=replicas,
        )
        registry = load_tasks(sources)
        _run_loop(host(settings, registry, lambda node, url: typer.echo(f"{name} ({node}) serves {url}")))
    except EdgeNodeError as error:
        typer.echo(f"edgenode: {error.detail}", err=True)
        raise typer.Exit(USAGE if isinstance(error, RejectedInput) else FAILED) from error


def _run_loop(main: Coroutine[object, object, None]) -> None:
    """Run on uvloop where there is one: a third more requests for the same CPU."""

    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
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
