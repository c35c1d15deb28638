"""Clients that submit and look while a mesh is hurt, and write down what they asked and were told.

    with Workload(rig, random.Random(1)) as workload:
        ...                                        # hurt the nodes, heal them
    history = workload.rest()                      # waits until all has come to rest
    verdict = judge(history)

The journal has a line for each request and one for each answer, as it came: what happened can be read there
even if the run itself was killed.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TextIO

from history import History, Look, Submission, Told, has_ended
from marking import read_marks
from rig import POLL_S, Rig, RigNode
from verdict import Record, difference

from edgenode.client.exchange import Answer, Outcome, Request, Unsent

REQUEST_S: Final = 12.0
"""How long a client waits for an answer: longer than a node (10 s), so that most hear one."""
CLIENTS_MAX: Final = 64
LOOKS_SHARE: Final = 0.4
REST_S: Final = 120.0
"""How long after the healing all must have ended everywhere."""
SETTLED_RECENTLY: Final = 50
JSON: Final = {"Content-Type": "application/json"}


class Workload:
    """Requests at random moments to random nodes, `rate` a second, whether the answers come or not.

    A context manager: leaving it waits for the answers that are still to come. All its jobs are in one queue,
    so that several workloads can follow one another on one mesh.
    """

    def __init__(
        self,
        rig: Rig,
        dice: random.Random,
        *,
        queue: str = "chaos",
        rate: float = 15.0,
        seconds_max: float = 1.0,
        request_s: float = REQUEST_S,
    ) -> None:
        """Not begun.

        Args:
            seconds_max: the jobs take up to this.
            request_s: how long a client waits for an answer.
        """
        self._rig = rig
        self._dice = dice
        self._queue = queue
        self._rate = rate
        self._seconds_max = seconds_max
        self._request_s = request_s
        self._lock = threading.Lock()
        self._submissions: list[Submission] = []
        self._looks: list[Look] = []
        self._ended = threading.Event()
        self.journal = rig.folder / f"{queue}.ndjson"
        self._marks = rig.folder / f"{queue}.marks"
        self._writing: TextIO = self.journal.open("a", encoding="utf-8")
        self._pace = threading.Thread(target=self._send_all, name="workload")

    def __enter__(self) -> Workload:
        self._pace.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._pace.join()
        self._writing.close()

    @property
    def accepted(self) -> list[str]:
        """The ids of the jobs that were acknowledged so far."""
        return [each.job for each in self.submissions if each.told == "accepted" and each.job]

    @property
    def submissions(self) -> list[Submission]:
        """What was asked so far, and told."""
        with self._lock:
            return list(self._submissions)

    # ---------------------------------------------------------------------------------- requests

    def _send_all(self) -> None:
        with ThreadPoolExecutor(CLIENTS_MAX) as clients:
            while not self._ended.wait(self._dice.expovariate(self._rate)):
                node, known = self._dice.choice(self._rig.nodes), self.accepted[-SETTLED_RECENTLY:]
                if known and self._dice.random() < LOOKS_SHARE:
                    clients.submit(self._look, node, self._dice.choice(known))
                else:
                    number = len(self._submissions)
                    submission = Submission(number, node.name, self._document(number), time.monotonic())
                    with self._lock:
                        self._submissions.append(submission)
                    clients.submit(self._submit, node, submission)

    def _document(self, number: int) -> dict[str, Any]:
        """A job. Most succeed at the first attempt, some at the second; some may never start twice."""
        seconds = round(self._dice.uniform(0.02, self._seconds_max), 3)
        payload = {"path": str(self._marks), "seconds": seconds, "number": number}
        document: dict[str, Any] = {"task": "mark", "queue": self._queue, "payload": payload}
        match self._dice.choices(["usual", "failing", "careful"], [8, 1, 1])[0]:
            case "usual":
                document["max_losses"] = 20
            case "failing":
                payload["failures"] = 1
                document |= {"max_losses": 20, "backoff": {"kind": "constant", "base_s": 0.2}}
            case "careful":
                document["delivery"] = "at-most-once"
        return document

    def _submit(self, node: RigNode, submission: Submission) -> None:
        request = Request("POST", "/v1/jobs", json.dumps(submission.document).encode(), JSON)
        outcome = self._exchange(node, request, submission.document)
        told, job, why = what_was_told(outcome)
        with self._lock:
            submission.told, submission.job, submission.why = told, job, why
            submission.answered_at = time.monotonic()

    def _look(self, node: RigNode, job: str) -> None:
        asked_at = time.monotonic()
        outcome = self._exchange(node, Request("GET", f"/v1/jobs/{job}"), None)
        if isinstance(outcome, Answer) and outcome.status in (200, 404):
            record = outcome.json() if outcome.status == 200 else None
            with self._lock:
                self._looks.append(Look(asked_at, node.name, job, record))

    def _exchange(self, node: RigNode, request: Request, document: Mapping[str, Any] | None) -> Outcome:
        """Send a request, and write it and what came of it into the journal."""
        about: dict[str, Any] = {"node": node.name, "method": request.method, "path": request.path}
        self._write(about | {"event": "ask", "document": document})
        outcome = node.send(request, self._request_s)
        match outcome:
            case Answer():
                body = outcome.json()
                definite = outcome.status < 400 or body.get("definite") is True
                self._write(
                    about | {"event": "answer", "status": outcome.status, "definite": definite, "body": body}
                )
            case _:
                is_unsent = isinstance(outcome, Unsent)
                self._write(about | {"event": "no answer", "definite": is_unsent, "why": outcome.reason})
        return outcome

    def _write(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps({"at": round(time.monotonic(), 4)} | dict(entry))
        with self._lock:
            self._writing.write(line + "\n")
            self._writing.flush()

    # -------------------------------------------------------------------------------------- rest

    def rest(self, *, within_s: float = REST_S) -> History:
        """What all living nodes show once every job has ended everywhere, and is on the disks of all of its
        living holders that have a vote; after `within_s` as it is then."""
        ends = time.monotonic() + within_s
        copies: dict[str, dict[str, Record]] = {}
        while True:
            with ThreadPoolExecutor(len(self._rig.nodes)) as readers:
                living = self._rig.living
                answers = zip(living, readers.map(lambda node: node.jobs(self._queue), living), strict=True)
                shown = {node.name: jobs for node, jobs in answers if jobs is not None}
            is_late = time.monotonic() > ends
            if self._are_at_rest(shown) or is_late:
                jobs = sorted({job for each in shown.values() for job in each} - copies.keys())
                voters = [node for node in living if not node.is_behind]
                copies |= self._copies(jobs, voters, unsound=is_late)
                if is_late or len(copies) == len({job for each in shown.values() for job in each}):
                    break
            time.sleep(POLL_S)
        nodes = {node.name: node.id for node in living}
        faults, marks = self._rig.faults.all, read_marks(self._marks)
        return History(nodes, self._submissions, self._looks, shown, copies, marks, faults)

    def _are_at_rest(self, shown: Mapping[str, Mapping[str, Record]]) -> bool:
        """Whether all living nodes show every acknowledged job, and the same end of each job."""
        if len(shown) < len(self._rig.living):
            return False
        wanted = {job for jobs in shown.values() for job in jobs} | set(self.accepted)
        return all(
            all(job in jobs and has_ended(jobs[job]) for jobs in shown.values())
            and difference({name: jobs[job] for name, jobs in shown.items()}) is None
            for job in wanted
        )

    def _copies(
        self, jobs: list[str], nodes: Sequence[RigNode], *, unsound: bool
    ) -> dict[str, dict[str, Record]]:
        """What each holder of these jobs among `nodes` has: where all have the same end, or if `unsound`."""
        found: dict[str, dict[str, Record]] = {}
        names = {node.id: node.name for node in nodes}
        for job in jobs:
            placement = nodes[0].get(f"/v1/jobs/{job}/placement")
            if placement is not None:
                holders = [each for each in placement["holders"] if each["id"] in names]
                held = {names[each["id"]]: each["copy"] for each in holders}
                ends = {(copy["status"], copy.get("state"), copy.get("settled")) for copy in held.values()}
                if unsound or ends <= {("held", placement["state"], True)}:
                    found[job] = held
        return found


def what_was_told(outcome: Outcome) -> tuple[Told, str | None, str]:
    """Whether a submission was accepted, the id that it was given, and why not."""
    match outcome:
        case Answer(status=200 | 202):
            return "accepted", str(outcome.json()["id"]), ""
        case Answer():
            problem = outcome.json()
            told: Told = "refused" if problem.get("definite") is True else "indefinite"
            return told, problem.get("job"), f"{outcome.status} {problem.get('title')}"
        case Unsent():
            return "refused", None, f"not connected: {outcome.reason}"
        case _:
            return "indefinite", None, outcome.reason
