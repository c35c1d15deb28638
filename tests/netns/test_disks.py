"""Disks that are full, damaged or set back, clocks that are wrong, and a node that gets no CPU."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from rig import Damage, Rig, until
from throttle import why_no_throttle

from tests.netns.trial import at_work, keeps_every_promise, wait_for_more, wait_until_dead

MESH = "three"


def test_a_disk_that_is_full_moves_the_work_elsewhere_until_there_is_room(rig: Rig) -> None:
    victim, others = rig.nodes[0], rig.nodes[1:]
    with at_work(rig, "full") as work:
        victim.fill_disk()
        until(lambda: not victim.is_alive or not victim.takes_jobs, "the node says that it takes no jobs")
        wait_for_more(work, 20, at=others)
        victim.make_room()
        if not victim.is_alive:
            victim.start()
        until(lambda: victim.takes_jobs, "it takes jobs again")
        rig.wait_ready()
        wait_for_more(work, 5, at=[victim])
    keeps_every_promise(work)


@pytest.mark.parametrize("how", ["flip", "truncate"])
def test_a_damaged_database_harms_nobody_else(rig: Rig, how: Damage) -> None:
    """It comes up without what it lost, or ends, says why, and begins anew with an empty disk."""
    victim, others = rig.nodes[1], [rig.nodes[0], rig.nodes[2]]
    with at_work(rig, how) as work:
        victim.kill()
        where = victim.damage(how, random.Random(how))
        wait_until_dead([victim], at=others)
        wait_for_more(work, 10, at=others)
        seen = len(victim.log_text)
        victim.start()
        until(lambda: not victim.is_alive or victim.members(), "it answers, or has ended")
        assert victim.is_alive or str(victim.database) in victim.log_text[seen:], where
        rig.wait_whole()
        wait_for_more(work, 10)
    keeps_every_promise(work)


def test_a_disk_that_was_set_back_to_an_older_copy_outvotes_nobody(rig: Rig, tmp_path: Path) -> None:
    victim, others = rig.nodes[2], rig.nodes[:2]
    with at_work(rig, "set-back") as work:
        victim.copy_disk(tmp_path / "copy")
        wait_for_more(work, 20)
        victim.kill()
        victim.put_back(tmp_path / "copy")
        victim.start()
        until(lambda: victim.is_behind, "it is found out")
        wait_for_more(work, 20, at=others)
        rig.wait_whole()
    keeps_every_promise(work)


def test_clocks_that_jump_and_are_an_hour_off_lose_nothing_and_expire_nothing(rig: Rig) -> None:
    fast, right, slow = rig.nodes
    with at_work(rig, "skewed") as work:
        fast.set_clock(3600)
        slow.set_clock(-3600)
        wait_for_more(work, 20)
        right.kill()  # who knew the time best
        wait_until_dead([right], at=[fast, slow])
        wait_for_more(work, 10)
        right.start()
        fast.set_clock(0)
        slow.set_clock(0)
        rig.wait_ready()
    keeps_every_promise(work)


@pytest.mark.skipif(bool(why_no_throttle()), reason=why_no_throttle())
def test_a_node_with_a_tenth_of_a_processor_loses_nothing(rig: Rig) -> None:
    starved = rig.nodes[0]
    with at_work(rig, "starved") as work:
        starved.throttle(0.1)
        wait_for_more(work, 30)
        starved.release()
        rig.wait_ready()
    keeps_every_promise(work)
