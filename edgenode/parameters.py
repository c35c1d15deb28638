"""From a function's annotations: what its JSON arguments must look like, as a check and as a JSON Schema.

Each annotation becomes a `Shape`, once, when a task is loaded. A shape reads a JSON value into the Python
value the task wants, and collects every problem with the name of the field it is about (`items[3].name`).
Reading is strict: JSON says what is text and what is a number, so nothing is guessed or converted.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple

PROBLEMS_MAX: Final = 20
"""More than anybody reads; a list of a million wrong items must not make a megabyte of complaints."""
NESTING_MAX: Final = 32

Schema = dict[str, Any]


class Problem(NamedTuple):
    field: str
    text: str


class _Wrong:
    """What `read` returns after it noted a problem; no task ever sees it."""


WRONG: Final = _Wrong()


class Problems:
    """What is wrong with one JSON value: the first `PROBLEMS_MAX` complaints, and the count of all."""

    def __init__(self) -> None:
        self.first: list[Problem] = []
        self.count = 0

    def add(self, field: str, text: str) -> _Wrong:
        self.count += 1
        if len(self.first) < PROBLEMS_MAX:
            self.first.append(Problem(field, text))
        return WRONG


class Unreadable(Exception):
    """An annotation that no JSON value can be checked against."""


def _kind(value: object) -> str:
    """A JSON value in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "text"
        case int() | float():
            return "a number" if isinstance(value, float) else "an integer"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return type(value).__name__


class Shape(ABC):
    """What one JSON value must look like."""

    words: str
    """As in "expected {words}"."""

    @abstractmethod
    def read(self, value: object, field: str, problems: Problems) -> Any:
        """The Python value, or WRONG after adding to `problems`."""

    @abstractmethod
    def schema(self) -> Schema:
        """JSON Schema, draft 2020-12."""

    def refuse(self, value: object, field: str, problems: Problems) -> _Wrong:
        return problems.add(field, f"expected {self.words}, got {_kind(value)}")


class _Anything(Shape):
    words = "anything"

    def read(self, value: object, field: str, problems: Problems) -> Any:
        return value

    def schema(self) -> Schema:
        return {}


class _Scalar(Shape):
    """Text, an integer, true or false, or null. `bool` is an `int` for Python, but not for JSON."""

    def __init__(self, kind: type, words: str, name: str) -> None:
        self._kind, self.words, self._name = kind, words, name

    def read(self, value: object, field: str, problems: Problems) -> Any:
        return value if type(value) is self._kind else self.refuse(value, field, problems)

    def schema(self) -> Schema:
        return {"type": self._name}


class _Number(Shape):
    words = "a number"

    def read(self, value: object, field: str, problems: Problems) -> Any:
        if type(value) not in (int, float):
            return self.refuse(value, field, problems)
        try:
            number = float(typing.cast(float, value))
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            # Python's JSON reader takes NaN and Infinity, which are no JSON (RFC 8259 section 6).
            return problems.add(field, "expected a finite number")
        return number

    def schema(self) -> Schema:
        return {"type": "number"}


class _Text(Shape):
    """Text with a meaning: read by a constructor that raises ValueError for what it does not know."""

    def __init__(self, make: Callable[[str], Any], words: str, form: str) -> None:
        self._make, self.words, self._form = make, words, form

    def read(self, value: object, field: str, problems: Problems) -> Any:
        if type(value) is not str:
            return self.refuse(value, field, problems)
        try:
            return self._make(value)
        except ValueError:
            return problems.add(field, f"expected {self.words}, got {value!r:.60}")

    def schema(self) -> Schema:
        return {"type": "string", "format": self._form}


