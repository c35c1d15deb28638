"""Every number that decides when something happens, as presets with the reason for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from edgenode.core.types import Seconds

WEIGHT_MIN: Final = 0.01
WEIGHT_MAX: Final = 1000.0
"""Of a member: its share of new jobs, relative to the others'."""


@dataclass(frozen=True, slots=True)
class MembershipSettings:
    """When a silent member is suspected, and when it is dead (SWIM, Lifeguard).

    With P = `probe_period_s`, T = `probe_timeout_s`, S = `suspicion_s` and n members, in a small mesh:
    a silent host is dead everywhere after about P (until somebody probes it) + P + S; a member that stalls
    for less than P + S is never called dead. The defaults are those of `lan`, where five nodes know of a
    silent host after 1.18 s (median) and 1.36 s (p99 of 300 simulated runs).
    """

    probe_period_s: Seconds = 0.1
    """P. Half a ping per node and period, whatever n is (a node in doubt of itself asks in all its turns): at
    five a second 0.3 KB/s. A member exchanges a ping with somebody about every P."""
    probe_timeout_s: Seconds = 0.04
    """T. When helpers are asked. Above the round trip of a loaded host, and T + 0.8 T + one round trip < P,
    so that a helper's `Nack` comes before the probe ends."""
    watched_max: int = 64
    """Members that one node probes, and keeps links to for that; nobody watches one with a chance of e^-64.
    Each is probed every 64 P, so a host that is silent to one peer alone is noticed within that."""
    helpers: int = 3
    """SWIM's k: with 5 % loss on each of 4 hops, 3 helpers leave 0.06 % wrong verdicts a probe."""
    health_max: int = 8
    """Lifeguard's S: a node in the worst health probes 9 times slower and waits 9 times longer."""
    late_s: Seconds = 0.05
    """A timer that comes later than this means that the node itself stood still: it then listens first."""
    probes_max: int = 8
    """Probes at once: the one of this period, and those out of turn (a link ended, a death is in doubt)."""
    suspicion_s: Seconds = 1.0
    """S, times max(1, log10 n): from the suspicion to death when others confirm. Just above the longest
    stall of a loop with a tenth of a core (0.9 s), and below the target for silence (1.5 s) - 4 P."""
    suspicion_max_factor: float = 3.0
    """Without confirmations, S times this: an observer that nobody confirms is probably the slow one."""
    confirmations: int = 2
    """Lifeguard's K, at most n - 2: distinct further accusers that bring the wait from its maximum to S."""
    patience_max: float = 2.0
    """S times up to this for a member that refuted suspicions lately: it is slow, not dead."""
    patience_forget_s: Seconds = 60.0
    """How long such a refutation counts."""
    gossip_factor: int = 4
    """SWIM's lambda: each node passes a rumour on lambda * ceil(log10(n + 1)) times."""
    rumours_per_message: int = 6
    rumour_bytes_max: int = 4096
    """A ping stays one or two packets with 6 rumours of 250 bytes, and bounded with long task lists."""
    direct_max: int = 16
    """Up to this many members, news (accused, dead, alive after all, leaving) goes to each directly."""
    fanout: int = 16
    """In larger meshes it goes to this many directly, and by rumour from there."""
    sync_period_s: Seconds = 2.0
    """How often views are compared with somebody's: 20 bytes for any n if they are equal, else some
    2 * 16 * 16 bytes, and the beliefs that differ. Strangers get the whole view."""
    syncs_per_s: float = 2.0
    syncs_burst: int = 5
    """Whole views sent unasked: a restarted node of 200 dials 200 members, but needs few of their views."""
    heal_period_s: Seconds = 2.0
    """How often one dead member is tried: after a cut one success is enough, so 2 s / (n / 2) to find out."""
    grace_s: Seconds = 10.0
    """How long after its own start a node takes members it only remembers for possibly alive."""
    formation_s: Seconds = 3.0
    """How long a node that was told of peers waits for the first: a dial, a handshake, a retry."""
    dead_keep_s: Seconds = 300.0
    """How long the dead are shown, called, and waited for (503, not 404, while one may have what nobody else
    has). Longer than a reboot. Cuts that last longer heal through `--join` and mDNS, which call for ever."""
    left_keep_s: Seconds = 30.0
    """At most this for those that said goodbye: 15 comparisons, so that all have heard of it."""
    members_max: int = 2000
    remember_period_s: Seconds = 1.0
    """At most one write of the peers file in this time."""
    tidy_period_s: Seconds = 1.0
    """How often those due are forgotten."""

    def __post_init__(self) -> None:
        assert 0 < self.probe_timeout_s * 1.8 < self.probe_period_s
        assert self.probe_period_s < self.suspicion_s
        assert self.suspicion_max_factor >= 1
        assert self.patience_max >= 1
        assert self.probes_max >= 1
        assert self.watched_max >= 1
        assert self.helpers >= 0
        assert self.late_s > 0


