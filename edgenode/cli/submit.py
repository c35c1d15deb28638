"""`edgenode submit`: send jobs in, and wait for them."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from edgenode.cli.jobs import print_card
from edgenode.cli.node_options import parse_labels
from edgenode.cli.output import (
    FAILED,
    UNKNOWN,
    JsonOption,
    UrlOption,
    client_of,
    console,
    error_fields,
    errors_told,
    exit_code,
    job_named,
    names_of,
    plain,
    print_json,
    tell_error,
)
from edgenode.core.types import Delivery, Partition

if TYPE_CHECKING:
    from edgenode.client import Client, ClientError, Job

LOOK_S: Final = 2.0
"""How long one request waits for a job's end before the display is brought up to date."""


def submit(
    task: Annotated[
        str | None, typer.Argument(metavar="TASK", help="The task's name.", show_default=False)
    ] = None,
    payload: Annotated[
        str | None,
        typer.Argument(
            metavar="PAYLOAD", help="A JSON object; - reads it from standard input.", show_default=False
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Send the jobs in this NDJSON file instead, one a line; - for standard input.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end, and show it.")] = False,
    wait_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="With --wait: when to stop waiting.", min=0)
    ] = 3600.0,
    batch: Annotated[
        bool,
        typer.Option(
            "--batch",
            help="As one request of up to 10,000 jobs: prints the id for `edgenode batch`, which has those "
            "without keys.",
        ),
    ] = False,
    count: Annotated[int, typer.Option(metavar="N", help="Submit so many of it.", min=1, max=100_000)] = 1,
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Idempotency key: all submissions of it, at any node, are one job."),
    ] = None,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="The queue.")] = None,
    priority: Annotated[int | None, typer.Option(metavar="0-9", help="0 (last) to 9 (first).")] = None,
    concurrency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Of the jobs with this key only so many run at a time in the mesh."),
    ] = None,
    concurrency_limit: Annotated[
        int | None, typer.Option(metavar="N", help="So many; 1 if not said.")
    ] = None,
    delay_s: Annotated[float | None, typer.Option(metavar="SECONDS", help="Before it may start.")] = None,
    run_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Not before, like 2030-01-31T12:00:00Z.")
    ] = None,
    timeout_s: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="That one attempt may take; then it is killed. 0: for ever."),
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(metavar="TIME", help="No start after, like 2030-01-31T12:00:00Z.")
    ] = None,
    max_attempts: Annotated[
        int | None, typer.Option(metavar="N", help="How often it is tried when it fails.")
    ] = None,
    backoff: Annotated[
        str | None,
        typer.Option(
            metavar="KIND[:BASE_S[:CAP_S]]",
            help="Seconds between attempts: constant:5, or exponential:1:300, from the base up to the cap.",
        ),
    ] = None,
    max_losses: Annotated[
        int | None, typer.Option(metavar="N", help="How often its runner may die before it has failed.")
    ] = None,
    delivery: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(Delivery),
            help="What a job whose runner was lost does: it starts again, or fails.",
        ),
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(Partition), help="What it does while a majority of its holders can't be reached."
        ),
    ] = None,
    acks: Annotated[
        str | None,
        typer.Option(metavar="N|all", help="Disks that must have it before it is accepted."),
    ] = None,
    ttl_s: Annotated[float | None, typer.Option(metavar="SECONDS", help="To keep it after its end.")] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A label that the node has to have; a bare KEY stands for KEY=yes; repeats.",
        ),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a job: a task's name, and its parameters as a JSON object.

    It is accepted when a majority of its holders has it on disk; from then on the mesh finishes it.
    With --wait the exit code is 0 only if every job succeeded.

    \b
    edgenode submit echo '{"message": "hello"}' --wait
    edgenode submit sleep '{"seconds": 2}' --count 20 --queue slow --wait
    edgenode submit echo '{"message": "hello"}' --key order-17     again: the same job
    edgenode submit image.resize - < parameters.json
    edgenode submit --file jobs.ndjson        lines like {"task": "echo", "payload": {"message": "hi"}}
    edgenode batch $(edgenode submit --file jobs.ndjson --batch) --wait
    """
    disks = int(acks) if acks is not None and acks.isdecimal() else acks
    options = {
        "idempotency_key": key, "queue": queue, "priority": priority, "delay_s": delay_s, "run_at": run_at,
        "timeout_s": timeout_s, "deadline": deadline, "max_attempts": max_attempts, "max_losses": max_losses,
        "delivery": delivery, "partition": partition, "acks": disks, "ttl_s": ttl_s,
        "requires": _required(require), "concurrency_key": concurrency_key,
        "concurrency_limit": concurrency_limit, "backoff": _backoff(backoff),
    }  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    documents = _documents(task, payload, file, given)
    for document in documents:
        _check_numbers(document)
    documents *= count
    if key is not None and len(documents) > 1:
        raise typer.BadParameter("a key is for one job", param_hint="--key")
    if batch:
        if wait:
            raise typer.BadParameter("wait with `edgenode batch ID --wait`", param_hint="--batch")
        if all(document.get("idempotency_key") for document in documents):
            text = (
                "jobs with keys are in no batch: leave it out, and follow them by their ids (or with --wait)"
            )
            raise typer.BadParameter(text, param_hint="--batch")
        raise typer.Exit(_submit_batch(url, documents, as_json=as_json))
    with errors_told(as_json=as_json):
        client = client_of(url)
        results = _send(client, documents, is_one=file is None and len(documents) == 1)
        if len(results) == 1 and isinstance(results[0], Exception):
            raise results[0]
        code = _tell_results(results, is_shown=not wait, as_json=as_json)
        accepted = [job for job in results if not isinstance(job, Exception)]
        if wait and accepted:
            for job in accepted:  # at once: whoever is interrupted from here on can still look for it
                typer.echo(f"{plain(job.id)} accepted, on {_disks(job)}", err=True)
            code = max(code, _wait(client, results, wait_timeout, as_json=as_json))
        elif wait and as_json:
            _print_results(results)
    raise typer.Exit(code)


def _send(
    client: Client, documents: Sequence[dict[str, Any]], *, is_one: bool
) -> Sequence[Job | ClientError]:
    if not is_one:  # also a file of one line, which may have names that are no options
        return client.submit_many(documents)
    (document,) = documents
    rest = {name: value for name, value in document.items() if name not in ("task", "payload")}
    return [client.submit(document["task"], document.get("payload"), **rest)]


def _submit_batch(url: str | None, documents: Sequence[dict[str, Any]], *, as_json: bool) -> int:
    """Send all in one request, and print the batch's id alone; the exit code. Those with keys are in none."""
    with errors_told(as_json=as_json):
        made = client_of(url).submit_batch(documents)
    if as_json:
        print_json({"batch": made.id or None, "jobs": _fields(made.jobs)})
        return max((exit_code(each) for each in made.jobs if isinstance(each, Exception)), default=0)
    if made.id:
        typer.echo(plain(made.id))
    accepted = [each for each in made.jobs if not isinstance(each, Exception)]
    typer.echo(f"{len(accepted)} of {len(made.jobs)} jobs accepted", err=True)
    keyed = [each.id for each in accepted if each.fields["idempotency_key"]]
    if keyed:
        typer.echo(f"{len(keyed)} of them have keys, and are in no batch: follow them by their ids", err=True)
    for job in dict.fromkeys(keyed):
        typer.echo(f"  {plain(job)}", err=True)
    return _tell_refusals(made.jobs)


