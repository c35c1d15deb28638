"""What a task is to the people who write them: a function, its parameters, and what it may say.

    from edgenode import JobContext, task

    @task("image.resize", timeout_s=30, max_attempts=3)
    def resize(source: str, width: int, ctx: JobContext) -> dict: ...

A job's payload is a JSON object whose keys are the parameters; its result is what the function returns, as
JSON. Nothing is registered anywhere by being imported: `load_tasks` looks into the modules it is told.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import json
import math
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, time
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple, NoReturn, TypeVar
from uuid import UUID
from zlib import crc32

from edgenode.core.bounds import PARTIAL_BYTES_MAX
from edgenode.core.errors import EdgeNodeError, InvalidJob
from edgenode.core.types import ATTEMPTS_MAX, BACKOFFS, FAR_S, Backoff
from edgenode.parameters import Fields, Problems, Schema, Unreadable, parameters_of

RESULT_BYTES_MAX: Final = 1024 * 1024
"""A result is copied to every holder of its job. Larger things belong in a file that the result names."""
TOLD: Final = 3
"""Complaints about a payload that are told in one sentence; `errors` has more of them."""
MARK: Final = "__edgenode_task__"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
Function = TypeVar("Function", bound=Callable[..., Any])


# ---------------------------------------------------------------------------------- what a task may say


class TaskVerdict(Exception):
    """Base of what a task raises or returns, which is the same, to end its start in a way of its own.

    A reason is kept as its text: the exception that was caught will do.
    """

    def __init__(self, reason: object) -> None:
        super().__init__(reason)
        self.reason = str(reason)


_ASKED: Final = "the task asked to be tried again"


class Retry(TaskVerdict):
    """Try again: in `after_s` seconds, or after the job's own backoff. Counts as a failed attempt.

    Args:
        reason: a number is no reason, but the seconds: `Retry(30)` is `Retry(after_s=30)`.

    Raises:
        ValueError: `after_s` is not from 0 to ten years.
    """

    def __init__(self, reason: object = _ASKED, *, after_s: float | None = None) -> None:
        if after_s is None and isinstance(reason, int | float) and not isinstance(reason, bool):
            after_s, reason = reason, _ASKED
        if after_s is not None and not 0 <= after_s <= FAR_S:  # nor is NaN
            raise ValueError(f"after_s is from 0 to {FAR_S:.0f} seconds, not {after_s!r:.40}")
        super().__init__(reason)
        self.after_s = None if after_s is None else float(after_s)


class Cancel(TaskVerdict):
    """End the job as `cancelled`."""

    def __init__(self, reason: object = "the task cancelled itself") -> None:
        super().__init__(reason)


class Fail(TaskVerdict):
    """End the job as `failed`, now: further attempts would fail in the same way."""


class Unserialisable(ValueError):
    """A task returned something that is no JSON, or too much of it."""


def encode_partial(value: object) -> bytes:
    """A partial result as JSON in UTF-8.

    Raises:
        Unserialisable: it is not JSON, or too large.
    """
    encoded = encode_result(value)
    if len(encoded) > PARTIAL_BYTES_MAX:
        raise Unserialisable(f"the partial result has {len(encoded)} bytes, the limit is {PARTIAL_BYTES_MAX}")
    return encoded


def encode_result(value: object) -> bytes:
    """A task's return value as JSON in UTF-8.

    Raises:
        Unserialisable: it is not JSON (nor a dataclass, path, date or enumeration), or too large.
    """
    try:
        encoded = _ENCODER.encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Unserialisable(f"the result is not JSON: {error}") from error
    if len(encoded) > RESULT_BYTES_MAX:
        raise Unserialisable(
            f"the result has {len(encoded)} bytes, the limit is {RESULT_BYTES_MAX}: "
            "write it to a file, and return the file's name"
        )
    return encoded


def encode_returned(value: object) -> bytes:
    """What a task returned, as the result of its job: JSON in UTF-8.

    Raises:
        Retry, Cancel, Fail: it returned that, the object or the class. To return one is to raise it.
        Unserialisable: as `encode_result`.
    """
    if isinstance(value, type) and issubclass(value, TaskVerdict):
        raise value
    if isinstance(value, TaskVerdict):
        # A module may return one object again and again: it would keep the frames of all those times.
        raise value.with_traceback(None)
    return encode_result(value)


def _as_json(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} has no JSON form")


# Made once: `json.dumps` would make one for each result.
_ENCODER: Final = json.JSONEncoder(
    default=_as_json, allow_nan=False, ensure_ascii=False, separators=(",", ":")
)


# ------------------------------------------------------------------------------------------- the context


class Fence(NamedTuple):
    """The fencing token of one start: hand it to whatever the task changes, and let that refuse older ones.

    As text it has a fixed width, and so sorts as the tuple does.
    """

    term: int
    owner: str
    start: int

    def __str__(self) -> str:
        return f"{self.term:08d}-{self.owner}-{self.start:06d}"


class JobContext:
    """This start of this job, for a task that has a parameter annotated with `JobContext`."""

    def __init__(
        self,
        *,
        job_id: str,
        attempt: int,
        fence: Fence,
        tmp: Path,
        is_cancelled: Callable[[], bool],
        on_progress: Callable[[float, str], None],
        on_log: Callable[[str], None],
        on_partial: Callable[[bytes], None] = lambda encoded: None,
    ) -> None:
        self.job_id = job_id
        self.attempt = attempt  # 1 for the first
        self.fence = fence
        self._tmp = tmp
        self._is_cancelled = is_cancelled
        self._on_progress = on_progress
        self._on_log = on_log
        self._on_partial = on_partial

    @property
    def cancelled(self) -> bool:
        """Whether somebody wants this start to end; it is killed if it has not by 2 s later."""
        return self._is_cancelled()

    @property
    def tmp(self) -> Path:
        """A folder for this start alone, empty at first, deleted when the start has ended."""
        self._tmp.mkdir(parents=True, exist_ok=True)
        return self._tmp

    def progress(self, fraction: float, message: str = "") -> None:
        """Say how far the work is, from 0 to 1; NaN (of nothing nothing is done) counts as 0. Cheap: what
        comes too often is dropped."""
        done = float(fraction)
        self._on_progress(0.0 if math.isnan(done) else min(max(done, 0.0), 1.0), message)

    def partial(self, value: Any) -> None:
        """Show this as the job's `partial` until it has a result: JSON as a result is, up to 64 KiB. It takes
        the place of the one before. Cheap as `progress` is.

        Raises:
            Unserialisable: it is not JSON, or too large.
        """
        self._on_partial(encode_partial(value))

    def log(self, text: str) -> None:
        """Add a line to the job's log."""
        self._on_log(text)


