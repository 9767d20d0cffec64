"""How much of what ONNX Runtime gives in a plain loop the server passes on, at the same batch and on the same core."""

from __future__ import annotations

import asyncio
import functools
import statistics
from typing import Any

from turnout_bench.bench import Bench
from turnout_bench.counters import counters
from turnout_bench.figures.figure import Figure, Measured, doubts, medians, raw
from turnout_bench.ratios import estimate, paired
from turnout_bench.results import Run

MODEL = "mlp_big"


async def _measure(clients: int, bench: Bench) -> Measured:
    server, reference = await bench.turnout(), await bench.reference(MODEL)
    runs: dict[str, list[Run]] = {"turnout": [], **{f"peer {peer.name}": [] for peer in bench.peers}}
    plain: list[dict[str, Any]] = []
    rows: list[float] = []
    peers = bench.peers_closed(MODEL, clients)
    for _ in range(bench.plan.rounds):
        # The servers have nothing to do meanwhile, so the reference has the core for itself.
        plain.append(await asyncio.to_thread(reference.ask, rows=clients, seconds=bench.plan.reference_s))
        before = await counters(server.address, MODEL)
        runs["turnout"].append(await bench.closed(server, MODEL, clients))
        rows.append((await counters(server.address, MODEL) - before).rows_mean)
        for name, measure in peers.items():
            runs[name].append(await measure())
    ratios = paired([run.per_second for run in runs["turnout"]], [float(one["per_second"]) for one in plain])
    in_process = statistics.median(float(one["per_second"]) for one in plain)
    absolute = {
        "in-process": {"rows_per_second": in_process, "run_ms": clients / in_process * 1e3},
        **medians(runs),
        "turnout_rows_of_a_batch": statistics.median(rows),
    }
    return Measured(estimate(ratios), absolute, {"ratios": ratios, "in-process": plain, **raw(runs)}, doubts(runs))


FIGURES = tuple(
    Figure(
        f"efficiency_big_c{clients}",
        f"answers per second over in-process ONNX Runtime at batch {clients}: mlp_big, {clients} clients",
        "higher",
        target,
        functools.partial(_measure, clients),
    )
    for clients, target in ((4, 0.65), (32, 0.62))
)
