"""The most requests per second that one core serves when the client costs next to nothing: h2load, a C program, sends
one serialised request over and over. It looks at no grpc-status, so the server's own counters are checked."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path

from turnout_bench.bench import Bench
from turnout_bench.counters import counters
from turnout_bench.figures.figure import Figure, Measured
from turnout_bench.ratios import estimate
from turnout_bench.results import BenchError
from turnout_wire.service import METHODS

MODEL = "mlp_small"
CONNECTIONS, STREAMS = 4, 8
_FIRST = 320
_TIMEOUT_S = 120


def _h2load(address: str, frame: Path, requests: int) -> tuple[int, float]:
    """Sends `requests` requests; returns how many succeeded as HTTP, and the rate."""
    command = ["h2load", "-n", str(requests), "-c", str(CONNECTIONS), "-m", str(STREAMS), "-d", str(frame)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    url = f"http://{address}{METHODS['ModelInfer'].path}"
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    rate = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", done.stdout)
    succeeded = re.search(r"(\d+) succeeded", done.stdout)
    if done.returncode or rate is None or succeeded is None:
        raise BenchError(f"h2load failed with {done.returncode}: {done.stderr[-500:]}{done.stdout[-500:]}")
    return int(succeeded[1]), float(rate[1])


async def _measure(bench: Bench) -> Measured:
    server = await bench.turnout()
    message = bench.samples(MODEL)[0].frame
    frame = bench.folder / "frame.bin"
    await asyncio.to_thread(frame.write_bytes, b"\0" + len(message).to_bytes(4, "big") + message)
    _, rate = await asyncio.to_thread(_h2load, server.address, frame, _FIRST)
    rates, cpu_us = [], []
    for _ in range(bench.plan.confirm_rounds):
        requests = max(CONNECTIONS * STREAMS, int(rate * bench.plan.ceiling_s))
        before, before_s = await counters(server.address, MODEL), server.cpu_s()
        succeeded, rate = await asyncio.to_thread(_h2load, server.address, frame, requests)
        used_s = server.cpu_s() - before_s
        answered = (await counters(server.address, MODEL) - before).answers
        if not succeeded == answered == requests:
            raise BenchError(f"h2load sent {requests}, saw {succeeded} succeed, and the server counted {answered}")
        rates.append(rate)
        cpu_us.append(used_s / requests * 1e6)
    absolute = {"cpu_us": sorted(cpu_us)[len(cpu_us) // 2], "connections": CONNECTIONS, "streams_each": STREAMS}
    return Measured(estimate(rates), absolute, {"per_second": rates, "cpu_us": cpu_us})


FIGURES = (
    Figure(
        "ceiling_small",
        f"requests per second from h2load, {CONNECTIONS * STREAMS} under way: mlp_small",
        "higher",
        None,
        _measure,
        needs="h2load",
        unit="requests/s",
    ),
)
