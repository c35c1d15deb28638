"""What /proc says of processes."""

from __future__ import annotations

import os
import subprocess
import sys

import proc
from proc import ProcessStat


def test_a_process_whose_name_looks_like_the_rest_of_the_line_is_read_right() -> None:
    fields = "S 41 2 2 0 -1 4194560 10 0 0 0 150 50 900 900 20 0 5 0 77 123456 25 18446744073709551615"
    stat = proc.parse_stat(f"42 (a) S 1 (b) {fields}", 2.0, 4096)
    assert stat == ProcessStat(parent=41, cpu_s=2.0, rss_bytes=25 * 4096)


def test_this_process_is_seen_with_its_parent_and_its_cpu() -> None:
    seen = proc.processes()[os.getpid()]
    assert seen.parent == os.getppid()
    assert 0 < seen.cpu_s <= sum(os.times()[:2]) + 0.1
    assert seen.rss_bytes > 1_000_000


def test_descendants_are_children_and_theirs_and_nobody_else() -> None:
    parents = {1: 0, 2: 1, 3: 2, 4: 2, 5: 3, 6: 1, 7: 6}
    seen = {process: ProcessStat(parent, 0.0, 0) for process, parent in parents.items()}
    assert sorted(proc.descendants(2, seen)) == [3, 4, 5]
    assert proc.descendants(5, seen) == []


def test_written_bytes_are_those_that_went_to_disks() -> None:
    text = "rchar: 5\nwchar: 77\nread_bytes: 9\nwrite_bytes: 4096\ncancelled_write_bytes: 3\n"
    assert proc.parse_written(text) == 4096
    assert proc.parse_written("") == 0
    assert proc.written_bytes(2**22 + 1) == 0


def test_memory_that_is_shared_counts_by_its_share() -> None:
    text = "55d0-7ffe ---p 00000000 00:00 0   [rollup]\nRss:  66000 kB\nPss:   45500 kB\nPss_Anon:  9 kB\n"
    assert proc.parse_pss(text) == 45_500 * 1024
    assert proc.parse_pss("") == proc.pss_bytes(2**22 + 1) == 0
    assert 1_000_000 < proc.pss_bytes(os.getpid()) <= 1.1 * proc.processes()[os.getpid()].rss_bytes


LEAVES_ORPHANS = """
import os, subprocess, sys
import proc
proc.adopt_orphans()
kept = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
begin = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()'], start_new_session=True,"
begin += " stdin=0)"
reader, writer = os.pipe()
subprocess.run([sys.executable, "-c", begin], stdin=reader, check=True)
print(proc.end_all([kept.pid]), len(proc.descendants(os.getpid(), proc.processes())), kept.poll())
kept.communicate()
"""


def test_orphans_are_ended_and_what_is_to_be_kept_is_not() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LEAVES_ORPHANS],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.path.dirname(proc.__file__)},
    )
    assert ended.stdout == "1 1 None\n", ended.stdout + ended.stderr
