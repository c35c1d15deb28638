"""Whether the node lives and takes jobs, and what it counts: for whoever supervises it."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from edgenode.api.answers import dump, json_response
from edgenode.api.service import Service
from edgenode.core.errors import NotReady

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Health:
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/livez", self.live),
            web.get("/readyz", self.ready),
            web.get("/metrics", self.metrics),
        ]

    async def live(self, request: web.Request) -> web.Response:
        return json_response(b'{"live":true}')

    async def ready(self, request: web.Request) -> web.Response:
        reasons, damage = list(self._service.readiness()), list(self._service.damage())
        if reasons:
            raise NotReady("; ".join(reasons), ready=False, reasons=list(reasons), damage=list(damage))
        return json_response(dump({"ready": True} | ({"damage": damage} if damage else {})))

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._service.metrics(), headers={"Content-Type": METRICS_TYPE})
