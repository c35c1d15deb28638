"""How long until a dead, silent or leaving node's jobs run elsewhere? On real nodes, again and again.

    python scripts/failover.py            everything that is promised (25 minutes on a quiet machine)
    python scripts/failover.py --quick    a look at all of it but the starved node (half a minute)
    python scripts/failover.py --kills 100 --pauses 0 --cuts 0 --leaves 0 --starve-s 0 --serf 0

The nodes are real processes on this machine. What is done to them, and what is promised for profile `lan`:

    kill     kill -9 of a node that owns and runs --jobs jobs   p99 <= 0.25 s over 100
    pause    SIGSTOP of such a node: a silent process           p99 <= 2 s over 50
    cut      its cable is pulled out: a silent host             p99 <= 2 s over 50
             (network namespaces joined by a bridge; needs root)
    leave    SIGTERM of a node with running and queued jobs     its queued work is others' within 0.3 s (p99),
                                                                and nothing starts twice
    starve   one node, its workers included, gets a tenth of    no node is called dead by any other
             one processor, and the others as much work as
             they can do, for --starve-s seconds (a control
             group; needs root)
    serf     kill -9 and SIGSTOP of one Serf agent of as many, until the others have noticed, with its
             profiles `local` and `lan` (where `serf` is installed). Serf detects, and starts nothing again

A start is seen by the job itself: the first thing that it does is to write down the time. One blow counts
with the moment when the LAST of the jobs that ran on the node had started elsewhere; the table also has the
first of them, and the way there: when a survivor, and when every survivor, called the node dead, and when
the last of its jobs had a new owner. --jobs are started afresh on the node before each blow, and every other
node has a free slot for each of them; a blow falls at a random moment, on the nodes in turn, and only when
all nodes call all ready again.

Times depend on the machine: all nodes share its processors with whatever else runs. For figures to be
quoted, let nothing else run (`uptime`: a load below 0.3), and take everything from one run. The load is
printed with the results. To compare two versions on a busy machine, run them in turn and compare medians.

Exit codes: 0 all that was measured holds, 1 something does not, 2 wrong usage, 130 stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from datetime import datetime
from functools import partial
from http.client import HTTPConnection, HTTPException
from math import inf
from pathlib import Path
from typing import Any, Final, NamedTuple

import serf
from distribution import HEADING, Distribution, Promise, histogram, percentile, row
from machines import Lan, Machine, missing, visiting
from ports import Ports
from throttle import Throttle, why_no_throttle
from verdict import moment

from edgenode.api.render import TAKEOVERS
from edgenode.cli.up import LocalNode
from edgenode.core.errors import EdgeNodeError
from edgenode.core.settings import PRESETS
from edgenode.shell.identity import new_mesh_key

FIRST_PORT: Final = 23_000
TASKS: Final = Path(__file__).with_name("failover_tasks.py")
PATIENCE_S: Final = 30.0
"""What has not come by then never does, in the tables."""
POLL_S: Final = 0.005
CALM_S: Final = (0.1, 0.4)
"""Between the last start on a node and the blow: longer than a probe period, so that phases are mixed."""
SPARE_SLOTS: Final = 2
WORK_S: Final = 0.6
LEAVE_ROUNDS: Final = 4
"""So many times more jobs than slots are there when a node is told to leave."""
STARVED_SHARE: Final = 0.1
BURN_S: Final = 0.2
BURN_SLOTS: Final = 2
QUICK: Final = {"kills": 3, "pauses": 1, "cuts": 1, "leaves": 1, "starve_s": 0.0, "serf": 2}
KILL = Promise("kill -9, until its last running job had started elsewhere", 0.25)
PAUSE = Promise("SIGSTOP, until its last running job had started elsewhere", 2.0)
CUT = Promise("cut cable, until its last running job had started elsewhere", 2.0)
LEAVE = Promise("SIGTERM, until its last queued job was another's", 0.3)


class Failed(EdgeNodeError):
    """The measurement cannot go on; the text says why."""

    status, slug, title = 500, "failover-failed", "The measurement could not go on"


# ----------------------------------------------------------------------------------- what was seen


class Mark(NamedTuple):
    """One start of a job, as the job wrote it down."""

    at: float  # CLOCK_MONOTONIC
    job: str
    term: int
    owner: str
    start: int
    pid: int  # of the node whose worker it ran in


def parse_marks(text: str) -> list[Mark]:
    """The whole lines of a file of marks; one that is being written is left for the next time."""
    marks = []
    for line in text[: text.rfind("\n") + 1].splitlines():
        at, job, term, owner, start, pid = line.split()
        marks.append(Mark(float(at), job, int(term), owner, int(start), int(pid)))
    return marks


def restarts(marks: Iterable[Mark], held: Iterable[str], pid: int, since: float) -> dict[str, float]:
    """When each of the jobs `held` by the node `pid` was first started by another one."""
    wanted = set(held)
    found: dict[str, float] = {}
    for mark in marks:
        if mark.job in wanted and mark.pid != pid and mark.at >= since:
            found[mark.job] = min(mark.at, found.get(mark.job, inf))
    return found


LOG_LINE: Final = re.compile(r"^(\S+ \d\d:\d\d:\d\d),(\d{3}) \w+ +(\S+): (.*)$", re.MULTILINE)


class Said(NamedTuple):
    """One line of a node's log."""

    at: float  # Unix time
    kind: str
    text: str


