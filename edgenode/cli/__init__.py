"""The `edgenode` command. Commands import what they need when they run: `--help` must not cost a second."""

from __future__ import annotations

from typing import Annotated

import typer

from edgenode.cli.batch import show_batch
from edgenode.cli.change import cancel, retry
from edgenode.cli.jobs import show_job, show_jobs, show_placement
from edgenode.cli.keys import keys
from edgenode.cli.logs import show_logs
from edgenode.cli.nodes import show_nodes
from edgenode.cli.queues import change_queue, show_queues
from edgenode.cli.regulate import drain, undrain, weight
from edgenode.cli.run import run
from edgenode.cli.simulate import simulate
from edgenode.cli.submit import submit
from edgenode.cli.tasks import show_tasks
from edgenode.cli.up import up

EXIT_CODES = (
    "Exit codes: 0 done · 1 the job failed, or is not known; or a simulated mesh broke a promise · "
    "2 wrong usage, or the job was refused · 3 no node answers, or the outcome is not known · 130 interrupted"
)

app = typer.Typer(
    name="edgenode",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # help in colour would take three times as long (0.33 s instead of 0.12 s)
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(up)
app.command("run")(run)
app.command("submit")(submit)
app.command("jobs")(show_jobs)
app.command("job")(show_job)
app.command("logs")(show_logs)
app.command("batch")(show_batch)
app.command("cancel")(cancel)
app.command("retry")(retry)
app.command("queues")(show_queues)
app.command("queue")(change_queue)
app.command("nodes")(show_nodes)
app.command("placement")(show_placement)
app.command("drain")(drain)
app.command("undrain")(undrain)
app.command("weight")(weight)
app.command("tasks")(show_tasks)
app.command("simulate")(simulate)
app.add_typer(keys, name="key")


def _print_version(wanted: bool) -> None:
    if wanted:
        from edgenode import __version__

        typer.echo(f"edgenode {__version__}")
        raise typer.Exit


@app.callback()
def edgenode(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """A peer-to-peer mesh that runs background jobs: no broker, no leader, any node takes any job.

    \b
    edgenode up -n 5                                    five nodes on this machine
    edgenode submit echo '{"message": "hello"}' --wait     run a job, and show its result
    edgenode jobs --state failed                        what went wrong
    edgenode nodes                                      who is there

    Commands ask the nodes in EDGENODE_URL (several, comma-separated, stand in for each other), or
    http://127.0.0.1:8701.
    """


def main() -> None:
    """The entry point: runs the command that the arguments name, and exits with its code."""
    app()
