"""How `edgenode run` begins: addresses, and disks that are in the way."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner, Result

from edgenode.api.app import make_app, make_runner
from edgenode.api.specs import OPTIONS
from edgenode.cli import app
from edgenode.cli import host as module
from edgenode.core.errors import InvalidJob
from edgenode.core.types import starts_of
from edgenode.shell.identity import new_mesh_key
from tests.api.fake import FakeService


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


def test_a_file_where_tasks_have_their_folders_is_named(key: Path) -> None:
    (key.parent / "node").mkdir()
    (key.parent / "node" / "scratch").touch()
    result = run(key, "--peer", "127.0.0.1:0")
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert "scratch" in result.stderr


async def test_a_disk_without_room_for_folders_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = Path.mkdir, 0

    def mkdir(path: Path, *args: Any, **named: Any) -> None:
        nonlocal tries
        if path.name == "scratch" and (tries := tries + 1) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, *args, **named)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(module, "OPEN_AGAIN_S", 0.0)
    with module._listen(("127.0.0.1", 0)) as api:
        store = await module._open(tmp_path, api, "")
    assert tries == 3
    assert starts_of(store.boot().boot) == 1  # no life was begun in vain
    store.close()


@pytest.mark.parametrize("label", ["zone=", "=north", "", "zone=the north", "zöne=a", "a=" + "x" * 129])
def test_a_label_that_no_job_could_require_is_wrong_usage(key: Path, label: str) -> None:
    with pytest.raises(InvalidJob):
        OPTIONS["requires"]("requires", dict([label.partition("=")[::2]]))
    result = run(key, "--label", label)
    assert result.exit_code == 2
    assert "--label: expected KEY=VALUE" in result.stderr


async def test_of_a_port_that_is_taken_both_commands_options_are_named() -> None:
    with module._listen(("127.0.0.1", 0)) as taken, pytest.raises(module.AddressInUse, match="--base-port"):
        module._listen(taken.getsockname())


async def test_a_request_that_was_sent_before_the_door_closed_is_answered_and_a_later_one_refused() -> None:
    """Its connection was made by the kernel: the loop, which was busy, has not accepted it yet."""
    service = FakeService()
    service.is_leaving = True
    listener = module._listen(("127.0.0.1", 0))
    runner = make_runner(make_app(service))
    await runner.setup()
    site = web.SockSite(runner, listener)
    await site.start()
    address = listener.getsockname()
    with socket.create_connection(address) as early:
        early.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await module._close_door(runner, site, listener)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        await runner.cleanup()
        early.settimeout(5.0)
        answer = b"".join(iter(lambda: early.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" in answer
