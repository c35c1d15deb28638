"""Tasks that a node lacks, as members that have them describe them: as good as its own for who submits."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from edgenode.core.types import Backoff
from edgenode.core.wire import SCHEMA_BYTES_MAX, TaskItem
from edgenode.parameters import Schema, parameters_in
from edgenode.task import Task, read_payload


def describe(task: Task) -> TaskItem:
    """What others are told of a task."""
    schema = json.dumps(task.schema(), separators=(",", ":")).encode()
    backoff = task.backoff
    return TaskItem(
        task.name,
        schema if len(schema) <= SCHEMA_BYTES_MAX else b"",
        float(task.timeout_s),
        task.max_attempts,
        "" if backoff is None else backoff.kind,
        0.0 if backoff is None else float(backoff.base_s),
        0.0 if backoff is None else float(backoff.cap_s),
        task.inline,
    )


class DescribedTask:
    """What may be said of a task without having it: defaults, its schema, and whether a payload fits that.

    A schema that is not told, or is none, fits every payload.
    """

    def __init__(self, item: TaskItem) -> None:
        self.name = item.name
        self.inline = item.inline
        self.timeout_s = item.timeout_s
        self.max_attempts = item.max_attempts
        self.backoff = Backoff(item.backoff, item.base_s, item.cap_s) if item.backoff else None
        self._schema = _parsed(item.schema)
        self._parameters = parameters_in(self._schema)

    @property
    def summary(self) -> str | None:
        return None if self._schema is None else str(self._schema.get("description", ""))

    def read(self, payload: object) -> Any:
        """Nothing but a refusal, which is that of the task itself.

        Raises:
            InvalidJob: as `Task.read`, but for what only its own classes refuse (in `__post_init__`, say).
        """
        if self._parameters is not None:
            read_payload(self.name, self._parameters, payload)

    def schema(self) -> Schema | None:
        return self._schema


@lru_cache(maxsize=256)
def described(item: TaskItem) -> DescribedTask:
    """The task that an item describes: made once, since it is asked for with each submission."""
    return DescribedTask(item)


def _parsed(schema: bytes) -> Schema | None:
    try:
        found = json.loads(schema) if schema else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