# ---------------------------------------------------------------------------------------------- a task


class Task:
    """A function that jobs can name."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        timeout_s: float,
        max_attempts: int,
        backoff: Backoff | None,
        inline: bool,
    ) -> None:
        self.name = name
        self.function = function
        self.timeout_s = timeout_s  # 0: none
        self.max_attempts = max_attempts  # 0: the submission's default
        self.backoff = backoff  # None: the submission's default
        self.inline = inline
        self.is_async = inspect.iscoroutinefunction(function)
        self.summary = (inspect.getdoc(function) or "").partition("\n")[0]
        self._parameters: tuple[Fields, str | None] | None = None

    @property
    def place(self) -> str:
        """Where it is defined, for messages."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    def resolve(self) -> tuple[Fields, str | None]:
        """Its parameters, and the name of the one that wants the context.

        Not read by the decorator, since an annotation may name a class that comes later in the file.

        Raises:
            TaskLoadError: the parameters cannot be given as JSON.
        """
        if self._parameters is None:
            try:
                self._parameters = parameters_of(self.function, JobContext)
            except Unreadable as error:
                raise TaskLoadError(f"task {self.name!r} ({self.place}): {error}") from error
        return self._parameters

    def read(self, payload: object) -> dict[str, Any]:
        """The keyword arguments in a payload.

        Raises:
            InvalidJob: a parameter is unknown, missing or of another type; `context["field"]` names the
                first, `context["errors"]` all.
        """
        read: dict[str, Any] = read_payload(self.name, self.resolve()[0], payload)
        return read

    @property
    def wants_context(self) -> bool:
        """Whether it has a parameter for the context of its start."""
        return self.resolve()[1] is not None

    def call(self, payload: object, context: JobContext | None) -> Any:
        """The function's return value: a coroutine, if it is `async`.

        Args:
            context: None will do for a task that does not want one.
        """
        arguments = self.read(payload)
        wants = self.resolve()[1]
        if wants is not None:
            arguments[wants] = context
        return self.function(**arguments)

    def schema(self) -> Schema:
        """JSON Schema (draft 2020-12) of its payload."""
        return {"title": self.name, "description": self.summary} | self.resolve()[0].schema()


def read_payload(name: str, parameters: Fields, payload: object) -> Any:
    """What the parameters of the task of that name make of a payload.

    Raises:
        InvalidJob: as `Task.read` says.
    """
    problems = Problems()
    read = parameters.read(payload, "", problems)
    if problems.found:
        _refuse(name, problems)
    return read