# ------------------------------------------------------------------------------------------- arguments


def _documents(
    task: str | None, payload: str | None, file: str | None, options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    if file is not None:
        if task is not None:
            raise typer.BadParameter("give either a task or --file")
        return [document | dict(options) for document in _lines(file)]
    if task is None:
        raise typer.BadParameter("name a task, or give --file", param_hint="TASK")
    parameters: Any = {}
    if payload is not None:
        parameters = _object(sys.stdin.read() if payload == "-" else payload, "PAYLOAD")
    return [{"task": task, "payload": parameters} | dict(options)]


def _check_numbers(document: Mapping[str, Any]) -> None:
    """Refuse what Python reads as a number and JSON has no word for: NaN, and what is infinite."""
    try:
        json.dumps(document, allow_nan=False)
    except ValueError:
        raise typer.BadParameter("a number is infinite, too large for JSON, or none at all (NaN)") from None


def _lines(file: str) -> Iterator[dict[str, Any]]:
    try:
        with sys.stdin if file == "-" else open(file, encoding="utf-8") as source:
            lines = [(number, line) for number, line in enumerate(source, 1) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"cannot read {file}: {error}", param_hint="--file") from None
    if not lines:
        raise typer.BadParameter(f"there is no job in {file}", param_hint="--file")
    for number, line in lines:
        document = _object(line, f"--file, line {number}")
        if not isinstance(document.get("task"), str):
            raise typer.BadParameter("a job names its task", param_hint=f"--file, line {number}")
        yield document


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint=where) from None
    if not isinstance(found, dict):
        raise typer.BadParameter('not a JSON object, like {"message": "hello"}', param_hint=where)
    return found


