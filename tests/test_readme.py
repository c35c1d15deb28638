"""What the README says about commands, options, routes, states, tasks and tests is so."""

from __future__ import annotations

import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from typer.core import TyperGroup, TyperOption

import edgenode
from edgenode import Fail, JobContext, Retry, load_tasks, run_task, task
from edgenode.api import render
from edgenode.api.app import make_app
from edgenode.api.specs import OPTIONS
from edgenode.cli import app
from edgenode.core.errors import InvalidJob, to_problem
from edgenode.core.job_ids import make_job_id
from edgenode.core.jobs import TRANSITIONS
from edgenode.core.signals import Receipt
from edgenode.core.specs import Spec
from edgenode.core.types import Delivery, NodeId, Partition
from tests.api.fake import FakeService

ROOT: Final = Path(__file__).parent.parent
TEXT: Final = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROSE: Final = FENCE.sub("", TEXT)
LITERALS: Final = re.findall(r"`([^`\n]+)`", PROSE)
COMMAND_LINES: Final = [line.strip() for line in PROSE.splitlines() if line.startswith("    edgenode ")]
COMMAND: Final[Any] = typer.main.get_command(app)


def blocks(language: str) -> list[str]:
    return [text for found, text in FENCE.findall(TEXT) if found == language]


def section(heading: str) -> str:
    """The text below a heading, up to the next one of its rank or above."""
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,3}} |\Z)", PROSE, re.MULTILINE | re.DOTALL)
    assert found is not None, f"the README has no section {heading!r}"
    return found[2]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a text, without headings."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    rules = {number for number, row in enumerate(cells) if row[0] == "---"}
    return [row for number, row in enumerate(cells) if not {number, number + 1} & rules]


def resolved(words: list[str]) -> tuple[Any, list[str]]:
    """The command that these words name, and the arguments that are left."""
    command = COMMAND
    while isinstance(command, TyperGroup):
        assert words, f"{command.name} needs a command"
        assert words[0] in command.commands, f"there is no command `edgenode {words[0]}`"
        command = command.commands[words[0]]
        words = words[1:]
    return command, words


def options_of(command: Any) -> Iterator[set[str]]:
    """The spellings of each option."""
    for parameter in command.params:
        if isinstance(parameter, TyperOption) and "--help" not in parameter.opts:
            yield {*parameter.opts, *parameter.secondary_opts}


def all_options(command: Any) -> set[str]:
    if isinstance(command, TyperGroup):
        return set().union(*map(all_options, command.commands.values()))
    return {"--help"}.union(*options_of(command))


# -------------------------------------------------------------------------------------------- diagrams


def test_the_diagram_of_states_is_the_table_of_transitions() -> None:
    (diagram,) = [text for text in blocks("mermaid") if text.startswith("stateDiagram")]
    steps = re.findall(r"^ +(\w+) --> (\w+) : (.+)$", diagram, re.MULTILINE)
    assert len(steps) == len(set(steps))
    assert set(steps) == {(source, target, step) for (source, step), target in TRANSITIONS.items()}
    others = [line.strip() for line in diagram.splitlines()[1:] if " : " not in line]
    assert sorted(others) == ["[*] --> queued", "[*] --> scheduled"]


# -------------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_command_shown_is_understood_as_it_stands(line: str) -> None:
    command, words = resolved(shlex.split(line)[1:])
    with command.make_context("edgenode", words):
        pass  # made without a usage error


def test_every_command_is_in_the_table_and_no_other() -> None:
    shown = {tuple(cell.strip("`").split()[1:3]) for cell, _ in rows(section("Command line"))}
    names = {words[0] for words in shown}
    assert names == set(COMMAND.commands)
    for words in shown:
        resolved([word for word in words if word.islower()])


def test_every_option_named_in_the_text_exists() -> None:
    known = all_options(COMMAND)
    named = {
        option
        for literal in LITERALS
        if not literal.startswith(("python ", "curl "))
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", literal)
    }
    assert len(named) > 10
    assert named <= known


def test_the_options_of_run_are_all_in_its_table() -> None:
    table = [row[0].strip("`") for row in rows(section("Running it"))]
    spellings = list(options_of(resolved(["run"])[0]))
    assert [option for option in table if not any(option in each for each in spellings)] == []
    assert [each for each in spellings if not each.intersection(table)] == []


def test_the_options_of_run_that_up_has_are_named() -> None:
    (told,) = re.findall(
        r"^`edgenode up` has for all its nodes alike: .*?(?=;)", TEXT, re.MULTILINE | re.DOTALL
    )
    alone = {"--data-dir", "--base-port", "--nodes", "-n", "--mdns"}
    assert {*re.findall(r"`(--[\w-]+)`", told)} == set().union(*options_of(resolved(["up"])[0])) - alone


# ------------------------------------------------------------------------------------------- features

FEATURES: Final = rows(section("What it does, and how it is asked for"))
SAID_OTHERWISE: Final = {"Idempotency-Key", "async def"}
"""A header, and a word of Python."""


def test_every_option_of_a_submission_belongs_to_a_feature() -> None:
    told = "".join(options for _, options, _ in FEATURES)
    assert [name for name in OPTIONS if f"`{name}`" not in told] == []


def test_every_feature_leads_somewhere() -> None:
    assert len(FEATURES) > 30
    assert [row for row in FEATURES if len(row) != 3 or not re.fullmatch(r"\[.+\]\(#.+\)", row[2])] == []


