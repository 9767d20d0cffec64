"""What the figures of one benchmark share: the models, the servers that run, the peers, and how a round is measured.

Servers start when a figure first asks for them, and stop together at the end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio
from rich.console import Console

from turnout_bench import loops, processes
from turnout_bench.callers import CHANNEL_OPTIONS, caller
from turnout_bench.pauses import Pause
from turnout_bench.peers import Peer
from turnout_bench.plans import Plan
from turnout_bench.processes import PROGRAMS, Child
from turnout_bench.results import BenchError, Run
from turnout_bench.samples import Sample, reference_samples
from turnout_wire.service import METHODS
from zoo import networks

MODELS = ("mlp_small", "mlp_big", "image_small")
T = TypeVar("T")


class Bench:
    """One benchmark under way. `folder` is empty, and somebody else's to delete."""

    def __init__(self, plan: Plan, folder: Path, peers: Sequence[Peer], console: Console) -> None:
        self.plan = plan
        self.folder = folder
        self.peers = peers
        self.console = console
        self.server_core, self.generator_core = processes.cores()
        self._children: dict[str, Child] = {}
        self._samples: dict[str, list[Sample]] = {}
        self._known: dict[str, Any] = {}

    def start(self) -> None:
        """Pins this process, which generates the load."""
        if self.generator_core is not None:
            os.sched_setaffinity(0, {self.generator_core})

    def stop(self) -> None:
        for child in self._children.values():
            child.stop()

    def children_cpu_s(self) -> float:
        """Of those that run; of those that were stopped, the system counts it."""
        return sum(child.cpu_s() for child in self._children.values() if child.process.poll() is None)

    def model_file(self, model: str) -> Path:
        """Of a network of the zoo, written when it is first asked for."""
        folder = self.folder / "models" / model
        if not folder.exists():
            networks.write(model, folder.parent)
        return folder / "1" / "model.onnx"

    def samples(self, model: str) -> list[Sample]:
        if model not in self._samples:
            self._samples[model] = reference_samples(model, self.model_file(model))
        return self._samples[model]

    async def child(self, name: str, arguments: Callable[[], Sequence[str]], *, beside: bool = False) -> Child:
        """A process on the servers' core, or `beside` them on the generator's; started once and kept until the end."""
        if name not in self._children:
            core = self.generator_core if beside else self.server_core
            child = Child(name, await asyncio.to_thread(arguments), core)
            await asyncio.to_thread(child.start)
            self._children[name] = child
        return self._children[name]

    @asynccontextmanager
    async def pauses(self) -> AsyncIterator[Callable[[], Awaitable[list[Pause]]]]:
        """Watches both cores; asked, says when one of the two was not to be had since the last time."""
        program = [str(PROGRAMS / "pauses.py")]
        async with AsyncExitStack() as stack:
            watchers = []
            for core in {self.server_core, self.generator_core}:
                watchers.append(await processes.started(Child("pauses", program, core)))
                stack.callback(watchers[-1].stop)

            async def ask() -> list[Pause]:
                return [pause for watcher in watchers for pause in await asyncio.to_thread(watcher.ask)]

            yield ask

    async def turnout(self, name: str = "turnout", *flags: str) -> Child:
        """The server with its defaults, or with some flags, and every model of MODELS."""

        def arguments() -> Sequence[str]:
            for model in MODELS:
                self.model_file(model)
            return processes.server_arguments(self.folder / "models", *flags)

        return await self.child(name, arguments)

    async def reference(self, model: str) -> Child:
        """In-process ONNX Runtime with one thread, on the servers' core; ask it with rows and seconds."""
        return await self.child(
            f"in-process {model}", lambda: [str(PROGRAMS / "reference.py"), str(self.model_file(model))]
        )

    async def echo(self, model: str) -> Child:
        """A bare gRPC server that answers just the bytes that the real one answers for this model."""
        server = await self.turnout()
        reply = await one_answer(server.address, self.samples(model)[0])
        file = self.folder / f"reply-{model}.bin"
        await asyncio.to_thread(file.write_bytes, reply)
        return await self.child(f"echo {model}", lambda: [str(PROGRAMS / "echo.py"), str(file)])

    async def closed(
        self, server: Child, model: str, clients: int, *, mode: str = "unary", check: bool = True, seconds: float = 0
    ) -> Run:
        """A closed loop against one of our own servers; a wrong or failed answer ends the benchmark."""
        async with caller(mode, server.address, self.samples(model), check_every=1 if check else 0) as calling:
            run = await loops.closed_loop(
                calling,
                clients,
                seconds=seconds or self.plan.seconds,
                warmup_s=self.plan.warmup_s,
                cpu_s=server.cpu_s,
            )
        return run.refuse_failures(f"{server.name}, {model}")

    async def peer_closed(self, peer: Peer, model: str, clients: int, *, mode: str = "unary") -> Run:
        """The same against a peer, whose failures are counted and end nothing."""
        async with caller(mode, peer.address, self.samples(model)) as calling:
            return await loops.closed_loop(
                calling,
                clients,
                seconds=self.plan.seconds,
                warmup_s=self.plan.warmup_s,
                cpu_s=peer.cpu_s if peer.pid is not None else None,
            )

    def peers_closed(self, model: str, clients: int, *, mode: str = "unary") -> dict[str, Callable[[], Awaitable[Run]]]:
        """Contestants for `rounds`."""

        def contestant(peer: Peer) -> Callable[[], Awaitable[Run]]:
            return lambda: self.peer_closed(peer, model, clients, mode=mode)

        return {f"peer {peer.name}": contestant(peer) for peer in self.peers}

    async def once(self, what: str, measure: Callable[[], Awaitable[T]]) -> T:
        """What several figures need is measured by the first that asks."""
        if what not in self._known:
            self._known[what] = await measure()
        known: T = self._known[what]
        return known

    async def rounds(
        self, contestants: Mapping[str, Callable[[], Awaitable[T]]], count: int | None = None
    ) -> dict[str, list[T]]:
        """Everybody once, then everybody again: what changes on the machine over time hits all alike."""
        kept: dict[str, list[T]] = {name: [] for name in contestants}
        for _ in range(count or self.plan.rounds):
            for name, measure in contestants.items():
                kept[name].append(await measure())
        return kept


async def one_answer(address: str, sample: Sample) -> bytes:
    """The reply to one request, which must be right.

    Raises:
        BenchError: it is not.
    """
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        call: Any = channel.unary_unary(METHODS["ModelInfer"].path)  # no serialisers: bytes both ways
        reply: bytes = await call(sample.frame, timeout=30)
    if not sample.right(reply):
        raise BenchError(f"{address} gives a wrong answer")
    return reply