def _required(texts: Sequence[str] | None) -> dict[str, str] | None:
    if not texts:
        return None
    labels = parse_labels(texts, "--require")
    wanted = dict(labels)
    if len(wanted) < len(labels):
        raise typer.BadParameter("no label can have two values at once", param_hint="--require")
    return wanted


def _backoff(text: str | None) -> dict[str, Any] | None:
    """What the API takes for KIND[:BASE_S[:CAP_S]]; which kinds there are is for it to say."""
    if text is None:
        return None
    kind, *seconds = text.split(":")
    try:
        names = ("base_s", "cap_s")[: len(seconds)]
        return {"kind": kind} | dict(zip(names, map(float, seconds), strict=True))
    except ValueError:
        text = "expected KIND[:BASE_S[:CAP_S]], like exponential:1:300"
        raise typer.BadParameter(text, param_hint="--backoff") from None


# --------------------------------------------------------------------------------------------- telling


def _tell_results(results: Sequence[Job | ClientError], *, is_shown: bool, as_json: bool) -> int:
    """Say what was taken (ids on stdout, if `is_shown`) and what was not (on stderr); the exit code."""
    errors = [result for result in results if isinstance(result, Exception)]
    if is_shown and as_json:
        _print_results(results)
    elif is_shown:
        for job in results:
            if not isinstance(job, Exception):
                again = ", submitted before" if job.fields.get("receipt", {}).get("replayed") else ""
                typer.echo(plain(job.id))
                typer.echo(f"{plain(job.task)} {plain(job.state)}, on {_disks(job)}{again}", err=True)
    if is_shown and as_json:
        return max(map(exit_code, errors), default=0)
    return _tell_refusals(results, as_json=as_json)


def _tell_refusals(results: Sequence[Job | ClientError], *, as_json: bool = False) -> int:
    """Say what was not taken, and why, on stderr; the exit code."""
    errors = [result for result in results if isinstance(result, Exception)]
    told = Counter(str(error) for error in errors)
    first = {str(error): error for error in reversed(errors)}
    for text, times in told.most_common(5):
        if times > 1:
            typer.echo(f"{times} jobs:", err=True)
        tell_error(first[text], as_json=as_json)
    unknown = [error for error in errors if not error.definite]
    if len(unknown) < len(errors):
        typer.echo(f"{len(errors) - len(unknown)} of {len(results)} jobs were not accepted", err=True)
    if unknown:
        typer.echo(f"{len(unknown)} of {len(results)} jobs may have been accepted", err=True)
    for named in filter(None, map(job_named, unknown)):
        typer.echo(f"  {plain(named)}", err=True)
    return max(map(exit_code, errors), default=0)


