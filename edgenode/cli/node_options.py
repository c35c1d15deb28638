"""Options of a node that `run` has for one, and `up` for each of several; and how they are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Final

import typer

from edgenode.core.settings import PRESETS, JobSettings
from edgenode.core.types import WORD, WORD_TEXT, is_host, label_of

SIZE: Final = re.compile(r"(\d{1,15}) ?([KMG]?)(?:i?B)?", re.IGNORECASE | re.ASCII)
UNFINISHED_MAX: Final = JobSettings().unfinished_max
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


def parse_address(text: str, option: str) -> tuple[str, int]:
    """HOST:PORT, with an IPv6 host in brackets.

    Raises:
        typer.BadParameter: it is not one.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not is_host(host) or not port.isdecimal() or int(port) > 65_535:
        raise typer.BadParameter(f"expected HOST:PORT, as in 127.0.0.1:8701, not {text!r}", param_hint=option)
    return host, int(port)


def parse_size(text: str) -> int:
    """A number of bytes, or of K, M or G of them (1024 each time).

    Raises:
        typer.BadParameter: it is not one.
    """
    found = SIZE.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"expected a number of bytes, as in 512M or 2G, not {text!r}")
    return int(found[1]) << 10 * " KMG".index(found[2].upper() or " ")


def parse_labels(texts: Iterable[str], option: str) -> tuple[tuple[str, str], ...]:
    """Labels, sorted: each KEY=VALUE, or a bare KEY, which stands for KEY=yes.

    Raises:
        typer.BadParameter: one is neither.
    """
    return tuple(sorted({_parse_label(text, option) for text in texts}))


def _parse_label(text: str, option: str) -> tuple[str, str]:
    key, value = label_of(text)
    if not (WORD.fullmatch(key) and WORD.fullmatch(value)):
        raise typer.BadParameter(
            f"expected KEY=VALUE or KEY, as in zone=north or gpu, not {text!r}: each is {WORD_TEXT}",
            param_hint=option,
        )
    return key, value


def _one_of(known: Collection[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in known:
            raise typer.BadParameter(f"expected one of {', '.join(known)}, not {text!r}")
        return text.lower()

    return parse


Tasks = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SOURCE", help="Module or .py file with tasks; repeats. [default: the built-in ones]"
    ),
]
Slots = Annotated[
    int,
    typer.Option(
        min=1,
        max=1024,
        metavar="N",
        help="Jobs that run at one time on a node, each in a process of its own.",
    ),
]
AsyncSlots = Annotated[
    int,
    typer.Option(
        min=1, max=10_000, metavar="N", help="Coroutines that run on a node besides, in one process."
    ),
]
WorkerMaxJobs = Annotated[
    int, typer.Option(min=0, metavar="N", help="After so many jobs a worker process is replaced; 0: never.")
]
WorkerMaxMemory = Annotated[
    int,
    typer.Option(
        parser=parse_size,
        metavar="SIZE",
        help="A worker process with more after a job is replaced, as in 512M; 0: never.",
    ),
]
MaxJobs = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Unfinished jobs for each node of the mesh, past which submissions are refused (429).",
    ),
]
Label = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="What jobs may require; a bare KEY stands for KEY=yes; repeats."),
]
Replicas = Annotated[
    int | None,
    typer.Option(min=1, max=16, metavar="R", help="Disks per job, the same at all nodes. [default: 3]"),
]
Profile = Annotated[
    str,
    typer.Option(parser=_one_of(PRESETS), metavar="|".join(PRESETS), help="How patient to be with peers."),
]
ForgetAfter = Annotated[
    float | None,
    typer.Option(
        min=1,
        metavar="SECONDS",
        help="Until a dead member is forgotten. [default: local 60, lan 300, wan 1800]",
    ),
]
DrainLimit = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=86_400,
        metavar="SECONDS",
        help="That running jobs may take after SIGTERM, or in a drain. [default: 10]",
    ),
]
LogLevel = Annotated[
    str, typer.Option(parser=_one_of(LOG_LEVELS), metavar="|".join(LOG_LEVELS), help="What is logged.")
]
