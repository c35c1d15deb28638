"""Outputs appear whole or not at all, also after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from edgenode.task import Fail
from edgenode.tasks.files import absolute, existing_file, written_whole

WRITE_AND_WAIT = """
import sys
from pathlib import Path
from edgenode.tasks.files import written_whole
with written_whole(Path(sys.argv[1])) as output:
    output.write(b"half")
    print("written", flush=True)
    sys.stdin.read()
"""


def test_a_written_file_is_complete_and_reported_with_its_size_and_hash(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.txt"
    with written_whole(target) as output:
        output.write(b"one ")
        output.write(b"two")
        assert not target.exists()
    assert target.read_bytes() == b"one two"
    assert (output.size, output.sha256) == (7, sha256(b"one two").hexdigest())
    assert os.listdir(target.parent) == ["a.txt"]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_bytes(b"old")

    def write_and_be_interrupted() -> None:
        with written_whole(target) as output:
            output.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_be_interrupted()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_writer_leaves_no_file_and_the_next_start_removes_its_rest(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    command = [sys.executable, "-c", WRITE_AND_WAIT, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        (rest,) = tmp_path.iterdir()
        with written_whole(target) as output:
            output.write(b"by another start")
            assert rest.exists(), "a living writer's file was taken away"
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert rest.exists()
    with written_whole(target) as output:
        output.write(b"whole")
    assert target.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_name_that_begins_alike_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / ".b.txt.0.part"
    other.write_bytes(b"")
    with written_whole(tmp_path / "a.txt") as output:
        output.write(b"a")
    assert other.exists()


def test_targets_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(Fail, match=r"file.b\.txt"), written_whole(file / "b.txt"):
        raise AssertionError("the block must not run")
    with pytest.raises(Fail, match="is a folder"), written_whole(tmp_path):
        raise AssertionError("the block must not run")


def test_sources_that_are_missing_or_no_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(Fail, match=f"source: no such file: {tmp_path}/nothing"):
        existing_file(f"{tmp_path}/nothing", what="source")
    with pytest.raises(Fail, match=f"source: {tmp_path} is not a file"):
        existing_file(str(tmp_path), what="source")
    for name in ("", "a\0b"):
        with pytest.raises(Fail, match="is not a path"):
            absolute(name, what="source")


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Fail, match="is not a file"):
        existing_file(str(tmp_path / "pipe"), what="source")
