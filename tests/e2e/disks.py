"""File systems of a few megabytes, for nodes whose disk is to be full, or read-only."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

FILLER: Final = "filler"


def _write_on(handle: int, size: int) -> None:
    while True:
        os.write(handle, bytes(size))


class SmallDisk:
    """A tmpfs. Made by root only: without, the test is skipped."""

    def __init__(self, folder: Path, size_mib: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=0700", "edgenode-test", str(folder)]
        if os.geteuid() != 0:
            pytest.skip("needs root, to mount a small disk")
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {made.stderr.strip()}")

    def fill(self) -> None:
        """Leave no byte."""
        handle = os.open(self.folder / FILLER, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (65_536, 1):
                with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                    _write_on(handle, size)
        finally:
            os.close(handle)

    def empty(self) -> None:
        """Give back what `fill` took."""
        (self.folder / FILLER).unlink()

    def close(self) -> None:
        # Lazily: a process that is being killed may still have a file open.
        subprocess.run(["umount", "-l", str(self.folder)], check=True)