def _refuse(name: str, problems: Problems) -> NoReturn:
    # Several at once: a parameter that is missing and one that is unknown are often one that was misspelt.
    told = "; ".join(f"{each.field or 'payload'}: {each.text}" for each in problems.found[:TOLD])
    at_least = "at least " if problems.is_full else ""
    more = f" (and {at_least}{problems.count - TOLD} more)" if problems.count > TOLD else ""
    raise InvalidJob(
        f"{name}: {told}{more}",
        field=problems.found[0].field or "payload",
        errors=[{"field": each.field or "payload", "message": each.text} for each in problems.found],
    )


def task(
    name: str,
    *,
    timeout_s: float = 0.0,
    max_attempts: int | None = None,
    backoff: Backoff | None = None,
    inline: bool = False,
) -> Callable[[Function], Function]:
    """Make a function a task; the function itself stays as it is, and can be called as before.

    Args:
        name: what jobs call it; letters, digits, dots, dashes and underscores.
        timeout_s: how long one start may take, if the job does not say; at most ten years, 0 for ever.
        max_attempts: how often it is tried, if the job does not say, from 1 to 64; None: as the mesh does.
        backoff: how long to wait after a failed attempt, if the job does not say; None: as the mesh does.
        inline: it is a coroutine that takes microseconds and never blocks: it runs in the node itself.
    """
    if not isinstance(name, str):
        raise TypeError('a task has a name: write @task("image.resize")')
    if NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no task name: letters, digits, '.', '-' and '_', at most 128")
    if not 0 <= timeout_s <= FAR_S:  # nor is NaN
        raise ValueError(f"timeout_s is from 0 (for ever) to {FAR_S:.0f} seconds, not {timeout_s!r:.40}")
    if max_attempts is not None and not 1 <= max_attempts <= ATTEMPTS_MAX:
        text = f"max_attempts is from 1 to {ATTEMPTS_MAX}, not {max_attempts!r:.40}"
        raise ValueError(f"{text}: leave it out for the mesh's default")
    if backoff is not None and not isinstance(backoff, Backoff):
        raise TypeError(f'a backoff is like Backoff("exponential", base_s=1.0), not {backoff!r:.40}')
    if backoff is not None and backoff.kind not in BACKOFFS:
        raise ValueError(f"a backoff is one of {', '.join(BACKOFFS)}, not {backoff.kind!r}")
    if backoff is not None and not 0 <= backoff.base_s <= backoff.cap_s < math.inf:
        raise ValueError("of a backoff, base_s cannot be negative, nor more than cap_s, and that is finite")

    def mark(function: Function) -> Function:
        is_class = inspect.isclass(function)
        if is_class or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            kind = "class" if is_class else "generator"
            text = f"{function.__module__}.{function.__qualname__} is a {kind}"
            raise TypeError(f"{text}: a task is a function that returns its result (`def` or `async def`)")
        made = Task(
            name,
            function,
            timeout_s=timeout_s,
            max_attempts=max_attempts or 0,
            backoff=backoff,
            inline=inline,
        )
        if inline and not made.is_async:
            raise ValueError(f"{made.place}: an inline task is an `async def`")
        setattr(function, MARK, made)
        return function

    return mark


# -------------------------------------------------------------------------------------------- registry


class TaskLoadError(EdgeNodeError):
    """Modules or files with tasks cannot be used as they are; the text says which, and where."""

    status, slug, title, definite = 500, "tasks-not-loaded", "The tasks cannot be loaded", True


class Registry(Mapping[str, Task]):
    """The tasks a node can run, by name."""

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        self._tasks: dict[str, Task] = {}
        for each in tasks:
            other = self._tasks.setdefault(each.name, each)
            if other is not each:
                raise TaskLoadError(f"two tasks are called {each.name!r}: {other.place} and {each.place}")
            each.resolve()

    @classmethod
    def of(cls, *functions: Callable[..., Any]) -> Registry:
        """The registry of these functions, each decorated with `@task`."""
        return cls([_task_of(function) for function in functions])

    def __getitem__(self, name: str) -> Task:
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)


def _task_of(function: Callable[..., Any]) -> Task:
    found = getattr(function, MARK, None)
    if not isinstance(found, Task):
        raise TypeError(f"{function!r} is no task: it has no @task decorator")
    return found


