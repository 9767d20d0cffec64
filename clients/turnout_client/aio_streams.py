"""Many inferences over a few long streams, packed ones or ModelStreamInfer's, on one event loop: answers are matched by
request id.

What a stream cannot do is done here for each call: its deadline, its cancellation, its retries.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from turnout_client.errors import InferenceError, client_closed, inference_error
from turnout_client.replies import stream_error
from turnout_client.requests import InferRequest, mint_id
from turnout_client.retrying import Alone, NotPacked, Retries, stream_ended
from turnout_client.sending import Headers
from turnout_client.settings import Settings
from turnout_wire import packed
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import METHODS


class StreamPool:
    """The streams of one client, opened as they are needed."""

    def __init__(self, channel: grpc.aio.Channel, settings: Settings, headers: Headers) -> None:
        self._settings = settings
        self._bounds = settings.streams
        self._headers = headers
        self._open: Any = channel.stream_stream(METHODS["ModelStreamInfer"].path)  # no serialisers: bytes both ways
        self._open_packed: Any = channel.stream_stream(packed.PATH)
        self._packed_at = 0.0 if settings.streams.packed else inf  # from when on new streams are packed ones
        self._streams: set[_Stream] = set()  # those that ended leave it
        # The least loaded stream takes a call, so a bound on all of them bounds each.
        self._places = asyncio.Semaphore(self._bounds.streams_max * self._bounds.inflight_max)
        self._retries = Retries(settings.retry)
        self._closed = False

    async def ask(self, request: InferRequest, deadline: float) -> pb.ModelInferResponse | None:
        """The answer, after retries if need be; None: the request must be a call of its own.

        Args:
            deadline: of the loop's time.

        Raises:
            InferenceError: there is no answer.
        """
        loop = asyncio.get_running_loop()
        attempts = 1
        while True:
            try:
                answer = await self._attempt(request, deadline, loop)
            except (InferenceError, Alone) as error:
                failure = error
            except NotPacked:
                self._packed_at = loop.time() + self._bounds.age_s_max  # when another server may have come
                continue
            else:
                if answer is not None:
                    self._retries.succeeded()
                return answer
            delay_s = self._retries.delay_s(failure, attempts, deadline - loop.time(), random.random())  # noqa: S311
            if isinstance(failure, Alone):
                if delay_s is None:
                    raise failure.error
                return None
            if delay_s is None:
                raise failure
            await asyncio.sleep(delay_s)
            attempts += 1

    async def close(self) -> None:
        """Ends all calls under way as CANCELLED."""
        self._closed = True
        await asyncio.gather(*(stream.close() for stream in list(self._streams)))

    async def _attempt(
        self, request: InferRequest, deadline: float, loop: asyncio.AbstractEventLoop
    ) -> pb.ModelInferResponse | None:
        try:
            if self._places.locked():  # a timeout costs more than all else here
                self._live(loop.time())
                async with asyncio.timeout_at(deadline):
                    await self._places.acquire()
            else:
                await self._places.acquire()
        except TimeoutError:
            raise InferenceError("DEADLINE_EXCEEDED", "no place in a stream became free in time") from None
        # Nothing awaits from here until the request is sent: whoever has sent gives the place back.
        try:
            if self._closed:
                raise client_closed()
            now = loop.time()
            request_id = request.request_id or mint_id()
            message = request.stream_message(request_id, deadline - now)
            stream = self._pick(now)
        except BaseException:
            self._places.release()
            raise
        if request_id in stream.waiting:
            self._places.release()
            return None
        future: asyncio.Future[pb.ModelInferResponse] = loop.create_future()
        stream.send(request_id, message, future)
        timer = loop.call_at(deadline, _expire, future)
        try:
            return await future
        finally:
            timer.cancel()

    def _pick(self, now: float) -> _Stream:
        """The least loaded stream, or a new one while all have something to do and there may be more."""
        live = self._live(now)
        best = min(live, key=_load, default=None)
        if best is None or (best.waiting and len(live) < self._bounds.streams_max):
            is_packed = now >= self._packed_at
            open_stream = self._open_packed if is_packed else self._open
            call = open_stream(metadata=self._headers.common(), wait_for_ready=self._settings.wait_for_ready)
            old_at = now + self._bounds.age_s_max
            best = _Stream(call, is_packed, old_at, self._places.release, self._streams.discard)
            self._streams.add(best)
        return best

    def _live(self, now: float) -> list[_Stream]:
        """Those that take requests; the others are told to end when they may."""
        return [stream for stream in self._streams if stream.takes(now)]


class _Stream:
    """One stream: requests leave in the order in which they were asked, unless nobody waits for them any more.

    Args:
        is_packed: whether a message holds several requests, or answers.
        old_at: from when on it takes no further request.
        release: gives back the place of a request.
    """

    def __init__(
        self,
        call: Any,
        is_packed: bool,
        old_at: float,
        release: Callable[[], None],
        ended: Callable[[_Stream], None],
    ) -> None:
        self.waiting: dict[str, asyncio.Future[pb.ModelInferResponse]] = {}  # those given up are done, and still here
        self._call = call
        self._packed = is_packed
        self._old_at = old_at
        self._release = release
        self._ended = ended
        self._outbox: deque[tuple[str, bytes]] = deque()
        self._wake = asyncio.Event()
        self._old = self._closing = False
        self._writer = asyncio.ensure_future(self._write())
        self._reader = asyncio.ensure_future(self._read())

    def takes(self, now: float) -> bool:
        """Whether it takes a request. Once it is too old, it ends after the answers that are due, or when nobody waits
        for those any more: a server that never gives them would keep their places for good."""
        if now >= self._old_at and not self._old:
            self._old = True
            self._wake.set()
        if self._old and self.waiting and all(future.done() for future in self.waiting.values()):
            self._call.cancel()
        return not self._old

    def send(self, request_id: str, message: bytes, future: asyncio.Future[pb.ModelInferResponse]) -> None:
        self.waiting[request_id] = future
        self._outbox.append((request_id, message))
        self._wake.set()

    async def close(self) -> None:
        self._closing = True
        self._call.cancel()
        self._writer.cancel()
        await asyncio.wait({self._writer, self._reader})

    async def _write(self) -> None:
        # An error of a write is the stream's: the reader hears why it ended.
        with suppress(grpc.RpcError, asyncio.InvalidStateError):
            while True:
                while self._outbox:
                    if messages := self._next():
                        await self._call.write(packed.pack(messages) if self._packed else messages[0])
                if self._old:
                    await self._call.done_writing()
                    return
                self._wake.clear()
                await self._wake.wait()

    def _next(self) -> list[bytes]:
        """The requests of the next message; none where nobody waits for them any more."""
        messages: list[bytes] = []
        size = 0
        while self._outbox and (not messages or packed.fits(self._packed, messages, size, self._outbox[0][1])):
            request_id, message = self._outbox.popleft()
            future = self.waiting.get(request_id)
            if future is None:  # a server has answered what it was not asked: no reason to ask
                continue
            if future.done():
                self._take(request_id)
                continue
            messages.append(message)
            size += len(message)
        return messages

    async def _read(self) -> None:
        error = InferenceError("UNAVAILABLE", "the server ended the stream")
        try:
            async for raw in self._call:
                for each in packed.unpack(raw) if self._packed else (raw,):
                    self._deliver(pb.ModelStreamInferResponse.FromString(each))
        except grpc.RpcError as ended:
            error = inference_error(ended)
        except asyncio.CancelledError:  # gRPC's way to say that the call was cancelled, by us or by the server
            error = InferenceError("CANCELLED", "the server cancelled the stream")
        except _Foreign as foreign:
            error = InferenceError("INTERNAL", str(foreign))
            self._call.cancel()
        except DecodeError:
            error = InferenceError("INTERNAL", "an answer in the stream cannot be read")
            self._call.cancel()
        finally:
            self._end(error)

    def _deliver(self, message: pb.ModelStreamInferResponse) -> None:
        if message.infer_response.id not in self.waiting:
            raise _Foreign("the server answers in a stream without the request's id")
        future = self._take(message.infer_response.id)
        if future.done():
            return
        if message.error_message:
            future.set_exception(stream_error(message))
        else:
            future.set_result(message.infer_response)

    def _take(self, request_id: str) -> asyncio.Future[pb.ModelInferResponse]:
        self._release()
        return self.waiting.pop(request_id)

    def _end(self, error: InferenceError) -> None:
        """Of the stream: each of its calls has failed."""
        self._old = True
        self._ended(self)
        self._writer.cancel()
        for request_id in list(self.waiting):
            future = self._take(request_id)
            if not future.done():
                future.set_exception(client_closed() if self._closing else stream_ended(error, self._packed))


class _Foreign(Exception):
    """The server does not do streams as the protocol's dialect has them."""


def _load(stream: _Stream) -> int:
    return len(stream.waiting)


def _expire(future: asyncio.Future[pb.ModelInferResponse]) -> None:
    if not future.done():
        future.set_exception(InferenceError("DEADLINE_EXCEEDED", "no answer came in time"))
