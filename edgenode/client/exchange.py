"""How one request finds a node that answers it: pure decisions, driven by whoever has the sockets.

`exchange` is a generator. It yields `Attempt` (send this request to this node; send back what came of it) and
`Pause` (wait so long; send back None), and returns the answer. The sync and the async client drive the same
generator, so they fail over alike:

    what came of an attempt            a read           with a key       another submission
    nothing was sent                   next node        next node        next node
    429 or 503, definite               next node        next node        next node
    409, the key is in flight                           next node
    other 5xx, or indefinite 503       next node        next node        unknown outcome, told at once
    sent, but no answer                next node        next node        unknown outcome, told at once
    any other answer                   the answer       the answer       the answer

After a round in which some node said "later" the client pauses and begins another, within its time; with a
key also after one in which nobody answered, since that is what the key is for. A read that only dead members
could answer (`lasting`) gets two rounds: maybe another node knows more. With a key
a refusal is not definite where a node before did not answer: that one may have taken the jobs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Final

from edgenode.client.errors import BadAnswer, NoNodeReachable, OutcomeUnknown, Refused

CONNECT_S: Final = 3.0
"""TCP's first retransmission is after 1 s (RFC 6298): two lost packets still make a connection."""
READ_S: Final = 5.0
"""How long a node may take over a read before another one is asked; nodes give up after about 3 s."""
SUBMIT_S: Final = 15.0
"""How long a node may take over a submission under a key before another one is asked; nodes give up after
about 10 s."""
KEY_IN_FLIGHT: Final = "key-in-flight"
KEY_REUSED: Final = "key-reused"
PAUSE_KEYED_S: Final = 0.5
PAUSE_MIN_S: Final = 0.2
PAUSE_MAX_S: Final = 5.0
PROBLEM_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = 0.0  # how long the node was asked to hold the answer back
    keyed: bool = False  # each job in it has an idempotency key, or it may be sent twice for another reason

    @property
    def is_read(self) -> bool:
        return self.method == "GET"


@dataclass(frozen=True, slots=True)
class Attempt:
    url: str  # base URL of the node
    request: Request
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    url: str = ""
    is_sure: bool = (
        True  # False: another node had got the request before, and may have done what this refuses
    )

    def json(self) -> Any:
        """What the body says.

        Raises:
            BadAnswer: it is not JSON.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise BadAnswer(f"what answers at {self.url} is not an edgenode (status {self.status})") from None

    def problem(self) -> dict[str, Any] | None:
        """The problem it carries, if it does."""
        if self.headers.get("content-type", "").partition(";")[0].strip() != PROBLEM_TYPE:
            return None
        found = self.json()
        return found if isinstance(found, dict) else None


@dataclass(frozen=True, slots=True)
class Unsent:
    """No connection was made, so the node knows nothing of the request."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The request, or a part of it, left; no whole answer came."""

    reason: str


Outcome = Answer | Unsent | Unanswered
Steps = Generator["Attempt | Pause", "Outcome | None", Answer]


def exchange(request: Request, urls: Sequence[str], *, timeout_s: float, clock: Callable[[], float]) -> Steps:
    """Send `request` to the first of the nodes that answers it; gives up `timeout_s` from now.

    Raises:
        NoNodeReachable: nothing was sent, or (for a read) no node answered.
        Refused: the answer is a problem; after the time is up, also "come again later". Not definite, if a
            node that did not answer may have taken what this one refuses.
        OutcomeUnknown: a submission or a change may have happened.
        BadAnswer: something else than a node answered.
    """
    ends_at = clock() + timeout_s
    unknown: OutcomeUnknown | None = None  # what a submission met that may have happened
    for rounds in count(1):
        reasons: dict[str, str] = {}
        later: Refused | None = None
        for url in urls:
            left_s = ends_at - clock()
            if left_s <= 0:
                reasons.setdefault(url, "no time left to ask")
                continue
            wanted_s = READ_S + request.wait_s if request.is_read else left_s
            if request.keyed:
                wanted_s = SUBMIT_S + request.wait_s
            outcome = yield Attempt(url, request, min(left_s, wanted_s))
            assert outcome is not None
            try:
                if isinstance(outcome, Answer):
                    refused = _refusal(request, outcome)
                    if refused is None:
                        return replace(outcome, is_sure=unknown is None)
                    later = refused
                elif isinstance(outcome, Unanswered) and not request.is_read:
                    text = f"{url} got the request, but no answer came: {outcome.reason}"
                    raise OutcomeUnknown(text, is_repeatable=request.keyed)
                else:
                    reasons[url] = outcome.reason
            except OutcomeUnknown as error:
                if not request.keyed:
                    raise
                unknown = error
            except Refused as error:
                raise (error if unknown is None else made_unsure(error)) from None
        pause_s = PAUSE_KEYED_S if unknown is not None else 1.0
        if later is not None:
            if request.is_read and later.problem.get("lasting") is True and rounds > 1:
                raise later
            wanted = later.problem.get("retry_after_s")
            pause_s = wanted if isinstance(wanted, int | float) else 1.0
        elif unknown is None:
            raise NoNodeReachable(reasons)
        pause_s = min(max(pause_s, PAUSE_MIN_S), PAUSE_MAX_S)
        if clock() + pause_s >= ends_at:
            # What may have happened is told, though the last node may have refused for certain.
            raise unknown or later or NoNodeReachable(reasons)
        yield Pause(pause_s)
    raise AssertionError("rounds have no end")


def made_unsure(refused: Refused) -> Refused:
    """The same, of a request that another node may have done before. That a key has a job of other content
    is so all the same."""
    if refused.slug == KEY_REUSED:
        return refused
    return Refused(refused.problem | {"definite": False}, refused.url)


def _refusal(request: Request, answer: Answer) -> Refused | None:
    """None if this is the answer to give; a refusal if another node, or a later moment, may do better.

    Raises:
        Refused, OutcomeUnknown, BadAnswer: no other node need be asked.
    """
    if answer.status < 400:
        return None
    problem = answer.problem()
    if problem is None:
        if answer.headers.get("content-type", "").startswith("application/json"):
            return None  # a batch of which nothing was taken: each job has its own problem
        raise BadAnswer(f"what answers at {answer.url} is not an edgenode (status {answer.status})")
    refused = Refused({"status": answer.status} | problem, answer.url)
    if refused.definite and answer.status in (429, 503, 507):
        return refused
    if request.keyed and refused.slug == KEY_IN_FLIGHT:
        return refused
    if answer.status < 500:
        raise refused
    if request.is_read:
        return refused
    if refused.definite:
        raise refused
    raise OutcomeUnknown(refused.detail, job=problem.get("job"), is_repeatable=request.keyed)
