"""What a request costs in CPU time: over a bare echo of the same bytes, small and large, and in a stream over unary.

CPU time per request stays comparable on noisy machines; wall-clock times do not.
"""

from __future__ import annotations

from dataclasses import replace

from turnout_bench.bench import Bench
from turnout_bench.figures.figure import Figure, Measured, cpu_over, doubts

CLIENTS = 32
IMAGE_CLIENTS = 8  # 602 kB each: more would only wait in the sockets' buffers


async def _over_echo(bench: Bench, model: str, clients: int) -> Measured:
    server, echo = await bench.turnout(), await bench.echo(model)
    runs = await bench.rounds(
        {
            "turnout": lambda: bench.closed(server, model, clients),
            "echo": lambda: bench.closed(echo, model, clients, check=False),
            **bench.peers_closed(model, clients),
        }
    )
    return replace(cpu_over(runs, "turnout", "echo"), doubts=doubts(runs))


async def _small(bench: Bench) -> Measured:
    return await _over_echo(bench, "mlp_small", CLIENTS)


async def _image(bench: Bench) -> Measured:
    return await _over_echo(bench, "image_small", IMAGE_CLIENTS)


async def _stream(bench: Bench) -> Measured:
    server = await bench.turnout()
    runs = await bench.rounds(
        {
            "stream": lambda: bench.closed(server, "mlp_small", CLIENTS, mode="stream"),
            "unary": lambda: bench.closed(server, "mlp_small", CLIENTS),
            **bench.peers_closed("mlp_small", CLIENTS, mode="stream"),
        }
    )
    return replace(cpu_over(runs, "stream", "unary"), doubts=doubts(runs))


FIGURES = (
    Figure(
        "overhead_small_c32",
        "CPU time per request over a bare gRPC echo of the same bytes: mlp_small, 32 clients",
        "lower",
        1.5,
        _small,
    ),
    Figure(
        "image_cpu_over_echo",
        f"the same for 602 kB in and 40 bytes out: image_small, {IMAGE_CLIENTS} clients",
        "lower",
        1.6,
        _image,
    ),
    Figure(
        "stream_cpu_over_unary",
        "CPU time per request by ModelStreamInfer over ModelInfer: mlp_small, 32 under way",
        "lower",
        0.5,
        _stream,
    ),
)
