"""What a node answers whose disk takes no writes yet, so that it can't even begin."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from edgenode.api.answers import add_headers, errors_as_problems, json_response
from edgenode.api.guard import check_origin
from edgenode.core.errors import NotReady, StoreUnwritable


def make_waiting_app(why: Callable[[], str], *, is_loopback_only: bool = True) -> web.Application:
    """An application that serves `/livez`, refuses submissions for certain, and is not ready for the rest."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/livez":
            return json_response(b'{"live":true}')
        reason = f"its disk takes no writes: {why()}"
        if request.method in ("GET", "HEAD"):
            raise NotReady(reason, ready=False, reasons=[reason])
        raise StoreUnwritable(f"{reason}; submit to another node", reasons=[reason])

    app = web.Application(middlewares=[errors_as_problems, check_origin(is_loopback_only)])
    app.on_response_prepare.append(add_headers)
    app.router.add_route("*", "/{path:.*}", answer)
    return app
