"""What a request costs in CPU time: over a bare echo of the same bytes, small and large, and in a stream over unary.

CPU time per request stays comparable on noisy machines; wall-clock times do not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from turnout_bench.bench import Bench
from turnout_bench.callers import MODES
from turnout_bench.figures.figure import Figure, Measured, cpu_over, doubts
from turnout_bench.results import Run

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
    """By turnout_client on both sides. Beside it the pool where nothing is packed, and serialised requests over four
    connections, in streams of the protocol and as calls."""
    server = await bench.turnout()

    def measured(mode: str) -> Callable[[], Awaitable[Run]]:
        return lambda: bench.closed(server, "mlp_small", CLIENTS, mode=mode)

    contestants = {mode: measured(mode) for mode in MODES}
    peers = bench.peers_closed("mlp_small", CLIENTS, mode="stream")
    runs = await bench.rounds({**contestants, **peers}, bench.plan.confirm_rounds)
    decide = ("client pool", "client calls")
    if further := bench.plan.rounds - bench.plan.confirm_rounds:
        without = {**{mode: contestants[mode] for mode in decide}, **peers}
        for name, more in (await bench.rounds(without, further)).items():
            runs[name] += more
    return replace(cpu_over(runs, *decide), doubts=doubts(runs))


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
        "CPU time per request of the server, turnout_client's stream pool over its calls: mlp_small, 32 under way",
        "lower",
        0.5,
        _stream,
    ),
)
