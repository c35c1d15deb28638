"""What people who write tasks can rely on: parameters, their checks, loading, and running one in a test."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum, StrEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, Literal, NewType, NotRequired, TypedDict
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgenode
from edgenode import Backoff, Bounds, Cancel, Fail, JobContext, Recorder, Retry, load_tasks, run_task, task
from edgenode.core.errors import InvalidJob
from edgenode.described import describe
from edgenode.task import (
    RESULT_BYTES_MAX,
    Fence,
    Registry,
    Task,
    TaskLoadError,
    Unserialisable,
    encode_result,
)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Item:
    name: str
    count: int = 1
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count cannot be negative")


class Corner(TypedDict):
    x: int
    y: NotRequired[int]


Width = NewType("Width", int)


@dataclass
class Frame:
    width: Annotated[int, Bounds(ge=1)]
    corners: list[Corner]


class Odd(Enum):
    PAIR = (1, 2)


class Far(Enum):
    END = float("inf")


class Near(Enum):
    HERE = 0


@dataclass
class Endless:
    inner: Endless | None


@dataclass
class Here:
    there: There


class There(TypedDict):
    here: Here | None


@dataclass
class Lost:
    thing: json.Nowhere  # type: ignore[name-defined]


@task("everything", timeout_s=30, max_attempts=5)
def everything(
    text: str,
    number: float,
    width: int,
    flag: bool = False,
    items: list[Item] | None = None,
    sizes: dict[str, int] | None = None,
    mode: Literal["fast", "slow", 3] = "fast",
    colour: Colour = Colour.RED,
    where: Path = Path("/"),
    at: datetime | None = None,
    day: date | None = None,
    pairs: tuple[int, ...] = (),
    either: int | str = 0,
    whatever: Any = None,
) -> dict[str, Any]:
    """Show what was read.

    More about it.
    """
    return {key: repr(value) for key, value in locals().items()}


GOOD: dict[str, Any] = {"text": "t", "number": 1.5, "width": 3}


def of(function: Callable[..., Any]) -> Task:
    (found,) = Registry.of(function).values()
    return found


def complaint(payload: object, function: Callable[..., Any] = everything) -> dict[str, Any]:
    with pytest.raises(InvalidJob) as caught:
        of(function).read(payload)
    return {"detail": caught.value.detail, **caught.value.context}


# ------------------------------------------------------------------------------------------ parameters


def test_values_become_what_the_annotations_say() -> None:
    read = of(everything).read(
        GOOD
        | {
            "number": 2,
            "items": [{"name": "a"}, {"name": "b", "count": 2, "tags": ["x"]}],
            "sizes": {"a": 1},
            "mode": 3,
            "colour": "blue",
            "where": "/tmp/x",
            "at": "2026-11-21T10:00:00Z",
            "day": "2026-11-21",
            "pairs": [1, 2],
            "either": "text",
            "whatever": [{"any": None}],
        }
    )
    assert read["number"] == 2.0
    assert isinstance(read["number"], float)
    assert read["items"] == [Item("a"), Item("b", 2, ["x"])]
    assert read["sizes"] == {"a": 1}
    assert read["mode"] == 3
    assert read["colour"] is Colour.BLUE
    assert read["where"] == Path("/tmp/x")
    assert read["at"] == datetime(2026, 11, 21, 10, tzinfo=UTC)
    assert read["day"] == date(2026, 11, 21)
    assert read["pairs"] == (1, 2)
    assert read["either"] == "text"
    assert read["whatever"] == [{"any": None}]


def test_what_is_left_out_gets_the_function_s_own_default() -> None:
    assert of(everything).read(GOOD) == GOOD
    assert run_task(everything, GOOD)["colour"] == repr(Colour.RED)


@pytest.mark.parametrize(
    ("change", "name", "text"),
    [
        ({"width": "3"}, "width", "expected an integer, got text"),
        ({"width": True}, "width", "expected an integer, got true or false"),
        ({"width": 3.0}, "width", "expected an integer, got a number"),
        ({"width": None}, "width", "expected an integer, got null"),
        ({"number": "x"}, "number", "expected a number, got text"),
        ({"number": True}, "number", "expected a number"),
        ({"number": float("nan")}, "number", "finite"),
        ({"number": 10**400}, "number", "finite"),
        ({"flag": 1}, "flag", "expected true or false, got an integer"),
        ({"text": ["a"]}, "text", "expected text, got a list"),
        ({"items": {}}, "items", "expected a list or null, got an object"),
        ({"items": [{"name": "a"}, {"name": 7}]}, "items[1].name", "expected text, got an integer"),
        ({"items": [{"count": 7}]}, "items[0].name", "is missing: expected text"),
        ({"items": [{"name": "a", "nam": "b"}]}, "items[0].nam", "is no field of Item"),
        ({"items": [{"name": "a", "count": -1}]}, "items", "expected a list or null"),
        ({"sizes": {"a": "b"}}, "sizes.a", "expected an integer"),
        ({"mode": "medium"}, "mode", "one of 'fast', 'slow', 3, got 'medium'"),
        ({"colour": "green"}, "colour", "one of 'red', 'blue', got 'green'"),
        ({"at": "yesterday"}, "at", "date and time"),
        ({"pairs": [1, "2"]}, "pairs[1]", "expected an integer"),
        ({"either": []}, "either", "expected an integer or text, got a list"),
        ({"heigth": 1}, "heigth", "is no parameter of this task"),
    ],
)
def test_a_wrong_parameter_is_refused_by_its_name(change: dict[str, Any], name: str, text: str) -> None:
    found = complaint(GOOD | change)
    if name == "items" and "count" in str(change):
        # What a dataclass says of itself is about the item.
        name, text = "items[0]", "count cannot be negative"
    assert found["field"] == name
    assert text in found["detail"]


@task("more")
def more(
    corner: Corner | None = None,
    names: set[str] | None = None,
    pair: tuple[int, str] | None = None,
    frozen: frozenset[int] = frozenset(),
    clock: time | None = None,
    uid: UUID | None = None,
    new: Width = Width(1),
    share: Annotated[float, Bounds(gt=0, lt=1)] = 0.5,
    even: Annotated[int | None, Bounds(multiple_of=2)] = None,
    word: Annotated[str, "of a few letters", Bounds(min_length=2, max_length=4)] = "ab",
    few: Annotated[list[int], Bounds(max_length=2)] = [],  # noqa: B006 - nobody changes it
    frame: Frame | None = None,
    red: Literal[Colour.RED, "none"] = "none",
) -> None: ...


@pytest.mark.parametrize(
    ("name", "given", "read"),
    [
        ("corner", {"x": 1}, {"x": 1}),
        ("corner", {"x": 1, "y": 2}, {"x": 1, "y": 2}),
        ("names", ["a", "b"], {"a", "b"}),
        ("frozen", [1], frozenset({1})),
        ("pair", [1, "a"], (1, "a")),
        ("clock", "10:30", time(10, 30)),
        ("uid", "01930000-0000-7000-8000-000000000000", UUID("01930000-0000-7000-8000-000000000000")),
        ("new", 3, 3),
        ("share", 0.25, 0.25),
        ("even", None, None),
        ("even", 4, 4),
        ("word", "abc", "abc"),
        ("few", [1, 2], [1, 2]),
        ("frame", {"width": 1, "corners": [{"x": 1}]}, Frame(1, [{"x": 1}])),
        ("red", "red", Colour.RED),
    ],
)
def test_other_shapes_are_read_too(name: str, given: object, read: object) -> None:
    found = of(more).read({name: given})[name]
    assert found == read
    assert type(found) is type(read)


@pytest.mark.parametrize(
    ("name", "given", "field", "text"),
    [
        ("corner", {"y": 1}, "corner.x", "is missing"),
        ("corner", {"x": 1, "z": 1}, "corner.z", "is no field of Corner"),
        ("names", ["a", "a"], "names", "each value once"),
        ("names", "ab", "names", "expected a list or null"),
        ("pair", [1, "a", 2], "pair", "expected a list of 2, got 3"),
        ("pair", [1, 2], "pair[1]", "expected text"),
        ("clock", "noon", "clock", "expected a time"),
        ("uid", "17", "uid", "expected a UUID"),
        ("share", 0, "share", "a number (above 0, below 1), got 0"),
        ("share", 1.0, "share", "below 1"),
        ("even", 3, "even", "a multiple of 2"),
        ("word", "a", "word", "text (with a length of at least 2, with a length of at most 4), got 'a'"),
        ("few", [1, 2, 3], "few", "a length of at most 2"),
        ("frame", {"width": 0, "corners": []}, "frame.width", "at least 1"),
        ("red", "blue", "red", "one of 'red', 'none'"),
    ],
)
def test_other_shapes_are_checked_too(name: str, given: object, field: str, text: str) -> None:
    found = complaint({name: given}, more)
    assert any(each["field"] == field and text in each["message"] for each in found["errors"]) or (
        found["field"] == name and text in found["detail"]
    )


def test_the_schema_has_other_shapes_and_bounds() -> None:
    properties = of(more).schema()["properties"]
    assert properties["share"] == {
        "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "default": 0.5
    }  # fmt: skip
    assert properties["word"] == {"type": "string", "minLength": 2, "maxLength": 4, "default": "ab"}
    assert properties["few"] == {"type": "array", "items": {"type": "integer"}, "maxItems": 2}
    assert properties["pair"]["anyOf"][0]["prefixItems"] == [{"type": "integer"}, {"type": "string"}]
    assert properties["names"]["anyOf"][0]["uniqueItems"] is True
    assert properties["corner"]["anyOf"][0]["required"] == ["x"]
    assert properties["red"] == {"enum": ["red", "none"], "default": "none"}
    json.dumps(properties)


@task("bounded")
def bounded(
    few: Annotated[list[int] | str | dict[str, int] | None, Bounds(min_length=1)] = None,
    big: Annotated[int | str, Bounds(ge=1)] = 1,
    both: Annotated[float | str | None, Bounds(ge=1, max_length=2)] = None,
    inner: Annotated[Literal["a", "abc", 0, 7] | list[str], Bounds(max_length=1, gt=0)] = "a",
    anything: Annotated[Any, Bounds(min_length=1, le=9)] = None,
    tenths: Annotated[float, Bounds(multiple_of=0.1)] = 0.0,
    halves: Annotated[int, Bounds(multiple_of=2)] = 0,
) -> None: ...


def test_a_bound_of_a_union_is_said_of_the_alternatives_that_have_what_it_bounds() -> None:
    properties = of(bounded).schema()["properties"]
    assert properties["few"]["anyOf"] == [
        {"type": "array", "items": {"type": "integer"}, "minItems": 1},
        {"type": "string", "minLength": 1},
        {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1},
        {"type": "null"},
    ]
    assert properties["big"]["anyOf"] == [{"type": "integer", "minimum": 1}, {"type": "string"}]
    assert properties["both"]["anyOf"][:2] == [
        {"type": "number", "minimum": 1},
        {"type": "string", "maxLength": 2},
    ]
    assert properties["inner"]["anyOf"] == [
        {"enum": ["a", "abc", 0, 7], "exclusiveMinimum": 0, "maxLength": 1},
        {"type": "array", "items": {"type": "string"}, "maxItems": 1},
    ]
    lengths = {"minLength": 1, "minItems": 1, "minProperties": 1}
    assert properties["anything"] == lengths | {"maximum": 9, "default": None}


@pytest.mark.parametrize(
    ("name", "taken", "refused"),
    [
        ("few", [[1], "a", {"a": 1}, None], [[], "", {}]),
        ("big", [1, 7, "", "abc"], [0]),
        ("both", [1, 1.5, "", "ab", None], [0, 0.5, "abc"]),
        ("inner", ["a", 7, [], ["abc"]], ["abc", 0, ["a", "b"]]),
        ("anything", [None, True, [0], "a", {"a": 0}, 9, -1.5], [[], "", {}, 10, 9.5, float("nan")]),
        ("tenths", [0.3, 0.1 + 0.2, 1e6 + 0.1, -0.7, 0, 3, 1e300], [0.35, 1e-9, 1e6 + 0.15, 0.300001]),
        ("halves", [0, -2, 2 * 10**30], [1, 2 * 10**30 + 1]),
    ],
)
def test_a_bound_of_a_union_holds_for_what_has_what_it_bounds(
    name: str, taken: list[object], refused: list[object]
) -> None:
    for each in taken:
        of(bounded).read({name: each})
    for each in refused:
        assert complaint({name: each}, bounded)["field"] == name


@pytest.mark.parametrize(
    ("name", "taken", "refused"),
    [
        (
            "at",
            [
                "2020-01-01T10:00:00Z", "2020-01-01t10:00:00z", "2020-01-01 10:00:00.123456789+02:00",
                "2020-01-01T10:00", "2020-01-01T10:00:00", "2020-01-01T10:00-00:00",
            ],
            [
                "20200101", "2020-W01-1", "2020-01-01", "20200101T100000Z", "2020-W01-1T10:00:00Z",
                "2020-01-01T10", "2020-01-01T10:00:00,5Z", "2020-01-01T10:00:00+0200", "2020-01-01T24:00:00Z",
                "2020-01-01x10:00:00Z", "2020-02-30T10:00:00Z", "2020-01-01T10:00:00+02:00:01",
                "2020-01-01T10:00:00Z\n", "\u0662020-01-01T10:00:00Z",
            ],
        ),
        ("day", ["2020-01-01"], ["20200101", "2020-W01-1", "2020-W01", "2020-01-01T10:00:00Z", "2020-02-30"]),
        (
            "clock",
            ["10:30", "10:30:59", "10:30:59.5z", "10:30:59+05:30"],
            ["10", "1030", "T10:30", "10:30:59,5", "25:00", "10:60"],
        ),
        (
            "uid",
            ["01930000-0000-7000-8000-00000000000A", "01930000-0000-7000-8000-00000000000a"],
            [
                "0193000000007000800000000000000a", "{01930000-0000-7000-8000-00000000000a}",
                "urn:uuid:01930000-0000-7000-8000-00000000000a", "0193-00000000-7000-8000-00000000000a",
            ],
        ),
    ],
)  # fmt: skip
def test_days_times_and_uuids_are_written_as_their_formats_say(
    name: str, taken: list[str], refused: list[str]
) -> None:
    function, given = (everything, GOOD) if name in ("at", "day") else (more, {})
    for each in taken:
        assert not isinstance(of(function).read(given | {name: each})[name], str)
    for each in refused:
        assert "expected a" in complaint(given | {name: each}, function)["detail"]


def test_a_missing_parameter_is_named() -> None:
    assert complaint({"text": "t", "number": 1})["field"] == "width"


def test_all_that_is_wrong_is_told_at_once() -> None:
    found = complaint({"text": 1, "extra": 2})
    assert [each["field"] for each in found["errors"]] == ["text", "number", "width", "extra"]
    assert "and 1 more" in found["detail"]


@pytest.mark.parametrize("payload", [[], "text", 3, None])
def test_a_payload_that_is_no_object_is_refused(payload: object) -> None:
    assert complaint(payload)["field"] == "payload"


def test_a_misspelt_parameter_is_told_beside_the_one_that_is_missing_for_it() -> None:
    @task("t")
    def plain(message: Any, count: int) -> None: ...

    with pytest.raises(InvalidJob) as caught:
        of(plain).read({"mesage": 1, "count": 2})
    assert caught.value.detail == "t: message: is missing; mesage: is no parameter of this task"
    with pytest.raises(InvalidJob) as caught:
        of(plain).read({"a": 1, "b": 2, "c": 3})
    assert caught.value.detail.endswith("a: is no parameter of this task (and 2 more)")


def test_a_million_wrong_items_make_a_short_complaint() -> None:
    @task("items")
    def items(items: list[Item]) -> None: ...

    found = complaint({"items": [{"name": 1}] * 100_000 + [{"name": "ok", "count": -1}]}, items)
    assert len(found["errors"]) == 20
    assert "and at least 17 more" in found["detail"]


@task("wholes")
def wholes(
    items: list[int] | None = None,
    either: list[int | str | None] | None = None,
    pair: tuple[list[int], list[int]] | None = None,
    table: dict[str, int] | None = None,
    names: set[int] | None = None,
    thing: Item | None = None,
) -> None: ...


class Short(list[Any]):
    """Nobody reads it to its end."""

    def __iter__(self) -> Iterator[Any]:
        yield from self[:20]
        raise AssertionError("read on")


@pytest.mark.parametrize(
    "payload",
    [
        {"items": Short(["x"] * 10_000)},
        {"items": [1] * 10_000 + ["x"] * 7, "either": Short([[]] * 10_000)},
        {"pair": [["x"] * 13, Short(["x"] * 10_000)]},
        {"names": Short(["x"] * 10_000)},
        {"table": {str(n): "x" for n in range(10_000)}},
        {"thing": {str(n): "x" for n in range(10_000)}},
        {str(n): 1 for n in range(10_000)},
    ],
    ids=lambda payload: "-".join(list(payload)[:2]),
)
def test_nothing_is_read_after_so_many_complaints(payload: dict[str, Any]) -> None:
    found = complaint(payload, wholes)
    assert len(found["errors"]) == 20
    assert found["detail"].endswith("(and at least 17 more)")


def test_one_complaint_less_than_are_told_are_all() -> None:
    assert complaint({"items": ["x"] * 19}, wholes)["detail"].endswith("(and 16 more)")
    assert complaint({"items": ["x"] * 20}, wholes)["detail"].endswith("(and at least 17 more)")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise OSError("no words")


@pytest.mark.parametrize(
    ("raised", "text"),
    [
        (ValueError("too many"), "too many"),
        (ValueError(), "ValueError"),
        (AssertionError("too many"), "AssertionError: too many"),
        (AssertionError(), "AssertionError"),
        (KeyError("red"), "KeyError: 'red'"),
        (Fail("never"), "Fail: never"),
        (Unspeakable(), "Unspeakable: (OSError when asked for its text)"),
        (TypeError("x" * 100_000), "TypeError: " + "x" * 300),
    ],
)
def test_whatever_a_dataclass_raises_of_its_values_is_a_complaint_about_them(
    raised: Exception, text: str
) -> None:
    @dataclass
    class Picky:
        count: int

        def __post_init__(self) -> None:
            raise raised

    def picky(thing: Any) -> None: ...

    picky.__annotations__["thing"] = Picky
    found = complaint({"thing": {"count": 1}}, task("picky")(picky))
    assert found["errors"] == [{"field": "thing", "message": text}]


@dataclass
class Scaled:
    size: int
    factor: InitVar[int]
    offset: InitVar[Annotated[int, Bounds(ge=0)]] = 0
    kinds: ClassVar[list[str]] = ["none"]
    inner: int = field(init=False, default=0)

    def __post_init__(self, factor: int, offset: int) -> None:
        self.size = self.size * factor + offset


def test_what_only_the_post_init_of_a_dataclass_sees_is_a_parameter_too() -> None:
    @task("scaled")
    def scaled(thing: Scaled) -> int:
        return thing.size

    assert run_task(scaled, {"thing": {"size": 2, "factor": 3}}) == 6
    assert run_task(scaled, {"thing": {"size": 2, "factor": 3, "offset": 1}}) == 7
    schema = of(scaled).schema()["properties"]["thing"]
    assert list(schema["properties"]) == ["size", "factor", "offset"]
    assert schema["required"] == ["size", "factor"]
    assert schema["properties"]["offset"] == {"type": "integer", "minimum": 0, "default": 0}
    told = complaint({"thing": {"size": 2, "factor": "3", "kinds": [], "inner": 1}}, scaled)["errors"]
    assert [each["field"] for each in told] == ["thing.factor", "thing.kinds", "thing.inner"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*everything.__annotations__, "other"]), json_values))
def test_any_json_is_either_read_or_refused_with_a_field(payload: dict[str, Any]) -> None:
    fields: list[Any] = ["width"]
    try:
        of(everything).read(payload)
    except InvalidJob as error:
        fields = [each["field"] for each in error.context["errors"]]
    assert all(isinstance(each, str) and each for each in fields)
    assert fields


def test_the_schema_says_the_same_as_the_check() -> None:
    schema = of(everything).schema()
    assert schema["title"] == "everything"
    assert schema["description"] == "Show what was read."
    assert schema["required"] == ["text", "number", "width"]
    assert schema["additionalProperties"] is False
    properties = schema["properties"]
    assert properties["width"] == {"type": "integer"}
    assert properties["flag"] == {"type": "boolean", "default": False}
    assert properties["mode"] == {"enum": ["fast", "slow", 3], "default": "fast"}
    assert properties["at"]["anyOf"][0] == {"type": "string", "format": "date-time"}
    assert properties["items"]["anyOf"][0]["items"]["required"] == ["name"]
    json.dumps(schema)


def test_a_default_that_json_has_not_is_left_out_of_the_schema() -> None:
    @task("far")
    def far(
        limit: float = float("inf"),
        start: float = float("nan"),
        near: Near = Near.HERE,
        share: float = 0.5,
        what: Any = Odd.PAIR,
        none: Any = None,
    ) -> float:
        return limit

    schema = of(far).schema()
    json.dumps(schema, allow_nan=False)
    defaults = {name: each["default"] for name, each in schema["properties"].items() if "default" in each}
    assert defaults == {"near": 0, "share": 0.5, "none": None}
    assert of(far).call({}, None) == float("inf")
    assert json.loads(describe(of(far)).schema) == schema


def test_the_context_is_no_parameter_of_the_payload() -> None:
    @task("with.context")
    def with_context(width: int, ctx: JobContext) -> list[Any]:
        return [width, ctx.attempt, ctx.job_id, str(ctx.fence), ctx.cancelled, ctx.tmp.is_dir()]

    assert list(of(with_context).schema()["properties"]) == ["width"]
    result = run_task(with_context, {"width": 2}, attempt=3)
    assert result[0:2] == [2, 3]
    assert result[4:] == [False, True]
    assert complaint({"width": 2, "ctx": 1}, with_context)["field"] == "ctx"


class Strange:
    pass


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (Strange, "Strange"),
        (dict[int, str], "keys"),
        (Endless, ": Endless.inner: Endless contains itself$"),
        (list[Here], ": Here.there: There.here: Here contains itself$"),
        ("Nowhere", "annotations cannot be evaluated: NameError: name 'Nowhere'"),
        ("json.Nowhere", "annotations cannot be evaluated: AttributeError: .*'Nowhere'"),
        ("list[", "annotations cannot be evaluated: SyntaxError"),
        ("1 / 0", "annotations cannot be evaluated: ZeroDivisionError"),
        (Lost, "annotations of Lost cannot be evaluated: AttributeError: .*'Nowhere'"),
        (bytes, "base64"),
        (timedelta, "seconds"),
        (Odd, "no value"),
        (Far, "no value inf"),
        (Literal[b"x"], "no value"),
        (list[bytes], "base64"),
        (Annotated[list[int], Bounds(ge=1)], "the bound ge=1 says nothing of a list"),
        (Annotated[float | bool, Bounds(min_length=1)], "min_length=1 says nothing of a number or true"),
        (Annotated[datetime | None, Bounds(lt=3)], "lt=3 says nothing of a date and time"),
        (Annotated[int, Bounds(multiple_of=0)], "no value can keep the bound multiple_of=0"),
        (Annotated[int, Bounds(multiple_of=-2)], "the bound multiple_of=-2"),
        (Annotated[float, Bounds(ge=float("nan"))], "the bound ge=nan"),
        (Annotated[float, Bounds(lt=float("inf"))], "the bound lt=inf"),
        (Annotated[float, SimpleNamespace(gt=float("-inf"))], "the bound gt=-inf"),
        (Annotated[str, SimpleNamespace(max_length=-1)], "the bound max_length=-1"),
    ],
)
def test_an_annotation_that_json_cannot_fill_is_refused_when_the_task_is_loaded(
    annotation: Any, text: str
) -> None:
    def strange(thing: Any) -> None: ...

    strange.__annotations__["thing"] = annotation
    with pytest.raises(TaskLoadError, match=r"strange.*('thing'|: its ).*" + text):
        Registry.of(task("strange")(strange))


def test_parameters_without_a_name_are_refused_when_the_task_is_loaded() -> None:
    @task("rest")
    def rest(*args: int) -> None: ...

    with pytest.raises(TaskLoadError, match="by name"):
        Registry.of(rest)


# ------------------------------------------------------------------------------------- the decorator


def test_a_decorated_function_stays_a_function() -> None:
    @task("add")
    def add(a: int, b: int) -> int:
        return a + b

    assert add(1, 2) == 3


def test_the_task_keeps_what_the_decorator_was_told() -> None:
    found = of(everything)
    assert (found.timeout_s, found.max_attempts, found.inline) == (30, 5, False)


@pytest.mark.parametrize("name", ["", "has space", "a/b", "x" * 129, ".hidden"])
def test_a_strange_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no task name"):
        task(name)


def test_a_decorator_without_a_name_says_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"@task\("):
        task(lambda: None)  # type: ignore[arg-type]


def test_only_a_coroutine_can_be_inline() -> None:
    with pytest.raises(ValueError, match="async def"):
        task("blocking", inline=True)(lambda: None)


@pytest.mark.parametrize("max_attempts", [0, -1, 65, 99])
def test_so_many_attempts_as_no_job_can_have_are_refused(max_attempts: int) -> None:
    with pytest.raises(ValueError, match=f"max_attempts is from 1 to 64, not {max_attempts}: leave it out"):
        task("wrong", max_attempts=max_attempts)


def test_a_backoff_that_is_none_is_refused_with_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"a backoff is like Backoff\(.* not 'exponential'"):
        task("wrong", backoff="exponential")  # type: ignore[arg-type]


def test_only_what_returns_its_result_is_a_task() -> None:
    def generator() -> Any:
        yield 1

    async def async_generator() -> Any:
        yield 1

    for wrong, kind in ((Strange, "class"), (generator, "generator"), (async_generator, "generator")):
        with pytest.raises(
            TypeError, match=f"{wrong.__name__} is a {kind}: a task is a function that returns"
        ):
            task("wrong")(wrong)


@pytest.mark.parametrize(
    ("annotation", "default", "text"),
    [
        (int, "a", "expected an integer, got text"),
        (int, None, "expected an integer, got null"),
        (int, 1.5, "expected an integer, got a number"),
        (float, True, "expected a number, got true or false"),
        (Literal["a", "b"], "c", "expected one of 'a', 'b', got 'c'"),
        (Colour, Near.HERE, "expected one of"),
        (list[int], ["a"], "expected an integer, got text"),
        (tuple[int, int], (1,), "expected a list of 2, got 1"),
        (Annotated[int, Bounds(ge=1)], 0, "expected an integer .at least 1., got 0"),
        (Item, Strange(), "expected an object, got Strange"),
        (date, datetime(2026, 1, 2), "expected a date"),
        (int | None, None, None),
        (float, 1, None),
        (float, float("inf"), None),
        (Item, Item("a"), None),
        (list[Item], [Item("a")], None),
        (dict[str, Path], {"a": Path("/")}, None),
        (set[int], frozenset({1, 2}), None),
        (Colour, Colour.RED, None),
        (datetime, datetime(2026, 1, 2, 3, 4, 5, 6), None),
        (Any, object(), None),
    ],
)
def test_a_default_that_no_payload_could_say_is_refused_when_the_task_is_loaded(
    annotation: Any, default: Any, text: str | None
) -> None:
    def has_default(thing: Any = default) -> None: ...

    has_default.__annotations__["thing"] = annotation
    marked = task("default")(has_default)
    if text is None:
        assert of(marked).read({}) == {}
        return
    with pytest.raises(
        TaskLoadError, match=f"parameter 'thing': its default does not fit its annotation: {text}"
    ):
        Registry.of(marked)


def test_a_context_without_an_annotation_says_what_to_write() -> None:
    @task("bare")
    def bare(width: int, ctx) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(
        TaskLoadError, match="parameter 'ctx': for the context of its start write `ctx: JobContext`"
    ):
        Registry.of(bare)


def test_fences_sort_as_text_as_they_do_as_tuples() -> None:
    fences = [Fence(1, "b" * 16, 2), Fence(10, "a" * 16, 1), Fence(2, "c" * 16, 10), Fence(2, "c" * 16, 9)]
    assert sorted(fences, key=str) == sorted(fences)


# ------------------------------------------------------------------------------------------- running


def test_a_coroutine_can_be_a_task() -> None:
    @task("later")
    async def later(x: int) -> int:
        return x + 1

    assert run_task(later, {"x": 1}) == 2


async def test_a_coroutine_is_run_in_a_test_that_is_a_coroutine_too() -> None:
    mark, failure = ContextVar("mark", default="none"), Fail("never")

    @task("later.again")
    async def later(fails: bool) -> list[str]:
        await asyncio.sleep(0)
        if fails:
            raise failure
        seen = mark.get()
        mark.set("inside")
        return [seen, mark.get()]

    mark.set("outside")
    assert run_task(later, {"fails": False}) == ["outside", "inside"]
    assert mark.get() == "outside"
    with pytest.raises(Fail) as caught:
        run_task(later, {"fails": True})
    assert caught.value is failure


def test_the_result_is_what_a_client_would_read() -> None:
    @task("shapes")
    def shapes() -> dict[str, Any]:
        return {
            "item": Item("a"),
            "path": Path("/x"),
            "day": date(2026, 1, 2),
            "pair": (1, 2),
            "c": Colour.RED,
        }

    assert run_task(shapes) == {
        "item": {"name": "a", "count": 1, "tags": []},
        "path": "/x",
        "day": "2026-01-02",
        "pair": [1, 2],
        "c": "red",
    }


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", float("nan"), float("inf"), "\ud800"])
def test_a_result_that_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(Unserialisable, match="not JSON"):
        encode_result(value)


def test_a_result_that_is_too_large_is_refused_with_advice() -> None:
    with pytest.raises(Unserialisable, match="file"):
        encode_result("x" * RESULT_BYTES_MAX)


@pytest.mark.parametrize("verdict", [Retry(after_s=3), Cancel("enough"), Fail("never"), ValueError("bad")])
def test_what_a_task_raises_reaches_the_test(verdict: Exception) -> None:
    @task("raises")
    def raises() -> None:
        raise verdict

    with pytest.raises(type(verdict)) as caught:
        run_task(raises)
    assert caught.value is verdict


@pytest.mark.parametrize("verdict", [Retry(after_s=3), Cancel("enough"), Fail("never"), Retry, Cancel])
def test_a_verdict_that_a_task_returns_is_raised_too(verdict: Exception | type[Exception]) -> None:
    @task("returns")
    def returns() -> object:
        return verdict

    @task("returns.async")
    async def returns_async() -> object:
        return verdict

    for which in (returns, returns_async):
        with pytest.raises(verdict if isinstance(verdict, type) else type(verdict)) as caught:
            run_task(which)
        assert isinstance(verdict, type) or caught.value is verdict


def test_the_reason_of_a_verdict_may_be_the_exception_that_was_caught() -> None:
    caught = OSError("no route")
    assert [kind(caught).reason for kind in (Retry, Cancel, Fail)] == ["no route"] * 3


@pytest.mark.parametrize("said", [4, 2.5, 0])
def test_a_number_alone_is_when_to_try_again(said: float) -> None:
    @task("again")
    def again(is_raised: bool) -> object:
        if is_raised:
            raise Retry(said)
        return Retry(said)

    for is_raised in (True, False):
        with pytest.raises(Retry) as caught:
            run_task(again, {"is_raised": is_raised})
        assert caught.value.after_s == said
        assert caught.value.reason == Retry().reason
    assert (Retry("busy").after_s, Retry("busy", after_s=4).after_s) == (None, 4.0)
    with pytest.raises(ValueError, match="after_s is from 0"):
        Retry(-1)


@pytest.mark.parametrize("after_s", [-1.0, float("inf"), float("nan"), 1e300, 10**400])
def test_a_pause_that_no_calendar_shows_is_refused(after_s: float) -> None:
    with pytest.raises(ValueError, match="after_s is from 0 to 316224000 seconds, not"):
        Retry(after_s=after_s)


def test_a_verdict_that_is_returned_again_and_again_keeps_no_frames_of_earlier_times() -> None:
    again = Retry()

    @task("again")
    def returns() -> object:
        return again

    def frames() -> int:
        with pytest.raises(Retry) as caught:
            run_task(returns)
        return len(caught.traceback)

    assert len({frames() for _ in range(5)}) == 1


def test_a_test_sees_what_a_task_told_and_may_cancel_it() -> None:
    @task("steps")
    def steps(ctx: JobContext) -> int:
        step = 0
        while not ctx.cancelled:
            step += 1
            ctx.progress(step / 4, f"step {step}")
            ctx.log(f"did {step}")
            ctx.partial({"steps": (step,)})
        return step

    looks = iter([False, False, True])
    seen = Recorder(cancelled=lambda: next(looks))
    assert run_task(steps, recorder=seen) == 2
    assert seen.progress == [(0.25, "step 1"), (0.5, "step 2")]
    assert seen.log == ["did 1", "did 2"]
    assert seen.partials == [{"steps": [1]}, {"steps": [2]}]
    assert run_task(steps, recorder=Recorder(cancelled=True)) == 0


def test_a_function_without_the_decorator_is_refused() -> None:
    with pytest.raises(TypeError, match="@task"):
        run_task(lambda: None)


def test_what_running_a_task_raises_can_be_named() -> None:
    with pytest.raises(edgenode.InvalidJob, match="text: is missing"):
        run_task(everything, {})
    with pytest.raises(edgenode.Unserialisable):
        run_task(task("odd")(lambda: object()))
    assert edgenode.TaskLoadError is TaskLoadError


def test_a_task_can_be_run_by_name() -> None:
    assert run_task("everything", GOOD, registry=Registry.of(everything))["width"] == "3"


# ------------------------------------------------------------------------------------------- loading


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose modules are forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    return tmp_path


def write(file: Path, *names: str, more: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    tasks = "".join(f"\n@task('{name}')\ndef f{i}(): pass\n" for i, name in enumerate(names))
    file.write_text(f"from edgenode import task\n{more}{tasks}")


def test_modules_files_and_packages_are_loaded(folder: Path) -> None:
    write(folder / "module_of_tasks.py", "a")
    write(folder / "sub" / "file_of_tasks.py", "b", more="import neighbour_of_tasks\n")
    write(folder / "sub" / "neighbour_of_tasks.py")
    write(folder / "package_of_tasks" / "__init__.py", more="from package_of_tasks.one import f0\n")
    write(folder / "package_of_tasks" / "one.py", "c")
    write(folder / "package_of_tasks" / "two.py", "d")
    sources = ["module_of_tasks", "./sub/file_of_tasks.py", "package_of_tasks"]
    assert set(load_tasks(sources)) == {"a", "b", "c", "d"}
    assert set(load_tasks(sources)) == {"a", "b", "c", "d"}, "loading twice is the same"


def test_two_files_of_one_name_are_two_modules(folder: Path) -> None:
    write(folder / "x" / "same_name.py", "x")
    write(folder / "y" / "same_name.py", "y")
    assert set(load_tasks(["x/same_name.py", "y/same_name.py"])) == {"x", "y"}


def test_a_file_of_the_user_hides_no_module_of_python(folder: Path) -> None:
    write(folder / "json.py", "a")
    assert set(load_tasks(["./json.py"])) == {"a"}
    assert __import__("json") is json


@pytest.mark.parametrize(
    ("source", "content", "text"),
    [
        ("missing_module", None, "missing_module cannot be imported: ModuleNotFoundError"),
        ("./missing.py", None, "there is no file .*missing.py"),
        ("./broken.py", "x = 1\n1 / 0\n", r"ZeroDivisionError: division by zero \(.*broken.py, line 2\)"),
        ("./syntax.py", "def (:\n", "SyntaxError"),
        ("./exits.py", "raise SystemExit(3)\n", "SystemExit: 3"),
        ("./empty.py", "x = 1\n", "no function with @task"),
    ],
)
def test_what_cannot_be_loaded_is_explained(
    folder: Path, source: str, content: str | None, text: str
) -> None:
    if content is not None:
        (folder / source).write_text(content)
    with pytest.raises(TaskLoadError, match=text):
        load_tasks([source])


def test_two_tasks_of_one_name_are_refused_with_both_places(folder: Path) -> None:
    write(folder / "first_file.py", "same")
    write(folder / "second_file.py", "same")
    with pytest.raises(TaskLoadError, match=r"first_file\.f0 and second_file\.f0"):
        load_tasks(["first_file.py", "second_file.py"])


def test_importing_the_library_is_light() -> None:
    """Every worker process pays for it, and so does everybody who writes a task."""
    code = "import edgenode, sys; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split())
    assert "edgenode.task" in loaded
    assert not loaded & {"aiohttp", "asyncio", "msgpack", "cryptography", "typer", "sqlite3", "PIL", "uvloop"}


@pytest.mark.parametrize("timeout_s", [-1.0, float("inf"), float("nan")])
def test_a_timeout_that_no_job_can_have_is_refused(timeout_s: float) -> None:
    with pytest.raises(ValueError, match=r"timeout_s is from 0 \(for ever\) to 316224000 seconds, not"):
        task("wrong", timeout_s=timeout_s)


def test_a_task_says_how_long_its_jobs_wait_after_a_failure() -> None:
    @task("patient", backoff=Backoff("constant", base_s=5.0))
    def patient() -> None: ...

    assert Registry.of(patient)["patient"].backoff == Backoff("constant", 5.0, 300.0)
    endless = Backoff(cap_s=float("inf"))
    for wrong in (Backoff("linear"), Backoff(base_s=-1.0), Backoff(base_s=10.0, cap_s=5.0), endless):
        with pytest.raises(ValueError, match="backoff"):
            task("wrong", backoff=wrong)


@pytest.mark.parametrize("timeout_s", [float("inf"), float("nan"), -1.0])
def test_a_timeout_is_a_number_of_seconds(timeout_s: float) -> None:
    with pytest.raises(ValueError, match="timeout_s"):
        task("wrong", timeout_s=timeout_s)
