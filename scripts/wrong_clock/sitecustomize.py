"""A wall clock that is wrong, and can jump: every Python that starts with this folder in PYTHONPATH has it.

The file that CLOCK_SKEW names holds by how many seconds it is wrong now, as a double. Only `time.time` and
`time.time_ns` are changed: the monotonic clock is right on the worst of machines. (libfaketime, which is made
for this, lets absolute sleeps on the monotonic clock fail: Python's `time.sleep` raises EINVAL under it.)
"""

import mmap
import os
import struct
import time

NANOSECONDS = 1_000_000_000
_time, _time_ns = time.time, time.time_ns

with open(os.environ["CLOCK_SKEW"], "rb") as _file:
    _shared = mmap.mmap(_file.fileno(), 8, prot=mmap.PROT_READ)


def _skew_s() -> float:
    (seconds,) = struct.unpack("<d", _shared[:8])
    return float(seconds)


time.time = lambda: _time() + _skew_s()
time.time_ns = lambda: _time_ns() + int(_skew_s() * NANOSECONDS)