def parse_log(text: str) -> list[Said]:
    """The lines of a node's log that the core wrote: `kind: text`."""
    return [
        Said(datetime.strptime(when, "%Y-%m-%d %H:%M:%S").timestamp() + int(ms) / 1000, kind, said)
        for when, ms, kind, said in LOG_LINE.findall(text)
    ]


def death_of(said: Iterable[Said], name: str, since: float) -> float:
    """When a log first called a member dead, from `since` on; inf if it did not."""
    # A log has milliseconds: what came right after the blow may carry the same one.
    times = [
        each.at
        for each in said
        if each.kind == "member-dead" and each.text.startswith(f"{name} ") and each.at >= since - 0.001
    ]
    return min(times, default=inf)


def last_takeover(jobs: Iterable[dict[str, Any]], owner: str, since: float) -> float:
    """When the last of these jobs got a new owner after `owner`, by the records; inf if one has none."""
    last = -inf
    for job in jobs:
        times = [
            moment(note["at"])
            for note in job["history"]
            if note["kind"] in TAKEOVERS and note["detail"].startswith(f"from {owner}")
        ]
        last = max(last, min((at for at in times if at >= since - 0.001), default=inf))
    return last


class Blow(NamedTuple):
    """One time that a node was hit. Seconds since then; `inf` is never."""

    kind: str
    number: int
    victim: str
    jobs: int
    dead_s: float  # a survivor calls it dead
    all_dead_s: float  # every survivor does
    taken_s: float  # the last of its running jobs has a new owner
    first_s: float  # the first of them starts elsewhere
    last_s: float  # the last


class Leave(NamedTuple):
    """One time that a node was told to go. Seconds since then."""

    number: int
    victim: str
    running: int
    moved: int  # jobs that got another owner
    moved_s: float  # the last of them
    ended_s: float  # its process ended
    extra_starts: int


class Starved(NamedTuple):
    """What was said of members while one of them had hardly a processor."""

    seconds: float
    jobs: int
    deaths: tuple[str, ...]
    counts: dict[str, int]  # of log lines, by kind


# ------------------------------------------------------------------------------------------ the mesh


