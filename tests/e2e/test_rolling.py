"""A loaded mesh of real processes whose nodes are restarted one after the other, as an operator would."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from rig import until

from edgenode.client import AsyncClient, Client, ClientError
from tests.e2e.mesh import FULL, Mesh, Node

pytestmark = pytest.mark.timeout(280)

NODES = 5
LEAVE_S = 12.0
ENOUGH = 20
"""Further submissions after the last restart, so that what comes of it is seen too."""


class Load:
    """Clients that know two nodes, and submit and read until they are told to end."""

    def __init__(self, mesh: Mesh, known: Sequence[Node]) -> None:
        self._mesh = mesh
        self._urls = [node.url for node in known]
        self._is_over = threading.Event()
        self.accepted: list[str] = []
        self.reads = 0
        self.failures: list[str] = []
        blocking = [threading.Thread(target=self._guarded, args=(self._block,)) for _ in range(2)]
        self._threads = [*blocking, threading.Thread(target=self._guarded, args=(self._run_async,))]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except ClientError as error:
            self.failures.append(f"{work.__name__} after {len(self.accepted)} jobs: {error!r}")

    def _job(self) -> dict[str, Any]:
        (job,) = self._mesh.mark_jobs(1, [(0.02, 0.1, 0.3)[len(self.accepted) % 3]])
        return job

    def _block(self) -> None:
        while not self._is_over.is_set():
            client = Client(self._urls)  # a new one each time: as scripts and commands are
            job = self._job()
            made = client.submit(job["task"], job["payload"])
            self.accepted.append(made.id)
            client.get(made.id)
            client.get(self.accepted[len(self.accepted) // 2])
            client.nodes()
            self.reads += 3

    def _run_async(self) -> None:
        asyncio.run(self._go_on())

    async def _go_on(self) -> None:
        async with AsyncClient(self._urls) as client:  # one for all: it keeps connections
            while not self._is_over.is_set():
                job = self._job()
                made = await client.submit(job["task"], job["payload"])
                self.accepted.append(made.id)
                await client.get(made.id, wait_s=1)
                self.reads += 1


def test_a_loaded_mesh_restarted_node_by_node_loses_nothing_and_no_request_fails(mesh: Mesh) -> None:
    mesh.grow(NODES, slots=2)
    with Load(mesh, mesh.nodes[:2]) as load:
        for node in mesh.nodes if FULL else mesh.nodes[:3]:
            until(lambda node=node: node.load["owned"], f"{node.name} has work")  # type: ignore[misc]
            node.kill(signal.SIGTERM)
            assert node.wait_for_end(LEAVE_S) == 0
            node.start()
            mesh.wait_ready()
            assert not load.failures
        enough = len(load.accepted) + ENOUGH
        until(lambda: load.failures or len(load.accepted) >= enough, "clients go on")
    assert load.failures == []
    jobs = mesh.wait_ended(load.accepted, at=mesh.nodes[-1])
    assert Counter(job.state for job in jobs.values()) == {"succeeded": len(load.accepted)}
    assert Counter(job.fields["starts"] for job in jobs.values()) == {1: len(load.accepted)}
    assert mesh.starts_seen() == dict.fromkeys(load.accepted, 1)
    assert load.reads > len(load.accepted)
