"""What a shadow costs live requests: the server's own time from arrival to answer, every request shadowed over none.

Rounds with and without the rule take turns. Before each, the live slot is loaded anew, because its latencies are
counted from then on. The rate is low, so that queues say nothing: what is left is who waits for whom on one core.
"""

from __future__ import annotations

import statistics
from typing import Any

from turnout_bench import loops, schedules
from turnout_bench.bench import Bench
from turnout_bench.callers import UnaryCaller
from turnout_bench.figures.figure import Figure, Measured
from turnout_bench.figures.lifecycle import questions
from turnout_bench.managed import LIVE, SMALL, VERSIONS, Operator, managed_server
from turnout_bench.ratios import estimate, paired

RATE = 100.0  # requests per second


async def _measure(bench: Bench) -> Measured:
    server = await managed_server(bench)
    samples = [question.by_revision[f"{SMALL}/{VERSIONS[LIVE]}"] for question in questions()]
    seconds = bench.plan.shadow_s
    rounds: list[dict[str, Any]] = []
    async with Operator(server.admin_address) as operator, UnaryCaller(server.address, samples) as calling:
        await operator.swap(LIVE)
        for seed in range(bench.plan.rounds):
            one: dict[str, Any] = {}
            for name, share in (("off", 0.0), ("on", 1.0)):
                await operator.renew()
                await operator.shadow(share)
                run = await loops.open_loop(calling, schedules.poisson(RATE, seconds, seed), seconds=seconds)
                run.refuse_failures(f"{server.name}, shadow {name}")
                p50_ms, p99_ms = await operator.latency_ms()
                one |= {f"{name}_p50_ms": p50_ms, f"{name}_p99_ms": p99_ms, f"{name}_run": run.as_json()}
            pairs, dropped = await operator.shadowed()
            rounds.append({**one, "pairs": pairs, "dropped": dropped})
            await operator.shadow(0)
    absolute = {
        **{key: statistics.median(one[key] for one in rounds) for key in rounds[0] if key.endswith("_ms")},
        "requests_each": round(RATE * seconds),
        "pairs": sum(one["pairs"] for one in rounds),
        "dropped": sum(sum(one["dropped"].values()) for one in rounds),
    }
    ratios = paired([one["on_p99_ms"] for one in rounds], [one["off_p99_ms"] for one in rounds])
    return Measured(estimate(ratios), absolute, rounds)


FIGURES = (
    Figure(
        "shadow_p99_ratio",
        f"p99 from arrival to answer inside the server, every request shadowed over none: {SMALL}, {RATE:g} requests/s",
        "lower",
        1.10,
        _measure,
    ),
)