class Node(LocalNode):
    """One `edgenode run`, perhaps on a machine of its own."""

    def __init__(
        self, name: str, api_port: int, command: list[str], log: Path, machine: Machine | None = None
    ) -> None:
        super().__init__(name, api_port, command, log)
        self.machine = machine
        self._id = ""

    def _there(self) -> AbstractContextManager[None]:
        """Sockets made within reach its API."""
        return nullcontext() if self.machine is None else visiting(self.machine.name)

    @property
    def id(self) -> str:
        if not self._id:
            found = self.ask("/v1/nodes/self", timeout_s=10.0)
            if found is None:
                raise Failed(f"{self.name} does not answer (see {self.log})")
            self._id = str(found["id"])
        return self._id

    def ask(self, path: str, timeout_s: float = 1.0) -> Any | None:
        with self._there():
            return super().ask(path, timeout_s)

    def submit(self, task: str, payload: dict[str, Any], count: int) -> list[str]:
        """The ids of so many equal jobs.

        Raises:
            Failed: they were not taken.
        """
        body = json.dumps([{"task": task, "payload": payload}] * count).encode()
        connection = HTTPConnection("127.0.0.1", self.api_port, timeout=PATIENCE_S)
        try:
            with self._there():
                connection.connect()
            connection.request("POST", "/v1/jobs", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            told = answer.read()
            jobs = json.loads(told)["jobs"] if answer.status == 202 else []
        except (OSError, HTTPException, ValueError) as error:
            raise Failed(f"{self.name} did not take {count} jobs: {error!r}") from error
        finally:
            connection.close()
        if len(jobs) != count or not all("receipt" in job for job in jobs):
            raise Failed(f"{self.name} did not take {count} jobs: {told[:300]!r}")
        return [str(job["id"]) for job in jobs]

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def said(self, after: int = 0) -> list[Said]:
        """Its log, from a size on."""
        with self.log.open("rb") as log:
            log.seek(after)
            return parse_log(log.read().decode(errors="replace"))

    @property
    def log_size(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0


class Mesh:
    """Nodes with one key. A context manager; at its end no process is left."""

    def __init__(
        self,
        folder: Path,
        count: int,
        *,
        slots: int,
        profile: str,
        base_port: int,
        lan: Lan | None = None,
    ) -> None:
        self.folder = folder
        self.marks = folder / "marks"
        self._read = 0
        self._seen: list[Mark] = []
        folder.mkdir()
        new_mesh_key(folder / "mesh.key")
        self._ports = Ports()
        base = self._ports.take_mesh(count, base_port) if lan is None else 0
        machines = [None] * count if lan is None else lan.machines[:count]
        hosts = [machine.address if machine else "127.0.0.1" for machine in machines]
        apis = [8701 if lan else base + 1 + place for place in range(count)]
        peers = [9701 if lan else base + 1001 + place for place in range(count)]
        self.nodes: list[Node] = []
        for place, machine in enumerate(machines):
            name = f"node-{place + 1}"
            command = [sys.executable, "-m", "edgenode", "run", "--name", name, "--profile", profile]
            command += ["--data-dir", str(folder / name), "--mesh-key", str(folder / "mesh.key")]
            command += ["--api", f"127.0.0.1:{apis[place]}", "--slots", str(slots), "--no-mdns"]
            command += ["--peer", f"{hosts[place]}:{peers[place]}", "--interface", hosts[place]]
            for other in range(count):
                if other != place:
                    command += ["--join", f"{hosts[other]}:{peers[other]}"]
            command += ["--tasks", str(TASKS)]
            if machine:
                command = [*machine.command, *command]
            self.nodes.append(Node(name, apis[place], command, folder / name / "node.log", machine))

    def __enter__(self) -> Mesh:
        try:
            for node in self.nodes:
                node.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all at once: nobody needs their jobs any more."""
        for node in self.nodes:
            if node.process is not None and node.exit_code is None:
                node.process.kill()
                node.process.wait()
        self._ports.close()

    def others(self, victim: Node) -> list[Node]:
        return [node for node in self.nodes if node is not victim]

    def wait_ready(self) -> None:
        """Until all nodes call all ready."""
        wanted = {node.name for node in self.nodes}
        for node in self.nodes:
            _until(partial(_calls_ready, node, wanted), f"{node.name} calls all ready", poll_s=0.03)

    def wait_idle(self) -> None:
        """Until nothing runs and nothing waits, also of what was superseded."""
        for node in self.nodes:
            _until(partial(_is_idle, node), f"{node.name} is idle", poll_s=0.03)

    def seen(self) -> list[Mark]:
        """All starts so far."""
        if self.marks.exists():
            with self.marks.open("rb") as file:
                file.seek(self._read)
                text = file.read().decode()
            whole = text[: text.rfind("\n") + 1]
            self._read += len(whole)
            self._seen += parse_marks(whole)
        return self._seen

    def hold(self, victim: Node, jobs: int) -> set[str]:
        """Submit until `victim` owns and runs `jobs` jobs or a few more; all others have ended at once."""
        payload = {"marks": str(self.marks), "pid": victim.pid}
        entry = self.others(victim)[0]
        submitted: set[str] = set()
        while True:
            own = {m.job for m in self.seen() if (m.owner, m.pid) == (victim.id, victim.pid)} & submitted
            if len(own) >= jobs:
                return own
            # A third of them are the victim's, with three nodes; not many more than wanted, for its slots.
            count = max(1, round((jobs - len(own)) * len(self.nodes) * 0.6))
            submitted.update(entry.submit("failover.hold", payload, count))
            _until(lambda: submitted <= {mark.job for mark in self.seen()}, "all jobs have started")


def _calls_ready(node: Node, wanted: set[str]) -> bool:
    """Whether a node calls exactly these members ready."""
    if node.exit_code is not None:
        raise Failed(f"{node.name} has ended by itself (see {node.log})")
    found = node.ask("/v1/nodes") or {"nodes": []}
    return {member["name"] for member in found["nodes"] if member["state"] == "ready"} == wanted


def _is_idle(node: Node) -> bool:
    found = node.ask("/v1/nodes/self")
    return found is not None and not any(found["load"][name] for name in ("running", "queued"))


def _until(is_so: Callable[[], bool], what: str, *, poll_s: float = POLL_S) -> None:
    if not _within(PATIENCE_S, is_so, poll_s):
        raise Failed(f"not within {PATIENCE_S:g} s: {what}")


def _within(limit_s: float, is_so: Callable[[], bool], poll_s: float = POLL_S) -> bool:
    ends = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > ends:
            return False
        time.sleep(poll_s)
    return True


# -------------------------------------------------------------------------------------------- blows


class Harm(NamedTuple):
    """A way to hit a node, and to put it right again."""

    kind: str
    strike: Callable[[Node], None]
    mend: Callable[[Node], None]


def _start_again(node: Node) -> None:
    assert node.process is not None
    node.process.wait()
    node.start()


KILLED: Final = Harm("kill", lambda node: node.send(signal.SIGKILL), _start_again)
PAUSED: Final = Harm("pause", lambda node: node.send(signal.SIGSTOP), lambda node: node.send(signal.SIGCONT))


def unplugged(lan: Lan) -> Harm:
    def machine(node: Node) -> Machine:
        assert node.machine is not None
        return node.machine

    return Harm("cut", lambda node: lan.unplug(machine(node)), lambda node: lan.replug(machine(node)))


def strike(mesh: Mesh, harm: Harm, number: int, jobs: int, dice: random.Random) -> Blow:
    """Hit one node once, and put it right again."""
    victim = mesh.nodes[number % len(mesh.nodes)]
    survivors = mesh.others(victim)
    held = mesh.hold(victim, jobs)
    time.sleep(dice.uniform(*CALM_S))
    sizes = [node.log_size for node in survivors]
    pid, owner = victim.pid, victim.id
    wall, began = time.time(), time.monotonic()
    harm.strike(victim)
    found: dict[str, float] = {}

    def have_started() -> bool:
        found.update(restarts(mesh.seen(), held, pid, began))
        return len(found) == len(held)

    is_whole = _within(PATIENCE_S, have_started)
    dead = [
        death_of(node.said(size), victim.name, wall) - wall
        for node, size in zip(survivors, sizes, strict=True)
    ]
    records = [_record(survivors, job) for job in sorted(held)]
    harm.mend(victim)
    mesh.wait_ready()
    mesh.wait_idle()
    return Blow(
        harm.kind,
        number,
        victim.name,
        len(held),
        dead_s=max(0.0, min(dead)),
        all_dead_s=max(0.0, *dead),
        taken_s=max(0.0, last_takeover(records, owner, wall) - wall),
        first_s=min(found.values(), default=inf) - began,
        last_s=max(found.values()) - began if is_whole else inf,
    )


def _record(nodes: Sequence[Node], job: str) -> dict[str, Any]:
    for node in nodes:
        found = node.ask(f"/v1/jobs/{job}", timeout_s=5.0)
        if found is not None:
            return dict(found)
    return {"history": []}


def blows(
    mesh: Mesh, harm: Harm, count: int, jobs: int, dice: random.Random, say: Callable[[str], None]
) -> list[Blow]:
    found = []
    for number in range(count):
        found.append(strike(mesh, harm, number, jobs, dice))
        if (number + 1) % max(10, count // 5) == 0 and number + 1 < count:
            p50 = percentile([blow.last_s for blow in found], 0.5)
            say(f"{harm.kind} {number + 1} of {count}: median so far {p50:.3f} s")
    return found


# ------------------------------------------------------------------------------------------ leaving


def leave(mesh: Mesh, number: int, slots: int, dice: random.Random) -> Leave:
    """Tell one node to go while all have more work than slots; then start it again."""
    victim = mesh.nodes[number % len(mesh.nodes)]
    survivors, owner = mesh.others(victim), victim.id
    before = len(mesh.seen())
    payload = {"marks": str(mesh.marks), "seconds": WORK_S}
    jobs = set(survivors[0].submit("failover.work", payload, LEAVE_ROUNDS * slots * len(mesh.nodes)))
    _until(lambda: any(mark.pid == victim.pid for mark in mesh.seen()[before:]), "the node runs jobs")
    time.sleep(dice.uniform(*CALM_S))
    load = (victim.ask("/v1/nodes/self") or {"load": {}})["load"]
    assert victim.process is not None
    wall, began = time.time(), time.monotonic()
    victim.send(signal.SIGTERM)
    if not _within(PATIENCE_S, lambda: victim.exit_code is not None):
        raise Failed(f"{victim.name} did not leave within {PATIENCE_S:g} s (see {victim.log})")
    ended_s = time.monotonic() - began
    _until(lambda: jobs <= {mark.job for mark in mesh.seen()[before:]}, "all jobs have started")
    for node in survivors:
        _until(partial(_is_idle, node), f"{node.name} is idle")
    records = [_record(survivors, job) for job in sorted(jobs)]
    moved = [record for record in records if last_takeover([record], owner, wall) < inf]
    extra = sum(Counter(mark.job for mark in mesh.seen()[before:]).values()) - len(jobs)
    victim.start()
    mesh.wait_ready()
    return Leave(
        number,
        victim.name,
        running=load.get("running", 0),
        moved=len(moved),
        moved_s=max(0.0, last_takeover(moved, owner, wall) - wall) if moved else 0.0,
        ended_s=ended_s,
        extra_starts=extra,
    )


# ---------------------------------------------------------------------------------------- starvation


def starve(mesh: Mesh, seconds: float, say: Callable[[str], None]) -> Starved:
    """Hold one node and its workers to a tenth of a processor while the others burn theirs."""
    victim = mesh.nodes[0]
    sizes = {node.name: node.log_size for node in mesh.nodes}
    done = threading.Event()
    jobs = [0] * len(mesh.nodes)

    def load(place: int) -> None:
        while not done.wait(0.1):
            found = mesh.nodes[place].ask("/v1/nodes/self", timeout_s=5.0)
            if found is not None and found["load"]["queued"] < 2 * BURN_SLOTS:
                with suppress(Failed):  # the job's owner may be the starved one, and too late
                    jobs[place] += len(mesh.nodes[place].submit("failover.burn", {"seconds": BURN_S}, 12))

    with Throttle(f"edgenode-{os.getpid()}", STARVED_SHARE) as throttle:
        throttle.take(victim.pid)
        loaders = [threading.Thread(target=load, args=(place,)) for place in range(1, len(mesh.nodes))]
        for loader in loaders:
            loader.start()
        try:
            ends = time.monotonic() + seconds
            while (left_s := ends - time.monotonic()) > 0:
                time.sleep(min(60.0, left_s))
                deaths = sum(len(_deaths(node, sizes[node.name])) for node in mesh.nodes)
                say(f"{max(0.0, ends - time.monotonic()):.0f} s to go, {deaths} deaths, {sum(jobs)} jobs")
        finally:
            done.set()
            for loader in loaders:
                loader.join()
        counts = Counter(said.kind for node in mesh.nodes for said in node.said(sizes[node.name]))
        deaths_ = [text for node in mesh.nodes for text in _deaths(node, sizes[node.name])]
    return Starved(seconds, sum(jobs), tuple(deaths_), dict(sorted(counts.items())))


def _deaths(node: Node, since: int) -> list[str]:
    return [
        f"{datetime.fromtimestamp(said.at):%H:%M:%S.%f}, {node.name} says: {said.text}"
        for said in node.said(since)
        if said.kind == "member-dead"
    ]


# ------------------------------------------------------------------------------------------ results


class Results:
    """Everything measured, and whether it is as promised."""

    def __init__(self) -> None:
        self.blows: list[Blow] = []
        self.leaves: list[Leave] = []
        self.starved: Starved | None = None
        self.serf: dict[str, list[tuple[float, float]]] = {}
        self.verdicts: list[tuple[bool, str]] = []
        self.skipped: list[str] = []
        self.load: dict[str, tuple[float, float]] = {}  # of the machine, before and after each part

    @property
    def holds(self) -> bool:
        return all(kept for kept, _ in self.verdicts)

    def blow_lines(self, found: Sequence[Blow], promise: Promise) -> Iterator[str]:
        """The table of one kind of blow; notes the verdict."""
        last = [blow.last_s for blow in found]
        yield HEADING
        yield row("  a survivor calls it dead", [blow.dead_s for blow in found])
        yield row("  every survivor does", [blow.all_dead_s for blow in found])
        yield row("  its last running job has an owner", [blow.taken_s for blow in found])
        yield row("  the first of them has started", [blow.first_s for blow in found])
        yield row("  THE LAST OF THEM HAS STARTED", last)
        yield from histogram(last)
        self.verdicts.append(promise.verdict(last))
        yield self.verdicts[-1][1]

    def leave_lines(self) -> Iterator[str]:
        leaves = self.leaves
        yield HEADING
        yield row("  ITS LAST QUEUED JOB IS ANOTHER'S", [leave.moved_s for leave in leaves])
        yield row("  its process has ended", [leave.ended_s for leave in leaves])
        moved, extra = sum(leave.moved for leave in leaves), sum(leave.extra_starts for leave in leaves)
        yield f"{moved} jobs moved, {extra} starts too many"
        self.verdicts.append(LEAVE.verdict([leave.moved_s for leave in leaves]))
        self.verdicts.append((extra == 0, f"SIGTERM: {extra} jobs ran twice: {_word(extra == 0)}"))
        yield from (text for _, text in self.verdicts[-2:])

    def starve_lines(self) -> Iterator[str]:
        starved = self.starved
        assert starved is not None
        yield f"{starved.jobs} jobs to keep the processors busy"
        names = ("member-suspected", "refuted", "stalled", "member-dead")
        yield ", ".join(f"{starved.counts.get(name, 0)} {name}" for name in names)
        yield from starved.deaths[:10]
        none = not starved.deaths
        text = f"starved node: {len(starved.deaths)} deaths in {starved.seconds:.0f} s: {_word(none)}"
        self.verdicts.append((none, text))
        yield text

    def serf_lines(self) -> Iterator[str]:
        yield HEADING
        for name, found in self.serf.items():
            yield row(f"  {name}: one has noticed", [first for first, _ in found])
            yield row(f"  {name}: all have", [last for _, last in found])
        for blow, kind in (("kill -9", "kill"), ("SIGSTOP", "pause")):
            ours = [each.last_s for each in self.blows if each.kind == kind]
            theirs = self.serf.get(f"lan {blow}")
            if ours and theirs:
                ratio = percentile([last for _, last in theirs], 0.5) / percentile(ours, 0.5)
                yield f"{blow}: until Serf (lan) has noticed, {ratio:.1f} times as long as until the jobs run"

    def save(self, path: Path, arguments: argparse.Namespace) -> None:
        """As JSON, or a CSV line for each blow and leave."""
        if path.suffix == ".csv":
            with path.open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow(Blow._fields)
                table.writerows(self.blows)
                for each in self.leaves:
                    table.writerow(
                        ["leave", each.number, each.victim, each.moved, "", "", each.moved_s, "", ""]
                    )
            return
        document = {
            "machine": machine(),
            "options": {name: value for name, value in vars(arguments).items() if name != "out"},
            "load": self.load,
            "blows": [blow._asdict() for blow in self.blows],
            "leaves": [each._asdict() for each in self.leaves],
            "starved": None if self.starved is None else self.starved._asdict(),
            "serf": self.serf,
            "summary": {
                kind: Distribution.of([each.last_s for each in self.blows if each.kind == kind])._asdict()
                for kind in dict.fromkeys(each.kind for each in self.blows)
            },
            "verdicts": [{"holds": kept, "text": text} for kept, text in self.verdicts],
            "skipped": self.skipped,
        }
        path.write_text(json.dumps(document, indent=1).replace("Infinity", "null") + "\n")


def _word(kept: bool) -> str:
    return "HOLDS" if kept else "MISSED"


def machine() -> str:
    return f"{os.cpu_count()} processors, {platform.system()}, Python {platform.python_version()}"


# ----------------------------------------------------------------------------------------- the whole


class Session:
    """One call of this script: its parts in order, each with what it needs."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self._asked = arguments
        self._folder = folder
        self._began = time.monotonic()
        self._dice = random.Random(os.urandom(8))
        self._slots = arguments.jobs + SPARE_SLOTS
        self._busy = f"with {arguments.jobs} or a few more running jobs"
        self.results = Results()

    def say(self, text: str = "") -> None:
        print(f"{time.monotonic() - self._began:7.1f} s  {text}" if text else "", flush=True)

    def _part(self, name: str, title: str) -> None:
        self.say()
        self.say(title)
        load = os.getloadavg()[0]
        self.results.load[name] = (load, load)

    def _report(self, name: str, lines: Iterable[str]) -> None:
        self.results.load[name] = (self.results.load[name][0], os.getloadavg()[0])
        for line in lines:
            print(f"           {line}")
        before, after = self.results.load[name]
        print(f"           load of the machine: {before:.1f} before, {after:.1f} after", flush=True)

    def _skip(self, what: str, why: str) -> None:
        self.results.skipped.append(f"{what}: {why}")
        self.say()
        self.say(f"SKIPPED {what}: {why}")

    def run(self) -> None:
        asked = self._asked
        self.say(f"{asked.nodes} nodes, profile {asked.profile}; {machine()}")
        if asked.kills or asked.pauses or asked.leaves:
            with self._mesh("loopback", self._slots) as mesh:
                self._loopback(mesh)
        if asked.cuts:
            self._cuts()
        if asked.starve_s:
            self._starve()
        if asked.serf:
            self._serf()

    def _mesh(self, name: str, slots: int, lan: Lan | None = None) -> Mesh:
        asked = self._asked
        return Mesh(
            self._folder / name,
            asked.nodes,
            slots=slots,
            profile=asked.profile,
            base_port=asked.base_port,
            lan=lan,
        )

    def _loopback(self, mesh: Mesh) -> None:
        asked = self._asked
        if asked.kills:
            self._part("kill", f"kill -9 of a node {self._busy}, {asked.kills} times")
            self._blows(mesh, KILLED, asked.kills, KILL)
        if asked.leaves:
            self._part("leave", f"SIGTERM of a node with running and queued jobs, {asked.leaves} times")
            for number in range(asked.leaves):
                self.results.leaves.append(leave(mesh, number, self._slots, self._dice))
            self._report("leave", self.results.leave_lines())
        if asked.pauses:
            self._part("pause", f"SIGSTOP of a node {self._busy}, {asked.pauses} times")
            self._blows(mesh, PAUSED, asked.pauses, PAUSE)

    def _blows(self, mesh: Mesh, harm: Harm, count: int, promise: Promise) -> None:
        found = blows(mesh, harm, count, self._asked.jobs, self._dice, self.say)
        self.results.blows += found
        self._report(harm.kind, self.results.blow_lines(found, promise))

    def _cuts(self) -> None:
        asked = self._asked
        if lacks := missing():
            self._skip("cut cables", f"it needs {', '.join(lacks)}")
            return
        self._part("cut", f"the cable of a node {self._busy} is pulled, {asked.cuts} times")
        with ExitStack() as stack:
            lan = stack.enter_context(Lan(asked.nodes, self._folder / "lan"))
            mesh = stack.enter_context(self._mesh("cables", self._slots, lan))
            self._blows(mesh, unplugged(lan), asked.cuts, CUT)

    def _starve(self) -> None:
        asked = self._asked
        if why := why_no_throttle():
            self._skip("starved node", why)
            return
        title = f"one node is held to {STARVED_SHARE:.0%} of a processor, its peers are loaded"
        self._part("starve", f"{title}, {asked.starve_s:.0f} s")
        with self._mesh("starved", BURN_SLOTS) as mesh:
            self.results.starved = starve(mesh, asked.starve_s, self.say)
        self._report("starve", self.results.starve_lines())

    def _serf(self) -> None:
        asked = self._asked
        if why := serf.why_no_serf():
            self._skip("Serf", why)
            return
        self._part("serf", f"Serf: one of {asked.nodes} agents is killed or stopped, {asked.serf} times each")
        for profile in serf.PROFILES:
            for name, number in (("kill -9", signal.SIGKILL), ("SIGSTOP", signal.SIGSTOP)):
                found = serf.detection(asked.serf, asked.nodes, profile, number)
                self.results.serf[f"{profile} {name}"] = found
        self._report("serf", self.results.serf_lines())


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=3, help="how many (3 to 9; default 3)")
    parser.add_argument("--jobs", type=int, default=8, help="running on a node when it is hit (default 8)")
    parser.add_argument("--profile", choices=sorted(PRESETS), default="lan", help="default lan")
    parser.add_argument("--kills", type=int, help="default 100; 0 leaves a part out, here and below")
    parser.add_argument("--pauses", type=int, help="default 50")
    parser.add_argument("--cuts", type=int, help="default 50")
    parser.add_argument("--leaves", type=int, help="default 20")
    parser.add_argument("--starve-s", type=float, help="seconds; default 600")
    parser.add_argument("--serf", type=int, help="agents hit, for each kind and profile; default 10")
    parser.add_argument("--quick", action="store_true", help="few of each, unless said otherwise")
    parser.add_argument("--out", type=Path, help="FILE.json (everything) or FILE.csv (a line a blow)")
    parser.add_argument("--base-port", type=int, default=FIRST_PORT, help="look for free ports from here on")
    parser.add_argument("--keep", action="store_true", help="keep the nodes' data and logs")
    given = parser.parse_args(arguments)
    full = {"kills": 100, "pauses": 50, "cuts": 50, "leaves": 20, "starve_s": 600.0, "serf": 10}
    for name, count in (QUICK if given.quick else full).items():
        if getattr(given, name) is None:
            setattr(given, name, count)
        if not 0 <= getattr(given, name) <= 100_000:
            parser.error(f"--{name.replace('_', '-')} is from 0 to 100,000")
    if not 3 <= given.nodes <= 9 or not 1 <= given.jobs <= 64:
        parser.error("--nodes is from 3 to 9, --jobs from 1 to 64")
    if given.out is not None and given.out.suffix not in (".json", ".csv"):
        parser.error("--out is a file that ends in .json or .csv")
    return given


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """SIGTERM (and a closed terminal) ends this as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    kept = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def main() -> int:
    arguments = parse(sys.argv[1:])
    folder = Path(tempfile.mkdtemp(prefix="edgenode-failover-"))
    session = Session(arguments, folder)
    code = 1
    try:
        with ending_on_sigterm():
            session.run()
        results = session.results
        if arguments.out is not None:
            results.save(arguments.out, arguments)
        print("\n" + "\n".join(["verdict", *(f"  {text}" for _, text in results.verdicts)]))
        print("\n".join(f"  SKIPPED {text}" for text in results.skipped))
        code = 0 if results.holds else 1
    except KeyboardInterrupt:
        print("stopped: all nodes have ended")
        code = 130
    except (EdgeNodeError, serf.SerfFailed, OSError) as error:
        print(f"failover: {getattr(error, 'detail', error)}")
    finally:
        if arguments.keep or (code == 1 and not session.results.verdicts):
            print(f"data and logs of the nodes: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
