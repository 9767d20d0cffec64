"""What it costs to be seen: CPU time per request with everything exported, over a server that exports nothing.

Counting itself cannot be switched off: statistics and the admin service need it. Off is no ops port, no OTLP, and so
no sampler of the loop's delay.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from turnout_bench.bench import Bench
from turnout_bench.figures.figure import Figure, Measured, cpu_over, doubts
from turnout_bench.processes import PROGRAMS, Child
from turnout_bench.results import BenchError, Run

_MODEL = "mlp_small"
_CLIENTS = 32
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


FIGURES = (
    Figure(
        "telemetry_cpu_ratio",
        "CPU time per request with everything exported (Prometheus each 5 s, OTLP, 1 % traces) over none: mlp_small, "
        f"{_CLIENTS} clients",
        "lower",
        1.05,
        _everything,
    ),
)
