"""Right answers within an objective, per second: the default policy over the best fixed delay, whichever that is.

Every load is swept on virtual time, with the run times that were measured here and the same arrivals for all
policies. The fixed delay is chosen afterwards, for each load on its own, which no operator could do. One load of each
kind is confirmed for real: a server with the defaults and one with that delay, in turn, under the same schedule.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from turnout.core.batch_policy import BatchPolicy
from turnout_bench import policies, schedules, virtual
from turnout_bench.bench import Bench
from turnout_bench.figures.figure import Figure, Measured
from turnout_bench.processes import Child, server_arguments
from turnout_bench.ratios import Estimate, estimate
from turnout_bench.results import Run
from turnout_bench.saturation import saturation
from turnout_bench.schedules import Schedule
from turnout_bench.sweep import open_point
from turnout_bench.virtual import Profile, Served

MODEL = "mlp_big"
OBJECTIVE_US = 50_000
ROWS = (1, 2, 4, 8, 16, 32)
SHARES = (0.5, 0.7, 0.9)  # of saturation
CLIENTS = (4, 16, 32)
ARRIVALS: dict[str, Callable[[float, float, int], Schedule]] = {
    "poisson": schedules.poisson,
    "bursty": schedules.bursty,
}

_CLOSED_TIMES = 2  # the virtual time: clients that do not fill batches send fewer requests in it
Simulate = Callable[[BatchPolicy, int], Served]  # of a policy, with a seed


@dataclass(frozen=True, slots=True)
class Load:
    """What the policies made of one load: goodput per second, by seed."""

    load: float
    default: tuple[float, ...]
    fixed: dict[int, tuple[float, ...]]  # by delay in microseconds
    rows_mean: float  # of a batch, with the default

    @property
    def best_us(self) -> int:
        """The fixed delay that does best over all seeds."""
        return max(self.fixed, key=lambda delay_us: sum(self.fixed[delay_us]))

    @property
    def ratio(self) -> Estimate:
        best = self.fixed[self.best_us]
        return estimate([ours / theirs if theirs else 1.0 for ours, theirs in zip(self.default, best, strict=True)])


async def measure(kind: str, bench: Bench) -> Measured:
    """`kind`: poisson, bursty or closed. The value is the ratio at the load where it is lowest."""
    profile = await bench.once("profile", lambda: measured_profile(bench))
    loads = await asyncio.to_thread(sweep, kind, profile, bench.plan.virtual_requests, bench.plan.virtual_seeds)
    middle = loads[1]
    confirmed, doubts = await confirm(bench, kind, middle)
    absolute = {
        **{f"{'clients' if kind == 'closed' else 'load'}_{one.load:g}": _shown(one) for one in loads},
        "profile_ms": {str(rows): profile(rows) / 1e6 for rows in profile.rows},
        "profile_request_us": profile.request_ns / 1e3,
        "virtual_saturation_per_second": profile.saturation,
        "confirmed": confirmed["absolute"],
    }
    worst = min((one.ratio for one in loads), key=lambda ratio: ratio.value)
    return Measured(worst, absolute, {"loads": [asdict(one) for one in loads], **confirmed["rounds"]}, doubts)


async def measured_profile(bench: Bench) -> Profile:
    """Run times of the model alone, on the servers' core; and the server's own CPU time for a request, by way of a
    model that takes next to nothing."""
    reference, server = await bench.reference(MODEL), await bench.turnout()
    seconds = bench.plan.reference_s / 2
    answers = [await asyncio.to_thread(reference.ask, rows=rows, seconds=seconds) for rows in ROWS]
    overhead = await bench.closed(server, "mlp_small", 32, seconds=bench.plan.saturation_s)
    return Profile(ROWS, tuple(float(one["median_ns"]) for one in answers), overhead.cpu_us * 1e3)


def sweep(kind: str, profile: Profile, requests: int, seeds: int) -> list[Load]:
    """Every policy at every load, on virtual time."""
    kept = []
    for load in CLIENTS if kind == "closed" else SHARES:
        simulate = _closed(profile, int(load), requests) if kind == "closed" else _open(kind, profile, load, requests)
        ours = [simulate(policies.default(), seed) for seed in range(seeds)]
        fixed = {
            delay_us: tuple(simulate(policies.fixed(delay_us), seed).goodput for seed in range(seeds))
            for delay_us in policies.DELAYS_US
        }
        rows_mean = statistics.mean(one.rows_mean for one in ours)
        kept.append(Load(load, tuple(one.goodput for one in ours), fixed, rows_mean))
    return kept


def _open(kind: str, profile: Profile, share: float, requests: int) -> Simulate:
    rate = share * profile.saturation
    seconds = requests / rate

    def simulate(policy: BatchPolicy, seed: int) -> Served:
        return virtual.open_loop(profile, policy, ARRIVALS[kind](rate, seconds, seed), seconds, OBJECTIVE_US)

    return simulate


def _closed(profile: Profile, clients: int, requests: int) -> Simulate:
    seconds = _CLOSED_TIMES * requests / profile.saturation

    def simulate(policy: BatchPolicy, seed: int) -> Served:
        return virtual.closed_loop(profile, policy, clients, seconds, OBJECTIVE_US, seed)

    return simulate


async def confirm(bench: Bench, kind: str, load: Load) -> tuple[dict[str, Any], tuple[str, ...]]:
    """One load for real: the server with its defaults, and one with the best fixed delay."""
    contestants = {"default": await bench.turnout(), "fixed": await _fixed_server(bench, load.best_us)}
    runs: dict[str, list[Run]] = {name: [] for name in contestants}
    highest = await saturation(bench, MODEL) if kind != "closed" else None
    for seed in range(bench.plan.confirm_rounds):
        for name, server in contestants.items():
            if highest is None:
                runs[name].append(await bench.closed(server, MODEL, int(load.load), seconds=bench.plan.confirm_s))
                continue
            schedule = ARRIVALS[kind](load.load * highest.per_second, bench.plan.confirm_s, seed)
            point = await open_point(server.address, MODEL, bench.samples(MODEL), schedule, bench.plan.confirm_s)
            runs[name].append(point.run)
    goodput = {name: [run.goodput(OBJECTIVE_US) for run in each] for name, each in runs.items()}
    ratios = [ours / theirs if theirs else 1.0 for ours, theirs in zip(*goodput.values(), strict=True)]
    absolute = {
        "load": load.load,
        "fixed_delay_us": load.best_us,
        "ratio": asdict(estimate(ratios)),
        **{f"{name}_goodput_per_second": statistics.median(values) for name, values in goodput.items()},
        **{f"{name}_p99_ms": _p99_ms(each) for name, each in runs.items()},
    }
    doubts = tuple(f"confirming {name}: {void}" for name, each in runs.items() for run in each if (void := run.void()))
    rounds = {f"confirm_{name}": [run.as_json() for run in each] for name, each in runs.items()}
    return {"absolute": absolute, "rounds": rounds}, doubts


async def _fixed_server(bench: Bench, delay_us: int) -> Child:
    """A server whose configuration has that delay; kept, as several figures may choose the same."""

    def arguments() -> Sequence[str]:
        root = bench.folder / f"fixed-{delay_us}"
        shutil.copytree(bench.model_file(MODEL).parents[1], root / MODEL)
        policies.write_fixed(root / MODEL, delay_us)
        return server_arguments(root)

    return await bench.child(f"turnout, fixed delay of {delay_us} us", arguments)


def _p99_ms(runs: Sequence[Run]) -> float:
    return statistics.median(run.latency.percentile_us(99) for run in runs) / 1e3


def _shown(load: Load) -> dict[str, Any]:
    fixed = {f"{delay_us}_us": statistics.median(values) for delay_us, values in load.fixed.items()}
    return {
        "ratio": asdict(load.ratio),
        "default_goodput_per_second": statistics.median(load.default),
        "fixed_goodput_per_second": fixed,
        "best_fixed_us": load.best_us,
        "default_batch_rows_mean": load.rows_mean,
    }


def _figure(kind: str, what: str) -> Figure:
    measuring: Callable[[Bench], Awaitable[Measured]] = functools.partial(measure, kind)
    return Figure(f"goodput_{kind}", what, "higher", 0.97, measuring)


_WITHIN = f"answers within {OBJECTIVE_US // 1000} ms over the best fixed delay, the worst of"
FIGURES = (
    _figure("poisson", f"{_WITHIN} 50, 70, 90 % of saturation: mlp_big, Poisson"),
    _figure("bursty", f"{_WITHIN} 50, 70, 90 % of saturation: mlp_big, Gamma gaps with cv 3"),
    _figure("closed", f"{_WITHIN} 4, 16, 32 clients: mlp_big, closed loop"),
)
