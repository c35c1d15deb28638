"""What a request says besides its documents: types, sizes, ids, parameters, preferences."""

from __future__ import annotations

import asyncio
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from edgenode.api.answers import problem_response
from edgenode.api.problems import TooSlow, UnsupportedMediaType
from edgenode.api.specs import check_key, parse_json
from edgenode.core import wire
from edgenode.core.errors import RejectedInput, TooLarge
from edgenode.core.job_ids import parse_job_id
from edgenode.core.types import JobId, Seconds, State

BODY_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of a submission."""
SMALL_BODY_BYTES_MAX: Final = 1024 * 1024
"""Of any other request: 10,000 job ids take half of it. Nobody counts how many are read at one time."""
CHUNK_BYTES: Final = 64 * 1024
BODY_S: Final[Seconds] = 60.0
WAIT_MAX_S: Final[Seconds] = 60.0
"""The longest `Prefer: wait`. Many proxies end a silent request after a minute."""
PAGE: Final = 50
PAGE_MAX: Final = 1_000
NAME_CHARS_MAX: Final = 512
"""No name of a task or a queue is as long."""
_LINES_TYPE: Final = "application/x-ndjson"
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_ESCAPED: Final = re.compile(r'\\(["\\])')


def is_lines(request: web.Request) -> bool:
    """Whether the body is NDJSON. A type is required: browsers send other sites' forms without asking, but
    never JSON."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise UnsupportedMediaType("compressed bodies are not read", field="Content-Encoding")
    if request.content_type == _LINES_TYPE:
        return True
    if request.content_type == "application/json":
        return False
    raise UnsupportedMediaType(
        f"send application/json, or {_LINES_TYPE} with one job a line", field="Content-Type"
    )


async def body_chunks(request: web.Request, most: int = BODY_BYTES_MAX) -> AsyncIterator[bytes]:
    """The body in pieces, of so many bytes at most.

    Raises:
        TooLarge: as soon as it is known, so before what is announced was read.
        TooSlow: the body was not here after BODY_S.
        RejectedInput: its framing is broken, or it ended early.
    """
    if request.content_length is not None and request.content_length > most:
        raise _body_too_large(most)
    size = 0
    deadline = asyncio.get_running_loop().time() + BODY_S
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                chunk = await request.content.read(CHUNK_BYTES)
        except TimeoutError:
            raise TooSlow(f"the body did not arrive within {BODY_S:.0f} s", field="body") from None
        except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
            raise RejectedInput(f"the body did not arrive whole: {error}", field="body") from None
        if not chunk:
            return
        size += len(chunk)
        if size > most:
            raise _body_too_large(most)
        yield chunk


async def expect(request: web.Request) -> web.StreamResponse | None:
    """`Expect: 100-continue`: a body that is too large is refused before it is sent (RFC 9110 10.1.1)."""
    if request.content_length is not None and request.content_length > BODY_BYTES_MAX:
        return problem_response(_body_too_large(BODY_BYTES_MAX), instance=request.path)
    if request.version >= (1, 1) and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return None


def _body_too_large(most: int) -> TooLarge:
    text = f"a body has at most {most} bytes here: send it in parts"
    return TooLarge(text, field="body", limit=most)


async def body_of(request: web.Request) -> object:
    """The JSON of a small request; None without a body.

    Raises:
        RejectedInput: it is no JSON, or not announced as such.
    """
    body = bytearray()
    async for chunk in body_chunks(request, SMALL_BODY_BYTES_MAX):
        body += chunk
    if not body:
        return None
    if is_lines(request):
        raise UnsupportedMediaType("send application/json", field="Content-Type")
    return parse_json(bytes(body))


async def no_body(request: web.Request) -> None:
    """
    Raises:
        RejectedInput: there is one, which would be ignored.
    """
    if await body_of(request) is not None:
        raise RejectedInput("this request has no body", field="body")


def job_id(request: web.Request) -> JobId:
    text = request.match_info["id"]
    job = parse_job_id(text)
    if job is None:
        raise RejectedInput(f"{text!r:.80} is not a job id (a UUID, 8-4-4-4-12)", field="id")
    return job


def parameters(request: web.Request, *names: str) -> dict[str, str]:
    """The query parameters; one that is not in `names`, or comes twice, is refused."""
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in names:
            known = f"; known are {', '.join(names)}" if names else ""
            raise RejectedInput(f"there is no parameter {name!r:.80}{known}", field=name[:80])
        if name in given:
            raise RejectedInput(f"{name} is given twice", field=name)
        given[name] = value
    return given


def idempotency_key(request: web.Request) -> str:
    """What `Idempotency-Key` says; "" without. As the string that draft-ietf-httpapi-idempotency-key-header
    asks for (RFC 8941 section 3.3.3), or bare, as most clients send it: both name one key.

    Raises:
        InvalidJob: it is no key.
    """
    given = request.headers.getall("Idempotency-Key", [])
    if not given:
        return ""
    if len(given) > 1:
        raise RejectedInput("there are several keys", field="Idempotency-Key")
    quoted = _QUOTED.fullmatch(given[0])
    return check_key("Idempotency-Key", _ESCAPED.sub(r"\1", quoted[1]) if quoted else given[0])


def search_query(request: web.Request) -> tuple[wire.Query, dict[str, str]]:
    """What to search for, and the filters as given, for the link to the next page."""
    given = parameters(request, "state", "task", "queue", "retried", "limit", "cursor")
    query = query_of(given)
    if given.get("retried", "") not in ("", "true", "false"):
        raise RejectedInput("retried is true or false", field="retried")
    return query, {name: given[name] for name in ("state", "task", "queue", "retried") if given.get(name)}


def query_of(given: Mapping[str, str]) -> wire.Query:
    """What to search for, as `state`, `task`, `queue`, `limit` and `cursor` say.

    Raises:
        RejectedInput: `field` names the one that is wrong.
    """
    state = given.get("state", "")
    if state and state not in set(State):
        raise RejectedInput(f"state is one of {', '.join(State)}", field="state")
    for name in ("task", "queue"):
        if len(given.get(name, "")) > NAME_CHARS_MAX or not given.get(name, "").isprintable():
            raise RejectedInput(f"no {name} has such a name", field=name)
    limit = given.get("limit", str(PAGE))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 6 and 1 <= int(limit) <= PAGE_MAX):
        raise RejectedInput(f"limit is a number from 1 to {PAGE_MAX}", field="limit")
    after = _cursor(given["cursor"]) if "cursor" in given else b""
    return wire.Query(state, given.get("task", ""), given.get("queue", ""), after, int(limit))


def cursor_text(job: JobId) -> str:
    return urlsafe_b64encode(job).decode().rstrip("=")


def _cursor(text: str) -> bytes:
    try:
        after = urlsafe_b64decode(text.encode("ascii") + b"==")
    except ValueError:
        after = b""
    if len(after) != 16 or cursor_text(JobId(after)) != text:
        raise RejectedInput("the cursor is not one that a page linked to", field="cursor")
    return after


def preferred_wait_s(request: web.Request) -> Seconds | None:
    """`Prefer: wait=N` in seconds, at most WAIT_MAX_S; None without. What can't be honoured is ignored, as
    RFC 7240 section 2 says."""
    for header in request.headers.getall("Prefer", ()):
        for preference in header.split(","):
            name, _, value = preference.partition(";")[0].partition("=")
            value = value.strip().strip('"')
            if name.strip().lower() == "wait" and value.isascii() and value.isdigit() and len(value) < 10:
                return min(float(value), WAIT_MAX_S)
    return None
