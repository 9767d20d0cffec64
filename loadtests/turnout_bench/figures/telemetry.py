"""What it costs to be seen: CPU time per request with everything exported, over a server that exports nothing; and
latency while what is exported has nowhere to go.

Counting itself cannot be switched off: statistics and the admin service need it. Off is no ops port, no OTLP, and so
no sampler of the loop's delay.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

from turnout_bench import schedules
from turnout_bench.bench import Bench
from turnout_bench.figures.figure import Figure, Measured, cpu_over, doubts, medians, raw
from turnout_bench.processes import PROGRAMS, Child
from turnout_bench.ratios import estimate, paired
from turnout_bench.results import BenchError, Run
from turnout_bench.sweep import open_point

_MODEL = "mlp_small"
_CLIENTS = 32
_RATE = 400.0  # requests per second of the open loop: the server is far from its limit
_SCRAPE_S = 5.0  # three times as often as Prometheus is usually told to
_ACCEPT = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"}


async def _everything(bench: Bench) -> Measured:
    sink = await bench.child("OTLP sink", lambda: [str(PROGRAMS / "sink.py")], beside=True)
    seen = await bench.turnout("telemetry on", f"--otlp-endpoint=http://{sink.address}")
    unseen = await bench.turnout("telemetry off", "--no-ops")

    async def on() -> Run:
        async with _scraped(seen, bench.plan.seconds):
            return await bench.closed(seen, _MODEL, _CLIENTS)

    runs = await bench.rounds({"on": on, "off": lambda: bench.closed(unseen, _MODEL, _CLIENTS)})
    return replace(cpu_over(runs, "on", "off"), doubts=doubts(runs))


@asynccontextmanager
async def _scraped(server: Child, seconds: float) -> AsyncIterator[None]:
    """As Prometheus does it; also in the shortest round once."""

    async def scrape() -> None:
        await asyncio.sleep(min(_SCRAPE_S, seconds) / 4)
        while True:
            await asyncio.to_thread(_scrape, server.ops_address)
            await asyncio.sleep(_SCRAPE_S)

    scraping = asyncio.ensure_future(scrape())
    try:
        yield
        if scraping.done():
            scraping.result()
    finally:
        scraping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await scraping


def _scrape(address: str) -> None:
    connection = http.client.HTTPConnection(address, timeout=_SCRAPE_S)
    try:
        connection.request("GET", "/metrics", headers=_ACCEPT)
        answer = connection.getresponse()
        if answer.status != http.client.OK or not answer.read():
            raise BenchError(f"http://{address}/metrics answers {answer.status}")
    finally:
        connection.close()


async def _nowhere(bench: Bench) -> Measured:
    """With the defaults: 1 % of requests traced, and exported each 5 s."""
    plan = bench.plan
    refusing = await bench.child("OTLP sink that refuses", lambda: [str(PROGRAMS / "sink.py"), "--refuse"], beside=True)
    servers = {"off": await bench.turnout("telemetry off", "--no-ops")}
    with _port(listens=True) as hole, _port(listens=False) as nobody:
        for name, address in (("black-holed", hole), ("dead", nobody), ("refusing", refusing.address)):
            servers[name] = await bench.turnout(f"telemetry {name}", f"--otlp-endpoint=http://{address}")
        runs: dict[str, list[Run]] = {name: [] for name in servers}
        for seed in range(plan.rounds):
            schedule = schedules.poisson(_RATE, plan.seconds, seed)
            for name, server in servers.items():
                point = await open_point(server.address, _MODEL, bench.samples(_MODEL), schedule, plan.seconds)
                runs[name].append(point.run.refuse_failures(server.name))
    p99_us = {name: [run.latency.percentile_us(99) for run in each] for name, each in runs.items()}
    ratios = {name: paired(each, p99_us["off"]) for name, each in p99_us.items() if name != "off"}
    return Measured(estimate(ratios["black-holed"]), medians(runs), {"ratios": ratios, **raw(runs)}, doubts(runs))


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
        "CPU time per request with everything exported (Prometheus each 5 s, OTLP, 1 % traces) over none: mlp_small, "
        f"{_CLIENTS} clients",
        "lower",
        1.05,
        _everything,
    ),
    Figure(
        "telemetry_p99_ratio",
        f"p99 while OTLP goes to a collector that never answers, over none: mlp_small, {_RATE:g} requests/s, Poisson",
        "lower",
        1.25,
        _nowhere,
    ),
)
