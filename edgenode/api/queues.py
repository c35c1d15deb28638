"""Named queues over HTTP: what is set for each, and changes of that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from edgenode.api import render
from edgenode.api.answers import dump, json_response
from edgenode.api.problems import InvalidQueue
from edgenode.api.requests import body_of, parameters
from edgenode.api.service import Service, check_taking
from edgenode.core.queues import unset
from edgenode.core.types import WORD, WORD_TEXT, Seconds
from edgenode.core.view import QueueChange

KNOWN_S: Final[Seconds] = 2.0
"""How long a change waits for the members that have not said that they know it."""
COUNT_S: Final[Seconds] = 2.0
"""How long to wait for members that have not said how many jobs they have."""
COUNT_MAX: Final = 1_000_000
RATE_MIN: Final = 0.001  # one start in a quarter of an hour
FIELDS: Final = ("paused", "concurrency", "rate", "burst")
RESET: Final = QueueChange(paused=False, concurrency=0, rate=0.0, burst=0)


class Queues:
    """The handlers. Each either returns an answer or raises an `EdgeNodeError`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/queues", self.list),
            web.put("/v1/queues/{name:.+}", self.put),
            web.delete("/v1/queues/{name:.+}", self.reset),
            web.post("/v1/queues/{name:.+}/pause", self.pause),
            web.post("/v1/queues/{name:.+}/resume", self.resume),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """All that have settings, or jobs, with how many of these wait and run in the whole mesh."""
        parameters(request)
        counted = await self._service.count_queues(timeout_s=COUNT_S)
        items = {item.queue: item for item in self._service.queues()}
        shown = []
        for name in sorted({*items, *counted.counts}):
            queued, running = counted.counts.get(name, (0, 0))
            fields = render.queue_fields(items.get(name) or unset(name))
            shown.append(fields | {"queued": queued, "running": running})
        told = {"queues": shown, "unanswered": list(counted.unanswered), "left_out": counted.left_out}
        return json_response(dump(told))

    async def put(self, request: web.Request) -> web.Response:
        """What the body names is so from now on; null: no limit. The rest stays as it is."""
        name = _name(request)
        return await self._change(name, _change(await body_of(request)))

    async def reset(self, request: web.Request) -> web.Response:
        """As if nothing had ever been set; the same again does no harm."""
        return await self._turn(request, RESET)

    async def pause(self, request: web.Request) -> web.Response:
        return await self._turn(request, QueueChange(paused=True))

    async def resume(self, request: web.Request) -> web.Response:
        return await self._turn(request, QueueChange(paused=False))

    async def _turn(self, request: web.Request, change: QueueChange) -> web.Response:
        name = _name(request)
        if await body_of(request) is not None:
            raise InvalidQueue("this request has no body", field="body")
        return await self._change(name, change)

    async def _change(self, name: str, change: QueueChange) -> web.Response:
        """200 when every living member knows of it, 202 when some have not said so yet."""
        check_taking(self._service)
        done = await self._service.change_queue(name, change, timeout_s=KNOWN_S)
        if done.error is not None:
            raise done.error
        assert done.item is not None
        fields = render.queue_fields(done.item) | {"known": done.known, "living": done.living}
        return json_response(dump(fields), status=200 if done.known == done.living else 202)


def _name(request: web.Request) -> str:
    parameters(request)
    name = request.match_info["name"]
    if WORD.fullmatch(name) is None:
        raise InvalidQueue(f"a queue's name is {WORD_TEXT}; got {name!r:.80}", field="name")
    return name


def _change(body: object) -> QueueChange:
    if not isinstance(body, Mapping):
        raise InvalidQueue(f"send an object with some of {', '.join(FIELDS)}", field="body")
    unknown = next((name for name in body if name not in FIELDS), None)
    if unknown is not None:
        raise InvalidQueue(f"a queue has no {unknown!r:.80}; it has {', '.join(FIELDS)}", field=unknown[:80])
    if not body:
        raise InvalidQueue(f"say what is to change: some of {', '.join(FIELDS)}", field="body")
    paused = body.get("paused")
    if "paused" in body and not isinstance(paused, bool):
        raise InvalidQueue("paused is true or false", field="paused")
    return QueueChange(paused, _count(body, "concurrency"), _rate(body), _count(body, "burst"))


def _count(body: Mapping[str, object], field: str) -> int | None:
    """0 for null; None if nothing is said."""
    if field not in body:
        return None
    value = body[field]
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= COUNT_MAX:
        raise InvalidQueue(f"{field} is a whole number from 1 to {COUNT_MAX}, or null", field=field)
    return value


def _rate(body: Mapping[str, object]) -> float | None:
    if "rate" not in body:
        return None
    value = body["rate"]
    if value is None:
        return 0.0
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not RATE_MIN <= value <= COUNT_MAX:  # type: ignore[operator]
        text = f"rate is a number of starts per second, from {RATE_MIN} to {COUNT_MAX}, or null"
        raise InvalidQueue(text, field="rate")
    return float(value)  # type: ignore[arg-type]
