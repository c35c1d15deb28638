"""Real nodes are killed, paused and started again at random while clients submit jobs: is anything lost?

    python scripts/chaos.py [--nodes N --seconds S --rate JOBS/S --seed N --all --slots N --keep]

Three parts, as in Jepsen's tests of queues (https://github.com/jepsen-io/jepsen):

    clients    submit `echo`, `sleep` and `fail` jobs to random nodes, and write down what was asked, what was
               answered, and when
    nemesis    picks a node at random and does something to it: kill -9, SIGSTOP, or SIGTERM; a while later it
               undoes that. Never more than a minority is down at a time, unless --all
    judge      heals everything, waits until every job has ended, asks every node for every job, and compares
               what the mesh says with what the clients were told

The verdict has these words for submissions, and 1 is the exit code if anything is in a line that says BAD:

    ok           a 202, and the job ended as it must
    refused      definitely not stored, said the answer; found all the same is BAD (unexpected)
    indefinite   no answer, or one that says "unknown": both outcomes are right
    recovered    indefinite, and the job was stored and ended
    lost         a 202, and the job has not ended, or nobody knows it: BAD
    wrong        ended, but not as it must: BAD
    split        two nodes show different ends of one job: BAD
    duplicated   one submission made two jobs: BAD
    extra starts counted, and allowed: delivery is at least once

The same --seed gives the same plan; what the machine makes of it differs from run to run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from demo import free_base_port

from edgenode.cli.up import LocalMesh, LocalNode
from edgenode.client import Client, ClientError
from edgenode.client.job import ENDS
from edgenode.core.errors import EdgeNodeError

FIRST_PORT: Final = 21_000
REQUEST_S: Final = 15.0
"""How long a client waits for an answer: longer than a node (10 s), so that most hear one."""
CALM_S: Final = (0.3, 2.5)
DOWN_S: Final = (0.2, 6.0)
SETTLE_S: Final = 90.0
SHOWN_MAX: Final = 5


@dataclass(slots=True)
class Submission:
    """What one client asked, and what it was told. Times are seconds since the beginning."""

    number: int
    node: str
    document: Mapping[str, Any]
    asked_at: float
    told: str = "indefinite"  # or "accepted", "refused"
    job: str | None = None
    why: str = ""
    answered_at: float | None = None

    @property
    def mark(self) -> str:
        """The queue that only this submission's job is in: how it is found when no answer named its id."""
        return f"chaos-{self.number}"


@dataclass
class History:
    """Everything that happened, in the order of its beginning."""

    began: float = field(default_factory=time.monotonic)
    submissions: list[Submission] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def now(self) -> float:
        return time.monotonic() - self.began

    def say(self, text: str) -> None:
        print(f"{self.now:6.1f} s  {text}", flush=True)


# ------------------------------------------------------------------------------------------- clients


def document_of(number: int, dice: random.Random) -> dict[str, Any]:
    """A job whose end is known beforehand (see `must_end`)."""
    kind = dice.choices(["echo", "sleep", "fail"], [5, 4, 1])[0]
    if kind == "echo":
        return {"task": "echo", "payload": {"message": number}}
    if kind == "sleep":
        return {"task": "sleep", "payload": {"seconds": round(dice.uniform(0.05, 1.0), 3)}, "max_losses": 20}
    return {
        "task": "fail",
        "payload": {"times": 1, "message": "once"},
        "backoff": {"kind": "constant", "base_s": 0.2},
    }


def must_end(document: Mapping[str, Any], state: str, result: Any) -> bool:
    """Whether a job may end like this."""
    if state != "succeeded":
        return False
    match document["task"]:
        case "echo":
            return bool(result == document["payload"]["message"])
        case "sleep":
            return bool(result["slept_s"] >= document["payload"]["seconds"] - 0.01)
        case _:
            return bool(result["attempt"] == 2)


