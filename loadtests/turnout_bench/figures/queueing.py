"""Measured waits against queueing theory: a model of fixed service time, one executor, one row at a time (M/D/1).

Lindley's recursion over the very instants at which the requests left gives what each should wait for those before it,
so that neither chance nor a late generator plays a part. It is given the two times that belong to this server and not
to the queue, measured in the same round: from one run to the next while requests wait (closed loop), and the queue time
of a request that comes alone. The measured side is the server's own queue time, with nothing taken off.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np

from turnout_bench import loops, schedules
from turnout_bench.bench import Bench
from turnout_bench.callers import UnaryCaller
from turnout_bench.counters import counters
from turnout_bench.figures.figure import Figure, Measured
from turnout_bench.lindley import waits_ns
from turnout_bench.processes import PROGRAMS
from turnout_bench.ratios import estimate
from turnout_bench.results import Run
from turnout_bench.samples import Sample, sample

MODEL = "fixed"
SERVICE_MS = 10
LOADS = (0.3, 0.5, 0.7)
_ALONE_MAX = 100
_CLIENTS = 8


async def _measure(bench: Bench) -> Measured:
    server = await bench.child("fixed service", lambda: [str(PROGRAMS / "fixed.py"), str(SERVICE_MS)])
    rounds: list[dict[str, Any]] = []
    for seed in range(bench.plan.confirm_rounds):
        times = Times(await _service_ns(bench, server.address), await _idle_ns(bench, server.address))
        for load in LOADS:
            rounds.append({"seed": seed, "load": load, **await _round(bench, server.address, load, seed, times)})
    worst = [max(one["error"] for one in rounds if one["seed"] == seed) for seed in range(bench.plan.confirm_rounds)]
    absolute = {
        f"load_{load}": {
            key: statistics.median(one[key] for one in rounds if one["load"] == load)
            for key in ("wait_ms", "lindley_ms", "error", "service_ms", "idle_ms")
        }
        for load in LOADS
    }
    return Measured(estimate(worst), absolute, rounds)


async def _round(bench: Bench, address: str, load: float, seed: int, times: Times) -> dict[str, Any]:
    schedule = schedules.poisson(load * 1e3 / SERVICE_MS, bench.plan.fixed_s, seed)
    run, wait_ms = await _run(address, schedule, bench.plan.fixed_s)
    assert run.sent_ns is not None
    due_ms = float(waits_ns(run.sent_ns, times.service_ns, times.idle_ns).mean()) / 1e6
    return {
        "wait_ms": wait_ms,
        "lindley_ms": due_ms,
        "error": abs(wait_ms - due_ms) / due_ms if due_ms else 0.0,
        "service_ms": times.service_ns / 1e6,
        "idle_ms": times.idle_ns / 1e6,
        "run": run.as_json(),
    }


@dataclass(frozen=True, slots=True)
class Times:
    """What belongs to the server: from one start to the next while requests wait, and the wait of one that is alone."""

    service_ns: int
    idle_ns: int


async def _service_ns(bench: Bench, address: str) -> int:
    async with UnaryCaller(address, [_sample()]) as calling:
        seconds = max(bench.plan.fixed_s / 5, 0.2)
        run = await loops.closed_loop(calling, _CLIENTS, seconds=seconds, warmup_s=0.1)
    run.refuse_failures("fixed service")
    return round(1e9 / run.per_second)


async def _idle_ns(bench: Bench, address: str) -> int:
    apart_ns = 3 * SERVICE_MS * 10**6
    schedule = np.arange(min(max(int(bench.plan.fixed_s * 10), 3), _ALONE_MAX), dtype=np.int64) * apart_ns
    _, wait_ms = await _run(address, schedule, len(schedule) * apart_ns / 1e9)
    return round(wait_ms * 1e6)


def _sample() -> Sample:
    x = np.random.default_rng(7).random((1, 4), dtype=np.float32)
    return sample(MODEL, {"x": x}, {"y": x + x})


async def _run(address: str, schedule: schedules.Schedule, seconds: float) -> tuple[Run, float]:
    """The run, and the mean time in the server's queue in milliseconds."""
    async with UnaryCaller(address, [_sample()]) as calling:
        for number in range(4):
            await calling.call(number)  # the connections are made
        before = await counters(address, MODEL)
        run = await loops.open_loop(calling, schedule, seconds=seconds)
    run.refuse_failures("fixed service")
    return run, (await counters(address, MODEL) - before).wait_ms_mean


FIGURES = (
    Figure(
        "md1_wait_error",
        "relative error of the mean wait against Lindley's recursion, the largest of three loads: fixed service 10 ms",
        "lower",
        0.05,
        _measure,
    ),
)
