"""Processes that get a share of one processor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from throttle import Throttle, cpu_controller, groups, why_no_throttle

WORK = """
import sys, time
for line in sys.stdin:
    began, used = time.monotonic(), time.process_time()
    while time.process_time() < used + float(line):
        pass
    print(time.monotonic() - began, flush=True)
"""


@pytest.mark.skipif(bool(why_no_throttle()), reason=why_no_throttle())
def test_a_throttled_process_is_held_back_and_let_go() -> None:
    program = [sys.executable, "-c", WORK]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:

        def time_for(cpu_s: float) -> float:
            assert worker.stdin is not None
            assert worker.stdout is not None
            print(cpu_s, file=worker.stdin, flush=True)
            return float(worker.stdout.readline())

        def its_groups() -> str:
            return Path(f"/proc/{worker.pid}/cgroup").read_text()

        before = its_groups()
        time_for(0.0)  # it has started
        with Throttle(f"edgenode-{os.getpid()}", 0.1) as throttle:
            throttle.take(worker.pid)
            assert throttle.held_back == 0
            assert time_for(0.05) > 0.2  # it has a hundredth of a second in each tenth
            assert throttle.held_back >= 3
        assert its_groups() == before
        time_for(0.05)
        worker.kill()


PARENT = """
import subprocess
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
input()
child.communicate()
"""


@pytest.mark.skipif(bool(why_no_throttle()), reason=why_no_throttle())
def test_what_a_process_has_started_is_throttled_with_it() -> None:
    program, name = [sys.executable, "-c", PARENT], f"edgenode-{os.getpid()}"
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        with Throttle(name, 0.5) as throttle:
            throttle.take(parent.pid)
            for pid in (parent.pid, child):
                assert name in Path(f"/proc/{pid}/cgroup").read_text()
        for pid in (parent.pid, child):
            assert name not in Path(f"/proc/{pid}/cgroup").read_text()
        parent.communicate("\n")
    assert not groups(name)


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        (
            "cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\ncgroup /g/cpu cgroup rw,cpu,cpuacct 0 0",
            ("/g/cpu", 1),
        ),
        ("proc /proc proc rw 0 0\ntmpfs /sys/fs/cgroup tmpfs rw 0 0", None),
    ],
)
def test_the_control_groups_of_the_processor_are_found(mounts: str, expected: tuple[str, int] | None) -> None:
    found = cpu_controller(mounts)
    assert found == (None if expected is None else (Path(expected[0]), expected[1]))


def test_control_groups_of_version_2_are_found_where_they_rule_the_processor(tmp_path: Path) -> None:
    mounts = f"cgroup2 {tmp_path} cgroup2 rw 0 0"
    assert cpu_controller(mounts) is None
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu memory\n")
    assert cpu_controller(mounts) == (tmp_path, 2)
