"""Which jobs a change of many is about: these ids, or all that fit a filter.

All of them are found before any is changed, so that what a change makes (a retry that fails at once) is not
found by the same request. Only ids are kept: records come with payloads and results, a megabyte each. A
request ends at so many jobs, or after so long; its answer then says where the next one goes on.
"""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from edgenode.api.requests import query_of
from edgenode.api.service import Service
from edgenode.api.specs import ITEMS_MAX
from edgenode.core.errors import RejectedInput, TooLarge
from edgenode.core.job_ids import parse_job_id
from edgenode.core.types import JobId, NodeId, Seconds, State
from edgenode.core.wire import Query

PAGE: Final = 500
SPAN_S: Final[Seconds] = 5.0
"""A request looks for jobs so long at most, and a page more: clients wait 15 s before they ask elsewhere."""
FILTERS: Final = ("state", "task", "queue")


class Place(NamedTuple):
    """How far a search through one state after the other has come."""

    turn: int  # which of the states, from 0
    after: bytes  # the last job; b"" to begin


class Filter(NamedTuple):
    query: Query
    place: Place


@dataclass(slots=True)
class Chosen:
    """The jobs, in order. `onward`: where more may be; None if that is all."""

    places: list[Place] = field(default_factory=list)
    onward: Place | None = None
    is_filter: bool = False
    silent: set[NodeId] = field(default_factory=set)  # members whose disks were not looked at
    skipped: int = 0  # how many need no change any more

    def pieces(self, size: int) -> Iterator[list[JobId]]:
        for at in range(0, len(self.places), size):
            yield [JobId(place.after) for place in self.places[at : at + size]]

    def cut(self, count: int) -> None:
        """Only so many were done, of what a filter found: the next request goes on behind them."""
        assert self.is_filter
        assert count > 0
        if count < len(self.places):
            self.places, self.onward = self.places[:count], self.places[count - 1]


def wanted_jobs(body: object) -> list[JobId] | Filter:
    """The jobs that a request is about: `{"ids": [...]}`, or a filter: `state`, `task`, `queue`, and the
    `cursor` of an answer that was not all.

    Raises:
        RejectedInput: it says neither, or both.
        TooLarge: there are too many ids.
    """
    if not isinstance(body, dict) or not body:
        raise RejectedInput('say which jobs: {"ids": [...]}, or state, task, queue', field="body")
    unknown = next((name for name in body if name not in ("ids", *FILTERS, "cursor")), None)
    if unknown is not None:
        raise RejectedInput(
            f"there is no field {unknown!r:.80}; known are ids, state, task, queue, cursor",
            field=unknown[:80],
        )
    if "ids" in body:
        if len(body) > 1:
            raise RejectedInput("say either ids or a filter", field="ids")
        return _ids(body["ids"])
    given = {name: _text_of(name, body[name]) for name in body}
    place = _place(given.pop("cursor")) if "cursor" in given else Place(0, b"")
    if not given:
        raise RejectedInput("a cursor goes on with its filter: say state, task, queue again", field="body")
    return Filter(query_of(given), place)


def _ids(ids: object) -> list[JobId]:
    if not isinstance(ids, list):
        raise RejectedInput("ids is a list of job ids", field="ids")
    if len(ids) > ITEMS_MAX:
        raise TooLarge(f"ids has at most {ITEMS_MAX} job ids: send it in parts", field="ids", limit=ITEMS_MAX)
    found = [parse_job_id(text) if isinstance(text, str) else None for text in ids]
    for place, job in enumerate(found):
        if job is None:
            raise RejectedInput(f"{ids[place]!r:.80} is not a job id", field=f"ids[{place}]")
    return list(dict.fromkeys(job for job in found if job is not None))


def _text_of(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise RejectedInput(f"{name} is a text", field=name)
    if not value:
        raise RejectedInput(f"{name} is empty: leave it out, if any will do", field=name)
    return value


def cursor_text(place: Place) -> str:
    return urlsafe_b64encode(bytes((place.turn,)) + place.after).decode().rstrip("=")


def _place(text: str) -> Place:
    try:
        found = urlsafe_b64decode(text.encode("ascii") + b"==")
    except ValueError:
        found = b""
    if len(found) not in (1, 17) or cursor_text(place := Place(found[0], found[1:])) != text:
        raise RejectedInput("the cursor is not one that an answer gave as next", field="cursor")
    return place


async def choose(
    service: Service,
    wanted: list[JobId] | Filter,
    *,
    states: frozenset[State],
    turns: Sequence[str],
    timeout_s: Seconds,
) -> Chosen:
    """The jobs that a change is about.

    Args:
        states: those of a filter that are in one of these, when they are found.
        turns: where a filter names no state, the states to look for, one after the other; "": any. What
            moves between states is found for certain only by looking for any.
        timeout_s: how long a page may take.

    Raises:
        RejectedInput: no job in the state that a filter names is in one of `states`; or its cursor is wrong.
    """
    if not isinstance(wanted, Filter):
        return Chosen([Place(0, job) for job in wanted])
    if wanted.query.state:
        if wanted.query.state not in states:
            known = ", ".join(sorted(states))
            text = f"there is nothing to do about what is {wanted.query.state}: state is one of {known}"
            raise RejectedInput(text, field="state")
        turns = (wanted.query.state,)
    if wanted.place.turn >= len(turns):
        raise RejectedInput("the cursor is of another filter", field="cursor")
    chosen = Chosen(onward=wanted.place, is_filter=True)
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + SPAN_S
    while (place := chosen.onward) is not None:
        query = wanted.query._replace(state=turns[place.turn], after=place.after, limit=PAGE)
        page = await service.search(query, timeout_s=timeout_s)
        chosen.silent.update(page.unanswered)
        chosen.places += [Place(place.turn, record.id) for record in page.records if record.state in states]
        if page.next:
            chosen.onward = Place(place.turn, page.next)
        else:
            chosen.onward = Place(place.turn + 1, b"") if place.turn + 1 < len(turns) else None
        if len(chosen.places) > ITEMS_MAX - PAGE or loop.time() >= ends_at:
            break
    return chosen
