"""How fast is a mesh of three nodes on this machine, and what does a job cost it?

    python scripts/bench.py                              all of it (6 minutes)
    python scripts/bench.py --quick                      whether it works, not how fast (1 minute)
    python scripts/bench.py --only latency,end-to-end    some of it
    python scripts/bench.py --peers                      other systems too, where they are installed
    python scripts/bench.py --only held,finished --held 10000,100000,1000000 --fill-s 1800

The nodes are real processes with data folders of their own (profile `lan`); one more makes the load. All
share this machine's processors, so a figure says what the whole machine does, load included.

What --only can name:

    start        from starting three processes until each sees all three ready; a start after kill -9
    idle         memory, CPU and bytes sent of a node in a mesh of five while nobody asks for anything
    latency      one client, one job at a time, `Prefer: wait`: from sending the job until its settled result
    end-to-end   from the first job sent until the last is settled: single requests by 1, 16 and 64 clients,
                 and batches; for batches also the time until all results were read back, from a list at the
                 end, or from the answers to the batches (`Prefer: wait`)
    half-load    `latency` beside jobs that come at half the rate of the batches above
    run          jobs that wait in a paused queue, from its release until the last is settled
    reads        GET of one job, at a node that does not own it
    late         how late jobs with a day start, and how late timeouts end what runs
    submit       jobs that are due in an hour, so that nothing runs: single requests, and batches
    failover     kill -9, SIGSTOP, SIGTERM of a node that runs jobs (`make failover` does it a hundred times)
    held         memory, disk and start-up with --held jobs in a paused queue, and how fast more come in, in
                 turns with a mesh that has few
    finished     the same with as many finished ones, and how fast a mesh is that has them, in turns with one
                 that has none. They are written to the disks: a million takes some minutes
    peers        other systems on the same work: no-op jobs, results read back by one process. --peers adds
                 this to the others; for ratios it needs `latency` and `end-to-end` in the same run. Our
                 results are those in the answers

Jobs echo a message of some 100 bytes, in a worker process (`workers`: the built-in `echo`) or in the node
itself (`inline`). Every submission counts only with its 202: stored and fsynced on `acks` of the job's
holders. Every job of a rate was read back: settled, with the message that was sent; what was not is said
at the end, and the exit code is 1. A rate comes with what one job cost: CPU of all nodes together, of all
their workers, and of the load; bytes sent between nodes and bytes written to disks. On a machine that does
other work too, that says more than the rate. One turn on a busy machine says little: --repeat 3 takes all of
it (but failover, held and finished) in turns, the other systems too, and tells medians.

--peers needs other systems, which edgenode itself never does. In a virtual environment of their own:

    python3 -m venv /tmp/peers
    /tmp/peers/bin/pip install "celery[redis]" taskiq taskiq-redis distributed ray nats-py uvloop
    apt-get install redis-server nats-server
    python scripts/bench.py --peers --peer-python /tmp/peers/bin/python

What is not installed is a line that says so. Each has its data in a temporary folder, and ports of its own on
127.0.0.1, and is ended afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import bench_finished
import bench_peers
import bench_plot
import bench_readme
import bench_speed
import bench_state
from bench_figures import as_json, table, write_csv
from bench_load import EMPTY_PAYLOAD
from bench_machine import environment
from bench_mesh import NODES, PROFILE, SLOTS, Bench, Options
from failover import ending_on_sigterm
from rich.console import Console

from edgenode.client import Client, ClientError
from edgenode.core.errors import EdgeNodeError

FIRST_PORT: Final = 25_000
PARTS: Final[Mapping[str, Callable[[Bench], None]]] = {
    "start": bench_state.start,
    "idle": bench_state.idle,
    "latency": bench_speed.latency,
    "end-to-end": bench_speed.end_to_end,
    "half-load": bench_speed.loaded,
    "run": bench_speed.running,
    "reads": bench_speed.reads,
    "late": bench_state.lateness,
    "submit": bench_speed.submissions,  # leaves jobs behind: the last on the mesh that all share
    "failover": bench_state.failover,
    "held": bench_state.held,
    "finished": bench_finished.finished,
}
OWN_MESH: Final = ("failover", "held", "finished")
"""Not repeated, too: these have their own number of times, or take long."""
HELD_MAX: Final = 1_000_000
PLACES: Final = frozenset({"--json", "--csv", "--readme", "--plot", "--peer-python", "--base-port"})


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="NAME,...", help="some of the measurements above")
    parser.add_argument("--seconds", type=float, help="each measurement takes (default 3)")
    parser.add_argument(
        "--repeat",
        type=int,
        default=1,
        metavar="N",
        help="measure in N turns; tell medians (default 1)",
    )
    parser.add_argument("--quick", action="store_true", help="very short, with few jobs")
    parser.add_argument("--payload", type=int, default=100, help="bytes of a job's payload (default 100)")
    parser.add_argument("--kills", type=int, help="nodes killed; half as many stopped, and left (default 4)")
    parser.add_argument("--held", metavar="N,...", help="jobs held, up to 1000000 (default 10000)")
    parser.add_argument(
        "--fill-s",
        type=float,
        default=120.0,
        help="filling up with unfinished jobs takes at most so long (default 120)",
    )
    parser.add_argument("--peers", action="store_true", help="measure other systems too; see above")
    parser.add_argument(
        "--peer-python", default=sys.executable, metavar="PYTHON", help="the interpreter that has them"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write environment and measures there")
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="write id, sent, accepted, finished of each job of the batches",
    )
    parser.add_argument(
        "--readme", type=Path, metavar="FILE", help="write the tables into FILE, in place of those there"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a picture, .svg or .png")
    parser.add_argument("--base-port", type=int, default=FIRST_PORT, help="look for free ports from here on")
    parser.add_argument("--keep", action="store_true", help="keep the nodes' data and logs")
    given = parser.parse_args(arguments)
    given.command = command(arguments)
    if wrong := adjust(given):
        parser.error(wrong)
    return given


def command(arguments: Sequence[str]) -> str:
    """What to type for such a run again, without what only says where things are."""
    words = ["python scripts/bench.py"]
    rest = iter(arguments)
    for word in rest:
        name, is_whole, _ = word.partition("=")
        if name not in PLACES:
            words.append(word)
        elif not is_whole:
            next(rest)
    return " ".join(words)


def adjust(given: argparse.Namespace) -> str:
    """Fill in what depends on other options, and split lists; what is wrong with them, if anything."""
    for name, usual, quick in (("seconds", 3.0, 0.4), ("kills", 4, 1), ("held", "10000", "600")):
        if getattr(given, name) is None:
            setattr(given, name, quick if given.quick else usual)
    try:
        given.held = tuple(sorted(int(size) for size in given.held.split(",")))
    except ValueError:
        return "--held is numbers, with commas between them"
    given.only = list(PARTS) if given.only is None else given.only.split(",")
    if "peers" in given.only:
        given.only.remove("peers")
        given.peers = True
    unknown = sorted(set(given.only) - set(PARTS))
    holds = {
        f"--only: {', '.join(unknown)}; there are {', '.join([*PARTS, 'peers'])}": not unknown,
        "--repeat is from 1 to 20": 1 <= given.repeat <= 20,
        "--seconds is from 0.1 to 60": 0.1 <= given.seconds <= 60,
        "--kills is from 0 to 20": 0 <= given.kills <= 20,
        f"--held is from 1 to {HELD_MAX}": 1 <= given.held[0] <= given.held[-1] <= HELD_MAX,
        "--fill-s is from 1 to 7200": 1 <= given.fill_s <= 7200,
        f"--payload is from {EMPTY_PAYLOAD} to 100000": EMPTY_PAYLOAD <= given.payload <= 100_000,
        f"--readme: there is no {bench_readme.BEGIN} in it": given.readme is None
        or (given.readme.is_file() and bench_readme.BEGIN in given.readme.read_text()),
    }
    return next((text for text, is_so in holds.items() if not is_so), "")


def measure(bench: Bench, wanted: Sequence[str], told: dict[str, Any]) -> None:
    """The wanted parts, in the order of PARTS; `told` gets what is known only then."""
    for name, part in PARTS.items():
        if name in wanted:
            if name in OWN_MESH:
                bench.close_stage()
            elif "replicas (R)" not in told:
                told["replicas (R)"] = Client(bench.stage.urls).mesh()["replicas"]
            bench.say(name)
            try:
                part(bench)
            except (EdgeNodeError, ClientError) as error:  # one that cannot be measured costs no other
                bench.figures.check(False, f"{name}: {error}")
                bench.close_stage()
    bench.close_stage()


def run(arguments: argparse.Namespace, folder: Path, console: Console) -> int:
    """The whole of it: measure, print, write. Returns the exit code."""
    told = environment(folder, arguments.payload)
    told |= {
        "command": arguments.command,
        "nodes": NODES,
        "profile": PROFILE,
        "worker processes a node": SLOTS,
    }
    began = time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - began:6.1f} s  {text}", style="dim")

    options = Options(
        arguments.seconds, arguments.payload, arguments.kills, arguments.held, arguments.fill_s,
        arguments.base_port,
    )  # fmt: skip
    others: list[bench_peers.Row] = []
    with Bench(options, folder, say) as bench:
        for turn in range(arguments.repeat):
            if arguments.repeat > 1:
                say(f"turn {turn + 1} of {arguments.repeat}")
            measure(bench, [name for name in arguments.only if not turn or name not in OWN_MESH], told)
            if arguments.peers:
                say("peers")
                others += bench_peers.measure(arguments.peer_python, options.seconds, options.payload, say)
    peers = [*bench_peers.ours(bench.figures), *bench_peers.medians(others)] if others else []
    if bench.acks:
        told["disks before a 202 (acks)"] = f"{min(bench.acks)} to {max(bench.acks)}"
    told["load average at the end"] = os.getloadavg()[0]
    for name, value in told.items():
        console.print(f"{name}: {value}", highlight=False, soft_wrap=True)
    if bench.figures.measures:
        console.print(table(bench.figures.measures))
    if peers:
        console.print(bench_peers.table(peers))
    for fault in bench.figures.faults:
        console.print(f"FAILED CHECK: {fault}", highlight=False, soft_wrap=True)
    write(arguments, as_json(told, bench.figures, peers), bench)
    return 1 if bench.figures.faults else 0


def write(arguments: argparse.Namespace, document: str, bench: Bench) -> None:
    """The files that were asked for; figures of jobs that were not done go into no README."""
    if arguments.json is not None:
        arguments.json.write_text(document)
    if arguments.csv is not None:
        write_csv(arguments.csv, bench.figures.rows)
    told = json.loads(document)
    if arguments.plot is not None:
        bench_plot.plot(told, arguments.plot)
    if arguments.readme is not None and not bench.figures.faults:
        text = bench_readme.put_into(arguments.readme.read_text(), bench_readme.markdown(told))
        arguments.readme.write_text(text)


def main() -> int:
    arguments = parse(sys.argv[1:])
    if not Path("/proc/self/stat").exists():
        print("bench: CPU and memory are read from /proc, which this system does not have", file=sys.stderr)
        return 1
    folder = Path(tempfile.mkdtemp(prefix="edgenode-bench-"))
    console = Console(width=None if sys.stdout.isatty() else 170)
    try:
        with ending_on_sigterm():
            return run(arguments, folder, console)
    except KeyboardInterrupt:
        print("stopped")
        return 130
    except (EdgeNodeError, ClientError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        if arguments.keep:
            print(f"data and logs of the nodes: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
