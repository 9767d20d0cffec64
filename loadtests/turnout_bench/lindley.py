"""Lindley's recursion (1952): what every request waits for in a queue with one server, first come, first served."""

from __future__ import annotations

import numpy as np

from turnout_bench.schedules import Schedule


def waits_ns(arrivals_ns: Schedule, service_ns: Schedule | int, idle_ns: int = 0) -> Schedule:
    """The wait of each request: w[n] = max(idle, w[n-1] + service[n-1] - (arrival[n] - arrival[n-1])), w[0] = idle.

    Args:
        service_ns: from the start of each request to that of the next while that waits; one time, if it is fixed.
        idle_ns: what a request waits that finds the server idle.
    """
    waits = np.full_like(arrivals_ns, idle_ns)
    wait = idle_ns
    slack_ns = np.broadcast_to(service_ns, arrivals_ns.shape)[:-1] - np.diff(arrivals_ns)
    for number, slack in enumerate(slack_ns.tolist(), 1):
        wait = max(idle_ns, wait + slack)
        waits[number] = wait
    return waits
