"""Folders that outlive a power cut, and such as nobody needs any more."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import suppress
from functools import partial
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


def remove_later(loop: asyncio.AbstractEventLoop, folder: Path) -> None:
    """Delete a run's folder beside the event loop. If no thread is to be had, it goes with the scratch folder
    that it is in."""
    with suppress(RuntimeError):
        loop.run_in_executor(None, partial(shutil.rmtree, folder, ignore_errors=True))