class _Choice(Shape):
    """One of a few values: `Literal`, or an enumeration by value."""

    def __init__(self, choices: Sequence[tuple[object, Any]]) -> None:
        self._choices = choices  # JSON value, Python value
        self.words = "one of " + ", ".join(repr(choice) for choice, _ in choices)

    def read(self, value: object, field: str, problems: Problems) -> Any:
        for choice, meaning in self._choices:
            if type(choice) is type(value) and choice == value:
                return meaning
        return problems.add(field, f"expected {self.words}, got {value!r:.60}")

    def schema(self) -> Schema:
        return {"enum": [choice for choice, _ in self._choices]}


class _List(Shape):
    words = "a list"

    def __init__(self, item: Shape, make: Callable[[list[Any]], Any] = list) -> None:
        self._item, self._make = item, make

    def read(self, value: object, field: str, problems: Problems) -> Any:
        if not isinstance(value, list):
            return self.refuse(value, field, problems)
        return self._make([self._item.read(v, f"{field}[{i}]", problems) for i, v in enumerate(value)])

    def schema(self) -> Schema:
        return {"type": "array", "items": self._item.schema()}


class _Dict(Shape):
    words = "an object"

    def __init__(self, item: Shape) -> None:
        self._item = item

    def read(self, value: object, field: str, problems: Problems) -> Any:
        if not isinstance(value, dict):
            return self.refuse(value, field, problems)
        return {key: self._item.read(v, _inside(field, key), problems) for key, v in value.items()}

    def schema(self) -> Schema:
        return {"type": "object", "additionalProperties": self._item.schema()}


class _OneOf(Shape):
    """A union: the first alternative that fits."""

    def __init__(self, alternatives: Sequence[Shape]) -> None:
        self._alternatives = alternatives
        self.words = " or ".join(shape.words for shape in alternatives)

    def read(self, value: object, field: str, problems: Problems) -> Any:
        closest: list[Problem] = []
        for shape in self._alternatives:
            found = Problems()
            read = shape.read(value, field, found)
            if not found.count:
                return read
            # A complaint from inside says that the kind was right: it is the one that helps.
            if any(problem.field != field for problem in found.first):
                closest = found.first
        for problem in closest:
            problems.add(*problem)
        return WRONG if closest else self.refuse(value, field, problems)

    def schema(self) -> Schema:
        return {"anyOf": [shape.schema() for shape in self._alternatives]}


class Field(NamedTuple):
    name: str
    shape: Shape
    required: bool
    default: Any


class Fields(Shape):
    """A JSON object with known keys: a dataclass, or the parameters of a task."""

    words = "an object"

    def __init__(self, fields: Sequence[Field], make: Callable[..., Any], unknown: str) -> None:
        self._fields, self._make, self._unknown = fields, make, unknown
        self._names = frozenset(field.name for field in fields)

    def read(self, value: object, field: str, problems: Problems) -> Any:
        if not isinstance(value, dict):
            return self.refuse(value, field, problems)
        before = problems.count
        read: dict[str, Any] = {}
        for each in self._fields:
            inside = _inside(field, each.name)
            if each.name in value:
                read[each.name] = each.shape.read(value[each.name], inside, problems)
            elif each.required:
                problems.add(inside, f"is missing: expected {each.shape.words}")
        for key in value:
            if key not in self._names:
                problems.add(_inside(field, key), self._unknown)
        if problems.count > before:
            return WRONG
        try:
            return self._make(**read)
        except ValueError as error:  # a dataclass that checks itself, in __post_init__
            return problems.add(field, str(error))

    def schema(self) -> Schema:
        properties: Schema = {}
        for each in self._fields:
            properties[each.name] = each.shape.schema()
            if not each.required and isinstance(each.default, str | int | float | bool | None):
                properties[each.name]["default"] = each.default
        return {
            "type": "object",
            "properties": properties,
            "required": [each.name for each in self._fields if each.required],
            "additionalProperties": False,
        }


def _inside(field: str, key: str) -> str:
    return f"{field}.{key}" if field else key


# ------------------------------------------------------------------------------- annotation -> shape