def _print_results(results: Sequence[Job | ClientError]) -> None:
    """One submitted job as an object; several as `jobs`, in order, with its problem in the place of each that
    was not taken."""
    shown = _fields(results)
    print_json(shown[0] if len(shown) == 1 else {"jobs": shown})


def _fields(results: Sequence[Job | ClientError]) -> list[dict[str, Any]]:
    return [error_fields(each) if isinstance(each, Exception) else dict(each.fields) for each in results]


def _disks(job: Job) -> str:
    count = job.fields.get("receipt", {}).get("acks", 0)
    return "1 disk" if count == 1 else f"{count} disks"


# --------------------------------------------------------------------------------------------- waiting


def _wait(client: Client, results: Sequence[Job | ClientError], timeout: float, *, as_json: bool) -> int:
    """Follow the accepted jobs to their ends, and show them; the exit code."""
    from edgenode.client import ClientError

    jobs = [job for job in results if not isinstance(job, ClientError)]
    try:
        client.learn()
    except ClientError as error:
        typer.echo(f"other nodes are not known: {plain(error)}", err=True)
    latest = {job.id: job for job in jobs}
    with _display(len(jobs)) as show:
        _follow(client, latest, time.monotonic() + timeout, show)
    ended = [latest[job.id] for job in jobs]
    waiting = [job for job in ended if not job.has_ended]
    if as_json:
        _print_results([each if isinstance(each, ClientError) else latest[each.id] for each in results])
    elif len(ended) == 1:
        print_card(ended[0].fields, names_of(client))
    else:
        for job in ended:
            typer.echo(
                f"{plain(job.id)} {plain(job.task)} {plain(job.state)} {plain(job.error or '')}".rstrip()
            )
    if waiting:
        typer.echo(
            f"{len(waiting)} of {len(ended)} jobs have not ended after {timeout:g} s; they go on", err=True
        )
        return UNKNOWN
    return 0 if all(job.succeeded for job in ended) else FAILED


def _follow(
    client: Client, latest: dict[str, Job], ends_at: float, show: Callable[[Mapping[str, Job]], None]
) -> None:
    """Bring `latest` up to date until all have ended, or the time is up.

    One job is waited for at a time: while the first runs the others do too, so the whole takes as long as the
    slowest, and a request or two for each.
    """
    show(latest)
    for job in list(latest):
        while not latest[job].has_ended and (left_s := ends_at - time.monotonic()) > 0:
            # At least a second, the least that HTTP can ask for: less would be a busy loop.
            latest[job] = client.get(job, wait_s=max(1.0, min(LOOK_S, left_s)))
            show(latest)


@contextmanager
def _display(count: int) -> Iterator[Callable[[Mapping[str, Job]], None]]:
    """Shows how far the jobs are: a live line on a terminal, else a line for each change; on stderr."""
    if not sys.stderr.isatty():
        seen = ""

        def print_change(latest: Mapping[str, Job]) -> None:
            nonlocal seen
            if (summary := _summary(latest)) != seen:
                seen = summary
                typer.echo(summary, err=True)

        yield print_change
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    progress = Progress(
        SpinnerColumn(), BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn(),
        console=console(to_stderr=True), transient=True,
    )  # fmt: skip
    with progress:
        bar = progress.add_task("", total=count)

        def update(latest: Mapping[str, Job]) -> None:
            ended = sum(job.has_ended for job in latest.values())
            progress.update(bar, completed=ended, description=_summary(latest))

        yield update


def _summary(latest: Mapping[str, Job]) -> str:
    """`running`, or for several `3 succeeded, 2 running`; "so far" for an outcome that is not settled."""
    states = Counter(plain(job.state) + ("" if job.has_ended or not job.fields["finished_at"] else " so far")
                     for job in latest.values())  # fmt: skip
    if len(latest) == 1:
        return next(iter(states))
    return ", ".join(f"{count} {state}" for state, count in states.most_common())
