"""What still runs, for tests that must leave nothing behind."""

from __future__ import annotations

from pathlib import Path


def processes_of(folder: Path) -> dict[int, str]:
    """All living processes that name this folder, or something in it, by id: their command lines."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it has ended
        if any(word == str(folder) or f"{folder}/" in word for word in words):
            found[int(path.parent.name)] = " ".join(words)
    return found
