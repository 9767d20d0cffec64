"""Measured waits against queueing theory: a model of fixed service time, one executor, one row at a time (M/D/1).

Lindley's recursion over the very instants at which the requests left gives what each should wait for those before it,
so that neither chance nor a late generator plays a part. It is given how long the model really ran for each, which a
machine that pauses does not leave fixed, and the two times that belong to this server and not to the queue: from the
end of a run to the start of the next while requests wait (closed loop), and the queue time of a request that comes
alone; of both, what is usual in all rounds. The measured side is the server's own queue time, with nothing taken off.
A pause of the machine outside a run is nobody's: of the rounds at each load, that half counts in which the two cores
were away for less time.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from turnout_bench import loops, schedules
from turnout_bench.bench import Bench
from turnout_bench.callers import UnaryCaller
from turnout_bench.counters import counters
from turnout_bench.figures.figure import Figure, Measured
from turnout_bench.lindley import waits_ns
from turnout_bench.processes import PROGRAMS, Child
from turnout_bench.ratios import Estimate, estimate
from turnout_bench.results import BenchError, Run
from turnout_bench.samples import Sample, sample
from turnout_bench.schedules import Schedule

MODEL = "fixed"
SERVICE_MS = 10
LOADS = (0.3, 0.5, 0.7)
ERROR_MAX = 0.05
_ALONE_MAX = 100
_CLIENTS = 8


@dataclass(frozen=True, slots=True)
class Usual:
    """What belongs to the server: from a run to the next while requests wait, and the wait of one that is alone."""

    handoff_ns: int
    idle_ns: int


@dataclass(frozen=True, slots=True)
class Served:
    """One open-loop run.

    Attributes:
        wait_ms: the mean time in the server's queue.
        service_ns: how long the model ran for each request.
        paused_ns: for how long the two cores were not to be had meanwhile, in total.
    """

    seed: int
    run: Run
    wait_ms: float
    service_ns: Schedule
    paused_ns: int

    def error(self, service_ns: Schedule | int, usual: Usual) -> float:
        due_ms = self.due_ms(service_ns, usual)
        return abs(self.wait_ms - due_ms) / due_ms

    def due_ms(self, service_ns: Schedule | int, usual: Usual) -> float:
        """The mean wait by Lindley's recursion."""
        assert self.run.sent_ns is not None
        return float(waits_ns(self.run.sent_ns, service_ns + usual.handoff_ns, usual.idle_ns).mean()) / 1e6


async def _measure(bench: Bench) -> Measured:
    server = await bench.child("fixed service", lambda: [str(PROGRAMS / "fixed.py"), str(SERVICE_MS)])
    handoffs_ns: list[int] = []
    idle_ns: list[float] = []
    served: dict[float, list[Served]] = {load: [] for load in LOADS}
    async with bench.pauses() as pauses:
        for seed in range(2 * bench.plan.rounds):
            handoffs_ns += await _handoffs_ns(bench, server)
            idle_ns.append(await _idle_ns(bench, server))
            for load in LOADS:
                schedule = schedules.poisson(load * 1e3 / SERVICE_MS, bench.plan.fixed_s, seed)
                await pauses()
                run, wait_ms, service_ns = await _serve(server, schedule, bench.plan.fixed_s)
                paused_ns = sum(end_ns - begin_ns for begin_ns, end_ns in await pauses())
                served[load].append(Served(seed, run, wait_ms, service_ns, paused_ns))
    usual = Usual(round(statistics.median(handoffs_ns)), round(statistics.median(idle_ns)))
    calm = {load: sorted(served[load], key=lambda one: one.paused_ns)[: bench.plan.rounds] for load in LOADS}
    errors = {load: estimate([one.error(one.service_ns, usual) for one in calm[load]]) for load in LOADS}
    absolute = {f"load_{load}": _absolute(calm[load], errors[load], usual) for load in LOADS}
    rounds = [{"load": load, **_raw(one, usual)} for load in LOADS for one in served[load]]
    worst = max(errors.values(), key=lambda error: error.value)
    # A run is as long as the model and the machine make it, but the executor also waits for the interpreter at its end.
    doubts = tuple(
        f"{name}: with one time for all runs the error is {each['error_if_all_ran_as_usual']:.3g}"
        for name, each in absolute.items()
        if each["error_if_all_ran_as_usual"] > ERROR_MAX
    )
    return Measured(worst, absolute, {"usual": asdict(usual), "idle_ns": idle_ns, "rounds": rounds}, doubts)


