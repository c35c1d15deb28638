"""`edgenode cancel` and `retry`: have jobs end, or be tried again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from edgenode.cli.output import (
    FAILED,
    UNKNOWN,
    JsonOption,
    QueueOption,
    StateOption,
    TaskOption,
    UrlOption,
    client_of,
    errors_told,
    plain,
    print_json,
)

IdsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="ID...", help="Ids of jobs; without, all that fit the options.")
]
TOO_LATE: Final = ("succeeded", "failed", "expired")


def cancel(
    ids: IdsArgument = None,
    state: StateOption = None,
    task: TaskOption = None,
    queue: QueueOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """End jobs: those that wait at once, those that run by telling their tasks, and killing them 2 s later.

    \b
    edgenode cancel 01930000-0000-7000-8000-000000000000
    edgenode cancel --task image.resize --state queued

    Exits with 1 if one of them had ended otherwise, or is not known.
    """
    with errors_told(as_json=as_json):
        answers = client_of(url).cancel_many(ids or (), **_filters(ids, state, task, queue))
        if as_json:
            print_json({"jobs": answers})
    late = any("id" not in each or each["state"] in TOO_LATE for each in answers)
    if not as_json:
        _tell(answers, "cancelled")
    unsure = any(each.get("definite") is False for each in answers)
    raise typer.Exit(UNKNOWN if unsure else FAILED if late else 0)


def retry(
    ids: IdsArgument = None,
    state: StateOption = None,
    task: TaskOption = None,
    queue: QueueOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try again the work of jobs that failed, were cancelled or have expired: each as a new job.

    However often that is asked for, each of them has one such job. Its own retry is asked for by its own id.

    \b
    edgenode retry 01930000-0000-7000-8000-000000000000
    edgenode retry --state failed --task image.resize
    """
    from edgenode.client import Job

    with errors_told(as_json=as_json):
        made = client_of(url).retry_many(ids or (), **_filters(ids, state, task, queue))
        answers = [each.fields if isinstance(each, Job) else getattr(each, "problem", {}) for each in made]
        if as_json:
            print_json({"jobs": answers})
    if not as_json:
        _tell(answers, "submitted again")
    unsure = any(each.get("definite") is False for each in answers)
    raise typer.Exit(UNKNOWN if unsure else FAILED if any("receipt" not in each for each in answers) else 0)


def _filters(
    ids: Sequence[str] | None, state: str | None, task: str | None, queue: str | None
) -> dict[str, str]:
    said = {"state": state, "task": task, "queue": queue}
    filters = {name: value for name, value in said.items() if value}
    if bool(ids) == bool(filters):
        raise typer.BadParameter("name jobs by their ids, or by --state, --task and --queue")
    return filters


def _tell(answers: Sequence[Mapping[str, Any]], done: str) -> None:
    """Ids on stdout, one a line, for pipes; what went otherwise on stderr."""
    for each in answers:
        if "id" in each and each.get("state") in TOO_LATE and "receipt" not in each:
            typer.echo(f"{plain(each['id'])} has {plain(each['state'])}: nothing to do", err=True)
        elif "id" in each:
            typer.echo(plain(each["id"]))
        else:
            typer.echo(f"{plain(each.get('job'))}: {plain(each.get('detail'))}", err=True)
    if not answers:
        typer.echo(f"no such jobs: nothing {done}", err=True)
