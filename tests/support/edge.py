"""The real transport in this process: server, handlers, dispatcher and executor threads around synthetic models."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import numpy as np

from support.artefacts import synthetic_artefact
from support.world import Seen
from turnout.backends.synthetic import SyntheticModel
from turnout.backends.threads import ThreadExecutors
from turnout.core.errors import LoadError
from turnout.core.model import Artefact, Execution
from turnout.core.tensors import Signature, TensorSpec
from turnout.runtime.account import Account, Outcome
from turnout.runtime.budget import Budget
from turnout.runtime.counts import Counts
from turnout.runtime.dispatcher import Dispatcher
from turnout.runtime.fleet import Fleet
from turnout.runtime.jobs import SlotLimits
from turnout.runtime.opening import Opener
from turnout.runtime.ports import Loaded, Tracer
from turnout.runtime.slot import Slot
from turnout.runtime.tracing import NO_TRACER
from turnout.store.model_config import ModelConfiguration
from turnout.store.repository import RepositoryModel
from turnout.transport.calls import CallLimits
from turnout.transport.catalogue import Catalogue
from turnout.transport.codec import DecodeLimits
from turnout.transport.health import Health
from turnout.transport.inference import InferenceHandlers
from turnout.transport.reflection import Reflection
from turnout.transport.server import ChannelLimits, GrpcServer
from turnout.transport.status import status_table
from turnout.transport.typed import ModelServices
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import GRPCInferenceServiceAioStub
from turnout_wire.tensors import DataType

CHANNEL_LIMITS = ChannelLimits(
    message_bytes_max=4 << 20,
    metadata_bytes_max=16384,
    concurrent_streams_max=4096,
    keepalive_interval_ms=7_200_000,
    keepalive_timeout_ms=20_000,
    ping_interval_ms_min=10_000,
    connection_age_ms_max=0,
)
DECODE_LIMITS = DecodeLimits(1000, 1000)
CALL_LIMITS = CallLimits(calls_max=1000, transfer_timeout_s=60)
WAIT_S_MAX = 20.0


def signature(datatype: DataType = DataType.FP32, width: int = 4) -> Signature:
    """x [-1, width] to y of the same shape."""
    shape = (-1, width)
    return Signature((TensorSpec("x", datatype, shape),), (TensorSpec("y", datatype, shape),))


class Gate:
    """A model's `wait`: while it is shut, runs stop at it."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._arrived = threading.Semaphore(0)

    def __call__(self, rows: int) -> None:
        if not self._open.is_set():
            self._arrived.release()
            if not self._open.wait(WAIT_S_MAX):
                raise TimeoutError("the gate stayed shut")

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def reached(self) -> None:
        """Returns when one more run has come to the gate."""
        assert await asyncio.to_thread(self._arrived.acquire, timeout=WAIT_S_MAX), "no run came to the gate"


@dataclass
class Served:
    """One model to serve: what it does, its config.pbtxt, its versions and which of those fail to load."""

    model: Any = field(default_factory=lambda: SyntheticModel(signature()))
    config: str = "max_batch_size: 8"
    versions: Sequence[int] = (1,)
    failing: Mapping[int, str] = field(default_factory=dict)
    problem: str = ""

    def source(self, name: str) -> RepositoryModel:
        if self.problem:
            return RepositoryModel(name, problem=self.problem)
        artefacts = tuple(synthetic_artefact(name, v, f"{v:064x}") for v in sorted(self.versions, reverse=True))
        return RepositoryModel(name, artefacts, ModelConfiguration.parse(name, self.config))


class _Backend:
    def __init__(self, models: Mapping[str, Served]) -> None:
        self._models = models

    def load(self, artefact: Artefact, execution: Execution) -> Loaded:
        served = self._models[artefact.revision.model]
        if why := served.failing.get(artefact.revision.version):
            raise LoadError(why)
        return Loaded(served.model.declared, (served.model,) * execution.instances, ("synthetic",))


@dataclass
class Edge:
    """A server under test and a client of it."""

    fleet: Fleet
    seen: Seen
    inference: InferenceHandlers
    health: Health
    server: GrpcServer
    address: str
    channel: grpc.aio.Channel
    stub: GRPCInferenceServiceAioStub
    counts: Counts
    services: ModelServices

    def slot(self, model: str = "m", name: str = "blue") -> Slot:
        return self.fleet.model(model).slots[name]

    def queued_rows(self, model: str = "m") -> int:
        cargo = self.slot(model).cargo
        assert cargo is not None
        return cargo.batcher.queued_rows

    def ended(self, outcome: Outcome, model: str = "m") -> int:
        account: Account = self.slot(model).account
        return account.tally(outcome).requests


