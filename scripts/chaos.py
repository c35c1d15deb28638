"""Real nodes are hurt at random while clients submit jobs: is anything lost?

    python scripts/chaos.py [--seed N --seconds S --nodes N --rate R --slots N --all --loopback --keep]

Four parts, as in Jepsen's tests of queues (https://github.com/jepsen-io/jepsen):

    rig         nodes on machines of their own: network namespaces with a bridge, found by multicast DNS
    workload    clients ask random nodes, and write down what was asked, what was answered, and when
    nemesis     does things to nodes and to the network, and a while later undoes them: kill -9, SIGSTOP,
                SIGTERM, cuts of every shape, resets, loss, full disks, damaged files, clocks that jump, no
                CPU. At most a minority is down at a time, unless --all; at most one disk loses what it had
    judge       when all has healed and every job has ended, compares what the clients were told, what the
                tasks left behind, and what every node shows (scripts/history.py: what each word means)

Machines need root, ip and iptables. Without them the nodes are side by side on 127.0.0.1, and can only be
killed, paused, told to leave, have their disks damaged, and their clocks moved. The same --seed gives the
same plan; what the machine makes of it differs from run to run.

Exit codes: 0 nothing is wrong, 1 something is, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from typing import Final

from history import judge, verdict_lines
from machines import Lan, missing
from rig import Rig, RigNode
from throttle import why_no_throttle
from workload import Workload

from edgenode.core.errors import EdgeNodeError

CALM_S: Final = (0.3, 2.5)
"""Between two faults."""
HURT_S: Final = (0.5, 8.0)
"""How long one lasts: from below the time after which a silent node is dead (1.5 s) to well above that after
which a successor without a majority goes on (5 s)."""
LOSS: Final = (0.02, 0.25)
SKEW_S: Final = (5.0, 7200.0)
STARVED: Final = (0.05, 0.3)
POWER_CUT: Final = 0.1
POLL_S: Final = 0.05

Undo = Callable[[], object]


class Nemesis:
    """Hurts nodes and the network, and undoes it. `run` in the thread that shall own the nodes' processes."""

    def __init__(self, rig: Rig, dice: random.Random, *, spare: int) -> None:
        """Nothing is hurt yet.

        Args:
            spare: so many nodes are up at every moment.
        """
        self._rig = rig
        self._dice = dice
        self._spare = spare
        self._hurt: set[RigNode] = set()
        self._has_damaged = False  # two damaged disks may be all that a job was on
        self._is_cut = False
        self._due: list[tuple[float, int, Undo]] = []
        self._order = count()

    def run(self, seconds: float) -> None:
        """Until the time is over; what is still hurt then is healed."""
        ends = time.monotonic() + seconds
        while True:
            until = min(ends, time.monotonic() + self._dice.uniform(*CALM_S))
            while time.monotonic() < until:
                self._undo_what_is_due()
                time.sleep(POLL_S)
            if time.monotonic() >= ends:
                break
            self._harm()
        while self._due:
            heappop(self._due)[2]()
        self._rig.restore()

    def _undo_what_is_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            heappop(self._due)[2]()

    def _harm(self) -> None:
        whole = [node for node in self._rig.nodes if node not in self._hurt]
        if self._spare == 0 and not self._hurt and self._dice.random() < POWER_CUT:
            for node in whole:
                self._take(node, self._kill(node))
            return
        menu: list[Callable[[], None]] = []
        if len(whole) > self._spare:
            harms = [self._kill, self._kill, self._pause, self._leave, self._jump]
            if not self._has_damaged:
                harms.append(self._damage)
            if self._rig.lan is not None:
                harms.append(self._fill)
                harms += [self._starve] * (not why_no_throttle())
            menu += [partial(self._harm_one, harm, whole) for harm in harms]
        if self._rig.lan is not None and not self._is_cut and len(self._rig.nodes) > 1:
            menu += [self._split, self._split, self._one_way, self._part_two, self._reset, self._lose]
        if menu:
            self._dice.choice(menu)()

    def _later(self, undo: Undo) -> None:
        heappush(self._due, (time.monotonic() + self._dice.uniform(*HURT_S), next(self._order), undo))

    # ------------------------------------------------------------------------------------- nodes

    def _harm_one(self, harm: Callable[[RigNode], Undo], whole: Sequence[RigNode]) -> None:
        node = self._dice.choice(whole)
        self._take(node, harm(node))

    def _take(self, node: RigNode, undo: Undo) -> None:
        """Count it among the hurt until `undo`, some time later."""

        def put_back() -> None:
            undo()
            self._hurt.discard(node)

        self._hurt.add(node)
        self._later(put_back)

    def _kill(self, node: RigNode) -> Undo:
        node.kill()
        return node.start

    def _pause(self, node: RigNode) -> Undo:
        node.pause()
        return node.resume

    def _leave(self, node: RigNode) -> Undo:
        node.leave()

        def come_back() -> None:
            node.wait_for_end()
            node.start()

        return come_back

    def _damage(self, node: RigNode) -> Undo:
        node.kill()
        node.damage(self._dice.choice(["flip", "truncate"]), self._dice)
        self._has_damaged = True
        return node.start

    def _fill(self, node: RigNode) -> Undo:
        node.fill_disk()

        def make_room() -> None:
            node.make_room()
            if not node.is_alive:
                node.start()

        return make_room

    def _jump(self, node: RigNode) -> Undo:
        node.set_clock(self._dice.choice([-1, 1]) * self._dice.uniform(*SKEW_S))
        return partial(node.set_clock, 0.0)

    def _starve(self, node: RigNode) -> Undo:
        node.throttle(self._dice.uniform(*STARVED))
        return node.release

    # ----------------------------------------------------------------------------------- network

    def _cut_for_a_while(self) -> None:
        def heal() -> None:
            self._rig.heal()
            self._is_cut = False

        self._is_cut = True
        self._later(heal)

    def _shuffled(self) -> list[RigNode]:
        return self._dice.sample(self._rig.nodes, len(self._rig.nodes))

    def _split(self) -> None:
        nodes = self._shuffled()
        at = self._dice.randrange(1, len(nodes))
        self._rig.split(nodes[:at], nodes[at:])
        self._cut_for_a_while()

    def _one_way(self) -> None:
        source, target, *_ = self._shuffled()
        self._rig.cut(source, target, both=False)
        self._cut_for_a_while()

    def _part_two(self) -> None:
        """Not transitive: two do not hear each other, and all others hear both."""
        one, other, *_ = self._shuffled()
        self._rig.cut(one, other)
        self._cut_for_a_while()

    def _reset(self) -> None:
        victim, *others = self._shuffled()
        for other in others:
            self._rig.cut(victim, other, "reset", both=self._dice.random() < 0.5)
        self._cut_for_a_while()

    def _lose(self) -> None:
        self._rig.lose(round(self._dice.uniform(*LOSS), 2))
        self._cut_for_a_while()


