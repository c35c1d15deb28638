"""What a submission says of a job: the part of its record that never changes. It is kept as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

import msgpack

from edgenode.core.bounds import finite, whole
from edgenode.core.errors import MalformedMessage
from edgenode.core.types import (
    DEFAULT_BACKOFF,
    Backoff,
    Delivery,
    JobId,
    Partition,
    Seconds,
    Wall,
)

DAY_S: Final = 86_400.0
UNFINISHED_DAYS: Final = 7
"""So long a job may take, if its submission says no more, until it expires."""
AS_ITS_TASK: Final[Seconds] = -1.0
"""A job's timeout if its submission says none, nor did its task where it was submitted."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a submitter may say about a job. Every field has a default, and only others are encoded."""

    queue: str = "default"
    priority: int = 4  # 0 (last) to 9 (first)
    run_at: Wall = 0.0  # 0: at once
    timeout_s: Seconds = AS_ITS_TASK  # of one attempt; 0: none, whatever its task says
    deadline: Wall = 0.0  # 0: none
    max_attempts: int = 3
    max_losses: int = 3
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    partition: Partition = Partition.RUN
    acks: int = 0  # 0: a majority of the holders
    ttl_s: Seconds = DAY_S
    requires: tuple[tuple[str, str], ...] = ()
    backoff: Backoff = DEFAULT_BACKOFF
    key: str = ""  # the idempotency key; the id is its hash
    retry_of: str = ""  # the id of the job whose work it tries again; its own is the hash of that
    fingerprint: str = ""  # with a key: of all that was submitted under it, to tell a repetition from a reuse
    concurrency_key: str = ""
    concurrency_limit: int = 1  # at most so many starts of one concurrency key run at a time


DEFAULTS: Final = Options()


def timeout_of(options: Options, tasks_s: Seconds) -> Seconds:
    """How long one attempt may take, 0 for ever.

    Args:
        tasks_s: what the task says where it runs. A job that says something goes before it, also with 0.
    """
    return options.timeout_s if options.timeout_s >= 0 else tasks_s


@dataclass(frozen=True, slots=True)
class Spec:
    """What was submitted. Never changes; `payload` is a JSON object in UTF-8, opaque to the core."""

    id: JobId
    task: str
    payload: bytes
    submitted_at: Wall
    expires_at: Wall
    options: Options = DEFAULTS


def start_by(spec: Spec) -> Wall:
    """After this the job is not started any more."""
    return min(spec.expires_at, spec.options.deadline or spec.expires_at)


_values_of: Final = attrgetter(*Options.__slots__)
_USUAL: Final = _values_of(DEFAULTS)


def encode_spec(spec: Spec) -> bytes:
    """The bytes that are stored, sent and digested from now on."""
    values = zip(Options.__slots__, _values_of(spec.options), _USUAL, strict=True)
    options: dict[str, Any] = {name: value for name, value, usual in values if value != usual}
    if "backoff" in options:
        backoff = spec.options.backoff
        options["backoff"] = (backoff.kind, backoff.base_s, backoff.cap_s)
    packed: bytes = msgpack.packb(
        (spec.id, spec.task, spec.payload, spec.submitted_at, spec.expires_at, options)
    )
    return packed


REMEMBERED_BYTES: Final = 4096
"""Longer specs are read anew each time: comparing one with what is remembered costs more than reading it, and
what is remembered is bounded by number (4,096 of these are 32 MB)."""


def decode_spec(blob: bytes) -> Spec:
    """Read what `encode_spec` wrote.

    Raises:
        MalformedMessage: these bytes are no spec.
    """
    return _remembered_spec(blob) if len(blob) <= REMEMBERED_BYTES else _read_spec(blob)


def _read_spec(blob: bytes) -> Spec:
    try:
        job, task, payload, submitted_at, expires_at, options = msgpack.unpackb(blob)
        if not (isinstance(job, bytes) and len(job) == 16 and isinstance(payload, bytes)):
            raise MalformedMessage("a spec needs a 16-byte id and a payload of bytes")
        if not (isinstance(task, str) and isinstance(options, dict)):
            raise MalformedMessage("a spec needs a task name and options")
        if "backoff" in options:
            options["backoff"] = _backoff(options["backoff"])
        if "delivery" in options:
            options["delivery"] = Delivery(options["delivery"])
        if "partition" in options:
            options["partition"] = Partition(options["partition"])
        if "requires" in options:
            options["requires"] = tuple((str(k), str(v)) for k, v in options["requires"])
        # An option that a newer version added means nothing here.
        known = {name: value for name, value in options.items() if name in Options.__slots__}
        for name, value in known.items():
            kind = type(getattr(DEFAULTS, name))
            if kind is float:
                finite(value)
            elif kind is int:
                whole(value)
            elif not isinstance(value, kind):
                raise MalformedMessage(f"option {name} is {value!r:.40}")
        return Spec(
            JobId(job),
            task,
            payload,
            finite(submitted_at),
            finite(expires_at),
            Options(**known) if known else DEFAULTS,
        )
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise MalformedMessage(f"not a spec: {error}") from error


_remembered_spec: Final = lru_cache(maxsize=4096)(_read_spec)


def _backoff(fields: list[Any]) -> Backoff:
    kind, base_s, cap_s = fields
    if not isinstance(kind, str):
        raise ValueError("a kind of backoff is text")
    return Backoff(kind, finite(base_s), finite(cap_s))
