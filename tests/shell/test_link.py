"""What a peer says of itself before anything else is believed only if it can be true."""

from __future__ import annotations

import pytest

from edgenode.core.errors import MalformedMessage
from edgenode.core.types import is_host
from edgenode.shell.link import (
    NONCE_BYTES,
    PROTOCOL,
    Greeting,
    Kind,
    decode_greeting,
    encode_greeting,
)


@pytest.mark.parametrize("name", ["127.0.0.1", "::1", "node-1", "node.local.", "a" * 63 + ".b"])
def test_names_that_can_be_looked_up_are_hosts(name: str) -> None:
    assert is_host(name)


@pytest.mark.parametrize("name", ["", "a..b", ".", "a" * 64, "a." * 127 + "b", 7, None])
def test_names_that_no_resolver_takes_are_not(name: object) -> None:
    """The encoder of host names raises on these, out of the depth of a dial."""
    assert not is_host(name)


def test_a_greeting_with_such_a_name_is_refused() -> None:
    greeting = Greeting(PROTOCOL, Kind.CONTROL, 1, bytes(NONCE_BYTES), (("a..b", 9701),))
    with pytest.raises(MalformedMessage):
        decode_greeting(encode_greeting(greeting))
