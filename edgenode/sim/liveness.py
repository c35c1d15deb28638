"""How soon a death is made good, and that nobody is called dead who only was slow."""

from __future__ import annotations

from typing import Final

from edgenode.core.job_ids import job_text
from edgenode.core.jobs import Record
from edgenode.core.settings import Settings
from edgenode.core.signals import Log
from edgenode.core.types import Delivery, JobId, NodeId, Seconds, State
from edgenode.sim.machines import Life
from edgenode.sim.story import short
from edgenode.sim.violation import Violation
from edgenode.sim.world import World

PROOF_S: Final[Seconds] = 0.25
"""Until a killed process's jobs are another's: resets, two witnesses, a question to the holders, a write."""
SILENCE: Final = 5 / 3
"""Until those of a silent host are, by 2 P + S (see `MembershipSettings`): with `lan`, within 2 s."""


def takeover_s(settings: Settings, *, silent: bool) -> Seconds:
    """How long it may take until the jobs of a node that died belong to others, in good weather."""
    membership = settings.membership
    return SILENCE * (2 * membership.probe_period_s + membership.suspicion_s) if silent else PROOF_S


class Succession:
    """What one node owned and ran when it died, and by when others have to own and run it."""

    def __init__(self, world: World, life: Life, *, silent: bool) -> None:
        self._world = world
        self._dead = life.id
        self._died_at = world.now
        within_s = takeover_s(world.settings, silent=silent)
        owned = [record for job in world.ledger.acked if (record := self._owned(job)) is not None]
        self._owned_then = {record.id: record for record in owned}
        world.after(within_s, self._check_owners)
        world.after(within_s + world.settings.jobs.gate_s, self._check_starts)

    def _newest(self, job: JobId) -> Record | None:
        copies = (disk.record(job) for disk in self._world.disks.values())
        return max(
            (copy for copy in copies if copy is not None),
            key=lambda copy: (copy.settled, copy.epoch, copy.ballot, copy.own.write),
            default=None,
        )

    def _owned(self, job: JobId) -> Record | None:
        """A job of the dead one's that others are to go on with: two of its holders live, and one has it."""
        record = self._newest(job)
        if record is None or record.outcome is not None or record.owner != self._dead:
            return None
        others = [node for node in record.holders if node != self._dead and self._lives(node)]
        has_copy = any(self._world.disks[node].record(job) for node in others)
        return record if len(others) >= 2 and has_copy else None

    def _lives(self, node: NodeId) -> bool:
        life = self._world.machines[node].life
        return life is not None and not life.leaving

    def _check_owners(self) -> None:
        for job, before in self._owned_then.items():
            now = self._newest(job)
            if now is not None and now.outcome is None and now.ballot == before.ballot:
                self._late(job, "belongs to it still")

    def _check_starts(self) -> None:
        """What ran on it runs elsewhere, if it may."""
        for job, before in self._owned_then.items():
            now = self._newest(job)
            if (
                before.own.state is State.RUNNING
                and before.own.runner == self._dead
                and now is not None
                and now.outcome is None
                and now.own.state is State.QUEUED
                and self._world.ledger.specs[job].options.delivery is Delivery.AT_LEAST_ONCE
            ):
                self._late(job, "was running there, and waits for a start still")

    def _late(self, job: JobId, what: str) -> None:
        after_s = self._world.now - self._died_at
        raise Violation(f"I7: {after_s:.2f} s after {short(self._dead)} died, its job {job_text(job)} {what}")


class NoFalseDeath:
    """Nobody is called dead whose first life goes on."""

    def __init__(self, world: World) -> None:
        self._world = world
        world.on_log = self._heard

    def _heard(self, life: Life, line: Log) -> None:
        if line.kind != "member-dead":
            return
        for other in self._world.lives():
            if other is not life and f"({other.id})" in line.text and other.machine.disk.lives_begun == 1:
                raise Violation(
                    f"I8: {short(life.id)} calls {short(other.id)} dead, which lives: {line.text}"
                )
