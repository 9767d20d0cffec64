"""Batching policies on virtual time: the real dispatcher, slot and batcher around a model that takes as long as a
measured profile says. Thousands of requests take a second, and every policy sees the same arrivals."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from support.virtual import VirtualLoop, run_virtual
from support.world import DECLARED, SyntheticSource, World, request
from turnout.backends.synthetic import SyntheticModel
from turnout.core.batch_policy import BatchPolicy
from turnout.core.errors import ServingError
from turnout.core.tensors import InferenceResponse
from turnout.runtime.jobs import SlotLimits
from turnout_bench.hdr import Histogram
from turnout_bench.schedules import Schedule

THINK_US_MAX = 300  # a client of a closed loop has its answer and sends again within this
_WARMUP_SHARE = 0.2  # of an open loop
# Batches before a closed loop counts, so that a policy that learns has learned: a server of the simulated speed takes
# some seconds for them.
_LEARNING_BATCHES = 400
_LIMITS = SlotLimits(8192, 1 << 30)  # the server's defaults


@dataclass(frozen=True, slots=True)
class Profile:
    """How long a run takes, by its rows, on the server's core.

    Attributes:
        rows, run_ns: measured points of the model alone, rows ascending; between them straight lines.
        request_ns: what the server spends on each request beside the model. On one core that time is taken from the
            executor, so it counts to the run that the request is in.
    """

    rows: tuple[int, ...]
    run_ns: tuple[float, ...]
    request_ns: float = 0.0

    def __call__(self, rows: int) -> int:
        return round(float(np.interp(rows, self.rows, self.run_ns)) + rows * self.request_ns)

    @property
    def saturation(self) -> float:
        """Rows per second of full batches."""
        return self.rows[-1] / self(self.rows[-1]) * 1e9


@dataclass(frozen=True, slots=True)
class Served:
    """What one simulated run gave, warm-up left out."""

    goodput: float  # answers within the objective, per second
    latency: Histogram
    rows_mean: float  # of a batch


def open_loop(profile: Profile, policy: BatchPolicy, schedule: Schedule, seconds: float, objective_us: int) -> Served:
    """Requests of one row each at the times of the schedule."""

    async def drive(world: World, record: _Record) -> None:
        start_s, loop = world.loop.time(), world.loop
        for offset_ns in schedule.tolist():
            due_s = start_s + offset_ns / 1e9
            if due_s > loop.time():
                await asyncio.sleep(due_s - loop.time())
            record.send(world, due_s)
        await record.all_done()

    return _simulate(profile, policy, drive, seconds * _WARMUP_SHARE, seconds, objective_us)


def closed_loop(
    profile: Profile, policy: BatchPolicy, clients: int, seconds: float, objective_us: int, seed: int
) -> Served:
    """Clients that send again up to THINK_US_MAX after each answer; `seconds` are counted after those of learning."""
    learning_s = _LEARNING_BATCHES * profile(min(clients, profile.rows[-1])) / 1e9 if policy.gathers else 0.0
    whole_s = learning_s + seconds

    async def drive(world: World, record: _Record) -> None:
        rng = random.Random(seed)
        end_s = world.loop.time() + whole_s

        def again() -> None:
            if world.loop.time() < end_s:
                world.loop.call_later(rng.uniform(0, THINK_US_MAX) / 1e6, send)

        def send() -> None:
            record.send(world, world.loop.time(), again)

        for _ in range(clients):
            again()
        await asyncio.sleep(whole_s)
        await record.all_done()

    return _simulate(profile, policy, drive, learning_s, whole_s, objective_us)


class _Record:
    """Latencies of the requests that were due in the measured window."""

    def __init__(self, counted_from_s: float, counted_to_s: float) -> None:
        self._from_s = counted_from_s
        self._to_s = counted_to_s
        self._under_way = 0
        self._done = asyncio.Event()
        self._done.set()
        self.latencies_ns: list[float] = []

    def send(self, world: World, due_s: float, then: Callable[[], None] = lambda: None) -> None:
        def done(answer: InferenceResponse | ServingError) -> None:
            self._under_way -= 1
            if not self._under_way:
                self._done.set()
            if isinstance(answer, InferenceResponse) and self._from_s <= due_s < self._to_s:
                self.latencies_ns.append((world.loop.time() - due_s) * 1e9)
            then()

        self._under_way += 1
        self._done.clear()
        try:
            world.dispatcher.infer(request(), done)
        except ServingError as refusal:
            done(refusal)

    async def all_done(self) -> None:
        await self._done.wait()


def _simulate(
    profile: Profile, policy: BatchPolicy, drive: Any, warmup_s: float, seconds: float, objective_us: int
) -> Served:
    async def main(loop: VirtualLoop) -> Served:
        world = World(loop, _LIMITS)
        model = SyntheticModel(DECLARED, wait=lambda rows: world.clock.spend(profile(rows)))
        await world.load({"m": model}, [SyntheticSource("m", rows_max=profile.rows[-1], policy=policy)])
        model.runs.clear()
        begin_s = loop.time()
        record = _Record(begin_s + warmup_s, begin_s + seconds)
        await drive(world, record)
        for slot in world.fleet.model("m").ready_slots():
            await slot.unload()
        latency = Histogram.of_ns(record.latencies_ns)
        counted_s = seconds - warmup_s
        return Served(latency.count_within(objective_us) / counted_s, latency, float(np.mean(model.runs)))

    return run_virtual(main)
