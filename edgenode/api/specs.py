"""From the bytes of a submission to specs, or to a refusal that names the field.

Strict on purpose: what is misspelt or out of range is refused, never ignored, and nothing is stored of it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final

from edgenode.api.problems import AcksUnmet
from edgenode.api.service import Service, TaskSchema
from edgenode.core.errors import InvalidJob, RejectedInput, TooLarge, UnknownTask
from edgenode.core.job_ids import keyed_job_id
from edgenode.core.jobs import COUNTED_BALLOTS_MAX, TOKENS_MAX
from edgenode.core.specs import DAY_S, DEFAULTS, UNFINISHED_DAYS, Options, Spec, timeout_of
from edgenode.core.types import (
    BACKOFFS,
    FAR_S,
    WORD,
    WORD_TEXT,
    Backoff,
    Delivery,
    JobId,
    Partition,
    Seconds,
    Wall,
    label_of,
)

ITEMS_MAX: Final = 10_000
PAYLOAD_BYTES_MAX: Final = 1024 * 1024
NESTING_MAX: Final = 64
"""Levels of lists and objects in a payload. Every JSON reader has a limit, and they differ: without one of
our own, a payload that was accepted here might not be readable where the job runs."""
KEY_FIELD: Final = "idempotency_key"
KEY_CHARS_MAX: Final = 255
_KEY: Final = re.compile(rf"(?! )[ -~]{{1,{KEY_CHARS_MAX}}}(?<! )", re.ASCII)
LABELS_MAX: Final = 32
ACKS_MAX: Final = 100  # no number of holders comes near
ALL_DISKS: Final = -1
"""What `"acks": "all"` is until the number of holders is looked up."""
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_SHOWN_CHARS: Final = 80


# ----------------------------------------------------------------------------------------------- JSON


def parse_json(blob: bytes) -> object:
    """The value in these bytes, by the letter of RFC 8259, with names unique in each object.

    Raises:
        RejectedInput: they are not JSON in UTF-8; `field` is "body".
    """
    try:
        return json.loads(blob.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise RejectedInput("the JSON is nested too deep", field="body") from None
    except UnicodeDecodeError as error:
        raise RejectedInput(f"the body is not UTF-8 (byte {error.start})", field="body") from None
    except ValueError as error:  # also integers of thousands of digits
        raise RejectedInput(f"the body is not valid JSON: {str(error)[:200]}", field="body") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise RejectedInput(
            f"the name {_shown(twice)} appears twice in one object", field=twice[:_SHOWN_CHARS]
        )
    return made


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def parse_lines(body: bytes) -> list[object]:
    """The values of an NDJSON body; a line that is not JSON stands as its `RejectedInput`."""
    found: list[object] = []
    for line in _lines(body):
        if len(found) == ITEMS_MAX:
            raise too_many()
        try:
            found.append(parse_json(line))
        except RejectedInput as error:
            found.append(error)
    return found


def _lines(body: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(body):
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end
        line = body[start:end].strip()
        start = end + 1
        if line:
            yield line


def too_many() -> TooLarge:
    return TooLarge(f"a batch has at most {ITEMS_MAX} jobs: send it in parts", field="body", limit=ITEMS_MAX)


# ------------------------------------------------------------------------------------------------ jobs


def tasks_in(documents: Iterable[object]) -> set[str]:
    """The tasks that these submitted jobs name."""
    named = (document.get("task") for document in documents if isinstance(document, dict))
    return {task for task in named if isinstance(task, str)}


class SpecMaker:
    """Makes the specs of one request: what depends on the node is looked up once, not per job."""

    def __init__(self, service: Service, schemas: Mapping[str, TaskSchema]) -> None:
        """
        Args:
            schemas: as `Service.task_schemas` has them of the tasks in the request. Jobs of others are not
                checked, and get the mesh's defaults.
        """
        self._service = service
        self._schemas = schemas
        self._tasks = service.known_tasks()
        self.replicas = service.mesh().replicas
        self._takers = len(service.rank(JobId(bytes(16))))  # as many in the rank of any job
        self.now = service.wall()

    def spec(self, document: object, key: str = "", job: JobId | None = None) -> Spec:
        """The spec of one submitted job, complete and checked, under a new id or that of its key. It may be
        made in a thread: of the node it needs its clock only, and random bytes.

        Args:
            key: what `Idempotency-Key` says; the document may say it too.
            job: its id, if it has no key; else it is a new one.

        Raises:
            InvalidJob, UnknownTask, TooLarge: with the `field` that is wrong.
        """
        if not isinstance(document, dict):
            raise InvalidJob(f"a job is an object, not {_kind(document)}", field="body")
        unknown = next((name for name in document if name not in FIELDS), None)
        if unknown is not None:
            raise InvalidJob(
                f"a job has no field {_shown(unknown)}; known are {', '.join(sorted(FIELDS))}",
                field=unknown[:_SHOWN_CHARS],
            )
        if "task" not in document:
            raise InvalidJob("a job names its task", field="task")
        task = _name("task", document["task"])
        payload = document.get("payload", {})
        if not isinstance(payload, dict):
            raise InvalidJob(f"the payload is an object, not {_kind(payload)}", field="payload")
        blob = payload_bytes(payload)
        if task not in self._tasks:
            text = (
                f"no known node has a task {_shown(task)}: /v1/tasks (`edgenode tasks`) lists what there is; "
                "a node gets more with --tasks MODULE_OR_FILE"
            )
            raise UnknownTask(text, field="task", task=task)
        schema = self._schemas.get(task)
        if schema is not None:
            schema.read(payload)
        options = _options(document, _defaults(schema), self.now)
        options = self._with_acks(options)
        key = _key(document, key)
        if key:
            options = replace(options, key=key, fingerprint=fingerprint(document))
        if key:
            job = keyed_job_id(key)
        elif job is None:
            job = self._service.new_job_id()
        return Spec(job, task, blob, self.now, _last_day(max(self.now, options.run_at), options), options)

    def _with_acks(self, options: Options) -> Options:
        """
        Raises:
            InvalidJob: more disks are asked for than ever hold a job.
            AcksUnmet: more than there are now. (If they die while it is stored it is `AcksLost`.)
        """
        acks = self.replicas if options.acks == ALL_DISKS else options.acks
        if acks > self.replicas:
            raise InvalidJob(f"acks is at most {self.replicas}: so many nodes hold a job", field="acks")
        if acks > self._takers:
            text = (
                f"acks asks for {acks} disks, and {self._takers} nodes take jobs now: ask for fewer, or wait"
            )
            raise AcksUnmet(text, field="acks")
        return options if acks == options.acks else replace(options, acks=acks)


def _key(document: Mapping[str, object], header: str) -> str:
    if KEY_FIELD not in document:
        return header
    key = check_key(KEY_FIELD, document[KEY_FIELD])
    if header and key != header:
        raise InvalidJob("the document has another key than the header", field=KEY_FIELD)
    return key


def check_key(field: str, value: object) -> str:
    """An idempotency key: what every HTTP header can carry, and short enough to be remembered a week.

    Raises:
        InvalidJob: it is something else.
    """
    if not isinstance(value, str):
        raise InvalidJob(f"{field} is a text, not {_kind(value)}", field=field)
    if _KEY.fullmatch(value) is None:
        raise InvalidJob(
            f"{field} is 1 to {KEY_CHARS_MAX} characters of printable ASCII, not beginning or ending with a "
            f"space; got {_shown(value)}",
            field=field,
        )
    return value


def fingerprint(document: Mapping[str, object]) -> str:
    """Stands for all that was submitted but the key: as it was written, so that `delay_s` says the same
    tomorrow. The order of names does not matter."""
    said = {name: value for name, value in document.items() if name != KEY_FIELD}
    blob = json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    return blake2b(blob, digest_size=16).hexdigest()


def _last_day(due_at: Wall, options: Options) -> Wall:
    """When a job that is not over by then expires, even while it runs: who starts on the day of its deadline
    has a day for it, and an attempt its whole timeout."""
    return max(due_at + UNFINISHED_DAYS * DAY_S, options.deadline + DAY_S) + timeout_of(options, 0.0)


def payload_bytes(payload: Mapping[str, object]) -> bytes:
    """The payload as compact JSON in UTF-8: made once, then stored, sent and shown as it is."""
    try:
        blob = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except RecursionError:
        raise _too_deep() from None
    except UnicodeEncodeError:
        raise InvalidJob(
            "a text holds half of a surrogate pair, which is no character", field="payload"
        ) from None
    except ValueError:
        raise InvalidJob("a number is too large for a 64-bit float", field="payload") from None
    if len(blob) > PAYLOAD_BYTES_MAX:
        raise TooLarge(
            f"the payload has {len(blob)} bytes, at most {PAYLOAD_BYTES_MAX} go; send paths of files instead",
            field="payload",
            limit=PAYLOAD_BYTES_MAX,
        )
    # Counting brackets is quick and never counts too few; only payloads with many are walked.
    if blob.count(b"{") + blob.count(b"[") > NESTING_MAX and _depth(payload) > NESTING_MAX:
        raise _too_deep()
    return blob


def _too_deep() -> InvalidJob:
    return InvalidJob(f"the payload nests deeper than {NESTING_MAX} levels", field="payload")


def _depth(value: object) -> int:
    """Levels of nesting, without recursion."""
    level: list[object] = [value]
    depth = 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth


# --------------------------------------------------------------------------------------------- options


def _defaults(schema: TaskSchema | None) -> Options:
    """What applies where the submitter says nothing."""
    if schema is None:
        return DEFAULTS
    attempts = min(schema.max_attempts or DEFAULTS.max_attempts, COUNTED_BALLOTS_MAX)
    backoff = schema.backoff or DEFAULTS.backoff
    timeout_s = schema.timeout_s or DEFAULTS.timeout_s  # one that has none here may have one where it runs
    return replace(DEFAULTS, timeout_s=timeout_s, max_attempts=attempts, backoff=backoff)


def _options(document: Mapping[str, object], defaults: Options, now: Wall) -> Options:
    given = {name: check(name, document[name]) for name, check in OPTIONS.items() if name in document}
    delay_s = given.pop("delay_s", None)
    if delay_s is not None:
        if "run_at" in given:
            raise InvalidJob("say either run_at or delay_s", field="delay_s")
        given["run_at"] = now + delay_s if delay_s > 0 else 0.0
    if given.get("run_at", 0.0) > now + FAR_S:
        raise InvalidJob("run_at is more than ten years ahead", field="run_at")
    if not 0 <= given.get("deadline", 0.0) <= now + FAR_S:
        raise InvalidJob("the deadline is more than ten years ahead", field="deadline")
    options = replace(defaults, **given) if given else defaults
    if 0 < options.deadline <= max(now, options.run_at):
        raise InvalidJob("the deadline is over before the job may start", field="deadline")
    if "concurrency_limit" in given and not options.concurrency_key:
        raise InvalidJob("a concurrency_limit is of a concurrency_key", field="concurrency_limit")
    if options.delivery is Delivery.AT_MOST_ONCE and options.max_attempts != 1:
        if "max_attempts" in given:
            raise InvalidJob("an at-most-once job has one attempt", field="max_attempts")
        options = replace(options, max_attempts=1)
    return options


def _name(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidJob(f"{field} is a text, not {_kind(value)}", field=field)
    if WORD.fullmatch(value) is None:
        raise InvalidJob(f"{field} is {WORD_TEXT}; got {_shown(value)}", field=field)
    return value


def _integer(low: int, high: int) -> Callable[[str, object], int]:
    def check(field: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidJob(f"{field} is a whole number, not {_kind(value)}", field=field)
        if not low <= value <= high:
            raise InvalidJob(f"{field} is from {low} to {high}", field=field)
        return value

    return check


def _acks(field: str, value: object) -> int:
    if value == "all":
        return ALL_DISKS
    if isinstance(value, str):
        raise InvalidJob(f'{field} is a number of disks, or "all"; got {_shown(value)}', field=field)
    return _integer(0, ACKS_MAX)(field, value)


def _seconds(high: Seconds) -> Callable[[str, object], Seconds]:
    def check(field: str, value: object) -> Seconds:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InvalidJob(f"{field} is a number of seconds, not {_kind(value)}", field=field)
        if not 0 <= value <= high:  # compared before it becomes a float: integers have no end here
            raise InvalidJob(f"{field} is from 0 to {high:.0f} seconds", field=field)
        return float(value)

    return check


def _moment(field: str, value: object) -> Wall:
    if isinstance(value, str) and _TIME.fullmatch(value.upper()):
        try:
            # Not 0, which means that there is none.
            return max(1.0, datetime.fromisoformat(value.upper()).timestamp())
        except (ValueError, OverflowError):
            pass  # the 31st of February, or hours past 24
    raise InvalidJob(f"{field} is a time like 2030-01-31T12:00:00Z (RFC 3339)", field=field)


def _one_of(kind: type[StrEnum]) -> Callable[[str, object], StrEnum]:
    known = {str(member): member for member in kind}

    def check(field: str, value: object) -> StrEnum:
        found = known.get(value) if isinstance(value, str) else None
        if found is None:
            raise InvalidJob(f"{field} is one of {', '.join(known)}", field=field)
        return found

    return check


def _labels(field: str, value: object) -> tuple[tuple[str, str], ...]:
    """An object of labels, or a list of those as people write them: "gpu" is {"gpu": "yes"}."""
    if not isinstance(value, dict | list):
        raise InvalidJob(f"{field} is an object or a list of labels, not {_kind(value)}", field=field)
    if len(value) > LABELS_MAX:
        raise InvalidJob(f"{field} has at most {LABELS_MAX} labels", field=field)
    pairs = value.items() if isinstance(value, dict) else {_label(field, text) for text in value}
    labels = sorted((_name(field, label), _name(field, wanted)) for label, wanted in pairs)
    if len(dict(labels)) < len(labels):
        raise InvalidJob(f"{field}: no label can have two values at once", field=field)
    return tuple(labels)


def _label(field: str, text: object) -> tuple[str, str]:
    if not isinstance(text, str):
        raise InvalidJob(f"{field}: a label in a list is a text, not {_kind(text)}", field=field)
    return label_of(text)


def _backoff(field: str, value: object) -> Backoff:
    if not isinstance(value, dict):
        raise InvalidJob(f"{field} is an object, not {_kind(value)}", field=field)
    unknown = next((name for name in value if name not in Backoff.__slots__), None)
    if unknown is not None:
        raise InvalidJob(
            f"{field} has kind, base_s and cap_s, not {_shown(unknown)}",
            field=f"{field}.{unknown[:_SHOWN_CHARS]}",
        )
    made = Backoff()
    kind = value.get("kind", made.kind)
    if kind not in BACKOFFS:
        raise InvalidJob(f"{field}.kind is one of {', '.join(BACKOFFS)}", field=f"{field}.kind")
    seconds = _seconds(FAR_S)
    base_s = seconds(f"{field}.base_s", value.get("base_s", made.base_s))
    cap_s = seconds(f"{field}.cap_s", value.get("cap_s", max(made.cap_s, base_s)))
    if cap_s < base_s:
        raise InvalidJob(f"{field}.cap_s is less than base_s", field=f"{field}.cap_s")
    return Backoff(kind, base_s, cap_s)


OPTIONS: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "queue": _name,
    "priority": _integer(0, 9),
    "run_at": _moment,
    "delay_s": _seconds(FAR_S),
    "timeout_s": _seconds(FAR_S),
    "deadline": _moment,
    "max_attempts": _integer(1, COUNTED_BALLOTS_MAX),
    "max_losses": _integer(1, TOKENS_MAX - 1),
    "delivery": _one_of(Delivery),
    "partition": _one_of(Partition),
    "acks": _acks,
    "ttl_s": _seconds(FAR_S),
    "requires": _labels,
    "backoff": _backoff,
    "concurrency_key": check_key,
    "concurrency_limit": _integer(1, 1_000_000),
}
"""Every option of a job, and what it may be. `SpecMaker` holds `acks` against the number of holders."""
FIELDS: Final = frozenset({"task", "payload", KEY_FIELD, *OPTIONS})


# ------------------------------------------------------------------------------------------- wording


def _kind(value: object) -> str:
    """What JSON calls a value of this type."""
    if value is None:
        return "null"
    for kind, name in ((bool, "a boolean"), (str, "a text"), (int | float, "a number"), (list, "a list")):
        if isinstance(value, kind):
            return name
    return "an object"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "...")
