"""`edgenode up`: a mesh of several nodes on this machine, and a live view of it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from edgenode.cli import node_options
from edgenode.cli.output import GONE
from edgenode.cli.run import PARENT_VARIABLE
from edgenode.core.errors import EdgeNodeError
from edgenode.shell.folders import make_durable_folder

PEER_OFFSET: Final = 1000
REFRESH_S: Final = 0.5
READY_S: Final = 30.0
STOP_S: Final = 8.0
KEY_FILE: Final = "mesh.key"
Pause = Callable[[float], bool]
"""Waits so many seconds, or less; tells whether what goes on is to end."""


def _pause(seconds: float) -> bool:
    time.sleep(seconds)
    return False


@dataclass
class LocalNode:
    """One node of this machine, as a process."""

    name: str
    api_port: int
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    taken: int = 0
    taken_at: float = 0.0
    seen: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def pid(self) -> int:
        return 0 if self.process is None else self.process.pid

    def start(self) -> None:
        """Start the process, in a session of its own: a Ctrl-C in the terminal is not for it."""
        make_durable_folder(self.log.parent)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | {PARENT_VARIABLE: str(os.getpid())},
            )

    @property
    def exit_code(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def ask(self, path: str, timeout_s: float = 1.0) -> Any | None:
        """What its API answers, or None if it does not answer (in time)."""
        connection = HTTPConnection("127.0.0.1", self.api_port, timeout=timeout_s)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return json.loads(answer.read()) if answer.status == 200 else None
        except (OSError, HTTPException, ValueError):
            return None
        finally:
            connection.close()


def _is_free(port: int) -> bool:
    """Whether a node can listen here. Where another mesh does, its nodes would be taken for these."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class LocalMesh:
    """Several nodes on 127.0.0.1. Starts them, watches them, ends them: a context manager."""

    def __init__(
        self,
        count: int,
        *,
        data_dir: Path,
        base_port: int = 8700,
        tasks: tuple[str, ...] = (),
        slots: int = 2,
        mdns: bool = True,
        profile: str = "local",
        options: Sequence[str] = (),
    ) -> None:
        """
        Args:
            options: further ones of `edgenode run`, for each node.
        """
        from edgenode.shell.identity import new_mesh_key

        key = data_dir / KEY_FILE
        if not key.exists():
            new_mesh_key(key)
        self.nodes: list[LocalNode] = []
        for number in range(1, count + 1):
            name, api, peer = f"node-{number}", base_port + number, base_port + PEER_OFFSET + number
            command = [sys.executable, "-m", "edgenode", "run", "--name", name]
            command += ["--data-dir", str(data_dir / name), "--mesh-key", str(key)]
            command += ["--api", f"127.0.0.1:{api}", "--peer", f"127.0.0.1:{peer}"]
            command += ["--slots", str(slots), "--profile", profile]
            command += ["--mdns" if mdns else "--no-mdns"]
            for other in range(1, count + 1):
                if other != number:
                    command += ["--join", f"127.0.0.1:{base_port + PEER_OFFSET + other}"]
            for source in tasks:
                command += ["--tasks", source]
            command += options
            self.nodes.append(LocalNode(name, api, command, data_dir / name / "node.log"))

    def __enter__(self) -> LocalMesh:
        for node in self.nodes:
            for port in (node.api_port, node.api_port + PEER_OFFSET):
                if not _is_free(port):
                    what_to_do = "end what has it, or choose another --base-port"
                    raise EdgeNodeError(f"port {port}, for {node.name}, is in use: {what_to_do}")
        try:
            for node in self.nodes:
                node.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_ready(self, timeout_s: float = READY_S, pause: Pause = _pause) -> bool:
        """Wait until every node sees every other ready: True; or False if `pause` said that it is to end.

        Raises:
            EdgeNodeError: one ended, or it took too long; the text has the end of its log.
        """
        ends = time.monotonic() + timeout_s
        waiting = list(self.nodes)
        while waiting:
            for each in self.nodes:
                if each.exit_code is not None:
                    raise EdgeNodeError(
                        f"{each.name} ended at its start (see {each.log}):\n{_tail(each.log)}"
                    )
            node = waiting[0]
            found = node.ask("/v1/nodes") or {}
            states = [member.get("state") for member in found.get("nodes", [])]
            if states.count("ready") >= len(self.nodes):
                waiting.pop(0)
            elif time.monotonic() > ends:
                raise EdgeNodeError(f"{node.name} sees {states} after {timeout_s:.0f} s (see {node.log})")
            elif pause(0.05):
                return False
        return True

    def members(self) -> dict[str, dict[str, Any]]:
        """What the first node that answers believes of all, by name."""
        for node in self.nodes:
            if node.exit_code is None:
                found = node.ask("/v1/nodes")
                if found is not None:
                    # Who joined anew has its former self beside it for a while: the living one counts.
                    listed = sorted(found["nodes"], key=lambda member: member["state"] not in GONE)
                    return {member["name"]: member for member in listed}
        return {}

    def stop(self) -> None:
        """End all that live, at once, and wait for them. Calling it twice is fine."""
        living = [node for node in self.nodes if node.process is not None and node.exit_code is None]
        for node in living:
            assert node.process is not None
            node.process.send_signal(signal.SIGINT)
        ends = time.monotonic() + STOP_S
        for node in living:
            assert node.process is not None
            try:
                node.process.wait(max(0.0, ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                node.process.kill()
                with suppress(subprocess.TimeoutExpired):  # a process that waits for its disk can't be killed
                    node.process.wait(STOP_S)


def _tail(log: Path, lines: int = 5) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def up(
    count: Annotated[
        int, typer.Option("-n", "--nodes", min=1, max=64, metavar="N", help="How many nodes.")
    ] = 5,
    data_dir: Annotated[Path, typer.Option(metavar="DIR", help="Key, disks and logs of all nodes.")] = Path(
        ".edgenode"
    ),
    base_port: Annotated[
        int,
        typer.Option(
            min=1,
            max=64_000,
            metavar="PORT",
            help="Node i has its API at this port + i, its peer port 1000 above.",
        ),
    ] = 8700,
    tasks: node_options.Tasks = None,
    slots: node_options.Slots = 2,
    async_slots: node_options.AsyncSlots = 100,
    worker_max_jobs: node_options.WorkerMaxJobs = 0,
    worker_max_memory: node_options.WorkerMaxMemory = "0",  # type: ignore[assignment]  # read as if it were given
    label: node_options.Label = None,
    replicas: node_options.Replicas = None,
    max_jobs: node_options.MaxJobs = node_options.UNFINISHED_MAX,
    profile: node_options.Profile = "local",
    forget_after: node_options.ForgetAfter = None,
    drain_limit: node_options.DrainLimit = None,
    mdns: Annotated[bool, typer.Option("--mdns/--no-mdns", help="Let further nodes find these.")] = True,
    log_level: node_options.LogLevel = "info",
) -> None:
    """Start several nodes on this machine and watch them. Ctrl-C ends them all.

    Kill one (`kill -9 PID`) and see its jobs go on elsewhere.

    \b
    edgenode up -n 5
    edgenode up -n 3 --tasks my_tasks.py --tasks edgenode.tasks
    edgenode submit echo '{"message": "hello"}' --wait         # in another terminal
    """
    given = {
        "--async-slots": async_slots,
        "--worker-max-jobs": worker_max_jobs,
        "--worker-max-memory": worker_max_memory,
        "--replicas": replicas,
        "--max-jobs": max_jobs,
        "--forget-after": forget_after,
        "--drain-limit": drain_limit,
        "--log-level": log_level,
    }
    options = [f"{option}={value}" for option, value in given.items() if value is not None]
    labels = node_options.parse_labels(label or (), "--label")
    options += [f"--label={key}={value}" for key, value in labels]
    try:
        mesh = LocalMesh(
            count,
            data_dir=data_dir,
            base_port=base_port,
            tasks=tuple(tasks or ()),
            slots=slots,
            mdns=mdns,
            profile=profile,
            options=options,
        )
        with Ending() as ending, mesh:
            for node in mesh.nodes:
                typer.echo(f"{node.name}  pid {node.pid}  {node.url}  log {node.log}")
            if mesh.wait_ready(pause=ending.wait):
                urls = ",".join(node.url for node in mesh.nodes)
                typer.echo(f"{count} nodes are ready. Ctrl-C ends them.\n  export EDGENODE_URL={urls}")
                watch(mesh, ending.wait)
            was_asked = ending.wait(0)
        if was_asked:
            typer.echo("all nodes have ended; what they had is kept in " + str(data_dir))
        else:
            typer.echo("every node has ended")
    except (EdgeNodeError, OSError) as error:
        typer.echo(f"edgenode: {error.detail if isinstance(error, EdgeNodeError) else error}", err=True)
        raise typer.Exit(1) from error


class Ending:
    """Ctrl-C, SIGTERM or a closed terminal, noted from `with` on.

    Handlers that raise would do so anywhere: in the midst of `Popen.poll` they leave its lock taken, and the
    wait for that process never ends.
    """

    def __enter__(self) -> Ending:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._kept = {number: signal.signal(number, self._note) for number in ends}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._kept.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def _note(self, *_: object) -> None:
        with suppress(BlockingIOError):  # said often enough
            os.write(self._writer, b"x")

    def wait(self, seconds: float) -> bool:
        """Whether the end was asked for, now or within so many seconds."""
        return bool(select.select([self._reader], [], [], seconds)[0])


def watch(mesh: LocalMesh, pause: Pause) -> None:
    """Show the mesh until `pause` says that it is to end, or until every node has ended."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if console.is_terminal:
        with Live(table(mesh), console=console, refresh_per_second=4) as live:
            while any(node.exit_code is None for node in mesh.nodes) and not pause(REFRESH_S):
                live.update(table(mesh))
    else:
        said: dict[str, str] = {}
        while any(node.exit_code is None for node in mesh.nodes):
            for line in plain_news(mesh, said):
                typer.echo(line)
            if pause(REFRESH_S):
                return


HEADINGS: Final = ("node", "pid", "state", "owned", "queued", "running", "done", "last takeover", "URL")


def table(mesh: LocalMesh) -> Any:
    """The live view: one line a node."""
    from rich.table import Table

    shown = Table(title=f"edgenode, {len(mesh.nodes)} nodes")
    for heading in HEADINGS:
        shown.add_column(heading, justify="right" if heading in HEADINGS[3:7] else "left")
    for cells in rows(mesh):
        style = {"ready": "green", "joining": "yellow", "suspect": "yellow"}.get(cells[2], "red")
        shown.add_row(*cells, style=None if cells[2] == "ready" else style)
    return shown


def rows(mesh: LocalMesh) -> list[tuple[str, ...]]:
    """What the table shows, as text."""
    members = mesh.members()
    found = []
    for node in mesh.nodes:
        member = members.get(node.name, {})
        load = member.get("load", {})
        taken = int(load.get("taken", 0))
        if taken > node.taken:
            node.taken_at = time.monotonic()
        ended = node.exit_code
        state = str(member.get("state", "starting")) if ended is None else _ending(ended)
        last = "" if not taken else f"{taken} jobs"
        if node.taken_at:
            last += f", {time.monotonic() - node.taken_at:.0f} s ago"
        node.taken = taken
        counts = tuple(str(load.get(key, "")) for key in ("owned", "queued", "running", "done"))
        found.append((node.name, str(node.pid), state, *counts, last, node.url))
    return found


def _ending(code: int) -> str:
    if code < 0:
        return f"killed ({signal.Signals(-code).name})"
    return "ended" if code == 0 else f"failed ({code})"


def plain_news(mesh: LocalMesh, said: dict[str, str]) -> list[str]:
    """Lines for whoever reads no live table: one when a node's state changes."""
    news = []
    for name, pid, state, owned, queued, running, done, *_ in rows(mesh):
        if said.get(name) != state:
            said[name] = state
            counts = f" (owned {owned}, queued {queued}, running {running}, done {done})" if done else ""
            news.append(f"{time.strftime('%H:%M:%S')} {name} pid {pid}: {state}{counts}")
    return news
