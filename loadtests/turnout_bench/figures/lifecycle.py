"""Traffic that is moved while it is served: what goes wrong, what it costs in latency, and how fast a rollback is.

Open-loop clients ask golden samples of a model of two versions while an operator swaps and rolls back. Every answer is
held against both versions: it must be that of the revision that it names.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turnout_bench import loops, schedules
from turnout_bench.answers import Question, Tally, golden_questions, revision_of, tally
from turnout_bench.bench import Bench
from turnout_bench.changes import Change, around, percentile_ratio, strayed
from turnout_bench.figures.figure import Figure, Measured
from turnout_bench.hdr import Histogram
from turnout_bench.managed import BESIDE, LIVE, SMALL, VERSIONS, Operator, managed_server
from turnout_bench.pauses import Pause, undisturbed, unlike
from turnout_bench.plans import Plan
from turnout_bench.ratios import Estimate, estimate
from turnout_bench.results import OK, BenchError, Run, Trace
from turnout_bench.witness import Witness
from zoo.samples import DIGITS

RATE = 400.0  # requests per second: some 40 fall into each window, and neither side is near its limits
UNARY, STREAMS = 4, 2  # clients
P99_RATIO_MAX = 1.5
MARGIN_MS = 50  # around a change, before it is sent and after it is done
OWN_LAG_SHARE_MAX = 0.25  # of the p99
_LEAD_S = 1.0  # of traffic before the first change, and half of it after the last

PROBE_MS = 1
PROBES = 80
_PROBES_BEFORE = 20
_SETTLE_S = 0.05


@dataclass(frozen=True, slots=True)
class Moved:
    """One run of traffic that was moved."""

    run: Run
    changes: Sequence[Change]
    tally: Tally
    strayed: int  # answers of a revision that had lost all traffic before the request left
    miscounted: int  # answers that the server counts and no client got, or the reverse
    counted: dict[str, int]  # answers by revision, by the server
    pauses: Sequence[Pause]


async def moved(bench: Bench) -> Moved:
    """Of both figures of the swap; measured once."""
    return await bench.once("moved", lambda: _move(bench))


async def _move(bench: Bench) -> Moved:
    server = await managed_server(bench)
    asked = questions()
    count = bench.plan.swaps + bench.plan.rollbacks
    seconds = _LEAD_S * 1.5 + count * bench.plan.change_every_s
    schedule = schedules.poisson(RATE, seconds, seed=5)
    witness = Witness(server.address, asked, UNARY, STREAMS)
    async with Operator(server.admin_address) as operator:
        await operator.swap(LIVE)
        before = await operator.answers()
        async with witness, bench.pauses() as pauses_so_far:
            driving = asyncio.ensure_future(_drive(operator, bench.plan))
            try:
                run = await loops.open_loop(witness, schedule, seconds=seconds)
                made = await driving
            finally:
                driving.cancel()
            pauses = await pauses_so_far()
        counted = {revision: now - before.get(revision, 0) for revision, now in (await operator.answers()).items()}
    trace = traced(run)
    heard = witness.heard(len(schedule))
    told = tally(asked, trace.outcomes, heard, witness.strays)
    named = [revision_of(answers[0]) if answers else "" for answers in heard]
    missed = sum(abs(counted.get(name, 0) - told.by_revision.get(name, 0)) for name in {*counted, *told.by_revision})
    astray = strayed(trace.sent_ns, trace.done_ns, named, made)
    return Moved(run, made, told, astray, missed, counted, pauses)


async def _drive(operator: Operator, plan: Plan) -> list[Change]:
    """Swaps to and fro, and after every n-th a rollback; at fixed times, a little irregular."""
    rng = random.Random(5)
    begin_s = time.monotonic() + _LEAD_S
    live, other = LIVE, BESIDE
    made: list[Change] = []

    async def due() -> None:
        at_s = begin_s + (len(made) + rng.uniform(-0.2, 0.2)) * plan.change_every_s
        await asyncio.sleep(max(at_s - time.monotonic(), 0))

    for number in range(1, plan.swaps + 1):
        await due()
        live, other = other, live
        made.append(await operator.swap(live))
        if number % (plan.swaps // plan.rollbacks) == 0:
            await due()
            live, other = other, live
            made.append(await operator.roll_back(live))
    return made


async def _failed(bench: Bench) -> Measured:
    got = await moved(bench)
    bad = float(got.tally.bad + got.strayed + got.miscounted)
    absolute = {
        **asdict(got.tally),
        "strayed": got.strayed,
        "miscounted": got.miscounted,
        "counted_by_the_server": got.counted,
        "swaps": sum(change.kind == "swap" for change in got.changes),
        "rollbacks": sum(change.kind == "rollback" for change in got.changes),
        "clients": {"unary": UNARY, "streams": STREAMS},
    }
    made = len(got.changes)
    return Measured(Estimate(bad, bad, bad, made), absolute, {"run": got.run.as_json()}, _late(got))


async def _p99_ratio(bench: Bench) -> Measured:
    got = await moved(bench)
    trace = traced(got.run)
    inside, belongs = around(trace.due_ns, got.changes, MARGIN_MS * 10**6)
    latency_ms = (trace.done_ns - trace.due_ns) / 1e6
    counted = np.asarray(trace.outcomes) == OK
    counted &= trace.due_ns >= trace.due_ns[0] + int(_LEAD_S / 2 * 1e9)  # first calls are slow, and far from changes
    calm = counted & undisturbed(trace.due_ns, trace.done_ns, got.pauses)
    if not calm.any():
        raise BenchError("every request met a pause of the machine: too much else runs on it")
    sides = {"around": inside, "between": ~inside}
    left_out = {side: 1 - _count(calm & of) / max(_count(counted & of), 1) for side, of in sides.items()}
    ratio = percentile_ratio(latency_ms[calm], inside[calm], belongs[calm])
    with_pauses = percentile_ratio(latency_ms[counted], inside[counted], belongs[counted])
    took_ms = [(change.done_ns - change.sent_ns) / 1e6 for change in got.changes]
    absolute: dict[str, Any] = {
        **{
            side: {
                "requests": _count(calm & of),
                "left_out_share": left_out[side],
                **_percentiles(latency_ms[calm & of]),
            }
            for side, of in sides.items()
        },
        "ratio_with_pauses": with_pauses.value,
        "change_ms": statistics.median(took_ms),
        "change_ms_max": max(took_ms),
    }
    raw = {
        "changes": [asdict(change) for change in got.changes],
        "begin_ns": int(trace.due_ns[0]),
        "pauses": got.pauses,
        "latency_hdr_us": {
            side: Histogram.of_ns(latency_ms[counted & of] * 1e6).encode() for side, of in sides.items()
        },
    }
    p99_ms = float(np.percentile(latency_ms[calm], 99))
    doubts = _late(got) + _spoiled(got, p99_ms) + unlike({f"{side} changes": left_out[side] for side in sides})
    if ratio.value <= P99_RATIO_MAX < with_pauses.value:
        doubts += (f"with the requests that met pauses of the machine it is {with_pauses.value:.3g}",)
    return Measured(ratio, absolute, raw, doubts)


def _count(mask: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))


async def _rollback(bench: Bench) -> Measured:
    server = await managed_server(bench)
    async with Operator(server.admin_address) as operator:
        rounds = [await _one_rollback(server.address, operator) for _ in range(bench.plan.rollbacks)]
    ms = [one["first_ms"] for one in rounds]
    absolute = {
        "max_ms": max(ms),
        "min_ms": min(ms),
        **{key: statistics.median(one[key] for one in rounds) for key in ("rpc_ms", "last_new_ms", "probe_ms")},
        "probe_gap_ms_max": max(one["gap_ms"] for one in rounds),
        "rollbacks": len(rounds),
    }
    return Measured(estimate(ms), absolute, rounds)


async def _one_rollback(address: str, operator: Operator) -> dict[str, float]:
    """In milliseconds from sending RollbackModel: its answer, the first answer of the old version to any client, the
    last of the new one; and the probes' own latency, and the gap between answers in which the first one came."""
    await operator.swap(LIVE)
    swapped = await operator.swap(BESIDE)
    await asyncio.sleep(_SETTLE_S)
    asked = questions()
    schedule = np.arange(PROBES, dtype=np.int64) * PROBE_MS * 10**6
    async with Witness(address, asked, UNARY) as witness:
        probing = asyncio.ensure_future(loops.open_loop(witness, schedule, seconds=PROBES * PROBE_MS / 1e3))
        await asyncio.sleep(_PROBES_BEFORE * PROBE_MS / 1e3)
        back = await operator.roll_back(LIVE)
        run = await probing
    trace, heard = traced(run), witness.heard(PROBES)
    if (told := tally(asked, trace.outcomes, heard, witness.strays)).bad:
        raise BenchError(f"not every answer around a rollback was right: {told}")
    done_ns = (trace.done_ns - back.sent_ns).tolist()
    by_answer = sorted((at_ns, revision_of(answers[0])) for at_ns, answers in zip(done_ns, heard, strict=True))
    old = [at_ns for at_ns, revision in by_answer if revision == back.revision]
    new = [at_ns for at_ns, revision in by_answer if revision == swapped.revision]
    if not new or not old or old[0] < 0:
        raise BenchError(f"{len(old)} probes were answered by the old version, {len(new)} by the new one")
    return {
        "first_ms": old[0] / 1e6,
        "rpc_ms": (back.done_ns - back.sent_ns) / 1e6,
        "last_new_ms": new[-1] / 1e6,
        "probe_ms": run.latency.percentile_us(50) / 1e3,
        "gap_ms": (old[0] - max((at_ns for at_ns, _ in by_answer if at_ns < old[0]), default=0)) / 1e6,
    }