_SCALARS: Final[Mapping[Any, tuple[str, str]]] = {
    str: ("text", "string"),
    int: ("an integer", "integer"),
    bool: ("true or false", "boolean"),
    types.NoneType: ("null", "null"),
}
_TEXTS: Final[Mapping[Any, tuple[Callable[[str], Any], str, str]]] = {
    Path: (Path, "a path", "path"),
    datetime: (datetime.fromisoformat, "a date and time as in RFC 3339", "date-time"),
    date: (date.fromisoformat, "a date as in RFC 3339", "date"),
}


def shape_of(annotation: Any, depth: int = 0) -> Shape:
    """The shape behind an annotation.

    Raises:
        Unreadable: there is none (a class that JSON does not have, or a type that contains itself).
    """
    if depth > NESTING_MAX:
        raise Unreadable("it is nested too deeply, or contains itself")
    while isinstance(annotation, typing.NewType):
        annotation = annotation.__supertype__
    if annotation in (Any, object, inspect.Parameter.empty):
        return _Anything()
    if annotation is None:
        annotation = types.NoneType
    if annotation is float:
        return _Number()
    if annotation in _SCALARS:
        return _Scalar(annotation, *_SCALARS[annotation])
    if annotation in _TEXTS:
        return _Text(*_TEXTS[annotation])
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _Choice([(member.value, member) for member in annotation])
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return _dataclass_shape(annotation, depth)
    return _generic_shape(annotation, depth)


def _generic_shape(annotation: Any, depth: int) -> Shape:
    origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if origin is typing.Annotated:
        return shape_of(arguments[0], depth)
    if origin in (typing.Union, types.UnionType):
        return _OneOf([shape_of(each, depth + 1) for each in arguments])
    if origin is typing.Literal:
        return _Choice([(each, each) for each in arguments])
    if origin in (list, Sequence):
        return _List(shape_of(arguments[0], depth + 1) if arguments else _Anything())
    if origin is tuple and (not arguments or arguments[-1] is Ellipsis):
        return _List(shape_of(arguments[0], depth + 1) if arguments else _Anything(), tuple)
    if origin in (dict, Mapping):
        key, item = arguments or (str, Any)
        if key is not str:
            raise Unreadable(f"the keys of a JSON object are text, not {key!r}")
        return _Dict(shape_of(item, depth + 1))
    raise Unreadable(f"JSON has nothing for {annotation!r}")


def _dataclass_shape(cls: type[Any], depth: int) -> Shape:
    hints = typing.get_type_hints(cls)
    fields = []
    for each in dataclasses.fields(cls):
        if not each.init:
            continue
        has_factory = each.default_factory is not dataclasses.MISSING
        required = each.default is dataclasses.MISSING and not has_factory
        default = inspect.Parameter.empty if required or has_factory else each.default
        try:
            shape = shape_of(hints[each.name], depth + 1)
        except Unreadable as error:
            raise Unreadable(f"{cls.__name__}.{each.name}: {error}") from error
        fields.append(Field(each.name, shape, required, default))
    return Fields(fields, cls, f"is no field of {cls.__name__}")


def parameters_of(function: Callable[..., Any], injected: type) -> tuple[Fields, str | None]:
    """The shape of a function's JSON arguments, and the parameter (if any) that wants an `injected`.

    Raises:
        Unreadable: a parameter cannot be given by name, or its annotation is no JSON.
    """
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise Unreadable(f"its annotations cannot be evaluated: {error}") from error
    fields, wants = [], None
    for name, parameter in inspect.signature(function).parameters.items():
        if hints.get(name) is injected:
            wants = name
            continue
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise Unreadable(f"parameter {name!r}: parameters are given by name, one JSON key each")
        required = parameter.default is parameter.empty
        try:
            shape = shape_of(hints.get(name, Any))
        except Unreadable as error:
            raise Unreadable(f"parameter {name!r}: {error}") from error
        fields.append(Field(name, shape, required, parameter.default))
    return Fields(fields, dict, "is no parameter of this task"), wants