def load_tasks(sources: Sequence[str]) -> Registry:
    """Import modules (`my_package.tasks`) and files (`./tasks.py`), and collect the tasks in them.

    Of a package, its direct submodules are imported too. The working folder and the folders of files are
    appended to the import path: last, so that a `random.py` of the user hides no other.

    Raises:
        TaskLoadError: one cannot be imported, or has no task; or two tasks have one name.
    """
    found: dict[int, Task] = {}  # by identity: a package and its submodule may show the same function
    for source in sources:
        modules = list(_import(source))
        tasks = [
            each
            for module in modules
            for each in (getattr(value, MARK, None) for value in vars(module).values())
            if isinstance(each, Task)
        ]
        if not tasks:
            raise TaskLoadError(f"{source} has no function with @task in it")
        found |= {id(each): each for each in tasks}
    return Registry(found.values())


def _import(source: str) -> Iterator[ModuleType]:
    try:
        if source.endswith(".py") or os.sep in source:
            yield _import_file(Path(source).absolute())
            return
        _append_to_path(os.getcwd())
        module = importlib.import_module(source)
        yield module
        for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
            yield importlib.import_module(f"{source}.{found.name}")
    except TaskLoadError:
        raise
    except (Exception, SystemExit) as error:  # user code runs at import, and raises anything
        where = _line_of(error)
        raise TaskLoadError(f"{source} cannot be imported: {type(error).__name__}: {error}{where}") from error


def _import_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise TaskLoadError(f"there is no file {file}")
    name = file.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) != str(file):
        name = f"{file.stem}_{crc32(str(file).encode()):08x}"
        known = sys.modules.get(name)
    if known is not None:
        return known
    _append_to_path(str(file.parent))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _append_to_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.append(folder)


def _line_of(error: BaseException) -> str:
    """Where in which file it was raised, if that is known."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    file = trace.tb_frame.f_code.co_filename
    return "" if file.startswith("<") else f" ({file}, line {trace.tb_lineno})"


# --------------------------------------------------------------------------------------------- testing


@dataclasses.dataclass
class Recorder:
    """What a task told its job while `run_task` ran it.

    seen = Recorder(cancelled=True)
    run_task(resize, {"width": 3}, recorder=seen)
    assert seen.progress[-1] == (1.0, "done")
    """

    cancelled: bool | Callable[[], bool] = False
    """What `ctx.cancelled` says: always, or by a call each time that the task looks."""
    progress: list[tuple[float, str]] = dataclasses.field(default_factory=list)
    log: list[str] = dataclasses.field(default_factory=list)
    partials: list[Any] = dataclasses.field(default_factory=list)  # as a client would read them

    def is_cancelled(self) -> bool:
        return self.cancelled() if callable(self.cancelled) else self.cancelled


def run_task(
    which: Callable[..., Any] | str,
    payload: Mapping[str, Any] | None = None,
    *,
    registry: Registry | None = None,
    attempt: int = 1,
    recorder: Recorder | None = None,
) -> Any:
    """Run a task here and now, without a mesh, for tests: its result as a client would read it. A coroutine
    gets an event loop of its own, in a thread where one runs here already (as in tests that are coroutines).

    Args:
        which: a decorated function, or a name in `registry` (by default, of the tasks that come along).
        recorder: gets what the task says of its progress, its log and its partial results, and says whether
            it is cancelled.

    Raises:
        InvalidJob, Unserialisable; Retry, Cancel, Fail, also if the task returns it; whatever it raises.
    """
    import tempfile

    if isinstance(which, str):
        known = load_tasks(["edgenode.tasks"]) if registry is None else registry
        found = known[which]
    else:
        found = _task_of(which)
    arguments = json.loads(encode_result(dict(payload or {})))
    seen = Recorder() if recorder is None else recorder
    with tempfile.TemporaryDirectory(prefix="edgenode-task-") as folder:
        context = JobContext(
            job_id="00000000-0000-7000-8000-000000000000",
            attempt=attempt,
            fence=Fence(1, "local", attempt),
            tmp=Path(folder) / "job",
            is_cancelled=seen.is_cancelled,
            on_progress=lambda fraction, message: seen.progress.append((fraction, message)),
            on_log=seen.log.append,
            on_partial=lambda encoded: seen.partials.append(json.loads(encoded)),
        )
        value = found.call(arguments, context)
        result = _result_of(value) if inspect.isawaitable(value) else value
        return json.loads(encode_returned(result))


def _result_of(value: Any) -> Any:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    async def awaited() -> Any:
        return await value

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(awaited())
    with ThreadPoolExecutor(1) as thread:
        # With the variables of this context, and without a way to change them, as without a thread.
        return thread.submit(copy_context().run, asyncio.run, awaited()).result()
