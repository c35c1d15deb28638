"""Meshes of real processes: free ports, folders of their own, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from http.client import HTTPConnection
from math import inf
from pathlib import Path
from typing import Any, Final, NamedTuple

from marking import read_marks
from ports import Ports
from rig import PATIENCE_S, until

from edgenode.cli.up import PEER_OFFSET, LocalNode
from edgenode.client import Client, Job
from edgenode.client.job import ENDS
from edgenode.shell.identity import new_mesh_key
from tests.processes import processes_of

FULL: Final = os.environ.get("EDGENODE_E2E_FULL") == "1"
"""The sizes that the promises are stated for, instead of those that a test run has time for."""
TASKS: Final = ("edgenode.tasks", str(Path(__file__).parents[2] / "scripts" / "marking.py"))
LOG_LINES: Final = 60
UNTOLD_S: Final = 0.5
"""A first start is on its owner's disk alone for `start_lag_s`, or longer where processes wait for a core."""


# ------------------------------------------------------------------------------------- processes


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Node(LocalNode):
    """One `edgenode run`."""

    def __init__(self, name: str, api_port: int, peer_port: int, command: list[str], log: Path) -> None:
        super().__init__(name, api_port, command, log)
        self.peer_port = peer_port
        self.killed_at = inf  # time.monotonic()
        self._id = ""

    @property
    def peer(self) -> str:
        return f"127.0.0.1:{self.peer_port}"

    @property
    def id(self) -> str:
        """Known once its API answers, and the same after a restart with its folder."""
        if not self._id:
            until(self.answers, f"{self.name} answers")
            self._id = str(self.send("GET", "/v1/nodes/self").json["id"])
        return self._id

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def answers(self) -> bool:
        """Whether its API does; a process that has ended will never."""
        assert self.exit_code is None, f"{self.name} has ended by itself, with {self.exit_code}"
        return self.ask("/livez") is not None

    @property
    def client(self) -> Client:
        return Client(self.url)

    @property
    def load(self) -> dict[str, int]:
        found = self.ask("/v1/nodes/self", timeout_s=10)
        assert found is not None, f"{self.name} does not answer"
        return dict(found["load"])

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal; after SIGKILL the process is gone when this returns."""
        assert self.process is not None
        os.kill(self.process.pid, number)
        if number is signal.SIGKILL:
            self.killed_at = time.monotonic()
            self.process.wait()

    def wait_for_end(self, within_s: float = PATIENCE_S) -> int:
        """Its exit code."""
        assert self.process is not None
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} has not ended within {within_s:g} s") from None

    def ready_members(self) -> set[str]:
        """Names of those that this node calls ready; none while it does not answer."""
        found = self.ask("/v1/nodes") or {"nodes": []}
        return {member["name"] for member in found["nodes"] if member["state"] == "ready"}

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: dict[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> Answer:
        """One request as it is, without the client's care."""
        connection = HTTPConnection("127.0.0.1", self.api_port, timeout=timeout_s)
        try:
            headers = headers or ({"Content-Type": "application/json"} if body is not None else {})
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read())
        finally:
            connection.close()

    def submit(self, jobs: Sequence[dict[str, Any]]) -> list[str]:
        """The ids of jobs that this node took in one request; all of them, or the test fails."""
        answer = self.send("POST", "/v1/jobs", json.dumps(jobs).encode())
        assert answer.status == 202, answer
        taken = answer.json["jobs"]
        assert all("receipt" in job for job in taken), taken
        return [str(job["id"]) for job in taken]

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


# -------------------------------------------------------------------------------------- the mesh