@pytest.mark.parametrize("feature", FEATURES, ids=lambda row: row[0])
def test_what_a_feature_is_asked_for_with_exists(feature: list[str]) -> None:
    """Options are those of the commands named in the same part of the cell; else, as with (N), of `run`."""
    for part in feature[1].split(";"):
        literals = re.findall(r"`([^`]+)`", part)
        commands = [resolved(each.split()[1:])[0] for each in literals if each.startswith("edgenode ")]
        if "(N)" in part or not commands:
            commands.append(resolved(["run"])[0])
        known = set().union(*map(all_options, commands))
        assert set(re.findall(r"`(\w+)[^`]*` \(T\)", part)) <= set(signature(task).parameters)
        for literal in literals:
            assert set(re.findall(r"--[a-z-]+", literal)) <= known, literal
            assert literal.startswith(("edgenode ", "--")) or is_known(literal), literal


def is_known(literal: str) -> bool:
    """Whether a literal that is no command and no option of one names anything that there is."""
    if found := re.fullmatch(r"([A-Z]+) [/\w…]*?((?:/\w+)+)", literal):
        return any(route.startswith(found[1]) and route.endswith(found[2]) for route in routes())
    if literal.startswith("ctx."):
        return literal.removeprefix("ctx.") in {*dir(JobContext), *signature(JobContext).parameters}
    word = literal.partition("=")[0].partition("(")[0].removeprefix("raise ")
    of_python = {*edgenode.__all__, *signature(task).parameters}
    return word in {*OPTIONS, *of_python, *shown_job(), *Delivery, *Partition, *SAID_OTHERWISE}


def test_every_make_target_named_exists() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = set(re.findall(r"^    make ([a-z]+)|`make ([a-z]+)", PROSE, re.MULTILINE))
    assert {first or second for first, second in named} <= set(targets)


# ------------------------------------------------------------------------------------------------ HTTP


def routes() -> set[str]:
    found = {
        f"{route.method} {route.resource.canonical}"
        for route in make_app(FakeService()).router.routes()
        if route.resource is not None
    }
    return {route for route in found if not route.startswith("HEAD ")}


def test_the_table_of_requests_is_what_the_api_serves() -> None:
    assert {row[0].strip("`") for row in rows(section("HTTP"))} == routes()


def test_every_address_that_is_asked_for_is_served() -> None:
    paths = re.findall(r"http://127\.0\.0\.1:870\d(/[^\s'?]*)", section("HTTP"))
    patterns = [re.sub(r"\\{\w+\\}", "[^/]+", re.escape(route.split()[1])) for route in routes()]
    assert len(paths) > 5
    assert [path for path in paths if not any(re.fullmatch(pattern, path) for pattern in patterns)] == []


def shown_job() -> dict[str, Any]:
    spec = Spec(make_job_id(1.0, bytes(10)), "echo", b"{}", 1.0, 2.0)
    node = NodeId("a")
    made: dict[str, Any] = json.loads(
        render.submitted_body(spec, (node,), 3, Receipt(spec.id, (node,), None), 1.0)
    )
    return made


def test_the_job_shown_has_the_fields_of_a_job() -> None:
    job, problem = (json.loads(text) for text in blocks("json"))
    made = shown_job()
    assert list(job) == list(made)
    assert list(job["receipt"]) == list(made["receipt"])
    made = to_problem(InvalidJob("no", field="a", errors=[]), instance="/v1/jobs")
    assert list(problem) == list(made)


def test_every_option_of_a_submission_is_named() -> None:
    (paragraph,) = [text for text in section("HTTP").split("\n\n") if text.startswith("Options of")]
    assert [name for name in OPTIONS if f"`{name}`" not in paragraph] == []


# ----------------------------------------------------------------------------------------------- tasks


def test_the_table_of_tasks_has_their_parameters() -> None:
    shown = {row[0].strip("`"): re.findall(r"`(\w+=?)`", row[1]) for row in rows(section("Tasks"))}
    tasks = load_tasks(["edgenode.tasks"])
    assert set(shown) == set(tasks)
    for name, parameters in shown.items():
        schema: Any = tasks[name].schema()
        required = schema.get("required", [])
        real = [each if each in required else f"{each}=" for each in schema["properties"]]
        assert sorted(parameters) == sorted(real), name


def test_the_task_and_its_test_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task_text, test_text = blocks("python")
    (tmp_path / "my_tasks.py").write_text(task_text)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    try:
        registry = load_tasks([str(tmp_path / "my_tasks.py")])
        names: dict[str, Any] = {}
        exec(test_text, names)  # the reader's own test, as it stands
        names["test_words_are_counted"](tmp_path)
        with pytest.raises(Fail):
            run_task("words.count", {"path": "a.pdf"}, registry=registry)
        with pytest.raises(Retry):
            run_task("words.count", {"path": str(tmp_path / "none.txt")}, registry=registry)
    finally:
        sys.modules.pop("my_tasks", None)


# ----------------------------------------------------------------------------------- links and packages


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_internal_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", PROSE)
    anchors = {slug(heading) for heading in re.findall(r"^#+ (.+)$", PROSE, re.MULTILINE)}
    assert len(links) > 10
    for link in links:
        path, _, anchor = link.partition("#")
        assert "://" not in link
        assert not path or (ROOT / path).exists(), link
        assert not anchor or anchor in anchors, link


def test_every_test_named_is_in_a_file_linked_beside_it() -> None:
    pieces = [
        piece
        for text in PROSE.split("\n\n")
        for piece in (text.splitlines() if text.startswith("|") else [text])
        if re.search(r"`test_\w+`", piece)
    ]
    assert len(pieces) >= 6
    for piece in pieces:
        sources = "".join((ROOT / path).read_text() for path in re.findall(r"\]\((tests/[^)]+)\)", piece))
        for name in re.findall(r"`(test_\w+)`", piece):
            assert f"def {name}(" in sources, name


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[^\w-]", each)[0] for each in wanted}
    assert set(re.findall(r"\*\*([\w-]+)\*\*", section("Dependencies"))) == names