@dataclass(frozen=True, slots=True)
class VouchingSettings:
    """How a node finds out whether its disk is the latest of its identity."""

    again_s: Seconds = 0.3
    """When a question that was not answered is asked again: a few round trips."""
    enough: int = 16
    """So many answers stand for all: in a mesh, what one member knows of a life most others know."""
    identities_max: int = 2000
    """Identities whose lives are remembered, some 40 bytes each: as many as there may be members."""
    keep_period_s: Seconds = 1.0
    """How often that is written to disk at most. What was heard since is forgotten by a crash, here only."""
    yield_s: Seconds = 1.5
    """How long a node without a vote is told that another life of its identity, a later one, lives, before it
    ends: a process that was just killed is taken for living for a moment."""
    insist_s: Seconds = 4.0
    """The same of an earlier one, which ends by itself if it has no vote either: more than `yield_s`."""


@dataclass(frozen=True, slots=True)
class JobSettings:
    """How copies are kept, asked for and run."""

    replicas: int = 3
    """R: disks per job. Raising it costs one write per job and disk, and survives one more lost disk. The
    node that a job is submitted through decides at first, its owner from then on."""
    ask_s: Seconds = 0.5
    """How long a would-be owner waits for holders that are neither dead nor answering."""
    retry_s: Seconds = 0.5
    """When an unanswered write, ask, offer or grant is sent again; doubles up to `retry_max_s`."""
    retry_max_s: Seconds = 5.0
    gate_s: Seconds = 0.5
    """How long the start of a job that was taken over waits for its `running` to be with the holders."""
    island_after_s: Seconds = 5.0
    """How long a successor without a majority waits, on silence alone, before it goes on as provisional."""
    rereplicate_after_s: Seconds = 30.0
    """How long a holder is dead before the next in rank gets a spare copy. Shorter moves more data at
    every reboot."""
    settle_lag_s: Seconds = 0.05
    """Settled marks wait this long for company: they are news for readers, not for safety."""
    start_lag_s: Seconds = 0.03
    """A first start on the owner itself is told to the other holders after this, unless it has ended by then:
    they need it to count it as lost if the owner dies. Shorter costs two writes more of each short job."""
    check_s: Seconds = 1.0
    """How often responsibility is checked against the present membership (a state, not an event)."""
    submit_s: Seconds = 10.0
    """How long an entry node waits for a receipt before it answers `definite: false`."""
    read_s: Seconds = 3.0
    describe_s: Seconds = 1.0
    """How long a submission waits for members to say what a task takes that this node lacks. After that the
    payload goes unchecked to where the task is. Some round trips."""
    unsettled_s: Seconds = 1.5
    """How long who waits for a job waits for a result to be settled, before it is shown as unsettled."""
    want_s: Seconds = 0.5
    """How often a node with free slots and no work of its own asks a busy peer for some."""
    stall_s: Seconds = 1.0
    """A node that was busy for longer than this owns nothing until it has asked: others may have taken over.
    Not more than the least suspicion timeout."""
    drain_s: Seconds = 10.0
    """How long a leaving node lets running jobs finish before it gives those away too."""
    give_s: Seconds = 3.0
    """How long it then waits for others to take what it gives."""
    batch: int = 1000
    """Jobs per message when many are asked for, offered or granted at once."""
    offers_per_check: int = 200
    clock_skew_max_s: Seconds = 600.0
    """How far two members' wall clocks may differ. Markers outlive their job's last day by twice that."""
    unfinished_max: int = 1_000_000
    """Unfinished jobs that a mesh takes for each of its nodes: all holders have a line for each in memory."""
    in_memory: int = 5_000
    """Unfinished jobs of which a node keeps the record in memory though nothing happens to them, some 1.6 KB
    each. The others cost 300 bytes, and a read when they are needed."""
    sweep_s: Seconds = 10.0
    """How often a node looks for finished jobs to be shrunk or dropped: one look into an index, at rest."""


@dataclass(frozen=True, slots=True)
class Settings:
    membership: MembershipSettings = field(default_factory=MembershipSettings)
    jobs: JobSettings = field(default_factory=JobSettings)
    vouching: VouchingSettings = field(default_factory=VouchingSettings)


PRESETS: Final[dict[str, Settings]] = {
    # One machine boots its nodes together: less time to wait for those that are remembered.
    "local": Settings(MembershipSettings(grace_s=5.0, formation_s=2.0, dead_keep_s=60.0)),
    "lan": Settings(),
    "wan": Settings(
        # T = 0.4 s > a round trip; P = T + 2 round trips + margin; S = 4 P; the rest in proportion.
        MembershipSettings(
            probe_period_s=1.2,
            probe_timeout_s=0.4,
            late_s=0.4,
            suspicion_s=5.0,
            patience_forget_s=300.0,
            sync_period_s=10.0,
            heal_period_s=10.0,
            grace_s=30.0,
            formation_s=10.0,
            dead_keep_s=1800.0,
            left_keep_s=150.0,
        ),
        JobSettings(ask_s=2.0, retry_s=2.0, gate_s=2.0, island_after_s=20.0),
    ),
}
"""`local`: one machine. `lan`: one building. `wan`: round trips of up to 0.3 s."""
