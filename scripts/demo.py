"""Five nodes on this machine, 200 jobs, two nodes killed with kill -9, one of them back: is anything lost?

    python scripts/demo.py [--nodes N --jobs N --kills N --base-port PORT --work DIR --keep --seed N --plain]

What a reader sees while it runs comes from one living node's answers; the verdict at the end comes from the
records as every living node tells them, and from the files that were written.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple, Protocol

from ports import PORT_MAX, Ports
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from samples import Job, Samples, check_outputs, jobs_for, make_samples
from verdict import (
    CUT_S,
    START_LOST,
    TAKEOVERS,
    Evidence,
    Kill,
    Record,
    Recovery,
    Verdict,
    has_run_since,
    judge,
    moment,
)

from edgenode.cli.up import PEER_OFFSET, LocalMesh, LocalNode
from edgenode.client import Client, ClientError
from edgenode.client import Job as Submitted
from edgenode.client.job import ENDS
from edgenode.core.errors import EdgeNodeError

LOOK_S: Final = 0.2
"""How often the mesh is looked at. 200 records are read in some 20 ms, so it costs little of the CPU."""
STALL_S: Final = 60.0
"""When nothing has happened for so long, the run is judged as it is."""
BATCH: Final = 10
FIRST_KILL: Final = 0.15
LAST_KILL: Final = 0.45
"""Shares of the sent jobs that are done when the first and the last node are killed."""
HELD_BACK: Final = 0.1
"""Share of the jobs that is kept for the node that comes back."""
JOBS_MIN: Final = 10
"""Linux gives ports from 32768 on to whoever connects somewhere."""
PROBLEMS_SHOWN: Final = 10
ROUNDS_MAX: Final = 10
"""With 10 jobs a round, 4 living nodes and no luck at all, the chance to get none of 100 is 3e-13."""
SMALL_DIGITS: Final = 100
WIDE: Final = 10_000
"""Columns of an output that is no terminal: lines are not broken there."""


class Stopped(BaseException):
    """Somebody wants the demo to end: Ctrl-C, SIGTERM, or a closed terminal."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


# --------------------------------------------------------------------------------- what the mesh shows


@dataclass(frozen=True, slots=True)
class Look:
    """What one living node said at one moment: every job by its id, and each member's state by its name."""

    records: Mapping[str, Record]
    members: Mapping[str, str]

    def done(self) -> int:
        return sum(record["state"] in ENDS for record in self.records.values())

    def is_over(self) -> bool:
        """Every job has ended, and a majority of its holders has that on disk."""
        return all(record["state"] in ENDS and record["settled"] for record in self.records.values())

    def owned(self, node: str) -> list[Record]:
        """Unfinished jobs that this node looks after; one that is over but not settled still is."""
        return [
            record
            for record in self.records.values()
            if record["owner"] == node and not (record["state"] in ENDS and record["settled"])
        ]

    def running(self, node: str) -> int:
        return sum(
            record["state"] == "running" and record["runner"] == node for record in self.records.values()
        )


class Row(NamedTuple):
    """One node of the table, as text."""

    name: str
    pid: str
    state: str
    owned: str
    queued: str
    running: str
    done: str
    last_takeover: str


class View(NamedTuple):
    rows: Sequence[Row]
    total: int  # jobs of the whole run
    sent: int
    done: int
    running: int


class Took(NamedTuple):
    """A job that got another owner."""

    job: str
    taker: str  # id of a node
    giver: str
    why: str
    at: float  # Unix time


def takeovers(records: Mapping[str, Record], nodes: Sequence[str]) -> list[Took]:
    """Every takeover that the histories tell of, the oldest first; `nodes` are the known ids."""
    found = []
    for job, record in records.items():
        for note in record["history"]:
            who, _, why = note["detail"].partition(": ")
            giver = who.removeprefix("from ")
            if note["kind"] in TAKEOVERS and giver in nodes:
                found.append(Took(job, note["node"], giver, why, moment(note["at"])))
    return sorted(found, key=lambda took: (took.at, took.job))


