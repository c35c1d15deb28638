"""A job as the mesh shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

ENDS: Final = frozenset({"succeeded", "failed", "cancelled", "expired"})


@dataclass(frozen=True, slots=True)
class Job:
    """What a node said of a job, at one moment. `fields` has everything, by its name in the API."""

    id: str
    task: str
    state: str
    settled: bool
    result: Any
    error: str | None
    fields: Mapping[str, Any]

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Job:
        """The job in a node's answer.

        Raises:
            KeyError, TypeError: these are not the fields of a job.
        """
        return cls(
            fields["id"], fields["task"], fields["state"], fields["settled"], fields.get("result"),
            fields.get("error"), fields,
        )  # fmt: skip

    @property
    def has_ended(self) -> bool:
        """Nothing will change any more: it has an outcome, and a majority of its holders has that on disk."""
        return self.settled and self.state in ENDS

    @property
    def result_expired(self) -> bool:
        """Whether it ended so long ago (`ttl_s`) that its result is not kept any more."""
        return bool(self.fields.get("result_expired"))

    @property
    def succeeded(self) -> bool:
        return self.state == "succeeded"
