"""Every number that decides when something happens, as presets with the reason for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from edgenode.core.types import Seconds


@dataclass(frozen=True, slots=True)
class MembershipSettings:
    """When a silent member is suspected, and when it is dead (SWIM, Lifeguard)."""

    probe_period_s: Seconds = 0.25
    probe_timeout_s: Seconds = 0.1
    helpers: int = 3


@dataclass(frozen=True, slots=True)
class JobSettings:
    """How copies are kept, asked for and run."""

    replicas: int = 3
    """R: disks per job. Raising it costs one write per job and disk, and survives one more lost disk."""
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
    check_s: Seconds = 1.0
    """How often responsibility is checked against the present membership (a state, not an event)."""
    submit_s: Seconds = 10.0
    """How long an entry node waits for a receipt before it answers `definite: false`."""
    read_s: Seconds = 3.0
    want_s: Seconds = 0.5
    """How often a node with free slots and no work of its own asks a busy peer for some."""
    batch: int = 1000
    """Jobs per message when many are asked for, offered or granted at once."""
    offers_per_check: int = 500
    clock_skew_max_s: Seconds = 600.0


@dataclass(frozen=True, slots=True)
class Settings:
    membership: MembershipSettings = field(default_factory=MembershipSettings)
    jobs: JobSettings = field(default_factory=JobSettings)


PRESETS: Final[dict[str, Settings]] = {
    "local": Settings(),
    "lan": Settings(),
    "wan": Settings(
        MembershipSettings(probe_period_s=1.0, probe_timeout_s=0.5),
        JobSettings(ask_s=2.0, retry_s=2.0, gate_s=2.0, island_after_s=20.0),
    ),
}
"""`local`: one machine. `lan`: one building. `wan`: round trips of up to 0.3 s."""
