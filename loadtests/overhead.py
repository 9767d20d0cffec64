"""`make bench`: what Turnout itself costs, as a ratio to a bare gRPC echo, measured in the same rounds.

Figure `overhead_small_c32`: the server's CPU time per request (user and system, all threads; mlp_small, one row,
32 clients in a closed loop) over that of a grpc.aio server which returns the same reply bytes and does nothing else.
CPU time per request stays comparable on noisy machines, wall-clock does not. Server and generator are pinned to
different cores where there are two; rounds alternate; the median of the paired ratios is reported with a bootstrap
interval. Answers are checked against the model run in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import onnxruntime as ort
import psutil
import uvloop

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "models"))

from turnout_wire.gen import grpc_service_pb2 as pb  # noqa: E402
from turnout_wire.service import METHODS  # noqa: E402
from turnout_wire.tensors import DataType, from_raw, to_bytes  # noqa: E402
from zoo import networks  # noqa: E402 - models/ is no installed package

PATH = METHODS["ModelInfer"].path
CONCURRENCY = 32
TARGET = 1.5
SIZES = (784, 128, 10)


@dataclass(frozen=True)
class Round:
    """One server under load for a while."""

    cpu_us: float  # per request
    per_second: float
    p50_ms: float
    p99_ms: float


class Server:
    """A server process on a free port: `ready: HOST:PORT` is its last start-up line."""

    def __init__(self, name: str, command: list[str], core: int | None) -> None:
        pin = ["taskset", "-c", str(core)] if core is not None else []
        self.name = name
        self.process = subprocess.Popen(
            [*pin, sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("ready: "):
                self.address = line.split()[1]
                break
        else:
            raise SystemExit(f"bench: server '{name}' did not start")
        self.usage = psutil.Process(self.process.pid)

    def cpu_s(self) -> float:
        times = self.usage.cpu_times()
        return float(times.user + times.system)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


async def load(server: Server, frame: bytes, seconds: float, check: bytes | None) -> Round:
    """A closed loop of CONCURRENCY callers over 4 connections; a wrong or failed answer ends the benchmark."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(server.address, options=options) for _ in range(4)]
    calls: list[Any] = [channel.unary_unary(PATH) for channel in channels]
    latencies_ms: list[float] = []
    running = True

    async def client(index: int) -> None:
        call = calls[index % len(calls)]
        while running:
            started = time.perf_counter()
            reply = await call(frame)
            latencies_ms.append((time.perf_counter() - started) * 1e3)
            if check is not None and pb.ModelInferResponse.FromString(reply).raw_output_contents[0] != check:
                _compare(reply, check)

    clients = [asyncio.ensure_future(client(index)) for index in range(CONCURRENCY)]
    await asyncio.sleep(min(1.0, seconds / 2))
    latencies_ms.clear()
    cpu_s, started = server.cpu_s(), time.perf_counter()
    await asyncio.sleep(seconds)
    count, cpu_s, wall_s = len(latencies_ms), server.cpu_s() - cpu_s, time.perf_counter() - started
    running = False
    await asyncio.gather(*clients)
    for channel in channels:
        await channel.close()
    quantiles = statistics.quantiles(latencies_ms, n=100)
    return Round(cpu_s / count * 1e6, count / wall_s, quantiles[49], quantiles[98])


def _compare(reply: bytes, check: bytes) -> None:
    """Another batch size may round differently; anything beyond that is a wrong answer."""
    got = pb.ModelInferResponse.FromString(reply).raw_output_contents[0]
    np.testing.assert_allclose(
        from_raw(got, DataType.FP32, (1, SIZES[-1])),
        from_raw(check, DataType.FP32, (1, SIZES[-1])),
        rtol=1e-4,
        atol=1e-5,
    )


def interval(ratios: list[float], seed: int = 0) -> tuple[float, float, float]:
    """The median and its 95 % bootstrap interval (percentile method, 2000 resamples)."""
    rng = random.Random(seed)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(2000))
    return statistics.median(ratios), medians[50], medians[1949]


def frames(folder: Path) -> tuple[bytes, bytes, bytes]:
    """The request, the reply that the echo gives, and the expected output."""
    x = np.random.default_rng(3).random((1, SIZES[0]), dtype=np.float32)
    request = pb.ModelInferRequest(model_name="mlp_small", raw_input_contents=[to_bytes(x, DataType.FP32)])
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    session = ort.InferenceSession(folder / "mlp_small" / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    expected = to_bytes(session.run(["y"], {"x": x})[0], DataType.FP32)
    reply = pb.ModelInferResponse(model_name="mlp_small", model_version="1", raw_output_contents=[expected])
    reply.outputs.add(name="y", datatype="FP32", shape=(1, SIZES[-1]))
    return request.SerializeToString(), reply.SerializeToString(), expected


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, list[Round]]:
    request, reply, expected = frames(folder)
    (folder / "reply.bin").write_bytes(reply)
    server_core, own_core = (0, 1) if (os.cpu_count() or 1) > 1 else (None, None)
    if own_core is not None:
        os.sched_setaffinity(0, {own_core})
    serve = ["-m", "turnout.cli", "serve", "--host", "127.0.0.1", "--grpc-port", "0", "--drain-delay-s", "0"]
    serve += ["--model-repository", str(folder), "--intra-op-threads", "1"]
    echo = [str(Path(__file__).with_name("echo.py")), str(folder / "reply.bin")]
    rounds: dict[str, list[Round]] = {"turnout": [], "echo": []}
    servers = [Server("turnout", serve, server_core), Server("echo", echo, server_core)]
    try:
        for _ in range(options.rounds):
            for server in servers:
                check = expected if server.name == "turnout" else None
                rounds[server.name].append(await load(server, request, options.seconds, check))
    finally:
        for server in servers:
            server.stop()
    return rounds


def report(rounds: dict[str, list[Round]], output: Path) -> None:
    ratios = [ours.cpu_us / theirs.cpu_us for ours, theirs in zip(rounds["turnout"], rounds["echo"], strict=True)]
    value, low, high = interval(ratios)
    absolute = {
        name: {key: statistics.median(getattr(one, key) for one in each) for key in Round.__annotations__}
        for name, each in rounds.items()
    }
    for name, figures in absolute.items():
        print(
            f"  {name:8} {figures['cpu_us']:6.0f} us CPU per request, {figures['per_second']:6.0f} requests/s, "
            f"p50 {figures['p50_ms']:.1f} ms, p99 {figures['p99_ms']:.1f} ms"
        )
    print(f"overhead_small_c32 = {value:.2f}  [{low:.2f}, {high:.2f}], target <= {TARGET}, {len(ratios)} rounds")
    document = {
        "machine": {"cpu": _cpu_name(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {
            name: version(name) for name in ("turnout", "grpcio", "onnxruntime", "numpy", "protobuf", "uvloop")
        }
        | {"python": platform.python_version()},
        "figures": {
            "overhead_small_c32": {
                "value": value,
                "low": low,
                "high": high,
                "target": TARGET,
                "absolute": absolute,
                "rounds": ratios,
            }
        },
    }
    output.parent.mkdir(exist_ok=True)
    output.write_text(json.dumps(document, indent=2) + "\n")


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        networks.write("mlp_small", Path(name))
        rounds = uvloop.run(measure(options, Path(name)))
    report(rounds, options.output)


if __name__ == "__main__":
    main()
