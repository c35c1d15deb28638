"""A mesh of real `edgenode run` processes, and everything that can be done to it.

On a `Lan` each node has a machine of its own (network, disk, CPU), and the nodes find each other by multicast
DNS. Without one they are side by side on 127.0.0.1, are told of each other, and can only be killed, paused,
told to leave, and have their disks damaged. Every fault is written down with its time: an extra start needs
one that explains it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from http.client import HTTPConnection, HTTPException
from math import inf
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from history import Fault
from machines import Cut, Lan, Machine
from marking import NODE_VARIABLE
from ports import Ports

from edgenode.cli.run import PARENT_VARIABLE
from edgenode.cli.up import LocalMesh, LocalNode
from edgenode.client.exchange import Answer, Outcome, Request, Unanswered, Unsent
from edgenode.shell.identity import new_mesh_key
from edgenode.shell.store_file import FILE_NAME

T = TypeVar("T")

PATIENCE_S: Final = 90.0
"""How long anything may take on a machine that is busy with others; what goes well waits for none of it."""
POLL_S: Final = 0.05
FIRST_PORTS: Final = range(20_000, 31_000, 50)
"""One of them by chance: meshes that start side by side must not look for ports at one place."""
API_PORT: Final = 8701
PEER_PORT: Final = 9701
LOG_LINES: Final = 80
FLIPS: Final = 8
"""Bits of a damaged file: enough to hit a record, and few enough for most to be whole."""
MARKING: Final = Path(__file__).parent / "marking.py"
WRONG_CLOCK: Final = Path(__file__).parent / "wrong_clock"

Damage = Literal["flip", "truncate"]


def until(found: Callable[[], T | None], what: str | Callable[[], str], *, within_s: float = PATIENCE_S) -> T:
    """What `found` returns as soon as that is something.

    Raises:
        TimeoutError: it did not come within `within_s`; the text is `what` (or what that returns then).
    """
    ends = time.monotonic() + within_s
    while True:
        value = found()
        if value:
            return value
        if time.monotonic() > ends:
            raise TimeoutError(f"not within {within_s:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(POLL_S)


class NamespaceConnection(HTTPConnection):
    """HTTP over a connection that somebody else makes: into a namespace, say."""

    def __init__(self, dial: Callable[[float], socket.socket], timeout_s: float) -> None:
        super().__init__("127.0.0.1", timeout=timeout_s)
        self._dial = dial
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = self._dial(self._timeout_s)


# --------------------------------------------------------------------------------------------- faults


class Faults:
    """All faults of a run. Those that are not over yet are found by kind and nodes."""

    def __init__(self, tell: Callable[[str], None] = lambda text: None) -> None:
        self.all: list[Fault] = []
        self._tell = tell

    def begin(self, kind: str, *nodes: str) -> None:
        self.all.append(Fault(kind, nodes, time.monotonic()))
        self._tell(f"{kind:10} {' '.join(nodes)}")

    def end(self, kind: str, *nodes: str) -> None:
        """It is over; of `nodes` as they were named then (of all, if none is named)."""
        for fault in self.all:
            if fault.kind == kind and fault.until == inf and (not nodes or fault.nodes == nodes):
                fault.until = time.monotonic()
                self._tell(f"{'undone':10} {kind} {' '.join(fault.nodes)}")


# ---------------------------------------------------------------------------------------------- nodes


class RigNode:
    """One `edgenode run`, and what can befall it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        data: Path,
        log: Path,
        faults: Faults,
        *,
        dial: Callable[[float], socket.socket],
        machine: Machine | None,
    ) -> None:
        """Not started yet.

        Args:
            dial: makes a connection to its API, or raises OSError; is given a limit in seconds.
            machine: where it is; None on loopback.
        """
        self.name = name
        self.data = data
        self.log = log
        self.clock = log.with_suffix(".clock")
        self.is_robbed = False  # its disk lost something of what it had
        self.process: subprocess.Popen[bytes] | None = None
        self.command = list(command)
        self._faults = faults
        self._dial = dial
        self._machine = machine
        self._id = ""

    @property
    def machine(self) -> Machine:
        assert self._machine is not None, "there are no machines on loopback"
        return self._machine

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def id(self) -> str:
        """Known once its API answers, and the same after a restart with its disk, if that is whole.

        Nothing if it ends before it answers.
        """
        if not self._id:
            found: dict[str, Any] = until(
                lambda: self.get("/v1/nodes/self") or (None if self.is_alive else {"id": ""}),
                f"{self.name} answers",
            )
            self._id = str(found["id"])
        return self._id

    # ------------------------------------------------------------------------------------- life

    def start(self) -> None:
        """Start the process; it ends with this one. Call this from a thread that lives as long as it must."""
        assert not self.is_alive
        if self.is_robbed:
            self._id = ""  # who finds its store damaged joins as a new member
        self.data.parent.mkdir(parents=True, exist_ok=True)
        if not self.clock.exists():
            self.clock.write_bytes(struct.pack("<d", 0.0))
        environment = os.environ | {PARENT_VARIABLE: str(os.getpid()), NODE_VARIABLE: self.name}
        environment |= {"PYTHONPATH": str(WRONG_CLOCK), "CLOCK_SKEW": str(self.clock)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment,
            )
        self._faults.end("killed", self.name)
        self._faults.end("left", self.name)

    @property
    def is_behind(self) -> bool:
        """Whether it says itself that its disk forgot something, so that it has no vote."""
        return self.is_alive and self.members().get(self.id) == "behind"

    def begin_anew(self) -> None:
        """What its operator does when it refuses its disk, or has no vote: an empty disk is a new member."""
        if self.is_alive:
            self.kill()
        self.wipe()
        self.start()

    def kill(self) -> None:
        """kill -9; the process is gone when this returns."""
        assert self.process is not None
        self._faults.begin("killed", self.name)
        self.process.kill()
        self.process.wait()

    def leave(self) -> None:
        """SIGTERM: it hands its jobs over, within its own limits, and ends; see `wait_for_end`."""
        self._faults.begin("left", self.name)
        os.kill(self.pid, signal.SIGTERM)

    def wait_for_end(self, within_s: float = PATIENCE_S) -> int:
        """Until the process has ended; its exit code."""
        assert self.process is not None
        return self.process.wait(within_s)

    def pause(self) -> None:
        """SIGSTOP to the node; its workers go on, as they would while it is starved or swapped out."""
        self._faults.begin("paused", self.name)
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
        self._faults.end("paused", self.name)

    # ------------------------------------------------------------------------------------- disk

    @property
    def database(self) -> Path:
        return self.data / FILE_NAME

    def damage(self, how: Damage, dice: random.Random) -> str:
        """Hurt the database of a node that is not running: flip bits, or cut its end off. Says where."""
        assert not self.is_alive
        files = [path for path in (self.database, Path(f"{self.database}-wal")) if path.exists()]
        file = dice.choice([path for path in files if path.stat().st_size])
        self._faults.begin("damaged", self.name)
        self.is_robbed = True
        size = file.stat().st_size
        if how == "truncate":
            kept = int(size * dice.uniform(0.3, 0.9))
            os.truncate(file, kept)
            return f"{file.name} cut from {size} to {kept} bytes"
        places = sorted(dice.randrange(size) for _ in range(FLIPS))
        with file.open("r+b") as opened:
            for place in places:
                opened.seek(place)
                old = opened.read(1)[0]
                opened.seek(place)
                opened.write(bytes([old ^ (1 << dice.randrange(8))]))
        return f"{file.name}: a bit flipped in each of the bytes {places} of {size}"

    def copy_disk(self, target: Path) -> None:
        """Keep what its disk holds at this moment; the node stands still for it, if it runs."""
        if self.is_alive:
            os.kill(self.pid, signal.SIGSTOP)
        try:
            shutil.copytree(self.data, target)
        finally:
            if self.is_alive:
                os.kill(self.pid, signal.SIGCONT)

    def put_back(self, source: Path) -> None:
        """Let the disk be as it was: a restored backup."""
        assert not self.is_alive
        self._faults.begin("set back", self.name)
        self.is_robbed = True
        shutil.rmtree(self.data)
        shutil.copytree(source, self.data)

    def wipe(self) -> None:
        """Take everything from the disk of a node that is not running."""
        assert not self.is_alive
        self._faults.begin("wiped", self.name)
        self.is_robbed = False
        shutil.rmtree(self.data)
        self._id = ""

    def fill_disk(self) -> None:
        self._faults.begin("full", self.name)
        self.machine.fill_disk()

    def make_room(self) -> None:
        self.machine.make_room()
        self._faults.end("full", self.name)

    # -------------------------------------------------------------------------------- CPU, clock

    def throttle(self, share: float) -> None:
        """From now on it and its workers have this share of one processor, until `release`."""
        self._faults.begin("starved", self.name)
        self.machine.throttle(share, self.pid)

    def release(self) -> None:
        self.machine.release()
        self._faults.end("starved", self.name)

    def set_clock(self, skew_s: float) -> None:
        """Its wall clock jumps: from now on it is wrong by this; 0 is right again."""
        if skew_s:
            self._faults.begin("skewed", self.name, f"{skew_s:+.0f} s")
        else:
            self._faults.end("skewed")
        with self.clock.open("r+b") as file:
            file.write(struct.pack("<d", skew_s))

    # ---------------------------------------------------------------------------------- requests

    def send(self, request: Request, timeout_s: float = 10.0) -> Outcome:
        """What came of one request to its API."""
        connection = NamespaceConnection(self._dial, timeout_s)
        try:
            connection.connect()
        except OSError as error:
            return Unsent(error.strerror or repr(error))
        try:
            connection.request(request.method, request.path, request.body, dict(request.headers))
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read(), self.name)
        except (OSError, HTTPException) as error:
            return Unanswered(repr(error))
        finally:
            connection.close()

    def get(self, path: str, timeout_s: float = 10.0) -> Any | None:
        """What it answers, or None if that is not a 200."""
        answer = self.send(Request("GET", path), timeout_s)
        return answer.json() if isinstance(answer, Answer) and answer.status == 200 else None

    @property
    def takes_jobs(self) -> bool:
        answer = self.send(Request("GET", "/readyz"))
        return isinstance(answer, Answer) and answer.status == 200

    def members(self) -> Mapping[str, str]:
        """What it believes of each member, by id; nothing while it does not answer."""
        found = self.get("/v1/nodes", timeout_s=2.0) or {"nodes": []}
        return {member["id"]: member["state"] for member in found["nodes"]}

    def believes(self, state: str, others: Iterable[RigNode]) -> bool:
        """Whether it believes that all the others are in this state."""
        members = self.members()
        return all(members.get(other.id) == state for other in others)

    def jobs(self, queue: str) -> dict[str, dict[str, Any]] | None:
        """All jobs of a queue in the whole mesh as it shows them, by id; None if it can't tell now."""
        path, found = f"/v1/jobs?queue={queue}&limit=1000", dict[str, dict[str, Any]]()
        while True:
            answer = self.send(Request("GET", path))
            if not isinstance(answer, Answer) or answer.status != 200:
                return None
            found |= {job["id"]: job for job in answer.json()["jobs"]}
            link = answer.headers.get("link", "")
            if not link:
                return found
            path = link.partition("<")[2].partition(">")[0]


