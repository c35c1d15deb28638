"""What every answer has in common: JSON, headers, and errors as problems (RFC 9457)."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from math import ceil
from typing import Any, Final

from aiohttp import web

from edgenode import __version__
from edgenode.api.problems import MethodNotAllowed, NoSuchResource
from edgenode.core.errors import EdgeNodeError, to_problem
from edgenode.core.types import Seconds

log = logging.getLogger("edgenode.api")

PROBLEM_TYPE: Final = "application/problem+json"
_SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


def dump(fields: Any) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def json_response(
    body: bytes, *, status: int = 200, wait_s: Seconds | None = None, retry_after_s: Any = None
) -> web.Response:
    response = web.Response(body=body, status=status, content_type="application/json")
    if wait_s is not None:
        response.headers["Preference-Applied"] = f"wait={wait_s:.0f}"
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(max(1, round(retry_after_s)))
    return response


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = f"edgenode/{__version__}"


@web.middleware
async def errors_as_problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except EdgeNodeError as error:
        return problem_response(error, instance=request.path)
    except web.HTTPNotFound:
        return problem_response(NoSuchResource("the index at / lists what there is"), instance=request.path)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        refusal = MethodNotAllowed(f"{request.method[:20]} is not known here; try {allowed}")
        return problem_response(refusal, instance=request.path, headers={"Allow": allowed})
    except web.HTTPException:
        raise
    except Exception:
        # The text of an unexpected exception may hold anything: it goes to the log, the client gets a number.
        reference = secrets.token_hex(4)
        log.exception("request failed, reference %s: %s %s", reference, request.method, request.path)
        internal = EdgeNodeError(
            f"an error of the node itself, logged under {reference}", reference=reference
        )
        return problem_response(internal, instance=request.path)


def problem_response(
    error: EdgeNodeError, *, instance: str, headers: dict[str, str] | None = None
) -> web.Response:
    """The answer for `error`: its problem, and `Retry-After` where trying again makes sense."""
    response = web.Response(
        body=json.dumps(to_problem(error, instance=instance)).encode(),
        status=error.status,
        content_type=PROBLEM_TYPE,
        headers=headers,
    )
    if error.retry_after_s is not None:
        # RFC 9110 section 10.2.3 has whole seconds only; the body says it exactly.
        response.headers["Retry-After"] = str(max(1, ceil(error.retry_after_s)))
    return response
