"""Traffic on virtual time: clients in closed loops, arrivals from a trace, and run times as they were measured."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from support.virtual import VirtualLoop
from support.world import DECLARED, SyntheticSource, World, request
from turnout.backends.synthetic import SyntheticModel
from turnout.core.batch_policy import BatchPolicy
from turnout.core.errors import ServingError
from turnout.core.model import Execution
from turnout.core.profile import CostProfile

MS = 1_000_000
Cost = Callable[[int], float]  # nanoseconds of a run by its rows


def interpolated(ms_by_rows: dict[int, float]) -> Cost:
    return CostProfile({rows: int(ms * MS) for rows, ms in ms_by_rows.items()}).mean_ns


# In-process ONNX Runtime, mlp_big, one thread (notes on performance, section 2), and a GPU-like straight line.
MLP = interpolated({1: 3.3, 8: 5.2, 32: 14.2, 64: 27.2})


def gpu_like(rows: int) -> float:
    return (2 + 0.02 * rows) * MS


@dataclass
class Measured:
    """What clients saw after the first part of a run, which is left out."""

    latencies_ms: list[float] = field(default_factory=list)
    seconds: float = 0
    refused: int = 0
    runs: list[int] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return len(self.latencies_ms) / self.seconds

    @property
    def mean_ms(self) -> float:
        return sum(self.latencies_ms) / len(self.latencies_ms)


async def open_server(
    loop: VirtualLoop, cost: Cost, policy: BatchPolicy, rows_max: int = 32, instances: int = 1
) -> World:
    """A world with one model 'm' whose runs take `cost`."""
    world = World(loop)
    model = SyntheticModel(DECLARED, wait=lambda rows: world.clock.spend(int(cost(rows))))
    source = SyntheticSource("m", rows_max=rows_max, execution=Execution(instances=instances), policy=policy)
    await world.load({"m": model}, [source])
    model.runs.clear()
    return world


async def closed_loop(
    world: World, clients: int, seconds: float, think_s: Callable[[random.Random], float], front_end_s: float = 0
) -> Measured:
    """Clients that send again when they are answered and have thought; each request first takes `front_end_s` of a
    server that does one at a time, and runs beside the executors."""
    rng = random.Random(clients)
    measured = Measured(seconds=seconds / 2)
    front_end = asyncio.Lock()
    start_s = world.loop.time()

    async def client() -> None:
        await asyncio.sleep(rng.random() / 1000)
        while (sent_s := world.loop.time()) < start_s + seconds:
            async with front_end:
                await asyncio.sleep(front_end_s)
            await ask(world)
            if sent_s >= start_s + seconds / 2:
                measured.latencies_ms.append((world.loop.time() - sent_s) * 1000)
            await asyncio.sleep(think_s(rng))

    await asyncio.gather(*(client() for _ in range(clients)))
    return measured


async def open_loop(world: World, arrivals_s: Sequence[float]) -> Measured:
    """Requests at fixed times, whatever becomes of them."""
    measured = Measured()
    start_s = world.loop.time()

    async def one(at_s: float, counts: bool) -> None:
        try:
            await ask(world)
        except ServingError:
            measured.refused += 1
        else:
            if counts:
                measured.latencies_ms.append((world.loop.time() - at_s) * 1000)

    tasks = []
    for number, arrival_s in enumerate(arrivals_s):
        await asyncio.sleep(start_s + arrival_s - world.loop.time())
        tasks.append(asyncio.ensure_future(one(world.loop.time(), number >= len(arrivals_s) // 10)))
    await asyncio.gather(*tasks)
    measured.seconds = world.loop.time() - start_s
    return measured


async def ask(world: World, **more: object) -> None:
    """One request, until it is answered.

    Raises:
        ServingError: as the client would see it.
    """
    future = asyncio.get_running_loop().create_future()
    world.dispatcher.infer(request(**more), future.set_result)  # type: ignore[arg-type]
    outcome = await future
    if isinstance(outcome, ServingError):
        raise outcome


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    rng = random.Random(seed)
    times, now = [], 0.0
    while (now := now + rng.expovariate(rate)) < seconds:
        times.append(now)
    return times


def bursty(rate: float, seconds: float, seed: int, cv: float = 3) -> list[float]:
    """Gamma intervals of the given coefficient of variation."""
    rng = random.Random(seed)
    times, now = [], 0.0
    shape = 1 / cv**2
    while (now := now + rng.gammavariate(shape, 1 / (rate * shape))) < seconds:
        times.append(now)
    return times
