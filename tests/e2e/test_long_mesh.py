"""Nodes with new identities come and go, for real: those that stay are as before."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from rig import until

from tests.e2e.mesh import Mesh, Node

pytestmark = pytest.mark.timeout(180)

FORGET_S = 1.0
GROWTH_KB = 8 * 1024
"""Noise of the allocator. A visitor's links, tasks and outboxes alone are some 300 KB while they exist."""


def resident_kb(node: Node) -> int:
    assert node.process is not None
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


def disk_bytes(node: Node) -> int:
    """Of its data folder, without the log file and the store's own log, which is folded every 2,000 rows."""
    files = [file for file in node.log.parent.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files if file.suffix not in {".log", ".db-wal", ".db-shm"})


def visit(mesh: Mesh, count: int) -> None:
    """So many new nodes come together, hand in jobs and go: half are killed, half say goodbye."""
    stay = [node.peer for node in mesh.nodes[:2]]
    visitors = [mesh.add(join=stay, options=["--forget-after", str(FORGET_S)]) for _ in range(count)]
    for node in visitors:
        node.start()
    mesh.wait_ready()
    ids = [job for node in visitors for job in node.submit(mesh.mark_jobs(5, [0.0]))]
    mesh.wait_ended(ids, at=mesh.nodes[0])
    for number, node in enumerate(visitors):
        node.kill(signal.SIGKILL if number % 2 else signal.SIGTERM)
    for node in visitors:
        node.wait_for_end(15.0)
    wanted = {node.name for node in mesh.nodes[:2]}

    def seen() -> list[set[str]]:
        return [{str(each["name"]) for each in node.client.nodes()} for node in mesh.nodes[:2]]

    until(lambda: seen() == [wanted, wanted], lambda: f"only those that stay are members: {seen()}")


def test_those_that_stay_forget_all_that_came_and_went_and_do_not_grow(mesh: Mesh) -> None:
    for _ in range(2):
        known = [node.peer for node in mesh.nodes]
        mesh.add(join=known, options=["--forget-after", str(FORGET_S)]).start()
    stay = mesh.nodes[:2]
    mesh.wait_ready()
    visit(mesh, 2)  # what is loaded and pooled once
    before = [(resident_kb(node), disk_bytes(node)) for node in stay]
    for _ in range(3):
        visit(mesh, 2)
    for node, (memory, disk) in zip(stay, before, strict=True):
        assert resident_kb(node) - memory < GROWTH_KB
        assert disk_bytes(node) - disk < 256 * 1024  # 30 small jobs
