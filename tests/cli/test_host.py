"""How `edgenode run` begins: addresses, and disks that are in the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgenode.cli import app
from edgenode.shell.identity import new_mesh_key


@pytest.fixture
def key(tmp_path: Path) -> Path:
    new_mesh_key(tmp_path / "mesh.key")
    return tmp_path / "mesh.key"


def run(key: Path, *arguments: str) -> Result:
    """A node that is not to come up."""
    fixed = ["run", "--api", "127.0.0.1:0", "--no-mdns", "--data-dir", str(key.parent / "node")]
    return CliRunner().invoke(app, [*fixed, "--mesh-key", str(key), *arguments])


@pytest.mark.parametrize(
    "arguments", [("--peer", "no-such-host.invalid:9701"), ("--interface", "nothing.invalid")]
)
def test_a_name_that_nobody_knows_is_an_error_and_no_bug(key: Path, arguments: tuple[str, str]) -> None:
    result = run(key, *arguments)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert f"cannot listen on {arguments[1].partition(':')[0]}" in result.stderr


@pytest.mark.parametrize("wildcard", ["0.0.0.0:9701", "[::]:9701"])
def test_a_wildcard_is_no_address_that_others_reach(key: Path, wildcard: str) -> None:
    result = run(key, "--peer", wildcard)
    assert result.exit_code == 2
    assert "not a wildcard" in result.stderr
