"""Reading and writing files so that a killed attempt leaves no half result, and a second run does no harm."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from edgenode.task import Fail


class Output:
    """A file being written: counts and hashes what passes through."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    @property
    def sha256(self) -> str:
        """Of everything written so far, in lower-case hexadecimal."""
        return self._hash.hexdigest()


@contextmanager
def written_whole(target: Path) -> Iterator[Output]:
    """Write `target` so that it appears under its name complete and on the disk, or not at all.

    The bytes go to a hidden file beside it (`.NAME.RANDOM.part`), which is fsynced and renamed over the
    target when the block ends without an exception, and removed otherwise. Two starts of one job never
    write into the same hidden file, so the last to finish wins with a whole file. What a killed start left
    behind is removed by the next one.

    Raises:
        Fail: the folder cannot be made or written to, or `target` is a folder.
    """
    if target.is_dir():
        raise Fail(f"cannot write {target}: it is a folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        part, descriptor = _open_part(target)
    except OSError as error:
        raise Fail(f"cannot write {target}: {error.strerror}") from error
    try:
        with open(descriptor, "wb") as file:
            yield Output(file)
            file.flush()
            os.fsync(file.fileno())
            # While the lock is still held: an unlocked part may be removed by anybody.
            os.replace(part, target)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    _sync_folder(target.parent)


def _open_part(target: Path) -> tuple[Path, int]:
    while True:
        part = target.with_name(f".{target.name}.{os.urandom(4).hex()}.part")
        descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        # Between making it and locking it another start may have taken it for an abandoned one.
        if _lock(descriptor) and part.exists():
            return part, descriptor
        os.close(descriptor)


def _remove_abandoned(target: Path) -> None:
    """Remove parts of `target` that no living process has locked: a lock ends with its process."""
    for entry in list(os.scandir(target.parent)):
        if not (entry.name.startswith(f".{target.name}.") and entry.name.endswith(".part")):
            continue
        with suppress(OSError):
            descriptor = os.open(entry.path, os.O_WRONLY)
            try:
                if _lock(descriptor):
                    os.unlink(entry.path)
            finally:
                os.close(descriptor)


if sys.platform == "win32":

    def _lock(descriptor: int) -> bool:
        """Windows refuses to remove an open file, which protects a part as well as a lock does."""
        return True

    def _sync_folder(folder: Path) -> None:
        """Windows has no fsync of folders."""

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        """Lock the whole file, or say that somebody else has."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _sync_folder(folder: Path) -> None:
        """Make a rename in `folder` survive a power cut: the name is part of the folder, not of the file."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def existing_file(name: str, *, what: str) -> Path:
    """The absolute path of a file that is there.

    Relative names count from the folder the node was started in.

    Raises:
        Fail: no such file, or it is not a file, or it cannot be read; the message names `what` and the path.
    """
    path = absolute(name, what=what)
    if not path.exists():
        raise Fail(f"{what}: no such file: {path}")
    if not path.is_file():  # a folder, or a pipe, whose reading would wait for ever
        raise Fail(f"{what}: {path} is not a file")
    if not os.access(path, os.R_OK):
        raise Fail(f"{what}: may not read {path}")
    return path


def absolute(name: str, *, what: str) -> Path:
    """`name` as an absolute path, `~` expanded. Raises Fail if it cannot be a path."""
    if not name or "\0" in name:
        raise Fail(f"{what}: {name!r} is not a path")
    return Path(os.path.abspath(os.path.expanduser(name)))
