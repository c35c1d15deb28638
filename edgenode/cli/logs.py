"""`edgenode logs`: what a job's starts wrote and logged, wherever they ran."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from edgenode.cli.jobs import JobArgument
from edgenode.cli.output import (
    UNKNOWN,
    JsonOption,
    UrlOption,
    client_of,
    errors_told,
    names_of,
    plain,
    print_json,
)

if TYPE_CHECKING:
    from edgenode.client import Client

LOOK_S: Final = 1.0

Name = Callable[[object], str]


def show_logs(
    job: JobArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended: a look about every second.")
    ] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a job wrote (stdout, stderr, `ctx.log`), start by start: also that of a node that is dead.

    \b
    edgenode logs 01930000-0000-7000-8000-000000000000
    edgenode logs 01930000-0000-7000-8000-000000000000 --follow
    """
    if follow and as_json:
        raise typer.BadParameter("JSON is one document: it cannot be followed", param_hint="--json")
    with errors_told(as_json=as_json):
        client = client_of(url)
        if follow:
            _follow(client, job)
            return
        found = client.logs(job)
        if as_json:
            print_json(found)
            return
        name = names_of(client)
    Shown(name).show(found)
    if found["unanswered"]:
        silent = ", ".join(map(name, sorted(found["unanswered"])))
        typer.echo(f"there may be more: not heard: {silent}", err=True)
        raise typer.Exit(0 if found["starts"] else UNKNOWN)
    if not found["starts"]:
        typer.echo("it has written nothing", err=True)


def _follow(client: Client, job: str) -> None:
    from edgenode.client.job import ENDS

    shown = Shown(names_of(client))
    has_ended = client.get(job).state in ENDS
    while True:
        shown.show(client.logs(job))
        if has_ended:
            return
        has_ended = client.get(job, wait_s=LOOK_S).state in ENDS  # asked first: all was said before the end


class Shown:
    """Writes what is new since the last time."""

    def __init__(self, name: Name) -> None:
        self._name = name
        self._bytes: dict[tuple[int, str, int], int] = {}  # written, by start
        self._last: tuple[int, str, int] | None = None
        self._is_line_open = False

    def show(self, found: Mapping[str, Any]) -> None:
        for start in found["starts"]:
            self._show_start(start)

    def _show_start(self, start: Mapping[str, Any]) -> None:
        key = (start["term"], start["owner"], start["start"])
        before = self._bytes.get(key, 0)
        if key in self._bytes and start["bytes"] == before:
            return
        self._bytes[key] = start["bytes"]
        if key != self._last:
            self._end_line()
            self._last = key
            token = f"{start['term']}.{self._name(start['owner'])}.{start['start']}"
            runner = self._name(start["runner"])
            typer.echo(f"--- attempt {start['attempt']}, start {token}, on {runner} ---")
        for begin, part in _parts(start):
            if isinstance(part, int):
                if begin + part > before:
                    self._end_line()
                    typer.echo(f"[{begin + part - max(begin, before)} bytes are missing]")
            elif begin + len(part) > before:
                text = _readable(part[max(0, before - begin) :].decode(errors="replace"))
                typer.echo(text, nl=False)
                self._is_line_open = not text.endswith("\n")

    def _end_line(self) -> None:
        if self._is_line_open:
            typer.echo()
            self._is_line_open = False


def _parts(start: Mapping[str, Any]) -> Iterator[tuple[int, bytes | int]]:
    """The text in order, each piece with the place where it begins; for what is missing its size."""
    text: bytes = start["text"].encode()
    at = 0
    for begin, end in [*start["missing"], (start["bytes"], start["bytes"])]:
        if begin > at:
            yield at, text[: begin - at]
            text = text[begin - at :]
        if end > begin:
            yield begin, end - begin
        at = end


def _readable(text: str) -> str:
    """As it was written, but for what would move the cursor or colour the screen."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join("\t".join(map(plain, line.split("\t"))) for line in lines)
