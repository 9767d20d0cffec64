"""How long the server's event loop is kept while it loads a large model.

ServerLive does nothing but pass through that loop, so what a call takes beyond its median on the idle server bounds
from above how long the loop was kept then: the kernel's, gRPC's and the generator's share are in it. Calls leave by a
fixed schedule, so a pause is weighted by its length. `control` is the same measure with nothing loading.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import grpc.aio
import numpy as np
from numpy.typing import NDArray

from turnout_bench import loops
from turnout_bench.bench import Bench
from turnout_bench.callers import CHANNEL_OPTIONS
from turnout_bench.figures.figure import Figure, Measured
from turnout_bench.hdr import Histogram
from turnout_bench.managed import BIG, Operator, managed_server
from turnout_bench.ratios import estimate
from turnout_bench.results import OK, BenchError, Trace
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import METHODS

EVERY_MS = 2
_IDLE_S = 0.5  # before the load
_OWN_LAG_MS_MAX = 5.0  # a tenth of the target
_SPARE = 2.5  # of the time that a load took when it was tried: what is due after the load is idle too


class Liveness:
    """A loops.Caller of ServerLive."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call: Any = channel.unary_unary(METHODS["ServerLive"].path)

    async def call(self, number: int) -> str:
        try:
            alive = pb.ServerLiveResponse.FromString(await self._call(b"", timeout=30)).live
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return OK if alive else "NOT_LIVE"


def lags_ms(trace: Trace, begin_ns: int, end_ns: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of the calls that left from `begin_ns` to `end_ns`, and of all others: latency beyond the median of the others.
    From when they left: none of them waited for an answer, and the generator's own lag is not the server's."""
    latency_ms = (trace.done_ns - trace.sent_ns) / 1e6
    within = (trace.sent_ns >= begin_ns) & (trace.sent_ns <= end_ns)
    lag_ms = np.maximum(latency_ms - np.median(latency_ms[~within]), 0.0)
    return lag_ms[within], lag_ms[~within]


async def _measure(bench: Bench) -> Measured:
    server = await managed_server(bench)
    rounds: list[dict[str, Any]] = []
    async with (
        Operator(server.admin_address) as operator,
        grpc.aio.insecure_channel(server.address, options=CHANNEL_OPTIONS) as channel,
    ):
        await channel.channel_ready()
        began_s = time.monotonic()
        await operator.load(BIG)
        seconds = _IDLE_S + _SPARE * (time.monotonic() - began_s)
        await operator.unload(BIG)
        for _ in range(bench.plan.loads):
            rounds.append(await _one_load(Liveness(channel), operator, seconds))
    absolute = {
        **{key: statistics.median(one[key] for one in rounds) for key in rounds[0] if key.endswith("_ms")},
        "max_ms": max(one["max_ms"] for one in rounds),
        "loads": len(rounds),
        "probes": sum(one["probes"] for one in rounds),
    }
    return Measured(estimate([one["p99_ms"] for one in rounds]), absolute, rounds, _doubts(rounds))


async def _one_load(liveness: Liveness, operator: Operator, seconds: float) -> dict[str, Any]:
    schedule = np.arange(int(seconds * 1e3 / EVERY_MS), dtype=np.int64) * EVERY_MS * 10**6
    probing = asyncio.ensure_future(loops.open_loop(liveness, schedule, seconds=seconds))
    await asyncio.sleep(_IDLE_S)
    begin_ns = time.monotonic_ns()
    await operator.load(BIG)
    end_ns = time.monotonic_ns()
    run = (await probing).refuse_failures("ServerLive during a load")
    await operator.unload(BIG)
    assert run.trace is not None
    loading_ms, idle_ms = lags_ms(run.trace, begin_ns, end_ns)
    if not len(loading_ms):
        raise BenchError("a load was over before a call left")
    assert run.lag is not None
    return {
        "p99_ms": float(np.percentile(loading_ms, 99)),
        "p50_ms": float(np.median(loading_ms)),
        "max_ms": float(loading_ms.max()),
        "control_p99_ms": float(np.percentile(idle_ms, 99)),
        "load_ms": (end_ns - begin_ns) / 1e6,
        "generator_lag_p99_ms": run.lag.percentile_us(99) / 1e3,
        "probes": len(loading_ms),
        "outlasted": bool(end_ns > run.trace.due_ns[-1]),
        "lag_hdr_us": Histogram.of_ns(loading_ms * 1e6).encode(),
    }


def _doubts(rounds: list[dict[str, Any]]) -> tuple[str, ...]:
    said = []
    if outlasted := sum(one["outlasted"] for one in rounds):
        said.append(f"{outlasted} loads took longer than they were probed")
    if (own_ms := max(one["generator_lag_p99_ms"] for one in rounds)) > _OWN_LAG_MS_MAX:
        said.append(
            f"the generator's own lag p99 was up to {own_ms:.1f} ms: answers were taken as late, and that counts"
        )
    return tuple(said)


FIGURES = (
    Figure(
        "load_loop_lag_ms",
        f"event-loop lag, p99, while a model of 80 MB loads: ServerLive every {EVERY_MS} ms against its idle median",
        "lower",
        50.0,
        _measure,
        unit="ms",
    ),
)
