"""The wrong clock of scripts/rig.py is wrong by what it is told, jumps, and lets the monotonic one alone."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

from rig import WRONG_CLOCK

PROGRAM = """
import time
while input():
    print(time.time(), time.time_ns() / 1e9, time.monotonic(), flush=True)
"""


def test_a_wrong_clock_is_wrong_by_what_its_file_says_at_that_moment(tmp_path: Path) -> None:
    skew = tmp_path / "skew"
    skew.write_bytes(struct.pack("<d", 0.0))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": str(WRONG_CLOCK), "CLOCK_SKEW": str(skew)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for skew_s in (0.0, 3600.0, -3600.0, 0.0):
            with skew.open("r+b") as file:
                file.write(struct.pack("<d", skew_s))
            wall, monotonic = time.time(), time.monotonic()
            process.stdin.write("now\n")
            process.stdin.flush()
            shown, shown_ns, shown_monotonic = map(float, process.stdout.readline().split())
            assert skew_s <= shown - wall < skew_s + 60
            assert abs(shown - shown_ns) < 1
            assert monotonic <= shown_monotonic <= time.monotonic()
    finally:
        process.kill()
        process.communicate()
