"""How much of what ONNX Runtime gives in a plain loop the server passes on, at the same batch and on the same core.

Where h2load is installed its clients decide, who cost next to nothing: with four that take half a millisecond each to
check an answer and send again, the server waits for them. Without it, those that check answers do.
"""

from __future__ import annotations

import asyncio
import functools
import statistics
from dataclasses import asdict
from typing import Any

from turnout_bench import h2load
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
    bursts: list[h2load.Burst] = []
    peers = bench.peers_closed(MODEL, clients)
    for _ in range(bench.plan.rounds):
        # The servers have nothing to do meanwhile, so the reference has the core for itself.
        plain.append(await asyncio.to_thread(reference.ask, rows=clients, seconds=bench.plan.reference_s))
        before = await counters(server.address, MODEL)
        runs["turnout"].append(await bench.closed(server, MODEL, clients))
        rows.append((await counters(server.address, MODEL) - before).rows_mean)
        if h2load.installed():
            bursts.append(await h2load.closed_loop(bench, server, MODEL, clients, bench.plan.seconds))
        for name, measure in peers.items():
            runs[name].append(await measure())
    served = [run.per_second for run in runs["turnout"]]
    given = [float(one["per_second"]) for one in plain]
    ratios = paired([burst.per_second for burst in bursts] or served, given)
    in_process = statistics.median(float(one["per_second"]) for one in plain)
    absolute = {
        "in-process": {"rows_per_second": in_process, "run_ms": clients / in_process * 1e3},
        **medians(runs),
        "turnout_rows_of_a_batch": statistics.median(rows),
        "ratio_of_clients_that_check": estimate(paired(served, given)).value,
    }
    if bursts:
        absolute["h2load"] = {
            "answers_per_second": statistics.median(burst.per_second for burst in bursts),
            "cpu_us": statistics.median(burst.cpu_us for burst in bursts),
            "rows_of_a_batch": statistics.median(burst.rows_mean for burst in bursts),
        }
    rounds = {"ratios": ratios, "in-process": plain, "h2load": [asdict(burst) for burst in bursts], **raw(runs)}
    return Measured(estimate(ratios), absolute, rounds, doubts(runs))


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
