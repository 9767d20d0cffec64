"""What the process takes of its machine, as Linux's /proc and Python tell it; files are read for it."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path

from turnout.telemetry import instruments as i
from turnout.telemetry.readings import Reading, Value

_PROC = Path("/proc/self")
_THREADS_FIELD = 17  # of /proc/self/stat after the command's name, see proc(5)


class ProcessReadings:
    """A slow source of readings. Elsewhere than on Linux there is no memory, no descriptors and no threads.

    Args:
        started_ns: when the process started, on the monotonic clock.
    """

    def __init__(self, started_ns: int, proc: Path = _PROC) -> None:
        self._started_ns = started_ns
        self._proc = proc

    def __call__(self) -> Iterator[Reading]:
        times = os.times()
        yield Reading(i.CPU_TIME, (Value(("user",), times.user), Value(("system",), times.system)))
        yield Reading(i.UPTIME, (Value((), (time.monotonic_ns() - self._started_ns) * 1e-9),))
        collections = [Value((str(n),), stats["collections"]) for n, stats in enumerate(gc.get_stats())]
        yield Reading(i.GC_COLLECTIONS, tuple(collections))
        try:
            resident_pages = int((self._proc / "statm").read_text().split()[1])
            threads = int((self._proc / "stat").read_text().rpartition(")")[2].split()[_THREADS_FIELD])
            descriptors = len(os.listdir(self._proc / "fd"))
        except OSError:
            return
        yield Reading(i.MEMORY_USAGE, (Value((), resident_pages * os.sysconf("SC_PAGE_SIZE")),))
        yield Reading(i.THREADS, (Value((), threads),))
        yield Reading(i.FILE_DESCRIPTORS, (Value((), descriptors),))
