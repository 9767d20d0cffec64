"""h2load, a C program that sends one serialised request over and over: a client that costs next to nothing. It looks at
no grpc-status and no answer, so the server's own counters are checked."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from turnout_bench.bench import Bench
from turnout_bench.counters import counters
from turnout_bench.processes import Child
from turnout_bench.results import BenchError
from turnout_wire.service import METHODS

CONNECTIONS = 4
_FIRST = 10  # requests of each client, to learn how many take the time that is asked for
_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Burst:
    """What so many requests did.

    Attributes:
        cpu_us: of the server, for each request.
        rows_mean: of a batch.
    """

    requests: int
    per_second: float
    cpu_us: float
    rows_mean: float


def installed() -> bool:
    return shutil.which("h2load") is not None


async def closed_loop(bench: Bench, server: Child, model: str, clients: int, seconds: float) -> Burst:
    """So many clients, over 4 connections, for about so long.

    Raises:
        BenchError: it failed, or the server answered another number of requests than were sent.
    """
    message = bench.samples(model)[0].frame
    frame = bench.folder / f"frame-{model}.bin"
    await asyncio.to_thread(frame.write_bytes, b"\0" + len(message).to_bytes(4, "big") + message)
    _, rate = await asyncio.to_thread(_run, server.address, frame, clients, _FIRST * clients)
    requests = max(clients, int(rate * seconds))
    before, before_s = await counters(server.address, model), server.cpu_s()
    succeeded, rate = await asyncio.to_thread(_run, server.address, frame, clients, requests)
    used_s = server.cpu_s() - before_s
    counted = await counters(server.address, model) - before
    if not succeeded == counted.answers == requests:
        raise BenchError(f"h2load sent {requests}, saw {succeeded} succeed, and the server counted {counted.answers}")
    return Burst(requests, rate, used_s / requests * 1e6, counted.rows_mean)


def _run(address: str, frame: Path, clients: int, requests: int) -> tuple[int, float]:
    """Returns how many succeeded as HTTP, and how many a second."""
    streams = clients // CONNECTIONS
    command = ["h2load", "-n", str(requests), "-c", str(CONNECTIONS), "-m", str(streams), "-d", str(frame)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    url = f"http://{address}{METHODS['ModelInfer'].path}"
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    rate = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", done.stdout)
    succeeded = re.search(r"(\d+) succeeded", done.stdout)
    if done.returncode or rate is None or succeeded is None:
        raise BenchError(f"h2load failed with {done.returncode}: {done.stderr[-500:]}{done.stdout[-500:]}")
    return int(succeeded[1]), float(rate[1])
