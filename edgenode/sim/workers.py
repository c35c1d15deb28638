"""What simulated tasks do: the payload says how, and every result names the start that made it."""

from __future__ import annotations

import json
from enum import StrEnum
from random import Random
from typing import Final, NamedTuple

from edgenode.core.specs import Spec
from edgenode.core.types import NodeId, Seconds, StartToken, State
from edgenode.core.wire import Verdict

TASK: Final = "sim"
COROUTINE: Final = "sim.async"
"""The same as a coroutine: it takes an async slot."""
BY_THE_JOBS_OWN_BACKOFF: Final = -1.0
ASKED_MAX: Final = 2
"""How many attempts of one job ask for a pause, if it has so many."""


class Manner(StrEnum):
    """How a job behaves when it runs."""

    GOOD = "good"
    FLAKY = "flaky"  # its first attempt raises
    BAD = "bad"  # every attempt raises
    FRAGILE = "fragile"  # its worker process may die under it
    POISON = "poison"  # kills its node
    QUITTING = "quitting"  # cancels itself
    ASKING = "asking"  # its first attempts ask to be tried again after some time


class Run(NamedTuple):
    """What one start will come to."""

    lasts_s: Seconds
    verdict: Verdict
    lost: bool
    kills: bool


def payload(manner: Manner, lasts_s: Seconds) -> bytes:
    return json.dumps({"manner": manner, "lasts_s": round(lasts_s, 3)}).encode()


def asking(spec: Spec, after_s: Seconds) -> bytes:
    """The payload of one that takes as long as this job, and asks for so long a pause."""
    return json.dumps(json.loads(spec.payload) | {"manner": Manner.ASKING, "after_s": after_s}).encode()


def manner_of(spec: Spec) -> Manner:
    return Manner(json.loads(spec.payload)["manner"])


def result_of(token: StartToken, runner: NodeId) -> bytes:
    """Different for every start, so that two results can't be taken for one."""
    return json.dumps({"token": token, "runner": runner}).encode()


def success(token: StartToken, runner: NodeId) -> Verdict:
    return Verdict(State.SUCCEEDED, result_of(token, runner), "", BY_THE_JOBS_OWN_BACKOFF, False)


def raised(token: StartToken) -> Verdict:
    return Verdict(State.FAILED, b"", f"raised in start {tuple(token)}", BY_THE_JOBS_OWN_BACKOFF, False)


def quits(token: StartToken) -> Verdict:
    return Verdict(State.CANCELLED, b"", f"quits in start {tuple(token)}", BY_THE_JOBS_OWN_BACKOFF, False)


def asks(token: StartToken, after_s: Seconds) -> Verdict:
    return Verdict(State.FAILED, b"", f"asks for a pause in start {tuple(token)}", after_s, False)


STOPPED: Final = Verdict(State.CANCELLED, b"", "stopped", BY_THE_JOBS_OWN_BACKOFF, False)
NEVER_BEGUN: Final = Verdict(State.FAILED, b"", "never begun", BY_THE_JOBS_OWN_BACKOFF, False)
WORKER_DIED: Final = Verdict(State.FAILED, b"", "its worker died", BY_THE_JOBS_OWN_BACKOFF, False)


def play(spec: Spec, token: StartToken, attempt: int, runner: NodeId, dice: Random) -> Run:
    """Decide how this start goes."""
    told = json.loads(spec.payload)
    lasts_s = told["lasts_s"] * dice.uniform(0.5, 1.5)
    match Manner(told["manner"]):
        case Manner.POISON:
            return Run(lasts_s, WORKER_DIED, True, True)
        case Manner.FRAGILE if dice.random() < 0.4:
            return Run(lasts_s, WORKER_DIED, True, False)
        case Manner.BAD:
            return Run(lasts_s, raised(token), False, False)
        case Manner.QUITTING:
            return Run(lasts_s, quits(token), False, False)
        case Manner.ASKING if attempt <= ASKED_MAX:
            return Run(lasts_s, asks(token, told["after_s"]), False, False)
        case Manner.FLAKY if attempt <= 1:
            return Run(lasts_s, raised(token), False, False)
        case _:
            return Run(lasts_s, success(token, runner), False, False)
