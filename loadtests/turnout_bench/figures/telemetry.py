"""What it costs to be seen: CPU time per request with everything exported, over a server that exports nothing; and
latency while what is exported has nowhere to go.

Counting itself cannot be switched off: statistics and the admin service need it. Off is no ops port, no OTLP, and so
no sampler of the loop's delay.
"""

from __future__ import annotations

import asyncio
import http.client
import signal
import socket
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from turnout_bench import loops, schedules
from turnout_bench.bench import Bench
from turnout_bench.callers import UnaryCaller
from turnout_bench.changes import percentile_ratio
from turnout_bench.figures.figure import Figure, Measured, doubts, medians_of, raw
from turnout_bench.figures.lifecycle import traced
from turnout_bench.pauses import Pause, undisturbed, unlike
from turnout_bench.processes import PROGRAMS, Child
from turnout_bench.ratios import Estimate, estimate, paired
from turnout_bench.results import BenchError, Run

_MODEL = "mlp_small"
_CLIENTS = 32
_RATE = 100.0  # requests per second of the open loop: neither side is ever near its limit
_SLICE_S = 2.0
_TURN_S = 1.0
_SCRAPE_S_MAX = 5.0
_ACCEPT = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"}


async def _everything(bench: Bench) -> Measured:
    """In turns of a second, over connections that stay open. All CPU time counts that a server uses in a round, also
    while it is the other's turn: spans are exported seconds after they were made."""
    plan = bench.plan
    sink = await bench.child("OTLP sink", lambda: [str(PROGRAMS / "sink.py")], beside=True)
    servers = {
        "on": await bench.turnout("telemetry on", f"--otlp-endpoint=http://{sink.address}"),
        "off": await bench.turnout("telemetry off", "--no-ops"),
    }
    turn_s = min(_TURN_S, plan.seconds)
    runs: dict[str, list[Run]] = {name: [] for name in servers}
    cpu_us: dict[str, list[float]] = {name: [] for name in servers}
    async with AsyncExitStack() as stack:
        callers = {
            name: await stack.enter_async_context(UnaryCaller(server.address, bench.samples(_MODEL)))
            for name, server in servers.items()
        }

        async def turn(name: str, seconds: float) -> Run:
            run = await loops.closed_loop(callers[name], _CLIENTS, seconds=seconds)
            return run.refuse_failures(servers[name].name)

        for name in servers:
            await turn(name, plan.warmup_s)
        for _ in range(2 * plan.rounds):
            used_s = {name: server.cpu_s() for name, server in servers.items()}
            answered = dict.fromkeys(servers, 0)
            await asyncio.to_thread(_scrape, servers["on"].ops_address)
            for number in range(max(int(plan.seconds / turn_s), 1)):
                for name in _rotated(list(servers), number):
                    runs[name].append(await turn(name, turn_s))
                    answered[name] += runs[name][-1].ok
            for name, server in servers.items():
                cpu_us[name].append((server.cpu_s() - used_s[name]) / answered[name] * 1e6)
    ratios = paired(cpu_us["on"], cpu_us["off"])
    absolute = {name: {**medians_of(runs[name]), "cpu_us": statistics.median(cpu_us[name])} for name in servers}
    return Measured(estimate(ratios), absolute, {"ratios": ratios, "cpu_us": cpu_us, **raw(runs)}, doubts(runs))


def _scrape(address: str) -> None:
    connection = http.client.HTTPConnection(address, timeout=_SCRAPE_S_MAX)
    try:
        connection.request("GET", "/metrics", headers=_ACCEPT)
        answer = connection.getresponse()
        if answer.status != http.client.OK or not answer.read():
            raise BenchError(f"http://{address}/metrics answers {answer.status}")
    finally:
        connection.close()