async def clients(
    mesh: LocalMesh, history: History, rate: float, seconds: float, dice: random.Random
) -> None:
    """Submit at random moments, `rate` a second on average, whether the answers come or not."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_S, connect=2.0)) as session,
        asyncio.TaskGroup() as group,
    ):
        while history.now < seconds:
            number = len(history.submissions)
            node = dice.choice(mesh.nodes)
            document = document_of(number, dice)
            submission = Submission(number, node.name, document, history.now)
            history.submissions.append(submission)
            group.create_task(submit(session, node, submission, history))
            await asyncio.sleep(dice.expovariate(rate))


async def submit(
    session: aiohttp.ClientSession, node: LocalNode, submission: Submission, history: History
) -> None:
    document = {**submission.document, "queue": submission.mark}
    try:
        async with session.post(f"{node.url}/v1/jobs", json=document) as answer:
            told = await answer.json(content_type=None)
            if answer.status in (200, 202):
                submission.told, submission.job = "accepted", str(told["id"])
            else:
                submission.told = "refused" if told.get("definite") is True else "indefinite"
                submission.job = told.get("job")
                submission.why = f"{answer.status} {told.get('title')}"
    except aiohttp.ClientConnectorError as error:
        submission.told, submission.why = "refused", f"not connected: {error.os_error.strerror}"
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        submission.why = repr(error)
    submission.answered_at = history.now


# ------------------------------------------------------------------------------------------- nemesis


class Nemesis:
    """Hurts nodes and heals them. `run` until the time is over, then `heal`."""

    def __init__(self, mesh: LocalMesh, history: History, dice: random.Random, *, spare: int) -> None:
        """Nothing is hurt yet.

        Args:
            spare: so many nodes are left alone at every moment.
        """
        self._mesh = mesh
        self._history = history
        self._dice = dice
        self._spare = spare
        self._hurt: dict[str, str] = {}  # what was done, by name

    async def run(self, seconds: float) -> None:
        async with asyncio.TaskGroup() as group:
            while self._history.now < seconds:
                await asyncio.sleep(self._dice.uniform(*CALM_S))
                if self._spare == 0 and not self._hurt and self._dice.random() < 0.15:
                    victims = list(self._mesh.nodes)  # a power cut
                elif len(self._mesh.nodes) - len(self._hurt) > self._spare:
                    whole = [node for node in self._mesh.nodes if node.name not in self._hurt]
                    victims = [self._dice.choice(whole)]
                else:
                    continue
                kind = "kill" if len(victims) > 1 else self._dice.choice(["kill", "kill", "pause", "leave"])
                down_s = min(self._dice.uniform(*DOWN_S), max(0.0, seconds - self._history.now))
                for node in victims:
                    self._harm(node, kind)
                for node in victims:
                    group.create_task(self._undo_later(node, down_s))

    def _harm(self, node: LocalNode, kind: str) -> None:
        number = {"kill": signal.SIGKILL, "pause": signal.SIGSTOP, "leave": signal.SIGTERM}[kind]
        self._hurt[node.name] = kind
        self._history.faults[kind] += 1
        self._history.say(f"{kind:6} {node.name} (pid {node.pid})")
        if node.exit_code is None:
            os.kill(node.pid, number)

    async def _undo_later(self, node: LocalNode, down_s: float) -> None:
        await asyncio.sleep(down_s)
        if self._hurt[node.name] == "leave" and node.process is not None:
            await asyncio.to_thread(node.process.wait)  # it hands its jobs over, within its own limits
        self._undo(node)

    def _undo(self, node: LocalNode) -> None:
        kind = self._hurt.pop(node.name)
        if kind == "pause":
            os.kill(node.pid, signal.SIGCONT)
            self._history.say(f"resume {node.name}")
        else:
            assert node.process is not None
            node.process.wait()
            node.start()
            self._history.say(f"start  {node.name} (pid {node.pid})")


# --------------------------------------------------------------------------------------------- judge


@dataclass
class Verdict:
    counts: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    def blame(self, word: str, text: str) -> None:
        self.counts[word] += 1
        self.bad.append(f"{word}: {text}")


Shown = Mapping[str, Mapping[str, Any]]
"""The jobs that one node shows, by id."""


def wait_for_ends(mesh: LocalMesh, history: History) -> dict[str, Shown]:
    """What each node shows once all that was stored has settled, or after SETTLE_S."""
    ends = time.monotonic() + SETTLE_S
    accepted = {each.job for each in history.submissions if each.told == "accepted"}
    while True:
        shown: dict[str, Shown] = {}
        for node in mesh.nodes:
            try:
                shown[node.name] = {job.id: job.fields for job in Client(node.url).jobs(page=1000)}
            except ClientError as error:
                history.say(f"{node.name}: {error}")
        done = len(shown) == len(mesh.nodes) and all(
            accepted <= jobs.keys() and all(job["settled"] for job in jobs.values())
            for jobs in shown.values()
        )
        if done or time.monotonic() > ends:
            return shown
        time.sleep(0.5)


def judge(submissions: Sequence[Submission], shown: Mapping[str, Shown]) -> Verdict:
    """Compare what clients were told with what each node shows."""
    verdict = Verdict()
    verdict.counts["submissions"] = len(submissions)
    by_mark: dict[str, set[str]] = {}
    ends: dict[str, Mapping[str, Any]] = {}
    for jobs in shown.values():
        for job, fields in jobs.items():
            by_mark.setdefault(fields["queue"], set()).add(job)
            ends.setdefault(job, fields)
            first = ends[job]
            if (first["state"], first["result"]) != (fields["state"], fields["result"]):
                verdict.blame("split", f"{brief(first)} and {brief(fields)}")
    for submission in submissions:
        found = by_mark.pop(submission.mark, set())
        verdict.counts[submission.told] += 1
        if len(found) > 1:
            verdict.blame("duplicated", f"{submission} is {sorted(found)}")
        _judge_one(verdict, submission, [ends[job] for job in sorted(found)])
    for mark, found in by_mark.items():
        verdict.blame("unexpected", f"{mark}: {sorted(found)}, which nobody submitted")
    for fields in ends.values():
        verdict.counts["extra starts"] += max(0, fields["starts"] - 1 - (fields["task"] == "fail"))
        verdict.counts["takeovers"] += fields["takeovers"]
    return verdict


def _judge_one(verdict: Verdict, submission: Submission, found: Sequence[Mapping[str, Any]]) -> None:
    if not found:
        if submission.told == "accepted":
            verdict.blame("lost", f"{submission}: nobody knows it")
        return
    if submission.told == "refused":
        verdict.blame("unexpected", f"{submission}, but {brief(found[0])}")
        return
    for fields in found:
        if fields["state"] not in ENDS or not fields["settled"]:
            verdict.blame("lost", f"{submission}: {brief(fields)} has not ended")
        elif not must_end(submission.document, fields["state"], fields["result"]):
            verdict.blame("wrong", f"{submission}: {brief(fields)}")
        else:
            verdict.counts["ok" if submission.told == "accepted" else "recovered"] += 1


def brief(fields: Mapping[str, Any]) -> str:
    """A job in a line, with its story."""
    names = ("id", "task", "state", "settled", "result", "error", "owner", "term", "starts", "losses")
    story = "; ".join(f"{note['at']} {note['kind']} {note['detail']}" for note in fields["history"])
    return ", ".join(f"{name} {fields[name]}" for name in names) + (f" [{story}]" if story else "")


def verdict_lines(verdict: Verdict, history: History) -> Iterator[str]:
    counts = verdict.counts
    yield f"{counts['submissions']} submissions: " + ", ".join(
        f"{counts[word]} {word}" for word in ("accepted", "refused", "indefinite")
    )
    yield f"of the accepted: {counts['ok']} ok, {counts['lost']} lost; recovered: {counts['recovered']}"
    yield ", ".join(f"{counts[word]} {word}" for word in ("unexpected", "wrong", "split", "duplicated"))
    yield f"{counts['takeovers']} takeovers, {counts['extra starts']} extra starts"
    yield "faults: " + (", ".join(f"{n} {kind}" for kind, n in sorted(history.faults.items())) or "none")
    for text in verdict.bad[:SHOWN_MAX]:
        yield f"BAD {text}"
    if len(verdict.bad) > SHOWN_MAX:
        yield f"... and {len(verdict.bad) - SHOWN_MAX} more"


# ------------------------------------------------------------------------------------------ the whole


async def hurt(mesh: LocalMesh, history: History, arguments: argparse.Namespace) -> None:
    dice = random.Random(arguments.seed)
    minority = (arguments.nodes - 1) // 2
    spare = 0 if arguments.all else arguments.nodes - minority
    nemesis = Nemesis(mesh, history, random.Random(dice.random()), spare=spare)
    async with asyncio.TaskGroup() as group:
        group.create_task(nemesis.run(arguments.seconds))
        group.create_task(
            clients(mesh, history, arguments.rate, arguments.seconds, random.Random(dice.random()))
        )


def run(arguments: argparse.Namespace, folder: Path) -> bool:
    """The whole of it; whether nothing was bad."""
    base = free_base_port(arguments.nodes, FIRST_PORT)
    mesh = LocalMesh(arguments.nodes, data_dir=folder, base_port=base, slots=arguments.slots, mdns=False)
    with mesh:
        try:
            mesh.wait_ready()
            history = History()
            history.say(f"{arguments.nodes} nodes are ready, seed {arguments.seed}, data in {folder}")
            asyncio.run(hurt(mesh, history, arguments))
            mesh.wait_ready()
            history.say("all nodes are back; waiting for the jobs to end")
            shown = wait_for_ends(mesh, history)
            history.say("asked every node for every job")
        finally:
            for node in mesh.nodes:
                if node.exit_code is None:
                    os.kill(node.pid, signal.SIGCONT)  # who is paused can't end
    verdict = judge(history.submissions, shown)
    print("\n".join(verdict_lines(verdict, history)))
    print("verdict: " + ("BAD" if verdict.bad else "nothing was lost"))
    return not verdict.bad


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=5, help="how many (default 5)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to hurt them (default 60)")
    parser.add_argument("--rate", type=float, default=15.0, help="submissions a second (default 15)")
    parser.add_argument("--slots", type=int, default=4, help="jobs at a time on each node (default 4)")
    parser.add_argument("--seed", type=int, default=None, help="of the plan (default: a random one, shown)")
    parser.add_argument(
        "--all", action="store_true", help="more than a minority may be down, even all at once"
    )
    parser.add_argument("--keep", action="store_true", help="keep the nodes' data and logs")
    given = parser.parse_args(arguments)
    if not 1 <= given.nodes <= 32 or not 0 < given.seconds <= 3600 or not 0 < given.rate <= 1000:
        parser.error("--nodes is from 1 to 32, --seconds up to 3600, --rate up to 1000")
    if given.seed is None:
        given.seed = random.SystemRandom().randrange(1_000_000)
    return given


def main() -> int:
    arguments = parse(sys.argv[1:])
    folder = Path(tempfile.mkdtemp(prefix="edgenode-chaos-"))
    is_good = False
    try:
        is_good = run(arguments, folder)
    except KeyboardInterrupt:
        print("stopped")
    except EdgeNodeError as error:
        print(f"chaos: {error.detail}")
    finally:
        if is_good and not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"data and logs of the nodes: {folder}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
