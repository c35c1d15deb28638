"""Which names are durable when something says that it is."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from edgenode.cli.up import LocalNode
from edgenode.shell.folders import make_durable_folder
from edgenode.shell.identity import new_mesh_key
from edgenode.shell.store import Store


def make_store(folder: Path) -> None:
    Store.open(folder).close()


def start_node(folder: Path) -> None:
    node = LocalNode("node", 1, ["true"], folder / "node.log")
    node.start()
    assert node.process is not None
    node.process.wait(30)


@pytest.mark.parametrize(
    "make",
    [make_durable_folder, make_store, start_node, lambda folder: new_mesh_key(folder / "mesh.key")],
    ids=["folder", "store", "node of up", "key"],
)
def test_each_folder_that_is_made_is_its_owner_s_and_can_be_found_after_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object]
) -> None:
    synced: set[int] = set()
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    made = [tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/c"]
    make(made[-1])
    for folder in made:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.parent.stat().st_ino in synced


def test_the_name_of_a_new_key_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[list[str]] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            names.append(os.listdir(handle))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    new_mesh_key(tmp_path / "mesh.key")
    assert names[-1] == ["mesh.key"]


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o755)
    make_durable_folder(tmp_path / "a")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o755


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(OSError, match=r"exists|Not a directory"):
        make_durable_folder(tmp_path / "a" / "b")
