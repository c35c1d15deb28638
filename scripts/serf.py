"""How long Serf takes to notice that an agent was killed or stands still, for comparison.

Serf (https://www.serf.io) only detects; nothing is started again. It is the reference implementation of the
two papers that edgenode's membership follows (SWIM and Lifeguard), with the patience of its own profiles.
Several small clusters are measured at once: an agent needs next to nothing while it waits.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

EVENT: Final = re.compile(r"serf: EventMember(Join|Failed): (\S+)")
PROFILES: Final = ("local", "lan")
JOIN_S: Final = 30.0
DETECT_S: Final = 90.0
POLL_S: Final = 0.05


class SerfFailed(Exception):
    """It could not be measured; the text says why."""


def event_of(line: str) -> tuple[str, str] | None:
    """What a line of an agent's log tells of a member: ("Join" or "Failed", its name)."""
    found = EVENT.search(line)
    return None if found is None else (found[1], found[2])


def why_no_serf() -> str:
    """Why it cannot be measured here; empty if it can."""
    return "" if shutil.which("serf") else "there is no program `serf`"


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now, for TCP and UDP."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            tcp = stack.enter_context(socket.socket())
            udp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            ports.append(int(tcp.getsockname()[1]))
    return ports


class Agent:
    """One agent, and when it told what of whom (by the monotonic clock)."""

    def __init__(self, name: str, profile: str, ports: Sequence[int], join: int | None) -> None:
        bind, rpc = ports
        self.name, self.port = name, bind
        self.told: dict[tuple[str, str], float] = {}
        command = ["serf", "agent", f"-node={name}", f"-profile={profile}"]
        command += [f"-bind=127.0.0.1:{bind}", f"-rpc-addr=127.0.0.1:{rpc}"]
        if join is not None:
            command += [f"-retry-join=127.0.0.1:{join}", "-retry-interval=1s"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"serf-{name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = event_of(line)
            if event is not None:
                self.told.setdefault(event, time.monotonic())

    def end(self) -> None:
        self.process.kill()  # also one that is stopped
        self.process.wait()
        self._reader.join()


class Cluster:
    """Some agents that know each other. A context manager."""

    def __init__(self, number: int, agents: int, profile: str) -> None:
        self.agents: list[Agent] = []
        self._number, self._count, self._profile = number, agents, profile

    def __enter__(self) -> Cluster:
        ports = free_ports(2 * self._count)
        try:
            for place in range(self._count):
                join = self.agents[0].port if self.agents else None
                name = f"agent-{self._number}-{place}"
                self.agents.append(Agent(name, self._profile, ports[2 * place : 2 * place + 2], join))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for agent in self.agents:
            agent.end()

    @property
    def is_whole(self) -> bool:
        return all(
            ("Join", other.name) in agent.told for agent in self.agents for other in self.agents
        )  # each tells of its own joining too

    def strike(self, number: signal.Signals) -> float:
        """Send the last agent a signal; returns when."""
        at = time.monotonic()
        os.kill(self.agents[-1].process.pid, number)
        return at

    def noticed(self) -> list[float]:
        """When each of the others told that the last one failed."""
        event = ("Failed", self.agents[-1].name)
        return [agent.told[event] for agent in self.agents[:-1] if event in agent.told]


def detection(samples: int, agents: int, profile: str, number: signal.Signals) -> list[tuple[float, float]]:
    """For each of `samples` clusters: seconds until the first other agent knew, and until the last did.

    Raises:
        SerfFailed: the agents do not find each other.
    """
    with ExitStack() as stack:
        clusters = [stack.enter_context(Cluster(each, agents, profile)) for each in range(samples)]
        _until(lambda: all(cluster.is_whole for cluster in clusters), JOIN_S, "Serf's agents did not join")
        found = []
        struck = []
        for cluster in clusters:
            struck.append(cluster.strike(number))
            time.sleep(0.1)  # not all in the same phase of their probing
        ends = time.monotonic() + DETECT_S
        while any(len(cluster.noticed()) < agents - 1 for cluster in clusters) and time.monotonic() < ends:
            time.sleep(POLL_S)
        for cluster, at in zip(clusters, struck, strict=True):
            times = cluster.noticed()
            whole = len(times) == agents - 1
            found.append(
                (min(times) - at if times else float("inf"), max(times) - at if whole else float("inf"))
            )
        return found


def _until(is_so: object, within_s: float, trouble: str) -> None:
    assert callable(is_so)
    ends = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > ends:
            raise SerfFailed(trouble)
        time.sleep(POLL_S)