class Mesh:
    """Nodes with one key in one folder. `close` ends them all, and fails if a process is left."""

    def __init__(self, folder: Path, ports: Ports) -> None:
        self.folder = folder
        self.key = folder / "mesh.key"
        self.nodes: list[Node] = []
        self._ports = ports
        folder.mkdir(parents=True)
        new_mesh_key(self.key)

    def add(
        self,
        *,
        join: Iterable[str] = (),
        mdns: bool = False,
        slots: int = 2,
        tasks: Iterable[str] = TASKS,
        key: Path | None = None,
        options: Iterable[str] = (),
    ) -> Node:
        """A further node, not started yet. `options` are further ones of `edgenode run`."""
        name = f"node-{len(self.nodes) + 1}"
        api, peer = self._ports.take(), self._ports.take()
        command = [sys.executable, "-m", "edgenode", "run", "--name", name, "--profile", "local"]
        command += ["--data-dir", str(self.folder / name), "--mesh-key", str(key or self.key)]
        command += ["--api", f"127.0.0.1:{api}", "--peer", f"127.0.0.1:{peer}", "--slots", str(slots)]
        command += ["--interface", "127.0.0.1", "--mdns" if mdns else "--no-mdns"]
        for address in join:
            command += ["--join", address]
        command += options
        for source in tasks:
            command += ["--tasks", source]
        node = Node(name, api, peer, command, self.folder / name / "node.log")
        self.nodes.append(node)
        return node

    def grow(self, count: int, *, slots: int = 2) -> Mesh:
        """Add nodes, each joined to all before it, start them at once and wait until all know all."""
        for _ in range(count):
            self.add(join=[node.peer for node in self.nodes], slots=slots)
        for node in self.nodes:
            if not node.is_alive:
                node.start()
        self.wait_ready()
        return self

    @property
    def living(self) -> list[Node]:
        return [node for node in self.nodes if node.is_alive]

    @property
    def marks(self) -> Path:
        """Where the task `mark` leaves its lines."""
        return self.folder / "marks"

    def wait_ready(self, *, within_s: float = PATIENCE_S) -> None:
        """Until each living node calls exactly the living nodes ready."""
        living = self.living
        wanted = {node.name for node in living}

        def seen() -> dict[str, set[str]]:
            return {node.name: node.ready_members() for node in living}

        until(
            lambda: all(node.answers() and node.ready_members() == wanted for node in living),
            lambda: f"all of {sorted(wanted)} are ready everywhere: {seen()}",
            within_s=within_s,
        )

    def mark_jobs(self, count: int, seconds: Sequence[float]) -> list[dict[str, Any]]:
        """Documents of `mark` jobs, which take the given seconds in turn."""
        return [
            {
                "task": "mark",
                "payload": {"path": str(self.marks), "seconds": seconds[number % len(seconds)]},
            }
            for number in range(count)
        ]

    def starts_seen(self) -> Counter[str]:
        """How often each job really started, by id."""
        return Counter(mark.job for mark in read_marks(self.marks))

    def starts_to_count(self, ended: dict[str, float]) -> Counter[str]:
        """How many starts its record has to count at least, by job: all but those that an owner made in the
        last moment before it ended, by id and monotonic time: nobody else may have heard of them."""
        return Counter(
            mark.job for mark in read_marks(self.marks) if not ended.get(mark.owner, inf) - UNTOLD_S < mark.at
        )

    def wait_ended(
        self,
        jobs: Iterable[str],
        *,
        settled: bool = True,
        at: Node | None = None,
        within_s: float = PATIENCE_S,
    ) -> dict[str, Job]:
        """These jobs with their ends, as one node lists them.

        Args:
            settled: False where too few of a job's holders live to settle it.
        """
        wanted, node = set(jobs), at or self.living[0]
        seen: dict[str, Job] = {}

        def all_final() -> dict[str, Job] | None:
            seen.update((job.id, job) for job in node.client.jobs(page=1000) if job.id in wanted)
            ended = (job.has_ended if settled else job.state in ENDS for job in seen.values())
            return seen if len(seen) == len(wanted) and all(ended) else None

        def described() -> str:
            states = Counter((job.state, job.settled) for job in seen.values())
            open_ = [job.fields for job in seen.values() if not job.has_ended][:3]
            missing = sorted(wanted - seen.keys())[:5]
            return f"{len(wanted)} jobs end at {node.name}: {states}, missing {missing}, open {open_}"

        return until(all_final, described, within_s=within_s)

    def close(self) -> None:
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                node.kill()
        try:
            until(lambda: not processes_of(self.folder), "a dead node's workers end", within_s=10)
        finally:
            for left in processes_of(self.folder):
                os.kill(left, signal.SIGKILL)

    def logs(self) -> list[tuple[str, str]]:
        """The end of each node's log, with a heading."""
        return [
            (f"{node.log} (exit {node.exit_code})", "\n".join(node.log_text().splitlines()[-LOG_LINES:]))
            for node in self.nodes
        ]


class Up:
    """One `edgenode up`, as a terminal would start it."""

    def __init__(self, folder: Path, ports: Ports, count: int) -> None:
        self.folder = folder
        numbers = range(1, count + 1)
        base = ports.take_all([*numbers, *(PEER_OFFSET + number for number in numbers)])
        self.urls = [f"http://127.0.0.1:{base + number}" for number in numbers]
        self._command = [sys.executable, "-m", "edgenode", "up", "-n", str(count), "--no-mdns"]
        self._command += ["--data-dir", str(folder), "--base-port", str(base)]
        self._output = folder.parent / f"{folder.name}.out"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Client:
        """Start it; returns a client when all nodes are ready."""
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        until(lambda: " nodes are ready" in self.output, lambda: f"up is ready:\n{self.output}")
        return Client(self.urls)

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def end(self, number: signal.Signals) -> int:
        """Send a signal to `up` alone, and wait for its end. Returns the exit code."""
        assert self.process is not None
        os.kill(self.process.pid, number)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for left in processes_of(self.folder):
            os.kill(left, signal.SIGKILL)

    def logs(self) -> list[tuple[str, str]]:
        found = [("up", self.output if self._output.exists() else "")]
        for log in sorted(self.folder.glob("*/node.log")):
            found.append((str(log), "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])))
        return found
