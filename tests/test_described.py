"""A task that was only described checks payloads, and says of itself, what the task itself does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenode import Backoff, Bounds, load_tasks, task
from edgenode.core.catalogue import is_sane
from edgenode.core.errors import InvalidJob
from edgenode.core.wire import SCHEMA_BYTES_MAX, TaskItem
from edgenode.described import DescribedTask, describe, described
from edgenode.task import Registry, Task
from tests.test_task import GOOD, Colour, Item, bounded, everything, more


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


@dataclass(frozen=True, eq=False)
class Single:
    """One that equals no other."""

    x: int


@task("odd")
def odd(
    points: set[tuple[int, str]] | None = None,
    colours: frozenset[Colour] | None = None,
    anything: set[Any] | None = None,
    lists: set[tuple[int, ...]] | None = None,
    exact: Annotated[tuple[int, int], Bounds(max_length=1)] | None = None,
    table: Annotated[dict[str, list[Point]], Bounds(min_length=1)] | None = None,
    mixed: Point | Item | list[Point] | None = None,
    one: Literal[1, "1", None] = None,
    either: Annotated[int | str, Bounds(ge=2, max_length=3)] = 3,
) -> None: ...


def of(function: Callable[..., Any]) -> Task:
    (found,) = Registry.of(function).values()
    return found


def told(found: Task) -> DescribedTask:
    return DescribedTask(describe(found))


def complaint(found: Task | DescribedTask, payload: object) -> object:
    try:
        found.read(payload)
    except InvalidJob as error:
        return error.detail, error.context
    return None


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(0, 4)  # none that `Item` itself refuses
    | st.sampled_from([0.25, 1.0, float("nan"), 10**400])
    | st.sampled_from(["", "a", "abcdef", "red", "fast", "1", "2026-11-21", "10:30", "2026-11-21T10:00:00Z"])
    | st.sampled_from(["01930000-0000-7000-8000-000000000000"])
)
KEYS = st.sampled_from(["x", "y", "z", "name", "tags", "width", "corners"])
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
TASKS = {function.__name__: of(function) for function in (bounded, everything, more, odd)}
DESCRIBED = {name: told(each) for name, each in TASKS.items()}


@st.composite
def payloads(draw: st.DrawFn) -> tuple[str, object]:
    name = draw(st.sampled_from(sorted(TASKS)))
    schema: Any = TASKS[name].schema()
    keys = st.sampled_from([*schema["properties"], "other"])
    return name, draw(st.dictionaries(keys, VALUES, max_size=4) | VALUES)


@given(payloads())
def test_every_payload_meets_the_same_complaints(drawn: tuple[str, object]) -> None:
    name, payload = drawn
    assert complaint(DESCRIBED[name], payload) == complaint(TASKS[name], payload)


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("everything", GOOD),
        ("everything", {"text": 1, "extra": 2}),
        ("everything", GOOD | {"items": [{"name": "a"}, {"name": 7, "nam": "b"}]}),
        ("everything", GOOD | {"at": "yesterday", "day": "2026-02-30", "where": 3}),
        ("everything", GOOD | {"mode": "medium", "colour": "green", "pairs": [1, "2"], "either": []}),
        ("more", {"corner": {"x": 1, "z": 1}, "names": ["a", "a"], "pair": [1, "a", 2], "clock": "noon"}),
        ("more", {"uid": "17", "share": 0, "even": 3, "word": "a", "few": [1, 2, 3], "red": "blue"}),
        ("more", {"frame": {"width": 0, "corners": [{}]}}),
        ("more", {"frame": {"width": 1, "corners": []}, "pair": [1, "a"], "frozen": [1, 2]}),
        ("odd", {"points": [[1, "a"], [1, "a"]], "colours": ["red", "red"], "anything": [[1]]}),
        ("odd", {"points": [[1, "a"], [2, "a"]], "colours": ["red", "blue"], "anything": [1, "1"]}),
        ("odd", {"lists": [[1], [1, 2]]}),
        ("odd", {"lists": [[1], [1]]}),
        ("odd", {"exact": [1, 2], "table": {}, "mixed": {"x": 1, "name": "a"}, "one": 2}),
        ("odd", {"table": {"a": [{"x": 1, "z": 2}]}, "mixed": [{"x": "1"}], "either": 1}),
        ("odd", {"either": "abcd"}),
        ("bounded", {"few": [], "big": 0, "both": "abc", "inner": ["a", "b"], "anything": 10}),
        ("bounded", {"few": "", "big": [], "both": 0.5, "inner": 0, "anything": [], "tenths": 0.35}),
        ("bounded", {"few": {}, "big": "0", "inner": "abc", "anything": {}, "tenths": 0.3, "halves": 1}),
    ],
)
def test_these_payloads_meet_the_same_complaints(name: str, payload: object) -> None:
    assert complaint(DESCRIBED[name], payload) == complaint(TASKS[name], payload)


def test_the_words_are_those_of_the_task() -> None:
    with pytest.raises(InvalidJob) as caught:
        DESCRIBED["more"].read({"corner": {"z": 1}, "few": [1, 2, 3]})
    assert caught.value.detail == (
        "more: corner.x: is missing: expected an integer; corner.z: is no field of Corner; "
        "few: expected a list (with a length of at most 2), got [1, 2, 3]"
    )
    assert caught.value.context["field"] == "corner.x"


@task("of.classes")
def of_classes(
    items: list[Item] | None = None,
    singles: set[Single] | None = None,
    points: set[Point] | None = None,
) -> None: ...


@pytest.mark.parametrize(
    ("payload", "is_refused"),
    [
        ({"items": [{"name": "a", "count": -1}]}, True),  # by its __post_init__
        ({"singles": [{"x": 1}, {"x": 1}]}, False),
        ({"points": [{"x": 1}, {"x": 1, "y": 0}]}, True),
    ],
)
def test_what_only_its_classes_know_is_left_to_the_task(payload: object, is_refused: bool) -> None:
    assert (complaint(of(of_classes), payload) is not None) == is_refused
    assert complaint(told(of(of_classes)), payload) is None


def test_it_says_of_itself_what_the_task_says() -> None:
    @task("patient", timeout_s=30, max_attempts=7, backoff=Backoff("constant", 2, 60))
    def patient(width: int) -> None:
        """Wait.

        For long.
        """

    @task("hasty", inline=True)
    async def hasty() -> None: ...

    for each in [*load_tasks(["edgenode.tasks"]).values(), of(patient), of(hasty)]:
        item = describe(each)
        assert is_sane(item)
        found = described(item)
        assert found.schema() == each.schema()
        for name in ("name", "summary", "timeout_s", "max_attempts", "backoff", "inline"):
            assert getattr(found, name) == getattr(each, name), (each.name, name)
        assert described(describe(each)) is found, "it is made once"


Large = Literal[tuple(f"{number:01000}" for number in range(70))]  # type: ignore[valid-type]


@task("large", max_attempts=7)
def large(choice: Large) -> None: ...


def test_a_schema_that_is_too_large_to_be_told_fits_every_payload() -> None:
    assert len(json.dumps(of(large).schema())) > SCHEMA_BYTES_MAX
    item = describe(of(large))
    assert (item.schema, item.max_attempts) == (b"", 7)
    found = DescribedTask(item)
    assert (found.schema(), found.summary, found.max_attempts) == (None, None, 7)
    found.read({"anything": 1})


@pytest.mark.parametrize(
    "schema",
    [
        b"", b"{", b"[1]", b"null", b"\xff", b"[" * 60_000,
        b'{"anyOf": 3}', b'{"anyOf": []}', b'{"enum": []}', b'{"type": ["string"]}', b'{"type": "later"}',
        b'{"type": "object"}', b'{"type": "object", "properties": [], "required": []}',
        b'{"type": "object", "properties": {"a": 3}, "required": [{}]}',
        b'{"type": "object", "properties": {"a": {"type": "number", "multipleOf": 0}}, "required": []}',
        b'{"type": "object", "properties": {"a": {"type": "number", "minimum": "later"}}, "required": []}',
        b'{"type": "object", "properties": {"a": {"type": "array"}}, "required": []}',
        b'{"type": "object", "properties": {"a": {"format": [], "type": "string"}}, "required": []}',
        b'{"type": "object", "properties": {"a": ' + b'{"items": ' * 9_000 + b"1" + b"}" * 9_002,
        b'{"type": "object", "properties": {"a": '
        + b'{"type": "array", "items": ' * 500 + b"1" + b"}" * 501 + b', "required": []}',
    ],
)  # fmt: skip
def test_a_schema_of_another_version_refuses_nothing_that_it_does_not_say(schema: bytes) -> None:
    found = DescribedTask(TaskItem("t", schema, 0.0, 0, "", 0.0, 0.0, False))
    given: Any = "text" if b"string" in schema else 3.5 if b"number" in schema else []
    for _ in range(50 if b"items" in schema else 0):
        given = [given]
    found.read({"a": given})
    assert isinstance(found.schema(), dict | None)
