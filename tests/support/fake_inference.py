"""A data plane in this process that does as it is told: answers, refuses, ends streams, waits. And clients of both
kinds behind one interface, so that each test is about both."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import grpc
import grpc.aio
import numpy as np

import turnout_client
from turnout_client import Streams
from turnout_wire import packed
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import METHODS, SERVICE

KINDS = ("aio", "sync")
TRANSPORTS = ("unary", "stream", "packed")  # of AnyClient; the last is a client's default for streams
IMAGE = {"x": np.ones((1, 4), np.float32)}


@dataclass(frozen=True)
class Refusal:
    """A request that fails; in a stream that is an answer, unless it `ends` the stream."""

    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    pushback_ms: int | None = None
    text: str = "no"
    ends: bool = False


@dataclass
class Received:
    """One request as it came."""

    message: pb.ModelInferRequest
    metadata: dict[str, Any]
    remaining_s: float | None
    streamed: bool


@dataclass
class FakeServer:
    """`script` says what happens to the next requests, oldest first; then all are answered with their own input. While
    `gate` is clear, answers wait."""

    script: deque[Refusal] = field(default_factory=deque)
    received: list[Received] = field(default_factory=list)
    streams: list[dict[str, Any]] = field(default_factory=list)  # the metadata of each
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    address: str = ""
    ids: bool = True
    garbled: bool = False  # what it says in streams is no message
    ended: int = 0  # streams
    packed_streams: int = 0  # that were not refused
    packed_refusal: Refusal | None = None  # what somebody before it says to packed streams

    async def infer(self, raw: bytes, context: Any) -> bytes:
        metadata = dict(context.invocation_metadata())
        outcome = await self._outcome(raw, metadata, context.time_remaining(), False)
        if isinstance(outcome, Refusal):
            await _abort(context, outcome)
        return outcome.SerializeToString()

    async def stream(self, raws: AsyncIterator[bytes], context: Any, is_packed: bool = False) -> None:
        """A packed stream's answers leave one by one, as an unpacked one's do: each is its message's only one."""
        metadata = dict(context.invocation_metadata())
        self.streams.append(metadata)
        context.add_done_callback(self._end)
        if is_packed and self.packed_refusal is not None:
            await _abort(context, self.packed_refusal)
        self.packed_streams += is_packed
        async for raw in self._each(raws, is_packed):
            if self.garbled:
                await context.write(b"\xff")
                continue
            outcome = await self._outcome(raw, metadata, context.time_remaining(), True)
            if isinstance(outcome, Refusal):
                if outcome.ends:
                    await _abort(context, outcome)
                reply = pb.ModelStreamInferResponse(error_message=outcome.text)
                reply.infer_response.id = self.received[-1].message.id
                reply.infer_response.parameters["turnout_code"].string_param = outcome.code.name
                if outcome.pushback_ms is not None:
                    reply.infer_response.parameters["turnout_retry_after_ms"].int64_param = outcome.pushback_ms
            else:
                reply = pb.ModelStreamInferResponse(infer_response=outcome)
            text = reply.SerializeToString()
            await context.write(packed.pack([text]) if is_packed else text)

    async def _each(self, raws: AsyncIterator[bytes], is_packed: bool) -> AsyncIterator[bytes]:
        async for raw in raws:
            for each in packed.unpack(raw) if is_packed else (raw,):
                yield each

    def _end(self, _: Any) -> None:
        self.ended += 1

    async def _outcome(
        self, raw: bytes, metadata: dict[str, Any], remaining_s: float | None, streamed: bool
    ) -> pb.ModelInferResponse | Refusal:
        message = pb.ModelInferRequest.FromString(raw)
        self.received.append(Received(message, metadata, remaining_s, streamed))
        await self.gate.wait()
        if self.script:
            return self.script.popleft()
        answer = pb.ModelInferResponse(model_name=message.model_name, id=message.id if self.ids else "")
        for tensor, contents in zip(message.inputs, message.raw_input_contents, strict=True):
            answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            answer.raw_output_contents.append(contents)
        return answer


async def _abort(context: Any, refusal: Refusal) -> None:
    pushback = refusal.pushback_ms
    trailing = () if pushback is None else (("grpc-retry-pushback-ms", str(pushback)),)
    await context.abort(refusal.code, refusal.text, trailing)


@asynccontextmanager
async def fake_server(
    *script: Refusal, port: int = 0, streams: bool = True, packs: bool = True, credentials: Any = None
) -> AsyncIterator[FakeServer]:
    fake = FakeServer(deque(script))
    fake.gate.set()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(fake.infer)}
    if streams:
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(fake.stream)
    assert set(handlers) <= set(METHODS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    if streams and packs:
        also = {"Infer": grpc.stream_stream_rpc_method_handler(partial(fake.stream, is_packed=True))}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(packed.SERVICE, also),))
    address = f"127.0.0.1:{port}"
    if credentials is None:
        fake.address = f"127.0.0.1:{server.add_insecure_port(address)}"
    else:
        fake.address = f"localhost:{server.add_secure_port(address, credentials)}"
    await server.start()
    try:
        yield fake
    finally:
        fake.gate.set()
        await server.stop(0)


class AnyClient:
    """A client of either kind, for a test on an event loop. `transport`: one of TRANSPORTS."""

    def __init__(self, kind: str, endpoint: str | Sequence[str], **settings: Any) -> None:
        if "transport" in settings:
            transport, streams = settings["transport"], settings.get("streams") or Streams()
            settings["transport"] = "unary" if transport == "unary" else "stream"
            settings["streams"] = replace(streams, packed=transport == "packed")
        self._threads = ThreadPoolExecutor(64) if kind == "sync" else None
        self.client: Any = (turnout_client.aio if kind == "aio" else turnout_client).Client(endpoint, **settings)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        if self._threads is None:
            return method
        loop = asyncio.get_running_loop()
        return lambda *args, **kwargs: loop.run_in_executor(self._threads, partial(method, *args, **kwargs))

    async def __aenter__(self) -> AnyClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.__getattr__("close")()
        if self._threads is not None:
            self._threads.shutdown()

    async def failure(self, *args: Any, **kwargs: Any) -> turnout_client.InferenceError:
        """What `infer` raises."""
        try:
            answer = await self.infer(*args, **kwargs)
        except turnout_client.InferenceError as error:
            return error
        raise AssertionError(f"it was answered: {answer}")
