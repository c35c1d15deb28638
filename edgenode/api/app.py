"""The HTTP API: routes, and what every request and answer has in common."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from aiohttp import web

from edgenode import __version__
from edgenode.api.answers import add_headers, dump, errors_as_problems, json_response
from edgenode.api.batches import Batches
from edgenode.api.changing import Changing
from edgenode.api.guard import check_origin
from edgenode.api.health import Health
from edgenode.api.jobs import Jobs
from edgenode.api.nodes import Nodes
from edgenode.api.queues import Queues
from edgenode.api.service import Service
from edgenode.api.submitting import Submitting
from edgenode.core.settings import JobSettings


def make_app(
    service: Service, *, settings: JobSettings | None = None, is_loopback_only: bool = True
) -> web.Application:
    """The application for one node.

    Args:
        settings: how long a submission (`submit_s`) and a read (`read_s`) may take.
        is_loopback_only: answer only for `Host` names of this machine. True unless the API was given an
            address that other machines reach.
    """
    app = web.Application(middlewares=[errors_as_problems, check_origin(is_loopback_only)])
    app.on_response_prepare.append(add_headers)

    async def part(request: web.Request, response: web.StreamResponse) -> None:
        """Who kept a connection to a node that leaves would send the next request into its end."""
        if service.is_leaving:
            response.force_close()
            response.headers["Connection"] = "close"

    app.on_response_prepare.append(part)
    handlers = _handlers(service, JobSettings() if settings is None else settings)
    routes = [route for each in handlers for route in each.routes()]
    app.add_routes([*routes, web.get("/", _index(service, routes))])
    return app


class Handlers(Protocol):
    """The requests about one kind of thing."""

    def routes(self) -> list[web.RouteDef]:
        """Where they are served. Of two paths that fit, the first one answers."""
        ...


def _handlers(service: Service, settings: JobSettings) -> list[Handlers]:
    submitting = Submitting(service, settings)
    changing = Changing(service, settings, submitting)
    return [
        submitting,
        changing,
        Jobs(service, settings),
        Batches(service, settings, changing),
        Nodes(service, settings),
        Queues(service),
        Health(service),
    ]


def _index(
    service: Service, routes: Sequence[web.RouteDef]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    resources = [route.path for route in routes if route.method == "GET"]

    async def index(request: web.Request) -> web.StreamResponse:
        about = {"edgenode": __version__, "node": service.mesh().name, "id": service.me}
        return json_response(dump(about | {"resources": resources}))

    return index


def make_runner(app: web.Application) -> web.AppRunner:
    """A runner whose requests end when their client goes away, and which ends within a second itself."""
    # What a request did wrong before it reached a handler is its sender's affair: aiohttp would write a
    # traceback for each. A handler's own errors are logged where they become problems.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    return web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