async def _nowhere(bench: Bench) -> Measured:
    """With the defaults: 1 % of requests traced, and exported each 5 s.

    The servers take turns in short slices, over connections that stay open, so that whatever the machine does meets all
    of them; the others are stopped meanwhile, and owe their collectors all the more when their turn comes. A request
    counts from when it left: what it waited for the generator is no server's. It does not count where one of the two
    cores was not to be had meanwhile.
    """
    plan = bench.plan
    slice_s = min(_SLICE_S, plan.seconds)
    slices = 2 * plan.rounds
    refusing = await bench.child("OTLP sink that refuses", lambda: [str(PROGRAMS / "sink.py"), "--refuse"], beside=True)
    dying = await bench.child("OTLP sink that dies", lambda: [str(PROGRAMS / "sink.py")], beside=True)
    servers = {"off": await bench.turnout("telemetry off", "--no-ops")}
    with _port(listens=True) as hole, _port(listens=False) as nobody:
        collectors = {"black-holed": hole, "dead": nobody, "refusing": refusing.address, "dying": dying.address}
        for name, address in collectors.items():
            servers[name] = await bench.turnout(f"telemetry {name}", f"--otlp-endpoint=http://{address}")
        async with bench.pauses() as pauses_so_far, AsyncExitStack() as stack:
            callers = {
                name: await stack.enter_async_context(UnaryCaller(server.address, bench.samples(_MODEL)))
                for name, server in servers.items()
            }
            runs: dict[str, list[Run]] = {name: [] for name in servers}
            for number in range(slices):
                if number == slices // 2:
                    await asyncio.to_thread(dying.stop)
                schedule = schedules.poisson(_RATE, slice_s, number)
                for name in _rotated(list(servers), number):
                    with _alone(servers, name):
                        run = await loops.open_loop(callers[name], schedule, seconds=slice_s)
                    runs[name].append(run.refuse_failures(servers[name].name))
            pauses = await pauses_so_far()
    latency_ms = {name: [_latency_ms(run, pauses) for run in each] for name, each in runs.items()}
    ratios = {name: _p99_ratio(latency_ms[name], latency_ms["off"]) for name in collectors}
    all_ms = {name: [_latency_ms(run, ()) for run in each] for name, each in runs.items()}
    worst = max(ratios.values(), key=lambda ratio: ratio.value)
    absolute = {
        name: {
            **{f"p{percent}_ms": float(np.percentile(np.concatenate(each), percent)) for percent in (50, 99)},
            "left_out_share": 1 - sum(map(len, each)) / sum(run.ok for run in runs[name]),
        }
        for name, each in latency_ms.items()
    }
    for name in collectors:
        absolute[name] |= asdict(ratios[name]) | {"ratio_with_pauses": _p99_ratio(all_ms[name], all_ms["off"]).value}
    doubts = unlike({f"of {name}": float(each["left_out_share"]) for name, each in absolute.items()})
    return Measured(worst, absolute, {"pauses": pauses, **raw(runs)}, doubts)


@contextmanager
def _alone(servers: Mapping[str, Child], name: str) -> Iterator[None]:
    others = [server.process for other, server in servers.items() if other != name]
    for process in others:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in others:
            process.send_signal(signal.SIGCONT)


def _p99_ratio(over: Sequence[NDArray[np.float64]], under: Sequence[NDArray[np.float64]]) -> Estimate:
    """Of all their requests; the interval by drawing whole slices."""
    sides = [side for pair in zip(over, under, strict=True) for side in pair]
    counts = [len(values) for values in sides]
    inside = np.repeat(np.arange(len(sides)) % 2 == 0, counts)
    belongs = np.repeat(np.arange(len(sides)) // 2, counts)
    return percentile_ratio(np.concatenate(sides), inside, belongs)


def _latency_ms(run: Run, pauses: Sequence[Pause]) -> NDArray[np.float64]:
    trace = traced(run)
    calm = undisturbed(trace.sent_ns, trace.done_ns, pauses)
    latency_ms: NDArray[np.float64] = (trace.done_ns - trace.sent_ns)[calm] / 1e6
    return latency_ms


def _rotated(names: list[str], by: int) -> list[str]:
    """In another order each time: nobody always comes after the same one."""
    by %= len(names)
    return names[by:] + names[:by]


@contextmanager
def _port(listens: bool) -> Iterator[str]:
    """One that takes connections and never says anything, or one that nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        if listens:
            held.listen()
        yield f"127.0.0.1:{held.getsockname()[1]}"


FIGURES = (
    Figure(
        "telemetry_cpu_ratio",
        "CPU time per request with everything exported (Prometheus each 6 s, OTLP, 1 % traces) over none: mlp_small, "
        f"{_CLIENTS} clients",
        "lower",
        1.05,
        _everything,
    ),
    Figure(
        "telemetry_p99_ratio",
        "p99 while OTLP goes to a collector that is dead, refuses, dies or never answers (the worst), over none: "
        f"mlp_small, {_RATE:g} requests/s, Poisson",
        "lower",
        1.25,
        _nowhere,
    ),
)
