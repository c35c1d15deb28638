"""Folders that outlive a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def make_durable_folder(folder: Path) -> None:
    """Make the folder and those above it, each for its owner only (there will be private keys), and their
    names durable. One that is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    missing = []
    path = folder.absolute()
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make durable which names are in it: fsync of a file does not say that the file can be found again."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
