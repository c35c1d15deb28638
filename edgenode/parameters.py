"""From a function's annotations: what its JSON arguments must look like, as a check and as a JSON Schema.

Each annotation becomes a `Shape`, once, when a task is loaded. A shape reads a JSON value into the Python
value the task wants, and collects every problem with the name of the field it is about (`items[3].name`).
Reading is strict: JSON says what is text and what is a number, so nothing is guessed or converted.
A schema becomes shapes again where the function is not known, and these have the same complaints.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import operator
import re
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

PROBLEMS_MAX: Final = 20
"""More than anybody reads; a list of a million wrong items must not make a megabyte of complaints."""
NESTING_MAX: Final = 32
REFUSAL_CHARS_MAX: Final = 300
"""Of what a task's own code says of a value, or of an annotation."""

Schema = dict[str, Any]


class Problem(NamedTuple):
    field: str
    text: str
    is_of_kind: bool = (
        False  # the value is another kind of thing than was expected, not a wrong one of its kind
    )


class _Wrong:
    """What `read` returns after it noted a problem; no task ever sees it."""


WRONG: Final = _Wrong()


class Problems:
    """What is wrong with one JSON value. When it `is_full`, no shape reads on: there may be more."""

    def __init__(self, most: int = PROBLEMS_MAX) -> None:
        self.found: list[Problem] = []
        self.most = most
        self.is_full = False

    def add(self, field: str, text: str, is_of_kind: bool = False) -> _Wrong:
        self.found.append(Problem(field, text, is_of_kind))
        self.is_full = len(self.found) >= self.most
        return WRONG

    @property
    def count(self) -> int:
        return len(self.found)


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
        return problems.add(field, f"expected {self.words}, got {_kind(value)}", is_of_kind=True)


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
        is_of_kind = all(type(choice) is not type(value) for choice, _ in self._choices)
        return problems.add(field, f"expected {self.words}, got {value!r:.60}", is_of_kind)

    def schema(self) -> Schema:
        return {"enum": [choice for choice, _ in self._choices]}


class _List(Shape):
    words = "a list"

    def __init__(self, item: Shape, make: Callable[[list[Any]], Any] = list) -> None:
        self._item, self._make = item, make

    def read(self, value: object, field: str, problems: Problems) -> Any:
        if not isinstance(value, list):
            return self.refuse(value, field, problems)
        read = []
        for i, v in enumerate(value):
            read.append(self._item.read(v, f"{field}[{i}]", problems))
            if problems.is_full:
                return WRONG
        return self._make(read)

    def schema(self) -> Schema:
        return {"type": "array", "items": self._item.schema()}


class _Set(_List):
    """A list in which nothing comes twice."""

    def __init__(self, item: Shape, make: Callable[[list[Any]], Any]) -> None:
        super().__init__(item)
        self._make_set = make

    def read(self, value: object, field: str, problems: Problems) -> Any:
        before = problems.count
        read = super().read(value, field, problems)
        if problems.count > before or not isinstance(value, list):
            return WRONG
        try:
            made = self._make_set(read)
        except TypeError:
            return problems.add(field, "expected values that can be in a set, so no lists and no objects")
        if len(made) < len(value):
            return problems.add(field, "expected each value once")
        return made

    def schema(self) -> Schema:
        return super().schema() | {"uniqueItems": True}


