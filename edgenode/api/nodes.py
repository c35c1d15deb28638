"""The members: who is there and what they can run, and how each takes part (drain, undrain, weight)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from edgenode.api import render
from edgenode.api.answers import dump, json_response
from edgenode.api.requests import body_of, parameters
from edgenode.api.service import Service
from edgenode.core.errors import NodeNotFound, RejectedInput
from edgenode.core.settings import WEIGHT_MAX, WEIGHT_MIN, JobSettings
from edgenode.core.types import NodeId, Seconds
from edgenode.core.view import MemberView
from edgenode.core.wire import Change, Wish

LIMIT_MAX_S: Final[Seconds] = 86_400.0
"""Of a drain: a day. A wrong unit (milliseconds) is then noticed."""


class Nodes:
    """The handlers. A change is asked of the member that the path names: any node may be told."""

    def __init__(self, service: Service, settings: JobSettings) -> None:
        self._service = service
        self._settings = settings

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/nodes", self.list),
            web.get("/v1/nodes/{id}", self.show),
            web.get("/v1/mesh", self.mesh),
            web.get("/v1/tasks", self.tasks),
            web.post("/v1/nodes/{id}/drain", self.drain),
            web.post("/v1/nodes/{id}/undrain", self.undrain),
            web.patch("/v1/nodes/{id}", self.change),
        ]

    async def list(self, request: web.Request) -> web.Response:
        parameters(request)
        me = self._service.me
        return json_response(dump({"nodes": [render.member_fields(each, me) for each in self._by_name()]}))

    async def show(self, request: web.Request) -> web.Response:
        parameters(request)
        member = self._member(self._wanted(request))
        return json_response(dump(render.member_fields(member, self._service.me)))

    async def mesh(self, request: web.Request) -> web.Response:
        parameters(request)
        service = self._service
        return json_response(dump(render.mesh_fields(service.mesh(), service.members(), service.me)))

    async def tasks(self, request: web.Request) -> web.Response:
        parameters(request)
        service = self._service
        living = [member for member in self._by_name() if not member.is_gone]
        names = sorted({task for member in living for task in member.info.tasks})
        schemas = await service.task_schemas(names, timeout_s=self._settings.describe_s)
        tasks = []
        for name in names:
            nodes = [member for member in living if name in member.info.tasks]
            tasks.append(render.task_fields(name, nodes, schemas.get(name)))
        return json_response(dump({"tasks": tasks}))

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
        node = self._wanted(request)
        info = await self._service.regulate(node, wish, timeout_s=self._settings.read_s)
        member = self._member(node)._replace(info=info)
        return json_response(dump(render.member_fields(member, self._service.me)), status=status)

    def _wanted(self, request: web.Request) -> NodeId:
        wanted = request.match_info["id"]
        return self._service.me if wanted == "self" else NodeId(wanted)

    def _member(self, node: NodeId) -> MemberView:
        """
        Raises:
            NodeNotFound: nobody has this id, or it is forgotten.
        """
        for member in self._service.members():
            if member.info.id == node:
                return member
        raise NodeNotFound(f"no member has the id {node!r:.80}: /v1/nodes lists them", field="id")

    def _by_name(self) -> Sequence[MemberView]:
        return sorted(self._service.members(), key=lambda member: (member.info.name, member.info.id))


async def _fields(request: web.Request, *names: str) -> Mapping[str, Any]:
    """The fields of the body, a JSON object; none without a body.

    Raises:
        RejectedInput: it is none, or has a field that is not in `names`.
    """
    given = await body_of(request)
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise RejectedInput("the body is a JSON object", field="body")
    for name in given:
        if name not in names:
            known = f"; known are {', '.join(names)}" if names else ""
            raise RejectedInput(f"there is no field {name!r:.80}{known}", field=str(name)[:80])
    return given


def _number(value: object, name: str, least: float, most: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:  # type: ignore[operator]
        raise RejectedInput(f"{name} is a number from {least:g} to {most:g}", field=name)
    return float(value)  # type: ignore[arg-type]
