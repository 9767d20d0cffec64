"""Several clients of one server, unary and streaming, each with a connection of its own, that keep every answer."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio

from turnout_bench.answers import Answer, Question
from turnout_bench.callers import CHANNEL_OPTIONS, STREAM_ERROR
from turnout_bench.results import OK
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import METHODS

_END_S_MAX = 10.0
_ID_TAG = b"\x1a"  # field 3 of ModelInferRequest; protobuf takes fields in any order


class Witness:
    """A loops.Caller: request n asks question n, modulo their number, and is sent by client n, modulo theirs.

    Attributes:
        strays: answers that belong to no request.
    """

    def __init__(self, address: str, questions: Sequence[Question], unary: int, streams: int = 0) -> None:
        self._address = address
        self._questions = questions
        self._unary, self._streaming = unary, streams
        self._heard: defaultdict[int, list[bytes | Answer]] = defaultdict(list)
        self.strays = 0

    async def __aenter__(self) -> Witness:
        self._channels = [
            grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS)
            for _ in range(self._unary + self._streaming)
        ]
        await asyncio.gather(*(channel.channel_ready() for channel in self._channels))
        path = METHODS["ModelInfer"].path
        self._calls: list[Any] = [channel.unary_unary(path) for channel in self._channels[: self._unary]]
        self._streams = [_Stream(channel, self) for channel in self._channels[self._unary :]]
        return self

    async def __aexit__(self, *_: object) -> None:
        for stream in self._streams:
            await stream.close()
        for channel in self._channels:
            await channel.close()

    async def call(self, number: int) -> str:
        frame = self._questions[number % len(self._questions)].frame
        client = number % len(self._channels)
        if client >= self._unary:
            return await self._streams[client - self._unary].ask(frame, number)
        try:
            self._heard[number].append(await self._calls[client](frame))
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return OK

    def hear(self, request_id: str, answer: Answer) -> int:
        """Keep an answer of a stream; returns the request's number, -1 for nobody's."""
        try:
            number = int(request_id, 16)
        except ValueError:
            number = -1
        if number < 0:
            self.strays += 1
        else:
            self._heard[number].append(answer)
        return number

    def heard(self, requests: int) -> list[list[Answer]]:
        """The answers to each request, in the order in which they came. After closing, these are all."""
        return [
            [Answer.FromString(each) if isinstance(each, bytes) else each for each in self._heard.get(number, ())]
            for number in range(requests)
        ]


class _Stream:
    """One ModelStreamInfer call. What the server still has to say at the end is heard too."""

    def __init__(self, channel: grpc.aio.Channel, witness: Witness) -> None:
        self._witness = witness
        self._outbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._ended = ""
        stream: Any = channel.stream_stream(METHODS["ModelStreamInfer"].path)
        self._call = stream(self._requests())
        self._reader = asyncio.ensure_future(self._read())

    async def ask(self, frame: bytes, number: int) -> str:
        if self._ended:
            return self._ended
        self._waiting[number] = asyncio.get_running_loop().create_future()
        raw = f"{number:x}".encode("ascii")
        self._outbox.put_nowait(b"".join((frame, _ID_TAG, bytes((len(raw),)), raw)))
        try:
            return await self._waiting[number]
        finally:
            del self._waiting[number]

    async def close(self) -> None:
        self._outbox.put_nowait(None)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._reader), _END_S_MAX)
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
                message = pb.ModelStreamInferResponse.FromString(raw)
                if message.error_message:
                    self._settle(int(message.infer_response.id or "-1", 16), STREAM_ERROR)
                else:
                    self._settle(self._witness.hear(message.infer_response.id, message.infer_response), OK)
            self._ended = "STREAM_ENDED"
        except grpc.aio.AioRpcError as error:
            self._ended = str(error.code().name)
        finally:
            for number in list(self._waiting):
                self._settle(number, self._ended or "STREAM_ENDED")

    def _settle(self, number: int, status: str) -> None:
        future = self._waiting.get(number)
        if future is not None and not future.done():
            future.set_result(status)
