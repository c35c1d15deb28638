"""`edgenode up` itself, with other programs in the place of nodes."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any, Final, cast

import pytest
import typer
from typer.testing import CliRunner

from edgenode.api import render
from edgenode.cli import app
from edgenode.cli.up import HEADINGS, PEER_OFFSET, Ending, LocalMesh, LocalNode, rows
from edgenode.core.errors import EdgeNodeError
from tests.api.fake import FakeService
from tests.processes import processes_of

RUN: Final[Any] = cast(Any, typer.main.get_command(app)).commands["run"]
KEPT: Final = "kept-open"


def idle_mesh(folder: Path, count: int) -> LocalMesh:
    """Nodes that live, and never answer."""
    mesh = LocalMesh(count, data_dir=folder, base_port=1)
    for node in mesh.nodes:
        node.command = ["tail", "-f", "/dev/null", "--", str(folder / KEPT)]
        (folder / KEPT).touch()
    return mesh


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_nothing_and_ends_every_wait(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Ending() as ending, idle_mesh(tmp_path, 2) as mesh:
        assert [node.exit_code for node in mesh.nodes] == [None, None]
        assert not ending.wait(0)
        os.kill(os.getpid(), number)  # a handler that raises does so here, or in the midst of a poll
        assert mesh.wait_ready(60, ending.wait) is False
        assert ending.wait(60)  # it stays said
    assert processes_of(tmp_path) == {}
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("offset", [1, 1 + PEER_OFFSET, 2])
def test_a_port_that_another_mesh_has_is_named_and_nothing_is_started(tmp_path: Path, offset: int) -> None:
    """Its nodes would answer for ours, which end."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        mesh = LocalMesh(2, data_dir=tmp_path, base_port=port - offset)
        # (Another test may have taken the port of another node by chance: any that is in use is named.)
        with pytest.raises(EdgeNodeError, match=r"port \d+, for node-\d, is in use"), mesh:
            pass
    assert all(node.process is None for node in mesh.nodes)


def test_a_file_where_a_node_s_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "node-1").touch()
    result = CliRunner().invoke(app, ["up", "-n", "1", "--data-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert str(tmp_path / "node-1") in result.stderr
    assert isinstance(result.exception, SystemExit)


def test_a_node_that_joined_anew_is_shown_as_it_is_and_not_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for states in (["ready", "dead"], ["left", "suspect"]):
        members = [{"name": "node-1", "state": state} for state in states]
        monkeypatch.setattr(LocalNode, "ask", lambda node, path, members=members: {"nodes": members})
        mesh = LocalMesh(1, data_dir=tmp_path, base_port=1)
        assert mesh.members()["node-1"]["state"] == next(s for s in states if s not in ("dead", "left"))


def test_how_many_jobs_a_node_took_over_and_when_last_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FakeService()
    members = [render.member_fields(member, service.me) for member in service.members()[:1]]
    members[0]["name"] = "node-1"
    monkeypatch.setattr(LocalNode, "ask", lambda node, path: {"nodes": members})
    mesh = LocalMesh(1, data_dir=tmp_path, base_port=1)
    shown = dict(zip(HEADINGS, rows(mesh)[0], strict=True))
    assert shown["last takeover"] == "6 jobs, 0 s ago"


def test_what_up_is_told_of_its_nodes_each_of_them_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[LocalMesh] = []

    def note(mesh: LocalMesh) -> LocalMesh:
        made.append(mesh)
        raise EdgeNodeError("not in this test")

    monkeypatch.setattr(LocalMesh, "__enter__", note)
    given = [
        "--max-jobs",
        "11",
        "--async-slots",
        "7",
        "--worker-max-jobs",
        "9",
        "--worker-max-memory",
        "2K",
        "--replicas",
        "2",
        "--label",
        "gpu",
    ]
    given += [
        "--max-jobs",
        "11",
        "--profile",
        "lan",
        "--forget-after",
        "5",
        "--drain-limit",
        "1.5",
        "--log-level",
        "debug",
    ]
    result = CliRunner().invoke(app, ["up", "-n", "2", "--data-dir", str(tmp_path), *given])
    assert result.exit_code == 1
    for node in made[0].nodes:
        told = dict(option.split("=", 1) for option in node.command if "=" in option)
        assert told == {
            "--async-slots": "7",
            "--worker-max-jobs": "9",
            "--worker-max-memory": "2048",
            "--replicas": "2",
            "--max-jobs": "11",
            "--forget-after": "5.0",
            "--drain-limit": "1.5",
            "--log-level": "debug",
            "--label": "gpu=yes",
        }
        assert node.command[node.command.index("--profile") + 1] == "lan"
        with RUN.make_context("run", node.command[4:]):
            pass  # made without a usage error


def test_a_node_option_that_means_nothing_is_refused_before_any_node_is_started(tmp_path: Path) -> None:
    folder = tmp_path / "mesh"
    for wrong in (
        ["--worker-max-memory", "much"],
        ["--profile", "moon"],
        ["--log-level", "loud"],
        ["--label", "a b"],
    ):
        result = CliRunner().invoke(app, ["up", "--data-dir", str(folder), *wrong])
        assert result.exit_code == 2
        assert wrong[0] in result.stderr
        assert wrong[1] in result.stderr
    assert not folder.exists()
