"""chain.verify: which transactions are valid, and where a chain breaks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgenode.task import Cancel, Fail
from edgenode.tasks import chain as module
from edgenode.tasks.chain import GENESIS, canonical, parse, verify

KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(3)]
Chain = list[dict[str, Any]]


def signed(index: int, previous: str, **fields: Any) -> dict[str, Any]:
    key = KEYS[index % len(KEYS)]
    sender = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    transaction = {"index": index, "previous": previous, "sender": sender, "amount": 5, **fields}
    return transaction | {"signature": key.sign(canonical(transaction)).hex()}


def hash_of(transaction: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(transaction)).hexdigest()


def good_chain(count: int) -> Chain:
    chain: Chain = []
    for index in range(count):
        chain.append(signed(index, hash_of(chain[-1]) if chain else GENESIS, note=f"Łódź {index}"))
    return chain


def written(folder: Path, chain: Chain) -> str:
    path = folder / "chain.ndjson"
    path.write_text("".join(json.dumps(transaction) + "\n" for transaction in chain))
    return str(path)


def reasons(result: dict[str, Any]) -> list[tuple[int, str]]:
    return [(flaw["line"], flaw["reason"]) for flaw in result["invalid"]]


def test_a_good_chain_is_valid_to_its_head(tmp_path: Path, ctx: Any) -> None:
    chain = good_chain(10)
    assert verify(ctx, written(tmp_path, chain)) == {
        "checked": 10,
        "valid": 10,
        "broken_at": None,
        "reason": None,
        "head": hash_of(chain[-1]),
        "invalid": [],
    }


def test_the_canonical_form_is_that_of_rfc_8785() -> None:
    text = '{"b":[1,true,null,{"z":"\\u20ac","a":"\\u000f\\n\\"\\\\/"}],"a":"\\u00f6"}'
    assert canonical(json.loads(text)).decode() == (
        '{"a":"ö","b":[1,true,null,{"a":"\\u000f\\n\\"\\\\/","z":"€"}]}'
    )


def changed(chain: Chain) -> None:
    chain[4]["amount"] = 6


def removed(chain: Chain) -> None:
    del chain[4]


def swapped(chain: Chain) -> None:
    chain[4], chain[5] = chain[5], chain[4]


def signed_by_another(chain: Chain) -> None:
    chain[4]["sender"] = chain[5]["sender"]


def rewritten_from_here_on(chain: Chain) -> None:
    """The attacker has the keys, signs a changed transaction again, but cannot change the next."""
    chain[4] = signed(4, chain[4]["previous"], amount=6)


def no_public_key(chain: Chain) -> None:
    chain[4]["sender"] = "f" * 64


def no_index(chain: Chain) -> None:
    del chain[4]["index"]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (changed, [(4, "bad signature"), (5, "wrong previous hash")]),
        (removed, [(4, "sequence gap")]),
        (swapped, [(4, "sequence gap"), (5, "sequence gap"), (6, "sequence gap")]),
        (signed_by_another, [(4, "bad signature"), (5, "wrong previous hash")]),
        (rewritten_from_here_on, [(5, "wrong previous hash")]),
        (no_public_key, [(4, "bad signature"), (5, "wrong previous hash")]),
        (no_index, [(4, "malformed"), (5, "wrong previous hash")]),
    ],
)
def test_damage_is_found_where_it_is_by_the_whole_and_by_every_tiling(
    tmp_path: Path, ctx: Any, damage: Callable[[Chain], None], expected: list[tuple[int, str]]
) -> None:
    chain = good_chain(9)
    damage(chain)
    source = written(tmp_path, chain)
    whole = verify(ctx, source)
    assert reasons(whole) == expected
    assert (whole["broken_at"], whole["reason"]) == expected[0]
    assert whole["valid"] == whole["checked"] - len(expected) == len(chain) - len(expected)
    for size in range(1, 10):
        parts = [verify(ctx, source, first, size) for first in range(0, len(chain), size)]
        assert [flaw for part in parts for flaw in reasons(part)] == expected
        assert sum(part["checked"] for part in parts) == whole["checked"]
        assert sum(part["valid"] for part in parts) == whole["valid"]
        assert parts[-1]["head"] == whole["head"]


def test_the_line_before_a_range_is_linked_to_but_not_verified(tmp_path: Path, ctx: Any) -> None:
    chain = good_chain(6)
    chain[2]["signature"] = chain[3]["signature"]
    chain[3] = signed(3, hash_of(chain[2]))
    source = written(tmp_path, chain)
    assert reasons(verify(ctx, source, 2, 1)) == [(2, "bad signature")]
    assert reasons(verify(ctx, source, 3, 1)) == []


def test_the_first_transaction_must_be_number_0_on_top_of_zeros(tmp_path: Path, ctx: Any) -> None:
    assert verify(ctx, written(tmp_path, [signed(1, GENESIS)]))["reason"] == "sequence gap"
    assert verify(ctx, written(tmp_path, [signed(0, "1" * 64)]))["reason"] == "wrong previous hash"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"index":0}',
        b'{"amount":1.5,%s}',
        b'{"amount":1e3,%s}',
        b'{"amount":-0,%s}',
        b'{"amount":NaN,%s}',
        b'{"amount":9007199254740993,%s}',
        b'{"note":"\\ud800",%s}',
        b'{"index":0,%s}',
        '{"\U0001f600":1,%s}'.encode(),
        b'{"a":{"b":1,"b":1},%s}',
    ],
)
def test_lines_with_more_than_one_reading_are_malformed(line: bytes) -> None:
    rest = json.dumps(signed(0, GENESIS))[1:-1].encode()
    assert parse(b'{"extra":{"b":1},%s}' % rest) is not None
    assert parse(line.replace(b"%s", rest)) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("index", True), ("index", -1), ("previous", "A" * 64), ("sender", "0" * 63), ("signature", 5)],
)
def test_fields_of_the_wrong_form_are_malformed(field: str, value: object) -> None:
    assert parse(json.dumps(signed(0, GENESIS) | {field: value}).encode()) is None


def test_the_list_of_invalid_ones_is_bounded(tmp_path: Path, ctx: Any) -> None:
    (tmp_path / "chain.ndjson").write_text("\n" * 100)
    result = verify(ctx, str(tmp_path / "chain.ndjson"))
    assert (result["checked"], result["valid"], len(result["invalid"])) == (100, 0, 20)
    assert result["head"] is None


def test_an_empty_chain_is_whole(tmp_path: Path, ctx: Any) -> None:
    result = verify(ctx, written(tmp_path, []))
    assert (result["checked"], result["broken_at"], result["head"]) == (0, None, GENESIS)


def test_ranges_that_are_not_there_are_refused(tmp_path: Path, ctx: Any) -> None:
    source = written(tmp_path, good_chain(3))
    assert verify(ctx, source, 2, 100)["checked"] == 1
    assert verify(ctx, source, 3)["checked"] == 0
    with pytest.raises(Fail, match="has no line 3"):
        verify(ctx, source, 4)
    with pytest.raises(Fail, match=r"^first"):
        verify(ctx, source, -1)
    with pytest.raises(Fail, match=r"^count"):
        verify(ctx, source, 0, -1)
    with pytest.raises(Fail, match="no such file"):
        verify(ctx, f"{source}.missing")


def test_a_cancelled_job_stops(tmp_path: Path, ctx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINES_BETWEEN_REPORTS", 2)
    ctx.answers_before_cancel = 2
    with pytest.raises(Cancel, match="line 4"):
        verify(ctx, written(tmp_path, good_chain(6)), 0, 6)
    assert ctx.told == [0, 2 / 6]