def questions() -> list[Question]:
    """The golden samples of both versions."""
    return golden_questions(SMALL, {version: DIGITS / str(version) for version in VERSIONS.values()})


def traced(run: Run) -> Trace:
    """Of an open loop."""
    assert run.trace is not None
    return run.trace


def _percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    return {f"p{percent}_ms": float(np.percentile(values, percent)) for percent in (50, 99, 100)} if len(values) else {}


def _late(got: Moved) -> tuple[str, ...]:
    """Changes that met no traffic."""
    last_ns = int(traced(got.run).due_ns[-1])
    late = sum(change.done_ns > last_ns for change in got.changes)
    return (f"{late} changes came after the traffic",) if late else ()


def _spoiled(got: Moved, p99_ms: float) -> tuple[str, ...]:
    """Whether the generator's own lag weighs in the percentiles that are compared. It is on both sides, so more of it
    is accepted than where a latency itself is the result."""
    assert got.run.lag is not None
    own_ms = got.run.lag.percentile_us(99) / 1e3
    if own_ms <= OWN_LAG_SHARE_MAX * p99_ms:
        return ()
    return (f"the generator's own lag p99 is {own_ms:.2f} ms, beside a p99 of {p99_ms:.2f} ms: it measured itself",)


FIGURES = (
    Figure(
        "swap_failed",
        "requests that failed, were lost, doubled, or answered by another revision than named, while slots are swapped",
        "lower",
        0.0,
        _failed,
        unit="requests",
    ),
    Figure(
        "swap_p99_ratio",
        f"p99 of requests due within {MARGIN_MS} ms of a swap or rollback over p99 of those between them",
        "lower",
        P99_RATIO_MAX,
        _p99_ratio,
    ),
    Figure(
        "rollback_ms",
        f"from sending RollbackModel to the first answer of the old version, with a probe every {PROBE_MS} ms",
        "lower",
        10.0,
        _rollback,
        unit="ms",
    ),
)