# ------------------------------------------------------------------------------------------ the whole


class Story:
    """Lines on the screen, with the seconds since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def tell(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {text}", flush=True)


def run(given: argparse.Namespace, folder: Path) -> bool:
    """The whole of it; whether nothing was bad.

    Raises:
        TimeoutError: nodes did not come up, or not find each other.
    """
    story, dice = Story(), random.Random(given.seed)
    lacks = ["--loopback was given"] if given.loopback else missing()
    with ExitStack() as stack:
        lan = None if lacks else stack.enter_context(Lan(given.nodes, folder))
        where = "on machines of their own" if lan else "on loopback"
        story.tell(f"{given.nodes} nodes {where}, seed {given.seed}, data and logs in {folder}")
        if lacks:
            story.tell(f"no cuts, loss, full disks and starvation (missing: {', '.join(lacks)})")
        rig = stack.enter_context(Rig(given.nodes, folder, lan, slots=given.slots, tell=story.tell))
        rig.wait_ready()
        story.tell("all are ready")
        spare = 0 if given.all else given.nodes - (given.nodes - 1) // 2
        nemesis = Nemesis(rig, random.Random(dice.random()), spare=spare)
        work = Workload(rig, random.Random(dice.random()), rate=given.rate)
        with work:
            nemesis.run(given.seconds)
            story.tell("all is healed; waiting for the last answers")
        history = work.rest()
        story.tell("asked every node for every job")
    verdict = judge(history)
    print("\n".join(verdict_lines(verdict, history)))
    print("verdict: " + ("nothing was lost" if verdict.passed else "BAD"))
    return verdict.passed


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=5, help="how many (default 5)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to hurt them (default 60)")
    parser.add_argument("--rate", type=float, default=15.0, help="requests a second (default 15)")
    parser.add_argument("--slots", type=int, default=4, help="jobs at a time on each node (default 4)")
    parser.add_argument("--seed", type=int, default=None, help="of the plan (default: a random one, shown)")
    parser.add_argument(
        "--all", action="store_true", help="more than a minority may be down, even all at once"
    )
    parser.add_argument("--loopback", action="store_true", help="no machines, also where they can be made")
    parser.add_argument(
        "--keep", action="store_true", help="keep the nodes' logs and the journal of requests"
    )
    given = parser.parse_args(arguments)
    if not 1 <= given.nodes <= 32 or not 0 < given.seconds <= 86_400 or not 0 < given.rate <= 1000:
        parser.error("--nodes is from 1 to 32, --seconds up to 86400, --rate up to 1000")
    if given.seed is None:
        given.seed = random.SystemRandom().randrange(1_000_000)
    return given


def main(arguments: Sequence[str]) -> int:
    given = parse(arguments)
    folder = Path(tempfile.mkdtemp(prefix="edgenode-chaos-"))
    is_good = False
    try:
        is_good = run(given, folder)
    except KeyboardInterrupt:
        print("stopped")
    except (EdgeNodeError, OSError) as error:
        print(f"chaos: {error}")
    finally:
        if is_good and not given.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"logs of the nodes, and the journal of all requests: {folder}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
