"""The most requests per second that one core serves when the client costs next to nothing."""

from __future__ import annotations

import statistics

from turnout_bench import h2load
from turnout_bench.bench import Bench
from turnout_bench.figures.figure import Figure, Measured
from turnout_bench.ratios import estimate

MODEL = "mlp_small"
CLIENTS = 32


async def _measure(bench: Bench) -> Measured:
    server = await bench.turnout()
    bursts = [
        await h2load.closed_loop(bench, server, MODEL, CLIENTS, bench.plan.ceiling_s)
        for _ in range(bench.plan.confirm_rounds)
    ]
    rates, cpu_us = [one.per_second for one in bursts], [one.cpu_us for one in bursts]
    absolute = {"cpu_us": statistics.median(cpu_us), "connections": h2load.CONNECTIONS, "clients": CLIENTS}
    return Measured(estimate(rates), absolute, {"per_second": rates, "cpu_us": cpu_us})


FIGURES = (
    Figure(
        "ceiling_small",
        f"requests per second from h2load, {CLIENTS} under way: mlp_small",
        "higher",
        None,
        _measure,
        needs="h2load",
        unit="requests/s",
    ),
)
