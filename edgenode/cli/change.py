"""`edgenode cancel` and `retry`: have jobs end, or be tried again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

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
    names_of,
    plain,
    print_json,
    tell_unheard,
)

if TYPE_CHECKING:
    from edgenode.client import Client

IdsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="ID...", help="Ids of jobs; without, all that fit the options.")
]
RetriedState = Annotated[
    str | None,
    typer.Option(
        metavar="STATE", help="Only failed, expired or cancelled ones. [default: failed and expired]"
    ),
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

    Exits with 1 if one of them had ended otherwise, or is not known; with 3 if it is not sure of one, or
    members were not heard that may have jobs which fit.
    """
    with errors_told(as_json=as_json):
        client = client_of(url)
        answers = client.cancel_many(ids or (), **_filters(ids, state, task, queue))
        silent = sorted(answers.unanswered)
        _tell(answers, "cancelled", silent, client, as_json=as_json)
    late = any("id" not in each or each["state"] in TOO_LATE for each in answers)
    raise typer.Exit(_code(answers, silent, is_bad=late))


def retry(
    ids: IdsArgument = None,
    state: RetriedState = None,
    task: TaskOption = None,
    queue: QueueOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try again the work of jobs that failed, were cancelled or have expired: each as a new job.

    However often that is asked for, each of them has one such job. Its own retry is asked for by its own id.
    Without ids those that had been tried again before are left out, and what somebody cancelled unless
    --state cancelled is said.

    \b
    edgenode retry 01930000-0000-7000-8000-000000000000
    edgenode retry --task image.resize
    edgenode retry --state cancelled --queue mail

    Exits with 1 if there is no new job for one of them; with 3 if it is not sure of one, or members were not
    heard that may have jobs which fit.
    """
    from edgenode.client import Job

    with errors_told(as_json=as_json):
        client = client_of(url)
        made = client.retry_many(ids or (), **_filters(ids, state, task, queue))
        answers = [each.fields if isinstance(each, Job) else getattr(each, "problem", {}) for each in made]
        silent = sorted(made.unanswered)
        _tell(answers, "submitted again", silent, client, as_json=as_json, skipped=made.skipped)
    raise typer.Exit(_code(answers, silent, is_bad=any("receipt" not in each for each in answers)))


def _filters(
    ids: Sequence[str] | None, state: str | None, task: str | None, queue: str | None
) -> dict[str, Any]:
    said = {"state": state, "task": task, "queue": queue}
    filters = {name: value for name, value in said.items() if value}
    if bool(ids) == bool(filters):
        raise typer.BadParameter("name jobs by their ids, or by --state, --task and --queue")
    return filters


def _code(answers: Sequence[Mapping[str, Any]], silent: Sequence[str], *, is_bad: bool) -> int:
    unsure = any(each.get("definite") is False for each in answers)
    return UNKNOWN if unsure or silent else FAILED if is_bad else 0


def _tell(
    answers: Sequence[Mapping[str, Any]],
    done: str,
    silent: Sequence[str],
    client: Client,
    *,
    as_json: bool,
    skipped: int | None = None,
) -> None:
    """Ids on stdout, one a line, for pipes; what went otherwise on stderr."""
    if as_json:
        counted = {} if skipped is None else {"skipped": skipped}
        print_json({"jobs": answers, "unanswered": silent} | counted)
    else:
        _tell_each(answers)
    if skipped and not as_json:
        typer.echo(f"{skipped} had been tried again before: see `edgenode jobs --retried`", err=True)
    if silent:
        tell_unheard(silent, plain if as_json else names_of(client), found=bool(answers))
    elif not answers and not skipped and not as_json:
        typer.echo(f"no such jobs: nothing {done}", err=True)


def _tell_each(answers: Sequence[Mapping[str, Any]]) -> None:
    for each in answers:
        if "id" in each and each.get("state") in TOO_LATE and "receipt" not in each:
            typer.echo(f"{plain(each['id'])} has {plain(each['state'])}: nothing to do", err=True)
        elif "id" in each:
            typer.echo(plain(each["id"]))
        else:
            typer.echo(f"{plain(each.get('job'))}: {plain(each.get('detail'))}", err=True)
