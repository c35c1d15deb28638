"""Requests that change how a member takes part: drain, undrain, weight."""

from __future__ import annotations

import math
from typing import Any, Final

from aiohttp import web

from edgenode.api import render
from edgenode.api.answers import dump, json_response
from edgenode.api.problems import UnsupportedMediaType
from edgenode.api.requests import body_chunks, parameters
from edgenode.api.service import Service
from edgenode.api.specs import parse_json
from edgenode.core.errors import NodeNotFound, RejectedInput
from edgenode.core.settings import WEIGHT_MAX, WEIGHT_MIN, JobSettings
from edgenode.core.types import NodeId, Seconds
from edgenode.core.wire import Change, Wish

LIMIT_MAX_S: Final[Seconds] = 86_400.0
"""Of a drain: a day. A wrong unit (milliseconds) is then noticed."""


class Nodes:
    """The handlers. Each asks the member that the path names, which may be another than the one asked."""

    def __init__(self, service: Service, settings: JobSettings) -> None:
        self._service = service
        self._settings = settings

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/nodes/{id}/drain", self.drain),
            web.post("/v1/nodes/{id}/undrain", self.undrain),
            web.patch("/v1/nodes/{id}", self.change),
        ]

    async def drain(self, request: web.Request) -> web.Response:
        """202: it is under way; the member's `state` says when it is done."""
        given = await _fields(request, "limit_s")
        limit_s = self._settings.drain_s
        if "limit_s" in given:
            limit_s = _number(given["limit_s"], "limit_s", 0.0, LIMIT_MAX_S)
        return await self._ask(request, Wish(Change.DRAIN, limit_s), status=202)

    async def undrain(self, request: web.Request) -> web.Response:
        await _fields(request)
        return await self._ask(request, Wish(Change.UNDRAIN))

    async def change(self, request: web.Request) -> web.Response:
        given = await _fields(request, "weight")
        if "weight" not in given:
            raise RejectedInput("say what is to be changed: weight", field="weight")
        weight = _number(given["weight"], "weight", WEIGHT_MIN, WEIGHT_MAX)
        return await self._ask(request, Wish(Change.WEIGHT, weight))

    async def _ask(self, request: web.Request, wish: Wish, *, status: int = 200) -> web.Response:
        parameters(request)
        service = self._service
        wanted = request.match_info["id"]
        node = service.me if wanted == "self" else NodeId(wanted)
        info = await service.regulate(node, wish, timeout_s=self._settings.read_s)
        for member in service.members():
            if member.info.id == node:
                fields = render.member_fields(member._replace(info=info), service.me)
                return json_response(dump(fields), status=status)
        raise NodeNotFound(f"no member has the id {wanted!r:.80}", field="id")


async def _fields(request: web.Request, *names: str) -> dict[str, Any]:
    """The fields of the body, a JSON object; none without a body.

    Raises:
        RejectedInput: it is none, or has a field that is not in `names`.
    """
    body = b"".join([chunk async for chunk in body_chunks(request)])
    if not body.strip():
        return {}
    if request.content_type != "application/json":
        raise UnsupportedMediaType("send application/json", field="Content-Type")
    given = parse_json(body)
    if not isinstance(given, dict):
        raise RejectedInput("the body is a JSON object", field="body")
    for name in given:
        if name not in names:
            known = f"; known are {', '.join(names)}" if names else ""
            raise RejectedInput(f"there is no field {name!r:.80}{known}", field=str(name)[:80])
    return given


def _number(value: object, name: str, least: float, most: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not least <= value <= most:  # type: ignore[arg-type, operator]
        raise RejectedInput(f"{name} is a number from {least:g} to {most:g}", field=name)
    return float(value)  # type: ignore[arg-type]