def busiest(look: Look, nodes: Sequence[str]) -> str | None:
    """The node that owns most running jobs; of equals the one that runs and then owns most. None: none runs.

    Owning counts, not running: an owner's death moves its jobs, wherever they run.
    """

    def weight(node: str) -> tuple[int, int, int]:
        owned = look.owned(node)
        return sum(record["state"] == "running" for record in owned), look.running(node), len(owned)

    found = max(sorted(nodes), key=weight, default=None)
    return None if found is None or weight(found)[0] == 0 else found


# ------------------------------------------------------------------------------------------ the screen


class Screen(Protocol):
    def say(self, text: str, style: str = "") -> None:
        """An event, with its time."""

    def show(self, view: View) -> None:
        """How things are now."""


def clocked(began: float, text: str, style: str) -> Text:
    return Text.assemble((f"{time.monotonic() - began:6.1f} s  ", "dim"), (text, style))


class PlainScreen:
    """Lines for a file or a pipe: every event, and the progress now and then."""

    def __init__(self, console: Console, began: float) -> None:
        self._console = console
        self._began = began
        self._told = -1

    def say(self, text: str, style: str = "") -> None:
        self._console.print(clocked(self._began, text, style), soft_wrap=True)

    def show(self, view: View) -> None:
        tenth = 10 * view.done // view.total
        if tenth != self._told:
            self._told = tenth
            waiting = view.sent - view.done - view.running
            self.say(f"{view.done} of {view.total} jobs done, {view.running} running, {waiting} waiting")


class LiveScreen:
    """Events scroll by above a table of the nodes and a progress bar, both kept up to date."""

    def __init__(self, console: Console, began: float) -> None:
        self._console = console
        self._began = began
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> LiveScreen:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        self._console.print(clocked(self._began, text, style))

    def show(self, view: View) -> None:
        self._live.update(Group(node_table(view), progress_line(view)), refresh=True)


STYLES: Final = {"ready": "green", "killed": "bold red", "dead": "red"}


def node_table(view: View) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in Row._fields:
        is_number = heading in ("pid", "owned", "queued", "running", "done")
        table.add_column(heading.replace("_", " "), justify="right" if is_number else "left", no_wrap=True)
    for row in view.rows:
        style = STYLES.get(row.state, "yellow")
        table.add_row(row.name, row.pid, Text(row.state, style), *row[3:], style="" if row.pid else "dim")
    return table


def progress_line(view: View) -> Table:
    line = Table.grid(padding=(0, 2))
    waiting = view.sent - view.done - view.running
    text = f"{view.done} of {view.total} jobs done, {view.running} running, {waiting} waiting"
    held_back = view.total - view.sent
    line.add_row(
        ProgressBar(total=view.total, completed=view.done, width=40),
        text + (f", {held_back} not sent yet" if held_back else ""),
    )
    return line


# ------------------------------------------------------------------------------------------ the watch


