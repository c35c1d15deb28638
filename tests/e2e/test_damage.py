"""Damaged stores of real nodes: what is reported, and that no other node ever shows anything wrong for it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rig import until

from edgenode.shell.store_file import FILE_NAME
from tests.e2e.mesh import Mesh, Node

pytestmark = pytest.mark.timeout(180)
Ruin = Callable[[Path], None]


def flip(file: Path, table: str, where: str = "1") -> None:
    """Flip one bit in the middle of every such record."""
    database = sqlite3.connect(file)
    rows = database.execute(f"SELECT rowid, blob FROM {table} WHERE {where}").fetchall()
    assert rows
    for rowid, blob in rows:
        spoiled = bytearray(blob)
        spoiled[len(spoiled) // 2] ^= 1
        database.execute(f"UPDATE {table} SET blob = ? WHERE rowid = ?", (bytes(spoiled), rowid))
    database.commit()
    database.close()


def overwrite_page(file: Path, table: str) -> None:
    """Of a table or an index, the first half of a page with entries."""
    database = sqlite3.connect(file)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (page,) = database.execute(
        "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' LIMIT 1", (table,)
    ).fetchone()
    database.close()
    with file.open("r+b") as opened:
        opened.seek((page - 1) * 4096)
        opened.write(b"\xa5" * 2048)


def cut_off(file: Path) -> None:
    database = sqlite3.connect(file)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    os.truncate(file, file.stat().st_size // 2 + 100)


def log_of(file: Path) -> Path:
    return file.with_name(file.name + "-wal")


ROWS: dict[str, Ruin] = {
    "a bit of each finished job": lambda file: flip(file, "jobs", "settled"),
    "a bit of each job": lambda file: flip(file, "jobs"),
}
WHOLE: dict[str, Ruin] = {
    "a page of the jobs": lambda file: overwrite_page(file, "jobs"),
    "a page of the index": lambda file: overwrite_page(file, "sqlite_autoindex_jobs_1"),
    "a file cut in half": cut_off,
    "a file of zeros": lambda file: file.write_bytes(bytes(200_000)),
    "a log without its file": lambda file: file.unlink(),
    "no log": lambda file: log_of(file).unlink(),
    "a log cut in half": lambda file: os.truncate(log_of(file), log_of(file).stat().st_size // 2),
}


def figure(node: Node, name: str) -> float:
    """A metric without labels."""
    lines = node.send("GET", "/metrics").body.decode().splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(name + " ")]
    return float(value)


def names(node: Node) -> str:
    """The identity under which a node answers now."""
    found = node.ask("/v1/nodes/self", timeout_s=5)
    return "" if found is None else str(found["id"])


def shows_copy(asked: Node, job: str, holder: str) -> bool:
    """Whether a holder has a copy of a job on its disk."""
    holders = asked.send("GET", f"/v1/jobs/{job}/placement").json["holders"]
    return any(each["id"] == holder and each["copy"]["status"] == "held" for each in holders)


def told(node: Node, ids: list[str]) -> dict[str, Any]:
    """The results of those jobs that this node shows as settled."""
    seen = {job.id: job for job in node.client.jobs(page=1000)}
    return {job: seen[job].result for job in ids if job in seen and seen[job].has_ended}


def ruined(mesh: Mesh, ruin: Ruin) -> tuple[Node, list[str], dict[str, Any], str]:
    """Kill a node of a mesh at work, ruin its store, and start it again.

    Returns: the node, all jobs, the results that were told as settled before, and the node's old identity.
    """
    ids: list[str] = []
    for number, document in enumerate(mesh.mark_jobs(60, [0.05, 0.3, 0.6, 1.0])):
        ids += mesh.nodes[number % len(mesh.nodes)].submit([document])
    victim = mesh.nodes[0]
    until(lambda: len(told(mesh.nodes[1], ids)) >= 15, "some jobs have ended")
    before, identity = told(mesh.nodes[1], ids), victim.id
    victim.kill()
    ruin(victim.log.parent / FILE_NAME)
    victim.start()
    until(victim.answers, "the damaged node lives")
    return victim, ids, before, identity


def all_agree(mesh: Mesh, ids: list[str], before: dict[str, Any]) -> None:
    """Every job ended well, everywhere alike, and as it was told before."""
    # Of a job whose two other holders live the result is settled; all are, since only one disk was hurt.
    jobs = mesh.wait_ended(ids, at=mesh.nodes[1])
    assert {job.state for job in jobs.values()} == {"succeeded"}
    results = {job: jobs[job].result for job in ids}
    assert {job: results[job] for job in before} == before, "a settled result has changed"
    for node in mesh.nodes:
        until(
            lambda node=node: {job: node.client.get(job).result for job in ids} == results,  # type: ignore[misc]
            f"{node.name} shows the same",
        )


@pytest.mark.parametrize("what", ROWS)
def test_damaged_rows_are_reported_fetched_again_and_never_voted_with(mesh: Mesh, what: str) -> None:
    mesh.grow(4)
    victim, ids, before, identity = ruined(mesh, ROWS[what])
    mesh.wait_ready()
    assert names(victim) == identity
    all_agree(mesh, ids, before)
    until(lambda: "rows-mended" in victim.log_text(), "the rows are fetched again")
    assert "are not what was written" in victim.log_text()
    assert figure(victim, "edgenode_store_damaged_rows") > 0
    found = victim.ask("/readyz")
    assert found is not None
    assert "no vote" in " ".join(found["damage"])
    for node in mesh.nodes[1:]:
        assert node.ask("/readyz") == {"ready": True}
    # It can go on without the others: what it shows then is what it has fetched.
    fetched = [job for job in before if shows_copy(mesh.nodes[1], job, identity)]
    assert len(fetched) >= 5
    for node in mesh.nodes[1:]:
        node.kill()
    assert {job: victim.client.get(job).result for job in fetched} == {job: before[job] for job in fetched}


@pytest.mark.parametrize("what", WHOLE)
def test_a_store_beyond_repair_is_set_aside_and_its_node_joins_as_a_new_member(mesh: Mesh, what: str) -> None:
    mesh.grow(4)
    victim, ids, before, identity = ruined(mesh, WHOLE[what])
    mesh.wait_ready()
    assert names(victim) != identity
    all_agree(mesh, ids, before)
    assert "is set aside as" in victim.log_text()
    found = victim.ask("/readyz")
    assert found is not None
    assert ("set aside" in " ".join(found.get("damage", []))) == (what != "a log without its file")
    (job,) = victim.submit(mesh.mark_jobs(1, [0.05]))
    assert mesh.wait_ended([job])[job].state == "succeeded"
    # At the next start it is who it is since.
    now = names(victim)
    victim.kill()
    victim.start()
    mesh.wait_ready()
    assert names(victim) == now


def test_a_store_that_breaks_while_its_node_runs_ends_that_identity_and_not_the_process(mesh: Mesh) -> None:
    mesh.grow(4)
    ids: list[str] = []
    for number, document in enumerate(mesh.mark_jobs(60, [0.05, 0.3, 0.6])):
        ids += mesh.nodes[number % 4].submit([document])
    until(lambda: len(told(mesh.nodes[1], ids)) >= 15, "some jobs have ended")
    before = told(mesh.nodes[1], ids)
    victim, identity, pid = mesh.nodes[0], mesh.nodes[0].id, mesh.nodes[0].pid
    file = victim.log.parent / FILE_NAME
    # Under its feet: pages that it will write to next, in the file and in its log.
    for path in (file, log_of(file)):
        with path.open("r+b") as opened:
            opened.seek(4096)
            while opened.tell() < path.stat().st_size:
                opened.write(b"\xa5" * 512)
                opened.seek(3584, os.SEEK_CUR)

    def is_new() -> bool:
        victim.ask("/v1/jobs?limit=1000", timeout_s=5)  # reads what nothing else may read for days
        return names(victim) not in ("", identity)

    until(is_new, "it is a new member")
    assert victim.pid == pid
    mesh.wait_ready()
    all_agree(mesh, ids, before)
    assert "damage: " in victim.log_text()
