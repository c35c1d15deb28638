"""Imports point down, and the core touches nothing outside itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "edgenode"

# Lower may not import higher; modules of one layer do not know each other.
LAYERS: list[set[str]] = [
    {"core.types"},
    {"core.errors", "core.situations"},
    {"core.bounds", "core.quorums", "core.sharing"},
    {"core.coding", "core.job_ids"},
    {"core.specs"},
    {"core.jobs"},
    {"core.joining", "core.job_bytes"},
    {
        "core.agenda",
        "core.pace",
        "core.rendezvous",
        "core.meshclock",
        "core.settings",
        "core.wire",
        "core.suspicion",
    },
    {"core.view", "core.signals", "core.lines", "core.batches", "core.checks"},
    {
        "core.bursts",
        "core.claims",
        "core.fitting",
        "core.followers",
        "core.post",
        "core.reports",
        "core.resting",
    },
    {"core.table"},
    {"core.desk"},
    {"core.away", "core.ballots", "core.polls", "core.runner", "core.queues"},
    {"core.permits"},
    {
        "core.cancelling",
        "core.catalogue",
        "core.counting",
        "core.custody",
        "core.replication",
        "core.scheduler",
        "core.voters",
        "core.mending",
        "core.intake",
        "core.reading",
        "core.searching",
        "core.keys",
        "core.vouching",
        "core.steward",
        "core.reporting",
        "core.retention",
        "core.upkeep",
        "core.regulation",
    },
    {"core.filling", "core.giving", "core.questions"},
    {"core.leaving"},
    {"core.node"},
]
MEMBERSHIP = {
    "core.addressbook",
    "core.comparison",
    "core.exchange",
    "core.gossip",
    "core.members",
    "core.membership",
    "core.outbox",
    "core.ownword",
    "core.probing",
    "core.roster",
    "core.rounds",
    "core.testimony",
}
"""Membership is a sibling of custody, and has pieces of its own beneath it."""
PACKAGES = ["core", "shell", "api", "client", "cli", "sim"]
"""Top-level packages, and below what each may look."""
MAY_IMPORT: dict[str, set[str]] = {
    "core": {"core"},
    "sim": {"core", "sim"},
    "client": {"core", "client"},
    "api": {"core", "api"},
    "shell": {"core", "shell", "task", "described"},
    "tasks": {"core", "task", "tasks", "parameters"},
}
BANNED_IN_CORE = {
    "asyncio", "socket", "ssl", "select", "threading", "concurrent", "multiprocessing", "subprocess", "time",
    "datetime", "random", "secrets", "uuid", "os", "pathlib", "sqlite3", "logging", "aiohttp", "zeroconf",
}  # fmt: skip
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}
CORE = sorted(f"core.{path.stem}" for path in (ROOT / "core").glob("*.py") if path.stem != "__init__")


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def ours(path: Path) -> set[str]:
    return {name.removeprefix("edgenode.") for name in imports_of(path) if name.startswith("edgenode.")}


def test_every_core_module_has_its_layer() -> None:
    assert set(CORE) == set(RANK) | MEMBERSHIP


@pytest.mark.parametrize("module", sorted(RANK))
def test_imports_point_down(module: str) -> None:
    path = ROOT / f"{module.replace('.', '/')}.py"
    known = {name for name in ours(path) if name in RANK}
    uphill = {name for name in known if RANK[name] >= RANK[module]}
    # The record and message vocabulary is read together: signals names both.
    assert not uphill, f"{module} may not import {uphill}: same layer or above"


@pytest.mark.parametrize("module", sorted(MEMBERSHIP))
def test_membership_knows_nothing_of_jobs_being_owned_or_run(module: str) -> None:
    path = ROOT / f"{module.replace('.', '/')}.py"
    forbidden = {
        "core.desk",
        "core.ballots",
        "core.cancelling",
        "core.custody",
        "core.replication",
        "core.scheduler",
        "core.voters",
        "core.intake",
        "core.reading",
        "core.searching",
        "core.node",
    }
    assert not ours(path) & forbidden


@pytest.mark.parametrize(
    "module",
    [
        "away",
        "ballots",
        "catalogue",
        "custody",
        "desk",
        "filling",
        "intake",
        "mending",
        "reading",
        "replication",
        "scheduler",
        "searching",
        "upkeep",
    ],
)
def test_the_job_side_sees_members_only_through_the_view(module: str) -> None:
    assert not ours(ROOT / "core" / f"{module}.py") & MEMBERSHIP


@pytest.mark.parametrize("module", CORE)
def test_the_core_touches_nothing_outside(module: str) -> None:
    path = ROOT / f"{module.replace('.', '/')}.py"
    assert not {name.split(".")[0] for name in imports_of(path)} & BANNED_IN_CORE


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_packages_look_down_only(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        seen = {name.split(".")[0] for name in ours(path)} - {"__version__"}
        seen = {name for name in seen if (ROOT / name).exists() or (ROOT / f"{name}.py").exists()}
        assert not seen - MAY_IMPORT[package], f"{path.name} imports {seen - MAY_IMPORT[package]}"


def test_a_planted_import_is_noticed(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import time\nfrom edgenode.core import node\n")
    assert "time" in imports_of(bad)
    assert "core.node" in ours(bad)