class Watch:
    """Looks at the mesh through any living node, tells what is new, and shows the rest."""

    def __init__(self, mesh: LocalMesh, screen: Screen, total: int) -> None:
        self.mesh = mesh
        self.screen = screen
        self.total = total
        self.sent = 0
        self.ids: dict[str, str] = {}  # of the nodes, by name
        self._records: dict[str, Record] = {}
        self._told: set[Took] = set()
        self._restarts_awaited: list[Kill] = []
        self._last_takeover: dict[str, tuple[int, str, float]] = {}  # by taker: count, giver's name, when

    def learn_names(self) -> None:
        self.ids = {name: str(member["id"]) for name, member in self.mesh.members().items()}

    def name(self, node: str) -> str:
        return next((name for name, known in self.ids.items() if known == node), node)

    def living(self) -> list[LocalNode]:
        return [node for node in self.mesh.nodes if node.exit_code is None]

    def choice(self, look: Look) -> str | None:
        """The node to kill: see `busiest`."""
        return busiest(look, [self.ids[node.name] for node in self.living()])

    def note_kill(self, kill: Kill) -> None:
        self._restarts_awaited.append(kill)

    def until(self, is_enough: Callable[[Look], bool]) -> Look:
        """Look until it is enough, or until nothing has changed for STALL_S; the last look."""
        before: object = None
        changed_at = time.monotonic()
        while True:
            look = self._look()
            if is_enough(look):
                return look
            now = look.members, [(r["state"], r["owner"], r["settled"]) for r in look.records.values()]
            if now != before:
                before, changed_at = now, time.monotonic()
            elif time.monotonic() - changed_at > STALL_S:
                self.screen.say(
                    f"nothing has changed for {STALL_S:.0f} s: no more waiting for it", "bold red"
                )
                return look
            time.sleep(LOOK_S)

    def _look(self) -> Look:
        living = self.living()
        if not living:
            raise EdgeNodeError("every node has ended")
        client = Client([node.url for node in living])
        # Until a death is noticed, a list may lack the jobs that the dead node speaks for: they stay as they
        # were seen last.
        self._records |= {job.id: job.fields for job in client.jobs(page=1000)}
        records = dict(self._records)
        look = Look(records, {str(member["name"]): str(member["state"]) for member in client.nodes()})
        self._tell_takeovers(look)
        self._tell_restarts(look)
        running = sum(record["state"] == "running" for record in records.values())
        rows = [self._row(node, look) for node in self.mesh.nodes]
        self.screen.show(View(rows, self.total, self.sent, look.done(), running))
        return look

    def _tell_takeovers(self, look: Look) -> None:
        fresh = set(takeovers(look.records, list(self.ids.values()))) - self._told
        self._told |= fresh
        groups = Counter((self.name(took.taker), self.name(took.giver), took.why) for took in fresh)
        for (taker, giver, why), count in sorted(groups.items()):
            taken = sum(
                (self.name(told.taker), self.name(told.giver)) == (taker, giver) for told in self._told
            )
            self._last_takeover[taker] = taken, giver, time.monotonic()
            self.screen.say(f"{taker} takes over {jobs_text(count)} of {giver}: {why}", "yellow")

    def _tell_restarts(self, look: Look) -> None:
        """The first job that ran on a killed node and runs again. How long it took is for the verdict."""
        for kill in list(self._restarts_awaited):
            for record in look.records.values():
                if record["runner"] is not None and any(is_loss(note, kill) for note in record["history"]):
                    self._restarts_awaited.remove(kill)
                    name = self.name(record["runner"])
                    text = f"{name} has started a job again that ran on {kill.name} ({record['task']})"
                    self.screen.say(text, "yellow")
                    break

    def _row(self, node: LocalNode, look: Look) -> Row:
        me = self.ids[node.name]
        owned = [record for record in look.owned(me) if record["state"] not in ENDS]
        queued = sum(record["state"] == "queued" for record in owned)
        done = sum(r["state"] in ENDS and r["runner"] == me for r in look.records.values())
        is_dead = node.exit_code is not None
        last = ""
        if node.name in self._last_takeover:
            count, giver, at = self._last_takeover[node.name]
            last = f"{jobs_text(count)} of {giver}, {time.monotonic() - at:.0f} s ago"
        return Row(
            node.name,
            "" if is_dead else str(node.pid),
            state_text(look.members.get(node.name), is_dead=is_dead),
            str(len(owned)),
            str(queued),
            str(look.running(me)),
            str(done),
            last,
        )


def state_text(believed: str | None, *, is_dead: bool) -> str:
    """A node's state in a word: what the others believe, unless the process is known to be otherwise."""
    if is_dead:
        return "dead" if believed == "dead" else "killed"  # the others have not noticed yet
    return "starting" if believed in (None, "dead", "left") else believed


def is_loss(note: Mapping[str, Any], kill: Kill) -> bool:
    """Whether this line of a history says that a start was lost with the killed node."""
    is_of_kill = kill.node in note["detail"] and moment(note["at"]) >= kill.at - CUT_S
    return note["kind"] == START_LOST and is_of_kill


