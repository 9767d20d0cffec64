"""Open-loop runs at several loads: latency, throughput and batch size against load, the material of the plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from turnout_bench import loops
from turnout_bench.callers import caller
from turnout_bench.counters import Counters, counters
from turnout_bench.results import BenchError, Run
from turnout_bench.samples import Sample
from turnout_bench.schedules import Schedule

WARMUP_SHARE = 0.1
_ATTEMPTS = 3  # a run that is void says nothing about the server, and is repeated


@dataclass(frozen=True, slots=True)
class Point:
    """One load and what came of it.

    Attributes:
        rows_mean: of a batch, as the server counted; None where it has no statistics.
        attempts: runs until the generator kept its schedule, this one included.
    """

    run: Run
    rows_mean: float | None
    attempts: int

    def as_json(self) -> dict[str, Any]:
        return {**self.run.as_json(), "batch_rows_mean": self.rows_mean, "attempts": self.attempts}


async def open_point(
    address: str,
    model: str,
    samples: Sequence[Sample],
    schedule: Schedule,
    seconds: float,
    mode: str = "unary",
    check_every: int = 1,
) -> Point:
    """One open-loop run, repeated while it is void. A server without statistics still has latencies."""
    attempts = 0
    while True:
        attempts += 1
        before = await _counters(address, model)
        async with caller(mode, address, samples, check_every) as calling:
            run = await loops.open_loop(calling, schedule, seconds=seconds, warmup_s=seconds * WARMUP_SHARE)
        after = await _counters(address, model)
        if not run.void() or attempts == _ATTEMPTS:
            break
    ran = after - before if before is not None and after is not None else None
    return Point(run, ran.rows_mean if ran is not None and ran.batches else None, attempts)


async def _counters(address: str, model: str) -> Counters | None:
    try:
        return await counters(address, model)
    except BenchError:
        return None
