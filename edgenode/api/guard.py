"""Keeps other people's web pages from using a reader's browser to reach the node.

The API has no password on loopback, so what a browser may be tricked into must be refused here. Two tricks
exist: a page sends a form to http://127.0.0.1:8701 (then `Origin` names the page's site), or it binds its own
name to 127.0.0.1 ("DNS rebinding": then `Host` has that name).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from edgenode.api.problems import CrossSite, WrongHost
from edgenode.core.types import is_loopback

_SAFE = frozenset({"GET", "HEAD"})  # they change nothing, and without CORS headers no page reads the answer


def check_origin(is_loopback_only: bool) -> Middleware:
    """A middleware that raises `WrongHost` (with `is_loopback_only`) and `CrossSite`."""

    @web.middleware
    async def check(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        if is_loopback_only and host and not is_local(host):
            raise WrongHost(f"this node answers for loopback names only, not {host!r:.80}", field="Host")
        if request.method not in _SAFE:
            origin = request.headers.get("Origin")
            if origin is not None and origin.partition("://")[2].lower() != host.lower():
                raise CrossSite("the request comes from a page of another site", field="Origin")
            if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
                raise CrossSite("the request comes from a page of another site", field="Sec-Fetch-Site")
        return await handler(request)

    return check


def is_local(host: str) -> bool:
    """Whether a `Host` header names this machine: localhost or a loopback address, with any port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return is_loopback(name)