def jobs_text(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


# --------------------------------------------------------------------------------------------- the run


@dataclass
class Demo:
    """One run on a mesh that the caller starts and ends: `run` gives the evidence."""

    watch: Watch
    jobs: list[Job]
    kills_planned: int
    ids: list[str | None] = field(default_factory=list)  # of `jobs`, as far as sent; None: not acknowledged
    kills: list[Kill] = field(default_factory=list)
    acks_min: int = 0

    def run(self, samples: Samples) -> Evidence:
        nodes = self.watch.mesh.nodes
        self.watch.mesh.wait_ready()
        self.watch.learn_names()
        self._say(f"{len(nodes)} nodes are ready: each has found every other")
        first = len(self.jobs) - (max(1, int(len(self.jobs) * HELD_BACK)) if self.kills_planned else 0)
        self._send_in_turn(self.jobs[:first])
        for number in range(self.kills_planned):
            share = FIRST_KILL + (LAST_KILL - FIRST_KILL) * number / max(1, self.kills_planned - 1)
            if not self._kill_one(share):
                break
        returned = self._bring_back() if self.kills else nodes[0]
        if first < len(self.jobs):
            self._send(self.jobs[first:], returned)
            self._say(f"{len(self.jobs) - first} more jobs sent, all to {returned.name}")
        self.watch.until(self._is_over)
        if self.kills:
            self._see_it_work(returned)
        return self._evidence(samples)

    def _is_over(self, look: Look) -> bool:
        return look.is_over() and len(look.records) >= len(self._accepted())

    def _say(self, text: str, style: str = "") -> None:
        self.watch.screen.say(text, style)

    def _accepted(self) -> list[str]:
        return [job for job in self.ids if job is not None]

    def _send_in_turn(self, jobs: Sequence[Job]) -> None:
        nodes = self.watch.mesh.nodes
        for number, at in enumerate(range(0, len(jobs), BATCH)):
            self._send(jobs[at : at + BATCH], nodes[number % len(nodes)])
        self._say(
            f"{len(jobs)} jobs sent, {BATCH} at a time, to the nodes in turn: {len(self._accepted())} "
            f"accepted, each on {self.acks_min} disks or more"
        )

    def _send(self, jobs: Sequence[Job], node: LocalNode) -> None:
        documents = [{"task": job.task, "payload": job.payload} for job in jobs]
        for job, answer in zip(jobs, Client(node.url).submit_many(documents), strict=True):
            if isinstance(answer, Submitted):
                acks = int(answer.fields["receipt"]["acks"])
                self.acks_min = min(acks, self.acks_min or acks)
                self.ids.append(answer.id)
            else:
                self.ids.append(None)
                self._say(f"{node.name} did not accept a {job.task} job: {answer}", "bold red")
        self.watch.sent = len(self.ids)

    def _kill_one(self, share: float) -> bool:
        """Kill the node that owns most running work once this share of the jobs is done, and wait until the
        others have all that it had. False if no work is running any more."""
        watch, wanted = self.watch, share * len(self.ids)
        look = watch.until(
            lambda look: look.is_over() or (look.done() >= wanted and watch.choice(look) is not None)
        )
        victim = watch.choice(look)
        if victim is None:
            self._say("no work is running any more: there is nothing to kill", "bold red")
            return False
        node = next(node for node in watch.mesh.nodes if watch.ids[node.name] == victim)
        assert node.process is not None
        owned = look.owned(victim)
        had = {record["id"] for record in owned}
        at_work = sum(record["state"] == "running" for record in owned)
        kill = Kill(victim, node.name, time.time())
        node.process.send_signal(signal.SIGKILL)
        node.process.wait()
        self.kills.append(kill)
        watch.note_kill(kill)
        self._say(
            f"kill -9 {node.pid}: {node.name} is gone. It owned {jobs_text(len(owned))}, {at_work} of them "
            "running; no other owned more running ones",
            "bold red",
        )
        watch.until(lambda look: not had & {record["id"] for record in look.owned(victim)})
        return True

    def _bring_back(self) -> LocalNode:
        """Start the node that was killed first again, with its data folder, and wait until it is ready."""
        kill = self.kills[0]
        node = next(node for node in self.watch.mesh.nodes if node.name == kill.name)
        node.start()
        self._say(f"{node.name} is started again (pid {node.pid}), with the disk that it had")
        self.watch.until(lambda look: look.members.get(node.name) == "ready" and _says_ready(node))
        self.kills[0] = kill._replace(back_at=time.time())
        self._say(f"{node.name} is ready again", "bold green")
        return node

    def _see_it_work(self, node: LocalNode) -> None:
        """A job goes to whichever node is first in its rank: send small ones until this node got some."""
        kill = self.kills[0]
        for number in range(ROUNDS_MAX):
            look = self.watch.until(self._is_over)
            if any(has_run_since(record, kill) for record in look.records.values()):
                return
            more = [small_job(number * BATCH + place) for place in range(BATCH)]
            self.jobs += more
            self.watch.total = len(self.jobs)
            self._send(more, node)
            self._say(f"{node.name} happened to get none of them: {BATCH} small jobs more sent to it")
        self.watch.until(self._is_over)

    def _evidence(self, samples: Samples) -> Evidence:
        """What each living node says of each accepted job, asked one by one; and what is in the files."""
        living, accepted = self.watch.living(), self._accepted()
        self._say(f"reading all {len(accepted)} records from each of {len(living)} living nodes")
        readings = {node.name: {job: _read(node, job) for job in accepted} for node in living}
        told = next(iter(readings.values()), {})
        results = [None if job is None else _result(told.get(job)) for job in self.ids]
        self._say("checking every file and every result against what the inputs demand")
        wrong = check_outputs(samples, self.jobs, results)
        return Evidence(len(self.jobs), accepted, readings, self.kills, self.kills_planned, wrong)


def small_job(number: int) -> Job:
    return Job("compute.pi", {"first": number * SMALL_DIGITS, "count": SMALL_DIGITS})


def _says_ready(node: LocalNode) -> bool:
    if node.exit_code is not None:
        raise EdgeNodeError(f"{node.name} ended when it was started again (see {node.log})")
    return (node.ask("/v1/nodes/self") or {}).get("ready") is True


def _read(node: LocalNode, job: str) -> Record | None:
    try:
        return Client(node.url, timeout_s=10.0).get(job).fields
    except ClientError:
        return None


def _result(record: Record | None) -> Mapping[str, Any] | None:
    return record["result"] if record is not None and record["state"] == "succeeded" else None


# ----------------------------------------------------------------------------------------- the verdict


def verdict_lines(verdict: Verdict, living: int, took_s: float) -> Iterator[Text]:
    """The verdict for people. Every number in it was computed by `judge`."""

    def line(name: str, value: object, meaning: str, *, good: bool = True) -> Text:
        style = "bold green" if good else "bold red"
        return Text.assemble(f"  {name:<14}", (f"{value:>5}", style), f"   {meaning}")

    lost, wrong = len(verdict.lost), len(verdict.wrong)
    yield line("accepted", verdict.accepted, f"of {verdict.sent} sent", good=verdict.accepted == verdict.sent)
    yield line(
        "finished",
        verdict.finished,
        f"succeeded and settled, and told alike by all {living} living nodes",
        good=verdict.finished == verdict.accepted,
    )
    yield line("lost", lost, "accepted, but not finished", good=not lost)
    yield line("wrong", wrong, "files and results that are not what the inputs demand", good=not wrong)
    interrupted = sum(recovery.interrupted for recovery in verdict.recoveries)
    yield line(
        "extra starts",
        verdict.extra_starts,
        f"{verdict.starts} starts in all; {interrupted} jobs were interrupted by a kill and began again",
    )
    yield line(
        "unexplained",
        len(verdict.unexplained),
        "jobs started more than once that no killed node owned or ran",
        good=not verdict.unexplained,
    )
    for recovery in verdict.recoveries:
        yield Text()
        yield from recovery_lines(recovery)
    yield Text()
    yield Text(f"  {took_s:.1f} s in all", "dim")
    for problem in verdict.problems[:PROBLEMS_SHOWN]:
        yield Text(f"  {problem}", "red")
    if len(verdict.problems) > PROBLEMS_SHOWN:
        yield Text(f"  and {len(verdict.problems) - PROBLEMS_SHOWN} more problems", "red")
    if verdict.passed:
        yield Text("PASSED: nothing was lost", "bold green")
    else:
        yield Text("FAILED: see the lines above", "bold red")


def recovery_lines(recovery: Recovery) -> Iterator[Text]:
    kill = recovery.kill
    yield Text.assemble((f"  {kill.name}", "bold"), " was killed; from that moment it took")
    yield Text.assemble(
        (_milliseconds(recovery.takeover_s), "bold"),
        f"   until the first of its {jobs_text(recovery.taken_over)} had another owner",
    )
    if recovery.interrupted:
        yield Text.assemble(
            (_milliseconds(recovery.restart_s), "bold"),
            f"   until the first of the {jobs_text(recovery.interrupted)} that it was running "
            "had been started again elsewhere",
        )
    else:
        yield Text("               (none of them was running on it: they ran on elsewhere)")
    if kill.back_at < inf:
        yield Text.assemble(
            (f"{kill.back_at - kill.at:>16.1f} s ", "bold"),
            f"   until it was back; it has run {jobs_text(recovery.ran_since)} since",
        )


def _milliseconds(seconds: float | None) -> str:
    return f"{'unknown':>19}" if seconds is None else f"{seconds * 1000:>16.0f} ms"


# -------------------------------------------------------------------------------------------- the setup


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal raise `Stopped`, once: cleaning up is not to be interrupted."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, frame: FrameType | None) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    kept = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextmanager
def work_folder(parent: Path | None, *, keep: bool) -> Iterator[Path]:
    """A new folder, in `parent` or where temporary files go; removed at the end unless it is to be kept."""
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="edgenode-demo-", dir=parent)).absolute()
    try:
        yield folder
    finally:
        # The workers of a node that was killed just now may still be ending.
        for _ in range(0 if keep else 50):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.02)