async def open_fleet(
    models: Mapping[str, Served],
    seen: Seen,
    limits: SlotLimits,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    budget: Budget | None = None,
    tracer: Tracer = NO_TRACER,
) -> Fleet:
    """Slots loaded and warmed as the server does, on threads. What the models ran to warm up is forgotten."""
    loop = asyncio.get_running_loop()
    opener = Opener(
        backend=_Backend(models),
        new_executors=lambda name: ThreadExecutors(name, loop, clock_ns),
        limits=limits,
        budget=budget or Budget(1 << 20, 1 << 40),
        clock_ns=clock_ns,
        offload=asyncio.to_thread,
        observer=seen,
        tracer=tracer,
    )
    fleet = await opener.open([served.source(name) for name, served in models.items()])
    for served in models.values():
        if isinstance(served.model, SyntheticModel):
            served.model.runs.clear()
    return fleet


@asynccontextmanager
async def edge(
    models: Mapping[str, Served] | None = None,
    *,
    limits: SlotLimits | None = None,
    budget: Budget | None = None,
    call_limits: CallLimits = CALL_LIMITS,
    overload: grpc.StatusCode = grpc.StatusCode.RESOURCE_EXHAUSTED,
    identity: bool = True,
    stream_inflight_max: int = 256,
    message_bytes_max: int = CHANNEL_LIMITS.message_bytes_max,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    dispatcher: Any = None,
    fleet: Any = None,
    tracer: Tracer = NO_TRACER,
) -> AsyncIterator[Edge]:
    """A server on a free port of 127.0.0.1, serving model `m` if nothing else is said. `dispatcher` and `fleet`
    stand in for the real ones."""
    models = {"m": Served()} if models is None else models
    seen = Seen()
    real = await open_fleet(models, seen, limits or SlotLimits(1024, 1 << 30), clock_ns, budget, tracer)
    health = Health(fleet or real)
    counts = Counts()
    inference = InferenceHandlers(
        dispatcher or Dispatcher(real, clock_ns, lambda n: 0),
        clock_ns,
        seen,
        DECODE_LIMITS,
        call_limits,
        identity,
        stream_inflight_max,
        counts,
        real.under_way,
        tracer,
        status_table(overload),
    )
    catalogue = Catalogue(fleet or real, "turnout", "0.0-test", lambda: health.ready, clock_ns)
    channel_limits = replace(CHANNEL_LIMITS, message_bytes_max=message_bytes_max)
    reflection, table = Reflection(), status_table(overload)
    services = ModelServices(real, inference, DECODE_LIMITS, table, seen, counts, reflection)
    services.refresh()
    handlers = services.handlers
    server = GrpcServer(inference, catalogue, health, channel_limits, table, seen, counts, reflection, handlers)
    port = await server.start("127.0.0.1", 0)
    address = f"127.0.0.1:{port}"
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = GRPCInferenceServiceAioStub(channel)
            yield Edge(real, seen, inference, health, server, address, channel, stub, counts, services)
    finally:
        for served in models.values():
            if isinstance(served.model, SyntheticModel) and isinstance(served.model.wait, Gate):
                served.model.wait.open()
        await server.stop(0)
        for model in real:
            for slot in model.ready_slots():
                await slot.unload()


class FakeContext:
    """A ServicerContext without a network: keeps what is written, and how the call was ended."""

    def __init__(self, metadata: Mapping[str, str] | None = None, remaining_s: float | None = None) -> None:
        self.written: list[bytes] = []
        self.callbacks: list[Callable[[Any], None]] = []
        self.ended: tuple[grpc.StatusCode, str, Any] | None = None
        self._metadata = tuple((metadata or {}).items())
        self._remaining_s = remaining_s

    def invocation_metadata(self) -> Any:
        return self._metadata

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.callbacks.append(callback)

    def time_remaining(self) -> float | None:
        return self._remaining_s

    async def write(self, message: bytes) -> None:
        self.written.append(message)

    def cancel(self) -> None:
        self.cancelled = True

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        self.ended = (code, details, trailing_metadata)
        raise grpc.aio.AbortError(code, details)


def infer_request(
    value: float = 1.0, rows: int = 1, model: str = "m", request_id: str = "", **parameters: int
) -> pb.ModelInferRequest:
    """A request of the default signature, filled with `value`."""
    message = pb.ModelInferRequest(model_name=model, id=request_id)
    message.inputs.add(name="x", datatype="FP32", shape=[rows, 4])
    message.raw_input_contents.append(np.full((rows, 4), value, "<f4").tobytes())
    for key, number in parameters.items():
        message.parameters[key].int64_param = number
    return message


def floats(response: pb.ModelInferResponse, index: int = 0) -> list[float]:
    return list(np.frombuffer(response.raw_output_contents[index], "<f4").tolist())


async def eventually(condition: Callable[[], object], seconds: float = WAIT_S_MAX) -> None:
    """For what crosses a real socket: lets the loop run until it is so, bounded."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(0.001)


async def settle() -> None:
    """Lets every task that can run do so. Enough turns for any chain of tasks in these tests."""
    for _ in range(50):
        await asyncio.sleep(0)
