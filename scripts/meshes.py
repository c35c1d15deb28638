"""A mesh of this machine for a measurement: on free ports, ready, and gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ports import Ports

from edgenode.cli.up import LocalMesh


@contextmanager
def local_mesh(
    count: int, folder: Path, *, first_port: int, tasks: tuple[str, ...], slots: int, profile: str
) -> Iterator[LocalMesh]:
    """So many nodes that see each other, with empty disks in `folder`.

    Raises:
        EdgeNodeError: there are no free ports from `first_port` on, or a node did not start.
    """
    with Ports() as ports:
        base = ports.take_mesh(count, first_port)
        mesh = LocalMesh(
            count,
            data_dir=folder,
            base_port=base,
            tasks=tasks,
            slots=slots,
            mdns=False,
            profile=profile,
        )
        with mesh:
            mesh.wait_ready()
            yield mesh
