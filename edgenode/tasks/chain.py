"""`chain.verify`: a file of signed transactions, each linked to the one before it by a hash.

The format, which anybody can write and check with a JSON library, SHA-256 and Ed25519 (RFC 8032):

- One transaction a line, in UTF-8: a JSON object with `index` (0, 1, 2, ...), `previous` (the hash of the
  transaction before it; 64 zeros for the first), `sender` (an Ed25519 public key), `signature`, and any
  other fields. Keys, hashes and signatures are lower-case hexadecimal. There are no numbers but integers
  between -2^53 and 2^53, and no key stands twice in an object.
- *Canonical* is an object's JSON as RFC 8785 (JCS) has it: members sorted by name, no blanks, nothing escaped
  that need not be. (Where names hold characters beyond U+FFFF, RFC 8785 sorts them otherwise than we do:
  they are refused.)
- `signature` is made with the sender's key over the canonical form of the transaction without `signature`.
- A transaction's hash is the SHA-256 of its canonical form with the signature. How its line is spaced
  does not matter.

Whether a transaction is valid depends on its own line and the one before it, and on nothing else. So ranges
of one file can be verified by many jobs, and together they say what one job would say of the whole.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeGuard

from edgenode.task import Cancel, Fail, JobContext, task
from edgenode.tasks.files import existing_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

GENESIS: Final = "0" * 64
"""What the first transaction names as the previous hash."""
INTEGER_MAX: Final = 2**53
"""Beyond it, readers of JSON that keep numbers as floating point lose digits (RFC 8259 section 6)."""
INVALID_SHOWN: Final = 20
LINES_BETWEEN_REPORTS: Final = 500
HEX_64: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
HEX_128: Final = re.compile(r"[0-9a-f]{128}", re.ASCII)

BAD_SIGNATURE: Final = "bad signature"
WRONG_PREVIOUS_HASH: Final = "wrong previous hash"
SEQUENCE_GAP: Final = "sequence gap"
MALFORMED: Final = "malformed"


class Transaction(NamedTuple):
    """A well-formed line."""

    number: int  # its `index`
    previous: str
    sender: str
    signature: str
    signed: bytes  # what the signature is over
    hash: str


@task("chain.verify", timeout_s=600, max_attempts=3)
def verify(ctx: JobContext, source: str, first: int = 0, count: int | None = None) -> dict[str, Any]:
    """Say which transactions of a chain are valid, and where it breaks first.

    A transaction is invalid for the first of these reasons that applies: `malformed`; `sequence gap` (its
    index is not one above that of the line before); `wrong previous hash` (also if the line before is
    malformed); `bad signature`. A changed transaction therefore shows as a bad signature and, one line later,
    a wrong previous hash; a removed one as a single sequence gap.

    Args:
        source: the file; see this module's text.
        first, count: the range of lines, counted from 0; by default to the end. The line before the range is
            read too, and linked to, but not verified.

    Returns:
        `{checked, valid, broken_at, reason, head, invalid}`: how many transactions the range has and how many
        are valid; line (from 0) and reason of the first that is not, else null; the hash of the last line
        read, null if that is malformed; the first 20 invalid ones as `{line, reason}`.

    Raises:
        Fail: the file is missing, or ends before `first`.
    """
    for name, number in (("first", first), ("count", count)):
        if number is not None and number < 0:
            raise Fail(f"{name}: {number} is below 0")
    origin = existing_file(source, what="source")
    is_signed = _signature_check()
    invalid: list[dict[str, Any]] = []
    checked = broken = 0
    before: Transaction | None = None
    with open(origin, "rb") as file:
        if first > 0:
            line_before = next(islice(file, first - 1, first), None)
            if line_before is None:
                raise Fail(f"first: {origin} has no line {first - 1}, counted from 0")
            before = parse(line_before)
        for place, line in enumerate(islice(file, count), first):
            if checked % LINES_BETWEEN_REPORTS == 0:
                if ctx.cancelled:
                    raise Cancel(f"cancelled at line {place}")
                if count is not None:
                    ctx.progress(checked / count, f"line {place}")
            transaction = parse(line)
            reason = _flaw(transaction, before, is_first=place == 0, is_signed=is_signed)
            checked += 1
            if reason is not None:
                broken += 1
                if len(invalid) < INVALID_SHOWN:
                    invalid.append({"line": place, "reason": reason})
            before = transaction
    return {
        "checked": checked,
        "valid": checked - broken,
        "broken_at": invalid[0]["line"] if invalid else None,
        "reason": invalid[0]["reason"] if invalid else None,
        "head": before.hash if before is not None else GENESIS if first + checked == 0 else None,
        "invalid": invalid,
    }


def _flaw(
    transaction: Transaction | None,
    before: Transaction | None,
    *,
    is_first: bool,
    is_signed: Callable[[Transaction], bool],
) -> str | None:
    """Why a line is not a valid transaction, if so. `before` is None for a malformed line and for none."""
    if transaction is None:
        return MALFORMED
    if is_first:
        number, previous = 0, GENESIS
    elif before is None:
        return WRONG_PREVIOUS_HASH
    else:
        number, previous = before.number + 1, before.hash
    if transaction.number != number:
        return SEQUENCE_GAP
    if transaction.previous != previous:
        return WRONG_PREVIOUS_HASH
    return None if is_signed(transaction) else BAD_SIGNATURE


def _signature_check() -> Callable[[Transaction], bool]:
    """A check that keeps the keys it has read: a chain has few senders and many transactions."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    @lru_cache(maxsize=1024)
    def key(sender: str) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(sender))

    def is_signed(transaction: Transaction) -> bool:
        try:
            key(transaction.sender).verify(bytes.fromhex(transaction.signature), transaction.signed)
        except (InvalidSignature, ValueError):  # ValueError: the 32 bytes are no public key
            return False
        return True

    return is_signed


def parse(line: bytes) -> Transaction | None:
    """The transaction on this line, or None if it is malformed."""
    try:
        found = json.loads(
            line.decode(),
            object_pairs_hook=_object,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
            parse_int=_integer,
        )
        if not isinstance(found, dict):
            return None
        whole = canonical(found)
        signature = found.pop("signature", None)
        number, previous, sender = found.get("index"), found.get("previous"), found.get("sender")
        if not (isinstance(number, int) and not isinstance(number, bool) and number >= 0):
            return None
        if not (_is_hex(previous, HEX_64) and _is_hex(sender, HEX_64) and _is_hex(signature, HEX_128)):
            return None
        digest = hashlib.sha256(whole).hexdigest()
        return Transaction(number, previous, sender, signature, canonical(found), digest)
    except (ValueError, RecursionError):
        return None


def canonical(value: dict[str, Any]) -> bytes:
    """The one spelling of an object that is hashed and signed.

    Raises:
        UnicodeEncodeError: a text is no Unicode (a lone surrogate).
    """
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _is_hex(value: object, pattern: re.Pattern[str]) -> TypeGuard[str]:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise ValueError("a key stands twice")
    if any(name > "\uffff" for name in found):
        raise ValueError("a key with characters beyond U+FFFF")
    return found


def _integer(text: str) -> int:
    number = int(text)
    # "-0" would be signed as "0", and so two texts would be one transaction.
    if abs(number) > INTEGER_MAX or text == "-0":
        raise ValueError("not an integer that every reader understands")
    return number


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not an integer")