# ----------------------------------------------------------------------------------------------- mesh


class Rig:
    """So many nodes with one key: a context manager that starts them, and ends whatever they have become.

    `lan` has a machine for each, or is None for loopback. It is the caller's to close, after this.
    """

    def __init__(
        self,
        size: int,
        folder: Path,
        lan: Lan | None = None,
        *,
        slots: int = 2,
        profile: str = "lan",
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.folder = folder
        self.lan = lan
        self.faults = Faults(tell)
        self._ports = Ports()
        folder.mkdir(parents=True, exist_ok=True)
        if lan is None:
            base = self._ports.take_mesh(size, random.SystemRandom().choice(FIRST_PORTS))
            local = LocalMesh(
                size, data_dir=folder, base_port=base, tasks=(str(MARKING),), slots=slots, mdns=False,
                profile=profile,
            )  # fmt: skip
            self.nodes = [self._on_loopback(node) for node in local.nodes]
        else:
            key = folder / "mesh.key"
            new_mesh_key(key)
            common = ["--mesh-key", str(key), "--slots", str(slots), "--profile", profile]
            common += ["--tasks", str(MARKING)]
            self.nodes = [self._on_machine(machine, common) for machine in lan.machines[:size]]

    def _on_machine(self, machine: Machine, common: Sequence[str]) -> RigNode:
        name, data = f"node-{machine.number}", machine.disk / "data"
        command = [*machine.command, sys.executable, "-m", "edgenode", "run", "--name", name]
        command += ["--data-dir", str(data), "--api", f"127.0.0.1:{API_PORT}"]
        command += ["--interface", machine.address, "--peer", f"{machine.address}:{PEER_PORT}", *common]
        dial, log = partial(machine.connect, API_PORT), self.folder / f"{name}.log"
        return RigNode(name, command, data, log, self.faults, dial=dial, machine=machine)

    def _on_loopback(self, node: LocalNode) -> RigNode:
        def dial(timeout_s: float) -> socket.socket:
            return socket.create_connection(("127.0.0.1", node.api_port), timeout_s)

        data, log = self.folder / node.name, self.folder / f"{node.name}.log"
        return RigNode(node.name, node.command, data, log, self.faults, dial=dial, machine=None)

    def __enter__(self) -> Rig:
        try:
            for node in self.nodes:
                node.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all nodes at once. Calling it twice is fine."""
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                node.process.kill()  # also when it is paused
                node.process.wait()
        self._ports.close()

    @property
    def living(self) -> list[RigNode]:
        return [node for node in self.nodes if node.is_alive]

    def wait_ready(self, nodes: Iterable[RigNode] = (), *, within_s: float = PATIENCE_S) -> None:
        """Until each of `nodes` (of the living) calls exactly these ready.

        Raises:
            TimeoutError: it took longer, or one has ended by itself.
        """
        wanted = list(nodes) or self.living
        until(lambda: self._are_ready(wanted), lambda: self._beliefs(wanted), within_s=within_s)

    def _are_ready(self, nodes: Sequence[RigNode]) -> bool:
        """Whether each of them calls exactly these ready.

        Raises:
            TimeoutError: one has ended by itself.
        """
        for node in nodes:
            if not node.is_alive and node.is_robbed:
                return False  # it refuses its disk: nobody's fault but the test's
            if not node.is_alive:
                code = None if node.process is None else node.process.returncode
                raise TimeoutError(f"{node.name} has ended, with {code}: {node.log_text[-2000:]}")
        ready = [{id for id, state in node.members().items() if state == "ready"} for node in nodes]
        return all(ready) and all(each == {node.id for node in nodes} for each in ready)

    @staticmethod
    def _beliefs(nodes: Sequence[RigNode]) -> str:
        beliefs = {f"{node.name} ({node.id})": dict(node.members()) for node in nodes if node.is_alive}
        return f"exactly these are ready everywhere: {beliefs}"

    def restore(self) -> None:
        """Undo all that can be undone, and wait until the mesh is whole."""
        if self.lan is not None:
            self.heal()
        for node in self.nodes:
            if self.lan is not None:
                node.make_room()
                node.release()
            node.set_clock(0)
            if node.is_alive:
                node.resume()
        for node in self.nodes:
            if not node.is_alive:
                node.start()
        self.wait_whole()

    def wait_whole(self) -> None:
        """Until all nodes are ready everywhere. Those whose disks were damaged may have to begin anew."""

        def all_ready() -> bool:
            for node in self.nodes:
                if node.is_robbed and (not node.is_alive or node.is_behind):
                    node.begin_anew()
            return self._are_ready(self.nodes)

        until(all_ready, lambda: self._beliefs(self.nodes))

    # ------------------------------------------------------------------------------------ network

    def split(self, *sides: Sequence[RigNode], how: Cut = "silence") -> None:
        """Cut these sides off from each other."""
        assert self.lan is not None
        self.faults.begin("cut", *(" ".join(node.name for node in side) + " |" for side in sides))
        self.lan.split(*([node.machine for node in side] for side in sides), how=how)

    def cut(self, source: RigNode, target: RigNode, how: Cut = "silence", *, both: bool = True) -> None:
        """`target` hears nothing from `source` (and the other way round, if `both`)."""
        assert self.lan is not None
        self.faults.begin("cut", source.name, "<->" if both else "->", target.name, f"({how})")
        self.lan.cut(source.machine, target.machine, how, both=both)

    def lose(self, share: float) -> None:
        """Lose this share of all packets, on all machines."""
        assert self.lan is not None
        self.faults.begin("loss", f"{share:.0%}")
        self.lan.lose(share)

    def heal(self) -> None:
        """Let everything through again."""
        assert self.lan is not None
        self.lan.heal()
        self.faults.end("cut")
        self.faults.end("loss")

    def logs(self) -> Iterator[tuple[str, str]]:
        """The end of each node's log, with a heading."""
        for node in self.nodes:
            code = "not started" if node.process is None else node.process.poll()
            yield f"{node.log} (exit {code})", "\n".join(node.log_text.splitlines()[-LOG_LINES:])
