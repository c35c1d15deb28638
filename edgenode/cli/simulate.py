"""`edgenode simulate`: whole meshes in one thread, hurt as a seed says, and judged."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from edgenode.cli.output import FAILED, INTERRUPTED, USAGE, JsonOption, console, print_json
from edgenode.sim.faults import HURT_S, Family

if TYPE_CHECKING:
    from edgenode.sim.campaign import Ended, Failed, Tally
    from edgenode.sim.story import Story
    from edgenode.sim.trial import Plan

PROGRESS_EVERY_S: Final = 2.0
FAILURES_SHOWN: Final = 5
NODES_MAX: Final = 9
REPLICAS_MAX: Final = 5


def simulate(
    seed: Annotated[int, typer.Option(min=0, help="Which run; everything in it follows from this.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="So many runs, from --seed on.")] = 1,
    nodes: Annotated[
        int | None,
        typer.Option(min=1, max=NODES_MAX, help="As many at the start.  [default: as the seed says]"),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(min=1, max=REPLICAS_MAX, help="Copies of a job.  [default: as the seed says]"),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=1, max=600, help="How long faults strike, in simulated seconds.")
    ] = HURT_S,
    without: Annotated[
        list[Family] | None,
        typer.Option(
            metavar="FAULTS",
            help=f"Leave these out of what the seed has in store; repeats. {', '.join(Family)}.",
        ),
    ] = None,
    story: Annotated[bool, typer.Option("--story", help="Tell the life of one job of this seed.")] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Tell every message, write and fault of this seed.")
    ] = False,
    job: Annotated[
        str,
        typer.Option(
            metavar="JOB",
            help="Which job --story, or --trace, is to be about: j3, or its id.  [default of --story: "
            "the most eventful one]",
        ),
    ] = "",
    processes: Annotated[
        int, typer.Option(min=1, help="Seeds that run at one time.", show_default="processors")
    ] = max(1, os.cpu_count() or 1),
    as_json: JsonOption = False,
) -> None:
    """Try the protocol in simulated meshes: nodes die, disks fail, networks break, clocks lie.

    Each seed makes a mesh of the same code that `edgenode run` runs, with simulated network, disks and
    clocks. It is hurt for a while, then everything is healed, and all that was acknowledged must end well,
    once, and alike everywhere. The same seed is the same run, on every machine.

    \b
    edgenode simulate                                     one run
    edgenode simulate --seed 7 --nodes 5 --story          what became of one job, in words
    edgenode simulate --seed 7 --trace --job j3           each message and write about job j3
    edgenode simulate --seeds 1000                        many, on all processors
    edgenode simulate --seed 7 --without cuts --without clocks    the same run, with fewer faults

    Exits with 0 if every promise was kept, with 1 if one was broken.
    """
    if seeds > 1 and (story or trace):
        raise typer.BadParameter("a story is of one seed: --seeds does not go with it")
    if job and not (story or trace):
        raise typer.BadParameter("--job says what --story or --trace is about")
    from edgenode.sim.trial import Plan

    plans = [
        Plan(
            each,
            nodes=nodes or 0,
            replicas=replicas or 0,
            hurt_s=seconds,
            without=frozenset(without or ()),
        )
        for each in range(seed, seed + seeds)
    ]
    try:
        if seeds == 1:
            fine = _one(plans[0], story=story, trace=trace, job=job, as_json=as_json)
        else:
            fine = _many(plans, processes, as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if not fine:
        raise typer.Exit(FAILED)


# ------------------------------------------------------------------------------------------- one seed


def _one(plan: Plan, *, story: bool, trace: bool, job: str, as_json: bool) -> bool:
    from edgenode.sim.campaign import Tally, play
    from edgenode.sim.story import Story

    began = time.monotonic()
    told = Story(whole=story or trace)
    ended = play(plan, told)
    tally = Tally()
    tally.add(ended)
    if job and told.job(job) is None:
        typer.echo(
            f"error: seed {plan.seed} has no job {job}: they are j0 to j{len(told.jobs) - 1}", err=True
        )
        raise typer.Exit(USAGE)
    if as_json:
        fields = _fields(tally, time.monotonic() - began)
        extra = {"story": _life(told, job, as_json=True)} if story else {}
        print_json(fields | extra | ({"trace": list(told.lines(job))} if trace else {}))
        return not tally.failed
    if trace:
        for line in told.lines(job):
            typer.echo(line)
    if story:
        for line in _life(told, job, as_json=False):
            typer.echo(line)
    if story or trace:
        typer.echo()
    _print_one(ended, time.monotonic() - began)
    return not tally.failed


def _life(story: Story, job: str, *, as_json: bool) -> Any:
    from edgenode.sim.biography import biographies, most_eventful, tell

    lives = biographies(story)
    named = story.job(job)
    life = most_eventful(lives) if named is None else lives[named]
    if life is None:
        return None if as_json else ["no job was submitted"]
    if not as_json:
        return tell(story, life)
    passages = [
        {"at": round(each.at, 6), "text": each.text, "fault": each.is_fault} for each in life.passages
    ]
    return {"job": story.name(life.job), "passages": passages}


def _print_one(ended: Ended, took_s: float) -> None:
    from edgenode.sim.campaign import Failed
    from edgenode.sim.strikes import told

    if isinstance(ended, Failed):
        _print_failure(ended)
        return
    typer.echo(f"seed {ended.seed} kept every promise")
    typer.echo(
        f"  mesh    {_counted(ended.nodes, 'node')}, {_counted(ended.replicas, 'copy', 'copies')} of a job"
    )
    typer.echo(
        f"  jobs    {ended.jobs:,} submitted, {ended.acknowledged:,} acknowledged, {ended.starts:,} starts"
    )
    typer.echo(f"  faults  {told(ended.strikes)}")
    typer.echo(
        f"  time    {ended.simulated_s:.1f} simulated seconds in {took_s:.1f}, {ended.events:,} events"
    )
    typer.echo(f"  digest  {ended.digest}")


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _print_failure(failed: Failed) -> None:
    typer.echo(f"seed {failed.seed} FAILED: {failed.error}")
    for note in failed.notes:
        typer.echo(note)
    typer.echo(f"again, with all that happened: edgenode simulate --seed {failed.seed} --trace")


# ------------------------------------------------------------------------------------------ many seeds


def _many(plans: Sequence[Plan], processes: int, *, as_json: bool) -> bool:
    from edgenode.sim.campaign import Failed, Tally, campaign

    tally = Tally()
    began = said = time.monotonic()
    try:
        for ended in campaign(plans, processes):
            tally.add(ended)
            if isinstance(ended, Failed) and len(tally.failed) <= FAILURES_SHOWN and not as_json:
                _print_failure(ended)
            if time.monotonic() - said >= PROGRESS_EVERY_S:
                said = time.monotonic()
                typer.echo(_progress(tally, len(plans), said - began), err=True)
    finally:
        took_s = time.monotonic() - began
        if as_json:
            print_json(_fields(tally, took_s))
        else:
            _print_many(tally, len(plans), took_s)
    return not tally.failed


def _progress(tally: Tally, total: int, took_s: float) -> str:
    return f"{tally.done:,} of {total:,} seeds, {len(tally.failed)} failed, {took_s:.0f} s"


def _print_many(tally: Tally, total: int, took_s: float) -> None:
    from rich.table import Table

    from edgenode.sim.strikes import FAMILY, possible

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("FAULT")
    table.add_column("STRUCK", justify="right")
    table.add_column("IN SEEDS", justify="right")
    table.add_column("LEFT OUT BY")
    for name in possible():
        table.add_row(
            name, f"{tally.strikes[name]:,}", f"{tally.struck_in[name]:,}", f"--without {FAMILY[name]}"
        )
    console().print(table)
    typer.echo()
    typer.echo(_progress(tally, total, took_s))
    typer.echo(
        f"{tally.submitted:,} jobs submitted, {tally.acknowledged:,} acknowledged, "
        f"{tally.starts:,} starts, {tally.events:,} events"
    )
    if tally.failed:
        typer.echo(f"failing seeds: {' '.join(map(str, _seeds(tally.failed)))}")
    else:
        typer.echo("every promise was kept" + ("" if tally.done == total else ", as far as it came"))


def _seeds(failed: Iterable[Failed]) -> list[int]:
    return sorted(each.seed for each in failed)


def _fields(tally: Tally, took_s: float) -> dict[str, Any]:
    return {
        "passed": tally.passed,
        "failed": [
            {"seed": each.seed, "error": each.error, "notes": list(each.notes)}
            for each in sorted(tally.failed, key=lambda failed: failed.seed)
        ],
        "submitted": tally.submitted,
        "acknowledged": tally.acknowledged,
        "starts": tally.starts,
        "events": tally.events,
        "faults": {str(name): count for name, count in sorted(tally.strikes.items())},
        "took_s": round(took_s, 3),
    }