class _Tuple(Shape):
    """A list of a fixed length, each place with a shape of its own."""

    def __init__(self, items: Sequence[Shape]) -> None:
        self._items = items
        self.length = len(items)
        self.words = f"a list of {len(items)}"

    def read(self, value: object, field: str, problems: Problems) -> Any:
        if not isinstance(value, list):
            return self.refuse(value, field, problems)
        if len(value) != len(self._items):
            return problems.add(field, f"expected {self.words}, got {len(value)}")
        read = []
        for i, (shape, v) in enumerate(zip(self._items, value, strict=True)):
            read.append(shape.read(v, f"{field}[{i}]", problems))
            if problems.is_full:
                return WRONG
        return tuple(read)

    def schema(self) -> Schema:
        return {
            "type": "array",
            "prefixItems": [shape.schema() for shape in self._items],
            "minItems": len(self._items),
            "maxItems": len(self._items),
        }


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Narrows a parameter: `width: Annotated[int, Bounds(ge=1, le=4096)]`. What is None does not count. Of a
    union it narrows the alternatives that have what it bounds: a size, or a length.

    Objects of other libraries do as well, if they have these attributes (`annotated_types` has).
    """

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    multiple_of: float | None = None
    min_length: int | None = None  # of text, lists and objects
    max_length: int | None = None


class _Bounded(Shape):
    """Another shape, and what must hold of those of its values that have what is bounded."""

    def __init__(self, shape: Shape, bounds: Mapping[str, Any]) -> None:
        self._shape, self._bounds = shape, bounds
        self.words = f"{shape.words} ({', '.join(_BOUNDS[name].words(to) for name, to in bounds.items())})"

    def read(self, value: object, field: str, problems: Problems) -> Any:
        before = problems.count
        read = self._shape.read(value, field, problems)
        if problems.count > before:
            return read
        try:
            kept = all(_BOUNDS[name].holds(value, to) for name, to in self._bounds.items())
        except (OverflowError, ValueError):
            kept = False  # an integer that no float comes near, or NaN
        return read if kept else problems.add(field, f"expected {self.words}, got {value!r:.60}")

    def schema(self) -> Schema:
        schema = self._shape.schema()
        said = [(keyword, to) for name, to in self._bounds.items() for keyword in _keywords(name, schema)]
        return schema | dict(said)


class _Bound(NamedTuple):
    keyword: str  # of JSON Schema; with the suffix of `_LENGTHS` if it is about a length
    text: str
    kept: Callable[[Any, Any], bool]
    is_length: bool = False

    def words(self, to: object) -> str:
        return f"{self.text} {to}"

    def holds(self, value: object, to: object) -> bool:
        is_bounded = isinstance(value, str | list | dict) if self.is_length else type(value) in (int, float)
        return not is_bounded or self.kept(value, to)


def _is_multiple(value: float, of: float) -> bool:
    """Of integers it is exact; 0.3 is a multiple of 0.1, which no binary fraction is."""
    if isinstance(value, int) and isinstance(of, int):
        return value % of == 0
    return math.isclose(value, round(value / of) * of, rel_tol=1e-12)


_BOUNDS: Final[Mapping[str, _Bound]] = {
    "ge": _Bound("minimum", "at least", operator.ge),
    "gt": _Bound("exclusiveMinimum", "above", operator.gt),
    "le": _Bound("maximum", "at most", operator.le),
    "lt": _Bound("exclusiveMaximum", "below", operator.lt),
    "multiple_of": _Bound("multipleOf", "a multiple of", _is_multiple),
    "min_length": _Bound("min", "with a length of at least", lambda value, to: len(value) >= to, True),
    "max_length": _Bound("max", "with a length of at most", lambda value, to: len(value) <= to, True),
}
_LENGTHS: Final[Mapping[str, str]] = {"string": "Length", "array": "Items", "object": "Properties"}
_NUMBERS: Final = ("integer", "number")


def _keywords(name: str, schema: Schema) -> list[str]:
    """What says this bound of the values of a schema: nothing, if they have not what it bounds."""
    bound = _BOUNDS[name]
    kinds: Sequence[object] = (*_LENGTHS, *_NUMBERS)
    if "type" in schema:
        kinds = [schema["type"]]
    elif "enum" in schema:
        kinds = [_KINDS.get(type(choice)) for choice in schema["enum"]]
    if bound.is_length:
        return [bound.keyword + suffix for kind, suffix in _LENGTHS.items() if kind in kinds]
    return [bound.keyword] if any(kind in kinds for kind in _NUMBERS) else []


def _bounded(shape: Shape, bounds: Mapping[str, Any]) -> Shape:
    """The shape, within those of the bounds that say anything of it: of a union, of each alternative."""
    if isinstance(shape, _OneOf):
        return _OneOf([_bounded(each, bounds) for each in shape.alternatives])
    schema = shape.schema()
    # The length of a tuple is said in the words of bounds.
    length = shape.length if isinstance(shape, _Tuple) else None
    fitting = {name: to for name, to in bounds.items() if _keywords(name, schema) and to != length}
    return _Bounded(shape, fitting) if fitting else shape


class _Dict(Shape):
    words = "an object"

    def __init__(self, item: Shape) -> None:
        self._item = item

    def read(self, value: object, field: str, problems: Problems) -> Any:
        if not isinstance(value, dict):
            return self.refuse(value, field, problems)
        read = {}
        for key, v in value.items():
            read[key] = self._item.read(v, _inside(field, key), problems)
            if problems.is_full:
                return WRONG
        return read

    def schema(self) -> Schema:
        return {"type": "object", "additionalProperties": self._item.schema()}


class _OneOf(Shape):
    """A union: the first alternative that fits."""

    def __init__(self, alternatives: Sequence[Shape]) -> None:
        self.alternatives = alternatives
        self.words = " or ".join(shape.words for shape in alternatives)

    def read(self, value: object, field: str, problems: Problems) -> Any:
        close: list[list[Problem]] = []
        for shape in self.alternatives:
            tried = Problems(problems.most - problems.count)
            read = shape.read(value, field, tried)
            if not tried.found:
                return read
            if not any(problem.field == field and problem.is_of_kind for problem in tried.found):
                close.append(tried.found)
        # Where the kind was right the complaint is the one that helps, and most if it is about the inside.
        inside = [found for found in close if any(problem.field != field for problem in found)]
        if not inside and len(close) != 1:
            return self.refuse(value, field, problems)
        for problem in (inside or close)[-1]:
            problems.add(*problem)
        return WRONG

    def schema(self) -> Schema:
        return {"anyOf": [shape.schema() for shape in self.alternatives]}


class Field(NamedTuple):
    name: str
    shape: Shape
    required: bool
    default: Any


class Fields(Shape):
    """A JSON object with known keys: a dataclass, or the parameters of a task."""

    words = "an object"

    def __init__(self, fields: Sequence[Field], make: Callable[..., Any], title: str = "") -> None:
        """
        Args:
            title: the name of its class; parameters have none.
        """
        self._fields, self._make, self._title = fields, make, title
        self._unknown = f"is no field of {title}" if title else "is no parameter of this task"
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
                wanted = "" if isinstance(each.shape, _Anything) else f": expected {each.shape.words}"
                problems.add(inside, f"is missing{wanted}")
            if problems.is_full:
                return WRONG
        for key in value:
            if key not in self._names:
                problems.add(_inside(field, key), self._unknown)
                if problems.is_full:
                    return WRONG
        if problems.count > before:
            return WRONG
        try:
            return self._make(**read)
        except Exception as error:  # noqa: BLE001 - a dataclass that checks itself, in __post_init__
            return problems.add(field, _refusal_of(error))

    def schema(self) -> Schema:
        properties: Schema = {}
        for each in self._fields:
            properties[each.name] = each.shape.schema()
            default = each.default.value if isinstance(each.default, Enum) else each.default
            if not each.required and _is_json(default):
                properties[each.name]["default"] = default
        title = {"title": self._title} if self._title else {}
        return title | {
            "type": "object",
            "properties": properties,
            "required": [each.name for each in self._fields if each.required],
            "additionalProperties": False,
        }


def _inside(field: str, key: str) -> str:
    return f"{field}.{key}" if field else key


def _is_json(value: object) -> bool:
    """Whether JSON has this value, as a scalar: it has no infinity, and nothing that is not a number."""
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)


def _refusal_of(error: Exception) -> str:
    """Why a class takes no such values: a ValueError says it in words of its own, anything else is named."""
    named, kind = _why(error), type(error).__name__
    return named.removeprefix(f"{kind}: ") if isinstance(error, ValueError) else named


def _why(error: Exception) -> str:
    """What user code raised, in a few words; to ask for its text can fail, too."""
    try:
        text = str(error)[:REFUSAL_CHARS_MAX]
    except Exception as another:  # noqa: BLE001 - around user code
        text = f"({type(another).__name__} when asked for its text)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# ------------------------------------------------------------------------------- annotation -> shape

_SCALARS: Final[Mapping[Any, tuple[str, str]]] = {
    str: ("text", "string"),
    int: ("an integer", "integer"),
    bool: ("true or false", "boolean"),
    types.NoneType: ("null", "null"),
}


def _written_as(form: str, make: Callable[[str], Any]) -> Callable[[str], Any]:
    """`make`, but of text in this form only: Python reads more than the format says that schemas name."""
    pattern = re.compile(form, re.ASCII | re.IGNORECASE)

    def made(text: str) -> Any:
        if pattern.fullmatch(text) is None:
            raise ValueError(text)
        return make(text.upper())

    return made


# RFC 3339 section 5.6; the zone and the seconds may be left out.
_DATE: Final = r"\d{4}-\d\d-\d\d"
_TIME: Final = r"([01]\d|2[0-3]):\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?"
_KINDS: Final[Mapping[type, str]] = {kind: name for kind, (_, name) in _SCALARS.items()} | {float: "number"}
_TEXTS: Final[Mapping[Any, tuple[Callable[[str], Any], str, str]]] = {
    Path: (Path, "a path", "path"),
    datetime: (
        _written_as(f"{_DATE}[T ]{_TIME}", datetime.fromisoformat),
        "a date and time as in RFC 3339",
        "date-time",
    ),
    date: (_written_as(_DATE, date.fromisoformat), "a date as in RFC 3339", "date"),
    time: (_written_as(_TIME, time.fromisoformat), "a time as in RFC 3339", "time"),
    UUID: (_written_as("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", UUID), "a UUID", "uuid"),
}


def shape_of(annotation: Any, within: tuple[Any, ...] = ()) -> Shape:
    """The shape behind an annotation.

    Args:
        within: the annotations that it is a part of, the outermost first.

    Raises:
        Unreadable: there is none (a class that JSON does not have, or a type that contains itself).
    """
    if isinstance(annotation, type) and any(annotation is each for each in within):
        raise Unreadable(f"{annotation.__name__} contains itself")
    if len(within) > NESTING_MAX:
        raise Unreadable("it is nested too deeply")
    while isinstance(annotation, typing.NewType):
        annotation = annotation.__supertype__
    if typing.get_origin(annotation) is not None:
        return _generic_shape(annotation, within)  # before any look-up: what metadata hold may have no hash
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
        return _choice([(member.value, member) for member in annotation])
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return _dataclass_shape(annotation, within)
    if typing.is_typeddict(annotation):
        return _typed_dict_shape(annotation, within)
    return _generic_shape(annotation, within)


def _generic_shape(annotation: Any, within: tuple[Any, ...]) -> Shape:
    inner = (*within, annotation)
    origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if origin is typing.Annotated:
        return _annotated_shape(arguments, within)
    if origin in (typing.Required, typing.NotRequired):
        return shape_of(arguments[0], within)
    if origin in (typing.Union, types.UnionType):
        return _OneOf([shape_of(each, inner) for each in arguments])
    if origin is typing.Literal:
        return _choice([(each.value if isinstance(each, Enum) else each, each) for each in arguments])
    if origin in (list, Sequence):
        return _List(shape_of(arguments[0], inner) if arguments else _Anything())
    if origin is tuple and (not arguments or arguments[-1] is Ellipsis):
        return _List(shape_of(arguments[0], inner) if arguments else _Anything(), tuple)
    if origin is tuple:
        return _Tuple([shape_of(each, inner) for each in arguments])
    if origin in (set, frozenset):
        return _Set(shape_of(arguments[0], inner) if arguments else _Anything(), origin)
    if origin in (dict, Mapping):
        key, item = arguments or (str, Any)
        if key is not str:
            raise Unreadable(f"the keys of a JSON object are text, not {key!r}")
        return _Dict(shape_of(item, inner))
    raise Unreadable(f"JSON has nothing for {annotation!r}{_ADVICE.get(annotation, '')}")


_ADVICE: Final[Mapping[Any, str]] = {
    bytes: ": take text in base64 (`str`), or the path of a file (`Path`)",
    timedelta: ": take a number of seconds (`float`)",
    complex: ": take two numbers (`tuple[float, float]`)",
}


def _choice(choices: Sequence[tuple[object, Any]]) -> Shape:
    for choice, _ in choices:
        if not _is_json(choice):
            raise Unreadable(f"JSON has no value {choice!r}")
    return _Choice(choices)


def _annotated_shape(arguments: tuple[Any, ...], within: tuple[Any, ...]) -> Shape:
    """What is annotated, within the bounds that its metadata name; the rest of them says nothing here."""
    shape = shape_of(arguments[0], within)
    bounds = {
        name: bound
        for each in arguments[1:]
        for name in _BOUNDS
        if isinstance(bound := getattr(each, name, None), int | float)
    }
    for name, bound in bounds.items():
        if not _can_hold(name, bound):
            raise Unreadable(f"no value can keep the bound {name}={bound}")
        if not _says(name, shape):
            raise Unreadable(f"the bound {name}={bound} says nothing of {shape.words}")
    return _bounded(shape, bounds)


def _says(name: str, shape: Shape) -> bool:
    """Whether a bound of this name is one of some value of a shape."""
    if isinstance(shape, _OneOf):
        return any(_says(name, each) for each in shape.alternatives)
    return bool(_keywords(name, shape.schema()))


def _can_hold(name: str, bound: float) -> bool:
    """Whether there is a value within this bound; JSON cannot say it of one that is not finite."""
    if isinstance(bound, float) and not math.isfinite(bound):
        return False
    return bound > 0 if name == "multiple_of" else bound >= 0 or name != "max_length"


def _hints_of(cls: type[Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception as error:  # user code is run: whatever it raises
        raise Unreadable(f"the annotations of {cls.__name__} cannot be evaluated: {_why(error)}") from error


def _typed_dict_shape(cls: type[Any], within: tuple[Any, ...]) -> Shape:
    required_keys: frozenset[str] = getattr(cls, "__required_keys__", frozenset())
    fields = []
    for name, hint in _hints_of(cls).items():
        try:
            shape = shape_of(hint, (*within, cls))
        except Unreadable as error:
            raise Unreadable(f"{cls.__name__}.{name}: {error}") from error
        # The class does not know this of annotations that are text (PEP 655, "Interaction with PEP 563").
        said = typing.get_origin(hint)
        required = said is typing.Required or (name in required_keys and said is not typing.NotRequired)
        fields.append(Field(name, shape, required, inspect.Parameter.empty))
    return Fields(fields, dict, cls.__name__)


def _dataclass_shape(cls: type[Any], within: tuple[Any, ...]) -> Shape:
    hints = _hints_of(cls)
    fields = []
    for each in _init_fields(cls, hints):
        has_factory = each.default_factory is not dataclasses.MISSING
        required = each.default is dataclasses.MISSING and not has_factory
        default = inspect.Parameter.empty if required or has_factory else each.default
        try:
            shape = shape_of(hints[each.name], (*within, cls))
        except Unreadable as error:
            raise Unreadable(f"{cls.__name__}.{each.name}: {error}") from error
        fields.append(Field(each.name, shape, required, default))
    return Fields(fields, cls, cls.__name__)


def _init_fields(cls: type[Any], hints: dict[str, Any]) -> Iterator[dataclasses.Field[Any]]:
    """What its `__init__` takes; `hints` get the types of those that only `__post_init__` sees."""
    kept = {each.name for each in dataclasses.fields(cls)}
    for each in cls.__dataclass_fields__.values():
        hint = hints[each.name]
        if each.name in kept:
            if each.init:
                yield each
        elif hint is dataclasses.InitVar or isinstance(hint, dataclasses.InitVar):  # else of the class itself
            hints[each.name] = getattr(hint, "type", Any)
            yield each


def parameters_of(function: Callable[..., Any], injected: type) -> tuple[Fields, str | None]:
    """The shape of a function's JSON arguments, and the parameter (if any) that wants an `injected`.

    Raises:
        Unreadable: a parameter cannot be given by name, or its annotation is no JSON.
    """
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # user code is run: whatever it raises
        raise Unreadable(f"its annotations cannot be evaluated: {_why(error)}") from error
    fields, wants = [], None
    for name, parameter in inspect.signature(function).parameters.items():
        if hints.get(name) is injected:
            wants = name
            continue
        if name == "ctx" and name not in hints:
            raise Unreadable(
                f"parameter 'ctx': for the context of its start write `ctx: {injected.__name__}`"
            )
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise Unreadable(f"parameter {name!r}: parameters are given by name, one JSON key each")
        required = parameter.default is parameter.empty
        try:
            shape = shape_of(hints.get(name, Any))
        except Unreadable as error:
            raise Unreadable(f"parameter {name!r}: {error}") from error
        if not required and (text := _misfit(shape, parameter.default)):
            raise Unreadable(f"parameter {name!r}: its default does not fit its annotation: {text}")
        fields.append(Field(name, shape, required, parameter.default))
    return Fields(fields, dict), wants


class _Untold(Exception):
    """A value of which cannot be told what JSON would have made it."""


def _misfit(shape: Shape, default: object) -> str | None:
    """Why no payload could say what a default is; None if one could, or if that cannot be told."""
    problems = Problems(1)
    try:
        shape.read(_json_of(default), "", problems)
    except _Untold:
        return None
    return problems.found[0].text if problems.found else None


def _json_of(value: object) -> object:
    """The JSON of a default; what has none stays as it is, and fits `Any` alone.

    Raises:
        _Untold: it holds a dataclass, which does not keep all that made it, or a number that JSON has not.
    """
    match value:
        case Enum():
            return _json_of(value.value)
        case float() if not math.isfinite(value):
            raise _Untold
        case Path() | UUID():
            return str(value)
        case date() | time():
            return value.isoformat()
        case list() | tuple() | set() | frozenset():
            return [_json_of(each) for each in value]
        case dict():
            return {key: _json_of(each) for key, each in value.items()}
    if dataclasses.is_dataclass(value):
        raise _Untold
    return value


# ----------------------------------------------------------------------------------- schema -> shape

_NAMED: Final[Mapping[str, Shape]] = {
    name: _Scalar(kind, words, name) for kind, (words, name) in _SCALARS.items()
} | {"number": _Number()}
_FORMS: Final[Mapping[str, Shape]] = {form: _Text(make, words, form) for make, words, form in _TEXTS.values()}
_KEYWORDS: Final[Mapping[str, str]] = {
    bound.keyword + suffix: name
    for name, bound in _BOUNDS.items()
    for suffix in (_LENGTHS.values() if bound.is_length else ("",))
}


def parameters_in(schema: object) -> Fields | None:
    """What reads the payload that a task's `schema` describes, with the complaints of the task itself; None
    if it describes none.

    The schema is one that shapes made. What it does not say, since only the task's own classes know it, is
    not checked, and neither is a keyword that a later version may have made: what the task would take is
    never refused. What is read is of no use but for its problems.
    """
    found = _shape_in(schema, 0, is_top=True)
    return found if isinstance(found, Fields) else None


def _shape_in(schema: object, depth: int, *, is_top: bool = False) -> Shape:
    if not isinstance(schema, dict) or depth > NESTING_MAX + 1:  # the parameters themselves
        return _Anything()
    shape = _unbounded_in(schema, depth, is_top=is_top)
    bounds = {
        _KEYWORDS[keyword]: bound
        for keyword, bound in schema.items()
        if keyword in _KEYWORDS and type(bound) in (int, float) and _can_hold(_KEYWORDS[keyword], bound)
    }
    return _bounded(shape, bounds)


def _unbounded_in(schema: Schema, depth: int, *, is_top: bool) -> Shape:
    """The shape without what `Bounds` say."""
    inner = depth + 1
    match schema:
        case {"anyOf": [_, *_] as alternatives}:
            return _OneOf([_shape_in(each, inner) for each in alternatives])
        case {"enum": [_, *_] as choices}:
            return _Choice([(choice, choice) for choice in choices])
        case {"prefixItems": [*items]}:
            return _Tuple([_shape_in(each, inner) for each in items])
        case {"type": "array", "uniqueItems": True, "items": item}:
            return _Set(_shape_in(item, inner), frozenset)
        case {"type": "array", "items": item}:
            return _List(_shape_in(item, inner), tuple)  # of all kinds of lists the one that a set takes
        case {"type": "object", "properties": dict() as properties, "required": [*required]}:
            title = "" if is_top else str(schema.get("title", ""))
            fields = [
                Field(name, _shape_in(each, inner), name in required, inspect.Parameter.empty)
                for name, each in properties.items()
            ]
            # Whether two of them are equal, and may be in one set, is for their class to say.
            return Fields(fields, lambda **read: object(), title)
        case {"type": "object", "additionalProperties": item}:
            return _Dict(_shape_in(item, inner))
        case {"type": "string", "format": str() as form} if form in _FORMS:
            return _FORMS[form]
        case {"type": str() as name} if name in _NAMED:
            return _NAMED[name]
    return _Anything()
