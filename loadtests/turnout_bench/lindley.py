"""Lindley's recursion (1952): what every request waits for in a queue with one server, first come, first served."""

from __future__ import annotations

import numpy as np

from turnout_bench.schedules import Schedule


def waits_ns(arrivals_ns: Schedule, service_ns: int, idle_ns: int = 0) -> Schedule:
    """The wait of each request: w[n] = max(idle, w[n-1] + service - (arrival[n] - arrival[n-1])), w[-1] = -infinity.

    Args:
        service_ns: from one start to the next while requests wait.
        idle_ns: what a request waits that finds the server idle.
    """
    waits = np.full_like(arrivals_ns, idle_ns)
    wait = idle_ns
    for number, gap in enumerate(np.diff(arrivals_ns).tolist(), 1):
        wait = max(idle_ns, wait + service_ns - gap)
        waits[number] = wait
    return waits