def demo_jobs(folder: Path, count: int, seed: int) -> tuple[Samples, list[Job]]:
    """Inputs and `count` jobs of the four kinds. Each job is as heavy as any in a run of 200, so that fewer
    jobs need smaller inputs."""
    samples = make_samples(
        folder, pictures=max(2, count // 5), records=300 * count, transactions=100 * count, seed=seed
    )
    resizes, ranges = count * 3 // 10, count // 5
    jobs = jobs_for(
        samples, resizes=resizes, parts=resizes, ranges=ranges, pi_parts=count - 2 * resizes - ranges
    )
    return samples, jobs


EXAMPLES: Final = """\
examples:
  python scripts/demo.py                                   five nodes, 200 jobs, two kills
  python scripts/demo.py --nodes 3 --jobs 20 --kills 1     a small one, in some ten seconds
  python scripts/demo.py --keep --work .                   leaves inputs, outputs, disks and logs to look at

exit codes: 0 every check passed, 1 one did not, 130 after Ctrl-C. No process is left behind, and no file
without --keep."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Start nodes, give them jobs, kill nodes with kill -9, bring the first of them back, and "
        "check that nothing is lost.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument("--nodes", default=5, help="how many nodes, 2 to 20 (5)", **number)
    parser.add_argument("--jobs", default=200, help=f"how many jobs, {JOBS_MIN} to 1000 (200)", **number)
    parser.add_argument("--kills", default=2, help="how many nodes are killed, in turn (2)", **number)
    port_help = "free ports are looked for from here on; node i has its API at this + i (8700)"
    parser.add_argument("--base-port", type=int, default=8700, metavar="PORT", help=port_help)
    work_help = "make the working folder in DIR (where temporary files go)"
    parser.add_argument("--work", type=Path, metavar="DIR", help=work_help)
    parser.add_argument("--keep", action="store_true", help="keep that folder: inputs, outputs, disks, logs")
    parser.add_argument("--seed", default=1, help="other inputs, and another order of the jobs (1)", **number)
    parser.add_argument("--plain", action="store_true", help="plain lines, also on a terminal")
    given = parser.parse_args()
    if not 2 <= given.nodes <= 20:
        parser.error("--nodes is from 2 to 20")
    if not JOBS_MIN <= given.jobs <= 1000:
        parser.error(f"--jobs is from {JOBS_MIN} to 1000")
    if not 0 <= given.kills < given.nodes:
        parser.error("--kills must leave a node alive")
    if not 1024 <= given.base_port <= PORT_MAX - PEER_OFFSET - given.nodes:
        parser.error(f"--base-port is from 1024 to {PORT_MAX - PEER_OFFSET - given.nodes}")
    return given


def introduce(console: Console, given: argparse.Namespace) -> None:
    kills = "1 kill" if given.kills == 1 else f"{given.kills} kills"
    console.print(Text(f"edgenode demo: {given.nodes} nodes, {given.jobs} jobs, {kills}", "bold"))
    console.print(
        "Every node takes jobs, keeps copies of other nodes' jobs, and runs jobs. A job has one owner,\n"
        "which sees to it, and copies on two more nodes. Nodes die by kill -9 in the middle of their\n"
        "work, and their jobs must go on elsewhere.\n",
        soft_wrap=True,
    )


def run(given: argparse.Namespace, console: Console) -> int:
    """All of it; the exit code."""
    began = time.monotonic()
    introduce(console, given)
    with work_folder(given.work, keep=given.keep) as folder:
        if given.keep:
            console.print(f"everything is kept in {folder}", soft_wrap=True)
        plain = PlainScreen(console, began)
        plain.say("making sample inputs: pictures, orders and products, chains of signed transactions")
        samples, jobs = demo_jobs(folder / "samples", given.jobs, given.seed)
        kinds = sorted(Counter(job.task for job in jobs).items())
        plain.say(
            f"{len(jobs)} jobs are to be done: " + ", ".join(f"{count} {task}" for task, count in kinds)
        )
        (folder / "mesh").mkdir()
        (folder / "scratch").mkdir()
        # What the workers of a killed node leave behind is to go with the folder.
        os.environ["TMPDIR"] = str(folder / "scratch")
        with (
            Ports() as ports,
            LocalMesh(
                given.nodes,
                data_dir=folder / "mesh",
                base_port=ports.take_mesh(given.nodes, given.base_port),
                mdns=False,
            ) as mesh,
        ):
            urls = f"{mesh.nodes[0].url} to :{mesh.nodes[-1].api_port}"
            plain.say(f"{given.nodes} nodes are starting, each a process of its own: {urls}")
            is_live = console.is_terminal and not given.plain
            with LiveScreen(console, began) if is_live else nullcontext(plain) as screen:
                demo = Demo(Watch(mesh, screen, len(jobs)), jobs, given.kills)
                evidence = demo.run(samples)
    exit_code = conclude(console, evidence, time.monotonic() - began)
    if exit_code and not given.keep:
        console.print("(run it with --keep to look at the nodes' logs afterwards)")
    return exit_code


def conclude(console: Console, evidence: Evidence, took_s: float) -> int:
    """Print the verdict; the exit code that says the same."""
    verdict = judge(evidence)
    console.print(Text("\nVerdict, from the records and the files\n", "bold"))
    for line in verdict_lines(verdict, len(evidence.readings), took_s):
        console.print(line, soft_wrap=True)
    return 0 if verdict.passed else 1


def main() -> int:
    given = arguments()
    is_terminal = sys.stdout.isatty()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    console = Console(highlight=False, markup=False, emoji=False, width=None if is_terminal else WIDE)
    try:
        with stopping_on_signals():
            return run(given, console)
    except Stopped as stopped:
        console.print(Text("\nstopped: all nodes have ended", "bold"))
        return 128 + stopped.number
    except (EdgeNodeError, ClientError) as error:
        console.print(Text(f"demo: {error}", "bold red"), soft_wrap=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
