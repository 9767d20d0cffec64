"""Latency under load: Poisson arrivals at shares of the server's own saturation, p99 over one plain run."""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

from turnout_bench import schedules
from turnout_bench.bench import Bench
from turnout_bench.figures.figure import Figure, Measured
from turnout_bench.ratios import estimate, paired
from turnout_bench.saturation import saturation
from turnout_bench.sweep import Point, open_point

MODEL = "mlp_big"
LOAD = 0.7
_REQUESTS_MIN = 20


async def _measure(bench: Bench) -> Measured:
    plan = bench.plan
    server, reference = await bench.turnout(), await bench.reference(MODEL)
    highest = await saturation(bench, MODEL)

    async def point(load: float, seed: int) -> Point:
        rate = load * highest.per_second
        seconds = max(plan.sweep_s, _REQUESTS_MIN / rate)
        return await open_point(
            server.address, MODEL, bench.samples(MODEL), schedules.poisson(rate, seconds, seed), seconds
        )

    sweep: list[dict[str, Any]] = []
    at_load: list[Point] = []
    single_ms: list[float] = []
    for load in plan.sweep_loads:
        for seed in range(plan.confirm_rounds if load == LOAD else 1):
            got = await point(load, seed)
            sweep.append({"load": load, **got.as_json()})
            if load == LOAD:
                at_load.append(got)
                plain = await asyncio.to_thread(reference.ask, rows=1, seconds=plan.reference_s)
                single_ms.append(plain["mean_ns"] / 1e6)
    p99_ms = [one.run.latency.percentile_us(99) / 1e3 for one in at_load]
    absolute = {
        "p99_ms": statistics.median(p99_ms),
        "p50_ms": statistics.median(one.run.latency.percentile_us(50) for one in at_load) / 1e3,
        "in-process_single_ms": statistics.median(single_ms),
        "saturation_per_second": highest.per_second,
        "saturation_clients": highest.clients,
    }
    doubts = tuple(f"load {one['load']}: {one['void']}" for one in sweep if one["void"])
    failed = tuple(f"load {one['load']}: {one['statuses']}" for one in sweep if set(one["statuses"]) - {"OK"})
    rounds = {"sweep": sweep, "saturation": highest.as_json()}
    return Measured(estimate(paired(p99_ms, single_ms)), absolute, rounds, doubts + failed)


FIGURES = (
    Figure(
        "tail_p99_at_70",
        "p99 at 70 % of saturation over the time of one in-process run: mlp_big, Poisson",
        "lower",
        None,
        _measure,
    ),
)
