"""What a node was about when it came into a rare situation, so that crashes can be told apart by it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from edgenode.core.situations import Situation


class Operation(StrEnum):
    """In the order in which a situation is looked for in their lists of words."""

    GIFT = "a gift"
    LEAVING = "leaving"
    HOLDERS = "a change of holders"
    COPYING = "making copies"
    SUBMISSION = "a submission"
    EXPIRY = "an expiry"
    DISK = "a failing disk"
    START = "a start"
    SETTLING = "settling"
    TAKEOVER = "a takeover"


_WORDS: Final[dict[Operation, tuple[str, ...]]] = {
    Operation.GIFT: ("GIFT",),
    Operation.LEAVING: ("LEAV", "LEFT", "DRAIN", "WISH"),
    Operation.HOLDERS: ("MOVE", "EPOCH", "NEWCOMER", "HOLDERS"),
    Operation.COPYING: ("SPARE", "OFFERED", "COPY", "COPIES", "ACKS"),
    Operation.SUBMISSION: ("SUBMISSION", "READ"),
    Operation.EXPIRY: ("EXPIR", "CLOCK"),
    Operation.DISK: ("STORE", "STALLED"),
    Operation.START: ("START", "GRANT", "RUNNER", "POISON", "ONCE_ONLY", "GATE", "RESULT"),
    Operation.SETTLING: ("SETTLED", "MARK", "SUPERSEDED", "WRITE", "ACK_", "RESURRECTED"),
}
"""Words in the names of their situations; all others are of takeovers."""


def operation_of(situations: Iterable[Situation]) -> Operation:
    """What the first of these (in the order of their names) is part of."""
    name = min(situation.name for situation in situations)
    for operation, words in _WORDS.items():
        if any(word in name for word in words):
            return operation
    return Operation.TAKEOVER
