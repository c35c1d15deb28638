"""What all systems beside edgenode have in common when they are measured: see `scripts/bench.py --help`.

Each `echo_*.py` here is a program of its own, started by the bench in a virtual environment that has that
system. It starts servers and workers, measures, and prints one JSON object. No edgenode is needed for it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from distribution import percentile
from proc import ProcessStat, descendants, end_with_parent, processes

WARM_UP: Final = 200
JOBS_MAX: Final = 40_000
ONES_MAX: Final = 500
START_S: Final = 30.0
COLLECT_S: Final = 60.0
WORKERS: Final = 2


class NotInstalled(Exception):
    """The text says what is missing."""


class Peer(ABC):
    """One system: how it is started, and how a client gives it work. Every echo returns its message."""

    name: ClassVar[str]
    accepted: ClassVar[str]
    """What stands behind a job once its submission has returned."""
    is_lazy: ClassVar[bool] = False
    """Submissions return before anything has been sent."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.folder = folder
        self.ports = ports
        self._servers: list[subprocess.Popen[bytes]] = []

    @abstractmethod
    def start(self) -> str:
        """Start servers and workers; the versions of both.

        Raises:
            ImportError, NotInstalled: something is not there.
        """

    @abstractmethod
    def submit(self, messages: Sequence[str]) -> None:
        """Returns when all are accepted."""

    @abstractmethod
    def collect(self) -> list[str]:
        """What came of the jobs of the last `submit`, in any order."""

    @abstractmethod
    def one(self, message: str) -> str:
        """One job, from its submission to its result."""

    def server(self, *command: str, environment: dict[str, str] | None = None) -> None:
        """Start one of its processes; it ends with this one.

        Raises:
            NotInstalled: there is no such program.
        """
        if shutil.which(command[0]) is None:
            raise NotInstalled(command[0])
        with (self.folder / "log").open("ab") as log:
            self._servers.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)} | (environment or {}),
                    preexec_fn=end_with_parent,
                )
            )

    def redis(self) -> str:
        """A Redis with its usual durability, an append-only file that is synced every second; its URL."""
        port = str(self.ports[0])
        command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", str(self.folder)]
        self.server(*command, "--save", "", "--appendonly", "yes", "--appendfsync", "everysec")
        wait_for_port(int(port))
        return f"redis://127.0.0.1:{port}/0"


def wait_for_port(port: int) -> None:
    def is_open() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(is_open, f"somebody listens at port {port}")


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + START_S
    while not is_so():
        if time.monotonic() > ends:
            raise TimeoutError(f"not within {START_S:.0f} s: {what}")
        time.sleep(0.02)


def version_of(server: str) -> str:
    """The name of a program and the version that it tells."""
    told = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\bv=?([0-9.]+)", told)
    return f"{server} {found[1] if found else told.strip()}"


def used_by(before: dict[int, ProcessStat], after: dict[int, ProcessStat]) -> float:
    """CPU seconds of all descendants of this process between two looks at them."""
    return sum(
        after[process].cpu_s - (before[process].cpu_s if process in before else 0.0)
        for process in descendants(os.getpid(), after)
    )


def check(results: Sequence[str], messages: Sequence[str]) -> None:
    """
    Raises:
        ValueError: not every message came back once.
    """
    if sorted(results) != sorted(messages):
        raise ValueError(f"{len(messages)} messages were sent, and {len(results)}, or others, came back")


def whole(peer: Peer, messages: Sequence[str]) -> tuple[float, float]:
    """Seconds until all were accepted, and until all results were here; checked."""
    began = time.perf_counter()
    peer.submit(messages)
    accepted_s = time.perf_counter() - began
    results = peer.collect()
    took_s = time.perf_counter() - began
    check(results, messages)
    return accepted_s, took_s


def measure(peer: Peer, seconds: float, message_bytes: int) -> dict[str, Any]:
    """A warm-up, then as many jobs as fit the time, then one at a time."""
    versions = peer.start()

    def messages(count: int) -> list[str]:
        return [f"{number:08d}".ljust(message_bytes, "x") for number in range(count)]

    for _ in range(2):
        _, warm_s = whole(peer, messages(WARM_UP))
    count = min(JOBS_MAX, max(WARM_UP, ceil(WARM_UP / warm_s * seconds)))
    sent = messages(count)
    before, cpu = processes(), time.process_time()
    accepted_s, took_s = whole(peer, sent)
    client_s, system_s = time.process_time() - cpu, used_by(before, processes())
    ones_ms = []
    ends = time.monotonic() + seconds
    for message in messages(ONES_MAX):
        at = time.perf_counter()
        check([peer.one(message)], [message])
        ones_ms.append(1000 * (time.perf_counter() - at))
        if time.monotonic() > ends:
            break
    return {
        "system": peer.name,
        "versions": versions,
        "accepted": peer.accepted,
        "jobs": count,
        "submit_per_s": None if peer.is_lazy else count / accepted_s,
        "jobs_per_s": count / took_s,
        "one_p50_ms": percentile(ones_ms, 0.5),
        "one_p99_ms": percentile(ones_ms, 0.99),
        "system_us": 1e6 * system_s / count,
        "client_us": 1e6 * client_s / count,
    }


def main(*kinds: type[Peer]) -> None:
    """Measure, and print what was found as the last line: a list, one object for each kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--message", type=int, required=True, help="bytes")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--ports", required=True, help="free ones, with commas between them")
    given = parser.parse_args()
    ports = [int(port) for port in given.ports.split(",")]
    found: list[dict[str, Any]] = []
    for number, kind in enumerate(kinds):
        folder, share = given.folder / str(number), len(ports) // len(kinds)
        folder.mkdir()
        peer = kind(folder, ports[number * share : (number + 1) * share])
        try:
            found.append(measure(peer, given.seconds, given.message))
        except ImportError as error:
            found.append({"system": kind.name, "why": f"not installed: {error.name}"})
        except NotInstalled as error:
            found.append({"system": kind.name, "why": f"not installed: {error}"})
    print(json.dumps(found), flush=True)
    os._exit(0)  # the servers end with this process, in whatever state their clients are