def _raw(served: Served, usual: Usual) -> dict[str, Any]:
    return {
        "seed": served.seed,
        "wait_ms": served.wait_ms,
        "lindley_ms": served.due_ms(served.service_ns, usual),
        "error": served.error(served.service_ns, usual),
        "paused_ms": served.paused_ns / 1e6,
        "service_ms": (served.service_ns / 1e6).tolist(),
        "run": served.run.as_json(),
    }


def _absolute(served: Sequence[Served], error: Estimate, usual: Usual) -> dict[str, float]:
    service_ns = np.concatenate([one.service_ns for one in served])
    usual_ns = round(float(np.median(service_ns)))
    return {
        "wait_ms": statistics.median(one.wait_ms for one in served),
        "lindley_ms": statistics.median(one.due_ms(one.service_ns, usual) for one in served),
        "error": error.value,
        "error_low": error.low,
        "error_high": error.high,
        "error_if_all_ran_as_usual": statistics.median(one.error(usual_ns, usual) for one in served),
        "service_p50_ms": usual_ns / 1e6,
        "service_p99_ms": float(np.percentile(service_ns, 99)) / 1e6,
        "paused_ms": statistics.median(one.paused_ns for one in served) / 1e6,
        "handoff_ms": usual.handoff_ns / 1e6,
        "idle_ms": usual.idle_ns / 1e6,
    }


async def _handoffs_ns(bench: Bench, server: Child) -> list[int]:
    """From the end of each run to the start of the next, while requests always wait."""
    async with UnaryCaller(server.address, [_sample()]) as calling:
        await _runs(server)
        run = await loops.closed_loop(calling, _CLIENTS, seconds=max(bench.plan.fixed_s / 5, 0.2))
        runs = (await _runs(server))[: -_CLIENTS + 1]  # at the end, no client asks again
    run.refuse_failures("fixed service")
    handoffs_ns: list[int] = (runs[1:, 0] - runs[:-1, 1]).tolist()
    return handoffs_ns


async def _idle_ns(bench: Bench, server: Child) -> float:
    apart_ns = 3 * SERVICE_MS * 10**6
    schedule = np.arange(min(max(int(bench.plan.fixed_s * 10), 3), _ALONE_MAX), dtype=np.int64) * apart_ns
    _, wait_ms, _ = await _serve(server, schedule, len(schedule) * apart_ns / 1e9)
    return wait_ms * 1e6


async def _serve(server: Child, schedule: Schedule, seconds: float) -> tuple[Run, float, Schedule]:
    """The run, the mean time in the server's queue in milliseconds, and how long the model ran for each request."""
    async with UnaryCaller(server.address, [_sample()]) as calling:
        for number in range(4):
            await calling.call(number)  # the connections are made
        before = await counters(server.address, MODEL)
        await _runs(server)
        run = await loops.open_loop(calling, schedule, seconds=seconds)
        runs = await _runs(server)
    run.refuse_failures("fixed service")
    if len(runs) != len(schedule):
        raise BenchError(f"fixed service: {len(runs)} runs for {len(schedule)} requests")
    wait_ms = (await counters(server.address, MODEL) - before).wait_ms_mean
    return run, wait_ms, runs[:, 1] - runs[:, 0]


async def _runs(server: Child) -> Schedule:
    """Begin and end of each run since the last time, in nanoseconds: [runs, 2]."""
    runs = np.asarray(await asyncio.to_thread(server.ask), np.int64)
    return runs.reshape(-1, 2)


def _sample() -> Sample:
    x = np.random.default_rng(7).random((1, 4), dtype=np.float32)
    return sample(MODEL, {"x": x}, {"y": x + x})


FIGURES = (
    Figure(
        "md1_wait_error",
        "relative error of the mean wait against Lindley's recursion, the worst of three loads: fixed service 10 ms",
        "lower",
        ERROR_MAX,
        _measure,
    ),
)
