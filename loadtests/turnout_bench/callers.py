"""Callers over gRPC: ModelInfer, and ModelStreamInfer with answers matched by request id, or by order without one.

Raw bytes in and out, over several connections: one connection has one flow-control window and one TCP stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol

import grpc
import grpc.aio

from turnout_bench.results import OK, WRONG_ANSWER
from turnout_bench.samples import Sample
from turnout_client import InferenceError, Streams
from turnout_client.aio import Client
from turnout_client.settings import Transport
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import METHODS

CONNECTIONS = 4
CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # else channels to one address share one connection
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)
STREAM_ERROR = "STREAM_ERROR"


class ModelCaller(Protocol):
    """A loops.Caller that is opened and closed."""

    async def __aenter__(self) -> ModelCaller: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...
    async def call(self, number: int) -> str: ...


class UnaryCaller:
    """One ModelInfer call for each request.

    Args:
        check_every: check each n-th answer; 0: none (an echo's).
        timeout_s: the deadline that calls carry; None: none, which saves both sides a timer.
    """

    def __init__(
        self,
        address: str,
        samples: Sequence[Sample],
        connections: int = CONNECTIONS,
        check_every: int = 1,
        timeout_s: float | None = None,
    ) -> None:
        self._address = address
        self._samples = samples
        self._frames = [sample.frame for sample in samples]
        self._connections = connections
        self._check_every = check_every
        self._timeout_s = timeout_s

    async def __aenter__(self) -> UnaryCaller:
        self._channels = [
            grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS) for _ in range(self._connections)
        ]
        path = METHODS["ModelInfer"].path
        self._calls: list[Any] = [channel.unary_unary(path) for channel in self._channels]
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels:
            await channel.close()

    async def call(self, number: int) -> str:
        which = number % len(self._frames)
        try:
            answer = await self._calls[number % len(self._calls)](self._frames[which], timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        if self._check_every and number % self._check_every == 0 and not self._samples[which].right(answer):
            return WRONG_ANSWER
        return OK


class StreamCaller:
    """One ModelStreamInfer call on each connection, for all requests."""

    def __init__(
        self, address: str, samples: Sequence[Sample], connections: int = CONNECTIONS, check_every: int = 1
    ) -> None:
        self._address = address
        self._samples = samples
        self._connections = connections
        self._check_every = check_every

    async def __aenter__(self) -> StreamCaller:
        self._channels = [
            grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS) for _ in range(self._connections)
        ]
        self._streams = [_Stream(channel) for channel in self._channels]
        return self

    async def __aexit__(self, *_: object) -> None:
        for stream in self._streams:
            await stream.close()
        for channel in self._channels:
            await channel.close()

    async def call(self, number: int) -> str:
        sample = self._samples[number % len(self._samples)]
        reply = await self._streams[number % len(self._streams)].ask(sample, f"{number:x}")
        if isinstance(reply, str):
            return reply
        if self._check_every and number % self._check_every == 0 and not sample.right_message(reply):
            return WRONG_ANSWER
        return OK


class _Stream:
    """One stream: its requests leave in the order in which they were asked."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._outbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting: dict[str, asyncio.Future[pb.ModelInferResponse | str]] = {}
        self._ended = ""
        stream: Any = channel.stream_stream(METHODS["ModelStreamInfer"].path)  # no serialisers: bytes both ways
        self._call = stream(self._requests())
        self._reader = asyncio.ensure_future(self._read())

    async def ask(self, sample: Sample, request_id: str) -> pb.ModelInferResponse | str:
        """The answer, or why there is none."""
        if self._ended:
            return self._ended
        future: asyncio.Future[pb.ModelInferResponse | str] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future
        self._outbox.put_nowait(sample.frame_with_id(request_id))
        try:
            return await future
        finally:
            self._waiting.pop(request_id, None)

    async def close(self) -> None:
        self._outbox.put_nowait(None)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._reader), 5)
        self._call.cancel()
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader

    async def _requests(self) -> AsyncIterator[bytes]:
        while (frame := await self._outbox.get()) is not None:
            yield frame

    async def _read(self) -> None:
        try:
            async for raw in self._call:
                self._deliver(pb.ModelStreamInferResponse.FromString(raw))
            self._ended = "STREAM_ENDED"
        except grpc.aio.AioRpcError as error:
            self._ended = str(error.code().name)
        finally:
            for future in self._waiting.values():
                if not future.done():
                    future.set_result(self._ended or "STREAM_ENDED")

    def _deliver(self, message: pb.ModelStreamInferResponse) -> None:
        """To whoever waits for this id; a server that gives none answers in order."""
        answer = message.infer_response
        future = self._waiting.get(answer.id) or next(iter(self._waiting.values()), None)
        if future is not None and not future.done():
            future.set_result(STREAM_ERROR if message.error_message else answer)


class ClientCaller:
    """turnout_client as programs use it, over one connection: numpy in, numpy out.

    Args:
        transport: "unary": each request is a call; "stream": the stream pool.
    """

    def __init__(
        self, address: str, samples: Sequence[Sample], transport: Transport, streams: Streams, check_every: int = 1
    ) -> None:
        self._address = address
        self._transport: Transport = transport
        self._streams = streams
        self._samples = samples
        self._asked = [sample.asked() for sample in samples]
        self._check_every = check_every

    async def __aenter__(self) -> ClientCaller:
        self._client = Client(self._address, transport=self._transport, streams=self._streams)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def call(self, number: int) -> str:
        which = number % len(self._asked)
        model, inputs = self._asked[which]
        try:
            answer = await self._client.infer(model, inputs)
        except InferenceError as error:
            return error.code
        if self._check_every and number % self._check_every == 0 and not self._samples[which].close(answer.outputs):
            return WRONG_ANSWER
        return OK


MODES = ("unary", "stream", "client calls", "client pool", "client pool, not packed")


def caller(mode: str, address: str, samples: Sequence[Sample], check_every: int = 1) -> ModelCaller:
    """`mode`: one of MODES."""
    if mode == "unary":
        return UnaryCaller(address, samples, check_every=check_every)
    if mode == "stream":
        return StreamCaller(address, samples, check_every=check_every)
    transport: Transport = "unary" if mode == "client calls" else "stream"
    return ClientCaller(address, samples, transport, Streams(packed=mode == "client pool"), check_every)
